"""NumPy's files ``.npy`` and ``.npz``, local or in S3, and arrays in memory."""

from __future__ import annotations

import ast
import hashlib
import io
import zipfile
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.lib.format import descr_to_dtype

from dosna.core.text import encode, is_text
from dosna.core.types import Array, Box, Shape
from dosna.core.values import check_dtype, is_masked
from dosna.errors import RefusedError, SourceError, SourceNotFoundError
from dosna.io.bytefile import ByteFile, CachedReader
from dosna.io.contiguous import ContiguousReader, bytes_of, rows
from dosna.io.opening import open_bytes
from dosna.io.s3.options import S3Options, takes_s3_options
from dosna.sources.base import ArrayDescription, Source
from dosna.sources.errors import Converting
from dosna.sources.kinds import SourceKind, registry

__all__ = ["KIND", "NpySource"]

_PIECE = 1 << 18
_CHECKED = 1 << 20


class NpySource(Source):
    """The arrays of an ``.npy`` or ``.npz`` file, or in memory.

    An ``.npy`` file is one array, with the name of the file. The arrays of an ``.npz`` file have
    their own names. Compressed arrays are read forward, which is fastest in the order of their
    rows. Arrays of Python objects are refused, because they would have to be unpickled.

    Parameters
    ----------
    location : str, ndarray or mapping of str to ndarray
        A path, an ``s3://bucket/key`` URL, or arrays in memory.
    inner : str
        An array of an ``.npz`` file; all arrays by default.
    **options
        The server of an ``s3://`` URL, by the fields of `dosna.io.s3.options.S3Options`.
    """

    @takes_s3_options
    def __init__(self, location: Any, inner: str = "", **options: Any) -> None:
        reached = S3Options(**options)
        self._file: ByteFile | None = None
        self._arrays: dict[str, Any] = {}
        self._members: dict[str, _Member] | None = None
        # The fingerprint, and for each array the digest of what comes before it and of it as well.
        self._digests: tuple[str, dict[str, tuple[Any, bytes]]] = ("", {})
        self._foreign: dict[str, str] = {}
        if isinstance(location, str):
            self._file = open_bytes(location, reached)
        elif isinstance(location, Mapping):
            self._arrays = {name: _plain(array) for name, array in location.items()}
            location = "memory"
        else:
            self._arrays, location = {"array": _plain(location)}, "memory"
            inner = "array"
        super().__init__(location, inner.strip("/"))

    def unopened(self) -> dict[str, Any]:
        return {"_members": None}

    @property
    def picklable(self) -> bool:
        return self._file is not None

    @property
    def single(self) -> bool:
        return bool(self.inner) or self._is_npy

    @property
    def _is_npy(self) -> bool:
        return self._file is not None and not self.location.lower().endswith(".npz")

    def close(self) -> None:
        with self._lock:
            self._members = None
            if self._file is not None:
                self._file.close()

    def fingerprint(self) -> str:
        if self._file is not None:
            return self._file.fingerprint()
        digest, digests = hashlib.sha256(), {}
        for name, array in sorted(self._arrays.items()):
            before = digest.copy()
            _add(digest, name, array)
            digests[name] = before, digest.digest()
        self._digests = digest.hexdigest(), digests
        return digest.hexdigest()

    def fingerprint_after_all(self, names: Collection[str], before: str) -> str:
        found, digests = self._digests
        if found != before or not digests.keys() >= set(names):
            return self.fingerprint()
        for name in names:
            digest, after = digests[name][0].copy(), digests[name][1]
            _add(digest, name, self._arrays[name])
            if digest.digest() != after:
                return self.fingerprint()
        return before

    def names(self) -> list[str]:
        if self._file is None:
            return sorted(self._arrays) if not self.inner else [self.inner]
        return sorted([*self._found(), *self._foreign])

    def describe(self, name: str) -> ArrayDescription:
        try:
            if self._file is None:
                found = self._arrays[name]
                shape, dtype, pieces = found.shape, found.dtype, None
            else:
                members = self._found()
                if name in self._foreign:
                    return ArrayDescription(name, refused=self._foreign[name])
                member = members[name]
                shape, dtype, pieces = member.shape, member.dtype, member.pieces
            dtype = check_dtype(dtype)
        except KeyError:
            raise SourceNotFoundError(f"{self} has no array {name!r}") from None
        except TypeError as error:
            return ArrayDescription(name, refused=str(error))
        return ArrayDescription(name, shape, dtype, pieces=pieces)

    def read(self, name: str, box: Box) -> Array:
        if self._file is None:
            # The ellipsis keeps an array without axes an array.
            key: Any = (*box, ...)
            part: Array = self._arrays[name][key]
            return part
        out = np.empty([s.stop - s.start for s in box], self._found()[name].dtype)
        self.read_into(name, box, out)
        return out

    def read_into(self, name: str, box: Box, out: Array) -> None:
        if self._file is None:
            out[...] = self.read(name, box)
            return
        member = self._found()[name]
        with _reading(self.location, name):
            if member.deflated:
                with self._lock:
                    member.read_forward(box, out)
                return
            with self._lock:
                member.check()
            if member.fortran:
                member.reader.read_into(box[::-1], out.T)
            else:
                member.reader.read_into(box, out)

    def _found(self) -> dict[str, _Member]:
        with self._lock:
            if self._members is None:
                with _reading(self.location, self.inner):
                    self._members = self._look()
            return self._members

    def _look(self) -> dict[str, _Member]:
        assert self._file is not None
        if self._is_npy:
            name = PurePosixPath(self.location).name.removesuffix(".npy")
            return {name: _Member(self._file, CachedReader(self._file), 0, self._file.size)}
        archive = zipfile.ZipFile(io.BufferedReader(CachedReader(self._file)))
        found = {}
        self._foreign = {}
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if info.is_dir() or (self.inner and name != self.inner):
                continue
            if not info.filename.endswith(".npy"):
                self._foreign[name] = (
                    "it is another file in the archive, and not an array of NumPy"
                )
                continue
            deflated = info.compress_type != zipfile.ZIP_STORED
            with archive.open(info) as stream:
                offset = 0 if deflated else _data_offset(self._file, info)
                found[name] = _Member(self._file, stream, offset, info.file_size)
            if deflated:
                found[name].compressed(_Forward(archive, info))
            else:
                found[name].stored(offset, info)
        if self.inner and not found and not self._foreign:
            raise SourceNotFoundError(f"{self.location} has no array {self.inner!r}")
        return found


