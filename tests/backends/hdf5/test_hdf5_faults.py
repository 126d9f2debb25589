"""The hdf5 backend when things go wrong: damage, full disks, kills, and many writers."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import time
from typing import ClassVar

import numpy as np
import pytest
from faults import CHUNKS, LENGTH, START, WRITES, FolderFaults, explained, numbers, plan_writes
from support import open_files, require

h5py = require("h5py")

import dosna as dn  # noqa: E402
from dosna import errors  # noqa: E402
from dosna.io.locks import RangeLocks  # noqa: E402


@pytest.fixture
def con(tmp_path):
    with dn.Connection(str(tmp_path), backend="hdf5", engine="cpu") as connection:
        yield connection


# Damage


def cut(raw):
    return raw[:-1]


def cut_to_header(raw):
    return raw[:2048]


def extend(raw):
    return raw + b"\0"


def empty(raw):
    return b""


def rubbish(raw):
    return bytes(len(raw))


def zero_header(raw):
    return bytes(512) + raw[512:]


PLAIN = {}
CHECKED = {"checksum": True}
SMALL = {"compression": "gzip"}


@pytest.mark.parametrize("damage", [cut, cut_to_header, extend, empty, rubbish, zero_header])
@pytest.mark.parametrize("options", [PLAIN, CHECKED, SMALL], ids=["plain", "checked", "small"])
def test_a_damaged_file_is_an_error_that_names_dataset_and_chunk(con, tmp_path, damage, options):
    data = np.random.default_rng(0).random((8, 1000))
    ds = con.create_dataset("x", data=data, chunk_size=(4, 500), **options)
    path = tmp_path / "x" / "chunk_1_0.h5"
    path.write_bytes(damage(path.read_bytes()))
    reads = [
        lambda: ds[...],
        lambda: ds[5, 7],
        lambda: ds[:, 3],
        lambda: ds[[5, 6], [7, 8]],
        lambda: ds.get_chunk((1, 0))[...],
        lambda: ds.apply(np.negative),
        lambda: ds.__setitem__((5, 7), 1),
    ]
    for read in reads:
        with pytest.raises(errors.ChunkCorruptError, match=r"\(1, 0\) of dataset 'x'"):
            read()
    assert ds.verify().corrupt == ((1, 0),)
    ds.get_chunk((1, 0))[...] = 3  # a whole write needs nothing of the old chunk
    assert np.all(ds[4:, :500] == 3)


@pytest.mark.parametrize("options", [PLAIN, CHECKED, SMALL], ids=["plain", "checked", "small"])
def test_no_flipped_byte_outside_of_unchecked_data_gives_wrong_values(con, tmp_path, options):
    data = np.random.default_rng(0).random((2, 20))
    ds = con.create_dataset("x", data=data, chunk_size=(2, 20), **options)
    path = tmp_path / "x" / "chunk_0_0.h5"
    raw = path.read_bytes()
    end = len(raw) if options else len(raw) - data.nbytes
    noticed = 0
    for place in range(0, end, 3 if options else 1):
        flipped = bytearray(raw)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            assert np.array_equal(ds[...], data), f"byte {place}"
        except errors.ChunkCorruptError:
            noticed += 1
    assert noticed > 100


def test_a_flipped_byte_of_data_is_noticed_where_there_is_a_checksum(con, tmp_path):
    ds = con.create_dataset("x", data=np.ones((4, 4)), chunk_size=(2, 4), checksum=True)
    assert ds.verify().ok == ((0, 0), (1, 0))
    path = tmp_path / "x" / "chunk_1_0.h5"
    raw = bytearray(path.read_bytes())
    raw[raw.index(np.ones((2, 4)).tobytes()) + 17] ^= 4
    path.write_bytes(raw)
    with pytest.raises(errors.ChunkCorruptError):
        ds[3]
    assert ds.verify().corrupt == ((1, 0),)
    assert np.array_equal(ds[:2], np.ones((2, 4)))


@pytest.mark.parametrize(
    ("shape", "dtype"), [((4, 250), "f8"), ((4, 500), "f4"), ((4, 500), "i8"), ((2000,), "f8")]
)
def test_a_chunk_of_another_array_is_refused(con, tmp_path, shape, dtype):
    ds = con.create_dataset("x", data=np.ones((8, 1000)), chunk_size=(4, 500))
    with h5py.File(tmp_path / "x" / "chunk_0_1.h5", "w") as file:
        file["data"] = np.ones(shape, dtype)
    with pytest.raises(errors.ChunkCorruptError, match=r"chunk_0_1\.h5"):
        ds[...]


def test_a_chunk_whose_file_is_gone_is_missing_and_not_fill(con, tmp_path):
    ds = con.create_dataset("x", shape=(4, 4), chunk_size=(2, 2), fillvalue=9)
    ds[:, :2] = 1
    (tmp_path / "x" / "chunk_0_0.h5").unlink()
    for read in [lambda: ds[...], lambda: ds[0, 0], lambda: ds.__setitem__((0, 0), 2)]:
        with pytest.raises(errors.ChunkNotFoundError, match=r"\(0, 0\) of dataset 'x'"):
            read()
    assert ds.has_chunk((0, 0))
    found = ds.verify()
    assert (found.missing, found.unchecked) == (((0, 0),), ((1, 0),))
    assert found.never_written == ((0, 1), (1, 1))
    ds.del_chunk((0, 0))
    assert np.all(ds[:2] == 9)


def test_missing_chunks_are_known_after_resizing(con, tmp_path):
    ds = con.create_dataset("x", shape=(4, 4), chunk_size=(1, 1), fillvalue=9)
    ds[1:3] = 1
    for shape in [(4, 3), (5, 6), (3, 6), (3, 2), (7, 3)]:
        ds.resize(shape)
    assert [f for f in os.listdir(tmp_path / "x") if f.startswith(".written")] != []
    (tmp_path / "x" / "chunk_2_1.h5").unlink()
    found = con["x"].verify()
    assert found.missing == ((2, 1),)
    assert found.unchecked == ((1, 0), (1, 1), (2, 0))
    assert len(found.never_written) == 21 - 4


# Somebody else changes the dataset


def test_handles_notice_what_others_did(con, tmp_path):
    mine, theirs = (con.create_dataset("x", data=numbers((4, 4)), chunk_size=(2, 2)), con["x"])
    theirs.attrs["a"] = 1
    mine[0, 0] = 5
    assert theirs[0, 0] == 5
    theirs.resize((2, 8))
    with pytest.raises(errors.StaleDatasetError):
        mine[3] = 1
    mine.refresh()
    assert mine.shape == (2, 8)
    theirs.resize((3, 3))
    with pytest.raises(errors.StaleDatasetError):  # the rim would come back later
        mine[:2, :4] = 7
    theirs.resize((4, 4))
    assert np.array_equal(theirs[:, 3], np.zeros(4))
    con.del_dataset("x")
    for use in [lambda: mine[...], lambda: mine.__setitem__(0, 1), mine.refresh, mine.flush]:
        with pytest.raises(errors.DatasetNotFoundError):
            use()
    con.create_dataset("x", data=numbers((4, 4)), chunk_size=(2, 2))
    for use in [lambda: mine[...], lambda: mine.__setitem__(0, 1), mine.refresh]:
        with pytest.raises(errors.StaleDatasetError):
            use()
    assert np.array_equal(con["x"][...], numbers((4, 4)))


# Locks


@pytest.fixture
def locks(tmp_path):
    return RangeLocks(lambda: os.open(tmp_path / "l", os.O_RDWR | os.O_CREAT), "l")


def test_locks_exclude_threads_and_only_on_the_same_range(locks):
    attempt = locks.attempt
    with locks.hold(5), attempt(5, 1) as same, attempt(6, 9) as other, attempt() as all_:
        assert (same, other, all_) == (False, True, False)
    with locks.attempt() as all_:
        assert all_


def test_exclusive_is_reentrant_for_its_thread_alone(locks):
    order = []

    def other():
        with locks.hold(5):
            order.append("other")

    with locks.exclusive():
        thread = threading.Thread(target=other)
        thread.start()
        with locks.exclusive(), locks.hold(5):
            pass
        time.sleep(0.05)
        with locks.attempt(1 << 61, 1) as free:
            assert not free
        order.append("mine")
    thread.join()
    assert order == ["mine", "other"]


def test_a_refusal_to_lock_is_an_error(locks):
    with pytest.raises(errors.LockError, match="cannot lock"), locks.hold(0, -5):
        pass
    with locks.hold(0, 5):
        pass


TRACED = ("io/locks.py", "hdf5/dataset.py", "hdf5/folder.py", "hdf5/plain.py")


def interrupted_before_each_bytecode(act):
    """Run `act` again and again, each time with Ctrl-C before the next of its bytecodes."""

    def trace(frame, event, arg):
        nonlocal left
        if event == "call":
            frame.f_trace_opcodes = frame.f_code.co_filename.endswith(TRACED)
        elif event == "opcode":
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
        return trace

    before, number, interrupted = sys.gettrace(), 0, True
    while interrupted:
        left = number
        sys.settrace(trace)
        try:
            act()
            interrupted = False
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        number += 1
        yield number


def test_ctrl_c_at_any_bytecode_leaves_no_lock_and_no_descriptor(con):
    for length in (4, 10_000):  # read in one piece or not
        ds = con.create_dataset(f"x{length}", data=np.zeros(length), chunk_size=(length,))
        ds[1] = 1
        backend = ds.instance
        before = len(open_files(con.name))
        acts = [
            lambda b=backend: b.set_chunk_data((0,), 5, (1,)),
            lambda b=backend: b.get_chunk_data((0,), (slice(0, 2),)),
            lambda d=ds: d[...],
            lambda b=backend: b.del_chunk((0,)),
        ]
        for act in acts:
            number = 0
            for number in interrupted_before_each_bytecode(act):
                with backend._locks.attempt() as free:
                    assert free, number
                assert len(open_files(con.name)) <= before, number
            assert number > 50
        ds[...] = 2


def test_a_fork_inside_a_lock_leaves_the_child_usable(con):
    ds = con.create_dataset("x", data=np.zeros(4), chunk_size=(2,))
    other = con["x"].instance
    read, write = os.pipe()
    with ds.instance._locks.hold(0):
        child = os.fork()
        if child == 0:
            with other._locks.attempt(0, 1) as free:
                os.write(write, b"free" if free else b"held")
        else:
            assert os.read(read, 4) == b"held"
    if child == 0:
        try:
            ds[0] = 3  # not with the parent's descriptor, which is none of a lock file now
            with other._locks.hold(0):  # once the parent has let go
                os.write(write, b" free")
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    assert os.read(read, 20) == b" free"
    os.close(read)
    assert ds[0] == 3


def test_missing_chunks_can_be_cleared_and_resized(con, tmp_path):
    ds = con.create_dataset("x", data=np.ones((4, 4)), chunk_size=(2, 2), fillvalue=9)
    (tmp_path / "x" / "chunk_1_1.h5").unlink()
    assert (1, 1) in ds.written_chunks()
    ds.resize((3, 3))
    assert ds.verify().missing == ((1, 1),)
    assert ds.del_chunk((1, 1)) is True
    assert ds.del_chunk((1, 1)) is False
    (tmp_path / "x" / "chunk_0_0.h5").unlink()
    ds.clear()
    assert ds.written_chunks() == []
    assert not ds.has_chunk((0, 0))
    assert np.all(ds[...] == 9)
    point = con.create_dataset("point", data=np.float64(3))
    (tmp_path / "point" / "chunk_.h5").unlink()
    assert point.written_chunks() == [()]
    point.clear()
    assert point[()] == 0


def test_a_damaged_type_is_a_corrupt_chunk(con, tmp_path):
    ds = con.create_dataset("x", data=np.arange(4).astype("M8[s]"), chunk_size=(2,))
    path = tmp_path / "x" / "chunk_0.h5"
    path.write_bytes(path.read_bytes().replace(b"M8[s]", b"M8[sr"))
    with pytest.raises(errors.ChunkCorruptError):
        ds[...]
    assert ds.verify().corrupt == ((0,),)


def test_a_resize_that_fails_leaves_no_record(con, tmp_path, start_small):
    ds = con.create_dataset("x", data=np.ones((20, 20)), chunk_size=(1, 1))
    before = sorted(os.listdir(tmp_path / "x"))
    start_small("""
