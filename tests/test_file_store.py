"""
`examples.file_store.FileStore` keeps the contract, and what its page says of it:
with several processes, when they are killed, and when the disk is gone.
"""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from threading import Timer
from typing import Any, ClassVar

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.python.threadable import isInIOThread

from examples.file_store import Directory, FileStore
from txsession import (
    ConditionalStore,
    EnumerableStore,
    PrunableStore,
    Record,
    ServiceStore,
    SessionService,
    Store,
    StoreUnavailable,
    getSession,
)
from txsession.store import TouchableStore
from txsession.testing import StoreContract

from .support import PATIENCE, Browser, Serve, clockAt, patiently
from .test_docs import code, tables, text

ROOT = Path(__file__).parents[1]
HOUR = 3600


class TestFileStore(StoreContract):
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "sessions"

    def makeStore(self) -> FileStore:
        return FileStore(self.path)


def test_nothingIsSkipped(path: Path) -> None:
    """
    It has every ability, so that the contract skips nothing.
    """
    for ability in (
        Store,
        TouchableStore,
        ConditionalStore,
        EnumerableStore,
        PrunableStore,
        ServiceStore,
    ):
        assert isinstance(FileStore(path), ability)
    assert FileStore(path).available


def lasting(payload: bytes = b"{}", seconds: float = HOUR) -> Record:
    return Record(payload, time.time() + seconds)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions"


@pytest.fixture
def store(path: Path) -> Iterator[FileStore]:
    made = FileStore(path)
    yield made
    pytest_twisted.blockon(made.stop())


def files(path: Path) -> list[Path]:
    return [each for each in path.glob("*/*") if each.is_file()]


@contextmanager
def program(*arguments: object) -> Iterator[Any]:
    """
    A process that runs a function of this module.
    """
    name, *rest = map(str, arguments)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.test_file_store", name, *rest],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with killing(process):
        yield process


