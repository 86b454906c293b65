"""
The command txsession.

Most command lines are carried out in this process, on the reactor of the tests; what
becomes of signals, pipes and terminals is tried with processes.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import fail

import txsession
from txsession import MemoryStore, Record, StoreUnavailable, command, copying, places
from txsession.document import TOMBSTONE
from txsession.signing import fingerprint
from txsession.stores.sqlite import SQLiteStore

from .support import PATIENCE, only
from .terminal import Said, Terminal, terminalOfATest  # noqa: F401
from .test_docs import run, tables, text

ADA = "ada-abcdefghijklmnopqrstuvwxyz01"
ADA_TOO = "ada-too-abcdefghijklmnopqrstuvwx"
BOB = "bob-abcdefghijklmnopqrstuvwxyz01"
PASSWORD = "correct-horse"


def record(user: str | None = None, *, seconds: float = 3600, **data: Any) -> Record:
    if user is not None:
        data["user"] = user
    document = {"cookie": {"originalMaxAge": 3_600_000, "expires": None}, **data}
    return Record(json.dumps(document).encode(), reactor.seconds() + seconds)


@pytest.fixture
def filled(terminal: Terminal) -> Terminal:
    """
    The same, with a store that holds three sessions of two users, and a record that
    is corrupt.
    """
    terminal.store.set(ADA, record("ada"))
    terminal.store.set(ADA_TOO, record("ada", seconds=7200))
    terminal.store.set(BOB, record("bob", seconds=600, cart={"items": [1, 2]}))
    terminal.store.set("corrupt", Record(b"{", reactor.seconds() + 9000))
    return terminal


# list


@pytest_twisted.ensureDeferred
async def test_lists(filled: Terminal) -> None:
    """
    The list has every session, also those that are corrupt, and no IDs.
    """
    said = await filled.on("list", "--key", "user")
    lines = said.out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "FINGERPRINT",
        *map(fingerprint, (BOB, ADA, ADA_TOO, "corrupt")),
        "4",
    ]
    assert lines[1].split()[-1] == "bob"
    assert "corrupt: the stored record is not JSON" in lines[4]
    assert (said.status, said.err) == (0, "")
    assert ADA not in said.out


@pytest_twisted.ensureDeferred
async def test_listsForMachines(filled: Terminal) -> None:
    """
    With --json, the list is one array.
    """
    listed = (await filled.on("list", "--json", "--key", "cart.items")).json
    assert [each["fingerprint"] for each in listed] == [
        *map(fingerprint, (BOB, ADA, ADA_TOO, "corrupt"))
    ]
    assert listed[0]["keys"] == {"cart.items": [1, 2]}
    assert "problem" in listed[3]


@pytest_twisted.ensureDeferred
async def test_reveals(filled: Terminal) -> None:
    """
    With --reveal, the list has the IDs.
    """
    assert ADA in (await filled.on("list", "--reveal")).out
    assert ADA in [
        each["id"] for each in (await filled.on("list", "--reveal", "--json")).json
    ]


@pytest_twisted.ensureDeferred
async def test_listsSomeonesSessions(filled: Terminal) -> None:
    """
    With --where, the list has only sessions that hold all that.
    """
    listed = (await filled.on("list", "--json", "--where", "user=ada")).json
    assert len(listed) == 2
    both = "--where", "user=bob", "--where", "cart.items=[1,2]"
    assert len((await filled.on("list", "--json", *both)).json) == 1
    neither = "--where", "user=ada", "--where", "cart.items=[1,2]"
    assert (await filled.on("list", "--json", *neither)).json == []


@pytest_twisted.ensureDeferred
async def test_listsNothing(terminal: Terminal) -> None:
    """
    A store without sessions has a list without sessions.
    """
    assert (await terminal.on("list")).out == "0 sessions\n"
    assert (await terminal.on("list", "--json")).json == []


@pytest_twisted.ensureDeferred
async def test_tombstonesAreNotListed(terminal: Terminal) -> None:
    """
    What stands for a session that is just given another ID is none.
    """
    terminal.store.set(ADA, Record(TOMBSTONE, reactor.seconds() + 10))
    assert (await terminal.on("list", "--json")).json == []
    problem = (await terminal.on("show", ADA)).problem
    assert problem == f"show: there is no session {fingerprint(ADA)}"


# show


@pytest.mark.parametrize("given", [ADA, fingerprint(ADA)], ids=["ID", "fingerprint"])
@pytest_twisted.ensureDeferred
async def test_shows(filled: Terminal, given: str) -> None:
    """
    A session is shown by its ID or its fingerprint, without its ID.
    """
    said = await filled.on("show", given)
    assert said.out.startswith(f"fingerprint  {fingerprint(ADA)}\nexpires      in ")
    assert said.out.endswith('data\n{\n  "user": "ada"\n}\n')
    assert ADA not in said.out


@pytest_twisted.ensureDeferred
async def test_showsForMachines(filled: Terminal) -> None:
    """
    With --json, a session is one object; with --reveal, it has its ID.
    """
    shown = (await filled.on("show", ADA, "--json", "--reveal")).json
    assert (shown["id"], shown["data"]) == (ADA, {"user": "ada"})
    assert shown["maxAge"] == 3600


@pytest_twisted.ensureDeferred
async def test_showsWhatIsCorrupt(filled: Terminal) -> None:
    """
    Of a corrupt record it is said that it is, and what is in it.
    """
    said = await filled.on("show", "corrupt")
    assert said.status == 0
    assert "corrupt      the stored record is not JSON\npayload      {\n" in said.out


@pytest_twisted.ensureDeferred
async def test_showsWhatStandardInputNames(
    filled: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """
    For -, the ID is read from standard input, where nobody else sees it.
    """
    (tmp_path / "in").write_text(f"{BOB}\n")
    with open(tmp_path / "in") as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert (await filled.on("show", "-", "--json")).json["data"]["user"] == "bob"
        assert (await filled.on("show", "-")).problem == (
            "show: standard input must hold one ID"
        )


@pytest.mark.parametrize("given", ["nosuch-abcdefghijklmnopqrst", "0123456789"])
@pytest_twisted.ensureDeferred
async def test_showsNothing(filled: Terminal, given: str) -> None:
    """
    If there is no such session, that is said, by its fingerprint.
    """
    named = given if given == "0123456789" else fingerprint(given)
    assert (
        await filled.on("show", given)
    ).problem == f"show: there is no session {named}"


@pytest_twisted.ensureDeferred
async def test_idLikeAFingerprint(terminal: Terminal) -> None:
    """
    An ID that looks like a fingerprint is an ID.
    """
    terminal.store.set("0123456789", record("eve"))
    assert (await terminal.on("show", "0123456789", "--json")).json["data"] == {
        "user": "eve"
    }


@pytest_twisted.ensureDeferred
async def test_ambiguousFingerprint(
    filled: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Where two sessions have one fingerprint, neither is taken for the other.
    """
    monkeypatch.setattr(command, "fingerprint", lambda sid: "0123456789")
    problem = (await filled.on("destroy", "0123456789")).problem
    assert "4 sessions have the fingerprint 0123456789" in problem
    assert len(await filled.store.all()) == 4


