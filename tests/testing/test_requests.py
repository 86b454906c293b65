"""
`txsession.testing.requestWith` makes requests that handlers take for real ones,
with sessions that are.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from klein import Klein, Requirer
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.web.resource import Resource, getChildForRequest
from twisted.web.server import NOT_DONE_YET
from twisted.web.static import File
from twisted.web.template import Element, Tag, TagLoader, renderElement, renderer, tags
from twisted.web.util import redirectTo

from tests.support import Page
from txsession import (
    ISession,
    NoSession,
    Session,
    SessionDataError,
    SessionDestroyed,
    SessionGone,
    getSession,
)
from txsession.klein import SessionParameter
from txsession.testing import requestWith
from txsession.testing.requests import HandlerRequest


def only(request: HandlerRequest) -> HandlerRequest:
    """
    The request, which is finished now.
    """
    finished: list[HandlerRequest] = []
    request.whenFinished().addCallback(finished.append)
    assert finished == [request]
    return request


class Leaf(Resource):
    """
    Answers with what it was asked.
    """

    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        views = getSession(request).setdefault("views", 0) + 1
        getSession(request)["views"] = views
        return b"%d" % views

    def render_POST(self, request: Any) -> bytes:
        return repr(sorted(request.args.items())).encode()


# The request.


def test_aRequest() -> None:
    """
    By default it is a GET of the root of localhost, over HTTP, from this machine.
    """
    request = requestWith()
    assert (request.method, request.uri, request.path) == (b"GET", b"/", b"/")
    assert request.getRequestHostname() == b"localhost"
    assert request.prePathURL() == b"http://localhost/"
    assert request.getClientAddress().host == "127.0.0.1"
    assert not request.isSecure()
    assert (request.args, request.content.read()) == ({}, b"")
    assert (request.code, request.written) == (200, b"")


def test_aPath() -> None:
    """
    The path may have a query, and is taken apart as Twisted does.
    """
    request = requestWith("/a%20b/c/?x=1&x=2&y=")
    assert request.uri == b"/a%20b/c/?x=1&x=2&y="
    assert request.path == b"/a%20b/c/"
    assert (request.prepath, request.postpath) == ([], [b"a b", b"c", b""])
    assert request.args == {b"x": [b"1", b"2"], b"y": [b""]}


def test_aForm() -> None:
    """
    The fields of a form are sent by POST, and are what C{request.args} holds.
    """
    request = requestWith("/?q=1", args={"name": "Ada ü", "tag": ["a&b", "c"]})
    assert request.method == b"POST"
    assert request.args == {
        b"q": [b"1"],
        b"name": ["Ada ü".encode()],
        b"tag": [b"a&b", b"c"],
    }
    assert request.content.read() == b"name=Ada+%C3%BC&tag=a%26b&tag=c"
    assert requestWith(method="PUT", args={"a": "1"}).method == b"PUT"


def test_aBody() -> None:
    """
    Another body is there to be read, under the method that was given.
    """
    request = requestWith(
        method="PUT", body=b'{"n":1}', headers={"Content-Type": "application/json"}
    )
    assert (request.method, request.content.read()) == (b"PUT", b'{"n":1}')
    assert request.getHeader("Content-Length") == "7"
    assert request.getHeader("content-type") == "application/json"


def test_headers() -> None:
    """
    Headers are those that were given, which may name another host, and cookies.
    """
    request = requestWith(
        headers={"host": "example.com:8080", "Cookie": "a=1; b=2", "X-Y": "z"}
    )
    assert request.getRequestHostname() == b"example.com"
    assert (request.getCookie(b"b"), request.getHeader("X-Y")) == (b"2", "z")


def test_overHTTPS() -> None:
    """
    A request may come over HTTPS.
    """
    request = requestWith("/", secure=True)
    assert request.isSecure()
    assert str(request.URLPath().click(b"/login")) == "https://localhost/login"


# The session.


def test_aNewSession() -> None:
    """
    Without data the session is new.
    """
    session = getSession(requestWith())
    assert (session.isNew, dict(session), session.isModified) == (True, {}, False)


def test_aSessionWithData() -> None:
    """
    With data it is a stored one, and not modified.
    """
    request = requestWith(session={"user": "ada", "cart": [1, {"n": 2}]})
    session = ISession(request)
    assert isinstance(session, Session)
    assert dict(session) == {"user": "ada", "cart": [1, {"n": 2}]}
    assert (session.isNew, session.isModified) == (False, False)
    session["cart"][1]["n"] = 3
    assert session.isModified


def test_noSession() -> None:
    """
    A request may have no session.
    """
    request = requestWith(session=None)
    assert ISession(request, None) is None
    with pytest.raises(NoSession):
        getSession(request)


@pytest.mark.parametrize("value", [{1, 2}, math.nan, [b"x"], {1: 2}])
def test_whatJSONCannotHold(value: Any) -> None:
    """
    What JSON cannot hold is refused as it is in an application.
    """
    with pytest.raises(SessionDataError, match=r"session\['x'\]"):
        requestWith(session={"x": value})


def test_sessionsAreApart() -> None:
    """
    The sessions of two requests have nothing in common.
    """
    data: dict[str, Any] = {"cart": []}
    first = getSession(requestWith(session=data))
    second = getSession(requestWith(session=data))
    first["cart"].append(1)
    assert (data, second["cart"]) == ({"cart": []}, [])
    assert first.id != second.id


def test_timeIsNow() -> None:
    """
    A session's lifetime begins now, by the clock on the wall.
    """
    session = getSession(requestWith(session={"x": 1}))
    session.cookie.expires = datetime.now(timezone.utc) + timedelta(hours=1)
    assert 3000 < session.cookie.maxAge < 3700


@pytest_twisted.ensureDeferred
async def test_itsMethodsWork() -> None:
    """
    What the methods of a session do is done at once, and seen.
    """
    request = requestWith(session={"user": "ada"})
    session = getSession(request)
    old = session.id
    session["n"] = 1
    await session.save()
    assert not session.isModified
    session["n"] = 2
    await session.reload()
    assert session["n"] == 1
    await session.regenerate(keepData=True)
    assert session.id != old
    assert dict(session) == {"user": "ada", "n": 1}
    await session.regenerate()
    assert dict(session) == {}
    session.touch()
    assert await session.load() is session
    await session.destroy()
    assert ISession(request, None) is None
    with pytest.raises(SessionDestroyed):
        session["n"]


@pytest_twisted.ensureDeferred
async def test_aNewSessionIsNotInTheStore() -> None:
    """
    A new session is not in the store before it is saved.
    """
    session = getSession(requestWith())
    with pytest.raises(SessionGone):
        await session.reload()
    await session.save()
    await session.reload()


# One request after the other.


def goOn(session: Session) -> Session:
    return getSession(requestWith(session=session))


def test_theSessionGoesOn() -> None:
    """
    A session goes on in another request, with what was changed in it.
    """
    first = getSession(requestWith(session={"n": 1}))
    first["n"] = 2
    second = goOn(first)
    assert second is not first
    assert (second.id, second["n"], second.isNew) == (first.id, 2, False)
    second["n"] = 3
    assert goOn(second)["n"] == 3


def test_aNewSessionGoesOnOnceItWasWrittenTo() -> None:
    """
    A new session to which nothing was written does not go on; one to which
    something was does.
    """
    first = getSession(requestWith())
    second = goOn(first)
    assert second.isNew
    second["n"] = 1
    third = goOn(second)
    assert (third.isNew, third.id, third["n"]) == (False, second.id, 1)


@pytest_twisted.ensureDeferred
async def test_aSessionThatWasRegeneratedGoesOn() -> None:
    """
    After C{regenerate} it is the new session that goes on.
    """
    first = getSession(requestWith(session={"n": 1}))
    old = first.id
    await first.regenerate()
    first["user"] = "ada"
    second = goOn(first)
    assert (second.id, dict(second)) == (first.id, {"user": "ada"})
    assert second.id != old


@pytest_twisted.ensureDeferred
async def test_aSessionThatWasDestroyedDoesNotGoOn() -> None:
    """
    After C{destroy} the next request's session is new.
    """
    first = getSession(requestWith(session={"n": 1}))
    old = first.id
    first["n"] = 2
    await first.destroy()
    second = goOn(first)
    assert (second.isNew, dict(second)) == (True, {})
    assert second.id != old


@pytest_twisted.ensureDeferred
async def test_whatCannotBeSavedDoesNotGoOn() -> None:
    """
    If what an earlier request has changed cannot be saved, that is seen.
    """
    first = getSession(requestWith(session={"n": 1}))
    await goOn(first).destroy()
    first["n"] = 2
    with pytest.raises(SessionGone):
        requestWith(session=first)
    second = getSession(requestWith(session={"cart": []}))
    second["cart"].append({1, 2})
    with pytest.raises(SessionDataError):
        requestWith(session=second)


@pytest_twisted.ensureDeferred
async def test_requestsAtTheSameTime() -> None:
    """
    Two requests of one session merge their changes, as real ones do.
    """
    first = getSession(requestWith(session={"a": 1}))
    second = goOn(first)
    first["b"], second["c"] = 2, 3
    await second.save()
    await first.save()
    assert dict(first) == {"a": 1, "b": 2, "c": 3}


# Handlers of Klein.

app = Klein()
requirer = Requirer()


@app.route("/greet/<name>")
def greet(request: Any, name: str) -> str:
    getSession(request)["name"] = name
    return f"Hello, {name}."


@app.route("/login", methods=["POST"])
async def logIn(request: Any) -> Any:
    session = getSession(request)
    await session.regenerate()
    session["user"] = request.args[b"user"][0].decode()
    return redirectTo(b"/", request)


@app.route("/broken")
def broken(request: Any) -> None:
    raise ZeroDivisionError("one by nothing")


@app.route("/files/", branch=True)
def files(request: Any) -> Any:
    return File(str(Path(__file__).parent))


@app.route("/page")
def page(request: Any) -> Any:
    return Greeting()


@requirer.require(app.route("/count"), session=SessionParameter())
def count(session: Any) -> str:
    session["n"] = session.get("n", 0) + 1
    return str(session["n"])


@app.handle_errors(NoSession)
def withoutSession(request: Any, failure: Failure) -> bytes:
    request.setResponseCode(403)
    return b"no session"


class Greeting(Element):
    loader = TagLoader(tags.p(tags.transparent(render="name")))

    @renderer
    def name(self, request: Any, tag: Tag) -> Any:
        later: Deferred[Any] = Deferred()
        later.callback(tag(getSession(request).get("name", "nobody")))
        return later


def routed(request: HandlerRequest) -> HandlerRequest:
    """
    Have the app of these tests answer.
    """
    request.render(app.resource())
    return only(request)


def test_aHandlerIsCalled() -> None:
    """
    A handler is a function, and so is its test.
    """
    request = requestWith()
    assert greet(request, "Ada") == "Hello, Ada."
    assert dict(getSession(request)) == {"name": "Ada"}


@pytest_twisted.ensureDeferred
async def test_aHandlerIsAwaited() -> None:
    """
    A handler may be a coroutine that uses the methods of its session.
    """
    request = requestWith("/login", args={"user": "ada"}, session={"cart": [1]})
    old = getSession(request).id
    await logIn(request)
    assert dict(getSession(request)) == {"user": "ada"}
    assert getSession(request).id != old
    assert (request.code, request.responseHeaders.getRawHeaders("Location")) == (
        302,
        ["/"],
    )


def test_anExceptionOfAHandler() -> None:
    """
    What a handler raises is raised.
    """
    with pytest.raises(ZeroDivisionError, match="one by nothing"):
        broken(requestWith())


def test_aRoute() -> None:
    """
    A request may be routed through the whole app, with all that Klein does.
    """
    request = routed(requestWith("/greet/Ada%20L", session={"x": 1}))
    assert (request.code, request.written) == (200, b"Hello, Ada L.")
    assert getSession(request)["name"] == "Ada L"
    assert routed(requestWith("/nowhere")).code == 404
    assert routed(requestWith("/login")).code == 405
    assert routed(requestWith("/login", args={"user": "a"})).code == 302


def test_whatIsNoPathIsRefused() -> None:
    """
    A path without its slash, which no route would match, is refused.
    """
    with pytest.raises(ValueError, match="begins with a slash, as in '/login'"):
        requestWith("login")


def test_anExceptionBehindARoute(logged: list[Any]) -> None:
    """
    What a handler raises behind Klein's routing is logged, and is a 500.
    """
    assert routed(requestWith("/broken")).code == 500
    failures = [each["log_failure"] for each in logged if "log_failure" in each]
    assert [type(each.value) for each in failures] == [ZeroDivisionError]


def test_aHandlerThatRequiresASession() -> None:
    """
    A session that Klein injects is the request's.
    """
    request = routed(requestWith("/count", session={"n": 41}))
    assert (request.written, getSession(request)["n"]) == (b"42", 42)
    request = routed(requestWith("/count", session=None))
    assert (request.code, request.written) == (403, b"no session")


def test_aTemplateOfKlein() -> None:
    """
    Klein renders templates to it.
    """
    request = routed(requestWith("/page", session={"name": "<Ada>"}))
    assert b"<p>&lt;Ada&gt;</p>" in request.written


def test_filesOfKlein() -> None:
    """
    A branch of Klein's may be a resource.
    """
    request = routed(requestWith(f"/files/{Path(__file__).name}"))
    assert request.written == Path(__file__).read_bytes()


# Resources.


def rendered(resource: Resource, request: HandlerRequest) -> HandlerRequest:
    request.render(getChildForRequest(resource, request))
    return only(request)


def test_aResource() -> None:
    """
    A resource renders it, according to its method.
    """
    first = rendered(Leaf(), requestWith())
    second = rendered(Leaf(), requestWith(session=getSession(first)))
    assert (first.written, second.written) == (b"1", b"2")
    posted = rendered(Leaf(), requestWith("/?a=1", args={"b": "2"}))
    assert posted.written == b"[(b'a', [b'1']), (b'b', [b'2'])]"
    assert rendered(Leaf(), requestWith(method="DELETE")).code == 501


def test_HEADOfAResource() -> None:
    """
    HEAD has no body, as with a real request.
    """
    request = rendered(Leaf(), requestWith(method="HEAD"))
    assert request.written == b""
    assert request.responseHeaders.getRawHeaders("Content-Length") == ["1"]


def test_aResourceInATree() -> None:
    """
    A request finds its way through a tree of resources.
    """
    root = Resource()
    root.putChild(b"leaf", Leaf())
    assert rendered(root, requestWith("/leaf")).written == b"1"
    assert rendered(root, requestWith("/other")).code == 404


def test_whatAResourceRaises() -> None:
    """
    What a resource raises is raised.
    """

    def fail(request: Any) -> bytes:
        raise ZeroDivisionError("one by nothing")

    with pytest.raises(ZeroDivisionError):
        requestWith().render(Page(fail))


def test_renderElement() -> None:
    """
    C{renderElement} writes to it and finishes it.
    """

    def render(request: Any) -> Any:
        return renderElement(request, Greeting())

    request = rendered(Page(render), requestWith(session={"name": "Ada"}))
    assert request.written == b"<!DOCTYPE html>\n<p>Ada</p>"


def test_aTemplateThatFails(logged: list[Any]) -> None:
    """
    What a template raises is logged and shown as by a real server.
    """
    request = requestWith(session=None)
    renderElement(request, Greeting())
    assert b"An error occurred" in only(request).written
    assert any("log_failure" in each for each in logged)


@pytest.mark.parametrize("size", [0, 1, 65536, 300_000])
def test_aFile(tmp_path: Path, size: int) -> None:
    """
    A file is sent whole, of whatever size; a part of it, if that is asked for.
    """
    (tmp_path / "file.bin").write_bytes(b"0123456789" * (size // 10))
    content = (tmp_path / "file.bin").read_bytes()
    request = rendered(File(str(tmp_path)), requestWith("/file.bin"))
    assert (request.code, request.written) == (200, content)
    if len(content) > 10:
        headers = {"Range": f"bytes=5-{len(content) - 2}"}
        part = requestWith("/file.bin", headers=headers)
        rendered(File(str(tmp_path)), part)
        assert (part.code, part.written) == (206, content[5:-1])


def test_aFileThatIsKnown(tmp_path: Path) -> None:
    """
    Nothing is written where nothing is to be.
    """
    (tmp_path / "file.txt").write_text("hello")
    later = {"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}
    request = rendered(File(str(tmp_path)), requestWith("/file.txt", headers=later))
    assert (request.code, request.written) == (304, b"")


# What is written.


def test_whatIsWritten() -> None:
    """
    The response is what a server would send, without chunks, and with the usual
    type.
    """
    request = requestWith()
    request.setResponseCode(201)
    request.addCookie("a", "1")
    request.write(b"one, ")
    assert request.written == b"one, "
    request.write(b"two")
    request.finish()
    assert (request.code, request.written) == (201, b"one, two")
    headers = dict(request.responseHeaders.getAllRawHeaders())
    assert headers == {b"Content-Type": [b"text/html"], b"Set-Cookie": [b"a=1"]}


def test_writingTooLate() -> None:
    """
    What a real request does not allow, this does not either.
    """
    request = requestWith()
    request.finish()
    with pytest.raises(RuntimeError, match=r"after Request\.finish"):
        request.write(b"x")
    with pytest.warns(UserWarning, match="finish called twice"):
        request.finish()


@pytest_twisted.ensureDeferred
async def test_whenFinished() -> None:
    """
    C{whenFinished} fires with the request, as soon as it is finished.
    """
    gate: Deferred[str] = Deferred()
    request = requestWith()
    request.render(Page(lambda request: gate))
    first, second = request.whenFinished(), request.whenFinished()
    notified = request.notifyFinish()
    assert [each.called for each in (first, second, notified)] == [False] * 3
    gate.callback("at last")
    assert (await first).written == b"at last"
    assert await second is request
    assert await notified is None
    assert await request.whenFinished() is request


def test_theClientGoesAway() -> None:
    """
    A test may have the client go away.
    """
    request = requestWith()
    request.render(Page(lambda request: NOT_DONE_YET))
    finished = request.whenFinished()
    request.connectionLost(Failure(ConnectionDone()))
    failures: list[Failure] = []
    finished.addErrback(failures.append)
    assert failures[0].check(ConnectionDone)
    request.write(b"nobody hears it")
    assert request.written == b""
    with pytest.raises(RuntimeError, match="connection was lost"):
        request.finish()


class Counter:
    """
    A producer of five parts.
    """

    def __init__(self, request: Any) -> None:
        self.request = request
        self.left = 5
        self.depth = 0

    def resumeProducing(self) -> None:
        assert self.depth == 0, "called again while it is called"
        self.depth += 1
        self.left -= 1
        self.request.write(b"%d" % self.left)
        self.depth -= 1
        if not self.left:
            self.request.unregisterProducer()
            self.request.finish()


def test_aPullProducer() -> None:
    """
    Who produces on demand is asked until there is nothing more.
    """
    request = requestWith()
    request.registerProducer(Counter(request), False)
    assert only(request).written == b"43210"


def test_aPullProducerThatTakesItsTime() -> None:
    """
    Who does not produce at once is asked again when they have.
    """
    request = requestWith()
    asked: list[bool] = []

    class Slow:
        def resumeProducing(self) -> None:
            asked.append(True)

    request.registerProducer(Slow(), False)
    assert len(asked) == 1
    request.write(b"x")
    assert len(asked) == 2
    request.unregisterProducer()
    request.write(b"y")
    assert (len(asked), request.written) == (2, b"xy")


@pytest.mark.parametrize("write", [True, False])
def test_aPushProducer(write: bool) -> None:
    """
    Who produces by itself is never asked.
    """
    request = requestWith()
    request.registerProducer(object(), True)
    if write:
        request.write(b"x")
    request.unregisterProducer()
    request.finish()
    assert request.written == b"x" * write


def test_manyRequests() -> None:
    """
    A session can go through many requests.
    """
    session = getSession(requestWith())
    for number in range(50):
        assert session.get("n", 0) == number
        session["n"] = number + 1
        session = goOn(session)
