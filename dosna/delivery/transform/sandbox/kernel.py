"""System calls that Python does not offer."""

from __future__ import annotations

import ctypes
import os
from typing import Any

__all__ = ["die_with_parent", "drop_capabilities", "forbid_new_privileges", "prctl", "syscall"]

_SET_PARENT_DEATH_SIGNAL = 1
_SET_NO_NEW_PRIVILEGES = 38
_CAPABILITY_VERSION = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def syscall(number: int, *arguments: Any) -> int:
    """Make a system call.

    Raises
    ------
    OSError
        The call failed.
    """
    return _checked(_libc.syscall(ctypes.c_long(number), *arguments))


def prctl(option: int, *arguments: Any) -> int:
    """Perform an operation on this process.

    Raises
    ------
    OSError
        The call failed.
    """
    words = [ctypes.c_ulong(0)] * (4 - len(arguments))
    return _checked(_libc.prctl(ctypes.c_int(option), *arguments, *words))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def forbid_new_privileges() -> None:
    """Prevent programs that this process starts from gaining privileges."""
    prctl(_SET_NO_NEW_PRIVILEGES, ctypes.c_ulong(1))


def die_with_parent(signal: int) -> None:
    """Have the kernel send this process a signal when its parent ends."""
    prctl(_SET_PARENT_DEATH_SIGNAL, ctypes.c_ulong(signal))


def drop_capabilities() -> None:
    """Give up the capabilities that root has."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    _checked(_libc.capset(header, (ctypes.c_uint32 * 6)()))
