"""Export to a folder that is a Zarr v3 group, as the backend ``file`` makes it."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from dosna.backends import registry as backends
from dosna.core.progress import share_of
from dosna.engines.base import Report
from dosna.export.job import Job
from dosna.sources.datasets import groups_above

__all__ = ["write"]


def write(job: Job, path: str, report: Report | None) -> None:
    """Copy datasets into a new folder, on all processes."""
    source = job.datasets[0].connection
    job.runner.once(lambda: os.mkdir(path))
    done = 0
    asked: list[Future[dict[str, dict[str, Any]]]] = []
    with (
        ThreadPoolExecutor(1, thread_name_prefix="dosna-export") as other,
        source.beside(backends.get("file").connection(path)) as target,
    ):
        names = [ds.name for ds in job.datasets]
        # Where requests take long, the chunks need not wait for these.
        job.runner.once(lambda: asked.append(other.submit(groups_above, source, names)))
        for ds in job.datasets:
            options: dict[str, Any] = {"compression": job.request.compression}
            dims = getattr(ds, "dims", None)
            if dims is not None:
                options["dims"] = dims
            copied = ds.copy(
                target,
                chunk_size=job.request.chunk_size,
                progress=share_of(report, done, ds.total_chunks),
                memory_limit=job.request.memory_limit,
                **options,
            )
            done += ds.total_chunks
        groups = job.runner.once(lambda: asked[0].result())
        for name, attrs in groups.items():
            target.set_group_attrs(name, attrs)
        job.runner.once(copied.flush)
