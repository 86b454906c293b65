"""
Sessions in PostgreSQL, in the table of connect-pg-simple.

Every operation is one statement, sent and answered in one round trip by a thread
that has a connection of its own.

I{Lost connections.}  A connection that the server has closed while it was idle is
found out before it is used, and another is opened.  If it is lost while a
statement is under way, nobody knows whether that was done: a C{get} is asked
again on another connection, anything else fails with
L{StoreUnavailable <txsession.StoreUnavailable>} and is not repeated.

I{A server that does not answer.}  After C{timeout} seconds, a statement fails
with L{StoreTimeout <txsession.StoreTimeout>}, and its connection is shut down,
which frees the thread.

Either way, the server counts as out of reach until a connection to it has been
opened; until then all calls fail at once.
"""

from __future__ import annotations

import math
import re
import select
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import Any

try:
    import psycopg
except ImportError as error:
    raise ImportError(
        f"PostgreSQLStore needs psycopg: pip install 'txsession[postgresql]' ({error})"
    ) from error
from attrs import define, field
from psycopg import conninfo, errors, sql
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import ConfigurationError, StoreError, StoreTimeout, StoreUnavailable
from ..lifetime import Duration, asSeconds
from ..record import Record, asMilliseconds
from .common import (
    UnderWay,
    checkHeld,
    failing,
    isText,
    nothing,
    realReactor,
    wholeNumber,
)
from .outage import Outage
from .sql import Job, Pool

__all__ = ["PostgreSQLStore"]

_GET = """
SELECT sess::text, extract(epoch FROM expire::timestamptz)::float8 FROM {table}
WHERE sid = %s AND expire > to_timestamp(%s)
"""
_ALL = """
SELECT sid, sess::text, extract(epoch FROM expire::timestamptz)::float8 FROM {table}
WHERE expire > to_timestamp(%s)
"""
_LENGTH = "SELECT count(*) FROM {table} WHERE expire > to_timestamp(%s)"
_SET = """
INSERT INTO {table} AS old (sid, sess, expire) VALUES (%s, %s, to_timestamp(%s))
ON CONFLICT (sid) DO UPDATE SET sess = excluded.sess, expire = excluded.expire
"""
_CREATE = _SET + "WHERE old.expire <= to_timestamp(%s)"
_REPLACE = """
UPDATE {table} SET sess = %s, expire = to_timestamp(%s)
WHERE sid = %s AND expire > to_timestamp(%s) AND sess::text = %s
"""
_TOUCH = """
UPDATE {table} SET expire = to_timestamp(%s)
WHERE sid = %s AND expire > to_timestamp(%s)
"""
_DESTROY = "DELETE FROM {table} WHERE sid = %s"
_CLEAR = "DELETE FROM {table}"
# Rows that another process is about to delete are left to it: so two that prune at
# once neither wait for each other nor get into a deadlock.
_PRUNE = """
DELETE FROM {table} WHERE sid IN (
  SELECT sid FROM {table} WHERE expire <= to_timestamp(%s)
  LIMIT %s FOR UPDATE SKIP LOCKED
)
"""

_FIND_TABLE = "SELECT to_regclass(%s)"
_SCHEMA = """
CREATE TABLE {table} (
  sid varchar CONSTRAINT {key} PRIMARY KEY,
  sess json NOT NULL,
  expire timestamp(6) NOT NULL
);
CREATE INDEX {index} ON {table} (expire)
"""

MAX_REPEATS = 20
"""
How often a statement is repeated that certainly was not carried out.
"""

LONGEST_NAME = 63
"""
How many bytes of an identifier PostgreSQL keeps.
"""


