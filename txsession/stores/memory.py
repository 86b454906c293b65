"""
Sessions in the memory of this process.

Expiry is kept in a binary heap whose entries know their own position, so that
forgetting one costs O(log n), and nothing ever scans the store.  The key of the
heap is C{due}, which is never later than the expiry: a touch that moves the
expiry back, which is what nearly every request does, leaves the heap alone, and
the entry is put in its place when it comes to the top.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

from twisted.internet.defer import Deferred, succeed

from ..record import Record
from .common import wholeNumber

__all__ = ["MemoryStore"]


class _Entry:
    __slots__ = ("due", "place", "record", "sid")

    def __init__(self, sid: str, record: Record) -> None:
        self.sid = sid
        self.record = record
        self.due = record.expires
        self.place = 0


class _Heap:
    """
    Entries by C{due}, the earliest first.
    """

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: list[_Entry] = []

    def push(self, entry: _Entry) -> None:
        entry.place = len(self._entries)
        self._entries.append(entry)
        self._rise(entry)

    def remove(self, entry: _Entry) -> None:
        last = self._entries.pop()
        if last is entry:
            return
        last.place = entry.place
        self._entries[last.place] = last
        self.moved(last)

    def moved(self, entry: _Entry) -> None:
        """
        Put an entry in its place after its C{due} has changed.
        """
        self._rise(entry)
        self._sink(entry)

    def isDue(self, now: float) -> bool:
        """
        Whether there may be an entry that has expired.
        """
        return bool(self._entries) and self._entries[0].due <= now

    def first(self, before: float = inf) -> _Entry | None:
        """
        The entry that expires first, if it does so by C{before}.
        """
        while self._entries:
            entry = self._entries[0]
            if entry.due > before:
                return None
            if entry.due == entry.record.expires:
                return entry
            entry.due = entry.record.expires
            self._sink(entry)
        return None

    def _rise(self, entry: _Entry) -> None:
        entries = self._entries
        place = entry.place
        while place:
            above = (place - 1) >> 1
            parent = entries[above]
            if parent.due <= entry.due:
                break
            entries[place] = parent
            parent.place = place
            place = above
        entries[place] = entry
        entry.place = place

    def _sink(self, entry: _Entry) -> None:
        entries = self._entries
        count = len(entries)
        place = entry.place
        while True:
            below = 2 * place + 1
            if below >= count:
                break
            if below + 1 < count and entries[below + 1].due < entries[below].due:
                below += 1
            child = entries[below]
            if entry.due <= child.due:
                break
            entries[place] = child
            child.place = place
            place = below
        entries[place] = entry
        entry.place = place


class MemoryStore:
    """
    Sessions in the memory of this process, for development, for tests, and for
    an application of one process whose sessions may be lost.

    It does not outlive the process: a restart logs everybody out.  It does not
    reach a second process: behind a load balancer, each would have its own.
    Use another store for that.

    Expired records are dropped as the store is used, up to two with every call,
    so that it never holds more than at its peak;
    L{SessionService <txsession.SessionService>} drops the rest.  It has every
    optional ability of a store, answers at once, and needs neither C{start} nor
    C{stop}.

    @param maxSessions: the most sessions that it holds; when one more comes,
        the one closest to its expiry is dropped.  L{None}: no limit but that
        of what expires.
    @param reactor: the clock; the global reactor, imported at first use, by
        default.
    """

    available = True

    def __init__(
        self, maxSessions: int | None = None, *, reactor: Any | None = None
    ) -> None:
        if maxSessions is not None:
            wholeNumber(maxSessions, "maxSessions")
        self._maxSessions = maxSessions
        self._entries: dict[str, _Entry] = {}
        self._heap = _Heap()
        self._seconds: Callable[[], float] | None = (
            None if reactor is None else reactor.seconds
        )

    def __repr__(self) -> str:
        return f"<MemoryStore of {len(self._entries)} sessions>"

    # What every store does.

    def get(self, sid: str) -> Deferred[Record | None]:
        """
        Fires with the live record of this ID, or L{None}.
        """
        entry = self._live(sid, self._now())
        return succeed(None if entry is None else entry.record)

    def set(self, sid: str, record: Record) -> Deferred[None]:
        """
        Store the record, whether or not there is one already.
        """
        entry = self._live(sid, self._now())
        if entry is None:
            self._add(sid, record)
        else:
            self._change(entry, record)
        return succeed(None)

    def destroy(self, sid: str) -> Deferred[None]:
        """
        Forget this session.  An unknown ID is not an error.
        """
        entry = self._entries.get(sid)
        if entry is not None:
            self._drop(entry)
        return succeed(None)

    def touch(self, sid: str, expires: float) -> Deferred[None]:
        """
        Set the expiry of a live session; of an unknown one, nothing.
        """
        entry = self._live(sid, self._now())
        if entry is not None:
            self._change(entry, Record(entry.record.payload, expires))
        return succeed(None)

    # What stores may do besides.

    def create(self, sid: str, record: Record) -> Deferred[bool]:
        """
        Store the record if the ID is free.  Fires with whether it was.
        """
        if self._live(sid, self._now()) is not None:
            return succeed(False)
        self._add(sid, record)
        return succeed(True)

    def replace(self, sid: str, record: Record, expected: Record) -> Deferred[bool]:
        """
        Store the record if the live one has the payload of C{expected}.  Fires
        with whether it had.
        """
        entry = self._live(sid, self._now())
        if entry is None or entry.record.payload != expected.payload:
            return succeed(False)
        self._change(entry, record)
        return succeed(True)

    def all(self) -> Deferred[dict[str, Record]]:
        """
        Fires with every live record, by ID.
        """
        now = self._now()
        return succeed(
            {
                sid: entry.record
                for sid, entry in self._entries.items()
                if entry.record.isLive(now)
            }
        )

    def length(self) -> Deferred[int]:
        """
        Fires with the number of live records.
        """
        self._prune(self._now(), len(self._entries))
        return succeed(len(self._entries))

    def clear(self) -> Deferred[None]:
        """
        Forget every session.
        """
        self._entries = {}
        self._heap = _Heap()
        return succeed(None)

    def prune(self, limit: int) -> Deferred[int]:
        """
        Drop at most C{limit} expired records.  Fires with how many were.
        """
        return succeed(self._prune(self._now(), limit))

    def start(self) -> Deferred[None]:
        """
        Nothing needs to be opened.
        """
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """
        Nothing needs to be closed; the sessions stay.
        """
        return succeed(None)

    # How it is done.

    def _now(self) -> float:
        if self._seconds is None:
            from twisted.internet import reactor

            self._seconds = reactor.seconds
        return self._seconds()

    def _live(self, sid: str, now: float) -> _Entry | None:
        # Every call drops up to two that have expired, and adds at most one, so
        # that what has expired cannot pile up while the store is in use.
        if self._heap.isDue(now):
            self._prune(now, 2)
        entry = self._entries.get(sid)
        if entry is None or now < entry.record.expires:
            return entry
        self._drop(entry)
        return None

    def _prune(self, now: float, limit: int) -> int:
        for pruned in range(limit):
            entry = self._heap.first(before=now)
            if entry is None:
                return pruned
            self._drop(entry)
        return limit

    def _add(self, sid: str, record: Record) -> None:
        if len(self._entries) == self._maxSessions:
            earliest = self._heap.first()
            if earliest is not None:  # pragma: no branch - the store is full
                self._drop(earliest)
        entry = _Entry(sid, record)
        self._entries[sid] = entry
        self._heap.push(entry)

    def _change(self, entry: _Entry, record: Record) -> None:
        entry.record = record
        if record.expires < entry.due:
            entry.due = record.expires
            self._heap.moved(entry)

    def _drop(self, entry: _Entry) -> None:
        del self._entries[entry.sid]
        self._heap.remove(entry)
