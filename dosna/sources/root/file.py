"""ROOT files opened by uproot: through dosna's files, or by uproot's handlers for other URLs."""

from __future__ import annotations

import glob
import os
import queue
from collections.abc import Sequence
from typing import Any

import uproot
import uproot.source.chunk

from dosna.errors import (
    DosnaError,
    MissingDependencyError,
    RefusedError,
    SourceError,
    SourceNotFoundError,
)
from dosna.io.bytefile import ByteFile
from dosna.io.opening import open_bytes
from dosna.io.s3.options import S3Options
from dosna.sources.errors import Converting

__all__ = ["TREES", "RootFile", "expand", "reading", "tree_paths"]

TREES = ("TTree", "TNtuple", "TNtupleD", "ROOT::RNTuple", "ROOT::Experimental::RNTuple")
"""The classes of trees."""

_PATTERN = frozenset("*?[")

_UNSUPPORTED = "unsupported compression algorithm"
"""uproot's message for files that the oldest versions of ROOT have written."""

# uproot first requests up to so many bytes beyond the end of a small file.
_SLACK = 1 << 10


def expand(locations: Sequence[str]) -> list[str]:
    """Return the files of paths, patterns of paths and URLs; those of a pattern are sorted."""
    found: list[str] = []
    for location in locations:
        if "://" in location or os.path.exists(location) or not _PATTERN & set(location):
            found.append(location)
            continue
        there = sorted(glob.glob(location, recursive=True))
        if not there:
            raise SourceNotFoundError(f"no file matches {location}")
        found += there
    return found


def reading(what: object) -> Converting:
    """Return a context that converts errors of uproot to errors that say what was read."""

    def convert(error: Exception) -> DosnaError | None:
        if isinstance(error, ImportError):
            return MissingDependencyError(f"{what} needs a package that is not installed: {error}")
        if isinstance(error, FileNotFoundError):
            return SourceNotFoundError(f"{what} does not exist: {_line(error)}")
        if isinstance(error, MemoryError):
            return None
        if isinstance(error, ValueError) and _UNSUPPORTED in str(error):
            return RefusedError(f"{what} cannot be read by uproot: {_line(error)}")
        return SourceError(
            f"{what} cannot be read by uproot ({type(error).__name__}: {_line(error)}): it may be "
            "damaged, truncated or out of reach, or of a kind that uproot does not read"
        )

    return Converting(convert)


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:299] + "…"


class RootFile:
    """A file that is opened when it is used. It may be pickled.

    Parameters
    ----------
    location : str
        A path, or a URL. S3 is read by dosna's own client, other URLs by uproot's handlers.
    options : S3Options
        The options of an S3 server.
    """

    def __init__(self, location: str, options: S3Options) -> None:
        self.location = location
        self._timeout = options.timeout
        own = location.startswith("s3://") or "://" not in location
        self._bytes: ByteFile | None = open_bytes(location, options) if own else None

    def open(self) -> Any:
        """Open the file again, and return an `uproot.ReadOnlyDirectory`."""
        handler = None if self._bytes is None else _handler(self._bytes)
        if self._bytes is None:
            # Notices a missing server in time. uproot itself would wait for minutes.
            self._info()
        with reading(self.location):
            if self._bytes is not None and self._bytes.size == 0:
                raise SourceError(f"{self.location} is empty: copy the file again")
            # The callers keep decoded data, within a bound.
            return uproot.open(
                {self.location: None}, handler=handler, array_cache=None, object_cache=None
            )

    def fingerprint(self) -> str:
        """Return a text that differs between states of the file."""
        if self._bytes is not None:
            return self._bytes.fingerprint()
        info = self._info()
        told = ("size", "ETag", "mtime", "LastModified", "Last-Modified")
        return ", ".join(f"{key} {info[key]}" for key in told if info.get(key) is not None)

    def _info(self) -> dict[str, Any]:
        import fsspec

        limit = {"timeout": int(self._timeout)} if self.location.startswith("root") else {}
        with reading(self.location):
            system, path = fsspec.core.url_to_fs(self.location, **limit)
            system.invalidate_cache()
            return dict(system.info(path))

    def close(self) -> None:
        """Close the file."""
        if self._bytes is not None:
            self._bytes.close()


def _handler(file: ByteFile) -> type[uproot.source.chunk.Source]:
    """Return a class by which uproot reads a file of dosna."""

    class BytesSource(uproot.source.chunk.Source):  # type: ignore[misc]
        """A source that reads in the calling thread, so that several threads read at a time."""

        def __init__(self, path: str, **options: Any) -> None:
            self._file_path = path
            self._num_requests = self._num_requested_chunks = self._num_requested_bytes = 0

        def __enter__(self) -> BytesSource:
            return self

        def __exit__(self, *exc: object) -> None:
            pass

        def chunk(self, start: int, stop: int) -> Any:
            start, stop = int(start), int(stop)
            size = file.size
            stop = min(stop, size) if start < size and stop <= size + _SLACK else stop
            return uproot.source.chunk.Chunk.wrap(
                self, bytes(file.read(start, stop - start)), start
            )

        def chunks(self, ranges: Any, notifications: queue.Queue[Any]) -> list[Any]:
            found = []
            for start, stop in ranges:
                made = self.chunk(start, stop)
                notifications.put(made)
                found.append(made)
            return found

        @property
        def num_bytes(self) -> int:
            return file.size

        @property
        def closed(self) -> bool:
            return False

    return BytesSource


def tree_paths(directory: Any, inner: str) -> dict[str, str]:
    """Return the trees of a file or of a directory of it, or one tree.

    Parameters
    ----------
    directory : uproot.ReadOnlyDirectory
    inner : str
        A tree, optionally with its cycle (``Events;1``), a directory, or an empty text.

    Returns
    -------
    dict of str to str
        The path with the cycle, by the path without it. Of several cycles of a tree it is the
        last, unless `inner` names another.
    """
    classes = directory.classnames(recursive=True, cycle=True)
    found: dict[str, tuple[int, str]] = {}
    wanted, _, cycle = inner.strip("/").partition(";")
    for key, classname in classes.items():
        if classname not in TREES:
            continue
        path, _, number = key.rpartition(";")
        if wanted and path != wanted and not path.startswith(wanted + "/"):
            continue
        if cycle and path == wanted and number != cycle:
            continue
        found[path] = max(found.get(path, (-1, "")), (int(number), key))
    if not found:
        trees = [key for key, name in classes.items() if name in TREES]
        raise SourceNotFoundError(
            (f"there is no tree {inner!r}" if inner else "there are no trees")
            + f" in {directory.file.file_path}"
            + (f": it has {', '.join(trees[:10])}" if trees else "")
        )
    return {path: key for path, (_, key) in found.items()}
