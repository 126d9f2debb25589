"""ServiceX: its own client asks a stand-in, whose results lie in a real S3 server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import HANG, mpiexec, require, wait_until

import dosna as dn
from dosna.columns import find_trees, get_tree, read_columns
from dosna.errors import (
    ConfigurationError,
    ConnectionError,
    DatasetExistsError,
    SourceChangedError,
    SourceError,
    SourceNotFoundError,
)
from dosna.testing.timing import patience, within

require("servicex")
require("obstore")
ak = require("awkward")
uproot = require("uproot")

from services import aws_environment  # noqa: E402
from services.s3 import make_client  # noqa: E402
from services.servicex import REFRESH_TOKEN, ServiceX, start_servicex  # noqa: E402
from servicex import dataset, query  # noqa: E402
from servicex.models import ResultFormat  # noqa: E402
from servicex.servicex_client import ServiceXClient  # noqa: E402

FILES = 4
CUT = [{"treename": "Events", "filter_name": ["Muon_pt", "met", "run"], "cut": "met > 0.5"}]
NOTHING_CHOSEN = {
    "expressions": None,
    "cut": None,
    "filter_name": None,
    "aliases": None,
    "fail_on_missing_trees": None,
}
PYTHON = """
def run_query(path):
    import awkward as ak
    import uproot
    with uproot.open(path) as file:
        events = file["Events"].arrays(["Muon_pt", "nHit", "run"])
    chosen = events[events.run % 3 > 0]
    return chosen[ak.num(chosen.Muon_pt) > 0]
