"""Which process made something, and whether it has ended."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from pathlib import Path
from typing import Any

__all__ = ["describe", "has_ended", "machine", "maker", "maker_has_ended"]

_MAKER = re.compile(r"([0-9a-f]{8})-(\d{1,10})-(\d{1,20})-[0-9a-f]{4}")


def machine() -> str | None:
    """Name what has process numbers of its own, until its next start; None if nothing does."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def describe(pid: int) -> dict[str, Any] | None:
    """Describe a process; None if that is not to be seen."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    # A number may be used again, but not by a process that began at the same time.
    began = "" if fields[0] in "ZX" else fields[19]
    return {"machine": machine(), "host": os.uname().nodename, "pid": pid, "began": began}


def has_ended(pid: int, began: str) -> bool:
    """Return whether a process of this machine is certain to have ended."""
    try:
        os.kill(pid, 0)  # no signal; sees those too that /proc hides
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        pass
    found = describe(pid)
    return found is not None and found["began"] != began


def maker() -> str:
    """Return a short text for names of what is unfinished: random, and telling this process."""
    here = describe(os.getpid())
    where = None if here is None else here["machine"]
    if where is None:
        return secrets.token_hex(4)
    assert here is not None
    return f"{_short(where)}-{here['pid']}-{here['began']}-{secrets.token_hex(2)}"


def maker_has_ended(text: str) -> bool:
    """Return whether the process that `maker` told of has ended.

    False where that is not known: of processes of other machines, or of a time before this one's
    start, and of texts that tell of none.
    """
    found, here = _MAKER.fullmatch(text), machine()
    if found is None or here is None or found[1] != _short(here):
        return False
    return has_ended(int(found[2]), found[3])


def _short(where: str) -> str:
    return hashlib.sha256(where.encode()).hexdigest()[:8]
