"""The bytes of a file, local or in S3, read at any place and by several threads at a time."""

from __future__ import annotations

import io
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from dosna.errors import SourceChangedError, SourceError
from dosna.errors import SourceNotFoundError as NotFound
from dosna.io.cache import Cache
from dosna.io.ranges import PIECE

__all__ = ["ByteFile", "MemoryFile"]

_CACHE_BLOCK = 1 << 18
_CACHE_BLOCKS = 128


class ByteFile(ABC):
    """A file whose bytes do not change. It can be pickled, and the copy is opened again."""

    location: str

    most_span: ClassVar[int] = 0
    """The bytes after which a request for several parts ends; 0 if requests cost nothing."""

    range_bytes: ClassVar[int] = PIECE
    """The bytes that an additional request has to save."""

    @abstractmethod
    def pin(self, fingerprint: str) -> None:
        """Require a state of the file: reading any other state raises SourceChangedError."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Number of bytes."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a text that distinguishes this state of the file from others."""

    @abstractmethod
    def read(self, offset: int, size: int) -> bytes | memoryview:
        """Read bytes. Raise SourceError if the file ends before them."""

    def read_into(self, offset: int, out: memoryview) -> None:
        """Read as many bytes as `out` has."""
        out[:] = self.read(offset, len(out))

    def for_each(self, work: Callable[[Any], object], items: Iterable[Any]) -> None:
        """Call `work`, which reads, for each item: one after the other or several at a time."""
        for item in items:
            work(item)

    def stream(self) -> io.RawIOBase | io.BufferedIOBase:
        """Return a file object, for libraries that need one."""
        return CachedReader(self)

    @abstractmethod
    def close(self) -> None:
        """Close the file. It is opened again when it is used."""

    def _ends(self, offset: int, size: int) -> SourceError:
        return SourceError(
            f"{self.location} is truncated: bytes {offset} to {offset + size} are not all there; "
            "copy the file again"
        )

    def _changed(self, pinned: str, found: str) -> SourceChangedError:
        return SourceChangedError(
            f"{self.location} has changed since it was linked: then it had {pinned}, and now "
            f"{found}. Restore it, or link it again with overwrite=True"
        )

    def _gone(self) -> NotFound:
        return NotFound(
            f"{self.location}, which is linked, is gone: restore it, or delete what links to it"
        )


class MemoryFile(ByteFile):
    """All bytes of a small file, as they were when it was read.

    Parameters
    ----------
    location : str
        The path or URL of the file.
    data : bytes or memoryview
        The bytes of the file.
    fingerprint : str
        The fingerprint of the file.
    """

    def __init__(self, location: str, data: bytes | memoryview, fingerprint: str) -> None:
        self.location = location
        self._data, self._fingerprint = bytes(data), fingerprint

    @property
    def size(self) -> int:
        return len(self._data)

    def fingerprint(self) -> str:
        return self._fingerprint

    def pin(self, fingerprint: str) -> None:
        if fingerprint != self._fingerprint:
            raise self._changed(fingerprint, self._fingerprint)

    def read(self, offset: int, size: int) -> memoryview:
        found = memoryview(self._data)[offset : offset + size]
        if len(found) != size:
            raise self._ends(offset, size)
        return found

    def stream(self) -> io.BytesIO:
        return io.BytesIO(self._data)

    def close(self) -> None:
        """Do nothing: the bytes are kept, because there is nothing to open again."""


class CachedReader(io.RawIOBase):
    """A file object over a `ByteFile`, for libraries that need one. It caches some blocks."""

    def __init__(self, file: ByteFile) -> None:
        self._bytes = file
        self._position = 0
        self._blocks: Cache[bytes | memoryview] = Cache(_CACHE_BLOCKS)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._bytes.size}
        self._position = start[whence] + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        out = memoryview(buffer).cast("B")
        start = self._position
        stop = min(start + len(out), self._bytes.size)
        if stop <= start:
            return 0
        if stop - start > _CACHE_BLOCK * _CACHE_BLOCKS // 4:
            self._bytes.read_into(start, out[: stop - start])
        else:
            for number in range(start // _CACHE_BLOCK, (stop - 1) // _CACHE_BLOCK + 1):
                begin = number * _CACHE_BLOCK
                first, last = max(start, begin), min(stop, begin + _CACHE_BLOCK)
                out[first - start : last - start] = self._block(number)[
                    first - begin : last - begin
                ]
        self._position = stop
        return stop - start

    def _block(self, number: int) -> bytes | memoryview:
        begin = number * _CACHE_BLOCK
        size = min(_CACHE_BLOCK, self._bytes.size - begin)
        return self._blocks.get(number, lambda: self._bytes.read(begin, size))
