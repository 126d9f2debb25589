"""Identifying the process that made something, and checking whether it has ended."""

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
    """Return a name of this machine, or its container, until its next start; None if unknown.

    Process numbers are unique under one such name.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def describe(pid: int) -> dict[str, Any] | None:
    """Return a description of a process, or None if it is not visible."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    # A number may be used again, but not by a process that started at the same time.
    began = "" if fields[0] in "ZX" else fields[19]
    return {"machine": machine(), "host": os.uname().nodename, "pid": pid, "began": began}


def has_ended(pid: int, began: str) -> bool:
    """Return True if a process of this machine has certainly ended."""
    try:
        os.kill(pid, 0)  # sends no signal; finds processes too that /proc hides
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        pass
    found = describe(pid)
    return found is not None and found["began"] != began


def maker() -> str:
    """Return a random short text that identifies this process, for names of unfinished files."""
    here = describe(os.getpid())
    where = None if here is None else here["machine"]
    if where is None:
        return secrets.token_hex(4)
    assert here is not None
    return f"{_short(where)}-{here['pid']}-{here['began']}-{secrets.token_hex(2)}"


def maker_has_ended(text: str) -> bool:
    """Return True if the process that a text of `maker` identifies has ended.

    The result is False if that is not known: for processes of other machines, for processes before
    this machine's last start, and for texts that identify no process.
    """
    found, here = _MAKER.fullmatch(text), machine()
    if found is None or here is None or found[1] != _short(here):
        return False
    return has_ended(int(found[2]), found[3])


def _short(where: str) -> str:
    return hashlib.sha256(where.encode()).hexdigest()[:8]
