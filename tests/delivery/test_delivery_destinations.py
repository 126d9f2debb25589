"""Results that go straight into a connection, where they are one tree."""

from __future__ import annotations

import base64
import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from support import HANG, require, wait_until

import dosna as dn
from dosna.columns import find_trees, get_tree, read_columns
from dosna.errors import StorageError
from dosna.testing.timing import patience

httpx, ak, uproot = require("httpx"), require("awkward"), require("uproot")

from dosna.delivery.transform import TransformRequest, TransformResult, transform  # noqa: E402
from dosna.delivery.transform.sandbox import lacking  # noqa: E402

pytestmark = pytest.mark.skipif(bool(lacking()), reason=lacking() or "-")

URL = "/servicex/transformation"
COLUMNS = ["run", "Muon_pt"]
SELECTION = [{"treename": "Events", "filter_name": COLUMNS, "cut": "met > 0.5"}]


class Held:
    """The transformer, which waits before each file but the first."""

    def __init__(self) -> None:
        self.gate = threading.Event()

    def __call__(self, request: TransformRequest) -> TransformResult:
        if not request.source.endswith("_0.root"):
            assert self.gate.wait(HANG)
        return transform(request)


@pytest.fixture
def columns(tmp_path: Path) -> Path:
    (tmp_path / "columns").mkdir()
    return tmp_path / "columns"


def ask(client: Any, paths: list[str], destination: str, **others: Any) -> Any:
    body = {
        "file-list": paths,
        "selection": json.dumps(SELECTION),
        "codegen": "uproot-raw",
        "result-destination": destination,
    }
    return client.post(URL, json=body | others)


def ended(client: Any, id: str) -> dict[str, Any]:
    wait_until(lambda: client.get(f"{URL}/{id}").json()["status"] not in ("Lookup", "Running"))
    return dict(client.get(f"{URL}/{id}").json())


def client_of(server: Any) -> Any:
    return httpx.Client(base_url=server.root, timeout=HANG)


def expected(paths: list[str]) -> Any:
    whole = ak.concatenate([uproot.open(path)["Events"].arrays() for path in paths])
    return whole[whole.met > 0.5]


@pytest.mark.parametrize("backend", ["file", "hdf5"])
def test_results_become_a_tree(
    serve: Any, columns: Path, paths: list[str], backend: str, tmp_path: Path
) -> None:
    place = f"{backend}:{columns}"
    server = serve(destinations=(place,))
    given = [*paths, paths[0]]  # one of them twice
    with client_of(server) as client:
        answer = ask(client, given, f"dosna:{place}//mine/muons")
        assert answer.status_code == 200, answer.text
        id = answer.json()["request_id"]
        found = ended(client, id)
        assert (found["status"], found["files-completed"]) == ("Complete", 5), found
        assert found["result-destination"] == f"dosna:{place}//mine/muons"
        assert found["minio-secret-key"] is None
        rows = client.get(f"{URL}/{id}/results").json()["results"]
        assert [row["s3-object-name"] for row in rows] == [None] * 5
        wait_until(lambda: not (tmp_path / "state" / "objects" / id).exists())
        assert client.get(f"{URL}/{id}/stream").status_code == 400
        # ServiceX's client refuses a list with a destination that it does not know.
        assert client.get(URL).json()["requests"] == []
        assert len(client.get(URL, params={"every": True}).json()["requests"]) == 1
        with dn.Connection(str(columns), backend=backend, mode="r") as con:
            assert list(find_trees(con)) == ["mine/muons"]
            tree, made = get_tree(con, "mine/muons"), read_columns(con, "mine/muons")
            order = [file.url.partition("#")[0] for file in tree.files]
            assert sorted(order) == sorted(given)
            assert made.run.tolist() == expected(order).run.tolist()
            assert made.Muon_pt.tolist() == expected(order).Muon_pt.tolist()
            assert not any(con[name].incomplete for name in con)
        # It is the user's now: neither another request nor the deletion of this one changes it.
        other = ask(client, paths[:1], f"dosna:{place}//mine/muons")
        assert other.status_code == 400
        assert "another group" in other.json()["message"]
        assert client.delete(f"{URL}/{id}").status_code == 200
        with dn.Connection(str(columns), backend=backend, mode="r") as con:
            assert len(read_columns(con, "mine/muons")) == len(made)
            assert list(find_trees(con)) == ["mine/muons"]


