"""What a source is: named arrays that describe themselves and are read in boxes."""

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
    from dosna.backends.linked.dataset import Link
    from dosna.core.progress import Progress
    from dosna.core.report import IngestReport

__all__ = ["ArrayDescription", "ConvertedArray", "Source", "SourceArray", "Stream"]

"""A slice for each axis, with start and stop inside of the array and step 1."""


@dataclass(frozen=True)
class ArrayDescription:
    """What a source says of one of its arrays. It may travel to other processes.

    Parameters
    ----------
    name : str
        Parts joined by '/', as of a dataset.
    shape : tuple of int
        Extent of each axis; an empty tuple is a scalar.
    dtype : numpy.dtype
        Of what reading gives: one that a dataset can have.
    attrs : mapping
        Attributes: None, bool, int, float, str, lists, mappings, NumPy scalars and arrays.
    chunks : tuple of int, optional
        Extent of what the source stores or sends in one piece; None if it can as well read
        any part.
    chunks_kept : bool
        Whether datasets take these chunks as they are, also where larger ones would be quicker.
    pieces : tuple of int, optional
        Extent of what is best read together, where that is not the `chunks`: rows of a file
        without chunks.
    dims : tuple of str or None, optional
        Names of the axes.
    fillvalue : scalar, optional
        What parts read as that nobody ever wrote; the dtype's zero by default.
    links : tuple of str
        Other names of the same array.
    notes : tuple of str
        What was converted, or what else somebody should know who uses the array.
    refused : str
        Why a dataset cannot represent it; empty for an array that can be read.
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
    """Arrays by name, to be read from.

    A source opens what it needs when it is first used, in each process for itself: it may be
    pickled, and then sends how it is opened and no open file. Its constructor takes where it
    is (`location`), which part of it is meant (`inner`), and its options as plain keywords.

    Parameters
    ----------
    location : str
        A path or a URL.
    inner : str
        What followed the location, after a ':': a path inside of a file. Empty for all.
    """

    parallel: ClassVar[bool] = True
    """Whether several threads may read at a time. Otherwise reads wait for each other."""

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
        """What processes that read it together must agree on before they start."""
        return (type(self).__qualname__, self.location, self.inner)

    def close(self) -> None:  # noqa: B027  a source without open files has nothing to do
        """Let go of open files. What is used afterwards is opened again."""

    @property
    def travels(self) -> bool:
        """Whether it can be sent to another process; not, for instance, around an open file."""
        return True

    @property
    def single(self) -> bool:
        """Whether it is one array, so that who ingests it names the dataset, not a prefix."""
        return False

    def keeps_its_data_in(self, name: str, connection: BackendConnection, dataset: str) -> bool:
        """Whether an array is stored as a dataset of a connection, which must not be replaced."""
        there = os.path.join(self.location, name)
        return os.path.exists(there) and os.path.realpath(there) == os.path.realpath(
            os.path.join(connection.location, dataset)
        )

    @abstractmethod
    def names(self) -> list[str]:
        """Names of its arrays, also of those that it refuses, in an order that stays."""

    def chosen(self, patterns: str | Iterable[str] | None) -> tuple[list[str], list[str]]:
        """Choose arrays by patterns of names, also of `links`.

        See `dosna.core.patterns.matching`.

        Returns
        -------
        chosen, vain : list of str
            Names of arrays in the order of `names`, and patterns that match nothing.
        """
        names = self.names()
        links = self.links() if patterns is not None else {}
        found, vain = matching([*names, *links], patterns)
        wanted = {links.get(name, name) for name in found}
        return [name for name in names if name in wanted], vain

    @abstractmethod
    def describe(self, name: str) -> ArrayDescription:
        """Describe an array.

        Raises
        ------
        dosna.errors.SourceNotFoundError
            There is none of that name.
        """

    def links(self) -> Mapping[str, str]:
        """Further names of arrays, each with the one of `names`; none by default."""
        return {}

    def groups(self) -> Mapping[str, Mapping[str, Any]]:
        """Attributes of what holds the arrays, by group, '' for the outermost; none by default.

        A group is named as the arrays in it are, without the last part.
        """
        return {}

    def groups_of(self, names: Iterable[str]) -> Mapping[str, Mapping[str, Any]]:
        """Attributes of the groups that some of the arrays are in."""
        above = {group for name in names for group in ["", *parents(name)]}
        return {group: attrs for group, attrs in self.groups().items() if group in above}

    def groups_without(self, names: Iterable[str]) -> Mapping[str, Mapping[str, Any]]:
        """Attributes of all groups, where these arrays were left out."""
        return self.groups()

    def tree_of(self, name: str) -> str | None:
        """Give the group of the tree whose branch an array is; None if it is of no tree."""
        return None

    def merged_group(
        self, there: Mapping[str, Any], attrs: Mapping[str, Any], every: bool
    ) -> dict[str, Any]:
        """Join attributes of a group, as `groups` gives them, to those that a connection has.

        Parameters
        ----------
        there, attrs : mapping
        every : bool
            Whether all that the source has is ingested, and not a part of it.
        """
        return {**there, **attrs}

    @abstractmethod
    def fingerprint(self) -> str:
        """Tell this state of the source from another: a size and a time, an ETag, a digest.

        An interrupted ingest goes on only if it finds the same.
        """

    def link(self, name: str) -> Link | None:
        """Say where the elements of an array lie, for a dataset that shows them there.

        None for an array that is better ingested, because it is small.

        Raises
        ------
        RefusedError
            It cannot be linked; says why.
        """
        raise RefusedError(f"{type(self).__name__} has none of the files that can be linked")

    def chunk_records(self, name: str) -> tuple[Array, Array]:
        """List the stored chunks of an array, where `link` said neither offset nor records.

        Returns
        -------
        numbers : ndarray
            Of int64: the place of each in the grid of chunks, in C order.
        records : ndarray
            Of int64 and shape (3, n), see `dosna.backends.linked.reader.Records`.
        """
        raise NotImplementedError(f"{type(self).__name__}.link gives places, or this lists them")

    def stored(self, name: str) -> Array | None:
        """Say which chunks of an array there are, where all others are its fill value.

        A dataset that is made of it then stores no others either: an array may be large that
        little was ever written to.

        Returns
        -------
        ndarray of int64, or None
            Of shape (n, axes): their places in the grid of the chunks that `describe` says. Of an
            array without chunks either nothing is stored, and n is 0, or all. None if all is
            stored, or if nobody knows.
        """
        return None

    @abstractmethod
    def read(self, name: str, box: Box) -> Array:
        """Read a box of an array.

        Returns
        -------
        ndarray
            Of the box's shape and the dtype that `describe` said. It may be a view of
            something; the caller does not write to it.

        Raises
        ------
        dosna.errors.SourceError
            It is damaged, or of another shape than was described.
        """

    def read_into(self, name: str, box: Box, out: Array) -> None:
        """Read a box of an array to where the caller has memory of its shape."""
        out[...] = self.read(name, box)

    def __getitem__(self, name: str) -> SourceArray:
        return SourceArray(self, self.describe(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())


class Stream(Source):
    """A source that is not all there yet: files of events that a service makes one by one.

    Its arrays have no shape before the last of them, so that it cannot be read in boxes; it is
    ingested as it comes.
    """

    @abstractmethod
    def ingest_into(
        self,
        con: EngineConnection,
        name: str | None,
        *,
        select: Iterable[str] | None,
        chunk_bytes: int | None,
        skips: bool,
        overwrite: bool,
        progress: Progress,
        memory_limit: int | None,
        options: Mapping[str, Any],
    ) -> IngestReport:
        """Do what `EngineConnection.ingest` says.

        Parameters
        ----------
        con : Connection
            Under an engine of this process alone.
        chunk_bytes : int, optional
            About the size of chunks.
        skips : bool
            Whether ``on_error='skip'`` was asked for.
        options : mapping
            Of the backend's `create_dataset`.
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
    """An array of a source, read by indexing as NumPy's; what `EngineDataset.load` takes.

    Parameters
    ----------
    source : Source
    description : ArrayDescription

    Raises
    ------
    RefusedError
        The array cannot be represented.
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
        """Extent of what the source reads in one piece, if it does."""
        return self.description.pieces or self.description.chunks

    @property
    def travels(self) -> bool:
        """Whether it can be sent to another process."""
        return self.source.travels

    def as_stored(self, dtype: np.dtype[Any]) -> SourceArray:
        """Return this array as what a backend makes of its dtype, if `dtype` is that."""
        packed, view = plain_fields(self.dtype)
        if dtype == self.dtype or dtype != packed:
            return self
        return ConvertedArray(self.source, self.description, packed, view)

    def stored_in(self, block: Shape, fillvalue: Any) -> Array | None:
        """Say which blocks of a grid something is stored in, if all others are a fill value.

        Parameters
        ----------
        block : tuple of int
            Extent of a block.
        fillvalue : ndarray
            Without axes, of the dtype that the blocks are to have.

        Returns
        -------
        ndarray of int64, or None
            Of shape (n, axes): their places in the grid. None for all.
        """
        own = self.description.fillvalue
        fill = np.zeros((), self.dtype) if own is None else np.asarray(own, self.dtype)
        if not same_fill(fill, fillvalue):
            return None
        return self.touched_in(block)

    def touched_in(self, block: Shape) -> Array | None:
        """Say which blocks of a grid something is stored in; None for all, or if unknown."""
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
        """Read a box to where the caller has memory of its shape."""
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
        # Chunk by chunk, so that scattered points do not read all that lies between them.
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
    """Give the box around a part of a chunk, and the part in it."""
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
    """An array of a source, given as a dtype whose fields are in the order of its own.

    Parameters
    ----------
    source : Source
    description : ArrayDescription
    dtype : numpy.dtype
        See `dosna.core.values.plain_fields`.
    view : numpy.dtype
        Of the source's elements: the same fields at their places there.
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
        """Return a value of the source's as a scalar array of the dtype."""
        made = np.zeros((), self._dtype)
        made[...] = np.array(value, self.description.dtype).reshape(1).view(self._view)[0]
        return made
