"""
`txsession.testing.FaultyStore` does what its store does, and has the faults that
a test asks for; `SessionResource` then answers as it does to real ones.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_twisted
from treq.testing import StubTreq
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.support import Page, clockAt, only
from txsession import (
    ConditionalStore,
    EnumerableStore,
    ISession,
    MemoryStore,
    PrunableStore,
    Record,
    ServiceStore,
    SessionResource,
    SessionService,
    StoreUnavailable,
)
from txsession.store import TouchableStore
from txsession.testing import Fault, FaultyStore, StoreContract

OPERATIONS = {
    "get": ("a",),
    "set": ("a", Record(b"new", 1e10)),
    "destroy": ("a",),
    "touch": ("a", 1e10),
    "create": ("b", Record(b"new", 1e10)),
    "replace": ("a", Record(b"new", 1e10), Record(b"old", 0.0)),
    "all": (),
    "length": (),
    "clear": (),
    "prune": (10,),
}
OLD = Record(b"old", 2e9)


class TestFaultyStore(StoreContract):
    def makeStore(self) -> FaultyStore:
        return FaultyStore(MemoryStore())


class Answered:
    """
    A store with one session, and each answer as a Deferred.
    """

    def __init__(self) -> None:
        self.records = {"a": OLD}

    def get(self, sid: str) -> Any:
        return succeed(self.records.get(sid))

    def set(self, sid: str, record: Record) -> Any:
        self.records[sid] = record
        return succeed(None)

    async def destroy(self, sid: str) -> Any:
        self.records.pop(sid, None)


@pytest.fixture
def clock() -> Clock:
    return clockAt()


@pytest.fixture
def inner(clock: Clock) -> MemoryStore:
    """
    A store with one session.
    """
    store = MemoryStore(reactor=clock)
    store.set("a", OLD)
    return store


@pytest.fixture
def store(clock: Clock, inner: MemoryStore) -> FaultyStore:
    return FaultyStore(inner, reactor=clock)


def outcome(answer: Any) -> Any:
    """
    What a call gave, or what it failed with, or nothing yet (C{...}).
    """
    results: list[Any] = []
    if not isinstance(answer, Deferred):
        return answer

    def answered(result: Any) -> Any:
        results.append(result)
        return None if isinstance(result, Failure) else result

    answer.addBoth(answered)
    if not results:
        return ...
    [result] = results
    return result.value if isinstance(result, Failure) else result


def ask(store: Any, operation: str) -> Any:
    return outcome(getattr(store, operation)(*OPERATIONS[operation]))


def isDown(result: Any) -> bool:
    return isinstance(result, StoreUnavailable)


# What it is.


def test_hasTheAbilitiesOfItsStore(clock: Clock, store: FaultyStore) -> None:
    """
    It has the abilities of the store that it is around, and no others.
    """
    abilities = (
        TouchableStore,
        ConditionalStore,
        EnumerableStore,
        PrunableStore,
        ServiceStore,
    )
    assert all(isinstance(store, each) for each in abilities)
    less = FaultyStore(only(store.store, "get", "set", "destroy"), reactor=clock)
    assert not any(isinstance(less, each) for each in abilities)


def test_withoutFaultsItIsItsStore(inner: MemoryStore, store: FaultyStore) -> None:
    """
    Without faults it gives what its store gives, as that gives it.
    """
    assert FaultyStore(SimpleNamespace(get=str.upper)).get("a") == "A"
    assert outcome(store.get("a")) == OLD
    assert outcome(store.create("b", OLD)) is True
    assert outcome(store.length()) == 2
    assert outcome(inner.get("b")) == OLD


def test_whateverAnswers(clock: Clock) -> None:
    """
    Its store may answer with Deferreds, coroutines or plain values.
    """
    store = FaultyStore(Answered(), reactor=clock, faults=[Fault("delay", seconds=1)])
    answers = [store.get("a"), store.destroy("a"), store.get("a")]
    clock.advance(1)
    assert [outcome(each) for each in answers] == [OLD, None, None]


def test_remembersCalls(store: FaultyStore) -> None:
    """
    It remembers the calls, those that went wrong included.
    """
    store.fail("touch")
    assert outcome(store.get("a")) == OLD
    assert isDown(outcome(store.touch("a", 3e9)))
    assert store.calls == [("get", "a"), ("touch", "a", 3e9)]


def test_saysWhatItIsAround(clock: Clock) -> None:
    """
    Its C{repr} names the store that it is around.
    """
    assert repr(FaultyStore(1, reactor=clock)) == "<FaultyStore around 1>"


def test_theReactorIsNotImportedBeforeItIsNeeded() -> None:
    """
    Neither importing it nor making one installs a reactor; faults then begin
    and end by the global one.
    """
    program = """
