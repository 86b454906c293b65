"""
For tests: of stores, of what becomes of an application whose store fails, and of
handlers.  Importing this installs no reactor.
"""

from __future__ import annotations

from .contract import StoreContract
from .faulty import Fault, FaultyStore
from .requests import requestWith

__all__ = ["Fault", "FaultyStore", "StoreContract", "requestWith"]
