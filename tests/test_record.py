"""
`txsession.Record`.
"""

from __future__ import annotations

import pytest
from attrs import evolve
from attrs.exceptions import FrozenInstanceError
from hypothesis import given
from hypothesis.strategies import floats, integers

from txsession import Record
from txsession.record import LATEST, asMilliseconds

RECORD = Record(b'{"cookie":{},"user":"ada"}', 100.5)


@pytest.mark.parametrize(
    ("now", "isLive"),
    [(0.0, True), (100.499, True), (100.5, False), (100.501, False), (1e12, False)],
)
def test_livesUntilItExpires(now: float, isLive: bool) -> None:
    """
    A record is live before its expiry, and no longer at it.
    """
    assert RECORD.isLive(now) is isLive


@pytest.mark.parametrize("name", ["payload", "expires"])
def test_cannotBeChanged(name: str) -> None:
    """
    A record is a value: neither of its parts can be set.
    """
    with pytest.raises(FrozenInstanceError):
        setattr(RECORD, name, getattr(RECORD, name))


def test_isComparedByItsParts() -> None:
    """
    Records with the same parts are equal, and equal ones hash alike.
    """
    same = Record(payload=bytes(RECORD.payload), expires=100.5)
    assert same == RECORD
    assert hash(same) == hash(RECORD)
    assert evolve(RECORD, expires=100.6) != RECORD
    assert evolve(RECORD, payload=b"{}") != RECORD


def test_doesNotShowWhatItHolds() -> None:
    """
    The repr, which ends up in logs, says how long the payload is, not what.
    """
    assert repr(RECORD) == "Record(payload=<26 bytes>, expires=100.5)"


@given(floats(0, LATEST / 1000, exclude_min=True))
def test_millisecondsAreNeverEarlier(expires: float) -> None:
    """
    An expiry in milliseconds is never earlier than it was, and less than a
    millisecond later.
    """
    milliseconds = asMilliseconds(expires)
    assert milliseconds / 1000 >= expires
    # What a float can tell apart grows with the date.
    assert milliseconds / 1000 - expires < 0.00101


@given(integers(1, LATEST))
def test_wholeMillisecondsStay(milliseconds: int) -> None:
    """
    An expiry that is a whole number of milliseconds stays what it is.
    """
    assert asMilliseconds(milliseconds / 1000) == milliseconds


@pytest.mark.parametrize(
    ("expires", "milliseconds"),
    [(-5.0, 0), (0.0, 0), (1e300, LATEST), (float("inf"), LATEST), (0.0001, 1)],
)
def test_millisecondsHaveLimits(expires: float, milliseconds: int) -> None:
    """
    Dates that no backend can hold become the nearest that all can.
    """
    assert asMilliseconds(expires) == milliseconds
