"""Results of uproot-raw selections equal what plain uproot reads, in each format."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support import require

ak, uproot, h5py = require("awkward"), require("uproot"), require("h5py")
pa = require("pyarrow")
require("pyarrow.parquet")

from dosna.columns.description import escape  # noqa: E402
from dosna.columns.joining import compose  # noqa: E402
from dosna.columns.layout import form_of  # noqa: E402
from dosna.delivery.transform import FORMATS, Limits, TransformRequest, transform  # noqa: E402
from dosna.delivery.transform.writing import Part, write  # noqa: E402
from dosna.errors import RefusedError  # noqa: E402

REAL = {
    "flat and lists": ("uproot-HZZ.root", "events", {"filter_name": ["MET_*", "Muon_P[xyz]"]}),
    "cut": ("uproot-HZZ.root", "events", {"expressions": ["Jet_Px", "MET_px"], "cut": "NJet > 1"}),
    "nothing is left": ("uproot-HZZ.root", "events", {"filter_name": "MET_px", "cut": "NJet < 0"}),
    "all of a tree": ("uproot-Zmumu.root", "events", {"filter_typename": ["double", "int32_t"]}),
}
NESTED = {
    "lists of lists": ("uproot-vectorVectorDouble.root", "t", {"filter_name": "x"}),
    "text": ("uproot-Zmumu.root", "events", {"expressions": ["Type", "Run"]}),
}


def asked(folder, source, selection, format="parquet", codegen="uproot-raw", **more):
    text = selection if isinstance(selection, str) else json.dumps(selection)
    name = "result" + FORMATS[format]
    return TransformRequest(str(source), codegen, text, format, str(folder), name, **more)


def read(result, format, tree):
    """Return the entries of a tree in a file of any format."""
    if format == "parquet":
        return ak.from_parquet(result.path)
    if format == "arrow":
        with pa.OSFile(result.path) as file:
            return ak.from_arrow(pa.ipc.open_file(file).read_all())
    if format.startswith("root"):
        with uproot.open(result.path) as file:
            return file[tree].arrays()
    with h5py.File(result.path) as file:
        return ak.zip({name: hdf5_column(file[tree], name) for name in file[tree]}, 1)


def hdf5_column(tree, name):
    here = tree[escape(name)]
    form = form_of(json.loads(here.attrs["awkward_form"]))
    length = len(here) if isinstance(here, h5py.Dataset) else len(here["offsets"]) - 1
    return compose(form, 0, length, lambda path, a, b: (here[path] if path else here)[a:b])


def plain(path, tree, selection):
    with uproot.open(path) as file:
        return file[tree].arrays(**selection)


def check_equal(found, expected, counted=()):
    found = found[[name for name in found.fields if name not in counted]]
    assert sorted(found.fields) == sorted(expected.fields)
    for name in expected.fields:
        assert ak.array_equal(found[name], expected[name], equal_nan=True), name
        assert str(found[name].type.content).replace("?", "") == str(expected[name].type.content)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("case", REAL)
def test_values_are_those_of_uproot(tmp_path, case, format):
    file, tree, selection = REAL[case]
    path = require("skhep_testdata").data_path(file)
    result = transform(asked(tmp_path, path, [{"treename": tree, **selection}], format))
    expected = plain(path, tree, selection)
    assert result.rows == len(expected)
    counted = {f"n{name}" for name in expected.fields} if format == "root-file" else ()
    check_equal(read(result, format, tree), expected, counted)
    assert result.size == (tmp_path / ("result" + FORMATS[format])).stat().st_size
    assert [one.name for one in tmp_path.iterdir()] == ["result" + FORMATS[format]]


@pytest.mark.parametrize("format", [f for f in FORMATS if f != "root-file"])
@pytest.mark.parametrize("case", NESTED)
def test_nested_values_are_those_of_uproot(tmp_path, case, format):
    file, tree, selection = NESTED[case]
    path = require("skhep_testdata").data_path(file)
    result = transform(asked(tmp_path, path, [{"treename": tree, **selection}], format))
    check_equal(read(result, format, tree), plain(path, tree, selection))


def test_a_ttree_refuses_what_it_cannot_hold(tmp_path):
    path = require("skhep_testdata").data_path("uproot-vectorVectorDouble.root")
    with pytest.raises(RefusedError, match="root-rntuple"):
        transform(asked(tmp_path, path, [{"treename": "t", "filter_name": "x"}], "root-file"))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """A file with many baskets, two trees alike, another one, and a histogram."""
    path = tmp_path_factory.mktemp("steps") / "a:b.root"
    with uproot.recreate(path) as file:
        for name in ("one", "dir/two"):
            tree = file.mktree(name, {"x": "f8", "y": "var * int64"})
            for n in range(40):
                x = np.arange(5000.0) + n
                tree.extend({"x": x, "y": ak.from_regular(np.arange(10_000).reshape(5000, 2))})
        file["other"] = {"z": np.arange(3)}
        file["hist"] = np.histogram(np.arange(10.0))
    return path


@pytest.mark.parametrize("format", FORMATS)
def test_steps_become_one_tree(tmp_path, steps, format):
    small = Limits(memory="64 MiB")  # steps are a part of it
    result = transform(asked(tmp_path, steps, [{"treename": "one"}], format, limits=small))
    expected = plain(steps, "one", {"filter_name": ["x", "y"]})
    found = read(result, format, "one")
    check_equal(found, expected, {"ny"} if "ny" in found.fields else ())
    if format == "parquet":
        assert pa.parquet.ParquetFile(result.path).num_row_groups > 1


def test_trees_with_their_own_names_and_objects_of_root(tmp_path, steps):
    selection = [
        {"treename": {"one": "low"}, "cut": "x < 10", "filter_name": "x"},
        {"treename": {"one": "high", "other": "rest"}, "filter_name": ["x", "z"]},
        {"copy_histograms": "hist"},
    ]
    result = transform(asked(tmp_path, steps, selection, "root-file"))
    with uproot.open(result.path) as file:
        assert sorted(file.keys(cycle=False)) == ["high", "hist", "low", "rest"]
        assert (file["low/x"].array() < 10).tolist() == [True] * len(file["low/x"].array())
        assert file["hist"].values().sum() == 10
    with pytest.raises(RefusedError, match="hist"):
        transform(asked(tmp_path, steps, selection, "parquet"))


def test_trees_that_are_alike_become_one_table(tmp_path, steps):
    selection = [{"treename": ["one", "dir/two"], "filter_name": "x"}]
    table = pa.parquet.read_table(transform(asked(tmp_path, steps, selection)).path)
    assert table["treename"].value_counts().to_pylist() == [
        {"values": "one", "counts": 200_000},
        {"values": "dir/two", "counts": 200_000},
    ]
    with pytest.raises(RefusedError, match="other"):
        transform(asked(tmp_path, steps, [{"treename": ["one", "other"]}]))


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A file with half a gigabyte of columns."""
    path = tmp_path_factory.mktemp("large") / "large.root"
    with uproot.recreate(path, compression=uproot.ZLIB(1)) as file:
        tree = file.mktree("t", dict.fromkeys("abcd", "float64"))
        for n in range(32):
            tree.extend({name: np.full(1 << 19, n, "f8") for name in "abcd"})
    return path


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_files_may_be_larger_than_the_memory(tmp_path, large, format):
    small = Limits(memory="100 MiB")
    result = transform(asked(tmp_path, large, [{"treename": "t"}], format, limits=small))
    assert result.rows == 32 << 19


