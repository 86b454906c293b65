"""
The examples, each driven over HTTP as a browser would.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import pytest_twisted
from attrs import define, field
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.web.template import flattenString, tags

from examples import counter, login, plain_resource, serving
from examples.page import page
from txsession import MemoryStore, SessionResource, StoreUnavailable

from .support import Browser, Reply, Serve, StepStore, clockAt

ROOT = Path(__file__).parent.parent


def visit(serve: Serve, resource: SessionResource) -> Browser:
    """
    A new browser, in front of the resource as the example serves it.
    """
    return Browser(serve.site(resource).port)


# The counter.


def views(reply: Reply) -> str:
    found = re.search("viewed this page <strong>(.*)</strong>", reply.text)
    assert found is not None, reply.text
    return found[1]


@pytest_twisted.ensureDeferred
async def test_theCounterCountsEachPageForItself(serve: Serve) -> None:
    """
    Each page tells how often this browser has viewed it, and no other page.
    """
    browser = visit(serve, counter.resource)
    paths = ["/foo", "/foo", "/bar", "/", "/foo", "/"]
    seen = [views(await browser.get(path)) for path in paths]
    assert seen == ["1 time", "2 times", "1 time", "1 time", "3 times", "2 times"]


@pytest_twisted.ensureDeferred
async def test_theCounterCountsEachVisitorForItself(serve: Serve) -> None:
    """
    Two browsers have a count each.
    """
    one, other = visit(serve, counter.resource), visit(serve, counter.resource)
    await one.get("/foo")
    await one.get("/foo")
    assert views(await other.get("/foo")) == "1 time"


@pytest_twisted.ensureDeferred
async def test_theCounterMakesNoSessionWhereThereIsNoPage(serve: Serve) -> None:
    """
    A page that does not exist is not found, and sets no cookie.
    """
    reply = await visit(serve, counter.resource).get("/nowhere")
    assert (reply.status, reply.setCookies) == (404, [])


# The counter, as a program.


@define(eq=False)
class Program(ProcessProtocol):
    """
    A program that was started.

    @ivar announced: fires with the line that tells its address.
    @ivar ended: fires with its exit code and what it wrote.
    """

    announced: Deferred[str] = field(factory=Deferred)
    ended: Deferred[tuple[int | None, str, str]] = field(factory=Deferred)
    out: str = ""
    err: str = ""

    def outReceived(self, data: bytes) -> None:
        self.out += data.decode()
        found = re.search(r"^.*http://.*\n", self.out, re.MULTILINE)
        if found and not self.announced.called:
            self.announced.callback(found[0])

    def errReceived(self, data: bytes) -> None:
        self.err += data.decode()

    def processEnded(self, reason: Failure) -> None:
        if not self.announced.called:
            self.announced.errback(AssertionError(self.out + self.err))
        status: Any = reason.value
        self.ended.callback((status.exitCode, self.out, self.err))


def run(*arguments: str, **environment: str) -> Program:
    """
    Start C{python -m} with these arguments in the top directory.
    """
    program = Program()
    inherited = {k: v for k, v in os.environ.items() if k != "TXSESSION_SECRET"}
    process: Any = reactor
    process.spawnProcess(
        program,
        sys.executable,
        [sys.executable, "-m", *arguments],
        env={**inherited, **environment},
        path=str(ROOT),
    )
    return program


def portIn(line: str) -> int:
    found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
    assert found is not None, line
    return int(found[1])


async def stop(program: Program, signal: str) -> tuple[int | None, str, str]:
    with suppress(ProcessExitedAlready):
        program.transport.signalProcess(signal)  # type: ignore[union-attr]
    return await program.ended


@pytest.mark.parametrize("signal", ["INT", "TERM"])
@pytest_twisted.ensureDeferred
async def test_theCounterRunsAsAProgram(signal: str) -> None:
    """
    C{python -m examples.counter} serves the counter at the port it announces,
    says that its secret is a random one, and ends when it is told to.
    """
    program = run("examples.counter", "0")
    try:
        browser = Browser(portIn(await program.announced))
        assert views(await browser.get("/")) == "1 time"
        assert views(await browser.get("/")) == "2 times"
    finally:
        status, out, err = await stop(program, signal)
    assert "TXSESSION_SECRET is not set" in out
    assert "Traceback" not in err
    assert (status, err.count('"GET / HTTP/1.1" 200')) == (0, 2)


@pytest_twisted.ensureDeferred
async def test_theCounterTakesItsSecretFromTheEnvironment() -> None:
    """
    With TXSESSION_SECRET the cookies are signed with that, and nothing is said
    about a random one.
    """
    program = run("examples.counter", "0", TXSESSION_SECRET="keyboard cat")
    try:
        browser = Browser(portIn(await program.announced))
        cookie = (await browser.get("/")).cookie()
    finally:
        _, out, _ = await stop(program, "TERM")
    assert cookie is not None
    assert cookie.value == signed(cookie.sid, "keyboard cat")
    assert "not set" not in out


def signed(sid: str, secret: str) -> str:
    from base64 import b64encode
    from hmac import digest
    from urllib.parse import quote

    signature = b64encode(digest(secret.encode(), sid.encode(), "sha256"))
    return quote(f"s:{sid}.{signature.decode().rstrip('=')}", safe="")


@pytest.mark.parametrize("port", ["65536", "-1", "http"])
@pytest_twisted.ensureDeferred
async def test_aPortThatIsNoneIsRefused(port: str) -> None:
    """
    What is not a port number is said to be none, without a traceback.
    """
    program = run("examples.counter", "--", port)
    program.announced.addErrback(lambda _: None)
    status, _, err = await program.ended
    assert status == 2
    assert err.endswith(f"not a port number: {port!r}\n")


@pytest_twisted.ensureDeferred
async def test_aPortThatIsTakenIsSaidToBe(serve: Serve) -> None:
    """
    If another server has the port, the program says so and ends.
    """
    taken = visit(serve, counter.resource).port
    program = run("examples.counter", str(taken))
    program.announced.addErrback(lambda _: None)
    status, _, err = await program.ended
    assert status == 1
    assert f"127.0.0.1:{taken}" in err
    assert "Name another port" in err
    assert "Traceback" not in err


def test_withoutASecretInTheEnvironmentThereIsARandomOne(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    An empty variable counts as none, and each random secret is another.
    """
    monkeypatch.setenv("TXSESSION_SECRET", "")
    one, other = serving.sessionSecret(), serving.sessionSecret()
    assert one != other
    assert min(len(one), len(other)) >= 32