"""
SELECTIONS = {
    "uproot-raw": lambda: query.UprootRaw(CUT),
    "func_adl": lambda: (
        query.FuncADL_Uproot()
        .FromTree("Events")
        .Where(lambda e: e["met"] > 0.5)
        .Select(lambda e: {"pt": e["Muon_pt"], "double": e["met"] * 2, "hits": e["nHit"]})
    ),
    "python": lambda: query.PythonFunction(PYTHON),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: Any) -> list[str]:
    """Write files of events, and give their paths."""
    folder, rng, paths = tmp_path_factory.mktemp("events"), np.random.default_rng(3), []
    for number in range(FILES):
        count = 90 + 10 * number
        muons = rng.integers(0, 4, count)
        events = {
            "run": np.arange(count, dtype="i4") + 1000 * number,
            "nHit": rng.integers(0, 200, count).astype("u2"),
            "met": rng.random(count),
            "Muon_pt": ak.unflatten(rng.random(muons.sum(), dtype="f4"), muons),
        }
        paths.append(str(folder / f"events_{number}.root"))
        with uproot.recreate(paths[-1]) as file:
            file.mktree("Events", events)
            if number > 1:
                file.mktree("Runs", {"number": np.array([number], "i8")})
    return paths


@pytest.fixture(scope="module")
def server(gateway: Any) -> Iterator[ServiceX]:
    with start_servicex(gateway.endpoint_url, gateway.access_key, gateway.secret_key) as made:
        yield made


@pytest.fixture
def servicex(server: ServiceX, inputs: list[str], monkeypatch: Any) -> Iterator[ServiceX]:
    """Give the stand-in, from whose status alone the keys of its results are known."""
    monkeypatch.delenv("BEARER_TOKEN_FILE", raising=False)
    server.datasets = {"rucio://user.me:events": inputs}
    server.allowed, server.pause, server.fails = 1 << 30, 0.0, lambda path: False
    server.status_codes, server.capabilities = {}, ["poll_local_transformation_results"]
    with aws_environment("not-these", "not-this-either"):
        yield server
    server.allowed = 1 << 30


@pytest.fixture
def config(servicex: ServiceX, tmp_path: Path) -> Iterator[str]:
    yield write_config(tmp_path / "servicex.yaml", servicex.url, REFRESH_TOKEN)
    while _opened:
        _opened.pop().query_cache.close()


def write_config(path: Path, url: str, token: str) -> str:
    endpoint = {"name": "here", "endpoint": url, "token": token}
    cache = str(path.parent / "cache")
    path.write_text(
        json.dumps({"api_endpoints": [endpoint], "default_endpoint": "here", "cache_path": cache})
    )
    return str(path)


_opened: list[Any] = []


def client_of(config: str) -> Any:
    """Make a client, whose cache the fixture `config` closes."""
    _opened.append(ServiceXClient(config_path=config))
    return _opened[-1]


def ask(config: str, inputs: list[str], selection: Any = None, form: str = "parquet") -> Any:
    """Make a query with the client, as its users do."""
    return client_of(config).generic_query(
        dataset.FileList(list(inputs)),
        selection if selection is not None else query.UprootRaw(CUT),
        title="a test",
        result_format=ResultFormat(form),
    )


def submitted(servicex: ServiceX, inputs: list[str], form: str = "parquet", **more: Any) -> str:
    """Submit a request without the client, and wait until as much is done as is allowed."""
    body = {"file-list": inputs, "codegen": "uproot-raw", "result-format": form, "title": None}
    selection = json.dumps([{**NOTHING_CHOSEN, **CUT[0]}])
    transform = servicex.submit({**body, "selection": selection, **more})
    wait_until(lambda: transform.status == "Complete" or len(transform.rows) >= servicex.allowed)
    return transform.id


def expected(servicex: ServiceX, request: str, tree: str = "Events") -> ak.Array:
    """Give what was selected, in the order of the files."""
    results = servicex.transforms[request.removeprefix("servicex:")].results
    return ak.concatenate([result[tree] for result in results if len(result.get(tree, []))])


def check(con: Any, group: str, wanted: ak.Array) -> None:
    got = read_columns(con, group)
    assert len(got) == len(wanted)
    assert set(wanted.fields) <= set(got.fields)
    for name in wanted.fields:
        assert ak.array_equal(got[name], wanted[name], dtype_exact=True), name


@pytest.fixture
def con(tmp_path: Path) -> Iterator[Any]:
    with dn.Connection(str(tmp_path), backend="ram", engine="cpu") as made:
        yield made


SOON = {"polling_interval": 0.05, "timeout": 200.0}


@pytest.mark.parametrize("engine", ["cpu", "joblib"])
@pytest.mark.parametrize("form", ["parquet", "root-file", "root-rntuple"])
@pytest.mark.parametrize("selection", SELECTIONS)
def test_what_was_selected_is_what_is_read(
    servicex: ServiceX, config: str, inputs: list[str], engine: str, form: str, selection: str
) -> None:
    made = ask(config, inputs, SELECTIONS[selection](), form)
    engine_kw = {"njobs": 2} if engine == "joblib" else {}
    name = f"{selection}/{form}/{engine}"
    with dn.Connection("equal", backend="ram", engine=engine, engine_kw=engine_kw) as con:
        report = con.ingest(made, name, **SOON)
        assert report.source.startswith("servicex:")
        assert report.skipped == {}
        tree = "servicex" if selection != "uproot-raw" else "Events"
        group = name if form == "parquet" else f"{name}/{tree}"
        assert report.made == con.names_in(group)
        check(con, group, expected(servicex, report.source, tree))
        kept = get_tree(con, group)
        assert [f.url for f in kept.files] == inputs
        assert kept.files[-1].stop == kept.entries
        third = kept.files[2]
        with uproot.open(inputs[2]) as file:
            runs = set(file["Events"]["run"].array())
        if "run" in kept.by_name:
            part = read_columns(con, group, "run", third.start, third.stop)
            assert set(part.run) <= runs
        # Once more: there is nothing to do.
        assert con.ingest(report.source, name, config_path=config, **SOON).present == report.made


def test_results_come_in_while_others_are_made(
    servicex: ServiceX, config: str, inputs: list[str], con: Any
) -> None:
    servicex.allowed = 1
    request = submitted(servicex, inputs)
    told, seen = [], []

    def ingest() -> None:
        done = lambda files, total: told.append((files, total))  # noqa: E731
        seen.append(con.ingest(f"servicex:{request}", config_path=config, progress=done, **SOON))

    worker = threading.Thread(target=ingest)
    worker.start()
    wait_until(lambda: find_trees(con) and find_trees(con)["servicex"].entries)
    assert [f.url for f in find_trees(con)["servicex"].files] == inputs[:1]
    assert all(con[name].incomplete for name in con)
    assert worker.is_alive()
    servicex.allowed = FILES
    worker.join(HANG)
    assert told[0] == (0, FILES)
    assert told[-1] == (FILES, FILES)
    assert not any(con[name].incomplete for name in con)
    check(con, "servicex", expected(servicex, request))


class Crash(BaseException):
    """Nothing of dosna catches it."""


def test_an_interrupted_ingest_goes_on_wherever_it_was(
    servicex: ServiceX, config: str, inputs: list[str], monkeypatch: Any
) -> None:
    """Crash before some of the changes to the store, and go on: with files in another order."""
    from dosna.array.connection import EngineConnection
    from dosna.array.dataset import EngineDataset

    queries = [{**CUT[0], "filter_name": ["Muon_pt"]}, {"treename": "Runs"}]
    selection = json.dumps([{**NOTHING_CHOSEN, **query} for query in queries])
    request = submitted(servicex, inputs, "root-file", selection=selection)
    transform = servicex.transforms[request]
    left = [1 << 30]

    def counted(method: Any) -> Any:
        def change(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Crash
            return method(*args, **kwargs)

        return change

    for owner, names in {
        EngineDataset: ("resize", "__setitem__", "mark_complete"),
        EngineConnection: ("create_dataset", "set_group_attrs"),
    }.items():
        for name in names:
            monkeypatch.setattr(owner, name, counted(getattr(owner, name)))
    given = {"config_path": config, "memory_limit": 4000, **SOON}
    rows, results = list(transform.rows), dict(zip(inputs, transform.results, strict=True))
    with dn.Connection("crash never", backend="ram", engine="cpu") as con:
        con.ingest(f"servicex:{request}", **given)
    changes = (1 << 30) - left[0]
    for number in sorted({*range(0, changes, 15), *range(changes - 12, changes)}):
        with dn.Connection(f"crash {number}", backend="ram", engine="cpu") as con:
            left[0] = number
            with pytest.raises(Crash):
                con.ingest(f"servicex:{request}", **given)
            left[0] = 1 << 30
            transform.rows[:] = rows[:: -1 if number % 2 else 1]
            con.ingest(f"servicex:{request}", **given)
            transform.rows[:] = rows
            for tree in ("Events", "Runs"):
                order = [f.url for f in get_tree(con, tree).files]
                assert sorted(order) == inputs
                parts = [results[path][tree] for path in order if tree in results[path]]
                check(con, tree, ak.concatenate(parts))
            assert not any(con[name].incomplete for name in con)


KILLED = """
import os, signal, sys
import dosna as dn

