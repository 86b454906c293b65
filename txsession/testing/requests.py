"""
Requests with a session, to call handlers with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode
from weakref import ref

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from ..cookies import CookieOptions
from ..resource import SessionResource
from ..session import ISession, Session
from ..stores.memory import MemoryStore

__all__ = ["HandlerRequest", "requestWith"]

NEW: Mapping[str, Any] = {}


def requestWith(
    path: str = "/",
    *,
    session: Mapping[str, Any] | Session | None = NEW,
    method: str = "GET",
    args: Mapping[str, str | list[str]] | None = None,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    secure: bool = False,
) -> HandlerRequest:
    """
    Make a request with a session, to call a handler with.

    The session is a real one, in a L{MemoryStore <txsession.MemoryStore>}, so that
    its methods work, and at once; what they do is seen in it.  It is not saved by
    itself, and there is no cookie: for that, send a request through a
    L{SessionResource <txsession.SessionResource>}.

    @param path: what is asked for, with its query if it has one.
    @param session: the session's data.  Empty: the session is new.  Or the session
        of an earlier request, which goes on in this one.  L{None}: the request has
        no session.
    @param args: the fields of a form; the method is then C{"POST"} unless it is
        given.  In other words: what C{request.args} holds, as text.
    @param body: the body, if it is not a form's.
    @param secure: whether it comes over HTTPS.
    @return: a C{twisted.web.server.Request} that keeps what is written to it: in
        C{written}, which is C{bytes}; it has C{code} and C{responseHeaders}; and
        C{whenFinished()} fires with it when it is finished.
    @raise SessionDataError: C{session} holds something that JSON cannot.
    """
    request = HandlerRequest(secure)
    content = body
    for name, value in (headers or {}).items():
        request.requestHeaders.addRawHeader(name, value)
    if args is not None:
        content = urlencode(args, doseq=True).encode("ascii")
        request.requestHeaders.setRawHeaders(
            "Content-Type", ["application/x-www-form-urlencoded"]
        )
        method = "POST" if method == "GET" else method
    request.requestHeaders.setRawHeaders("Host", ["localhost"])
    request.requestHeaders.setRawHeaders("Content-Length", [str(len(content))])
    receiving: Any = request
    receiving.gotLength(len(content))
    receiving.handleContentChunk(content)
    receiving.requestReceived(method.encode("ascii"), path.encode("ascii"), b"HTTP/1.1")
    if session is not None:
        receiving.setComponent(ISession, _sessionFor(request, session))
    return request


def _sessionFor(request: Any, source: Mapping[str, Any] | Session) -> Session:
    if isinstance(source, Session):
        return _goneOnWith(request, source)
    clock = Clock()
    resource = SessionResource(
        Resource(), secret="test", store=MemoryStore(reactor=clock), reactor=clock
    )
    first = Session(resource._exchange, CookieOptions(), ref(request))
    if not source:
        return first
    first.update(source)
    first.save()
    return _goneOnWith(request, first)


def _goneOnWith(request: Any, earlier: Session) -> Session:
    """
    The session of an earlier request in this one.
    """
    exchange = earlier._exchange
    session = Session(exchange, CookieOptions(), ref(request))
    sid = earlier._sid
    record: Any = None if sid is None else exchange.fetch(sid)
    exchange.furnish(session, sid or "", record)
    return session


class _Channel:
    """
    As much of a connection as a request needs that nobody sent.
    """

    def __init__(self, isSecure: bool) -> None:
        self._isSecure = isSecure
        self.site = Site(Resource())

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 54321)

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 443 if self._isSecure else 80)

    def isSecure(self) -> bool:
        return self._isSecure

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        producer.resumeProducing()

    def unregisterProducer(self) -> None:
        pass

    def loseConnection(self) -> None:
        pass


class HandlerRequest(Request):
    """
    A request that nobody sent.

    @ivar written: the body of the response so far.
    """

    def __init__(self, isSecure: bool) -> None:
        self.written = b""
        channel = _Channel(isSecure)
        super().__init__(channel, queued=False)  # type: ignore[no-untyped-call]
        self.site = channel.site
        self.requestHeaders = Headers()

    def process(self) -> None:
        """
        Nothing: the test calls the handler.
        """
        self.prepath: list[bytes] = []
        self.postpath = self.path.split(b"/")[1:]

    def write(self, data: bytes) -> None:
        """
        Keep a part of the body.
        """
        self.startedWriting = 1
        self.written += data

    def finish(self) -> None:
        """
        The response is whole.
        """
        self.finished = 1
        notifications, self.notifications = self.notifications, []
        for each in notifications:
            each.callback(None)

    def render(self, resource: Any) -> None:
        """
        Have a resource answer.
        """
        body = resource.render(self)
        if body is not NOT_DONE_YET:
            self.write(body)
            self.finish()

    def whenFinished(self) -> Deferred[HandlerRequest]:
        """
        Fires with this request when it is finished.
        """
        if self.finished:
            return succeed(self)
        finished: Deferred[None] = self.notifyFinish()
        return finished.addCallback(lambda _: self)
