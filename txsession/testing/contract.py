"""
What every store promises, as tests.

Each test makes a store, puts it to one promise, and says which was broken.  Time is
real here, as a store's backend has a clock of its own; so what depends on it is
asked again where the machine was too slow to tell.
"""

from __future__ import annotations

import sys
import time
import unittest
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, TypeAlias
from unittest import SkipTest

from twisted.internet.defer import CancelledError, Deferred, FirstError, gatherResults
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from ..record import Record
from ..store import resultOf

__all__ = ["StoreContract"]

_Calls: TypeAlias = "list[tuple[Any, ...]]"

PATIENCE = 60
"""
Seconds after which a store that does not answer has failed its test.
"""

MOMENT = 0.2
"""
Seconds that a session lives which is to expire.
"""

NEARLY = 0.0011
"""
Seconds by which an expiry may be off: a millisecond, and a little more, as a float
does not hold it exactly.
"""

CONDITIONAL = ("create", "replace")
ENUMERABLE = ("all", "length", "clear")
SERVICE = ("start", "stop")


def promise(
    *abilities: str,
) -> Callable[
    [Callable[[Any, Any], Coroutine[Any, Any, None]]], Callable[[Any], Deferred[None]]
]:
    """
    Make a test of an async function that is given a new store, or one that is
    skipped if the store lacks one of these abilities.
    """

    def decorate(
        test: Callable[[Any, Any], Coroutine[Any, Any, None]],
    ) -> Callable[[Any], Deferred[None]]:
        def run(self: Any) -> Deferred[None]:
            return self._begin(self._keeps(test, abilities))  # type: ignore[no-any-return]

        # Not functools.wraps(), which would tell pytest of an argument "store".
        run.__name__, run.__doc__ = test.__name__, test.__doc__
        run.__qualname__, run.__module__ = test.__qualname__, test.__module__
        return run

    return decorate


def document(text: str = "") -> bytes:
    """
    A payload, as express-session would store it.
    """
    return (
        '{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},'
        f'"text":"{text}"}}'
    ).encode()


def lasting(text: str = "", seconds: float = 3600) -> Record:
    """
    A record that lives for so long.
    """
    return Record(document(text), time.time() + seconds)


