"""
`txsession.MemoryStore`.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from txsession import (
    ConditionalStore,
    ConfigurationError,
    EnumerableStore,
    MemoryStore,
    PrunableStore,
    Record,
    ServiceStore,
    Store,
)
from txsession.store import TouchableStore


def resultOf(deferred: Deferred[Any]) -> Any:
    """
    What a Deferred that must have fired has fired with.
    """
    results: list[Any] = []
    deferred.addCallback(results.append)
    return results[0]


@pytest.mark.parametrize(
    "protocol",
    [
        Store,
        TouchableStore,
        ConditionalStore,
        EnumerableStore,
        PrunableStore,
        ServiceStore,
    ],
)
def test_hasEveryAbility(protocol: Any) -> None:
    """
    A MemoryStore has every ability that a store can have, and is available.
    """
    assert isinstance(MemoryStore(reactor=Clock()), protocol)
    assert MemoryStore(reactor=Clock()).available is True


@pytest.mark.parametrize("limit", [0, -1, 1.5, "3", True])
def test_refusesLimitsThatMakeNoSense(limit: Any) -> None:
    """
    maxSessions is a whole number above zero, or None.
    """
    with pytest.raises(ConfigurationError) as caught:
        MemoryStore(limit)
    assert caught.value.option == "maxSessions"


def test_takesTheTimeFromTheGlobalReactor() -> None:
    """
    Without a reactor, time is the wall clock's.
    """
    store = MemoryStore()
    resultOf(store.set("past", Record(b"{}", 1_000_000_000.0)))
    resultOf(store.set("future", Record(b"{}", 32_000_000_000.0)))
    assert resultOf(store.get("past")) is None
    assert resultOf(store.get("future")) == Record(b"{}", 32_000_000_000.0)


def test_evictsTheOneClosestToItsExpiry() -> None:
    """
    A full store drops the record that would have expired first, touches
    included, to take in a new one; replacing a record drops none.
    """
    store = MemoryStore(3, reactor=Clock())
    for sid, expires in [("a", 10.0), ("b", 20.0), ("c", 30.0)]:
        assert resultOf(store.create(sid, Record(b"{}", expires)))
    resultOf(store.touch("a", 40.0))
    resultOf(store.set("b", Record(b"{1}", 20.0)))
    assert resultOf(store.length()) == 3
    resultOf(store.set("d", Record(b"{}", 15.0)))
    assert sorted(resultOf(store.all())) == ["a", "c", "d"]
    assert resultOf(store.create("e", Record(b"{}", 50.0)))
    assert sorted(resultOf(store.all())) == ["a", "c", "e"]


def test_dropsExpiredRecordsAsItIsUsed() -> None:
    """
    Expired records go, two with every call, without anybody asking for them.
    """
    clock = Clock()
    store = MemoryStore(reactor=clock)
    for number in range(100):
        resultOf(store.set(f"old{number}", Record(b"{}", 1.0)))
    clock.advance(2)
    for number in range(50):
        resultOf(store.set(f"new{number}", Record(b"{}", 10.0)))
    assert repr(store) == "<MemoryStore of 50 sessions>"


def test_prunesNoMoreThanAsked() -> None:
    """
    prune(limit) deletes at most so many, and says how many.
    """
    clock = Clock()
    store = MemoryStore(reactor=clock)
    for number in range(5):
        resultOf(store.set(f"old{number}", Record(b"{}", 1.0)))
    resultOf(store.set("live", Record(b"{}", 5.0)))
    clock.advance(1)
    assert [resultOf(store.prune(3)) for _ in range(3)] == [3, 2, 0]
    assert list(resultOf(store.all())) == ["live"]


def test_clearForgetsAll() -> None:
    """
    After clear() there is nothing, and the store goes on working.
    """
    store = MemoryStore(reactor=Clock())
    resultOf(store.set("a", Record(b"{}", 10.0)))
    resultOf(store.clear())
    assert resultOf(store.length()) == 0
    assert resultOf(store.create("a", Record(b"{}", 10.0))) is True


def test_startAndStopKeepTheSessions() -> None:
    """
    start() and stop() have nothing to do, and lose nothing.
    """
    store = MemoryStore(reactor=Clock())
    resultOf(store.start())
    resultOf(store.set("a", Record(b"{}", 10.0)))
    resultOf(store.stop())
    assert resultOf(store.get("a")) == Record(b"{}", 10.0)


SIDS = st.sampled_from(["a", "b", "c", "d", "e", "f"])
LATER = st.integers(-5, 60)


class MemoryStoreModel(RuleBasedStateMachine):
    """
    A MemoryStore behaves like a dictionary whose items expire.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.store = MemoryStore(reactor=self.clock)
        self.model: dict[str, Record] = {}

    def live(self, sid: str) -> Record | None:
        record = self.model.get(sid)
        return record if record and record.isLive(self.clock.seconds()) else None

    @rule(sid=SIDS, payload=st.binary(max_size=3), later=LATER)
    def set(self, sid: str, payload: bytes, later: int) -> None:
        record = Record(payload, self.clock.seconds() + later)
        self.model[sid] = record
        assert resultOf(self.store.set(sid, record)) is None

    @rule(sid=SIDS, payload=st.binary(max_size=3), later=LATER)
    def create(self, sid: str, payload: bytes, later: int) -> None:
        record = Record(payload, self.clock.seconds() + later)
        isFree = self.live(sid) is None
        if isFree:
            self.model[sid] = record
        assert resultOf(self.store.create(sid, record)) is isFree

    @rule(
        sid=SIDS,
        payload=st.binary(max_size=3),
        expected=st.binary(max_size=3),
        later=LATER,
    )
    def replace(self, sid: str, payload: bytes, expected: bytes, later: int) -> None:
        record = Record(payload, self.clock.seconds() + later)
        current = self.live(sid)
        matches = current is not None and current.payload == expected
        if matches:
            self.model[sid] = record
        answer = self.store.replace(sid, record, Record(expected, 0.0))
        assert resultOf(answer) is matches

    @rule(sid=SIDS, later=LATER)
    def touch(self, sid: str, later: int) -> None:
        current = self.live(sid)
        expires = self.clock.seconds() + later
        if current is not None:
            self.model[sid] = Record(current.payload, expires)
        assert resultOf(self.store.touch(sid, expires)) is None

    @rule(sid=SIDS)
    def destroy(self, sid: str) -> None:
        self.model.pop(sid, None)
        assert resultOf(self.store.destroy(sid)) is None

    @rule(seconds=st.integers(1, 20))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule(limit=st.integers(0, 3))
    def prune(self, limit: int) -> None:
        before = len(self.store._entries)
        pruned = resultOf(self.store.prune(limit))
        assert before - pruned == len(self.store._entries)
        assert pruned <= limit

    @rule()
    def clear(self) -> None:
        self.model.clear()
        resultOf(self.store.clear())

    @rule(sid=SIDS)
    def get(self, sid: str) -> None:
        assert resultOf(self.store.get(sid)) == self.live(sid)

    @rule()
    def length(self) -> None:
        assert resultOf(self.store.length()) == sum(
            self.live(sid) is not None for sid in self.model
        )

    @invariant()
    def holdsJustWhatIsLive(self) -> None:
        live = {sid: record for sid in self.model if (record := self.live(sid))}
        assert resultOf(self.store.all()) == live


MemoryStoreModel.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None
)
TestMemoryStoreModel = MemoryStoreModel.TestCase
