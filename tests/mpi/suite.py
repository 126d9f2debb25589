"""The mpi engine, on as many ranks as it is started with: each test is run by all of them.

``mpiexec -n 3 sh run_tests.sh`` runs it; `tests/engines/test_mpi.py` does so for several numbers.
"""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import WORLD
from mpi4py import MPI

import dosna as dn
from dosna import errors
from dosna.backends import Backend
from dosna.backends.hdf5.connection import H5Connection, H5Dataset

RANK, SIZE = WORLD.rank, WORLD.size
SHAPE, CHUNKS = (11, 10, 7), (4, 3, 5)
several = pytest.mark.several


def volume(dtype="f4"):
    return (np.random.default_rng(3).random(SHAPE) * 100).astype(dtype)


def same(value):
    """Assert that all ranks have the same value, and give it."""
    values = WORLD.allgather(value)
    assert all(repr(v) == repr(values[0]) for v in values), values
    return value


def raises_everywhere(kind, call, match):
    """Assert that all ranks raise the same, and give what each has to say of it."""
    with pytest.raises(kind, match=match) as caught:
        call()
    return WORLD.allgather(f"{caught.value} {getattr(caught.value, '__notes__', '')}")


def check(ds, expected):
    """Assert that each rank by itself reads this."""
    found = ds[...]
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    WORLD.Barrier()


@pytest.fixture
def ds(con, name):
    return con.create_dataset(name, data=volume(), chunk_size=CHUNKS, fillvalue=-1)


@pytest.fixture
def beside(folder):
    """Give a folder of all ranks that is not the connection's."""
    where = Path(f"{folder}-beside")
    if RANK == 0:
        where.mkdir()
    WORLD.Barrier()
    return where


@pytest.fixture
def alone():
    """Give the same dataset under engine cpu, in memory."""
    with dn.Connection(f"alone-{RANK}", backend="ram", engine="cpu") as con:
        yield con.create_dataset("a", data=volume(), chunk_size=CHUNKS, fillvalue=-1)
        for made in list(con):
            con.del_dataset(made)


# -- results equal cpu's ------------------------------------------------------------------


def test_connections_and_datasets_tell_of_the_ranks(con, ds):
    for it in (con, ds):
        assert (it.mpi_rank, it.mpi_size, it.mpi_is_root) == (RANK, SIZE, RANK == 0)
        assert it.mpi_comm == MPI.COMM_WORLD
        it.mpi_barrier()


def test_barrier_waits_for_the_last(con):
    WORLD.Barrier()
    begin = time.monotonic()
    if RANK == SIZE - 1:
        time.sleep(0.1)
    con.mpi_barrier()
    assert time.monotonic() - begin > 0.09


def test_load_and_read(con, ds):
    check(ds, volume())
    assert same(len(ds.written_chunks())) == ds.total_chunks
    assert (ds[2:9, ::-2, 3] == volume()[2:9, ::-2, 3]).all()
    ds.load(volume() * 2)
    check(con[ds.name], volume() * 2)


@pytest.mark.parametrize("dtype", [None, "f8"])
def test_map(con, ds, alone, name, dtype):
    expected = alone.map(np.sqrt, "b", dtype)
    check(ds.map(np.sqrt, name + "-b", dtype), expected[...])
    check(con[name + "-b"], expected[...])


@pytest.mark.parametrize("mode", ["reflect", "mirror", "nearest", "wrap", "constant"])
def test_map_with_halo(ds, alone, name, mode):
    halo, kw = (5, 2, 0), {"boundary": mode, "cval": 3}

    def blur(block):
        return np.roll(block, 2, 0) + np.roll(block, -5, 0) / 3 + np.roll(block, 1, 1)

    check(ds.map(blur, name + "-b", halo=halo, **kw), alone.map(blur, "b", halo=halo, **kw)[...])


def test_apply(ds, alone):
    for it in (ds, alone):
        it.apply(lambda block: block * 3 - 1)
    check(ds, alone[...])


def test_reductions_are_equal_to_the_last_bit(ds, alone):
    for op in ("sum", "mean", "min", "max"):
        found = same(ds.reduce(op))
        assert (found.dtype, found) == (alone.dtype, alone.reduce(op))


