"""The work on one file, in this process: what a confined one does once it is confined."""

from __future__ import annotations

import base64
import json
import struct
import sys

import pytest
from support import require

ak, uproot, np = require("awkward"), require("uproot"), require("numpy")
pa = require("pyarrow")

from dosna.delivery.transform import FORMATS, code  # noqa: E402
from dosna.delivery.transform.job import run_job  # noqa: E402
from dosna.delivery.transform.rehearsal import rehearse  # noqa: E402
from dosna.delivery.transform.sandbox import seccomp  # noqa: E402
from dosna.delivery.transform.streaming import END, STREAMED, messages  # noqa: E402
from dosna.errors import (  # noqa: E402
    FormatError,
    MissingDependencyError,
    QueryError,
    RefusedError,
    SourceNotFoundError,
    UnknownNameError,
)


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    path = tmp_path_factory.mktemp("events") / "events.root"
    with uproot.recreate(path) as file:
        tree = file.mktree("Events", {"run": "int64", "met": "float64", "pt": "var * float32"})
        pt = ak.values_astype(ak.Array([[30.0, 10.0], [], [50.0], [1.0]]), "f4")
        tree.extend({"run": np.arange(4), "met": np.array([5.0, 60, 70, 8]), "pt": pt})
        file["hist"] = np.histogram(np.arange(4.0))
    return str(path)


def job(events, tmp_path, selection, format="parquet", codegen="uproot-raw"):
    return {
        "codegen": codegen,
        "selection": selection if isinstance(selection, str) else json.dumps(selection),
        "format": format,
        "input": events,
        "output": str(tmp_path / "result"),
        "shown": "events.root",
        "step": 1 << 20,
    }


def python(body):
    return base64.b64encode(f"def run_query(path):\n    {body}\n".encode()).decode()


@pytest.mark.parametrize("format", FORMATS)
def test_raw_selections_in_each_format(events, tmp_path, format):
    selection = [{"treename": "Events", "filter_name": ["run", "pt"], "cut": "any(pt > 20)"}]
    assert run_job(job(events, tmp_path, selection, format)) == 2
    made = tmp_path / "result"
    if format == "parquet":
        assert ak.from_parquet(made).to_list() == [
            {"run": 0, "pt": [30.0, 10.0]},
            {"run": 2, "pt": [50.0]},
        ]
    if format in STREAMED:
        stream = tmp_path / "stream"
        again = job(str(made), tmp_path, "", format, "to-stream")
        assert run_job({**again, "output": str(stream)}) == 2
        text = b"".join(message for _, message in messages(str(stream))) + END
        assert pa.ipc.open_stream(text).read_all()["run"].to_pylist() == [0, 2]


def test_what_is_no_stream(events, tmp_path):
    (tmp_path / "text").write_text("no stream of Arrow, but a text")
    with pytest.raises(FormatError, match="stream"):
        list(messages(str(tmp_path / "text")))
    copies = [{"treename": {"Events": "a"}}, {"treename": {"Events": "b"}}]
    run_job(job(events, tmp_path, copies, "root-file"))
    made = job(str(tmp_path / "result"), tmp_path, "", "root-file", "to-stream")
    with pytest.raises(RefusedError, match="a, b"):
        run_job({**made, "output": str(tmp_path / "stream")})


def test_a_package_that_is_missing_is_named(events, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    monkeypatch.delitem(sys.modules, "dosna.delivery.transform.hdf5writing", raising=False)
    with pytest.raises(MissingDependencyError, match="h5py"):
        run_job(job(events, tmp_path, [{"treename": "Events"}], "hdf5"))


def test_objects_are_copied(events, tmp_path):
    run_job(job(events, tmp_path, [{"copy_histograms": "hi*"}], "root-file"))
    with uproot.open({tmp_path / "result": None}) as file:
        assert file["hist"].values().sum() == 4


@pytest.mark.parametrize(
    ("selection", "error", "noun"),
    [
        ([{"treename": "Event"}], SourceNotFoundError, "Events"),
        ([{"treename": "Events", "filter_name": "mett"}], UnknownNameError, "met"),
        ([{"treename": "Events", "filter_typename": "bool"}], UnknownNameError, "run"),
        ([{"treename": "Events", "expressions": "mett"}], UnknownNameError, "met"),
        ([{"treename": "Events", "expressions": "met +"}], QueryError, "parsed"),
        ([{"treename": "Events", "cut": "any(met)"}], QueryError, "axis"),
        ([{"copy_histograms": "no"}], UnknownNameError, "hist"),
        ([{"treename": "Events"}, {"copy_histograms": "hist"}], RefusedError, "hist"),
        ([{"treename": "Events", "copy_histograms": "hist"}], QueryError, "both"),
        ([{"treename": "Events", "filter_nmae": "met"}], QueryError, "filter_nmae"),
        ("[1]", QueryError, "object"),
        ("", QueryError, "JSON"),
    ],
)
def test_raw_selections_that_fail(events, tmp_path, selection, error, noun):
    with pytest.raises(error, match=noun):
        run_job(job(events, tmp_path, selection))


def test_python_functions(events, tmp_path):
    body = "import uproot; return uproot.open(path)['Events'].arrays(['run'], 'met > 50')"
    assert run_job(job(events, tmp_path, python(body), "arrow", "python")) == 2
    body = "import numpy; return {'a': numpy.arange(3), 'b': numpy.arange(2)}"
    log = []
    assert run_job(job(events, tmp_path, python(body), "root-rntuple", "python")) == 5
    assert run_job(job(events, tmp_path, python(body), "parquet", "python"), log.append) == 3
    assert "only the tree a" in log[0]


@pytest.mark.parametrize(
    ("body", "error", "noun"),
    [
        ("return 1", QueryError, "awkward"),
        ("return {}", QueryError, "no trees"),
        ("raise SystemExit", QueryError, "ended"),
        ("raise PermissionError(13, 'denied')", QueryError, "temporary folder"),
        ("raise KeyError('x')", QueryError, "line 2"),
        ("raise AttributeError('mett not in fields.')", UnknownNameError, "met"),
        ("import uproot; uproot.open(path)['none']", SourceNotFoundError, "Events"),
    ],
)
def test_python_functions_that_fail(events, tmp_path, body, error, noun):
    with pytest.raises(error, match=noun):
        run_job(job(events, tmp_path, python(body), "parquet", "python"))


def test_sources_that_are_none():
    with pytest.raises(QueryError, match="base64"):
        code.source_of("?")
    with pytest.raises(QueryError, match="parsed"):
        code.function_of_source("def")
    with pytest.raises(QueryError, match="other"):
        code.function_of_source("def other(): pass")


def test_a_rehearsal_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    rehearse()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not seccomp.supported(), reason="another machine")
def test_jumps_of_the_filter_stay_within_it():
    """A filter whose jumps leave it is refused by the kernel, wherever it is built."""
    steps = [struct.unpack("HBBI", step) for step in seccomp._program(1)]
    assert len(steps) < 4096
    for place, (kind, then, otherwise, _) in enumerate(steps):
        if kind & 7 == 5:  # a jump
            assert place + 1 + max(then, otherwise) < len(steps)
    assert steps[-1][0] == 6  # it returns
