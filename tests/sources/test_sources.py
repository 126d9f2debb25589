"""Data enter: what every source and every engine has in common."""

from __future__ import annotations

import itertools
import math
import os
import warnings
import zipfile
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import require

import dosna as dn
from dosna.errors import (
    DatasetExistsError,
    DatasetNameError,
    IncompleteDatasetWarning,
    RefusedError,
    SourceChangedError,
    SourceError,
    SourceNotFoundError,
)
from dosna.sources import ArrayDescription, Source, SourceArray, open_source
from dosna.sources.chunking import choose_chunks
from dosna.sources.npy import source as npy

BACKENDS = ["ram", "hdf5", "file"]


@pytest.fixture(params=BACKENDS)
def con(request, tmp_path):
    if request.param != "ram":
        require("h5py")
        (tmp_path / "store").mkdir()
    with dn.Connection(str(tmp_path / "store"), backend=request.param) as made:
        yield made


class Planes(Source):
    """Planes of their own numbers, of which some cannot be read for a while."""

    def __init__(self, location="planes", inner=""):
        super().__init__(location, inner)
        self.broken = set()
        self.state = "1"
        self.seen = []

    def names(self):
        return ["a/refused", "a/scalar", "a/volume"]

    def groups(self):
        return {"": {"made": "here"}, "a": {"NX_class": "NXdata"}}

    def fingerprint(self):
        return self.state

    def describe(self, name):
        if name == "a/refused":
            return ArrayDescription(name, refused="it is made of jelly")
        shape = () if name == "a/scalar" else (7, 6, 5)
        chunks = (1, 6, 5) if shape else None
        return ArrayDescription(name, shape, np.dtype("i4"), {"unit": "mm"}, chunks=chunks)

    def read(self, name, box):
        if not box:
            return np.array(5, "i4")
        self.seen.append(box[0].start)
        if self.broken & set(range(box[0].start, box[0].stop)):
            raise SourceError("the source went away")
        whole = np.arange(7 * 6 * 5, dtype="i4").reshape(7, 6, 5)
        return whole[box]


VOLUME = np.arange(7 * 6 * 5, dtype="i4").reshape(7, 6, 5)


def test_a_tree_becomes_datasets(con):
    told = []
    report = con.ingest(
        Planes(), "run1", on_error="skip", progress=lambda done, total: told.append((done, total))
    )
    assert report.made == ["run1/a/scalar", "run1/a/volume"]
    assert report.skipped == {"a/refused": "it is made of jelly"}
    assert report.nbytes == VOLUME.nbytes + 4
    assert sorted(con) == report.made
    assert con["run1/a/scalar"][()] == 5
    np.testing.assert_array_equal(con["run1/a/volume"][...], VOLUME)
    assert con["run1/a/volume"].attrs["unit"] == "mm"
    assert con.get_group_attrs("run1") == {"made": "here"}
    assert con.get_group_attrs("run1/a") == {"NX_class": "NXdata"}
    assert con.get_group_attrs() == {}
    assert told[0] == (0, report.nbytes)
    assert told[-1] == (report.nbytes, report.nbytes)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


@pytest.mark.parametrize("at", [1, 2])
def test_attributes_that_others_give_a_group_meanwhile_are_kept(con, request, monkeypatch, at):
    backend = request.node.callspec.params["con"]
    if at == 2 and backend == "ram":
        pytest.skip("they are read and changed under one lock")
    calls = []
    real = Planes.merged_group

    def merged_group(self, there, attrs, every):
        if "made" in attrs:
            calls.append(dict(there))
            if len(calls) == at:
                with dn.Connection(con.name, backend=backend) as other:
                    other.set_group_attrs("run1", {"another": "there"})
        return real(self, there, attrs, every)

    monkeypatch.setattr(Planes, "merged_group", merged_group)
    con.ingest(Planes(), "run1", on_error="skip")
    assert con.get_group_attrs("run1") == {"made": "here", "another": "there"}
    assert len(calls) > at


def test_what_cannot_be_represented_is_refused_before_anything_is_made(con):
    with pytest.raises(RefusedError, match="'a/refused': it is made of jelly"):
        con.ingest(Planes())
    assert list(con) == []
    con.ingest(Planes(), select="a/s*")
    assert list(con) == ["a/scalar"]


