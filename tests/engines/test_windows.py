"""Work over all chunks of remote datasets: many requests under way, within the memory limit."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from services.proxy import Proxy
from support import require

import dosna as dn
from dosna.backends.ram import RamConnection
from dosna.engines.work.boxes import WINDOW_OBJECTS, window

SHAPE, CHUNK = (24, 8, 8), (1, 8, 8)
DATA = np.arange(1536.0).reshape(SHAPE)


class Late:
    """A fault of a proxy, which holds each request back and counts those that wait together."""

    def __init__(self):
        self.lock = threading.Lock()
        self.now = self.most = 0

    def __call__(self, request):
        event = threading.Event()
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        event.wait(0.03)
        with self.lock:
            self.now -= 1
        return None


@pytest.fixture
def late(moto_url, _any_keys, request):
    """Give a dataset behind a slow gateway, and what counts the requests under way."""
    boto3 = require("boto3")
    require("obstore")
    bucket = f"windows-{abs(hash(request.node.name))}"
    boto3.client("s3", endpoint_url=moto_url, region_name="us-east-1").create_bucket(Bucket=bucket)
    with (
        Proxy(moto_url) as proxy,
        dn.Connection("late", backend="s3", endpoint_url=proxy.url, bucket=bucket) as con,
    ):
        ds = con.create_dataset("a", data=DATA, chunk_size=CHUNK)
        con.create_dataset("b", data=DATA, chunk_size=CHUNK)
        proxy.fault = Late()
        yield ds, proxy.fault


WORK = {
    "sum": lambda ds: ds.sum(),
    "verify": lambda ds: ds.verify(),
    "compare": lambda ds: ds.compare(ds.connection["b"]),
    "map": lambda ds: ds.map(np.negative, "c"),
    "halo": lambda ds: ds.map(np.negative, "c", halo=(1, 0, 0)),
    "apply": lambda ds: ds.apply(np.negative),
    "clone": lambda ds: ds.clone("c", data=True),
    "load": lambda ds: ds.load(Source(DATA)),
}


class Source:
    """An array that is no NumPy array, and tells how much was read at once."""

    def __init__(self, data):
        self.data, self.shape, self.dtype, self.most = data, data.shape, data.dtype, 0

    def __getitem__(self, key):
        self.most = max(self.most, self.data[key].nbytes)
        return self.data[key]


@pytest.mark.parametrize("work", WORK)
def test_many_requests_are_under_way(late, work):
    ds, fault = late
    WORK[work](ds)
    assert fault.most >= 8
    expected = {"map": -DATA, "halo": -DATA, "clone": DATA}
    if work in expected:
        np.testing.assert_array_equal(ds.connection["c"][...], expected[work])
    np.testing.assert_array_equal(ds[...], -DATA if work == "apply" else DATA)


def test_functions_are_called_in_the_thread_of_the_engine(late):
    ds, _ = late
    threads = set()

    def note(block):
        threads.add(threading.get_ident())
        return block

    ds.map(note, "c", halo=(1, 0, 0), dtype="f8")
    ds.apply(note)
    assert threads == {threading.get_ident()}


class Remote(RamConnection):
    """Memory that is worked on as if it were far away."""

    parallel_bytes = 0


@pytest.fixture
def remote():
    con = dn.Connection("windows", backend="ram")
    con.instance.__class__ = Remote
    with con:
        yield con.create_dataset("a", data=DATA, chunk_size=CHUNK)


def test_boxes_stay_within_the_limit(remote):
    assert remote.instance.remote
    chunk = 8 * 8 * 8
    for limit in (2 * chunk, 7 * chunk, 30 * chunk):
        source = Source(DATA)
        remote.load(source, memory_limit=limit + 2 * chunk)
        assert chunk <= source.most <= limit
    blocks = []
    limit = 12 * chunk
    result = remote.map(
        lambda block: blocks.append(block.nbytes) or -block, "m", memory_limit=limit
    )
    assert set(blocks) == {chunk}
    np.testing.assert_array_equal(result[...], -DATA)


def test_progress_counts_chunks(remote):
    told = []
    remote.apply(np.negative, progress=lambda *at: told.append(at), memory_limit=9 * 4 * 512)
    assert (told[0], told[-1]) == ((0, 24), (24, 24))
    assert len(told) > 3
    assert told == sorted(told)


@pytest.mark.parametrize("shape", [(), (0, 3), (7,), (100, 100), (5, 1, 90), (1000, 3)])
@pytest.mark.parametrize("at_least", [1, 16])
@pytest.mark.parametrize("limit", [None, 0, 70, 10_000])
def test_a_window_is_a_bounded_number_of_blocks(shape, at_least, limit):
    block = tuple(min(3, n) or 1 for n in shape)
    found = window(shape, block, 10, limit, at_least)
    assert all(f % b == 0 for f, b in zip(found, block, strict=True))
    times = np.prod([f // b for f, b in zip(found, block, strict=True)])
    blocks = np.prod([-(-n // b) for n, b in zip(shape, block, strict=True)])
    assert times <= max(1, min(WINDOW_OBJECTS, blocks // at_least))
    assert limit is None or times * 10 <= max(limit, 10)
