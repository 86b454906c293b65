"""
What the browser is pointed at.

    python -m tests.browser.server cookies|EXAMPLE

C{cookies} are pages of many configurations; an example is served for HTTPS
behind a proxy.  Both believe the proxies of these tests.
"""

from __future__ import annotations

import sys
from html import escape
from importlib import import_module
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Site

from txsession import CookieOptions, SessionGone, SessionResource, getSession

from ..support import SECRET, Page
from .proxies import ADDRESS

try:
    from twisted.web.websocket import WebSocketResource
except ImportError:
    WebSocketResource = None

CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "overwriting": {"onConflict": "overwrite"},
    "strict": {"cookie": CookieOptions(sameSite="strict")},
    "cross": {"cookie": CookieOptions(sameSite="none", secure=True)},
    "automatic": {"cookie": CookieOptions(sameSite="auto")},
    "secure": {"cookie": CookieOptions(secure=True)},
    "host": {"name": "__Host-sid", "cookie": CookieOptions(secure=True)},
    "prefixed": {"name": "__Secure-sid", "cookie": CookieOptions(secure=True)},
    "partitioned": {
        "name": "__Host-apart",
        "cookie": CookieOptions(secure=True, sameSite="none", partitioned=True),
    },
    "lasting": {"cookie": CookieOptions(maxAge=3600)},
    "important": {"cookie": CookieOptions(priority="high")},
    "scripted": {"cookie": CookieOptions(httpOnly=False)},
    "below": {"cookie": CookieOptions(path="/below")},
    "wide": {"cookie": CookieOptions(domain="site.test")},
    "distrustful": {"proxy": None},
    "credulous": {"proxy": True},
}
"""
Options of a SessionResource, by the path that it is found at.  The name of its
cookie is the same, unless it is given.
"""


def sessions(wrapped: Any, **options: Any) -> SessionResource:
    return SessionResource(wrapped, **{"secret": SECRET, "proxy": [ADDRESS], **options})


# Pages.


class Meeting:
    """
    Requests that wait for one another.
    """

    def __init__(self) -> None:
        self.waiting: list[Deferred[None]] = []

    def join(self) -> Deferred[None]:
        """
        Fires when there are two.
        """
        self.waiting.append(Deferred())
        mine = self.waiting[-1]
        if len(self.waiting) == 2:
            both, self.waiting = self.waiting, []
            for each in both:
                each.callback(None)
        return mine


def pages() -> Page:
    """
    A count of views, a way to add to the session two at a time, and a logout.
    """
    meeting = Meeting()

    async def answer(request: Any) -> str:
        session = getSession(request)
        what, *names = [part.decode() for part in request.postpath]
        if what == "together":
            # Both have their session, and neither has saved it.
            await meeting.join()
            session[names[0]] = True
        elif what == "logout" and request.method == b"POST":
            await session.destroy()
            return html("Out")
        elif what != "data":
            session["views"] = session.get("views", 0) + 1
        if what == "private":
            request.setHeader("Cache-Control", "no-store")
        return html(
            " ".join(f"{key}={value}" for key, value in sorted(session.items())),
            "<form method=post action=logout><button>Log out</button></form>",
        )

    return Page(answer)


def elsewhere(request: Any) -> str:
    """
    A page of another site, which links to an address, posts to it and has it in a
    frame.
    """
    to = escape(request.args[b"to"][0].decode())
    return html(
        "Elsewhere",
        f'<a href="{to}">link</a>',
        f'<form method=post action="{to}"><button>post</button></form>',
        f'<iframe src="{to}"></iframe>' if b"frame" in request.args else "",
    )


def html(text: str, *more: str) -> str:
    return (
        "<!DOCTYPE html><meta charset=utf-8><link rel=icon href='data:,'>"
        f"<title>Test</title><p>{escape(text)}</p>{''.join(more)}"
    )


# What lives long.


class Conversation:
    """
    A WebSocket that keeps in the session how much was said.
    """

    def __init__(self, session: Any) -> None:
        self.session = session

    def negotiationStarted(self, transport: Any) -> None:
        self.transport = transport

    def negotiationFinished(self) -> None:
        self.transport.sendTextMessage(f"views={self.session.get('views')}")

    def textMessageReceived(self, message: str) -> None:
        Deferred.fromCoroutine(self.answer(message))

    async def answer(self, message: str) -> None:
        try:
            await self.session.reload()
            self.session["said"] = [*self.session.get("said", []), message]
            await self.session.save()
        except SessionGone:
            self.transport.loseConnection()
            return
        self.transport.sendTextMessage(f"said={len(self.session['said'])}")

    def bytesMessageReceived(self, data: bytes) -> None: ...

    def pongReceived(self, payload: bytes) -> None: ...

    def connectionLost(self, reason: Any) -> None: ...


class Conversations:
    def buildProtocol(self, request: Any) -> Conversation:
        return Conversation(getSession(request))


class Events:
    """
    Server-sent events, of which each one is sent when the browser says that it
    has the one before.
    """

    def __init__(self) -> None:
        self.listeners: dict[str, Any] = {}

    def listen(self, request: Any) -> Any:
        request.setHeader("Content-Type", "text/event-stream")
        request.setHeader("Cache-Control", "no-store")
        self.listeners[getSession(request).id] = request
        request.notifyFinish().addErrback(lambda _: None)
        request.write(b"data: first\n\n")
        return NOT_DONE_YET

    def next(self, request: Any) -> str:
        session = getSession(request)
        session["received"] = session.get("received", 0) + 1
        self.listeners[session.id].write(b"data: received=%d\n\n" % session["received"])
        return ""


def live() -> IResource:
    root = Resource()
    events = Events()
    root.putChild(b"page", pages())
    root.putChild(b"events", Page(events.listen))
    root.putChild(b"next", Page(events.next))
    if WebSocketResource is not None:
        root.putChild(b"socket", WebSocketResource(Conversations()))
    return root


# Sites.


def cookies() -> IResource:
    root = Resource()
    root.putChild(b"elsewhere", Page(elsewhere))
    root.putChild(b"live", sessions(live()))
    for case, options in CASES.items():
        root.putChild(case.encode(), sessions(pages(), **{"name": case, **options}))
    return root


def example(name: str) -> IResource:
    app = import_module(f"examples.{name}").app
    return sessions(app, name="__Host-sid", cookie=CookieOptions(secure=True))


def main() -> None:
    from twisted.internet import reactor  # only here: importing it installs it

    [site] = sys.argv[1:]
    root = cookies() if site == "cookies" else example(site)
    globalLogBeginner.beginLoggingTo(
        [textFileLogObserver(sys.stderr)], redirectStandardIO=False
    )
    listening: Any = reactor
    port = listening.listenTCP(0, Site(root), interface="127.0.0.1")
    print(f"http://127.0.0.1:{port.getHost().port}/", flush=True)
    listening.run()


if __name__ == "__main__":
    main()
