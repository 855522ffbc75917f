"""The proxies that are compared, and the origin behind them. Their configurations are templates in ../peers."""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from processes import LOAD_CORES, PROXY_CORE, Process, missing, reserve_port, run_tool

TEMPLATES = Path(__file__).resolve().parent.parent / "peers"
ANSWER = "0" * 66
MIB = 1 << 20
BARE = ("forwarder", "gateway bare", "trained bare", "nginx bare", "HAProxy bare", "Envoy bare")
EQUAL = ("gateway equal", "trained equal", "nginx equal", "HAProxy equal")
FILES = {
    "gateway bare": "gateway-bare.toml", "gateway equal": "gateway-equal.toml", "gateway default": "gateway-default.toml",
    "trained bare": "gateway-bare.toml", "trained equal": "gateway-equal.toml", "trained default": "gateway-default.toml",
    "nginx bare": "nginx-bare.conf", "nginx equal": "nginx-equal.conf", "HAProxy bare": "haproxy-bare.cfg",
    "HAProxy equal": "haproxy-equal.cfg", "Envoy bare": "envoy-bare.yaml"}
Edit = Callable[[str], str]


@dataclass
class Bench:
    """What all rows share: binaries, ports, certificate, and the directory of the run."""

    gateway: Path
    trained: Path
    forwarder: Path
    seconds: float
    directory: Path
    names: dict[str, str] = field(default_factory=dict)
    origin: Process | None = None

    def __post_init__(self) -> None:
        for name in ("HTTP", "HTTPS", "METRICS", "ADMIN", "ORIGIN1", "ORIGIN2", "ORIGIN3"):
            self.names[name] = str(reserve_port())
        self.sockets = {f"ORIGIN{at}": str(reserve_port()) for at in (1, 2, 3)}  # ports of the WebSocket origin
        cert, key, pem = (self.directory / name for name in ("cert.pem", "key.pem", "both.pem"))
        run_tool(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
                  "30", "-subj", "/CN=bench.test", "-addext", "subjectAltName=DNS:bench.test", "-keyout", str(key),
                  "-out", str(cert)], 10)
        pem.write_bytes(cert.read_bytes() + key.read_bytes())
        self.names |= {"CERT": str(cert), "KEY": str(key), "PEM": str(pem), "ANSWER": ANSWER, "MORE": ""}
        (self.directory / "down").write_bytes(b"x" * MIB)
        self.directory.chmod(0o755)  # nginx as root gives its work to another user

    def port(self, name: str) -> int:
        """Returns the port of a name: HTTP, HTTPS, METRICS."""
        return int(self.names[name])

    def lacks(self, subject: str) -> str | None:
        """Returns the reason why a subject cannot run; `None` if it can."""
        if subject.startswith("trained"):
            return None if os.access(self.trained, os.X_OK) else f"{self.trained} is not there (make release)"
        if subject not in FILES or subject.startswith("gateway"):  # the forwarder, the gateway, and its policies
            binary = self.forwarder if subject == "forwarder" else self.gateway
            return None if os.access(binary, os.X_OK) else f"{binary.name} is not built (cargo build --release -p {binary.name})"
        return missing(subject.split()[0].lower())

    def start_origin(self) -> None:
        """Starts the HTTP origin, which serves until the run ends."""
        file, logs = self._write("origin.conf", self.directory, str, {})
        self.origin = Process("origin", ["nginx", "-c", str(file)], LOAD_CORES, logs / "output.log")
        self.origin.wait_for("HTTP/1.1 200", self.port("ORIGIN1"))

    def _write(self, template: str, directory: Path, edit: Edit, names: dict[str, str]) -> tuple[Path, Path]:
        logs = directory / "logs"  # apart from the configuration, whose directory the gateway watches
        (directory / "config").mkdir()
        logs.mkdir()
        names = self.names | names | {"RUN": str(directory), "LOGS": str(logs)}
        file = directory / "config" / template
        file.write_text(re.sub(r"@([A-Z0-9]+)@", lambda found: names[found[1]], edit((TEMPLATES / template).read_text())))
        return file, logs

    @contextlib.contextmanager
    def subject(self, name: str, edit: Edit = str, expected: str = "HTTP/1.1 200", **names: str) -> Iterator[Process]:
        """Starts a subject on the proxy's core, waits for its first answer (the expected one), and ends it. `edit` changes
        its template, `names` are values of placeholders."""
        directory = Path(tempfile.mkdtemp(dir=self.directory))
        directory.chmod(0o755)
        env: dict[str, str] = {}
        if name == "forwarder":
            (directory / "logs").mkdir()
            file, logs = directory, directory / "logs"
            env["LISTEN_ADDR"] = f"127.0.0.1:{self.names['HTTP']}"
        else:
            file, logs = self._write(FILES[name], directory, edit, names)
        command = {
            "forwarder": [str(self.forwarder), f"127.0.0.1:{(self.names | names)['ORIGIN1']}"],
            "gateway": [str(self.gateway), "--config", str(file)],
            "trained": [str(self.trained), "--config", str(file)],
            "nginx": ["nginx", "-c", str(file)],
            "HAProxy": ["haproxy", "-db", "-f", str(file)],
            "Envoy": ["envoy", "-c", str(file), "--concurrency", "1", "--disable-hot-restart", "-l", "error"],
        }[name.split()[0]]
        process = Process(name, command, PROXY_CORE, logs / "output.log", env)
        process.config = file
        try:
            process.wait_for(expected, self.port("HTTP"))
            yield process
        finally:
            process.end()
            shutil.rmtree(directory, ignore_errors=True)