def test_clone_copy_and_clear(connect, con, ds, name):
    ds.attrs["unit"] = "mm"
    empty = ds.clone(name + "-b")
    full = ds.clone(name + "-c", data=True)
    check(empty, np.full(SHAPE, -1, "f4"))
    check(full, volume())
    with connect() as other:
        copied = ds.copy(other, name + "-d", chunk_size=(6, 6, 6))
        check(copied, volume())
        for it in (empty, full, copied):
            assert dict(it.attrs) == {"unit": "mm"}
    full.clear()
    assert same(full.written_chunks()) == []
    check(full, np.full(SHAPE, -1, "f4"))
    full.delete()
    assert name + "-c" not in con


def test_resize_and_append(con, ds, alone, name):
    other = con[name]
    for it in (ds, alone):
        it.resize((8, 12, 7))
        it.append(np.full((8, 12, 2), 5, "f4"), axis=2)
        it.resize((9, 9, 9))
        it.append(np.arange(81).reshape(1, 9, 9))
    assert same(ds.shape) == (10, 9, 9)
    check(ds, alone[...])
    other.refresh()
    check(other, alone[...])


def test_attributes_are_seen_by_all(con, ds):
    ds.attrs["n"] = np.arange(3)
    ds.attrs.update(a=1, b="two")
    del ds.attrs["a"]
    for it in (ds, con[ds.name]):
        assert same(sorted(it.attrs)) == ["b", "n"]
        assert it.attrs["n"].tolist() == [0, 1, 2]
    assert same(ds.attrs.pop("b")) == "two"
    raises_everywhere(KeyError, lambda: ds.attrs.__delitem__("b"), "b")
    raises_everywhere(TypeError, lambda: ds.attrs.update(x=object()), "object")


def test_create_chunk(con, name):
    ds = con.create_dataset(name, (5, 5), "i4", chunk_size=(3, 3))
    assert ds.create_chunk((0, 1), 7).idx == (0, 1)
    assert same(ds.written_chunks()) == [(0, 1)]
    raises_everywhere(errors.ChunkExistsError, lambda: ds.create_chunk((0, 1)), "written")
    raises_everywhere(errors.ChunkIndexError, lambda: ds.create_chunk((2, 0)), "grid")


def test_require_dataset(con, name):
    ds = con.require_dataset(name, (4,), "i4")
    assert con.require_dataset(name, (4,), "i4").shape == ds.shape
    raises_everywhere(TypeError, lambda: con.require_dataset(name, (5,)), "shape")


def test_a_dtype_may_be_spelt_in_two_ways(con, name):
    dtype = np.dtype("i4").newbyteorder("<") if RANK else np.dtype("i4")
    assert same(str(con.create_dataset(name, (3,), dtype).dtype)) == "int32"


def test_sources_of_other_kinds(con, ds, name, folder):
    path = folder / "in.h5"
    if RANK == 0:
        with h5py.File(path, "w") as file:
            file["data"] = volume()
        np.save(folder / "in.npy", volume())
    WORLD.Barrier()
    mapped = np.load(folder / "in.npy", mmap_mode="r")
    with h5py.File(path, "r") as file:
        for number, source in enumerate([file["data"], mapped, ds]):
            made = con.create_dataset(f"{name}-{number}", data=source, chunk_size=(5, 4, 7))
            check(made, volume())


# -- shares of every size -----------------------------------------------------------------


def test_more_ranks_than_chunks(con, name):
    data = np.arange(4.0)
    ds = con.create_dataset(name, data=data, chunk_size=4)
    check(ds.map(np.sqrt, name + "-b"), np.sqrt(data))
    check(ds.map(np.cumsum, name + "-c", halo=2), np.cumsum([1, 0, 0, 1, 2, 3, 3, 2])[2:6] * 1.0)
    assert same(ds.sum()) == 6
    ds.apply(np.negative)
    ds.clear()
    assert same(ds.sum()) == 0


def test_no_chunks_at_all(con, name):
    ds = con.create_dataset(name, (0, 3), "f4")
    check(ds.map(np.sqrt, name + "-b", halo=1), np.empty((0, 3), "f4"))
    assert same(ds.sum()) == 0
    ds.clear()
    scalar = con.create_dataset(name + "-c", data=np.float64(3))
    assert same(scalar.map(np.square, name + "-d")[()]) == 9


def test_unequal_work(con, ds, name):
    def slow(block):
        time.sleep(0.01 if RANK else 0)
        return block + 1

    check(ds.map(slow, name + "-b"), volume() + 1)


