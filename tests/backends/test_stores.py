"""Stores of bytes: the contract, on the stores that the kit brings."""

from __future__ import annotations

import pytest

from dosna.backends.stores import listing
from dosna.backends.stores.listing import absent, levels
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


ABSENT = [
    ([], ["a", "b", "g/c", "g/h/d"], {"a", "b", "g", "g/c", "g/h", "g/h/d"}),
    (["a", "g/c"], ["a", "b", "g/c", "g/h/d", "g/e"], {"b", "g/h", "g/h/d", "g/e"}),
    (["ab"], ["a", "b"], {"a", "b"}),
    # Not worth a list: one name alone in a folder.
    ([], ["g/a"], set()),
    ([], ["g/a", "g/b"], {"g/a", "g/b"}),
    ([], [], set()),
]


@pytest.mark.parametrize(("there", "names", "expected"), ABSENT)
def test_absent_names(there, names, expected):
    store = MemoryStore()
    for name in there:
        store.put(f"{name}/zarr.json", b"{}")
    assert absent(store, names) == expected


def test_a_folder_of_many_others_is_not_listed_to_its_end(monkeypatch):
    monkeypatch.setattr(listing, "_FEW", 10)
    store = MemoryStore()
    assert absent(store, ["a", "b"]) == {"a", "b"}
    for n in range(100):
        store.put(f"other{n}/zarr.json", b"{}")
    assert absent(store, ["a", "b"]) == set()


def test_levels_of_groups():
    assert levels([]) == [[""]]
    assert levels(["a/b/c", "a/d", "e/f", "g"]) == [[""], ["a", "e"], ["a/b"]]