import sys
from txsession import MemoryStore, Record
from txsession.testing import FaultyStore
store = FaultyStore(MemoryStore())
store.fail("get", end=3600)
assert "twisted.internet.reactor" not in sys.modules
results = []
store.get("a").addErrback(results.append)
assert len(results) == 1, results
assert "twisted.internet.reactor" in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


# Faults.


@pytest.mark.parametrize("operation", OPERATIONS)
def test_delay(
    clock: Clock, inner: MemoryStore, store: FaultyStore, operation: str
) -> None:
    """
    A call that is delayed is carried out, and answered, so much later.
    """
    before = dict(outcome(inner.all()))
    store.delay(2, operation)
    answer = getattr(store, operation)(*OPERATIONS[operation])
    clock.advance(1.9)
    assert outcome(inner.all()) == before
    assert not answer.called
    clock.advance(0.1)
    expected = {"get": OLD, "create": True, "replace": True, "length": 1, "prune": 0}
    expected["all"] = before
    assert outcome(answer) == expected.get(operation)
    assert (outcome(inner.all()) != before) == (
        operation in ("set", "destroy", "touch", "create", "replace", "clear")
    )


@pytest.mark.parametrize("operation", OPERATIONS)
def test_fail(inner: MemoryStore, store: FaultyStore, operation: str) -> None:
    """
    A call that fails has done nothing, and no other call fails.
    """
    store.fail(operation)
    assert isDown(ask(store, operation))
    assert outcome(inner.all()) == {"a": OLD}
    for other in OPERATIONS.keys() - {operation}:
        assert not isDown(ask(store, other))


def test_failWithAnError(store: FaultyStore) -> None:
    """
    It fails with the error that is given, or of the type that is.
    """
    store.fail("get", error=KeyError("a"))
    store.fail("set", error=OSError)
    assert repr(ask(store, "get")) == "KeyError('a')"
    assert repr(ask(store, "set")) == "OSError()"


def test_failAll(store: FaultyStore) -> None:
    """
    If no operation is named, it is all of them.
    """
    store.fail()
    assert all(isDown(ask(store, operation)) for operation in OPERATIONS)


@pytest.mark.parametrize("operation", ["set", "destroy", "create", "replace", "clear"])
def test_lose(inner: MemoryStore, store: FaultyStore, operation: str) -> None:
    """
    A call whose answer is lost fails, and was carried out.
    """
    store.lose(operation)
    assert isDown(ask(store, operation))
    assert outcome(inner.all()) != {"a": OLD}


def test_loseWithAnError(store: FaultyStore) -> None:
    """
    The error that is given is what it fails with.
    """
    store.lose("get", error=ConnectionResetError("by the peer"))
    assert repr(ask(store, "get")) == "ConnectionResetError('by the peer')"


def test_hang(inner: MemoryStore, store: FaultyStore) -> None:
    """
    A call that hangs is neither carried out nor answered until it is released;
    the next one hangs again.
    """
    store.hang("destroy", "get")
    destroying = store.destroy("a")
    assert outcome(destroying) is ...
    assert outcome(inner.get("a")) == OLD
    store.release()
    assert destroying.called
    assert outcome(inner.get("a")) is None
    assert ask(store, "get") is ...


