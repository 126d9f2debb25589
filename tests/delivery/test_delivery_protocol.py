"""The calls of the protocol, by a plain client of HTTP, with a fake of the transformer."""

from __future__ import annotations

import base64
import errno
import gc
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import FakeTransform
from support import HANG, require, wait_until

from dosna.errors import QueryError

httpx = require("httpx")

BODY = {
    "selection": "good",
    "codegen": "uproot-raw",
    "result-destination": "object-store",
    "result-format": "parquet",
}
URL = "/servicex/transformation"
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def fake() -> FakeTransform:
    return FakeTransform()


def client_of(server: Any, **options: Any) -> Any:
    return httpx.Client(base_url=server.root, timeout=HANG, **options)


def submit(client: Any, **body: Any) -> str:
    answer = client.post(URL, json=BODY | body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["request_id"])


def ended(client: Any, id: str) -> dict[str, Any]:
    def look() -> Any:
        found = client.get(f"{URL}/{id}").json()
        return found if found["status"] not in ("Lookup", "Running") else None

    wait_until(look)
    return dict(look())


def test_a_request_runs_to_its_end(serve: Any, fake: FakeTransform, paths: list[str]) -> None:
    with client_of(serve(fake)) as client:
        id = submit(client, title="muons", **{"file-list": paths})
        found = ended(client, id)
        assert found["status"] == "Complete"
        assert (found["files"], found["files-completed"], found["files-failed"]) == (4, 4, 0)
        assert found["title"] == "muons"
        assert found["minio-endpoint"] == client.base_url.netloc.decode()
        rows = client.get(f"{URL}/{id}/results").json()["results"]
        assert sorted(row["file-path"] for row in rows) == paths
        assert len({row["s3-object-name"] for row in rows}) == 4
        assert {row["total-events"] for row in rows} == {7}
        assert sorted(fake.calls) == paths  # Each once, the first too.
        listed = client.get(URL).json()["requests"]
        assert [one["request_id"] for one in listed] == [id]


def test_results_later_than_a_time(serve: Any, fake: FakeTransform, paths: list[str]) -> None:
    with client_of(serve(fake)) as client:
        id = submit(client, **{"file-list": paths})
        ended(client, id)

        def names(since: str) -> list[str]:
            query = {"later_than": since}
            rows = client.get(f"{URL}/{id}/results", params=query).json()["results"]
            return [row["created_at"] for row in rows]

        everything = names("0001-01-01T00:00:00+00:00")
        assert len(set(everything)) == 4
        assert everything == sorted(everything)
        for number, since in enumerate(everything):
            # The one of that time too, for others of the same could be missed.
            assert names(since + "+00:00") == everything[number:]
        later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        assert names(later) == []
        assert client.get(f"{URL}/{id}/results?later_than=soon").status_code == 400


@pytest.mark.parametrize(
    ("body", "noun"),
    [
        ({}, "file-list"),
        ({"file-list": ["a"], "did": "glob:*"}, "file-list"),
        ({"file-list": []}, "empty"),
        ({"file-list": ["x"], "codegen": "atlas"}, "code generator"),
        ({"file-list": ["x"], "result-format": "csv"}, "format"),
        ({"file-list": ["x"], "result-destination": "volume"}, "object-store"),
        ({"file-list": "x"}, "file"),
        ({"file-list": ["missing.root"]}, "missing.root"),
        ({"file-list": ["/etc/hostname"]}, "not served"),
        ({"file-list": ["../../etc/hostname"]}, "not served"),
        ({"file-list": ["https://example.org/a.root"]}, "not served"),
        ({"file-list": ["\udcff.root"]}, "Unicode"),
        ({"did": "nothing"}, "looked up"),
        ({"did": "glob:*.none"}, "pattern"),
        ({"did": "glob:*.root", "selection": "bad"}, "columns are a, b"),
    ],
)
def test_what_is_wrong_is_said_at_once(
    serve: Any, fake: FakeTransform, body: dict[str, Any], noun: str
) -> None:
    with client_of(serve(fake)) as client:
        answer = client.post(URL, content=json.dumps(BODY | body), headers=JSON)
        assert answer.status_code == 400
        assert noun in answer.json()["message"]
        assert client.get(URL).json()["requests"] == []


