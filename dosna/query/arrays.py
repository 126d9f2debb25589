"""Queries of N-dimensional arrays: the coordinates and the values of elements, as a table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dosna.backends.base import BackendDataset
from dosna.core.indices import true_places
from dosna.core.progress import Progress
from dosna.core.sizes import Limit
from dosna.core.text import is_text
from dosna.core.types import Array
from dosna.engines.work.boxes import bytes_of, count_of, extent_of, read_box
from dosna.query.explaining import Explanation
from dosna.query.expressions import (
    Bound,
    Expr,
    Output,
    Zone,
    bind_condition,
    bounds,
    evaluate,
    evaluate_mask,
    parse,
)
from dosna.query.expressions.binding import empty
from dosna.query.expressions.nodes import conjuncts, quote_name
from dosna.query.results import Job, Results, check_limits, columns_of
from dosna.query.scan import Convert, Rows

if TYPE_CHECKING:
    from dosna.array.dataset import EngineDataset

__all__ = ["ArrayQuery", "query_array"]

VALUE = "value"


def query_array(
    dataset: EngineDataset,
    where: str | Expr | None = None,
    columns: str | Iterable[str | Output] | None = None,
    batch_rows: int | None = None,
    memory_limit: Limit = None,
    progress: Progress = None,
) -> ArrayQuery:
    """Run `EngineDataset.query`."""
    dataset.connection.check_connected()
    dataset.note_reading()
    forms = forms_of(dataset.instance)
    condition = None
    if where is not None:
        condition = bind_condition(where if isinstance(where, Expr) else parse(where), forms)
    outputs = columns_of(map(quote_name, forms) if columns is None else columns, forms)
    check_limits(batch_rows, memory_limit)
    return ArrayQuery(
        dataset.connection,
        dataset.instance,
        condition,
        tuple(outputs),
        batch_rows,
        memory_limit,
        progress,
    )


def forms_of(dataset: BackendDataset) -> dict[str, np.dtype[Any]]:
    """Return the dtypes of the columns of an array: its coordinates and its elements."""
    dtype = _native(dataset.metadata.dtype)
    coordinates = dict.fromkeys(axes_of(dataset), np.dtype(np.int64))
    if dtype.names is None:
        return {**coordinates, VALUE: dtype}
    return {**coordinates, **{name: dtype[name] for name in dtype.names}}


def _native(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return a dtype in the byte order of this machine: Arrow and Awkward have no other."""
    # `isnative` is True for fields that are arrays, whatever their elements are.
    return dtype if is_text(dtype) else dtype.newbyteorder("=")


def axes_of(dataset: BackendDataset) -> list[str]:
    """Return the names of the coordinates: of the axes, or ``i0``, ``i1``, ….

    A field that has such a name keeps it; the coordinate then gets a trailing ``_``.
    """
    meta = dataset.metadata
    taken = {VALUE, *(meta.dtype.names or ())}
    dims = dataset.dims or (None,) * meta.ndim
    own = all(name and name not in taken for name in dims) and len(set(dims)) == len(dims)
    names = [name if own and name else f"i{axis}" for axis, name in enumerate(dims)]
    while not taken.isdisjoint(names):
        names = [f"{name}_" if name in taken else name for name in names]
    return names


class Part(NamedTuple):
    """A stored object: its number, its box of the array, and whether all its elements pass."""

    number: int
    box: tuple[slice, ...]
    certain: bool


