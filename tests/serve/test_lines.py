"""Very long lines, shown by fewer points."""

from __future__ import annotations

import secrets

import numpy as np
import pytest
from support import require

import dosna as dn

for package in ("h5grove", "starlette"):
    require(package)

from asking import Asking  # noqa: E402
from starlette.applications import Starlette  # noqa: E402

from dosna.serve.h5grove.lines import MOST_POINTS, Line, is_long, split_path  # noqa: E402
from dosna.serve.h5grove.routes import routes  # noqa: E402
from dosna.serve.served import Served  # noqa: E402

COUNT = 1_000_003


def asking(con):
    return Asking(Starlette(routes=routes(Served(con))))


@pytest.fixture(scope="module")
def values():
    made = np.random.default_rng(4).normal(size=COUNT).astype("f4").cumsum(dtype="f4")
    made[400_000:500_000] = np.nan
    made[-1] = 1e6
    return made


@pytest.fixture(scope="module")
def con(values):
    with dn.Connection(
        f"{secrets.token_hex(6)}/lines", backend="ram", engine="joblib", engine_kw={"njobs": 2}
    ) as con:
        attrs = {"units": "V", "n": 3}
        con.create_dataset("trace", data=values, chunk_size=30_011, attrs=attrs)
        con.create_dataset("short", data=values[:MOST_POINTS], chunk_size=30_011)
        yield con


@pytest.fixture(scope="module")
def ask(con):
    return asking(con)


def extremes(values, step):
    edges = np.arange(0, len(values), step)
    return np.fmin.reduceat(values, edges), np.fmax.reduceat(values, edges)


@pytest.mark.parametrize(
    "part", [None, (0, 300_000), (123_457, 987_654), (COUNT - 250_000, COUNT)]
)
def test_points_are_the_extremes_of_each_bin(con, values, part):
    line = Line.of(con["trace"], part)
    expected = values[line.start : line.stop]
    least, most = extremes(expected, line.step)
    found = line.values().reshape(-1, 2)
    assert found.dtype == values.dtype
    assert np.array_equal(np.sort(found), np.stack([least, most], 1), equal_nan=True)
    assert line.points == len(line.index()) == found.size < MOST_POINTS
    assert line.index()[[0, 2]].tolist() == [line.start, line.start + line.step]


@pytest.mark.parametrize("dtype", ["i1", ">i4", "u8", "<f2", ">f8", "m8[s]", ">m8[s]"])
def test_points_of_every_kind_of_number(dtype):
    values = (np.arange(MOST_POINTS + 5) % 97).astype(dtype)
    with dn.Connection("kinds", backend="ram") as con:
        ds = con.create_dataset("x", data=values, chunk_size=7_001)
        assert is_long(ds)
        least, most = extremes(values.astype("i8"), Line.of(ds).step)
        found = Line.of(ds).values().reshape(-1, 2)
    assert found.dtype == ("<i8" if values.dtype.kind == "m" else dtype)
    assert np.array_equal(found, np.stack([least, most], 1))


@pytest.mark.parametrize("dtype", ["f8", ">f8", ">i4"])
def test_an_axis_that_falls_keeps_its_order(dtype):
    values = -np.arange(MOST_POINTS * 2).astype(dtype)
    with dn.Connection("falling", backend="ram") as con:
        ds = con.create_dataset("x", data=values, chunk_size=7_001)
        assert (np.diff(Line.of(ds).values()) < 0).all()


def test_part_of_few_values_has_all_of_them(con, values):
    line = Line.of(con["trace"], (1000, 1010))
    assert line.values().tolist() == values[1000:1010].tolist()
    assert line.index().tolist() == list(range(1000, 1010))


def test_the_page_sees_a_group_that_says_what_is_shown(ask):
    meta = ask("/h5grove/meta", path="/trace", lines="short").json()
    assert meta["kind"] == "group"
    assert {"n", "units"} < {one["name"] for one in meta["attributes"]}
    attrs = ask("/h5grove/attr", path="/trace", lines="short").json()
    assert (attrs["NX_class"], attrs["signal"], attrs["axes"]) == ("NXdata", "line", ["index"])
    children = {child["name"]: child for child in meta["children"]}
    assert children["line"]["shape"] == children["index"]["shape"]
    title = ask("/h5grove/data", path="/trace/title").json()
    assert f"each {-(-COUNT // (1 << 14))} of {COUNT}" in title
    assert ask("/h5grove/attr", path="/trace/line").json()["long_name"] == "trace (V)"
    line = ask("/h5grove/data", path="/trace/line", format="bin", dtype="safe").content
    assert len(line) == 4 * children["line"]["shape"][0]
    part = next(name for name in children if name.startswith("["))
    assert "values 0 to" in ask("/h5grove/data", path=f"/trace/{part}/title").json()


def test_parts_lead_to_every_value(ask, values):
    path, depth = "/trace", 0
    while True:
        children = ask("/h5grove/meta", path=path, lines="short").json()["children"]
        parts = [child["name"] for child in children if child["name"].startswith("[")]
        if not parts:
            break
        path, depth = f"{path}/{parts[-1]}", depth + 1
    assert depth > 0
    found = ask("/h5grove/data", path=f"{path}/line").json()
    assert found == pytest.approx(values[-len(found) :].tolist(), nan_ok=True)


def test_other_clients_and_shorter_lines_see_datasets(ask):
    assert ask("/h5grove/meta", path="/trace").json()["shape"] == [COUNT]
    assert ask("/h5grove/meta", path="/short", lines="short").json()["shape"] == [MOST_POINTS]
    kinds = {c["name"]: c["kind"] for c in ask("/h5grove/meta", lines="short").json()["children"]}
    assert kinds == {"trace": "group", "short": "dataset"}


def test_within_data_of_nexus_a_line_stays_a_dataset(con, ask, values):
    con.set_group_attrs("scan", {"NX_class": "NXdata", "signal": "counts", "axes": ["time"]})
    con.create_dataset("scan/counts", data=values, chunk_size=50_000, attrs={"units": "V"})
    con.create_dataset("scan/time", data=np.arange(float(COUNT)), chunk_size=50_000)
    children = ask("/h5grove/meta", path="/scan", lines="short").json()["children"]
    assert [child["kind"] for child in children] == ["dataset", "dataset"]
    assert children[0]["shape"] == children[1]["shape"] == [Line.of(con["scan/counts"]).points]
    label = ask("/h5grove/attr", path="/scan/counts", lines="short").json()["long_name"]
    assert label.startswith("counts (V): least and greatest of each")
    time = ask("/h5grove/data", path="/scan/time", lines="short").json()
    assert time == sorted(time)
    whole = ask("/h5grove/data", path="/scan/counts", format="bin")
    assert whole.content == values.tobytes()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/b", None),
        ("a/line", ("a", None, "line")),
        ("a/[3:5]", ("a", (3, 5), None)),
        ("a/b/[0:9]/[3:5]/index", ("a/b", (3, 5), "index")),
        ("[3:5]", None),
        ("line", None),
    ],
)
def test_paths_of_parts(path, expected):
    assert split_path(path) == expected


def test_parts_beyond_the_line_are_empty_and_not_found_elsewhere(ask):
    assert ask("/h5grove/data", path=f"/trace/[{COUNT}:{COUNT + 5}]/line").json() == []
    assert ask("/h5grove/meta", path="/short/[0:5]").status_code == 404
    assert ask("/h5grove/meta", path="/nothing/line").status_code == 404
