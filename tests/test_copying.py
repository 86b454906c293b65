"""
The copy of a store's sessions to another.
"""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from attrs import asdict
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import Logger

from txsession import MemoryStore, Record, SessionConflict, StoreUnavailable
from txsession.backend import Backend
from txsession.copying import MAX_TRIES, WORKERS, Copying, Counts, recordsOf
from txsession.document import TOMBSTONE
from txsession.signing import fingerprint

from .support import START, StepStore, called, clockAt, only, patiently, turn

ONE = Record(b'{"cookie":{},"n":1}', START + 100)
TWO = Record(b'{"cookie":{},"n":2}', START + 100)


@pytest.fixture
def clock() -> Clock:
    return clockAt()


@pytest.fixture
def source(clock: Clock) -> MemoryStore:
    return MemoryStore(reactor=clock)


@pytest.fixture
def target(clock: Clock) -> MemoryStore:
    return MemoryStore(reactor=clock)


def copying(source: Any, target: Any, clock: Clock, **options: Any) -> Copying:
    def backend(store: Any) -> Backend:
        return Backend(store=store, log=Logger(), reactor=lambda: clock, timeout=10)

    return Copying(backend(source), backend(target), clock.seconds, **options)


async def copied(*arguments: Any, **options: Any) -> dict[str, int]:
    """
    What a copy counts that is not nothing.
    """
    copy = copying(*arguments, **options)
    await copy.run()
    return {name: count for name, count in asdict(copy.counts).items() if count}


def fill(store: MemoryStore, count: int) -> None:
    for number in range(count):
        store.set(f"session-{number:03}", ONE)


ABILITIES = [
    ("get", "set", "destroy", "touch", "create", "replace", "all"),
    ("get", "set", "destroy", "touch", "all"),
    ("get", "set", "destroy", "all"),
]


@pytest.fixture(params=ABILITIES, ids=["conditional", "touchable", "plain"])
def limited(request: Any, target: MemoryStore) -> Any:
    """
    The target, with more or fewer abilities.
    """
    return only(target, *request.param)


@pytest_twisted.ensureDeferred
async def test_copies(source: Any, target: Any, limited: Any, clock: Clock) -> None:
    """
    Every session is in the other store then, with its payload and expiry.
    """
    source.set("one", ONE)
    source.set("två ", Record(b"corrupt", START + 5.123))
    assert await copied(source, limited, clock) == {"total": 2, "copied": 2}
    assert await target.all() == await source.all()
    assert len(await source.all()) == 2


@pytest_twisted.ensureDeferred
async def test_skipsWhatIsThere(source: Any, limited: Any, clock: Clock) -> None:
    """
    A second copy finds nothing to do.
    """
    fill(source, 100)
    await copied(source, limited, clock)
    assert await copied(source, limited, clock) == {"total": 100, "skipped": 100}


@pytest_twisted.ensureDeferred
async def test_keepsOtherData(source: Any, limited: Any, clock: Clock) -> None:
    """
    A session that has other data in the target keeps it.
    """
    source.set("one", ONE)
    limited.set("one", TWO)
    counts = await copied(source, limited, clock)
    assert counts == {"total": 1, "skipped": 1, "different": 1}
    assert await limited.get("one") == TWO


@pytest_twisted.ensureDeferred
async def test_overwritesOtherData(source: Any, limited: Any, clock: Clock) -> None:
    """
    If told to, it overwrites other data.
    """
    source.set("one", ONE)
    limited.set("one", TWO)
    counts = await copied(source, limited, clock, overwrites=True)
    assert counts == {"total": 1, "copied": 1, "overwritten": 1}
    assert await limited.get("one") == ONE


@pytest_twisted.ensureDeferred
async def test_renewsWhatWasUsedSince(source: Any, limited: Any, clock: Clock) -> None:
    """
    A session that ends later in the source does so in the target, too.
    """
    source.set("one", ONE)
    await copied(source, limited, clock)
    source.touch("one", START + 200)
    counts = await copied(source, limited, clock)
    assert counts == {"total": 1, "skipped": 1, "renewed": 1}
    assert (await limited.get("one")).expires == START + 200


@pytest_twisted.ensureDeferred
async def test_shortensNoLife(source: Any, target: Any, clock: Clock) -> None:
    """
    A session that ends later in the target goes on doing so.
    """
    source.set("one", ONE)
    target.set("one", Record(ONE.payload, START + 200))
    assert await copied(source, target, clock) == {"total": 1, "skipped": 1}
    assert (await target.get("one")).expires == START + 200


@pytest_twisted.ensureDeferred
async def test_deletesWhatIsOnlyThere(source: Any, target: Any, clock: Clock) -> None:
    """
    If told to, it deletes what is only in the target; otherwise not.
    """
    source.set("one", ONE)
    target.set("two", TWO)
    await copied(source, target, clock)
    assert len(await target.all()) == 2
    counts = await copied(source, target, clock, deletes=True)
    assert counts == {"total": 1, "skipped": 1, "deleted": 1}
    assert list(await target.all()) == ["one"]


@pytest_twisted.ensureDeferred
async def test_emptySourceDeletesNothing(
    source: Any, target: Any, clock: Clock
) -> None:
    """
    A source without sessions is more likely the wrong one: nothing is deleted.
    """
    target.set("two", TWO)
    assert await copied(source, target, clock, deletes=True) == {}
    assert list(await target.all()) == ["two"]


@pytest_twisted.ensureDeferred
async def test_tombstonesAreNoSessions(source: Any, target: Any, clock: Clock) -> None:
    """
    What stands for a session that is just given another ID is not copied, and not
    overwritten.
    """
    tombstone = Record(TOMBSTONE, START + 10)
    source.set("moved", tombstone)
    source.set("one", ONE)
    target.set("one", tombstone)
    counts = await copied(source, target, clock, overwrites=True)
    assert counts == {"total": 1, "skipped": 1, "different": 1}
    assert await target.all() == {"one": tombstone}
    assert await recordsOf(target) == {}