# Logging in and out.


def hiddenFields(reply: Reply) -> dict[str, str]:
    return dict(
        re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', reply.text)
    )


async def openForm(browser: Browser, wanted: str | None = None) -> dict[str, str]:
    """
    Go to the login.

    @return: the fields of its form that nobody sees.
    """
    query = "" if wanted is None else "?" + urlencode({"next": wanted})
    return hiddenFields(await browser.get("/login" + query))


async def logIn(
    browser: Browser,
    user: str = "ada",
    password: str = "analytical",
    wanted: str | None = None,
    **fields: str,
) -> Reply:
    """
    Fill in the login's form, and send it.

    @param fields: what is sent in place of what the page has in hidden fields.
    """
    hidden = await openForm(browser, wanted)
    data = {**hidden, "user": user, "password": password, **fields}
    return await browser.post("/login", data=data)


def location(reply: Reply) -> tuple[int, str | None]:
    return reply.status, reply.header("Location")


@pytest_twisted.ensureDeferred
async def test_thePrivatePagesAskForALogin(serve: Serve) -> None:
    """
    Who is not logged in is sent to the login, which knows where they wanted to
    go; nothing private is shown, and no session is made for that.
    """
    browser = visit(serve, login.resource)
    reply = await browser.get("/members/minutes?page=2")
    assert location(reply) == (303, "/login?next=%2Fmembers%2Fminutes%3Fpage%3D2")
    assert (reply.body, reply.setCookies) == (b"", [])


