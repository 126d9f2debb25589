"""Conformance of simultaneous writers: threads and processes on one chunk."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import dosna as dn
from dosna import errors
from dosna.testing.base import Kit, MakeConnection
from dosna.testing.samples import check

HANG = 250
"""The seconds after which something that takes a few on a quiet machine hangs on any."""
ROUNDS = 60
WIDTH = 8
"""The number of elements of a chunk that each writer has to itself."""


def write_rounds(ds: dn.Dataset, number: int, rounds: int) -> list[int]:
    """Write a writer's own elements of chunk 0 again and again; return the lost rounds."""
    mine = slice(number * WIDTH, (number + 1) * WIDTH)
    lost = []
    for value in range(1, rounds + 1):
        if value % 2:
            ds[mine] = value
        else:
            ds[list(range(mine.start, mine.stop))] = value
        if not np.all(ds[mine] == value):
            lost.append(value)
    return lost


def write_all(ds: dn.Dataset, number: int, rounds: int) -> list[int]:
    """Write the whole chunk again and again; return the rounds that read two writes mixed."""
    mixed = []
    for value in range(number * rounds, (number + 1) * rounds):
        ds[:] = value
        if len(set(ds[:].tolist())) != 1:
            mixed.append(value)
    return mixed


class SharingTests(Kit):
    """Tests of several writers and readers of one chunk."""

    def test_threads_lose_nothing(self, make_connection: MakeConnection, name: str) -> None:
        with make_connection() as con, make_connection() as second:
            ds = self.create(con, name, 4 * WIDTH, "i8", chunk_size=4 * WIDTH)
            if ds.guarantees.partial_writes == "none":
                pytest.skip("the store promises nothing to several writers")
            handles = [ds, ds, con[name], second[name]]
            with ThreadPoolExecutor(4) as pool:
                lost = list(pool.map(write_rounds, handles, range(4), [ROUNDS] * 4))
            assert lost == [[], [], [], []]
            check(ds[:], np.full(4 * WIDTH, ROUNDS))

    def test_threads_see_chunks_whole(self, make_connection: MakeConnection, name: str) -> None:
        with make_connection() as con, make_connection() as second:
            ds = self.create(con, name, 4096, "i8", chunk_size=4096)
            if not ds.guarantees.atomic_chunks:
                pytest.skip("the store does not promise to show chunks whole")
            with ThreadPoolExecutor(2) as pool:
                mixed = pool.map(write_all, [ds, second[name]], range(2), [ROUNDS] * 2)
                assert list(mixed) == [[], []]

    def test_processes_lose_nothing(self, make_connection: MakeConnection, name: str) -> None:
        with make_connection() as con:
            ds = self.create(con, name, 4 * WIDTH, "i8", chunk_size=4 * WIDTH)
            if ds.guarantees.partial_writes != "processes":
                pytest.skip("the store promises nothing to several processes")
            spawn = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(2, mp_context=spawn) as pool:
                lost = [pool.submit(write_rounds, ds, n, ROUNDS) for n in (0, 1)]
                own = [write_rounds(ds, 2, ROUNDS), *(f.result(HANG) for f in lost)]
                # That no writes mix is a separate guarantee, and the processes are there already.
                if ds.guarantees.atomic_chunks:
                    both = [pool.submit(write_all, ds, n, ROUNDS) for n in (0, 1)]
                    own += [f.result(HANG) for f in both]
            assert not any(own)

    def test_one_of_many_creates(self, make_connection: MakeConnection, name: str) -> None:
        start = threading.Barrier(4)

        def create(con: dn.Connection, number: int) -> int | None:
            start.wait(HANG)
            try:
                self.create(con, name, (number + 1,))
            except errors.DatasetExistsError:
                return None
            return number

        connections = [make_connection() for _ in range(4)]
        for con in connections:
            con.connect()
        with ThreadPoolExecutor(4) as pool:
            made = [n for n in pool.map(create, connections, range(4)) if n is not None]
        assert len(made) == 1
        assert connections[3][name].shape == (made[0] + 1,)
        for con in connections:
            con.disconnect()

    def test_attributes_set_by_many_are_all_kept(
        self, make_connection: MakeConnection, name: str
    ) -> None:
        with make_connection() as con, make_connection() as second:
            ds = self.create(con, name, (2,))

            def write(handle: dn.Dataset, number: int) -> None:
                for value in range(10):
                    handle.attrs[f"writer-{number}"] = value

            with ThreadPoolExecutor(3) as pool:
                list(pool.map(write, [ds, con[name], second[name]], range(3)))
            assert dict(con[name].attrs) == {f"writer-{n}": 9 for n in range(3)}

    def test_a_handle_sees_a_resize_when_it_refreshes(
        self, make_connection: MakeConnection, name: str
    ) -> None:
        with make_connection() as con, make_connection() as second:
            ds = self.create(con, name, data=np.arange(10), chunk_size=4)
            other: Any = second[name]
            ds.resize(3)
            other.refresh()
            check(other[...], np.arange(3))
            ds.resize(6)
            other.refresh()
            check(other[...], np.array([0, 1, 2, 0, 0, 0]))
            ds.attrs["unit"] = "mm"
            other.refresh()
            assert other.attrs["unit"] == "mm"

    @pytest.mark.parametrize("dtype", ["<f4", "<i4", ">f4", "<f8"])
    def test_a_handle_never_works_on_another_dataset_of_its_name(
        self, make_connection: MakeConnection, name: str, dtype: str
    ) -> None:
        """Check handles after a dataset was deleted and made again.

        The new one may have another dtype of the same size.
        """
        with make_connection() as con, make_connection() as second:
            ds = self.create(con, name, data=np.arange(20, dtype="<f4"), chunk_size=10)
            check(ds[...], np.arange(20, dtype="<f4"))
            second.del_dataset(name)
            anew = np.arange(100, 120, dtype=dtype)
            self.create(second, name, data=anew, chunk_size=10)
            for use in _uses(ds):
                with pytest.raises(errors.StaleDatasetError):
                    use()
            check(second[name][...], anew)
            with pytest.raises((errors.StaleDatasetError, errors.DatasetNotFoundError)):
                ds.delete()
            check(second[name][...], anew)
            second.del_dataset(name)
            for use in _uses(ds):
                with pytest.raises((errors.StaleDatasetError, errors.DatasetNotFoundError)):
                    use()

    def test_attributes_that_are_read_are_those_of_the_handle(
        self, make_connection: MakeConnection, name: str
    ) -> None:
        with make_connection() as con, make_connection() as second:
            ds = self.create(con, name, data=np.arange(5), attrs={"unit": "mm"})
            second.del_dataset(name)
            self.create(second, name, data=np.arange(5), attrs={"unit": "K"})
            assert dict(ds.attrs) == {"unit": "mm"}
            with pytest.raises(errors.StaleDatasetError):
                ds.attrs["unit"] = "s"
            with pytest.raises(errors.StaleDatasetError):
                ds.refresh()
            assert dict(second[name].attrs) == {"unit": "K"}

    def test_a_handle_never_works_on_what_was_cut_off(
        self, make_connection: MakeConnection, name: str
    ) -> None:
        with make_connection() as con, make_connection() as second:
            ds = self.create(con, name, data=np.arange(30), chunk_size=10, fillvalue=-1)
            other = second[name]
            if ds.instance is other.instance:
                pytest.skip("all handles of the process know a new shape at once")
            gone = errors.StaleDatasetError, IndexError, ValueError

            def write(key: object, value: object) -> None:
                handle = con[name]
                other.resize(17)
                with pytest.raises(gone):
                    handle[key] = value
                other.resize(30)
                check(other[17:], np.full(13, -1))
                other[17:] = np.arange(17, 30)

            write(25, 7)
            write(19, 7)
            write(slice(20, 30), 7)
            write(slice(10, 20), np.full(10, 7))
            write(slice(16, 20), 7)
            write([16, 18], 7)
            check(other[...], np.arange(30))
            # The part that was cut off at the new edge is not read as fill values either.
            for key in (19, slice(15, 19), ..., [16, 18]):
                other[...] = np.arange(30)
                handle = con[name]
                check(handle[:3], np.arange(3))
                other.resize(17)
                with pytest.raises(gone):
                    handle[key]
                other.resize(30)
            other[...] = np.arange(30)
            # The part that still exists is read and written as before.
            handle = con[name]
            other.resize(17)
            handle[2:4] = 5
            check(handle[2:4], np.array([5, 5]))
            other.resize(25)
            expected = np.concatenate([np.arange(17), np.full(8, -1)])
            expected[2:4] = 5
            check(ds[:25], expected)


def _uses(ds: dn.Dataset) -> list[Callable[[], object]]:
    """List operations of a handle on a dataset of 20 elements in chunks of 10."""
    return [
        lambda: ds[:3],
        lambda: ds[...],
        lambda: ds[13],
        lambda: ds.sum(),
        lambda: ds.__setitem__(slice(0, 10), 7),
        lambda: ds.__setitem__(slice(12, 14), 7),
        lambda: ds.__setitem__(..., 7),
        lambda: ds.load(np.zeros(20, ds.dtype)),
        lambda: ds.apply(np.negative),
        lambda: ds.get_chunk((0,)).set_data(1),
        lambda: ds.get_chunk((0,))[...],
        lambda: ds.del_chunk((0,)),
        lambda: ds.clear(),
        lambda: ds.append(np.zeros(3, ds.dtype)),
        lambda: ds.resize(10),
        lambda: ds.attrs.update(a=1),
        lambda: ds.refresh(),
    ]
