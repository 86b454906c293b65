"""
A bakery that tells you when your bread is ready, by server-sent events.

    python -m examples.events [PORT]

What is ordered is kept in the session.  The stream that the page listens to
goes on for as long as the page is open:

- it looks into the session once a second, with C{reload()}, so it does not
  matter which tab the order came from, nor which process took it;
- what it has told is noted in the session, with C{save()}: a response that
  never ends has no end at which that would happen;
- when the visitor leaves the bakery, in whatever tab, C{reload()} says that the
  session is gone, and the stream ends; when the page is closed, it stops;
- when the connection breaks, the browser comes back by itself and says in
  C{Last-Event-ID} what it has heard last.

The ID of an event is when the bread was ready, and which it was: that is in the
session, so any process can go on from there, also after a restart if the store
outlives it.
"""

from __future__ import annotations

import json
import re
from secrets import token_hex
from typing import Any

from attrs import define, field
from klein import Klein
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from twisted.web.template import Element, Tag, tags

from txsession import (
    MemoryStore,
    Session,
    SessionGone,
    SessionResource,
    StoreError,
    getSession,
)

from . import entrance
from .login import field as entered
from .login import form, isFromOurForm, seeOther
from .serving import serve, sessionSecret

log = Logger()

SITE = "The bakery"
BREADS = {"rye": "Rye bread", "rolls": "Six rolls", "plait": "Plaited loaf"}
BAKING = 10
"""
Seconds that any bread takes.
"""
MOST = 12
"""
The orders that a session remembers.
"""

PULSE = 1.0
HEARTBEAT = 15.0
"""
Seconds after which something is sent though nothing has happened: proxies close
a connection that says nothing, and it is only in writing that a server learns
that a client has vanished.
"""


# The orders of a session.

Place = tuple[int, str]
"""
When a bread was ready, in milliseconds, and the order's number: a place in the
sequence of events, and an event's ID when the two are joined by a dash.
"""

START: Place = (0, "")


def readyUntil(session: Session, now: float) -> list[Place]:
    orders = session.get("orders", {}).items()
    return sorted(
        (order["ready"], number)
        for number, order in orders
        if order["ready"] <= now * 1000
    )


def asID(place: Place) -> str:
    return "{}-{}".format(*place)


def asPlace(eventID: str | None) -> Place | None:
    """
    @return: L{None} for what is not the ID of an event.
    """
    found = re.fullmatch(r"(\d{1,15})-([0-9a-f]{0,8})", eventID or "", re.ASCII)
    return None if found is None else (int(found[1]), found[2])


def toldUntil(session: Session) -> Place:
    """
    The place of the last event that any page of this session was told of.
    """
    return asPlace(session.get("told")) or START


# The stream.


class Stream(Resource):
    """
    The events of a session, for as long as somebody listens.

    @ivar clock: what tells the time.
    """

    isLeaf = True

    def __init__(self, clock: Any) -> None:
        super().__init__()
        self.clock = clock

    def render_GET(self, request: Any) -> Any:
        session = getSession(request)
        if "user" not in session:
            # To an EventSource this means: do not come back.
            request.setResponseCode(204)
            return b""
        request.setHeader("Content-Type", "text/event-stream")
        # For no cache to keep, and for no proxy to pack or to gather up: the
        # last is what nginx listens to.
        request.setHeader("Cache-Control", "no-store, no-transform")
        request.setHeader("X-Accel-Buffering", "no")
        if request.method == b"HEAD":
            return b""
        Listener(self.clock, request, session, placeOf(request, session)).begin()
        return NOT_DONE_YET


def placeOf(request: Any, session: Session) -> Place:
    """
    Where a listener goes on: after what the browser heard last; or, at the
    first time, after what the page has shown; or else after what any page of
    this session has heard.
    """
    return (
        asPlace(request.getHeader("Last-Event-ID"))
        or asPlace(entered(request, "after"))
        or toldUntil(session)
    )


@define(eq=False)
class Listener:
    """
    One open stream.

    @ivar place: that of the last event it was told of.
    """

    clock: Any
    request: Any
    session: Session
    place: Place
    _counts: dict[str, int] | None = None
    _lastWrite: float = 0
    _isOver: bool = False
    _looking: LoopingCall = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._looking = LoopingCall(self._look)
        self._looking.clock = self.clock

    def begin(self) -> None:
        self.request.notifyFinish().addBoth(self._stop)
        # With the first write the headers go out, and whatever was changed in
        # the session before is saved.
        self._write("retry: 2000\n\n")
        self._looking.start(PULSE).addErrback(self._failed)

    def _stop(self, _: object) -> None:
        self._isOver = True
        if self._looking.running:
            self._looking.stop()

    def _look(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._lookOnce())

    async def _lookOnce(self) -> None:
        try:
            await self.session.reload()
            await self._tell()
        except SessionGone:
            self._end()
        except StoreError:
            # It comes back, or else the visitor gives up.  What could not be
            # noted will be, with the next bread.
            log.failure("The stream could not look into its session.")
        if self.clock.seconds() - self._lastWrite >= HEARTBEAT:
            self._write(": still here\n\n")

    async def _tell(self) -> None:
        orders = self.session.get("orders", {})
        ready = readyUntil(self.session, self.clock.seconds())
        news = [place for place in ready if place > self.place]
        for place in news:
            self._send("ready", {"order": place[1]}, asID(place))
            self.place = place
        counts = {"ready": len(ready), "baking": len(orders) - len(ready)}
        if counts != self._counts:
            self._counts = counts
            self._send("counts", counts)
        if news:
            self.session["told"] = asID(self.place)
            await self.session.save()

    def _send(self, event: str, data: dict[str, Any], eventID: str = "") -> None:
        # An event without an ID leaves the browser's Last-Event-ID as it is.
        first = f"id: {eventID}\n" if eventID else ""
        self._write(f"{first}event: {event}\ndata: {json.dumps(data)}\n\n")

    def _write(self, text: str) -> None:
        # Whoever was waited for, the client may have left meanwhile.
        if not self._isOver:
            self.request.write(text.encode())
            self._lastWrite = self.clock.seconds()

    def _end(self) -> None:
        self._send("end", {})
        self._finish()

    def _failed(self, failure: Failure) -> None:
        log.failure("A stream broke off.", failure)
        self._finish()  # and the browser comes back

    def _finish(self) -> None:
        if not self._isOver:
            self._stop(None)
            self.request.finish()


