"""Chunks as bytes and back: the codecs of Zarr v3 (https://zarr-specs.readthedocs.io/en/latest/v3).

A `Pipeline` is made of the ``codecs`` of a ``zarr.json``: ``transpose``, then ``bytes``, then any
of ``gzip``, ``zstd``, ``blosc`` and ``crc32c``. For ``sharding_indexed`` see `dosna.shards`.

gzip is Python's; zstd and blosc are those of numcodecs, which zarr-python uses too.
"""

from __future__ import annotations

import math
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal

import numpy as np

from dosna import text
from dosna.crc32c import crc32c
from dosna.errors import ConfigurationError, FormatError, MissingDependencyError

__all__ = [
    "COMPRESSORS",
    "CodecError",
    "Pipeline",
    "byte_order",
    "bytes_of",
    "compressor",
    "endian_of",
    "name_of",
    "named",
]

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
Spec = str | Mapping[str, Any]
"""A codec in a ``zarr.json``: its name, or an object with name and configuration."""

Buffer = Any
"""Anything with a buffer of bytes."""

COMPRESSORS = ("gzip", "zstd", "blosc")
_CRC = struct.Struct("<I")
_BLOCK = 256 << 10
_WRONG = "the CRC-32C checksum is wrong: bytes were changed"


class CodecError(ValueError):
    """Bytes that no encoder of the codec has made; says what is wrong with them."""


def bytes_of(array: Array) -> Array:
    """View a C-contiguous array as bytes."""
    return array.reshape(-1).view(np.uint8)


def endian_of(dtype: np.dtype[Any]) -> Literal["little", "big"] | None:
    """Give the ``endian`` that the codec ``bytes`` has for a dtype; None if it has none.

    With fields there is always one, for zarr-python warns where it is missing.
    """
    if dtype.names is not None:
        return "little"
    if dtype.kind not in "iufcmMU" or (dtype.itemsize == 1 and dtype.kind != "U"):
        return None
    return "little" if dtype.newbyteorder("=") == dtype else "big"


