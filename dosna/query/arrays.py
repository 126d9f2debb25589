"""Queries of N-dimensional arrays: the coordinates and the values of elements, as a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dosna.backends.base import BackendDataset
from dosna.core.plan import ChunkTask, every_chunk
from dosna.core.progress import Progress
from dosna.core.sizes import Limit, parse_size
from dosna.core.types import Array
from dosna.engines.work.boxes import bytes_of, extent_of, read_box
from dosna.query.expressions import (
    Bound,
    Expr,
    bind_condition,
    bind_projection,
    evaluate,
    evaluate_mask,
    parse,
    parse_projection,
)
from dosna.query.expressions.binding import empty
from dosna.query.expressions.nodes import quote_name
from dosna.query.results import Job, Results
from dosna.query.scan import Convert, Rows

if TYPE_CHECKING:
    from dosna.array.dataset import EngineDataset

__all__ = ["ArrayQuery", "query_array"]

VALUE = "value"


def query_array(
    dataset: EngineDataset,
    where: str | Expr | None = None,
    columns: str | Iterable[str] | None = None,
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
    texts = [quote_name(name) for name in forms] if columns is None else columns
    outputs = bind_projection(parse_projection(texts), forms)
    if batch_rows is not None and batch_rows < 1:
        raise ValueError(f"batch_rows must be at least 1, not {batch_rows}")
    if memory_limit is not None:
        parse_size(memory_limit)
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
    meta = dataset.metadata
    names = axes_of(dataset)
    coordinates = dict.fromkeys(names, np.dtype(np.int64))
    if meta.dtype.names is None:
        return {**coordinates, VALUE: meta.dtype}
    return {**coordinates, **{name: meta.dtype[name] for name in meta.dtype.names}}


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
        meta, grain = self.dataset.metadata, self.dataset.grain
        tasks = list(enumerate(every_chunk(meta.shape, grain)))
        work = _Scan(self.dataset, self.where, self.outputs, convert)
        # The elements, the mask, and the coordinates that are needed for all of them.
        wide = meta.dtype.itemsize * 2 + 8 * meta.ndim
        return Job(work, tasks, bytes_of(grain, wide))

    def nothing(self) -> dict[str, Any]:
        forms = forms_of(self.dataset)
        found = {}
        for output in self.outputs:
            held = {name: empty(forms[name]) for name in output.columns}
            found[output.name] = evaluate(output.expr, held, 0)
        return found


@dataclass
class _Scan:
    """The work of a query on stored objects. It can be sent to another process."""

    dataset: BackendDataset
    where: Bound | None
    outputs: Sequence[Bound]
    convert: Convert | None

    def __call__(self, tasks: Iterable[tuple[int, ChunkTask]]) -> list[Rows]:
        return [self._one(number, task) for number, task in tasks]

    def _one(self, number: int, task: ChunkTask) -> Rows:
        columns = _Columns(self.dataset, task)
        if self.where is not None:
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

    def __init__(self, dataset: BackendDataset, task: ChunkTask) -> None:
        self._dataset, self._box = dataset, task.out
        self._extent = extent_of(task.out)
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
        return np.ascontiguousarray(values if self._rows is None else values[self._rows])

    def keep(self, mask: Array) -> None:
        """Drop the elements for which a mask is false."""
        self._rows = np.flatnonzero(mask)
        self.length = len(self._rows)

    def __iter__(self) -> Iterator[str]:
        return iter(forms_of(self._dataset))

    def __len__(self) -> int:
        return len(forms_of(self._dataset))
