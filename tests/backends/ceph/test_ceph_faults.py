"""The ceph backend when OSDs and monitors die, pause and come back, and when it is full."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest
from faults import add_up
from support import HANG, require, wait_until

import dosna as dn
from dosna import errors
from dosna.testing.timing import patience, within

rados = require("rados")

from dosna.backends.ceph.store import END  # noqa: E402


@pytest.fixture(scope="module")
def cluster(start_cluster):
    """Give a cluster that these tests may break, if they mend it again."""
    with start_cluster() as cluster:
        yield cluster


def connection(cluster, timeout=60, engine="cpu", **kwargs):
    options = {"backend": "ceph", "engine": engine, "conffile": cluster.conf, "timeout": timeout}
    return dn.Connection("faults", **options, **kwargs)


def active(cluster, osds=3):
    """Wait until so many OSDs are up and every placement group takes writes."""
    with rados.Rados(conffile=cluster.conf) as admin:
        admin.conf_set("rados_osd_op_timeout", str(HANG))

        def up():
            message = json.dumps({"prefix": "osd stat", "format": "json"})
            return json.loads(admin.mon_command(message, b"")[1])["num_up_osds"]

        wait_until(lambda: up() == osds)
        with admin.open_ioctx("faults") as objects:
            for number in range(32):  # which also waits for room
                objects.write_full(f"active-{number}", b"x")
                objects.remove_object(f"active-{number}")


@contextmanager
def killed(cluster, *names):
    for name in names:
        cluster.kill(name)
    try:
        yield
    finally:
        for name in names:
            cluster.start(name)
        active(cluster)


@contextmanager
def paused(cluster, *names):
    for name in names:
        cluster.pause(name)
    try:
        yield
    finally:
        for name in names:
            cluster.resume(name)
        active(cluster)


@contextmanager
def impatient(con, seconds=1):
    """Let requests on a connection wait so long only, which would be too short to make it."""
    cluster = con.instance.store.cluster._rados
    before = cluster.conf_get("rados_osd_op_timeout")
    cluster.conf_set("rados_osd_op_timeout", str(seconds))
    yield
    cluster.conf_set("rados_osd_op_timeout", before)


def values(rows=200):
    return np.random.default_rng(0).random((rows, 4096))


# -- always run: an OSD that dies, one that hangs, a monitor that dies, forks -----------------


def test_an_osd_that_dies_in_the_midst_of_work_is_not_noticed(cluster):
    expected = values()
    with connection(cluster) as con:
        ds = con.create_dataset("killed", expected.shape, "f8", chunk_size=(1, 4096))
        ds[:100] = expected[:100]
        with killed(cluster, "osd.1"):
            ds[50:] = expected[50:]
            ds[::7, 5] = -1
            expected[::7, 5] = -1
            np.testing.assert_array_equal(ds[...], expected)
        np.testing.assert_array_equal(ds[...], expected)
        con.del_dataset("killed")


def test_osds_that_do_not_answer_are_an_error_in_time(cluster):
    with connection(cluster) as con:
        ds = con.create_dataset("paused", data=np.arange(40), chunk_size=10)
        plain = con.create_dataset("plain", data=np.arange(40), chunk_size=10, checksum=False)
        with paused(cluster, "osd.0", "osd.1", "osd.2"), impatient(con):
            with within(4), pytest.raises(errors.StoreTimeoutError, match="no answer within"):
                print(ds[...])
            with within(4), pytest.raises(errors.StoreTimeoutError):
                print("paused" in con)
            # What is written is looked at first, and so surely not done.
            with within(4), pytest.raises(errors.StoreTimeoutError, match="reading"):
                ds[...] = 1
            ds.instance._looked = plain.instance._looked = time.monotonic() + 600
            with within(4), pytest.raises(errors.OutcomeUnknown, match="paused/c/"):
                ds[...] = 1
            with within(4), pytest.raises(errors.OutcomeUnknown, match="plain/c/0"):
                plain[3] = 1
            # Read before it is written, and so surely not done.
            with within(4), pytest.raises(errors.StoreTimeoutError):
                ds[3] = 1
            with within(4), pytest.raises(errors.OutcomeUnknown):
                ds.del_chunk((0,))
        for it in (ds, plain):
            assert set(it[...].tolist()) <= {0, *range(40)}
        assert sorted(con) == ["paused", "plain"]
        for name in list(con):
            con.del_dataset(name)


def test_without_a_monitor_work_goes_on_and_connecting_fails(cluster):
    with connection(cluster) as con:
        ds = con.create_dataset("unwatched", data=np.arange(40), chunk_size=10)
        with killed(cluster, "mon.a"):
            ds[5:25] = -1
            assert ds[4:26].tolist() == [4, *[-1] * 20, 25]
            with within(6), pytest.raises(errors.ConnectionError, match="answer"):
                connection(cluster, timeout=2).connect()
        con.del_dataset("unwatched")


def test_a_process_ends_though_its_cluster_is_dead(cluster):
    seconds = math.ceil(patience(1))
    code = f"""
