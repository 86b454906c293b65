"""
A store whose faults the test decides on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from ..errors import StoreUnavailable
from ..store import resultOf

__all__ = ["Fault", "FaultyStore"]

OPERATIONS = frozenset(
    {
        *("get", "set", "destroy", "touch", "create", "replace"),
        *("all", "length", "clear", "prune"),
    }
)


KINDS = ("delay", "fail", "lose", "hang", "disconnect")


def _checkKind(fault: object, attribute: object, kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"a fault is one of {', '.join(KINDS)}, not {kind!r}")


def _asOperations(operations: Iterable[str]) -> frozenset[str]:
    named = frozenset([operations] if isinstance(operations, str) else operations)
    for unknown in sorted(named - OPERATIONS):
        raise ValueError(
            f"a store has no operation {unknown!r} that could go wrong; it has "
            f"{', '.join(sorted(OPERATIONS))}"
        )
    return named


@define(eq=False)
class Fault:
    """
    What goes wrong, and when.  All that is said of when must be so.

    @ivar kind: C{"delay"}: the call takes longer.  C{"fail"}: it fails, and
        nothing was done.  C{"lose"}: it is carried out, and then fails, as when a
        connection is lost before the answer came.  C{"hang"}: it is neither done
        nor answered until C{release()}.  C{"disconnect"}: every call fails at
        once, and C{available} is L{False}.  A call to which several others happen
        suffers them in the order in which they were asked for.
    @ivar operations: which calls (C{"get"}, C{"replace"}, ...); none: all of them.
    @ivar seconds: how much longer a call takes.
    @ivar error: what it fails with, an exception or its type;
        L{StoreUnavailable <txsession.StoreUnavailable>}, if nothing is said.
    @ivar skip: how many such calls go well first.
    @ivar times: how many such calls go wrong then; L{None}: all of them.
    @ivar start: from how many seconds on after the store was made.
    @ivar end: until how many seconds after the store was made; L{None}: for ever.

    @raise ValueError: there is no such kind or operation.
    """

    kind: str = field(validator=_checkKind)
    operations: frozenset[str] = field(default=frozenset(), converter=_asOperations)
    seconds: float = 0
    error: BaseException | type[BaseException] | None = None
    skip: int = 0
    times: int | None = None
    start: float = 0
    end: float | None = None

    def isTime(self, age: float) -> bool:
        """
        Whether it can happen at this age of the store.
        """
        if self.times == 0:
            return False
        return self.start <= age and (self.end is None or age < self.end)

    def strikes(self, operation: str, age: float) -> bool:
        """
        Whether it happens to this call, which it then counts.
        """
        if self.operations and operation not in self.operations:
            return False
        if not self.isTime(age):
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


class FaultyStore:
    """
    A store around another, which it uses, with faults.  It has the abilities of
    that other::

        store = FaultyStore(MemoryStore(reactor=clock), reactor=clock)
        store.fail("replace", times=1)           # the next save fails
        store.hang("get")                        # loads are never answered ...
        store.heal()                             # ... until now
        store.disconnect(start=60, end=90)       # out of reach for half a minute

    Each of the methods that cause faults takes the operations they happen to
    (all, if none are named) and the keywords C{skip}, C{times}, C{start} and
    C{end} of L{Fault <txsession.testing.Fault>}, which it returns.

    @param store: the store that does the work.
    @param reactor: the clock by which faults begin and end, and delays pass; the
        global reactor, imported at first use, by default.
    @param faults: what goes wrong from the beginning.
    @ivar calls: the calls so far, as tuples of the operation and its arguments.
    """

    def __init__(
        self, store: Any, *, reactor: Any | None = None, faults: Iterable[Fault] = ()
    ) -> None:
        self.store = store
        self.calls: list[tuple[Any, ...]] = []
        self._reactor = reactor
        # As the global reactor has it, which is not imported for this.
        self._made: float = time.time() if reactor is None else reactor.seconds()
        self._faults = list(faults)
        self._hanging: list[Deferred[None]] = []
        # Attributes, since from Python 3.12 on isinstance() does not see what
        # __getattr__ would give.
        for name in OPERATIONS:
            if callable(getattr(store, name, None)):
                setattr(self, name, partial(self._call, name))
        for name in ("start", "stop"):
            if callable(getattr(store, name, None)):
                setattr(self, name, getattr(store, name))

    def __repr__(self) -> str:
        return f"<FaultyStore around {self.store!r}>"

    # Faults.

    def delay(self, seconds: float, *operations: str, **when: Any) -> Fault:
        """
        Have calls take so many seconds longer.
        """
        return self._add(Fault("delay", frozenset(operations), seconds=seconds, **when))

    def fail(
        self,
        *operations: str,
        error: BaseException | type[BaseException] | None = None,
        **when: Any,
    ) -> Fault:
        """
        Have calls fail, with L{StoreUnavailable <txsession.StoreUnavailable>} or
        with another error, and without having done anything.
        """
        return self._add(Fault("fail", frozenset(operations), error=error, **when))

    def lose(
        self,
        *operations: str,
        error: BaseException | type[BaseException] | None = None,
        **when: Any,
    ) -> Fault:
        """
        Have calls fail after they were carried out.
        """
        return self._add(Fault("lose", frozenset(operations), error=error, **when))

    def hang(self, *operations: str, **when: Any) -> Fault:
        """
        Have calls wait until C{release()} or C{heal()}.
        """
        return self._add(Fault("hang", frozenset(operations), **when))

    def disconnect(self, **when: Any) -> Fault:
        """
        Be out of reach: every call fails with
        L{StoreUnavailable <txsession.StoreUnavailable>}, calls that hang now
        included, and C{available} is L{False}.
        """
        fault = self._add(Fault("disconnect", **when))
        if fault.isTime(self._age()):
            self._end(lambda waiting: waiting.errback(_unavailable(fault)))
        return fault

    def release(self) -> None:
        """
        Carry out the calls that hang.  Others will hang again.
        """
        self._end(lambda waiting: waiting.callback(None))

    def heal(self) -> None:
        """
        End all faults, and carry out the calls that hang.  A call that is delayed
        already still takes its time.
        """
        self._faults.clear()
        self.release()

    # The store.

    @property
    def available(self) -> bool:
        """
        Whether the store is within reach.
        """
        age = self._age()
        if any(f.kind == "disconnect" and f.isTime(age) for f in self._faults):
            return False
        return getattr(self.store, "available", True) is not False

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "store":
            raise AttributeError(name)
        return getattr(self.store, name)

    # How it is done.

    def _clock(self) -> Any:
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = reactor
        return self._reactor

    def _age(self) -> float:
        now: float = self._clock().seconds()
        return now - self._made

    def _add(self, fault: Fault) -> Fault:
        self._faults.append(fault)
        return fault

    def _hang(self) -> Deferred[None]:
        waiting: Deferred[None] = Deferred(
            lambda waiting: self._hanging.remove(waiting)
        )
        self._hanging.append(waiting)
        return waiting

    def _end(self, how: Callable[[Deferred[None]], None]) -> None:
        # One may hang again, or call another off, when it goes on.
        for waiting in list(self._hanging):
            if waiting in self._hanging:
                self._hanging.remove(waiting)
                how(waiting)

    def _call(self, operation: str, *arguments: Any) -> Any:
        method = getattr(self.store, operation)
        self.calls.append((operation, *arguments))
        age = self._age()
        striking = [each for each in self._faults if each.strikes(operation, age)]
        striking.sort(key=lambda fault: fault.kind != "disconnect")
        if not striking:
            return method(*arguments)
        return Deferred.fromCoroutine(self._suffer(striking, method, arguments))

    async def _suffer(
        self,
        striking: list[Fault],
        method: Callable[..., Any],
        arguments: tuple[Any, ...],
    ) -> Any:
        for fault in striking:
            if fault.kind == "delay":
                await deferLater(self._clock(), fault.seconds)
            elif fault.kind == "hang":
                await self._hang()
            elif fault.kind in ("fail", "disconnect"):
                raise fault.error or _unavailable(fault)
        answer = await resultOf(method(*arguments))
        for fault in striking:
            if fault.kind == "lose":
                raise fault.error or _unavailable(fault)
        return answer


_REASONS = {
    "fail": "the store was made to fail",
    "lose": "the answer was lost",
    "disconnect": "the store is disconnected",
}


def _unavailable(fault: Fault) -> StoreUnavailable:
    return StoreUnavailable(_REASONS[fault.kind])