def tell(done, total):
    if done == 3:
        os.kill(os.getpid(), signal.SIGKILL)

request, config, folder = sys.argv[1:]
with dn.Connection(folder, backend="file", engine="joblib", engine_kw={"njobs": 2}) as con:
    con.ingest(request, config_path=config, progress=tell, memory_limit=8000)
"""


def test_a_killed_ingest_goes_on(
    servicex: ServiceX, config: str, inputs: list[str], tmp_path: Path
) -> None:
    request = f"servicex:{submitted(servicex, inputs, 'root-rntuple')}"
    folder = str(tmp_path / "store")
    os.mkdir(folder)
    command = [sys.executable, "-c", KILLED, request, config, folder]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=HANG)
    assert ran.returncode == -9, ran.stderr
    with dn.Connection(folder, backend="file", engine="cpu") as con:
        assert 0 < len(get_tree(con, "Events").files) < FILES
        assert all(con[name].incomplete for name in con)
        report = con.ingest(request, config_path=config, **SOON)
        assert report.resumed == report.made == list(con)
        check(con, "Events", expected(servicex, request))


def test_a_file_that_failed_is_named_or_left_out(
    servicex: ServiceX, config: str, inputs: list[str], con: Any
) -> None:
    servicex.fails = lambda path: path == inputs[1]
    request = f"servicex:{submitted(servicex, inputs)}"
    with pytest.raises(SourceError, match=f"1 of the 4 files .* not be transformed: {inputs[1]}"):
        con.ingest(request, config_path=config, **SOON)
    assert all(con[name].incomplete for name in con)
    report = con.ingest(request, config_path=config, on_error="skip", **SOON)
    assert list(report.skipped) == [inputs[1]]
    assert report.resumed == report.made
    check(con, "servicex", expected(servicex, request))
    assert con.get_group_attrs("servicex")["ingest"]["skipped"] == report.skipped
    assert con.ingest(request, config_path=config, **SOON).present == report.made


@pytest.mark.parametrize("damage", ["cut", "other bytes", "gone"])
def test_a_damaged_result_is_named_or_left_out(
    servicex: ServiceX, config: str, inputs: list[str], con: Any, damage: str
) -> None:
    request = submitted(servicex, inputs)
    row = servicex.transforms[request].rows[2]
    with closing(make_client(servicex.s3_url, servicex.keys)) as client:
        place = {"Bucket": request, "Key": row["s3-object-name"]}
        data = client.get_object(**place)["Body"].read()
        if damage == "gone":
            client.delete_object(**place)
        else:
            client.put_object(**place, Body=data[:-9] if damage == "cut" else bytes(len(data)))
    with pytest.raises(SourceError, match=f"{inputs[2]}: .*on_error='skip'"):
        con.ingest(f"servicex:{request}", config_path=config, **SOON)
    assert len(get_tree(con, "servicex").files) == 2
    report = con.ingest(f"servicex:{request}", config_path=config, on_error="skip", **SOON)
    assert list(report.skipped) == [inputs[2]]
    results = servicex.transforms[request].results
    del results[2]
    check(con, "servicex", expected(servicex, request))


def test_a_large_file_that_breaks_off_leaves_nothing(
    servicex: ServiceX, config: str, tmp_path: Path, con: Any
) -> None:
    """Its first pieces are written before the damage is met."""
    require("pyarrow")
    import pyarrow.parquet

    paths = []
    for number in range(3):
        paths.append(str(tmp_path / f"{number}.root"))
        with uproot.recreate(paths[-1]) as file:
            file.mktree("Events", {"x": np.arange(40_000) + number * 10**6})
    body = {"codegen": "python", "selection": to_python("x")}
    request = submitted(servicex, paths, **body)
    row = servicex.transforms[request].rows[1]
    with closing(make_client(servicex.s3_url, servicex.keys)) as client:
        place = {"Bucket": request, "Key": row["s3-object-name"]}
        table = ak.to_arrow_table(servicex.transforms[request].results[1]["servicex"])
        pyarrow.parquet.write_table(
            table, tmp_path / "b.parquet", row_group_size=9000, compression="zstd"
        )
        damaged = bytearray((tmp_path / "b.parquet").read_bytes())
        at = pyarrow.parquet.ParquetFile(tmp_path / "b.parquet").metadata.row_group(3)
        begin = at.column(0).data_page_offset
        damaged[begin + 40 : begin + 2000] = bytes(1960)
        client.put_object(**place, Body=bytes(damaged))
        row["total-bytes"] = len(damaged)
    given = {"config_path": config, "memory_limit": "600K", **SOON}
    with pytest.raises(SourceError, match=paths[1]):
        con.ingest(f"servicex:{request}", **given)
    report = con.ingest(f"servicex:{request}", on_error="skip", **given)
    assert list(report.skipped) == [paths[1]]
    x = read_columns(con, "servicex").x.to_numpy()
    np.testing.assert_array_equal(x, np.r_[:40_000, 2_000_000:2_040_000])


def to_python(*columns: str, code: str = "") -> str:
    import base64

    text = f"""
