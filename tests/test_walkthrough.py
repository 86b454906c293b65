"""
What the pages have a reader type in a terminal comes out as they say.

The commands of other pages are run elsewhere: those of F{serve.md} by
C{test_tap}, those of F{administer.md} and F{command.md} by C{stores/test_command},
those of the README by the CI.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import pytest_twisted

from .programs import Program, Programs, programsOfATest  # noqa: F401
from .test_docs import blocks

needsCurl = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")

PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

SERVE = blocks("docs/tutorial.md", "python")[0].partition("if __name__")[2]
"""
The end of the tutorial's app, which serves it.
"""


def sessions(page: str) -> list[list[tuple[str, str]]]:
    """
    The terminal sessions on a page, as commands and what they print.
    """
    return [
        re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.M)
        for block in blocks(page, "console")
    ]


def asPattern(printed: str) -> str:
    """
    What matches what a page shows: dots stand for anything, and what is drawn at
    random is not compared.
    """
    printed = re.sub(r"s%3A\w+\.\.\.", "s%3A...", printed.rstrip())
    pattern = re.escape(printed).replace(r"\.\.\.", ".*?")
    pattern = re.sub(r"\b[0-9a-f]{10}\b", "[0-9a-f]{10}", pattern)
    return pattern.replace("\\\n", r"\r?\n")


class Terminal:
    """
    Types commands, at a server that has another port than the pages say.
    """

    def __init__(self, programs: Programs, port: int) -> None:
        self.programs = programs
        self.port = port
        self.token = ""

    async def follow(self, session: list[tuple[str, str]]) -> None:
        """
        Type the commands of a page, each when the one before has printed what the
        page says.
        """
        for command, printed in session:
            typed = command.replace(":8080/", f":{self.port}/")
            typed = typed.replace("token=...", f"token={self.token}")
            program = self.programs(
                "bash", "-c", typed.replace(".venv/bin/", ""), PATH=PATH
            )
            said = await program.until(f"(?s)^{asPattern(printed)}")
            if 'value="' in said[0]:
                self.token = re.search('value="([^"]*)"', program.out)[1]  # type: ignore[index]
            if "-sN" in command:  # a stream
                program.signal("TERM")
            await program.end()


async def served(programs: Programs, code: str) -> tuple[Program, Terminal]:
    """
    Run the code of a page as its reader would.
    """
    # Any free port, and say which.
    code = code.replace("reactor.listenTCP(8080,", "port = reactor.listenTCP(0,")
    code = code.replace(
        'print("Open http://127.0.0.1:8080/"',
        'print(f"Open http://127.0.0.1:{port.getHost().port}/"',
    )
    programs.directory.joinpath("app.py").write_text(code)
    program = programs(sys.executable, "app.py")
    port = (await program.until(r"Open http://127\.0\.0\.1:(\d+)/"))[1]
    return program, Terminal(programs, int(port))


@needsCurl
@pytest_twisted.ensureDeferred
async def test_theTutorial(programs: Programs) -> None:
    """
    The app of the tutorial counts, shows its cookie, and goes on counting where the
    plugin serves it, of which the command tells.
    """
    count, cookie, again, look = sessions("docs/tutorial.md")
    [code] = [b for b in blocks("docs/tutorial.md", "python") if "__main__" in b]
    program, terminal = await served(programs, code)
    await terminal.follow(count[1:])
    await terminal.follow(cookie)
    program.signal("TERM")
    await program.end()
    [command] = [
        line
        for block in blocks("docs/tutorial.md", "sh")
        for line in block.splitlines()
        if "--app app:app" in line
    ]
    script, *words = command.removeprefix(".venv/bin/").split()
    programs.directory.joinpath("jar").unlink()
    for some in (again[:2], again[2:]):
        plugin = programs.python(script, *words, "--listen=tcp:0:interface=127.0.0.1")
        await Terminal(programs, await plugin.port()).follow(some)
        plugin.signal("TERM")
        await plugin.end()
    await Terminal(programs, 0).follow(look)


@needsCurl
@pytest.mark.parametrize("page", ["log-in-safely", "run-behind-a-proxy"])
@pytest_twisted.ensureDeferred
async def test_pagesThatAreServedLikeTheTutorial(programs: Programs, page: str) -> None:
    """
    The first session of these pages goes as they say.
    """
    path = f"docs/how-to/{page}.md"
    code = "\n".join(blocks(path, "python")) + f"\n\nif __name__{SERVE}"
    _, terminal = await served(programs, code)
    await terminal.follow(sessions(path)[0])


@pytest_twisted.ensureDeferred
async def test_rotatingSecrets(programs: Programs) -> None:
    """
    The secrets are made and rotated as the page says, and the plugin takes them.
    """
    [code] = [b for b in blocks("docs/tutorial.md", "python") if "__main__" in b]
    programs.directory.joinpath("hello.py").write_text(code)
    for session in sessions("docs/how-to/rotate-secrets.md"):
        for command, printed in session:
            if not command.startswith("twistd "):
                await Terminal(programs, 0).follow([(command, printed)])
                continue
            plugin = programs.python(
                *command.split(), "--listen=tcp:0:interface=127.0.0.1"
            )
            await plugin.port()
            plugin.signal("TERM")
            await plugin.end()


@needsCurl
@pytest_twisted.ensureDeferred
async def test_theStream(programs: Programs) -> None:
    """
    Curl sees the stream of the bakery as the page says.
    """
    bakery = programs(sys.executable, "-m", "examples.events", "0")
    port = (await bakery.until(r"http://127\.0\.0\.1:(\d+)/"))[1]
    [session] = sessions("docs/how-to/streams-and-websockets.md")
    await Terminal(programs, int(port)).follow(session)


COVERED = {
    "README.md": ".ci/run",
    "docs/how-to/administer.md": "tests/stores/test_command.py",
    "docs/how-to/serve.md": "tests/test_tap.py",
    "docs/reference/command.md": "tests/stores/test_command.py",
}


def test_everySessionIsFollowed() -> None:
    """
    No page has commands with an output that no test compares.
    """
    from .test_docs import PAGES, ROOT, nameOf

    here = Path(__file__).read_text()
    for page in map(nameOf, PAGES):
        if not blocks(page, "console"):
            continue
        tester = ROOT / COVERED.get(page, "tests/test_walkthrough.py")
        name = Path(page).name.removesuffix(".md")
        assert name in (here if page not in COVERED else tester.read_text()), page