class StoreContract:
    """
    The promises of a store, for its author to inherit: beside a C{TestCase} of
    C{twisted.trial.unittest}, or, under pytest with pytest-twisted, alone in a
    class whose name begins with C{Test}.  It needs one method, C{makeStore}.

    What a store need not be able to do, and is not, is skipped; what it claims is
    tested.  All this takes a few seconds.  The clocks of this machine and of the
    store's backend must agree to some hundredths of a second.
    """

    __test__ = False  # pytest: not by itself

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if issubclass(cls, unittest.TestCase) and not _isAsynchronous(cls):
            raise TypeError(
                "a TestCase of this kind waits for no Deferred, so that its tests "
                "would pass whatever the store does; use twisted.trial.unittest's "
                "TestCase"
            )
        if "__test__" not in cls.__dict__:
            cls.__test__ = True

    def makeStore(self) -> Any:
        """
        Make a new, empty store.

        @return: the store, or a C{Deferred} or coroutine of one.  If it has
            C{stop}, that is called after the test.
        """
        raise NotImplementedError(
            "give your tests a method makeStore(self) that returns a new, empty store"
        )

    # What the tests are run by.

    _running: Deferred[None] | None = None

    def _begin(self, test: Coroutine[Any, Any, None]) -> Deferred[None]:
        from twisted.internet import reactor

        self._running = Deferred.fromCoroutine(test)
        return self._running.addTimeout(
            PATIENCE, reactor, onTimeoutCancel=self._timedOut
        )

    def teardown_method(self, method: object = None) -> None:
        """
        Called by pytest after each test.

        @raise AssertionError: nobody waited for the test.
        """
        running, self._running = self._running, None
        if running is not None and not running.called:
            running.addErrback(lambda _: None).cancel()
            raise AssertionError(
                "nobody waited for this test: pip install pytest-twisted"
            )

    async def _keeps(
        self,
        test: Callable[[Any, Any], Coroutine[Any, Any, None]],
        abilities: tuple[str, ...],
    ) -> None:
        store = await resultOf(self.makeStore())
        try:
            missing = [each for each in abilities if not _can(store, each)]
            if missing:
                raise SkipTest(f"the store has no {missing[0]}()")
            await test(self, store)
        except BaseException:
            # What the test has found matters more than whether it can be stopped.
            with suppress(Exception):
                await _stop(store)
            raise
        await _stop(store)

    @staticmethod
    def _timedOut(result: Any, timeout: float) -> Any:
        raise AssertionError(f"the store had not answered after {timeout} seconds")

    # Reading and writing.

    @promise()
    async def test_hasWhatAStoreHas(self, store: Any) -> None:
        """
        A store has C{get}, C{set} and C{destroy}, and no ability by half.
        """
        for method in ("get", "set", "destroy"):
            _check(_can(store, method), f"a store has a method {method}()")
        for ability in (CONDITIONAL, ENUMERABLE, SERVICE):
            has = [each for each in ability if _can(store, each)]
            _check(
                not has or len(has) == len(ability),
                f"{', '.join(ability)} come together, but there is only "
                f"{', '.join(has)}",
            )
        available = getattr(store, "available", True)
        _check(available is True, f"available is True, not {available!r}")

    @promise()
    async def test_unknownIsAbsent(self, store: Any) -> None:
        """
        An unknown ID has no record, and that is no error.
        """
        await _absent(store, "unknown", "C{get} of an unknown ID")

    @promise()
    async def test_keepsWhatIsSet(self, store: Any) -> None:
        """
        What is set is there, byte for byte, with its expiry to the millisecond and
        never earlier.
        """
        soon = float(int(time.time()) + 900)
        # Fractions that no store can hold, and that rounding down makes earlier; and
        # a date in 2286, for which 32 bits are not enough.
        expiries = [soon, soon + 0.1234567, soon + 0.9999, soon + 0.0004, 1e10]
        for number, expires in enumerate(expiries):
            record = Record(document("x"), expires)
            await ask(store, "set", f"a{number}", record)
            await _holds(store, f"a{number}", record)

    @promise()
    async def test_setReplacesWhatIsThere(self, store: Any) -> None:
        """
        C{set} replaces the payload and the expiry, earlier or later.
        """
        for record in (lasting("1"), lasting("2", 60), lasting("3", 86400 * 365)):
            await ask(store, "set", "a", record)
            await _holds(store, "a", record)

    @promise()
    async def test_destroyForgets(self, store: Any) -> None:
        """
        C{destroy} forgets the one session and no other; an unknown ID is no error.
        """
        kept = lasting("kept")
        await ask(store, "set", "kept", kept)
        await ask(store, "set", "a", lasting())
        for _ in range(2):
            await ask(store, "destroy", "a")
            await _absent(store, "a", "a session that was destroyed")
        await _holds(store, "kept", kept)
        again = lasting("again")
        await ask(store, "set", "a", again)
        await _holds(store, "a", again)

    @promise()
    async def test_payloadsComeBackByteForByte(self, store: Any) -> None:
        """
        A payload is not reformatted, sorted, escaped, normalised or shortened.
        """
        for number, payload in enumerate(PAYLOADS):
            record = Record(payload, time.time() + 3600)
            await ask(store, "set", f"a{number}", record)
            await _holds(store, f"a{number}", record)

    @promise()
    async def test_payloadsMayBeLarge(self, store: Any) -> None:
        """
        A payload of 1 MiB comes back as it was, and does not mix with others that
        are stored at the same time.
        """
        records = [lasting(letter * 2**20) for letter in "xyü"]
        await _all(
            ask(store, "set", f"a{number}", record)
            for number, record in enumerate(records)
        )
        await _all(
            _holds(store, f"a{number}", record) for number, record in enumerate(records)
        )

    @promise()
    async def test_IDsAreNotConfused(self, store: Any) -> None:
        """
        IDs that differ in case, in white space or at their ends, that look like
        patterns, paths, numbers or quotations, or that are long, are different
        IDs.
        """
        records = {sid: lasting(f"{number}") for number, sid in enumerate(IDS)}
        await _setAll(store, records)
        await _holdsAll(store, records)
        for count in range(len(IDS)):
            sid, _ = records.popitem()
            await ask(store, "destroy", sid)
            await _absent(store, sid, "a session that was destroyed")
            if count % 10 == 0:
                await _holdsAll(store, records)

    @promise()
    async def test_anIDThatCannotBeHeldIsAbsent(self, store: Any) -> None:
        """
        An ID with a NUL in it is an ID like others, or one that does not exist: it
        is refused when something is to be stored under it, and is no other one's.
        """
        kept = lasting("kept")
        await ask(store, "set", "a", kept)
        await _absent(store, "a\0b", "an ID with a NUL")
        record = lasting("nul")
        try:
            await ask(store, "set", "a\0b", record)
        except Exception:
            await _absent(store, "a\0b", "an ID with a NUL, which was refused")
        else:
            await _holds(store, "a\0b", record)
        await ask(store, "destroy", "a\0b")
        if _can(store, "touch"):
            await ask(store, "touch", "a\0b", time.time() + 60)
        await _absent(store, "a\0b", "an ID with a NUL, after destroy()")
        await _holds(store, "a", kept)

    @promise()
    async def test_answersAreNotConfused(self, store: Any) -> None:
        """
        Of many operations at once each has the answer that is its own, even if
        nobody waits for one of them any longer.
        """
        records = {f"a{number}": lasting(str(number)) for number in range(50)}
        await _setAll(store, records)
        calledOff = ask(store, "get", "a0")
        reading = _holdsAll(store, records)
        calledOff.addErrback(lambda failure: failure.trap(CancelledError) and None)
        calledOff.cancel()
        await reading
        await _holds(store, "a0", records["a0"])

    # Expiry.

    @promise()
    async def test_expires(self, store: Any) -> None:
        """
        A session is there until its expiry, and gone a tenth of a second later.
        """
        for seconds in (MOMENT, 2, 10):
            record = lasting("x", seconds)
            await ask(store, "set", "a", record)
            await until(record.expires - seconds / 4)
            found = await ask(store, "get", "a")
            if found is not None or time.time() < record.expires:
                break
        _check(found is not None, "a session is there until its expiry")
        await until(record.expires + 0.1)
        await _absent(store, "a", "a session a tenth of a second after its expiry")

    @promise()
    async def test_whatHasExpiredIsNotStored(self, store: Any) -> None:
        """
        A record whose expiry has passed is absent once it is set, and what it
        replaces is gone.
        """
        await ask(store, "set", "a", lasting())
        await ask(store, "set", "a", lasting("late", -1))
        await _absent(store, "a", "a session set with an expiry that had passed")
        if _can(store, "create") and _can(store, "replace"):
            await ask(store, "create", "a", lasting("late", -1))
            await _absent(store, "a", "one created with an expiry that had passed")
            kept = lasting()
            await ask(store, "set", "a", kept)
            await ask(store, "replace", "a", lasting("late", -1), kept)
            await _absent(store, "a", "one replaced with an expiry that had passed")

    @promise()
    async def test_setTakesAnExpiredID(self, store: Any) -> None:
        """
        C{set} stores under the ID of a session that has expired.
        """
        await _expired(store, "a")
        record = lasting("new")
        await ask(store, "set", "a", record)
        await _holds(store, "a", record)

    @promise()
    async def test_whatIsRenewedLivesOn(self, store: Any) -> None:
        """
        A session whose expiry has been put off, by C{set}, C{touch} or C{replace},
        outlives the one that it had before, for all that a store can do.
        """
        calls = [each for each in ("set", "touch", "replace") if _can(store, each)]
        for seconds in (MOMENT, 2, 10):
            short, longer = lasting("x", seconds), lasting("x")
            await _setAll(store, dict.fromkeys(calls, short))
            arguments: dict[str, tuple[Any, ...]] = {
                "set": (longer,),
                "touch": (longer.expires,),
                "replace": (longer, short),
            }
            for call in calls:
                await ask(store, call, call, *arguments[call])
            if time.time() < short.expires:
                break
        await until(short.expires + 0.1)
        renewed = dict.fromkeys(calls, longer)
        await _holdsAll(store, renewed)
        if _can(store, "all"):
            _is(set(await ask(store, "all")), set(renewed), "the IDs of all()")
            _is(await ask(store, "length"), len(renewed), "length()")
        if _can(store, "prune"):
            await ask(store, "prune", 100)
            await _holdsAll(store, renewed)

    # touch

    @promise("touch")
    async def test_touchSetsTheExpiry(self, store: Any) -> None:
        """
        C{touch} sets the expiry exactly, later or earlier, and nothing else.
        """
        record, other = lasting("x"), lasting("other")
        await ask(store, "set", "a", record)
        await ask(store, "set", "b", other)
        for seconds in (7200.1234567, 60.5):
            expires = time.time() + seconds
            await ask(store, "touch", "a", expires)
            await _holds(store, "a", Record(record.payload, expires))
        await _holds(store, "b", other)
        await ask(store, "touch", "a", time.time() - 1)
        await _absent(store, "a", "a session touched with an expiry that had passed")

    @promise("touch")
    async def test_touchCreatesNothing(self, store: Any) -> None:
        """
        C{touch} of an unknown ID, or of one that was destroyed, is no error and
        creates nothing.
        """
        await ask(store, "touch", "unknown", time.time() + 3600)
        await _absent(store, "unknown", "an unknown ID after touch()")
        await ask(store, "set", "a", lasting())
        await ask(store, "destroy", "a")
        await ask(store, "touch", "a", time.time() + 3600)
        await _absent(store, "a", "a session destroyed before touch()")

    @promise("touch")
    async def test_touchRevivesNothing(self, store: Any) -> None:
        """
        C{touch} does not revive a session that has expired.
        """
        await _expired(store, "a")
        await ask(store, "touch", "a", time.time() + 3600)
        await _absent(store, "a", "a session that had expired before touch()")

    @promise("touch")
    async def test_touchGoesWithSet(self, store: Any) -> None:
        """
        C{touch} at the same time as C{set} brings no older data back.
        """
        for number in range(20):
            old, new = lasting(f"old {number}"), lasting(f"new {number}", 7200)
            await ask(store, "set", "a", old)
            expires = time.time() + 5400
            calls: _Calls = [("touch", "a", expires), ("set", "a", new)]
            await _all(ask(store, *call) for call in _either(calls, number))
            found = await ask(store, "get", "a")
            _check(
                found is not None and found.payload == new.payload,
                "what set() stored is there, whatever touch() did at the same time",
            )
            _check(
                any(
                    0 <= found.expires - each < NEARLY
                    for each in (expires, new.expires)
                ),
                "the expiry after set() and touch() is that of one of them",
            )

    @promise("touch")
    async def test_touchGoesWithDestroy(self, store: Any) -> None:
        """
        C{touch} at the same time as C{destroy} brings nothing back.
        """
        for number in range(20):
            await ask(store, "set", "a", lasting())
            calls: _Calls = [("touch", "a", time.time() + 5400), ("destroy", "a")]
            await _all(ask(store, *call) for call in _either(calls, number))
            await _absent(store, "a", "a session destroyed at the time of touch()")

    # create and replace

    @promise(*CONDITIONAL)
    async def test_createTakesAFreeID(self, store: Any) -> None:
        """
        C{create} stores the record where the ID is free, and says so; where it is
        not, nothing changes.
        """
        first = lasting("first")
        _is(await ask(store, "create", "a", first), True, "create() of a free ID")
        await _holds(store, "a", first)
        taken = await ask(store, "create", "a", lasting("second", 7200))
        _is(taken, False, "create() of an ID that is taken")
        await _holds(store, "a", first)
        await ask(store, "destroy", "a")
        again = lasting("again")
        _is(await ask(store, "create", "a", again), True, "create() after destroy()")
        await _holds(store, "a", again)

    @promise(*CONDITIONAL)
    async def test_createTakesAnExpiredID(self, store: Any) -> None:
        """
        C{create} may take the ID of a session that has expired.
        """
        await _expired(store, "a")
        record = lasting("new")
        created = await ask(store, "create", "a", record)
        _is(created, True, "create() of an ID whose session has expired")
        await _holds(store, "a", record)

    @promise(*CONDITIONAL)
    async def test_replaceComparesThePayload(self, store: Any) -> None:
        """
        C{replace} stores the record if the live one has the payload that is
        expected, whatever its expiry, and says so; if not, nothing changes.
        """
        first, second = lasting("first"), lasting("second", 7200)
        await ask(store, "set", "a", first)
        others = [document(text) for text in ("First", "firs", "first ", "other")]
        # The same document, but not the same bytes.
        for payload in (*others, first.payload.replace(b":", b": ")):
            expected = Record(payload, first.expires)
            replaced = await ask(store, "replace", "a", second, expected)
            _is(replaced, False, "replace() of a session with another payload")
            await _holds(store, "a", first)
        expected = Record(first.payload, 1.0)
        replaced = await ask(store, "replace", "a", second, expected)
        _is(replaced, True, "replace() of a session with the payload expected")
        await _holds(store, "a", second)
        for seconds in (60, -60):
            moved = Record(second.payload, second.expires + seconds)
            replaced = await ask(store, "replace", "a", moved, second)
            _is(replaced, True, "replace() with the same payload and another expiry")
            await _holds(store, "a", moved)

    @promise(*CONDITIONAL)
    async def test_replaceCreatesNothing(self, store: Any) -> None:
        """
        C{replace} of an unknown ID, or of one that was destroyed, creates nothing.
        """
        record = lasting()
        replaced = await ask(store, "replace", "unknown", record, record)
        _is(replaced, False, "replace() of an unknown ID")
        await _absent(store, "unknown", "an unknown ID after replace()")
        await ask(store, "set", "a", record)
        await ask(store, "destroy", "a")
        replaced = await ask(store, "replace", "a", record, record)
        _is(replaced, False, "replace() of a session that was destroyed")
        await _absent(store, "a", "a session destroyed before replace()")

    @promise(*CONDITIONAL)
    async def test_replaceRevivesNothing(self, store: Any) -> None:
        """
        C{replace} does not revive a session that has expired.
        """
        old = await _expired(store, "a")
        replaced = await ask(store, "replace", "a", lasting(), old)
        _is(replaced, False, "replace() of a session that has expired")
        await _absent(store, "a", "a session that had expired before replace()")

    @promise(*CONDITIONAL)
    async def test_oneOfManyCreates(self, store: Any) -> None:
        """
        Of many that C{create} the same ID at the same time, one does.
        """
        for number in range(5):
            await self._oneWins(
                store,
                f"a{number}",
                partial(ask, store, "create"),
            )

    @promise(*CONDITIONAL)
    async def test_oneOfManyReplaces(self, store: Any) -> None:
        """
        Of many that C{replace} the same record at the same time, one does.
        """
        for number in range(5):
            old = lasting("old")
            await ask(store, "set", f"a{number}", old)
            await self._oneWins(
                store,
                f"a{number}",
                partial(_replacing, store, old),
            )

    async def _oneWins(
        self, store: Any, sid: str, attempt: Callable[[str, Record], Deferred[Any]]
    ) -> None:
        records = [lasting(f"{number}") for number in range(20)]
        answers = await _all(attempt(sid, record) for record in records)
        winners = [number for number, won in enumerate(answers) if won]
        _check(
            len(winners) == 1,
            f"of {len(records)} at the same time one succeeds, not {len(winners)}",
        )
        await _holds(store, sid, records[winners[0]])

    @promise(*CONDITIONAL)
    async def test_replaceLosesNothing(self, store: Any) -> None:
        """
        Those who read, change and C{replace}, and begin again where they are told
        that somebody else was faster, lose no change.
        """
        await ask(
            store, "create", "a", Record(b'{"cookie":{},"n":0}', time.time() + 600)
        )

        async def increment() -> None:
            for _ in range(5):
                while True:
                    seen = await ask(store, "get", "a")
                    count = int(seen.payload[17:-1]) + 1
                    changed = Record(b'{"cookie":{},"n":%d}' % count, seen.expires)
                    if await ask(store, "replace", "a", changed, seen):
                        break

        await _all(Deferred.fromCoroutine(increment()) for _ in range(8))
        found = await ask(store, "get", "a")
        _is(found.payload, b'{"cookie":{},"n":40}', "the count of 40 increments")

    @promise(*CONDITIONAL)
    async def test_destroyGoesWithReplace(self, store: Any) -> None:
        """
        C{destroy} at the same time as C{replace} is not undone by it.
        """
        for number in range(20):
            old = lasting("old")
            await ask(store, "set", "a", old)
            calls: _Calls = [("replace", "a", lasting("new"), old), ("destroy", "a")]
            await _all(ask(store, *call) for call in _either(calls, number))
            await _absent(store, "a", "a session destroyed at the time of replace()")

    @promise("touch", *CONDITIONAL)
    async def test_touchGoesWithReplace(self, store: Any) -> None:
        """
        C{touch} at the same time as C{replace} neither hinders it nor undoes it.
        """
        for number in range(20):
            old, new = lasting("old"), lasting("new", 7200)
            await ask(store, "set", "a", old)
            calls: _Calls = [
                ("replace", "a", new, old),
                ("touch", "a", time.time() + 5400),
            ]
            answers = await _all(ask(store, *call) for call in _either(calls, number))
            _check(True in answers, "touch() does not keep replace() from succeeding")
            found = await ask(store, "get", "a")
            _check(
                found is not None and found.payload == new.payload,
                "what replace() stored is there, whatever touch() did meanwhile",
            )

    # Further abilities.

    @promise(*ENUMERABLE)
    async def test_tellsWhatItHolds(self, store: Any) -> None:
        """
        C{all} gives every live record by its ID, and C{length} their number.
        """
        _is(await ask(store, "all"), {}, "all() of a new store")
        _is(await ask(store, "length"), 0, "length() of a new store")
        records = {sid: lasting(str(number)) for number, sid in enumerate(IDS)}
        await _setAll(store, records)
        found = await ask(store, "all")
        _is(set(found), set(records), "the IDs of all()")
        for sid, record in records.items():
            _same(found[sid], record, sid)
        _is(await ask(store, "length"), len(records), "length()")

    @promise(*ENUMERABLE)
    async def test_countsOnlyWhatLives(self, store: Any) -> None:
        """
        C{all} and C{length} leave out what was destroyed or has expired.
        """
        record = lasting()
        await ask(store, "set", "kept", record)
        await ask(store, "set", "destroyed", record)
        await ask(store, "destroy", "destroyed")
        await _expired(store, "expired")
        _is(set(await ask(store, "all")), {"kept"}, "the IDs of all()")
        _is(await ask(store, "length"), 1, "length()")

    @promise(*ENUMERABLE)
    async def test_clearForgetsAll(self, store: Any) -> None:
        """
        C{clear} forgets every session, however many there are, and the store works
        on.
        """
        records = {f"a{number}": lasting() for number in range(1100)}
        await _setAll(store, records)
        _is(await ask(store, "length"), 1100, "length() of 1100 sessions")
        _is(set(await ask(store, "all")), set(records), "the IDs of 1100 sessions")
        await ask(store, "clear")
        _is(await ask(store, "length"), 0, "length() after clear()")
        await _absent(store, "a0", "a session after clear()")
        await ask(store, "set", "a0", records["a0"])
        await _holds(store, "a0", records["a0"])

    @promise("prune")
    async def test_pruneDeletesWhatHasExpired(self, store: Any) -> None:
        """
        C{prune} deletes at most as many as it may, says how many, and nothing that
        lives.
        """
        kept = lasting("kept")
        await ask(store, "set", "kept", kept)
        short = lasting("short", MOMENT)
        for number in range(5):
            await ask(store, "set", f"a{number}", short)
        _is(await ask(store, "prune", 0), 0, "prune(0)")
        await until(short.expires + 0.1)
        total = 0
        for _ in range(7):
            pruned = await ask(store, "prune", 2)
            _check(
                isinstance(pruned, int) and 0 <= pruned <= 2,
                f"prune(2) deletes and counts at most two, not {pruned!r}",
            )
            total += pruned
        _check(total <= 5, f"prune() counts what it deleted, 5 and not {total}")
        _is(await ask(store, "prune", 100), 0, "prune() of nothing")
        await _holds(store, "kept", kept)

    @promise(*SERVICE)
    async def test_startsAndStops(self, store: Any) -> None:
        """
        C{start} may be called, or not, and twice; so may C{stop}; and the store
        can be used again after it.
        """
        await ask(store, "stop")
        record = lasting()
        starting = ask(store, "start")
        await ask(store, "set", "a", record)
        await starting
        await ask(store, "start")
        await _holds(store, "a", record)
        await ask(store, "stop")
        await ask(store, "stop")
        await ask(store, "set", "b", record)
        await _holds(store, "b", record)

    @promise(*SERVICE)
    async def test_stopFinishesWhatIsUnderWay(self, store: Any) -> None:
        """
        C{stop} waits for what is under way, which succeeds, and forgets nothing.
        """
        records = {f"a{number}": lasting(str(number)) for number in range(10)}
        writing = [ask(store, "set", *each) for each in records.items()]
        await ask(store, "stop")
        done = sum(each.called for each in writing)
        _check(
            done == len(writing),
            f"stop() fires when what is under way is over: {done} of "
            f"{len(writing)} writes were",
        )
        await _all(writing)
        await _holdsAll(store, records)


