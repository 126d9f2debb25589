"""Histograms of a tree, filled by the engine of its connection, range by range."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dosna.core.progress import Progress, share_of
from dosna.core.sizes import Limit
from dosna.core.types import Array
from dosna.engines.work.boxes import workers_within
from dosna.errors import ConfigurationError, QueryTypeError
from dosna.query.expressions import Lists, Masked, Output, parse
from dosna.query.expressions.nodes import Column, Expr
from dosna.query.query import Query, query
from dosna.query.results import Job
from dosna.serve.trees.histogram import Axis, Extremes, Histogram

if TYPE_CHECKING:
    from dosna.array.connection import EngineConnection

__all__ = ["HistogramRequest", "Variable", "fill_histogram", "flat"]

MOST_BINS = 100_000
"""Bins that a histogram may have, of all axes."""

_MOST_CHOSEN = 100
"""Bins that are chosen for one axis; for each of two, half as many."""

_NAMES = ("x", "y")


@dataclass(frozen=True)
class Variable:
    """A variable that is counted along an axis.

    Parameters
    ----------
    text : str
        The name of a branch, or an expression.
    bins : int, optional
        The number of bins; None to choose them.
    limits : tuple of float, optional
        The lower and the upper edge; None for all values.
    """

    text: str
    bins: int | None = None
    limits: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.bins is not None and not 1 <= self.bins <= MOST_BINS:
            raise ConfigurationError(f"bins must be between 1 and {MOST_BINS}, not {self.bins}")
        if self.limits is not None and not (
            np.isfinite(self.limits).all() and self.limits[0] < self.limits[1]
        ):
            raise ConfigurationError(
                f"limits must be two finite numbers, the smaller one first, not {self.limits}"
            )


@dataclass(frozen=True)
class HistogramRequest:
    """A request for a histogram.

    Parameters
    ----------
    tree : str
        The name of the tree's group.
    variables : tuple of Variable
        One or two variables.
    where : str
        The condition on entries; empty for all.
    start, stop : int, optional
        The range of entries.
    """

    tree: str
    variables: tuple[Variable, ...]
    where: str = ""
    start: int | None = None
    stop: int | None = None


def _query_of(con: EngineConnection, request: HistogramRequest) -> Query:
    """Check a request, and return the query for its values.

    Raises
    ------
    QueryError
        An expression cannot be parsed, or its values cannot be counted.
    """
    from dosna.columns.description import get_tree

    branches = get_tree(con, request.tree).by_name
    outputs = []
    for name, variable in zip(_NAMES, request.variables, strict=False):
        text = variable.text.strip()
        expr: Expr = Column(text) if text in branches else parse(text)
        outputs.append(Output(name, expr))
    found = query(
        con,
        request.tree,
        request.where.strip() or None,
        outputs,
        entry_start=request.start,
        entry_stop=request.stop,
    )
    for variable, values in zip(request.variables, found.nothing().values(), strict=True):
        kind = flat(values).dtype.kind
        if kind not in "biuf":
            raise QueryTypeError(
                f"{variable.text!r} cannot be counted: it has the type "
                f"{getattr(getattr(values, 'type', None), 'content', None) or values.dtype}, "
                "not numbers. Choose a field of the records, or write an expression"
            )
    return found


def fill_histogram(
    con: EngineConnection,
    request: HistogramRequest,
    progress: Progress = None,
    memory_limit: Limit = None,
) -> Histogram:
    """Fill a histogram. Values are read twice if the limits of an axis are not given.

    Parameters
    ----------
    con : Connection
        The connection.
    request : HistogramRequest
        The request.
    progress : callable, optional
        A callback ``(done, total)`` in ranges of entries.
    memory_limit : int or str, optional
        The maximum memory for columns.

    Returns
    -------
    Histogram
        The counts.
    """
    asked = _query_of(con, request)
    job = asked.job(_kept)
    con.runner.agree("fill_histogram", con.identity, request, memory_limit, job.tasks)
    nothing = [flat(values) for values in asked.nothing().values()]
    extremes = [Extremes(values.dtype.kind in "biu") for values in nothing]
    unknown = [v.limits is None for v in request.variables]
    passes = 1 + any(unknown)
    with con.runner.reporting(progress, passes * len(job.tasks), "histogram", "range") as tell:
        share = [share_of(tell, n * len(job.tasks), len(job.tasks)) for n in range(passes)]
        if any(unknown):
            for part in _spread(con, job, Look(job, extremes), share[0], memory_limit):
                for mine, found in zip(extremes, part, strict=True):
                    mine.merge(found)
        most = _MOST_CHOSEN // len(extremes)
        axes = [
            one.axis(v.text, v.bins, most)
            if v.limits is None
            else Axis(v.text, *v.limits, v.bins or _bins_of(v.limits, one.whole, most))
            for v, one in zip(request.variables, extremes, strict=True)
        ]
        if len(axes) > 1 and np.prod([axis.bins for axis in axes]) > MOST_BINS:
            raise ConfigurationError(f"a histogram has at most {MOST_BINS} bins: request fewer")
        total = Histogram(tuple(axes))
        for part in _spread(con, job, Fill(job, tuple(axes)), share[-1], memory_limit):
            total.merge(part)
    return total


def _bins_of(limits: tuple[float, float], whole: bool, most: int) -> int:
    """Choose the number of bins between limits; for integers, at most as many as there are."""
    width = limits[1] - limits[0]
    return int(width) if whole and width.is_integer() and width < most else most


def _spread(
    con: EngineConnection, job: Job, work: Any, progress: Any, memory_limit: Limit
) -> list[Any]:
    workers = workers_within(memory_limit, job.nbytes, "histogram")
    picklable = con.instance.shared_between_processes
    report = None if progress is None else lambda done: progress(done, len(job.tasks))
    return con.runner.spread(work, job.tasks, workers=workers, picklable=picklable, report=report)


def _kept(columns: dict[str, Any], length: int) -> list[Any]:
    return list(columns.values())


@dataclass
class Look:
    """The work of finding the minima and maxima of variables."""

    job: Job
    extremes: list[Extremes]

    def __call__(self, tasks: Iterable[Any]) -> list[Extremes]:
        found = [Extremes(one.whole) for one in self.extremes]
        for task in tasks:
            for rows in self.job.work([task]):
                for one, values in zip(found, rows.values or (), strict=False):
                    one.add(flat(values))
        return found


@dataclass
class Fill:
    """The work of filling a histogram."""

    job: Job
    axes: tuple[Axis, ...]

    def __call__(self, tasks: Iterable[Any]) -> Histogram:
        total = Histogram(self.axes)
        for task in tasks:
            for rows in self.job.work([task]):
                total.selected += rows.kept
                if rows.kept:
                    total.fill(paired(rows.values))
        return total


def flat(values: Any) -> Array:
    """Return the numbers of a column, one after the other; missing ones are left out.

    Raises
    ------
    QueryTypeError
        The column contains records.
    """
    if isinstance(values, np.ndarray):
        return values.reshape(-1)
    if isinstance(values, Lists):
        return values.content
    if isinstance(values, Masked):
        return values.data[values.valid]
    import awkward as ak

    _refuse_records(values)
    return np.asarray(ak.to_numpy(ak.flatten(values, axis=None)))


def _refuse_records(values: Any) -> None:
    import awkward as ak

    fields = ak.fields(values)
    if fields:
        raise QueryTypeError(
            f"records cannot be counted: choose one of their fields, {', '.join(fields[:5])}"
        )


def paired(columns: Sequence[Any]) -> list[Array]:
    """Return the numbers of columns in arrays whose elements correspond to each other.

    A value of an entry is combined with each element of its list, and elements with those at the
    same position.

    Raises
    ------
    QueryTypeError
        Lists of an entry differ in length.
    """
    if len(columns) == 1 or all(isinstance(c, np.ndarray) and c.ndim == 1 for c in columns):
        return [flat(column) for column in columns]
    lists = [column for column in columns if isinstance(column, Lists)]
    others = [column for column in columns if not isinstance(column, Lists)]
    if lists and all(isinstance(c, np.ndarray) and c.ndim == 1 for c in others):
        counts = lists[0].counts
        if any(not np.array_equal(one.counts, counts) for one in lists[1:]):
            raise _unequal()
        return [c.content if isinstance(c, Lists) else np.repeat(c, counts) for c in columns]
    import awkward as ak

    from dosna.query.expressions.values import to_awkward

    arrays = [c if hasattr(c, "layout") else to_awkward(c) for c in columns]
    for array in arrays:
        _refuse_records(array)
    try:
        met = ak.broadcast_arrays(*arrays)
    except ValueError:
        raise _unequal() from None
    # A value that is missing in one is missing in both, and left out.
    return [np.asarray(ak.flatten(one, axis=None)) for one in met]


def _unequal() -> QueryTypeError:
    return QueryTypeError(
        "the lists of an entry differ in length: choose branches of the same objects, or one "
        "element of each, such as x[0]"
    )
