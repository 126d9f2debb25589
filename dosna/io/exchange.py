"""Exchange of two paths in one step."""

from __future__ import annotations

import ctypes
import errno
import os
from functools import cache
from typing import Any

__all__ = ["exchange"]

_EXCHANGE = 2  # RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS
_NOT_SUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)


@cache
def _rename_of_system() -> tuple[Any, int] | None:
    """Return the function that exchanges, and its number of the current folder (AT_FDCWD)."""
    library = ctypes.CDLL(None, use_errno=True)
    for name, here in (("renameat2", -100), ("renameatx_np", -2)):  # Linux, macOS
        rename = getattr(library, name, None)
        if rename is not None:
            return rename, here
    return None


def exchange(one: str, other: str, folder: int | None = None) -> bool:
    """Exchange two paths in one step. Return False where the file system cannot do that.

    Relative paths start at the folder of the descriptor `folder`, or at the current one.
    """
    found = _rename_of_system()
    if found is None:
        return False
    rename, here = found
    at = here if folder is None else folder
    if rename(at, os.fsencode(one), at, os.fsencode(other), _EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NOT_SUPPORTED:
        return False
    raise OSError(code, os.strerror(code), one, None, other)