def test_heal(store: FaultyStore) -> None:
    """
    C{heal} ends all faults and carries out what hangs.
    """
    store.hang("get")
    store.fail("set")
    store.disconnect(start=1)
    hanging = store.get("a")
    store.heal()
    assert outcome(hanging) == OLD
    assert ask(store, "set") is None
    assert ask(store, "get").payload == b"new"
    assert store.available


def test_delayedCallsTakeTheirTimeWhenHealed(clock: Clock, store: FaultyStore) -> None:
    """
    A call that is delayed already still is after C{heal}.
    """
    store.delay(1)
    delayed = store.get("a")
    store.heal()
    assert not delayed.called
    clock.advance(1)
    assert outcome(delayed) == OLD


@pytest.mark.parametrize("how", [FaultyStore.release, FaultyStore.heal])
def test_whatIsCalledOffIsForgotten(store: FaultyStore, how: Any) -> None:
    """
    A call that hangs and is cancelled is never carried out.
    """
    store.hang()
    calledOff, kept = store.destroy("a"), store.get("a")
    calledOff.cancel()
    assert isinstance(outcome(calledOff), CancelledError)
    assert len(store._hanging) == 1
    how(store)
    assert outcome(kept) == OLD


def test_delayedAndCalledOff(clock: Clock, store: FaultyStore) -> None:
    """
    A call that is delayed and cancelled is never carried out either.
    """
    store.delay(1, "destroy")
    calledOff = store.destroy("a")
    calledOff.cancel()
    assert isinstance(outcome(calledOff), CancelledError)
    assert clock.getDelayedCalls() == []
    clock.advance(1)
    assert ask(store, "get") == OLD


def test_oneThatIsReleasedCallsOffAnother(store: FaultyStore) -> None:
    """
    Who is released may call off another that hangs, or hang again.
    """
    store.hang()
    first, second, third = store.get("a"), store.destroy("a"), store.get("a")
    again: list[Any] = []
    first.addCallback(lambda _: (second.cancel(), again.append(store.get("a"))))
    store.release()
    assert isinstance(outcome(second), CancelledError)
    assert outcome(third) == OLD
    assert outcome(again[0]) is ...


def test_disconnect(inner: MemoryStore, store: FaultyStore) -> None:
    """
    A store that is disconnected fails every call, those that hang included, and
    says that it is not available.
    """
    store.hang("destroy")
    hanging = store.destroy("a")
    assert store.available
    store.disconnect()
    assert not store.available
    assert isDown(outcome(hanging))
    assert all(isDown(ask(store, operation)) for operation in OPERATIONS)
    assert outcome(inner.all()) == {"a": OLD}
    store.heal()
    assert store.available
    assert ask(store, "get") == OLD


def test_availableIsThatOfItsStore(clock: Clock) -> None:
    """
    It is not available while its store is not; who says nothing is.
    """

    class Moody:
        available = False

    assert not FaultyStore(Moody(), reactor=clock).available
    assert FaultyStore(object(), reactor=clock).available


def test_severalFaults(clock: Clock, store: FaultyStore) -> None:
    """
    A call suffers the faults that happen to it in turn.
    """
    store.delay(1, "get")
    store.delay(2, "get")
    store.fail("get")
    answer = store.get("a")
    clock.advance(1)
    clock.advance(1.9)
    assert not answer.called
    clock.advance(0.1)
    assert isDown(outcome(answer))


# When.


def test_skipAndTimes(store: FaultyStore) -> None:
    """
    The first calls go well that are to be skipped, so many then go wrong, and
    the rest go well; calls of other operations do not count.
    """
    store.fail("get", skip=2, times=3)
    fails = []
    for _ in range(7):
        assert ask(store, "length") == 1
        fails.append(isDown(ask(store, "get")))
    assert fails == [False, False, True, True, True, False, False]


