"""
`txsession.klein`, with Klein's own forms and authorizations.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from klein import Authorization, Field, Form, Klein, RequestComponent, Requirer
from klein.interfaces import IDependencyInjector, IRequiredParameter, SessionMechanism
from klein.interfaces import ISession as IKleinSession
from twisted.internet.defer import Deferred, succeed
from twisted.web.template import Element, Tag, TagLoader, renderer, tags
from zope.interface import Interface, implementer
from zope.interface.verify import verifyClass, verifyObject

from txsession import (
    ConfigurationError,
    CookieOptions,
    ISession,
    MemoryStore,
    NoSession,
    SessionDestroyed,
    SessionResource,
    StoreUnavailable,
    getSession,
)
from txsession.klein import KleinSession, SessionParameter, sessionPrerequisite
from txsession.stores.sqlite import SQLiteStore

from .support import (
    SECRET,
    Browser,
    Reply,
    Serve,
    StepStore,
    called,
    clockAt,
    patiently,
    stepping,
)
from .test_docs import Visitor
from .test_docs import run as runPage

REQUEST = RequestComponent(IKleinSession)
"""
Klein's session, as a parameter of a route.
"""


def makeApp(**options: Any) -> tuple[Klein, Requirer]:
    app, requirer = Klein(), Requirer()
    sessionPrerequisite(requirer, **options)
    return app, requirer


def notes(**options: Any) -> Klein:
    """
    An app with a form, in which the visitor takes a note.
    """
    app, requirer = makeApp(**options)

    @requirer.require(
        app.route("/take", methods=["POST"]),
        session=SessionParameter(),
        note=Field.text(),
    )
    def take(session: Any, note: str) -> str:
        session["note"] = note
        return f"Noted: {note}"

    @requirer.require(app.route("/"), form=Form.rendererFor(take, action="/take"))
    def show(form: Any) -> Any:
        return form

    @requirer.require(app.route("/login", methods=["POST"]), session=SessionParameter())
    async def logIn(session: Any) -> str:
        await session.regenerate(keepData=True)
        session["user"] = "ada"
        return "Hello."

    @requirer.require(
        app.route("/anew", methods=["POST"]),
        session=SessionParameter(),
        form=Form.rendererFor(take, action="/take"),
    )
    async def beginAnew(session: Any, form: Any) -> Any:
        await session.regenerate()
        return form

    @requirer.require(
        app.route("/logout", methods=["POST"]), session=SessionParameter()
    )
    async def logOut(session: Any) -> str:
        await session.destroy()
        return "Goodbye."

    @requirer.require(app.route("/note"), session=SessionParameter())
    def read(session: Any) -> str:
        return session.get("note", "nothing")

    return app


def tokenIn(reply: Reply) -> str:
    """
    The token of the form on a page.
    """
    found = re.findall(r'name="__csrf_protection__" value="([^"]*)"', reply.text)
    assert len(found) == 1, reply.text
    return found[0]


async def take(browser: Browser, token: str | None, note: str = "tea") -> Reply:
    """
    Send the form of the notes.
    """
    data = {"note": note}
    if token is not None:
        data["__csrf_protection__"] = token
    return await browser.post("/take", data=data)


# Importing.


def test_importingTxsessionImportsNoKlein() -> None:
    """
    Klein, which installs a reactor, is imported by txsession.klein alone.
    """
    code = (
        "import sys, txsession\n"
        "assert not {'klein', 'twisted.internet.reactor'} & set(sys.modules)\n"
        "import txsession.klein\n"
        "assert 'klein' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# The session as a parameter.


@pytest_twisted.ensureDeferred
async def test_aRouteIsGivenItsSession(serve: Serve) -> None:
    """
    SessionParameter injects the request's session; nothing else is needed.
    """
    app, requirer = Klein(), Requirer()

    @requirer.require(app.route("/<name>"), session=SessionParameter())
    def count(session: Any, name: str) -> str:
        session[name] = session.get(name, 0) + 1
        return str(dict(session))

    browser = serve(app.resource()).browser()
    await browser.get("/one")
    assert (await browser.get("/one")).text == "{'one': 2}"


@pytest_twisted.ensureDeferred
async def test_anAppBoundToAnInstanceIsGivenItsSession(serve: Serve) -> None:
    """
    It makes no difference whether the routes are functions or methods.
    """

    class Shop:
        app = Klein()
        requirer = Requirer()
        sessionPrerequisite(requirer)

        @requirer.require(app.route("/take", methods=["POST"]), note=Field.text())
        def take(self, note: str) -> str:
            return f"Noted: {note}"

        @requirer.require(
            app.route("/"),
            session=SessionParameter(),
            form=Form.rendererFor(take, action="/take"),
        )
        def show(self, session: Any, form: Any) -> Any:
            session["shown"] = True
            return form

    served = serve(Shop().app.resource())
    browser = served.browser()
    page = await browser.get("/")
    cookie = page.cookie()
    assert cookie is not None
    assert await served.data(cookie.sid) == {"shown": True}
    assert (await take(browser, tokenIn(page))).text == "Noted: tea"


@pytest_twisted.ensureDeferred
async def test_aLazySessionIsLoadedFirst(serve: Serve) -> None:
    """
    With lazy=True, the session that is injected has been loaded.
    """
    app, requirer = Klein(), Requirer()

    @app.route("/")
    def nothing(request: Any) -> str:
        return ""

    @requirer.require(app.route("/count"), session=SessionParameter())
    def count(session: Any) -> str:
        session["views"] = session.get("views", 0) + 1
        return str(session["views"])

    served, store = stepping(serve, app.resource(), lazy=True)
    browser = served.browser()
    assert [(await browser.get("/count")).text for _ in range(2)] == ["1", "2"]
    loads = store.calls.count("get")
    await browser.get("/")
    assert store.calls.count("get") == loads == 1


@pytest_twisted.ensureDeferred
async def test_aLazySessionThatCannotBeLoadedIsAnOutage(
    serve: Serve, logged: list[Any]
) -> None:
    """
    With lazy=True, a store that fails while the session is loaded for a route
    is answered with 503, as it is without lazy.
    """
    served, store = stepping(serve, notes().resource(), lazy=True)
    browser = served.browser()
    await browser.get("/")
    store.held = {"get"}
    for path in ("/", "/note"):
        answer = Deferred.fromCoroutine(browser.get(path))
        (await called(store, "get")).fail(StoreUnavailable("it is down"))
        assert (await patiently(answer)).status == 503


@pytest_twisted.ensureDeferred
async def test_withoutASessionResourceThereIsNoSession(
    serve: Serve, logged: list[Any]
) -> None:
    """
    An app that is served by itself fails with NoSession, which says what to
    serve instead.
    """
    app = notes()

    @app.handle_errors(NoSession)
    def tell(request: Any, failure: Any) -> str:
        request.setResponseCode(500)
        return str(failure.value)

    browser = Browser(serve.site(app.resource()).port)
    for reply in (
        await browser.get("/"),
        await browser.get("/note"),
        await take(browser, "x"),
    ):
        assert reply.status == 500
        assert "serve the SessionResource that wraps the app" in reply.text


@pytest_twisted.ensureDeferred
async def test_aRequestOutsideTheCookiesPathHasNoSession(serve: Serve) -> None:
    """
    A route that the cookie's path does not cover fails with NoSession.
    """
    app = notes()
    app.handle_errors(NoSession)(lambda request, failure: "no session")
    served = serve(app.resource(), cookie=CookieOptions(path="/elsewhere"))
    assert (await served.browser().get("/note")).text == "no session"


@pytest.mark.parametrize("lazy", [False, True])
@pytest_twisted.ensureDeferred
async def test_aSessionThatIsNotRequiredMayBeMissing(serve: Serve, lazy: bool) -> None:
    """
    SessionParameter(required=False) injects None where the store is down and
    the request is served without a session.
    """
    app, requirer = Klein(), Requirer()

    @requirer.require(app.route("/"), session=SessionParameter(required=False))
    def show(session: Any) -> str:
        if session is None:
            return "nobody"
        session["seen"] = True
        return "somebody"

    served, store = stepping(serve, app.resource(), lazy=lazy, storeDown="anonymous")
    browser = served.browser()
    assert (await browser.get("/")).text == "somebody"
    store.held = {"get"}
    answer = Deferred.fromCoroutine(browser.get("/"))
    (await called(store, "get")).fail(StoreUnavailable("it is down"))
    assert (await patiently(answer)).text == "nobody"


# Forms.


@pytest_twisted.ensureDeferred
async def test_theFormOfANewVisitorCanBeSent(serve: Serve) -> None:
    """
    Who opens a form first is given a session by that, and can send the form.
    """
    served = serve(notes().resource())
    browser = served.browser()
    page = await browser.get("/")
    cookie = page.cookie()
    assert cookie is not None
    assert await served.data(cookie.sid) == {}
    reply = await take(browser, tokenIn(page))
    assert (reply.status, reply.text) == (200, "Noted: tea")
    assert await served.data(cookie.sid) == {"note": "tea"}


@pytest_twisted.ensureDeferred
async def test_theFormIsStoredInOneGo(serve: Serve) -> None:
    """
    A form costs one write for a new session, and none for one that is stored.
    """
    served, store = stepping(serve, notes().resource())
    browser = served.browser()
    await browser.get("/")
    assert store.calls == ["create"]
    await browser.get("/")
    assert store.calls == ["create", "get"]


@pytest_twisted.ensureDeferred
async def test_theFormWaitsUntilItsSessionIsStored(serve: Serve) -> None:
    """
    With a store that takes its time, the page leaves when the session is there.
    """
    served, store = stepping(serve, notes().resource(), "create")
    browser = served.browser()
    opening = Deferred.fromCoroutine(browser.get("/"))
    call = await called(store, "create")
    assert not opening.called
    call.release()
    page = await patiently(opening)
    assert (await take(browser, tokenIn(page))).status == 200


@pytest_twisted.ensureDeferred
async def test_noFormWithoutItsSession(serve: Serve, logged: list[Any]) -> None:
    """
    If the session of a form cannot be stored, there is an error page in place
    of a form that could not be sent.
    """
    served, store = stepping(serve, notes().resource(), "create")
    opening = Deferred.fromCoroutine(served.browser().get("/"))
    (await called(store, "create")).fail(StoreUnavailable("it is down"))
    page = await patiently(opening)
    assert (page.status, page.setCookies) == (503, [])
    assert "__csrf_protection__" not in page.text


def inMemory(directory: Path) -> tuple[Any, Any]:
    store = MemoryStore()
    return store, store


def inAFile(directory: Path) -> tuple[Any, Any]:
    path = directory / "sessions.db"
    return SQLiteStore(path), SQLiteStore(path)


@pytest.mark.parametrize("makeStores", [inMemory, inAFile])
@pytest_twisted.ensureDeferred
async def test_theFormCanBeSentAfterARestart(
    serve: Serve, tmp_path: Path, makeStores: Callable[[Path], tuple[Any, Any]]
) -> None:
    """
    What a newcomer opened before a restart can be sent after it, with a store
    that outlives the SessionResource.
    """
    before, after = makeStores(tmp_path)
    try:
        resource = SessionResource(notes(), secret=SECRET, store=before)
        browser = Browser(serve.site(resource).port)
        page = await browser.get("/")
        if before is not after:
            await before.stop()
        resource = SessionResource(notes(), secret=SECRET, store=after)
        again = Browser(serve.site(resource).port, browser.cookies)
        assert (await take(again, tokenIn(page))).text == "Noted: tea"
        assert (await again.get("/note")).text == "tea"
        assert tokenIn(await again.get("/")) == tokenIn(page)
        assert (await take(again, "0" * 64, "poison")).status == 403
    finally:
        await before.stop()
        await after.stop()


@pytest_twisted.ensureDeferred
async def test_theTokenIsTheSessionsOwn(serve: Serve) -> None:
    """
    The token is the same in all requests of a session, in every process that
    shares its store, and under another secret; and no two sessions share one.
    """
    store = MemoryStore(reactor=clockAt())
    one = serve(notes().resource(), store=store, secret="one")
    two = serve(notes().resource(), store=store, secret=["two", "one"])
    browser = one.browser()
    tokens = [tokenIn(await browser.get("/")) for _ in range(2)]
    tokens.append(tokenIn(await Browser(two.port, browser.cookies).get("/")))
    assert len(set(tokens)) == 1
    assert tokenIn(await one.browser().get("/")) != tokens[0]


@pytest_twisted.ensureDeferred
async def test_theIDIsNotInThePage(serve: Serve) -> None:
    """
    Neither the ID nor its signature nor a part of either stands in a page with
    a form, nor does a plain hash of it.
    """
    from hashlib import sha256

    page = await serve(notes().resource()).browser().get("/")
    cookie = page.cookie()
    assert cookie is not None
    token, sid = tokenIn(page), cookie.sid
    parts = {sid[n : n + 8] for n in range(len(sid) - 7)}
    assert not any(part in page.text for part in parts)
    assert cookie.value.rpartition(".")[2][:8] not in page.text
    assert re.fullmatch("[0-9a-f]{64}", token)
    assert token[:10] not in (sha256(sid.encode()).hexdigest(), sid.encode().hex())


@pytest.mark.parametrize(
    "token",
    [
        None,
        "",
        "guessed",
        "0" * 64,
        "\u00e9",
        "None",
        "<script>alert(1)</script>",
        "0" * 64 + "\n",
    ],
)
@pytest_twisted.ensureDeferred
async def test_aForgedFormChangesNothing(serve: Serve, token: str | None) -> None:
    """
    A form without its token, or with another, is answered by Klein with 403;
    the session stays as it was, and the token is not shown as HTML.
    """
    served = serve(notes().resource())
    browser = served.browser()
    page = await browser.get("/")
    await take(browser, tokenIn(page))
    cookies = dict(browser.cookies)
    reply = await take(browser, token, "poison")
    assert (reply.status, reply.phrase) == (403, b"FAILURECSRF")
    assert reply.text.startswith("CSRF TOKEN FAILURE")
    assert "<" not in reply.text
    assert (reply.setCookies, browser.cookies) == ([], cookies)
    assert (await browser.get("/note")).text == "tea"


@pytest_twisted.ensureDeferred
async def test_theTokenOfAnotherSessionIsRefused(serve: Serve) -> None:
    """
    A token is worth nothing in another session, nor is it without one.
    """
    served = serve(notes().resource())
    token = tokenIn(await served.browser().get("/"))
    other, nobody = served.browser(), served.browser()
    await other.get("/")
    assert (await take(other, token)).status == 403
    assert (await take(nobody, token)).status == 403


@pytest_twisted.ensureDeferred
async def test_aForgedFormMakesNoSession(serve: Serve) -> None:
    """
    Who sends a form without having opened it is given no session for that.
    """
    served = serve(notes().resource())
    for token in (None, "0" * 64):
        reply = await take(served.browser(), token)
        assert (reply.status, reply.setCookies) == (403, [])
    assert await served.store.length() == 0


@pytest_twisted.ensureDeferred
async def test_aHeaderIsNoSubstituteForTheToken(serve: Serve) -> None:
    """
    No header that a client sends keeps Klein from checking the token, as the
    session is always that of the cookie.
    """
    browser = serve(notes().resource()).browser()
    await browser.get("/")
    headers = {"X-Auth-Token": "x", "X-INSECURE-Auth-Token": "x"}
    reply = await browser.post("/take", data={"note": "x"}, headers=headers)
    assert reply.status == 403


@pytest_twisted.ensureDeferred
async def test_twoTabsCanSendTheSameForm(serve: Serve) -> None:
    """
    A token is good more than once, so each tab with the form can send it.
    """
    browser = serve(notes().resource()).browser()
    one, other = tokenIn(await browser.get("/")), tokenIn(await browser.get("/"))
    assert (await take(browser, one, "one")).status == 200
    assert (await take(browser, other, "other")).status == 200
    assert (await browser.get("/note")).text == "other"


@pytest_twisted.ensureDeferred
async def test_aFormFromBeforeTheLoginIsRefused(serve: Serve) -> None:
    """
    regenerate() changes the token: who may have planted the old ID knows the old
    token.  A form that was open must be opened again.
    """
    browser = serve(notes().resource()).browser()
    old = tokenIn(await browser.get("/"))
    await browser.post("/login")
    assert (await take(browser, old)).status == 403
    new = tokenIn(await browser.get("/"))
    assert new != old
    assert (await take(browser, new)).status == 200


@pytest_twisted.ensureDeferred
async def test_aFormShownAfterRegenerateBelongsToTheNewSession(serve: Serve) -> None:
    """
    A route that calls regenerate() and shows a form shows one that can be sent,
    even if nothing else was written to the new session.
    """
    browser = serve(notes().resource()).browser()
    old = tokenIn(await browser.get("/"))
    page = await browser.post("/anew")
    assert tokenIn(page) != old
    assert (await take(browser, tokenIn(page))).text == "Noted: tea"


@pytest_twisted.ensureDeferred
async def test_aFormOfADestroyedSessionIsRefused(serve: Serve) -> None:
    """
    What was open when the session was destroyed cannot be sent, and brings
    nothing back.
    """
    served = serve(notes().resource())
    browser, copy = served.browser(), served.browser()
    token = tokenIn(await browser.get("/"))
    copy.cookies.update(browser.cookies)
    await browser.post("/logout")
    assert (await take(browser, token)).status == 403
    assert (await take(copy, token)).status == 403
    assert await served.store.length() == 0


@pytest_twisted.ensureDeferred
async def test_aDestroyedSessionHasNoIdentifierAndAuthorizesNothing(
    serve: Serve,
) -> None:
    """
    After destroy(), reading the identifier fails with SessionDestroyed, and
    nothing is authorized.
    """
    app, requirer = makeApp(authorizers={IMember: lambda session: Member("x")})

    @requirer.require(app.route("/"), klein=REQUEST, session=SessionParameter())
    async def leave(klein: Any, session: Any) -> str:
        before = await klein.authorize([IMember])
        await session.destroy()
        with pytest.raises(SessionDestroyed):
            klein.identifier  # noqa: B018 - it is a property
        return f"{len(before)} {await klein.authorize([IMember])}"

    assert (await serve(app.resource()).browser().get("/")).text == "1 {}"


@pytest_twisted.ensureDeferred
async def test_onlyAFormMakesASession(serve: Serve) -> None:
    """
    A page with no form, with a form that is sent by GET, or with what such a
    form has sent, makes no session, nor does asking for authorization.
    """
    app, requirer = makeApp()

    @requirer.require(app.route("/find"), word=Field.text())
    def find(word: str) -> str:
        return f"{word}: not found"

    @requirer.require(
        app.route("/"),
        session=SessionParameter(),
        form=Form.rendererFor(find, action="/find", method="GET"),
        member=Authorization(IMember, required=False),
    )
    def show(session: Any, form: Any, member: Any) -> Any:
        return form

    served = serve(app.resource())
    for path, text in (("/", "<form"), ("/find?word=tea", "tea: not found")):
        reply = await served.browser().get(path)
        assert (reply.status, reply.setCookies) == (200, [])
        assert text in reply.text
        assert "__csrf_protection__" not in reply.text
    assert await served.store.length() == 0


@pytest_twisted.ensureDeferred
async def test_aPageWithATokenVaries(serve: Serve) -> None:
    """
    A page that holds a session's token is not one that a cache may hand to
    others.
    """
    browser = serve(notes().resource()).browser()
    for _ in range(2):
        assert (await browser.get("/")).header("Vary") == "Cookie"


@pytest_twisted.ensureDeferred
async def test_anIdentifierThatIsReadMakesASession(serve: Serve) -> None:
    """
    A form of one's own can be written with the identifier, and with glue().
    """
    app, requirer = makeApp()

    @requirer.require(app.route("/take", methods=["POST"]), note=Field.text())
    def take_(note: str) -> str:
        return f"Noted: {note}"

    @requirer.require(app.route("/token"), klein=REQUEST)
    def token(klein: Any) -> str:
        return str(klein.identifier)

    @requirer.require(app.route("/glue"), form=Form.rendererFor(take_, action=""))
    def glue(form: Any) -> Any:
        return Element(TagLoader(tags.form(form.glue())))

    served = serve(app.resource())
    browser = served.browser()
    assert (await take(browser, (await browser.get("/token")).text)).status == 200
    browser = served.browser()
    assert (await take(browser, tokenIn(await browser.get("/glue")))).status == 200


@pytest_twisted.ensureDeferred
async def test_anIdentifierThatIsReadTooLateIsRefused(
    serve: Serve, logged: list[Any]
) -> None:
    """
    In the middle of a page, where a new session can no longer be stored, reading
    the identifier fails, rather than giving a token that is worth nothing.
    """
    app, requirer = makeApp()

    class Late(Element):
        loader = TagLoader(tags.p(render="token"))

        def __init__(self, klein: Any) -> None:
            super().__init__()
            self.klein = klein

        @renderer
        def token(self, request: Any, tag: Tag) -> Tag:
            return tag(self.klein.identifier)

    @requirer.require(app.route("/"), klein=REQUEST)
    def show(klein: Any) -> Any:
        return Late(klein)

    served = serve(app.resource())
    await served.browser().get("/")
    [failure] = [e["log_failure"] for e in logged if "log_failure" in e]
    assert "HeadersAlreadySent" in str(failure.value)
    assert await served.store.length() == 0


@pytest_twisted.ensureDeferred
async def test_aCookieThatCannotBeSentMakesNoSession(serve: Serve) -> None:
    """
    Over plain HTTP, where the cookie must be Secure, the page is shown, and
    nothing is stored for a form that cannot be sent.
    """
    served = serve(notes().resource(), cookie=CookieOptions(secure=True))
    page = await served.browser().get("/")
    assert (page.status, page.setCookies) == (200, [])
    assert tokenIn(page)
    assert await served.store.length() == 0


@pytest.mark.parametrize("lazy", [False, True])
@pytest_twisted.ensureDeferred
async def test_noFormWhileTheStoreIsDown(serve: Serve, lazy: bool) -> None:
    """
    With storeDown="anonymous", a route fails with NoSession where it needs a
    token, which the app can answer; the others are served.
    """
    app = notes()

    @app.handle_errors(NoSession)
    def sorry(request: Any, failure: Any) -> str:
        request.setResponseCode(503)
        return "Please come back in a moment."

    store = StepStore(MemoryStore(reactor=clockAt()))
    served = serve(app.resource(), store=store, lazy=lazy, storeDown="anonymous")
    browser = served.browser()
    token = tokenIn(await browser.get("/"))
    store.held = {"get"}
    for asking in (browser.get("/"), take(browser, token), browser.get("/note")):
        answer = Deferred.fromCoroutine(asking)
        (await called(store, "get")).fail(StoreUnavailable("it is down"))
        reply = await patiently(answer)
        assert (reply.status, reply.setCookies) == (503, [])
        assert reply.text == "Please come back in a moment."


# Authorization.


class IMember(Interface):
    """
    Somebody who is logged in.
    """


class IEditor(Interface):
    """
    Somebody who may write.
    """


@implementer(IMember)
class Member:
    def __init__(self, name: str) -> None:
        self.name = name


def memberOf(session: Any) -> Member | None:
    return Member(session["user"]) if "user" in session else None


async def memberSoon(session: Any) -> Member | None:
    return await succeed(memberOf(session))


def club(authorizers: Any) -> Klein:
    """
    An app with a page for members.
    """
    app, requirer = makeApp(authorizers=authorizers)

    @app.route("/login", methods=["POST"])
    def logIn(request: Any) -> str:
        getSession(request)["user"] = "ada"
        return ""

    @requirer.require(app.route("/members"), member=Authorization(IMember))
    def members(member: Any) -> str:
        return f"Welcome back, {member.name}."

    @requirer.require(
        app.route("/"),
        member=Authorization(IMember, required=False),
        editor=Authorization(IEditor, required=False),
    )
    def home(member: Any, editor: Any) -> str:
        return f"{member and member.name} {editor}"

    @requirer.require(
        app.route("/secret"),
        member=Authorization(IMember, whenDenied=lambda *_: "Who are you?"),
    )
    def secret(member: Any) -> str:
        return "Hush."

    return app


@pytest.mark.parametrize(
    "authorizer",
    [memberOf, lambda session: succeed(memberOf(session)), memberSoon],
    ids=["at once", "Deferred", "coroutine"],
)
@pytest_twisted.ensureDeferred
async def test_authorizersSayWhoMay(
    serve: Serve, authorizer: Callable[[Any], Any]
) -> None:
    """
    What an authorizer returns for the session is what a route is given; where
    that is None, Klein denies it with 401, and no session is made.
    """
    served = serve(club({IMember: authorizer}).resource())
    browser = served.browser()
    denied = await browser.get("/members")
    assert (denied.status, denied.setCookies) == (401, [])
    assert denied.text == "tests.test_klein.IMember DENIED"
    assert (await browser.get("/secret")).text == "Who are you?"
    assert (await browser.get("/")).text == "None None"
    assert await served.store.length() == 0
    await browser.post("/login")
    assert (await browser.get("/members")).text == "Welcome back, ada."
    assert (await browser.get("/secret")).text == "Hush."
    assert (await browser.get("/")).text == "ada None"


@pytest_twisted.ensureDeferred
async def test_withoutAuthorizersNobodyMay(serve: Serve) -> None:
    """
    An interface that has no authorizer is denied to everybody.
    """
    browser = serve(club(None).resource()).browser()
    await browser.post("/login")
    assert (await browser.get("/members")).status == 401


@pytest_twisted.ensureDeferred
async def test_anAuthorizerThatFailsLetsNobodyIn(
    serve: Serve, logged: list[Any]
) -> None:
    """
    An exception of an authorizer is one of the application: 500, and not taken
    for a yes or no.
    """

    async def broken(session: Any) -> None:
        raise ZeroDivisionError

    browser = serve(club({IMember: broken}).resource()).browser()
    assert (await browser.get("/members")).status == 500
    assert (await browser.get("/")).status == 500


@pytest_twisted.ensureDeferred
async def test_whatAnAuthorizerWritesIsSaved(serve: Serve) -> None:
    """
    An authorizer has the session itself, loaded, and may write to it.
    """

    def count(session: Any) -> Member:
        session["asked"] = session.get("asked", 0) + 1
        return Member(str(session["asked"]))

    browser = serve(club({IMember: count}).resource(), lazy=True).browser()
    for n in (1, 2):
        assert (await browser.get("/members")).text == f"Welcome back, {n}."


@pytest_twisted.ensureDeferred
async def test_nobodyIsAuthorizedWhileTheStoreIsDown(serve: Serve) -> None:
    """
    With storeDown="anonymous", a route that needs an authorization is denied,
    and one that can do without is served.
    """
    served, store = stepping(
        serve, club({IMember: memberOf}).resource(), storeDown="anonymous"
    )
    browser = served.browser()
    await browser.post("/login")
    store.held = {"get"}
    for path, status in (("/members", 401), ("/", 200)):
        answer = Deferred.fromCoroutine(browser.get(path))
        (await called(store, "get")).fail(StoreUnavailable("it is down"))
        assert (await patiently(answer)).status == status


@pytest.mark.parametrize(
    "authorizers",
    [[memberOf], {"IMember": memberOf}, {IMember: "ada"}, {Member: memberOf}, 3],
)
def test_authorizersThatAreNoneAreRefused(authorizers: Any) -> None:
    """
    What does not map interfaces to callables is said to be wrong at once.
    """
    with pytest.raises(ConfigurationError, match="authorizers: must map interfaces"):
        sessionPrerequisite(Requirer(), authorizers=authorizers)


def test_thePrerequisiteIsNoDecorator() -> None:
    """
    A call of sessionPrerequisite is all there is to do.
    """
    assert sessionPrerequisite(Requirer()) is None  # type: ignore[func-returns-value]


# The rest of what Klein asks of a session.


@pytest.mark.parametrize(
    ("isSecure", "secure", "isConfidential"),
    [
        (True, "auto", True),
        (True, True, True),
        (True, False, False),
        (False, "auto", False),
        (False, True, False),
        (False, False, False),
    ],
)
@pytest_twisted.ensureDeferred
async def test_aSessionIsConfidentialOverHTTPS(
    serve: Serve, isSecure: bool, secure: Any, isConfidential: bool
) -> None:
    """
    A session is confidential if its request came over HTTPS, by the word of a
    trusted proxy too, and its cookie goes over nothing else.
    """
    app, requirer = makeApp()

    @requirer.require(app.route("/"), klein=REQUEST)
    def show(klein: Any) -> str:
        assert klein.authenticatedBy is SessionMechanism.Cookie
        return str(klein.isConfidential)

    served = serve(app.resource(), proxy=True, cookie=CookieOptions(secure=secure))
    headers = {"X-Forwarded-Proto": "https"} if isSecure else {}
    reply = await served.browser().get("/", headers=headers)
    assert reply.text == str(isConfidential)


def test_whatIsGivenToKleinIsWhatItAsksFor() -> None:
    """
    Klein's interfaces are provided in full.
    """
    parameter = SessionParameter()
    assert verifyObject(IRequiredParameter, parameter)
    assert verifyObject(IDependencyInjector, parameter)
    assert verifyClass(IKleinSession, KleinSession)


@pytest_twisted.ensureDeferred
async def test_itsReprShowsNoID(serve: Serve) -> None:
    """
    Neither the ID nor the token is in the repr.
    """
    app, requirer = makeApp()

    @requirer.require(app.route("/"), klein=REQUEST, session=SessionParameter())
    def show(klein: Any, session: Any) -> str:
        assert klein.identifier not in repr(klein)
        assert session.id not in repr(klein)
        return repr(klein)

    reply = await serve(app.resource()).browser().get("/")
    assert re.fullmatch("<KleinSession of <Session [0-9a-f]{10} active>>", reply.text)


@pytest_twisted.ensureDeferred
async def test_theTwoInterfacesAreTwo(serve: Serve) -> None:
    """
    txsession's ISession goes on giving the session itself.
    """
    app, requirer = makeApp()

    @requirer.require(app.route("/"), klein=REQUEST, ours=RequestComponent(ISession))
    def show(klein: Any, ours: Any) -> str:
        ours["seen"] = True
        return f"{IKleinSession.providedBy(klein)} {ISession.providedBy(klein)}"

    assert (await serve(app.resource()).browser().get("/")).text == "True False"


# The page of the documentation.


def fieldsIn(html: str) -> dict[str, str]:
    return dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', html))


@pytest_twisted.ensureDeferred
async def test_formsOfTheGuideCanBeSent() -> None:
    """
    The forms of the how-to take notes, from either page and after a mistake, and
    refuse what comes without a token.
    """
    page = runPage("docs/how-to/use-with-klein.md")
    visitor = Visitor(page["resource"])
    assert [(await visitor.get("/views")).text for _ in range(2)] == [
        "Views: 1",
        "Views: 2",
    ]
    for path in ("/", "/own"):
        form = fieldsIn((await visitor.get(path)).text)
        sent = await visitor.post("/notes", data={**form, "note": path})
        assert sent.status == 303
        forged = await visitor.post("/notes", data={"note": "poison"})
        assert forged.status == 403
    mistake = await visitor.post("/notes", data=form)
    assert (mistake.status, fieldsIn(mistake.text)) == (400, form)
    [record] = (await page["resource"].store.all()).values()
    assert b'"notes":["/","/own"]' in record.payload


@pytest_twisted.ensureDeferred
async def test_membersOfTheGuideAreAuthorized() -> None:
    """
    The authorizer of the how-to lets those in who have logged in.
    """
    visitor = Visitor(runPage("docs/how-to/use-with-klein.md")["resource"])
    assert (await visitor.get("/members")).status == 401
    form = fieldsIn((await visitor.get("/")).text)
    login = await visitor.post("/login", data={**form, "user": "ada"})
    assert login.status == 303
    assert (await visitor.get("/members")).text == "Welcome back, ada."


@pytest_twisted.ensureDeferred
async def test_theGuideAnswersWithoutASession() -> None:
    """
    The app of the how-to, served by itself, answers as the page says.
    """
    page = runPage("docs/how-to/use-with-klein.md")
    answer = await Visitor(page["app"].resource()).get("/views")
    assert (answer.status, answer.text) == (503, "Please come back in a moment.")
