"""
The held response: what a client gets, and when, while its session is saved.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import define, field
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred, fail, succeed
from twisted.internet.interfaces import IPullProducer, IPushProducer
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import StringTransport
from twisted.logger import LogEvent, LogLevel
from twisted.python.failure import Failure
from twisted.web.resource import EncodingResourceWrapper, Resource
from twisted.web.server import NOT_DONE_YET, GzipEncoderFactory, Site, UnsupportedMethod
from zope.interface import implementer

from txsession import (
    HeadersAlreadySent,
    ISession,
    MemoryStore,
    Record,
    SessionResource,
    StoreError,
    StoreTimeout,
    StoreUnavailable,
    getSession,
)

from .support import (
    Browser,
    Call,
    Connection,
    Page,
    Serve,
    Served,
    StepStore,
    called,
    clockAt,
    eventually,
    patiently,
    stepping,
    turn,
)

with warnings.catch_warnings():
    # Twisted's own use of what it has deprecated.
    warnings.simplefilter("ignore")
    from twisted.web import static, util
    from twisted.web.xmlrpc import XMLRPC

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
GET_AND_CLOSE = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


# What the tests are written with.


async def barrier(serve: Serve) -> None:
    """
    Be sure that whatever the server has sent so far has arrived: two rounds over
    the same loopback and reactor.
    """
    site = serve.site(Page(lambda request: b"ok"))
    for _ in range(2):
        assert (await Browser(site.port).get()).body == b"ok"


async def fetch(served: Served, data: bytes = GET_AND_CLOSE) -> Raw:
    connection = await served.browser().connect()
    connection.transport.write(data)
    return Raw.parse(await patiently(connection.closed))


async def isLost(request: Any) -> None:
    """
    Wait until the server has seen the client go.
    """
    await eventually(lambda: request._disconnected)


@define
class Raw:
    """
    A response as it came over the wire.
    """

    status: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes

    @classmethod
    def parse(cls, data: bytes) -> Raw:
        head, separator, body = data.partition(b"\r\n\r\n")
        assert separator, data
        status, *lines = head.split(b"\r\n")
        pairs = (line.partition(b": ") for line in lines)
        return cls(status, [(name.lower(), value) for name, _, value in pairs], body)

    def all(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key == name]

    @property
    def names(self) -> set[bytes]:
        return {name for name, _ in self.headers}

    @property
    def chunks(self) -> list[bytes]:
        """
        The chunks of a chunked body, the empty last one included.
        """
        assert self.all(b"transfer-encoding") == [b"chunked"], self.headers
        chunks, rest = [], self.body
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size, 16)
            chunks.append(rest[:length])
            assert rest[length : length + 2] == b"\r\n"
            rest = rest[length + 2 :]
        return chunks


@define
class Act:
    """
    A handler that writes to the session, calls its function and then leaves the
    request to the test.
    """

    function: Callable[[Any], Any] = lambda request: None
    request: Any = None
    began: Deferred[Any] = field(factory=Deferred)

    def __call__(self, request: Any) -> Any:
        if request.path == b"/other":
            return b"other"
        session = ISession(request, None)
        if session is not None:
            session["touched"] = True
        self.request = request
        result = self.function(request)
        self.began.callback(request)
        return NOT_DONE_YET if result is None else result


async def hold(
    serve: Serve, function: Callable[[Any], Any], **options: Any
) -> tuple[Served, Act, Call, Connection]:
    """
    A response whose session, a new one, is being saved.
    """
    act = Act(function)
    served, store = stepping(serve, act, "create", **options)
    connection = await served.browser().connect()
    connection.transport.write(GET_AND_CLOSE)
    return served, act, await called(store, "create"), connection


def withHeaders(request: Any) -> None:
    request.setResponseCode(201, b"Made")
    request.setHeader("X-Mine", "frozen")
    request.addCookie("mine", "frozen")
    request.write(b"one,")


# Held.


@pytest_twisted.ensureDeferred
async def test_aRedirectIsNotSentBeforeItsSave(serve: Serve) -> None:
    """
    A 302 leaves when the session that it was answered with is in the store, and
    not before.
    """

    def redirect(request: Any) -> bytes:
        getSession(request)["user"] = "ada"
        return util.redirectTo(b"/next", request)

    served, store = stepping(serve, redirect, "create")
    connection = await served.browser().connect()
    connection.transport.write(GET_AND_CLOSE)
    call = await called(store, "create")
    await barrier(serve)
    assert connection.received == b""
    call.apply()
    await barrier(serve)
    assert connection.received == b""
    call.answer.callback(True)
    response = Raw.parse(await patiently(connection.closed))
    assert response.status == b"HTTP/1.1 302 Found"
    assert response.all(b"location") == [b"/next"]
    assert len(response.all(b"set-cookie")) == 1


@pytest_twisted.ensureDeferred
async def test_theHeadIsFrozenAtTheFirstWrite(serve: Serve) -> None:
    """
    Status, reason and headers are those of the first write, whatever the
    application does to them while the response is held.
    """
    _, act, call, connection = await hold(serve, withHeaders)
    request = act.request
    request.setResponseCode(500, b"Changed")
    request.setHeader("X-Mine", "changed")
    request.setHeader("X-Late", "late")
    request.responseHeaders.addRawHeader("X-Raw", "late")
    request.responseHeaders.removeHeader("Server")
    request.addCookie("late", "late")
    request.cookies[:] = [b"mine=changed"]
    request.setLastModified(1_000_000_000)
    request.setETag(b'"late"')
    request.redirect(b"/elsewhere")
    request.finish()
    call.release()
    response = Raw.parse(await patiently(connection.closed))
    assert response.status == b"HTTP/1.1 201 Made"
    assert response.all(b"x-mine") == [b"frozen"]
    assert response.all(b"set-cookie")[0] == b"mine=frozen"
    assert len(response.all(b"set-cookie")) == 2
    assert response.names == {
        b"server",
        b"date",
        b"connection",
        b"content-type",
        b"transfer-encoding",
        b"x-mine",
        b"set-cookie",
        b"vary",
        b"cache-control",
    }


@pytest_twisted.ensureDeferred
async def test_aNewHeadersObjectWhileHeldHasNoEffect(serve: Serve) -> None:
    """
    Replacing C{responseHeaders} or C{cookies} while held changes nothing.
    """
    _, act, call, connection = await hold(serve, withHeaders)
    act.request.responseHeaders = type(act.request.responseHeaders)({"X-Late": ["1"]})
    act.request.cookies = [b"late=late"]
    act.request.code = 404
    act.request.finish()
    call.release()
    response = Raw.parse(await patiently(connection.closed))
    assert response.status == b"HTTP/1.1 201 Made"
    assert b"x-late" not in response.names
    assert [c.split(b"=")[0] for c in response.all(b"set-cookie")] == [
        b"mine",
        b"connect.sid",
    ]


@pytest_twisted.ensureDeferred
async def test_theBodyIsKeptInOrder(serve: Serve) -> None:
    """
    What is written while the response is held follows what was written before,
    and is followed by what is written after.
    """
    _, act, call, connection = await hold(serve, lambda request: request.write(b"1"))
    act.request.write(b"2")
    act.request.write(b"")
    act.request.write(bytes(bytearray(b"3")))
    call.release()
    await patiently(connection.until(b"3"))
    act.request.write(b"4")
    act.request.finish()
    response = Raw.parse(await patiently(connection.closed))
    assert response.chunks == [b"1", b"2", b"3", b"4", b""]


@pytest_twisted.ensureDeferred
async def test_whatWasWrittenWhileHeldIsACopy(serve: Serve) -> None:
    """
    A buffer that the application goes on using after a write does not change
    what was written.
    """
    buffer = bytearray(b"before")
    _, act, call, connection = await hold(serve, lambda request: request.write(buffer))
    buffer[:] = b"after!"
    act.request.write(buffer)
    buffer[:] = b"......"
    act.request.finish()
    call.release()
    response = Raw.parse(await patiently(connection.closed))
    assert b"".join(response.chunks) == b"beforeafter!"


@pytest_twisted.ensureDeferred
async def test_finishWaits(serve: Serve) -> None:
    """
    A response that was finished while held ends when it is let go, and the
    connection goes on to the next request.
    """
    act = Act(lambda request: b"first")
    served, store = stepping(serve, act, "create")
    connection = await served.browser().connect()
    connection.transport.write(GET)
    call = await called(store, "create")
    assert not act.request.finished
    connection.transport.write(GET_AND_CLOSE.replace(b"/ ", b"/other "))
    await barrier(serve)
    assert connection.received == b""
    call.release()
    received = await patiently(connection.closed)
    assert received.count(b"HTTP/1.1 200 OK") == 2
    assert received.index(b"first") < received.index(b"other")


@pytest_twisted.ensureDeferred
async def test_aSecondFinishIsHarmless(serve: Serve) -> None:
    """
    Finishing twice while held ends the response once.
    """
    _, act, call, connection = await hold(serve, lambda request: request.write(b"x"))
    act.request.finish()
    act.request.finish()
    call.release()
    response = Raw.parse(await patiently(connection.closed))
    assert response.chunks == [b"x", b""]


@pytest_twisted.ensureDeferred
async def test_aWriteAfterFinishIsRefused(serve: Serve) -> None:
    """
    Writing to a held response that was finished raises what Twisted raises, and
    the response goes out as it was.
    """
    _, act, call, connection = await hold(serve, lambda request: request.write(b"x"))
    act.request.finish()
    with pytest.raises(RuntimeError, match=r"after Request\.finish"):
        act.request.write(b"y")
    call.release()
    response = Raw.parse(await patiently(connection.closed))
    assert response.chunks == [b"x", b""]


@pytest_twisted.ensureDeferred
async def test_aWriteOfSomethingElseThanBytesIsRefused(serve: Serve) -> None:
    """
    Text is refused while held as it is otherwise.
    """
    _, act, call, connection = await hold(serve, lambda request: request.write(b"x"))
    with pytest.raises(TypeError):
        act.request.write("text")
    act.request.finish()
    call.release()
    response = Raw.parse(await patiently(connection.closed))
    assert response.chunks == [b"x", b""]


@pytest_twisted.ensureDeferred
async def test_notifyFinishFiresAfterTheFlush(serve: Serve) -> None:
    """
    C{notifyFinish} fires when the response has been passed on, not when the
    application finished it.
    """
    fired: list[Any] = []
    _, act, call, connection = await hold(serve, lambda request: request.write(b"x"))
    act.request.notifyFinish().addBoth(fired.append)
    act.request.finish()
    await turn()
    assert fired == []
    call.release()
    assert fired == [None]
    assert Raw.parse(await patiently(connection.closed)).chunks == [b"x", b""]


@pytest_twisted.ensureDeferred
async def test_nothingIsBufferedIfTheStoreAnswersAtOnce(serve: Serve) -> None:
    """
    With a store in memory the first chunk reaches the client, with the cookie,
    while the response goes on.
    """
    act = Act(lambda request: request.write(b"first"))
    served = serve(act)
    connection = await served.browser().connect()
    connection.transport.write(GET_AND_CLOSE)
    head = await patiently(connection.until(b"first"))
    assert b"\r\nset-cookie: connect.sid=" in head.lower()
    act.request.write(b"second")
    await patiently(connection.until(b"second"))
    act.request.finish()
    response = Raw.parse(await patiently(connection.closed))
    assert response.chunks == [b"first", b"second", b""]


@pytest_twisted.ensureDeferred
async def test_theFirstChunkLeavesWithTheSave(serve: Serve) -> None:
    """
    A held response that goes on is let go when its save is done, without
    waiting for its end.
    """
    _, act, call, connection = await hold(serve, lambda request: request.write(b"one"))
    await barrier(serve)
    assert connection.received == b""
    call.release()
    await patiently(connection.until(b"one"))
    act.request.finish()
    await patiently(connection.closed)


@pytest_twisted.ensureDeferred
async def test_anEmptyFirstWriteDecides(serve: Serve) -> None:
    """
    C{write(b"")}, by which applications send their headers early, is a first
    write.
    """
    act = Act(lambda request: request.write(b""))
    served = serve(act)
    connection = await served.browser().connect()
    connection.transport.write(GET_AND_CLOSE)
    head = await patiently(connection.until(b"\r\n\r\n"))
    assert b"connect.sid=" in head
    act.request.finish()
    assert Raw.parse(await patiently(connection.closed)).chunks == [b""]


@pytest_twisted.ensureDeferred
async def test_finishAloneDecides(serve: Serve) -> None:
    """
    A response without a body is held, too.
    """
    _, _, call, connection = await hold(serve, lambda request: request.finish())
    await barrier(serve)
    assert connection.received == b""
    call.release()
    response = Raw.parse(await patiently(connection.closed))
    assert len(response.all(b"set-cookie")) == 1
    assert response.chunks == [b""]


@pytest_twisted.ensureDeferred
async def test_aSaveInTheMiddleOfALongBody(serve: Serve) -> None:
    """
    What an application writes without a producer is held whole.
    """
    parts = [bytes([65 + n]) * 300_000 for n in range(10)]

    def write(request: Any) -> None:
        for part in parts:
            request.write(part)
        request.finish()

    _, _, call, connection = await hold(serve, write)
    call.release()
    response = Raw.parse(await patiently(connection.closed))
    assert b"".join(response.chunks) == b"".join(parts)


# A failed save.

FAILURES = {
    "unavailable": (StoreUnavailable("down"), 503),
    "timeout": (StoreTimeout("slow"), 503),
    "store": (StoreError("broken"), 500),
    "bug": (ZeroDivisionError("a bug"), 500),
}


@pytest.mark.parametrize("kind", FAILURES)
@pytest.mark.parametrize("isFinished", [True, False])
@pytest_twisted.ensureDeferred
async def test_aFailedSaveSendsNothingOfTheResponse(
    serve: Serve, kind: str, isFinished: bool
) -> None:
    """
    When the save fails, an error page goes out in place of the held response:
    503 if the store is to blame, else 500; no header or cookie of it is left.
    """
    error, status = FAILURES[kind]

    def write(request: Any) -> None:
        request.setLastModified(1_000_000_000)
        request.setETag(b'"mine"')
        request.setHeader("Content-Length", "1000000")
        request.responseHeaders.addRawHeader("Set-Cookie", "raw=raw")
        withHeaders(request)
        if isFinished:
            request.finish()

    _, act, call, connection = await hold(serve, write)
    call.fail(error)
    response = Raw.parse(await patiently(connection.closed))
    assert response.status.startswith(b"HTTP/1.1 %d " % status)
    assert b"one," not in response.body
    assert response.all(b"content-length") == [b"%d" % len(response.body)]
    assert not response.names & {
        b"set-cookie",
        b"x-mine",
        b"last-modified",
        b"etag",
        b"transfer-encoding",
        b"vary",
    }
    assert response.names >= {b"server", b"date", b"content-type"}
    assert act.request.code == status


@pytest_twisted.ensureDeferred
async def test_aSaveThatTakesTooLongIsAnOutage(serve: Serve) -> None:
    """
    A save that has not answered within C{storeTimeout} fails the response with
    503; its late success changes nothing any more.
    """
    act = Act(lambda request: b"fine")
    served, store = stepping(serve, act, "create", storeTimeout=3)
    connection = await served.browser().connect()
    connection.transport.write(GET_AND_CLOSE)
    call = await called(store, "create")
    served.clock.advance(2.9)
    await barrier(serve)
    assert connection.received == b""
    served.clock.advance(0.2)
    response = Raw.parse(await patiently(connection.closed))
    assert response.status == b"HTTP/1.1 503 Service Unavailable"
    assert not call.isCancelled
    call.release()


@pytest_twisted.ensureDeferred
async def test_aSaveThatFailsAtOnce(serve: Serve) -> None:
    """
    A store that fails before the first write has returned gives the same error
    page.
    """

    class Broken(MemoryStore):
        def create(self, sid: str, record: Record) -> Any:
            return fail(StoreUnavailable("down"))

    after: list[str] = []

    def write(request: Any) -> None:
        withHeaders(request)
        after.append("first write")
        request.write(b"two")
        request.finish()
        after.append("finish")

    clock = clockAt()
    served = serve(Act(write), store=Broken(reactor=clock), clock=clock)
    response = await fetch(served)
    assert response.status == b"HTTP/1.1 503 Service Unavailable"
    assert b"one," not in response.body
    assert b"two" not in response.body
    assert not response.names & {b"set-cookie", b"x-mine"}
    assert after == ["first write", "finish"]


@pytest_twisted.ensureDeferred
async def test_theConnectionStaysUsableAfterAFailedSave(serve: Serve) -> None:
    """
    The next request on the same connection is answered as usual.
    """
    act = Act(lambda request: b"first")
    served, store = stepping(serve, act, "create")
    connection = await served.browser().connect()
    connection.transport.write(GET)
    (await called(store, "create")).fail(StoreUnavailable("down"))
    await patiently(connection.until(b"</html>\n"))
    connection.transport.write(GET_AND_CLOSE.replace(b"/ ", b"/other "))
    received = await patiently(connection.closed)
    assert received.startswith(b"HTTP/1.1 503 ")
    assert received.endswith(b"\r\n\r\nother")
    assert received.count(b"HTTP/1.1 200 OK\r\n") == 1


@pytest_twisted.ensureDeferred
async def test_whatTheApplicationDoesAfterAFailedSaveIsIgnored(serve: Serve) -> None:
    """
    After a failed save, writes, C{finish} and exceptions of the application go
    nowhere, and raise nothing.
    """
    act = Act(lambda request: request.write(b"one"))
    served, store = stepping(serve, act, "create")
    connection = await served.browser().connect()
    connection.transport.write(GET)
    (await called(store, "create")).fail(ZeroDivisionError())
    await patiently(connection.until(b"</html>\n"))
    page = connection.received
    request = act.request
    request.write(b"two")
    request.processingFailed(Failure(KeyError("lost")))
    request.finish()
    request.write(b"three")
    request.finish()
    request.unregisterProducer()
    connection.transport.write(GET_AND_CLOSE.replace(b"/ ", b"/other "))
    received = await patiently(connection.closed)
    assert received.startswith(page + b"HTTP/1.1 200 OK\r\n")
    assert received.endswith(b"\r\n\r\nother")


@pytest_twisted.ensureDeferred
async def test_anExceptionAfterAFailedSaveIsLogged(
    serve: Serve, logged: list[LogEvent]
) -> None:
    """
    The application's own exception is not lost with its response.
    """
    error = KeyError("lost")
    _, act, call, connection = await hold(serve, lambda request: request.write(b"1"))
    call.fail(StoreUnavailable("down"))
    await patiently(connection.closed)
    act.request.processingFailed(Failure(error))
    assert any(
        event["log_failure"].value is error
        for event in logged
        if "log_failure" in event
    )


@pytest_twisted.ensureDeferred
async def test_aFailedSaveIsLoggedThoughTheClientHasGone(
    serve: Serve, logged: list[LogEvent]
) -> None:
    """
    That a session could not be saved is logged, whether or not somebody is left
    to be told.
    """
    error = StoreUnavailable("down")
    _, act, call, connection = await hold(serve, lambda request: request.write(b"1"))
    connection.transport.abortConnection()
    await isLost(act.request)
    call.fail(error)
    assert [
        event["log_level"]
        for event in logged
        if "log_failure" in event and event["log_failure"].value is error
    ] == [LogLevel.critical]


@pytest_twisted.ensureDeferred
async def test_theApplicationCannotChangeTheErrorPage(serve: Serve) -> None:
    """
    What the application does to status, headers and cookies after a failed save
    does not reach the response that took the place of its own.
    """
    answer: Deferred[bytes] = Deferred()
    _, act, call, connection = await hold(
        serve, withHeaders, onError=lambda request, failure: answer
    )
    call.fail(StoreUnavailable("down"))
    request = act.request
    request.setResponseCode(200)
    request.setHeader("X-Late", "late")
    request.responseHeaders.setRawHeaders("X-Raw", ["late"])
    request.addCookie("late", "late")
    request.cookies.append(b"later=late")
    request.setETag(b'"late"')
    request.setLastModified(1_000_000_000)
    request.finish()
    answer.callback(b"sorry")
    response = Raw.parse(await patiently(connection.closed))
    assert response.status == b"HTTP/1.1 503 Service Unavailable"
    assert response.body == b"sorry"
    assert not response.names & {
        b"x-late",
        b"x-raw",
        b"set-cookie",
        b"etag",
        b"last-modified",
    }


@pytest_twisted.ensureDeferred
async def test_aHeadOfAFailedSave(serve: Serve) -> None:
    """
    The error page of a HEAD request has a length and no body.
    """
    served, store = stepping(serve, Act(lambda request: b"fine"), "create")
    connection = await served.browser().connect()
    connection.transport.write(GET_AND_CLOSE.replace(b"GET", b"HEAD"))
    (await called(store, "create")).fail(StoreUnavailable("down"))
    response = Raw.parse(await patiently(connection.closed))
    assert response.status == b"HTTP/1.1 503 Service Unavailable"
    assert int(response.all(b"content-length")[0]) > 0
    assert response.body == b""


@pytest_twisted.ensureDeferred
async def test_aNotModifiedWhoseSaveFails(serve: Serve) -> None:
    """
    A response without a body, such as 304, is replaced by a page with one.
    """

    def notModified(request: Any) -> bytes:
        request.setResponseCode(304)
        return b""

    served, store = stepping(serve, Act(notModified), "create")
    connection = await served.browser().connect()
    connection.transport.write(GET_AND_CLOSE)
    (await called(store, "create")).fail(ZeroDivisionError())
    response = Raw.parse(await patiently(connection.closed))
    assert response.status == b"HTTP/1.1 500 Internal Server Error"
    assert response.all(b"content-length") == [b"%d" % len(response.body)]
    assert b"500" in response.body


@pytest_twisted.ensureDeferred
async def test_aRequestThatCannotBeFlushedDoesNotHang(serve: Serve) -> None:
    """
    If Twisted refuses to write what was held (here, for its status), the client
    is not left waiting.
    """

    def write(request: Any) -> bytes:
        request.setResponseCode("teapot")
        return b"short and stout"

    served, store = stepping(serve, Act(write), "create")
    connection = await served.browser().connect()
    connection.transport.write(GET_AND_CLOSE)
    (await called(store, "create")).release()
    received = await patiently(connection.closed)
    assert b"200 OK" not in received


# onError


@define
class Answer:
    """
    A form of answer for onError.
    """

    make: Callable[[Any, Failure], Any]


async def _coroutine(request: Any, failure: Failure) -> bytes:
    await deferLater(reactor, 0)
    return b"sorry"


def _later(request: Any, failure: Failure) -> Any:
    def write() -> None:
        request.write(b"so")
        request.write(b"rry")
        request.finish()

    reactor.callLater(0, write)
    return NOT_DONE_YET


def _soon(request: Any, failure: Failure) -> Any:
    _later(request, failure)
    return deferLater(reactor, 0, lambda: NOT_DONE_YET)


def _finished(request: Any, failure: Failure) -> Any:
    request.write(b"sorry")
    request.finish()
    return NOT_DONE_YET


ANSWERS = {
    "bytes": lambda request, failure: b"sorry",
    "not done yet": _later,
    "finished at once": _finished,
    "fired Deferred": lambda request, failure: succeed(b"sorry"),
    "Deferred": lambda request, failure: deferLater(reactor, 0, lambda: b"sorry"),
    "Deferred of not done yet": _soon,
    "coroutine": _coroutine,
}
OUTAGES = {503: StoreUnavailable("down"), 500: ZeroDivisionError("a bug")}


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("status", OUTAGES)
@pytest_twisted.ensureDeferred
async def test_onErrorAnswersForAFailedSave(
    serve: Serve, answer: str, status: int
) -> None:
    """
    Whatever form its answer has, onError is shown the failure and the status,
    and its answer replaces the page, while the application goes on writing.
    """
    seen: list[Any] = []

    def onError(request: Any, failure: Failure) -> Any:
        seen.append((request.code, failure.value, request.responseHeaders.copy()))
        request.setHeader("X-Sorry", "yes")
        return ANSWERS[answer](request, failure)

    _, act, call, connection = await hold(serve, withHeaders, onError=onError)
    call.fail(OUTAGES[status])
    act.request.write(b"still here")
    act.request.finish()
    response = Raw.parse(await patiently(connection.closed))
    [(code, error, headers)] = seen
    assert (code, error) == (status, OUTAGES[status])
    assert not headers.hasHeader("X-Mine")
    assert response.status.startswith(b"HTTP/1.1 %d " % status)
    assert response.all(b"x-sorry") == [b"yes"]
    assert not response.names & {b"x-mine", b"set-cookie"}
    if response.all(b"content-length"):
        assert response.all(b"content-length") == [b"5"]
        assert response.body == b"sorry"
    else:
        assert b"".join(response.chunks) == b"sorry"
        assert response.chunks[-1] == b""


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("status", OUTAGES)
@pytest_twisted.ensureDeferred
async def test_onErrorAnswersForAFailedLoad(
    serve: Serve, answer: str, status: int
) -> None:
    """
    The same for a load that fails; the application is not called.
    """
    requests: list[Any] = []

    def onError(request: Any, failure: Failure) -> Any:
        assert (request.code, failure.value) == (status, OUTAGES[status])
        return ANSWERS[answer](request, failure)

    def page(request: Any) -> str:
        requests.append(request)
        getSession(request)["n"] = 1
        return "fine"

    served, store = stepping(serve, page, onError=onError)
    browser = served.browser()
    await browser.get()
    store.held.add("get")
    reply = patiently(Deferred.fromCoroutine(browser.get()))
    (await called(store, "get")).fail(OUTAGES[status])
    response = await reply
    assert (response.status, response.body) == (status, b"sorry")
    assert response.setCookies == []
    assert len(requests) == 1


def _raise(request: Any, failure: Failure) -> Any:
    raise KeyError("onError")


async def _raiseLater(request: Any, failure: Failure) -> Any:
    raise KeyError("onError")


WRONG = {
    "raises": _raise,
    "failed Deferred": lambda request, failure: fail(KeyError("onError")),
    "raising coroutine": _raiseLater,
    "None": lambda request, failure: None,
    "text": lambda request, failure: "sorry",
    "Deferred of text": lambda request, failure: succeed("sorry"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("operation", ["get", "replace"])
@pytest_twisted.ensureDeferred
async def test_ifOnErrorFailsThereIsStillAPage(
    serve: Serve, wrong: str, operation: str, logged: list[LogEvent]
) -> None:
    """
    An onError that fails, or returns something else, is logged, and the built-in
    page is shown under the status that was set.
    """

    def page(request: Any) -> str:
        getSession(request)["n"] = getSession(request).get("n", 0) + 1
        return "fine"

    served, store = stepping(serve, page, onError=WRONG[wrong])
    browser = served.browser()
    await browser.get()
    store.held.add(operation)
    reply = patiently(Deferred.fromCoroutine(browser.get()))
    (await called(store, operation)).fail(StoreUnavailable("down"))
    response = await reply
    assert response.status == 503
    assert "<h1>503 Service Unavailable</h1>" in response.text
    errors = [
        event["log_failure"].value
        for event in logged
        if "log_failure" in event and isinstance(event["log_failure"].value, Exception)
    ]
    assert any(isinstance(error, (KeyError, TypeError)) for error in errors)


@pytest_twisted.ensureDeferred
async def test_onErrorThatFailsHalfwayEndsItsResponse(serve: Serve) -> None:
    """
    An onError that fails after its first write does not leave the client
    waiting.
    """

    async def onError(request: Any, failure: Failure) -> bytes:
        request.write(b"so")
        await deferLater(reactor, 0)
        raise KeyError("onError")

    _, _, call, connection = await hold(serve, withHeaders, onError=onError)
    call.fail(StoreUnavailable("down"))
    response = Raw.parse(await patiently(connection.closed))
    assert response.status == b"HTTP/1.1 503 Service Unavailable"
    assert b"so" in response.body


@pytest_twisted.ensureDeferred
async def test_onErrorOfAClientThatHasGone(serve: Serve) -> None:
    """
    When the client leaves before onError answers, the answer goes nowhere, and
    quietly.
    """
    answer: Deferred[bytes] = Deferred()
    requests: list[Any] = []

    def onError(request: Any, failure: Failure) -> Any:
        requests.append(request)
        return answer

    _, act, call, connection = await hold(serve, withHeaders, onError=onError)
    call.fail(StoreUnavailable("down"))
    connection.transport.abortConnection()
    await isLost(act.request)
    left: list[Any] = []
    answer.callback(b"sorry")
    answer.addErrback(left.append)
    assert left == []
    assert len(requests) == 1


@pytest_twisted.ensureDeferred
async def test_onErrorMayNotifyItselfOfTheEnd(serve: Serve) -> None:
    """
    C{notifyFinish} on the request that onError is given fires when its answer
    is out.
    """
    fired: list[Any] = []

    def onError(request: Any, failure: Failure) -> bytes:
        request.notifyFinish().addBoth(fired.append)
        return b"sorry"

    _, _, call, connection = await hold(serve, withHeaders, onError=onError)
    call.fail(StoreUnavailable("down"))
    assert Raw.parse(await patiently(connection.closed)).body == b"sorry"
    assert fired == [None]


@pytest_twisted.ensureDeferred
async def test_onErrorMayStreamAFile(serve: Serve, tmp_path: Path) -> None:
    """
    onError may answer with a producer, as static.File does.
    """
    (tmp_path / "sorry.html").write_bytes(b"sorry" * 100_000)
    page = static.File(str(tmp_path / "sorry.html"))
    page.isLeaf = True
    _, act, call, connection = await hold(
        serve, withHeaders, onError=lambda request, failure: page.render(request)
    )
    call.fail(StoreUnavailable("down"))
    act.request.finish()
    response = Raw.parse(await patiently(connection.closed))
    assert response.body == b"sorry" * 100_000


# An application that raises.


@pytest_twisted.ensureDeferred
async def test_raisingWhileHeldBeforeFinish(serve: Serve) -> None:
    """
    The error text is appended under the frozen status, as it is without the
    wrapper.
    """
    _, act, call, connection = await hold(serve, withHeaders)
    act.request.processingFailed(Failure(KeyError("lost")))
    call.release()
    response = Raw.parse(await patiently(connection.closed))
    assert response.status == b"HTTP/1.1 201 Made"
    assert response.all(b"x-mine") == [b"frozen"]
    assert response.chunks[0] == b"one,"
    assert b"Processing Failed" in response.chunks[1]
    assert response.chunks[2:] == [b""]


@pytest_twisted.ensureDeferred
async def test_raisingWhileHeldWithinRender(serve: Serve) -> None:
    """
    The same for an exception that leaves C{render} itself.
    """

    def write(request: Any) -> None:
        withHeaders(request)
        raise KeyError("lost")

    _, _, call, connection = await hold(serve, write)
    call.release()
    response = Raw.parse(await patiently(connection.closed))
    assert response.status == b"HTTP/1.1 201 Made"
    assert response.chunks[0] == b"one,"
    assert b"Processing Failed" in response.chunks[1]


@pytest_twisted.ensureDeferred
async def test_raisingWhileHeldAfterFinish(
    serve: Serve, logged: list[LogEvent]
) -> None:
    """
    The response goes out as frozen, and the exception is logged.
    """
    error = KeyError("lost")

    def write(request: Any) -> None:
        withHeaders(request)
        request.finish()
        raise error

    _, _, call, connection = await hold(serve, write)
    call.release()
    response = Raw.parse(await patiently(connection.closed))
    assert response.status == b"HTTP/1.1 201 Made"
    assert response.chunks == [b"one,", b""]
    assert any(
        event["log_failure"].value is error
        for event in logged
        if "log_failure" in event
    )


@pytest_twisted.ensureDeferred
async def test_raisingBeforeTheFirstWriteSavesTheSession(serve: Serve) -> None:
    """
    An error page is a response like any other: the session is saved before it
    leaves.
    """

    def write(request: Any) -> None:
        raise KeyError("lost")

    served, _, call, connection = await hold(serve, write)
    await barrier(serve)
    assert connection.received == b""
    call.release()
    response = Raw.parse(await patiently(connection.closed))
    assert response.status == b"HTTP/1.1 500 Internal Server Error"
    assert b"Processing Failed" in response.body
    assert len(response.all(b"set-cookie")) == 1
    assert await served.data(call.arguments[0]) == {"touched": True}


@pytest_twisted.ensureDeferred
async def test_raisingAfterTheHeadersWentOut(serve: Serve) -> None:
    """
    After a flush, an exception ends the response as it does in Twisted.
    """
    _, act, call, connection = await hold(serve, withHeaders)
    call.release()
    await patiently(connection.until(b"one,"))
    act.request.processingFailed(Failure(KeyError("lost")))
    response = Raw.parse(await patiently(connection.closed))
    assert response.status == b"HTTP/1.1 201 Made"
    assert response.chunks[0] == b"one,"
    assert b"Processing Failed" in response.chunks[1]
    assert response.chunks[2:] == [b""]


@pytest_twisted.ensureDeferred
async def test_raisingAsynchronouslyWhileTheLateSaveIsOnItsWay(serve: Serve) -> None:
    """
    An exception after C{finish}, while the end waits for its late save, leaves
    the response whole.
    """
    served, store = stepping(serve, counting)
    browser = served.browser()
    await browser.get()
    act = Act(lambda request: request.write(b"one,"))
    served.resource._wrapped.function = act
    connection = await openAgain(browser)
    request = await patiently(act.began)
    store.held.add("replace")
    getSession(request)["late"] = True
    request.finish()
    call = await called(store, "replace")
    Deferred.fromCoroutine(raising()).addErrback(request.processingFailed).addErrback(
        lambda failure: None
    )
    call.release()
    response = Raw.parse(await patiently(connection.closed))
    assert response.chunks == [b"one,", b""]


async def raising() -> None:
    raise KeyError("lost")


def counting(request: Any) -> str:
    session = getSession(request)
    session["n"] = session.get("n", 0) + 1
    return str(session["n"])


async def openAgain(browser: Browser, path: bytes = b"/") -> Connection:
    """
    Send another request with the cookies of a browser, and close after it.
    """
    cookies = "; ".join(f"{k}={v}" for k, v in browser.cookies.items()).encode()
    connection = await browser.connect()
    connection.transport.write(
        GET_AND_CLOSE[:-2].replace(b"/ ", path + b" ", 1)
        + b"Cookie: "
        + cookies
        + b"\r\n\r\n"
    )
    return connection


# Producers.


@implementer(IPushProducer)
@define(eq=False)
class Push:
    """
    A producer that is told when to produce.
    """

    request: Any
    calls: list[str] = field(factory=list)

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


@implementer(IPullProducer)
@define(eq=False)
class Pull:
    """
    A producer that is asked for each of its parts.
    """

    request: Any
    parts: list[bytes]
    calls: list[str] = field(factory=list)

    def resumeProducing(self) -> None:
        self.calls.append("resume")
        if self.parts:
            self.request.write(self.parts.pop(0))
        else:
            self.request.unregisterProducer()
            self.request.finish()

    def stopProducing(self) -> None:
        self.calls.append("stop")


@pytest.mark.parametrize("isRegisteredFirst", [True, False])
@pytest_twisted.ensureDeferred
async def test_aPushProducerIsPausedWhileHeld(
    serve: Serve, isRegisteredFirst: bool
) -> None:
    """
    A push producer, registered before or during the hold, is paused for as long
    as it lasts, and resumed after it.
    """
    producers: list[Push] = []

    def write(request: Any) -> None:
        producers.append(Push(request))
        if isRegisteredFirst:
            request.registerProducer(producers[0], True)
        request.write(b"one,")
        if not isRegisteredFirst:
            request.registerProducer(producers[0], True)

    _, act, call, connection = await hold(serve, write)
    [producer] = producers
    await turn()
    assert producer.calls == ["pause"]
    call.release()
    assert producer.calls == ["pause", "resume"]
    act.request.write(b"two")
    act.request.unregisterProducer()
    act.request.finish()
    response = Raw.parse(await patiently(connection.closed))
    assert response.chunks == [b"one,", b"two", b""]
    assert "stop" not in producer.calls


@pytest_twisted.ensureDeferred
async def test_aPushProducerStillObeysTheConnectionAfterwards(serve: Serve) -> None:
    """
    After the flush a push producer is paused by a client that does not read,
    and resumed by one that does.
    """
    producers: list[Push] = []

    def write(request: Any) -> None:
        producers.append(Push(request))
        request.registerProducer(producers[0], True)
        request.write(b"one,")

    _, act, call, connection = await hold(serve, write)
    connection.transport.pauseProducing()
    call.release()
    [producer] = producers
    del producer.calls[:]
    while "pause" not in producer.calls:
        act.request.write(b"." * 1_000_000)
    connection.transport.resumeProducing()
    await eventually(lambda: producer.calls[-1] == "resume")
    act.request.unregisterProducer()
    act.request.finish()
    response = Raw.parse(await patiently(connection.closed))
    assert response.chunks[-1] == b""


@pytest_twisted.ensureDeferred
async def test_aPushProducerWaitsForALargeHeldBody(serve: Serve) -> None:
    """
    If what was held is already more than the connection takes, a push producer
    stays paused until the client has read it; a client that leaves stops it.
    """
    producers: list[Push] = []

    def write(request: Any) -> None:
        producers.append(Push(request))
        request.write(bytes(20_000_000))
        request.registerProducer(producers[0], True)

    _, act, call, connection = await hold(serve, write)
    connection.transport.pauseProducing()
    call.release()
    [producer] = producers
    await turn(20)
    assert producer.calls == ["pause"]
    connection.transport.resumeProducing()
    await eventually(lambda: len(producer.calls) == 2)
    assert producer.calls == ["pause", "resume"]
    connection.transport.abortConnection()
    await isLost(act.request)
    assert producer.calls == ["pause", "resume", "stop"]


@pytest.mark.parametrize("isRegisteredFirst", [True, False])
@pytest_twisted.ensureDeferred
async def test_aPullProducerIsNotAskedWhileHeld(
    serve: Serve, isRegisteredFirst: bool
) -> None:
    """
    A pull producer is asked for nothing while the response is held, and for the
    rest after it.
    """
    parts = [bytes([65 + n]) * 70_000 for n in range(9)]
    expected = b"".join(parts)
    producers: list[Pull] = []

    def write(request: Any) -> None:
        producers.append(Pull(request, parts))
        if not isRegisteredFirst:
            request.write(parts.pop(0))
        request.registerProducer(producers[0], False)

    _, _, call, connection = await hold(serve, write)
    [producer] = producers
    await turn(50)
    assert len(producer.calls) == isRegisteredFirst
    call.release()
    response = Raw.parse(await patiently(connection.closed))
    assert b"".join(response.chunks) == expected
    assert len(producer.calls) == 9 + isRegisteredFirst


@pytest_twisted.ensureDeferred
async def test_aProducerMayBeUnregisteredWhileHeld(serve: Serve) -> None:
    """
    A producer that is unregistered during the hold is out of the play, and
    another can take its place.
    """
    first, second = Push(None), Push(None)
    _, act, call, connection = await hold(serve, lambda request: request.write(b"1"))
    request = act.request
    request.registerProducer(first, True)
    with pytest.raises(ValueError, match="unregistered"):
        request.registerProducer(second, True)
    request.unregisterProducer()
    request.registerProducer(second, True)
    call.release()
    assert first.calls == ["pause"]
    assert second.calls == ["pause", "resume"]
    request.unregisterProducer()
    request.finish()
    assert Raw.parse(await patiently(connection.closed)).chunks == [b"1", b""]


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("isRegisteredFirst", [True, False])
@pytest_twisted.ensureDeferred
async def test_aProducerIsStoppedByAFailedSave(
    serve: Serve, streaming: bool, isRegisteredFirst: bool
) -> None:
    """
    The producer of a response whose save failed is told to stop, once.
    """
    producers: list[Any] = []

    def write(request: Any) -> None:
        producer = Push(request) if streaming else Pull(request, [b"x"] * 5)
        producers.append(producer)
        if isRegisteredFirst:
            request.registerProducer(producer, streaming)
        request.write(b"one,")
        if not isRegisteredFirst:
            request.registerProducer(producer, streaming)

    _, act, call, connection = await hold(serve, write)
    call.fail(StoreUnavailable("down"))
    [producer] = producers
    assert producer.calls.count("stop") == 1
    response = Raw.parse(await patiently(connection.closed))
    assert response.status == b"HTTP/1.1 503 Service Unavailable"
    assert producer.calls.count("stop") == 1
    late = Push(act.request)
    act.request.registerProducer(late, True)
    assert late.calls == ["stop"]


@pytest.mark.parametrize("streaming", [True, False])
@pytest_twisted.ensureDeferred
async def test_aProducerIsStoppedBySaveThatFailsAtOnce(
    serve: Serve, streaming: bool
) -> None:
    """
    The same where the store fails before the first write has returned.
    """

    class Broken(MemoryStore):
        def create(self, sid: str, record: Record) -> Any:
            raise StoreUnavailable("down")

    producers: list[Any] = []

    def write(request: Any) -> None:
        producer = Push(request) if streaming else Pull(request, [b"x"] * 5)
        producers.append(producer)
        request.registerProducer(producer, streaming)
        if streaming:
            request.write(b"one,")

    clock = clockAt()
    served = serve(Act(write), store=Broken(reactor=clock), clock=clock)
    response = await fetch(served)
    assert response.status == b"HTTP/1.1 503 Service Unavailable"
    assert producers[0].calls.count("stop") == 1


@pytest_twisted.ensureDeferred
async def test_aProducerThatCannotStopDoesNotKeepTheErrorPage(serve: Serve) -> None:
    """
    The error page goes out even if the producer raises when it is stopped.
    """

    class Stubborn(Push):
        def stopProducing(self) -> None:
            raise KeyError("stubborn")

    def write(request: Any) -> None:
        request.registerProducer(Stubborn(request), True)
        request.write(b"one,")

    _, _, call, connection = await hold(serve, write)
    call.fail(StoreUnavailable("down"))
    response = Raw.parse(await patiently(connection.closed))
    assert response.status == b"HTTP/1.1 503 Service Unavailable"


class CountedFile(static.File):
    """
    A file that counts what is read of it.
    """

    read = 0

    def openForReading(self) -> Any:
        file = self

        class Counted(BytesIO):
            def read(self, *size: Any) -> bytes:
                data = super().read(*size)
                file.read += len(data)
                return data

        return Counted(self.getContent())


MIB = 1024 * 1024


@pytest.mark.parametrize("ranges", [None, b"bytes=5-5000004", b"bytes=0-2999999,7-9"])
@pytest_twisted.ensureDeferred
async def test_aLargeFileIsNotReadAheadWhileHeld(
    serve: Serve, tmp_path: Path, ranges: bytes | None
) -> None:
    """
    Of a file of several MB, at most 1 MiB is read before its session is saved;
    then it arrives whole.
    """
    content = bytes(range(256)) * 20_000
    (tmp_path / "large").write_bytes(content)
    file = CountedFile(str(tmp_path / "large"))
    file.isLeaf = True
    served, store = stepping(serve, file, "create", saveUninitialized=True)
    connection = await served.browser().connect()
    connection.transport.write(
        GET_AND_CLOSE[:-2] + (b"Range: %s\r\n" % ranges if ranges else b"") + b"\r\n"
    )
    call = await called(store, "create")
    await turn(100)
    assert file.read <= MIB
    await barrier(serve)
    assert connection.received == b""
    await turn(1)
    call.release()
    response = Raw.parse(await patiently(connection.closed))
    assert response.all(b"content-length") == [b"%d" % len(response.body)]
    if ranges is None:
        assert response.body == content
    elif b"," not in ranges:
        assert response.body == content[5:5_000_005]
    else:
        assert content[:3_000_000] in response.body
    assert len(response.all(b"set-cookie")) == 1


@pytest_twisted.ensureDeferred
async def test_aLargeFileWhoseSaveFails(serve: Serve, tmp_path: Path) -> None:
    """
    The file is closed, the error page sent, and the connection usable.
    """
    (tmp_path / "large").write_bytes(bytes(5 * MIB))
    (tmp_path / "small").write_bytes(b"small")
    opened: list[Any] = []

    class Opened(static.File):
        def openForReading(self) -> Any:
            opened.append(super().openForReading())
            return opened[-1]

    served, store = stepping(
        serve, Opened(str(tmp_path)), "create", saveUninitialized=True
    )
    connection = await served.browser().connect()
    connection.transport.write(GET.replace(b"/ ", b"/large "))
    (await called(store, "create")).fail(StoreUnavailable("down"))
    await patiently(connection.until(b"</html>\n"))
    assert opened[0].closed
    store.held.clear()
    connection.transport.write(GET_AND_CLOSE.replace(b"/ ", b"/small "))
    received = await patiently(connection.closed)
    assert received.endswith(b"\r\n\r\nsmall")


# The client goes away.


@pytest_twisted.ensureDeferred
async def test_leavingWhileLoadingCancelsTheLoad(serve: Serve) -> None:
    """
    When the client leaves, a pending load is cancelled and the wrapped resource
    is not rendered, even if the store answers all the same.
    """
    rendered: list[Any] = []

    def page(request: Any) -> str:
        rendered.append(request)
        return counting(request)

    served, store = stepping(serve, page)
    browser = served.browser()
    await browser.get()
    store.held.add("get")
    connection = await openAgain(browser)
    call = await called(store, "get")
    connection.transport.abortConnection()
    await eventually(lambda: call.isCancelled)
    await turn()
    assert len(rendered) == 1
    assert (await browser.get("/x", headers={"Cookie": "a=b"})).text == "1"


@pytest_twisted.ensureDeferred
async def test_leavingWhileHeldDoesNotCancelTheSave(serve: Serve) -> None:
    """
    When the client leaves a held response, its save goes on; the producer is
    stopped, and C{notifyFinish} fails.
    """
    producers: list[Push] = []
    ends: list[Any] = []

    def write(request: Any) -> None:
        producers.append(Push(request))
        request.registerProducer(producers[0], True)
        request.notifyFinish().addErrback(ends.append)
        request.write(b"one,")

    served, act, call, connection = await hold(serve, write)
    connection.transport.abortConnection()
    await isLost(act.request)
    assert not call.isCancelled
    assert producers[0].calls == ["pause", "stop"]
    assert len(ends) == 1
    act.request.write(b"two")
    with pytest.raises(RuntimeError, match="connection was lost"):
        act.request.finish()
    call.release()
    assert await served.data(call.arguments[0]) == {"touched": True}
    assert producers[0].calls == ["pause", "stop"]


@pytest_twisted.ensureDeferred
async def test_leavingAPullProducerWhileHeldStopsIt(serve: Serve) -> None:
    """
    The same for a producer that was put off until after the hold.
    """
    producers: list[Pull] = []

    def write(request: Any) -> None:
        request.write(b"one,")
        producers.append(Pull(request, [b"x"] * 5))
        request.registerProducer(producers[0], False)

    _, act, call, connection = await hold(serve, write)
    connection.transport.abortConnection()
    await isLost(act.request)
    assert producers[0].calls == ["stop"]
    call.release()
    await turn()
    assert producers[0].calls == ["stop"]


@pytest_twisted.ensureDeferred
async def test_leavingBeforeTheFirstWriteDecidesNothing(serve: Serve) -> None:
    """
    A first write or C{finish} after the client has gone saves nothing.
    """
    act = Act()
    served, store = stepping(serve, act)
    connection = await served.browser().connect()
    connection.transport.write(GET_AND_CLOSE)
    request = await patiently(act.began)
    connection.transport.abortConnection()
    await isLost(request)
    request.write(b"too late")
    with pytest.raises(RuntimeError, match="connection was lost"):
        request.finish()
    assert store.calls == []


@pytest_twisted.ensureDeferred
async def test_anErrorAfterTheClientLeftDecidesNothing(serve: Serve) -> None:
    """
    Nor does an exception of the application.
    """
    act = Act()
    served, store = stepping(serve, act)
    connection = await served.browser().connect()
    connection.transport.write(GET_AND_CLOSE)
    request = await patiently(act.began)
    connection.transport.abortConnection()
    await isLost(request)
    with pytest.raises(RuntimeError, match="connection was lost"):
        request.processingFailed(Failure(KeyError("lost")))
    assert store.calls == []


@pytest_twisted.ensureDeferred
async def test_aSaveOfOnesOwnOutlivesTheClient(serve: Serve) -> None:
    """
    C{session.save()} works after the client of a known session has gone.
    """
    served, store = stepping(serve, counting)
    browser = served.browser()
    await browser.get()
    sid = served.store.calls and next(iter(await store.store.all()))
    act = Act()
    served.resource._wrapped.function = act
    connection = await openAgain(browser)
    request = await patiently(act.began)
    connection.transport.abortConnection()
    await isLost(request)
    await getSession(request).save()
    assert await served.data(sid) == {"n": 1, "touched": True}


@pytest_twisted.ensureDeferred
async def test_leavingWhileTheLateSaveIsOnItsWay(serve: Serve) -> None:
    """
    A client that leaves while the end of its response is held back for a late
    save ends the request; the save goes through.
    """
    served, store = stepping(serve, counting)
    browser = served.browser()
    await browser.get()
    [sid] = await store.store.all()
    act = Act(lambda request: request.write(b"one,"))
    served.resource._wrapped.function = act
    connection = await openAgain(browser)
    request = await patiently(act.began)
    ends: list[Any] = []
    request.notifyFinish().addBoth(ends.append)
    store.held.add("replace")
    getSession(request)["late"] = True
    request.finish()
    call = await called(store, "replace")
    connection.transport.abortConnection()
    await isLost(request)
    assert len(ends) == 1
    assert not call.isCancelled
    call.release()
    assert await served.data(sid) == {"n": 1, "touched": True, "late": True}


@pytest_twisted.ensureDeferred
async def test_leavingAStreamSavesNothingMore(serve: Serve) -> None:
    """
    What was changed in a stream whose client leaves before its end is not
    saved, and C{finish} raises as in Twisted.
    """
    served, _, request, connection, sid = await begin(serve)
    getSession(request)["late"] = "yes"
    connection.transport.abortConnection()
    await isLost(request)
    request.write(b"two")
    with pytest.raises(RuntimeError, match="connection was lost"):
        request.finish()
    assert await served.data(sid) == {"n": 1, "touched": True}


# Changed after the headers went out.


async def begin(
    serve: Serve, first: bytes = b"one,"
) -> tuple[Served, StepStore, Any, Connection, str]:
    """
    A stream in a stored session, whose headers are out.
    """
    served, store = stepping(serve, counting)
    browser = served.browser()
    await browser.get()
    [sid] = await store.store.all()
    act = Act(lambda request: (first is not None and request.write(first)) or None)
    served.resource._wrapped.function = act
    connection = await openAgain(browser)
    got = await patiently(act.began)
    await patiently(connection.until(first))
    return served, store, got, connection, sid


@pytest_twisted.ensureDeferred
async def test_lateChangesAreSavedBeforeTheEnd(serve: Serve) -> None:
    """
    What is changed after the headers went out is saved at C{finish}, and the
    response ends after that.
    """
    served, store, request, connection, sid = await begin(serve)
    getSession(request)["late"] = "yes"
    request.write(b"two")
    store.held.add("replace")
    request.finish()
    call = await called(store, "replace")
    await patiently(connection.until(b"two"))
    await barrier(serve)
    assert not connection.received.endswith(b"0\r\n\r\n")
    with pytest.raises(RuntimeError, match=r"after Request\.finish"):
        request.write(b"three")
    request.finish()
    call.release()
    response = Raw.parse(await patiently(connection.closed))
    assert response.chunks == [b"one,", b"two", b""]
    assert await served.data(sid) == {"n": 1, "touched": True, "late": "yes"}


@pytest_twisted.ensureDeferred
async def test_lateNestedChangesAreSaved(serve: Serve) -> None:
    """
    A change inside an object counts there, too.
    """
    served, _, request, connection, sid = await begin(serve)
    session = getSession(request)
    session["cart"] = {"items": []}
    await session.save()
    session["cart"]["items"].append("pear")
    request.finish()
    await patiently(connection.closed)
    data = await served.data(sid)
    assert data is not None
    assert data["cart"] == {"items": ["pear"]}


@pytest_twisted.ensureDeferred
async def test_withoutLateChangesNothingIsSavedAgain(serve: Serve) -> None:
    """
    A stream that leaves its session alone costs one save.
    """
    _, store, request, connection, _ = await begin(serve)
    before = list(store.calls)
    request.write(b"two")
    request.finish()
    response = Raw.parse(await patiently(connection.closed))
    assert response.chunks == [b"one,", b"two", b""]
    assert store.calls == before


@pytest.mark.parametrize("isLate", [True, False])
@pytest_twisted.ensureDeferred
async def test_aLateSaveThatFailsCutsTheResponseShort(
    serve: Serve, isLate: bool, logged: list[LogEvent]
) -> None:
    """
    If the late save fails, the connection closes without the final chunk, so
    that the client can tell, and the failure is logged.
    """
    error = StoreUnavailable("down")
    _, store, request, connection, _ = await begin(serve)
    ends: list[Any] = []
    request.notifyFinish().addBoth(ends.append)
    getSession(request)["late"] = "yes"
    request.write(b"two")
    if isLate:
        store.held.add("replace")
        request.finish()
        (await called(store, "replace")).fail(error)
    else:
        store.store.replace = lambda *arguments: fail(error)
        request.finish()
    response = Raw.parse(await patiently(connection.closed))
    assert response.chunks == [b"one,", b"two"]
    assert any(
        event["log_failure"].value is error
        for event in logged
        if "log_failure" in event
    )
    await eventually(lambda: ends)
    assert isinstance(ends[0], Failure)


@pytest_twisted.ensureDeferred
async def test_aLateSaveThatFailsIsNotFollowedByAnotherResponse(serve: Serve) -> None:
    """
    A pipelined request behind the response that was cut short is not answered
    on that connection.
    """
    served, store = stepping(serve, counting)
    browser = served.browser()
    await browser.get()
    act = Act(lambda request: request.write(b"one,"))
    served.resource._wrapped.function = act
    cookies = "; ".join(f"{k}={v}" for k, v in browser.cookies.items()).encode()
    connection = await browser.connect()
    connection.transport.write(
        GET[:-2] + b"Cookie: " + cookies + b"\r\n\r\n" + GET.replace(b"/ ", b"/other ")
    )
    request = await patiently(act.began)
    store.held.add("replace")
    getSession(request)["late"] = "yes"
    request.finish()
    (await called(store, "replace")).fail(StoreUnavailable("down"))
    response = Raw.parse(await patiently(connection.closed))
    assert response.chunks == [b"one,"]


@pytest_twisted.ensureDeferred
async def test_aLateSaveThatFailsOnAResponseOfKnownLength(serve: Serve) -> None:
    """
    A response with a Content-Length that had not gone out whole is broken off.
    """
    served, store = stepping(serve, counting)
    browser = served.browser()
    await browser.get()

    def write(request: Any) -> None:
        request.setHeader("Content-Length", "20000000")
        request.write(b"one,")

    act = Act(write)
    served.resource._wrapped.function = act
    connection = await openAgain(browser)
    request = await patiently(act.began)
    await patiently(connection.until(b"one,"))
    connection.transport.pauseProducing()
    getSession(request)["late"] = "yes"
    store.held.add("replace")
    request.write(bytes(20_000_000 - 4))
    request.finish()
    (await called(store, "replace")).fail(StoreUnavailable("down"))
    connection.transport.resumeProducing()
    response = Raw.parse(await patiently(connection.closed))
    assert len(response.body) < 20_000_000


@pytest_twisted.ensureDeferred
async def test_aLateChangeWithoutACookieIsRefused(serve: Serve) -> None:
    """
    A session that the browser has no cookie for cannot be changed, saved or
    regenerated once the headers are out.
    """
    act = Act()
    served, store = stepping(serve, lambda request: page(request))

    def page(request: Any) -> Any:
        act.request = request
        request.write(b"one,")
        act.began.callback(request)
        return NOT_DONE_YET

    connection = await served.browser().connect()
    connection.transport.write(GET_AND_CLOSE)
    request = await patiently(act.began)
    session = getSession(request)
    assert dict(session) == {}
    with pytest.raises(HeadersAlreadySent):
        session["late"] = True
    with pytest.raises(HeadersAlreadySent):
        session.update(late=True)
    with pytest.raises(HeadersAlreadySent):
        await session.save()
    with pytest.raises(HeadersAlreadySent):
        await session.regenerate()
    with pytest.raises(HeadersAlreadySent):
        await session.regenerate(keepData=True)
    request.write(b"two")
    request.finish()
    response = Raw.parse(await patiently(connection.closed))
    assert response.chunks == [b"one,", b"two", b""]
    assert response.all(b"set-cookie") == []
    assert store.calls == []


@pytest_twisted.ensureDeferred
async def test_aSessionMadeInThisResponseMayBeChangedLate(serve: Serve) -> None:
    """
    A new session whose cookie went out with the headers has a cookie: late
    changes to it are saved.
    """
    served, act, call, connection = await hold(
        serve, lambda request: request.write(b"1")
    )
    call.release()
    await patiently(connection.until(b"\r\n\r\n"))
    getSession(act.request)["late"] = True
    act.request.finish()
    await patiently(connection.closed)
    assert await served.data(call.arguments[0]) == {"touched": True, "late": True}


@pytest_twisted.ensureDeferred
async def test_aChangeWhileHeldIsSavedLate(serve: Serve) -> None:
    """
    What is changed while the response is held came too late for the save under
    way, and is saved at the end.
    """
    served, act, call, connection = await hold(
        serve, lambda request: request.write(b"1")
    )
    getSession(act.request)["during"] = True
    act.request.finish()
    call.release()
    response = Raw.parse(await patiently(connection.closed))
    assert response.chunks == [b"1", b""]
    assert await served.data(call.arguments[0]) == {"touched": True, "during": True}


# Methods, statuses, versions.


class OnlyGet(Resource):
    """
    Knows GET alone, so that Twisted serves HEAD by calling it with a GET.
    """

    isLeaf = True

    def render(self, request: Any) -> Any:
        if request.method != b"GET":
            raise UnsupportedMethod([b"GET"])
        getSession(request)["n"] = 1
        return self.answer(request)

    def answer(self, request: Any) -> Any:
        return b"twelve bytes"


class FakedStream(OnlyGet):
    """
    Answers after Twisted has given up waiting.
    """

    def answer(self, request: Any) -> Any:
        def write() -> None:
            request.write(b"twelve bytes")
            request.finish()

        deferLater(reactor, 0, write).addErrback(lambda failure: None)
        return NOT_DONE_YET


class FakedWrite(OnlyGet):
    def answer(self, request: Any) -> Any:
        request.write(b"twelve bytes")
        return NOT_DONE_YET


class GetIsHead(Resource):
    """
    Answers HEAD as a GET, as every C{Resource} does by itself.
    """

    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        getSession(request)["n"] = 1
        return b"twelve bytes"


class WithHead(GetIsHead):
    def render_HEAD(self, request: Any) -> bytes:
        getSession(request)["n"] = 1
        request.setHeader("X-Head", "own")
        request.setHeader("Content-Length", "99")
        return b""


HEADS = {
    "faked": OnlyGet,
    "faked stream": FakedStream,
    "faked write": FakedWrite,
    "get": GetIsHead,
    "own": WithHead,
}
LENGTHS = {"faked": [b"12"], "get": [b"12"], "own": [b"99"]}


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("isSlow", [True, False])
@pytest_twisted.ensureDeferred
async def test_headRequests(serve: Serve, kind: str, isSlow: bool) -> None:
    """
    HEAD, whether served by GET or by itself, sends headers with the session's
    cookie and no body, and the connection goes on.
    """
    served, store = stepping(serve, HEADS[kind](), *(["create"] if isSlow else []))
    connection = await served.browser().connect()
    connection.transport.write(GET.replace(b"GET", b"HEAD"))
    if isSlow:
        call = await called(store, "create")
        await barrier(serve)
        assert connection.received == b""
        store.held.clear()
        call.release()
    connection.transport.write(GET_AND_CLOSE.replace(b"GET", b"HEAD"))
    received = await patiently(connection.closed)
    assert received.count(b"\r\n\r\n") == 2
    for head in received.split(b"\r\n\r\n")[:2]:
        response = Raw.parse(head + b"\r\n\r\n")
        assert response.status == b"HTTP/1.1 200 OK"
        assert len(response.all(b"set-cookie")) == 1
        assert response.all(b"content-length") == LENGTHS.get(kind, [])
    assert received.endswith(b"\r\n\r\n")


@pytest_twisted.ensureDeferred
async def test_aCorruptRecordFoundByAFakedHead(serve: Serve) -> None:
    """
    A HEAD request that is served by GET and finds its record corrupt is answered
    with 500, like a GET.
    """
    served, store = stepping(serve, OnlyGet())
    browser = served.browser()
    await browser.get()
    [sid] = await store.store.all()
    record = Record(b'{"cookie":{},"n":nonsense}', served.clock.seconds() + 1000)
    await store.store.set(sid, record)
    assert (await browser.get()).status == 500
    connection = await browser.connect()
    cookies = "; ".join(f"{k}={v}" for k, v in browser.cookies.items()).encode()
    connection.transport.write(
        GET_AND_CLOSE[:-2].replace(b"GET", b"HEAD")
        + b"Cookie: "
        + cookies
        + b"\r\n\r\n"
    )
    response = Raw.parse(await patiently(connection.closed))
    assert response.status == b"HTTP/1.1 500 Internal Server Error"
    assert response.body == b""
    assert await served.record(sid) == record


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("isSlow", [True, False])
@pytest_twisted.ensureDeferred
async def test_statusesWithoutABody(serve: Serve, status: int, isSlow: bool) -> None:
    """
    204 and 304 have no body, even if the application writes one, and carry the
    cookie.
    """

    def write(request: Any) -> None:
        request.setResponseCode(status)
        request.write(b"nobody reads this")
        request.write(b"nor this")
        request.finish()

    served, store = stepping(serve, Act(write), *(["create"] if isSlow else []))
    connection = await served.browser().connect()
    connection.transport.write(GET)
    if isSlow:
        (await called(store, "create")).release()
    connection.transport.write(GET_AND_CLOSE.replace(b"/ ", b"/other "))
    received = await patiently(connection.closed)
    first, _, second = received.partition(b"\r\n\r\n")
    response = Raw.parse(first + b"\r\n\r\n")
    assert response.status.startswith(b"HTTP/1.1 %d " % status)
    assert len(response.all(b"set-cookie")) == 1
    assert b"transfer-encoding" not in response.names
    assert second.startswith(b"HTTP/1.1 200 OK\r\n")


def writeAndFinish(request: Any) -> None:
    request.write(b"one,")
    request.finish()


@pytest.mark.parametrize("isSlow", [True, False])
@pytest_twisted.ensureDeferred
async def test_http10(serve: Serve, isSlow: bool) -> None:
    """
    Over HTTP/1.0 there are no chunks, and the connection's end is the
    response's.
    """
    served, store = stepping(
        serve,
        Act(writeAndFinish),
        *(["create"] if isSlow else []),
    )
    connection = await served.browser().connect()
    connection.transport.write(b"GET / HTTP/1.0\r\n\r\n")
    if isSlow:
        (await called(store, "create")).release()
    response = Raw.parse(await patiently(connection.closed))
    assert response.status == b"HTTP/1.0 200 OK"
    assert response.body == b"one,"
    assert len(response.all(b"set-cookie")) == 1


@pytest_twisted.ensureDeferred
async def test_http10AndAFailedSave(serve: Serve) -> None:
    """
    An error page goes out over HTTP/1.0, too.
    """
    served, store = stepping(serve, Act(lambda request: b"fine"), "create")
    connection = await served.browser().connect()
    connection.transport.write(b"GET / HTTP/1.0\r\n\r\n")
    (await called(store, "create")).fail(StoreUnavailable("down"))
    response = Raw.parse(await patiently(connection.closed))
    assert response.status == b"HTTP/1.0 503 Service Unavailable"
    assert b"fine" not in response.body


@pytest_twisted.ensureDeferred
async def test_http10AndALateSaveThatFails(serve: Serve) -> None:
    """
    Where the connection's end is the response's, a late save that fails resets
    the connection.
    """
    served, store = stepping(serve, counting)
    browser = served.browser()
    await browser.get()
    act = Act(lambda request: request.write(b"one,"))
    served.resource._wrapped.function = act
    cookies = "; ".join(f"{k}={v}" for k, v in browser.cookies.items()).encode()
    connection = await browser.connect()
    reasons: list[Failure] = []
    lost = connection.connectionLost
    connection.connectionLost = lambda reason: [reasons.append(reason), lost(reason)]
    connection.transport.write(b"GET / HTTP/1.0\r\nCookie: " + cookies + b"\r\n\r\n")
    request = await patiently(act.began)
    await patiently(connection.until(b"one,"))
    getSession(request)["late"] = "yes"
    store.held.add("replace")
    request.finish()
    (await called(store, "replace")).fail(StoreUnavailable("down"))
    await patiently(connection.closed)
    assert (
        "reset" in reasons[0].getErrorMessage().lower()
        or "non-clean" in reasons[0].getErrorMessage()
    )


@pytest_twisted.ensureDeferred
async def test_pipelinedRequestsAreAnsweredInOrder(serve: Serve) -> None:
    """
    Of two requests on the wire at once, the second is looked at when the first
    one's response, held as long as it was, is out.
    """
    seen: list[bytes] = []

    def page(request: Any) -> bytes:
        seen.append(request.path)
        getSession(request)["n"] = 1
        return request.path

    served, store = stepping(serve, page, "create")
    connection = await served.browser().connect()
    connection.transport.write(
        GET.replace(b"/ ", b"/first ") + GET_AND_CLOSE.replace(b"/ ", b"/second ")
    )
    call = await called(store, "create")
    await barrier(serve)
    assert seen == [b"/first"]
    call.release()
    (await called(store, "create")).release()
    received = await patiently(connection.closed)
    assert seen == [b"/first", b"/second"]
    bodies = [part.split(b"HTTP/1.1")[0] for part in received.split(b"\r\n\r\n")[1:]]
    assert bodies == [b"/first", b"/second"]
    assert received.count(b"connect.sid=") == 2


@pytest_twisted.ensureDeferred
async def test_pipelinedBehindAFailedSave(serve: Serve) -> None:
    """
    A pipelined request behind a failed one is answered.
    """
    served, store = stepping(serve, Act(lambda request: b"first"), "create")
    connection = await served.browser().connect()
    connection.transport.write(GET + GET_AND_CLOSE.replace(b"/ ", b"/other "))
    (await called(store, "create")).fail(StoreUnavailable("down"))
    received = await patiently(connection.closed)
    assert received.startswith(b"HTTP/1.1 503 ")
    assert received.endswith(b"\r\n\r\nother")


@pytest_twisted.ensureDeferred
async def test_theBodyOfARequestIsThereAfterASlowLoad(serve: Serve) -> None:
    """
    An uploaded body can be read after the session was loaded slowly.
    """

    def page(request: Any) -> str:
        getSession(request)["n"] = 1
        return request.content.read().decode() + str(request.args)

    served, store = stepping(serve, page)
    browser = served.browser()
    await browser.get()
    store.held.add("get")
    reply = patiently(Deferred.fromCoroutine(browser.post(data={"a": "b"})))
    (await called(store, "get")).release()
    assert (await reply).text == "a=b{b'a': [b'b']}"


@pytest_twisted.ensureDeferred
async def test_anUploadThatAsksFirst(serve: Serve) -> None:
    """
    C{Expect: 100-continue} and a body that comes later do not get in each
    other's way with a slow load and a slow save.
    """

    def page(request: Any) -> bytes:
        count = getSession(request).get("n", 0)
        getSession(request)["n"] = count + 1
        return b"%d" % len(request.content.read())

    served, store = stepping(serve, page)
    browser = served.browser()
    await browser.get()
    store.held |= {"get", "replace"}
    cookie = browser.cookies["connect.sid"].encode()
    connection = await browser.connect()
    connection.transport.write(
        b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        b"Expect: 100-continue\r\nContent-Length: 300000\r\n"
        b"Cookie: connect.sid=" + cookie + b"\r\n\r\n"
    )
    await patiently(connection.until(b"100 Continue\r\n\r\n"))
    connection.transport.write(bytes(300_000))
    (await called(store, "get")).release()
    (await called(store, "replace")).release()
    received = await patiently(connection.closed)
    assert received.endswith(b"\r\n\r\n300000")


# Cookies and caches.


@pytest.mark.parametrize("isSlow", [True, False])
@pytest.mark.parametrize("ways", ["addCookie", "header", "both", "twisted"])
@pytest_twisted.ensureDeferred
async def test_theApplicationsOwnCookiesSurvive(
    serve: Serve, ways: str, isSlow: bool
) -> None:
    """
    Cookies set through C{addCookie}, C{responseHeaders} and Twisted's own
    session go out beside ours.
    """

    def write(request: Any) -> bytes:
        if ways in ("addCookie", "both"):
            request.addCookie("one", "1")
            request.addCookie("two", "2")
        if ways in ("header", "both"):
            request.responseHeaders.addRawHeader("Set-Cookie", "three=3")
            request.responseHeaders.addRawHeader(b"set-cookie", b"four=4")
        if ways == "twisted":
            request.getSession()
        return b""

    served, store = stepping(serve, Act(write), *(["create"] if isSlow else []))
    connection = await served.browser().connect()
    connection.transport.write(GET_AND_CLOSE)
    if isSlow:
        (await called(store, "create")).release()
    response = Raw.parse(await patiently(connection.closed))
    for session in list(served.site.sessions.values()):
        session.expire()
    names = [value.split(b"=")[0] for value in response.all(b"set-cookie")]
    expected = {
        "addCookie": [b"one", b"two"],
        "header": [b"three", b"four"],
        "both": [b"three", b"four", b"one", b"two"],
        "twisted": [b"TWISTED_SESSION"],
    }
    assert sorted(names) == sorted([*expected[ways], b"connect.sid"])


def _read(request: Any) -> None:
    getSession(request).get("n")


def _ask(request: Any) -> None:
    "n" in getSession(request)  # noqa: B015


def _write(request: Any) -> None:
    getSession(request)["n"] = 1


def _look(request: Any) -> None:
    getSession(request)


CACHING = {
    "ignored": (lambda request: None, None, None),
    "not read": (_look, None, None),
    "read": (_read, "Cookie", None),
    "asked": (_ask, "Cookie", None),
    "written": (_write, "Cookie", 'private, no-cache="Set-Cookie"'),
}


@pytest.mark.parametrize("use", CACHING)
@pytest.mark.parametrize("cacheHeaders", [True, False])
@pytest_twisted.ensureDeferred
async def test_cacheHeaders(serve: Serve, use: str, cacheHeaders: bool) -> None:
    """
    C{Vary: Cookie} is sent where the session was read or written, and
    C{Cache-Control} beside a session cookie; neither with the option off.
    """
    function, vary, control = CACHING[use]
    reply = await serve(function, cacheHeaders=cacheHeaders).browser().get()
    assert reply.header("Vary") == (vary if cacheHeaders else None)
    assert reply.header("Cache-Control") == (control if cacheHeaders else None)
    assert (reply.cookie() is not None) is (use == "written")


@pytest_twisted.ensureDeferred
async def test_cacheHeadersOfAnExpiringCookie(serve: Serve) -> None:
    """
    A cookie that is expired is not cached, either.
    """

    async def page(request: Any) -> None:
        session = getSession(request)
        if request.path == b"/out":
            await session.destroy()
        else:
            session["n"] = 1

    browser = serve(page).browser()
    await browser.get()
    reply = await browser.get("/out")
    cookie = reply.cookie()
    assert cookie is not None
    assert cookie.isExpired
    assert reply.header("Cache-Control") == 'private, no-cache="Set-Cookie"'
    assert reply.header("Vary") == "Cookie"


VARYING = {
    "Accept-Encoding": "Accept-Encoding, Cookie",
    "Cookie": "Cookie",
    "cookie": "cookie",
    "Accept, COOKIE ,User-Agent": "Accept, COOKIE ,User-Agent",
    "*": "*",
    "X-Cookie": "X-Cookie, Cookie",
}


@pytest.mark.parametrize("before", VARYING)
@pytest_twisted.ensureDeferred
async def test_varyIsAddedToWhatIsThere(serve: Serve, before: str) -> None:
    """
    The application's own C{Vary} is kept, and C{Cookie} not named twice.
    """

    def page(request: Any) -> None:
        request.setHeader("Vary", before)
        getSession(request)["n"] = 1

    reply = await serve(page).browser().get()
    assert reply.header("Vary") == VARYING[before]


@pytest_twisted.ensureDeferred
async def test_theApplicationsCacheControlIsKept(serve: Serve) -> None:
    """
    Where the application set C{Cache-Control}, nothing is added to it.
    """

    def page(request: Any) -> None:
        request.setHeader("cache-control", "max-age=60")
        getSession(request)["n"] = 1

    reply = await serve(page).browser().get()
    assert reply.header("Cache-Control") == "max-age=60"


# As without the wrapper.


class Leaf(Resource):
    isLeaf = True

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.render = function  # type: ignore[method-assign]


def _steps(*steps: Any) -> Callable[[], Resource]:
    """
    A leaf that takes these steps: bytes are written, calls called with the
    request, and a number is that many turns of the reactor.
    """

    def make() -> Resource:
        async def run(request: Any) -> None:
            for step in steps:
                if isinstance(step, int):
                    await turn(step)
                elif isinstance(step, bytes):
                    request.write(step)
                else:
                    step(request)

        def render(request: Any) -> Any:
            Deferred.fromCoroutine(run(request)).addErrback(
                request.processingFailed
            ).addErrback(lambda failure: None)
            return NOT_DONE_YET

        return Leaf(render)

    return make


def _finish(request: Any) -> None:
    request.finish()


def _boom(request: Any) -> None:
    raise KeyError("boom")


def _set(name: str, value: str) -> Callable[[Any], None]:
    return lambda request: request.setHeader(name, value)


def _code(*code: Any) -> Callable[[Any], None]:
    return lambda request: request.setResponseCode(*code)


def _returns(value: Any) -> Callable[[], Resource]:
    return lambda: Leaf(lambda request: value)


def _pull(request: Any) -> None:
    request.registerProducer(Pull(request, [b"a" * 9, b"", b"b" * 9]), False)


def _pullAfterWrite(request: Any) -> None:
    request.write(b"first")
    _pull(request)


def _push(request: Any) -> None:
    producer = Push(request)
    request.registerProducer(producer, True)
    request.write(b"pushed")
    request.unregisterProducer()
    request.write(b"alone")
    request.finish()


def _unregistered(request: Any) -> None:
    request.registerProducer(Push(request), True)
    request.write(b"pushed")
    request.finish()


def _twice(request: Any) -> None:
    request.write(b"x")
    request.finish()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        request.finish()


def _bound() -> Resource:
    """
    Keeps the methods of its request from before the first write.
    """

    def render(request: Any) -> Any:
        write, finish = request.write, request.finish

        async def run() -> None:
            write(b"a")
            await turn(4)
            write(b"b")
            await turn(6)
            finish()

        Deferred.fromCoroutine(run())
        return NOT_DONE_YET

    return Leaf(render)


def _patched(code: int = 200) -> Resource:
    """
    Puts functions of its own before those of its request.
    """

    def render(request: Any) -> bytes:
        write, finish = request.write, request.finish

        def shout(data: bytes) -> None:
            write(data.upper())

        def bye() -> None:
            if code == 200:
                shout(b"bye")
            finish()

        request.setResponseCode(code)
        request.write, request.finish = shout, bye
        request.setHeader = lambda name, value: None
        return b"hello"

    return Leaf(render)


def _lastModified(request: Any) -> None:
    request.setLastModified(1_000_000_000)


def _etag(request: Any) -> None:
    request.setETag(b'"tag"')


def _nested() -> Resource:
    root = Resource()
    root.putChild(b"", _returns(b"index")())
    child = Resource()
    root.putChild(b"child", child)
    child.putChild(
        b"leaf",
        Leaf(lambda request: b"%r %r" % (request.prepath, request.postpath)),
    )
    return root


def _childless(*child: Any) -> Resource:
    class Childless(Resource):
        def getChild(self, name: bytes, request: Any) -> Any:
            [found] = child
            return found

    return Childless()


def _methods() -> Resource:
    class Methods(Resource):
        isLeaf = True

        def render_GET(self, request: Any) -> bytes:
            return b"got"

        def render_POST(self, request: Any) -> bytes:
            return request.content.read()

    return Methods()


def _onlyGet(value: Any) -> Callable[[], Resource]:
    def render(request: Any) -> Any:
        if request.method != b"GET":
            raise UnsupportedMethod([b"GET"])
        return value

    return lambda: Leaf(render)


def _xmlrpc() -> Resource:
    class Add(XMLRPC):
        def xmlrpc_add(self, a: int, b: int) -> int:
            return a + b

    return Add()


def _deferred() -> Resource:
    return util.DeferredResource(deferLater(reactor, 0, lambda: _returns(b"later")()))


def _data() -> Resource:
    data = static.Data(b"0123456789" * 50, "text/plain")
    data.isLeaf = True
    return data


def _gzipped() -> Any:
    return EncodingResourceWrapper(_data(), [GzipEncoderFactory()])


def _stylesheet() -> Resource:
    import twisted

    file = static.File(str(Path(twisted.__file__).parent / "copyright.py"))
    file.isLeaf = True
    return file


ADD = b"""<?xml version="1.0"?><methodCall><methodName>add</methodName><params>
<param><value><int>2</int></value></param><param><value><int>3</int></value></param>
</params></methodCall>"""

HANDLERS: dict[str, tuple[Callable[[], Any], bytes]] = {
    "bytes": (_returns(b"bytes"), b"GET / HTTP/1.1"),
    "empty": (_returns(b""), b"GET / HTTP/1.1"),
    "text": (_returns("text"), b"GET / HTTP/1.1"),
    "none": (_returns(None), b"GET / HTTP/1.1"),
    "raises": (lambda: Leaf(_boom), b"GET / HTTP/1.1"),
    "HEAD of bytes": (_returns(b"bytes"), b"HEAD / HTTP/1.1"),
    "HEAD by GET": (_methods, b"HEAD / HTTP/1.1"),
    "HEAD faked": (_onlyGet(b"x"), b"HEAD / HTTP/1.1"),
    "HEAD faked text": (_onlyGet("text"), b"HEAD / HTTP/1.1"),
    "HEAD faked later": (_onlyGet(NOT_DONE_YET), b"HEAD / HTTP/1.1"),
    "405": (_methods, b"PUT / HTTP/1.1"),
    "501": (_methods, b"BREW / HTTP/1.1"),
    "POST": (_methods, b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"),
    "404": (_nested, b"GET /nowhere HTTP/1.1"),
    "404 below": (_nested, b"GET /child/nowhere/x HTTP/1.1"),
    "index": (_nested, b"GET / HTTP/1.1"),
    "leaf": (_nested, b"GET /child/leaf/a/b%20c HTTP/1.1"),
    "directory": (_nested, b"GET /child HTTP/1.1"),
    "getChild raises": (_childless, b"GET /child HTTP/1.1"),
    "getChild returns nothing": (lambda: _childless(None), b"GET /child HTTP/1.1"),
    "xmlrpc": (
        _xmlrpc,
        b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(ADD), ADD),
    ),
    "redirect": (lambda: util.Redirect(b"/there"), b"GET / HTTP/1.1"),
    "deferred": (_deferred, b"GET / HTTP/1.1"),
    "data": (_data, b"GET / HTTP/1.1"),
    "data HEAD": (_data, b"HEAD / HTTP/1.1"),
    "gzip": (_gzipped, b"GET / HTTP/1.1\r\nAccept-Encoding: gzip"),
    "gzip unwanted": (_gzipped, b"GET / HTTP/1.1"),
    "gzip HEAD": (_gzipped, b"HEAD / HTTP/1.1\r\nAccept-Encoding: gzip"),
    "file": (_stylesheet, b"GET / HTTP/1.1"),
    "file 1.0": (_stylesheet, b"GET / HTTP/1.0"),
    "file HEAD": (_stylesheet, b"HEAD / HTTP/1.1"),
    "file range": (_stylesheet, b"GET / HTTP/1.1\r\nRange: bytes=5-50"),
    "file bad range": (_stylesheet, b"GET / HTTP/1.1\r\nRange: bytes=900000-"),
    "file cached": (
        _stylesheet,
        b"GET / HTTP/1.1\r\nIf-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT",
    ),
    "write": (_steps(b"a", b"b", _finish), b"GET / HTTP/1.1"),
    "write 1.0": (_steps(b"a", b"b", _finish), b"GET / HTTP/1.0"),
    "write HEAD": (_steps(b"a", b"b", _finish), b"HEAD / HTTP/1.1"),
    "writes later": (_steps(2, b"a", 5, b"b", 5, _finish), b"GET / HTTP/1.1"),
    "empty writes": (_steps(b"", b"", b"x", b"", _finish), b"GET / HTTP/1.1"),
    "finish": (_steps(_finish), b"GET / HTTP/1.1"),
    "finish later": (_steps(4, _finish), b"GET / HTTP/1.1"),
    "finish HEAD": (_steps(_finish), b"HEAD / HTTP/1.1"),
    "204": (_steps(_code(204), b"ignored", b"x", _finish), b"GET / HTTP/1.1"),
    "304": (_steps(_code(304), _finish), b"GET / HTTP/1.1"),
    "reason": (_steps(_code(299, b"Why not"), b"x", _finish), b"GET / HTTP/1.1"),
    "length": (
        _steps(_set("Content-Length", "2"), b"a", b"b", _finish),
        b"GET / HTTP/1.1",
    ),
    "length 0": (_steps(_set("Content-Length", "0"), _finish), b"GET / HTTP/1.1"),
    "late head": (
        _steps(
            _set("X-A", "1"),
            b"a",
            _set("X-A", "2"),
            _code(404),
            _set("X-B", "2"),
            3,
            _code(500),
            b"b",
            _finish,
        ),
        b"GET / HTTP/1.1",
    ),
    "validators": (_steps(_lastModified, _etag, b"x", _finish), b"GET / HTTP/1.1"),
    "validators matched": (
        _steps(_etag, _finish),
        b'GET / HTTP/1.1\r\nIf-None-Match: "tag"',
    ),
    "late validators": (
        _steps(b"x", _lastModified, _etag, _finish),
        b"GET / HTTP/1.1",
    ),
    "no type": (
        _steps(lambda request: setattr(request, "defaultContentType", None), _finish),
        b"GET / HTTP/1.1",
    ),
    "late no type": (
        _steps(
            b"x", lambda request: setattr(request, "defaultContentType", None), _finish
        ),
        b"GET / HTTP/1.1",
    ),
    "raise after write": (_steps(b"a", _boom), b"GET / HTTP/1.1"),
    "raise later": (_steps(b"a", 5, b"b", _boom), b"GET / HTTP/1.1"),
    "raise after finish": (_steps(b"a", _finish, _boom), b"GET / HTTP/1.1"),
    "raise later after finish": (_steps(b"a", _finish, 5, _boom), b"GET / HTTP/1.1"),
    "write after finish": (_steps(b"a", _finish, b"b"), b"GET / HTTP/1.1"),
    "text written": (
        _steps(b"a", lambda request: request.write("text")),
        b"GET / HTTP/1.1",
    ),
    "finish twice": (_steps(_twice), b"GET / HTTP/1.1"),
    "pull": (_steps(_pull), b"GET / HTTP/1.1"),
    "pull 1.0": (_steps(_pull), b"GET / HTTP/1.0"),
    "pull HEAD": (_steps(_pull), b"HEAD / HTTP/1.1"),
    "pull after write": (_steps(_pullAfterWrite), b"GET / HTTP/1.1"),
    "push": (_steps(_push), b"GET / HTTP/1.1"),
    "not unregistered": (_steps(_unregistered), b"GET / HTTP/1.1"),
    "bound methods": (_bound, b"GET / HTTP/1.1"),
    "patched write": (_patched, b"GET / HTTP/1.1"),
    "patched 304": (
        lambda: _patched(304),
        b"GET / HTTP/1.1",
    ),
    "star": (_returns(b"x"), b"OPTIONS * HTTP/1.1"),
    "close": (
        _steps(_set("Connection", "close"), b"x", _finish),
        b"GET / HTTP/1.1",
    ),
}

IGNORED = {b"set-cookie", b"vary", b"cache-control", b"date"}


def comparable(data: bytes) -> tuple[Any, ...]:
    head, _, body = data.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    headers = [line for line in lines if line.partition(b":")[0].lower() not in IGNORED]
    return status, headers, _withoutAddresses(body)


def _withoutAddresses(body: bytes) -> bytes:
    if b"&lt;Request at 0x" not in body:
        return body
    return json.dumps(
        [part.split(" ", 1)[-1] for part in body.decode("latin-1").split("at 0x")]
    ).encode()


async def ask(port: int, request: bytes, cookies: bytes = b"") -> bytes:
    first, _, rest = request.partition(b"\r\n")
    head, _, body = rest.partition(b"\r\n\r\n")
    lines = [first, b"Host: localhost", b"Connection: close", cookies, head]
    data = b"\r\n".join(line for line in lines if line) + b"\r\n\r\n" + body
    connection = await Browser(port).connect()
    connection.transport.write(data)
    received: bytes = await patiently(connection.closed)
    return received


@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize(
    "mode", ["untouched", "saved", "held", "loaded", "slowly loaded"]
)
@pytest_twisted.ensureDeferred
async def test_theResponseIsTheSameAsWithoutTheWrapper(
    serve: Serve, handler: str, mode: str
) -> None:
    """
    Byte for byte, but for the session's own headers, the response is what the
    wrapped resource answers by itself.
    """
    make, request = HANDLERS[handler]
    bare = await ask(serve.site(make()).port, request)
    held = {"held": ["create"], "slowly loaded": ["get"]}.get(mode, [])
    served, store = stepping(
        serve, make(), *held, saveUninitialized=mode != "untouched"
    )
    cookies = b""
    if mode.endswith("loaded"):
        first = serve(
            lambda request: b"",
            store=store.store,
            clock=served.clock,
            saveUninitialized=True,
        )
        browser = first.browser()
        await browser.get()
        cookies = b"Cookie: connect.sid=" + browser.cookies["connect.sid"].encode()
    response = ask(served.port, request, cookies)
    if held and not request.startswith(b"OPTIONS *"):
        answer = Deferred.fromCoroutine(response)
        call = await called(store, held[0])
        await turn(8)
        call.release()
        received = await answer
    else:
        received = await response
    assert comparable(received) == comparable(bare)
    if mode in ("saved", "held") and not request.startswith(b"OPTIONS *"):
        assert received.count(b"connect.sid=") == 1


# Any sequence of calls, without a network.


STEPS: dict[str, Callable[[Any], Any]] = {
    "write a": lambda request: request.write(b"a"),
    "write bb": lambda request: request.write(b"bb"),
    "write nothing": lambda request: request.write(b""),
    "finish": lambda request: request.finish(),
    "X-A 1": lambda request: request.setHeader("X-A", "1"),
    "X-A 2": lambda request: request.setHeader("X-A", "2"),
    "add": lambda request: request.responseHeaders.addRawHeader("X-R", "3"),
    "remove": lambda request: request.responseHeaders.removeHeader("Server"),
    "length": lambda request: request.setHeader("Content-Length", "3"),
    "201": lambda request: request.setResponseCode(201, b"Mine"),
    "204": lambda request: request.setResponseCode(204),
    "304": lambda request: request.setResponseCode(304),
    "404": lambda request: request.setResponseCode(404),
    "redirect": lambda request: request.redirect(b"/x"),
    "etag": lambda request: request.setETag(b'"e"'),
    "modified": lambda request: request.setLastModified(1_000_000_000),
    "push": lambda request: request.registerProducer(Push(request), True),
    "unregister": lambda request: request.unregisterProducer(),
    "raise": lambda request: request.processingFailed(Failure(KeyError("lost"))),
    "notify": lambda request: request.notifyFinish().addErrback(lambda _: None),
}
ANSWER = "(the store answers)"
METHODS = (b"GET", b"POST", b"HEAD")
VERSIONS = (b"HTTP/1.1", b"HTTP/1.0")


class Captured(Resource):
    """
    Leaves its requests to the test.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Any] = []

    def render(self, request: Any) -> Any:
        self.requests.append(request)
        return NOT_DONE_YET


