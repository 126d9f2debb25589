"""The conformance kit on the backends and engines of this package."""

from __future__ import annotations

import secrets
from typing import ClassVar

import pytest
from sharded import SHARDED
from support import require

import dosna as dn
from dosna.testing import BackendTests, MemoryStore, SlowStore, use_store
from dosna.testing.samples import ALL_DTYPES


class TestRam(BackendTests):
    dtypes = ALL_DTYPES

    @pytest.fixture
    def make_connection(self):
        namespace = secrets.token_hex(8)
        return lambda: dn.Connection(namespace, backend="ram", engine="cpu")


class TestRamThreads(BackendTests):
    @pytest.fixture
    def make_connection(self):
        require("joblib")
        namespace = secrets.token_hex(8)
        return lambda: dn.Connection(namespace, backend="ram", engine="joblib")


class Hdf5Tests(BackendTests):
    dtypes = ALL_DTYPES
    engine: ClassVar = ("cpu", {})

    @pytest.fixture
    def make_connection(self, tmp_path):
        require("h5py")
        name, options = self.engine
        if name == "joblib":
            require("joblib")
        return lambda: dn.Connection(str(tmp_path), backend="hdf5", engine=name, engine_kw=options)


class TestHdf5(Hdf5Tests):
    pass


class TestHdf5Threads(Hdf5Tests):
    engine = ("joblib", {"njobs": 3})


class TestHdf5Loky(Hdf5Tests):
    engine = ("joblib", {"njobs": 2, "jlbackend": "loky"})
    examples = 3


class TestHdf5Compressed(Hdf5Tests):
    create_options: ClassVar = {"compression": "gzip", "checksum": True}
    least_axes = 1
    examples = 5


class FileTests(BackendTests):
    engine: ClassVar = ("cpu", {})
    backend = "file"

    @pytest.fixture
    def make_connection(self, tmp_path):
        name, options = self.engine
        if name == "joblib":
            require("joblib")
        return lambda: dn.Connection(
            str(tmp_path), backend=self.backend, engine=name, engine_kw=options
        )


class TestFile(FileTests):
    pass


class TestFileThreads(FileTests):
    engine = ("joblib", {"njobs": 3})
    create_options: ClassVar = {"compression": "gzip"}


class TestFileLoky(FileTests):
    engine = ("joblib", {"njobs": 2, "jlbackend": "loky"})
    examples = 3


class TestFileUnchecked(FileTests):
    create_options: ClassVar = {"checksum": False}
    examples = 5


class TestFileShards(FileTests):
    backend = SHARDED
    examples = 10

    @pytest.fixture(autouse=True, params=[None, "zstd"])
    def _codec(self, request, monkeypatch):
        if request.param:
            require("numcodecs")
        monkeypatch.setattr(type(self), "create_options", {"compression": request.param})


class TestFileShardsLoky(FileTests):
    backend = SHARDED
    engine = ("joblib", {"njobs": 2, "jlbackend": "loky"})
    examples = 3


class TestStoreShards(BackendTests):
    examples = 5

    @pytest.fixture
    def make_connection(self):
        namespace = secrets.token_hex(8)
        return lambda: dn.Connection(namespace, backend="memory-shards", engine="cpu")


class TestStore(BackendTests):
    """A third party's object store, through `dosna.backends.stores.connection`."""

    @pytest.fixture
    def make_connection(self):
        namespace = secrets.token_hex(8)
        return lambda: dn.Connection(namespace, backend="memory", engine="cpu")


class TestStoreWithoutConditionalPuts(BackendTests):
    create_options: ClassVar = {"checksum": False}
    examples = 5

    @pytest.fixture
    def make_connection(self):
        require("joblib")
        namespace = secrets.token_hex(8)
        store = SlowStore(MemoryStore(), 0.0001)
        store.conditional_puts = False
        use_store(namespace, store)
        return lambda: dn.Connection(namespace, backend="memory", engine="joblib")


class TestStoreOfProcesses(BackendTests):
    examples = 3

    @pytest.fixture
    def make_connection(self, tmp_path):
        require("joblib")
        return lambda: dn.Connection(
            str(tmp_path), backend="folder", engine="joblib", engine_kw={"njobs": 2}
        )
