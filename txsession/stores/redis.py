"""
Sessions in Redis or Valkey, under the keys of connect-redis.

Every operation is one command, sent and answered in one round trip.  Those that
must be atomic are scripts, which Redis runs one at a time; they use no more than
Redis 5 knows.

I{Lost connections.}  The connections are txredisapi's, which opens them anew when
they are lost.  A connection counts only when the server has answered on it, so that
one that has stopped is not taken for one that is there.  What is under way when a
connection is lost fails with L{StoreUnavailable <txsession.StoreUnavailable>}; it
may or may not have been carried out, and is never repeated.

I{A server that does not answer.}  After C{timeout} seconds, a command fails with
L{StoreTimeout <txsession.StoreTimeout>}, as do all others on its connection, which
is dropped.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import SplitResult, unquote, urlsplit

try:
    import txredisapi
except ImportError as error:
    raise ImportError(
        f"RedisStore needs txredisapi: pip install 'txsession[redis]' ({error})"
    ) from error
from attrs import define, field, frozen
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.endpoints import (
    HostnameEndpoint,
    UNIXClientEndpoint,
    connectProtocol,
    wrapClientTLS,
)
from twisted.internet.interfaces import IReactorFromThreads, IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..errors import ConfigurationError, StoreError, StoreTimeout, StoreUnavailable
from ..lifetime import Duration, asSeconds
from ..record import LATEST, Record, asMilliseconds
from .common import (
    UnderWay,
    checkHeld,
    detached,
    failing,
    isText,
    nothing,
    realReactor,
    wholeNumber,
)
from .outage import Reach, backoff

__all__ = ["RedisStore"]

# The time at which a key expires, in milliseconds since the epoch.  Before Redis 7
# there is only how much is left, and a clock that goes on between the two.
_EXPIRY = """
local function expiry(key)
  local at = redis.pcall('PEXPIRETIME', key)
  if type(at) ~= 'table' then return at end
  local before, left, after
  repeat
    before = redis.call('TIME')
    left = redis.call('PTTL', key)
    after = redis.call('TIME')
    before = before[1] * 1000 + math.floor(before[2] / 1000)
    after = after[1] * 1000 + math.floor(after[2] / 1000)
  until before == after
  if left < 0 then return left end
  return after + left
end
"""
# A letter before the value keeps clients that turn into numbers what looks like one
# from doing so.
_GET = (
    _EXPIRY
    + """
local value = redis.call('GET', KEYS[1])
if not value then return false end
return {'=' .. value, expiry(KEYS[1])}
"""
)
_GET_MANY = (
    _EXPIRY
    + """
local found = {}
for place, key in ipairs(KEYS) do
  local value = redis.pcall('GET', key)
  if type(value) == 'string' then found[place] = {'=' .. value, expiry(key)}
  else found[place] = false end
end
return found
"""
)
_COUNT = (
    _EXPIRY
    + """
local count = 0
for _, key in ipairs(KEYS) do
  if redis.call('TYPE', key).ok == 'string' then
    local at = expiry(key)
    if at == -1 or at > tonumber(ARGV[1]) then count = count + 1 end
  end
end
return count
"""
)
_SET = """
redis.call('SET', KEYS[1], ARGV[1])
redis.call('PEXPIREAT', KEYS[1], ARGV[2])
return 1
"""
_CREATE = "if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end" + _SET
_REPLACE = "if redis.call('GET', KEYS[1]) ~= ARGV[3] then return 0 end" + _SET

_TOUCH = """
return redis.call('PEXPIREAT', KEYS[1], ARGV[1])
"""
# Before others, where the time is not that of the server: what has expired by the
# time that the last argument says is forgotten first.
_FORGET = (
    _EXPIRY
    + """
