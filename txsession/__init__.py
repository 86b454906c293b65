"""
Server-side sessions for Twisted Web and Klein.

Importing this package installs no reactor.
"""

from __future__ import annotations

from .cookies import CookieOptions
from .errors import (
    ConfigurationError,
    CorruptRecord,
    HeadersAlreadySent,
    NoSession,
    SessionConflict,
    SessionDataError,
    SessionDestroyed,
    SessionError,
    SessionGone,
    SessionNotLoaded,
    StoreError,
    StoreTimeout,
    StoreUnavailable,
)
from .record import Record
from .resource import SessionResource, getSession
from .service import SessionService
from .session import ISession, Session
from .store import (
    ConditionalStore,
    EnumerableStore,
    PrunableStore,
    ServiceStore,
    Store,
)
from .stores.memory import MemoryStore
from .stores.url import storeFromURL

__all__ = [
    "ConditionalStore",
    "ConfigurationError",
    "CookieOptions",
    "CorruptRecord",
    "EnumerableStore",
    "HeadersAlreadySent",
    "ISession",
    "MemoryStore",
    "NoSession",
    "PrunableStore",
    "Record",
    "ServiceStore",
    "Session",
    "SessionConflict",
    "SessionDataError",
    "SessionDestroyed",
    "SessionError",
    "SessionGone",
    "SessionNotLoaded",
    "SessionResource",
    "SessionService",
    "Store",
    "StoreError",
    "StoreTimeout",
    "StoreUnavailable",
    "getSession",
    "storeFromURL",
]

__version__ = "1.0.0"
