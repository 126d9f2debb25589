"""Linked datasets: what they read is what h5py reads, and only that is read."""

from __future__ import annotations

import ctypes
import os
import pickle
import re
import shutil
import subprocess
import sys
import tracemalloc
import zlib
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from services.proxy import Proxy
from services.s3 import make_bucket, make_client
from support import HANG, mpiexec, require

import dosna as dn
from dosna.backends.linked import dataset as links
from dosna.backends.linked import link
from dosna.cli import main
from dosna.codecs import hdf5
from dosna.codecs.fletcher32 import fletcher32
from dosna.codecs.hdf5 import _CODECS, DEFLATE, SHUFFLE, UndecodableError, decoders_of, undone
from dosna.errors import (
    ChunkCorruptError,
    ConfigurationError,
    DatasetExistsError,
    DatasetNotFoundError,
    IncompleteDatasetWarning,
    MissingDependencyError,
    ReadOnlyError,
    RefusedError,
    SourceChangedError,
    SourceError,
    SourceNotFoundError,
    StaleDatasetError,
)
from dosna.ingest import running
from dosna.sources.hdf5 import layout as h5links
from dosna.sources.hdf5.source import H5Source
from dosna.testing.samples import check, indices, keys, sample

h5py = require("h5py")

VOLUME = np.random.default_rng(0).integers(0, 1000, (12, 30, 20), "i4")
ZIPPED_ROWS = {"compression": "gzip", "shuffle": True}
ZIPPED = {"chunks": (2, 7, 20), "compression": "gzip", "shuffle": True, "fletcher32": True}


@pytest.fixture
def con():
    with dn.Connection("links", backend="ram") as con:
        yield con
        for name in list(con):
            del con[name]


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "scan.nxs")


@pytest.fixture
def tabled(monkeypatch):
    """Have the records of few chunks in a table too."""
    monkeypatch.setattr("dosna.sources.hdf5.layout.MOST_KEPT", 0)


@pytest.fixture
def scan(path):
    """Give a file with one array of each layout."""
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        entry.create_dataset("zipped", data=VOLUME, **ZIPPED).attrs["units"] = "counts"
        entry.create_dataset("chunked", data=VOLUME, chunks=(5, 30, 20))
        entry.create_dataset("flat", data=VOLUME)
        entry["again"] = h5py.SoftLink("/entry/zipped")
        entry["energy"] = 76.0
        entry["title"] = "a scan"
    return path


def make_connection(backend, folder):
    if backend != "ram":
        (folder / backend).mkdir()
    return dn.Connection(str(folder / backend), backend=backend)


# -- what is read --------------------------------------------------------------------------

FILTERS = [
    {},
    {"compression": "gzip"},
    {"compression": "gzip", "shuffle": True},
    {"shuffle": True},
    {"fletcher32": True},
    {"compression": "gzip", "shuffle": True, "fletcher32": True},
    "Zstd",
    "LZ4",
    "Blosc",
    "Bitshuffle",
]
DTYPES = [
    "?",
    "i1",
    ">i2",
    "<u8",
    "<f2",
    ">f4",
    "<f8",
    "<c16",
    [("id", "<i4"), ("energy", ">f8"), ("hit", "?")],
]


@st.composite
def arrays(draw):
    ndim = draw(st.integers(1, 3))
    extents = st.lists(st.integers(1, 12), min_size=ndim, max_size=ndim).map(tuple)
    shape, chunks = draw(extents), draw(st.none() | extents)
    filters = draw(st.sampled_from(FILTERS)) if chunks else {}
    if isinstance(filters, str):
        filters = dict(getattr(require("hdf5plugin"), filters)())
    written = draw(keys(shape))
    return shape, chunks, filters, draw(st.sampled_from(DTYPES)), written, draw(keys(shape))


@pytest.mark.usefixtures("tabled")
@settings(max_examples=25)
@given(
    arrays(), st.sampled_from(["ram", "ram", "file", "hdf5"]), st.sampled_from([0, 512]), st.data()
)
def test_any_array_reads_as_with_h5py(tmp_path_factory, made, backend, userblock, data):
    shape, chunks, filters, dtype, _, key = made
    folder = tmp_path_factory.mktemp("links")
    values = sample(shape, dtype)
    h5links.MOST_KEPT = data.draw(st.sampled_from([0, 64]))
    with h5py.File(folder / "a.h5", "w", userblock_size=userblock) as file:
        maxshape = (None,) * len(shape) if chunks else None
        options = {"chunks": chunks, "maxshape": maxshape, **filters}
        a = file.create_dataset("a", shape, dtype, fillvalue=values.flat[0], **options)
        # Of a box: elsewhere there are chunks that were never written.
        box = tuple(slice(data.draw(st.integers(0, n)), n) for n in shape)
        a[box] = values[box]
    with h5py.File(folder / "a.h5") as file:
        expected = file["a"][...]
    with make_connection(backend, folder) as con:
        assert con.link(folder / "a.h5").linked == ["a"]
        ds = con["a"]
        assert ds.linked is not None
        if chunks:
            assert ds.chunk_size == chunks
        check(ds[...], expected)
        check(ds[key], expected[key], key)
        out = np.empty(shape, ds.dtype)
        check(ds.read(out=out), expected)
        for chunk in ds.iter_chunks():
            inside = ds.instance.metadata.bounds(chunk.idx)
            whole = chunk[...]
            check(whole[inside.chunk], expected[inside.array])
            rest = np.ones(whole.shape, bool)
            rest[inside.chunk] = False
            assert (whole[rest] == ds.fillvalue).all()
        del con["a"]
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", ["zipped", "chunked", "flat"])
def test_every_kind_of_index(con, path, name):
    values = sample((7, 10, 9), "<i4")
    options = {"zipped": {**ZIPPED, "chunks": (3, 4, 5)}, "chunked": {"chunks": (3, 4, 5)}}
    with h5py.File(path, "w") as file:
        file.create_dataset(name, data=values, **options.get(name, {}))
    con.link(path)
    for key in indices():
        check(con[name][key], values[key], key)