def test_select(con):
    with pytest.raises(SourceNotFoundError, match=r"nothing like 'b'.*a/refused, a/scalar"):
        con.ingest(Planes(), select=["a/scalar", "b"])
    with pytest.raises(RefusedError):
        con.ingest(Planes(), select="/a/")
    assert list(con) == []


def test_an_interrupted_ingest_goes_on(con):
    source = Planes()
    source.broken = {4}
    with pytest.raises(SourceError, match="went away"):
        con.ingest(source, select="a/volume", chunk_size=(1, 6, 5))
    ds = con["a/volume"]
    assert ds.incomplete
    with pytest.warns(IncompleteDatasetWarning, match="'a/volume' is incomplete.*from planes"):
        np.testing.assert_array_equal(ds[:4], VOLUME[:4])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ds[4].sum() == 0  # told once
    source.broken, source.seen = set(), []
    report = con.ingest(source, select="a/volume", chunk_size=(1, 6, 5))
    assert report.resumed == report.made == ["a/volume"]
    assert source.seen == [4, 5, 6]
    ds = con["a/volume"]
    assert not ds.incomplete
    np.testing.assert_array_equal(ds[...], VOLUME)
    again = con.ingest(source, select="a/volume", chunk_size=(1, 6, 5))
    assert (again.made, again.present, source.seen) == ([], ["a/volume"], [4, 5, 6])


def test_each_way_to_read_an_incomplete_dataset_tells(con):
    con.create_dataset("some", data=VOLUME, chunk_size=(2, 3, 5), incomplete=True)
    ways = {
        "item": lambda ds: ds[0, 0, 0],
        "read": lambda ds: ds.read((0, slice(2))),
        "array": np.asarray,
        "chunk": lambda ds: ds.get_chunk((0, 0, 0)).get_data(),
        "chunk data": lambda ds: ds.get_chunk_data((0, 0, 0)),
        "sum": lambda ds: ds.sum(),
        "map": lambda ds: ds.map(np.negative, "mapped"),
        "apply": lambda ds: ds.apply(np.negative),
        "clone": lambda ds: ds.clone("cloned", data=True),
        "copy": lambda ds: ds.copy(con, "copied"),
    }
    for way in ways.values():
        with pytest.warns(IncompleteDatasetWarning, match="'some' is incomplete"):
            way(con["some"])
    assert not con["mapped"].incomplete
    assert con["cloned"].incomplete
    assert con["copied"].incomplete
    con["some"].mark_complete()
    assert con["some"].incomplete is False
    con["some"].sum()


def test_a_source_that_changed_is_refused(con):
    source = Planes()
    source.broken = {4}
    with pytest.raises(SourceError):
        con.ingest(source, select="a/volume", chunk_size=(1, 6, 5))
    source.broken, source.state = set(), "2"
    with pytest.raises(SourceChangedError, match="was begun from planes"):
        con.ingest(source, select="a/volume")
    report = con.ingest(source, select="a/volume", overwrite=True)
    assert (report.made, report.resumed) == (["a/volume"], [])
    np.testing.assert_array_equal(con["a/volume"][...], VOLUME)
    source.state = "3"
    with pytest.raises(SourceChangedError, match="was made from planes"):
        con.ingest(source, select="a/volume")


def test_a_source_that_changes_meanwhile_leaves_no_dataset_that_looks_complete(con):
    class Growing(Planes):
        def read(self, name, box):
            self.state = "2"
            return super().read(name, box)

    with pytest.raises(SourceChangedError, match="changed while it was ingested"):
        con.ingest(Growing(), select="a/volume")
    assert con["a/volume"].incomplete


def test_what_is_there_from_elsewhere_stays(con):
    con.create_dataset("a/volume", data=np.ones(3))
    with pytest.raises(DatasetExistsError, match="is not from planes"):
        con.ingest(Planes(), select="a/volume")
    assert con["a/volume"].shape == (3,)
    report = con.ingest(Planes(), select="a", on_error="skip")
    assert report.made == ["a/scalar"]
    assert "is not from planes" in report.skipped["a/volume"]
    con.ingest(Planes(), select="a/volume", overwrite=True)
    np.testing.assert_array_equal(con["a/volume"][...], VOLUME)


