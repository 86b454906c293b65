"""
`txsession.errors`.
"""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

import txsession
from txsession import errors
from txsession.errors import (
    ConfigurationError,
    CorruptRecord,
    HeadersAlreadySent,
    NoSession,
    SessionConflict,
    SessionDataError,
    SessionDestroyed,
    SessionError,
    SessionGone,
    SessionNotLoaded,
    StoreError,
    StoreTimeout,
    StoreUnavailable,
)


@pytest.mark.parametrize(
    ("error", "bases"),
    [
        (SessionError, (Exception,)),
        (ConfigurationError, (SessionError, ValueError)),
        (SessionDataError, (SessionError, TypeError)),
        (NoSession, (SessionError,)),
        (SessionNotLoaded, (SessionError,)),
        (SessionDestroyed, (SessionError,)),
        (SessionGone, (SessionError,)),
        (HeadersAlreadySent, (SessionError,)),
        (SessionConflict, (SessionError,)),
        (CorruptRecord, (SessionError,)),
        (StoreError, (SessionError,)),
        (StoreUnavailable, (StoreError,)),
        (StoreTimeout, (StoreError,)),
    ],
)
def test_eachHasItsPlaceInTheTree(error: Any, bases: tuple[type, ...]) -> None:
    """
    Each exception has the bases that people catch it by.
    """
    assert error.__bases__ == bases


@pytest.mark.parametrize("name", errors.__all__)
def test_eachIsExportedByThePackage(name: str) -> None:
    """
    Every exception can be imported from txsession itself.
    """
    assert getattr(txsession, name) is getattr(errors, name)


def test_noneIsLeftOut() -> None:
    """
    The module offers every exception that it defines.
    """
    defined = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, SessionError)
    }
    assert defined == set(errors.__all__)


@pytest.mark.parametrize(
    ("context", "text"),
    [
        ({}, "why"),
        ({"operation": "get"}, "why (operation get)"),
        ({"fingerprint": "1234567890"}, "why (session 1234567890)"),
        (
            {"operation": "save", "fingerprint": "1234567890"},
            "why (operation save, session 1234567890)",
        ),
    ],
)
def test_saysWhatItHappenedTo(context: dict[str, str], text: str) -> None:
    """
    An exception's text ends with the operation and the session, where known.
    """
    error = StoreUnavailable("why", **context)
    assert str(error) == text
    assert error.operation == context.get("operation")
    assert error.fingerprint == context.get("fingerprint")


def test_takesItsContextLater() -> None:
    """
    What a store raised without knowing more is completed by whoever does.
    """
    error = StoreUnavailable("no route")
    error.operation = "touch"
    assert str(error) == "no route (operation touch)"


def test_needsNoMessage() -> None:
    """
    An exception without a message has just its context as its text.
    """
    assert str(StoreTimeout()) == ""
    assert str(StoreTimeout(operation="get")) == "(operation get)"


def test_aConfigurationErrorNamesItsOption() -> None:
    """
    A ConfigurationError says which option is wrong, to people and to code.
    """
    error = ConfigurationError("must be finite", option="ttl")
    assert str(error) == "ttl: must be finite"
    assert error.option == "ttl"


def test_aDataErrorNamesThePath() -> None:
    """
    A SessionDataError says where in the session the trouble is.
    """
    error = SessionDataError("session['cart'][2]", "is a set")
    assert str(error) == "session['cart'][2] is a set"
    assert error.path == "session['cart'][2]"


@pytest.mark.parametrize("copied", [copy.copy, lambda e: pickle.loads(pickle.dumps(e))])
@pytest.mark.parametrize(
    "error",
    [
        ConfigurationError("must be so", option="ttl"),
        SessionDataError("session['a']", "is a set"),
        SessionGone("gone", operation="save", fingerprint="0123456789"),
        StoreUnavailable("no route"),
    ],
)
def test_canBeSentToAnotherProcess(copied: Any, error: SessionError) -> None:
    """
    A copy, and what comes out of a pickle, is as it was.
    """
    again = copied(error)
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)
