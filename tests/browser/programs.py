"""
Programs that the tests start and end: servers, proxies, the browser's driver.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TypeVar

import pytest
from attrs import define

from ..support import PATIENCE

ROOT = Path(__file__).parents[2]

T = TypeVar("T")

PACKAGES = {
    "chromium": "chromium",
    "chromedriver": "chromium-driver",
    "nginx": "nginx-light",
    "haproxy": "haproxy",
}
"""
The programs, and the packages of Debian that have them.
"""


def find(name: str) -> str:
    """
    The path of a program.  The test is skipped where it is not installed.
    """
    # Where Debian puts servers, which is in the PATH of root alone.
    places = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
    found = shutil.which(name, path=places)
    if found is None:
        pytest.skip(f"needs {name} (in Debian, the package {PACKAGES[name]})")
    return found


def until(condition: Callable[[], T], what: str) -> T:
    """
    Wait until something is so, but not for ever.

    @param what: what it is, for the one who reads that it never came about.
    @return: what the condition gave at last.
    """
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"it never came about: {what}"
        time.sleep(0.005)
    return found


@define(eq=False)
class Program:
    """
    A program that was started, in a process group of its own.

    @ivar log: the file that has all that it says.
    """

    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def start(cls, command: Sequence[str], log: Path, **environment: str) -> Program:
        inherited = {k: v for k, v in os.environ.items() if k != "TXSESSION_SECRET"}
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={**inherited, **environment},
                start_new_session=True,
            )
        return cls(process, log)

    @property
    def said(self) -> str:
        return self.log.read_text("utf-8", "replace")

    @property
    def isRunning(self) -> bool:
        return self.process.poll() is None

    def says(self, pattern: str) -> re.Match[str]:
        """
        Wait until it says this.
        """

        def look() -> re.Match[str] | None:
            isRunning = self.isRunning  # what it said before it ended counts
            found = re.search(pattern, self.said)
            assert found or isRunning, f"{self.process.args!r} ended: {self.said}"
            return found

        found = until(look, f"{self.process.args!r} says {pattern!r}")
        assert found is not None
        return found

    def end(self) -> None:
        """
        End it, and what it has started.
        """
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@define(eq=False)
class Programs:
    """
    Starts programs, and ends them after the tests.
    """

    directory: Path
    started: list[Program]

    def start(self, *command: str, **environment: str) -> Program:
        log = self.directory / f"{len(self.started)}-{Path(command[0]).name}.log"
        program = Program.start(command, log, **environment)
        self.started.append(program)
        return program

    def serve(self, module: str, *arguments: str) -> Server:
        """
        Start a server of Python, which says where it listens.
        """
        program = self.start(sys.executable, "-m", module, *arguments)
        port = program.says(r"http://127\.0\.0\.1:(\d+)/")[1]
        return Server(program, int(port))

    def end(self) -> None:
        with ExitStack() as ending:
            for program in self.started:
                ending.callback(program.end)


@define(eq=False)
class Server:
    """
    A server that was started, on 127.0.0.1.
    """

    program: Program
    port: int

    @property
    def home(self) -> str:
        return f"http://127.0.0.1:{self.port}"
