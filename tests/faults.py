"""What must not happen to datasets in folders, whatever their files look like."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import threading
import time
from typing import ClassVar

import numpy as np
import pytest
from support import HANG, wait_until

import dosna as dn
from dosna import errors
from dosna.testing.timing import within

START = """
import os, sys, time, random, signal
import numpy as np
import dosna as dn
from dosna import errors
signal.signal(signal.SIGINT, signal.default_int_handler)  # where it was ignored at the start
con = dn.Connection(sys.argv[1], backend=sys.argv.pop(), engine="cpu")
con.connect()
"""


def finish(*processes):
    for process in processes:
        assert process.wait(HANG) == 0


def numbers(shape, dtype="f8"):
    return np.arange(int(np.prod(shape))).reshape(shape).astype(dtype)


def add_up(ds, mine, rounds):
    """Write to an element again and again; return how often it was not as written."""
    lost = 0
    for value in range(1, rounds + 1):
        ds[mine] = value
        lost += ds[mine] != value
    return lost


COUNTED = """
steps, last = 0, 0
def counted(function):
    def call(*args, **options):
        global steps
        found = function(*args, **options)
        steps += 1
        if steps == last:
            os._exit(1)
        return found
    return call
"""
"""Code that ends a process, as a kill would, at step `last` of the functions that are counted."""

HALVES = """
ds, half, rounds = con["x"], slice(*map(int, sys.argv[2:4])), int(sys.argv[4])
print("ready", flush=True)
sys.stdin.readline()
for n in range(1, rounds + 1):
    ds[half] = n
    assert (ds[half] == n).all(), n
"""


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


OVERWRITE = """
ds, n = con["x"], 0
first = int(sys.argv[2])
print("ready", flush=True)
while True:
    n += 1
    for i in range(first, first + 8):
        ds[i] = n
"""


class FolderFaults:
    """Damage, full disks, kills, and many writers; a subclass names its backend."""

    backend: ClassVar[str]
    maker: ClassVar[str | None] = None
    """The backend that makes datasets, if it is another."""
    options: ClassVar[dict] = {}
    left: ClassVar[set]
    """What a folder may hold without datasets."""

    @staticmethod
    def chunk_file(*idx):
        raise NotImplementedError

    @pytest.fixture
    def con(self, tmp_path):
        maker = self.maker or self.backend
        with dn.Connection(str(tmp_path), backend=maker, engine="cpu") as connection:
            yield connection

    @pytest.fixture
    def start(self, tmp_path):
        """Run code in another process, with a connection `con`; it may say when it is ready."""
        processes = []

        def run(code, *args):
            process = subprocess.Popen(
                [sys.executable, "-c", START + code, str(tmp_path), *map(str, args), self.backend],
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

    # A disk without room

    def test_a_write_that_fails_leaves_the_old_chunk_and_no_temporary(self, con, tmp_path, start):
        old = np.ones((4, 100_000))
        ds = con.create_dataset("x", data=old, chunk_size=(1, 100_000), **self.options)
        code = """
import resource
ds = con["x"]
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
for key in [..., (2, slice(5, 9))]:
    try:
        ds[key] = 2
        sys.exit("no error")
    except errors.StorageError as error:
        assert "cannot write" in str(error) and "'x'" in str(error), error
assert ds[2, 5] == 1
"""
        finish(start(code))
        assert np.array_equal(ds[...], old)
        assert list((tmp_path / "x").rglob("*.tmp")) == []
        ds[...] = 3
        assert np.all(ds[...] == 3)

    def test_a_description_that_cannot_be_read_is_an_error_of_dosna(self, con, tmp_path):
        ds = con.create_dataset("x", data=numbers(4), chunk_size=2, **self.options)
        description = tmp_path / "x" / con.instance.description
        description.unlink()
        description.symlink_to("/proc/self/mem")  # whose first page is an EIO
        for read in (lambda: con["x"], ds.refresh):
            with pytest.raises(errors.StorageError, match="read"):
                read()

    @pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(errno.EIO, "bad")])
    @pytest.mark.parametrize("step", [1, 2])
    def test_an_append_that_ends_as_the_disk_is_waited_for(self, con, monkeypatch, error, step):
        """Before and after the description gets its name."""
        ds = con.create_dataset("x", data=numbers(5), chunk_size=2, **self.options)
        left, fsync = [step], os.fsync

        def wait(file):
            fsync(file)
            left[0] -= 1
            if left[0] == 0:
                raise error

        monkeypatch.setattr(os, "fsync", wait)
        with pytest.raises((KeyboardInterrupt, errors.StorageError)):
            ds.append([7, 8])
        assert left[0] <= 0
        assert con["x"].shape == ds.shape == (5,)
        ds.append([7, 8])
        assert con["x"][:].tolist() == [0, 1, 2, 3, 4, 7, 8]

    def test_a_creation_that_runs_out_of_descriptors_leaves_nothing(self, con, tmp_path, start):
        code = """
