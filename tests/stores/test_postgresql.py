"""
What is special to `txsession.stores.postgresql.PostgreSQLStore`.
"""

from __future__ import annotations

import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from secrets import token_hex
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import psycopg
import pytest
import pytest_twisted
from psycopg import sql
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import formatEvent

from tests.servers import PostgreSQLServer
from txsession import (
    ConfigurationError,
    Record,
    StoreError,
    StoreTimeout,
    StoreUnavailable,
    getSession,
)
from txsession.stores.postgresql import PostgreSQLStore

from ..programs import Programs, programsOfATest  # noqa: F401
from ..support import PATIENCE, Serve, clockAt, patiently
from ..test_docs import blocks
from .backends import Proxy, comesAbout

FOREVER = 32_000_000_000.0
RECORD = Record(b'{"cookie":{}}', FOREVER)
PASSWORD = "pa55:w%rd/@#?"

# The layout of connect-pg-simple, whose own program `tests/interop` runs.
CONNECT_PG_SIMPLE = """
CREATE TABLE "{0}" (sid varchar, sess json NOT NULL, expire timestamp(6) NOT NULL);
ALTER TABLE "{0}" ADD CONSTRAINT "{0}_pkey" PRIMARY KEY (sid);
CREATE INDEX "IDX_{0}_expire" ON "{0}" (expire)
"""

# A process that ends while all threads of its store, and more, wait for the server.
STUCK = """
import sys
from twisted.internet import reactor
from txsession import Record
from txsession.stores.postgresql import PostgreSQLStore

url, table = sys.argv[1:]
store = PostgreSQLStore(url, table=table, connections=2, timeout=1)

def begin():
    for number in range(10):
        store.set(str(number), Record(b"{}", 1e10)).addErrback(print)
    reactor.callLater(0.5, reactor.stop)

reactor.callWhenRunning(begin)
reactor.run()
"""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQLServer]:
    """
    A server of which the tests here may ask anything.  It wants a password of all
    but its superuser.
    """
    server = PostgreSQLServer()
    (server.data / "pg_hba.conf").write_text(
        "host all postgres 127.0.0.1/32 trust\n"
        "host all all 127.0.0.1/32 scram-sha-256\n"
    )
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def run(server: PostgreSQLServer) -> Iterator[Callable[..., Any]]:
    """
    Executes statements as the superuser.
    """
    with psycopg.connect(server.url, autocommit=True) as connection:

        def run(statement: Any, *values: Any) -> Any:
            cursor = connection.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else None

        yield run


@pytest.fixture
def table() -> str:
    return f"sessions {token_hex(6)}"


@pytest.fixture
def makeStore(server: PostgreSQLServer, table: str) -> Iterator[Callable[..., Any]]:
    """
    Makes stores, on a table that only this test uses, and stops them.
    """
    stores = []

    def make(url: str = server.url, **options: Any) -> PostgreSQLStore:
        stores.append(PostgreSQLStore(url, **{"table": table, **options}))
        return stores[-1]

    yield make
    for store in stores:
        pytest_twisted.blockon(store.stop())


def texts(events: list[Any]) -> str:
    """
    All that was logged, with its fields and its tracebacks.
    """
    return "\n".join(f"{formatEvent(event)} {event!r}" for event in events)


# Round trips.


def visit(request: Any) -> Any:
    """
    What the path says is done with the session.
    """
    session = getSession(request)
    if request.path == b"/write":
        session["count"] = session.get("count", 0) + 1
    elif request.path == b"/read":
        return str(session["count"])
    elif request.path == b"/touch":
        session.touch()
    elif request.path == b"/destroy":
        return session.destroy().addCallback(lambda _: "")
    return ""