def test_startAndEnd(clock: Clock, store: FaultyStore) -> None:
    """
    A fault begins and ends so many seconds after the store was made.
    """
    clock.advance(5)
    store.fail("get", start=10, end=20)
    fails = []
    for _ in range(4):
        fails.append(isDown(ask(store, "get")))
        clock.advance(5)
    assert fails == [False, True, True, False]


def test_skippedCallsCountFromTheStartOn(clock: Clock, store: FaultyStore) -> None:
    """
    All that is said of when must be so: calls before the start are not counted.
    """
    store.fail("get", start=10, skip=1, times=1)
    fails = [isDown(ask(store, "get")) for _ in range(3)]
    clock.advance(10)
    fails += [isDown(ask(store, "get")) for _ in range(3)]
    assert fails == [False, False, False, False, True, False]


def test_disconnectOnSchedule(clock: Clock, store: FaultyStore) -> None:
    """
    A store can be out of reach for a time, and what hangs before is not touched.
    """
    store.hang("destroy")
    hanging = store.destroy("a")
    store.disconnect(start=60, end=90)
    seen = []
    for _ in range(4):
        seen.append((store.available, isDown(ask(store, "get"))))
        clock.advance(30)
    assert seen == [(True, False), (True, False), (False, True), (True, False)]
    assert not hanging.called


def test_disconnectForSoManyCalls(store: FaultyStore) -> None:
    """
    A store that was to be disconnected for so many calls is available after them.
    """
    store.disconnect(times=1)
    assert not store.available
    assert isDown(ask(store, "get"))
    assert store.available
    assert ask(store, "get") == OLD


def test_faultsFromTheBeginning(clock: Clock, inner: MemoryStore) -> None:
    """
    Faults may be given when the store is made.
    """
    fault = Fault("fail", operations="get", times=1)
    store = FaultyStore(inner, reactor=clock, faults=[fault])
    assert isDown(ask(store, "get"))
    assert ask(store, "get") == OLD


def test_faultsCanBeChanged(store: FaultyStore) -> None:
    """
    What causes a fault gives it, and it can be changed then.
    """
    fault = store.fail("get")
    assert isDown(ask(store, "get"))
    fault.times = 0
    assert ask(store, "get") == OLD


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda store: Fault("explode"), "not 'explode'"),
        (lambda store: store.fail("gte"), "no operation 'gte'"),
        (lambda store: store.hang("start"), "no operation 'start'"),
        (lambda store: Fault("fail", operations=["load"]), "no operation 'load'"),
    ],
)
def test_whatThereIsNot(
    store: FaultyStore, make: Callable[[Any], Any], said: str
) -> None:
    """
    A fault that could never happen is refused.
    """
    with pytest.raises(ValueError, match=said):
        make(store)


# In an application.


class Shop:
    """
    A page that counts, served in memory from a store with faults.
    """

    def __init__(self, **options: Any) -> None:
        self.clock = clockAt()
        self.inner = MemoryStore(reactor=self.clock)
        self.store = FaultyStore(self.inner, reactor=self.clock)
        resource = SessionResource(
            Page(self.count),
            secret="x",
            store=self.store,
            reactor=self.clock,
            **options,
        )
        self.treq = StubTreq(resource)

    def count(self, request: Any) -> str:
        session = ISession(request, None)
        if session is None:
            return "none"
        session["n"] = session.get("n", 0) + 1
        return str(session["n"])

    def get(self) -> Any:
        """
        The response, when there is one.
        """
        return self.treq.get("http://localhost/")

    def visit(self) -> Any:
        """
        The status and text of a response that comes at once.
        """
        return self.read(self.get())

    def read(self, responding: Any) -> Any:
        response = outcome(responding)
        assert response is not ..., "no response yet"
        text = outcome(response.text())
        return response.code, text if response.code == 200 else ""


