"""The work of a query on a range of entries: what it reads, and what of it at the same time."""

from __future__ import annotations

import secrets
import threading
import time
from itertools import groupby

import numpy as np
import pytest
from kept_trees import put_tree
from services.s3 import make_client
from support import HANG, require

import dosna as dn
from dosna.backends.s3.store import S3Store
from dosna.errors import ChunkCorruptError, NotConnectedError
from dosna.query import planning
from dosna.query.scan import Scan

ak = require("awkward")

N = 100
COLUMNS = {
    "a": np.arange(N, dtype="i4"),
    "b": np.arange(N) / 4,
    "c": np.arange(N, dtype="u1"),
    "lists": ak.unflatten(np.arange(2 * N), np.full(N, 2)),
}


@pytest.fixture
def con(moto_url, _any_keys):
    require("boto3")
    require("obstore")
    bucket = f"scan-{secrets.token_hex(4)}"
    make_client(moto_url).create_bucket(Bucket=bucket)
    with dn.Connection("scan", backend="s3", endpoint_url=moto_url, bucket=bucket) as connection:
        put_tree(connection, "Events", COLUMNS, N, chunk_entries=N)
        yield connection


@pytest.mark.parametrize("where", [None, "a % 2 == 0"])
def test_columns_are_requested_together(con, where, monkeypatch):
    """A range has one chunk of each column, whose requests wait for each other here."""
    get, met = S3Store.get, threading.Barrier(3)
    waiting = [f"/{name}/c/0" for name in ("b", "c", "lists/offsets")]

    def get_together(self, key, byte_range=None):
        if any(key.endswith(end) for end in waiting):
            met.wait(HANG / 10)
        return get(self, key, byte_range)

    monkeypatch.setattr(S3Store, "get", get_together)
    found = con.query("Events", where, ["b", "c", "lists"]).to_awkward()
    chosen = slice(None) if where is None else COLUMNS["a"] % 2 == 0
    for name in ("b", "c", "lists"):
        assert found[name].to_list() == ak.Array(COLUMNS[name])[chosen].to_list()


def test_ranges_are_requested_together(con, monkeypatch):
    """Each range has one chunk of the column, whose requests wait for each other here."""
    monkeypatch.setattr(planning, "LEAST_ROWS", 1)
    monkeypatch.setattr(planning, "_REQUESTS", 1)
    put_tree(con, "Ranges", COLUMNS, N // 10, chunk_entries=N // 10)
    get, met = S3Store.get, threading.Barrier(5)

    def get_together(self, key, byte_range=None):
        if "Ranges/b/c/" in key:
            met.wait(HANG / 10)
        return get(self, key, byte_range)

    told = []
    query = con.query(
        "Ranges", "a % 2 == 0", ["b", "lists"], progress=lambda *done: told.append(done)
    )
    with monkeypatch.context() as patched:
        patched.setattr(S3Store, "get", get_together)
        found = query.to_awkward()
    assert found["b"].to_list() == COLUMNS["b"][::2].tolist()
    assert found["lists"].to_list() == COLUMNS["lists"][::2].to_list()
    assert told == sorted(told)
    assert told[-1] == (10, 10)


def test_with_a_limit_of_memory_ranges_take_turns(con, monkeypatch):
    monkeypatch.setattr(planning, "LEAST_ROWS", 1)
    monkeypatch.setattr(planning, "_REQUESTS", 1)
    put_tree(con, "Ranges", COLUMNS, N // 10, chunk_entries=N // 10)
    get, asked, lock = S3Store.get, [], threading.Lock()

    def get_slowly(self, key, byte_range=None):
        if key.endswith(".json"):
            return get(self, key, byte_range)
        with lock:
            asked.append((key.rpartition("/")[2], "begin"))
        time.sleep(0.005)
        found = get(self, key, byte_range)
        with lock:
            asked.append((key.rpartition("/")[2], "end"))
        return found

    query = con.query("Ranges", "a % 2 == 0", ["b", "c"], memory_limit="64 MiB")
    with monkeypatch.context() as patched:
        patched.setattr(S3Store, "get", get_slowly)
        found = query.to_numpy()
    assert found["b"].tolist() == COLUMNS["b"][::2].tolist()
    order = [number for number, _ in asked]
    assert [number for number, _ in groupby(order)] == sorted(set(order))


def test_ranges_that_are_not_done_are_not_reported(con, monkeypatch):
    monkeypatch.setattr(planning, "LEAST_ROWS", 1)
    monkeypatch.setattr(planning, "_REQUESTS", 1)
    put_tree(con, "Ranges", COLUMNS, N // 10, chunk_entries=N // 10)
    scan, done, ahead = Scan.one, [], []

    def one(self, piece, reads):
        found = scan(self, piece, reads)
        done.append(piece)
        return found

    def told(number, total):
        if number > len(done):
            ahead.append((number, len(done)))

    monkeypatch.setattr(Scan, "one", one)
    assert con.query("Ranges", "a % 2 == 0", ["b"], progress=told).count() == N // 2
    assert len(done) == 10
    assert ahead == []


def test_an_error_of_one_range_is_raised(con, monkeypatch):
    monkeypatch.setattr(planning, "LEAST_ROWS", 1)
    monkeypatch.setattr(planning, "_REQUESTS", 1)
    put_tree(con, "Ranges", COLUMNS, N // 10, chunk_entries=N // 10)
    con["Ranges/b"].instance.store.put(con["Ranges/b"].instance.key((4,)), b"no chunk")
    with pytest.raises(ChunkCorruptError, match=r"chunk \(4,\)"):
        con.query("Ranges", "a % 2 == 0", ["b"]).to_numpy()


def test_an_error_of_one_column_is_raised(con, monkeypatch):
    get = S3Store.get

    def get_or_fail(self, key, byte_range=None):
        if key.endswith("/c/c/0"):
            raise OSError("the disk of column c")
        return get(self, key, byte_range)

    query = con.query("Events", None, ["b", "c", "lists"])
    with monkeypatch.context() as patched:
        patched.setattr(S3Store, "get", get_or_fail)
        with pytest.raises(OSError, match="the disk of column c"):
            query.to_awkward()
    assert query.to_awkward()["c"].to_list() == COLUMNS["c"].tolist()


def test_batches_end_with_their_connection(con, monkeypatch):
    monkeypatch.setattr(planning, "LEAST_ROWS", 1)
    monkeypatch.setattr(planning, "_REQUESTS", 1)
    put_tree(con, "Ranges", COLUMNS, N // 10, chunk_entries=N // 10)
    batches = con.query("Ranges", None, ["a"]).batches()
    assert next(batches)["a"].to_pylist() == list(range(10))
    held = con["Ranges/a"].instance
    con.disconnect()
    with pytest.raises(NotConnectedError, match="connect"):
        list(batches)
    with pytest.raises(NotConnectedError, match="connect"):
        held.read_chunk((5,), None)  # which would open the store again
    con.connect()
    assert con.query("Ranges", None, ["a"]).to_numpy()["a"].tolist() == list(range(N))


def test_a_column_without_any_dataset(con):
    records = {"none": ak.Array([{}] * N), "also": ak.Array([{}] * N), "a": COLUMNS["a"]}
    put_tree(con, "Records", records, N, chunk_entries=N)
    found = con.query("Records", "a < 2").to_awkward()
    assert found.to_list() == [{"none": {}, "also": {}, "a": a} for a in range(2)]
