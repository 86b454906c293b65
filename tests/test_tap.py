"""
The plugin of twistd and twist: what each option does, and what is said when it
is wrong.
"""

from __future__ import annotations

import json
import re
import stat
import time
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.application.service import IServiceMaker
from twisted.internet.defer import Deferred
from twisted.plugin import getPlugins
from twisted.python.usage import UsageError

from txsession import (
    CookieOptions,
    MemoryStore,
    Record,
    SessionResource,
    SessionService,
    StoreUnavailable,
    signing,
    tap,
)
from txsession.serving import WebService
from txsession.tap import Options, makeService
from txsession.tapoptions import OPTIONS

from .programs import ROOT, Program, Programs, programsOfATest  # noqa: F401
from .support import (
    SECRET,
    Browser,
    Connection,
    Serve,
    SetCookie,
    eventually,
    patiently,
)

APP = ("--app", "tests.served:app")
LOOPBACK = ("--listen", "tcp:0:interface=127.0.0.1")
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    There is a secret in the environment, and no store.
    """
    monkeypatch.setenv("TXSESSION_SECRET", SECRET)
    monkeypatch.delenv("TXSESSION_STORE", raising=False)


def parsed(*arguments: str) -> Options:
    options = Options()
    options.parseOptions(list(arguments))
    return options


def made(*arguments: str) -> WebService:
    return makeService(parsed(*APP, *arguments))


def visit(serve: Serve, *arguments: str) -> Browser:
    """
    A browser, in front of what the plugin makes of these arguments.
    """
    return Browser(serve.site(made(*arguments).site.resource).port)


async def cookieWith(serve: Serve, *arguments: str, **request: Any) -> SetCookie:
    cookie = (await visit(serve, *arguments).get(**request)).cookie()
    assert cookie is not None
    return cookie


def patch(monkeypatch: pytest.MonkeyPatch, method: str, replacement: Any) -> Any:
    """
    Replace a method of the memory store.

    @return: the method as it was.
    """
    before = getattr(MemoryStore, method)
    monkeypatch.setattr(MemoryStore, method, replacement)
    return before


def counted(monkeypatch: pytest.MonkeyPatch, method: str) -> list[Any]:
    """
    The calls of a method of the memory store.
    """
    calls: list[Any] = []

    def count(self: Any, *arguments: Any) -> Any:
        calls.append(arguments)
        return before(self, *arguments)

    before = patch(monkeypatch, method, count)
    return calls


# What is served.


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("app", "1"),
        ("plain", "plain"),
        ("Plain", "plain"),
        ("Namespace.app", "plain"),
        ("makeApp", "1"),
        ("makeResource", "plain"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_app(serve: Serve, name: str, said: str) -> None:
    """
    The app is a Klein app, a resource, or a callable that makes one.
    """
    reply = await visit(serve, "--app", f"tests.served:{name}").get()
    assert reply.text == said
    assert reply.cookie() is not None


@pytest_twisted.ensureDeferred
async def test_appThatHasSessions(serve: Serve, logged: list[Any]) -> None:
    """
    An app that is wrapped already has the sessions that the options say, and the
    log warns of that.
    """
    reply = await visit(serve, "--app", "tests.served:wrapped").get()
    assert reply.text == "plain"
    assert reply.cookie("its-own") is None
    assert reply.cookie() is not None
    assert [e for e in logged if e.get("app") == "tests.served:wrapped"]


def test_listen() -> None:
    """
    It serves at each endpoint that is named, or else at port 8080 of this
    machine.
    """
    assert [name for name, _ in made()._endpoints] == ["tcp:8080:interface=127.0.0.1"]
    service = made("--listen", "tcp:1", "--listen=tcp:2")
    assert [endpoint._port for _, endpoint in service._endpoints] == [1, 2]


def test_gracePeriod() -> None:
    """
    Requests have ten seconds to end, or as long as is said.
    """
    assert made().gracePeriod == 10
    assert made("--grace-period", "1m").gracePeriod == 60
    assert made("--grace-period", "0").gracePeriod == 0


# Secrets.


@pytest_twisted.ensureDeferred
async def test_secretFile(serve: Serve, tmp_path: Path) -> None:
    """
    The first line of the file signs, all verify, and the environment does not
    count; comments and empty lines are none.
    """
    file = tmp_path / "secrets"
    file.write_bytes(b"# of today\r\n  new secret \r\n\r\n#\r\nold secret\r\n")
    browser = visit(serve, "--secret-file", str(file))
    cookie = (await browser.get()).cookie()
    assert cookie is not None
    assert isSigned(cookie, "new secret")
    old = signing.Signer("old secret").sign(cookie.sid)
    header = {"Cookie": b"connect.sid=" + old}
    assert (await browser.get(headers=header)).text == "2"
    environment = signing.Signer(SECRET).sign(cookie.sid)
    header = {"Cookie": b"connect.sid=" + environment}
    assert (await browser.get(headers=header)).text == "1"


def isSigned(cookie: SetCookie, secret: str) -> bool:
    from urllib.parse import unquote_to_bytes

    verified = signing.Signer(secret).verify(unquote_to_bytes(cookie.value))
    return verified is not None


@pytest_twisted.ensureDeferred
async def test_secretOfTheEnvironment(serve: Serve) -> None:
    """
    Without a file, the secret is that of the environment.
    """
    assert isSigned(await cookieWith(serve), SECRET)


def test_createSecret(tmp_path: Path) -> None:
    """
    A file that is missing is made, with a secret that nobody else may read; one
    that is there is left as it is.
    """
    files = [tmp_path / name for name in ("one", "other")]
    for file in files:
        made("--secret-file", str(file), "--create-secret")
    one, other = (file.read_text() for file in files)
    assert re.fullmatch("[0-9a-f]{64}\n", one)
    assert one != other
    assert stat.S_IMODE(files[0].stat().st_mode) == 0o600
    made("--secret-file", str(files[0]), "--create-secret")
    assert files[0].read_text() == one
    assert sorted(tmp_path.iterdir()) == sorted(files)


@pytest.mark.parametrize(("mode", "warnings"), [(0o640, 0), (0o604, 1)])
def test_secretThatOthersMayRead(
    tmp_path: Path, logged: list[Any], mode: int, warnings: int
) -> None:
    """
    A file that everybody may read is used, with a warning.
    """
    file = tmp_path / "secrets"
    file.write_text("secret\n")
    file.chmod(mode)
    made("--secret-file", str(file))
    assert len([e for e in logged if e.get("path") == str(file)]) == warnings


# The store.


@pytest.mark.parametrize("inEnvironment", [True, False])
def test_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inEnvironment: bool
) -> None:
    """
    The store is that of the URL on the command line or in the environment, and a
    service starts, prunes and stops it.
    """
    if inEnvironment:
        monkeypatch.setenv("TXSESSION_STORE", "memory:?maxSessions=7")
        service = made()
    else:
        monkeypatch.setenv("TXSESSION_STORE", "nonsense:")
        service = made("--store", "memory:?maxSessions=7")
    store = service.site.resource.store
    assert store._maxSessions == 7
    [sessions] = service
    assert sessions.store is store


@pytest.mark.parametrize(
    ("url", "warnings"),
    [
        ("redis://u:hunter2@x/0", 1),
        ("postgresql://x/y?password=hunter2", 1),
        ("redis://x/0", 0),
    ],
)
def test_passwordOnTheCommandLine(
    logged: list[Any], monkeypatch: pytest.MonkeyPatch, url: str, warnings: int
) -> None:
    """
    A password on the command line is warned of, and not shown.
    """
    monkeypatch.setattr(tap, "storeFromURL", lambda url: MemoryStore())
    made("--store", url)
    found = [e for e in logged if e.get("variable") == "TXSESSION_STORE"]
    assert len(found) == warnings
    assert "hunter2" not in repr(logged)


@pytest_twisted.ensureDeferred
async def test_pruning(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The store is pruned so often, so many at once.
    """
    calls = counted(monkeypatch, "prune")
    [sessions] = made("--prune-interval", "0.001", "--prune-limit", "7")
    sessions.startService()
    await eventually(lambda: calls)
    await sessions.stopService()
    assert calls[0] == (7,)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", {}),
        ("--prune-interval=off", {"pruneInterval": None}),
        (
            "--prune-interval=2m --prune-limit=7",
            {"pruneInterval": 120, "pruneLimit": 7},
        ),
    ],
)
def test_pruningByDefault(
    monkeypatch: pytest.MonkeyPatch, arguments: str, expected: dict[str, Any]
) -> None:
    """
    How it is pruned if nothing is said is left to the service; it can be switched
    off.
    """

    def make(store: Any, **options: Any) -> SessionService:
        given.append(options)
        return SessionService(store)

    given: list[Any] = []
    monkeypatch.setattr(tap, "SessionService", make)
    made(*arguments.split())
    assert given == [expected]


