"""
Requests with a session, to call handlers with.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, TypeVar, cast
from urllib.parse import unquote_to_bytes, urlencode
from weakref import ReferenceType

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from ..cookies import CookieOptions
from ..resource import SessionResource
from ..session import ISession, Session
from ..stores.memory import MemoryStore

__all__ = ["HandlerRequest", "requestWith"]

T = TypeVar("T")

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
    its methods work, and at once; what they do is seen in it.  No time passes for
    it.  It is not saved by itself, and there is no cookie: for that, send a request
    through a L{SessionResource <txsession.SessionResource>}.

    @param path: what is asked for, with its query if it has one.
    @param session: the session's data.  Empty: the session is new.  Or the session
        of an earlier request, which goes on in this one; what it has not yet saved
        is saved first, as at the end of a response.  If it was destroyed, this one
        is new.  L{None}: the request has no session.
    @param args: the fields of a form; the method is then C{"POST"} unless it is
        given.  In other words: what C{request.args} holds, as text.
    @param body: the body, if it is not a form's.
    @param headers: the headers of the request, C{"Host"} and C{"Content-Type"}
        included where the usual ones will not do.
    @param secure: whether it comes over HTTPS.
    @return: a C{twisted.web.server.Request} that keeps what is written to it: in
        C{written}, which is C{bytes}; it has C{code} and C{responseHeaders}; and
        C{whenFinished()} fires with it when it is finished.
    @raise ValueError: C{path} is none.
    @raise SessionDataError: C{session} holds something that JSON cannot.
    @raise SessionError: the earlier session cannot be saved.
    """
    if not path.startswith("/"):
        raise ValueError(f"a path begins with a slash, as in '/{path}'; not {path!r}")
    content, sent = body, {"Host": "localhost"}
    if args is not None:
        content = urlencode(args, doseq=True).encode("ascii")
        sent["Content-Type"] = "application/x-www-form-urlencoded"
        method = "POST" if method == "GET" else method
    sent["Content-Length"] = str(len(content))
    request = HandlerRequest(secure)
    request.receive(method, path, {**sent, **(headers or {})}, content)
    if session is not None:
        request.setComponent(ISession, _sessionFor(request, session))  # type: ignore[no-untyped-call]
    return request


def _sessionFor(request: Request, source: Mapping[str, Any] | Session) -> Session:
    if isinstance(source, Session):
        if source._barrier is None and source.isModified:
            _now(source.save())
        return _goneOnWith(request, source)
    clock = Clock()
    clock.advance(time.time())
    resource = SessionResource(
        Resource(), secret="test", store=MemoryStore(reactor=clock), reactor=clock
    )
    first = Session(resource._exchange, CookieOptions(), _kept(request))
    if not source:
        return first
    first.update(source)
    _now(first.save())
    return _goneOnWith(request, first)


def _goneOnWith(request: Request, earlier: Session) -> Session:
    """
    The session of an earlier request in this one.
    """
    exchange = earlier._exchange
    session = Session(exchange, CookieOptions(), _kept(request))
    if earlier._sid is not None:
        record: Any = exchange.fetch(earlier._sid)
        exchange.furnish(session, earlier._sid, record)
    return session


def _kept(request: Request) -> ReferenceType[Any]:
    # Not a weak one: a test may hold on to nothing but the session.
    return cast("ReferenceType[Any]", lambda: request)


def _now(done: Deferred[T]) -> T:
    """
    What a Deferred has fired with.

    @raise Exception: what it has failed with.
    """
    results: list[Any] = []
    done.addBoth(results.append)
    [result] = results
    if isinstance(result, Failure):
        result.raiseException()
    given: T = result
    return given


class HandlerRequest(Request):
    """
    A request that nobody sent.
    """

    def __init__(self, isSecure: bool) -> None:
        self._connection = _Connection(isSecure)
        super().__init__(self._connection)  # type: ignore[no-untyped-call]

    @property
    def written(self) -> bytes:
        """
        The body of the response so far.
        """
        return self._connection.body

    def receive(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> None:
        """
        Be a request for this.
        """
        for name, value in headers.items():
            self.requestHeaders.setRawHeaders(name, [value])
        received: Any = self
        received.parseCookies()
        received.gotLength(len(body))
        received.handleContentChunk(body)
        # In HTTP/1.1, the body of the response would be cut into chunks.
        received.requestReceived(method.encode(), path.encode(), b"HTTP/1.0")

    def process(self) -> None:
        """
        Nothing: the test calls the handler.
        """
        self.site = self._connection.site
        self.prepath: list[bytes] = []
        self.postpath = [unquote_to_bytes(part) for part in self.path[1:].split(b"/")]

    def whenFinished(self) -> Deferred[HandlerRequest]:
        """
        Fires with this request when it is finished.  Fails with what
        C{connectionLost} is called with, if that comes first.
        """
        if self.finished:
            return succeed(self)
        finished: Deferred[None] = self.notifyFinish()
        return finished.addCallback(lambda _: self)


class _Connection:
    """
    As much of a connection as a request needs that nobody sent.

    @ivar body: what was written to it, without headers.
    """

    def __init__(self, isSecure: bool) -> None:
        self.body = b""
        self.site = Site(Resource())
        self.transport = self
        self._isSecure = isSecure
        self._pulled: Any = None
        self._isPulling = False
        self._isWritten = False

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 54321)

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 443 if self._isSecure else 80)

    def isSecure(self) -> bool:
        return self._isSecure

    def writeHeaders(self, *_: object) -> None:
        pass

    def write(self, data: bytes) -> None:
        self.body += data
        self._isWritten = True
        self._pull()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if not streaming:
            self._pulled, self._isWritten = producer, True
            self._pull()

    def unregisterProducer(self) -> None:
        self._pulled = None

    def _pull(self) -> None:
        """
        Ask who produces on demand for more, each time that something was written.
        """
        if self._isPulling:
            return
        self._isPulling = True
        while self._pulled is not None and self._isWritten:
            self._isWritten = False
            self._pulled.resumeProducing()
        self._isPulling = False

    def requestDone(self, request: object) -> None:
        pass

    def loseConnection(self) -> None:
        pass
