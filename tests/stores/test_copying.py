"""
Copies between all pairs of stores, while both are in use.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.logger import Logger

from txsession import MemoryStore, Record, storeFromURL
from txsession.backend import Backend
from txsession.copying import Copying
from txsession.stores.sqlite import SQLiteStore

from ..support import patiently

NAMES = ["memory", "sqlite", "postgresql", "redis"]

ONLY_HERE = [f"old-{number:03}" for number in range(150)]
"""
Sessions of the source that nobody uses.
"""

SHARED = [f"both-{number:03}" for number in range(50)]
"""
Sessions that both applications write.
"""

LEAVING = [f"leaving-{number:03}" for number in range(50)]
"""
Sessions that are destroyed in the source after the first copy.
"""

LATER = float(int(reactor.seconds()) + 3600)


def record(text: str) -> Record:
    return Record(b'{"cookie":{},"by":"%b"}' % text.encode(), LATER)


@pytest.fixture
def make(
    tmp_path: Path, redisServer: Any, postgresqlServer: Any
) -> Callable[[str], Any]:
    def make(name: str) -> Any:
        run = uuid4().hex
        if name == "memory":
            return MemoryStore()
        if name == "sqlite":
            return SQLiteStore(tmp_path / run)
        server = redisServer if name == "redis" else postgresqlServer
        option = f"prefix={run}:" if name == "redis" else f"table=copy_{run[:8]}"
        return storeFromURL(f"{server.url}{'&' if '?' in server.url else '?'}{option}")

    return make


@asynccontextmanager
async def opened(*stores: Any) -> AsyncIterator[None]:
    try:
        yield
    finally:
        for store in stores:
            await store.clear()
            await store.stop()


def backend(store: Any) -> Backend:
    return Backend(store=store, log=Logger(), reactor=lambda: reactor, timeout=10)


async def fill(store: Any, text: str, *groups: list[str]) -> None:
    await gatherResults(
        [
            Deferred.fromCoroutine(backend(store).ask("set", sid, record(text)))
            for sids in groups
            for sid in sids
        ]
    )


async def write(store: Any, text: str, sids: list[str], goesOn: list[bool]) -> None:
    """
    An application that changes and touches its sessions.
    """
    asked = backend(store)
    number = 0
    while goesOn:
        sid, number = random.choice(sids), number + 1
        current = await asked.ask("get", sid)
        await asked.ask("replace", sid, record(f"{text}-{number}"), current)
        await asked.ask("touch", sid, LATER + number)
        # A reactor that never rests leaves the threads of other stores no time.
        await deferLater(reactor, 0.001)


async def logOut(store: Any) -> None:
    for sid in LEAVING:
        await backend(store).ask("destroy", sid)


async def copy(source: Any, target: Any, **options: bool) -> dict[str, int]:
    copying = Copying(backend(source), backend(target), reactor.seconds, **options)
    await copying.run()
    assert copying.counts.failed == 0
    return {"copied": copying.counts.copied, "deleted": copying.counts.deleted}


@pytest.mark.parametrize("second", NAMES)
@pytest.mark.parametrize("first", NAMES)
@pytest_twisted.ensureDeferred
async def test_copyWhileBothAreInUse(
    first: str, second: str, make: Callable[[str], Any]
) -> None:
    """
    While both stores are written to, all that is only in the first is copied, and
    what the application of the second has written stays.  When that of the first has
    ended, another copy makes them equal: what was changed meanwhile is overwritten,
    and who has logged out meanwhile is not logged in again.
    """
    source, target = make(first), make(second)
    async with opened(source, target):
        await fill(source, "source", ONLY_HERE, SHARED, LEAVING)
        await fill(target, "target", SHARED)
        goesOn = [True]
        working = [
            Deferred.fromCoroutine(write(source, "source", SHARED, goesOn)),
            Deferred.fromCoroutine(write(target, "target", SHARED, goesOn)),
        ]
        try:
            await copy(source, target)
            await copy(source, target)
        finally:
            goesOn.clear()
            await patiently(gatherResults(working))
        there = await target.all()
        for sid in ONLY_HERE:
            assert there[sid] == record("source")
        for sid in SHARED:
            assert there[sid].payload.startswith(b'{"cookie":{},"by":"target')
        await logOut(source)
        counts = await copy(source, target, overwrites=True, deletes=True)
        assert counts == {"copied": len(SHARED), "deleted": len(LEAVING)}
        assert payloads(await target.all()) == payloads(await source.all())
        assert set(await source.all()) == {*ONLY_HERE, *SHARED}


def payloads(records: dict[str, Record]) -> dict[str, bytes]:
    return {sid: each.payload for sid, each in records.items()}
