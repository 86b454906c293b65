"""
`txsession.Record`.
"""

from __future__ import annotations

import pytest
from attrs import evolve
from attrs.exceptions import FrozenInstanceError

from txsession import Record

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
