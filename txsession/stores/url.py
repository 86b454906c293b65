"""
Stores by URL, for deployments.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from ..errors import ConfigurationError
from .memory import MemoryStore

__all__ = ["storeFromURL"]


def storeFromURL(url: str, *, reactor: Any | None = None) -> Any:
    """
    Make the store that a URL describes.  Options of the store stand in its query,
    as in C{redis://127.0.0.1/0?prefix=shop:&timeout=2}.

      - C{memory:} is a L{MemoryStore <txsession.MemoryStore>}; its option is
        C{maxSessions}.
      - C{sqlite:sessions.db} is an C{SQLiteStore} of that file, relative to the
        working directory; C{sqlite:/var/lib/sessions.db} is absolute.  Options:
        C{durable} (C{true} or C{false}), C{timeout}, C{readers}.
      - C{postgresql://user:password@host:port/database} is a C{PostgreSQLStore}.
        Options: C{table}, C{schema}, C{createTable}, C{connections}, C{timeout};
        any others are libpq's, such as C{sslmode}.
      - C{redis://}, C{rediss://}, C{redis+unix://} and C{redis+sentinel://} are a
        C{RedisStore}, whose documentation has their forms.  Options: C{prefix},
        C{connections}, C{timeout}.

    @param reactor: the store's clock; by default the global reactor.
    @raise ConfigurationError: no store goes by that URL, it says something that
        the store does not understand, or the store's driver is not installed.
        The message holds nothing of the URL's credentials.
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
        # Without a scheme there may be a password in it, so it is not shown.
        problem = (
            f"no store has URLs that begin with '{parts.scheme}:'"
            if parts.scheme
            else "is not a URL, as sqlite:sessions.db is"
        )
        raise ConfigurationError(
            f"{problem}; there is {', '.join(scheme + ':' for scheme in _MAKERS)}",
            option="store",
        )
    if "#" in url:
        raise ConfigurationError("has a #; write it as %23", option="store")
    return make(parts, reactor)


def _memory(parts: SplitResult, reactor: Any) -> MemoryStore:
    if parts.netloc or parts.path:
        raise ConfigurationError(
            'a memory store has neither host nor path; write "memory:"',
            option="store",
        )
    options, others = _options(parts, maxSessions=_asCount)
    _refuse(others, "a memory store", "maxSessions")
    return MemoryStore(**options, reactor=reactor)


def _sqlite(parts: SplitResult, reactor: Any) -> Any:
    if parts.netloc or not parts.path:
        raise ConfigurationError(
            'an SQLite store has a file and no host; write "sqlite:sessions.db", or '
            '"sqlite:/var/lib/sessions.db" with one slash',
            option="store",
        )
    options, others = _options(
        parts, durable=_asFlag, timeout=_asNumber, readers=_asCount
    )
    _refuse(others, "an SQLite store", "durable, timeout, readers")
    store = _imported("sqlite", "SQLiteStore", "sqlite3", None)
    return store(unquote(parts.path), **options, reactor=reactor)


def _postgresql(parts: SplitResult, reactor: Any) -> Any:
    options, others = _options(
        parts,
        table=_asText,
        schema=_asText,
        createTable=_asFlag,
        connections=_asCount,
        timeout=_asNumber,
    )
    store = _imported("postgresql", "PostgreSQLStore", "psycopg", "postgresql")
    return store(_without(parts, others), **options, reactor=reactor)


def _redis(parts: SplitResult, reactor: Any) -> Any:
    options, others = _options(
        parts, prefix=_asText, connections=_asCount, timeout=_asNumber
    )
    store = _imported("redis", "RedisStore", "txredisapi", "redis")
    return store(_without(parts, others), **options, reactor=reactor)


_MAKERS: dict[str, Callable[[SplitResult, Any], Any]] = {
    "memory": _memory,
    "sqlite": _sqlite,
    "postgresql": _postgresql,
    "postgres": _postgresql,
    "redis": _redis,
    "rediss": _redis,
    "redis+unix": _redis,
    "redis+sentinel": _redis,
}


def _imported(module: str, name: str, driver: str, extra: str | None) -> Any:
    """
    A store's class, from its module, which is imported only now: some drivers
    install a reactor.
    """
    try:
        return getattr(import_module(f"txsession.stores.{module}"), name)
    except ImportError as error:
        remedy = "build Python with it" if extra is None else _installing(extra)
        reason = error.__cause__ or error
        raise ConfigurationError(
            f"{name} needs {driver}, which cannot be imported ({reason}); {remedy}",
            option="store",
        ) from error


def _installing(extra: str) -> str:
    return f"pip install 'txsession[{extra}]'"


def _options(
    parts: SplitResult, **kinds: Callable[[str, str], Any]
) -> tuple[dict[str, Any], list[str]]:
    """
    The options of a store in the query, and what else is there, as it is.
    """
    options: dict[str, Any] = {}
    others = []
    for part in parts.query.split("&") if parts.query else ():
        name, _, value = part.partition("=")
        kind = kinds.get(unquote(name))
        if kind is None:
            others.append(part)
        else:
            options[unquote(name)] = kind(unquote(value), unquote(name))
    return options, others


def _refuse(others: list[str], store: str, known: str) -> None:
    if others:
        name = unquote(min(others).partition("=")[0])
        raise ConfigurationError(
            f"{store} has no option {name!r}; there is {known}", option="store"
        )


def _without(parts: SplitResult, others: list[str]) -> str:
    """
    The URL with only these in its query.
    """
    # Not geturl(), which drops slashes.
    slashes = "//" if parts.netloc or parts.path.startswith("/") else ""
    url = f"{parts.scheme}:{slashes}{parts.netloc}{parts.path}"
    return f"{url}?{'&'.join(others)}" if others else url


def _asText(text: str, option: str) -> str:
    return text


def _asCount(text: str, option: str) -> int:
    if not re.fullmatch("[0-9]{1,18}", text):
        raise ConfigurationError(f"must be a whole number, not {text!r}", option=option)
    return int(text)


def _asNumber(text: str, option: str) -> float:
    if not re.fullmatch(r"[0-9]{1,18}(\.[0-9]{1,18})?", text):
        raise ConfigurationError(
            f"must be a number of seconds, not {text!r}", option=option
        )
    return float(text)


def _asFlag(text: str, option: str) -> bool:
    if text not in ("true", "false"):
        raise ConfigurationError(f"must be true or false, not {text!r}", option=option)
    return text == "true"