@pytest_twisted.ensureDeferred
async def test_oneRoundTripForEachLoadAndSave(
    server: PostgreSQLServer, makeStore: Any, serve: Serve, run: Any
) -> None:
    """
    A load is one statement and one round trip, and so are a save, a touch and the
    destruction of a session, on a connection that is there.
    """
    proxy = Proxy(server.port)
    store = makeStore(
        f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres"
        "?options=-c%20log_statement%3Dall",
        connections=1,
    )
    browser = serve(visit, store=store, clock=reactor).browser()
    await browser.post("/write")

    async def asked(path: str) -> tuple[list[str], int]:
        seen, before = len(server.output), proxy.roundTrips
        assert (await browser.post(path)).status == 200
        # One more, behind what no response waits for.
        mark = uuid4().hex
        await store.get(mark)
        trips = proxy.roundTrips - before - 1
        await comesAbout(lambda: mark.encode() in b"".join(server.output))
        log = b"".join(server.output[seen:]).decode()
        log = log[: log.index(mark)]
        found = re.findall(r"LOG: +(?:statement|execute [^:]*):\s*(\S+)", log)
        return found[:-1], trips

    assert await asked("/read") == (["SELECT"], 1)
    assert await asked("/write") == (["SELECT", "UPDATE"], 2)
    assert await asked("/touch") == (["SELECT", "UPDATE"], 2)
    assert await asked("/destroy") == (["SELECT", "DELETE"], 2)
    assert await asked("/nothing") == ([], 0)
    assert await asked("/write") == (["INSERT"], 1)
    await store.stop()
    await proxy.close()


# The table.


COLUMNS = """
SELECT column_name, data_type, is_nullable, datetime_precision, character_maximum_length
FROM information_schema.columns WHERE table_name = %s ORDER BY ordinal_position
"""
INDICES = """
SELECT replace(indexname, %s, 'TABLE'), replace(replace(indexdef, %s, 'TABLE'), '"', '')
FROM pg_indexes WHERE tablename = %s ORDER BY 1
"""


@pytest_twisted.ensureDeferred
async def test_theTableIsConnectPgSimples(makeStore: Any, run: Any, table: str) -> None:
    """
    The table that the store makes has the columns, the key and the index of
    connect-pg-simple's own.
    """
    await makeStore().start()
    theirs = f"theirs_{token_hex(6)}"
    run(CONNECT_PG_SIMPLE.format(theirs))
    assert run(COLUMNS, table) == run(COLUMNS, theirs)
    mine, others = (run(INDICES, t, t, t) for t in (table, theirs))
    assert mine == others
    assert len(mine) == 2


@pytest_twisted.ensureDeferred
async def test_aTableOfConnectPgSimplesIsUsedAsItIs(
    makeStore: Any, run: Any, table: str
) -> None:
    """
    A table that connect-pg-simple made is used, with the sessions in it, and not
    changed; the store writes rows as connect-pg-simple does.
    """
    run(CONNECT_PG_SIMPLE.format(table))
    before = run(INDICES, table, table, table)
    text = '{"cookie":{"originalMaxAge":5000}, "n":1.50, "s":"ü\\u0000"}'
    run(
        f'INSERT INTO "{table}" (sess, expire, sid) SELECT %s, to_timestamp(%s), %s',
        *(text, 31_000_000_000.5, "a"),
    )
    store = makeStore()
    assert await store.get("a") == Record(text.encode(), 31_000_000_000.5)
    found = await store.get("a")
    assert await store.replace("a", RECORD, found) is True
    await store.set("b", Record(text.encode(), 31_000_000_000.123))
    assert run(INDICES, table, table, table) == before
    assert run(
        f"SELECT sid, sess::text, extract(epoch FROM expire::timestamptz)::float8 "
        f'FROM "{table}" ORDER BY sid'
    ) == [
        ("a", RECORD.payload.decode(), FOREVER),
        ("b", text, 31_000_000_000.123),
    ]


@pytest_twisted.ensureDeferred
async def test_theTableOfTheGuide(
    makeStore: Any, run: Any, server: PostgreSQLServer
) -> None:
    """
    The table that the how-to has people make is the one that the store would make.
    """
    schema = f"guide_{token_hex(6)}"
    [statements] = blocks("docs/how-to/choose-a-store.md", "sql")
    run(f"CREATE SCHEMA {schema}")
    with psycopg.connect(server.url, options=f"-c search_path={schema}") as connection:
        connection.execute(statements)
    await makeStore(table="made", schema=schema).start()
    assert run(COLUMNS, "session") == run(COLUMNS, "made")
    guides, mine = (run(INDICES, t, t, t) for t in ("session", "made"))
    assert guides == mine
    store = makeStore(table="session", schema=schema, createTable=False)
    await store.set("a", RECORD)
    assert await store.get("a") == RECORD