import resource
con.create_dataset("g/x", (4,), "f8").delete()  # which imports what it needs
limit, failed = resource.getrlimit(resource.RLIMIT_NOFILE), 0
for left in range(30):
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, limit[1]))
    taken = []
    try:
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass
    for _ in range(left):
        os.close(taken.pop())
    try:
        con.create_dataset("g/x", (4,), "f8")
    except errors.StorageError:
        failed += 1
    for file in taken:
        os.close(file)
    resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert ("g/x" in con) == (failed <= left), left
    if "g/x" in con:
        break
assert 1 < failed < 30, failed
con.del_dataset("g/x")
"""
        finish(start(code))
        assert set(os.listdir(tmp_path)) <= self.left

    def test_ctrl_c_as_a_dataset_gets_its_name(self, con, tmp_path, monkeypatch):
        rename = os.rename

        def interrupted(before, after, **options):
            rename(before, after, **options)
            if str(after).endswith("/g/x"):
                monkeypatch.undo()
                raise KeyboardInterrupt

        monkeypatch.setattr(os, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt):
            con.create_dataset("g/x", (4,), "f8", **self.options)
        assert list(con) == []
        assert set(os.listdir(tmp_path)) <= self.left

    def test_waiting_for_a_lock_is_interrupted(self, con, tmp_path, start):
        ds = con.create_dataset("x", data=numbers((4,)), chunk_size=(2,), **self.options)
        code = """
