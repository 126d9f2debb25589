"""The object class `dosna` on clusters of three OSDs: with it, without it, and when one dies."""

from __future__ import annotations

import secrets
import struct
from contextlib import contextmanager
from threading import Event, Thread

import numpy as np
import pytest
from support import HANG, require, wait_until

import dosna as dn
from dosna import errors

rados = require("rados")

from services.admin import add_clients, command  # noqa: E402

from dosna.backends.ceph.store import CephStore  # noqa: E402
from dosna.backends.stores.store import MethodCall, NotExecutedError  # noqa: E402
from dosna.query import remote  # noqa: E402
from dosna.query.ceph_class import protocol  # noqa: E402
from dosna.query.programs import comparison  # noqa: E402
from dosna.query.remote import remote_of, take_all  # noqa: E402

DTYPES = ["f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"]


def connection(ceph, pool="kit", **kwargs):
    kwargs = {"conffile": ceph.conf, "timeout": 60, **kwargs}
    return dn.Connection(pool, backend="ceph", **kwargs)


@pytest.fixture
def con(classed):
    with connection(classed) as con:
        yield con
        for name in list(con):
            con.del_dataset(name)


@pytest.fixture
def name():
    return f"test-{secrets.token_hex(6)}"


def sample(dtype, count, seed=0):
    """Give random values of a dtype, with all that is special."""
    rng, dtype = np.random.default_rng(seed), np.dtype(dtype)
    if dtype.kind == "f":
        values = rng.normal(size=count).astype(dtype)
        special = [np.nan, np.inf, -np.inf, 0.0, -0.0]
        values[rng.integers(0, count, count // 9)] = rng.choice(special, count // 9)
        return values
    bytes_ = rng.integers(0, 256, count * dtype.itemsize, np.uint8)
    if dtype.kind == "b":
        return bytes_ < 100
    return bytes_.view(dtype)


@contextmanager
def counting(monkeypatch):
    """Count the objects that are read, the methods that are called, and the bytes of both."""
    seen = {"read": [], "called": [], "bytes": 0}
    get, execute = CephStore.get, CephStore.execute

    def counted_get(self, key, byte_range=None):
        blob = get(self, key, byte_range)
        if "/c/" in key:
            seen["read"].append(key)
            seen["bytes"] += 0 if blob is None else len(blob.data)
        return blob

    def counted_execute(self, calls):
        seen["called"] += [call.method for call in calls]
        seen["bytes"] += sum(len(call.request) for call in calls)
        answers = execute(self, calls)
        seen["bytes"] += sum(len(answer) for answer in answers if isinstance(answer, bytes))
        return answers

    with monkeypatch.context() as patched:
        patched.setattr(CephStore, "get", counted_get)
        patched.setattr(CephStore, "execute", counted_execute)
        yield seen


def check(dataset, values, program, truth, start=0, stop=None):
    """Compare all that is done where chunks lie with NumPy."""
    there, stop = remote_of(dataset.instance), len(values) if stop is None else stop
    assert there is not None
    values, rows = values[start:stop], np.flatnonzero(truth[start:stop])
    np.testing.assert_array_equal(there.rows(start, stop, program), rows)
    found, chosen = there.filter(start, stop, program)
    np.testing.assert_array_equal(found, rows)
    np.testing.assert_array_equal(chosen, values[rows])
    one, other = take_all([there, there], start + rows)
    np.testing.assert_array_equal(one, values[rows])
    np.testing.assert_array_equal(other, values[rows])
    assert chosen.dtype == one.dtype == dataset.dtype


# -- results -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_are_numpys(con, name, dtype, monkeypatch):
    values = sample(dtype, 10_007)
    dtype = values.dtype
    for seed, checksum in enumerate((True, False)):
        ds = con.create_dataset(f"{name}-{seed}", data=values, chunk_size=1500, checksum=checksum)
        limit = values[seed].item() if dtype.kind != "b" else seed
        with counting(monkeypatch) as seen:
            for operator in ("<", "<=", "==", "!=", ">", ">="):
                one = comparison(dtype, operator, limit)
                truth = one.evaluate(values)
                check(ds, values, one, truth)
                check(ds, values, one, truth, 700, 9_001)
            below, above = comparison(dtype, "<=", limit), comparison(dtype, ">=", 1)
            both = below.both(above)
            check(ds, values, both, (values <= limit) & (values >= 1))
            check(ds, values, both.negated(), ~((values <= limit) & (values >= 1)))
            check(ds, values, below.either(above), (values <= limit) | (values >= 1))
            if dtype.kind == "f":
                check(ds, values, comparison(dtype, "<", 0.5, True), np.abs(values) < 0.5)
        # Chunks are read only where nearly all of their rows are taken.
        assert set(seen["called"]) == {"version", "mask", "filter", "take"} - (
            {"version"} if seed else set()
        )
        assert len(seen["read"]) < seen["called"].count("take") + 100


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("block", [100, 1500, 4000])
def test_statistics_are_numpys(con, name, dtype, block):
    values = sample(dtype, 4_500)
    if values.dtype.kind == "f":
        values[1500:3000] = np.nan
        values[3100:3150] = [-np.inf, np.inf] * 25
    ds = con.create_dataset(name, data=values, chunk_size=1500)
    found = remote_of(ds.instance).stats(0, 4_500, block)
    parts = [remote.statistics(values[a : a + 1500], block) for a in range(0, 4500, 1500)]
    for one, other in zip(found, zip(*parts, strict=True), strict=True):
        np.testing.assert_array_equal(one, np.concatenate(other))


def test_rows_that_are_far_apart_or_wide(con, name):
    sparse = np.zeros(1 << 20, "u1")
    rows = np.array([0, 65_534, 65_535, 65_536, 131_071, 300_000, (1 << 20) - 1])
    sparse[rows] = 1
    ds = con.create_dataset(name, data=sparse, chunk_size=1 << 19)
    check(ds, sparse, comparison(sparse.dtype, "==", 1), sparse == 1)
    for dtype, inner in (("f4", (3,)), ("u2", (2, 5)), ("u1", (3,))):
        wide = np.arange(1000 * np.prod(inner)).reshape(1000, *inner).astype(dtype)
        ds = con.create_dataset(f"{name}-{dtype}{inner}", data=wide, chunk_size=(300, *inner))
        wanted = np.array([0, 5, 299, 300, 950, 999])
        np.testing.assert_array_equal(remote_of(ds.instance).take(wanted), wide[wanted])


def test_chunks_that_are_absent_or_partly_written(con, name, monkeypatch):
    ds = con.create_dataset(name, (1000,), "f4", chunk_size=100, fillvalue=7)
    ds[250:330] = -1
    expected = ds[...]
    for limit in (0, 10):
        check(ds, expected, comparison(ds.dtype, "<", limit), expected < limit)
    stats = remote_of(ds.instance).stats(0, 1000, 100)
    assert stats.least.tolist() == [7, 7, -1, -1, *[7] * 6]
    assert stats.largest.tolist() == [7, 7, 7, 7, *[7] * 6]
    ds.resize((1030,))
    there = remote_of(ds.instance)
    assert there.rows(995, 1030, comparison(ds.dtype, "==", 7)).tolist() == [*range(35)]
    con.del_dataset(name)
    with pytest.raises(errors.DatasetNotFoundError):
        there.rows(0, 1000, comparison(ds.dtype, "<", 0))


@pytest.mark.parametrize("damage", ["bit", "short", "empty", "long"])
def test_a_damaged_chunk_is_an_error_as_if_it_was_read(con, name, damage):
    ds = con.create_dataset(name, data=np.arange(1000, dtype="f4"), chunk_size=100)
    store, key = ds.instance.store, ds.instance.key((3,))
    data = bytes(store.get(key).data)
    broken = {"bit": data[:40] + b"\xff" + data[41:], "short": data[:-9], "empty": b""}
    store.put(key, broken.get(damage, data + b"more"))
    there, one = remote_of(ds.instance), comparison(ds.dtype, ">", 500)
    assert len(there.rows(400, 1000, one)) == 499
    for call in (
        lambda: there.rows(0, 1000, one),
        lambda: there.filter(0, 1000, one),
        lambda: there.take(np.array([3, 350, 777])),
        lambda: there.stats(300, 400, 10),
    ):
        with pytest.raises(errors.ChunkCorruptError, match=r"\(3,\)"):
            call()


# -- requests ------------------------------------------------------------------------------


def test_requests_and_bytes(con, name, monkeypatch):
    values = np.random.default_rng(0).random(1 << 20, "f4")
    ds = con.create_dataset(name, data=values, chunk_size=1 << 17)
    one = comparison(ds.dtype, "<", 0.01)
    there = remote_of(ds.instance)
    with counting(monkeypatch) as seen:
        taken = there.take(there.rows(0, len(values), one))
    np.testing.assert_array_equal(taken, values[values < np.float32(0.01)])
    assert seen["called"] == ["mask"] * 8 + ["take"] * 8
    assert seen["read"] == []
    # The rows once as answer, once as request, 2 bytes each, and their values.
    assert seen["bytes"] < 1.02 * len(taken) * (2 + 2 + 4) + 16 * 100


def test_hostile_requests_are_refused(con, name):
    ds = con.create_dataset(name, data=np.arange(1000, dtype="f4"), chunk_size=1000)
    store, key = ds.instance.store, ds.instance.key((0,))

    def execute(method, request, key=key):
        (answer,) = store.execute([MethodCall(key, method, request, 1 << 16)])
        return answer

    good = protocol.Head(ds.dtype, 1, 4, 1000, 0, 1000).pack(1 << 16)
    one = comparison(ds.dtype, "<", 3).code
    assert isinstance(execute("mask", good + one), bytes)
    heads = [
        good[:20],
        b"\x07" + good[1:],
        protocol.Head(ds.dtype, 1, 4, 1 << 62, 0, 1).pack(64),
        protocol.Head(ds.dtype, 1, 1 << 30, 1000, 0, 1).pack(64),
        protocol.Head(ds.dtype, 1, 0, 1000, 0, 1).pack(64),
        protocol.Head(ds.dtype, 1, 6, 1000, 0, 1).pack(64),
        protocol.Head(ds.dtype, 9, 4, 1000, 0, 1000).pack(1 << 16),
        protocol.Head(ds.dtype, 1, 4, 1000, 7, 3).pack(64),
        protocol.Head(ds.dtype, 1, 4, 1000, 0, 1001).pack(64),
        protocol.Head(ds.dtype, 1, 4, 1000, 0, 1000).pack((1 << 64) - 1),
        protocol.Head(ds.dtype, 1, 4, 1000, 0, 1000).pack(3),
        protocol.Head(np.dtype("c8"), 1, 8, 500, 0, 1).pack(64),
    ]
    rows = protocol.pack_rows(np.arange(999), 1000)
    gaps = protocol.pack_rows(np.array([3, 4]), 1000)
    requests = [
        *((method, head + one) for head in heads for method in ("mask", "filter")),
        *(("take", head + rows) for head in heads),
        *(("stats", head + struct.pack("<Q", 100)) for head in heads),
        ("mask", good),
        ("mask", good + one[:3]),
        ("mask", good + one + b"\x10"),
        ("mask", good + b"\x12"),
        ("mask", good + one * 9),
        ("mask", good + (one + b"\x12" * 70)),
        ("mask", good + b"\x63" + one[1:]),
        ("take", good + rows[:50]),
        ("take", good + b"\x05" + rows[1:]),
        ("take", good + rows[:8] + struct.pack("<Q", 998) + rows[16:]),
        ("take", good + rows[:8] + struct.pack("<Q", 1 << 60) + rows[16:]),
        ("take", good + gaps[:16] + struct.pack("<HH", 5, 0)),
        ("take", good + gaps[:16] + struct.pack("<HH", 5, 995)),
        ("take", good + gaps[:16] + b"\xff\xff" * 2000),
        ("stats", good),
        ("stats", good + bytes(8)),
        ("stats", good + struct.pack("<Q", 1)[:8]),
        ("none", good),
    ]
    rng = np.random.default_rng(0)
    for method, base in (("mask", one), ("take", gaps), ("stats", struct.pack("<Q", 100))):
        for _ in range(100):
            request = bytearray(good + base)
            for at in rng.integers(0, len(request), 3):
                request[at] = rng.integers(0, 256)
            requests.append((method, bytes(request)))
    refused = 0
    for method, request in requests:
        answer = execute(method, request)
        if isinstance(answer, bytes):
            assert len(answer) <= 1 << 16
        else:
            assert isinstance(answer, NotExecutedError)
            refused += 1
    assert refused > 200
    # The OSDs are as well as before.
    assert execute("version", b"") == b"\x01"
    assert execute("mask", good + one, "nothing") is None


# -- where there is none -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        (">f4", {}),
        ("f2", {}),
        ("c8", {}),
        ("f4", {"compression": "zstd"}),
        ("f4", {"shards": (400,)}),
    ],
)
def test_other_datasets_are_read(con, name, dtype, options):
    require("numcodecs")
    ds = con.create_dataset(name, (1000,), dtype, chunk_size=100, **options)
    assert remote_of(ds.instance) is None
    cut = con.create_dataset(f"{name}-cut", (10, 10), "f4", chunk_size=(10, 5))
    assert remote_of(cut.instance) is None


