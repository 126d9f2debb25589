"""Every source of dosna passes the kit."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
from samples import SAMPLES, write_hdf5
from support import require

from dosna.sources import open_source
from dosna.testing import SourceTests


class FileTests(SourceTests):
    """The samples, in a file that `write` makes once."""

    file_name = ""

    @staticmethod
    def write(path, arrays):
        raise NotImplementedError

    @pytest.fixture
    def path(self, tmp_path_factory):
        kind = type(self)
        if "written" not in vars(kind):
            path = tmp_path_factory.mktemp("source") / self.file_name
            self.write(str(path), SAMPLES)
            kind.written = str(path)
        return kind.written

    @pytest.fixture
    def arrays(self):
        return SAMPLES

    @pytest.fixture
    def make_source(self, path):
        return lambda: open_source(path)


class TestHDF5Contiguous(FileTests):
    file_name = "contiguous.h5"
    write = staticmethod(write_hdf5)


class TestHDF5Chunked(FileTests):
    file_name = "chunked.nxs"

    @staticmethod
    def write(path, arrays):
        write_hdf5(path, arrays, chunks=(4, 32, 32))


class TestHDF5Filtered(FileTests):
    file_name = "filtered.h5"

    @staticmethod
    def write(path, arrays):
        write_hdf5(
            path, arrays, chunks=(8, 17, 41), compression="gzip", shuffle=True, fletcher32=True
        )


class TestHDF5LeftToLibhdf5(FileTests):
    file_name = "lzf.h5"

    @staticmethod
    def write(path, arrays):
        write_hdf5(path, arrays, chunks=(8, 17, 41), compression="lzf")


class TestHDF5NeverWritten(SourceTests):
    """What nobody wrote is fill, also where libhdf5 leaves memory as it is."""

    ROWS = 64
    KINDS: ClassVar = {
        "integers": ("<i4", 7),
        "floats": (">f8", 2.5),
        "text": ("S3", b"abc"),
        "hits": ("?", True),
        "points": ([("x", "<f8"), ("n", "i1")], (1.5, 3)),
        "gaps": (
            {"names": ["x", "n"], "formats": ["<f8", "i1"], "offsets": [8, 3], "itemsize": 24},
            (1.5, 3),
        ),
    }
    OPTIONS: ClassVar = {
        "flat": {},
        "plain": {"chunks": (8, 4)},
        "gzip": {"chunks": (8, 4), "compression": "gzip"},
        "lzf": {"chunks": (8, 4), "compression": "lzf"},
    }

    def _all(self):
        for how, options in self.OPTIONS.items():
            for name, (kind, fill) in self.KINDS.items():
                for filled in (True, False):
                    dtype = np.dtype(kind)
                    value = np.array(fill, dtype)[()] if filled else np.zeros((), dtype)[()]
                    yield f"{how}/{name}/{filled}", dtype, value if filled else None, options

    def _gaps(self):
        values = np.zeros((self.ROWS, 4), np.dtype(self.KINDS["gaps"][0]))
        values["n"] = np.arange(self.ROWS)[:, None]
        return values

    @pytest.fixture
    def arrays(self):
        found = {"bits20": np.zeros((self.ROWS, 4), "i4"), "gaps": self._gaps()}
        for name, dtype, fill, options in self._all():
            found[name] = np.zeros((self.ROWS, 4), dtype)
            if fill is not None:
                found[name][...] = fill
            if options:
                found[name][8:24] = np.ones((16, 4), dtype)
        return found

    @pytest.fixture
    def make_source(self, tmp_path):
        h5py = require("h5py")
        with h5py.File(tmp_path / "a.h5", "w") as file:
            for name, dtype, fill, options in self._all():
                creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
                made = file.create_dataset(
                    name, (self.ROWS, 4), dtype, fillvalue=fill, dcpl=creation, **options
                )
                if options:
                    made[8:24] = np.ones((16, 4), dtype)
            kind = h5py.h5t.STD_I32LE.copy()
            kind.set_precision(20)
            creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            space = h5py.h5s.create_simple((self.ROWS, 4))
            h5py.h5d.create(file.id, b"bits20", kind, space, creation)
            file["gaps"] = self._gaps()
        return lambda: open_source(tmp_path / "a.h5")


class TestHDF5Open(FileTests):
    file_name = "open.h5"
    write = staticmethod(write_hdf5)

    @pytest.fixture
    def make_source(self, path):
        with require("h5py").File(path) as file:
            yield lambda: open_source(file)


class TestHDF5UserBlock(FileTests):
    file_name = "userblock.h5"

    @staticmethod
    def write(path, arrays):
        h5py = require("h5py")
        with h5py.File(path, "w", userblock_size=1024) as file:
            for name, array in arrays.items():
                chunks = (16, 32, 32) if name == "z/large" else None
                file.create_dataset(name, data=array, chunks=chunks)


def sparse(array):
    """Leave the fill value, 7, in all but some blocks of an array."""
    sparse = np.full_like(array, 7)
    sparse[:9, 40:41, 3:] = array[:9, 40:41, 3:]
    return sparse


SPARSE = {name: sparse(SAMPLES[name]) for name in ("entry/image", "z/large")}
SPARSE["never"] = np.full((40, 50), 7, "f4")


class SparseTests(FileTests):
    @pytest.fixture
    def arrays(self):
        return SPARSE

    def test_little_is_stored(self, make_source):
        with make_source() as source:
            assert len(source.stored("never")) == 0
            assert 0 < len(source.stored("z/large")) < 20


class TestHDF5Sparse(SparseTests):
    file_name = "sparse.h5"

    @staticmethod
    def write(path, arrays):
        h5py = require("h5py")
        with h5py.File(path, "w") as file:
            for name, array in SPARSE.items():
                chunks = (8, 16, 32) if array.ndim == 3 else None
                made = file.create_dataset(
                    name, array.shape, array.dtype, chunks=chunks, fillvalue=7
                )
                if chunks:
                    made[:9, 40:41, 3:] = array[:9, 40:41, 3:]


class TestZarrSparse(SparseTests):
    file_name = "sparse.zarr"
    options: ClassVar = {}

    @classmethod
    def write(cls, path, arrays):
        zarr = require("zarr")
        group = zarr.create_group(path, zarr_format=cls.options.get("zarr_format", 3))
        options = {n: v for n, v in cls.options.items() if n != "zarr_format"}
        for name, array in SPARSE.items():
            chunks = (8, 16, 16) if array.ndim == 3 else (40, 40)
            given = options if array.ndim == 3 else {}
            made = group.create_array(
                name, shape=array.shape, dtype=array.dtype, chunks=chunks, fill_value=7, **given
            )
            if array.ndim == 3:
                made[:9, 40:41, 3:] = array[:9, 40:41, 3:]


class TestZarr2Sparse(TestZarrSparse):
    file_name = "sparse2.zarr"
    options: ClassVar = {"zarr_format": 2}


class TestZarrShardsSparse(TestZarrSparse):
    file_name = "shards.zarr"
    options: ClassVar = {"shards": (16, 32, 32)}


class TestZarrDotsSparse(TestZarrSparse):
    file_name = "dots.zarr"
    options: ClassVar = {"chunk_key_encoding": {"name": "v2", "separator": "."}}


class TestNpz(FileTests):
    file_name = "samples.npz"

    @staticmethod
    def write(path, arrays):
        np.savez(path, **arrays)


class TestNpzCompressed(FileTests):
    file_name = "compressed.npz"

    @staticmethod
    def write(path, arrays):
        np.savez_compressed(path, **arrays)


class NpyTests(FileTests):
    file_name = "volume.npy"
    volume = SAMPLES["entry/image"]

    @classmethod
    def write(cls, path, arrays):
        np.save(path, cls.volume)

    @pytest.fixture
    def arrays(self):
        return {"volume": self.volume}


class TestNpy(NpyTests):
    pass


class TestNpyFortran(NpyTests):
    volume = np.asfortranarray(SAMPLES["z/large"])


class TestNpyScalar(NpyTests):
    volume = SAMPLES["scalar"]


class TestMemory(SourceTests):
    @pytest.fixture
    def arrays(self):
        return SAMPLES

    @pytest.fixture
    def make_source(self):
        return lambda: open_source(SAMPLES)


class ZarrTests(FileTests):
    file_name = "samples.zarr"
    version = 3
    options: ClassVar = {}

    @pytest.fixture
    def arrays(self):
        # zarr-python warns of what other programs may not read.
        samples = {n: array for n, array in SAMPLES.items() if array.dtype.kind not in "SV"}
        if self.version == 3:  # which has one byte order for all
            samples["entry/big_endian"] = SAMPLES["entry/big_endian"].astype("f4")
        return samples

    @classmethod
    def write(cls, path, arrays):
        zarr = require("zarr")
        group = zarr.create_group(path, zarr_format=cls.version)
        for name, array in arrays.items():
            if array.dtype.kind not in "SV":
                large = cls.options if array.ndim == 3 else {}
                group.create_array(name, data=array, **large)


class TestZarr2(ZarrTests):
    version = 2
    options: ClassVar = {"chunks": (16, 32, 32)}


class TestZarr3(ZarrTests):
    options: ClassVar = {"chunks": (16, 32, 32)}


class TestZarr3Sharded(ZarrTests):
    options: ClassVar = {"chunks": (8, 16, 16), "shards": (16, 32, 32)}


class TestZarrOpen(ZarrTests):
    fingerprint_stays = False

    @pytest.fixture
    def make_source(self, path):
        zarr = require("zarr")
        return lambda: open_source(zarr.open(path, mode="r"))