class PostgreSQLStore:
    """
    Sessions in PostgreSQL 9.5 or newer, shared with Node's C{connect-pg-simple} if
    need be: in a table with the columns C{sid}, C{sess} (of type C{json}) and
    C{expire}.  It is made if it does not exist.  The store has every ability.

    The times of this process's clock count, not those of the server's; like
    connect-pg-simple, the store writes them in the time zone that the server has
    configured, which must therefore be the same for all who use the table.

    When the server cannot be reached, every call fails with
    L{StoreUnavailable <txsession.StoreUnavailable>} at once, C{available} is
    L{False}, and it is tried again, at most a second apart, until it can.  A
    write whose connection is lost while it is under way fails, too, and may or
    may not have been done; it is never repeated.

    @param url: C{postgresql://user:password@host:port/database}, or another
        connection string of libpq.  What it leaves out comes from the
        environment (C{PGPASSWORD}, C{PGSERVICE}, ...).
    @param table: the name of the table.
    @param schema: the schema it is in; L{None} for the first one that the
        server's C{search_path} names.
    @param createTable: whether to make the table if it does not exist.
    @param connections: how many connections, and threads, there are at most.
    @param timeout: seconds (or a C{timedelta}) that a call may take, the wait for
        a connection included.
    @param reactor: the clock; if it is a real reactor, the one that threads
        report to as well.  By default the global reactor, imported at first use.

    @raise ConfigurationError: an option's value cannot work.
    """

    _log = Logger()

    def __init__(
        self,
        url: str,
        *,
        table: str = "session",
        schema: str | None = None,
        createTable: bool = True,
        connections: int = 5,
        timeout: Duration = 5,
        reactor: Any | None = None,
    ) -> None:
        self._parameters = _asParameters(url)
        self._names = _asNames(table, schema)
        self._mayCreate = createTable
        self._connections = wholeNumber(connections, "connections")
        self._timeout = asSeconds(timeout, "timeout")
        # libpq knows no less than two seconds.
        self._parameters.setdefault("connect_timeout", max(2, math.ceil(self._timeout)))
        self._clock = reactor
        self._pool: Pool | None = None
        self._isTableThere = False
        self._underWay = UnderWay()
        self._outage = Outage(
            repr(self), self._log, lambda: realReactor(self._clock), self._look
        )

        identifiers = self._identifiers()
        self._get = _statement(_GET, identifiers)
        self._all = _statement(_ALL, identifiers)
        self._length = _statement(_LENGTH, identifiers)
        self._set = _statement(_SET, identifiers)
        self._create = _statement(_CREATE, identifiers)
        self._replace = _statement(_REPLACE, identifiers)
        self._touch = _statement(_TOUCH, identifiers)
        self._destroy = _statement(_DESTROY, identifiers)
        self._clear = _statement(_CLEAR, identifiers)
        self._prune = _statement(_PRUNE, identifiers)

    def __repr__(self) -> str:
        host = self._parameters.get("host") or "the default host"
        database = self._parameters.get("dbname") or "the default database"
        return f"<PostgreSQLStore {'.'.join(self._names)} of {database} on {host}>"

    @property
    def available(self) -> bool:
        """
        Whether, as far as is known, the server can be reached.
        """
        return self._outage.reason is None

    # What every store does.

    def get(self, sid: str) -> Deferred[Record | None]:
        """
        Fires with the live record of this ID, or L{None}.
        """
        if not _isHeld(sid):
            return succeed(None)
        return self._read(_oneOf, self._get, sid, self._now()).addCallback(_asRecord)

    def set(self, sid: str, record: Record) -> Deferred[None]:
        """
        Store the record, whether or not there is one already.
        """
        return self._put(self._set, sid, record).addCallback(nothing)

    def destroy(self, sid: str) -> Deferred[None]:
        """
        Forget this session.  An unknown ID is not an error.
        """
        return self._change(sid, self._destroy, sid).addCallback(nothing)

    def touch(self, sid: str, expires: float) -> Deferred[None]:
        """
        Set the expiry of a live session; of an unknown one, nothing.
        """
        values = asMilliseconds(expires) / 1000, sid, self._now()
        return self._change(sid, self._touch, *values).addCallback(nothing)

    # What stores may do besides.

    def create(self, sid: str, record: Record) -> Deferred[bool]:
        """
        Store the record if the ID is free.  Fires with whether it was.
        """
        return self._put(self._create, sid, record, self._now()).addCallback(bool)

    def replace(self, sid: str, record: Record, expected: Record) -> Deferred[bool]:
        """
        Store the record if the live one has the payload of C{expected}.  Fires
        with whether it had.
        """
        return self._swap(sid, record, expected).addCallback(bool)

    def all(self) -> Deferred[dict[str, Record]]:
        """
        Fires with every live record, by ID.
        """
        return self._read(_manyOf, self._all, self._now())

    def length(self) -> Deferred[int]:
        """
        Fires with the number of live records.
        """
        counting = self._read(_oneOf, self._length, self._now())
        return counting.addCallback(lambda row: int(row[0]))

    def clear(self) -> Deferred[None]:
        """
        Forget every session in the table.
        """
        return self._write(self._clear).addCallback(nothing)

    def prune(self, limit: int) -> Deferred[int]:
        """
        Delete at most C{limit} expired records.  Fires with how many were.
        """
        return self._write(self._prune, self._now(), limit)

    def start(self) -> Deferred[None]:
        """
        Open a connection, and make the table if there is none.  Fires when that
        is done.  Fails with L{StoreUnavailable <txsession.StoreUnavailable>} if
        the server cannot be reached, in which case it is tried again, and with
        L{StoreError <txsession.StoreError>} if the table cannot be made.
        """
        return self._look()

    def stop(self) -> Deferred[None]:
        """
        Finish what is under way, and close the connections.  Fires when that is
        done.  If the store is used again afterwards, it starts again.
        """
        return Deferred.fromCoroutine(self._stop())

    # How it is done.

    def _now(self) -> float:
        if self._clock is None:
            self._clock = realReactor(None)
        now: float = self._clock.seconds()
        return now

    @failing
    def _put(
        self, statement: str, sid: str, record: Record, *values: Any
    ) -> Deferred[int]:
        checkHeld(_isHeld(sid))
        return self._write(statement, sid, *_row(record), *values)

    @failing
    def _swap(self, sid: str, record: Record, expected: Record) -> Deferred[int]:
        values = *_row(record), sid, self._now(), _text(expected.payload)
        return self._change(sid, self._replace, *values)

    def _change(self, sid: str, statement: str, *values: Any) -> Deferred[int]:
        return self._write(statement, *values) if _isHeld(sid) else succeed(0)

    @failing
    def _read(self, work: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        self._outage.check()
        return self._do(_Statement(work, arguments, store=self, isRepeatable=True))

    @failing
    def _write(self, statement: str, *values: Any) -> Deferred[int]:
        self._outage.check()
        return self._do(_Statement(_changedBy, (statement, *values), store=self))

    def _look(self) -> Deferred[None]:
        job = _Statement(_hear, store=self, isRepeatable=True, isProbe=True)
        return self._do(job)

    def _do(self, job: _Statement) -> Deferred[Any]:
        if self._pool is None:
            reactor = realReactor(self._clock)
            self._pool = Pool(
                "psycopg", self._open, self._connections, self._timeout, reactor
            )
        job.timeout = realReactor(self._clock).callLater(
            self._timeout, self._timedOut, job
        )
        self._underWay.add(job.over)
        return self._pool.begin(job).addErrback(self._explain)

    def _timedOut(self, job: _Statement) -> None:
        job.timeout = None
        ran = job.seconds()
        if ran is not None and ran >= self._timeout / 2:
            problem = f"the server did not answer within {self._timeout:g} seconds"
            job.interrupt()
            self._outage.lost(problem)
        else:
            # That there is more to do than can be done is no outage.
            problem = f"no connection was free for most of {self._timeout:g} seconds"
            job.abandon()
            if ran is not None:
                job.timeout = realReactor(self._clock).callLater(
                    self._timeout - ran, self._timedOut, job
                )
        if not job.answer.called:
            job.answer.errback(StoreTimeout(problem))

    def _explain(self, failure: Failure) -> Failure:
        """
        Say by the exception's type what the trouble is.
        """
        error = failure.value
        if isinstance(error, _OutOfReach):
            self._outage.lost(str(error))
            raise StoreUnavailable(str(error)) from error.__cause__
        if not isinstance(error, psycopg.Error):
            return failure
        kind = StoreUnavailable if _isTrouble(error) else StoreError
        raise kind(_told(error)) from _withoutDetails(error)

    async def _stop(self) -> None:
        await self._underWay.over()
        self._outage.stop()
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.shut()

    # In the threads.

    def _open(self) -> psycopg.Connection[Any]:
        try:
            return psycopg.connect(
                autocommit=True,
                # Statements that are prepared get in the way of pgbouncer, and
                # take a round trip of their own.
                prepare_threshold=None,
                **self._parameters,
            )
        except psycopg.Error as error:
            raise _OutOfReach(_told(error)) from error

    def _findTable(self, connection: psycopg.Connection[Any]) -> None:
        if self._isTableThere:
            return
        name = sql.Identifier(*self._names).as_string(connection)
        if not _isThere(connection, name):
            if not self._mayCreate:
                raise StoreError(
                    f"there is no table {name}; make it, or allow it to be made "
                    "(createTable=True)"
                )
            self._makeTable(connection, name)
        self._isTableThere = True

    def _makeTable(self, connection: psycopg.Connection[Any], name: str) -> None:
        schema = sql.SQL(_SCHEMA).format(**self._identifiers())
        try:
            with connection.transaction():
                connection.execute(schema)
        except (errors.DuplicateTable, errors.DuplicateObject, errors.UniqueViolation):
            # Somebody else who found no table may have been faster.
            if not _isThere(connection, name):
                raise

    def _identifiers(self) -> dict[str, sql.Identifier]:
        table = self._names[-1]
        return {
            "table": sql.Identifier(*self._names),
            "key": sql.Identifier(_named("", table, "_pkey")),
            "index": sql.Identifier(_named("IDX_", table, "_expire")),
        }


@define(eq=False)
class _Statement(Job):
    """
    A statement under way.

    @ivar isRepeatable: whether it may be sent again if nobody knows whether it
        was carried out.
    @ivar isProbe: whether it is to find out if the server can be reached again.
    @ivar begun: when a thread began with it, by the monotonic clock.
    """

    store: Any = None
    isRepeatable: bool = False
    isProbe: bool = False
    begun: float | None = None
    timeout: Any = None
    _connection: Any = None
    _lock: Lock = field(factory=Lock)

    def run(self, pool: Pool) -> Any:
        if self.isAbandoned:
            return None
        self.begun = time.monotonic()
        if not self.isProbe:
            self.store._outage.check()
        connection = pool.connect()
        if _isLost(connection):
            connection = _reopened(pool, connection)
        try:
            return self._runOn(connection)
        except psycopg.Error as error:
            if not (_isAboutConnection(error) or _isLost(connection)):
                raise
            if self.isAbandoned:
                pool.disconnect(connection)
                return None
            # Whether or not it is of use to this statement: what it finds out is.
            connection = _reopened(pool, connection)
            if not self.isRepeatable:
                raise StoreUnavailable(
                    "the connection was lost while the statement was under way, "
                    "which may or may not have been carried out"
                ) from error
            return self._runOn(connection)

    def seconds(self) -> float | None:
        """
        For how long a thread has been busy with it.
        """
        return None if self.begun is None else time.monotonic() - self.begun

    def _runOn(self, connection: psycopg.Connection[Any]) -> Any:
        with self._lock:
            if self.isAbandoned:  # while the connection was opened
                return None
            self._connection = connection
        try:
            self.store._findTable(connection)
            return self._repeated(connection)
        finally:
            with self._lock:
                self._connection = None

    def _repeated(self, connection: psycopg.Connection[Any]) -> Any:
        for _ in range(MAX_REPEATS):
            # Not carried out, because of another statement: on a server whose
            # transactions are serializable by default, this is how it says so.
            with suppress(errors.SerializationFailure, errors.DeadlockDetected):
                return self.work(connection, *self.arguments)
        return self.work(connection, *self.arguments)

    def interrupt(self) -> None:
        with self._lock:
            self.abandon()
            if self._connection is not None and not self._connection.closed:
                _shutDown(self._connection.fileno())

    def ended(self, result: Any) -> None:
        if self.timeout is not None:
            self.timeout.cancel()
            self.timeout = None
        super().ended(result)


class _OutOfReach(Exception):
    """
    No connection could be opened.
    """


def _reopened(
    pool: Pool, connection: psycopg.Connection[Any]
) -> psycopg.Connection[Any]:
    pool.disconnect(connection)  # type: ignore[no-untyped-call]
    opened: psycopg.Connection[Any] = pool.connect()
    return opened


def _isLost(connection: psycopg.Connection[Any]) -> bool:
    """
    Whether the server has closed an idle connection.
    """
    if connection.closed:
        return True
    if not _hasNews(connection.fileno()):
        return False
    try:
        connection.pgconn.consume_input()
    except psycopg.Error:
        return True
    return connection.closed or _hasNews(connection.fileno())


def _hasNews(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _shutDown(descriptor: int) -> None:
    with socket.socket(fileno=socket.dup(descriptor)) as duplicate:
        duplicate.shutdown(socket.SHUT_RDWR)


def _hear(connection: psycopg.Connection[Any]) -> None:
    # That there is a connection does not say that the server answers on it.
    connection.execute("SELECT 1")


def _oneOf(connection: psycopg.Connection[Any], statement: str, *values: Any) -> Any:
    return connection.execute(statement, values).fetchone()


def _manyOf(
    connection: psycopg.Connection[Any], statement: str, *values: Any
) -> dict[str, Record]:
    rows = connection.execute(statement, values)
    return {sid: Record(text.encode(), expires) for sid, text, expires in rows}


def _changedBy(
    connection: psycopg.Connection[Any], statement: str, *values: Any
) -> int:
    return connection.execute(statement, values).rowcount


def _isThere(connection: psycopg.Connection[Any], name: str) -> bool:
    [found] = _oneOf(connection, _FIND_TABLE, name)
    return found is not None


# Values.


def _asRecord(row: tuple[str, float] | None) -> Record | None:
    return None if row is None else Record(row[0].encode(), row[1])


def _row(record: Record) -> tuple[str, float]:
    return _text(record.payload), asMilliseconds(record.expires) / 1000


def _text(payload: bytes) -> str:
    try:
        return payload.decode("utf-8")
    except UnicodeDecodeError as error:
        raise StoreError(
            "a column of type json cannot hold a payload that is not UTF-8"
        ) from error


def _isHeld(sid: str) -> bool:
    return isText(sid) and "\0" not in sid


# Options.


def _asParameters(url: object) -> dict[str, Any]:
    if not isinstance(url, str):
        raise ConfigurationError(
            f"must be a str, not {type(url).__name__}", option="url"
        )
    try:
        parameters: dict[str, Any] = dict(conninfo.conninfo_to_dict(url))
    except psycopg.Error:
        # Its message may hold the password.
        raise ConfigurationError(
            "is not a connection string; write "
            "postgresql://user:password@host:port/database",
            option="url",
        ) from None
    for port in str(parameters.get("port") or "").split(","):
        if port and not (re.fullmatch("[0-9]{1,5}", port) and int(port) < 65536):
            raise ConfigurationError("has a port that is not a number", option="url")
    if "@" in str(parameters.get("host") or ""):
        raise ConfigurationError(
            "has two @; write the one in the password as %40", option="url"
        )
    parameters.setdefault("application_name", "txsession")
    parameters["client_encoding"] = "UTF8"
    return parameters


def _asNames(table: object, schema: object) -> tuple[str, ...]:
    names = {"schema": schema, "table": table}
    if schema is None:
        del names["schema"]
    for option, name in names.items():
        if not isinstance(name, str) or not name or "\0" in name:
            raise ConfigurationError(f"is not a name: {name!r}", option=option)
        if len(name.encode()) > LONGEST_NAME:
            raise ConfigurationError(
                f"is longer than {LONGEST_NAME} bytes: {name!r}", option=option
            )
    return tuple(str(name) for name in names.values())


def _named(before: str, table: str, after: str) -> str:
    """
    The name of something that belongs to a table, of which as much is in it as
    fits.
    """
    length = LONGEST_NAME - len(before) - len(after)
    return before + table.encode()[:length].decode(errors="ignore") + after


def _statement(text: str, identifiers: dict[str, sql.Identifier]) -> str:
    # A percent sign in a name is none that stands for a value.
    names = {k: each.as_string().replace("%", "%%") for k, each in identifiers.items()}
    return text.format(**names)


# Errors.


def _isAboutConnection(error: psycopg.Error) -> bool:
    """
    Whether it says that the connection, or what it leads to, is of no use.
    """
    state = error.sqlstate
    if state is None:
        return isinstance(error, psycopg.OperationalError)
    # Connection exceptions; shutdown, crash, starting up; read-only, as the
    # server is after another has taken its place.
    return state.startswith(("08", "57P")) or state == "25006"


def _isTrouble(error: psycopg.Error) -> bool:
    """
    Whether the server, rather than what was asked of it, is the trouble.
    """
    if (error.sqlstate or "").startswith("54"):  # more than a limit of PostgreSQL
        return False
    return isinstance(error, psycopg.OperationalError) or _isAboutConnection(error)


def _told(error: psycopg.Error) -> str:
    """
    An error's message, on one line and without details, which may quote what is
    stored.
    """
    message = error.diag.message_primary or str(error)
    return f"PostgreSQL: {' '.join(message.split())}"


def _withoutDetails(error: psycopg.Error) -> psycopg.Error:
    """
    The same error, whose text is safe to be logged.
    """
    if not (error.diag.message_detail or error.diag.context):
        return error
    kind: Any = type(error)
    told: psycopg.Error = kind(error.diag.message_primary)
    return told
