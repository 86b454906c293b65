"""
Runs the operations of a session, its verbs and the save at the end of its request,
one at a time.

Each waits for the one before it.  What it returns can be cancelled without
consequence: the operation goes on, only the waiting ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Generator
from types import coroutine
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from .session import Session

__all__ = ["begin", "enqueue"]

T = TypeVar("T")


def enqueue(
    session: Session, operation: Callable[[], Coroutine[Any, Any, T]]
) -> Deferred[T]:
    """
    Run an operation of a session when those before it are over.

    @return: fires with its result; cancelling it does not stop it.
    """
    if session._pending is not None:
        waiting: Deferred[T] = Deferred()
        session._pending.append((operation, waiting))
        return _shielded(waiting)
    result = begin(session, operation())
    if isinstance(result, Deferred):
        return result
    return fail(result) if isinstance(result, Failure) else succeed(result)


def begin(
    session: Session, operation: Coroutine[Any, Any, T]
) -> T | Failure | Deferred[T]:
    """
    Run an operation of a session now.

    @return: its result, if the store answered at once; or a Deferred that
        fires with it, and that can be cancelled without stopping it.
    """
    # An operation that waits for nothing is spared the Deferreds that would
    # take longer than the store itself.
    try:
        awaited = operation.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    except Exception:
        return Failure()
    session._pending = deque()
    running: Deferred[T] = Deferred.fromCoroutine(_goOn(operation, awaited))
    # Who waits for it goes on before what is queued behind it, which may be
    # the end of the response.
    shielded = _shielded(running)
    running.addBoth(_runPending, session)
    return shielded


def _runPending(result: T, session: Session) -> T:
    """
    Run what waits for an operation of a session that has ended, one after the
    other and not one inside the other.
    """
    pending = cast("deque[Any]", session._pending)
    while pending:
        operation, waiting = pending.popleft()
        running = Deferred.fromCoroutine(operation())
        isOver = running.called
        running.addBoth(waiting.callback)
        if not isOver:
            running.addBoth(_runPending, session)
            return result
    session._pending = None
    return result


@coroutine
def _goOn(operation: Coroutine[Any, Any, T], awaited: Any) -> Generator[Any, Any, T]:
    """
    Go on with a coroutine that has begun, and waits for something.
    """
    step: Callable[[Any], Any]
    while True:
        try:
            step, value = operation.send, (yield awaited)
        except BaseException as error:
            step, value = operation.throw, error
        try:
            awaited = step(value)
        except StopIteration as stop:
            return cast(T, stop.value)


def _shielded(inner: Deferred[T]) -> Deferred[T]:
    outer: Deferred[T] = Deferred(lambda _: None)

    def succeeded(result: T) -> None:
        if not outer.called:
            outer.callback(result)

    def failed(failure: Failure) -> Failure | None:
        if outer.called:
            return failure
        outer.errback(failure)
        return None

    inner.addCallbacks(succeeded, failed)
    return outer
