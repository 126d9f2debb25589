"""Trees that are columns already are delivered by a query, as a file of ROOT would be."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from support import require

ak, uproot = require("awkward"), require("uproot")
require("pyarrow")

import dosna as dn  # noqa: E402
from dosna.delivery.transform import (  # noqa: E402
    FORMATS,
    Limits,
    TransformRequest,
    running,
    transform,
)
from dosna.delivery.transform.client import drop_jobs, permit_jobs  # noqa: E402
from dosna.delivery.transform.sandbox import lacking  # noqa: E402
from dosna.errors import (  # noqa: E402
    LimitError,
    MemoryLimitError,
    QueryError,
    RefusedError,
    SourceNotFoundError,
    UnknownNameError,
    WorkerError,
)

confined = pytest.mark.skipif(bool(lacking()), reason=lacking() or "-")


@pytest.fixture(scope="module")
def events():
    return require("skhep_testdata").data_path("uproot-HZZ.root")


@pytest.fixture(scope="module")
def place(tmp_path_factory, events):
    url = f"file:{tmp_path_factory.mktemp('stored')}"
    con, _ = dn.open_url(url + "//")
    with con:
        con.ingest(f"{events}:events")
    return f"dosna://{url}//events"


def run(folder, source, selection, format="parquet", codegen="uproot-raw", **more):
    name = "result" + FORMATS[format]
    text = json.dumps(selection)
    return transform(TransformRequest(source, codegen, text, format, str(folder), name, **more))


SELECTION = {
    "treename": "events",
    "aliases": {"met": "sqrt(MET_px**2 + MET_py**2)"},
    "expressions": ["Muon_Px", "met", "sum(Muon_Px > 20)"],
    "cut": "(NMuon >= 2) & any(Muon_Px > 20)",
}


@pytest.mark.parametrize("format", FORMATS)
def test_results_are_those_of_the_file(tmp_path, events, place, monkeypatch, format):
    (tmp_path / "file").mkdir()
    expected = run(tmp_path / "file", events, [SELECTION], format)
    monkeypatch.setattr(running, "_confined", None)  # no process of code
    found = run(tmp_path, place, [SELECTION], format)
    assert found.rows == expected.rows
    if format == "parquet":
        one, other = ak.from_parquet(found.path), ak.from_parquet(expected.path)
    elif format.startswith("root"):
        one, other = (uproot.open(each.path)["events"].arrays() for each in (found, expected))
    else:
        return
    assert one.fields == other.fields
    assert ak.array_equal(one, other, dtype_exact=False)


def test_columns_by_filters(tmp_path, place):
    for chosen, expected in {
        "MET_*": ["MET_px", "MET_py"],
        "/met_p[xy]$/i": ["MET_px", "MET_py"],
        "NMuon": ["NMuon"],
    }.items():
        found = run(tmp_path, place, [{"treename": "events", "filter_name": [chosen, "absent"]}])
        assert ak.from_parquet(found.path).fields == expected
        assert "absent" in found.log
    kinds = [{"treename": "events", "filter_typename": "bool"}]
    assert ak.from_parquet(run(tmp_path, place, kinds).path).fields == ["triggerIsoMu24"]
    none = [{"treename": "events", "filter_name": "MET_px", "cut": "NMuon < 0"}]
    assert run(tmp_path, place, none).rows == 0


def test_filters_take_no_longer_than_names_are(tmp_path):
    with uproot.recreate(tmp_path / "long.root") as file:
        file["t"] = {"n" * 60: np.arange(3)}
    url = f"file:{tmp_path / 'store'}"
    os.mkdir(tmp_path / "store")
    con, _ = dn.open_url(url + "//")
    with con:
        con.ingest(f"{tmp_path / 'long.root'}:t")
    # Python's own expressions would take years.
    with pytest.raises(UnknownNameError, match="no column"):
        run(tmp_path, f"dosna://{url}//t", [{"treename": "t", "filter_name": r"/(\w+)+!/"}])
    with pytest.raises(QueryError, match="regular"):
        run(tmp_path, f"dosna://{url}//t", [{"treename": "t", "filter_name": r"/(?=n)n/"}])


def test_steps_are_bounded(tmp_path, place):
    with uproot.recreate(tmp_path / "long.root") as file:
        file["t"] = {"x": np.arange(1_200_000) % 100}
    url = f"file:{tmp_path / 'store'}"
    os.mkdir(tmp_path / "store")
    con, _ = dn.open_url(url + "//")
    with con:
        con.ingest(f"{tmp_path / 'long.root'}:t")
    found = run(tmp_path, f"dosna://{url}//t", [{"treename": "t", "cut": "x < 50"}])
    assert found.rows == 600_000
    assert require("pyarrow.parquet").ParquetFile(found.path).num_row_groups > 1
    with pytest.raises(MemoryLimitError, match="chunk"):
        run(tmp_path, place, [{"treename": "events"}], limits=Limits(memory="1 MiB"))


def test_errors_say_what_exists(tmp_path, place):
    for selection, error, noun in [
        ({"treename": "event"}, SourceNotFoundError, "events"),
        ({"treename": ["events", "a"], "fail_on_missing_trees": True}, SourceNotFoundError, "'a'"),
        ({"treename": "events", "filter_name": "absent"}, UnknownNameError, "NJet"),
        ({"treename": "events", "filter_name": "/(/"}, QueryError, "regular"),
        ({"treename": "events", "expressions": "MET_pz"}, UnknownNameError, "MET_py"),
        ({"treename": "events", "cut": "firsts(Muon_Px) > 1"}, UnknownNameError, "firsts"),
        ({"treename": "events", "cut": "Muon_Px > 1"}, QueryError, "any"),
        ({"copy_histograms": "*"}, RefusedError, "ROOT"),
    ]:
        with pytest.raises(error, match=noun):
            run(tmp_path, place, [selection])
    with pytest.raises(RefusedError, match="uproot-raw"):
        run(tmp_path, place, [], codegen="python")
    with pytest.raises(LimitError, match="seconds"):
        run(tmp_path, place, [{"treename": "events"}], limits=Limits(seconds=1e-9))
    assert [one.name for one in tmp_path.iterdir()] == []


def test_queries_for_nobody_end(tmp_path, place):
    drop_jobs(str(tmp_path))
    try:
        with pytest.raises(WorkerError, match="deleted"):
            run(tmp_path, place, [{"treename": "events", "filter_name": "MET_px"}])
    finally:
        permit_jobs(str(tmp_path))


@confined
@pytest.mark.parametrize("backend", ["file", "hdf5"])
def test_trees_in_served_folders_are_read_from_them_alone(tmp_path, events, backend):
    served, others = tmp_path / "served", tmp_path / "others"
    for folder in (served, others):
        folder.mkdir()
        con, _ = dn.open_url(f"{backend}:{folder}//")
        with con:
            con.ingest(f"{events}:events", select=["NMuon", "Muon_Px"])
    source, within = f"dosna://{backend}:{served}//events", {"within": (str(served),)}
    chosen = [{"treename": "events", "filter_name": ["NMuon", "Muon_Px"], "cut": "NMuon > 1"}]
    found = ak.from_parquet(run(tmp_path, source, chosen, **within).path)
    expected = ak.from_parquet(run(tmp_path, source, chosen).path)
    assert ak.array_equal(found, expected, dtype_exact=False)
    with pytest.raises(UnknownNameError, match="NMuon"):
        run(tmp_path, source, [{"treename": "events", "expressions": ["absent"]}], **within)
    with pytest.raises(RefusedError, match="uproot-raw"):
        run(tmp_path, source, [], codegen="python", **within)
    for path in sorted(served.rglob("*NMuon*")):
        path.rename(path.with_name("old"))
        path.symlink_to(others / path.relative_to(served))
    assert run(tmp_path, source, chosen).rows == len(found)
    with pytest.raises(dn.errors.DosnaError, match=r"ermission|cannot"):
        run(tmp_path, source, chosen, **within)