def driven(
    root: Any,
    captured: Captured,
    line: bytes,
    steps: list[str],
    answer: Callable[[], None] = lambda: None,
) -> tuple[bytes, bool]:
    """
    What comes out of a connection, and whether it was closed, when an
    application takes these steps; what they raise is its own affair.
    """
    site = Site(root)
    site.log = lambda request: None
    transport = StringTransport()
    channel = site.buildProtocol(None)
    channel.callLater = Clock().callLater
    channel.makeConnection(transport)
    channel.dataReceived(line + b"\r\nHost: localhost\r\n\r\n")
    [request] = captured.requests
    for step in steps:
        if step == ANSWER:
            answer()
            continue
        with suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            STEPS[step](request)
    return transport.value(), transport.disconnecting


def memory(*held: str) -> tuple[SessionResource, Captured, StepStore]:
    clock = clockAt()
    captured = Captured()
    store = StepStore(MemoryStore(reactor=clock), held)
    resource = SessionResource(
        captured, secret="x", store=store, reactor=clock, saveUninitialized=True
    )
    return resource, captured, store


lines = st.builds(
    lambda method, version: method + b" / " + version,
    st.sampled_from(METHODS),
    st.sampled_from(VERSIONS),
)
steps = st.lists(st.sampled_from(sorted(STEPS)), max_size=9)


