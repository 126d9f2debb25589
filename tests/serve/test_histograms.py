"""Histograms of trees beside those of NumPy and Boost.Histogram."""

from __future__ import annotations

import json
import secrets
import tracemalloc
from importlib import resources

import numpy as np
import pytest
from kept_trees import put_tree
from support import require

import dosna as dn
from dosna import errors
from dosna.columns import find_trees
from dosna.serve.trees.describing import describe
from dosna.serve.trees.filling import HistogramRequest, Variable, fill_histogram
from dosna.serve.trees.histogram import Axis, Extremes, Histogram, Moments

ak = require("awkward")

RANDOM = np.random.default_rng(0)
ENTRIES = 1000
COUNTS = RANDOM.integers(0, 5, ENTRIES)
PT = ak.unflatten(RANDOM.exponential(20, COUNTS.sum()).astype("f4"), COUNTS)
ARRAYS = {
    "run": RANDOM.integers(3, 9, ENTRIES),
    "met": RANDOM.exponential(30, ENTRIES),
    "nan": np.where(np.arange(ENTRIES) % 7 == 0, np.nan, np.sqrt(np.arange(ENTRIES))),
    "ok": RANDOM.random(ENTRIES) > 0.3,
    "pt": PT,
    "eta": ak.unflatten(RANDOM.normal(size=COUNTS.sum()), COUNTS),
    "jets": ak.Array([[[n * 0.618, n + 0.123]] * (n % 3) for n in range(ENTRIES)]),
    "corner": RANDOM.random((ENTRIES, 3)),
    "lead": ak.max(PT, axis=1),
    "name": [f"n{n % 3}" for n in range(ENTRIES)],
    "hit": ak.Array([{"x": n / 3, "y": 1} for n in range(ENTRIES)]),
    "odd name": np.arange(ENTRIES),
}


@pytest.fixture(scope="module", params=[("cpu", {}), ("joblib", {"njobs": 2})])
def con(request):
    engine, options = request.param
    name = secrets.token_hex(8)
    with dn.Connection(name, backend="ram", engine=engine, engine_kw=options) as connection:
        put_tree(connection, "Events", ARRAYS, 150, chunk_entries=150)
        yield connection


def filled(con, *variables, **others):
    made = tuple(v if isinstance(v, Variable) else Variable(v) for v in variables)
    return fill_histogram(con, HistogramRequest("Events", made, **others))


def oracle(found, *columns):
    """Return the counts of Boost.Histogram for the same axes."""
    bh = require("boost_histogram")
    axes = [bh.axis.Regular(a.bins, a.lower, a.upper) for a in found.axes]
    other = bh.Histogram(*axes, storage=bh.storage.Int64())
    other.fill(*[np.asarray(column, "f8") for column in columns])
    return other.view(flow=True)


def numbers(name):
    return np.asarray(ak.flatten(ak.drop_none(ak.Array(ARRAYS[name])), axis=None))


@pytest.mark.parametrize(
    "name", ["run", "met", "nan", "ok", "pt", "eta", "jets", "corner", "lead", "odd name"]
)
def test_one_branch(con, name):
    found, values = filled(con, name), numbers(name)
    np.testing.assert_array_equal(found.counts, oracle(found, values))
    good = values[~np.isnan(values)]
    assert found.entries == len(values)
    assert found.counts[1:-1].sum() == len(good)
    (axis,) = found.axes
    assert axis.lower <= good.min() <= good.max() < axis.upper
    counts, _ = np.histogram(good * 1.0, axis.bins, (axis.lower, axis.upper))
    np.testing.assert_array_equal(found.counts[1:-1], counts)
    assert found.statistics["x_mean"] == pytest.approx(good.mean())
    assert found.statistics["x_std"] == pytest.approx(good.std())
    assert (found.statistics["nan"], found.selected) == (np.isnan(values).sum(), ENTRIES)


