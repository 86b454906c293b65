"""
What the stores on SQL databases share: connections in threads, by C{adbapi}.

The statements are whole transactions, so every connection is in autocommit mode,
and there is nothing for C{adbapi} to commit or to roll back.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Timer
from typing import Any

from attrs import define, field
from twisted.enterprise import adbapi
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

__all__ = ["Job", "Pool"]


@define(eq=False)
class Job:
    """
    Something that a thread does with a connection.

    @ivar work: what is to be done; it is given the connection.
    @ivar isAbandoned: whether nobody waits for it any longer.
    @ivar answer: what whoever waits for it waits for.  Cancelled before a thread
        was free for the job, the job is not done at all.
    @ivar over: fires when no thread is busy with it any longer.
    """

    work: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    isAbandoned: bool = False
    answer: Deferred[Any] = field(init=False)
    over: Deferred[None] = field(factory=Deferred, init=False)

    def __attrs_post_init__(self) -> None:
        self.answer = Deferred(lambda _: self.abandon())

    def abandon(self) -> None:
        """
        Nobody waits for it any longer.
        """
        self.isAbandoned = True

    def interrupt(self) -> None:
        """
        Nobody waits for it any longer, and if a thread is busy with it that could
        be so for ever, it gives up.
        """
        self.abandon()

    def run(self, pool: Pool) -> Any:
        """
        Do it, in a thread, unless it has been abandoned.
        """
        if self.isAbandoned:
            return None
        return self.work(pool.connect(), *self.arguments)

    def ended(self, result: Any) -> None:
        """
        Give the answer, if somebody still waits for it.
        """
        self.over.callback(None)
        if not self.answer.called:
            self.answer.callback(result)
        elif isinstance(result, Failure):
            result.cleanFailure()


class Pool(adbapi.ConnectionPool):
    """
    Connections to a database, each with a thread of its own.

    @param opener: opens a connection, in that thread.
    @param patience: seconds that the end of the process waits for jobs, when nobody
        has called L{shut}.
    """

    def __init__(
        self,
        driver: str,
        opener: Callable[[], Any],
        size: int,
        patience: float,
        reactor: Any,
    ) -> None:
        self._opener = opener
        self._patience = patience
        self._jobs: set[Job] = set()
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

    def begin(self, job: Job) -> Deferred[Any]:
        """
        Have a thread do a job.

        @return: fires with its answer.
        """
        self._jobs.add(job)
        running = deferToThreadPool(self._reactor, self.threadpool, job.run, self)
        running.addBoth(self._ended, job)
        return job.answer

    def _ended(self, result: Any, job: Job) -> None:
        self._jobs.discard(job)
        job.ended(result)

    async def shut(self) -> None:
        """
        Close all connections, which may take a while, and so a thread does it.
        Nothing may be under way.
        """
        await deferToThreadPool(self._reactor, self.threadpool, self._shutAll)
        self.close()  # type: ignore[no-untyped-call]

    def finalClose(self) -> None:
        """
        Close all connections at the end of the process.
        """
        # The reactor waits here for the threads, so none of its timeouts passes.
        ending = Timer(self._patience, self._interruptAll)
        ending.daemon = True
        ending.start()
        super().finalClose()  # type: ignore[no-untyped-call]
        ending.cancel()
        ending.join()

    def _interruptAll(self) -> None:
        for job in self._jobs:
            job.interrupt()

    def _shutAll(self) -> None:
        while self.connections:
            self._close(self.connections.popitem()[1])  # type: ignore[no-untyped-call]
