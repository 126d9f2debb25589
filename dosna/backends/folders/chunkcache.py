"""A cache of decoded chunks of files, which the datasets and threads of one connection share.

A chunk in it counts only as long as its file is the same one in the same state: as long as the
device, the inode, the size and both time stamps of what its name is opened as are those that they
were before and after it was read. Time stamps have a resolution, and an inode may be used again.
So a file that was changed less than `_SETTLED` before it is read is not kept: whatever changes or
replaces it after that has a later time stamp.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from dosna.core.types import Array
from dosna.io.cache import Cache

__all__ = ["FileCache"]

_OWN_BYTES = 512
"""Bytes that an entry takes besides its elements."""

_SETTLED = 2_000_000_000
"""Nanoseconds that exceed the resolution of time stamps (FAT: 2 s), and a server's clock's lag."""


class _State(NamedTuple):
    """The state of a file, which is known without reading it."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int


class FileCache:
    """The chunks that were used last, by the datasets and the names of their files.

    A process that receives it by pickling, or is forked, begins with an empty one.

    Parameters
    ----------
    limit : int
        The most bytes to hold.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._chunks: Cache[tuple[_State, Array]] = Cache(
            limit, lambda c: c[1].nbytes + _OWN_BYTES
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return FileCache, (self.limit,)

    def admits(self, nbytes: int) -> bool:
        """Return True if a chunk of so many bytes can be held."""
        return nbytes + _OWN_BYTES <= self.limit

    def clear(self) -> None:
        """Drop all chunks."""
        self._chunks.clear()

    def read(self, key: tuple[Any, ...], file: int, read: Callable[[], Array]) -> Array:
        """Return the chunk of a file, which is read-only.

        Parameters
        ----------
        key : tuple
            The name of the file, and what identifies the description of its dataset.
        file : int
            The descriptor of the file, as its name has just been opened.
        read : callable
            A function that reads and decodes the file. The cache copies what it returns.
        """
        state = _state(file)
        kept = self._chunks.find(key)
        if kept is not None and kept[0] == state:
            return kept[1]
        now = time.time_ns()
        values = read()
        if now - max(state.modified, state.changed) > _SETTLED and _state(file) == state:
            values = values.copy()
            values.flags.writeable = False
            self._chunks.put(key, (state, values))
        else:
            self._chunks.drop(key)
        return values


def _state(file: int) -> _State:
    found = os.fstat(file)
    return _State(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
