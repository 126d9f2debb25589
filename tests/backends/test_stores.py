"""Stores of bytes: the contract, on the stores that the kit brings."""

from __future__ import annotations

import pytest

from dosna.testing import CountingStore, FolderStore, MemoryStore, StoreTests


class TestMemoryStore(StoreTests):
    @pytest.fixture
    def store(self):
        return MemoryStore()


class TestFolderStore(StoreTests):
    @pytest.fixture
    def store(self, tmp_path):
        return FolderStore(tmp_path)


class TestWrappedStore(StoreTests):
    @pytest.fixture
    def store(self):
        return CountingStore(MemoryStore())