ds = con["x"]
try:
    print("ready", flush=True)
    ds[0] = 1
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
        with ds.instance.exclusive():
            process = start(code)
            process.stdout.readline()
            time.sleep(0.1)
            with within(1):
                process.send_signal(signal.SIGINT)
                assert process.stdout.readline() == "interrupted\n"
        finish(process)
        ds[0] = 2

    def test_a_fork_neither_has_nor_keeps_the_locks_of_its_parent(self, con, tmp_path, start):
        con.create_dataset("x", data=np.zeros(4), chunk_size=(2,), **self.options)
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

    @pytest.mark.parametrize("checksum", [False, True], ids=["plain", "checked"])
    def test_two_processes_write_their_halves_of_one_chunk(self, con, checksum, start):
        rounds = 200 if checksum else 1000
        options = {**self.options, "checksum": checksum}
        ds = con.create_dataset("x", shape=(1000,), dtype="i4", chunk_size=(1000,), **options)
        writers = [start(HALVES, *half, rounds) for half in [(0, 500), (500, 1000)]]
        together(writers)
        finish(*writers)
        assert np.all(ds[...] == rounds)

    def test_four_processes_write_overlapping_parts(self, con, tmp_path, start):
        ds = con.create_dataset(
            "x", shape=(CHUNKS, LENGTH), dtype="i4", chunk_size=(1, LENGTH), **self.options
        )
        tests = os.path.dirname(__file__)
        code = f"""
sys.path.insert(0, {tests!r})
from faults import write_all
print("ready", flush=True)
sys.stdin.readline()
write_all(con["x"], int(sys.argv[2]))
"""
        writers = [start(code, n) for n in range(4)]
        together(writers)
        finish(*writers)
        assert explained(ds[...], 4)

    def test_four_threads_write_overlapping_parts(self, con):
        ds = con.create_dataset(
            "x", shape=(CHUNKS, LENGTH), dtype="i4", chunk_size=(1, LENGTH), **self.options
        )
        threads = [threading.Thread(target=write_all, args=(ds, n)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert explained(ds[...], 4)

    def test_resizing_while_another_process_writes(self, con, tmp_path, start):
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

    def test_deleting_while_another_process_writes(self, con, tmp_path, start):
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
            con.create_dataset("x", data=np.zeros((8, 8)), chunk_size=(2, 2), **self.options)
            writers = [start(code) for _ in range(2)]
            together(writers)
            time.sleep(0.02)
            con.del_dataset("x")
            finish(*writers)
            assert set(os.listdir(tmp_path)) <= self.left

    # Kills

    def test_killed_in_the_middle_of_overwrites(self, con, tmp_path, start):
        ds = con.create_dataset(
            "x", data=np.zeros((16, 30_000)), chunk_size=(1, 30_000), **self.options
        )
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
            wait_until(lambda before=before: ds[8, 0] != before)  # the other is not stuck
        with ds.instance.exclusive():  # the other may have that file open to write a chunk
            (tmp_path / "x" / (self.chunk_file(15, 0) + ".tmp")).write_bytes(b"of a dead writer")
        ds.flush()  # while the other writes
        assert other.poll() is None
        other.kill()
        other.wait()
        ds.flush()
        assert list((tmp_path / "x").rglob("*.tmp")) == []
        assert ds.verify().corrupt == ds.verify().missing == ()

    @pytest.mark.parametrize("ordered", ["yes", "no"])
    def test_killed_at_any_step_of_overwriting(self, con, tmp_path, start, ordered):
        """With a fork for each step, at which the child ends as by a kill."""
        ds = con.create_dataset("x", data=np.zeros(1000), chunk_size=(1000,), **self.options)
        code = """
import dosna.io.files as module
most = 0
kind = {"H5Connection": "hdf5", "FileConnection": "file"}[type(con.instance).__name__]
for last in range(1, 100):
    child = os.fork()
    if child == 0:
        with dn.Connection(
            sys.argv[1], backend=kind, engine="cpu", ordered=sys.argv[2] == "yes"
        ) as mine:
            ds = mine["x"]
            for name in ("open", "writev", "rename", "unlink"):
                setattr(os, name, counted(getattr(os, name)))
            module.exchange = counted(module.exchange)
            ds[...] = last
        os._exit(0)
    ended = os.waitpid(child, 0)[1] == 0
    found = con["x"][...]
    assert (found == found[0]).all() and (found[0] == last or not ended), (found, last)
    left = [n for _, _, names in os.walk(sys.argv[1]) for n in names if n.endswith(".tmp")]
    most = max(most, len(left))
    if ended:
        break
assert ended and last > 3 and most == 1 and not left, (last, most, left)
"""
        finish(start(COUNTED + code, ordered))
        ds.flush()
        assert list((tmp_path / "x").rglob("*.tmp")) == []

    def test_killed_inside_create_and_delete(self, con, tmp_path, start):
        code = """
print("ready", flush=True)
while True:
    con.create_dataset("a/x", data=np.ones((6, 6)), chunk_size=(2, 2))
    con.del_dataset("a/x")
"""
        rng = random.Random(0)
        found = set()
        for number in range(60):
            if number >= 12 and len(found) == 2:
                break
            victim = start(code)
            assert victim.stdout.readline() == "ready\n"
            # Longer, where a busy machine has not come to either yet.
            time.sleep(rng.uniform(0.001, 0.02 + number / 200))
            victim.kill()
            victim.wait()
            found.add("a/x" in con)
            if "a/x" in con:
                assert con["a/x"][...].shape == (6, 6)
                con.del_dataset("a/x")
            con.create_dataset("a/x", data=np.ones(3))
            assert np.all(con["a/x"][...] == 1)
            con.del_dataset("a/x")
            assert set(os.listdir(tmp_path)) <= self.left
        assert found == {True, False}

    @pytest.mark.parametrize("step", ["creating", "deleting"])
    def test_what_died_is_swept_by_who_connects_and_kept_from_who_only_reads(self, tmp_path, step):
        left = tmp_path / f".{step}-0123"
        left.mkdir()
        (left / "data").write_bytes(b"")
        with dn.Connection(str(tmp_path), backend=self.backend, mode="r") as con:
            assert list(con) == []
        assert left.exists()
        with dn.Connection(str(tmp_path), backend=self.backend) as con:
            assert list(con) == []
        assert not left.exists()

    def test_of_many_processes_that_create_one_wins(self, tmp_path, start):
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

    # Replacing

    def test_killed_at_any_step_of_replacing(self, con, tmp_path, start):
        """With a fork for each step, at which the child ends as by a kill."""
        con.create_dataset("a/x", data=np.zeros((6, 6)), chunk_size=(2, 2), **self.options)
        code = """
import dosna.backends.folders.exchange as module
kind = {"H5Connection": "hdf5", "FileConnection": "file"}[type(con.instance).__name__]
def replace(n):
    with dn.Connection(sys.argv[1], backend=kind) as mine:
        mine.ingest(np.full((6, 6), n, "f8"), "a/x", chunk_size=(2, 2), overwrite=True)
replace(-1.0)
for last in range(1, 200):
    child = os.fork()
    if child == 0:
        for name in ("rename", "unlink", "mkdir", "rmdir", "open"):
            setattr(os, name, counted(getattr(os, name)))
        module.exchange = counted(module.exchange)
        replace(float(last))
        os._exit(0)
    ended = os.waitpid(child, 0)[1] == 0
    assert list(con) == ["a/x"], list(con)
    ds = con["a/x"]
    found = ds[...]
    assert not ds.incomplete and found.shape == (6, 6) and (found == found[0, 0]).all()
    assert found[0, 0] == last or not ended
    if ended:
        break
assert ended and last > 20, last
"""
        finish(start(COUNTED + code))
        with dn.Connection(str(tmp_path), backend=self.backend):
            assert set(os.listdir(tmp_path)) <= {*self.left, "a"}

    def test_killed_while_replacing(self, con, tmp_path, start):
        con.create_dataset("a/x", data=np.zeros((6, 6)), chunk_size=(2, 2), **self.options)
        code = """
n = int(sys.argv[2])
while True:
    n += 1
    con.ingest(np.full((6, 6), n, "f8"), "a/x", chunk_size=(2, 2), overwrite=True)
    print("ready", flush=True)
"""
        rng = random.Random(0)
        seen = 0
        for _ in range(4):
            victim = start(code, int(seen))
            assert victim.stdout.readline() == "ready\n"
            time.sleep(rng.uniform(0, 0.05))
            victim.kill()
            victim.wait()
            assert list(con) == ["a/x"]
            ds = con["a/x"]
            found = ds[...]
            assert not ds.incomplete
            assert found.shape == (6, 6)
            assert np.all(found == found[0, 0])
            assert found[0, 0] > seen
            seen = found[0, 0]
        with dn.Connection(str(tmp_path), backend=self.backend):
            assert set(os.listdir(tmp_path)) <= {*self.left, "a"}

    def test_a_full_disk_leaves_what_was_to_be_replaced(self, con, tmp_path, start):
        data = np.ones((4, 1000))
        con.create_dataset("x", data=data, chunk_size=(1, 1000), **self.options)
        code = """
import resource
con["x"]
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
try:
    con.ingest(np.full((2, 100_000), 2.0), "x", chunk_size=(1, 100_000), overwrite=True)
    sys.exit("no error")
except errors.StorageError as error:
    assert "'x'" in str(error) and ".replacing" not in str(error), error
"""
        finish(start(code))
        assert list(con) == ["x"]
        assert np.array_equal(con["x"][...], data)
        assert set(os.listdir(tmp_path)) <= {*self.left, "x"}

    def test_what_the_living_replace_is_not_swept(self, con, tmp_path, start):
        code = """
def wait(done, total):
    print("ready", flush=True)
    sys.stdin.readline()
con.ingest(np.full((6, 6), 2.0), "x", chunk_size=(2, 2), overwrite=True, progress=wait)
"""
        con.create_dataset("x", data=np.ones((6, 6)), chunk_size=(2, 2), **self.options)
        other = start(code)
        assert other.stdout.readline() == "ready\n"
        for _ in range(2):
            with dn.Connection(str(tmp_path), backend=self.backend) as second:
                second.create_dataset("y", data=[1])
                second.del_dataset("y")
                assert np.all(second["x"][...] == 1)
        other.stdin.write("go\n" * 100)
        other.stdin.close()
        other.stdin = open(os.devnull)  # noqa: SIM115  closed by the fixture
        other.stdout.read()
        finish(other)
        assert np.all(con["x"][...] == 2)

    @pytest.mark.parametrize("step", [1, 2, 3])
    def test_killed_while_replacing_in_two_steps(self, con, tmp_path, start, step):
        """On a file system that cannot exchange two names, as NFS cannot."""
        con.create_dataset("a/x", data=np.ones((6, 6)), chunk_size=(2, 2), **self.options)
        code = """
import dosna.backends.folders.exchange as module
module.exchange = lambda one, other: False
step, rename = int(sys.argv[2]), os.rename
def counting(source, target, **options):
    global step
    rename(source, target, **options)
    if options == {} and "/.replacing-" in source + target and "/.creating-" not in source:
        step -= 1
        if step == 0:
            os._exit(0)
os.rename = counting
con.ingest(np.full((6, 6), 2.0), "a/x", chunk_size=(2, 2), overwrite=True)
sys.exit("nothing was renamed")
"""
        finish(start(code, step))
        with dn.Connection(str(tmp_path), backend=self.backend) as second:
            assert list(second) == ["a/x"]
            assert np.all(second["a/x"][...] == 2)
            assert set(os.listdir(tmp_path)) <= {*self.left, "a"}

    def test_replacing_in_two_steps(self, con, tmp_path, monkeypatch):
        monkeypatch.setattr("dosna.backends.folders.exchange.exchange", lambda one, other: False)
        ds = con.create_dataset("x", data=np.ones((6, 6)), chunk_size=(2, 2), **self.options)
        con.ingest(np.full((6, 6), 2.0), "x", chunk_size=(2, 2), overwrite=True)
        assert np.all(con["x"][...] == 2)
        with pytest.raises(errors.StaleDatasetError):
            ds[...]
        assert set(os.listdir(tmp_path)) <= {*self.left, "x"}