@given(line=lines, before=steps, after=steps)
@settings(max_examples=200, deadline=None)
def test_anyCallsGiveWhatTheyGiveWithoutTheWrapper(
    line: bytes, before: list[str], after: list[str]
) -> None:
    """
    Whatever an application does to its request, and whenever the store answers
    meanwhile, the bytes are those that it gets without the wrapper.
    """
    bare = Captured()
    data, isClosed = driven(bare, bare, line, before + after)
    for held in ([], ["create"]):
        resource, captured, store = memory(*held)

        def answer(store: StepStore = store) -> None:
            store.held.clear()
            for call in store.waiting:
                call.release()

        taken = [*before, ANSWER, *after]
        received, wasClosed = driven(resource, captured, line, taken, answer)
        assert wasClosed is isClosed
        assert (received == b"") is (data == b"")
        assert not data or comparable(received) == comparable(data)


@given(line=lines, before=steps, after=steps)
@settings(max_examples=200, deadline=None)
def test_anyCallsAroundAFailedSaveGiveTheErrorPage(
    line: bytes, before: list[str], after: list[str]
) -> None:
    """
    Whatever an application does before and after its save fails, the error page
    is the same (but for a C{Server} header that it took away).
    """
    assume("remove" not in before)
    resource, captured, store = memory("create")
    empty, _ = driven(
        resource,
        captured,
        line,
        ["write a", ANSWER],
        lambda: store.waiting[0].fail(StoreUnavailable("down")),
    )
    resource, captured, store = memory("create")
    received, _ = driven(
        resource,
        captured,
        line,
        [*before, "write a", ANSWER, *after],
        lambda: store.waiting[0].fail(StoreUnavailable("down")),
    )
    assert comparable(received) == comparable(empty)
    assert b"503 Service Unavailable\r\n" in received
    assert b"connect.sid=" not in received


