"""Work over all chunks of remote datasets: many requests under way, within the memory limit."""

from __future__ import annotations

import re
import secrets
import signal
import threading
import time
from collections import Counter
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from services.proxy import Proxy
from services.s3 import make_client
from support import HANG, require, taking_ctrl_c, wait_until

import dosna as dn
from dosna.backends.ram import RamConnection
from dosna.backends.stores import watching
from dosna.core.plan import every_chunk
from dosna.engines.work import boxes
from dosna.engines.work.loading import Load
from dosna.engines.work.mapping import Map
from dosna.testing.timing import patience

SHAPE, CHUNK = (24, 8, 8), (1, 8, 8)
DATA = np.arange(1536.0).reshape(SHAPE)
MANY = np.arange(200.0).reshape(100, 2)
IN_FLIGHT = 16
"""The requests to a store, of those that read and of those that write."""


class Late:
    """A fault of a proxy, which holds each request back and counts those that wait together.

    Of a kind are those that read chunks, and those that write chunks.
    """

    def __init__(self):
        self.lock = threading.Lock()
        self.now, self.of_a_kind = Counter(), Counter()
        self.most = 0

    def __call__(self, request):
        kind = request.method, bool(re.search(r"/c/\d", request.path))
        with self.lock:
            self.now[kind] += 1
            self.of_a_kind |= self.now
            self.most = max(self.most, self.now.total())
        # On a busy machine, others come later.
        end = time.monotonic() + (patience(0.3) if kind[1] and self.most < 8 else 0)
        while self.most < 8 and time.monotonic() < end:
            time.sleep(0.005)
        time.sleep(0.03)
        with self.lock:
            self.now[kind] -= 1
        return None


@pytest.fixture
def gate(moto_url, _any_keys):
    """Give a proxy before a server, and the name of a bucket."""
    require("boto3")
    require("obstore")
    bucket = f"windows-{secrets.token_hex(6)}"
    make_client(moto_url).create_bucket(Bucket=bucket)
    with Proxy(moto_url) as proxy:
        yield proxy, bucket


def connect(gate, **options):
    proxy, bucket = gate
    return dn.Connection("late", backend="s3", endpoint_url=proxy.url, bucket=bucket, **options)


@pytest.fixture
def late(gate):
    """Give a dataset behind a slow gateway, and what counts the requests under way."""
    with connect(gate) as con:
        ds = con.create_dataset("a", data=DATA, chunk_size=CHUNK)
        con.create_dataset("b", data=DATA, chunk_size=CHUNK)
        gate[0].fault = Late()
        yield ds, gate[0].fault


@pytest.fixture
def many(gate):
    """Give a dataset of more chunks than a box holds, and the proxy before it."""
    with connect(gate) as con:
        ds = con.create_dataset("a", data=MANY, chunk_size=(1, 2))
        gate[0].reset()
        yield ds, gate[0]


