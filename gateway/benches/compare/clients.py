"""Clients and an origin that no tool offers: TLS handshakes, WebSockets, idle connections.

Most are programs of their own: clients.py handshakes PORT SECONDS full|resumed, websockets PORT SECONDS, and
websocket-origin PORT PORT PORT. The first two print a line like load.lua's."""

import asyncio
import socket
import ssl
import struct
import sys
import threading
import time

REQUEST = b"GET / HTTP/1.1\r\nHost: bench.test\r\n\r\n"
CLOSING = REQUEST[:-2] + b"Connection: close\r\n\r\n"
UPGRADE = (REQUEST[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
           b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
ACCEPT = (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
          b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")  # the key's, RFC 6455 1.3
PAYLOAD = b"m" * 64
MESSAGE = struct.pack("!BBI", 0x82, 0x80 | len(PAYLOAD), 0) + PAYLOAD  # masked with zeros, so the echo is a copy
ECHO = struct.pack("!BB", 0x82, len(PAYLOAD)) + PAYLOAD


def tls_context(alpn: str = "http/1.1") -> ssl.SSLContext:
    """Returns a client's context that accepts the run's self-signed certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols([alpn])
    return context


def report(times: list[float], elapsed: float) -> None:
    """Prints the line of results."""
    times.sort()
    print(f"RESULT {len(times)} {elapsed * 1e6:.0f} 0 {times[len(times) * 99 // 100] * 1e6:.0f} 0 0")


def connect_once(context: ssl.SSLContext, port: int, session: ssl.SSLSession | None) -> ssl.SSLSession:
    """Opens a connection, sends one request, and returns the session, whose ticket came with the response."""
    with context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=10), session=session,
                             server_hostname="bench.test") as connection:
        connection.sendall(CLOSING)
        response = b""
        while data := connection.recv(65536):
            response += data
        if not response.startswith(b"HTTP/1.1 200"):
            sys.exit(f"a connection got {response[:60]!r}")
        if connection.session_reused != (session is not None):
            sys.exit(f"session_reused is {connection.session_reused}")
        return connection.session


def handshakes(port: int, seconds: float, resumed: bool) -> None:
    """Opens connections in four threads. Each connection is a handshake and one request."""
    times: list[float] = []
    failed = []
    end = time.monotonic() + seconds

    def work() -> None:
        try:
            context = tls_context()
            session = connect_once(context, port, None) if resumed else None
            while (began := time.monotonic()) < end:
                latest = connect_once(context, port, session)
                session = latest if resumed else None
                times.append(time.monotonic() - began)
        except (OSError, SystemExit) as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        sys.exit(f"handshakes: {failed[0]}")
    report(times, seconds)


class EchoServer(asyncio.Protocol):
    """The origin's side of a WebSocket; other requests (probes) get 200."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport, self.open, self.left = transport, False, b""

    def data_received(self, data: bytes) -> None:
        self.left += data
        if not self.open:
            head, end, self.left = self.left.partition(b"\r\n\r\n")
            self.open = b"upgrade: websocket" in head.lower()
            self.transport.write(ACCEPT if self.open else b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            if b"connection: close" in head.lower():
                self.transport.close()
        while len(self.left) >= len(MESSAGE):
            self.transport.write(struct.pack("!BB", 0x82, len(PAYLOAD)) + self.left[6:len(MESSAGE)])
            self.left = self.left[len(MESSAGE):]


class EchoClient(asyncio.Protocol):
    """The client's side: the next message follows the echo of the last."""

    times: list[float] = []
    fault = ""

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport, self.left, self.open = transport, b"", False
        transport.write(UPGRADE)

    def data_received(self, data: bytes) -> None:
        self.left += data
        if not self.open and b"\r\n\r\n" in self.left:
            head, _, self.left = self.left.partition(b"\r\n\r\n")
            self.open = head.startswith(b"HTTP/1.1 101")
            EchoClient.fault = EchoClient.fault or ("" if self.open else f"upgrade refused: {head[:60]!r}")
        elif len(self.left) >= len(ECHO):
            EchoClient.times.append(time.monotonic() - self.began)
            EchoClient.fault = EchoClient.fault or ("" if self.left == ECHO else f"wrong echo: {self.left[:60]!r}")
            self.left = b""
        else:
            return
        self.began = time.monotonic()
        self.transport.write(MESSAGE)

    def connection_lost(self, error: Exception | None) -> None:
        EchoClient.fault = EchoClient.fault or f"connection lost: {error}"


async def websockets(port: int, seconds: float) -> None:
    """Sends messages on 100 WebSockets."""
    loop = asyncio.get_running_loop()
    for _ in range(100):
        await loop.create_connection(EchoClient, "127.0.0.1", port)
    await asyncio.sleep(seconds)
    if EchoClient.fault or not EchoClient.times:
        sys.exit(f"websockets: {EchoClient.fault or 'no message'}")
    report(EchoClient.times, seconds)


async def websocket_origin(ports: list[int]) -> None:
    """Echoes messages until it is killed."""
    for port in ports:
        await asyncio.get_running_loop().create_server(EchoServer, "127.0.0.1", port, backlog=1024)
    await asyncio.Future()


def idle_connection(kind: str, port: int) -> socket.socket:
    """Returns a connection (plain, TLS or HTTP/2) on which one request got 200."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    if kind != "plain":
        connection = tls_context("h2" if kind == "HTTP/2" else "http/1.1").wrap_socket(connection, server_hostname="bench.test")
    if kind == "HTTP/2":
        exchange_http2(connection)
        return connection
    connection.sendall(REQUEST)
    response = b""
    while not response.endswith(b"0" * 66) and (data := connection.recv(4096)):
        response += data
    if not response.startswith(b"HTTP/1.1 200"):
        raise OSError(f"a connection got {response[:60]!r}")
    return connection


def exchange_http2(connection: socket.socket) -> None:
    """Sends one request over HTTP/2 with fields of HPACK's static table, and reads the response."""
    block = bytes([0x82, 0x87, 0x84, 0x01, 10]) + b"bench.test"
    frame = lambda kind, flags, stream, payload=b"": struct.pack("!I", len(payload))[1:] + struct.pack(
        "!BBI", kind, flags, stream) + payload
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0) + frame(4, 1, 0) + frame(1, 5, 1, block))
    stream = connection.makefile("rb")
    while True:
        head = stream.read(9)
        payload = stream.read(int.from_bytes(head[:3], "big"))
        if head[3:4] == b"\x01" and 0x88 not in payload[:4]:  # 0x88 is `:status: 200`
            raise OSError(f"a stream got {payload[:20]!r}")
        if len(head) < 9 or head[3] in (3, 7):
            raise OSError("an HTTP/2 connection was ended")
        if head[3] == 0 and head[4] & 1:
            return


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["handshakes", port, seconds, kind]:
            handshakes(int(port), float(seconds), kind == "resumed")
        case ["websockets", port, seconds]:
            asyncio.run(websockets(int(port), float(seconds)))
        case ["websocket-origin", *ports]:
            asyncio.run(websocket_origin([int(port) for port in ports]))
