"""The hdf5 backend when things go wrong: damage, full disks, kills, and many writers."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from support import require

h5py = require("h5py")

import dosna as dn  # noqa: E402
from dosna import errors  # noqa: E402
from dosna.locks import RangeLocks  # noqa: E402

START = """
import os, sys, time, random, signal
import numpy as np
import dosna as dn
from dosna import errors
con = dn.Connection(sys.argv[1], backend="hdf5", engine="cpu")
con.connect()
"""


@pytest.fixture
def con(tmp_path):
    with dn.Connection(str(tmp_path), backend="hdf5", engine="cpu") as connection:
        yield connection


@pytest.fixture
def start(tmp_path):
    """Run code in another process, with a connection `con`; it may say when it is ready."""
    processes = []

    def run(code, *args):
        process = subprocess.Popen(
            [sys.executable, "-c", START + code, str(tmp_path), *map(str, args)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def finish(*processes):
    for process in processes:
        assert process.wait(60) == 0


def numbers(shape, dtype="f8"):
    return np.arange(int(np.prod(shape))).reshape(shape).astype(dtype)


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


# A disk without room


def test_a_write_that_fails_leaves_the_old_chunk_and_no_temporary(con, tmp_path, start):
    old = np.ones((4, 100_000))
    ds = con.create_dataset("x", data=old, chunk_size=(1, 100_000))
    code = """
import resource
ds = con["x"]
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
for key in [..., (2, slice(5, 9))]:
    try:
        ds[key] = 2
        sys.exit("no error")
    except errors.StorageError as error:
        assert "cannot write chunk" in str(error) and "'x'" in str(error), error
assert ds[2, 5] == 1
"""
    finish(start(code))
    assert np.array_equal(ds[...], old)
    assert [name for name in os.listdir(tmp_path / "x") if name.endswith(".tmp")] == []
    ds[...] = 3
    assert np.all(ds[...] == 3)


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


def test_waiting_for_a_lock_is_interrupted(con, tmp_path, start):
    ds = con.create_dataset("x", data=numbers((4,)), chunk_size=(2,))
    code = """
ds = con["x"]
print("ready", flush=True)
try:
    ds[0] = 1
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    with ds.instance.exclusive():
        process = start(code)
        process.stdout.readline()
        time.sleep(0.1)
        began = time.perf_counter()
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
        assert time.perf_counter() - began < 1
    finish(process)
    ds[0] = 2


def test_a_fork_neither_has_nor_keeps_the_locks_of_its_parent(con, tmp_path, start):
    con.create_dataset("x", data=np.zeros(4), chunk_size=(2,))
    code = """
ds = con["x"]
ds[0] = 1
held = ds.instance.exclusive()
held.__enter__()
if os.fork() == 0:
    print("child", flush=True)
    ds[1] = 2                      # waits until the parent is dead
    assert list(ds[...]) == [1, 2, 0, 0]
    print("wrote", flush=True)
    os._exit(0)
sys.stdin.readline()
os.kill(os.getpid(), signal.SIGKILL)
"""
    process = start(code)
    assert process.stdout.readline() == "child\n"
    time.sleep(0.1)
    assert con["x"][1] == 0
    process.stdin.write("die\n")
    process.stdin.flush()
    assert process.stdout.readline() == "wrote\n"
    assert con["x"][1] == 2


# Many writers of one chunk

HALVES = """
ds, half, rounds = con["x"], slice(*map(int, sys.argv[2:4])), int(sys.argv[4])
print("ready", flush=True)
sys.stdin.readline()
for n in range(1, rounds + 1):
    ds[half] = n
    assert (ds[half] == n).all(), n
"""


@pytest.mark.parametrize("options", [PLAIN, CHECKED], ids=["plain", "checked"])
def test_two_processes_write_their_halves_of_one_chunk(con, tmp_path, options, start):
    rounds = 1000 if not options else 200
    ds = con.create_dataset("x", shape=(1000,), dtype="i4", chunk_size=(1000,), **options)
    writers = [start(HALVES, *half, rounds) for half in [(0, 500), (500, 1000)]]
    together(writers)
    finish(*writers)
    assert np.all(ds[...] == rounds)


def together(writers):
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()


CHUNKS, LENGTH, WRITES = 150, 24, 4


def plan_writes(writer):
    """List what a writer writes to each chunk: (first, last, tag), whole chunks among them."""
    rng = random.Random(writer)
    for chunk in range(CHUNKS):
        for n in range(WRITES):
            ends = sorted(rng.sample(range(LENGTH + 1), 2)) if rng.random() < 0.7 else [0, LENGTH]
            yield chunk, *ends, 1 + writer * WRITES + n


def write_all(ds, writer):
    for chunk, first, last, tag in plan_writes(writer):
        ds[chunk, first:last] = tag


def explained(final, writers):
    """Whether some serial order of the writes of each chunk, with each writer's own, gives it."""
    for chunk in range(CHUNKS):
        writes = {
            tag: (first, last)
            for writer in range(writers)
            for c, first, last, tag in plan_writes(writer)
            if c == chunk
        }
        before = {tag: {tag - 1} if (tag - 1) % WRITES else set() for tag in writes}
        for place, tag in enumerate(final[chunk]):
            covering = {t for t, (first, last) in writes.items() if first <= place < last}
            if tag not in covering and (tag or covering):
                return False
            if tag:
                before[int(tag)] |= covering - {tag}
        while before:
            first = [tag for tag, others in before.items() if not others & before.keys()]
            if not first:
                return False
            for tag in first:
                del before[tag]
    return True


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