def _add(digest: Any, name: str, array: Any) -> None:
    """Add an array to the digest of a fingerprint."""
    digest.update(f"{name} {array.shape} {array.dtype.str} ".encode())
    if is_text(array.dtype) and not hasattr(array.dtype, "na_object"):
        digest.update(encode(array))
    elif not array.dtype.hasobject and array.dtype.itemsize:
        # NumPy copies elements field by field, and leaves the bytes between fields undefined.
        raw = np.asarray(array).view(f"V{array.dtype.itemsize}")
        for block in np.nditer(raw, ["external_loop", "buffered", "zerosize_ok"], order="C"):
            digest.update(np.ascontiguousarray(block).view(np.uint8).data)


def _plain(array: Any) -> Array:
    if is_masked(array):
        raise RefusedError("a dataset has no mask: fill the array first, array.filled(value)")
    return np.asarray(array)


class _Member:
    """One array of a file.

    Parameters
    ----------
    file : ByteFile
    stream : file object
        A stream of the array from the beginning of its header.
    offset, size : int
        The offset of the header in the file, and the bytes of the array with the header.
    """

    def __init__(self, file: ByteFile, stream: Any, offset: int, size: int) -> None:
        found = _header(stream)
        self.shape: Shape = tuple(found["shape"])
        self.fortran: bool = found["fortran_order"] and len(self.shape) > 1
        self.dtype: np.dtype[Any] = descr_to_dtype(found["descr"])
        self.start = stream.tell()
        self.deflated: _Forward | None = None
        self._file = file
        self._unchecked: tuple[int, zipfile.ZipInfo] | None = None
        self._stored: Shape = self.shape[::-1] if self.fortran else self.shape
        self.reader = ContiguousReader(file, offset + self.start, self._stored, self.dtype)
        pieces = rows(self._stored, self.dtype.itemsize)
        self.pieces = pieces[::-1] if pieces and self.fortran else pieces
        nbytes = int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize
        if not self.dtype.hasobject and size - self.start < nbytes:
            raise ValueError(f"it has {size - self.start} bytes of data, and its header {nbytes}")

    def stored(self, offset: int, info: zipfile.ZipInfo) -> None:
        """Set the offset of a member that is stored uncompressed in an archive."""
        self._unchecked = offset, info

    def check(self) -> None:
        """Check the archive's checksum of an uncompressed member, by reading it once."""
        if self._unchecked is None:
            return
        offset, info = self._unchecked
        found = 0
        for start in range(0, info.file_size, _CHECKED):
            size = min(_CHECKED, info.file_size - start)
            found = zlib.crc32(self._file.read(offset + start, size), found)
        if found != info.CRC:
            raise ValueError(f"its CRC-32 is {found:08x}, and {info.CRC:08x} in the archive")
        self._unchecked = None

    def compressed(self, forward: _Forward) -> None:
        """Set the stream from which compressed elements are read."""
        self.deflated = forward
        if self._stored:
            length, *inner = self._stored
            row = int(np.prod(inner, dtype=object)) * self.dtype.itemsize
            # Whole rows: otherwise everything would be decompressed once for each part of a row.
            pieces = tuple(max(1, n) for n in (min(length, _PIECE // max(1, row)), *inner))
            self.pieces = pieces[::-1] if self.fortran else pieces

    def read_forward(self, box: Box, out: Array) -> None:
        """Read a box of compressed elements. Whole rows are read for it."""
        assert self.deflated is not None
        if self.fortran:
            box, out = box[::-1], out.T
        if not out.size:
            return
        if not box:
            one = self.deflated.read(self.start, self.dtype.itemsize)
            out[...] = np.frombuffer(one, self.dtype)[0]
            return
        whole = np.empty(self._stored[1:], self.dtype)
        raw = bytes_of(whole)
        for number, index in enumerate(range(box[0].start, box[0].stop)):
            at = self.start + index * len(raw)
            for start in range(0, len(raw), _PIECE):
                piece = raw[start : start + _PIECE]
                piece[:] = self.deflated.read(at + start, len(piece))
            out[number] = whole[box[1:]]


@dataclass
class _Forward:
    """A compressed member of an archive. To go back, it is read from its beginning again."""

    archive: zipfile.ZipFile
    info: zipfile.ZipInfo
    stream: Any = None
    position: int = 0

    def read(self, offset: int, size: int) -> bytes:
        if self.stream is None or offset < self.position:
            self.stream, self.position = self.archive.open(self.info), 0
        while self.position < offset:
            self.position += len(self._next(min(_PIECE, offset - self.position)))
        data = self._next(size)
        self.position += len(data)
        return data

    def _next(self, size: int) -> bytes:
        data: bytes = self.stream.read(size)
        if len(data) != size:
            raise ValueError("its compressed bytes end too early")
        return data


def _header(stream: Any) -> dict[str, Any]:
    """Read the header of an array, in the format of `numpy.lib.format`."""
    head = stream.read(8)
    if head[:6] != b"\x93NUMPY" or head[6] not in (1, 2, 3):
        raise ValueError("it does not begin as an .npy file of version 1 to 3 does")
    length = int.from_bytes(stream.read(2 if head[6] == 1 else 4), "little")
    text = stream.read(length).decode("utf-8" if head[6] == 3 else "latin1")
    try:
        found = ast.literal_eval(text)
        if found.keys() == {"descr", "fortran_order", "shape"}:
            return dict(found)
    except (SyntaxError, AttributeError, MemoryError, RecursionError):
        pass
    raise ValueError("its header is damaged")


def _data_offset(file: ByteFile, info: zipfile.ZipInfo) -> int:
    # The local header repeats the name, and has its own extra fields: APPNOTE.TXT, 4.3.7.
    head = bytes(file.read(info.header_offset, 30))
    name, extra = int.from_bytes(head[26:28], "little"), int.from_bytes(head[28:30], "little")
    return info.header_offset + 30 + name + extra


def _reading(location: str, name: str) -> Converting:
    """Return a context that converts errors for a damaged file to SourceError."""

    def convert(error: Exception) -> SourceError | None:
        known = (ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError)
        if not isinstance(error, known):
            return None
        if name:
            return SourceError(f"{name!r} of {location} cannot be read: {error}")
        return SourceError(f"{location} is damaged, or not a file of NumPy: {error}")

    return Converting(convert)


KIND = SourceKind(
    name="npy",
    source=NpySource,
    claims=registry.known["npy"].about,
    description="NumPy's .npy and .npz files, and arrays in memory",
    url="https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html",
)
