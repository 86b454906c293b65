"""
Holds a response back until its session is saved.

Theory of operation
===================

A session has to be saved before its response leaves, but which status, headers
and cookies a response has is only known when the application first writes to it
or finishes it.  So that call is intercepted, and what follows it waits.

This is the only file that touches a request's insides.  The request's class is
changed to a subclass of its own, made once for each class of request, whose
methods ask the response's I{stage} what to do.  The stages, and how one follows
another::

    Loading ---> Undecided ---> Held ---> Settled ---> Passed
       |             |           |           |           |
       |             |           |           +-> Ending -+
       v             +-----------+-> Failed
    (its own class)

  - C{Loading}: the store is being asked for the session; the application has
    not been called.
  - C{Undecided}: the application is at work and has written nothing.  Its first
    C{write} or C{finish} decides.  If the store answers at once, the stage is
    C{Settled} before that call goes on, and nothing is buffered.
  - C{Held}: the store is saving.  Status, reason and headers are set aside as
    they were; what the application does to them now has no effect, as it would
    have none after a C{write} that went out.  Body and C{finish} are kept in
    order.
  - C{Settled}: the headers are on their way.  C{finish} looks whether the
    session was changed since.
  - C{Ending}: it was, and is being saved; the end of the response waits.
  - C{Passed}: nothing more is to be done, and the request has its own class
    again.  Where there is nothing to decide, this follows C{Undecided}.
  - C{Failed}: the save failed.  An error page has taken the place of the
    response, and what the application still does to it is ignored.

Why a class, and not hooks on the instance?  A bound method or a closure that is
stored on a request refers back to it.  Such a cycle keeps each request, with its
headers and body, until the garbage collector comes by, which costs more time
than verifying a signature.  A class refers to no instance, and neither does a
stage.  For the same reason everything here that waits is a callback, held by the
Deferred it waits for and not by the request.

Why a stage, and not a class for each?  Applications keep bound methods: what
C{finish = request.finish} calls has to know the stage at the time of the call.

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
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import NO_BODY_CODES, datetimeToString
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource, _IEncodingResource, getChildForRequest
from twisted.web.server import version
from zope.interface import implementer

from .backend import isOutage
from .exchange import NOTHING, Outcome
from .session import ISession, Session

__all__ = [
    "Responder",
    "attach",
    "cutShort",
    "isTaken",
    "load",
    "pass_",
    "refuse",
    "render",
]

_log = Logger()

MAX_HELD = 2**20
"""
From how many held bytes on a push producer is paused with each write.
"""

ReplyWith = Callable[[Any, Failure], None]


# What the resource asks for.


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
    _watch(request)


def attach(request: Any, session: Session, responder: Responder) -> None:
    """
    Give a request its session and watch over its response.
    """
    watch = getattr(request, "_txsession", None)
    if watch is None:
        watch = request._txsession = _Watch()
    watch.session = session
    watch.responder = responder
    request.setComponent(ISession, session)
    stages = _stagesOf(request, watch)
    watch.stage = stages.undecided
    request.__class__ = stages.attended


def render(request: Any, wrapped: IResource) -> None:
    """
    Have the wrapped resource answer, as it would by itself.
    """
    resource = wrapped if wrapped.isLeaf else getChildForRequest(wrapped, request)
    # Twisted asks the outermost resource only, and has done so.
    if (
        hasattr(resource, "getEncoder")
        and request._encoder is None
        and _IEncodingResource.providedBy(resource)
    ):
        request._encoder = resource.getEncoder(request)
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
        if request._disconnected or request.finished:
            return
        _leave(request)
        try:
            loaded(request, result)
        except BaseException:
            request.processingFailed(Failure())

    def errored(failure: Failure) -> None:
        if request._disconnected or request.finished:
            if not failure.check(CancelledError):
                _log.failure("A session could not be loaded in time.", failure)
            failure.cleanFailure()
            return
        _leave(request)
        failed(request, failure)

    watch = _watch(request)
    watch.loading = loading
    _enter(request, watch, _stagesOf(request, watch).loading)
    loading.addCallbacks(succeeded, errored)
    loading.addErrback(_giveUp, request)


def refuse(request: Any, failure: Failure, fail: ReplyWith) -> None:
    """
    Have a request answered whose session could not be loaded.

    @param fail: called with the request, as good as new but for its status, and
        the failure.
    """
    _watch(request)
    _clear(request, failure)
    fail(request, failure)


class _Watch:
    """
    All that is kept on a request: one object under one name.  A second name
    would cost the request the attribute table that it shares with others of its
    class, which is more than all that is done with it.

    @ivar session: the request's session, L{None} while it is loaded or if there
        is none.
    @ivar responder: see L{Responder}.
    @ivar stage: the stage of the response.
    @ivar loading: what is waited for while the session is loaded.
    @ivar held: the response that is held.
    @ivar scratch: what the application does to a response that has failed.
    @ivar patches: methods that were replaced on the instance.
    """

    session: Session | None = None
    responder: Any = None
    stage: Any = None
    loading: Deferred[Any] | None = None
    held: _Response | None = None
    scratch: _Response | None = None
    patches: dict[str, Any] | None = None


def _watch(request: Any) -> _Watch:
    watch: _Watch | None = getattr(request, "_txsession", None)
    if watch is None:
        watch = request._txsession = _Watch()
    return watch


# The stages.


class _Stage:
    """
    What a response does at some stage of it; at this one, what it would do by
    itself.

    @ivar own: the class that the requests have by themselves.
    @ivar stages: the other stages.
    """

    def __init__(self, own: Any, stages: _Stages) -> None:
        self.own = own
        self.stages = stages

    def write(self, request: Any, data: bytes) -> None:
        self.own.write(request, data)

    def finish(self, request: Any) -> None:
        self.own.finish(request)

    def registerProducer(self, request: Any, producer: Any, streaming: bool) -> None:
        self.own.registerProducer(request, producer, streaming)

    def unregisterProducer(self, request: Any) -> None:
        self.own.unregisterProducer(request)

    def processingFailed(self, request: Any, reason: Failure) -> None:
        self.own.processingFailed(request, reason)

    def connectionLost(self, request: Any, reason: Failure) -> None:
        self.own.connectionLost(request, reason)


class _Loading(_Stage):
    def connectionLost(self, request: Any, reason: Failure) -> None:
        loading = request._txsession.loading
        _leave(request)
        self.own.connectionLost(request, reason)
        loading.cancel()


class _Undecided(_Stage):
    def write(self, request: Any, data: bytes) -> None:
        # A HEAD that Twisted serves by GET writes for the count of it.
        if request._inFakeHead or request._disconnected or request.finished:
            self.own.write(request, data)
        else:
            self._settle(request)
            request._txsession.stage.write(request, data)

    def finish(self, request: Any) -> None:
        if request._inFakeHead or request._disconnected or request.finished:
            self.own.finish(request)
        else:
            self._settle(request)
            request._txsession.stage.finish(request)

    def processingFailed(self, request: Any, reason: Failure) -> None:
        trouble = request._txsession.session._trouble
        if trouble is None or reason.value is not trouble:
            self.own.processingFailed(request, reason)
        else:
            _fail(request, reason)

    def _settle(self, request: Any) -> None:
        """
        The moment of decision.
        """
        session = request._txsession.session
        outcome = session._exchange.settle(session)
        if outcome is NOTHING:
            _pass(request)
        elif isinstance(outcome, Outcome):
            _dress(request, outcome)
            request._txsession.stage = self.stages.settled
        elif isinstance(outcome, Deferred):
            _hold(request)
            outcome.addCallbacks(
                lambda outcome: _flush(request, outcome),
                lambda failure: _fail(request, failure),
            )
            outcome.addErrback(_giveUp, request)
        else:
            _fail(request, outcome)


class _Held(_Stage):
    def write(self, request: Any, data: bytes) -> None:
        if request._txsession.held.isFinished:
            raise RuntimeError(_WRITE_AFTER_FINISH)
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"Data must be bytes, not {type(data).__name__}")
        held = request._txsession.held
        held.body.append(bytes(data))
        held.size += len(data)
        if held.size > MAX_HELD and request.producer and request.streamingProducer:
            # It was started again after it had been paused.
            request.producer.pauseProducing()

    def finish(self, request: Any) -> None:
        request._txsession.held.isFinished = True

    def registerProducer(self, request: Any, producer: Any, streaming: bool) -> None:
        if request.producer is not None:
            raise ValueError(
                f"registering producer {producer} before previous one "
                f"({request.producer}) was unregistered"
            )
        request.producer = producer
        request.streamingProducer = streaming
        if streaming:
            producer.pauseProducing()

    def unregisterProducer(self, request: Any) -> None:
        request.producer = None

    def processingFailed(self, request: Any, reason: Failure) -> None:
        if request._txsession.held.isFinished:
            _log.failure("", reason)
        else:
            self.own.processingFailed(request, reason)

    def connectionLost(self, request: Any, reason: Failure) -> None:
        producer, request.producer = request.producer, None
        request._txsession.held = None
        _pass(request)
        self.own.connectionLost(request, reason)
        _stop(producer)


class _Settled(_Stage):
    def finish(self, request: Any) -> None:
        if request._disconnected or request.finished:
            self.own.finish(request)
            return
        session = request._txsession.session
        outcome = session._exchange.settleLate(session)
        if outcome is None:
            _pass(request)
            self.own.finish(request)
        elif isinstance(outcome, Deferred):
            request._txsession.stage = self.stages.ending
            outcome.addBoth(lambda result: _end(request, result))
            outcome.addErrback(_giveUp, request)
        else:
            _end(request, outcome)


class _Ending(_Stage):
    def write(self, request: Any, data: bytes) -> None:
        raise RuntimeError(_WRITE_AFTER_FINISH)

    def finish(self, request: Any) -> None:
        pass

    def processingFailed(self, request: Any, reason: Failure) -> None:
        _log.failure("", reason)

    def connectionLost(self, request: Any, reason: Failure) -> None:
        _pass(request)
        self.own.connectionLost(request, reason)


class _Failed(_Stage):
    def write(self, request: Any, data: bytes) -> None:
        pass

    def finish(self, request: Any) -> None:
        pass

    def registerProducer(self, request: Any, producer: Any, streaming: bool) -> None:
        producer.stopProducing()

    def unregisterProducer(self, request: Any) -> None:
        pass

    def processingFailed(self, request: Any, reason: Failure) -> None:
        _log.failure("", reason)


class _Stages:
    """
    The stages of responses to requests of one class, and the classes that such
    requests are given.
    """

    def __init__(self, own: Any) -> None:
        self.own = own
        self.attended = _attended(own)
        self.twin = _twinOf(getattr(own, "_txunpatched", own))
        self.refused = _refused(self.attended, own)
        self.loading = _Loading(own, self)
        self.undecided = _Undecided(own, self)
        self.held = _Held(own, self)
        self.settled = _Settled(own, self)
        self.ending = _Ending(own, self)
        self.passed = _Stage(own, self)
        self.failed = _Failed(own, self)


@cache
def _stages(own: Any) -> _Stages:
    return _Stages(own)


def _stagesOf(request: Any, watch: _Watch) -> _Stages:
    kind = type(request)
    own: Any = getattr(kind, "_txown", kind)
    if "write" in request.__dict__ or "finish" in request.__dict__:
        own = _patched(own)
        watch.patches = {
            name: request.__dict__.pop(name)
            for name in ("write", "finish")
            if name in request.__dict__
        }
    return _stages(own)


def _attended(own: Any) -> Any:
    class Attended(own):  # type: ignore[misc]
        """
        A request whose response is watched over.
        """

        _txown = own

        def write(self, data: bytes) -> None:
            self._txsession.stage.write(self, data)

        def finish(self) -> None:
            self._txsession.stage.finish(self)

        def registerProducer(self, producer: Any, streaming: bool) -> None:
            self._txsession.stage.registerProducer(self, producer, streaming)

        def unregisterProducer(self) -> None:
            self._txsession.stage.unregisterProducer(self)

        def processingFailed(self, reason: Failure) -> Failure:
            self._txsession.stage.processingFailed(self, reason)
            return reason

        def connectionLost(self, reason: Failure) -> None:
            self._txsession.stage.connectionLost(self, reason)

        def setComponent(self, interfaceClass: Any, component: Any) -> None:
            own.setComponent(self, interfaceClass, component)
            if interfaceClass is ISession and self._txsession.session is not None:
                self._txsession.session._unset = component is None

        def unsetComponent(self, interfaceClass: Any) -> None:
            own.unsetComponent(self, interfaceClass)
            if interfaceClass is ISession and self._txsession.session is not None:
                self._txsession.session._unset = True

        @property
        def _txupgraded(self) -> bool:
            """
            Whether the connection has been given over to another protocol:
            Twisted's WebSockets override the channel's dataReceived, others
            take its transport.
            """
            if self.channel is None:
                return False
            members = vars(self.channel)
            return "dataReceived" in members or (
                members.get("transport", self.channel) is None
            )

    return _named(Attended, own)


def _refused(attended: Any, own: Any) -> Any:
    class Refused(attended):  # type: ignore[misc]
        """
        A request in whose place an error page is sent.  The application may
        read its status, and what else it does to it has no effect on the page.
        """

        code = _readOnly("code", own)
        code_message = _readOnly("code_message", own)
        lastModified = _readOnly("lastModified", own)
        etag = _readOnly("etag", own)
        responseHeaders = _scratch("responseHeaders")
        cookies = _scratch("cookies")

    return _named(Refused, own)


def _readOnly(name: str, own: Any) -> Any:
    def read(request: Any) -> Any:
        return request.__dict__.get(name, getattr(own, name))

    def write(request: Any, value: Any) -> None:
        pass

    return property(read, write)


def _scratch(name: str) -> Any:
    def read(request: Any) -> Any:
        return getattr(request._txsession.scratch, name)

    def write(request: Any, value: Any) -> None:
        setattr(request._txsession.scratch, name, value)

    return property(read, write)


def _twinOf(own: Any) -> Any:
    class Twin(own):  # type: ignore[misc]
        """
        A second handle on a request; see C{_fail}.
        """

        # What this names is not among the attributes that are shared.
        __slots__ = ("_txoriginal",)
        _txown = own

        def _cleanup(self) -> None:
            # The channel knows the request by its identity.
            own._cleanup(self._txoriginal)

    return _named(Twin, own)


@cache
def _patched(own: Any) -> Any:
    class Patched(own):  # type: ignore[misc]
        """
        A request whose C{write} or C{finish} somebody had replaced on the
        instance, where it would have gone before those of a class.
        """

        _txunpatched = own

        def write(self, data: bytes) -> None:
            self._txsession.patches.get("write", lambda data: own.write(self, data))(
                data
            )

        def finish(self) -> None:
            self._txsession.patches.get("finish", lambda: own.finish(self))()

    return _named(Patched, own)


def _named(kind: Any, own: Any) -> Any:
    # To everybody else it goes on being what it is.
    kind.__module__, kind.__doc__ = own.__module__, own.__doc__
    kind.__name__, kind.__qualname__ = own.__name__, own.__qualname__
    return kind


# From stage to stage.


def _enter(request: Any, watch: _Watch, stage: _Stage) -> None:
    watch.stage = stage
    request.__class__ = stage.stages.attended


def _pass(request: Any) -> None:
    """
    Leave the rest of a response to itself.
    """
    watch = request._txsession
    stages = watch.stage.stages
    watch.stage = stages.passed
    request.__class__ = stages.own


def _leave(request: Any) -> None:
    """
    Stop watching over a request that has not been attached to a session.
    """
    _pass(request)
    request._txsession.loading = None


@define(eq=False)
class _Response:
    """
    A response as it was at its first write, and what has been written since.
    """

    code: int
    code_message: bytes
    responseHeaders: Headers
    cookies: list[bytes]
    lastModified: Any
    etag: Any
    defaultContentType: bytes | None
    body: list[bytes] = field(factory=list)
    size: int = 0
    isFinished: bool = False

    @classmethod
    def of(cls, request: Any) -> _Response:
        return cls(
            request.code,
            request.code_message,
            request.responseHeaders.copy(),
            list(request.cookies),
            request.lastModified,
            request.etag,
            request.defaultContentType,
        )

    def restore(self, request: Any) -> None:
        request.code = self.code
        request.code_message = self.code_message
        request.responseHeaders = self.responseHeaders
        request.cookies = self.cookies
        request.lastModified = self.lastModified
        request.etag = self.etag
        request.defaultContentType = self.defaultContentType


def _hold(request: Any) -> None:
    request._txsession.held = _Response.of(request)
    producer = request.producer
    request._txsession.stage = request._txsession.stage.stages.held
    if producer is not None:
        request.channel.unregisterProducer()
        if request.streamingProducer:
            producer.pauseProducing()


def _flush(request: Any, outcome: Outcome) -> None:
    if request._disconnected:
        return
    watch = request._txsession
    held, watch.held = watch.held, None
    held.restore(request)
    _dress(request, outcome)
    stage = request._txsession.stage = request._txsession.stage.stages.settled
    relay = _relay(request)
    hasNoBody = request.method == b"HEAD" or held.code in NO_BODY_CODES
    for data in held.body[:1] if hasNoBody else held.body:
        stage.write(request, data)
    if request._disconnected:
        return
    if held.isFinished:
        stage.finish(request)
    elif relay is not None:
        relay.open()


def _relay(request: Any) -> _Relay | None:
    """
    Put a request's producer back on the channel, before anything is written, so
    that it is told if that is already too much.

    @return: what holds back a push producer until that is written.
    """
    producer = request.producer
    if producer is None:
        return None
    if not request.streamingProducer:
        # It is asked for more in a later turn of the reactor.
        request.channel.registerProducer(producer, False)
        return None
    relay = _Relay(producer)
    request.channel.registerProducer(relay, True)
    return relay


@implementer(IPushProducer)
@define(eq=False)
class _Relay:
    """
    Stands for a paused push producer until what was held is written.
    """

    producer: Any
    isOpen: bool = False
    isPaused: bool = False

    def open(self) -> None:
        self.isOpen = True
        if not self.isPaused:
            self.producer.resumeProducing()

    def pauseProducing(self) -> None:
        self.isPaused = True
        if self.isOpen:
            self.producer.pauseProducing()

    def resumeProducing(self) -> None:
        self.isPaused = False
        if self.isOpen:
            self.producer.resumeProducing()

    def stopProducing(self) -> None:
        self.producer.stopProducing()


def _end(request: Any, outcome: Failure | None) -> None:
    """
    End a response whose session is saved, or break it off.
    """
    if isinstance(outcome, Failure):
        _log.failure(
            "The session could not be saved again at the end of the response, which "
            "is therefore cut short.",
            outcome,
        )
        outcome.cleanFailure()
    if request._disconnected:
        return
    _pass(request)
    if isinstance(outcome, Failure):
        cutShort(request)
    else:
        request._txsession.stage.finish(request)


def cutShort(request: Any) -> None:
    """
    Close the connection of a response, or in HTTP/2 reset its stream, so that
    the client can tell that it is not whole.
    """
    channel = request.channel
    if channel is None:
        return
    # A chunked response shows that by its missing last chunk; any other has to
    # be broken off.
    if request.chunked:
        channel.loseConnection()
        return
    (getattr(channel, "transport", None) or channel).abortConnection()
    if not request._disconnected and request.clientproto == b"HTTP/2":
        request.connectionLost(Failure(ConnectionAborted()))


def _fail(request: Any, failure: Failure) -> None:
    """
    Send an error page in place of a response that must not be sent.

    Who writes the page is given a second handle on the request: what it does
    goes through, while what the application does to the first is ignored.
    """
    if request._disconnected:
        _log.failure("A session could not be saved, and its client has gone.", failure)
        failure.cleanFailure()
        return
    stages = request._txsession.stage.stages
    isHeld = request._txsession.stage is stages.held
    request._txsession.stage = stages.failed
    request._txsession.held = None
    producer = request.producer
    if producer is not None:
        if not isHeld:
            request.channel.unregisterProducer()
        request.producer = None
        _stop(producer)
    request._txsession.scratch = _Response.of(request)
    request.__class__ = stages.refused
    twin = _twin(request)
    _clear(twin, failure)
    request._txsession.responder.fail(twin, failure)


def _twin(request: Any) -> Any:
    twin = object.__new__(request._txsession.stage.stages.twin)
    twin.__dict__ = request.__dict__
    for kind in type(request).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(request, name):
                setattr(twin, name, getattr(request, name))
    twin._txoriginal = request
    return twin


def _stop(producer: Any) -> None:
    if producer is None:
        return
    try:
        producer.stopProducing()
    except Exception:
        _log.failure("A producer could not be stopped.")


def _clear(request: Any, failure: Failure) -> None:
    """
    Leave nothing of a response that must not be sent, and set the status of the
    one that takes its place.
    """
    fresh = Headers()
    fresh.setRawHeaders(b"Server", [version])
    fresh.setRawHeaders(b"Date", [datetimeToString()])
    connection = request.responseHeaders.getRawHeaders(b"Connection")
    if connection is not None:
        fresh.setRawHeaders(b"Connection", connection)
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
        request.cookies = headers.getRawHeaders(b"Set-Cookie", []) + request.cookies
        if cookie is not None:
            request.cookies.append(cookie.encode("ascii"))
    elif cookie is not None:
        headers.addRawHeader(b"Set-Cookie", cookie.encode("ascii"))
    if request._txsession.responder.cacheHeaders:
        if outcome.varies:
            _varyByCookie(headers)
        if cookie is not None and not headers.hasHeader(b"Cache-Control"):
            headers.addRawHeader(b"Cache-Control", b'private, no-cache="Set-Cookie"')


def _varyByCookie(headers: Headers) -> None:
    varying = headers.getRawHeaders(b"Vary")
    if varying is None or not any(
        name.strip().lower() in (b"cookie", b"*")
        for value in varying
        for name in value.split(b",")
    ):
        headers.addRawHeader(b"Vary", b"Cookie")


def _giveUp(failure: Failure, request: Any) -> None:
    _log.failure("A held response could not be sent.", failure)
    if not request._disconnected and not request.finished:
        cutShort(request)


_WRITE_AFTER_FINISH = (
    "Request.write called on a request after Request.finish was called."
)
