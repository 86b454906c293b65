"""
Both sides, and the servers that they share.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from ..servers import PostgreSQLServer, RedisServer
from ..support import Serve
from .node import HERE, Node, install
from .sharing import PostgreSQL, Redis, Sharing


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    """
    The Node process.
    """
    install(HERE)
    node = Node.start()
    yield node
    complaints = pytest_twisted.blockon(node.stop())
    assert complaints == ""


@pytest.fixture(scope="session")
def redisHere() -> Iterator[Redis]:
    for url in _urls("TXSESSION_TEST_REDIS_URL", RedisServer):
        yield Redis(url)


@pytest.fixture(scope="session")
def postgresqlHere() -> Iterator[PostgreSQL]:
    # The time zone that the server is in must not matter.
    for url in _urls(
        "TXSESSION_TEST_POSTGRESQL_URL", PostgreSQLServer, "timezone=Asia/Kathmandu"
    ):
        yield PostgreSQL(url)


def _urls(variable: str, make: Any, *options: str) -> Iterator[str]:
    url = os.environ.get(variable)
    if url:
        yield url
        return
    server = make(*options)
    try:
        server.start()
        yield server.url
    finally:
        server.remove()


@pytest.fixture(params=["redis", "postgresql"])
def server(request: pytest.FixtureRequest) -> Any:
    """
    Each of the servers.
    """
    return request.getfixturevalue(f"{request.param}Here")


def _sharing(node: Node, server: Any, serve: Serve) -> Iterator[Sharing]:
    sharing = Sharing(node, server, serve)
    yield sharing
    pytest_twisted.blockon(Deferred.fromCoroutine(sharing.stop()))


@pytest.fixture
def both(node: Node, server: Any, serve: Serve) -> Iterator[Sharing]:
    """
    Makes an Express and a Twisted application that share sessions on each of the
    servers.
    """
    yield from _sharing(node, server, serve)


@pytest.fixture
def bothOnRedis(node: Node, redisHere: Redis, serve: Serve) -> Iterator[Sharing]:
    yield from _sharing(node, redisHere, serve)


@pytest.fixture
def bothOnPostgreSQL(
    node: Node, postgresqlHere: PostgreSQL, serve: Serve
) -> Iterator[Sharing]:
    yield from _sharing(node, postgresqlHere, serve)
