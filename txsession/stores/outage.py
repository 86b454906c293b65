"""
Whether a store's backend can be reached, and the attempts to reach it again.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import StoreTimeout, StoreUnavailable

__all__ = ["Outage", "Reach", "backoff"]

FIRST_DELAY = 0.05
LAST_DELAY = 1.0
"""
Seconds before the first attempt, and at most between two.
"""


def backoff(attempt: int) -> float:
    """
    How many seconds to wait before an attempt, the first being 1: twice as long
    each time up to a limit, of which a random part of up to half is taken off, so
    that many processes do not all come back at the same moment.
    """
    delay: float = min(LAST_DELAY, FIRST_DELAY * 2 ** min(attempt - 1, 30))
    return delay * (1 - random.random() / 2)


@define(eq=False)
class Reach:
    """
    What is known of a backend that may be out of reach.

    @ivar store: what the store is called in logs.
    @ivar reason: why it cannot be reached, or L{None} if as far as is known it
        can.
    """

    store: str
    log: Logger
    reason: str | None = field(default=None, init=False)

    def check(self) -> None:
        """
        @raise StoreUnavailable: the backend is known to be out of reach.
        """
        if self.reason is not None:
            raise StoreUnavailable(self.reason)

    def lost(self, reason: str) -> None:
        """
        The backend has been found to be out of reach.
        """
        if self.reason is None:
            self.log.warn(
                "{store} is out of reach: {reason}", store=self.store, reason=reason
            )
        self.reason = reason

    def found(self) -> None:
        """
        The backend can be reached.
        """
        if self.reason is not None:
            self.log.info("{store} can be reached again.", store=self.store)
        self.reason = None


@define(eq=False)
class Outage(Reach):
    """
    What is known of a backend that does not look for itself whether it can be
    reached again.

    @ivar reactor: gives the reactor that waits between two attempts.
    @ivar attempt: tries to reach the backend; its Deferred fails with
        L{StoreUnavailable <txsession.StoreUnavailable>} or
        L{StoreTimeout <txsession.StoreTimeout>} if it is still out of reach.
    """

    reactor: Callable[[], Any]
    attempt: Callable[[], Deferred[Any]]
    _attempts: int = field(default=0, init=False)
    _next: Any = field(default=None, init=False)
    _trying: Deferred[Any] | None = field(default=None, init=False)

    def lost(self, reason: str) -> None:
        super().lost(reason)
        if self._next is None and self._trying is None:
            self._schedule()

    def stop(self) -> None:
        """
        Try no longer.
        """
        self.reason = None
        self._attempts = 0
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _schedule(self) -> None:
        self._attempts += 1
        delay = backoff(self._attempts)
        self._next = self.reactor().callLater(delay, self._try)

    def _try(self) -> None:
        self._next = None
        self._trying = self.attempt()
        self._trying.addCallbacks(self._reached, self._failed)

    def _reached(self, _: Any) -> None:
        self._trying = None
        self.found()
        self._attempts = 0

    def _failed(self, failure: Failure) -> None:
        self._trying = None
        if self.reason is None:
            return
        if failure.check(StoreUnavailable, StoreTimeout) is None:
            self.log.failure("{store} could not be tried.", failure, store=self.store)
        self.reason = failure.getErrorMessage()
        self._schedule()