def run_query(path):
    import awkward as ak
    import numpy as np
    import uproot
    number = int(path[-6])
    with uproot.open(path) as file:
        events = file["Events"].arrays({list(columns)})
    {code or "pass"}
    return events
"""
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "events['met'] = ak.values_astype(events.met, 'f4' if number == 2 else 'f8')",
            "has float32 in column 'met', where others have float64",
        ),
        ("events = events[['run']] if number == 2 else events", "has no column 'met'"),
        ("events['more'] = events.met; events = events if number == 2 else events[['run', 'met']]",
         "has a column 'more'"),
        ("events['met'] = [[1.5]] * len(events) if number == 2 else events.met",
         r"has var \* float64 in column 'met', where others have float64"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["parquet", "root-rntuple"])
def test_columns_that_differ_between_files(
    servicex: ServiceX,
    config: str,
    inputs: list[str],
    con: Any,
    code: str,
    message: str,
    form: str,
) -> None:
    selection = to_python("run", "met", code=code)
    request = submitted(servicex, inputs, form, codegen="python", selection=selection)
    with pytest.raises(SourceError, match=f"{inputs[2]} {message}"):
        con.ingest(f"servicex:{request}", config_path=config, **SOON)
    report = con.ingest(f"servicex:{request}", config_path=config, on_error="skip", **SOON)
    assert list(report.skipped) == [inputs[2]]
    assert [f.url for f in get_tree(con, "servicex").files] == [*inputs[:2], inputs[3]]


@pytest.mark.parametrize("form", ["parquet", "root-rntuple"])
def test_a_column_that_has_a_none_in_a_later_file(
    servicex: ServiceX, config: str, inputs: list[str], con: Any, form: str
) -> None:
    """What came before is taken in once more."""
    code = "events['met'] = ak.mask(events.met, events.met > 5) if number == 2 else events.met"
    selection = to_python("run", "met", code=code)
    request = submitted(servicex, inputs, form, codegen="python", selection=selection)
    con.ingest(f"servicex:{request}", config_path=config, **SOON)
    group = "servicex"
    found = read_columns(con, group)
    assert str(found.met.type.content).startswith("?float")
    assert ak.any(ak.is_none(found.met))
    values = []
    for path in inputs:
        with uproot.open(path) as file:
            met = file["Events"]["met"].array()
        values += (ak.mask(met, met > 5) if int(path[-6]) == 2 else met).to_list()
    ranges = get_tree(con, group).files
    assert [f.url for f in ranges] == inputs
    assert found.met.to_list() == values


@pytest.mark.parametrize("form", ["parquet", "root-file", "root-rntuple"])
def test_files_of_which_nothing_is_left(
    servicex: ServiceX, config: str, inputs: list[str], con: Any, form: str
) -> None:
    """Their columns have other types, or there are none."""
    code = "events = events[events.run > 3000]"
    selection = to_python("run", "Muon_pt", code=code)
    request = submitted(servicex, inputs, form, codegen="python", selection=selection)
    con.ingest(f"servicex:{request}", config_path=config, **SOON)
    check(con, "servicex", expected(servicex, request, "servicex"))
    sizes = [f.stop - f.start for f in get_tree(con, "servicex").files]
    assert sizes[:3] == [0, 0, 0]
    assert sizes[3] > 0
    nothing = to_python("run", code="events = events[:0]")
    request = submitted(servicex, inputs[:2], form, codegen="python", selection=nothing)
    con.ingest(f"servicex:{request}", "none", config_path=config, **SOON)
    group = "none" if form == "parquet" else "none/servicex"
    assert len(read_columns(con, group)) == 0
    assert [f.url for f in get_tree(con, group).files] == inputs[:2]


def test_several_trees_of_which_one_is_not_in_each_file(
    servicex: ServiceX, config: str, inputs: list[str], con: Any
) -> None:
    cut = [*CUT, {"treename": {"Runs": "More/Runs"}}]
    report = con.ingest(ask(config, inputs, query.UprootRaw(cut), "root-file"), **SOON)
    check(con, "Events", expected(servicex, report.source))
    assert read_columns(con, "More/Runs").number.to_list() == [2, 3]
    ranges = [(f.start, f.stop) for f in get_tree(con, "More/Runs").files]
    assert ranges == [(0, 0), (0, 0), (0, 1), (1, 2)]
    for name in [n for n in con if n.startswith("More")]:
        del con[name]
    none = query.UprootRaw([{"treename": "Nothing"}])
    with pytest.raises(SourceNotFoundError, match=r"none of the 4 files"):
        con.ingest(ask(config, inputs, none), "none", **SOON)


def test_a_dataset_id_and_the_cache_of_the_client(
    servicex: ServiceX, config: str, inputs: list[str], con: Any
) -> None:
    def wanted(**more: Any) -> Any:
        return client_of(config).generic_query(
            dataset.Rucio("user.me:events"), query.UprootRaw(CUT), **more
        )

    first = con.ingest(wanted(), "first", **SOON)
    check(con, "first", expected(servicex, first.source))
    assert con.ingest(wanted(), "first", **SOON).present == first.made
    second = con.ingest(wanted(ignore_cache=True), "second", **SOON)
    assert second.source != first.source
    # ServiceX has forgotten what the cache knows.
    del servicex.transforms[second.source.removeprefix("servicex:")]
    third = con.ingest(wanted(), "third", **SOON)
    assert third.source not in (first.source, second.source)


def test_what_is_there_already_is_kept(
    servicex: ServiceX, config: str, inputs: list[str], con: Any, tmp_path: Path
) -> None:
    first, second = (f"servicex:{submitted(servicex, inputs[i : i + 2])}" for i in (0, 2))
    con.create_dataset("servicex/run", data=np.arange(3))
    with pytest.raises(DatasetExistsError, match="give the tree another name="):
        con.ingest(first, config_path=config, **SOON)
    del con["servicex/run"]
    con.ingest(first, config_path=config, select=["m*"], **SOON)
    assert list(con) == ["servicex/met"]
    with pytest.raises(SourceChangedError, match=f"from request .*{first[9:]}.* overwrite=True"):
        con.ingest(second, config_path=config, **SOON)
    con.ingest(second, config_path=config, overwrite=True, **SOON)
    check(con, "servicex", expected(servicex, second))
    for name in list(con):
        del con[name]
    con.ingest(first, config_path=config, **SOON)
    check(con, "servicex", expected(servicex, first))
    folder = tmp_path / "kept"
    folder.mkdir()
    with dn.Connection(str(folder), backend="file") as files:
        files.ingest(first, config_path=config, **SOON)
        for wrong in ({"compression": "no such"}, {"shards": (3, 3)}, {"select": "Jet*"}):
            with pytest.raises((ConfigurationError, SourceNotFoundError)):
                files.ingest(second, config_path=config, overwrite=True, **wrong, **SOON)
            check(files, "servicex", expected(servicex, first))
    with pytest.raises(SourceNotFoundError, match="no column of tree 'none' like 'Jet"):
        con.ingest(second, "none", config_path=config, select="Jet*", **SOON)


def test_a_server_that_does_not_list_results(
    servicex: ServiceX, config: str, inputs: list[str], con: Any
) -> None:
    servicex.capabilities = []
    servicex.fails = lambda path: path == inputs[1]
    request = f"servicex:{submitted(servicex, inputs)}"
    with pytest.raises(SourceError, match=r"1 of the 4 files"):
        con.ingest(request, config_path=config, **SOON)
    report = con.ingest(request, config_path=config, on_error="skip", **SOON)
    assert report.skipped == {"?": "1 files that the server does not name"}
    assert len(read_columns(con, "servicex")) == len(expected(servicex, request))


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ("Fatal", "failed, with 2 of 4 files done: submit it again"),
        ("Canceled", "was canceled, with 2 of 4 files done"),
        ("Bad Dataset", "its dataset .* cannot be used"),
    ],
)
def test_a_request_that_does_not_end_well(
    servicex: ServiceX, config: str, inputs: list[str], con: Any, status: str, message: str
) -> None:
    servicex.allowed = 2
    request = submitted(servicex, inputs)
    servicex.transforms[request].status = status
    with pytest.raises(SourceError, match=message):
        con.ingest(f"servicex:{request}", config_path=config, on_error="skip", **SOON)
    assert len(get_tree(con, "servicex").files) == 2
    assert all(con[name].incomplete for name in con)


def test_what_cannot_be_reached_is_said_in_time(
    servicex: ServiceX, config: str, inputs: list[str], con: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    request = f"servicex:{submitted(servicex, inputs)}"
    soon = {"polling_interval": 0.05, "timeout": 1.5}
    with pytest.raises(SourceNotFoundError, match="knows no request 0815"):
        con.ingest("servicex:0815", config_path=config, **SOON)
    wrong = write_config(tmp_path / "wrong.yaml", servicex.url, "wrong")
    with pytest.raises(ConnectionError, match="refuses the token: get a new one"):
        con.ingest(request, config_path=wrong, **SOON)
    nowhere = write_config(tmp_path / "nowhere.yaml", "http://127.0.0.1:9", REFRESH_TOKEN)
    refused = pytest.raises(ConnectionError, match=r"127.0.0.1:9 did not answer within 1.5 s")
    with within(8), refused:
        con.ingest(request, config_path=nowhere, **soon)
    with pytest.raises(ConfigurationError, match="no configuration of ServiceX at"):
        con.ingest(request, config_path=str(tmp_path / "none"), **soon)
    monkeypatch.chdir(tmp_path / "cache")
    monkeypatch.setenv("HOME", str(tmp_path / "cache"))
    (tmp_path / "servicex.yaml").unlink()
    with pytest.raises(ConfigurationError, match="configuration of ServiceX cannot be used"):
        con.ingest(request, **soon)
    for bad in ("servicex:", "servicex:/"):
        with pytest.raises(ConfigurationError, match="names no request"):
            con.ingest(bad)
    with pytest.raises(TypeError, match="no option 'endpont'"):
        con.ingest(request, endpont="here")
    assert list(con) == []


def test_a_server_that_goes_away_in_the_middle(
    servicex: ServiceX, config: str, inputs: list[str], con: Any
) -> None:
    servicex.allowed = 2
    request = submitted(servicex, inputs)

    def go(done: int, total: int) -> None:
        if done == 2:
            servicex.status_codes["/servicex"] = 503

    given = {"config_path": config, "polling_interval": 0.05}
    with pytest.raises(ConnectionError, match=r"did not answer within"):
        con.ingest(f"servicex:{request}", timeout=patience(2.0), progress=go, **given)
    assert len(get_tree(con, "servicex").files) == 2
    servicex.status_codes.clear()
    servicex.allowed = FILES
    con.ingest(f"servicex:{request}", **given)
    check(con, "servicex", expected(servicex, request))


def test_a_query_is_refused(servicex: ServiceX, config: str, inputs: list[str], con: Any) -> None:
    client = client_of(config)
    unknown = client.generic_query(dataset.FileList(inputs), "nothing", codegen="cobol")
    with pytest.raises(ConfigurationError, match="'cobol'"):
        con.ingest(unknown, **SOON)
    nowhere = client.generic_query(dataset.Rucio("user.me:none"), query.UprootRaw(CUT))
    with pytest.raises(ConfigurationError, match=r"no dataset rucio://user\.me:none"):
        con.ingest(nowhere, **SOON)
    with pytest.raises(ConfigurationError, match="query"):
        con.ingest(dataset.FileList(inputs))


def test_the_command_line(
    servicex: ServiceX, config: str, inputs: list[str], tmp_path: Path, capsys: Any
) -> None:
    from dosna.cli import main

    request = submitted(servicex, inputs, "root-file")
    source = f"servicex:{request}?config_path={config}&polling_interval=0.1"
    assert main(["ingest", source, f"file:{tmp_path}/store"]) == 0
    assert "datasets" in capsys.readouterr().out
    with dn.Connection(str(tmp_path / "store"), backend="file", engine="cpu") as con:
        check(con, "Events", expected(servicex, request))
    assert main(["verify", f"file:{tmp_path}/store", "--against", source]) != 0
    assert "con.ingest" in capsys.readouterr().err


RANKS = """
import os
import sys
import dosna as dn

