"""The cache of decoded chunks: never stale, bounded, apart from what was read."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from support import HANG

import dosna as dn
from dosna import errors
from dosna.backends.stores.chunkcache import ChunkCache
from dosna.testing import CountingStore, MemoryStore, use_store
from dosna.testing.doubles import FolderConnection

SIZE = 1 << 20
RECHECKS = ["always", "open"]


def connect(name, store=None, **options):
    if store is not None:
        use_store(name, store)
    con = dn.Connection(name, backend="memory", engine="cpu", **options)
    con.connect()
    return con


def held(con):
    """Return the chunks in a connection's cache."""
    chunks = con.instance.chunk_cache._chunks
    with chunks._lock:
        return {key: e.value for key, e in chunks._entries.items()}


@pytest.fixture
def store():
    return CountingStore(MemoryStore())


@pytest.fixture(params=RECHECKS)
def recheck(request):
    return request.param


# -- what is read ----------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"checksum": False}, {"compression": "gzip"}])
@pytest.mark.parametrize("dtype", ["<f8", ">i2", "M8[s]", [("a", "i4"), ("b", "f4")]])
def test_reads_are_as_without_a_cache(store, recheck, options, dtype):
    values = np.arange(7 * 9).reshape(7, 9).astype(np.dtype("i8"))
    con = connect("read", store, cache=SIZE, recheck=recheck)
    kind = np.dtype(dtype)
    data = np.zeros((7, 9), kind)
    if kind.names:
        data["a"], data["b"] = values, -values
    else:
        data[...] = values.astype(kind)
    ds = con.create_dataset("a", data=data, chunk_size=(3, 4), **options)
    for _ in range(2):
        for key in (..., 3, (slice(1, 6), slice(2, 9, 3)), (slice(None), [1, 8, 1]), (2, 5)):
            np.testing.assert_array_equal(ds[key], data[key])
    assert len(held(con)) == 9


def test_text_and_shards_are_read_past_the_cache(store, recheck):
    con = connect("past", store, cache=SIZE, recheck=recheck)
    text = con.create_dataset("text", data=["a", "bc", ""], dtype=str, chunk_size=2)
    shards = con.create_dataset("shards", data=np.arange(8), chunk_size=2, shards=(4,))
    assert text[...].tolist() == ["a", "bc", ""]
    np.testing.assert_array_equal(shards[...], np.arange(8))
    assert not held(con)


def test_what_was_read_stays_as_it_was(store, recheck):
    con = connect("own", store, cache=SIZE, recheck=recheck)
    ds = con.create_dataset("a", data=np.arange(8), chunk_size=4)
    for key in (slice(0, 4), slice(None), slice(1, 3), [0, 5]):
        found = ds[key]
        found[...] = -1
        np.testing.assert_array_equal(ds[...], np.arange(8))
        before = ds[key].copy()
        kept = ds[key]
        ds[...] = 7
        np.testing.assert_array_equal(kept, before)
        ds[...] = np.arange(8)
    np.testing.assert_array_equal(ds[...], np.arange(8))
    assert len(held(con)) == 2
    for chunk in held(con).values():
        with pytest.raises(ValueError, match="read-only"):
            chunk.values[...] = 0


# -- requests --------------------------------------------------------------------------------


def test_an_unchanged_chunk_costs_a_byte_or_nothing(store, recheck):
    con = connect("requests", store, cache=SIZE, recheck=recheck)
    ds = con.create_dataset("a", data=np.arange(400).reshape(20, 20), chunk_size=(10, 10))
    lengths = []
    get = store.get

    def counted(key, byte_range=None):
        blob = get(key, byte_range)
        lengths.append(0 if blob is None else len(blob.data))
        return blob

    store.get = counted
    np.testing.assert_array_equal(ds[3], np.arange(60, 80))
    assert sum(lengths) > 2 * 800
    for plane in range(4, 10):
        lengths.clear()
        np.testing.assert_array_equal(ds[plane], np.arange(20) + 20 * plane)
        assert lengths == ([1, 1] if recheck == "always" else [])


def test_a_handle_that_opens_later_looks_again(store):
    con = connect("later", store, cache=SIZE, recheck="open")
    other = connect("later-other", store)
    ds = con.create_dataset("a", data=np.arange(8), chunk_size=4)
    theirs = other["a"]
    assert ds[0] == 0
    theirs[0] = 9
    store.reset()
    assert ds[0] == 0  # as 'open' allows
    assert not store.requests
    assert con["a"][0] == 9
    assert ds[0] == 9
    theirs[0] = 10
    ds.refresh()
    assert ds[0] == 10


def test_verify_reads_what_is_stored(store, recheck):
    con = connect("verify", store, cache=SIZE, recheck=recheck)
    ds = con.create_dataset("a", data=np.arange(8), chunk_size=4)
    np.testing.assert_array_equal(ds[...], np.arange(8))
    (key,) = [k for k in store.inner.blobs if k.endswith("c/0")]
    blob = store.inner.blobs[key]
    store.inner.blobs[key] = blob._replace(data=b"x" + bytes(blob.data)[1:])
    assert list(ds.verify().corrupt) == [(0,)]


