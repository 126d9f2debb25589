"""The file systems that this machine has mounted: whether other machines see them too."""

from __future__ import annotations

import os
import re
import socket
from functools import lru_cache

__all__ = ["host_of"]

# Those of disks and of memory; others (nfs, lustre, gpfs, ceph, fuse, …) may be of many machines.
_LOCAL = frozenset(
    (
        "bcachefs",
        "btrfs",
        "ext2",
        "ext3",
        "ext4",
        "f2fs",
        "overlay",
        "ramfs",
        "tmpfs",
        "xfs",
        "zfs",
    )
)


def host_of(path: str) -> str | None:
    """Return the name of this machine if a folder is on one of its own disks.

    Parameters
    ----------
    path : str
        The path of the folder.

    Returns
    -------
    str or None
        None if the file system may be that of many machines, or is unknown.
    """
    try:
        device = os.stat(path).st_dev
    except OSError:
        return None
    return socket.gethostname() if _kind_of(device) in _LOCAL else None


@lru_cache(maxsize=64)
def _kind_of(device: int) -> str:
    """Return the type of a file system by its device, or an empty text if it is unknown.

    The form of the file is that of proc(5).
    """
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                before, _, after = line.partition(" - ")
                if before.split(" ")[2] == wanted:
                    return re.split(r"[ .]", after)[0]
    except OSError:
        return ""
    return ""
