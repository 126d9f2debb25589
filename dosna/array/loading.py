"""Loading of a dataset from a source."""

from __future__ import annotations

from array import array as ints
from collections.abc import Callable
from functools import partial
from math import prod
from operator import lt
from typing import Any, NamedTuple

import numpy as np

from dosna.array.chunked import Chunked, windows
from dosna.array.indexing import ArrayAccess
from dosna.array.values import is_source
from dosna.backends.base import BackendDataset
from dosna.core.plan import ChunkTask, every_chunk, touched
from dosna.core.progress import Progress
from dosna.core.sizes import Limit, parse_size
from dosna.core.text import element_bytes, elements
from dosna.core.types import Array, Shape
from dosna.core.values import same_fill
from dosna.core.zones import ZoneMaker
from dosna.engines.base import Tasks
from dosna.engines.work.boxes import (
    BLOCK_BYTES,
    box_of,
    bytes_of,
    count_of,
    is_remote,
    objects_of,
    plain,
)
from dosna.engines.work.loading import Load, load_block

__all__ = ["load", "opened", "stored_in_dataset"]


def load(
    dataset: Chunked,
    data: Any,
    missing: bool = False,
    progress: Progress = None,
    memory_limit: Limit = None,
    checked: bool = False,
    zones: ZoneMaker | None = None,
) -> None:
    """Carry out `EngineDataset.load`, within a collective call.

    Values that the dataset's dtype does not have are an error if `checked`, and are otherwise
    converted as NumPy does. `zones` takes the extremes of what is written from a source.
    """
    dataset.check_writable()
    if not is_source(data):
        data = plain(data)
    if tuple(data.shape) != dataset.shape:
        raise ValueError(
            f"cannot load data of shape {tuple(data.shape)} into {dataset.name!r} of shape "
            f"{dataset.shape}: assign with ds[...] = data to broadcast them"
        )
    job = _job(dataset, data, checked and data.dtype != dataset.dtype, memory_limit)
    stored = dataset.runner.once(lambda: _stored_at(dataset, data, job.block, missing))
    if stored is not None and isinstance(job.work, Load):
        job.work.sparse = True
    if isinstance(job.work, Load):
        job.work.zones = zones
    tasks, before = _tasks(dataset, job.block, stored, missing)
    found = dataset.spread(
        "load",
        job.work,
        job.task_bytes,
        progress,
        memory_limit,
        tasks=tasks,
        before=before,
        picklable=job.picklable,
    )
    if zones is not None and isinstance(job.work, Load):
        zones.update(found)


class _Job(NamedTuple):
    """The work of loading, and how it is cut."""

    work: Callable[[Any], Any]
    block: Shape
    task_bytes: int
    picklable: bool


def _job(dataset: Chunked, data: Any, checked: bool, memory_limit: Limit) -> _Job:
    instance, dtype = dataset.instance, dataset.dtype
    grain, workers = instance.grain, dataset.runner.workers
    itemsize = max(element_bytes(np.dtype(data.dtype)), element_bytes(dtype))
    held = 2 * bytes_of(grain, itemsize)
    if not is_source(data) and not checked:
        work: Callable[[Any], Any] = partial(instance.write_many, elements(data, dtype))
        return _Job(work, grain, held + bytes_of(grain, itemsize), False)
    source, chunks, picklable = opened(data)
    if source is data and chunks:
        # One chunk as it is stored, and after one filter and the next.
        held += 3 * bytes_of(chunks, itemsize)
    most = BLOCK_BYTES
    if memory_limit is not None:
        most = parse_size(memory_limit) // dataset.runner.sharers - held
        if data.dtype != dtype:
            most //= 2  # the values of the source, and those to write
    block = load_block(instance, chunks, most, 4 * workers if workers > 1 else 1)
    overlaps = False
    if instance.remote or is_remote(source):
        nbytes = 2 * bytes_of(block, itemsize)
        block, overlaps = windows(dataset, block, nbytes, memory_limit, held)
    work = Load(instance, source, checked, overlaps=overlaps)
    return _Job(work, block, held + bytes_of(block, itemsize), picklable)


def _stored_at(dataset: Chunked, data: Any, block: Shape, missing: bool) -> Array | None:
    """Return the indices of the blocks to load, or None for all of them.

    The answer is also None where the dataset may hold something else that must be overwritten.
    """
    fill = np.asarray(dataset.fillvalue, dataset.dtype)
    stored_in = getattr(data, "stored_in", None)
    found: Array | None = None
    if isinstance(data, ArrayAccess):
        found = stored_in_dataset(data.instance, block, fill)
    elif stored_in is not None and dataset.shape:
        found = stored_in(block, fill)
    if found is None or missing:
        return found
    return None if any(True for _ in dataset.instance.object_indices()) else found


def _tasks(
    dataset: Chunked, block: Shape, found: Array | None, missing: bool
) -> tuple[Tasks[ChunkTask], int]:
    """Return the blocks that are left to load, and the number of those that are done."""
    shape = dataset.shape
    total = count_of(shape, block)
    tasks: Tasks[ChunkTask]
    if found is not None and len(found) < total:
        tasks = [box_of(idx, shape, block) for idx in found.tolist()]
    else:
        tasks = every_chunk(shape, block)
    if missing:
        grain = dataset.instance.grain
        done = dataset.runner.once(lambda: set(dataset.instance.finished_objects()))
        tasks = [t for t in tasks if any(o.idx not in done for o in objects_of(t.out, grain))]
    return tasks, total - len(tasks)


def opened(data: Any) -> tuple[Any, Shape | None, bool]:
    """Return a reader of a source for any thread, its chunks, and whether it can be pickled."""
    if not isinstance(data, ArrayAccess):
        return data, _chunks_of(data), getattr(data, "picklable", False)
    data.connection.check_connected()
    data.note_reading()
    instance = data.instance
    return instance, instance.grain, instance.connection.shared_between_processes


def stored_in_dataset(instance: BackendDataset, block: Shape, fillvalue: Array) -> Array | None:
    """Return the indices of the blocks in which a dataset has something stored.

    None is returned if not all other blocks are known to be a fill value, or if everything is
    stored. `dosna.sources.base.SourceArray.stored_in` does the same for sources.
    """
    meta = instance.metadata
    # A link can answer only at the cost of reading.
    if not meta.shape or meta.link is not None or not same_fill(meta.fill, fillvalue):
        return None
    found = ints("q")
    grid = tuple([-(-n // g) for n, g in zip(meta.shape, instance.grain, strict=True)])
    left = prod(grid)
    for idx in instance.object_indices():
        if all(map(lt, idx, grid)):
            found.extend(idx)
            left -= 1
            if not left:
                return None  # before a look at the dataset: what is read tells whose it is
    if not instance.listing_refreshes:
        instance.refresh()  # raises for a dataset that is gone, which stores nothing either
    places = np.frombuffer(found, np.int64).reshape(-1, meta.ndim)
    return touched(places, instance.grain, meta.shape, block)


def _chunks_of(source: Any) -> Shape | None:
    """Return the extent of a source's own chunks, if it has the usual attribute for that."""
    for name in ("shards", "chunks"):
        chunks = getattr(source, name, None)
        if (
            isinstance(chunks, tuple)
            and len(chunks) == len(source.shape)
            and all(isinstance(c, int) and c > 0 for c in chunks)
        ):
            return chunks
    return None
