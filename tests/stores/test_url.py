"""
`txsession.storeFromURL`.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from txsession import ConfigurationError, MemoryStore, Record, storeFromURL


def test_memory() -> None:
    """
    "memory:" is a MemoryStore, on the given clock.
    """
    clock = Clock()
    store = storeFromURL("memory:", reactor=clock)
    assert isinstance(store, MemoryStore)
    store.set("a", Record(b"{}", 5.0))
    clock.advance(6)
    assert store.get("a").result is None


def test_memoryWithALimit() -> None:
    """
    "memory:?maxSessions=1" holds one session.
    """
    store = storeFromURL("memory:?maxSessions=1", reactor=Clock())
    store.set("a", Record(b"{}", 5.0))
    store.set("b", Record(b"{}", 6.0))
    assert list(store.all().result) == ["b"]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nosuch://ada:passw0rd@host/", "'nosuch:'; there is memory:"),
        ("sessions.db", "':'"),
        ("memory://host", "neither host nor path"),
        ("memory:sessions", "neither host nor path"),
        ("memory:?size=3", "no option 'size'"),
        ("memory:?maxSessions=many", "whole number"),
        ("memory:?maxSessions=0", "above zero"),
        ("memory://[", "is not a URL"),
        ("redis://ada:passw0rd\u2100@host", "is not a URL"),
        (b"redis://ada:passw0rd@host", "must be a str, not bytes"),
        ("memory:?maxSessions=" + "9" * 5000, "whole number"),
        (None, "must be a str"),
    ],
)
def test_errorsSayWhatIsWrongAndHideTheRest(url: Any, message: str) -> None:
    """
    A URL that describes no store is refused, without repeating what may be a
    password.
    """
    with pytest.raises(ConfigurationError) as caught:
        storeFromURL(url)
    assert message in str(caught.value)
    assert "passw0rd" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
