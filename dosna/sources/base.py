"""The interface of sources: named arrays that describe themselves and are read in boxes."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from dosna.core.metadata import choose_chunk_size
from dosna.core.names import parents
from dosna.core.patterns import matching
from dosna.core.plan import plan, touched
from dosna.core.selection import select
from dosna.core.types import Array, Box, Shape
from dosna.core.values import plain_fields, same_fill
from dosna.errors import RefusedError, SourceError

if TYPE_CHECKING:
    from dosna.array.connection import EngineConnection
    from dosna.backends.base import BackendConnection
    from dosna.backends.linked.link import Link
    from dosna.core.report import IngestReport
    from dosna.core.request import IngestRequest

__all__ = ["ArrayDescription", "ConvertedArray", "Source", "SourceArray", "Stream"]


@dataclass(frozen=True)
class ArrayDescription:
    """The description of an array of a source. It may be sent to other processes.

    Parameters
    ----------
    name : str
        The name: parts joined by '/', as in names of datasets.
    shape : tuple of int
        The extent of each axis; an empty tuple is a scalar.
    dtype : numpy.dtype
        The dtype of the elements that are read, which a dataset can have.
    attrs : mapping
        The attributes: None, bool, int, float, str, lists, mappings, NumPy scalars and arrays.
    chunks : tuple of int, optional
        The extent that the source stores or sends in one piece; None if it reads any part
        equally well.
    chunks_kept : bool
        Whether datasets take these chunks as they are, even if larger ones would be faster.
    pieces : tuple of int, optional
        The extent that is best read together, if that is not `chunks`: rows of a file without
        chunks.
    dims : tuple of str or None, optional
        The names of the axes.
    fillvalue : scalar, optional
        The value of elements that were never written; the dtype's zero by default.
    links : tuple of str
        Other names of the same array.
    notes : tuple of str
        Conversions, and anything else that users of the array should know.
    refused : str
        The reason why a dataset cannot represent the array; empty for an array that can be read.
    """

    name: str
    shape: Shape = ()
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype("V1"))
    attrs: Mapping[str, Any] = field(default_factory=dict)
    chunks: Shape | None = None
    chunks_kept: bool = False
    pieces: Shape | None = None
    dims: tuple[str | None, ...] | None = None
    fillvalue: Any = None
    links: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    refused: str = ""

    @property
    def nbytes(self) -> int:
        """Bytes of the whole array in memory."""
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize


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
        return {k: v for k, v in self.__dict__.items() if k != "_lock"}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        inner = f":{self.inner}" if self.inner else ""
        return f"<{type(self).__name__} {self.location}{inner}>"

    @property
    def identity(self) -> tuple[Any, ...]:
        """Values that processes must agree on before they read the source together."""
        return (type(self).__qualname__, self.location, self.inner)

    def close(self) -> None:  # noqa: B027  a source without open files has nothing to do
        """Close open files. A source that is used afterwards opens them again."""

    @property
    def travels(self) -> bool:
        """True if the source can be sent to another process. One around an open file cannot."""
        return True

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

    @abstractmethod
    def names(self) -> list[str]:
        """Return the names of all arrays, even refused ones, in an order that does not change."""

    def chosen(self, patterns: str | Iterable[str] | None) -> tuple[list[str], list[str]]:
        """Choose arrays by patterns of their names and of `links`.

        See `dosna.core.patterns.matching`.

        Returns
        -------
        chosen, vain : list of str
            The names of arrays in the order of `names`, and the patterns that match nothing.
        """
        names = self.names()
        links = self.links() if patterns is not None else {}
        found, vain = matching([*names, *links], patterns)
        wanted = {links.get(name, name) for name in found}
        return [name for name in names if name in wanted], vain

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
        raise RefusedError(f"{type(self).__name__} has none of the files that can be linked")

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
            f"{self!r} is known when all of it has come: con.ingest takes it, and what it has "
            "made can be read and compared"
        )


class SourceArray:
    """An array of a source, indexed like a NumPy array. `EngineDataset.load` takes it.

    Parameters
    ----------
    source : Source
    description : ArrayDescription

    Raises
    ------
    RefusedError
        If a dataset cannot represent the array.
    """

    def __init__(self, source: Source, description: ArrayDescription) -> None:
        if description.refused:
            raise RefusedError(f"{description.name!r} of {source!r}: {description.refused}")
        self.source = source
        self.description = description

    @property
    def shape(self) -> Shape:
        """Extent of each axis."""
        return self.description.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""
        return self.description.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def chunks(self) -> Shape | None:
        """Extent that the source reads in one piece; None if it has none."""
        return self.description.pieces or self.description.chunks

    @property
    def travels(self) -> bool:
        """True if the array can be sent to another process."""
        return self.source.travels

    def as_stored(self, dtype: np.dtype[Any]) -> SourceArray:
        """Return this array converted to the dtype that a backend stores, if `dtype` is that."""
        packed, view = plain_fields(self.dtype)
        if dtype == self.dtype or dtype != packed:
            return self
        return ConvertedArray(self.source, self.description, packed, view)

    def stored_in(self, block: Shape, fillvalue: Any) -> Array | None:
        """Return the blocks of a grid that have stored elements, if all others are a fill value.

        Parameters
        ----------
        block : tuple of int
            The extent of a block.
        fillvalue : ndarray
            An array without axes, of the dtype that the blocks will have.

        Returns
        -------
        ndarray of int64, or None
            An array of shape (n, axes): the places of the blocks in the grid. None for all.
        """
        own = self.description.fillvalue
        fill = np.zeros((), self.dtype) if own is None else np.asarray(own, self.dtype)
        if not same_fill(fill, fillvalue):
            return None
        return self.touched_in(block)

    def touched_in(self, block: Shape) -> Array | None:
        """Return the blocks of a grid that have stored elements; None for all, or if unknown."""
        found = self.description
        stored = self.source.stored(found.name)
        if stored is None or not self.shape:
            return None
        if not len(stored) or found.chunks is None:
            return np.zeros((0, self.ndim), np.int64)
        return touched(stored, found.chunks, self.shape, block)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError(f"{self.description.name!r} is a scalar and has no len()")
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<{self.description.name!r} of {self.source!r}: {self.shape}, {self.dtype}>"

    def read_into(self, box: Box, out: Array) -> None:
        """Read a box into an array of its shape."""
        with nullcontext() if self.source.parallel else self.source._lock:
            self.source.read_into(self.description.name, box, out)

    def __getitem__(self, key: Any) -> Any:
        selection = select(key, self.shape)
        result, canonical = selection.allocate(self.dtype)
        if selection.points is None and all(r and r[2] == 1 for r in selection.ranges):
            if selection.size:
                box = tuple(slice(r[0], r[0] + r[1]) for r in selection.ranges if r)
                self.read_into(box, canonical)
            return selection.finish(result)
        # Read chunk by chunk, so that scattered points do not read everything between them.
        pieces = self.description.chunks or choose_chunk_size(self.shape, self.dtype.itemsize)
        for task in plan(selection, pieces):
            box, inside = _bounding(task.idx, task.chunk, pieces)
            block = np.empty([s.stop - s.start for s in box], self.dtype)
            self.read_into(box, block)
            canonical[task.out] = block[inside]
        return selection.finish(result)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError(f"{self.description.name!r} is not in memory: an array is a copy")
        return np.asarray(self[...], dtype)


def _bounding(idx: Shape, chunk: Sequence[Any], pieces: Shape) -> tuple[Box, tuple[Any, ...]]:
    """Return the box around a part of a chunk, and the place of the part in the box."""
    box: list[slice] = []
    inside: list[Any] = []
    for i, part, size in zip(idx, chunk, pieces, strict=True):
        start = i * size
        if isinstance(part, slice):
            first, last = part.start, part.stop
            inside.append(slice(0, last - first, part.step))
        else:
            first, last = int(part.min()), int(part.max()) + 1
            inside.append(part - first)
        box.append(slice(start + first, start + last))
    return tuple(box), tuple(inside)


class ConvertedArray(SourceArray):
    """An array of a source, converted to a packed dtype with the same fields in the same order.

    Parameters
    ----------
    source : Source
    description : ArrayDescription
    dtype : numpy.dtype
        The packed dtype, see `dosna.core.values.plain_fields`.
    view : numpy.dtype
        The dtype of the source's elements: the same fields at their places in the source.
    """

    def __init__(
        self,
        source: Source,
        description: ArrayDescription,
        dtype: np.dtype[Any],
        view: np.dtype[Any],
    ) -> None:
        super().__init__(source, description)
        self._dtype, self._view = dtype, view

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._dtype

    def read_into(self, box: Box, out: Array) -> None:
        block = np.empty(out.shape, self.description.dtype)
        super().read_into(box, block)
        out[...] = block.view(self._view)

    def stored_in(self, block: Shape, fillvalue: Any) -> Array | None:
        own = self.description.fillvalue
        if own is None:
            own = np.zeros((), self.description.dtype)
        if not same_fill(self.filled(own), fillvalue):
            return None
        return self.touched_in(block)

    def filled(self, value: Any) -> Array:
        """Return a value of the source as a scalar array of the packed dtype."""
        made = np.zeros((), self._dtype)
        made[...] = np.array(value, self.description.dtype).reshape(1).view(self._view)[0]
        return made