@pytest.mark.parametrize("options", [{}, {"chunks": (5,)}, {"chunks": (5,), **ZIPPED_ROWS}])
def test_elements_that_were_read_stay_as_they_were(con, path, options):
    values = sample((23,), DTYPES[-1])
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=values, **options)
    con.link(path)
    ds = con["a"]
    elements = [ds[i] for i in range(23)]
    parts = [ds.get_chunk(idx)[...] for idx in np.ndindex(ds.chunk_grid)]
    for part, start in zip(parts, range(0, 23, ds.chunk_size[0]), strict=True):
        expected = values[start : start + len(part)]
        check(part[: len(expected)], expected)
    for found, expected in zip(elements, values, strict=True):
        check(found, expected)
    made = ds.clone("b", data=True)
    made[0] = ds[22]
    check(made[0], values[22])


@pytest.mark.parametrize("how", ["none", "lz4", "zstd"])
def test_bitshuffle(con, path, how):
    plugin = require("hdf5plugin")
    cases = [
        (dtype, chunks, elements)
        for dtype in ("u1", ">i2", "u4", "<f8", "<c16")
        for chunks in ((333,), (5,), (8,), (1000,))
        for elements in (0, 8, 64, 2048)
    ]
    values = np.random.default_rng(0).integers(0, 100, 1000)
    with h5py.File(path, "w") as file:
        for number, (dtype, chunks, elements) in enumerate(cases):
            options = plugin.Bitshuffle(nelems=elements, cname=how)
            made = file.create_dataset(f"{number}", (1000,), dtype, chunks=chunks, **options)
            made[:700] = values[:700].astype(dtype)
    assert len(con.link(path).linked) == len(cases)
    with h5py.File(path) as file:
        for number, case in enumerate(cases):
            check(con[f"{number}"][...], file[f"{number}"][...], case)


@pytest.mark.parametrize("how", ["lz4", "zstd"])
def test_damaged_bitshuffle(con, path, how):
    plugin = require("hdf5plugin")
    with h5py.File(path, "w") as file:
        options = plugin.Bitshuffle(cname=how)
        made = file.create_dataset("a", data=VOLUME, chunks=VOLUME.shape, **options)
        stored = made.id.read_direct_chunk((0, 0, 0))[1]
        for number, damaged in enumerate(
            (
                b"",
                stored[:10],
                stored[:40],
                stored[:-1],
                b"\0" * 12 + stored[12:],
                stored[:8] + b"\0\0\0\7" + stored[12:],
                stored[:12] + b"\xff" * 4 + stored[16:],
            )
        ):
            bad = file.create_dataset(
                f"bad{number}", made.shape, "i4", chunks=made.shape, **options
            )
            bad.id.write_direct_chunk((0, 0, 0), damaged or b"\0")
    con.link(path, select="bad*")
    for name in con:
        with pytest.raises(ChunkCorruptError):
            con[name][...]


def test_an_array_that_is_contiguous_has_chunks_of_rows(con, path, monkeypatch):
    monkeypatch.setattr("dosna.sources.hdf5.layout.TARGET_CHUNK_BYTES", 200)
    values = sample((7, 10, 9), "<i4")
    with h5py.File(path, "w") as file:
        file["a"], file["long"] = values, np.arange(1000.0)
        file.create_dataset("never", (100, 100), "f4", fillvalue=2)
    con.link(path)
    ds = con["a"]
    assert (ds.chunk_size, con["long"].chunk_size) == ((1, 5, 9), (25,))
    for key in indices():
        check(ds[key], values[key], key)
    assert con["long"].sum() == 499500
    assert len(ds.written_chunks()) == ds.total_chunks
    assert con["never"][3:5, 3].tolist() == [2, 2]
    assert con["never"].written_chunks() == []


def test_parts_of_chunks_at_the_edge_of_a_contiguous_array(con, path, monkeypatch):
    monkeypatch.setattr("dosna.sources.hdf5.layout.TARGET_CHUNK_BYTES", 200)
    values = np.arange(23 * 7 * 5, dtype="u2").reshape(23, 7, 5)
    with h5py.File(path, "w") as file:
        file["data"] = values
    con.link(path)
    ds = con["data"]
    assert ds.chunk_size == (2, 7, 5)
    monkeypatch.setattr(ds.instance, "_reader", lambda: pytest.fail("it was read chunk by chunk"))
    for key in [(22, 6, 4), (slice(20, 23), 6), (slice(3, 20), slice(1, 6), slice(2, 4))]:
        assert np.array_equal(ds[key], values[key])
    last = (11, 0, 0)  # of which one plane is inside
    assert ds.instance.get_chunk_data(last, (0, 6, 4)) == values[22, 6, 4]
    assert np.array_equal(ds.instance.get_chunk_data(last), values[22:])
    beyond = ds.instance.get_chunk_data(last, (slice(0, 2), slice(1, 3), 4))
    assert np.array_equal(beyond, [values[22, 1:3, 4], [0, 0]])


