"""Very long lines, reduced to the minimum and maximum of each bin of values.

If a client requests it, a dataset of one axis with more than `MOST_POINTS` numbers appears as a
NeXus group of class NXdata: the points of the line, their positions, a title that explains them,
and parts of the line, which are such groups themselves. In an NXdata group of the user, the
dataset remains a dataset and only has fewer points.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dosna.backends.base import BackendDataset
from dosna.core.plan import ChunkTask, every_chunk
from dosna.core.types import Array
from dosna.engines.work.boxes import Placed, read_box
from dosna.engines.work.flow import Flow, Overlapping
from dosna.serve.h5grove.attributes import described
from dosna.serve.h5grove.values import shown, shown_dtype, type_of

if TYPE_CHECKING:
    from dosna.array.dataset import EngineDataset

__all__ = ["MOST_POINTS", "Line", "LinePoints", "Shortened", "is_long", "split_path"]

MOST_POINTS = 200_000
"""The maximum length of a line that is sent completely; browsers need seconds for a million."""

_BINS = 1 << 14
_PARTS = 16
_BLOCK_BYTES = 4 << 20

_MEMBER = re.compile(
    r"(?P<base>.+?)(?:/\[(?P<start>\d{1,18}):(?P<stop>\d{1,18})\])*"
    r"(?:/(?P<points>line|index|title))?"
)


def is_long(dataset: EngineDataset) -> bool:
    """Return True for a line with more numbers than a page draws."""
    return (
        dataset.ndim == 1
        and dataset.size > MOST_POINTS
        and dataset.dtype.kind in "iufm"
        and dataset.dtype.itemsize <= 8
    )


def split_path(path: str) -> tuple[str, tuple[int, int] | None, str | None] | None:
    """Split the path of a part of a long line, or of its points, which is not that of a dataset.

    Returns
    -------
    tuple or None
        The name of the dataset; start and stop of the part, or None for the whole line; 'line',
        'index' or 'title', or None for the group. None for a path of another form.
    """
    found = _MEMBER.fullmatch(path)
    if found is None or found["base"] == path:
        return None
    part = None if found["start"] is None else (int(found["start"]), int(found["stop"]))
    return found["base"], part, found["points"]


@dataclass(frozen=True)
class Line:
    """A part of a long line.

    Parameters
    ----------
    dataset : EngineDataset
        The dataset, of one axis.
    start, stop : int
        The range of the part.
    """

    dataset: EngineDataset
    start: int
    stop: int

    @classmethod
    def of(cls, dataset: EngineDataset, part: tuple[int, int] | None = None) -> Line:
        """Return the line of a dataset, or a part of it, limited to the dataset."""
        start, stop, _ = slice(*(part or (0, dataset.size))).indices(dataset.size)
        return cls(dataset, start, max(start, stop))

    @property
    def step(self) -> int:
        """The number of values that two points represent; 1 if each value has its own point."""
        count = self.stop - self.start
        return 1 if count <= MOST_POINTS else -(-count // _BINS)

    @property
    def points(self) -> int:
        """The number of points: two for each `step` of values."""
        count = self.stop - self.start
        return count if self.step == 1 else 2 * -(-count // self.step)

    @property
    def _block(self) -> int:
        """The values that are read at a time."""
        chunk = self.dataset.instance.grain[0]
        return max(1, _BLOCK_BYTES // self.dataset.dtype.itemsize // chunk) * chunk

    @property
    def held_bytes(self) -> int:
        """The memory for the values while their extremes are found."""
        return 2 * self._block * self.dataset.dtype.itemsize

    @property
    def label(self) -> str:
        """The label of the values, as in NeXus."""
        attrs, name = self.dataset.attrs, self.dataset.name.rpartition("/")[2]
        if isinstance(attrs.get("long_name"), str):
            return str(attrs["long_name"])
        return f"{name} ({attrs['units']})" if isinstance(attrs.get("units"), str) else name

    @property
    def title(self) -> str:
        """A text that explains the points."""
        name = self.dataset.name.rpartition("/")[2]
        count = self.stop - self.start
        shown = f"{count} values"
        if count < self.dataset.size:
            shown = f"values {self.start} to {self.stop} of {self.dataset.size}"
        if self.step > 1:
            shown = f"least and greatest of each {self.step} of {shown}"
        return f"{name}: {shown}"

    def index(self) -> Array:
        """Return the positions of the points in the dataset."""
        if self.step == 1:
            return np.arange(self.start, self.stop, dtype=float)
        starts = np.arange(self.start, self.stop, self.step, dtype=float)
        ends = np.minimum(starts + self.step, self.stop)
        return np.stack([starts, (starts + ends) / 2], axis=1).reshape(-1)

    def values(self) -> Array:
        """Return the values of the points: alternately the minimum and the maximum of each bin."""
        dataset, dtype = self.dataset, shown_dtype(self.dataset.dtype)
        if self.step == 1:
            return shown(np.asarray(dataset[self.start : self.stop]))
        dataset.connection.check_connected()
        dataset.note_reading()
        block = self._block
        work = _Extremes(dataset.instance, self.start, self.stop, self.step)
        tasks = every_chunk(dataset.shape, (block,)).between(
            self.start // block, -(-self.stop // block)
        )
        least, most = _neutral(self.points // 2, dtype)
        for parts in dataset.spread("line", work, self.held_bytes, None, None, tasks=tasks):
            for first, low, high in parts:
                bins = slice(first, first + len(low))
                np.fmin(least[bins], low, out=least[bins])
                np.fmax(most[bins], high, out=most[bins])
        pairs = np.stack([least, most], axis=1)
        ends = shown(np.asarray(dataset[[self.start, self.stop - 1]]))
        if ends[0] > ends[1]:
            pairs = pairs[:, ::-1]  # so that a decreasing axis stays monotone
        return pairs.reshape(-1).astype(dtype, copy=False)

    def meta(self, name: str, children: bool) -> dict[str, Any]:
        """Return the description of the NXdata group that shows the line.

        Parameters
        ----------
        name : str
            The name of the group.
        children : bool
            Whether to include its members.
        """
        attributes = described(self.attrs())
        found: dict[str, Any] = {"name": name, "kind": "group", "attributes": attributes}
        if children:
            points = [LinePoints(self, kind).meta(kind) for kind in ("line", "index", "title")]
            found["children"] = [
                *points,
                *(part.meta(text, False) for text, part in self._parts()),
            ]
        return found

    def attrs(self) -> dict[str, Any]:
        """Return the attributes of that group: those of the dataset, and those of NXdata."""
        return {**self.dataset.attrs, "NX_class": "NXdata", "signal": "line", "axes": ["index"]}

    def _parts(self) -> Iterator[tuple[str, Line]]:
        if self.step == 1:
            return
        count = -(-(self.stop - self.start) // _PARTS)
        for start in range(self.start, self.stop, count):
            stop = min(start + count, self.stop)
            yield f"[{start}:{stop}]", Line(self.dataset, start, stop)


@dataclass(frozen=True)
class LinePoints:
    """A dataset that shows a line: its points, their positions, or the title.

    Parameters
    ----------
    line : Line
        The line.
    kind : {'line', 'index', 'title'}
        The part that is shown.
    """

    line: Line
    kind: str

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the values."""
        if self.kind == "line":
            return shown_dtype(self.line.dataset.dtype)
        return np.dtype("f8") if self.kind == "index" else np.dtype("U1")

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the values."""
        return () if self.kind == "title" else (self.line.points,)

    def attrs(self) -> dict[str, Any]:
        """Return the attributes, which label a plot."""
        if self.kind != "line":
            return {}
        attrs = self.line.dataset.attrs
        return {"long_name": self.line.label} | {k: attrs[k] for k in ("units",) if k in attrs}

    def meta(self, name: str) -> dict[str, Any]:
        """Return the description of the dataset."""
        return _shown(name, self.shape, self.dtype, self.attrs())

    def values(self) -> Any:
        """Return the values."""
        if self.kind == "title":
            return self.line.title
        return self.line.index() if self.kind == "index" else self.line.values()


@dataclass(frozen=True)
class Shortened:
    """A long line that remains a dataset, because its NXdata group needs one.

    Parameters
    ----------
    line : Line
        The line.
    """

    line: Line

    def attrs(self) -> dict[str, Any]:
        """Return the attributes of the dataset, with a label that explains the points."""
        label = f"{self.line.label}: least and greatest of each {self.line.step}"
        return {**self.line.dataset.attrs, "long_name": label}

    def meta(self, name: str) -> dict[str, Any]:
        """Return the description of the dataset."""
        dtype = shown_dtype(self.line.dataset.dtype)
        return _shown(name, (self.line.points,), dtype, self.attrs())


def _shown(
    name: str, shape: tuple[int, ...], dtype: np.dtype[Any], attrs: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "name": name,
        "kind": "dataset",
        "shape": shape,
        "type": type_of(dtype),
        "chunks": None,
        "filters": None,
        "attributes": described(attrs),
    }


def _neutral(count: int, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Return neutral elements of the minimum and the maximum; NaN if there are none."""
    dtype = dtype.newbyteorder("=")
    if dtype.kind == "f":
        return np.full(count, np.nan, dtype), np.full(count, np.nan, dtype)
    bounds = np.iinfo(dtype)
    return np.full(count, bounds.max, dtype), np.full(count, bounds.min, dtype)


@dataclass
class _Extremes(Overlapping, Placed):
    """The work of finding extremes, which returns the first bin and the extremes of each box."""

    dataset: BackendDataset
    start: int
    stop: int
    step: int

    def __call__(self, tasks: Iterable[ChunkTask]) -> list[tuple[int, Array, Array]]:
        found = []
        with Flow(ahead=self.overlaps) as flow:
            for task, block in flow.read(self._read, tasks):
                begin = max(task.out[0].start, self.start)
                end = min(task.out[0].stop, self.stop)
                values = block[begin - task.out[0].start : end - task.out[0].start]
                first = (begin - self.start) // self.step
                edges = self.start + self.step * np.arange(
                    first, -(-(end - self.start) // self.step)
                )
                edges = np.maximum(edges - begin, 0)
                found.append(
                    (first, np.fmin.reduceat(values, edges), np.fmax.reduceat(values, edges))
                )
        return found

    def _read(self, task: ChunkTask) -> Array:
        return shown(read_box(self.dataset, task.out))
