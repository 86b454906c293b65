"""
The whole decision at the end of a request: facts in, a `Plan` out.

No clock, no store, no request: a table of values, which the tests go through
exhaustively.  What each fact means is said at `Facts`; the order of the rules
in `decide` is the order of precedence.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

__all__ = ["CookieAction", "Facts", "Plan", "StoreAction", "decide"]


class StoreAction(Enum):
    """
    What to do in the store.
    """

    NOTHING = "nothing"
    CREATE = "create"
    REPLACE = "replace"
    TOUCH = "touch"
    DESTROY = "destroy"


class CookieAction(Enum):
    """
    What to tell the browser.
    """

    NONE = "none"
    SEND = "send"
    EXPIRE = "expire"


class Plan(NamedTuple):
    """
    What to do.
    """

    store: StoreAction
    cookie: CookieAction


class Facts(NamedTuple):
    """
    What there is to know about a session when its response begins.

    @ivar presented: the browser sent a cookie whose ID was found in the store.
    @ivar current: the session still has the ID that the browser presented.
    @ivar stored: there is a record under the session's ID, as far as is known.
    @ivar ended: the session was destroyed, or found to be gone.
    @ivar unset: the application unset it, and C{unset} is C{"destroy"}.
    @ivar kept: the application unset it, and C{unset} is C{"keep"}.
    @ivar modified: the data differs from what was loaded, or the application
        set the cookie's lifetime.
    @ivar written: an explicit C{save()} wrote exactly what there is now.
    @ivar saved: there was an explicit C{save()} in this request.
    @ivar cookieChanged: the application changed an attribute of the cookie, or
        its lifetime.
    @ivar hasExpiry: the cookie has an expiry of its own.
    @ivar expired: the expiry that a save would write has passed.
    @ivar sendable: a cookie can be sent; it cannot where it must be Secure and
        the request is not.
    @ivar stale: an older secret than the newest had signed the cookie.
    @ivar touchDue: C{touchInterval} has passed, or C{touch()} was called.
    @ivar resave: the option.
    @ivar rolling: the option.
    @ivar saveUninitialized: the option.
    """

    presented: bool = False
    current: bool = False
    stored: bool = False
    ended: bool = False
    unset: bool = False
    kept: bool = False
    modified: bool = False
    written: bool = False
    saved: bool = False
    cookieChanged: bool = False
    hasExpiry: bool = False
    expired: bool = False
    sendable: bool = True
    stale: bool = False
    touchDue: bool = False
    resave: bool = False
    rolling: bool = False
    saveUninitialized: bool = False


def decide(facts: Facts) -> Plan:
    """
    What to do with a session at the moment its response begins.
    """
    if facts.kept:
        return Plan(StoreAction.NOTHING, CookieAction.NONE)
    if facts.unset:
        store = StoreAction.DESTROY if facts.stored else StoreAction.NOTHING
        return Plan(store, _forget(facts))
    if facts.ended:
        return Plan(StoreAction.NOTHING, _forget(facts))
    if _wantsSave(facts):
        return Plan(_saving(facts), _cookie(facts, isSaved=True))
    return Plan(_touching(facts), _cookie(facts, isSaved=False))


def _wantsSave(facts: Facts) -> bool:
    if facts.written or not (facts.stored or facts.sendable):
        return False
    if facts.modified:
        return True
    return facts.resave if facts.stored else facts.saveUninitialized


def _saving(facts: Facts) -> StoreAction:
    if facts.expired:
        return StoreAction.DESTROY if facts.stored else StoreAction.NOTHING
    return StoreAction.REPLACE if facts.stored else StoreAction.CREATE


def _touching(facts: Facts) -> StoreAction:
    # A cookie that goes out has the expiry that the record was last given; only
    # a rolling one is renewed, and then the record with it.
    if facts.stored and (facts.touchDue or facts.rolling):
        return StoreAction.TOUCH
    return StoreAction.NOTHING


def _cookie(facts: Facts, isSaved: bool) -> CookieAction:
    if not (isSaved or facts.stored or facts.saved):
        return _forget(facts)
    wanted = (
        (not facts.current and (isSaved or facts.saved))
        or facts.rolling
        or (facts.hasExpiry and facts.modified)
        or facts.cookieChanged
        or facts.stale
    )
    if not wanted:
        return CookieAction.NONE
    return CookieAction.SEND if facts.sendable else CookieAction.NONE


def _forget(facts: Facts) -> CookieAction:
    # Only what the browser presented can be taken from it: a session that it
    # never had leaves no cookie, and one whose ID was replaced without being
    # stored leaves the old cookie pointing at nothing.
    return CookieAction.EXPIRE if _isOrphaned(facts) else CookieAction.NONE


def _isOrphaned(facts: Facts) -> bool:
    return facts.presented and (facts.ended or facts.unset or not facts.current)
