"""
Starts a store, prunes it now and then, and stops it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from twisted.web.resource import IResource

from .backend import writesInFlight
from .errors import ConfigurationError, StoreTimeout, StoreUnavailable
from .lifetime import Duration, asSeconds
from .pruning import INTERVAL, LIMIT, Pruner, served
from .store import Store, resultOf
from .stores.common import wholeNumber

__all__ = ["SessionService"]


class SessionService(Service):
    """
    A store as a part of an application: started with it, pruned while it runs,
    and stopped when the last save is done.

    @param store: what C{SessionResource(store=...)} was given.  Abilities that
        it does not have are not asked of it.
    @param pruneInterval: about how many seconds (or a C{timedelta}) pass between
        two prunings; each time a random part of up to half of that is taken
        off, so that several processes do not prune at once.  L{None}: never.
    @param pruneLimit: how many records are deleted in one call; a full batch is
        followed by the next in the reactor's next turn.
    @param reactor: the clock; by default the global reactor, imported when the
        service starts.
    @param jitter: gives a number from 0 to 1; at random by default.

    @raise ConfigurationError: an option's value cannot work.
    """

    _log = Logger()

    def __init__(
        self,
        store: Store,
        *,
        pruneInterval: Duration | None = INTERVAL,
        pruneLimit: int = LIMIT,
        reactor: Any | None = None,
        jitter: Callable[[], float] | None = None,
    ) -> None:
        if isinstance(store, str) or IResource.providedBy(store):
            # A str may hold a password, so it is not shown.
            raise ConfigurationError(
                f"must be a store, not a {type(store).__name__}; storeFromURL(url) "
                "makes one, and a SessionResource has it as its .store",
                option="store",
            )
        self.store: Any = store
        interval = (
            None if pruneInterval is None else asSeconds(pruneInterval, "pruneInterval")
        )
        wholeNumber(pruneLimit, "pruneLimit")
        self._reactor: Any = reactor
        self._pruner: Pruner | None = None
        if interval is not None and self._can("prune"):
            self._pruner = Pruner(
                store, self._log, lambda: self._reactor, interval, pruneLimit
            )
            self._pruner.jitter = jitter or self._pruner.jitter
        self._next: Any = None
        self._working: set[Deferred[None]] = set()

    def startService(self) -> None:
        """
        Start the store, and prune it from time to time.  A store that cannot be
        started is logged; it is tried again when it is used.
        """
        super().startService()  # type: ignore[no-untyped-call]
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = reactor
        with suppress(TypeError):  # cannot be hashed, or not be referred to weakly
            served.add(self.store)
        if self._can("start"):
            self._work(self._start())
        self._schedule()

    def stopService(self) -> Deferred[None]:
        """
        Stop the store when what it is doing is done.

        @return: fires when the store has stopped; fails with what that failed
            with.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        with suppress(TypeError):
            served.discard(self.store)
        if self._next is not None:
            self._next.cancel()
            self._next = None
        return Deferred.fromCoroutine(self._stop())

    def _can(self, method: str) -> bool:
        return callable(getattr(self.store, method, None))

    async def _start(self) -> None:
        try:
            await resultOf(self.store.start())
        except (StoreUnavailable, StoreTimeout) as error:
            # An outage is nothing to look for in a traceback.
            self._log.error(
                "The session store could not be started: {error}", error=str(error)
            )
        except Exception:
            self._log.failure("The session store could not be started.")

    async def _stop(self) -> None:
        await _ends(self._working)
        # A write that fails has been reported to who asked for it.
        await _ends(writesInFlight(self.store))
        # Unless it was started again while it waited.
        if self._can("stop") and not self.running:
            await resultOf(self.store.stop())

    def _work(self, work: Coroutine[Deferred[Any], Any, None]) -> None:
        working = Deferred.fromCoroutine(work)
        self._working.add(working)
        working.addBoth(lambda _: self._working.discard(working))

    def _schedule(self) -> None:
        if self._pruner is not None and self._next is None:
            self._next = self._reactor.callLater(self._pruner.delay(), self._pruneNow)

    def _pruneNow(self) -> None:
        self._next = None
        self._work(self._prune())

    async def _prune(self) -> None:
        assert self._pruner is not None
        await self._pruner.prune(lambda: bool(self.running))
        if self.running:
            self._schedule()


async def _ends(pending: Iterable[Deferred[Any]]) -> None:
    """
    Wait until all of these are over, well or badly.
    """
    ends = []
    for each in list(pending):
        end: Deferred[None] = Deferred()
        each.addBoth(_pass, end)
        ends.append(end)
    await DeferredList(ends)


def _pass(result: Any, end: Deferred[None]) -> Any:
    end.callback(None)
    return result
