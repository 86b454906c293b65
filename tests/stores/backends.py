"""
What the tests of the stores ask of servers, past the stores.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import txredisapi
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater

from ..support import PATIENCE

PACE = 0.02
"""
Seconds between two looks at something that is to come about.
"""


async def comesAbout(condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """
    Wait until something is so.

    @return: what the condition gave.
    """
    last = reactor.seconds() + seconds
    while not (result := condition()):
        assert reactor.seconds() < last, "it never came about"
        await deferLater(reactor, PACE)
    return result


# Redis.


@asynccontextmanager
async def redisConnection(port: int) -> AsyncIterator[Any]:
    """
    A connection that only the test has.
    """
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
    protocol: Any = txredisapi.RedisProtocol(charset=None, convertNumbers=False)
    await connectProtocol(endpoint, protocol)
    try:
        yield protocol
    finally:
        lost = protocol.whenDisconnected()
        protocol.transport.loseConnection()
        await lost


async def redisCommand(port: int, *words: Any) -> Any:
    """
    Have a Redis server do something.
    """
    async with redisConnection(port) as connection:
        return await connection.execute_command(*words)


class Monitor(Protocol):
    """
    Sees what a Redis server is asked by others.
    """

    received: bytes = b""

    @classmethod
    async def of(cls, port: int) -> Monitor:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        monitor: Monitor = await connectProtocol(endpoint, cls())
        monitor.port = port
        monitor.transport.write(b"MONITOR\r\n")
        await comesAbout(lambda: b"+OK" in monitor.received)
        return monitor

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    async def commands(self) -> list[str]:
        """
        The names of the commands since the last time, but for those that scripts
        have executed.
        """
        mark = uuid4().hex.encode()
        await redisCommand(self.port, "ECHO", mark)
        await comesAbout(lambda: mark in self.received)
        seen, self.received = self.received, b""
        lines = seen[: seen.index(mark)].decode(errors="replace").splitlines()
        found = [re.search(r'^\+\d.* (\[\d+ \S+\]) "(\w+)"', line) for line in lines]
        return [
            match[2].upper()
            for match in found
            if match and " lua]" not in match[1] and match[2] != "ECHO"
        ]

    async def close(self) -> None:
        self.transport.abortConnection()


# Proxies.


class Proxy(Factory):
    """
    Passes on what a client and a server say to each other, and counts how often the
    client has waited for the server.

    @ivar context: with it, the clients speak TLS.
    """

    def __init__(self, port: int, context: Any = None) -> None:
        self.target = port
        self.roundTrips = 0
        self.listening: Any = (
            reactor.listenTCP(0, self, interface="127.0.0.1")
            if context is None
            else reactor.listenSSL(0, self, context, interface="127.0.0.1")
        )
        self.connections: set[Any] = set()

    @property
    def port(self) -> int:
        port: int = self.listening.getHost().port
        return port

    def buildProtocol(self, _: Any) -> _Near:
        return _Near(self)

    async def close(self) -> None:
        await self.listening.stopListening()
        for connection in list(self.connections):
            connection.transport.abortConnection()
        await comesAbout(lambda: not self.connections)


class _Side(Protocol):
    """
    One end of a connection through a proxy.
    """

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.other: Any = None
        self.early = b""

    def connectionMade(self) -> None:
        self.proxy.connections.add(self)

    def connectionLost(self, reason: Any = connectionDone) -> None:
        self.proxy.connections.discard(self)
        if self.other is not None:
            self.other.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        if self.other is None:
            self.early += data
        else:
            self.other.transport.write(data)


class _Near(_Side):
    isWaiting = False

    def connectionMade(self) -> None:
        super().connectionMade()
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.proxy.target)
        connecting = connectProtocol(endpoint, _Far(self))
        connecting.addErrback(lambda _: self.transport.abortConnection())

    def dataReceived(self, data: bytes) -> None:
        if not self.isWaiting:
            self.isWaiting = True
            self.proxy.roundTrips += 1
        super().dataReceived(data)


class _Far(_Side):
    def __init__(self, near: _Near) -> None:
        super().__init__(near.proxy)
        self.other = near

    def connectionMade(self) -> None:
        super().connectionMade()
        self.other.other = self
        self.transport.write(self.other.early)

    def dataReceived(self, data: bytes) -> None:
        self.other.isWaiting = False
        super().dataReceived(data)