def test_a_failed_file_is_named(serve: Any, fake: FakeTransform, paths: list[str]) -> None:
    fake.fails = lambda source: ValueError("no tree") if source == paths[2] else None
    with client_of(serve(fake)) as client:
        id = submit(client, **{"file-list": paths})
        found = ended(client, id)
        assert (found["status"], found["files-completed"], found["files-failed"]) == (
            "Complete", 3, 1
        )  # fmt: skip
        rows = client.get(f"{URL}/{id}/results?status=failure").json()["results"]
        assert [(row["file-path"], row["s3-object-name"]) for row in rows] == [(paths[2], None)]
        assert "no tree" in rows[0]["message"]


def test_nothing_of_a_cancelled_request_stays(
    serve: Any, fake: FakeTransform, paths: list[str], tmp_path: Any
) -> None:
    server = serve(fake)
    with client_of(server) as client:
        id = submit(client, **{"file-list": paths[:1] * 50})
        fake.gate.clear()
        other = submit_later(client, paths)
        assert client.get(f"{URL}/{id}/cancel").status_code == 200
        assert client.get(f"{URL}/{id}").json()["status"] == "Canceled"
        fake.gate.set()
        assert ended(client, other())["status"] == "Complete"
        folder = tmp_path / "state" / "objects" / id
        wait_until(lambda: not server.service.dispatcher.busy)
        wait_until(lambda: not folder.exists())
        assert client.get(f"{URL}/{id}/results").json()["results"] == []
        assert client.delete(f"{URL}/{id}").status_code == 200
        assert client.get(f"{URL}/{id}").status_code == 404
        assert client.get(f"{URL}/{id}/cancel").status_code == 404


@pytest.mark.parametrize("slow", [0, 1])
def test_selections_of_a_cancelled_request_end(serve: Any, paths: list[str], slow: int) -> None:
    require("uproot")
    require("awkward")
    code = f"""
import time
import awkward as ak
def run_query(path):
    if path.endswith("{Path(paths[slow]).name}"):
        time.sleep(10_000)
    return ak.Array([1])
"""
    # Without confinement a process sees its input by its path, too.
    server = serve(workers=1, preflight_seconds=1.0, unconfined=True)
    with client_of(server) as client:
        body = {"selection": base64.b64encode(code.encode()).decode(), "codegen": "python"}
        id = submit(client, **body, **{"file-list": paths})
        if slow:
            wait_until(lambda: client.get(f"{URL}/{id}").json()["files-completed"] == slow)
        client.get(f"{URL}/{id}/cancel")
        # The only worker is free for another request.
        other = submit(client, **body, **{"file-list": paths[2:]})
        assert ended(client, other)["status"] == "Complete"
        assert client.get(f"{URL}/{id}").json()["status"] == "Canceled"
        assert not list(Path(server.service.settings.state, "scratch").iterdir())


def submit_later(client: Any, paths: list[str]) -> Any:
    """Submit in a thread, because the first file is waited for."""
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(1)
    made = pool.submit(submit, client, **{"file-list": paths})
    pool.shutdown(wait=False)
    return made.result


def test_slow_first_files_are_not_waited_for(
    serve: Any, fake: FakeTransform, paths: list[str]
) -> None:
    fake.gate.clear()
    with client_of(serve(fake, preflight_seconds=0.1)) as client:
        id = submit(client, selection="bad", **{"file-list": paths})
        assert client.get(f"{URL}/{id}").json()["status"] == "Lookup"
        fake.gate.set()
        found = ended(client, id)
        assert found["status"] == "Fatal"
        assert "columns" in found["failure-info"]
        assert fake.calls == paths[:1]


def test_datasets_are_looked_up_and_known(
    serve: Any, fake: FakeTransform, paths: list[str]
) -> None:
    with client_of(serve(fake)) as client:
        id = submit(client, did="glob:*.root?files=3")
        found = ended(client, id)
        assert (found["files"], found["did"]) == (3, "glob:*.root?files=3")
        known = client.get("/servicex/datasets").json()["datasets"]
        assert [(one["name"], one["n_files"]) for one in known] == [("glob:*.root", 4)]
        whole = client.get(f"/servicex/datasets/{found['did_id']}").json()
        assert [file["paths"] for file in whole["files"]] == paths
        assert client.get("/servicex/datasets?did-finder=rucio").json() == {"datasets": []}
        assert client.delete(f"/servicex/datasets/{found['did_id']}").json()["stale"] is True
        assert client.get("/servicex/datasets").json() == {"datasets": []}
        deleted = client.get("/servicex/datasets?show-deleted=True").json()["datasets"]
        assert [one["is_stale"] for one in deleted] == [True]
        assert client.get("/servicex/datasets/99").status_code == 404


