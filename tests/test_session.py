"""
The session as the application holds it: its data, its cookie, its verbs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, MutableMapping
from datetime import datetime, timedelta, timezone
from inspect import iscoroutine
from typing import Any

import pytest
import pytest_twisted
from attrs import define, field
from twisted.internet.defer import Deferred, ensureDeferred, fail

from txsession import (
    ConfigurationError,
    CookieOptions,
    HeadersAlreadySent,
    ISession,
    MemoryStore,
    NoSession,
    Session,
    SessionDataError,
    SessionDestroyed,
    SessionGone,
    SessionNotLoaded,
    StoreUnavailable,
    getSession,
)

from .support import START, Browser, Reply, StepStore, called, clockAt, turn


def down() -> StoreUnavailable:
    return StoreUnavailable("gone fishing")


class App:
    """
    A resource each of whose requests does what its test says.
    """

    def __init__(self) -> None:
        self.acts: dict[bytes, Callable[[Any], Any]] = {}

    def __call__(self, request: Any) -> Any:
        return self.acts[request.path](request)

    async def visit(
        self, browser: Browser, act: Callable[[Session], Any], **options: Any
    ) -> Reply:
        """
        Send a request in which this is done with its session.  What is raised
        there is raised here.
        """
        return await self.visitRaw(browser, lambda r: act(getSession(r)), **options)

    async def visitRaw(
        self,
        browser: Browser,
        act: Callable[[Any], Any],
        mayFail: bool = False,
        **options: Any,
    ) -> Reply:
        """
        Send a request to which this is done.

        @param mayFail: leave what it raises to the server.
        """
        raised: list[BaseException] = []

        async def watch(work: Any) -> Any:
            try:
                return await work
            except BaseException as error:
                raised.append(error)
                raise

        def run(request: Any) -> Any:
            try:
                result = act(request)
            except BaseException as error:
                raised.append(error)
                raise
            isAwaited = iscoroutine(result) or isinstance(result, Deferred)
            return watch(result) if isAwaited else result

        path = f"/{len(self.acts)}"
        self.acts[path.encode()] = run
        reply = await browser.get(path, **options)
        if raised and not (mayFail and isinstance(raised[0], Exception)):
            raise raised[0]
        return reply

    async def start(self, browser: Browser, **data: Any) -> str:
        """
        Store a session for the browser.

        @return: its ID.
        """
        reply = await self.visit(browser, lambda session: session.update(data))
        cookie = reply.cookie()
        assert cookie is not None
        return cookie.sid


@define(eq=False, slots=False)
class Faulty:
    """
    A store of which some operations fail.
    """

    store: Any
    errors: dict[str, Callable[[], Exception]] = field(factory=dict)

    def __getattr__(self, operation: str) -> Any:
        method = getattr(self.store, operation)
        if operation not in self.errors:
            return method
        return lambda *arguments: fail(self.errors[operation]())


def cookieOf(payload: bytes) -> dict[str, Any]:
    cookie: dict[str, Any] = json.loads(payload)["cookie"]
    return cookie


# The mapping.


@pytest_twisted.ensureDeferred
async def test_isAMutableMappingOfItsDataAlone(serve):
    """
    All that a mapping can do, a session can, and the cookie is no part of it.
    """
    app = App()
    browser = serve(app).browser()

    def act(session):
        assert isinstance(session, MutableMapping)
        assert dict(session) == {}
        session["a"] = 1
        session.update(b=2, c=3)
        assert session.setdefault("d", 4) == 4
        assert session.pop("c") == 3
        assert session.get("c", "none") == "none"
        del session["b"]
        assert list(session) == ["a", "d"]
        assert list(session.items()) == [("a", 1), ("d", 4)]
        assert len(session) == 2
        assert "a" in session
        assert "cookie" not in session
        assert session == {"a": 1, "d": 4}
        with pytest.raises(KeyError, match="missing"):
            session["missing"]
        with pytest.raises(KeyError, match="missing"):
            del session["missing"]

    await app.visit(browser, act)
    seen = []
    await app.visit(browser, lambda session: seen.append(dict(session)))
    assert seen == [{"a": 1, "d": 4}]


@pytest_twisted.ensureDeferred
async def test_clearLeavesAnEmptySession(serve):
    """
    A session whose data was cleared is stored, empty, under the same ID.
    """
    app = App()
    served = serve(app)
    browser = served.browser()
    sid = await app.start(browser, a=1, b=2)
    await app.visit(browser, lambda session: session.clear())
    assert await served.data(sid) == {}


VALUES = [
    None,
    True,
    False,
    0,
    1,
    -(2**53),
    1.0,
    -0.5,
    1e300,
    "",
    "ünï ☃ 😀",
    "\ud800 alone",
    "line\u2028separator\0",
    [],
    {},
    [None, [1, {"deep": [2]}]],
    {"": {"__proto__": None}, "cookie": 1, "__txsession": 2},
]


@pytest_twisted.ensureDeferred
async def test_whatIsStoredComesBackTheSame(serve):
    """
    Every JSON value comes back as it was, of the same type.
    """
    app = App()
    browser = serve(app).browser()

    def put(session):
        for number, value in enumerate(VALUES):
            session[str(number)] = value

    await app.visit(browser, put)
    seen = []
    await app.visit(browser, lambda session: seen.extend(session.values()))
    assert repr(seen) == repr(VALUES)


@pytest_twisted.ensureDeferred
async def test_noneIsAValueLikeAnyOther(serve):
    """
    A key that holds None is there, and is stored.
    """
    app = App()
    served = serve(app)
    browser = served.browser()
    sid = await app.start(browser, user=None)
    assert await served.data(sid) == {"user": None}

    def act(session):
        assert "user" in session
        assert session.get("user", "default") is None
        assert session.setdefault("user", "default") is None

    await app.visit(browser, act)


NOT_JSON = [
    ({1, 2}, "session['k']"),
    (b"bytes", "session['k']"),
    ((1, 2), "session['k']"),
    (float("nan"), "session['k']"),
    (float("-inf"), "session['k']"),
    (object(), "session['k']"),
    (datetime.now(timezone.utc), "session['k']"),
    ([0, 1, {2}], "session['k'][2]"),
    ({"a": {"b": [b""]}}, "session['k']['a']['b'][0]"),
    ({1: "one"}, "session['k'][1]"),
    ({"a": {None: 1}}, "session['k']['a'][None]"),
]


@pytest.mark.parametrize(("value", "path"), NOT_JSON, ids=lambda v: repr(v)[:25])
@pytest_twisted.ensureDeferred
async def test_refusesWhatJSONCannotHoldAtAssignment(serve, value, path):
    """
    What JSON cannot hold is refused when it is assigned, by its path, and the
    session stays as it was.
    """
    app = App()
    served = serve(app)
    browser = served.browser()

    def act(session):
        session["k"] = "before"
        for assign in (
            lambda: session.__setitem__("k", value),
            lambda: session.update(k=value),
        ):
            with pytest.raises(SessionDataError) as caught:
                assign()
            assert path in str(caught.value)
            assert isinstance(caught.value, TypeError)
        assert dict(session) == {"k": "before"}

    reply = await app.visit(browser, act)
    assert reply.status == 200
    assert await served.data(reply.cookie().sid) == {"k": "before"}


@pytest_twisted.ensureDeferred
async def test_refusesNestingWithoutEnd(serve):
    """
    Data that is nested too deep, or in itself, is refused when it is assigned.
    """
    app = App()
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    circle: dict[str, Any] = {}
    circle["again"] = [circle, circle]

    def act(session):
        for value in (deep, circle):
            with pytest.raises(SessionDataError, match="nested"):
                session["k"] = value
        assert "k" not in session

    await app.visit(serve(app).browser(), act)


@pytest_twisted.ensureDeferred
async def test_refusesANumberTooLongToWrite(serve):
    """
    A whole number that Python does not write as text is refused by its path, at
    the latest when the session is saved.
    """
    app = App()

    async def put(session):
        session["n"] = [10**5000]
        await session.save()

    async def act(session):
        with pytest.raises(SessionDataError, match=r"session\['n'\]\[0\]"):
            await put(session)
        session["n"] = 1

    reply = await app.visit(serve(app).browser(), act)
    assert reply.status == 200


@pytest.mark.parametrize("key", ["cookie", "__txsession", 1, None, b"k", ("k",)])
@pytest_twisted.ensureDeferred
async def test_refusesKeysThatAreReservedOrNoStrings(serve, key):
    """
    Reserved keys, and keys that are not str, are refused when they are assigned.
    """
    app = App()

    def act(session):
        with pytest.raises(SessionDataError) as caught:
            session[key] = 1
        assert f"session[{key!r}]" in str(caught.value)
        assert len(session) == 0

    reply = await app.visit(serve(app).browser(), act)
    assert reply.setCookies == []


@pytest_twisted.ensureDeferred
async def test_nestedMutationIsRefusedAtSaveByItsPath(serve, logged):
    """
    What JSON cannot hold and came in through a nested object fails the save:
    an explicit one raises, the one at the end is a 500, and nothing is stored.
    """
    app = App()
    served = serve(app)
    browser = served.browser()
    sid = await app.start(browser, cart=[1, 2])

    async def act(session):
        session["cart"].append({3})
        with pytest.raises(SessionDataError, match=r"session\['cart'\]\[2\]"):
            await session.save()
        return "not to be seen"

    reply = await app.visit(browser, act)
    assert reply.status == 500
    assert "not to be seen" not in reply.text
    assert await served.data(sid) == {"cart": [1, 2]}
    failures = [e["log_failure"].value for e in logged if "log_failure" in e]
    assert any("session['cart'][2]" in str(failure) for failure in failures)


@pytest_twisted.ensureDeferred
async def test_nestedMutationIsAChange(serve):
    """
    What is changed inside objects and arrays is saved without an assignment.
    """
    app = App()
    served = serve(app)
    browser = served.browser()
    sid = await app.start(browser, cart={"items": [{"n": 1}]}, other=0)

    def act(session):
        item = session["cart"]["items"][0]
        assert not session.isModified
        item["n"] = 2
        assert session.isModified

    await app.visit(browser, act)
    assert await served.data(sid) == {"cart": {"items": [{"n": 2}]}, "other": 0}


@pytest.mark.parametrize("reach", ["get", "values", "items", "setdefault", "pop"])
@pytest_twisted.ensureDeferred
async def test_nestedMutationIsNoticedHoweverItWasReached(serve, reach):
    """
    It makes no difference which method gave the nested object.
    """
    app = App()
    served = serve(app)
    browser = served.browser()
    sid = await app.start(browser, l=[1])
    reaches = {
        "get": lambda session: session.get("l"),
        "values": lambda session: next(iter(session.values())),
        "items": lambda session: next(iter(session.items()))[1],
        "setdefault": lambda session: session.setdefault("l", None),
        "pop": lambda session: session.setdefault("l", session.pop("l")),
    }
    await app.visit(browser, lambda session: reaches[reach](session).append(2))
    assert await served.data(sid) == {"l": [1, 2]}


@pytest_twisted.ensureDeferred
async def test_anAssignedObjectStaysPartOfTheSession(serve):
    """
    What is done to an object after it was assigned is saved, also when that
    happens after an explicit save.
    """
    app = App()
    served = serve(app)
    browser = served.browser()

    async def act(session):
        cart: list[int] = []
        session["cart"] = cart
        cart.append(1)
        await session.save()
        cart.append(2)
        assert session.isModified

    reply = await app.visit(browser, act)
    assert await served.data(reply.cookie().sid) == {"cart": [1, 2]}


@pytest_twisted.ensureDeferred
async def test_anEqualValueIsNoChange(serve):
    """
    Assigning what is there already, or putting back what was changed, leaves
    the session unmodified, and it is not saved.
    """
    app = App()
    clock = clockAt()
    store = StepStore(MemoryStore(reactor=clock))
    browser = serve(app, store=store, clock=clock).browser()
    await app.start(browser, user="ada", cart={"items": [1]})
    store.calls.clear()

    def act(session):
        session["user"] = "ada"
        session["cart"] = {"items": [1]}
        assert not session.isModified
        session["user"] = "eve"
        assert session.isModified
        session["user"] = "ada"
        session["cart"]["items"].append(2)
        session["cart"]["items"].pop()
        assert not session.isModified

    await app.visit(browser, act)
    assert store.calls == ["get"]


@pytest.mark.parametrize(("old", "new"), [(1, True), (1, 1.0), (0, False), ("1", 1)])
@pytest_twisted.ensureDeferred
async def test_whatIsWrittenDifferentlyIsAChange(serve, old, new):
    """
    Python's 1 == True == 1.0 are three JSON values.
    """
    app = App()
    served = serve(app)
    browser = served.browser()
    sid = await app.start(browser, value=old)
    await app.visit(browser, lambda session: session.update(value=new))
    assert repr((await served.data(sid))["value"]) == repr(new)


@pytest_twisted.ensureDeferred
async def test_readingStoresNothing(serve):
    """
    A new session that was only read, even its ID, is not stored and no cookie
    is sent.
    """
    app = App()
    served = serve(app)

    def act(session):
        assert session.get("user") is None
        assert session.id
        assert not session.isModified

    reply = await app.visit(served.browser(), act)
    assert reply.setCookies == []
    assert await served.store.length() == 0


# What everybody may know.


@pytest_twisted.ensureDeferred
async def test_idIsTheOneInTheCookie(serve):
    """
    The ID is stable, read-only, 32 characters of base64url, and what the cookie
    carries.
    """
    app = App()
    browser = serve(app).browser()
    seen = []

    def act(session):
        seen.append(session.id)
        assert session.id == session.id
        with pytest.raises(AttributeError):
            session.id = "mine"
        session["n"] = session.get("n", 0) + 1

    reply = await app.visit(browser, act)
    await app.visit(browser, act)
    assert seen[0] == seen[1] == reply.cookie().sid
    assert len(seen[0]) == 32
    assert set(seen[0]) <= set(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    )


@pytest_twisted.ensureDeferred
async def test_isNewUntilTheBrowserPresentsIt(serve):
    """
    A session is new in the request that makes it, saved or not, and again after
    regenerate.
    """
    app = App()
    browser = serve(app).browser()

    async def first(session):
        assert session.isNew
        session["user"] = "ada"
        await session.save()
        assert session.isNew

    async def second(session):
        assert not session.isNew
        await session.regenerate(keepData=True)
        assert session.isNew

    await app.visit(browser, first)
    await app.visit(browser, second)
    reply = await app.visit(browser, lambda session: str(session.isNew))
    assert reply.text == "False"


@pytest_twisted.ensureDeferred
async def test_isModifiedUntilItIsSaved(serve):
    """
    A session is modified from a change until it is saved or reloaded.
    """
    app = App()
    browser = serve(app).browser()

    async def act(session):
        assert not session.isModified
        session["user"] = "ada"
        assert session.isModified
        await session.save()
        assert not session.isModified
        session.cookie.maxAge = 60
        assert session.isModified
        await session.save()
        assert not session.isModified
        session["user"] = "eve"
        await session.reload()
        assert not session.isModified
        assert session["user"] == "ada"

    await app.visit(browser, act)


@pytest_twisted.ensureDeferred
async def test_reprShowsNeitherIDNorData(serve):
    """
    The repr of a session, and of its cookie, gives nothing away.
    """
    app = App()
    browser = serve(app).browser()
    await app.start(browser, password="swordfish")

    async def act(session):
        sid = session.id
        shown = [repr(session), str(session), f"{session}", repr(session.cookie)]
        await session.regenerate(keepData=True)
        shown.append(repr(session))
        newSid = session.id
        await session.destroy()
        shown.append(repr(session))
        text = " ".join(shown)
        assert sid not in text
        assert newSid not in text
        assert "swordfish" not in text
        assert text.count("Session") >= len(shown)

    await app.visit(browser, act)


@pytest_twisted.ensureDeferred
async def test_getSessionAndISessionGiveTheSameHandle(serve):
    """
    getSession(request) and ISession(request) are one object for the whole
    request, and it provides ISession.
    """
    app = App()

    def act(request):
        session = getSession(request)
        assert ISession(request) is session
        assert getSession(request) is session
        assert ISession.providedBy(session)
        assert isinstance(session, Session)

    await app.visitRaw(serve(app).browser(), act)


# The cookie.


ATTRIBUTES = [
    ("path", "/", "/0", "path", "/0"),
    ("domain", None, "example.org", "domain", "example.org"),
    ("httpOnly", True, False, "httponly", None),
    ("sameSite", "lax", "strict", "samesite", "Strict"),
    ("sameSite", "lax", True, "samesite", "Strict"),
    ("sameSite", "lax", False, "samesite", None),
    ("sameSite", "lax", None, "samesite", None),
    ("priority", None, "high", "priority", "High"),
]


@pytest.mark.parametrize(
    ("name", "default", "value", "key", "shown"),
    ATTRIBUTES,
    ids=lambda value: str(value),
)
@pytest_twisted.ensureDeferred
async def test_anAttributeHoldsForThisResponse(serve, name, default, value, key, shown):
    """
    A cookie attribute that is set goes out with this response's cookie, and the
    next response is back to the options.
    """
    app = App()
    served = serve(app, rolling=True)
    browser = served.browser()
    await app.start(browser, user="ada")

    def act(session):
        assert getattr(session.cookie, name) == default
        setattr(session.cookie, name, value)
        assert not session.isModified

    reply = await app.visit(browser, act)
    assert reply.cookie().attributes.get(key) == shown
    reply = await app.visit(browser, lambda session: None)
    defaults = {"path": "/", "httponly": "", "samesite": "Lax"}
    assert reply.cookie().attributes.get(key) == defaults.get(key)


@pytest_twisted.ensureDeferred
async def test_secureAndPartitionedHoldForThisResponse(serve):
    """
    Secure and Partitioned, set on a secure request, go out with this response's
    cookie.
    """
    app = App()
    served = serve(app, proxy=True, cookie=CookieOptions(secure=False))
    browser = served.browser()
    https = {"X-Forwarded-Proto": "https"}
    await app.start(browser, user="ada")

    def act(session):
        assert session.cookie.secure is False
        session.cookie.secure = True
        assert session.cookie.secure is True
        assert session.cookie.partitioned is False
        session.cookie.partitioned = True
        assert session.cookie.partitioned is True
        session.cookie.sameSite = "none"

    reply = await app.visit(browser, act, headers=https)
    shown = reply.cookie().attributes
    assert (shown["secure"], shown["partitioned"], shown["samesite"]) == (
        "",
        "",
        "None",
    )
    reply = await app.visit(browser, lambda session: session.update(n=1), headers=https)
    assert reply.setCookies == []


@pytest.mark.parametrize(
    "attribute", ["path", "httpOnly", "sameSite", "priority", "domain"]
)
@pytest_twisted.ensureDeferred
async def test_changingACookieOfASessionThatIsNotStoredSendsNone(serve, attribute):
    """
    Attributes of the cookie alone do not make a new session worth storing.
    """
    app = App()
    served = serve(app)
    values = {"path": "/", "httpOnly": False, "sameSite": "strict"}
    values |= {"priority": "low", "domain": "example.org"}

    def act(session):
        setattr(session.cookie, attribute, values[attribute])

    reply = await app.visit(served.browser(), act)
    assert reply.setCookies == []
    assert await served.store.length() == 0


WRONG_ATTRIBUTES = [
    ("path", "relative"),
    ("path", "/a;b"),
    ("path", "/\r\nSet-Cookie: evil=1"),
    ("path", None),
    ("domain", "exa mple"),
    ("domain", "a;b"),
    ("domain", 5),
    ("secure", "yes"),
    ("secure", None),
    ("httpOnly", "no"),
    ("httpOnly", 1),
    ("sameSite", "sometimes"),
    ("sameSite", 1),
    ("priority", "urgent"),
    ("partitioned", 1),
    ("maxAge", "60"),
    ("maxAge", True),
    ("maxAge", float("nan")),
    ("maxAge", float("inf")),
    ("expires", 5),
    ("expires", "tomorrow"),
    ("expires", datetime(2030, 1, 1)),
]


@pytest.mark.parametrize(("name", "value"), WRONG_ATTRIBUTES, ids=str)
@pytest_twisted.ensureDeferred
async def test_aWrongAttributeIsRefusedAndChangesNothing(serve, name, value):
    """
    What is set on the cookie is checked like the options.
    """
    app = App()
    browser = serve(app).browser()
    await app.start(browser, user="ada")

    def act(session):
        before = getattr(session.cookie, name)
        with pytest.raises(ConfigurationError) as caught:
            setattr(session.cookie, name, value)
        assert caught.value.option == f"cookie.{name}"
        assert getattr(session.cookie, name) == before
        assert not session.isModified

    reply = await app.visit(browser, act)
    assert reply.setCookies == []


@pytest_twisted.ensureDeferred
async def test_attributesThatDoNotGoTogetherAreRefused(serve):
    """
    SameSite=None and Partitioned are refused on a cookie that is not Secure, in
    either order; and originalMaxAge cannot be set.
    """
    app = App()

    def act(session):
        cookie = session.cookie
        cookie.secure = False
        with pytest.raises(ConfigurationError, match="sameSite"):
            cookie.sameSite = "none"
        with pytest.raises(ConfigurationError, match="partitioned"):
            cookie.partitioned = True
        cookie.secure = True
        cookie.sameSite = "none"
        with pytest.raises(ConfigurationError):
            cookie.secure = False
        assert cookie.secure is True
        with pytest.raises(AttributeError):
            cookie.originalMaxAge = 5

    await app.visit(serve(app).browser(), act)


@pytest_twisted.ensureDeferred
async def test_aHostCookieCannotBeGivenAPath(serve):
    """
    What the cookie's name demands holds for the session's cookie too.
    """
    app = App()
    served = serve(
        app, name="__Host-sid", cookie=CookieOptions(secure=True), proxy=True
    )

    def act(session):
        session["user"] = "ada"
        for name, value in [("path", "/x"), ("domain", "a.org"), ("secure", False)]:
            with pytest.raises(ConfigurationError):
                setattr(session.cookie, name, value)

    headers = {"X-Forwarded-Proto": "https"}
    reply = await app.visit(served.browser(), act, headers=headers)
    assert reply.cookie("__Host-sid").attributes["path"] == "/"


@pytest_twisted.ensureDeferred
async def test_aCookieOfTheBrowsersSessionHasNoLifetime(serve):
    """
    Without maxAge the cookie has neither Expires nor Max-Age, and the record
    lives for ttl.
    """
    app = App()
    served = serve(app, ttl=600)
    browser = served.browser()

    def act(session):
        assert session.cookie.maxAge is None
        assert session.cookie.expires is None
        assert session.cookie.originalMaxAge is None
        session["user"] = "ada"

    reply = await app.visit(browser, act)
    assert not {"expires", "max-age"} & reply.cookie().attributes.keys()
    record = await served.record(reply.cookie().sid)
    assert record.expires == START + 600


@pytest.mark.parametrize("maxAge", [60, 60.0, timedelta(minutes=1)])
@pytest_twisted.ensureDeferred
async def test_aMaxAgeThatIsSetStaysWithTheSession(serve, maxAge):
    """
    The lifetime that is set is sent, stored, and renewed by later requests.
    """
    app = App()
    served = serve(app)
    browser = served.browser()
    sid = await app.start(browser, user="ada")

    def act(session):
        session.cookie.maxAge = maxAge
        assert session.cookie.originalMaxAge == 60
        served.clock.advance(1)
        assert session.cookie.maxAge == 59

    reply = await app.visit(browser, act)
    assert reply.cookie().attributes["max-age"] == "60"
    assert "expires" in reply.cookie().attributes
    record = await served.record(sid)
    assert record.expires == START + 61
    assert cookieOf(record.payload)["originalMaxAge"] == 60_000
    served.clock.advance(50)

    def later(session):
        assert session.cookie.maxAge == 10
        assert session.cookie.originalMaxAge == 60
        assert session.cookie.expires == datetime.fromtimestamp(
            START + 61, timezone.utc
        )
        session["n"] = 1

    reply = await app.visit(browser, later)
    assert reply.cookie().attributes["max-age"] == "60"
    assert (await served.record(sid)).expires == START + 111


@pytest_twisted.ensureDeferred
async def test_anExpiryThatIsSetIsSentAsItIs(serve):
    """
    A date that is set goes out to the second, whenever the response does, and
    originalMaxAge is what was left until then.
    """
    app = App()
    served = serve(app)
    browser = served.browser()
    sid = await app.start(browser, user="ada")
    end = datetime.fromtimestamp(START + 3600, timezone(timedelta(hours=2)))

    def act(session):
        session.cookie.expires = end
        assert session.cookie.originalMaxAge == 3600
        served.clock.advance(60)
        assert session.cookie.expires == end
        assert session.cookie.expires.utcoffset() == timedelta(0)
        assert session.cookie.maxAge == 3540

    reply = await app.visit(browser, act)
    attributes = reply.cookie().attributes
    assert attributes["max-age"] == "3540"
    assert attributes["expires"] == "Fri, 15 Jan 2027 09:00:00 GMT"
    record = await served.record(sid)
    assert record.expires == START + 3600
    assert cookieOf(record.payload)["expires"] == "2027-01-15T09:00:00.000Z"


@pytest.mark.parametrize("name", ["maxAge", "expires"])
@pytest_twisted.ensureDeferred
async def test_aLifetimeCanBeTakenAway(serve, name):
    """
    Set to None, the cookie ends with the browser, and the record lives for ttl.
    """
    app = App()
    served = serve(app, cookie=CookieOptions(maxAge=60), ttl=600)
    browser = served.browser()
    sid = await app.start(browser, user="ada")
    reply = await app.visit(browser, lambda s: setattr(s.cookie, name, None))
    assert not {"expires", "max-age"} & reply.cookie().attributes.keys()
    record = await served.record(sid)
    assert record.expires == START + 600
    assert cookieOf(record.payload)["originalMaxAge"] is None

    def later(session):
        assert session.cookie.maxAge is None
        assert session["user"] == "ada"

    await app.visit(browser, later)


@pytest.mark.parametrize("maxAge", [60, None])
@pytest_twisted.ensureDeferred
async def test_aLifetimeSavedExplicitlyIsSentToo(serve, maxAge):
    """
    A lifetime that was set and then saved by hand still goes out with the
    response's cookie.
    """
    app = App()
    served = serve(app, cookie=CookieOptions(maxAge=3600))
    browser = served.browser()
    await app.start(browser, user="ada")

    async def act(session):
        session.cookie.maxAge = maxAge
        await session.save()

    reply = await app.visit(browser, act)
    cookie = reply.cookie()
    assert cookie is not None
    assert cookie.attributes.get("max-age") == (maxAge and str(maxAge))


PAST = {
    "zero": ("maxAge", 0),
    "negative": ("maxAge", -60),
    "ages ago": ("maxAge", -1e300),
    "past": ("expires", datetime(2020, 1, 1, tzinfo=timezone.utc)),
    "first": ("expires", datetime.min.replace(tzinfo=timezone.utc)),
}


@pytest.mark.parametrize("case", PAST)
@pytest_twisted.ensureDeferred
async def test_aLifetimeThatHasPassedEndsTheSession(serve, case):
    """
    A save of an expiry that has passed destroys the record, and the cookie goes
    out with that date.
    """
    app = App()
    served = serve(app)
    browser = served.browser()
    sid = await app.start(browser, user="ada")
    name, value = PAST[case]
    reply = await app.visit(browser, lambda s: setattr(s.cookie, name, value))
    assert reply.status == 200
    assert await served.record(sid) is None
    assert reply.cookie().attributes["max-age"] == "0"
    assert "expires" in reply.cookie().attributes
    assert browser.cookies == {}


@pytest_twisted.ensureDeferred
async def test_aPassedLifetimeOfANewSessionStoresNothing(serve):
    """
    A new session whose expiry has passed is not stored.
    """
    app = App()
    served = serve(app)

    async def act(session):
        session["user"] = "ada"
        session.cookie.maxAge = -1
        await session.save()

    reply = await app.visit(served.browser(), act)
    assert reply.status == 200
    assert await served.store.length() == 0


HUGE = {
    "30 years": ("maxAge", 30 * 365 * 86400),
    "beyond dates": ("maxAge", 1e12),
    "beyond milliseconds": ("maxAge", 1e20),
    "largest": ("maxAge", 1.7e308),
    "timedelta": ("maxAge", timedelta.max),
    "last": ("expires", datetime.max.replace(tzinfo=timezone.utc)),
}


@pytest.mark.parametrize("case", HUGE)
@pytest_twisted.ensureDeferred
async def test_aLifetimeMayBeHuge(serve, case):
    """
    Any finite lifetime is taken, sent as a date that browsers can read, and
    there again at the next request.
    """
    app = App()
    served = serve(app)
    browser = served.browser()
    sid = await app.start(browser, user="ada")
    name, value = HUGE[case]

    def act(session):
        setattr(session.cookie, name, value)
        assert session.cookie.expires.tzinfo is not None

    reply = await app.visit(browser, act)
    assert reply.status == 200
    attributes = reply.cookie().attributes
    assert int(attributes["max-age"]) >= 30 * 365 * 86400
    year = int(attributes["expires"].split()[3])
    assert 2056 <= year <= 9999
    assert await served.data(sid) == {"user": "ada"}

    def later(session):
        assert session["user"] == "ada"
        assert session.cookie.maxAge >= 30 * 365 * 86400 - 1
        session["n"] = 1

    reply = await app.visit(browser, later)
    assert reply.status == 200


# save


@pytest_twisted.ensureDeferred
async def test_saveIsInTheStoreWhenItFires(serve):
    """
    An explicit save writes at once, and the end of the request does not write
    the same again.
    """
    app = App()
    clock = clockAt()
    store = StepStore(MemoryStore(reactor=clock))
    served = serve(app, store=store, clock=clock)

    async def act(session):
        session["user"] = "ada"
        assert await session.save() is None
        assert await served.data(session.id) == {"user": "ada"}
        assert store.calls == ["create"]

    reply = await app.visit(served.browser(), act)
    assert store.calls == ["create"]
    assert reply.cookie() is not None


@pytest_twisted.ensureDeferred
async def test_saveOfANewEmptySessionMakesItStored(serve):
    """
    An explicit save stores even an unmodified new session, and its cookie goes
    out.
    """
    app = App()
    served = serve(app)
    reply = await app.visit(served.browser(), lambda session: session.save())
    assert await served.data(reply.cookie().sid) == {}


@pytest_twisted.ensureDeferred
async def test_saveWritesAlsoWhatIsUnmodified(serve):
    """
    An explicit save of an unmodified session renews its record.
    """
    app = App()
    served = serve(app)
    browser = served.browser()
    sid = await app.start(browser, user="ada")
    served.clock.advance(1)

    async def act(session):
        await session.save()
        record = await served.record(sid)
        assert record.expires == START + 1 + 86400

    reply = await app.visit(browser, act)
    assert reply.setCookies == []


@pytest_twisted.ensureDeferred
async def test_changesAfterASaveAreSavedAtTheEnd(serve):
    """
    An explicit save is no last word.
    """
    app = App()
    served = serve(app)

    async def act(session):
        session["n"] = 1
        await session.save()
        session["n"] = 2

    reply = await app.visit(served.browser(), act)
    assert await served.data(reply.cookie().sid) == {"n": 2}


@pytest.mark.parametrize("isNew", [True, False])
@pytest_twisted.ensureDeferred
async def test_aFailedSaveKeepsTheChanges(serve, isNew):
    """
    A save that fails raises, leaves the handle as it was, and can be repeated.
    """
    app = App()
    clock = clockAt()
    store = Faulty(MemoryStore(reactor=clock))
    served = serve(app, store=store, clock=clock)
    browser = served.browser()
    if not isNew:
        await app.start(browser, old=1)

    async def act(session):
        session["user"] = "ada"
        sid = session.id
        store.errors = {"create": down, "replace": down}
        with pytest.raises(StoreUnavailable, match="gone fishing"):
            await session.save()
        assert session["user"] == "ada"
        assert session.isModified
        assert session.isNew is isNew
        assert session.id == sid
        store.errors = {}
        await session.save()
        assert not session.isModified
        return sid

    reply = await app.visit(browser, act)
    assert (await served.data(reply.text))["user"] == "ada"
    assert bool(reply.setCookies) is isNew


@pytest_twisted.ensureDeferred
async def test_aSaveThatNobodyWaitsForIsDoneBeforeTheResponse(serve):
    """
    The response waits for a save that the application started and did not wait
    for.
    """
    app = App()
    clock = clockAt()
    store = StepStore(MemoryStore(reactor=clock), held={"create"})
    served = serve(app, store=store, clock=clock)
    browser = served.browser()

    def act(session):
        session["user"] = "ada"
        session.save()
        return "done"

    visiting = ensureDeferred(app.visit(browser, act))
    call = await called(store, "create")
    assert not visiting.called
    call.release()
    reply = await visiting
    assert reply.text == "done"
    assert await served.data(reply.cookie().sid) == {"user": "ada"}
    assert store.calls.count("create") == 1


@pytest.mark.parametrize("verb", ["regenerate", "destroy", "reload"])
@pytest_twisted.ensureDeferred
async def test_noVerbIsLeftBehindByTheResponse(serve, verb):
    """
    The other verbs, too, are over before the response goes out, though nobody
    waited for them.
    """
    app = App()
    clock = clockAt()
    store = StepStore(MemoryStore(reactor=clock))
    served = serve(app, store=store, clock=clock)
    browser = served.browser()
    sid = await app.start(browser, user="ada")
    fired = []

    def act(session):
        store.held = {"destroy"} if verb != "reload" else {"get"}
        getattr(session, verb)().addCallback(lambda _: fired.append(verb))
        return "done"

    visiting = ensureDeferred(app.visit(browser, act))
    call = await called(store, "get" if verb == "reload" else "destroy")
    assert not visiting.called
    assert fired == []
    call.release()
    reply = await visiting
    assert fired == [verb]
    if verb == "reload":
        assert reply.setCookies == []
    else:
        assert reply.cookie().isExpired
        assert await served.record(sid) is None


# reload


@pytest_twisted.ensureDeferred
async def test_reloadTakesWhatTheStoreHas(serve):
    """
    Reload drops local changes, of data and lifetime, and shows what others have
    stored; objects that were handed out stay part of the session.
    """
    app = App()
    served = serve(app)
    browser = served.browser()
    sid = await app.start(browser, user="ada", cart={"n": 1})

    async def other(session):
        session["cart"]["n"] = 2
        session["theirs"] = True
        session.cookie.maxAge = 120

    async def act(session):
        cart = session["cart"]
        session["user"] = "eve"
        session["mine"] = True
        del session["cart"]["n"]
        session.cookie.maxAge = 5
        await app.visit(browser, other)
        assert await session.reload() is None
        assert session == {"user": "ada", "cart": {"n": 2}, "theirs": True}
        assert session.cookie.originalMaxAge == 120
        assert not session.isModified
        assert session["cart"] is cart
        cart["n"] = 3

    await app.visit(browser, act)
    assert await served.data(sid) == {"user": "ada", "cart": {"n": 3}, "theirs": True}


@pytest_twisted.ensureDeferred
async def test_reloadOfWhatIsNotStoredLeavesTheHandle(serve):
    """
    Reloading a new session, or one that is gone from the store, raises
    SessionGone and drops nothing.
    """
    app = App()
    served = serve(app)
    browser = served.browser()

    async def act(session):
        session["user"] = "ada"
        sid = session.id
        with pytest.raises(SessionGone):
            await session.reload()
        assert dict(session) == {"user": "ada"}
        assert session.id == sid
        assert session.isModified

    await app.visit(browser, act)

    async def gone(session):
        await served.store.destroy(session.id)
        session["user"] = "eve"
        with pytest.raises(SessionGone) as caught:
            await session.reload()
        assert caught.value.operation == "reload"
        assert caught.value.fingerprint
        assert session["user"] == "eve"

    await app.visit(browser, gone)


@pytest_twisted.ensureDeferred
async def test_aFailedReloadLeavesTheHandle(serve):
    """
    A reload that fails in the store raises, and the local changes are saved in
    the end.
    """
    app = App()
    clock = clockAt()
    store = Faulty(MemoryStore(reactor=clock))
    served = serve(app, store=store, clock=clock)
    browser = served.browser()
    sid = await app.start(browser, user="ada")

    async def act(session):
        session["user"] = "eve"
        store.errors = {"get": down}
        with pytest.raises(StoreUnavailable):
            await session.reload()
        store.errors = {}
        assert session["user"] == "eve"

    await app.visit(browser, act)
    assert await served.data(sid) == {"user": "eve"}


# destroy


@pytest_twisted.ensureDeferred
async def test_destroyEndsTheSession(serve):
    """
    After destroy the record is gone, the request has no session, every use of
    the handle says so, and the browser's cookie expires.
    """
    app = App()
    served = serve(app)
    browser = served.browser()
    sid = await app.start(browser, user="ada")

    async def act(request):
        session = getSession(request)
        cart = session.setdefault("cart", {})
        assert await session.destroy() is None
        cart["late"] = True
        assert await served.record(sid) is None
        assert ISession(request, None) is None
        with pytest.raises(NoSession):
            getSession(request)
        uses = [
            lambda: session["user"],
            lambda: session.get("user"),
            lambda: session.__setitem__("user", "eve"),
            lambda: session.__delitem__("user"),
            lambda: "user" in session,
            lambda: list(session),
            lambda: len(session),
            lambda: session.clear(),
            lambda: session.update(a=1),
        ]
        for use in uses:
            with pytest.raises(SessionDestroyed):
                use()
        for verb in (session.save, session.reload, session.regenerate):
            with pytest.raises(SessionDestroyed):
                await verb()

    reply = await app.visitRaw(browser, act)
    assert reply.status == 200
    assert reply.cookie().isExpired
    assert await served.store.length() == 0


@pytest_twisted.ensureDeferred
async def test_destroyOfANewSessionSendsNoCookie(serve):
    """
    A session that the browser never had leaves no trace, saved or not.
    """
    app = App()
    served = serve(app)

    async def unsaved(session):
        session["user"] = "ada"
        await session.destroy()

    async def saved(session):
        session["user"] = "ada"
        await session.save()
        await session.destroy()

    for act in (unsaved, saved):
        reply = await app.visit(served.browser(), act)
        assert reply.setCookies == []
        assert await served.store.length() == 0


@pytest_twisted.ensureDeferred
async def test_aFailedDestroyLeavesTheSession(serve):
    """
    A destroy that fails raises; the session lives on, its changes are saved,
    and the cookie stays.
    """
    app = App()
    clock = clockAt()
    store = Faulty(MemoryStore(reactor=clock), {"destroy": down})
    served = serve(app, store=store, clock=clock)
    browser = served.browser()
    sid = await app.start(browser, user="ada")

    async def act(request):
        session = getSession(request)
        with pytest.raises(StoreUnavailable):
            await session.destroy()
        assert getSession(request) is session
        assert session.id == sid
        session["n"] = 1

    reply = await app.visitRaw(browser, act)
    assert reply.setCookies == []
    assert await served.data(sid) == {"user": "ada", "n": 1}


# regenerate


@pytest_twisted.ensureDeferred
async def test_regenerateStartsAnEmptySession(serve):
    """
    Regenerate destroys the old record; the same handle is then a new, empty
    session with the options' lifetime.
    """
    app = App()
    served = serve(app, cookie=CookieOptions(maxAge=60))
    browser = served.browser()
    old = await app.start(browser, user="ada")

    async def act(session):
        session.cookie.maxAge = 5
        session["more"] = 1
        assert await session.regenerate() is None
        assert session.id != old
        assert dict(session) == {}
        assert session.isNew
        assert not session.isModified
        assert session.cookie.originalMaxAge == 60
        assert await served.record(old) is None
        session["fresh"] = True

    reply = await app.visit(browser, act)
    new = reply.cookie().sid
    assert new != old
    assert await served.data(new) == {"fresh": True}
    assert await served.store.length() == 1


@pytest_twisted.ensureDeferred
async def test_regenerateWithNothingWrittenExpiresTheCookie(serve):
    """
    A regenerated session with nothing in it is not stored, and the browser
    forgets the old one.
    """
    app = App()
    served = serve(app)
    browser = served.browser()
    await app.start(browser, user="ada")
    reply = await app.visit(browser, lambda session: session.regenerate())
    assert reply.cookie().isExpired
    assert await served.store.length() == 0


@pytest_twisted.ensureDeferred
async def test_regenerateWithNothingWrittenIsStoredBySaveUninitialized(serve):
    """
    With saveUninitialized, it is stored and its cookie sent.
    """
    app = App()
    served = serve(app, saveUninitialized=True)
    browser = served.browser()
    old = await app.start(browser, user="ada")
    reply = await app.visit(browser, lambda session: session.regenerate())
    assert reply.cookie().sid != old
    assert await served.data(reply.cookie().sid) == {}
    assert await served.record(old) is None


@pytest_twisted.ensureDeferred
async def test_regenerateKeepsTheDataWhenAsked(serve):
    """
    With keepData the data, changes included, and the lifetime move to the new
    ID; the old one is dead; objects handed out stay part of the session.
    """
    app = App()
    served = serve(app)
    browser = served.browser()
    old = await app.start(browser, cart={"n": 1})

    async def act(session):
        cart = session["cart"]
        session["user"] = "ada"
        session.cookie.maxAge = 60
        assert await session.regenerate(keepData=True) is None
        assert session.id != old
        assert session == {"cart": {"n": 1}, "user": "ada"}
        assert session.cookie.originalMaxAge == 60
        assert await served.record(old) is None
        assert await served.data(session.id) == dict(session)
        cart["n"] = 2

    reply = await app.visit(browser, act)
    assert reply.cookie().sid != old
    assert reply.cookie().attributes["max-age"] == "60"
    assert await served.data(reply.cookie().sid) == {"cart": {"n": 2}, "user": "ada"}
    assert await served.store.length() == 1


@pytest_twisted.ensureDeferred
async def test_regenerateKeepsDataThatWasNeverRead(serve):
    """
    The data need not have been looked at to move.
    """
    app = App()
    served = serve(app)
    browser = served.browser()
    await app.start(browser, user="ada")
    reply = await app.visit(browser, lambda session: session.regenerate(keepData=True))
    assert await served.data(reply.cookie().sid) == {"user": "ada"}


@pytest.mark.parametrize("keepData", [True, False])
@pytest_twisted.ensureDeferred
async def test_regenerateOfANewSessionGivesItAnotherID(serve, keepData):
    """
    A session that is not stored is regenerated without a call of the store.
    """
    app = App()
    clock = clockAt()
    store = StepStore(MemoryStore(reactor=clock))
    served = serve(app, store=store, clock=clock)

    async def act(session):
        session["user"] = "ada"
        first = session.id
        await session.regenerate(keepData=keepData)
        assert session.id != first
        assert dict(session) == ({"user": "ada"} if keepData else {})
        assert store.calls == []
        session["n"] = 1
        return session.id

    reply = await app.visit(served.browser(), act)
    assert reply.cookie().sid == reply.text
    expected = {"user": "ada", "n": 1} if keepData else {"n": 1}
    assert await served.data(reply.text) == expected


@pytest_twisted.ensureDeferred
async def test_regenerateTwiceLeavesOneSession(serve):
    """
    Each regenerate removes the one before it.
    """
    app = App()
    served = serve(app)
    browser = served.browser()
    await app.start(browser, user="ada")

    async def act(session):
        await session.regenerate(keepData=True)
        await session.regenerate(keepData=True)
        return session.id

    reply = await app.visit(browser, act)
    assert reply.cookie().sid == reply.text
    assert list(await served.store.all()) == [reply.text]


@pytest_twisted.ensureDeferred
async def test_aFailedRegenerateLeavesTheOldSession(serve):
    """
    If the old record cannot be destroyed, regenerate without the data raises
    and the handle is what it was, changes included.
    """
    app = App()
    clock = clockAt()
    store = Faulty(MemoryStore(reactor=clock), {"destroy": down})
    served = serve(app, store=store, clock=clock)
    browser = served.browser()
    sid = await app.start(browser, user="ada")

    async def act(session):
        session["n"] = 1
        with pytest.raises(StoreUnavailable):
            await session.regenerate()
        assert session.id == sid
        assert not session.isNew
        assert session == {"user": "ada", "n": 1}
        assert session.isModified

    reply = await app.visit(browser, act)
    assert reply.setCookies == []
    assert await served.data(sid) == {"user": "ada", "n": 1}
    assert await served.store.length() == 1


@pytest_twisted.ensureDeferred
async def test_destroyAfterRegenerateRemovesTheNewSession(serve):
    """
    Login and logout in one request leave nothing.
    """
    app = App()
    served = serve(app)
    browser = served.browser()
    await app.start(browser, user="ada")

    async def act(session):
        await session.regenerate(keepData=True)
        await session.destroy()

    reply = await app.visit(browser, act)
    assert reply.cookie().isExpired
    assert await served.store.length() == 0


# touch


@pytest_twisted.ensureDeferred
async def test_touchRenewsTheExpiryWithThisResponse(serve):
    """
    touch() renews the record whatever touchInterval says, and returns at once.
    """
    app = App()
    served = serve(app, touchInterval=3600)
    browser = served.browser()
    sid = await app.start(browser, user="ada")
    served.clock.advance(10)
    await app.visit(browser, lambda session: None)
    assert (await served.record(sid)).expires == START + 86400
    touched = []
    await app.visit(browser, lambda session: touched.append(session.touch()))
    assert touched == [None]
    assert (await served.record(sid)).expires == START + 86410


@pytest_twisted.ensureDeferred
async def test_touchOfANewSessionStoresNothing(serve):
    """
    Touching does not make a session worth storing.
    """
    app = App()
    served = serve(app)
    reply = await app.visit(served.browser(), lambda session: session.touch())
    assert reply.setCookies == []
    assert await served.store.length() == 0


# load and lazy=True


@pytest_twisted.ensureDeferred
async def test_loadOfALoadedSessionFiresAtOnce(serve):
    """
    Without lazy, load() gives the session and asks the store nothing.
    """
    app = App()
    clock = clockAt()
    store = StepStore(MemoryStore(reactor=clock))
    browser = serve(app, store=store, clock=clock).browser()
    await app.start(browser, user="ada")
    store.calls.clear()

    async def act(session):
        assert await session.load() is session
        assert store.calls == ["get"]

    await app.visit(browser, act)


@pytest.mark.parametrize("hasCookie", [True, False])
@pytest_twisted.ensureDeferred
async def test_lazyRefusesTheDataBeforeLoad(serve, hasCookie):
    """
    With lazy=True nothing can be used before load(), with a cookie or without,
    and the store is not asked.
    """
    app = App()
    clock = clockAt()
    inner = MemoryStore(reactor=clock)
    browser = serve(app, store=inner, clock=clock).browser()
    if hasCookie:
        await app.start(browser, user="ada")
    store = StepStore(inner)
    browser.port = serve(app, store=store, clock=clock, lazy=True).port

    def act(session):
        uses = [
            lambda: session["user"],
            lambda: session.__setitem__("user", "eve"),
            lambda: session.__delitem__("user"),
            lambda: session.get("user"),
            lambda: "user" in session,
            lambda: list(session),
            lambda: len(session),
            lambda: session.clear(),
            lambda: session.id,
            lambda: session.isNew,
            lambda: session.cookie,
        ]
        for use in uses:
            with pytest.raises(SessionNotLoaded):
                use()
        assert "Session" in repr(session)

    reply = await app.visit(browser, act)
    assert reply.status == 200
    assert reply.setCookies == []
    assert store.calls == []


@pytest_twisted.ensureDeferred
async def test_lazyLoadsWhenAsked(serve):
    """
    load() reads the session once, however often it is called, and from then on
    it is like any other.
    """
    app = App()
    clock = clockAt()
    store = StepStore(MemoryStore(reactor=clock))
    served = serve(app, store=store, clock=clock, lazy=True)
    browser = served.browser()

    async def act(session):
        first, second = session.load(), session.load()
        assert await first is session
        assert await second is session
        assert await session.load() is session
        session["n"] = session.get("n", 0) + 1

    reply = await app.visit(browser, act)
    sid = reply.cookie().sid
    assert store.calls == ["create"]
    store.calls.clear()
    await app.visit(browser, act)
    assert store.calls == ["get", "replace"]
    assert await served.data(sid) == {"n": 2}


@pytest_twisted.ensureDeferred
async def test_lazyLoadOfAnUnknownIDGivesANewSession(serve):
    """
    With lazy=True, too, an ID that the store does not know is not adopted.
    """
    app = App()
    served = serve(app, lazy=True)
    browser = served.browser()

    async def act(session):
        await session.load()
        assert session.isNew
        session["n"] = session.get("n", 0) + 1
        return session.id

    first = await app.visit(browser, act)
    await served.store.clear()
    second = await app.visit(browser, act)
    assert second.text != first.text
    assert second.cookie().sid == second.text
    assert await served.data(second.text) == {"n": 1}


@pytest_twisted.ensureDeferred
async def test_aFailedLazyLoadCanBeRepeated(serve):
    """
    A load that fails raises, the session is still not loaded, and another load
    may succeed.
    """
    app = App()
    clock = clockAt()
    store = Faulty(MemoryStore(reactor=clock))
    served = serve(app, store=store, clock=clock, lazy=True)
    browser = served.browser()

    async def fill(session):
        (await session.load())["user"] = "ada"

    await app.visit(browser, fill)

    async def act(session):
        store.errors = {"get": down}
        with pytest.raises(StoreUnavailable):
            await session.load()
        with pytest.raises(SessionNotLoaded):
            session["user"]
        store.errors = {}
        await session.load()
        assert session["user"] == "ada"

    reply = await app.visit(browser, act)
    assert reply.status == 200


@pytest_twisted.ensureDeferred
async def test_aFailedLazyLoadThatIsNotCaughtIsA503(serve):
    """
    A load's failure that the application lets pass answers like a failed load
    without lazy.
    """
    app = App()
    clock = clockAt()
    store = Faulty(MemoryStore(reactor=clock))
    served = serve(app, store=store, clock=clock, lazy=True)
    browser = served.browser()

    async def act(session):
        (await session.load())["user"] = "ada"

    await app.visit(browser, act)
    store.errors = {"get": down}
    reply = await app.visitRaw(browser, lambda r: act(getSession(r)), mayFail=True)
    assert reply.status == 503
    assert reply.setCookies == []


@pytest_twisted.ensureDeferred
async def test_lazyDestroyNeedsNoLoad(serve):
    """
    A logout works without reading the session first.
    """
    app = App()
    served = serve(app, lazy=True)
    browser = served.browser()

    async def fill(session):
        (await session.load())["user"] = "ada"

    reply = await app.visit(browser, fill)
    sid = reply.cookie().sid

    async def act(request):
        session = getSession(request)
        await session.destroy()
        assert ISession(request, None) is None
        with pytest.raises(SessionDestroyed):
            session["user"]

    reply = await app.visitRaw(browser, act)
    assert reply.cookie().isExpired
    assert await served.record(sid) is None


@pytest.mark.parametrize("keepData", [True, False])
@pytest_twisted.ensureDeferred
async def test_lazyRegenerateLeavesNoOldSession(serve, keepData):
    """
    A regenerate before load, too, kills the ID that the browser came with.
    """
    app = App()
    served = serve(app, lazy=True)
    browser = served.browser()

    async def fill(session):
        (await session.load())["user"] = "ada"

    reply = await app.visit(browser, fill)
    old = reply.cookie().sid

    async def act(session):
        await session.load()
        await session.regenerate(keepData=keepData)
        assert dict(session) == ({"user": "ada"} if keepData else {})
        session["n"] = 1
        return session.id

    reply = await app.visit(browser, act)
    assert reply.cookie().sid == reply.text != old
    assert await served.record(old) is None


# Unsetting.


UNSET = {
    "unsetComponent": lambda request: request.unsetComponent(ISession),
    "setComponent": lambda request: request.setComponent(ISession, None),
}


@pytest.mark.parametrize("how", UNSET)
@pytest_twisted.ensureDeferred
async def test_unsetKeepLeavesEverythingAsItWas(serve, how):
    """
    With unset="keep", taking the session off the request drops its changes and
    leaves record and cookie alone.
    """
    app = App()
    served = serve(app, rolling=True)
    browser = served.browser()
    sid = await app.start(browser, user="ada")
    before = await served.record(sid)
    served.clock.advance(3600)

    def act(request):
        getSession(request)["user"] = "eve"
        UNSET[how](request)
        assert ISession(request, None) is None
        with pytest.raises(NoSession):
            getSession(request)

    reply = await app.visitRaw(browser, act)
    assert reply.status == 200
    assert reply.setCookies == []
    assert await served.record(sid) == before


@pytest.mark.parametrize("how", UNSET)
@pytest.mark.parametrize("lazy", [False, True])
@pytest_twisted.ensureDeferred
async def test_unsetDestroyEndsTheSession(serve, how, lazy):
    """
    With unset="destroy", it destroys the record, for which the response waits,
    and expires the cookie.
    """
    app = App()
    clock = clockAt()
    store = StepStore(MemoryStore(reactor=clock))
    browser = serve(app, store=store, clock=clock).browser()
    sid = await app.start(browser, user="ada")
    served = serve(app, store=store, clock=clock, unset="destroy", lazy=lazy)
    browser.port = served.port
    reply = await app.visitRaw(browser, UNSET[how])
    assert await served.record(sid) is None
    assert reply.cookie().isExpired


@pytest_twisted.ensureDeferred
async def test_unsetDestroyHoldsTheResponse(serve):
    """
    The response of an unset session waits for the destroy, and if that fails it
    is not sent.
    """
    app = App()
    clock = clockAt()
    store = StepStore(MemoryStore(reactor=clock), held={"destroy"})
    served = serve(app, store=store, clock=clock, unset="destroy")
    browser = served.browser()
    sid = await app.start(browser, user="ada")

    def act(request):
        request.unsetComponent(ISession)
        return "bye"

    visiting = ensureDeferred(app.visitRaw(browser, act))
    call = await called(store, "destroy")
    assert not visiting.called
    call.fail(down())
    reply = await visiting
    assert reply.status == 503
    assert reply.text != "bye"
    assert reply.setCookies == []
    assert await served.data(sid) == {"user": "ada"}
    visiting = ensureDeferred(app.visitRaw(browser, act))
    (await called(store, "destroy")).release()
    reply = await visiting
    assert reply.text == "bye"
    assert reply.cookie().isExpired


@pytest_twisted.ensureDeferred
async def test_unsetDestroyOfANewSessionStoresAndSendsNothing(serve):
    """
    A session that is not stored needs no destroying.
    """
    app = App()
    clock = clockAt()
    store = StepStore(MemoryStore(reactor=clock))
    served = serve(app, store=store, clock=clock, unset="destroy")

    def act(request):
        getSession(request)["user"] = "ada"
        request.unsetComponent(ISession)

    reply = await app.visitRaw(served.browser(), act)
    assert reply.setCookies == []
    assert store.calls == []


@pytest_twisted.ensureDeferred
async def test_aSessionThatIsSetAgainCounts(serve):
    """
    Only what is unset at the end of the request is meant.
    """
    app = App()
    served = serve(app, unset="destroy")
    browser = served.browser()
    sid = await app.start(browser, user="ada")

    def act(request):
        session = getSession(request)
        request.unsetComponent(ISession)
        request.setComponent(ISession, session)
        session["n"] = 1

    reply = await app.visitRaw(browser, act)
    assert reply.setCookies == []
    assert await served.data(sid) == {"user": "ada", "n": 1}


# After the request.


@pytest_twisted.ensureDeferred
async def test_aSessionCanBeUsedAfterItsRequest(serve):
    """
    save() and reload() go on working when the request is over.
    """
    app = App()
    served = serve(app)
    browser = served.browser()
    sid = await app.start(browser, user="ada")
    kept = []
    await app.visit(browser, kept.append)
    session = kept[0]
    session["later"] = 1
    await session.save()
    assert await served.data(sid) == {"user": "ada", "later": 1}
    await app.visit(browser, lambda session: session.update(theirs=2))
    await session.reload()
    assert session["theirs"] == 2
    session["later"] = 3
    await app.visit(browser, lambda session: session.update(theirs=4))
    await session.save()
    assert await served.data(sid) == {"user": "ada", "later": 3, "theirs": 4}
    await served.store.destroy(sid)
    session["later"] = 5
    with pytest.raises(SessionGone):
        await session.save()
    assert await served.record(sid) is None


@pytest_twisted.ensureDeferred
async def test_aSessionWithoutACookieCannotStartAfterItsRequest(serve):
    """
    Where the browser has no cookie, change, save and regenerate after the
    response raise HeadersAlreadySent, and nothing is stored.
    """
    app = App()
    served = serve(app)
    kept = []
    await app.visit(served.browser(), kept.append)
    session = kept[0]
    with pytest.raises(HeadersAlreadySent):
        session["user"] = "ada"
    with pytest.raises(HeadersAlreadySent):
        await session.save()
    with pytest.raises(HeadersAlreadySent):
        await session.regenerate()
    assert await served.store.length() == 0


@pytest_twisted.ensureDeferred
async def test_aSessionWhoseSaveFailedCannotStartAfterItsResponse(serve):
    """
    When the error page went out in place of a new session's response, there is
    no cookie for it any more: later changes and saves raise, and leave no
    record that nobody can reach.
    """
    app = App()
    clock = clockAt()
    store = Faulty(MemoryStore(reactor=clock), {"create": down})
    served = serve(app, store=store, clock=clock)
    kept = []

    def act(session):
        kept.append(session)
        session["user"] = "ada"

    reply = await app.visit(served.browser(), act)
    assert reply.status == 503
    store.errors = {}
    with pytest.raises(HeadersAlreadySent):
        await kept[0].save()
    with pytest.raises(HeadersAlreadySent):
        kept[0]["user"] = "eve"
    assert await served.store.length() == 0


@pytest_twisted.ensureDeferred
async def test_aVisitorCannotMakeAVerbFailByAHeader(serve):
    """
    A request that claims to become a WebSocket, and is answered like any other,
    gets its session.
    """
    app = App()
    served = serve(app)
    browser = served.browser()
    headers = {"Upgrade": "websocket", "Connection": "Upgrade"}

    async def act(session):
        await session.regenerate()
        session["user"] = "ada"
        await session.save()

    reply = await app.visit(browser, act, headers=headers)
    assert reply.status == 200
    assert await served.data(reply.cookie().sid) == {"user": "ada"}


@pytest_twisted.ensureDeferred
async def test_aLazySessionOfAStoreThatIsDownStaysAway(serve):
    """
    With lazy=True and storeDown="anonymous", each load() raises NoSession, and so
    does using the session all the same.
    """
    app = App()
    clock = clockAt()
    memory = MemoryStore(reactor=clock)
    first = serve(app, store=memory, clock=clock).browser()
    await app.start(first, user="ada")
    served = serve(
        app,
        store=Faulty(memory, {"get": down}),
        clock=clock,
        lazy=True,
        storeDown="anonymous",
    )
    browser = Browser(served.port, first.cookies)

    async def act(session):
        for _ in range(2):
            with pytest.raises(NoSession):
                await session.load()
        with pytest.raises(NoSession):
            session["user"] = "eve"
        for verb in (session.save, session.destroy, session.regenerate):
            with pytest.raises(NoSession):
                await verb()

    reply = await app.visit(browser, act)
    assert reply.status == 200
    assert reply.setCookies == []
    assert await memory.length() == 1


@pytest_twisted.ensureDeferred
async def test_aDestroyedSessionCannotBeLoaded(serve):
    """
    load() after destroy() says that the session was destroyed.
    """
    app = App()
    browser = serve(app).browser()

    async def act(session):
        session["a"] = 1
        await session.destroy()
        with pytest.raises(SessionDestroyed):
            await session.load()

    await app.visit(browser, act)


@pytest_twisted.ensureDeferred
async def test_aFailedSaveLeavesTheExpiryAsItWas(serve):
    """
    When save() fails, the cookie's expiry is still that of the record, so that no
    cookie outlives its record.
    """
    app = App()
    clock = clockAt()
    store = Faulty(MemoryStore(reactor=clock))
    served = serve(
        app, store=store, clock=clock, cookie=CookieOptions(maxAge=1000, path="/")
    )
    browser = served.browser()
    sid = await app.start(browser, user="ada")
    clock.advance(5)
    store.errors = {"replace": down, "touch": down}

    async def act(session):
        session["user"] = "eve"
        with pytest.raises(StoreUnavailable):
            await session.save()
        assert session.cookie.maxAge == 995
        assert session["user"] == "eve"
        assert session.isModified

    reply = await app.visit(browser, act)
    assert reply.status == 503
    assert await served.data(sid) == {"user": "ada"}


@pytest_twisted.ensureDeferred
async def test_aSessionSavedAfterItsRequestStaysSecure(serve):
    """
    What nobody asked during the request, whether it came over HTTPS, is not
    answered with no when the session is saved afterwards.
    """
    app = App()
    served = serve(app, proxy=True)
    browser = served.browser()
    https = {"X-Forwarded-Proto": "https"}
    reply = await app.visit(browser, lambda session: session.update(n=1), headers=https)
    sid = reply.cookie().sid
    kept: list[Session] = []
    await app.visit(browser, lambda session: kept.append(session), headers=https)
    (session,) = kept
    while session._request() is not None:
        await turn()
    session["n"] = 2
    await session.save()
    document = json.loads((await served.record(sid)).payload)
    assert document["n"] == 2
    assert document["cookie"]["secure"] is True


@pytest_twisted.ensureDeferred
async def test_unstorableDataAfterASaveUnderWayStartsNoSession(serve):
    """
    When the save at the end of a request fails behind one that was under way, the
    browser is given no cookie, and nothing can be stored any more.
    """
    app = App()
    clock = clockAt()
    store = StepStore(MemoryStore(reactor=clock), held={"create"})
    served = serve(app, store=store, clock=clock)
    kept: list[Session] = []

    def act(session):
        kept.append(session)
        session["list"] = []
        session.save().addErrback(lambda _: None)
        session["list"].append({1})

    visiting = ensureDeferred(app.visit(served.browser(), act))
    call = await called(store, "create")
    call.fail(down())
    reply = await visiting
    assert reply.status == 500
    assert reply.setCookies == []
    (session,) = kept
    store.held = set()
    with pytest.raises(HeadersAlreadySent):
        session["list"] = [2]
    with pytest.raises(HeadersAlreadySent):
        await session.save()
    assert await store.store.length() == 0


@pytest_twisted.ensureDeferred
async def test_whoItWasStaysReadableAfterDestroy(serve):
    """
    After destroy(), the handle still tells the ID that was destroyed and its
    cookie; its data and its verbs raise SessionDestroyed.
    """
    app = App()
    served = serve(app)
    browser = served.browser()
    sid = await app.start(browser, user="ada")

    async def act(session):
        await session.destroy()
        assert session.id == sid
        assert not session.isNew
        assert session.cookie.path == "/"
        with pytest.raises(SessionDestroyed):
            _ = session["user"]
        for verb in (session.save, session.reload, session.regenerate):
            with pytest.raises(SessionDestroyed):
                await verb()

    assert (await app.visit(browser, act)).cookie().isExpired