# The pages.

app = Klein()
clock: Any = reactor


@app.route("/stream")
def stream(request: Any) -> Resource:
    return Stream(clock)


@app.route("/")
def home(request: Any) -> Element:
    return shop(request) if "user" in getSession(request) else ask(request)


def ask(request: Any) -> Element:
    return entrance.show(
        request,
        SITE,
        "Good morning",
        tags.p("We bake while you wait. In whose name is it?"),
        entrance.nameForm(request),
    )


def shop(request: Any) -> Element:
    session = getSession(request)
    ready = readyUntil(session, clock.seconds())
    told = toldUntil(session)
    missed = sum(place > told for place in ready)
    last = max([told, *ready])
    if missed:
        session["told"] = asID(last)
    return entrance.show(
        request,
        SITE,
        "Your breads",
        tags.script(src="/events.js", defer=""),
        tags.p(f"Ready while you were away: {missed}.") if missed else "",
        tags.ul(
            [row(session, number, last) for number in session.get("orders", {})],
            id="orders",
            class_="items",
            **{"data-after": asID(last)},
        ),
        tags.p("Listening\N{HORIZONTAL ELLIPSIS}", id="counts", role="status"),
        tags.noscript(tags.p("Reload the page to see what is ready.", class_="hint")),
        form(
            request,
            "/order",
            tags.ul([offer(bread) for bread in BREADS], class_="items"),
        ),
        nav=entrance.wayOut(request),
    )


def offer(bread: str) -> Tag:
    label = {"aria-label": f"Order: {BREADS[bread]}"}
    return tags.li(
        BREADS[bread],
        tags.button("Order", name="bread", value=bread, class_="quiet", **label),
    )


def row(session: Session, number: str, last: Place) -> Tag:
    order = session["orders"][number]
    isReady = (order["ready"], number) <= last
    return tags.li(
        BREADS[order["bread"]],
        tags.span("ready" if isReady else "in the oven", class_="hint"),
        id=f"order-{number}",
    )


@app.route("/order", methods=["POST"])
def order(request: Any) -> Any:
    session = getSession(request)
    if "user" not in session:
        return seeOther(request, "/")
    if not isFromOurForm(request):
        return entrance.refuse(request, SITE)
    bread = entered(request, "bread")
    if bread in BREADS:
        ready = int((clock.seconds() + BAKING) * 1000)
        orders = session.setdefault("orders", {})
        # Each under a key of its own, so that of two orders at the same time
        # none is lost when they are merged.
        orders[token_hex(4)] = {"bread": bread, "ready": ready}
        for number in sorted(orders, key=lambda n: orders[n]["ready"])[:-MOST]:
            del orders[number]
    return seeOther(request, "/")


@app.route("/enter", methods=["POST"])
async def enter(request: Any) -> Any:
    return await entrance.enter(request, SITE)


@app.route("/leave", methods=["POST"])
async def leave(request: Any) -> Any:
    return await entrance.leave(request, SITE)


@app.route("/events.js")
def script(request: Any) -> bytes:
    return entrance.asset(request, "text/javascript", SCRIPT)


SCRIPT = """
"use strict";
(() => {
  const orders = document.getElementById("orders");
  const counts = document.getElementById("counts");
  const after = encodeURIComponent(orders.dataset.after);
  const source = new EventSource(`/stream?after=${after}`);

  source.addEventListener("ready", (event) => {
    const item = document.getElementById(`order-${JSON.parse(event.data).order}`);
    // What another tab has ordered is not on this page.
    if (item === null) location.reload();
    else item.querySelector("span").textContent = "ready";
  });

  source.addEventListener("counts", (event) => {
    const now = JSON.parse(event.data);
    counts.textContent = `In the oven: ${now.baking}. Ready: ${now.ready}.`;
  });

  source.addEventListener("end", () => {
    source.close();
    location.assign("/");
  });

  // The browser comes back by itself, unless it was told not to.
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) location.assign("/");
    else counts.textContent = "The connection is lost. Trying again\\u2026";
  });
})();
"""

resource = SessionResource(app, secret=sessionSecret(), store=MemoryStore())

if __name__ == "__main__":
    serve(resource)
