"""Parts of the conformance kit, for what was not tried in all of it under another name.

Every backend passes all of `BackendTests` in its plainest form, and every engine on one backend.
Each further pair of a backend, an engine and options of datasets passes the part that can differ.
"""

from __future__ import annotations

from dosna.testing.arrays import ArrayTests
from dosna.testing.connections import ConnectionTests
from dosna.testing.machine import MachineTests
from dosna.testing.operations import OperationTests
from dosna.testing.replacing import ReplacingTests
from dosna.testing.sharing import SharingTests
from dosna.testing.text import TextTests


class EngineMatters(OperationTests, SharingTests, MachineTests):
    """A second engine on a backend: work on all chunks, and writers beside each other."""


class ContentMatters(ArrayTests, TextTests, SharingTests, MachineTests):
    """Other options of datasets: elements, chunks and text, and random work on them."""


class CreationMatters(ConnectionTests, ReplacingTests, SharingTests, MachineTests):
    """Another way to keep names apart: what is made, replaced and deleted, and by how many."""
