"""
Between a session and its store: which cookies go out, what is loaded, saved and
touched when, and what becomes of a store that fails.
"""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote

import pytest
import pytest_twisted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, ensureDeferred, fail, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.logger import LogLevel, eventAsText, formatEvent
from twisted.python.failure import Failure
from twisted.web.resource import Resource

from txsession import (
    ConfigurationError,
    CookieOptions,
    ISession,
    MemoryStore,
    NoSession,
    Record,
    SessionConflict,
    SessionResource,
    StoreError,
    getSession,
)
from txsession.signing import Signer, fingerprint

from .support import (
    SECRET,
    START,
    Browser,
    Page,
    StepStore,
    called,
    clockAt,
    only,
    turn,
)
from .test_session import App, Faulty, down

HTTPS = {"X-Forwarded-Proto": "https"}


def signed(sid: str, secret: str | bytes = SECRET) -> str:
    """
    The cookie value that stands for this ID.
    """
    return quote(Signer(secret).sign(sid), safe="")


def payload(cookie: dict[str, Any] | None = None, **data: Any) -> bytes:
    """
    A document such as express-session stores.
    """
    cookie = {"originalMaxAge": None, "expires": None, **(cookie or {})}
    return json.dumps({"cookie": cookie, **data}, separators=(",", ":")).encode()


def texts(logged: list[Any], level: LogLevel | None = None) -> list[str]:
    """
    What txsession logged, tracebacks included.
    """
    return [
        eventAsText(event, includeTimestamp=False)
        for event in logged
        if event.get("log_namespace", "").startswith("txsession")
        and (level is None or event["log_level"] is level)
    ]


def count(session: Any) -> str:
    session["n"] = session.get("n", 0) + 1
    return str(session["n"])


def nothing(session: Any) -> None:
    """
    Leave the session alone.
    """


# Cookies out.


OPTIONS: list[tuple[CookieOptions, dict[str, str]]] = [
    (CookieOptions(), {"path": "/", "httponly": "", "samesite": "Lax"}),
    (CookieOptions(httpOnly=False), {"path": "/", "samesite": "Lax"}),
    (CookieOptions(sameSite=None), {"path": "/", "httponly": ""}),
    (CookieOptions(sameSite=False), {"path": "/", "httponly": ""}),
    (
        CookieOptions(sameSite=True),
        {"path": "/", "httponly": "", "samesite": "Strict"},
    ),
    (
        CookieOptions(sameSite="strict"),
        {"path": "/", "httponly": "", "samesite": "Strict"},
    ),
    (
        CookieOptions(sameSite="auto"),
        {"path": "/", "httponly": "", "samesite": "Lax"},
    ),
    (
        CookieOptions(domain="example.org"),
        {"path": "/", "httponly": "", "samesite": "Lax", "domain": "example.org"},
    ),
    (
        CookieOptions(priority="low"),
        {"path": "/", "httponly": "", "samesite": "Lax", "priority": "Low"},
    ),
    (
        CookieOptions(maxAge=timedelta(hours=1)),
        {
            "path": "/",
            "httponly": "",
            "samesite": "Lax",
            "max-age": "3600",
            "expires": "Fri, 15 Jan 2027 09:00:00 GMT",
        },
    ),
    (
        CookieOptions(expires=datetime(2027, 1, 15, 8, 0, 1, tzinfo=timezone.utc)),
        {
            "path": "/",
            "httponly": "",
            "samesite": "Lax",
            "max-age": "1",
            "expires": "Fri, 15 Jan 2027 08:00:01 GMT",
        },
    ),
]


@pytest.mark.parametrize(("options", "expected"), OPTIONS, ids=lambda v: repr(v)[:60])
@pytest_twisted.ensureDeferred
async def test_theCookieSaysWhatItsOptionsSay(serve, options, expected):
    """
    Each option becomes its attribute, and there are no others.
    """
    app = App()
    served = serve(app, cookie=options)
    reply = await app.visit(served.browser(), count)
    assert reply.cookie().attributes == expected


SECURE_OPTIONS: list[tuple[CookieOptions, dict[str, str], dict[str, str]]] = [
    (CookieOptions(sameSite=None), {"secure": ""}, {}),
    (CookieOptions(sameSite=None, secure=False), {}, {}),
    (
        CookieOptions(sameSite="auto"),
        {"secure": "", "samesite": "None"},
        {"samesite": "Lax"},
    ),
    (
        CookieOptions(sameSite="none"),
        {"secure": "", "samesite": "None"},
        {"samesite": "Lax"},
    ),
    (
        CookieOptions(sameSite="auto", secure=False),
        {"samesite": "Lax"},
        {"samesite": "Lax"},
    ),
    (
        CookieOptions(sameSite=None, partitioned=True),
        {"secure": "", "partitioned": ""},
        {},
    ),
]


@pytest.mark.parametrize(
    ("options", "secure", "plain"), SECURE_OPTIONS, ids=lambda v: repr(v)[:60]
)
@pytest_twisted.ensureDeferred
async def test_autoFollowsTheRequest(serve, options, secure, plain):
    """
    What "auto" comes to, and what only a Secure cookie may have, depends on
    whether the request was secure; also where the options come from a callable.
    """
    app = App()
    base = {"path": "/", "httponly": ""}
    for cookie in (options, lambda request: options):
        served = serve(app, cookie=cookie, proxy=True)
        reply = await app.visit(served.browser(), count, headers=HTTPS)
        assert reply.cookie().attributes == base | secure
        reply = await app.visit(served.browser(), count)
        assert reply.cookie().attributes == base | plain


@pytest.mark.parametrize(
    "options", [CookieOptions(sameSite="none"), CookieOptions(partitioned=True)]
)
@pytest_twisted.ensureDeferred
async def test_aWeakenedCookieIsLoggedOnce(serve, logged, options):
    """
    That SameSite=None or Partitioned had to be left out is a warning, once.
    """
    app = App()
    served = serve(app, cookie=options)
    for _ in range(3):
        await app.visit(served.browser(), count)
    warnings = texts(logged, LogLevel.warn)
    assert len(warnings) == 1
    assert "SameSite=None" in warnings[0]


class InFront(Resource):
    """
    Changes a request before the session resource gets it.
    """

    isLeaf = True

    def __init__(self, inner: Any, change: Any) -> None:
        super().__init__()
        self.inner = inner
        self.change = change

    def render(self, request: Any) -> Any:
        self.change(request)
        return self.inner.render(request)


PROXIES = [
    (None, "https", False),
    (False, "https", False),
    (True, "https", True),
    (True, "HTTPS", True),
    (True, " https ", True),
    (True, "https, http", True),
    (True, "http, https", False),
    (True, "http", False),
    (True, "", False),
    (True, "httpsx", False),
    (True, ["https", "http"], True),
    (True, ["http", "https"], False),
    ([], "https", False),
    (["127.0.0.0/8"], "https", True),
    (["10.0.0.0/8", "127.0.0.1"], "https", True),
    (["127.0.0.1/32"], "http", False),
    (["10.0.0.0/8"], "https", False),
    (("::/0",), "https", False),
]


@pytest.mark.parametrize(("proxy", "header", "isSecure"), PROXIES, ids=repr)
@pytest_twisted.ensureDeferred
async def test_onlyATrustedProxyMakesARequestSecure(serve, proxy, header, isSecure):
    """
    X-Forwarded-Proto counts by its first value, and only from whom proxy names.
    """
    app = App()
    served = serve(app, proxy=proxy)
    headers = {"X-Forwarded-Proto": header}
    reply = await app.visit(served.browser(), count, headers=headers)
    assert ("secure" in reply.cookie().attributes) is isSecure


PEERS = [
    (IPv4Address("TCP", "10.1.2.3", 1), True),
    (IPv4Address("TCP", "11.1.2.3", 1), False),
    (IPv6Address("TCP", "::ffff:10.1.2.3", 1), True),
    (IPv6Address("TCP", "::ffff:11.1.2.3", 1), False),
    (IPv6Address("TCP", "2001:db8::1", 1), True),
    (IPv6Address("TCP", "2001:db9::1", 1), False),
    (UNIXAddress("/run/web.sock"), False),
]


@pytest.mark.parametrize(("peer", "isSecure"), PEERS, ids=repr)
@pytest_twisted.ensureDeferred
async def test_theDirectPeerIsWhatMustBeInTheNetwork(serve, peer, isSecure):
    """
    The address that the connection comes from decides, an IPv4-mapped IPv6 one
    as the IPv4 address that it is.
    """
    app = App()
    served = serve(
        app,
        proxy=["10.0.0.0/8", "2001:db8::/32"],
        mount=lambda inner: InFront(inner, lambda r: setattr(r, "client", peer)),
    )
    reply = await app.visit(served.browser(), count, headers=HTTPS)
    assert ("secure" in reply.cookie().attributes) is isSecure


