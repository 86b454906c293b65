"""
Every built-in store keeps the contract of `txsession.testing.StoreContract`.
"""

from __future__ import annotations

from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

from txsession import MemoryStore
from txsession.stores.postgresql import PostgreSQLStore
from txsession.stores.redis import RedisStore
from txsession.stores.sqlite import SQLiteStore
from txsession.testing import StoreContract


class TestMemoryStore(StoreContract):
    def makeStore(self) -> MemoryStore:
        return MemoryStore()


class TestSQLiteStore(StoreContract):
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "sessions.db"

    def makeStore(self) -> SQLiteStore:
        return SQLiteStore(self.path)


class TestPostgreSQLStore(StoreContract):
    @pytest.fixture(autouse=True)
    def server(self, postgresqlServer: Any) -> None:
        self.url = postgresqlServer.url

    def makeStore(self) -> PostgreSQLStore:
        return PostgreSQLStore(self.url, table=f"contract {token_hex(8)}")


class TestPostgreSQLStoreSerializable(TestPostgreSQLStore):
    """
    On a server that, by default, rather has a statement fail than another's effect
    seen.
    """

    def makeStore(self) -> PostgreSQLStore:
        setting = "-c%20default_transaction_isolation%3Dserializable"
        separator = "&" if "?" in self.url else "?"
        return PostgreSQLStore(
            f"{self.url}{separator}options={setting}", table=f"contract {token_hex(8)}"
        )


class TestRedisStore(StoreContract):
    @pytest.fixture(autouse=True)
    def server(self, redisServer: Any) -> None:
        self.url = redisServer.url

    def makeStore(self) -> RedisStore:
        return RedisStore(self.url, prefix=f"contract:{token_hex(8)}:")