NAMES = [
    "Session",
    "my session",
    "a.b",
    'a"b',
    "größe",
    "select",
    "%s",
    "{a}",
    "x" * 63,
]


@pytest.mark.parametrize("name", NAMES)
@pytest_twisted.ensureDeferred
async def test_namesAreQuoted(makeStore: Any, run: Any, name: str) -> None:
    """
    Tables and schemas may have any names, which are taken literally, as upper and
    lower case are; two stores of tables that differ in nothing else keep apart.
    """
    schema = f"{name[:50]}{token_hex(4)}"
    run(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
    store = makeStore(table=name, schema=schema)
    other = (
        makeStore(table=name.swapcase() + "_", schema=schema) if name < "x" else None
    )
    assert await store.create("a", RECORD) is True
    assert await store.replace("a", RECORD, RECORD) is True
    await store.touch("a", FOREVER)
    await store.set("b", RECORD)
    assert await store.get("a") == RECORD
    assert await store.all() == {"a": RECORD, "b": RECORD}
    assert await store.length() == 2
    assert await store.prune(10) == 0
    await store.destroy("b")
    if other is not None:
        assert await other.get("a") is None
    assert run(
        "SELECT count(*) FROM pg_tables WHERE schemaname = %s AND tablename = %s",
        *(schema, name),
    ) == [(1,)]
    await store.clear()
    assert await store.length() == 0


@pytest_twisted.ensureDeferred
async def test_aTableThatMayNotBeMade(makeStore: Any, run: Any, table: str) -> None:
    """
    With createTable=False, a table that is missing is an error that names it and
    says what to do; once it is there, the store works.
    """
    store = makeStore(createTable=False)
    for call in (store.start(), store.get("a"), store.set("a", RECORD)):
        with pytest.raises(StoreError, match="createTable=True") as caught:
            await call
        assert f'"{table}"' in str(caught.value)
        assert not isinstance(caught.value, StoreUnavailable)
    run(CONNECT_PG_SIMPLE.format(table))
    await store.set("a", RECORD)
    assert await store.get("a") == RECORD


@pytest_twisted.ensureDeferred
async def test_aSchemaThatIsMissing(makeStore: Any) -> None:
    """
    A schema is not made: that it is missing is an error that says so.
    """
    with pytest.raises(StoreError, match='schema "nowhere" does not exist'):
        await makeStore(schema="nowhere").start()


@pytest_twisted.ensureDeferred
async def test_twoMakeTheTableAtOnce(makeStore: Any) -> None:
    """
    Of several stores that find no table at the same moment, none fails.
    """
    stores = [makeStore() for _ in range(6)]
    await gatherResults([store.start() for store in stores])
    await gatherResults([store.set(str(n), RECORD) for n, store in enumerate(stores)])
    assert await stores[0].length() == 6


@pytest_twisted.ensureDeferred
async def test_aNameThatIsTaken(makeStore: Any, run: Any, table: str) -> None:
    """
    Where the table cannot be made because what belongs to it would have the name of
    something else, the error says which, instead of counting it as made.
    """
    run(f'CREATE TABLE "{table}_pkey" ()')
    for _ in range(2):
        with pytest.raises(StoreError, match=f"{table}_pkey.* already exists"):
            await makeStore().get("a")


@pytest_twisted.ensureDeferred
async def test_aTableThatIsDroppedAtRunTime(
    makeStore: Any, run: Any, table: str
) -> None:
    """
    That somebody drops the table is an error that tells so, not an outage.
    """
    store = makeStore()
    await store.set("a", RECORD)
    run(f'DROP TABLE "{table}"')
    with pytest.raises(StoreError, match="does not exist") as caught:
        await store.get("a")
    assert not isinstance(caught.value, StoreUnavailable)


# Users.


@pytest.fixture
def user(run: Any, server: PostgreSQLServer) -> Iterator[Any]:
    """
    Makes the URL of a user who may do nothing yet.
    """
    name = f"ada_{token_hex(6)}"
    run(f"CREATE USER {name} PASSWORD '{PASSWORD}'")
    run("REVOKE CREATE ON SCHEMA public FROM PUBLIC")

    def url(password: str = PASSWORD, database: str = "postgres") -> str:
        return (
            f"postgresql://{name}:{quote(password, safe='')}"
            f"@127.0.0.1:{server.port}/{database}"
        )

    url.name = name
    return url


@pytest_twisted.ensureDeferred
async def test_aUserWhoMayNotCreateTables(
    makeStore: Any, run: Any, user: Any, table: str
) -> None:
    """
    A user without the right to create tables uses one that there is; where there is
    none, the error says what the user may not do.
    """
    with pytest.raises(StoreError, match="permission denied for schema public"):
        await makeStore(user()).start()
    run(CONNECT_PG_SIMPLE.format(table))
    with pytest.raises(StoreError, match="permission denied for table"):
        await makeStore(user()).get("a")
    run(f'GRANT SELECT, INSERT, UPDATE, DELETE ON "{table}" TO {user.name}')
    store = makeStore(user())
    assert await store.create("a", RECORD) is True
    assert await store.get("a") == RECORD
    assert await store.prune(10) == 0
    await store.clear()


@pytest_twisted.ensureDeferred
async def test_aWrongPassword(
    makeStore: Any, run: Any, user: Any, table: str, logged: list[Any]
) -> None:
    """
    A wrong password makes the store unavailable, of which it recovers by itself when
    the server changes its mind; neither errors nor logs ever hold it.
    """
    run(CONNECT_PG_SIMPLE.format(table))
    run(f'GRANT ALL ON "{table}" TO {user.name}')
    store = makeStore(user(f"0ther{PASSWORD}"))
    with pytest.raises(StoreUnavailable, match="password authentication failed") as e:
        await store.get("a")
    assert store.available is False
    error: Any = e.value
    while error is not None:
        assert "pa55" not in f"{error} {error!r}"
        error = error.__cause__
    run(f"ALTER USER {user.name} PASSWORD '0ther{PASSWORD}'")
    await comesAbout(lambda: store.available)
    await store.set("a", RECORD)
    assert "pa55" not in repr(store)
    assert "pa55" not in texts(logged)


@pytest_twisted.ensureDeferred
async def test_aWrongDatabase(makeStore: Any, user: Any) -> None:
    """
    A database that does not exist makes the store unavailable, and its name is
    said.
    """
    store = makeStore(user(database="nowhere"))
    with pytest.raises(StoreUnavailable, match='database "nowhere" does not exist'):
        await store.start()
    assert store.available is False


# Time.


@pytest.mark.parametrize(
    "zone", ["UTC", "Asia/Kolkata", "America/St_Johns", "Pacific/Kiritimati"]
)
@pytest_twisted.ensureDeferred
async def test_theServersTimeZone(
    server: PostgreSQLServer, makeStore: Any, run: Any, table: str, zone: str
) -> None:
    """
    Whatever time zone the server is in, expiries come back as they were, pass when
    they should, and are what connect-pg-simple, in the same zone, would read.
    """
    url = f"{server.url}?options=-c%20timezone%3D{quote(zone, safe='')}"
    clock = clockAt(time.time())
    store = makeStore(url, reactor=clock)
    now = round(clock.seconds(), 3)
    await store.set("soon", Record(b"{}", now + 1))
    await store.set("later", Record(b"{}", now + 3600))
    assert await store.get("soon") == Record(b"{}", now + 1)
    run(f"SET timezone = '{zone}'")
    alive = f'SELECT sid FROM "{table}" WHERE expire >= to_timestamp(%s)'
    assert run(alive, now + 2) == [("later",)]
    clock.advance(2)
    assert (await store.all()).keys() == {"later"}
    await store.touch("later", now + 7200.5)
    assert (await store.get("later")).expires == now + 7200.5
    assert await store.prune(10) == 1
    local = run(f'SELECT expire FROM "{table}"')[0][0]
    offset = run("SELECT extract(timezone FROM to_timestamp(%s))", now + 7200)[0][0]
    utc = local.replace(tzinfo=timezone.utc).timestamp() - float(offset)
    assert abs(utc - (now + 7200.5)) < 0.001
    assert isinstance(local, datetime)


# Pruning.


@pytest_twisted.ensureDeferred
async def test_twoPruneAtOnce(makeStore: Any, run: Any, table: str) -> None:
    """
    Several stores prune the same table at once, in batches: none waits for another
    or gets into a deadlock, each row is deleted once, and what is live stays, also
    what is touched and replaced meanwhile.
    """
    stores = [makeStore() for _ in range(3)]
    await stores[0].start()
    run(
        f"INSERT INTO \"{table}\" SELECT 'old' || n, '{{}}', now() - interval '1 day' "
        "FROM generate_series(1, 2000) n"
    )
    await gatherResults([stores[0].set(f"live{n}", RECORD) for n in range(100)])

    async def prune(store: Any) -> int:
        total = 0
        while count := await store.prune(70):
            assert count <= 70
            total += count
        return total

    async def use() -> int:
        for n in range(100):
            await stores[0].touch(f"live{n}", FOREVER)
            assert await stores[1].replace(f"live{n}", RECORD, RECORD)
        return 0

    work = [*(prune(store) for store in stores), use()]
    counts = await gatherResults([Deferred.fromCoroutine(each) for each in work])
    assert sum(counts) == 2000
    assert await stores[0].length() == 100
    assert run(f'SELECT count(*) FROM "{table}"') == [(100,)]


@pytest_twisted.ensureDeferred
async def test_pruningLeavesWhatOthersAreAbout(
    makeStore: Any, run: Any, table: str, server: PostgreSQLServer
) -> None:
    """
    A row that another transaction holds is neither waited for nor pruned; and one
    that is given a new expiry in the very moment in which it is pruned stays.
    """
    store = makeStore()
    await store.start()
    insert = f"INSERT INTO \"{table}\" VALUES (%s, '{{}}', now() - interval '1 day')"
    for sid in ("held", "free"):
        run(insert, sid)
    with psycopg.connect(server.url) as other:
        other.execute(f"SELECT 1 FROM \"{table}\" WHERE sid = 'held' FOR UPDATE")
        assert await store.prune(10) == 1
        assert run(f'SELECT sid FROM "{table}"') == [("held",)]
        other.execute(f"UPDATE \"{table}\" SET expire = now() + interval '1 day'")
        assert await store.prune(10) == 0
    assert (await store.all()).keys() == {"held"}


# Connections.


@pytest_twisted.ensureDeferred
async def test_idleConnectionsThatWereClosed(
    makeStore: Any, run: Any, logged: list[Any]
) -> None:
    """
    A connection that the server has closed while it was idle is replaced without
    anybody noticing, whether it is for a read or a write.
    """
    store = makeStore()
    for number in range(3):
        await gatherResults([store.set(f"{number}{n}", RECORD) for n in range(10)])
        run(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE application_name = 'txsession'"
        )
        assert await store.get(f"{number}0") == RECORD
        assert await store.create(f"{number}new", RECORD) is True
    assert store.available is True
    assert not [event for event in logged if event["log_level"].name == "warn"]


@pytest_twisted.ensureDeferred
async def test_aConnectionThatIsLostWhileAStatementIsUnderWay(
    makeStore: Any, run: Any, table: str, server: PostgreSQLServer
) -> None:
    """
    A read whose connection is lost is asked again; a write fails, as it may have
    been done, and is not repeated; the store goes on at once.
    """
    store = makeStore(connections=2)
    await store.set("a", RECORD)
    terminate = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE "
        "application_name = 'txsession' AND wait_event_type = 'Lock' AND query LIKE %s"
    )

    async def cut(word: str) -> None:
        await comesAbout(lambda: run(terminate, f"%{word}%")[0][0])

    with psycopg.connect(server.url) as other:
        other.execute(f'LOCK TABLE "{table}"')
        reading, writing = store.get("a"), store.set("a", RECORD)
        await cut("SELECT sess")
        await cut("INSERT INTO")
        with pytest.raises(StoreUnavailable, match="may or may not"):
            await writing
        assert not reading.called
    assert await reading == RECORD
    assert store.available is True
    await store.set("a", RECORD)


