"""Creating a pyramid: one level after the other, and finally the description."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from inspect import signature
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from dosna.core.metadata import new_metadata
from dosna.core.options import check_choice
from dosna.core.progress import Progress, share_of
from dosna.core.sizes import Limit, parse_size
from dosna.core.types import Shape
from dosna.core.values import decode_attrs, encode_attrs
from dosna.engines.work.boxes import bytes_of, count_of
from dosna.errors import (
    ConfigurationError,
    DatasetExistsError,
    DatasetNotFoundError,
    DosnaError,
)
from dosna.pyramid.multiscales import (
    axes_of,
    entry_of,
    group_of,
    level_name,
    levels_of,
    with_entry,
)
from dosna.pyramid.shrinking import METHODS, Spans
from dosna.pyramid.work import HELD, Shrink, piece_of

if TYPE_CHECKING:
    from dosna.array.connection import EngineConnection
    from dosna.array.dataset import EngineDataset

__all__ = ["LEAST", "Plan", "PyramidRequest", "pyramid"]

_ORIGIN = "pyramid"

_MOST = 64
"""The most levels: no array has an axis of 2⁶⁴ elements to make smaller."""
LEAST = 64
"""An axis that is no longer is not made smaller, unless the number of levels is given."""


@dataclass(frozen=True)
class PyramidRequest:
    """The parameters of `EngineDataset.pyramid`."""

    levels: int | None = None
    method: str = "mean"
    factor: int | Sequence[int] = 2
    axes: Sequence[str] | None = None
    scale: float | Sequence[float] = 1.0
    unit: str | None = None
    overwrite: bool = False
    progress: Progress = None
    memory_limit: Limit = None


@dataclass(frozen=True)
class Plan:
    """A level to be created.

    Parameters
    ----------
    shape : tuple of int
        The shape of the level.
    factors : tuple of int
        The number of elements of the previous level that become one, for each axis.
    spans : tuple of Spans
        The numbers of original elements that those of the previous level represent.
    """

    shape: Shape
    factors: Shape
    spans: tuple[Spans, ...]

    @property
    def span(self) -> Shape:
        """The numbers of original elements for one element of this level."""
        return tuple(s.each * f for s, f in zip(self.spans, self.factors, strict=True))


def pyramid(dataset: EngineDataset, **parameters: Any) -> list[EngineDataset]:
    """Run `EngineDataset.pyramid`."""
    request = PyramidRequest(**parameters)
    con, name = _connection(dataset), dataset.name
    con.check_writable()
    axes, factors, scale = _checked(dataset, request)
    plans = planned(dataset.shape, factors, request.levels)
    dataset.note_reading()
    group, own = group_of(name)
    left = con.runner.once(lambda: _in_the_way(dataset, request.overwrite))
    _describe(con, group, own, None)
    con.runner.once(lambda: _delete(con, left))
    spans = [(1,) * dataset.ndim, *(plan.span for plan in plans)]
    entry = entry_of(own, axes, spans, scale, request.method)
    made: list[EngineDataset] = []
    try:
        for level, plan in enumerate(plans, 1):
            made.append(_created(dataset, level, plan, axes, request.method))
        _fill(dataset, made, plans, request)
        for level_made in made:
            level_made.mark_complete()
        _describe(con, group, own, entry)
    except BaseException:
        with suppress(DosnaError):
            _describe(con, group, own, None)  # It may have been written although that failed.
        for level_made in made:
            con.discard(level_made)
        raise
    return made


def _connection(dataset: EngineDataset) -> EngineConnection:
    con: Any = dataset.connection
    return con  # type: ignore[no-any-return]


def planned(shape: Shape, factors: Shape, levels: int | None) -> list[Plan]:
    """Plan the levels of an array.

    Parameters
    ----------
    shape : tuple of int
        The shape of the array.
    factors : tuple of int
        The number of elements that become one from level to level, for each axis.
    levels : int, optional
        The number of levels; by default until no axis is longer than `LEAST`.
    """
    least = LEAST if levels is None else 1
    now, each = shape, (1,) * len(shape)
    plans: list[Plan] = []
    while len(plans) != levels:
        chosen = tuple(f if n > least else 1 for n, f in zip(now, factors, strict=True))
        if levels is None and all(f == 1 for f in chosen):
            break
        # The last element represents fewer if the previous level ends within its cell.
        spans = tuple(
            Spans(e, n - e * (m - 1) if m else e) for e, n, m in zip(each, shape, now, strict=True)
        )
        now = tuple(-(-n // f) for n, f in zip(now, chosen, strict=True))
        plans.append(Plan(now, chosen, spans))
        each = plans[-1].span
    return plans


def _checked(
    dataset: EngineDataset, request: PyramidRequest
) -> tuple[list[dict[str, Any]], Shape, list[float]]:
    """Check the parameters; return axes, factors and scales of the dataset's axes."""
    what, ndim = f"dataset {dataset.name!r}", dataset.ndim
    if dataset.dtype.kind not in "biufc":
        raise TypeError(f"{what} has dtype {dataset.dtype}: only numbers can have a pyramid")
    check_choice("method", request.method, tuple(METHODS))
    if request.method == "mean" and dataset.dtype.kind == "b":
        raise TypeError(f"{what} has dtype bool, which has no mean: use method='mode' or 'stride'")
    levels = request.levels
    if levels is not None and not (isinstance(levels, (int, np.integer)) and 0 <= levels <= _MOST):
        raise ConfigurationError(f"levels must be an integer from 0 to {_MOST}, not {levels}")
    if not dataset.connection.instance.keeps_groups:
        raise ConfigurationError(
            f"connection {dataset.connection.name!r} has no attributes of groups, which "
            "pyramids need: with s3, use a connection with bucket="
        )
    names = request.axes
    if names is None and dataset.dims is not None and all(dataset.dims):
        names = [str(name) for name in dataset.dims]
    axes = axes_of(dataset.shape, names, request.unit, what)
    space = [axis["type"] == "space" for axis in axes]
    factor, scale = request.factor, request.scale
    factors = list(factor) if isinstance(factor, Iterable) else [factor if s else 1 for s in space]
    scales = list(scale) if isinstance(scale, Iterable) else [scale if s else 1 for s in space]
    whole = all(isinstance(f, (int, np.integer)) and 1 <= f < 1 << 31 for f in factors)
    if len(factors) != ndim or not whole:
        raise ConfigurationError(
            f"factor must be one integer, or one for each of {ndim} axes, not {factor}"
        )
    if max(factors) == 1:
        raise ConfigurationError(f"factor {factor} reduces no axis: use 2 or more")
    if len(scales) != ndim or not all(_is_length(s) for s in scales):
        raise ConfigurationError(
            f"scale must be one positive number, or one for each of {ndim} axes, not {scale}"
        )
    return axes, tuple(int(f) for f in factors), [float(s) for s in scales]


