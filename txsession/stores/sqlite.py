"""
Sessions in an SQLite file.

Reading and writing happen in threads: several read, each with a connection of its
own, and one writes.  While that one is at work, further writes queue up; they are
then done in one transaction, so that many of them share the time that it takes to
make a transaction durable.  The file is in WAL mode, in which readers and the
writer do not wait for each other.  Other processes may use the same file; their
writers wait for each other.

    CREATE TABLE session (
      sid    TEXT PRIMARY KEY NOT NULL,
      sess   BLOB NOT NULL,              -- the document
      expire INTEGER NOT NULL            -- milliseconds since the epoch
    );
    CREATE INDEX session_expire ON session (expire);
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Lock
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import ConfigurationError, StoreError, StoreUnavailable
from ..lifetime import Duration, asSeconds
from ..record import Record, asMilliseconds
from .common import (
    UnderWay,
    checkHeld,
    detached,
    failing,
    isText,
    nothing,
    realReactor,
    wholeNumber,
)
from .outage import Outage
from .sql import Job, Pool

__all__ = ["SQLiteStore"]

T = TypeVar("T")

VERSION = 1
"""
The C{user_version} of the files that this module makes and understands.
"""

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS session ("
    "sid TEXT PRIMARY KEY NOT NULL, sess BLOB NOT NULL, expire INTEGER NOT NULL)",
    "CREATE INDEX IF NOT EXISTS session_expire ON session (expire)",
    f"PRAGMA user_version = {VERSION}",
)

_GET = "SELECT sess, expire FROM session WHERE sid = ? AND expire > ?"
_ALL = "SELECT sid, sess, expire FROM session WHERE expire > ?"
_LENGTH = "SELECT count(*) FROM session WHERE expire > ?"
_SET = (
    "INSERT INTO session VALUES (?, ?, ?) ON CONFLICT (sid) "
    "DO UPDATE SET sess = excluded.sess, expire = excluded.expire"
)
_CREATE = f"{_SET} WHERE expire <= ?"
_REPLACE = (
    "UPDATE session SET sess = ?, expire = ? WHERE sid = ? AND expire > ? AND sess = ?"
)
_TOUCH = "UPDATE session SET expire = ? WHERE sid = ? AND expire > ?"
_DESTROY = "DELETE FROM session WHERE sid = ?"
_CLEAR = "DELETE FROM session"
_PRUNE = (
    "DELETE FROM session WHERE rowid IN "
    "(SELECT rowid FROM session WHERE expire <= ? LIMIT ?)"
)


@define(eq=False)
class _Write:
    """
    A statement that waits for the writer; its Deferred fires with how many rows
    it changed.
    """

    statement: str
    values: tuple[Any, ...]
    done: Deferred[int] = field(factory=Deferred)


class SQLiteStore:
    """
    Sessions in an SQLite file, for an application whose processes all run on one
    machine.  It needs nothing but Python, and has every ability of a store.

    The file is made when the store is first used, readable by nobody else.  What
    was saved survives the end of the process, however that comes about; with
    C{durable}, that of the machine as well.  Do not put the file on a network
    file system: WAL, the mode that it is in, does not work there.

    When the file cannot be opened, every call fails with
    L{StoreUnavailable <txsession.StoreUnavailable>} at once, C{available} is
    L{False}, and it is tried again, at most a second apart, until it can.  A
    write that another process keeps out for longer than C{timeout} fails with
    L{StoreUnavailable <txsession.StoreUnavailable>} as well.  Nothing that fails
    has changed anything, but for a write whose process is killed: that may or may
    not have been done.

    @param path: the file, a C{str} or C{os.PathLike}; its folder must exist.
    @param durable: wait until the disk has what is written, so that not even a
        power failure can undo a save.
    @param timeout: seconds (or a C{timedelta}) that a write waits for another
        process that writes.
    @param readers: how many threads read.
    @param reactor: the clock; if it is a real reactor, the one that threads
        report to as well.  By default the global reactor, imported at first use.

    @raise ConfigurationError: an option's value cannot work.
    """

    _log = Logger()

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durable: bool = True,
        timeout: Duration = 5,
        readers: int = 2,
        reactor: Any | None = None,
    ) -> None:
        self._path = _checkPath(path)
        self._synchronous = "FULL" if durable else "NORMAL"
        self._timeout = asSeconds(timeout, "timeout")
        self._readers = wholeNumber(readers, "readers")
        self._clock = reactor
        self._opened: tuple[Pool, Pool] | None = None
        self._pending: list[_Write] = []
        self._isWriting = False
        self._underWay = UnderWay()
        self._outage = Outage(
            repr(self), self._log, lambda: realReactor(self._clock), self.start
        )

    def __repr__(self) -> str:
        return f"<SQLiteStore {self._path}>"

    @property
    def available(self) -> bool:
        """
        Whether, as far as is known, the file can be used.
        """
        return self._outage.reason is None

    # What every store does.

    def get(self, sid: str) -> Deferred[Record | None]:
        """
        Fires with the live record of this ID, or L{None}.
        """
        if not isText(sid):
            return succeed(None)
        return self._read(_getFrom, sid, self._now())

    def set(self, sid: str, record: Record) -> Deferred[None]:
        """
        Store the record, whether or not there is one already.
        """
        return self._put(sid, _SET, sid, *_row(record)).addCallback(nothing)

    def destroy(self, sid: str) -> Deferred[None]:
        """
        Forget this session.  An unknown ID is not an error.
        """
        return self._change(sid, _DESTROY, sid).addCallback(nothing)

    def touch(self, sid: str, expires: float) -> Deferred[None]:
        """
        Set the expiry of a live session; of an unknown one, nothing.
        """
        touching = self._change(sid, _TOUCH, asMilliseconds(expires), sid, self._now())
        return touching.addCallback(nothing)

    # What stores may do besides.

    def create(self, sid: str, record: Record) -> Deferred[bool]:
        """
        Store the record if the ID is free.  Fires with whether it was.
        """
        creating = self._put(sid, _CREATE, sid, *_row(record), self._now())
        return creating.addCallback(bool)

    def replace(self, sid: str, record: Record, expected: Record) -> Deferred[bool]:
        """
        Store the record if the live one has the payload of C{expected}.  Fires
        with whether it had.
        """
        values = *_row(record), sid, self._now(), expected.payload
        return self._change(sid, _REPLACE, *values).addCallback(bool)

    def all(self) -> Deferred[dict[str, Record]]:
        """
        Fires with every live record, by ID.
        """
        return self._read(_allOf, self._now())

    def length(self) -> Deferred[int]:
        """
        Fires with the number of live records.
        """
        return self._read(_lengthOf, self._now())

    def clear(self) -> Deferred[None]:
        """
        Forget every session.
        """
        return self._write(_CLEAR).addCallback(nothing)

    def prune(self, limit: int) -> Deferred[int]:
        """
        Delete at most C{limit} expired records.  Fires with how many were.
        """
        return self._write(_PRUNE, self._now(), limit)

    def start(self) -> Deferred[None]:
        """
        Open the file, and make it if there is none.  Fires when that is done.
        Fails with L{StoreUnavailable <txsession.StoreUnavailable>} if it cannot
        be opened, in which case it is tried again, and with
        L{StoreError <txsession.StoreError>} if it is something else than a file
        of sessions.
        """
        return self._run(nothing)

    def stop(self) -> Deferred[None]:
        """
        Finish what is under way, and close the file.  Fires when that is done.
        If the store is used again afterwards, it starts again.
        """
        return Deferred.fromCoroutine(self._stop())

    # How it is done.

    def _now(self) -> int:
        if self._clock is None:
            self._clock = realReactor(None)
        return int(self._clock.seconds() * 1000)

    @failing
    def _put(self, sid: str, statement: str, *values: Any) -> Deferred[int]:
        checkHeld(isText(sid))
        return self._write(statement, *values)

    def _change(self, sid: str, statement: str, *values: Any) -> Deferred[int]:
        return self._write(statement, *values) if isText(sid) else succeed(0)

    @failing
    def _read(self, work: Callable[..., T], *arguments: Any) -> Deferred[T]:
        self._outage.check()
        return self._begin(self._pools()[0], Job(work, arguments))

    @failing
    def _write(self, statement: str, *values: Any) -> Deferred[int]:
        self._outage.check()
        write = _Write(statement, values)
        self._underWay.add(write.done)
        self._pending.append(write)
        if not self._isWriting:
            self._writePending()
        return detached(write.done)

    def _writePending(self) -> None:
        batch, self._pending = self._pending, []
        self._isWriting = True
        writing = self._run(_writeAll, batch)
        writing.addErrback(lambda failure: [failure] * len(batch))
        writing.addCallback(self._written, batch)

    def _written(self, results: list[Any], batch: list[_Write]) -> None:
        self._isWriting = False
        if self._pending:
            self._writePending()
        for write, result in zip(batch, results, strict=True):
            write.done.callback(result)

    def _run(self, work: Callable[..., T], *arguments: Any) -> Deferred[T]:
        """
        Have the thread that writes do something.
        """
        return self._begin(self._pools()[1], Job(work, arguments))

    def _begin(self, pool: Pool, job: Job) -> Deferred[Any]:
        self._underWay.add(job.over)
        return pool.begin(job).addErrback(self._explain)

    def _explain(self, failure: Failure) -> Failure:
        """
        Say by the exception's type what the trouble is.
        """
        error = failure.value
        if isinstance(error, _NotOpen):
            self._outage.lost(str(error))
            raise StoreUnavailable(str(error)) from error.__cause__
        return failure if error is None else Failure(_explained(error))

    # Connections.

    def _pools(self) -> tuple[Pool, Pool]:
        if self._opened is None:
            reactor = realReactor(self._clock)
            self._opened = (
                Pool("sqlite3", self._open, self._readers, self._timeout, reactor),
                Pool("sqlite3", self._open, 1, self._timeout, reactor),
            )
        return self._opened

    def _open(self) -> sqlite3.Connection:
        try:
            _makePrivate(self._path)
            connection = sqlite3.connect(
                self._path,
                timeout=self._timeout,
                isolation_level=None,
                check_same_thread=False,  # another thread may close it
            )
        except (OSError, sqlite3.Error) as error:
            raise _NotOpen(f"{self._path} cannot be opened: {error}") from error
        try:
            self._prepare(connection)
        except sqlite3.OperationalError as error:
            connection.close()
            raise _NotOpen(f"{self._path} cannot be opened: {error}") from error
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        version = self._versionOf(connection)
        _enterWAL(connection, time.monotonic() + self._timeout)
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        if version < VERSION:
            with _transaction(connection):
                for statement in _SCHEMA:
                    connection.execute(statement)

    def _versionOf(self, connection: sqlite3.Connection) -> int:
        try:
            [version] = connection.execute("PRAGMA user_version").fetchone()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            raise StoreError(
                f"{self._path} is not an SQLite database; name another file"
            ) from error
        if version > VERSION:
            raise StoreError(
                f"{self._path} was made by a newer version of txsession, or by "
                "another program; name another file, or upgrade"
            )
        return int(version)

    async def _stop(self) -> None:
        await self._underWay.over()
        self._outage.stop()
        opened, self._opened = self._opened, None
        for pool in opened or ():
            await pool.shut()


class _NotOpen(Exception):
    """
    The file cannot be opened.
    """


def _explained(error: BaseException) -> BaseException:
    if not isinstance(error, sqlite3.Error):
        return error
    isTrouble = isinstance(error, sqlite3.OperationalError)
    kind = StoreUnavailable if isTrouble else StoreError
    explained = kind(f"SQLite: {error}")
    explained.__cause__ = error
    return explained


def _checkPath(path: object) -> str:
    if not isinstance(path, (str, os.PathLike)):
        raise ConfigurationError(
            f"must be a str or a path, not {type(path).__name__}", option="path"
        )
    name = os.fspath(path)
    if not isinstance(name, str) or not name or "\0" in name:
        raise ConfigurationError(f"is not the name of a file: {name!r}", option="path")
    if name == ":memory:":
        raise ConfigurationError(
            "each connection would have a memory of its own; use MemoryStore()",
            option="path",
        )
    return name


def _row(record: Record) -> tuple[bytes, int]:
    return record.payload, asMilliseconds(record.expires)


# In the threads.


_making = Lock()


def _makePrivate(path: str) -> None:
    """
    Make the file, if there is none, so that nobody else can read it.
    """
    # It must not be opened and closed while a connection of this process is open:
    # that would take the locks off it (POSIX), whereupon another process that
    # closes the database deletes the log that this one goes on writing to.  So no
    # thread goes on to connect while another is at it.
    with _making, suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _enterWAL(connection: sqlite3.Connection, deadline: float) -> None:
    # The timeout of the connection does not hold for this.
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _getFrom(connection: sqlite3.Connection, sid: str, now: int) -> Record | None:
    row = connection.execute(_GET, (sid, now)).fetchone()
    return None if row is None else _recordOf(*row)


def _allOf(connection: sqlite3.Connection, now: int) -> dict[str, Record]:
    rows = connection.execute(_ALL, (now,))
    return {sid: _recordOf(payload, expire) for sid, payload, expire in rows}


def _lengthOf(connection: sqlite3.Connection, now: int) -> int:
    [length] = connection.execute(_LENGTH, (now,)).fetchone()
    return int(length)


def _recordOf(payload: bytes, expire: int) -> Record:
    return Record(payload, expire / 1000)


def _writeAll(connection: sqlite3.Connection, batch: list[_Write]) -> list[Any]:
    """
    Carry out statements that do not depend on each other, in one transaction.

    @return: for each how many rows it changed, or why it failed.
    @raise sqlite3.Error: all of them failed.
    """
    if len(batch) == 1:
        return [_writeOne(connection, batch[0])]
    with _transaction(connection):
        return [_writeOne(connection, write) for write in batch]


def _writeOne(connection: sqlite3.Connection, write: _Write) -> Any:
    wasInTransaction = connection.in_transaction
    try:
        return connection.execute(write.statement, write.values).rowcount
    except sqlite3.Error as error:
        if wasInTransaction and not connection.in_transaction:
            # The error has taken back what was done for the others, too.
            raise
        return Failure(_explained(error))
