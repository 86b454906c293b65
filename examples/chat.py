"""
A chat over WebSockets that knows who is talking.

    python -m examples.chat [PORT]

It needs a Twisted that has C{twisted.web.websocket}, and wsproto.

Who opens a socket is known by the session, whose cookie comes with the request
that the socket begins as.  The socket then lives much longer than that request,
so each time somebody says something

- C{reload()} finds out whether they have left in another tab, and closes the
  socket if so;
- C{save()} keeps what was counted: there is no response whose end would.

Who says nothing is looked after by the heart-beat, which every half minute does
the same for everybody.

A browser opens a socket to this site for any other site, and sends the cookie
with it if the two have the same domain: so C{Origin} has to be ours.

What a chat on the internet would need besides: a limit to how much one visitor
says, something for readers who are too slow (C{attachProducer} of the socket's
transport), and, with several processes, something that passes the lines from
one to the other.
"""

from __future__ import annotations

import json
from collections import deque
from contextlib import suppress
from typing import Any

from attrs import define, field
from klein import Klein
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.template import Element, tags
from twisted.web.websocket import WebSocketResource
from wsproto.utilities import LocalProtocolError

from txsession import MemoryStore, Session, SessionGone, SessionResource, getSession

from . import entrance
from .serving import serve, sessionSecret

log = Logger()

SITE = "The coffee house"
LONGEST_LINE = 500

HEARTBEAT = 30.0
"""
Seconds.  Proxies close a connection on which nothing happens, many of them
after a minute.
"""

LEFT, TRY_AGAIN = 4001, 1011
"""
Codes with which a socket is closed: its session has ended (the numbers from
4000 on are for applications to define), and something went wrong here.
"""


# The room.


