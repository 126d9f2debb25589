"""Datasets in a folder of their own: the common base of the backends hdf5 and file."""

from __future__ import annotations

import os
import weakref
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any, Generic, NoReturn, TypeVar

from dosna.backends.base import BackendDataset, Guarantees
from dosna.backends.folders.chunkcache import FileCache
from dosna.backends.folders.handle import Folder, FolderHome
from dosna.core.metadata import DatasetMetadata
from dosna.core.text import is_text
from dosna.core.types import Shape
from dosna.errors import DatasetNotFoundError, StaleDatasetError
from dosna.io.files import LOCK, disk, failure, replace_file, sync_file_system
from dosna.io.fileversions import file_versions
from dosna.io.holding import holding
from dosna.io.locks import RangeLocks, open_descriptor
from dosna.io.mounts import host_of
from dosna.io.ranges import within

__all__ = ["FolderDataset"]

F = TypeVar("F", bound=Folder)


class FolderDataset(BackendDataset, Generic[F]):
    """A dataset in a folder.

    Handles may be pickled and forked. Each process opens the folder for itself.
    """

    connection: FolderHome
    _folder: F | None
    _template: str
    """Template of the names of stored objects, for their indices."""

    def locations(self, idx: Shape) -> tuple[str, ...]:
        host = host_of(self._path)
        return () if host is None else (host,)

    @abstractmethod
    def _open_folder(self) -> F:
        """Open the folder as it is now, or raise DatasetNotFoundError."""

    @abstractmethod
    def _take_over(self, folder: F) -> None:
        """Adopt a folder's description, or raise StaleDatasetError if it is another dataset's."""

    @abstractmethod
    def _temporaries(self, folder: F) -> Iterator[tuple[str, int]]:
        """Yield each file that a writer may have left, and the lock that a living one holds."""

    @abstractmethod
    def described_as(
        self, folder: F, change: Callable[[DatasetMetadata], DatasetMetadata]
    ) -> bytes:
        """Return the bytes of a description with changed metadata, of the same shape."""

    @property
    @abstractmethod
    def _checked(self) -> bool:
        """True if chunks have checksums."""

    def _begin(self, path: str, folder: F) -> None:
        """Set the folder that the handle is opened on. To be called before `__init__`."""
        self._path = path
        self._folder = folder
        self._inode: int = folder.identity[1]

    def prepare(self) -> None:
        super().prepare()
        # A weak reference avoids a cycle, so that the descriptors are closed with the last
        # reference to the dataset.
        opener = weakref.WeakMethod(self._open_lock)
        self._locks = RangeLocks(lambda: opener()(), os.path.join(self._path, LOCK))  # type: ignore[misc]

    def __getstate__(self) -> dict[str, Any]:
        state = {k: v for k, v in super().__getstate__().items() if k != "_locks"}
        return {**state, "_folder": None}

    @property
    def _cache(self) -> FileCache | None:
        """Cache for chunks that are decoded or checked as a whole, or None."""
        cache, metadata = self.connection.chunk_cache, self.metadata
        if cache is None or is_text(metadata.dtype) or not cache.admits(metadata.chunk_nbytes):
            return None
        return cache

    def _open_lock(self) -> int:
        # Every change of a dataset holds its lock.
        self.connection.check_writable()
        flags = os.O_RDWR | os.O_CREAT
        try:
            return open_descriptor(LOCK, flags, dir_fd=self._opened().fd)
        except FileNotFoundError:  # the folder was deleted
            self._reopen()
            raise

    def _opened(self) -> F:
        return self._folder or self._reopen()

    def _reopen(self) -> F:
        """Open the folder again, after a change by another program."""
        before = self._folder
        folder = self._open_folder()
        # Only the inode: a device may have another number on another machine.
        same = folder.identity[1] == self._inode
        if not same or (before is not None and folder.identity != before.identity):
            self._replaced()
        self._take_over(folder)
        self._folder = folder
        return folder

    def _replaced(self) -> NoReturn:
        raise StaleDatasetError(
            f"dataset {self.name!r} was deleted and created again since this handle was opened: "
            "get it again from its connection"
        )

    def _current(self) -> F:
        folder = self._opened()
        return folder if folder.is_current() else self._reopen()

    def is_as(self, before: Shape) -> bool:
        """Return True if the dataset and the shape `before`, of a read's start, are unchanged."""
        folder = self._folder
        try:
            return folder is not None and folder.is_current() and self.metadata.shape is before
        except OSError as error:
            raise failure(f"look at dataset {self.name!r}", error) from error

    def check_extent(self, before: Shape, size: Shape, parts: Iterable[Any]) -> None:
        """Raise StaleDatasetError if a read reached beyond the present shape of the array.

        Chunks at the edge of an array that another program has made smaller are trimmed, so that
        the data read from them may be fill.

        Parameters
        ----------
        before : tuple of int
            The shape at the start of the read.
        size : tuple of int
            The extent of a chunk or of a stored object, whichever `parts` counts.
        parts : iterable
            The index of each chunk or stored object, and the part of it that was read.
        """
        with disk(f"look at dataset {self.name!r}"):
            self._current()
        shape = self.metadata.shape
        if shape == before or all(n >= was for n, was in zip(shape, before, strict=True)):
            return
        # An iterator is used up, so that any of its parts may have been beyond the shape.
        beyond = iter(parts) is parts
        for idx, key, *_ in parts:
            extent = [n - i * g for i, g, n in zip(idx, size, shape, strict=True)]
            inside = tuple(map(min, extent, size))
            beyond = beyond or min(inside, default=1) <= 0 or not within(key, size, inside)
        if beyond:
            raise StaleDatasetError(
                f"dataset {self.name!r} was made smaller by another writer, to shape {shape}, "
                "while it was read or before: try again"
            )

    def is_at(self, path: str) -> bool:
        """Return True if this dataset is the folder at `path`, and False if it cannot tell."""
        if self._folder is not None:
            return self._folder.is_at(path)
        # Unpickled, and not opened yet in this process.
        with suppress(DatasetNotFoundError, StaleDatasetError):
            return self._reopen().is_at(path)
        return False

    @property
    def guarantees(self) -> Guarantees:
        return Guarantees(
            partial_writes="processes",
            atomic_chunks=True,
            durable=self.connection.durable,
            checksum=self._checked,
            notes=(
                "locks are open file description locks on byte ranges: on a network file system, "
                "writers on several machines are safe only where locks are cluster-wide",
                "programs other than dosna that write the files take no locks",
            ),
        )

    def refresh(self) -> None:
        with disk(f"open dataset {self.name!r}"):
            self._current()

    def versions(self, indices: Iterable[Shape], lasting: bool = False) -> list[str | None]:
        with disk(f"look at the chunks of dataset {self.name!r}"):
            names = [self._template % idx for idx in indices]
            return file_versions(self._current().fd, names, lasting)

    def next_description(
        self, change: Callable[[DatasetMetadata], DatasetMetadata]
    ) -> tuple[bytes, str, F]:
        """Return a description with changed metadata, and the folder whose description it is.

        Returns
        -------
        image : bytes
            The bytes of the next description.
        path : str
            The path of the folder.
        folder : Folder
            The folder. If its description is still the same, `image` may take its place.
        """
        self.check_writable()
        folder = self._current()
        return self.described_as(folder, change), self._path, folder

    def exclusive(self) -> AbstractContextManager[bool]:
        return self._exclusive()

    @holding
    def _exclusive(self) -> Iterator[bool]:
        what = f"lock dataset {self.name!r}"
        with self._locks.exclusive(disk(what)):
            with disk(what):
                self._current()
            yield True

    def replace_chunk_file(self, folder: int, name: str, parts: Sequence[Any], size: int) -> None:
        """Write the file of a stored object, as a whole or not at all; see `replace_file`."""
        con = self.connection
        # Whoever makes a dataset waits for all of its data in the end, unless nothing is ordered.
        soon = con.ordered and self.metadata.incomplete
        replace_file(folder, name, parts, size, con.durable, con.ordered, soon)

    def flush(self) -> None:
        """Wait until everything written so far would survive a power loss.

        This synchronizes the file system that holds the folder (syncfs), after files left by
        writers that died were removed.
        """
        with disk(f"flush dataset {self.name!r}"):
            folder = self._current()
            if self.connection.mode == "a":
                for name, place in self._temporaries(folder):
                    with self._locks.attempt(place, 1) as dead:
                        if dead:
                            folder.remove(name)
            sync_file_system(folder.fd)