@pytest_twisted.ensureDeferred
async def test_aPoolOfPgbouncersMayLieBetween(makeStore: Any, run: Any) -> None:
    """
    No statement is prepared on the server, which a pooler that gives every
    transaction another connection could not serve.
    """
    store = makeStore(connections=1)
    for _ in range(20):
        await store.set("a", RECORD)
        await store.get("a")
    proxied = await store._pool.runInteraction(
        lambda cursor: cursor.execute("SELECT * FROM pg_prepared_statements").fetchall()
    )
    assert proxied == []


@pytest_twisted.ensureDeferred
async def test_noMoreConnectionsThanAllowed(makeStore: Any, run: Any) -> None:
    """
    However much is asked at once, there are no more connections, and threads, than
    the option says; and none after stop().
    """
    count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'txsession'"
    await comesAbout(lambda: run(count) == [(0,)])
    store = makeStore(connections=2)
    await store.start()
    threads = threading.active_count()
    await gatherResults([store.set(str(number), RECORD) for number in range(200)])
    assert run(count) == [(2,)]
    assert threading.active_count() <= threads + 1
    await store.stop()
    await comesAbout(lambda: run(count) == [(0,)])


@pytest_twisted.ensureDeferred
async def test_aQueueIsNoOutage(
    makeStore: Any, server: PostgreSQLServer, table: str
) -> None:
    """
    What has waited for most of its time for others that were slow times out; the
    server counts as within reach all the same.
    """
    store = makeStore(connections=1, timeout=4)
    for sid in ("slow", "late"):
        await store.set(sid, RECORD)
    locks = []
    for sid in ("slow", "late"):
        locks.append(psycopg.connect(server.url))
        locks[-1].execute(f'UPDATE "{table}" SET sess = sess WHERE sid = %s', [sid])
    slow = store.set("slow", RECORD)
    await deferLater(reactor, 0.8)
    late = store.set("late", RECORD)
    await deferLater(reactor, 2.6)
    locks[0].close()
    await slow
    with pytest.raises(StoreTimeout, match="no connection was free"):
        await late
    assert store.available is True
    locks[1].close()
    assert await store.get("late") == RECORD