def test_a_dataset_that_was_resized_is_not_said_to_be_of_another_state(con):
    con.ingest(Planes(), select="a/volume")
    con["a/volume"].resize((1, *VOLUME.shape[1:]))
    with pytest.raises(DatasetExistsError, match="its shape, its type"):
        con.ingest(Planes(), select="a/volume")
    con.ingest(Planes(), select="a/volume", overwrite=True)
    np.testing.assert_array_equal(con["a/volume"][...], VOLUME)


def test_what_is_resumed_and_fails_again_is_not_reported_as_made(con):
    source = Planes()
    source.broken = set(range(VOLUME.shape[0]))
    for _ in range(2):
        report = con.ingest(source, select="a/volume", on_error="skip")
        assert (report.made, report.resumed) == ([], [])
        assert "a/volume" in report.skipped


def test_options(con):
    with pytest.raises(TypeError, match=r"source 'hdf5' has no option 'compresion': it has .*end"):
        con.ingest("a.h5", compresion="gzip")
    with pytest.raises(ValueError, match="on_error"):
        con.ingest(Planes(), on_error="ignore")
    with pytest.raises(TypeError, match="neither kind nor options"):
        con.ingest(Planes(), endpoint_url="http://localhost")


extents = st.lists(st.tuples(*[st.integers(1, n) for n in (20, 9, 9)]), min_size=3, max_size=3)


@given(extents, st.sampled_from([300, 2000, 1 << 20]))
def test_blocks_of_a_load_read_each_chunk_of_the_source_once(sizes, limit):
    shape, chunks, target = sizes
    data = np.random.default_rng(0).integers(0, 99, shape, "i4")
    read = []

    class Chunked:
        dtype = data.dtype

        def __init__(self):
            self.shape, self.chunks = shape, chunks

        def __getitem__(self, box):
            grid = [range(s.start // c, -(-s.stop // c)) for s, c in zip(box, chunks, strict=True)]
            read.extend(itertools.product(*grid))
            return data[box]

    with dn.Connection("blocks", backend="ram") as con:
        ds = con.create_dataset("a", shape, "i4", chunk_size=target)
        held = 4 * (2 * math.prod(target) + 3 * math.prod(chunks))
        ds.load(Chunked(), memory_limit=held + max(limit, 4 * math.prod(target)))
        np.testing.assert_array_equal(ds[...], data)
        del con["a"]
    if limit >= 1 << 20:
        assert len(read) == len(set(read))


def test_an_extent_of_chunks_is_for_arrays_of_so_many_axes(con):
    report = con.ingest(Planes(), on_error="skip", chunk_size=(3, 2, 5))
    assert report.made == ["a/scalar", "a/volume"]
    assert con["a/volume"].chunk_size == (3, 2, 5)
    with pytest.raises(ValueError, match=r"\(3, 2\) has 2 axes, and the arrays of .* have 0, 3"):
        con.ingest(Planes(), "b", on_error="skip", chunk_size=(3, 2))


def test_arrays_of_this_process(con):
    con.ingest(VOLUME, "direct")
    np.testing.assert_array_equal(con["direct"][...], VOLUME)
    report = con.ingest({"x": np.arange(3), "y": np.float64(2)}, "both")
    assert report.made == ["both/x", "both/y"]
    assert con["both/y"][()] == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("scan.nxs", ("hdf5", "scan.nxs", "")),
        ("dir.v1/scan.NXS", ("hdf5", "dir.v1/scan.NXS", "")),
        ("scan.h5:/entry/data", ("hdf5", "scan.h5", "/entry/data")),
        ("s3://bucket/scan.h5", ("hdf5", "s3://bucket/scan.h5", "")),
        ("s3://bucket/scan.h5:/entry", ("hdf5", "s3://bucket/scan.h5", "/entry")),
        ("a/b.zarr/", ("zarr", "a/b.zarr/", "")),
        ("b.zarr:sub/array", ("zarr", "b.zarr", "sub/array")),
        ("x.npz:first", ("npy", "x.npz", "first")),
    ],
)
def test_names_that_mean_a_source(text, expected):
    for package in ("h5py", "zarr"):
        require(package)
    source = open_source(text)
    kind, where, inner = expected
    assert type(source).__name__.lower() == kind.replace("hdf5", "h5") + "source"
    assert source.location == (where if "://" in where else os.path.abspath(where))
    assert source.inner.strip("/") == inner.strip("/")


