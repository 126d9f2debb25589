"""Write datasets to one file that other programs read: HDF5, Zarr or NumPy's format.

A file appears under its name when it is complete. Until then it is in the same folder, under
a hidden name that ends in ``.part``. A domain of HSDS, which is not a file, also appears only
when it is complete.
"""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dosna.backends.folders.handle import FolderHome
from dosna.core.request import ExportRequest
from dosna.errors import (
    ChunkError,
    ConfigurationError,
    DatasetExistsError,
    FormatError,
    MissingDependencyError,
    RefusedError,
    SkippedDatasetWarning,
    StorageError,
)
from dosna.export.job import Job
from dosna.io.files import disk
from dosna.io.unfinished import discard, finish, name_unfinished
from dosna.registry import needing

if TYPE_CHECKING:
    from dosna.array.dataset import EngineDataset
    from dosna.array.home import ArrayHome
    from dosna.engines.base import Report, Runner

__all__ = ["SUFFIXES", "export"]


Writer = Callable[[Job, str, "Report | None"], None]
"""A function that writes a job to a new path, and reports the number of chunks done."""


def _hdf5() -> Writer:
    from dosna.export.hdf5 import write

    return write


def _zarr() -> Writer:
    from dosna.export.zarr import write

    return write


def _npy() -> Writer:
    from dosna.export.npy import write

    return write


_FORMATS = {
    ".h5": _hdf5,
    ".hdf5": _hdf5,
    ".nxs": _hdf5,
    ".nx5": _hdf5,
    ".zarr": _zarr,
    ".npy": _npy,
}

SUFFIXES = tuple(_FORMATS)
"""The suffixes that select a format."""


def export(
    con: ArrayHome,
    chosen: Sequence[str | EngineDataset],
    path: str | os.PathLike[str],
    request: ExportRequest,
) -> list[str]:
    """Carry out `EngineConnection.export`, on all processes that work together.

    Parameters
    ----------
    con : Connection
        The connection of the datasets.
    chosen : sequence of str or EngineDataset
        The datasets.
    path : path
        The file to write, or the URL of a domain of HSDS.
    request : ExportRequest

    Returns
    -------
    list of str
        The names of the datasets that were written.
    """
    path = os.fspath(path)
    domain = path.startswith("hdf5://")
    suffix = os.path.splitext(path)[1].lower()
    if not domain:
        path = os.path.abspath(path)
        _check_place(con, path, suffix)
    datasets = _readable(con, chosen, path, request.on_error == "skip")
    job, total = Job(datasets, request), sum(ds.total_chunks for ds in datasets)
    if domain:
        _domain_writer(path)(job, path)
    else:
        write = _FORMATS[suffix]()
        with (
            _appearing(path, job.runner, request.overwrite) as part,
            job.runner.reporting(request.progress, total, "export") as report,
        ):
            write(job, part, report)
    return [ds.name for ds in datasets]


def _domain_writer(url: str) -> Callable[[Job, str], None]:
    with needing(f"export to {url} needs", "hsds"):
        from dosna.export.hsds import write
    return write


def _check_place(con: ArrayHome, path: str, suffix: str) -> None:
    """Raise if the datasets cannot be exported to a path, whatever they are."""
    if suffix not in _FORMATS:
        raise ConfigurationError(
            f"cannot tell the format of {path} from {suffix!r}: use one of {', '.join(SUFFIXES)}"
        )
    place = con.instance
    if (
        isinstance(place, FolderHome)
        and os.path.exists(path)
        and f"{os.path.realpath(place.path)}/".startswith(f"{os.path.realpath(path)}/")
    ):
        raise ConfigurationError(
            f"{path} is where the datasets are, or contains it: export to another place"
        )


def _readable(
    con: ArrayHome, chosen: Sequence[str | EngineDataset], path: str, skips: bool
) -> list[EngineDataset]:
    """Return the datasets to write; if `skips`, without those that cannot be read."""
    found = []
    for each in chosen:
        try:
            ds = con[each] if isinstance(each, str) else each
            if ds.incomplete:
                raise RefusedError(
                    f"dataset {ds.name!r} is incomplete, and would look complete in {path}: "
                    "repeat the call that was interrupted, or call mark_complete()"
                )
            # Before anything is written, because no format could take half a dataset back.
            if skips and not (state := ds.verify()).good:
                raise ChunkError(f"dataset {ds.name!r} cannot be read: {state}")
        except (ChunkError, FormatError, MissingDependencyError, RefusedError) as error:
            if not skips:
                raise
            warnings.warn(f"left out of {path}: {error}", SkippedDatasetWarning, stacklevel=4)
        else:
            found.append(ds)
    if not found:
        raise ConfigurationError(
            f"cannot export to {path}: there is no dataset to write. Check the names, or select="
        )
    return found


@contextmanager
def _appearing(path: str, runner: Runner, overwrite: bool) -> Iterator[str]:
    """Yield a path beside `path`; rename it to `path` at the end, or remove it on failure."""
    folder = os.path.dirname(path)

    def begin() -> str:
        if not os.path.isdir(folder):
            raise StorageError(
                errno.ENOENT, f"cannot write {path}: {folder} is not a folder; make it first"
            )
        with disk(f"look into {folder}"):
            part = name_unfinished(path)
        _check_free(path, overwrite)
        return part

    def end() -> None:
        with disk(f"write {path}"):
            _check_free(path, overwrite)
            finish(part, path)

    part = runner.once(begin)
    try:
        with disk(f"write {path}"):
            yield part
        runner.once(end)
    except BaseException:
        # Not through the runner: after an interruption the other processes may not call it.
        discard(part)
        raise


def _check_free(path: str, overwrite: bool) -> None:
    if os.path.lexists(path) and not overwrite:
        raise DatasetExistsError(
            f"{path} exists: choose another name, or replace it by overwrite=True"
        )