def test_every_rank_takes_its_share(con, ds, name):
    ran = []
    ds.map(lambda block: ran.append(1) or block, name + "-b", dtype="f4")
    counts = WORLD.allgather(len(ran))
    assert sum(counts) == ds.total_chunks == 24
    assert max(counts) - min(counts) <= 1


# -- local calls --------------------------------------------------------------------------


def test_one_rank_alone_may_read_and_write(connect, ds, name):
    if RANK == SIZE - 1:
        with connect() as con:
            mine = con[name]
            assert name in con
            assert name + "-no" not in con
            assert (mine[...] == volume()).all()
            assert mine.get_chunk((0, 0, 0)).get_data().shape == CHUNKS
            mine[3:5, :, 2] = 8
            assert mine.del_chunk((0, 0, 0))
            assert not mine.has_chunk((0, 0, 0))
            mine.flush()
            with pytest.raises(errors.DatasetNotFoundError):
                con[name + "-no"]
    WORLD.Barrier()
    expected = volume()
    expected[3:5, :, 2] = 8
    expected[:4, :3, :5] = -1
    check(ds, expected)


def test_parts_of_one_chunk_are_not_lost(con, name):
    ds = con.create_dataset(name, (SIZE, 8), "i4", chunk_size=(SIZE, 8))
    for number in range(1, 151):
        ds[RANK] = number
        if number % 50 == 0:
            WORLD.Barrier()
            assert ds[...].tolist() == [[number] * 8] * SIZE, number
            WORLD.Barrier()


# -- errors -------------------------------------------------------------------------------


class Picky(Exception):
    """Cannot be made again from its arguments."""

    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")


class Mute(Exception):
    """Fails to tell its text."""

    def __str__(self):
        raise ValueError("no text")


def test_an_error_without_a_text_fails_on_all(ds):
    def fail(block):
        if RANK == SIZE - 1:
            raise Mute
        return block

    with pytest.raises((Mute, errors.WorkerError)):
        ds.apply(fail)
    check(ds, volume())


@pytest.mark.parametrize("kind", ["plain", "unpicklable", "exit"])
@pytest.mark.parametrize("whose", [0, -1])
def test_what_fails_on_one_rank_fails_on_all(con, ds, name, kind, whose):
    failing = range(SIZE)[whose]

    class Local(Exception):
        pass

    def fail(block):
        if failing == RANK:
            if kind == "plain":
                raise ZeroDivisionError("bad block")
            if kind == "exit":
                raise SystemExit("bad block")
            raise (Local if block[0, 0, 0] < 50 else partial(Picky, "bad block"))("bad block")
        return block

    kinds = {"plain": ZeroDivisionError, "exit": SystemExit, "unpicklable": Exception}
    texts = raises_everywhere(kinds[kind], lambda: ds.map(fail, name + "-b", "f4"), "bad block")
    assert all("bad block" in text for text in texts)
    if SIZE > 1:
        others = [text for rank, text in enumerate(texts) if rank != failing]
        assert all(f"On rank {failing} of {SIZE}" in text for text in others)
        assert all("in fail" in text for text in others)
    assert same(name + "-b" in con) is False
    raises_everywhere(kinds[kind], lambda: ds.apply(fail), "bad block")
    check(ds.map(np.abs, name + "-b"), volume())


def test_an_error_of_the_first_chunk_is_everybodys(con, ds, name):
    def fail(block):
        raise ValueError("not this one")

    raises_everywhere(ValueError, lambda: ds.map(fail, name + "-b"), "not this one")
    raises_everywhere(ValueError, lambda: ds.map(lambda b: b[0], name + "-b"), "shape")
    raises_everywhere(TypeError, lambda: ds.apply(lambda b: b * 1j), "complex")
    assert same(name + "-b" in con) is False


def test_existing_and_missing_datasets(con, ds, name):
    raises_everywhere(errors.DatasetExistsError, lambda: con.create_dataset(name, (3,)), "exists")
    raises_everywhere(errors.DatasetExistsError, lambda: ds.clone(name), "exists")
    raises_everywhere(errors.DatasetExistsError, lambda: ds.map(np.abs, name), "exists")
    raises_everywhere(errors.DatasetNotFoundError, lambda: con.del_dataset(name + "-no"), "no")
    raises_everywhere(errors.DatasetNotFoundError, lambda: con[name + "-no"], "no")
    raises_everywhere(errors.DatasetNameError, lambda: con.create_dataset("a//b", (3,)), "a//b")
    raises_everywhere(TypeError, lambda: con.create_dataset(name, (3,), colour=1), "colour")
    check(ds, volume())