def test_files_that_come_while_a_request_is_prepared_again_double_nothing(
    serve: Any, columns: Path, paths: list[str], tmp_path: Path, monkeypatch: Any
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    names = [str(data / f"{letter}.root") for letter in "abc"]
    for source, name in zip(paths[1:], names[1:], strict=False):
        shutil.copy(source, name)
    server = serve(roots=(str(data),), destinations=(f"file:{columns}",))
    requests = server.service.state.requests
    begin = requests.begin

    def lose_once(id: str) -> bool:
        monkeypatch.setattr(requests, "begin", begin)
        shutil.copy(paths[0], names[0])
        raise StorageError("the database is away")

    monkeypatch.setattr(requests, "begin", lose_once)
    body = {"did": f"folder:{data}", "file-list": None}
    with client_of(server) as client:
        answer = ask(client, [], f"dosna:file:{columns}//t", **body)
        assert answer.status_code == 200, answer.text
        found = ended(client, answer.json()["request_id"])
        assert (found["status"], found["files-completed"]) == ("Complete", 2), found
    with dn.Connection(str(columns), backend="file", mode="r") as con:
        order = [file.url.partition("#")[0] for file in get_tree(con, "t").files]
        assert sorted(order) == names[1:]
        assert read_columns(con, "t").run.tolist() == expected(order).run.tolist()


WIDER = """
def run_query(path):
    import awkward as ak
    import uproot
    with uproot.open(path) as file:
        run = file["Events"]["run"].array()
    return ak.Array({"run": run, "odd": ak.mask(run, (run % 2 == 1) | (run < 2000))})
"""


def test_columns_that_become_wider(serve: Any, columns: Path, paths: list[str]) -> None:
    server = serve(destinations=(f"file:{columns}",))
    body = {"selection": base64.b64encode(WIDER.encode()).decode(), "codegen": "python"}
    plain = WIDER.replace(
        "ak.mask(run, (run % 2 == 1) | (run < 2000))",
        "run if run[0] < 2000 else ak.mask(run, run % 2 == 1)",
    )
    body["selection"] = base64.b64encode(plain.encode()).decode()
    with client_of(server) as client:
        answer = ask(client, paths, f"dosna:file:{columns}//t", **body)
        assert answer.status_code == 200, answer.text
        found = ended(client, answer.json()["request_id"])
        assert (found["status"], found["files-failed"]) == ("Complete", 0), found
    with dn.Connection(str(columns), backend="file", mode="r") as con:
        made = read_columns(con, "t")
        whole = ak.concatenate([uproot.open(path)["Events"].arrays(["run"]) for path in paths])
        assert sorted(made.run.tolist()) == sorted(whole.run.tolist())
        for run, odd in zip(made.run.tolist(), made.odd.tolist(), strict=True):
            assert odd == (None if run >= 2000 and run % 2 == 0 else run)


@pytest.mark.parametrize("way", ["cancel", "delete"])
def test_nothing_of_a_cancelled_request_stays(
    serve: Any, columns: Path, paths: list[str], way: str
) -> None:
    held = Held()
    server = serve(held, destinations=(f"file:{columns}",))
    with client_of(server) as client:
        id = ask(client, paths, f"dosna:file:{columns}//a/t").json()["request_id"]
        assert client.get(f"{URL}/{id}").json()["files-completed"] == 1
        assert any(columns.rglob("t"))
        url = f"{URL}/{id}"
        done = client.get(f"{url}/cancel") if way == "cancel" else client.delete(url)
        assert done.status_code == 200
        held.gate.set()
        wait_until(lambda: not server.service.dispatcher.busy)
        # The group is free for another request.
        wait_until(lambda: ask(client, paths, f"dosna:file:{columns}//a/t").status_code == 200)
    with dn.Connection(str(columns), backend="file", mode="r") as con:
        wait_until(lambda: len(get_tree(con, "a/t").files) == 4)


def test_destinations_that_are_refused(serve: Any, columns: Path, paths: list[str]) -> None:
    from dosna.delivery.front.tokens import Tokens

    place = f"file:{columns}"
    server = serve(destinations=(place,), auth="tokens")
    token = Tokens(server.service.settings, server.service.state.users).refresh_token("ada")
    with client_of(server) as client:
        given = client.post("/token/refresh", headers={"Authorization": f"Bearer {token}"})
        client.headers["Authorization"] = f"Bearer {given.json()['access_token']}"
        for wrong, noun in [
            ("volume", "object-store"),
            (f"dosna:file:{columns.parent}//ada/t", place),
            (f"dosna:file:{columns}", place),
            (f"dosna:file:{columns}-more//ada/t", place),
            (f"dosna:{place}//bob/t", "ada/"),
            (f"dosna:{place}//ada", "ada/"),
            (f"dosna:{place}//ada/../bob/t", "dot"),
            (f"dosna:{place}///ada/t", "empty part"),
            (f"dosna:{place}//ada/t?mode=w\0", "control"),
            (f"{place}//ada/t", "destinations"),
        ]:
            answer = ask(client, paths, wrong)
            assert answer.status_code == 400, wrong
            assert noun in answer.json()["message"], wrong
        answer = ask(client, paths, f"dosna:{place}//ada/t", **{"result-format": "hdf5"})
        assert (answer.status_code, "parquet" in answer.text) == (400, True)
        answer = ask(client, [paths[0], "none"], f"dosna:{place}//ada/t")
        assert answer.status_code == 400
    assert list(columns.iterdir()) == []


def test_a_state_of_an_earlier_release_is_used(
    serve: Any, paths: list[str], tmp_path: Path
) -> None:
    sa = require("sqlalchemy")
    server = serve()
    with client_of(server) as client:
        id = ask(client, paths, "object-store").json()["request_id"]
        ended(client, id)
    server.service.state.close()
    with sa.create_engine(f"sqlite:///{tmp_path}/state/delivery.sqlite").begin() as old:
        old.execute(sa.text("ALTER TABLE dosna_delivery_requests DROP COLUMN destination"))
    from dosna.delivery.state import State

    state = State(f"sqlite:///{tmp_path}/state/delivery.sqlite")
    state.prepare()
    assert state.requests.get(id).destination is None
    state.prepare()
    state.close()


def test_commits_are_rare(
    serve: Any, columns: Path, paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dosna.columns.writing import TreeWriter
    from dosna.delivery.running import collecting

    counts, commit = [], TreeWriter.commit

    def counted(writer: TreeWriter, files: Any) -> None:
        files = list(files)
        counts.append(len(files))
        commit(writer, files)

    monkeypatch.setattr(TreeWriter, "commit", counted)
    # As if each commit had taken long.
    monkeypatch.setattr(collecting, "_PAUSES", 1e9)
    monkeypatch.setattr(collecting, "_LONGEST", patience(1.5))
    server = serve(destinations=(f"file:{columns}",))
    with client_of(server) as client:
        answer = ask(client, paths * 6, f"dosna:file:{columns}//t")
        found = ended(client, answer.json()["request_id"])
    assert (found["status"], found["files-completed"]) == ("Complete", 24), found
    assert sum(counts) == 24
    assert max(counts) > 2 * 2  # more than the workers have at a time
    with dn.Connection(str(columns), backend="file", mode="r") as con:
        assert len(get_tree(con, "t").files) == 24


def test_a_destination_that_fails_costs_no_transformations(
    serve: Any, columns: Path, paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dosna.delivery.running.collecting import _Collector

    transformed: list[str] = []
    failed: list[str] = []

    def counted(request: TransformRequest) -> TransformResult:
        transformed.append(request.source)
        return transform(request)

    def failing(name: str) -> None:
        right = getattr(_Collector, name)

        def method(self: Any, *arguments: Any) -> None:
            results = arguments or [result for result, _ in self._taken]
            # The first file is of its submission.
            if name not in failed and any(one.number for one in results):
                failed.append(name)
                raise StorageError("the destination has no space")
            right(self, *arguments)

        monkeypatch.setattr(_Collector, name, method)

    failing("_commit")
    failing("_take")
    server = serve(counted, destinations=(f"file:{columns}",))
    with client_of(server) as client:
        answer = ask(client, paths, f"dosna:file:{columns}//t")
        assert ended(client, answer.json()["request_id"])["files-completed"] == len(paths)
    assert sorted(failed) == ["_commit", "_take"]
    assert sorted(transformed) == paths


def test_a_slow_destination_leaves_workers_to_others(
    serve: Any, columns: Path, paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dosna.delivery.running import collecting, dispatcher

    monkeypatch.setattr(dispatcher, "_MOST_COLLECTED", 3)
    may, take, begun = threading.Event(), collecting._Collector._take, []

    def slowly(self: Any, result: Any) -> None:
        begun.append(result.number)
        assert result.number == 0 or may.wait(120)
        take(self, result)

    monkeypatch.setattr(collecting._Collector, "_take", slowly)
    server = serve(destinations=(f"file:{columns}",))
    try:
        with client_of(server) as client:
            slow = ask(client, paths * 8, f"dosna:file:{columns}//t").json()["request_id"]
            wait_until(lambda: len(begun) > 1)
            quick = ask(client, paths * 2, "object-store").json()["request_id"]
            assert ended(client, quick)["files-completed"] == 8
            assert server.service.dispatcher.busy < 3 + 2 * 2 + 1
            may.set()
            assert ended(client, slow)["files-completed"] == 32
            assert not server.service.dispatcher.busy
    finally:
        may.set()
