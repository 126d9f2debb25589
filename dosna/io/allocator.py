"""The treatment of freed memory by the allocator of glibc.

For memory of 128 KiB or more it asks the system, and gives it back when it is freed. It learns
from sizes that are freed to keep more, but in threads only twice the largest: blocks of decoded
chunks are then given back and mapped anew, page by page, for every request. See mallopt(3).
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

__all__ = ["MMAP_THRESHOLD", "TRIM_THRESHOLD", "keep_freed_memory"]

MMAP_THRESHOLD = 32 << 20
"""Bytes of the smallest block that is mapped by itself: the most that glibc would learn."""
TRIM_THRESHOLD = 64 << 20
"""Bytes that are kept at the end of an arena: what glibc would learn with the other."""

_TRIM, _MMAP, _ARENAS = -1, -3, -8
_MOST_ARENAS = 2
_CHOSEN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Let the threads of this process keep up to 128 MiB of freed memory for what they read next.

    Call it in commands that are a process of their own, before they start threads. A choice of the
    environment is respected.

    Returns
    -------
    bool
        False if nothing was changed: the environment chooses, or the C library is not glibc.
    """
    if any(name in os.environ for name in _CHOSEN):
        return False
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 - others have a mallopt that does nothing
        settings = ((_MMAP, MMAP_THRESHOLD), (_TRIM, TRIM_THRESHOLD), (_ARENAS, _MOST_ARENAS))
        return all(library.mallopt(name, value) == 1 for name, value in settings)
    return False