@pytest_twisted.ensureDeferred
async def test_storeTimeout(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A store that takes longer than it may counts as down.
    """
    browser = visit(serve, "--store-timeout", "0.01")
    patch(monkeypatch, "create", lambda *_: Deferred())
    assert (await browser.get()).status == 503


@pytest_twisted.ensureDeferred
async def test_storeDown(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    While the store is down, there is an error, or no session.
    """

    def get(*arguments: Any) -> Any:
        raise StoreUnavailable("no route to it")

    for value, status in (("error", 503), ("anonymous", 500)):
        browser = visit(serve, "--store-down", value)
        await browser.get()
        with monkeypatch.context() as patching:
            patch(patching, "get", get)
            # The app asks for a session that it does not have.
            assert (await browser.get()).status == status


# The cookie.


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", {"path": "/", "httponly": "", "samesite": "Lax"}),
        ("--cookie-max-age=90", {"max-age": "90"}),
        ("--cookie-max-age=1.5m", {"max-age": "90"}),
        ("--cookie-max-age=2H", {"max-age": "7200"}),
        ("--cookie-max-age=14d", {"max-age": "1209600"}),
        ("--cookie-max-age=2w", {"max-age": "1209600"}),
        (
            "--cookie-expires=2100-01-01T00:00:00Z",
            {"expires": "Fri, 01 Jan 2100 00:00:00 GMT"},
        ),
        (
            "--cookie-expires=2100-01-01T02:00:00+02:00",
            {"expires": "Fri, 01 Jan 2100 00:00:00 GMT"},
        ),
        ("--cookie-domain=example.org", {"domain": "example.org"}),
        ("--cookie-same-site=Strict", {"samesite": "Strict"}),
        ("--cookie-same-site=lax", {"samesite": "Lax"}),
        ("--cookie-same-site=none", {"samesite": "Lax"}),
        ("--cookie-same-site=auto", {"samesite": "Lax"}),
        ("--cookie-same-site=off", {"samesite": None}),
        ("--cookie-priority=high", {"priority": "High"}),
        ("--no-cookie-http-only", {"httponly": None}),
        ("--cookie-secure=no", {"secure": None}),
        ("--cookie-secure=auto", {"secure": None}),
        ("--cookie=tests.served:cookie", {"priority": "High"}),
        ("--cookie=tests.served:cookieFor", {"priority": "Low"}),
        # The names of the code.
        ("--cookie.maxAge=90", {"max-age": "90"}),
        ("--cookieSameSite=strict", {"samesite": "Strict"}),
    ],
)
@pytest_twisted.ensureDeferred
async def test_cookie(
    serve: Serve, arguments: str, expected: dict[str, str | None]
) -> None:
    """
    The cookie has the attributes that the options say.
    """
    cookie = await cookieWith(serve, *arguments.split())
    assert {key: attribute(cookie, key) for key in expected} == expected


