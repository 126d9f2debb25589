"""Text of variable length: NumPy's ``StringDType``, and its bytes in the codec ``vlen-utf8``.

``vlen-utf8`` is specified at
https://github.com/zarr-developers/zarr-extensions/tree/main/codecs/vlen-utf8: the number of
elements, and then, for each element, the number of its bytes and the bytes in UTF-8. Numbers are
little-endian and have 32 bits. See docs/design/text.md.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from dosna.core.types import Array

__all__ = [
    "MOST_BYTES",
    "TEXT",
    "as_text",
    "converted",
    "decode",
    "element_bytes",
    "elements",
    "encode",
    "is_text",
]


TEXT: np.dtype[Any] = np.dtypes.StringDType()
"""The dtype of datasets that hold text."""

MOST_BYTES = (1 << 31) - 1
"""The largest size of an encoded chunk of text, so that readers know a bound in advance."""

_HELD = 64
_COUNT = struct.Struct("<I")


def is_text(dtype: np.dtype[Any]) -> bool:
    """Return True if the elements are text of variable length."""
    return dtype.kind == "T"


def element_bytes(dtype: np.dtype[Any]) -> int:
    """Return an estimate of the bytes that an element takes in memory.

    For text, only the 16 bytes of NumPy's own record are known in advance.
    """
    return _HELD if dtype.kind == "T" else dtype.itemsize


def elements(values: Any, dtype: np.dtype[Any]) -> Any:
    """Return the values to write to a dataset of `dtype`, converted if either are text."""
    if dtype.kind == "T":
        return as_text(values)
    return converted(values, dtype) if getattr(values, "dtype", dtype).kind == "T" else values


def converted(array: Array, dtype: np.dtype[Any]) -> Array:
    """Return an array in another dtype, as its `astype` would.

    Between text of variable length and other dtypes, NumPy 2.0 to 2.5 takes big-endian bytes for
    little-endian ones, on either side. Of text for complex numbers it makes two equal parts.
    """
    if is_text(dtype) and not is_text(array.dtype):
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
    elif is_text(array.dtype) and dtype.kind == "c":
        array = np.array(array.ravel().tolist(), str).reshape(array.shape)
    elif is_text(array.dtype) and not is_text(dtype):
        array = array.astype(dtype.newbyteorder("="))
    return array.astype(dtype, copy=False)


def as_text(values: Any) -> Array:
    """Convert values to an array of text.

    Parameters
    ----------
    values : array_like
        The values: a str or bytes, nested lists of these, or an array of kind U, S, T or O. Bytes
        are decoded as UTF-8.

    Returns
    -------
    ndarray
        An array of dtype `TEXT`; `values` itself if it has that dtype already.

    Raises
    ------
    TypeError
        Some values are neither str nor bytes. NumPy would write ``None`` and NaN as 'None' and
        'nan'.
    ValueError
        Some bytes are not UTF-8, or a str has a lone surrogate in it.
    """
    array = _as_array(values)
    kind = array.dtype.kind
    if kind == "T":
        if hasattr(array.dtype, "na_object"):
            _check(array)
        return array.astype(TEXT, copy=False)
    if kind == "U":
        try:
            return converted(array, TEXT)
        except TypeError as error:  # NumPy's error for a lone surrogate
            raise ValueError(f"a string is not Unicode text: {error}") from None
    # NumPy itself takes bytes as they are, even if they are not UTF-8.
    if kind in "OS":
        if not _check(array):
            decoded = [v.decode() if isinstance(v, bytes) else v for v in array.flat]
            return np.array(decoded, TEXT).reshape(array.shape)
        return array.astype(TEXT)
    if array.size == 0:
        return np.empty(array.shape, TEXT)
    raise TypeError(
        f"the dataset holds text, and values of dtype {array.dtype} were given: convert them "
        "first, with astype('T')"
    )


def _as_array(values: Any) -> Array:
    # NumPy's own choice of dtype for a list would turn numbers among strings into text.
    return np.asarray(values) if hasattr(values, "__array__") else np.asarray(values, object)


def _check(array: Array) -> bool:
    """Check that all elements are text. Return False if some of them are bytes."""
    kinds = {type(value) for value in array.ravel().tolist()}
    for kind in kinds:
        if not issubclass(kind, (str, bytes)):
            raise TypeError(
                f"the dataset holds text, and a {kind.__name__} is among the values: convert "
                "numbers to str, and choose a text for missing values, because strings of Zarr "
                "and HDF5 have none"
            )
    return not any(issubclass(kind, bytes) for kind in kinds)


def encode(array: Array) -> bytes:
    """Encode an array of text, in C order.

    Raises
    ------
    ValueError
        The encoded array would have more than `MOST_BYTES` bytes.
    """
    texts = [text.encode() for text in array.ravel().tolist()]
    pack = _COUNT.pack
    parts = [b""] * (2 * len(texts) + 1)
    parts[0] = pack(len(texts))
    parts[2::2] = texts
    size = 4 * len(texts) + 4 + sum(map(len, texts))
    if size > MOST_BYTES:
        raise ValueError(
            f"a chunk of text has {size} bytes, more than {MOST_BYTES}: use a smaller chunk_size"
        )
    parts[1::2] = map(pack, map(len, texts))
    return b"".join(parts)


def decode(data: Any, count: int) -> Array:
    """Decode an array of one axis and `count` elements.

    Raises
    ------
    ValueError
        The bytes do not encode `count` elements, or are not UTF-8.
    """
    raw = bytes(data)
    if len(raw) < 4 + 4 * count:
        raise ValueError(f"{len(raw)} bytes are too few for {count} texts")
    if _COUNT.unpack_from(raw)[0] != count:
        raise ValueError(f"it counts {_COUNT.unpack_from(raw)[0]} texts instead of {count}")
    found: list[str] = []
    add, number = found.append, int.from_bytes
    at = 4
    for _ in range(count):
        begin = at + 4
        at = begin + number(raw[at:begin], "little")
        add(str(raw[begin:at], "utf-8"))
    # Slices beyond the end are empty, so that one check at the end is enough.
    if at != len(raw):
        raise ValueError(f"its texts end at byte {at}, and there are {len(raw)} bytes")
    return np.array(found, TEXT)