def test_limits_and_a_selection(con):
    found = filled(con, Variable("pt", 20, (10.0, 50.0)), where="met > 20 && count(pt) >= 2")
    keep = (ARRAYS["met"] > 20) & (COUNTS >= 2)
    values = np.asarray(ak.flatten(PT[keep]))
    np.testing.assert_array_equal(found.counts, oracle(found, values))
    assert found.counts[0] == (values < 10).sum() > 0
    assert found.counts[-1] == (values >= 50).sum() > 0
    assert (found.selected, found.entries) == (keep.sum(), len(values))
    part = filled(con, "met", start=100, stop=320)
    assert part.entries == 220
    assert filled(con, "met", where="met < 0").statistics["inside"] == 0


def test_expressions_and_integers(con):
    found = filled(con, "sqrt(pt[pt > 20])")
    np.testing.assert_array_equal(found.counts, oracle(found, np.sqrt(ak.flatten(PT[PT > 20]))))
    (axis,) = filled(con, "run").axes
    assert (axis.lower, axis.upper, axis.bins) == (2.5, 8.5, 6)
    (axis,) = filled(con, "`odd name`").axes
    assert (axis.lower, axis.upper, axis.bins) == (-0.5, 999.5, 100)
    assert filled(con, Variable("run", 3)).axes[0].bins == 3


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ("met", "run"),
        ("pt", "eta"),
        ("met", "pt"),
        ("pt", "run"),
        ("lead", "met"),
        ("jets", "met"),
        ("jets", "nan"),
        ("lead", "nan"),
    ],
)
def test_two_branches(con, x, y):
    found = filled(con, Variable(x, 30), Variable(y, 20))
    columns = ak.broadcast_arrays(ak.Array(ARRAYS[x]), ak.Array(ARRAYS[y]))
    there = ~ak.is_none(columns[0], axis=0)
    values = [np.asarray(ak.flatten(column[there], axis=None)) for column in columns]
    np.testing.assert_array_equal(found.counts, oracle(found, *values))
    assert found.counts.sum() == len(values[0])
    assert found.nan == np.isnan(values[1]).sum()
    assert found.statistics["y_mean"] == pytest.approx(np.nanmean(values[1]))


def test_others_read_it(con):
    hist = require("hist")
    jsonschema = require("jsonschema")
    from uhi.io.json import object_hook

    schema = resources.files("uhi") / "resources/histogram.schema.json"

    for found in (filled(con, "met"), filled(con, "pt", "eta")):
        text = json.dumps(found.to_uhi(), allow_nan=False)
        jsonschema.validate(json.loads(text), json.loads(schema.read_text()))
        made = hist.Hist(json.loads(text, object_hook=object_hook))
        np.testing.assert_array_equal(made.view(flow=True), found.counts)
        assert [axis.label for axis in made.axes] == [axis.label for axis in found.axes]
        assert made.axes[0].edges[-1] == found.axes[0].upper


@pytest.mark.parametrize(
    ("variables", "where", "error"),
    [
        (["name"], "", errors.QueryTypeError),
        (["hit"], "", errors.QueryTypeError),
        (["pt", "jets"], "", errors.QueryTypeError),
        (["pt", "corner"], "", errors.QueryTypeError),
        (["mett"], "", errors.UnknownNameError),
        (["met +"], "", errors.QueryError),
        (["met"], "pt > 3", errors.QueryTypeError),
    ],
)
def test_refused(con, variables, where, error):
    with pytest.raises(error):
        filled(con, *variables, where=where)


def test_bad_numbers(con):
    for wrong in ({"bins": 0}, {"bins": 1 << 20}, {"limits": (2.0, 1.0)}, {"limits": (0, np.inf)}):
        with pytest.raises(errors.ConfigurationError):
            Variable("met", **wrong)
    with pytest.raises(errors.ConfigurationError, match="bins"):
        filled(con, Variable("met", 1000), Variable("run", 1000))
    with pytest.raises(errors.DatasetNotFoundError):
        fill_histogram(con, HistogramRequest("Other", (Variable("met"),)))