@pytest.mark.parametrize("proxy", [None, False, ["10.0.0.0/8"]])
@pytest_twisted.ensureDeferred
async def test_aTLSConnectionIsSecureWhateverProxySays(serve, proxy):
    """
    request.isSecure() is enough.
    """
    app = App()
    served = serve(
        app,
        proxy=proxy,
        cookie=CookieOptions(secure=True),
        mount=lambda inner: InFront(inner, lambda r: r.setHost(b"a.org", 443, True)),
    )
    headers = {"X-Forwarded-Proto": "http"}
    reply = await app.visit(served.browser(), count, headers=headers)
    assert "secure" in reply.cookie().attributes


@pytest_twisted.ensureDeferred
async def test_anInsecureRequestStartsNoSecureSession(serve, logged):
    """
    Where the cookie must be Secure and the request is not: no cookie, nothing
    stored, the response goes out, and one warning names the fix.
    """
    app = App()
    served = serve(app, cookie=CookieOptions(secure=True), saveUninitialized=True)
    for _ in range(3):
        reply = await app.visit(served.browser(), count)
        assert (reply.status, reply.text) == (200, "1")
        assert reply.setCookies == []
    assert await served.store.length() == 0
    warnings = texts(logged, LogLevel.warn)
    assert len(warnings) == 1
    assert "proxy=" in warnings[0]
    assert 'secure="auto"' in warnings[0]


@pytest_twisted.ensureDeferred
async def test_anInsecureRequestThatWantsNoCookieIsNotWarnedOf(serve, logged):
    """
    Where no cookie would have been sent, none is missed.
    """
    app = App()
    served = serve(app, cookie=CookieOptions(secure=True))
    await app.visit(served.browser(), lambda session: session.get("n"))
    assert texts(logged, LogLevel.warn) == []


@pytest_twisted.ensureDeferred
async def test_anInsecureRequestStillSavesAStoredSession(serve):
    """
    A session that was stored over HTTPS is saved over plain HTTP, too; only its
    cookie is not sent.
    """
    app = App()
    cookie = CookieOptions(secure=True, maxAge=3600)
    served = serve(app, cookie=cookie, proxy=True)
    browser = served.browser()
    reply = await app.visit(browser, count, headers=HTTPS)
    sid = reply.cookie().sid
    reply = await app.visit(browser, count)
    assert reply.setCookies == []
    assert await served.data(sid) == {"n": 2}


@pytest_twisted.ensureDeferred
async def test_aCookieMadeSecureByHandIsHeldBackToo(serve):
    """
    session.cookie.secure = True on an insecure request stores no new session.
    """
    app = App()
    served = serve(app)

    def act(session):
        session["n"] = 1
        session.cookie.secure = True

    reply = await app.visit(served.browser(), act)
    assert reply.setCookies == []
    assert await served.store.length() == 0


@pytest_twisted.ensureDeferred
async def test_theCookieIsSentOnlyWhenThereIsSomethingToTell(serve):
    """
    A browser that has the cookie is not sent it again, modified session or not,
    where it has no expiry.
    """
    app = App()
    served = serve(app)
    browser = served.browser()
    assert (await app.visit(browser, count)).cookie() is not None
    for act in (count, nothing, lambda session: session.touch()):
        served.clock.advance(10_000)
        assert (await app.visit(browser, act)).setCookies == []


@pytest_twisted.ensureDeferred
async def test_aCookieWithAnExpiryIsSentWhenTheSessionIsModified(serve):
    """
    With maxAge, a modified session's cookie is renewed, and an unmodified one's
    is not.
    """
    app = App()
    served = serve(app, cookie=CookieOptions(maxAge=3600))
    browser = served.browser()
    await app.visit(browser, count)
    served.clock.advance(60)
    assert (await app.visit(browser, nothing)).setCookies == []
    reply = await app.visit(browser, count)
    assert reply.cookie().attributes["expires"] == "Fri, 15 Jan 2027 09:01:00 GMT"


@pytest_twisted.ensureDeferred
async def test_rollingSendsTheCookieEachTime(serve):
    """
    With rolling, every response that has a stored session renews its cookie,
    and the record with it, whatever touchInterval says.
    """
    app = App()
    cookie = CookieOptions(maxAge=3600)
    served = serve(app, rolling=True, cookie=cookie, touchInterval=100_000)
    browser = served.browser()
    assert (await app.visit(browser, nothing)).setCookies == []
    sid = (await app.visit(browser, count)).cookie().sid
    for step in range(1, 4):
        served.clock.advance(1)
        reply = await app.visit(browser, nothing)
        assert reply.cookie().sid == sid
        assert reply.cookie().attributes["max-age"] == "3600"
        assert (await served.record(sid)).expires == START + step + 3600


@pytest_twisted.ensureDeferred
async def test_rollingDoesNotSendACookieOfANewSession(serve):
    """
    Rolling alone stores nothing, not even for a cookie that came and was not
    found.
    """
    app = App()
    served = serve(app, rolling=True)
    browser = served.browser()
    browser.cookies["connect.sid"] = signed("unknown")
    assert (await app.visit(browser, lambda s: s.get("n"))).setCookies == []
    assert await served.store.length() == 0


@pytest_twisted.ensureDeferred
async def test_anOldSecretsCookieIsReissued(serve):
    """
    A cookie that an older secret had signed is accepted and sent again under
    the newest, once; and not before the session is known.
    """
    app = App()
    clock = clockAt()
    store = MemoryStore(reactor=clock)
    old = serve(app, store=store, clock=clock, secret="old")
    both = serve(app, store=store, clock=clock, secret=["new", "old"])
    new = serve(app, store=store, clock=clock, secret=[b"new"])
    browser = old.browser()
    sid = (await app.visit(browser, count)).cookie().sid
    browser.port = both.port
    reply = await app.visit(browser, nothing)
    assert reply.cookie().sid == sid
    assert (await app.visit(browser, nothing)).setCookies == []
    browser.port = new.port
    assert (await app.visit(browser, count)).text == "2"
    browser.cookies["connect.sid"] = signed("unknown", "old")
    browser.port = both.port
    assert (await app.visit(browser, nothing)).setCookies == []


@pytest_twisted.ensureDeferred
async def test_aReissuedCookieDoesNotOutliveItsRecord(serve):
    """
    A cookie with an expiry that is sent again has the record renewed with it.
    """
    app = App()
    clock = clockAt()
    store = MemoryStore(reactor=clock)
    options = {"store": store, "clock": clock, "touchInterval": 3000}
    cookie = CookieOptions(maxAge=3600)
    old = serve(app, secret="old", cookie=cookie, **options)
    both = serve(app, secret=["new", "old"], cookie=cookie, **options)
    browser = old.browser()
    sid = (await app.visit(browser, count)).cookie().sid
    clock.advance(1000)
    browser.port = both.port
    reply = await app.visit(browser, nothing)
    left = int(reply.cookie().attributes["max-age"])
    record = await store.get(sid)
    assert record.expires >= clock.seconds() + left


@pytest_twisted.ensureDeferred
async def test_destroyExpiresTheCookieAsItWas(serve):
    """
    The expiring cookie has the name, path, domain and flags of the one it
    replaces, and no value.
    """
    app = App()
    cookie = CookieOptions(
        domain="example.org",
        path="/",
        sameSite="none",
        partitioned=True,
        priority="high",
        maxAge=60,
    )
    served = serve(app, cookie=cookie, proxy=True, name="sid")
    browser = served.browser()
    reply = await app.visit(browser, count, headers=HTTPS)
    sent = reply.cookie("sid").attributes
    reply = await app.visit(browser, lambda s: s.destroy(), headers=HTTPS)
    expiring = reply.cookie("sid")
    assert expiring.value == ""
    assert expiring.attributes["max-age"] == "0"
    assert expiring.attributes["expires"] == "Thu, 01 Jan 1970 00:00:00 GMT"
    for each in (sent, expiring.attributes):
        del each["max-age"], each["expires"]
    assert expiring.attributes == sent


# ttl and touching.


@pytest.mark.parametrize("ttl", [600, 600.0, timedelta(minutes=10)])
@pytest_twisted.ensureDeferred
async def test_ttlIsTheLifeOfARecordWithoutMaxAge(serve, ttl):
    """
    A record lives for ttl after its last touch, and then the browser gets a new
    session under a new ID.
    """
    app = App()
    served = serve(app, ttl=ttl)
    browser = served.browser()
    sid = (await app.visit(browser, count)).cookie().sid
    served.clock.advance(599)
    assert (await app.visit(browser, lambda s: str(s.get("n")))).text == "1"
    served.clock.advance(599)
    assert (await app.visit(browser, lambda s: str(s.get("n")))).text == "1"
    served.clock.advance(600)
    reply = await app.visit(browser, count)
    assert reply.text == "1"
    assert reply.cookie().sid != sid