def test_read_only(connect, ds, name):
    with connect(mode="r") as con:
        mine = con[name]
        uses = [
            lambda: con.create_dataset(name + "-b", (3,)),
            lambda: con.del_dataset(name),
            lambda: mine.load(volume()),
            lambda: mine.apply(np.abs),
            lambda: mine.resize((1, 1, 1)),
            lambda: mine.attrs.update(a=1),
        ]
        for use in uses:
            raises_everywhere(errors.ReadOnlyError, use, "mode")
        assert same(mine.sum()) == ds.sum()
    raises_everywhere(errors.NotConnectedError, lambda: mine.sum(), "not connected")


@several
def test_equal_arguments_may_be_spelt_differently(con, ds, name, beside):
    odd = RANK == SIZE - 1
    made = con.create_dataset(name + "-b", (3,), np.float32, fillvalue=np.float32(2))
    assert made.dtype == np.dtype("f4")
    records = [("id", np.int32), ("energy", np.float64)]
    assert con.create_dataset(name + "-r", (3,), records).dtype == np.dtype(records)
    assert con.require_dataset(name + "-b", (3,), np.float32).shape == (3,)
    check(ds.map(np.sqrt, name + "-m", dtype=np.float64), np.sqrt(volume()).astype("f8"))
    made.apply(np.float32)
    check(made, np.full(3, 2, "f4"))
    attrs = {"b": 2, "a": [1]} if odd else {"a": [1], "b": 2}
    made.attrs.update(attrs)
    made.attrs["set"] = sorted({"x", "y"})
    assert dict(made.attrs) == {"a": [1], "b": 2, "set": ["x", "y"]}
    if RANK == 0:
        np.save(beside / "a.npy", np.arange(4))
    con.mpi_barrier()
    assert con.ingest(beside / "a.npy", name + "-i").made == [name + "-i"]
    by = 3
    check(con[name + "-i"].map(lambda b: b + by, name + "-j"), np.arange(4) + 3)


@several
def test_paths_of_each_rank_are_refused_everywhere(con, name, beside, monkeypatch):
    (beside / f"{RANK}").mkdir()
    path = beside / f"{RANK}" / "a.npy"
    np.save(path, np.full(8, RANK))
    os.utime(path, ns=(1, 1))
    for mine in (path, str(path)):
        raises_everywhere(errors.CollectiveError, lambda m=mine: con.ingest(m, name), "rank 0")
    monkeypatch.chdir(beside / f"{RANK}")
    raises_everywhere(errors.CollectiveError, lambda: con.ingest(Path("a.npy"), name), "rank 0")
    assert same(name in con) is False


@several
def test_different_arguments_are_refused_everywhere(con, ds, name):
    odd = RANK == SIZE - 1
    random = np.random.default_rng(RANK).random(SHAPE)
    uses = [
        lambda: con.create_dataset(name + "-b", (3 + odd,)),
        lambda: con.create_dataset(f"{name}-{odd}", (3,)),
        lambda: con.create_dataset(name + "-b", (3,), fillvalue=np.float32(odd)),
        lambda: con.create_dataset(name + "-b", data=random),
        lambda: ds.load(random),
        lambda: ds.load(np.broadcast_to(random[:, :, :1], SHAPE)),
        lambda: ds.map(np.sqrt if odd else np.abs, name + "-b"),
        lambda: ds.map((lambda b: b) if odd else (lambda b: b + 1), name + "-b"),
        lambda: ds.map(partial(np.add, float(odd)), name + "-b"),
        lambda: ds.map(lambda b: b + odd, name + "-b"),
        lambda: ds.map(lambda b, by=float(odd): b + by, name + "-b"),
        lambda: con.create_dataset(name + "-b", (3,), np.float32 if odd else np.float64),
        lambda: con.ingest(Path(f"/nowhere/{odd}.npy"), name + "-b"),
        lambda: con.export(Path(f"/nowhere/{odd}.npy"), select={name, f"{odd}"}),
        lambda: ds.map(np.abs, name + "-b", halo=1 + odd),
        lambda: ds.apply(np.abs, memory_limit="1M" if odd else None),
        lambda: ds.resize((4, 4, 4 + odd)),
        lambda: ds.append(np.full((1, *SHAPE[1:]), float(odd))),
        lambda: ds.attrs.__setitem__("a", odd),
        lambda: ds.attrs.update(a=[odd]),
        lambda: ds.reduce("min" if odd else "max"),
        lambda: ds.create_chunk((0, 0, int(odd))),
    ]
    for use in uses:
        raises_everywhere(errors.CollectiveError, use, f"rank {SIZE - 1}: ")
    assert dict(ds.attrs) == {}
    assert same(sorted(n for n in con if n.startswith(name))) == [name]
    check(ds, volume())


