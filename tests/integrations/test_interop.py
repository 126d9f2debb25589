"""Dask and xarray over datasets, and what NumPy's functions make of them."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import require

import dosna as dn

da = require("dask.array")
xr = require("xarray")
require("numcodecs")

from dosna.array.connection import EngineConnection  # noqa: E402
from dosna.integrations.xarray import DosnaEntrypoint  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
SHAPE, CHUNKS = (20, 30, 25), (8, 8, 8)
VOLUME = np.random.default_rng(0).random(SHAPE)


@pytest.fixture(params=["ram", "hdf5", "file"])
def con(request, tmp_path):
    if request.param == "hdf5":
        require("h5py")
    name = "interop-tests" if request.param == "ram" else str(tmp_path)
    with dn.Connection(name, backend=request.param) as con:
        yield con
        for name in list(con):
            con.del_dataset(name)


@pytest.fixture
def ds(con):
    return con.create_dataset("entry/tomo", data=VOLUME, chunk_size=CHUNKS)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "scans").mkdir()
    with dn.Connection(str(tmp_path / "scans"), backend="file") as con:
        ds = con.create_dataset("tomo", data=VOLUME, chunk_size=CHUNKS, dims=("z", "y", "x"))
        ds.attrs["unit"] = "counts"
        con.create_dataset("z", data=np.arange(20) * 0.5, dims=("z",))
        con.create_dataset("flat", data=VOLUME[0], chunk_size=(8, 8))
        con.create_dataset("entry/data", data=VOLUME[:, 0], chunk_size=(8, 8))
        con.create_dataset("entry/deep/counts", data=[1, 2, 3])
        con.set_group_attrs("entry", {"NX_class": "NXentry"})
    return tmp_path / "scans"


# -- NumPy ---------------------------------------------------------------------------------


def test_functions_of_numpy(ds):
    for func in (np.sum, np.mean, np.min, np.max, np.std, np.median):
        assert np.isclose(func(ds), func(VOLUME))
    assert (np.ndim(ds), np.shape(ds), np.size(ds)) == (3, SHAPE, VOLUME.size)
    assert np.array_equal(np.sqrt(ds), np.sqrt(VOLUME))
    assert np.array_equal(np.stack([ds, ds]), np.stack([VOLUME, VOLUME]))
    assert np.array(ds, dtype="f4").dtype == np.float32
    assert np.allclose(np.mean(ds, axis=0), np.mean(VOLUME, axis=0))
    assert np.array_equal(np.max(ds, axis=(0, -1)), np.max(VOLUME, axis=(0, -1)))
    with pytest.raises(TypeError, match="dtype"):
        np.sum(ds, dtype="f8")
    with pytest.raises(ValueError, match="copy"):
        np.asarray(ds, copy=False)


# -- Dask ----------------------------------------------------------------------------------


def test_dask_reads_by_chunks(ds):
    with_dask = da.from_array(ds, chunks=ds.chunks)
    assert with_dask.chunksize == CHUNKS
    assert np.array_equal(with_dask.compute(), VOLUME)
    assert np.array_equal(with_dask[3, ::2, 4:].compute(), VOLUME[3, ::2, 4:])
    assert np.isclose(da.from_array(ds).std().compute(), VOLUME.std())


def test_dask_chooses_multiples_of_the_chunks(con):
    ds = con.create_dataset("a", shape=(1024, 1024), dtype="f8", chunk_size=(32, 64))
    with_dask = da.from_array(ds, chunks="1 MiB")
    assert (with_dask.chunksize[0] % 32, with_dask.chunksize[1] % 64) == (0, 0)


@pytest.mark.parametrize("chunks", [CHUNKS, (7, 13, 25)])
def test_dask_stores(con, chunks):
    target = con.create_dataset("out", shape=SHAPE, dtype="f8", chunk_size=CHUNKS)
    array = da.from_array(VOLUME, chunks=chunks) * 2
    da.store(array, target, lock=False)
    assert np.array_equal(target, VOLUME * 2)
    (array + 1).store(target, regions=None)
    assert np.array_equal(target, VOLUME * 2 + 1)


def test_dask_stores_into_a_region(con):
    target = con.create_dataset("out", shape=SHAPE, dtype="f8", chunk_size=CHUNKS)
    region = (slice(3, 13), slice(None), slice(1, 20))
    da.store(da.ones((10, 30, 19), chunks=6), target, regions=region, lock=False)
    expected = np.zeros(SHAPE)
    expected[region] = 1
    assert np.array_equal(target, expected)


def test_dask_does_not_take_one_state_of_a_dataset_for_another(ds):
    before = da.from_array(ds)
    ds[0] = 0
    assert da.from_array(ds).name != before.name


def test_datasets_travel_to_workers_of_dask(tmp_path):
    distributed = require("dask.distributed")
    require("h5py")
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            local_directory=str(tmp_path / "dask"),
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        for backend in ("hdf5", "file"):
            (tmp_path / backend).mkdir()
            with dn.Connection(str(tmp_path / backend), backend=backend) as con:
                check_workers(client, con)


def check_workers(client, con):
    ds = con.create_dataset("a", data=VOLUME, chunk_size=CHUNKS)
    array = da.from_array(ds, chunks=CHUNKS)
    assert np.isclose(array.sum().compute(), VOLUME.sum())
    out = con.create_dataset("b", shape=SHAPE, dtype="f8", chunk_size=(7, 7, 7))
    da.store(array * 2, out, lock=False)
    assert np.array_equal(out, VOLUME * 2)
    assert client.submit(lambda d: float(d[3, 4, 5]), ds).result() == VOLUME[3, 4, 5]
    opened = xr.open_dataset(con, engine=DosnaEntrypoint, chunks={})
    assert np.isclose(float(opened["a"].mean().compute()), VOLUME.mean())


def test_datasets_in_memory_do_not_travel():
    with dn.Connection("interop-tests", backend="ram") as con:
        ds = con.create_dataset("a", data=VOLUME)
        with pytest.raises(TypeError, match="memory"):
            pickle.dumps(ds)
        con.del_dataset("a")


# -- xarray --------------------------------------------------------------------------------


def test_xarray_opens_a_connection(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for url in (f"file:{folder}", f"file://{folder}", "file:scans"):
        with xr.open_dataset(url, engine=DosnaEntrypoint) as opened:
            assert set(opened.variables) == {"tomo", "z", "flat"}
            assert opened["tomo"].dims == ("z", "y", "x")
            assert opened["tomo"].attrs["unit"] == "counts"
            assert opened["flat"].dims == ("dim_30", "dim_25")
            assert float(opened["tomo"].sel(z=1.5)[4, 3]) == VOLUME[3, 4, 3]
            assert opened["tomo"].encoding["preferred_chunks"] == {"z": 8, "y": 8, "x": 8}


def test_xarray_opens_a_dataset_and_a_group(folder):
    with xr.open_dataset(f"file:{folder}/tomo", engine=DosnaEntrypoint) as opened:
        assert list(opened.data_vars) == ["tomo"]
    with xr.open_dataset(f"file:{folder}", engine=DosnaEntrypoint, group="entry") as opened:
        assert list(opened.data_vars) == ["data"]
        assert opened.attrs == {"NX_class": "NXentry"}
    with pytest.raises(KeyError, match="nothing"):
        xr.open_dataset(f"file:{folder}", engine=DosnaEntrypoint, group="nothing")
    with dn.Connection(str(folder), backend="file") as con:
        opened = xr.open_dataset(con, engine=DosnaEntrypoint, drop_variables="flat")
        assert set(opened.variables) == {"tomo", "z"}
        opened.close()
        assert con.connected
        opened = xr.open_dataset(con["entry/deep/counts"], engine=DosnaEntrypoint)
        assert opened["counts"].values.tolist() == [1, 2, 3]


def test_xarray_opens_axes_of_one_name_and_other_extents(folder):
    with dn.Connection(str(folder), backend="file") as con:
        con.create_dataset("longer", data=np.arange(25), dims=("z",))
    with pytest.warns(UserWarning, match="axis 'z' of '.*' has .* elements, and that of other"):
        made = xr.open_dataset(f"file:{folder}", engine=DosnaEntrypoint)
    assert made["longer"].dims == ("z",)
    assert made["z"].dims == ("z_20",)
    np.testing.assert_array_equal(made["longer"], np.arange(25))


def test_what_xarray_opened_of_a_connection_travels(folder):
    with dn.Connection(str(folder), backend="file") as con:
        made = pickle.loads(pickle.dumps(xr.open_dataset(con, engine=DosnaEntrypoint)))
        np.testing.assert_array_equal(made["tomo"], VOLUME)


def test_xarray_opens_a_tree(folder):
    with xr.open_datatree(f"file:{folder}", engine=DosnaEntrypoint) as tree:
        assert set(tree.groups) == {"/", "/entry", "/entry/deep"}
        assert tree["entry/deep/counts"].values.tolist() == [1, 2, 3]


def test_a_tree_has_the_levels_of_a_pyramid(tmp_path):
    volume = np.arange(66.0 * 4 * 4).reshape(66, 4, 4)
    with dn.Connection(str(tmp_path), backend="file") as con:
        con.create_dataset("entry/tomo", data=volume, dims=("z", "y", "x")).pyramid()
        con.create_dataset("entry/z", data=np.arange(66) * 0.5, dims=("z",))
        con.create_dataset("entry/part/z", data=np.arange(3) * 2.0, dims=("z",))
    with xr.open_datatree(f"file:{tmp_path}", engine=DosnaEntrypoint) as tree:
        level = tree["entry/tomo_levels/1"]
        assert dict(level.sizes) == {"z_33": 33, "y": 4, "x": 4}
        assert np.array_equal(level, volume.reshape(33, 2, 4, 4).mean(axis=1))
        assert tree["entry/tomo"].sel(z=2.5).values.tolist() == volume[5].tolist()
        assert tree["entry/part"].to_dataset().sel(z_3=4.0)["z_3"] == 4


def test_an_axis_of_another_extent_gets_a_name_that_is_free(tmp_path):
    with dn.Connection(str(tmp_path), backend="file") as con:
        con.create_dataset("whole", data=np.zeros((9, 4)), dims=("z", "z_3"))
        con.create_dataset("part/values", data=np.ones((3, 5)), dims=("z", "z_3_"))
    with xr.open_datatree(f"file:{tmp_path}", engine=DosnaEntrypoint) as tree:
        assert tree["part/values"].dims == ("z_3__", "z_3_")
        assert tree["part/values"].values.tolist() == [[1.0] * 5] * 3


def test_a_tree_closes_what_it_has_opened(folder, monkeypatch):
    opened = []
    connect = EngineConnection.connect
    monkeypatch.setattr(
        EngineConnection, "connect", lambda con: opened.append(con) or connect(con)
    )
    with xr.open_datatree(f"file:{folder}", engine=DosnaEntrypoint):
        assert any(con.connected for con in opened)
    assert not any(con.connected for con in opened)


def test_xarray_reads_nothing_before_it_is_asked(folder):
    reads = []
    with dn.Connection(str(folder), backend="file") as con:
        tomo = con["tomo"]
        read = tomo.read
        tomo.read = lambda key=..., out=None: reads.append(key) or read(key, out)
        opened = xr.open_dataset(tomo, engine=DosnaEntrypoint)
        part = opened["tomo"].isel(z=3)[2:5, ::-1]
        assert (reads, part.shape) == ([], (3, 25))
        assert np.array_equal(part, VOLUME[3, 2:5, ::-1])
        assert len(reads) == 1


KEYS = st.tuples(
    *[
        st.one_of(
            st.integers(-n, n - 1),
            st.slices(n),
            st.lists(st.integers(-n, n - 1), min_size=1, max_size=4).map(np.array),
        )
        for n in SHAPE
    ]
)


@given(key=KEYS)
@settings(suppress_health_check=list(HealthCheck))
def test_xarray_indexes_as_it_does_in_memory(folder, key):
    with xr.open_dataset(f"file:{folder}", engine=DosnaEntrypoint) as opened:
        wanted = xr.Variable(("z", "y", "x"), VOLUME)[key]
        found = opened["tomo"].variable[key]
        assert found.dims == wanted.dims
        assert np.array_equal(found, wanted)


def test_xarray_reads_records_of_another_byte_order():
    xr = require("xarray")
    values = np.array([(1, 2.5), (3, -1)], [("n", ">i4"), ("x", ">f8")])
    with dn.Connection("interop-records", backend="ram") as con:
        con.create_dataset("records", data=values)
        found = xr.open_dataset(con, engine="dosna")["records"].values
    assert found.dtype.names == ("n", "x")
    assert found.tolist() == values.tolist()


def test_xarray_takes_points(folder):
    z, x = xr.DataArray([0, 5, 5], dims="p"), xr.DataArray([1, 24, 0], dims="p")
    with xr.open_dataset(f"file:{folder}", engine=DosnaEntrypoint) as opened:
        found = opened["tomo"].isel(z=z, x=x)
        assert found.dims == ("p", "y")
        assert np.array_equal(found, VOLUME[[0, 5, 5], :, [1, 24, 0]])


def test_xarray_reads_what_it_wrote_to_zarr(tmp_path):
    require("zarr")
    times = np.array(["2020-01-01", "2020-01-03"], "M8[ns]")
    written = xr.Dataset(
        {"t": ("time", [1.0, np.nan]), "n": (("time", "y"), [[1, 2, 3], [4, 5, 6]])},
        {"time": times},
        {"title": "both"},
    )
    written.to_zarr(tmp_path / "w.zarr", zarr_format=3, consolidated=False)
    with xr.open_dataset(f"file:{tmp_path}/w.zarr", engine=DosnaEntrypoint) as opened:
        xr.testing.assert_identical(opened.load(), written)


def test_the_engine_is_found_by_its_name(folder, tmp_path):
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    info = tmp_path / "packages" / "dosna_trial-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: dosna-trial\nVersion: 1\n")
    points = config["options.entry_points"]["xarray.backends"]
    (info / "entry_points.txt").write_text(f"[xarray.backends]{points}\n")
    code = (
        "import xarray as xr, dosna as dn\n"
        f"print(xr.open_dataset('file:{folder}', engine='dosna')['tomo'].shape)\n"
        f"with dn.Connection({str(folder)!r}, backend='file') as con:\n"
        "    print(list(xr.open_dataset(con)))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}/packages:{os.environ['PYTHONPATH']}"},
        capture_output=True,
        text=True,
    )
    assert ran.stdout.splitlines() == ["(20, 30, 25)", "['flat', 'tomo']"], ran.stderr