TOUCHES = [
    ({"ttl": 1000}, 9.9, False),
    ({"ttl": 1000}, 10, True),
    ({"ttl": 1000, "touchInterval": 0}, 0, True),
    ({"ttl": 1000, "touchInterval": 60}, 59, False),
    ({"ttl": 1000, "touchInterval": 60}, 60, True),
    ({"ttl": 1000, "touchInterval": timedelta(minutes=1)}, 59, False),
    ({"ttl": 1000, "touchInterval": timedelta(minutes=1)}, 60, True),
    ({"cookie": CookieOptions(maxAge=500)}, 4.9, False),
    ({"cookie": CookieOptions(maxAge=500)}, 5, True),
    ({"cookie": CookieOptions(maxAge=500), "touchInterval": 0}, 0, True),
]


@pytest.mark.parametrize(("options", "wait", "isTouched"), TOUCHES, ids=repr)
@pytest_twisted.ensureDeferred
async def test_touchesAreThrottled(serve, options, wait, isTouched):
    """
    An unmodified session's expiry is renewed at most every touchInterval, by
    default every hundredth of its lifetime.
    """
    app = App()
    clock = clockAt()
    store = StepStore(MemoryStore(reactor=clock))
    served = serve(app, store=store, clock=clock, **options)
    browser = served.browser()
    sid = (await app.visit(browser, count)).cookie().sid
    lifetime = (await served.record(sid)).expires - START
    store.calls.clear()
    clock.advance(wait)
    await app.visit(browser, nothing)
    assert store.calls == (["get", "touch"] if isTouched else ["get"])
    renewed = START + lifetime + (wait if isTouched else 0)
    assert (await served.record(sid)).expires == pytest.approx(renewed)


@pytest_twisted.ensureDeferred
async def test_aSavedSessionIsNotTouchedAsWell(serve):
    """
    A save renews the expiry; no touch comes on top.
    """
    app = App()
    clock = clockAt()
    store = StepStore(MemoryStore(reactor=clock))
    browser = serve(app, store=store, clock=clock, touchInterval=0).browser()
    await app.visit(browser, count)
    await app.visit(browser, count)
    assert store.calls == ["create", "get", "replace"]


@pytest_twisted.ensureDeferred
async def test_aTouchNeverHoldsTheResponse(serve, logged):
    """
    The response goes out while the touch is under way; its failure is logged by
    fingerprint.
    """
    app = App()
    clock = clockAt()
    store = StepStore(MemoryStore(reactor=clock), held={"touch"})
    served = serve(app, store=store, clock=clock, touchInterval=0)
    browser = served.browser()
    sid = (await app.visit(browser, count)).cookie().sid
    for _ in range(2):
        reply = await app.visit(browser, nothing)
        assert reply.status == 200
    (await called(store, "touch")).fail(down())
    failed = texts(logged, LogLevel.error)
    assert len(failed) == 1
    assert fingerprint(sid) in failed[0]
    assert sid not in failed[0]
    clock.advance(10)
    late = texts(logged, LogLevel.error)
    assert len(late) == 2
    assert "10 seconds" in late[1]


@pytest_twisted.ensureDeferred
async def test_aTouchThatRaisesAtOnceHarmsNothing(serve, logged):
    """
    A store whose touch raises instead of failing later is logged likewise.
    """
    app = App()
    clock = clockAt()
    store = Faulty(MemoryStore(reactor=clock))

    def touch(sid, expires):
        raise ValueError("not today")

    store.touch = touch
    browser = serve(app, store=store, clock=clock, touchInterval=0).browser()
    await app.visit(browser, count)
    reply = await app.visit(browser, nothing)
    assert reply.status == 200
    assert any("not today" in text for text in texts(logged, LogLevel.error))


# Stores that can do less.


ABILITIES = [
    ("get", "set", "destroy"),
    ("get", "set", "destroy", "touch"),
    ("get", "set", "destroy", "create", "replace"),
    ("get", "set", "destroy", "create"),
    ("get", "set", "destroy", "replace"),
]


@pytest.mark.parametrize("methods", ABILITIES, ids="-".join)
@pytest_twisted.ensureDeferred
async def test_worksWithAStoreThatCanDoLess(serve, methods):
    """
    A session is made, read, changed, touched, regenerated and destroyed with
    whatever the store can do.
    """
    app = App()
    clock = clockAt()
    inner = MemoryStore(reactor=clock)
    served = serve(
        app, store=only(inner, *methods), clock=clock, ttl=600, touchInterval=0
    )
    browser = served.browser()
    sid = (await app.visit(browser, count)).cookie().sid
    assert (await app.visit(browser, count)).text == "2"
    clock.advance(1)
    await app.visit(browser, nothing)
    assert (await inner.get(sid)).expires == START + 601
    reply = await app.visit(browser, lambda session: session.regenerate(keepData=True))
    new = reply.cookie().sid
    assert list(await inner.all()) == [new]
    assert (await app.visit(browser, count)).text == "3"
    reply = await app.visit(browser, lambda session: session.destroy())
    assert reply.cookie().isExpired
    assert await inner.length() == 0


@pytest_twisted.ensureDeferred
async def test_aTouchByReplaceMayBeRefused(serve, logged):
    """
    Without touch, the expiry is renewed by replacing the record by itself; if
    it was changed meanwhile, that is left as it is and nothing is logged.
    """
    app = App()
    clock = clockAt()
    inner = MemoryStore(reactor=clock)
    limited = only(inner, "get", "set", "destroy", "create", "replace")
    served = serve(app, store=limited, clock=clock, touchInterval=0)
    browser = served.browser()
    sid = (await app.visit(browser, count)).cookie().sid
    theirs = Record(payload(n=5), START + 50)
    await app.visit(browser, lambda session: inner.set(sid, theirs))
    assert await inner.get(sid) == theirs
    await app.visit(browser, lambda session: inner.destroy(sid))
    assert await inner.get(sid) is None
    assert texts(logged, LogLevel.error) == []


# resave and saveUninitialized.


@pytest_twisted.ensureDeferred
async def test_resaveSavesWhatIsUnmodified(serve):
    """
    With resave a stored session is saved by every request, once, and a new one
    is not.
    """
    app = App()
    clock = clockAt()
    store = StepStore(MemoryStore(reactor=clock))
    browser = serve(app, store=store, clock=clock, resave=True).browser()
    await app.visit(browser, lambda session: session.get("n"))
    assert store.calls == []
    await app.visit(browser, count)
    store.calls.clear()
    await app.visit(browser, nothing)
    assert store.calls == ["get", "replace"]
    store.calls.clear()
    await app.visit(browser, lambda session: session.save())
    assert store.calls == ["get", "replace"]


@pytest_twisted.ensureDeferred
async def test_saveUninitializedSavesWhatIsNew(serve):
    """
    With saveUninitialized a new session is stored and sent, touched by the
    application or not; also in place of one that was not found.
    """
    app = App()
    served = serve(app, saveUninitialized=True)
    browser = served.browser()
    first = (await app.visit(browser, nothing)).cookie().sid
    assert await served.data(first) == {}
    assert (await app.visit(browser, nothing)).setCookies == []
    await served.store.clear()
    second = (await app.visit(browser, nothing)).cookie().sid
    assert second != first
    assert list(await served.store.all()) == [second]


# absoluteTimeout


@pytest_twisted.ensureDeferred
async def test_absoluteTimeoutEndsAnActiveSession(serve):
    """
    However active, a session ends absoluteTimeout after its creation, and
    neither its record nor its cookie is promised for longer.
    """
    app = App()
    cookie = CookieOptions(maxAge=60)
    served = serve(
        app, cookie=cookie, absoluteTimeout=100, rolling=True, touchInterval=0
    )
    browser = served.browser()
    sid = (await app.visit(browser, count)).cookie().sid
    served.clock.advance(50)
    assert (await app.visit(browser, count)).text == "2"
    served.clock.advance(30)
    reply = await app.visit(browser, nothing)
    assert reply.cookie().attributes["max-age"] == "20"
    assert (await served.record(sid)).expires == START + 100
    reply = await app.visit(browser, lambda s: str(sorted(s)))
    assert reply.text == "['n']"
    served.clock.advance(20)
    reply = await app.visit(browser, count)
    assert reply.text == "1"
    assert reply.cookie().sid != sid


@pytest_twisted.ensureDeferred
async def test_absoluteTimeoutHoldsWhateverTheStoreReturns(serve):
    """
    A record that the store still has, though it is too old, is not taken.
    """
    app = App()
    served = serve(app, absoluteTimeout=timedelta(seconds=100))
    browser = served.browser()
    sid = (await app.visit(browser, count)).cookie().sid
    await served.store.touch(sid, START + 10_000)
    served.clock.advance(100)
    reply = await app.visit(browser, count)
    assert reply.text == "1"
    assert reply.cookie().sid != sid