def _is_length(value: object) -> bool:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return False
    return isfinite(number) and number > 0


def _in_the_way(dataset: EngineDataset, overwrite: bool) -> list[str]:
    """Return the existing levels of `dataset` that have to be deleted, or raise an error.

    An interrupted call has left them, or they are replaced because of `overwrite`.
    """
    con, name = _connection(dataset), dataset.name
    group, own = group_of(name)
    with_entry(con.get_group_attrs(group), own, None, group)
    there = levels_of(con, name)
    if there is not None and not overwrite:
        raise DatasetExistsError(
            f"dataset {name!r} already has a pyramid of {len(there.names) - 1} levels: use "
            "overwrite=True to replace it"
        )
    listed = there.names[1:] if there is not None else []
    found = {one for one in listed if one in con} | {*con.names_in(level_name(name, 1)[:-2])}
    for level in sorted(found):
        if (con[level].origin or {}).get(_ORIGIN) != name:
            raise DatasetExistsError(
                f"dataset {level!r} has the name of a level of {name!r}, or is listed as one, but "
                "was not created by pyramid: rename it, or delete it first"
            )
    return sorted(found)


def _delete(con: EngineConnection, names: Sequence[str]) -> None:
    for name in names:
        with suppress(DatasetNotFoundError):
            con.instance.del_dataset(name)


def _describe(
    con: EngineConnection, group: str, own: str, entry: Mapping[str, Any] | None
) -> None:
    """Write or remove the description of a dataset's levels in its group; collective.

    Others may be describing other datasets of the group at the same time.
    """

    def described(attrs: Mapping[str, Any]) -> dict[str, Any]:
        return encode_attrs(with_entry(decode_attrs(attrs), own, entry, group))

    def describe() -> None:
        before = con.get_group_attrs(group)
        if with_entry(before, own, entry, group) != before:
            name = con.instance.check_name(group) if group else ""
            con.instance.change_group_attrs(name, described)

    con.runner.once(describe)


def _created(
    dataset: EngineDataset, level: int, plan: Plan, axes: list[dict[str, Any]], method: str
) -> EngineDataset:
    """Create a level with the chunks and the storage options of the dataset; collective."""
    con, like = _connection(dataset), dataset.instance.metadata
    chunks = tuple(max(1, min(c, n)) for c, n in zip(like.chunk_size, plan.shape, strict=True))
    options = dict(dataset.instance.create_options)
    if options.get("shards") is not None:
        options["shards"] = tuple(
            c * min(s // own, max(1, -(-n // c)))
            for c, s, own, n in zip(
                chunks, options["shards"], like.chunk_size, plan.shape, strict=True
            )
        )
    if "dims" in signature(con.instance.create_dataset).parameters:
        options["dims"] = [axis["name"] for axis in axes]
    metadata = new_metadata(plan.shape, like.dtype, like.fillvalue, chunks)
    origin = {_ORIGIN: dataset.name, "level": level, "method": method}
    metadata = metadata.replace(incomplete=True, origin=origin)
    return con.create_described(level_name(dataset.name, level), metadata, options)


def _fill(
    dataset: EngineDataset,
    made: Sequence[EngineDataset],
    plans: Sequence[Plan],
    request: PyramidRequest,
) -> None:
    """Write the levels, each from the previous one."""
    counts = [count_of(level.shape, level.instance.grain) for level in made]
    runner, before, share = dataset.runner, 0, None
    if request.memory_limit is not None:
        share = parse_size(request.memory_limit) // runner.sharers
    with runner.reporting(request.progress, sum(counts), "pyramid") as tell:
        source = dataset.instance
        for level, plan, count in zip(made, plans, counts, strict=True):
            target, itemsize = level.instance, level.dtype.itemsize
            extent = level.shape if target.remote else target.grain
            piece = piece_of(level.chunk_size, extent, plan.factors, itemsize, share)
            work = Shrink(source, target, plan.factors, request.method, plan.spans, piece)
            read = [p * f for p, f in zip(piece, plan.factors, strict=True)]
            held = HELD * bytes_of(read, itemsize) + 2 * bytes_of(target.grain, itemsize)
            progress = share_of(tell, before, count)
            level.spread("pyramid", work, held, progress, request.memory_limit)
            source, before = target, before + count
