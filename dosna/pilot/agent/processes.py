"""Linux processes: how everything that a unit starts ends with it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time

__all__ = [
    "become_subreaper",
    "children_of",
    "end_children",
    "end_steps",
    "signal_when_parent_ends",
]

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_libc = ctypes.CDLL(None, use_errno=True)


def become_subreaper() -> None:
    """Become the parent of descendants whose parents have ended, even after setsid."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def signal_when_parent_ends(number: int, parent: int) -> None:
    """Get a signal when the parent ends; at once if it has ended."""
    _libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def children_of(pid: int) -> list[int]:
    """Return the process ids of children, including zombies."""
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                found += [int(one) for one in file.read().split()]
    except FileNotFoundError:
        return _by_looking_at_all(pid)
    return found


def _by_looking_at_all(pid: int) -> list[int]:
    # Kernels without CONFIG_PROC_CHILDREN.
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[1]) == pid:
                found.append(int(name))
    return found


def end_children(spare: frozenset[int] | set[int] = frozenset(), seconds: float = 20) -> bool:
    """Kill all children and their descendants, except some; return whether none is left.

    This is for a subreaper, which inherits the descendants. A process in an uninterruptible wait
    may outlive ``seconds``.
    """
    end = time.monotonic() + seconds
    while not _has_none():
        left = [pid for pid in children_of(os.getpid()) if pid not in spare]
        if not left:
            break
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in left:
            if not _reap(pid, end):
                return False
    return True


def end_steps(seconds: float = 5) -> None:
    """End all `srun` among the descendants, so that they end what they have on other nodes.

    Those that are killed leave it there. Here that is no matter, as the rest is killed anyway.
    """
    left = [pid for pid in _descendants(os.getpid()) if _name_of(pid) == "srun"]
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + seconds
    while any(_name_of(pid) == "srun" for pid in left) and time.monotonic() < end:
        time.sleep(0.02)


def _descendants(pid: int) -> list[int]:
    children = children_of(pid)
    return children + [one for child in children for one in _descendants(child)]


def _name_of(pid: int) -> str:
    """Return the name of the program of a process that has not ended."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            name, _, rest = file.read().partition("(")[2].rpartition(")")
    except OSError:
        return ""
    return "" if rest.split()[0] == "Z" else name


def _has_none() -> bool:
    try:
        # Without reaping it, because others may wait for it.
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False


def _reap(pid: int, end: float) -> bool:
    pause = 0.0005
    while True:
        try:
            if os.waitpid(pid, os.WNOHANG)[0]:
                return True
        except ChildProcessError:
            return True
        if time.monotonic() > end:
            return False
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
