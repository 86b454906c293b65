"""
Stores by URL, for deployments.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlsplit

from ..errors import ConfigurationError
from .memory import MemoryStore

__all__ = ["storeFromURL"]


def storeFromURL(url: str, *, reactor: Any | None = None) -> MemoryStore:
    """
    Make the store that a URL describes.

    C{memory:} is a L{MemoryStore <txsession.MemoryStore>};
    C{memory:?maxSessions=100000} is one with a limit.

    @param reactor: the store's clock; by default the global reactor.
    @raise ConfigurationError: no store goes by that URL, or the URL says
        something that the store does not understand.  The message holds no
        more of the URL than its scheme, lest it show a password.
    """
    if not isinstance(url, str):
        raise ConfigurationError(
            f"must be a str, not {type(url).__name__}", option="store"
        )
    try:
        parts = urlsplit(url)
    except ValueError:
        # Its message may hold the password.
        raise ConfigurationError("is not a URL", option="store") from None
    make = _MAKERS.get(parts.scheme)
    if make is None:
        raise ConfigurationError(
            f"no store has URLs that begin with {parts.scheme + ':'!r}; "
            f"there is {', '.join(scheme + ':' for scheme in _MAKERS)}",
            option="store",
        )
    return make(parts, reactor)


def _memory(parts: SplitResult, reactor: Any) -> MemoryStore:
    if parts.netloc or parts.path or parts.fragment:
        raise ConfigurationError(
            'a memory store has neither host nor path; write "memory:"',
            option="store",
        )
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    maxSessions = options.pop("maxSessions", None)
    if options:
        raise ConfigurationError(
            f"a memory store has no option {min(options)!r}; there is maxSessions",
            option="store",
        )
    if maxSessions is None:
        return MemoryStore(reactor=reactor)
    if not re.fullmatch("[0-9]{1,18}", maxSessions):
        raise ConfigurationError(
            f"must be a whole number, not {maxSessions!r}", option="maxSessions"
        )
    return MemoryStore(int(maxSessions), reactor=reactor)


_MAKERS: dict[str, Callable[[SplitResult, Any], MemoryStore]] = {"memory": _memory}
