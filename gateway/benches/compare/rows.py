"""The rows of the benchmark: for each, what is measured, on which subjects, and how."""

import base64
import hashlib
import hmac
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from clients import idle_connection
from loads import HERE, Load, Values, h2load, loaded, python_load, wrk
from peers import BARE, EQUAL, MIB, Bench
from processes import LOAD_CORES, Failure, Process

IDLE = 2000
HOSTS = 10_000


@dataclass(frozen=True)
class Row:
    """A measurement of several subjects in turns."""

    name: str
    about: str
    subjects: tuple[str, ...]
    run: Callable[[Bench, str], Values]
    tools: tuple[str, ...] = ()
    load: bool = True  # takes --seconds, and has CPU time, rate and p99

    def cost(self, seconds: float) -> float:
        """Returns the estimated duration of one run of one subject, in seconds."""
        return seconds + min(1, seconds) + 0.9 if self.load else 4


def under(load: Load) -> Callable[[Bench, str], Values]:
    """Returns the run of a row that puts each subject under `load`."""
    def run(bench: Bench, subject: str) -> Values:
        with bench.subject(subject) as process:
            return loaded(bench, process, load)
    return run


def websockets(bench: Bench, subject: str) -> Values:
    """100 WebSockets through a subject, to an origin of Python."""
    origin = Process("WebSocket origin", [sys.executable, str(HERE / "clients.py"), "websocket-origin",
                                          *bench.sockets.values()], LOAD_CORES, bench.directory / "websocket-origin.log")
    try:
        origin.wait_for("HTTP/1.1 200", int(bench.sockets["ORIGIN1"]))
        with bench.subject(subject, **bench.sockets) as process:
            return loaded(bench, process, python_load("websockets"))
    finally:
        origin.end()


def token(secret: bytes) -> str:
    """Returns a JWT (HS256) that is valid for a day."""
    part = lambda data: base64.urlsafe_b64encode(data).rstrip(b"=")
    claims = json.dumps({"sub": "bench", "exp": int(time.time()) + 86400})
    signed = part(b'{"alg":"HS256","typ":"JWT"}') + b"." + part(claims.encode())
    return (signed + b"." + part(hmac.new(secret, signed, hashlib.sha256).digest())).decode()


SECRET = b"a-secret-of-the-benchmark-with-more-than-32-bytes"
KEY = "a-key-of-the-benchmark"
# The same request for all policies, so that only the policy differs.
POLICY_FIELDS = (f"Authorization: Bearer {token(SECRET)}", f"X-Api-Key: {KEY}", "Accept-Encoding: gzip",
                 "Origin: https://app.example.com")
# Each policy: what replaces what in gateway-bare.toml; "" appends.
POLICIES: dict[str, tuple[str, str]] = {
    "none": ("", ""),
    "access log (JSON, file)": ("access_log = false", "access_log = true"),
    "metrics": ("[metrics]\nenabled = false", '[metrics]\nlisten_addr = "127.0.0.1:@METRICS@"'),
    "rate limit": ("", "[rate_limit]\nrequests = 16000000"),
    "header rules (two fields)": (
        "request_set = {}", 'request_set = { "X-Proxy" = "bench" }\nresponse_set = { "X-Served-By" = "bench" }'),
    "security headers (three fields)": (
        'x_content_type_options = ""\nx_frame_options = ""\nreferrer_policy = ""\n', ""),
    "CORS": ("", '[cors]\nallow_origins = ["https://app.example.com"]'),
    "compression, body below min_bytes": ("", "[compression]"),
    "compression, 66-byte body to gzip": ("", "[compression]\nmin_bytes = 1"),
    "JWT (HS256)": ("", '[auth]\nkind = "jwt"\nsecret_file = "@RUN@/../jwt.secret"'),
    "API key": ("", '[auth]\nkind = "api_key"\nkeys_file = "@RUN@/../keys"'),
    "network access list": ("", '[access]\nallow = ["127.0.0.0/8"]'),
    "circuit breaker": ("[circuit_breaker]\nenabled = false", "[circuit_breaker]"),
    "retries": ("attempts = 1", "attempts = 3"),
    "least connections, three probed backends": (
        "[health_check]\nenabled = false",
        '[balancing]\nalgorithm = "least_connections"\n[health_check]\npath = "/health"\n' + "".join(
            f'[[backends]]\nid = "b{at}"\naddress = "127.0.0.1:@ORIGIN{at}@"\ntags = ["all"]\n' for at in (2, 3))),
}


def policy(bench: Bench, name: str) -> Values:
    """The gateway with one policy, under the small load. Only JWT and API key need an Authorization."""
    (bench.directory / "jwt.secret").write_bytes(SECRET)
    (bench.directory / "keys").write_text(f"bench:{hashlib.sha256(KEY.encode()).hexdigest()}\n")
    for secret in ("jwt.secret", "keys"):
        (bench.directory / secret).chmod(0o600)
    old, new = POLICIES[name]

    def edit(template: str) -> str:
        if old not in template:
            raise Failure(f"gateway-bare.toml has no {old!r} for the policy {name!r}")
        return template.replace(old, new, 1) if old else f"{template}\n{new}\n"

    with bench.subject("gateway bare", edit, "HTTP/1.1 401" if "[auth]" in new else "HTTP/1.1 200") as process:
        return loaded(bench, process, wrk(fields=POLICY_FIELDS, least=20))


