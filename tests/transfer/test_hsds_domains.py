"""Whole HDF5 files in domains of HSDS: with their data, or linked to where these lie."""

from __future__ import annotations

import secrets
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from samples import LINKED, small_integers, write_sample
from services import hsds_environment
from services.s3 import make_client
from support import require

import dosna as dn
from dosna import errors
from dosna.sources import open_source

h5py = require("h5py")
h5pyd = require("h5pyd")

from dosna.export.hsds import link_domain, load_domain  # noqa: E402
from dosna.hsds import HsdsClient, HsdsOptions  # noqa: E402
from dosna.io.processes import maker  # noqa: E402


def compare(path, domain):
    """Compare all of a file and a domain, as h5py and h5pyd read them."""

    def same(one, other):
        if isinstance(one, h5py.Empty):
            return isinstance(other, h5pyd.Empty)
        try:
            return np.array_equal(one, other, equal_nan=True)
        except TypeError:
            return np.array_equal(one, other)

    def look(name, one):
        other = there[name]
        assert set(one.attrs) == set(other.attrs)
        for key in set(one.attrs) - {"group", "DIMENSION_LIST", "REFERENCE_LIST"}:
            assert same(one.attrs[key], other.attrs[key]), (name, key)
        if not isinstance(one, h5py.Dataset):
            assert list(one) == list(other)
            return
        assert one.shape == other.shape
        if one.shape is None or name.endswith(("refer", "ragged")):
            return
        if not name.endswith("padded"):
            assert one.dtype == other.dtype
        assert same(one[()], other[()]), name

    with h5py.File(path) as here, h5pyd.File(domain, "r") as there:
        look("/", here)
        here.visititems(look)
        entry = there["entry1"]
        assert entry.get("soft", getlink=True).path == "/entry1/number"
        assert entry.get("outside", getlink=True).filename == "other.h5"
        assert entry["hard"] == entry["number"]
        assert [row.tolist() for row in entry["ragged"][...]] == [[1, 2], [3]]
        assert entry[entry["number"].attrs["group"]] == entry
        assert there[entry["refer"][0]] == entry["number"]
        assert entry["grows"].maxshape[0] in (None, 5)


@pytest.fixture
def domain(hsds, request):
    name = request.node.name.replace("[", "-").replace("]", "").replace(" ", "-")
    yield f"{hsds.home}/{name}.h5"
    client = HsdsClient(HsdsOptions())
    for found in list(client.domains(hsds.home)):
        if name in found["name"]:
            client.delete("/", found["name"])


def names_in(folder):
    return {d["name"].rpartition("/")[2] for d in HsdsClient(HsdsOptions()).domains(folder)}


@pytest.fixture(scope="module")
def raw(hsds):
    """Give a folder whose files the server reads, and how it calls the folder."""
    folder = Path(hsds.data) / "raw"
    folder.mkdir()
    write_sample(folder / "sample.h5")
    return folder


def test_a_file_with_its_data(raw, domain):
    report = load_domain(raw / "sample.h5", f"hdf5:/{domain}")
    assert (report.linked, report.copied, report.left_out) == ([], {}, {})
    compare(raw / "sample.h5", domain)


def test_a_file_that_is_linked(raw, domain):
    report = link_domain(raw / "sample.h5", domain, "dosna/raw/sample.h5")
    assert {f"entry1/{name}" for name in LINKED} <= set(report.linked)
    texts = {"lzf", "only checked", "padded", "texts", "ragged", "refer"}
    assert set(report.copied) == {f"entry1/{name}" for name in texts}
    compare(raw / "sample.h5", domain)
    assert report.nbytes < 4 * 2 * small_integers((37, 45, 53)).size + 1000


def test_what_is_there_stays_unless_it_is_to_be_replaced(hsds, raw, domain, tmp_path):
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["x"] = 1
    load_domain(other, domain)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        load_domain(other, domain)
    with h5py.File(other, "w") as file:
        file["x"] = 2
    load_domain(other, domain, overwrite=True)
    with h5pyd.File(domain, "r") as there:
        assert there["x"][()] == 2
    assert not [name for name in names_in(hsds.home) if name.startswith(".")]


