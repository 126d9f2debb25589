"""All steps that confine a process, in order."""

from __future__ import annotations

import functools
import os
import resource
import sys
import sysconfig
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from dosna.delivery.transform.sandbox import kernel, landlock, seccomp
from dosna.errors import ConfigurationError

__all__ = ["Bounds", "confine", "lacking", "libraries"]

_SYSTEM = (
    "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache",
    "/etc/localtime", "/usr/share/zoneinfo", "/sys/devices/system/cpu",
    "/dev/urandom", "/dev/zero",
)  # fmt: skip


@dataclass(frozen=True)
class Bounds:
    """The limits of a confined process.

    Parameters
    ----------
    readable, writable : tuple of str or int
        Files and folders, by path or by descriptor, in addition to the libraries of Python.
    seconds : float
        The processor time for each core, in seconds.
    memory : int
        The bytes that may be allocated in addition to existing memory.
    disk : int
        The maximum size of a file in bytes.
    """

    readable: tuple[str | int, ...]
    writable: tuple[str | int, ...]
    seconds: float
    memory: int
    disk: int


def lacking() -> str:
    """Return what this machine lacks for `confine`, or an empty text."""
    if not seccomp.supported():
        return f"the system calls of {os.uname().machine} are not known"
    if landlock.version() < 1:
        return (
            "this kernel has no Landlock: it takes Linux 5.13 or later, with 'landlock' among the "
            "modules of /sys/kernel/security/lsm"
        )
    return ""


@functools.cache
def libraries() -> tuple[str, ...]:
    """Return the files and folders of Python and its packages."""
    found = {
        *_SYSTEM,
        os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(__file__)))),
    }
    found.update(path for path in sys.path if path and os.path.isdir(path))
    found.update(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib"))
    found.update(os.path.realpath(path) for path in list(found))
    return tuple(sorted(found))


def confine(bounds: Bounds, strict: bool = True) -> None:
    """Confine this process, which must have only one Python thread, to bounds for good.

    Parameters
    ----------
    bounds : Bounds
        The limits.
    strict : bool
        False to continue if the kernel cannot confine the process; resources are limited even
        then.

    Raises
    ------
    ConfigurationError
        The kernel lacks something, and `strict` is True.
    """
    if strict and (why := lacking()):
        raise ConfigurationError(f"a selection cannot be confined: {why}")
    kernel.forbid_new_privileges()
    _limit(bounds)
    readable, writable = (*libraries(), *bounds.readable), (*bounds.writable, "/dev/null")
    with suppress(*(() if strict else (OSError,))):
        landlock.restrict(readable, writable)
    kernel.drop_capabilities()
    if seccomp.supported():
        seccomp.refuse_calls()


def _limit(bounds: Bounds) -> None:
    cores = len(os.sched_getaffinity(0))
    limits: Iterable[tuple[int, int]] = (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, int(bounds.seconds * cores) + 1),
        (resource.RLIMIT_DATA, _allocated() + bounds.memory),
        (resource.RLIMIT_FSIZE, bounds.disk),
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    )
    for limit, value in limits:
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))


def _allocated() -> int:
    """Return the bytes that RLIMIT_DATA counts already."""
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith("VmData:"):
                return int(line.split()[1]) << 10
    return 0