def test_chunks_at_the_edge_that_a_file_leaves_unfiltered(con, path):
    library = re.search(r"\S*/libhdf5[-.]\S*", Path("/proc/self/maps").read_text())
    assert library, "h5py has loaded libhdf5"
    set_options = ctypes.CDLL(library[0]).H5Pset_chunk_opts
    set_options.argtypes = [ctypes.c_int64, ctypes.c_uint]
    noise = np.random.default_rng(1).integers(0, 1 << 30, (10, 10), "i4")
    with h5py.File(path, "w", libver="latest") as file:
        for name, filters, values in (
            ("zipped", ("set_deflate", 4), noise),
            ("shuffled", ("set_shuffle",), noise),
            ("constant", ("set_shuffle",), np.full((10, 10), 5, "i4")),
        ):
            creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            creation.set_chunk((4, 4))
            getattr(creation, filters[0])(*filters[1:])
            assert set_options(creation.id, 2) >= 0
            space = h5py.h5s.create_simple((10, 10))
            kind = h5py.h5t.py_create(np.dtype("i4"))
            made = h5py.h5d.create(file.id, name.encode(), kind, space, creation)
            h5py.Dataset(made)[...] = values
    con.link(path)
    np.testing.assert_array_equal(con["zipped"][...], noise)
    np.testing.assert_array_equal(con["shuffled"][...], noise)
    assert (con["constant"][...] == 5).all()


def test_what_is_read_of_an_unfiltered_chunk(con, scan, monkeypatch):
    con.link(scan)
    read = []
    local = type(con["entry/chunked"].instance.link.open())
    fill = local.read_into
    monkeypatch.setattr(
        local, "read_into", lambda self, at, out: read.append(len(out)) or fill(self, at, out)
    )
    for name in ("entry/chunked", "entry/flat"):
        assert con[name][3, 4, 5] == VOLUME[3, 4, 5]
        np.testing.assert_array_equal(con[name][3, 2:4], VOLUME[3, 2:4])
    assert read == [4, 160, 4, 160]


PIPELINES = [
    ["fletcher32", "deflate"],
    ["fletcher32", "shuffle", "deflate"],
    ["fletcher32", 32001],
    ["shuffle", "fletcher32", 32001],
    ["fletcher32", "shuffle", "fletcher32", 32004],
    ["fletcher32", 32015],
    ["fletcher32", 32008],
    ["fletcher32", "lz4 in bitshuffle"],
    ["deflate", "fletcher32", "deflate"],
    ["deflate", "shuffle", "deflate"],
]
PARAMETERS = {32001: (0, 0, 0, 0, 5, 1, 0), 32004: (), 32015: (3,), 32008: (0, 0)}


@pytest.mark.parametrize("pipeline", PIPELINES, ids=lambda p: "+".join(map(str, p)))
def test_filters_in_any_order(con, path, pipeline):
    if not {"shuffle", "fletcher32", "deflate"}.issuperset(pipeline):
        require("hdf5plugin")
        require("numcodecs")
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk((3, 30, 20))
    for step in pipeline:
        if step == "deflate":
            creation.set_deflate(5)
        elif step == "lz4 in bitshuffle":
            creation.set_filter(32008, h5py.h5z.FLAG_OPTIONAL, (0, 2))
        elif isinstance(step, int):
            creation.set_filter(step, h5py.h5z.FLAG_OPTIONAL, PARAMETERS[step])
        else:
            getattr(creation, f"set_{step}")()
    with h5py.File(path, "w") as file:
        kind, space = h5py.h5t.py_create(VOLUME.dtype), h5py.h5s.create_simple(VOLUME.shape)
        h5py.Dataset(h5py.h5d.create(file.id, b"a", kind, space, creation))[...] = VOLUME
    assert con.link(path).linked == ["a"]
    np.testing.assert_array_equal(con["a"][...], VOLUME)


@pytest.mark.parametrize("pipeline", [[2, 2], [2, 3, 2], [3, 2, 3, 2]])
def test_a_filter_that_occurs_twice(pipeline):
    # h5py refuses to make the first, and other programs do not.
    data = plain = VOLUME.tobytes()
    for code in pipeline:
        if code == SHUFFLE:
            count = len(data) // 4
            whole = np.frombuffer(data[: 4 * count], "u1").reshape(-1, 4).T.tobytes()
            data = whole + data[4 * count :]
        else:
            data += fletcher32(data)
    decoders = decoders_of([(code, (4,) * (code == 2)) for code in pipeline], 4)
    found = undone(data, [decode for _, decode in decoders], len(plain))
    assert bytes(found) == plain


def test_a_compressor_of_what_is_compressed_is_left_to_libhdf5(con, path):
    require("numcodecs")
    assert decoders_of([(1, (5,)), (32001, ())], 4) is None
    assert decoders_of([(32004, ()), (32015, ())], 4) is None
    require("hdf5plugin")
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk((12, 30, 20))
    creation.set_deflate(5)
    creation.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))
    with h5py.File(path, "w") as file:
        kind, space = h5py.h5t.py_create(VOLUME.dtype), h5py.h5s.create_simple(VOLUME.shape)
        h5py.Dataset(h5py.h5d.create(file.id, b"a", kind, space, creation))[...] = VOLUME
    with pytest.raises(RefusedError, match=r"the filters 1, 32015 in this order"):
        con.link(path)
    con.ingest(path)
    np.testing.assert_array_equal(con["a"][...], VOLUME)


