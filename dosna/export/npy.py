"""Export to NumPy's own format: one array, which can be mapped into memory."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

import numpy as np

from dosna.backends.base import BackendDataset
from dosna.core.plan import ChunkTask
from dosna.core.progress import share_of
from dosna.core.text import is_text
from dosna.core.types import Array, Box
from dosna.engines.base import Report
from dosna.engines.work.boxes import BoxReader
from dosna.engines.work.flow import HELD, Flow, Overlapping
from dosna.errors import ConfigurationError, RefusedError
from dosna.export.job import Job
from dosna.io.ranges import byte_runs

__all__ = ["write"]


_MOST_RUNS = 64
"""The most parts of a box that are written one by one, which costs half of mapping the file."""


@dataclass
class _WriteBoxes(Overlapping):
    """A copy of boxes of a dataset into a file that has its full length, from `offset` on."""

    dataset: BackendDataset
    path: str
    offset: int

    def __call__(self, tasks: Iterable[ChunkTask]) -> None:
        with Flow(ahead=self.overlaps) as flow:
            for task, block in flow.read(BoxReader(self.dataset, HELD * self.overlaps), tasks):
                self._write(task.out, block)

    def _write(self, box: Box, block: Array) -> None:
        meta = self.dataset.metadata
        runs = byte_runs(meta.replace(chunk_size=meta.shape), box, _MOST_RUNS)
        if runs is None:
            # Mapped again for each box: what was written is no longer this process's memory.
            whole = np.memmap(self.path, meta.dtype, "r+", self.offset, meta.shape)
            whole[box] = block
            return
        data, done = np.ascontiguousarray(block).reshape(-1).view(np.uint8).data, 0
        with open(self.path, "r+b") as file:
            for first, last in runs:
                file.seek(self.offset + first)
                file.write(data[done : (done := done + last - first)])


def write(job: Job, path: str, report: Report | None) -> None:
    """Write one dataset; each process copies its share."""
    if len(job.datasets) > 1:
        names = ", ".join(repr(ds.name) for ds in job.datasets[:5])
        raise ConfigurationError(
            f"an .npy file holds one array, and there are {len(job.datasets)} ({names}, …): name "
            "the dataset, or export to .h5 or .zarr"
        )
    if job.request.compression is not None or job.request.chunk_size is not None:
        raise ConfigurationError(
            "an .npy file has neither chunks nor compression: leave chunk_size and compression out"
        )
    (ds,) = job.datasets
    if is_text(ds.dtype):
        raise RefusedError(
            f"dataset {ds.name!r} is text of variable length, which NumPy's format can only keep "
            "as pickled objects: export to .h5 or .zarr, or save ds.astype('U20')[...]"
        )

    def begin() -> int:
        with open(path, "xb") as file:
            header = {
                "descr": np.lib.format.dtype_to_descr(ds.dtype),
                "fortran_order": False,
                "shape": ds.shape,
            }
            np.lib.format.write_array_header_2_0(file, header)
            offset = file.tell()
            if not ds.shape:
                file.write(np.asarray(ds[()], ds.dtype).tobytes())
            elif ds.nbytes:
                # A full disk is noticed now, and not by a signal when pages are written.
                file.flush()
                os.posix_fallocate(file.fileno(), offset, ds.nbytes)
            return offset

    offset = ds.runner.once(begin)
    if ds.shape:
        block = 2 * prod(ds.instance.grain) * ds.dtype.itemsize
        progress = share_of(report, 0, ds.total_chunks)
        work = _WriteBoxes(ds.instance, path, offset)
        ds.spread("export", work, block, progress, job.request.memory_limit)
