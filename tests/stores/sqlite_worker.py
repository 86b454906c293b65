"""
A process that uses an SQLite file, for the tests of what several of them, or the
death of one, do to it:

    python -m tests.stores.sqlite_worker PATH TASK NAME

It prints a line for each thing that the store has said is done.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react

from txsession import Record, StoreUnavailable
from txsession.stores.sqlite import SQLiteStore

FOREVER = 32_000_000_000.0
AT_ONCE = 10
CONTENDED = 200
COUNTED = 100


def say(*words: object) -> None:
    os.write(1, " ".join(map(str, words)).encode() + b"\n")


def record(value: object) -> Record:
    return Record(json.dumps(value).encode(), FOREVER)


async def save(store: SQLiteStore, name: str) -> None:
    """
    Save one session after the other, in ten rows at once, until it is killed.
    """

    async def row(number: int) -> None:
        count = 0
        while True:
            sid = f"{name}-{number}-{count}"
            await store.set(sid, record(sid))
            say(sid)
            count += 1

    await gatherResults([Deferred.fromCoroutine(row(n)) for n in range(AT_ONCE)])


async def contend(store: SQLiteStore, name: str) -> None:
    """
    Create the sessions that others are creating, too, and count in one in which
    others count.
    """

    async def create(number: int) -> None:
        if await store.create(f"contended-{number}", record(name)):
            say("created", number)

    async def count() -> None:
        counted = 0
        while counted < COUNTED:
            found = await store.get("counter")
            assert found is not None
            raised = record(json.loads(found.payload) + 1)
            counted += await store.replace("counter", raised, found)
        say("counted", counted)

    await store.create("counter", record(0))
    counting = Deferred.fromCoroutine(count())
    for number in range(CONTENDED):
        await create(number)
    await counting


async def fill(store: SQLiteStore, name: str) -> None:
    """
    Save until no file may grow any longer, say so, and go on when it may.
    """
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    await store.start()
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, most))
    count = 0
    while True:
        try:
            await store.set(f"{name}-{count}", record("x" * 50_000))
        except StoreUnavailable as error:
            say("full", error)
            break
        say("saved", f"{name}-{count}")
        count += 1
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    await store.set(f"{name}-after", record("x" * 50_000))
    say("saved", f"{name}-after")


TASKS: dict[str, Callable[[SQLiteStore, str], Any]] = {
    "save": save,
    "contend": contend,
    "fill": fill,
}


def main(reactor: Any, path: str, task: str, name: str) -> Deferred[None]:
    async def work() -> None:
        store = SQLiteStore(path)
        await TASKS[task](store, name)
        await store.stop()

    return Deferred.fromCoroutine(work())


if __name__ == "__main__":
    react(main, sys.argv[1:])
