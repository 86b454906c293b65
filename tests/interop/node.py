"""
The Node process that the tests share sessions with, and its packages.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from ..support import patiently

HERE = Path(__file__).parent

INSTALL = [
    *("npm", "install", "--no-package-lock", "--no-audit", "--no-fund"),
    *("--ignore-scripts", "--loglevel=error"),
]

INSTALLING = 300
"""
Seconds that npm may take.
"""


def install(folder: Path) -> None:
    """
    See to it that the packages that a folder's C{package.json} names are there.
    The test is skipped where they cannot be.
    """
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("needs Node 20 or newer, with npm")
    wanted = folder / "package.json"
    installed = folder / "node_modules" / ".package-lock.json"
    with wanted.open() as file:
        # Another run of the tests may be about to do the same.
        fcntl.flock(file, fcntl.LOCK_EX)
        if installed.exists() and installed.stat().st_mtime >= wanted.stat().st_mtime:
            return
        try:
            subprocess.run(
                INSTALL, cwd=folder, capture_output=True, check=True, timeout=INSTALLING
            )
        except subprocess.SubprocessError as error:
            said = (getattr(error, "stderr", None) or b"").decode(errors="replace")
            pytest.skip(f"npm could not install the packages: {error} {said}")
        installed.touch()


@define(eq=False)
class Node(ProcessProtocol):
    """
    C{server.js}, running.

    @ivar ended: fires with what it wrote to stderr, when it has ended.
    """

    ended: Deferred[str] = field(factory=Deferred)
    _lines: bytes = b""
    _complaints: str = ""
    _ids: Iterator[int] = field(factory=count)
    _asked: dict[int, Deferred[Any]] = field(factory=dict)
    _paused: list[Deferred[None]] = field(factory=list)

    @classmethod
    def start(cls) -> Node:
        node = cls()
        program = shutil.which("node")
        assert program is not None
        process: Any = reactor
        process.spawnProcess(
            node, program, [program, str(HERE / "server.js")], env=dict(os.environ)
        )
        return node

    def ask(self, question: str, argument: Any = None) -> Deferred[Any]:
        """
        Fires with the answer.
        """
        asked: Deferred[Any] = Deferred()
        number = next(self._ids)
        self._asked[number] = asked
        message = {"id": number, "question": question, "argument": argument}
        self.transport.write(json.dumps(message).encode() + b"\n")  # type: ignore[union-attr]
        return patiently(asked)

    def paused(self) -> Deferred[None]:
        """
        Fires when a script has come to its next C{pause()}.
        """
        waiting: Deferred[None] = Deferred()
        self._paused.append(waiting)
        return patiently(waiting)

    def stop(self) -> Deferred[str]:
        self.transport.closeStdin()  # type: ignore[union-attr]
        return patiently(self.ended)

    def outReceived(self, data: bytes) -> None:
        *lines, self._lines = (self._lines + data).split(b"\n")
        for line in lines:
            self._hear(json.loads(line))

    def _hear(self, message: dict[str, Any]) -> None:
        if message.get("event") == "paused":
            self._paused.pop(0).callback(None)
        elif "error" in message:
            self._asked.pop(message["id"]).errback(AssertionError(message["error"]))
        else:
            self._asked.pop(message["id"]).callback(message["result"])

    def errReceived(self, data: bytes) -> None:
        self._complaints += data.decode()

    def processEnded(self, reason: Failure) -> None:
        error = AssertionError(f"Node has ended: {self._complaints}")
        for waiting in [*self._asked.values(), *self._paused]:
            waiting.errback(error)
        self.ended.callback(self._complaints)