@pytest_twisted.ensureDeferred
async def test_stopWaitsForWhatIsUnderWay(
    makeStore: Any, table: str, server: PostgreSQLServer
) -> None:
    """
    stop() finishes what has begun; a store that is used afterwards starts again.
    """
    store = makeStore()
    await store.start()

    def lock() -> Any:
        other = psycopg.connect(server.url)
        other.execute(f'LOCK TABLE "{table}"')
        return other

    other = await deferToThread(lock)
    writings = [store.set(str(number), RECORD) for number in range(20)]
    stopping = store.stop()
    assert not stopping.called
    other.close()
    await stopping
    assert all(writing.called for writing in writings)
    assert await store.length() == 20


@pytest_twisted.ensureDeferred
async def test_aTableThatCannotBeMadeYetKeepsNoThread(
    makeStore: Any, table: str, server: PostgreSQLServer
) -> None:
    """
    While another transaction is making the table, which may take for ever, calls
    fail in time, and the store can be stopped.
    """
    store = makeStore(timeout=0.5)
    with psycopg.connect(server.url) as other:
        other.execute(f'CREATE TABLE "{table}" (sid varchar PRIMARY KEY)')
        with pytest.raises(StoreTimeout):
            await store.set("a", RECORD)
        await patiently(store.stop())
        other.rollback()
    await store.set("a", RECORD)


