"""Lists of the datasets below a folder of a file system."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator

from dosna.core.names import Children
from dosna.io.files import is_absent

__all__ = ["children_of", "names_below"]

_MOST_LINKS = 8
"""Number of symbolic links that a listing follows on the way to a dataset."""


def names_below(path: str, group: str, holds_dataset: Callable[[str], bool]) -> Iterator[str]:
    """Yield the datasets in a group. Unreadable folders are left out with a warning.

    Parameters
    ----------
    path : str
        The path of the outermost folder.
    group : str
        The name of the group; '' for the outermost. It need not exist, or may be a dataset.
    holds_dataset : callable
        A function that returns True for the path of a dataset.
    """
    groups: list[tuple[str, str, frozenset[tuple[int, int]], int]] = []
    if _is_group(path, group, holds_dataset):
        groups = [(os.path.join(path, group), group and group + "/", frozenset(), 0)]
    while groups:
        path, prefix, above, links = groups.pop()
        try:
            status = os.stat(path)
            identity = (status.st_dev, status.st_ino)
            if identity in above:
                continue  # a symbolic link leads back
            with os.scandir(path) as entries:
                found = [e for e in entries if not e.name.startswith(".")]
        except OSError as error:
            if above:
                _left_out(path, error)
                continue
            raise
        for entry in found:
            name = prefix + entry.name
            try:
                if not entry.is_dir():
                    continue
                if holds_dataset(entry.path):
                    yield name
                    continue
                more = links + entry.is_symlink()
                if more <= _MOST_LINKS:
                    groups.append((entry.path, name + "/", above | {identity}, more))
            except OSError as error:
                _left_out(entry.path, error)


def children_of(path: str, group: str, holds_dataset: Callable[[str], bool]) -> Children:
    """Return the members of a group; the parameters are those of `names_below`."""
    found = Children([], [])
    if not _is_group(path, group, holds_dataset):
        return found
    prefix = group and group + "/"
    with os.scandir(os.path.join(path, group)) as entries:
        for entry in entries:
            try:
                if not entry.name.startswith(".") and entry.is_dir():
                    kind = found.datasets if holds_dataset(entry.path) else found.groups
                    kind.append(prefix + entry.name)
            except OSError as error:
                _left_out(entry.path, error)
    return Children(sorted(found.groups), sorted(found.datasets))


def _is_group(path: str, group: str, holds_dataset: Callable[[str], bool]) -> bool:
    folder = os.path.join(path, group)
    return not group or (os.path.isdir(folder) and not holds_dataset(folder))


def _left_out(path: str, error: OSError) -> None:
    if not is_absent(error):  # deleted meanwhile, or a link that leads nowhere
        warnings.warn(
            f"{path} cannot be read ({error.strerror}): datasets in it are not listed",
            stacklevel=2,
        )