@pytest_twisted.ensureDeferred
async def test_aLateSaveThatFailsIsLoggedThoughTheClientHasGone(serve, logged):
    """
    A save at the end of a response that fails is logged also if nobody is there
    any more to be told by a broken connection.
    """
    store = StepStore(MemoryStore(reactor=clockAt()))
    gone: Deferred[Any] = Deferred()

    def page(request):
        session = getSession(request)
        session["n"] = session.get("n", 0) + 1
        if session["n"] > 1:
            request.notifyFinish().addErrback(lambda _: gone.callback(None))
            request.write(b"one")
            session["n"] = 10
            store.held = {"replace"}
            request.finish()
            return NOT_DONE_YET
        return b"first"

    served = serve(page, store=store)
    browser = served.browser()
    await browser.get()
    connection = await browser.connect()
    cookie = f"connect.sid={browser.cookies['connect.sid']}".encode()
    connection.transport.write(
        b"GET / HTTP/1.1\r\nHost: a\r\nCookie: " + cookie + b"\r\n\r\n"
    )
    call = await store.called("replace")
    connection.transport.abortConnection()
    await gone
    call.fail(StoreUnavailable("down"))
    failures = [e["log_failure"].value for e in logged if "log_failure" in e]
    assert [type(failure) for failure in failures] == [StoreUnavailable]


