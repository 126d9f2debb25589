"""A tree of one or several files, as columns whose rows are read."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any, ClassVar

import numpy as np

from dosna.columns.chunking import choose_chunk_entries, column_chunks
from dosna.columns.description import Branch, FileRange, Tree
from dosna.columns.layout import Column, columns, form_of
from dosna.columns.splitting import decompose
from dosna.core.types import Array, Box, Shape
from dosna.errors import FormatError, SourceError, SourceNotFoundError
from dosna.io.cache import Cache
from dosna.sources.root.file import reading
from dosna.sources.root.part import TreePart

__all__ = ["Chain", "Decoded"]

_MOST_UNIT_BYTES = 4 << 20
_MOST_BRANCHES = 50_000
"""Most branches of open files: uproot needs about 13 KiB for each."""

Unit = dict[str, Array]
"""The rows of each column of a branch, by path. Offsets count from the unit's beginning."""


class Decoded:
    """A cache of the units that the chains of a source have decoded, for all threads.

    It keeps whole units, and keeps their offsets longer, so that the offsets of a branch need not
    be decoded again after its contents.
    """

    most: ClassVar[int] = 32 << 20
    """Most bytes of offsets, and twice the most bytes of units.

    New memory costs more than decoding into memory that units have given back.
    """

    def __init__(self) -> None:
        most_units = self.most // 2
        self.units: Cache[Unit] = Cache(most_units, lambda u: sum(a.nbytes for a in u.values()))
        self.offsets: Cache[Array] = Cache(self.most, lambda offsets: offsets.nbytes)

    def clear(self) -> None:
        """Empty the cache."""
        self.units.clear()
        self.offsets.clear()


@dataclass
class BranchOutline:
    """A branch of all files.

    Parameters
    ----------
    branch : Branch
    columns : dict of str to Column
        The columns by path.
    refused : str
        The reason why the branch cannot be represented.
    edges : ndarray of int64
        The entries at which units begin and end. A unit is decoded together: one or several
        pieces of one file.
    counted : dict of str to ndarray of int64
        The values of each offsets column at these entries.
    """

    branch: Branch
    columns: Mapping[str, Column] = field(default_factory=dict)
    refused: str = ""
    edges: Array | None = None
    counted: dict[str, Array] = field(default_factory=dict)

    def positions(self, column: Column) -> Array:
        """Return the rows of a column at the edges, without the last row of offsets."""
        assert self.edges is not None
        counted = self.edges if column.counted_by is None else self.counted[column.counted_by]
        return counted * column.factor


