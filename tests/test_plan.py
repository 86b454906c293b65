"""
`txsession.plan`: every combination of facts, against what is promised of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest

from txsession.plan import CookieAction, Facts, Plan, StoreAction, decide

NOTHING, CREATE, REPLACE, TOUCH, DESTROY = StoreAction
NONE, SEND, EXPIRE = CookieAction


def everything() -> Iterator[tuple[Facts, Plan]]:
    """
    Every combination of facts, with what is decided.
    """
    for values in product((False, True), repeat=len(Facts._fields)):
        facts = Facts(*values)
        yield facts, decide(facts)


@pytest.fixture(scope="module")
def decisions() -> list[tuple[Facts, Plan]]:
    return list(everything())


# Situations, for the table.

NEW: dict[str, Any] = {}
LOADED: dict[str, Any] = {"presented": True, "current": True, "stored": True}
REGENERATED: dict[str, Any] = {"presented": True}  # and empty
SAVED: dict[str, Any] = {"stored": True, "saved": True, "written": True}
MOVED: dict[str, Any] = {"presented": True, **SAVED}


@pytest.mark.parametrize(
    ("situation", "facts", "store", "cookie"),
    [
        pytest.param(situation, facts, store, cookie, id=title)
        for title, situation, facts, store, cookie in [
            # New sessions.
            ("a visitor passes by", NEW, "", NOTHING, NONE),
            ("a visitor gets data", NEW, "modified", CREATE, SEND),
            ("empty, to be saved", NEW, "saveUninitialized", CREATE, SEND),
            ("empty, resave", NEW, "resave", NOTHING, NONE),
            ("empty, rolling", NEW, "rolling", NOTHING, NONE),
            ("empty, touched", NEW, "touchDue", NOTHING, NONE),
            ("empty, path set", NEW, "cookieChanged", NOTHING, NONE),
            ("empty, maxAge", NEW, "hasExpiry", NOTHING, NONE),
            ("data, no way to send", NEW, "modified !sendable", NOTHING, NONE),
            (
                "empty, no way to send",
                NEW,
                "saveUninitialized !sendable",
                NOTHING,
                NONE,
            ),
            ("data, already over", NEW, "modified hasExpiry expired", NOTHING, SEND),
            ("saved by hand", SAVED, "modified", NOTHING, SEND),
            ("saved by hand, empty", SAVED, "", NOTHING, SEND),
            ("saved by hand, maxAge", SAVED, "hasExpiry modified", NOTHING, SEND),
            ("saved by hand, not sendable", SAVED, "!sendable", NOTHING, NONE),
            ("saved, then changed", SAVED, "modified !written", REPLACE, SEND),
            # Sessions that were loaded.
            ("read", LOADED, "", NOTHING, NONE),
            ("changed", LOADED, "modified", REPLACE, NONE),
            ("changed, maxAge", LOADED, "modified hasExpiry", REPLACE, SEND),
            ("read, maxAge", LOADED, "hasExpiry", NOTHING, NONE),
            ("read, resave", LOADED, "resave", REPLACE, NONE),
            ("read, resave, maxAge", LOADED, "resave hasExpiry", REPLACE, NONE),
            ("read, saveUninitialized", LOADED, "saveUninitialized", NOTHING, NONE),
            ("read, due", LOADED, "touchDue", TOUCH, NONE),
            ("read, due, maxAge", LOADED, "touchDue hasExpiry", TOUCH, NONE),
            ("changed, due", LOADED, "modified touchDue", REPLACE, NONE),
            ("rolling", LOADED, "rolling", TOUCH, SEND),
            ("rolling, maxAge", LOADED, "rolling hasExpiry", TOUCH, SEND),
            ("rolling, changed", LOADED, "rolling modified", REPLACE, SEND),
            ("path set", LOADED, "cookieChanged", NOTHING, SEND),
            ("maxAge set", LOADED, "modified cookieChanged hasExpiry", REPLACE, SEND),
            ("maxAge unset", LOADED, "modified cookieChanged", REPLACE, SEND),
            (
                "maxAge in the past",
                LOADED,
                "modified cookieChanged hasExpiry expired",
                DESTROY,
                SEND,
            ),
            ("older secret", LOADED, "stale", NOTHING, SEND),
            ("older secret, maxAge", LOADED, "stale hasExpiry", NOTHING, SEND),
            ("older secret, changed", LOADED, "stale modified", REPLACE, SEND),
            ("older secret, plain HTTP", LOADED, "stale !sendable", NOTHING, NONE),
            (
                "changed, plain HTTP",
                LOADED,
                "modified hasExpiry !sendable",
                REPLACE,
                NONE,
            ),
            ("saved by hand", LOADED, "modified saved written", NOTHING, NONE),
            (
                "saved by hand, maxAge",
                LOADED,
                "modified saved written hasExpiry",
                NOTHING,
                SEND,
            ),
            ("saved by hand, resave", LOADED, "saved written resave", NOTHING, NONE),
            (
                "saved by hand, then changed",
                LOADED,
                "modified saved",
                REPLACE,
                NONE,
            ),
            # Sessions with another ID than the browser's.
            ("regenerated, empty", REGENERATED, "", NOTHING, EXPIRE),
            ("regenerated, data", REGENERATED, "modified", CREATE, SEND),
            ("regenerated, keep empty", REGENERATED, "saveUninitialized", CREATE, SEND),
            ("regenerated, resave", REGENERATED, "resave", NOTHING, EXPIRE),
            ("regenerated, rolling", REGENERATED, "rolling", NOTHING, EXPIRE),
            (
                "regenerated, no way to send",
                REGENERATED,
                "modified !sendable",
                NOTHING,
                EXPIRE,
            ),
            ("regenerated with its data", MOVED, "", NOTHING, SEND),
            ("regenerated, then changed", MOVED, "modified !written", REPLACE, SEND),
            # Sessions that are over.
            ("destroyed", REGENERATED, "ended current", NOTHING, EXPIRE),
            ("destroyed, never presented", NEW, "ended", NOTHING, NONE),
            (
                "destroyed, every policy",
                REGENERATED,
                "ended current modified resave rolling saveUninitialized",
                NOTHING,
                EXPIRE,
            ),
            ("unset to destroy", LOADED, "unset", DESTROY, EXPIRE),
            ("unset to destroy, changed", LOADED, "unset modified", DESTROY, EXPIRE),
            ("unset to destroy, new", NEW, "unset modified", NOTHING, NONE),
            ("unset to destroy, saved", SAVED, "unset", DESTROY, NONE),
            ("unset to keep", LOADED, "kept", NOTHING, NONE),
            (
                "unset to keep, changed",
                LOADED,
                "kept modified hasExpiry touchDue stale rolling",
                NOTHING,
                NONE,
            ),
        ]
    ],
)
def test_decidesOrdinaryCases(
    situation: dict[str, Any], facts: str, store: StoreAction, cookie: CookieAction
) -> None:
    """
    What is done with a session in the cases that people ask about.
    """
    more = {name.lstrip("!"): not name.startswith("!") for name in facts.split()}
    assert decide(Facts(**{**situation, **more})) == Plan(store, cookie)


# The promises, one by one.


def isOver(facts: Facts) -> bool:
    return facts.kept or facts.unset or facts.ended


def isSaved(plan: Plan) -> bool:
    return plan.store in (CREATE, REPLACE)


PROMISES: dict[str, Callable[[Facts, Plan], bool]] = {
    "Unset with keep, everything stays as it was.": lambda facts, plan: (
        not facts.kept or plan == (NOTHING, NONE)
    ),
    "What is over is neither saved nor touched, and its cookie not sent.": (
        lambda facts, plan: (
            not isOver(facts)
            or (plan.store in (NOTHING, DESTROY) and plan.cookie is not SEND)
        )
    ),
    "Unset with destroy, a record is destroyed.": lambda facts, plan: (
        facts.kept
        or not facts.unset
        or plan.store is (DESTROY if facts.stored else NOTHING)
    ),
    "What was destroyed already needs nothing of the store.": lambda facts, plan: (
        not facts.ended or facts.unset or plan.store is NOTHING
    ),
    "The cookie of a session that is over expires if the browser has it.": (
        lambda facts, plan: (
            facts.kept
            or not (facts.unset or facts.ended)
            or plan.cookie is (EXPIRE if facts.presented else NONE)
        )
    ),
    "No cookie expires that was not presented.": lambda facts, plan: (
        plan.cookie is not EXPIRE or facts.presented
    ),
    "The presented cookie of a session that lives on does not expire.": (
        lambda facts, plan: (
            plan.cookie is not EXPIRE or isOver(facts) or not facts.current
        )
    ),
    "A session that keeps its record keeps its cookie.": lambda facts, plan: (
        plan.cookie is not EXPIRE or isOver(facts) or not facts.stored
    ),
    "An abandoned ID's cookie expires unless another is to replace it.": (
        lambda facts, plan: (
            isOver(facts)
            or not facts.presented
            or facts.current
            or facts.stored
            or facts.saved
            or plan.cookie is not NONE
        )
    ),
    "Only a session without a record is created.": lambda facts, plan: (
        plan.store is not CREATE or not facts.stored
    ),
    "Only a record that exists is replaced, touched or destroyed.": (
        lambda facts, plan: plan.store in (NOTHING, CREATE) or facts.stored
    ),
    "No new session is stored whose cookie cannot be sent.": lambda facts, plan: (
        plan.store is not CREATE or facts.sendable
    ),
    "A session that is created becomes known to the browser.": lambda facts, plan: (
        plan.store is not CREATE or facts.current or plan.cookie is SEND
    ),
    "No cookie is sent that cannot be.": lambda facts, plan: (
        plan.cookie is not SEND or facts.sendable
    ),
    "No cookie is sent for what is not stored, now or by save().": (
        lambda facts, plan: (
            plan.cookie is not SEND
            or facts.stored
            or facts.saved
            or plan.store is CREATE
            or (facts.expired and (facts.modified or facts.saveUninitialized))
        )
    ),
    "What save() wrote is not written again.": lambda facts, plan: (
        not facts.written or not isSaved(plan)
    ),
    "What changed in a record is saved.": lambda facts, plan: (
        isOver(facts)
        or not (facts.stored and facts.modified)
        or facts.written
        or plan.store is (DESTROY if facts.expired else REPLACE)
    ),
    "With resave, an unchanged record is saved.": lambda facts, plan: (
        isOver(facts)
        or not (facts.stored and facts.resave)
        or facts.written
        or plan.store is (DESTROY if facts.expired else REPLACE)
    ),
    "Without resave, an unchanged record is not saved.": lambda facts, plan: (
        facts.resave or facts.modified or not facts.stored or not isSaved(plan)
    ),
    "resave is about records, and saveUninitialized about new sessions.": (
        lambda facts, plan: (
            plan
            == decide(
                facts._replace(saveUninitialized=False)
                if facts.stored
                else facts._replace(resave=False)
            )
        )
    ),
    "Without saveUninitialized, an empty new session is not stored.": (
        lambda facts, plan: (
            facts.saveUninitialized or facts.modified or plan.store is not CREATE
        )
    ),
    "Nothing is stored that would have expired.": lambda facts, plan: (
        not facts.expired or not isSaved(plan)
    ),
    "A record is destroyed when it is unset or saved with a past expiry.": (
        lambda facts, plan: (
            plan.store is not DESTROY
            or facts.unset
            or (facts.expired and (facts.modified or facts.resave))
        )
    ),
    "A date in the past that was set still goes out.": lambda facts, plan: (
        isOver(facts)
        or not (facts.modified and facts.hasExpiry and facts.expired)
        or not (facts.stored or (facts.sendable and not facts.written))
        or plan.cookie is (SEND if facts.sendable else NONE)
    ),
    "A touch is due or rolling.": lambda facts, plan: (
        plan.store is not TOUCH or facts.touchDue or facts.rolling
    ),
    "A record that is due, and not saved, is touched.": lambda facts, plan: (
        isOver(facts)
        or not (facts.stored and facts.touchDue)
        or plan.store is not NOTHING
    ),
    "With rolling, each stored session's cookie is renewed, and its record.": (
        lambda facts, plan: (
            isOver(facts)
            or not (facts.rolling and facts.stored)
            or (
                plan.store in (REPLACE, TOUCH, DESTROY)
                and plan.cookie is (SEND if facts.sendable else NONE)
            )
        )
    ),
    "A cookie with an expiry goes out when its session was modified.": (
        lambda facts, plan: (
            isOver(facts)
            or not (facts.hasExpiry and facts.modified and facts.stored)
            or plan.cookie is (SEND if facts.sendable else NONE)
        )
    ),
    "A changed cookie, or one with an old signature, goes out.": lambda facts, plan: (
        isOver(facts)
        or not ((facts.cookieChanged or facts.stale) and facts.stored)
        or plan.cookie is (SEND if facts.sendable else NONE)
    ),
    "A known cookie goes out for no other reason.": lambda facts, plan: (
        plan.cookie is not SEND
        or not facts.current
        or facts.rolling
        or (facts.hasExpiry and facts.modified)
        or facts.cookieChanged
        or facts.stale
    ),
    "A new cookie goes out only beside a save.": lambda facts, plan: (
        plan.cookie is not SEND
        or facts.current
        or facts.saved
        or facts.stored
        or facts.modified
        or facts.saveUninitialized
    ),
    "An ID that the browser does not have goes out when it was saved.": (
        lambda facts, plan: (
            isOver(facts)
            or facts.current
            or not (facts.saved or isSaved(plan))
            or plan.cookie is (SEND if facts.sendable else NONE)
        )
    ),
    "Being unable to send a cookie keeps no record from being saved.": (
        lambda facts, plan: (
            not facts.stored
            or plan.store is decide(facts._replace(sendable=True)).store
        )
    ),
}


@pytest.mark.parametrize("promise", PROMISES)
def test_keepsEachPromiseAlways(
    promise: str, decisions: list[tuple[Facts, Plan]]
) -> None:
    """
    No combination of facts breaks a promise.
    """
    holds = PROMISES[promise]
    broken = [facts for facts, plan in decisions if not holds(facts, plan)]
    assert broken == [], promise


def expected(facts: Facts) -> Plan:
    """
    The rules once more, as sets of reasons instead of an order of questions.
    """
    if facts.kept:
        return Plan(NOTHING, NONE)
    isDoomed = facts.unset or facts.ended
    saves = not isDoomed and all(
        [
            any(
                [
                    facts.modified,
                    facts.stored and facts.resave,
                    not facts.stored and facts.saveUninitialized,
                ]
            ),
            not facts.written,
            facts.stored or facts.sendable,
        ]
    )
    reasonsForCookie = [
        not facts.current and (saves or facts.saved),
        facts.rolling,
        facts.hasExpiry and facts.modified,
        facts.cookieChanged,
        facts.stale,
    ]
    exists = not isDoomed and (saves or facts.stored or facts.saved)
    store = {
        facts.unset: DESTROY,
        not isDoomed and not saves and (facts.touchDue or facts.rolling): TOUCH,
        saves: DESTROY if facts.expired else REPLACE,
    }.get(True, NOTHING)
    if not facts.stored:
        store = CREATE if saves and not facts.expired else NOTHING
    cookie = NONE
    if exists and any(reasonsForCookie) and facts.sendable:
        cookie = SEND
    elif not exists and facts.presented and (isDoomed or not facts.current):
        cookie = EXPIRE
    return Plan(store, cookie)


def test_everyCombinationIsAsExpected(decisions: list[tuple[Facts, Plan]]) -> None:
    """
    For each of the 2**18 combinations of facts, the decision is what the rules,
    written another way, make of it.
    """
    assert len(decisions) == 2**18
    wrong = [facts for facts, plan in decisions if plan != expected(facts)]
    assert wrong == []


def test_everyOutcomeOccurs(decisions: list[tuple[Facts, Plan]]) -> None:
    """
    Each action of the store occurs, with each of the cookie's that makes sense.
    """
    assert {plan for _, plan in decisions} == {
        (NOTHING, NONE),
        (NOTHING, SEND),
        (NOTHING, EXPIRE),
        (CREATE, NONE),
        (CREATE, SEND),
        (REPLACE, NONE),
        (REPLACE, SEND),
        (TOUCH, NONE),
        (TOUCH, SEND),
        (DESTROY, NONE),
        (DESTROY, SEND),
        (DESTROY, EXPIRE),
    }


@pytest.mark.parametrize("fact", Facts._fields)
def test_everyFactMatters(fact: str, decisions: list[tuple[Facts, Plan]]) -> None:
    """
    For each fact there is a combination of the others where it decides.
    """
    assert any(
        decide(facts._replace(**{fact: not getattr(facts, fact)})) != plan
        for facts, plan in decisions
    )