def test_limits_of_a_user(serve: Any, fake: FakeTransform, paths: list[str]) -> None:
    limits = {"running_limit": 1, "files_limit": 3, "bytes_limit": 1}
    with client_of(serve(fake, **limits)) as client:
        many = client.post(URL, json=BODY | {"file-list": paths})
        assert many.status_code == 400
        assert "limit" in many.json()["message"]
        fake.gate.clear()
        other = submit_later(client, paths[:1])
        wait_until(lambda: fake.calls)
        busy = client.post(URL, json=BODY | {"file-list": paths[:1]})
        assert busy.status_code == 429
        assert "cancel one" in busy.json()["message"]
        fake.gate.set()
        ended(client, other())
        full = client.post(URL, json=BODY | {"file-list": paths[:1]})
        assert full.status_code == 429
        assert "bytes" in full.json()["message"]


def test_users_see_their_own_requests(serve: Any, fake: FakeTransform, paths: list[str]) -> None:
    jwt = require("jwt")
    from dosna.delivery.front.tokens import Tokens

    server = serve(fake, auth="tokens")
    tokens = Tokens(server.service.settings, server.service.state.users)
    refresh = {name: tokens.refresh_token(name) for name in ("ada", "bob")}
    with client_of(server) as client:

        def access(token: str) -> Any:
            return client.post("/token/refresh", headers={"Authorization": f"Bearer {token}"})

        found = {}
        for name, token in refresh.items():
            given = access(token).json()["access_token"]
            claims = jwt.decode(given, options={"verify_signature": False})
            assert claims["exp"] - time.time() > 600
            found[name] = {"Authorization": f"Bearer {given}"}
        for path in ("/servicex", URL, "/servicex/datasets"):
            assert client.get(path).status_code == 401
            assert client.get(path, headers=found["ada"]).status_code == 200
            # A refresh token is not for calls, nor is one that somebody else has signed.
            wrong = {"Authorization": f"Bearer {refresh['ada']}"}
            assert client.get(path, headers=wrong).status_code == 401
            forged = jwt.encode(claims, "k" * 48, "HS256")
            wrong = {"Authorization": f"Bearer {forged}"}
            assert client.get(path, headers=wrong).status_code == 401
        assert access(given).status_code == 401
        answer = client.post(URL, json=BODY | {"file-list": paths}, headers=found["ada"])
        id = answer.json()["request_id"]
        assert client.get(f"{URL}/{id}", headers=found["ada"]).status_code == 200
        assert len(client.get(URL, headers=found["ada"]).json()["requests"]) == 1
        assert client.get(URL, headers=found["bob"]).json()["requests"] == []
        for ask, path in [
            (client.get, f"{URL}/{id}"),
            (client.get, f"{URL}/{id}/results"),
            (client.get, f"{URL}/{id}/cancel"),
            (client.delete, f"{URL}/{id}"),
        ]:
            assert ask(path, headers=found["bob"]).status_code == 404
        # A new token replaces the earlier one.
        tokens.refresh_token("ada")
        assert access(refresh["ada"]).status_code == 401
        assert client.get(URL, headers=found["ada"]).status_code == 401