# -- changes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_two_handles_and_random_changes_agree_with_a_model(store, recheck, seed):
    rng = np.random.default_rng(seed)
    limit = int(rng.choice([2000, 5000, SIZE]))
    con = connect(f"model-{seed}", store, cache=limit, recheck=recheck)
    # Under 'open', only changes through the same connection have to be seen at once.
    other = connect(f"model-{seed}-b", store) if recheck == "always" else con
    shape = [13, 9]
    model = np.zeros(shape, "i4")
    con.create_dataset("a", shape, "i4", chunk_size=(4, 5), checksum=bool(seed % 2))
    handles = [con["a"], other["a"]]
    for step in range(1, 300):
        ds = handles[rng.integers(2)]
        what = rng.choice(
            ["read", "write", "chunk", "delete", "resize"], p=[0.5, 0.3, 0.1, 0.07, 0.03]
        )
        lo = [int(rng.integers(n)) for n in shape]
        hi = [int(rng.integers(a, n)) + 1 for a, n in zip(lo, shape, strict=True)]
        box = tuple(slice(a, b) for a, b in zip(lo, hi, strict=True))
        grid = tuple(a // c for a, c in zip(lo, (4, 5), strict=True))
        place = tuple(slice(g * c, (g + 1) * c) for g, c in zip(grid, (4, 5), strict=True))
        if what == "read":
            np.testing.assert_array_equal(ds[box], model[box])
            assert ds[tuple(lo)] == model[tuple(lo)]
        elif what == "write":
            ds[box] = model[box] = step
        elif what == "chunk":
            ds[place] = model[place] = step
        elif what == "delete":
            ds.del_chunk(grid)
            model[place] = 0
        else:
            rows = int(rng.integers(3, 20))
            ds.resize((rows, 9))
            grown = np.zeros((rows, 9), "i4")
            grown[: min(rows, shape[0])] = model[:rows]
            model, shape = grown, [rows, 9]
            for handle in handles:
                handle.refresh()
        assert sum(c.values.nbytes for c in held(con).values()) <= limit
    for ds in handles:
        np.testing.assert_array_equal(ds[...], model)


def test_chunks_that_are_deleted_together_are_dropped(store, recheck):
    con = connect("deleted", store, cache=SIZE, recheck=recheck)
    ds = con.create_dataset("a", data=np.arange(1, 9), chunk_size=4)
    other = con["a"]
    assert other[7] == 8
    ds.resize(4)
    ds.resize(8)
    assert other[...].tolist() == [1, 2, 3, 4, 0, 0, 0, 0]
    ds.clear()
    assert other[...].tolist() == [0] * 8


def test_a_dataset_made_again_is_another(store, recheck):
    con = connect("again", store, cache=SIZE, recheck=recheck)
    data = np.arange(8)
    old = con.create_dataset("a", data=data, chunk_size=4)
    np.testing.assert_array_equal(old[...], data)
    con.del_dataset("a")
    with pytest.raises(errors.DatasetNotFoundError):
        old[...]
    new = con.create_dataset("a", data=data + 1, chunk_size=4)
    np.testing.assert_array_equal(new[...], data + 1)
    with pytest.raises(errors.StaleDatasetError):
        old[...]


def test_a_chunk_read_while_it_is_written_is_not_kept(store):
    """The reader has the old bytes, and adds them to the cache after the write."""
    con = connect("race", store, cache=SIZE, recheck="open")
    ds = con.create_dataset("a", data=np.arange(4), chunk_size=4)
    reading, written = threading.Event(), threading.Event()
    get = store.get

    def slow(key, byte_range=None):
        blob = get(key, byte_range)
        if key.endswith("c/0") and not written.is_set():
            reading.set()
            written.wait(HANG)
        return blob

    store.get = slow
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(lambda: ds[...])
        reading.wait(HANG)
        ds.instance.set_chunk_data((0,), np.full(4, 5))
        written.set()
        assert found.result(HANG).tolist() == [0, 1, 2, 3]
    assert ds[...].tolist() == [5] * 4


def test_a_chunk_read_before_an_asynchronous_put_ends_is_not_kept(store):
    """A store may end its puts only when the batch ends."""

    class Late(CountingStore):
        late = None

        def put_marked(self, key, data, expected, mark):
            if self.late is None or "/c/" not in key:
                super().put_marked(key, data, expected, mark)
            else:
                self.late.append((key, data, expected, mark))

        def for_each(self, work, items, nbytes=0):
            items = list(items)
            writes = bool(items) and self.late is not None
            for item in items:
                work(item)
            if writes and self.late:
                late, self.late = self.late, None
                between()
                for one in late:
                    super().put_marked(*one)

    late = Late(store.inner)
    con = connect("late", late, cache=SIZE, recheck="open")
    ds = con.create_dataset("a", data=np.arange(8), chunk_size=4)
    seen = []

    def between():
        seen.append(ds[...].tolist())

    late.late = []
    ds[...] = 1
    assert seen == [list(range(8))]
    assert ds[...].tolist() == [1] * 8


def test_a_failed_write_drops_the_chunk(store, recheck):
    con = connect("failed", store, cache=SIZE, recheck=recheck)
    ds = con.create_dataset("a", data=np.arange(4), chunk_size=4)
    assert ds[0] == 0
    put = store.put_marked

    def lost(*arguments):
        put(*arguments)
        raise errors.OutcomeUnknown("the answer was lost")

    store.put_marked = lost
    with pytest.raises(errors.OutcomeUnknown):
        ds[...] = 3
    assert ds[...].tolist() == [3] * 4


# -- processes -------------------------------------------------------------------------------


def write_when_told(folder, pipe):
    with dn.Connection(folder, backend="folder", engine="cpu") as con:
        ds = con["a"]
        while (value := pipe.recv()) is not None:
            ds[...] = value
            pipe.send(value)


def test_what_another_process_wrote_is_read(tmp_path):
    FolderConnection(str(tmp_path))  # registers the backend
    spawn = multiprocessing.get_context("spawn")
    mine, its = spawn.Pipe()
    with dn.Connection(str(tmp_path), backend="folder", engine="cpu", cache=SIZE) as con:
        ds = con.create_dataset("a", data=np.zeros((4, 4)), chunk_size=(2, 2))
        process = spawn.Process(target=write_when_told, args=(str(tmp_path), its))
        process.start()
        try:
            for value in range(1, 100):
                mine.send(value)
                assert mine.recv() == value
                np.testing.assert_array_equal(ds[...], np.full((4, 4), value))
                assert ds[1, 2] == value
            mine.send(None)
            process.join(HANG)
            assert process.exitcode == 0
        finally:
            process.kill()
            process.join()
        assert len(held(con)) == 4


def test_a_pickled_handle_has_a_cache_of_its_own(tmp_path, recheck):
    options = {"backend": "folder", "engine": "cpu", "cache": SIZE, "recheck": recheck}
    with dn.Connection(str(tmp_path), **options) as con:
        ds = con.create_dataset("a", data=np.arange(8), chunk_size=4)
        assert ds[5] == 5
        other = pickle.loads(pickle.dumps(ds))
        cache = other.connection.instance.chunk_cache
        assert cache is not con.instance.chunk_cache
        assert (cache.limit, cache.recheck) == (SIZE, recheck)
        assert not held(other.connection)
        np.testing.assert_array_equal(other[...], np.arange(8))
        assert len(held(other.connection)) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_begins_with_an_empty_cache(store, recheck):
    con = connect("forked", store, cache=SIZE, recheck=recheck)
    ds = con.create_dataset("a", data=np.arange(8), chunk_size=4)
    assert ds[5] == 5
    with con.instance.chunk_cache._lock:  # which nobody would release in the child
        pid = os.fork()
        if pid == 0:
            try:
                right = not held(con) and ds[...].tolist() == list(range(8))
            except BaseException:
                right = False
            os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert len(held(con)) == 1


# -- the limit -------------------------------------------------------------------------------


def test_the_limit_holds_for_all_datasets_and_threads(store, recheck):
    limit = 100_000
    con = connect("limit", store, cache=limit, recheck=recheck)
    sets = [
        con.create_dataset(f"{n}", data=np.full((64, 64), n, "i4"), chunk_size=(16, 16))
        for n in range(8)
    ]
    most = []

    def read(ds):
        for row in range(64):
            assert ds[row].tolist() == [int(ds.name)] * 64
            most.append(sum(c.values.nbytes for c in held(con).values()))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read, sets * 2))
    # While a chunk is added, it is there beside those that it replaces.
    assert limit // 2 < max(most) <= limit + 4 * 1024
    assert sum(c.values.nbytes for c in held(con).values()) <= limit
    con.disconnect()
    assert not held(con)


def test_a_chunk_larger_than_the_cache_is_read_past_it(store, recheck):
    con = connect("large", store, cache=1000, recheck=recheck)
    ds = con.create_dataset("a", data=np.arange(1000), chunk_size=500)
    np.testing.assert_array_equal(ds[...], np.arange(1000))
    assert not held(con)


@pytest.mark.parametrize(
    "options", [{"cache": 0}, {"cache": "much"}, {"cache": [1]}, {"cache": 1, "recheck": "never"}]
)
def test_bad_values_are_refused(options):
    with pytest.raises(errors.ConfigurationError, match=r"cache|recheck"):
        dn.Connection("bad", backend="memory", **options)


def test_a_backend_without_a_cache_says_so():
    with pytest.raises(errors.ConfigurationError, match="cache"):
        dn.Connection("none", backend="ram", cache="1 MiB")


def test_a_url_may_ask_for_a_cache():
    con, _ = dn.open_url("memory:url/a?cache=2MiB&recheck=open")
    cache = con.instance.chunk_cache
    assert isinstance(cache, ChunkCache)
    assert (cache.limit, cache.recheck) == (2 << 20, "open")
