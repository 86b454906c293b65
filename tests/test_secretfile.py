"""
Files of secrets.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from txsession import secretfile
from txsession.secretfile import (
    LARGEST_FILE,
    SecretFileError,
    createSecrets,
    ensureSecrets,
    newSecret,
    readSecrets,
    rotateSecrets,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "secrets"


def modeOf(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_secretIsNew() -> None:
    """
    Each secret is another, of 32 bytes.
    """
    first, second = newSecret(), newSecret()
    assert first != second
    assert re.fullmatch("[0-9a-f]{64}", first)


def test_creates(path: Path) -> None:
    """
    A file is made with one secret, which nobody else may read, whatever the umask.
    """
    before = os.umask(0)
    try:
        assert createSecrets(path) == 1
    finally:
        os.umask(before)
    assert re.fullmatch("[0-9a-f]{64}\n", path.read_text())
    assert modeOf(path) == 0o600
    assert os.listdir(path.parent) == ["secrets"]


def test_createsNothingTwice(path: Path) -> None:
    """
    A file that is there is left as it is.
    """
    path.write_text("mine\n")
    with pytest.raises(SecretFileError, match="is there already; --rotate"):
        createSecrets(path)
    assert path.read_text() == "mine\n"
    assert os.listdir(path.parent) == ["secrets"]


def test_createsNothingWhereNothingCanBe(path: Path) -> None:
    """
    A folder that does not exist is said to be missing.
    """
    with pytest.raises(SecretFileError, match=r"No such file or directory$"):
        createSecrets(path / "secrets")


def test_manyMakeOne(path: Path) -> None:
    """
    Of processes that find no file and make it, all at once, each reads the same
    secret, and nothing else is left behind.
    """
    code = (
        "import sys; from pathlib import Path; sys.stdin.read(1)\n"
        "from txsession.secretfile import ensureSecrets, readSecrets\n"
        "path = Path(sys.argv[1]); ensureSecrets(path); print(readSecrets(path))\n"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    said = {each.communicate(".", timeout=60)[0] for each in running}
    assert said == {f"{readSecrets(path)}\n"}
    assert os.listdir(path.parent) == ["secrets"]


def test_whoIsSecondMakesNothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A file that another process made meanwhile is left as it is.
    """

    def make() -> str:
        path.write_text("another's\n")
        return "mine"

    monkeypatch.setattr(secretfile, "newSecret", make)
    ensureSecrets(path)
    assert readSecrets(path) == [b"another's"]
    assert os.listdir(path.parent) == ["secrets"]


def test_createsWhatALinkLeadsTo(path: Path) -> None:
    """
    A link to nothing leads to the secret then, and stays one.
    """
    link = path.with_name("link")
    link.symlink_to(path)
    ensureSecrets(link)
    assert link.is_symlink()
    assert readSecrets(path) == readSecrets(link)


@pytest.mark.parametrize(
    ("content", "secrets"),
    [
        (b"new\r\nold\r\n", [b"new", b"old"]),
        (b"  new \t\n\n \n# comment\n  #\n  # another\nold", [b"new", b"old"]),
        (b"\xef\xbb\xbfnew\n", [b"new"]),
        (b"\xef\xbb\xbf# comment\nnew\n", [b"new"]),
        (b"\xff\xfe\n", [b"\xff\xfe"]),
        (b"one # thing\n", [b"one # thing"]),
    ],
)
def test_reads(path: Path, content: bytes, secrets: list[bytes]) -> None:
    """
    What is read is one secret a line, without the space around it; empty lines,
    comments and the mark of an editor are none.
    """
    path.write_bytes(content)
    assert readSecrets(path) == secrets


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no secret"),
        (b"\n# nothing\n", "holds no secret"),
        (b"\xef\xbb\xbf", "holds no secret"),
        (b"h7sh\n#h7sh\n", "line 2: a secret cannot begin with #, and a comment needs"),
        ("h7sh\n".encode("utf-16"), "is not a file of secrets"),
        (b"h7sh\n" * LARGEST_FILE, "is not a file of secrets"),
    ],
)
def test_readsNothingElse(path: Path, content: bytes, said: str) -> None:
    """
    A file without a secret is refused, as is one that may hold something else,
    without a word of what it holds.
    """
    path.write_bytes(content)
    with pytest.raises(SecretFileError, match=said) as caught:
        readSecrets(path)
    assert "h7sh" not in str(caught.value).removeprefix(str(path))