@pytest_twisted.ensureDeferred
async def test_absoluteTimeoutIsNotExtendedByRegenerate(serve):
    """
    regenerate(keepData=True) keeps the age; without the data a new life begins.
    """
    app = App()
    served = serve(app, absoluteTimeout=100)
    browser = served.browser()
    await app.visit(browser, count)
    served.clock.advance(60)
    reply = await app.visit(browser, lambda session: session.regenerate(keepData=True))
    assert (await served.record(reply.cookie().sid)).expires == START + 100
    served.clock.advance(30)

    async def restart(session):
        await session.regenerate()
        session["n"] = 10

    reply = await app.visit(browser, restart)
    assert (await served.record(reply.cookie().sid)).expires == START + 190
    served.clock.advance(30)
    assert (await app.visit(browser, count)).text == "11"


@pytest_twisted.ensureDeferred
async def test_aRecordWithoutATimeOfCreationIsBornAtItsFirstLoad(serve):
    """
    A session from before the option was switched on is saved at its first load,
    and lives absoluteTimeout from then.
    """
    app = App()
    clock = clockAt()
    store = MemoryStore(reactor=clock)
    browser = serve(app, store=store, clock=clock).browser()
    sid = (await app.visit(browser, count)).cookie().sid
    clock.advance(1000)
    served = serve(app, store=store, clock=clock, absoluteTimeout=100)
    browser.port = served.port
    await app.visit(browser, nothing)
    assert (await store.get(sid)).expires == START + 1100
    clock.advance(99)
    reply = await app.visit(browser, lambda s: f"{sorted(s)} {len(s)}")
    assert reply.text == "['n'] 1"
    await store.touch(sid, START + 90_000)
    clock.advance(1)
    assert (await app.visit(browser, count)).text == "1"


# What a stored document says.


@pytest_twisted.ensureDeferred
async def test_theRecordsExpiryCountsNotTheDocuments(serve):
    """
    A touch leaves the document's expires behind, so Record.expires decides,
    in both directions, whatever the store returns.
    """
    app = App()
    clock = clockAt()
    store = MemoryStore(reactor=clock)
    cookie = {"originalMaxAge": 60_000, "expires": "2020-01-01T00:00:00.000Z"}
    await store.set("kept", Record(payload(cookie, n=1), START + 30))
    served = serve(app, store=store, clock=clock)
    browser = served.browser()
    browser.cookies["connect.sid"] = signed("kept")

    def act(session):
        assert session.cookie.maxAge == 30
        assert session.cookie.originalMaxAge == 60
        assert session["n"] == 1

    await app.visit(browser, act)

    class Stale(MemoryStore):
        def get(self, sid):
            future = {"originalMaxAge": 60_000, "expires": "2099-01-01T00:00:00.000Z"}
            return succeed(Record(payload(future, n=1), START))

    stale = serve(app, store=Stale(reactor=clock), clock=clock)
    browser.port = stale.port
    reply = await app.visit(browser, count)
    assert reply.text == "1"
    assert reply.cookie().sid != "kept"


@pytest_twisted.ensureDeferred
async def test_onlyTheLifetimeOfAStoredCookieIsTakenBack(serve):
    """
    The other attributes come from today's options.
    """
    app = App()
    clock = clockAt()
    store = MemoryStore(reactor=clock)
    cookie = {
        "originalMaxAge": 60_000,
        "expires": "2027-01-15T08:01:00.000Z",
        "secure": False,
        "httpOnly": False,
        "path": "/old",
        "domain": "old.example",
        "sameSite": False,
    }
    await store.set("kept", Record(payload(cookie, n=1), START + 60))
    served = serve(
        app, store=store, clock=clock, cookie=CookieOptions(sameSite="strict")
    )
    browser = served.browser()
    browser.cookies["connect.sid"] = signed("kept")
    reply = await app.visit(browser, count)
    assert reply.text == "2"
    attributes = reply.cookie().attributes
    assert attributes.pop("expires")
    assert attributes == {
        "path": "/",
        "httponly": "",
        "samesite": "Strict",
        "max-age": "60",
    }
    stored = json.loads((await store.get("kept")).payload)["cookie"]
    assert (stored["httpOnly"], stored["path"]) == (True, "/")
    assert "domain" not in stored


CORRUPT = [
    b"",
    b"\xff\xfe",
    b"null",
    b"[]",
    b'"text"',
    b"5",
    b"{}",
    b'{"user":"ada"}',
    b'{"cookie":null}',
    b'{"cookie":[]}',
    b'{"cookie":{}',
    b'{"cookie":{"originalMaxAge":null}',
    b'{"cookie":{"originalMaxAge":null,"expires":null},"a":',
    b'{"cookie":{"originalMaxAge":60000},"a":\xff}',
    b'{"cookie":{"originalMaxAge":60000},"a":NaN}',
    b'{"cookie":{"originalMaxAge":null}}}',
    b"[" * 100_000,
]


@pytest.mark.parametrize("isLazy", [False, True])
@pytest.mark.parametrize("corrupt", CORRUPT, ids=lambda c: repr(c)[:40])
@pytest_twisted.ensureDeferred
async def test_aCorruptRecordIsA500(serve, logged, corrupt, isLazy):
    """
    A record that is not a session document is answered by 500, left untouched,
    and logged by fingerprint, whether that is found at the load or at the first
    access.
    """
    app = App()
    clock = clockAt()
    store = MemoryStore(reactor=clock)
    sid = "a-rather-long-identifier"
    record = Record(corrupt, START + 86400)
    await store.set(sid, record)
    served = serve(app, store=store, clock=clock, lazy=isLazy, touchInterval=0)
    browser = served.browser()
    browser.cookies["connect.sid"] = signed(sid)
    clock.advance(5)

    async def act(request):
        session = await getSession(request).load()
        session["n"] = session.get("n", 0) + 1
        return "all is well"

    reply = await app.visitRaw(browser, act, mayFail=True)
    assert reply.status == 500
    assert "all is well" not in reply.text
    assert reply.setCookies == []
    assert await store.get(sid) == record
    failures = "\n".join(texts(logged))
    assert "CorruptRecord" in failures
    assert fingerprint(sid) in failures
    assert sid not in failures


# Stores that are slow or fail.


@pytest.mark.parametrize("timeout", [10, 0.5, timedelta(seconds=3)])
@pytest_twisted.ensureDeferred
async def test_aLoadThatTakesTooLongIsCancelled(serve, timeout):
    """
    After storeTimeout a load is cancelled and answered by 503; the application
    is not called.
    """
    app = App()
    clock = clockAt()
    store = StepStore(MemoryStore(reactor=clock), held={"get"})
    served = serve(app, store=store, clock=clock, storeTimeout=timeout)
    browser = served.browser()
    await app.visit(browser, count)
    seen = []
    visiting = ensureDeferred(app.visit(browser, seen.append))
    call = await called(store, "get")
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    clock.advance(seconds - 0.25)
    assert not call.isCancelled
    clock.advance(0.25)
    reply = await visiting
    assert reply.status == 503
    assert reply.setCookies == []
    assert seen == []
    assert call.isCancelled


@pytest.mark.parametrize("succeeds", [True, False])
@pytest.mark.parametrize("operation", ["create", "replace", "destroy"])
@pytest_twisted.ensureDeferred
async def test_aWriteThatTakesTooLongIsLeftRunning(serve, logged, operation, succeeds):
    """
    After storeTimeout a write is answered by 503 and left to run; what becomes
    of it is logged by fingerprint.
    """
    app = App()
    clock = clockAt()
    store = StepStore(MemoryStore(reactor=clock))
    served = serve(app, store=store, clock=clock, unset="destroy")
    browser = served.browser()
    if operation != "create":
        await app.visit(browser, count)
    store.held = {operation}

    def act(request):
        getSession(request)["n"] = 5
        if operation == "destroy":
            request.unsetComponent(ISession)

    visiting = ensureDeferred(app.visitRaw(browser, act))
    call = await called(store, operation)
    clock.advance(10)
    reply = await visiting
    assert reply.status == 503
    assert reply.setCookies == []
    assert not call.isCancelled
    sid = call.arguments[0]
    before = len(texts(logged))
    if succeeds:
        call.release()
    else:
        call.fail(down())
    (late,) = texts(logged)[before:]
    assert operation in late
    assert ("gone fishing" in late) is not succeeds
    assert fingerprint(sid) in late
    assert sid not in late


@pytest_twisted.ensureDeferred
async def test_anAnswerInTimeLeavesNoTimerBehind(serve):
    """
    When a store has answered, nothing is left to happen later.
    """
    app = App()
    clock = clockAt()
    store = StepStore(MemoryStore(reactor=clock), held={"get", "replace", "create"})
    served = serve(app, store=store, clock=clock)
    browser = served.browser()
    visiting = ensureDeferred(app.visit(browser, count))
    (await called(store, "create")).release()
    await visiting
    visiting = ensureDeferred(app.visit(browser, count))
    (await called(store, "get")).release()
    (await called(store, "replace")).release()
    assert (await visiting).text == "2"
    assert clock.getDelayedCalls() == []


OUTAGES = {
    "unavailable": lambda call, clock: call.fail(down()),
    "timeout": lambda call, clock: clock.advance(10),
}


