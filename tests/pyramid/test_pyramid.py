"""Pyramids beside a model in NumPy, and what is there after one that failed."""

from __future__ import annotations

import json
import math
import secrets
import signal
import subprocess
import sys
import tracemalloc

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from support import HANG, require

import dosna as dn
from dosna import errors
from dosna.backends.ram.dataset import RamDataset
from dosna.cli import main
from dosna.pyramid import levels_of
from dosna.pyramid.shrinking import Spans, shrink

VOLUME = np.random.default_rng(0).integers(0, 250, (21, 18, 13), "u1")


def connect(engine="cpu", **options):
    return dn.Connection(secrets.token_hex(8), backend="ram", engine=engine, **options)


@pytest.fixture
def con():
    with connect() as connection:
        yield connection


def cells(shape, cell):
    """Yield the index of each cell of an array, and its place."""
    for idx in np.ndindex(*(-(-n // c) for n, c in zip(shape, cell, strict=True))):
        yield idx, tuple(slice(i * c, i * c + c) for i, c in zip(idx, cell, strict=True))


def modelled(data, cell, method):
    """Return the values of cells of an array, one after the other."""
    out = np.empty([-(-n // c) for n, c in zip(data.shape, cell, strict=True)], data.dtype)
    for idx, place in cells(data.shape, cell):
        part = data[place]
        if method == "stride":
            out[idx] = part.flat[0]
        elif method == "mode":
            values, counts = np.unique(part, return_counts=True)
            out[idx] = values[counts.argmax()]
        elif data.dtype.kind in "iu":
            # Python divides exactly, and rounds ties to even.
            total = sum(map(int, part.flat))
            down, rest = divmod(total, part.size)
            out[idx] = down + (2 * rest > part.size or (2 * rest == part.size and down % 2))
        else:
            out[idx] = part.mean()
    return out


@st.composite
def arrays(draw):
    ndim = draw(st.integers(2, 3))
    shape = draw(st.tuples(*[st.integers(1, 11)] * ndim))
    dtype = draw(st.sampled_from(["u1", "i1", "<i2", ">i4", "u4", "i8", "u8", "f4", "f8"]))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    if np.dtype(dtype).kind == "f":
        return random.normal(size=shape).astype(dtype)
    few = draw(st.booleans())
    info = np.iinfo(dtype)
    most = info.max if not few else info.min + 3
    return random.integers(info.min, most, shape, dtype.strip("<>"), True).astype(dtype)


@given(arrays(), st.data())
@settings(max_examples=60)
def test_levels_equal_a_model(data, draw):
    method = draw.draw(st.sampled_from(["mean", "mode", "stride"]))
    chunks = draw.draw(st.tuples(*[st.integers(1, 5)] * data.ndim))
    factors = draw.draw(st.tuples(*[st.integers(1, 3)] * data.ndim).filter(lambda f: max(f) > 1))
    with connect() as con:
        ds = con.create_dataset("v", data=data, chunk_size=chunks)
        made = ds.pyramid(3, method=method, factor=factors)
        assert [level.name for level in made] == [f"v_levels/{n}" for n in (1, 2, 3)]
        cell, before = (1,) * data.ndim, data
        for level in made:
            step = tuple(f if n > 1 else 1 for f, n in zip(factors, before.shape, strict=True))
            cell = tuple(c * s for c, s in zip(cell, step, strict=True))
            found = level[...]
            assert found.dtype == data.dtype
            if method == "mode":
                np.testing.assert_array_equal(found, modelled(before, step, method))
            elif method == "stride" or level is made[0]:
                np.testing.assert_allclose(found, modelled(data, cell, method), 1e-5, 1e-6)
            elif data.dtype.kind == "f":
                # All elements weigh the same, however the extents divide.
                np.testing.assert_allclose(found, modelled(data, cell, method), 1e-4, 1e-5)
            elif data.dtype.itemsize < 8:
                exact = modelled(data.astype("f8"), cell, method)
                assert np.abs(found - exact).max() <= len(made) / 2 + 1e-3
            before = found


@given(arrays(), st.data())
@settings(max_examples=60)
def test_a_weighted_mean_is_exact(data, draw):
    data = data.astype(draw.draw(st.sampled_from(["u1", "i2", "i4", "i8", "u8"])))
    factors = draw.draw(st.tuples(*[st.integers(1, 3)] * data.ndim))
    spans = [
        Spans(each, draw.draw(st.integers(1, each)))
        for each in draw.draw(st.tuples(*[st.integers(1, 5)] * data.ndim))
    ]
    found = shrink(data, factors, "mean", spans, [True] * data.ndim)
    weights = [[s.each] * (n - 1) + [s.last] for n, s in zip(data.shape, spans, strict=True)]
    for idx, place in cells(data.shape, factors):
        total = weight = 0
        for at in np.ndindex(data[place].shape):
            full = [p.start + i for p, i in zip(place, at, strict=True)]
            one = math.prod(w[i] for w, i in zip(weights, full, strict=True))
            total, weight = total + one * int(data[tuple(full)]), weight + one
        down, rest = divmod(total, weight)
        assert found[idx] == down + (2 * rest > weight or (2 * rest == weight and down % 2))


def test_the_default_levels(con):
    ds = con.create_dataset("v", data=np.zeros((3, 300, 65), "f4"), chunk_size=(3, 64, 64))
    assert [level.shape for level in ds.pyramid()] == [(3, 150, 33), (3, 75, 33), (3, 38, 33)]
    assert con.create_dataset("w", data=np.zeros((64, 3), "f4")).pyramid() == []
    assert levels_of(con, "w").names == ["w"]
    empty = con.create_dataset("e", shape=(0, 5), dtype="i4")
    assert [level.shape for level in empty.pyramid(1)] == [(0, 3)]


def test_nan_bool_and_complex(con):
    data = np.array([[1, np.nan, np.nan, np.nan]] * 2)
    ds = con.create_dataset("nan", data=data)
    np.testing.assert_array_equal(ds.pyramid(1)[0][...], [[np.nan, np.nan]])
    ds.pyramid(1, method="mode", overwrite=True)
    np.testing.assert_array_equal(con["nan_levels/1"][...], [[1, np.nan]])
    flags = con.create_dataset("flags", data=[[True, True, False], [False, True, False]])
    assert flags.pyramid(1, method="mode")[0][...].tolist() == [[True, False]]
    waves = con.create_dataset("waves", data=np.array([[1j, 3], [1, 1j]]))
    assert waves.pyramid(1)[0][0, 0] == 1 + 0.5j


@pytest.mark.parametrize(
    ("backend", "options"),
    [
        ("file", {"compression": "zstd", "shards": (16, 16, 16)}),
        ("hdf5", {"compression": "gzip"}),
    ],
)
@pytest.mark.parametrize(
    ("engine", "engine_kw"),
    [
        ("joblib", {"njobs": 2}),
        pytest.param("dask", {}, marks=pytest.mark.slow),
    ],
)
def test_engines_and_backends(tmp_path, backend, options, engine, engine_kw):
    require("h5py")
    if engine == "dask":
        require("distributed")
    with dn.Connection(str(tmp_path), backend=backend, engine=engine, engine_kw=engine_kw) as con:
        ds = con.create_dataset("a/v", data=VOLUME, chunk_size=(8, 4, 8), **options)
        made = ds.pyramid(2)
        np.testing.assert_array_equal(made[0][...], modelled(VOLUME, (2, 2, 2), "mean"))
        assert made[0].instance.create_options.get("compression")
        assert not any(level.incomplete for level in made)
        if backend == "file":
            assert (made[0].shards, made[1].shards) == ((16, 12, 7), (6, 8, 4))


def test_the_description(tmp_path):
    with dn.Connection(str(tmp_path), backend="file", engine="cpu") as con:
        con.set_group_attrs("a", {"title": "scan", "ome": {"version": "0.5", "more": 1}})
        ds = con.create_dataset("a/v", data=VOLUME, chunk_size=(8, 8, 8), dims=("z", "y", "x"))
        ds.pyramid(2, scale=(3.0, 0.5, 0.5), unit="micrometer")
        flat = con.create_dataset("a/w", data=VOLUME[0])
        flat.pyramid(1, method="stride")
        attrs = con.get_group_attrs("a")
        assert (attrs["title"], attrs["ome"]["more"]) == ("scan", 1)
        assert [one["name"] for one in attrs["ome"]["multiscales"]] == ["v", "w"]
        first, second = (levels_of(con, name) for name in ("a/v", "a/w"))
        assert (first.names, second.index) == (["a/v", "a/v_levels/1", "a/v_levels/2"], 1)
        assert con[first.names[2]].dims == ("z", "y", "x")
        scales = [[s["type"], *s.values()][2] for s in _steps(first, 2)]
        # The middle of the first cell of 4 is between the elements 1 and 2.
        assert scales == [[12.0, 2.0, 2.0], [4.5, 0.75, 0.75]]
        assert _steps(second, 1) == [{"type": "scale", "scale": [2.0, 2.0]}]
        # A place that a level has is that of the elements that it was made of.
        z = np.arange(VOLUME.shape[0])
        places = [z[n : n + 4].mean() * 3 for n in range(0, 20, 4)]
        np.testing.assert_allclose(12.0 * np.arange(5) + 4.5, places)


def _steps(levels, level):
    return levels.entry["datasets"][level]["coordinateTransformations"]


@pytest.mark.parametrize(
    ("shape", "dims"), [((40, 30), None), ((9, 40, 30), None), ((2, 3, 9, 9, 9), tuple("tczyx"))]
)
def test_other_programs_open_it(tmp_path, shape, dims):
    zarr, models = require("zarr"), require("ome_zarr_models")
    names = dims or tuple("zyx"[-len(shape) :])
    with dn.Connection(str(tmp_path), backend="file", engine="cpu") as con:
        data = np.random.default_rng(1).random(shape, "f4")
        ds = con.create_dataset("a/v", data=data, chunk_size=(8,) * len(shape), dims=names)
        ds.pyramid(2)
        group = zarr.open_group(str(tmp_path / "a"), mode="r")
        image = models.open_ome_zarr(group)
        assert type(image).__name__ == "Image"
        found = image.attributes.ome.multiscales[0]
        assert tuple(axis.name for axis in found.axes) == names
        for level in found.datasets:
            np.testing.assert_array_equal(group[level.path][...], con[f"a/{level.path}"][...])


def test_refused(con):
    line = con.create_dataset("line", data=np.arange(9))
    with pytest.raises(errors.ConfigurationError, match="axes"):
        line.pyramid()
    with pytest.raises(TypeError, match="numbers"):
        con.create_dataset("text", data=np.array([["a", "b"]])).pyramid()
    with pytest.raises(TypeError, match="bool"):
        con.create_dataset("flags", data=np.ones((3, 3), bool)).pyramid()
    ds = con.create_dataset("v", data=VOLUME)
    for wrong in (
        {"method": "median"},
        {"factor": 1},
        {"factor": (2, 2)},
        {"factor": 0},
        {"factor": 1 << 70},
        {"factor": 2.0},
        {"levels": -1},
        {"levels": 65},
        {"levels": 1.5},
        {"levels": "2"},
        {"scale": (1, 0, 1)},
        {"scale": 10**400},
        {"scale": ("1 nm", 1, 1)},
        {"axes": "tcx"},
        {"axes": "zz"},
        {"axes": (1, 2, 3)},
        {"axes": ["y", "x", "t"]},
    ):
        with pytest.raises(errors.ConfigurationError):
            ds.pyramid(**{"levels": 1, **wrong})
    with pytest.raises(errors.MemoryLimitError):
        ds.pyramid(1, memory_limit=100)
    assert [*con] == ["flags", "line", "text", "v"]
    con.create_dataset("v_levels/1", data=VOLUME)
    with pytest.raises(errors.DatasetExistsError, match="v_levels/1"):
        ds.pyramid(1, overwrite=True)


def test_made_again(con):
    ds = con.create_dataset("v", data=VOLUME)
    ds.pyramid(np.int64(2), factor=np.int32(2), scale=np.float32(0.5))
    with pytest.raises(errors.DatasetExistsError, match="overwrite"):
        ds.pyramid(2)
    ds[...] = 7
    ds.pyramid(1, overwrite=True)
    assert [*con] == ["v", "v_levels/1"]
    assert (con["v_levels/1"][...] == 7).all()
    assert ds.pyramid(0, overwrite=True) == []
    assert [*con] == ["v"]


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()])
def test_a_pyramid_that_fails_leaves_nothing(con, monkeypatch, error):
    ds = con.create_dataset("v", data=VOLUME, chunk_size=(5, 5, 5))
    write, calls = RamDataset.write_many, []

    def fail(self, *arguments):
        calls.append(self.name)
        if len(calls) == 13:
            raise error
        return write(self, *arguments)

    monkeypatch.setattr(RamDataset, "write_many", fail)
    with pytest.raises(type(error)):
        ds.pyramid(3)
    assert [*con] == ["v"]
    assert con.get_group_attrs("") == {}
    assert calls[-1] == "v_levels/2"
    monkeypatch.undo()
    assert len(ds.pyramid(3)) == 3


@pytest.mark.parametrize("error", [errors.OutcomeUnknown("lost"), KeyboardInterrupt()])
def test_a_description_that_is_written_though_that_fails_is_removed(con, monkeypatch, error):
    ds = con.create_dataset("v", data=VOLUME, chunk_size=(5, 5, 5))
    describe = con.instance.change_group_attrs

    def fail(name, change):
        describe(name, change)
        if con.instance.group_attrs(name):
            raise error

    monkeypatch.setattr(con.instance, "change_group_attrs", fail)
    with pytest.raises(type(error)):
        ds.pyramid(2)
    assert [*con] == ["v"]
    assert con.get_group_attrs("") == {}
    monkeypatch.undo()
    assert len(ds.pyramid(2)) == 2


def test_two_descriptions_of_a_group_at_once(con, monkeypatch):
    one, two = (
        con.create_dataset(name, data=VOLUME, chunk_size=(8,) * 3) for name in ("g/a", "g/b")
    )
    read = type(con).get_group_attrs

    def read_before_the_other(self, group=""):
        found = read(self, group)
        if "g/a_levels/1" in con and not con["g/a_levels/1"].incomplete:
            monkeypatch.undo()
            two.pyramid(levels=1)
        return found

    monkeypatch.setattr(type(con), "get_group_attrs", read_before_the_other)
    one.pyramid(levels=1)
    assert levels_of(con, "g/a").names == ["g/a", "g/a_levels/1"]
    assert levels_of(con, "g/b").names == ["g/b", "g/b_levels/1"]


KILLED = """
import sys
import numpy as np
import dosna as dn

with dn.Connection(sys.argv[1], backend="file", engine="cpu") as con:
    ds = con.create_dataset("v", data=np.ones((32, 32, 32)), chunk_size=(4, 4, 4))

    def stop(done, total):
        if done > 66:
            print("in the second level", flush=True)
            sys.stdin.read()

    ds.pyramid(3, progress=stop)
"""


@pytest.mark.slow
@pytest.mark.slow
def test_a_process_that_is_killed(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait(HANG)
    with dn.Connection(str(tmp_path), backend="file", engine="cpu") as con:
        assert con.get_group_attrs("") == {}
        assert all(con[name].incomplete for name in con.names_in("v_levels"))
        assert len(con["v"].pyramid(1)) == 1
        assert [*con] == ["v", "v_levels/1"]
        assert not con["v_levels/1"].incomplete


def test_memory_is_bounded(tmp_path):
    with dn.Connection(str(tmp_path), backend="file", engine="cpu") as con:
        shape = (256, 256, 64)
        ds = con.create_dataset("v", shape, "u1", chunk_size=(32, 32, 32), fillvalue=3)
        ds[:32] = 1
        tracemalloc.start()
        try:
            ds.pyramid(2, memory_limit="2 MiB")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 2 << 20 < math.prod(shape)


def test_progress(con):
    seen = []
    ds = con.create_dataset("v", data=VOLUME, chunk_size=(8, 8, 8))
    ds.pyramid(2, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (5, 5)
    assert seen == sorted(seen)


def test_the_command(tmp_path, capfd):
    with dn.Connection(str(tmp_path), backend="file", engine="cpu") as con:
        con.create_dataset("a/v", data=VOLUME, chunk_size=(8, 8, 8))
    url = f"file:{tmp_path}//a/v"
    common = ["--engine", "cpu", "--levels", "1"]
    assert main(["pyramid", url, *common, "--method", "mode", "--factor", "1,2,2"]) == 0
    assert capfd.readouterr().out == "a/v_levels/1: 21 x 9 x 7\na/v: 1 level\n"
    assert main(["pyramid", url, *common]) == 1
    assert "overwrite" in capfd.readouterr().err
    more = ["--overwrite", "--json", "--scale", "2,1,1", "--unit", "meter", "--axes", "z,y,x"]
    assert main(["pyramid", url, *common, *more]) == 0
    assert json.loads(capfd.readouterr().out) == {"a/v_levels/1": [11, 9, 7]}
    assert main(["pyramid", f"file:{tmp_path}//a", *common]) == 1
    assert main(["pyramid", url, *common, "--factor", "x"]) == 2
