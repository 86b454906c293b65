"""
A server that is told to stop cuts nobody short.
"""

from __future__ import annotations

import gc
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from select import select
from typing import Any
from weakref import ref

import pytest
import pytest_twisted
from attrs import define, field
from twisted.application.service import Service
from twisted.internet import error, reactor
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    UNIXClientEndpoint,
    connectProtocol,
    serverFromString,
    wrapClientTLS,
)
from twisted.internet.error import CannotListenError
from twisted.internet.ssl import Certificate, optionsForClientTLS
from twisted.web.server import NOT_DONE_YET

from txsession import (
    ConfigurationError,
    MemoryStore,
    SessionResource,
    SessionService,
    getSession,
    serving,
)
from txsession.serving import GracefulSite, WebService

from .support import (
    SECRET,
    Browser,
    Connection,
    Page,
    StepStore,
    called,
    eventually,
    patiently,
    turn,
)
from .test_express_suite import keyAndCertificate
from .test_wrapped import H2Client, needsWebSockets, say, socketsBeside, talk

LOOPBACK = "tcp:0:interface=127.0.0.1"
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@define(eq=False)
class Answers:
    """
    Pages that are answered when the test says so, or the first so many of them.
    """

    requests: list[Any] = field(factory=list)
    later: int = 100

    def __call__(self, request: Any) -> Any:
        self.requests.append(request)
        return NOT_DONE_YET if len(self.requests) <= self.later else b"whole"

    async def arrived(self, count: int = 1) -> Any:
        await eventually(lambda: len(self.requests) >= count)
        return self.requests[count - 1]


@define(eq=False)
class Recording(Service):
    """
    A service that says when it is stopped, and stops when it is let.
    """

    stopped: bool = False
    end: Deferred[None] | None = None

    def stopService(self) -> Any:
        super().stopService()
        self.stopped = True
        return self.end


class Starting:
    """
    Starts web services, and ends them after the test.
    """

    def __init__(self) -> None:
        self.services: list[WebService] = []

    def __call__(
        self,
        function: Callable[[Any], Any],
        *,
        site: type[GracefulSite] = GracefulSite,
        endpoint: Any = LOOPBACK,
        gracePeriod: float = 1000,
        resource: Any = None,
        **options: Any,
    ) -> WebService:
        made = site(resource or Page(function), **options)
        service = WebService(made, endpoint, gracePeriod=gracePeriod)
        self.services.append(service)
        service.startService()
        return service

    async def end(self) -> None:
        for service in self.services:
            if service.running:
                service.stopService()
            # What is stopping already may be waiting for what the test left.
            while service._giveUp is not None or service.site.connections:
                service.hurry()
                await turn(1)


@pytest.fixture
def start() -> Iterator[Starting]:
    starting = Starting()
    yield starting
    pytest_twisted.blockon(Deferred.fromCoroutine(starting.end()))


def portOf(service: WebService) -> int:
    return int(service._listening[0].result.getHost().port)


async def connected(service: WebService) -> Connection:
    return await Browser(portOf(service)).connect()


def ended(service: WebService) -> Deferred[None]:
    return patiently(service.stopService())


# Requests that run.


@pytest_twisted.ensureDeferred
async def test_aRequestThatRunsIsAnswered(start: Starting) -> None:
    """
    A service that stops lets nobody in, answers who waits, with the word that the
    connection ends, and has stopped when that is done.
    """
    answers = Answers()
    service = start(answers)
    browser = Browser(portOf(service))
    connection = await browser.connect()
    connection.transport.write(GET)
    request = await answers.arrived()

    stopping = ended(service)
    await eventually(lambda: service.site.isDraining)
    with pytest.raises(error.ConnectionRefusedError):
        await browser.connect()
    assert not stopping.called
    request.write(b"whole")
    request.finish()
    received = await patiently(connection.closed)
    await stopping

    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nConnection: close\r\n" in received
    assert received.endswith(b"5\r\nwhole\r\n0\r\n\r\n")


