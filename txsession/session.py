"""
The session that an application holds: a mapping of its data, its cookie, and
its verbs.

A session keeps no strong reference to its request, which holds the session: a
cycle on every request would leave its memory to the garbage collector.

What was changed is found out by comparing serialised data, and only when
something can have changed: when the mapping was written to, or an object or
array inside it was handed out.  The data as it was loaded or last saved is
serialised just before that can happen for the first time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, MutableMapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType

from attrs import evolve
from twisted.internet.defer import Deferred, maybeDeferred
from zope.interface import Attribute, Interface, implementer

from .cookies import EARLIEST, LATEST, CookieFlags, CookieOptions, checkName
from .document import checkKey, checkValue, decode, encodeData, serialise
from .errors import (
    CorruptRecord,
    HeadersAlreadySent,
    NoSession,
    SessionDestroyed,
    SessionError,
    SessionNotLoaded,
)
from .lifetime import Duration, Expiry, asSeconds, expiry
from .record import Record
from .signing import fingerprint

if TYPE_CHECKING:
    from .exchange import Exchange

__all__ = ["ISession", "Session", "SessionCookie"]

_CONTAINERS = (dict, list)


_Data = tuple["dict[str, Any] | None", "bytes | None", bool, bool]


class ISession(Interface):
    """
    A server-side session; C{ISession(request)} is the one of a request.
    """

    id = Attribute("The session's ID, a C{str}.")
    isNew = Attribute("Whether this request made the session.")
    isModified = Attribute("Whether there is something unsaved.")
    cookie = Attribute("The session's L{SessionCookie}.")

    def save() -> Deferred[None]:
        """
        Write the session to its store now.
        """

    def reload() -> Deferred[None]:
        """
        Read the session from its store again, dropping local changes.
        """

    def destroy() -> Deferred[None]:
        """
        Delete the session.
        """

    def regenerate(keepData: bool = False) -> Deferred[None]:
        """
        Give the session a new ID.
        """

    def load() -> Deferred[Any]:
        """
        Read the session from its store, with C{lazy=True}.
        """

    def touch() -> None:
        """
        Have the session's expiry renewed with this response.
        """


@implementer(ISession)
class Session(MutableMapping[str, Any]):
    """
    A session.  The mapping holds the application's data and nothing else: JSON
    values under C{str} keys.

    A session may be used after its request is over, by a WebSocket for
    instance: C{save()} and C{reload()} go on working.
    """

    __slots__ = (
        "__weakref__",
        "_accessed",
        "_barrier",
        "_baseline",
        "_configured",
        "_created",
        "_data",
        "_decided",
        "_ended",
        "_exchange",
        "_expires",
        "_exposed",
        "_fixed",
        "_isSecure",
        "_kept",
        "_lifetimeSet",
        "_maxAge",
        "_meta",
        "_mutated",
        "_options",
        "_pending",
        "_presented",
        "_record",
        "_request",
        "_saved",
        "_sealed",
        "_sid",
        "_stale",
        "_touched",
        "_touching",
        "_trouble",
        "_unset",
        "_wasBorn",
        "_wroteChanges",
        "_wroteLifetime",
    )

    def __init__(
        self,
        exchange: Exchange,
        options: CookieOptions,
        request: ReferenceType[Any] | None = None,
    ) -> None:
        self._exchange = exchange
        self._request = request

        # The cookie's options: as they are for this response, and as they were
        # given.
        self._options = self._configured = options

        # The ID; and the one that the browser presented, if its record was found
        # (or, with lazy=True, not yet looked for), and whether an older secret
        # had signed it.
        self._sid: str | None = None
        self._presented: str | None = None
        self._stale = False

        # What the store holds under the ID, as far as is known.
        self._record: Record | None = None

        # The data, None before it was first used; and the data as it was loaded
        # or last saved, None while it cannot have changed since.
        self._data: dict[str, Any] | None = None
        self._baseline: bytes | None = None
        self._mutated = False
        self._exposed = False

        # What stands under the reserved key; the time of creation, and whether
        # that was made up at loading and is to be saved.
        self._meta: dict[str, Any] | None = None
        self._created: float | None = None
        self._wasBorn = False

        # The lifetime: originalMaxAge; the date that the application or the
        # options set, for this response; when the cookie ends; and whether the
        # application has set any of it since the last save.
        self._maxAge: float | None = None
        self._fixed: float | None = None
        self._expires: float | None = None
        self._lifetimeSet = False

        # What using the data raises, if anything.
        self._barrier: type[SessionError] | None = None

        # What has happened.
        self._accessed = False
        self._decided = False
        self._ended = False
        self._kept = False  # to be stored, though nothing may be written to it
        self._saved = False
        self._touched = False
        self._unset = False
        self._wroteChanges = False
        self._wroteLifetime = False

        # Whether the browser has no cookie for this session and can no longer be
        # given one.
        self._sealed = False

        # Whether the request is secure, when that is known.
        self._isSecure: bool | None = None

        # Why it could not be loaded, if the application was told by an exception.
        self._trouble: Exception | None = None

        # A renewal of the expiry that is under way.
        self._touching: Deferred[None] | None = None

        # The operations that wait for the one under way; None if none is.
        self._pending: deque[Any] | None = None

        self._begin()

    def __repr__(self) -> str:
        name = "new" if self._sid is None else fingerprint(self._sid)
        state = self._barrier.__name__ if self._barrier else "active"
        return f"<Session {name} {state}>"

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"a Session has no attribute {name!r}; its data is a mapping, as in "
            f"session[{name!r}]"
        )

    # What everybody may know.

    @property
    def id(self) -> str:
        """
        The session's ID.  A new session is given its own when this is first
        read, or when it is first saved.  It stays readable after C{destroy()}.

        @raise SessionNotLoaded: with C{lazy=True}, before C{load()}.
        """
        self._checkLoaded()
        return self._exchange.identify(self)

    @property
    def isNew(self) -> bool:
        """
        Whether this request made the session, so that the browser has not yet
        presented its ID.

        @raise SessionNotLoaded: with C{lazy=True}, before C{load()}.
        """
        self._checkLoaded()
        return self._presented is None or self._sid != self._presented

    @property
    def isModified(self) -> bool:
        """
        Whether the data differs from what was loaded or last saved, or the
        cookie's lifetime was set since.
        """
        return self._lifetimeSet or self._wasBorn or self._isDirty()

    @property
    def cookie(self) -> SessionCookie:
        """
        The session's cookie.

        @raise SessionNotLoaded: with C{lazy=True}, before C{load()}.
        """
        self._checkLoaded()
        return SessionCookie(self)

    # The mapping.

    def __getitem__(self, key: str) -> Any:
        value = self._read()[key]
        if type(value) in _CONTAINERS:
            self._expose()
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        checkKey(key)
        checkValue(value, f"session[{key!r}]")
        data = self._change()
        if type(value) in _CONTAINERS:
            self._exposed = True
        data[key] = value

    def __delitem__(self, key: str) -> None:
        if key not in self._read():
            raise KeyError(key)
        del self._change()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def __contains__(self, key: object) -> bool:
        return key in self._read()

    # The verbs.

    def save(self) -> Deferred[None]:
        """
        Write the session to its store now, modified or not.  A new session
        gets its cookie with the response (and is written even if that cookie
        cannot be sent, because it must be Secure and the request is not).

        Once begun it cannot be cancelled: cancelling the Deferred only stops
        the waiting.

        @return: fires with L{None} when the store has it.  Fails with
            L{SessionGone <txsession.SessionGone>} if the record is no longer
            there, L{SessionConflict <txsession.SessionConflict>} if another
            request's changes were in the way,
            L{HeadersAlreadySent <txsession.HeadersAlreadySent>} if the browser
            cannot be given a cookie,
            L{SessionDataError <txsession.SessionDataError>}, or what the store
            failed with; the handle then still has its changes.
        """
        return self._exchange.save(self)

    def reload(self) -> Deferred[None]:
        """
        Read the session from its store again; local changes are dropped.

        @return: fires with L{None}.  Fails with
            L{SessionGone <txsession.SessionGone>} if there is no record, or
            with what the store failed with; the handle is then as it was.
        """
        return self._exchange.reload(self)

    def destroy(self) -> Deferred[None]:
        """
        Delete the session.  The request has no session from then on, and the
        browser's cookie expires with the response.

        @return: fires with L{None}.  Fails with what the store failed with; the
            session then lives on.
        """
        return self._exchange.destroy(self)

    def regenerate(self, keepData: bool = False) -> Deferred[None]:
        """
        Give the session a new ID and delete its record under the old one.  Do
        this when somebody logs in, lest a planted ID becomes theirs.

        @param keepData: keep the data and the age; otherwise the session is
            then new and empty.
        @return: fires with L{None}.  Fails like C{save}, or with what the store
            failed with; the session is then what it was, under its old ID, but
            for what was changed in it meanwhile.
        """
        return self._exchange.regenerate(self, keepData)

    def load(self) -> Deferred[Session]:
        """
        Read the session from its store, with C{lazy=True}; loaded already, it
        fires at once.

        @return: fires with the session.  Fails with what the store failed with;
            with L{CorruptRecord <txsession.CorruptRecord>}; with
            L{NoSession <txsession.NoSession>} if the store is down and
            C{storeDown="anonymous"}; or with
            L{SessionDestroyed <txsession.SessionDestroyed>}.
        """
        if self._barrier is SessionNotLoaded:
            return self._exchange.loadLazily(self)
        return maybeDeferred(self._loaded)

    def touch(self) -> None:
        """
        Have the expiry renewed with this response, whatever C{touchInterval}
        says.

        @raise SessionNotLoaded: with C{lazy=True}, before C{load()}.
        """
        self._check()
        self._touched = True

    # For the rest of txsession.

    def _loaded(self) -> Session:
        self._check()
        return self

    def _checkLoaded(self) -> None:
        if self._barrier is not None and self._barrier is not SessionDestroyed:
            self._check()
        self._accessed = True

    def _check(self) -> None:
        if self._barrier is not None:
            raise self._barrier(
                BARRIERS[self._barrier],
                fingerprint=None if self._sid is None else fingerprint(self._sid),
            )

    def _read(self) -> dict[str, Any]:
        if self._barrier is not None:
            self._check()
        self._accessed = True
        data = self._data
        return self._inflate() if data is None else data

    def _inflate(self) -> dict[str, Any]:
        if self._record is None:
            self._data = {}
        else:
            try:
                self._data = decode(self._record.payload).data
            except CorruptRecord as error:
                error.operation = "get"
                error.fingerprint = fingerprint(self._sid or "")
                self._trouble = error
                raise
        return self._data

    def _expose(self) -> None:
        if self._baseline is None:
            self._baseline = serialise(self._data or {})
        self._exposed = True

    def _change(self) -> dict[str, Any]:
        data = self._read()
        if self._sealed:
            raise HeadersAlreadySent(
                "the response has begun and the browser has no cookie for this "
                "session, so that a change would be lost; change the session "
                "before the first write",
                operation="change",
            )
        if self._baseline is None:
            self._baseline = serialise(data)
        self._mutated = True
        return data

    def _snapshot(self) -> bytes:
        """
        The data as it is to be stored now.
        """
        return encodeData(self._inflate() if self._data is None else self._data)

    def _isSuspect(self) -> bool:
        return self._mutated or self._exposed

    def _differs(self, data: bytes) -> bool:
        """
        Whether the data, serialised, is not what was loaded or last saved.
        """
        return self._isSuspect() and data != self._baseline

    def _isDirty(self) -> bool:
        return self._isSuspect() and self._differs(self._snapshot())

    def _liveRequest(self) -> Any:
        """
        The session's request, or L{None} if it never had one or it is gone.
        """
        return None if self._request is None else self._request()

    def _ends(self, now: float) -> Expiry:
        """
        When the session ends if it is saved or touched now.
        """
        policy = self._exchange.policy
        deadline = None
        if policy.absoluteTimeout is not None:
            created = now if self._created is None else self._created
            deadline = created + policy.absoluteTimeout
        return expiry(
            now,
            maxAge=self._maxAge,
            ttl=policy.ttl,
            fixed=self._fixed,
            deadline=deadline,
        )

    def _flags(self) -> CookieFlags:
        options = self._options
        isAuto = options.secure == "auto"
        return options.flags(isAuto and self._exchange.isSecure(self))

    def _begin(self) -> None:
        """
        Take the lifetime that the options give a new session.
        """
        options = self._configured
        self._maxAge = options.maxAge
        if options.expires is not None:
            self._fixed = options.expires.timestamp()
            self._maxAge = self._fixed - self._exchange.now()

    def _takeData(self) -> _Data:
        """
        Become empty.

        @return: what is to be given back if it comes to nothing.
        """
        taken = self._data, self._baseline, self._mutated, self._exposed
        self._data, self._baseline = {}, b"{}"
        self._mutated = self._exposed = False
        return taken

    def _giveBack(self, taken: _Data) -> None:
        """
        Have the data again that was taken, and what was written since.
        """
        newer = self._data or {}
        self._data, self._baseline, self._mutated, self._exposed = taken
        if newer:
            self._change().update(newer)
            self._exposed = True

    def _reset(self) -> None:
        """
        Become a new session, with the data as it is.
        """
        self._sid = self._record = None
        self._saved = self._wroteChanges = False
        self._meta = self._created = None
        self._wasBorn = self._wroteLifetime = False
        self._fixed = self._expires = None
        self._lifetimeSet = self._touched = False
        self._begin()


BARRIERS: dict[type[SessionError], str] = {
    NoSession: "the store is down, and with storeDown='anonymous' the request is "
    "served without a session",
    SessionDestroyed: "this session was destroyed; where that may have happened, ask "
    "ISession(request, None) for the session",
    SessionNotLoaded: "with lazy=True, wait for session.load() before using it",
}


class SessionCookie:
    """
    The cookie of one session, to be looked at and changed.

    A lifetime (C{maxAge}, C{expires}) that is set is saved and stays with the
    session; another attribute that is set holds for the cookie of this response.
    What is set is checked like the options, and raises
    L{ConfigurationError <txsession.ConfigurationError>}.
    """

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    def __repr__(self) -> str:
        options = self._session._options
        return (
            f"<SessionCookie originalMaxAge={self.originalMaxAge!r} "
            f"path={options.path!r} domain={options.domain!r}>"
        )

    # The lifetime.

    @property
    def maxAge(self) -> float | None:
        """
        The seconds that are left, or L{None} for a cookie that ends with the
        browser.  Set to seconds or a C{timedelta}, which may be anything
        finite; zero or less ends the session with this response.
        """
        expires = self._expires()
        return None if expires is None else expires - self._session._exchange.now()

    @maxAge.setter
    def maxAge(self, maxAge: Duration | None) -> None:
        session = self._session
        if maxAge is None:
            self._setLifetime(None, None)
            return
        seconds = asSeconds(maxAge, "cookie.maxAge", positive=False)
        self._setLifetime(seconds, session._exchange.now() + seconds)

    @property
    def expires(self) -> datetime | None:
        """
        When the cookie ends, in UTC, or L{None}.  Set to an aware C{datetime}.
        """
        expires = self._expires()
        if expires is None:
            return None
        clamped = min(max(expires, EARLIEST), LATEST)
        return datetime.fromtimestamp(clamped, timezone.utc)

    @expires.setter
    def expires(self, expires: datetime | None) -> None:
        if expires is None:
            self._setLifetime(None, None)
            return
        evolve(self._session._options, maxAge=None, expires=expires)  # checks it
        timestamp = expires.timestamp()
        self._setLifetime(timestamp - self._session._exchange.now(), timestamp)
        self._session._fixed = timestamp

    @property
    def originalMaxAge(self) -> float | None:
        """
        The seconds that C{maxAge} was last set to, to which each save and touch
        renews it; or L{None}.
        """
        return self._session._maxAge

    def _expires(self) -> float | None:
        session = self._session
        if session._expires is not None:
            return session._expires
        return session._ends(session._exchange.now()).cookie

    def _setLifetime(self, maxAge: float | None, expires: float | None) -> None:
        session = self._session
        if maxAge is None and session._maxAge is None and self._expires() is None:
            return
        if session._sealed:
            session._change()
        session._maxAge = maxAge
        session._expires = expires
        session._fixed = None
        session._lifetimeSet = True

    # The rest.

    @property
    def path(self) -> str:
        """
        The path that the cookie is sent for.
        """
        return self._session._options.path

    @path.setter
    def path(self, path: str) -> None:
        self._set(path=path)

    @property
    def domain(self) -> str | None:
        """
        The domain that the cookie is sent to, or L{None} for the host alone.
        """
        return self._session._options.domain

    @domain.setter
    def domain(self, domain: str | None) -> None:
        self._set(domain=domain)

    @property
    def secure(self) -> bool:
        """
        Whether the cookie is only sent over HTTPS; of C{"auto"}, what it comes
        to in this request.
        """
        return self._session._flags().secure

    @secure.setter
    def secure(self, secure: Any) -> None:
        self._set(secure=secure)

    @property
    def httpOnly(self) -> bool:
        """
        Whether scripts are kept from reading the cookie.
        """
        return self._session._options.httpOnly

    @httpOnly.setter
    def httpOnly(self, httpOnly: bool) -> None:
        self._set(httpOnly=httpOnly)

    @property
    def sameSite(self) -> Any:
        """
        C{False}, C{"lax"}, C{"strict"} or C{"none"}; of C{"auto"}, what it
        comes to in this request.
        """
        return self._session._flags().sameSite

    @sameSite.setter
    def sameSite(self, sameSite: Any) -> None:
        self._set(sameSite=sameSite)

    @property
    def priority(self) -> Any:
        """
        L{None}, C{"low"}, C{"medium"} or C{"high"}.
        """
        return self._session._options.priority

    @priority.setter
    def priority(self, priority: Any) -> None:
        self._set(priority=priority)

    @property
    def partitioned(self) -> bool:
        """
        Whether the cookie is kept apart for each top-level site.
        """
        return self._session._options.partitioned

    @partitioned.setter
    def partitioned(self, partitioned: bool) -> None:
        self._set(partitioned=partitioned)

    def _set(self, **changed: Any) -> None:
        session = self._session
        options = evolve(session._options, **changed)
        checkName(session._exchange.policy.name, options)
        session._options = options
