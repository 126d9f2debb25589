"""Datasets of another connection as a source, of files and in memory."""

from __future__ import annotations

import numpy as np
import pytest
from support import require

import dosna as dn
from dosna.errors import ConfigurationError, SourceChangedError, SourceNotFoundError
from dosna.sources import open_source
from dosna.sources.datasets import DatasetsSource
from dosna.testing import SourceTests
from dosna.testing.samples import ALL_DTYPES, sample

ARRAYS = {
    **{f"types/{n}": sample((7, 5), dtype, n) for n, dtype in enumerate(ALL_DTYPES)},
    "entry/volume": sample((40, 200, 80), "f8"),
    "entry/scalar": np.asarray(3.5),
    "entry/empty": np.zeros((0, 3), "i2"),
}


def fill(con):
    for name, array in ARRAYS.items():
        chunks = [min(64, max(1, n // 2)) for n in array.shape]
        con.create_dataset(name, data=array, chunk_size=chunks)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    require("h5py")
    folder = tmp_path_factory.mktemp("datasets")
    with dn.Connection(str(folder), backend="hdf5") as con:
        fill(con)
    return folder


class TestHdf5(SourceTests):
    @pytest.fixture
    def arrays(self):
        return ARRAYS

    @pytest.fixture
    def make_source(self, folder):
        return lambda: DatasetsSource(f"hdf5:{folder}", unchanged=True)


class TestConnectionInMemory(SourceTests):
    @pytest.fixture
    def arrays(self):
        return ARRAYS

    @pytest.fixture
    def make_source(self):
        with dn.Connection("datasets-source", backend="ram") as con:
            fill(con)
            yield lambda: open_source(con, unchanged=True)
            for name in list(con):
                con.del_dataset(name)


@pytest.fixture
def ram():
    with (
        dn.Connection("datasets-from", backend="ram") as source,
        dn.Connection("datasets-to", backend="ram") as target,
    ):
        yield source, target
        for con in (source, target):
            for name in list(con):
                con.del_dataset(name)


def test_datasets_are_ingested_as_they_are(ram):
    source, target = ram
    ds = source.create_dataset("a/x", data=np.arange(60.0), chunk_size=7, fillvalue=-1)
    ds.attrs.update(unit="mm", origin=np.array([1, 2]))
    source.create_dataset("b", data=1)
    source.set_group_attrs("a", {"NX_class": "NXentry"})
    report = target.ingest(source, "copy")
    assert sorted(report.made) == ["copy/a/x", "copy/b"] == sorted(target)
    assert target.get_group_attrs("copy/a") == {"NX_class": "NXentry"}
    made = target["copy/a/x"]
    assert (made.chunk_size, made.fillvalue, made.attrs["unit"]) == ((7,), -1, "mm")
    assert made.compare(ds).equal
    assert target.ingest(ds, "one", chunk_size=(20,)).made == ["one"]
    assert target["one"].chunk_size == (20,)
    assert target.ingest(DatasetsSource(source, "a")).made == ["a/x"]


def test_what_may_have_changed_is_not_taken_for_the_same(ram):
    source, target = ram
    ds = source.create_dataset("x", data=np.arange(6))
    target.ingest(source)
    ds[0] = 9
    with pytest.raises(SourceChangedError, match="overwrite=True"):
        target.ingest(source)
    target.ingest(source, overwrite=True)
    assert target["x"][0] == 9


def test_an_interrupted_ingest_goes_on_if_the_caller_vouches(ram):
    source, target = ram
    source.create_dataset("x", data=np.arange(60), chunk_size=6)

    def stop(done, total):
        if done > total / 2:
            raise KeyboardInterrupt

    def begin():
        return DatasetsSource(source, unchanged=True)

    with pytest.raises(KeyboardInterrupt):
        target.ingest(begin(), progress=stop)
    assert target["x"].incomplete
    assert 0 < len(target["x"].written_chunks()) < 10
    assert target.ingest(begin()).resumed == ["x"]
    assert target["x"].compare(source["x"]).equal
    assert target.ingest(begin()).present == ["x"]


def test_a_dataset_is_not_replaced_by_itself(ram, folder, tmp_path):
    source, _ = ram
    source.create_dataset("x", data=[1, 2])
    with pytest.raises(ConfigurationError, match="itself"):
        source.ingest(source, overwrite=True)
    assert source["x"][...].tolist() == [1, 2]
    (tmp_path / "link").symlink_to(folder)
    with dn.Connection(str(tmp_path / "link"), backend="hdf5") as con:
        for url, name in (
            (f"hdf5:{folder}", None),
            (f"hdf5:{folder}/entry/scalar", "entry/scalar"),
        ):
            with pytest.raises(ConfigurationError, match="itself"):
                con.ingest(DatasetsSource(url), name, overwrite=True)
        assert con["entry/scalar"][()] == 3.5


def test_a_zarr_array_is_not_replaced_by_itself(tmp_path):
    require("zarr")
    (tmp_path / "a.zarr").mkdir()
    with dn.Connection(str(tmp_path / "a.zarr"), backend="file") as con:
        con.create_dataset("x", data=[1, 2])
        with pytest.raises(ConfigurationError, match="itself"):
            con.ingest(str(tmp_path / "a.zarr"), overwrite=True)
        assert con["x"][...].tolist() == [1, 2]


@pytest.mark.parametrize("backend", ["ram", "hdf5", "file"])
def test_datasets_are_not_copied_into_themselves(tmp_path, backend):
    with dn.Connection(str(tmp_path), backend=backend) as con:
        for name in ("x", "entry/y"):
            con.create_dataset(name, data=[1, 2])
        for inner, name in (("", "sub"), ("entry", "entry/sub")):
            with pytest.raises(ConfigurationError, match="into itself"):
                con.ingest(DatasetsSource(con, inner), name)
        assert sorted(con) == ["entry/y", "x"]
        assert con.ingest(DatasetsSource(con, "entry"), "entry2").made == ["entry2/entry/y"]
        assert con.ingest(DatasetsSource(con), "sub", select="x").made == ["sub/x"]
        for name in list(con):
            del con[name]


def test_a_folder_is_not_copied_into_itself(tmp_path):
    require("zarr")
    with dn.Connection(str(tmp_path), backend="file") as con:
        con.create_dataset("a/x", data=[1, 2])
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "sub").mkdir()
    with dn.Connection(str(tmp_path / "link" / "sub"), backend="file") as con:
        for source in (str(tmp_path / "a"), DatasetsSource(f"file:{tmp_path}/a//")):
            with pytest.raises(ConfigurationError, match="into itself"):
                con.ingest(source)
        assert list(con) == []


def test_what_is_not_there_is_named(ram):
    source, _ = ram
    with pytest.raises(SourceNotFoundError, match="nothing"):
        DatasetsSource(source, "nothing").names()
    with pytest.raises(SourceNotFoundError, match="other"):
        DatasetsSource(source)["other"]
    with pytest.raises(ConfigurationError, match="BACKEND:PATH"):
        DatasetsSource("scan.nxs")
