"""The client of ServiceX, unmodified, as its documentation uses it, against a whole service."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import HANG, require, require_file

import dosna as dn
from dosna.columns import find_trees, get_tree, read_columns

pytestmark = [
    pytest.mark.slow,
    # The client leaves event loops and connections to Python.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

require("fastapi")
servicex = require("servicex")
ak = require("awkward")
uproot = require("uproot")

from servicex import dataset, query  # noqa: E402
from servicex.models import ResultFormat  # noqa: E402
from servicex.servicex_adapter import AuthorizationError  # noqa: E402
from servicex.servicex_client import ServiceXClient  # noqa: E402

CUT = [{"treename": "Events", "filter_name": ["Muon_pt", "met", "run"], "cut": "met > 0.5"}]

PYTHON = """
def run_query(path):
    import awkward as ak
    import uproot
    with uproot.open(path) as file:
        events = file["Events"].arrays(["Muon_pt", "nHit", "run"])
    chosen = events[events.run % 3 > 0]
    return chosen[ak.num(chosen.Muon_pt) > 0]
"""
FUNC_ADL = Path(sys.prefix, "func_adl")


@pytest.fixture(scope="module")
def server(tmp_path_factory: Any, events: Path) -> Iterator[str]:
    """Run ``dosna delivery`` in a process of its own, and give its URL."""
    state = tmp_path_factory.mktemp("delivery")
    command = [sys.executable, "-m", "dosna", "delivery", "--port", "0", "--workers", "2"]
    if FUNC_ADL.is_dir():
        command += ["--func-adl", str(FUNC_ADL)]
    process = subprocess.Popen(
        [*command, "--root", str(events), "--state", str(state / "state")],
        stdout=subprocess.PIPE,
        stderr=(state / "log").open("w"),
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, (state / "log").read_text()
    try:
        yield line.split()[0]
    finally:
        process.terminate()
        assert process.wait(HANG) is not None
        process.stdout.close()


@pytest.fixture(autouse=True)
def _collect() -> Iterator[None]:
    """Let what the client leaves be collected while its warnings are ignored."""
    yield
    gc.collect()


@pytest.fixture
def config(server: str, tmp_path: Path, quick: None) -> str:
    return write_config(tmp_path, server)


def write_config(folder: Path, url: str, token: str = "") -> str:
    """Write the client's configuration, and give its path."""
    path = folder / "servicex.yaml"
    path.write_text(
        f"api_endpoints:\n- name: local\n  endpoint: {url}\n"
        + (f"  token: {token}\n" if token else "")
        + f"default_endpoint: local\ncache_path: {folder / 'cache'}\n"
    )
    return str(path)


@pytest.fixture
def quick(monkeypatch: Any) -> None:
    monkeypatch.delenv("BEARER_TOKEN_FILE", raising=False)
    # The client polls every 5 s, which only takes time.
    patched = servicex.query_core.Query.__init__
    monkeypatch.setattr(
        patched, "__defaults__", tuple(0.1 if d == 5 else d for d in patched.__defaults__)
    )


def deliver(config: str, spec: dict[str, Any], **options: Any) -> dict[str, list[str]]:
    found = servicex.deliver(
        spec,
        config_path=config,
        progress_bar=servicex.ProgressBarFormat.none,
        return_exceptions=False,
        **options,
    )
    return {name: list(files) for name, files in found.items()}


def expected(paths: list[str], tree: str = "Events") -> Any:
    return ak.concatenate([uproot.open(path)[tree].arrays() for path in paths])


def in_order(files: list[str]) -> list[str]:
    return sorted(files, key=lambda name: os.path.basename(name))


def test_deliver_as_in_the_quick_start(config: str, paths: list[str]) -> None:
    spec = {
        "General": {"OutputFormat": "parquet"},
        "Sample": [
            {
                "Name": "UprootRaw_Dict",
                "Dataset": dataset.FileList(paths),
                "Query": query.UprootRaw(CUT),
            }
        ],
    }
    files = in_order(deliver(config, spec)["UprootRaw_Dict"])
    assert len(files) == 4
    found, whole = ak.from_parquet(files), expected(paths)
    chosen = whole[whole.met > 0.5]
    assert found.run.tolist() == chosen.run.tolist()
    assert found.Muon_pt.tolist() == chosen.Muon_pt.tolist()
    # Again: from the client's own cache, which holds the same files.
    assert in_order(deliver(config, spec)["UprootRaw_Dict"]) == files


