"""
The example of Express and Klein side by side, run as its reader would.
"""

from __future__ import annotations

import re
from typing import Any

import psutil
import pytest
import pytest_twisted

from ..support import Browser, Reply, patiently
from ..test_examples import ROOT, Program, portIn, run, stop
from .node import install
from .sharing import Redis


@pytest.fixture
def packages() -> None:
    install(ROOT / "examples" / "side_by_side")


def visits(reply: Reply) -> tuple[int, int]:
    """
    How often the page says that one was at Express and at Klein's.
    """
    found = re.search(r"You were (\d+) times? here and (\d+) times? at", reply.text)
    assert found is not None, reply.text
    here, there = map(int, found.groups())
    return (here, there) if "<h1>Express</h1>" in reply.text else (there, here)


def notes(reply: Reply) -> list[tuple[str, ...]]:
    return re.findall(r'<li>(.*?)<span class="hint">(.*?)</span></li>', reply.text)


def childrenOf(program: Program) -> list[psutil.Process]:
    process: Any = program.transport
    return psutil.Process(process.pid).children()


async def followed(browser: Browser, path: str, **data: str) -> Reply:
    """
    What a form leads to.
    """
    reply = await browser.post(path, data=data)
    assert reply.status == 303
    return await browser.get(reply.header("Location") or "")


async def leaveEarly(browser: Browser, path: str) -> None:
    """
    Post a form, and be gone as soon as there is a redirect.
    """
    connection = await browser.connect()
    cookie = browser.cookies["connect.sid"]
    connection.transport.write(
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n"
        f"Cookie: connect.sid={cookie}\r\n\r\n".encode()
    )
    await patiently(connection.until(b"Location:"))
    connection.transport.abortConnection()
    await connection.closed


@pytest.mark.usefixtures("packages")
@pytest_twisted.ensureDeferred
async def test_expressAndKleinShareWhatIsWrittenDown() -> None:
    """
    One browser is counted by both, under one cookie; what it has one write down, the
    other shows, escaped; and what one forgets is forgotten.  Ctrl-C ends all that
    was started.
    """
    program = run("examples.side_by_side.run", "0", **withoutRedis())
    try:
        browser = Browser(portIn(await program.announced))
        started = childrenOf(program)
        assert (await browser.get("/")).header("Location") == "/klein/"
        style = (await browser.get("/style.css")).text
        pages = ("/express", "/klein/", "/klein/", "/express")
        seen = [visits(await browser.get(page)) for page in pages]
        assert seen == [(1, 0), (1, 1), (1, 2), (2, 2)]
        assert len(browser.cookies) == 1
        assert style in (await browser.get("/klein/")).text

        written = await followed(browser, "/express/notes", text="<tea> & ümlaut")
        assert notes(written) == [("&#60;tea&#62; &#38; ümlaut", "Express")]
        written = await followed(browser, "/klein/notes", text='"milk"')
        both = [("&lt;tea&gt; &amp; ümlaut", "Express"), ('"milk"', "Klein")]
        assert notes(written) == both
        assert len(notes(await browser.get("/express"))) == 2
        await leaveEarly(browser, "/express/notes")
        assert notes(await followed(browser, "/express/forget")) == []
        assert visits(await browser.get("/klein/")) == (1, 1)
        assert visits(await followed(browser, "/klein/forget")) == (0, 1)
    finally:
        status, _, err = await stop(program, "INT")
    assert (status, "Unhandled" in err, "Traceback" in err) == (0, False, False)
    assert len(started) == 2
    assert not any(process.is_running() for process in started)


@pytest.mark.usefixtures("packages")
@pytest_twisted.ensureDeferred
async def test_redisOfTheEnvironmentIsUsed(redisHere: Redis) -> None:
    """
    With REDIS_URL no server is started: the sessions are on the one it names.
    """
    program = run("examples.side_by_side.run", "0", REDIS_URL=redisHere.url)
    try:
        browser = Browser(portIn(await program.announced))
        cookie: Any = (await browser.get("/express")).cookie()
        stored = redisHere.look(cookie.sid)
        assert stored is not None
        assert stored.document["visits"] == {"express": 1}
        assert len(childrenOf(program)) == 1
    finally:
        status, *_ = await stop(program, "TERM")
    assert status == 0


@pytest_twisted.ensureDeferred
async def test_withoutNodeItSaysSo() -> None:
    """
    Where there is no Node, that is said, in one line.
    """
    program = run("examples.side_by_side.run", "0", PATH="/nowhere", **withoutRedis())
    program.announced.addErrback(lambda _: None)
    status, _, err = await program.ended
    assert status == 1
    assert re.fullmatch(r"There is no n(ode|pm); install Node 20 or newer\.\n", err)


def withoutRedis() -> dict[str, str]:
    # An empty value counts as none.
    return {"REDIS_URL": ""}