@define(eq=False)
class Room:
    """
    Everybody who is here, and what was said last.

    @ivar clock: what the heart-beat goes by.
    """

    clock: Any
    members: list[Member] = field(factory=list)
    lines: deque[dict[str, Any]] = field(factory=lambda: deque(maxlen=50))
    _turn: DeferredLock = field(factory=DeferredLock)
    _beating: LoopingCall | None = None

    def buildProtocol(self, request: Any) -> Member:
        """
        What a socket is answered by; called for each by C{WebSocketResource}.
        """
        return Member(self, getSession(request))

    def join(self, member: Member) -> None:
        member.send(kind="history", lines=list(self.lines))
        self.members.append(member)
        self._tellWhoIsHere()
        if self._beating is None:
            self._beating = LoopingCall(self._beat)
            self._beating.clock = self.clock
            self._beating.start(HEARTBEAT, now=False)

    def part(self, member: Member) -> None:
        if member not in self.members:
            return
        self.members.remove(member)
        self._tellWhoIsHere()
        if not self.members and self._beating is not None:
            self._beating.stop()
            self._beating = None

    def say(self, member: Member, text: str) -> Deferred[None]:
        # One after the other.  Everybody then reads the lines in the same
        # order; and reload() drops what is not saved yet, which would be the
        # count of the line before, if it was called in the middle of that.
        return self._turn.run(member.say, text)

    def tell(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        self._broadcast(kind="line", line=line)

    def _tellWhoIsHere(self) -> None:
        self._broadcast(kind="people", names=sorted({m.user for m in self.members}))

    def _broadcast(self, **message: Any) -> None:
        for member in list(self.members):
            member.send(**message)

    async def _beatOnce(self) -> None:
        for member in list(self.members):
            await self._turn.run(member.check)

    def _beat(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._beatOnce())


@define(eq=False)
class Member:
    """
    One socket, and the session that it was opened with.
    """

    room: Room
    session: Session
    user: str = ""
    _transport: Any = None
    _isOpen: bool = False

    # What the socket calls.

    def negotiationStarted(self, transport: Any) -> None:
        self._transport = transport

    def negotiationFinished(self) -> None:
        self._isOpen = True
        if "user" not in self.session:
            # A socket cannot be answered with a page that asks for a name; the
            # script in the page goes there when it is told this code.
            self.close(LEFT)
            return
        self.user = self.session["user"]
        self.room.join(self)

    def textMessageReceived(self, message: str) -> None:
        text = entrance.cleaned(message, LONGEST_LINE)
        if text and self._isOpen:
            self.room.say(self, text).addErrback(self.failed)

    def bytesMessageReceived(self, data: Any) -> None:
        pass

    def pongReceived(self, payload: bytes) -> None:
        pass

    def connectionLost(self, reason: Failure) -> None:
        self._isOpen = False
        self.room.part(self)

    # What the room calls.

    def say(self, text: str) -> Deferred[None]:
        return Deferred.fromCoroutine(self._say(text))

    async def _say(self, text: str) -> None:
        try:
            await self.session.reload()
            self.session["said"] = self.session.get("said", 0) + 1
            await self.session.save()
        except SessionGone:
            self.close(LEFT)
            return
        self.room.tell({"user": self.user, "text": text, "said": self.session["said"]})

    def check(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._check())

    async def _check(self) -> None:
        self._transmit("ping")
        try:
            await self.session.reload()
        except SessionGone:
            self.close(LEFT)
        except Exception:  # next time, perhaps
            log.failure("It is not known whether {user} is here.", user=self.user)

    def send(self, **message: Any) -> None:
        self._transmit("sendTextMessage", json.dumps(message))

    def close(self, code: int) -> None:
        self._transmit("loseConnection", code)
        self._isOpen = False
        self.room.part(self)

    def _transmit(self, operation: str, *arguments: Any) -> None:
        # Between the other side's farewell and connectionLost there is a moment
        # of which nobody tells us, and in which nothing can be sent.
        with suppress(LocalProtocolError):
            if self._isOpen:
                getattr(self._transport, operation)(*arguments)

    def failed(self, failure: Failure) -> None:
        log.failure("What {user} said was lost.", failure, user=self.user)
        self.close(TRY_AGAIN)


room = Room(reactor)


def isFromOurPage(request: Any) -> bool:
    """
    Whether the page that opens a socket is one of ours: browsers say in
    C{Origin} whose it is.
    """
    _, _, ours = (request.getHeader("Origin") or "").lower().partition("://")
    return ours != "" and ours == (request.getHeader("Host") or "").lower()


# The pages.

app = Klein()


@app.route("/socket")
def socket(request: Any) -> Any:
    if not isFromOurPage(request):
        request.setResponseCode(403)
        return b"This socket is for the pages of this site.\n"
    return WebSocketResource(room)


@app.route("/")
def home(request: Any) -> Element:
    return talk(request) if "user" in getSession(request) else ask(request)


def ask(request: Any) -> Element:
    return entrance.show(
        request,
        SITE,
        "Who is there?",
        tags.p("Tell us your name, and join in."),
        entrance.nameForm(request),
    )


def talk(request: Any) -> Element:
    return entrance.show(
        request,
        SITE,
        "Everybody",
        tags.link(rel="stylesheet", href="/chat.css"),
        tags.script(src="/chat.js", defer=""),
        tags.p("Connecting\N{HORIZONTAL ELLIPSIS}", id="state", class_="hint"),
        tags.ol(id="lines", role="log", tabindex="0", **{"aria-label": "Lines"}),
        tags.form(
            tags.div(
                tags.label("Say", for_="text"),
                tags.input(
                    id="text",
                    maxlength=str(LONGEST_LINE),
                    required="",
                    autocomplete="off",
                    autofocus="",
                ),
            ),
            tags.button("Say it", id="send", disabled=""),
            id="say",
            class_="row",
        ),
        tags.noscript(tags.p("A chat needs JavaScript.", class_="alert")),
        nav=entrance.wayOut(request),
    )


@app.route("/enter", methods=["POST"])
async def enter(request: Any) -> Any:
    return await entrance.enter(request, SITE)


@app.route("/leave", methods=["POST"])
async def leave(request: Any) -> Any:
    return await entrance.leave(request, SITE)


@app.route("/chat.js")
def script(request: Any) -> bytes:
    return entrance.asset(request, "text/javascript", SCRIPT)


@app.route("/chat.css")
def style(request: Any) -> bytes:
    return entrance.asset(request, "text/css", STYLE)


SCRIPT = """
"use strict";
(() => {
  const LEFT = 4001;  // the session has ended
  const [state, lines, say, text, send] =
    ["state", "lines", "say", "text", "send"].map((id) => document.getElementById(id));
  const address = new URL("/socket", location.href);
  address.protocol = address.protocol.replace("http", "ws");
  let socket, wait = 1;

  // Always as text, never as HTML.
  function add(line) {
    const item = document.createElement("li");
    const user = document.createElement("strong");
    user.textContent = line.user;
    user.title = `line ${line.said} of this session`;
    item.append(user, " ", line.text);
    lines.append(item);
    lines.scrollTop = lines.scrollHeight;
  }

  const receive = {
    history(message) {
      lines.replaceChildren();
      message.lines.forEach(add);
    },
    line(message) {
      add(message.line);
    },
    people(message) {
      state.textContent = `Here: ${message.names.join(", ")}`;
    },
  };

  function connect() {
    socket = new WebSocket(address);
    socket.addEventListener("open", () => {
      wait = 1;
      send.disabled = false;
    });
    socket.addEventListener("message", (event) => {
      const message = JSON.parse(event.data);
      receive[message.kind](message);
    });
    socket.addEventListener("close", (event) => {
      send.disabled = true;
      if (event.code === LEFT) {
        location.assign("/");
        return;
      }
      state.textContent = "The connection is lost. Trying again\\u2026";
      setTimeout(connect, wait * 1000);
      wait = Math.min(2 * wait, 30);
    });
  }

  say.addEventListener("submit", (event) => {
    event.preventDefault();
    if (send.disabled) return;
    socket.send(text.value);
    text.value = "";
    text.focus();
  });

  connect();
})();
"""

STYLE = """
#lines {
  height: 16rem; margin: 0 0 1.25rem; padding: .75rem 1rem; overflow-y: auto;
  list-style: none; background: var(--paper); border: 1px solid var(--line);
  border-radius: .5rem;
}
#lines li { margin: 0 0 .375rem }
#lines strong { color: var(--accent) }
#say { margin-bottom: 0 }
button[disabled] { opacity: .5; cursor: default }
"""

resource = SessionResource(app, secret=sessionSecret(), store=MemoryStore())

if __name__ == "__main__":
    serve(resource)
