"""
The README and the documentation say what is so: their code runs, and their
tables agree with the code.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import unittest
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_twisted
from treq.testing import StubTreq
from twisted.application.service import IServiceCollection
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger, LogLevel

import txsession
from txsession import (
    CookieOptions,
    MemoryStore,
    SessionError,
    SessionResource,
    SessionService,
    changes,
    cookies,
    document,
    exchange,
    getSession,
    testing,
)
from txsession.plan import Facts, decide
from txsession.serving import WebService
from txsession.testing.faulty import KINDS

from .support import Page, clockAt

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
STREAMS = "docs/how-to/streams-and-websockets.md"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def nameOf(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def text(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def blocks(name: str, language: str) -> list[str]:
    """
    The code blocks of a page in one language.
    """
    return re.findall(rf"^```{language}\n(.*?)^```$", text(name), re.M | re.S)


def tables(markdown: str) -> list[list[list[str]]]:
    """
    The tables of a page, as rows of cells, without their headings.
    """
    found = re.findall(r"(?:^\|.*\|\n)+", markdown, re.M)
    return [
        [
            [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            for line in table.splitlines()[2:]
        ]
        for table in found
    ]


def code(cell: str) -> list[str]:
    """
    What stands between backticks in a cell.
    """
    return re.findall(r"`([^`]+)`", cell)


def run(name: str) -> dict[str, Any]:
    """
    Run the Python blocks of a page one after the other, as one module.
    """
    namespace: dict[str, Any] = {"__name__": f"docs.{Path(name).stem}"}
    for block in blocks(name, "python"):
        exec(compile(block, name, "exec"), namespace)
    return namespace


class Visitor:
    """
    A browser of a resource in memory.
    """

    def __init__(self, resource: Any) -> None:
        self.treq = StubTreq(resource)

    async def get(self, path: str = "/", **options: Any) -> Any:
        return await self.request("GET", path, **options)

    async def post(self, path: str, **options: Any) -> Any:
        return await self.request("POST", path, **options)

    async def request(self, method: str, path: str, **options: Any) -> Any:
        response = await self.treq.request(
            method, f"http://localhost{path}", allow_redirects=False, **options
        )
        return SimpleNamespace(
            status=response.code,
            headers=response.headers,
            text=(await response.content()).decode(),
            cookie=response.headers.getRawHeaders("Set-Cookie", [None])[0],
        )


# Code.


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What a page takes from the environment.
    """
    monkeypatch.setenv("TXSESSION_SECRET", "keyboard cat")


@pytest.fixture
def observers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """
    What a page begins logging to, which the tests themselves must not.
    """
    begun: list[Any] = []
    beginner = SimpleNamespace(
        beginLoggingTo=lambda observers, **options: begun.extend(observers)
    )
    monkeypatch.setattr("twisted.logger.globalLogBeginner", beginner)
    return begun