class Chain:
    """A tree whose entries are those of several files, one after the other.

    Parameters
    ----------
    name : str
        The name of the tree's group.
    locations : sequence of str
        The locations of the files.
    opens : sequence of callables
        Functions that open the tree of each file.
    decoded : Decoded
        The cache of decoded units.
    """

    def __init__(
        self,
        name: str,
        locations: Sequence[str],
        opens: Sequence[Callable[[], TreePart]],
        decoded: Decoded,
    ) -> None:
        self.name, self.locations = name, locations
        self._opens, self._decoded = opens, decoded
        self._parts: Cache[TreePart] = Cache(_MOST_BRANCHES, lambda part: part.width)
        self._lock = threading.RLock()
        self._measured: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        lost = ("_lock", "_parts", "_decoded")
        return {k: v for k, v in dict(self.__dict__).items() if k not in lost}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self._decoded = Decoded()
        self._parts = Cache(_MOST_BRANCHES, lambda part: part.width)
        self._lock = threading.RLock()

    def _part(self, number: int) -> TreePart:
        return self._parts.get(number, self._opens[number])

    @cached_property
    def _described(self) -> tuple[Tree, dict[str, BranchOutline]]:
        """Descriptions of the tree and its branches, as far as they need no data."""
        bounds, found, clusters = [0], {}, []
        refused: dict[str, str] = {}
        first, first_location = None, ""
        for number, location in enumerate(self.locations):
            part = self._part(number)
            bounds.append(bounds[-1] + part.entries)
            clusters.append((part.entries, part.cluster()))
            with reading(f"tree {self.name!r} of {location}"):
                here = {branch.name: branch for branch in part.branches()}
            if not here and not part.entries:
                continue  # Created and never filled: there are no columns that others could lack.
            if first is None:
                first, first_location = part, location
            for name, branch in here.items():
                if part is first:
                    found[name], refused[name] = branch, branch.refused
                elif name not in found:
                    found[name] = branch
                    refused[name] = f"{first_location} has no such branch, and {location} has"
                elif not refused[name] and (
                    branch.refused or not _same_type(branch.form, found[name].form)
                ):
                    other = branch.refused or f"it is {branch.typename} there"
                    refused[name] = f"{location} has another such branch: {other}"
            for name in found.keys() - here.keys():
                refused[name] = refused[name] or f"{location} has no such branch"
        outline = {}
        for index, (name, branch) in enumerate(found.items()):
            described = Branch(name, branch.form or "", branch.typename, branch.title, index)
            own = {} if refused[name] else {c.path: c for c in columns(form_of(branch.form))}
            if not own and not refused[name]:
                refused[name] = f"its elements ({described.type}) have nothing in them to be kept"
            outline[name] = BranchOutline(described, own, refused[name])
        first = first or self._part(0)
        usual = max(clusters, key=lambda c: c[0])[1]
        tree = Tree(
            first.kind,
            first.name,
            bounds[-1],
            (),
            first.cycle,
            first.title,
            tuple(
                FileRange(location, start, stop)
                for location, start, stop in zip(
                    self.locations, bounds[:-1], bounds[1:], strict=True
                )
            ),
            choose_chunk_entries(bounds[-1], usual),
        )
        return tree, outline

    @property
    def tree(self) -> Tree:
        """Description of the tree, without its branches."""
        with self._lock:
            return self._described[0]

    @property
    def branches(self) -> dict[str, BranchOutline]:
        """Branches by name."""
        with self._lock:
            return self._described[1]

    @cached_property
    def unreadable(self) -> SourceError | None:
        """Error because of which the tree cannot be described; None if it can."""
        try:
            self.branches  # noqa: B018
        except SourceNotFoundError:
            raise
        except SourceError as error:
            return error
        return None

    def forget(self) -> None:
        """Close open files and discard the descriptions, which are read again when needed."""
        with self._lock:
            for found in ("_described", "unreadable"):
                self.__dict__.pop(found, None)
            self._parts.clear()
            self._measured.clear()

    def measured(self, name: str) -> BranchOutline:
        """Return a branch whose numbers of rows are known. Decode as little as possible for it."""
        with self._lock:
            outline = self.branches[name]
            if name not in self._measured and not outline.refused:
                try:
                    self._measure(outline)
                except SourceError as error:
                    outline.refused = str(error)
                self._measured.add(name)
            return outline

    def _measure(self, outline: BranchOutline) -> None:
        edges: list[int] = [0]
        lengths: dict[str, list[Array]] = {
            p: [] for p, c in outline.columns.items() if c.is_offsets
        }
        unknown: list[tuple[int, int, int, int]] = []
        name = outline.branch.name
        for number, file in enumerate(self.tree.files):
            part = self._part(number)
            if not part.entries:
                continue
            with _reading_branch(name, file.url):
                pieces = part.edges(name)
                size = part.nbytes(name) if part.joins(name) else sys.maxsize
                kept = self._grouped(pieces, file.start, size)
                counts = part.counts(name) if lengths else {}
            units = len(edges) - 1
            edges += [file.start + pieces[at] for at in kept[1:]]
            if counts is None:
                places = range(units, len(edges) - 1)
                unknown += [(at, number, edges[at], edges[at + 1]) for at in places]
                counts = {path: np.zeros(len(pieces) - 1, np.int64) for path in lengths}
            for path, counted in counts.items():
                totals = np.concatenate([[0], np.cumsum(counted)])
                lengths[path].append(np.diff(totals[kept]))
        outline.edges = np.array(edges, np.int64)
        for at, number, start, stop in unknown:
            unit = self._decode(outline, at, number, start, stop)
            for path, found in lengths.items():
                _place(found, at, int(unit[path][-1]))
        for path, found in lengths.items():
            outline.counted[path] = np.concatenate([[0], *found]).cumsum().astype(np.int64)

    def _grouped(self, pieces: Sequence[int], first: int, nbytes: int) -> list[int]:
        """Choose the pieces to decode together: not many more than make up a chunk."""
        entries, step = pieces[-1], self.tree.chunk_entries
        most = max(1, int(_MOST_UNIT_BYTES * entries / max(nbytes, 1))) if entries else 1
        kept = [0]
        for at in range(1, len(pieces) - 1):
            begin = pieces[kept[-1]]
            across = (pieces[at] + first) // step != (begin + first) // step
            if pieces[at] > begin and (pieces[at + 1] - begin > most or across):
                kept.append(at)
        return [*kept, len(pieces) - 1] if len(pieces) > 1 else kept

    def _decode(self, outline: BranchOutline, at: int, number: int, start: int, stop: int) -> Unit:
        """Decode a unit, or return it from the cache."""
        key = (self.name, outline.branch.name, at)

        def make() -> Unit:
            file = self.tree.files[number]
            name = outline.branch.name
            with _reading_branch(name, file.url):
                part, own = self._part(number), (start - file.start, stop - file.start)
                unit = part.rows(name, *own)
                if unit is None or not _as_described(unit, outline):
                    unit = _taken_apart(part.read(name, *own), outline)
            for path, column in outline.columns.items():
                if column.is_offsets:
                    self._decoded.offsets.put((*key, path), _small(unit[path]))
            return unit

        return self._decoded.units.get(key, make)

    def _unit(self, outline: BranchOutline, at: int) -> Unit:
        assert outline.edges is not None
        start, stop = int(outline.edges[at]), int(outline.edges[at + 1])
        stops = [file.stop for file in self.tree.files]
        number = int(np.searchsorted(stops, start, side="right"))
        unit = self._decode(outline, at, number, start, stop)
        for path, counted in outline.counted.items():
            if unit[path][-1] != counted[at + 1] - counted[at]:
                raise SourceError(
                    f"branch {outline.branch.name!r} of {self.tree.files[number].url} has "
                    f"{unit[path][-1]} elements in entries {start} to {stop}, and its headers "
                    f"say {counted[at + 1] - counted[at]}: it is damaged, or has changed"
                )
        return unit

    def _rows(self, outline: BranchOutline, column: Column, at: int) -> Array:
        """Return the rows of a column in a unit. Offsets count from the unit's beginning."""
        key = (self.name, outline.branch.name, at, column.path)
        kept = self._decoded.offsets.peek(key) if column.is_offsets else None
        return self._unit(outline, at)[column.path] if kept is None else kept

    def shape(self, name: str, path: str) -> Shape:
        """Return the extent of each axis of a column."""
        outline = self.measured(name)
        column = outline.columns[path]
        rows = int(outline.positions(column)[-1]) + column.is_offsets
        return (rows, *column.inner)

    def chunks(self, name: str, path: str) -> Shape:
        """Return the chunks for a dataset of a column."""
        outline = self.measured(name)
        column = outline.columns[path]
        rows = int(outline.positions(column)[-1])
        entries = self.tree.entries
        found = column_chunks(
            self.tree.chunk_entries,
            column.inner,
            column.dtype.itemsize,
            rows / entries if entries else 1.0,
        )
        # The last offset would else be alone in one more chunk.
        alone = column.is_offsets and rows and rows % found[0] == 0
        return (found[0] + 1,) if alone else found

    def read_into(self, name: str, path: str, box: Box, out: Array) -> None:
        """Read a box of a column into an array of its shape."""
        outline = self.measured(name)
        if outline.refused:
            raise SourceError(
                f"branch {name!r} of {self.name!r} cannot be read: {outline.refused}"
            )
        column = outline.columns[path]
        positions = outline.positions(column)
        row, stop = box[0].start, box[0].stop
        inner = (slice(None), *box[1:])
        if column.is_offsets and stop == positions[-1] + 1 and stop > row:
            stop -= 1
            out[-1] = outline.counted[path][-1]
            out = out[:-1]
        if row >= stop or not prod(out.shape):
            return
        begin = row
        at = int(np.searchsorted(positions, row, side="right")) - 1
        while row < stop:
            end = min(stop, int(positions[at + 1]))
            if end > row:
                rows = self._rows(outline, column, at)
                place = out[row - begin : end - begin]
                first = row - int(positions[at])
                part = rows[first : first + end - row]
                if column.is_offsets:
                    np.add(part, outline.counted[path][at], out=place)
                else:
                    place[...] = part[inner]
                row = end
            at += 1


