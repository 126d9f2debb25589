"""Ingest under every engine, in bounded memory, and on after it was killed."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import numpy as np
import pytest
from support import HANG, mpiexec, require

import dosna as dn
from dosna.errors import IncompleteDatasetWarning, SourceChangedError

h5py = require("h5py")

SHAPE = (40, 64, 48)
VOLUME = np.random.default_rng(0).integers(0, 9999, SHAPE, "u2")
CHUNKS = (1, 64, 48)


@pytest.fixture
def path(tmp_path):
    path = str(tmp_path / "scan.h5")
    with h5py.File(path, "w") as file:
        file.create_dataset("entry/data", data=VOLUME, chunks=CHUNKS, compression="gzip")
        file.create_dataset("entry/flat", data=VOLUME)
        file["entry/name"] = "a text"
    (tmp_path / "store").mkdir()
    return path


KILLED = """
import os, signal, sys
import dosna as dn

path, backend, engine, share = sys.argv[1:]
engine, _, workers = engine.partition("-")
engine_kw = {"jlbackend": workers, "njobs": 2} if workers else None

def tell(done, total):
    if done > float(share) * total:
        os.kill(os.getpid(), signal.SIGKILL)

with dn.Connection("store", backend=backend, engine=engine, engine_kw=engine_kw) as con:
    con.ingest(path, select="entry/data", chunk_size=(1, 64, 48), progress=tell)
"""


def run(script, *arguments, cwd, ranks=None):
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    if ranks:
        command = [*mpiexec(ranks), *command]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=HANG)


@pytest.mark.parametrize("backend", ["hdf5", "file"])
@pytest.mark.parametrize("engine", ["cpu", "joblib"])
def test_a_killed_ingest_goes_on(path, tmp_path, monkeypatch, backend, engine):
    monkeypatch.chdir(tmp_path)
    if engine == "joblib":
        require("joblib")
    for share in (0.2, 0.6):
        assert run(KILLED, path, backend, engine, share, cwd=tmp_path).returncode == -9
    with dn.Connection("store", backend=backend, engine=engine) as con:
        ds = con["entry/data"]
        written = set(ds.instance.finished_objects())
        # Other threads may have written all before the one that tells was killed.
        assert 0.5 * SHAPE[0] < len(written) <= SHAPE[0] - (engine == "cpu")
        assert ds.incomplete
        with pytest.warns(IncompleteDatasetWarning, match=r"'entry/data' is incomplete.*scan\.h5"):
            loaded = ds[...]
        for plane, _, _ in written:
            np.testing.assert_array_equal(loaded[plane], VOLUME[plane])
        before = {idx: ds.instance.key(idx) for idx in written} if backend == "file" else {}
        stamps = {k: (tmp_path / "store/entry/data" / k).stat().st_ino for k in before.values()}
        told = []
        report = con.ingest(
            path,
            select="entry/data",
            chunk_size=CHUNKS,
            progress=lambda done, total: told.append((done, total)),
        )
        assert report.resumed == ["entry/data"]
        assert told[-1] == (VOLUME.nbytes, VOLUME.nbytes)
        for key, inode in stamps.items():  # what was there is not written again
            assert (tmp_path / "store/entry/data" / key).stat().st_ino == inode
        ds = con["entry/data"]
        assert not ds.incomplete
        np.testing.assert_array_equal(ds[...], VOLUME)
        assert ds.verify().good


@pytest.mark.parametrize(
    ("engine", "ranks"), [("joblib-loky", None), ("joblib-multiprocessing", None), ("mpi", 2)]
)
def test_an_ingest_of_several_processes_goes_on_after_a_kill(path, tmp_path, engine, ranks):
    require("joblib" if ranks is None else "mpi4py")
    done = run(KILLED, path, "hdf5", engine, 0.3, cwd=tmp_path, ranks=ranks)
    assert done.returncode != 0
    with dn.Connection(str(tmp_path / "store"), backend="hdf5") as con:
        assert con["entry/data"].incomplete
    done = run(KILLED, path, "hdf5", engine, 2, cwd=tmp_path, ranks=ranks)
    assert done.returncode == 0, done.stderr
    with dn.Connection(str(tmp_path / "store"), backend="hdf5") as con:
        assert not con["entry/data"].incomplete
        np.testing.assert_array_equal(con["entry/data"][...], VOLUME)
        assert con["entry/data"].verify().good


def test_a_killed_ingest_does_not_go_on_with_another_file(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(KILLED, path, "file", "cpu", 0.5, cwd=tmp_path).returncode == -9
    with h5py.File(path, "a") as file:
        file["entry/data"][0] = 1
    with dn.Connection("store", backend="file") as con:
        with pytest.raises(SourceChangedError, match="was begun from"):
            con.ingest(path, select="entry/data")
        con.ingest(path, select="entry/data", overwrite=True)
        assert (con["entry/data"][0] == 1).all()


@pytest.mark.fault
def test_killed_again_and_again_at_any_moment(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = textwrap.dedent(KILLED).replace('"store"', '"store", durable=True')
    script = script.replace("    con.ingest", "    print('begin', flush=True)\n    con.ingest")
    command = [sys.executable, "-c", script, path, "hdf5", "cpu", "2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    for attempt in range(30):
        with subprocess.Popen(command, cwd=tmp_path, **pipes) as process:
            assert process.stdout.readline() == b"begin\n"
            try:
                process.wait(0.01 * 1.2**attempt if attempt < 29 else HANG)
            except subprocess.TimeoutExpired:
                process.kill()
            else:
                assert process.stderr.read() == b""
                break
    assert attempt > 3
    with dn.Connection("store", backend="hdf5") as con:
        assert not con["entry/data"].incomplete
        np.testing.assert_array_equal(con["entry/data"][...], VOLUME)
        assert con["entry/data"].verify().good


@pytest.mark.parametrize("jlbackend", ["threading", "loky"])
def test_joblib(path, tmp_path, monkeypatch, jlbackend):
    require("joblib")
    monkeypatch.chdir(tmp_path)
    options = {"njobs": 2, "jlbackend": jlbackend}
    with dn.Connection("store", backend="file", engine="joblib", engine_kw=options) as con:
        told = []
        report = con.ingest(
            path, chunk_size="64 KiB", progress=lambda done, total: told.append((done, total))
        )
        assert report.made == ["entry/data", "entry/flat", "entry/name"]
        assert told[-1] == (report.nbytes, report.nbytes)
        for name in report.made[:2]:
            np.testing.assert_array_equal(con[name][...], VOLUME)
        assert con["entry/name"][()] == "a text"


RANKS = """
import sys
import numpy as np, h5py
import dosna as dn
from dosna.engines.mpi import scripts as mpi

