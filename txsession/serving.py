"""
A web server that stops without cutting anybody short.

Theory of operation
===================

Twisted stops the services of an application all at once: the listening port is
closed while requests still run, and the store while they are still to be saved.
L{WebService} has an order: it stops listening, then lets the requests end, and
then stops the services that were added to it, of which the L{SessionService
<txsession.SessionService>} is one.

L{GracefulSite} tells which requests run.  Each connection counts its own: a
request has begun when its first line has arrived, and ended when its response
is with the transport.  For HTTP/1.1 that is when C{notifyFinish} fires; over
HTTP/2 the response may wait in the connection then, so that its stream is
waited for, too.  A connection that is lost has no requests, whatever they say
themselves: a WebSocket never finishes its request.

What the clients sent before the server was told to stop may not have been read
yet.  So connections that wait to be accepted are, and the reactor turns before
those that seem idle are closed.  Requests that arrived in a pipeline are answered
one after the other.

How a connection is closed depends on what it speaks.  HTTP/1.1 says C{Connection:
close} with the last response.  HTTP/2 says which request was the last that was
seen, and the client sends later ones again; one that goes on with requests is
told before to begin no more.  TLS closes in both directions, but many clients that
keep a connection for later do not listen to it; for HTTP/1.1 nothing is lost if
that is not waited for.  For HTTP/2 it is, since a client that still reads also
writes, and what arrives at a closed socket has the rest of the response thrown
away.
"""

from __future__ import annotations

from itertools import islice
from typing import Any
from weakref import WeakSet

from attrs import define
from twisted.application.service import MultiService, Service
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredList,
    maybeDeferred,
    succeed,
)
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IProtocol
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.server import Request, Site
from zope.interface import implementer

from .errors import ConfigurationError
from .lifetime import Duration, asSeconds

__all__ = ["GracefulRequest", "GracefulSite", "WebService"]

_log = Logger()

MOMENT = 0.5
"""
How many seconds a client that has just connected has to send a request when the
server stops.
"""

LAST_WRITES = 2.0
"""
How many seconds the store has to end its writes when the grace period is over.
"""


class GracefulRequest(Request):
    """
    A request that ends its connection when the site is about to stop.
    """

    def write(self, data: bytes) -> None:
        """
        Write to the response; if that sends its headers, they say whether
        another request may follow.
        """
        # As late as this, because a response that waits for its session to be
        # saved has had its headers since before the site was told to stop.
        if (
            not self.startedWriting
            and self.code >= 200
            and self.clientproto == b"HTTP/1.1"
            and self.site is not None
            and getattr(self.site, "isDraining", False)
            and not _isFollowed(getattr(self, "channel", None))
        ):
            self.responseHeaders.setRawHeaders(b"Connection", [b"close"])
            _makeLast(getattr(self, "channel", None))
        super().write(data)  # type: ignore[no-untyped-call]


def _isFollowed(channel: Any) -> bool:
    """
    Whether the next request has arrived behind the one that an HTTP/1.1
    connection is at.
    """
    # There is no public way to learn that.
    unread = getattr(channel, "_buffer", b""), *getattr(channel, "_dataBuffer", ())
    return any(unread)


def _makeLast(channel: Any) -> None:
    """
    Have an HTTP/1.1 connection closed when its request is done.
    """
    if hasattr(channel, "persistent"):
        channel.persistent = False