IDS = [
    *("abc", "ABC", "Abc", "abd", "ab", "abcd"),
    *("abc ", " abc", "abc\t", "abc\n", "a b c"),
    *("a*", "a?", "a[bc]", "a%", "a_c", "*", "%", "?", "^a", "a$", ".*"),
    *("a'b", 'a"b', "a`b", "a;b", "a\\b", "a--b", "'", '"', "\\", "$1", "{0}", "%s"),
    *("a/b", "../a", "./a", "/a", "..", ".", "a.", "a:b", "a,b", "a|b", "C:a", "~"),
    *("1", "01", "1.0", "1e0", "0", "-1", "None", "null", "true", "NaN", "undefined"),
    *(
        "é",
        "e\u0301",
        "É",
        "ß",
        "ss",
        "\u0131",
        "i",
        "I",
        "\u0130",
        "日本",
        "🍪",
        "\u200b",
    ),
    *("x" * 199 + "y", "x" * 199 + "z", "x" * 200, "y" + "x" * 199),
    *("ü" * 100, "ü" * 99 + "u"),
    *("x" * 1000 + "y", "x" * 1000 + "z", "x" * 1000),
]
"""
IDs that are easily confused.
"""

PAYLOADS = [
    document(),
    b'{"cookie":{}}',
    b'{ "b" : 1,\n\t"a" : [ 1 , 2 ], "cookie" : { } }',
    b'{"cookie":{},"z":1,"a":2,"m":{"y":1,"b":2}}',
    b'{"cookie":{},"n":[1.0,1e2,1E+2,-0,0.1,12345678901234567890,1.50]}',
    b'{"cookie":{},"escapes":"\\u0000\\u00e9\\ud83c\\udf6a\\ud800\\/\\\\"}',
    document("é e\u0301 日本 🍪 \u200b \u2028"),
    document("'; DROP TABLE session; -- % ? $1 {} :a %s"),
    b'{"cookie":{},"deep":' + b"[" * 200 + b"]" * 200 + b"}",
    b'{"cookie":{},"empty":["",{},[],null,true,false]}',
]
"""
Payloads that are easily changed.
"""