@pytest_twisted.ensureDeferred
async def test_theWayBackLeadsToThePageThatWasWanted(serve: Serve) -> None:
    """
    After the login, the browser is sent to where it first wanted to go, and
    sees it.
    """
    browser = visit(serve, login.resource)
    toLogin = await browser.get("/members/minutes?page=2")
    form = hiddenFields(await browser.get(toLogin.header("Location") or ""))
    reply = await browser.post(
        "/login", data={**form, "user": "ada", "password": "analytical"}
    )
    assert location(reply) == (303, "/members/minutes?page=2")
    assert "Bernoulli" in (await browser.get("/members/minutes?page=2")).text


@pytest.mark.parametrize(
    ("user", "password"),
    [
        ("ada", "wrong"),
        ("ada", ""),
        ("ada", "nanosecond"),
        ("nobody", "analytical"),
        ("", ""),
        ("ada\0", "analytical"),
        ("\u00e1da", "analytical"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_aWrongPasswordIsRefused(serve: Serve, user: str, password: str) -> None:
    """
    A name and a password that do not go together log nobody in, and leave the
    session as it was.
    """
    browser = visit(serve, login.resource)
    await browser.get("/login")
    before = dict(browser.cookies)
    reply = await logIn(browser, user, password)
    assert reply.status == 403
    assert 'role="alert"' in reply.text
    assert browser.cookies == before
    assert (await browser.get("/members")).status == 303


@pytest_twisted.ensureDeferred
async def test_whoWasRefusedCanTryAgain(serve: Serve) -> None:
    """
    The page that refuses a login has the form again, with the name, and still
    knows the way back.
    """
    browser = visit(serve, login.resource)
    refused = await logIn(browser, "grace", "wrong", wanted="/members/minutes")
    assert 'name="user" value="grace"' in refused.text
    reply = await browser.post(
        "/login",
        data={**hiddenFields(refused), "user": "grace", "password": "nanosecond"},
    )
    assert location(reply) == (303, "/members/minutes")


@pytest_twisted.ensureDeferred
async def test_theIDIsNewAfterTheLogin(serve: Serve) -> None:
    """
    An ID from before the login is worth nothing after it.
    """
    browser = visit(serve, login.resource)
    before = (await browser.get("/")).cookie()
    after = (await logIn(browser)).cookie()
    assert before is not None
    assert after is not None
    assert after.sid != before.sid
    assert await login.resource.store.get(before.sid) is None
    planted = Browser(browser.port, {"connect.sid": before.value})
    assert (await planted.get("/members")).status == 303
    assert (await browser.get("/members")).status == 200


@pytest_twisted.ensureDeferred
async def test_theDataSurvivesTheLogin(serve: Serve) -> None:
    """
    What the session held before the login, it holds after it.
    """
    browser = visit(serve, login.resource)
    for _ in range(3):
        await browser.get("/")
    await logIn(browser)
    members = await browser.get("/members")
    assert "Views of the front page so far: 3." in members.text
    assert "<strong>ada</strong>" in members.text


@pytest_twisted.ensureDeferred
async def test_theTokenIsNewAfterTheLogin(serve: Serve) -> None:
    """
    A token from before the login is refused after it.
    """
    browser = visit(serve, login.resource)
    old = await openForm(browser)
    await logIn(browser)
    reply = await browser.post("/logout", data=old)
    assert (reply.status, (await browser.get("/members")).status) == (403, 200)


@pytest_twisted.ensureDeferred
async def test_whoIsLoggedInNeedNotLogInAgain(serve: Serve) -> None:
    """
    The login sends those who are logged in on their way, and does not make
    another person of them.
    """
    browser = visit(serve, login.resource)
    await logIn(browser)
    opened = await browser.get("/login?next=/members/minutes")
    assert location(opened) == (303, "/members/minutes")
    sent = await browser.post(
        "/login", data={"user": "grace", "password": "nanosecond"}
    )
    assert location(sent) == (303, "/members")
    assert "<strong>ada</strong>" in (await browser.get("/members")).text


@pytest_twisted.ensureDeferred
async def test_theLogoutEndsTheSession(serve: Serve) -> None:
    """
    After the logout the record is gone, the cookie has expired, and who kept it
    gets in no more.
    """
    browser = visit(serve, login.resource)
    reply = await logIn(browser)
    cookie = reply.cookie()
    assert cookie is not None
    form = hiddenFields(await browser.get("/members"))
    goodbye = await browser.post("/logout", data=form)
    expired = goodbye.cookie()
    assert location(goodbye) == (303, "/")
    assert expired is not None
    assert expired.isExpired
    assert await login.resource.store.get(cookie.sid) is None
    thief = Browser(browser.port, {"connect.sid": cookie.value})
    assert (await thief.get("/members")).status == 303


@pytest_twisted.ensureDeferred
async def test_theLogoutIsNoLink(serve: Serve) -> None:
    """
    A GET, which a link or a picture on another site can cause, logs nobody out.
    """
    browser = visit(serve, login.resource)
    await logIn(browser)
    assert (await browser.get("/logout")).status == 405
    assert (await browser.get("/members")).status == 200


@pytest_twisted.ensureDeferred
async def test_aSecondLogoutIsHarmless(serve: Serve) -> None:
    """
    Logging out where nobody is logged in leads to the front page.
    """
    browser = visit(serve, login.resource)
    assert location(await browser.post("/logout")) == (303, "/")


@pytest.mark.parametrize("token", ["", "guessed", "\u00e9"])
@pytest_twisted.ensureDeferred
async def test_aForgedLoginIsRefused(serve: Serve, token: str) -> None:
    """
    A login without the token of its session logs nobody in, even with the right
    password.
    """
    browser = visit(serve, login.resource)
    reply = await logIn(browser, token=token)
    assert (reply.status, reply.setCookies) == (403, [])
    assert (await browser.get("/members")).status == 303


@pytest_twisted.ensureDeferred
async def test_aLoginWithoutASessionIsRefused(serve: Serve) -> None:
    """
    A login from a browser that never opened the form, with no token, logs
    nobody in.
    """
    browser = visit(serve, login.resource)
    reply = await browser.post(
        "/login", data={"user": "ada", "password": "analytical", "token": ""}
    )
    assert reply.status == 403
    assert (await browser.get("/members")).status == 303


@pytest_twisted.ensureDeferred
async def test_theTokenOfAnotherSessionIsRefused(serve: Serve) -> None:
    """
    A token is worth nothing in another session.
    """
    browser = visit(serve, login.resource)
    foreign = (await openForm(visit(serve, login.resource)))["token"]
    assert (await logIn(browser, token=foreign)).status == 403


@pytest.mark.parametrize("token", [None, "", "guessed"])
@pytest_twisted.ensureDeferred
async def test_aForgedLogoutIsRefused(serve: Serve, token: str | None) -> None:
    """
    A logout without the token of its session logs nobody out.
    """
    browser = visit(serve, login.resource)
    await logIn(browser)
    data = {} if token is None else {"token": token}
    assert (await browser.post("/logout", data=data)).status == 403
    assert (await browser.get("/members")).status == 200


ELSEWHERE = [
    "https://evil.example/",
    "//evil.example/",
    "///evil.example/",
    "/\\evil.example/",
    "\\\\evil.example/",
    "/\t/evil.example/",
    "/\n/evil.example/",
    "\t//evil.example/",
    " //evil.example/",
    "/members\r\nSet-Cookie: planted=1",
    "javascript:alert(1)",
    "evil.example",
    "members",
    "/m\u00e9mbers",
    "",
]


@pytest.mark.parametrize("address", ELSEWHERE)
def test_anAddressOfAnotherSiteIsNotKept(address: str) -> None:
    """
    What could lead a browser to another site is replaced.
    """
    assert login.ownAddress(address) == "/members"


@pytest.mark.parametrize("address", ["/", "/members/minutes", "/a?b=//c&d=%20#e"])
def test_anAddressOfThisSiteIsKept(address: str) -> None:
    """
    An address of this site is where the way back leads.
    """
    assert login.ownAddress(address) == address


@pytest_twisted.ensureDeferred
async def test_theWayBackLeadsToNoOtherSite(serve: Serve) -> None:
    """
    An address that is not one of this site is not followed after the login,
    whether the login's page was opened with it or its form sent with it.
    """
    browser, elsewhere = visit(serve, login.resource), "//evil.example/"
    assert (await openForm(browser, elsewhere))["next"] == "/members"
    reply = await logIn(browser, next=elsewhere)
    assert location(reply) == (303, "/members")
    again = await browser.get("/login?" + urlencode({"next": elsewhere}))
    assert location(again) == (303, "/members")


@pytest_twisted.ensureDeferred
async def test_noCacheKeepsAPrivatePage(serve: Serve) -> None:
    """
    The browser is told to keep no page, so that the back button does not bring
    a private one back after the logout.
    """
    browser = visit(serve, login.resource)
    await logIn(browser)
    for path in ("/members", "/members/minutes", "/"):
        reply = await browser.get(path)
        assert (reply.status, reply.header("Cache-Control")) == (200, "no-store")
        assert reply.header("Vary") == "Cookie"


@pytest_twisted.ensureDeferred
async def test_whatIsEnteredIsEscaped(serve: Serve) -> None:
    """
    A name that looks like HTML is shown as it was entered.
    """
    browser = visit(serve, login.resource)
    reply = await logIn(browser, '"><script>alert(1)</script>', "wrong")
    assert "<script" not in reply.text
    assert 'value="&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;"' in reply.text


@pytest_twisted.ensureDeferred
async def test_aLoginThatCannotBeStoredLogsNobodyIn(serve: Serve) -> None:
    """
    If the store fails while the session gets its new ID, the visitor sees an
    error, and nobody is logged in under the old one.
    """
    store = StepStore(MemoryStore(reactor=clockAt()))
    served = serve(login.app.resource(), store=store)
    browser = served.browser()
    form = await openForm(browser)
    before = dict(browser.cookies)
    store.held = {"create"}
    answer = Deferred.fromCoroutine(
        browser.post("/login", data={**form, "user": "ada", "password": "analytical"})
    )
    call = await store.called("create")
    call.fail(StoreUnavailable("it is down"))
    reply = await answer
    assert reply.status == 500
    assert browser.cookies == before
    assert (await browser.get("/members")).status == 303


@pytest_twisted.ensureDeferred
async def test_aSecondClickOnTheLoginIsHarmless(serve: Serve) -> None:
    """
    If another request got rid of the session while this one was logging in, the
    visitor is asked again.
    """
    store = StepStore(MemoryStore(reactor=clockAt()))
    served = serve(login.app.resource(), store=store)
    browser = served.browser()
    opened = await browser.get("/login?next=/members/minutes")
    cookie = opened.cookie()
    assert cookie is not None
    store.held = {"create"}
    answer = Deferred.fromCoroutine(
        browser.post(
            "/login",
            data={**hiddenFields(opened), "user": "ada", "password": "analytical"},
        )
    )
    call = await store.called("create")
    await store.store.destroy(cookie.sid)
    call.release()
    assert location(await answer) == (303, "/login?next=%2Fmembers%2Fminutes")
    assert await store.store.length() == 0


@pytest_twisted.ensureDeferred
async def test_theFormsSayWhatTheyAsk(serve: Serve) -> None:
    """
    Each field that is seen has a label, and browsers are told what belongs in it.
    """
    reply = await visit(serve, login.resource).get("/login")
    for name, purpose in (("user", "username"), ("password", "current-password")):
        assert f'<label for="{name}">' in reply.text
        (tag,) = re.findall(f'<input id="{name}"[^>]*>', reply.text)
        assert f'autocomplete="{purpose}"' in tag


# Without Klein.


def shoppingList(reply: Reply) -> list[str]:
    return re.findall("<li>(.*?)<form", reply.text)


async def add(browser: Browser, thing: str, number: str = "1") -> Reply:
    return await browser.post("/list/add", data={"thing": thing, "number": number})


@pytest_twisted.ensureDeferred
async def test_lookingAtAnEmptyListMakesNoSession(serve: Serve) -> None:
    """
    Who only looks gets no cookie.
    """
    browser = visit(serve, plain_resource.resource)
    for path in ("/", "/list"):
        reply = await browser.get(path)
        assert (reply.status, reply.setCookies) == (200, [])
    removed = await browser.post("/list/remove", data={"thing": "milk"})
    assert (location(removed), removed.setCookies) == ((303, "/list"), [])


@pytest_twisted.ensureDeferred
async def test_theListIsKept(serve: Serve) -> None:
    """
    Things are added to the list and to each other, and taken off it.
    """
    browser = visit(serve, plain_resource.resource)
    assert location(await add(browser, "milk", "2")) == (303, "/list")
    await add(browser, "eggs", "6")
    await add(browser, " milk ")
    times = "\N{MULTIPLICATION SIGN}"
    shown = shoppingList(await browser.get("/list"))
    assert shown == [f"3 {times} milk", f"6 {times} eggs"]
    await browser.post("/list/remove", data={"thing": "milk"})
    assert shoppingList(await browser.get("/list")) == [f"6 {times} eggs"]
    assert "Things on your shopping list: 1." in (await browser.get("/")).text


@pytest.mark.parametrize(
    ("number", "taken"),
    [("0", 1), ("-5", 1), ("", 1), ("x", 1), ("100", 99), ("9" * 5000, 99)],
)
@pytest_twisted.ensureDeferred
async def test_aSenselessNumberIsMadeSensible(
    serve: Serve, number: str, taken: int
) -> None:
    """
    Whatever is sent as the number, the list takes one between 1 and 99.
    """
    browser = visit(serve, plain_resource.resource)
    await add(browser, "milk", number)
    (shown,) = shoppingList(await browser.get("/list"))
    assert shown.startswith(f"{taken} ")


@pytest_twisted.ensureDeferred
async def test_theListDoesNotGrowForEver(serve: Serve) -> None:
    """
    Neither the number of things nor the length of one is up to the visitor.
    """
    browser = visit(serve, plain_resource.resource)
    for n in range(plain_resource.MOST_THINGS):
        await add(browser, f"{n:03}" + "x" * 1000)
    await add(browser, "one more")
    shown = shoppingList(await browser.get("/list"))
    assert len(shown) == plain_resource.MOST_THINGS
    assert max(map(len, shown)) < 50
    assert not any("one more" in thing for thing in shown)


@pytest_twisted.ensureDeferred
async def test_whatIsOnTheListIsEscaped(serve: Serve) -> None:
    """
    A thing that looks like HTML is shown as it was entered, and can be removed.
    """
    browser = visit(serve, plain_resource.resource)
    await add(browser, '<b>"bold"</b>')
    reply = await browser.get("/list")
    assert "<b>" not in reply.text
    assert "&lt;b&gt;" in reply.text
    await browser.post("/list/remove", data={"thing": '<b>"bold"</b>'})
    assert shoppingList(await browser.get("/list")) == []


@pytest_twisted.ensureDeferred
async def test_twoTabsAddAtTheSameTime(serve: Serve) -> None:
    """
    Of two things that are added in parallel, both are on the list.
    """
    store = StepStore(MemoryStore(reactor=clockAt()))
    browser = serve(plain_resource.root, store=store).browser()
    await add(browser, "milk")
    store.held = {"replace"}
    answers = [Deferred.fromCoroutine(add(browser, each)) for each in ("tea", "jam")]
    calls = [await store.called("replace"), await store.called("replace")]
    store.held = set()
    for call in calls:
        call.release()
    for answer in answers:
        assert location(await answer) == (303, "/list")
    shown = {each.split()[-1] for each in shoppingList(await browser.get("/list"))}
    assert shown == {"milk", "tea", "jam"}


@pytest_twisted.ensureDeferred
async def test_anOrderEmptiesTheList(serve: Serve, logged: list[Any]) -> None:
    """
    What is ordered goes to the shop and is off the list; the next order has
    another number.
    """
    browser = visit(serve, plain_resource.resource)
    for thing in ("milk", "eggs"):
        await add(browser, thing)
        reply = await browser.post("/list/order")
        assert f"<code>{sent(logged)[-1][0]}</code>" in reply.text
        assert shoppingList(await browser.get("/list")) == []
    (first, milk), (second, eggs) = sent(logged)
    assert (milk, eggs) == ({"milk": 1}, {"eggs": 1})
    assert first != second


def sent(logged: list[Any]) -> list[tuple[str, dict[str, int]]]:
    """
    What went to the shop.
    """
    return [(each["number"], each["things"]) for each in logged if "things" in each]


@pytest_twisted.ensureDeferred
async def test_anEmptyListIsNotOrdered(serve: Serve, logged: list[Any]) -> None:
    """
    There is nothing to order on an empty list.
    """
    browser = visit(serve, plain_resource.resource)
    reply = await browser.post("/list/order")
    assert (location(reply), reply.setCookies) == ((303, "/list"), [])
    assert sent(logged) == []


@pytest_twisted.ensureDeferred
async def test_anOrderIsSavedBeforeItIsSent(serve: Serve, logged: list[Any]) -> None:
    """
    Nothing goes to the shop before the session is saved, nor if it cannot be;
    the list is then as it was.
    """
    store = StepStore(MemoryStore(reactor=clockAt()))
    browser = serve(plain_resource.root, store=store).browser()
    await add(browser, "milk")
    store.held = {"replace"}
    answer = Deferred.fromCoroutine(browser.post("/list/order"))
    call = await store.called("replace")
    assert sent(logged) == []
    store.held = set()
    call.fail(StoreUnavailable("it is down"))
    assert (await answer).status == 500
    assert sent(logged) == []
    assert len(shoppingList(await browser.get("/list"))) == 1


@pytest_twisted.ensureDeferred
async def test_anOrderThatFailedIsRepeatedUnderItsNumber(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    If the shop fails, the list is still there, and the next attempt has the
    same number.
    """
    orders: list[tuple[str, dict[str, int]]] = []
    answers = [fail(OSError("closed")), succeed(None)]

    def shop(number: str, things: dict[str, int]) -> Deferred[None]:
        orders.append((number, dict(things)))
        return answers.pop(0)

    monkeypatch.setattr(plain_resource, "sendToShop", shop)
    browser = visit(serve, plain_resource.resource)
    await add(browser, "milk")
    assert (await browser.post("/list/order")).status == 500
    assert (await browser.post("/list/order")).status == 200
    first, second = orders
    assert first == second
    assert second[1] == {"milk": 1}


# All of them.


@pytest.mark.parametrize(
    ("example", "path"),
    [
        (counter, "/"),
        (login, "/"),
        (login, "/login"),
        (plain_resource, "/"),
        (plain_resource, "/list"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_thePagesStandAlone(serve: Serve, example: Any, path: str) -> None:
    """
    Each page is HTML that fits a small screen, and loads nothing from anywhere.
    """
    text = (await visit(serve, example.resource).get(path)).text
    assert text.startswith("<!DOCTYPE html>\n")
    assert '<meta charset="utf-8"' in text
    assert 'name="viewport" content="width=device-width' in text
    assert '<html lang="en">' in text
    assert "http:" not in text
    assert "https:" not in text
    assert "<script" not in text


@pytest_twisted.ensureDeferred
async def test_theStylesReachTheBrowserAsTheyAre() -> None:
    """
    Nothing in the style sheet is changed by escaping, and the text is.
    """
    html = await flattenString(None, page("A & B", "C", tags.p("<i>")))
    (style,) = re.findall("<style>(.*?)</style>", html.decode(), re.DOTALL)
    assert not re.search("&[a-z]+;", style)
    assert b"A &amp; B" in html
    assert b"&lt;i&gt;" in html
