"""
What is special to `txsession.stores.redis.RedisStore`.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
import pytest_twisted
import txredisapi
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.logger import formatEvent

from tests.servers import RedisServer, Sentinel, freePort
from txsession import (
    ConfigurationError,
    Record,
    StoreError,
    StoreTimeout,
    StoreUnavailable,
    getSession,
)
from txsession.stores.redis import RedisStore

from ..support import Serve, patiently
from .backends import Monitor, Proxy, comesAbout, redisCommand, redisConnection
from .certificates import Authority

FOREVER = 32_000_000_000.0
RECORD = Record(b'{"cookie":{}}', FOREVER)
PASSWORD = "pa55:w%rd/@#?"
QUOTED = "pa55:w%25rd%2F%40%23%3F"


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """
    A server of which the tests here may ask anything.
    """
    server = RedisServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def ownServer() -> Iterator[Callable[..., RedisServer]]:
    """
    Starts servers with arguments of their own, for one test.
    """
    servers = []

    def start(*arguments: str) -> RedisServer:
        servers.append(RedisServer(*arguments))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.remove()


@pytest.fixture
def prefix() -> str:
    return f"{token_hex(8)}:"


@pytest.fixture
def makeStore(server: RedisServer, prefix: str) -> Iterator[Callable[..., RedisStore]]:
    """
    Makes stores, with a prefix that only this test uses, and stops them.
    """
    stores = []

    def make(url: Any = server.url, **options: Any) -> RedisStore:
        stores.append(RedisStore(url, **{"prefix": prefix, **options}))
        return stores[-1]

    yield make
    for store in stores:
        pytest_twisted.blockon(store.stop())


@asynccontextmanager
async def monitored(server: RedisServer) -> AsyncIterator[Monitor]:
    monitor = await Monitor.of(server.port)
    try:
        yield monitor
    finally:
        await monitor.close()


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
    server: RedisServer, makeStore: Any, serve: Serve
) -> None:
    """
    A load is one command and one round trip, and so are a save, a touch and the
    destruction of a session, once the scripts are known to the server.
    """
    proxy = Proxy(server.port)
    store = makeStore(f"redis://127.0.0.1:{proxy.port}")
    browser = serve(visit, store=store, clock=reactor).browser()
    for path in ("/write", "/write"):
        await browser.post(path)
    async with monitored(server) as monitor:

        async def asked(path: str) -> tuple[list[str], int]:
            before = proxy.roundTrips
            assert (await browser.post(path)).status == 200
            # One more, behind what no response waits for.
            await store.get("nobody")
            return (await monitor.commands())[:-1], proxy.roundTrips - before - 1

        assert await asked("/read") == (["EVALSHA"], 1)
        assert await asked("/write") == (["EVALSHA"] * 2, 2)
        assert await asked("/touch") == (["EVALSHA", "PEXPIREAT"], 2)
        assert await asked("/destroy") == (["EVALSHA", "DEL"], 2)
        assert (await asked("/nothing"))[1] == 0
        browser.cookies.clear()
        await asked("/write")
        browser.cookies.clear()
        assert await asked("/write") == (["EVALSHA"], 1)
    await proxy.close()


@pytest_twisted.ensureDeferred
async def test_scriptsThatTheServerHasForgotten(
    server: RedisServer, makeStore: Any
) -> None:
    """
    After SCRIPT FLUSH, and after a restart of the server, everything works as
    before, each script being sent once more.
    """
    store = makeStore()
    assert await store.create("a", RECORD) is True
    assert await store.get("a") == RECORD
    await redisCommand(server.port, "SCRIPT", "FLUSH")
    async with monitored(server) as monitor:
        assert await store.get("a") == RECORD
        assert await store.get("a") == RECORD
        assert await monitor.commands() == ["EVALSHA", "EVAL", "EVALSHA"]
    assert await store.create("a", RECORD) is False
    assert await store.replace("a", RECORD, RECORD) is True


# What is stored.


@pytest_twisted.ensureDeferred
async def test_theLayoutIsConnectRediss(server: RedisServer) -> None:
    """
    A session is a string under "sess:" and its ID, with a time to live: what
    connect-redis writes is read, and the other way about.
    """
    store = RedisStore(server.url)
    sid = token_hex(8)
    await redisCommand(server.port, "SET", f"sess:{sid}", b'{"a":"\xc3\xbc"}', "EX", 50)
    found = await store.get(sid)
    assert found.payload == '{"a":"ü"}'.encode()
    assert 40 < found.expires - time.time() <= 50
    expires = time.time() + 70.123
    await store.set(sid, Record(b'{"b":1}', expires))
    assert await redisCommand(server.port, "GET", f"sess:{sid}") == b'{"b":1}'
    left = await redisCommand(server.port, "PTTL", f"sess:{sid}")
    assert 60_000 < left <= 70_124
    assert abs((await store.get(sid)).expires - expires) < 0.001
    await store.destroy(sid)
    await store.stop()


@pytest.mark.parametrize(
    "special", ["", "a*b:", "a?b:", "[ab]:", "[^a]:", "a-b:", "\\", "ü:", "{a}:", "%s "]
)
@pytest_twisted.ensureDeferred
async def test_prefixesAreTakenLiterally(
    server: RedisServer, makeStore: Any, special: str, prefix: str
) -> None:
    """
    Whatever the prefix is made of: what has it is found, counted and cleared, and
    nothing else is, not even what it would match as a pattern.
    """
    others = [f"{prefix}{other}1" for other in ("axb:", "a:", "aab:", "\\*", "b:")]
    others = [other for other in others if not other.startswith(prefix + special)]
    for other in others:
        await redisCommand(server.port, "SET", other, "{}")
    store = makeStore(prefix=prefix + special)
    await store.set("1", RECORD)
    await store.set("*", RECORD)
    async with monitored(server) as monitor:
        if special:
            assert await store.all() == {"1": RECORD, "*": RECORD}
            assert await store.length() == 2
        await store.clear()
        commands = set(await monitor.commands())
    assert commands <= {"SCAN", "EVAL", "EVALSHA", "DEL"}
    assert "SCAN" in commands
    assert await store.length() == 0
    for other in others:
        assert await redisCommand(server.port, "EXISTS", other) == bool(special)


@pytest_twisted.ensureDeferred
async def test_manySessionsAreFoundInBatches(
    server: RedisServer, makeStore: Any
) -> None:
    """
    Thousands of sessions are listed and cleared in many commands, each bounded.
    """
    store = makeStore()
    names = {str(number) for number in range(3000)}
    await gatherResults([store.set(name, RECORD) for name in names])
    assert (await store.all()).keys() == names
    async with monitored(server) as monitor:
        await store.clear()
        assert (await monitor.commands()).count("DEL") > 3
    assert await store.length() == 0


@pytest_twisted.ensureDeferred
async def test_countingFetchesNoSessions(server: RedisServer, makeStore: Any) -> None:
    """
    What the sessions hold stays where it is when they are only counted.
    """

    async def sent() -> int:
        statistics = await redisCommand(server.port, "INFO", "stats")
        found = re.search(r"total_net_output_bytes:(\d+)", str(statistics))
        assert found is not None
        return int(found[1])

    store = makeStore()
    large = Record(b'"%s"' % (b"x" * 100_000), FOREVER)
    await gatherResults([store.set(str(number), large) for number in range(20)])
    before = await sent()
    assert await store.length() == 20
    assert await sent() - before < 100_000


@pytest_twisted.ensureDeferred
async def test_keysWithoutATimeToLive(
    server: RedisServer, makeStore: Any, prefix: str
) -> None:
    """
    A key that somebody else has made to last for ever is a session that does, until
    it is touched.
    """
    store = makeStore()
    await redisCommand(server.port, "SET", f"{prefix}a", "{}")
    found = await store.get("a")
    assert found == Record(b"{}", 253_402_300_799.0)
    assert await store.all() == {"a": found}
    assert await store.create("a", RECORD) is False
    expires = time.time() + 10
    await store.touch("a", expires)
    assert abs((await store.get("a")).expires - expires) < 0.001
    assert await store.replace("a", RECORD, found) is True


@pytest_twisted.ensureDeferred
async def test_keysOfAnotherType(
    server: RedisServer, makeStore: Any, prefix: str
) -> None:
    """
    What is under the prefix and no string is nobody's session: to ask for it is an
    error, to list sessions is not.
    """
    store = makeStore()
    await redisCommand(server.port, "RPUSH", f"{prefix}list", "a")
    await redisCommand(server.port, "SET", f"{prefix}".encode() + b"\xff", "{}")
    await store.set("a", RECORD)
    with pytest.raises(StoreError, match="WRONGTYPE") as caught:
        await store.get("list")
    assert not isinstance(caught.value, StoreUnavailable)
    assert await store.all() == {"a": RECORD}
    assert await store.create("list", RECORD) is False
    with pytest.raises(StoreError, match="WRONGTYPE"):
        await store.replace("list", RECORD, RECORD)
    assert await redisCommand(server.port, "TYPE", f"{prefix}list") in (b"list", "list")


# Where the server is.


@pytest_twisted.ensureDeferred
async def test_aDatabaseOfItsOwn(
    server: RedisServer, makeStore: Any, prefix: str
) -> None:
    """
    The number in the URL says in which database the sessions are.
    """
    third, first = makeStore(f"{server.url}/3"), makeStore()
    await third.set("a", RECORD)
    assert await first.get("a") is None
    assert await makeStore(f"{server.url}/3").get("a") == RECORD
    assert await third.length() == 1
    assert await first.length() == 0


@pytest_twisted.ensureDeferred
async def test_aDatabaseThatThereIsNot(server: RedisServer, makeStore: Any) -> None:
    """
    A number that the server does not have makes the store unavailable, and why is
    said.
    """
    store = makeStore(f"{server.url}/4711")
    with pytest.raises(StoreUnavailable, match="4711: ERR DB index is out of range"):
        await store.start()
    assert store.available is False


@pytest_twisted.ensureDeferred
async def test_aSocket(server: RedisServer, makeStore: Any) -> None:
    """
    redis+unix:// leads to a socket, and to a database there.
    """
    store = makeStore(f"redis+unix://{server.socket}?database=2")
    await store.set("a", RECORD)
    assert await makeStore(f"{server.url}/2").get("a") == RECORD
    gone = makeStore(f"redis+unix://{server.socket}.not")
    with pytest.raises(StoreUnavailable, match=r"No such file|not exist|file.*socket"):
        await gone.get("a")
    assert gone.available is False


@pytest_twisted.ensureDeferred
async def test_aPassword(ownServer: Any, makeStore: Any, logged: list[Any]) -> None:
    """
    The password of the URL opens the server.  A wrong one, or none, makes the store
    unavailable, of which it recovers by itself when the server changes its mind;
    neither errors nor logs ever hold it.
    """
    server = ownServer("--requirepass", PASSWORD)
    base = f"127.0.0.1:{server.port}"
    store = makeStore(f"redis://:{QUOTED}@{base}/1")
    await store.set("a", RECORD)
    assert await store.get("a") == RECORD

    refused = [
        makeStore(f"redis://:0ther{QUOTED}@{base}"),
        makeStore(f"redis://{base}"),
    ]
    for each, problem in zip(refused, ("WRONGPASS|invalid", "NOAUTH"), strict=True):
        with pytest.raises(StoreError, match=problem) as caught:
            await each.get("a")
        assert isinstance(caught.value, StoreUnavailable), caught.value
        assert each.available is False
        assert "pa55" not in f"{each!r} {caught.value!r} {caught.value.__cause__!r}"
    assert "pa55" not in repr(store)

    async with authenticated(server) as connection:
        await connection.execute_command(
            "CONFIG", "SET", "requirepass", f"0ther{PASSWORD}"
        )
    await comesAbout(lambda: refused[0].available)
    assert await refused[0].get("a") is None
    assert "pa55" not in texts(logged)


def texts(events: list[Any]) -> str:
    """
    All that was logged, with its fields and its tracebacks.
    """
    return "\n".join(f"{formatEvent(event)} {event!r}" for event in events)


@asynccontextmanager
async def authenticated(server: RedisServer) -> AsyncIterator[Any]:
    async with redisConnection(server.port) as connection:
        await connection.auth(PASSWORD)
        yield connection


@pytest_twisted.ensureDeferred
async def test_aUserOfRedis6(
    server: RedisServer, makeStore: Any, prefix: str, logged: list[Any]
) -> None:
    """
    A user that may use only the keys with the prefix, and only the commands that
    the store needs, suffices.
    """
    user = f"ada-{token_hex(4)}"
    await redisCommand(
        server.port,
        *("ACL", "SETUSER", user, "on", f">{PASSWORD}", f"~{prefix}*", "-@all"),
        *("+eval", "+evalsha", "+get", "+set", "+exists", "+pexpireat", "+pttl"),
        *("+time", "+del", "+scan", "+ping", "+select"),
    )
    store = makeStore(f"redis://{user}:{QUOTED}@127.0.0.1:{server.port}/0")
    assert await store.create("a", RECORD) is True
    assert await store.replace("a", RECORD, RECORD) is True
    await store.set("b", RECORD)
    await store.touch("b", FOREVER - 1)
    assert await store.all() == {"a": RECORD, "b": Record(RECORD.payload, FOREVER - 1)}
    await store.destroy("a")
    await store.clear()
    other = makeStore(f"redis://{user}:{QUOTED}@127.0.0.1:{server.port}", prefix="no:")
    with pytest.raises(StoreError, match=r"NOPERM|permission"):
        await other.get("a")
    wrong = makeStore(f"redis://{user}:nope@127.0.0.1:{server.port}")
    with pytest.raises(StoreUnavailable, match="WRONGPASS"):
        await wrong.start()
    assert "pa55" not in texts(logged)


# TLS.


@pytest.fixture
def tls(server: RedisServer, tmp_path: Path) -> Iterator[Any]:
    """
    Puts something that speaks TLS in front of the server, with a certificate for
    some host, and gives its URL.
    """
    proxies = []
    authority = Authority()
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    (tmp_path / "other.pem").write_bytes(Authority().pem)

    def make(certified: str, host: str, caFile: str | None = "ca.pem") -> str:
        proxies.append(Proxy(server.port, authority.context(certified, tmp_path)))
        query = "" if caFile is None else f"?caFile={tmp_path / caFile}"
        return f"rediss://{host}:{proxies[-1].port}/0{query}"

    yield make
    for proxy in proxies:
        pytest_twisted.blockon(Deferred.fromCoroutine(proxy.close()))


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
@pytest_twisted.ensureDeferred
async def test_tls(makeStore: Any, tls: Any, host: str) -> None:
    """
    rediss:// speaks TLS with a server whose certificate is for its host and from
    the authority that was named.
    """
    store = makeStore(tls(host, host))
    await store.set("a", RECORD)
    assert await makeStore().get("a") == RECORD


@pytest.mark.parametrize(
    ("certified", "caFile"),
    [("localhost", "other.pem"), ("localhost", None), ("example.com", "ca.pem")],
)
@pytest_twisted.ensureDeferred
async def test_tlsWithTheWrongServer(
    makeStore: Any, tls: Any, certified: str, caFile: str | None
) -> None:
    """
    A certificate from another authority, or for another host, is not taken.
    """
    store = makeStore(tls(certified, "localhost", caFile))
    with pytest.raises(StoreUnavailable):
        await store.get("a")
    assert store.available is False


@pytest_twisted.ensureDeferred
async def test_tlsWithAServerThatDoesNotSpeakIt(
    server: RedisServer, makeStore: Any
) -> None:
    """
    A server without TLS is not spoken to without it.
    """
    store = makeStore(f"rediss://localhost:{server.port}", timeout=1)
    with pytest.raises(StoreUnavailable):
        await store.get("a")


class Mute(Protocol):
    """
    A server that says hello, and does not even listen any longer then.
    """

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(b"+PONG\r\n")
        self.transport.pauseProducing()


@pytest_twisted.ensureDeferred
async def test_stopOverTLSDoesNotWaitForAServerThatDoesNotAnswer(
    makeStore: Any, tmp_path: Path
) -> None:
    """
    stop() does not wait for a server that has stopped to end a connection over TLS.
    """
    authority = Authority()
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    mute, factory = Mute(), Factory()
    factory.buildProtocol = lambda _: mute
    context = authority.context("localhost", tmp_path)
    port = reactor.listenSSL(0, factory, context, interface="127.0.0.1")
    url = f"rediss://localhost:{port.getHost().port}?caFile={tmp_path / 'ca.pem'}"
    store = makeStore(url)
    await store.start()
    await patiently(store.stop())
    mute.transport.abortConnection()
    await port.stopListening()


def test_aCertificateAuthorityThatCannotBeRead(tmp_path: Path) -> None:
    """
    A caFile that is missing, or is none, is found out on construction.
    """
    (tmp_path / "empty.pem").write_bytes(b"nothing")
    for name in ("missing.pem", "empty.pem"):
        with pytest.raises(ConfigurationError, match="caFile") as caught:
            RedisStore(f"rediss://localhost?caFile={tmp_path / name}")
        assert name in str(caught.value)


# Clients of others.


@pytest.mark.parametrize(
    "make",
    [
        lambda server: txredisapi.lazyConnection("127.0.0.1", server.port),
        lambda server: txredisapi.Connection("127.0.0.1", server.port),
        lambda server: txredisapi.ConnectionPool("127.0.0.1", server.port, poolsize=3),
        lambda server: txredisapi.lazyUnixConnection(server.socket),
        lambda server: txredisapi.UnixConnection(server.socket),
        lambda server: txredisapi.lazyConnection(
            "127.0.0.1", server.port, charset="latin-1"
        ),
        lambda server: txredisapi.lazyConnection(
            "127.0.0.1", server.port, charset=None, convertNumbers=False
        ),
    ],
    ids=["lazy", "connected", "pool", "lazy-unix", "unix", "latin-1", "bytes"],
)
@pytest_twisted.ensureDeferred
async def test_aClientOfTxredisapi(
    server: RedisServer, makeStore: Any, make: Any
) -> None:
    """
    A client that somebody else has made serves as well, however it turns answers
    into Python's types; to disconnect it is left to them.
    """
    client = make(server)
    if not isinstance(client, txredisapi.ConnectionHandler):
        client = await client
    store = makeStore(client)
    await store.start()
    assert store.available is True
    payloads = [
        '{"a":"ü\u2028","b":1.50}'.encode(),
        b"007",
        b"1.50",
        b"-",
        b"",
        b"\xff\x00\xfe",
        b"x" * 100_000,
    ]
    for number, payload in enumerate(payloads):
        record = Record(payload, FOREVER)
        assert await store.create(f"ü{number}", record) is True
        assert await store.get(f"ü{number}") == record
        assert await store.replace(f"ü{number}", record, record) is True
    found = await store.all()
    assert found == {f"ü{n}": Record(p, FOREVER) for n, p in enumerate(payloads)}
    await store.touch("ü0", FOREVER - 1)
    assert (await store.get("ü0")).expires == FOREVER - 1
    await store.clear()
    assert await store.length() == 0
    await store.stop()
    assert await client.ping() in ("PONG", b"PONG")
    await client.disconnect()
    assert store.available is False
    with pytest.raises(StoreUnavailable):
        await store.get("a")


@pytest.mark.parametrize("replyTimeout", [None, 0.3])
@pytest_twisted.ensureDeferred
async def test_aClientWhoseServerHangs(
    ownServer: Any, makeStore: Any, replyTimeout: float | None
) -> None:
    """
    That a client of somebody else's has a server that does not answer is found out
    after the timeout; then one command alone waits until it does, and all others
    fail at once.
    """
    server = ownServer()
    client = await txredisapi.Connection(
        "127.0.0.1", server.port, replyTimeout=replyTimeout
    )
    store = makeStore(client, timeout=0.5)
    await store.set("a", RECORD)
    server.pause()
    for call in [store.get("a"), store.set("b", RECORD)]:
        with pytest.raises(StoreTimeout):
            await call
    if replyTimeout is None:
        for call in [store.get("a") for _ in range(1000)]:
            assert call.called
            with pytest.raises(StoreUnavailable):
                await call
        assert store.available is False
        assert len(client._factory.pool[0].replyQueue.waiting) == 3
    server.resume()
    await comesAbout(lambda: store.available)
    await store.set("a", RECORD)
    assert await store.get("a") == RECORD
    await client.disconnect()


@pytest_twisted.ensureDeferred
async def test_aClientThatHasYetToConnect(ownServer: Any, makeStore: Any) -> None:
    """
    A client that has never been connected is waited for only so long, and only
    once; when it is connected, the store is available.
    """
    server = ownServer()
    await deferToThread(server.kill)
    client = txredisapi.lazyConnection("127.0.0.1", server.port)
    store = makeStore(client, timeout=0.2)
    with pytest.raises(StoreTimeout):
        await store.get("a")
    assert store.available is False
    with pytest.raises(StoreUnavailable):
        await store.get("a")
    await deferToThread(server.start)
    await comesAbout(lambda: store.available)
    await store.set("a", RECORD)
    await client.disconnect()


def test_whatIsNoClient() -> None:
    """
    The Deferred that Connection() gives has to be awaited first; that is said.
    """
    for value in (None, b"redis://", object(), 6379):
        with pytest.raises(ConfigurationError, match=r"await Connection\(\)"):
            RedisStore(value)


def test_withoutHiredis(server: RedisServer, tmp_path: Path) -> None:
    """
    Where hiredis is not installed, txredisapi's own parser does.
    """
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\n"
        "sys.modules['hiredis'] = None\n"
        "from twisted.internet.task import react\n"
        "from twisted.internet.defer import ensureDeferred, gatherResults\n"
        "from txsession import Record\n"
        "from txsession.stores.redis import RedisStore\n"
        "async def main(reactor):\n"
        "    store = RedisStore(sys.argv[1], prefix='without hiredis:')\n"
        "    names = [str(n) for n in range(300)]\n"
        "    payloads = [b'x\\r\\n' * n + b'\\xff\\x00' for n in range(300)]\n"
        "    payloads[0] = b'x' * 1_000_000\n"
        "    records = [Record(p, 32_000_000_000.0) for p in payloads]\n"
        "    await gatherResults([store.set(n, r) for n, r in zip(names, records)])\n"
        "    found = await gatherResults([store.get(n) for n in names])\n"
        "    assert found == records\n"
        "    assert await store.all() == dict(zip(names, records))\n"
        "    assert await store.get('other') is None\n"
        "    assert await store.create('0', records[1]) is False\n"
        "    assert await store.replace('0', records[1], records[0]) is True\n"
        "    assert await store.length() == 300\n"
        "    await store.clear()\n"
        "    assert await store.all() == {}\n"
        "    await store.stop()\n"
        "react(lambda reactor: ensureDeferred(main(reactor)))\n"
    )
    done = subprocess.run(
        [sys.executable, program, server.url],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert (done.returncode, done.stderr) == (0, "")


# Errors of the server.


@pytest_twisted.ensureDeferred
async def test_aServerWithoutMemory(ownServer: Any, makeStore: Any) -> None:
    """
    A server that may take no more is unavailable to those who write; what it has
    can still be read.
    """
    server = ownServer()
    store = makeStore(server.url)
    await store.set("a", RECORD)
    await redisCommand(server.port, "CONFIG", "SET", "maxmemory", "1")
    for writing in (store.set("b", RECORD), store.replace("a", RECORD, RECORD)):
        with pytest.raises(StoreUnavailable, match="OOM"):
            await writing
    assert await store.get("a") == RECORD
    assert store.available is True
    await redisCommand(server.port, "CONFIG", "SET", "maxmemory", "0")
    await store.set("b", RECORD)


@pytest_twisted.ensureDeferred
async def test_aServerThatBecomesAReplica(ownServer: Any, makeStore: Any) -> None:
    """
    A server that only reads any more is unavailable to those who write, until it
    is a master again.
    """
    server = ownServer()
    store = makeStore(server.url)
    await store.set("a", RECORD)
    await redisCommand(server.port, "REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(StoreUnavailable, match="READONLY"):
        await store.set("b", RECORD)
    await redisCommand(server.port, "REPLICAOF", "NO", "ONE")
    await comesAbout(lambda: store.available)
    await store.set("b", RECORD)


@pytest_twisted.ensureDeferred
async def test_aServerThatIsStillLoading(ownServer: Any, makeStore: Any) -> None:
    """
    A server that has yet to read what it stored is not available before it has;
    then it is, by itself, with all that was stored.
    """
    server = ownServer("--aof-use-rdb-preamble", "no", "--key-load-delay", "500")
    store = makeStore(server.url)
    await store.set("a", RECORD)
    # It answers, while it loads, after every thousand commands.
    many = "for number = 1, 4000 do redis.call('SET', number, '') end"
    await redisCommand(server.port, "EVAL", many, 0)
    await deferToThread(server.kill)
    await comesAbout(lambda: not store.available)
    starting = deferToThread(server.start)
    reasons: set[str] = set()

    def isThere() -> bool:
        store.get("a").addErrback(lambda failure: reasons.add(str(failure.value)))
        return bool(store.available)

    await comesAbout(isThere)
    await starting
    assert any("LOADING" in reason for reason in reasons), reasons
    assert await store.get("a") == RECORD


# Its life.


@pytest.mark.parametrize("operation", ["all", "length", "clear"])
@pytest_twisted.ensureDeferred
async def test_stopWaitsForWhatIsUnderWay(
    server: RedisServer, makeStore: Any, operation: str
) -> None:
    """
    stop() finishes what has begun, even what takes many commands, and leaves no
    connection; a store that is used afterwards starts again.
    """
    proxy = Proxy(server.port)
    store = makeStore(f"redis://127.0.0.1:{proxy.port}", connections=2)
    await gatherResults([store.set(str(number), RECORD) for number in range(1500)])
    begun = getattr(store, operation)()
    await store.stop()
    assert begun.called
    await comesAbout(lambda: not proxy.connections)
    assert await store.length() == (0 if operation == "clear" else 1500)
    assert proxy.connections
    await store.stop()
    await comesAbout(lambda: not proxy.connections)
    await proxy.close()


@pytest_twisted.ensureDeferred
async def test_stopWithoutAServer(makeStore: Any, ownServer: Any) -> None:
    """
    A store whose server is gone can be stopped, and stays so.
    """
    server = ownServer()
    store = makeStore(server.url)
    await store.start()
    await deferToThread(server.kill)
    await comesAbout(lambda: not store.available)
    await store.stop()
    await deferToThread(server.start)
    commands = await redisCommand(server.port, "CLIENT", "LIST")
    assert commands.count(b"id=") == 1


@pytest_twisted.ensureDeferred
async def test_connectionsAreUsedInTurn(server: RedisServer, makeStore: Any) -> None:
    """
    With several connections, what is asked is spread over them.
    """
    proxy = Proxy(server.port)
    store = makeStore(f"redis://127.0.0.1:{proxy.port}", connections=3)
    await store.start()
    await comesAbout(lambda: len(proxy.connections) == 6)
    asking = [store.set(str(number), RECORD) for number in range(30)]
    await gatherResults(asking)
    assert await store.length() == 30
    await store.stop()
    await proxy.close()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("prefix", b"sess:"),
        ("prefix", None),
        *(("connections", value) for value in (0, -1, 1.5, True, "2")),
        *(("timeout", value) for value in (0, -1, float("nan"), "5", None)),
    ],
)
def test_optionsThatMakeNoSense(option: str, value: Any) -> None:
    """
    An option's value that cannot work is refused on construction, by name.
    """
    with pytest.raises(ConfigurationError) as caught:
        RedisStore("redis://127.0.0.1", **{option: value})
    assert caught.value.option == option


# Sentinel; what happens when a master fails is in test_faults.


@pytest_twisted.ensureDeferred
async def test_sentinelsWithPasswords(
    ownServer: Any, makeStore: Any, logged: list[Any]
) -> None:
    """
    The sentinels are asked one after the other until one answers; they and the
    master may each have a password, and no error or log holds one.
    """
    master = ownServer("--requirepass", PASSWORD)
    sentinel = Sentinel("main", master)
    with sentinel.configuration.open("a") as file:
        file.write(f'requirepass "s{PASSWORD}"\nsentinel auth-pass main "{PASSWORD}"\n')
    await deferToThread(sentinel.start)
    hosts = f"127.0.0.1:{freePort()},127.0.0.1:{sentinel.port}"
    credentials = f"sentinelPassword=s{QUOTED}"
    store = makeStore(f"redis+sentinel://:{QUOTED}@{hosts}/main/1?{credentials}")
    await store.set("a", RECORD)
    assert await store.get("a") == RECORD

    for url, problem in (
        (f"redis+sentinel://:{QUOTED}@{hosts}/main/1", "NOAUTH"),
        (f"redis+sentinel://:{QUOTED}@{hosts}/other?{credentials}", "'other'"),
        (f"redis+sentinel://:x{QUOTED}@{hosts}/main?{credentials}", "WRONGPASS|auth"),
        (f"redis+sentinel://127.0.0.1:{freePort()}/main", "no sentinel names"),
    ):
        refused = makeStore(url)
        with pytest.raises(StoreUnavailable, match=problem) as caught:
            await refused.get("a")
        assert refused.available is False
        assert "pa55" not in f"{caught.value} {caught.value.__cause__!r}"
    assert "pa55" not in texts(logged)
    await deferToThread(sentinel.remove)


@pytest_twisted.ensureDeferred
async def test_aSentinelThatIsBehindTheTimes(ownServer: Any, makeStore: Any) -> None:
    """
    A server that Sentinel names and that is no master is not used until it is.
    """
    server = ownServer("--replicaof", "127.0.0.1", str(freePort()))

    class Outdated(Protocol):
        def dataReceived(self, data: bytes) -> None:
            port = str(server.port).encode()
            answer = b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%s\r\n" % (len(port), port)
            self.transport.write(answer)

    listening: Any = reactor.listenTCP(
        0, Factory.forProtocol(Outdated), interface="127.0.0.1"
    )
    store = makeStore(f"redis+sentinel://127.0.0.1:{listening.getHost().port}/main")
    with pytest.raises(StoreUnavailable, match="not a master"):
        await store.set("a", RECORD)
    await redisCommand(server.port, "REPLICAOF", "NO", "ONE")
    await comesAbout(lambda: store.available)
    await store.set("a", RECORD)
    await store.stop()
    await listening.stopListening()