@dataclass(frozen=True)
class ArrayQuery(Results):
    """A query of the elements of an array, which runs when its result is requested.

    Parameters
    ----------
    con : EngineConnection
        The connection.
    dataset : BackendDataset
        The array.
    where : Bound or None
        The condition.
    outputs : tuple of Bound
        The columns of the result.
    batch_rows : int or None
        The most rows of a batch.
    memory_limit : int, str or None
        The maximum memory for chunks, apart from the result.
    progress : bool, callable or None
        True for a progress bar, or a callback.
    """

    con: Any = field(repr=False)
    dataset: BackendDataset = field(repr=False)
    where: Bound | None
    outputs: tuple[Bound, ...]
    batch_rows: int | None = None
    memory_limit: Limit = None
    progress: Progress = field(default=None, repr=False)

    def __repr__(self) -> str:
        where = "" if self.where is None else f" where {self.where.expr}"
        names = ", ".join(output.name for output in self.outputs)
        return f"<dosna.ArrayQuery of {self.dataset.name!r}{where}: {names}>"

    def job(self, convert: Convert | None) -> Job:
        meta = self.dataset.metadata
        work = _Scan(self.dataset, self.where, self.outputs, convert)
        # The elements, the mask, and the coordinates that are needed for all of them.
        wide = meta.dtype.itemsize * 2 + 8 * meta.ndim
        return Job(work, self.parts(), bytes_of(self.dataset.grain, wide))

    def parts(self) -> list[Part]:
        """Return the stored objects that may have elements which satisfy the condition."""
        meta, grain = self.dataset.metadata, self.dataset.grain
        grid = [range(-(-n // g)) for n, g in zip(meta.shape, grain, strict=True)]
        found: Iterable[tuple[tuple[int, ...], bool]]
        if self.where is None or self.where.columns.isdisjoint(axes_of(self.dataset)):
            found = ((place, self.where is None) for place in product(*grid))
        else:
            found = self._judged(self.where, grid)
        return [
            Part(
                number,
                tuple(
                    slice(i * g, min((i + 1) * g, n))
                    for i, g, n in zip(place, grain, meta.shape, strict=True)
                ),
                certain,
            )
            for number, (place, certain) in enumerate(found)
        ]

    def _judged(
        self, where: Bound, places: Sequence[range]
    ) -> Iterator[tuple[tuple[int, ...], bool]]:
        """Yield those of a box of places that coordinates do not rule out, in order.

        They are judged together, and then by halves.
        """
        axes, grain, shape = axes_of(self.dataset), self.dataset.grain, self.dataset.metadata.shape
        zones = {
            name: Zone(len(along), along.start * g, min(along.stop * g, n) - 1)
            for name, along, g, n in zip(axes, places, grain, shape, strict=True)
        }
        verdict = bounds(where, zones)
        if verdict == "none":
            return
        axis = next((axis for axis, along in enumerate(places) if len(along) > 1), None)
        if verdict == "all" or axis is None:
            yield from ((place, verdict == "all") for place in product(*places))
            return
        along, middle = places[axis], len(places[axis]) // 2
        for half in (along[:middle], along[middle:]):
            yield from self._judged(where, [*places[:axis], half, *places[axis + 1 :]])

    def explain(self) -> Explanation:
        """Return what the query would read. Only the description of the array is read for this.

        Returns
        -------
        Explanation
            The numbers of chunks and bytes, whose ``str`` is a summary. Its entries are elements,
            and its ranges are stored objects, which the coordinates in the condition rule out.
        """
        meta, parts, axes = self.dataset.metadata, self.parts(), set(axes_of(self.dataset))
        tested = self.where is not None and not self.where.columns <= axes
        shown = any(not output.columns <= axes for output in self.outputs)
        read = [extent_of(p.box) for p in parts if shown or (tested and not p.certain)]
        conditions = [] if self.where is None else conjuncts(self.where.expr)
        return Explanation(
            math.prod(meta.shape),
            count_of(meta.shape, self.dataset.grain),
            count_of(meta.shape, self.dataset.grain) - len(parts),
            sum(part.certain for part in parts) if conditions else 0,
            meta.total_chunks,
            sum(count_of(extent, meta.chunk_size) for extent in read),
            sum(math.prod(extent) for extent in read) * meta.dtype.itemsize,
            tuple(
                (str(one), "computed here", _known(sorted(one.columns & axes)))
                for one in conditions
            ),
        )

    def nothing(self) -> dict[str, Any]:
        forms = forms_of(self.dataset)
        found = {}
        for output in self.outputs:
            held = {name: empty(forms[name]) for name in output.columns}
            found[output.name] = evaluate(output.expr, held, 0)
        return found


def _known(coordinates: Sequence[str]) -> str:
    return f"coordinates {', '.join(coordinates)}" if coordinates else "no zones"


@dataclass
class _Scan:
    """The work of a query on stored objects. It can be sent to another process."""

    dataset: BackendDataset
    where: Bound | None
    outputs: Sequence[Bound]
    convert: Convert | None

    def __call__(self, parts: Iterable[Part]) -> list[Rows]:
        return [self._one(*part) for part in parts]

    def _one(self, number: int, box: tuple[slice, ...], certain: bool) -> Rows:
        columns = _Columns(self.dataset, box)
        if self.where is not None and not certain:
            held = {name: columns[name] for name in self.where.columns}
            columns.keep(evaluate_mask(self.where.expr, held, columns.length))
        if self.convert is None or not columns.length:
            return Rows(number, columns.length, None)
        found = {
            output.name: evaluate(
                output.expr, {name: columns[name] for name in output.columns}, columns.length
            )
            for output in self.outputs
        }
        return Rows(number, columns.length, self.convert(found, columns.length))


class _Columns(Mapping[str, Any]):
    """The columns of a stored object, which are created when they are needed."""

    def __init__(self, dataset: BackendDataset, box: tuple[slice, ...]) -> None:
        self._dataset, self._box = dataset, box
        self._extent = extent_of(box)
        self._axes = axes_of(dataset)
        self._rows: Array | None = None
        self._block: Array | None = None
        self.length = int(np.prod(self._extent, dtype=np.int64))

    def __getitem__(self, name: str) -> Any:
        if name in self._axes:
            axis = self._axes.index(name)
            first, count = self._box[axis].start, self._extent[axis]
            if self._rows is not None:
                after = int(np.prod(self._extent[axis + 1 :], dtype=np.int64))
                return self._rows // after % count + first
            shape = [1] * len(self._extent)
            shape[axis] = count
            along = np.arange(first, first + count).reshape(shape)
            return np.broadcast_to(along, self._extent).reshape(-1)
        if self._block is None:
            self._block = read_box(self._dataset, self._box).reshape(-1)
        values = self._block if self._block.dtype.names is None else self._block[name]
        chosen = values if self._rows is None else values[self._rows]
        return np.ascontiguousarray(chosen, _native(chosen.dtype))

    def keep(self, mask: Array) -> None:
        """Drop the elements for which a mask is false."""
        self._rows = true_places(mask)
        self.length = len(self._rows)

    def __iter__(self) -> Iterator[str]:
        return iter(forms_of(self._dataset))

    def __len__(self) -> int:
        return len(forms_of(self._dataset))
