"""
Backends that crash, stop, or are taken over while requests come in.
"""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import txredisapi
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from tests.servers import PostgreSQLServer, RedisServer, Sentinel, Server
from txsession import StoreTimeout, StoreUnavailable
from txsession.stores.postgresql import PostgreSQLStore
from txsession.stores.redis import RedisStore
from txsession.stores.sqlite import SQLiteStore

from ..support import Serve
from .backends import PACE, comesAbout, redisCommand, redisConnection
from .sqlite_worker import CONTENDED, COUNTED
from .traffic import RATE, Traffic, application

STORE_TIMEOUT = 2.0
"""
What the SessionResource is told, and the store half of it.
"""

SLACK = 1.0
"""
Seconds that a machine which does much else may take besides.
"""

RESUMPTION = 2.0
"""
Seconds within which the service has to resume once the server is back.
"""


def redisStore(server: RedisServer) -> RedisStore:
    return RedisStore(server.url, timeout=STORE_TIMEOUT / 2)


def postgresqlStore(server: PostgreSQLServer) -> PostgreSQLStore:
    return PostgreSQLStore(server.url, timeout=STORE_TIMEOUT / 2)


@pytest.fixture(params=["redis", "postgresql"])
def backend(request: Any) -> Iterator[tuple[Server, Any]]:
    """
    A server of one's own, and a store on it.
    """
    server: Any = RedisServer() if request.param == "redis" else PostgreSQLServer()
    try:
        server.start()
        store: Any = (redisStore if request.param == "redis" else postgresqlStore)(
            server
        )
        yield server, store
        pytest_twisted.blockon(store.stop())
    finally:
        server.remove()


@pytest.fixture
def begun(serve: Serve) -> Iterator[Callable[[Any], Any]]:
    """
    Begins traffic to a site whose sessions are in a store.
    """
    traffics = []

    async def begin(store: Any, storeTimeout: float = STORE_TIMEOUT) -> Traffic:
        served = serve(
            application, store=store, clock=reactor, storeTimeout=storeTimeout
        )
        traffic = Traffic(served.port)
        traffics.append(traffic)
        await traffic.begin()
        return traffic

    yield begin
    for traffic in traffics:
        pytest_twisted.blockon(Deferred.fromCoroutine(traffic.end()))


async def timed(work: Callable[[], None]) -> float:
    """
    Have a thread do something.

    @return: when that was done.
    """

    def run() -> float:
        work()
        now: float = reactor.seconds()
        return now

    ended: float = await deferToThread(run)
    return ended


async def checkNothingIsLost(traffic: Traffic, store: Any) -> None:
    """
    What was said to be written is there, and only what was asked for.
    """
    records = await store.all()
    assert traffic.missing(records) == []
    assert traffic.miscounted(records) == []


@pytest.mark.parametrize(
    "seconds", [3, pytest.param(20, marks=pytest.mark.slow)], ids=["short", "long"]
)
@pytest_twisted.ensureDeferred
async def test_aServerThatIsKilledLosesNothing(
    backend: tuple[Server, Any], begun: Any, seconds: int
) -> None:
    """
    The server is killed and started again in the middle of 200 requests a second:
    whatever was answered with 200 is in the store, everything else was answered
    with 503, nobody waited for longer than storeTimeout, and two seconds after the
    server's return at the latest all is well again.
    """
    server, store = backend
    traffic = await begun(store)
    began = reactor.seconds()
    traffic.start()

    await deferLater(reactor, seconds / 4)
    killed = await timed(server.kill)
    await deferLater(reactor, seconds / 10)
    assert store.available is False
    returned = await timed(server.start)
    await traffic.settled(returned)
    await until(began + seconds)
    await traffic.stop()

    assert len(traffic.answers) > seconds * RATE * 0.9
    assert {answer.status for answer in traffic.answers} == {200, 503}
    assert traffic.longest() < STORE_TIMEOUT + SLACK
    assert traffic.recovery(returned) < RESUMPTION
    assert not any(killed < a.sent < a.ended < returned for a in traffic.written())
    assert store.available is True
    await checkNothingIsLost(traffic, store)


async def until(time: float) -> None:
    await deferLater(reactor, max(0, time - reactor.seconds()))


