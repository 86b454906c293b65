"""
Where the tests carry out command lines of txsession without a process for each.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import define
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread, deferToThread

import txsession
from txsession import MemoryStore, command, places


@define
class Said:
    """
    What a command line wrote, and its status.
    """

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def problem(self) -> str:
        """
        The one line that says what went wrong.
        """
        assert (self.status, self.out) == (1, "")
        return self.onlyLine

    @property
    def onlyLine(self) -> str:
        [line] = self.err.splitlines()
        assert line.startswith("txsession: ")
        return line.removeprefix("txsession: ")


class Terminal:
    """
    Carries out command lines in this process.

    @ivar stores: those that there are, by URL.
    """

    def __init__(self, capsys: Any) -> None:
        self.capsys = capsys
        self.stores: dict[str, Any] = {"store://a": MemoryStore()}

    @property
    def store(self) -> Any:
        return self.stores["store://a"]

    def find(self, url: str) -> Any:
        return self.stores.get(url) or txsession.storeFromURL(url)

    async def __call__(self, *arguments: str) -> Said:
        status = await deferToThread(command.main, arguments)
        out, err = self.capsys.readouterr()
        return Said(status, out, err)

    async def on(self, name: str, *arguments: str) -> Said:
        """
        Carry out a command on the store.
        """
        return await self(name, "--store", "store://a", *arguments)


def runHere(work: Any, stop: Any = None) -> Any:
    """
    Stands for runReactor in a thread, beside a reactor that runs already.
    """
    return blockingCallFromThread(reactor, lambda: Deferred.fromCoroutine(work()))


@pytest.fixture(name="terminal")
def terminalOfATest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Terminal]:
    """
    Where command lines are carried out in this process, in an empty folder.
    """
    terminal = Terminal(capsys)
    monkeypatch.setattr(command, "runReactor", runHere)
    monkeypatch.setattr(places, "storeFromURL", terminal.find)
    monkeypatch.delenv("TXSESSION_STORE", raising=False)
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    yield terminal
    sys.path[:] = path
