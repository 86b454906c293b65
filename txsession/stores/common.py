"""
What the stores with a backend outside this process have in common.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads

from ..errors import ConfigurationError, StoreError

__all__ = [
    "UnderWay",
    "checkHeld",
    "detached",
    "failing",
    "isText",
    "nothing",
    "realReactor",
    "wholeNumber",
]

P = ParamSpec("P")
T = TypeVar("T")


def failing(
    operation: Callable[P, Deferred[T]],
) -> Callable[P, Deferred[T]]:
    """
    Have an operation give a failed Deferred where it raises.
    """

    @wraps(operation)
    def wrapper(*arguments: P.args, **keywords: P.kwargs) -> Deferred[T]:
        try:
            return operation(*arguments, **keywords)
        except Exception:
            return fail()

    return wrapper


def realReactor(reactor: Any) -> Any:
    """
    The reactor that does the work: the one given, or the global one, imported
    now, if that is but a clock.
    """
    if reactor is not None and IReactorFromThreads.providedBy(reactor):
        return reactor
    from twisted.internet import reactor as theReactor

    return theReactor


def wholeNumber(value: object, option: str) -> int:
    """
    @raise ConfigurationError: the value is not a whole number above zero.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(
            f"must be a whole number above zero, not {value!r}", option=option
        )
    return value


def isText(sid: str) -> bool:
    """
    Whether UTF-8 can encode an ID.
    """
    try:
        sid.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def checkHeld(isHeld: bool) -> None:
    """
    @raise StoreError: something is to be stored under an ID that the backend
        cannot hold.
    """
    if not isHeld:
        raise StoreError("this store cannot hold such an ID; genid must not make it")


def detached(work: Deferred[T]) -> Deferred[T]:
    """
    What somebody waits for who may stop waiting, by cancelling it, while the work
    goes on.
    """
    waiting: Deferred[T] = Deferred()

    def ended(result: Any) -> None:
        if not waiting.called:
            waiting.callback(result)

    work.addBoth(ended)
    return waiting


def nothing(*_: Any) -> None:
    """
    What an operation gives that gives nothing.
    """


@define(eq=False)
class UnderWay:
    """
    How much a store has begun and not finished.
    """

    _count: int = 0
    _waiting: list[Deferred[None]] = field(factory=list)

    def add(self, work: Deferred[Any]) -> None:
        """
        Something has begun, and is over when this Deferred fires.
        """
        self._count += 1
        work.addBoth(self._ended)

    def _ended(self, result: Any) -> Any:
        self._count -= 1
        if self._waiting:
            # Not before those who wait for the work itself have gone on.
            realReactor(None).callLater(0, self._tell)
        return result

    def _tell(self) -> None:
        if self._count:
            return
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    def over(self) -> Deferred[None]:
        """
        Fires when nothing is under way.
        """
        if not self._count:
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        return waiting
