from __future__ import annotations
from pathlib import Path
import pytest
from examples.file_store import FileStore
from txsession.testing import StoreContract

class TestFileStore(StoreContract):
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "sessions"

    def makeStore(self) -> FileStore:
        return FileStore(self.path)