def idle(kind: str) -> Callable[[Bench, str], Values]:
    """Returns the run of a row that measures idle connections of a kind."""
    def run(bench: Bench, subject: str) -> Values:
        port = bench.port("HTTP" if kind == "plain" else "HTTPS")
        with bench.subject(subject) as process:
            for connection in [idle_connection(kind, port) for _ in range(100)]:
                connection.close()
            time.sleep(0.3)
            before = process.resident()
            connections = [idle_connection(kind, port) for _ in range(IDLE)]
            time.sleep(0.5)
            grown = process.resident() - before
            for connection in connections:
                connection.close()
            return {"KiB a connection": grown / IDLE / 1024}
    return run


def start(bench: Bench, subject: str) -> Values:
    """Time to the first answer, and resident memory half a second later."""
    with bench.subject(subject) as process:
        taken = time.monotonic() - process.started
        time.sleep(0.5)
        return {"ms to the first answer": taken * 1e3, "MiB resident": process.resident() / MIB}


def hosts(subject: str, revision: int) -> str:
    """Returns the virtual hosts of a configuration, with a response field that tells its revision."""
    if subject.startswith("nginx"):
        block = "server {{ listen 127.0.0.1:@HTTP@; server_name h{0}.test; location / {{ proxy_pass http://all; }} }}\n"
        opening = f"add_header X-Revision r{revision};\n"
    else:
        block = '[[virtual_hosts]]\ndomain = "h{0}.test"\nenabled_backends_tag = "all"\n'
        opening = ""
    return opening + "".join(block.format(at) for at in range(HOSTS))


def reload(bench: Bench, subject: str) -> Values:
    """Time from SIGHUP to the first response of the new configuration, and the CPU time that it took."""
    more = {at: hosts(subject, at).replace("@HTTP@", bench.names["HTTP"]) for at in (1, 2)}
    field = lambda text, at: text.replace("request_set = {}", f'response_set = {{ "X-Revision" = "r{at}" }}', 1)
    with bench.subject(subject, lambda text: field(text, 1), MORE=more[1]) as process:
        time.sleep(0.3)
        text = process.config.read_text()
        after = text.replace(more[1], more[2]).replace('"r1"', '"r2"')
        new = process.config.with_suffix(".new")
        new.write_text(after)
        before = process.cpu()
        os.replace(new, process.config)
        began = time.monotonic()
        os.kill(process.child.pid, signal.SIGHUP)
        process.wait_for(": r2", bench.port("HTTP"))
        return {"ms to applied": (time.monotonic() - began) * 1e3, "CPU ms": (process.cpu() - before) * 1e3}


WRK = ("wrk",)
ALL = BARE + EQUAL
WITH_TLS = ALL[1:]  # sample 1 has no TLS listener
ROWS = (
    Row("small", "HTTP/1.1: GET with a 66-byte answer, 64 kept connections (wrk)", ALL, under(wrk()), WRK),
    Row("http2", "HTTP/2 over TLS: the same answer, 8 connections with 8 requests in flight each (h2load)", WITH_TLS,
        under(h2load), ("h2load",)),
    Row("tls", "HTTP/1.1 over TLS 1.3: the same answer, 64 kept connections (wrk)", WITH_TLS, under(wrk(tls=True)), WRK),
    Row("handshake-full", "TLS 1.3: a full handshake (ECDSA P-256) and one request for each connection", WITH_TLS,
        under(python_load("handshakes", "full", port="HTTPS"))),
    Row("handshake-resumed", "TLS 1.3: a resumed handshake and one request for each connection", WITH_TLS,
        under(python_load("handshakes", "resumed", port="HTTPS"))),
    Row("down", "HTTP/1.1: a body of 1 MiB from the origin, 16 kept connections (wrk)", ALL,
        under(wrk("/down", connections=16, least=MIB)), WRK),
    Row("up", "HTTP/1.1: a body of 1 MiB to the origin, 16 kept connections (wrk)", ALL,
        under(wrk("/up", connections=16, upload=MIB)), WRK),
    Row("websocket", "100 WebSockets, each with one 64-byte message on its way to the origin or back", ALL, websockets),
    Row("policies", "The gateway with one policy at a time, for the load of `small`", tuple(POLICIES), policy, WRK),
    *(Row(f"idle-{kind.lower().replace('/', '')}", f"Memory of an idle kept connection: {kind}, {IDLE} connections after one "
          "request each", BARE if kind == "plain" else BARE[1:], idle(kind), load=False)
      for kind in ("plain", "TLS", "HTTP/2")),
    Row("start", "Start: time to the first answer, and resident memory then", (*ALL, "gateway default", "trained default"), start, load=False),
    Row("reload", f"Reload with {HOSTS} virtual hosts: time from SIGHUP to the first response of the new configuration",
        ("gateway bare", "nginx bare"), reload, load=False),
)
