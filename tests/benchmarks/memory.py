"""
Memory: of a stored session, and of a server that has served many requests.

C{python -m tests.benchmarks.memory COUNT resident|traced} prints the bytes of
memory that each of so many sessions takes; it is meant for a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import tracemalloc
from typing import Any

from attrs import asdict, frozen

from txsession import MemoryStore, Record

from .client import ROOT, Server, request, serving
from .hotspots import Harness
from .overhead import Progress
from .server import residentBytes

TARGET = 800
"""
The most bytes that a stored session may take.
"""

CONNECTIONS = 4
BLOCK = 500
PAGES = ["temp/untouched", "temp/created", "kept/read", "kept/incremented"]


@frozen
class Stored:
    """
    Bytes of memory that one of many sessions takes.

    @ivar payload: how long its document is.
    @ivar resident: as the process's resident memory grew.
    @ivar traced: as C{tracemalloc} counted.
    """

    sessions: int
    payload: int
    resident: float
    traced: float

    def asJSON(self) -> dict[str, Any]:
        return {**asdict(self), "target": TARGET}


@frozen
class Flat:
    """
    What is left of many requests in a process without garbage collection.

    @ivar growth: by how many bytes its resident memory grew.
    @ivar unreachable: how many objects a garbage collection then found.
    """

    requests: int
    growth: float
    unreachable: float

    def asJSON(self) -> dict[str, Any]:
        return asdict(self)


def stored(sessions: int) -> Stored:
    """
    Measure so many stored sessions, in two processes: tracing takes memory itself.
    """
    resident = inProcess(sessions, "resident")
    traced = inProcess(sessions, "traced")
    return Stored(sessions, resident["payload"], resident["bytes"], traced["bytes"])


def inProcess(sessions: int, how: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.benchmarks.memory", str(sessions), how]
    output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(output.stdout)
    return found


def flat(requests: int, progress: Progress) -> Flat:
    """
    Serve so many requests, a quarter of each kind, with C{gc} disabled.
    """
    with serving("--no-gc", connections=CONNECTIONS) as server:
        ready = prepare(server)
        turns = min(BLOCK, requests // len(ready)) // CONNECTIONS
        cycles = requests // (turns * CONNECTIONS * len(ready))
        for _ in range(max(1, cycles // 20)):
            serve(server, ready, turns)
        server.meter("collect")
        before = server.meter("memory")
        for cycle in range(cycles):
            progress(f"memory after many requests, {100 * cycle // cycles} %")
            serve(server, ready, turns)
        growth = server.meter("memory") - before
        done = cycles * turns * CONNECTIONS * len(ready)
        return Flat(done, growth, server.meter("collect"))


def prepare(server: Server) -> list[tuple[list[bytes], bool]]:
    """
    The requests of each kind, one for each connection, and whether they are
    answered with a cookie.
    """
    cookies = [each.get("/plain/kept/created").setCookie for each in server.connections]
    return [
        (
            [
                request(f"/plain/{page}", cookie if page.startswith("kept") else None)
                for cookie in cookies
            ],
            page.endswith("created"),
        )
        for page in PAGES
    ]


def serve(server: Server, ready: list[tuple[list[bytes], bool]], turns: int) -> None:
    for requests, setsCookie in ready:
        server.block(requests, turns, setsCookie)
    server.meter("clear")


def sample() -> tuple[str, bytes]:
    """
    The ID and the document of a session that a page made.
    """
    harness = Harness(accessLog=False)
    harness.get("/plain/temp/created")
    found: dict[str, Record] = {}
    harness.world.temp.all().addCallback(found.update)
    [(sid, record)] = found.items()
    return sid, record.payload


def fill(store: MemoryStore, sessions: int, sid: str, payload: bytes) -> None:
    """
    Store so many sessions, none sharing any memory with another.
    """
    tomorrow = time.time() + 86400
    for number in range(sessions):
        record = Record(bytes(bytearray(payload)), tomorrow + number)
        store.create(f"{number:0{len(sid)}}", record)


def main(sessions: int, how: str) -> None:
    sid, payload = sample()
    store = MemoryStore()
    fill(store, 1, sid, payload)
    store.clear()
    if how == "traced":
        tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0] if how == "traced" else residentBytes()
    fill(store, sessions, sid, payload)
    after = tracemalloc.get_traced_memory()[0] if how == "traced" else residentBytes()
    taken = (after - before) / sessions
    print(json.dumps({"payload": len(payload), "bytes": taken}))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
