"""Datasets that are created together in folders: one wait for the disk, and whole or not there."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from faults import COUNTED
from support import HANG, require

import dosna as dn
from dosna import errors
from dosna.sources import ArrayDescription, Source

require("h5py")

BACKENDS = ["file", "hdf5"]

SMALL = {f"run/array{n}": np.arange(n, n + 20.0) for n in range(60)} | {
    "run/scalar": np.array(3, "f4"),
    "run/empty": np.zeros((0, 3)),
    "run/words": np.array(["one", "three"]),
    "run/inner/a": np.arange(3),
    "run/inner/b": np.arange(4),
    "other/deep/down/c": np.zeros((2, 3), "M8[s]"),
    "fields": np.array([(1, 2.5)], [("n", "i4"), ("x", "f8")]),
}
LARGE = {f"large{n}": np.arange(40_000.0) + n for n in range(8)}
CHUNKS = (10_000,)


class Arrays(Source):
    """Arrays in memory with chunks and attributes of groups."""

    def __init__(self, arrays, groups=(), fail=()):
        super().__init__("arrays")
        self.arrays, self.attrs, self.fail = arrays, dict(groups), fail
        self.state = "as they are"

    def names(self):
        return list(self.arrays)

    def groups(self):
        return self.attrs

    def fingerprint(self):
        return self.state

    def describe(self, name):
        array = self.arrays[name]
        chunks = CHUNKS if array.ndim == 1 and len(array) > CHUNKS[0] else None
        return ArrayDescription(name, array.shape, array.dtype, chunks=chunks, chunks_kept=True)

    def read(self, name, box):
        if name in self.fail:
            raise ValueError("no such luck")
        return self.arrays[name][box]


@pytest.fixture
def waits(monkeypatch):
    """Count the waits for the disk."""
    counts = Counter()

    class Library:
        def __init__(self, library):
            self._library = library

        def __getattr__(self, name):
            if name == "syncfs":
                counts["syncfs"] += 1
            return getattr(self._library, name)

    load = ctypes.CDLL
    monkeypatch.setattr(ctypes, "CDLL", lambda *args, **kw: Library(load(*args, **kw)))

    def counted(real, file):
        counts["fsync"] += 1
        return real(file)

    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, partial(counted, getattr(os, name)))
    return counts


@pytest.fixture(params=BACKENDS)
def con(request, tmp_path):
    with dn.Connection(str(tmp_path), backend=request.param, engine="cpu") as con:
        con.create_dataset("before", data=1)
        yield con


def check(con, arrays):
    for name, values in arrays.items():
        ds = con[name]
        assert not ds.incomplete
        np.testing.assert_array_equal(ds[...], values.astype(ds.dtype))
        assert ds.verify().good


def hidden(con):
    return [name for name in os.listdir(con.instance.path) if name.startswith(".replacing")]


def test_small_arrays_wait_once_for_the_disk(con, waits):
    groups = {"run": {"class": "entry"}, "run/inner": {"n": 1}, "": {"title": "all"}}
    waits.clear()
    report = con.ingest(Arrays(SMALL, groups))
    assert waits == {"syncfs": 1}
    assert report.made == list(SMALL)
    assert report.nbytes == sum(values.nbytes for values in SMALL.values())
    check(con, SMALL)
    assert con.get_group_attrs("run") == {"class": "entry"}
    assert con.get_group_attrs("run/inner") == {"n": 1}
    assert con.get_group_attrs() == {"title": "all"}
    assert hidden(con) == []
    waits.clear()
    assert con.ingest(Arrays(SMALL, groups)).present == report.made
    assert not waits


def test_a_tree_of_lists_waits_once(con, waits, tmp_path):
    ak, uproot = require("awkward"), require("uproot")
    path = tmp_path.parent / f"{tmp_path.name}.root"
    with uproot.recreate(path) as file:
        lists = ak.unflatten(np.arange(30.0), [2, 0, 1] * 10)
        events = {"run": np.arange(30), "Jet": ak.zip({"pt": lists, "eta": lists})}
        types = {"run": np.dtype("i8"), "Jet": ak.type(events["Jet"]).content}
        file.mktree("Events", types).extend(events)
    waits.clear()
    assert len(con.ingest(path).made) == 2 + 2 * 2
    assert waits == {"syncfs": 1}
    assert con["Events/Jet_pt/offsets"][-1] == 30


def test_large_arrays_wait_once_more_for_their_descriptions(con, waits):
    waits.clear()
    inside = {f"run/inner/{name}/content": values for name, values in LARGE.items()}
    con.ingest(Arrays({**SMALL, **LARGE, **inside}))
    assert waits == {"syncfs": 2}
    check(con, {**SMALL, **LARGE, **inside})
    assert len(con["large3"].written_chunks()) == 4


def test_one_small_array_waits_for_its_own_files_only(con, waits):
    waits.clear()
    con.ingest(Arrays({"a": np.arange(3)}))
    assert waits["syncfs"] == 0
    assert 3 <= waits["fsync"] <= 8
    check(con, {"a": np.arange(3)})


@pytest.mark.parametrize("ordered", [True, False])
def test_the_data_of_one_large_array_are_waited_for_if_ordered(tmp_path, waits, ordered):
    for backend in BACKENDS:
        (tmp_path / backend).mkdir()
        with dn.Connection(str(tmp_path / backend), backend=backend, ordered=ordered) as con:
            con.create_dataset("before", data=1)
            waits.clear()
            con.ingest(Arrays({"a": LARGE["large1"]}))
            assert waits["syncfs"] == ordered
            assert waits["fsync"] <= 8
            check(con, {"a": LARGE["large1"]})


def test_zarr_reads_what_was_made_together(tmp_path):
    zarr = require("zarr")
    with dn.Connection(str(tmp_path), backend="file") as con:
        con.ingest(Arrays({**SMALL, **LARGE}), shards=None)
    root = zarr.open_group(tmp_path, mode="r")
    np.testing.assert_array_equal(root["run/array7"][...], SMALL["run/array7"])
    np.testing.assert_array_equal(root["large2"][...], LARGE["large2"])
    assert sorted(root["run/inner"]) == ["a", "b"]


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_copies_of_metadata_that_zarr_made_are_removed(tmp_path):
    zarr = require("zarr")
    arrays = {name: SMALL[name] for name in ("run/array1", "run/inner/a")}

    def consolidate(done, total):
        if not asked:
            asked.append(zarr.consolidate_metadata(tmp_path))

    with dn.Connection(str(tmp_path), backend="file") as con:
        con.ingest(Arrays({"run/first": np.arange(3)}))
        zarr.consolidate_metadata(tmp_path)
        for progress in (None, consolidate):
            asked = []
            con.ingest(Arrays({**arrays, **LARGE}), overwrite=True, progress=progress)
            assert asked or progress is None
            found = zarr.open_group(tmp_path, mode="r")
            assert found.metadata.consolidated_metadata is None
            assert "array1" in found["run"]
            for name in [*arrays, *LARGE]:
                con.del_dataset(name)


@pytest.mark.parametrize("options", [{"compression": "gzip"}, {"checksum": True}])
def test_options_of_the_backend(con, options):
    arrays = {f"a{n}": np.arange(n + 20.0) for n in range(6)}
    con.ingest(Arrays(arrays), **options)
    check(con, arrays)


def test_small_arrays_in_shards(tmp_path):
    arrays = {f"a{n}": np.arange(30.0) + n for n in range(6)}
    with dn.Connection(str(tmp_path), backend="file") as con:
        con.ingest(Arrays(arrays), chunk_size=(40,), shards=(80,))
        check(con, arrays)
        assert con["a3"].shards == (80,)


def test_an_error_leaves_what_was_made_before(con):
    source = Arrays({**LARGE, "last": np.arange(50_000.0)}, fail=["large4"])
    with pytest.raises(errors.SourceError, match="no such luck"):
        con.ingest(source)
    assert not con["large3"].incomplete
    assert con["large4"].incomplete
    assert "large5" not in con
    assert hidden(con) == []
    report = con.ingest(source, on_error="skip")
    assert report.present == [f"large{n}" for n in range(4)]
    assert list(report.skipped) == ["large4"]
    check(con, {name: LARGE[name] for name in LARGE if name != "large4"})


def test_an_interrupt_leaves_what_was_made_before(con):
    def stop(done, total):
        if done > 0.5 * total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        con.ingest(Arrays({**SMALL, **LARGE}), progress=stop)
    check(con, {**SMALL, "large0": LARGE["large0"]})
    assert hidden(con) == []


def test_a_name_that_is_taken_meanwhile_is_in_the_report(con):
    def taken(done, total):
        for name in ("run/array7", "run/inner"):
            if name not in con:
                con.create_dataset(name, data=[1, 2])

    report = con.ingest(Arrays(SMALL), progress=taken, on_error="skip")
    assert set(report.skipped) == {"run/array7", "run/inner/a", "run/inner/b"}
    assert not set(report.skipped) & set(report.made)
    np.testing.assert_array_equal(con["run/array7"][...], [1, 2])
    check(con, {name: SMALL[name] for name in report.made})
    with pytest.raises(errors.DatasetExistsError, match="run/array7"):
        con.ingest(Arrays(SMALL))


def test_attributes_that_somebody_sets_meanwhile_are_kept(con):
    def change(done, total):
        if "large0" in con and con["large0"].written_chunks() and done == LARGE["large0"].nbytes:
            con["large0"].attrs["mine"] = 5

    con.ingest(Arrays(LARGE), progress=change)
    assert con["large0"].attrs["mine"] == 5
    check(con, LARGE)


def test_a_dataset_that_is_deleted_meanwhile_stays_deleted(con):
    def delete(done, total):
        if done == total and "large2" in con:
            con.del_dataset("large2")

    report = con.ingest(Arrays(LARGE), progress=delete, on_error="skip")
    assert list(report.skipped) == ["large2"]
    assert "large2" not in con
    check(con, {name: LARGE[name] for name in LARGE if name != "large2"})


def test_names_inside_one_another(con):
    arrays = {"a": np.arange(3), "a/b": np.arange(4), "c/d": np.arange(5), "c": np.arange(6)}
    report = con.ingest(Arrays(arrays), on_error="skip")
    assert report.made == ["a", "c/d"]
    assert set(report.skipped) == {"a/b", "c"}


def test_a_source_that_changes_makes_nothing_complete(con):
    source = Arrays({f"a{n}": np.arange(n + 20.0) for n in range(6)})

    def read(name, box):
        source.state = "changed"
        return source.arrays[name][box]

    source.read = read
    with pytest.raises(errors.SourceChangedError):
        con.ingest(source)
    assert all(con[name].incomplete for name in con if name != "before")


def test_a_dataset_that_is_due_is_completed_before_the_end(con, monkeypatch):
    from dosna.backends.folders import batch

    monkeypatch.setattr(batch, "_MOST_BYTES", 700_000)
    seen = set()

    def look(done, total):
        seen.update(name for name in LARGE if name in con and not con[name].incomplete)

    con.ingest(Arrays(LARGE), progress=look)
    assert {"large0", "large1", "large2", "large3"} <= seen
    check(con, LARGE)


def test_chunks_that_a_power_loss_left_empty_are_written_again(con):
    def stop(done, total):
        if done > 0.5 * total:
            raise KeyboardInterrupt

    source = Arrays({"a": np.arange(40_000.0)})
    with pytest.raises(KeyboardInterrupt):
        con.ingest(source, progress=stop)
    folder = Path(con.instance.path) / "a"
    files = [path for path in folder.rglob("*") if path.name in ("0", "chunk_0.h5")]
    assert len(files) == 1
    files[0].write_bytes(b"")
    assert con.ingest(source).resumed == ["a"]
    check(con, source.arrays)


KILLED = (
    COUNTED
    + """
