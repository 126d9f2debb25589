"""Mapping of a function over the chunks of a dataset, with their neighbourhood or without."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from dosna.array.chunked import Chunked
from dosna.backends.base import BackendDataset
from dosna.core.halo import check_halo, check_mode
from dosna.core.plan import every_chunk
from dosna.core.progress import Progress
from dosna.core.sizes import Limit, parse_size
from dosna.core.text import element_bytes, is_text
from dosna.core.values import as_dtype, check_fillvalue
from dosna.engines.work.boxes import BLOCK_BYTES, bytes_of
from dosna.engines.work.mapping import Func, HaloMap, Map, halo_group, result_of

__all__ = ["map_chunks"]


def map_chunks(
    dataset: Chunked,
    func: Func,
    output_name: str,
    dtype: DTypeLike | None,
    halo: int | Sequence[int],
    boundary: str,
    cval: Any,
    progress: Progress,
    memory_limit: Limit,
) -> Any:
    """Carry out `EngineDataset.map`."""
    con, instance, workers = dataset.connection, dataset.instance, dataset.runner.workers
    con.check_writable()
    dataset.note_reading()
    widths = check_halo(halo, dataset.ndim)
    check_mode(boundary)
    # Two groups are read ahead, and one is written behind.
    overlaps, most = instance.remote, BLOCK_BYTES
    if memory_limit is not None:
        share = parse_size(memory_limit) // dataset.runner.sharers
        itemsize = element_bytes(dataset.dtype)
        overlaps = overlaps and 12 * bytes_of(instance.grain, itemsize, widths) <= share
        # A fifth of a worker's share, so that all workers find work, and because an
        # allocator may keep more memory than it handed out.
        most = min(most, share // (12 if overlaps else 5))
    if boundary == "constant" and is_text(dataset.dtype):
        cval = "" if isinstance(cval, int) and cval == 0 else check_fillvalue(cval, dataset.dtype)
    given = dtype is not None
    probe = HaloMap(instance, instance, func, widths, boundary, cval, given)
    check = partial(con.check_free, output_name)
    if dtype is None:
        dtype = dataset.runner.once(partial(_first_dtype, instance, probe, check))
    else:
        dataset.runner.once(check)
    made = con.create_like(dataset, output_name, as_dtype(dtype))
    out: BackendDataset = made.instance
    itemsize = max(element_bytes(dataset.dtype), element_bytes(made.dtype))
    try:
        if any(widths) and dataset.size:
            grain = halo_group(out, widths, most, 4 * workers)
            with_halo = HaloMap(
                instance, out, func, widths, boundary, cval, given, overlaps=overlaps
            )
            held = bytes_of(grain, element_bytes(dataset.dtype), widths)
            held += 3 * bytes_of(out.grain, itemsize, widths)
            tasks = every_chunk(dataset.shape, grain)
            dataset.spread("map", with_halo, held, progress, memory_limit, tasks=tasks)
        else:
            held = 4 * bytes_of(out.grain, itemsize)
            work = Map(instance, out, func, given)
            dataset.spread("map", work, held, progress, memory_limit, over=out)
    except BaseException:
        con.discard(made)
        raise
    return made


def _first_dtype(
    dataset: BackendDataset, probe: HaloMap, check: Callable[[], None]
) -> np.dtype[Any]:
    """Return the dtype of a function's result on the first chunk, its halo included.

    What `check` raises is raised before the function is called.
    """
    meta = dataset.metadata
    block = np.empty(meta.shape, meta.dtype)

    def read() -> None:
        nonlocal block
        if meta.size:
            block = probe.extended(meta.bounds((0,) * meta.ndim).array)

    dataset.for_each(lambda step: step(), [check, read])
    dtype: np.dtype[Any] = result_of(probe.func, block, block.shape).dtype
    return dtype