@implementer(IProtocol)
class _Connection:
    """
    Stands between a transport and its HTTP channel, and counts the requests.
    """

    factory: Any = None
    transport: Any = None

    def __init__(self, site: GracefulSite, channel: Any) -> None:
        self.site = site
        self.channel = channel
        self.requests: dict[Request, Any] = {}
        self.isFresh = True
        self.isTold = False
        self.isClosing = False
        self.dataReceived = channel.dataReceived

    def makeConnection(self, transport: Any) -> None:
        self.transport = transport
        self.site.connections.add(self)
        self.channel.makeConnection(transport)

    def connectionMade(self) -> None:
        """
        Not called: the channel's own is, by its makeConnection.
        """

    def connectionLost(self, reason: Failure) -> None:
        try:
            self.channel.connectionLost(reason)
        finally:
            self.requests.clear()
            self.site._lost(self)

    def newRequest(self, channel: Any, *arguments: Any, **options: Any) -> Request:
        """
        The channel's request factory.
        """
        make: Any = self.site.requestFactory
        request: Request = make(channel, *arguments, **options)
        self.isFresh = False
        if self.site.isDraining:
            self._allowNoMore()
        self.requests[request] = channel
        request.notifyFinish().addBoth(self._finished, request, channel)
        return request

    def _finished(self, _: Any, request: Request, channel: Any) -> None:
        # There is no public way to learn that an HTTP/2 stream is over.
        http2 = getattr(channel, "_conn", None)
        streams = getattr(http2, "_streamCleanupCallbacks", {})
        over = streams.get(getattr(channel, "streamID", None))
        if over is None:
            self._ended(None, request)
        else:
            over.addBoth(self._ended, request)

    def _http2(self) -> Any:
        # Nor to what speaks HTTP/2.
        return getattr(getattr(self.channel, "_channel", None), "conn", None)

    def _allowNoMore(self) -> None:
        """
        Tell a client of HTTP/2 that goes on with requests to begin no more.
        """
        if self._http2() is None or self.isTold:
            return
        self.isTold = True
        from hyperframe.frame import GoAwayFrame

        # This one, which lets all that has begun go on, h2 cannot send.
        frame = GoAwayFrame(stream_id=0, last_stream_id=2**31 - 1)
        self.transport.write(frame.serialize())

    def _ended(self, _: Any, request: Request) -> None:
        self.requests.pop(request, None)
        if self.site.isDraining and not self.requests:
            self.close()

    def makeLast(self) -> None:
        for channel in self.requests.values():
            if not _isFollowed(channel):
                _makeLast(channel)

    def close(self) -> None:
        """
        Close it when all that was written to it is sent.
        """
        if self.isClosing:
            return
        self.isClosing = True
        # A request that comes now could not be answered.
        self.dataReceived = _ignore
        # TLS does not end while there is a producer.
        self.transport.unregisterProducer()
        http2 = self._http2()
        if http2 is None:
            _closeDown(self.transport)
            return
        # Says which requests were seen, so that the others can be sent again.
        http2.close_connection()
        self.transport.write(http2.data_to_send())
        self.transport.loseConnection()

    def abort(self) -> None:
        self.transport.abortConnection()


def _ignore(data: bytes) -> None:
    """
    Too late.
    """


def _closeDown(transport: Any) -> None:
    """
    Close a transport and those below it.  TLS would wait until the other side has
    closed, too; many clients do not notice before they send the next request.
    """
    while transport is not None:
        transport.loseConnection()
        transport = getattr(transport, "transport", None)


