"""Exchange of two paths in one step."""

from __future__ import annotations

import ctypes
import errno
import os
from functools import cache
from typing import Any

__all__ = ["exchange"]

_CURRENT_FOLDER, _EXCHANGE = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
_NOT_SUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


@cache
def _renameat2() -> Any:
    """Return the function of the C library; None where it has none, as in older musl."""
    return getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)


def exchange(one: str, other: str, folder: int | None = None) -> bool:
    """Exchange two paths in one step. Return False where the file system cannot do that.

    Relative paths start at the folder of the descriptor `folder`, or at the current one.
    """
    rename, at = _renameat2(), _CURRENT_FOLDER if folder is None else folder
    if rename is None:
        return False
    if rename(at, os.fsencode(one), at, os.fsencode(other), _EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NOT_SUPPORTED:
        return False
    raise OSError(code, os.strerror(code), one, None, other)