@pytest.mark.parametrize("code", [DEFLATE, 32001, 32004, 32015])
def test_what_decodes_to_more_than_a_chunk_takes_no_memory(code):
    # A few bytes may claim to be gigabytes.
    zeros = bytes(50_000_000)
    if code == DEFLATE:
        data = zlib.compress(zeros)
    else:
        codec = require("numcodecs").get_codec({"id": _CODECS[code]})
        data = codec.encode(zeros)
        data = bytes(4) + data if code == 32004 else data
    [(_, decode)] = decoders_of([(code, ())], 4)
    tracemalloc.start()
    try:
        with pytest.raises(UndecodableError):
            decode(data, 4096)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_attributes_are_those_of_the_file(scan, tmp_path, con):
    attrs = {
        "unitSI": np.float64(2.5),
        "count": np.int16(-3),
        "scale": np.array([1.5, 2.5]),
        "fixed": np.array([b"ab", b"c"]),
        "axes": ["x", "y"],
        "units": "counts",
        "hit": np.bool_(True),
    }
    with h5py.File(scan, "a") as file:
        for name, value in attrs.items():
            file["entry/zipped"].attrs[name] = value
    con.link(scan)
    for backend in ("hdf5", "file"):
        with make_connection(backend, tmp_path) as other:
            other.link(scan)
            check_attributes(other["entry/zipped"].attrs, attrs)
    check_attributes(con["entry/zipped"].attrs, attrs)
    con["entry/zipped"].export(tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["zipped" if "zipped" in file else "entry/zipped"].attrs["unitSI"] == 2.5


def check_attributes(found, expected):
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
        assert type(found[name]) is type(value)
        if isinstance(value, (np.ndarray, np.generic)):
            assert found[name].dtype == value.dtype


# -- a dataset like any other --------------------------------------------------------------


def test_a_tree_of_a_file(con, scan):
    report = con.link(scan)
    assert report.linked == ["entry/chunked", "entry/flat", "entry/zipped"]
    assert report.made == sorted([*report.linked, "entry/energy", "entry/title"])
    assert report.links == {"entry/again": "entry/zipped"}
    assert report.nbytes == con["entry/energy"].nbytes + con["entry/title"].nbytes
    assert str(report).endswith("3 linked")
    ds = con["entry/zipped"]
    assert (ds.attrs["units"], con.get_group_attrs("entry")) == ("counts", {"NX_class": "NXentry"})
    assert ds.chunk_size == (2, 7, 20)
    assert ds.origin["links"] == ["entry/again"]
    assert (ds.linked["url"], ds.linked["name"]) == (scan, "/entry/zipped")
    assert ds.linked["fingerprint"] == ds.origin["fingerprint"]
    assert (ds.guarantees.partial_writes, ds.guarantees.checksum) == ("none", True)
    assert f"its chunks are in {scan}" in ds.guarantees.notes[0]
    assert con["entry/energy"].linked is None
    con["entry/energy"][()] = 5
    assert con.link(scan).present == report.made
    assert con["entry/energy"][()] == 5


@pytest.mark.parametrize("backend", ["ram", "hdf5", "file"])
@pytest.mark.parametrize("name", ["entry/zipped", "entry/flat", "table"])
def test_what_datasets_do(scan, tmp_path, backend, name, request):
    if name == "table":
        name = "entry/zipped"
        request.getfixturevalue("tabled")
    with make_connection(backend, tmp_path) as con:
        con.link(scan)
        ds = con[name]
        assert (ds.sum(), ds.min()) == (VOLUME.sum(), VOLUME.min())
        np.testing.assert_array_equal(ds.map(lambda block: block * 2, "twice")[...], VOLUME * 2)
        mapped = ds.map(lambda block: block + 0, "halo", halo=2)
        assert (mapped.chunk_size, mapped.linked) == (ds.chunk_size, None)
        assert mapped.compare(ds).equal
        cloned = ds.clone("cloned", data=True)
        cloned[0] = 0
        assert (ds[0] == VOLUME[0]).all()
        con.ingest(con[name], "ingested")
        assert con["ingested"].compare(ds).equal
        assert con["ingested"].linked is None
        ds.export(tmp_path / "out.h5")
        with h5py.File(tmp_path / "out.h5") as file:
            np.testing.assert_array_equal(file[name][...], VOLUME)
        ds.attrs["note"] = "mine"
        del ds.attrs["note"]
        ds.attrs.update(a=1)
        con[name].refresh()
        assert con[name].attrs["a"] == 1
        ds.flush()
        found = ds.verify()
        assert found.good
        assert len(found.ok if name == "entry/zipped" else found.unchecked) == ds.total_chunks
        assert len(ds.written_chunks()) == ds.total_chunks
        assert ds.has_chunk((0, 0, 0))
        with pytest.raises(DatasetExistsError):
            con.create_dataset(name, (3,))
        assert con.require_dataset(name, VOLUME.shape, "i4").linked
        del con[name]
        assert name not in con
        with h5py.File(scan) as file:
            np.testing.assert_array_equal(file[name][...], VOLUME)


def test_nothing_writes_to_it(con, scan):
    con.link(scan, select="entry/zipped")
    ds = con["entry/zipped"]
    before = Path(scan).read_bytes()
    for change in (
        lambda: ds.__setitem__(0, 1),
        lambda: ds.__setitem__((0, 0, 0), 1),
        lambda: ds.set_data(VOLUME),
        lambda: ds.load(VOLUME),
        lambda: ds.apply(np.negative),
        ds.clear,
        lambda: ds.resize((2, 2, 2)),
        lambda: ds.append(VOLUME),
        lambda: ds.del_chunk((0, 0, 0)),
        lambda: ds.create_chunk((0, 0, 0)),
        lambda: ds.set_chunk_data((0, 0, 0), 1),
        lambda: ds.get_chunk((0, 0, 0)).set_data(1),
        lambda: ds.instance.get_chunk((0, 0, 0)).set_data(1),
        lambda: ds.instance.set_chunk_data((0, 0, 0), 1),
        lambda: ds.instance.write_many(VOLUME, []),
    ):
        with pytest.raises(ReadOnlyError, match=r"is linked: its data are in .*scan\.nxs"):
            change()
    assert Path(scan).read_bytes() == before


def test_xarray_and_dask_read_it(con, scan):
    require("dask")
    xarray = require("xarray")
    con.link(scan)
    import dask.array

    from dosna.integrations.xarray import DosnaEntrypoint

    lazy = dask.array.from_array(con["entry/zipped"], chunks=con["entry/zipped"].chunks)
    assert lazy.chunks[0] == (2,) * 6
    assert lazy.max().compute() == VOLUME.max()
    found = xarray.open_dataset(con, engine=DosnaEntrypoint, group="entry")
    np.testing.assert_array_equal(found["zipped"][3], VOLUME[3])


def test_names_of_axes_are_kept(con, path):
    with h5py.File(path, "w") as file:
        file["a"] = VOLUME
        file["a"].dims[1].label = "y"
    con.link(path)
    assert con["a"].dims == (None, "y", None)


WORK = """
import sys
import numpy as np
import dosna as dn

engine, backend, store, name, total = sys.argv[1:]
kw = {"joblib": {"njobs": 2, "jlbackend": "loky"}}.get(engine, {})

def double(block):
    return block * 2

if __name__ == "__main__":
    with dn.Connection(store, backend=backend, engine=engine, engine_kw=kw) as con:
        if engine == "mpi":
            con.link("scan.nxs")
        assert con[name].sum() == int(total)
        assert con[name].map(double, "twice").sum() == 2 * int(total)
"""


@pytest.mark.parametrize("engine", ["joblib", "mpi"])
def test_processes_read_it(scan, tmp_path, engine, request):
    require("joblib")
    (tmp_path / "work.py").write_text(WORK)
    with make_connection("file", tmp_path) as con:
        if engine == "joblib":
            request.getfixturevalue("tabled")
            con.link(scan)
            sent = pickle.dumps(con["entry/zipped"])
            np.testing.assert_array_equal(pickle.loads(sent)[...], VOLUME)
    command = [*(mpiexec(2) if engine == "mpi" else []), sys.executable, "work.py", engine, "file"]
    command += [str(tmp_path / "file"), "entry/zipped", str(VOLUME.sum())]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=HANG)
    assert ran.returncode == 0, ran.stderr


