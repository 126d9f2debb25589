"""Conformance of datasets of text, whose elements have no fixed length.

The file is long because its tests are one class, which a backend or engine takes as a whole.
"""

from __future__ import annotations

import pickle
from itertools import count
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dosna as dn
from dosna import errors
from dosna.core.types import Array
from dosna.testing.base import Kit, MakeConnection
from dosna.testing.samples import CHUNKS, SHAPE, check, indices, keys, sample

TEXT = np.dtypes.StringDType()

VALUES: tuple[Any, ...] = (
    "text",
    "",
    "long " * 1000,
    "\u00e4\U0001f600",
    b"bytes of UTF-8: \xc3\xa4",
    np.str_("of NumPy"),
    np.bytes_(b"bytes"),
    ["a", "bc", "def", "", "g"],
    ["a", b"b", np.str_("c"), "d" * 50, "e"],
    [["a"], ["b" * 20], ["c"]],
    np.array(["a", "bc", "def", "g", "h"]),
    np.array([b"a", b"bc", b"def", b"g", b"h"]),
    np.array(["a", "bc" * 10, b"def", "", np.str_("h")], object),
    np.array(["a", "bc" * 10, "def", "", "h"], TEXT),
    np.array("no axes", TEXT),
    np.array(["without a missing one"] * 5, np.dtypes.StringDType(na_object=None)),
    np.array(["no coercion"] * 5, np.dtypes.StringDType(coerce=False)),
)
"""Values that can be assigned to an array of text of shape (3, 5)."""

BAD_VALUES: tuple[Any, ...] = (
    None,
    5,
    float("nan"),
    True,
    np.float64(1),
    np.datetime64("2020-01-01"),
    ["a", None, "c", "d", "e"],
    ["a", float("nan"), "c", "d", "e"],
    ["a", 1, "c", "d", "e"],
    np.arange(5),
    np.array(["a", None, "c", "d", "e"], object),
    np.array(["a", np.nan, "c", "d", "e"], np.dtypes.StringDType(na_object=np.nan)),
    np.array(["a", None, "c", "d", "e"], np.dtypes.StringDType(na_object=None)),
    [["a", "b"], "c"],
    "half a character: \ud800",
    np.array("half a character: \ud800"),
    b"not UTF-8: \xff",
    np.array([b"not UTF-8: \xff"]),
)
"""Values that cannot."""


def as_numpy(value: Any) -> Array:
    """Return values as an array of text, where NumPy would not convert them as intended."""
    array = np.asarray(value, object)
    texts = [v.decode() if isinstance(v, bytes) else str(v) for v in array.flat]
    return np.array(texts, TEXT).reshape(array.shape)


