"""Datasets in folders: all ROOT files in one, or those that match a pattern."""

from __future__ import annotations

import glob
import os

from dosna.delivery.finders.allowed import in_folders
from dosna.delivery.settings import Settings
from dosna.delivery.state.datasets import FoundFile
from dosna.errors import SourceError, SourceNotFoundError

__all__ = ["find_folder", "find_pattern"]

_MOST = 1_000_000
_MOST_DEEP = 2
"""Each further one multiplies the time by the depth of the folders."""


def find_pattern(rest: str, settings: Settings) -> list[FoundFile]:
    """Return the files that match a pattern with ``*``, ``?``, ``[…]`` and ``**``, by name."""
    pattern = rest.removeprefix("//")
    if ".." in pattern.split("/"):
        raise SourceError(f"the pattern {pattern} must not contain '..'")
    if pattern.split("/").count("**") > _MOST_DEEP:
        raise SourceError(
            f"the pattern {pattern} has '**' more than {_MOST_DEEP} times: name the folders"
        )
    inside = [f for f in settings.folders if os.path.join(f, pattern).startswith(f + "/")]
    if not inside:
        raise SourceError(
            f"{pattern} is not served here: files are read below {', '.join(settings.roots)}"
        )
    found: dict[str, FoundFile] = {}
    for folder in inside:
        below = os.path.relpath(os.path.join(folder, pattern), folder)
        for name in sorted(glob.iglob(below, root_dir=folder, recursive=True)):
            path = os.path.realpath(os.path.join(folder, name))
            # A link may lead out of the folder.
            if os.path.isfile(path) and os.path.commonpath([folder, path]) == folder:
                found[path] = FoundFile(path, os.path.getsize(path))
            if len(found) > _MOST:
                raise SourceError(
                    f"the pattern {pattern} matches more than {_MOST} files: write a narrower one"
                )
    if not found:
        raise SourceNotFoundError(f"no file matches the pattern {pattern}: check its path")
    return list(found.values())


def find_folder(rest: str, settings: Settings) -> list[FoundFile]:
    """Return the ROOT files in a folder and its subfolders, by name."""
    folder = in_folders(rest.removeprefix("//"), settings, "folder")
    return find_pattern("//" + glob.escape(folder) + "/**/*.root", settings)
