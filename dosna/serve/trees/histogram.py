"""Histograms of one or two variables: axes, counts, and their exchange format.

Bins are filled as by Boost.Histogram (`hist`): they include their lower edge and exclude the upper
one, and NaN counts as overflow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import dosna
from dosna.core.types import Array

__all__ = ["Axis", "Extremes", "Histogram", "Moments"]

_BINS = 100
"""Bins of an axis that nothing is asked of, at most."""


_ROUND = (1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8)

_TOGETHER = 1 << 16
"""Values that are counted at a time: what is computed of them stays in the processor's cache."""


@dataclass(frozen=True)
class Axis:
    """Bins of equal width.

    Parameters
    ----------
    label : str
        The variable that is counted.
    lower, upper : float
        The lower edge of the first bin, and the upper one of the last.
    bins : int
        The number of bins.
    """

    label: str
    lower: float
    upper: float
    bins: int

    def find(self, values: Array) -> Array:
        """Return the number of the bin of each value; 0 is underflow."""
        with np.errstate(invalid="ignore", over="ignore"):
            part = (values - self.lower) / (self.upper - self.lower)
            found = np.full(len(part), self.bins + 1, np.int64)
            inside = (part >= 0) & (part < 1)
            # Rounding may move a value that is just below the upper edge.
            numbers = (part[inside] * self.bins).astype(np.int64)
            found[inside] = np.minimum(numbers, self.bins - 1) + 1
            found[part < 0] = 0
        return found

    def to_uhi(self) -> dict[str, Any]:
        """Return the axis in UHI's JSON."""
        return {
            "type": "regular",
            "lower": self.lower,
            "upper": self.upper,
            "bins": self.bins,
            "underflow": True,
            "overflow": True,
            "circular": False,
            "metadata": {"label": self.label},
        }


@dataclass
class Extremes:
    """The minimum and the maximum of finite values.

    Parameters
    ----------
    whole : bool
        True for integers and Booleans.
    """

    whole: bool = False
    least: float = math.inf
    most: float = -math.inf

    def add(self, values: Array) -> None:
        """Take values into account."""
        if values.dtype.kind == "f":
            values = values[np.isfinite(values)]
        if len(values):
            self.least = min(self.least, float(values.min()))
            self.most = max(self.most, float(values.max()))

    def merge(self, other: Extremes) -> None:
        """Take the values of another range into account."""
        self.least, self.most = min(self.least, other.least), max(self.most, other.most)

    def axis(self, label: str, bins: int | None = None, most: int = _BINS) -> Axis:
        """Choose bins that contain all values.

        Parameters
        ----------
        label : str
            The variable that is counted.
        bins : int, optional
            The number of bins. By default there are up to `most`, with round edges; for integers,
            each contains the same number of them.
        most : int
            The maximum of the default.
        """
        low, high = self.least, self.most
        if low > high:
            return Axis(label, 0.0, 1.0, bins or 1)
        most = bins or most
        if self.whole and max(-low, high) < 1 << 52:
            width = math.ceil((high - low + 1) / most)
            count = bins or math.ceil((high - low + 1) / width)
            return Axis(label, low - 0.5, low - 0.5 + width * count, count)
        if not math.isfinite(high - low):
            # The difference of the largest numbers is infinite.
            return Axis(label, low / 2, high / 2, most)
        if low == high:
            half = max(0.5, abs(low) / 2)
            return Axis(label, low - half, low + half, most)
        if bins is not None:
            return Axis(label, low, _above(low, high), bins)
        step = _round_step((high - low) / most)
        if not step:
            return Axis(label, low, _above(low, high), most)
        first, last = math.floor(low / step), math.floor(high / step) + 1
        lower, upper = first * step, last * step
        if not lower <= low < high < upper:  # the step is too small for such large numbers
            return Axis(label, low, _above(low, high), most)
        return Axis(label, lower, upper, last - first)


def _above(low: float, high: float) -> float:
    """Return an upper edge for which `Axis` finds the largest value in the last bin."""
    more = 0.0
    upper = math.nextafter(high, math.inf)
    while (high - low) / (upper - low) >= 1:
        more = 2 * more or upper - high
        upper = high + more
    return upper


