"""
What the tests are written with: a server on loopback, a browser that keeps
cookies, and a store whose answers the test gives.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from attrs import define, field
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure
from twisted.web.client import Agent
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Site

from txsession import MemoryStore, Record, SessionResource

SECRET = "keyboard cat"
START = 1_800_000_000.0
"""
The time at which the clocks of the tests start.
"""


PATIENCE = 30
"""
Seconds after which a request that is not answered fails its test, instead of
hanging it.
"""


def clockAt(start: float = START) -> Clock:
    clock = Clock()
    clock.advance(start)
    return clock


class Page(Resource):
    """
    A leaf that is a function of the request: it returns bytes, str or None (for
    an empty page), or a Deferred or coroutine of one; or NOT_DONE_YET, if it
    writes and finishes by itself.
    """

    isLeaf = True

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function = function

    def render(self, request: Any) -> Any:
        result = self.function(request)
        if hasattr(result, "send"):
            result = Deferred.fromCoroutine(result)
        if isinstance(result, Deferred):
            result.addCallbacks(
                lambda r: self.end(request, r), request.processingFailed
            )
            return NOT_DONE_YET
        return result if result is NOT_DONE_YET else self.asBytes(result)

    def end(self, request: Any, result: Any) -> None:
        if result is not NOT_DONE_YET:
            request.write(self.asBytes(result))
            request.finish()

    @staticmethod
    def asBytes(result: Any) -> bytes:
        return (result or "").encode() if not isinstance(result, bytes) else result


@define
class Reply:
    """
    A response, read whole.
    """

    status: int
    phrase: bytes
    headers: Headers
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def setCookies(self) -> list[str]:
        return self.headers.getRawHeaders("Set-Cookie", [])

    def cookie(self, name: str = "connect.sid") -> SetCookie | None:
        """
        The one cookie of this name that the response sets.
        """
        found = [c for c in map(SetCookie.parse, self.setCookies) if c.name == name]
        assert len(found) < 2, f"set {len(found)} times: {self.setCookies}"
        return found[0] if found else None

    def header(self, name: str) -> str | None:
        values = self.headers.getRawHeaders(name)
        return None if values is None else ", ".join(values)


@define
class SetCookie:
    """
    A Set-Cookie header, taken apart.
    """

    name: str
    value: str
    attributes: dict[str, str]

    @classmethod
    def parse(cls, header: str) -> SetCookie:
        first, *rest = header.split(";")
        name, _, value = first.partition("=")
        pairs = (part.strip().partition("=") for part in rest)
        return cls(name, value, {key.lower(): value for key, _, value in pairs})

    @property
    def sid(self) -> str:
        """
        The session ID in the value.
        """
        decoded = unquote(self.value)
        assert decoded.startswith("s:")
        return decoded[2:].rpartition(".")[0]

    @property
    def isExpired(self) -> bool:
        return self.value == "" and self.attributes["max-age"] == "0"


@define
class Browser:
    """
    Talks to one server and keeps the cookies that it sets.
    """

    port: int
    cookies: dict[str, str] = field(factory=dict)

    async def get(self, path: str = "/", **options: Any) -> Reply:
        return await self.request("GET", path, **options)

    async def post(self, path: str = "/", **options: Any) -> Reply:
        return await self.request("POST", path, **options)

    async def request(
        self,
        method: str,
        path: str,
        headers: dict[str, Any] | None = None,
        **options: Any,
    ) -> Reply:
        """
        Send a request with the cookies kept, unless a Cookie header is given,
        and follow no redirect.
        """
        headers = dict(headers or {})
        if self.cookies and "Cookie" not in headers:
            headers["Cookie"] = "; ".join(f"{k}={v}" for k, v in self.cookies.items())
        client = HTTPClient(Agent(reactor))
        response = await client.request(
            method,
            f"http://127.0.0.1:{self.port}{path}",
            headers=headers,
            allow_redirects=False,
            unbuffered=True,
            cookies={},
            timeout=PATIENCE,
            **options,
        )
        body = await response.content()
        reply = Reply(response.code, response.phrase, response.headers, body)
        for header in reply.setCookies:
            self._keep(SetCookie.parse(header))
        return reply

    def _keep(self, cookie: SetCookie) -> None:
        if cookie.attributes.get("max-age", "1").startswith(("0", "-")):
            self.cookies.pop(cookie.name, None)
        else:
            self.cookies[cookie.name] = cookie.value

    async def raw(self, data: bytes) -> bytes:
        """
        Send these bytes over a connection of their own and read until the
        server closes it.
        """
        connection = await self.connect()
        connection.transport.write(data)
        return await connection.closed

    async def connect(self) -> Connection:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port)
        connection: Connection = await connectProtocol(endpoint, Connection())
        return connection


class Connection(Protocol):
    """
    A connection of a client.

    @ivar received: what has come so far.
    @ivar closed: fires with all that has come, when the server closes it.
    """

    def __init__(self) -> None:
        self.received = b""
        self.closed: Deferred[bytes] = Deferred()
        self._awaited: list[tuple[bytes, Deferred[bytes]]] = []

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        for item in list(self._awaited):
            if item[0] in self.received:
                self._awaited.remove(item)
                item[1].callback(self.received)

    def connectionLost(self, reason: Failure) -> None:
        self.closed.callback(self.received)

    def until(self, data: bytes) -> Deferred[bytes]:
        """
        Fires with what has come when C{data} is in it.
        """
        d: Deferred[bytes] = Deferred()
        self._awaited.append((data, d))
        self.dataReceived(b"")
        return d


@define
class Call:
    """
    A call of a `StepStore` that waits for its test.
    """

    operation: str
    arguments: tuple[Any, ...]
    answer: Deferred[Any]
    carryOut: Callable[[], Any]
    isCancelled: bool = False

    def release(self) -> None:
        """
        Do it, and answer.
        """
        self.carryOut().chainDeferred(self.answer)

    def apply(self) -> None:
        """
        Do it, without answering yet.
        """
        self.carryOut()

    def fail(self, error: BaseException) -> None:
        """
        Answer with an error, without having done it.
        """
        self.answer.errback(Failure(error))


@define(eq=False)
class StepStore:
    """
    A store whose calls of certain operations wait until the test lets them go.

    @ivar held: the operations that wait.
    @ivar calls: the calls that were made of any operation, by name.
    @ivar waiting: those that wait, in order.
    """

    store: Any
    held: set[str] = field(factory=set, converter=set)
    calls: list[str] = field(factory=list, init=False)
    waiting: list[Call] = field(factory=list, init=False)
    _expected: list[tuple[str, Deferred[Call]]] = field(factory=list, init=False)

    def __getattr__(self, operation: str) -> Any:
        if operation.startswith("_"):
            raise AttributeError(operation)
        method = getattr(self.store, operation)
        if not callable(method):
            return method
        return lambda *arguments: self._call(operation, method, arguments)

    def _call(self, operation: str, method: Any, arguments: tuple[Any, ...]) -> Any:
        self.calls.append(operation)
        if operation not in self.held:
            return method(*arguments)
        call = Call(operation, arguments, Deferred(), lambda: method(*arguments))
        call.answer._canceller = lambda _: setattr(call, "isCancelled", True)
        for expected in self._expected:
            if expected[0] == operation:
                self._expected.remove(expected)
                # Not before the caller has seen that it has to wait.
                reactor.callLater(0, expected[1].callback, call)
                return call.answer
        self.waiting.append(call)
        return call.answer

    def called(self, operation: str) -> Deferred[Call]:
        """
        Fires with the next call of this operation that waits, and takes it off
        the list.
        """
        d: Deferred[Call] = Deferred()
        for call in self.waiting:
            if call.operation == operation:
                self.waiting.remove(call)
                d.callback(call)
                return d
        self._expected.append((operation, d))
        return d


def stepping(
    serve: Serve, function: Any, *held: str, **options: Any
) -> tuple[Served, StepStore]:
    """
    Serve with a store whose calls of these operations wait for the test.
    """
    clock = clockAt()
    store = StepStore(MemoryStore(reactor=clock), set(held))
    return serve(function, store=store, clock=clock, **options), store


def patiently(awaited: Any) -> Deferred[Any]:
    """
    Wait, but not for ever.
    """
    if not isinstance(awaited, Deferred):
        awaited = Deferred.fromCoroutine(awaited)
    return awaited.addTimeout(PATIENCE, reactor)


async def turn(count: int = 3) -> None:
    """
    Let the reactor turn.
    """
    for _ in range(count):
        await deferLater(reactor, 0)


async def eventually(condition: Callable[[], Any]) -> None:
    """
    Let the reactor turn until something is so.
    """
    for _ in range(20_000):
        if condition():
            return
        await deferLater(reactor, 0)
    raise AssertionError("it never came about")


async def called(store: StepStore, operation: str) -> Call:
    """
    The next call of a store, once its caller has gone on.
    """
    call: Call = await patiently(store.called(operation))
    await turn(1)
    return call


def only(store: Any, *methods: str) -> Any:
    """
    The store with none but these methods.
    """

    class Limited:
        def __repr__(self) -> str:
            return f"<store with {', '.join(methods)}>"

    limited = Limited()
    for method in methods:
        setattr(limited, method, getattr(store, method))
    return limited


@define
class Served:
    """
    A resource behind sessions, served on loopback.
    """

    resource: SessionResource
    store: Any
    clock: Clock
    port: int
    site: Site

    def browser(self) -> Browser:
        return Browser(self.port)

    async def data(self, sid: str) -> dict[str, Any] | None:
        """
        What the store holds for this ID, without the cookie.
        """
        record = await self.record(sid)
        if record is None:
            return None
        document: dict[str, Any] = json.loads(record.payload)
        del document["cookie"]
        return document

    async def record(self, sid: str) -> Record | None:
        store = self.store.store if isinstance(self.store, StepStore) else self.store
        record: Record | None = await store.get(sid)
        return record


class Serve:
    """
    Makes servers, and stops them after the test.
    """

    def __init__(self) -> None:
        self.ports: list[Any] = []

    def __call__(
        self,
        function: Callable[[Any], Any] | IResource,
        *,
        store: Any = None,
        clock: Clock | None = None,
        mount: Callable[[SessionResource], IResource] = lambda resource: resource,
        **options: Any,
    ) -> Served:
        """
        Serve a function of the request (see `Page`), or a resource.

        @param mount: puts the SessionResource into a tree.
        """
        clock = clock or clockAt()
        if store is None:
            store = MemoryStore(reactor=clock)
        options.setdefault("secret", SECRET)
        wrapped = function if not callable(function) else Page(function)
        resource = SessionResource(wrapped, store=store, reactor=clock, **options)
        site = self.site(mount(resource))
        return Served(resource, store, clock, site.port, site)

    def site(self, root: IResource) -> Any:
        """
        Serve a resource tree as it is.
        """
        site: Any = Site(root)
        port: Any = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.ports.append(port)
        site.port = port.getHost().port
        return site

    async def stop(self) -> None:
        for port in self.ports:
            for connection in list(getattr(port.factory, "_channels", ())):
                connection.transport.abortConnection()
            await maybeDeferred(port.stopListening)
