"""The classes of codecs: array to array, array to bytes, and bytes to bytes, as Zarr v3 has them.

A codec of another package is a subclass of one of the three and a `CodecKind` that names it, which
is registered by the entry point ``dosna.codecs``. docs/extending.md has an example.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from dosna.core.text import MOST_BYTES
from dosna.core.types import Array, Shape

__all__ = [
    "ArrayArrayCodec",
    "ArrayBytesCodec",
    "Buffer",
    "BytesBytesCodec",
    "Codec",
    "CodecError",
    "CodecKind",
    "check_option",
    "check_size",
]

Buffer = Any
"""Any object with a buffer of bytes."""


class CodecError(ValueError):
    """The error for bytes that no encoder of the codec writes. The message says what is wrong."""


class Codec:
    """A step in the encoding of a chunk. Subclass one of the three kinds below.

    The parameters of the constructor are the ``configuration`` of the codec in a ``zarr.json``. It
    raises ValueError or TypeError for a value that the codec does not take; unknown and missing
    parameters are refused before. One object serves all chunks and several threads at a time, so
    that `encode` and `decode` keep no state. They start no threads, because the engine has as many
    as there are processors, and should release the interpreter's lock while they work.
    """

    @classmethod
    def configuration(cls, options: Mapping[str, Any], dtype: np.dtype[Any]) -> dict[str, Any]:
        """Return the configuration of a new array: the given options and the defaults of others.

        Parameters
        ----------
        options : mapping
            The options that were given with ``compression=``.
        dtype : numpy.dtype
            The type of the array's elements.
        """
        parameters = inspect.signature(cls).parameters.values()
        return {p.name: p.default for p in parameters if p.default is not p.empty} | dict(options)

    @classmethod
    def options(cls, configuration: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options for an array like one with this configuration, of any dtype."""
        return dict(configuration)


class ArrayArrayCodec(Codec, ABC):
    """A codec from an array to an array."""

    def encoded_type(self, shape: Shape, dtype: np.dtype[Any]) -> tuple[Shape, np.dtype[Any]]:
        """Return shape and dtype of the encoded array. Raise ValueError for ones not taken."""
        return shape, dtype

    @abstractmethod
    def encode(self, array: Array) -> Array:
        """Encode a chunk."""

    @abstractmethod
    def decode(self, array: Array, shape: Shape, dtype: np.dtype[Any]) -> Array:
        """Decode a chunk of a shape and a dtype. The result may be a view of `array`."""


class ArrayBytesCodec(Codec, ABC):
    """A codec from an array to bytes."""

    verbatim: ClassVar[bool] = False
    """True if the bytes are those of the elements in memory, in C order."""

    def encoded_size(self, shape: Shape, dtype: np.dtype[Any]) -> int | None:
        """Return the length of an encoded chunk, or None if it depends on the elements.

        Raises
        ------
        ValueError
            The codec does not take chunks of the shape or the dtype.
        """
        return None

    @abstractmethod
    def encode(self, array: Array) -> list[Buffer]:
        """Encode a chunk as bytes in one part or several, which may be views of `array`."""

    @abstractmethod
    def decode(self, data: memoryview, shape: Shape, dtype: np.dtype[Any]) -> Array:
        """Decode a chunk of a shape and a dtype.

        Raises
        ------
        CodecError
            The bytes are not those of an encoded chunk. Other exceptions become CodecErrors.
        """


class BytesBytesCodec(Codec, ABC):
    """A codec from bytes to bytes: a compressor, a checksum."""

    def encoded_size(self, size: int | None) -> int | None:
        """Return the encoded length of `size` bytes, or None if it depends on the bytes."""
        return None

    @abstractmethod
    def encode(self, data: Buffer) -> list[Buffer]:
        """Encode bytes, as bytes in one part or several, which may be views of `data`."""

    @abstractmethod
    def decode(self, data: memoryview, into: Array | None) -> Buffer:
        """Decode bytes.

        Parameters
        ----------
        data : memoryview
            The encoded bytes.
        into : ndarray of uint8 or None
            Memory for the decoded bytes, if their number is known. The codec may write there and
            return it, or return other memory.

        Raises
        ------
        CodecError
            The bytes are not encoded ones. Other exceptions become CodecErrors.
        """


@dataclass(frozen=True)
class CodecKind:
    """A codec that a ``zarr.json`` names.

    Parameters
    ----------
    name : str
        The name in a ``zarr.json`` and of ``compression=``, in lower case.
    codec : type
        A subclass of `ArrayArrayCodec`, `ArrayBytesCodec` or `BytesBytesCodec`.
    description, url : str
        A short description, and a web page.
    """

    name: str
    codec: type[Codec]
    description: str = ""
    url: str = ""


def check_option(name: str, value: Any, allowed: Collection[Any]) -> Any:
    """Return the value of an option if it is one of those allowed, and of the same type.

    Raises
    ------
    ValueError
        It is none of them.
    """
    if type(value) is not type(next(iter(allowed))) or value not in allowed:
        known = " or ".join(map(repr, allowed)) if not isinstance(allowed, range) else ""
        raise ValueError(
            f"{name} must be {known or f'{allowed[0]} to {allowed[-1]}'}, not {value!r}"  # type: ignore[index]
        )
    return value


def check_size(name: str, decoded: int, data: memoryview) -> None:
    """Raise CodecError if a header gives a length that `data` cannot decode to.

    This bounds the memory for chunks whose right length is not known.
    """
    # Four bytes of zstd decode to at most 128 KiB, and those of the others to less.
    if decoded > min(MOST_BYTES, len(data) << 16):
        raise CodecError(f"{name}'s header claims {decoded} decoded bytes for {len(data)}")
