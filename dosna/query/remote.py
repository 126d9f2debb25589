"""Columns whose rows are tested and selected where their chunks are stored.

The servers of the store do this with an object class (`dosna.query.ceph_class`), if they have it.
If they refuse a chunk, for whatever reason, it is read as usual: errors are then those of a read,
and the results are the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from dosna.backends.base import BackendDataset
from dosna.backends.stores.dataset import StoreDataset
from dosna.backends.stores.store import MethodCall, NotExecutedError
from dosna.core.indices import true_places
from dosna.core.types import Array, Shape
from dosna.query.ceph_class import protocol
from dosna.query.programs import Program

__all__ = ["Reads", "Remote", "Statistics", "remote_of", "take_all"]

_MOST_CHUNK_BYTES = 1 << 30
_MOST_TAKEN = 0.75
"""Share of a chunk's rows above which the chunk is read, as that takes no more bytes."""


class Statistics(NamedTuple):
    """Statistics of ranges of rows. An entry is NaN if all values of its range are.

    Parameters
    ----------
    least, largest : ndarray
        The smallest and the largest value of each range, ignoring NaN.
    nans : ndarray of int64
        The number of NaN in each range.
    """

    least: Array
    largest: Array
    nans: Array


class Reads:
    """Parts of datasets that were read where they are stored, and have yet to be checked.

    An object of Ceph does not tell to which dataset it belongs. The document of the dataset does,
    and one look at it checks all that was read before. Threads may share it.
    """

    def __init__(self) -> None:
        self._made: list[tuple[StoreDataset, float, list[Shape], list[Any]]] = []

    def note(
        self, dataset: StoreDataset, began: float, absent: list[Shape], parts: list[Any]
    ) -> None:
        """Note a read, by what `WatchedDataset.settle` takes."""
        self._made.append((dataset, began, absent, parts))

    def settle(self) -> None:
        """Check that what was read belongs to its datasets; raises what `settle` of these does."""
        made, self._made = self._made, []
        reads: dict[StoreDataset, list[tuple[float, list[Shape], list[Any]]]] = {}
        for dataset, began, absent, parts in made:
            reads.setdefault(dataset, []).append((began, absent, parts))

        def settle(dataset: StoreDataset) -> None:
            own = reads[dataset]
            dataset.settle(
                min(began for began, _, _ in own),
                [idx for _, absent, _ in own for idx in absent],
                [part for *_, parts in own for part in parts],
            )

        if made:
            made[0][0].store.for_each(settle, reads)


@dataclass
class _Part:
    """The work on some rows of a stored object.

    Parameters
    ----------
    remote : Remote
        The dataset.
    idx : tuple of int
        The index of the object.
    start, stop : int
        The range of the rows, in the object.
    call : MethodCall or None
        The call that does the work where the object is stored; None if the object must be read.
    answered : callable
        A function that uses the answer, and raises ValueError if it is malformed.
    read : callable
        A function that does the same with the values of the rows.
    """

    remote: Remote
    idx: Shape
    start: int
    stop: int
    call: MethodCall | None
    answered: Callable[[bytes], None]
    read: Callable[[Array], None]


