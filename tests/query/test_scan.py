"""The work of a query on a range of entries: what it reads, and what of it at the same time."""

from __future__ import annotations

import secrets
import threading

import numpy as np
import pytest
from kept_trees import put_tree
from services.s3 import make_client
from support import HANG, require

import dosna as dn
from dosna.backends.s3.store import S3Store

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


def test_a_column_without_any_dataset(con):
    records = {"none": ak.Array([{}] * N), "also": ak.Array([{}] * N), "a": COLUMNS["a"]}
    put_tree(con, "Records", records, N, chunk_entries=N)
    found = con.query("Records", "a < 2").to_awkward()
    assert found.to_list() == [{"none": {}, "also": {}, "a": a} for a in range(2)]
