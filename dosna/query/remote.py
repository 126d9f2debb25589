"""Columns whose rows are tested and chosen where their chunks are stored.

The store's servers do that by an object class (`dosna.query.ceph_class`), where they have it. A
chunk that they refuse, for whatever reason, is read as always: an error is then that of a read,
and results are the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from dosna.backends.base import BackendDataset
from dosna.backends.stores.dataset import StoreDataset
from dosna.backends.stores.store import NotExecutedError
from dosna.core.types import Array, Shape
from dosna.query.ceph_class import protocol
from dosna.query.programs import Program

__all__ = ["Remote", "Statistics", "remote_of"]

_MOST_CHUNK_BYTES = 1 << 30
_MOST_TAKEN = 0.75
"""Share of a chunk's rows above which the chunk is read, as that takes no more bytes."""


class Statistics(NamedTuple):
    """The values of ranges of rows. An entry is NaN if all values of its range are.

    Parameters
    ----------
    least, largest : ndarray
        The least and the largest value of each range, but for NaN.
    nans : ndarray of int64
        The number of NaN in each range.
    """

    least: Array
    largest: Array
    nans: Array


class _Part(NamedTuple):
    """Some rows of a stored object: its index, the range of the rows, and their place."""

    idx: Shape
    start: int
    stop: int
    place: slice
    rows: Array | None = None

    @property
    def length(self) -> int:
        return self.stop - self.start


def remote_of(dataset: BackendDataset) -> Remote | None:
    """Return the dataset as one whose store looks at chunks, or None if that is not possible.

    It is not for elements other than little-endian numbers and bool, for chunks that are
    compressed, in shards, cut across rows or cached, and in a store without the object class.
    """
    if type(dataset) is not StoreDataset:
        return None
    meta, pipeline = dataset.metadata, dataset.layout.pipeline
    if (
        not pipeline.plain
        or pipeline.checks > 1
        or not meta.ndim
        or not protocol.supports(meta.dtype)
        or meta.chunk_size[1:] != meta.shape[1:]
        or not 0 < meta.chunk_nbytes <= _MOST_CHUNK_BYTES
        or not dataset.store.can_execute()
    ):
        return None
    return Remote(dataset)


