"""
The server that is measured, in a process of its own.

C{python -m tests.benchmarks.server} prints the number of its port and serves
until its standard input is closed.
"""

from __future__ import annotations

import argparse
import gc
import os
import time
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor, stdio
from twisted.internet.protocol import Protocol
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)
from twisted.web.resource import Resource
from twisted.web.server import Site

from .resources import Leaf, World, folder


def beginLogging(mode: str) -> None:
    """
    Log to nowhere, as C{twist} does ("info": from that level on) or C{twistd}
    ("all": debug events too).
    """
    observer: Any = textFileLogObserver(open(os.devnull, "w"))  # noqa: SIM115
    if mode == "info":
        predicate = LogLevelFilterPredicate(defaultLogLevel=LogLevel.info)
        observer = FilteringLogObserver(observer, [predicate])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)


def residentBytes() -> int:
    """
    The memory of this process that is in use (Linux), or 0 where that is not
    known.
    """
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def control(world: World) -> Resource:
    """
    Paths by which the client reads the meters and tidies up.
    """

    def said(function: Callable[[], object]) -> Leaf:
        return Leaf(lambda request: repr(function()).encode())

    return folder(
        {
            "cpu": said(time.process_time),
            "memory": said(residentBytes),
            "collect": said(gc.collect),
            "clear": said(world.clear),
            "keep": said(world.keep),
        }
    )


class UntilClosed(Protocol):
    """
    Stops the reactor when standard input ends.
    """

    def connectionLost(self, reason: object = None) -> None:
        if reactor.running:
            reactor.stop()


class QuietSite(Site):
    """
    A site without an access log.
    """

    def log(self, request: Any) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--logging", choices=["info", "all"], default="info")
    parser.add_argument("--no-access-log", action="store_true")
    parser.add_argument("--no-gc", action="store_true")
    parser.add_argument("--cpu", type=int)
    options = parser.parse_args()
    if options.cpu is not None:
        os.sched_setaffinity(0, {options.cpu})
    if options.no_gc:
        gc.disable()
    beginLogging(options.logging)
    world = World.make()
    world.root.putChild(b"control", control(world))
    world.site = (QuietSite if options.no_access_log else Site)(world.root)
    port: Any = reactor.listenTCP(0, world.site, interface="127.0.0.1")
    print(port.getHost().port, flush=True)
    stdio.StandardIO(UntilClosed())
    reactor.run()


if __name__ == "__main__":
    main()
