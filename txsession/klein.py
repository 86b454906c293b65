"""
Sessions for what Klein's C{Requirer} hands out: parameters, forms and
authorizations.

Importing this module imports Klein, and so installs a reactor.

Klein's forms ask the request for a C{klein.interfaces.ISession} and write its
identifier into the page, as the token that has to come back with the form.  Here
that identifier follows from the session's ID.  So it takes no room in the
session, and is the same in every process and after a restart.  It is as hard to
guess as the ID: what C{genid} makes has to be hard to guess, though IDs are signed.

The token is worth nothing if its session is not stored.  That is decided when
the response begins, and Klein reads the identifier later: C{renderElement} writes
a doctype before it renders anything.  So it has to be known beforehand that a
route shows a form, and what the parameters of routes inject is looked at for
that.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from inspect import isawaitable
from typing import Any, ClassVar, cast

from attrs import define, field, frozen
from klein import RenderableForm, Requirer
from klein.interfaces import IDependencyInjector, IRequiredParameter, SessionMechanism
from klein.interfaces import ISession as IKleinSession
from twisted.internet.defer import Deferred, maybeDeferred
from zope.interface import implementer
from zope.interface.interfaces import IInterface

from .errors import ConfigurationError, NoSession, SessionDestroyed
from .resource import getSession
from .response import isTaken
from .session import BARRIERS, ISession, Session

__all__ = ["SessionParameter", "sessionPrerequisite"]

Authorizer = Callable[[Session], Any]

CONTEXT = b"txsession.klein: identifier of a session"
TOKEN = b"__csrf_protection__"
"""
The field of a form that Klein sends the identifier in.
"""


@implementer(IRequiredParameter, IDependencyInjector)
@frozen
class SessionParameter:
    """
    A parameter of a route that is the request's session::

        @requirer.require(app.route("/"), session=SessionParameter())
        def home(session):
            ...

    With C{lazy=True} the session is loaded first.  The route fails with
    L{NoSession <txsession.NoSession>} if there is none.

    @param required: C{False} to be given L{None} where the request's session was
        destroyed, or the store is down and C{storeDown="anonymous"}.
    """

    required: bool = field(default=True, kw_only=True)

    def registerInjector(
        self, injectionComponents: Any, parameterName: str, lifecycle: Any
    ) -> Any:
        """
        Inject for any parameter alike.
        """
        return self

    def injectValue(
        self, instance: Any, request: Any, routeParams: dict[str, Any]
    ) -> Deferred[Any]:
        """
        The session, once it is loaded.
        """
        if self.required:
            return getSession(request).load()
        return Deferred.fromCoroutine(_sessionOf(request))

    def finalize(self) -> None:
        """
        Nothing is left to do.
        """


def sessionPrerequisite(
    requirer: Requirer, authorizers: Mapping[Any, Authorizer] | None = None
) -> None:
    """
    Give Klein's own C{klein.interfaces.ISession} to every request that is routed
    through a requirer, so that Klein's forms and C{Authorization} work.  Call this
    before the requirer's first C{require}.

    The session is loaded first, with C{lazy=True} too.  A route that is given a
    form to be sent by POST stores the session, new or not, with its response.  A
    request that no L{SessionResource <txsession.SessionResource>} has taken fails
    with L{NoSession <txsession.NoSession>}.  One whose store is down
    (C{storeDown="anonymous"}) is authorized for nothing, and fails so only where
    a token is needed.

    @param authorizers: who may do what.  For each interface that C{Authorization}
        may ask for, a callable that is given the L{Session <txsession.Session>}
        and returns a provider of the interface, or L{None} to deny it; or a
        Deferred or coroutine of either.
    @raise ConfigurationError: C{authorizers} is not such a mapping.
    """
    checked = _checkAuthorizers(authorizers)
    _watchForms(requirer)

    @requirer.prerequisite([IKleinSession])
    async def provide(*arguments: Any) -> None:
        # Before it comes the object that the app is bound to, if there is one.
        request = arguments[-1]
        _disarm(request)
        session = await _sessionOf(request)
        isSafe = request.method in (b"GET", b"HEAD")
        request.setComponent(IKleinSession, KleinSession(session, checked, isSafe))


@implementer(IKleinSession)
@define(eq=False, repr=False)
class KleinSession:
    """
    What C{klein.interfaces.ISession(request)} gives: a session as Klein knows
    them.

    @ivar authenticatedBy: always C{SessionMechanism.Cookie}, so that Klein always
        checks the token.
    """

    authenticatedBy: ClassVar[Any] = SessionMechanism.Cookie

    _session: Session | None
    _authorizers: Mapping[Any, Authorizer]
    _isSafe: bool

    def __repr__(self) -> str:
        return f"<KleinSession of {self._session!r}>"

    @property
    def identifier(self) -> str:
        """
        What stands for the session in pages.  It follows from the ID, and the ID
        does not follow from it.  Reading it in a GET stores the session with the
        response.

        @raise NoSession: the request has no session.
        @raise SessionDestroyed: it was destroyed.
        @raise HeadersAlreadySent: the session was not stored, and it is too late.
        """
        session = self._existing()
        # In other requests it is read to be compared.  Who sends a forged form
        # is not to be given a session for it.
        if self._isSafe:
            self.keep()
        sid = session.id.encode("utf-8")
        return hmac.digest(CONTEXT, sid, "sha256").hex()

    @property
    def isConfidential(self) -> bool:
        """
        Whether the request came over HTTPS, and the cookie is sent over nothing
        else.
        """
        session = self._session
        if session is None or not session._exchange.isSecure(session):
            return False
        return session.cookie.secure

    def authorize(self, interfaces: Iterable[Any]) -> Deferred[dict[Any, Any]]:
        """
        Ask the authorizers.

        @return: fires with the providers by interface, those without one left
            out; or fails with what an authorizer failed with.
        """
        return Deferred.fromCoroutine(self._authorize(interfaces))

    async def _authorize(self, interfaces: Iterable[Any]) -> dict[Any, Any]:
        granted = {}
        for interface in interfaces:
            provider = await self._ask(interface)
            if provider is not None:
                granted[interface] = provider
        return granted

    async def _ask(self, interface: Any) -> Any:
        session, authorizer = self._session, self._authorizers.get(interface)
        if authorizer is None or session is None or session._barrier is not None:
            return None
        provider = authorizer(session)
        return await provider if isawaitable(provider) else provider

    def keep(self) -> None:
        """
        Have the session stored with the response, even if nothing is written to
        it, since the page will hold its identifier.

        @raise HeadersAlreadySent: it is too late for that.
        """
        session = self._existing()
        if session._kept:
            return
        exchange = session._exchange
        if session._record is None and exchange._isOutOfReach(session):
            raise exchange._tooLate(session, "identify")
        session._accessed = session._kept = True

    def _existing(self) -> Session:
        session = self._session
        if session is None:
            raise NoSession(
                "this request has no session that a form could belong to: it was "
                "destroyed or unset, or the store is down and storeDown='anonymous'"
            )
        if session._barrier is SessionDestroyed:
            raise SessionDestroyed(BARRIERS[SessionDestroyed])
        return session


async def _sessionOf(request: Any) -> Session | None:
    """
    The request's session, loaded; or L{None} if it was taken but has none.

    @raise NoSession: no L{SessionResource <txsession.SessionResource>} took it.
    """
    session = cast("Session | None", ISession(request, None))
    if session is None:
        return None if isTaken(request) else getSession(request)
    try:
        return await session.load()
    except NoSession:
        return None


def _disarm(request: Any) -> None:
    """
    Empty a token that cannot be one.  Klein writes a wrong token into the HTML of
    its answer as it is, and fails if it is not ASCII.
    """
    tokens = request.args.get(TOKEN)
    if tokens and not re.fullmatch(rb"[0-9a-f]{64}", tokens[0]):
        request.args[TOKEN] = [b""]


def _checkAuthorizers(authorizers: Any) -> dict[Any, Authorizer]:
    if authorizers is None:
        return {}
    if not isinstance(authorizers, Mapping) or not all(
        IInterface.providedBy(interface) and callable(authorizer)
        for interface, authorizer in authorizers.items()
    ):
        raise ConfigurationError(
            "must map interfaces to callables that are given the session, as in "
            f"{{IAdmin: adminOf}}, not {authorizers!r}",
            option="authorizers",
        )
    return dict(authorizers)


# Forms.


def _watchForms(requirer: Requirer) -> None:
    """
    Have the session kept by each route of a requirer that is given a form.
    """
    require = requirer.require

    @wraps(require)
    def watching(routeDecorator: Any, **parameters: Any) -> Any:
        watched = {name: _Watched(each) for name, each in parameters.items()}
        return require(routeDecorator, **watched)

    # A requirer tells nobody which parameters its routes have, and a form tells
    # nobody that it is injected.
    requirer.require = watching  # type: ignore[method-assign]


@implementer(IRequiredParameter)
@frozen
class _Watched:
    """
    A parameter of a route, watched for forms.
    """

    _parameter: Any

    def registerInjector(
        self, injectionComponents: Any, parameterName: str, lifecycle: Any
    ) -> Any:
        return _WatchedInjector(
            self._parameter.registerInjector(
                injectionComponents, parameterName, lifecycle
            )
        )


@implementer(IDependencyInjector)
@frozen
class _WatchedInjector:
    _injector: Any

    def injectValue(
        self, instance: Any, request: Any, routeParams: dict[str, Any]
    ) -> Deferred[Any]:
        injecting: Deferred[Any] = maybeDeferred(
            self._injector.injectValue, instance, request, routeParams
        )
        return injecting.addCallback(_keepFor, request)

    def finalize(self) -> None:
        self._injector.finalize()


def _keepFor(value: Any, request: Any) -> Any:
    session = request.getComponent(IKleinSession)
    if _isProtected(value) and isinstance(session, KleinSession):
        session.keep()
    return value


def _isProtected(value: Any) -> bool:
    # Klein writes no token into a form that is sent by GET.
    return isinstance(value, RenderableForm) and value._method.lower() == "post"