def _round_step(step: float) -> float:
    """Return the next larger round number times a power of ten."""
    if step < 1e-300:
        return 0.0
    power = math.floor(math.log10(step))
    ten = 10.0**power
    found = next((m * ten for m in _ROUND if m * ten >= step), 10.0 * ten)
    return float(f"{found:.6g}")


@dataclass
class Moments:
    """Number, mean and spread of values that are added in parts."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    """Sum of the squares of distances from the mean."""

    @classmethod
    def of(cls, values: Array) -> Moments:
        """Return the moments of values."""
        if not len(values):
            return cls()
        # The moments of very large values are infinite.
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float(values.mean())
            return cls(len(values), mean, float(np.square(values - mean).sum()))

    def merge(self, other: Moments) -> None:
        """Add the values of another part (Chan, Golub, LeVeque 1979)."""
        count = self.count + other.count
        if not count:
            return
        step = other.mean - self.mean
        self.squares += other.squares + step * step * self.count * other.count / count
        self.mean += step * other.count / count
        self.count = count

    @property
    def deviation(self) -> float:
        """Standard deviation."""
        return math.sqrt(self.squares / self.count) if self.count else 0.0


@dataclass
class Histogram:
    """Counts of one or two variables in bins, with underflow and overflow.

    Parameters
    ----------
    axes : tuple of Axis
        The axes.
    """

    axes: tuple[Axis, ...]
    counts: Array = field(init=False)
    entries: int = 0
    """Values, or pairs of values, that were counted."""
    nan: int = 0
    """Those of them that are not a number."""
    selected: int = 0
    """Entries of the tree that were selected."""
    moments: list[Moments] = field(init=False)
    """Moments of the values inside of all axes."""

    def __post_init__(self) -> None:
        self.counts = np.zeros([axis.bins + 2 for axis in self.axes], np.int64)
        self.moments = [Moments() for _ in self.axes]

    def fill(self, columns: Sequence[Array]) -> None:
        """Count values; with two axes, pairs of values."""
        for start in range(0, len(columns[0]), _TOGETHER):
            self._fill([column[start : start + _TOGETHER] for column in columns])

    def _fill(self, columns: Sequence[Array]) -> None:
        columns = [np.asarray(column, np.float64) for column in columns]
        found = [axis.find(column) for axis, column in zip(self.axes, columns, strict=True)]
        place, inside = np.zeros(len(columns[0]), np.int64), np.ones(len(columns[0]), bool)
        for axis, numbers in zip(self.axes, found, strict=True):
            place = place * (axis.bins + 2) + numbers
            inside &= (numbers > 0) & (numbers <= axis.bins)
        counts = np.bincount(place, minlength=self.counts.size)
        self.counts += counts.reshape(self.counts.shape)
        self.entries += len(place)
        self.nan += int(np.logical_or.reduce([np.isnan(column) for column in columns]).sum())
        for moments, column in zip(self.moments, columns, strict=True):
            moments.merge(Moments.of(column[inside]))

    def merge(self, other: Histogram) -> None:
        """Add the counts of another range."""
        self.counts += other.counts
        self.entries += other.entries
        self.nan += other.nan
        self.selected += other.selected
        for mine, its in zip(self.moments, other.moments, strict=True):
            mine.merge(its)

    @property
    def statistics(self) -> dict[str, float | int]:
        """The statistics that are shown beside the picture."""
        found: dict[str, float | int] = {
            "entries": self.entries,
            "selected": self.selected,
            "nan": self.nan,
        }
        for name, moments in zip("xy", self.moments, strict=False):
            found |= {f"{name}_mean": moments.mean, f"{name}_std": moments.deviation}
        inside = self.counts[(slice(1, -1),) * self.counts.ndim].sum()
        found["inside"] = int(inside)
        if len(self.axes) == 1:
            found |= {"underflow": int(self.counts[0]), "overflow": int(self.counts[-1])}
        return found

    def to_uhi(self) -> dict[str, Any]:
        """Return the histogram in UHI's JSON, which `hist` and Boost.Histogram read."""
        return {
            "uhi_schema": 1,
            "writer_info": {"dosna": {"version": dosna.__version__}},
            "metadata": {
                name: value if math.isfinite(value) else str(value)
                for name, value in self.statistics.items()
            },
            "axes": [axis.to_uhi() for axis in self.axes],
            "storage": {"type": "int", "values": self.counts.tolist()},
        }
