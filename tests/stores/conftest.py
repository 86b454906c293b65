"""
The servers that the tests of the stores share.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.servers import PostgreSQLServer, RedisServer


@pytest.fixture(scope="session")
def redisServer() -> Iterator[Any]:
    """
    A Redis server that no test stops: one of this test run's own, or the one that
    C{TXSESSION_TEST_REDIS_URL} names, of which there is only the C{url}.
    """
    yield from _shared("TXSESSION_TEST_REDIS_URL", RedisServer)


@pytest.fixture(scope="session")
def postgresqlServer() -> Iterator[Any]:
    """
    A PostgreSQL server that no test stops: one of this test run's own, or the one
    that C{TXSESSION_TEST_POSTGRESQL_URL} names, of which there is only the C{url}.
    """
    yield from _shared("TXSESSION_TEST_POSTGRESQL_URL", PostgreSQLServer)


def _shared(variable: str, make: Any) -> Iterator[Any]:
    url = os.environ.get(variable)
    if url:
        yield SimpleNamespace(url=url)
        return
    server = make()
    try:
        server.start()
        yield server
    finally:
        server.remove()