class Remote:
    """A dataset whose store looks at chunks; made by `remote_of`.

    Parameters
    ----------
    dataset : StoreDataset
        The dataset. Its first axis is that of rows.
    """

    def __init__(self, dataset: StoreDataset) -> None:
        meta = dataset.metadata
        self._dataset = dataset
        self._inner = meta.shape[1:]
        self._dtype = meta.dtype
        self._width = math.prod(self._inner) * meta.dtype.itemsize
        self._grain = meta.chunk_size[0]

    def mask(self, start: int, stop: int, program: Program) -> Array:
        """Return for each row of a range whether a program is true.

        Parameters
        ----------
        start, stop : int
            The range of rows of a dataset with one axis.
        program : Program
            The predicate, of the dataset's dtype.
        """
        truth = np.empty(stop - start, bool)

        def fetch(part: _Part) -> bool:
            answer = self._ask(part, "mask", program.code, protocol.rows_size(part.length))
            if answer is None:
                return False
            truth[part.place] = protocol.unpack_rows(answer, part.length)[0]
            return True

        def use(part: _Part, values: Array) -> None:
            truth[part.place] = program.evaluate(values)

        self._each(self._parts(start, stop), fetch, use)
        return truth

    def filter(self, start: int, stop: int, program: Program) -> tuple[Array, Array]:
        """Return for each row of a range whether a program is true, and the values of those.

        The parameters are those of `mask`.
        """
        truth = np.empty(stop - start, bool)
        found: dict[int, Array] = {}

        def fetch(part: _Part) -> bool:
            most = protocol.rows_size(part.length) + part.length * self._width
            answer = self._ask(part, "filter", program.code, most)
            if answer is None:
                return False
            mask, at = protocol.unpack_rows(answer, part.length)
            values = np.frombuffer(answer, self._dtype, offset=at)
            if len(values) != np.count_nonzero(mask):
                raise ValueError(f"there are {len(values)} values of other rows")
            truth[part.place], found[part.place.start] = mask, values
            return True

        def use(part: _Part, values: Array) -> None:
            mask = truth[part.place] = program.evaluate(values)
            found[part.place.start] = values[mask]

        self._each(self._parts(start, stop), fetch, use)
        empty = np.empty(0, self._dtype)
        return truth, np.concatenate([empty, *(found[place] for place in sorted(found))])

    def take(self, rows: Array) -> Array:
        """Return some rows.

        Parameters
        ----------
        rows : ndarray of int
            The numbers of the rows, which increase.
        """
        out = np.empty((len(rows), *self._inner), self._dtype)

        def fetch(part: _Part) -> bool:
            assert part.rows is not None
            count = len(part.rows)
            if count > _MOST_TAKEN * part.length:
                raise NotExecutedError("this chunk is read, as most of its rows are wanted")
            answer = self._ask(
                part, "take", protocol.pack_rows(part.rows, part.length), count * self._width
            )
            if answer is None:
                return False
            out[part.place] = np.frombuffer(answer, self._dtype).reshape(count, *self._inner)
            return True

        def use(part: _Part, values: Array) -> None:
            out[part.place] = values[part.rows]

        self._each(self._parts_of(rows), fetch, use)
        return out

    def stats(self, start: int, stop: int, block: int) -> Statistics:
        """Return the least and the largest value and the number of NaN, for ranges of rows.

        Parameters
        ----------
        start, stop : int
            The range of rows of a dataset with one axis. `start` is where a chunk begins.
        block : int
            The number of rows of each range; the last one of a chunk may be shorter.
        """
        found: dict[int, tuple[Array, Array, Array]] = {}

        def fetch(part: _Part) -> bool:
            most = (part.length // block + 1) * protocol.STATS
            answer = self._ask(part, "stats", block.to_bytes(8, "little"), most)
            if answer is None:
                return False
            stats = protocol.unpack_stats(answer, self._dtype)
            if len(stats[0]) != -(-part.length // block):
                raise ValueError(f"there are {len(stats[0])} ranges of other rows")
            found[part.place.start] = stats
            return True

        def use(part: _Part, values: Array) -> None:
            found[part.place.start] = statistics(values, block)

        self._each(self._parts(start, stop), fetch, use)
        nothing = statistics(np.empty(0, self._dtype), block)
        parts = [nothing, *(found[place] for place in sorted(found))]
        return Statistics(*(np.concatenate(some) for some in zip(*parts, strict=True)))

    # -- chunks ---------------------------------------------------------------------------

    def _parts(self, start: int, stop: int) -> list[_Part]:
        """Return the parts of chunks that make up a range of rows."""
        parts = []
        for number in range(start // self._grain, -(-stop // self._grain)):
            first = number * self._grain
            a, b = max(start, first), min(stop, first + self._grain)
            place = slice(a - start, b - start)
            parts.append(_Part(self._index(number), a - first, b - first, place))
        return parts

    def _parts_of(self, rows: Array) -> list[_Part]:
        """Return for each chunk that has some of the rows which they are."""
        if not len(rows):
            return []
        numbers = range(int(rows[0]) // self._grain, int(rows[-1]) // self._grain + 1)
        borders = np.array([*numbers, numbers.stop]) * self._grain
        edges = np.searchsorted(rows, borders).tolist()
        last = self._dataset.metadata.shape[0]
        return [
            _Part(
                self._index(number),
                0,
                min(self._grain, last - number * self._grain),
                slice(a, b),
                rows[a:b] - number * self._grain,
            )
            for number, a, b in zip(numbers, edges, edges[1:], strict=False)
            if a < b
        ]

    def _index(self, number: int) -> Shape:
        return (number, *(0 for _ in self._inner))

    def _ask(self, part: _Part, method: str, arguments: bytes, most: int) -> bytes | None:
        """Call a method on a chunk, and return its answer, or None if there is no chunk."""
        dataset = self._dataset
        head = protocol.Head(
            self._dtype,
            dataset.layout.pipeline.checks,
            self._width,
            self._grain,
            part.start,
            part.stop,
        )
        request = head.pack(most) + arguments
        return dataset.store.execute(dataset.key(part.idx), method, request, most)

    def _each(
        self,
        parts: Sequence[_Part],
        fetch: Callable[[_Part], bool],
        use: Callable[[_Part, Array], Any],
    ) -> None:
        """Do something for each part, several at a time.

        Parameters
        ----------
        parts : sequence of _Part
            The parts, each of another chunk.
        fetch : callable
            A function that lets the store do it, and returns False if there is no chunk. It may
            raise NotExecutedError, or ValueError for an answer that is none.
        use : callable
            A function that does the same with the values of the part.
        """
        dataset = self._dataset
        began, absent = time.monotonic(), list[Shape]()

        def work(part: _Part) -> None:
            rows = slice(part.start, part.stop)
            try:
                if fetch(part):
                    # An object of Ceph does not tell which dataset it is of.
                    dataset.vouch(part.idx, None)
                    return
                chunk = None
            except (NotExecutedError, ValueError):
                chunk = dataset.read_chunk(part.idx, None)
            if chunk is None:
                absent.append(part.idx)
                fill = np.asarray(dataset.metadata.fillvalue, self._dtype)
                chunk = np.broadcast_to(fill, dataset.metadata.chunk_size)
            use(part, chunk[rows])

        dataset.store.for_each(work, parts, dataset.metadata.chunk_nbytes)
        inner = tuple(slice(0, n) for n in self._inner)
        keys = [(part.idx, (slice(part.start, part.stop), *inner)) for part in parts]
        dataset.settle(began, absent, keys)


def statistics(values: Array, block: int) -> tuple[Array, Array, Array]:
    """Return what `Remote.stats` returns, for the values of a chunk."""
    starts = np.arange(0, len(values), block)
    if not len(starts):
        return values[:0], values[:0], np.empty(0, np.int64)
    nans = np.add.reduceat(values != values, starts, dtype=np.int64)
    return np.fmin.reduceat(values, starts), np.fmax.reduceat(values, starts), nans
