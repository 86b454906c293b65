"""
The store as the rest of txsession calls it: every call answered by a Deferred,
and none for ever.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from inspect import iscoroutine
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from .errors import SessionError, StoreTimeout, StoreUnavailable
from .signing import fingerprint

__all__ = ["Backend", "Turns", "isOutage", "writesInFlight"]

_inFlight: WeakKeyDictionary[Any, set[Deferred[Any]]] = WeakKeyDictionary()


def writesInFlight(store: object) -> set[Deferred[Any]]:
    """
    The writes to a store that have begun and not ended, timed out or not.
    """
    try:
        return _inFlight.setdefault(store, set())
    except TypeError:  # cannot be hashed, or not be referred to weakly
        return set()


def isOutage(error: BaseException | None) -> bool:
    """
    Whether the store, rather than something in it, is the trouble.
    """
    return isinstance(error, (StoreUnavailable, StoreTimeout))


@define(eq=False, repr=False)
class Backend:
    """
    A store, and how it is called.

    @ivar reactor: gives the clock; called when that is first needed.
    @ivar timeout: C{storeTimeout}, in seconds.
    @ivar isConditional: whether the store can compare and swap.
    @ivar isTouchable: whether it has C{touch}.
    """

    store: Any
    log: Logger
    reactor: Callable[[], Any]
    timeout: float
    _turns: WeakValueDictionary[str, Turns] = field(
        factory=WeakValueDictionary, init=False
    )
    isConditional: bool = field(init=False)
    isTouchable: bool = field(init=False)
    inFlight: set[Deferred[Any]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.isConditional = self._has("create") and self._has("replace")
        self.isTouchable = self._has("touch")
        self.inFlight = writesInFlight(self.store)

    def _has(self, method: str) -> bool:
        return callable(getattr(self.store, method, None))

    def isAvailable(self) -> bool:
        """
        Whether the store does not say of itself that it is out of reach.
        """
        return getattr(self.store, "available", True) is not False

    def call(self, operation: str, sid: str, *arguments: object) -> Any:
        """
        Call the store.

        @return: what it answers, if it answers at once.  Otherwise a Deferred,
            which fires with that; or fails with what the store failed with, or
            with L{StoreTimeout} if it takes too long: a C{get} is then
            cancelled, anything else goes on, and what becomes of it is logged.
            Cancelling the Deferred does the same.
        @raise Exception: what the store raises at once.
        """
        try:
            answer = getattr(self.store, operation)(sid, *arguments)
        except Exception as error:
            _annotate(error, operation, sid)
            raise
        if isinstance(answer, Deferred):
            # Most calls of a store in memory end here, so no further Deferred
            # is made for them.  (One that waits for another is paused.)
            if answer.called and not answer.paused:
                result = answer.result
                if not isinstance(result, Failure):
                    return result
        elif iscoroutine(answer):
            answer = Deferred.fromCoroutine(answer)
        else:
            return answer
        return _Call(self, operation, sid, answer).begin()

    def turnsOf(self, sid: str) -> Turns:
        """
        What lets those who retry a write of the same session take turns.
        """
        turns = self._turns.get(sid)
        if turns is None:
            turns = self._turns[sid] = Turns()
        return turns

    async def ask(self, operation: str, sid: str, *arguments: object) -> Any:
        """
        Call the store and wait for its answer.
        """
        answer = self.call(operation, sid, *arguments)
        # To ask of anything else whether it is a Deferred is slow: that is an
        # abstract class.
        return await answer if type(answer) is Deferred else answer


@define(eq=False)
class Turns:
    """
    Lets one at a time do something, in the order in which they came.
    """

    _isTaken: bool = False
    _isPassing: bool = False
    _waiting: deque[Deferred[None]] = field(factory=deque)

    async def take(self) -> None:
        """
        Wait until it is one's turn.
        """
        if self._isTaken:
            turn: Deferred[None] = Deferred()
            self._waiting.append(turn)
            await turn
        self._isTaken = True

    def give(self) -> None:
        """
        Let the next have their turn.
        """
        self._isTaken = False
        if self._isPassing:
            return
        # A loop, so that those who need not wait for anything in their turn do
        # not have theirs one inside the other.
        self._isPassing = True
        while self._waiting and not self._isTaken:
            self._isTaken = True
            self._waiting.popleft().callback(None)
        self._isPassing = False


def _annotate(error: BaseException | None, operation: str, sid: str) -> None:
    """
    Say in a store's exception which session it is about, by its fingerprint; and
    take the ID out of its text and its causes', as all this is logged.
    """
    if isinstance(error, SessionError):
        # Anew each time: some drivers raise one exception for all who wait.
        error.operation = operation
        error.fingerprint = fingerprint(sid)
    if len(sid) >= UNMISTAKABLE:
        for each in _chain(error):
            _scrub(each, sid)


UNMISTAKABLE = 16
"""
From how many characters on an ID in a text can be nothing else.
"""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _scrub(error: BaseException, sid: str) -> None:
    def told(value: object) -> object:
        return value.replace(sid, fingerprint(sid)) if isinstance(value, str) else value

    if any(isinstance(value, str) and sid in value for value in error.args):
        error.args = tuple(map(told, error.args))
    for name in ("filename", "filename2") if isinstance(error, OSError) else ():
        value = getattr(error, name)
        if isinstance(value, str) and sid in value:
            setattr(error, name, told(value))


@define(eq=False, repr=False)
class _Call:
    """
    One call of a store.
    """

    backend: Backend
    operation: str
    sid: str
    answer: Deferred[Any]
    outer: Deferred[Any] = field(init=False)
    timeout: Any = field(default=None, init=False)
    isAnswered: bool = field(default=False, init=False)
    isOver: bool = field(default=False, init=False)

    def begin(self) -> Deferred[Any]:
        self.outer = Deferred(self._cancelled)
        self.answer.addCallbacks(self._succeeded, self._failed)
        if not self.isAnswered:
            self._await()
        return self.outer

    @property
    def _isRead(self) -> bool:
        return self.operation == "get"

    def _await(self) -> None:
        if not self._isRead:
            self.backend.inFlight.add(self.answer)
        self.timeout = self.backend.reactor().callLater(
            self.backend.timeout, self._timedOut
        )

    def _succeeded(self, result: object) -> None:
        if self._finish(isAnswered=True):
            self.outer.callback(result)
        elif not self._isRead:
            self._logLate("succeeded")

    def _failed(self, failure: Failure) -> None:
        error = failure.value
        _annotate(error, self.operation, self.sid)
        if self._finish(isAnswered=True):
            self.outer.errback(failure)
        elif not isinstance(error, CancelledError):
            self._logLate(f"failed: {failure.getErrorMessage()}")

    def _timedOut(self) -> None:
        self.timeout = None
        self._finish(isAnswered=False)
        self.outer.errback(
            StoreTimeout(
                f"the store did not answer within {self.backend.timeout:g} seconds",
                operation=self.operation,
                fingerprint=fingerprint(self.sid),
            )
        )
        self._stopReading()

    def _cancelled(self, _outer: Deferred[Any]) -> None:
        self._finish(isAnswered=False)
        self._stopReading()

    def _stopReading(self) -> None:
        if self._isRead:
            self.answer.cancel()

    def _finish(self, isAnswered: bool) -> bool:
        """
        @return: whether anybody still waits for the answer.
        """
        if isAnswered:
            self.isAnswered = True
            self.backend.inFlight.discard(self.answer)
        if self.timeout is not None:
            self.timeout.cancel()
            self.timeout = None
        wasOver, self.isOver = self.isOver, True
        return not wasOver

    def _logLate(self, result: str) -> None:
        self.backend.log.warn(
            "The store's {operation} of session {session}, which nobody waited for "
            "any longer, {result}",
            operation=self.operation,
            session=fingerprint(self.sid),
            result=result,
        )