import os, sys
sys.path.insert(0, sys.argv[2])
import dosna as dn
import dosna.io.files, dosna.backends.folders.batch, dosna.backends.hdf5.connection
import dosna.backends.zarr.connection
from test_batches import Arrays, SMALL, LARGE

place, _, backend = sys.argv[1:]
arrays = {**dict(list(SMALL.items())[-8:]), **dict(list(LARGE.items())[:2])}
last, ended = 0, False
while not ended:
    last += 1 + last // 12
    child = os.fork()
    if child == 0:
        for name in ("mkdir", "writev", "rename", "unlink", "open"):
            setattr(os, name, counted(getattr(os, name)))
        with dn.Connection(place, backend=backend, engine="cpu") as con:
            con.ingest(Arrays(arrays, {"run": {"n": 1}}))
        os._exit(0)
    ended = os.waitpid(child, 0)[1] == 0
    with dn.Connection(place, backend=backend, engine="cpu") as con:
        found = [name for name in con]
        for name in found:
            ds = con[name]
            values = arrays[name].astype(ds.dtype)
            if not ds.incomplete:
                assert ds.verify().good and (ds[...] == values).all(), (last, name)
        left = [n for n in os.listdir(place) if n.startswith((".replacing", ".creating"))]
        assert not left, (last, left)
        if last % 2:
            for name in found:
                con.del_dataset(name)
    if ended:
        break