def named(spec: Any, what: str, where: str, known: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Give name and configuration of an extension object.

    Raises
    ------
    FormatError
        It is not one of `known`, or has members that the specification does not.
    """
    if isinstance(spec, str):
        spec = {"name": spec}
    if not isinstance(spec, Mapping) or not isinstance(spec.get("name"), str):
        raise FormatError(f"{where} has the {what} {spec!r}, which has no name")
    name, configuration = spec["name"], spec.get("configuration", {})
    unknown = set(spec) - {"name", "configuration", "must_understand"}
    if name not in known:
        raise FormatError(
            f"{where} has the {what} {name!r}, which dosna does not know: it knows "
            f"{', '.join(known)}"
        )
    if unknown or not isinstance(configuration, Mapping):
        raise FormatError(f"{where}: the {what} {name!r} has an unknown part: {dict(spec)!r}")
    return name, dict(configuration)


class _Codec(ABC):
    """Bytes to bytes."""

    def encoded_size(self, size: int | None) -> int | None:
        """Give the length of what `size` bytes become, if that is always the same."""
        return None

    @abstractmethod
    def encode(self, parts: list[Buffer]) -> list[Buffer]:
        """Encode bytes that come in parts."""

    @abstractmethod
    def decode(self, data: memoryview, into: Array | None) -> Buffer:
        """Decode; if `into` is given, exactly so many bytes, into it."""


class _Crc32c(_Codec):
    def encoded_size(self, size: int | None) -> int | None:
        return None if size is None else size + _CRC.size

    def encode(self, parts: list[Buffer]) -> list[Buffer]:
        data = _joined(parts)
        return [data, _CRC.pack(crc32c(data))]

    def decode(self, data: memoryview, into: Array | None) -> Buffer:
        if len(data) < _CRC.size:
            raise CodecError(f"{len(data)} bytes are too few for a checksum")
        body = data[: -_CRC.size]
        if _CRC.unpack(data[-_CRC.size :])[0] != crc32c(body):
            raise CodecError(_WRONG)
        return body


class _Gzip(_Codec):
    def __init__(self, level: int) -> None:
        self.level = level

    def encode(self, parts: list[Buffer]) -> list[Buffer]:
        return [zlib.compress(_joined(parts), self.level, 31)]

    def decode(self, data: memoryview, into: Array | None) -> Buffer:
        most = (text.MOST_BYTES if into is None else len(into)) + 1
        found = b""
        while True:
            member = zlib.decompressobj(31)
            try:
                found += member.decompress(data, max(0, most - len(found)))
            except zlib.error as error:
                raise CodecError(f"gzip cannot decode it: {error}") from None
            if not member.eof or len(found) >= most:
                raise CodecError("the gzip stream is cut off or too long")
            if not member.unused_data:
                break
            data = memoryview(member.unused_data)
        if into is None:
            return found
        if len(found) != len(into):
            raise CodecError(f"gzip decodes to {len(found)} bytes instead of {len(into)}")
        into[:] = np.frombuffer(found, np.uint8)
        return into


class _Zstd(_Codec):
    def __init__(self, level: int, checksum: bool) -> None:
        self.level, self.checksum = level, checksum
        _numcodecs("zstd")

    def encode(self, parts: list[Buffer]) -> list[Buffer]:
        data = _joined(parts)
        return [_numcodecs("zstd").compress(data, self.level, self.checksum)]

    def decode(self, data: memoryview, into: Array | None) -> Buffer:
        # The library is content with less than there is room for.
        size = _zstd_content_size(data)
        if into is None:
            _check_size("zstd", size or 0, data)
            return _decompress("zstd", data, None)
        if size is None:
            found = _decompress("zstd", data, None)
            size = len(found)
            if size == len(into):
                into[:] = np.frombuffer(found, np.uint8)
        elif size == len(into):
            _decompress("zstd", data, into)
        if size != len(into):
            raise CodecError(f"zstd decodes to {size} bytes instead of {len(into)}")
        return into


def _zstd_content_size(data: memoryview) -> int | None:
    """Read how long the content of a frame is, if it says so (RFC 8878, 3.1.1.1)."""
    if len(data) < 6 or bytes(data[:4]) != b"\x28\xb5\x2f\xfd":
        raise CodecError("it does not begin as zstd does")
    flags = data[4]
    single = flags >> 5 & 1
    place = 6 - single + (0, 1, 2, 4)[flags & 3]
    width = (single, 2, 4, 8)[flags >> 6]
    if not width:
        return None
    return int.from_bytes(data[place : place + width], "little") + 256 * (width == 2)


class _Blosc(_Codec):
    def __init__(self, cname: str, clevel: int, shuffle: str, blocksize: int, typesize: int):
        self.options = (cname.encode(), clevel, _SHUFFLES[shuffle], blocksize, typesize)
        _numcodecs("blosc")

    def encode(self, parts: list[Buffer]) -> list[Buffer]:
        return [_numcodecs("blosc").compress(_joined(parts), *self.options)]

    def decode(self, data: memoryview, into: Array | None) -> Buffer:
        # The library trusts these lengths, and would read or write beyond the buffers.
        if len(data) < 16:
            raise CodecError(f"{len(data)} bytes are too few for blosc")
        decoded, _, encoded = struct.unpack_from("<III", data, 4)
        if encoded != len(data) or (into is not None and decoded != len(into)):
            raise CodecError(
                f"blosc's header tells of {encoded} bytes that decode to {decoded}, and these are "
                f"{len(data)}" + (f" for {len(into)}" if into is not None else "")
            )
        if into is None:
            _check_size("blosc", decoded, data)
        return _decompress("blosc", data, into)


def _check_size(name: str, decoded: int, data: memoryview) -> None:
    """Refuse a length that no encoder has made of what is not known to be longer or shorter."""
    # Four bytes of zstd stand for at most 128 KiB, and those of the others for less.
    if decoded > min(text.MOST_BYTES, len(data) << 16):
        raise CodecError(f"{name}'s header tells of {decoded} bytes in {len(data)}")


_SHUFFLES = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}
_BLOSC_NAMES = ("lz4", "lz4hc", "blosclz", "zstd", "snappy", "zlib")


@cache
def _numcodecs(name: str) -> Any:
    """Give the module of a compressor."""
    try:
        if name == "zstd":
            from numcodecs import zstd

            return zstd
        from numcodecs import blosc
    except ImportError as error:
        raise MissingDependencyError(
            f"the codec {name!r} needs numcodecs, which cannot be imported ({error}): "
            "pip install 'dosna[zarr]'"
        ) from error
    # The engine's threads are enough, and a fork does not survive blosc's own.
    blosc.use_threads = False
    return blosc


def _decompress(name: str, data: memoryview, into: Array | None) -> Buffer:
    try:
        found = _numcodecs(name).decompress(data, into)
    except (RuntimeError, ValueError) as error:
        raise CodecError(f"{name} cannot decode it: {error}") from None
    return found if into is None else into


def _joined(parts: list[Buffer]) -> Buffer:
    return parts[0] if len(parts) == 1 else b"".join(parts)


def compressor(option: Any, dtype: np.dtype[Any]) -> dict[str, Any] | None:
    """Give the codec that ``compression=`` asks for, as it stands in a ``zarr.json``.

    Parameters
    ----------
    option : None, str or mapping
        'gzip', 'zstd' or 'blosc', or a mapping with ``name`` and options of the codec.
    dtype : dtype
        Of the elements, for what blosc adapts to them.

    Raises
    ------
    ConfigurationError
        Another name or option, or a value that the codec does not take.
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
            # The format's field has one byte.
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
    """Make a codec of bytes to bytes."""
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
    """Give the byte order of the elements that codecs encode."""
    for spec in codecs:
        if isinstance(spec, Mapping) and spec.get("name") == "bytes":
            return ">" if spec.get("configuration", {}).get("endian") == "big" else "<"
    return "<"


class Pipeline:
    """How a chunk becomes bytes.

    Parameters
    ----------
    specs : sequence
        The ``codecs`` of a ``zarr.json``, without ``sharding_indexed``.
    dtype : dtype
        Of the elements; its byte order is that of ``bytes``.
    shape : tuple of int
        Of a chunk.
    where : str
        How errors call the document.

    Attributes
    ----------
    nbytes : int
        Of a chunk; 0 for one of text, which has no fixed number.
    size : int or None
        Of an encoded chunk, if all have the same.
    plain : bool
        Whether an encoded chunk begins with its elements in C order, and nothing but checksums
        follows.
    checks : int
        How many checksums there are.
    compressed : bool
        Whether there are compressors.
    direct : bool
        Whether `decode` leaves the chunk in `raw`, in C order, if that is given.

    Raises
    ------
    FormatError
        An unknown codec or option, or codecs in an order that makes no sense.
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
                _parse_one(specs[0], where)  # which names it if it is unknown
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
        """Encode a chunk; the parts of the result are to be written one after the other.

        Parameters
        ----------
        chunk : ndarray
            Of `shape` and `dtype`. Parts may be views of it.
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
        raw : ndarray of uint8 or None
            `nbytes` of memory for the chunk; a pipeline that compresses needs it.

        Returns
        -------
        ndarray
            A view: of `raw`, of `data`, or of memory of its own, as always with text.

        Raises
        ------
        CodecError
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
        """View the elements' bytes as a chunk."""
        found = np.frombuffer(raw, self.dtype).reshape(self._stored_shape)
        return found if self._axes is None else found.transpose(self._back)


def _copied(data: memoryview, into: Array | None, checked: bool) -> int:
    """Copy bytes, if `into` is given, and compute their CRC-32C, if `checked`."""
    if into is None:
        return crc32c(data) if checked else 0
    source, found = np.frombuffer(data, np.uint8), 0
    # Of a block, the second reading is from the processor's cache.
    step = _BLOCK if checked else len(data)
    for start in range(0, len(data), step or 1):
        block = source[start : start + step]
        if checked:
            found = crc32c(block, found)
        into[start : start + step] = block
    return found


def name_of(spec: Any) -> Any:
    """Give the name of a codec, in either of its forms."""
    return spec.get("name") if isinstance(spec, Mapping) else spec


def _order(spec: Spec, ndim: int, where: str) -> list[int]:
    _, configuration = named(spec, "codec", where, ("transpose",))
    order = configuration.pop("order", None)
    if configuration or not isinstance(order, (list, tuple)) or sorted(order) != list(range(ndim)):
        raise FormatError(f"{where}: codec {spec!r} does not order {ndim} axes")
    return list(order)


def _check_first(spec: Spec, dtype: np.dtype[Any], where: str) -> None:
    """Check the options of the codec that makes bytes of elements."""
    name, configuration = named(spec, "codec", where, ("bytes", "vlen-utf8"))
    if name == "vlen-utf8":
        if configuration:
            raise FormatError(f"{where}: codec 'vlen-utf8' has unknown options: {spec!r}")
        return
    endian = configuration.pop("endian", None)
    if configuration or endian not in ("little", "big", None):
        raise FormatError(f"{where}: codec 'bytes' has unknown options: {spec!r}")
    # Before zarr-python 3.2, dtypes with fields had none, and were little-endian.
    if endian is None and dtype.names is None and endian_of(dtype) is not None:
        raise FormatError(f"{where}: codec 'bytes' lacks the endian that {dtype} needs")