# destroy


@pytest_twisted.ensureDeferred
async def test_destroys(filled: Terminal) -> None:
    """
    Sessions are destroyed by IDs and fingerprints, each once.
    """
    said = await filled.on("destroy", ADA, fingerprint(ADA), fingerprint("corrupt"))
    assert (said.status, said.out) == (0, "destroyed 2 sessions\n")
    assert set(await filled.store.all()) == {ADA_TOO, BOB}


@pytest_twisted.ensureDeferred
async def test_destroysSomeonesSessions(filled: Terminal) -> None:
    """
    With --where, somebody is logged out everywhere, and nobody else.
    """
    said = await filled.on("destroy", "--where", "user=ada", "--json")
    assert said.json == {
        "destroyed": [fingerprint(ADA), fingerprint(ADA_TOO)],
        "missing": [],
    }
    assert set(await filled.store.all()) == {BOB, "corrupt"}


@pytest_twisted.ensureDeferred
async def test_destroysNobodysSessions(filled: Terminal) -> None:
    """
    With --where, it is no failure that there is nothing to destroy.
    """
    said = await filled.on("destroy", "--where", "user=eve")
    assert (said.status, said.out) == (0, "destroyed 0 sessions\n")


@pytest_twisted.ensureDeferred
async def test_destroysTheOthers(filled: Terminal) -> None:
    """
    That one of the sessions is missing is said, and the others are destroyed.
    """
    said = await filled.on("destroy", "nosuch", BOB)
    assert (said.status, said.out) == (1, "destroyed 1 session\n")
    assert said.onlyLine == f"destroy: there is no session {fingerprint('nosuch')}"
    assert BOB not in (await filled.store.all())