import dosna as dn
con = dn.Connection("faults", backend="ceph", conffile={cluster.conf!r}, timeout={seconds})
con.connect()
con.create_dataset("left", (2,))
print("connected", flush=True)
input()
try:
    con["left"][...]
except dn.errors.StoreTimeoutError as error:
    assert "within {seconds} s" in str(error)
    print("timed out")
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "connected\n"
        with paused(cluster, "mon.a", "osd.0", "osd.1", "osd.2"), within(7 + seconds):
            assert process.communicate("\n", timeout=HANG)[0] == "timed out\n"
        assert process.returncode == 0
    with connection(cluster) as con:
        con.del_dataset("left")


def test_a_fork_is_refused_at_once(cluster):
    with connection(cluster, engine="joblib", engine_kw={"njobs": 2}) as con:
        ds = con.create_dataset("forked", data=np.arange(40), chunk_size=10)
        assert ds[...].sum() == 780
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            for call in (
                lambda: ds[...],
                lambda: ds[3],
                lambda: list(con),
                con.disconnect,
                lambda: connection(cluster).connect(),
            ):
                try:
                    call()
                except BaseException as error:
                    os.write(writer, f"{type(error).__name__}: {error}\n".encode())
                else:
                    os.write(writer, b"done\n")
            os._exit(0)
        os.close(writer)
        with within(5), os.fdopen(reader) as file:
            said = file.read().splitlines()
        os.waitpid(pid, 0)
        assert ["ConnectionError" in line and "spawn" in line for line in said[:3]] == [True] * 3
        # Of its own it may have a connection.
        assert said[3:] == ["done", "done"]
        assert ds[...].sum() == 780
        con.del_dataset("forked")


@pytest.mark.parametrize("checksum", [True, False])
def test_two_processes_lose_nothing_in_500_rounds(cluster, checksum):
    with connection(cluster) as con:
        ds = con.create_dataset("shared", (2,), "i8", chunk_size=2, checksum=checksum)
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            lost = pool.starmap(add_up, [(ds, 0, 500), (ds, 1, 500)])
        assert lost == [0, 0]
        assert ds[...].tolist() == [500, 500]
        con.del_dataset("shared")


# -- slow ----------------------------------------------------------------------------------


@pytest.mark.fault
def test_all_osds_dead(start_cluster):
    # One of its own: OSDs that keep their objects in memory lose them when they are killed.
    with start_cluster() as cluster, connection(cluster) as con:
        ds = con.create_dataset("dead", data=np.arange(40), chunk_size=10)
        for name in ("osd.0", "osd.1", "osd.2"):
            cluster.kill(name)
        with impatient(con, 2):
            for call in (
                lambda: ds[...],
                lambda: ds.has_chunk((0,)),
                lambda: list(con),
                lambda: list(con.instance.store.get("dead/zarr.json")),
            ):
                with within(5), pytest.raises(errors.StoreTimeoutError):
                    call()
            ds.instance._looked = time.monotonic() + 600  # as one that looked just before
            with within(5), pytest.raises(errors.OutcomeUnknown):
                ds[...] = 1
            for call in (
                lambda: con.create_dataset("other", (2,)),
                lambda: con.del_dataset("dead"),
                lambda: list(con.instance.store.list("")),
            ):
                with within(8), pytest.raises(errors.StorageError):
                    call()
        second = connection(cluster, timeout=patience(2))
        with second, pytest.raises(errors.StoreTimeoutError):
            print("dead" in second)


