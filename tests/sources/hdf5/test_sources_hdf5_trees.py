"""Trees of HDF5 files: names, links, scales, and what one bad member costs the others."""

from __future__ import annotations

import numpy as np
import pytest
from support import require

import dosna as dn
from dosna.errors import SourceNotFoundError
from dosna.sources import open_source

h5py = require("h5py")
h5d, h5s, h5t = h5py.h5d, h5py.h5s, h5py.h5t


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "scan.h5")


@pytest.fixture(params=["ram", "hdf5", "file"])
def con(request, tmp_path):
    if request.param == "file":
        require("zarr")
    (tmp_path / "store").mkdir()
    with dn.Connection(str(tmp_path / "store"), backend=request.param) as made:
        yield made
        for name in list(made):
            del made[name]
        for group in ["", "entry/metadata", "t"]:
            made.set_group_attrs(group, {})


def dims_of(path, name):
    with open_source(path) as source:
        return source.describe(name).dims


# -- dimension scales ---------------------------------------------------------------------


def scaled(path):
    """Make a file with a variable on a scale, both of length 4."""
    with h5py.File(path, "w") as file:
        file["lon"] = np.arange(4.0)
        file["lon"].make_scale("lon")
        file["t"] = np.zeros(4)
        file["t"].dims[0].attach_scale(file["lon"])


def test_a_copied_variable_is_not_named_after_what_lies_where_its_scale_lay(path, tmp_path):
    scaled(path)
    for number, before in enumerate([{"exposure": 0.5}, {}, {"long": np.arange(9.0)}]):
        copied = str(tmp_path / f"copied{number}.h5")
        with h5py.File(path) as file, h5py.File(copied, "w") as other:
            for name, value in before.items():
                other[name] = value
                if np.ndim(value):
                    other[name].make_scale(name)
            file.copy("t", other)
        assert dims_of(copied, "t") is None
    with h5py.File(path) as file, h5py.File(copied, "w") as other:
        other.create_group("group")
        file.copy("t", other)
    assert dims_of(copied, "t") is None


def test_a_scale_that_was_deleted(con, path):
    with h5py.File(path, "w") as file:
        file["t"] = np.arange(12).reshape(3, 4)
        for axis, name in enumerate(["lat", "lon"]):
            file[name] = np.arange((3, 4)[axis])
            file[name].make_scale(name)
            file["t"].dims[axis].attach_scale(file[name])
        del file["lat"]
    report = con.ingest(path)
    assert report.made == ["lon", "t"]
    assert dims_of(path, "t") == (None, "lon")
    assert con["t"][...].tolist() == np.arange(12).reshape(3, 4).tolist()


def test_a_scale_without_a_name(path):
    with h5py.File(path, "w") as file:
        file["t"] = np.zeros(4)
        scale = file.create_dataset(None, data=np.arange(4.0))
        scale.make_scale("nameless")
        file["t"].dims[0].attach_scale(scale)
        file["kept"] = h5py.SoftLink("/t")
    assert dims_of(path, "t") is None


def test_the_first_scale_that_fits_names_the_axis(path):
    scaled(path)
    with h5py.File(path, "a") as file:
        file["longer"] = np.arange(5.0)
        file["longer"].make_scale()
        file["u"] = np.zeros(4)
        file["u"].dims[0].attach_scale(file["longer"])
        file["u"].dims[0].attach_scale(file["lon"])
    assert dims_of(path, "u") == ("lon",)


def unlimited(path):
    """Write as netCDF-4 does: variables along a dimension that was written to by one the most."""
    with h5py.File(path, "w") as file:
        file.attrs["_NCProperties"] = np.bytes_("version=2,netcdf=4.9.2,hdf5=1.14.2")
        options = {"maxshape": (None,), "chunks": (4,)}
        file.create_dataset("time", data=np.arange(6.0), **options).make_scale("time")
        hidden = "This is a netCDF dimension but not a netCDF variable.         0"
        file.create_dataset("n", (0,), "f4", **options).make_scale(hidden)
        file.create_dataset("short", data=[1, 2, 3], dtype="f4", fillvalue=-1, **options)
        made = file.create_dataset(
            "both", (2, 5), "i4", maxshape=(None, None), chunks=(2, 2), fillvalue=9
        )
        made[...] = 4
        texts = {"dtype": h5py.string_dtype(), "maxshape": (None,), "chunks": (4,)}
        file.create_dataset("texts", data=["a", "bc"], **texts)
        for name, scales in {"short": ["time"], "both": ["n", "time"], "texts": ["time"]}.items():
            for axis, scale in enumerate(scales):
                file[name].dims[axis].attach_scale(file[scale])
                file[name].attrs["_Netcdf4Dimid"] = 0