class TextTests(Kit):
    """Tests of text in all operations that take numbers."""

    @pytest.fixture
    def words(self, con: dn.Connection) -> Array:
        """Return an array of text; skip the test if the store does not hold text."""
        if not con.instance.stores_text:
            pytest.skip("the store takes no text")
        return sample((10, 7), "T", 4)

    @pytest.fixture
    def text(self, con: dn.Connection, name: str, words: Array) -> dn.Dataset:
        """Return a dataset of `words`, whose chunks do not divide its extent."""
        return self.create(con, name, data=words, chunk_size=(4, 3), fillvalue="fill")

    def test_text_is_stored_or_refused(self, con: dn.Connection, name: str) -> None:
        if not con.instance.stores_text:
            with pytest.raises(TypeError, match="fixed length"):
                self.create(con, name, (3,), str)
            assert name not in con

    def test_spellings_of_text(
        self, make_connection: MakeConnection, words: Array, name: str
    ) -> None:
        kinds: list[Any] = [str, np.dtype(str), "string", "T", TEXT]
        kinds.append(np.dtypes.StringDType(coerce=False))
        with make_connection() as con:
            for number, dtype in enumerate(kinds):
                ds = self.create(con, f"{name}-{number}", (3,), dtype)
                ds[1] = "b"
            given: list[Any] = [
                words[0, :3],
                words[0, :3].astype(np.dtypes.StringDType(na_object=np.nan)),
                words[0, :3].astype(np.dtypes.StringDType(coerce=False)),
            ]
            for number, data in enumerate(given):
                self.create(con, f"{name}-data-{number}", data=data)
            for number, data in enumerate([["a", "bc"], np.array(["a", "bc"], object)]):
                self.create(con, f"{name}-list-{number}", data=data, dtype=str)
            again = con.require_dataset(name + "-0", (3,), str, exact=True)
            check(again[...], np.array(["", "b", ""], TEXT))
        with make_connection() as con:
            for number in range(len(kinds)):
                ds = con[f"{name}-{number}"]
                assert (ds.dtype, ds.fillvalue) == (TEXT, "")
                check(ds[...], np.array(["", "b", ""], TEXT))
            for number in range(len(given)):
                check(con[f"{name}-data-{number}"][...], words[0, :3])
            for number in range(2):
                check(con[f"{name}-list-{number}"][...], np.array(["a", "bc"], TEXT))
            missing: list[dict[str, Any]] = [
                {"shape": 3, "dtype": np.dtypes.StringDType(na_object=np.nan)},
                {"data": np.array(["a", None], np.dtypes.StringDType(na_object=None))},
                {"data": ["a", None], "dtype": str},
                {"data": [1, 2], "dtype": str},
                {"data": np.array(["a"], object)},
            ]
            for options in missing:
                with pytest.raises(TypeError):
                    self.create(con, name, **options)
                assert name not in con, options
            with pytest.raises(ValueError, match="str"):
                self.create(con, name, 3, str, 5)

    def test_indices_of_text_read_and_write_as_in_numpy(
        self, con: dn.Connection, words: Array, name: str
    ) -> None:
        model = sample(SHAPE, "T", 1)
        ds = self.create(con, name, data=model, chunk_size=CHUNKS)
        for number, key in enumerate(self.some(indices())):
            check(ds[key], model[key], key)
            value: Any = f"{number}" if number % 2 else sample(np.shape(model[key]), "T", number)
            ds[key] = value
            model[key] = value
            check(ds[key], model[key], key)
            if number % 8 == 0:
                check(ds[...], model, key)
        check(ds[...], model)

    def test_any_texts_of_any_shape_and_index(
        self, con: dn.Connection, words: Array, name: str
    ) -> None:
        numbers = count()
        banned = "" if con.instance.nul_in_text else "\0"
        characters = st.characters(codec="utf-8", exclude_characters=banned)
        texts = st.lists(st.text(characters, max_size=40), min_size=1, max_size=6)

        @settings(
            max_examples=self.examples, deadline=None, suppress_health_check=list(HealthCheck)
        )
        @given(st.data(), texts)
        def property_(data: st.DataObject, some: list[str]) -> None:
            shape = tuple(
                data.draw(
                    st.lists(st.integers(0, 7), min_size=self.least_axes, max_size=3),
                    label="shape",
                )
            )
            chunks = tuple(data.draw(st.integers(1, 5), label="chunk") for _ in shape)
            model = np.resize(np.array(some, TEXT), shape)
            ds = self.create(
                con, f"{name}-{next(numbers)}", data=model, chunk_size=chunks, fillvalue=some[0]
            )
            for _ in range(2):
                key = data.draw(keys(shape), label="key")
                check(ds[key], model[key], key)
                values = np.resize(np.array(some[::-1], TEXT), np.shape(model[key]))
                model[key] = values
                ds[key] = values
                check(ds[...], model, key)
            ds.delete()

        property_()

    def test_what_is_assigned_to_text(self, con: dn.Connection, words: Array, name: str) -> None:
        ds = self.create(con, name, (3, 5), str, chunk_size=(2, 2), fillvalue="fill")
        model = np.full((3, 5), "fill", TEXT)
        for value in VALUES:
            for key in (slice(None), (slice(0, 3), slice(0, 5)), slice(None, None, -1)):
                expected = as_numpy(value)
                ds[key] = value
                model[key] = expected
                check(ds[...], model, value)
        ds[1, 1] = "one"
        model[1, 1] = "one"
        for value in BAD_VALUES:
            places: list[Any] = [..., (0, 0), slice(0, 2)]
            for key in places:
                with pytest.raises((TypeError, ValueError)):
                    ds[key] = value
            with pytest.raises((TypeError, ValueError)):
                ds.set_chunk_data((0, 0), value)
        for value in (["a"] * 2, np.array(["a"] * 2, TEXT), np.array([["a", "b", "c"]], object)):
            with pytest.raises(ValueError, match=r"."):
                ds[0, 0] = value
            with pytest.raises(ValueError, match=r"."):
                ds[0] = value
        check(ds[...], model)
        check(ds[1, 1], "one")
        ds[...] = np.array([["x"]], object)
        check(ds[...], np.full((3, 5), "x", TEXT))

    def test_nul_in_text(self, con: dn.Connection, words: Array, name: str) -> None:
        data = np.array(["\0", "a\0b", "c\0", "d", "\0\0"], TEXT)
        if not con.instance.nul_in_text:
            ds = self.create(con, name, (5,), str, chunk_size=2)
            ds[3] = "d"
            with pytest.raises(ValueError, match="NUL"):
                ds[:3] = data[:3]
            with pytest.raises(ValueError, match="NUL"):
                ds[1] = "a\0b"
            with pytest.raises(ValueError, match="NUL"):
                self.create(con, name + "-b", (5,), str, "a\0")
            check(ds[3], "d")
            return
        ds = self.create(con, name, (5,), str, chunk_size=2, fillvalue="f\0")
        check(ds[...], np.array(["f\0"] * 5, TEXT))
        ds[1] = "a\0"
        check(ds[...], np.array(["f\0", "a\0", *["f\0"] * 3], TEXT))
        ds[...] = data
        check(con[name][...], data)
        assert [ds[i] for i in range(5)] == data.tolist()
        check(ds.clone(name + "-b", data=True)[...], data)
        ds.resize(3)
        ds.resize(5)
        check(ds[...], np.array([*data[:3], "f\0", "f\0"], TEXT))
        assert con[name].fillvalue == "f\0"
        # A copy leaves out chunks of fill only where both fill values are the same.
        sparse = self.create(con, name + "-s", (4,), str, chunk_size=2, fillvalue="f\0")
        other = self.create(con, name + "-o", (4,), str, chunk_size=2, fillvalue="f")
        other.load(sparse)
        check(other[...], np.array(["f\0"] * 4, TEXT))
        sparse.load(self.create(con, name + "-p", (4,), str, chunk_size=2, fillvalue="f"))
        check(sparse[...], np.array(["f"] * 4, TEXT))

    def test_text_is_converted(
        self, con: dn.Connection, text: dn.Dataset, words: Array, name: str
    ) -> None:
        longest = f"U{max(map(len, words.flat))}"
        check(text.astype(longest)[...], words.astype(longest))
        assert text.astype("U3")[1, 1] == words[1, 1][:3]
        out = np.empty(words.shape, longest)
        text.read(out=out)
        check(out, words.astype(longest))
        objects = np.empty(words.shape, object)
        text.read(out=objects)
        assert objects.tolist() == words.tolist()
        digits = self.create(con, name + "-d", data=np.array(["1", "22"], TEXT))
        check(digits.astype("i4")[...], np.array([1, 22], "i4"))
        fixed = self.create(con, name + "-u", words.shape, longest, chunk_size=(3, 3))
        fixed[...] = text
        check(fixed[...], words.astype(longest))
        text[...] = "x"
        text[...] = fixed
        check(text[...], words)
        numbers = self.create(con, name + "-n", (3,), "i4")
        with pytest.raises(ValueError, match="invalid literal"):
            numbers[...] = np.array(["a", "b", "c"], TEXT)
        with pytest.raises(TypeError, match="text"):
            text[0, :3] = numbers
        assert numbers.written_chunks() == []

    def test_text_of_the_other_byte_order(
        self, con: dn.Connection, words: Array, name: str
    ) -> None:
        # NumPy 2.0 to 2.5 takes the bytes of the first for those of another character.
        words = np.array([["\u0100b", "\u20ac"], ["", "\U0001f600"]], TEXT)
        swapped = words.astype("U2").astype(">U2")
        text = self.create(con, name, data=swapped, dtype=str, chunk_size=(1, 2))
        fixed = self.create(con, name + "-u", data=words, dtype=">U2", chunk_size=(2, 1))
        check(text[...], words)
        check(fixed[...], swapped)
        assert fixed.compare(text).equal
        assert text.compare(swapped).equal
        for one, into in ((text, swapped), (fixed, words)):
            check(one.astype(into.dtype)[...], into)
            check(np.asarray(one, into.dtype), into)
            check(one.read(out=np.empty_like(into)), into)
        assert fixed.astype(TEXT)[0, 0] == words[0, 0]
        check(text.map(np.copy, name + "-m", dtype=">U2")[...], swapped)
        for other in (words, text):
            fixed[...] = ""
            fixed.load(other)
            check(fixed[...], swapped)
            fixed[::-1] = other
            check(fixed[...], swapped[::-1])
        text[...] = fixed
        check(text[...], words[::-1])
        text.append(swapped)
        check(text[2:], words)
        digits = self.create(con, name + "-d", data=np.array(["1", "22"], TEXT))
        check(digits.astype(">i4")[...], np.array([1, 22], ">i4"))
        check(digits.astype("c8")[...], np.array([1, 22], "c8"))

    def test_chunks_of_text(self, text: dn.Dataset, words: Array) -> None:
        model = words.copy()
        check(text.get_chunk_data((2, 2)), model[8:, 6:])
        text.set_chunk_data((2, 2), "edge")
        model[8:, 6:] = "edge"
        chunk = text.get_chunk((0, 0))
        check(chunk[...], model[:4, :3])
        assert (chunk.size, chunk.dtype) == (12, TEXT)
        chunk[1, ::-1] = ["a", "b" * 30, "c"]
        model[1, 2::-1] = ["a", "b" * 30, "c"]
        check(text[...], model)
        full = text.get_chunk((2, 2))
        check(full[...], np.array([["edge", "fill", "fill"]] * 2 + [["fill"] * 3] * 2, TEXT))
        assert text.del_chunk((0, 0))
        model[:4, :3] = "fill"
        check(text[...], model)
        text.create_chunk((0, 0), ["new", "b", "c"], 2)
        model[2, :3] = ["new", "b", "c"]
        check(text[...], model)
        with pytest.raises(errors.ChunkExistsError):
            text.create_chunk((0, 0), "x")
        with pytest.raises(TypeError, match="text"):
            text.set_chunk_data((0, 0), None)
        found = text.verify()
        assert found.good
        assert bool(found.ok) == text.guarantees.checksum
        check(text[...], model)

    def test_operations_on_text(
        self, con: dn.Connection, text: dn.Dataset, words: Array, name: str
    ) -> None:
        twice = np.strings.add(words, words)
        made = text.map(doubled, name + "-m")
        assert (made.dtype, made.fillvalue) == (TEXT, "fill")
        check(made[...], twice)
        lengths = text.map(np.strings.str_len, name + "-n")
        check(lengths[...], np.strings.str_len(words))
        assert lengths.sum() == np.strings.str_len(words).sum()
        check(lengths.map(as_words, name + "-s")[...], np.strings.str_len(words).astype(TEXT))
        check(lengths.map(as_objects, name + "-o", dtype=str)[...], lengths[...].astype(TEXT))
        text.apply(doubled)
        check(text[...], twice)
        with pytest.raises(TypeError, match="text"):
            text.apply(np.strings.str_len)
        with pytest.raises(TypeError, match="text"):
            text.map(np.strings.str_len, name + "-x", dtype=str)
        assert name + "-x" not in con
        check(text.clone(name + "-c", data=True)[...], twice)
        assert text.compare(twice).equal
        assert text.compare(twice, exact=True).equal
        assert text.compare(twice.astype("U400")).equal
        other = twice.copy()
        other[9, 6] = other[9, 6] + "."
        found = text.compare(other)
        assert (found.elements, found.first) == (1, (9, 6))
        with pytest.raises(TypeError):
            text.compare(np.zeros(words.shape))
        for op in ("sum", "mean", "min", "max"):
            with pytest.raises(TypeError, match="text"):
                text.reduce(op)
        text.load(words)
        check(text[...], words)
        text.load(words.tolist())
        check(text[...], words)
        text.load(words.astype(object))
        check(text[...], words)
        objects = _Sliced(words.astype(object))
        text.clear()
        assert text.written_chunks() == []
        text.load(objects)
        check(text[...], words)
        objects.data[9, 6] = None
        with pytest.raises(TypeError, match="NoneType"):
            text.load(objects)

    def test_text_with_a_halo(self, text: dn.Dataset, words: Array, name: str) -> None:
        expected = np.strings.add(words, np.roll(words, 1, 1))
        made = text.map(with_left, name + "-b", halo=(0, 1), boundary="wrap")
        check(made[...], expected)
        for cval, number in (("edge", 0), (0, 1)):
            made = text.map(
                with_left, f"{name}-c{number}", halo=(0, 1), boundary="constant", cval=cval
            )
            expected[:, 0] = np.strings.add(words[:, 0], str(cval or ""))
            check(made[...], expected)
        with pytest.raises(ValueError, match="str"):
            text.map(with_left, name + "-d", halo=1, boundary="constant", cval=1.5)

    def test_text_grows_and_shrinks(self, text: dn.Dataset, words: Array) -> None:
        model = words
        for shape in [(14, 7), (14, 9), (5, 9), (5, 2), (6, 6)]:
            grown = np.full(shape, "fill", TEXT)
            both = tuple(slice(0, min(a, b)) for a, b in zip(shape, model.shape, strict=True))
            grown[both] = model[both]
            model = grown
            text.resize(shape)
            check(text[...], model, shape)
        text.append([["appended"] * 6, list("abcdef")])
        model = np.concatenate([model, np.array([["appended"] * 6, list("abcdef")], TEXT)])
        check(text[...], model)
        with pytest.raises(TypeError, match="NoneType"):
            text.append(np.array([[None] * 6]))
        check(text[...], model)

    def test_text_is_copied(
        self,
        con: dn.Connection,
        other: dn.Connection,
        text: dn.Dataset,
        words: Array,
        name: str,
    ) -> None:
        with other:
            copied = text.copy(other, chunk_size=(6, 6))
            check(copied[...], words)
            assert copied.fillvalue == "fill"
            back = self.create(con, name + "-back", data=copied, chunk_size=(5, 5))
            check(back[...], words)

    def test_memory_limit_of_text(self, text: dn.Dataset, words: Array, name: str) -> None:
        text.load(words, memory_limit="1M")
        check(text[...], words)
        with pytest.raises(errors.MemoryLimitError):
            text.load(words, memory_limit=900)

    def test_text_in_attributes(
        self, make_connection: MakeConnection, words: Array, name: str
    ) -> None:
        attrs = {
            "texts": np.array([["a", "b\0"], ["", "\u00e4" * 40]], TEXT),
            "none": np.array([], TEXT),
            "one": np.array("no axes", TEXT),
            "list": ["a", "b"],
            "text": "a",
        }
        with make_connection() as con:
            ds = self.create(con, name, (2,), str, attrs=attrs)
            ds.attrs["more"] = attrs["texts"]
            with pytest.raises(TypeError):
                ds.attrs["bad"] = np.array(["a", None], np.dtypes.StringDType(na_object=None))
        with make_connection() as con:
            ds = con[name]
            assert set(ds.attrs) == {*attrs, "more"}
            for key, value in {**attrs, "more": attrs["texts"]}.items():
                if isinstance(value, np.ndarray):
                    check(ds.attrs[key], value, key)
                else:
                    assert ds.attrs[key] == value

    def test_a_handle_of_text_can_be_pickled(
        self, con: dn.Connection, text: dn.Dataset, words: Array
    ) -> None:
        if con.instance.shared_between_processes:
            again = pickle.loads(pickle.dumps(text))
            check(again[...], words)
            again[3, 3] = "from the other"
            assert text[3, 3] == "from the other"


class _Sliced:
    """A source of objects."""

    def __init__(self, data: Array) -> None:
        self.data, self.shape, self.dtype = data, data.shape, data.dtype

    def __getitem__(self, key: Any) -> Array:
        block: Array = self.data[key]
        return block


def doubled(block: Array) -> Array:
    """Return each text twice in a row."""
    assert block.dtype == TEXT
    return np.asarray(np.strings.add(block, block))


def as_words(block: Array) -> Array:
    """Return numbers as text."""
    return block.astype(TEXT)


def as_objects(block: Array) -> Array:
    """Return numbers as str objects."""
    return np.asarray(block.astype("U").astype(object))


def with_left(block: Array) -> Array:
    """Join each text to the one before it."""
    return np.asarray(np.strings.add(block, np.roll(block, 1, 1)))