@several
def test_different_calls_are_refused_everywhere(con, ds):
    texts = raises_everywhere(
        errors.CollectiveError, ds.clear if RANK else ds.sum, "rank 0: reduce"
    )
    assert "rank 1: clear" in texts[0]
    raises_everywhere(errors.CollectiveError, con.mpi_barrier if RANK else ds.clear, "barrier")
    check(ds, volume())


@several
def test_a_collective_call_within_the_work_is_refused(con, ds, name):
    raises_everywhere(
        errors.CollectiveError, lambda: ds.map(lambda b: b * ds.sum(), name + "-b", "f4"), "reduce"
    )
    raises_everywhere(
        errors.CollectiveError, lambda: ds.map(lambda b: b * ds.sum(), name + "-b"), "within map"
    )
    check(ds.map(lambda b: b - ds[0, 0, 0], name + "-b"), volume() - volume()[0, 0, 0])


def test_progress_is_shown_by_the_root_and_its_errors_are_everybodys(ds):
    told = []
    ds.apply(np.abs, progress=(lambda *done: told.append(done)) if RANK == 0 else None)
    assert bool(told) == (RANK == 0)
    if RANK == 0:
        assert told[0] == (0, 24)
        assert told[-1] == (24, 24)
        assert told == sorted(told)

    def fail_at(when, done, total):
        if done >= when:  # Several chunks may be told of at once.
            raise ZeroDivisionError(f"told {done}")

    for when in (0, SIZE, 24):
        raises_everywhere(
            ZeroDivisionError,
            lambda w=when: ds.apply(np.abs, progress=partial(fail_at, w)),
            "told",
        )
    raises_everywhere(TypeError, lambda: ds.clear(progress=3), "progress")
    check(ds, volume())


class FullDisk(H5Dataset):
    """Fails to write one chunk."""

    def set_chunk_data(self, idx, values, slices=None):
        if idx == (2, 3, 1):
            raise errors.StorageError("the disk is full")
        super().set_chunk_data(idx, values, slices)

    def write_many(self, values, tasks):
        for task in tasks:
            self.set_chunk_data(task.idx, values[task.out])


class FullDiskConnection(H5Connection):
    """Whose datasets fail, some to be created."""

    def create_dataset(self, name, metadata, *, compression=None, checksum=False, virtual=None):
        if name.endswith("-no"):
            raise errors.StorageError("no space for it")
        return super().create_dataset(name, metadata)

    def get_dataset(self, name):
        return FullDisk(self, name)


def test_a_failing_store(folder):
    dn.backends.registry.register(Backend("full-disk", FullDiskConnection))
    with dn.Connection(str(folder), backend="full-disk") as con:
        raises_everywhere(
            errors.StorageError, lambda: con.create_dataset("a-no", (3,)), "no space"
        )
        raises_everywhere(
            errors.StorageError,
            lambda: con.create_dataset("a", data=volume(), chunk_size=CHUNKS),
            "disk is full",
        )
        assert same(list(con)) == []
        ds = con.create_dataset("a", SHAPE, "f4", chunk_size=CHUNKS)
        with dn.Connection(str(folder), backend="hdf5", engine="cpu") as healthy:
            if RANK == 0:
                healthy["a"][...] = 1  # only what is stored is cloned
        con.mpi_barrier()
        for use in (
            lambda: ds.load(volume()),
            lambda: ds.apply(np.cos),
            lambda: ds.map(np.cos, "b"),
            lambda: ds.clone("b", data=True),
        ):
            raises_everywhere(errors.StorageError, use, "disk is full")
        assert same(list(con)) == ["a"]


