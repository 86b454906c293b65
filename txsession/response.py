"""
Holds a response back until its session is saved.

Theory of operation
===================

A session has to be saved before its response leaves, but which status, headers
and cookies a response has is only known when the application first writes to it
or finishes it.  So that call is intercepted, and what follows it waits.

This is the only file that touches a request's insides.  It does so by changing
the request's class.  Each stage of a response is a subclass, made once for each
class of request, that overrides just what it has to:

    Loading ---> Undecided ---> Held ---> Settled ---> (the request's own class)
       |             |           |           |
       |             |           |           +--> Ending --> (its own class)
       |             +-----------+--> Failed
       +--> (its own class)

  - C{Loading}: the store is being asked for the session; the application has
    not been called.
  - C{Undecided}: the application is at work and has written nothing.  Its first
    C{write} or C{finish} decides.  If the store answers at once, the next stage
    is C{Settled} before that call goes on, and nothing is buffered.
  - C{Held}: the store is saving.  Status, reason and headers are set aside as
    they were; what the application does to them now has no effect, as it would
    have none after a C{write} that went out.  Body and C{finish} are kept in
    order.
  - C{Settled}: the headers are on their way.  C{finish} looks whether the
    session was changed since.
  - C{Ending}: it was, and is being saved; the end of the response waits.
  - C{Failed}: the save failed.  An error page has taken the place of the
    response, and what the application still does to it is ignored.

Why not hooks on the instance?  A bound method or a closure that is stored on a
request refers back to it.  Such a cycle keeps each request, with its headers and
body, until the garbage collector comes by, which costs more time than verifying
a signature.  A class refers to no instance.  For the same reason everything here
that waits is a callback, held by the Deferred it waits for and not by the request.

A producer is not allowed to fill memory while the response is held.  One that is
registered already is taken off the channel, and a push producer is paused; one
that is registered meanwhile is not passed on.  All of that is made good when the
response is flushed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource, _IEncodingResource, getChildForRequest

from .backend import isOutage
from .exchange import NOTHING, Outcome
from .session import ISession, Session

__all__ = ["Responder", "attach", "isTaken", "load", "pass_", "render"]

_log = Logger()

ReplyWith = Callable[[Any, Failure], None]


@define(eq=False)
class Responder:
    """
    What a response needs to know beyond its session.

    @ivar fail: called with a request to answer, whose status is set and whose
        headers are fresh, and the failure, when a load or save has failed.
    @ivar cacheHeaders: the option.
    """

    fail: ReplyWith
    cacheHeaders: bool


@define(eq=False)
class _Held:
    """
    A response as it was at its first write, and what has been written since.
    """

    code: int
    message: bytes
    headers: Headers
    cookies: list[bytes]
    lastModified: Any
    etag: Any
    body: list[bytes] = field(factory=list)
    isFinished: bool = False

    @classmethod
    def of(cls, request: Any) -> _Held:
        return cls(
            request.code,
            request.code_message,
            request.responseHeaders.copy(),
            list(request.cookies),
            request.lastModified,
            request.etag,
        )

    def restore(self, request: Any) -> None:
        request.code = self.code
        request.code_message = self.message
        request.responseHeaders = self.headers
        request.cookies = self.cookies
        request.lastModified = self.lastModified
        request.etag = self.etag


def isTaken(request: Any) -> bool:
    """
    Whether a L{SessionResource <txsession.SessionResource>} has taken this
    request already.
    """
    return hasattr(request, "_txsession")


def pass_(request: Any) -> None:
    """
    Take a request without giving it a session.
    """
    request._txsession = None


def attach(request: Any, session: Session, responder: Responder) -> None:
    """
    Give a request its session and watch over its response.
    """
    request._txsession = session
    request._txresponder = responder
    request.setComponent(ISession, session)
    request.__class__ = _stages(_own(request)).Undecided


def render(request: Any, wrapped: IResource) -> None:
    """
    Have the wrapped resource answer, as it would by itself.
    """
    resource = getChildForRequest(wrapped, request)
    if hasattr(resource, "getEncoder") and _IEncodingResource.providedBy(resource):
        request._encoder = resource.getEncoder(request) or request._encoder
    request.render(resource)


def load(
    request: Any,
    loading: Deferred[Any],
    loaded: Callable[[Any, Any], None],
    failed: ReplyWith,
) -> None:
    """
    Go on with a request when its session has been read.

    @param loading: cancelled if the client goes away.
    @param loaded: called with the request and what C{loading} fired with; an
        exception it raises is shown as one of the wrapped resource would be.
    @param failed: called with the request and the failure.
    """

    def succeeded(result: Any) -> None:
        if request._disconnected:
            return
        _restore(request)
        try:
            loaded(request, result)
        except BaseException:
            request.processingFailed(Failure())

    def errored(failure: Failure) -> None:
        if not request._disconnected:
            _restore(request)
            refuse(request, failure, failed)

    request._txsession = None
    request._txloading = loading
    request.__class__ = _stages(_own(request)).Loading
    loading.addCallbacks(succeeded, errored)
    loading.addErrback(_logUnexpected)


def refuse(request: Any, failure: Failure, failed: ReplyWith) -> None:
    """
    Have a request answered whose session could not be loaded.

    @param failed: called with the request, which is as good as new but for its
        status, and the failure.
    """
    request._txsession = None
    _clear(request, failure)
    failed(request, failure)


def _logUnexpected(failure: Failure) -> None:
    _log.failure("A held response could not be handled.", failure)


def _own(request: Any) -> Any:
    """
    The class that a request has by itself.
    """
    kind = type(request)
    return getattr(kind, "_txown", kind)


def _restore(request: Any) -> None:
    request.__class__ = _own(request)
    request.__dict__.pop("_txloading", None)


def _clear(request: Any, failure: Failure) -> None:
    """
    Leave nothing of a response that must not be sent, and set the status of the
    one that takes its place.
    """
    fresh = Headers()
    for name in (b"server", b"date", b"connection"):
        fresh.setRawHeaders(name, request.responseHeaders.getRawHeaders(name, []))
    request.responseHeaders = fresh
    request.cookies = []
    request.lastModified = request.etag = request._encoder = None
    request.setResponseCode(503 if isOutage(failure.value) else 500)


def _dress(request: Any, outcome: Outcome) -> None:
    """
    Add the session's headers to those of the application.
    """
    headers = request.responseHeaders
    cookie = outcome.setCookie
    if request.cookies:
        # Twisted would replace the header with this list.
        request.cookies = headers.getRawHeaders(b"set-cookie", []) + request.cookies
        if cookie is not None:
            request.cookies.append(cookie.encode("ascii"))
    elif cookie is not None:
        headers.addRawHeader("Set-Cookie", cookie)
    if not request._txresponder.cacheHeaders:
        return
    if outcome.varies and not _variesByCookie(headers):
        headers.addRawHeader("Vary", "Cookie")
    if cookie is not None and not headers.hasHeader("Cache-Control"):
        headers.addRawHeader("Cache-Control", 'private, no-cache="Set-Cookie"')


def _variesByCookie(headers: Headers) -> bool:
    return any(
        name.strip().lower() in ("cookie", "*")
        for value in headers.getRawHeaders("Vary", [])
        for name in value.split(",")
    )


def _settle(request: Any) -> None:
    """
    The moment of decision.
    """
    session: Session = request._txsession
    outcome = session._exchange.settle(session)
    if isinstance(outcome, Deferred):
        _hold(request)
        outcome.addCallbacks(
            lambda outcome: _flush(request, outcome),
            lambda failure: _fail(request, failure),
        ).addErrback(_logUnexpected)
    elif isinstance(outcome, Failure):
        _fail(request, outcome)
    else:
        own = _own(request)
        if outcome is not NOTHING:
            _dress(request, outcome)
            own = _stages(own).Settled
        request.__class__ = own


def _hold(request: Any) -> None:
    request._txheld = _Held.of(request)
    producer = request.producer
    if producer is not None:
        request.channel.unregisterProducer()
        if request.streamingProducer:
            producer.pauseProducing()
    request.__class__ = _stages(_own(request)).Held


def _flush(request: Any, outcome: Outcome) -> None:
    if request._disconnected:
        return
    held: _Held = request.__dict__.pop("_txheld")
    held.restore(request)
    _dress(request, outcome)
    stages = _stages(_own(request))
    request.__class__ = stages.Settled
    for data in held.body:
        request.write(data)
    if request._disconnected:
        return
    if held.isFinished:
        request.finish()
    elif request.producer is not None:
        producer, streaming = request.producer, request.streamingProducer
        request.channel.registerProducer(producer, streaming)
        if streaming:
            producer.resumeProducing()


def _fail(request: Any, failure: Failure) -> None:
    """
    Send an error page in place of a response that must not be sent.
    """
    own = _own(request)
    request.__dict__.pop("_txheld", None)
    producer = request.producer
    if producer is not None:
        if type(request) is not _stages(own).Held:
            request.channel.unregisterProducer()
        request.producer = None
    request.__class__ = _stages(own).Failed
    if producer is not None:
        producer.stopProducing()
    if request._disconnected:
        return
    _clear(request, failure)
    request._txresponder.fail(_twin(request), failure)


def _twin(request: Any) -> Any:
    """
    A second handle on the same request, for who writes the error page: what it
    does goes through, while what the application does to the first is ignored.
    """
    twin = object.__new__(_stages(_own(request)).Twin)
    twin.__dict__ = request.__dict__
    twin._txoriginal = request
    return twin


def _endLate(request: Any, outcome: Failure | None) -> None:
    if request._disconnected:
        return
    request.__class__ = _own(request)
    if not isinstance(outcome, Failure):
        request.finish()
        return
    _log.failure(
        "The session could not be saved again at the end of the response, which "
        "is therefore cut short.",
        outcome,
    )
    # A chunked response shows by its missing last chunk that it is not whole;
    # any other has to be broken off.
    channel = request.channel
    if request.chunked:
        channel.loseConnection()
        return
    channel.abortConnection()
    if not request._disconnected and request.clientproto == b"HTTP/2":
        request.connectionLost(Failure(ConnectionAborted()))


class _Stages:
    """
    The stages of a response to requests of one class.
    """

    Loading: type[Any]
    Undecided: type[Any]
    Held: type[Any]
    Settled: type[Any]
    Ending: type[Any]
    Failed: type[Any]
    Twin: type[Any]


@cache
def _stages(own: Any) -> _Stages:
    stages = _Stages()

    def stage(kind: type[Any]) -> type[Any]:
        # To everybody else it goes on being what it is.
        kind.__module__, kind.__doc__ = own.__module__, own.__doc__
        setattr(stages, kind.__name__, kind)
        kind.__name__, kind.__qualname__ = own.__name__, own.__qualname__
        return kind

    @stage
    class Loading(own):  # type: ignore[misc]
        _txown = own

        def connectionLost(self, reason: Failure) -> None:
            loading = self._txloading
            _restore(self)
            self.connectionLost(reason)
            loading.cancel()

    class Attended(own):  # type: ignore[misc]
        """
        A request with a session, whose component may be taken away.
        """

        _txown = own

        def setComponent(self, interfaceClass: Any, component: Any) -> None:
            own.setComponent(self, interfaceClass, component)
            if interfaceClass is ISession:
                self._txsession._unset = component is None

        def unsetComponent(self, interfaceClass: Any) -> None:
            own.unsetComponent(self, interfaceClass)
            if interfaceClass is ISession:
                self._txsession._unset = True

    @stage
    class Undecided(Attended):
        def write(self, data: bytes) -> None:
            if not self._isOver():
                _settle(self)
                self.write(data)
            else:
                own.write(self, data)

        def finish(self) -> None:
            if not self._isOver():
                _settle(self)
                self.finish()
            else:
                own.finish(self)

        def _isOver(self) -> bool:
            # A HEAD that Twisted serves by GET writes for the count of it.
            return bool(self._inFakeHead or self._disconnected or self.finished)

        def processingFailed(self, reason: Failure) -> Failure:
            trouble = self._txsession._trouble
            if trouble is None or reason.value is not trouble:
                own.processingFailed(self, reason)
            else:
                _fail(self, reason)
            return reason

    @stage
    class Held(Attended):
        producer: Any

        def write(self, data: bytes) -> None:
            if self._txheld.isFinished:
                raise RuntimeError(_WRITE_AFTER_FINISH)
            if not isinstance(data, (bytes, bytearray, memoryview)):
                raise TypeError(f"Data must be bytes, not {type(data).__name__}")
            self._txheld.body.append(bytes(data))

        def finish(self) -> None:
            self._txheld.isFinished = True

        def registerProducer(self, producer: Any, streaming: bool) -> None:
            if self.producer is not None:
                raise ValueError(
                    f"registering producer {producer} before previous one "
                    f"({self.producer}) was unregistered"
                )
            self.producer = producer
            self.streamingProducer = streaming
            if streaming:
                producer.pauseProducing()

        def unregisterProducer(self) -> None:
            self.producer = None

        def processingFailed(self, reason: Failure) -> Failure:
            if self._txheld.isFinished:
                _log.failure("", reason)
            else:
                own.processingFailed(self, reason)
            return reason

        def connectionLost(self, reason: Failure) -> None:
            producer, self.producer = self.producer, None
            del self._txheld
            self.__class__ = own
            self.connectionLost(reason)
            if producer is not None:
                producer.stopProducing()

    @stage
    class Settled(Attended):
        def finish(self) -> None:
            if self._disconnected or self.finished:
                own.finish(self)
                return
            session = self._txsession
            outcome = session._exchange.settleLate(session)
            if isinstance(outcome, Deferred):
                self.__class__ = stages.Ending
                outcome.addBoth(lambda result: _endLate(self, result))
                outcome.addErrback(_logUnexpected)
            else:
                _endLate(self, outcome)

    @stage
    class Ending(own):  # type: ignore[misc]
        _txown = own

        def write(self, data: bytes) -> None:
            raise RuntimeError(_WRITE_AFTER_FINISH)

        def finish(self) -> None:
            pass

        def connectionLost(self, reason: Failure) -> None:
            self.__class__ = own
            self.connectionLost(reason)

    @stage
    class Failed(own):  # type: ignore[misc]
        _txown = own

        def write(self, data: bytes) -> None:
            pass

        def finish(self) -> None:
            pass

        def registerProducer(self, producer: Any, streaming: bool) -> None:
            producer.stopProducing()

        def unregisterProducer(self) -> None:
            pass

        def processingFailed(self, reason: Failure) -> Failure:
            _log.failure("", reason)
            return reason

    @stage
    class Twin(own):  # type: ignore[misc]
        # What this names is not in the attributes that it shares.
        __slots__ = ("_txoriginal",)
        _txown = own

        def _cleanup(self) -> None:
            # The channel knows the request by its identity.
            own._cleanup(self._txoriginal)

    return stages


_WRITE_AFTER_FINISH = (
    "Request.write called on a request after Request.finish was called."
)
