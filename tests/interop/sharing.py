"""
An Express application and a Twisted one that share their sessions.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timezone
from inspect import isawaitable
from typing import Any
from urllib.parse import unquote

import psycopg
import redis
from attrs import define, field
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from txsession import SessionResource, getSession
from txsession.backend import writesInFlight
from txsession.stores.postgresql import PostgreSQLStore
from txsession.stores.redis import RedisStore

from ..support import SECRET, Browser, Page, Reply, Serve, eventually, patiently
from .node import Node

HOUR = 3600
DAY = 86400


def now() -> float:
    clock: Any = reactor
    seconds: float = clock.seconds()
    return seconds


@define
class Stored:
    """
    What a server holds for a session.

    @ivar expires: when it expires, or L{None} for never.
    """

    payload: bytes
    expires: float | None

    @property
    def document(self) -> Any:
        return json.loads(self.payload)

    @property
    def left(self) -> float:
        """
        How many seconds it has left.
        """
        assert self.expires is not None
        return self.expires - now()


@define
class Redis:
    """
    Sessions on a Redis server: here in a L{RedisStore}, there in connect-redis.
    """

    url: str
    kind = "redis"

    def store(self, **options: Any) -> RedisStore:
        return RedisStore(self.url, **options)

    def client(self) -> Any:
        return redis.Redis.from_url(self.url)

    def look(self, sid: str, prefix: str = "sess:") -> Stored | None:
        """
        What the server has, read by neither of the two.
        """
        with self.client() as client:
            payload, left = client.get(prefix + sid), client.pttl(prefix + sid)
        if payload is None:
            return None
        return Stored(payload, None if left < 0 else now() + left / 1000)

    def plant(self, sid: str, payload: bytes) -> None:
        with self.client() as client:
            client.set(f"sess:{sid}", payload, ex=HOUR)

    def expireIn(self, sid: str, seconds: float) -> None:
        with self.client() as client:
            assert client.pexpire(f"sess:{sid}", round(seconds * 1000))


@define
class PostgreSQL:
    """
    Sessions on a PostgreSQL server: here in a L{PostgreSQLStore}, there in
    connect-pg-simple.
    """

    url: str
    kind = "postgresql"

    def store(self, **options: Any) -> PostgreSQLStore:
        return PostgreSQLStore(self.url, **options)

    def ask(self, statement: str, *values: Any) -> Any:
        with psycopg.connect(self.url, autocommit=True) as connection:
            return connection.execute(statement, values)

    def makeSchema(self, name: str) -> None:
        quoted = '"' + name.replace('"', '""') + '"'
        self.ask(f"DROP SCHEMA IF EXISTS {quoted} CASCADE")
        self.ask(f"CREATE SCHEMA {quoted}")

    def look(self, sid: str, table: str = "session") -> Stored | None:
        """
        What the server has, read by neither of the two.
        """
        row = self.ask(
            f"SELECT sess::text, expire::timestamptz FROM {table} WHERE sid = %s", sid
        ).fetchone()
        return None if row is None else Stored(row[0].encode(), row[1].timestamp())

    def plant(self, sid: str, payload: bytes) -> None:
        self.ask(
            "INSERT INTO session (sid, sess, expire) VALUES (%s, %s, %s)",
            *(sid, payload.decode(), self._in(HOUR)),
        )

    def expireIn(self, sid: str, seconds: float) -> None:
        changed = self.ask(
            "UPDATE session SET expire = %s WHERE sid = %s", self._in(seconds), sid
        )
        assert changed.rowcount == 1

    def _in(self, seconds: float) -> datetime:
        return datetime.fromtimestamp(now() + seconds, timezone.utc)


Handler = Callable[[Any], Any]


@define(eq=False)
class Both:
    """
    The two applications, each behind its sessions.

    @ivar server: what they share.
    @ivar store: the store of this side.
    """

    node: Node
    server: Any
    store: Any
    expressPort: int
    twistedPort: int
    handlers: dict[str, Handler]

    def visitor(self) -> Visitor:
        return Visitor(self, {})

    def look(self, sid: str) -> Stored | None:
        stored: Stored | None = self.server.look(sid)
        return stored

    def stored(self, sid: str) -> Stored:
        """
        What is stored under an ID under which something has to be.
        """
        stored = self.look(sid)
        assert stored is not None
        return stored


@define(eq=False)
class Visitor:
    """
    A browser, which gives its cookies to both applications.

    @ivar reply: the last response.
    """

    both: Both
    cookies: dict[str, str]
    reply: Reply | None = None

    async def express(self, script: str, **headers: str) -> Any:
        """
        Have Express carry out a script in a request.

        @return: what the script returns, as JSON.
        """
        browser = Browser(self.both.expressPort, self.cookies)
        self.reply = await browser.post("/do", data=script.encode(), headers=headers)
        assert self.reply.status == 200, self.reply.text
        return json.loads(self.reply.text)

    async def twisted(self, handler: Handler, **headers: str) -> Any:
        """
        Have Twisted call a function of the session in a request.

        @return: what the function returns.
        """
        results: list[Any] = []

        async def handle(request: Any) -> None:
            result = handler(getSession(request))
            results.append(await result if isawaitable(result) else result)

        name = f"/{len(self.both.handlers)}"
        self.both.handlers[name] = handle
        browser = Browser(self.both.twistedPort, self.cookies)
        self.reply = await browser.get(name, headers=headers)
        assert self.reply.status == 200, self.reply.text
        # A touch does not hold the response.
        await eventually(lambda: not writesInFlight(self.both.store))
        return results[0]

    def expressHeld(self, script: str, then: str = "") -> Held:
        """
        Begin a request to Express, which waits after its script.

        @param then: what it does after that.
        """
        node = self.both.node
        reached = node.paused()
        reply = Deferred.fromCoroutine(self.express(f"{script}\nawait pause()\n{then}"))
        return Held(reached, lambda: node.ask("resume"), patiently(reply))

    def twistedHeld(self, handler: Handler) -> Held:
        """
        Begin a request to Twisted, which waits after its function.
        """
        reached: Deferred[None] = Deferred()
        gate: Deferred[None] = Deferred()

        async def handle(session: Any) -> None:
            handler(session)
            reached.callback(None)
            await gate

        reply = Deferred.fromCoroutine(self.twisted(handle))
        return Held(patiently(reached), lambda: gate.callback(None), patiently(reply))

    @property
    def sid(self) -> str:
        """
        The ID in the cookie that the visitor holds.
        """
        signed = unquote(self.cookies["connect.sid"])
        return signed.removeprefix("s:").rpartition(".")[0]

    @property
    def stored(self) -> Stored:
        return self.both.stored(self.sid)

    @property
    def setCookie(self) -> Any:
        """
        The session cookie that the last response set.
        """
        assert self.reply is not None
        return self.reply.cookie()


@define(eq=False)
class Held:
    """
    A request that waits.

    @ivar reached: fires when it does.
    """

    reached: Deferred[None]
    _release: Callable[[], Any]
    _reply: Deferred[Any]

    async def finish(self) -> Any:
        """
        Let it go on, and wait for its result.
        """
        released = self._release()
        if released is not None:
            await released
        return await self._reply


@define(eq=False)
class Sharing:
    """
    Makes pairs of applications, and ends them after the test.
    """

    node: Node
    server: Any
    serve: Serve
    _stores: list[Any] = field(factory=list)
    _ports: list[int] = field(factory=list)

    async def __call__(
        self,
        *,
        express: dict[str, Any] | None = None,
        twisted: dict[str, Any] | None = None,
        wrap: Callable[[Any], Any] = lambda store: store,
    ) -> Both:
        """
        @param express: the options of express-session; C{store} has those of its
            store.
        @param twisted: the options of L{SessionResource}; C{store} has those of its
            store.
        @param wrap: gives what L{SessionResource} gets in place of its store.
        """
        express, twisted = dict(express or {}), dict(twisted or {})
        store = self.server.store(**twisted.pop("store", {}))
        self._stores.append(store)
        await store.start()
        store = wrap(store)
        expressPort = await self._express(express)
        handlers: dict[str, Handler] = {}
        page = Page(lambda request: handlers[request.path.decode()](request))
        resource = SessionResource(
            page, **{"secret": SECRET, "store": store, **twisted}
        )
        twistedPort = self.serve.site(resource).port
        return Both(self.node, self.server, store, expressPort, twistedPort, handlers)

    async def _express(self, options: dict[str, Any]) -> int:
        where = {"kind": self.server.kind, "url": self.server.url}
        options["store"] = {**where, **options.get("store", {})}
        port: int = await self.node.ask("open", options)
        self._ports.append(port)
        return port

    async def stop(self) -> None:
        for port in self._ports:
            await self.node.ask("close", port)
        for store in self._stores:
            await store.stop()
