"""
`txsession.SessionService`.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.application.service import IService
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import formatEvent
from zope.interface.verify import verifyObject

from txsession import (
    ConfigurationError,
    MemoryStore,
    Record,
    SessionService,
    StoreUnavailable,
)
from txsession.backend import Backend
from txsession.resource import SessionResource
from txsession.testing import FaultyStore

from .support import StepStore, only


def service(store: Any, clock: Clock, **options: Any) -> SessionService:
    options.setdefault("jitter", lambda: 0.0)
    return SessionService(store, reactor=clock, **options)


def expired(clock: Clock, count: int) -> MemoryStore:
    """
    A store with so many records that are about to expire.
    """
    store = MemoryStore(reactor=clock)
    for number in range(count):
        store.set(str(number), Record(b"{}", clock.seconds() + 1))
    return store


def test_isAService() -> None:
    """
    A SessionService is an IService.
    """
    assert verifyObject(IService, SessionService(MemoryStore()))


def test_startsAndStopsTheStore() -> None:
    """
    The store is started with the service, and stopped with it.
    """
    clock = Clock()
    store = StepStore(MemoryStore(reactor=clock))
    running = service(store, clock)
    running.startService()
    assert store.calls == ["start"]
    assert running.stopService().result is None
    assert store.calls == ["start", "stop"]
    assert clock.getDelayedCalls() == []


def test_aStoreWithFewAbilitiesIsAskedForNoMore() -> None:
    """
    A store that can neither start, stop nor prune is left alone.
    """
    clock = Clock()
    running = service(only(MemoryStore(), "get", "set", "destroy"), clock)
    running.startService()
    assert clock.getDelayedCalls() == []
    assert running.stopService().result is None


def test_prunesInBatchesAtIntervals() -> None:
    """
    At each interval, batches are deleted until one is not full.
    """
    clock = Clock()
    store = StepStore(expired(clock, 25))
    running = service(store, clock, pruneInterval=100, pruneLimit=10)
    running.startService()
    clock.advance(99)
    assert "prune" not in store.calls
    clock.pump([1, 0, 0, 0])
    assert store.calls.count("prune") == 3
    assert len(store.store._entries) == 0
    clock.advance(100)
    assert store.calls.count("prune") == 4
    running.stopService()


def test_jitterShortensTheInterval() -> None:
    """
    Up to half of the interval is taken off at random.
    """
    clock = Clock()
    store = StepStore(MemoryStore(reactor=clock))
    running = service(store, clock, pruneInterval=100, jitter=lambda: 1.0)
    running.startService()
    clock.advance(50)
    assert store.calls.count("prune") == 1
    running.stopService()


def test_pruningCanBeSwitchedOff() -> None:
    """
    With pruneInterval=None nothing is pruned.
    """
    clock = Clock()
    running = service(MemoryStore(reactor=clock), clock, pruneInterval=None)
    running.startService()
    assert clock.getDelayedCalls() == []
    running.stopService()


def test_failuresAreLoggedAndTriedAgain(logged: list[Any]) -> None:
    """
    A store that does not start, or cannot be pruned, is logged, and the next
    interval tries again.
    """
    clock = Clock()
    store: Any = StepStore(MemoryStore(reactor=clock), {"start", "prune"})
    running = service(store, clock, pruneInterval=10)
    running.startService()
    store.waiting.pop().fail(RuntimeError("no start"))
    clock.advance(10)
    store.waiting.pop().fail(RuntimeError("no prune"))
    clock.advance(10)
    store.waiting.pop().release()
    errors = [str(e["log_failure"].value) for e in logged if "log_failure" in e]
    assert errors == ["no start", "no prune"]
    running.stopService()


def test_stopWaitsForThePruningUnderWay() -> None:
    """
    The store is not stopped while it is being pruned, and no further batch
    begins.
    """
    clock = Clock()
    store: Any = StepStore(expired(clock, 5), {"prune"})
    running = service(store, clock, pruneInterval=10, pruneLimit=1)
    running.startService()
    clock.advance(10)
    stopping = running.stopService()
    assert not stopping.called
    store.waiting.pop().release()
    assert stopping.called
    assert store.calls[-2:] == ["prune", "stop"]


@pytest.mark.parametrize("outcome", ["release", "fail"])
def test_stopWaitsForSavesInFlight(outcome: str, logged: list[Any]) -> None:
    """
    The store is stopped when the last save has come to its end, well or badly.
    """
    clock = Clock()
    store: Any = StepStore(MemoryStore(reactor=clock), {"set"})
    running = service(store, clock)
    running.startService()
    resource = SessionResource(
        _Nothing(), secret="keyboard cat", store=store, reactor=clock
    )
    backend: Backend = resource._exchange.backend
    saving = backend.call("set", "a", Record(b"{}", 10.0))
    saving.addErrback(lambda _: None)
    stopping = running.stopService()
    assert not stopping.called
    call = store.waiting.pop()
    call.release() if outcome == "release" else call.fail(RuntimeError("full"))
    assert stopping.called
    assert store.calls[-1] == "stop"


def test_stopWaitsForTheStartUnderWayToo() -> None:
    """
    A pruning that begins while the store is still starting does not make the stop
    forget either of them, whichever ends first.
    """
    clock = Clock()
    store: Any = StepStore(expired(clock, 5), {"start", "prune"})
    running = service(store, clock, pruneInterval=10)
    running.startService()
    clock.advance(10)
    starting, pruning = store.waiting
    stopping = running.stopService()
    starting.release()
    assert not stopping.called
    pruning.release()
    assert stopping.called
    assert store.calls[-1] == "stop"


def test_aServiceCanBeStartedAgain() -> None:
    """
    Stopped and started again while a pruning is under way, the service prunes once
    an interval, and can be stopped.
    """
    clock = Clock()
    store: Any = StepStore(expired(clock, 5), {"prune"})
    running = service(store, clock, pruneInterval=10)
    running.startService()
    clock.advance(10)
    first = running.stopService()
    running.startService()
    store.waiting.pop().release()
    assert first.called
    assert "stop" not in store.calls
    assert len(clock.getDelayedCalls()) == 1
    assert running.stopService().called
    assert store.calls[-1] == "stop"
    assert clock.getDelayedCalls() == []


def test_stopTellsOfAStoreThatFailsToStop() -> None:
    """
    A store that cannot be stopped fails the Deferred.
    """

    class Stuck(MemoryStore):
        def stop(self) -> Deferred[None]:
            return fail(RuntimeError("stuck"))

    running = service(Stuck(), Clock())
    running.startService()
    stopping = running.stopService()
    errors: list[Any] = []
    stopping.addErrback(errors.append)
    assert str(errors[0].value) == "stuck"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("pruneInterval", 0),
        ("pruneInterval", "soon"),
        ("pruneLimit", 0),
        ("pruneLimit", 1.5),
        ("pruneLimit", True),
    ],
)
def test_wrongOptionsAreRefused(option: str, value: Any) -> None:
    """
    What cannot work is refused at once, by name.
    """
    with pytest.raises(ConfigurationError) as caught:
        SessionService(MemoryStore(), **{option: value})
    assert caught.value.option == option


def test_whatIsNoStoreIsRefused() -> None:
    """
    A URL and a SessionResource are refused, rather than never started nor stopped.
    """
    wrong: Any
    for wrong in ("redis://:passw0rd@host", SessionResource(_Nothing(), secret="x")):
        with pytest.raises(ConfigurationError) as caught:
            SessionService(wrong)
        assert caught.value.option == "store"
        assert f"must be a store, not a {type(wrong).__name__};" in str(caught.value)
        assert "passw0rd" not in str(caught.value)


def test_usesTheGlobalReactorByDefault() -> None:
    """
    Without a reactor it is the global one that the prunings are scheduled on.
    """
    from twisted.internet import reactor

    running = SessionService(MemoryStore())
    running.startService()
    scheduled = running._next
    assert scheduled in reactor.getDelayedCalls()  # type: ignore[attr-defined]
    running.stopService()
    assert not scheduled.active()


class _Nothing:
    def resource(self) -> Any:
        from twisted.web.resource import Resource

        return Resource()


@pytest.mark.parametrize(
    ("error", "isTraced"),
    [(StoreUnavailable("refused"), False), (ZeroDivisionError("a bug"), True)],
)
def test_aStoreThatCannotBeStartedIsLogged(
    logged: list[Any], error: Exception, isTraced: bool
) -> None:
    """
    Why a store could not be started is logged, with a traceback only where there is
    something to be found in it.
    """
    store = FaultyStore(MemoryStore(reactor=Clock()), reactor=Clock())
    store.start = lambda: fail(error)  # type: ignore[attr-defined]
    running = service(store, Clock())
    running.startService()
    [event] = [each for each in logged if "could not be started" in each["log_format"]]
    assert ("log_failure" in event) is isTraced
    assert isTraced or "refused" in formatEvent(event)
    running.stopService()
