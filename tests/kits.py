"""Parts of the conformance kit, for what was not tried in all of it under another name.

Every backend passes all of `BackendTests` in its plainest form, and every engine on one backend.
Each further pair of a backend, an engine and options of datasets passes the part that can differ.
"""

from __future__ import annotations

from typing import Any

import pytest

from dosna.testing.arrays import ArrayTests
from dosna.testing.connections import ConnectionTests
from dosna.testing.machine import MachineTests
from dosna.testing.operations import OperationTests
from dosna.testing.replacing import ReplacingTests
from dosna.testing.sharing import SharingTests
from dosna.testing.text import TextTests


class _Sharing(SharingTests):
    # One that is described alike, and one whose chunks have another size.
    @pytest.mark.parametrize("dtype", ["<f4", "<f8"])
    def test_a_handle_never_works_on_another_dataset_of_its_name(
        self, make_connection: Any, name: str, dtype: str
    ) -> None:
        super().test_a_handle_never_works_on_another_dataset_of_its_name(
            make_connection, name, dtype
        )


class EngineMatters(OperationTests, _Sharing, MachineTests):
    """A second engine on a backend: work on all chunks, and writers beside each other.

    Values are computed by the same code under each engine. What can differ is which blocks are
    read for a halo, and what has to be sent.
    """

    # At the ends, the one reads its halo from the other end, and the other reads none.
    @pytest.mark.parametrize("mode", ["wrap", "constant"])
    def test_halo_equals_the_filter_over_the_whole_array(
        self, con: Any, name: str, mode: str
    ) -> None:
        super().test_halo_equals_the_filter_over_the_whole_array(con, name, mode)

    @pytest.mark.parametrize("dtype", ["?", ">f4", "<c8"])
    def test_reduce(self, con: Any, name: str, dtype: str) -> None:
        super().test_reduce(con, name, dtype)


class ContentMatters(ArrayTests, TextTests, _Sharing, MachineTests):
    """Other options of datasets: elements, chunks and text, and random work on them."""


class CreationMatters(ConnectionTests, ReplacingTests, _Sharing, MachineTests):
    """Another way to keep names apart: what is made, replaced and deleted, and by how many."""
