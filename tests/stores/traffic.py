"""
Traffic for the tests of faults: requests at a steady pace that all write, and what
became of each.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from math import inf
from typing import Any
from urllib.parse import unquote

from attrs import define, field, frozen
from treq import content
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import LoopingCall
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers

from txsession import Record, getSession

from ..support import PATIENCE, SetCookie
from .backends import PACE, comesAbout

RATE = 200
"""
Requests a second.
"""


def application(request: Any) -> str:
    """
    What is asked: C{/new/7} begins a session, C{/add/7} writes a key of its own
    into one, C{/count} counts in one.
    """
    _, verb, *rest = request.path.decode().split("/")
    session = getSession(request)
    if verb == "count":
        session["count"] = session.get("count", 0) + 1
        return str(session["count"])
    session["number" if verb == "new" else f"n{rest[0]}"] = int(rest[0])
    return ""


@frozen
class Answer:
    """
    A request and what became of it.

    @ivar sent: when.
    @ivar sid: whose session it was about.
    """

    path: str
    sid: str
    sent: float
    ended: float
    status: int
    text: str

    @property
    def duration(self) -> float:
        return self.ended - self.sent

    @property
    def isWritten(self) -> bool:
        return self.status == 200


@define(eq=False)
class Client:
    """
    Somebody with a session, who waits for each answer before they go on.
    """

    cookie: str
    sid: str


@define(eq=False)
class Traffic:
    """
    Half of the requests begin a session.  Of the others, one half adds to a few
    sessions that many use at once, and the other half counts in sessions that are
    each used by one client at a time.

    @ivar answers: those that have come.
    @ivar pending: how many requests are waiting for theirs.
    @ivar mostPending: how many ever were.
    @ivar stalled: for how many seconds altogether this process did nothing, because
        the machine had other things to do: nobody's fault.
    """

    port: int
    answers: list[Answer] = field(factory=list, init=False)
    pending: int = field(default=0, init=False)
    mostPending: int = field(default=0, init=False)
    stalled: float = field(default=0.0, init=False)
    _shared: list[Client] = field(factory=list, init=False)
    _idle: list[Client] = field(factory=list, init=False)
    _sent: int = field(default=0, init=False)
    _asked: list[Deferred[Any]] = field(factory=list, init=False)
    _began: float = field(default=0.0, init=False)
    _last: float = field(default=0.0, init=False)
    _pacing: Any = field(init=False)
    _agent: Any = field(init=False)
    _pool: Any = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._pacing = LoopingCall(self._sendDue)
        self._pool = HTTPConnectionPool(reactor)
        self._pool.maxPersistentPerHost = 50
        self._pool.retryAutomatically = False
        self._agent = Agent(reactor, pool=self._pool)

    async def begin(self) -> None:
        """
        Begin the sessions that there are from the start.
        """
        clients = []
        for _ in range(40):
            answer, cookie = await self._ask("/new/0", None)
            assert answer.isWritten
            clients.append(Client(cookie, answer.sid))
        self._shared, self._idle = clients[:10], clients[10:]

    def start(self) -> None:
        """
        Send requests from now on.
        """
        self._began = reactor.seconds()
        self._pacing.start(PACE)

    def _sendDue(self) -> None:
        now = reactor.seconds()
        self.stalled += max(0.0, now - self._last - 2 * PACE) if self._last else 0.0
        self._last = now
        due = (now - self._began) * RATE
        while self._sent < due:
            self._send()

    async def stop(self) -> None:
        """
        Send no more, and wait for all answers.
        """
        self._pacing.stop()
        await gatherResults(self._asked)

    async def settled(self, since: float) -> None:
        """
        Wait until whatever has been asked for a while since then was done; but not
        for ever.
        """

        def isSettled() -> bool:
            last = self.answers[-RATE // 4 :]
            return all(answer.isWritten and answer.sent > since for answer in last)

        with suppress(AssertionError):
            await comesAbout(isSettled, 5)

    async def end(self) -> None:
        if self._pacing.running:
            await self.stop()
        await self._pool.closeCachedConnections()

    def _send(self) -> None:
        self._sent += 1
        kind = self._sent % 4
        if kind == 0:
            asking = self._add()
        elif kind == 1 and self._idle:
            asking = self._count()
        else:
            asking = self._new()
        self._asked.append(Deferred.fromCoroutine(asking))

    async def _new(self) -> None:
        self.answers.append((await self._ask(f"/new/{self._sent}", None))[0])

    async def _add(self) -> None:
        client = self._shared[self._sent % len(self._shared)]
        self.answers.append((await self._ask(f"/add/{self._sent}", client))[0])

    async def _count(self) -> None:
        client = self._idle.pop(0)
        self.answers.append((await self._ask("/count", client))[0])
        self._idle.append(client)

    async def _ask(self, path: str, client: Client | None) -> tuple[Answer, str]:
        self.pending += 1
        self.mostPending = max(self.mostPending, self.pending)
        sent = reactor.seconds()
        headers = Headers({"Cookie": [client.cookie]} if client else {})
        url = f"http://127.0.0.1:{self.port}{path}".encode()
        asking = self._agent.request(b"POST", url, headers)
        response = await asking.addTimeout(PATIENCE, reactor)
        text = (await content(response)).decode()
        self.pending -= 1
        cookie, sid = "", client.sid if client else ""
        for header in response.headers.getRawHeaders("Set-Cookie", []):
            cookie = header.partition(";")[0]
            sid = SetCookie.parse(header).sid
        ended = reactor.seconds()
        return Answer(path, sid, sent, ended, response.code, text), unquote(cookie)

    # What must hold afterwards.

    def written(self) -> list[Answer]:
        """
        The answers that said that what was asked was done.
        """
        return [answer for answer in self.answers if answer.isWritten]

    def refused(self) -> list[Answer]:
        return [answer for answer in self.answers if not answer.isWritten]

    def longest(self) -> float:
        """
        For how many seconds somebody has waited for an answer, not counting those
        in which nothing happened at all.
        """
        return max(answer.duration for answer in self.answers) - self.stalled

    def recovery(self, since: float) -> float:
        """
        How many seconds it took from then on until nothing was refused any more;
        infinity, if that never came about.
        """
        last = max([since, *(answer.sent for answer in self.refused())])
        if not any(answer.sent > last for answer in self.answers):
            return inf
        return last - since - self.stalled

    def missing(self, records: dict[str, Record]) -> list[Answer]:
        """
        The answers that said that something is written which is not there.
        """
        documents = {sid: json.loads(r.payload) for sid, r in records.items()}
        return [a for a in self.written() if not _isThere(a, documents.get(a.sid, {}))]

    def miscounted(self, records: dict[str, Record]) -> list[Any]:
        """
        The sessions in which more was counted than was asked, or in which a count
        was given twice.
        """
        return [
            (answers, records[sid])
            for sid, answers in self._counts().items()
            if not _isRight(answers, json.loads(records[sid].payload).get("count", 0))
        ]

    def _counts(self) -> dict[str, list[Answer]]:
        counts: dict[str, list[Answer]] = {}
        for answer in self.answers:
            if answer.path == "/count":
                counts.setdefault(answer.sid, []).append(answer)
        return counts


def _isThere(answer: Answer, document: dict[str, Any]) -> bool:
    _, verb, *rest = answer.path.split("/")
    if verb == "count":
        return bool(document.get("count", 0) >= int(answer.text))
    key = "number" if verb == "new" else f"n{rest[0]}"
    return bool(document.get(key) == int(rest[0]))


def _isRight(answers: Iterable[Answer], count: int) -> bool:
    given = [int(answer.text) for answer in answers if answer.isWritten]
    return given == sorted(set(given)) and len(given) <= count <= len(list(answers))
