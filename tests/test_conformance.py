"""The conformance kit on the backends and engines of this package."""

from __future__ import annotations

import secrets

import pytest

import dosna as dn
from dosna.testing import BackendTests
from support import require


class TestRam(BackendTests):
    @pytest.fixture
    def make_connection(self):
        namespace = secrets.token_hex(8)
        return lambda: dn.Connection(namespace, backend="ram", engine="cpu")


class TestHdf5(BackendTests):
    @pytest.fixture
    def make_connection(self, tmp_path):
        require("h5py")
        return lambda: dn.Connection(str(tmp_path), backend="hdf5", engine="cpu")


class TestStoreOfBytes(BackendTests):
    """Through `dosna.backends.store`, as a third party's object store would be."""

    @pytest.fixture
    def make_connection(self):
        namespace = secrets.token_hex(8)
        return lambda: dn.Connection(namespace, backend="memory", engine="cpu")
