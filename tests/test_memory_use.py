"""
No reference cycle is left behind on a request: with the garbage collector off,
memory stays flat.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from typing import Any
from weakref import ReferenceType, ref

import pytest
from attrs import define, field
from twisted.internet.defer import fail
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.python import failure
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from txsession import (
    MemoryStore,
    Session,
    SessionResource,
    StoreUnavailable,
    getSession,
)

from .support import SECRET, Page, StepStore, clockAt

TIMES = 1000


@pytest.fixture
def uncollected(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """
    Does without the garbage collector, without those who keep what is logged,
    with the requests in it, and with the C{cleanFailure} that Twisted has.
    """
    monkeypatch.setattr(globalLogPublisher, "_observers", [])
    monkeypatch.setattr(Failure, "cleanFailure", cleanFailure())
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def cleanFailure() -> Any:
    """
    C{Failure.cleanFailure} from Twisted's source: pytest-twisted has put a stub
    in its place, so that tracebacks are kept.
    """
    spec: Any = spec_from_file_location("pristine", failure.__file__)
    module: Any = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Failure.cleanFailure


class Transport(StringTransport):
    """
    A transport that forgets what it has sent.
    """

    isAborted = False

    def abortConnection(self) -> None:
        self.isAborted = True


@define
class Wire:
    """
    A keep-alive connection to a site, without a network.
    """

    site: Site
    transport: Transport = field(init=False)
    channel: Any = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.open()

    def open(self) -> None:
        self.transport = Transport()
        self.channel = self.site.buildProtocol(None)
        self.channel.callLater = lambda *arguments: _NoCall()
        self.channel.makeConnection(self.transport)

    def ask(self, cookie: bytes = b"", method: bytes = b"GET") -> bytes:
        line = b"Cookie: " + cookie + b"\r\n" if cookie else b""
        self.channel.dataReceived(
            method + b" / HTTP/1.1\r\nHost: localhost\r\n" + line + b"\r\n"
        )
        return self.taken()

    def taken(self) -> bytes:
        received = self.transport.value()
        self.transport.clear()
        return received

    def lose(self) -> None:
        self.channel.connectionLost(Failure(ConnectionDone()))
        # A channel is itself a cycle, which is Twisted's.
        vars(self.channel._channel).clear()
        vars(self.channel).clear()


class _NoCall:
    """
    Stands for a timeout that never comes.
    """

    def cancel(self) -> None:
        pass

    def reset(self, seconds: float) -> None:
        pass

    def active(self) -> bool:
        return True


def cookieIn(received: bytes) -> bytes:
    _, _, rest = received.partition(b"Set-Cookie: connect.sid=")
    return b"connect.sid=" + rest.partition(b";")[0]


@define
class Setting:
    """
    A resource behind sessions, and a connection to it.
    """

    function: Callable[[Any], Any]
    held: tuple[str, ...] = ()
    options: dict[str, Any] = field(factory=dict)
    requests: list[ReferenceType[Any]] = field(factory=list)
    store: Any = None
    wire: Wire = field(init=False)

    def __attrs_post_init__(self) -> None:
        clock = clockAt()
        memory = MemoryStore(reactor=clock, maxSessions=10)
        self.store = StepStore(memory, self.held) if self.held else memory

        def make(*arguments: Any, **options: Any) -> Request:
            request = Request(*arguments, **options)
            self.requests.append(ref(request))
            return request

        resource = SessionResource(
            self._wrapped(),
            secret=SECRET,
            store=self.store,
            reactor=clock,
            **self.options,
        )
        site = Site(resource, requestFactory=make)
        site.log = lambda request: None
        self.wire = Wire(site)

    def _wrapped(self) -> Resource:
        if isinstance(self.function, Resource):
            return self.function
        return Page(self.function)


def read(request: Any) -> bytes:
    return str(getSession(request).get("n")).encode()


def write(request: Any) -> bytes:
    session = getSession(request)
    session["n"] = session.get("n", 0) + 1
    return b"written"


def nested(request: Any) -> bytes:
    getSession(request).setdefault("cart", {}).setdefault("items", [])[:] = [1]
    return b"nested"


async def destroy(request: Any) -> bytes:
    await getSession(request).destroy()
    return b"destroyed"


async def regenerate(request: Any) -> bytes:
    getSession(request)["n"] = 1
    await getSession(request).regenerate(keepData=True)
    return b"regenerated"


async def save(request: Any) -> bytes:
    getSession(request)["n"] = 1
    await getSession(request).save()
    return b"saved"


def stream(request: Any) -> Any:
    request.write(b"one")
    write(request)
    request.write(b"two")
    request.finish()
    return NOT_DONE_YET


# Each way does its thing with a Setting, once.


def plain(function: Callable[[Any], Any], **options: Any) -> Any:
    def go(setting: Setting) -> None:
        assert setting.wire.ask().startswith(b"HTTP/1.1 200 OK\r\n")

    return function, (), options, go


def returning(function: Callable[[Any], Any], **options: Any) -> Any:
    """
    With a cookie, that of a session made by the first of two requests.
    """

    def page(request: Any) -> Any:
        if request.method == b"POST":
            return write(request)
        return function(request)

    def go(setting: Setting) -> None:
        cookie = cookieIn(setting.wire.ask(method=b"POST"))
        assert setting.wire.ask(cookie).startswith(b"HTTP/1.1 200 OK\r\n")

    return page, (), options, go


def failing() -> Any:
    def go(setting: Setting) -> None:
        setting.store.create = lambda *arguments: fail(StoreUnavailable("down"))
        assert setting.wire.ask().startswith(b"HTTP/1.1 503 ")

    return write, (), {}, go


def failingLoad() -> Any:
    def go(setting: Setting) -> None:
        store = setting.store
        cookie = cookieIn(setting.wire.ask())
        store.get = lambda *arguments: fail(StoreUnavailable("down"))
        assert setting.wire.ask(cookie).startswith(b"HTTP/1.1 503 ")
        del store.get

    return write, (), {}, go


def holding() -> Any:
    def go(setting: Setting) -> None:
        assert setting.wire.ask() == b""
        setting.store.waiting.pop().release()
        assert setting.wire.taken().startswith(b"HTTP/1.1 200 OK\r\n")
        del setting.store.calls[:]

    return write, ("create",), {}, go


def failingHeld(**options: Any) -> Any:
    def go(setting: Setting) -> None:
        assert setting.wire.ask() == b""
        setting.store.waiting.pop().fail(StoreUnavailable("down"))
        assert setting.wire.taken().startswith(b"HTTP/1.1 503 ")
        del setting.store.calls[:]

    return write, ("create",), options, go


def loading() -> Any:
    def go(setting: Setting) -> None:
        store = setting.store
        cookie = cookieIn(setting.wire.ask())
        assert setting.wire.ask(cookie) == b""
        store.waiting.pop().release()
        assert setting.wire.taken().startswith(b"HTTP/1.1 200 OK\r\n")
        del store.calls[:]

    return write, ("get",), {}, go


def leavingHeld() -> Any:
    def go(setting: Setting) -> None:
        assert setting.wire.ask() == b""
        setting.wire.lose()
        setting.store.waiting.pop().release()
        del setting.store.calls[:]
        setting.wire.open()

    return write, ("create",), {}, go


def leavingHeldForEver() -> Any:
    """
    The save that was under way fails after the client has gone.
    """

    def go(setting: Setting) -> None:
        assert setting.wire.ask() == b""
        setting.wire.lose()
        setting.store.waiting.pop().fail(StoreUnavailable("down"))
        del setting.store.calls[:]
        setting.wire.open()

    return write, ("create",), {}, go


def leavingLoading() -> Any:
    def go(setting: Setting) -> None:
        cookie = cookieIn(setting.wire.ask())
        assert setting.wire.ask(cookie) == b""
        setting.wire.lose()
        assert setting.store.waiting.pop().isCancelled
        del setting.store.calls[:]
        setting.wire.open()

    return write, ("get",), {}, go


def leavingUnanswered() -> Any:
    def page(request: Any) -> Any:
        write(request)
        return NOT_DONE_YET

    def go(setting: Setting) -> None:
        assert setting.wire.ask() == b""
        setting.wire.lose()
        setting.wire.open()

    return page, (), {}, go


def raising() -> Any:
    def page(request: Any) -> Any:
        write(request)
        raise KeyError("lost")

    def go(setting: Setting) -> None:
        assert setting.wire.ask().startswith(b"HTTP/1.1 500 ")

    return page, (), {}, go


def latePartOf(fails: bool) -> Any:
    def page(request: Any) -> Any:
        write(request)
        request.write(b"one")
        getSession(request)["late"] = True
        request.finish()
        return NOT_DONE_YET

    def go(setting: Setting) -> None:
        received = setting.wire.ask()
        assert received.startswith(b"HTTP/1.1 200 OK\r\n")
        assert not received.endswith(b"\r\n0\r\n\r\n")
        call = setting.store.waiting.pop()
        if fails:
            call.fail(StoreUnavailable("down"))
            setting.wire.lose()
            setting.wire.open()
        else:
            call.release()
            assert setting.wire.taken() == b"0\r\n\r\n"
        del setting.store.calls[:]

    return page, ("replace",), {}, go


def producing(streaming: bool) -> Any:
    class Producer:
        def pauseProducing(self) -> None:
            pass

        def resumeProducing(self) -> None:
            pass

        def stopProducing(self) -> None:
            pass

    def page(request: Any) -> Any:
        write(request)
        producer = Producer()
        request.write(b"one")
        request.registerProducer(producer, streaming)
        request.unregisterProducer()
        request.registerProducer(producer, True)
        request.notifyFinish().addErrback(lambda failure: None)
        return NOT_DONE_YET

    def go(setting: Setting) -> None:
        assert setting.wire.ask() == b""
        setting.store.waiting.pop().release()
        assert setting.wire.taken().startswith(b"HTTP/1.1 200 OK\r\n")
        setting.wire.lose()
        setting.wire.open()
        del setting.store.calls[:]

    return page, ("create",), {}, go


def faked() -> Any:
    class OnlyGet(Resource):
        isLeaf = True

        def render_GET(self, request: Any) -> bytes:
            return write(request)

    def go(setting: Setting) -> None:
        received = setting.wire.ask(method=b"HEAD")
        assert received.startswith(b"HTTP/1.1 200 OK\r\n")

    return OnlyGet(), (), {}, go


WAYS: dict[str, Any] = {
    "ignored": plain(lambda request: b"ignored"),
    "looked at": plain(lambda request: str(bool(getSession(request))).encode()),
    "read without a cookie": plain(read),
    "created": plain(write),
    "created explicitly": plain(save),
    "uninitialized": plain(lambda request: b"", saveUninitialized=True),
    "lazy": plain(lambda request: b"", lazy=True),
    "read": returning(read),
    "written": returning(write),
    "written inside": returning(nested),
    "saved": returning(save),
    "destroyed": returning(destroy),
    "regenerated": returning(regenerate),
    "rolling": returning(read, rolling=True),
    "streamed": returning(stream),
    "loaded slowly": loading(),
    "held": holding(),
    "held with a push producer": producing(True),
    "held with a pull producer": producing(False),
    "failed": failing(),
    "failed to load": failingLoad(),
    "failed while held": failingHeld(),
    "failed with onError": failingHeld(onError=lambda request, failure: b"sorry"),
    "saved late": latePartOf(fails=False),
    "failed late": latePartOf(fails=True),
    "left while held": leavingHeld(),
    "left before a failure": leavingHeldForEver(),
    "left while loading": leavingLoading(),
    "left unanswered": leavingUnanswered(),
    "raised": raising(),
    "HEAD": faked(),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.usefixtures("uncollected")
def test_noCycleIsLeftOnARequest(way: str) -> None:
    """
    With the garbage collector off, each request and its session is gone when it
    is over.
    """
    function, held, options, go = WAYS[way]
    setting = Setting(function, held, options)
    for _ in range(3):
        go(setting)
    del setting.requests[:]
    for _ in range(10):
        go(setting)
    alive = [request() for request in setting.requests]
    # The connection may have prepared the request that comes next.
    assert len([request for request in alive if request is not None]) <= 1
    del alive
    assert len(setting.requests) >= 10


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.usefixtures("uncollected")
def test_memoryStaysFlat(way: str) -> None:
    """
    After many requests, there are no more objects than before them.
    """
    function, held, options, go = WAYS[way]
    setting = Setting(function, held, options)
    # Fills the store, which holds ten sessions, and every cache.
    for _ in range(50):
        go(setting)
    del setting.requests[:]
    before = census()
    for _ in range(TIMES):
        go(setting)
    del setting.requests[:]
    after = census()
    after.subtract(before)
    grown = {kind: count for kind, count in after.items() if count > TIMES // 20}
    assert grown == {}


def census() -> Counter[type]:
    """
    How many objects there are, by type.
    """
    return Counter(type(each) for each in gc.get_objects())


@pytest.mark.usefixtures("uncollected")
def test_aSessionKeptDoesNotKeepItsRequest() -> None:
    """
    An application that keeps a session does not keep the request with it.
    """
    kept: list[Session] = []

    def page(request: Any) -> bytes:
        kept.append(getSession(request))
        return write(request)

    setting = Setting(page)
    for _ in range(5):
        setting.wire.ask()
    assert len(kept) == 5
    assert [r for r in setting.requests[:-1] if r() is not None] == []


@pytest.mark.usefixtures("uncollected")
def test_aStoreThatNeverAnswersKeepsWhatItHolds() -> None:
    """
    Only what still waits for a store is alive: a request that is held is let go
    of when its timeout has passed.
    """
    clock = clockAt()
    requests: list[Any] = []
    store = StepStore(MemoryStore(reactor=clock), {"create"})

    def page(request: Any) -> bytes:
        requests.append(ref(request))
        return write(request)

    resource = SessionResource(
        Page(page), secret=SECRET, store=store, reactor=clock, storeTimeout=5
    )
    site = Site(resource)
    site.log = lambda request: None
    wire = Wire(site)
    assert wire.ask() == b""
    assert requests[0]() is not None
    clock.advance(6)
    assert wire.taken().startswith(b"HTTP/1.1 503 ")
    assert requests[0]() is None
    del store.waiting[:]


@pytest.mark.usefixtures("uncollected")
def test_theTestsSeeACycle() -> None:
    """
    A cycle that an application leaves on its request would be seen by them.
    """

    def page(request: Any) -> bytes:
        request.me = request
        return b""

    setting = Setting(page)
    for _ in range(10):
        setting.wire.ask()
    alive = [r() for r in setting.requests]
    assert len([request for request in alive if request is not None]) >= 10
