"""
`txsession.lifetime`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from txsession import ConfigurationError
from txsession.lifetime import Expiry, asSeconds, expiry, isTouchDue

NOW = 1_800_000_000.0

unhurried = settings(deadline=None)
times = st.floats(0, 4e9)
durations = st.floats(1e-3, 1e9)

# Durations.


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [
        (1, 1.0),
        (0.25, 0.25),
        (10**12, 1e12),
        (5e-324, 5e-324),
        (timedelta(minutes=2), 120.0),
        (timedelta(microseconds=1), 1e-6),
        (timedelta.max, timedelta.max.total_seconds()),
    ],
)
def test_takesNumbersAndTimedeltas(duration: Any, seconds: float) -> None:
    """
    A duration is a number of seconds or a timedelta, and comes out as a float.
    """
    result = asSeconds(duration, "ttl")
    assert result == seconds
    assert type(result) is float


@pytest.mark.parametrize(
    ("duration", "problem"),
    [
        (0, "must be greater than zero"),
        (-0.0, "must be greater than zero"),
        (-1, "must be greater than zero"),
        (timedelta(0), "must be greater than zero"),
        (timedelta(days=-1), "must be greater than zero"),
        (float("inf"), "must be finite"),
        (float("-inf"), "must be finite"),
        (float("nan"), "must be finite"),
        (10**400, "must be finite"),
        (-(10**400), "must be finite"),
        (True, "must be a number of seconds or a timedelta, not True"),
        (False, "must be a number of seconds or a timedelta"),
        ("60", "must be a number of seconds or a timedelta, not '60'"),
        (None, "must be a number of seconds or a timedelta"),
        (1j, "must be a number of seconds or a timedelta"),
        ([60], "must be a number of seconds or a timedelta"),
    ],
)
def test_refusesOtherDurations(duration: Any, problem: str) -> None:
    """
    A duration that is not a finite number above zero is refused, with the
    option's name and the trouble.
    """
    with pytest.raises(ConfigurationError) as caught:
        asSeconds(duration, "ttl")
    assert str(caught.value).startswith(f"ttl: {problem}")
    assert caught.value.option == "ttl"


@pytest.mark.parametrize("duration", [0, -1, -1e300, 1e300, timedelta(days=-1)])
def test_takesAnythingFiniteWhereAllowed(duration: Any) -> None:
    """
    Where it need not be positive, zero and less are taken.
    """
    asFloat = getattr(duration, "total_seconds", lambda: float(duration))()
    assert asSeconds(duration, "cookie.maxAge", positive=False) == asFloat


@pytest.mark.parametrize("duration", [float("inf"), float("nan"), -(10**400), True])
def test_refusesTheInfiniteEverywhere(duration: Any) -> None:
    """
    What is not a finite number is refused, positive or not.
    """
    with pytest.raises(ConfigurationError):
        asSeconds(duration, "cookie.maxAge", positive=False)


# Expiry.


@pytest.mark.parametrize(
    ("arguments", "cookie", "record"),
    [
        ({"maxAge": None}, None, NOW + 1000),
        ({"maxAge": 60}, NOW + 60, NOW + 60),
        ({"maxAge": 5000}, NOW + 5000, NOW + 5000),
        ({"maxAge": 0}, NOW, NOW),
        ({"maxAge": -60}, NOW - 60, NOW - 60),
        ({"maxAge": 60, "fixed": NOW + 7}, NOW + 7, NOW + 7),
        ({"maxAge": None, "fixed": NOW + 7}, None, NOW + 1000),
        ({"maxAge": None, "deadline": NOW + 30}, None, NOW + 30),
        ({"maxAge": None, "deadline": NOW + 3000}, None, NOW + 1000),
        ({"maxAge": 60, "deadline": NOW + 30}, NOW + 30, NOW + 30),
        ({"maxAge": 60, "deadline": NOW + 90}, NOW + 60, NOW + 60),
        ({"maxAge": 60, "fixed": NOW + 99, "deadline": NOW + 30}, NOW + 30, NOW + 30),
        ({"maxAge": 60, "deadline": NOW - 1}, NOW - 1, NOW - 1),
    ],
)
def test_saysWhenASessionEnds(
    arguments: dict[str, Any], cookie: float | None, record: float
) -> None:
    """
    The cookie ends at now + maxAge, the record with it or at now + ttl, and
    neither after the deadline.
    """
    assert expiry(NOW, ttl=1000, **arguments) == Expiry(cookie, record)


@unhurried
@given(times, st.none() | durations, durations, st.none() | times)
def test_noCookieOutlivesItsRecord(
    now: float, maxAge: float | None, ttl: float, deadline: float | None
) -> None:
    """
    The record ends with its cookie, and neither after the deadline.
    """
    ends = expiry(now, maxAge=maxAge, ttl=ttl, deadline=deadline)
    assert ends.cookie is None if maxAge is None else ends.cookie == ends.record
    assert deadline is None or ends.record <= deadline
    assert ends.record <= now + (ttl if maxAge is None else maxAge)


# Touching.


@pytest.mark.parametrize(
    ("elapsed", "interval", "isDue"),
    [
        (0, None, False),
        (9, None, False),
        (10, None, True),
        (500, None, True),
        (0, 0, True),
        (59, 60, False),
        (60, 60, True),
        (-60, 60, False),
        (-60, None, False),
        (-60, 0, True),
    ],
)
def test_touchesOnceAnInterval(
    elapsed: float, interval: float | None, isDue: bool
) -> None:
    """
    A touch is due when so much time has passed since the last that the expiry
    moves by the interval, by default a hundredth of the lifetime; or always.
    """
    current, renewed = NOW + 1000, NOW + 1000 + elapsed
    assert isTouchDue(current, renewed, lifetime=1000, interval=interval) is isDue


def test_touchesNothingAtItsDeadline() -> None:
    """
    A record that ends at its deadline anyhow is not touched for it.
    """
    ends = expiry(NOW, maxAge=None, ttl=1000, deadline=NOW + 5)
    later = expiry(NOW + 4, maxAge=None, ttl=1000, deadline=NOW + 5)
    assert not isTouchDue(ends.record, later.record, lifetime=1000, interval=None)
