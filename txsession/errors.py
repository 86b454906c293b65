"""
What can go wrong, named by whose fault it is.

Every exception of txsession is a `SessionError`.  None of their messages ever
holds a session ID, a cookie value or a secret: an ID is represented by its
fingerprint (`txsession.signing.fingerprint`).
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "ConfigurationError",
    "CorruptRecord",
    "HeadersAlreadySent",
    "NoSession",
    "SessionConflict",
    "SessionDataError",
    "SessionDestroyed",
    "SessionError",
    "SessionGone",
    "SessionNotLoaded",
    "StoreError",
    "StoreTimeout",
    "StoreUnavailable",
]


class SessionError(Exception):
    """
    The base of every exception that txsession raises.

    @ivar operation: what was being done (C{"save"}, C{"get"}, ...), or L{None}
        where that is not known.
    @ivar fingerprint: which session it happened to, or L{None}.
    """

    def __init__(
        self,
        message: str = "",
        *,
        operation: str | None = None,
        fingerprint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.operation = operation
        self.fingerprint = fingerprint

    def __reduce__(self) -> tuple[Any, ...]:
        # Without its __init__, which in subclasses takes other arguments: test
        # runners send exceptions from process to process.
        return _remade, (type(self), self.args, self.__dict__)

    def __str__(self) -> str:
        message = super().__str__()
        context = [
            f"{label} {value}"
            for label, value in (
                ("operation", self.operation),
                ("session", self.fingerprint),
            )
            if value is not None
        ]
        return f"{message} ({', '.join(context)})".lstrip() if context else message


def _remade(
    kind: type[SessionError], args: tuple[Any, ...], state: dict[str, Any]
) -> SessionError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class ConfigurationError(SessionError, ValueError):
    """
    The deployer or programmer gave an option a value that cannot work.

    @ivar option: the name of the option, as it is written in code.
    """

    def __init__(self, message: str, *, option: str) -> None:
        super().__init__(f"{option}: {message}")
        self.option = option


class SessionDataError(SessionError, TypeError):
    """
    The application put something into a session that JSON cannot hold.

    @ivar path: where, as in C{"session['cart'][2]"}.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path} {problem}")
        self.path = path


class NoSession(SessionError):
    """
    The request has no session: no L{SessionResource <txsession.SessionResource>}
    took it, its session was destroyed or unset, or the store is down and
    C{storeDown="anonymous"}.
    """


class SessionNotLoaded(SessionError):
    """
    With C{lazy=True}, the session was used before C{load()} had fired.
    """


class SessionDestroyed(SessionError):
    """
    The data of a session was used after its C{destroy()}.
    """


class SessionGone(SessionError):
    """
    The session's record is no longer in the store: it expired, or another
    request destroyed it.
    """


class HeadersAlreadySent(SessionError):
    """
    The response's headers were already decided, so that the browser can no
    longer be given the cookie that this change would need.
    """


class SessionConflict(SessionError):
    """
    Another request changed the session, and the changes could not (or, with
    C{onConflict="error"}, should not) be reconciled.
    """


class CorruptRecord(SessionError):
    """
    What the store holds is not a session document.  The record is left as it
    is.
    """


class StoreError(SessionError):
    """
    The store failed.
    """


class StoreUnavailable(StoreError):
    """
    The store cannot be reached at present.  Authors of stores raise this, with
    the reason as its message.
    """


class StoreTimeout(StoreError):
    """
    The store took longer than C{storeTimeout}.
    """
