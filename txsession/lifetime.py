"""
How long things live: the cookie, the record, and when to renew them.

All times are POSIX timestamps, all durations seconds.
"""

from __future__ import annotations

from datetime import timedelta
from math import isfinite
from typing import NamedTuple

from .errors import ConfigurationError

__all__ = ["Duration", "Expiry", "asSeconds", "expiry", "isTouchDue"]

Duration = int | float | timedelta


def asSeconds(duration: object, option: str, *, positive: bool = True) -> float:
    """
    A duration as seconds.

    @param positive: whether it must be greater than zero.
    @raise ConfigurationError: it is not a finite (positive) number of seconds
        or C{timedelta}.
    """
    if isinstance(duration, timedelta):
        return asSeconds(duration.total_seconds(), option, positive=positive)
    if isinstance(duration, bool) or not isinstance(duration, (int, float)):
        raise ConfigurationError(
            f"must be a number of seconds or a timedelta, not {duration!r}",
            option=option,
        )
    try:
        seconds = float(duration)
    except OverflowError:
        seconds = float("inf")
    if not isfinite(seconds):
        raise ConfigurationError("must be finite", option=option)
    if positive and seconds <= 0:
        raise ConfigurationError(
            f"must be greater than zero seconds, not {duration!r}", option=option
        )
    return seconds


class Expiry(NamedTuple):
    """
    When a session ends.

    @ivar cookie: when the browser forgets the cookie, or L{None} for the end of
        the browser's session.
    @ivar record: when the store forgets the record; never L{None}, and never
        before the cookie's.
    """

    cookie: float | None
    record: float


def expiry(
    now: float,
    *,
    maxAge: float | None,
    ttl: float,
    fixed: float | None = None,
    deadline: float | None = None,
) -> Expiry:
    """
    When a session that is saved or touched now ends.

    @param maxAge: the cookie's C{originalMaxAge}, or L{None} for a cookie that
        lives as long as the browser's session.
    @param ttl: how long a record lives whose cookie has no C{maxAge}.
    @param fixed: a date that the application gave the cookie in this request,
        instead of now + C{maxAge}.
    @param deadline: creation + C{absoluteTimeout}, or L{None}: neither cookie
        nor record outlives it.
    """
    cookie = None if maxAge is None else (now + maxAge if fixed is None else fixed)
    record = now + ttl if cookie is None else cookie
    if deadline is not None:
        record = min(record, deadline)
        cookie = None if cookie is None else min(cookie, deadline)
    return Expiry(cookie, record)


def isTouchDue(
    current: float, renewed: float, *, lifetime: float, interval: float | None
) -> bool:
    """
    Whether a record's expiry is so far from what a touch would make it that the
    touch is worth a call of the store.

    @param current: when the record expires as it is.
    @param renewed: when it would expire after a touch.
    @param lifetime: how long the session lives after a touch.
    @param interval: C{touchInterval}; L{None} for a hundredth of C{lifetime}, 0
        for always.
    """
    if interval == 0:
        return True
    return renewed - current >= (lifetime / 100 if interval is None else interval)