def test_what_fails_leaves_nothing(hsds, domain, tmp_path):
    path = tmp_path / "refused.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(5)
        regions = file.create_dataset("regions", (1,), dtype=h5py.regionref_dtype)
        regions[0] = file["x"].regionref[1:3]
        half = h5py.h5t.IEEE_F32LE.copy()  # bfloat16, with which h5py has overlapping fields
        half.set_fields(15, 7, 8, 0, 7)
        half.set_precision(16)
        half.set_size(2)
        pair = h5py.h5t.create(h5py.h5t.COMPOUND, 8)
        pair.insert(b"a", 0, half)
        pair.insert(b"b", 2, half)
        h5py.h5d.create(file.id, b"pairs", pair, h5py.h5s.create_simple((3,)))
    before = names_in(hsds.home)
    with pytest.raises(errors.RefusedError, match=r"pairs|regions"):
        load_domain(path, domain)
    assert names_in(hsds.home) == before
    assert set(load_domain(path, domain, on_error="skip").left_out) == {"pairs", "regions"}


def test_a_filter_that_was_left_out_for_a_chunk_is_not_linked(raw, domain):
    path = raw / "masked.h5"
    frames = np.arange(200, dtype="i4").reshape(2, 100)
    with h5py.File(path, "w") as file:
        made = file.create_dataset("x", (2, 100), "i4", chunks=(1, 100), compression="gzip")
        made.id.write_direct_chunk((0, 0), frames[0].tobytes(), filter_mask=1)
        made[1] = frames[1]
    report = link_domain(path, domain, "dosna/raw/masked.h5")
    assert "left out" in report.copied["x"]
    with h5pyd.File(domain, "r") as there:
        np.testing.assert_array_equal(there["x"][...], frames)
    with pytest.raises(errors.RefusedError, match="'x' cannot be linked"):
        link_domain(path, domain, "dosna/raw/masked.h5", unlinkable="raise", overwrite=True)


def test_places_of_many_chunks_are_in_a_table(raw, domain):
    path = raw / "many.h5"
    expected = small_integers((60, 700))
    with h5py.File(path, "w") as file:
        options = {"compression": "gzip", "shuffle": True}
        made = file.create_dataset("x", (60, 700), "i4", chunks=(1, 10), fillvalue=5, **options)
        made[:50] = expected[:50]
    expected[50:] = 5
    assert link_domain(path, domain, "dosna/raw/many.h5").linked == ["x"]
    with open_source(f"hdf5:/{domain}") as source:
        np.testing.assert_array_equal(source["x"][...], expected)
        assert source.names() == ["x"]


def test_another_file_than_was_said_is_noticed(raw, domain):
    path = raw / "swapped.h5"
    for start in (0, 1):
        with h5py.File(path, "w") as file:
            file["x"] = np.arange(start, start + 5000)
        path = raw / "first.h5"
    with pytest.raises(errors.StorageError, match="the same file"):
        link_domain(path, domain, "dosna/raw/swapped.h5")


@pytest.mark.fault
def test_a_file_in_s3_is_linked(gateway, start_hsds, tmp_path):
    require("boto3")
    write_sample(tmp_path / "sample.h5")
    client = make_client(gateway.endpoint_url)
    client.create_bucket(Bucket="raw")
    client.upload_file(str(tmp_path / "sample.h5"), "raw", "in/sample.h5")
    server = start_hsds(
        AWS_S3_GATEWAY=gateway.endpoint_url,
        AWS_ACCESS_KEY_ID=gateway.access_key,
        AWS_SECRET_ACCESS_KEY=gateway.secret_key,
        AWS_REGION="us-east-1",
    )
    with server as hsds, hsds_environment(hsds):
        domain = f"{hsds.home}/linked.h5"
        source = open_source("s3://raw/in/sample.h5", endpoint_url=gateway.endpoint_url)
        with source:
            report = link_domain(source, domain, "s3://raw/in/sample.h5")
        assert {f"entry1/{name}" for name in LINKED} <= set(report.linked)
        with open_source(f"hdf5:/{domain}") as linked, open_source(tmp_path / "sample.h5") as file:
            for name in report.linked:
                np.testing.assert_array_equal(linked[name][...], file[name][...])


