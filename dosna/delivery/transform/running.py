"""The transformation of one file, as the service sees it."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from dataclasses import dataclass

from dosna.delivery.transform.request import TransformRequest
from dosna.errors import SourceNotFoundError, WorkerError

__all__ = ["TransformResult", "transform"]


@dataclass(frozen=True)
class TransformResult:
    """What a transformation has made.

    Parameters
    ----------
    path : str
        The file of the result.
    size : int
        Its bytes.
    rows : int
        The entries in all of its trees.
    log : str
        What the selection printed, and notices, such as of trees that were left out.
    """

    path: str
    size: int
    rows: int
    log: str = ""


def transform(request: TransformRequest) -> TransformResult:
    """Run a selection on one file. The result appears when it is whole.

    Parameters
    ----------
    request : TransformRequest
        The file, the selection, and where the result goes.

    Returns
    -------
    TransformResult
        The result.

    Raises
    ------
    QueryError, UnknownNameError, QueryTypeError
        The selection cannot be understood, names a column that is not there, or failed. The
        message says what exists instead.
    SourceError, SourceNotFoundError
        The file or the tree is missing, or cannot be read.
    RefusedError
        The format cannot hold the result.
    WorkerError
        A limit was exceeded, or the process died.
    """
    from dosna.delivery.transform.job import run_job

    target = os.path.join(request.folder, request.name)
    scratch = tempfile.mkdtemp(prefix=".transform-", dir=request.folder)
    lines: list[str] = []
    try:
        if not os.path.exists(request.source):
            raise SourceNotFoundError(f"{request.source} does not exist: check its path")
        made = os.path.join(scratch, "result")
        job = {
            "codegen": request.codegen,
            "selection": request.selection,
            "format": request.format,
            "input": os.path.abspath(request.source),
            "shown": request.source,
            "output": made,
            "step": int(request.limits.memory) // 16,
        }
        rows = run_job(job, lines.append)
        status = os.lstat(made)
        if not stat.S_ISREG(status.st_mode):
            raise WorkerError(f"the result of {request.source} is not a file")
        os.replace(made, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return TransformResult(target, status.st_size, rows, "\n".join(lines))
