"""Conformance of datasets as arrays: dtypes, indexing, chunks, attributes.

The file is long because its tests are one class, which a backend or engine takes as a whole.
"""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dosna as dn
from dosna import errors
from dosna.testing.base import Kit, MakeConnection
from dosna.testing.samples import BAD_INDICES, CHUNKS, SHAPE, check, indices, keys, sample


class ArrayTests(Kit):
    """Tests of reading and writing elements, chunks and attributes."""

    # -- elements -------------------------------------------------------------------------

    def test_dtypes(self, make_connection: MakeConnection, name: str) -> None:
        cases = []
        with make_connection() as con:
            for number, dtype in enumerate(self.some(self.dtypes)):
                data = sample((5, 7), dtype, number)
                own = f"{name}-{number}"
                fill = data[3, 3]
                ds = self.create(con, own, (5, 7), dtype, chunk_size=(2, 4), fillvalue=fill)
                ds[1:4, 2:] = data[1:4, 2:]
                ds[0, 0] = data[0, 0]
                expected = np.full_like(data, fill)
                expected[1:4, 2:] = data[1:4, 2:]
                expected[0, 0] = data[0, 0]
                check(ds[...], expected, dtype)
                cases.append((own, expected))
        with make_connection() as con:
            for own, expected in cases:
                found = con[own]
                assert found.dtype == expected.dtype
                check(found[...], expected, own)
                check(found[1, 3], expected[1, 3], own)
                check(found[4, 1:], expected[4, 1:], own)
                check(found[[4, 0], [0, 0]], expected[[4, 0], [0, 0]], own)

    def test_fill_values(self, make_connection: MakeConnection, name: str) -> None:
        fills: list[tuple[Any, Any]] = [
            ("f8", np.nan),
            (">f4", -np.inf),
            ("f8", -0.0),
            ("c16", complex(np.nan, 2)),
            ("M8[s]", np.datetime64("NaT", "s")),
            ("M8[s]", np.datetime64("2020-02-29T12:00:00")),
            ("u8", 2**64 - 1),
            ("i8", -(2**63)),
            ("S4", b"ab"),
            ("U4", "\u00e4\U0001f600"),
            ([("a", "i4"), ("b", "f4")], (7, np.nan)),
            ("?", True),
        ]
        fills = [*self.some(fills)]
        with make_connection() as con:
            for number, (dtype, fill) in enumerate(fills):
                self.create(con, f"{name}-{number}", 5, dtype, fill, chunk_size=2)
        with make_connection() as con:
            for number, (dtype, fill) in enumerate(fills):
                ds = con[f"{name}-{number}"]
                expected = np.full(5, np.array(fill, dtype))
                check(ds[...], expected, fill)
                assert ds.fillvalue.tobytes() == expected[0].tobytes()
                assert ds.written_chunks() == []

    def test_indices_read_as_in_numpy(self, con: dn.Connection, name: str) -> None:
        data = sample(SHAPE, "<i4", 1)
        ds = self.create(con, name, data=data, chunk_size=CHUNKS)
        for key in self.some(indices()):
            check(ds[key], data[key], key)
            if key is not None:
                check(ds.get_data(key), data[key], key)
        for value in ds[1, 2, 3], ds.get_data()[6, 9, 8]:
            assert isinstance(value, np.int32)

    def test_indices_write_as_in_numpy(self, con: dn.Connection, name: str) -> None:
        model = sample(SHAPE, "<i4", 1)
        ds = self.create(con, name, data=model, chunk_size=CHUNKS)
        for number, key in enumerate(self.some(indices())):
            shape = model[key].shape
            values: list[Any] = [number, sample(shape, "i4", number), sample(shape[1:], "f4")]
            value = values[number % 3]
            model[key] = value
            if number % 2 or key is None:
                ds[key] = value
            else:
                ds.set_data(value, key)
            check(ds[...], model, (key, np.shape(value)))

    def test_bad_indices_are_refused(self, con: dn.Connection, name: str) -> None:
        ds = self.create(con, name, SHAPE, chunk_size=CHUNKS)
        for key in self.some(BAD_INDICES):
            for use in (ds.__getitem__, lambda k: ds.__setitem__(k, 1)):
                with pytest.raises((IndexError, TypeError, ValueError)):
                    print(key, use(key))
        assert ds.written_chunks() == []

    def test_bad_values_are_refused_and_change_nothing(
        self, con: dn.Connection, name: str
    ) -> None:
        ds = self.create(con, name, (4, 6), "i4", chunk_size=(2, 4))
        for key, value in [
            (..., np.zeros(5)),
            (slice(0, 2), np.zeros((3, 6))),
            (0, [1, 2]),
            ((0, 0), [1, 2]),
            (..., "text"),
            ([0, 1], np.zeros((3, 6))),
            (..., np.float64("nan")),
            ((0, 0), np.float64("nan")),
        ]:
            with pytest.raises(ValueError, match=r"."):
                ds[key] = value
        for key in (..., 0, (0, 0)):
            with pytest.raises(OverflowError):
                ds[key] = np.int64(1 << 40)
            with pytest.raises(TypeError):
                ds[key] = np.datetime64("2020")
        assert ds.written_chunks() == []
        check(ds[...], np.zeros((4, 6), "i4"))

    def test_any_index_of_any_shape_reads_and_writes_as_in_numpy(
        self, con: dn.Connection, name: str
    ) -> None:
        numbers = iter(range(10**9))

        @settings(
            max_examples=self.examples, deadline=None, suppress_health_check=list(HealthCheck)
        )
        @given(st.data())
        def property_(data: st.DataObject) -> None:
            shape = tuple(
                data.draw(
                    st.lists(st.integers(0, 9), min_size=self.least_axes, max_size=3),
                    label="shape",
                )
            )
            chunks = tuple(data.draw(st.integers(1, 6), label="chunk") for _ in shape)
            model = sample(shape, "<i8", 5)
            own = f"{name}-{next(numbers)}"
            ds = self.create(con, own, data=model, chunk_size=chunks)
            for number in range(3):
                key = data.draw(keys(shape), label="key")
                check(ds[key], model[key], key)
                values = sample(model[key].shape, "<i8", number)
                model[key] = values
                ds[key] = values
                check(ds[...], model, key)
            ds.delete()

        property_()

    def test_the_last_of_duplicates_wins(self, con: dn.Connection, name: str) -> None:
        ds = self.create(con, name, (10,), "i8", chunk_size=3)
        ds[[4, 4, 9, 0, 4]] = [1, 2, 3, 4, 5]
        check(ds[...], np.array([4, 0, 0, 0, 5, 0, 0, 0, 0, 3]))

    def test_arrays_without_axes_or_elements(self, con: dn.Connection, name: str) -> None:
        options = self.create_options if self.least_axes == 0 else {}
        scalar = con.create_dataset(name, (), "f8", fillvalue=2, **options)
        assert (scalar.chunk_grid, scalar.total_chunks) == ((), 1)
        assert scalar[()] == 2
        scalar[...] = 3
        check(scalar[...], np.array(3.0))
        assert scalar.written_chunks() == [()]
        assert scalar.sum() == 3
        assert scalar.map(np.sqrt, name + "-root")[()] == np.sqrt(3.0)
        with pytest.raises(TypeError):
            len(scalar)
        empty = self.create(con, name + "-e", (3, 0), "f4", chunk_size=(2, 2))
        check(empty[...], np.zeros((3, 0), "f4"))
        empty[...] = 5
        assert empty.written_chunks() == []
        check(empty.map(np.sqrt, name + "-f")[1:], np.zeros((2, 0), "f4"))
        assert empty.sum() == 0
        with pytest.raises(ValueError, match="zero-size"):
            empty.max()

    def test_numpy_takes_a_dataset_as_an_array(self, con: dn.Connection, name: str) -> None:
        data = sample((5, 4), "<i2")
        ds = self.create(con, name, data=data, chunk_size=(2, 3))
        check(np.asarray(ds), data)
        check(np.asarray(ds, "f8"), data.astype("f8"))
        assert np.array_equal(np.add(ds, 1), data + 1)
        check(np.stack(list(ds)), data)
        check(np.asarray(ds.astype("f4")), data.astype("f4"))
        check(ds.astype("f4")[2:, 1], data[2:, 1].astype("f4"))
        with pytest.raises(ValueError, match="copy"):
            np.array(ds, copy=False)

    def test_reading_into_an_array(self, con: dn.Connection, name: str) -> None:
        data = sample((6, 8), "<i4")
        ds = self.create(con, name, data=data, chunk_size=(4, 3))
        out = np.full((6, 8), -1, "<i4")
        assert ds.read(out=out) is out
        check(out, data)
        for key in (slice(4, 1, -1), (..., 3), [5, 0], (None, 2)):
            part = np.zeros(data[key].shape, "f8")
            assert ds.read(key, out=part) is part
            assert np.array_equal(part, data[key]), key
        wide = np.zeros((12, 16), "i8")
        ds.read(out=wide[::2, ::-2])
        assert np.array_equal(wide[::2, ::-2], data)
        with pytest.raises(ValueError, match="shape"):
            ds.read(out=np.zeros((6, 7), "i4"))
        with pytest.raises(TypeError):
            ds.read(out=np.zeros((6, 8), "u1"))
        with pytest.raises(TypeError):
            ds.read(out=[0] * 48)  # type: ignore[arg-type]

    def test_what_was_read_is_a_copy(self, con: dn.Connection, name: str) -> None:
        ds = self.create(con, name, data=np.arange(6.0), chunk_size=3)
        for key in (..., slice(0, 3), slice(1, 5), 2, [0, 1]):
            part = np.atleast_1d(ds[key])
            part[...] = -1
        ds.get_chunk_data((0,))[...] = -1
        ds.get_chunk((0,)).get_data()[...] = -1
        source = np.ones(6)
        check(ds[...], np.arange(6.0))
        ds[...] = source
        ds.set_chunk_data((1,), source[:3])
        source[...] = -1
        check(ds[...], np.ones(6))

    def test_what_was_read_stays_as_it_was(self, con: dn.Connection, name: str) -> None:
        # Read in every way, keep all results, read on and write, and only then compare: a view
        # of memory that is used again, such as a record, would have changed by then.
        for number, dtype in enumerate([*self.some(self.dtypes[:-1]), self.dtypes[-1]]):
            model = sample((4, 4), dtype, number)
            own = f"{name}-{number}"
            ds = self.create(con, own, data=model, chunk_size=(2, 2))
            kept: list[tuple[Any, Any, Any]] = []
            # Two elements of each chunk, in turn with those of others.
            for key in [(i, j) for i in range(4) for j in range(i % 2, 4, 2)]:
                i, j = key
                kept.append((key, ds[key], model[key]))
                kept.append(("get_data", ds.get_data(key), model[key]))
                kept.append(("read", ds.read(key), model[key]))
                kept.append(("part", ds[i : i + 1, j:j], model[i : i + 1, j:j]))
                kept.append(("part", ds[i, j : j + 1], model[i, j : j + 1]))
                kept.append(("0-d", ds[i, j, ...], model[i, j, ...]))
                at, part = (i // 2, j // 2), (i % 2, j % 2)
                chunk = ds.get_chunk(at)
                kept.append(("chunk", ds.get_chunk_data(at, part), model[key]))
                kept.append(("handle", chunk[part], model[key]))
                kept.append(("handle", chunk.get_data(part), model[key]))
                square = model[at[0] * 2 :, at[1] * 2 :][:2, :2]
                kept.append(("chunk", ds.get_chunk_data(at), square))
                kept.append(("handle", chunk[...], square))
            kept += [("row", *pair) for pair in zip(ds, model, strict=True)]
            kept += [
                ("of a row", *pair)
                for rows in zip(list(ds), model, strict=True)
                for pair in zip(*rows, strict=True)
            ]
            kept = [(key, found, copy(expected)) for key, found, expected in kept]
            other = self.create(con, own + "-o", data=model[::-1, ::-1], chunk_size=(3, 3))
            check(other[...], model[::-1, ::-1])
            ds[...] = model[0, 0]
            ds[1, 1] = model[3, 3]
            check(ds[0, 0], model[0, 0])
            for key, found, expected in kept:
                check(found, expected, (dtype, key))

    def test_records_of_large_chunks_stay_as_they_were(
        self, con: dn.Connection, name: str
    ) -> None:
        # Only some of the bytes of such chunks are read.
        dtype = [("id", "<i4"), ("energy", "<f8")]
        model = sample((12_000,), dtype, 1)
        ds = self.create(con, name, data=model, chunk_size=5_000)
        places = [0, 4_999, 5_000, 11_999, 7_777, 3]
        kept = [(at, ds[at], ds[at : at + 1]) for at in places]
        for at, one, few in kept:
            check(one, model[at], at)
            check(few, model[at : at + 1], at)
        ds[0] = ds[11_999]
        model[0] = model[11_999]
        check(ds[...], model)

    def test_elements_are_assigned_to_others(self, con: dn.Connection, name: str) -> None:
        numbers = iter(range(10**9))

        @settings(
            max_examples=self.examples, deadline=None, suppress_health_check=list(HealthCheck)
        )
        @given(
            st.sampled_from(self.dtypes),
            st.integers(1, 9),
            st.integers(1, 4),
            st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=8),
        )
        def property_(dtype: Any, length: int, chunk: int, moves: list[tuple[int, int]]) -> None:
            model = sample((length,), dtype, length)
            own = f"{name}-{next(numbers)}"
            ds = self.create(con, own, data=model, chunk_size=chunk)
            for to, start in moves:
                i, j = to % length, start % length
                ds[i] = ds[j]
                model[i] = model[j]
                one, two = ds[i], ds[j]
                ds[j], ds[i] = one, two
                one, two = copy(model[i]), copy(model[j])
                model[j], model[i] = one, two
                ds[i : i + 2] = ds[j : j + 1]
                model[i : i + 2] = model[j : j + 1].copy()
                ds[i:i] = ds[j:j]
            elements = [ds[i] for i in range(length)]
            for i in range(length):
                check(elements[i], model[i], i)
            check(ds[...], model)
            ds.delete()

        property_()

    # -- chunks ---------------------------------------------------------------------------

    def test_reading_writes_nothing(self, con: dn.Connection, name: str) -> None:
        ds = self.create(con, name, (5, 7), "f8", chunk_size=(2, 3), fillvalue=4)
        check(ds[...], np.full((5, 7), 4.0))
        assert ds[1, 1] == 4
        chunk = ds.get_chunk((0, 0))
        check(chunk.get_data(), np.full((2, 3), 4.0))
        check(ds.get_chunk_data((2, 2)), np.full((1, 1), 4.0))
        assert ds.sum() == 140
        assert ds.verify().never_written == tuple(np.ndindex(3, 3))
        assert list(ds) is not None
        assert not any(ds.has_chunk(idx) for idx in np.ndindex(3, 3))
        assert ds.written_chunks() == []

    def test_chunks(self, con: dn.Connection, name: str) -> None:
        ds = self.create(con, name, (5, 7), "i4", chunk_size=(2, 3), fillvalue=9)
        model = np.full((5, 7), 9, "i4")
        made = ds.create_chunk((1, 1), data=np.arange(6).reshape(2, 3))
        model[2:4, 3:6] = np.arange(6).reshape(2, 3)
        assert isinstance(made, dn.DataChunk)
        assert (made.idx, made.shape, made.size, made.byte_count) == ((1, 1), (2, 3), 6, 24)
        assert (made.dtype, made.fillvalue, made.dataset) == (np.dtype("i4"), 9, ds)
        assert made.name != ds.get_chunk((1, 0)).name
        check(made.get_data(), model[2:4, 3:6])
        check(made[1, ::-1], model[3, 5:2:-1])
        made[0, 1:] = 50
        made.set_data(-1, (slice(None), 0))
        model[2, 4:6] = 50
        model[2:4, 3] = -1
        check(np.asarray(made), model[2:4, 3:6])
        check(ds[...], model)
        ds.create_chunk((0, 0), data=[3, 4], slices=(slice(None), 2))
        model[0:2, 2] = [3, 4]
        ds.create_chunk((0, 1))
        with pytest.raises(errors.ChunkExistsError):
            ds.create_chunk((1, 1))
        check(ds[...], model)
        assert ds.written_chunks() == [(0, 0), (0, 1), (1, 1)]
        assert [c.idx for c in ds.iter_chunks()] == list(np.ndindex(3, 3))
        assert ds.has_chunk((1, 1))
        assert ds.del_chunk((1, 1)) is True
        assert ds.del_chunk((1, 1)) is False
        assert not ds.has_chunk((1, 1))
        model[2:4, 3:6] = 9
        check(ds[...], model)
        check(made.get_data(), np.full((2, 3), 9, "i4"))
        ds.get_chunk((2, 0))[0] = 1
        assert ds.has_chunk((2, 0))

    def test_chunks_at_the_edge(self, con: dn.Connection, name: str) -> None:
        ds = self.create(con, name, (5, 7), "i4", chunk_size=(2, 3), fillvalue=9)
        model = np.full((5, 7), 9, "i4")
        check(ds.get_chunk_data((2, 2)), np.array([[9]], "i4"))
        ds.set_chunk_data((2, 2), 4)
        ds.set_chunk_data((2, 0), [[1, 2, 3]])
        ds.set_chunk_data((0, 2), [8], (1,))
        model[4, 6], model[4, :3], model[1, 6] = 4, [1, 2, 3], 8
        check(ds[...], model)
        check(ds.get_chunk_data((2, 0)), model[4:, :3])
        check(ds.get_chunk_data((2, 0), (0, slice(None, None, -1))), model[4, 2::-1])
        check(ds.get_chunk_data((2, 0), [0, 0]), model[[4, 4], :3])
        full = ds.get_chunk((2, 2))
        assert full.shape == (2, 3)
        check(full.get_data(), np.array([[4, 9, 9], [9, 9, 9]], "i4"))
        full.set_data(np.arange(6).reshape(2, 3))
        check(full.get_data(), np.array([[0, 9, 9], [9, 9, 9]], "i4"))
        full[[0, 1, 0], [0, 1, 2]] = [5, 6, 7]
        check(full[[0, 1, 0], [0, 1, 2]], np.array([5, 9, 9], "i4"))
        ds.resize((6, 9))
        check(ds[4:, 6:], np.array([[5, 9, 9], [9, 9, 9]], "i4"))
        with pytest.raises(ValueError, match="broadcast"):
            ds.set_chunk_data((2, 2), np.zeros((3, 3)))

    def test_chunks_outside_of_the_grid(self, con: dn.Connection, name: str) -> None:
        ds = self.create(con, name, (5, 7), "i4", chunk_size=(2, 3))
        for idx in [(3, 0), (0, 3), (-1, 0), (0,), (0, 0, 0), ()]:
            for use in (
                ds.get_chunk,
                ds.has_chunk,
                ds.del_chunk,
                ds.create_chunk,
                ds.get_chunk_data,
                lambda i: ds.set_chunk_data(i, 1),
            ):
                with pytest.raises(errors.ChunkIndexError):
                    print(idx, use(idx))
        with pytest.raises(TypeError):
            ds.get_chunk((0.0, 1))
        with pytest.raises(IndexError):
            ds.get_chunk_data((2, 2), (1, 0))
        assert ds.written_chunks() == []

    def test_only_the_chunks_touched_are_written(self, con: dn.Connection, name: str) -> None:
        ds = self.create(con, name, (9, 9), "i2", chunk_size=(3, 3))
        ds[4, 4] = 1
        ds[7:, :2] = 2
        ds[[0, 1], [8, 8]] = 3
        assert ds.written_chunks() == [(0, 2), (1, 1), (2, 0)]
        found = ds.verify()
        assert found.good
        assert sorted(found.ok + found.unchecked) == ds.written_chunks()
        assert len(found.never_written) == 6
        assert bool(found.ok) == ds.guarantees.checksum

    # -- attributes -----------------------------------------------------------------------

    def test_attributes(self, make_connection: MakeConnection, name: str) -> None:
        values: dict[str, Any] = {
            "none": None,
            "flag": True,
            "number": -3,
            "big": 2**70,
            "float": 0.1,
            "infinite": float("-inf"),
            "text": "\u00e5ngstr\u00f6m \U0001f600 \x00",
            "list": [1, "a", [None, 2.5]],
            "nested": {"a": {"b": [1]}, "__numpy__": "no array", "": 0},
            "": "an empty name",
            "shape": "no collision",
            "fillvalue/dtype": 1,
            "long": "x" * 100_000,
        }
        arrays: dict[str, Any] = {
            "float32": np.float32(1.5),
            "when": np.datetime64("2020-01-01"),
            "array": np.arange(6, dtype=">i2").reshape(2, 3),
            "strings": np.array(["a", "bc"]),
            "records": sample((3,), [("a", "i4"), ("b", "f8")]),
        }
        with make_connection() as con:
            attrs = self.create(con, name, (4,)).attrs
            for key, value in values.items():
                attrs[key] = value
            attrs.update(arrays)
            attrs["tuple"] = (1, 2)
        with make_connection() as con:
            ds = con[name]
            assert set(ds.attrs) == {*values, *arrays, "tuple"}
            assert {k: ds.attrs[k] for k in values} == values
            assert np.isnan(ds.attrs.setdefault("nan", float("nan")))
            for key, value in arrays.items():
                check(ds.attrs[key], value, key)
            assert ds.attrs["tuple"] == [1, 2]
            assert ds.shape == (4,)
            ds.attrs["list"].append(3)
            assert ds.attrs["list"] == values["list"]
            del ds.attrs["list"]
            assert "list" not in ds.attrs
            assert ds.attrs.pop("number") == -3
            assert ds.attrs.get("number") is None
            with pytest.raises(KeyError):
                print(ds.attrs["absent"])
            with pytest.raises(KeyError):
                del ds.attrs["absent"]
            before = dict(ds.attrs)
            bad: list[Any] = [object(), {1, 2}, {1: 2}, np.array([None]), b"bytes"]
            for value in bad:
                with pytest.raises(TypeError):
                    ds.attrs["bad"] = value
            with pytest.raises(TypeError):
                ds.attrs[3] = 1  # type: ignore[index]
            assert before.keys() == ds.attrs.keys()
            ds.attrs.clear()
            assert dict(con[name].attrs) == {}
            check(ds[...], np.zeros(4, "f4"))