def test_what_a_killed_writer_left_goes_with_its_token(hsds, domain, tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["x"] = 1
    folder, _, name = domain.rpartition("/")
    HsdsClient(HsdsOptions()).put("/", f"{folder}/.{name}.mine.part", {})
    load_domain(path, domain, token="yours")
    assert f".{name}.mine.part" in names_in(hsds.home)
    load_domain(path, domain, token="mine", overwrite=True)
    assert f".{name}.mine.part" not in names_in(hsds.home)


@pytest.fixture
def con():
    with dn.Connection(secrets.token_hex(8), backend="ram") as con:
        yield con
        for name in list(con):
            del con[name]


EMPTY = {
    "none": np.zeros(0),
    "rows": np.zeros((2, 0), "i4"),
    "columns": np.zeros((0, 3), "f4"),
    "fixed": np.zeros(0, "S3"),
    "complex": np.zeros(0, "c16"),
    "flags": np.zeros((0, 2), bool),
    "record": np.zeros(0, [("n", "i2"), ("x", "f8")]),
}


def test_empty_attributes_stay_empty(hsds, domain, tmp_path):
    path = tmp_path / "empty.h5"
    with h5py.File(path, "w") as file:
        for name, value in EMPTY.items():
            file.attrs[name] = value
        file.attrs.create("texts", np.zeros(0, object), dtype=h5py.string_dtype())
        file.attrs.create("refers", np.zeros((2, 0), object), dtype=h5py.ref_dtype)
        file["x"] = np.arange(3)
    load_domain(path, domain)
    with h5pyd.File(domain, "r") as there, h5py.File(path) as here:
        assert set(there.attrs) == set(here.attrs)
        for name in here.attrs:
            assert np.shape(there.attrs[name]) == here.attrs[name].shape, name
    with open_source(f"hdf5:/{domain}") as source:
        for name, value in EMPTY.items():
            found = source.groups()[""][name]
            assert (found.shape, found.dtype) == (value.shape, value.dtype), name


def test_empty_attributes_are_exported_as_such(hsds, con, domain):
    con.create_dataset("x", data=np.arange(3), attrs={**EMPTY, "words": np.zeros(0, "U3")})
    con.export(f"hdf5:/{domain}")
    with h5pyd.File(domain, "r") as there:
        for name, value in EMPTY.items():
            assert np.shape(there["x"].attrs[name]) == value.shape, name
        assert there["x"].attrs["words"].shape == (0,)


@pytest.mark.parametrize("dtype", ["g", "G", [("n", "i4"), ("x", "g")]])
def test_what_hsds_has_no_type_for_is_named(hsds, con, domain, dtype):
    values = np.zeros(3, dtype)
    if values.dtype.itemsize == np.dtype("f8").itemsize:
        pytest.skip("a long double is a double here")
    con.create_dataset("fine", data=np.arange(3), attrs={"long": np.longdouble(1) / 3})
    con.create_dataset("entry/long", data=values)
    with pytest.raises(errors.RefusedError, match=r"'entry/long'.*HSDS.*float128"):
        con.export(f"hdf5:/{domain}")
    con["fine"].export(f"hdf5:/{domain}")
    assert open_source(f"hdf5:/{domain}").names() == ["fine"]


def test_what_a_killed_export_left_is_swept_by_the_next(hsds, domain, tmp_path):
    client = HsdsClient(HsdsOptions())
    folder, _, name = domain.rpartition("/")
    process = subprocess.run(
        [sys.executable, "-c", "from dosna.io.processes import maker; print(maker())"],
        capture_output=True,
        text=True,
    )
    dead, living = process.stdout.strip(), maker()
    foreign = "01234567-1-1-89ab"
    for token in (dead, living, foreign):
        client.put("/", f"{folder}/.{name}.{token}.part", {})
    with dn.Connection("x", backend="ram") as con:
        ds = con.create_dataset("a", data=np.arange(5))
        ds.export(f"hdf5:/{domain}")
        left = {n for n in names_in(hsds.home) if name in n}
        assert left == {name, f".{name}.{living}.part", f".{name}.{foreign}.part"}
        # Killed after the old domain's path was taken away.
        root = client.get("/", domain)["root"]
        client.put("/", f"{folder}/.{name}.{dead}.part.old", {"linked_domain": domain})
        client.delete("/", domain, keep_root=1)
        client.put("/", f"{folder}/.{name}.{dead}.part", {})
        with pytest.raises(errors.DatasetExistsError):
            ds.export(f"hdf5:/{domain}")
        assert client.get("/", domain)["root"] != root
        assert {n for n in names_in(hsds.home) if name in n} == left
        con.del_dataset("a")