def test_unlimited_dimensions_of_netcdf_are_as_long_as_the_longest(con, path):
    unlimited(path)
    report = con.ingest(path)
    short = con["short"]
    assert short[...].tolist() == [1, 2, 3, -1, -1, -1]
    assert short.fillvalue == -1
    expected = np.full((2, 6), 9)
    expected[:, :5] = 4
    np.testing.assert_array_equal(con["both"][...], expected)
    assert con["texts"][...].tolist() == ["a", "bc", "", "", "", ""]
    assert con["n"].shape == (2,)
    assert con["time"].shape == (6,)
    assert "written up to (3,)" in report.notes["short"][0]
    assert "dimension of netCDF without a variable" in report.notes["n"][-1]
    assert "time" not in report.notes
    with open_source(path) as source:
        assert source["short"][2:5].tolist() == [3, -1, -1]
        assert source["both"][1, 4:].tolist() == [4, 9]
        assert source["both"].description.dims == ("n", "time")
    assert con.link(path, "linked", unlinkable="ingest").made
    assert con["linked/short"][...].tolist()[:3] == [1, 2, 3]


def test_xarray_opens_what_netcdf_wrote_short(path, tmp_path):
    xarray = require("xarray")
    require("zarr")
    unlimited(path)
    (tmp_path / "store").mkdir()
    with dn.Connection(str(tmp_path / "store"), backend="file") as con:
        con.ingest(path, select=["time", "short", "both"])
    with xarray.open_dataset(
        str(tmp_path / "store"), engine="zarr", consolidated=False, decode_times=False
    ) as found:
        assert dict(found.sizes) == {"time": 6, "n": 2}


def test_what_only_looks_unlimited_stays_as_it_is(path):
    unlimited(path)
    with h5py.File(path, "a") as file:
        del file.attrs["_NCProperties"]
        del file["short"].attrs["_Netcdf4Dimid"]
    with open_source(path) as source:
        assert source.describe("short").shape == (3,)


def test_notes_of_conventions(con, path):
    with h5py.File(path, "w") as file:
        file["_nc4_non_coord_x"] = np.zeros(2)
        file["empty"] = np.array([0, 3], "u8")
        file["empty"].attrs["MATLAB_class"] = np.bytes_("double")
        file["empty"].attrs["MATLAB_empty"] = np.uint8(1)
        file["text"] = np.array([[97], [98]], "u2")
        file["text"].attrs["MATLAB_class"] = np.bytes_("char")
        file["complex"] = np.zeros(2, [("real", "f8"), ("imag", "f8")])
        file["complex"].attrs["MATLAB_class"] = np.bytes_("double")
        file["plain"] = np.zeros(2)
        file["plain"].attrs["MATLAB_class"] = np.bytes_("double")
    notes = con.ingest(path).notes
    assert notes["_nc4_non_coord_x"] == ["netCDF calls this variable 'x'"]
    assert "MATLAB's empty double" in notes["empty"][0]
    assert "text of MATLAB" in notes["text"][0]
    assert "complex in MATLAB" in notes["complex"][0]
    assert "plain" not in notes


# -- names and links ----------------------------------------------------------------------


def test_links_to_groups(con, path):
    with h5py.File(path, "w") as file:
        file["entry/instrument/detector/data"] = np.arange(4)
        file["entry/data"] = h5py.SoftLink("/entry/instrument/detector")
        file["entry/self"] = h5py.SoftLink("/entry")  # without end, as its names would be
        file["top"] = h5py.SoftLink("/entry/instrument")
    name = "entry/instrument/detector/data"
    report = con.ingest(path)
    assert report.made == [name]
    assert report.links == {"entry/data/data": name, "top/detector/data": name}
    assert sorted(con[name].origin["links"]) == ["entry/data/data", "top/detector/data"]
    for number, chosen in enumerate(["entry/data/data", "entry/data", "top", "top/*"]):
        assert con.ingest(path, f"run{number}", select=chosen).made == [f"run{number}/{name}"]
    assert con.link(path, "linked").links == {
        "entry/data/data": f"linked/{name}",
        "top/detector/data": f"linked/{name}",
    }


def test_of_several_names_the_first_that_a_dataset_can_have_counts(con, path):
    with h5py.File(path, "w") as file:
        file["a/x\n\t"] = np.arange(3)
        file["b/x"] = file["a/x\n\t"]
        file["c/x"] = file["b/x"]
        file["d/.y"] = np.arange(5)
        file["e"] = h5py.SoftLink("/d/.y")
    report = con.ingest(path)
    assert report.made == ["b/x", "e"]
    assert report.links == {"a/x\n\t": "b/x", "c/x": "b/x", "d/.y": "e"}
    assert con.ingest(path, "again", select="b/x").made == ["again/b/x"]
    assert con.ingest(path, "more", select="a").made == ["more/b/x"]


