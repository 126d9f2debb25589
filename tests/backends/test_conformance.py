"""The conformance kit on the backends and engines of this package."""

from __future__ import annotations

import secrets
from typing import ClassVar

import pytest
from kits import ContentMatters, CreationMatters, EngineMatters
from sharded import SHARDED
from support import require

import dosna as dn
from dosna.testing import BackendTests, MemoryStore, SlowStore, use_store
from dosna.testing.arrays import ArrayTests
from dosna.testing.samples import ALL_DTYPES

THREADS = ("joblib", {"njobs": 3})
PROCESSES = ("joblib", {"njobs": 2, "jlbackend": "loky"})
CLUSTER = ("dask", {"n_workers": 2, "threads_per_worker": 2})


class TestRam(BackendTests):
    dtypes = ALL_DTYPES

    @pytest.fixture
    def make_connection(self):
        namespace = secrets.token_hex(8)
        return lambda: dn.Connection(namespace, backend="ram", engine="cpu")


class TestRamThreads(EngineMatters):
    @pytest.fixture
    def make_connection(self):
        require("joblib")
        namespace = secrets.token_hex(8)
        return lambda: dn.Connection(namespace, backend="ram", engine="joblib")


class OnHdf5:
    dtypes = ALL_DTYPES
    engine: ClassVar = ("cpu", {})

    @pytest.fixture
    def make_connection(self, tmp_path):
        require("h5py")
        name, options = self.engine
        if name != "cpu":
            require({"dask": "distributed"}.get(name, name))
        return lambda: dn.Connection(str(tmp_path), backend="hdf5", engine=name, engine_kw=options)


class TestHdf5(OnHdf5, BackendTests):
    pass


@pytest.mark.slow
class TestHdf5Threads(OnHdf5, EngineMatters):
    engine = THREADS


@pytest.mark.slow
class TestHdf5Loky(OnHdf5, BackendTests):
    engine = PROCESSES
    examples = 3


@pytest.mark.slow
class TestHdf5Dask(OnHdf5, EngineMatters):
    engine = CLUSTER
    examples = 2


@pytest.mark.slow
class TestHdf5Compressed(OnHdf5, ContentMatters):
    create_options: ClassVar = {"compression": "gzip", "checksum": True}
    least_axes = 1
    examples = 5


@pytest.mark.slow
class TestFoldersCached(ContentMatters):
    """Decoded chunks are kept in memory, and some have to make way for others."""

    create_options: ClassVar = {"compression": "gzip", "checksum": True}
    least_axes = 1
    examples = 5

    @pytest.fixture(params=["hdf5", "file"])
    def make_connection(self, request, tmp_path, monkeypatch):
        require("h5py")
        monkeypatch.setattr("dosna.backends.folders.chunkcache._SETTLED", 20_000_000)
        options = {"backend": request.param, "engine": "joblib", "cache": "40 KiB"}
        return lambda: dn.Connection(str(tmp_path), **options)


class OnFiles:
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


class TestFile(OnFiles, BackendTests):
    pass


@pytest.mark.slow
class TestFileThreads(OnFiles, BackendTests):
    engine = THREADS
    create_options: ClassVar = {"compression": "gzip"}


@pytest.mark.slow
class TestFileLoky(OnFiles, EngineMatters):
    engine = PROCESSES
    examples = 3


@pytest.mark.slow
class TestFileUnchecked(OnFiles, ContentMatters):
    create_options: ClassVar = {"checksum": False}
    examples = 5


@pytest.mark.slow
class TestFileShards(OnFiles, BackendTests):
    backend = SHARDED
    examples = 10


@pytest.mark.slow
class TestFileShardsCompressed(OnFiles, ContentMatters):
    backend = SHARDED
    create_options: ClassVar = {"compression": "zstd"}
    examples = 10

    @pytest.fixture(autouse=True)
    def _codec(self):
        require("numcodecs")


@pytest.mark.slow
class TestFileShardsLoky(OnFiles, EngineMatters):
    backend = SHARDED
    engine = PROCESSES
    examples = 3


class TestStoreShards(ContentMatters):
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


class TestStoreCached(ContentMatters):
    """Decoded chunks are kept in memory, and some have to make way for others."""

    examples = 10

    @pytest.fixture
    def make_connection(self):
        namespace = secrets.token_hex(8)
        return lambda: dn.Connection(namespace, backend="memory", engine="joblib", cache="40 KiB")


@pytest.mark.slow
class TestStoreWithoutConditionalPuts(CreationMatters, ArrayTests):
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


@pytest.mark.slow
class TestStoreOfProcesses(EngineMatters):
    examples = 3

    @pytest.fixture
    def make_connection(self, tmp_path):
        require("joblib")
        return lambda: dn.Connection(
            str(tmp_path), backend="folder", engine="joblib", engine_kw={"njobs": 2}
        )
