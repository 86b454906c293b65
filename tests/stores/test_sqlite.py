"""
What is special to `txsession.stores.sqlite.SQLiteStore`.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, gatherResults
from twisted.internet.threads import deferToThread

from txsession import ConfigurationError, Record, StoreError, StoreUnavailable
from txsession.stores.sqlite import VERSION, SQLiteStore

from ..support import PATIENCE, clockAt
from .backends import comesAbout

FOREVER = 32_000_000_000.0
RECORD = Record(b'{"cookie":{}}', FOREVER)


class Spy:
    """
    Sees what the stores do with SQLite.

    @ivar connections: all that were opened.
    @ivar statements: what was executed, and by which thread, which opening counts
        as, too.
    @ivar hook: called with each statement, in that thread, before it is executed.
    """

    def __init__(self, connect: Any) -> None:
        self.real = connect
        self.connections: list[Any] = []
        self.statements: list[tuple[str, int]] = []
        self.hook: Callable[[str], None] = lambda statement: None

    def connect(self, *arguments: Any, **keywords: Any) -> Any:
        self.statements.append(("connect", threading.get_ident()))
        spy = self

        class Connection(sqlite3.Connection):
            def close(self) -> None:
                spy.statements.append(("close", threading.get_ident()))
                super().close()

        connection = self.real(*arguments, **keywords, factory=Connection)
        connection.set_trace_callback(self._executed)
        self.connections.append(connection)
        return connection

    def _executed(self, statement: str) -> None:
        self.statements.append((statement, threading.get_ident()))
        self.hook(statement)

    def count(self, beginning: str) -> int:
        return sum(statement.startswith(beginning) for statement, _ in self.statements)


@pytest.fixture
def spy(monkeypatch: Any) -> Spy:
    spy = Spy(sqlite3.connect)
    monkeypatch.setattr(sqlite3, "connect", spy.connect)
    return spy


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


@pytest.fixture
def makeStore(path: Path) -> Iterator[Callable[..., SQLiteStore]]:
    """
    Makes stores on one file, and stops them after the test.
    """
    stores = []

    def make(where: Path = path, **options: Any) -> SQLiteStore:
        stores.append(SQLiteStore(where, **options))
        return stores[-1]

    yield make
    for store in stores:
        pytest_twisted.blockon(store.stop())


# The file.


@pytest_twisted.ensureDeferred
async def test_nobodyElseMayReadTheFile(makeStore: Any, path: Path) -> None:
    """
    The file and those beside it are made with mode 0600, whatever the umask.
    """
    before = os.umask(0)
    try:
        await makeStore().set("a", RECORD)
    finally:
        os.umask(before)
    modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert modes == {
        "sessions.db": 0o600,
        "sessions.db-wal": 0o600,
        "sessions.db-shm": 0o600,
    }


@pytest_twisted.ensureDeferred
async def test_aModeThatTheFileHasIsLeftAlone(makeStore: Any, path: Path) -> None:
    """
    A file that its owner has opened to a group stays open to it.
    """
    path.touch()
    path.chmod(0o660)
    await makeStore().set("a", RECORD)
    assert path.stat().st_mode & 0o777 == 0o660


@pytest_twisted.ensureDeferred
async def test_sessionsOutliveTheStore(makeStore: Any) -> None:
    """
    What one store saved, the next one on the file reads, to the byte and the
    millisecond.
    """
    record = Record('{"name":"Jürgen \\u0000 \u2028"}'.encode(), 31_999_999_999.123)
    first = makeStore()
    await first.set("a", record)
    await first.stop()
    assert await makeStore().get("a") == record


@pytest_twisted.ensureDeferred
async def test_aFileThatCannotBeOpened(makeStore: Any, tmp_path: Path) -> None:
    """
    As long as the file's folder is missing, the store is not available, and says
    so at once; when it is there, the store finds that out by itself.
    """
    store = makeStore(tmp_path / "missing" / "sessions.db")
    assert store.available is True
    with pytest.raises(StoreUnavailable, match="cannot be opened"):
        await store.start()
    assert store.available is False
    for call in (store.get("a"), store.set("a", RECORD), store.length()):
        assert call.called
        with pytest.raises(StoreUnavailable):
            await call
    (tmp_path / "missing").mkdir()
    await comesAbout(lambda: store.available)
    await store.set("a", RECORD)
    assert await store.get("a") == RECORD


@pytest_twisted.ensureDeferred
async def test_onlyALockIsWaitedFor(makeStore: Any, monkeypatch: Any) -> None:
    """
    A file whose mode cannot be changed, for another reason than that somebody has
    locked it, is given up at once.
    """
    attempts = []

    class Connection(sqlite3.Connection):
        def execute(self, statement: str, *values: Any) -> Any:
            if statement.startswith("PRAGMA journal_mode"):
                attempts.append(statement)
                raise sqlite3.OperationalError("attempt to write a readonly database")
            return super().execute(statement, *values)

    connect = partial(sqlite3.connect, factory=Connection)
    monkeypatch.setattr(sqlite3, "connect", connect)
    store = makeStore()
    with pytest.raises(StoreUnavailable, match="readonly"):
        await store.get("a")
    assert len(attempts) == 1
    assert store.available is False


@pytest_twisted.ensureDeferred
async def test_aFolderIsNoFile(makeStore: Any, tmp_path: Path) -> None:
    """
    A store whose file is a folder is not available.
    """
    store = makeStore(tmp_path)
    with pytest.raises(StoreUnavailable, match="cannot be opened"):
        await store.get("a")
    assert store.available is False


@pytest.mark.parametrize("operation", ["start", "get", "set"])
@pytest_twisted.ensureDeferred
async def test_somethingElseIsNotOverwritten(
    makeStore: Any, path: Path, operation: str
) -> None:
    """
    A file that is no database is refused by name and stays as it is.
    """
    text = b"Dear diary, today I was nearly a database. " * 100
    path.write_bytes(text)
    store = makeStore()
    arguments = {"start": (), "get": ("a",), "set": ("a", RECORD)}[operation]
    with pytest.raises(StoreError, match="is not an SQLite database") as caught:
        await getattr(store, operation)(*arguments)
    assert str(path) in str(caught.value)
    assert not isinstance(caught.value, StoreUnavailable)
    assert path.read_bytes() == text


@pytest_twisted.ensureDeferred
async def test_aNewerFileIsLeftAlone(makeStore: Any, path: Path) -> None:
    """
    A file with a higher user_version than this one's is refused and not changed.
    """
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="newer version of txsession"):
        await makeStore().start()
    assert path.read_bytes() == before


@pytest_twisted.ensureDeferred
async def test_aDamagedFileIsAnError(makeStore: Any, path: Path) -> None:
    """
    What SQLite says of a file that is damaged is told in a StoreError.
    """
    store = makeStore()
    await store.set("a", RECORD)
    await store.stop()
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    for call in (store.get("a"), store.set("a", RECORD)):
        with pytest.raises(StoreError, match=r"SQLite: .*malformed"):
            await call


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        (None, "must be a str or a path, not NoneType"),
        (b"a.db", "must be a str or a path, not bytes"),
        ("", "not the name of a file"),
        ("a\0b", "not the name of a file"),
        (":memory:", "use MemoryStore"),
    ],
)
def test_pathsThatAreNone(path: Any, problem: str) -> None:
    """
    What is no file's name is refused on construction.
    """
    with pytest.raises(ConfigurationError, match=problem) as caught:
        SQLiteStore(path)
    assert caught.value.option == "path"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("readers", value) for value in (0, -1, 1.5, True, "2")),
        *(("timeout", value) for value in (0, -1, float("inf"), "5")),
    ],
)
def test_optionsThatMakeNoSense(option: str, value: Any) -> None:
    """
    An option's value that cannot work is refused on construction, by name.
    """
    with pytest.raises(ConfigurationError) as caught:
        SQLiteStore("sessions.db", **{option: value})
    assert caught.value.option == option


# Others that use the file.


@pytest_twisted.ensureDeferred
async def test_aWriteWaitsForAnotherProcessOnlySoLong(
    makeStore: Any, path: Path
) -> None:
    """
    While another process holds the file, reads go on, and a write fails with
    StoreUnavailable after the timeout; once it is let go, writes work again.
    """
    store = makeStore(timeout=0.2)
    await store.set("a", RECORD)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        began = reactor.seconds()
        writing = store.set("b", RECORD)
        assert await store.get("a") == RECORD
        assert not writing.called
        with pytest.raises(StoreUnavailable, match="SQLite: database is locked"):
            await writing
        assert 0.2 <= reactor.seconds() - began < PATIENCE
        other.execute("ROLLBACK")
    await store.set("b", RECORD)
    assert await store.length() == 2


@pytest_twisted.ensureDeferred
async def test_aWriteThatIsLetInInTimeIsDone(
    makeStore: Any, path: Path, spy: Spy
) -> None:
    """
    A write waits until another process has let go of the file.
    """
    store = makeStore(timeout=PATIENCE)
    await store.start()
    with closing(spy.real(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        writings = [store.set(str(number), RECORD) for number in range(10)]
        assert await store.length() == 0
        assert not any(writing.called for writing in writings)
        other.execute("COMMIT")
    await gatherResults(writings)
    assert await store.length() == 10


@pytest_twisted.ensureDeferred
async def test_aFileThatIsLockedWhenItIsOpened(makeStore: Any, path: Path) -> None:
    """
    A store that cannot open its file because another process holds it tries again
    by itself.
    """
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("CREATE TABLE other (a)")
        other.execute("BEGIN EXCLUSIVE")
        store = makeStore(timeout=0.1)
        with pytest.raises(StoreUnavailable, match="database is locked"):
            await store.start()
        assert store.available is False
        other.execute("ROLLBACK")
    await comesAbout(lambda: store.available)
    await store.set("a", RECORD)


# How it is done.


@pytest.mark.parametrize(("durable", "level"), [(True, 2), (False, 1)])
@pytest_twisted.ensureDeferred
async def test_durable(makeStore: Any, spy: Spy, durable: bool, level: int) -> None:
    """
    With durable, which is the default, SQLite waits for the disk at each commit;
    without it, only now and then.  The file is in WAL mode either way.
    """
    store = makeStore(durable=durable)
    await store.set("a", RECORD)
    await store.get("a")
    assert len(spy.connections) == 2
    for connection in spy.connections:
        assert connection.execute("PRAGMA synchronous").fetchone() == (level,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest_twisted.ensureDeferred
async def test_statementsUseTheIndices(makeStore: Any, path: Path, spy: Spy) -> None:
    """
    Nothing but what gives or drops all of it looks at every session.
    """
    store = makeStore()
    await store.start()
    del spy.statements[:]
    await store.set("a", RECORD)
    await store.create("a", RECORD)
    await store.replace("a", RECORD, RECORD)
    await store.touch("a", FOREVER)
    await store.get("a")
    await store.destroy("a")
    await store.length()
    await store.prune(10)
    executed = [
        statement
        for statement, _ in spy.statements
        if statement.startswith(("SELECT sess", "SELECT count", "UPDATE", "DELETE"))
    ]
    assert len(executed) == 6
    with closing(spy.real(path)) as connection:
        for statement in executed:
            plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
            for step in (detail for *_, detail in plan):
                assert "SCAN" not in step, statement
            isByExpiry = "sid =" not in statement
            assert isByExpiry == ("session_expire" in str(plan)), statement


@pytest_twisted.ensureDeferred
async def test_readersAndTheWriterDoNotWaitForEachOther(
    makeStore: Any, spy: Spy
) -> None:
    """
    While one thread is busy reading, others read and write.
    """
    store = makeStore()
    await store.set("a", RECORD)
    hasBegun, mayGoOn = threading.Event(), threading.Event()

    def hold(statement: str) -> None:
        if statement.startswith("SELECT sess") and not hasBegun.is_set():
            hasBegun.set()
            assert mayGoOn.wait(PATIENCE)

    spy.hook = hold
    held = store.get("a")
    await comesAbout(hasBegun.is_set)
    await store.set("b", RECORD)
    assert await store.get("b") == RECORD
    assert not held.called
    mayGoOn.set()
    assert await held == RECORD


@pytest_twisted.ensureDeferred
async def test_theReactorsThreadTouchesNoFile(makeStore: Any, spy: Spy) -> None:
    """
    Opening, reading, writing and closing happen in other threads than the
    reactor's.
    """
    store = makeStore()
    await store.start()
    await store.set("a", RECORD)
    await store.create("b", RECORD)
    await store.replace("a", RECORD, RECORD)
    await store.touch("a", FOREVER)
    await store.get("a")
    await store.all()
    await store.length()
    await store.prune(1)
    await store.destroy("a")
    await store.clear()
    await store.stop()
    assert spy.count("connect") == spy.count("close") == len(spy.connections) > 1
    here = threading.get_ident()
    assert [statement for statement, thread in spy.statements if thread == here] == []


@pytest_twisted.ensureDeferred
async def test_writesThatComeTogetherAreDoneTogether(makeStore: Any, spy: Spy) -> None:
    """
    A hundred writes at once take two transactions: the first write, and the rest
    of them, which have come up in the meantime.
    """
    store = makeStore()
    await store.start()
    del spy.statements[:]
    await gatherResults([store.set(str(number), RECORD) for number in range(100)])
    assert spy.count("INSERT") == 100
    assert spy.count("BEGIN") == spy.count("COMMIT") == 1
    assert await store.length() == 100


@pytest_twisted.ensureDeferred
async def test_oneThatFailsDoesNotSpoilTheBatch(makeStore: Any) -> None:
    """
    Of writes that are done together, one that cannot be done fails alone.
    """
    store = makeStore()
    await store.start()
    unfit: Any = Record(object(), FOREVER)  # type: ignore[arg-type]
    good = [store.set("a", RECORD), store.set("b", RECORD)]
    bad = store.set("c", unfit)
    good.append(store.set("d", RECORD))
    await gatherResults(good)
    with pytest.raises(StoreError):
        await bad
    assert (await store.all()).keys() == {"a", "b", "d"}


@pytest_twisted.ensureDeferred
async def test_writesOfOneSessionAreDoneInOrder(makeStore: Any) -> None:
    """
    Of many writes of a session that are under way at once, the last one stays.
    """
    store = makeStore()
    writings = []
    for number in range(100):
        writings.append(store.set("a", Record(b"%d" % number, FOREVER)))
        writings.append(store.touch("a", FOREVER - number))
        if number == 50:
            writings.append(store.destroy("a"))
    await gatherResults(writings)
    assert await store.get("a") == Record(b"99", FOREVER - 99)


# Its life.


@pytest_twisted.ensureDeferred
async def test_stopWaitsForWhatIsUnderWay(makeStore: Any, path: Path) -> None:
    """
    stop() finishes what has begun and leaves nothing beside the file; a store that
    is used afterwards starts again.
    """
    store = makeStore()
    writings = [store.set(str(number), RECORD) for number in range(50)]
    reading = store.length()
    await store.stop()
    assert all(writing.called for writing in writings)
    assert reading.called
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert await store.length() == 50


@pytest_twisted.ensureDeferred
async def test_stopWaitsForWhatNobodyWaitsForAnyLonger(
    makeStore: Any, spy: Spy
) -> None:
    """
    stop() finishes what has begun, also if it was called off since; it closes no
    connection that is in use, and leaves none open.
    """
    store = makeStore()
    await store.start()
    hasBegun, mayGoOn = threading.Event(), threading.Event()

    def hold(statement: str) -> None:
        if statement.startswith("SELECT sess"):
            hasBegun.set()
            assert mayGoOn.wait(PATIENCE)

    spy.hook = hold
    calledOff = [store.get("a")]
    await comesAbout(hasBegun.is_set)
    calledOff += [store.set(str(number), RECORD) for number in range(20)]
    for each in calledOff:
        each.addErrback(lambda failure: failure.trap(CancelledError))
        each.cancel()
    stopping = store.stop()
    await comesAbout(lambda: spy.count("COMMIT") == 2)
    assert not stopping.called
    assert spy.count("close") == 0
    mayGoOn.set()
    await stopping
    assert spy.count("close") == len(spy.connections) == 2
    assert await store.length() == 20


@pytest_twisted.ensureDeferred
async def test_stopEndsTheAttemptsToOpenTheFile(makeStore: Any, tmp_path: Path) -> None:
    """
    A store that was stopped while its file could not be opened does not open it
    later on.
    """
    store = makeStore(tmp_path / "missing" / "sessions.db")
    with pytest.raises(StoreUnavailable):
        await store.start()
    await store.stop()
    delayed = reactor.getDelayedCalls()
    assert not [call for call in delayed if "Outage" in str(call.func)]


@pytest_twisted.ensureDeferred
async def test_theClockIsTheReactors(makeStore: Any) -> None:
    """
    What has expired by the clock that is given as the reactor is absent, and is
    pruned, the rest stays; the work is done by the real reactor.
    """
    clock = clockAt(1000.0)
    store = makeStore(reactor=clock)
    for sid, expires in (("a", 1005.0), ("b", 1006.0), ("c", 1010.0)):
        await store.set(sid, Record(b"{}", expires))
    clock.advance(6)
    assert (await store.all()).keys() == {"c"}
    assert await store.prune(1) == 1
    assert await store.prune(10) == 1
    assert await store.prune(10) == 0
    clock.advance(-6)
    assert await store.get("a") is None
    assert await store.length() == 1


OTHER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
print(*(sid for [sid] in connection.execute("SELECT sid FROM session ORDER BY sid")))
connection.close()
"""


@pytest_twisted.ensureDeferred
async def test_anotherProcessThatClosesTheFileTakesNothingAway(
    makeStore: Any, path: Path
) -> None:
    """
    Another process may use the file and close it: what is saved afterwards is seen
    by the next one.  (SQLite deletes the log when it believes that nobody else has
    the file open, which it does where a process has lost its locks.)
    """

    def seen() -> str:
        command = [sys.executable, "-c", OTHER, path]
        return subprocess.check_output(command, text=True).strip()

    store = makeStore()
    await store.set("a", RECORD)  # opens the file to write ...
    await store.get("a")  # ... and to read
    assert await deferToThread(seen) == "a"
    await store.set("b", RECORD)
    assert await deferToThread(seen) == "a b"