with dn.Connection(place, backend=backend, engine="cpu") as con:
    con.ingest(Arrays(arrays, {"run": {"n": 1}}))
    assert not any(con[name].incomplete for name in arrays)
assert last > 40, last
"""
)


@pytest.mark.parametrize("backend", BACKENDS)
def test_killed_at_any_step(tmp_path, backend):
    """With a fork for each step, at which the child ends as by a kill."""
    command = [sys.executable, "-c", KILLED, str(tmp_path), os.path.dirname(__file__), backend]
    above = os.path.dirname(os.path.dirname(__file__))
    path = os.pathsep.join(filter(None, [above, os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG, env=environment)
    assert done.returncode == 0, done.stderr


# -- one dataset ---------------------------------------------------------------------------


def test_an_array_of_one_chunk_is_on_the_disk_before_it_has_its_name(con, monkeypatch):
    synced, placed = set(), []
    sync, rename = os.fsync, os.rename

    def noting(file):
        sync(file)
        synced.add(os.fstat(file).st_ino)

    def renaming(source, target, **options):
        if str(target).endswith("/deep/a"):
            paths = [Path(source), *Path(source).rglob("*")]
            placed.extend(path for path in paths if path.name != ".lock")
            assert [path for path in placed if path.stat().st_ino not in synced] == []
        rename(source, target, **options)

    monkeypatch.setattr(os, "fsync", noting)
    monkeypatch.setattr(os, "rename", renaming)
    con.create_dataset("deep/a", data=np.arange(6.0).reshape(2, 3), attrs={"unit": "K"})
    assert len(placed) >= 3
    check(con, {"deep/a": np.arange(6.0).reshape(2, 3)})
    assert dict(con["deep/a"].attrs) == {"unit": "K"}
    with pytest.raises(errors.DatasetExistsError):
        con.create_dataset("deep/a", data=np.arange(6.0))
    with pytest.raises(errors.DatasetNameError):
        con.create_dataset("deep/a/b", data=np.arange(6.0))
    assert [name for name in os.listdir(con.instance.path) if name.startswith(".creating")] == []


def test_a_long_folder_is_not_listed_for_each_dataset(con, monkeypatch):
    folder, listed, real = con.instance.path, [], os.listdir
    for number in range(300):
        os.mkdir(f"{folder}/other{number}")
    con.create_dataset("first", data=[1])

    def listing(path="."):
        listed.append(path)
        return real(path)

    monkeypatch.setattr(os, "listdir", listing)
    for number in range(5):
        con.create_dataset(f"more{number}", data=[1])
    assert folder not in listed
    os.mkdir(f"{folder}/.creating-0123")  # by a process that was killed then
    con.create_dataset("last", data=[1])
    assert not os.path.exists(f"{folder}/.creating-0123")