# -- what is refused -----------------------------------------------------------------------


def test_what_cannot_be_linked_is_named(con, path, tmp_path, monkeypatch):
    plugin = require("hdf5plugin")
    text = h5py.string_dtype()
    with h5py.File(path, "w") as file:
        file["fine"] = VOLUME
        file.create_dataset("shuffled", data=VOLUME, **plugin.Blosc2())
        file.create_dataset("words", data=["a", "bc"], dtype=text)
        file.create_dataset("pairs", data=np.zeros((3, 2)), dtype=np.dtype("f8"))
        file.create_dataset("inner", (3,), np.dtype(("f8", (2,))))
        file["refs"] = np.array([file.ref], h5py.ref_dtype)
        raw = [(str(tmp_path / "a.raw"), 0, h5py.h5f.UNLIMITED)]
        file.create_dataset("outside", (3,), "i4", external=raw)[...] = [1, 2, 3]
        layout = h5py.VirtualLayout((3,), "i4")
        layout[...] = h5py.VirtualSource(path, "outside", (3,))
        file.create_virtual_dataset("view", layout)
        file.create_dataset("bits", (3,), "i4", chunks=(3,), scaleoffset=3)[...] = 1
    with pytest.raises(RefusedError, match="cannot link to or represent") as raised:
        con.link(path)
    reasons = {
        "shuffled": "the filter 32026",
        "words": "strings of variable length",
        "inner": "its elements are arrays",
        "refs": "references",
        "outside": "in raw files",
        "view": "a virtual dataset: link the files",
        "bits": "the filter 6",
    }
    for name, why in reasons.items():
        assert re.search(f"'{name}': [^;]*{why}", str(raised.value))
    assert "'fine'" not in str(raised.value)
    assert list(con) == []
    report = con.link(path, on_error="skip")
    assert (report.made, set(report.skipped)) == (["fine", "pairs"], set(reasons))
    report = con.link(path, on_error="skip", unlinkable="ingest")
    assert report.present == ["fine", "pairs"] == report.linked
    assert report.made == ["bits", "inner", "outside", "shuffled", "view", "words"]
    assert list(report.skipped) == ["refs"]
    np.testing.assert_array_equal(con["shuffled"][...], VOLUME)
    assert con["words"][...].tolist() == ["a", "bc"]
    with pytest.raises(ConfigurationError, match="'raise' or 'ingest', not 'skip'"):
        con.link(path, unlinkable="skip")
    with h5py.File(path) as file, pytest.raises(RefusedError, match="in an open file"):
        con.link(file, select="fine")
    with pytest.raises(RefusedError, match="NpySource"):
        con.link({"a": VOLUME})


def test_a_filter_that_is_unknown_where_it_is_read(con, path, monkeypatch):
    plugin = require("hdf5plugin")
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=VOLUME, **plugin.Zstd())
    con.link(path)
    monkeypatch.setattr(hdf5, "_CODECS", {})
    with pytest.raises(MissingDependencyError, match=r"filters \[32015\].*pip install numcodecs"):
        con["a"][0]


def test_small_arrays_without_chunks_are_ingested(con, path):
    with h5py.File(path, "w") as file:
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_layout(h5py.h5d.COMPACT)
        space, kind = h5py.h5s.create_simple((4,)), h5py.h5t.py_create(np.dtype("i4"))
        made = h5py.h5d.create(file.id, b"compact", kind, space, creation)
        h5py.Dataset(made)[...] = range(4)
        file["none"], file["empty"] = np.zeros((0, 3)), h5py.Empty("f4")
        file["scalar"], file["text"] = 2.5, "a text"
    report = con.link(path)
    assert (report.linked, len(report.made)) == ([], 5)
    assert con["compact"][...].tolist() == [0, 1, 2, 3]
    assert (con["none"].shape, con["empty"].shape) == ((0, 3), (0,))
    assert (con["scalar"][()], con["text"][()]) == (2.5, "a text")