@pytest_twisted.ensureDeferred
async def test_whatTimedOutBeforeItWasConnectedIsNotDone(
    makeStore: Any, monkeypatch: Any
) -> None:
    """
    A write that has failed while its thread was opening a connection is not
    carried out afterwards, when something newer may have been saved.
    """
    store = makeStore(timeout=0.5)
    await store.start()
    await store.stop()
    mayGoOn = threading.Event()
    connect = psycopg.connect

    def hold(*arguments: Any, **options: Any) -> Any:
        assert mayGoOn.wait(PATIENCE)
        return connect(*arguments, **options)

    monkeypatch.setattr(psycopg, "connect", hold)
    with pytest.raises(StoreTimeout):
        await store.set("a", RECORD)
    mayGoOn.set()
    await store.stop()
    assert await store.get("a") is None


@pytest_twisted.ensureDeferred
async def test_aProcessEndsThoughTheServerDoesNotAnswer(
    programs: Programs, table: str, server: PostgreSQLServer, makeStore: Any
) -> None:
    """
    A process in which nobody has called stop() ends, when the store has had its
    time, whatever the server does.
    """
    await makeStore().start()
    with psycopg.connect(server.url) as other:
        other.execute(f'LOCK TABLE "{table}"')
        program = programs(sys.executable, "-c", STUCK, server.url, table)
        assert await program.end() == 0, program.err