@pytest.mark.parametrize("storeTimeout", [STORE_TIMEOUT, STORE_TIMEOUT / 4])
@pytest_twisted.ensureDeferred
async def test_aServerThatIsPausedPilesUpNothing(
    backend: tuple[Server, Any], begun: Any, storeTimeout: float
) -> None:
    """
    The server stops answering without going away: the requests of the first second
    time out, whichever of the two timeouts is the shorter, later ones are refused
    at once, neither threads nor calls pile up, and when the server goes on, so does
    the service.
    """
    server, store = backend
    traffic = await begun(store, storeTimeout)
    patience = min(storeTimeout, STORE_TIMEOUT / 2)
    traffic.start()
    await deferLater(reactor, 0.5)
    threads = threading.active_count()

    server.pause()
    await comesAbout(lambda: not store.available, STORE_TIMEOUT / 2 + SLACK)
    noticed = reactor.seconds()
    await deferLater(reactor, 1)
    # However slow this machine is, what was sent is answered without the server.
    await comesAbout(lambda: traffic.pending < RATE / 4)
    mostThreads = threading.active_count()
    resumed = reactor.seconds()
    server.resume()
    await traffic.settled(resumed)
    await traffic.stop()

    assert {answer.status for answer in traffic.answers} == {200, 503}
    assert traffic.longest() < patience + SLACK
    assert traffic.mostPending < RATE * (patience + SLACK + traffic.stalled)
    assert mostThreads <= threads + 10
    refused = [a for a in traffic.refused() if noticed < a.sent < resumed]
    assert refused
    assert min(answer.duration for answer in refused) < 0.1
    assert not any(noticed < a.sent < a.ended < resumed for a in traffic.written())
    assert traffic.recovery(resumed) < RESUMPTION
    assert store.available is True
    await checkNothingIsLost(traffic, store)


@pytest_twisted.ensureDeferred
async def test_aServerThatIsPausedIsNoticedThoughNobodyWaits(
    backend: tuple[Server, Any], logged: list[Any]
) -> None:
    """
    That a server does not answer is found out even if all who asked have given up
    before, because of a shorter storeTimeout or because their clients left; it is
    logged once, as a warning, and the attempts in vain are not.
    """
    server, store = backend
    # Connections that are idle when the server stops, for the attempts to find.
    await gatherResults([store.get("nobody") for _ in range(50)])
    server.pause()

    def isNoticed() -> bool:
        waiting = store.get("nobody").addErrback(lambda failure: None)
        reactor.callLater(STORE_TIMEOUT / 20, waiting.cancel)
        return not store.available

    await comesAbout(isNoticed)
    with pytest.raises(StoreUnavailable):
        await store.get("nobody")
    await deferLater(reactor, STORE_TIMEOUT)
    assert store.available is False
    server.resume()
    await comesAbout(lambda: store.available)
    assert await store.get("nobody") is None
    levels = [
        e["log_level"].name for e in logged if "{store}" in (e["log_format"] or "")
    ]
    assert levels == ["warn", "info"]


# Sentinel.


class Cluster:
    """
    A master, its replica, and a sentinel that watches over them.
    """

    def __init__(self) -> None:
        # Without which a master that has been relieved takes writes for as long as
        # Sentinel lets it: about eight seconds.
        self.master = RedisServer(
            *("--min-replicas-to-write", "1"), *("--min-replicas-max-lag", "2")
        )
        self.replica = RedisServer("--replicaof", "127.0.0.1", str(self.master.port))
        self.sentinel = Sentinel("main", self.master)
        self.servers = [self.master, self.replica, self.sentinel]

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self.sentinel.port}/main"

    async def start(self) -> None:
        for server in self.servers:
            await deferToThread(server.start)
        await comesAbout(lambda: any(b"+slave " in x for x in self.sentinel.output))
        await self.replicated()

    async def replicated(self) -> None:
        """
        Wait until the replica has all that has been written.
        """
        async with redisConnection(self.master.port) as connection:
            for _ in range(1000):
                # It waits for what this connection has written, and so for all
                # that was written before.
                with suppress(txredisapi.ResponseError):
                    await connection.execute_command("SET", "witness", "1")
                    if await connection.execute_command("WAIT", 1, 1000):
                        return
                await deferLater(reactor, PACE)
        raise AssertionError("the replica does not follow")

    def remove(self) -> None:
        for server in self.servers:
            server.remove()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    try:
        pytest_twisted.blockon(Deferred.fromCoroutine(cluster.start()))
        yield cluster
    finally:
        cluster.remove()


