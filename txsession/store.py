"""
What txsession asks of a store, as Protocols.

A method may return a C{Deferred}, a coroutine, or the plain value.  Absent is a
value (L{None}), broken is an exception: raise
L{StoreUnavailable <txsession.StoreUnavailable>} when the backend cannot be
reached; any other exception counts as a bug of the store.  Its text is logged, so
keep the ID out of it.

An expired record is absent for every operation.  IDs are any C{str} that UTF-8
can encode; they are case-sensitive, mean nothing as patterns, and are neither
shortened nor normalised.  An ID that the backend cannot hold counts as absent.
"""

from __future__ import annotations

from collections.abc import Awaitable
from inspect import isawaitable
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

from .record import Record

__all__ = [
    "ConditionalStore",
    "EnumerableStore",
    "PrunableStore",
    "ServiceStore",
    "Store",
    "TouchableStore",
    "resultOf",
]

T = TypeVar("T")
Answer: TypeAlias = Awaitable[T] | T
"""
A C{Deferred}, a coroutine, or the plain value.
"""


async def resultOf(answer: Any) -> Any:
    """
    What a store answers, waited for if need be.
    """
    return await answer if isawaitable(answer) else answer


@runtime_checkable
class Store(Protocol):
    """
    The three methods that every store has.

    Beyond them, a store may have C{touch} (recommended), the abilities of the
    other Protocols here, and an attribute C{available}: a C{bool} that is
    L{False} while the backend is known to be out of reach.
    """

    def get(self, sid: str) -> Answer[Record | None]:
        """
        Fires with the live record of this ID, or L{None}.
        """
        ...

    def set(self, sid: str, record: Record) -> Answer[None]:
        """
        Store the record under this ID, whether or not there is one already.
        """
        ...

    def destroy(self, sid: str) -> Answer[None]:
        """
        Forget this session.  An unknown ID is not an error.
        """
        ...


@runtime_checkable
class TouchableStore(Protocol):
    """
    A store that can renew an expiry without being sent the payload.
    """

    def touch(self, sid: str, expires: float) -> Answer[None]:
        """
        Set the expiry of the live record of this ID, earlier or later.  An
        unknown ID is not an error, and nothing is created for it.
        """
        ...


@runtime_checkable
class ConditionalStore(Protocol):
    """
    A store that can compare and swap.  Without this, parallel requests
    overwrite each other's changes, and a request in flight brings back a
    session that another has destroyed.
    """

    def create(self, sid: str, record: Record) -> Answer[bool]:
        """
        Store the record if the ID is free.  Fires with whether it was.
        """
        ...

    def replace(self, sid: str, record: Record, expected: Record) -> Answer[bool]:
        """
        Store the record if the live record of this ID has the payload of
        C{expected}, whatever its expiry.  Fires with whether it had; if not,
        nothing has changed.
        """
        ...


@runtime_checkable
class EnumerableStore(Protocol):
    """
    A store that can tell what it holds.
    """

    def all(self) -> Answer[dict[str, Record]]:
        """
        Fires with every live record, by ID.
        """
        ...

    def length(self) -> Answer[int]:
        """
        Fires with the number of live records.
        """
        ...

    def clear(self) -> Answer[None]:
        """
        Forget every session of this store, and nothing else in its backend.
        """
        ...


@runtime_checkable
class PrunableStore(Protocol):
    """
    A store whose expired records take up room until they are pruned.
    """

    def prune(self, limit: int) -> Answer[int]:
        """
        Delete at most C{limit} expired records.  Fires with how many were.
        """
        ...


@runtime_checkable
class ServiceStore(Protocol):
    """
    A store that has something to open and close.  It starts itself at first use
    when nobody called C{start}.
    """

    def start(self) -> Answer[None]:
        """
        Open what the store needs.  Started already: nothing happens.
        """
        ...

    def stop(self) -> Answer[None]:
        """
        Finish what is under way and close.  Not started: nothing happens.
        """
        ...