@pytest.mark.parametrize("later", [1, 3])
@pytest.mark.parametrize("hasBegun", [True, False])
@pytest_twisted.ensureDeferred
async def test_requestsInAPipelineAreAnswered(
    start: Starting, hasBegun: bool, later: int
) -> None:
    """
    Requests that arrived together are all answered, and the last answer says that
    the connection ends.
    """
    answers = Answers(later=later)
    service = start(answers)
    connection = await connected(service)
    connection.transport.write(3 * GET)
    first = await answers.arrived()
    if hasBegun:
        first.write(b"whole")
    stopping = ended(service)
    await eventually(lambda: service.site.isDraining)
    await turn()
    for number in range(1, later + 1):
        request = await answers.arrived(number)
        request.write(b"whole")
        request.finish()
    received = await patiently(connection.closed)
    await stopping
    assert received.count(b"HTTP/1.1 200 OK") == 3
    assert received.count(b"whole") == 3 + hasBegun
    assert received.count(b"\r\nConnection: close\r\n") == 1
    assert b"\r\nConnection: close\r\n" in received.split(b"HTTP/1.1 200")[3]


@pytest_twisted.ensureDeferred
async def test_aStreamGoesOnToItsEnd(start: Starting) -> None:
    """
    A response that had begun is not told that its connection ends, but it has
    its end, and then the connection has, too.
    """
    answers = Answers()
    service = start(answers)
    connection = await connected(service)
    connection.transport.write(GET)
    request = await answers.arrived()
    request.write(b"one")
    await patiently(connection.until(b"one"))
    stopping = ended(service)
    await eventually(lambda: service.site.isDraining)
    request.write(b"two")
    await patiently(connection.until(b"two"))
    request.finish()
    received = await patiently(connection.closed)
    await stopping
    assert b"Connection: close" not in received
    assert received.endswith(b"3\r\ntwo\r\n0\r\n\r\n")


@pytest_twisted.ensureDeferred
async def test_aRequestThatIsStillComingInIsAnswered(start: Starting) -> None:
    """
    A request of which only a part has arrived is received and answered.
    """
    service = start(lambda request: request.content.read())
    connection = await connected(service)
    connection.transport.write(
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabc"
    )
    await eventually(lambda: service.site.running)
    stopping = ended(service)
    await eventually(lambda: service.site.isDraining)
    await turn()
    assert not stopping.called
    connection.transport.write(b"def")
    received = await patiently(connection.closed)
    await stopping
    assert received.endswith(b"\r\n\r\nabcdef")
    assert b"\r\nConnection: close\r\n" in received


@pytest_twisted.ensureDeferred
async def test_whoHasConnectedIsServed(start: Starting) -> None:
    """
    A client whom the system has let in is served, though the server had not come
    to accept it, nor to read its request, when it was told to stop.
    """
    service = start(lambda request: "hello")
    clients = []
    for _ in range(30):
        client = socket.create_connection(("127.0.0.1", portOf(service)))
        client.sendall(GET)
        client.setblocking(False)
        clients.append(client)
    assert not service.site.connections
    await ended(service)
    for client in clients:
        with client:
            assert client.recv(1000).endswith(b"\r\n\r\nhello")


@pytest_twisted.ensureDeferred
async def test_aRequestThatIsUnreadIsAnswered(start: Starting) -> None:
    """
    A connection that seems idle is not closed if a request has arrived on it that
    was not read yet.
    """
    service = start(lambda request: "hello")
    with socket.create_connection(("127.0.0.1", portOf(service))) as client:
        client.setblocking(False)
        client.sendall(GET)
        await eventually(lambda: hasArrived(client))
        assert client.recv(1000).endswith(b"\r\n\r\nhello")
        client.sendall(GET)
        await patiently(service.site.drain(1000))
        assert client.recv(1000).endswith(b"\r\n\r\nhello")


def hasArrived(client: socket.socket) -> bool:
    return bool(select([client], [], [], 0)[0])


@pytest_twisted.ensureDeferred
async def test_whoHasJustConnectedMaySendARequest(start: Starting) -> None:
    """
    A connection that is accepted, and has brought nothing so far, has a moment
    to.
    """
    service = start(lambda request: "hello")
    connection = await connected(service)
    await eventually(lambda: service.site.connections)
    stopping = ended(service)
    await eventually(lambda: service.site.isDraining)
    await turn()
    connection.transport.write(GET)
    assert (await patiently(connection.closed)).endswith(b"\r\n\r\nhello")
    await stopping


