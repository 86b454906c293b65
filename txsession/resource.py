"""
The resource that gives every request below it a session.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import iscoroutine
from ipaddress import ip_network
from time import time
from typing import Any, Literal
from weakref import ref

from twisted.internet.defer import Deferred
from twisted.python.components import Componentized
from twisted.python.failure import Failure
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from . import response
from .backend import isOutage
from .cookies import (
    CookieOptions,
    checkName,
    isPathMatch,
    readCookies,
    uriPath,
)
from .decisionlog import DecisionLog
from .errors import ConfigurationError, NoSession, SessionNotLoaded
from .exchange import Exchange, Network, Policy
from .lifetime import Duration, asSeconds
from .record import Record
from .session import ISession, Session
from .signing import Signer, Verified
from .store import Store
from .stores.memory import MemoryStore

__all__ = ["ISession", "SessionResource", "getSession"]

OnError = Callable[[Any, Failure], Any]


def getSession(request: Any) -> Session:
    """
    The session of a request.

    @raise NoSession: it has none, because no L{SessionResource} took it, it was
        destroyed or unset, or the store is down and C{storeDown="anonymous"}.
        C{ISession(request, None)} gives L{None} instead.
    """
    # Asking the request itself is what adapting it does in the end.
    session: Any = (
        request.getComponent(ISession)
        if isinstance(request, Componentized)
        else ISession(request, None)
    )
    if session is None:
        raise NoSession(
            "this request has no session: serve the SessionResource that wraps the "
            "app (app.run() serves the app alone), with a cookie path that covers the "
            "request; or ask ISession(request, None) where a session was destroyed or "
            "may be missing"
        )
    return session  # type: ignore[no-any-return]


@implementer(IResource)
class SessionResource:
    """
    Wraps a resource, and gives each of its requests a session.

    The session is the request's L{ISession} component, and `getSession` gives
    it.  Its changes are saved, and its cookie is sent, before the response
    leaves.

    @param wrapped: an C{IResource}, or an object whose C{resource()} gives one,
        as a C{Klein} app is.
    @param secret: C{str} or C{bytes}, or a sequence of them, newest first: the
        first signs, all verify.
    @param store: a L{Store <txsession.Store>}; by default a
        L{MemoryStore <txsession.MemoryStore>} of its own.
    @param name: the name of the cookie.
    @param cookie: a L{CookieOptions <txsession.CookieOptions>}, or a callable
        that is given the request and returns one.
    @param genid: a callable that is given the request and returns an ID.
    @param proxy: who may say by C{X-Forwarded-Proto} that a request was made
        over HTTPS: nobody (L{None}, L{False}), anybody (L{True}), or those
        whose address is in one of a sequence of IP networks.
    @param resave: save sessions that were not modified, too.
    @param rolling: renew the cookie with every response that has a stored
        session.
    @param saveUninitialized: save new sessions that were not modified, too.
    @param unset: what taking the session off the request means: C{"keep"} or
        C{"destroy"}.
    @param ttl: seconds (or a C{timedelta}) that a record lives after its last
        touch if its cookie has no C{maxAge}.
    @param absoluteTimeout: seconds (or a C{timedelta}) after which a session
        ends, however active; L{None} for never.
    @param touchInterval: seconds (or a C{timedelta}) between renewals of an
        unmodified session's expiry; L{None} for a hundredth of its lifetime, 0
        for every request.
    @param onConflict: what happens when another request has changed the
        session: C{"merge"}, C{"overwrite"} or C{"error"}.
    @param lazy: ask the store only when the application calls C{load()}.
    @param cacheHeaders: add C{Vary} and C{Cache-Control} as the session calls
        for.
    @param storeTimeout: seconds (or a C{timedelta}) that a call of the store
        may take.
    @param storeDown: what a store that is down while a session is loaded means:
        C{"error"} for a 503, C{"anonymous"} for a request without a session
        (and so for every request while the store's C{available} is false).
    @param onError: a callable that is given the request and the failure of a
        load or save, and answers in place of the built-in page.  The status is
        set.  It returns C{bytes}, C{NOT_DONE_YET}, or a Deferred or coroutine of
        either.
    @param reactor: the clock for every expiry and timeout; by default the
        global reactor, imported at first use.

    @raise ConfigurationError: an option's value cannot work.
    """

    isLeaf = True
    _log = DecisionLog()

    def __init__(
        self,
        wrapped: Any,
        *,
        secret: str | bytes | Sequence[str | bytes],
        store: Store | None = None,
        name: str = "connect.sid",
        cookie: CookieOptions | Callable[[Any], CookieOptions] | None = None,
        genid: Callable[[Any], str] | None = None,
        proxy: bool | Sequence[Any] | None = None,
        resave: bool = False,
        rolling: bool = False,
        saveUninitialized: bool = False,
        unset: Literal["keep", "destroy"] = "keep",
        ttl: Duration = 86400,
        absoluteTimeout: Duration | None = None,
        touchInterval: Duration | None = None,
        onConflict: Literal["merge", "overwrite", "error"] = "merge",
        lazy: bool = False,
        cacheHeaders: bool = True,
        storeTimeout: Duration = 10,
        storeDown: Literal["error", "anonymous"] = "error",
        onError: OnError | None = None,
        reactor: Any | None = None,
    ) -> None:
        self._wrapped = _asResource(wrapped)
        signer = Signer(secret)
        self._cookie = _checkCookie(cookie, name)
        self._name = name.encode("ascii")
        self._onError = _checkCallable("onError", onError)
        policy = Policy(
            name=name,
            genid=_checkCallable("genid", genid),
            proxy=_asNetworks(proxy),
            resave=_checkFlag("resave", resave),
            rolling=_checkFlag("rolling", rolling),
            saveUninitialized=_checkFlag("saveUninitialized", saveUninitialized),
            unset=_checkChoice("unset", unset, ("keep", "destroy")),
            ttl=asSeconds(ttl, "ttl"),
            absoluteTimeout=_optional(asSeconds, absoluteTimeout, "absoluteTimeout"),
            touchInterval=_optional(_asInterval, touchInterval, "touchInterval"),
            onConflict=_checkChoice(
                "onConflict", onConflict, ("merge", "overwrite", "error")
            ),
            lazy=_checkFlag("lazy", lazy),
            cacheHeaders=_checkFlag("cacheHeaders", cacheHeaders),
            storeTimeout=asSeconds(storeTimeout, "storeTimeout"),
            storeDown=_checkChoice("storeDown", storeDown, ("error", "anonymous")),
        )
        _checkReactor(reactor)
        if store is None:
            store = MemoryStore(reactor=reactor)
            self._log.info(
                "Sessions are kept in the memory of this process: they are lost when "
                "it ends, and no other process sees them.  Give SessionResource "
                "another store=... for more than that."
            )
        self._exchange = Exchange(
            policy, signer, self._log, _checkStore(store), reactor
        )
        self._warnOfMilliseconds("ttl", policy.ttl)
        if isinstance(self._cookie, CookieOptions):
            self._warnOfMilliseconds("cookie.maxAge", self._cookie.maxAge or 0)
            _checkDate(self._cookie, time() if reactor is None else reactor.seconds())
        self._responder = response.Responder(self._showError, policy.cacheHeaders)

    def _warnOfMilliseconds(self, option: str, seconds: float) -> None:
        # Browsers keep no cookie for longer (RFC 6265bis 5.5).
        if seconds > 400 * 86400:
            self._log.warn(
                "{option} is {days} days.  It is in seconds, not in milliseconds.",
                option=option,
                days=round(seconds / 86400),
            )

    @property
    def store(self) -> Any:
        """
        The store that the sessions are kept in.
        """
        return self._exchange.backend.store

    # IResource

    def render(self, request: Any) -> int:
        """
        Have the wrapped resource answer, with a session.
        """
        if response.isTaken(request):
            response.render(request, self._wrapped)
            return NOT_DONE_YET
        cookie = self._cookie
        options = cookie if isinstance(cookie, CookieOptions) else self._ask(request)
        if options.path == "/" or _isBelow(request, options.path):
            self._serve(request, options)
        else:
            response.render(request, self._wrapped)
        return NOT_DONE_YET

    def getChildWithDefault(self, name: bytes, request: Any) -> IResource:
        """
        This resource itself, which has to see the request first; what C{name}
        stands for is found when it renders.
        """
        request.postpath.insert(0, request.prepath.pop())
        return self

    def putChild(self, path: bytes, child: IResource) -> None:
        """
        @raise TypeError: always; children belong to the wrapped resource.
        """
        raise TypeError("put the child on the resource that is wrapped")

    # The way through.

    def _ask(self, request: Any) -> CookieOptions:
        options = self._cookie(request)
        if not isinstance(options, CookieOptions):
            raise ConfigurationError(
                f"the callable must return CookieOptions, not {options!r}",
                option="cookie",
            )
        checkName(self._exchange.policy.name, options)
        return options

    def _serve(self, request: Any, options: CookieOptions) -> None:
        exchange = self._exchange
        policy = exchange.policy
        if policy.storeDown == "anonymous" and not exchange.backend.isAvailable():
            self._serveAnonymously(request)
            return
        headers = request.requestHeaders.getRawHeaders(b"cookie")
        verified = None if headers is None else self._verify(headers)
        session = Session(exchange, options, ref(request))
        if policy.lazy:
            session._barrier = SessionNotLoaded
        elif verified is not None:
            self._load(request, session, verified)
            return
        if verified is not None:
            session._presented, session._stale = verified
        self._serveWith(request, session)

    def _verify(self, headers: list[bytes]) -> Verified | None:
        for value in readCookies(headers, self._name):
            verified = self._exchange.signer.verify(value)
            if verified is not None:
                return verified
        return None

    def _load(self, request: Any, session: Session, verified: Verified) -> None:
        exchange = self._exchange
        sid, session._stale = verified
        try:
            answer: Any = exchange.fetch(sid)
            isLoading = type(answer) is Deferred
            if not isLoading:
                exchange.furnish(session, sid, answer)
        except Exception:
            self._loadFailed(request, Failure())
            return
        if not isLoading:
            self._serveWith(request, session)
            return

        def furnish(record: Record | None) -> Session:
            exchange.furnish(session, sid, record)
            return session

        response.load(
            request, answer.addCallback(furnish), self._serveWith, self._loadFailed
        )

    def _serveWith(self, request: Any, session: Session) -> None:
        response.attach(request, session, self._responder)
        response.render(request, self._wrapped)

    def _serveAnonymously(self, request: Any) -> None:
        response.pass_(request)
        response.render(request, self._wrapped)

    def _loadFailed(self, request: Any, failure: Failure) -> None:
        if self._exchange.policy.storeDown == "anonymous" and isOutage(failure.value):
            self._log.warn(
                "The session of {request} could not be loaded, so it is served "
                "without one: {error}",
                request=request,
                error=failure.getErrorMessage(),
            )
            failure.cleanFailure()
            self._serveAnonymously(request)
        else:
            response.refuse(request, failure, self._showError)

    # Errors

    def _showError(self, request: Any, failure: Failure) -> None:
        self._log.failure(
            "The session of {request!r} could not be loaded or saved.",
            failure,
            request=request,
        )
        if self._onError is None:
            _finish(request, _page(request))
            failure.cleanFailure()
            return
        asking = Deferred.fromCoroutine(self._askOnError(request, failure))
        asking.addErrback(self._onErrorFailed, request)
        # The frames that a failure remembers would keep the request alive.
        asking.addCallback(lambda _: failure.cleanFailure())

    async def _askOnError(self, request: Any, failure: Failure) -> None:
        assert self._onError is not None
        answer = self._onError(request, failure)
        if isinstance(answer, Deferred) or iscoroutine(answer):
            answer = await answer
        if answer == NOT_DONE_YET:
            return
        if not isinstance(answer, bytes):
            raise TypeError(
                "onError must return bytes, NOT_DONE_YET, or a Deferred or "
                f"coroutine of either, not {type(answer).__name__}"
            )
        _finish(request, answer)

    def _onErrorFailed(self, failure: Failure, request: Any) -> None:
        self._log.failure("onError failed, so the built-in page is shown.", failure)
        failure.cleanFailure()
        if request._disconnected or request.finished:
            return
        if request.startedWriting:
            response.cutShort(request)
        else:
            _finish(request, _page(request))


def _isBelow(request: Any, path: str) -> bool:
    return isPathMatch(uriPath(request.path), path.encode("ascii"))


def _finish(request: Any, body: bytes) -> None:
    if request._disconnected or request.finished:
        return
    request.setHeader(b"Content-Length", b"%d" % len(body))
    request.write(body)
    request.finish()


def _page(request: Any) -> bytes:
    request.setHeader(b"Content-Type", b"text/html; charset=utf-8")
    request.setHeader(b"Cache-Control", b"no-store")
    title = f"{request.code} {request.code_message.decode('ascii')}"
    return (
        f"<!DOCTYPE html><html lang=en><title>{title}</title>"
        f"<h1>{title}</h1><p>Your session could not be read or stored."
        f"{' Please try again in a moment.' * (request.code == 503)}</p></html>\n"
    ).encode("ascii")


# Checking the options.


def _asResource(wrapped: Any) -> IResource:
    if IResource.providedBy(wrapped):
        return wrapped
    make = getattr(wrapped, "resource", None)
    resource = make() if callable(make) and not isinstance(wrapped, type) else None
    if not IResource.providedBy(resource):
        raise ConfigurationError(
            f"must be an IResource, or an object whose resource() gives one (a Klein "
            f"app is), not {wrapped!r}",
            option="wrapped",
        )
    return resource


_DEFAULT_COOKIE = CookieOptions()


def _checkCookie(cookie: Any, name: str) -> Any:
    if cookie is None:
        cookie = _DEFAULT_COOKIE
    if isinstance(cookie, CookieOptions):
        checkName(name, cookie)
    elif callable(cookie) and not isinstance(cookie, type):
        checkName(name, CookieOptions(secure=True))
    else:
        raise ConfigurationError(
            f"must be CookieOptions(...) or a callable that returns them, "
            f"not {cookie!r}",
            option="cookie",
        )
    return cookie


def _checkDate(options: CookieOptions, now: float) -> None:
    if options.expires is None:
        return
    if options.expires.timestamp() <= now:
        raise ConfigurationError(
            f"{options.expires.isoformat()} has passed; use maxAge for a lifetime "
            "that begins anew with each session",
            option="cookie.expires",
        )


def _checkCallable(option: str, value: Any) -> Any:
    if value is not None and not callable(value):
        raise ConfigurationError(f"must be a callable, not {value!r}", option=option)
    return value


def _checkFlag(option: str, value: Any) -> bool:
    if value is not True and value is not False:
        raise ConfigurationError(f"must be True or False, not {value!r}", option=option)
    return value


def _checkChoice(option: str, value: Any, choices: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in choices:
        raise ConfigurationError(
            f"must be one of {', '.join(map(repr, choices))}, not {value!r}",
            option=option,
        )
    return value


def _optional(
    check: Callable[[object, str], float], value: object, option: str
) -> float | None:
    return None if value is None else check(value, option)


def _asInterval(value: object, option: str) -> float:
    seconds = asSeconds(value, option, positive=False)
    if seconds < 0:
        raise ConfigurationError(
            f"must not be negative; 0 means every request, not {value!r}",
            option=option,
        )
    return seconds


def _asNetworks(proxy: Any) -> Literal[True] | tuple[Network, ...]:
    if proxy is True:
        return True
    if proxy is None or proxy is False:
        return ()
    if isinstance(proxy, (str, bytes)) or not isinstance(proxy, Sequence):
        raise ConfigurationError(
            "must be None, False, True or a list of IP networks, as in "
            f'["10.0.0.0/8"], not {proxy!r}',
            option="proxy",
        )
    try:
        return tuple(ip_network(network) for network in proxy)
    except ValueError as error:
        raise ConfigurationError(
            f'must list IP networks, as in ["10.0.0.0/8"]: {error}', option="proxy"
        ) from error


def _checkReactor(reactor: Any) -> None:
    if reactor is not None and not (
        callable(getattr(reactor, "seconds", None))
        and callable(getattr(reactor, "callLater", None))
    ):
        raise ConfigurationError(
            f"must provide IReactorTime, not {reactor!r}", option="reactor"
        )


def _checkStore(store: Any) -> Any:
    missing = [
        method
        for method in ("get", "set", "destroy")
        if not callable(getattr(store, method, None))
    ]
    if isinstance(store, str):
        # Which may hold a password, so it is not shown.
        raise ConfigurationError(
            "must be a store, not a str; storeFromURL(url) makes one", option="store"
        )
    if missing or isinstance(store, type):
        raise ConfigurationError(
            "must be a store, with the methods get, set and destroy, not "
            f"{getattr(store, '__name__', type(store).__name__)}",
            option="store",
        )
    return store
