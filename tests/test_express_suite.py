"""
What express-session 1.19.0 asks of itself, asked of txsession.

Each test stands for the numbered cases of its docstring; the numbers are those
of docs/reference/express-test-suite.md, which describes every case of that
suite in its order, says where the outcome differs and why, and lists the cases
that mean nothing here.  Express saves every session and gives its test cookies
a minute by default; where a case rests on that, the options say so.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from pytest_twisted import ensureDeferred
from treq.client import HTTPClient
from twisted.internet import reactor, ssl
from twisted.internet.defer import Deferred, fail, gatherResults
from twisted.logger import LogEvent
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET

from txsession import (
    ConfigurationError,
    CookieOptions,
    ISession,
    MemoryStore,
    Record,
    SessionGone,
    SessionResource,
    getSession,
)

from .support import (
    SECRET,
    START,
    Page,
    Reply,
    Serve,
    Served,
    SetCookie,
    StepStore,
    clockAt,
    only,
)

MINUTE = CookieOptions(maxAge=60)
EXPRESS: dict[str, Any] = {"resave": True, "saveUninitialized": True}
"""
What Express does unless told otherwise.
"""

REFERENCE = Path(__file__).parents[1] / "docs" / "reference" / "express-test-suite.md"


# What the tests are made of.


@define(eq=False)
class Failing:
    """
    A store of which some operations fail.
    """

    store: Any
    errors: dict[str, Exception] = field(factory=dict)

    def __getattr__(self, operation: str) -> Any:
        if operation in self.errors:
            return lambda *_: fail(self.errors[operation])
        return getattr(self.store, operation)


class PlainStore:
    """
    A store that answers with plain values, and can do no more than it must.
    """

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}

    def get(self, sid: str) -> Record | None:
        return self.records.get(sid)

    def set(self, sid: str, record: Record) -> None:
        self.records[sid] = record

    def destroy(self, sid: str) -> None:
        self.records.pop(sid, None)


class Front(Resource):
    """
    Stands before another resource and does something to each request first.
    """

    isLeaf = True

    def __init__(self, resource: IResource, prepare: Callable[[Any], None]) -> None:
        super().__init__()
        self.resource = resource
        self.prepare = prepare

    def render(self, request: Any) -> Any:
        self.prepare(request)
        return self.resource.render(request)


def secureIfMarked(resource: IResource) -> IResource:
    """
    Has a request with the header C{X-Secure: true} count as one over TLS.
    """

    def mark(request: Any) -> None:
        if request.getHeader("X-Secure") == "true":
            request.setHost(b"localhost", 443, ssl=True)

    return Front(resource, mark)


def watched(
    serve: Serve, function: Callable[[Any], Any], *held: str, **options: Any
) -> Served:
    """
    Serve a function with a store whose calls are counted, and of which those of
    the operations C{held} wait.
    """
    clock = clockAt()
    store = StepStore(MemoryStore(reactor=clock), held=held)
    return serve(function, store=store, clock=clock, **options)


def failing(serve: Serve, function: Callable[[Any], Any], **options: Any) -> Served:
    clock = clockAt()
    store = Failing(MemoryStore(reactor=clock))
    return serve(function, store=store, clock=clock, **options)


def writes(store: StepStore) -> int:
    """
    How often something was written to the store.
    """
    return sum(operation in ("set", "create", "replace") for operation in store.calls)


def failures(logged: list[LogEvent]) -> list[BaseException]:
    """
    The exceptions that were logged.
    """
    return [event["log_failure"].value for event in logged if "log_failure" in event]


def start(coroutine: Any) -> Deferred[Any]:
    return Deferred.fromCoroutine(coroutine)


def sent(reply: Reply, name: str = "connect.sid") -> SetCookie:
    """
    The session cookie that the response sets.
    """
    cookie = reply.cookie(name)
    assert cookie is not None, "no cookie was sent"
    assert not cookie.isExpired
    return cookie


def expires(reply: Reply) -> float:
    """
    The timestamp at which the response lets its cookie expire.
    """
    return parsedate_to_datetime(sent(reply).attributes["expires"]).timestamp()


def empty(request: Any) -> None:
    """
    A page without content that leaves the session alone.
    """


def hit(request: Any) -> str:
    getSession(request)["hit"] = True
    return "session saved"


def bob(request: Any) -> str:
    getSession(request)["user"] = "bob"
    return "bob"


def hits(request: Any) -> str:
    session = getSession(request)
    session["count"] = session.get("count", 0) + 1
    return f"hits: {session['count']}"


def activate(request: Any) -> str:
    session = getSession(request)
    isNew = "active" not in session
    session["active"] = True
    return "session created" if isNew else "session read"


def numbered() -> Callable[[Any], str]:
    """
    A page that numbers the sessions it sees.
    """
    numbers = count(1)

    def page(request: Any) -> str:
        session = getSession(request)
        if "num" not in session:
            session["num"] = next(numbers)
        return f"session {session['num']}"

    return page


def isSecure(request: Any) -> str:
    return str(bool(request.isSecure()))


# The middleware as a whole.


@ensureDeferred
async def test_innerResourceLeavesRequestThatAnotherHasTaken(serve: Serve) -> None:
    """
    A request that has a session already is not given a second one (case 2).
    """
    clock = clockAt()
    store = MemoryStore(reactor=clock)
    inner = SessionResource(
        Page(hit), secret=SECRET, name="inner.sid", store=store, reactor=clock
    )
    served = serve(inner, clock=clock)

    reply = await served.browser().get()

    assert await served.data(sent(reply).sid) == {"hit": True}
    assert reply.cookie("inner.sid") is None
    assert await store.length() == 0


@pytest.mark.parametrize("secret", [None, "", b"", [""]])
def test_emptySecretIsRefused(secret: Any) -> None:
    """
    There are no sessions without a secret (case 3).
    """
    with pytest.raises(ConfigurationError, match="secret"):
        SessionResource(Page(empty), secret=secret)


def test_secretIsRequired() -> None:
    """
    There is no default secret (case 3).
    """
    with pytest.raises(TypeError, match="secret"):
        SessionResource(Page(empty))  # type: ignore[call-arg]


@ensureDeferred
async def test_firstWriteCreatesSession(serve: Serve) -> None:
    """
    A visitor without a cookie gets a session, a cookie and a record (case 5).
    """
    served = serve(activate)

    reply = await served.browser().get()

    assert reply.text == "session created"
    assert await served.data(sent(reply).sid) == {"active": True}
    assert await served.store.length() == 1


@ensureDeferred
async def test_cookieBringsSessionBack(serve: Serve) -> None:
    """
    A visitor who returns with the cookie finds the session (case 6).
    """
    browser = serve(numbered()).browser()

    first = await browser.get()
    second = await browser.get()

    assert sent(first)
    assert [first.text, second.text] == ["session 1", "session 1"]


@ensureDeferred
async def test_failedLoadIsErrorPage(serve: Serve) -> None:
    """
    A store that fails while a session is fetched ends the request with an error
    (case 7).
    """
    served = failing(serve, activate)
    browser = served.browser()
    first = await browser.get()
    served.store.errors["get"] = RuntimeError("boom!")

    second = await browser.get()

    assert first.status == 200
    assert second.status == 500
    assert "session created" not in second.text
    assert "boom" not in second.text


@ensureDeferred
async def test_missingFileCountsAsMissingSession(serve: Serve) -> None:
    """
    A fetch that fails because there is no such file has found no session
    (case 8).
    """
    served = failing(serve, numbered())
    browser = served.browser()
    first = await browser.get()
    served.store.errors["get"] = FileNotFoundError("boom!")

    second = await browser.get()

    assert [first.text, second.text] == ["session 1", "session 2"]
    assert second.status == 200


@ensureDeferred
async def test_visitorsHaveSessionsOfTheirOwn(serve: Serve) -> None:
    """
    Two visitors at once get two sessions (case 9).
    """
    served = serve(activate)

    replies = await gatherResults([start(served.browser().get()) for _ in range(2)])

    assert [reply.text for reply in replies] == ["session created"] * 2
    assert set(await served.store.all()) == {sent(reply).sid for reply in replies}
    assert await served.store.length() == 2


@ensureDeferred
async def test_requestTargetWithoutPathHasSession(serve: Serve) -> None:
    """
    A request whose target names no path counts as one for the root (case 10).
    """
    served = serve(activate)

    response = await served.browser().raw(
        b"GET http://localhost HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )

    assert response.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nSet-Cookie: connect.sid=" in response


@pytest.mark.parametrize("held", [(), ("create",)], ids=["atOnce", "held"])
@ensureDeferred
async def test_secondFinishIsHarmless(serve: Serve, held: tuple[str, ...]) -> None:
    """
    Ending the response twice sends it once (case 11).
    """
    survived = []

    def page(request: Any) -> int:
        hit(request)
        request.setHeader("Content-Type", "text/plain")
        request.write(b"Hello, world!")
        request.finish()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Twisted warns of it by itself
            request.finish()
        survived.append(True)
        return NOT_DONE_YET

    served = watched(serve, page, *held)
    replying = start(served.browser().get())
    if held:
        (await served.store.called("create")).release()
    reply = await replying

    assert survived
    assert reply.status == 200
    assert reply.header("Content-Type") == "text/plain"
    assert reply.text == "Hello, world!"


@ensureDeferred
async def test_responseMayEndWithoutBody(serve: Serve) -> None:
    """
    A response that is ended with nothing in it is an empty page (case 12).
    """

    def page(request: Any) -> int:
        hit(request)
        request.finish()
        return NOT_DONE_YET

    reply = await serve(page).browser().get()

    assert (reply.status, reply.body) == (200, b"")
    assert sent(reply)


@ensureDeferred
async def test_dataMayBeCalledLikeMethod(serve: Serve) -> None:
    """
    A stored key with the name of a method of the session is data, and harms no
    method (case 13).
    """

    async def page(request: Any) -> str:
        session = getSession(request)
        session["num"] = session.get("num", 0) + 1
        await session.save()
        return str(session.get("save"))

    served = serve(page)
    browser = served.browser()
    sid = sent(await browser.get()).sid
    record = await served.record(sid)
    assert record is not None
    document = {**json.loads(record.payload), "save": "nope"}
    await served.store.set(sid, Record(json.dumps(document).encode(), record.expires))

    reply = await browser.get()

    assert (reply.status, reply.text) == (200, "nope")
    assert await served.data(sid) == {"num": 2, "save": "nope"}


@ensureDeferred
async def test_keysAreThoseOfTheData(serve: Serve) -> None:
    """
    The keys of a session are those that the application set; the cookie is not
    among them (case 14).
    """

    def page(request: Any) -> str:
        session = getSession(request)
        session["test1"] = 1
        session["test2"] = "b"
        return ",".join(sorted(session.keys()))

    reply = await serve(page, cookie=MINUTE).browser().get()

    assert reply.text == "test1,test2"


@ensureDeferred
async def test_idCannotBeReplaced(serve: Serve) -> None:
    """
    An application cannot give a session a bogus ID: it is refused at once, and
    the session is saved under its own (case 15).
    """

    def page(request: Any) -> str:
        session = getSession(request)
        session["test1"] = 1
        try:
            session.id = lambda: None  # type: ignore[misc, assignment]
        except AttributeError:
            return str(session.id)
        return "replaced"

    served = serve(page)

    reply = await served.browser().get()

    assert reply.text == sent(reply).sid
    assert await served.data(reply.text) == {"test1": 1}


@ensureDeferred
async def test_rollingExpiryIsThatOfFirstWrite(serve: Serve) -> None:
    """
    A page that takes its time renews the cookie with every response all the
    same (case 16).
    """

    def page(request: Any) -> int:
        getSession(request)["user"] = "bob"
        request.write(b"hello, ")
        served.clock.advance(2)
        request.write(b"world!")
        request.finish()
        return NOT_DONE_YET

    served = serve(page, rolling=True, cookie=MINUTE)
    browser = served.browser()

    first = await browser.get()
    served.clock.advance(3)
    second = await browser.get()

    assert second.text == "hello, world!"
    assert [expires(first), expires(second)] == [START + 60, START + 65]


# When the response has ended.


async def untilSaved(serve: Serve, page: Callable[[Any], Any]) -> tuple[bytes, bytes]:
    """
    Ask for a page whose session is slow to be saved, see that nothing arrives
    before it is, and that it is when the page arrives.

    @return: the head and the body of the response.
    """
    served = watched(
        serve,
        lambda request: page(request) if request.path == b"/" else None,
        "create",
    )
    browser = served.browser()
    connection = await browser.connect()
    connection.transport.write(
        b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    call = await served.store.called("create")
    # What the server had sent would be here before the answer to this.
    await browser.get("/elsewhere")
    assert connection.received == b""
    assert await served.store.store.length() == 0
    call.release()
    head, _, body = (await connection.closed).partition(b"\r\n\r\n")
    assert await served.store.store.length() == 1
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nSet-Cookie: connect.sid=" in head
    return head, body


@ensureDeferred
async def test_responseWaitsForSave(serve: Serve) -> None:
    """
    When the response arrives, the session is saved (case 17).
    """
    _head, body = await untilSaved(serve, hit)

    assert body == b"session saved"


@ensureDeferred
async def test_emptyResponseWaitsForSave(serve: Serve) -> None:
    """
    So it is when the response has no body (case 18).
    """

    def page(request: Any) -> int:
        hit(request)
        request.setHeader("Content-Length", "0")
        request.finish()
        return NOT_DONE_YET

    head, body = await untilSaved(serve, page)

    assert b"\r\nContent-Length: 0" in head
    assert body == b""


@ensureDeferred
async def test_responseInPartsWaitsForSave(serve: Serve) -> None:
    """
    So it is when the body is written in several parts, none of which is lost or
    moved (case 19).
    """

    def page(request: Any) -> int:
        hit(request)
        request.setHeader("Content-Length", "12")
        request.write(b"hello, ")
        request.write(b"world")
        request.finish()
        return NOT_DONE_YET

    head, body = await untilSaved(serve, page)

    assert b"\r\nContent-Length: 12" in head
    assert body == b"hello, world"


@ensureDeferred
async def test_responseOfKnownLengthWaitsForSave(serve: Serve) -> None:
    """
    So it is when the response says how long it is, and is not chunked (case 20).
    """

    def page(request: Any) -> int:
        request.setHeader("Content-Length", "13")
        request.write(hit(request).encode())
        request.finish()
        return NOT_DONE_YET

    head, body = await untilSaved(serve, page)

    assert b"Transfer-Encoding" not in head
    assert body == b"session saved"


@ensureDeferred
async def test_savedExpiryIsThatOfCookieAndMovesOn(serve: Serve) -> None:
    """
    The document says when the cookie expires, and later so after a later visit
    (case 21).
    """

    def page(request: Any) -> str:
        bob(request)
        return getSession(request).id

    async def stored() -> tuple[float, float]:
        record = await served.record(first.text)
        assert record is not None
        date = json.loads(record.payload)["cookie"]["expires"]
        return datetime.fromisoformat(date[:-1] + "+00:00").timestamp(), record.expires

    served = serve(page, cookie=MINUTE, **EXPRESS)
    browser = served.browser()

    first = await browser.get()
    before = await stored()
    served.clock.advance(2)
    second = await browser.get()
    after = await stored()

    assert second.text == first.text == sent(first).sid
    assert before == (expires(first), START + 60)
    assert after == (START + 62, START + 62)


# When the store does not know the ID.


@ensureDeferred
async def test_unknownIDMeansNewSession(serve: Serve) -> None:
    """
    A visitor whose session is no longer in the store gets a new one (case 22).
    """
    served = serve(numbered())
    browser = served.browser()
    first = await browser.get()
    await served.store.clear()

    second = await browser.get()

    assert [first.text, second.text] == ["session 1", "session 2"]


@ensureDeferred
async def test_unknownIDIsNotTakenOver(serve: Serve) -> None:
    """
    That new session has an ID of its own (case 23).
    """
    served = serve(numbered())
    browser = served.browser()
    first = await browser.get()
    await served.store.clear()

    second = await browser.get()

    assert sent(second).sid != sent(first).sid
    assert set(await served.store.all()) == {sent(second).sid}


# When the ID is not properly signed.


@ensureDeferred
async def test_unsignedIDMeansNewSession(serve: Serve) -> None:
    """
    An ID without a signature is as good as none (case 24).
    """
    served = serve(activate, name="sessid")
    browser = served.browser()
    sid = sent(await browser.get(), "sessid").sid

    reply = await browser.get(headers={"Cookie": f"sessid={sid}"})

    assert reply.text == "session created"
    assert sent(reply, "sessid").sid != sid


@ensureDeferred
async def test_forgedIDIsNotLookedUp(serve: Serve) -> None:
    """
    An ID that its signature does not fit is not even asked for in the store
    (case 25).
    """
    served = watched(serve, activate, name="sessid")
    browser = served.browser()
    value = sent(await browser.get(), "sessid").value
    forged = re.sub(r"...\.", ".", value)
    assert forged != value

    reply = await browser.get(headers={"Cookie": f"sessid={forged}"})

    assert reply.text == "session created"
    assert sent(reply, "sessid")
    assert "get" not in served.store.calls


# When the session has expired in the store.


@ensureDeferred
async def test_expiredSessionMeansNewSession(serve: Serve) -> None:
    """
    A visitor who comes back too late gets a new session (case 26).
    """
    served = serve(numbered(), cookie=CookieOptions(maxAge=5))
    browser = served.browser()
    first = await browser.get()
    served.clock.advance(5)

    second = await browser.get()

    assert sent(second)
    assert [first.text, second.text] == ["session 1", "session 2"]


@ensureDeferred
async def test_expiredIDIsNotTakenOver(serve: Serve) -> None:
    """
    That new session has an ID of its own (case 27).
    """
    served = serve(numbered(), cookie=CookieOptions(maxAge=5))
    browser = served.browser()
    first = await browser.get()
    served.clock.advance(5)

    second = await browser.get()

    assert sent(second).sid != sent(first).sid


@ensureDeferred
async def test_expiredSessionIsNotInStore(serve: Serve) -> None:
    """
    The store no longer shows a session that has expired (case 28).
    """
    served = serve(numbered(), cookie=CookieOptions(maxAge=5))
    reply = await served.browser().get()
    before = await served.store.all()
    served.clock.advance(5)

    assert set(before) == {sent(reply).sid}
    assert await served.store.all() == {}


# When a stored session has no cookie property.


@ensureDeferred
async def test_recordWithoutCookieIsErrorPage(serve: Serve) -> None:
    """
    A record that is not a session's ends the request with an error, and stays
    what it is (case 29).
    """
    served = serve(numbered())
    browser = served.browser()
    sid = sent(await browser.get()).sid
    foreign = Record(b'{"foo":"bar"}', START + 60)
    await served.store.set(sid, foreign)

    reply = await browser.get()

    assert reply.status == 500
    assert await served.record(sid) == foreign


# The option proxy.


@pytest.mark.parametrize(
    ("header", "isSent"),
    [
        pytest.param("https", True, id="https"),
        pytest.param("http", False, id="http"),
    ],
)
@ensureDeferred
async def test_trustedProxyMaySayThatRequestIsSecure(
    serve: Serve, header: str, isSent: bool
) -> None:
    """
    With proxy=True, X-Forwarded-Proto says whether a request is secure
    (case 30).
    """
    served = serve(hit, proxy=True, cookie=CookieOptions(secure=True, maxAge=5))

    reply = await served.browser().get(headers={"X-Forwarded-Proto": header})

    assert (reply.cookie() is not None) is isSent


@pytest.mark.parametrize(
    ("header", "isSent"),
    [
        pytest.param("https,http", True, id="httpsFirst"),
        pytest.param("http,https", False, id="httpFirst"),
    ],
)
@ensureDeferred
async def test_firstOfForwardedProtocolsCounts(
    serve: Serve, header: str, isSent: bool
) -> None:
    """
    Of a list in X-Forwarded-Proto, the first value counts (case 31).
    """
    served = serve(hit, proxy=True, cookie=CookieOptions(secure=True, maxAge=5))

    reply = await served.browser().get(headers={"X-Forwarded-Proto": header})

    assert (reply.cookie() is not None) is isSent


@ensureDeferred
async def test_proxyThatSaysNothingMakesNothingSecure(serve: Serve) -> None:
    """
    Without the header the request is what it is, and served without a cookie
    (case 32).
    """
    served = serve(hit, proxy=True, cookie=CookieOptions(secure=True, maxAge=5))

    reply = await served.browser().get()

    assert reply.status == 200
    assert reply.setCookies == []


@ensureDeferred
async def test_untrustedProxyIsNotBelieved(serve: Serve) -> None:
    """
    With proxy=False, X-Forwarded-Proto is ignored (case 33).
    """
    served = serve(hit, proxy=False, cookie=CookieOptions(secure=True))

    reply = await served.browser().get(headers={"X-Forwarded-Proto": "https"})

    assert reply.status == 200
    assert reply.setCookies == []


@ensureDeferred
async def test_secureConnectionIsSecureWithoutProxy(serve: Serve) -> None:
    """
    With proxy=False, a request that is known to have come over TLS still is
    secure (case 34).
    """

    def page(request: Any) -> str:
        hit(request)
        return isSecure(request)

    served = serve(
        page, proxy=False, cookie=CookieOptions(secure=True), mount=secureIfMarked
    )

    reply = await served.browser().get(headers={"X-Secure": "true"})

    assert reply.text == "True"
    assert "secure" in sent(reply).attributes


@ensureDeferred
async def test_noProxyIsBelievedByDefault(serve: Serve) -> None:
    """
    Without the option, X-Forwarded-Proto is ignored (case 35).
    """
    served = serve(hit, cookie=CookieOptions(secure=True))

    reply = await served.browser().get(headers={"X-Forwarded-Proto": "https"})

    assert reply.status == 200
    assert reply.setCookies == []


@ensureDeferred
async def test_requestSaysWhetherItIsSecureByDefault(serve: Serve) -> None:
    """
    Without the option, the request itself says whether it is secure (case 36).
    """

    def page(request: Any) -> str:
        hit(request)
        return isSecure(request)

    served = serve(page, cookie=CookieOptions(secure=True), mount=secureIfMarked)

    secure = await served.browser().get(headers={"X-Secure": "true"})
    insecure = await served.browser().get()

    assert (secure.text, insecure.text) == ("True", "False")
    assert sent(secure)
    assert insecure.cookie() is None


# The option cookie: its path.

FOO_BAR = CookieOptions(path="/foo/bar")


@ensureDeferred
async def test_pathOutsideOfCookiePathHasNoSession(serve: Serve) -> None:
    """
    Outside of the cookie's path there is no session (case 37).
    """
    served = serve(
        lambda request: str(ISession(request, None)),
        cookie=FOO_BAR,
        saveUninitialized=True,
    )

    reply = await served.browser().get("/")

    assert (reply.status, reply.text) == (200, "None")
    assert reply.setCookies == []


@ensureDeferred
async def test_hostDoesNotPassForPath(serve: Serve) -> None:
    """
    What a Host header says is not taken for the path (case 38).
    """
    served = serve(empty, cookie=FOO_BAR, saveUninitialized=True)

    reply = await served.browser().raw(
        b"GET / HTTP/1.1\r\nHost: http://foo/bar\r\nConnection: close\r\n\r\n"
    )

    assert reply.startswith(b"HTTP/1.1 200 ")
    assert b"Set-Cookie" not in reply


@ensureDeferred
async def test_cookiePathItselfHasSession(serve: Serve) -> None:
    """
    The cookie's path itself has a session (case 39).
    """
    served = serve(empty, cookie=FOO_BAR, saveUninitialized=True)

    reply = await served.browser().get("/foo/bar")

    assert sent(reply).attributes["path"] == "/foo/bar"


@ensureDeferred
async def test_pathBelowCookiePathHasSession(serve: Serve) -> None:
    """
    What is below the cookie's path has a session (case 40).
    """
    served = serve(empty, cookie=FOO_BAR, saveUninitialized=True)

    reply = await served.browser().get("/foo/bar/baz")

    assert sent(reply).attributes["path"] == "/foo/bar"


def mountedAtFoo(resource: IResource) -> IResource:
    root = Resource()
    root.putChild(b"foo", resource)
    return root


@ensureDeferred
async def test_cookiePathIsMatchedWithWholePathWhereMounted(serve: Serve) -> None:
    """
    Mounted below /foo, a resource is reached at /foo/bar, which the cookie's
    path is compared with (case 41).
    """
    served = serve(empty, cookie=FOO_BAR, saveUninitialized=True, mount=mountedAtFoo)

    reply = await served.browser().get("/foo/bar")

    assert sent(reply)


@ensureDeferred
async def test_cookiePathIsNotMatchedWithRestOfPathWhereMounted(serve: Serve) -> None:
    """
    What the path is when seen from where the resource is mounted has no part in
    it (case 42).
    """
    served = serve(empty, cookie=FOO_BAR, saveUninitialized=True, mount=mountedAtFoo)

    reply = await served.browser().get("/foo/foo/bar")

    assert reply.status == 200
    assert reply.setCookies == []


# The option cookie: secure="auto".


@ensureDeferred
async def test_autoSecureFollowsTrustedProxy(serve: Serve) -> None:
    """
    The cookie is Secure where a proxy that is trusted says so (case 43).
    """
    cookie = CookieOptions(maxAge=5, secure="auto")
    served = serve(hit, proxy=True, cookie=cookie)

    reply = await served.browser().get(headers={"X-Forwarded-Proto": "https"})

    assert "secure" in sent(reply).attributes


@ensureDeferred
async def test_autoSecureIgnoresUntrustedProxy(serve: Serve) -> None:
    """
    The cookie is not Secure where a proxy that is not trusted says so (case 44).
    """
    cookie = CookieOptions(maxAge=5, secure="auto")
    served = serve(hit, proxy=False, cookie=cookie)

    reply = await served.browser().get(headers={"X-Forwarded-Proto": "https"})

    assert "secure" not in sent(reply).attributes


@ensureDeferred
async def test_autoSecureIsSetOnSecureRequest(serve: Serve) -> None:
    """
    The cookie is Secure where the request is (case 45).
    """
    served = serve(hit, cookie=CookieOptions(secure="auto"), mount=secureIfMarked)

    reply = await served.browser().get(headers={"X-Secure": "true"})

    assert "secure" in sent(reply).attributes


@ensureDeferred
async def test_autoSecureIsLeftOutOnInsecureRequest(serve: Serve) -> None:
    """
    The cookie is not Secure where the request is not (case 46).
    """
    served = serve(hit, cookie=CookieOptions(secure="auto"), mount=secureIfMarked)

    reply = await served.browser().get(headers={"X-Secure": "false"})

    assert "secure" not in sent(reply).attributes


# The option cookie: a callable.


@ensureDeferred
async def test_cookieOptionsMayComeFromCallable(serve: Serve) -> None:
    """
    A callable may give the options of the cookie (case 47).
    """
    options = CookieOptions(path="/test", httpOnly=True, secure=False)
    served = serve(hit, cookie=lambda _request: options)

    reply = await served.browser().get("/test")

    attributes = sent(reply).attributes
    assert attributes["path"] == "/test"
    assert "httponly" in attributes
    assert "secure" not in attributes


@ensureDeferred
async def test_cookieCallableIsGivenRequest(serve: Serve) -> None:
    """
    That callable is given the request (case 48).
    """
    served = serve(
        hit, cookie=lambda request: CookieOptions(path=request.path.decode())
    )

    replies = [await served.browser().get(path) for path in ("/one", "/two")]

    assert [sent(reply).attributes["path"] for reply in replies] == ["/one", "/two"]


# The option cookie: sameSite="auto".


@pytest.mark.parametrize(
    ("mark", "sameSite"),
    [
        pytest.param("true", "None", id="secure"),
        pytest.param("false", "Lax", id="insecure"),
    ],
)
@ensureDeferred
async def test_autoSameSiteFollowsRequest(
    serve: Serve, mark: str, sameSite: str
) -> None:
    """
    The cookie is SameSite=None where the request is secure, and else Lax
    (cases 49, 50).
    """
    served = serve(hit, cookie=CookieOptions(sameSite="auto"), mount=secureIfMarked)

    reply = await served.browser().get(headers={"X-Secure": mark})

    assert sent(reply).attributes["samesite"] == sameSite


@pytest.mark.parametrize(
    ("header", "sameSite"),
    [
        pytest.param("https", "None", id="https"),
        pytest.param("http", "Lax", id="http"),
    ],
)
@ensureDeferred
async def test_autoSameSiteFollowsTrustedProxy(
    serve: Serve, header: str, sameSite: str
) -> None:
    """
    So it is where a proxy that is trusted says whether the request is secure
    (cases 51, 52).
    """
    served = serve(hit, proxy=True, cookie=CookieOptions(sameSite="auto"))

    reply = await served.browser().get(headers={"X-Forwarded-Proto": header})

    assert sent(reply).attributes["samesite"] == sameSite


@ensureDeferred
async def test_autoSameSiteIgnoresUntrustedProxy(serve: Serve) -> None:
    """
    The cookie is SameSite=Lax whatever a proxy says that is not trusted
    (case 53).
    """
    served = serve(hit, proxy=False, cookie=CookieOptions(sameSite="auto"))

    reply = await served.browser().get(headers={"X-Forwarded-Proto": "https"})

    assert sent(reply).attributes["samesite"] == "Lax"


@pytest.mark.parametrize(
    ("mark", "isSecure", "sameSite"),
    [
        pytest.param("true", True, "None", id="secure"),
        pytest.param("false", False, "Lax", id="insecure"),
    ],
)
@ensureDeferred
async def test_autoSameSiteGoesWithAutoSecure(
    serve: Serve, mark: str, isSecure: bool, sameSite: str
) -> None:
    """
    With both "auto", the cookie is Secure and SameSite=None, or neither
    (cases 54, 55).
    """
    cookie = CookieOptions(secure="auto", sameSite="auto")
    served = serve(hit, cookie=cookie, mount=secureIfMarked)

    reply = await served.browser().get(headers={"X-Secure": mark})

    attributes = sent(reply).attributes
    assert ("secure" in attributes) is isSecure
    assert attributes["samesite"] == sameSite


@pytest.mark.parametrize("mark", ["true", "false"])
@ensureDeferred
async def test_autoSameSiteIsLaxWithoutSecure(serve: Serve, mark: str) -> None:
    """
    With secure=False, the cookie is Lax on every request, since browsers refuse
    SameSite=None without Secure (cases 56, 57).
    """
    cookie = CookieOptions(secure=False, sameSite="auto")
    served = serve(hit, cookie=cookie, mount=secureIfMarked)

    reply = await served.browser().get(headers={"X-Secure": mark})

    attributes = sent(reply).attributes
    assert "secure" not in attributes
    assert attributes["samesite"] == "Lax"


@ensureDeferred
async def test_autoSameSiteIsNoneWhereCookieIsSecure(serve: Serve) -> None:
    """
    With secure=True, the cookie of a secure request is SameSite=None (case 58).
    """
    cookie = CookieOptions(secure=True, sameSite="auto")
    served = serve(hit, cookie=cookie, mount=secureIfMarked)

    reply = await served.browser().get(headers={"X-Secure": "true"})

    attributes = sent(reply).attributes
    assert "secure" in attributes
    assert attributes["samesite"] == "None"


@ensureDeferred
async def test_autoSameSiteDoesNotSendSecureCookieInsecurely(serve: Serve) -> None:
    """
    With secure=True, an insecure request gets no cookie at all (case 59).
    """
    cookie = CookieOptions(secure=True, sameSite="auto")
    served = serve(hit, cookie=cookie, mount=secureIfMarked)

    reply = await served.browser().get(headers={"X-Secure": "false"})

    assert reply.status == 200
    assert reply.setCookies == []


# The option genid.


def test_genidMustBeCallable() -> None:
    """
    Something that cannot be called cannot make IDs (case 60).
    """
    with pytest.raises(ConfigurationError, match=r"genid.*must"):
        SessionResource(Page(empty), secret=SECRET, genid="bogus!")  # type: ignore[arg-type]


@ensureDeferred
async def test_idsAreMadeByDefault(serve: Serve) -> None:
    """
    IDs are made without being asked for (case 61).
    """
    served = serve(hit)

    replies = [await served.browser().get() for _ in range(2)]

    one, other = (sent(reply).sid for reply in replies)
    assert re.fullmatch(r"[\w-]{32}", one, re.ASCII)
    assert one != other


@ensureDeferred
async def test_genidMakesIDs(serve: Serve) -> None:
    """
    IDs may be of one's own making; signed, they are what Express makes of them
    (case 62).
    """
    reply = await serve(hit, genid=lambda _request: "apple").browser().get()

    assert sent(reply).value == (
        "s%3Aapple.D8Y%2BpkTAmeR0PobOhY4G97PRW%2Bj7bUnP%2F5m6%2FOn1MCU"
    )


@ensureDeferred
async def test_unsafeCharactersOfIDAreEncoded(serve: Serve) -> None:
    """
    What may not stand in a cookie is encoded, and decoded when it comes back
    (case 63).
    """
    served = serve(numbered(), genid=lambda _request: "%")
    browser = served.browser()

    first = await browser.get()
    second = await browser.get()

    assert sent(first).value == (
        "s%3A%25.kzQ6x52kKVdF35Qh62AWk4ZekS28K5XYCXKa%2FOTZ01g"
    )
    assert second.text == "session 1"


@ensureDeferred
async def test_genidIsGivenRequest(serve: Serve) -> None:
    """
    What makes the IDs is given the request (case 64).
    """
    served = serve(hit, genid=lambda request: request.uri.decode())

    reply = await served.browser().get("/foo")

    assert sent(reply).value == (
        "s%3A%2Ffoo.paEKBtAHbV5s1IB8B2zPnzAgYmmnRPIqObW4VRYj%2FMQ"
    )


# The options key and name.


@ensureDeferred
async def test_cookieIsCalledAsThatOfExpressByDefault(serve: Serve) -> None:
    """
    Unless told otherwise, the cookie has the name that Express gives it
    (cases 65, 67).
    """
    reply = await serve(hit).browser().get()

    assert reply.setCookies[0].startswith("connect.sid=s%3A")


def test_nameHasNoAlias() -> None:
    """
    The old name of the option that names the cookie is not known (case 66).
    """
    with pytest.raises(TypeError, match="key"):
        SessionResource(Page(empty), secret=SECRET, key="session_id")  # type: ignore[call-arg]


@ensureDeferred
async def test_nameIsThatOfCookie(serve: Serve) -> None:
    """
    The cookie may have another name (case 68).
    """
    served = serve(numbered(), name="session_id")
    browser = served.browser()

    first = await browser.get()
    second = await browser.get()

    assert sent(first, "session_id")
    assert first.cookie() is None
    assert second.text == "session 1"


# The option rolling.


@ensureDeferred
async def test_cookieIsNotRenewedByDefault(serve: Serve) -> None:
    """
    By default a response to an unmodified session has no cookie (case 69).
    """
    browser = serve(bob, cookie=MINUTE).browser()

    first = await browser.get()
    second = await browser.get()

    assert sent(first)
    assert second.setCookies == []


@ensureDeferred
async def test_rollingRenewsCookieOfUnmodifiedSession(serve: Serve) -> None:
    """
    With rolling=True, it has (case 70).
    """
    browser = serve(bob, cookie=MINUTE, rolling=True).browser()

    first = await browser.get()
    second = await browser.get()

    assert sent(second).sid == sent(first).sid


@ensureDeferred
async def test_rollingSendsNoCookieOfUnsavedSession(serve: Serve) -> None:
    """
    With rolling=True, a session that is not saved still has no cookie (case 71).
    """
    served = watched(serve, empty, rolling=True, saveUninitialized=False)

    reply = await served.browser().get()

    assert reply.status == 200
    assert reply.setCookies == []
    assert served.store.calls == []


@ensureDeferred
async def test_rollingSendsCookieOfUninitializedSessionThatIsSaved(
    serve: Serve,
) -> None:
    """
    With rolling=True and saveUninitialized=True, an untouched session is saved
    and its cookie sent (case 72).
    """
    served = watched(serve, empty, rolling=True, saveUninitialized=True)

    reply = await served.browser().get()

    assert writes(served.store) == 1
    assert await served.data(sent(reply).sid) == {}


@ensureDeferred
async def test_rollingSendsCookieOfModifiedSession(serve: Serve) -> None:
    """
    With rolling=True and saveUninitialized=False, a session that was written to
    is saved and its cookie sent (case 73).
    """
    served = watched(serve, bob, rolling=True, saveUninitialized=False)

    reply = await served.browser().get()

    assert writes(served.store) == 1
    assert await served.data(sent(reply).sid) == {"user": "bob"}


# The option resave.


@ensureDeferred
async def test_unmodifiedSessionIsNotSavedByDefault(serve: Serve) -> None:
    """
    By default a session that was not modified is not written again (case 74).
    """
    served = watched(serve, bob)
    browser = served.browser()
    await browser.get()
    before = writes(served.store)

    await browser.get()

    assert (before, writes(served.store)) == (1, 1)


@ensureDeferred
async def test_resaveWritesUnmodifiedSession(serve: Serve) -> None:
    """
    With resave=True, it is (case 75).
    """
    served = watched(serve, bob, resave=True)
    browser = served.browser()
    await browser.get()
    before = writes(served.store)

    await browser.get()

    assert (before, writes(served.store)) == (1, 2)


@ensureDeferred
async def test_withoutResaveUnmodifiedSessionIsNotSaved(serve: Serve) -> None:
    """
    With resave=False, it is not, be it that an equal value was assigned
    (case 76).
    """
    served = watched(serve, bob, resave=False)
    browser = served.browser()
    await browser.get()
    before = writes(served.store)

    reply = await browser.get()

    assert reply.text == "bob"
    assert (before, writes(served.store)) == (1, 1)


@ensureDeferred
async def test_withoutResaveModifiedSessionIsSaved(serve: Serve) -> None:
    """
    With resave=False, just those requests that modify a session write it
    (case 77).
    """

    def page(request: Any) -> str:
        session = getSession(request)
        if request.method == b"PUT":
            session["token"] = request.path[1:].decode()
        return f"token={session.get('token', '')}"

    served = watched(serve, page, resave=False)
    browser = served.browser()
    seen = []
    for method, path in [("PUT", "/w6RHhwaA"), ("GET", "/"), ("PUT", "/zfQ3rzM3")]:
        reply = await browser.request(method, path)
        seen.append((reply.text, writes(served.store)))

    assert seen == [("token=w6RHhwaA", 1), ("token=w6RHhwaA", 1), ("token=zfQ3rzM3", 2)]


@ensureDeferred
async def test_changeOfInnerKeyCalledCookieIsChange(serve: Serve) -> None:
    """
    Deeper in the data, a key called "cookie" is like any other (case 78).
    """

    def page(request: Any) -> None:
        user = getSession(request).setdefault("user", {})
        user["name"] = "bob"
        user["cookie"] = user.get("cookie", 0) + 1

    served = watched(serve, page, resave=False)
    browser = served.browser()
    sid = sent(await browser.get()).sid

    await browser.get()

    assert writes(served.store) == 2
    assert await served.data(sid) == {"user": {"name": "bob", "cookie": 2}}


@ensureDeferred
async def test_failedTouchIsLogged(serve: Serve, logged: list[LogEvent]) -> None:
    """
    A touch that fails is told to the log, and does not spoil the response
    (case 79).
    """
    served = failing(serve, hit, resave=False, touchInterval=0)
    error = served.store.errors["touch"] = RuntimeError("boom!")
    browser = served.browser()
    await browser.get()
    del logged[:]

    reply = await browser.get()

    assert (reply.status, reply.text) == (200, "session saved")
    assert failures(logged) == [error]


# The option saveUninitialized.


@ensureDeferred
async def test_uninitializedSessionIsNotSavedByDefault(serve: Serve) -> None:
    """
    By default a session that nobody wrote to is not saved (case 80).
    """
    served = watched(serve, empty)

    reply = await served.browser().get()

    assert reply.setCookies == []
    assert served.store.calls == []


@ensureDeferred
async def test_saveUninitializedSavesUntouchedSession(serve: Serve) -> None:
    """
    With saveUninitialized=True, it is (case 81).
    """
    served = watched(serve, empty, saveUninitialized=True)

    reply = await served.browser().get()

    assert writes(served.store) == 1
    assert await served.data(sent(reply).sid) == {}


@ensureDeferred
async def test_withoutSaveUninitializedUntouchedSessionIsNotSaved(
    serve: Serve,
) -> None:
    """
    With saveUninitialized=False, it is not, even if it was looked at (case 82).
    """
    served = watched(
        serve, lambda request: str(len(getSession(request))), saveUninitialized=False
    )

    reply = await served.browser().get()

    assert reply.text == "0"
    assert reply.setCookies == []
    assert served.store.calls == []


@ensureDeferred
async def test_withoutSaveUninitializedModifiedSessionIsSaved(serve: Serve) -> None:
    """
    With saveUninitialized=False, a session that was written to is saved
    (case 83).
    """
    served = watched(serve, hits, saveUninitialized=False)

    reply = await served.browser().get()

    assert writes(served.store) == 1
    assert await served.data(sent(reply).sid) == {"count": 1}


@ensureDeferred
async def test_failedSaveIsErrorPage(serve: Serve, logged: list[LogEvent]) -> None:
    """
    A save that fails is told to the visitor instead of the page that promised it
    (case 84).
    """
    served = failing(serve, lambda _request: "session saved", saveUninitialized=True)
    error = served.store.errors["create"] = RuntimeError("boom!")

    reply = await served.browser().get()

    assert reply.status == 500
    assert "session saved" not in reply.text
    assert reply.setCookies == []
    assert any(
        event["log_failure"].value is error
        for event in logged
        if "log_failure" in event
    )


@ensureDeferred
async def test_untouchedSessionIsNotTouchedInStore(serve: Serve) -> None:
    """
    A session that is not saved is not touched either (case 85).
    """
    served = watched(
        serve, empty, saveUninitialized=False, cookie=MINUTE, touchInterval=0
    )

    reply = await served.browser().get()

    assert reply.status == 200
    assert "touch" not in served.store.calls


# The option secret.


def test_emptyListOfSecretsIsRefused() -> None:
    """
    A list of secrets must not be empty (case 86).
    """
    with pytest.raises(ConfigurationError, match=r"secret.*at least one"):
        SessionResource(Page(empty), secret=[])


@pytest.mark.parametrize(
    "secret",
    [
        pytest.param("awesome cat", id="str"),
        pytest.param(bytes(range(224, 256)), id="bytes"),
    ],
)
@ensureDeferred
async def test_secretSignsAndVerifies(serve: Serve, secret: str | bytes) -> None:
    """
    A secret may be text or bytes; what it signed, it verifies (cases 87, 88).
    """
    browser = serve(activate, secret=secret).browser()

    first = await browser.get()
    second = await browser.get()

    assert sent(first)
    assert [first.text, second.text] == ["session created", "session read"]


@ensureDeferred
async def test_listOfSecretsSigns(serve: Serve) -> None:
    """
    With a list of secrets, cookies are signed (case 89).
    """
    browser = serve(activate, secret=["keyboard cat", "nyan cat"]).browser()

    first = await browser.get()
    second = await browser.get()

    assert sent(first)
    assert [first.text, second.text] == ["session created", "session read"]


@ensureDeferred
async def test_firstSecretSigns(serve: Serve) -> None:
    """
    It is the first of the secrets that signs (case 90).
    """
    clock = clockAt()
    store = MemoryStore(reactor=clock)
    signing = serve(
        activate, secret=["keyboard cat", "nyan cat"], store=store, clock=clock
    )
    cookie = f"connect.sid={sent(await signing.browser().get()).value}"

    texts = [
        (await served.browser().get(headers={"Cookie": cookie})).text
        for served in (
            serve(activate, secret=secret, store=store, clock=clock)
            for secret in ("nyan cat", "keyboard cat")
        )
    ]

    assert texts == ["session created", "session read"]


@ensureDeferred
async def test_everySecretVerifies(serve: Serve) -> None:
    """
    All of the secrets verify, and what an older one had signed is signed anew
    (case 91).
    """
    clock = clockAt()
    store = MemoryStore(reactor=clock)
    old = serve(activate, secret="nyan cat", store=store, clock=clock)
    new = serve(activate, secret=["keyboard cat", "nyan cat"], store=store, clock=clock)
    before = sent(await old.browser().get())

    reply = await new.browser().get(headers={"Cookie": f"connect.sid={before.value}"})

    assert reply.text == "session read"
    assert sent(reply).sid == before.sid
    assert sent(reply).value != before.value


# The option unset.


def test_unsetHasTwoValues() -> None:
    """
    What unset does not know, it refuses (case 92).
    """
    with pytest.raises(ConfigurationError, match=r"unset.*must"):
        SessionResource(Page(empty), secret=SECRET, unset="bogus!")  # type: ignore[arg-type]


def unsetAtSecondHit(request: Any) -> None:
    if hits(request) == "hits: 2":
        request.unsetComponent(ISession)


@ensureDeferred
async def test_unsetSessionIsKeptByDefault(serve: Serve) -> None:
    """
    By default, taking the session off a request leaves what is stored as it was
    (case 93).
    """
    served = serve(unsetAtSecondHit)
    browser = served.browser()
    sid = sent(await browser.get()).sid

    reply = await browser.get()

    assert reply.setCookies == []
    assert await served.data(sid) == {"count": 1}


@ensureDeferred
async def test_unsetSessionMayBeDestroyed(serve: Serve) -> None:
    """
    With unset="destroy", it destroys the record, and the cookie expires
    (case 94).
    """
    served = serve(unsetAtSecondHit, unset="destroy")
    browser = served.browser()
    await browser.get()
    before = await served.store.length()

    reply = await browser.get()

    assert (before, await served.store.length()) == (1, 0)
    cookie = reply.cookie()
    assert cookie is not None
    assert cookie.isExpired


@ensureDeferred
async def test_unsetNewSessionSendsNoCookie(serve: Serve) -> None:
    """
    With unset="destroy", a session that the visitor never had leaves no trace
    (case 95).
    """
    served = serve(
        lambda request: request.setComponent(ISession, None),
        unset="destroy",
        saveUninitialized=True,
    )

    reply = await served.browser().get()

    assert reply.status == 200
    assert reply.setCookies == []
    assert await served.store.length() == 0


@ensureDeferred
async def test_failedDestroyOfUnsetSessionIsErrorPage(
    serve: Serve, logged: list[LogEvent]
) -> None:
    """
    With unset="destroy", a store that does not destroy is told to the visitor
    and to the log (case 96).
    """

    def page(request: Any) -> str:
        unsetAtSecondHit(request)
        return "session destroyed"

    served = failing(serve, page, unset="destroy")
    browser = served.browser()
    sid = sent(await browser.get()).sid
    error = served.store.errors["destroy"] = RuntimeError("boom!")

    reply = await browser.get()

    assert reply.status == 500
    assert "session destroyed" not in reply.text
    assert reply.setCookies == []
    assert await served.data(sid) == {"count": 1}
    assert any(
        event["log_failure"].value is error
        for event in logged
        if "log_failure" in event
    )


# Others who replace the response's methods.


def patch(request: Any) -> None:
    """
    Replace a request's methods by ones that pass on what they are given.
    """
    write, finish = request.write, request.finish
    request.write = lambda data: write(data)
    request.finish = lambda: finish()


def helloWorld(request: Any) -> int:
    hit(request)
    request.write(b"hello, ")
    request.write(b"world")
    request.finish()
    return NOT_DONE_YET


@ensureDeferred
async def test_methodsReplacedBeforeAreRespected(serve: Serve) -> None:
    """
    Somebody who had replaced write and finish before does no harm (case 97).
    """
    served = serve(helloWorld, mount=lambda resource: Front(resource, patch))

    reply = await served.browser().get()

    assert (reply.status, reply.text) == (200, "hello, world")
    assert await served.data(sent(reply).sid) == {"hit": True}


@ensureDeferred
async def test_methodsReplacedAfterwardsAreRespected(serve: Serve) -> None:
    """
    Nor does somebody who replaces them later (case 98).
    """

    def page(request: Any) -> int:
        patch(request)
        return helloWorld(request)

    served = serve(page)

    reply = await served.browser().get()

    assert (reply.status, reply.text) == (200, "hello, world")
    assert await served.data(sent(reply).sid) == {"hit": True}


@pytest.mark.parametrize("held", [(), ("create",)], ids=["atOnce", "held"])
@ensureDeferred
async def test_writeAfterEndFailsAsWithoutSessions(
    serve: Serve, held: tuple[str, ...]
) -> None:
    """
    To go on writing after the end is the same mistake with and without sessions
    (case 99).
    """
    errors: list[str] = []

    def page(request: Any) -> int:
        if ISession(request, None) is not None:
            hit(request)
        request.finish()
        try:
            request.setHeader("Content-Length", "3")
            request.write(b"foo")
        except RuntimeError as error:
            errors.append(str(error))
        return NOT_DONE_YET

    served = watched(serve, page, *held)
    replying = start(served.browser().get())
    if held:
        (await served.store.called("create")).release()
    reply = await replying
    bare = serve.site(Page(page))
    bareReply = (
        await Served(served.resource, served.store, served.clock, bare.port, bare)
        .browser()
        .get()
    )

    assert len(errors) == 2
    assert errors[0] == errors[1]
    assert (reply.status, reply.body) == (bareReply.status, bareReply.body)


# The session.


@ensureDeferred
async def test_sessionPersists(serve: Serve) -> None:
    """
    What was put into a session is in the store, and there at the next visit
    (case 100).
    """
    served = serve(hits)
    browser = served.browser()

    first = await browser.get()
    stored = await served.data(sent(first).sid)
    second = await browser.get()

    assert stored == {"count": 1}
    assert [first.text, second.text] == ["hits: 1", "hits: 2"]


@ensureDeferred
async def test_onlyModifiedSessionHasItsCookieRenewed(serve: Serve) -> None:
    """
    A cookie with an expiry is sent again when the session is modified, and only
    then (case 101).
    """

    def page(request: Any) -> str:
        if request.path == b"/hit":
            hits(request)
        return str(getSession(request)["count"])

    browser = serve(page, cookie=MINUTE).browser()

    replies = [await browser.get(path) for path in ("/hit", "/hit", "/look", "/hit")]

    assert [(reply.text, len(reply.setCookies)) for reply in replies] == [
        ("1", 1),
        ("2", 1),
        ("2", 0),
        ("3", 1),
    ]


@ensureDeferred
async def test_iterationYieldsDataAlone(serve: Serve) -> None:
    """
    Going through a session meets its data, and none of its methods (case 102).
    """

    def page(request: Any) -> str:
        session = getSession(request)
        session["foo"] = "foo"
        session["bar"] = "bar"
        return ",".join(sorted(key for key in session))

    reply = await serve(page).browser().get()

    assert reply.text == "bar,foo"


def hasSession(request: Any) -> str:
    return "none" if ISession(request, None) is None else "session"


@ensureDeferred
async def test_requestHasNoSessionWhileStoreIsAway(serve: Serve) -> None:
    """
    While the store says that it is away, requests may be served without a
    session and without a cookie (case 103).
    """
    served = serve(hasSession, storeDown="anonymous", saveUninitialized=True)
    served.store.available = False

    reply = await served.browser().get()

    assert (reply.status, reply.text) == (200, "none")
    assert reply.setCookies == []


@ensureDeferred
async def test_requestHasSessionWhenStoreIsBack(serve: Serve) -> None:
    """
    When the store is back, so are the sessions (case 104).
    """
    served = serve(hasSession, storeDown="anonymous", saveUninitialized=True)
    browser = served.browser()
    served.store.available = False
    first = await browser.get()
    served.store.available = True

    second = await browser.get()

    assert [first.text, second.text] == ["none", "session"]
    assert sent(second)


# destroy().


async def destroyPage(request: Any) -> str:
    await getSession(request).destroy()
    return hasSession(request)


@ensureDeferred
async def test_destroyedNewSessionSendsNoCookie(serve: Serve) -> None:
    """
    A request whose new session is destroyed has none, and no cookie (case 105).
    """
    served = serve(destroyPage, saveUninitialized=True)

    reply = await served.browser().get()

    assert (reply.status, reply.text) == (200, "none")
    assert reply.setCookies == []


@ensureDeferred
async def test_destroyForgetsRecordAndCookie(serve: Serve) -> None:
    """
    When the visitor's session is destroyed, its record is gone and the cookie
    expires (case 105).
    """
    served = serve(
        lambda request: (
            destroyPage(request) if request.path == b"/logout" else hit(request)
        )
    )
    browser = served.browser()
    await browser.get()
    before = await served.store.length()

    reply = await browser.get("/logout")

    assert reply.text == "none"
    assert (before, await served.store.length()) == (1, 0)
    cookie = reply.cookie()
    assert cookie is not None
    assert cookie.isExpired


# regenerate().


@ensureDeferred
async def test_regenerateReplacesSession(serve: Serve) -> None:
    """
    A regenerated session has another ID and another cookie, and the old record
    is gone (case 106).
    """

    async def page(request: Any) -> str:
        session = getSession(request)
        before = session.id
        await session.regenerate()
        return str(session.id == before)

    served = serve(page, cookie=MINUTE, **EXPRESS)
    browser = served.browser()

    first = await browser.get()
    second = await browser.get()

    assert [first.text, second.text] == ["False", "False"]
    assert sent(second).sid != sent(first).sid
    assert set(await served.store.all()) == {sent(second).sid}


# reload().


@ensureDeferred
async def test_reloadShowsWhatAnotherRequestWrote(serve: Serve) -> None:
    """
    A session that is reloaded has what another request has saved meanwhile
    (case 107).
    """

    async def page(request: Any) -> str:
        session = getSession(request)
        if request.path == b"/":
            session["active"] = True
            return "session created"
        session["url"] = request.path.decode()
        if request.path == b"/foo":
            between = await browser.get("/bar")
            assert between.text == "saw /bar"
            await session.reload()
        return f"saw {session['url']}"

    served = serve(page)
    browser = served.browser()
    sid = sent(await browser.get()).sid

    reply = await browser.get("/foo")

    assert (reply.status, reply.text) == (200, "saw /bar")
    assert await served.data(sid) == {"active": True, "url": "/bar"}


@ensureDeferred
async def test_reloadOfLostSessionFails(serve: Serve) -> None:
    """
    A session that is no longer stored cannot be reloaded, and stays what it was
    (case 108).
    """

    async def page(request: Any) -> str:
        session = getSession(request)
        if request.path == b"/":
            session["active"] = True
            return "session created"
        await served.store.clear()
        with pytest.raises(SessionGone):
            await session.reload()
        request.setResponseCode(410)
        return f"active: {session['active']}"

    served = serve(page)
    browser = served.browser()
    await browser.get()

    reply = await browser.get("/foo")

    assert (reply.status, reply.text) == (410, "active: True")


@ensureDeferred
async def test_reloadsThatFailDoNotPileUp(serve: Serve) -> None:
    """
    Any number of reloads upon each other may fail, and the session and its
    methods are still good (case 109).
    """

    async def page(request: Any) -> str:
        session = getSession(request)
        if request.path == b"/":
            session["active"] = True
            return "session created"
        await served.store.clear()
        failed = 0
        for reloading in [session.reload() for _ in range(20)]:
            try:
                await reloading
            except SessionGone:
                failed += 1
        return f"{failed} failed, active: {session['active']}"

    served = serve(page, resave=False)
    browser = served.browser()
    await browser.get()

    reply = await browser.get("/foo")

    assert (reply.status, reply.text) == (200, "20 failed, active: True")


# save().


@ensureDeferred
async def test_saveWritesAtOnce(serve: Serve) -> None:
    """
    What was saved explicitly is in the store before the response begins
    (case 110).
    """

    async def page(request: Any) -> str:
        session = getSession(request)
        session["hit"] = True
        await session.save()
        return str(await served.data(session.id))

    served = serve(page)

    reply = await served.browser().get()

    assert reply.text == "{'hit': True}"
    assert sent(reply)


async def saveExplicitly(request: Any) -> str:
    session = getSession(request)
    session["hit"] = True
    await session.save()
    return "saved"


@ensureDeferred
async def test_explicitSaveIsNotRepeated(serve: Serve) -> None:
    """
    What was saved explicitly is not saved once more at the end (case 111).
    """
    served = watched(serve, saveExplicitly, cookie=MINUTE, **EXPRESS)
    browser = served.browser()

    first = await browser.get()
    before = writes(served.store)
    second = await browser.get()

    assert [first.text, second.text] == ["saved", "saved"]
    assert (before, writes(served.store)) == (1, 2)


@ensureDeferred
async def test_explicitSaveIsNotRepeatedAfterReload(serve: Serve) -> None:
    """
    Nor if the session was reloaded before (case 112).
    """

    async def page(request: Any) -> str:
        session = getSession(request)
        session["hit"] = True
        try:
            await session.reload()
        except SessionGone:
            gone.append(request.path)
        await session.save()
        return "saved"

    gone: list[bytes] = []
    served = watched(serve, page, cookie=MINUTE, **EXPRESS)
    browser = served.browser()

    first = await browser.get("/first")
    before = writes(served.store)
    second = await browser.get("/second")

    assert gone == [b"/first"]
    assert [first.text, second.text] == ["saved", "saved"]
    assert (before, writes(served.store)) == (1, 2)


@ensureDeferred
async def test_explicitSaveIsNotRepeatedWithoutSaveUninitialized(
    serve: Serve,
) -> None:
    """
    Nor if saveUninitialized is off (case 113).
    """
    served = watched(
        serve, saveExplicitly, cookie=MINUTE, resave=True, saveUninitialized=False
    )
    browser = served.browser()

    first = await browser.get()
    before = writes(served.store)
    second = await browser.get()

    assert [first.text, second.text] == ["saved", "saved"]
    assert (before, writes(served.store)) == (1, 2)


# touch().


@ensureDeferred
async def test_touchRenewsExpiry(serve: Serve) -> None:
    """
    A touched session expires later, even where touchInterval would not have it
    renewed yet (case 114).
    """

    def page(request: Any) -> None:
        session = getSession(request)
        session["hit"] = True
        if request.path == b"/touch":
            session.touch()

    async def stored() -> float:
        record = await served.record(sid)
        assert record is not None
        return record.expires

    served = serve(page, resave=False, cookie=MINUTE, touchInterval=3600)
    browser = served.browser()
    sid = sent(await browser.get()).sid
    served.clock.advance(0.5)
    await browser.get("/look")
    before = await stored()

    await browser.get("/touch")

    assert (before, await stored()) == (START + 60, START + 60.5)


# The cookie.


@ensureDeferred
async def test_attributesOfCookieCanBeChanged(serve: Serve) -> None:
    """
    What is set on a session's cookie is what the response sends (case 115).
    """

    def page(request: Any) -> None:
        cookie = getSession(request).cookie
        cookie.httpOnly = False
        cookie.secure = True

    served = serve(page, proxy=True, cookie=MINUTE, saveUninitialized=True)

    reply = await served.browser().get(headers={"X-Forwarded-Proto": "https"})

    attributes = sent(reply).attributes
    assert "httponly" not in attributes
    assert "secure" in attributes


@ensureDeferred
async def test_cookieEndsWithBrowserByDefault(serve: Serve) -> None:
    """
    Without a maxAge, a cookie lives as long as the browser (case 116).
    """
    served = serve(hit, cookie=CookieOptions(path="/admin"))

    reply = await served.browser().get("/admin")

    assert {"expires", "max-age"}.isdisjoint(sent(reply).attributes)


@ensureDeferred
async def test_cookieThatEndsWithBrowserIsSentOnce(serve: Serve) -> None:
    """
    A cookie that lives as long as the browser is sent but once, however often
    the session is modified (case 117).
    """
    browser = serve(hits, cookie=CookieOptions(path="/admin")).browser()

    first = await browser.get("/admin/foo")
    second = await browser.get("/admin")

    assert sent(first)
    assert second.text == "hits: 2"
    assert second.setCookies == []


@ensureDeferred
async def test_optionsOfCookieOverrideDefaults(serve: Serve) -> None:
    """
    The options of the cookie take the place of the defaults, and what the
    request sets takes theirs (case 118).
    """

    def page(request: Any) -> None:
        getSession(request).cookie.secure = False

    cookie = CookieOptions(
        httpOnly=False, maxAge=5000, path="/admin", priority="high", secure=True
    )
    served = serve(page, cookie=cookie, saveUninitialized=True)

    reply = await served.browser().get("/admin")

    attributes = sent(reply).attributes
    assert expires(reply) == START + 5000
    assert attributes["path"] == "/admin"
    assert attributes["priority"] == "High"
    assert {"httponly", "secure"}.isdisjoint(attributes)


@pytest.mark.parametrize(
    "date",
    [
        pytest.param(datetime(2038, 1, 1), id="naive"),
        pytest.param("tomorrow", id="text"),
        pytest.param(float("nan"), id="notANumber"),
    ],
)
def test_cookieThatCannotBeSentIsRefused(date: Any) -> None:
    """
    An expiry that no cookie can have is found out before there is a request
    (case 119).
    """
    with pytest.raises(ConfigurationError, match=r"cookie\.expires"):
        CookieOptions(expires=date)


@ensureDeferred
async def test_cookieInHeadersSurvives(serve: Serve) -> None:
    """
    A cookie that the application puts into the headers is sent beside that of
    the session (case 120).
    """

    def page(request: Any) -> None:
        hit(request)
        request.responseHeaders.addRawHeader("Set-Cookie", "previous=cookieValue")

    reply = await serve(page).browser().get()

    assert sent(reply, "previous").value == "cookieValue"
    assert sent(reply)


@ensureDeferred
async def test_cookieOfRequestSurvives(serve: Serve) -> None:
    """
    So is one that it adds in Twisted's own way (case 121).
    """

    def page(request: Any) -> None:
        hit(request)
        request.addCookie("previous", "cookieValue")

    reply = await serve(page).browser().get()

    assert sent(reply, "previous").value == "cookieValue"
    assert sent(reply)


# The cookie's originalMaxAge.


def original(request: Any) -> str:
    return str(getSession(request).cookie.originalMaxAge)


@ensureDeferred
async def test_originalMaxAgeIsThatOfOptions(serve: Serve) -> None:
    """
    A new session's originalMaxAge is the maxAge of the options (case 122).
    """
    reply = await serve(original, cookie=CookieOptions(maxAge=2000)).browser().get()

    assert float(reply.text) == 2000


@ensureDeferred
async def test_originalMaxAgeStaysAsTimeGoesBy(serve: Serve) -> None:
    """
    It is the same at a later visit (case 123).
    """
    served = serve(original, cookie=CookieOptions(maxAge=2000), **EXPRESS)
    browser = served.browser()
    first = await browser.get()
    served.clock.advance(100)

    second = await browser.get()

    assert sent(first)
    assert [float(first.text), float(second.text)] == [2000, 2000]


@ensureDeferred
async def test_originalMaxAgeDoesNotDependOnStore(serve: Serve) -> None:
    """
    It is with another kind of store, too (case 124).
    """
    clock = clockAt()
    store = only(MemoryStore(reactor=clock), "get", "set", "destroy")
    served = serve(
        original,
        cookie=CookieOptions(maxAge=2000),
        store=store,
        clock=clock,
        **EXPRESS,
    )
    browser = served.browser()
    first = await browser.get()
    clock.advance(100)

    second = await browser.get()

    assert sent(first)
    assert [float(first.text), float(second.text)] == [2000, 2000]


# The cookie's secure.


def keyAndCertificate() -> tuple[bytes, bytes]:
    """
    A key, and a certificate of the server at 127.0.0.1 that it signed itself.
    """
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "txsession")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    now = datetime.now(timezone.utc)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(address, critical=False)
        .sign(key, SHA256())
    )
    secret = key.private_bytes(
        Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
    )
    return secret, signed.public_bytes(Encoding.PEM)


# Twisted hands certificates to OpenSSL in ways that these deprecate.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@ensureDeferred
async def test_secureCookieIsSentOverTLS(serve: Serve) -> None:
    """
    Over TLS, a cookie that must be Secure is sent (case 125).
    """
    served = serve(hit, cookie=CookieOptions(secure=True))
    key, certificate = keyAndCertificate()
    own = ssl.PrivateCertificate.loadPEM(key + certificate).options()
    port: Any = reactor.listenSSL(0, served.site, own, interface="127.0.0.1")  # type: ignore[attr-defined]
    serve.ports.append(port)
    trusting = BrowserLikePolicyForHTTPS(ssl.Certificate.loadPEM(certificate))
    client = HTTPClient(Agent(reactor, trusting))

    response = await client.get(f"https://127.0.0.1:{port.getHost().port}/")
    body = await response.content()

    reply = Reply(response.code, response.phrase, response.headers, body)
    assert reply.text == "session saved"
    assert "secure" in sent(reply).attributes


@ensureDeferred
async def test_secureCookieIsNotSentInTheOpen(serve: Serve) -> None:
    """
    Without TLS it is not, nor is there a record that nobody could come back to
    (case 126).
    """
    served = serve(hit, cookie=CookieOptions(secure=True))

    reply = await served.browser().get()

    assert (reply.status, reply.text) == (200, "session saved")
    assert reply.setCookies == []
    assert await served.store.length() == 0


# The cookie's maxAge.


def setMaxAge(request: Any) -> str:
    """
    A page that modifies the session, and gives its cookie the maxAge of the
    query.
    """
    if b"maxAge" in request.args:
        getSession(request).cookie.maxAge = int(request.args[b"maxAge"][0])
    return hits(request)


@ensureDeferred
async def test_cookieExpiresAfterMaxAge(serve: Serve) -> None:
    """
    A session that is modified has the maxAge begin anew (case 127).
    """
    served = serve(setMaxAge, cookie=CookieOptions(maxAge=2000))
    browser = served.browser()
    await browser.get()
    served.clock.advance(10)

    reply = await browser.get()

    assert expires(reply) == START + 10 + 2000
    assert sent(reply).attributes["max-age"] == "2000"


@ensureDeferred
async def test_changedMaxAgeChangesExpiry(serve: Serve) -> None:
    """
    A maxAge that is set moves the expiry, and stays with the session (case 128).
    """
    served = serve(setMaxAge, cookie=CookieOptions(maxAge=2000))
    browser = served.browser()
    await browser.get()
    served.clock.advance(10)

    reply = await browser.get("/?maxAge=5000")
    served.clock.advance(10)
    later = await browser.get()

    assert expires(reply) == START + 10 + 5000
    assert expires(later) == START + 20 + 5000


@ensureDeferred
async def test_changedMaxAgeMayBeLarge(serve: Serve) -> None:
    """
    It may be more than 32 bits can count (case 129).
    """
    served = serve(setMaxAge, cookie=CookieOptions(maxAge=2000))
    browser = served.browser()
    await browser.get()

    reply = await browser.get("/?maxAge=5000000000")

    assert expires(reply) == START + 5_000_000_000
    assert sent(reply).attributes["max-age"] == "5000000000"


# The cookie's expires.


@ensureDeferred
async def test_expiresIsSentAsItIsSet(serve: Serve) -> None:
    """
    A date that is set is the date that is sent, be it long past (case 130).
    """

    def page(request: Any) -> None:
        getSession(request).cookie.expires = datetime.fromtimestamp(0, timezone.utc)

    reply = await serve(page, cookie=MINUTE, saveUninitialized=True).browser().get()

    cookie = reply.cookie()
    assert cookie is not None
    assert cookie.attributes["expires"] == "Thu, 01 Jan 1970 00:00:00 GMT"


def setNoExpiry(request: Any) -> None:
    getSession(request).cookie.expires = None


@ensureDeferred
async def test_noExpiryMakesCookieEndWithBrowser(serve: Serve) -> None:
    """
    A cookie whose expiry is taken away lives as long as the browser (case 131).
    """
    served = serve(setNoExpiry, cookie=MINUTE, saveUninitialized=True)

    reply = await served.browser().get()

    assert {"expires", "max-age"}.isdisjoint(sent(reply).attributes)


@ensureDeferred
async def test_noExpiryOnceMoreSendsNoCookie(serve: Serve) -> None:
    """
    To take away what is not there sends no cookie again (case 132).
    """
    served = serve(setNoExpiry, cookie=MINUTE, **EXPRESS)
    browser = served.browser()

    first = await browser.get()
    second = await browser.get()

    assert sent(first)
    assert second.status == 200
    assert second.setCookies == []


@ensureDeferred
async def test_modifiedSessionWithoutExpirySendsNoCookie(serve: Serve) -> None:
    """
    Nor does it if the session is modified (case 133).
    """

    def page(request: Any) -> str:
        setNoExpiry(request)
        return hits(request)

    browser = serve(page, cookie=MINUTE).browser()

    first = await browser.get()
    second = await browser.get()

    assert "expires" not in sent(first).attributes
    assert second.text == "hits: 2"
    assert second.setCookies == []


# The cookie's partitioned.


@pytest.mark.parametrize(
    ("options", "isPartitioned"),
    [
        pytest.param({}, False, id="default"),
        pytest.param({"partitioned": False}, False, id="false"),
        pytest.param({"partitioned": True}, True, id="true"),
    ],
)
@ensureDeferred
async def test_partitionedIsSentWhereAskedFor(
    serve: Serve, options: dict[str, bool], isPartitioned: bool
) -> None:
    """
    A cookie is Partitioned if the options say so, and only then; on a secure
    request, since it needs Secure (cases 134, 135, 136).
    """
    served = serve(hit, cookie=CookieOptions(**options), mount=secureIfMarked)

    reply = await served.browser().get(headers={"X-Secure": "true"})

    assert ("partitioned" in sent(reply).attributes) is isPartitioned


# A store that answers at once.


@ensureDeferred
async def test_storeMayAnswerSaveWithPlainValue(serve: Serve) -> None:
    """
    A store without Deferreds can save (case 137).
    """
    store = PlainStore()
    served = serve(hits, store=store)

    reply = await served.browser().get()

    assert reply.text == "hits: 1"
    assert set(store.records) == {sent(reply).sid}


@ensureDeferred
async def test_storeMayAnswerDestroyWithPlainValue(serve: Serve) -> None:
    """
    And it can destroy (case 138).
    """

    def page(request: Any) -> int:
        text = hits(request)
        if text == "hits: 2":
            request.unsetComponent(ISession)
            request.write(b"destroyed\n")
        request.write(text.encode())
        request.finish()
        return NOT_DONE_YET

    store = PlainStore()
    browser = serve(page, store=store, unset="destroy").browser()

    first = await browser.get()
    second = await browser.get()

    assert [first.text, second.text] == ["hits: 1", "destroyed\nhits: 2"]
    assert store.records == {}


# The other file of the suite: the cookie's options by themselves.


@pytest.mark.parametrize(
    ("option", "default"),
    [("expires", None), ("httpOnly", True), ("path", "/"), ("maxAge", None)],
)
def test_cookieOptionsHaveDefaultsOfExpress(option: str, default: object) -> None:
    """
    Without any option, a cookie ends with the browser, is for the whole site,
    and out of reach of scripts (cases C1, C2, C3, C4, C5, C6).
    """
    assert getattr(CookieOptions(), option) == default


@pytest.mark.parametrize("cookie", [42, "foo", True, {"path": "/foo"}])
def test_cookieMustBeOptions(cookie: Any) -> None:
    """
    What is neither CookieOptions nor a callable is no cookie (case C7).
    """
    with pytest.raises(ConfigurationError, match="cookie: must be CookieOptions"):
        SessionResource(Page(empty), secret=SECRET, cookie=cookie)


def test_unknownCookieOptionIsRefused() -> None:
    """
    An option that cookies do not have is refused (case C8).
    """
    with pytest.raises(TypeError, match="data"):
        CookieOptions(data={"foo": "bar"})  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(
            {"expires": datetime.fromtimestamp(START + 60, timezone.utc)}, id="expires"
        ),
        pytest.param({"maxAge": 60}, id="maxAge"),
        pytest.param({"maxAge": timedelta(minutes=1)}, id="timedelta"),
    ],
)
@ensureDeferred
async def test_maxAgeAndExpiresAreTwoWaysToSayIt(
    serve: Serve, options: dict[str, Any]
) -> None:
    """
    Whether the options have a date or a duration, the cookie has both
    (cases C9, C10, C12, C13, C14).
    """

    def page(request: Any) -> str:
        cookie = getSession(request).cookie
        assert cookie.expires is not None
        return f"{cookie.expires.timestamp()} {cookie.maxAge}"

    served = serve(page, cookie=CookieOptions(**options), saveUninitialized=True)

    reply = await served.browser().get()

    assert reply.text == f"{START + 60} 60.0"
    assert expires(reply) == START + 60
    assert sent(reply).attributes["max-age"] == "60"


@pytest.mark.parametrize(
    "maxAge",
    ["42", True, lambda: 42, datetime.fromtimestamp(START + 60, timezone.utc)],
    ids=["text", "bool", "callable", "date"],
)
def test_maxAgeMustBeDuration(maxAge: Any) -> None:
    """
    A maxAge is a number of seconds or a timedelta; a date belongs to expires
    (cases C14, C15).
    """
    with pytest.raises(ConfigurationError, match=r"cookie\.maxAge"):
        CookieOptions(maxAge=maxAge)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("httpOnly", False),
        ("partitioned", True),
        ("path", "/foo"),
        ("priority", "high"),
    ],
)
def test_cookieOptionsAreWhatTheyAreSetTo(option: str, value: object) -> None:
    """
    What an option is set to, it is (cases C11, C16, C17, C18).
    """
    assert getattr(CookieOptions(**{option: value}), option) == value


# The page that lists all this.


def test_referencePageIsComplete() -> None:
    """
    The reference page has every case once, and each test beside the cases that
    the test itself names.
    """
    page = REFERENCE.read_text("utf-8")
    described: dict[str, set[str]] = {}
    for number, cell in re.findall(r"^\| (C?\d+) \|[^|]*\|([^|]*)\|", page, re.M):
        assert number not in described
        described[number] = set(re.findall(r"`(test_\w+)`", cell))
        assert described[number]
    meaningless = re.findall(r"^- (C?\d+)[,:]", page, re.M)

    claimed: dict[str, set[str]] = {}
    for name, function in list(globals().items()):
        if name.startswith("test_") and name != "test_referencePageIsComplete":
            cases = re.search(r"\(cases? ([^)]*)\)\.$", function.__doc__.strip())
            assert cases is not None, name
            for number in cases[1].replace("\n", " ").split(","):
                claimed.setdefault(number.strip(), set()).add(name)

    everything = [str(n) for n in range(1, 143)] + [f"C{n}" for n in range(1, 19)]
    assert claimed == described
    assert sorted([*described, *meaningless]) == sorted(everything)
    assert f"**{len(described)}** are covered" in page
    assert f"**{len(meaningless)}** have no meaning here" in page