@pytest_twisted.ensureDeferred
async def test_whoSendsNothingDoesNotHoldItUp(
    start: Starting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    If it does not use that moment, it is closed.
    """
    monkeypatch.setattr(serving, "MOMENT", 0)
    service = start(lambda request: "hello")
    connection = await connected(service)
    await eventually(lambda: service.site.connections)
    await ended(service)
    assert await patiently(connection.closed) == b""


@pytest_twisted.ensureDeferred
async def test_idleConnectionsAreClosed(start: Starting) -> None:
    """
    A connection that is kept for further requests does not hold up the end.
    """
    service = start(lambda request: "hello")
    connection = await connected(service)
    connection.transport.write(GET)
    received = await patiently(connection.until(b"hello"))
    assert b"Connection: close" not in received
    await ended(service)
    assert await patiently(connection.closed) == received


@pytest_twisted.ensureDeferred
async def test_anUpgradeStaysOne(start: Starting) -> None:
    """
    A response that is an upgrade keeps its Connection header.
    """
    answers = Answers()
    service = start(answers)
    connection = await connected(service)
    connection.transport.write(GET)
    request = await answers.arrived()
    stopping = ended(service)
    await eventually(lambda: service.site.isDraining)
    request.setResponseCode(101)
    request.setHeader("Upgrade", "websocket")
    request.setHeader("Connection", "Upgrade")
    request.write(b"")
    received = await patiently(connection.until(b"\r\n\r\n"))
    assert b"Connection: Upgrade\r\n" in received
    connection.transport.loseConnection()
    await stopping


@pytest_twisted.ensureDeferred
async def test_aClientThatLeavesHoldsNothingUp(start: Starting) -> None:
    """
    A request whose client has left counts as ended, whether it says so or not.
    """
    service = start(Answers())
    connection = await connected(service)
    connection.transport.write(GET)
    await eventually(lambda: service.site.running)
    # As a WebSocket does it.
    [one] = service.site.connections
    one.channel._channel.connectionLost = lambda reason: None
    stopping = ended(service)
    await eventually(lambda: service.site.isDraining)
    connection.transport.loseConnection()
    await stopping


@pytest.mark.parametrize("leaves", [True, False])
@needsWebSockets
@pytest_twisted.ensureDeferred
async def test_aWebSocketLivesUntilTheGracePeriodIsOver(
    start: Starting, leaves: bool
) -> None:
    """
    A WebSocket goes on while the service stops, until its client leaves, or the
    grace period is over.
    """
    root, sockets = socketsBeside(lambda request: "")
    resource = SessionResource(root, secret=SECRET)
    service = start(Answers(), resource=resource)
    client = await talk(portOf(service), None)
    stopping = ended(service)
    await eventually(lambda: service.site.isDraining)
    assert await say(client, "hello") == ""
    assert not stopping.called
    if leaves:
        client.transport.loseConnection()
    else:
        service.hurry()
    await stopping
    await patiently(sockets.made[0].lost)
    await patiently(client.lost)


@define(eq=False)
class Takeover:
    """
    A page that takes the connection for itself, as Autobahn does for WebSockets.
    """

    taken: list[Any] = field(factory=list)

    def __call__(self, request: Any) -> Any:
        transport, request.channel.transport = request.channel.transport, None
        transport.protocol = Connection()
        transport.protocol.makeConnection(transport)
        self.taken.append(transport)
        transport.write(b"taken")
        return NOT_DONE_YET


@pytest_twisted.ensureDeferred
async def test_aConnectionThatIsTakenOverIsForgotten(start: Starting) -> None:
    """
    A connection that something else takes over is freed with it, and then holds
    up no end.
    """
    takeover = Takeover()
    service = start(takeover)
    connection = await connected(service)
    connection.transport.write(GET)
    await patiently(connection.until(b"taken"))
    takeover.taken.pop().abortConnection()
    await patiently(connection.closed)
    await turn()
    gc.collect()
    assert not service.site.connections
    await ended(service)


@pytest_twisted.ensureDeferred
async def test_aConnectionThatIsTakenOverIsCut(start: Starting) -> None:
    """
    Until then it is cut after the grace period, as others are, and the end does
    not wait to hear of that.
    """
    service = start(Takeover(), gracePeriod=0.01)
    connection = await connected(service)
    gc.disable()
    try:
        connection.transport.write(GET)
        await patiently(connection.until(b"taken"))
        assert service.site.connections
        await ended(service)
    finally:
        gc.enable()
    await patiently(connection.closed)
    assert not service.site.connections


# What does not end.


@pytest_twisted.ensureDeferred
async def test_whatDoesNotEndIsCut(start: Starting, logged: list[Any]) -> None:
    """
    After the grace period what still runs is cut off, and the log says what.
    """
    answers = Answers()
    service = start(answers, gracePeriod=0.01)
    connection = await connected(service)
    connection.transport.write(GET.replace(b"/ ", b"/stream?key=x ", 1))
    (await answers.arrived()).write(b"begun")
    await patiently(connection.until(b"begun"))
    await ended(service)
    assert not (await patiently(connection.closed)).endswith(b"0\r\n\r\n")
    [event] = [each for each in logged if "cut off" in (each["log_format"] or "")]
    assert (event["count"], event["requests"]) == (1, "GET /stream")
    assert event["log_level"].name == "warn"


@pytest_twisted.ensureDeferred
async def test_whoDoesNotTakeItsResponseIsCut(
    start: Starting, logged: list[Any]
) -> None:
    """
    So is a client that has not taken all of its response by then.
    """
    service = start(lambda request: b"x" * 10_000_000, gracePeriod=0.01)
    connection = await connected(service)
    connection.transport.pauseProducing()
    connection.transport.write(GET)
    await eventually(lambda: service.site.connections)
    await eventually(lambda: not any(c.isFresh for c in service.site.connections))
    await ended(service)
    [event] = [each for each in logged if "cut off" in (each["log_format"] or "")]
    assert event["count"] == 1
    connection.transport.resumeProducing()
    assert len(await patiently(connection.closed)) < 10_000_000


@pytest_twisted.ensureDeferred
async def test_theGracePeriodCanBeEnded(start: Starting) -> None:
    """
    Who is in a hurry ends the grace period.
    """
    service = start(Answers())
    connection = await connected(service)
    connection.transport.write(GET)
    await eventually(lambda: service.site.running)
    stopping = ended(service)
    await eventually(lambda: service.site.isDraining)
    assert not stopping.called
    service.hurry()
    await stopping
    assert await patiently(connection.closed) == b""


# The services that requests need.


@pytest_twisted.ensureDeferred
async def test_servicesAreStoppedLast(start: Starting) -> None:
    """
    The services that were added are stopped when the last request is over, and
    waited for.
    """
    answers = Answers()
    service = start(answers)
    child = Recording(end=Deferred())
    child.setServiceParent(service)
    assert child.running
    connection = await connected(service)
    connection.transport.write(GET)
    request = await answers.arrived()
    stopping = ended(service)
    await eventually(lambda: service.site.isDraining)
    await turn()
    assert not child.stopped
    request.finish()
    await eventually(lambda: child.stopped)
    await patiently(connection.closed)
    assert not stopping.called
    assert child.end is not None
    child.end.callback(None)
    await stopping


@pytest_twisted.ensureDeferred
async def test_aServiceThatDoesNotStopIsGivenUp(
    start: Starting, logged: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A store that hangs does not keep the process, and the log says that writes
    may be lost.
    """
    monkeypatch.setattr(serving, "LAST_WRITES", 0.01)
    service = start(Answers(), gracePeriod=0)
    Recording(end=Deferred()).setServiceParent(service)
    await ended(service)
    assert [e for e in logged if "given up" in (e["log_format"] or "")]


@pytest_twisted.ensureDeferred
async def test_whoIsInAHurryDoesNotWaitForTheStore(start: Starting) -> None:
    """
    Who is in a hurry does not wait for a store either.
    """
    service = start(Answers())
    child = Recording(end=Deferred())
    child.setServiceParent(service)
    stopping = ended(service)
    await eventually(lambda: child.stopped)
    assert not stopping.called
    service.hurry()
    await stopping


@pytest_twisted.ensureDeferred
async def test_aServiceThatFailsToStopIsNoObstacle(
    start: Starting, logged: list[Any]
) -> None:
    """
    A store that fails to stop does not keep the process either, and it is logged.
    """
    service = start(Answers())
    Recording(end=fail(ValueError("broken"))).setServiceParent(service)
    await ended(service)
    [event] = [e for e in logged if "log_failure" in e]
    assert event["log_failure"].getErrorMessage() == "broken"


@pytest_twisted.ensureDeferred
async def test_aResponseHeldForItsSaveIsSent(start: Starting) -> None:
    """
    A response that waits for its session to be saved is sent, with its cookie and
    the word that the connection ends, before the store is stopped.
    """
    store = StepStore(MemoryStore(), {"create"})
    resource = SessionResource(
        Page(lambda request: getSession(request).update(seen=True)),
        secret=SECRET,
        store=store,
    )
    service = start(Answers(), resource=resource)
    SessionService(store).setServiceParent(service)
    connection = await connected(service)
    connection.transport.write(GET)
    create = await called(store, "create")
    stopping = ended(service)
    await eventually(lambda: service.site.isDraining)
    await turn()
    assert "stop" not in store.calls
    assert connection.received == b""
    create.release()
    received = await patiently(connection.closed)
    await stopping
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nSet-Cookie: connect.sid=" in received
    assert b"\r\nConnection: close\r\n" in received
    assert store.calls[-1] == "stop"


@pytest_twisted.ensureDeferred
async def test_requestsAreForgotten(start: Starting) -> None:
    """
    A request that is over is freed at once, not when the garbage collector comes
    by.
    """
    seen: list[Any] = []

    def page(request: Any) -> str:
        seen.append(ref(request))
        return "hello"

    service = start(page)
    connection = await connected(service)
    gc.disable()
    try:
        connection.transport.write(GET)
        await patiently(connection.until(b"hello"))
        await turn()
        assert [each() for each in seen] == [None]
    finally:
        gc.enable()


# HTTP/2 and TLS.


class H2GracefulSite(GracefulSite):
    """
    Speaks HTTP/2 with whoever connects.
    """

    def buildProtocol(self, addr: Any) -> Any:
        connection = super().buildProtocol(addr)
        made = connection.makeConnection

        def makeConnection(transport: Any) -> None:
            transport.negotiatedProtocol = b"h2"
            made(transport)

        connection.makeConnection = makeConnection
        return connection


@pytest_twisted.ensureDeferred
async def test_streamsOfHTTP2AreSentToTheirEnd(start: Starting) -> None:
    """
    Over HTTP/2 a response that is finished is sent to its end, however slowly the
    client takes it, and only then the connection closed.
    """
    answers = Answers()
    service = start(answers, site=H2GracefulSite)
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", portOf(service))
    client = await connectProtocol(endpoint, H2Client())
    client.isReading = False
    stream = client.ask()
    request = await answers.arrived()
    stopping = ended(service)
    await eventually(lambda: service.site.isDraining)
    request.write(b"x" * 200_000)
    request.finish()
    await eventually(lambda: len(stream.body) == 65535)
    await turn(20)
    assert not stopping.called
    client.h2.increment_flow_control_window(1_000_000)
    client.h2.increment_flow_control_window(1_000_000, stream_id=1)
    client.flush()
    await patiently(stream.ended)
    await stopping
    assert len(stream.body) == 200_000
    assert stream.all(b"connection") == []


class Told(H2Client):
    """
    A client that goes on when it is told of the end, and remembers the last
    streams that it was told of.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lasts: list[int] = []
        self.lost: Deferred[None] = Deferred()
        self._unread = b""

    def dataReceived(self, data: bytes) -> None:
        self._unread += data
        while len(self._unread) >= 9:
            length = 9 + int.from_bytes(self._unread[:3], "big")
            if len(self._unread) < length:
                return
            frame, self._unread = self._unread[:length], self._unread[length:]
            if frame[3] == 7:  # GOAWAY
                self.lasts.append(int.from_bytes(frame[9:13], "big"))
                assert frame[13:17] == bytes(4)
            else:
                super().dataReceived(frame)

    def connectionLost(self, reason: Any = None) -> None:
        self.lost.callback(None)


async def told(service: WebService) -> Told:
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", portOf(service))
    client: Told = await connectProtocol(endpoint, Told())
    return client


@pytest_twisted.ensureDeferred
async def test_clientsOfHTTP2AreToldWhichRequestsWereSeen(start: Starting) -> None:
    """
    Over HTTP/2 the client is told the last request that was seen, so that it can
    send others again.
    """
    service = start(lambda request: "hello", site=H2GracefulSite)
    client = await told(service)
    for _ in range(2):
        await patiently(client.ask().ended)
    await ended(service)
    await patiently(client.lost)
    assert client.lasts == [3]


@pytest_twisted.ensureDeferred
async def test_clientsOfHTTP2AreToldToBeginNoMore(start: Starting) -> None:
    """
    A client of HTTP/2 that goes on with requests is told to begin no more, and
    those that it has begun are answered.
    """
    answers = Answers()
    service = start(answers, site=H2GracefulSite)
    client = await told(service)
    client.ask()
    await answers.arrived()
    stopping = ended(service)
    await eventually(lambda: service.site.isDraining)
    await turn()
    assert client.lasts == []
    streams = [client.ask(), client.ask()]
    await answers.arrived(3)
    await eventually(lambda: client.lasts)
    assert client.lasts == [2**31 - 1]
    for request in answers.requests:
        request.write(b"whole")
        request.finish()
    await patiently(client.lost)
    await stopping
    assert [stream.body for stream in streams] == [b"whole", b"whole"]
    assert client.lasts == [2**31 - 1, 5]


# Twisted hands certificates to OpenSSL in ways that these deprecate.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest_twisted.ensureDeferred
async def test_connectionsOverTLSEnd(start: Starting, tmp_path: Path) -> None:
    """
    Over TLS, too, who waits is answered, and who is idle closed.
    """
    answers = Answers()
    service, connect = overTLS(start, answers, tmp_path)
    connections = []
    for number in (1, 2):
        connections.append(await connect())
        connections[-1].transport.write(GET)
        await answers.arrived(number)
    idle, waiting = connections
    answers.requests[0].finish()
    await patiently(idle.until(b"0\r\n\r\n"))
    stopping = ended(service)
    await patiently(idle.closed)
    answers.requests[1].write(b"whole")
    answers.requests[1].finish()
    assert (await patiently(waiting.closed)).endswith(b"5\r\nwhole\r\n0\r\n\r\n")
    await stopping


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest_twisted.ensureDeferred
async def test_whoDoesNotListenOverTLSDoesNotHoldItUp(
    start: Starting, tmp_path: Path
) -> None:
    """
    An idle client that does not say farewell, as TLS has it, is not waited for;
    one that takes its response slowly gets all of it.
    """
    service, connect = overTLS(start, lambda request: b"x" * 5_000_000, tmp_path)
    slow = await connect()
    slow.transport.pauseProducing()
    slow.transport.write(GET)
    deaf = await connect()
    deaf.transport.write(GET.replace(b"GET", b"HEAD"))
    await patiently(deaf.until(b"\r\n\r\n"))
    deaf.transport.pauseProducing()
    await eventually(lambda: not service.site.running)
    stopping = ended(service)
    await eventually(lambda: len(service.site.connections) == 1)
    assert not stopping.called
    slow.transport.resumeProducing()
    assert (await patiently(slow.closed)).endswith(b"x" * 5_000_000)
    await stopping


def overTLS(start: Starting, page: Any, directory: Path) -> tuple[WebService, Any]:
    """
    A service, and how to connect to it.
    """
    key, certificate = keyAndCertificate()
    (directory / "key.pem").write_bytes(key + certificate)
    endpoint = serverFromString(
        reactor, f"ssl:0:interface=127.0.0.1:privateKey={directory / 'key.pem'}"
    )
    service = start(page, endpoint=endpoint)
    trusting = optionsForClientTLS("127.0.0.1", Certificate.loadPEM(certificate))

    async def connect() -> Connection:
        there = TCP4ClientEndpoint(reactor, "127.0.0.1", portOf(service))
        connection: Connection = await connectProtocol(
            wrapClientTLS(trusting, there), Connection()
        )
        return connection

    return service, connect


# Beginning, and the log.


@pytest_twisted.ensureDeferred
async def test_theLastRequestIsInTheAccessLog(start: Starting, tmp_path: Path) -> None:
    """
    The access log stays open until the last request has ended.
    """
    answers = Answers()
    service = start(answers, logPath=str(tmp_path / "access.log"))
    connection = await connected(service)
    connection.transport.write(GET)
    request = await answers.arrived()
    stopping = ended(service)
    await eventually(lambda: service.site.isDraining)
    request.finish()
    await stopping
    assert '"GET / HTTP/1.1" 200' in (tmp_path / "access.log").read_text()


@pytest_twisted.ensureDeferred
async def test_itCanBeStartedAgain(start: Starting) -> None:
    """
    A service that was stopped can be started again, and serves as before.
    """
    service = start(lambda request: "hello")
    await ended(service)
    service.startService()
    reply = await Browser(portOf(service)).get()
    assert (reply.text, reply.header("Connection")) == ("hello", None)


@pytest_twisted.ensureDeferred
async def test_whereItServesIsLogged(start: Starting, logged: list[Any]) -> None:
    """
    The log says where to find it.
    """
    service = start(lambda request: "hello")
    [event] = [e for e in logged if "address" in e and "Serving" in e["log_format"]]
    assert event["address"] == f"http://127.0.0.1:{portOf(service)}/"


@pytest_twisted.ensureDeferred
async def test_itServesAtSocketsOfOtherKinds(
    start: Starting, tmp_path: Path, logged: list[Any]
) -> None:
    """
    It serves at a UNIX socket, too, and says which.
    """
    description = f"unix:{tmp_path / 'socket'}"
    service = start(lambda request: "hello", endpoint=description)
    connection = await connectProtocol(
        UNIXClientEndpoint(reactor, str(tmp_path / "socket")), Connection()
    )
    connection.transport.write(GET)
    await patiently(connection.until(b"hello"))
    await ended(service)
    assert [e for e in logged if e.get("address") == description]


@define(eq=False)
class Late:
    """
    An endpoint that listens when the test says so.
    """

    listening: Deferred[Any] = field(factory=Deferred)

    def listen(self, factory: Any) -> Deferred[Any]:
        return self.listening


@pytest_twisted.ensureDeferred
async def test_anEndpointMayTakeItsTime(start: Starting, logged: list[Any]) -> None:
    """
    An endpoint that fails later than at once is logged; one that has not answered
    when the service stops is not waited for.
    """
    late = Late()
    service = start(lambda request: "", endpoint=late)
    late.listening.errback(OSError("not today"))
    await ended(service)
    [event] = [e for e in logged if "log_failure" in e]
    assert event["log_failure"].getErrorMessage() == "not today"
    await ended(start(lambda request: "", endpoint=Late()))


@pytest_twisted.ensureDeferred
async def test_aPortThatIsTakenStopsTheOthers(start: Starting) -> None:
    """
    If one endpoint is taken, starting fails, and the others are let go.
    """
    taken = portOf(start(lambda request: "hello"))
    free = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
    service = WebService(
        GracefulSite(Page(lambda request: "")),
        free,
        f"tcp:{taken}:interface=127.0.0.1",
    )
    listening = []
    listen = free.listen
    free.listen = lambda factory: listen(factory).addCallback(  # type: ignore[method-assign]
        lambda port: listening.append(port) or port
    )
    with pytest.raises(CannotListenError):
        service.startService()
    [port] = listening
    await eventually(lambda: not port.connected)


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "nonsense",
        "tcp:x",
        "ssl:0:privateKey=/nowhere",
        "systemd:domain=INET:index=0",
    ],
)
def test_whatIsNoEndpointIsRefused(endpoint: str) -> None:
    """
    A description that describes no endpoint is refused.
    """
    with pytest.raises(ConfigurationError) as caught:
        WebService(GracefulSite(Page(lambda request: "")), endpoint)
    assert caught.value.option == "listen"
    assert repr(endpoint) in str(caught.value)


@pytest.mark.parametrize("gracePeriod", [-1, float("nan"), "x", None])
def test_aGracePeriodThatIsNoneIsRefused(gracePeriod: Any) -> None:
    """
    A grace period is a number of seconds, zero or more.
    """
    with pytest.raises(ConfigurationError) as caught:
        WebService(GracefulSite(Page(lambda request: "")), gracePeriod=gracePeriod)
    assert caught.value.option == "gracePeriod"
