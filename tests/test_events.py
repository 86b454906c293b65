"""
The bakery, whose stream of events is read as it comes.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import pytest_twisted
from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from examples import events
from txsession import MemoryStore, StoreUnavailable

from .support import (
    START,
    Browser,
    Connection,
    Reply,
    Serve,
    Served,
    StepStore,
    called,
    clockAt,
    eventually,
    patiently,
    turn,
)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """
    The clock of the bakery.
    """
    clock = clockAt()
    monkeypatch.setattr(events, "clock", clock)
    return clock


def open_(serve: Serve, clock: Clock) -> Served:
    store = StepStore(MemoryStore(reactor=clock))
    return serve(events.app.resource(), store=store, clock=clock)


def hidden(reply: Reply) -> str:
    found = re.search(r'name="token" value="([^"]*)"', reply.text)
    assert found is not None, reply.text
    return found[1]


async def enter(browser: Browser, name: str = "ada") -> Reply:
    token = hidden(await browser.get("/"))
    return await browser.post("/enter", data={"name": name, "token": token})


async def order(browser: Browser, bread: str = "rye") -> Reply:
    token = hidden(await browser.get("/"))
    return await browser.post("/order", data={"bread": bread, "token": token})


async def leave(browser: Browser) -> Reply:
    token = hidden(await browser.get("/"))
    return await browser.post("/leave", data={"token": token})


@define
class Event:
    kind: str
    data: Any
    id: str | None

    @classmethod
    def parse(cls, text: str) -> Event:
        fields = dict(line.split(": ", 1) for line in text.split("\n"))
        return cls(fields["event"], json.loads(fields["data"]), fields.get("id"))


@define(eq=False)
class Listening:
    """
    A stream that is being read.
    """

    connection: Connection

    @property
    def head(self) -> str:
        return self.connection.received.partition(b"\r\n\r\n")[0].decode()

    @property
    def blocks(self) -> list[str]:
        """
        What has come, between its empty lines.
        """
        _, _, body = self.connection.received.partition(b"\r\n\r\n")
        return body.decode().split("\n\n")[:-1]

    @property
    def events(self) -> list[Event]:
        return [Event.parse(each) for each in self.blocks if "event: " in each]

    @property
    def ready(self) -> list[str | None]:
        """
        The IDs of the breads it was told of.
        """
        return [event.id for event in self.events if event.kind == "ready"]

    async def until(self, kind: str, count: int = 1) -> list[Event]:
        """
        Wait for this many events of a kind.
        """
        await eventually(lambda: self.kinds.count(kind) >= count)
        return [event for event in self.events if event.kind == kind]

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]


async def listen(browser: Browser, query: str = "", **headers: str) -> Listening:
    """
    Open the stream, over HTTP/1.0, in which a body is what it is.
    """
    connection = await browser.connect()
    cookie = "; ".join(f"{k}={v}" for k, v in browser.cookies.items())
    headers = {"Cookie": cookie, **{k.replace("_", "-"): headers[k] for k in headers}}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    connection.transport.write(f"GET /stream{query} HTTP/1.0\r\n{lines}\r\n".encode())
    await patiently(connection.until(b"event: counts"))
    return Listening(connection)


def position(reply: Reply) -> str:
    """
    From where on the stream is to tell what the page does not show.
    """
    found = re.search('data-after="([^"]*)"', reply.text)
    assert found is not None, reply.text
    return found[1]


@pytest_twisted.ensureDeferred
async def test_theVisitorIsToldWhenTheBreadIsReady(serve: Serve, clock: Clock) -> None:
    """
    An order is counted as baking in the stream, and told of when its time has
    come, once.
    """
    browser = open_(serve, clock).browser()
    await enter(browser)
    stream = await listen(browser)
    await order(browser)
    clock.advance(1)
    assert (await stream.until("counts", 2))[-1].data == {"ready": 0, "baking": 1}
    clock.advance(events.BAKING - 1)
    assert (await stream.until("counts", 3))[-1].data == {"ready": 1, "baking": 0}
    for _ in range(5):
        clock.advance(1)
    await turn()
    assert stream.kinds == ["counts", "counts", "ready", "counts"]
    [told] = await stream.until("ready")
    assert told.id == f"{int((START + events.BAKING) * 1000)}-{told.data['order']}"


@pytest_twisted.ensureDeferred
async def test_theHeadersKeepTheStreamFlowing(serve: Serve, clock: Clock) -> None:
    """
    The response says what it is, is kept by no cache and gathered up by no
    proxy, depends on the cookie, and sets none.
    """
    browser = open_(serve, clock).browser()
    await enter(browser)
    stream = await listen(browser)
    head = stream.head.split("\r\n")
    assert head[0].split(" ", 1)[1] == "200 OK"
    assert {
        "Content-Type: text/event-stream",
        "Cache-Control: no-store, no-transform",
        "X-Accel-Buffering: no",
        "Vary: Cookie",
    } <= set(head)
    assert "Set-Cookie" not in stream.head
    assert stream.blocks[0] == "retry: 2000"


@pytest_twisted.ensureDeferred
async def test_whoAsksForTheHeadersGetsNoMore(serve: Serve, clock: Clock) -> None:
    """
    A HEAD is answered and over, so that the next request on its connection is
    answered too.
    """
    browser = open_(serve, clock).browser()
    await enter(browser)
    cookie = browser.cookies["connect.sid"]
    asking = f"HEAD /stream HTTP/1.1\r\nHost: x\r\nCookie: connect.sid={cookie}\r\n"
    answered = await patiently(
        browser.raw(f"{asking}\r\n{asking}Connection: close\r\n\r\n".encode())
    )
    assert answered.count(b" 200 OK\r\n") == 2
    assert answered.count(b"Content-Type: text/event-stream\r\n") == 2


@pytest_twisted.ensureDeferred
async def test_eachVisitorHearsOfTheirOwn(serve: Serve, clock: Clock) -> None:
    """
    A bread is told of in every page of its session, and in no other session.
    """
    served = open_(serve, clock)
    ada, grace = served.browser(), served.browser()
    await enter(ada)
    await enter(grace, "grace")
    one, two, other = await listen(ada), await listen(ada), await listen(grace)
    await order(ada)
    clock.advance(events.BAKING)
    await one.until("ready")
    await two.until("ready")
    await order(grace, "rolls")
    clock.advance(1)
    await other.until("counts", 2)
    assert one.ready == two.ready
    assert other.ready == []


@pytest_twisted.ensureDeferred
async def test_aBrowserThatComesBackGoesOnWhereItWas(
    serve: Serve, clock: Clock
) -> None:
    """
    With Last-Event-ID, the stream tells all that has become ready after that
    event, and nothing that was before, whatever the address says.
    """
    browser = open_(serve, clock).browser()
    await enter(browser)
    stream = await listen(browser)
    for bread in ("rye", "rolls"):
        await order(browser, bread)
        clock.advance(events.BAKING)
    heard = [each.id for each in await stream.until("ready", 2)]
    stream.connection.transport.loseConnection()
    await patiently(stream.connection.closed)
    await order(browser)
    clock.advance(events.BAKING)
    assert heard[0] is not None
    again = await listen(browser, "?after=0-", Last_Event_ID=heard[0])
    assert again.ready[0] == heard[1]
    assert len(again.ready) == 2


@pytest.mark.parametrize(
    "forged", ["", "x", "1", "-", "1-zz", "9" * 400 + "-a", "1-a\xe9", "\u0661-a"]
)
@pytest_twisted.ensureDeferred
async def test_aLastEventIDThatIsNoneDoesNoHarm(
    serve: Serve, clock: Clock, forged: str
) -> None:
    """
    Whatever is sent as the ID of an event, the stream begins after what the
    session was told.
    """
    browser = open_(serve, clock).browser()
    await enter(browser)
    await order(browser)
    clock.advance(events.BAKING)
    assert len((await listen(browser, Last_Event_ID=forged)).ready) == 1
    assert len((await listen(browser, Last_Event_ID=forged)).ready) == 0


@pytest_twisted.ensureDeferred
async def test_whatWasToldIsSavedInTheMiddleOfTheStream(
    serve: Serve, clock: Clock
) -> None:
    """
    What a stream has told is in the store while it is still open; so it is not
    news to the page, nor to a stream that begins without saying from where.
    """
    served = open_(serve, clock)
    browser = served.browser()
    cookie = (await enter(browser)).cookie()
    assert cookie is not None
    stream = await listen(browser)
    await order(browser)
    clock.advance(events.BAKING)
    [told] = await stream.until("ready")
    await eventually(lambda: "replace" in served.store.calls[-2:])
    assert (await served.data(cookie.sid) or {})["told"] == told.id
    page = await browser.get("/")
    assert "while you were away" not in page.text
    assert position(page) == told.id
    assert (await listen(browser)).ready == []
    assert not stream.connection.closed.called


@pytest_twisted.ensureDeferred
async def test_thePageTellsWhatNobodyHeard(serve: Serve, clock: Clock) -> None:
    """
    What became ready while no page was open is counted by the next one, once,
    and its stream does not tell it again.
    """
    browser = open_(serve, clock).browser()
    await enter(browser)
    await order(browser)
    clock.advance(events.BAKING)
    page = await browser.get("/")
    assert "Ready while you were away: 1." in page.text
    assert ">ready</span>" in page.text
    assert (await listen(browser, f"?after={position(page)}")).ready == []
    assert "while you were away" not in (await browser.get("/")).text


@pytest_twisted.ensureDeferred
async def test_aPageThatIsBehindIsToldWhatAnotherHeard(
    serve: Serve, clock: Clock
) -> None:
    """
    A page that was made before a bread was ready is told of it, though another
    page has heard; and what the session was told does not go back by that.
    """
    served = open_(serve, clock)
    browser = served.browser()
    cookie = (await enter(browser)).cookie()
    assert cookie is not None
    old = position(await browser.get("/"))
    await order(browser)
    first = await listen(browser)
    clock.advance(events.BAKING)
    [one] = await first.until("ready")
    await order(browser)
    clock.advance(events.BAKING)
    _, two = await first.until("ready", 2)
    late = await listen(browser, f"?after={old}")
    assert late.ready == [one.id, two.id]
    assert (await served.data(cookie.sid) or {})["told"] == two.id


@pytest_twisted.ensureDeferred
async def test_theHeartBeatsWhereNothingHappens(serve: Serve, clock: Clock) -> None:
    """
    After a while without an event a comment is sent, and then again.
    """
    browser = open_(serve, clock).browser()
    await enter(browser)
    stream = await listen(browser)
    for beats in (1, 2):
        clock.pump([1] * int(events.HEARTBEAT - 1))
        await turn()
        assert stream.blocks.count(": still here") == beats - 1
        clock.advance(1)
        await eventually(lambda n=beats: stream.blocks.count(": still here") == n)


@pytest_twisted.ensureDeferred
async def test_theStreamEndsWithItsSession(serve: Serve, clock: Clock) -> None:
    """
    When the visitor leaves in another page, the stream says so and ends within
    a second; nothing goes on, and the session stays gone.
    """
    served = open_(serve, clock)
    browser = served.browser()
    await enter(browser)
    await order(browser)
    stream = await listen(browser)
    await leave(browser)
    clock.advance(1)
    await patiently(stream.connection.closed)
    assert stream.kinds[-1] == "end"
    assert clockIsIdle(clock)
    assert await served.store.store.length() == 0


@pytest_twisted.ensureDeferred
async def test_theStreamEndsWhenItsSessionExpires(serve: Serve, clock: Clock) -> None:
    """
    A session that expires ends its stream: to listen does not renew it.
    """
    store = MemoryStore(reactor=clock)
    served = serve(events.app.resource(), store=store, clock=clock, ttl=60)
    browser = served.browser()
    await enter(browser)
    stream = await listen(browser)
    clock.pump([1] * 61)
    await patiently(stream.connection.closed)
    assert stream.kinds[-1] == "end"
    assert clockIsIdle(clock)


def clockIsIdle(clock: Clock) -> bool:
    """
    Whether nobody looks into a session any more.
    """
    return not any("LoopingCall" in repr(each.func) for each in clock.getDelayedCalls())


@pytest_twisted.ensureDeferred
async def test_nothingGoesOnWhenTheClientHasLeft(serve: Serve, clock: Clock) -> None:
    """
    When the client closes the connection, the session is not looked into any
    more.
    """
    served = open_(serve, clock)
    browser = served.browser()
    await enter(browser)
    stream = await listen(browser)
    assert not clockIsIdle(clock)
    stream.connection.transport.loseConnection()
    await patiently(stream.connection.closed)
    await eventually(lambda: clockIsIdle(clock))
    before = list(served.store.calls)
    clock.pump([1] * 60)
    assert served.store.calls == before


@pytest_twisted.ensureDeferred
async def test_theClientLeavesWhileTheStoreIsAsked(
    serve: Serve, clock: Clock, monkeypatch: pytest.MonkeyPatch, logged: list[Any]
) -> None:
    """
    If the client leaves before the store has answered, the answer is ignored.
    """
    stopped: list[Any] = []
    stop = events.Listener._stop
    monkeypatch.setattr(
        events.Listener, "_stop", lambda *args: stopped.append(stop(*args))
    )
    served = open_(serve, clock)
    browser = served.browser()
    await enter(browser)
    await order(browser)
    stream = await listen(browser)
    served.store.held = {"get"}
    clock.advance(1)
    call = await called(served.store, "get")
    stream.connection.transport.loseConnection()
    await patiently(stream.connection.closed)
    await eventually(lambda: stopped)
    call.release()
    await turn()
    assert clockIsIdle(clock)
    assert not any("log_failure" in each for each in logged)


@pytest.mark.parametrize("operation", ["get", "replace"])
@pytest_twisted.ensureDeferred
async def test_theStreamOutlivesAnOutage(
    serve: Serve, clock: Clock, operation: str, logged: list[Any]
) -> None:
    """
    A store that fails for a while is logged, and the stream goes on when it is
    back, telling each bread once.
    """
    served = open_(serve, clock)
    browser = served.browser()
    await enter(browser)
    stream = await listen(browser)
    await order(browser)
    served.store.held = {operation}
    clock.advance(events.BAKING)
    call = await called(served.store, operation)
    served.store.held = set()
    call.fail(StoreUnavailable("it is down"))
    await eventually(lambda: any("could not look" in str(e) for e in logged))
    await order(browser)
    clock.advance(events.BAKING)
    await stream.until("ready", 2)
    assert len(set(stream.ready)) == 2
    assert not stream.connection.closed.called


@pytest_twisted.ensureDeferred
async def test_aStreamThatBreaksOffIsEnded(
    serve: Serve, clock: Clock, logged: list[Any]
) -> None:
    """
    What is not foreseen is logged and ends the stream, so that the browser
    comes back.
    """
    served = open_(serve, clock)
    browser = served.browser()
    await enter(browser)
    stream = await listen(browser)
    served.store.held = {"get"}
    clock.advance(1)
    (await called(served.store, "get")).fail(ZeroDivisionError())
    await patiently(stream.connection.closed)
    assert any(each.get("log_format") == "A stream broke off." for each in logged)
    assert clockIsIdle(clock)


@pytest_twisted.ensureDeferred
async def test_whoIsNotHereIsNotToComeBack(serve: Serve, clock: Clock) -> None:
    """
    Without a name there is no stream: the answer tells the browser not to try
    again, and makes no session.
    """
    served = open_(serve, clock)
    reply = await served.browser().get("/stream")
    assert (reply.status, reply.body, reply.setCookies) == (204, b"", [])
    assert served.store.calls == []


@pytest_twisted.ensureDeferred
async def test_twoOrdersAtTheSameTimeAreBothTaken(serve: Serve, clock: Clock) -> None:
    """
    Of two orders that are stored in parallel, none is lost.
    """
    served = open_(serve, clock)
    browser = served.browser()
    await enter(browser)
    token = hidden(await browser.get("/"))
    served.store.held = {"replace"}
    answers = [
        Deferred.fromCoroutine(
            browser.post("/order", data={"bread": bread, "token": token})
        )
        for bread in ("rye", "rolls")
    ]
    calls = [await called(served.store, "replace") for _ in answers]
    served.store.held = set()
    for call in calls:
        call.release()
    for answer in answers:
        assert (await answer).status == 303
    text = (await browser.get("/")).text
    assert text.count("in the oven") == 2


@pytest_twisted.ensureDeferred
async def test_theOrdersDoNotGrowForEver(serve: Serve, clock: Clock) -> None:
    """
    Only so many orders are remembered, the newest.
    """
    browser = open_(serve, clock).browser()
    await enter(browser)
    for _ in range(events.MOST):
        await order(browser)
        clock.advance(0.01)
    await order(browser, "plait")
    text = (await browser.get("/")).text
    assert text.count('id="order-') == events.MOST
    assert 'Plaited loaf<span class="hint">in the oven' in text


@pytest_twisted.ensureDeferred
async def test_aForgedOrderIsRefused(serve: Serve, clock: Clock) -> None:
    """
    Without the token nothing is ordered and nobody leaves; what is not on sale
    is not ordered; and who is not here is asked for a name.
    """
    browser = open_(serve, clock).browser()
    assert (await browser.post("/order", data={"bread": "rye"})).status == 303
    await enter(browser)
    for path in ("/order", "/leave"):
        reply = await browser.post(path, data={"bread": "rye", "token": "guessed"})
        assert reply.status == 403
    assert (await order(browser, "caviar")).status == 303
    assert 'id="order-' not in (await browser.get("/")).text


@pytest_twisted.ensureDeferred
async def test_thePageRunsOurScriptOnly(serve: Serve, clock: Clock) -> None:
    """
    The page has neither inline scripts nor handlers, its policy allows nothing
    but what is served here, and what it names is there.
    """
    browser = open_(serve, clock).browser()
    await enter(browser)
    page = await browser.get("/")
    policy = page.header("Content-Security-Policy") or ""
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert re.findall("<script[^>]*>[^<]", page.text) == []
    assert not re.search(r"\son\w+=", page.text)
    [script] = re.findall('<script[^>]* src="([^"]+)"', page.text)
    served = await browser.get(script)
    assert served.header("Content-Type") == "text/javascript; charset=utf-8"
    assert "innerHTML" not in served.text
    assert (served.setCookies, served.header("Vary")) == ([], None)