@pytest_twisted.ensureDeferred
async def test_aPushProducerThatIsStartedAgainIsPausedAgain(serve):
    """
    A push producer that is started by hand after it was paused is paused with each
    write once a MiB is held.
    """
    store = StepStore(MemoryStore(reactor=clockAt()), {"create"})
    chunk = b"x" * 2**16
    sent: list[int] = []

    class Eager:
        isPaused = True

        def __init__(self, request: Any) -> None:
            self.request = request

        def resumeProducing(self) -> None:
            self.isPaused = False
            while not self.isPaused and len(sent) < 200:
                sent.append(len(chunk))
                self.request.write(chunk)
            if len(sent) == 200:
                self.request.unregisterProducer()
                self.request.finish()

        def pauseProducing(self) -> None:
            self.isPaused = True

        def stopProducing(self) -> None:
            self.isPaused = True

    def page(request):
        getSession(request)["n"] = 1
        request.write(b"first")
        producer = Eager(request)
        request.registerProducer(producer, True)
        producer.resumeProducing()
        return NOT_DONE_YET

    served = serve(page, store=store)
    visiting = ensureDeferred(served.browser().get())
    call = await store.called("create")
    assert sum(sent) <= 2**20 + len(chunk)
    call.release()
    assert (await visiting).body == b"first" + chunk * 200
