"""Zones: the least and the greatest value of each chunk of rows, by which queries pass over them.

The zones of a dataset are kept in its metadata. Each says of which state of its stored object it
is, so that what was written to afterwards is noticed; see `BackendDataset.versions`.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dosna.core.types import Array, Shape
from dosna.core.values import decode_dtype, encode_dtype

__all__ = ["Zone", "ZoneMaker", "Zones", "can_have_zones", "object_mark"]

ZONES_VERSION = 1

_MOST_ZONES = 1 << 15
"""Most chunks of a dataset that has zones: those of so many take about a megabyte."""

_UNKNOWN = -1


def can_have_zones(shape: Shape, chunk_size: Shape, dtype: np.dtype[Any]) -> bool:
    """Return True if chunks are whole rows of numbers, and not too many."""
    return (
        dtype.kind in "biuf"
        and len(shape) > 0
        and all(0 < n <= c for n, c in zip(shape[1:], chunk_size[1:], strict=True))
        and shape[0] <= _MOST_ZONES * chunk_size[0]
    )


@functools.lru_cache(1 << 14)  # each query looks at the same objects again: 5 % of a short one
def object_mark(version: str | None) -> int:
    """Return 64 bits that stand for the version of a stored object; 0 if it is not known."""
    if version is None:
        return 0
    import hashlib

    return int.from_bytes(hashlib.blake2b(version.encode(), digest_size=8).digest(), "big") or 1


@dataclass(frozen=True)
class Zones:
    """The zones of a dataset: a value of each array for each chunk along the first axis.

    Parameters
    ----------
    chunk : int
        The number of rows of a chunk.
    length : int
        The number of rows that the dataset had.
    least, most : ndarray
        The least and the greatest value, in the dtype of the dataset; NaN if all values are NaN.
    nans : ndarray
        The number of values that are NaN; -1 for a chunk that is not known.
    objects : ndarray
        The `object_mark` of each stored object along the first axis.
    steps : ndarray, optional
        The least and the greatest difference between neighbouring rows, if they are offsets.
    """

    chunk: int
    length: int
    least: Array
    most: Array
    nans: Array
    objects: Array
    steps: Array | None = None

    @property
    def known(self) -> Array:
        """True for each chunk that is known."""
        found: Array = self.nans != _UNKNOWN
        return found

    def fits(self, shape: Shape, chunk_size: Shape, dtype: np.dtype[Any]) -> Array:
        """Return for each chunk whether it still has the rows that it had; False for new ones."""
        found = np.zeros(-(-shape[0] // chunk_size[0]), bool)
        if self.least.dtype == dtype and self.chunk == chunk_size[0]:
            # The last chunk counts only if it still ends where it ended.
            whole = min(self.length, shape[0]) // self.chunk
            count = len(self.nans) if self.length == shape[0] else whole
            found[:count] = self.known[:count]
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form that `from_json` reads."""
        found: dict[str, Any] = {
            "version": ZONES_VERSION,
            "dtype": encode_dtype(self.least.dtype),
            "chunk": self.chunk,
            "length": self.length,
        }
        arrays = {"least": self.least, "most": self.most, "objects": self.objects}
        if self.nans.any():
            arrays["nans"] = self.nans
        if self.steps is not None:
            arrays["steps"] = self.steps
        return found | {name: _text(array) for name, array in arrays.items()}

    @classmethod
    def from_json(cls, found: Mapping[str, Any] | None) -> Zones | None:
        """Read the JSON form; None if it is absent, of another version, or broken."""
        if found is None or found.get("version") != ZONES_VERSION:
            return None
        try:
            dtype = decode_dtype(found["dtype"])
            chunk, length = int(found["chunk"]), int(found["length"])
            least, most = _array(found["least"], dtype), _array(found["most"], dtype)
            objects = _array(found["objects"], np.dtype(np.uint64))
            nans = np.zeros(len(least), np.int64)
            if "nans" in found:
                nans = _array(found["nans"], nans.dtype)
            steps = None
            if "steps" in found:
                steps = _array(found["steps"], np.dtype(np.int64)).reshape(-1, 2)
            sizes = {len(least), len(most), len(nans), -(-length // chunk)}
            if len(sizes) > 1 or (steps is not None and len(steps) != len(least)):
                return None
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            return None
        return cls(chunk, length, least, most, nans, objects, steps)


def _text(array: Array) -> str:
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return base64.b64encode(little.tobytes()).decode("ascii")


def _array(text: str, dtype: np.dtype[Any]) -> Array:
    found = np.frombuffer(base64.b64decode(text, validate=True), dtype.newbyteorder("<"))
    return found.astype(dtype, copy=False)


@dataclass
class Zone:
    """The zone of a chunk: of its rows before `stop`.

    `mark` is the `object_mark` of the stored object when it was written; 0 if that is not known.
    """

    stop: int
    least: Any
    most: Any
    nans: int
    steps: tuple[int, int] | None = None
    last: Any = None
    mark: int = 0


@dataclass
class ZoneMaker:
    """A maker of zones, from the rows of a dataset as they are written or read.

    Chunks whose rows do not come in order, from the first to the last, get no zone.

    Parameters
    ----------
    chunk : int
        The number of rows of a chunk.
    is_offsets : bool
        Whether the rows are offsets, so that their differences count.
    """

    chunk: int
    is_offsets: bool = False
    found: dict[int, Zone] = field(default_factory=dict)
    _memory: Array | None = field(default=None, init=False, repr=False)

    def add(self, start: int, rows: Array) -> None:
        """Take rows from `start` on."""
        stop = start + len(rows)
        while start < stop:
            number = start // self.chunk
            end = min(stop, (number + 1) * self.chunk)
            self._add(number, start, rows[: end - start])
            rows, start = rows[end - start :], end

    def _add(self, number: int, start: int, rows: Array) -> None:
        steps = self._steps(rows) if self.is_offsets else None
        if steps is not None and steps[0] >= 0:
            least, most, nans = rows[0], rows[-1], 0
        else:
            least, most, nans = _extremes(rows)
        zone = Zone(start + len(rows), least, most, nans, steps)
        if self.is_offsets:
            zone.last = rows[-1]
        if start > number * self.chunk:
            before = self.found.pop(number, None)
            if before is None or before.stop != start:
                return
            _join(zone, before, rows[0])
        self.found[number] = zone

    def _steps(self, rows: Array) -> tuple[int, int] | None:
        if len(rows) < 2:
            return None
        if self._memory is None or len(self._memory) < len(rows) - 1:
            # Memory that was used before costs less than fresh memory, by half.
            self._memory = np.empty(len(rows) - 1, rows.dtype)
        differences = np.subtract(rows[1:], rows[:-1], out=self._memory[: len(rows) - 1])
        return int(differences.min()), int(differences.max())

    def update(self, others: Iterable[Mapping[int, Zone]]) -> None:
        """Take what others have found."""
        for found in others:
            self.found.update(found)

    def zones(self, length: int, dtype: np.dtype[Any], objects: Array) -> Zones:
        """Return the zones of a dataset.

        Parameters
        ----------
        length : int
            The number of rows of the dataset.
        dtype : numpy.dtype
            The dtype of the dataset.
        objects : ndarray
            The `object_mark` of each stored object along the first axis.
        """
        count = -(-length // self.chunk)
        least, most = np.zeros(count, dtype), np.zeros(count, dtype)
        nans = np.full(count, _UNKNOWN, np.int64)
        steps = np.zeros((count, 2), np.int64) if self.is_offsets else None
        for number, zone in self.found.items():
            if number < count and zone.stop == min(length, (number + 1) * self.chunk):
                least[number], most[number], nans[number] = zone.least, zone.most, zone.nans
                if steps is not None:
                    steps[number] = zone.steps or (0, 0)
        return Zones(self.chunk, length, least, most, nans, objects, steps)


def _extremes(rows: Array) -> tuple[Any, Any, int]:
    with np.errstate(invalid="ignore"):
        least, most = rows.min(), rows.max()
    if rows.dtype.kind != "f" or not np.isnan(least):
        return least, most, 0
    good = rows[~np.isnan(rows)]
    nans = rows.size - good.size
    return (good.min(), good.max(), nans) if good.size else (least, least, nans)


def _join(zone: Zone, before: Zone, first: Any) -> None:
    """Add what is known of the rows before to a zone whose first row is `first`."""
    zone.nans += before.nans
    if before.least == before.least:  # it is not NaN
        known = zone.least == zone.least
        zone.least = min(zone.least, before.least) if known else before.least
        zone.most = max(zone.most, before.most) if known else before.most
    if before.last is not None:
        step = int(first - before.last)
        steps = [s for pair in (before.steps, zone.steps, (step, step)) if pair for s in pair]
        zone.steps = min(steps), max(steps)
