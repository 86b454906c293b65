"""
What a store keeps for a session.
"""

from __future__ import annotations

from attrs import field, frozen

__all__ = ["Record"]


@frozen
class Record:
    """
    A session as its store sees it: opaque bytes, and when to forget them.

    @ivar payload: the session's document (see `txsession.document`); a store
        gives it back byte for byte.
    @ivar expires: the POSIX timestamp from which on the record is absent.  A
        store keeps it to the millisecond, and never makes it earlier.
    """

    payload: bytes = field(repr=lambda payload: f"<{len(payload)} bytes>")
    expires: float

    def isLive(self, now: float) -> bool:
        """
        Whether the record still counts at the timestamp C{now}.
        """
        return now < self.expires
