"""
Files of secrets: one a line, the newest first; lines that begin with C{#} are
comments.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

__all__ = ["SecretFileError", "createSecrets", "newSecret", "rotateSecrets"]


LARGEST_FILE = 65536
"""
Bytes of a file of secrets; what is larger is something else.
"""


class SecretFileError(Exception):
    """
    A file could not be made or changed; it is as it was.
    """


def newSecret() -> str:
    """
    A secret that nobody can guess.
    """
    return token_hex(32)


def createSecrets(path: Path) -> int:
    """
    Make a file of secrets.

    @return: how many are in it.
    """
    try:
        _write(path, f"{newSecret()}\n".encode(), like=None)
    except FileExistsError as error:
        if error.filename2 is None:
            raise _busy(error) from None
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
        if path.stat().st_size > LARGEST_FILE or b"\0" in path.read_bytes():
            raise SecretFileError(f"{path} is not a file of secrets")
        lines = _kept([newSecret().encode(), *path.read_bytes().splitlines()], keep)
        _write(path, b"".join(line + b"\n" for line in lines), like=path.stat())
    except FileExistsError as error:
        raise _busy(error) from None
    except OSError as error:
        hint = "; --create makes it" if isinstance(error, FileNotFoundError) else ""
        raise SecretFileError(f"{path}: {error.strerror}{hint}") from error
    return sum(map(_isSecret, lines))


def _busy(error: FileExistsError) -> SecretFileError:
    return SecretFileError(
        f"{error.filename} is there, so another process is at work on the "
        "file, or has died of it; remove it if so"
    )


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


def _write(path: Path, content: bytes, *, like: os.stat_result | None) -> None:
    """
    Write a file, so that at any moment it is whole.

    @param like: whose owner and rights it gets, in place of what is there; or
        L{None}, if nothing may be there.
    @raise FileExistsError: something is, or another process is at it.
    """
    draft = path.with_name(f"{path.name}.new")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(handle)
            if like is not None:
                _become(handle, like)
        if like is None:
            os.link(draft, path)
        else:
            os.replace(draft, path)
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()


def _become(handle: int, like: os.stat_result) -> None:
    own = os.fstat(handle)
    if (own.st_uid, own.st_gid) != (like.st_uid, like.st_gid):
        os.fchown(handle, like.st_uid, like.st_gid)
    os.fchmod(handle, like.st_mode & 0o7777)