def test_a_pool_is_asked_once(ceph, name, monkeypatch):
    with connection(ceph) as con, counting(monkeypatch) as seen:
        ds = con.create_dataset(name, data=np.arange(1000, dtype="f4"), chunk_size=100)
        assert [remote_of(ds.instance) for _ in range(3)] == [None] * 3
        assert seen["called"] == ["version"]
        con.del_dataset(name)
    with dn.Connection("plain", backend="ram") as con:
        assert remote_of(con.create_dataset(name, (10,), "f4").instance) is None


def test_a_pool_with_erasure_code(classed, name, monkeypatch):
    profile = ["k=2", "m=1", "crush-failure-domain=osd"]
    command(classed, "osd erasure-code-profile set", name="coded", profile=profile)
    command(
        classed,
        "osd pool create",
        pool="coded",
        pool_type="erasure",
        erasure_code_profile="coded",
        pg_num=4,
        pgp_num=4,
    )
    values = np.random.default_rng(0).random(1000, "f4")
    with connection(classed, "coded") as con:
        ds = con.create_dataset(name, data=values, chunk_size=100)
        one = comparison(ds.dtype, "<", 0.3)
        with counting(monkeypatch) as seen:
            check(ds, values, one, values < np.float32(0.3))
        assert len(seen["read"]) >= 10
        assert remote_of(ds.instance) is None


