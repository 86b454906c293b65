"""
A logger for what happens on every request.
"""

from __future__ import annotations

from time import time

from twisted.logger import Logger, LogLevel

__all__ = ["DecisionLog"]


class DecisionLog(Logger):
    """
    A C{Logger} whose C{debug} is cheap where nobody listens: it makes the same
    event as C{Logger.debug}, but neither checks its own level nor traces it,
    which is most of the time that an event takes that an observer then filters
    out.
    """

    def debug(self, format: str | None = None, **fields: object) -> None:  # noqa: A002
        """
        Emit an event at level C{debug}.
        """
        fields["log_logger"] = self
        fields["log_level"] = LogLevel.debug
        fields["log_namespace"] = self.namespace
        fields["log_source"] = self.source
        fields["log_format"] = format
        fields["log_time"] = time()
        self.observer(fields)
