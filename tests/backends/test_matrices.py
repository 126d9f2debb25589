"""What one engine or backend writes, every other reads."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from support import require

import dosna as dn
import dosna.testing  # registers the stores that tests use
from dosna.testing.samples import DTYPES, check, sample

ENGINES = {
    "cpu": ("cpu", {}),
    "threads": ("joblib", {"njobs": 3}),
    "loky": ("joblib", {"njobs": 2, "jlbackend": "loky"}),
    "multiprocessing": ("joblib", {"njobs": 2, "jlbackend": "multiprocessing"}),
    "dask": ("dask", {"n_workers": 2, "threads_per_worker": 2}),
}


def connect(backend, engine, where):
    require("h5py")
    name, options = ENGINES[engine]
    if name != "cpu":
        require({"dask": "distributed"}.get(name, name))
    return dn.Connection(str(where), backend=backend, engine=name, engine_kw=options)


def work(con):
    data = sample((23, 17), ">f4", 3)
    ds = con.create_dataset("entry/a", data=data, chunk_size=(5, 6), fillvalue=-1)
    ds.resize((30, 17))
    ds[25:, ::4] = 8
    ds.attrs["unit"] = np.float32(2)
    ds.map(lambda block: block.astype("f8") / 3, "b", halo=1)
    ds.apply(np.negative)


@pytest.mark.parametrize(
    ("writer", "reader"), [p for p in product(ENGINES, ENGINES) if p[0] != p[1]]
)
def test_engines_read_what_others_wrote(tmp_path, writer, reader):
    with connect("hdf5", writer, tmp_path) as con:
        work(con)
    with connect("ram", "cpu", tmp_path) as expected:
        work(expected)
        with connect("hdf5", reader, tmp_path) as con:
            assert list(con) == list(expected) == ["b", "entry/a"]
            for name in con:
                found, model = con[name], expected[name]
                check(found[...], model[...], name)
                check(found[3:29:5, [0, 16, 2]], model[3:29:5, [0, 16, 2]], name)
                assert found.sum() == model.sum()
                assert found.written_chunks() == model.written_chunks()
                assert dict(found.attrs) == dict(model.attrs) == {"unit": 2}
                assert found.verify().good
        for name in list(expected):
            del expected[name]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_copies_between_backends_keep_everything(tmp_path, dtype):
    require("h5py")
    data = sample((7, 5), dtype, 2)
    (tmp_path / "h").mkdir()
    (tmp_path / "f").mkdir()
    with (
        dn.Connection(str(tmp_path), backend="ram", engine="cpu") as ram,
        dn.Connection(str(tmp_path / "h"), backend="hdf5", engine="cpu") as hdf5,
        dn.Connection(str(tmp_path / "f"), backend="folder", engine="cpu") as store,
    ):
        ds = ram.create_dataset("a", (9, 5), dtype, data[1, 1], chunk_size=(4, 3))
        ds[:7] = data
        ds.attrs["array"] = data
        names = {ram: "b", hdf5: "a", store: "a"}
        copies = [ds]
        for other in (hdf5, store, ram):
            copies.append(copies[-1].copy(other, names[other]))
        for copied in copies[1:]:
            check(copied[...], ds[...])
            assert copied.dtype == ds.dtype
            assert copied.chunk_size == ds.chunk_size
            check(np.asarray(copied.fillvalue), np.asarray(ds.fillvalue))
            check(copied.attrs["array"], data)
        for made in list(ram):
            del ram[made]


def test_copies_keep_and_change_how_chunks_are_stored(tmp_path):
    require("h5py")
    with dn.Connection(str(tmp_path), backend="hdf5", engine="cpu") as con:
        ds = con.create_dataset(
            "a", data=np.arange(100.0), chunk_size=30, compression="gzip", checksum=True
        )
        assert ds.guarantees.checksum
        for made in (ds.clone("b", data=True), ds.map(np.sqrt, "c")):
            assert made.guarantees.checksum
            assert made.verify().ok == tuple((n,) for n in range(4))
        plain = ds.copy(con, "d", chunk_size=50)
        assert not plain.guarantees.checksum
        assert plain.verify().unchecked == ((0,), (1,))
        check(plain[...], ds[...])
