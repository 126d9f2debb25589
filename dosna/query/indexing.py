"""Zones for trees that have none: each chunk is read once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dosna.backends.dataset import BackendDataset
from dosna.backends.zones import has_room, known_zones, marks_of, recorded, unchanged
from dosna.columns.description import get_tree
from dosna.core.progress import Progress
from dosna.core.zones import Zone, ZoneMaker
from dosna.query.branches import BranchColumn, column_of
from dosna.query.remote import Remote, remote_of
from dosna.query.rows import read_rows

if TYPE_CHECKING:
    from dosna.array.connection import EngineConnection

__all__ = ["index"]


@dataclass
class _Measure:
    """The work of finding the minima and maxima of chunks, numbered along the first axis."""

    dataset: BackendDataset
    maker: ZoneMaker

    def __call__(self, chunks: Iterable[int]) -> dict[int, Zone]:
        maker = ZoneMaker(self.maker.chunk, self.maker.is_offsets)
        rows = self.dataset.metadata.shape[0]
        remote = None if maker.is_offsets else remote_of(self.dataset)
        if remote is not None:
            return _asked(remote, [*chunks], maker.chunk, rows)
        for number in chunks:
            start = number * maker.chunk
            stop = min(rows, start + maker.chunk)
            maker.add(start, read_rows(self.dataset, start, stop))
        return maker.found


def _asked(remote: Remote, chunks: list[int], length: int, rows: int) -> dict[int, Zone]:
    """Return the zones of chunks, by their numbers, as the store of the dataset finds them."""
    found = {}
    breaks = np.flatnonzero(np.diff(chunks) != 1) + 1
    for run in np.split(np.array(chunks, np.int64), breaks):
        if len(run):
            numbers = run.tolist()
            stop = min(rows, (numbers[-1] + 1) * length)
            stats = remote.stats(numbers[0] * length, stop, length)
            for number, least, most, nans in zip(numbers, *stats, strict=True):
                found[number] = Zone(min(rows, (number + 1) * length), least, most, int(nans))
    return found


def index(
    con: EngineConnection,
    tree: str,
    branches: str | Iterable[str] | None = None,
    progress: Progress = None,
) -> list[str]:
    """Find the minima and maxima of the chunks of a tree, so that later queries can skip chunks.

    They are stored with the datasets. Ingest records them already; chunks that were written to
    later have none until this function is called. It is collective under the engine ``mpi``.

    Parameters
    ----------
    con : EngineConnection
        The connection, of mode 'a'.
    tree : str
        The name of the tree's group, such as ``Events``.
    branches : str or iterable of str, optional
        Names or patterns such as ``Muon_*``; all by default.
    progress : bool or callable, optional
        True for a progress bar, or a callback ``(done, total)`` in datasets.

    Returns
    -------
    list of str
        The names of the branches that now have zones: those of numbers, including optional ones,
        and of lists of numbers.

    Raises
    ------
    DatasetNotFoundError
        There is no such tree or branch.
    DatasetError
        A branch is incomplete.
    ReadOnlyError
        The connection's mode is 'r'.

    Examples
    --------
    Index the branches that conditions use::

        dosna.query.index(con, "Events", ["run", "MET_*"])
    """
    con.check_writable()
    found = get_tree(con, tree)
    chosen = found.chosen(branches, f"tree {tree!r}")
    con.runner.agree("index", con.identity, tree, chosen)
    done = []
    with con.runner.reporting(progress, len(chosen), "index", "branch") as report:
        for number, branch in enumerate(chosen):
            column = column_of(con, tree, found, branch)
            if _index(con, column):
                done.append(branch.name)
            if report is not None:
                report(number + 1)
    return done


def _index(con: EngineConnection, column: BranchColumn) -> bool:
    """Index the datasets of a branch. Return False if it can have no zones."""
    parts: list[tuple[BackendDataset, bool]] = []
    if column.flat is not None:
        parts = [(column.flat, False)]
    elif (counted := column.numbers or column.optional) is not None:
        offsets, content = counted
        parts = [(offsets, True), (content, False)]
    if not parts or not all(has_room(dataset) for dataset, _ in parts):
        return False
    for dataset, is_offsets in parts:
        _measure(con, dataset, is_offsets)
    return True


def _measure(con: EngineConnection, dataset: BackendDataset, is_offsets: bool) -> None:
    meta, once = dataset.metadata, con.runner.once
    chunks = -(-meta.shape[0] // meta.chunk_size[0])
    if not chunks:
        return
    # Chunks that are written after this have another mark, so that their zones are not trusted.
    objects = -(-meta.shape[0] // dataset.grain[0])
    marks = once(lambda: marks_of(dataset, range(objects), lasting=True))
    missing = once(lambda: _missing(dataset, chunks, is_offsets))
    maker = ZoneMaker(meta.chunk_size[0], is_offsets)
    work = _Measure(dataset, maker)
    picklable = con.instance.shared_between_processes
    maker.update(con.runner.spread(work, missing, picklable=picklable))
    zones = once(lambda: recorded(dataset, maker, marks))
    if missing:
        once(lambda: dataset.update(lambda m: m.replace(zones=zones)))


def _missing(dataset: BackendDataset, chunks: int, is_offsets: bool) -> list[int]:
    """Return the numbers of the chunks whose zones are unknown or out of date."""
    known = known_zones(dataset)
    if known is None or (known[0].steps is None) == is_offsets:
        return list(range(chunks))
    zones, good = known
    at = np.flatnonzero(good)
    good[at] = unchanged(dataset, zones, at)
    return [int(number) for number in np.flatnonzero(~good)]
