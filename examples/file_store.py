"""
Sessions in a directory of files: the store of docs/how-to/write-a-store.md.

    store = FileStore("sessions")

Each session is a file.  Its name is made of the ID; its first line holds the ID
and the expiry, and the rest is the payload.  The files lie in 256 folders, and
who changes something in a folder locks it first, so several threads and processes
can use the same directory.  It must be on a disk of this machine: over a network,
locks like these may do nothing.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from random import uniform
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread, deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from txsession import Record, StoreUnavailable

__all__ = ["Directory", "FileStore"]

CANNOT_WRITE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""
What is wrong with a disk that can still be read.
"""


class Directory:
    """
    The files.  All of this waits for the disk, so it is done in threads.

    @param seconds: tells the time.
    """

    def __init__(
        self, path: str | os.PathLike[str], seconds: Callable[[], float]
    ) -> None:
        self.path = Path(path)
        self._seconds = seconds
        self._folders = [self.path / f"{number:02x}" for number in range(256)]
        self._pruned = 0

    def make(self) -> None:
        self.path.mkdir(mode=0o700, exist_ok=True)
        with self._locked(self.path):
            for folder in self._folders:
                folder.mkdir(mode=0o700, exist_ok=True)

    def check(self) -> None:
        """
        @raise OSError: the directory cannot be used.
        """
        with self._locked(self._folders[0]):
            pass

    # Sessions.

    def get(self, sid: str) -> Record | None:
        _, record = self._read(self._file(sid))
        return record

    def set(self, sid: str, record: Record) -> None:
        with self._turn(sid) as file:
            self._write(file, sid, record)

    def destroy(self, sid: str) -> None:
        with self._turn(sid) as file:
            file.unlink(missing_ok=True)

    def touch(self, sid: str, expires: float) -> None:
        with self._turn(sid) as file:
            _, record = self._read(file)
            if record is not None:
                self._write(file, sid, Record(record.payload, expires))

    def create(self, sid: str, record: Record) -> bool:
        with self._turn(sid) as file:
            _, current = self._read(file)
            if current is not None:
                return False
            self._write(file, sid, record)
            return True

    def replace(self, sid: str, record: Record, expected: Record) -> bool:
        with self._turn(sid) as file:
            _, current = self._read(file)
            if current is None or current.payload != expected.payload:
                return False
            self._write(file, sid, record)
            return True

    # All of them.

    def all(self) -> dict[str, Record]:
        found = [self._read(file) for file in self._files()]
        return {sid: record for sid, record in found if record is not None}

    def length(self) -> int:
        return sum(not self._hasExpired(file) for file in self._files())

    def clear(self) -> None:
        for folder in self._folders:
            with self._locked(folder):
                for file in self._filesIn(folder):
                    file.unlink()

    def prune(self, limit: int) -> int:
        count = 0
        for _ in self._folders:
            # Each time from where the last one ended: not always through all.
            folder = self._folders[self._pruned % len(self._folders)]
            expired = list(filter(self._hasExpired, self._filesIn(folder)))
            count += self._delete(folder, expired[: limit - count])
            if count == limit:
                break
            self._pruned += 1
        return count

    def _delete(self, folder: Path, files: list[Path]) -> int:
        if not files:
            return 0
        with self._locked(folder):
            # Somebody may have taken the ID since.
            expired = list(filter(self._hasExpired, files))
            for file in expired:
                file.unlink(missing_ok=True)
            return len(expired)

    def _files(self) -> Iterator[Path]:
        for folder in self._folders:
            yield from self._filesIn(folder)

    def _filesIn(self, folder: Path) -> list[Path]:
        return [file for file in folder.iterdir() if file.name != "new"]

    # A file.

    def _file(self, sid: str) -> Path:
        name = sha256(sid.encode("utf-8", "surrogatepass")).hexdigest()
        return self.path / name[:2] / name

    def _read(self, file: Path) -> tuple[str, Record | None]:
        """
        The ID, and the record if it lives.
        """
        try:
            head, _, payload = file.read_bytes().partition(b"\n")
        except FileNotFoundError:
            # A file that is missing is a session that is absent; a folder that
            # is missing is a disk that is.
            file.parent.stat()
            return "", None
        sid, expires = json.loads(head)
        record = Record(payload, expires)
        return sid, record if record.isLive(self._seconds()) else None

    def _hasExpired(self, file: Path) -> bool:
        try:
            with file.open("rb") as opened:
                _, expires = json.loads(opened.readline())
        except FileNotFoundError:
            return True
        return not Record(b"", expires).isLive(self._seconds())

    def _write(self, file: Path, sid: str, record: Record) -> None:
        """
        Make or replace a file, all of it or nothing.
        """
        # One name for all that are being written, as only one is at a time: who
        # is killed here leaves no more than that behind.
        new = file.with_name("new")
        head = json.dumps([sid, record.expires]).encode("ascii")
        with new.open("wb") as opened:
            opened.write(head + b"\n" + record.payload)
            opened.flush()
            os.fsync(opened.fileno())
        new.replace(file)

    # Taking turns.

    @contextmanager
    def _turn(self, sid: str) -> Iterator[Path]:
        """
        The file of an ID, which nobody else changes meanwhile.
        """
        file = self._file(sid)
        with self._locked(file.parent):
            yield file

    @contextmanager
    def _locked(self, folder: Path) -> Iterator[None]:
        """
        Keep other threads and processes from changing a folder; and, at the end,
        have the disk keep what has changed in it.
        """
        opened = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(opened, fcntl.LOCK_EX)
            yield
            os.fsync(opened)
        finally:
            os.close(opened)  # which unlocks it, as does the end of the process