def ask(store: Any, operation: str, *arguments: Any) -> Deferred[Any]:
    """
    Call a store, whatever it answers with.
    """
    return Deferred.fromCoroutine(_asked(store, operation, arguments))


async def _asked(store: Any, operation: str, arguments: tuple[Any, ...]) -> Any:
    return await resultOf(getattr(store, operation)(*arguments))


async def _stop(store: Any) -> None:
    if _can(store, "stop"):
        await ask(store, "stop")


def _isAsynchronous(case: type) -> bool:
    """
    Whether a class of test cases waits for Deferreds.
    """
    trial = sys.modules.get("twisted.trial.unittest")
    return trial is not None and issubclass(case, trial.TestCase)


def _replacing(store: Any, old: Record, sid: str, record: Record) -> Deferred[Any]:
    return ask(store, "replace", sid, record, old)


def _can(store: Any, method: str) -> bool:
    return callable(getattr(store, method, None))


def _either(calls: _Calls, number: int) -> _Calls:
    """
    The calls in one order or in the other.
    """
    return calls if number % 2 else calls[::-1]


def _all(asked: Any) -> Deferred[list[Any]]:
    """
    Wait for all of them; what fails first is what it fails with.
    """
    waiting = [
        each if isinstance(each, Deferred) else Deferred.fromCoroutine(each)
        for each in asked
    ]

    def first(failure: Failure) -> Failure:
        assert isinstance(failure.value, FirstError)
        return failure.value.subFailure

    return gatherResults(waiting, consumeErrors=True).addErrback(first)