@pytest.mark.parametrize("outage", OUTAGES)
@pytest_twisted.ensureDeferred
async def test_storeDownErrorAnswers503(serve, outage):
    """
    With storeDown="error" a store that is down while loading is a 503, the
    application is not called, and the cookie is still good afterwards.
    """
    app = App()
    clock = clockAt()
    store = StepStore(MemoryStore(reactor=clock), held={"get"})
    browser = serve(app, store=store, clock=clock).browser()
    await app.visit(browser, count)
    visiting = ensureDeferred(app.visit(browser, count))
    OUTAGES[outage](await called(store, "get"), clock)
    reply = await visiting
    assert reply.status == 503
    assert reply.setCookies == []
    assert reply.text != "2"
    store.held = set()
    assert (await app.visit(browser, count)).text == "2"


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("outage", OUTAGES)
@pytest_twisted.ensureDeferred
async def test_storeDownAnonymousServesWithoutASession(serve, outage, lazy):
    """
    With storeDown="anonymous" the request is served without any session, no
    cookie is sent, and the session is still there afterwards.
    """
    app = App()
    clock = clockAt()
    store = StepStore(MemoryStore(reactor=clock))
    options = {"store": store, "clock": clock, "storeDown": "anonymous"}
    browser = serve(app, **options).browser()
    await app.visit(browser, count)
    browser.port = serve(app, rolling=True, lazy=lazy, **options).port
    store.held = {"get"}

    async def act(request):
        if lazy:
            with pytest.raises(NoSession):
                await getSession(request).load()
        assert ISession(request, None) is None
        with pytest.raises(NoSession):
            getSession(request)
        return "hello, whoever you are"

    visiting = ensureDeferred(app.visitRaw(browser, act))
    OUTAGES[outage](await called(store, "get"), clock)
    reply = await visiting
    assert (reply.status, reply.text) == (200, "hello, whoever you are")
    assert reply.setCookies == []
    store.held = set()
    browser.port = serve(app, **options).port
    assert (await app.visit(browser, count)).text == "2"


@pytest.mark.parametrize("storeDown", ["error", "anonymous"])
@pytest_twisted.ensureDeferred
async def test_anyOtherExceptionOfTheStoreIsA500(serve, storeDown):
    """
    A bug of the store is no outage.
    """
    app = App()
    clock = clockAt()
    store = Faulty(MemoryStore(reactor=clock))
    served = serve(app, store=store, clock=clock, storeDown=storeDown)
    browser = served.browser()
    await app.visit(browser, count)
    seen = []
    for error in (KeyError("k"), StoreError("broken"), OSError("disk")):
        store.errors = {"get": lambda error=error: error}
        reply = await app.visit(browser, seen.append)
        assert reply.status == 500
        assert reply.setCookies == []
    assert seen == []


@pytest_twisted.ensureDeferred
async def test_anUnavailableStoreIsNotAsked(serve):
    """
    While available is false, a request with a cookie is a 503 without a call of
    the store.
    """
    app = App()
    clock = clockAt()
    store = StepStore(MemoryStore(reactor=clock))
    browser = serve(app, store=store, clock=clock).browser()
    await app.visit(browser, count)
    store.calls.clear()
    store.store.available = False
    reply = await app.visit(browser, count)
    assert reply.status == 503
    assert store.calls == []
    store.store.available = True
    assert (await app.visit(browser, count)).text == "2"


@pytest_twisted.ensureDeferred
async def test_anUnavailableStoreMeansAnonymousForEverybody(serve):
    """
    While available is false, storeDown="anonymous" serves every request without
    a session, cookie or not, and asks the store nothing.
    """
    app = App()
    clock = clockAt()
    store = StepStore(MemoryStore(reactor=clock))
    options = {"storeDown": "anonymous", "saveUninitialized": True}
    served = serve(app, store=store, clock=clock, **options)
    browser = served.browser()
    await app.visit(browser, count)
    store.calls.clear()
    store.store.available = False
    for visitor in (browser, served.browser()):
        reply = await app.visitRaw(visitor, lambda r: str(ISession(r, None)))
        assert (reply.status, reply.text) == (200, "None")
        assert reply.setCookies == []
    assert store.calls == []
    assert browser.cookies


async def _raiseMissing(*arguments):
    raise FileNotFoundError("sessions/x.json")


def _raiseMissingAtOnce(*arguments):
    raise FileNotFoundError("sessions/x.json")


MISSING = {
    "raised": _raiseMissingAtOnce,
    "coroutine": _raiseMissing,
    "Deferred": lambda *arguments: fail(FileNotFoundError("sessions/x.json")),
}


@pytest.mark.parametrize("how", MISSING)
@pytest_twisted.ensureDeferred
async def test_aFileThatIsNotFoundIsAnAbsentSession(serve, how):
    """
    A get that fails with FileNotFoundError has found nothing.
    """
    app = App()
    clock = clockAt()
    store = Faulty(MemoryStore(reactor=clock))
    store.get = MISSING[how]
    served = serve(app, store=store, clock=clock)
    browser = served.browser()
    first = await app.visit(browser, count)
    second = await app.visit(browser, count)
    assert second.text == "1"
    assert second.cookie().sid != first.cookie().sid


class Answering:
    """
    A store that answers in a way of its own.
    """

    def __init__(self, store: Any, answer: Any) -> None:
        self.store = store
        self.answer = answer

    def __getattr__(self, operation: str) -> Any:
        method = getattr(self.store, operation)
        return lambda *arguments: self.answer(method(*arguments).result)


async def _coroutine(value):
    return value


async def _slowCoroutine(value):
    return await _later(value)


def _later(value):
    return Deferred.fromCoroutine(turn()).addCallback(lambda _: value)


ANSWERS = {
    "plain value": lambda value: value,
    "coroutine": _coroutine,
    "slow coroutine": _slowCoroutine,
    "fired Deferred": succeed,
    "Deferred": _later,
}


@pytest.mark.parametrize("how", ANSWERS)
@pytest_twisted.ensureDeferred
async def test_aStoreMayAnswerAsItLikes(serve, how):
    """
    A Deferred, a coroutine and a plain value are all the same.
    """
    app = App()
    clock = clockAt()
    inner = MemoryStore(reactor=clock)
    store = Answering(inner, ANSWERS[how])
    browser = serve(app, store=store, clock=clock, touchInterval=0).browser()
    await app.visit(browser, count)
    assert (await app.visit(browser, count)).text == "2"
    await app.visit(browser, nothing)
    await app.visit(browser, lambda session: session.regenerate(keepData=True))
    assert (await app.visit(browser, count)).text == "3"
    reply = await app.visit(browser, lambda session: session.destroy())
    assert reply.cookie().isExpired
    assert await inner.length() == 0


# IDs.


@pytest_twisted.ensureDeferred
async def test_genidMakesTheID(serve):
    """
    genid is given the request, and is only asked for a session that needs an
    ID.
    """
    app = App()
    asked = []

    def genid(request):
        asked.append(request.path)
        return f"id-{len(asked)}"

    served = serve(app, genid=genid)
    browser = served.browser()
    await app.visit(browser, lambda session: session.get("n"))
    assert asked == []
    reply = await app.visit(browser, count)
    assert reply.cookie().sid == "id-1"
    assert await served.data("id-1") == {"n": 1}
    await app.visit(browser, count)
    assert asked == [b"/1"]


UNSAFE = [
    "a b",
    "semi;colon,comma",
    'quo"te',
    "line\r\nSet-Cookie: evil=1",
    "nul\0",
    "per%41cent",
    "dots.and.dots.",
    "s:prefix",
    "ünï ☃ 😀",
    "/+=&?#",
    " ",
    "\\",
]


@pytest.mark.parametrize("sid", UNSAFE)
@pytest_twisted.ensureDeferred
async def test_unsafeCharactersOfAnIDAreEncoded(serve, sid):
    """
    Any text that genid returns travels through the cookie and back.
    """
    app = App()
    served = serve(app, genid=lambda request: sid)
    browser = served.browser()
    reply = await app.visit(browser, count)
    assert len(reply.setCookies) == 1
    assert reply.cookie().sid == sid
    value = reply.cookie().value
    assert value.isascii()
    assert not set(value) & set(' ";,\\\r\n\0')
    assert (await app.visit(browser, count)).text == "2"
    assert await served.data(sid) == {"n": 2}


def _brokenGenid(request):
    raise RuntimeError("no entropy")


BAD_IDS = {
    "None": lambda request: None,
    "empty": lambda request: "",
    "bytes": lambda request: b"bytes",
    "int": lambda request: 5,
    "surrogate": lambda request: "\ud800",
    "too long": lambda request: "x" * 5000,
    "raising": _brokenGenid,
}


@pytest.mark.parametrize("case", BAD_IDS)
@pytest_twisted.ensureDeferred
async def test_aBadIDFailsTheRequestClearly(serve, logged, case):
    """
    What is no ID is a 500 that is logged as genid's fault; nothing is stored.
    """
    app = App()
    served = serve(app, genid=BAD_IDS[case])
    reply = await app.visit(served.browser(), count)
    assert reply.status == 500
    assert reply.setCookies == []
    assert await served.store.length() == 0
    expected = "no entropy" if case == "raising" else "genid"
    assert any(expected in text for text in texts(logged))