class FileStore:
    """
    Sessions in a directory, which is made if there is none; the directory that
    it is in must exist.

    @param threads: how many work for the store.
    @param seconds: tells the time.
    """

    _log = Logger()

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        threads: int = 4,
        seconds: Callable[[], float] = time.time,
    ) -> None:
        self._directory = Directory(path, seconds)
        self._threads = threads
        self._pool: ThreadPool | None = None
        self._atShutdown: Any = None
        self._isMade = False
        self._underWay: set[Deferred[Any]] = set()
        self._trouble: str | None = None
        self._trying: Deferred[None] | None = None

    def get(self, sid: str) -> Deferred[Record | None]:
        return self._do(self._directory.get, sid)

    def set(self, sid: str, record: Record) -> Deferred[None]:
        return self._do(self._directory.set, sid, record)

    def destroy(self, sid: str) -> Deferred[None]:
        return self._do(self._directory.destroy, sid)

    def touch(self, sid: str, expires: float) -> Deferred[None]:
        return self._do(self._directory.touch, sid, expires)

    def create(self, sid: str, record: Record) -> Deferred[bool]:
        return self._do(self._directory.create, sid, record)

    def replace(self, sid: str, record: Record, expected: Record) -> Deferred[bool]:
        return self._do(self._directory.replace, sid, record, expected)

    def all(self) -> Deferred[dict[str, Record]]:
        return self._do(self._directory.all)

    def length(self) -> Deferred[int]:
        return self._do(self._directory.length)

    def clear(self) -> Deferred[None]:
        return self._do(self._directory.clear)

    def prune(self, limit: int) -> Deferred[int]:
        return self._do(self._directory.prune, limit)

    # Starting and stopping.

    def start(self) -> Deferred[None]:
        return self._do(self._directory.check)

    def stop(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        from twisted.internet import reactor

        while self._underWay:
            await DeferredList(list(self._underWay))
        if self._trying is not None:
            self._trying.cancel()
        self._isMade, self._trouble = False, None
        pool, self._pool = self._pool, None
        if pool is not None:
            reactor.removeSystemEventTrigger(self._atShutdown)
            await deferToThread(pool.stop)

    # In threads.

    def _do(self, work: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        doing = Deferred.fromCoroutine(self._attempt(work, *arguments))
        self._underWay.add(doing)

        def done(result: Any) -> Any:
            self._underWay.discard(doing)
            return result

        return doing.addBoth(done)

    async def _attempt(self, work: Callable[..., Any], *arguments: Any) -> Any:
        if self._trouble is not None:
            raise StoreUnavailable(self._trouble)
        try:
            return await self._inThread(work, *arguments)
        except OSError as error:
            trouble = f"{self._directory.path}: {error.strerror}"
            if error.errno not in CANNOT_WRITE:
                self._lost(trouble)
            raise StoreUnavailable(trouble) from error

    def _inThread(self, work: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        from twisted.internet import reactor

        if self._pool is None:
            self._pool = ThreadPool(0, self._threads, "sessions")
            # Not earlier: a process that becomes a daemon leaves its threads behind.
            reactor.callWhenRunning(self._pool.start)
            # If nobody calls stop(), the threads must not keep the process.
            self._atShutdown = reactor.addSystemEventTrigger(
                "during", "shutdown", self._pool.stop
            )
        return deferToThreadPool(reactor, self._pool, self._make, work, *arguments)

    def _make(self, work: Callable[..., Any], *arguments: Any) -> Any:
        # Not again while it is in use: if it is gone then, its disk is.
        if not self._isMade:
            self._directory.make()
            self._isMade = True
        return work(*arguments)

    # Out of reach.

    @property
    def available(self) -> bool:
        return self._trouble is None

    def _lost(self, trouble: str) -> None:
        if self._trouble is None:
            self._trouble = trouble
            self._log.warn("Sessions are out of reach: {trouble}", trouble=trouble)
            self._trying = Deferred.fromCoroutine(self._tryAgain())
            self._trying.addErrback(lambda failure: failure.trap(CancelledError))

    async def _tryAgain(self) -> None:
        from twisted.internet import reactor

        delay = 0.05
        while self._trouble is not None:
            # Not at the same moment as every other process.
            await deferLater(reactor, delay * uniform(0.5, 1))
            delay = min(1.0, delay * 2)
            try:
                await self._inThread(self._directory.check)
                self._trouble = None
            except OSError as error:
                self._trouble = f"{self._directory.path}: {error.strerror}"
        self._log.info("Sessions are within reach again.")