@contextmanager
def _reading_branch(name: str, location: str) -> Iterator[None]:
    """Convert errors for a branch to a SourceError, so that other branches stay usable."""
    what = f"branch {name!r} of {location}"
    try:
        with reading(what):
            yield
    except MemoryError as error:
        raise SourceError(
            f"{what} cannot be read: it takes more memory than there is, or uproot takes "
            "something else for its size"
        ) from error


def _same_type(one: Any, other: Any) -> bool:
    """Return True if two forms in JSON have the same meaning. Their spelling may differ."""
    if one == other:
        return True
    left, right = form_of(one), form_of(other)
    return bool(left.type == right.type) and columns(left) == columns(right)


def _as_described(unit: Unit, outline: BranchOutline) -> bool:
    found = {path: (rows.dtype.newbyteorder("="), rows.shape[1:]) for path, rows in unit.items()}
    return unit.keys() == outline.columns.keys() and all(
        column.is_offsets or found[path] == (column.dtype, column.inner)
        for path, column in outline.columns.items()
    )


def _taken_apart(layout: Any, outline: BranchOutline) -> Unit:
    try:
        return decompose(layout, form_of(outline.branch.form))
    except FormatError as error:
        # uproot identifies a class by its name, even if another file has a different one.
        raise SourceError(
            f"branch {outline.branch.name!r} does not read as its description says: {error}"
        ) from error


def _small(offsets: Array) -> Array:
    """Return offsets in 32 bits if they fit."""
    fits = offsets[-1] <= np.iinfo(np.int32).max
    return offsets.astype(np.int32, copy=False) if fits else offsets


def _place(found: list[Array], at: int, value: int) -> None:
    for part in found:
        if at < len(part):
            part[at] = value
            return
        at -= len(part)
    raise AssertionError("a unit beyond the last file")