async def until(moment: float) -> None:
    """
    Wait until a time has come.
    """
    from twisted.internet import reactor

    while (left := moment - time.time()) > 0:
        await deferLater(reactor, left)


async def _expired(store: Any, sid: str) -> Record:
    """
    Have a session expire.
    """
    for seconds in (MOMENT, 2, 10):
        record = lasting("expired", seconds)
        await ask(store, "set", sid, record)
        found = await ask(store, "get", sid)
        if found is not None or time.time() < record.expires:
            break
    _check(found is not None, "a session is there until its expiry")
    await until(record.expires + 0.1)
    return record


async def _absent(store: Any, sid: str, what: str) -> None:
    _is(await ask(store, "get", sid), None, what)


async def _holds(store: Any, sid: str, record: Record) -> None:
    _same(await ask(store, "get", sid), record, sid)


def _setAll(store: Any, records: dict[str, Record]) -> Deferred[Any]:
    return _all(ask(store, "set", sid, record) for sid, record in records.items())


def _holdsAll(store: Any, records: dict[str, Record]) -> Deferred[Any]:
    return _all(_holds(store, sid, record) for sid, record in records.items())


def _same(found: Any, record: Record, sid: str) -> None:
    where = f"the record of {_shown(sid)}"
    _check(found is not None, f"{where} is there")
    _check(isinstance(found, Record), f"{where} is a Record, not {_shown(found)}")
    _is(type(found.payload), bytes, f"the type of the payload in {where}")
    _is(found.payload, record.payload, f"the payload in {where}")
    difference = found.expires - record.expires
    _check(difference >= 0, f"the expiry in {where} is no earlier: {difference} s")
    _check(difference < NEARLY, f"the expiry in {where} is kept: {difference:+} s")


def _is(found: Any, expected: Any, what: str) -> None:
    isSame = found is expected if isinstance(expected, bool) else found == expected
    _check(isSame, f"{what} is {_shown(expected)}, not {_shown(found)}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:150]} ... {text[-40:]}"


def _check(isKept: bool, what: str) -> None:
    """
    @raise AssertionError: a promise is broken.
    """
    if not isKept:
        raise AssertionError(what)
