"""The transformation of one file, from the side of the service."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from dataclasses import asdict, dataclass
from typing import BinaryIO

from dosna.delivery.transform.client import FUNC_ADL_LIBRARIES, ForkServer, server_of
from dosna.delivery.transform.environment import func_adl_python
from dosna.delivery.transform.request import SCHEME, TransformRequest
from dosna.delivery.transform.sandbox import lacking
from dosna.delivery.transform.staging import staged
from dosna.errors import (
    ConfigurationError,
    DosnaError,
    LimitError,
    StorageError,
    WorkerError,
)

__all__ = ["TransformResult", "transform"]


_LOCAL = ("hdf5", "file", "zarr")
_LEAST_FREE = 1 << 20
"""The free bytes of a disk that is not full."""


@dataclass(frozen=True)
class TransformResult:
    """The result of a transformation.

    Parameters
    ----------
    path : str
        The file of the result.
    size : int
        The size of the file in bytes.
    rows : int
        The number of entries in all of its trees.
    log : str
        The output of the selection, and notices, for example about trees that were left out.
    """

    path: str
    size: int
    rows: int
    log: str = ""


def transform(request: TransformRequest) -> TransformResult:
    """Run a selection on one file. The result appears when it is complete.

    Parameters
    ----------
    request : TransformRequest
        The file, the selection, and the place of the result.

    Returns
    -------
    TransformResult
        The result.

    Raises
    ------
    QueryError, UnknownNameError, QueryTypeError
        The selection cannot be understood, names a column that does not exist, or failed. The
        message says what exists instead.
    SourceError, SourceNotFoundError
        The file or the tree is missing, or cannot be read.
    RefusedError
        The format cannot store the result.
    LimitError
        A limit was exceeded.
    WorkerError
        The process died. The output of the selection is a note (``__notes__``) of each error.
    ConfigurationError
        This machine cannot confine selections.
    """
    scratch = tempfile.mkdtemp(prefix=".transform-", dir=request.folder)
    try:
        return _transform(request, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _transform(request: TransformRequest, scratch: str) -> TransformResult:
    work = os.path.join(scratch, "work")
    os.mkdir(work)
    made = os.path.join(work, "result")
    if request.source.startswith(SCHEME) and not _in_folders(request):
        from dosna.delivery.transform.stored import transform_stored  # imports awkward

        lines: list[str] = []
        rows = transform_stored(request, made, lines.append)
        text = "\n".join(lines)[-request.limits.log :]
    else:
        rows, text = _confined(request, scratch, work, made)
    size = _size_of(made, request)
    target = os.path.join(request.folder, request.name)
    os.replace(made, target)
    return TransformResult(target, size, rows, text)


def _confined(request: TransformRequest, scratch: str, work: str, made: str) -> tuple[int, str]:
    """Run a selection in a confined process, and return the number of entries and the log."""
    if not request.unconfined and (why := lacking()):
        raise ConfigurationError(
            f"selections carry code, and cannot be confined here: {why}. Run them elsewhere, or "
            "permit unconfined selections of users whom you trust."
        )
    stored = request.source.startswith(SCHEME)
    job = {
        "codegen": request.codegen,
        "selection": request.selection,
        "format": request.format,
        "input": "" if stored else staged(request, scratch),
        "within": request.within if stored else (),
        "shown": request.source,
        "output": made,
        "scratch": work,
        "step": int(request.limits.memory) // 16,
        "limits": asdict(request.limits),
        "strict": not request.unconfined,
    }
    with open(os.path.join(scratch, "log"), "w+b") as log:
        try:
            rows = _server(request).run(job, log.fileno())
        except DosnaError as error:
            if isinstance(error, LimitError) and _is_full(scratch, int(request.limits.disk)):
                raise StorageError(
                    f"there is no space for the result of {request.source}: make some in "
                    f"{request.folder}"
                ) from error
            if text := _tail(log, request.limits.log):
                error.add_note(text)
            raise
        return rows, _tail(log, request.limits.log)


def _in_folders(request: TransformRequest) -> bool:
    """Return whether a tree of columns is in served folders, and can be read by a process that can
    read nothing else: links in it may lead anywhere.
    """
    backend = request.source.removeprefix(SCHEME).partition(":")[0]
    local = backend in _LOCAL and bool(request.within)
    return local and not request.unconfined and not lacking()


def _is_full(folder: str, limit: int) -> bool:
    """Return whether a disk is full by the files of others than the job in a folder."""
    files = [os.path.join(top, name) for top, _, names in os.walk(folder) for name in names]
    own = sum(os.lstat(file).st_size for file in files)
    return shutil.disk_usage(folder).free < _LEAST_FREE and own < limit // 2


def _server(request: TransformRequest) -> ForkServer:
    if request.codegen == "uproot" and not request.source.startswith(SCHEME):
        return server_of(func_adl_python(request.func_adl), FUNC_ADL_LIBRARIES)
    return server_of()


def _tail(log: BinaryIO, count: int) -> str:
    """Return the end of a log."""
    log.seek(max(0, log.seek(0, os.SEEK_END) - count))
    return log.read().decode("utf-8", "replace").strip()


def _size_of(path: str, request: TransformRequest) -> int:
    """Return the size of a result, which must be a regular file."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        status = None
    if status is None or not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        raise WorkerError(f"the selection on {request.source} has left no file as its result")
    return status.st_size
