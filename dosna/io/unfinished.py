"""Files and folders under a hidden name beside their own, until they are whole.

The name tells which process writes, so that a later one finds what a killed one has left.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress

from dosna.io.exchange import exchange
from dosna.io.files import remove_folder, sync_folder
from dosna.io.processes import maker, maker_has_ended

__all__ = ["discard", "finish", "name_unfinished"]

_PART, _OLD = ".part", ".old"
_LONGEST = 180


def name_unfinished(path: str) -> str:
    """Return a new hidden path beside `path`, after removing what killed processes have left."""
    folder, name = os.path.split(path)
    _sweep(folder, path)
    return os.path.join(folder, f"{_hidden(name)}{maker()}{_PART}")


def finish(part: str, path: str, replace: bool = True) -> None:
    """Give a whole file or folder its name, durably.

    Parameters
    ----------
    part : str
        A path of `name_unfinished`.
    path : str
        The name.
    replace : bool
        False to fail if there is something of that name; where the file system has no links,
        something that has appeared just now is replaced.

    Raises
    ------
    FileExistsError
        There is something, and it is not to be replaced.
    OSError
        The file system refuses it.
    """
    if os.path.isfile(part):
        with open(part, "rb") as file:
            os.fsync(file.fileno())
    if not replace and os.path.lexists(path):
        raise FileExistsError(f"{path} exists: choose another name, or overwrite=True")
    if os.path.isdir(path) or os.path.isdir(part):
        _replace_folder(part, path)
    elif replace or not _linked(part, path):
        os.replace(part, path)
    sync_folder(os.path.dirname(path) or os.curdir)


def discard(part: str) -> None:
    """Remove an unfinished file or folder; if that fails, `name_unfinished` will do it later."""
    with suppress(OSError):
        remove_folder(part)


def _linked(part: str, path: str) -> bool:
    """Give a file its name as long as nothing has it; return False if there are no links."""
    try:
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError:
        return False
    os.unlink(part)
    return True


def _hidden(name: str) -> str:
    """Return the beginning of the names of unfinished files."""
    if len(os.fsencode(name)) > _LONGEST:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    return f".{name}."


def _sweep(folder: str, path: str) -> None:
    """Remove files of processes that were killed while they wrote to this path.

    A file is kept if its name does not tell its maker, or if its maker may still be running.
    """
    start = _hidden(os.path.basename(path))
    try:
        listed = os.listdir(folder or os.curdir)
    except OSError:
        return  # who may write into a folder may not always list it; writing tells other faults
    left = {name.removesuffix(_OLD) for name in listed if name.startswith(start)}
    for name in left:
        if not name.endswith(_PART) or not maker_has_ended(name[len(start) : -len(_PART)]):
            continue
        part = os.path.join(folder, name)
        old = part + _OLD
        if os.path.lexists(old) and not os.path.lexists(path):
            # Killed between the two steps of `_replace_folder`: the new folder is whole.
            os.rename(part if os.path.lexists(part) else old, path)
        discard(part)
        discard(old)


def _replace_folder(part: str, path: str) -> None:
    """Put `part` in the place of `path`, where one of them is a folder.

    Renaming alone cannot replace a folder.
    """
    if not os.path.lexists(path):
        os.rename(part, path)
        return
    if exchange(part, path):
        discard(part)
        return
    old = part + _OLD
    os.rename(path, old)
    try:
        os.rename(part, path)
    except BaseException:
        with suppress(OSError):
            os.rename(old, path)
        raise
    discard(old)
