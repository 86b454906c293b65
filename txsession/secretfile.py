"""
Files of secrets: one a line, the newest first.  Empty lines are none, nor are
comments, which begin with C{#} and a space.
"""

from __future__ import annotations

import os
from codecs import BOM_UTF8
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from tempfile import mkstemp
from typing import BinaryIO

__all__ = [
    "SecretFileError",
    "createSecrets",
    "ensureSecrets",
    "newSecret",
    "readSecrets",
    "rotateSecrets",
]


LARGEST_FILE = 65536
"""
Bytes of a file of secrets; what is larger is something else.
"""


class SecretFileError(Exception):
    """
    A file is none of secrets, or could not be made or changed; it is as it was.
    """


def newSecret() -> str:
    """
    A secret that nobody can guess.
    """
    return token_hex(32)


def readSecrets(path: Path) -> list[bytes]:
    """
    The secrets in a file.

    @raise SecretFileError: it holds none, or something else.
    @raise OSError: it cannot be read.
    """
    secrets = [line.strip() for line in _linesOf(path) if _isSecret(line)]
    if not secrets:
        raise SecretFileError(f"{path} holds no secret; it takes one a line")
    return secrets


def ensureSecrets(path: Path) -> None:
    """
    Make a file of secrets, unless it is there.  Other processes may do the same
    at the same time: all then read the same secret.

    @raise OSError: it is not there, and cannot be made.
    """
    if not path.exists():
        with suppress(FileExistsError):
            _make(path)


def createSecrets(path: Path) -> int:
    """
    Make a file of secrets.

    @return: how many are in it.
    """
    try:
        _make(path)
    except FileExistsError:
        raise SecretFileError(
            f"{path} is there already; --rotate puts a new secret into it"
        ) from None
    except OSError as error:
        raise SecretFileError(f"{path}: {error.strerror}") from error
    return 1


def rotateSecrets(path: Path, keep: int | None) -> int:
    """
    Put a new secret before those in a file.

    @return: how many are in it.
    """
    try:
        # What a link leads to, not the link, is what gets new contents.
        path = path.resolve(strict=True)
        with _inPlaceOf(path) as file:
            lines = _kept([newSecret().encode(), *_linesOf(path)], keep)
            file.write(b"".join(line + b"\n" for line in lines))
    except FileExistsError as error:
        raise SecretFileError(
            f"{error.filename} is there, so another process is at work on the "
            "file, or has died of it; remove it if so"
        ) from None
    except OSError as error:
        hint = "; --create makes it" if isinstance(error, FileNotFoundError) else ""
        raise SecretFileError(f"{path}: {error.strerror}{hint}") from error
    return sum(map(_isSecret, lines))


# Lines.


def _linesOf(path: Path) -> list[bytes]:
    with path.open("rb") as file:
        content = file.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE or b"\0" in content:
        raise SecretFileError(f"{path} is not a file of secrets")
    # Some editors begin a file with a mark, which everybody knows.
    lines = content.removeprefix(BOM_UTF8).splitlines()
    for number, line in enumerate(lines, 1):
        # A comment must not become a secret, nor a secret a comment.
        if line.lstrip().startswith(b"#") and line.split()[0] != b"#":
            raise SecretFileError(
                f"{path}, line {number}: a secret cannot begin with #, and a comment "
                "needs a space after it"
            )
    return lines


def _isSecret(line: bytes) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith(b"#")


def _kept(lines: list[bytes], keep: int | None) -> list[bytes]:
    """
    The lines without all but the first so many secrets.
    """
    kept = []
    for line in lines:
        if _isSecret(line) and keep is not None:
            if not keep:
                continue
            keep -= 1
        kept.append(line)
    return kept


# Files.  At any moment they are whole, or not there.


def _make(path: Path) -> None:
    """
    @raise FileExistsError: something is there already.
    """
    # What a link leads to, here too.
    path = Path(os.path.realpath(path))
    handle, draft = mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(handle, "wb") as file:
            file.write(f"{newSecret()}\n".encode())
            _settle(file)
        os.link(draft, path)
    finally:
        os.unlink(draft)


@contextmanager
def _inPlaceOf(path: Path) -> Iterator[BinaryIO]:
    """
    A file that takes the place of another, and has its owner and rights.

    @raise FileExistsError: another process is at it.
    """
    draft = path.with_name(f"{path.name}.new")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(handle, "wb") as file:
            yield file
            _settle(file)
            _become(handle, path.stat())
        os.replace(draft, path)
    except BaseException:
        draft.unlink()
        raise


def _settle(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _become(handle: int, like: os.stat_result) -> None:
    own = os.fstat(handle)
    if (own.st_uid, own.st_gid) != (like.st_uid, like.st_gid):
        os.fchown(handle, like.st_uid, like.st_gid)
    os.fchmod(handle, like.st_mode & 0o7777)
