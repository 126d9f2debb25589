"""Which kind of source a path means, by its name and by what is there."""

from __future__ import annotations

import numpy as np
import pytest
from support import require

import dosna as dn
from dosna.core.names import check_nesting
from dosna.errors import ConfigurationError, DatasetNameError, SourceError, SourceNotFoundError
from dosna.sources import open_source


def test_files_of_hdf5_by_their_signature(tmp_path):
    h5py = require("h5py")
    for number, block in enumerate((0, 512, 4096)):
        path = tmp_path / f"scan{number}.unheard-of"
        with h5py.File(path, "w", userblock_size=block) as file:
            file["entry/x"] = np.arange(3)
        with open_source(path) as source:
            assert source.names() == ["entry/x"]
        with open_source(f"{path}:/entry/x") as source:
            assert source["entry/x"][...].tolist() == [0, 1, 2]


def test_other_files_by_their_signature(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(3))
    (tmp_path / "a.npy").rename(tmp_path / "a.array")
    with open_source(tmp_path / "a.array") as source:
        assert source[source.names()[0]][...].tolist() == [0, 1, 2]
    (tmp_path / "text.txt").write_text("nothing known")
    (tmp_path / "empty").touch()
    for name in ("text.txt", "empty"):
        with pytest.raises(SourceError, match="cannot tell the kind"):
            open_source(tmp_path / name)
    with pytest.raises(SourceNotFoundError, match=r"no file .*absent"):
        open_source(tmp_path / "absent")


@pytest.mark.parametrize("name", ["\0", "scan.nxs:/a\0", "file:\0", "http://\ud800"])
def test_names_that_no_file_has_are_refused(name):
    with (
        dn.Connection("names", backend="ram") as con,
        pytest.raises(SourceError, match="name of a source"),
    ):
        con.ingest(name)


@pytest.mark.parametrize("suffix", [".nc4", ".mat", ".h5ad", ".cxi", ".nwb", ".silo", ".CGNS"])
def test_suffixes_of_hdf5(tmp_path, suffix):
    require("h5py")
    assert type(open_source(f"s3://bucket/scan{suffix}:/entry")).__name__ == "H5Source"
    assert open_source(f"s3://bucket/scan{suffix}:/entry").inner == "entry"


@pytest.mark.parametrize(
    ("start", "says"),
    [
        (b"CDF\x01", "netCDF-3 classic"),
        (b"CDF\x02", "netCDF-3 classic"),
        (b"CDF\x05", "netCDF-3 classic"),
        (b"MATLAB 5.0 MAT-file", "save it with -v7.3"),
        (b"\x0e\x03\x13\x01", "HDF4"),
    ],
)
@pytest.mark.parametrize("name", ["data.nc", "data.mat", "data.unheard-of"])
def test_what_is_taken_for_hdf5_is_called_by_its_name(tmp_path, start, says, name):
    require("h5py")
    (tmp_path / name).write_bytes(start + bytes(600))
    with dn.Connection("opening", backend="ram") as con, pytest.raises(SourceError, match=says):
        con.ingest(tmp_path / name)


def test_datasets_by_a_url(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    with dn.Connection(str(tmp_path / "one"), backend="file") as con:
        con.create_dataset("entry/a", data=np.arange(5))
    with dn.Connection(str(tmp_path / "two"), backend="file") as con:
        assert con.ingest(f"file:{tmp_path}/one", kind="dosna").made == ["entry/a"]
        assert con.ingest(f"file:{tmp_path}/one//entry/a", "b", kind="dosna").made == ["b"]
        assert con["b"][...].tolist() == list(range(5))
    with pytest.raises(ConfigurationError, match="not the URL of a connection"):
        open_source(str(tmp_path / "one"), kind="dosna")


def test_what_making_a_dataset_in_memory_costs_does_not_grow(monkeypatch):
    looked = []

    def check(name, others):
        others = list(others)
        looked.append(len(others))
        check_nesting(name, others)

    monkeypatch.setattr("dosna.backends.ram.connection.check_nesting", check)
    with dn.Connection("many", backend="ram") as con:
        for number in range(300):
            con.create_dataset(f"group/x{number}", 1, "u1")
        assert max(looked) == 0
        for name in ("group", "group/x1/y"):
            with pytest.raises(DatasetNameError):
                con.create_dataset(name, 1, "u1")
        for name in list(con):
            del con[name]
        con.create_dataset("group", 1, "u1")
        del con["group"]
        with pytest.raises(KeyError, match=r"no dataset 'x'.* which has none"):
            con["x"]