# -- a source that changes -----------------------------------------------------------------


def replaced(path, values):
    with h5py.File(path + ".new", "w") as file:
        file.create_dataset("entry/zipped", data=values, **ZIPPED)
    os.replace(path + ".new", path)


@pytest.mark.parametrize("name", ["entry/zipped", "entry/chunked", "entry/flat"])
def test_a_file_that_changes_or_goes_is_noticed_at_each_read(con, scan, name):
    con.link(scan)
    ds = con[name]
    check(ds[3], VOLUME[3])
    status = os.stat(scan)
    with h5py.File(scan, "a") as file:
        file[name][3] = 7
    for handle in (ds, con[name]):
        with pytest.raises(SourceChangedError, match=f"'{name}'.*has changed since it was linked"):
            handle[3, 0, 0]
        with pytest.raises(SourceChangedError):
            handle.sum()
    os.truncate(scan, 3000)
    with pytest.raises(SourceChangedError, match="size 3000"):
        ds[...]
    os.rename(scan, scan + ".away")
    with pytest.raises(SourceNotFoundError, match="gone"):
        ds[...]
    with pytest.raises(SourceNotFoundError):
        ds.verify()
    with h5py.File(scan, "w") as file:
        file["entry/zipped"] = 1
    assert status.st_size != os.stat(scan).st_size
    with pytest.raises(SourceChangedError):
        ds[...]
    ds.attrs["still"] = "there"


def test_a_file_that_is_put_back_is_read_again(con, scan):
    con.link(scan)
    ds = con["entry/zipped"]
    shutil.copy2(scan, scan + ".copy")
    check(ds[0], VOLUME[0])
    with open(scan, "r+b") as file:  # the one that is open
        file.truncate(10)
    os.replace(scan + ".copy", scan)
    check(ds[...], VOLUME)


def test_to_link_again(con, scan):
    first = con.link(scan, select="entry/zipped")
    old = con["entry/zipped"]
    old[0]
    replaced(scan, VOLUME + 1)
    with pytest.raises(SourceChangedError, match="overwrite=True"):
        con.link(scan, select="entry/zipped")
    assert con.link(scan, select="entry/zipped", overwrite=True).made == first.made
    check(con["entry/zipped"][...], VOLUME + 1)
    with pytest.raises((SourceChangedError, DatasetNotFoundError)):
        old[...]
    with pytest.raises(DatasetExistsError, match="already"):
        con.ingest(scan, select="entry/zipped")
    con.ingest(scan, select="entry/zipped", overwrite=True)
    assert con["entry/zipped"].linked is None
    with pytest.raises(DatasetExistsError, match="already"):
        con.link(scan, select="entry/zipped")


def test_a_handle_does_not_take_the_places_of_another_link(tmp_path, scan, tabled):
    other = str(tmp_path / "other.h5")
    with h5py.File(other, "w") as file:
        file["first"] = np.zeros(999)
        file.create_dataset("entry/zipped", data=VOLUME[::-1], **ZIPPED)
    with make_connection("file", tmp_path) as con:
        con.link(scan, select="entry/zipped")
        old = con["entry/zipped"]
        del con["entry/zipped"]
        con.link(other, select="entry/zipped")
        with pytest.raises(StaleDatasetError, match="again"):
            old[...]
        check(con["entry/zipped"][...], VOLUME[::-1])


def test_a_link_that_was_begun_is_made_anew(tmp_path, scan, tabled, monkeypatch):
    with make_connection("file", tmp_path) as con:
        with monkeypatch.context() as patched:
            patched.setattr(running, "write_records", lambda *_: 1 / 0)
            with pytest.raises(SourceError, match="ZeroDivisionError"):
                con.link(scan, select="entry/zipped")
        with pytest.warns(IncompleteDatasetWarning, match=r"scan\.nxs is not finished"):
            con["entry/zipped"][0]
        assert con.link(scan, select="entry/zipped").made == ["entry/zipped"]
        check(con["entry/zipped"][...], VOLUME)


def test_a_file_behind_a_master_that_is_replaced_while_it_is_open(con, tmp_path):
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file.create_dataset("x", data=VOLUME, chunks=VOLUME.shape)
    with h5py.File(tmp_path / "master.h5", "w") as file:
        file["x"] = h5py.ExternalLink("data.h5", "/x")
    with H5Source(str(tmp_path / "master.h5")) as source:
        assert source.describe("x").shape == VOLUME.shape
        with h5py.File(tmp_path / "other.h5", "w") as file:
            file["first"] = np.zeros(999)
            file.create_dataset("x", data=VOLUME + 1, chunks=VOLUME.shape)
        os.replace(tmp_path / "other.h5", tmp_path / "data.h5")
        with pytest.raises(SourceChangedError, match=r"data\.h5 was replaced"):
            con.link(source)
    con.link(str(tmp_path / "master.h5"))
    check(con["x"][...], VOLUME + 1)


def test_a_source_by_a_relative_path_is_linked_by_an_absolute_one(con, scan, monkeypatch):
    monkeypatch.chdir(os.path.dirname(scan))
    with H5Source(os.path.basename(scan)) as source:
        con.link(source)
    monkeypatch.chdir("/")
    assert con["entry/zipped"].linked["url"] == scan
    check(con["entry/zipped"][...], VOLUME)


def test_a_table_that_is_damaged(tmp_path, scan, tabled):
    with make_connection("file", tmp_path) as con:
        con.link(scan, select="entry/zipped")
        (block,) = (tmp_path / "file/entry/zipped/c/0").iterdir()
        block.write_bytes(block.read_bytes()[:-9])
        with pytest.raises(ChunkCorruptError, match="link it again"):
            con["entry/zipped"][...]
        del con["entry/zipped"]
        con.link(scan, select="entry/zipped")
        check(con["entry/zipped"][...], VOLUME)