try:
    con["x"].resize((20, 21))
    sys.exit("no error")
except errors.StorageError:
    pass
""")
    assert sorted(os.listdir(tmp_path / "x")) == before
    ds.resize((20, 21))
    assert np.all(ds[:, :20] == 1)


@pytest.fixture
def start_small(tmp_path):
    """Run code in a process whose files cannot grow beyond 2000 bytes."""

    def run(code):
        limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        subprocess.run(
            [sys.executable, "-c", START + limit + code, str(tmp_path), "hdf5"], check=True
        )

    return run


def test_folders_left_by_one_who_died_block_no_name(con, tmp_path):
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    con.create_dataset("a", data=np.ones(3))
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "notes").write_text("")
    with pytest.raises(errors.DatasetNameError):
        con.create_dataset("d", data=np.ones(3))
    assert (tmp_path / "d" / "e").exists()


def test_a_pickled_handle_notices_that_its_dataset_was_made_again(con):
    old = con.create_dataset("x", data=np.ones(4), chunk_size=(2,))
    pickled = pickle.dumps(old.instance)
    assert pickle.loads(pickled).get_chunk_data((0,))[0] == 1
    con.del_dataset("x")
    con.create_dataset("x", data=np.zeros(4), chunk_size=(2,))
    for use in [lambda h: h.get_chunk_data((0,)), lambda h: h.set_chunk_data((0,), 1)]:
        with pytest.raises(errors.StaleDatasetError):
            use(pickle.loads(pickled))


def test_delete_only_the_dataset_of_a_handle(con):
    old = con.create_dataset("x", data=np.ones(4))
    pickled = pickle.loads(pickle.dumps(old.instance))
    con.del_dataset("x")
    for handle in (old.instance, pickled):
        with pytest.raises(errors.DatasetNotFoundError):
            con.instance.del_dataset("x", only=handle)
    new = con.create_dataset("x", data=np.zeros(4))
    for handle in (old.instance, pickled):
        with pytest.raises(errors.DatasetNotFoundError):
            con.instance.del_dataset("x", only=handle)
    assert "x" in con
    con.instance.del_dataset("x", only=new.instance)
    assert "x" not in con


def test_disconnecting_closes_the_lock_file(tmp_path):
    con = dn.Connection(str(tmp_path), backend="hdf5", engine="cpu")
    con.connect()
    con.create_dataset("x", shape=(3,))
    assert open_files(tmp_path)
    con.disconnect()
    assert not open_files(tmp_path)


@pytest.mark.parametrize(
    ("old", "new"), [(b'"shape": [4', b'"shape": [5'), (b'"chunk_size": [2', b'"chunk_size": [3')]
)
def test_a_flipped_byte_of_the_document_is_noticed(con, tmp_path, old, new):
    con.create_dataset("x", data=np.ones((4, 6)), chunk_size=(2, 3))
    path = tmp_path / "x" / "dataset.h5"
    raw = path.read_bytes()
    if old not in raw:
        old, new = old.replace(b": ", b":"), new.replace(b": ", b":")
    assert raw.count(old) == 1
    path.write_bytes(raw.replace(old, new))
    with pytest.raises(errors.FormatError, match="attribute"):
        con["x"]


def test_the_check_of_serial_orders_finds_a_lost_write():
    final = np.zeros((CHUNKS, LENGTH), int)
    for writer in (0, 1):
        for chunk, first, last, tag in plan_writes(writer):
            final[chunk, first:last] = tag
    assert explained(final, 2)
    chunk, first, last, _ = list(plan_writes(1))[WRITES - 1]
    lost = final.copy()
    lost[chunk, first : (first + last + 1) // 2] = 0
    assert not explained(lost, 2)


class TestFaults(FolderFaults):
    backend = "hdf5"
    left: ClassVar = {".lock"}

    @staticmethod
    def chunk_file(*idx):
        return f"chunk_{'_'.join(map(str, idx))}.h5"