@contextmanager
def killing(process: Any) -> Iterator[None]:
    """
    Have a process end at the end, or when it has taken too long: or else who
    reads what it says might wait for ever.
    """
    timer = Timer(PATIENCE, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        process.kill()
        process.communicate()


# Files.


@pytest_twisted.ensureDeferred
async def test_theDirectoryIsPrivate(store: FileStore, path: Path) -> None:
    """
    Nobody else can look into the directory, and no file's name is an ID.
    """
    await store.set("secret", lasting())
    assert path.stat().st_mode & 0o777 == 0o700
    [file] = files(path)
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert "secret" not in str(file)


@pytest_twisted.ensureDeferred
async def test_anyIDIsAnID(store: FileStore) -> None:
    """
    Whatever is a C{str} can be an ID, even what UTF-8 cannot encode.
    """
    strange = ["", "\0", "\ud800", "a\nb", "../../etc/passwd", "x" * 100_000, "new"]
    for number, sid in enumerate(strange):
        await store.set(sid, lasting(b"%d" % number))
    found = await store.all()
    assert {sid: found[sid].payload for sid in found} == {
        sid: b"%d" % number for number, sid in enumerate(strange)
    }


@pytest_twisted.ensureDeferred
async def test_aFileHoldsASession(store: FileStore, path: Path) -> None:
    """
    The first line of a file is the ID and the expiry, the rest the payload.
    """
    record = lasting(b"one\ntwo\n")
    await store.set("a", record)
    [file] = files(path)
    head, _, payload = file.read_bytes().partition(b"\n")
    assert (json.loads(head), payload) == (["a", record.expires], b"one\ntwo\n")


@pytest_twisted.ensureDeferred
async def test_othersFilesStay(store: FileStore, path: Path) -> None:
    """
    What else is in the directory is not the store's: C{clear} leaves it alone.
    """
    await store.set("a", lasting())
    other = path / "README"
    other.write_text("mine")
    await store.clear()
    assert await store.length() == 0
    assert files(path) == []
    assert other.read_text() == "mine"


@pytest_twisted.ensureDeferred
async def test_prunesInBatches(path: Path) -> None:
    """
    C{prune} deletes no more files than it may, goes on where it left off, and
    leaves what lives.
    """
    clock = clockAt()
    store = FileStore(path, seconds=clock.seconds)
    for number in range(30):
        await store.set(f"old {number}", Record(b"{}", clock.seconds() + 1))
        await store.set(f"new {number}", Record(b"{}", clock.seconds() + 2))
    clock.advance(1)
    assert len(files(path)) == 60
    counts = [await store.prune(7) for _ in range(6)]
    assert counts == [7, 7, 7, 7, 2, 0]
    assert len(files(path)) == 30
    assert set(await store.all()) == {f"new {number}" for number in range(30)}
    await store.stop()


@pytest_twisted.ensureDeferred
async def test_prunesNobodyWhoCameBack(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A session that is stored anew while its expired file is about to be deleted
    is not deleted.
    """
    clock = clockAt()
    directory = Directory(path, clock.seconds)
    directory.make()
    directory.set("a", Record(b"old", clock.seconds() + 1))
    clock.advance(1)
    delete = directory._delete

    def comesBack(folder: Path, expired: list[Path]) -> int:
        if expired:
            directory.set("a", Record(b"new", clock.seconds() + 1))
        return delete(folder, expired)

    monkeypatch.setattr(directory, "_delete", comesBack)
    assert directory.prune(10) == 0
    assert directory.get("a") == Record(b"new", clock.seconds() + 1)


# Threads.


@pytest_twisted.ensureDeferred
async def test_theReactorsThreadNeverWaitsForTheDisk(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Everything that is done with files is done in other threads.
    """
    where: dict[str, bool] = {}

    def watch(name: str) -> None:
        method = getattr(Directory, name)

        def watched(self: Any, *arguments: Any) -> Any:
            where[name] = isInIOThread()
            return method(self, *arguments)

        monkeypatch.setattr(Directory, name, watched)

    operations: dict[str, tuple[Any, ...]] = {
        "set": ("a", lasting()),
        "get": ("a",),
        "touch": ("a", time.time() + 60),
        "create": ("b", lasting()),
        "replace": ("a", lasting(), lasting()),
        "destroy": ("a",),
        "all": (),
        "length": (),
        "prune": (10,),
        "clear": (),
    }
    for name in ("make", "check", *operations):
        watch(name)
    store = FileStore(path)
    await store.start()
    for name, arguments in operations.items():
        await getattr(store, name)(*arguments)
    await store.stop()
    assert where == dict.fromkeys(("make", "check", *operations), False)


@pytest_twisted.ensureDeferred
async def test_threadsTakeTurns(store: FileStore) -> None:
    """
    Many who count at the same time lose no count.
    """
    await store.set("n", lasting(b"0"))
    await gatherResults(
        [Deferred.fromCoroutine(count(store, 10)) for _ in range(10)],
        consumeErrors=True,
    )
    assert (await store.get("n")).payload == b"100"


async def count(store: FileStore, times: int) -> None:
    for _ in range(times):
        while True:
            seen = await store.get("n")
            assert seen is not None
            more = Record(b"%d" % (int(seen.payload) + 1), seen.expires)
            if await store.replace("n", more, seen):
                break


def test_aProcessEndsThatNeverStoppedIt(path: Path) -> None:
    """
    Who forgets C{stop} has a process that ends nonetheless.
    """
    with program("once", path) as process:
        output, _ = process.communicate(timeout=PATIENCE)
        assert (output, process.returncode) == ("done\n", 0)


@pytest_twisted.ensureDeferred
async def test_aServiceRunsIt(path: Path) -> None:
    """
    C{SessionService} starts it, prunes it, and stops it when its writes are done.
    """
    clock = Clock()
    store = FileStore(path)
    service = SessionService(store, pruneInterval=60, reactor=clock, jitter=lambda: 0)
    service.startService()
    await store.set("a", lasting(seconds=-1))
    assert len(files(path)) == 1
    clock.advance(60)
    await gatherResults(list(store._underWay))
    assert files(path) == []
    writing = store.set("b", lasting())
    await service.stopService()
    assert writing.called
    assert len(files(path)) == 1


# Processes.


@pytest_twisted.ensureDeferred
async def test_processesTakeTurns(store: FileStore, path: Path) -> None:
    """
    Processes that use the same directory lose no change, create no ID twice, and
    bring back nothing.
    """
    await store.set("n", lasting(b"0"))
    with (
        program("compete", path) as one,
        program("compete", path) as two,
        program("compete", path) as three,
    ):
        processes = (one, two, three)

        def each() -> list[str]:
            """
            What they say, before all of them go on.
            """
            said = [process.stdout.readline() for process in processes]
            for process in processes:
                process.stdin.write("\n")
                process.stdin.flush()
            return said

        assert each() == ["ready\n"] * 3
        created = list(map(int, each()))
        assert each() == ["done\n"] * 3
        assert [process.wait(PATIENCE) for process in processes] == [0, 0, 0]
    assert sum(created) == 50, created
    assert (await store.get("n")).payload == b"120"
    # What all have destroyed, while they touched and replaced it.
    assert set(await store.all()) == {"n"}


@pytest.mark.parametrize("after", [3, 40, 150])
@pytest_twisted.ensureDeferred
async def test_killed(store: FileStore, path: Path, after: int) -> None:
    """
    When a process is killed, whatever it was told is stored is, no file is in
    pieces, and nobody waits for its locks.
    """
    with program("writeForEver", path) as process:
        lines = [process.stdout.readline() for _ in range(after)]
        assert "" not in lines, "it ended by itself"
        process.kill()
        # What it had said before it died.
        lines += process.stdout.readlines()
        assert process.wait(PATIENCE) == -signal.SIGKILL
    latest = {}
    for line in lines:
        sid, _, version = line.strip().partition(" ")
        latest[sid] = int(version)
    found = await store.all()
    assert found.keys() >= latest.keys()
    for sid, record in found.items():
        version, _, padding = record.payload.partition(b" ")
        assert int(version) - latest.get(sid, 0) in (0, 1)
        assert padding == b"x" * 50_000
    # All folders are unlocked: each takes a session.
    await gatherResults([store.set(f"{n}", lasting()) for n in range(600)])
    assert len({each.parent for each in files(path)}) > 200


@pytest_twisted.ensureDeferred
async def test_whatWasBeingWritten(store: FileStore, path: Path) -> None:
    """
    Half a file that a killed process left behind is no session, and in nobody's
    way.
    """
    await store.set("a", lasting(b"a"))
    [file] = files(path)
    file.with_name("new").write_bytes(b'["a", 18')
    assert set(await store.all()) == {"a"}
    assert await store.length() == 1
    assert await store.prune(10) == 0
    await store.set("a", lasting(b"b"))
    assert files(path) == [file]
    assert (await store.get("a")).payload == b"b"


# Trouble with the disk.


async def isBack(store: FileStore) -> None:
    """
    Wait until a store has found that it is within reach again.
    """
    await patiently(store._trying)
    assert store.available


async def refused(answer: Deferred[Any]) -> str:
    with pytest.raises(StoreUnavailable) as caught:
        await answer
    return str(caught.value)


@pytest_twisted.ensureDeferred
async def test_theDiskIsGone(store: FileStore, path: Path, logged: list[Any]) -> None:
    """
    Sessions of a disk that is gone are out of reach, not absent; the store says
    so, and notices by itself when the disk is back.
    """
    record = lasting()
    await store.set("a", record)
    away = path.rename(path.with_name("away"))
    assert await refused(store.get("a")) == f"{path}: No such file or directory"
    assert not store.available
    for answer in (
        store.get("unknown"),
        store.set("a", record),
        store.destroy("a"),
        store.touch("a", 1.0),
        store.create("b", record),
        store.replace("a", record, record),
        store.all(),
        store.length(),
        store.clear(),
        store.prune(1),
        store.start(),
    ):
        assert answer.called, "not at once"
        assert "No such file" in await refused(answer)
    assert not path.exists(), "an empty directory in the place of the disk"
    away.rename(path)
    await isBack(store)
    assert await store.get("a") == record
    said = [event["log_format"] for event in logged if "reach" in event["log_format"]]
    assert said == [
        "Sessions are out of reach: {trouble}",
        "Sessions are within reach again.",
    ]


@pytest.mark.parametrize("operation", ["get", "destroy", "all", "length", "prune"])
@pytest_twisted.ensureDeferred
async def test_everyOperationNotices(
    store: FileStore, path: Path, operation: str
) -> None:
    """
    Whatever is done first after the disk is gone notices.
    """
    arguments = {"get": ("a",), "destroy": ("a",), "prune": (1,)}.get(operation, ())
    await store.start()
    path.rename(path.with_name("away"))
    await refused(getattr(store, operation)(*arguments))
    assert not store.available


@pytest_twisted.ensureDeferred
async def test_thereIsNoPlaceForIt(tmp_path: Path) -> None:
    """
    Without the directory that it is to be in, the store cannot start, and does
    when there is one.
    """
    store = FileStore(tmp_path / "disk" / "sessions")
    await refused(store.start())
    assert not store.available
    (tmp_path / "disk").mkdir()
    await isBack(store)
    await store.set("a", lasting())
    assert (tmp_path / "disk" / "sessions").is_dir()
    await store.stop()


def test_startsNoThreadBeforeTheReactorRuns(tmp_path: Path) -> None:
    """
    What is asked before the reactor runs is done when it does, and not by threads
    that a process leaves behind when it becomes a daemon.
    """
    program = """if True:
        import os, sys
        from twisted.internet import reactor
        from examples.file_store import FileStore

        store = FileStore(sys.argv[1])
        store.length().addCallback(print).addBoth(lambda _: reactor.stop())
        if os.fork():
            os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
        reactor.run()
    """
    command = [sys.executable, "-c", program, str(tmp_path / "sessions")]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


@pytest_twisted.ensureDeferred
async def test_stopsLooking(store: FileStore, path: Path) -> None:
    """
    A store that is stopped no longer looks for its disk.
    """
    before = set(reactor.getDelayedCalls())
    await store.start()
    path.rename(path.with_name("away"))
    await refused(store.get("a"))
    assert set(reactor.getDelayedCalls()) - before
    await store.stop()
    assert not set(reactor.getDelayedCalls()) - before
    await store.start()
    assert store.available


@pytest_twisted.ensureDeferred
async def test_theDiskIsFull(
    store: FileStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    What a full disk does not take is refused; what it holds can still be read,
    and be destroyed.
    """
    record = lasting(b"old")
    await store.set("a", record)
    await store.set("b", record)

    def fsync(opened: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr("examples.file_store.os.fsync", fsync)
        for answer in (
            store.set("a", lasting(b"new")),
            store.replace("a", lasting(b"new"), record),
            store.create("c", lasting()),
        ):
            assert await refused(answer) == f"{path}: No space left on device"
        assert store.available
        assert await store.get("a") == record
    await store.destroy("b")
    assert await store.all() == {"a": record}


@pytest_twisted.ensureDeferred
async def test_halfOfItIsWritten(store: FileStore) -> None:
    """
    When the disk takes only a part of a record, the older one stays.
    """
    record = lasting(b"old")
    await store.set("a", record)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        said = await refused(store.set("a", lasting(b"x" * 100_000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "File too large" in said
    await isBack(store)
    assert await store.all() == {"a": record}


@pytest_twisted.ensureDeferred
async def test_aSiteOnIt(path: Path, serve: Serve) -> None:
    """
    A site keeps its sessions in it, answers with 503 while they are out of reach,
    and goes on with them afterwards.
    """
    clock = clockAt()
    store = FileStore(path, seconds=clock.seconds)

    def visit(request: Any) -> str:
        session = getSession(request)
        session["n"] = session.get("n", 0) + 1
        return str(session["n"])

    browser = serve(visit, store=store, clock=clock).browser()
    assert [(await browser.get()).text for _ in range(3)] == ["1", "2", "3"]
    away = path.rename(path.with_name("away"))
    assert [(await browser.get()).status for _ in range(3)] == [503] * 3
    away.rename(path)
    await isBack(store)
    assert (await browser.get()).text == "4"
    await store.stop()


# Promises that are broken.


class CutsOffTheExpiry(Directory):
    def _write(self, file: Path, sid: str, record: Record) -> None:
        super()._write(file, sid, Record(record.payload, int(record.expires)))


class WritesJSONAnew(Directory):
    def _write(self, file: Path, sid: str, record: Record) -> None:
        payload = json.dumps(json.loads(record.payload)).encode()
        super()._write(file, sid, Record(payload, record.expires))


class FoldsCase(Directory):
    def _file(self, sid: str) -> Path:
        return super()._file(sid.lower())


class FailsForUnknown(Directory):
    def destroy(self, sid: str) -> None:
        with self._turn(sid) as file:
            file.unlink()


class KeepsTheFirstTimeToLive(Directory):
    """
    Forgets by itself, at a time that C{touch} does not tell it.
    """

    ends: ClassVar[dict[str, float]] = {}

    def set(self, sid: str, record: Record) -> None:
        super().set(sid, record)
        self.ends[sid] = record.expires

    def replace(self, sid: str, record: Record, expected: Record) -> bool:
        isReplaced = super().replace(sid, record, expected)
        if isReplaced:
            self.ends[sid] = record.expires
        return isReplaced

    def get(self, sid: str) -> Record | None:
        isOver = self.ends.get(sid, inf) <= self._seconds()
        return None if isOver else super().get(sid)


class TouchRevives(Directory):
    def touch(self, sid: str, expires: float) -> None:
        with self._turn(sid) as file:
            if file.exists():
                payload = file.read_bytes().partition(b"\n")[2]
                self._write(file, sid, Record(payload, expires))


class CreateAsksForAFile(Directory):
    def create(self, sid: str, record: Record) -> bool:
        return not self._file(sid).exists() and super().create(sid, record)


class ReplaceComparesRecords(Directory):
    def replace(self, sid: str, record: Record, expected: Record) -> bool:
        isSame = self.get(sid) == expected
        return isSame and super().replace(sid, record, expected)


class CountsFiles(Directory):
    def length(self) -> int:
        return len(list(self._files()))


class PrunesAll(Directory):
    def prune(self, limit: int) -> int:
        return super().prune(1000 if limit else 0)


class GetsAndSets(FileStore):
    async def create(self, sid: str, record: Record) -> bool:  # type: ignore[override]
        if await self.get(sid) is not None:
            return False
        await self.set(sid, record)
        return True


class StopsAtOnce(FileStore):
    async def stop(self) -> None:  # type: ignore[override]
        Deferred.fromCoroutine(self._stop())


BROKEN: dict[str, type] = {
    "test_keepsWhatIsSet": CutsOffTheExpiry,
    "test_payloadsComeBackByteForByte": WritesJSONAnew,
    "test_IDsAreNotConfused": FoldsCase,
    "test_destroyForgets": FailsForUnknown,
    "test_whatIsRenewedLivesOn": KeepsTheFirstTimeToLive,
    "test_touchRevivesNothing": TouchRevives,
    "test_createTakesAnExpiredID": CreateAsksForAFile,
    "test_replaceComparesThePayload": ReplaceComparesRecords,
    "test_oneOfManyCreates": GetsAndSets,
    "test_countsOnlyWhatLives": CountsFiles,
    "test_pruneDeletesWhatHasExpired": PrunesAll,
    "test_stopFinishesWhatIsUnderWay": StopsAtOnce,
}


def brokenPromises() -> list[tuple[str, str]]:
    """
    The tests, and what they say, in the table of the page.
    """
    found = tables(text("docs/how-to/write-a-store.md"))
    [rows] = [rows for rows in found if rows[0][0].startswith("`test_")]
    return [(code(test)[0], said.strip("`")) for test, said, _ in rows]


# The page.


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """
    A folder with the files of the page, and the store.
    """
    blocks = re.findall(
        r"^```\{code-block\} python\n:caption: (\S+)\n\n(.*?)^```$",
        text("docs/how-to/write-a-store.md"),
        re.M | re.S,
    )
    for name, content in blocks:
        (tmp_path / name).write_text(content)
    shutil.copy(ROOT / "examples" / "file_store.py", tmp_path)
    return tmp_path


def inFolder(folder: Path, *command: str) -> str:
    """
    What a command says that succeeds.
    """
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=10 * PATIENCE,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


PROMISES = [name for name in dir(StoreContract) if name.startswith("test_")]


def test_theTestsOfThePageUnderPytest(page: Path) -> None:
    """
    The store passes all the tests that the page has pytest run.
    """
    said = inFolder(
        page, "pytest", "-q", "-p", "no:cacheprovider", "test_file_store.py"
    )
    assert f"{len(PROMISES)} passed" in said
    assert "skipped" not in said


def test_theTestsOfThePageUnderTrial(page: Path) -> None:
    """
    The store passes all the tests that the page has trial run.
    """
    said = inFolder(page, "twisted.trial", "test_with_trial")
    assert f"PASSED (successes={len(PROMISES)})" in said


@pytest_twisted.ensureDeferred
async def test_theSiteOfThePage(page: Path) -> None:
    """
    The site of the page keeps its sessions in the directory, and ends when it is
    told to.
    """
    site = page / "site.tac"
    port = "tcp:8080"
    assert port in site.read_text()
    site.write_text(site.read_text().replace(port, "tcp:0"))
    process = subprocess.Popen(
        [Path(sys.executable).with_name("twistd"), "-ny", "site.tac"],
        cwd=page,
        env={**os.environ, "PYTHONPATH": ".", "TXSESSION_SECRET": "keyboard cat"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with killing(process):
        lines = iter(process.stdout.readline, "")  # type: ignore[union-attr]
        begun = next(line for line in lines if "Site starting on" in line)
        browser = Browser(int(begun.split()[-1]))
        for number in (1, 2):
            assert (await browser.get()).text == f"Views: {number}\n"
        process.terminate()
        # twistd ends as by the signal that it was sent, when all is done.
        assert process.wait(PATIENCE) == -signal.SIGTERM
    assert len(files(page / "sessions")) == 1


@pytest.mark.parametrize(("promise", "said"), brokenPromises())
@pytest_twisted.ensureDeferred
async def test_whatTheContractSays(path: Path, promise: str, said: str) -> None:
    """
    A store with the fault that the page tells of fails with what it says.
    """
    stores: list[FileStore] = []

    class Tests(StoreContract):
        def makeStore(self) -> FileStore:
            broken = BROKEN[promise]
            store = broken(path) if issubclass(broken, FileStore) else FileStore(path)
            if not issubclass(broken, FileStore):
                store._directory = broken(path, time.time)
            stores.append(store)
            return store

    with pytest.raises(Exception, match=re.escape(said)):
        await getattr(Tests(), promise)()
    assert BROKEN.keys() == {name for name, _ in brokenPromises()}
    await stores[0]._stop()


# What the processes of these tests do.


async def once(path: str) -> None:
    await FileStore(path).set("a", lasting())
    print("done")


async def compete(path: str) -> None:
    """
    Count together with others, and create what they create as well; then
    destroy, touch and replace it at the same time.
    """

    def say(what: object) -> None:
        print(what, flush=True)
        sys.stdin.readline()

    store = FileStore(path)
    await store.start()
    say("ready")
    created = 0
    counting = [Deferred.fromCoroutine(count(store, 10)) for _ in range(4)]
    for number in range(50):
        sid, record = f"s{number}", lasting(b"first")
        if await store.create(sid, record):
            created += 1
    await gatherResults(counting)
    say(created)
    for number in range(50):
        sid = f"s{number}"
        seen = await store.get(sid)
        doing = [store.touch(sid, time.time() + HOUR), store.destroy(sid)]
        if seen is not None:
            doing.append(store.replace(sid, lasting(b"second"), seen))
        await gatherResults(doing)
    await store.stop()
    say("done")


async def writeForEver(path: str) -> None:
    """
    Store later and later versions of many sessions, and say which are stored.
    """
    store = FileStore(path)

    async def write(sid: str) -> None:
        version = 0
        while True:
            version += 1
            await store.set(sid, lasting(b"%d %s" % (version, b"x" * 50_000)))
            print(sid, version, flush=True)

    await gatherResults([Deferred.fromCoroutine(write(f"w{n}")) for n in range(16)])


if __name__ == "__main__":
    from twisted.internet.task import react

    react(lambda reactor: Deferred.fromCoroutine(globals()[sys.argv[1]](*sys.argv[2:])))