path, = sys.argv[1:]
with dn.Connection("store", backend="hdf5", engine="mpi") as con:
    told = []
    report = con.ingest(path, chunk_size=(8, 32, 48), progress=lambda *at: told.append(at))
    assert report.made == ["entry/data", "entry/flat", "entry/name"], report
    assert bool(told) == mpi.mpi_is_root()
    with h5py.File(path) as file:
        for name in report.made[:2]:
            assert (con[name][...] == file[name][...]).all()
    assert con.ingest(path, chunk_size=(8, 32, 48)).present == report.made
    try:
        con.ingest(path + "x.h5")
    except FileNotFoundError as error:
        assert "there is no file" in str(error)
    else:
        raise AssertionError
    try:
        con.ingest(path, select="nothing")
    except dn.errors.SourceNotFoundError:
        mpi.pprint("refused")
"""


def test_ranks(path, tmp_path):
    done = run(RANKS, path, cwd=tmp_path, ranks=2)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split("\n")) == ["", "|0) refused", "|1) refused"]


BOUNDED = """
import json, sys
import numpy as np
import dosna as dn

path, engine, chunk_size = sys.argv[1:]

def kib(what):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(what))

with dn.Connection("store", backend="file", engine=engine) as con:
    con.ingest(path, "small", select="small")
    idle = kib("VmRSS")
    with open("/proc/self/clear_refs", "w") as reset:
        reset.write("5")
    con.ingest(path, "big", select="big", chunk_size=json.loads(chunk_size), memory_limit="8M")
    print((kib("VmHWM") - idle) / 1024)
"""


@pytest.mark.parametrize(
    ("kind", "engine"),
    [("flat", "cpu"), ("flat", "joblib"), ("gzip", "cpu"), ("gzip", "joblib"), ("npz", "cpu")],
)
def test_memory_stays_within_the_limit(tmp_path, engine, kind):
    if engine == "joblib":
        require("joblib")
    (tmp_path / "store").mkdir()
    shape = (80, 512, 512)  # 10 times the limit
    big = np.broadcast_to(np.arange(512, dtype="f4"), shape)
    path = str(tmp_path / ("a.npz" if kind == "npz" else "a.h5"))
    if kind == "npz":
        np.savez_compressed(path, small=big[:2], big=big)
    else:
        options = {"compression": "gzip", "chunks": (1, 512, 512)} if kind == "gzip" else {}
        with h5py.File(path, "w") as file:
            for name, array in {"small": big[:2], "big": big}.items():
                made = file.create_dataset(name, array.shape, "f4", **options)
                for plane in range(len(array)):
                    made[plane] = array[plane]
    done = run(BOUNDED, path, engine, "[32, 32, 64]", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 8