@pytest.mark.parametrize("fault", ["killed", "paused", "demoted"])
@pytest_twisted.ensureDeferred
async def test_aFailoverLosesNothingThatTheReplicaHas(
    cluster: Cluster, begun: Any, fault: str
) -> None:
    """
    The master dies, hangs, or is relieved while requests come in: the service goes
    on by itself with the one that Sentinel makes the new master, which has all that
    had reached it, and all that is written from then on.
    """
    store = RedisStore(cluster.url, timeout=STORE_TIMEOUT / 2)
    traffic = await begun(store)
    traffic.start()
    await deferLater(reactor, 1)
    reached = traffic.written()
    await cluster.replicated()

    if fault == "killed":
        await deferToThread(cluster.master.kill)
    elif fault == "paused":
        cluster.master.pause()
    else:
        await redisCommand(cluster.sentinel.port, "SENTINEL", "FAILOVER", "main")
    await comesAbout(
        lambda: any(b"+switch-master" in x for x in cluster.sentinel.output)
    )
    if fault == "demoted":
        await comesAbout(lambda: traffic.refused())
    switched = reactor.seconds()
    await traffic.settled(switched)
    if fault == "paused":
        # A master that wakes up as one, for as long as it takes Sentinel to notice.
        cluster.master.resume()
        await deferLater(reactor, 1)
    await traffic.stop()

    assert {answer.status for answer in traffic.answers} == {200, 503}
    assert traffic.longest() < STORE_TIMEOUT + SLACK
    assert traffic.recovery(switched) < RESUMPTION + SLACK
    assert (await redisCommand(cluster.replica.port, "ROLE"))[0] == b"master"
    replica = RedisStore(cluster.replica.url)
    records = await replica.all()
    await replica.stop()
    safe = [a for a in traffic.written() if a in reached or a.sent > switched]
    missing = traffic.missing(records)
    assert [answer for answer in safe if answer in missing] == []
    await store.stop()


# SQLite.


def worker(path: Path, task: str, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.stores.sqlite_worker", str(path), task, name],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


@pytest_twisted.ensureDeferred
async def test_aProcessThatIsKilledLosesNothingItSavedInAnSQLiteFile(
    tmp_path: Path,
) -> None:
    """
    Three processes, one after the other, are killed while they save: all that was
    acknowledged is in the file, and it is in order.
    """
    path = tmp_path / "sessions.db"
    acknowledged = set()
    for name in "abc":
        process = worker(path, "save", name)
        lines = islice(process.stdout, 300)
        acknowledged |= set(await deferToThread(list, lines))
        process.kill()
        acknowledged |= set(await deferToThread(list, process.stdout))
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
    assert len(acknowledged) >= 900

    store = SQLiteStore(path)
    records = await store.all()
    assert {line.strip() for line in acknowledged} <= records.keys()
    assert all(json.loads(r.payload) == sid for sid, r in records.items())
    await store.stop()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest_twisted.ensureDeferred
async def test_processesShareAnSQLiteFile(tmp_path: Path) -> None:
    """
    Three processes open a file that is not there yet, create the same sessions, and
    count in one: none fails, each session is created by exactly one of them, and no
    count is lost.
    """
    path = tmp_path / "sessions.db"
    processes = {name: worker(path, "contend", name) for name in "abc"}
    outputs = await gatherResults(
        [deferToThread(process.communicate) for process in processes.values()]
    )
    assert [process.returncode for process in processes.values()] == [0, 0, 0]

    store = SQLiteStore(path)
    records = {sid: json.loads(r.payload) for sid, r in (await store.all()).items()}
    await store.stop()
    assert records.pop("counter") == 3 * COUNTED
    winners = {
        f"contended-{line.split()[1]}": name
        for name, (output, _) in zip(processes, outputs, strict=True)
        for line in output.splitlines()
        if line.startswith("created")
    }
    assert records == winners
    assert len(winners) == CONTENDED
    created = [output.count("created") for output, _ in outputs]
    assert sum(created) == CONTENDED


@pytest_twisted.ensureDeferred
async def test_aFullDiskLosesNothingThatWasSaved(tmp_path: Path) -> None:
    """
    Where an SQLite file can grow no more, saving fails with StoreUnavailable; what
    was saved before is there, and when there is room again, saving works again.
    """
    path = tmp_path / "sessions.db"
    process = worker(path, "fill", "a")
    output, _ = await deferToThread(process.communicate)
    assert process.returncode == 0
    lines = [line.partition(" ") for line in output.splitlines()]
    [full] = [rest for word, _, rest in lines if word == "full"]
    assert full.startswith("SQLite: ")
    saved = {rest for word, _, rest in lines if word == "saved"}
    assert len(saved) > 5
    store = SQLiteStore(path)
    assert (await store.all()).keys() == saved
    await store.stop()


@pytest_twisted.ensureDeferred
async def test_aConnectionIsNoProofThatTheServerAnswers(
    backend: tuple[Server, Any], logged: list[Any]
) -> None:
    """
    A server that is paused stays out of reach, although there are idle connections
    to it, until it has answered on one.
    """
    server, store = backend
    await gatherResults([store.get("nobody") for _ in range(50)])
    server.pause()
    with pytest.raises(StoreTimeout):
        await store.get("nobody")
    await deferLater(reactor, STORE_TIMEOUT / 2)
    told = [e["log_level"].name for e in logged if e.get("store") == repr(store)]
    server.resume()
    await comesAbout(lambda: store.available)
    assert told == ["warn"]
