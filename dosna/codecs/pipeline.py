"""The codecs of Zarr v3, which encode chunks as bytes and decode them.

The specification is https://zarr-specs.readthedocs.io/en/latest/v3. A `Pipeline` is made of the
``codecs`` of a ``zarr.json``: ``transpose``, then ``bytes``, then any of ``gzip``, ``zstd``,
``blosc`` and ``crc32c``. For ``sharding_indexed`` see `dosna.codecs.zarr.shards`.

gzip is Python's own; zstd and blosc are those of numcodecs, which zarr-python uses too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from dosna.codecs.compressors import (
    _BLOSC_NAMES,
    _CRC,
    _SHUFFLES,
    _WRONG,
    Buffer,
    CodecError,
    _Blosc,
    _Codec,
    _copied,
    _Crc32c,
    _Gzip,
    _Zstd,
    named,
)
from dosna.core import text as text
from dosna.core.types import Array, Shape
from dosna.errors import ConfigurationError, FormatError

__all__ = [
    "COMPRESSORS",
    "Pipeline",
    "byte_order",
    "bytes_of",
    "compressor",
    "endian_of",
    "name_of",
]

Spec = str | Mapping[str, Any]
"""A codec in a ``zarr.json``: its name, or an object with name and configuration."""


COMPRESSORS = ("gzip", "zstd", "blosc")


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


def compressor(option: Any, dtype: np.dtype[Any]) -> dict[str, Any] | None:
    """Return the codec for an option ``compression=``, in its form in a ``zarr.json``.

    Parameters
    ----------
    option : None, str or mapping
        The name 'gzip', 'zstd' or 'blosc', or a mapping with ``name`` and options of the codec.
    dtype : dtype
        The type of the elements, to which some options of blosc are adapted.

    Returns
    -------
    dict or None
        The codec, or None for no compression.

    Raises
    ------
    ConfigurationError
        The name or an option is unknown, or the codec does not take a value.
    """
    if option is None:
        return None
    given = {"name": option} if isinstance(option, str) else option
    if not isinstance(given, Mapping) or given.get("name") not in COMPRESSORS:
        raise ConfigurationError(
            f"compression is None, one of {', '.join(COMPRESSORS)}, or a mapping such as "
            f"{{'name': 'zstd', 'level': 3}}, and {option!r} was given"
        )
    name = given["name"]
    defaults: dict[str, dict[str, Any]] = {
        "gzip": {"level": 5},
        "zstd": {"level": 3, "checksum": False},
        "blosc": {
            "cname": "lz4",
            "clevel": 5,
            "shuffle": "shuffle" if dtype.itemsize > 1 else "bitshuffle",
            "blocksize": 0,
            # The field in blosc's format has one byte.
            "typesize": dtype.itemsize if dtype.itemsize < 256 else 1,
        },
    }
    if text.is_text(dtype):
        defaults["blosc"] |= {"shuffle": "noshuffle", "typesize": 1}
    configuration = defaults[name] | {k: v for k, v in given.items() if k != "name"}
    spec = {"name": name, "configuration": configuration}
    try:
        _parse_one(spec, "compression=")
    except FormatError as error:
        raise ConfigurationError(str(error)) from None
    return spec


def _parse_one(spec: Spec, where: str) -> _Codec:
    """Make a codec from bytes to bytes of its description."""
    known = ("bytes", "vlen-utf8", "transpose", *COMPRESSORS, "crc32c")
    name, given = named(spec, "codec", where, known)

    def take(key: str, kind: type, allowed: Any, default: Any = None) -> Any:
        value = given.pop(key, default)
        if type(value) is not kind or (allowed is not None and value not in allowed):
            raise FormatError(f"{where}: codec {name!r} has {key} {value!r}")
        return value

    codec: _Codec
    if name == "crc32c":
        codec = _Crc32c()
    elif name == "gzip":
        codec = _Gzip(take("level", int, range(10)))
    elif name == "zstd":
        codec = _Zstd(take("level", int, range(-131072, 23)), take("checksum", bool, None, False))
    elif name == "blosc":
        shuffle = take("shuffle", str, _SHUFFLES, "noshuffle")
        codec = _Blosc(
            take("cname", str, _BLOSC_NAMES),
            take("clevel", int, range(10)),
            shuffle,
            take("blocksize", int, range(1 << 31), 0),
            take("typesize", int, range(1, 256), 1 if shuffle == "noshuffle" else None),
        )
    else:
        raise FormatError(f"{where}: codec {name!r} stands after 'bytes', and belongs before it")
    if given:
        raise FormatError(f"{where}: codec {name!r} has unknown options: {', '.join(given)}")
    return codec


def byte_order(codecs: Any) -> Literal["<", ">"]:
    """Return the byte order of the elements that `codecs` encode."""
    for spec in codecs:
        if isinstance(spec, Mapping) and spec.get("name") == "bytes":
            return ">" if spec.get("configuration", {}).get("endian") == "big" else "<"
    return "<"


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
        self._text = text.is_text(dtype)
        self.nbytes = 0 if self._text else math.prod(shape) * dtype.itemsize
        first = "vlen-utf8" if self._text else "bytes"
        specs = list(specs)
        axes = list(range(len(shape)))
        while specs and name_of(specs[0]) == "transpose":
            order = _order(specs.pop(0), len(shape), where)
            axes = [axes[axis] for axis in order]
        if not specs or name_of(specs[0]) != first:
            found = "nothing" if not specs else repr(specs[0])
            if specs and name_of(specs[0]) not in ("bytes", "vlen-utf8"):
                _parse_one(specs[0], where)  # its error names the codec if it is unknown
            raise FormatError(
                f"{where}: codec {first!r} is expected for {dtype}, and there is {found}"
            )
        _check_first(specs.pop(0), dtype, where)
        self._codecs = [_parse_one(spec, where) for spec in specs]
        sizes: list[int | None] = [None if self._text else self.nbytes]
        for codec in self._codecs:
            sizes.append(codec.encoded_size(sizes[-1]))
        self.size, self._sizes = sizes[-1], sizes
        self._axes = None if axes == sorted(axes) else tuple(axes)
        self._back = np.argsort(axes)
        self._stored_shape = tuple(shape[axis] for axis in axes)
        self.checks = sum(isinstance(codec, _Crc32c) for codec in self._codecs)
        self.compressed = self.checks < len(self._codecs)
        ordered = self._axes is None and not self._text
        self.plain = ordered and not self.compressed
        self.direct = ordered and (
            len(self._codecs) == self.checks < 2 or not isinstance(self._codecs[0], _Crc32c)
        )

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
        if self._axes is not None:
            chunk = chunk.transpose(self._axes)
        parts: list[Buffer] = [
            text.encode(chunk) if self._text else bytes_of(np.ascontiguousarray(chunk))
        ]
        for codec in self._codecs:
            parts = codec.encode(parts)
        return parts

    def decode(self, data: Buffer, raw: Array | None) -> Array:
        """Decode a chunk.

        Parameters
        ----------
        data : buffer
            The encoded chunk.
        raw : ndarray of uint8 or None
            Memory for the chunk, of `nbytes` bytes. A pipeline that compresses needs it.

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
            found = _copied(body, raw, self.checks > 0)
            if self.checks and _CRC.unpack_from(view, self.nbytes)[0] != found:
                raise CodecError(_WRONG)
            return self.array(body if raw is None else raw)
        for codec, size in zip(self._codecs[::-1], self._sizes[-2::-1], strict=True):
            into = None
            if size is not None and not isinstance(codec, _Crc32c):
                into = raw if codec is self._codecs[0] else np.empty(size, np.uint8)
            view = memoryview(codec.decode(view, into))
        if self._text:
            return self._texts(view)
        if len(view) != self.nbytes:
            raise CodecError(f"a chunk has {self.nbytes} bytes, and there are {len(view)}")
        return self.array(view)

    def _texts(self, data: memoryview) -> Array:
        try:
            found = text.decode(data, math.prod(self.shape)).reshape(self._stored_shape)
        except ValueError as error:
            raise CodecError(str(error)) from None
        return found if self._axes is None else found.transpose(self._back)

    def array(self, raw: Buffer) -> Array:
        """View the bytes of the elements as a chunk."""
        found = np.frombuffer(raw, self.dtype).reshape(self._stored_shape)
        return found if self._axes is None else found.transpose(self._back)


