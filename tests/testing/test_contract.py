"""
`txsession.testing.StoreContract` accepts a store that keeps its promises, whatever
it answers with, and rejects each that does not, for the reason why.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import SkipTest, TestCase

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from txsession import MemoryStore, Record
from txsession.testing import FaultyStore, StoreContract

PROMISES = [name for name in dir(StoreContract) if name.startswith("test_")]


class DictStore:
    """
    A store that keeps every promise.
    """

    available = True

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}

    def live(self, sid: str) -> Record | None:
        record = self.records.get(sid)
        return record if record is not None and record.isLive(time.time()) else None

    def get(self, sid: str) -> Any:
        return self.live(sid)

    def set(self, sid: str, record: Record) -> Any:
        self.records[sid] = record

    def destroy(self, sid: str) -> Any:
        self.records.pop(sid, None)

    def touch(self, sid: str, expires: float) -> Any:
        record = self.live(sid)
        if record is not None:
            self.records[sid] = Record(record.payload, expires)

    def create(self, sid: str, record: Record) -> Any:
        if self.live(sid) is not None:
            return False
        self.records[sid] = record
        return True

    def replace(self, sid: str, record: Record, expected: Record) -> Any:
        current = self.live(sid)
        if current is None or current.payload != expected.payload:
            return False
        self.records[sid] = record
        return True

    def all(self) -> Any:
        return {sid: self.records[sid] for sid in self.records if self.live(sid)}

    def length(self) -> Any:
        return len(self.all())

    def clear(self) -> Any:
        self.records.clear()

    def prune(self, limit: int) -> Any:
        expired = [sid for sid in self.records if not self.live(sid)][:limit]
        for sid in expired:
            del self.records[sid]
        return len(expired)

    def start(self) -> Any:
        pass

    def stop(self) -> Any:
        pass


def answering(how: Callable[[Any], Any]) -> Callable[[], Any]:
    """
    Makes stores that keep every promise, and answer in another way.
    """

    def make() -> Any:
        store = DictStore()

        def method(name: str) -> Any:
            return lambda *arguments: how(getattr(store, name)(*arguments))

        return SimpleNamespace(**{name: method(name) for name in OPERATIONS})

    return make


async def coroutine(value: Any) -> Any:
    await pause()
    return value


OPERATIONS = [name for name in vars(DictStore) if name[0] != "_" and name != "live"]
OPERATIONS.remove("available")


class Minimal:
    """
    Has only what every store has.
    """

    def __init__(self) -> None:
        store = DictStore()
        self.get, self.set, self.destroy = store.get, store.set, store.destroy


# Stores that lie.  Each names the promise that it breaks, and part of what is said
# of it.


class Loses(DictStore):
    broken = "test_answersAreNotConfused", "is there"

    def set(self, sid: str, record: Record) -> Any:
        if sid != "a7":
            super().set(sid, record)


class KeepsTheFirst(DictStore):
    broken = "test_setReplacesWhatIsThere", "the payload in the record of 'a'"

    def set(self, sid: str, record: Record) -> Any:
        self.records.setdefault(sid, record)


class RoundsTheExpiryDown(DictStore):
    broken = "test_keepsWhatIsSet", "is no earlier"

    def set(self, sid: str, record: Record) -> Any:
        super().set(sid, Record(record.payload, int(record.expires * 1000) / 1000))


class RoundsTheExpiryUpToSeconds(DictStore):
    broken = "test_keepsWhatIsSet", "the expiry in the record of 'a1' is kept"

    def set(self, sid: str, record: Record) -> Any:
        super().set(sid, Record(record.payload, -(-record.expires // 1)))


class Reformats(DictStore):
    """
    As a column of type jsonb does.
    """

    broken = "test_payloadsComeBackByteForByte", "the payload in the record of"

    def set(self, sid: str, record: Record) -> Any:
        import json

        document = json.loads(record.payload)
        payload = json.dumps(document, sort_keys=True, separators=(",", ":"))
        super().set(sid, Record(payload.encode("utf-8", "ignore"), record.expires))


class Truncates(DictStore):
    broken = "test_payloadsMayBeLarge", "the payload in the record of 'a0'"

    def set(self, sid: str, record: Record) -> Any:
        super().set(sid, Record(record.payload[:65535], record.expires))


class GivesText(DictStore):
    broken = "test_keepsWhatIsSet", "the type of the payload"

    def get(self, sid: str) -> Any:
        record = self.live(sid)
        return record and Record(record.payload.decode(), record.expires)  # type: ignore[arg-type]


class KeyChanging(DictStore):
    """
    Keeps records under something else than the ID.
    """

    def key(self, sid: str) -> str:
        raise NotImplementedError

    def get(self, sid: str) -> Any:
        return super().get(self.key(sid))

    def set(self, sid: str, record: Record) -> Any:
        super().set(self.key(sid), record)

    def destroy(self, sid: str) -> Any:
        super().destroy(self.key(sid))


class FoldsCase(KeyChanging):
    broken = "test_IDsAreNotConfused", "the payload in the record of 'abc'"

    def key(self, sid: str) -> str:
        return sid.lower()


class StripsBlanks(KeyChanging):
    broken = "test_IDsAreNotConfused", "the payload in the record of 'abc'"

    def key(self, sid: str) -> str:
        return sid.strip()


class ShortensIDs(KeyChanging):
    broken = "test_IDsAreNotConfused", "the payload in the record of 'xxxxx"

    def key(self, sid: str) -> str:
        return sid[:128]


class NormalisesIDs(KeyChanging):
    broken = "test_IDsAreNotConfused", "the payload in the record of 'é'"

    def key(self, sid: str) -> str:
        import unicodedata

        return unicodedata.normalize("NFC", sid)


class EndsIDsAtNUL(KeyChanging):
    broken = "test_anIDThatCannotBeHeldIsAbsent", "an ID with a NUL is None"

    def key(self, sid: str) -> str:
        return sid.partition("\0")[0]


class TakesIDsForPatterns(DictStore):
    broken = "test_IDsAreNotConfused", "is there"

    def destroy(self, sid: str) -> Any:
        from fnmatch import fnmatchcase

        for each in [each for each in self.records if fnmatchcase(each, sid)]:
            del self.records[each]


class FailsForNUL(DictStore):
    broken = "test_anIDThatCannotBeHeldIsAbsent", "embedded null"

    def get(self, sid: str) -> Any:
        if "\0" in sid:
            raise ValueError("embedded null byte")
        return super().get(sid)


class FailsForUnknown(DictStore):
    broken = "test_destroyForgets", "a"

    def destroy(self, sid: str) -> Any:
        del self.records[sid]


class DestroysNothing(DictStore):
    broken = "test_destroyForgets", "a session that was destroyed is None"

    def destroy(self, sid: str) -> Any:
        pass


class NeverExpires(DictStore):
    broken = "test_expires", "a tenth of a second after its expiry is None"

    def get(self, sid: str) -> Any:
        return self.records.get(sid)


class ExpiresAtWholeSeconds(DictStore):
    broken = "test_expires", "a session is there until its expiry"

    def get(self, sid: str) -> Any:
        record = self.records.get(sid)
        return record if record and int(record.expires) > time.time() else None


class RefusesAnExpiredID(DictStore):
    broken = "test_createTakesAnExpiredID", "whose session has expired is True"

    def create(self, sid: str, record: Record) -> Any:
        return False if sid in self.records else super().create(sid, record)


class TouchRevives(DictStore):
    broken = "test_touchRevivesNothing", "had expired before touch() is None"

    def touch(self, sid: str, expires: float) -> Any:
        if sid in self.records:
            self.records[sid] = Record(self.records[sid].payload, expires)


class TouchCreates(DictStore):
    broken = "test_touchCreatesNothing", "an unknown ID after touch() is None"

    def touch(self, sid: str, expires: float) -> Any:
        record = self.live(sid) or Record(b"{}", 0)
        self.records[sid] = Record(record.payload, expires)


class TouchOnlyLengthens(DictStore):
    broken = "test_touchSetsTheExpiry", "the expiry in the record of 'a'"

    def touch(self, sid: str, expires: float) -> Any:
        record = self.live(sid)
        if record is not None and record.expires < expires:
            super().touch(sid, expires)


class TouchWritesBack(DictStore):
    """
    Reads the record, and later writes what it read.
    """

    broken = "test_touchGoesWithSet", "what set() stored is there"

    async def touch(self, sid: str, expires: float) -> Any:
        record = self.live(sid)
        await pause()
        if record is not None and sid in self.records:
            self.records[sid] = Record(record.payload, expires)


class TouchBringsBack(TouchWritesBack):
    broken = "test_touchGoesWithDestroy", "destroyed at the time of touch() is None"

    async def touch(self, sid: str, expires: float) -> Any:
        record = self.live(sid)
        await pause()
        if record is not None:
            self.records[sid] = Record(record.payload, expires)


class CreateOverwrites(DictStore):
    broken = "test_createTakesAFreeID", "create() of an ID that is taken is False"

    def create(self, sid: str, record: Record) -> Any:
        self.records[sid] = record
        return True


class CreateSaysNothing(DictStore):
    broken = "test_createTakesAFreeID", "create() of a free ID is True, not None"

    def create(self, sid: str, record: Record) -> Any:
        super().create(sid, record)


class CreateLooksFirst(DictStore):
    broken = "test_oneOfManyCreates", "of 20 at the same time one succeeds, not 20"

    async def create(self, sid: str, record: Record) -> Any:
        isFree = self.live(sid) is None
        await pause()
        return super().create(sid, record) or isFree


class ReplaceLooksFirst(DictStore):
    broken = "test_oneOfManyReplaces", "of 20 at the same time one succeeds, not 20"

    async def replace(self, sid: str, record: Record, expected: Record) -> Any:
        current = self.live(sid)
        await pause()
        if current is None or current.payload != expected.payload:
            return False
        self.records[sid] = record
        return True


class ReplaceUndoesDestroy(ReplaceLooksFirst):
    broken = "test_destroyGoesWithReplace", "destroyed at the time of replace() is None"


class ReplaceIsUpsert(DictStore):
    broken = "test_replaceCreatesNothing", "replace() of an unknown ID is False"

    def replace(self, sid: str, record: Record, expected: Record) -> Any:
        current = self.live(sid)
        if current is not None and current.payload != expected.payload:
            return False
        self.records[sid] = record
        return True


class ReplaceRevives(DictStore):
    broken = "test_replaceRevivesNothing", "replace() of a session that has expired"

    def replace(self, sid: str, record: Record, expected: Record) -> Any:
        current = self.records.get(sid)
        if current is None or current.payload != expected.payload:
            return False
        self.records[sid] = record
        return True


class ReplaceComparesExpiry(DictStore):
    broken = "test_replaceComparesThePayload", "with the payload expected is True"

    def replace(self, sid: str, record: Record, expected: Record) -> Any:
        if self.live(sid) != expected:
            return False
        return super().replace(sid, record, expected)


class ReplaceComparesLengths(DictStore):
    broken = "test_replaceComparesThePayload", "with another payload is False"

    def replace(self, sid: str, record: Record, expected: Record) -> Any:
        current = self.live(sid)
        if current is None or len(current.payload) != len(expected.payload):
            return False
        self.records[sid] = record
        return True


class ReplaceComparesJSON(DictStore):
    """
    As a column of type jsonb does.
    """

    broken = "test_replaceComparesThePayload", "with another payload is False"

    def replace(self, sid: str, record: Record, expected: Record) -> Any:
        current = self.live(sid)
        if current is None:
            return False
        if json.loads(current.payload) != json.loads(expected.payload):
            return False
        self.records[sid] = record
        return True


class ReplaceOnlyLengthens(DictStore):
    broken = "test_replaceComparesThePayload", "the expiry in the record of 'a'"

    def replace(self, sid: str, record: Record, expected: Record) -> Any:
        current = self.live(sid)
        longer = max(record.expires, current.expires if current else 0)
        return super().replace(sid, Record(record.payload, longer), expected)


class KeepsTheFirstTimeToLive(DictStore):
    """
    As a backend does that forgets by itself, and whose time to live is not renewed.
    """

    broken = "test_whatIsRenewedLivesOn", "the record of 'touch' is there"

    def __init__(self) -> None:
        super().__init__()
        self.deadlines: dict[str, float] = {}

    def set(self, sid: str, record: Record) -> Any:
        super().set(sid, record)
        self.deadlines[sid] = record.expires

    def create(self, sid: str, record: Record) -> Any:
        if self.live(sid) is None:
            self.deadlines.pop(sid, None)
        return super().create(sid, record)

    def live(self, sid: str) -> Record | None:
        isOver = self.deadlines.get(sid, inf) <= time.time()
        return None if isOver else super().live(sid)


class PrunesByAnOldIndex(KeepsTheFirstTimeToLive):
    """
    Prunes by an index of expiries that only C{set} keeps.
    """

    broken = "test_whatIsRenewedLivesOn", "the record of 'touch' is there"

    def live(self, sid: str) -> Record | None:
        return DictStore.live(self, sid)

    def prune(self, limit: int) -> Any:
        for sid, expires in list(self.deadlines.items()):
            if expires <= time.time():
                self.records.pop(sid, None)
        return 0


class ListsByAnOldIndex(KeepsTheFirstTimeToLive):
    broken = "test_whatIsRenewedLivesOn", "the IDs of all()"

    def live(self, sid: str) -> Record | None:
        return DictStore.live(self, sid)

    def all(self) -> Any:
        now = time.time()
        found = super().all()
        return {sid: found[sid] for sid in found if self.deadlines.get(sid, inf) > now}


class ReplaceLosesSome(DictStore):
    broken = "test_replaceLosesNothing", "the count of 40 increments"

    count = 0

    def replace(self, sid: str, record: Record, expected: Record) -> Any:
        self.count += 1
        if self.count == 7:
            return True
        return super().replace(sid, record, expected)


class TouchHindersReplace(DictStore):
    """
    Takes any change for a change of the data.
    """

    broken = "test_touchGoesWithReplace", "does not keep replace() from succeeding"

    async def replace(self, sid: str, record: Record, expected: Record) -> Any:
        current = self.live(sid)
        await pause()
        if self.live(sid) != current:
            return False
        return super().replace(sid, record, expected)


class ConfusesAnswers(DictStore):
    """
    Gives the answers in the order of the questions, but forgets those that are no
    longer waited for.
    """

    broken = "test_answersAreNotConfused", "the payload in the record of"

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Deferred[Any]] = []
        self.answers: list[Any] = []

    def get(self, sid: str) -> Any:
        waiting: Deferred[Any] = Deferred(self.waiting.remove)
        self.waiting.append(waiting)
        self.answers.append(self.live(sid))
        reactor.callLater(0, self.answer)
        return waiting

    def answer(self) -> None:
        if self.waiting:
            self.waiting.pop(0).callback(self.answers.pop(0))


class CountsTheDead(DictStore):
    broken = "test_countsOnlyWhatLives", "the IDs of all()"

    def all(self) -> Any:
        return dict(self.records)


class ListsAPage(DictStore):
    broken = "test_clearForgetsAll", "the IDs of 1100 sessions"

    def all(self) -> Any:
        return dict(list(super().all().items())[:1000])

    def length(self) -> Any:
        return len(self.records)


class ClearsAPage(DictStore):
    broken = "test_clearForgetsAll", "length() after clear() is 0, not 100"

    def clear(self) -> Any:
        for sid in list(self.records)[:1000]:
            del self.records[sid]


class PrunesTheLiving(DictStore):
    broken = "test_pruneDeletesWhatHasExpired", "the record of 'kept' is there"

    def prune(self, limit: int) -> Any:
        pruned = super().prune(limit)
        self.records.pop("kept" if limit else "", None)
        return pruned


class PrunesTooMany(DictStore):
    broken = "test_pruneDeletesWhatHasExpired", "prune(2) deletes and counts"

    def prune(self, limit: int) -> Any:
        return super().prune(limit * 1000)


class MiscountsPruning(DictStore):
    broken = "test_pruneDeletesWhatHasExpired", "prune() counts what it deleted"

    def prune(self, limit: int) -> Any:
        super().prune(limit)
        return limit


class StopsForGood(DictStore):
    broken = "test_startsAndStops", "the store is closed"

    isClosed = False

    def stop(self) -> Any:
        self.isClosed = True

    def set(self, sid: str, record: Record) -> Any:
        if self.isClosed:
            raise RuntimeError("the store is closed")
        super().set(sid, record)


class StopsTooEarly(DictStore):
    broken = "test_stopFinishesWhatIsUnderWay", "0 of 10 writes were"

    async def set(self, sid: str, record: Record) -> Any:
        await pause()
        super().set(sid, record)


class ForgetsWhenItStops(DictStore):
    broken = "test_stopFinishesWhatIsUnderWay", "the record of 'a0' is there"

    def stop(self) -> Any:
        self.records.clear()


class StoresWhatHasExpired(DictStore):
    """
    Tells what has expired by when it is asked to forget it.
    """

    broken = "test_whatHasExpiredIsNotStored", "created with an expiry that had passed"

    def create(self, sid: str, record: Record) -> Any:
        return super().create(sid, Record(record.payload, record.expires + 60))


class ForgetsAfter2038(DictStore):
    broken = "test_keepsWhatIsSet", "the record of 'a4' is there"

    def set(self, sid: str, record: Record) -> Any:
        if record.expires < 2**31:
            super().set(sid, record)


class HalfConditional(DictStore):
    broken = "test_hasWhatAStoreHas", "create, replace come together"

    replace = None  # type: ignore[assignment]


class SaysItIsUnavailable(DictStore):
    broken = "test_hasWhatAStoreHas", "available is True, not False"

    available = False


LIARS: list[Any] = [
    each
    for each in list(globals().values())
    if isinstance(each, type) and issubclass(each, DictStore) and "broken" in vars(each)
]


def pause() -> Deferred[None]:
    return deferLater(reactor, 0)  # type: ignore[arg-type]


def putTo(make: Callable[[], Any], promise: str) -> Deferred[None]:
    """
    Run one test of the contract.
    """

    class Tests(StoreContract):
        def makeStore(self) -> Any:
            return make()

    running: Deferred[None] = getattr(Tests(), promise)()
    return running


def test_manyStoresLie() -> None:
    """
    There are enough of those that must be rejected, and each lies by itself.
    """
    assert len(LIARS) >= 15
    assert {each.broken[0] for each in LIARS} <= set(PROMISES)


@pytest.mark.parametrize(
    "make",
    [DictStore, answering(succeed), answering(coroutine)],
    ids=["values", "deferreds", "coroutines"],
)
@pytest.mark.parametrize("promise", PROMISES)
@pytest_twisted.ensureDeferred
async def test_acceptsWhoKeepsItsPromises(make: Any, promise: str) -> None:
    """
    A store that keeps every promise passes, whatever it answers with.
    """
    await putTo(make, promise)


@pytest.mark.parametrize("liar", LIARS)
@pytest_twisted.ensureDeferred
async def test_rejectsWhoLies(liar: Any) -> None:
    """
    A store that breaks a promise is rejected by the test of that promise.
    """
    promise, reason = liar.broken
    with pytest.raises(Exception, match=re.escape(reason)):
        await putTo(liar, promise)


@pytest_twisted.ensureDeferred
async def test_makeStoreMayTakeItsTime() -> None:
    """
    C{makeStore} may give a Deferred or a coroutine.
    """

    async def make() -> DictStore:
        await pause()
        return DictStore()

    await putTo(make, "test_keepsWhatIsSet")
    await putTo(lambda: succeed(DictStore()), "test_keepsWhatIsSet")


@pytest_twisted.ensureDeferred
async def test_makeStoreIsToBeGiven() -> None:
    """
    Who forgets C{makeStore} is told.
    """

    class Tests(StoreContract):
        pass

    with pytest.raises(NotImplementedError, match="makeStore"):
        await Tests().test_unknownIsAbsent()


@pytest_twisted.ensureDeferred
async def test_skipsWhatAStoreCannotDo() -> None:
    """
    What a store lacks is skipped; all else is tested.
    """
    skipped = []
    for promise in PROMISES:
        try:
            await putTo(Minimal, promise)
        except SkipTest:
            skipped.append(promise)
    assert len(skipped) == len(PROMISES) - 14, skipped


@pytest_twisted.ensureDeferred
async def test_theStoreIsStopped() -> None:
    """
    Each store is stopped after its test, if it can be.
    """
    stopped = []

    class Store(DictStore):
        def stop(self) -> Any:
            stopped.append(self)

    await putTo(Store, "test_unknownIsAbsent")
    assert len(stopped) == 1


# Under the test runners, as a store's author has it.

AUTHORS = """
    import time
    from txsession import MemoryStore
    from txsession.testing import StoreContract
    {imports}

    class {name}(StoreContract{base}):
        def makeStore(self):
            return {store}