@pytest.mark.parametrize("kind", ["parquet", "root-ttree", "root-rntuple"])
def test_each_format(config: str, paths: list[str], kind: str) -> None:
    spec = {
        "General": {"OutputFormat": kind},
        "Sample": [
            {
                "Name": kind,
                "Dataset": dataset.FileList(paths[:2]),
                "Query": query.UprootRaw([{"treename": "Events", "filter_name": "run"}]),
            }
        ],
    }
    files = in_order(deliver(config, spec)[kind])
    if kind == "parquet":
        found = ak.from_parquet(files).run.tolist()
    else:
        trees = [uproot.open(file)["Events"] for file in files]
        found = [run for tree in trees for run in tree.arrays(["run"]).run.tolist()]
        assert type(trees[0]).__name__.startswith("Model_TTree" if "ttree" in kind else "Model_RO")
    assert found == expected(paths[:2]).run.tolist()


def test_several_samples_of_datasets(config: str, paths: list[str], events: Path) -> None:
    def sample(name: str, of: Any) -> dict[str, Any]:
        return {"Name": name, "Dataset": of, "Query": query.UprootRaw(CUT)}

    spec = {
        "General": {"OutputFormat": "parquet"},
        "Sample": [
            sample("list", dataset.FileList(paths[:2])),
            sample("pattern", dataset.GenericDataSet("glob", "events_*.root", num_files=3)),
            sample("folder", dataset.GenericDataSet("folder", str(events))),
        ],
    }
    found = deliver(config, spec)
    assert {name: len(files) for name, files in found.items()} == {
        "list": 2, "pattern": 3, "folder": 4
    }  # fmt: skip
    for files in found.values():
        whole = expected(paths[: len(files)])
        chosen = whole[whole.met > 0.5]
        assert ak.from_parquet(in_order(files)).run.tolist() == chosen.run.tolist()


def test_selections_that_carry_code(config: str, paths: list[str]) -> None:
    require_file(str(FUNC_ADL / "bin" / "python"))
    adl = (
        query.FuncADL_Uproot()
        .FromTree("Events")
        .Where(lambda e: e["met"] > 0.5)
        .Select(lambda e: {"pt": e["Muon_pt"], "double": e["met"] * 2})
    )
    two = dataset.FileList(paths[:2])
    spec = {
        "General": {"OutputFormat": "parquet"},
        "Sample": [
            {"Name": "adl", "Dataset": two, "Query": adl},
            {"Name": "python", "Dataset": two, "Query": query.PythonFunction(PYTHON)},
        ],
    }
    found = deliver(config, spec)
    whole = expected(paths[:2])
    doubled = ak.from_parquet(in_order(found["adl"])).double
    assert ak.to_list(doubled) == ak.to_list(2 * whole.met[whole.met > 0.5])
    chosen = whole[(whole.run % 3 > 0) & (ak.num(whole.Muon_pt) > 0)]
    assert ak.from_parquet(in_order(found["python"])).run.tolist() == chosen.run.tolist()


def test_urls_that_are_signed(config: str, paths: list[str]) -> None:
    httpx = require("httpx")
    spec = {
        "General": {"Delivery": "URLs", "OutputFormat": "parquet"},
        "Sample": [
            {
                "Name": "urls",
                "Dataset": dataset.FileList(paths[:2]),
                "Query": query.UprootRaw([{"treename": "Events", "filter_name": "met"}]),
            }
        ],
    }
    urls = deliver(config, spec)["urls"]
    assert len(urls) == 2
    with httpx.Client(timeout=HANG) as client:
        for url in urls:
            answer = client.get(url)
            assert answer.status_code == 200, answer.text
            assert answer.content[:4] == b"PAR1"
            part = client.get(url, headers={"Range": "bytes=-4"})
            assert (part.status_code, part.content) == (206, b"PAR1")
            assert client.get(url.replace("Signature=", "Signature=A")).status_code == 403
            where, _, signed = url.partition("?")
            assert client.get(f"{where}x?{signed}").status_code == 403
            assert client.put(url, content=b"x").status_code in (403, 405)
            assert client.get(where).status_code == 403


@pytest.mark.usefixtures("quick")
def test_users_have_tokens(serve: Any, paths: list[str], tmp_path: Path) -> None:
    from dosna.delivery.front.tokens import Tokens

    server = serve(auth="tokens")
    tokens = Tokens(server.service.settings, server.service.state.users)
    spec = {
        "General": {"OutputFormat": "parquet"},
        "Sample": [
            {
                "Name": "mine",
                "Dataset": dataset.FileList(paths[:2]),
                "Query": query.UprootRaw(CUT),
            }
        ],
    }
    config = write_config(tmp_path, server.root, tokens.refresh_token("ada"))
    assert len(deliver(config, spec)["mine"]) == 2
    (tmp_path / "bob").mkdir()
    other = write_config(tmp_path / "bob", server.root, tokens.refresh_token("bob"))
    for path, count in ((config, 1), (other, 0)):
        with opened(path) as client:
            assert len(client.get_transforms()) == count
    wrong = write_config(tmp_path / "bob", server.root, "a.b.c")
    with opened(wrong) as client, pytest.raises(AuthorizationError):
        client.get_transforms()