WORK = {
    "sum": lambda ds: ds.sum(),
    "mean": lambda ds: ds.mean(axis=0),
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


@pytest.mark.parametrize("engine", ["cpu", "joblib"])
def test_progress_does_not_count_what_is_only_read_ahead(engine):
    if engine == "joblib":
        require("joblib")
    con = dn.Connection("progress", backend="ram", engine=engine)
    con.instance.__class__ = Remote
    with con:
        ds = con.create_dataset("a", data=MANY, chunk_size=(1, 2))
        called, early = [], []
        ds.apply(
            lambda block: called.append(None) or -block,
            progress=lambda done, total: done > len(called) and early.append(done),
        )
    assert not early


def chunks_of(proxy, method, name):
    """Count the requests of a method for chunks of a dataset."""
    return sum(r.method == method and f"/{name}/c/" in r.path for r in list(proxy.requests))


def test_boxes_are_read_ahead_and_written_behind_the_function(many):
    ds, proxy = many
    calls = []

    def negative(block):
        calls.append(None)
        if len(calls) == 2:  # the first call is for the dtype, and this one in the first box
            wait_until(lambda: chunks_of(proxy, "GET", "a") > 40)
            assert not chunks_of(proxy, "PUT", "c")
        if len(calls) == 30:  # in the second
            wait_until(lambda: chunks_of(proxy, "PUT", "c") == 25)
        return -block

    result = ds.map(negative, "c")
    # No chunk is read or written twice, but for the one that tells the dtype.
    assert (chunks_of(proxy, "GET", "a"), chunks_of(proxy, "PUT", "c")) == (101, 100)
    np.testing.assert_array_equal(result[...], -MANY)


def test_reads_and_writes_do_not_wait_for_each_other(many):
    ds, proxy = many
    lock, under_way, met = threading.Lock(), Counter(), threading.Event()

    def fault(request):
        chunk = re.search(r"/c/(\d+)/0", request.path)
        # The first two boxes must be read before anything is written.
        if chunk and (request.method == "PUT" or int(chunk[1]) >= 50):
            with lock:
                under_way[request.method] += 1
                if min(under_way["GET"], under_way["PUT"]) >= IN_FLIGHT:
                    met.set()
            met.wait(HANG / 4)
        return None

    proxy.fault = fault
    ds.map(np.negative, "c", dtype="f8")
    assert met.is_set()


def test_an_export_reads_on_while_it_writes_files(many, tmp_path, monkeypatch):
    from dosna.backends.zarr.dataset import FileDataset

    ds, write, writers = many[0], FileDataset.write_many, set()

    def writing(self, values, tasks):
        writers.add(threading.current_thread())
        write(self, values, tasks)

    monkeypatch.setattr(FileDataset, "write_many", writing)
    ds.export(tmp_path / "a.zarr")
    assert writers
    assert threading.current_thread() not in writers
    with dn.Connection(str(tmp_path / "a.zarr"), backend="file") as con:
        np.testing.assert_array_equal(con["a"][...], ds[...])


def test_a_clone_takes_no_more_requests_than_it_must(many):
    ds, proxy = many
    ds.clone("clone", data=True)
    chunks = [r for r in proxy.requests if "/c/" in r.path]
    assert Counter(r.method for r in chunks) == {"GET": 100, "PUT": 100}
    places = [r.path.partition("?")[0].rpartition("/late/")[2] for r in proxy.requests]
    # Where the listing has all objects, each tells by itself that it is the dataset's.
    assert places.count("a/zarr.json") == 0


def test_an_ingest_takes_no_more_requests_than_it_must(many, tmp_path, monkeypatch):
    # Otherwise a slow machine looks at the document again.
    monkeypatch.setattr(watching, "LOOK_SECONDS", 1000)
    ds, proxy = many
    np.save(tmp_path / "values.npy", MANY)
    ds.connection.ingest(tmp_path / "values.npy", "made", chunk_size=(1, 2))
    places = [r.path.partition("?")[0].rpartition("/late/")[2] for r in proxy.requests]
    assert len({p for p in places if p.startswith("made/c/")}) == 100
    # It is looked for, made, and marked complete.
    assert places.count("made/zarr.json") == 3
    assert len(places) <= 106


@pytest.mark.parametrize("work", ["read", "write", "sum", "map", "apply", "load"])
def test_threads_of_an_engine_add_no_requests(gate, work):
    require("joblib")
    with connect(gate, engine="joblib", engine_kw={"njobs": 8}) as con:
        ds = con.create_dataset("a", data=MANY, chunk_size=(1, 2))
        gate[0].fault = fault = Late()
        works = WORK | {"read": lambda ds: ds[...], "write": lambda ds: ds.load(MANY)}
        works["load"] = lambda ds: ds.load(Source(MANY))
        works[work](ds)
        assert fault.most >= 8
        assert max(fault.of_a_kind.values()) <= IN_FLIGHT
        assert fault.most <= 2 * IN_FLIGHT


def test_an_error_in_the_function_ends_all_requests(many):
    ds, proxy = many
    calls = []

    def fail(block):
        calls.append(None)
        if len(calls) == 40:
            raise ZeroDivisionError
        return block

    with pytest.raises(ZeroDivisionError):
        ds.apply(fail)
    assert_nothing_is_under_way(proxy)


def test_an_error_of_a_request_ends_all_work(many):
    ds, proxy = many
    calls = []
    proxy.fault = lambda request: 403 if request.path.partition("?")[0].endswith("/60/0") else None
    with pytest.raises(dn.errors.StorageError, match="denied"):
        ds.apply(lambda block: calls.append(None) or block)
    assert len(calls) < 60
    assert_nothing_is_under_way(proxy)


@pytest.mark.parametrize("work", ["map", "apply", "clone", "load"])
def test_an_error_of_a_write_ends_all_work(many, work):
    ds, proxy = many

    def fault(request):
        return 403 if request.method == "PUT" and "/c/60/0" in request.path else None

    proxy.fault = fault
    with pytest.raises(dn.errors.StorageError, match=r"/c/60/0.*denied"):
        ds.load(Source(-MANY)) if work == "load" else WORK[work](ds)
    count = len(proxy.requests)
    assert_no_thread_of_a_flow()
    time.sleep(0.05)
    assert len(proxy.requests) == count
    proxy.fault = None
    assert "c" not in ds.connection
    found = ds[...]
    np.testing.assert_array_equal(np.abs(found), MANY)
    np.testing.assert_array_equal(found[60], MANY[60])
    # What was written is whole, and comes before what cannot have been.
    assert (found[1:25] < 0).all() == (work in ("apply", "load"))


@pytest.mark.parametrize("work", ["map", "apply"])
def test_ctrl_c_ends_all_requests(many, work):
    ds, proxy = many
    caller = threading.get_ident()

    def fault(request):
        if len(proxy.requests) == 60:
            signal.pthread_kill(caller, signal.SIGINT)
        return 0.01

    proxy.fault = fault
    with taking_ctrl_c(), pytest.raises(KeyboardInterrupt):
        WORK[work](ds)
    assert_nothing_is_under_way(proxy)


def assert_nothing_is_under_way(proxy):
    assert len(proxy.requests) < 200
    assert_no_thread_of_a_flow()


def assert_no_thread_of_a_flow():
    # They end when the requests have ended that they wait for.
    assert not [t for t in threading.enumerate() if t.name.startswith("dosna-flow")]


class Reused:
    """A function, or a source, whose results are in the same memory each time."""

    def __init__(self, data):
        self.data, self.shape, self.dtype = data, data.shape, data.dtype
        self.memory = {}

    def __call__(self, block):
        return np.negative(block, out=self.memory.setdefault(block.shape, np.empty(block.shape)))

    def __getitem__(self, key):
        return self(-self.data[key])


@pytest.mark.parametrize("kind", ["map", "halo", "load"])
def test_results_may_be_in_the_same_memory_each_time(late, kind):
    ds, fault = late
    fault.most = 8  # so few are written at a time that they need not wait for more
    reused, con, tasks = Reused(DATA), ds.connection, every_chunk(SHAPE, CHUNK)
    out = con.create_dataset("c", DATA.shape, "f8", chunk_size=CHUNK)
    if kind == "map":
        Map(ds.instance, out.instance, reused, True, overlaps=True)(tasks)
    elif kind == "halo":
        out = ds.map(reused, "d", dtype="f8", halo=(1, 0, 0))
    else:
        Load(out.instance, reused, overlaps=True)(tasks)
    np.testing.assert_array_equal(out[...], DATA if kind == "load" else -DATA)


@pytest.mark.parametrize("halo", [0, (1, 0, 0)])
def test_what_a_function_keeps_is_its_own(late, halo):
    ds, _ = late
    given, results = [], []

    def negative(block):
        if results:
            results[-1][...] = 0  # is not written any more
        given.append(block)
        results.append(-block)
        return results[-1]

    out = ds.map(negative, "c", dtype="f8", halo=halo)
    np.testing.assert_array_equal(out[...], -DATA)
    assert len(given) == len(DATA)
    for n, block in enumerate(given):
        np.testing.assert_array_equal(block[1 if halo else 0], DATA[n])


@given(
    shape=st.lists(st.integers(0, 9), min_size=1, max_size=3).map(tuple),
    chunk=st.integers(1, 4),
    objects=st.integers(1, 40),
    limit=st.none() | st.integers(20_000, 400_000),
    data=st.data(),
)
def test_any_window_gives_the_numbers_of_chunk_by_chunk(shape, chunk, objects, limit, data):
    halo = data.draw(st.tuples(*[st.integers(0, 2)] * len(shape)))
    axes = sorted(data.draw(st.sets(st.sampled_from(range(len(shape))))))
    chunks, others = [(size,) * len(shape) for size in (chunk, chunk + 1)]
    values = np.random.default_rng(0).random(shape)
    found = []
    for kind in (RamConnection, Remote):
        con = dn.Connection(f"any-{secrets.token_hex(6)}", backend="ram")
        con.instance.__class__ = kind
        with con, pytest.MonkeyPatch.context() as patch:
            patch.setattr(boxes, "WINDOW_OBJECTS", objects)
            ds = con.create_dataset("a", data=values, chunk_size=chunks)
            options = {"memory_limit": limit}
            results = [
                ds.map(np.sqrt, "m", **options)[...],
                ds.map(partial(np.cumsum, axis=0), "h", halo=halo, **options)[...],
                ds.copy(con, "c", chunk_size=others, **options)[...],
                ds.clone("d", data=True, **options)[...],
                ds.sum(),
                ds.reduce("sum", axes, **options),
            ]
            ds.apply(np.negative, **options)
            results += [ds[...], ds.reduce("min", **options) if ds.size else 0]
            differs = ds.compare(con["c"], **options)
            results += [differs.different, differs.first, differs.elements]
            found.append([np.asarray(result).tobytes() for result in results])
    assert found[0] == found[1]
