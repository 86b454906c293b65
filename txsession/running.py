"""
Runs the reactor for something that has an end.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, TypeVar

from attrs import define
from twisted.internet.defer import Deferred
from twisted.logger import globalLogBeginner
from twisted.python.failure import Failure

from .service import SessionService

__all__ = ["Signalled", "runReactor", "started"]

T = TypeVar("T")

_ENDINGS = (signal.SIGINT, signal.SIGTERM)


class Signalled(Exception):
    """
    The process was told to end.

    @ivar number: the signal.
    @ivar progress: what has been done by then.
    """

    def __init__(self, number: int, progress: str = "") -> None:
        super().__init__(number, progress)
        self.number = number
        self.progress = progress


def runReactor(
    work: Callable[[], Coroutine[Any, Any, T]],
    stop: Callable[[int], None] | None = None,
) -> T:
    """
    Run the reactor until something is done.

    @param stop: what a signal's handler calls, with the signal, to have it end soon.
        Without it, it is broken off.  A second signal ends the process.
    @raise Signalled: it was broken off.
    """
    return _Run(work, stop).result()  # type: ignore[no-any-return]


@define(eq=False)
class _Run:
    """
    The one run of the reactor of this process.
    """

    work: Callable[[], Coroutine[Any, Any, Any]]
    stop: Callable[[int], None] | None
    _working: Any = None
    _outcome: Any = None
    _signal: int | None = None

    def result(self) -> Any:
        from twisted.internet import reactor

        run: Any = reactor
        # Otherwise what is critical is written to stderr.
        globalLogBeginner.beginLoggingTo([], redirectStandardIO=False)
        run.callWhenRunning(self._begin, run)
        with self._hearing(run):
            run.run(installSignalHandlers=False)
        if self._signal is not None:
            raise Signalled(self._signal)
        if isinstance(self._outcome, Failure):
            self._outcome.raiseException()
        return self._outcome

    @contextmanager
    def _hearing(self, reactor: Any) -> Iterator[None]:
        heard = partial(self._heard, reactor)
        before = {number: signal.signal(number, heard) for number in _ENDINGS}
        try:
            yield
        finally:
            # What follows is output, which others may be slow to read.
            for number, handler in before.items():
                signal.signal(number, handler)

    def _begin(self, reactor: Any) -> None:
        self._working = Deferred.fromCoroutine(self.work())
        self._working.addBoth(self._ended, reactor)

    def _heard(self, reactor: Any, number: int, frame: object) -> None:
        # Once more, and the process ends as if there were no handler.
        signal.signal(number, signal.SIG_DFL)
        if self.stop is None:
            self._signal = number
            reactor.callFromThread(self._cancel)
        else:
            self.stop(number)

    def _cancel(self) -> None:
        self._working.cancel()

    def _ended(self, outcome: Any, reactor: Any) -> None:
        self._outcome = outcome
        reactor.stop()


@asynccontextmanager
async def started(*stores: Any) -> AsyncIterator[None]:
    """
    Have stores started, and stopped, as an application does.
    """
    services = [SessionService(store, pruneInterval=None) for store in stores]
    for service in services:
        service.startService()
    try:
        yield
    finally:
        for service in services:
            await service.stopService()
