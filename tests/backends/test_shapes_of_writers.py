"""Shapes that several writers change at the same time, and appends that end early."""

from __future__ import annotations

import secrets
import signal
import threading
from contextlib import nullcontext, suppress

import numpy as np
import pytest
from support import HANG, require, taking_ctrl_c

import dosna as dn
from dosna import errors
from dosna.testing import FaultyStore, MemoryStore, use_store
from dosna.testing.doubles import WrappedStore

MOST = 60
"""More requests than any of the operations takes."""


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def connect(store, monkeypatch):
    # Another process has locks of its own.
    for module in ("dataset", "connection", "groups"):
        monkeypatch.setattr(
            f"dosna.backends.stores.{module}.lock", lambda *what: nullcontext(), raising=True
        )
    name = secrets.token_hex(8)
    use_store(name, store)
    return lambda: dn.Connection(name, backend="memory", engine="cpu")


class Turn:
    """The requests of one of two writers, which stops at one of them until it may go on."""

    def __init__(self, at, stop):
        self.at, self.stop, self.stopped = at, stop, False

    def __call__(self, number, kind, key):
        if number == self.at:
            self.stopped = True
            self.stop()


def each_interleaving(connect, store, shards, first, second):
    """Let the second writer begin at each request of the first, and pause at each of its own.

    The dataset is yielded after both have ended. It had the values 1 to 5 in chunks of 2, and is
    filled by -1.
    """
    for at in range(MOST):
        for pause in range(MOST):
            with connect() as one, connect() as other:
                one.create_dataset(
                    "x", data=np.arange(1, 6), chunk_size=2, shards=shards, fillvalue=-1
                )
                paused, go_on = threading.Event(), threading.Event()
                here, there = one["x"], other["x"]

                def work(there=there, paused=paused):
                    second(there)
                    paused.set()

                thread = threading.Thread(target=work)

                def begin(thread=thread, paused=paused):
                    thread.start()
                    assert paused.wait(HANG)

                def wait(paused=paused, go_on=go_on):
                    paused.set()
                    assert go_on.wait(HANG)

                begins, pauses = Turn(at, begin), Turn(pause, wait)
                one.instance._store = FaultyStore(store, begins)
                other.instance._store = FaultyStore(store, pauses)
                first(here)
                go_on.set()
                if not begins.stopped:
                    assert at > 3
                    return
                thread.join()
                one.instance._store = other.instance._store = store
                yield (at, pause), one["x"]
            store.blobs.clear()
            if not pauses.stopped:
                break
    raise AssertionError(f"more than {MOST} requests")


@pytest.mark.parametrize(("shards", "rows"), [(None, [100, 101, 102]), (None, [100]), (4, [100])])
def test_an_append_that_fails_takes_no_rows_of_others_with_it(connect, store, shards, rows):
    class Full(MemoryStore):
        def put_marked(self, key, data, expected, mark):
            if "/c/" in key and threading.current_thread() is failing:
                raise errors.StorageError("no room")
            return super().put_marked(key, data, expected, mark)

    failing = None
    store.__class__ = Full

    def fail(ds):
        nonlocal failing
        failing = threading.current_thread()
        with pytest.raises(errors.StorageError, match="no room"):
            ds.append([7, 8, 9, 10])
        failing = None

    def append(ds):
        ds.append(rows)

    for at, ds in each_interleaving(connect, store, shards, fail, append):
        found = ds[...].tolist()
        assert found[:5] == [1, 2, 3, 4, 5]
        assert found[-len(rows) :] == rows, at
        assert set(found[5 : -len(rows)]) <= {-1}


def test_what_does_not_fit_any_more_changes_nothing(connect, store):
    with connect() as one, connect() as other:
        one.create_dataset("x", data=np.ones((2, 3)), chunk_size=(2, 2))
        there = other["x"]
        one["x"].resize((2, 4))
        before = dict(store.blobs)
        with pytest.raises(errors.StaleDatasetError, match=r"resized it to \(2, 4\)"):
            there.append(np.ones((1, 3)))
        assert store.blobs == before


@pytest.mark.parametrize(("shape", "others"), [(3, 7), (7, 3)])
def test_what_one_cuts_off_another_does_not_bring_back(connect, store, shape, others):
    least = min(shape, others, 5)
    for at, ds in each_interleaving(
        connect, store, None, lambda ds: ds.resize(shape), lambda ds: ds.resize(others)
    ):
        assert ds.shape in ((shape,), (others,))
        ds.resize(12)
        assert ds[...].tolist() == [*range(1, least + 1), *[-1] * (12 - least)], at


@pytest.mark.parametrize("shards", [None, 4])
def test_a_part_that_stays_is_written_while_another_is_cut_off(connect, store, shards):
    def write(ds):
        ds[2] = 70

    for at, ds in each_interleaving(connect, store, shards, lambda ds: ds.resize(3), write):
        assert ds[...].tolist() == [1, 2, 70], at


class Interrupting(WrappedStore):
    """A store that sends Ctrl-C to the process when a request has been done."""

    at = -1

    def request(self, kind, key, call):
        found = call()
        self.at -= 1
        if self.at == 0:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        return found


@pytest.mark.parametrize("shards", [None, 4])
def test_ctrl_c_at_any_request_of_an_append(connect, store, shards):
    with connect() as con:
        ds = con.create_dataset("x", data=np.arange(5), chunk_size=2, shards=shards, fillvalue=-1)
        con.instance._store = interrupting = Interrupting(store)
        for at in range(1, MOST):
            interrupting.at = at
            ended = False
            with taking_ctrl_c(), suppress(KeyboardInterrupt):
                ds.append([7, 8, 9])
                ended = True
            interrupting.at = -1
            if ended:
                break
            assert con["x"][...].tolist() == [0, 1, 2, 3, 4], at
        assert 5 < at < MOST - 1
        assert con["x"][...].tolist() == [0, 1, 2, 3, 4, 7, 8, 9]
        ds.resize(12)
        assert con["x"][...].tolist() == [0, 1, 2, 3, 4, 7, 8, 9, -1, -1, -1, -1]


@pytest.mark.parametrize("backend", ["ram", "hdf5", "file"])
def test_an_append_that_fails_keeps_others_out_until_it_is_undone(backend, tmp_path, monkeypatch):
    if backend == "hdf5":
        require("h5py")
    with dn.Connection(str(tmp_path), backend=backend, engine="cpu") as con:
        ds, other = (con.create_dataset("x", data=np.arange(5), chunk_size=2), con["x"])
        append = threading.Thread(target=other.append, args=([7, 8],))
        delete = type(ds.instance).del_objects

        def deleting(self, indices):
            if append.ident is None:
                append.start()
                append.join(0.2)  # it waits for a lock
            delete(self, indices)

        def full(*args, **options):
            raise errors.StorageError("no room")

        monkeypatch.setattr(type(ds.instance), "del_objects", deleting)
        monkeypatch.setattr(ds, "_write", full)
        with pytest.raises(errors.StorageError, match="no room"):
            ds.append([1, 2])
        append.join()
        assert con["x"][...].tolist() == [0, 1, 2, 3, 4, 7, 8]