@pytest_twisted.ensureDeferred
async def test_anIDThatIsTakenIsNotUsed(serve):
    """
    A new session whose ID is taken gets another one, and the other session
    stays what it was.
    """
    app = App()
    ids = iter(["taken", "taken", "taken", "free"])
    served = serve(app, genid=lambda request: next(ids))
    first = await app.visit(served.browser(), lambda s: s.update(user="ada"))
    second = await app.visit(served.browser(), lambda s: s.update(user="eve"))
    assert (first.cookie().sid, second.cookie().sid) == ("taken", "free")
    assert await served.data("taken") == {"user": "ada"}
    assert await served.data("free") == {"user": "eve"}


@pytest_twisted.ensureDeferred
async def test_aGenidThatKeepsCollidingIsAnError(serve):
    """
    When every ID is taken, saving fails with StoreError, and the response with
    500.
    """
    app = App()
    served = serve(app, genid=lambda request: "always")
    await app.visit(served.browser(), lambda s: s.update(user="ada"))

    async def act(session):
        session["user"] = "eve"
        with pytest.raises(StoreError, match="genid"):
            await session.save()

    reply = await app.visit(served.browser(), act)
    assert reply.status == 500
    assert reply.setCookies == []
    assert await served.data("always") == {"user": "ada"}


# cookie=callable


@pytest_twisted.ensureDeferred
async def test_aCallableForTheCookieIsAskedOnce(serve):
    """
    It is given the request, and its answer holds for the whole request.
    """
    app = App()
    asked = []

    def cookie(request):
        asked.append(request.path)
        return CookieOptions(maxAge=60 * len(asked))

    served = serve(app, cookie=cookie)
    browser = served.browser()

    async def act(session):
        session["n"] = 1
        assert session.cookie.path == "/"
        await session.save()
        await session.regenerate()
        session["n"] = 2

    reply = await app.visit(browser, act)
    assert reply.cookie().attributes["max-age"] == "60"
    assert asked == [b"/0"]
    await app.visit(browser, nothing)
    assert asked == [b"/0", b"/1"]


def _brokenCookie(request):
    raise RuntimeError("no cookies left")


BAD_COOKIES = {
    "None": lambda request: None,
    "dict": lambda request: {"maxAge": 5},
    "bad options": lambda request: CookieOptions(maxAge=-1),
    "not for this name": lambda request: CookieOptions(secure="auto"),
    "raising": _brokenCookie,
}


@pytest.mark.parametrize("case", BAD_COOKIES)
@pytest_twisted.ensureDeferred
async def test_aCallablesWrongAnswerIsA500(serve, case):
    """
    What a callable returns is checked at the request.
    """
    app = App()
    served = serve(app, cookie=BAD_COOKIES[case], name="__Secure-sid")
    seen = []
    reply = await app.visit(served.browser(), seen.append)
    assert reply.status == 500
    assert seen == []


# Cookies in.


FORGED = [
    "",
    "s:",
    "s%3A",
    "plain",
    "s:id",
    "s%3Aid.",
    "s%3A.sig",
    "s%3Aid.sig",
    signed("id", "another secret"),
    signed("id")[:-1],
    signed("id") + "A",
    signed("id").replace("id", "ix"),
    "j%3A%7B%7D",
    "%",
    "%ff%fe",
    "%E0%80",
    '"',
    '""',
]


@pytest.mark.parametrize("value", FORGED)
@pytest_twisted.ensureDeferred
async def test_whatIsNotSignedIsAsIfNotSent(serve, value):
    """
    An unsigned, forged or malformed cookie gives a new session, without a call
    of the store.
    """
    app = App()
    clock = clockAt()
    store = StepStore(MemoryStore(reactor=clock))
    await store.store.set("id", Record(payload(n=41), START + 60))
    served = serve(app, store=store, clock=clock)
    headers = {"Cookie": f"connect.sid={value}"}
    reply = await app.visit(served.browser(), count, headers=headers)
    assert reply.text == "1"
    assert reply.cookie().sid != "id"
    assert store.calls == ["create"]


COOKIE_HEADERS = [
    "connect.sid={good}",
    'connect.sid="{good}"',
    "connect.sid={raw}",
    'connect.sid="{raw}"',
    "  connect.sid = {good}  ",
    "a=1; connect.sid={good}; b=2",
    "a=1;connect.sid={good};b=2",
    "connect.sid={bad}; connect.sid={good}",
    "connect.sid={good}; connect.sid={bad}",
    "connect.sid={good}; connect.sid={other}",
    "connect.sid; =; ;; connect.sid={good}",
    'a="; connect.sid={good}',
    ["connect.sid={bad}", "connect.sid={good}"],
    ["a=1", "b=2; connect.sid={good}"],
    "; ".join(["connect.sid={bad}"] * 7 + ["connect.sid={good}"]),
]


@pytest.mark.parametrize("header", COOKIE_HEADERS, ids=lambda h: str(h)[:50])
@pytest_twisted.ensureDeferred
async def test_theFirstGoodCookieCounts(serve, header):
    """
    Every cookie of the name is tried, in order, quoted or percent-encoded or
    neither, in however many headers.
    """
    app = App()
    served = serve(app)
    await served.store.set("id", Record(payload(n=41), START + 60))
    values = {
        "good": signed("id"),
        "raw": Signer(SECRET).sign("id").decode(),
        "bad": signed("id", "another secret"),
        "other": signed("not stored"),
    }
    headers = [header] if isinstance(header, str) else header
    sent = {"Cookie": [each.format(**values) for each in headers]}
    reply = await app.visit(served.browser(), count, headers=sent)
    assert reply.text == "42"


OTHER_HEADERS = [
    "; ".join(["connect.sid={bad}"] * 8 + ["connect.sid={good}"]),
    "connect.sid={other}; connect.sid={good}",
    "Connect.Sid={good}",
    "xconnect.sid={good}",
    "connect.sidx={good}",
    "a=connect.sid={good}",
]


@pytest.mark.parametrize("header", OTHER_HEADERS, ids=lambda h: str(h)[:50])
@pytest_twisted.ensureDeferred
async def test_noOtherCookieCounts(serve, header):
    """
    A ninth cookie of the name, one after the first that is signed, or one of
    another name is not looked at.
    """
    app = App()
    served = serve(app)
    await served.store.set("id", Record(payload(n=41), START + 60))
    sent = header.format(
        good=signed("id"), bad=signed("id", "no"), other=signed("not stored")
    )
    reply = await app.visit(served.browser(), count, headers={"Cookie": sent})
    assert reply.text == "1"


_pieces = st.sampled_from(
    [
        b"connect.sid=",
        b"connect.sid",
        b"s:",
        b"s%3A",
        b";",
        b"=",
        b'"',
        b".",
        b"%",
        b"%2",
        b"%00",
        b"%ff",
        b"\xff",
        b" ",
        b"\t",
        signed("id").encode()[2:],
    ]
)
_headers = st.lists(_pieces | st.binary(max_size=12), max_size=20).map(
    lambda parts: b"".join(parts).translate(None, b"\r\n\0")
)


def exchange(site: Any, sent: bytes) -> bytes:
    """
    What the site answers to these bytes, with nothing between.
    """
    transport = StringTransport()
    channel = site.buildProtocol(transport.getPeer())
    channel.makeConnection(transport)
    channel.dataReceived(sent)
    channel.connectionLost(Failure(ConnectionDone()))
    return transport.value()


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(header=_headers)
def test_anyCookieHeaderGivesAtWorstANewSession(serve, header):
    """
    Whatever bytes a client sends as its cookies, the request is served, with a
    new session.
    """
    app = App()
    clock = clockAt()
    store = StepStore(MemoryStore(reactor=clock))
    served = serve(app, store=store, clock=clock)
    app.acts[b"/"] = lambda request: count(getSession(request))
    sent = (
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nCookie: %b\r\n\r\n" % header
    )
    received = exchange(served.site, sent)
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert head.lower().count(b"\r\nset-cookie: connect.sid=s%3a") == 1
    assert b"\r\n1\r\n" in body or body == b"1"
    assert "get" not in store.calls


# Configuration.


