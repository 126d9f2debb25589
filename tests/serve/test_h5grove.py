"""h5grove's protocol over a connection, compared with h5grove's own routes over an export."""

from __future__ import annotations

import json
import secrets

import numpy as np
import pytest
from support import require

import dosna as dn
from dosna.testing.samples import ALL_DTYPES, sample

for package in ("h5grove", "starlette", "flask"):
    require(package)

from asking import Asking  # noqa: E402
from flask import Flask  # noqa: E402
from h5grove.flask_utils import BLUEPRINT  # noqa: E402
from starlette.applications import Starlette  # noqa: E402

from dosna.serve.h5grove.routes import routes  # noqa: E402
from dosna.serve.served import Served  # noqa: E402
from dosna.web import Limits  # noqa: E402


def asking(con, limits=None):
    return Asking(Starlette(routes=routes(Served(con, limits=limits))))


SHAPE = (4, 6, 5)
VOLUME = np.arange(120, dtype="f4").reshape(SHAPE)
# HDF5 has no type for texts of fixed length in UCS-4, and for dates and times.
ALIKE = {
    f"kinds/d{k}": dtype
    for k, dtype in enumerate(ALL_DTYPES)
    if not any(part in str(np.dtype(dtype)) for part in "UMm")
}
ATTRIBUTES = {
    "text": "grün",
    "whole": 3,
    "real": 2.5,
    "yes": True,
    "complex": 1 + 2j,
    "none": None,
    "small": np.float32(0.1),
    "numbers": [1, 2, 3],
    "texts": ["a", "ö"],
    "matrix": np.arange(6, dtype="<i2").reshape(2, 3),
    "nested": {"a": [1, None]},
    "mixed": [1, "a"],
}


def make(con):
    con.create_dataset("entry/volume", data=VOLUME, chunk_size=(2, 3, 5), attrs=ATTRIBUTES)
    con.create_dataset("entry/scalar", data=np.array(2.5, "f4"))
    con.create_dataset("entry/one_text", data=np.array("déjà vu", np.dtypes.StringDType()))
    con.create_dataset("entry/none", data=np.zeros((0, 3), "i4"))
    con.create_dataset("entry/gaps", data=np.array([1.5, np.nan, np.inf, -2]))
    for name, dtype in ALIKE.items():
        con.create_dataset(name, data=sample((3, 4), dtype))
    con.set_group_attrs("", {"default": "entry"})
    con.set_group_attrs("entry", {"NX_class": "NXentry", "count": 4})


@pytest.fixture(scope="module")
def con():
    with dn.Connection(f"{secrets.token_hex(6)}/protocol", backend="ram") as con:
        make(con)
        yield con


@pytest.fixture(scope="module")
def ask(con):
    return asking(con)


@pytest.fixture(scope="module")
def oracle(con, tmp_path_factory):
    """Give a function that asks h5grove's own routes about an export of the connection."""
    folder = tmp_path_factory.mktemp("oracle")
    con.export(folder / "all.h5")
    app = Flask("oracle")
    app.config["H5_BASE_DIR"] = str(folder)
    app.register_blueprint(BLUEPRINT)
    client = app.test_client()

    def ask(address, **parameters):
        return client.get(address, query_string={"file": "all.h5", **parameters})

    return ask


def check_alike(ask, oracle, address, **parameters):
    found = ask(f"/h5grove{address}", **parameters)
    expected = oracle(address, **parameters)
    assert found.status_code == expected.status_code == 200, (found.text, expected.text)
    assert found.content == expected.data
    for name in ("content-type", "content-disposition"):
        assert found.headers.get(name, "")[:24] == expected.headers.get(name, "")[:24]


def test_descriptions_are_those_of_h5grove(ask, oracle):
    for path in ("/", "/entry", "/kinds", "/entry/volume", "/entry/none", *ALIKE):
        path = "/" + path.strip("/")
        found, expected = ask("/h5grove/meta", path=path).json(), oracle("/meta", path=path).json
        if found["kind"] == "group":
            found["children"].sort(key=lambda child: child["name"])
            expected["children"].sort(key=lambda child: child["name"])
        assert _without_layout(found) == _without_layout(expected), path


