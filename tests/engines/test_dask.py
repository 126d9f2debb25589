"""The dask engine: the conformance kit on a local cluster, and clusters that change."""

from __future__ import annotations

import gc
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from support import HANG, require

import dosna as dn
from dosna import errors
from dosna.core.plan import every_chunk
from dosna.testing import EngineTests

distributed = require("distributed")
require("h5py")

from services.dask import LOCAL, local_client, start_dask  # noqa: E402

from dosna.engines import registry  # noqa: E402
from dosna.engines.dask.batches import Batches  # noqa: E402

pytestmark = pytest.mark.slow


class TestLocalCluster(EngineTests):
    script_seconds = 150
    processes = 2

    @pytest.fixture
    def engine(self):
        return "dask", LOCAL


# -- parameters ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine_kw", "word"),
    [
        ({"n_workers": 0}, "n_workers"),
        ({"threads_per_worker": 1.5}, "threads_per_worker"),
        ({"address": 8786}, "address"),
        ({"address": "tcp://127.0.0.1:1", "n_workers": 2}, "n_workers"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": float("inf")}, "timeout"),
        ({"memory_limit": "plenty"}, "memory_limit"),
        ({"memory_limit": -1}, "memory_limit"),
        ({"client": "tcp://127.0.0.1:1"}, "client"),
        ({"client": "tcp://127.0.0.1:1", "security": True}, "security"),
    ],
)
def test_wrong_keywords_are_refused(engine_kw, word):
    with pytest.raises(errors.ConfigurationError, match=word):
        dn.use(engine="dask", engine_kw=engine_kw)


def test_a_scheduler_that_is_not_there_is_an_error_in_time(connect):
    with connect(address="tcp://127.0.0.1:1", timeout=1) as con:
        begin = time.monotonic()
        with pytest.raises(errors.ConnectionError, match=r"127\.0\.0\.1:1"):
            con.create_dataset("a", data=np.zeros(4)).sum()
        assert time.monotonic() - begin < HANG


def own_clients():
    """Return what the clients that the engine has opened are doing, by their identifiers."""
    clients = [found for found in gc.get_objects() if type(found) is distributed.Client]
    return {client.id: client.status for client in clients if "-dosna-" in client.id}


def test_what_is_no_scheduler_is_an_error_at_once(connect):
    def serve():
        with server.accept()[0] as other:
            other.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            other.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        serving = pool.submit(serve)
        place = f"127.0.0.1:{server.getsockname()[1]}"
        before = own_clients()
        for address in (f"http://{place}", "tcp://127.0.0.1", place):
            with connect(address=address) as con:
                ds = con.create_dataset("a", (4,), "f8")
                begin = time.monotonic()
                with pytest.raises(errors.ConnectionError, match="dashboard") as caught:
                    ds.sum()
                assert time.monotonic() - begin < HANG / 2
                # A client that was left open waits for event loops wherever it is collected.
                assert caught.value.__cause__ is not None
                # Looked at once: one of an earlier round may be collected in the next moment.
                found = own_clients()
                assert {found[client] for client in found.keys() - before.keys()} <= {"closed"}
                con.del_dataset("a")
        serving.result(HANG)


def test_a_scheduler_that_says_nothing_is_an_error_in_time(connect):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with connect(address=f"tcp://127.0.0.1:{silent.getsockname()[1]}", timeout=1) as con:
            ds = con.create_dataset("a", np.zeros(4).shape, "f8")
            with pytest.raises(errors.ConnectionError, match="no answer"):
                ds.sum()


def test_a_local_cluster_uses_the_certificates_it_is_given(connect):
    require("cryptography")
    security = distributed.Security.temporary()
    with connect(**LOCAL, security=security) as con:
        ds = con.create_dataset("a", data=np.arange(10), chunk_size=3)
        assert ds.sum() == 45
        with ds.connection.runner._client() as client:
            assert client.scheduler.address.startswith("tls://")