class GracefulSite(Site):
    """
    A site that can be told to come to an end.

    Its C{requestFactory}, if it is given one, should be a subclass of
    L{GracefulRequest}.

    @ivar isDraining: whether it has been told to.
    """

    requestFactory = GracefulRequest
    noisy = False

    def __init__(self, resource: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(resource, *arguments, **options)  # type: ignore[no-untyped-call]
        self.isDraining = False
        # Weakly, because some WebSockets take the transport of their connection,
        # which then hears nothing any more.
        self.connections: WeakSet[_Connection] = WeakSet()
        self._ends: list[Deferred[None]] = []

    def buildProtocol(self, addr: Any) -> Any:
        """
        A channel whose requests are counted.
        """
        channel = super().buildProtocol(addr)  # type: ignore[no-untyped-call]
        connection = _Connection(self, channel)
        channel.requestFactory = connection.newRequest
        return connection

    @property
    def running(self) -> list[Request]:
        """
        The requests that have begun and not ended.
        """
        return [each for one in self.connections for each in one.requests]

    def drain(self, gracePeriod: float) -> Deferred[None]:
        """
        Close the connections that are idle, and the others after the response
        that they wait for.

        @param gracePeriod: seconds after which what still runs is L{cut}.
        @return: fires when no connection is left.
        """
        return Deferred.fromCoroutine(self._drain(gracePeriod))

    def cut(self) -> None:
        """
        Close all connections at once, whatever they are doing.
        """
        running = self.running
        if running:
            _log.warn(
                "Requests that did not end in time and were cut off: {count} "
                "({requests}{more})",
                count=len(running),
                requests=", ".join(map(_shown, islice(running, 5))),
                more=", ..." if len(running) > 5 else "",
            )
        slow = [each for each in self.connections if each.isClosing]
        if slow:
            _log.warn(
                "Connections that were cut off, because their clients had not taken "
                "all that was sent to them: {count}",
                count=len(slow),
            )
        for connection in list(self.connections):
            connection.abort()
        self.reactor.callLater(0, self._forget)

    async def _drain(self, gracePeriod: float) -> None:
        self.isDraining = True
        calls = [
            self.reactor.callLater(gracePeriod, self.cut),
            self.reactor.callLater(MOMENT, self._closeIdle, True),
        ]
        # What has arrived is read between the one and the other.
        for _ in range(2):
            await deferLater(self.reactor, 0)
        running = len(self.running)
        if running:
            _log.info(
                "Requests that still run: {count}.  They have {seconds:.3g} seconds to "
                "end.",
                count=running,
                seconds=gracePeriod,
            )
        self._closeIdle(False)
        if self.connections:
            end: Deferred[None] = Deferred()
            self._ends.append(end)
            await end
        for call in calls:
            if call.active():
                call.cancel()
        self.isDraining = False

    def _closeIdle(self, evenFresh: bool) -> None:
        for connection in list(self.connections):
            if connection.requests:
                connection.makeLast()
            elif evenFresh or not connection.isFresh:
                connection.close()

    def _lost(self, connection: _Connection) -> None:
        self.connections.discard(connection)
        self._tell()

    def _forget(self) -> None:
        self.connections.clear()
        self._tell()

    def _tell(self) -> None:
        if not self.connections:
            ends, self._ends = self._ends, []
            for end in ends:
                end.callback(None)


def _shown(request: Request) -> str:
    # Without the query, which may hold what nobody else should see.
    method = getattr(request, "method", b"") or b"?"
    path = getattr(request, "path", b"") or b"?"
    return f"{method.decode('ascii', 'replace')} {path.decode('ascii', 'replace')}"


class WebService(MultiService):
    """
    A site at its endpoints, with the services that its requests need.

    Those are added to it, as C{SessionService(store).setServiceParent(web)}.
    They are started before it listens, and stopped when the last request is
    over.

    @param site: what is served.
    @param endpoints: where: endpoints, or descriptions of them, as in
        C{"tcp:8080:interface=127.0.0.1"}.
    @param gracePeriod: how many seconds (or a C{timedelta}) requests have to end
        when the service is stopped.  What still runs then is cut off, and the
        services have another two seconds to write what they have to.

    @raise ConfigurationError: an endpoint cannot be understood, or the grace
        period is negative.
    """

    def __init__(
        self, site: GracefulSite, *endpoints: Any, gracePeriod: Duration = 10
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.site = site
        self.gracePeriod = asSeconds(gracePeriod, "gracePeriod", positive=False)
        if self.gracePeriod < 0:
            raise ConfigurationError("must not be negative", option="gracePeriod")
        self._endpoints = [(_nameOf(each), _asEndpoint(each)) for each in endpoints]
        self._listening: list[Deferred[Any]] = []
        self._giveUp: Any = None

    def privilegedStartService(self) -> None:
        """
        Listen, while the process may still take any port.
        """
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        self._listen()

    def startService(self) -> None:
        """
        Start the services, and listen.
        """
        super().startService()  # type: ignore[no-untyped-call]
        if not self._listening:
            self._listen()

    def stopService(self) -> Deferred[None]:
        """
        Stop listening, let the requests end, and then stop the services.

        @return: fires when all that is done, or when the time for it is over.
        """
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

    def hurry(self) -> None:
        """
        End the grace period of a service that is stopping.
        """
        self.site.cut()
        if self._giveUp is not None and self._giveUp.active():
            self._giveUp.reset(0)

    # Listening.

    def _listen(self) -> None:
        for name, endpoint in self._endpoints:
            attempt = _Attempt(name)
            self._listening.append(attempt.observe(endpoint.listen(self.site)))
            if attempt.failure is not None:
                for earlier in self._listening:
                    earlier.addCallback(_stopPort)
                self._listening = []
                attempt.failure.raiseException()
            attempt.isOver = True

    async def _stopListening(self) -> None:
        listening, self._listening = self._listening, []
        stopping = []
        for each in listening:
            each.cancel()
            port = await each
            if port is None:
                continue
            # A port is closed in the next turn; that comes just before it.
            self.site.reactor.callLater(0, self._acceptWaiting, port)
            stopping.append(_stopPort(port))
        await DeferredList(stopping, consumeErrors=True)

    def _acceptWaiting(self, port: Any) -> None:
        """
        Accept those whom the system has let in already.
        """
        if not getattr(port, "connected", False) or not hasattr(port, "doRead"):
            return
        before = -1
        while before != len(self.site.connections):
            before = len(self.site.connections)
            port.doRead()

    # Stopping.

    async def _stop(self) -> None:
        reactor = self.site.reactor
        end = reactor.seconds() + self.gracePeriod
        # Or else its access log would be closed with the last port.
        self.site.doStart()  # type: ignore[no-untyped-call]
        await self._stopListening()
        await self.site.drain(max(0, end - reactor.seconds()))
        self.site.doStop()  # type: ignore[no-untyped-call]
        await self._stopServices(max(LAST_WRITES, end - reactor.seconds()))

    async def _stopServices(self, seconds: float) -> None:
        over: Deferred[bool] = Deferred()
        self._giveUp = self.site.reactor.callLater(seconds, over.callback, False)
        stopped = DeferredList([_stopped(each) for each in reversed(list(self))])
        stopped.addCallback(lambda _: None if over.called else over.callback(True))
        if await over:
            self._giveUp.cancel()
        else:
            _log.critical(
                "What was still being written when the grace period ended is given "
                "up: the store did not answer."
            )
        self._giveUp = None


@define
class _Attempt:
    """
    Hears how an attempt to listen ends.

    @ivar failure: why it failed, if it did so at once.
    @ivar isOver: whether nobody looks at that any more.
    """

    name: str
    failure: Failure | None = None
    isOver: bool = False

    def observe(self, listening: Deferred[Any]) -> Deferred[Any]:
        return listening.addCallbacks(self._succeeded, self._failed)

    def _succeeded(self, port: Any) -> Any:
        _log.info("Serving at {address}", address=_addressOf(port, self.name))
        return port

    def _failed(self, failure: Failure) -> None:
        if not self.isOver:
            self.failure = failure
        elif not failure.check(CancelledError):
            _log.failure("Cannot listen at {name}.", failure, name=self.name)


def _stopped(service: Any) -> Deferred[Any]:
    return maybeDeferred(service.stopService).addErrback(
        lambda failure: _log.failure(
            "{service} did not stop as it should.", failure, service=service
        )
    )


def _stopPort(port: Any) -> Deferred[Any]:
    return succeed(None) if port is None else maybeDeferred(port.stopListening)


def _nameOf(endpoint: Any) -> str:
    return endpoint if isinstance(endpoint, str) else repr(endpoint)


def _asEndpoint(endpoint: Any) -> Any:
    if not isinstance(endpoint, str):
        return endpoint
    from twisted.internet import reactor

    try:
        return serverFromString(reactor, endpoint)
    except Exception as error:
        raise ConfigurationError(
            f"{endpoint!r} is no server endpoint, as tcp:8080:interface=127.0.0.1 is: "
            f"{_reason(endpoint, error)}",
            option="listen",
        ) from error


def _reason(endpoint: str, error: Exception) -> str:
    if endpoint.startswith("systemd:") and isinstance(error, LookupError):
        return "systemd has passed no such socket to this process"
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _addressOf(port: Any, name: str) -> str:
    address = port.getHost()
    host = getattr(address, "host", None)
    if host is None:
        return name
    if ":" in host:
        host = f"[{host}]"
    scheme = "https" if name.startswith(("ssl:", "tls:")) else "http"
    return f"{scheme}://{host}:{address.port}/"
