"""Random columns and random expressions over them, and what Awkward makes of these."""

from __future__ import annotations

import functools
import operator

import awkward as ak
import numpy as np
from hypothesis import strategies as st

from dosna.query.expressions.nodes import (
    Binary,
    Call,
    Column,
    Compare,
    In,
    Item,
    Literal,
    Logical,
    Mask,
    Unary,
)

INTS = ("int8", "uint8", "int32", "int64", "uint64")
FLOATS = ("float32", "float64")
SPECIAL = {
    "int8": [-128, -1, 0, 1, 127],
    "uint8": [0, 1, 255],
    "int32": [-(2**31), 0, 2**31 - 1],
    "int64": [-(2**63), 0, 2**53, 2**53 + 1, 2**63 - 1],
    "uint64": [0, 1, 2**53 + 1, 2**63, 2**64 - 1],
    "float32": [0.0, -0.0, np.nan, np.inf, -np.inf, 0.1, 16777217.0],
    "float64": [0.0, -0.0, np.nan, np.inf, -np.inf, 0.1, 2.0**53],
    "bool": [False, True],
}
FLAT = {f"f_{dtype}": dtype for dtype in (*INTS, *FLOATS, "bool")}
OPTIONAL = {f"o_{dtype}": dtype for dtype in ("int32", "float32", "bool")}
LISTS = {f"l_{dtype}": dtype for dtype in ("int8", "uint64", "float32", "float64", "bool")}
NESTED = {"n_float64": "float64", "n_int32": "int32"}
TEXTS = ["", "a", "mu", "é"]


@st.composite
def columns(draw, most=8):
    """Columns of one tree by their names. All lists of a level have the same lengths."""
    length = draw(st.integers(0, most))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    counts = rng.integers(0, draw(st.integers(1, 4)), length)
    counts = counts + draw(st.integers(0, 1))
    inner = rng.integers(0, 3, counts.sum())
    found = {name: ak.Array(numbers(rng, dtype, length)) for name, dtype in FLAT.items()}
    for name, dtype in OPTIONAL.items():
        mask = ak.index.Index8(rng.integers(0, 2, length, np.int8))
        data = ak.contents.NumpyArray(numbers(rng, dtype, length))
        found[name] = ak.Array(ak.contents.ByteMaskedArray(mask, data, valid_when=True))
    for name, dtype in LISTS.items():
        found[name] = ak.unflatten(ak.Array(numbers(rng, dtype, counts.sum())), counts)
    for name, dtype in NESTED.items():
        flat = ak.Array(numbers(rng, dtype, inner.sum()))
        found[name] = ak.unflatten(ak.unflatten(flat, inner), counts)
    found["text"] = ak.Array([*rng.choice(TEXTS, length).tolist(), ""])[:length]
    return length, found


def numbers(rng, dtype, length):
    """Return an array of values of all kinds, of common ones, or of special ones."""
    special = np.array(SPECIAL[dtype], dtype)
    common = np.array([-1.5, 0.5, 1, 2, 20] if dtype in FLOATS else [0, 1, 2, 5], dtype)
    pools = [special, common, common[:2], np.concatenate([special, common])]
    return rng.choice(pools[rng.integers(len(pools))], length)


LITERALS = st.one_of(st.integers(0, 5), st.sampled_from([0.0, 0.1, 0.5, 1.5, 2.0, 20.0])).map(
    Literal
)


@st.composite
def numeric(draw, level=0, depth=3, optional=True):
    """An expression of numbers, at the level of entries or in lists."""
    names = [*FLAT, *(OPTIONAL if optional else ())] if level == 0 else [*LISTS]
    if depth == 0 or draw(st.booleans()):
        return Column(draw(st.sampled_from(names))) if draw(st.integers(0, 3)) else draw(LITERALS)
    one = numeric(level, depth - 1, optional)
    kinds = ["binary", "call1", "call2", "minus", "where"]
    kinds += ["reduce", "item", "nested"] if level == 0 else ["event", "mask"]
    match draw(st.sampled_from(kinds)):
        case "binary":
            return Binary(draw(st.sampled_from("+-*/")), draw(one), draw(one))
        case "call1":
            name = draw(st.sampled_from(["abs", "sqrt", "floor", "ceil", "float64", "cos"]))
            return Call(name, (draw(one),))
        case "call2":
            return Call(draw(st.sampled_from(["min", "max", "hypot"])), (draw(one), draw(one)))
        case "minus":
            return Unary("-", draw(one))
        case "where":
            test = draw(conditions(level, depth - 1, optional))
            return Call("where", (test, draw(one), draw(one)))
        case "reduce":
            name = draw(st.sampled_from(["sum", "count", "max", "min"]))
            return Call(name, (draw(lists(depth - 1)),))
        case "item":
            return Item(draw(lists(depth - 1)), draw(st.integers(-2, 2)))
        case "nested":
            inner = Call(draw(st.sampled_from(["sum", "max", "count"])), (draw(nested()),))
            return Call("sum", (inner,))
        case "event":
            # Options of entries in lists would become options of lists.
            return Binary("*", draw(one), draw(numeric(0, depth - 1, optional=False)))
    return draw(masks(depth - 1))


def lists(depth):
    """An expression of lists of numbers."""
    plain = st.sampled_from([*LISTS]).map(Column)
    return plain if depth <= 0 else st.one_of(plain, masks(depth - 1), added(depth - 1))


@st.composite
def added(draw, depth):
    return Binary(draw(st.sampled_from("+*")), Column("l_float64"), draw(numeric(1, depth, False)))


