"""
The command txsession on real servers, and as the guide shows it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_twisted

from tests.support import PATIENCE
from tests.terminal import Terminal, terminalOfATest  # noqa: F401
from txsession import Record
from txsession.signing import fingerprint
from txsession.stores.sqlite import SQLiteStore

ROOT = Path(__file__).parents[2]
SESSIONS = {
    "bob": (3600, {"user": "bob"}),
    "ada-phone": (7200, {"user": "ada"}),
    "ada-laptop": (14 * 86400, {"user": "ada", "cart": [7]}),
    "ada-tablet": (15 * 86400, {"user": "ada"}),
}


def record(seconds: float, data: dict[str, Any]) -> Record:
    cookie = {"cookie": {"originalMaxAge": None, "expires": None}}
    document = json.dumps({**cookie, **data}, separators=(",", ":"))
    return Record(document.encode(), time.time() + seconds)


async def fill(path: Path, *sids: str) -> None:
    store = SQLiteStore(path)
    for sid in sids or SESSIONS:
        await store.set(sid, record(*SESSIONS[sid]))
    await store.stop()


def shell(script: str, folder: Path, **variables: str) -> str:
    """
    What a script writes, with our txsession and Python.
    """
    programs = Path(sys.executable).parent
    done = subprocess.run(
        ["bash", "-eu"],
        input=script,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        timeout=PATIENCE * 4,
        check=False,
        env={
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(folder),
            **variables,
        },
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def withOption(url: str, option: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}{option}"


@pytest_twisted.ensureDeferred
async def test_roundTheStores(
    terminal: Terminal,
    redisServer: Any,
    postgresqlServer: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Sessions go from SQLite to PostgreSQL to Redis and back, and are what they were;
    every command works on every store.
    """
    await fill(Path("a.db"))
    run = uuid4().hex
    postgresql = withOption(postgresqlServer.url, f"table=command_{run[:8]}")
    redis = withOption(redisServer.url, f"prefix={run}:")
    way = ["sqlite:a.db", postgresql, redis, "sqlite:b.db"]
    for source, target in pairwise(way):
        said = await terminal("copy", source, target)
        assert (said.out, said.err) == ("copied 4, skipped 0, failed 0\n", "")
    assert await contents("a.db") == await contents("b.db")
    for url in way:
        monkeypatch.setenv("TXSESSION_STORE", url)
        shown = (await terminal("show", fingerprint("ada-laptop"), "--json")).json
        assert shown["data"] == SESSIONS["ada-laptop"][1]
        said = await terminal("destroy", "--where", "user=ada")
        assert said.out == "destroyed 3 sessions\n"
        [left] = (await terminal("list", "--json", "--reveal")).json
        assert left["id"] == "bob"
        assert (await terminal("prune", "--json")).json == {"pruned": 0}
        assert (await terminal("clear", "--yes")).out == "forgot 1 session\n"
        assert (await terminal("list")).out == "0 sessions\n"


async def contents(path: str) -> dict[str, Record]:
    store = SQLiteStore(path)
    records = await store.all()
    await store.stop()
    return records


@pytest_twisted.ensureDeferred
async def test_tableThatIsMissing(tmp_path: Path, postgresqlServer: Any) -> None:
    """
    To look into a database makes no table there.
    """
    url = withOption(postgresqlServer.url, "table=nosuch")
    said = shell("! txsession list; ! txsession list", tmp_path, TXSESSION_STORE=url)
    lines = said.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.startswith('txsession: there is no table "nosuch"; make it')


def console(page: str) -> list[tuple[str, str]]:
    """
    The commands of a page's console blocks, and what they write.
    """
    text = re.sub(r"^ {3}", "", (ROOT / page).read_text("utf-8"), flags=re.M)
    shown = "".join(re.findall(r"^```console\n(.*?)^```$", text, re.M | re.S))
    return re.findall(r"^\$ (.*\n)((?:(?!\$ ).*\n)*)", shown, re.M)


def normal(output: str) -> str:
    """
    Output without what is different each time, and without the columns that this
    moves.
    """
    for pattern, stands in (
        (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "DATE"),
        (r"\b\d{10}\.\d+", "TIMESTAMP"),
        (r"\bin \d+ \w+", "SOON"),
        (r"\b1\.\d[\d.\w]*", "VERSION"),
        (" +", " "),
    ):
        output = re.sub(pattern, stands, output)
    return output


@pytest.mark.parametrize("page", ["how-to/administer.md", "reference/command.md"])
@pytest_twisted.ensureDeferred
async def test_consoleOfThePages(page: str, tmp_path: Path, redisServer: Any) -> None:
    """
    What the pages show in a console is what there is to see.
    """
    await fill(tmp_path / "sessions.db", "bob", "ada-phone", "ada-laptop")
    script = "separate() { echo; echo =====; }\n"
    commands = console(f"docs/{page}")
    for command, _ in commands:
        # Between the parts of the page, the application goes on.
        if "NEW_STORE=" in command:
            script += f"{sys.executable} -m tests.stores.test_command\n"
        if "txsession prune" in command:
            script += f"{sys.executable} -m tests.stores.test_command expired\n"
        script += f"{command}separate\n"
    url = f"{redisServer.url}?prefix={uuid4().hex}:"
    said = shell(
        script.replace("redis://127.0.0.1", url), tmp_path, PYTHONPATH=str(ROOT)
    )
    outputs = said.split("\n=====\n")[:-1]
    assert len(outputs) == len(commands) > 1
    for (command, expected), output in zip(commands, outputs, strict=True):
        assert normal(output) == normal(expected), command


if __name__ == "__main__":
    # Fills the store of the guide anew.
    from twisted.internet.task import react

    async def main(reactor: Any, *arguments: str) -> None:
        await fill(Path("sessions.db"))
        if arguments:
            store = SQLiteStore("sessions.db")
            for sid in ("old", "older"):
                await store.set(sid, record(-60, {}))
            await store.stop()

    react(main, sys.argv[1:])
