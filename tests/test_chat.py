"""
The chat: its real resource, and several people who talk over real sockets.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from hashlib import sha256
from typing import Any
from urllib.parse import unquote

import pytest
import pytest_twisted
from attrs import define, field
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from txsession import MemoryStore, StoreUnavailable

from .support import (
    Browser,
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

try:
    from twisted.web.websocket import WebSocketResource as _  # noqa: F401
    from wsproto import ConnectionType, WSConnection
    from wsproto.events import (
        AcceptConnection,
        CloseConnection,
        Ping,
        RejectConnection,
        Request,
        TextMessage,
    )

    from examples import chat
except ImportError as error:
    pytest.skip(
        f"platform: a Twisted without WebSockets, or no wsproto ({error})",
        allow_module_level=True,
    )


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Any:
    """
    An empty room, whose heart beats by a clock of its own.
    """
    room = chat.Room(clockAt())
    monkeypatch.setattr(chat, "room", room)
    return room


def open_(serve: Serve, *held: str, **options: Any) -> Served:
    clock = clockAt()
    store = StepStore(MemoryStore(reactor=clock), set(held))
    return serve(chat.app.resource(), store=store, clock=clock, **options)


def hidden(reply: Reply) -> str:
    found = re.search(r'name="token" value="([^"]*)"', reply.text)
    assert found is not None, reply.text
    return found[1]


async def enter(browser: Browser, name: str) -> Reply:
    token = hidden(await browser.get("/"))
    return await browser.post("/enter", data={"name": name, "token": token})


async def leave(browser: Browser) -> Reply:
    token = hidden(await browser.get("/"))
    return await browser.post("/leave", data={"token": token})


@define(eq=False)
class Socket(Protocol):
    """
    The browser's side of a WebSocket.

    @ivar status: of the answer to the request; 101 for a socket that opened.
    @ivar messages: what has come.
    @ivar code: with what the server closed it.
    @ivar lost: fires when the connection is gone.
    """

    request: Any
    ws: Any = field(init=False)
    status: int | None = None
    messages: list[dict[str, Any]] = field(factory=list)
    pings: int = 0
    code: int | None = None
    lost: Deferred[None] = field(factory=Deferred)

    def connectionMade(self) -> None:
        self.ws = WSConnection(ConnectionType.CLIENT)
        self.emit(self.request)

    def emit(self, event: Any) -> None:
        self.transport.write(self.ws.send(event))  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        self.ws.receive_data(data)
        for event in self.ws.events():
            if isinstance(event, AcceptConnection):
                self.status = 101
            elif isinstance(event, RejectConnection):
                self.status = event.status_code
            elif isinstance(event, TextMessage):
                self.messages.append(json.loads(event.data))
            elif isinstance(event, Ping):
                self.pings += 1
                self.emit(event.response())
            elif isinstance(event, CloseConnection):
                self.code = int(event.code)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.lost.callback(None)

    def say(self, text: str) -> None:
        self.emit(TextMessage(text))

    @property
    def lines(self) -> list[tuple[str, str, int]]:
        """
        What was said by whom, and what number of theirs it was.
        """
        lines: list[dict[str, Any]] = []
        for message in self.messages:
            if message["kind"] == "history":
                lines = list(message["lines"])
            elif message["kind"] == "line":
                lines.append(message["line"])
        return [(line["user"], line["text"], line["said"]) for line in lines]

    @property
    def people(self) -> list[str]:
        """
        Who is here, as was told last.
        """
        return [m["names"] for m in self.messages if m["kind"] == "people"][-1]

    async def until(self, count: int) -> list[tuple[str, str, int]]:
        """
        Wait for this many lines.
        """
        await eventually(lambda: len(self.lines) >= count)
        return self.lines

    async def close(self) -> None:
        self.emit(CloseConnection(1000))
        await patiently(self.lost)


async def connect(browser: Browser, **headers: str | None) -> Socket:
    """
    Open a socket as the script in the page would.

    @param headers: in place of those that the browser sends; None for none.
    """
    host = f"127.0.0.1:{browser.port}"
    cookie = "; ".join(f"{k}={v}" for k, v in browser.cookies.items())
    sent = {"Origin": f"http://{host}", "Cookie": cookie or None, **headers}
    extra = [(k.encode(), v.encode()) for k, v in sent.items() if v is not None]
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", browser.port)
    request = Request(host, "/socket", extra_headers=extra)
    socket: Socket = await connectProtocol(endpoint, Socket(request))
    await eventually(lambda: socket.status is not None)
    return socket


async def arrive(served: Served, name: str) -> tuple[Browser, Socket]:
    """
    Come in with a new browser, and open the page's socket.
    """
    browser = served.browser()
    await enter(browser, name)
    socket = await connect(browser)
    await eventually(lambda: len(socket.messages) >= 2)
    return browser, socket


def sidOf(browser: Browser) -> str:
    return unquote(browser.cookies["connect.sid"])[2:].rpartition(".")[0]


# Talking.


@pytest_twisted.ensureDeferred
async def test_everybodyHearsEverybody(serve: Serve, room: Any) -> None:
    """
    What somebody says reaches all who are here, themselves included, under the
    name that is in their session; each has a count of their own.
    """
    served = open_(serve)
    _, ada = await arrive(served, "ada")
    _, grace = await arrive(served, "grace")
    ada.say("hello")
    await grace.until(1)
    grace.say(" hi   there ")
    await ada.until(2)
    ada.say("tea?")
    said = [("ada", "hello", 1), ("grace", "hi there", 1), ("ada", "tea?", 2)]
    assert await ada.until(3) == await grace.until(3) == said


@pytest_twisted.ensureDeferred
async def test_theLinesAreCountedInTheSession(serve: Serve, room: Any) -> None:
    """
    The count is in the store as soon as a line is told, although the request
    that the socket began as is over; and the next socket goes on from there.
    """
    served = open_(serve)
    browser, ada = await arrive(served, "ada")
    for count in (1, 2):
        ada.say("hello")
        await ada.until(count)
        assert (await served.data(sidOf(browser)) or {})["said"] == count
    await ada.close()
    again = await connect(browser)
    again.say("back")
    assert (await again.until(3))[-1] == ("ada", "back", 3)


@pytest.mark.parametrize("tabs", [1, 2])
@pytest_twisted.ensureDeferred
async def test_noLineIsLostInTheCount(serve: Serve, room: Any, tabs: int) -> None:
    """
    With a store that takes its time, lines that come all at once, from one tab
    or from two, are each counted, and told in one order.
    """
    served = open_(serve)
    browser, one = await arrive(served, "ada")
    sockets = [one, await connect(browser)][:tabs]
    served.store.held = {"replace"}
    for number in range(4):
        sockets[number % tabs].say(f"line {number}")
    for _ in range(4):
        (await called(served.store, "replace")).release()
    lines = await one.until(4)
    assert [said for _, _, said in lines] == [1, 2, 3, 4]
    assert {text for _, text, _ in lines} == {f"line {n}" for n in range(4)}
    assert (await served.data(sidOf(browser)) or {})["said"] == 4


@pytest_twisted.ensureDeferred
async def test_aLineIsToldWhenItIsSaved(serve: Serve, room: Any) -> None:
    """
    Nobody hears a line before it is counted.
    """
    served = open_(serve)
    _, ada = await arrive(served, "ada")
    _, grace = await arrive(served, "grace")
    served.store.held = {"replace"}
    ada.say("hello")
    call = await called(served.store, "replace")
    await turn()
    assert grace.lines == []
    call.release()
    await grace.until(1)


@pytest_twisted.ensureDeferred
async def test_whoComesLaterSeesWhatWasSaid(serve: Serve, room: Any) -> None:
    """
    A new socket is sent the last lines, and no more than fifty.
    """
    served = open_(serve)
    _, ada = await arrive(served, "ada")
    for number in range(60):
        ada.say(str(number))
    await ada.until(60)
    _, grace = await arrive(served, "grace")
    assert [text for _, text, _ in grace.lines] == [str(n) for n in range(10, 60)]


@pytest_twisted.ensureDeferred
async def test_everybodyIsToldWhoIsHere(serve: Serve, room: Any) -> None:
    """
    The names change as people come and go; somebody with two tabs is here once.
    """
    served = open_(serve)
    browser, ada = await arrive(served, "ada")
    second = await connect(browser)
    _, grace = await arrive(served, "grace")
    await eventually(lambda: ada.people == ["ada", "grace"])
    await second.close()
    await grace.close()
    await eventually(lambda: ada.people == ["ada"])


@pytest.mark.parametrize("text", ["", "  \n ", "\u202e\u0007"])
@pytest_twisted.ensureDeferred
async def test_nothingIsNoLine(serve: Serve, room: Any, text: str) -> None:
    """
    What has nothing to see in it is not told.
    """
    _, ada = await arrive(open_(serve), "ada")
    ada.say(text)
    ada.say("x" * 10_000)
    [(_, told, count)] = await ada.until(1)
    assert (told, count) == ("x" * chat.LONGEST_LINE, 1)


# Who may.


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "",
        "null",
        "https://evil.example",
        "http://127.0.0.1",
        "http://127.0.0.1:1",
        "http://[",
        "http://127.0.0.1:{port}.evil.example",
        "http://evil.example/127.0.0.1:{port}",
        "127.0.0.1:{port}",
    ],
)
@pytest_twisted.ensureDeferred
async def test_aForeignPageOpensNoSocket(
    serve: Serve, room: Any, origin: str | None
) -> None:
    """
    A socket for the page of another site is refused, cookie or no cookie.
    """
    browser = open_(serve).browser()
    await enter(browser, "ada")
    forged = None if origin is None else origin.format(port=browser.port)
    socket = await connect(browser, Origin=forged)
    assert socket.status == 403
    assert room.members == []


@pytest_twisted.ensureDeferred
async def test_anOriginIsOursWhateverItsScheme(serve: Serve, room: Any) -> None:
    """
    Behind a proxy that speaks HTTPS the page's origin begins with https.
    """
    browser = open_(serve).browser()
    await enter(browser, "ada")
    socket = await connect(browser, Origin=f"https://127.0.0.1:{browser.port}")
    assert socket.status == 101


@pytest.mark.parametrize("cookie", [None, "connect.sid=s%3Aforged.signature"])
@pytest_twisted.ensureDeferred
async def test_whoHasNoSessionIsSentToTheDoor(
    serve: Serve, room: Any, cookie: str | None
) -> None:
    """
    A socket without a session, or with a forged one, is closed with the code
    that sends the page to the form; it hears nothing.
    """
    served = open_(serve)
    socket = await connect(served.browser(), Cookie=cookie)
    await patiently(socket.lost)
    assert (socket.code, socket.messages) == (chat.LEFT, [])
    assert served.store.calls == []


@pytest_twisted.ensureDeferred
async def test_aPlainRequestIsNoSocket(serve: Serve, room: Any) -> None:
    """
    What does not ask to become a socket is answered with an error.
    """
    browser = open_(serve).browser()
    await enter(browser, "ada")
    origin = {"Origin": f"http://127.0.0.1:{browser.port}"}
    assert (await browser.get("/socket", headers=origin)).status == 400
    assert room.members == []


# Leaving.


@pytest_twisted.ensureDeferred
async def test_whoHasLeftSaysNothingMore(serve: Serve, room: Any) -> None:
    """
    Of somebody who left in another tab, the next line is not told: their socket
    is closed, everybody else's stays open, and the session stays gone.
    """
    served = open_(serve)
    browser, ada = await arrive(served, "ada")
    _, grace = await arrive(served, "grace")
    await leave(browser)
    ada.say("still here?")
    await patiently(ada.lost)
    assert ada.code == chat.LEFT
    await eventually(lambda: grace.people == ["grace"])
    grace.say("bye")
    assert await grace.until(1) == [("grace", "bye", 1)]
    assert await served.store.store.length() == 1


@pytest_twisted.ensureDeferred
async def test_whoLeavesWhileALineIsSavedIsNotBroughtBack(
    serve: Serve, room: Any
) -> None:
    """
    If the session is destroyed between the look into it and the save, the line
    is not told either.
    """
    served = open_(serve)
    browser, ada = await arrive(served, "ada")
    served.store.held = {"replace"}
    ada.say("hello")
    call = await called(served.store, "replace")
    await leave(browser)
    call.release()
    await patiently(ada.lost)
    assert (ada.code, ada.lines) == (chat.LEFT, [])
    assert await served.store.store.length() == 0


@pytest_twisted.ensureDeferred
async def test_whoHasLeftHearsNoMoreAfterAHeartBeat(serve: Serve, room: Any) -> None:
    """
    Who only listens is pinged by the heart-beat, and closed by it if they have
    left; it stops when nobody is here.
    """
    served = open_(serve)
    browser, ada = await arrive(served, "ada")
    room.clock.advance(chat.HEARTBEAT)
    await eventually(lambda: ada.pings == 1)
    await leave(browser)
    room.clock.advance(chat.HEARTBEAT)
    await patiently(ada.lost)
    assert ada.code == chat.LEFT
    assert room.clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_aClientThatVanishesIsForgotten(serve: Serve, room: Any) -> None:
    """
    When a connection breaks, without a farewell, the others are told and the
    heart-beat goes on for them.
    """
    served = open_(serve)
    _, ada = await arrive(served, "ada")
    _, grace = await arrive(served, "grace")
    ada.transport.abortConnection()  # type: ignore[union-attr]
    await eventually(lambda: grace.people == ["grace"])
    assert len(room.members) == 1
    assert len(room.clock.getDelayedCalls()) == 1


@pytest_twisted.ensureDeferred
async def test_aLineOfAClientThatVanishesIsCounted(serve: Serve, room: Any) -> None:
    """
    What somebody said before their connection broke is saved and told.
    """
    served = open_(serve)
    browser, ada = await arrive(served, "ada")
    _, grace = await arrive(served, "grace")
    served.store.held = {"replace"}
    ada.say("goodbye")
    call = await called(served.store, "replace")
    await ada.close()
    await eventually(lambda: len(room.members) == 1)
    call.release()
    assert await grace.until(1) == [("ada", "goodbye", 1)]
    assert (await served.data(sidOf(browser)) or {})["said"] == 1


@pytest_twisted.ensureDeferred
async def test_aSocketThatIsClosingIsInNobodysWay(serve: Serve, room: Any) -> None:
    """
    A line that is told between the farewell of a client and the end of its
    connection reaches the others, and harms nobody.
    """
    served = open_(serve)
    _, ada = await arrive(served, "ada")
    _, grace = await arrive(served, "grace")
    first = room.members[0]
    first._transport.dataReceived(bytes([0x88, 0x80, 0, 0, 0, 0]))  # a Close
    assert first in room.members
    room.tell({"user": "grace", "text": "hello", "said": 1})
    await grace.until(1)
    await patiently(ada.lost)
    assert grace.code is None


# What goes wrong.


@pytest.mark.parametrize("operation", ["get", "replace"])
@pytest_twisted.ensureDeferred
async def test_aLineThatCannotBeSavedIsNotTold(
    serve: Serve, room: Any, operation: str, logged: list[Any]
) -> None:
    """
    If the store fails, the line is lost, which is logged, and its socket closed
    so that the page tries again; the next line is counted as if it had been the
    first.
    """
    served = open_(serve)
    browser, ada = await arrive(served, "ada")
    served.store.held = {operation}
    ada.say("hello")
    call = await called(served.store, operation)
    served.store.held = set()
    call.fail(StoreUnavailable("it is down"))
    await patiently(ada.lost)
    assert (ada.code, ada.lines) == (chat.TRY_AGAIN, [])
    assert any("was lost" in each.get("log_format", "") for each in logged)
    again = await connect(browser)
    again.say("hello")
    assert await again.until(1) == [("ada", "hello", 1)]


@pytest_twisted.ensureDeferred
async def test_theHeartBeatOutlivesAnOutage(
    serve: Serve, room: Any, logged: list[Any]
) -> None:
    """
    If the store does not say whether somebody is here, they stay, until it does.
    """
    served = open_(serve)
    browser, ada = await arrive(served, "ada")
    served.store.held = {"get"}
    room.clock.advance(chat.HEARTBEAT)
    (await called(served.store, "get")).fail(StoreUnavailable("it is down"))
    await eventually(
        lambda: any("is not known" in each.get("log_format", "") for each in logged)
    )
    assert len(room.members) == 1
    served.store.held = set()
    await leave(browser)
    room.clock.advance(chat.HEARTBEAT)
    await patiently(ada.lost)
    assert ada.code == chat.LEFT


# The pages.


@pytest_twisted.ensureDeferred
async def test_theIDIsNewInside(serve: Serve, room: Any) -> None:
    """
    Who comes in gets a new ID and a new token; the old ID opens nothing.
    """
    served = open_(serve)
    browser = served.browser()
    first = await browser.get("/")
    planted = dict(browser.cookies)
    token = hidden(first)
    entered = await browser.post("/enter", data={"name": "ada", "token": token})
    assert (entered.status, entered.header("Location")) == (303, "/")
    assert browser.cookies != planted
    assert hidden(await browser.get("/")) != token
    socket = await connect(Browser(browser.port, planted))
    await patiently(socket.lost)
    assert socket.code == chat.LEFT


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (" Ada \u202eLovelace\n", "Ada Lovelace"),
        ("x" * 100, "x" * 24),
        ("<b>ada</b>", "&lt;b&gt;ada&lt;/b&gt;"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_aNameIsMadeOneLine(
    serve: Serve, room: Any, name: str, shown: str
) -> None:
    """
    A name is short, on one line and all to be seen, and it is escaped.
    """
    browser = open_(serve).browser()
    await enter(browser, name)
    text = (await browser.get("/")).text
    assert f'<span class="hint">{shown}</span>' in text


@pytest.mark.parametrize("name", ["", " ", "\u200b"])
@pytest_twisted.ensureDeferred
async def test_nobodyIsWithoutAName(serve: Serve, room: Any, name: str) -> None:
    """
    Without a name, the form is shown again.
    """
    browser = open_(serve).browser()
    assert (await enter(browser, name)).status == 303
    assert 'id="name"' in (await browser.get("/")).text


@pytest.mark.parametrize("token", ["", "guessed"])
@pytest_twisted.ensureDeferred
async def test_aForgedFormIsRefused(serve: Serve, room: Any, token: str) -> None:
    """
    Without the token of its session, a form brings nobody in or out.
    """
    browser = open_(serve).browser()
    data = {"name": "ada", "token": token}
    await browser.get("/")
    refused = await browser.post("/enter", data=data)
    assert (refused.status, "Try again" in refused.text) == (403, True)
    await enter(browser, "ada")
    assert (await browser.post("/leave", data=data)).status == 403
    assert 'id="lines"' in (await browser.get("/")).text


@pytest_twisted.ensureDeferred
async def test_whoIsInsideKeepsTheirName(serve: Serve, room: Any) -> None:
    """
    A form that is sent a second time makes no other person of anybody.
    """
    browser = open_(serve).browser()
    await enter(browser, "ada")
    assert (await browser.post("/enter", data={"name": "grace"})).status == 303
    assert ">ada<" in (await browser.get("/")).text


@pytest_twisted.ensureDeferred
async def test_thePageRunsOurScriptOnly(serve: Serve, room: Any) -> None:
    """
    The page has neither inline scripts nor handlers nor styles of its own, its
    policy allows nothing but what is served here, and what it names is there.
    """
    browser = open_(serve).browser()
    await enter(browser, "ada")
    page = await browser.get("/")
    policy = page.header("Content-Security-Policy") or ""
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.header("Cache-Control") == "no-store"
    assert re.findall("<script[^>]*>[^<]", page.text) == []
    assert not re.search(r"\s(on\w+|style)=", page.text)
    for tag, kind in (("script", "text/javascript"), ("link", "text/css")):
        [name] = re.findall(f'<{tag}[^>]* (?:src|href)="(/[^"]+)"', page.text)
        asset = await browser.get(name)
        assert asset.header("Content-Type") == f"{kind}; charset=utf-8"
        assert asset.header("X-Content-Type-Options") == "nosniff"
        assert (asset.setCookies, asset.header("Vary")) == ([], None)
        assert "innerHTML" not in asset.text


@pytest_twisted.ensureDeferred
async def test_theStyleOfThePageIsTheOneAllowed(serve: Serve, room: Any) -> None:
    """
    The hash in the policy is that of the style sheet in the page.
    """
    page = await open_(serve).browser().get("/")
    [style] = re.findall("<style>(.*?)</style>", page.text, re.DOTALL)
    digest = b64encode(sha256(style.encode()).digest()).decode()
    policy = page.header("Content-Security-Policy") or ""
    assert f"style-src 'self' 'sha256-{digest}'" in policy
