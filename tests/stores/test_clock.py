"""
The clock of a test is the time of every store, wherever its backend is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import Clock

from txsession import MemoryStore, Record
from txsession.stores.postgresql import PostgreSQLStore
from txsession.stores.redis import RedisStore
from txsession.stores.sqlite import SQLiteStore

Make = Callable[[Clock], Any]


@pytest.fixture(params=["memory", "sqlite", "postgresql", "redis"])
def make(request: Any, tmp_path: Path) -> Make:
    """
    Makes a store that has this clock.
    """
    if request.param == "memory":
        return lambda clock: MemoryStore(reactor=clock)
    if request.param == "sqlite":
        return lambda clock: SQLiteStore(tmp_path / "s.db", reactor=clock)
    server = request.getfixturevalue(f"{request.param}Server")
    name = token_hex(8)
    if request.param == "postgresql":
        return lambda clock: PostgreSQLStore(server.url, table=name, reactor=clock)
    return lambda clock: RedisStore(server.url, prefix=f"{name}:", reactor=clock)


@pytest.mark.parametrize("start", [0.0, 1_800_000_000.25, time.time() // 1])
@pytest_twisted.ensureDeferred
async def test_sessionsExpireByTheClock(make: Make, start: float) -> None:
    """
    A session lives until the clock says otherwise, for every operation.
    """
    clock = Clock()
    clock.advance(start)
    store = make(clock)
    try:
        record = Record(b'{"cookie":{}}', start + 60.125)
        assert await store.create("a", record) is True
        assert await store.get("a") == record
        clock.advance(60)
        assert await store.get("a") == record
        assert await store.create("a", record) is False
        clock.advance(0.125)
        assert await store.get("a") is None
        assert (await store.all(), await store.length()) == ({}, 0)
        later = Record(b'{"cookie":{},"n":1}', clock.seconds() + 60)
        await store.touch("a", later.expires)
        assert await store.get("a") is None
        assert await store.replace("a", later, record) is False
        assert await store.create("a", later) is True
        await store.touch("a", clock.seconds() + 600)
        clock.advance(599)
        found = await store.get("a")
        assert (found.payload, found.expires - clock.seconds()) == (later.payload, 1)
        assert await store.replace("a", Record(b'{"cookie":{}}', start), found) is True
        assert await store.get("a") is None
        await store.set("a", later)
        assert await store.get("a") is None
        longer = Record(later.payload, clock.seconds() + 86400 * 365)
        await store.set("a", longer)
        clock.advance(86400 * 364)
        assert await store.get("a") == longer
    finally:
        await store.stop()
