"""
Programs that tests start, and what they say.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import define, field
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from .support import patiently

ROOT = Path(__file__).parents[1]


@define(eq=False)
class Program(ProcessProtocol):
    """
    A program that was started.

    @ivar ended: fires with its exit status, or the negative number of the signal
        that ended it.
    """

    out: str = ""
    err: str = ""
    ended: Deferred[int] = field(factory=Deferred)
    isOver: bool = False
    _awaited: list[tuple[str, Deferred[Any]]] = field(factory=list)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        if childFD == 2:
            self.err += data.decode()
        else:
            self.out += data.decode()
        self._look()

    def processEnded(self, reason: Failure) -> None:
        self.isOver = True
        status: Any = reason.value
        self.ended.callback(status.exitCode if not status.signal else -status.signal)
        for _, waiting in self._awaited:
            waiting.errback(AssertionError(self.out + self.err))

    def until(self, pattern: str) -> Deferred[Any]:
        """
        Fires when the program has said this, with the match.
        """
        waiting: Deferred[Any] = Deferred()
        self._awaited.append((pattern, waiting))
        self._look()
        return patiently(waiting)

    def _look(self) -> None:
        for item in list(self._awaited):
            found = re.search(item[0], self.out + self.err)
            if found:
                self._awaited.remove(item)
                item[1].callback(found)

    async def port(self) -> int:
        """
        The first port that it serves at.
        """
        return int((await self.until(r"Serving at https?://127\.0\.0\.1:(\d+)/"))[1])

    def signal(self, name: str) -> None:
        transport: Any = self.transport
        with suppress(ProcessExitedAlready):
            transport.signalProcess(getattr(signal, f"SIG{name}"))

    def send(self, data: bytes) -> None:
        """
        Write to its gate.
        """
        transport: Any = self.transport
        transport.writeToChild(3, data)

    async def end(self) -> int:
        """
        How it ended.
        """
        status: int = await patiently(self.ended)
        return status


class Programs:
    """
    Starts programs in an empty directory, and ends them after the test.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.programs: list[Program] = []

    def __call__(
        self,
        *command: str,
        files: dict[int, Any] | None = None,
        **environment: str,
    ) -> Program:
        """
        Start a program that finds the modules of the project.

        @param files: what it has for file descriptors from 3 on.
        """
        inherited = {k: v for k, v in os.environ.items() if "TXSESSION" not in k}
        program = Program()
        process: Any = reactor
        process.spawnProcess(
            program,
            command[0],
            command,
            env={**inherited, "PYTHONPATH": str(ROOT), **environment},
            path=str(self.directory),
            childFDs={0: "w", 1: "r", 2: "r", **(files or {})},
        )
        self.programs.append(program)
        return program

    def twistd(self, *arguments: str, **options: Any) -> Program:
        return self.python("twistd", "-n", "txsession", *arguments, **options)

    def twist(self, *arguments: str, **options: Any) -> Program:
        text = "--log-format=text"
        return self.python("twist", text, "txsession", *arguments, **options)

    def python(self, script: str, *arguments: str, **options: Any) -> Program:
        """
        Start a script of the environment that runs the tests.
        """
        return self(sys.executable, scriptPath(script), *arguments, **options)

    async def stop(self) -> None:
        for program in self.programs:
            if not program.isOver:
                program.signal("KILL")
                await program.end()


def scriptPath(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


@pytest.fixture(name="programs")
def programsOfATest(tmp_path: Path) -> Iterator[Programs]:
    running = Programs(tmp_path)
    yield running
    pytest_twisted.blockon(Deferred.fromCoroutine(running.stop()))
