"""Conformance of a source of data."""

from __future__ import annotations

import math
import pickle
import re
import tracemalloc
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np
import pytest

import dosna as dn
from dosna.core.types import Array
from dosna.core.values import check_dtype, encode_value
from dosna.errors import DosnaError, SourceNotFoundError
from dosna.sources import Source

MakeSource = Callable[[], Source]

_LARGE = 4 << 20


class SourceTests:
    """Tests that every `dosna.sources.Source` passes; subclass it with two fixtures.

    ::

        class TestMySource(SourceTests):
            @pytest.fixture
            def arrays(self):
                return {"entry/image": np.arange(200.0).reshape(10, 20)}

            @pytest.fixture
            def make_source(self, tmp_path, arrays):
                path = write_my_format(tmp_path, arrays)
                return lambda: MySource(path)

    The arrays should have several chunks and several dtypes; some should have no axes, and some
    no elements. One of more than 4 MiB also tests that little memory is used.
    """

    seed: ClassVar[int] = 0
    """The seed of the random boxes."""

    fingerprint_stays: ClassVar[bool] = True
    """True if another source of the same data has the same fingerprint."""

    @pytest.fixture
    def arrays(self) -> Mapping[str, Array]:
        """Return the arrays of the source, except those that it refuses."""
        raise NotImplementedError("a subclass of SourceTests has a fixture arrays")

    @pytest.fixture
    def make_source(self) -> MakeSource:
        """Return a callable that makes a source of these arrays, not opened yet."""
        raise NotImplementedError("a subclass of SourceTests has a fixture make_source")

    def test_names(self, make_source: MakeSource, arrays: Mapping[str, Array]) -> None:
        with make_source() as source:
            names = source.names()
            assert names == list(source) == source.names()
            assert len(source) == len(set(names)) == len(names)
            refused = {name for name in names if source.describe(name).refused}
            assert sorted(set(names) - refused) == sorted(arrays)
        with make_source() as other:
            assert other.names() == names

    def test_descriptions(self, make_source: MakeSource, arrays: Mapping[str, Array]) -> None:
        with make_source() as source:
            for name, array in arrays.items():
                found = source.describe(name)
                assert (found.name, found.shape, found.dtype) == (name, array.shape, array.dtype)
                assert found.nbytes == array.nbytes
                check_dtype(found.dtype)
                for extent in (found.chunks, found.pieces):
                    assert extent is None or len(extent) == array.ndim
                    assert extent is None or min(extent, default=1) > 0
                assert found.dims is None or len(found.dims) == array.ndim
                encode_value(dict(found.attrs))
                again = pickle.loads(pickle.dumps(found))
                assert (again.shape, again.dtype, again.chunks) == (
                    (found.shape, found.dtype, found.chunks)
                )
            for group, attrs in source.groups().items():
                assert isinstance(group, str)
                encode_value(dict(attrs))

    def test_what_is_not_there(self, make_source: MakeSource) -> None:
        with make_source() as source, pytest.raises(SourceNotFoundError, match="no-such-array"):
            source.describe("no-such-array")

    def test_whole_arrays(self, make_source: MakeSource, arrays: Mapping[str, Array]) -> None:
        with make_source() as source:
            for name, array in arrays.items():
                whole = np.asarray(source[name])
                assert whole.dtype == array.dtype
                np.testing.assert_array_equal(whole, array)

    def test_boxes(self, make_source: MakeSource, arrays: Mapping[str, Array]) -> None:
        random = np.random.default_rng(self.seed)
        with make_source() as source:
            for name, array in arrays.items():
                for _ in range(20):
                    box = _some_box(random, array)
                    found = source.read(name, box)
                    assert isinstance(found, np.ndarray)
                    assert found.dtype == array.dtype
                    np.testing.assert_array_equal(found, array[box])
                    room = np.empty([n + 2 for n in found.shape], array.dtype)
                    inside: Any = (*(slice(1, n + 1) for n in found.shape), ...)
                    source.read_into(name, box, room[inside])
                    np.testing.assert_array_equal(room[inside], array[box])

    def test_memory_that_had_something_else(
        self, make_source: MakeSource, arrays: Mapping[str, Array]
    ) -> None:
        random = np.random.default_rng(self.seed)
        with make_source() as source:
            for name, array in arrays.items():
                if array.dtype.hasobject:
                    continue  # NumPy cannot make such elements from bytes.
                for box in (tuple(slice(0, n) for n in array.shape), _some_box(random, array)):
                    found = []
                    for before in (0x55, 0xAA):
                        shape = array[box].shape
                        raw = np.full(array[box].nbytes, before, np.uint8)
                        out = raw.view(array.dtype).reshape(shape)
                        source.read_into(name, box, out)
                        np.testing.assert_array_equal(out, array[box])
                        found.append(raw.tobytes())
                    # Earlier bytes of the memory do not stay, not even between the fields.
                    assert found[0] == found[1]

    def test_what_is_not_stored_is_the_fill_value(
        self, make_source: MakeSource, arrays: Mapping[str, Array]
    ) -> None:
        with make_source() as source:
            for name, array in arrays.items():
                stored, found = source.stored(name), source.describe(name)
                if stored is None:
                    continue
                assert stored.shape == (len(stored), array.ndim)
                left = np.ones(array.shape, bool)
                for place in stored:
                    assert found.chunks is not None
                    box = zip(place, found.chunks, strict=True)
                    left[tuple(slice(i * c, (i + 1) * c) for i, c in box)] = False
                fill = found.fillvalue
                fill = np.zeros((), array.dtype)[()] if fill is None else fill
                expected = np.full(int(left.sum()), fill, array.dtype)
                np.testing.assert_array_equal(array[left], expected)

    def test_indexing(self, make_source: MakeSource, arrays: Mapping[str, Array]) -> None:
        random = np.random.default_rng(self.seed)
        with make_source() as source:
            for name, array in arrays.items():
                for key in _some_keys(random, array):
                    np.testing.assert_array_equal(source[name][key], array[key])

    def test_threads(self, make_source: MakeSource, arrays: Mapping[str, Array]) -> None:
        def look(number: int) -> None:
            random = np.random.default_rng(number)
            for name, array in arrays.items():
                box = _some_box(random, array)
                np.testing.assert_array_equal(source[name][box], array[box])

        with make_source() as source, ThreadPoolExecutor(8) as pool:
            for _ in pool.map(look, range(40)):
                pass

    def test_it_can_be_pickled_or_says_that_it_cannot(
        self, make_source: MakeSource, arrays: Mapping[str, Array]
    ) -> None:
        with make_source() as source:
            if not source.picklable:
                with pytest.raises(TypeError):
                    pickle.dumps(source)
                return
            for name, array in arrays.items():
                np.testing.assert_array_equal(source[name][...], array)
            with pickle.loads(pickle.dumps(source)) as other:
                for name, array in arrays.items():
                    np.testing.assert_array_equal(other[name][...], array)
                assert other.fingerprint() == source.fingerprint()

    def test_it_opens_again(self, make_source: MakeSource, arrays: Mapping[str, Array]) -> None:
        source = make_source()
        for _ in range(3):
            for name, array in arrays.items():
                np.testing.assert_array_equal(source[name][...], array)
            source.close()
        source.close()

    def test_fingerprint(self, make_source: MakeSource, arrays: Mapping[str, Array]) -> None:
        with make_source() as source, make_source() as other:
            before = source.fingerprint()
            for name in arrays:
                np.asarray(source[name])
            assert before == source.fingerprint()
            assert (before == other.fingerprint()) is self.fingerprint_stays

    def test_little_memory(self, make_source: MakeSource, arrays: Mapping[str, Array]) -> None:
        with make_source() as source:
            for name, array in arrays.items():
                chunks = source.describe(name).chunks or (1,) * array.ndim
                held = math.prod(chunks) * array.itemsize
                if array.nbytes < _LARGE or held * 4 > array.nbytes:
                    continue
                box = tuple(slice(0, c) for c in chunks)
                source.read(name, box)
                tracemalloc.start()
                source.read(name, box)
                most = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
                assert most < 4 * held + (1 << 20)

    def test_ingest(self, make_source: MakeSource, arrays: Mapping[str, Array]) -> None:
        for chunk_size in (None, "64 KiB"):
            with dn.Connection(f"ingest-{id(self)}", backend="ram", engine="cpu") as con:
                with make_source() as source:
                    con.ingest(source, "all", chunk_size=chunk_size, on_error="skip")
                    single = source.single
                for name, array in arrays.items():
                    ds = con["all" if single else f"all/{name}"]
                    assert not ds.incomplete
                    np.testing.assert_array_equal(ds[...], array)
                for name in list(con):
                    del con[name]

    @pytest.mark.parametrize("where", ["describe", "read"])
    def test_what_one_array_raises_costs_no_other(
        self,
        make_source: MakeSource,
        arrays: Mapping[str, Array],
        monkeypatch: pytest.MonkeyPatch,
        where: str,
    ) -> None:
        bad = max(arrays, key=lambda name: arrays[name].nbytes)
        for error in _ODD_ERRORS:
            with (
                dn.Connection(f"odd-{id(self)}", backend="ram", engine="cpu") as con,
                make_source() as source,
                monkeypatch.context() as patch,
            ):
                for method in ("describe",) if where == "describe" else ("read", "read_into"):
                    patch.setattr(source, method, _raising(getattr(source, method), bad, error))
                single = source.single
                try:
                    with pytest.raises(DosnaError, match=re.escape(bad)):
                        con.ingest(source, "strict", select=[bad])
                    report = con.ingest(source, "all", on_error="skip")
                    assert bad in report.skipped
                    assert type(error).__name__ in report.skipped[bad]
                    if not single:
                        # An array may be skipped together with others, as in a jagged array.
                        good = [n for n in arrays if f"all/{n}" in report.made]
                        assert len(good) >= (len(arrays) - 1) // 2
                        for name in good:
                            np.testing.assert_array_equal(con[f"all/{name}"][...], arrays[name])
                        if good:
                            con.ingest(source, "some", select=good[:1])
                            np.testing.assert_array_equal(
                                con[f"some/{good[0]}"][...], arrays[good[0]]
                            )
                finally:
                    for name in list(con):
                        del con[name]


_ODD_ERRORS = (
    MemoryError(),
    OverflowError("too large"),
    UnicodeDecodeError("utf-8", b"\xe9", 0, 1, "odd"),
    AssertionError("not so"),
    RecursionError("too deep"),
    LookupError("what"),
)


def _raising(method: Callable[..., Any], bad: str, error: Exception) -> Callable[..., Any]:
    def call(name: str, *args: Any) -> Any:
        if name == bad:
            raise error
        return method(name, *args)

    return call


def _some_box(random: np.random.Generator, array: Array) -> tuple[slice, ...]:
    ends = [sorted(random.integers(0, n + 1, 2)) for n in array.shape]
    return tuple(slice(int(start), int(stop)) for start, stop in ends)


def _some_keys(random: np.random.Generator, array: Array) -> list[Any]:
    keys: list[Any] = [..., (), (None, ...), _some_box(random, array)]
    if array.size and array.ndim:
        points = tuple(random.integers(0, n, 5) for n in array.shape)
        keys += [0, -1, slice(None, None, -2), points, points[:1], (..., points[-1])]
        keys += [tuple(-1 for _ in array.shape), random.random(array.shape[0]) < 0.5]
    return keys