def test_an_error_says_what_exists(config: str, paths: list[str]) -> None:
    spec = {
        "Sample": [
            {
                "Name": "wrong",
                "Dataset": dataset.FileList(paths),
                "Query": query.UprootRaw([{"treename": "Event", "filter_name": "met"}]),
            }
        ]
    }
    with pytest.raises(ValueError, match="Events"):
        deliver(config, spec)


def test_the_commands_of_the_client(
    config: str, paths: list[str], tmp_path: Path, server: str
) -> None:
    spec = {
        "General": {"OutputFormat": "parquet"},
        "Sample": [
            {
                "Name": "a title that is shown",
                "Dataset": dataset.FileList(paths[:1]),
                "Query": query.UprootRaw(CUT),
            }
        ],
    }
    deliver(config, spec, ignore_local_cache=True)
    with opened(config) as client:
        mine = [t for t in client.get_transforms() if t.title == "a title that is shown"]
    id, dataset_id = mine[0].request_id, mine[0].did_id

    def command(*words: str) -> str:
        ran = subprocess.run(
            [sys.executable, "-c", "from servicex.app.main import app; app()", *words],
            capture_output=True,
            text=True,
            timeout=HANG,
            env={**os.environ, "COLUMNS": "200"},
            cwd=tmp_path,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    assert "a title that is shown" in command("transforms", "list", "-c", config)
    assert ".parquet" in command("transforms", "files", "-c", config, id)
    got = command("transforms", "download", "-c", config, "-d", str(tmp_path / "got"), id)
    assert len(ak.from_parquet(got.split()[-1])) > 0
    assert "File list" in command("datasets", "list", "-c", config)
    assert paths[0] in command("datasets", "get", "-c", config, str(dataset_id)).replace("\n", "")
    assert "uproot-raw" in command("codegen", "list", "-c", config)
    assert "Dataset" in command("datasets", "delete", "-c", config, str(dataset_id))
    # Through the client itself: its commands do these too, but fail after they are done.
    with opened(config) as client:
        client.cancel_transform(id)
        client.delete_transform(id)
    assert id not in command("transforms", "list", "-c", config)


@pytest.mark.parametrize("kind", ["arrow", "hdf5"])
def test_dosna_ingests_formats_of_its_own(serve: Any, paths: list[str], kind: str) -> None:
    httpx = require("httpx")
    root = serve().root
    body = {
        # A file twice is two results.
        "file-list": [*paths, paths[0]],
        "selection": json.dumps(CUT),
        "codegen": "uproot-raw",
        "result-format": kind,
    }
    answer = httpx.post(f"{root}/servicex/transformation", json=body, timeout=HANG)
    assert answer.status_code == 200, answer.text
    with dn.Connection(f"delivered-{kind}", backend="ram") as con:
        source = f"servicex:{answer.json()['request_id']}"
        con.ingest(source, "muons", endpoint=root, polling_interval=0.1)
        (group,) = find_trees(con)
        assert group == ("muons" if kind == "arrow" else "muons/Events")
        found, files = read_columns(con, group), get_tree(con, group).files
        assert len(files) == 5
        assert {file.url.partition(" ")[0] for file in files} == set(paths)
        whole = expected([file.url.partition(" ")[0] for file in files])
        chosen = whole[whole.met > 0.5]
        assert found.run.tolist() == chosen.run.tolist()
        assert found.Muon_pt.tolist() == chosen.Muon_pt.tolist()


@contextmanager
def opened(config: str) -> Iterator[ServiceXClient]:
    client = ServiceXClient(config_path=config)
    try:
        yield client
    finally:
        client.query_cache.close()


@pytest.mark.parametrize("kind", ["parquet", "root-file"])
def test_dosna_ingests_what_is_delivered(config: str, paths: list[str], kind: str) -> None:
    with opened(config) as client, dn.Connection("delivered", backend="ram") as con:
        made = client.generic_query(
            dataset.FileList(paths), query.UprootRaw(CUT), result_format=ResultFormat(kind)
        )
        report = con.ingest(made, "muons", polling_interval=0.1)
        # Again by the request's number: everything is there.
        again = con.ingest(report.source, "muons", config_path=config, polling_interval=0.1)
        assert again.present == report.made
        whole = expected(paths)
        runs = con["muons/run" if kind == "parquet" else "muons/Events/run"][...]
        assert sorted(runs) == sorted(whole.run[whole.met > 0.5].tolist())
