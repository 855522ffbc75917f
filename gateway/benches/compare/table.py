"""The report: a table for each row, the ratios, the machine, and the book's page."""

import datetime
import os
import platform
import re
import subprocess
from pathlib import Path
from statistics import median

from loads import Values
from rows import ROWS, Row

PAGE = Path(__file__).resolve().parents[3] / "docs/src/BENCH.md"
TEMPLATE = Path(__file__).resolve().parent / "page.tmpl"
# The ratios that the project wants to hold: a figure of one subject (CPU time if nothing else is said), divided by that of
# another.
RATIOS = (
    ("bare / forwarder", "CPU µs", "gateway bare", "forwarder"),
    ("trained bare / forwarder", "CPU µs", "trained bare", "forwarder"),
    ("bare / nginx bare", "CPU µs", "gateway bare", "nginx bare"),
    ("trained bare / nginx bare", "CPU µs", "trained bare", "nginx bare"),
    ("equal / HAProxy equal", "CPU µs", "gateway equal", "HAProxy equal"),
    ("trained equal / HAProxy equal", "CPU µs", "trained equal", "HAProxy equal"),
    ("trained equal / nginx equal", "CPU µs", "trained equal", "nginx equal"),
    ("p99: equal / HAProxy equal", "p99 ms", "gateway equal", "HAProxy equal"),
    ("p99: trained equal / HAProxy equal", "p99 ms", "trained equal", "HAProxy equal"),
)
Runs = dict[str, list[Values]]  # the rounds of each subject


class Results:
    """Figures of all rows, and the reasons why a row or subject has none."""

    def __init__(self, rounds: int, seconds: float):
        self.rounds, self.seconds = rounds, seconds
        self.runs: dict[str, Runs] = {}
        self.notes: dict[str, str] = {}
        self.absent: dict[str, str] = {}  # subjects, each with the reason
        self.failed = False
        self.measured = self.disturbed = 0  # runs, and those that began while other programs used the cores

    def note(self, row: Row, text: str, failed: bool = False) -> None:
        """Records why a row has no figures."""
        self.notes[row.name] = text
        self.failed |= failed
        if failed:
            self.runs.pop(row.name, None)

    def tables(self) -> str:
        """Returns the tables of all rows and of the ratios, in Markdown."""
        rows = [row for row in ROWS if row.name in self.runs or row.name in self.notes]
        warning = f"**Other programs used the cores in {self.disturbed} of {self.measured} runs: do not rely on the figures.**"
        parts = [warning] if self.disturbed else []
        parts += [f"Not measured: {subject}, because {reason}." for subject, reason in self.absent.items()]
        return "\n\n".join([*parts, *map(self._table, rows), "### Ratios", self._ratios(rows)])

    def _table(self, row: Row) -> str:
        parts = [f"### {row.name}", row.about + "."] + ([f"**{self.notes[row.name]}**"] if row.name in self.notes else [])
        if runs := self.runs.get(row.name):
            columns = list(next(iter(runs.values()))[0])
            first = columns[0]
            base = medians(runs["none"])[first] if "none" in runs else None
            heads = ["", first, "lowest to highest", *(["more than none"] if base else []), *columns[1:]]
            lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
            for subject, rounds in runs.items():
                middle, own = medians(rounds), [values[first] for values in rounds]
                more = [f"{middle[first] - base:+.1f}"] if base else []
                lines.append([subject, figure(middle[first]), f"{figure(min(own))} to {figure(max(own))}", *more,
                              *(figure(middle[column]) for column in columns[1:])])
            parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
        return "\n\n".join(parts)

    def _ratios(self, rows: list[Row]) -> str:
        lines = [["", *(title for title, *_ in RATIOS)], ["---", *["---:"] * len(RATIOS)]]
        for row in rows:
            runs = {subject: medians(rounds) for subject, rounds in self.runs.get(row.name, {}).items()}
            cells = [f"{runs[over][column] / runs[under][column]:.2f}"
                     if over in runs and under in runs and runs[under].get(column) else "–"
                     for _, column, over, under in RATIOS]
            if set(cells) != {"–"}:
                lines.append([row.name, *cells])
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def write_page(self) -> None:
        """Writes the book's page."""
        names = {"RESULTS": self.tables(), "MACHINE": machine(), "ROUNDS": str(self.rounds), "SECONDS": f"{self.seconds:g}"}
        PAGE.write_text(re.sub(r"@([A-Z]+)@", lambda found: names[found[1]], TEMPLATE.read_text()))


def medians(rounds: list[Values]) -> Values:
    """Returns the median of each column."""
    return {column: median(values[column] for values in rounds) for column in rounds[0]}


def figure(value: float) -> str:
    """Returns a number with about three digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def machine() -> str:
    """Returns the date, the machine, and the versions of the peers and tools."""
    models = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    commands = ("nginx -v", "haproxy -v", "envoy --version", "wrk -v", "h2load --version", "openssl version")
    versions = [version for command in commands if (version := first_version(command))]
    return (f"{datetime.date.today():%-d %B %Y}; {os.cpu_count()} cores, {models[0] if models else platform.machine()}; "
            f"Linux {platform.release().split('-')[0]}; {', '.join(versions)}; Python {platform.python_version()}")


def first_version(command: str) -> str | None:
    """Returns a tool's name and version; `None` if it is not installed."""
    try:
        done = subprocess.run(command.split(), capture_output=True, text=True)
    except OSError:
        return None
    found = re.search(r"\d+\.\d+(\.\d+)?", done.stdout + done.stderr)
    return f"{command.split()[0]} {found[0]}" if found else None