def test_four_processes_write_overlapping_parts(con, tmp_path, start):
    ds = con.create_dataset("x", shape=(CHUNKS, LENGTH), dtype="i4", chunk_size=(1, LENGTH))
    tests = os.path.dirname(__file__)
    code = f"""
sys.path.insert(0, {tests!r})
from test_hdf5_faults import write_all
print("ready", flush=True)
sys.stdin.readline()
write_all(con["x"], int(sys.argv[2]))
"""
    writers = [start(code, n) for n in range(4)]
    together(writers)
    finish(*writers)
    assert explained(ds[...], 4)


def test_four_threads_write_overlapping_parts(con):
    ds = con.create_dataset("x", shape=(CHUNKS, LENGTH), dtype="i4", chunk_size=(1, LENGTH))
    threads = [threading.Thread(target=write_all, args=(ds, n)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert explained(ds[...], 4)


def test_resizing_while_another_process_writes(con, tmp_path, start):
    ds = con.create_dataset("x", shape=(6, 6), dtype="i4", chunk_size=(4, 4), fillvalue=-1)
    code = """
ds, n = con["x"], 0
print("ready", flush=True)
while not os.path.exists(sys.argv[2]):
    n += 1
    try:
        ds[...] = n
    except errors.StaleDatasetError:
        ds.refresh()
"""
    writer = start(code, tmp_path / "stop")
    together([writer])
    for n in range(25):
        ds.resize((3 + n % 2, 5))
        with ds.instance.exclusive():  # between two writes
            ds.resize((6, 9))
            assert np.all(ds[4:] == -1), n
            assert np.all(ds[:, 5:] == -1), n
    (tmp_path / "stop").touch()
    finish(writer)
    assert not any(ds.verify().missing)


def test_deleting_while_another_process_writes(con, tmp_path, start):
    code = """
ds = con["x"]
print("ready", flush=True)
sys.stdin.readline()
try:
    while True:
        ds[...] = 1
except errors.DatasetNotFoundError:
    pass
"""
    for _ in range(3):
        con.create_dataset("x", data=np.zeros((8, 8)), chunk_size=(2, 2))
        writers = [start(code) for _ in range(2)]
        together(writers)
        time.sleep(0.02)
        con.del_dataset("x")
        finish(*writers)
        assert os.listdir(tmp_path) == [".lock"]


# Kills


OVERWRITE = """
ds, n = con["x"], 0
first = int(sys.argv[2])
print("ready", flush=True)
while True:
    n += 1
    for i in range(first, first + 8):
        ds[i] = n
"""


def test_killed_in_the_middle_of_overwrites(con, tmp_path, start):
    ds = con.create_dataset("x", data=np.zeros((16, 30_000)), chunk_size=(1, 30_000))
    other = start(OVERWRITE, 8)
    assert other.stdout.readline() == "ready\n"
    rng = random.Random(0)
    for _ in range(8):
        victim = start(OVERWRITE, 0)
        assert victim.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0.01, 0.05))
        victim.kill()
        victim.wait()
        rows = ds[...]
        assert np.all(rows == rows[:, :1])
        before = ds[8, 0]
        with ds.instance.exclusive():
            pass  # nothing stayed locked
        deadline = time.monotonic() + 5
        while ds[8, 0] == before:
            assert time.monotonic() < deadline, "the other writer is stuck"
    (tmp_path / "x" / "chunk_15_0.h5.tmp").write_bytes(b"of a dead writer")
    ds.flush()  # while the other writes
    assert other.poll() is None
    other.kill()
    other.wait()
    ds.flush()
    assert [name for name in os.listdir(tmp_path / "x") if name.endswith(".tmp")] == []
    assert ds.verify().corrupt == ds.verify().missing == ()


def test_killed_inside_create_and_delete(con, tmp_path, start):
    code = """
print("ready", flush=True)
while True:
    con.create_dataset("a/x", data=np.ones((6, 6)), chunk_size=(2, 2))
    con.del_dataset("a/x")
"""
    rng = random.Random(0)
    found = set()
    for _ in range(12):
        victim = start(code)
        assert victim.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0.001, 0.02))
        victim.kill()
        victim.wait()
        found.add("a/x" in con)
        if "a/x" in con:
            assert con["a/x"][...].shape == (6, 6)
            con.del_dataset("a/x")
        con.create_dataset("a/x", data=np.ones(3))
        assert np.all(con["a/x"][...] == 1)
        con.del_dataset("a/x")
        assert os.listdir(tmp_path) == [".lock"]
    assert found == {True, False}


@pytest.mark.parametrize("step", ["creating", "deleting"])
def test_what_died_is_swept_by_who_connects_and_kept_from_who_only_reads(tmp_path, step):
    left = tmp_path / f".{step}-0123"
    left.mkdir()
    (left / "chunk_0.h5").write_bytes(b"")
    with dn.Connection(str(tmp_path), backend="hdf5", mode="r") as con:
        assert list(con) == []
    assert left.exists()
    with dn.Connection(str(tmp_path), backend="hdf5") as con:
        assert list(con) == []
    assert not left.exists()


def test_of_many_processes_that_create_one_wins(tmp_path, start):
    code = """
print("ready", flush=True)
sys.stdin.readline()
won = 0
for n in range(30):
    try:
        con.create_dataset(f"x{n}", shape=(3,))
        won += 1
    except errors.DatasetExistsError:
        pass
print(won)
"""
    racers = [start(code) for _ in range(3)]
    together(racers)
    wins = [int(racer.stdout.readline()) for racer in racers]
    finish(*racers)
    assert sum(wins) == 30