def attribute(cookie: SetCookie, key: str) -> str | None:
    value = cookie.attributes.get(key)
    if key == "max-age" and value is not None:
        # Some of it may have passed already, on a machine that is busy.
        return str(round(int(value) + 4, -1))
    return value


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--cookie-secure=yes", {"secure": ""}),
        ("--cookie-secure=auto", {"secure": ""}),
        ("--cookie-secure=no", {"secure": None}),
        ("--cookie-partitioned", {"partitioned": "", "secure": ""}),
        ("--cookie-same-site=none", {"samesite": "None"}),
        ("--cookie-same-site=auto", {"samesite": "None"}),
    ],
)
@pytest_twisted.ensureDeferred
async def test_cookieOverHTTPS(
    serve: Serve, arguments: str, expected: dict[str, str | None]
) -> None:
    """
    So it has over HTTPS, as a proxy says.
    """
    headers = {"X-Forwarded-Proto": "https"}
    cookie = await cookieWith(serve, "--proxy=all", *arguments.split(), headers=headers)
    assert {key: cookie.attributes.get(key) for key in expected} == expected


@pytest_twisted.ensureDeferred
async def test_nameAndPath(serve: Serve) -> None:
    """
    The cookie has the name, and is for the part of the site, that is said.
    """
    browser = visit(serve, "--name", "visitor", "--cookie-path", "/read")
    assert (await browser.get("/process")).setCookies == []
    browser = visit(serve, "--name", "visitor")
    assert (await browser.get()).cookie("visitor") is not None
    assert (await visit(serve, "--cookie-path", "/read").get()).status == 500


# Sessions.


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", 86400),
        ("--ttl=1h", 3600),
        ("--absolute-timeout=30m", 1800),
        ("--ttl=60 --absolute-timeout=30m", 60),
    ],
)
@pytest_twisted.ensureDeferred
async def test_lifetimes(serve: Serve, arguments: str, expected: float) -> None:
    """
    A record lives as long as the options say.
    """
    resource: Any = made(*arguments.split()).site.resource
    await Browser(serve.site(resource).port).get()
    [record] = (await resource.store.all()).values()
    assert expected - 60 < record.expires - time.time() <= expected


@pytest.mark.parametrize(
    ("arguments", "method", "count"),
    [
        ("", "touch", 0),
        ("--touch-interval=0", "touch", 2),
        ("--touch-interval=1h", "touch", 0),
        ("", "replace", 0),
        ("--resave", "replace", 2),
    ],
)
@pytest_twisted.ensureDeferred
async def test_touchesAndSaves(
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    arguments: str,
    method: str,
    count: int,
) -> None:
    """
    Sessions that are only read are touched and saved as often as the options
    say.
    """
    calls = counted(monkeypatch, method)
    browser = visit(serve, *arguments.split())
    for path in ("/", "/read", "/read"):
        await browser.get(path)
    assert len(calls) == count


@pytest.mark.parametrize(
    ("arguments", "first", "second"),
    [("", False, False), ("--save-uninitialized", True, False)],
)
@pytest_twisted.ensureDeferred
async def test_saveUninitialized(
    serve: Serve, arguments: str, first: bool, second: bool
) -> None:
    """
    Sessions that hold nothing are saved if the option says so.
    """
    browser = visit(serve, *arguments.split())
    for isSent in (first, second):
        assert ((await browser.get("/nothing")).cookie() is not None) is isSent


@pytest.mark.parametrize("arguments", ["", "--rolling"])
@pytest_twisted.ensureDeferred
async def test_rolling(serve: Serve, arguments: str) -> None:
    """
    The cookie is renewed with every response if the option says so.
    """
    browser = visit(serve, "--cookie-max-age=1h", *arguments.split())
    await browser.get()
    renewed = (await browser.get("/read")).cookie() is not None
    assert renewed is bool(arguments)


@pytest.mark.parametrize(("value", "left"), [("keep", 1), ("destroy", 0)])
@pytest_twisted.ensureDeferred
async def test_unset(serve: Serve, value: str, left: int) -> None:
    """
    A session that is taken off its request is kept or destroyed.
    """
    resource: Any = made("--unset", value).site.resource
    browser = Browser(serve.site(resource).port)
    await browser.get()
    await browser.get("/unset")
    assert await resource.store.length() == left


@pytest.mark.parametrize(
    ("value", "status", "data"),
    [
        ("merge", 200, {"views": 2, "theirs": True}),
        ("overwrite", 200, {"views": 2}),
        ("error", 500, {"views": 1, "theirs": True}),
    ],
)
@pytest_twisted.ensureDeferred
async def test_onConflict(
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    value: str,
    status: int,
    data: dict[str, Any],
) -> None:
    """
    What another request changed is merged, overwritten, or an error.
    """

    async def replaceLate(
        self: Any, sid: str, record: Record, expected: Record
    ) -> bool:
        if not others:
            others.append(sid)
            document = json.loads(expected.payload) | {"theirs": True}
            payload = json.dumps(document).encode()
            await self.set(sid, Record(payload, expected.expires))
        isReplaced: bool = await replace(self, sid, record, expected)
        return isReplaced

    others: list[str] = []
    replace = patch(monkeypatch, "replace", replaceLate)
    resource: Any = made("--on-conflict", value).site.resource
    browser = Browser(serve.site(resource).port)
    await browser.get()
    assert (await browser.get()).status == status
    [record] = (await resource.store.all()).values()
    stored = json.loads(record.payload)
    del stored["cookie"]
    assert stored == data


@pytest.mark.parametrize(("arguments", "status"), [("", 200), ("--lazy", 500)])
@pytest_twisted.ensureDeferred
async def test_lazy(serve: Serve, arguments: str, status: int) -> None:
    """
    A lazy session is not loaded for an app that does not ask for it.
    """
    assert (await visit(serve, *arguments.split()).get("/read")).status == status