@pytest_twisted.ensureDeferred
async def test_destroysWhatStandardInputNames(
    filled: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """
    For -, IDs and fingerprints are read from standard input, however its lines end
    and whatever mark it begins with.
    """
    (tmp_path / "in").write_bytes(f"\ufeff{BOB}\r\n\r\n {fingerprint(ADA)}".encode())
    with open(tmp_path / "in", encoding="utf-8") as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert (await filled.on("destroy", "-")).out == "destroyed 2 sessions\n"


@pytest.mark.parametrize("arguments", [[], [ADA, "--where", "user=ada"]])
@pytest_twisted.ensureDeferred
async def test_destroyNeedsToKnowWhat(filled: Terminal, arguments: list[str]) -> None:
    """
    Without sessions, or with both kinds of naming them, nothing is destroyed.
    """
    problem = (await filled.on("destroy", *arguments)).problem
    assert problem.startswith("Name sessions, or say --where, and not both; see ")
    assert len(await filled.store.all()) == 4


# prune, clear


@pytest_twisted.ensureDeferred
async def test_prunes(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What has expired is deleted, in as many batches as it takes.
    """
    monkeypatch.setattr(command, "PRUNE_LIMIT", 2)
    store = SQLiteStore("sessions.db")
    terminal.stores["store://a"] = store
    for number in range(5):
        await store.set(f"old-{number}", record(seconds=-5))
    await store.set(ADA, record("ada"))
    assert (await terminal.on("prune")).out == "deleted 5 expired sessions\n"
    assert (await terminal.on("prune", "--json")).json == {"pruned": 0}
    assert len((await terminal.on("list", "--json")).json) == 1


@pytest_twisted.ensureDeferred
async def test_clears(filled: Terminal) -> None:
    """
    With --yes, every session is forgotten.
    """
    assert (await filled.on("clear", "--yes")).out == "forgot 4 sessions\n"
    assert (await filled.on("clear", "--yes", "--json")).json == {"cleared": 0}
    assert (await filled.store.all()) == {}


@pytest.mark.parametrize(
    ("answer", "left"), [("y\n", 0), ("n\n", 4), ("\n", 4), ("", 4)]
)
@pytest_twisted.ensureDeferred
async def test_clearAsks(
    filled: Terminal,
    answer: str,
    left: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """
    Without --yes, the question is asked, on stderr, and no answer is none.
    """
    (tmp_path / "in").write_text(answer)
    with open(tmp_path / "in") as file:
        monkeypatch.setattr(sys, "stdin", file)
        said = await filled.on("clear")
    assert said.err.startswith(
        "Forget every session in <MemoryStore of 4 sessions>? [y/N]: "
    )
    assert said.status == (1 if left else 0)
    assert len(await filled.store.all()) == left


@pytest_twisted.ensureDeferred
async def test_clearIsInterrupted(
    filled: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Ctrl-C at the question is no answer either, and has the status of a signal.
    """

    def interrupted() -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(readline=interrupted))
    said = await filled.on("clear")
    assert (said.status, said.err.splitlines()[1:]) == (130, ["txsession: interrupted"])
    assert len(await filled.store.all()) == 4


# copy


@pytest.fixture
def copier(filled: Terminal) -> Terminal:
    filled.stores["store://b"] = MemoryStore()
    return filled


@pytest_twisted.ensureDeferred
async def test_copies(copier: Terminal) -> None:
    """
    Every session is copied, and skipped the next time.
    """
    said = await copier("copy", "store://a", "store://b")
    assert (said.status, said.out) == (0, "copied 4, skipped 0, failed 0\n")
    assert (await copier.stores["store://b"].all()) == (await copier.store.all())
    again = await copier("copy", "store://a", "store://b", "--json")
    assert (again.json["copied"], again.json["skipped"], again.json["failed"]) == (
        0,
        4,
        0,
    )
    assert again.err == ""


@pytest_twisted.ensureDeferred
async def test_copyKeepsOtherData(copier: Terminal) -> None:
    """
    What has other data in the target keeps it, which is said, unless --overwrite is.
    """
    copier.stores["store://b"].set(ADA, record("ada", n=1))
    said = await copier("copy", "store://a", "store://b")
    assert said.out.splitlines() == [
        "copied 3, skipped 1, failed 0",
        "  1 of the skipped kept other data in TO (--overwrite)",
    ]
    said = await copier("copy", "store://a", "store://b", "--overwrite")
    assert said.out.splitlines() == [
        "copied 1, skipped 3, failed 0",
        "  1 of the copied had other data in TO",
    ]


@pytest_twisted.ensureDeferred
async def test_copyRenews(copier: Terminal) -> None:
    """
    What is used in the source after a copy ends later by the next one.
    """
    await copier("copy", "store://a", "store://b")
    copier.store.touch(ADA, reactor.seconds() + 90_000)
    said = await copier("copy", "store://a", "store://b")
    assert said.out.splitlines() == [
        "copied 0, skipped 4, failed 0",
        "  1 of the skipped live longer now",
    ]


@pytest_twisted.ensureDeferred
async def test_copyDeletes(copier: Terminal) -> None:
    """
    With --delete, the target has what the source has and nothing else.
    """
    copier.stores["store://b"].set("other", record("eve"))
    said = await copier("copy", "store://a", "store://b", "--delete")
    assert said.out.splitlines()[1:] == ["  1 deleted that were only in TO"]
    assert (await copier.stores["store://b"].all()) == (await copier.store.all())


@pytest_twisted.ensureDeferred
async def test_copyNamesWhatFails(copier: Terminal) -> None:
    """
    Sessions that cannot be copied are named, not by their IDs; the status is 1.
    """
    target = copier.stores["store://b"]
    store = only(target, "get", "set", "destroy", "replace")
    store.create = lambda sid, record: (
        fail(ValueError(f"no room for {sid}"))
        if sid == ADA
        else target.create(sid, record)
    )
    copier.stores["store://b"] = store
    said = await copier("copy", "store://a", "store://b")
    assert (said.status, said.out) == (1, "copied 3, skipped 0, failed 1\n")
    assert said.err.splitlines() == [
        f"txsession: copy: session {fingerprint(ADA)}: no room for {fingerprint(ADA)}",
        "txsession: copy: 1 session could not be copied",
    ]


@pytest_twisted.ensureDeferred
async def test_copyEndsWithAnOutage(copier: Terminal) -> None:
    """
    When the target is lost, that is said, and how far the copy has come.
    """
    target = copier.stores["store://b"]
    store = only(target, "get", "set", "destroy", "replace")
    store.create = lambda sid, record: (
        target.create(sid, record)
        if not len(target._entries)
        else fail(StoreUnavailable("connection lost"))
    )
    copier.stores["store://b"] = store
    said = await copier("copy", "store://a", "store://b")
    assert (said.status, said.out) == (1, "copied 1, skipped 0, failed 0\n")
    assert re.fullmatch(
        r"TO: connection lost \(operation create, session [0-9a-f]{10}\); 1 of 4 "
        "sessions are dealt with; the same command goes on from there",
        said.onlyLine,
    )


@pytest_twisted.ensureDeferred
async def test_copyFromWhatIsOutOfReach(copier: Terminal) -> None:
    """
    When the source is out of reach, that is said.
    """
    store = only(copier.store, "get", "set", "destroy")
    store.all = lambda: fail(StoreUnavailable("no route to host"))
    copier.stores["store://a"] = store
    problem = (await copier("copy", "store://a", "store://b")).problem
    assert problem == "FROM: no route to host"


# secret


@pytest_twisted.ensureDeferred
async def test_secret(terminal: Terminal) -> None:
    """
    A new secret is printed, each time another.
    """
    first, second = (await terminal("secret")), (await terminal("secret", "--json"))
    assert re.fullmatch("[0-9a-f]{64}\n", first.out)
    assert first.out.strip() != second.json["secret"]


@pytest_twisted.ensureDeferred
async def test_secretFile(terminal: Terminal) -> None:
    """
    A file of secrets is made, rotated and cut, and its secrets are not printed.
    """
    said = await terminal("secret", "--create", "keys")
    assert said.out == "keys begins with a new secret and holds 1\n"
    (await terminal("secret", "--rotate", "keys"))
    assert (await terminal("secret", "--rotate", "keys", "--json")).json == {
        "file": "keys",
        "secrets": 3,
    }
    (await terminal("secret", "--rotate", "keys", "--keep", "2"))
    assert len(Path("keys").read_text().splitlines()) == 2
    assert (
        "keys is there already"
        in (await terminal("secret", "--create", "keys")).problem
    )


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--create", "a", "--rotate", "a"], "--create and --rotate do not go"),
        (["--keep", "2"], "--keep needs --rotate"),
        (["--rotate", "a", "--keep", "0"], "Invalid value for '--keep'"),
        (["--rotate", "a"], "No such file or directory; --create makes it"),
        (["--create", ""], ". is there already"),
        (["--rotate", ""], "Is a directory"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_secretMisused(
    terminal: Terminal, arguments: list[str], problem: str
) -> None:
    """
    What does not fit together is refused, and no file is made.
    """
    assert problem in (await terminal("secret", *arguments)).problem
    assert list(Path().iterdir()) == []


# Stores.


@pytest.mark.parametrize("place", ["before", "behind", "environment", "env:"])
@pytest_twisted.ensureDeferred
async def test_storeIsNamed(
    filled: Terminal, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The store is named before or behind the command, or in the environment.
    """
    monkeypatch.setenv("SHOP", "store://a")
    monkeypatch.setenv(
        "TXSESSION_STORE", "store://a" if place == "environment" else "nosuch:"
    )
    said = {
        "before": ["--store", "store://a", "--json", "list"],
        "behind": ["list", "--store", "store://a", "--json"],
        "environment": ["list", "--json"],
        "env:": ["list", "--store", "env:SHOP", "--json"],
    }[place]
    assert len((await filled(*said)).json) == 4


@pytest_twisted.ensureDeferred
async def test_storeOfOnesOwn(terminal: Terminal) -> None:
    """
    A store can be one of a module, or one that a callable of a module makes.
    """
    Path("shopstores.py").write_text(
        "import time\n"
        "from txsession import MemoryStore, Record\n"
        "store = MemoryStore()\n"
        "store.set('sid', Record(b'{\"cookie\":{}}', time.time() + 60))\n"
        "def make():\n    return store\n"
    )
    for name in ("store", "make", "MemoryStore"):
        listed = (
            await terminal("list", "--json", "--store", f"shopstores:{name}")
        ).json
        assert len(listed) == (0 if name == "MemoryStore" else 1)
    problem = (await terminal("list", "--store", "shopstores:nosuch")).problem
    assert problem.startswith("--store: shopstores:nosuch could not be made: Attribu")
    del sys.modules["shopstores"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["list"], "Which store? Name it by --store URL, or in TXSESSION_STORE; see"),
        (["list", "--store", "env:NOSUCH"], "--store: NOSUCH is not set"),
        (["list", "--store", "env:"], "--store: env: is not set"),
        (["list", "--store", "nosuch:"], "--store: no store has URLs that begin with"),
        (["list", "--store", "no.such:name"], "--store: no store has URLs that beg"),
        (["list", "--store", "http://[x"], "--store: is not a URL"),
        (["list", "--store", "memory:?a=1"], "--store: a memory store has no option"),
        (["list", "--store", "sqlite:nosuch.db"], "--store: there is no file nosuch."),
        (["copy", "sqlite:nosuch.db", "memory:"], "FROM: there is no file nosuch.db"),
        (["copy", "memory:", "nosuch:"], "TO: no store has URLs that begin with"),
        (["copy", "memory:"], "Missing argument 'TO'; see txsession copy --help"),
        (["list", "--where", "user"], "Invalid value for --where: must be KEY=VALUE"),
        (["lst"], "No such command 'lst'"),
        (["list", "--nosuch"], "No such option"),
        (["show"], "Missing argument 'ID-OR-FINGERPRINT'; see txsession show --help"),
        (["show", "-x"], "No such option"),
        ([], "What is to be done? There is clear, copy, destroy, list, prune, secret,"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_badUsage(terminal: Terminal, arguments: list[str], problem: str) -> None:
    """
    Bad usage is one line and status 1, and makes no file.
    """
    assert (await terminal(*arguments)).problem.startswith(problem)
    assert list(Path().iterdir()) == []


@pytest_twisted.ensureDeferred
async def test_hintForAnIDThatBeginsWithADash(terminal: Terminal) -> None:
    """
    An ID that looks like an option is said to need --, and is found then.
    """
    sid = "-abcdefghijklmnopqrst"
    terminal.store.set(sid, record("ada"))
    problem = (await terminal.on("show", sid)).problem
    assert "an ID that begins with - goes behind --; see" in problem
    assert sid not in problem
    assert (await terminal.on("show", "--json", "--", sid)).json["data"] == {
        "user": "ada"
    }


@pytest.mark.parametrize(
    "arguments",
    [
        [f"redis://:{PASSWORD}@127.0.0.1/"],
        ["list", f"redis://:{PASSWORD}@127.0.0.1/"],
        ["list", f"--nosuch=redis://:{PASSWORD}@127.0.0.1/"],
        ["list", f"--{PASSWORD}"],
        ["list", "--store", f"nosuch://ada:{PASSWORD}@host/"],
        ["list", "--store", f"redis://ada:{PASSWORD}@host:port/"],
        ["list", "--store", f"postgresql://ada:{PASSWORD}@host:port/"],
        ["copy", f"nosuch://ada:{PASSWORD}@host/", "memory:"],
        ["clear", "--yes", ADA, "--store", "memory:"],
        ["show", ADA, ADA, "--store", "memory:"],
        ["show", ADA, "--store", "memory:"],
        ["destroy", ADA, "--store", "memory:"],
        ["list", "--where", ADA],
        ["secret", "--keep", PASSWORD],
        ["list", "--json=" + PASSWORD],
        [f"'\"{PASSWORD}\n"],
        ["secret", "--keep", f"'\"\t{ADA}"],
    ],
)
@pytest_twisted.ensureDeferred
async def test_neitherPasswordsNorIDsAreSaid(
    terminal: Terminal, arguments: list[str]
) -> None:
    """
    Whatever is wrong, no password and no ID is repeated.
    """
    said = await terminal(*arguments)
    assert said.status == 1
    assert said.err.startswith("txsession: ")
    assert PASSWORD not in said.err
    assert ADA not in said.err


@pytest_twisted.ensureDeferred
async def test_warnsOfAPasswordThatIsVisible(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A password on the command line is warned of, one in the environment is not.
    """
    url = f"store://ada:{PASSWORD}@host/"
    terminal.stores[url] = MemoryStore()
    [line] = (await terminal("list", "--store", url)).err.splitlines()
    assert line.startswith("txsession: warning: the password in --store is visible")
    monkeypatch.setenv("TXSESSION_STORE", url)
    assert (await terminal("list")).err == ""


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["list"], "list: the store of --store cannot do that: it has no all()"),
        (["show", "0123456789"], "show: the store of --store cannot do that: it has"),
        (["destroy", "--where", "user=ada"], "destroy: the store of --store cannot"),
        (["prune"], "prune: the store of --store cannot do that: it has no prune()"),
        (["clear", "--yes"], "clear: the store of --store cannot do that: it has no"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_storeWithoutAnAbility(
    filled: Terminal, arguments: list[str], problem: str
) -> None:
    """
    What a store cannot do is said to be that, with what it lacks.
    """
    filled.stores["store://a"] = only(filled.store, "get", "set", "destroy")
    assert (await filled.on(*arguments)).problem.startswith(problem)


@pytest_twisted.ensureDeferred
async def test_plainStoreCanDoTheRest(filled: Terminal) -> None:
    """
    A store of three methods can show and destroy sessions by their IDs, and be
    copied to.
    """
    plain = only(MemoryStore(), "get", "set", "destroy")
    filled.stores["store://b"] = plain
    assert (await filled("copy", "store://a", "store://b")).status == 0
    of = "--store", "store://b"
    assert (await filled("show", ADA, "--json", *of)).json["data"] == {"user": "ada"}
    assert (await filled("destroy", ADA, *of)).out == "destroyed 1 session\n"
    assert (await filled("copy", "store://a", "store://b", "--delete")).problem == (
        "copy --delete: the store of TO cannot do that: it has no all() (see "
        "EnumerableStore)"
    )


@pytest_twisted.ensureDeferred
async def test_bugOfAStore(filled: Terminal) -> None:
    """
    What a store raises is one line, without the ID.
    """
    store = only(filled.store, "set", "destroy")

    def get(sid: str) -> None:
        raise KeyError(f"oops {sid}")

    store.get = get
    filled.stores["store://a"] = store
    problem = (await filled.on("show", ADA)).problem
    assert problem == f"KeyError: 'oops {fingerprint(ADA)}'"


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1:1/", "postgresql://127.0.0.1:1/x", "sqlite:/dev/null/x"]
)
@pytest_twisted.ensureDeferred
async def test_unavailableStore(
    terminal: Terminal, url: str, logged: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A store that cannot be reached is one line and status 1.
    """
    monkeypatch.setattr(places, "_asItIs", str)
    assert re.match(
        "Redis|PostgreSQL|/dev/null/x", (await terminal("list", "--store", url)).problem
    )


# Help.


def commands() -> dict[str, click.Command]:
    return {"": command.cli, **command.cli.commands}


@pytest.mark.parametrize("name", commands())
@pytest_twisted.ensureDeferred
async def test_help(terminal: Terminal, name: str) -> None:
    """
    Each command has a help with an example, whose lines fit a terminal.
    """
    said = await terminal(*name.split(), "--help")
    assert (said.status, said.err) == (0, "")
    assert re.search(r"Examples?:\n  +(export |txsession )", said.out)
    assert all(len(line) <= 88 for line in said.out.splitlines())


@pytest_twisted.ensureDeferred
async def test_version(terminal: Terminal) -> None:
    """
    --version says the version.
    """
    assert (await terminal("--version")).out == f"txsession {txsession.__version__}\n"


# Processes.


def environment(**variables: str) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if k != "TXSESSION_STORE"}
    return {**inherited, **variables}


def process(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "txsession", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=options.pop("stderr", subprocess.PIPE),
        text=True,
        env=environment(),
        **options,
    )


def ended(process: subprocess.Popen[str]) -> Said:
    out, err = process.communicate(timeout=PATIENCE)
    return Said(process.returncode, out, err or "")


STORES = '''
import signal, time
from twisted.internet.defer import Deferred
from txsession import MemoryStore, Record
from txsession.stores.sqlite import SQLiteStore

store = MemoryStore()
for number in range(100):
    store.set(f"session-{number:03}", Record(b'{"cookie":{}}', time.time() + 600))

class Interrupted(SQLiteStore):
    """Gets a Ctrl-C when so many sessions have been written."""
    left = 40
    def create(self, sid, record):
        self.left -= 1
        if not self.left:
            signal.raise_signal(signal.SIGINT)
        return super().create(sid, record)

target = Interrupted("target.db")

class Silent(MemoryStore):
    """Never answers."""
    def all(self):
        print("asked", flush=True)
        return Deferred()

class Endless(MemoryStore):
    """Always has as many to prune as it is asked to."""
    isAsked = False
    def prune(self, limit):
        if not self.isAsked:
            print("asked", flush=True)
        self.isAsked = True
        return limit

class Leaving(MemoryStore):
    """Ends the process, if it can."""
    def all(self):
        raise SystemExit(0)

def leave():
    raise SystemExit(0)
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shopstores.py").write_text(STORES)
    return tmp_path


def test_copyIsInterruptedAndResumed(folder: Path) -> None:
    """
    Ctrl-C ends a copy when what is under way is done; it says how far that is, and
    the same command goes on from there.
    """
    first = ended(process("copy", "shopstores:store", "shopstores:target", cwd=folder))
    assert first.status == 130
    [copied] = re.findall(r"^copied (\d+), skipped 0, failed 0$", first.out, re.M)
    assert 40 <= int(copied) < 100
    assert first.onlyLine == (
        f"interrupted: {copied} of 100 sessions are dealt with; the same command "
        "goes on from there"
    )
    rest = ended(
        process("copy", "shopstores:store", "sqlite:target.db", "--json", cwd=folder)
    )
    counts = rest.json
    assert (rest.status, rest.err) == (0, "")
    assert (counts["skipped"], counts["copied"]) == (int(copied), 100 - int(copied))
    assert counts["interrupted"] is False


@pytest.mark.parametrize(
    ("arguments", "number"),
    [
        (["list", "--store", "shopstores:Silent"], signal.SIGINT),
        (["list", "--store", "shopstores:Silent"], signal.SIGTERM),
        (["prune", "--store", "shopstores:Endless"], signal.SIGTERM),
    ],
)
def test_interrupted(folder: Path, arguments: list[str], number: int) -> None:
    """
    A command whose store does not answer, or always that there is more to do, ends
    by a signal, without a traceback.
    """
    waiting = process(*arguments, cwd=folder)
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == "asked\n"
    waiting.send_signal(number)
    said = ended(waiting)
    assert (said.status, said.onlyLine) == (128 + number, "interrupted")


def test_secondInterruptionEndsIt(folder: Path) -> None:
    """
    A copy whose source does not answer waits for that at the first Ctrl-C, and ends
    at the second.
    """
    waiting = process("copy", "shopstores:Silent", "memory:", cwd=folder)
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == "asked\n"
    waiting.send_signal(signal.SIGINT)
    # Two that are the same and come before the first is seen are one.
    waiting.send_signal(signal.SIGTERM)
    while waiting.poll() is None:
        waiting.send_signal(signal.SIGINT)
    said = ended(waiting)
    assert (said.status in (-signal.SIGINT, -signal.SIGTERM), said.err) == (True, "")


@pytest.fixture
def writing(folder: Path) -> subprocess.Popen[str]:
    """
    A process that writes more than a pipe holds, and has begun to.
    """
    (folder / "many.py").write_text(
        STORES + "for n in range(5000):\n    store.set(f'more-{n:05}', "
        "Record(b'{\"cookie\":{}}', time.time() + 600))\n"
    )
    writing = process("list", "--store", "many:store", cwd=folder)
    assert writing.stdout is not None
    assert writing.stdout.readline().startswith("FINGERPRINT")
    return writing


def test_interruptedAsItWrites(writing: subprocess.Popen[str]) -> None:
    """
    One Ctrl-C ends a command whose output is not read.
    """
    writing.send_signal(signal.SIGINT)
    assert writing.wait(PATIENCE) == 130
    assert ended(writing).err == "\ntxsession: interrupted\n"


def test_nobodyReads(writing: subprocess.Popen[str]) -> None:
    """
    Behind | head, the command ends quietly.
    """
    assert writing.stdout is not None
    writing.stdout.close()
    assert writing.stderr is not None
    with writing.stderr:
        assert writing.stderr.read() == ""
    assert writing.wait(PATIENCE) == 141


def test_nobodyReadsTheHelp(tmp_path: Path) -> None:
    """
    So it does where nobody reads from the beginning.
    """
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as pipe:
        said = subprocess.run(
            [sys.executable, "-m", "txsession", "--help"],
            stdout=pipe,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (said.returncode, said.stderr) == (141, "")


@pytest.mark.skipif(os.name != "posix", reason="platform: no shell")
def test_closedStreams(folder: Path) -> None:
    """
    With all its streams closed, a command does what it is to do, and writes into no
    file that it opens in their place.
    """
    command = [sys.executable, "-m", "txsession", "copy", "shopstores:store"]
    shell = ["sh", "-c", '"$@" <&- >&- 2>&-', "sh"]
    subprocess.run([*shell, *command, "sqlite:b.db"], cwd=folder, check=True)
    listed = ended(process("list", "--json", "--store", "sqlite:b.db", cwd=folder))
    assert len(listed.json) == 100
    nothing = subprocess.run(
        [*shell, sys.executable, "-m", "txsession", "show", "-"],
        cwd=folder,
        check=False,
        env=environment(TXSESSION_STORE="sqlite:b.db"),
    )
    assert nothing.returncode == 1


@pytest.mark.parametrize("name", ["Leaving", "leave"])
def test_storeThatEndsTheProcess(folder: Path, name: str) -> None:
    """
    A store that ends the process has not done what it was to do.
    """
    said = ended(process("list", "--store", f"shopstores:{name}", cwd=folder))
    assert said.problem.endswith("SystemExit: 0")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="platform: no /dev/full")
def test_noRoomForAnybody() -> None:
    """
    A problem that cannot be told of is a failure all the same, and no traceback.
    """
    with open("/dev/full", "w") as full:
        said = subprocess.run(
            [sys.executable, "-c", QUIETLY, "lst"],
            stdout=subprocess.PIPE,
            stderr=full,
            text=True,
            check=True,
        )
    assert said.stdout == "1\n"


QUIETLY = """
import sys
from txsession.command import main
print(main(sys.argv[1:]))
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="platform: no /dev/full")
def test_noRoomForTheOutput() -> None:
    """
    Output that cannot be written is a failure, of one line.
    """
    with open("/dev/full", "w") as full:
        said = subprocess.run(
            [sys.executable, "-m", "txsession", "secret"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (said.returncode, said.stderr) == (
        1,
        "txsession: the output could not be written: No space left on device\n",
    )


@pytest.mark.skipif(os.name != "posix", reason="platform: no pseudo-terminals")
def test_progressOnATerminal(folder: Path) -> None:
    """
    On a terminal, a bar on stderr shows how far a copy is.
    """
    master, slave = os.openpty()
    copying = process(
        "copy", "shopstores:store", "sqlite:b.db", cwd=folder, stderr=slave
    )
    os.close(slave)
    shown = b""
    try:
        # Linux says EIO at its end, others nothing.
        while part := os.read(master, 65536):
            shown += part
    except OSError:
        pass
    finally:
        os.close(master)
    said = ended(copying)
    assert said.out == "copied 100, skipped 0, failed 0\n"
    assert re.search(rb"100%.*100/100", shown)


def test_noReactorWithoutNeed() -> None:
    """
    To make a secret, to show a help and to refuse a command line takes no reactor,
    nor a driver.
    """
    program = (
        "import sys\n"
        "from txsession.command import main\n"
        "statuses = [main(a.split()) for a in sys.argv[1:]]\n"
        "modules = 'twisted.internet.reactor', 'txredisapi', 'psycopg', 'tqdm'\n"
        "print(statuses, [m for m in modules if m in sys.modules], file=sys.stderr)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", program, "--help", "copy --help", "secret", "show"],
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
    )
    assert said.stderr.splitlines()[-1] == "[0, 0, 0, 1] []"


def test_isInstalled() -> None:
    """
    The command txsession is the same as python -m txsession.
    """
    from importlib.metadata import entry_points

    [entry] = entry_points(group="console_scripts", name="txsession")
    assert entry.load() is command.main


# Pages.


def parts(page: str) -> dict[str, str]:
    """
    The parts of the reference that are about a command, by their headings.
    """
    found = re.findall(
        r"^## `txsession ?([^`\n]*)`\n(.*?)(?=^## |\Z)", text(page), re.M | re.S
    )
    return dict(found)


def signatureOf(name: str, command: click.Command) -> str:
    arguments = [each for each in command.params if isinstance(each, click.Argument)]
    return " ".join([name, *(str(argument.metavar) for argument in arguments)]).strip()


def optionsOf(command: click.Command) -> list[str]:
    written = []
    for each in command.params:
        if isinstance(each, click.Option):
            [name] = each.opts
            written.append(f"`{name}` {each.metavar or ''}".strip())
    return written


def test_referenceHasEveryCommandAndOption() -> None:
    """
    The reference lists exactly the commands and options that there are.
    """
    told = parts("docs/reference/command.md")
    assert set(told) == {signatureOf(*item) for item in commands().items()}
    for name, each in commands().items():
        rows = tables(told[signatureOf(name, each)])[0]
        assert [row[0] for row in rows] == optionsOf(each), name


def test_limitsAreThoseOfTheReference() -> None:
    """
    The numbers that the reference names are those of the code.
    """
    page = text("docs/reference/command.md")
    assert f"byte for byte, {copying.WORKERS} at a time" in page
    assert (command.PRUNE_LIMIT, "a thousand at a time" in page) == (1000, True)
    assert (command.SHOWN_FAILURES, "the first ten" in page) == (10, True)


@pytest_twisted.ensureDeferred
async def test_sessionsOfAMemoryStoreMove() -> None:
    """
    The function of the guide copies what a process has in its memory.
    """
    source, target = MemoryStore(), MemoryStore()
    source.set(ADA, record("ada"))
    await run("docs/how-to/administer.md")["moveTo"](target, source)
    assert await target.all() == await source.all() != {}
