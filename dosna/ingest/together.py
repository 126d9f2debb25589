"""Small arrays of an ingest, which become datasets several at a time where requests take long."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dosna.backends.absent import NOTHING
from dosna.backends.batch import Batch
from dosna.core.names import parents
from dosna.core.plan import every_chunk
from dosna.core.request import IngestRequest
from dosna.core.sizes import parse_size
from dosna.core.text import element_bytes, elements
from dosna.core.types import Array
from dosna.core.values import plain_fields
from dosna.engines.work.loading import Load, is_fill
from dosna.ingest.planned import PlannedArray
from dosna.ingest.planning import refusing
from dosna.sources.array import ConvertedArray, SourceArray
from dosna.sources.base import Source

if TYPE_CHECKING:
    from dosna.array.connection import EngineConnection

__all__ = ["Outcome", "Together", "data_of"]

Outcome = Exception | Literal["made", "untouched"]
"""The outcome for an array: the error, if it was begun and failed."""

_MOST_BYTES = 64 << 20
"""Memory that the arrays of one portion take: a quarter for their values, the rest for the
requests under way."""

_MOST_ARRAYS = 500
_SMALL = 64
"""Part of that memory that the one chunk of a small array may take."""


def data_of(source: Source, array: PlannedArray) -> SourceArray:
    """Return the elements of an array as its dataset stores them."""
    if array.read_as is None:
        return SourceArray(source, array.description)
    view = plain_fields(array.read_as.dtype)[1]
    return ConvertedArray(source, array.read_as, array.description.dtype, view)


@dataclass
class _Read:
    """An array that was read."""

    array: PlannedArray
    values: Array
    sparse: bool
    """True if what is not fill is all that has to be written."""


class Together:
    """The part of an ingest that makes datasets of several small arrays at a time.

    The source is read in the caller's thread. Then the datasets are created, filled and completed:
    by a batch, or by threads of the store. Arrays that cannot be read, and all of them if the
    source has changed, are ingested one after the other instead.

    Parameters
    ----------
    con : Connection
    source : Source
    request : IngestRequest
    batch : Batch, optional
        The batch of the connection.
    """

    def __init__(
        self, con: EngineConnection, source: Source, request: IngestRequest, batch: Batch | None
    ) -> None:
        self.con, self.source, self.request, self.batch = con, source, request, batch
        self.absent = NOTHING  # what need not be looked for
        self.groups: Mapping[str, Mapping[str, Any]] = {}
        """Attributes, in JSON form, that groups are made with where they are absent."""
        self.made_groups: set[str] = set()
        limit = request.memory_limit
        most = _MOST_BYTES if limit is None else min(_MOST_BYTES, parse_size(limit))
        self._bytes = most // 4
        # Processes of MPI would have to agree on each step.
        threads = con.instance.creates_together and con.runner.shares_memory
        self._chunk_bytes = self._bytes if batch is not None else most // _SMALL if threads else -1

    def portions(self, arrays: Sequence[PlannedArray]) -> Iterator[list[PlannedArray]]:
        """Yield the arrays in their order: small ones by many, others one by one."""
        portion: dict[str, PlannedArray] = {}
        nbytes, above = 0, set[str]()
        for array in arrays:
            size, target = self._size(array), array.target
            # Of names inside one another, one is refused: that which comes later.
            clash = target in portion or target in above
            clash = clash or not portion.keys().isdisjoint(parents(target))
            full = size is None or nbytes + size > self._bytes or len(portion) == _MOST_ARRAYS
            if portion and (clash or full):
                yield list(portion.values())
                portion, nbytes, above = {}, 0, set()
            if size is None:
                yield [array]
                continue
            portion[target] = array
            nbytes += size
            above.update(parents(target))
        if portion:
            yield list(portion.values())

    def is_large(self, array: PlannedArray) -> bool:
        """Return True if the dataset of an array is new and has to be filled in several steps."""
        new = array.metadata is not None and array.state == "absent"
        return new and self._size(array) is None

    def is_small(self, array: PlannedArray) -> bool:
        """Return True if an array can become a dataset by `make_one`."""
        return self.batch is None and self._size(array) is not None

    def _size(self, array: PlannedArray) -> int | None:
        """Return the bytes of an array that is small and new; None for all others."""
        meta = array.metadata
        if meta is None or array.state != "absent":
            return None
        nbytes = prod(meta.chunk_size) * element_bytes(meta.dtype)
        fits = all(n <= c for n, c in zip(meta.shape, meta.chunk_size, strict=True))
        small = max(nbytes, array.description.nbytes) <= self._chunk_bytes
        return max(nbytes, 1) if fits and small else None

    def make(self, portion: Sequence[PlannedArray]) -> dict[str, Outcome]:
        """Make datasets of arrays, and return the outcome for those that were begun."""
        first = portion[0]
        if self._size(first) is None:
            return {}
        if self.batch is None and len(portion) < 2 and first.target not in self.absent:
            return {}
        read = {array.target: item for array in portion if (item := self._read(array))}
        before = first.origin["fingerprint"]
        names = [item.array.description.name for item in read.values()]
        try:
            if self.source.fingerprint_after_all(names, before) != before:
                return {}
        except Exception:
            return {}
        if self.batch is None:
            return self._by_threads(read)
        outcomes: dict[str, Outcome] = {}
        for target, item in read.items():
            try:
                self._stage(self.batch, item)
                outcomes[target] = "made"
            except Exception as error:
                outcomes[target] = error
                if not self.request.skips:
                    break
        return outcomes

    def _by_threads(self, read: Mapping[str, _Read]) -> dict[str, Outcome]:
        outcomes: dict[str, Outcome] = {}
        failed = threading.Event()

        def make(item: _Read) -> None:
            if failed.is_set() and not self.request.skips:
                return
            try:
                self._make(item)
                outcomes[item.array.target] = "made"
            except Exception as error:
                failed.set()
                outcomes[item.array.target] = error

        # The values, a chunk padded and encoded, and what the client sends.
        made = self.con.instance.create_each(
            make, read, 3 * self._chunk_bytes, self.absent, self.groups
        )
        self.made_groups |= made
        self.absent = self.absent.without(made | read.keys())
        return outcomes

    def _read(self, array: PlannedArray) -> _Read | None:
        """Read an array; None if that fails."""
        assert array.metadata is not None
        data = data_of(self.source, array)
        try:
            box = tuple(slice(0, n) for n in data.shape)
            meta = array.metadata
            stored = data.stored_in(meta.chunk_size, meta.fill) if data.shape else None
            values = np.empty(data.shape, data.dtype)
            if values.size:
                data.read_into(box, values)
            return _Read(array, values, stored is not None)
        except Exception:
            return None

    def _stage(self, batch: Batch, item: _Read) -> None:
        array, metadata = item.array, item.array.metadata
        assert metadata is not None
        self.con.check_writable()
        values: Array | None = None
        if item.values.size:
            values = elements(item.values, metadata.dtype)
            if item.sparse and is_fill(values, metadata.fill):
                values = None
        with refusing(self.source, array.description.name):
            batch.create_whole(
                array.target, metadata.replace(incomplete=False), array.options, values
            )

    def _make(self, item: _Read) -> None:
        array, con = item.array, self.con
        assert array.metadata is not None
        if self._make_whole(item):
            return
        with refusing(self.source, array.description.name):
            made = con.create_described(array.target, array.metadata, array.options).instance
        made.continue_creation()
        made.check_writable()
        Load(made, item.values, sparse=item.sparse)(every_chunk(made.metadata.shape, made.grain))
        made.update(lambda m: m.replace(incomplete=False))

    def _make_whole(self, item: _Read) -> bool:
        """Make a complete dataset at once; return False if that is not possible."""
        array, metadata = item.array, item.array.metadata
        assert metadata is not None
        if not item.values.size or (item.sparse and is_fill(item.values, metadata.fill)):
            return False  # nothing is stored
        with refusing(self.source, array.description.name):
            made = self.con.create_whole(
                array.target, metadata.replace(incomplete=False), array.options, item.values
            )
        return made is not None

    def make_one(self, array: PlannedArray) -> bool:
        """Make a complete dataset of a small array, if nothing is where it is to be.

        Nobody has looked for that yet. If False is returned, nothing was made.
        """
        item = self._read(array)
        if item is None or self.source.fingerprint() != array.origin["fingerprint"]:
            return False
        return self._make_whole(item)
