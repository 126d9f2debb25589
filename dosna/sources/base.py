"""The interface of sources: named arrays that describe themselves and are read in boxes."""

from __future__ import annotations

import os
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

from dosna.core.names import parents
from dosna.core.patterns import matching
from dosna.core.types import Array, Box
from dosna.errors import RefusedError, SourceError
from dosna.sources.array import SourceArray
from dosna.sources.description import ArrayDescription

if TYPE_CHECKING:
    from dosna.array.connection import EngineConnection
    from dosna.backends.base import BackendConnection
    from dosna.backends.linked.link import Link
    from dosna.core.report import IngestReport
    from dosna.core.request import IngestRequest

__all__ = ["ArrayDescription", "Source", "SourceArray", "Stream"]


class Source(ABC):
    """A collection of named arrays that can be read.

    A source opens its files when it is first used, separately in each process. When it is
    pickled, it sends the way to open them, and no open file. Its constructor takes the place of
    the source (`location`), the part of it to read (`inner`), and options as plain keywords.

    Parameters
    ----------
    location : str
        A path or a URL.
    inner : str
        The text after the location and a ':': a path inside a file. Empty for the whole source.
    """

    parallel: ClassVar[bool] = True
    """True if several threads may read at the same time. Otherwise reads wait for each other."""

    def __init__(self, location: str, inner: str = "") -> None:
        self.location = location
        self.inner = inner
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        if not self.picklable:
            raise TypeError(
                f"{self} is an open object or in this process's memory, and cannot be sent to "
                "another process: give its location"
            )
        kept = self.__dict__.keys() - {"_lock", *self.unopened()}
        return {name: self.__dict__[name] for name in kept}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self.__dict__.update(self.unopened())
        self._lock = threading.RLock()

    def unopened(self) -> dict[str, Any]:
        """Return the attributes that belong to one process, as they are before anything is open.

        They are not sent to other processes.
        """
        return {}

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"

    def __str__(self) -> str:
        return f"{self.location}:{self.inner}" if self.inner else str(self.location)

    def reading(self) -> AbstractContextManager[object]:
        """Return a context for a read, which waits for other threads unless `parallel`."""
        return nullcontext() if self.parallel else self._lock

    @property
    def identity(self) -> tuple[Any, ...]:
        """Values that processes must agree on before they read the source together."""
        return (type(self).__qualname__, self.location, self.inner)

    def close(self) -> None:  # noqa: B027  a source without open files has nothing to do
        """Close open files. A source that is used afterwards opens them again."""

    @property
    def picklable(self) -> bool:
        """True if the source can be sent to another process. One around an open file cannot."""
        return True

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "travels" in cls.__dict__:
            warnings.warn(
                f"{cls.__name__} has the property 'travels', which is now 'picklable'",
                DeprecationWarning,
                stacklevel=2,
            )
            cls.picklable = cls.__dict__["travels"]  # type: ignore[method-assign]

    @property
    def single(self) -> bool:
        """True if the source is one array, so that an ingest takes its full name, not a prefix."""
        return False

    def keeps_its_data_in(self, name: str, connection: BackendConnection, dataset: str) -> bool:
        """Return True if an array's data are stored in a dataset, which must not be replaced."""
        there = os.path.join(self.location, name)
        return os.path.exists(there) and os.path.realpath(there) == os.path.realpath(
            os.path.join(connection.location, dataset)
        )

    def name_of(self, connection: BackendConnection, dataset: str) -> str | None:
        """Return the name that a new dataset of a connection has here; None if it is elsewhere."""
        return None

    @abstractmethod
    def names(self) -> list[str]:
        """Return the names of all arrays, even refused ones, in an order that does not change."""

    def chosen(self, patterns: str | Iterable[str] | None) -> tuple[list[str], list[str]]:
        """Choose arrays by patterns of their names and of `links`.

        See `dosna.core.patterns.matching`.

        Returns
        -------
        chosen, unmatched : list of str
            The names of arrays in the order of `names`, and the patterns that match nothing.
        """
        names = self.names()
        links = self.links() if patterns is not None else {}
        found, unmatched = matching([*names, *links], patterns)
        wanted = {links.get(name, name) for name in found}
        return [name for name in names if name in wanted], unmatched

    @abstractmethod
    def describe(self, name: str) -> ArrayDescription:
        """Return the description of an array.

        Raises
        ------
        dosna.errors.SourceNotFoundError
            If there is no array of that name.
        """

    def links(self) -> Mapping[str, str]:
        """Return further names of arrays, each with the name in `names`; none by default."""
        return {}

    def groups(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the attributes of each group, '' for the outermost; none by default.

        The name of a group is that of an array in it without the last part.
        """
        return {}

    def groups_of(self, names: Iterable[str]) -> Mapping[str, Mapping[str, Any]]:
        """Return the attributes of the groups that contain some of the given arrays."""
        above = {group for name in names for group in ["", *parents(name)]}
        return {group: attrs for group, attrs in self.groups().items() if group in above}

    def groups_without(self, names: Iterable[str]) -> Mapping[str, Mapping[str, Any]]:
        """Return the attributes of all groups when the given arrays are left out."""
        return self.groups()

    def tree_of(self, name: str) -> str | None:
        """Return the group of the tree that an array is a branch of; None if there is no tree."""
        return None

    def merged_group(
        self, there: Mapping[str, Any], attrs: Mapping[str, Any], every: bool
    ) -> dict[str, Any]:
        """Merge attributes of a group in `groups` into those that a connection has.

        Parameters
        ----------
        there, attrs : mapping
            The attributes in the connection, and those of the source.
        every : bool
            Whether the whole source is ingested, and not a part of it.
        """
        return {**there, **attrs}

    def fingerprint_after(self, name: str, before: str) -> str:
        """Return the fingerprint once an array was read; `before` if the array has not changed.

        Parameters
        ----------
        name : str
            The name of the array.
        before : str
            The fingerprint from before the array was read.
        """
        return self.fingerprint_after_all([name], before)

    def fingerprint_after_all(self, names: Collection[str], before: str) -> str:
        """Return what `fingerprint_after` does, for several arrays that were read.

        Parameters
        ----------
        names : collection of str
            The names of the arrays.
        before : str
            The fingerprint from before they were read.
        """
        return self.fingerprint()

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a text that differs between states of the source.

        It may be a size and a time, an ETag, or a digest. An interrupted ingest continues only if
        the fingerprint is the same.
        """

    def link(self, name: str) -> Link | None:
        """Return the place of an array's elements, for a dataset that reads them there.

        None for an array that is better ingested, because it is small.

        Raises
        ------
        RefusedError
            If the array cannot be linked. The message says why.
        """
        raise RefusedError(
            f"a {type(self).__name__} does not keep arrays in files that can be linked: ingest it"
        )

    def chunk_records(self, name: str) -> tuple[Array, Array]:
        """List the stored chunks of an array, if its `link` has neither offset nor records.

        Returns
        -------
        numbers : ndarray of int64
            The number of each chunk in the grid of chunks, in C order.
        records : ndarray of int64
            An array of shape (3, n), see `dosna.backends.linked.reader.Records`.
        """
        raise NotImplementedError(f"{type(self).__name__}.link gives places, or this lists them")

    def stored(self, name: str) -> Array | None:
        """Return the chunks of an array that are stored, if all others are its fill value.

        A dataset that is made from the array stores no other chunks either: an array may be large
        although little of it was ever written.

        Returns
        -------
        ndarray of int64, or None
            An array of shape (n, axes): the places in the grid of the chunks that `describe`
            returns. An array without chunks is either not stored at all, and n is 0, or stored
            completely. None if everything is stored, or if it is not known.
        """
        return None

    @abstractmethod
    def read(self, name: str, box: Box) -> Array:
        """Read a box of an array.

        Returns
        -------
        ndarray
            An array of the box's shape and the dtype in the description. It may be a view; the
            caller must not write to it.

        Raises
        ------
        dosna.errors.SourceError
            If the source is damaged, or the array has another shape than was described.
        """

    def read_into(self, name: str, box: Box, out: Array) -> None:
        """Read a box of an array into an array of its shape."""
        out[...] = self.read(name, box)

    def __getitem__(self, name: str) -> SourceArray:
        return SourceArray(self, self.describe(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())


class Stream(Source):
    """A source that is not complete yet: files of events that a service makes one by one.

    Its arrays have no shape before the last file is there. It cannot be read in boxes; it is
    ingested as its files arrive.
    """

    @abstractmethod
    def ingest_into(self, con: EngineConnection, request: IngestRequest) -> IngestReport:
        """Ingest the source, for `EngineConnection.ingest`.

        Parameters
        ----------
        con : Connection
            The connection, under an engine of this process alone.
        request : dosna.core.request.IngestRequest
            The arguments of the call. Its `options` are those of the backend's `create_dataset`.
        """

    def names(self) -> list[str]:
        raise self._not_in_boxes()

    def describe(self, name: str) -> ArrayDescription:
        raise self._not_in_boxes()

    def read(self, name: str, box: Box) -> Array:
        raise self._not_in_boxes()

    def _not_in_boxes(self) -> SourceError:
        return SourceError(
            f"{self} cannot be read in boxes, because its shape is known only at its end: "
            "ingest it by con.ingest, and read the datasets"
        )
