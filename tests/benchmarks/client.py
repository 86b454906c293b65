"""
Drives the server over a few keep-alive connections, with plain blocking sockets.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import define, field

ROOT = Path(__file__).resolve().parents[2]


@define
class Reply:
    """
    A response, read whole.
    """

    head: bytes
    body: bytes

    @property
    def setCookie(self) -> bytes | None:
        """
        Name and value of the cookie that it sets.
        """
        for line in self.head.split(b"\r\n"):
            name, _, value = line.partition(b": ")
            if name.lower() == b"set-cookie":
                return value.partition(b";")[0]
        return None


@define(eq=False)
class Connection:
    """
    One keep-alive connection, with one request under way at most.
    """

    _socket: socket.socket

    @classmethod
    def to(cls, port: int) -> Connection:
        raw = socket.create_connection(("127.0.0.1", port), timeout=60)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(raw)

    def close(self) -> None:
        self._socket.close()

    def send(self, request: bytes) -> None:
        self._socket.sendall(request)

    def receive(self) -> Reply:
        data = self._socket.recv(65536)
        while True:
            reply = parse(data)
            if reply is not None:
                return reply
            more = self._socket.recv(65536)
            if not more:
                raise ConnectionError(f"the server closed the connection: {data!r}")
            data += more

    def get(self, path: str, cookie: bytes | None = None) -> Reply:
        self.send(request(path, cookie))
        return self.receive()


def request(path: str, cookie: bytes | None) -> bytes:
    """
    A request as a browser behind a reverse proxy might make it.
    """
    lines = [
        b"GET %s HTTP/1.1" % path.encode(),
        b"Host: 127.0.0.1",
        b"User-Agent: benchmark",
        b"Accept: text/html",
    ]
    if cookie is not None:
        lines.append(b"Cookie: " + cookie)
    return b"\r\n".join(lines) + b"\r\n\r\n"


def parse(data: bytes) -> Reply | None:
    """
    The response that C{data} is, or L{None} if it has not come whole.
    """
    head, end, body = data.partition(b"\r\n\r\n")
    if not end:
        return None
    lower = head.lower()
    _, name, rest = lower.partition(b"\r\ncontent-length: ")
    if name:
        return (
            None if len(body) < int(rest.partition(b"\r\n")[0]) else Reply(head, body)
        )
    if b"\r\ntransfer-encoding: chunked" not in lower:
        raise ValueError(f"a response without a length: {head!r}")
    return Reply(head, unchunked(body)) if body.endswith(b"0\r\n\r\n") else None


def unchunked(body: bytes) -> bytes:
    chunks = []
    while True:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            return b"".join(chunks)
        chunks.append(body[:length])
        body = body[length + 2 :]


@define(eq=False)
class Server:
    """
    A server under measurement.
    """

    connections: list[Connection]
    _meters: Connection = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._meters = self.connections[0]

    def meter(self, name: str) -> float:
        """
        Have the server read a meter (C{cpu}, C{memory}), or tidy up.
        """
        body = self._meters.get(f"/control/{name}").body
        return 0.0 if body == b"None" else float(body)

    def block(self, requests: Sequence[bytes], rounds: int, setsCookie: bool) -> None:
        """
        Send the requests, one on each connection, so many times over.
        """
        pairs = list(zip(self.connections, requests, strict=True))
        for _ in range(rounds):
            for connection, each in pairs:
                connection.send(each)
            for connection in self.connections:
                check(connection.receive(), setsCookie)


def check(reply: Reply, setsCookie: bool) -> None:
    """
    Nothing but the answer that was meant is to be measured.
    """
    if not reply.head.startswith(b"HTTP/1.1 200 "):
        raise ValueError(f"not what was asked for: {reply.head!r}")
    if (b"Set-Cookie" in reply.head) is not setsCookie:
        raise ValueError(f"a cookie too many or too few: {reply.head!r}")


@contextmanager
def serving(*options: str, connections: int) -> Iterator[Server]:
    """
    Run a server for as long as the context lasts.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.server", *options],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    opened: list[Connection] = []
    try:
        port = int(process.stdout.readline())
        opened += (Connection.to(port) for _ in range(connections))
        yield Server(opened)
    finally:
        for each in opened:
            each.close()
        process.stdin.close()
        process.wait(timeout=30)
        process.stdout.close()


def twoCPUs() -> tuple[int, int] | None:
    """
    One for the client and one for the server, where the system lets us choose.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None
    available = sorted(os.sched_getaffinity(0))
    return (available[0], available[-1]) if len(available) > 1 else None
