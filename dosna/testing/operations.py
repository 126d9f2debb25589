"""Conformance of operations on all chunks: load, map, apply, reduce, copy, resize, ….

The file is long because its tests are one class, which a backend or engine takes as a whole.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import dosna as dn
from dosna import errors
from dosna.core.plan import every_chunk
from dosna.core.types import Array
from dosna.testing.base import Kit, MakeConnection
from dosna.testing.samples import check, sample


class Sliced:
    """A source that is neither an array nor a dataset, and records the requests."""

    def __init__(self, data: Array) -> None:
        self.data = data
        self.shape = data.shape
        self.dtype = data.dtype
        self.largest = 0

    def __getitem__(self, key: Any) -> Array:
        block: Array = self.data[key]
        self.largest = max(self.largest, block.size)
        return block


def neighbours(block: Array) -> Array:
    """Mix each element with those up to two before and three after it on each axis."""
    result = block.astype("f8")
    for axis in range(block.ndim):
        result = result + 2 * np.roll(result, 2, axis) - np.roll(result, -3, axis) / 3
    return result


PADDINGS = {
    "reflect": "symmetric",
    "mirror": "reflect",
    "nearest": "edge",
    "wrap": "wrap",
    "constant": "constant",
}
"""The boundary modes of scipy.ndimage, and their names in `numpy.pad`."""

HALO_CHUNKS = ((4, 3), (2, 7), (11, 7), (1, 2))
HALOS = ((3, 3), (3, 0), (5, 4), (13, 9))
"""The sizes of chunks and of halos of an array of (11, 7)."""


def filtered(
    data: Array, func: Callable[[Array], Array], halo: tuple[int, ...], mode: str, cval: float = 0
) -> Array:
    """Return `func` of the whole array with its halo, without any chunks."""
    options: dict[str, Any] = {"constant_values": cval} if mode == "constant" else {}
    padded = np.pad(data, [(h, h) for h in halo], PADDINGS[mode], **options)  # type: ignore[call-overload]
    inner = tuple(slice(h, h + n) for h, n in zip(halo, data.shape, strict=True))
    return func(padded)[inner]


class OperationTests(Kit):
    """Tests of operations on all chunks of a dataset."""

    @pytest.fixture
    def data(self) -> Array:
        """Return an array whose extent is not a multiple of the chunks' (4, 3)."""
        return sample((10, 7), "<i4", 4)

    @pytest.fixture
    def ds(self, con: dn.Connection, name: str, data: Array) -> dn.Dataset:
        """Return a dataset of `data`."""
        return self.create(con, name, data=data, chunk_size=(4, 3), fillvalue=-5)

    # -- load -----------------------------------------------------------------------------

    def test_load_takes_anything_with_shape_dtype_and_slicing(
        self, con: dn.Connection, ds: dn.Dataset, data: Array, name: str, tmp_path: Any
    ) -> None:
        mapped = np.memmap(tmp_path / "raw", data.dtype, "w+", shape=data.shape)
        mapped[...] = data
        other = self.create(con, name + "-o", data=data, chunk_size=(3, 5))
        source = Sliced(data)
        sources: list[Any] = [data, data.tolist(), mapped, source, other, other.astype("f8")]
        for number, given in enumerate(sources):
            ds.clear()
            ds.load(given)
            check(ds[...], data, number)
            assert len(ds.written_chunks()) == ds.total_chunks
        # Of several processes, some may hold smaller objects only. For a remote dataset many
        # objects are read together.
        assert source.largest <= largest_object(ds) or ds.instance.remote
        target = self.create(con, name + "-t", data.shape, "f4", chunk_size=(4, 3))
        target.load(data[::-1, ::-1])
        check(target[...], data[::-1, ::-1].astype("f4"))
        for wrong in (data[1:], data[0], 3, Sliced(data[:, 1:])):
            with pytest.raises(ValueError, match="shape"):
                ds.load(wrong)
        check(ds[...], data)

    def test_load_notices_a_source_of_wrong_blocks(self, ds: dn.Dataset, data: Array) -> None:
        class Liar(Sliced):
            def __getitem__(self, key: Any) -> Array:
                return super().__getitem__(key)[:1, :1]

        with pytest.raises(ValueError, match="shape"):
            ds.load(Liar(data))

    def test_assigning_a_dataset_streams(
        self, con: dn.Connection, ds: dn.Dataset, data: Array, name: str
    ) -> None:
        target = self.create(con, name + "-t", (12, 7), "f8", chunk_size=(5, 2))
        target[1:11] = ds
        check(target[1:11], data.astype("f8"))
        source = Sliced(data)
        target[:10] = source
        check(target[...][:10], data.astype("f8"))
        assert source.largest <= largest_object(target)
        target[11::-1, ::-1] = np.ones((12, 7))
        target[10:0:-1] = source
        check(target[10:0:-1], data.astype("f8"))

    # -- map and apply --------------------------------------------------------------------

    def test_map(self, con: dn.Connection, ds: dn.Dataset, data: Array, name: str) -> None:
        ds.attrs["unit"] = "mm"
        out = ds.map(lambda block: block * 2 + 0.5, name + "-b")
        check(out[...], data * 2 + 0.5)
        assert (out.chunk_size, dict(out.attrs), out.fillvalue) == ((4, 3), {"unit": "mm"}, -5)
        check(ds[...], data)
        check(ds.map(np.abs, name + "-c", dtype="u1")[...], np.abs(data).astype("u1"))
        check(ds.map(lambda b: b > 0, name + "-e")[...], data > 0)
        check(con[name + "-b"].map(str_of, name + "-f")[...], (data * 2 + 0.5).astype("U8"))

    def test_pyramid(self, con: dn.Connection, ds: dn.Dataset, data: Array, name: str) -> None:
        if not con.instance.keeps_groups:
            with pytest.raises(errors.ConfigurationError):
                ds.pyramid(1, method="stride")
            return
        before = con.get_group_attrs("")
        first, second = ds.pyramid(2, method="stride")
        check(first[...], data[::2, ::2])
        check(con[second.name][...], data[::4, ::4])
        assert (first.chunk_size, first.fillvalue, first.incomplete) == ((4, 3), -5, False)
        with pytest.raises(errors.DatasetExistsError):
            ds.pyramid(1)
        (mean,) = ds.pyramid(1, overwrite=True)
        assert mean[0, 0] == np.rint(data[:2, :2].mean())
        assert second.name not in con
        con.set_group_attrs("", before)

    def test_functions_see_only_what_lies_inside(self, ds: dn.Dataset, name: str) -> None:
        def extent(block: Array) -> Array:
            return np.full(block.shape, block.shape[0] * 10 + block.shape[1])

        out = ds.map(extent, name + "-b")
        expected = np.full((10, 7), 43)
        expected[8:], expected[:, 6], expected[8:, 6] = 23, 41, 21
        check(out[...], expected)

    def test_map_of_chunks_never_written(self, con: dn.Connection, name: str) -> None:
        ds = self.create(con, name, (5,), "i4", fillvalue=3, chunk_size=2)
        check(ds.map(np.square, name + "-b")[...], np.full(5, 9, "i4"))
        assert ds.written_chunks() == []

    def test_a_map_that_fails_deletes_its_output(
        self, con: dn.Connection, ds: dn.Dataset, data: Array, name: str
    ) -> None:
        calls: list[tuple[type[Exception], Any]] = [
            (ZeroDivisionError, fail_at(data[9, 6])),
            (ZeroDivisionError, fail_at(data[0, 0])),
            (ValueError, lambda block: block[1:]),
            (ValueError, np.sum),
        ]
        for error, func in calls:
            with pytest.raises(error):
                ds.map(func, name + "-b")
            assert name + "-b" not in con
            with pytest.raises(error):
                ds.map(func, name + "-b", dtype="i4", halo=1)
            assert name + "-b" not in con
        with pytest.raises(errors.DatasetExistsError):
            ds.map(np.abs, name)
        with pytest.raises(errors.DatasetNameError):
            ds.map(np.abs, name + "//b")
        check(con[name][...], data)

    def test_apply(self, ds: dn.Dataset, data: Array) -> None:
        ds.apply(lambda block: block * 3 - 1)
        check(ds[...], data * 3 - 1)
        with pytest.raises(TypeError, match="map"):
            ds.apply(lambda block: block / 2)
        with pytest.raises(ValueError, match="shape"):
            ds.apply(np.ravel)
        check(ds[...], data * 3 - 1)
        with pytest.raises(ZeroDivisionError):
            ds.apply(fail_at(data[9, 6] * 3 - 1))

    @pytest.mark.parametrize("mode", PADDINGS)
    def test_halo_equals_the_filter_over_the_whole_array(
        self, con: dn.Connection, name: str, mode: str
    ) -> None:
        data = sample((11, 7), "<f8", 2)
        whole: Any
        # Each halo meets each size of chunks in one of the modes.
        turn = list(PADDINGS).index(mode)
        for number, chunks in enumerate(self.some(HALO_CHUNKS)):
            ds = self.create(con, f"{name}-{number}", data=data, chunk_size=chunks)
            halo = HALOS[(turn + number) % len(HALOS)]
            func = neighbours if halo[1] else rows
            out = ds.map(func, f"{name}-{number}-out", halo=halo, boundary=mode, cval=2.5)
            whole = filtered(data, func, halo, mode, 2.5)
            np.testing.assert_allclose(out[...], whole, rtol=1e-12, atol=1e-12)
        single = self.create(con, name + "-one", data=[4.0, 5.0, 7.0], chunk_size=2)
        out = single.map(neighbours, name + "-o", halo=3, boundary=mode)
        whole = filtered(np.array([4.0, 5.0, 7.0]), neighbours, (3,), mode)
        np.testing.assert_allclose(out[...], whole)

    def test_halo_refuses_what_has_no_meaning(self, ds: dn.Dataset, name: str) -> None:
        cases: list[tuple[type[Exception], dict[str, Any]]] = [
            (ValueError, {"halo": -1}),
            (ValueError, {"halo": (1, 1, 1)}),
            (TypeError, {"halo": 1.5}),
            (ValueError, {"halo": 1, "boundary": "symmetric"}),
        ]
        for error, options in cases:
            with pytest.raises(error):
                ds.map(neighbours, name + "-b", **options)
            assert name + "-b" not in ds.connection

    # -- other work over all chunks -------------------------------------------------------

    @pytest.mark.parametrize("dtype", ["?", "i1", "<u8", "<f2", ">f4", "<f8", "<c8"])
    def test_reduce(self, con: dn.Connection, name: str, dtype: str) -> None:
        data = sample((10, 7), dtype, 4)
        ds = self.create(con, name, data=data, chunk_size=(4, 3))
        for op in ("sum", "mean", "min", "max"):
            found = ds.reduce(op)
            expected = getattr(data, op)()
            assert type(found) is type(expected), op
            np.testing.assert_allclose(found, expected, rtol=1e-3 if dtype == "<f2" else 1e-6)
            assert getattr(ds, op)() == found
        with pytest.raises(ValueError, match="median"):
            ds.reduce("median")  # type: ignore[arg-type]

    @pytest.mark.parametrize("dtype", ["?", "<u8", ">f4", "<c8"])
    def test_reduce_along_axes(self, con: dn.Connection, name: str, dtype: str) -> None:
        data = sample((5, 6, 7), dtype, 4)
        ds = self.create(con, name, data=data, chunk_size=(2, 6, 3))
        for axis in (0, -1, (0, 2), (1, 0), (), (0, 1, 2)):
            found, expected = ds.reduce("sum", axis), data.sum(axis)
            assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
            np.testing.assert_allclose(found, expected, rtol=1e-6)
            check(np.max(ds, axis=axis), np.max(data, axis=axis))
            check(ds.min(axis, keepdims=True), data.min(axis, keepdims=True))
        for wrong in (3, (0, 0), (-4,)):
            with pytest.raises(ValueError, match="axis"):
                ds.mean(axis=wrong)

    def test_reduce_of_nan_and_of_fill(self, con: dn.Connection, name: str) -> None:
        ds = self.create(con, name, (5, 5), "f8", fillvalue=2, chunk_size=(3, 3))
        assert (ds.sum(), ds.min(), ds.mean()) == (50, 2, 2)
        ds[4, 4] = np.nan
        assert all(np.isnan([ds.sum(), ds.mean(), ds.min(), ds.max()]))

    def test_clone(self, con: dn.Connection, ds: dn.Dataset, data: Array, name: str) -> None:
        ds.attrs["unit"] = "mm"
        empty = ds.clone(name + "-b")
        assert (empty.shape, empty.dtype, empty.chunk_size) == (ds.shape, ds.dtype, (4, 3))
        assert (empty.fillvalue, dict(empty.attrs)) == (-5, {"unit": "mm"})
        assert empty.written_chunks() == []
        full = ds.clone(name + "-c", data=True)
        check(full[...], data)
        full[...] = 0
        full.attrs["unit"] = "cm"
        check(ds[...], data)
        assert ds.attrs["unit"] == "mm"
        with pytest.raises(errors.DatasetExistsError):
            ds.clone(name)

    def test_copy_into_another_connection(
        self,
        con: dn.Connection,
        other: dn.Connection,
        ds: dn.Dataset,
        data: Array,
        name: str,
    ) -> None:
        ds.attrs["unit"] = "mm"
        with other:
            copied = ds.copy(other, chunk_size=(6, 6))
            check(copied[...], data)
            assert (copied.name, copied.chunk_size) == (name, (6, 6))
            assert (copied.fillvalue, dict(copied.attrs)) == (-5, {"unit": "mm"})
            copied[...] = 1
            check(ds[...], data)
            back = copied.copy(con, name + "-back")
            check(back[...], np.ones_like(data))
            with pytest.raises(errors.DatasetExistsError):
                ds.copy(other)
            check(copied[...], np.ones_like(data))
        with pytest.raises(errors.NotConnectedError):
            ds.copy(other, name + "-c")

    def test_clear(self, ds: dn.Dataset, data: Array) -> None:
        ds.clear()
        assert ds.written_chunks() == []
        check(ds[...], np.full_like(data, -5))
        ds[0, 0] = 1
        assert ds.written_chunks() == [(0, 0)]

    # -- resize and append ----------------------------------------------------------------

    def test_resize(self, make_connection: MakeConnection, ds: dn.Dataset, data: Array) -> None:
        steps = [(14, 7), (14, 9), (5, 9), (5, 2), (12, 2), (3, 8), (0, 8), (6, 6), (7, 1)]
        model = data
        for shape in steps:
            grown = np.full(shape, -5, "<i4")
            both = tuple(slice(0, min(a, b)) for a, b in zip(shape, model.shape, strict=True))
            grown[both] = model[both]
            model = grown
            ds.resize(shape)
            assert (ds.shape, len(ds.written_chunks()) <= ds.total_chunks) == (shape, True)
            check(ds[...], model, shape)
            with make_connection() as con:
                check(con[ds.name][...], model, shape)
        ds[...] = 4
        check(ds[...], np.full((7, 1), 4, "<i4"))
        cases: list[tuple[type[Exception], Any]] = [
            (ValueError, (3,)),
            (ValueError, (3, -1)),
            (TypeError, (3.5, 1)),
        ]
        for error, wrong in cases:
            with pytest.raises(error):
                ds.resize(wrong)
        assert ds.shape == (7, 1)

    def test_chunks_that_a_shrink_cut_off_are_deleted(self, ds: dn.Dataset) -> None:
        ds.resize((4, 3))
        assert ds.written_chunks() == [(0, 0)]
        ds.resize((10, 7))
        assert ds.written_chunks() == [(0, 0)]

    def test_append(self, ds: dn.Dataset, data: Array, name: str, con: dn.Connection) -> None:
        more = sample((3, 7), "<i4", 9)
        ds.append(more)
        model = np.concatenate([data, more])
        check(ds[...], model)
        column = sample((13, 2), "<i4", 11)
        ds.append(column, axis=-1)
        model = np.concatenate([model, column], axis=1)
        check(ds[...], model)
        ds.append(self.create(con, name + "-b", data=model, chunk_size=(5, 5)))
        model = np.concatenate([model, model])
        check(ds[...], model)
        ds.append(np.zeros((0, 9)))
        for wrong, axis in [(more, 0), (model[0], 0), (model, 2), (model[:, :1], 0)]:
            with pytest.raises(ValueError, match=r"axis|shape"):
                ds.append(wrong, axis)
        with pytest.raises(ValueError, match="invalid literal"):
            ds.append([["text"] * 9])
        check(con[name][...], model)

    def test_append_of_itself(
        self, con: dn.Connection, ds: dn.Dataset, data: Array, name: str
    ) -> None:
        model = data
        itself: list[Callable[[], Any]] = [
            lambda: ds,
            lambda: con[name],
            lambda: ds.astype("f4"),
            lambda: con[name].astype("<i4"),
        ]
        for number, given in enumerate(itself):
            ds.append(given(), axis=number % 2)
            model = np.concatenate([model, model], axis=number % 2)
            check(ds[...], model, number)
        flat = self.create(con, name + "-f", data=np.arange(5.0), chunk_size=3)
        other = con[name + "-f"]
        other.append(flat)
        flat.refresh()
        flat.append(other)
        check(flat[...], np.tile(np.arange(5.0), 4))

    def test_values_that_do_not_fit_are_refused_and_others_converted(
        self, con: dn.Connection, name: str
    ) -> None:
        cases: list[tuple[Any, Any, Any]] = [
            (["foo"], ["foobar"], np.array(["bar"], "U9")),
            (np.array([1, 2], "<i4"), [1.5, 2.0], [-1.0, 7.0]),
            (np.array([1, 2], "<i4"), [np.nan], [3]),
            (np.array([1], "u1"), [256], [255, 0]),
            (np.array([1.0]), [1 + 2j], [1 + 0j]),
            (np.array([1.0], "f4"), [1e300], [0.1]),
            (np.array(["2020-01-01"], "M8[s]"), np.array(["2020-01-01T00:00:00.5"], "M8[ms]"),
             np.array(["2021-01-01"], "M8[D]")),
        ]  # fmt: skip
        for number, (first, bad, good) in enumerate(cases):
            first, bad, good = np.asarray(first), np.asarray(bad), np.asarray(good)
            ds = self.create(con, f"{name}-{number}", data=first, chunk_size=2)
            # In memory, and as a source that is read by slicing.
            source = self.create(con, f"{name}-{number}-s", data=bad, chunk_size=2)
            with warnings.catch_warnings():
                warnings.simplefilter("error", RuntimeWarning)
                for given in (bad, source):
                    with pytest.raises(ValueError, match="do not fit"):
                        ds.append(given)
                    check(ds[...], first, number)
                    grown = self.create(con, f"{name}-{number}-t", bad.shape, first.dtype)
                    with pytest.raises(ValueError, match="do not fit"):
                        grown.load(given)
                    grown.delete()
                ds.append(good)
            real = good.real if good.dtype.kind == "c" else good
            model = np.concatenate([first, real.astype(first.dtype)])
            check(ds[...], model, number)
            # Assignment converts as NumPy does, and so does a dtype that was requested.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model[:1] = bad[:1]
                ds[:1] = bad[:1]
                made = self.create(con, f"{name}-{number}-c", data=bad, dtype=first.dtype)
                expected = bad.astype(first.dtype)
            check(ds[...], model, number)
            check(made[...], expected, number)

    # -- how it is done -------------------------------------------------------------------

    def test_progress(self, ds: dn.Dataset, data: Array, name: str, con: dn.Connection) -> None:
        def told(use: Callable[[Any], object]) -> int:
            calls: list[tuple[int, int]] = []
            use(lambda done, total: calls.append((done, total)))
            assert calls[0][0] == 0
            assert calls[-1][0] == calls[-1][1]
            assert all(a[0] <= b[0] and a[1] == b[1] for a, b in pairwise(calls))
            return calls[-1][1]

        objects = len(every_chunk(ds.shape, ds.instance.grain))
        assert [
            told(lambda tell: ds.load(data, progress=tell)),
            told(lambda tell: ds.map(np.abs, name + "-b", progress=tell)),
            told(lambda tell: ds.apply(np.negative, progress=tell)),
            told(lambda tell: ds.reduce("sum", progress=tell)),
            told(lambda tell: ds.clone(name + "-c", data=True, progress=tell)),
            told(lambda tell: ds.verify(progress=tell)),
            told(lambda tell: self.create(con, name + "-d", data=data, progress=tell)),
            told(lambda tell: ds.clear(progress=tell)),
        ] == [objects] * 6 + [1, objects]
        with pytest.raises(TypeError, match="progress"):
            ds.clear(progress=3)  # type: ignore[arg-type]

    def test_an_error_of_the_progress_callback_stops_the_work(
        self, con: dn.Connection, ds: dn.Dataset, name: str
    ) -> None:
        def tell(done: int, total: int) -> None:
            if done:
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            ds.map(np.abs, name + "-b", progress=tell)
        assert name + "-b" not in con

    def test_memory_limit(self, ds: dn.Dataset, data: Array, name: str) -> None:
        uses: list[Callable[[Any], object]] = [
            lambda limit: ds.load(data, memory_limit=limit),
            lambda limit: ds.map(np.abs, name + "-b", memory_limit=limit),
            lambda limit: ds.map(np.abs, name + "-c", halo=1, memory_limit=limit),
            lambda limit: ds.apply(np.negative, memory_limit=limit),
            lambda limit: ds.clone(name + "-d", data=True, memory_limit=limit),
            lambda limit: ds.sum() if limit == "1M" else ds.reduce("sum", memory_limit=limit),
        ]
        for use in uses:
            with pytest.raises(errors.MemoryLimitError, match="memory_limit"):
                use(40)
            with pytest.raises(ValueError, match="size"):
                use("much")
            use("1M")
        assert name + "-e" not in ds.connection
        check(ds[...], -data)

    def test_compare_says_where_they_differ(
        self, con: dn.Connection, ds: dn.Dataset, data: Array, name: str
    ) -> None:
        other = ds.clone(name + "-other", data=True)
        for equal in (data, other, Sliced(data)):
            found = ds.compare(equal)
            assert (found.equal, found.chunks, found.first) == (True, ds.total_chunks, None)
        last = tuple(n - 1 for n in data.shape)
        other[last] = other[last] + 1
        first = (0,) * (data.ndim - 1) + (1,)
        other[first] = other[first] - 1
        idx = tuple(i // c for i, c in zip(last, ds.chunk_size, strict=True))
        found = ds.compare(other, memory_limit="1M")
        assert (found.different, found.elements) == ((tuple(0 for _ in idx), idx), 2)
        assert (found.equal, found.first) == (False, first)
        assert str(first) in str(found)
        with pytest.raises(ValueError, match="shape"):
            ds.compare(data[1:])
        with pytest.raises(TypeError):
            ds.compare(data.astype("S"))

    def test_flush_and_verify(self, ds: dn.Dataset) -> None:
        ds.flush()
        found = ds.verify()
        assert found.good
        assert sorted(found.ok + found.unchecked) == list(np.ndindex(3, 3))


def str_of(block: Array) -> Array:
    """Return numbers as text."""
    return block.astype("U8")


def largest_object(ds: dn.Dataset) -> int:
    """Return the number of elements of a stored object, a chunk or a shard, inside the array."""
    return int(np.prod(np.minimum(ds.instance.grain, ds.shape)))


def rows(block: Array) -> Array:
    """Mix each element with others of its column only."""
    result: Array = block + 2 * np.roll(block, 2, 0) - np.roll(block, -3, 0) / 3
    return result


def fail_at(value: Any) -> Callable[[Array], Array]:
    """Return a function that fails on a block that holds a value."""

    def fail(block: Array) -> Array:
        if value in block:
            raise ZeroDivisionError(f"found {value}")
        return block

    return fail