def _without_layout(meta):
    """Leave out what an export may choose: the chunks of what is one chunk, and filters."""
    kept = {k: v for k, v in meta.items() if k not in ("chunks", "filters")}
    if "children" in kept:
        kept["children"] = [_without_layout(child) for child in kept["children"]]
    return kept


def test_chunks_are_described(ask):
    assert ask("/h5grove/meta", path="/entry/volume").json()["chunks"] == [2, 3, 5]
    assert ask("/h5grove/meta", path="/entry/scalar").json()["chunks"] is None


def test_surrogates_hide_nothing_else():
    """JSON of other programs, and names of files that are not UTF-8, may have them."""
    with dn.Connection(secrets.token_hex(8), backend="ram", engine="cpu") as con:
        texts = np.array(["a", "\udc80é"])
        con.create_dataset("x", data=texts, attrs={"bad": "\ud800", "good": 1, "both": texts})
        ask = asking(con)
        found = ask("/h5grove/attr", path="/x").json()
        assert found == {"bad": r"\ud800", "good": 1, "both": ["a", r"\udc80é"]}
        assert ask("/h5grove/data", path="/x").json() == ["a", r"\udc80é"]


def test_attributes_are_those_of_h5grove(ask, oracle):
    for path in ("/entry/volume", "/entry", "/"):
        found, expected = ask("/h5grove/attr", path=path), oracle("/attr", path=path)
        assert found.json() == expected.json
    parameters = {"path": "/entry/volume", "attr_keys": ["text", "matrix"]}
    assert ask("/h5grove/attr", **parameters).json() == oracle("/attr", **parameters).json
    assert ask("/h5grove/attr", path="/entry", attr_keys="nothing").status_code == 404


@pytest.mark.parametrize("name", ["entry/volume", "entry/none", "entry/gaps", *ALIKE])
def test_values_are_those_of_h5grove(ask, oracle, con, name):
    form = {"format": "bin", "dtype": "safe"} if con[name].dtype.kind in "biufc" else {}
    if con[name].dtype.kind == "V" and con[name].dtype.names is None:
        form = {"format": "bin"}  # as H5Web asks for opaque values
    elif not con[name].dtype.isnative and con[name].dtype.kind in "iufc":
        # h5grove 4.0 fails for the JSON of these.
        values = con[name][...]
        found = np.array(ask("/h5grove/data", path=f"/{name}").json())
        if values.dtype.kind == "c":
            found = found[..., 0] + 1j * found[..., 1]
        assert (found == values).all()
    else:
        check_alike(ask, oracle, "/data", path=f"/{name}", flatten="true")
        check_alike(ask, oracle, "/data", path=f"/{name}")
    check_alike(ask, oracle, "/data", path=f"/{name}", **form)


@pytest.mark.parametrize("selection", ["1", "3,:,2", "0:3:2,1:,::2", ":,:,0", "1,2,3", "2:2"])
def test_selections_are_those_of_h5grove(ask, oracle, selection):
    for form in ("json", "bin"):
        check_alike(ask, oracle, "/data", path="/entry/volume", selection=selection, format=form)
    check_alike(ask, oracle, "/stats", path="/entry/volume", selection=selection)


@pytest.mark.parametrize("form", ["npy", "csv", "tiff"])
def test_exports_are_those_of_h5grove(ask, oracle, form):
    check_alike(ask, oracle, "/data", path="/entry/volume", selection="1,:,:", format=form)


def test_scalars_and_statistics_are_those_of_h5grove(ask, oracle):
    for name in ("scalar", "one_text"):
        check_alike(ask, oracle, "/data", path=f"/entry/{name}")
    for name in ("scalar", "gaps", "none", "volume"):
        check_alike(ask, oracle, "/stats", path=f"/entry/{name}")


@pytest.mark.parametrize("dtype", [">i4", "<f8", "S3"])
def test_a_single_element_has_the_type_of_its_description(dtype):
    values = np.array([[1, 23]], dtype)
    with dn.Connection(secrets.token_hex(8), backend="ram", engine="cpu") as con:
        con.create_dataset("x", data=values)
        con.create_dataset("scalar", data=values[0, 0:1].reshape(()))
        ask = asking(con)
        part = ask("/h5grove/data", path="/x", selection="0,1", format="bin")
        assert part.content == values[0, 1:].tobytes()
        whole = ask("/h5grove/data", path="/scalar", format="bin")
        assert whole.content == values[0, :1].tobytes()