WRONG_OPTIONS: list[tuple[str, Any]] = [
    ("secret", ""),
    ("secret", b""),
    ("secret", []),
    ("secret", ()),
    ("secret", ["good", ""]),
    ("secret", ["good", None]),
    ("secret", None),
    ("secret", 5),
    ("secret", "\ud800"),
    ("store", object()),
    ("store", "memory:"),
    ("store", MemoryStore),
    ("store", only(MemoryStore(), "get", "set")),
    ("name", ""),
    ("name", "two words"),
    ("name", "a;b"),
    ("name", "a=b"),
    ("name", "ünï"),
    ("name", "a\r\nb"),
    ("name", "x" * 5000),
    ("name", b"sid"),
    ("name", None),
    ("name", "__Host-sid"),
    ("name", "__Secure-sid"),
    ("cookie", {}),
    ("cookie", {"maxAge": 5}),
    ("cookie", "path=/"),
    ("cookie", CookieOptions),
    ("genid", "uuid"),
    ("genid", 5),
    ("proxy", "10.0.0.0/8"),
    ("proxy", ["ten"]),
    ("proxy", ["10.0.0.0/64"]),
    ("proxy", [None]),
    ("proxy", 1),
    ("resave", 1),
    ("resave", None),
    ("rolling", "yes"),
    ("saveUninitialized", 0),
    ("unset", "drop"),
    ("unset", True),
    ("unset", None),
    ("ttl", 0),
    ("ttl", -1),
    ("ttl", None),
    ("ttl", "86400"),
    ("ttl", True),
    ("ttl", float("nan")),
    ("ttl", float("inf")),
    ("ttl", 10**400),
    ("ttl", timedelta(0)),
    ("absoluteTimeout", 0),
    ("absoluteTimeout", -5),
    ("absoluteTimeout", "day"),
    ("absoluteTimeout", float("inf")),
    ("touchInterval", -1),
    ("touchInterval", "often"),
    ("touchInterval", float("nan")),
    ("onConflict", "ignore"),
    ("onConflict", None),
    ("lazy", 1),
    ("cacheHeaders", "no"),
    ("storeTimeout", 0),
    ("storeTimeout", None),
    ("storeTimeout", float("inf")),
    ("storeDown", "ignore"),
    ("storeDown", None),
    ("onError", "page"),
    ("reactor", object()),
]


@pytest.mark.parametrize(("option", "value"), WRONG_OPTIONS, ids=lambda v: repr(v)[:40])
def test_aWrongOptionIsRefusedByName(option, value):
    """
    Whatever is wrong is a ConfigurationError at construction that names the
    option.
    """
    options = {"secret": SECRET, "store": MemoryStore(), option: value}
    with pytest.raises(ConfigurationError) as caught:
        SessionResource(Page(lambda request: b""), **options)
    assert caught.value.option == option
    assert option in str(caught.value)
    assert isinstance(caught.value, ValueError)


WRONG_NAMES = [
    ("__Host-sid", CookieOptions(secure=True, path="/app")),
    ("__Host-sid", CookieOptions(secure=True, domain="example.org")),
    ("__Host-sid", CookieOptions(secure="auto")),
    ("__Secure-sid", CookieOptions(secure=False)),
    ("__HOST-sid", CookieOptions(secure=True, path="/app")),
]


@pytest.mark.parametrize(("name", "cookie"), WRONG_NAMES, ids=repr)
def test_aNamesPrefixDemandsItsOptions(name, cookie):
    """
    __Host- and __Secure- names are refused without what browsers demand.
    """
    with pytest.raises(ConfigurationError, match="sid"):
        SessionResource(Page(lambda r: b""), secret=SECRET, name=name, cookie=cookie)


@pytest.mark.parametrize("wrapped", [None, object(), "page", Resource, 5])
def test_whatIsNoResourceIsRefused(wrapped):
    """
    Only an IResource, or an object whose resource() gives one, can be wrapped.
    """
    with pytest.raises(ConfigurationError) as caught:
        SessionResource(wrapped, secret=SECRET)
    assert caught.value.option == "wrapped"


def test_anUnknownOptionIsRefused():
    """
    There are no options but those.
    """
    with pytest.raises(TypeError, match="key"):
        SessionResource(Page(lambda request: b""), secret=SECRET, key="sid")


def test_theSecretIsRequired():
    """
    There is no default for the secret.
    """
    with pytest.raises(TypeError, match="secret"):
        SessionResource(Page(lambda request: b""))


def test_anErrorNeverShowsTheSecret():
    """
    What is wrong beside the secret does not bring the secret to light.
    """
    with pytest.raises(ConfigurationError) as caught:
        SessionResource(Page(lambda r: b""), secret=["swordfish", 5])
    assert "swordfish" not in str(caught.value)
    with pytest.raises(ConfigurationError) as caught:
        SessionResource(Page(lambda r: b""), secret={"swordfish"})
    assert "swordfish" not in str(caught.value)


WRONG_COOKIES: list[tuple[str, dict[str, Any]]] = [
    ("path", {"path": ""}),
    ("path", {"path": "app"}),
    ("path", {"path": None}),
    ("path", {"path": "/a;b"}),
    ("path", {"path": "/a\nb"}),
    ("path", {"path": "/ü"}),
    ("path", {"path": "/" * 2000}),
    ("domain", {"domain": ""}),
    ("domain", {"domain": "a;b"}),
    ("domain", {"domain": "a b"}),
    ("domain", {"domain": "a\r\nb"}),
    ("domain", {"domain": 5}),
    ("domain", {"domain": "x." * 1000 + "org"}),
    ("maxAge", {"maxAge": 0}),
    ("maxAge", {"maxAge": -1}),
    ("maxAge", {"maxAge": "60"}),
    ("maxAge", {"maxAge": float("nan")}),
    ("maxAge", {"maxAge": float("inf")}),
    ("maxAge", {"maxAge": timedelta(0)}),
    ("maxAge", {"maxAge": True}),
    ("expires", {"expires": datetime(2030, 1, 1)}),
    ("expires", {"expires": 1_900_000_000}),
    ("expires", {"expires": "tomorrow"}),
    ("httpOnly", {"httpOnly": 1}),
    ("httpOnly", {"httpOnly": None}),
    ("secure", {"secure": "yes"}),
    ("secure", {"secure": None}),
    ("secure", {"secure": 1}),
    ("sameSite", {"sameSite": "loose"}),
    ("sameSite", {"sameSite": 1}),
    ("sameSite", {"sameSite": "none", "secure": False}),
    ("priority", {"priority": "urgent"}),
    ("priority", {"priority": 1}),
    ("partitioned", {"partitioned": 1}),
    ("partitioned", {"partitioned": True, "secure": False}),
]


@pytest.mark.parametrize(
    ("option", "options"), WRONG_COOKIES, ids=lambda v: str(v)[:50]
)
def test_aWrongCookieOptionIsRefusedByName(option, options):
    """
    CookieOptions checks itself when it is built.
    """
    with pytest.raises(ConfigurationError) as caught:
        CookieOptions(**options)
    assert caught.value.option == f"cookie.{option}"
    assert option in str(caught.value)


def test_cookieOptionsAreFrozen():
    """
    Options cannot be changed behind the resource's back.
    """
    with pytest.raises(AttributeError):
        CookieOptions().path = "/x"


@pytest.mark.parametrize(
    "statement",
    [
        "pass",
        "SessionResource(Resource(), secret='x')",
        "SessionResource(Resource(), secret='x', cookie=CookieOptions(maxAge=5), "
        "proxy=['::1'], absoluteTimeout=5, storeTimeout=5)",
        "SessionResource(Resource(), secret='x', cookie=lambda request: None)",
        "import txsession.command, txsession.serving, txsession.tap, txsession.testing",
        "import txsession.tapoptions, twisted.plugins.txsession_plugin",
    ],
)
def test_importAndConstructionInstallNoReactor(statement):
    """
    Neither importing txsession nor building its resource installs a reactor, or
    imports what would.
    """
    program = f"""if True:
        import sys
        from txsession import CookieOptions, MemoryStore, SessionResource
        from twisted.web.resource import Resource
        {statement}
        bad = ["twisted.internet.reactor", "klein", "txredisapi", "psycopg"]
        sys.exit(" ".join(name for name in bad if name in sys.modules) or 0)
    """
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


# Logging.


def test_theDefaultStoreIsLoggedOnce(logged):
    """
    Building a resource without a store says so once, as information; with one
    it says nothing.
    """
    SessionResource(Page(lambda request: b""), secret=SECRET)
    (text,) = texts(logged, LogLevel.info)
    assert "memory" in text
    SessionResource(Page(lambda request: b""), secret=SECRET, store=MemoryStore())
    assert len(texts(logged)) == 1


@pytest_twisted.ensureDeferred
async def test_decisionsAreLoggedForDebugging(serve, logged):
    """
    Each request's decision is a debug event with the session's fingerprint.
    """
    app = App()
    served = serve(app, touchInterval=0)
    browser = served.browser()
    sid = (await app.visit(browser, count)).cookie().sid
    for act in (count, nothing, lambda session: session.destroy()):
        before = len(texts(logged, LogLevel.debug))
        await app.visit(browser, act)
        (decision,) = texts(logged, LogLevel.debug)[before:]
        assert fingerprint(sid) in decision