@pytest.mark.parametrize(
    "name", [nameOf(p) for p in PAGES if blocks(nameOf(p), "python")]
)
def test_codeRuns(name: str, observers: list[Any]) -> None:
    """
    The Python blocks of each page run, in order.
    """
    assert run(name)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("README.md", "You came {} times."),
        ("docs/index.md", "Views: {}"),
        ("docs/tutorial.md", "Views: {}"),
        ("docs/how-to/serve.md", "Views: {}"),
        ("docs/how-to/run-behind-a-proxy.md", "Views: {}"),
        ("docs/how-to/rotate-secrets.md", "Views: {}"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_examplesCount(name: str, said: str, observers: list[Any]) -> None:
    """
    The app of a page counts each visitor's views.
    """
    resource = run(name)["resource"]
    visitor, another = Visitor(resource), Visitor(resource)
    answers = [(await who.get()).text for who in (visitor, visitor, another)]
    assert [answer.strip() for answer in answers] == [
        said.format(views) for views in (1, 2, 1)
    ]


@pytest_twisted.ensureDeferred
async def test_applicationOfTheGuideListens() -> None:
    """
    The application of the how-to serves its resource, and prunes its store until
    the last request is over.
    """
    page = run("docs/how-to/serve.md")
    [web] = IServiceCollection(page["application"])
    assert isinstance(web, WebService)
    assert web.site.resource is page["resource"]
    [sessions] = web
    assert (type(sessions), sessions.store) == (SessionService, page["store"])
    assert page["resource"].store is page["store"]


@pytest_twisted.ensureDeferred
async def test_proxyOfTheGuideIsBelieved() -> None:
    """
    The proxy that the how-to names makes the cookie Secure, another does not.
    """
    resource = run("docs/how-to/run-behind-a-proxy.md")["resource"]
    header = {"X-Forwarded-Proto": "https"}
    secure = await Visitor(resource).get(headers=header)
    assert "Secure" in secure.cookie.split("; ")
    plain = await Visitor(resource).get()
    assert "Secure" not in plain.cookie.split("; ")


@pytest_twisted.ensureDeferred
async def test_cookieOfTheOldSecretIsSentAgain() -> None:
    """
    With the secrets of the how-to, an old cookie counts, and is signed anew.
    """
    page = run("docs/how-to/rotate-secrets.md")
    new = page["resource"]
    old = SessionResource(page["app"], secret="old secret", store=new.store)
    cookie = (await Visitor(old).get()).cookie.split(";")[0]
    answer = await Visitor(new).get(headers={"Cookie": cookie})
    assert answer.text == "Views: 2\n"
    renewed = answer.cookie.split(";")[0]
    assert renewed != cookie
    assert renewed.partition(".s%3A")[2][:32] == cookie.partition(".s%3A")[2][:32]


def test_loggingExampleShowsDecisions(
    observers: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """
    What the README gives for DEBUG=express-session shows the decisions of
    txsession, and no debug events of others.
    """
    run("README.md")
    [observer] = observers
    for namespace in ("txsession.resource.SessionResource", "another"):
        log = Logger(namespace=namespace, observer=observer)
        log.emit(LogLevel.debug, "said by {log_namespace}")
    written = capsys.readouterr().err
    assert "said by txsession.resource.SessionResource" in written
    assert "said by another" not in written


@pytest_twisted.ensureDeferred
async def test_decisionsAreLoggedUnderTheNamespaceOfTheREADME(
    serve: Any, logged: list[Any]
) -> None:
    """
    The namespace that the README names is that of the decisions.
    """
    served = serve(lambda request: getSession(request).update(seen=True))
    await served.browser().get()
    [namespace] = {
        event["log_namespace"]
        for event in logged
        if event.get("log_level") is LogLevel.debug
        and event["log_namespace"].startswith("txsession")
    }
    assert f"`{namespace}`" in text("README.md")


@pytest_twisted.ensureDeferred
async def test_loginOfTheGuideChangesTheID() -> None:
    """
    The login of the how-to keeps the data under another ID; the logout ends it.
    """
    page = run("docs/how-to/log-in-safely.md")
    visitor = Visitor(page["resource"])
    wrong = await visitor.post("/login", data={"user": "ada", "password": "x"})
    assert (wrong.status, wrong.cookie) == (403, None)
    assert (await visitor.post("/login")).status == 403
    before = await visitor.post("/stay")
    [maxAge] = re.findall(r"Max-Age=(\d+)", before.cookie)
    assert int(maxAge) > 29 * 24 * 60 * 60
    login = await visitor.post("/login", data={"user": "ada", "password": "analytical"})
    assert login.status == 303
    assert login.cookie.split(";")[0] != before.cookie.split(";")[0]
    assert (await visitor.get()).text == "Hello, ada."
    assert (await visitor.post("/logout")).cookie.startswith("connect.sid=;")
    assert (await visitor.get()).text == "Please log in."


@pytest_twisted.ensureDeferred
async def test_onErrorOfTheReferenceAnswers() -> None:
    """
    The onError of the reference answers a save that failed.
    """
    visitor = Visitor(run("docs/reference/options.md")["resource"])
    response = await visitor.get()
    assert (response.status, response.text) == (503, "We will be back in a moment.")
    assert response.headers.getRawHeaders("Retry-After") == ["30"]


@pytest_twisted.ensureDeferred
async def test_streamOfTheGuideIsSavedAtItsEnd() -> None:
    """
    What the stream of the how-to writes after its headers is saved.
    """
    streams = run_streams()
    resource = SessionResource(streams["Report"](), secret="x", reactor=clockAt())
    assert (await Visitor(resource).get()).text == "first part\nsecond part\n"
    [record] = (await resource.store.all()).values()
    data = json.loads(record.payload)
    assert (data["reports"], data["progress"]) == (1, "done")


def run_streams() -> dict[str, Any]:
    return run(STREAMS)


def streamTable() -> list[tuple[str, bool, str]]:
    """
    What is tried after the first write, whether the browser has the cookie, and
    what the page says that comes of it.
    """
    [rows] = tables(text(STREAMS))
    return [
        (code(row[0])[0], hasCookie, cell)
        for row in rows
        for hasCookie, cell in zip((True, False), row[1:], strict=True)
    ]


@pytest.mark.parametrize(("statement", "hasCookie", "said"), streamTable())
@pytest_twisted.ensureDeferred
async def test_rowsOfTheTableOfStreamsHold(
    statement: str, hasCookie: bool, said: str
) -> None:
    """
    What the table says that works after the first write does, and the rest
    raises what it says.
    """

    async def attempt(session: Any) -> str:
        try:
            if " = " in statement:
                exec(statement, {"session": session})
            else:
                result = eval(statement, {"session": session})
                await (result if isinstance(result, Deferred) else succeed(None))
        except SessionError as error:
            return type(error).__name__
        return "works"

    async def stream(request: Any) -> Any:
        session = getSession(request)
        if request.args.get(b"begin"):
            session["begun"] = True
            return ""
        request.write(b"")
        return await attempt(session)

    resource = SessionResource(Page(stream), secret="x", reactor=clockAt())
    visitor = Visitor(resource)
    if hasCookie:
        await visitor.get("/?begin=1")
    outcome = (await visitor.get()).text
    assert outcome == (code(said)[0] if said.startswith("`") else "works")
    stored = await resource.store.length()
    assert stored == (hasCookie and "destroy" not in statement)


def test_testsOfTheGuidePass() -> None:
    """
    The test cases that the how-to shows pass, each test of them.
    """
    page = run("docs/how-to/test-your-handlers.md")
    result = unittest.TestResult()
    for name in ("HandlerTests", "RouteTests", "HomeTests", "OutageTests"):
        unittest.defaultTestLoader.loadTestsFromTestCase(page[name]).run(result)
    assert result.failures == result.errors == []
    assert result.testsRun == text("docs/how-to/test-your-handlers.md").count(
        "    def test_"
    )


def test_faultsOfTheGuide() -> None:
    """
    The how-to names the faults that a store can have, and no others.
    """
    [rows] = tables(text("docs/how-to/test-your-handlers.md"))
    named = [re.findall(r"\w+", row[0])[0] for row in rows]
    assert sorted(named) == sorted(KINDS)


@pytest_twisted.ensureDeferred
async def test_theStoreOfTheGuideCounts() -> None:
    """
    The store of the how-to that wraps another has its abilities, and counts its
    loads.
    """
    clock = clockAt()
    store = run("docs/how-to/write-a-store.md")["CountingStore"](
        MemoryStore(reactor=clock)
    )
    # Not by isinstance(): since Python 3.12, that sees nothing of __getattr__.
    for method in ("get", "set", "destroy", "touch", "create", "replace"):
        assert callable(getattr(store, method))

    def count(request: Any) -> str:
        session = getSession(request)
        session["views"] = session.get("views", 0) + 1
        return str(session["views"])

    visitor = Visitor(
        SessionResource(Page(count), secret="x", store=store, reactor=clock)
    )
    assert [(await visitor.get()).text for _ in range(3)] == ["1", "2", "3"]
    assert store.loads == 2


# Tables.


def optionTables() -> list[Any]:
    section = text("README.md").partition("<!-- options: start -->")[2]
    resource, cookie = tables(section.partition("<!-- options: end -->")[0])
    return [(SessionResource, resource), (CookieOptions, cookie)]


@pytest.mark.parametrize(("kind", "rows"), optionTables(), ids=["resource", "cookie"])
def test_optionsAreAllInTheTable(kind: Any, rows: list[list[str]]) -> None:
    """
    The README lists exactly the options that there are, with their defaults.
    """
    parameters = {
        name: parameter.default
        for name, parameter in inspect.signature(kind).parameters.items()
        if name != "wrapped"
    }
    assert [code(row[0])[0] for row in rows] == list(parameters)
    for name, default, _, _ in rows:
        [option] = code(name)
        if option in ("secret", "store", "cookie", "genid", "reactor"):
            continue
        assert ast.literal_eval(code(default)[0]) == parameters[option], option


def test_exampleRowsOfTheDecisionTableHold() -> None:
    """
    Each row of the documentation's decision table is what decide() says.
    """
    [rows] = tables(text("docs/explanation/decisions.md"))
    for _, given, store, cookie in rows:
        facts = dict.fromkeys(code(given), True)
        if "not `sendable`" in given:
            facts["sendable"] = False
        plan = decide(Facts(**facts))
        assert (plan.store.value, plan.cookie.value) == (store, cookie), given


def test_rowsOfTheMergeTableHold() -> None:
    """
    Each row of the documentation's table of merges is what merge() gives.
    """
    [rows] = tables(text("docs/explanation/conflicts.md"))
    assert len(rows) > 5
    for row in rows:
        base, mine, theirs, merged = (json.loads(code(cell)[0]) for cell in row)
        assert changes.merge(theirs, changes.diff(base, mine)) == merged, row


def test_limitsAreThoseOfTheCode() -> None:
    """
    The numbers on the page of limits are those of the code.
    """
    [rows] = tables(text("docs/reference/limits.md"))
    assert [row[1] for row in rows][:6] == [
        str(limit)
        for limit in (
            cookies.MAX_CANDIDATES,
            cookies.MAX_PAIR,
            cookies.MAX_ATTRIBUTE,
            document.MAX_DEPTH,
            exchange.MAX_RETRIES,
            exchange.MAX_COLLISIONS,
        )
    ]


@pytest_twisted.ensureDeferred
async def test_documentIsAsShown() -> None:
    """
    The stored document of the reference is what is stored, byte for byte.
    """
    clock = clockAt(1767268800)  # noon on the first of January 2026
    resource = SessionResource(
        Page(lambda request: getSession(request).update(user="ada")),
        secret="x",
        cookie=CookieOptions(maxAge=3600),
        reactor=clock,
    )
    await Visitor(resource).get()
    [record] = (await resource.store.all()).values()
    [shown] = blocks("docs/reference/document.md", "json")
    assert record.payload.decode() == shown.strip()


# Names.


def test_publicNamesAreInTheReference() -> None:
    """
    Every public name is on the page of the API.
    """
    page = text("docs/reference/api.md")
    names = [*txsession.__all__, *(f"testing.{name}" for name in testing.__all__)]
    missing = [
        name for name in names if not re.search(rf":: txsession\.{name}\b", page)
    ]
    assert missing == []


def test_errorsAreExplained() -> None:
    """
    Every exception is explained on the page of errors.
    """
    page = text("docs/reference/errors.md")
    missing = [
        name
        for name in txsession.__all__
        if isSubclass(getattr(txsession, name), txsession.SessionError)
        and name != "SessionError"
        and not re.search(rf"^{name}\n: ", page, re.M)
    ]
    assert missing == []


def isSubclass(thing: Any, base: type) -> bool:
    return isinstance(thing, type) and issubclass(thing, base)


def test_modulesAreInTheArchitecture() -> None:
    """
    The page of the architecture names the modules that there are, and no
    others.
    """
    package = ROOT / "txsession"
    modules = {
        ".".join(path.relative_to(package).with_suffix("").parts)
        for path in package.rglob("*.py")
        if path.name != "__init__.py"
    }
    [rows] = tables(text("docs/explanation/architecture.md"))
    assert {name for row in rows for name in code(row[1])} == modules


@pytest.mark.parametrize("page", PAGES, ids=nameOf)
def test_linksLeadSomewhere(page: Path) -> None:
    """
    What a page links to or includes within the project is there.
    """
    content = page.read_text("utf-8")
    targets = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", content)
    targets += re.findall(r"^```\{literalinclude\} (\S+)", content, re.M)
    targets += re.findall(r"^```\{include\} (\S+)", content, re.M)
    missing = [each for each in targets if not (page.parent / each).exists()]
    assert missing == []


def test_includedObjectsExist() -> None:
    """
    The functions that the pages show from the examples are in them.
    """
    for page in PAGES:
        for path, name in re.findall(
            r"^```\{literalinclude\} (\S+)\n(?:(?!```).*\n)*?:pyobject: (\w+)",
            page.read_text("utf-8"),
            re.M,
        ):
            tree = ast.parse((page.parent / path).read_text("utf-8"))
            names = {getattr(node, "name", None) for node in tree.body}
            assert name in names, f"{name} in {path}"