def test_missing_values_of_any_kind_in_an_rntuple(tmp_path):
    numbers = ak.mask([5, 6, 7, 8], [True, False, False, True])
    lists = ak.unflatten(ak.mask([1.0, 2.0, 3.0, 4.0], [False, True, False, True]), [1, 0, 2, 1])
    array = ak.zip({"x": numbers, "y": lists, "z": ak.zip({"in": numbers})}, 1)
    path = str(tmp_path / "masks.root")
    write(path, "root-rntuple", [Part("t", lambda: iter([array, array[2:]]), lambda: array[:0])])
    with uproot.open(path) as file:
        assert file["t"].arrays().tolist() == [*array.tolist(), *array[2:].tolist()]
    array = ak.zip({"z": ak.mask(array.z, [True, False, True, True])}, 1)
    with pytest.raises(RefusedError, match="parquet"):
        write(path, "root-rntuple", [Part("t", lambda: iter([array]), lambda: array[:0])])


def test_dates_in_hdf5(tmp_path):
    days = np.array([3, -(10**7), "NaT"], "M8[D]")
    array = ak.zip({"day": days, "spans": ak.unflatten(days - days[0], [2, 0, 1])}, 1)
    path = str(tmp_path / "dates.h5")
    write(path, "hdf5", [Part("t", lambda: iter([array, array[1:]]), lambda: array[:0])])
    with h5py.File(path) as file:
        found = {name: hdf5_column(file["t"], name) for name in array.fields}
    for name in array.fields:
        assert ak.array_equal(
            found[name], ak.concatenate([array[name], array[name][1:]]), equal_nan=True
        )
