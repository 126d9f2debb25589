"""What a selection may say, and the errors that say what exists instead."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support import require

ak, uproot = require("awkward"), require("uproot")
require("pyarrow")

from dosna.delivery.transform import TransformRequest, transform  # noqa: E402
from dosna.delivery.transform.functions import language  # noqa: E402
from dosna.errors import (  # noqa: E402
    ConfigurationError,
    QueryError,
    QueryTypeError,
    SourceError,
    SourceNotFoundError,
    UnknownNameError,
)


@pytest.fixture
def events():
    return require("skhep_testdata").data_path("uproot-HZZ.root")


def run(folder, source, selection, codegen="uproot-raw", format="parquet"):
    text = selection if isinstance(selection, str) else json.dumps(selection)
    return transform(TransformRequest(str(source), codegen, text, format, str(folder), "result"))


@pytest.mark.parametrize(
    ("selection", "error", "noun"),
    [
        ("{", QueryError, "JSON"),
        ({"treename": "events"}, QueryError, "list"),
        ([{"filter_name": "x"}], QueryError, "treename"),
        ([{"treename": "events", "cut": ["a"]}], QueryError, "cut"),
        ([{"treename": "events", "aliases": {"a": 1}}], QueryError, "aliases"),
        ([{"treename": "events", "fail_on_missing_trees": "no"}], QueryError, "true or false"),
        ([{"treename": "event"}], SourceNotFoundError, "it has events"),
        ([{"treename": "events", "filter_name": "MET_pz"}], UnknownNameError, "MET_py"),
        ([{"treename": "events", "filter_name": "no_*"}], UnknownNameError, "NJet"),
        ([{"treename": "events", "filter_typename": "char"}], UnknownNameError, "NJet"),
        ([{"treename": "events", "expressions": "MET_pz"}], UnknownNameError, "MET_py"),
        ([{"treename": "events", "cut": "MET_pz > 1"}], UnknownNameError, "MET_py"),
        ([{"treename": "events", "expressions": "MET_px +"}], QueryError, "syntax"),
        ([{"treename": "events", "cut": "any(MET_px)"}], QueryTypeError, "axis"),
        ([{"treename": ["events", "no"], "fail_on_missing_trees": True}], SourceError, "events"),
        ([{"treename": ["events", "events"]}, {"treename": "events"}], QueryError, "two"),
        ([{"copy_histograms": "hist*"}], UnknownNameError, "events"),
    ],
)
def test_errors_say_what_exists(tmp_path, events, selection, error, noun):
    with pytest.raises(error, match=noun) as caught:
        run(tmp_path, events, selection)
    assert type(caught.value).__module__ == "dosna.errors"
    assert list(tmp_path.iterdir()) == []


def test_what_uproot_ignores_for_an_rntuple_is_refused(tmp_path):
    source = tmp_path / "fields.root"
    with uproot.recreate(source) as file:
        file.mkrntuple("t", {"x": np.arange(5), "jets": ak.Array([[{"pt": 1.0, "eta": 2.0}]] * 5)})
    for change, error in (
        ({"cut": "x > 2"}, QueryTypeError),
        ({"cut": "(((", "expressions": "x"}, QueryTypeError),
        ({"expressions": "y", "aliases": {"y": "x"}}, QueryTypeError),
        ({"expressions": ["x", "x + 1"]}, UnknownNameError),
        ({"expressions": "z"}, UnknownNameError),
    ):
        with pytest.raises(error, match=r"of .*fields\.root"):
            run(tmp_path, source, [{"treename": "t", **change}])
    selection = [{"treename": "t", "expressions": ["x", "jets.pt"]}]
    found = ak.from_parquet(run(tmp_path, source, selection).path)
    assert found.tolist() == [{"x": n, "jets": [{"pt": 1.0}]} for n in range(5)]


def test_files_that_cannot_be_opened(tmp_path):
    selection = [{"treename": "events"}]
    with pytest.raises(SourceNotFoundError, match="path"):
        run(tmp_path, tmp_path / "none.root", selection)
    broken = tmp_path / "broken.root"
    broken.write_bytes(b"no file of ROOT" * 100)
    with pytest.raises(SourceError, match="damaged"):
        run(tmp_path, broken, selection)


def test_what_is_missing_in_one_file_is_logged(tmp_path, events):
    selection = [{"treename": ["events", "Runs"], "filter_name": ["MET_px", "genWeight"]}]
    result = run(tmp_path, events, selection)
    assert ak.from_parquet(result.path).fields == ["MET_px"]
    assert "Runs" in result.log
    assert "genWeight" in result.log


def test_functions_work_within_entries_unless_asked_otherwise(tmp_path, events):
    tree = uproot.open(events)["events"]
    pt = tree["Muon_Px"].array()
    within = [{"treename": "events", "expressions": "sum(Muon_Px)", "cut": "any(Muon_Px > 20)"}]
    found = ak.from_parquet(run(tmp_path, events, within).path)
    assert ak.array_equal(found["sum(Muon_Px)"], ak.sum(pt, axis=1)[ak.any(pt > 20, axis=1)])
    axis = [{"treename": "events", "expressions": "max(Muon_Px, axis=-1)"}]
    found = ak.from_parquet(run(tmp_path, events, axis).path)
    assert found["max(Muon_Px, axis=-1)"].tolist() == ak.max(pt, axis=-1).tolist()
    assert language(standard_axis=True).functions["sum"] is ak.sum
    assert language(standard_axis=False).functions["flatten"](ak.Array([[[1], [2]]])).tolist() == [
        [1, 2]
    ]


def test_aliases(tmp_path, events):
    selection = [
        {
            "treename": "events",
            "aliases": {"met2": "MET_px**2 + MET_py**2"},
            "expressions": ["met2", "half"],
        }
    ]
    selection[0]["aliases"]["half"] = "met2 / 2"
    found = ak.from_parquet(run(tmp_path, events, selection).path)
    assert ak.all(found.half * 2 == found.met2)


def test_requests_are_checked(tmp_path):
    for change in ({"codegen": "topcp"}, {"format": "csv"}, {"name": "../x"}, {"name": ".x"}):
        given = {"codegen": "python", "format": "arrow", "name": "x", **change}
        with pytest.raises(ConfigurationError):
            TransformRequest("a.root", selection="", folder=str(tmp_path), **given)
