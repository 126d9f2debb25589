"""Export: what other programs read is what the datasets hold, and appears whole or not at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from support import require

import dosna as dn
from dosna import errors
from dosna.errors import RefusedError
from dosna.export import SUFFIXES
from dosna.io import processes as processes
from dosna.sources import open_source
from dosna.testing.samples import ALL_DTYPES, DTYPES, check, sample

h5py = require("h5py")

SHAPE, CHUNKS = (7, 10, 9), (3, 4, 5)
ATTRIBUTES = {
    "size": 6.5e-6,
    "count": 3,
    "flag": True,
    "unit": "µm",
    "nothing": None,
    "origin": np.array([0.5, 0.5, 2]),
    "scalar": np.float32(1.5),
    "when": np.array(["2020-01-01", "NaT"], "M8[D]"),
    "axes": ["z", "y", "x"],
    "nested": {"a": [1, {"b": None}]},
    "mixed": [1, "two"],
    "huge": 1 << 80,
    "words": np.array(["a", "bé"]),
    "large": np.arange(20_000),
}


@pytest.fixture
def con():
    with dn.Connection("export", backend="ram") as con:
        yield con
        for name in list(con):
            con.del_dataset(name)


@pytest.fixture
def volume(con):
    data = sample(SHAPE, "f4")
    ds = con.create_dataset("entry/tomo", data=data, chunk_size=CHUNKS, fillvalue=-1)
    ds.attrs.update(ATTRIBUTES)
    return ds


def as_numpy(found, dtype):
    if dtype.kind in "UT":
        texts = [text.decode() for text in found.flat]
        return np.array(texts, dtype).reshape(found.shape)
    return found.view(dtype) if found.dtype != dtype else found


@pytest.mark.parametrize("compression", [None, "gzip"])
@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
def test_each_dtype_in_hdf5(con, tmp_path, dtype, compression):
    data = sample(SHAPE, dtype)
    con.create_dataset("a", data=data, chunk_size=CHUNKS)
    con.export(tmp_path / "out.h5", compression=compression)
    with h5py.File(tmp_path / "out.h5") as file:
        check(as_numpy(file["a"][...], data.dtype), data)
        assert file["a"].chunks == CHUNKS
        assert file["a"].compression == compression


@pytest.mark.parametrize("dtype", [d for d in ALL_DTYPES if d != "T"], ids=str)
def test_each_dtype_in_npy(con, tmp_path, dtype):
    data = sample(SHAPE, dtype)
    con.create_dataset("a", data=data, chunk_size=CHUNKS).export(tmp_path / "out.npy")
    check(np.asarray(np.load(tmp_path / "out.npy", mmap_mode="r")), data)


@pytest.mark.parametrize("shape", [(), (0, 3), (300, 6), (6, 300), (3, 5, 7)])
def test_boxes_of_any_shape_in_npy(con, tmp_path, shape):
    data = sample(shape, "i4")
    chunks = tuple(max(1, n // 2) for n in shape)  # rows of them are written one by one, or mapped
    con.create_dataset("a", data=data, chunk_size=chunks).export(tmp_path / "out.npy")
    check(np.load(tmp_path / "out.npy"), data)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_each_dtype_in_zarr(con, tmp_path, dtype):
    data = sample(SHAPE, dtype)
    con.create_dataset("a", data=data, chunk_size=CHUNKS).export(tmp_path / "out.zarr")
    with dn.Connection(str(tmp_path / "out.zarr"), backend="file", mode="r") as written:
        check(written["a"][...], data)


@pytest.mark.parametrize("suffix", [".h5", ".zarr", ".npy"])
@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (5,)])
def test_small_shapes(con, tmp_path, shape, suffix):
    data = np.full(shape, 3, "i2")
    path = tmp_path / f"out{suffix}"
    con.create_dataset("a", data=data, chunk_size=[4] * len(shape)).export(path)
    if suffix == ".npy":
        found = np.load(path)
    elif suffix == ".h5":
        with h5py.File(path) as file:
            found = np.asarray(file["a"][()])
    else:
        found = np.asarray(require("zarr").open(path, mode="r")["a"][...])
    check(found, data)


@pytest.mark.parametrize("dtype", ["U3", "T"])
def test_text_keeps_its_fill_value_in_hdf5(con, tmp_path, dtype):
    con.create_dataset("a", (3,), dtype, "né", chunk_size=2)[0] = "x"
    con.export(tmp_path / "a.h5", select="a")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        assert file["a"].asstr()[()].tolist() == ["x", "né", "né"]
        assert file["a"].fillvalue.decode() == "né"


def test_a_tree_with_attributes_in_hdf5(con, volume, tmp_path):
    con.create_dataset("entry/mean", data=3.5)
    assert con.export(tmp_path / "out.nxs", chunk_size=(5, 5, 5), select="entry/tomo") == [
        "entry/tomo"
    ]
    con.export(tmp_path / "out.nxs", overwrite=True)
    with h5py.File(tmp_path / "out.nxs") as file:
        assert sorted(file["entry"]) == ["mean", "tomo"]
        assert file["entry/tomo"].fillvalue == -1
        attrs = dict(file["entry/tomo"].attrs)
    assert attrs.pop("nothing").shape is None
    assert attrs.pop("axes").tolist() == ["z", "y", "x"]
    assert attrs.pop("words").tolist() == ["a", "bé"]
    assert attrs.pop("nested") == '{"a": [1, {"b": null}]}'
    assert attrs.pop("mixed") == '[1, "two"]'
    assert attrs.pop("huge") == str(1 << 80)
    assert attrs.keys() <= ATTRIBUTES.keys()
    for name, value in attrs.items():
        assert np.array_equal(value, ATTRIBUTES[name], equal_nan=name == "when"), name
        assert np.asarray(value).dtype == np.asarray(ATTRIBUTES[name]).dtype or name == "unit"


@pytest.mark.parametrize(
    "value",
    [[2**63, 1], [2**63 + 1, -1], ["a\0", "b"], [[1, True], [2, 3]], [[1, 2.5]], [True, 1], [[]]],
    ids=str,
)
def test_lists_that_an_array_would_change_are_json_in_hdf5(con, tmp_path, value):
    con.create_dataset("x", data=[1, 2], attrs={"list": value})
    con.export(tmp_path / "x.h5")
    with h5py.File(tmp_path / "x.h5") as file:
        assert repr(json.loads(file["x"].attrs["list"])) == repr(value)


@pytest.mark.parametrize("value", [[[1, 2], [3, 4]], [1.5, float("nan")], [2**64 - 1, 2**63]])
def test_lists_of_one_kind_are_arrays_in_hdf5(con, tmp_path, value):
    con.create_dataset("x", data=[1, 2], attrs={"list": value})
    con.export(tmp_path / "x.h5")
    with h5py.File(tmp_path / "x.h5") as file:
        assert repr(file["x"].attrs["list"].tolist()) == repr(value)


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800"])
def test_attributes_that_hdf5_cannot_name_are_refused(con, tmp_path, name):
    con.create_dataset("x", data=[1, 2], attrs={name: 1})
    with pytest.raises(RefusedError, match="attribute"):
        con.export(tmp_path / "x.h5")
    assert not (tmp_path / "x.h5").exists()


def test_names_of_axes_are_kept(tmp_path):
    zarr = require("zarr")
    with dn.Connection(str(tmp_path), backend="file") as con:
        ds = con.create_dataset("a", data=np.zeros((2, 3)), dims=("y", None))
        ds.export(tmp_path / "out.h5")
        ds.export(tmp_path / "out.zarr")
    with h5py.File(tmp_path / "out.h5") as file:
        assert [dim.label for dim in file["a"].dims] == ["y", ""]
    assert zarr.open(tmp_path / "out.zarr")["a"].metadata.dimension_names == ("y", None)


def test_a_tree_in_zarr(con, volume, tmp_path):
    zarr = require("zarr")
    con.export(tmp_path / "out.zarr", compression="zstd", chunk_size=(4, 4, 4))
    array = zarr.open(tmp_path / "out.zarr", mode="r")["entry/tomo"]
    check(array[...], volume[...])
    assert (array.chunks, array.attrs["unit"]) == ((4, 4, 4), "µm")


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["out.h5", "out.zarr"])
def test_attributes_of_groups_are_kept(con, volume, tmp_path, name):
    con.set_group_attrs("", {"NX_class": "NXroot"})
    con.set_group_attrs("entry", {"NX_class": "NXentry"})
    con.export(tmp_path / name)
    found = (
        h5py.File(tmp_path / name) if name == "out.h5" else require("zarr").open(tmp_path / name)
    )
    assert (found.attrs["NX_class"], found["entry"].attrs["NX_class"]) == ("NXroot", "NXentry")
    with dn.Connection("export-back", backend="ram") as back:
        back.ingest(str(tmp_path / name))
        assert back.get_group_attrs("entry") == {"NX_class": "NXentry"}
        assert back["entry/tomo"].compare(volume).equal
        back.del_dataset("entry/tomo")
    con.set_group_attrs("", {})


# -- whole or not at all -------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".h5", ".zarr", ".npy"])
class TestAppearing:
    def test_what_is_there_is_kept_unless_told(self, volume, tmp_path, suffix):
        path = tmp_path / f"out{suffix}"
        for _ in range(2):
            path.write_text("kept")
            with pytest.raises(FileExistsError, match="overwrite=True"):
                volume.export(path)
            assert path.read_text() == "kept"
            volume.export(path, overwrite=True)
            assert os.listdir(tmp_path) == [path.name]
            volume.export(path, overwrite=True)
            assert os.listdir(tmp_path) == [path.name]
            if path.is_dir():
                return
            path.unlink()

    @pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
    def test_an_interruption_leaves_nothing(self, volume, tmp_path, suffix, kind):
        path = tmp_path / f"out{suffix}"
        volume.export(path)

        def stop(done, total):
            if done > 2:
                raise kind

        before = contents(tmp_path)
        with pytest.raises(kind):
            volume.export(path, overwrite=True, progress=stop)
        assert os.listdir(tmp_path) == [path.name]
        assert contents(tmp_path) == before

    def test_a_chunk_that_cannot_be_read_fails_it(self, tmp_path, suffix):
        with dn.Connection(str(tmp_path), backend="file") as con:
            ds = con.create_dataset("a", data=np.arange(20), chunk_size=5)
            (tmp_path / "a/c/2").write_bytes(b"broken")
            with pytest.raises(errors.ChunkCorruptError):
                ds.export(tmp_path / f"out{suffix}")
        assert sorted(p for p in os.listdir(tmp_path) if "out" in p) == []

    def test_a_full_disk_is_an_error_and_leaves_nothing(self, tmp_path, suffix):
        code = (
            "import numpy as np, dosna as dn, resource, signal, sys\n"
            "with dn.Connection('x', backend='ram') as con:\n"
            "    ds = con.create_dataset('a', data=np.random.default_rng(0).random(100_000),"
            " chunk_size=90_000)\n"
            "    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
            "    try:\n"
            "        ds.export(sys.argv[1])\n"
            "    except dn.errors.StorageError as error:\n"
            "        print(error)\n"
        )
        path = tmp_path / f"out{suffix}"
        ran = subprocess.run(
            [sys.executable, "-c", code, path],
            capture_output=True,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
        )
        assert "File too large" in ran.stdout, ran.stderr
        assert (os.listdir(tmp_path), ran.returncode) == ([], 0)

    def test_a_missing_folder_is_named(self, volume, tmp_path, suffix):
        with pytest.raises(errors.StorageError, match="make it first"):
            volume.export(tmp_path / "no" / f"out{suffix}")


def killed(code, *arguments):
    """Run code that kills its own process."""
    code = "import os, signal, sys\nimport numpy as np\nimport dosna as dn\n" + code
    ran = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True)
    assert ran.returncode == -signal.SIGKILL, ran.stderr


KILLED = """
def stop(done, total):
    if done > 2:
        os.kill(os.getpid(), signal.SIGKILL)
