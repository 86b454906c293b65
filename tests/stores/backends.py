"""
What the tests of the stores ask of servers, past the stores.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import txredisapi
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
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