# Options and errors.


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("table", value) for value in ("", None, b"a", "a\0b", "x" * 64, "ü" * 32)),
        *(("schema", value) for value in ("", b"a", "a\0b", "x" * 64)),
        *(("connections", value) for value in (0, -1, 1.5, True, "2")),
        *(("timeout", value) for value in (0, -1, float("nan"), "5", None)),
    ],
)
def test_optionsThatMakeNoSense(option: str, value: Any) -> None:
    """
    An option's value that cannot work is refused on construction, by name.
    """
    with pytest.raises(ConfigurationError) as caught:
        PostgreSQLStore("postgresql://127.0.0.1", **{option: value})
    assert caught.value.option == option


@pytest.mark.parametrize(
    "url",
    [
        None,
        b"postgresql://ada:pa55@host/db",
        "postgresql://ada:pa55@host:port/db",
        "postgresql://ada:pa55@host:65536/db",
        "postgresql://ada:pa55@host/db?nosuch=option",
        "postgresql://ada:pa55@[host/db",
        "postgresql://ada:pa55%zz@host/db",
        "postgresql://ada:secret@pa55@host/db",
        "host=host password='pa55",
        "mysql://ada:pa55@host/db",
    ],
)
def test_urlsThatMakeNoSense(url: Any) -> None:
    """
    What is no connection string is refused on construction, and not repeated.
    """
    with pytest.raises(ConfigurationError) as caught:
        PostgreSQLStore(url)
    assert caught.value.option == "url"
    assert "pa55" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest_twisted.ensureDeferred
async def test_whatTheDatabaseRefusesIsNotRepeated(
    makeStore: Any, logged: list[Any]
) -> None:
    """
    A payload that the column cannot hold is an error whose traceback, its causes
    included, holds nothing of it.
    """
    store = makeStore()
    for payload in (b'{"pa55": nonsense}', b'"pa55 \x00"', b'"pa55 \xff"'):
        with pytest.raises(StoreError) as caught:
            await store.set("a", Record(payload, FOREVER))
        assert not isinstance(caught.value, StoreUnavailable)
        assert caught.value.__cause__ is not None
        assert "pa55" not in "".join(traceback.format_exception(caught.value))
    assert store.available is True


@pytest_twisted.ensureDeferred
async def test_anIDThatIsTooLongForTheIndex(makeStore: Any) -> None:
    """
    An ID that does not fit into the index of the table is absent, and nothing can
    be stored under it, for which the server is not to blame.
    """
    store = makeStore()
    long = token_hex(20_000)
    with pytest.raises(StoreError, match="maximum size") as caught:
        await store.set(long, RECORD)
    assert not isinstance(caught.value, StoreUnavailable)
    assert await store.get(long) is None
    assert store.available is True
