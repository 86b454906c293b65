"""
How a store comes back after its backend was out of reach.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import integers
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import Logger

from txsession import StoreUnavailable
from txsession.stores.outage import LAST_DELAY, Outage, backoff


class Backend:
    """
    A backend that the test lets answer.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.attempts: list[Deferred[Any]] = []
        self.events: list[Any] = []
        self.outage = Outage(
            "the store",
            Logger(observer=self.events.append),
            lambda: self.clock,
            self.attempt,
        )

    def attempt(self) -> Deferred[Any]:
        self.attempts.append(Deferred())
        return self.attempts[-1]

    @property
    def logged(self) -> list[str]:
        return [event["log_level"].name for event in self.events]


@given(integers(1, 10_000))
def test_backoffIsCapped(attempt: int) -> None:
    """
    The wait before an attempt is random, and never longer than a second.
    """
    assert 0 < backoff(attempt) <= LAST_DELAY


def test_backoffGrows() -> None:
    """
    The wait is at least half of a time that doubles until it is a second.
    """
    shortest = [min(backoff(n) for _ in range(200)) for n in range(1, 8)]
    for n, seconds in enumerate(shortest):
        assert seconds >= min(LAST_DELAY, 0.05 * 2**n) / 2


def test_withinReach() -> None:
    """
    As long as nothing is known to the contrary, the backend is within reach.
    """
    backend = Backend()
    backend.outage.check()
    assert backend.outage.reason is None
    assert backend.clock.getDelayedCalls() == []


def test_isTriedUntilItIsBack() -> None:
    """
    A backend that is out of reach is tried again and again, once at a time, until
    it is back; that it went and that it came back is logged once.
    """
    backend = Backend()
    for reason in ("refused", "refused again"):
        backend.outage.lost(reason)
    with pytest.raises(StoreUnavailable, match="refused again"):
        backend.outage.check()
    for count in range(1, 6):
        backend.clock.advance(LAST_DELAY)
        assert len(backend.attempts) == count
        backend.outage.lost("still refused")
        assert backend.clock.getDelayedCalls() == []
        backend.attempts[-1].errback(StoreUnavailable(f"attempt {count}"))
        with pytest.raises(StoreUnavailable, match=f"attempt {count}"):
            backend.outage.check()
    backend.clock.advance(LAST_DELAY)
    backend.attempts[-1].callback(None)
    backend.outage.check()
    assert backend.clock.getDelayedCalls() == []
    assert backend.logged == ["warn", "info"]


def test_beginsAnewQuickly() -> None:
    """
    After a success, the next outage begins with the shortest wait.
    """
    backend = Backend()
    for _ in range(2):
        backend.outage.lost("refused")
        for _ in range(5):
            backend.clock.advance(LAST_DELAY)
            backend.attempts[-1].errback(StoreUnavailable("refused"))
        backend.clock.advance(LAST_DELAY)
        backend.attempts[-1].callback(None)
        backend.outage.lost("refused")
        [call] = backend.clock.getDelayedCalls()
        assert call.getTime() - backend.clock.seconds() <= 0.05
        backend.outage.stop()


def test_stopsTrying() -> None:
    """
    Who stops is not tried for any longer, not even when an attempt is under way.
    """
    backend = Backend()
    backend.outage.lost("refused")
    backend.outage.stop()
    assert backend.clock.getDelayedCalls() == []
    backend.outage.lost("refused")
    backend.clock.advance(LAST_DELAY)
    backend.outage.stop()
    backend.attempts[-1].errback(StoreUnavailable("refused"))
    assert backend.clock.getDelayedCalls() == []
    backend.outage.check()


def test_anotherFailureIsLogged() -> None:
    """
    An attempt that fails for a reason of another kind is logged, and the next is
    made all the same.
    """
    backend = Backend()
    backend.outage.lost("refused")
    backend.clock.advance(LAST_DELAY)
    backend.attempts[-1].errback(ZeroDivisionError("a bug"))
    assert backend.logged == ["warn", "critical"]
    backend.clock.advance(LAST_DELAY)
    assert len(backend.attempts) == 2
