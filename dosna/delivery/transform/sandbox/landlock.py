"""Landlock: the files that a process may use from now on."""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterable

from dosna.delivery.transform.sandbox.kernel import syscall

__all__ = ["restrict", "version"]

# The numbers of system calls since Linux 5 are the same on all machines.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION = 1
_PATH_BENEATH = 1

_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_REMOVE_FILE, _MAKE_FILE, _TRUNCATE = 1 << 5, 1 << 8, 1 << 14

_OF_FILES = _WRITE_FILE | _READ_FILE | _TRUNCATE
_READ = _READ_FILE | _READ_DIR
# Not among them: executing; creating symbolic links, sockets, pipes and devices; and creating
# folders, which could be nested so deeply that they are hard to measure and to remove.
_WRITE = _READ | _WRITE_FILE | _REMOVE_FILE | _MAKE_FILE | _TRUNCATE

_KNOWN = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""The number of file rights of each version; later versions add none that matter here."""
_AS_PLACE = os.O_PATH
_NETWORK_SINCE, _SCOPES_SINCE = 4, 6
_TCP, _SIGNALS_AND_ABSTRACT_SOCKETS = 3, 3


class _Ruleset(ctypes.Structure):
    _fields_ = (
        ("files", ctypes.c_uint64),
        ("network", ctypes.c_uint64),
        ("scopes", ctypes.c_uint64),
    )


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def version() -> int:
    """Return the version of the kernel's Landlock; 0 if it has none or it is off."""
    try:
        return syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_ASK_VERSION))
    except OSError:
        return 0


def restrict(readable: Iterable[str | int], writable: Iterable[str | int]) -> None:
    """Deny this process all files except those below paths, and any new privileges.

    Parameters
    ----------
    readable, writable : iterable of str or int
        Files and folders, by path or by descriptor. Paths that do not exist are left out.

    Raises
    ------
    OSError
        The kernel has no Landlock.
    """
    number = version()
    rights = (1 << _KNOWN[min(number, max(_KNOWN))]) - 1 if number else 0
    ruleset = _Ruleset(
        rights,
        _TCP if number >= _NETWORK_SINCE else 0,
        _SIGNALS_AND_ABSTRACT_SOCKETS if number >= _SCOPES_SINCE else 0,
    )
    size = 24 if number >= _SCOPES_SINCE else 16 if number >= _NETWORK_SINCE else 8
    handle = syscall(
        _CREATE_RULESET, ctypes.byref(ruleset), ctypes.c_size_t(size), ctypes.c_uint32(0)
    )
    try:
        for paths, allowed in ((readable, _READ), (writable, _WRITE)):
            for path in paths:
                _allow(handle, path, allowed & rights)
        syscall(_RESTRICT_SELF, ctypes.c_int(handle), ctypes.c_uint32(0))
    finally:
        os.close(handle)


def _allow(ruleset: int, path: str | int, allowed: int) -> None:
    try:
        parent = os.dup(path) if isinstance(path, int) else os.open(path, _AS_PLACE)
    except OSError:
        return  # a path that cannot be opened need not be allowed
    try:
        if not stat.S_ISDIR(os.fstat(parent).st_mode):
            allowed &= _OF_FILES
        rule = _Beneath(allowed, parent)
        syscall(
            _ADD_RULE,
            ctypes.c_int(ruleset),
            ctypes.c_int(_PATH_BENEATH),
            ctypes.byref(rule),
            ctypes.c_uint32(0),
        )
    finally:
        os.close(parent)