def test_osds_of_which_one_lacks_the_class(con, name, monkeypatch):
    values = np.random.default_rng(0).random(1000, "f4")
    ds = con.create_dataset(name, data=values, chunk_size=100)
    execute, other = CephStore.execute, ds.instance.key((4,))

    def refusing(self, calls):
        refused = NotExecutedError("this OSD has no class")
        return [
            refused if call.key == other else answer
            for call, answer in zip(calls, execute(self, calls), strict=True)
        ]

    monkeypatch.setattr(CephStore, "execute", refusing)
    with counting(monkeypatch) as seen:
        check(ds, values, comparison(ds.dtype, "<", 0.3), values < np.float32(0.3))
    assert set(seen["read"]) == {other}


@pytest.mark.slow
def test_capabilities(start_cluster, ceph_class, name):
    with start_cluster("--auth=cephx", f"--classes={ceph_class}") as ceph:
        add_clients(
            ceph,
            {
                "writer": "allow rw pool=kit",
                "all": "allow rwx pool=kit",
                "reader": "allow r pool=kit, allow pool=kit class dosna",
                "elsewhere": "allow rw pool=kit, allow pool=store class dosna",
            },
        )
        values = np.random.default_rng(0).random(1000, "f4")
        with connection(ceph, client_id="writer") as con:
            con.create_dataset(name, data=values, chunk_size=100)
        can = {}
        for client in ("admin", "writer", "all", "reader", "elsewhere"):
            with connection(ceph, client_id=client, mode="r") as con:
                there = remote_of(con[name].instance)
                can[client] = there is not None
                if there is not None:
                    one = comparison(values.dtype, "<", 0.3)
                    check(con[name], values, one, values < np.float32(0.3))
        # `x` is for the classes of osd_class_default_list only.
        assert can == dict.fromkeys(can, False) | {"admin": True, "reader": True}


@pytest.mark.fault
def test_an_osd_that_dies_in_the_midst_costs_no_rows(start_cluster, ceph_class, name):
    values = np.random.default_rng(0).random(1 << 19, "f4")
    with (
        start_cluster(f"--classes={ceph_class}") as ceph,
        connection(ceph, timeout=HANG) as con,
    ):
        ds = con.create_dataset(name, data=values, chunk_size=1 << 12)
        one = comparison(ds.dtype, "<", 0.01)
        truth = values < np.float32(0.01)
        killed, rounds, wrong = Event(), [], []

        def ask():
            while not (killed.is_set() and len(rounds) > 3):
                try:
                    check(ds, values, one, truth)
                except BaseException as error:
                    wrong.append(error)
                    break
                rounds.append(killed.is_set())

        thread = Thread(target=ask)
        thread.start()
        wait_until(lambda: rounds or wrong)
        ceph.kill("osd.1")
        killed.set()
        thread.join(HANG)
        assert not wrong
        assert rounds[0] is False
        assert rounds[-1] is True