# -- where and with whom ------------------------------------------------------------------


def test_working_directories(folder, monkeypatch):
    own = folder / f"of-{RANK}" / "store"
    own.mkdir(parents=True)
    monkeypatch.chdir(own.parent)
    with dn.Connection("store", backend="hdf5") as con:
        if SIZE > 1:
            raises_everywhere(
                errors.CollectiveError, lambda: con.create_dataset("a", (3,)), "of-0.*\n.*of-1"
            )
        assert os.listdir(own) == []
    with dn.Connection(str(folder), backend="hdf5") as con:
        ds = con.create_dataset("a", data=volume(), chunk_size=CHUNKS)
        check(ds.map(np.sqrt, "b"), np.sqrt(volume()))


def test_ram_is_for_one_rank():
    if SIZE == 1:
        with dn.Connection("r", backend="ram") as con:
            assert con.create_dataset("a", data=volume()).sum() > 0
            con.del_dataset("a")
    else:
        raises_everywhere(
            errors.IncompatibleError, lambda: dn.Connection("r", backend="ram"), "'ram'"
        )
    assert dn.compatible("mpi", "ram") == (SIZE == 1)
    assert dn.compatible("mpi", "hdf5")


def test_messages_of_the_program_do_not_meet_ours(ds, name):
    comm = ds.mpi_comm
    box = np.zeros(1, "i8")
    waiting = comm.Irecv(box, source=MPI.ANY_SOURCE, tag=MPI.ANY_TAG)
    check(ds.map(np.sqrt, name + "-b"), np.sqrt(volume()))
    ds.attrs["a"] = 1
    untouched = WORLD.allgather(not waiting.Test())
    comm.Send(np.array([RANK]), dest=(RANK + 1) % SIZE, tag=5)
    waiting.Wait()
    assert all(untouched)
    assert box[0] == (RANK - 1) % SIZE


def test_groups_of_ranks_work_apart(folder):
    comm = MPI.COMM_WORLD.Split(RANK % 2)
    path = folder / f"group-{RANK % 2}"
    path.mkdir(exist_ok=True)
    with dn.Connection(str(path), backend="hdf5", comm=comm) as con:
        assert (con.mpi_size, con.mpi_rank) == (comm.size, comm.rank)
        for number in range(1 + RANK % 2 * 2):
            ds = con.create_dataset(f"a{number}", data=volume() + number, chunk_size=CHUNKS)
        assert ds.mpi_comm == comm
        assert ds.sum() == pytest.approx(volume().sum() + (RANK % 2 * 2) * volume().size)
    WORLD.Barrier()
    assert same(len(os.listdir(folder / "group-0"))) == 1 + path.joinpath(".lock").exists()
    comm.Free()


@several
def test_a_copy_goes_to_the_same_ranks(ds, folder):
    for kw in ({"engine": "cpu"}, {"comm": MPI.COMM_SELF}):
        with dn.Connection(str(folder), backend="hdf5", **kw) as other:
            raises_everywhere(
                errors.ConfigurationError,
                lambda o=other: ds.copy(o, "copied"),
                "same communicator",
            )
    with dn.Connection(f"own-{RANK}", backend="ram", engine="cpu") as own:
        check(own.create_dataset("copied", data=ds), volume())
        own.del_dataset("copied")


def test_what_mpi_does_not_take():
    for key, value in (("comm", 3), ("collective_timeout", 0), ("collective_timeout", -1)):
        with pytest.raises(errors.ConfigurationError, match=key):
            dn.use("mpi", engine_kw={key: value})
    with pytest.raises(errors.ConfigurationError, match="COMM_NULL"):
        dn.use("mpi", engine_kw={"comm": MPI.COMM_NULL})


@several
def test_a_communicator_that_was_freed(folder):
    comm = WORLD.Dup()
    with dn.Connection(str(folder), backend="hdf5", comm=comm) as con:
        comm.Free()
        raises_everywhere(
            errors.ConfigurationError, lambda: con.create_dataset("a", (3,)), "freed"
        )


@several
def test_an_intercommunicator_is_refused():
    half = WORLD.Split(RANK % 2)
    between = half.Create_intercomm(0, WORLD, 1 - RANK % 2)
    with pytest.raises(errors.ConfigurationError, match="intercommunicator"):
        dn.use("mpi", engine_kw={"comm": between})
    between.Free()
    half.Free()
