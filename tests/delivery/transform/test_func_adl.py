"""Selections of func_adl, which run in an environment of their own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from support import require, require_file

ak, uproot = require("awkward"), require("uproot")
require("pyarrow")

from dosna.delivery.transform import FORMATS, TransformRequest, environment, transform  # noqa: E402
from dosna.delivery.transform.sandbox import lacking  # noqa: E402
from dosna.errors import (  # noqa: E402
    ConfigurationError,
    MissingDependencyError,
    QueryError,
    SourceNotFoundError,
    UnknownNameError,
)

FUNC_ADL = Path(sys.prefix, "func_adl")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(lacking()), reason=lacking() or "-"),
]


@pytest.fixture
def events():
    return require("skhep_testdata").data_path("uproot-HZZ.root")


def run(folder, source, query, format="parquet"):
    require_file(str(FUNC_ADL / "bin" / "python"))
    name = "result" + FORMATS[format]
    return transform(
        TransformRequest(
            str(source), "uproot", query, format, str(folder), name, func_adl=str(FUNC_ADL)
        )
    )


def select(columns, tree="events"):
    names = " ".join(f"'{name}'" for name in columns)
    values = " ".join(f"(attr e '{column}')" for column in columns.values())
    return (
        f"(call Select (call Where (call EventDataset '' '{tree}') "
        "(lambda (list e) (> (attr e 'NMuon') 1))) "
        f"(lambda (list e) (dict (list {names}) (list {values}))))"
    )


@pytest.mark.parametrize("format", FORMATS)
def test_values_are_those_of_uproot(tmp_path, events, format):
    result = run(tmp_path, events, select({"met": "MET_px", "mu": "Muon_Px"}), format)
    with uproot.open(events) as file:
        expected = file["events"].arrays(["MET_px", "Muon_Px"], "NMuon > 1")
    assert result.rows == len(expected)
    if format == "parquet":
        found = ak.from_parquet(result.path)
    elif format.startswith("root"):
        with uproot.open(result.path) as file:
            found = file["servicex"].arrays()
    else:
        return
    assert ak.array_equal(found.met, expected.MET_px)
    assert ak.array_equal(found.mu, expected.Muon_Px)


def test_what_the_client_makes(tmp_path, events):
    query = require("servicex").query.FuncADL_Uproot().FromTree("events")
    text = query.Select(lambda e: {"met": e["MET_px"]}).generate_selection_string()
    found = ak.from_parquet(run(tmp_path, events, text).path)
    with uproot.open(events) as file:
        assert ak.array_equal(found.met, file["events/MET_px"].array())


def test_errors_say_what_exists(tmp_path, events):
    with pytest.raises(UnknownNameError, match="MET_py"):
        run(tmp_path, events, select({"met": "MET_pz"}))
    with pytest.raises(SourceNotFoundError, match="events"):
        run(tmp_path, events, select({"met": "MET_px"}, "event"))
    with pytest.raises(QueryError, match="translated"):
        run(tmp_path, events, "(call Select")


def test_its_code_is_confined(tmp_path, events):
    secret = tmp_path / "secret"
    secret.write_text("password")
    code = f"(call (attr (call (attr open '__call__') '{secret}') 'read'))"
    query = f"(call Select (call EventDataset '' 'events') (lambda (list e) {code}))"
    with pytest.raises(QueryError, match="ermission"):
        run(tmp_path, events, query)


def test_how_the_environment_is_found(tmp_path, monkeypatch):
    monkeypatch.delenv(environment.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(environment.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="environment"):
        environment.func_adl_python()
    made = tmp_path / "dosna" / "func_adl" / "bin"
    made.mkdir(parents=True)
    os.symlink(sys.executable, made / "python")
    assert environment.func_adl_python() == str(made / "python")
    monkeypatch.setenv(environment.VARIABLE, sys.executable)
    assert environment.func_adl_python() == sys.executable
    with pytest.raises(ConfigurationError, match="interpreter"):
        environment.func_adl_python(str(tmp_path))
