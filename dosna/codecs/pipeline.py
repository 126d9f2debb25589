"""Sequences of codecs, which encode the chunks of a Zarr v3 array as bytes and decode them.

The specification is https://zarr-specs.readthedocs.io/en/latest/v3. A `Pipeline` is made of the
``codecs`` of a ``zarr.json``: any from arrays to arrays, one from arrays to bytes, then any from
bytes to bytes. For ``sharding_indexed`` see `dosna.codecs.zarr.shards`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dosna.codecs.arrays import Bytes
from dosna.codecs.base import ArrayArrayCodec, ArrayBytesCodec, Buffer, BytesBytesCodec, CodecError
from dosna.codecs.crc32c import CRC, WRONG, Crc32c, copy_checked
from dosna.codecs.kinds import Spec, codec_of, name_of
from dosna.core.text import is_text
from dosna.core.types import Array, Shape
from dosna.errors import DosnaError, FormatError

__all__ = ["Pipeline"]


class Pipeline:
    """A sequence of codecs that encodes a chunk as bytes and decodes it.

    Parameters
    ----------
    specs : sequence
        The ``codecs`` of a ``zarr.json``, without ``sharding_indexed``.
    dtype : dtype
        The type of the elements; its byte order is that of ``bytes``.
    shape : tuple of int
        The shape of a chunk.
    where : str
        The name of the document in errors.

    Attributes
    ----------
    nbytes : int
        The size of a decoded chunk in bytes; 0 for a chunk of text, whose size is not fixed.
    size : int or None
        The size of an encoded chunk in bytes, or None if it varies.
    plain : bool
        True if an encoded chunk begins with its elements in C order, and only checksums follow.
    checks : int
        The number of checksums.
    compressed : bool
        True if there are compressors.
    direct : bool
        True if `decode`, given `raw`, leaves the chunk in it, in C order.

    Raises
    ------
    FormatError
        A codec or an option is unknown, or the order of the codecs is wrong.
    """

    def __init__(
        self, specs: Sequence[Spec], dtype: np.dtype[Any], shape: Shape, where: str
    ) -> None:
        self.dtype, self.shape = dtype, shape
        self.nbytes = 0 if is_text(dtype) else math.prod(shape) * dtype.itemsize
        codecs = [codec_of(spec, where) for spec in specs]
        self._names = [name_of(spec) for spec in specs]
        at = next((n for n, c in enumerate(codecs) if not isinstance(c, ArrayArrayCodec)), -1)
        first = codecs[at] if codecs else None
        if not isinstance(first, ArrayBytesCodec):
            raise FormatError(
                f"{where}: codec {'vlen-utf8' if is_text(dtype) else 'bytes'!r} is expected for "
                f"{dtype}, not {repr(specs[at]) if codecs else 'nothing'}"
            )
        self._first, self._codecs = first, self._behind(codecs, at, where)
        # Each codec before it, with the shape and the dtype that it decodes to.
        self._arrays: list[tuple[ArrayArrayCodec, Shape, np.dtype[Any]]] = []
        try:
            for codec in codecs[:at]:
                assert isinstance(codec, ArrayArrayCodec)
                self._arrays.append((codec, shape, dtype))
                shape, dtype = codec.encoded_type(shape, dtype)
            if self._arrays and isinstance(first, Bytes) and first.endian:
                dtype = dtype.newbyteorder("<" if first.endian == "little" else ">")
            sizes = [first.encoded_size(shape, dtype)]
        except (TypeError, ValueError) as error:
            raise FormatError(f"{where}: {error}") from error
        for step in self._codecs:
            sizes.append(step.encoded_size(sizes[-1]))
        self._stored_shape, self._stored_dtype = shape, dtype
        self.size = sizes[-1]
        # The codecs from bytes to bytes as they decode: their names, the number of bytes if memory
        # is to be given for them, and whether it may be that of the chunk.
        self._steps = [
            (name, step, None if isinstance(step, Crc32c) else size, not n and size == self.nbytes)
            for n, (name, step, size) in enumerate(
                zip(self._names[at + 1 :], self._codecs, sizes[:-1], strict=True)
            )
        ][::-1]
        self.checks = sum(isinstance(codec, Crc32c) for codec in self._codecs)
        self.compressed = self.checks < len(self._codecs)
        self._ordered = ordered = not self._arrays and first.verbatim
        self.plain = ordered and not self.compressed
        self.direct = ordered and (
            len(self._codecs) == self.checks < 2 or not isinstance(self._codecs[0], Crc32c)
        )

    def _behind(self, codecs: Sequence[Any], at: int, where: str) -> list[BytesBytesCodec]:
        """Return the codecs from bytes to bytes, which follow the one at a place."""
        for name, codec in zip(self._names[at + 1 :], codecs[at + 1 :], strict=True):
            if not isinstance(codec, BytesBytesCodec):
                raise FormatError(
                    f"{where}: codec {name!r} stands after {self._names[at]!r}, and belongs "
                    "before it"
                )
        return list(codecs[at + 1 :])

    def encode(self, chunk: Array) -> list[Buffer]:
        """Encode a chunk.

        Parameters
        ----------
        chunk : ndarray
            The chunk, of the pipeline's `shape` and `dtype`.

        Returns
        -------
        list of buffer
            The parts of the encoded chunk, to be written one after the other. They may be views of
            `chunk`.
        """
        if self._arrays:
            for codec, _, _ in self._arrays:
                chunk = codec.encode(chunk)
            chunk = np.asarray(chunk, self._stored_dtype)
        parts = self._first.encode(chunk)
        for step in self._codecs:
            parts = step.encode(parts[0] if len(parts) == 1 else b"".join(parts))
        return parts

    def decode(self, data: Buffer, raw: Array | None, into_raw: bool = True) -> Array:
        """Decode a chunk.

        Parameters
        ----------
        data : buffer
            The encoded chunk.
        raw : ndarray of uint8 or None
            Memory for the chunk, of `nbytes` bytes. A pipeline that compresses needs it.
        into_raw : bool
            Whether the chunk must be left in `raw` if the pipeline is `direct`. Otherwise memory
            that a compressor has made is not copied to it.

        Returns
        -------
        ndarray
            The chunk: a view of `raw`, of `data`, or of memory of its own, as always for text.

        Raises
        ------
        CodecError
            The bytes are not those of an encoded chunk.
        """
        view = memoryview(data)
        if self.plain and self.checks < 2:
            if len(view) != self.size:
                raise CodecError(f"a chunk has {self.size} bytes, and there are {len(view)}")
            body = view[: self.nbytes]
            found = copy_checked(body, raw, self.checks > 0)
            if self.checks and CRC.unpack_from(view, self.nbytes)[0] != found:
                raise CodecError(WRONG)
            return self.array(body if raw is None else raw)
        name = ""
        try:
            for name, step, size, first in self._steps:
                into = None if size is None else raw if first else np.empty(size, np.uint8)
                view = memoryview(_undone(name, step, view, into, into_raw and first))
            if self._ordered and len(view) == self.nbytes:
                return self.array(view)
            name = self._names[len(self._arrays)]
            chunk = self._first.decode(view, self._stored_shape, self._stored_dtype)
            if chunk.shape != self._stored_shape or chunk.dtype != self._stored_dtype:
                raise CodecError(f"{name} decodes to {chunk.dtype} of shape {chunk.shape}")
            for place in range(len(self._arrays) - 1, -1, -1):
                name = self._names[place]
                codec, shape, dtype = self._arrays[place]
                # NumPy's functions make scalars of arrays without axes, and native byte order.
                chunk = np.asarray(codec.decode(chunk, shape, dtype), dtype)
        except (CodecError, DosnaError, MemoryError):
            raise
        except Exception as error:
            # The errors of the libraries are of many types: zlib.error, RuntimeError, ….
            raise CodecError(f"codec {name!r} cannot decode it: {error}") from error
        return chunk

    def array(self, raw: Buffer) -> Array:
        """View the bytes of the elements as a chunk."""
        return np.frombuffer(raw, self.dtype).reshape(self.shape)


def _undone(
    name: str, step: BytesBytesCodec, data: memoryview, into: Array | None, into_it: bool
) -> Buffer:
    """Undo a codec. With `into_it`, what it decodes to is copied to the memory for it."""
    buffer = step.decode(data, into)
    if into is None or buffer is into:
        return buffer
    found = np.frombuffer(buffer, np.uint8)
    if len(found) != len(into):
        raise CodecError(f"{name} decodes to {len(found)} bytes instead of {len(into)}")
    if not into_it:
        return found
    into[:] = found
    return into
