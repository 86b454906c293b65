"""
Files of secrets.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from txsession.secretfile import (
    SecretFileError,
    createSecrets,
    newSecret,
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
    for change in (lambda: rotateSecrets(path, None), lambda: createSecrets(path)):
        with pytest.raises(SecretFileError, match=r"secrets\.new is there, so another"):
            change()
    assert path.read_text() == "mine\n"
    assert path.with_name("secrets.new").read_text() == "another's\n"


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
