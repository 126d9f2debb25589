"""All conformance tests of a backend."""

from __future__ import annotations

from dosna.testing.arrays import ArrayTests
from dosna.testing.connections import ConnectionTests
from dosna.testing.machine import MachineTests
from dosna.testing.names import NameTests
from dosna.testing.operations import OperationTests
from dosna.testing.replacing import ReplacingTests
from dosna.testing.sharing import SharingTests
from dosna.testing.text import TextTests


class BackendTests(
    ConnectionTests,
    NameTests,
    ReplacingTests,
    ArrayTests,
    OperationTests,
    TextTests,
    SharingTests,
    MachineTests,
):
    """Tests that every backend passes; subclass it with one fixture.

    ::

        class TestMyStore(BackendTests):
            @pytest.fixture
            def make_connection(self, tmp_path):
                return lambda: dn.Connection("tests", backend="mystore", directory=tmp_path)

    The fixture returns a function. Each call of it makes another connection, not yet connected,
    to the same store, so that the tests see what a second user would see.
    """
