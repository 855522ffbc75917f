"""The gateway beside nginx, HAProxy, Envoy and a bare Pingora forwarder: CPU time, latency, memory.

    make bench        or   python3 gateway/benches/compare [--rounds N] [--seconds S] [--only ROW] [--write]

Prints tables in Markdown. Needs wrk, h2load, nginx, haproxy and openssl; a row whose tool is missing is skipped. The proxy has
one core, the load and the origin another. All addresses are of 127.0.0.1, on free ports."""

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peers import Bench
from processes import Failure, Process, disturbed, missing, prepare
from rows import ROWS, Row
from table import PAGE, Results


def options() -> argparse.Namespace:
    """Returns the options of the command line."""
    parser = argparse.ArgumentParser(prog="compare", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each row; the tables show medians (default 5)")
    parser.add_argument("--seconds", type=float, default=5, help="duration of each load (default 5)")
    parser.add_argument("--only", metavar="ROW", action="append", help="only this row; may be given several times")
    parser.add_argument("--binary", type=Path, default=Path("target/release/gateway"), help="the gateway's binary")
    parser.add_argument("--trained", type=Path, default=Path("target/trained/gateway"), help="what `make release` has built")
    parser.add_argument("--forwarder", type=Path, default=Path("target/release/simple_proxy"), help="sample 1's binary")
    parser.add_argument("--write", action="store_true", help=f"write the book's page, {'/'.join(PAGE.parts[-3:])}")
    parser.add_argument("--train", action="store_true", help="only load the gateway, as `make release` does; no tables")
    parser.add_argument("--list", action="store_true", help="list the rows")
    chosen = parser.parse_args()
    unknown = set(chosen.only or ()) - {row.name for row in ROWS}
    if unknown or chosen.rounds < 1 or chosen.seconds < 1:
        parser.error(f"no row {sorted(unknown)}; --list shows them" if unknown else "--rounds and --seconds are at least 1")
    return chosen


def plan(bench: Bench, rows: list[Row], results: Results) -> list[tuple[Row, list[str]]]:
    """Returns the rows that can run, each with the subjects that are there, and records what is missing."""
    planned = []
    for row in rows:
        if reasons := [reason for tool in row.tools if (reason := missing(tool))]:
            results.note(row, f"Skipped: {'; '.join(reasons)}.")
            continue
        reasons = {subject: bench.lacks(subject) for subject in row.subjects}
        results.absent |= {subject: reason for subject, reason in reasons.items() if reason}
        planned.append((row, [subject for subject in row.subjects if not reasons[subject]]))
    return planned


def measure(bench: Bench, row: Row, subjects: list[str], results: Results) -> None:
    """Runs all rounds of a row, the subjects in turns."""
    runs = results.runs.setdefault(row.name, {})
    for at in range(results.rounds):
        for subject in subjects:
            print(f"\r\033[K{row.name}: round {at + 1} of {results.rounds}, {subject}", end="", file=sys.stderr, flush=True)
            results.measured += 1
            results.disturbed += disturbed()
            try:
                runs.setdefault(subject, []).append(row.run(bench, subject))
            except (Failure, OSError, subprocess.SubprocessError) as error:
                print(f"\r\033[KFAILED: {row.name}, {subject}: {error}", file=sys.stderr)
                results.note(row, f"Failed: {subject}: {error}", failed=True)
                return


def main() -> int:
    """Runs what the command line asks for. Returns 1 if a row failed."""
    chosen = options()
    rows = [row for row in ROWS if not chosen.only or row.name in chosen.only]
    if chosen.list:
        print("\n".join(f"{row.name:18} {row.about}" for row in rows))
        return 0
    for tool in ("nginx", "openssl"):
        if reason := missing(tool):
            sys.exit(f"compare: {reason}; the origin is an nginx, and openssl makes its certificate")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that `finally` ends the processes
    prepare()
    directory = Path(tempfile.mkdtemp(prefix="compare-"))
    if chosen.train:
        chosen.rounds, Process.gently = 1, True
    results = Results(chosen.rounds, chosen.seconds)
    bench = Bench(chosen.binary.resolve(), chosen.trained.resolve(), chosen.forwarder.resolve(), chosen.seconds, directory)
    try:
        planned = plan(bench, rows, results)
        if chosen.train and results.notes:
            sys.exit(f"compare: nothing to train with: {' '.join(sorted(set(results.notes.values())))}")
        if chosen.train:
            of_gateway = [(row, [name for name in subjects if row.name == "policies" or name.startswith("gateway")])
                          for row, subjects in planned]
            planned = [(row, subjects) for row, subjects in of_gateway if row.load and subjects]
        total = sum(len(subjects) * row.cost(chosen.seconds) for row, subjects in planned) * chosen.rounds
        print(f"compare: rows: {len(planned)}, rounds: {chosen.rounds}, duration: about {total / 60:.0f} min", file=sys.stderr)
        began = time.monotonic()
        bench.start_origin()
        for row, subjects in planned:
            measure(bench, row, subjects, results)
    finally:
        if bench.origin:
            bench.origin.end()
        shutil.rmtree(directory, ignore_errors=True)
    print(f"\r\033[Kcompare: took {(time.monotonic() - began) / 60:.1f} min", file=sys.stderr)
    if chosen.train:
        return int(results.failed)
    print(results.tables())
    if chosen.write:
        results.write_page()
    return int(results.failed)


sys.exit(main())