def test_rotatesOnlyWhatCanBeRead(path: Path) -> None:
    """
    A line that may be a secret or a comment is not taken for either.
    """
    path.write_text("#mine\n")
    with pytest.raises(SecretFileError, match="line 1"):
        rotateSecrets(path, 1)
    assert path.read_text() == "#mine\n"
    assert os.listdir(path.parent) == ["secrets"]


def test_rotates(path: Path) -> None:
    """
    A new secret comes first; what was there follows, comments included.
    """
    path.write_text("# ours\nold\n\nolder")
    assert rotateSecrets(path, None) == 3
    first, *rest = path.read_text().splitlines()
    assert re.fullmatch("[0-9a-f]{64}", first)
    assert rest == ["# ours", "old", "", "older"]


def test_keepsTheNewest(path: Path) -> None:
    """
    Of the secrets, only the newest may be kept.
    """
    path.write_text("new\n# retired in 2026\nold\nolder\n")
    assert rotateSecrets(path, 2) == 2
    assert path.read_text().splitlines()[1:] == ["new", "# retired in 2026"]


def test_rightsRemain(path: Path) -> None:
    """
    Who may read the file, may go on reading it.
    """
    createSecrets(path)
    path.chmod(0o640)
    rotateSecrets(path, None)
    assert modeOf(path) == 0o640


def test_linkRemains(path: Path) -> None:
    """
    What a link leads to gets the new secret; the link stays.
    """
    createSecrets(path)
    link = path.with_name("link")
    link.symlink_to(path)
    rotateSecrets(link, None)
    assert link.is_symlink()
    assert len(path.read_text().splitlines()) == 2


@pytest.mark.parametrize("content", [b"SQLite\0...", b"x" * 100_000])
def test_somethingElseIsLeftAlone(path: Path, content: bytes) -> None:
    """
    A file that is none of secrets is not touched.
    """
    path.write_bytes(content)
    with pytest.raises(SecretFileError, match="is not a file of secrets"):
        rotateSecrets(path, None)
    assert path.read_bytes() == content


def test_nothingToRotate(path: Path) -> None:
    """
    Where there is no file, the remedy is named.
    """
    with pytest.raises(SecretFileError, match=r"No such file.*; --create makes it"):
        rotateSecrets(path, None)


def test_oneAtATime(path: Path) -> None:
    """
    Two processes cannot both change a file, and lose a secret of one of them.
    """
    path.write_text("mine\n")
    path.with_name("secrets.new").write_text("another's\n")
    with pytest.raises(SecretFileError, match=r"secrets\.new is there, so another"):
        rotateSecrets(path, None)
    assert path.read_text() == "mine\n"
    assert path.with_name("secrets.new").read_text() == "another's\n"


def test_whoWaitsReadsLast(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A file is read when no other process can change it any more.
    """
    path.write_text("mine\n")

    def read(path: Path) -> list[bytes]:
        with pytest.raises(SecretFileError, match="so another"):
            rotateSecrets(path, None)
        return [b"mine"]

    monkeypatch.setattr(secretfile, "_linesOf", read)
    assert rotateSecrets(path, None) == 2


def test_failureChangesNothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    If the owner of a file cannot be kept, nothing is changed.
    """
    path.write_text("mine\n")

    def refuse(*arguments: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchmod", refuse)
    with pytest.raises(SecretFileError, match="Operation not permitted"):
        rotateSecrets(path, None)
    assert path.read_text() == "mine\n"
    assert os.listdir(path.parent) == ["secrets"]