@pytest.mark.parametrize("operation", ["get", "replace"])
def test_aStoreThatFailsMeans503(operation: str) -> None:
    """
    A load or save that fails is answered with 503; what was stored is, then as
    before, there.
    """
    shop = Shop()
    assert shop.visit() == (200, "1")
    shop.store.fail(operation, times=1)
    assert shop.visit() == (503, "")
    assert shop.visit() == (200, "2")


def test_aBugOfTheStoreMeans500() -> None:
    """
    Any other error is a bug of the store's.
    """
    shop = Shop()
    shop.store.fail("create", error=ZeroDivisionError("1/0"))
    assert shop.visit() == (500, "")


def test_aStoreThatHangsMeans503() -> None:
    """
    A load that hangs ends with StoreTimeout, and is forgotten.
    """
    shop = Shop(storeTimeout=5)
    assert shop.visit() == (200, "1")
    shop.store.hang("get")
    responding = shop.get()
    shop.clock.advance(4.9)
    shop.treq.flush()
    assert outcome(responding) is ...
    shop.clock.advance(0.1)
    shop.treq.flush()
    assert shop.read(responding) == (503, "")
    shop.store.heal()
    assert shop.visit() == (200, "2")


def test_aSaveThatHangsIsDoneLate(logged: list[Any]) -> None:
    """
    A save that hangs ends with StoreTimeout, too; but it is carried out when the
    store goes on, which is logged.
    """
    shop = Shop(storeTimeout=5)
    assert shop.visit() == (200, "1")
    shop.store.hang("replace")
    responding = shop.get()
    shop.clock.advance(5)
    shop.treq.flush()
    assert shop.read(responding) == (503, "")
    shop.store.heal()
    assert shop.visit() == (200, "3")
    said = [each["log_format"] for each in logged if "nobody waited" in str(each)]
    assert len(said) == 1


def test_aSlowStoreHoldsTheResponse() -> None:
    """
    A response is held until a slow save is done.
    """
    shop = Shop()
    shop.store.delay(2, "create")
    responding = shop.get()
    shop.clock.advance(1.9)
    shop.treq.flush()
    assert outcome(responding) is ...
    shop.clock.advance(0.1)
    shop.treq.flush()
    assert shop.read(responding) == (200, "1")


def test_anAnswerThatIsLostLeavesDoubt() -> None:
    """
    When the answer to a save is lost, the visitor is told that it failed, though
    it did not.
    """
    shop = Shop()
    assert shop.visit() == (200, "1")
    shop.store.lose("replace", times=1)
    assert shop.visit() == (503, "")
    assert shop.visit() == (200, "3")


def test_whileDisconnected() -> None:
    """
    While it is disconnected, the store is not even asked.
    """
    shop = Shop()
    assert shop.visit() == (200, "1")
    shop.store.disconnect()
    before = list(shop.store.calls)
    assert shop.visit() == (503, "")
    assert shop.store.calls == before
    shop.store.heal()
    assert shop.visit() == (200, "2")


def test_anonymouslyWhileDisconnected() -> None:
    """
    With C{storeDown="anonymous"}, visitors are served without a session.
    """
    shop = Shop(storeDown="anonymous")
    shop.store.disconnect()
    response = outcome(shop.get())
    assert (response.code, response.headers.hasHeader("Set-Cookie")) == (200, False)
    assert outcome(response.text()) == "none"


@pytest_twisted.ensureDeferred
async def test_theServiceGoesOnPruning(logged: list[Any]) -> None:
    """
    A service whose store cannot be pruned tries again the next time.
    """
    clock = clockAt()
    store = FaultyStore(MemoryStore(reactor=clock), reactor=clock)
    store.fail("prune", times=1)
    service = SessionService(store, pruneInterval=60, reactor=clock, jitter=lambda: 0)
    service.startService()
    clock.advance(60)
    clock.advance(60)
    assert store.calls == [("prune", 1000)] * 2
    assert any("could not be pruned" in str(each["log_format"]) for each in logged)
    await service.stopService()