"""


def runner(folder: Path, *command: str, **parts: str) -> tuple[int, str]:
    """
    Run an author's tests in a process of their own.
    """
    parts = {"imports": "", "base": "", "store": "MemoryStore()", **parts}
    folder.joinpath("test_mine.py").write_text(
        textwrap.dedent(AUTHORS.format(**parts)), "utf-8"
    )
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


def test_underPytest(tmp_path: Path) -> None:
    """
    Under pytest with pytest-twisted, the tests of the author's class run, and the
    contract's own class is not taken for one.
    """
    code, output = runner(
        tmp_path, "pytest", "-q", "-p", "no:randomly", name="TestMine"
    )
    assert code == 0, output
    assert f"{len(PROMISES)} passed" in output


def test_underTrial(tmp_path: Path) -> None:
    """
    Beside a TestCase, the tests run under trial.
    """
    code, output = runner(
        tmp_path,
        "twisted.trial",
        "test_mine",
        imports="from twisted.trial.unittest import TestCase",
        base=", TestCase",
        name="MineTests",
    )
    assert code == 0, output
    assert f"Ran {len(PROMISES)} tests" in output


def test_aLiarUnderTrial(tmp_path: Path) -> None:
    """
    A store that lies fails its test under trial, too.
    """
    code, output = runner(
        tmp_path,
        "twisted.trial",
        "test_mine.MineTests.test_touchCreatesNothing",
        imports="from twisted.trial.unittest import TestCase",
        base=", TestCase",
        name="MineTests",
        store="type('Liar', (MemoryStore,), {'touch': lambda self, sid, expires: "
        "self.set(sid, __import__('txsession').Record(b'{}', expires))})()",
    )
    assert code == 1, output
    assert "an unknown ID after touch() is None, not Record" in output


def test_nobodyWaits(tmp_path: Path) -> None:
    """
    Under pytest without pytest-twisted no test passes that nobody waited for.
    """
    code, output = runner(tmp_path, "pytest", "-q", "-p", "no:twisted", name="TestMine")
    assert code == 1, output
    assert "pip install pytest-twisted" in output


def test_underPytestAsATestCase(tmp_path: Path) -> None:
    """
    Beside trial's TestCase, the tests run under pytest as well.
    """
    code, output = runner(
        tmp_path,
        "pytest",
        "-q",
        "test_mine.py",
        "-k",
        "destroyForgets",
        imports="from twisted.trial.unittest import TestCase",
        base=", TestCase",
        name="MineTests",
    )
    assert code == 0, output
    assert "1 passed" in output


@pytest.mark.parametrize("base", [TestCase, SynchronousTestCase])
def test_refusesTestCasesThatWaitForNothing(base: type) -> None:
    """
    A TestCase that does not wait for Deferreds is refused, as its tests would always
    pass.
    """
    with pytest.raises(TypeError, match=r"twisted\.trial\.unittest"):
        type("Tests", (StoreContract, base), {})


@pytest_twisted.ensureDeferred
async def test_aFailureIsNotHiddenByStop() -> None:
    """
    What a test has found is told even if the store cannot be stopped; a stop that
    fails after a test that passed is told, too.
    """

    class Store(Loses):
        def stop(self) -> Any:
            raise RuntimeError("cannot stop")

    with pytest.raises(AssertionError, match="is there"):
        await putTo(Store, "test_answersAreNotConfused")
    with pytest.raises(RuntimeError, match="cannot stop"):
        await putTo(Store, "test_unknownIsAbsent")


@pytest_twisted.ensureDeferred
async def test_aSlowStoreIsNotRejected() -> None:
    """
    A store that takes its time keeps its promises all the same.
    """

    def make() -> FaultyStore:
        store = FaultyStore(MemoryStore())
        store.delay(0.08)
        return store

    await gatherResults(
        [
            putTo(make, promise)
            for promise in (
                "test_expires",
                "test_touchRevivesNothing",
                "test_tellsWhatItHolds",
                "test_replaceComparesThePayload",
            )
        ]
    )