@pytest_twisted.ensureDeferred
async def test_expiredMeanwhile(source: Any, target: Any, clock: Clock) -> None:
    """
    A session that expires before its turn is not copied.
    """
    source.set("one", ONE)
    step = StepStore(source, {"all"})
    copy = copying(step, target, clock)
    running = Deferred.fromCoroutine(copy.run())
    call = await called(step, "all")
    records = await source.all()
    clock.advance(1000)
    call.answer.callback(records)
    await patiently(running)
    assert (copy.counts.skipped, await target.all()) == (1, {})


@pytest_twisted.ensureDeferred
async def test_failuresAreCounted(source: Any, target: Any, clock: Clock) -> None:
    """
    A session that the target cannot hold is told of by its fingerprint; the others
    are copied.
    """
    fill(source, 3)
    store = only(target, "get", "set", "destroy", "replace")
    store.create = lambda sid, record: (
        fail(ValueError(f"not {sid}"))
        if sid == "session-001"
        else target.create(sid, record)
    )
    told: list[Any] = []
    counts = await copied(
        source, store, clock, failed=lambda *arguments: told.append(arguments)
    )
    assert counts == {"total": 3, "copied": 2, "failed": 1}
    [(session, error)] = told
    assert session == fingerprint("session-001")
    assert isinstance(error, ValueError)


@pytest_twisted.ensureDeferred
async def test_outageBreaksItOff(source: Any, target: Any, clock: Clock) -> None:
    """
    When the target is out of reach, the copy ends with that, and a second one goes
    on where it ended.
    """
    fill(source, 3)
    store = only(target, "get", "set", "destroy", "replace")
    store.create = lambda sid, record: (
        fail(StoreUnavailable("gone"))
        if sid == "session-001"
        else target.create(sid, record)
    )
    copy = copying(source, store, clock)
    with pytest.raises(StoreUnavailable):
        await copy.run()
    assert (copy.counts.copied, copy.counts.failed) == (1, 0)
    assert await copied(source, target, clock) == {
        "total": 3,
        "copied": 2,
        "skipped": 1,
    }


@pytest_twisted.ensureDeferred
async def test_stopped(source: Any, target: Any, clock: Clock) -> None:
    """
    A copy that is stopped finishes what is under way, and begins nothing more; not
    even the deleting.
    """
    fill(source, 100)
    target.set("other", TWO)
    step = StepStore(target, {"create"})
    copy = copying(source, step, clock, deletes=True)
    running = Deferred.fromCoroutine(copy.run())
    await turn()
    under = list(step.waiting)
    assert len(under) == WORKERS
    copy.stop()
    for call in under:
        call.release()
    await patiently(running)
    assert (copy.counts.done, copy.counts.copied) == (WORKERS, WORKERS)
    assert len(await target.all()) == WORKERS + 1


@pytest_twisted.ensureDeferred
async def test_progress(source: Any, target: Any, clock: Clock) -> None:
    """
    It tells how many sessions there are, and of each that it is done.
    """
    fill(source, 5)
    target.set("session-003", TWO)
    told: list[Any] = []
    await copied(
        source,
        target,
        clock,
        began=told.append,
        advanced=lambda: told.append("one more"),
    )
    assert told == [5, *["one more"] * 5]


@pytest_twisted.ensureDeferred
async def test_changedMeanwhile(source: Any, target: Any, clock: Clock) -> None:
    """
    A session that is changed in the target between being read and being overwritten
    is read again.
    """
    source.set("one", ONE)
    target.set("one", TWO)
    step = StepStore(target, {"replace"})
    copy = copying(source, step, clock, overwrites=True)
    running = Deferred.fromCoroutine(copy.run())
    call = await called(step, "replace")
    target.set("one", Record(b'{"cookie":{},"n":3}', START + 100))
    step.held.clear()
    call.release()
    await patiently(running)
    assert (copy.counts.overwritten, await target.get("one")) == (1, ONE)


@pytest.mark.parametrize("operation", ["get", "replace"])
@pytest_twisted.ensureDeferred
async def test_destroyedMeanwhile(
    source: Any, target: Any, clock: Clock, operation: str
) -> None:
    """
    A session that is destroyed in the target as the copy comes by stays destroyed.
    """
    source.set("one", ONE)
    target.set("one", TWO)
    step = StepStore(target, {operation})
    copy = copying(source, step, clock, overwrites=True)
    running = Deferred.fromCoroutine(copy.run())
    call = await called(step, operation)
    target.destroy("one")
    step.held.clear()
    call.release()
    await patiently(running)
    assert (copy.counts.skipped, await target.all()) == (1, {})


@pytest_twisted.ensureDeferred
async def test_changedForEver(source: Any, target: Any, clock: Clock) -> None:
    """
    A session that goes on being changed is given up, as one that failed.
    """
    source.set("one", ONE)
    target.set("one", TWO)
    attempts: list[str] = []
    store = only(target, "get", "set", "destroy", "create")
    store.replace = lambda sid, *_: bool(attempts.append(sid))
    told: list[Any] = []
    counts = await copied(
        source,
        store,
        clock,
        overwrites=True,
        failed=lambda session, error: told.append(type(error)),
    )
    assert counts == {"total": 1, "failed": 1}
    assert (len(attempts), told) == (MAX_TRIES, [SessionConflict])


def test_countsAdd() -> None:
    """
    A session counts as done however it ended.
    """
    assert Counts(total=9, copied=1, skipped=2, failed=3, renewed=2).done == 6
