"""Kills at any moment: after a restart each file is delivered once, or is named as failed."""

from __future__ import annotations

import base64
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from services.ports import take_ports
from services.s3 import make_client
from support import HANG, require, wait_until

import dosna as dn
from dosna.columns import find_trees, get_tree, read_columns
from dosna.testing.timing import patience

require("fastapi")
require("uproot")
httpx = require("httpx")
psutil = require("psutil")

pytestmark = pytest.mark.slow

URL = "/servicex/transformation"
SELECTION = '[{"treename": "Events", "filter_name": ["run", "met"]}]'


class Victim:
    """A service in a process, which is killed and started again."""

    def __init__(self, folder: Path, state: Path, *options: str) -> None:
        (self.port,), (self.claim,) = take_ports(1)
        self.command = [
            *[sys.executable, "-m", "dosna", "delivery", "--port", str(self.port)],
            *["--root", str(folder), "--state", str(state), "--workers", "2", *options],
        ]
        self.log = state.with_suffix(".log")
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=patience(60))
        self.start()

    def start(self) -> None:
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                self.command, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self.process.stdout is not None
        assert self.process.stdout.readline(), self.log.read_text()[-3000:]

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(HANG)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def kill_a_worker(self, chance: random.Random) -> None:
        """Kill one of the processes below that of the service."""
        below = psutil.Process(self.process.pid).children(recursive=True)
        if below:
            with suppress(psutil.NoSuchProcess):
                chance.choice(below).kill()

    def get(self, path: str) -> Any:
        """Ask as a client does: again, while the service starts."""
        end = time.monotonic() + patience(60)
        while True:
            try:
                answer = self.client.get(path)
                if answer.status_code < 500:
                    return answer.json()
            except httpx.TransportError:
                pass
            assert time.monotonic() < end, self.log.read_text()[-3000:]
            time.sleep(0.05)


@contextmanager
def running(*args: Any) -> Iterator[Victim]:
    victim = Victim(*args)
    try:
        yield victim
    finally:
        victim.client.close()
        victim.kill()
        victim.claim.close()


@pytest.fixture
def many(tmp_path: Path, paths: list[str]) -> Callable[[int], list[str]]:
    """Give a function that makes files, of which the third is broken."""

    def make(count: int) -> list[str]:
        folder = tmp_path / "data"
        folder.mkdir()
        made = [folder / f"file_{number:03d}.root" for number in range(count)]
        for path in made:
            os.link(paths[0], path)
        made[2].unlink()
        made[2].write_bytes(b"root" + bytes(200))
        return [str(path) for path in made]

    return make


def submit(victim: Victim, files: list[str], **others: Any) -> str:
    body = {
        "file-list": files,
        "selection": SELECTION,
        "codegen": "uproot-raw",
        "result-destination": "object-store",
        "result-format": "parquet",
    } | others
    answer = victim.client.post(URL, json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["request_id"])


def check(victim: Victim, id: str, files: list[str], data: Callable[[str], bytes] | None) -> None:
    """Wait for the end, and check that each file was delivered once or is named."""
    end = time.monotonic() + patience(200)
    while (found := victim.get(f"{URL}/{id}"))["status"] != "Complete":
        assert found["status"] in ("Lookup", "Running"), found
        assert time.monotonic() < end, found
        time.sleep(0.1)
    assert (found["files"], found["files-completed"]) == (len(files), len(files) - 1)
    rows = victim.get(f"{URL}/{id}/results")["results"]
    assert sorted(row["file-path"] for row in rows) == files
    failed = [row["file-path"] for row in rows if row["transform_status"] == "failure"]
    assert failed == [files[2]]
    assert len({row["created_at"] for row in rows}) == len(rows)
    for row in rows:
        if row["transform_status"] == "success" and data is not None:
            content = data(row["s3-object-name"])
            assert len(content) == row["total-bytes"]
            assert content[:4] == content[-4:] == b"PAR1"


def harm(victim: Victim, kills: int, chance: random.Random, others: Any = ()) -> None:
    for _ in range(kills):
        time.sleep(chance.random() * 0.6)
        kind = chance.choice(["service", "worker", *others])
        if kind == "service":
            victim.kill()
            victim.start()
        elif kind == "worker":
            victim.kill_a_worker(chance)
        else:
            kind()


@pytest.mark.parametrize(
    ("count", "kills"),
    [(12, 3), pytest.param(200, 50, marks=[pytest.mark.fault, pytest.mark.timeout(1800)])],
)
def test_kills_lose_and_double_nothing(many: Any, tmp_path: Path, count: int, kills: int) -> None:
    files = many(count)
    with running(tmp_path / "data", tmp_path / "state") as victim:
        id = submit(victim, files)
        harm(victim, kills, random.Random(count))
        results = tmp_path / "state" / "objects" / id
        check(victim, id, files, lambda name: (results / name).read_bytes())
        assert len(list(results.iterdir())) == count - 1
        assert not any((tmp_path / "state" / "scratch").iterdir())
        # What was cancelled leaves nothing, also if the service is killed right after.
        other = submit(victim, files)
        victim.get(f"{URL}/{other}/cancel")
        victim.kill()
        victim.start()
        end = time.monotonic() + patience(30)
        while (tmp_path / "state" / "objects" / other).exists():
            assert time.monotonic() < end
            time.sleep(0.05)


