"""
What can be wrapped, and where: every kind of resource that Twisted has, Klein,
WSGI, proxies, WebSockets, compression, HTTP/2, and clients in memory.
"""

from __future__ import annotations

import gzip
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import define, field
from h2.config import H2Configuration
from h2.connection import H2Connection as H2
from h2.events import (
    DataReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from klein import Klein
from treq.client import HTTPClient
from treq.testing import RequestTraversalAgent, StubTreq
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from twisted.web.guard import BasicCredentialFactory, HTTPAuthSessionWrapper
from twisted.web.iweb import IRequest
from twisted.web.resource import (
    EncodingResourceWrapper,
    IResource,
    NoResource,
    Resource,
)
from twisted.web.rewrite import RewriterResource
from twisted.web.server import NOT_DONE_YET, GzipEncoderFactory, Request, Site
from twisted.web.template import Element, XMLString, renderElement, renderer
from twisted.web.util import Redirect
from twisted.web.vhost import NameVirtualHost
from twisted.web.wsgi import WSGIResource
from werkzeug.exceptions import NotFound
from zope.interface import implementer

from txsession import (
    CookieOptions,
    ISession,
    MemoryStore,
    NoSession,
    SessionResource,
    StoreUnavailable,
    getSession,
)

from .support import (
    SECRET,
    Browser,
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
    from twisted.web import static
    from twisted.web.proxy import ReverseProxyResource

try:
    from twisted.web.websocket import WebSocketClientEndpoint, WebSocketResource
except ImportError as error:
    noWebSockets = f"needs Twisted with the websocket extra: {error}"
else:
    noWebSockets = ""

needsWebSockets = pytest.mark.skipif(bool(noWebSockets), reason=noWebSockets)


def count(request: Any) -> int:
    """
    Count the visits in the session.
    """
    session = getSession(request)
    session["n"] = session.get("n", 0) + 1
    n: int = session["n"]
    return n


def counting(request: Any) -> str:
    return str(count(request))


# HTTP/2


@define
class Stream:
    """
    A response over HTTP/2.
    """

    headers: list[tuple[bytes, bytes]] = field(factory=list)
    body: bytes = b""
    isReset: bool = False
    began: Deferred[Any] = field(factory=Deferred)
    ended: Deferred[Any] = field(factory=Deferred)

    def all(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key == name]

    @property
    def status(self) -> int:
        return int(self.all(b":status")[0])


class H2Client(Protocol):
    """
    A client that speaks HTTP/2 from its first byte.
    """

    def __init__(self) -> None:
        self.h2 = H2(H2Configuration(client_side=True, header_encoding=None))
        self.streams: dict[int, Stream] = {}
        self.isReading = True

    def connectionMade(self) -> None:
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self.transport.write(self.h2.data_to_send())

    def ask(
        self, path: str = "/", cookie: str | None = None, method: str = "GET"
    ) -> Stream:
        streamID = self.h2.get_next_available_stream_id()
        headers = [
            (":method", method),
            (":path", path),
            (":authority", "localhost"),
            (":scheme", "http"),
        ]
        if cookie is not None:
            headers.append(("cookie", f"connect.sid={cookie}"))
        self.h2.send_headers(streamID, headers, end_stream=True)
        self.flush()
        self.streams[streamID] = Stream()
        return self.streams[streamID]

    def reset(self, stream: Stream) -> None:
        [streamID] = [key for key, known in self.streams.items() if known is stream]
        self.h2.reset_stream(streamID, error_code=8)
        self.flush()

    def dataReceived(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            stream = self.streams.get(getattr(event, "stream_id", 0))
            if isinstance(event, ResponseReceived):
                stream.headers = event.headers
                stream.began.callback(stream)
            elif isinstance(event, DataReceived):
                stream.body += event.data
                if self.isReading:
                    self.h2.acknowledge_received_data(
                        event.flow_controlled_length, event.stream_id
                    )
            elif isinstance(event, StreamEnded):
                stream.ended.callback(stream)
            elif isinstance(event, StreamReset):
                stream.isReset = True
                stream.ended.callback(stream)
        self.flush()


class H2Site(Site):
    """
    Speaks HTTP/2 with whoever connects, as after an ALPN negotiation.
    """

    def buildProtocol(self, address: Any) -> Any:
        channel = super().buildProtocol(address)
        made = channel.makeConnection

        def makeConnection(transport: Any) -> None:
            transport.negotiatedProtocol = b"h2"
            made(transport)

        channel.makeConnection = makeConnection
        return channel


async def serveH2(serve: Serve, served: Served) -> H2Client:
    site = H2Site(served.resource)
    port = reactor.listenTCP(0, site, interface="127.0.0.1")
    serve.ports.append(port)
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
    client: H2Client = await connectProtocol(endpoint, H2Client())
    return client


def cookieOf(stream: Stream) -> str | None:
    [*values] = stream.all(b"set-cookie")
    if not values:
        return None
    return values[-1].decode().partition("=")[2].partition(";")[0]


@pytest_twisted.ensureDeferred
async def test_http2(serve: Serve) -> None:
    """
    Over HTTP/2 sessions are made, read and changed.
    """
    client = await serveH2(serve, serve(counting))
    first = await patiently(client.ask().ended)
    assert (first.status, first.body) == (200, b"1")
    cookie = cookieOf(first)
    second = await patiently(client.ask(cookie=cookie).ended)
    assert (second.status, second.body) == (200, b"2")
    assert second.all(b"set-cookie") == []
    assert second.all(b"vary") == [b"Cookie"]


@pytest_twisted.ensureDeferred
async def test_http2Held(serve: Serve) -> None:
    """
    Streams of one connection are held each for itself.
    """
    served, store = stepping(serve, counting, "create")
    client = await serveH2(serve, served)
    slow = client.ask("/slow")
    first = await called(store, "create")
    store.held.clear()
    quick = await patiently(client.ask("/quick").ended)
    assert quick.body == b"1"
    assert not slow.began.called
    first.release()
    await patiently(slow.ended)
    assert slow.body == b"1"
    assert len(slow.all(b"set-cookie")) == 1


@pytest_twisted.ensureDeferred
async def test_http2Failed(serve: Serve) -> None:
    """
    A failed save gives an error page, and the connection goes on.
    """

    def page(request: Any) -> Any:
        request.setHeader("X-Mine", "mine")
        request.addCookie("mine", "mine")
        return counting(request)

    served, store = stepping(serve, page, "create")
    client = await serveH2(serve, served)
    stream = client.ask()
    (await called(store, "create")).fail(StoreUnavailable("down"))
    await patiently(stream.ended)
    assert stream.status == 503
    assert stream.all(b"set-cookie") == []
    assert stream.all(b"x-mine") == []
    assert stream.all(b"content-length") == [b"%d" % len(stream.body)]
    store.held.clear()
    assert (await patiently(client.ask().ended)).body == b"1"


@pytest_twisted.ensureDeferred
async def test_http2ResetWhileHeld(serve: Serve) -> None:
    """
    A stream that the client resets while it is held does not stop the save, nor
    the other streams.
    """
    requests: list[Any] = []

    def page(request: Any) -> str:
        requests.append(request)
        return counting(request)

    served, store = stepping(serve, page, "create")
    client = await serveH2(serve, served)
    stream = client.ask()
    call = await called(store, "create")
    client.reset(stream)
    await eventually(lambda: requests[0]._disconnected)
    assert not call.isCancelled
    call.release()
    assert await served.data(call.arguments[0]) == {"n": 1}
    store.held.clear()
    assert (await patiently(client.ask().ended)).body == b"1"


@pytest_twisted.ensureDeferred
async def test_http2ResetWhileLoading(serve: Serve) -> None:
    """
    A stream that is reset while its session is loaded cancels the load, and the
    application is not called.
    """
    requests: list[Any] = []

    def page(request: Any) -> str:
        requests.append(request)
        return counting(request)

    served, store = stepping(serve, page)
    client = await serveH2(serve, served)
    first = await patiently(client.ask().ended)
    store.held.add("get")
    stream = client.ask(cookie=cookieOf(first))
    call = await called(store, "get")
    client.reset(stream)
    await eventually(lambda: call.isCancelled)
    await turn()
    assert len(requests) == 1
    store.held.clear()
    assert (await patiently(client.ask(cookie=cookieOf(first)).ended)).body == b"2"


@pytest_twisted.ensureDeferred
async def test_http2LargeFileHeld(serve: Serve, tmp_path: Path) -> None:
    """
    A file larger than the flow-control window arrives whole after a hold.
    """
    content = bytes(range(256)) * 4_000
    (tmp_path / "large").write_bytes(content)
    served, store = stepping(
        serve, static.File(str(tmp_path)), "create", saveUninitialized=True
    )
    client = await serveH2(serve, served)
    stream = client.ask("/large")
    (await called(store, "create")).release()
    await patiently(stream.ended)
    assert stream.status == 200
    assert stream.body == content
    assert len(stream.all(b"set-cookie")) == 1


@pytest_twisted.ensureDeferred
async def test_http2LateChanges(serve: Serve) -> None:
    """
    Late changes are saved before the stream ends.
    """
    requests: list[Any] = []

    def page(request: Any) -> Any:
        count(request)
        requests.append(request)
        request.write(b"one")
        return NOT_DONE_YET

    served, store = stepping(serve, page)
    client = await serveH2(serve, served)
    stream = client.ask()
    await patiently(stream.began)
    [sid] = await store.store.all()
    getSession(requests[0])["late"] = True
    store.held.add("replace")
    requests[0].finish()
    call = await called(store, "replace")
    await turn(20)
    assert not stream.ended.called
    call.release()
    await patiently(stream.ended)
    assert stream.body == b"one"
    assert await served.data(sid) == {"n": 1, "late": True}


@pytest_twisted.ensureDeferred
async def test_http2LateSaveThatFails(serve: Serve) -> None:
    """
    A late save that fails resets the stream, not the connection.
    """
    requests: list[Any] = []
    ends: list[Any] = []

    def page(request: Any) -> Any:
        count(request)
        if request.path == b"/other":
            return b"other"
        requests.append(request)
        request.notifyFinish().addBoth(ends.append)
        request.write(b"one")
        return NOT_DONE_YET

    served, store = stepping(serve, page)
    client = await serveH2(serve, served)
    stream = client.ask()
    await patiently(stream.began)
    getSession(requests[0])["late"] = True
    store.held.add("replace")
    requests[0].finish()
    (await called(store, "replace")).fail(StoreUnavailable("down"))
    await patiently(stream.ended)
    assert stream.isReset
    assert isinstance(ends[0], Failure)
    assert (await patiently(client.ask("/other").ended)).body == b"other"


@pytest_twisted.ensureDeferred
async def test_http2PushProducerHeld(serve: Serve) -> None:
    """
    A push producer over HTTP/2 is paused while held, resumed after it, and then
    obeys the window.
    """

    class Push:
        def __init__(self, request: Any) -> None:
            self.request = request
            self.calls: list[str] = []

        def pauseProducing(self) -> None:
            self.calls.append("pause")

        def resumeProducing(self) -> None:
            self.calls.append("resume")

        def stopProducing(self) -> None:
            self.calls.append("stop")

    producers: list[Push] = []

    def page(request: Any) -> Any:
        count(request)
        producers.append(Push(request))
        request.registerProducer(producers[0], True)
        request.write(b"one")
        return NOT_DONE_YET

    served, store = stepping(serve, page, "create")
    client = await serveH2(serve, served)
    client.isReading = False
    stream = client.ask()
    call = await called(store, "create")
    [producer] = producers
    assert producer.calls == ["pause"]
    call.release()
    assert producer.calls == ["pause", "resume"]
    producer.request.write(bytes(70_000))
    await eventually(lambda: len(producer.calls) == 3)
    assert producer.calls[-1] == "pause"
    await eventually(lambda: len(stream.body) > 60_000)
    client.h2.increment_flow_control_window(1_000_000)
    client.h2.increment_flow_control_window(1_000_000, stream_id=1)
    client.flush()
    await eventually(lambda: len(producer.calls) == 4)
    assert producer.calls[-1] == "resume"
    producer.request.unregisterProducer()
    producer.request.finish()
    await patiently(stream.ended)
    assert len(stream.body) == 70_003


@pytest_twisted.ensureDeferred
async def test_http2Head(serve: Serve) -> None:
    """
    A HEAD over HTTP/2 has headers, the cookie and no body.
    """
    client = await serveH2(serve, serve(counting))
    stream = await patiently(client.ask(method="HEAD").ended)
    assert stream.status == 200
    assert stream.body == b""
    assert cookieOf(stream) is not None


# gzip


def gzipped(resource: Any) -> EncodingResourceWrapper:
    return EncodingResourceWrapper(resource, [GzipEncoderFactory()])


def prefixed(request: Any) -> Any:
    """
    Write in parts, with a length that compression makes wrong.
    """
    count(request)
    request.setHeader("Content-Length", "20")
    request.write(b"0123456789")
    request.write(b"0123456789")
    request.finish()
    return NOT_DONE_YET


PLACES: dict[str, Callable[[Serve, Any, StepStore, Any], Served]] = {
    "outside": lambda serve, page, store, clock: serve(
        page, store=store, clock=clock, mount=gzipped
    ),
    "inside": lambda serve, page, store, clock: serve(
        _NotAFunction(gzipped(Page(page))), store=store, clock=clock
    ),
    "both": lambda serve, page, store, clock: serve(
        _NotAFunction(gzipped(Page(page))), store=store, clock=clock, mount=gzipped
    ),
    "deep": lambda serve, page, store, clock: serve(
        _below(gzipped(Page(page))), store=store, clock=clock
    ),
}


def _NotAFunction(resource: Any) -> Any:
    assert not callable(resource)
    return resource


def _below(resource: Any) -> Resource:
    root = Resource()
    root.putChild(b"", resource)
    return root


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("isSlow", [True, False])
@pytest.mark.parametrize("page", [prefixed, lambda request: str(count(request)) * 50])
@pytest_twisted.ensureDeferred
async def test_gzip(serve: Serve, place: str, isSlow: bool, page: Any) -> None:
    """
    Compression works outside and inside of the sessions, held or not.
    """
    clock = clockAt()
    store = StepStore(MemoryStore(reactor=clock), ["create"] if isSlow else [])
    served = PLACES[place](serve, page, store, clock)
    raw = served.browser().raw(
        b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n"
        b"Connection: close\r\n\r\n"
    )
    answer = Deferred.fromCoroutine(raw)
    if isSlow:
        (await called(store, "create")).release()
    head, _, body = (await patiently(answer)).partition(b"\r\n\r\n")
    assert b"HTTP/1.1 200 OK" in head
    assert b"connect.sid=" in head
    encodings = [
        line.lower()
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-encoding")
    ]
    assert encodings == [b"content-encoding: gzip"]
    assert b"content-length" not in head.lower()
    expected = b"01234567890123456789" if page is prefixed else b"1" * 50
    assert gzip.decompress(dechunked(body)) == expected


def dechunked(body: bytes) -> bytes:
    whole = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        whole += rest[:length]
        body = rest[length + 2 :]
    return whole


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("operation", ["get", "replace"])
@pytest_twisted.ensureDeferred
async def test_gzipAndAFailedSave(serve: Serve, place: str, operation: str) -> None:
    """
    The error page for a failed load or save is not compressed, and does not say
    that it is.
    """
    clock = clockAt()
    store = StepStore(MemoryStore(reactor=clock))
    served = PLACES[place](serve, counting, store, clock)
    browser = served.browser()
    await browser.get()
    store.held.add(operation)
    cookie = f"connect.sid={browser.cookies['connect.sid']}".encode()
    raw = browser.raw(
        b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n"
        b"Cookie: " + cookie + b"\r\nConnection: close\r\n\r\n"
    )
    answer = Deferred.fromCoroutine(raw)
    (await called(store, operation)).fail(StoreUnavailable("down"))
    head, _, body = (await patiently(answer)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"content-encoding" not in head.lower()
    assert b"503 Service Unavailable" in body
    assert b"content-length: %d" % len(body) in head.lower()


# Resources of Twisted's.


@pytest_twisted.ensureDeferred
async def test_aDirectoryOfFiles(serve: Serve, tmp_path: Path) -> None:
    """
    A directory with an index, subdirectories and a listing works below sessions.
    """
    (tmp_path / "index.html").write_text("<h1>index</h1>")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a b.txt").write_text("a b")
    browser = serve(static.File(str(tmp_path)), saveUninitialized=True).browser()
    index = await browser.get("/")
    assert (index.text, index.header("Content-Type")) == ("<h1>index</h1>", "text/html")
    assert index.cookie() is not None
    assert (await browser.get("/sub/a%20b.txt")).text == "a b"
    listing = await browser.get("/sub/")
    assert "a%20b.txt" in listing.text
    redirect = await browser.get("/sub")
    assert redirect.status == 302
    assert (await browser.get("/none")).status == 404
    assert (await browser.get("/../conftest.py")).status == 404


@pytest_twisted.ensureDeferred
async def test_aResourceTree(serve: Serve) -> None:
    """
    Dynamic children, children of children and C{prepath} are what they are
    without sessions.
    """

    class Dynamic(Resource):
        def __init__(self, name: bytes = b"root") -> None:
            super().__init__()
            self.name = name

        def getChild(self, name: bytes, request: Any) -> Resource:
            assert getSession(request) is not None
            return Dynamic(name) if name != b"none" else NoResource()

        def render_GET(self, request: Any) -> bytes:
            count(request)
            return b"%s %r %r" % (self.name, request.prepath, request.postpath)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        browser = serve(Dynamic()).browser()
        assert (await browser.get("/a/b")).text == "b [b'a', b'b'] []"
        assert (await browser.get("/a/none")).status == 404


@pytest_twisted.ensureDeferred
async def test_deepInAResourceTree(serve: Serve) -> None:
    """
    Mounted deep in a tree, with a tree of its own, it finds its children.
    """

    def mount(resource: Any) -> Resource:
        root, middle = Resource(), Resource()
        root.putChild(b"outer", middle)
        middle.putChild(b"app", resource)
        return root

    inner = Resource()
    leaf = Page(lambda request: repr(request.prepath) + str(count(request)))
    inner.putChild(b"", Page(lambda request: "index " + request.prePathURL().decode()))
    inner.putChild(b"leaf", leaf)
    browser = serve(inner, mount=mount).browser()
    assert (await browser.get("/outer/app/leaf")).text == "[b'outer', b'app', b'leaf']1"
    assert (await browser.get("/outer/app/leaf/x")).text.endswith("2")
    assert (await browser.get("/outer/app/")).text == (
        f"index http://127.0.0.1:{browser.port}/outer/app/"
    )
    assert (await browser.get("/outer/app/none")).status == 404
    assert (await browser.get("/outer/none")).setCookies == []


@pytest_twisted.ensureDeferred
async def test_behindAVirtualHost(serve: Serve) -> None:
    """
    A virtual host in front of the sessions leaves the path to them.
    """

    def mount(resource: Any) -> Resource:
        hosts = NameVirtualHost()
        hosts.addHost(b"app.example", resource)
        return hosts

    root, branch = Resource(), Resource()
    root.putChild(b"branch", branch)
    branch.putChild(b"new", Page(counting))
    browser = serve(root, mount=mount).browser()
    reply = await browser.get("/branch/new", headers={"Host": "app.example"})
    assert reply.text == "1"
    assert (await browser.get("/branch/new", headers={"Host": "other"})).status == 404


@pytest_twisted.ensureDeferred
async def test_behindARewrite(serve: Serve) -> None:
    """
    So does a resource that rewrites the path and asks the next one for its
    child.
    """

    def rewrite(request: Any) -> None:
        if request.postpath[:1] == [b"old"]:
            request.postpath[0] = b"new"

    root = Resource()
    root.putChild(b"new", Page(lambda request: f"{count(request)} {request.prepath}"))
    browser = serve(
        root, mount=lambda resource: RewriterResource(resource, rewrite)
    ).browser()
    assert (await browser.get("/old")).text == "1 [b'new']"
    assert (await browser.get("/new")).text == "2 [b'new']"


@pytest_twisted.ensureDeferred
async def test_basicAuthentication(serve: Serve) -> None:
    """
    A guard inside of the sessions lets in whom it knows.
    """

    @implementer(IRealm)
    class Realm:
        def requestAvatar(self, avatar: Any, mind: Any, *interfaces: Any) -> Any:
            return IResource, Page(counting), lambda: None

    checker = InMemoryUsernamePasswordDatabaseDontUse(ada=b"secret")
    guard = HTTPAuthSessionWrapper(
        Portal(Realm(), [checker]), [BasicCredentialFactory(b"here")]
    )
    browser = serve(guard).browser()
    refused = await browser.get()
    assert refused.status == 401
    assert refused.header("WWW-Authenticate") == 'basic realm="here"'
    known = {"Authorization": "Basic YWRhOnNlY3JldA=="}
    assert (await browser.get(headers=known)).text == "1"


@pytest_twisted.ensureDeferred
async def test_aTemplateThatTakesItsTime(serve: Serve) -> None:
    """
    A template that is flattened piece by piece, waiting for Deferreds, is held
    and let go like anything else.
    """

    class Slow(Element):
        loader = XMLString(
            '<p xmlns:t="http://twistedmatrix.com/ns/twisted.web.template/0.1">'
            'a<b t:render="later"/>c</p>'
        )

        @renderer
        def later(self, request: Any, tag: Any) -> Any:
            return deferLater(reactor, 0, lambda: tag("b" * 70_000))

    def page(request: Any) -> Any:
        count(request)
        return renderElement(request, Slow())

    served, store = stepping(serve, page, "create")
    reply = patiently(served.browser().get())
    (await called(store, "create")).release()
    text = (await reply).text
    assert text.endswith("<p>a<b>" + "b" * 70_000 + "</b>c</p>")


@pytest_twisted.ensureDeferred
async def test_redirects(serve: Serve) -> None:
    """
    A child that redirects does.
    """
    root = Resource()
    root.putChild(b"go", Redirect(b"/there"))
    reply = await serve(root, saveUninitialized=True).browser().get("/go")
    assert (reply.status, reply.header("Location")) == (302, "/there")
    assert reply.cookie() is not None


# WSGI


@pytest.fixture
def threads() -> Iterator[ThreadPool]:
    """
    A pool of threads that is stopped after the test.
    """
    pool = ThreadPool(1, 2)
    pool.start()
    yield pool
    pool.stop()


class Counted(Resource):
    """
    Counts the visit in the session before another resource answers.
    """

    isLeaf = True

    def __init__(self, resource: Any) -> None:
        super().__init__()
        self.resource = resource

    def render(self, request: Any) -> Any:
        count(request)
        return self.resource.render(request)


def wsgi(environ: Any, start: Any) -> Any:
    start("201 Made", [("X-Path", environ["PATH_INFO"]), ("Set-Cookie", "mine=1")])
    yield b"one,"
    yield environ["REQUEST_METHOD"].encode()


@pytest.mark.parametrize("isSlow", [True, False])
@pytest_twisted.ensureDeferred
async def test_wsgi(serve: Serve, threads: ThreadPool, isSlow: bool) -> None:
    """
    A WSGI application, whose parts come from a thread, is held and let go.
    """
    served, store = stepping(
        serve,
        Counted(WSGIResource(reactor, threads, wsgi)),
        *(["create"] if isSlow else []),
    )
    reply = patiently(served.browser().post("/some/path"))
    if isSlow:
        (await called(store, "create")).release()
    response = await reply
    assert (response.status, response.phrase) == (201, b"Made")
    assert response.text == "one,POST"
    assert response.header("X-Path") == "/some/path"
    assert response.cookie("mine") is not None
    assert response.cookie() is not None


@pytest_twisted.ensureDeferred
async def test_wsgiThatFailsToBeSaved(serve: Serve, threads: ThreadPool) -> None:
    """
    The thread of a WSGI application whose session could not be saved goes on to
    its end, unnoticed.
    """
    closed: Deferred[None] = Deferred()

    class Parts:
        def __iter__(self) -> Any:
            yield b"one,"
            yield b"two,"

        def close(self) -> None:
            reactor.callFromThread(closed.callback, None)

    def application(environ: Any, start: Any) -> Any:
        start("200 OK", [])
        return Parts()

    served, store = stepping(
        serve, Counted(WSGIResource(reactor, threads, application)), "create"
    )
    reply = patiently(served.browser().get())
    (await called(store, "create")).fail(StoreUnavailable("down"))
    response = await reply
    assert response.status == 503
    assert "one," not in response.text
    await patiently(closed)
    await turn(5)


@pytest_twisted.ensureDeferred
async def test_wsgiThatRaises(serve: Serve, threads: ThreadPool) -> None:
    """
    A WSGI application that raises before its first part gets a 500, and the
    session is saved.
    """

    def application(environ: Any, start: Any) -> Any:
        raise KeyError("lost")

    browser = serve(Counted(WSGIResource(reactor, threads, application))).browser()
    reply = await patiently(browser.get())
    assert reply.status == 500
    assert reply.cookie() is not None


@pytest_twisted.ensureDeferred
async def test_wsgiThatRaisesHalfway(serve: Serve, threads: ThreadPool) -> None:
    """
    A WSGI application that raises after its first part has its connection
    closed, as without sessions, while its session is saved all the same.
    """

    def application(environ: Any, start: Any) -> Any:
        start("200 OK", [])
        yield b"one,"
        raise KeyError("lost")

    served, store = stepping(
        serve, Counted(WSGIResource(reactor, threads, application)), "create"
    )
    connection = await served.browser().connect()
    connection.transport.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    call = await called(store, "create")
    call.release()
    received = await patiently(connection.closed)
    assert not received.endswith(b"\r\n0\r\n\r\n")
    assert await served.data(call.arguments[0]) == {"n": 1}


# Reverse proxy


@pytest.mark.parametrize("isSlow", [True, False])
@pytest_twisted.ensureDeferred
async def test_aReverseProxy(serve: Serve, isSlow: bool) -> None:
    """
    What another server answers passes through, its cookies beside ours.
    """

    def behind(request: Any) -> Any:
        request.setResponseCode(203)
        request.addCookie("theirs", "1")
        request.setHeader("X-Theirs", "yes")
        return b"behind " + request.uri + b"!" * 100_000

    backend = serve.site(Page(behind))
    proxy = Counted(ReverseProxyResource("127.0.0.1", backend.port, b"/base"))
    served, store = stepping(serve, proxy, *(["create"] if isSlow else []))
    reply = patiently(served.browser().get("/?a=b"))
    if isSlow:
        (await called(store, "create")).release()
    response = await reply
    assert response.status == 203
    assert response.body == b"behind /base?a=b" + b"!" * 100_000
    assert response.header("X-Theirs") == "yes"
    assert response.cookie("theirs") is not None
    assert response.cookie() is not None


@pytest_twisted.ensureDeferred
async def test_aReverseProxyWhoseSaveFails(serve: Serve) -> None:
    """
    Nothing of what the other server answered is left on the error page.
    """
    backend = serve.site(Page(lambda request: b"behind" * 50_000))
    proxy = Counted(ReverseProxyResource("127.0.0.1", backend.port, b""))
    served, store = stepping(serve, proxy, "create")
    reply = patiently(served.browser().get())
    (await called(store, "create")).fail(StoreUnavailable("down"))
    response = await reply
    assert response.status == 503
    assert b"behind" not in response.body
    await turn(20)


# WebSocket


@define
class Talk:
    """
    One side of a WebSocket.
    """

    said: list[str] = field(factory=list)
    transport: Any = None
    lost: Deferred[Any] = field(factory=Deferred)
    _heard: list[Deferred[str]] = field(factory=list)

    def negotiationStarted(self, transport: Any) -> None:
        self.transport = transport

    def negotiationFinished(self) -> None:
        pass

    def pongReceived(self, payload: bytes) -> None:
        pass

    def bytesMessageReceived(self, data: Any) -> None:
        pass

    def textMessageReceived(self, message: str) -> None:
        self.said.append(message)
        if self._heard:
            self._heard.pop(0).callback(message)

    def heard(self) -> Deferred[str]:
        d: Deferred[str] = Deferred()
        self._heard.append(d)
        return d

    def connectionLost(self, reason: Failure) -> None:
        self.lost.callback(None)


@define
class Server(Talk):
    """
    Obeys: each message is an operation on the session.
    """

    request: Any = None
    session: Any = None

    def textMessageReceived(self, message: str) -> None:
        Deferred.fromCoroutine(self.obey(message)).addErrback(
            lambda failure: self.transport.sendTextMessage(failure.type.__name__)
        )

    async def obey(self, message: str) -> None:
        word, _, rest = message.partition(" ")
        if word == "set":
            key, _, value = rest.partition("=")
            self.session[key] = value
        elif word in ("save", "reload", "regenerate", "destroy"):
            await getattr(self.session, word)()
        data = dict(self.session)
        self.transport.sendTextMessage(" ".join(f"{k}={v}" for k, v in data.items()))


@define
class Sockets:
    """
    Builds the server's side of WebSockets.
    """

    made: list[Server] = field(factory=list)

    def buildProtocol(self, request: Any) -> Server:
        self.made.append(Server(request=request, session=getSession(request)))
        return self.made[-1]


@define
class Clients:
    def buildProtocol(self, url: str) -> Talk:
        return Talk()


def socketsBeside(page: Callable[[Any], Any]) -> tuple[Resource, Sockets]:
    sockets = Sockets()
    root = Resource()
    root.putChild(b"", Page(page))
    root.putChild(b"ws", WebSocketResource(sockets))
    return root, sockets


async def talk(port: int, cookie: str | None) -> Talk:
    """
    Open a WebSocket; the cookie is sent in the query, which the server moves.
    """
    url = f"ws://127.0.0.1:{port}/ws" + (f"?{cookie}" if cookie else "")
    endpoint = WebSocketClientEndpoint.new(reactor, url)
    client: Talk = await patiently(endpoint.connect(Clients()))
    return client


class CookieFromQuery(Request):
    """
    A request that takes its Cookie header from the query, for a client that
    cannot send one.
    """

    def process(self) -> None:
        _, _, query = self.uri.partition(b"?")
        if query.startswith(b"connect.sid="):
            self.requestHeaders.addRawHeader(b"Cookie", query)
        super().process()


async def say(client: Talk, message: str) -> str:
    heard = client.heard()
    client.transport.sendTextMessage(message)
    answer: str = await patiently(heard)
    return answer


@pytest.mark.parametrize("isSlow", [True, False])
@needsWebSockets
@pytest_twisted.ensureDeferred
async def test_aWebSocketHasItsSession(serve: Serve, isSlow: bool) -> None:
    """
    A WebSocket finds the session loaded, and can save and reload it for as long
    as the socket lives.
    """
    root, sockets = socketsBeside(counting)
    served, store = stepping(serve, root)
    served.site.requestFactory = CookieFromQuery
    browser = served.browser()
    await browser.get()
    [sid] = await store.store.all()
    if isSlow:
        store.held.add("get")
    opening = patiently(
        talk(browser.port, "connect.sid=" + browser.cookies["connect.sid"])
    )
    if isSlow:
        call = await called(store, "get")
        store.held.clear()
        call.release()
    client = await opening
    assert await say(client, "hello") == "n=1"
    assert await say(client, "set color=red") == "n=1 color=red"
    assert await served.data(sid) == {"n": 1}
    assert await say(client, "save") == "n=1 color=red"
    assert await served.data(sid) == {"n": 1, "color": "red"}
    assert (await browser.get()).text == "2"
    assert await say(client, "hello") == "n=1 color=red"
    assert await say(client, "reload") == "n=2 color=red"
    assert await say(client, "set color=blue") == "n=2 color=blue"
    await browser.get()
    assert await say(client, "save") == "n=3 color=blue"
    client.transport.loseConnection()
    await patiently(sockets.made[0].lost)
    session = sockets.made[0].session
    session["after"] = True
    await session.save()
    assert await served.data(sid) == {"n": 3, "color": "blue", "after": True}


@needsWebSockets
@pytest_twisted.ensureDeferred
async def test_aWebSocketWithoutASessionCannotMakeOne(serve: Serve) -> None:
    """
    A WebSocket whose client sent no cookie has a new session that cannot be
    saved, since no cookie could be set.
    """
    root, _ = socketsBeside(counting)
    served, store = stepping(serve, root)
    client = await talk(served.port, None)
    assert await say(client, "hello") == ""
    assert await say(client, "save") == "HeadersAlreadySent"
    assert await say(client, "regenerate") == "HeadersAlreadySent"
    assert store.calls == []
    client.transport.loseConnection()
    await patiently(client.lost)


@needsWebSockets
@pytest_twisted.ensureDeferred
async def test_aWebSocketWhoseSessionIsDestroyed(serve: Serve) -> None:
    """
    When another request destroys the session, the socket's save says so.
    """

    async def page(request: Any) -> str:
        if request.args.get(b"out"):
            await getSession(request).destroy()
            return "out"
        return counting(request)

    root, _ = socketsBeside(page)
    served, store = stepping(serve, root)
    served.site.requestFactory = CookieFromQuery
    browser = served.browser()
    await browser.get()
    cookie = "connect.sid=" + browser.cookies["connect.sid"]
    client = await talk(browser.port, cookie)
    await browser.get("/?out=1")
    assert await say(client, "set color=red") == "n=1 color=red"
    assert await say(client, "save") == "SessionGone"
    assert await say(client, "reload") == "SessionGone"
    assert await store.store.length() == 0
    client.transport.loseConnection()
    await patiently(client.lost)


@needsWebSockets
@pytest_twisted.ensureDeferred
async def test_aWebSocketThatIsRefused(serve: Serve) -> None:
    """
    A plain request to a WebSocket's address is answered with 400.
    """
    root, _ = socketsBeside(counting)
    reply = await serve(root).browser().get("/ws")
    assert reply.status == 400


# Sessions in sessions


@pytest_twisted.ensureDeferred
async def test_anOuterSessionResourceTakesTheRequest(serve: Serve) -> None:
    """
    Below a SessionResource another one gives no second session, and sends no
    second cookie.
    """
    inner = SessionResource(Page(counting), secret="inner", name="inner")
    browser = serve(inner, name="outer").browser()
    assert (await browser.get()).text == "1"
    assert (await browser.get()).text == "2"
    assert set(browser.cookies) == {"outer"}
    assert await inner.store.length() == 0


@pytest_twisted.ensureDeferred
async def test_theInnerOneDoesNotReviveADestroyedSession(serve: Serve) -> None:
    """
    That the outer session was destroyed on the way does not let the inner one
    take over.
    """
    seen: list[Any] = []

    def page(request: Any) -> bytes:
        seen.append(ISession(request, None))
        with pytest.raises(NoSession):
            getSession(request)
        return b"gone"

    inner = SessionResource(Page(page), secret="inner", name="inner")

    class Destroying(Resource):
        isLeaf = True

        def render(self, request: Any) -> Any:
            getSession(request).destroy().addCallback(
                lambda _: request.render(inner)
            ).addErrback(request.processingFailed)
            return NOT_DONE_YET

    reply = await serve(Destroying(), name="outer").browser().get()
    assert (reply.status, reply.text) == (200, "gone")
    assert seen == [None]
    assert reply.setCookies == []


@pytest_twisted.ensureDeferred
async def test_theInnerOneTakesWhatTheOuterLeaves(serve: Serve) -> None:
    """
    A request outside the outer cookie's path is the inner one's.
    """
    clock = clockAt()
    inner = SessionResource(Page(counting), secret="inner", name="inner", reactor=clock)
    browser = serve(
        inner, name="outer", cookie=CookieOptions(path="/shop"), clock=clock
    ).browser()
    reply = await browser.get("/shop/a")
    assert reply.cookie("outer") is not None
    assert reply.cookie("inner") is None
    reply = await browser.get("/else")
    assert reply.cookie("inner") is not None
    assert reply.cookie("outer") is None


@pytest_twisted.ensureDeferred
async def test_anonymousStaysAnonymousBelow(serve: Serve) -> None:
    """
    A request that is served without a session, because the store is down, is
    taken all the same.
    """

    class Down(MemoryStore):
        available = False

    clock = clockAt()
    inner = SessionResource(
        Page(lambda request: repr(ISession(request, None))), secret="x", name="inner"
    )
    reply = await (
        serve(
            inner,
            store=Down(reactor=clock),
            clock=clock,
            storeDown="anonymous",
        )
        .browser()
        .get()
    )
    assert reply.text == "None"
    assert reply.setCookies == []


@pytest.mark.parametrize(
    ("path", "isInside"),
    [
        ("/shop", True),
        ("/shop/", True),
        ("/shop/a", True),
        ("/shop?x=1", True),
        ("/shopping", False),
        ("/", False),
        ("/Shop", False),
        ("/%73hop", False),
        ("//shop", False),
        ("/other/../shop", False),
    ],
)
@pytest_twisted.ensureDeferred
async def test_pathsOutsideTheCookies(serve: Serve, path: str, isInside: bool) -> None:
    """
    A request outside the cookie's path is rendered as if unwrapped: no session,
    no cookie, no header of ours, no call of the store.
    """

    def page(request: Any) -> str:
        session = ISession(request, None)
        if session is not None:
            session["n"] = 1
        return "session" if session is not None else "none"

    served, store = stepping(serve, page, cookie=CookieOptions(path="/shop"))
    received = await patiently(
        served.browser().raw(
            b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            % path.encode()
        )
    )
    assert received.endswith(b"session" if isInside else b"none")
    assert (b"connect.sid=" in received) is isInside
    assert (b"Vary" in received) is isInside
    assert (store.calls == []) is not isInside


@pytest_twisted.ensureDeferred
async def test_twoSessionResourcesBesideEachOther(serve: Serve) -> None:
    """
    Two of them in one tree each keep their own sessions.
    """
    clock = clockAt()
    shop = SessionResource(Page(counting), secret="a", name="shop", reactor=clock)
    blog = SessionResource(Page(counting), secret="b", name="blog", reactor=clock)
    root = Resource()
    root.putChild(b"shop", shop)
    root.putChild(b"blog", blog)
    browser = Browser(serve.site(root).port)
    assert (await browser.get("/shop")).text == "1"
    assert (await browser.get("/blog")).text == "1"
    assert (await browser.get("/shop")).text == "2"
    assert set(browser.cookies) == {"shop", "blog"}


# Klein


def kleinApp() -> Any:
    app = Klein()

    @app.route("/", methods=["GET"])
    def index(request: Any) -> Any:
        return counting(request)

    @app.route("/item/<int:number>")
    async def item(request: Any, number: int) -> Any:
        getSession(request)["item"] = number
        await deferLater(reactor, 0)
        return str(getSession(request)["item"])

    @app.route("/generator")
    @inlineCallbacks
    def generator(request: Any) -> Any:
        yield getSession(request).save()
        return "saved"

    @app.route("/files/", branch=True)
    def files(request: Any) -> Any:
        count(request)
        return Page(lambda request: repr(request.postpath))

    @app.route("/boom")
    def boom(request: Any) -> Any:
        count(request)
        raise KeyError("boom")

    @app.route("/unhandled")
    def unhandled(request: Any) -> Any:
        count(request)
        raise ZeroDivisionError

    @app.handle_errors(KeyError)
    def onKeyError(request: Any, failure: Any) -> Any:
        request.setResponseCode(418)
        return "teapot " + counting(request)

    @app.handle_errors(NotFound)
    def onNotFound(request: Any, failure: Any) -> Any:
        request.setResponseCode(404)
        return "nothing " + counting(request)

    with app.subroute("/admin") as sub:

        @sub.route("/users")
        def users(request: Any) -> Any:
            return "users " + counting(request)

    @app.route("/redirect")
    def redirect(request: Any) -> Any:
        count(request)
        request.redirect(b"/")
        return b""

    @app.route("/written")
    def written(request: Any) -> Any:
        count(request)
        request.write(b"one,")
        return deferLater(reactor, 0, lambda: b"two")

    @app.route("/raised-later")
    async def raisedLater(request: Any) -> Any:
        count(request)
        request.write(b"one,")
        await deferLater(reactor, 0)
        raise ZeroDivisionError

    return app


KLEIN = {
    "/": (200, "1"),
    "/item/7": (200, "7"),
    "/generator": (200, "saved"),
    "/files/a/b": (200, "[b'a', b'b']"),
    "/boom": (418, "teapot 2"),
    "/none": (404, "nothing 1"),
    "/admin/users": (200, "users 1"),
    "/redirect": (302, ""),
    "/written": (200, "one,two"),
}


@pytest.mark.parametrize("path", KLEIN)
@pytest.mark.parametrize("isSlow", [True, False])
@pytest_twisted.ensureDeferred
async def test_klein(serve: Serve, path: str, isSlow: bool) -> None:
    """
    Klein's routes, sub-routes, returned resources, templates and error handlers
    have the session, and what they change in it is saved, on errors as well.
    """
    app = kleinApp()
    served, store = stepping(serve, app.resource(), *(["create"] if isSlow else []))
    reply = patiently(served.browser().get(path))
    if isSlow:
        (await called(store, "create")).release()
    response = await reply
    status, text = KLEIN[path]
    assert (response.status, response.text) == (status, text)
    cookie = response.cookie()
    assert cookie is not None
    assert await served.record(cookie.sid) is not None


@pytest_twisted.ensureDeferred
async def test_kleinItself(serve: Serve) -> None:
    """
    A Klein app is wrapped as it is.
    """
    clock = clockAt()
    resource = SessionResource(kleinApp(), secret=SECRET, reactor=clock)
    browser = Browser(serve.site(resource).port)
    assert (await browser.get()).text == "1"
    assert (await browser.get("/admin/users")).text == "users 2"
    assert (await browser.request("HEAD", "/")).body == b""
    assert (await browser.request("DELETE", "/")).status == 405
    assert (await browser.get()).text == "4"


@pytest_twisted.ensureDeferred
async def test_kleinThatRaises(serve: Serve) -> None:
    """
    An exception that no handler of Klein's takes is a 500 with a saved session,
    and an exception behind the first write is appended.
    """
    browser = serve(kleinApp().resource()).browser()
    reply = await browser.get("/unhandled")
    assert reply.status == 500
    assert reply.cookie() is not None
    assert (await browser.get("/")).text == "2"
    reply = await browser.get("/raised-later")
    assert reply.status == 200
    assert reply.text.startswith("one,")
    assert "Processing Failed" in reply.text


@pytest.mark.parametrize("path", ["/", "/written", "/raised-later", "/boom"])
@pytest_twisted.ensureDeferred
async def test_kleinWhoseSaveFails(serve: Serve, path: str) -> None:
    """
    A failed save replaces whatever Klein answered.
    """
    served, store = stepping(serve, kleinApp().resource(), "create")
    reply = patiently(served.browser().get(path))
    (await called(store, "create")).fail(StoreUnavailable("down"))
    response = await reply
    assert response.status == 503
    assert "one," not in response.text
    assert response.setCookies == []
    await turn(5)


@pytest_twisted.ensureDeferred
async def test_kleinWhoseClientLeaves(serve: Serve) -> None:
    """
    Klein cancels a handler whose client leaves; nothing is saved for it.
    """
    app = Klein()
    cancelled: list[Any] = []
    began: Deferred[Any] = Deferred()

    @app.route("/")
    def slow(request: Any) -> Any:
        count(request)
        began.callback(request)
        return Deferred(cancelled.append)

    served, store = stepping(serve, app.resource())
    connection = await served.browser().connect()
    connection.transport.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await patiently(began)
    connection.transport.abortConnection()
    await eventually(lambda: cancelled)
    await turn()
    assert store.calls == []


# Requests of one's own


class Shouting(Request):
    """
    A request whose class changes what is written, and counts.
    """

    finishes = 0
    writes = 0

    def write(self, data: bytes) -> None:
        self.writes += 1
        super().write(data.upper())

    def finish(self) -> None:
        self.finishes += 1
        super().finish()

    def whoami(self) -> str:
        return type(self).__name__


class Slotted(Request):
    """
    A request with a slot.
    """

    __slots__ = ("color",)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.color = "red"


@pytest.mark.parametrize("outcome", ["at once", "held", "failed"])
@pytest_twisted.ensureDeferred
async def test_aSubclassOfRequest(serve: Serve, outcome: str) -> None:
    """
    The site's own class of requests keeps its methods, and each call reaches
    them once.
    """
    requests: list[Any] = []

    def page(request: Any) -> Any:
        requests.append(request)
        assert isinstance(request, Shouting)
        assert IRequest.providedBy(request)
        assert request.whoami() == "Shouting"
        assert repr(request).startswith("<Shouting at ")
        count(request)
        request.write(b"one,")
        request.write(b"two")
        request.finish()
        return NOT_DONE_YET

    served, store = stepping(serve, page, *(["create"] if outcome != "at once" else []))
    served.site.requestFactory = Shouting
    reply = patiently(served.browser().get())
    if outcome == "held":
        (await called(store, "create")).release()
    elif outcome == "failed":
        (await called(store, "create")).fail(StoreUnavailable("down"))
    response = await reply
    if outcome == "failed":
        assert response.status == 503
        assert "<H1>503 SERVICE UNAVAILABLE</H1>" in response.text
    else:
        assert response.text == "ONE,TWO"
        assert requests[0].writes == 2
    assert requests[0].finishes == 1


@pytest.mark.parametrize("outcome", ["at once", "held", "failed"])
@pytest_twisted.ensureDeferred
async def test_aRequestWithSlots(serve: Serve, outcome: str) -> None:
    """
    A request's slots are there for the application and for onError.
    """

    def page(request: Any) -> str:
        count(request)
        return str(request.color)

    served, store = stepping(
        serve,
        page,
        *(["create"] if outcome != "at once" else []),
        onError=lambda request, failure: request.color.encode(),
    )
    served.site.requestFactory = Slotted
    reply = patiently(served.browser().get())
    if outcome == "held":
        (await called(store, "create")).release()
    elif outcome == "failed":
        (await called(store, "create")).fail(StoreUnavailable("down"))
    assert (await reply).text == "red"


@pytest_twisted.ensureDeferred
async def test_anAccessLogSeesTheResponse(serve: Serve) -> None:
    """
    The access log has one line a request, with the status and length that went
    out.
    """
    lines: list[tuple[int, int]] = []
    served, store = stepping(serve, counting, "create")
    served.site.log = lambda request: lines.append((request.code, request.sentLength))
    reply = patiently(served.browser().get())
    (await called(store, "create")).release()
    await reply
    assert lines == [(200, 1)]
    reply = patiently(served.browser().get())
    (await called(store, "create")).fail(StoreUnavailable("down"))
    length = len((await reply).body)
    assert lines == [(200, 1), (503, length)]


@pytest.mark.parametrize("outcome", ["at once", "held", "failed"])
@pytest_twisted.ensureDeferred
async def test_writeReplacedByAWrapper(serve: Serve, outcome: str) -> None:
    """
    A resource in front of the sessions that puts functions of its own before
    the request's sees what goes out, when it goes out; an error page goes out
    whole.
    """
    seen: list[bytes] = []

    class Watching(Resource):
        isLeaf = True

        def __init__(self, resource: Any) -> None:
            super().__init__()
            self.resource = resource

        def render(self, request: Any) -> Any:
            write, finish = request.write, request.finish

            def watch(data: bytes) -> None:
                seen.append(data)
                write(data)

            def end() -> None:
                seen.append(b"end")
                finish()

            request.write, request.finish = watch, end
            return self.resource.render(request)

    served, store = stepping(
        serve, counting, *(["create"] if outcome != "at once" else []), mount=Watching
    )
    reply = patiently(served.browser().get())
    if outcome == "held":
        call = await called(store, "create")
        assert seen == []
        call.release()
    elif outcome == "failed":
        (await called(store, "create")).fail(StoreUnavailable("down"))
    response = await reply
    if outcome == "failed":
        assert response.status == 503
        assert response.text.endswith("</html>\n")
    else:
        assert (response.status, response.text) == (200, "1")
        assert seen == [b"1", b"end"]


# In memory


@pytest_twisted.ensureDeferred
async def test_stubTreq() -> None:
    """
    C{treq.testing.StubTreq} drives a SessionResource in memory.
    """
    resource = SessionResource(Page(counting), secret=SECRET, reactor=clockAt())
    client = StubTreq(resource)
    response = client.get("http://example.org/").result
    assert response.code == 200
    assert client.content(response).result == b"1"
    cookies = response.cookies()
    again = client.get("http://example.org/", cookies=cookies).result
    assert client.content(again).result == b"2"


@pytest_twisted.ensureDeferred
async def test_requestTraversalAgent() -> None:
    """
    C{treq.testing.RequestTraversalAgent} does, too: with a store that is slow,
    after a C{flush}.
    """
    clock = clockAt()
    store = StepStore(MemoryStore(reactor=clock), ["create"])
    resource = SessionResource(
        Page(counting), secret=SECRET, store=store, reactor=clock
    )
    agent = RequestTraversalAgent(resource)
    client = HTTPClient(agent)
    answers: list[Any] = []
    client.get("https://example.org/").addCallback(answers.append)
    agent.flush()
    assert answers == []
    store.waiting[0].release()
    agent.flush()
    [response] = answers
    assert response.code == 200
    [cookie] = response.headers.getRawHeaders("Set-Cookie")
    assert "; Secure" in cookie


@pytest_twisted.ensureDeferred
async def test_stubTreqAndAFailedLoad() -> None:
    """
    Errors are seen there as well.
    """

    class Broken(MemoryStore):
        def create(self, *arguments: Any) -> Any:
            return fail(StoreUnavailable("down"))

    clock = clockAt()
    resource = SessionResource(
        Page(counting), secret=SECRET, store=Broken(reactor=clock), reactor=clock
    )
    response = StubTreq(resource).get("http://example.org/").result
    assert response.code == 503
