"""
What the stores on SQL databases share: connections in threads, by C{adbapi}.

The statements are whole transactions, so every connection is in autocommit mode,
and there is nothing for C{adbapi} to commit or to roll back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define
from twisted.enterprise import adbapi
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

__all__ = ["Job", "Pool"]


class _Autocommit(adbapi.Connection):
    def commit(self) -> None:
        pass

    def rollback(self) -> None:
        pass


@define(eq=False)
class Job:
    """
    Something that a thread does with a connection.

    @ivar work: what is to be done; it is given the connection of the DB-API.
    @ivar isAbandoned: whether nobody waits for it any longer.
    """

    work: Callable[..., Any]
    arguments: tuple[Any, ...]
    isAbandoned: bool = False

    def run(self, connection: Any) -> Any:
        """
        Do it, in a thread, unless it has been abandoned.
        """
        if self.isAbandoned:
            return None
        return self.work(connection._connection, *self.arguments)


class Pool(adbapi.ConnectionPool):
    """
    Connections to a database, each with a thread of its own.

    @param opener: opens a connection, in that thread.
    """

    connectionFactory = _Autocommit

    def __init__(
        self, driver: str, opener: Callable[[], Any], size: int, reactor: Any
    ) -> None:
        self._opener = opener
        super().__init__(driver, cp_min=0, cp_max=size, cp_reactor=reactor)  # type: ignore[no-untyped-call]

    def connect(self) -> Any:
        """
        The connection of this thread, opened if there is none.
        """
        thread = self.threadID()  # type: ignore[no-untyped-call]
        connection = self.connections.get(thread)
        if connection is None:
            connection = self.connections[thread] = self._opener()
        return connection

    def run(self, work: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """
        Have a thread do something with a connection.

        @return: fires with its result.  Cancelled before a thread was free for
            it, it is not done at all.
        """
        return self.begin(Job(work, arguments))

    def begin(self, job: Job) -> Deferred[Any]:
        """
        Have a thread do a job.
        """
        outer: Deferred[Any] = Deferred(lambda _: setattr(job, "isAbandoned", True))

        def pass_(result: Any) -> None:
            if not outer.called:
                outer.callback(result)
            elif isinstance(result, Failure):
                result.cleanFailure()

        self.runWithConnection(job.run).addBoth(pass_)  # type: ignore[no-untyped-call]
        return outer