@pytest.mark.fault
def test_a_listing_that_is_cut_short_is_an_error(cluster):
    with connection(cluster) as con:
        store = con.instance.store
        for number in range(100):
            store.put(f"listed-{number}", b"")
        assert len(list(store.list("listed-"))) == 100
        store._end = lambda: END  # is not asked for again
        with (
            paused(cluster, "osd.0", "osd.1", "osd.2"),
            impatient(con),
            pytest.raises(errors.StorageError, match="cut short"),
        ):
            list(store.list("listed-"))
        for number in range(100):
            store.delete(f"listed-{number}")


@pytest.mark.fault
def test_a_monitor_that_is_paused(cluster):
    with connection(cluster) as con:
        ds = con.create_dataset("unwatched", data=np.arange(40), chunk_size=10)
        with paused(cluster, "mon.a"):
            ds[5:25] = -1
            assert ds[4:26].tolist() == [4, *[-1] * 20, 25]
            with within(6), pytest.raises(errors.ConnectionError, match="answer"):
                connection(cluster, timeout=2).connect()
        con.del_dataset("unwatched")


def test_places_are_unknown_while_no_monitor_answers(cluster):
    with connection(cluster, timeout=1) as con:
        store = con.instance.store
        assert store.locations("x")
        with paused(cluster, "mon.a"):
            store._places._fresh_until = 0.0
            with within(4):
                assert not any(store.locations(f"x{number}") for number in range(100))


@pytest.mark.fault
def test_an_osd_that_hangs_is_replaced_by_the_others(cluster):
    """When the monitor has heard that it does not answer, which takes the grace of 20 s."""
    expected = values(60)
    with connection(cluster, timeout=HANG) as con:
        ds = con.create_dataset("hangs", data=expected, chunk_size=(1, 4096))
        with paused(cluster, "osd.2"):
            ds[::2] = -1
            expected[::2] = -1
            np.testing.assert_array_equal(ds[...], expected)
        np.testing.assert_array_equal(ds[...], expected)
        con.del_dataset("hangs")


@pytest.mark.fault
def test_a_full_cluster(cluster):
    ratios = {"nearfull": 0.85, "backfillfull": 0.9, "full": 0.95}

    def set_ratios(factor):
        with rados.Rados(conffile=cluster.conf) as admin:
            for which in ratios if factor < 1 else reversed(ratios):
                message = {"prefix": f"osd set-{which}-ratio", "ratio": ratios[which] * factor}
                assert admin.mon_command(json.dumps(message), b"")[0] == 0

    with connection(cluster) as con:
        ds = con.create_dataset("full", (3000, 4096), "f8", chunk_size=(10, 4096))
        ds[:1000] = 1
        set_ratios(0.001)
        try:
            with pytest.raises(errors.StorageError, match="full"):
                write_more(ds)
            with pytest.raises(errors.StorageError, match="full"):
                ds[2995, 3] = 1
            assert ds[2995, 3] == 0
            # What takes no more room is done, and deleting makes some.
            ds[3:5] = 2
            assert ds[2:6, 7].tolist() == [1, 2, 2, 1]
            ds.del_chunk((7, 0))
        finally:
            set_ratios(1)
        active(cluster)
        ds[2990:] = 5
        assert ds[2995, 3] == 5
        con.del_dataset("full")


def write_more(ds):
    for row in range(1000, 2990, 10):  # until everybody has heard of it
        ds[row : row + 10] = 1
        time.sleep(0.1)


@pytest.mark.fault
def test_a_killed_writer_leaves_whole_chunks(cluster):
    with connection(cluster) as con:
        ds = con.create_dataset("torn", (4, 1 << 18), "f8", chunk_size=(1, 1 << 18))
        ds[...] = 0
        spawn = multiprocessing.get_context("spawn")
        for _ in range(3):
            writer = spawn.Process(target=write_for_ever, args=(ds,))
            writer.start()
            before = ds[0, 0]
            wait_until(lambda before=before: ds[0, 0] != before)
            os.kill(writer.pid, 9)
            writer.join()
            rows = ds[...]
            assert all(len(set(row.tolist())) == 1 for row in rows)
        assert rows.max() > 0
        con.del_dataset("torn")


def write_for_ever(ds):
    value = 1.0
    while True:
        ds[...] = value
        value += 1