def test_what_means_no_source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceNotFoundError, match=r"no file .*scan.tiff"):
        open_source("scan.tiff")
    (tmp_path / "scan.tiff").touch()
    with pytest.raises(SourceError, match=r"'scan.tiff', .*\.h5.*kind="):
        open_source("scan.tiff")
    with pytest.raises(SourceError, match=r"builtins.object .* source"):
        open_source(object())
    with pytest.raises(ValueError, match=r"unknown source 'tiff': use one of .*hdf5"):
        open_source("scan.tiff", kind="tiff")


@pytest.mark.parametrize(
    ("shape", "own", "wanted", "expected"),
    [
        ((100, 2048, 2048), (1, 2048, 2048), None, (1, 2048, 2048)),
        ((23, 1100, 1, 9), (1, 1, 1, 9), None, (23, 1024, 1, 9)),
        ((100, 100), None, None, (100, 100)),
        ((1000, 1000, 1000), (64, 64, 64), "4 MiB", (64, 128, 128)),
        ((1000, 1000), (1000, 1000), "256 KiB", (250, 250)),
        ((50, 2167, 2070), (1, 2167, 2070), "1 MiB", (1, 2167, 115)),
        ((50, 2160, 2070), (1, 2160, 2070), "1 MiB", (1, 540, 345)),
        ((4099, 4099), (4099, 4099), "1 MiB", (257, 513)),
        ((10, 10), (4, 4), (3, 5), (3, 5)),
        ((0, 5), (4, 5), None, (1, 5)),
        ((), None, "1 MiB", ()),
    ],
)
def test_chunks_suit_those_of_the_source(shape, own, wanted, expected):
    description = ArrayDescription("a", shape, np.dtype("f4"), chunks=own)
    assert choose_chunks(description, wanted) == expected


def test_a_source_array_is_indexed_as_numpy_is():
    array = SourceArray(Planes(), Planes().describe("a/volume"))
    for key in (
        np.s_[...],
        np.s_[2],
        np.s_[1:5:2, ::-1, -1],
        np.s_[[3, 0, 3], :, [1, 1, 0]],
        np.s_[:, None, 2:2],
        VOLUME[:, 0, 0] > 60,
    ):
        np.testing.assert_array_equal(array[key], VOLUME[key])
    assert array[2, 1, 3] == VOLUME[2, 1, 3]
    np.testing.assert_array_equal(np.asarray(array, "f8"), VOLUME)
    with pytest.raises(RefusedError, match="jelly"):
        Planes()["a/refused"]


# -- what data must not become -------------------------------------------------------------


def test_an_array_that_changed_is_not_taken_for_the_same(con):
    array = np.zeros((1500, 1500))
    con.ingest(array, "t")
    assert con.ingest(array, "t").present == ["t"]
    array[3, 7] = 5
    with pytest.raises(SourceChangedError, match="overwrite=True"):
        con.ingest(array, "t")
    con.ingest(array, "t", overwrite=True)
    assert con["t"][3, 7] == 5


def test_each_array_in_memory_is_looked_at_thrice_however_many_there_are(monkeypatch):
    added, add = [], npy._add
    monkeypatch.setattr(npy, "_add", lambda digest, *a: added.append(a[0]) or add(digest, *a))
    with dn.Connection("many", backend="ram") as con:
        con.ingest({f"a{n}": np.arange(n, n + 3) for n in range(1200)}, "run")
        assert len(con.names_in("run")) == 1200
    assert max(Counter(added).values()) <= 3


def test_an_array_in_memory_that_changes_meanwhile_is_noticed():
    arrays = {"a": np.arange(4), "b": np.arange(4), "c": np.arange(4)}
    source = open_source(arrays)
    before = source.fingerprint()
    arrays["b"][0] = -1
    assert source.fingerprint_after("a", before) == source.fingerprint_after("c", before) == before
    assert source.fingerprint_after("b", before) == source.fingerprint() != before
    assert source.fingerprint_after("a", before) != before


def test_bytes_between_fields_do_not_change(con):
    kind = np.dtype(
        {"names": ["a", "b"], "formats": ["i2", "f8"], "offsets": [2, 8], "itemsize": 20}
    )
    raw = np.full((40, 30, 20), 0xA5, "u1")
    rows = raw.view(kind)[..., 0]
    columns = np.asfortranarray(rows.view("V20")).view(kind)
    prints = {
        open_source({"x": array}).fingerprint() for array in (rows, columns) for _ in range(9)
    }
    assert len(prints) == 1
    con.ingest(columns, "x")
    assert con.ingest(rows, "x").present == ["x"]