def test_an_inner_error_of_dask_is_told_as_one_of_the_cluster(connect, monkeypatch):
    def fail(**options):
        assert options["loop"].asyncio_loop.is_running()
        raise AssertionError

    monkeypatch.setattr("dosna.engines.dask.local.LocalCluster", fail)
    with (
        connect(n_workers=3) as con,
        pytest.raises(errors.WorkerError, match="local Dask cluster: AssertionError"),
    ):
        con.create_dataset("a", data=np.arange(10), chunk_size=3)


def test_a_memory_limit_is_shared_by_the_threads_of_one_worker():
    runner = registry.get("dask").runner(**LOCAL)
    assert (runner.workers, runner.sharers) == (4, 2)


def test_a_client_of_the_caller_is_used_and_left_open(cluster, client, connect):
    cluster.worker("one")
    cluster.await_workers(client, 1)
    with connect(client=client) as con:
        ds = con.create_dataset("a", data=np.arange(10), chunk_size=3)
        assert ds.map(np.negative, "b").sum() == -45
    assert client.status == "running"


def test_a_cluster_without_workers_is_an_error_in_time(cluster, client, connect):
    with connect(address=cluster.address, timeout=1) as con:
        ds = con.create_dataset("a", data=np.arange(10), chunk_size=3)
        with pytest.raises(errors.WorkerError, match="no worker"):
            ds.sum()


# -- workers that cannot work --------------------------------------------------------------------


def test_a_worker_that_cannot_import_dosna_is_named(cluster, client, connect, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "dosna.py").write_text("raise ImportError('not on this machine')")
    cluster.worker("poor", env={"PYTHONPATH": str(tmp_path / "site")})
    cluster.await_workers(client, 1)
    with connect(client=client) as con:
        ds = con.create_dataset("a", data=np.arange(10), chunk_size=3)
        with pytest.raises(errors.WorkerError, match=r"worker poor .*not on this machine"):
            ds.sum()


@pytest.mark.parametrize("call", ["sum", "apply"])
def test_a_scheduler_that_cannot_import_dosna_is_named(connect, tmp_path, call):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "dosna.py").write_text("raise ImportError('not on this machine')")
    with start_dask(tmp_path, {"PYTHONPATH": str(tmp_path / "site")}) as poor:
        poor.worker("rich")
        with (
            distributed.Client(poor.address, set_as_default=False) as client,
            connect(client=client) as con,
        ):
            poor.await_workers(client, 1)
            ds = con.create_dataset("a", (10,), "f8", chunk_size=3)
            with pytest.raises(errors.WorkerError, match=r"scheduler .*not on this machine"):
                ds.apply(np.negative) if call == "apply" else ds.sum()


def test_a_worker_of_another_version_is_named(cluster, client, connect, monkeypatch):
    cluster.worker("old")
    cluster.await_workers(client, 1)
    from dosna.engines.dask import cluster as module

    here = module._versions_here()
    monkeypatch.setattr(module, "_versions_here", lambda: {**here, "numpy": "9.9.9"})
    with connect(client=client) as con:
        ds = con.create_dataset("a", data=np.arange(10), chunk_size=3)
        with pytest.raises(errors.WorkerError, match=r"worker old .*numpy"):
            ds.sum()


def test_a_worker_that_does_not_reach_the_store_is_named(cluster, client, tmp_path):
    cluster.worker("far")
    cluster.await_workers(client, 1)
    here = tmp_path / "here"
    here.mkdir()
    # A process that was started elsewhere takes a relative path for another folder.
    with dn.Connection(
        "here",
        directory=str(tmp_path),
        backend="file",
        engine="dask",
        engine_kw={"client": client, "timeout": HANG},
    ) as con:
        ds = con.create_dataset("a", data=np.arange(10), chunk_size=3)
        client.run(os.rename, str(here), str(tmp_path / "gone"))
        with pytest.raises(errors.DatasetNotFoundError) as caught:
            ds.sum()
        assert "worker far" in "".join(caught.value.__notes__)