def test_a_chunk_that_is_damaged(con, scan):
    with h5py.File(scan) as file:
        place = file["entry/zipped"].id.get_chunk_info(0)
    with open(scan, "r+b") as file:
        file.seek(place.byte_offset + place.size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    con.link(scan)
    ds = con["entry/zipped"]
    with pytest.raises(ChunkCorruptError, match=r"'entry/zipped', .* cannot be decoded"):
        ds[...]
    found = ds.verify()
    assert (found.corrupt, len(found.ok)) == (((0, 0, 0),), ds.total_chunks - 1)


def test_what_lies_in_files_that_a_master_links_to(con, tmp_path):
    for number in range(2):
        with h5py.File(tmp_path / f"data_{number}.h5", "w") as file:
            file.create_dataset("entry/data", data=VOLUME + number, **ZIPPED)
    with h5py.File(tmp_path / "master.h5", "w") as file:
        for number in range(2):
            file[f"data_{number}"] = h5py.ExternalLink(f"data_{number}.h5", "entry/data")
    con.link(tmp_path / "master.h5")
    for number in range(2):
        ds = con[f"data_{number}"]
        assert ds.linked["url"] == str(tmp_path / f"data_{number}.h5")
        check(ds[...], VOLUME + number)
    os.utime(tmp_path / "data_1.h5", (1, 1))
    con["data_0"][0]
    with pytest.raises(SourceChangedError):
        con["data_1"][0]
    with pytest.raises(SourceChangedError, match="overwrite=True"):
        con.link(tmp_path / "master.h5")
    con.link(tmp_path / "master.h5", overwrite=True)
    check(con["data_1"][...], VOLUME + 1)


# -- many chunks ---------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["ram", "file", "hdf5"])
def test_places_of_many_chunks(tmp_path, path, backend, monkeypatch):
    monkeypatch.setattr(link, "RECORDS_PER_CHUNK", 64)
    monkeypatch.setattr(link, "_BLOCKS_WRITTEN", 3)
    monkeypatch.setattr(links, "_BLOCKS_KEPT", 2)
    values = np.arange(2000).reshape(40, 50)
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=values, chunks=(1, 2))
        file.create_dataset("sparse", (1000, 1000), "i2", chunks=(1, 1), fillvalue=-1)[500, 7] = 3
    with make_connection(backend, tmp_path) as con:
        con.link(path)
        table = con["a"].instance.table
        assert (table.metadata.shape, len(list(table.chunk_indices()))) == ((3, 1000), 16)
        check(con["a"][...], values)
        check(con["a"][::-7, [3, 1, 49]], values[::-7, [3, 1, 49]])
        sparse = con["sparse"]
        assert len(list(sparse.instance.table.chunk_indices())) == 1
        assert sparse.written_chunks() == [(500, 7)]
        assert (sparse[500, 7], sparse[499:502, 7].tolist()) == (3, [-1, 3, -1])