def remote_of(dataset: BackendDataset, reads: Reads | None = None) -> Remote | None:
    """Return the dataset as one whose store evaluates conditions, or None if it cannot.

    This is not possible for elements other than little-endian numbers and bool; for chunks that
    are compressed, in shards, divided across rows, or cached; and in a store without the object
    class. What is read is noted in `reads`, for the caller to settle; without it, each call is
    checked before it returns.
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
    return Remote(dataset, reads)


class Remote:
    """A dataset whose store evaluates conditions; created by `remote_of`.

    Parameters
    ----------
    dataset : StoreDataset
        The dataset, whose first axis is that of rows.
    reads : Reads, optional
        Where reads are noted, if they are not checked one by one.
    """

    def __init__(self, dataset: StoreDataset, reads: Reads | None = None) -> None:
        meta = dataset.metadata
        self.dataset, self.reads = dataset, reads
        self.inner = meta.shape[1:]
        self._dtype = meta.dtype
        self._width = math.prod(self.inner) * meta.dtype.itemsize
        self._grain = meta.chunk_size[0]

    def rows(self, start: int, stop: int, program: Program) -> Array:
        """Return the numbers of the rows of a range for which a program is true.

        Parameters
        ----------
        start, stop : int
            The range of rows of a dataset with one axis.
        program : Program
            The predicate, of the dataset's dtype.

        Returns
        -------
        ndarray of int64
            The numbers, counted from `start`.
        """
        found: dict[int, Array] = {}

        def part(number: int, a: int, b: int) -> _Part:
            place = number * self._grain + a - start

            def answered(answer: bytes) -> None:
                found[number] = protocol.unpack_rows(answer, b - a)[0] + place

            def read(values: Array) -> None:
                found[number] = true_places(program.evaluate(values)) + place

            most = protocol.rows_size(b - a)
            return self._part(number, a, b, "mask", program.code, most, answered, read)

        _carry_out([part(*some) for some in self._chunks(start, stop)])
        return _joined(found, np.dtype(np.int64))

    def filter(self, start: int, stop: int, program: Program) -> tuple[Array, Array]:
        """Return the rows of a range for which a program is true, and their values.

        Parameters and numbers are those of `rows`.
        """
        found: dict[int, Array] = {}
        chosen: dict[int, Array] = {}

        def part(number: int, a: int, b: int) -> _Part:
            place = number * self._grain + a - start

            def answered(answer: bytes) -> None:
                rows, at = protocol.unpack_rows(answer, b - a)
                values = np.frombuffer(answer, self._dtype, offset=at)
                if len(values) != len(rows):
                    raise ValueError(f"there are {len(values)} values of {len(rows)} rows")
                found[number], chosen[number] = rows + place, values

            def read(values: Array) -> None:
                rows = true_places(program.evaluate(values))
                found[number], chosen[number] = rows + place, values[rows]

            most = protocol.rows_size(b - a) + (b - a) * self._width
            return self._part(number, a, b, "filter", program.code, most, answered, read)

        _carry_out([part(*some) for some in self._chunks(start, stop)])
        return _joined(found, np.dtype(np.int64)), _joined(chosen, self._dtype)

    def take(self, rows: Array) -> Array:
        """Return some rows.

        Parameters
        ----------
        rows : ndarray of int
            The numbers of the rows, which increase.
        """
        return take_all([self], rows)[0]

    def stats(self, start: int, stop: int, block: int) -> Statistics:
        """Return the smallest and the largest value and the number of NaN of ranges of rows.

        Parameters
        ----------
        start, stop : int
            The range of rows of a dataset with one axis. `start` is where a chunk begins.
        block : int
            The number of rows of each range; the last one of a chunk may be shorter.
        """
        found: dict[int, tuple[Array, Array, Array]] = {}

        def part(number: int, a: int, b: int) -> _Part:
            def answered(answer: bytes) -> None:
                stats = protocol.unpack_stats(answer, self._dtype)
                if len(stats[0]) != -(-(b - a) // block):
                    raise ValueError(f"there are {len(stats[0])} ranges of other rows")
                found[number] = stats

            def read(values: Array) -> None:
                found[number] = statistics(values, block)

            most = ((b - a) // block + 1) * protocol.STATS
            arguments = block.to_bytes(8, "little")
            return self._part(number, a, b, "stats", arguments, most, answered, read)

        _carry_out([part(*some) for some in self._chunks(start, stop)])
        nothing = statistics(np.empty(0, self._dtype), block)
        parts = [nothing, *(found[number] for number in sorted(found))]
        return Statistics(*(np.concatenate(some) for some in zip(*parts, strict=True)))

    # -- chunks ---------------------------------------------------------------------------

    def _chunks(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        """Return the chunks of a range of rows: the number, and the range in the chunk."""
        grain = self._grain
        return [
            (number, max(start - number * grain, 0), min(stop - number * grain, grain))
            for number in range(start // grain, -(-stop // grain))
        ]

    def taken(self, rows: Array, out: Array, sets: dict[Shape, bytes]) -> list[_Part]:
        """Return the parts that put rows into an array, one for each chunk that has some.

        `sets` keeps packed rows for the next dataset: many columns have the same chunks.
        """
        grain, last = self._grain, self.dataset.metadata.shape[0]
        numbers = range(int(rows[0]) // grain, int(rows[-1]) // grain + 1)
        edges = np.searchsorted(rows, np.array([*numbers, numbers.stop]) * grain).tolist()

        def part(number: int, a: int, b: int) -> _Part:
            inside = rows[a:b] - number * grain
            place, length = out[a:b], min(grain, last - number * grain)

            def answered(answer: bytes) -> None:
                place[...] = np.frombuffer(answer, self._dtype).reshape(place.shape)

            def read(values: Array) -> None:
                np.take(values, inside, 0, place, "clip")

            whole = len(inside) > _MOST_TAKEN * length
            same = number * grain, length, a, b
            packed = b"" if whole else sets.get(same) or protocol.pack_rows(inside, length)
            sets[same] = packed
            method = "" if whole else "take"
            return self._part(number, 0, length, method, packed, place.nbytes, answered, read)

        return [
            part(number, a, b)
            for number, a, b in zip(numbers, edges, edges[1:], strict=False)
            if a < b
        ]

    def _part(
        self,
        number: int,
        start: int,
        stop: int,
        method: str,
        arguments: bytes,
        most: int,
        answered: Callable[[bytes], None],
        read: Callable[[Array], None],
    ) -> _Part:
        dataset = self.dataset
        idx = (number, *(0 for _ in self.inner))
        call = None
        if method:
            checks = dataset.layout.pipeline.checks
            head = protocol.Head(self._dtype, checks, self._width, self._grain, start, stop)
            call = MethodCall(dataset.key(idx), method, head.pack(most) + arguments, most)
        return _Part(self, idx, start, stop, call, answered, read)


def take_all(remotes: Sequence[Remote], rows: Array) -> list[Array]:
    """Return some rows of several datasets of one store, with common requests.

    Parameters
    ----------
    remotes : sequence of Remote
        The datasets.
    rows : ndarray of int
        The numbers of the rows, which increase.
    """
    found = [
        np.empty((len(rows), *remote.inner), remote.dataset.metadata.dtype) for remote in remotes
    ]
    if len(rows):
        pairs = zip(remotes, found, strict=True)
        sets: dict[Shape, bytes] = {}
        _carry_out([part for remote, out in pairs for part in remote.taken(rows, out, sets)])
    return found


def _joined(parts: dict[int, Array], dtype: np.dtype[Any]) -> Array:
    """Join the arrays of chunks in the order of their numbers."""
    return np.concatenate([np.empty(0, dtype), *(parts[number] for number in sorted(parts))])


def _carry_out(parts: Sequence[_Part]) -> None:
    """Do the work of parts of one store: where they are stored, or else by reading them."""
    if not parts:
        return
    began, store = time.monotonic(), parts[0].remote.dataset.store
    absent: dict[Remote, list[Shape]] = {part.remote: [] for part in parts}
    asked = [(part, part.call) for part in parts if part.call is not None]
    left = [part for part in parts if part.call is None]
    for (part, _), answer in zip(asked, store.execute([call for _, call in asked]), strict=True):
        if answer is None:
            absent[part.remote].append(part.idx)
            part.read(_filled(part))
        elif isinstance(answer, NotExecutedError):
            left.append(part)
        else:
            try:
                part.answered(answer)
                # A Ceph object does not tell to which dataset it belongs.
                part.remote.dataset.vouch(part.idx, None)
            except ValueError:
                left.append(part)

    def read(part: _Part) -> None:
        chunk = part.remote.dataset.read_chunk(part.idx, None)
        if chunk is None:
            absent[part.remote].append(part.idx)
        part.read(_filled(part) if chunk is None else chunk[part.start : part.stop])

    if left:
        store.for_each(read, left, max(p.remote.dataset.metadata.chunk_nbytes for p in left))
    shared = parts[0].remote.reads
    reads = Reads() if shared is None else shared
    for remote, missing in absent.items():
        inner = tuple(slice(0, n) for n in remote.inner)
        own = [
            (part.idx, (slice(part.start, part.stop), *inner))
            for part in parts
            if part.remote is remote
        ]
        reads.note(remote.dataset, began, missing, own)
    if shared is None:
        reads.settle()


def _filled(part: _Part) -> Array:
    """Return the rows of a chunk that does not exist."""
    fill = part.remote.dataset.metadata.fill
    return np.broadcast_to(fill, (part.stop - part.start, *part.remote.inner))


def statistics(values: Array, block: int) -> tuple[Array, Array, Array]:
    """Return what `Remote.stats` returns, for the values of a chunk."""
    starts = np.arange(0, len(values), block)
    if not len(starts):
        return values[:0], values[:0], np.empty(0, np.int64)
    nans = np.add.reduceat(values != values, starts, dtype=np.int64)
    return np.fmin.reduceat(values, starts), np.fmax.reduceat(values, starts), nans