# -- work ----------------------------------------------------------------------------------------


def test_a_function_that_cannot_be_sent_is_refused(connect):
    lock = threading.Lock()

    def locked(block):
        with lock:
            return block

    with connect(**LOCAL) as con:
        ds = con.create_dataset("a", data=np.arange(10), chunk_size=3)
        for call in (lambda: ds.map(locked, "b"), lambda: ds.apply(locked)):
            with pytest.raises(TypeError, match=r"cannot send the function .*lock"):
                call()
            assert "b" not in con


def test_a_million_tasks_are_few_batches():
    runner = registry.get("dask").runner(**LOCAL)
    counts = runner.spread(lambda tasks: len(list(tasks)), every_chunk((1_000_000,), (1,)))
    assert sum(counts) == 1_000_000
    assert len(counts) < 3000


@pytest.mark.parametrize("reached", [True, False])
def test_results_come_from_the_workers(cluster, client, monkeypatch, reached):
    from dosna.engines.dask import cluster as module

    if not reached:  # as behind a gateway, where only the scheduler reaches them
        monkeypatch.setattr(module, "_is_reached", lambda *_: False)
    for name in "ab":
        cluster.worker(name)
    cluster.await_workers(client, 2)
    runner = registry.get("dask").runner(client=client, timeout=HANG)
    found = runner.spread(lambda tasks: [bytes([n]) * 10_000 for n in tasks], range(200))
    assert sorted(part[:1] for parts in found for part in parts) == [
        bytes([n]) for n in range(200)
    ]
    gathers = [event for _, event in client.get_events("all") if event.get("action") == "gather"]
    assert bool(gathers) != reached


def test_a_slow_store_holds_workers_and_caller_back(tmp_path):
    count, mib = 192, 1 << 20

    def peak():
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10

    with (
        dn.Connection(
            str(tmp_path), backend="folder", engine="dask", engine_kw=LOCAL, seconds=0.05
        ) as con,
        local_client() as client,
    ):
        con.create_dataset("few", (8, mib), "u1", 1, chunk_size=(1, mib)).map(np.negative, "warm")
        ds = con.create_dataset("a", (count, mib), "u1", 1, chunk_size=(1, mib))
        before = {"caller": peak(), **client.run(peak)}
        ds.map(np.negative, "b")
        after = {"caller": peak(), **client.run(peak)}
        # None has many more chunks in its memory than it works on at a time.
        grown = {name: after[name] - before[name] for name in before}
        assert max(grown.values()) < count * mib // 3, grown
        assert con["b"][-1, -1] == 255


@pytest.mark.parametrize("known_by", [None, "127.0.0.1", "localhost"])
def test_calls_within_tasks_of_the_user_do_not_wait_for_themselves(
    cluster, client, connect, known_by
):
    cluster.worker("only")
    cluster.await_workers(client, 1)
    address = known_by and cluster.address.replace("127.0.0.1", known_by)
    with connect(address=cluster.address) as con:
        con.create_dataset("a", data=np.arange(10), chunk_size=3)
        path = con.name

    def total():
        engine_kw = {"timeout": HANG}
        if address:
            engine_kw["address"] = address
        with dn.Connection(path, backend="file", engine="dask", engine_kw=engine_kw) as own:
            return int(own["a"].sum())

    assert client.submit(total).result(timeout=HANG) == 45