with dn.Connection("x", backend="ram") as con:
    ds = con.create_dataset("a", data=np.arange(20.0), chunk_size=2)
    ds.export(sys.argv[1], overwrite=True, progress=stop)
"""


@pytest.mark.parametrize("suffix", [".h5", ".zarr", ".npy"])
def test_what_a_killed_export_left_is_swept_by_the_next(volume, tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    volume.export(path)
    before = contents(path) if path.is_dir() else path.read_bytes()
    killed(KILLED, path)
    left = set(os.listdir(tmp_path)) - {path.name}
    assert [name for name in left if name.startswith(f".{path.name}.") and name.endswith(".part")]
    assert (contents(path) if path.is_dir() else path.read_bytes()) == before
    # Of the living, of other machines, and of other paths.
    others = {
        f".{path.name}.{processes.maker()}.part",
        f".{path.name}.01234567-1-1-89ab.part",
        f".{path.name}.0123abcd.part",
        f".other{path.name}.part",
    }
    for name in others:
        (tmp_path / name).mkdir()
    volume.export(path, overwrite=True)
    assert set(os.listdir(tmp_path)) == {path.name} | others


@pytest.mark.parametrize("step", ["part", "old"])
def test_killed_between_two_steps_of_replacing_a_folder(volume, tmp_path, step):
    """On a file system that cannot exchange two names."""
    path = tmp_path / "out.zarr"
    code = """
