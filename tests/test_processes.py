"""
Several processes at one socket, with one store, as the guide has it.
"""

from __future__ import annotations

import re
import shlex
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from attrs import define, field

from txsession.tap import Options

from .programs import (
    ROOT,
    Program,
    Programs,
    programsOfATest,  # noqa: F401
    scriptPath,
)
from .support import SECRET, Browser

GUIDE = ROOT / "docs/how-to/several-processes.md"


def commandOfTheGuide() -> list[str]:
    """
    The arguments that systemd starts twistd with.
    """
    command = re.search(r"^ExecStart=((?:.*\\\n)*.*)$", GUIDE.read_text(), re.M)
    assert command is not None
    _, *arguments = shlex.split(command[1].replace("\\\n", " "))
    return arguments


def test_theCommandOfTheGuideIsRight() -> None:
    """
    The plugin understands the command of the guide.
    """
    arguments = commandOfTheGuide()
    start = arguments.index("txsession") + 1
    Options().parseOptions(arguments[start:])


@define(eq=False)
class Systemd:
    """
    Does what systemd does: holds a listening socket, and starts services with it.
    """

    programs: Programs
    socket: socket.socket = field(factory=socket.socket)

    def listen(self) -> int:
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen(100)
        port: int = self.socket.getsockname()[1]
        return port

    def start(self) -> Program:
        """
        Start an instance of the service, with an app and a store of the test.
        """
        arguments = commandOfTheGuide()
        for option, value in (
            ("--app", "tests.served:app"),
            ("--store", "sqlite:sessions.db"),
        ):
            arguments[arguments.index(option) + 1] = value
        return self.programs(
            *("/bin/sh", "-c", 'export LISTEN_PID=$$; exec "$0" "$@"'),
            *(scriptPath("twistd"), *arguments),
            LISTEN_FDS="1",
            LISTEN_FDNAMES="shop.socket",
            TXSESSION_SECRET=SECRET,
            files={3: self.socket.fileno()},
        )


@pytest.fixture
def systemd(programs: Programs) -> Iterator[Systemd]:
    manager = Systemd(programs)
    yield manager
    manager.socket.close()


async def processOf(browser: Browser) -> int:
    return int((await browser.get("/process")).text)


@pytest_twisted.ensureDeferred
async def test_eachProcessServesTheSameSessions(systemd: Systemd) -> None:
    """
    Whichever of three processes answers, the session is the same.
    """
    browser = Browser(systemd.listen())
    running = [systemd.start() for _ in range(3)]
    for program in running:
        assert await program.port() == browser.port
    visits = 0
    for only in running:
        others = [program for program in running if program is not only]
        for program in others:
            program.signal("STOP")
        only_: Any = only.transport
        assert await processOf(browser) == only_.pid
        for _ in range(2):
            visits += 1
            assert (await browser.get()).text == str(visits)
        for program in others:
            program.signal("CONT")
    for program in running:
        program.signal("TERM")
        assert await program.end() == -15
        assert "Traceback" not in program.out + program.err


@pytest_twisted.ensureDeferred
async def test_processesAreReplacedWithoutALostRequest(systemd: Systemd) -> None:
    """
    While one process after the other is replaced, each request is answered, and
    the session goes on.
    """
    browser = Browser(systemd.listen())
    running = [systemd.start() for _ in range(2)]
    for program in running:
        await program.port()
    visits = 0
    for old in list(running):
        new = systemd.start()
        old.signal("TERM")
        while not old.isOver or "Serving at" not in new.out:
            visits += 1
            reply = await browser.get()
            assert (reply.status, reply.text) == (200, str(visits))
        assert await old.end() == -15
    assert visits > 2