@pytest.mark.parametrize(
    ("count", "kills"),
    [(12, 4), pytest.param(200, 50, marks=[pytest.mark.fault, pytest.mark.timeout(1800)])],
)
def test_kills_lose_and_double_nothing_in_a_tree(
    many: Any, tmp_path: Path, count: int, kills: int
) -> None:
    files, place = many(count), tmp_path / "columns"
    place.mkdir()
    options = ["--destination", f"file:{place}"]
    with running(tmp_path / "data", tmp_path / "state", *options) as victim:
        goal = {"result-destination": f"dosna:file:{place}//a/tree"}
        id = submit(victim, files, **goal)
        harm(victim, kills, random.Random(count))
        check(victim, id, files, None)
        other = submit(victim, files, **{"result-destination": f"dosna:file:{place}//b"})
        victim.get(f"{URL}/{other}/cancel")
        victim.kill()
        victim.start()

        def is_gone() -> bool:
            with dn.Connection(str(place), backend="file", engine="cpu", mode="r") as con:
                return list(find_trees(con)) == ["a/tree"]

        wait_until(is_gone)
        wait_until(lambda: not (tmp_path / "state" / "objects" / id).exists())
    with dn.Connection(str(place), backend="file", engine="cpu", mode="r") as con:
        tree = get_tree(con, "a/tree")
        good = files[:2] + files[3:]
        assert sorted(file.url.rpartition("#")[0] for file in tree.files) == good
        runs = read_columns(con, "a/tree", ["run"]).run
        assert runs.tolist() == list(range(90)) * len(good)
        assert not any(con[name].incomplete for name in con)


@pytest.mark.parametrize(
    ("count", "kills"),
    [(12, 6), pytest.param(200, 50, marks=[pytest.mark.fault, pytest.mark.timeout(1800)])],
)
@pytest.mark.usefixtures("_any_keys")
def test_database_and_object_store_are_lost(
    many: Any, tmp_path: Path, postgres: str, moto_url: str, count: int, kills: int
) -> None:
    psycopg = require("psycopg")
    require("boto3")
    from services.proxy import Proxy

    files, bucket = many(count), f"faults-{count}-{time.monotonic_ns()}"
    store = make_client(moto_url)
    store.create_bucket(Bucket=bucket)

    def cut_database() -> None:
        with psycopg.connect(postgres, autocommit=True) as admin:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

    with Proxy(moto_url) as proxy:

        def stop_store() -> None:
            proxy.fault = lambda request: chance.choice(["refuse", "lose"])
            proxy.reset()
            time.sleep(0.5)
            proxy.fault = None

        chance = random.Random(count)
        options = ["--database", postgres, "--objects", f"s3://{bucket}/r"]
        options += ["--objects-endpoint", proxy.url]
        with running(tmp_path / "data", tmp_path / "state", *options) as victim:
            id = submit(victim, files)
            harm(victim, kills, chance, [cut_database, stop_store])

            def read(name: str) -> bytes:
                found = store.get_object(Bucket=bucket, Key=f"r/{id}/{name}")
                return bytes(found["Body"].read())

            check(victim, id, files, read)
            pages = store.get_paginator("list_objects_v2").paginate(Bucket=bucket)
            names = [one["Key"] for page in pages for one in page.get("Contents", [])]
            assert len(names) == count - 1 + 1  # and the name of the service
    store.close()


def test_workers_of_dask_are_lost(many: Any, tmp_path: Path) -> None:
    require("distributed")
    from services.dask import start_dask

    files = many(16)
    (tmp_path / "dask").mkdir()
    with start_dask(tmp_path / "dask") as cluster:
        cluster.worker("a")
        cluster.worker("b")
        options = ["--dask", cluster.address]
        with running(tmp_path / "data", tmp_path / "state", *options) as victim:
            id = submit(victim, files)
            cluster.kill("a")
            cluster.worker("c")
            results = tmp_path / "state" / "objects" / id
            check(victim, id, files, lambda name: (results / name).read_bytes())
            assert len(list(results.iterdir())) == 15


def test_selections_of_a_cancelled_request_end_in_dask(many: Any, tmp_path: Path) -> None:
    require("distributed")
    from services.dask import start_dask

    files = many(4)
    code = """
import time
import awkward as ak
def run_query(path):
    print("begun", flush=True)
    time.sleep(10_000)
"""
    (tmp_path / "dask").mkdir()
    with start_dask(tmp_path / "dask") as cluster:
        cluster.worker("a")
        options = ["--dask", cluster.address, "--preflight-seconds", "0.1"]
        with running(tmp_path / "data", tmp_path / "state", *options) as victim:
            slow = {"selection": base64.b64encode(code.encode()).decode(), "codegen": "python"}
            id = submit(victim, files, **slow)
            scratch = tmp_path / "state" / "scratch"
            wait_until(lambda: any("begun" in log.read_text() for log in scratch.rglob("log")))
            victim.get(f"{URL}/{id}/cancel")
            # The only worker is free for another request.
            check(victim, submit(victim, files), files, None)
            wait_until(lambda: not list(scratch.iterdir()))


def test_a_silent_scheduler_of_dask_has_one_slot(tmp_path: Path, monkeypatch: Any) -> None:
    require("distributed")
    from fakes import FakeTransform
    from services.dask import start_dask

    from dosna.delivery.running import workers
    from dosna.delivery.settings import Settings

    data, state = tmp_path / "data", tmp_path / "state"
    for folder in (data, state, tmp_path / "dask"):
        folder.mkdir(exist_ok=True)
    with start_dask(tmp_path / "dask") as cluster:
        cluster.worker("a", threads=2)
        settings = Settings(roots=(str(data),), state=str(state), dask=cluster.address)
        found = workers.open_workers(settings, FakeTransform())
        wait_until(lambda: found.slots == 2)
        scheduler = cluster.processes["scheduler"].pid
        monkeypatch.setattr(workers, "_CONNECT", 1)
        os.killpg(scheduler, signal.SIGSTOP)
        try:
            assert found.slots == 1
        finally:
            os.killpg(scheduler, signal.SIGCONT)
        wait_until(lambda: found.slots == 2)
        found.close()
