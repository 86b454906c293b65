"""
Copies the sessions of one store to another, byte for byte.

It can be broken off at any moment and begun anew: what is there already is found
to be equal, and left alone.  Several records are under way at a time, because the
stores may be far away, and because those that write in transactions make fewer of
them that way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredList

from .backend import Backend, isOutage
from .document import TOMBSTONE
from .errors import SessionConflict
from .record import Record, asMilliseconds
from .signing import fingerprint
from .store import resultOf

__all__ = ["Copying", "Counts", "recordsOf"]

T = TypeVar("T")

WORKERS = 32
"""
How many records are under way at a time.
"""

MAX_TRIES = 10
"""
How often a record is written that somebody else writes at the same time.
"""


async def recordsOf(store: Any) -> dict[str, Record]:
    """
    The live sessions of a store, without those that are just being given another
    ID.
    """
    records = await resultOf(store.all())
    return {
        sid: record for sid, record in records.items() if record.payload != TOMBSTONE
    }


@define
class Counts:
    """
    How far a copy has come.

    @ivar total: the sessions to be copied.
    @ivar copied: those that were written.
    @ivar overwritten: of these, those in whose place there were others.
    @ivar skipped: those that were there already, or have ended meanwhile.
    @ivar renewed: of these, those whose expiry was made later.
    @ivar different: of these, those that had other data there, and kept it.
    @ivar failed: those that could not be copied.
    @ivar deleted: those that were only there.
    """

    total: int = 0
    copied: int = 0
    overwritten: int = 0
    skipped: int = 0
    renewed: int = 0
    different: int = 0
    failed: int = 0
    deleted: int = 0

    @property
    def done(self) -> int:
        """
        How many have been dealt with.
        """
        return self.copied + self.skipped + self.failed


def _nothing(*_: Any) -> None:
    pass


@define(eq=False)
class Copying:
    """
    A copy from one store to another.

    @ivar source: what is copied; a store that has C{all}.
    @ivar target: where to.
    @ivar now: the time.
    @ivar overwrites: whether a session that has other data there is overwritten.
    @ivar deletes: whether sessions are deleted that are only there; the store then
        needs C{all}.
    @ivar began: called when it is known how many there are.
    @ivar advanced: called after each session.
    @ivar failed: called with the fingerprint of a session that could not be copied,
        and why.
    @ivar isStopped: whether it has been broken off.
    """

    source: Backend
    target: Backend
    now: Callable[[], float]
    overwrites: bool = False
    deletes: bool = False
    began: Callable[[int], None] = _nothing
    advanced: Callable[[], None] = _nothing
    failed: Callable[[str, Exception], None] = _nothing
    counts: Counts = field(factory=Counts)
    isStopped: bool = False
    _outage: Exception | None = None

    def stop(self) -> None:
        """
        Begin no more, and end when what is under way is done.  Nothing but an
        attribute is changed, so that a signal's handler may call this.
        """
        self.isStopped = True

    async def run(self) -> None:
        """
        Copy.  Sessions that cannot be copied are counted; an outage of a store
        breaks it off.

        @raise StoreUnavailable: the store could not be reached.
        @raise StoreTimeout: it took too long for an answer.
        """
        records = await recordsOf(self.source.store)
        self.counts.total = len(records)
        self.began(len(records))
        await self._each(records.items(), self._copied)
        # An empty source is more likely a mistake than a wish.
        if self.deletes and records and not self.isStopped:
            others = (await recordsOf(self.target.store)).keys() - records.keys()
            await self._each(((sid, None) for sid in others), self._deleted)

    async def _each(
        self,
        items: Iterable[tuple[str, T]],
        action: Callable[[str, T], Awaitable[None]],
    ) -> None:
        pending = iter(items)
        working = [
            Deferred.fromCoroutine(self._work(pending, action)) for _ in range(WORKERS)
        ]
        ends: Any = await DeferredList(working, consumeErrors=True)
        for succeeded, result in ends:
            if not succeeded:
                result.raiseException()
        if self._outage is not None:
            raise self._outage

    async def _work(
        self,
        pending: Iterator[tuple[str, T]],
        action: Callable[[str, T], Awaitable[None]],
    ) -> None:
        while not self.isStopped:
            item = next(pending, None)
            if item is None:
                return
            try:
                await action(*item)
            except Exception as error:
                self._note(item[0], error)

    def _note(self, sid: str, error: Exception) -> None:
        if isOutage(error):
            self._outage = error
            self.stop()
            return
        self.counts.failed += 1
        self.failed(fingerprint(sid), error)

    async def _deleted(self, sid: str, _: None) -> None:
        await self.target.ask("destroy", sid)
        self.counts.deleted += 1

    async def _copied(self, sid: str, record: Record) -> None:
        try:
            if record.isLive(self.now()):
                await self._copy(sid, record)
            else:
                self.counts.skipped += 1
        finally:
            self.advanced()

    async def _copy(self, sid: str, record: Record) -> None:
        if await self._create(sid, record):
            self.counts.copied += 1
            return
        for _ in range(MAX_TRIES):
            current = await self.target.ask("get", sid)
            if current is None:
                # Destroyed there since, which is not to be undone.
                self.counts.skipped += 1
                return
            if await self._isSettled(sid, record, current):
                return
        raise SessionConflict("somebody else goes on changing it there")

    async def _create(self, sid: str, record: Record) -> bool:
        if self.target.isConditional:
            return bool(await self.target.ask("create", sid, record))
        if await self.target.ask("get", sid) is not None:
            return False
        await self.target.ask("set", sid, record)
        return True

    async def _isSettled(self, sid: str, record: Record, current: Record) -> bool:
        """
        Deal with a session that is there already.

        @return: whether that was possible; if not, it has changed meanwhile.
        """
        if current.payload == record.payload:
            await self._renew(sid, record, current)
            self.counts.skipped += 1
            return True
        if not self.overwrites or current.payload == TOMBSTONE:
            self.counts.different += 1
            self.counts.skipped += 1
            return True
        if not await self._replace(sid, record, current):
            return False
        self.counts.overwritten += 1
        self.counts.copied += 1
        return True

    async def _renew(self, sid: str, record: Record, current: Record) -> None:
        # The later it ends, the later it was used.
        if asMilliseconds(record.expires) <= asMilliseconds(current.expires):
            return
        if self.target.isTouchable:
            await self.target.ask("touch", sid, record.expires)
        elif not await self._replace(sid, record, current):
            return
        self.counts.renewed += 1

    async def _replace(self, sid: str, record: Record, current: Record) -> bool:
        if self.target.isConditional:
            return bool(await self.target.ask("replace", sid, record, current))
        await self.target.ask("set", sid, record)
        return True
