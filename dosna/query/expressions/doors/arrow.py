"""Filters of pyarrow, and of DuckDB, which passes them to pyarrow's datasets.

An expression of pyarrow shows its parts only when it is serialized: as a record batch whose
columns are its literals and options, and whose metadata name the functions and fields in order.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator, Mapping
from typing import Any

from dosna.errors import QueryError
from dosna.query.expressions.doors.foreign import Foreign, Translated, translate

__all__ = ["from_pyarrow"]

_UNKNOWN = Foreign("unknown")
_COMPARISONS = {
    "equal": "==",
    "not_equal": "!=",
    "less": "<",
    "less_equal": "<=",
    "greater": ">",
    "greater_equal": ">=",
}
_KINDS = {
    "and_kleene": "and",
    "or_kleene": "or",
    "invert": "not",
    "if_else": "if",
    "is_nan": "nan",
    "is_finite": "finite",
}


def from_pyarrow(expression: Any, columns: Mapping[str, Any]) -> Translated:
    """Translate a filter of pyarrow.

    Parameters
    ----------
    expression : pyarrow.compute.Expression
        The filter.
    columns : mapping of str to form
        The forms of the columns, as for `bind`.

    Returns
    -------
    Translated
        The parts with the same meaning. If something is left out, pyarrow has to apply the filter
        to the result.

    Raises
    ------
    QueryError
        If it is not an expression of pyarrow.

    Examples
    --------
    >>> import pyarrow.compute as pc
    >>> from dosna.query.expressions.doors import from_pyarrow
    >>> found = from_pyarrow(~(pc.field("run") > 5), {"run": "int64"})
    >>> str(found.expr), found.exact
    ('!(run > 5)', True)
    """
    import pyarrow.compute as pc

    if not isinstance(expression, pc.Expression):
        raise QueryError(
            f"query: expected an expression of pyarrow, not {type(expression).__name__}"
        )
    try:
        tree = _tree(expression)
    except Exception:  # an unknown serialized form, of another version of pyarrow
        return Translated(None, False, frozenset(columns))
    return translate(tree, columns)


def _tree(expression: Any) -> Foreign:
    import pyarrow as pa

    _, (serialized,) = expression.__reduce__()
    batch = pa.ipc.open_file(pa.BufferReader(serialized)).get_batch(0)
    stack: list[list[Foreign]] = [[]]
    options: list[dict[str, Any]] = [{}]
    metadata = _metadata(batch.schema)
    for key, value in metadata:
        if key == "call":
            stack.append([])
            options.append({})
        elif key == "field_ref":
            stack[-1].append(Foreign("column", value=value))
        elif key == "nested_field_ref":
            # The names of the fields follow.
            names = [next(metadata)[1] for _ in range(int(value))]
            stack[-1].append(Foreign("unknown", (Foreign("column", value=names[0]),)))
        elif key == "literal":
            stack[-1].append(_literal(batch.column(int(value))[0]))
        elif key == "options":
            options[-1] = batch.column(int(value))[0].as_py() if _is_plain(batch, value) else {}
            options[-1]["scalar"] = batch.column(int(value))[0]
        elif key == "end":
            parts = tuple(stack.pop())
            stack[-1].append(_call(value, parts, options.pop()))
        else:
            stack[-1].append(_UNKNOWN)
    return stack[0][0]


def _is_plain(batch: Any, place: str) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_struct(batch.schema.field(int(place)).type))


class _ArrowSchema(ctypes.Structure):
    # The beginning of the structure of the Arrow C data interface.
    _fields_ = (
        ("format", ctypes.c_char_p),
        ("name", ctypes.c_char_p),
        ("metadata", ctypes.c_void_p),
    )


def _metadata(schema: Any) -> Iterator[tuple[str, str]]:
    """Yield the metadata in their order: ``schema.metadata`` has each key once."""
    capsule = schema.__arrow_c_schema__()
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    address = _ArrowSchema.from_address(pointer(capsule, b"arrow_schema")).metadata
    if address is None:
        return
    count, place = _number(address), address + 4
    texts = []
    for _ in range(2 * count):
        length = _number(place)
        texts.append(ctypes.string_at(place + 4, length).decode("utf-8", "replace"))
        place += 4 + length
    yield from zip(texts[::2], texts[1::2], strict=True)


def _number(address: int) -> int:
    return int(struct.unpack("=i", ctypes.string_at(address, 4))[0])


def _literal(scalar: Any) -> Foreign:
    import pyarrow as pa

    kind = scalar.type
    if pa.types.is_null(kind) or not scalar.is_valid:
        return Foreign("literal")
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        return Foreign("literal", value=scalar.as_py(), type=str(kind))
    if pa.types.is_float32(kind) or pa.types.is_float64(kind):
        name = "float32" if pa.types.is_float32(kind) else "float64"
        return Foreign("literal", value=scalar.as_py(), type=name)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return Foreign("literal", value=scalar.as_py(), type="string")
    return _UNKNOWN


def _call(name: str, parts: tuple[Foreign, ...], options: dict[str, Any]) -> Foreign:
    if name in _COMPARISONS:
        return Foreign("compare", parts, _COMPARISONS[name])
    if name in _KINDS:
        return Foreign(_KINDS[name], parts)
    missing = Foreign("null", parts)
    if name == "is_valid":
        return Foreign("not", (missing,))
    if name == "is_null":
        with_nan = options.get("nan_is_null")
        return Foreign("or", (missing, Foreign("nan", parts))) if with_nan else missing
    values = options.get("value_set")
    if name == "is_in" and isinstance(values, list) and options["null_matching_behavior"] == 0:
        # As in Arrow, integers are looked for among integers, and so on.
        return Foreign("in", parts, tuple(values), "null is false")
    return Foreign("unknown", parts)
