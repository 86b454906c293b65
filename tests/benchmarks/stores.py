"""
What the stores can do in a second, and what it costs, beside the bare calls of
their drivers.

    python -m tests.benchmarks.stores            # about two minutes
    python -m tests.benchmarks.stores --quick    # 20 seconds, rough

A record of 300 bytes is read (C{get}) and saved (C{replace}, which compares) by so
many at once as the table says.  The bare side does the same by the driver as its
documentation shows it, without comparing: a C{SELECT} and an C{UPDATE} by
C{adbapi}, a C{GET} and a C{SET} by txredisapi, on as many connections.  Store and
driver take turns in one process; each number is the median of all turns.  CPU is
that of this process alone, not of the server.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any

from attrs import asdict, define
from twisted.enterprise import adbapi
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react

from tests.servers import PostgreSQLServer, RedisServer
from txsession import MemoryStore, Record
from txsession.stores.postgresql import PostgreSQLStore
from txsession.stores.redis import RedisStore
from txsession.stores.sqlite import SQLiteStore

IN_FLIGHT = (1, 50, 500)
RESULTS = Path(__file__).parent / "results" / "stores.json"
HEAD = b'{"cookie":{"originalMaxAge":null,"expires":null,"path":"/"},"text":"'
EXPIRES = time.time() + 86400.0


def payload(number: int) -> bytes:
    return HEAD + (b"%06d" % number).ljust(300 - len(HEAD) - 2, b"x") + b'"}'


@define
class Side:
    """
    A store, or the driver beside it: how it reads and saves the record of an ID.
    """

    get: Callable[[str], Any]
    save: Callable[[str, int], Any]


@define
class Row:
    """
    What was measured.

    @ivar rate: operations a second.
    @ivar cpu: microseconds of CPU for each.
    @ivar ofDriver: C{rate} as a part of the driver's in the same turn.
    """

    store: str
    operation: str
    inFlight: int
    rate: float
    cpu: float
    driverRate: float
    driverCPU: float
    ofDriver: float


def ofStore(store: Any) -> Side:
    def save(sid: str, number: int) -> Any:
        old = Record(payload(number), EXPIRES)
        return store.replace(sid, Record(payload(number + 1), EXPIRES), old)

    return Side(store.get, save)


@asynccontextmanager
async def memorySides() -> AsyncIterator[tuple[Any, Side]]:
    kept: dict[str, bytes] = {}
    yield MemoryStore(), Side(kept.get, lambda sid, n: kept.update({sid: payload(n)}))


@asynccontextmanager
async def sqliteSides(durable: bool = True) -> AsyncIterator[tuple[Any, Side]]:
    with tempfile.TemporaryDirectory() as folder:
        store = SQLiteStore(f"{folder}/sessions.db", durable=durable)
        await store.start()
        level = "FULL" if durable else "NORMAL"
        pools = [
            adbapi.ConnectionPool(
                "sqlite3",
                f"{folder}/sessions.db",
                isolation_level=None,
                check_same_thread=False,
                cp_max=size,
                cp_openfun=lambda c: c.execute(f"PRAGMA synchronous = {level}"),
            )
            for size in (2, 1)
        ]
        read = "SELECT sess, expire FROM session WHERE sid = ?"
        write = "UPDATE session SET sess = ?, expire = ? WHERE sid = ?"
        yield (
            store,
            Side(
                lambda sid: pools[0].runQuery(read, (sid,)),
                lambda sid, n: pools[1].runOperation(
                    write, (payload(n), int(EXPIRES * 1000), sid)
                ),
            ),
        )
        for pool in pools:
            pool.close()
        await store.stop()


@asynccontextmanager
async def postgresqlSides() -> AsyncIterator[tuple[Any, Side]]:
    server = PostgreSQLServer()
    try:
        server.start()
        store = PostgreSQLStore(server.url, connections=5)
        await store.start()
        pool = adbapi.ConnectionPool(
            "psycopg", server.url, autocommit=True, prepare_threshold=None, cp_max=5
        )
        read = "SELECT sess::text, expire FROM session WHERE sid = %s"
        write = "UPDATE session SET sess = %s, expire = to_timestamp(%s) WHERE sid = %s"
        yield (
            store,
            Side(
                lambda sid: pool.runQuery(read, (sid,)),
                lambda sid, n: pool.runOperation(
                    write, (payload(n).decode(), EXPIRES, sid)
                ),
            ),
        )
        pool.close()
        await store.stop()
    finally:
        server.remove()


@asynccontextmanager
async def redisSides() -> AsyncIterator[tuple[Any, Side]]:
    import txredisapi

    server = RedisServer("--appendfsync", "everysec")
    try:
        server.start()
        store = RedisStore(server.url)
        await store.start()
        client = await txredisapi.Connection(
            "127.0.0.1", server.port, charset=None, convertNumbers=False
        )
        yield (
            store,
            Side(
                lambda sid: client.get(f"sess:{sid}"),
                lambda sid, n: client.set(
                    f"sess:{sid}", payload(n), pexpire=86_400_000
                ),
            ),
        )
        await client.disconnect()
        await store.stop()
    finally:
        server.remove()


STORES: dict[str, Callable[[], Any]] = {
    "memory": memorySides,
    "sqlite": sqliteSides,
    "sqlite, not durable": lambda: sqliteSides(durable=False),
    "postgresql": postgresqlSides,
    "redis": redisSides,
}


async def timed(side: Side, operation: str, inFlight: int, each: int) -> Any:
    """
    Have each of so many do an operation so many times.

    @return: seconds, and seconds of CPU, for one of them.
    """

    async def work(sid: str) -> None:
        for number in range(each):
            answer = side.get(sid) if operation == "get" else side.save(sid, number)
            if isinstance(answer, Deferred):
                answer = await answer
            assert answer is not False

    start, startCPU = time.perf_counter(), time.process_time()
    await gatherResults(
        [Deferred.fromCoroutine(work(f"sid{n}")) for n in range(inFlight)]
    )
    count = inFlight * each
    return (
        (time.perf_counter() - start) / count,
        (time.process_time() - startCPU) / count,
    )


async def measure(rounds: int, operations: int, names: list[str]) -> list[Row]:
    rows = []
    for name in names:
        async with STORES[name]() as (store, driver):
            ours = ofStore(store)
            for operation in ("get", "save"):
                for inFlight in IN_FLIGHT:
                    each = max(1, operations // inFlight)
                    turns = []
                    for turn in range(rounds + 1):
                        for n in range(inFlight):
                            await store.set(f"sid{n}", Record(payload(0), EXPIRES))
                        a = await timed(ours, operation, inFlight, each)
                        b = await timed(driver, operation, inFlight, each)
                        if turn:  # the first warms up
                            turns.append((a, b))
                    rows.append(row(name, operation, inFlight, turns))
                    print(line(rows[-1]), file=sys.stderr)
    return rows


def row(name: str, operation: str, inFlight: int, turns: list[Any]) -> Row:
    def middle(side: int, what: int) -> float:
        return median(turn[side][what] for turn in turns)

    return Row(
        name,
        operation,
        inFlight,
        rate=1 / middle(0, 0),
        cpu=middle(0, 1) * 1e6,
        driverRate=1 / middle(1, 0),
        driverCPU=middle(1, 1) * 1e6,
        ofDriver=median(b[0] / a[0] for a, b in turns),
    )


HEADING = (
    f"{'store':<20}{'':6}{'at once':>8}{'a second':>11}{'CPU us':>8}"
    f"{'driver: a second':>18}{'CPU us':>8}{'ratio':>7}"
)


def line(row: Row) -> str:
    return (
        f"{row.store:<20}{row.operation:<6}{row.inFlight:>8}{row.rate:>11,.0f}"
        f"{row.cpu:>8.0f}{row.driverRate:>18,.0f}{row.driverCPU:>8.0f}"
        f"{row.ofDriver:>7.2f}"
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.stores", description="What stores can do."
    )
    parser.add_argument("stores", nargs="*", metavar="STORE", help=", ".join(STORES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--operations", type=int, default=2000, help="in a round")
    parser.add_argument("--quick", action="store_true", help="rough, in 20 seconds")
    parser.add_argument("--json", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.operations = 2, 500
    names = options.stores or list(STORES)
    unknown = set(names) - set(STORES)
    if unknown:
        parser.error(f"no store {min(unknown)!r}; there is {', '.join(STORES)}")

    async def run(reactor: Any) -> None:
        rows = await measure(options.rounds, options.operations, names)
        print("\n".join([HEADING, *map(line, rows)]))
        options.json.parent.mkdir(parents=True, exist_ok=True)
        found = {"stores": [asdict(each) for each in rows]}
        options.json.write_text(json.dumps(found, indent=2) + "\n")

    react(run)


if __name__ == "__main__":
    main()
