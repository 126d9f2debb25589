"""Which datasets exist below a folder of a file system."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator

from dosna.io.files import is_absent

__all__ = ["names_below"]

_MOST_LINKS = 8
"""Number of symbolic links that a listing follows on the way to a dataset."""


def names_below(path: str, prefix: str, holds_dataset: Callable[[str], bool]) -> Iterator[str]:
    """Yield the datasets below a folder. Unreadable folders are left out with a warning.

    Parameters
    ----------
    path : str
        The path of the folder.
    prefix : str
        The name of the folder and '/', or '' for the outermost.
    holds_dataset : callable
        A function that returns True for the path of a dataset.
    """
    groups: list[tuple[str, str, frozenset[tuple[int, int]], int]]
    groups = [(path, prefix, frozenset(), 0)]
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


def _left_out(path: str, error: OSError) -> None:
    if not is_absent(error):  # deleted meanwhile, or a link that leads nowhere
        warnings.warn(
            f"{path} cannot be read ({error.strerror}): datasets in it are not listed",
            stacklevel=2,
        )