request, config, folder = sys.argv[1:]
with dn.Connection(folder, backend="file", engine="mpi") as con:
    report = con.ingest(request, config_path=config, polling_interval=0.1)
    assert report.made == list(con), report
    try:
        con.ingest("servicex:0815", config_path=config, polling_interval=0.1)
    except dn.errors.SourceNotFoundError:
        os.write(1, b"made %d, and no other\\n" % len(report.made))
"""


def test_ranks(servicex: ServiceX, config: str, inputs: list[str], tmp_path: Path) -> None:
    request = f"servicex:{submitted(servicex, inputs)}"
    script, folder = tmp_path / "script.py", tmp_path / "store"
    script.write_text(RANKS)
    folder.mkdir()
    command = [*mpiexec(2), sys.executable, str(script), request, config, str(folder)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=HANG)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("made 6, and no other") == 2
    with dn.Connection(str(folder), backend="file", engine="cpu") as con:
        check(con, "servicex", expected(servicex, request))


def test_the_results_are_ours_alone_to_read(
    servicex: ServiceX, config: str, inputs: list[str], con: Any
) -> None:
    request = submitted(servicex, inputs)
    keys = servicex.keys
    servicex.keys = (keys[0], "wrong")
    try:
        with pytest.raises(dn.errors.ConnectionError, match="credentials are refused"):
            con.ingest(f"servicex:{request}", config_path=config, **SOON)
    finally:
        servicex.keys = keys