def test_work_runs_where_its_data_lie(cluster, client):
    """Two labelled workers: nine tenths of the tasks run where they should."""

    class Work:
        def locations(self, task):
            return ("east", "west")[task.idx[0] % 2 :]

        def __call__(self, tasks):
            name = distributed.get_worker().name
            found = []
            for task in tasks:
                time.sleep(0.005)
                found.append((name, task.idx[0]))
            return found

    cluster.worker("east")
    cluster.worker("west")
    cluster.await_workers(client, 2)
    runner = registry.get("dask").runner(client=client, timeout=HANG)

    def near() -> int:
        parts = runner.spread(Work(), every_chunk((400,), (1,)))
        found = [pair for part in parts for pair in part]
        assert sorted(n for _, n in found) == list(range(400))
        return sum(name == ("east", "west")[number % 2] for name, number in found)

    # A worker to which a busy machine gives no processor is helped by the other.
    assert any(near() >= 0.9 * 400 for _ in range(3))


def test_objects_on_ceph_are_worked_on_by_the_hosts_of_their_osds(cluster, client, ceph):
    class Work:
        def __init__(self, dataset):
            self.dataset = dataset

        def locations(self, task):
            return self.dataset.locations(task.idx)

        def __call__(self, tasks):
            name = distributed.get_worker().name
            found = []
            for task in tasks:
                time.sleep(0.005)
                found.append((name, task.idx))
            return found

    # Two of the three hosts; each object has a copy on both.
    cluster.worker("host-0")
    cluster.worker("host-1")
    cluster.await_workers(client, 2)
    options = {"backend": "ceph", "conffile": ceph.conf, "timeout": 60}
    engine_kw = {"client": client, "timeout": HANG}
    with dn.Connection("kit", engine="dask", engine_kw=engine_kw, **options) as con:
        ds = con.create_dataset("placed", shape=(400,), dtype="i1", chunk_size=1)
        first = {
            (number,): next(host for host in ds.instance.locations((number,)) if host != "host-2")
            for number in range(400)
        }
        assert set(first.values()) == {"host-0", "host-1"}

        def near() -> int:
            parts = ds.runner.spread(Work(ds.instance), every_chunk((400,), (1,)))
            found = [pair for part in parts for pair in part]
            assert sorted(idx for _, idx in found) == sorted(first)
            return sum(name == first[idx] for name, idx in found)

        assert any(near() >= 0.9 * 400 for _ in range(3))  # as above
        con.del_dataset("placed")


def test_places_matter_though_that_of_the_first_task_has_no_worker():
    places = [frozenset({"east"}), frozenset({"west"})]
    hosts = ["north", "south", "east", "west"] * 10
    batches = Batches(range(40), lambda number: (hosts[number],), places)
    near = batches.take(5, places[0])
    assert {hosts[number] for number in near} == {"east"}


def test_no_worker_is_idle_because_long_tasks_lie_elsewhere():
    places = [frozenset({"east"}), frozenset({"west"})]
    batches = Batches(range(3), lambda number: ("west",), places)
    assert [batches.take(1, places[0]) for _ in range(3)] == [[0], [1], []]
    assert batches.take(1, places[1]) == [2]


def test_nothing_is_looked_for_where_all_workers_are_as_near():
    asked = []

    def locations(number):
        asked.append(number)
        return ("here",)

    batches = Batches(range(1000), locations, [frozenset({"here", name}) for name in "ab"])
    assert len(batches.take(1000, frozenset({"a"}))) == 1000
    assert len(asked) < 100


def test_no_worker_is_missed_while_the_client_inquires_for_itself(monkeypatch):
    from dosna.engines.dask.cluster import workers_of

    with local_client() as client:
        inquire = client._update_scheduler_info

        async def overtaken(*args, **kwargs):
            await inquire(*args, **kwargs)
            await inquire()

        monkeypatch.setattr(client, "_update_scheduler_info", overtaken)
        assert len(workers_of(client, HANG)) == LOCAL["n_workers"]


