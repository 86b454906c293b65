"""
What a store keeps for a session.
"""

from __future__ import annotations

from attrs import field, frozen

__all__ = ["LATEST", "Record", "asMilliseconds"]

LATEST = 253_402_300_799_000
"""
The last second of the year 9999, in milliseconds: the latest expiry that the
backends of the built-in stores can all hold.
"""


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


def asMilliseconds(expires: float) -> int:
    """
    An expiry as whole milliseconds, which divided by 1000 are never earlier; but
    no later than `LATEST`, and no earlier than the epoch.
    """
    if not 0 < expires < LATEST / 1000:
        return 0 if expires <= 0 else LATEST
    milliseconds = round(expires * 1000)
    return milliseconds if milliseconds / 1000 >= expires else milliseconds + 1
