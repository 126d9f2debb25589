"""Conformance of dataset names that a layout uses for its own documents."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest

import dosna as dn
from dosna import errors
from dosna.testing.base import Kit
from dosna.testing.samples import check

_HIDDEN = (
    ".lock",
    ".written-0",
    ".group.json",
    ".creating-0123",
    ".deleting-0123",
    ".replacing-0123",
    ".zarray",
    ".zgroup",
    ".zattrs",
    ".zmetadata",
    ".dosna-datasets",
)
"""Names of documents that layouts leave out of listings."""

_DOCUMENTS = (
    "dataset.h5",
    "DATASET.h5",
    "dataset.h5.tmp",
    "zarr.json",
    "Zarr.json",
    "zarr.json.tmp",
    "c",
    "c/0",
    "0",
    "0.0",
    "chunk_0",
    "chunk_0.h5",
    "chunk_0_0.h5.tmp",
)
"""Names of documents and chunks that a dataset could have too."""

_FIRST = ("dataset.h5", "zarr.json", "c", "chunk_0.h5")


class NameTests(Kit):
    """Tests that a name is refused before anything is made, or else does no harm to its siblings.

    A name that is accepted hides and deletes nothing beside it.
    """

    def test_names_of_hidden_documents_are_refused(self, con: dn.Connection, name: str) -> None:
        self.create(con, f"{name}/one", data=[1])
        for odd in _HIDDEN:
            for inner in (odd, f"{odd}/data", f"entry/{odd}", f"entry/{odd}/data"):
                with pytest.raises(errors.DatasetNameError):
                    self.create(con, f"{name}/{inner}", data=[2])
                assert f"{name}/{inner}" not in con
        assert con.names_in(name) == [f"{name}/one"]

    def test_names_of_documents_beside_others(self, con: dn.Connection, name: str) -> None:
        data = np.arange(3)
        one, two = f"{name}/one", f"{name}/two"
        self.create(con, one, data=data, chunk_size=2)
        made = [
            target
            for odd in _DOCUMENTS
            for target in (f"{name}/{odd}", f"{name}/below/{odd}/data")
            if self._is_made(con, target)
        ]
        self.create(con, two, data=data + 2, chunk_size=2)
        assert con.names_in(name) == sorted([one, two, *made])
        with pytest.raises(errors.DatasetNotFoundError):
            con.del_dataset(name)
        for odd in made:
            check(con[odd][...], data + 1)
        for odd in made[::2]:
            con.del_dataset(odd)
        assert con.names_in(name) == sorted([one, two, *made[1::2]])
        for odd in made[1::2]:
            check(con[odd][...], data + 1)
            con.del_dataset(odd)
        check(con[one][...], data)
        check(con[two][...], data + 2)

    def test_names_of_documents_before_others(self, con: dn.Connection, name: str) -> None:
        data = np.arange(3)
        for number, odd in enumerate(_FIRST):
            group = f"{name}/{number}-group"
            made = [f"{group}/{odd}"] if self._is_made(con, f"{group}/{odd}") else []
            if not made:
                # Nothing was created: the group's name is free.
                self.create(con, group, data=data)
                con.del_dataset(group)
            self.create(con, f"{group}/one", data=data)
            assert con.names_in(group) == sorted([f"{group}/one", *made])
            con.del_dataset(f"{group}/one")
            assert con.names_in(group) == made
            for odd_one in made:
                check(con[odd_one][...], data + 1)

    def test_groups_with_names_of_documents(self, con: dn.Connection, name: str) -> None:
        if not con.instance.keeps_groups:
            pytest.skip("the backend keeps no groups")
        data = np.arange(3)
        self.create(con, f"{name}/one", data=data)
        for odd in _DOCUMENTS:
            with suppress(errors.DatasetNameError):
                con.set_group_attrs(f"{name}/{odd}", {"a": 1})
                assert con.get_group_attrs(f"{name}/{odd}") == {"a": 1}
                con.set_group_attrs(f"{name}/{odd}", {})
            assert con.names_in(name) == [f"{name}/one"]
            assert name not in con
            check(con[f"{name}/one"][...], data)

    def _is_made(self, con: dn.Connection, name: str) -> bool:
        try:
            self.create(con, name, data=np.arange(3) + 1, chunk_size=2)
        except (errors.DatasetNameError, errors.DatasetExistsError):
            assert name not in con
            return False
        return True