local at = expiry(KEYS[1])
if at >= 0 and at <= tonumber(ARGV[#ARGV]) then redis.call('DEL', KEYS[1]) end
"""
)

BATCH = 500
"""
About how many keys are looked at in one command by those that look at all.
"""


class RedisStore:
    """
    Sessions in Redis (5 or newer) or Valkey, shared with Node's C{connect-redis} if
    need be: each under a key of its own, which Redis forgets when the session
    expires.  The store has every ability; there is nothing to prune.

    The expiries that are stored are times of this process's clock, and it is the
    server's clock by which they pass: the clocks of the machines must agree.

    When the server cannot be reached, every call fails with
    L{StoreUnavailable <txsession.StoreUnavailable>} at once, C{available} is
    L{False}, and it is tried again, at most a second apart, until it can.  A
    write whose connection is lost while it is under way fails, too, and may or
    may not have been done; it is never repeated.  How much a server that crashes
    has forgotten of what it acknowledged is a matter of its C{appendfsync}.

    @param server: where the server is: C{redis://user:password@host:port/database},
        C{rediss://} for TLS (with C{?caFile=path} for a certificate authority of
        your own), C{redis+unix:///path/of/socket?database=0}, or
        C{redis+sentinel://host:port,host:port/name/database} (with
        C{?sentinelPassword=} where the sentinels have one).  Or a client of
        txredisapi, one that C{lazyConnection()} and its likes return, or that
        C{Connection()} fires with; it remains yours to disconnect.
    @param prefix: what the keys begin with.
    @param connections: how many connections there are.  One will do: commands do
        not wait for the answers of those before them.
    @param timeout: seconds (or a C{timedelta}) that the server may take to answer,
        and to be connected to.
    @param reactor: the clock; by default the global reactor, which does the work
        in any case, as it does for txredisapi.  With a C{task.Clock}, as tests
        have it, sessions expire by that clock.

    @raise ConfigurationError: an option's value cannot work.
    """

    _log = Logger()

    def __init__(
        self,
        server: Any,
        *,
        prefix: str = "sess:",
        connections: int = 1,
        timeout: Duration = 5,
        reactor: Any | None = None,
    ) -> None:
        if not isinstance(prefix, str):
            raise ConfigurationError(f"must be a str, not {prefix!r}", option="prefix")
        self._prefix = prefix.encode("utf-8")
        self._clock = reactor
        self._isSimulated, self._ahead = _simulation(reactor)
        self._underWay = UnderWay()
        seconds = asSeconds(timeout, "timeout")
        count = wholeNumber(connections, "connections")
        self._link: _Link | _Borrowed
        if isinstance(server, str):
            address = _Address.parse(server)
            self._name = f"<RedisStore {prefix}* on {address}>"
            self._link = _Link(Reach(self._name, self._log), address, count, seconds)
        elif isinstance(server, txredisapi.ConnectionHandler):
            self._name = f"<RedisStore {prefix}* on {server!r}>"
            self._link = _Borrowed(Reach(self._name, self._log), server, seconds)
        else:
            raise ConfigurationError(
                "must be a URL, or a client of txredisapi (await Connection(), or use "
                f"lazyConnection()), not {type(server).__name__}",
                option="server",
            )

    def __repr__(self) -> str:
        return self._name

    @property
    def available(self) -> bool:
        """
        Whether, as far as is known, the server can be reached.
        """
        return self._link.available

    # What every store does.

    def get(self, sid: str) -> Deferred[Record | None]:
        """
        Fires with the live record of this ID, or L{None}.
        """
        if not isText(sid):
            return succeed(None)
        return self._script(_GET, [self._key(sid)]).addCallback(self._asRecord)

    def set(self, sid: str, record: Record) -> Deferred[None]:
        """
        Store the record, whether or not there is one already.
        """
        return self._put(_SET, sid, record).addCallback(nothing)

    def destroy(self, sid: str) -> Deferred[None]:
        """
        Forget this session.  An unknown ID is not an error.
        """
        if not isText(sid):
            return succeed(None)
        return self._command("DEL", self._key(sid)).addCallback(nothing)

    def touch(self, sid: str, expires: float) -> Deferred[None]:
        """
        Set the expiry of a live session; of an unknown one, nothing.
        """
        if not isText(sid):
            return succeed(None)
        key, at = self._key(sid), self._at(expires)
        if self._isSimulated:
            return self._script(_TOUCH, [key], [b"%d" % at]).addCallback(nothing)
        return self._command("PEXPIREAT", key, at).addCallback(nothing)

    # What stores may do besides.

    def create(self, sid: str, record: Record) -> Deferred[bool]:
        """
        Store the record if the ID is free.  Fires with whether it was.
        """
        return self._put(_CREATE, sid, record).addCallback(bool)

    def replace(self, sid: str, record: Record, expected: Record) -> Deferred[bool]:
        """
        Store the record if the live one has the payload of C{expected}.  Fires
        with whether it had.
        """
        if not isText(sid):
            return succeed(False)
        return self._put(_REPLACE, sid, record, expected.payload).addCallback(bool)

    def all(self) -> Deferred[dict[str, Record]]:
        """
        Fires with every live record, by ID.
        """
        return Deferred.fromCoroutine(self._all())

    def length(self) -> Deferred[int]:
        """
        Fires with the number of live records.
        """
        return Deferred.fromCoroutine(self._length())

    def clear(self) -> Deferred[None]:
        """
        Forget every session whose key has the prefix.
        """
        return Deferred.fromCoroutine(self._clear())

    def prune(self, limit: int) -> Deferred[int]:
        """
        Redis forgets what has expired by itself.  Fires with 0, if Redis can be
        reached.
        """
        return self._command("PING").addCallback(lambda _: 0)

    def start(self) -> Deferred[None]:
        """
        Connect to the server.  Fires when that is done.  Fails with
        L{StoreUnavailable <txsession.StoreUnavailable>} if the server cannot be
        reached; it is tried again all the same.
        """
        return self._link.connection().addCallback(nothing)

    def stop(self) -> Deferred[None]:
        """
        Finish what is under way, and disconnect.  Fires when that is done.  If the
        store is used again afterwards, it starts again.
        """
        return Deferred.fromCoroutine(self._stop())

    # How it is done.

    def _key(self, sid: str) -> bytes:
        return self._prefix + sid.encode("utf-8")

    def _sid(self, key: bytes) -> str | None:
        """
        The ID of a key, or L{None} if it is somebody else's.
        """
        try:
            return key[len(self._prefix) :].decode("utf-8")
        except UnicodeDecodeError:
            return None

    def _asRecord(self, answer: Any) -> Record | None:
        if not answer:
            return None
        payload, at = answer
        if at < -1:  # it has just expired
            return None
        # A key that never expires is somebody else's doing.
        at = LATEST if at == -1 else at - self._ahead
        record = Record(_asBytes(payload, self._link.charset)[1:], at / 1000)
        return record if record.isLive(self._now()) else None

    def _at(self, expires: float) -> int:
        """
        An expiry, in milliseconds of the server's time.
        """
        return asMilliseconds(expires) + self._ahead

    def _now(self) -> float:
        if self._clock is None:
            self._clock = realReactor(None)
        now: float = self._clock.seconds()
        return now

    def _serverNow(self) -> bytes:
        return b"%d" % (int(self._now() * 1000) + self._ahead)

    @failing
    def _put(
        self, script: str, sid: str, record: Record, *arguments: bytes
    ) -> Deferred[Any]:
        checkHeld(isText(sid))
        expires = b"%d" % self._at(record.expires)
        return self._script(
            script, [self._key(sid)], [record.payload, expires, *arguments]
        )

    def _script(
        self, script: str, keys: list[bytes], arguments: list[bytes] | None = None
    ) -> Deferred[Any]:
        if self._isSimulated and arguments:
            script, arguments = _FORGET + script, [*arguments, self._serverNow()]
        return self._ask("eval", script, keys, arguments or [])

    def _command(self, *words: Any) -> Deferred[Any]:
        return self._ask("execute_command", *words)

    def _ask(self, method: str, *arguments: Any) -> Deferred[Any]:
        connection = self._link.now()
        if connection is None:
            asking = self._link.connection()
            asking.addCallback(lambda client: getattr(client, method)(*arguments))
        else:
            asking = maybeDeferred(getattr(connection, method), *arguments)
        self._underWay.add(asking)
        # A server that does not answer is found out even if nobody waits for so long.
        return detached(asking.addErrback(self._link.explain, connection))

    async def _batches(self) -> AsyncIterator[list[bytes]]:
        """
        The keys with the prefix, each once.
        """
        seen: set[bytes] = set()
        pattern = re.sub(rb"([*?\[\]\\^-])", rb"\\\1", self._prefix) + b"*"
        cursor: Any = b"0"
        while True:
            cursor, keys = await self._command(
                "SCAN", cursor, "MATCH", pattern, "COUNT", BATCH
            )
            fresh = {_asBytes(key, self._link.charset) for key in keys} - seen
            seen |= fresh
            if fresh:
                yield list(fresh)
            cursor = _asBytes(cursor)
            if cursor == b"0":
                return

    async def _all(self) -> dict[str, Record]:
        found: dict[str, Record] = {}
        async for keys in self._batches():
            answers = await self._script(_GET_MANY, keys)
            for key, answer in zip(keys, answers, strict=True):
                record = self._asRecord(answer)
                sid = self._sid(key)
                if record is not None and sid is not None:
                    found[sid] = record
        return found

    async def _length(self) -> int:
        count = 0
        async for keys in self._batches():
            named = [key for key in keys if self._sid(key) is not None]
            if named:
                count += await self._script(_COUNT, named, [self._serverNow()])
        return count

    async def _clear(self) -> None:
        async for keys in self._batches():
            await self._command("DEL", *keys)

    async def _stop(self) -> None:
        await self._underWay.over()
        await self._link.close()


# Connections.


@define(eq=False)
class _Link:
    """
    The connections to a server.
    """

    reach: Reach
    address: _Address
    size: int
    timeout: float
    factory: _Factory | None = None
    _waiting: list[Deferred[Any]] = field(factory=list)
    _turn: int = 0
    _isVerifying: bool = False
    charset: ClassVar[str] = "utf-8"

    @property
    def available(self) -> bool:
        return self.reach.reason is None

    def now(self) -> Any:
        """
        A connection, if there is one.
        """
        if self.reach.reason or self.factory is None or not self.factory.pool:
            return None
        self._turn += 1
        return self.factory.pool[self._turn % len(self.factory.pool)]

    def connection(self) -> Deferred[Any]:
        """
        A connection, when there is the first.  Fails with
        L{StoreUnavailable <txsession.StoreUnavailable>} if there is none.
        """
        connection = self.now()
        if connection is not None:
            return succeed(connection)
        if self.factory is None:
            self._connect()
        elif self.reach.reason is not None:
            return fail(StoreUnavailable(self.reach.reason))
        waiting: Deferred[Any] = Deferred()
        self._waiting.append(waiting)
        return waiting

    def _connect(self) -> None:
        self.factory = _Factory(self)
        self.factory.startConnecting(
            _Watched(self.address.endpoint(self.timeout), self)
        )

    def connected(self) -> None:
        """
        There is one connection more.
        """
        self.reach.found()
        self._tell(self.now())

    def failed(self, reason: str) -> None:
        """
        There is one connection less, or no connection could be made.
        """
        if self.factory is not None and not self.factory.pool:
            self.reach.lost(reason)
            self._tell(Failure(StoreUnavailable(reason)))

    def _tell(self, result: Any) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(result)

    def explain(self, failure: Failure, connection: Any) -> Failure:
        """
        Say by the exception's type what the trouble is.
        """
        error = failure.value
        if isinstance(error, txredisapi.ResponseError):
            if _isUseless(str(error)):
                # It may become the right one again, or another may have taken its
                # place: that is found out when it is connected to anew.
                self._drop(connection)
            elif "NOREPLICAS" in str(error) and self.address.service is not None:
                # Perhaps because all of them follow another master by now.
                self._verify(connection)
        if isinstance(error, txredisapi.TimeoutError):
            # Its connection has been dropped, but is not yet gone.
            self.reach.lost(f"Redis: {error}")
        return _explained(failure)

    def _verify(self, connection: Any) -> None:
        if connection is not None and not self._isVerifying:
            self._isVerifying = True
            Deferred.fromCoroutine(self._dropIfRelieved(connection))

    async def _dropIfRelieved(self, connection: Any) -> None:
        """
        Have a connection dropped if Sentinel names another master.
        """
        try:
            named = await self.address.endpoint(self.timeout).find()
        except StoreUnavailable:
            return
        finally:
            self._isVerifying = False
        peer = connection.transport.getPeer()
        if named != (peer.host, peer.port):
            self._drop(connection)

    def _drop(self, connection: Any) -> None:
        if connection is not None and connection.connected:
            connection.transport.abortConnection()

    async def close(self) -> None:
        """
        Disconnect.
        """
        factory, self.factory = self.factory, None
        self.reach.reason = None
        self._tell(Failure(StoreUnavailable("the store was stopped")))
        if factory is not None:
            disconnecting = factory.disconnect()
            # Nothing is under way, and a server that has stopped would never take
            # part in the end of a connection over TLS.
            for connection in list(factory.pool):
                connection.transport.abortConnection()
            await disconnecting


@define(eq=False)
class _Borrowed:
    """
    A client that somebody else has made.
    """

    reach: Reach
    client: Any
    timeout: float

    @property
    def charset(self) -> str:
        return self.client._factory.charset or "utf-8"

    @property
    def available(self) -> bool:
        return self._reason() is None

    def _reason(self) -> str | None:
        """
        Why the server cannot be reached, or L{None} if as far as is known it can.
        """
        factory = self.client._factory
        # Before the first connection there is a Deferred that waits for it.
        if factory.size or (factory.deferred and not factory.stopped):
            return self.reach.reason
        return "the client is not connected"

    def now(self) -> Any:
        return None

    def connection(self) -> Deferred[Any]:
        reason = self._reason()
        if reason is not None:
            return fail(StoreUnavailable(reason))
        return succeed(_Patient(self.client, self.timeout))

    def explain(self, failure: Failure, connection: Any) -> Failure:
        explained = _explained(failure)
        if explained.check(StoreTimeout) and self.reach.reason is None:
            self.reach.lost(explained.getErrorMessage())
            # One alone waits for as long as it takes; the connection is not ours to
            # be dropped.
            self.client.ping().addBoth(lambda _: self.reach.found())
        return explained

    async def close(self) -> None:
        pass


@frozen
class _Patient:
    """
    A client that does not wait for ever.
    """

    client: Any
    timeout: float

    def __getattr__(self, method: str) -> Callable[..., Deferred[Any]]:
        def ask(*arguments: Any) -> Deferred[Any]:
            asking: Deferred[Any] = getattr(self.client, method)(*arguments)
            return asking.addTimeout(
                self.timeout, realReactor(None), onTimeoutCancel=self._timedOut
            )

        return ask

    def _timedOut(self, result: Any, timeout: float) -> Any:
        problem = f"the server did not answer within {timeout:g} seconds"
        raise StoreTimeout(problem) from result.value


class _Protocol(txredisapi.RedisProtocol):  # type: ignore[misc]
    """
    A connection that counts when the server has answered on it, and, behind
    Sentinel, has said that it is a master.
    """

    def connectionMade(self) -> None:
        if self.factory.link.address.service is None:
            greeting = self.ping()
        else:
            if self.password is not None:
                self.auth(self.password, self.username).addErrback(nothing)
            greeting = self.role()
        greeting.addCallbacks(self._answered, self._refused)

    def _answered(self, answer: Any) -> Any:
        if isinstance(answer, list) and _asBytes(answer[0]) != b"master":
            return self._reject("the server that Sentinel names is not a master")
        return super().connectionMade()

    def _refused(self, failure: Failure) -> Any:
        error = failure.value
        if not isinstance(error, txredisapi.ResponseError):
            return self._reject(_explained(failure).getErrorMessage())
        if _isUseless(str(error)) or (self.password is None and "NOAUTH" in str(error)):
            return self._reject(f"Redis: {error}")
        # It wants the password first, or does not allow this user to ask.
        return super().connectionMade()

    def _reject(self, reason: str) -> None:
        self.factory.link.failed(reason)
        self.transport.abortConnection()


class _Factory(txredisapi.RedisFactory):  # type: ignore[misc]
    """
    Makes the connections of a L{_Link}, again and again.
    """

    protocol = _Protocol

    def __init__(self, link: _Link) -> None:
        self.link = link
        super().__init__(
            uuid=None,
            dbid=link.address.database,
            poolsize=link.size,
            isLazy=True,
            charset=None,
            password=link.address.password,
            replyTimeout=link.timeout,
            convertNumbers=False,
            username=link.address.username,
        )

    def retryDelay(self, attempt: int) -> float:
        return backoff(attempt)

    def addConnection(self, connection: Any) -> None:
        super().addConnection(connection)
        if connection in self.pool:
            self.link.connected()

    def delConnection(self, connection: Any) -> None:
        super().delConnection(connection)
        if not self.disconnectCalled:
            self.link.failed("the connection to Redis was lost")

    def stopTrying(self) -> None:
        # What was refused, a password for instance, may be right some day.
        pass

    def connectionError(self, why: str) -> None:
        self.link.failed(why)


@implementer(IStreamClientEndpoint)
@frozen(repr=False)
class _Watched:
    """
    An endpoint whose failures are told.
    """

    endpoint: Any
    link: _Link

    def __repr__(self) -> str:
        return self.link.reach.store

    def connect(self, factory: Any) -> Deferred[Any]:
        connecting: Deferred[Any] = self.endpoint.connect(factory)
        return connecting.addErrback(self._failed)

    def _failed(self, failure: Failure) -> Failure:
        self.link.failed(f"Redis: {failure.getErrorMessage()}")
        return failure


@implementer(IStreamClientEndpoint)
@define
class _SentinelEndpoint:
    """
    The master that the first sentinel that answers names.
    """

    sentinels: list[Any]
    service: str
    password: str | None = field(repr=False)
    timeout: float

    def connect(self, factory: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(self._connect(factory))

    async def _connect(self, factory: Any) -> Any:
        host, port = await self.find()
        return await _tcp(host, port, self.timeout).connect(factory)

    async def find(self) -> tuple[str, int]:
        """
        The address of the master.  Fails with
        L{StoreUnavailable <txsession.StoreUnavailable>} if no sentinel names one.
        """
        problem, cause = "none of them was asked", None
        for endpoint in list(self.sentinels):
            try:
                answer = await self._asked(endpoint)
            except Exception as error:
                problem, cause = str(error), error
                continue
            if answer is None:
                problem = f"they know no master named {self.service!r}"
                continue
            # The one that answers is asked first the next time.
            self.sentinels.remove(endpoint)
            self.sentinels.insert(0, endpoint)
            host, port = answer
            return _asBytes(host).decode(), int(port)
        raise StoreUnavailable(f"no sentinel names a master: {problem}") from cause

    async def _asked(self, endpoint: Any) -> Any:
        protocol = txredisapi.RedisProtocol(
            charset=None, replyTimeout=self.timeout, convertNumbers=False
        )
        await connectProtocol(endpoint, protocol)
        try:
            if self.password is not None:
                await protocol.auth(self.password)
            return await protocol.sentinel_get_master_addr_by_name(self.service)
        finally:
            protocol.transport.loseConnection()


# Where the server is.


@frozen(kw_only=True)
class _Address:
    """
    What a URL says.

    @ivar hosts: the server, or the sentinels; or none, for a socket.
    @ivar tls: what checks the server's certificate, if TLS is to be spoken.
    """

    hosts: tuple[tuple[str, int], ...] = ()
    socket: str | None = None
    tls: Any = None
    service: str | None = None
    username: str | None = None
    password: str | None = None
    sentinelPassword: str | None = None
    database: int | None = None

    def __str__(self) -> str:
        place = self.socket or ",".join(f"{host}:{port}" for host, port in self.hosts)
        service = "" if self.service is None else f"/{self.service}"
        return f"{place}{service}/{self.database or 0}"

    __repr__ = __str__

    @classmethod
    def parse(cls, url: str) -> _Address:
        """
        @raise ConfigurationError: it is not a URL of a Redis server.  The message
            holds no more of it than what is wrong with it.
        """
        try:
            parts = urlsplit(url)
        except ValueError:
            raise _wrong("is not a URL") from None
        if parts.fragment or "@" in parts.path + parts.query:
            raise _wrong("must have none of /?# in the password; write %2F, %3F, %23")
        options = _asOptions(parts.query)
        if parts.scheme == "redis+unix":
            address = cls._ofSocket(parts, options)
        elif parts.scheme == "redis+sentinel":
            address = cls._ofSentinel(parts, options)
        elif parts.scheme in ("redis", "rediss"):
            address = cls._ofHost(parts, options)
        else:
            raise _wrong(
                "must begin with redis://, rediss://, redis+unix:// or "
                "redis+sentinel://"
            )
        if options:
            raise _wrong(f"has an option that is not known: {min(options)!r}")
        return address

    @classmethod
    def _ofHost(cls, parts: SplitResult, options: dict[str, str]) -> _Address:
        username, password, hosts = _authority(parts, 6379)
        if len(hosts) != 1:
            raise _wrong("names several hosts; redis+sentinel:// takes several")
        isTLS = parts.scheme == "rediss"
        return cls(
            hosts=hosts,
            tls=_tls(hosts[0][0], options.pop("caFile", None)) if isTLS else None,
            username=username,
            password=password,
            database=_asDatabase(parts.path.removeprefix("/")),
        )

    @classmethod
    def _ofSocket(cls, parts: SplitResult, options: dict[str, str]) -> _Address:
        username, password, hosts = _authority(parts, 0)
        if hosts != (("localhost", 0),) or not parts.path.startswith("/"):
            raise _wrong(
                "must have three slashes before the path of the socket, as in "
                "redis+unix:///run/redis/redis.sock"
            )
        return cls(
            socket=unquote(parts.path),
            username=username,
            password=password,
            database=_asDatabase(options.pop("database", "")),
        )

    @classmethod
    def _ofSentinel(cls, parts: SplitResult, options: dict[str, str]) -> _Address:
        username, password, hosts = _authority(parts, 26379)
        service, _, database = parts.path.removeprefix("/").partition("/")
        if not service:
            raise _wrong(
                "must name the master after the hosts, as in "
                "redis+sentinel://host:26379/mymaster/0"
            )
        return cls(
            hosts=hosts,
            service=unquote(service),
            username=username,
            password=password,
            sentinelPassword=options.pop("sentinelPassword", None),
            database=_asDatabase(database),
        )

    def endpoint(self, timeout: float) -> Any:
        """
        What leads to the server.
        """
        if self.socket is not None:
            return UNIXClientEndpoint(realReactor(None), self.socket, timeout=timeout)
        endpoints = [_tcp(host, port, timeout) for host, port in self.hosts]
        if self.service is not None:
            return _SentinelEndpoint(
                endpoints, self.service, self.sentinelPassword, timeout
            )
        if self.tls is None:
            return endpoints[0]
        return wrapClientTLS(self.tls, endpoints[0])


def _tls(host: str, caFile: str | None) -> Any:
    """
    What checks that a server is this host, by the authorities that the system
    trusts or else by the one whose certificate is in a file.
    """
    try:
        from twisted.internet.ssl import Certificate, optionsForClientTLS
    except ImportError as error:
        raise _wrong(
            "rediss:// needs an extra: pip install 'txsession[redis,tls]'"
        ) from error
    trust = None
    if caFile is not None:
        try:
            trust = Certificate.loadPEM(Path(caFile).read_bytes())
        except Exception as error:
            raise _wrong(f"has a caFile that is no certificate: {caFile}") from error
    return optionsForClientTLS(host, trustRoot=trust)


def _tcp(host: str, port: int, timeout: float) -> Any:
    return HostnameEndpoint(realReactor(None), host, port, timeout=timeout)


def _wrong(problem: str) -> ConfigurationError:
    return ConfigurationError(problem, option="server")


def _authority(
    parts: SplitResult, port: int
) -> tuple[str | None, str | None, tuple[tuple[str, int], ...]]:
    """
    User, password and hosts.
    """
    credentials, _, hosts = parts.netloc.rpartition("@")
    username, colon, password = credentials.partition(":")
    return (
        unquote(username) or None,
        unquote(password) if colon else None,
        tuple(_asHost(host, port) for host in hosts.split(",")),
    )


def _asHost(host: str, default: int) -> tuple[str, int]:
    match = re.fullmatch(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9]*))?", host)
    if match is None:
        raise _wrong("has a host that is not one, or a port that is not a number")
    name, digits = match.groups()
    port = int(digits) if digits else default
    if port > 65535:
        raise _wrong(f"has a port above 65535: {port}")
    return name.strip("[]") or "localhost", port


def _asOptions(query: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in query.split("&") if part)
    return {unquote(name): unquote(value) for name, _, value in pairs}


def _asDatabase(text: str) -> int | None:
    if not text:
        return None
    if not re.fullmatch("[0-9]{1,9}", text):
        raise _wrong(f"must have a number for the database, not {text!r}")
    return int(text)


# Values.


def _simulation(clock: Any) -> tuple[bool, int]:
    """
    Whether a clock is one of a test, and how many milliseconds the real time is
    ahead of it; a second is nothing.
    """
    if clock is None or IReactorFromThreads.providedBy(clock):
        return False, 0
    ahead = time.time() - clock.seconds()
    return True, int(ahead * 1000) if abs(ahead) >= 1 else 0


def _asBytes(value: Any, charset: str = "utf-8") -> bytes:
    # Not all that txredisapi gives is bytes: that is an option of its clients.
    return value if isinstance(value, bytes) else str(value).encode(charset)


# Errors.

_USELESS = re.compile("LOADING|READONLY|MASTERDOWN")
_TROUBLE = re.compile(
    "LOADING|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|OOM|MISCONF|NOREPLICAS|BUSY"
)


def _isUseless(message: str) -> bool:
    """
    Whether an error says that this is not the server to talk to now.
    """
    return _USELESS.search(message) is not None


def _explained(failure: Failure) -> Failure:
    error = failure.value
    if isinstance(error, txredisapi.TimeoutError):
        kind: type[StoreError] = StoreTimeout
    elif isinstance(error, txredisapi.ConnectionError):
        kind = StoreUnavailable
    elif isinstance(error, txredisapi.RedisError):
        isTrouble = _TROUBLE.search(str(error)) is not None
        kind = StoreUnavailable if isTrouble else StoreError
    else:
        return failure
    explained = kind(f"Redis: {error}")
    explained.__cause__ = error
    return Failure(explained)