def test_pages_of_other_sites_change_nothing(
    serve: Any, fake: FakeTransform, paths: list[str]
) -> None:
    server = serve(fake)
    with client_of(server) as client:
        body = BODY | {"file-list": paths}
        for headers in ({"Origin": "https://example.org"}, {"Sec-Fetch-Site": "cross-site"}):
            assert client.post(URL, json=body, headers=headers).status_code == 403
        answer = client.post(URL, json=body, headers={"Origin": server.root})
        assert answer.status_code == 200
        url = f"{URL}/{answer.json()['request_id']}/cancel"
        assert client.get(url, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
        assert client.get("/servicex", headers={"Host": "example.org"}).status_code == 400


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_numbers_beyond_the_database_are_refused(
    serve: Any, fake: FakeTransform, method: str
) -> None:
    with client_of(serve(fake)) as client:
        answer = client.request(method, f"/servicex/datasets/{10**30}")
        assert answer.status_code == 400
        assert "64 bits" in answer.json()["message"]


def test_unforeseen_errors_are_json_and_in_the_log(
    serve: Any, fake: FakeTransform, monkeypatch: Any, caplog: Any
) -> None:
    server = serve(fake)

    def fail(*args: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(server.service, "codegens", fail)
    with client_of(server) as client:
        answer = client.get("/servicex")
    assert answer.status_code == 500
    assert "log" in answer.json()["message"]
    assert "secret" not in answer.text
    assert "a secret" in caplog.text


def test_what_no_database_holds_is_replaced(
    serve: Any, fake: FakeTransform, paths: list[str]
) -> None:
    fake.fails = lambda source: QueryError("odd \udcff\0.") if source == paths[1] else None
    with client_of(serve(fake)) as client:
        id = submit(client, **{"file-list": paths})
        assert ended(client, id)["files-failed"] == 1
        rows = client.get(f"{URL}/{id}/results?status=failure").json()["results"]
        assert rows[0]["message"] == "odd ?\ufffd."
        fake.fails = lambda source: QueryError("odd \udcff.")
        answer = client.post(URL, json=BODY | {"file-list": paths})
        assert (answer.status_code, answer.json()["message"]) == (400, "odd ?.")


def test_an_ended_request_is_not_called_cancelled(
    serve: Any, fake: FakeTransform, paths: list[str]
) -> None:
    with client_of(serve(fake)) as client:
        id = submit(client, **{"file-list": paths})
        ended(client, id)
        assert "Complete" in client.get(f"{URL}/{id}/cancel").json()["message"]
        assert ended(client, id)["status"] == "Complete"


def test_only_its_user_reads_the_database(serve: Any, fake: FakeTransform, tmp_path: Any) -> None:
    (tmp_path / "state").mkdir(mode=0o755)
    serve(fake)
    found = list((tmp_path / "state").glob("delivery.sqlite*"))
    assert found
    assert {path.stat().st_mode & 0o077 for path in found} == {0}


def test_a_state_that_cannot_be_written_is_named(
    serve: Any, fake: FakeTransform, tmp_path: Any
) -> None:
    from dosna.errors import ConfigurationError

    (tmp_path / "file").touch()
    for state in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigurationError, match="state"):
            serve(fake, state=str(state))


def test_bodies_are_limited(serve: Any, fake: FakeTransform, monkeypatch: Any) -> None:
    from dosna.delivery.front import serving

    monkeypatch.setattr(serving, "_MOST_BODY", 1000)
    with client_of(serve(fake)) as client:
        for body in ({"content": b"x" * 1001}, {"content": (b"x" * 100 for _ in range(11))}):
            answer = client.post(URL, headers=JSON, **body)
            assert answer.status_code == 413
            assert "larger" in answer.json()["message"]
        assert client.get(URL).status_code == 200


def test_bodies_of_strangers_are_not_read(
    serve: Any, fake: FakeTransform, monkeypatch: Any
) -> None:
    from dosna.delivery.front import transformations

    monkeypatch.setattr(transformations, "_parsed", None)
    with client_of(serve(fake, auth="tokens")) as client:
        assert client.post(URL, content=b"[" * 1000, headers=JSON).status_code == 401
        long = client.post("/login", data={"token": "x" * 70_000})
        assert (long.status_code, "65536" in long.json()["message"]) == (413, True)


@pytest.mark.parametrize(
    ("files", "noun"),
    [
        ("[" + "1," * 100_000 + "1]", "file-list.0"),
        ("[" + '"",' * 1_000_000 + '""]', "file-list"),
        ("[" * 100_000, "JSON"),
        ('["' + "x" * 10_000 + '"]', "file-list.0"),
        ("1e999", "file-list"),
        ("{}}", "JSON"),
    ],
)
def test_bodies_that_are_something_else(
    serve: Any, fake: FakeTransform, files: str, noun: str
) -> None:
    with client_of(serve(fake)) as client:
        text = f'{{"selection": "x", "codegen": "python", "file-list": {files}}}'
        answer = client.post(URL, content=text.encode(), headers=JSON)
        assert answer.status_code == 400
        assert noun in answer.json()["message"]
        assert len(answer.text) < 500


def test_files_that_appear_later_are_not_of_a_request(
    serve: Any, fake: FakeTransform, paths: list[str], tmp_path: Any
) -> None:
    (tmp_path / "data").mkdir()
    for name in "bc":
        (tmp_path / "data" / f"{name}.root").write_text(name)
    fake.gate.clear()
    server = serve(fake, roots=(str(tmp_path / "data"),), preflight_seconds=0.1)
    with client_of(server) as client:
        first = submit(client, did="glob:*.root")
        wait_until(lambda: fake.calls)
        (tmp_path / "data" / "a.root").write_text("a")
        second = submit(client, did="glob:*.root")
        known = "/servicex/datasets"
        wait_until(lambda: client.get(known).json()["datasets"][0]["n_files"] == 3)
        fake.gate.set()
        for id, names in ((first, "bc"), (second, "abc")):
            assert ended(client, id)["status"] == "Complete"
            rows = client.get(f"{URL}/{id}/results").json()["results"]
            got = {row["s3-object-name"]: row["file-path"][-6:] for row in rows}
            assert got == {
                f"{number:06d}-{name}.parquet": f"{name}.root" for number, name in enumerate(names)
            }


def test_a_full_disk_is_waited_for(serve: Any, fake: FakeTransform, paths: list[str]) -> None:
    full = {paths[0]: 1, paths[2]: 2}

    def fails(source: str) -> BaseException | None:
        full[source] = full.get(source, 0) - 1
        return OSError(errno.ENOSPC, "No space left on device") if full[source] >= 0 else None

    fake.fails = fails
    with client_of(serve(fake)) as client:
        id = submit(client, **{"file-list": paths})
        found = ended(client, id)
        assert (found["files-completed"], found["files-failed"]) == (4, 0)
        assert client.get("/health").json()["free space"].endswith("iB")


def test_datasets_that_nobody_uses_are_forgotten(
    serve: Any, fake: FakeTransform, paths: list[str]
) -> None:
    server = serve(fake, keep_days=1e-9, lookup_days=1e-9)
    with client_of(server) as client:
        ended(client, submit(client, **{"file-list": paths}))
        id = client.get("/servicex/datasets").json()["datasets"][0]["id"]
        server.service.sweep()
        assert client.get(f"/servicex/datasets/{id}").status_code == 404
        assert server.service.state.datasets.files(id) == []


def test_one_service_uses_a_state(serve: Any, fake: FakeTransform) -> None:
    from dosna.errors import ConfigurationError

    serve(fake)
    with pytest.raises(ConfigurationError, match="another service"):
        serve(fake)


def test_one_service_uses_a_database(
    serve: Any, fake: FakeTransform, postgres: str, tmp_path: Any, monkeypatch: Any
) -> None:
    from dosna.delivery import service
    from dosna.errors import ConfigurationError

    monkeypatch.setattr(service, "_LET_GO", 0.5)
    first = serve(fake, database=postgres).service
    with pytest.raises(ConfigurationError, match="database of its own"):
        serve(fake, database=postgres, state=str(tmp_path / "other"))
    with require("psycopg").connect(postgres, autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    first.sweep()
    with pytest.raises(ConfigurationError, match="database of its own"):
        serve(fake, database=postgres, state=str(tmp_path / "other"))


def test_a_service_that_has_lost_its_database_starts_nothing(
    serve: Any,
    fake: FakeTransform,
    paths: list[str],
    postgres: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from dosna.io.database import Database

    other = Database(postgres, "another state")
    submitted = Event()

    def fails(source: str) -> BaseException | None:
        if source != paths[1] or fake.calls.count(source) > 1:
            return None
        submitted.wait(HANG)
        with require("psycopg").connect(postgres, autocommit=True) as admin:
            while not other.hold():
                admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
        return OSError(errno.ENOSPC, "No space left on device")

    fake.fails = fails
    with closing(other), client_of(serve(fake, database=postgres)) as client:
        id = submit(client, **{"file-list": paths[:2]})
        submitted.set()
        wait_until(lambda: caplog.text.count("another process has locked it") > 1)
        assert fake.calls == paths[:2]
        assert client.get(f"{URL}/{id}").json()["files-completed"] == 1
        assert client.delete(f"{URL}/{id}").status_code == 503
        other.close()
        assert ended(client, id)["files-completed"] == 2
        assert fake.calls == [*paths[:2], paths[1]]


def test_one_service_uses_a_file_of_sqlite(
    serve: Any, fake: FakeTransform, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dosna.delivery import service
    from dosna.errors import ConfigurationError

    monkeypatch.setattr(service, "_LET_GO", 0.3)
    first = serve(fake, database=f"sqlite:///{tmp_path}/one.sqlite").service
    (tmp_path / "link.sqlite").symlink_to(tmp_path / "one.sqlite")
    for name in ("one.sqlite", "link.sqlite"):
        with pytest.raises(ConfigurationError, match="database of its own"):
            serve(
                fake,
                database=f"sqlite:///{tmp_path}/{name}",
                state=str(tmp_path / "other"),
            )
    first.sweep()
    first.__exit__(None, None, None)
    serve(fake, database=f"sqlite:///{tmp_path}/link.sqlite", state=str(tmp_path / "third"))


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_one_service_uses_a_place_of_results(
    serve: Any, fake: FakeTransform, paths: list[str], kind: str, tmp_path: Any, request: Any
) -> None:
    from dosna.errors import ConfigurationError

    given: dict[str, Any] = {"objects": str(tmp_path / "objects")}
    if kind == "s3":
        from services.s3 import make_bucket

        request.getfixturevalue("_any_keys")
        url = request.getfixturevalue("moto_url")
        given = {"objects": f"s3://{make_bucket(url)}", "objects_endpoint": url}
    server = serve(fake, **given)
    with client_of(server) as client:
        id = submit(client, **{"file-list": paths})
        ended(client, id)
        with pytest.raises(ConfigurationError, match="another service"):
            serve(fake, **given, state=str(tmp_path / "other"))
        # Its results would have been deleted as those of nobody.
        assert list(server.service.place.requests()) == [id]


def test_what_is_left_is_taken_up_again(
    serve: Any, fake: FakeTransform, paths: list[str], tmp_path: Any
) -> None:
    from dosna.delivery.state import State
    from dosna.delivery.state.datasets import FoundFile
    from dosna.delivery.state.files import Outcome
    from dosna.delivery.state.requests import Submitted

    (tmp_path / "state").mkdir()
    state = State(f"sqlite:///{tmp_path}/state/delivery.sqlite")
    state.prepare()
    asked = [
        Submitted("local", None, "files", json.dumps(paths), "good", "uproot-raw", "parquet")
        for _ in range(4)
    ]
    half, looked_up, unknown, begun = map(state.requests.add, asked)
    dataset = state.datasets.keep("files", "user", "complete", [FoundFile(p) for p in paths])
    for id in (half, begun):
        assert state.requests.fill(id, dataset, None) == 4
        assert state.requests.begin(id)
    assert state.files.record(half, 1, Outcome(None, message="it failed"))
    for id in (half, looked_up):
        state.requests.answer(id)
    state.close()
    left = tmp_path / "state" / "objects" / "00000000-0000-0000-0000-000000000000"
    left.mkdir(parents=True)
    with client_of(serve(fake)) as client:
        found = ended(client, half)
        assert (found["files-completed"], found["files-failed"]) == (3, 1)
        assert ended(client, looked_up)["files-completed"] == 4
        for id in (unknown, begun):
            assert client.get(f"{URL}/{id}").status_code == 404
        wait_until(lambda: not left.exists())
    assert len(fake.calls) == 7


def test_jobs_carry_no_passwords(tmp_path: Any, events: Any) -> None:
    import pickle

    from dosna.delivery.running.jobs import job_of
    from dosna.delivery.settings import Settings
    from dosna.delivery.state.tables import requests

    settings = Settings(
        roots=(str(events),),
        state=str(tmp_path),
        database="postgresql://ada:hunter2@db/delivery",
        destinations=("s3:results?token=hunter2",),
        dask="tls://ada:hunter2@scheduler:8786",
    )
    row: Any = SimpleNamespace(**dict.fromkeys(requests.c.keys(), ""))
    row.format = "parquet"
    job = job_of(row, 3, "a.root", settings)
    assert b"hunter2" not in pickle.dumps(job)
    assert "hunter2" not in repr(job)
    assert job.settings.folders == settings.folders
    assert job.settings.database_url != settings.database_url
    assert "hunter2" not in str(settings.shown())


def test_what_is_no_scheduler_of_dask_is_named(tmp_path: Any, events: Any) -> None:
    from dosna.delivery.running.workers import open_workers
    from dosna.delivery.settings import Settings
    from dosna.errors import ConnectionError

    Client = require("distributed").Client

    def serve() -> None:
        with server.accept()[0] as other:
            other.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            other.recv(1)

    def clients() -> list[Any]:
        return [found for found in gc.get_objects() if type(found) is Client]

    before = {client.id for client in clients()}
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        serving = pool.submit(serve)
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        settings = Settings(roots=(str(events),), state=str(tmp_path), dask=address)
        with pytest.raises(ConnectionError, match=address) as caught:
            open_workers(settings, FakeTransform())
        serving.result(HANG)
    # A client that was left open waits for event loops wherever it is collected.
    assert caught.value.__context__ is not None
    assert {client.status for client in clients() if client.id not in before} <= {"closed"}