def test_a_place_that_dies_does_not_hang_the_work(cluster, client):
    class Work:
        def locations(self, task):
            return ("east", "west")[task.idx[0] % 2 :]

        def __call__(self, tasks):
            found = []
            for task in tasks:
                time.sleep(0.02)
                found.append(task.idx[0])
            return found

    cluster.worker("east")
    cluster.worker("west")
    cluster.await_workers(client, 2)
    runner = registry.get("dask").runner(client=client, timeout=HANG)
    threading.Timer(1.0, cluster.kill, ["west"]).start()
    parts = runner.spread(Work(), every_chunk((300,), (1,)))
    assert sorted(n for part in parts for n in part) == list(range(300))


def test_workers_may_join_and_leave(cluster, client, connect, slowly):
    cluster.worker("first")
    cluster.await_workers(client, 1)

    with connect(address=cluster.address) as con, ThreadPoolExecutor(1) as pool:
        ds = con.create_dataset("a", data=np.arange(300.0), chunk_size=1)
        mapping = pool.submit(ds.map, slowly, "b")
        # From this thread: with the one that starts a process, the process would end.
        cluster.worker("second")
        cluster.await_workers(client, 2)
        client.retire_workers(names=["first"])
        assert np.array_equal(mapping.result(HANG)[...], np.arange(300.0) + 1)


def test_a_cluster_that_adapts_grows_for_a_call(connect, tmp_path):
    grown = str(tmp_path / "grown")

    def slowly(block):
        time.sleep(0.03 if os.path.exists(grown) else 0.2)
        return block + 1

    def look(done, total):
        if len(own.workers) > 1:
            Path(grown).touch()

    with (
        distributed.LocalCluster(
            n_workers=0, threads_per_worker=1, dashboard_address=":0", silence_logs=50
        ) as own,
        distributed.Client(own, set_as_default=False) as client,
        connect(client=client, timeout=HANG) as con,
    ):
        own.adapt(minimum=1, maximum=3, interval="200ms", target_duration="1s")
        ds = con.create_dataset("a", data=np.arange(300.0), chunk_size=1)
        out = ds.map(slowly, "b", progress=look)
        assert np.array_equal(out[...], np.arange(300.0) + 1)
        assert os.path.exists(grown)


def test_all_kinds_of_work_run_on_workers(connect, tmp_path):
    """Each call sends its work to workers; what it makes equals what one thread makes."""
    h5py = require("h5py")
    volume = np.random.default_rng(0).random((40, 30, 20))
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file.create_dataset("data", data=volume, chunks=(8, 8, 8), compression="gzip")
    (tmp_path / "other").mkdir()
    other = dn.Connection(str(tmp_path / "other"), backend="hdf5", engine="dask", engine_kw=LOCAL)
    with connect(**LOCAL) as con, other, local_client() as client:
        client.get_task_stream()  # records from now on

        def sent(call):
            begin = time.time()
            result = call()
            with_work = [
                record
                for record in client.get_task_stream(start=begin - 0.5)
                if "dosna" in str(record["key"])
            ]
            assert with_work
            return result

        sent(lambda: con.ingest(str(tmp_path / "scan.h5")))
        ds = con["data"]
        assert np.array_equal(ds[...], volume)
        assert sent(ds.verify).good
        copied = sent(lambda: ds.copy(other, "copied", chunk_size=(10, 10, 10)))
        assert sent(lambda: copied.compare(ds)).equal
        cloned = sent(lambda: ds.clone("cloned", data=True))
        loaded = con.create_dataset("loaded", ds.shape, ds.dtype, chunk_size=(16, 16, 16))
        sent(lambda: loaded.load(copied))
        assert np.array_equal(loaded[...], cloned[...])
        sent(lambda: con.export(str(tmp_path / "out.zarr"), select="data"))
        sent(lambda: con.export(str(tmp_path / "out.npy"), select="data"))
        assert np.array_equal(np.load(tmp_path / "out.npy"), volume)
        con.link(str(tmp_path / "scan.h5"), "linked")
        assert sent(lambda: con["linked/data"].sum()) == pytest.approx(volume.sum())
        sent(cloned.clear)
        assert not cloned.written_chunks()
