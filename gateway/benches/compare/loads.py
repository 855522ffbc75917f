"""Loads on a subject: by wrk, by h2load, and by clients.py. Each refuses errors."""

import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from clients import tls_context
from peers import ANSWER, Bench
from processes import Failure, Process, number, run_tool

HERE = Path(__file__).resolve().parent
CIPHER = "TLS_AES_128_GCM_SHA256"
Values = dict[str, float]
Load = Callable[[Bench, float], tuple[int, float, float]]  # of the seconds: count, rate, p99 in seconds


def loaded(bench: Bench, process: Process, load: Load) -> Values:
    """Returns the figures of a subject under load, after a short load that does not count."""
    load(bench, min(1, bench.seconds))
    before = process.cpu()
    count, rate, p99 = load(bench, bench.seconds)
    return {"CPU µs": (process.cpu() - before) / count * 1e6, "per second": rate, "p99 ms": p99 * 1e3}


def results(output: str, least: int = 0) -> tuple[int, float, float]:
    """Reads the line of results of load.lua or clients.py, and refuses errors and answers shorter than `least`."""
    found = [line.split()[1:] for line in output.splitlines() if line.startswith("RESULT ")]
    if not found:
        raise Failure(f"the load printed no results: {output[-300:]!r}")
    count, duration, size, p99, status, errors = map(int, found[0])
    if status or errors or not count:
        raise Failure(f"{count} requests, of which {status} did not get 2xx; {errors} socket errors")
    if size < count * least:
        raise Failure(f"{size} bytes came for {count} requests, less than {least} each")
    return count, count / duration * 1e6, p99 / 1e6


def wrk(path: str = "/", tls: bool = False, connections: int = 64, upload: int = 0, least: int = len(ANSWER),
        fields: tuple[str, ...] = ()) -> Load:
    """Returns a load by wrk, with one thread."""
    def load(bench: Bench, seconds: float) -> tuple[int, float, float]:
        if tls:
            check_tls(bench.port("HTTPS"))
        url = f"https://127.0.0.1:{bench.port('HTTPS')}{path}" if tls else f"http://127.0.0.1:{bench.port('HTTP')}{path}"
        command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", str(HERE / "load.lua")]
        for field in fields:
            command += ["-H", field]
        return results(run_tool([*command, url], seconds, {"BENCH_UPLOAD": str(upload)}), least)
    return load


def h2load(bench: Bench, seconds: float) -> tuple[int, float, float]:
    """A load of 8 HTTP/2 connections, each with 8 requests in flight. Its log has the time of each request."""
    check_tls(bench.port("HTTPS"))
    with tempfile.NamedTemporaryFile(dir=bench.directory) as log:
        Path(log.name).unlink()  # h2load appends to a file that is there
        output = run_tool(["h2load", "-t1", "-c8", "-m8", "-D", str(max(1, round(seconds))), f"--log-file={log.name}",
                           f"https://127.0.0.1:{bench.port('HTTPS')}/"], seconds)
        lines = [line.split("\t") for line in Path(log.name).read_text().splitlines()]
        Path(log.name).touch()
    bad = {status for _, status, _ in lines if status != "200"}
    for kind in ("failed", "errored", "timeout"):
        if number(rf"(\d+) {kind}", output):
            bad.add(kind)
    if bad or not lines:
        raise Failure(f"h2load: {len(lines)} requests, with {sorted(bad)}")
    times = sorted(int(time) for _, _, time in lines)
    return len(times), number(r"finished in .*?, ([\d.]+) req/s", output), times[len(times) * 99 // 100] / 1e6


def check_tls(port: int) -> None:
    """Refuses a subject that does not agree on the same TLS as the others."""
    with tls_context().wrap_socket(socket.create_connection(("127.0.0.1", port))) as connection:
        if (connection.version(), connection.cipher()[0]) != ("TLSv1.3", CIPHER):
            raise Failure(f"TLS is {connection.version()} with {connection.cipher()[0]}, not TLSv1.3 with {CIPHER}")


def python_load(*arguments: str, port: str = "HTTP") -> Load:
    """Returns a load by clients.py."""
    def load(bench: Bench, seconds: float) -> tuple[int, float, float]:
        client, *more = arguments
        return results(run_tool([sys.executable, str(HERE / "clients.py"), client, str(bench.port(port)), str(seconds), *more],
                                seconds))
    return load
