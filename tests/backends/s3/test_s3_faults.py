"""The s3 backend when answers are lost, connections break and servers die."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
import warnings

import numpy as np
import pytest
from faults import add_up
from services.proxy import Proxy, Throttle, slow_down
from services.s3 import make_bucket
from support import require

import dosna as dn
from dosna import errors
from dosna.backends.stores.connection import ABSENT, VersionConflict
from dosna.io.pace import Pacer
from dosna.io.s3.opening import open_client
from dosna.io.s3.options import S3Options
from dosna.testing.timing import patience

require("boto3")
require("obstore")


@pytest.fixture
def proxy(moto_url, _any_keys):
    with Proxy(moto_url) as proxy:
        yield proxy


@pytest.fixture
def bucket(proxy):
    return make_bucket(proxy.url)


@pytest.fixture
def con(proxy, bucket):
    with connection(proxy.url, bucket) as con:
        con.create_dataset("first", (1,))  # so that groups and conditions are known
        proxy.reset()
        yield con
        proxy.reset()


def connection(url, bucket, retries=3, timeout=60.0, **kwargs):
    return dn.Connection(
        "tests",
        backend="s3",
        engine="cpu",
        endpoint_url=url,
        bucket=bucket,
        retries=retries,
        timeout=timeout,
        **kwargs,
    )


def once(method, fault):
    """Let the first request of a method go wrong."""
    left = [fault]
    return lambda request: left.pop() if left and request.method == method else None


def always(method, fault):
    return lambda request: fault if request.method == method else None


# -- always run: a lost answer, a server without conditions, a gateway that dies -------------


@pytest.mark.parametrize("fault", ["lose", "refuse", "cut", 500, 503])
def test_a_partial_write_survives_one_fault(con, proxy, fault):
    ds = con.create_dataset("data", data=np.arange(10), chunk_size=10)
    proxy.reset()
    proxy.fault = once("PUT", fault)
    ds[2:4] = -1
    # The answer to a put has no body that could be cut.
    assert proxy.counts["PUT"] == (1 if fault == "cut" else 2)
    assert ds[...].tolist() == [0, 1, -1, -1, 4, 5, 6, 7, 8, 9]
    proxy.fault = once("GET", fault)
    assert ds[3:5].tolist() == [-1, 4]


def test_a_part_of_an_object_is_whole_or_read_again(proxy, bucket, tmp_path):
    from dosna.io.s3.errors import Failure
    from dosna.io.s3.wholefiles import download

    image = np.random.default_rng(0).bytes(5000)
    client = open_client(S3Options(proxy.url, retries=2), "here")
    client.put_once(f"{bucket}/image", image)
    for part, wanted in (((10, 90), image[10:90]), ((-30, None), image[-30:])):
        proxy.fault = once("GET", "shorten")
        assert client.get(f"{bucket}/image", part).data == wanted
    proxy.fault = once("GET", "shorten")
    download(client, f"{bucket}/image", str(tmp_path / "image"))
    assert (tmp_path / "image").read_bytes() == image
    proxy.fault = always("GET", "shorten")
    with pytest.raises(Failure, match="broke"):
        client.get(f"{bucket}/image", (10, 90))
    client.close()


def test_ones_own_success_is_recognised(con, proxy):
    """Though the second attempt is refused, because the first one changed the object."""
    store = con.instance.store
    store.put("key", b"old")
    version = store.get("key").version
    proxy.requests.clear()
    proxy.fault = once("PUT", "lose")
    store.put("key", b"new", version)
    assert store.get("key").data == b"new"
    assert proxy.counts["PUT"] == 2
    proxy.fault = once("PUT", "lose")
    store.put("another", b"made", ABSENT)
    with pytest.raises(VersionConflict):
        store.put("another", b"again", ABSENT)


def test_anothers_success_is_not_taken_for_ones_own(con, proxy):
    """Not even if it wrote the same bytes."""
    store = con.instance.store
    store.put("key", b"old")
    version = store.get("key").version

    def meddle(request):
        if request.method == "PUT" and not meddled:
            meddled.append(True)
            proxy.fault = None
            store.put("key", b"new", version)
            return "refuse"
        return None

    meddled = []
    proxy.fault = meddle
    with pytest.raises(VersionConflict):
        store.put("key", b"new", version)


@pytest.mark.parametrize("fault", [501, "ignore"])
def test_a_server_without_conditions(proxy, bucket, fault):
    def without(request):
        return fault if {"if-match", "if-none-match"} & request.headers.keys() else None

    proxy.fault = without
    with connection(proxy.url, bucket) as con:
        ds = con.create_dataset("data", data=np.arange(8), chunk_size=8)
        assert ds.guarantees.partial_writes == "threads"
        assert "conditional" in ds.guarantees.notes[0]
        with pytest.warns(UserWarning, match="no conditional writes"):
            ds[2] = -1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ds[3] = -1
        assert ds[1:5].tolist() == [1, -1, -1, 4]
        with pytest.raises(errors.DatasetExistsError):
            con.create_dataset("data", (1,))


@pytest.mark.parametrize("fault", ["lose", "refuse"])
def test_asking_for_conditions_survives_one_fault(proxy, bucket, fault):
    """A lost answer to a conditional put does not mean that the server has no conditions."""
    with connection(proxy.url, bucket) as con:
        con.create_dataset("data", (1,))
    for number in range(4):
        puts = iter(range(4))
        proxy.fault = lambda request, puts=puts, number=number: (
            fault if request.method == "PUT" and next(puts, None) == number else None
        )
        with connection(proxy.url, bucket) as con:
            assert con["data"].guarantees.partial_writes == "processes"
        assert next(puts, None) is None


def test_a_gateway_that_dies_and_comes_back(gateway):
    url = gateway.endpoint_url
    with connection(url, make_bucket(url), retries=12) as con:
        ds = con.create_dataset("data", (200, 4096), "f8", chunk_size=(1, 4096))

        def die():
            time.sleep(0.3)
            gateway.kill("rgw")
            time.sleep(0.3)
            gateway.start("rgw")

        values = np.random.default_rng(0).random((200, 4096))
        killer = threading.Thread(target=die)
        killer.start()
        try:
            ds[...] = values
            while killer.is_alive():
                np.testing.assert_array_equal(ds[...], values)
        finally:
            killer.join()
        np.testing.assert_array_equal(ds[...], values)


# -- outcomes ------------------------------------------------------------------------------


def test_a_write_whose_answers_are_all_lost(proxy, bucket):
    with connection(proxy.url, bucket, retries=1) as con:
        ds = con.create_dataset("data", data=np.zeros(4), chunk_size=4)
        # What was written can be told by its token.
        proxy.fault = always("PUT", "lose")
        ds[...] = 1
        ds[0] = 5
        assert ds[...].tolist() == [5, 1, 1, 1]
        proxy.fault = lambda request: "lose"
        with pytest.raises(errors.StorageError):
            ds[1] = 6
        proxy.fault = lambda request: None if "zarr.json" in request.path else "lose"
        with pytest.raises(errors.OutcomeUnknown, match="data/c/0"):
            ds[...] = 6
        proxy.reset()


def test_a_write_that_is_not_answered(proxy, bucket):
    with (
        connection(proxy.url, bucket) as other,
        connection(proxy.url, bucket, retries=0, timeout=patience(1.0)) as con,
    ):
        other.create_dataset("data", data=np.zeros(4), chunk_size=4)
        ds = con["data"]
        assert ds.guarantees.partial_writes != "threads"  # for which the server is asked
        proxy.fault = always("PUT", "stall")
        for key in (slice(None), 0):
            with pytest.raises(errors.OutcomeUnknown):
                ds[key] = 1
        proxy.fault = always("GET", "stall")
        with pytest.raises(errors.StoreTimeoutError):
            print(ds[...])
        proxy.reset()
        assert other["data"][...].tolist() == [0, 0, 0, 0]


def test_a_write_that_was_surely_not_done_is_not_unknown(proxy, bucket):
    with connection(proxy.url, bucket, retries=1) as con:
        ds = con.create_dataset("data", data=np.zeros(4), chunk_size=4)
        proxy.fault = always("PUT", 503)
        for key in (slice(None), 0):
            with pytest.raises(errors.StorageError, match="503") as caught:
                ds[key] = 1
            assert not isinstance(caught.value, errors.OutcomeUnknown)
        assert proxy.counts["PUT"] >= 4


def test_an_error_in_a_batch_waits_for_the_others(con, proxy):
    ds = con.create_dataset("data", (40,), "f4", chunk_size=1)
    ds[...] = 1
    out = np.zeros(40, "f4")
    seen = []

    def fail(request):
        seen.append(request)
        return 403 if len(seen) == 5 else 0.02

    proxy.fault = fail
    with pytest.raises(errors.StorageError, match="403"):
        ds.read(out=out)
    proxy.reset()
    before = out.copy()
    time.sleep(0.1)
    np.testing.assert_array_equal(out, before)
    assert proxy.requests == []


def test_a_deletion_that_fails_can_be_repeated(con, proxy):
    con.instance.settle = 0.1
    con.create_dataset("data", data=np.arange(20), chunk_size=2)
    proxy.fault = always("POST", 403)
    with pytest.raises(errors.StorageError, match="403"):
        con.del_dataset("data")
    assert "data" not in con
    proxy.reset()
    ds = con.create_dataset("data", (20,), "i8", chunk_size=2)
    assert ds[...].tolist() == [0] * 20


# -- a server that takes no more than so many requests ------------------------------------


def test_requests_above_the_rate_of_a_server_fail_no_operation(proxy, bucket):
    values = np.arange(100.0).reshape(50, 2)
    with connection(proxy.url, bucket, retries=0) as con:
        made = con.create_dataset("other", data=values, chunk_size=(1, 2))
        proxy.fault = throttle = Throttle(40)
        ds = con.create_dataset("data", (50, 2), "f8", chunk_size=(1, 2))
        ds.load(values)
        np.testing.assert_array_equal(ds[...], values)
        np.testing.assert_array_equal(made.map(np.negative, "mapped")[...], -values)
    # Without a pace, all that are under way would be refused again and again. How few are is
    # measured by benchmarks/throttle.py: here others use the machine.
    assert 0 < len(throttle.refused) <= len(throttle.taken) / 2


@pytest.mark.fault
def test_two_processes_share_the_rate_of_a_server(proxy, bucket):
    values = np.arange(300)
    with connection(proxy.url, bucket, retries=0) as con:
        made = [con.create_dataset(name, (300,), "i8", chunk_size=1) for name in "ab"]
        proxy.fault = throttle = Throttle(60)
        spawn = multiprocessing.get_context("spawn")
        with spawn.Pool(2) as pool:
            pool.starmap(write_all, [(ds, values) for ds in made])
        proxy.reset()
        for ds in made:
            assert ds[...].tolist() == values.tolist()
    assert 0 < len(throttle.refused) <= len(throttle.taken) / 2


def write_all(ds, values):
    ds[...] = values


@pytest.mark.parametrize("pause", ["Retry-After: 2", "date"])
def test_a_server_that_asks_for_a_pause_gets_it(con, proxy, pause):
    ds = con.create_dataset("data", data=np.arange(4), chunk_size=4)
    if pause == "date":
        pause = "Date: Wed, 21 Oct 2015 07:27:59 GMT\r\nRetry-After: Wed, 21 Oct 2015 07:28:01 GMT"
    begin, came = time.monotonic(), []

    def fault(request):
        came.append(time.monotonic())
        return slow_down(request, f"{pause}\r\n") if len(came) <= 2 else None

    proxy.fault = fault
    assert ds[...].tolist() == [0, 1, 2, 3]
    # The second one asks for the pause, which the client of objects does not show.
    assert len(came) == 3
    assert came[2] - begin >= 2


def test_a_server_that_says_slow_down_for_ever(proxy, bucket):
    with connection(proxy.url, bucket, retries=1, timeout=patience(1.0)) as con:
        ds = con.create_dataset("data", data=np.zeros(4), chunk_size=4)
        proxy.fault = slow_down
        with pytest.raises(errors.StorageError, match="SlowDown"):
            print(ds[...])
        assert proxy.counts["GET"] > 2
        proxy.fault = None


def refusing(code, headers=""):
    """Return a fault by which the first deletion of several objects refuses that of 'b'."""
    body = (
        '<?xml version="1.0"?><DeleteResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Error><Key>tests/b</Key><Code>{code}</Code></Error></DeleteResult>"
    )
    head = f"HTTP/1.1 200 OK\r\n{headers}Content-Type: application/xml\r\n"
    answer = f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()
    return once("POST", answer)


@pytest.mark.parametrize("code", ["SlowDown", "InternalError"])
def test_objects_that_a_deletion_leaves_are_tried_again(con, proxy, code):
    store = con.instance.store
    for key in ("a", "b"):
        store.put(key, b"")
    proxy.fault = refusing(code)
    store.delete_many(["a", "b"])
    # The first request was not handed on, and the second named what it refused.
    assert (store.get("a") is None, store.get("b") is None) == (False, True)
    assert proxy.counts["POST"] == 2
    # What asks for fewer requests slows all of them down.
    assert (con.instance.raw_store.client.pacer.rate is not None) == (code == "SlowDown")


def test_a_deletion_keeps_the_pause_that_is_asked_for(con, proxy):
    begin = time.monotonic()
    proxy.fault = refusing("SlowDown", "Retry-After: 1\r\n")
    con.instance.store.delete_many(["a", "b"])
    assert time.monotonic() - begin >= 1


def test_an_object_that_may_not_be_deleted_is_named(con, proxy):
    proxy.fault = refusing("AccessDenied")
    with pytest.raises(errors.StorageError, match=r"'tests/b' failed .AccessDenied"):
        con.instance.store.delete_many(["a", "b"])
    assert proxy.counts["POST"] == 1


@pytest.mark.parametrize("pause", ["", "1"])
def test_a_zarr_source_is_read_at_the_rate_of_the_server(proxy, bucket, pause, monkeypatch):
    require("zarr")
    pauses, refused = [], Pacer._refused
    monkeypatch.setattr(
        Pacer, "_refused", lambda *given: (pauses.append(given[2]), refused(*given))
    )
    values = np.arange(60.0).reshape(30, 2)
    with connection(proxy.url, bucket, retries=0) as con:
        con.create_dataset("data", data=values, chunk_size=(1, 2))
    options = {"endpoint_url": proxy.url, "retries": 0}
    with dn.Connection("here", backend="ram") as con:
        throttle = Throttle(20, burst=3, pause=pause)
        asked = f"Retry-After: {pause}\r\n" if pause else ""
        # Whoever asks for the pause, at most once a second, is told it.
        proxy.fault = lambda r: slow_down(r, asked) if r.method == "HEAD" else throttle(r)
        con.ingest(f"s3://{bucket}/tests", kind="zarr", **options)
        np.testing.assert_array_equal(con["data"][...], values)
    assert throttle.refused
    # That all requests keep a pause is tested with a clock of its own.
    assert max(pauses) == float(pause or 0)


# -- two processes ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "options", "rounds"),
    [((2,), {"chunk_size": 2}, 500), ((4,), {"chunk_size": 2, "shards": 4}, 100)],
    ids=["one chunk", "one shard"],
)
def test_two_processes_lose_nothing(gateway, shape, options, rounds):
    url = gateway.endpoint_url
    with connection(url, make_bucket(url), retries=5) as con:
        ds = con.create_dataset("data", shape, "i8", **options)
        places = [0, shape[0] - 1]
        spawn = multiprocessing.get_context("spawn")
        with spawn.Pool(2) as pool:
            lost = pool.starmap(add_up, [(ds, place, rounds) for place in places])
        assert lost == [0, 0]
        assert ds[...][places].tolist() == [rounds, rounds]


# -- slow ----------------------------------------------------------------------------------


@pytest.mark.fault
def test_a_partial_write_that_arrives_late_is_refused(proxy, bucket):
    """Its second attempt is done, another wrote, and then the first attempt arrives."""
    late = threading.Event()
    with connection(proxy.url, bucket, timeout=patience(1.0)) as con:
        ds = con.create_dataset("data", data=np.zeros(4), chunk_size=4)
        ds[0] = 0
        proxy.reset()
        proxy.fault = once("PUT", late)
        ds[0] = 1
        ds[1] = 2
        assert proxy.counts["PUT"] >= 3
        late.set()
        time.sleep(patience(0.5))  # in which it arrives
        assert ds[...].tolist() == [1, 2, 0, 0]


@pytest.mark.fault
def test_a_gateway_that_is_paused(gateway):
    url, bucket = gateway.endpoint_url, make_bucket(gateway.endpoint_url)
    with (
        connection(url, bucket) as other,
        connection(url, bucket, retries=1, timeout=patience(0.7)) as con,
    ):
        made = other.create_dataset("data", data=np.arange(100.0), chunk_size=10)
        ds = con["data"]
        gateway.pause("rgw")
        try:
            with pytest.raises(errors.StoreTimeoutError):
                print(ds[...])
            ds.instance._looked = time.monotonic() + 600  # as one that looked just before
            with pytest.raises(errors.OutcomeUnknown):
                ds[...] = 1
        finally:
            gateway.resume("rgw")
        assert ds.shape == (100,)
        assert set(made[...].tolist()) <= {1.0, *map(float, range(100))}


@pytest.mark.fault
def test_two_processes_lose_nothing_though_answers_are_lost(gateway):
    numbers = iter(range(1_000_000))

    def fault(request):
        return "lose" if request.method == "PUT" and next(numbers) % 7 == 6 else None

    bucket = make_bucket(gateway.endpoint_url)
    with Proxy(gateway.endpoint_url, fault) as proxy, connection(proxy.url, bucket, 8) as con:
        ds = con.create_dataset("data", (2,), "i8", chunk_size=2)
        spawn = multiprocessing.get_context("spawn")
        with spawn.Pool(2) as pool:
            lost = pool.starmap(add_up, [(ds, 0, 60), (ds, 1, 60)])
        assert lost == [0, 0]
        assert ds[...].tolist() == [60, 60]


@pytest.mark.fault
def test_a_killed_writer_leaves_whole_chunks(gateway):
    url = gateway.endpoint_url
    with connection(url, make_bucket(url)) as con:
        ds = con.create_dataset("data", (4, 1 << 18), "f8", chunk_size=(1, 1 << 18))
        ds[...] = 0
        spawn = multiprocessing.get_context("spawn")
        for number in range(3):
            before = ds[...].max()
            writer = spawn.Process(target=write_for_ever, args=(ds, before + 1))
            writer.start()
            while ds[0, 0] <= before:
                assert writer.is_alive()
                time.sleep(0.01)
            time.sleep(0.05 * number)
            os.kill(writer.pid, 9)
            writer.join()
            rows = ds[...]
            assert all(len(set(row.tolist())) == 1 for row in rows)
        assert rows.max() >= 3


def write_for_ever(ds, value):
    while True:
        ds[...] = value
        value += 1