@pytest_twisted.ensureDeferred
async def test_genid(serve: Serve) -> None:
    """
    IDs are made by the callable that is named.
    """
    cookie = await cookieWith(serve, "--genid", "tests.served:genid")
    assert re.fullmatch("id-[0-9a-f]{8}", cookie.sid)


@pytest_twisted.ensureDeferred
async def test_onError(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The callable that is named answers when a save failed.
    """

    def create(*arguments: Any) -> Any:
        raise StoreUnavailable("no route to it")

    patch(monkeypatch, "create", create)
    reply = await visit(serve, "--on-error", "tests.served:explain").get()
    assert (reply.status, reply.text) == (503, "explained")


# HTTP and logs.


@pytest.mark.parametrize(
    ("arguments", "isSecure"),
    [
        ("", False),
        ("--proxy=all", True),
        ("--proxy=127.0.0.0/8", True),
        ("--proxy=10.0.0.0/8", False),
        ("--proxy=10.0.0.0/8 --proxy=127.0.0.1", True),
    ],
)
@pytest_twisted.ensureDeferred
async def test_proxy(serve: Serve, arguments: str, isSecure: bool) -> None:
    """
    Those who are named may say that a request came over HTTPS.
    """
    headers = {"X-Forwarded-Proto": "https"}
    cookie = await cookieWith(serve, *arguments.split(), headers=headers)
    assert ("secure" in cookie.attributes) is isSecure


@pytest.mark.parametrize(
    ("arguments", "vary"), [("", "Cookie"), ("--no-cache-headers", None)]
)
@pytest_twisted.ensureDeferred
async def test_noCacheHeaders(serve: Serve, arguments: str, vary: str | None) -> None:
    """
    The headers for caches are left to the app if the option says so.
    """
    reply = await visit(serve, *arguments.split()).get()
    assert reply.header("Vary") == vary


@pytest.mark.parametrize("value", [None, "access.log", "off"])
@pytest_twisted.ensureDeferred
async def test_accessLog(tmp_path: Path, logged: list[Any], value: str | None) -> None:
    """
    Requests are in Twisted's log, in the file that is named, or nowhere.
    """
    path = tmp_path / "access.log"
    arguments = {None: (), "off": ("--access-log", "off")}.get(
        value, ("--access-log", str(path))
    )
    service = made(*LOOPBACK, *arguments)
    service.startService()
    port = service._listening[0].result.getHost().port
    await Browser(port).get("/nothing")
    await service.stopService()
    line = '"GET /nothing HTTP/1.1" 200'
    assert (path.exists() and line in path.read_text()) == (value == "access.log")
    # Under pytest, Twisted's log is none that the site writes to.
    assert service.site.logPath == (str(path) if value == "access.log" else None)


# The command line itself.


def test_itIsAPlugin() -> None:
    """
    twistd and twist find the plugin, and what it makes.
    """
    [plugin] = [p for p in getPlugins(IServiceMaker) if p.tapname == "txsession"]
    assert isinstance(plugin.options(), Options)
    assert plugin.makeService is makeService


def test_helpIsOfTheWidthOfATerminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The help names each option, and fits into the terminal.
    """
    for columns, width in (("60", 60), ("80", 80), ("120", 120), ("", 80), ("x", 80)):
        monkeypatch.setenv("COLUMNS", columns)
        lines = str(Options()).splitlines()
        assert max(map(len, lines)) < width
        named = {name for line in lines for name in re.findall("^  --([a-z-]+)", line)}
        assert named == {o.name for o in OPTIONS}


def test_helpIsShown(capsys: pytest.CaptureFixture[str]) -> None:
    """
    --help shows the help and ends well.
    """
    with pytest.raises(SystemExit) as caught:
        parsed("--help")
    assert caught.value.code == 0
    assert "--touch-interval DURATION" in capsys.readouterr().out


def test_versionIsShown(capsys: pytest.CaptureFixture[str]) -> None:
    """
    --version shows that of txsession.
    """
    with pytest.raises(SystemExit) as caught:
        parsed("--version")
    assert caught.value.code == 0
    assert re.fullmatch(r"txsession \d.*\n", capsys.readouterr().out)


def test_eachPolicyHasAnOption() -> None:
    """
    Each option of SessionResource and CookieOptions has one here, but for the
    clock.
    """
    policies = {option.policy for option in OPTIONS} - {""}
    cookie = {f"cookie.{name}" for name in signature(CookieOptions).parameters}
    assert policies == {*signature(SessionResource).parameters, *cookie} - {"reactor"}


def test_thePageOfTheReferenceIsComplete() -> None:
    """
    The page of the reference has the options of the help, in the same order, with
    what they take and what they are called in code.
    """
    page = (ROOT / "docs/reference/twistd.md").read_text("utf-8")
    rows = re.findall(r"^\| `--([^`]*)` \| (?:`([^`]*)`)? ?\| ", page, re.M)
    assert [(option.replace("\\|", "|"), policy) for option, policy in rows] == [
        (f"{option.name} {option.value}".rstrip(), option.policy) for option in OPTIONS
    ]


WRONG = [
    ("--bogus", "option --bogus not recognized; --help lists those that there are"),
    ("stray", "'stray' belongs to no option"),
    ("--lazy=1", "option --lazy must not have an argument"),
    ("--app app", "--app: must be package.module:name"),
    ("--app tests.served:", "--app: must be package.module:name"),
    ("--app no_such_module:app", "--app: there is no module 'no_such_module'"),
    ("--app tests.nothing:app", "--app: there is no module 'tests.nothing'"),
    ("--app tests.served:missing", "--app: tests.served has no 'missing'"),
    (
        "--app tests.served:number",
        "--app: must be an IResource, a Klein app or a callable that makes one; "
        "tests.served:number is of type int",
    ),
    ("--app tests.served:makeNothing", "--app: must be an IResource"),
    ("--app tests.served:makeLater", "--app: must be an IResource"),
    (
        "--app tests.served:genid",
        "--app: tests.served:genid() failed: TypeError: genid() missing",
    ),
    (
        "--app tests.served:trouble",
        "--app: tests.served:trouble failed: ZeroDivisionError: too many lines (",
    ),
    (
        "--app tests.served:trouble.child",
        "--app: tests.served:trouble.child failed: ZeroDivisionError: too many lines (",
    ),
    ("--app sys:exit", "--app: sys:exit() failed: SystemExit:"),
    (
        "--app tests.served:makeTrouble",
        "--app: tests.served:makeTrouble() failed: ZeroDivisionError: too many lines (",
    ),
    ("--listen nonsense", "--listen: 'nonsense' is no server endpoint"),
    ("--listen tcp:http", "--listen: 'tcp:http' is no server endpoint"),
    ("--grace-period -1", "--grace-period: must be seconds"),
    ("--secret-file /no/such", "--secret-file: /no/such: No such file or directory; "),
    ("--secret-file /", "--secret-file: /: Is a directory"),
    ("--secret-file=", "--secret-file: must name a file"),
    ("--secret=h7sh", "--secret: everybody on this machine can see command lines; "),
    ("--secret h7sh", "--secret: everybody on this machine can see command lines; "),
    ("--create-secret", "--create-secret: needs --secret-file PATH"),
    ("--secret-file /no/such --create-secret", "--secret-file: /no/such: No such"),
    ("--store nonsense:x", "--store: no store has URLs that begin with 'nonsense:'"),
    ("--store memory:x", "--store: a memory store has neither host nor path"),
    ("--store memory:?maxSessions=x", "--store: maxSessions: must be a whole number"),
    ("--prune-interval x", "--prune-interval: must be seconds"),
    ("--prune-interval 0", "--prune-interval: must be greater than zero"),
    ("--prune-limit x", "--prune-limit: must be a whole number, not 'x'"),
    ("--prune-limit 0", "--prune-limit: must be a whole number above zero, not 0"),
    ("--store-timeout 0", "--store-timeout: must be greater than zero"),
    ("--store-down maybe", "--store-down: must be one of"),
    ("--name a;b", "--name: must be an RFC 6265 token"),
    ("--name __Host-a", "--name: '__Host-a' needs --cookie-secure yes"),
    ("--cookie-max-age 0", "--cookie-max-age: must be greater than zero"),
    ("--cookie-max-age 1y", "--cookie-max-age: must be seconds"),
    ("--cookie-expires soon", "--cookie-expires: must be a date"),
    ("--cookie-expires 2100-01-01T00:00:00", "--cookie-expires: must have a time zone"),
    (
        "--cookie-expires 2000-01-01T00:00:00Z",
        "--cookie-expires: 2000-01-01T00:00:00+00:00 has passed; use --cookie-max-age",
    ),
    (
        "--cookie-expires 2100-01-01T00:00:00Z --cookie-max-age 1",
        "--cookie-expires: does not go together with --cookie-max-age",
    ),
    ("--cookie-path x", "--cookie-path: must start with a slash"),
    ("--cookie-domain a:b", "--cookie-domain: must be a host name"),
    ("--cookie-secure maybe", "--cookie-secure: must be one of yes, no, auto"),
    ("--cookie-same-site maybe", "--cookie-same-site: must be one of lax, strict"),
    (
        "--cookie-same-site none --cookie-secure no",
        "--cookie-same-site: browsers refuse SameSite=None without Secure; "
        "set --cookie-secure yes or auto",
    ),
    ("--cookie-priority maybe", "--cookie-priority: must be one of"),
    (
        "--cookie-partitioned --cookie-secure no",
        "--cookie-partitioned: browsers refuse Partitioned without Secure; "
        "set --cookie-secure yes or auto",
    ),
    ("--no-cookie-http-only=x", "option --no-cookie-http-only must not have"),
    ("--cookie tests.served:number", "--cookie: must be a callable; tests.served:n"),
    ("--cookie tests.served:missing", "--cookie: tests.served has no 'missing'"),
    (
        "--cookie tests.served:cookie --cookie-path /x",
        "--cookie-path: does not go together with --cookie",
    ),
    ("--ttl 0", "--ttl: must be greater than zero"),
    ("--ttl forever", "--ttl: must be seconds"),
    ("--absolute-timeout 0", "--absolute-timeout: must be greater than zero"),
    ("--touch-interval x", "--touch-interval: must be seconds"),
    ("--rolling=x", "option --rolling must not have"),
    ("--resave=x", "option --resave must not have"),
    ("--save-uninitialized=x", "option --save-uninitialized must not have"),
    ("--unset maybe", "--unset: must be one of 'keep', 'destroy', not 'maybe'"),
    ("--on-conflict maybe", "--on-conflict: must be one of"),
    (
        "--genid tests.served:number",
        "--genid: must be a callable; tests.served:number is",
    ),
    (
        "--on-error tests.served:number",
        "--on-error: must be a callable; tests.served:number is",
    ),
    ("--proxy 10.0.0.0/33", "--proxy: must be an IP network, as 10.0.0.0/8, or all: "),
    ("--proxy all --proxy 10.0.0.0/8", "--proxy: all needs no other network"),
    ("--no-cache-headers=x", "option --no-cache-headers must not have"),
    ("--access-log=", "--access-log: must name a file"),
    ("--access-log /no/such/file", "--access-log: /no/such/file: No such file"),
    ("--log-format xml", "--log-format: must be one of text, json, not 'xml'"),
]


@pytest.mark.parametrize(("arguments", "said"), WRONG, ids=[w[0] for w in WRONG])
def test_whatIsWrongIsNamed(arguments: str, said: str) -> None:
    """
    What is wrong is said in one line, which names it as the command line does.
    """
    with pytest.raises(UsageError) as caught:
        made(*arguments.split())
    line = str(caught.value)
    assert line.startswith(said)
    assert "\n" not in line
    assert "h7sh" not in line


def test_fileInPlaceOfAModuleIsPutRight() -> None:
    """
    Who names a file is told the module.
    """
    with pytest.raises(UsageError, match=r"nor elsewhere; write tests\.served:app$"):
        made("--app", "tests.served.py:app")


def test_eachOptionIsWrongSomewhere() -> None:
    """
    For each option there is a wrong use above.
    """
    tried = {name for wrong, _ in WRONG for name in re.findall("--([a-z-]+)", wrong)}
    assert {option.name for option in OPTIONS} <= tried


def test_secretFilesThatAreWrong(tmp_path: Path) -> None:
    """
    A file that is missing is refused, with a remedy where that is not in use
    already, and so is one that holds no secret.
    """
    file = tmp_path / "secrets"
    file.symlink_to(tmp_path / "nowhere" / "secrets")
    for arguments, said in (
        ((), r": No such file or directory; --create-secret makes it"),
        (("--create-secret",), r": No such file or directory"),
    ):
        with pytest.raises(UsageError) as caught:
            made("--secret-file", str(file), *arguments)
        assert str(caught.value) == f"--secret-file: {file}{said}"
    file.unlink()
    file.write_text("# nothing\n")
    with pytest.raises(UsageError, match="holds no secret; it takes one a line"):
        made("--secret-file", str(file))


def test_theEnvironmentIsNamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What is wrong in the environment is said to be there.
    """
    monkeypatch.setenv("TXSESSION_STORE", "nonsense:")
    with pytest.raises(UsageError, match=r"^TXSESSION_STORE: no store has URLs"):
        made()


def test_withoutASecretThereIsNoService(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An app needs a secret, and the line that says so names the remedy.
    """
    monkeypatch.setenv("TXSESSION_SECRET", "")
    with pytest.raises(UsageError) as caught:
        made()
    for remedy in ("--secret-file", "--create-secret", "TXSESSION_SECRET"):
        assert remedy in str(caught.value)


def test_anAppThatCannotBeImportedSaysWhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Of an exception in the app's module, the line tells where it comes from.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(__import__("sys").path))
    (tmp_path / "broken_at_import.py").write_text("x = 1\nx / 0\n")
    (tmp_path / "broken_syntax.py").write_text("x = = 1\n")
    (tmp_path / "broken_exit.py").write_text("raise SystemExit(7)\n")
    misuse = "from txsession import CookieOptions\nCookieOptions(maxAge=0)\n"
    (tmp_path / "broken_misuse.py").write_text(misuse)
    with pytest.raises(UsageError, match=r"ZeroDivisionError: .*_import.py, line 2"):
        makeService(parsed("--app", "broken_at_import:app"))
    with pytest.raises(UsageError, match=r"SyntaxError: .*broken_syntax.py, line 1\)$"):
        makeService(parsed("--app", "broken_syntax:app"))
    with pytest.raises(UsageError, match=r"SystemExit: 7 \(.*broken_exit.py, line 1"):
        makeService(parsed("--app", "broken_exit:app"))
    with pytest.raises(UsageError, match=r"\(.*broken_misuse.py, line 2\)$"):
        makeService(parsed("--app", "broken_misuse:app"))


# The welcome.


@pytest_twisted.ensureDeferred
async def test_welcome(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Without an app, there is a page that counts visits and can destroy the
    session, and a secret for as long as the process lives.
    """
    monkeypatch.delenv("TXSESSION_SECRET")
    resource: Any = makeService(parsed()).site.resource
    browser = Browser(serve.site(resource).port)
    first = await browser.get()
    assert "You came <strong>once</strong>" in first.text
    assert "or when you have not come for 24 hours." in first.text
    assert "default-src 'none'" in (first.header("Content-Security-Policy") or "")
    second = await browser.get()
    assert "You came <strong>2 times</strong>" in second.text
    assert (await browser.post("/destroy", data={"token": "guessed"})).status == 403
    assert (await browser.post("/destroy")).status == 403
    assert await resource.store.length() == 1
    [token] = re.findall('name="token" value="([^"]+)"', second.text)
    gone = await browser.post("/destroy", data={"token": token})
    assert (gone.status, gone.header("Location")) == (303, "/destroyed")
    cookie = gone.cookie()
    assert cookie is not None
    assert cookie.isExpired
    assert await resource.store.length() == 0
    last = await browser.get("/destroyed")
    assert "The session is destroyed" in last.text
    assert last.setCookies == []
    assert (await browser.get("/nowhere")).status == 404


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--cookie-max-age=90", "It ends when you have not come for 90 seconds."),
        ("--ttl=2h", "or when you have not come for 2 hours."),
        ("--absolute-timeout=14d", ", and 14 days after it began at the latest."),
        ("--lazy", "You came <strong>once</strong>"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_welcomeTellsHowLongSessionsLast(
    serve: Serve, arguments: str, said: str
) -> None:
    """
    The page tells how long the session lasts, as the options have it.
    """
    resource: Any = makeService(parsed(*arguments.split())).site.resource
    reply = await Browser(serve.site(resource).port).get()
    assert said in reply.text


# Real processes.


BOTH = pytest.mark.parametrize("command", ["twistd", "twist"])


def started(
    programs: Programs, command: str, *arguments: str, **options: Any
) -> Program:
    start = programs.twistd if command == "twistd" else programs.twist
    return start(*arguments, **options)


@BOTH
@pytest_twisted.ensureDeferred
async def test_anAppOfTheCurrentDirectoryIsServed(
    programs: Programs,
    command: str,
) -> None:
    """
    An app in the current directory is served at each endpoint, its sessions
    outlast a restart, and a signal ends it.
    """
    (programs.directory / "mine.py").write_text("from tests.served import app\n")
    arguments = [
        *("--app", "mine:app", "--store", "sqlite:sessions.db"),
        *("--secret-file", "secret", "--create-secret", *LOOPBACK, *LOOPBACK),
    ]
    browser = Browser(0)
    for visits in ("1", "2"):
        program = started(programs, command, *arguments)
        pattern = r"(?s)127\.0\.0\.1:(\d+)/.*127\.0\.0\.1:(\d+)/"
        ports = (await program.until(pattern)).groups()
        for port in ports:
            browser.port = int(port)
            assert (await browser.get("/nothing")).status == 200
        assert (await browser.get()).text == visits
        program.signal("TERM")
        assert await program.end() == -15
        assert program.err == ""
        assert "Traceback" not in program.out


@BOTH
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--ttl", "forever"], "--ttl: must be seconds, or a number"),
        (["--app", "nowhere:app"], "--app: there is no module 'nowhere'"),
        (["--bogus"], "option --bogus not recognized"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_badUsageIsOneLine(
    programs: Programs,
    command: str,
    arguments: list[str],
    said: str,
) -> None:
    """
    Bad usage gives one line, and status 1.
    """
    program = started(programs, command, *arguments, TXSESSION_SECRET="x")
    assert await program.end() == 1
    assert program.out == ""
    [line] = program.err.splitlines()
    assert line.startswith(f"txsession: {said}")


@BOTH
@pytest_twisted.ensureDeferred
async def test_aPortThatIsNoneIsOneLine(programs: Programs, command: str) -> None:
    """
    So does a port that there cannot be.
    """
    program = started(programs, command, "--listen", "tcp:70000")
    assert await program.end() == 1
    [line] = program.err.splitlines()
    assert line == "txsession: --listen: bind(): port must be 0-65535."
    assert "Traceback" not in program.out


@BOTH
@pytest_twisted.ensureDeferred
async def test_aPortThatIsTakenIsOneLine(
    serve: Serve,
    programs: Programs,
    command: str,
) -> None:
    """
    So does a port that another server has, and no file is left behind.
    """
    taken = visit(serve).port
    program = started(programs, command, "--listen", f"tcp:{taken}:interface=127.0.0.1")
    assert await program.end() == 1
    [line] = program.err.splitlines()
    assert line.startswith(f"txsession: --listen: Couldn't listen on 127.0.0.1:{taken}")
    assert "Traceback" not in program.out
    assert list(programs.directory.iterdir()) == []


@pytest_twisted.ensureDeferred
async def test_aDaemonTellsThatItsPortIsTaken(serve: Serve, programs: Programs) -> None:
    """
    A daemon that cannot listen says so where it was started, with status 1.
    """
    taken = visit(serve).port
    endpoint = f"tcp:{taken}:interface=127.0.0.1"
    program = programs.python("twistd", "txsession", "--listen", endpoint)
    assert await program.end() == 1
    assert f"Couldn't listen on 127.0.0.1:{taken}" in program.err


@BOTH
@pytest_twisted.ensureDeferred
async def test_logFormat(programs: Programs, command: str) -> None:
    """
    The log is JSON if the option says so.
    """
    program = started(programs, command, *LOOPBACK, "--log-format", "json")
    await program.until("Serving at")
    program.signal("TERM")
    await program.end()
    events = [json.loads(line) for line in program.out.split("\x1e") if line.strip()]
    assert [e for e in events if e["log_namespace"] == "txsession.serving"]


@pytest_twisted.ensureDeferred
async def test_logFormatInAFile(programs: Programs) -> None:
    """
    It is so in the file that twistd logs to, too.
    """
    program = programs.python(
        *("twistd", "-n", "--logfile=log", "txsession", *LOOPBACK, "--log-format=json"),
        *("--app", "tests.served:makeAudible"),
        TXSESSION_SECRET=SECRET,
    )
    await program.until("it runs")
    program.signal("TERM")
    await program.end()
    lines = (programs.directory / "log").read_text().split("\x1e")
    events = [json.loads(line) for line in lines if line.strip()]
    assert [e for e in events if e["log_namespace"] == "txsession.serving"]
    assert program.out == "it runs\n"


@pytest_twisted.ensureDeferred
async def test_theLogIsRotated(programs: Programs) -> None:
    """
    SIGUSR1 rotates the log of twistd, in whatever format it is.
    """
    program = programs.python(
        *("twistd", "-n", "--logfile=log", "txsession", *LOOPBACK, "--log-format=json"),
        *("--app", "tests.served:makeAudible"),
        TXSESSION_SECRET=SECRET,
    )
    await program.until("it runs")
    program.signal("USR1")
    await eventually((programs.directory / "log.1").exists)
    program.signal("TERM")
    assert await program.end() == -15


@pytest_twisted.ensureDeferred
async def test_anotherReactorCanBeChosen(programs: Programs) -> None:
    """
    The plugin installs no reactor, so that another can be chosen, and its end is as
    graceful there.
    """
    program = programs.python(
        *("twist", "--reactor=asyncio", "--log-format=text", "txsession", *LOOPBACK),
        *("--app", "tests.served:makeSlow"),
        TXSESSION_SECRET=SECRET,
        files={3: "w"},
    )
    connection = await Browser(await program.port()).connect()
    connection.transport.write(GET)
    await program.until("a write waits")
    program.signal("TERM")
    await program.until("Requests that still run: 1")
    program.send(b".")
    assert b"\r\nSet-Cookie: connect.sid=" in await patiently(connection.closed)
    await program.end()
    assert "Traceback" not in program.out + program.err


@pytest.mark.parametrize("scheme", ["redis", "postgresql"])
@pytest_twisted.ensureDeferred
async def test_passwordsAreNotInTheLog(programs: Programs, scheme: str) -> None:
    """
    The password in a store's URL is not in the log, though the store cannot be
    reached.
    """
    program = programs.twistd(
        *("--app", "tests.served:app", *LOOPBACK, "--store-timeout", "5"),
        TXSESSION_SECRET=SECRET,
        TXSESSION_STORE=f"{scheme}://user:hunter2@127.0.0.1:1/0",
    )
    browser = Browser(await program.port())
    assert (await browser.get()).status == 503
    program.signal("TERM")
    await program.end()
    assert "hunter2" not in program.out + program.err
    assert SECRET not in program.out + program.err


# The guide.


GUIDE = ROOT / "docs/how-to/serve.md"


def blocks(language: str) -> list[str]:
    text = GUIDE.read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


@pytest_twisted.ensureDeferred
async def test_theGuideIsRight(programs: Programs) -> None:
    """
    The app of the guide is served by its commands, and answers as it shows.
    """
    app, tac = blocks("python")
    first, second, third = blocks("sh")
    (programs.directory / "hello.py").write_text(app)
    tac = tac.replace("tcp:8080", "tcp:0")
    (programs.directory / "hello.tac").write_text(app + tac)
    shown = re.findall(r"^Views: \d+$", blocks("console")[0], re.M)
    for command, listen, answers in (
        (first, LOOPBACK, None),
        (second, LOOPBACK, shown),
        (third.splitlines()[-1], (), shown),
    ):
        script, *arguments = command.split()
        program = programs.python(
            script, *arguments, *listen, TXSESSION_SECRET="from the environment"
        )
        browser = Browser(await program.port())
        said = [(await browser.get()).text.strip() for _ in shown]
        assert answers is None or said == answers
        program.signal("TERM")
        assert await program.end() == -15
        assert "Traceback" not in program.out + program.err


# The end.


@BOTH
@pytest_twisted.ensureDeferred
async def test_aSaveInFlightCompletes(programs: Programs, command: str) -> None:
    """
    Told to stop while a session is being saved, it lets nobody in, waits for the
    save, sends the response, stops the store, and ends.
    """
    program = started(
        programs,
        command,
        *("--app", "tests.served:makeSlow", "--grace-period", "10m", *LOOPBACK),
        TXSESSION_SECRET=SECRET,
        files={3: "w"},
    )
    browser = Browser(await program.port())
    idle, waiting = await browser.connect(), await browser.connect()
    idle.transport.write(GET.replace(b"/", b"/nothing", 1))
    await patiently(idle.until(b"nothing"))
    waiting.transport.write(GET)
    await program.until("a write waits")

    program.signal("TERM")
    await program.until("Requests that still run: 1")
    await patiently(idle.closed)
    assert await refuses(browser)
    assert waiting.received == b""
    program.send(b".")
    received = await patiently(waiting.closed)

    assert await program.end() == -15
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nSet-Cookie: connect.sid=" in received
    assert b"\r\nConnection: close\r\n" in received
    assert received.endswith(b"\r\n1\r\n1\r\n0\r\n\r\n")
    order = ["a write waits", "Received SIGTERM", "a write is done", "the store stops"]
    places = [program.out.index(each) for each in order]
    assert places == sorted(places)
    assert '"GET / HTTP/1.1" 200' in program.out
    assert "Traceback" not in program.out


async def refuses(browser: Browser) -> bool:
    from twisted.internet.error import ConnectionRefusedError as Refused

    try:
        connection = await browser.connect()
    except Refused:
        return True
    connection.transport.abortConnection()
    return False


@pytest_twisted.ensureDeferred
async def test_aSaveWhoseClientHasLeftCompletes(programs: Programs) -> None:
    """
    A save completes before the store is stopped, though nobody waits for the
    response any more.
    """
    program = programs.twistd(
        *("--app", "tests.served:makeSlow", "--grace-period", "10m", *LOOPBACK),
        TXSESSION_SECRET=SECRET,
        files={3: "w"},
    )
    connection = await Browser(await program.port()).connect()
    connection.transport.write(GET)
    await program.until("a write waits")
    connection.transport.abortConnection()
    program.signal("TERM")
    await program.until("Stopping factory|Port .* Closed")
    program.send(b".")
    assert await program.end() == -15
    assert program.out.index("a write is done") < program.out.index("the store stops")


@BOTH
@pytest_twisted.ensureDeferred
async def test_aStreamIsCutAfterTheGracePeriod(
    programs: Programs, command: str
) -> None:
    """
    A stream that does not end is cut after the grace period, and the log says
    so.
    """
    program = started(
        programs, command, *APP, *LOOPBACK, "--grace-period=0.1", TXSESSION_SECRET="x"
    )
    connection = await streaming(program)
    program.signal("INT")
    assert not (await patiently(connection.closed)).endswith(b"0\r\n\r\n")
    assert await program.end() == -2
    assert "were cut off: 1 (GET /stream)" in program.out


@BOTH
@pytest_twisted.ensureDeferred
async def test_aSecondSignalEndsTheGracePeriod(
    programs: Programs, command: str
) -> None:
    """
    A second signal cuts what still runs at once.
    """
    program = started(
        programs, command, *APP, *LOOPBACK, "--grace-period=1d", TXSESSION_SECRET="x"
    )
    connection = await streaming(program)
    program.signal("TERM")
    await program.until("Requests that still run: 1")
    program.signal("INT")
    await patiently(connection.closed)
    assert await program.end() == -15
    assert "Told to stop once more" in program.out
    assert "Traceback" not in program.out


async def streaming(program: Program) -> Connection:
    connection = await Browser(await program.port()).connect()
    connection.transport.write(GET.replace(b"/", b"/stream", 1))
    await patiently(connection.until(b"begun"))
    return connection
