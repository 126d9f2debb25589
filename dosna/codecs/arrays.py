"""The codecs of Zarr v3 that take arrays: ``bytes``, ``vlen-utf8`` and ``transpose``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from dosna.codecs.base import (
    ArrayArrayCodec,
    ArrayBytesCodec,
    Buffer,
    CodecError,
    CodecKind,
    check_option,
)
from dosna.core import text as text
from dosna.core.types import Array, Shape

__all__ = [
    "BYTES",
    "TRANSPOSE",
    "VLEN_UTF8",
    "Bytes",
    "Transpose",
    "VlenUtf8",
    "byte_order",
    "bytes_of",
    "endian_of",
]


def bytes_of(array: Array) -> Array:
    """View a C-contiguous array as bytes."""
    return array.reshape(-1).view(np.uint8)


def endian_of(dtype: np.dtype[Any]) -> Literal["little", "big"] | None:
    """Return the ``endian`` of the codec ``bytes`` for a dtype, or None if it needs none.

    A dtype with fields always has one, because zarr-python warns if it is missing.
    """
    if dtype.names is not None:
        return "little"
    if dtype.kind not in "iufcmMU" or (dtype.itemsize == 1 and dtype.kind != "U"):
        return None
    return "little" if dtype.newbyteorder("=") == dtype else "big"


def byte_order(codecs: Any) -> Literal["<", ">"]:
    """Return the byte order of the elements that `codecs` encode."""
    for spec in codecs:
        if isinstance(spec, Mapping) and spec.get("name") == "bytes":
            return ">" if spec.get("configuration", {}).get("endian") == "big" else "<"
    return "<"


class Bytes(ArrayBytesCodec):
    """The bytes of the elements in C order.

    Parameters
    ----------
    endian : {'little', 'big'}, optional
        The byte order, which elements of more than one byte need.
    """

    verbatim = True

    def __init__(self, endian: str | None = None) -> None:
        if endian is not None:
            check_option("endian", endian, ("little", "big"))
        self.endian = endian

    def encoded_size(self, shape: Shape, dtype: np.dtype[Any]) -> int | None:
        if text.is_text(dtype):
            raise ValueError(f"codec 'vlen-utf8' is expected for {dtype}, not 'bytes'")
        # Before zarr-python 3.2, dtypes with fields had no endian, and were little-endian.
        if self.endian is None and dtype.names is None and endian_of(dtype) is not None:
            raise ValueError(f"codec 'bytes' lacks the endian that {dtype} needs")
        return math.prod(shape) * dtype.itemsize

    def encode(self, array: Array) -> list[Buffer]:
        return [bytes_of(np.ascontiguousarray(array))]

    def decode(self, data: memoryview, shape: Shape, dtype: np.dtype[Any]) -> Array:
        size = math.prod(shape) * dtype.itemsize
        if len(data) != size:
            raise CodecError(f"a chunk has {size} bytes, and there are {len(data)}")
        return np.frombuffer(data, dtype).reshape(shape)


class VlenUtf8(ArrayBytesCodec):
    """Text of variable length; see `dosna.core.text`."""

    def encoded_size(self, shape: Shape, dtype: np.dtype[Any]) -> int | None:
        if not text.is_text(dtype):
            raise ValueError(f"codec 'bytes' is expected for {dtype}, not 'vlen-utf8'")
        return None

    def encode(self, array: Array) -> list[Buffer]:
        return [text.encode(array)]

    def decode(self, data: memoryview, shape: Shape, dtype: np.dtype[Any]) -> Array:
        return text.decode(data, math.prod(shape)).reshape(shape)


class Transpose(ArrayArrayCodec):
    """Another order of the axes.

    Parameters
    ----------
    order : sequence of int
        The axis of the chunk that is stored at each place.
    """

    def __init__(self, order: Sequence[int]) -> None:
        axes = list(range(len(order)))
        if any(type(axis) is not int for axis in order) or sorted(order) != axes:
            raise ValueError(f"order {order!r} does not name each axis once")
        self.order = tuple(order)
        self.back = tuple(sorted(axes, key=order.__getitem__))

    def encoded_type(self, shape: Shape, dtype: np.dtype[Any]) -> tuple[Shape, np.dtype[Any]]:
        if len(shape) != len(self.order):
            raise ValueError(f"order {list(self.order)} does not order {len(shape)} axes")
        return tuple(shape[axis] for axis in self.order), dtype

    def encode(self, array: Array) -> Array:
        return array.transpose(self.order)

    def decode(self, array: Array, shape: Shape, dtype: np.dtype[Any]) -> Array:
        return array.transpose(self.back)


BYTES = CodecKind("bytes", Bytes)
VLEN_UTF8 = CodecKind("vlen-utf8", VlenUtf8)
TRANSPOSE = CodecKind("transpose", Transpose)
