"""
Deletes what has expired in a store that does not do so by itself.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from .store import resultOf

__all__ = ["INTERVAL", "LIMIT", "Pruner", "Upkeep", "served"]

INTERVAL = 900.0
"""
Seconds between two prunings, unless told otherwise.
"""

LIMIT = 1000
"""
How many records are deleted in one call, unless told otherwise.
"""

served: WeakSet[Any] = WeakSet()
"""
The stores that a running L{SessionService <txsession.SessionService>} looks after.
"""


@define(eq=False)
class Pruner:
    """
    How a store is pruned.

    @ivar interval: about how many seconds pass between two prunings.
    @ivar limit: how many records are deleted in one call.
    @ivar reactor: gives the clock.
    @ivar jitter: gives a number from 0 to 1, of which half is the part of the
        interval that is taken off.
    """

    store: Any
    log: Logger
    reactor: Callable[[], Any]
    interval: float = INTERVAL
    limit: int = LIMIT
    jitter: Callable[[], float] = random.random

    def delay(self) -> float:
        """
        How many seconds to wait before the next pruning.
        """
        return self.interval * (1 - self.jitter() / 2)

    async def prune(self, goesOn: Callable[[], bool]) -> None:
        """
        Delete what has expired, in batches, for as long as C{goesOn} says so.
        What fails is logged.
        """
        total = 0
        try:
            while True:
                pruned = await resultOf(self.store.prune(self.limit))
                total += pruned
                if pruned < self.limit or not goesOn():
                    break
                # A store that answers at once must not keep the reactor.
                await deferLater(self.reactor(), 0)
        except Exception:
            self.log.failure("The session store could not be pruned.")
        self.log.debug("pruned {total} expired sessions", total=total)


@define(eq=False)
class Upkeep:
    """
    Prunes a store as it is used, if nobody else does.  There is no timer, which
    would outlive whoever uses the store.

    @ivar due: when to prune next.
    """

    pruner: Pruner | None
    due: float = 0.0
    _isPruning: bool = False

    @classmethod
    def of(cls, store: Any, log: Logger, reactor: Callable[[], Any]) -> Upkeep:
        """
        The upkeep of a store.  One that is wrapped in another is the other's to
        prune.
        """
        canPrune = callable(getattr(type(store), "prune", None))
        return cls(Pruner(store, log, reactor) if canPrune else None)

    def attend(self, now: float) -> Deferred[None] | None:
        """
        It is time: prune, and set the next time.
        """
        if self.pruner is None:
            self.due = float("inf")
            return None
        isFirst, self.due = not self.due, now + self.pruner.delay()
        if isFirst or self._isPruning or _isServed(self.pruner.store):
            return None
        return Deferred.fromCoroutine(self._prune())

    async def _prune(self) -> None:
        assert self.pruner is not None
        self._isPruning = True
        await self.pruner.prune(lambda: True)
        self._isPruning = False


def _isServed(store: Any) -> bool:
    try:
        return store in served
    except TypeError:  # cannot be hashed, or not be referred to weakly
        return False