import dosna.io.unfinished as module
module.exchange = lambda one, other: False
rename, step = os.rename, sys.argv[2]
def renamed(source, target, **options):
    rename(source, target, **options)
    if os.fspath(source).endswith("out.zarr") or (step == "old" and target == sys.argv[1]):
        if step == "part" or target == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGKILL)
os.rename = renamed
with dn.Connection("x", backend="ram") as con:
    con.create_dataset("a", data=np.arange(20.0)).export(sys.argv[1], overwrite=True)
"""
    volume.export(path)
    killed(code, path, step)
    assert path.exists() == (step == "old")
    with pytest.raises(errors.DatasetExistsError):
        volume.export(path)
    with dn.Connection(str(path), backend="file") as con:
        assert con["a"][...].tolist() == list(range(20))
    assert os.listdir(tmp_path) == [path.name]


def test_an_export_replaces_a_link_and_not_what_it_leads_to(volume, tmp_path):
    (tmp_path / "kept").mkdir()
    for suffix in (".zarr", ".h5"):
        target, path = tmp_path / "kept" / f"old{suffix}", tmp_path / f"out{suffix}"
        volume.export(target)
        before = contents(tmp_path / "kept")
        path.symlink_to(target)
        volume.export(path, overwrite=True)
        assert not path.is_symlink()
        assert contents(tmp_path / "kept") == before
    assert sorted(os.listdir(tmp_path)) == ["kept", "out.h5", "out.zarr"]


def test_long_names_of_exports(volume, tmp_path):
    name = "n" * 240 + ".h5"
    volume.export(tmp_path / name)
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("out.csv", {}, "'.csv'"),
        ("out", {}, "''"),
        ("out.h5", {"compression": "zstd"}, "'gzip'"),
        ("out.zarr", {"compression": "bogus"}, "bogus"),
        ("out.npy", {"compression": "gzip"}, "neither"),
        ("out.npy", {"chunk_size": 4}, "neither"),
    ],
)
def test_what_a_format_does_not_have_is_refused(volume, tmp_path, name, options, says):
    with pytest.raises(errors.ConfigurationError, match=says):
        volume.export(tmp_path / name, **options)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("inside", ["", "below"])
def test_the_store_itself_is_not_replaced(tmp_path, inside):
    store = tmp_path / "store.zarr"
    (store / inside).mkdir(parents=True)
    with dn.Connection(str(store / inside), backend="file") as con:
        con.create_dataset("b", data=1)
        with pytest.raises(errors.ConfigurationError, match="another place"):
            con.create_dataset("a", data=[1, 2]).export(store, overwrite=True)
        assert con["a"][...].tolist() == [1, 2]


def test_several_arrays_are_no_npy(con, volume, tmp_path):
    con.create_dataset("b", data=1)
    with pytest.raises(errors.ConfigurationError, match="one array"):
        con.export(tmp_path / "out.npy")
    con.export(tmp_path / "out.npy", select="b")
    with pytest.raises(KeyError, match="'c\\*'"):
        con.export(tmp_path / "out.h5", select=["b", "c*"])
    with pytest.raises(errors.ConfigurationError, match="no dataset"):
        con.export(tmp_path / "out.h5", select=[])


# -- under every engine, in bounded memory -------------------------------------------------


@pytest.mark.parametrize("suffix", [".h5", ".zarr", ".npy"])
@pytest.mark.parametrize("workers", ["threading", "loky"])
def test_engines_of_several_workers(tmp_path, suffix, workers):
    require("joblib")
    data = sample((30, 20), "f8")
    path = tmp_path / f"out{suffix}"
    told = []
    with dn.Connection(
        str(tmp_path),
        backend="hdf5",
        engine="joblib",
        engine_kw={"njobs": 2, "jlbackend": workers},
    ) as con:
        ds = con.create_dataset("a", data=data, chunk_size=(4, 3))
        ds.export(path, progress=lambda done, total: told.append((done, total)), memory_limit="1M")
        assert told == sorted(told)
        assert told[-1] == (ds.total_chunks, ds.total_chunks)
        with pytest.raises(errors.MemoryLimitError):
            ds.export(path, overwrite=True, memory_limit=100)
    found = np.load(path) if suffix == ".npy" else None
    if suffix == ".h5":
        with h5py.File(path) as file:
            found = file["a"][...]
    if suffix == ".zarr":
        with dn.Connection(str(path), backend="file") as written:
            found = written["a"][...]
    check(found, data)


def test_what_hdf5_cannot_represent_is_refused(con, tmp_path):
    con.create_dataset("text", data=np.array(["a\0b", "c"]))
    with pytest.raises(RefusedError, match="string"):
        con.export(tmp_path / "out.h5")
    assert not list(tmp_path.glob("*out.h5*"))


def test_what_an_hdf5_file_cannot_hold_is_named(con, tmp_path):
    con.create_dataset("many", data=np.ones((1,) * 33))
    con.create_dataset("large", (1 << 32, 2), "u1", chunk_size=(1 << 32, 1))
    with pytest.raises(errors.RefusedError, match="'many' has 33 axes"):
        con["many"].export(tmp_path / "a.h5")
    with pytest.raises(errors.ConfigurationError, match=r"'large' has chunks of 4\.0 GiB"):
        con["large"].export(tmp_path / "a.h5")
    assert os.listdir(tmp_path) == []
    con.create_dataset("empty", (0, 1 << 33), "u1", chunk_size=(1, 1 << 33))
    con["empty"].export(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["empty"].shape == (0, 1 << 33)


def test_strings_on_a_full_disk(con, tmp_path, monkeypatch):
    words = np.array(["word" * n for n in range(500)], np.dtypes.StringDType())
    ds, path = con.create_dataset("a", data=words, chunk_size=100), tmp_path / "a.h5"
    room = 1 << 20
    status = list(os.statvfs(tmp_path))
    status[:2], status[4] = (1, 1), 0  # f_bsize, f_frsize, f_bavail

    def statvfs(_):
        # What was written before is in the file by now.
        written = sum(part.stat().st_size for part in tmp_path.glob(".*.part"))
        status[4] = max(0, room - written)
        return os.statvfs_result(status)

    monkeypatch.setattr(os, "statvfs", statvfs)
    ds.export(path)
    with h5py.File(path) as file:
        assert file["a"].asstr()[:].tolist() == words.tolist()
    room = path.stat().st_size // 2
    with pytest.raises(errors.StorageError, match="No space"):
        ds.export(path, overwrite=True)
    assert os.listdir(tmp_path) == ["a.h5"]
    status[2] = 0  # f_blocks: the file system does not tell
    ds.export(path, overwrite=True)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_incomplete_is_refused(con, tmp_path, suffix):
    con.create_dataset("part", shape=(4,), incomplete=True)
    with pytest.raises(RefusedError, match="'part' is incomplete, and would look complete"):
        con.export(tmp_path / f"out{suffix}")
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.parametrize("suffix", [".h5", ".zarr"])
def test_what_cannot_be_read_is_named_or_left_out(tmp_path, suffix):
    (tmp_path / "store").mkdir()
    path = tmp_path / f"out{suffix}"
    with dn.Connection(str(tmp_path / "store"), backend="file") as con:
        for name in ("bad", "good"):
            con.create_dataset(f"entry/{name}", data=np.arange(8.0), chunk_size=4)
        con.create_dataset("part", shape=(4,), incomplete=True)
        (tmp_path / "store/entry/bad/c/1").write_bytes(b"damaged")
        with pytest.raises(errors.ChunkCorruptError, match="entry/bad"):
            con.export(path, select="entry")
        assert [found.name for found in tmp_path.iterdir()] == ["store"]
        with pytest.warns(errors.SkippedDatasetWarning) as warned:
            assert con.export(path, on_error="skip") == ["entry/good"]
        left_out = ["entry/bad", "part"]
        assert all(n in str(w.message) for n, w in zip(left_out, warned, strict=True))
        with pytest.raises(errors.ConfigurationError, match="on_error"):
            con.export(path, on_error="ignore", overwrite=True)
        with open_source(str(path)) as source:
            assert list(source) == ["entry/good"]


def netcdf(path):
    """Write as netCDF-4 does: a coordinate, a dimension without one, a variable along both."""
    with h5py.File(path, "w") as file:
        file.attrs["_NCProperties"] = np.bytes_("version=2,netcdf=4.9.2,hdf5=1.14.2")
        file["x"] = [1.0, 2.0, 3.0]
        file["x"].make_scale("x")
        file["n"] = np.zeros(2, ">f4")
        file["n"].make_scale("This is a netCDF dimension but not a netCDF variable.         2")
        file["group/v"] = np.arange(6, dtype="i2").reshape(3, 2)
        file["group/v"].attrs["units"] = "K"
        for number, name in enumerate("xn"):
            file[name].attrs["_Netcdf4Dimid"] = np.int32(number)
            file["group/v"].dims[number].attach_scale(file[name])
        file["labelled"] = np.zeros((3, 4))
        file["labelled"].dims[0].label = "along"
        file["labelled"].dims[1].label = "x"  # which is of another length


@pytest.mark.parametrize("backend", ["ram", "hdf5", "file"])
def test_dimension_scales_are_made_anew(tmp_path, backend):
    netcdf(tmp_path / "in.nc")
    (tmp_path / "store").mkdir()
    with dn.Connection(str(tmp_path / "store"), backend=backend) as con:
        con.ingest(tmp_path / "in.nc")
        assert con["group/v"].dims == ("x", "n")
        con.export(tmp_path / "out.h5")
        for name in list(con):
            del con[name]
    with h5py.File(tmp_path / "out.h5") as file:
        assert {name for name in ("x", "n", "group/v", "labelled") if file[name].is_scale} == {
            "x",
            "n",
        }
        assert [[s.name for s in dim.values()] for dim in file["group/v"].dims] == [["/x"], ["/n"]]
        assert [dim.label for dim in file["labelled"].dims] == ["along", "x"]
        assert file["n"].attrs["NAME"].startswith(b"This is a netCDF dimension but not a")
        assert "_Netcdf4Dimid" not in file["x"].attrs
        assert file["group/v"].attrs["units"] == "K"
        assert "_NCProperties" not in file.attrs
    with dn.Connection("scales", backend="ram") as con:
        con.ingest(tmp_path / "out.h5")
        assert con["group/v"].dims == ("x", "n")
        assert con["x"].dims == ("x",)
        assert con["labelled"].dims == ("along", "x")
        for name in list(con):
            del con[name]


def test_attributes_that_are_named_as_those_of_scales(tmp_path):
    attrs = {
        "CLASS": np.array(["a", "b"]),
        **dict.fromkeys(("DIMENSION_LABELS", "DIMENSION_LIST", "REFERENCE_LIST"), (1, 2)),
    }
    with dn.Connection("named", backend="ram") as con:
        con.create_dataset("a", data=np.zeros((2, 3))).attrs.update(attrs)
        con.export(tmp_path / "out.h5")
        con.del_dataset("a")
    with h5py.File(tmp_path / "out.h5") as file:
        assert list(file["a"].attrs) == ["CLASS"]
        assert list(file["a"].attrs["CLASS"]) == ["a", "b"]


@pytest.mark.parametrize("own", [{"CLASS": "IMAGE"}, {"CLASS": 2, "NAME": "x"}, {"NAME": 5}])
def test_a_coordinate_keeps_its_own_class_and_name(tmp_path, own):
    with dn.Connection("coordinate", backend="ram") as con:
        con.create_dataset("x", data=np.arange(3), dims=("x",)).attrs.update(own)
        con.export(tmp_path / "out.h5")
        con.del_dataset("x")
        con.ingest(tmp_path / "out.h5")
        assert con["x"].attrs == own
        assert con["x"].dims == ("x",)
        con.del_dataset("x")


@pytest.mark.parametrize("backend", ["ram", "hdf5", "file"])
def test_axes_have_names_on_every_backend(tmp_path, backend):
    with dn.Connection(str(tmp_path), backend=backend) as con:
        ds = con.create_dataset("a", data=np.zeros((2, 3)), dims=("y", None))
        assert ds.dims == con["a"].dims == ("y", None)
        assert ds.clone("b").dims == ("y", None)
        assert con.create_dataset("c", data=np.zeros(2)).dims is None
        with pytest.raises(dn.errors.ConfigurationError, match="dims names 2 axes"):
            con.create_dataset("d", data=np.zeros((2, 3)), dims=("y",))
        assert sorted(con) == ["a", "b", "c"]
        for name in list(con):
            del con[name]


def test_a_connection_in_memory_may_be_called_as_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with dn.Connection("scan.npy", backend="ram") as con:
        con.create_dataset("x", data=np.arange(3))
        con.export("scan.npy")
        con.export("scan.npy", overwrite=True)
    assert np.load("scan.npy").tolist() == [0, 1, 2]