def test_paths_are_those_of_h5grove(ask, oracle):
    for path in ("/", "/entry"):
        found, expected = ask("/h5grove/paths", path=path).json(), oracle("/paths", path=path).json
        assert sorted(found) == sorted(expected)


@pytest.mark.parametrize(("order", "group"), [("<", "little"), (">", "big")])
def test_what_hdf5_has_no_type_for_is_text(con, ask, order, group):
    record = np.dtype([("t", "M8[D]"), ("u", "U2"), ("w", "m8[s]"), ("v", "i2", (2,))])
    values = {
        "dates": (np.array(["2020-01-02", "NaT"], "M8[D]"), ["2020-01-02", "NaT"]),
        "spans": (np.array([5, 7], "m8[s]"), [5, 7]),
        "texts": (np.array(["é", ""], "U3"), ["é", ""]),
        "bytes": (np.array([b"\xff", b"ab"], "S2"), ["\\xff", "ab"]),
        "records": (
            np.array([("2020-01-02", "ä", 3, [1, 2])], record),
            [["2020-01-02", "ä", 3, [1, 2]]],
        ),
    }
    classes = {"dates": 3, "spans": 0, "texts": 3, "bytes": 3, "records": 6}
    for name, (array, expected) in values.items():
        array = array.astype(array.dtype.newbyteorder(order))
        con.create_dataset(f"{group}/{name}", data=array)
        path = f"/{group}/{name}"
        assert ask("/h5grove/meta", path=path).json()["type"]["class"] == classes[name]
        assert ask("/h5grove/data", path=path, flatten="true").json() == expected
    members = ask("/h5grove/meta", path=f"/{group}/records").json()["type"]["members"]
    assert members[3]["dims"] == [2]
    spans = ask("/h5grove/data", path=f"/{group}/spans", format="bin", dtype="safe").content
    assert np.frombuffer(spans, "<i8").tolist() == [5, 7]


def test_errors_have_a_message_and_a_status(ask):
    for status, noun, address, parameters in [
        (404, "not a valid path", "/meta", {"path": "/nothing"}),
        (404, "not a valid path", "/meta", {"path": "/entry/../entry"}),
        (404, "not a valid path", "/data", {"path": "/en\0try"}),
        (422, "not a dataset", "/data", {"path": "/entry"}),
        (422, "not a group", "/paths", {"path": "/entry/volume"}),
        (422, "index", "/data", {"path": "/entry/volume", "selection": "a"}),
        (422, "axes", "/data", {"path": "/entry/volume", "selection": "1,1,1,1"}),
        (422, "bounds", "/data", {"path": "/entry/volume", "selection": "7"}),
        (422, "format", "/data", {"path": "/entry/volume", "format": "exe"}),
        (422, "dtype", "/data", {"path": "/entry/volume", "dtype": "other"}),
        (422, "csv", "/data", {"path": "/entry/volume", "format": "csv"}),
        (422, "binary", "/data", {"path": "/entry/one_text", "format": "bin"}),
        (422, "numbers", "/stats", {"path": "/entry/one_text"}),
    ]:
        answer = ask(f"/h5grove{address}", **parameters)
        assert answer.status_code == status, (parameters, answer.text)
        assert noun in answer.json()["message"]


def test_large_answers_are_refused_before_anything_is_read(con):
    ask = asking(con, Limits(answer_bytes=200))
    small = ask("/h5grove/data", path="/entry/volume", selection="1,:,:", format="bin")
    assert small.content == VOLUME[1].tobytes()
    large = ask("/h5grove/data", path="/entry/volume", format="bin")
    assert large.status_code == 413
    assert "select" in large.json()["message"]