def test_an_open_array_of_zarr_that_changed(con):
    zarr = require("zarr")
    array = zarr.create_array(zarr.storage.MemoryStore(), shape=(4,), dtype="i4")
    con.ingest(array, "t")
    array[...] = 2
    con.ingest(array, "t", overwrite=True)
    assert (con["t"][...] == 2).all()


def test_a_file_that_is_replaced_while_it_is_open(con, tmp_path):
    h5py = require("h5py")
    for name, value in (("a.h5", 0), ("b.h5", 1)):
        with h5py.File(tmp_path / name, "w") as file:
            file["x"] = np.full(4, value)
    with open_source(tmp_path / "a.h5") as source:
        assert source["x"][0] == 0
        (tmp_path / "b.h5").replace(tmp_path / "a.h5")
        with pytest.raises(SourceChangedError, match="was replaced since it was opened"):
            con.ingest(source)
    con.ingest(tmp_path / "a.h5")
    assert con["x"][0] == 1


def test_masks_are_refused(con):
    masked = np.ma.array([1, 2, 3], mask=[False, True, False])
    for make in (lambda: con.ingest(masked, "m"), lambda: con.create_dataset("m", data=masked)):
        with pytest.raises(TypeError, match=r"has no mask.*filled"):
            make()
    assert "m" not in con
    con.ingest(masked.filled(9), "m")


def test_masks_of_records_that_hide_nothing_are_taken(con):
    records = np.ma.array(np.ones(3, [("a", "i4"), ("b", "f4")]))
    con.create_dataset("m", data=records).attrs["first"] = records[:1]
    assert (con["m"][...] == records.data).all()
    records["b"][1] = np.ma.masked
    with pytest.raises(TypeError, match="has no mask"):
        con["m"].load(records)


def test_what_is_incomplete_is_not_copied(con):
    con.create_dataset("a/part", shape=(4,), dtype="i4", incomplete=True)
    with dn.Connection("another", backend="ram") as other:
        with pytest.raises(TypeError, match="incomplete"):
            other.ingest(con)
        assert list(other) == []


def test_conflicts_show_before_anything_is_made(con):
    con.create_dataset("a/volume", data=[1, 2])
    with Planes() as source:
        with pytest.raises(DatasetExistsError, match="'a/volume' exists"):
            con.ingest(source, select=["a/scalar", "a/volume"])
        assert list(con) == ["a/volume"]
        report = con.ingest(source, on_error="skip")
        assert report.made == ["a/scalar"]
        assert "exists" in report.skipped["a/volume"]
        with pytest.raises(DatasetNameError, match="would lie in 'a/volume'"):
            con.ingest(source, "a/volume/deep", select="a/scalar")
        assert list(con) == ["a/scalar", "a/volume"]


def test_other_chunks_are_not_ignored(con):
    with Planes() as source:
        con.ingest(source, select="a/volume", chunk_size=(2, 3, 5))
        for same in (None, (2, 3, 5)):
            report = con.ingest(source, select="a/volume", chunk_size=same)
            assert report.present == ["a/volume"]
        with pytest.raises(DatasetExistsError, match=r"chunks of \(2, 3, 5\)"):
            con.ingest(source, select="a/volume", chunk_size=(1, 6, 5))
        con.ingest(source, select="a/volume", chunk_size=(1, 6, 5), overwrite=True)
        assert con["a/volume"].chunk_size == (1, 6, 5)
        np.testing.assert_array_equal(con["a/volume"][...], VOLUME)


def test_members_of_an_archive_that_are_damaged_or_foreign(con, tmp_path):
    path = tmp_path / "all.npz"
    np.savez(path, a=np.tile(VOLUME, (2000, 1, 1)), b=np.arange(4.0))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("read.me", "not an array")
    with pytest.raises(RefusedError, match=r"'read\.me': it is another file"):
        con.ingest(path)
    assert con.ingest(path, on_error="skip").made == ["a", "b"]
    data = path.read_bytes()
    at = data.index(VOLUME.tobytes()[-64:])
    (tmp_path / "bad.npz").write_bytes(data[:at] + b"\xff" + data[at + 1 :])
    with pytest.raises(SourceError, match="CRC-32"):
        con.ingest(tmp_path / "bad.npz", "bad", select="a")
