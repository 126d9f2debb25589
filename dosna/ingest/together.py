"""Small arrays of an ingest, which become datasets several at a time where requests take long."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Literal

import numpy as np

from dosna.core.names import parents
from dosna.core.plan import every_chunk
from dosna.core.request import IngestRequest
from dosna.core.sizes import parse_size
from dosna.core.text import element_bytes
from dosna.core.types import Array
from dosna.core.values import plain_fields
from dosna.engines.work.boxes import read_source
from dosna.engines.work.loading import Load
from dosna.ingest.planned import PlannedArray
from dosna.ingest.planning import refusing
from dosna.sources.array import ConvertedArray, SourceArray
from dosna.sources.base import Source

if TYPE_CHECKING:
    from dosna.array.connection import EngineConnection

__all__ = ["Outcome", "Together", "data_of"]

Outcome = Exception | Literal["made", "untouched"]
"""What has become of an array: the error, if it was begun and failed."""

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

    The source is read in the caller's thread. Then threads of the store create, fill and complete
    the datasets. What cannot be read, and all of it if the source has changed, is left to the one
    who takes array after array.

    Parameters
    ----------
    con : Connection
    source : Source
    request : IngestRequest
    """

    def __init__(self, con: EngineConnection, source: Source, request: IngestRequest) -> None:
        self.con, self.source, self.request = con, source, request
        limit = request.memory_limit
        most = _MOST_BYTES if limit is None else min(_MOST_BYTES, parse_size(limit))
        # Processes of MPI would have to agree on each step.
        possible = con.instance.creates_together and con.runner.shares_memory
        self._chunk_bytes = most // _SMALL if possible else -1
        self._bytes = most // 4

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
        if len(portion) < 2:
            return {}
        read = {array.target: item for array in portion if (item := self._read(array))}
        try:
            now = self.source.fingerprint()
        except Exception:
            return {}
        if now != portion[0].origin["fingerprint"]:
            return {}
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
        self.con.instance.create_each(make, read, 3 * self._chunk_bytes)
        return outcomes

    def _read(self, array: PlannedArray) -> _Read | None:
        """Read an array; None if that fails."""
        assert array.metadata is not None
        data = data_of(self.source, array)
        try:
            box = tuple(slice(0, n) for n in data.shape)
            fill = np.asarray(array.metadata.fillvalue, array.metadata.dtype)
            stored = data.stored_in(array.metadata.chunk_size, fill) if data.shape else None
            return _Read(array, read_source(data, box), stored is not None)
        except Exception:
            return None

    def _make(self, item: _Read) -> None:
        array, con = item.array, self.con
        assert array.metadata is not None
        with refusing(self.source, array.description.name):
            made = con.create_described(array.target, array.metadata, array.options).instance
        made.continue_creation()
        made.check_writable()
        Load(made, item.values, sparse=item.sparse)(every_chunk(made.metadata.shape, made.grain))
        made.update(lambda m: m.replace(incomplete=False))