def name_of(spec: Any) -> Any:
    """Return the name of a codec, in either of its forms."""
    return spec.get("name") if isinstance(spec, Mapping) else spec


def _order(spec: Spec, ndim: int, where: str) -> list[int]:
    _, configuration = named(spec, "codec", where, ("transpose",))
    order = configuration.pop("order", None)
    if configuration or not isinstance(order, (list, tuple)) or sorted(order) != list(range(ndim)):
        raise FormatError(f"{where}: codec {spec!r} does not order {ndim} axes")
    return list(order)


def _check_first(spec: Spec, dtype: np.dtype[Any], where: str) -> None:
    """Check the options of the codec that converts elements to bytes."""
    name, configuration = named(spec, "codec", where, ("bytes", "vlen-utf8"))
    if name == "vlen-utf8":
        if configuration:
            raise FormatError(f"{where}: codec 'vlen-utf8' has unknown options: {spec!r}")
        return
    endian = configuration.pop("endian", None)
    if configuration or endian not in ("little", "big", None):
        raise FormatError(f"{where}: codec 'bytes' has unknown options: {spec!r}")
    # Before zarr-python 3.2, dtypes with fields had no endian, and were little-endian.
    if endian is None and dtype.names is None and endian_of(dtype) is not None:
        raise FormatError(f"{where}: codec 'bytes' lacks the endian that {dtype} needs")