def test_a_child_that_cannot_be_opened_does_not_hide_the_others(tmp_path):
    with dn.Connection(str(tmp_path), backend="file") as con:
        con.create_dataset("good", data=[1, 2])
        con.create_dataset("bad", data=[1, 2])
        document = tmp_path / "bad" / "zarr.json"
        meta = json.loads(document.read_text())
        document.write_text(json.dumps({**meta, "data_type": "mylab.unknown"}))
        children = asking(con)("/h5grove/meta").json()["children"]
    kinds = {child["name"]: child["kind"] for child in children}
    assert kinds["good"] == "dataset"
    assert kinds["bad"] not in ("dataset", "group")


def test_only_the_chunks_of_a_slice_are_read(monkeypatch):
    data = np.arange(8 * 8 * 8, dtype="u2").reshape(8, 8, 8)
    with dn.Connection("counted", backend="ram") as con:
        ds = con.create_dataset("x", data=data, chunk_size=(2, 2, 2))
        ask = asking(con)
        kind, read = type(ds.instance), []
        original = kind.read_many

        def read_many(self, out, tasks):
            tasks = list(tasks)
            read.extend(task.idx for task in tasks)
            return original(self, out, tasks)

        monkeypatch.setattr(kind, "read_many", read_many)
        for axis, selection in enumerate(("3,:,:", ":,3,:", ":,:,3")):
            read.clear()
            answer = ask("/h5grove/data", path="/x", selection=selection, format="bin")
            assert answer.content == data.take(3, axis).tobytes()
            assert len(set(read)) == len(read) == 16
            assert {idx[axis] for idx in read} == {1}


def test_a_description_is_of_the_dataset_as_it_is_now(tmp_path):
    with dn.Connection(str(tmp_path), backend="file") as con:
        ds = con.create_dataset("x", data=np.arange(4), chunk_size=2)
        ask = asking(con)
        assert ask("/h5grove/data", path="/x").json() == [0, 1, 2, 3]
        ds.append([4, 5])
        assert ask("/h5grove/meta", path="/x").json()["shape"] == [6]
        assert ask("/h5grove/data", path="/x").json() == [0, 1, 2, 3, 4, 5]


def test_values_are_of_the_dataset_as_it_is_now(tmp_path):
    with dn.Connection(str(tmp_path), backend="file") as con:
        con.create_dataset("x", data=[1, 2, 3, 4])
        ask = asking(con)
        assert ask("/h5grove/data", path="/x").json() == [1, 2, 3, 4]
        for values in ([[5.5], [6.5]], [7, 8], ["a"]):
            del con["x"]
            con.create_dataset("x", data=values)
            assert ask("/h5grove/data", path="/x").json() == values
        del con["x"]
        con.create_dataset("x", data=[1, 3])
        assert ask("/h5grove/stats", path="/x").json()["mean"] == 2


def test_statistics_of_the_greatest_numbers():
    with dn.Connection("greatest", backend="ram") as con:
        ask = asking(con)
        for values in (np.full(5, 2**64 - 1, "u8"), np.full(5, -(2**63)), np.full(5, 1e308)):
            con.create_dataset("x", data=values)
            found = ask("/h5grove/stats", path="/x").json()
            assert found["min"] == found["max"] == values[0]
            assert found["mean"] in (values[0], None)
            del con["x"]
        con.create_dataset("x", data=(np.arange(70_000) % 2 * 4).astype("f2"))
        found = ask("/h5grove/stats", path="/x").json()
        assert (found["mean"], found["std"]) == (2, 2)


def test_integers_of_64_bits_keep_their_digits_in_csv():
    lines = {(2**64 - 1, 0): "u8", (-(2**53) - 1, 5): ">i8"}
    with dn.Connection("digits", backend="ram") as con:
        ask = asking(con)
        for values, dtype in lines.items():
            con.create_dataset(f"x{dtype[-2:]}", data=np.array([values, values], dtype))
            found = ask("/h5grove/data", path=f"/x{dtype[-2:]}", format="csv")
            assert found.headers["content-type"].startswith("text/csv")
            assert found.text.splitlines() == ["{},{}".format(*values)] * 2


def test_pictures_have_two_axes_or_more(ask):
    for path, selection in (("/entry/volume", "0,0"), ("/entry/none", ""), ("/entry/gaps", "")):
        found = ask("/h5grove/data", path=path, selection=selection, format="tiff")
        assert (found.status_code, "tiff" in found.json()["message"]) == (422, True)
