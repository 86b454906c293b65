"""
A store that expired records take up room in is pruned as it is used, if no
`SessionService` does so.
"""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txsession import MemoryStore, SessionService, getSession
from txsession.pruning import Pruner, Upkeep

from .support import Serve, clockAt, eventually


class PruningStore(MemoryStore):
    """
    Tells how it was pruned.
    """

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor=reactor)
        self.limits: list[int] = []
        self.answers: list[Any] = []

    def prune(self, limit: int) -> Any:
        self.limits.append(limit)
        return self.answers.pop(0) if self.answers else 0


def write(request: Any) -> None:
    getSession(request)["seen"] = True


async def visited(serve: Serve) -> Any:
    """
    A server with a session, and its visitor, who has been there twice.
    """
    clock = clockAt()
    store = PruningStore(clock)
    served = serve(write, store=store, clock=clock, ttl=10_000)
    visitor = served.browser()
    await visitor.get()
    await visitor.get()
    return served, visitor


@pytest_twisted.ensureDeferred
async def test_isPrunedAsItIsUsed(serve: Serve) -> None:
    """
    A quarter of an hour after it was first used, a store is pruned, and again a
    quarter of an hour later; not before, and by no timer.
    """
    served, visitor = await visited(serve)
    for seconds, prunings in ((449, 0), (452, 1), (10, 1), (901, 2)):
        served.clock.advance(seconds)
        assert served.clock.getDelayedCalls() == []
        await visitor.get()
        assert len(served.store.limits) == prunings
    assert set(served.store.limits) == {1000}


@pytest_twisted.ensureDeferred
async def test_aFullBatchIsFollowedByAnother(serve: Serve) -> None:
    """
    Batches are deleted until one is not full.
    """
    served, visitor = await visited(serve)
    served.store.answers = [1000, 1000, 7]
    served.clock.advance(901)
    await visitor.get()
    served.clock.pump([0, 0])
    assert len(served.store.limits) == 3


@pytest_twisted.ensureDeferred
async def test_onePruningAtATime(serve: Serve) -> None:
    """
    While a store is still being pruned, it is not pruned again.
    """
    served, visitor = await visited(serve)
    slow: Deferred[int] = Deferred()
    served.store.answers = [slow]
    for prunings in (1, 1):
        served.clock.advance(901)
        await visitor.get()
        assert len(served.store.limits) == prunings
    slow.callback(0)
    served.clock.advance(901)
    await visitor.get()
    assert len(served.store.limits) == 2


@pytest_twisted.ensureDeferred
async def test_aFailureIsLogged(serve: Serve, logged: list[Any]) -> None:
    """
    A pruning that fails fails no request, and is tried again.
    """
    served, visitor = await visited(serve)
    failing: Deferred[int] = Deferred()
    failing.errback(Failure(RuntimeError("no pruning today")))
    served.store.answers = [failing]
    served.clock.advance(901)
    assert (await visitor.get()).status == 200
    await eventually(lambda: any("log_failure" in event for event in logged))
    [event] = [event for event in logged if "log_failure" in event]
    assert "could not be pruned" in event["log_format"]
    served.clock.advance(901)
    await visitor.get()
    assert len(served.store.limits) == 2


@pytest.mark.parametrize("interval", [100, None])
@pytest_twisted.ensureDeferred
async def test_aServiceDoesItAlone(serve: Serve, interval: int | None) -> None:
    """
    A store that a SessionService looks after is left to it, also where that was
    told not to prune; until it stops.
    """
    served, visitor = await visited(serve)
    clock, store = served.clock, served.store
    service = SessionService(
        store, reactor=clock, pruneInterval=interval, jitter=lambda: 0.0
    )
    service.startService()
    clock.advance(99)
    await visitor.get()
    clock.advance(901)
    prunings = len(store.limits)
    await visitor.get()
    assert len(store.limits) == prunings == (0 if interval is None else 1)
    await service.stopService()
    clock.advance(901)
    await visitor.get()
    assert len(store.limits) == prunings + 1


def test_aWrappedStoreIsLeftToItsWrapper() -> None:
    """
    A store that hands on what it does not know is not pruned by itself, nor is one
    that cannot be.
    """

    class Wrapper:
        def __getattr__(self, name: str) -> Any:
            return getattr(MemoryStore(), name)

    for store in (Wrapper(), object()):
        upkeep = Upkeep.of(store, Pruner.__module__, lambda: None)  # type: ignore[arg-type]
        assert upkeep.attend(5.0) is None
        assert upkeep.due == float("inf")