def test_a_huge_grid_with_one_chunk_is_gone_through_quickly(tmp_path, path):
    with h5py.File(path, "w") as file:
        sparse = file.create_dataset("sparse", (1 << 40,), "u2", chunks=(1024,), fillvalue=5)
        sparse[12345678901] = 9
        file.create_dataset("endless", (1 << 40, 1 << 40), "u2", chunks=(256, 256))
    with make_connection("file", tmp_path) as con:
        with pytest.raises(RefusedError, match="too many to be counted"):
            con.link(path)
        con.link(path, select="sparse")
        ds = con["sparse"]
        reads, read = [], ds.instance.table.get_chunk_data
        ds.instance.table.get_chunk_data = lambda *a: reads.append(a) or read(*a)
        assert list(ds.instance.chunk_indices()) == [(12345678901 // 1024,)]
        assert len(reads) == 1
        assert ds[12345678900:12345678902].tolist() == [5, 9]


def test_the_places_of_a_hundred_thousand_chunks_take_little(tmp_path, path):
    with h5py.File(path, "w", libver="latest") as file:
        a = file.create_dataset("a", (100, 1000, 4), "u1", chunks=(1, 1, 4), compression="gzip")
        for place in np.ndindex(100, 1000):
            a.id.write_direct_chunk((*place, 0), zlib.compress(bytes([*place[:1], 1, 2, 3])))
    with make_connection("file", tmp_path) as con:
        con.link(path)
        assert con["a"][99, 999].tolist() == [99, 1, 2, 3]
        files = [p for p in (tmp_path / "file" / "a").rglob("*") if p.is_file()]
        assert len(files) < 10
        assert sum(p.stat().st_size for p in files) < 400_000


# -- the command ---------------------------------------------------------------------------


def test_the_command_links(scan, tmp_path, capsys):
    with h5py.File(scan, "a") as file:
        file["entry/words"] = ["a", "bc"]
    target = f"file:{tmp_path / 'store'}"
    assert main(["ingest", "--link-only", scan, target]) == 1
    assert "'entry/words': its elements are strings of variable" in capsys.readouterr().err
    assert main(["ingest", "--link", scan, target, "--chunk-size", "1,1,1"]) == 2
    assert "the file's chunks" in capsys.readouterr().err
    assert main(["ingest", "--link", scan, target]) == 0
    assert ", 3 linked" in capsys.readouterr().out
    assert main(["ls", target]) == 0
    assert re.search(r"entry/zipped .* linked\n", capsys.readouterr().out)
    assert main(["info", f"{target}//entry/zipped"]) == 0
    shown = capsys.readouterr().out
    assert f"linked:\n  url: {scan}\n  name: /entry/zipped\n  fingerprint: size" in shown
    assert main(["verify", target, "--against", scan]) == 0
    os.utime(scan, (1, 1))
    assert main(["verify", target]) == 1
    assert "has changed since it was linked" in capsys.readouterr().out


# -- in S3 ---------------------------------------------------------------------------------


@pytest.fixture
def bucket(gateway):
    for package in ("boto3", "obstore"):
        require(package)
    with closing(make_client(gateway.endpoint_url)) as client:
        client.name = make_bucket(gateway.endpoint_url)
        yield client


def put(bucket, key, path):
    bucket.put_object(Bucket=bucket.name, Key=key, Body=Path(path).read_bytes())
    return f"s3://{bucket.name}/{key}"


def test_a_file_in_s3_and_the_requests_for_it(con, gateway, bucket, path):
    noise = np.random.default_rng(2).integers(0, 1 << 30, (6, 40, 500), "i4")
    with h5py.File(path, "w") as file:
        file.create_dataset("zipped", data=noise, chunks=(1, 40, 500), compression="gzip")
        file.create_dataset("chunked", data=noise, chunks=(1, 40, 250))
        file.create_dataset("flat", data=noise)
        apart = file.create_dataset("apart", (6, 4000), "i4", chunks=(1, 4000))
        for row in range(6):
            apart[row] = noise[row].reshape(-1)[:4000]
            file.flush()
            file[f"between_{row}"] = noise[row]
    url = put(bucket, "raw/scan.h5", path)
    with Proxy(gateway.endpoint_url) as proxy:
        con.link(url, endpoint_url=proxy.url)
        assert con["zipped"].linked["options"] == {"endpoint_url": proxy.url}
        con["zipped"][0]
        for name, key, gets in (
            ("zipped", 3, 1),
            ("zipped", (4, 5, 6), 1),
            ("zipped", slice(2, 5), 1),  # neighbours in the file
            ("zipped", ..., 1),
            ("chunked", (0, 3, 2), 1),
            ("chunked", (slice(None), 3, 2), 6),
            ("flat", ..., 1),
            ("flat", (2, 3), 1),
            ("apart", (slice(None), 5), 6),
            ("apart", slice(1, 4), 3),
        ):
            expected = noise if name != "apart" else noise.reshape(6, -1)[:, :4000]
            proxy.reset()
            check(con[name][key], expected[key], key)
            assert dict(proxy.counts) == {"GET": gets}, (name, key)
        proxy.reset()
        assert con["zipped"].sum() == noise.sum()
        assert dict(proxy.counts) == {"GET": 1}  # read ahead


def test_neighbouring_chunks_are_few_requests(con, gateway, bucket, path):
    values = np.random.default_rng(0).integers(0, 255, (10_000, 2048), "u1")
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("a", data=values, chunks=(1, 2048))
        file.create_dataset("b", data=values[:5000], chunks=(1, 2048), shuffle=True)
    url = put(bucket, "raw/many.h5", path)
    with Proxy(gateway.endpoint_url) as proxy:
        con.link(url, endpoint_url=proxy.url)
        for name, key in (("a", ...), ("a", slice(100, 9000)), ("b", ...), ("a", (..., 7))):
            proxy.reset()
            expected = values[: len(con[name])][key]
            assert np.array_equal(con[name][key], expected)
            size = len(expected) * 2048
            # HDF5 puts its index between two of the chunks.
            assert sum(proxy.counts.values()) <= 1 + -(-size // (8 << 20)), (name, key)


def test_an_object_that_changes_or_goes(con, gateway, bucket, scan, tabled):
    url = put(bucket, "scan.h5", scan)
    con.link(url, endpoint_url=gateway.endpoint_url)
    ds = con["entry/zipped"]
    check(ds[...], VOLUME)
    replaced(scan, VOLUME + 1)
    put(bucket, "scan.h5", scan)
    with pytest.raises(SourceChangedError, match=f"{url} has changed since it was linked"):
        ds[0]
    bucket.put_object(Bucket=bucket.name, Key="scan.h5", Body=b"short")
    with pytest.raises(SourceChangedError, match="has changed since it was linked"):
        ds[11]
    bucket.delete_object(Bucket=bucket.name, Key="scan.h5")
    with pytest.raises(SourceNotFoundError, match="gone"):
        ds[0]


def test_links_in_s3_to_a_file_in_s3(gateway, bucket, scan):
    url = put(bucket, "scan.h5", scan)
    where = {"endpoint_url": gateway.endpoint_url, "bucket": bucket.name}
    with dn.Connection("linked", backend="s3", **where) as con:
        con.link(url, endpoint_url=gateway.endpoint_url)
        for name in ("entry/zipped", "entry/chunked", "entry/flat"):
            check(con[name][...], VOLUME)
            assert con[name].sum() == VOLUME.sum()
        del con["entry/zipped"]
    assert bucket.head_object(Bucket=bucket.name, Key="scan.h5")["ContentLength"]


def test_no_secret_is_kept(con, gateway, bucket, scan, monkeypatch):
    url = put(bucket, "scan.h5", scan)
    monkeypatch.setenv("AWS_ENDPOINT_URL", gateway.endpoint_url)
    con.link(url, retries=3)
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    linked = con["entry/zipped"].linked
    assert linked["options"] == {"endpoint_url": gateway.endpoint_url, "retries": 3}
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in str(linked)
    check(con["entry/zipped"][0], VOLUME[0])
    secret = gateway.endpoint_url.replace("://", "://key:secret@")
    with pytest.raises(ConfigurationError, match="password") as raised:
        con.link(url, endpoint_url=secret)
    assert "secret@" not in str(raised.value)