def test_progress_and_memory(con):
    seen = []
    request = HistogramRequest("Events", (Variable("met"),))
    fill_histogram(con, request, lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] > 0
    assert seen == sorted(seen)
    with pytest.raises(errors.MemoryLimitError):
        fill_histogram(con, request, memory_limit=10)


def test_memory_is_bounded(tmp_path):
    with dn.Connection(str(tmp_path), backend="file", engine="cpu") as con:
        rows = np.arange(1 << 23, dtype="f4")
        put_tree(con, "Events", {"x": rows}, 1 << 18, chunk_entries=1 << 18)
        tracemalloc.start()
        try:
            found = fill_histogram(con, HistogramRequest("Events", (Variable("x"),)))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert found.counts.sum() == len(rows)
        assert peak < rows.nbytes


def test_branches_of_a_root_file():
    """Names with slashes and points, records in lists, and lists of lists."""
    require("uproot")
    data = require("skhep_testdata")
    with dn.Connection(secrets.token_hex(8), backend="ram", engine="cpu") as con:
        con.ingest(data.data_path("uproot-issue407.root"), on_error="skip")
        counted = 0
        for name, tree in find_trees(con).items():
            for branch in describe(name, tree)["branches"]:
                for one in [branch, *branch.get("fields", ())]:
                    if one["kind"] not in ("flat", "list", "nested"):
                        continue
                    text = one["expression"]
                    found = fill_histogram(con, HistogramRequest(name, (Variable(text),)))
                    values = con.query(name, None, [f"x = {text}"]).to_awkward().x
                    assert found.entries == ak.count(values, axis=None)
                    counted += 1
        assert counted > 100


@pytest.mark.parametrize(
    "values",
    [
        [0.1, 0.2, 0.7],
        [1e16, 1e16 + 2],
        [-1e308, 1e308],
        [3.0, 3.0],
        [1e-320, 2e-320],
        [0.0, 1.0],
        [-7.3e5, 12.0],
    ],
)
def test_axes_hold_all_values(values):
    found = Extremes()
    found.add(np.array(values))
    axis = found.axis("x")
    assert 1 <= axis.bins <= 102
    assert axis.lower < axis.upper
    histogram = Histogram((axis,))
    histogram.fill([np.array(values)])
    if max(values) < 1e300:
        assert histogram.counts[1:-1].sum() == len(values)


@pytest.mark.parametrize("bins", [1, 7, 1000])
@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("u8", [2**64 - 1]),
        ("u8", [2**64 - 5000, 2**64 - 1]),
        ("i8", [-(2**63), -(2**63) + 3]),
        ("i8", [1_700_000_000_000_000_000, 1_700_000_000_000_000_007]),
        ("f8", [-3.899421730054339, 3.066036739048897]),
        ("f8", [-1e17, 1e-5]),
        ("f8", [1e17, 1e17 + 16]),
    ],
)
def test_a_number_of_bins_holds_all_values_too(kind, values, bins):
    column = np.array(values, kind)
    found = Extremes(kind != "f8")
    found.add(column)
    for axis in (found.axis("x", bins), found.axis("x")):
        assert axis.lower < axis.upper
        histogram = Histogram((axis,))
        histogram.fill([column])
        assert histogram.counts[1:-1].sum() == len(column)


def test_no_values():
    axis = Extremes(True).axis("x")
    assert (axis.lower, axis.upper) == (0.0, 1.0)
    found = Moments()
    found.merge(Moments.of(np.array([])))
    assert (found.count, found.deviation) == (0, 0.0)


def test_edges_belong_to_the_bin_above():
    axis = Axis("x", 0.0, 0.3, 3)
    values = np.array([-1e-9, 0.0, 0.1, 0.2, np.nextafter(0.3, 0), 0.3, np.inf, -np.inf, np.nan])
    found = Histogram((axis,))
    found.fill([values])
    np.testing.assert_array_equal(found.counts, oracle(found, values))
