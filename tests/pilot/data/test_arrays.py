"""Datasets as files of data units, and results as datasets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import HANG, require

import dosna as dn
from dosna.errors import ConfigurationError, RefusedError, SourceNotFoundError
from dosna.pilot.data import stage_in, stage_out
from dosna.pilot.data.arrays import delivered_name, region_of
from dosna.pilot.data.places import open_place

DATA = np.arange(20 * 30 * 4, dtype="i4").reshape(20, 30, 4)


@pytest.fixture
def volume(tmp_path: Path) -> str:
    """Give the URL of a dataset."""
    (tmp_path / "volumes").mkdir()
    with dn.Connection(str(tmp_path / "volumes"), backend="file") as con:
        con.create_dataset("scan/tomo", data=DATA, chunk_size=(7, 8, 4))
    return f"dosna:file:{tmp_path}/volumes/scan/tomo"


def stage(url: str, folder: Path) -> None:
    files = [{"name": delivered_name(url), "url": url}]
    stage_in({"data_unit": "du-1", "place": {}, "files": files, "patterns": None}, str(folder))


def test_a_dataset_as_npy(volume: str, tmp_path: Path) -> None:
    stage(volume, tmp_path / "work")
    np.testing.assert_array_equal(np.load(tmp_path / "work" / "tomo.npy"), DATA)
    stage(f"{volume}#region=3:9,5;as=part.npy", tmp_path / "work")
    np.testing.assert_array_equal(np.load(tmp_path / "work" / "part.npy"), DATA[3:9, 5])
    assert len(list((tmp_path / "work").iterdir())) == 2


def test_a_region_as_hdf5_and_zarr(volume: str, tmp_path: Path) -> None:
    h5py = require("h5py")
    stage(f"{volume}#region=:,-4:;as=part.h5", tmp_path / "work")
    with h5py.File(tmp_path / "work" / "part.h5") as file:
        found: list[Any] = []
        file.visititems(lambda _, one: found.append(one[...]) if hasattr(one, "shape") else None)
    np.testing.assert_array_equal(found[0], DATA[:, -4:])
    stage(f"{volume}#region=5:6;as=part.zarr", tmp_path / "work")
    with dn.Connection(str(tmp_path / "work" / "part.zarr"), backend="file", mode="r") as con:
        (name,) = list(con)
        np.testing.assert_array_equal(con[name][...], DATA[5:6])


def test_regions() -> None:
    assert region_of("0:10,:,5", 3) == (slice(0, 10), slice(None), 5)
    assert region_of("", 3) == ()
    assert region_of(" -3: , :4", 2) == (slice(-3, None), slice(None, 4))
    for text in ("x", "1:2:3", "1,,2", "1;2"):
        with pytest.raises(ConfigurationError, match="region"):
            region_of(text, 3)
    with pytest.raises(ConfigurationError, match="axes"):
        region_of("1,2,3", 2)


def test_urls_that_cannot_be_delivered(volume: str, tmp_path: Path) -> None:
    assert delivered_name("dosna:s3://bucket/scan/tomo?endpoint_url=http://x") == "tomo.npy"
    with pytest.raises(ConfigurationError, match="png"):
        delivered_name(f"{volume}#as=tomo.png")
    with pytest.raises(ConfigurationError, match="colour"):
        delivered_name(f"{volume}#colour=red")
    with pytest.raises(SourceNotFoundError, match="missing"):
        stage(volume.replace("tomo", "missing"), tmp_path / "work")
    with pytest.raises(RefusedError, match="shape"):
        stage(f"{volume}#region=1,2,3", tmp_path / "work")
    assert list((tmp_path / "work").iterdir()) == []


def test_results_become_datasets(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    np.save(work / "result.npy", DATA)
    (work / "log.txt").write_text("text")
    (tmp_path / "results").mkdir()
    fields = {"service_url": f"dosna:file:{tmp_path}/results/run"}
    request = {"data_unit": "du-1", "place": fields, "patterns": ["*.npy"]}
    found = stage_out(request, str(work))
    with dn.Connection(str(tmp_path / "results"), backend="file", mode="r") as con:
        np.testing.assert_array_equal(con["run/du-1/result"][...], DATA)
    stage_in({**request, "files": found}, str(tmp_path / "back"))
    np.testing.assert_array_equal(np.load(tmp_path / "back" / "result.npy"), DATA)
    with pytest.raises(RefusedError, match=r"log\.txt"):
        stage_out({**request, "patterns": ["*.txt"]}, str(work))
    with open_place(fields) as place:
        assert place.size("du-1/result.npy") == -1
        place.remove("du-1")
        with pytest.raises(SourceNotFoundError):
            place.size("du-1/result.npy")


def test_arrays_are_files_of_data_units(
    volume: str, service: Any, make_files: Callable[..., list[str]], tmp_path: Path
) -> None:
    store = service.create_pilot({"service_url": f"file://{tmp_path}/store"})
    url = f"{volume}#region=0:2;as=part.npy"
    unit = store.submit_data_unit({"file_urls": [url, *make_files(**{"a.txt": b"a"})]})
    assert unit.wait(timeout=HANG) == "Running", unit.get_details()
    assert unit.list()["part.npy"]["local"] == url
    unit.export(str(tmp_path / "out"))
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "part.npy"), DATA[:2])
    assert (tmp_path / "out" / "a.txt").read_bytes() == b"a"
