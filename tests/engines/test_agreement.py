"""What ranks compare before a collective call: equal arguments are told equal, others apart."""

from __future__ import annotations

import dataclasses
import enum
import os
import pathlib
import subprocess
import sys
from collections import OrderedDict
from functools import partial
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import HANG, require

import dosna as dn
from dosna.engines.mpi.agreement import meaning
from dosna.sources import open_source


def described(value):
    return repr(meaning(value))


@dataclasses.dataclass
class Box:
    size: int
    parts: object = ()


@dataclasses.dataclass(frozen=True)
class Frozen:
    size: int


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Plain:
    def __init__(self, value):
        self.value = value


class Opaque:
    def __init__(self, value):
        self.value = value

    def __reduce_ex__(self, version):
        raise TypeError("it cannot be pickled")


class Worker:
    """As scripts have them: it knows its rank, and works on blocks."""

    def __init__(self, rank):
        self.rank = rank

    def work(self, block):
        return block

    def __call__(self, block):
        return block


def closing_over(value):
    return lambda block: block + value


def with_default(value):
    return lambda block, by=value: block + by


def noting(seen):
    return lambda block: seen.append(block) or block


def each_other(number):
    def one(block):
        return two(block) + number

    def two(block):
        return one(block) - number

    return one


EQUAL = [
    (np.dtype("f4"), np.dtype("float32")),
    (np.dtype([("a", "<f4")]), np.dtype([("a", np.float32)])),
    ([("a", np.float32)], [("a", np.float32)]),
    ([3, 4], (3, 4)),
    ({"a": 1, "b": [2]}, {"b": [2], "a": 1}),
    ({"a": 1}, OrderedDict(a=1)),
    ({"a": 1}, MappingProxyType({"a": 1})),
    ({1, 2, "x"}, {"x", 2, 1}),
    ({1, 2}, frozenset([2, 1])),
    (pathlib.Path("/a/b"), pathlib.PurePosixPath("/a/b")),
    (pathlib.Path("a"), pathlib.Path(os.getcwd()) / "a"),
    (Box(1, {"x": {1}}), Box(1, {"x": {1}})),
    (Colour.RED, Colour(1)),
    (float("nan"), float("nan")),
    (np.arange(3), np.arange(6)[:3]),
    (np.arange(3), np.arange(5)[::2] // 2),
    (np.array(["a", None], object), np.array(["a", None], object)),
    (np.ma.array([1, 2], mask=[0, 1]), np.ma.array([1, 2], mask=[0, 1])),
    (partial(np.add, 1, out=None), partial(np.add, 1, out=None)),
    (closing_over(3), closing_over(3)),
    (noting([1]), noting([])),
    (Worker(0).work, Worker(1).work),
    (Worker(0), Worker(1)),
    (each_other(1), each_other(1)),
    (Plain({1: 2}), Plain({1: 2})),
    (Opaque(1), Opaque(2)),
    (range(3), range(0, 3, 1)),
    (slice(1, 2), slice(1, 2)),
    (..., Ellipsis),
    (memoryview(b"ab"), bytearray(b"ab")),
]

DIFFERENT = [
    (np.float32, np.float64),
    (np.float32, np.dtype("f4").newbyteorder()),
    (np.bool_, bool),
    (np.dtype("f4"), np.dtype(">f4")),
    (np.dtype("V2"), np.dtype("u2")),
    (np.dtype([("a", "f4")]), np.dtype([("b", "f4")])),
    (np.dtype({"names": ["a"], "formats": ["i4"], "offsets": [0], "itemsize": 8}), "V8"),
    (np.dtype("O", metadata={"vlen": str}), np.dtype("O", metadata={"vlen": bytes})),
    ({"a": 1}, {"a": 2}),
    ({1: 1}, {"1": 1}),
    ({1}, {2}),
    (pathlib.Path("/a"), pathlib.Path("/b")),
    (Box(1), Box(2)),
    (Box(1), Frozen(1)),
    (Box(1, [{3}]), Box(1, [{4}])),
    (Colour.RED, Colour.BLUE),
    (Level.LOW, Level.HIGH),
    (Level.LOW, 1),
    (1, True),
    (np.float32(1), np.float64(1)),
    (np.float32(1), np.float32(2)),
    (np.datetime64("2020-01-01"), np.datetime64("2020-01-02")),
    (np.arange(3), np.arange(3.0)),
    (np.arange(3), np.arange(1, 4)),
    (np.arange(1 << 16), np.arange(1, (1 << 16) + 1)),
    (np.array(["a", None], object), np.array(["a", "b"], object)),
    (np.ma.array([1, 2], mask=[0, 1]), np.ma.array([1, 2], mask=[1, 0])),
    (np.zeros(2, [("a", "i4")]), np.ones(2, [("a", "i4")])),
    (np.sqrt, np.cos),
    (len, sum),
    (partial(np.add, 1), partial(np.add, 2)),
    (closing_over(3), closing_over(4)),
    (closing_over((1, "a")), closing_over((1, "b"))),
    (closing_over(np.zeros(2)), closing_over(np.ones(2))),
    (closing_over(Frozen), closing_over(Box)),
    (with_default(3), with_default(4)),
    (lambda block: block, lambda block: block + 1),
    (lambda block: block in {1, 2}, lambda block: block in {1, 3}),
    (each_other(1), each_other(2)),
    (Plain({1}), Plain({2})),
    (range(3), range(4)),
    (slice(1, 2), slice(1, 3)),
    (b"a", "a"),
]


@pytest.mark.parametrize("number", range(len(EQUAL)))
def test_equal_arguments_are_described_equally(number):
    one, other = EQUAL[number]
    assert described(one) == described(other)


@pytest.mark.parametrize("number", range(len(DIFFERENT)))
def test_different_arguments_are_told_apart(number):
    one, other = DIFFERENT[number]
    assert described(one) != described(other)
    assert described([{"a": one}]) != described([{"a": other}])
    assert described(one) == described(one)


@pytest.mark.skipif(not hasattr(np.dtypes, "StringDType"), reason="NumPy 2")
def test_text_of_variable_length():
    string, missing = np.dtypes.StringDType, object()
    one, other = np.array(["a", "longer than what lies inside"] * 2, string()), np.array(["a"])
    assert described(one) == described(one.copy())
    assert described(one) != described(one[::-1])
    assert described(one) != described(other)
    assert described(string()) == described(string())
    assert described(string(na_object=missing)) == described(string(na_object=object()))
    assert described(string(na_object=np.nan)) != described(string())
    assert described(string(coerce=False)) != described(string())


def test_what_lies_between_fields_does_not_count():
    padded = np.dtype({"names": ["a", "b"], "formats": ["u1", "i4"], "offsets": [0, 4]})
    one, other = np.zeros(8, "u1").view(padded), np.full(8, 255, "u1").view(padded)
    other[...] = one[0].item()
    assert one.tobytes() != other.tobytes()
    assert described(one) == described(other)
    assert described(one[0]) == described(other[0])


def test_files_of_hdf5_are_told_apart(tmp_path):
    h5py = require("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as one, h5py.File(tmp_path / "b.h5", "w") as other:
        for file in (one, other):
            file["x"] = file["y"] = np.arange(3)
        assert described(one["x"]) == described(one["x"])
        assert described(one["x"]) != described(one["y"])
        assert described(one["x"]) != described(other["x"])


def test_sources_and_datasets(tmp_path):
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", np.arange(3))
    one, other = open_source(tmp_path / "a.npy"), open_source(tmp_path / "b.npy")
    assert described(one) == described(open_source(tmp_path / "a.npy"))
    assert described(one) != described(other)
    with dn.Connection("agreement", backend="ram", engine="cpu") as con:
        first, second = (con.create_dataset(name, data=np.arange(3)) for name in "ab")
        assert described(first) == described(con["a"])
        assert described(first) != described(second)
        assert described(first.astype("f4")) == described(con["a"].astype(np.float32))
        assert described(first.astype("f4")) != described(first.astype("f8"))


def test_what_contains_itself_ends(monkeypatch):
    monkeypatch.setattr("dosna.engines.mpi.agreement._MOST_PARTS", 10_000)
    one: list = [1]
    one += [one, one]
    assert described(one)[:4] == "(1, "


PLAIN = st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.binary(max_size=3)
TREES = st.recursive(
    PLAIN | st.frozensets(PLAIN, max_size=3),
    lambda inner: st.tuples(inner, inner) | st.dictionaries(PLAIN, inner, max_size=3),
    max_leaves=8,
)


def typed(value):
    """Give a value of which Python's == also tells 1 from True."""
    if isinstance(value, tuple):
        return [typed(v) for v in value]
    if isinstance(value, frozenset):
        return {(type(v), v) for v in value}
    if isinstance(value, dict):
        return {(type(k), k): typed(v) for k, v in value.items()}
    return type(value), value


@given(TREES, TREES)
def test_equal_means_equal(one, other):
    assert (described(one) == described(other)) == (typed(one) == typed(other))


@pytest.mark.slow
def test_it_is_the_same_in_every_process():
    # Sets and the hashes of text are in another order in each.
    program = (
        "import pathlib, sys; sys.path[:0] = ['tests', 'tests/engines']\n"
        "from test_agreement import *\n"
        "names = {'alpha', 'beta', 'gamma', 'delta'}\n"
        "print(described([e for e in EQUAL if not isinstance(e[0], np.ndarray)]))\n"
        "print(described([names, dict.fromkeys(names), closing_over(frozenset(names))]))\n"
        "print(described(lambda b: b in {'x', 'y', 'z'}))\n"
    )
    root = pathlib.Path(__file__).resolve().parents[2]
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=root,
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            check=True,
            timeout=HANG,
        ).stdout
        for seed in (1, 2)
    }
    assert len(found) == 1