@st.composite
def masks(draw, depth):
    # One that has no column in lists is refused, so the condition has one.
    test = draw(conditions(1, depth, False))
    always = Compare((Column("l_float32"), Literal(1.0)), ("<",))
    return Mask(Column(draw(st.sampled_from([*LISTS]))), Logical("||", (always, test)))


@st.composite
def nested(draw):
    return Binary("+", Column(draw(st.sampled_from([*NESTED]))), draw(LITERALS))


@st.composite
def conditions(draw, level=0, depth=3, optional=True):
    """A condition, on entries or on elements of lists."""
    one = numeric(level, depth - 1 if depth else 0, optional)
    kinds = ["compare", "compare", "chain", "in", "isnan"]
    if depth:
        kinds += ["logical", "not", "bits", "truth"] + ["any", "text", "missing"] * (level == 0)
    kind = draw(st.sampled_from(kinds))
    ops = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
    inner = conditions(level, depth - 1, optional)
    match kind:
        case "compare":
            return Compare((draw(one), draw(one)), (draw(ops),))
        case "chain":
            return Compare((draw(one), draw(one), draw(one)), (draw(ops), draw(ops)))
        case "in":
            values = draw(st.lists(LITERALS, min_size=1, max_size=3))
            return In(draw(one), tuple(values))
        case "isnan":
            return Call(draw(st.sampled_from(["isnan", "isfinite"])), (draw(one),))
        case "logical":
            op = draw(st.sampled_from(["&&", "||"]))
            return Logical(op, tuple(draw(st.lists(inner, min_size=2, max_size=3))))
        case "not":
            return Unary(draw(st.sampled_from("!~")), draw(inner))
        case "bits":
            return Binary(draw(st.sampled_from("&|^")), draw(inner), draw(inner))
        case "truth":
            return Unary("!", draw(one))
        case "any":
            test = draw(st.one_of(lists(depth - 1), conditions(1, depth - 1, False)))
            return Call(draw(st.sampled_from(["any", "all"])), (test,))
        case "text":
            values = [Literal(text) for text in draw(st.lists(st.sampled_from(TEXTS), min_size=1))]
            return In(Column("text"), tuple(values))
    operand = draw(numeric(0, depth - 1))
    return draw(
        st.sampled_from(
            [
                Call("ismissing", (operand,)),
                Compare((Call("fill", (operand, draw(LITERALS))), draw(LITERALS)), (">",)),
            ]
        )
    )


UFUNCS = {
    "+": np.add, "-": np.subtract, "*": np.multiply, "/": np.true_divide,
    "&": np.bitwise_and, "|": np.bitwise_or, "^": np.bitwise_xor,
    "==": np.equal, "!=": np.not_equal, "<": np.less, "<=": np.less_equal,
    ">": np.greater, ">=": np.greater_equal, "&&": np.logical_and, "||": np.logical_or,
    "min": np.minimum, "max": np.maximum, "abs": np.absolute,
}  # fmt: skip
PYTHON = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


def by_awkward(expr, arrays):
    """Compute an expression with nothing but awkward arrays and functions of NumPy."""
    if isinstance(expr, Literal):
        return expr.value
    if isinstance(expr, Column):
        return arrays[expr.name]
    values = [by_awkward(child, arrays) for child in expr.children]
    plain = all(isinstance(value, (bool, int, float, str)) for value in values)
    match expr:
        case Unary(op):
            if plain and op == "-":
                return -values[0]
            return {"-": np.negative, "~": np.invert, "!": np.logical_not}[op](values[0])
        case Binary(op):
            return (PYTHON if plain else UFUNCS)[op](*values)
        case Compare(_, ops):
            pairs = zip(ops, values, values[1:], strict=False)
            return functools.reduce(np.logical_and, [UFUNCS[op](a, b) for op, a, b in pairs])
        case In():
            equal = [values[0] == value for value in values[1:]]
            found = functools.reduce(np.logical_or, equal)
            return np.bool_(found) if isinstance(found, bool) else found  # as of a comparison
        case Logical(op):
            return functools.reduce(UFUNCS[op], values)
        case Item(_, index):
            lists = values[0] if index >= 0 else values[0][:, ::-1]
            place = index if index >= 0 else -1 - index
            return ak.pad_none(lists, place + 1, axis=1)[:, place]
        case Mask():
            return values[0][values[1]]
    return _call(expr.function, values)


def as_numpy_would(values):
    """Give literals the dtype that NumPy gives them beside arrays. Awkward has int64, float64."""
    inner = [ak.flatten(v, axis=None) if isinstance(v, ak.Array) else v for v in values]
    dtypes = [np.asarray(v.layout.data).dtype if isinstance(v, ak.Array) else v for v in inner]
    dtype = np.result_type(*dtypes)
    return [v if isinstance(v, ak.Array) else dtype.type(v) for v in values]


def _call(name, values):
    if len(values) == 1 and name in ("any", "all", "sum", "count", "max", "min"):
        return getattr(ak, name)(values[0], axis=-1)
    match name:
        case "where":
            return ak.where(values[0], *as_numpy_would(values[1:]))
        case "float64":
            if isinstance(values[0], ak.Array):
                return ak.values_astype(values[0], np.float64)
            return np.float64(values[0])
        case "ismissing":
            return ak.is_none(values[0], axis=-1)
        case "fill":
            return ak.fill_none(values[0], values[1], axis=-1)
    return (UFUNCS.get(name) or getattr(np, name))(*values)