@pytest_twisted.ensureDeferred
async def test_nothingLoggedShowsAnIDACookieOrASecret(serve, logged):
    """
    Whatever goes well or wrong, no event, no traceback and no field of one
    shows an ID, a cookie value, or a secret.
    """
    app = App()
    clock = clockAt()
    store = Faulty(MemoryStore(reactor=clock))
    secrets = ["first swordfish", "second swordfish"]
    options = {"store": store, "clock": clock, "touchInterval": 0, "rolling": True}
    served = serve(app, secret=secrets, absoluteTimeout=500, **options)
    browser = served.browser()
    hidden = set(secrets)
    asked = {"X-Forwarded-Proto": "https"}

    async def visit(act, **options):
        reply = await app.visitRaw(
            browser, lambda r: act(getSession(r)), mayFail=True, **options
        )
        for cookie in map(str, reply.setCookies):
            value = cookie.partition(";")[0].partition("=")[2]
            hidden.add(value)
        if reply.setCookies and reply.cookie().value:
            hidden.add(reply.cookie().sid)
        return reply

    async def explode(session):
        await session.save()
        raise RuntimeError("boom")

    async def conflict(session):
        await store.store.destroy(session.id)
        session["n"] = 9

    async def moved(session):
        await session.regenerate(keepData=True)

    await visit(count)
    for operation in ("get", "replace", "touch", "destroy", "create"):
        for error in (down, lambda: KeyError("k"), lambda: SessionConflict("c")):
            store.errors = {operation: error}
            for act in (nothing, count, explode, moved, lambda s: s.destroy()):
                await visit(act)
                store.errors, kept = {}, store.errors
                await visit(count, headers=asked)
                store.errors = kept
    store.errors = {}
    await visit(count)
    await visit(conflict)
    sid = (await visit(count)).cookie().sid
    await store.store.set(sid, Record(b"{", START + 100))
    await visit(count)
    assert len(hidden) > 5
    shown = []
    for event in logged:
        shown.append(eventAsText(event))
        shown.append(repr(event))
        if "log_failure" in event:
            shown.append(event["log_failure"].getTraceback(detail="verbose"))
    text = "\n".join(shown)
    assert "boom" in text
    assert fingerprint(sid) in text
    hidden.discard("")
    assert [secret for secret in hidden if secret in text] == []


@pytest_twisted.ensureDeferred
async def test_aLifetimeThatCannotBeSavedIsNoLateChange(serve, logged):
    """
    A lifetime set in a new session whose cookie cannot be sent is warned of once,
    not as a change that came too late.
    """
    app = App()
    served = serve(app, cookie=CookieOptions(secure=True))
    for _ in range(3):
        await app.visit(
            served.browser(), lambda session: setattr(session.cookie, "maxAge", 60)
        )
    (warning,) = texts(logged, LogLevel.warn)
    assert "plain HTTP" in warning


@pytest_twisted.ensureDeferred
async def test_aSessionEndedOnPurposeIsNoLateChange(serve, logged):
    """
    A new session that is given no time to live leaves no warning.
    """
    app = App()

    def act(session):
        session["a"] = 1
        session.cookie.maxAge = -1

    await app.visit(serve(app).browser(), act)
    assert texts(logged, LogLevel.warn) == []


@pytest.mark.parametrize("store", ["redis://:passw0rd@host/0", object()])
def test_whatIsNoStoreIsNotShown(store):
    """
    A URL given for a store is refused with the way to make one of it, and
    without what may be its password.
    """
    with pytest.raises(ConfigurationError) as caught:
        SessionResource(Page(lambda request: b""), secret="s", store=store)
    assert "passw0rd" not in str(caught.value)
    assert ("storeFromURL(url)" in str(caught.value)) is isinstance(store, str)


@pytest_twisted.ensureDeferred
async def test_onErrorSeesALazyLoadThatAStoreSpoils(serve):
    """
    With lazy=True, too, a load that fails by a bug of the store is what onError
    answers.
    """
    app = App()
    clock = clockAt()
    memory = MemoryStore(reactor=clock)
    first = serve(app, store=memory, clock=clock).browser()
    await app.start(first, user="ada")
    seen: list[Any] = []

    def onError(request, failure):
        seen.append((request.code, failure.type))
        return b"sorry"

    served = serve(
        app,
        store=Faulty(memory, {"get": lambda: ZeroDivisionError("bug")}),
        clock=clock,
        lazy=True,
        onError=onError,
    )
    browser = Browser(served.port, first.cookies)
    reply = await app.visit(browser, lambda session: session.load(), mayFail=True)
    assert (reply.status, reply.text) == (500, "sorry")
    assert seen == [(500, ZeroDivisionError)]


@pytest.mark.parametrize("operation", ["get", "replace", "touch"])
@pytest_twisted.ensureDeferred
async def test_anIDInAnErrorOfTheStoreIsNotLogged(serve, logged, operation):
    """
    An ID in the message of a store's exception, or of its cause, is logged as its
    fingerprint.
    """
    app = App()
    clock = clockAt()
    store = Faulty(MemoryStore(reactor=clock))
    served = serve(app, store=store, clock=clock, touchInterval=0)
    browser = served.browser()
    sid = await app.start(browser, n=1)

    def spoilt() -> Exception:
        error = KeyError(f"no {sid}", 5)
        error.__cause__ = PermissionError(13, "denied", f"/sessions/{sid}.json")
        error.__cause__.__cause__ = error
        return error

    store.errors = {operation: spoilt}

    def act(session):
        if operation == "replace":
            session["n"] = 2

    await app.visit(browser, act)
    failures = [e["log_failure"] for e in logged if "log_failure" in e]
    assert failures
    told = "".join(
        formatEvent(event) + str(event.get("log_failure", "")) for event in logged
    )
    told += "".join(f"{f.value!r} {f.value.__cause__!r}" for f in failures)
    assert sid not in told
    assert fingerprint(sid) in told


@pytest_twisted.ensureDeferred
async def test_aRecordThatLivesLongerIsNotCutShort(serve):
    """
    Looking at a session whose record lives longer than the ttl of now writes
    nothing.
    """
    app = App()
    clock = clockAt()
    store = StepStore(MemoryStore(reactor=clock))
    served = serve(app, store=store, clock=clock)
    browser = served.browser()
    sid = await app.start(browser, n=1)
    record = await served.record(sid)
    await store.store.set(sid, Record(record.payload, START + 10**8))
    del store.calls[:]
    await app.visit(browser, lambda session: str(session["n"]))
    assert store.calls == ["get"]


@pytest_twisted.ensureDeferred
async def test_aSaveWaitsForATouchThatIsUnderWay(serve):
    """
    A touch that is still under way does not hold the response, but a later save
    of the same session waits for it, so that it is the save that sets the expiry.
    """
    app = App()
    clock = clockAt()
    store = StepStore(MemoryStore(reactor=clock))
    served = serve(app, store=store, clock=clock, touchInterval=0)
    browser = served.browser()
    sid = await app.start(browser, n=1)
    saving: list[Any] = []

    def act(request):
        session = getSession(request)
        request.write(b"begun ")
        session.cookie.maxAge = 10_000_000
        saving.append(session.save())
        return b"and done"

    store.held = {"touch"}
    visiting = ensureDeferred(app.visitRaw(browser, act))
    call = await called(store, "touch")
    await turn()
    assert "replace" not in store.calls
    store.held = set()
    call.release()
    assert (await visiting).text == "begun and done"
    assert (await served.record(sid)).expires == START + 10_000_000


@pytest_twisted.ensureDeferred
async def test_attributesAreNotTheData(serve):
    """
    Looking for the data among the attributes, as in JavaScript, is told the way.
    """
    app = App()

    def act(session):
        with pytest.raises(AttributeError, match=r"session\['user'\]"):
            _ = session.user

    await app.visit(serve(app).browser(), act)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, []),
        ({"ttl": 400 * 86400, "cookie": CookieOptions(maxAge=400 * 86400)}, []),
        ({"ttl": 86_400_000}, ["ttl is 1000 days"]),
        (
            {"cookie": CookieOptions(maxAge=1_209_600_000)},
            ["cookie.maxAge is 14000 days"],
        ),
    ],
)
def test_millisecondsAreWarnedOf(logged, options, expected):
    """
    A lifetime longer than browsers keep a cookie is mostly one in milliseconds.
    """
    SessionResource(
        Page(lambda request: b""), secret="s", store=MemoryStore(), **options
    )
    warnings = texts(logged, LogLevel.warn)
    assert len(warnings) == len(expected)
    assert all(
        text in warning for text, warning in zip(expected, warnings, strict=True)
    )


@pytest_twisted.ensureDeferred
async def test_theLogSaysWhichRequestItWas(serve, logged):
    """
    What cannot be stored is logged with the request whose session it was in, and
    the visitor is not told to try again.
    """
    app = App()

    def act(session):
        session["list"] = []
        session["list"].append({1})

    reply = await app.visit(serve(app).browser(), act)
    assert reply.status == 500
    assert "try again" not in reply.text
    (text,) = texts(logged, LogLevel.critical)
    assert "uri=/0" in text
    assert "session['list'][0] is of type set" in text