def test_names_that_datasets_cannot_have(con, path):
    with h5py.File(path, "w") as file:
        file["entry/.hidden"] = 1
        file["entry/%2Ehidden"] = 2
        file["entry/shown"] = 3
        file["entry/tab\there"] = 4
        file["entry/" + "long" * 100] = 5
        file["entry"].attrs["is"] = "entry"
        file[".silo/y"] = np.arange(3)
        file[".silo"].attrs["kind"] = 501
    report = con.ingest(path)
    assert con["entry/%2Ehidden"][()] == 2
    assert con["entry/%2Ehidden%2"][()] == 1
    assert con["entry/tab%09here"][()] == 4
    long = next(name for name in report.made if name.startswith("entry/long"))
    assert con[long][()] == 5
    assert con["%2Esilo/y"][...].tolist() == [0, 1, 2]
    assert con.get_group_attrs("%2Esilo") == {"kind": 501}
    assert "its name there is 'entry/tab\\there'" in report.notes["entry/tab%09here"][0]
    assert con["entry/tab%09here"].origin["name"] == "entry/tab\there"
    assert "entry/shown" not in report.notes
    assert report.skipped == {}
    assert con.ingest(path).present == report.made
    assert con.ingest(f"{path}:/.silo", "silo").made == ["silo/%2Esilo/y"]
    assert con.ingest(f"{path}:/.silo/y", "y").made == ["y"]


def test_names_that_are_no_utf8(con, path):
    with h5py.File(path, "w") as file:
        for parent in (file.id, file.create_group("g").id, h5py.h5g.create(file.id, b"gr\xe9")):
            made = h5d.create(parent, b"caf\xe9", h5t.NATIVE_INT32, h5s.create_simple((2,)))
            made.write(h5s.ALL, h5s.ALL, np.array([1, 2], "i4"))
        file["ok"] = 1.5
        for place in (file.id, file["ok"].id):
            made = h5py.h5a.create(place, b"\xe9t\xe9", h5t.NATIVE_INT32, h5s.create(h5s.SCALAR))
            made.write(np.array(3, "i4"))
    report = con.ingest(path)
    assert report.made == ["caf%E9", "g/caf%E9", "gr%E9/caf%E9", "ok"]
    assert con["gr%E9/caf%E9"][...].tolist() == [1, 2]
    assert con["gr%E9/caf%E9"].origin["name"] == "gr\udce9/caf\udce9"
    assert con["ok"].attrs["été"] == 3
    str(report).encode()
    assert con.ingest(path, "pre").made == [f"pre/{name}" for name in report.made]
    assert con.get_group_attrs("pre")["été"] == 3


def test_attributes_of_named_types_are_kept(con, path):
    with h5py.File(path, "w") as file:
        file["t"] = np.dtype([("a", "i4")])
        file["t"].attrs["silo_type"] = 501
        file["plain"] = np.dtype("i4")
        file["d"] = np.arange(3)
    assert con.ingest(path).made == ["d"]
    assert con.get_group_attrs("t") == {"silo_type": 501}


def test_attributes_of_groups_do_not_need_each_array(con, path):
    with h5py.File(path, "w") as file:
        file["data"] = np.arange(5.0)
        file.create_group("entry/metadata").attrs["facility"] = "X"
        damaged = file.create_dataset("odd", data=np.arange(9000), chunks=(9000,), fletcher32=True)
        at = damaged.id.get_chunk_info(0).byte_offset
    with open(path, "r+b") as raw:
        raw.seek(at + 100)
        raw.write(b"damage")
    report = con.ingest(path, on_error="skip")
    assert report.made == ["data"]
    assert "damaged" in report.skipped["odd"]
    assert con.get_group_attrs("entry/metadata") == {"facility": "X"}


def test_one_damaged_group_costs_no_other(con, path):
    with h5py.File(path, "w", libver="earliest") as file:
        file["good/x"] = np.arange(3)
        file["bad/x"] = np.arange(3)
        at = h5py.h5o.get_info(file["bad"].id).addr
    with open(path, "r+b") as raw:
        raw.seek(at)
        raw.write(b"\xff")  # the version of the object's header
    report = con.ingest(path, on_error="skip")
    assert report.made == ["good/x"]
    assert "cannot be opened" in report.skipped["bad"]


def test_names_are_not_taken_for_patterns(con, path):
    with h5py.File(path, "w") as file:
        file["data[0]"] = np.arange(2)
        file["data0"] = np.arange(3)
        file["g[1]/x"] = np.arange(4)
        file["g/x:y"] = np.arange(5)
    assert con.ingest(path, "a", select="data[0]").made == ["a/data[0]"]
    assert con.ingest(path, "b", select="g[1]").made == ["b/g[1]/x"]
    assert con.ingest(path, "c", select="data?").made == ["c/data0"]
    assert con.ingest(f"{path}:/g/x:y", "d").made == ["d"]
    with pytest.raises(SourceNotFoundError, match="nothing like 'data'"):
        con.ingest(path, "e", select="data")
