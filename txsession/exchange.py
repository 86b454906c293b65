"""
Loads a session once, carries out a `Plan`, and settles conflicts.

Theory of operation
===================

One `Exchange` serves a whole L{SessionResource <txsession.SessionResource>}; it
holds the options, the store and the clock, while what belongs to one request is
kept in its `Session`.

I{One at a time.}  The operations of one session (its verbs, and the save at the
end of its request) form a queue: each waits for the one before it.  So a
C{session.save()} that nobody waits for is over before the response is decided.

I{Cancelling.}  What a verb returns can be cancelled without consequence for the
store: the operation goes on, only the waiting ends.  The one store call that is
ever cancelled is C{get}: when its client leaves while it loads a session, and
when it takes too long.

I{Conflicts.}  The record that this handle last saw is the C{expected} of each
C{replace}.  If the store says no, the current record is read.  Gone: the session
is over, and nothing brings it back.  Changed: this request's changes (see
`txsession.changes`) are laid over the current data, and it is tried again; those
of this process who have to take turns, so that they do not go on losing to each
other.  What the application changed in the handle while the store was at work is
kept: it is the difference between the snapshot that was saved and the data as it
is when the store answers, and is laid over the result in its turn.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, Literal, NamedTuple, cast

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from .backend import Backend, isOutage
from .changes import adopt, diff, merge
from .cookies import attributes, expired, pair
from .document import (
    TOMBSTONE,
    Document,
    compose,
    decode,
    isSecureIn,
    maxAgeOf,
    serialise,
)
from .errors import (
    ConfigurationError,
    CorruptRecord,
    HeadersAlreadySent,
    NoSession,
    SessionConflict,
    SessionDestroyed,
    SessionGone,
    SessionNotLoaded,
    StoreError,
    StoreUnavailable,
)
from .lifetime import Expiry, isTouchDue
from .operations import begin, enqueue
from .plan import CookieAction, Facts, Plan, StoreAction, decide
from .pruning import Upkeep
from .record import Record
from .session import BARRIERS, ISession, Session
from .signing import Fingerprint, Signer, fingerprint, generateID

__all__ = ["NOTHING", "Exchange", "Outcome", "Policy"]

MAX_RETRIES = 10
"""
How often changes are laid over newer data before giving up.
"""

MAX_COLLISIONS = 5
"""
How many IDs are tried for a new session.
"""

Network = IPv4Network | IPv6Network


@frozen(kw_only=True)
class Policy:
    """
    The options of a L{SessionResource <txsession.SessionResource>}, checked.
    """

    name: str
    genid: Callable[[Any], str] | None
    proxy: Literal[True] | tuple[Network, ...]
    resave: bool
    rolling: bool
    saveUninitialized: bool
    unset: str
    ttl: float
    absoluteTimeout: float | None
    touchInterval: float | None
    onConflict: str
    lazy: bool
    cacheHeaders: bool
    storeTimeout: float
    storeDown: str


class Outcome(NamedTuple):
    """
    What the response gets.

    @ivar setCookie: the value of a C{Set-Cookie} header, or L{None}.
    @ivar varies: whether the response depends on the session.
    """

    setCookie: str | None
    varies: bool


class Decision(NamedTuple):
    """
    A plan, and what it was made from.

    @ivar data: the session's data serialised, if it can have changed.
    @ivar ends: when the session ends if it is saved or touched; L{None} if it
        was never loaded.
    """

    plan: Plan
    data: bytes | None
    ends: Expiry | None

    @property
    def isQuick(self) -> bool:
        """
        Whether it needs no answer of the store.
        """
        store = self.plan.store
        return store is StoreAction.NOTHING or store is StoreAction.TOUCH


@define(eq=False, repr=False)
class Exchange:
    """
    Between the sessions of one L{SessionResource <txsession.SessionResource>}
    and their store.
    """

    policy: Policy
    signer: Signer
    log: Logger
    backend: Backend = field(init=False)
    upkeep: Upkeep = field(init=False)
    _store: Any
    _reactor: Any = None
    _seconds: Callable[[], float] | None = None
    _warned: set[str] = field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        self.backend = Backend(
            self._store, self.log, lambda: self.reactor, self.policy.storeTimeout
        )
        self.upkeep = Upkeep.of(self._store, self.log, lambda: self.reactor)

    # The world outside.

    @property
    def reactor(self) -> Any:
        """
        The clock, imported at first use if none was given.
        """
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = reactor
        return self._reactor

    def now(self) -> float:
        """
        The time, as a POSIX timestamp.
        """
        if self._seconds is None:
            self._seconds = self.reactor.seconds
        return self._seconds()

    def isSecure(self, session: Session) -> bool:
        """
        Whether the session's request came over HTTPS.
        """
        if session._isSecure is None:
            request = session._liveRequest()
            if request is None:
                # Nobody asked while there was a request, so it stays as it was.
                record = session._record
                return record is not None and isSecureIn(record.payload)
            session._isSecure = bool(request.isSecure()) or self._isProxiedSecurely(
                request
            )
        return session._isSecure

    def _isProxiedSecurely(self, request: Any) -> bool:
        if not self.policy.proxy:
            return False
        values = request.requestHeaders.getRawHeaders(b"x-forwarded-proto")
        if not values or values[0].partition(b",")[0].strip().lower() != b"https":
            return False
        return self.policy.proxy is True or _isAmong(
            request.getClientAddress(), self.policy.proxy
        )

    def warnOnce(self, topic: str, message: str, **fields: object) -> None:
        """
        Log a warning, the first time that C{topic} comes up.
        """
        if topic not in self._warned:
            self._warned.add(topic)
            self.log.warn(message, topic=topic, **fields)

    # Loading.

    def fetch(self, sid: str) -> Record | Deferred[Record | None] | None:
        """
        Ask the store for a record.

        @return: the record, or L{None} where there is none or it has expired;
            or, from a store that does not answer at once, a Deferred that fires
            with that.  Cancelling it cancels the call of the store.
        @raise Exception: what the store raised at once.
        """
        self._checkAvailable(sid)
        return self._read(sid)

    def _checkAvailable(self, sid: str) -> None:
        if not self.backend.isAvailable():
            raise StoreUnavailable(
                "the store says that it is not available",
                operation="get",
                fingerprint=fingerprint(sid),
            )

    def _read(self, sid: str) -> Record | Deferred[Record | None] | None:
        try:
            answer = self.backend.call("get", sid)
        except FileNotFoundError:
            return None
        if type(answer) is Deferred:
            return answer.addCallbacks(self._live, _absentIfNoFile)
        return self._live(answer)

    async def _get(self, sid: str) -> Record | None:
        answer = self._read(sid)
        return await answer if isinstance(answer, Deferred) else answer

    def _live(self, record: Record | None) -> Record | None:
        if record is None:
            return None
        now = self.now()
        if now >= self.upkeep.due:
            self.upkeep.attend(now)
        if record.expires <= now or record.payload == TOMBSTONE:
            return None
        return record

    def furnish(self, session: Session, sid: str, record: Record | None) -> None:
        """
        Make a session what its record says; without one it is new, under an ID
        of its own.

        @raise CorruptRecord: the record is not a session document; the session
            is as it was.
        """
        try:
            isFound = record is not None and self._furnish(session, sid, record)
        except CorruptRecord as error:
            error.operation, error.fingerprint = "get", fingerprint(sid)
            raise
        if not isFound:
            session._presented = session._sid = None

    def _furnish(self, session: Session, sid: str, record: Record) -> bool:
        absoluteTimeout = self.policy.absoluteTimeout
        if absoluteTimeout is None:
            session._maxAge = maxAgeOf(record.payload)
        else:
            document = decode(record.payload)
            created, now = document.created, self.now()
            if created is not None and created + absoluteTimeout <= now:
                return False
            session._wasBorn = created is None
            session._created = now if created is None else created
            session._maxAge = document.maxAge
        session._fixed = None
        session._presented = session._sid = sid
        session._record = record
        session._expires = None if session._maxAge is None else record.expires
        return True

    def loadLazily(self, session: Session) -> Deferred[Session]:
        """
        Carry out C{session.load()}.
        """
        return enqueue(session, lambda: self._load(session)).addCallback(
            lambda _: session
        )

    async def _load(self, session: Session) -> None:
        if session._barrier is not SessionNotLoaded:
            return
        sid = session._presented
        try:
            record = None if sid is None else await self._fetched(sid)
            session._barrier = None
            self.furnish(session, sid or "", record)
            session._sealed = session._decided and session._record is None
        except Exception as error:
            session._barrier = SessionNotLoaded
            if isOutage(error) and self.policy.storeDown == "anonymous":
                self._detach(session)
                raise NoSession(BARRIERS[NoSession], operation="load") from error
            session._trouble = error
            raise

    async def _fetched(self, sid: str) -> Record | None:
        self._checkAvailable(sid)
        return await self._get(sid)

    def _detach(self, session: Session) -> None:
        session._barrier = NoSession
        session._ended = True
        session._presented = None
        self._unsetComponent(session)

    def _unsetComponent(self, session: Session) -> None:
        request = session._liveRequest()
        if request is not None:
            request.setComponent(ISession, None)
        session._unset = False

    # IDs.

    def identify(self, session: Session) -> str:
        """
        The session's ID, made now if it has none.

        @raise ConfigurationError: C{genid} gave something that is not a
            non-empty C{str} that UTF-8 can encode.
        """
        if session._sid is None:
            session._sid = self._newID(session)
        return session._sid

    def _newID(self, session: Session) -> str:
        if self.policy.genid is None:
            return generateID()
        sid = self.policy.genid(session._liveRequest())
        if not isinstance(sid, str) or not sid:
            raise ConfigurationError(
                f"must return a non-empty str, not {type(sid).__name__}",
                option="genid",
            )
        try:
            signed = self.signer.sign(sid)
        except UnicodeEncodeError as error:
            raise ConfigurationError(
                "must return a str that UTF-8 can encode", option="genid"
            ) from error
        pair(self.policy.name, signed)  # refuses one that is too long
        return sid

    # The end of the request.

    def settle(self, session: Session) -> Outcome | Failure | Deferred[Outcome]:
        """
        Decide what to do with a session now that its response begins, and do it.

        @return: what the response gets, or why it must not be sent; at once if
            the store answered at once.
        """
        if session._pending is not None:
            return enqueue(session, lambda: self._settle(session))
        session._decided = True
        try:
            if self._isQuiet(session):
                return self._leave(session)
            decision = self._decide(session)
            if decision.isQuick:
                return self._carryOutQuickly(session, decision)
        except Exception:
            self._seal(session, CookieAction.NONE)
            return Failure()
        return begin(session, self._carryOut(session, decision))

    def _isQuiet(self, session: Session) -> bool:
        """
        Whether nothing happened to a session but that it may have been read: the
        most frequent case in which `decide` says that there is nothing to do.
        """
        if (
            session._mutated
            or session._exposed
            or session._ended
            or session._lifetimeSet
            or session._saved
            or session._touched
            or session._unset
            or session._barrier is not None
            or session._sid != session._presented
        ):
            return False
        policy, record = self.policy, session._record
        if record is None:
            return not (policy.saveUninitialized or session._kept)
        if (
            session._stale
            or session._wasBorn
            or session._options is not session._configured
            or policy.resave
            or policy.rolling
            or policy.absoluteTimeout is not None
        ):
            return False
        maxAge = session._maxAge
        lifetime = policy.ttl if maxAge is None else maxAge
        return not isTouchDue(
            record.expires,
            self.now() + lifetime,
            lifetime=abs(lifetime),
            interval=policy.touchInterval,
        )

    def _leave(self, session: Session) -> Outcome:
        """
        Do nothing with a session.
        """
        if session._record is None:
            session._sealed = True
            return _READ if session._accessed else NOTHING
        session._fixed = None
        return _READ if session._accessed else _UNREAD

    async def _settle(self, session: Session) -> Outcome:
        session._decided = True
        try:
            decision = self._decide(session)
            if decision.isQuick:
                return self._carryOutQuickly(session, decision)
        except Exception:
            self._seal(session, CookieAction.NONE)
            raise
        return await self._carryOut(session, decision)

    def _decide(self, session: Session) -> Decision:
        if session._barrier is SessionNotLoaded:
            return Decision(self._planUnloaded(session), None, None)
        isOver = session._ended or session._unset
        data = session._snapshot() if session._isSuspect() and not isOver else None
        now = self.now()
        ends = session._ends(now)
        facts = self._facts(session, data, now, ends)
        plan = decide(facts)
        if not facts.sendable and decide(facts._replace(sendable=True)) != plan:
            self._warnOfPlainHTTP()
        if plan != _NO_PLAN:
            self._logPlan(session, plan)
        return Decision(plan, data, ends)

    def _planUnloaded(self, session: Session) -> Plan:
        isUnset = session._unset and self.policy.unset == "destroy"
        known = isUnset and session._presented is not None
        return decide(Facts(presented=known, stored=known, unset=isUnset))

    def _facts(
        self, session: Session, data: bytes | None, now: float, ends: Expiry
    ) -> Facts:
        policy = self.policy
        record = session._record
        isDirty = (
            session._lifetimeSet
            or session._wasBorn
            or (data is not None and session._differs(data))
        )
        return Facts(
            presented=session._presented is not None,
            current=session._sid is not None and session._sid == session._presented,
            stored=record is not None,
            ended=session._ended,
            unset=session._unset and policy.unset == "destroy",
            kept=session._unset and policy.unset == "keep",
            modified=isDirty or session._wroteChanges,
            written=session._saved and not isDirty,
            saved=session._saved,
            cookieChanged=session._lifetimeSet
            or session._wroteLifetime
            or (
                session._options is not session._configured
                and session._options != session._configured
            ),
            hasExpiry=ends.cookie is not None,
            expired=ends.record <= now,
            sendable=session._options.secure is not True or self.isSecure(session),
            stale=session._stale,
            touchDue=session._touched
            or (record is not None and self._isTouchDue(session, record, ends)),
            resave=policy.resave,
            rolling=policy.rolling,
            saveUninitialized=policy.saveUninitialized or session._kept,
        )

    def _isTouchDue(self, session: Session, record: Record, ends: Expiry) -> bool:
        maxAge = session._maxAge
        return isTouchDue(
            record.expires,
            ends.record,
            lifetime=self.policy.ttl if maxAge is None else abs(maxAge),
            interval=self.policy.touchInterval,
        )

    def _warnOfPlainHTTP(self) -> None:
        self.warnOnce(
            "insecure",
            "The session cookie {name!r} must be Secure, but the request came over "
            "plain HTTP, so no cookie was sent, and a new session was not stored at "
            "the end of the request.  Serve "
            'HTTPS, or set cookie=CookieOptions(secure="auto"); behind a proxy that '
            "speaks HTTPS for you, have it set X-Forwarded-Proto and name its "
            "network in proxy=[...].",
            name=self.policy.name,
        )

    def _logPlan(self, session: Session, plan: Plan) -> None:
        self.log.debug(
            "session {session}: store {store.value}, cookie {cookie.value}",
            session="new" if session._sid is None else Fingerprint(session._sid),
            store=plan.store,
            cookie=plan.cookie,
        )

    def _carryOutQuickly(self, session: Session, decision: Decision) -> Outcome:
        """
        Carry out what needs no answer of the store.
        """
        plan, data, ends = decision
        if plan.store is StoreAction.TOUCH:
            self._touch(session, cast(Expiry, ends))
        elif session._expires is None and ends is not None:
            session._expires = ends.cookie
        outcome = self._outcome(session, plan.cookie)
        if session._sealed:
            # What is not to be saved is no change when the response ends.
            session._mutated = session._lifetimeSet = False
            if data is not None:
                session._baseline = data
        return outcome

    async def _carryOut(self, session: Session, decision: Decision) -> Outcome:
        cookie = decision.plan.cookie
        try:
            if session._unset:
                await self._destroyUnset(session)
            elif not await self._saveAtEnd(session, decision.data, decision.ends):
                isHeld = session._presented is not None
                cookie = CookieAction.EXPIRE if isHeld else CookieAction.NONE
            return self._outcome(session, cookie)
        except BaseException:
            self._seal(session, CookieAction.NONE)
            raise

    async def _destroyUnset(self, session: Session) -> None:
        sid = session._presented if session._sid is None else session._sid
        if sid is not None and (session._record is not None or session._barrier):
            await self.backend.ask("destroy", sid)
        self._end(session)

    async def _saveAtEnd(
        self, session: Session, data: bytes | None, ends: Expiry | None = None
    ) -> bool:
        """
        @return: whether the session was still there to be saved.
        """
        try:
            await self._write(session, data, ends)
        except SessionGone as error:
            self.log.warn(
                "Session {session} was gone when it was to be saved; what the "
                "request changed in it is dropped: {error}",
                session=error.fingerprint,
                error=str(error),
            )
            session._ended = True
            session._record = None
            return False
        return True

    def _outcome(self, session: Session, cookie: CookieAction) -> Outcome:
        outcome = Outcome(
            None if cookie is CookieAction.NONE else self._setCookie(session, cookie),
            session._accessed or session._unset or session._ended,
        )
        self._seal(session, cookie)
        session._fixed = None
        return outcome

    def _seal(self, session: Session, cookie: CookieAction) -> None:
        """
        Note whether the browser will have a cookie for this session.
        """
        presented = session._presented
        hasCookie = cookie is CookieAction.SEND or (
            cookie is CookieAction.NONE
            and presented is not None
            and session._sid in (presented, None)
        )
        isLost = session._record is None and session._barrier is None
        session._sealed = isLost or not hasCookie

    def settleLate(self, session: Session) -> Failure | Deferred[None] | None:
        """
        Save what was changed after the headers went out.

        @return: L{None} if there is nothing to wait for, or why the save failed.
        """
        if session._pending is not None:
            return enqueue(session, lambda: self._settleLate(session))
        if not (
            session._mutated
            or session._exposed
            or session._lifetimeSet
            or session._touched
            or session._unset
        ):
            return None
        return begin(session, self._settleLate(session))

    async def _settleLate(self, session: Session) -> None:
        if session._ended:
            return
        if session._unset:
            if self.policy.unset == "destroy":
                await self._destroyUnset(session)
            return
        if session._barrier is not None:
            return
        data = session._snapshot()
        if session._lifetimeSet or session._differs(data):
            await self._saveLate(session, data)
        elif session._touched and session._record is not None:
            self._touch(session, session._ends(self.now()))

    async def _saveLate(self, session: Session, data: bytes) -> None:
        if session._sealed:
            self.log.warn(
                "Session {session} was changed after its response had begun; as "
                "the browser has no cookie for it, the change is dropped.",
                session="new" if session._sid is None else fingerprint(session._sid),
            )
            return
        await self._saveAtEnd(session, data)

    def _setCookie(self, session: Session, action: CookieAction) -> str:
        flags = session._flags()
        if action is CookieAction.EXPIRE:
            return expired(self.policy.name, session._options, flags)
        if flags.weakened:
            self.warnOnce(
                "weakened",
                "SameSite=None and Partitioned need Secure, and a request came "
                "over plain HTTP, so they were left out of the session cookie.",
            )
        signed = self.signer.sign(self.identify(session))
        return pair(self.policy.name, signed) + attributes(
            session._options, flags, session._expires, self.now()
        )

    # The verbs.

    def save(self, session: Session) -> Deferred[None]:
        """
        Carry out C{session.save()}.
        """
        return enqueue(session, lambda: self._save(session))

    async def _save(self, session: Session) -> None:
        await self._load(session)
        session._check()
        session._accessed = True
        if session._ended:
            raise _gone("save", self.identify(session))
        if session._record is None and self._isOutOfReach(session):
            raise self._tooLate(session, "save")
        try:
            await self._write(session)
        except SessionGone:
            session._ended = True
            raise
        session._saved = True

    def reload(self, session: Session) -> Deferred[None]:
        """
        Carry out C{session.reload()}.
        """
        return enqueue(session, lambda: self._reload(session))

    async def _reload(self, session: Session) -> None:
        await self._load(session)
        session._check()
        session._accessed = True
        sid = self.identify(session)
        record = None if session._record is None else await self._fetched(sid)
        if record is None:
            raise _gone("reload", sid)
        document = self._decode(sid, record)
        if session._data is None:
            session._data = document.data
        else:
            adopt(session._data, document.data)
        session._record = record
        session._baseline = serialise(session._data)
        session._mutated = session._lifetimeSet = False
        session._maxAge, session._fixed = document.maxAge, None
        session._expires = None if document.maxAge is None else record.expires
        self._takeMeta(session, document)

    def destroy(self, session: Session) -> Deferred[None]:
        """
        Carry out C{session.destroy()}.
        """
        return enqueue(session, lambda: self._destroy(session))

    async def _destroy(self, session: Session) -> None:
        if session._barrier is SessionDestroyed:
            return
        if session._barrier is not SessionNotLoaded:
            session._check()
        sid = session._sid if session._barrier is None else session._presented
        if sid is not None and (session._record or session._barrier):
            await self.backend.ask("destroy", sid)
        self._end(session)
        self._unsetComponent(session)

    def _end(self, session: Session) -> None:
        session._ended = True
        session._record = None
        session._barrier = SessionDestroyed

    def regenerate(self, session: Session, keepData: bool) -> Deferred[None]:
        """
        Carry out C{session.regenerate()}.
        """
        return enqueue(session, lambda: self._regenerate(session, keepData))

    async def _regenerate(self, session: Session, keepData: bool) -> None:
        await self._load(session)
        session._check()
        if session._decided or self._isOutOfReach(session):
            raise self._tooLate(session, "regenerate")
        session._accessed = True
        if not keepData:
            await self._beginAnew(session)
        elif session._record is None:
            session._sid = None
        else:
            await self._move(session)

    async def _beginAnew(self, session: Session) -> None:
        # What is written to the session from now on is the new one's.
        before = session._takeData()
        try:
            if session._record is not None:
                await self.backend.ask("destroy", self.identify(session))
        except BaseException:
            session._giveBack(before)
            raise
        session._reset()
        session._ended = False

    async def _move(self, session: Session) -> None:
        """
        Give a stored session another ID, losing nothing and reviving nothing.

        The new record is written first.  Then the old one is replaced by a
        tombstone: if the store agrees, nobody has changed or destroyed it since
        it was last seen, and nobody can change it any more, so that what others
        save meanwhile is either moved along or refused.  If the tombstone then
        cannot be destroyed, it is what the old record takes the place of.
        """
        old = self.identify(session)
        self._metaOf(session)
        data = session._snapshot()
        before = _Handle.of(session)
        session._sid, session._record = None, None
        try:
            await self._write(session, data)
            last = await self._claim(session, old, before.record)
            await self._destroyOld(old, last)
        except BaseException as error:
            new = session._sid
            before.restore(session)
            session._ended = isinstance(error, SessionGone)
            if new is not None:
                await self._discard(new)
            raise
        session._saved = True

    async def _destroyOld(self, sid: str, last: Record) -> None:
        try:
            await self.backend.ask("destroy", sid)
        except Exception:
            if await self._isBack(sid, last):
                raise

    async def _isBack(self, sid: str, last: Record) -> bool:
        """
        Put a record back whose tombstone could not be destroyed; or, where the
        store cannot compare and swap, see whether it was destroyed all the same.

        @return: whether it is there, so that the session is still what it was.
        """
        try:
            if self.backend.isConditional:
                tombstone = Record(TOMBSTONE, last.expires)
                return bool(await self.backend.ask("replace", sid, last, tombstone))
            return await self._get(sid) is not None
        except Exception:
            return not self.backend.isConditional

    async def _claim(self, session: Session, old: str, expected: Record) -> Record:
        """
        @return: the record as it was at the last.
        """
        for _ in range(1 + MAX_RETRIES):
            tombstone = Record(TOMBSTONE, expected.expires)
            if self.backend.isConditional and await self.backend.ask(
                "replace", old, tombstone, expected
            ):
                return expected
            current = await self._get(old)
            if current is None:
                raise _gone("regenerate", old)
            if not self.backend.isConditional:
                return current
            if self.policy.onConflict == "error":
                break
            if self.policy.onConflict == "merge":
                await self._lay(session, expected, self._decode(old, current))
            expected = current
        raise SessionConflict(
            "another request keeps changing the session",
            operation="regenerate",
            fingerprint=fingerprint(old),
        )

    async def _lay(self, session: Session, seen: Record, current: Document) -> None:
        """
        Take what others changed in the old record over into the new one.
        """
        base = decode(seen.payload)
        data = cast("dict[str, Any]", session._data)
        ours = diff(base.data, json.loads(serialise(data)))
        adopt(data, merge(current.data, ours))
        session._mutated = True
        if session._maxAge == base.maxAge:
            session._maxAge = current.maxAge
        await self._write(session)

    async def _discard(self, sid: str) -> None:
        try:
            await self.backend.ask("destroy", sid)
        except Exception as error:
            self.log.error(
                "Session {session}, which a regenerate() that failed may have "
                "left behind, could not be removed; it will expire: {error}",
                session=fingerprint(sid),
                error=str(error),
            )

    def _isOutOfReach(self, session: Session) -> bool:
        """
        Whether no cookie can reach the browser any more.
        """
        if session._decided:
            return session._sealed
        if session._request is None:
            return False
        request = session._request()
        if request is None:
            return True
        # A request whose client has left is no longer watched over; what was
        # begun for it goes on all the same.
        return bool(getattr(request, "_txupgraded", False))

    def _tooLate(self, session: Session, operation: str) -> HeadersAlreadySent:
        problem = (
            "the response has begun; do this before the first write"
            if session._decided
            else "the request is over, or its connection was upgraded"
        )
        return HeadersAlreadySent(
            f"{problem}: the browser can no longer be given the cookie that this needs",
            operation=operation,
            fingerprint=None if session._sid is None else fingerprint(session._sid),
        )

    # Writing.

    async def _write(
        self, session: Session, data: bytes | None = None, ends: Expiry | None = None
    ) -> None:
        """
        Write the session as it is now.

        @param data: its data, if it has just been serialised.
        @param ends: when it ends, if that has just been found out.
        @raise SessionGone: its record is no longer there.
        """
        if session._touching is not None:
            # Or else it might be the later one that sets the expiry.
            touching, session._touching = session._touching, None
            await touching
        if data is None:
            data = session._snapshot()
        now = self.now()
        before = session._maxAge, session._expires, session._meta, session._created
        if self.policy.absoluteTimeout is not None and session._created is None:
            session._created = now
        isDirty = session._differs(data)
        # What is set while the store is at work is not part of this.
        wasMutated, session._mutated = session._mutated, False
        wasSet, session._lifetimeSet = session._lifetimeSet, False
        try:
            await self._writeSnapshot(session, data, ends or session._ends(now), wasSet)
        except BaseException:
            session._mutated = wasMutated or session._mutated
            maxAge, expires, session._meta, session._created = before
            if not session._lifetimeSet:
                session._lifetimeSet = wasSet
                session._maxAge, session._expires = maxAge, expires
            raise
        if isDirty or wasSet:
            session._wroteChanges = True
        session._wroteLifetime = wasSet or session._wroteLifetime
        session._wasBorn = session._touched = False

    async def _writeSnapshot(
        self, session: Session, data: bytes, ends: Expiry, isLifetimeOurs: bool
    ) -> None:
        session._expires = ends.cookie
        if ends.record <= self.now():
            if session._record is not None:
                await self.backend.ask("destroy", self.identify(session))
            session._record = None
        elif session._record is None:
            await self._create(session, self._recordOf(session, data, ends))
        elif not self.backend.isConditional:
            record = self._recordOf(session, data, ends)
            await self.backend.ask("set", self.identify(session), record)
            session._record = record
        else:
            await self._replace(session, data, ends, isLifetimeOurs)
            return
        session._baseline = data

    def _recordOf(self, session: Session, data: bytes, ends: Expiry) -> Record:
        created = session._created if self.policy.absoluteTimeout is not None else None
        return Record(
            compose(
                data,
                maxAge=session._maxAge,
                expires=ends.cookie,
                options=session._options,
                flags=session._flags(),
                meta=self._metaOf(session),
                created=created,
            ),
            ends.record,
        )

    def _metaOf(self, session: Session) -> dict[str, Any] | None:
        if session._meta is None and session._record is not None:
            payload = session._record.payload
            if b'"__txsession"' in payload:
                session._meta = decode(payload).meta
        return session._meta

    async def _create(self, session: Session, record: Record) -> None:
        for _ in range(MAX_COLLISIONS):
            sid = self.identify(session)
            if not self.backend.isConditional:
                await self.backend.ask("set", sid, record)
            elif not await self.backend.ask("create", sid, record):
                session._sid = None
                continue
            session._record = record
            return
        raise StoreError(
            f"the new session's ID was taken {MAX_COLLISIONS} times in a row; "
            "genid must return a different ID each time",
            operation="create",
        )

    async def _replace(
        self, session: Session, data: bytes, ends: Expiry, isLifetimeOurs: bool
    ) -> None:
        record = self._recordOf(session, data, ends)
        seen = cast(Record, session._record)
        replaced = self.backend.call("replace", self.identify(session), record, seen)
        if type(replaced) is Deferred:
            replaced = await replaced
        if replaced:
            session._record = record
            session._baseline = data
            return
        # Those of this process who lost to somebody else take turns.  Otherwise
        # they would go on losing to each other.
        turns = self.backend.turnsOf(self.identify(session))
        await turns.take()
        try:
            await self._retry(session, data, record, isLifetimeOurs)
        finally:
            turns.give()

    async def _retry(
        self, session: Session, data: bytes, record: Record, isLifetimeOurs: bool
    ) -> None:
        """
        Save a session that another request has changed since.
        """
        sid = self.identify(session)
        seen = cast(Record, session._record)
        merged: dict[str, Any] | None = None
        for _ in range(MAX_RETRIES):
            current = await self._get(sid)
            if current is None:
                raise _gone("save", sid)
            if self.policy.onConflict == "error":
                break
            if self.policy.onConflict == "merge":
                theirs = self._decode(sid, current)
                if not (isLifetimeOurs or session._lifetimeSet):
                    session._maxAge = theirs.maxAge
                merged = self._merge(session, seen, data, theirs)
                record = self._recordOf(
                    session, serialise(merged), session._ends(self.now())
                )
            if await self.backend.ask("replace", sid, record, current):
                session._record = record
                if merged is None:
                    session._baseline = data
                else:
                    self._takeMerged(session, data, merged)
                return
        raise SessionConflict(
            "another request changed the session"
            + ("" if self.policy.onConflict == "error" else " again and again"),
            operation="save",
            fingerprint=fingerprint(sid),
        )

    def _merge(
        self, session: Session, seen: Record, data: bytes, theirs: Document
    ) -> dict[str, Any]:
        self._takeMeta(session, theirs)
        base = session._baseline
        before = decode(seen.payload).data if base is None else json.loads(base)
        return merge(theirs.data, diff(before, json.loads(data)))

    def _takeMeta(self, session: Session, document: Document) -> None:
        session._meta = document.meta
        if document.created is not None:
            session._created = document.created

    def _takeMerged(
        self, session: Session, data: bytes, merged: dict[str, Any]
    ) -> None:
        if not session._lifetimeSet:
            ends = cast(Record, session._record).expires
            session._expires = None if session._maxAge is None else ends
        local = cast("dict[str, Any]", session._data)
        session._baseline = serialise(merged)
        newer = diff(json.loads(data), local)
        adopt(local, merge(json.loads(session._baseline), newer))
        if not newer:
            session._baseline = serialise(local)

    def _touch(self, session: Session, ends: Expiry) -> None:
        """
        Renew the record's expiry, waiting for nothing.
        """
        record = cast(Record, session._record)
        renewed = Record(record.payload, ends.record)
        sid = self.identify(session)
        if self.backend.isTouchable:
            touching = self.backend.ask("touch", sid, ends.record)
        elif self.backend.isConditional:
            touching = self.backend.ask("replace", sid, renewed, record)
        else:
            touching = self.backend.ask("set", sid, renewed)
        session._record = renewed
        session._expires = ends.cookie
        session._touched = False
        touch = Deferred.fromCoroutine(touching).addErrback(self._logTouchFailure, sid)
        if not touch.called:
            session._touching = touch

    def _logTouchFailure(self, failure: Failure, sid: str) -> None:
        self.log.failure(
            "The expiry of session {session} could not be renewed.",
            failure,
            session=fingerprint(sid),
            level=LogLevel.error,
        )

    def _decode(self, sid: str, record: Record) -> Document:
        try:
            return decode(record.payload)
        except CorruptRecord as error:
            error.operation, error.fingerprint = "get", fingerprint(sid)
            raise


_READ = Outcome(None, True)
_UNREAD = Outcome(None, False)
NOTHING = Outcome(None, False)
"""
The outcome for a session that was never used and that nothing is known of.
"""
_NO_PLAN = Plan(StoreAction.NOTHING, CookieAction.NONE)


class _Handle(NamedTuple):
    """
    What a session is, to be restored after a failure.
    """

    sid: str
    record: Record
    baseline: bytes | None
    expires: float | None
    lifetimeSet: bool
    mutated: bool
    wroteChanges: bool
    wroteLifetime: bool
    wasBorn: bool

    def __repr__(self) -> str:
        return f"<_Handle {fingerprint(self.sid)}>"

    @classmethod
    def of(cls, session: Session) -> _Handle:
        return cls(
            cast(str, session._sid),
            cast(Record, session._record),
            session._baseline,
            session._expires,
            session._lifetimeSet,
            session._mutated,
            session._wroteChanges,
            session._wroteLifetime,
            session._wasBorn,
        )

    def restore(self, session: Session) -> None:
        session._sid = self.sid
        session._record = self.record
        session._baseline = self.baseline
        session._expires = self.expires
        session._lifetimeSet = self.lifetimeSet
        session._mutated = session._mutated or self.mutated
        session._wroteChanges = self.wroteChanges
        session._wroteLifetime = self.wroteLifetime
        session._wasBorn = self.wasBorn


def _gone(operation: str, sid: str) -> SessionGone:
    return SessionGone(
        "the session is not in its store: it expired, or another request destroyed it",
        operation=operation,
        fingerprint=fingerprint(sid),
    )


def _absentIfNoFile(failure: Failure) -> None:
    failure.trap(FileNotFoundError)


def _isAmong(address: Any, networks: Sequence[Network]) -> bool:
    try:
        ip = ip_address(address.host)
    except (AttributeError, ValueError):
        return False
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return any(ip in network for network in networks)
