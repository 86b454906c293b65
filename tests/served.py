"""
Applications that the tests of the plugin name on its command line.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from klein import Klein
from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web.resource import Resource

from txsession import CookieOptions, ISession, MemoryStore, SessionResource, getSession

log = Logger()
app = Klein()


@app.route("/")
def count(request: Any) -> str:
    session = getSession(request)
    session["views"] = session.get("views", 0) + 1
    return str(session["views"])


@app.route("/read")
def read(request: Any) -> str:
    return str(getSession(request).get("views"))


@app.route("/nothing")
def nothing(request: Any) -> str:
    return "nothing"


@app.route("/unset")
def unset(request: Any) -> str:
    request.unsetComponent(ISession)
    return "unset"


@app.route("/process")
def process(request: Any) -> str:
    return str(os.getpid())


@app.route("/stream")
def stream(request: Any) -> Any:
    request.write(b"begun")
    return Deferred()


class Plain(Resource):
    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        getSession(request)["seen"] = True
        return b"plain"


class Namespace:
    app = Plain()


plain = Plain()
wrapped = SessionResource(Plain(), secret="its own", name="its-own")
number = 7


def makeApp() -> Klein:
    return app


def makeResource() -> Resource:
    return Plain()


def makeAudible() -> Klein:
    """
    The app, which tells on standard output when it runs, whatever the log does.
    """
    from twisted.internet import reactor

    run: Any = reactor
    run.callWhenRunning(print, "it runs", file=sys.__stdout__, flush=True)
    return app


def makeNothing() -> None:
    return None


def makeTrouble() -> None:
    raise ZeroDivisionError("too many\nlines")


async def makeLater() -> Klein:
    return app


class Trouble:
    def resource(self) -> None:
        makeTrouble()

    @property
    def child(self) -> None:
        makeTrouble()


trouble = Trouble()


def genid(request: Any) -> str:
    return f"id-{os.urandom(4).hex()}"


def explain(request: Any, failure: Any) -> bytes:
    return b"explained"


cookie = CookieOptions(priority="high")


def cookieFor(request: Any) -> CookieOptions:
    return CookieOptions(priority="low")


# A store that waits for the test.


class Gate(FileDescriptor):
    """
    Fires a Deferred for each byte that arrives.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.waiting: list[Deferred[None]] = []
        self.startReading()

    def fileno(self) -> int:
        return self.number

    def doRead(self) -> None:
        for _ in os.read(self.number, 100):
            self.waiting.pop(0).callback(None)

    def passing(self) -> Deferred[None]:
        self.waiting.append(Deferred())
        return self.waiting[-1]

    def connectionLost(self, reason: Any) -> None:
        pass


def makeSlow() -> Klein:
    """
    The app, in a process whose memory store creates nothing before a byte arrives
    at its file descriptor 3.
    """
    gate = Gate(3)
    create, stop = MemoryStore.create, MemoryStore.stop

    def createSlowly(self: Any, *arguments: Any) -> Any:
        log.info("a write waits")
        return gate.passing().addCallback(lambda _: createNow(self, *arguments))

    def createNow(self: Any, *arguments: Any) -> Any:
        log.info("a write is done")
        return create(self, *arguments)

    def stopAudibly(self: Any) -> Any:
        log.info("the store stops")
        return stop(self)

    setattr(MemoryStore, "create", createSlowly)  # noqa: B010
    setattr(MemoryStore, "stop", stopAudibly)  # noqa: B010
    return app
