"""Write datasets to one file that other programs read: HDF5, Zarr or NumPy's format.

A file appears under its name when it is complete. Until then it is in the same folder, under
a hidden name that ends in ``.part``. A domain of HSDS, which is not a file, also appears only
when it is complete.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from dosna.backends.folders.exchange import exchange
from dosna.backends.folders.handle import FolderHome
from dosna.errors import (
    ConfigurationError,
    DatasetExistsError,
    MissingDependencyError,
    RefusedError,
    StorageError,
)
from dosna.export.job import Job
from dosna.io.files import disk, remove_folder, sync_folder
from dosna.io.processes import maker, maker_has_ended

if TYPE_CHECKING:
    from dosna.array.dataset import EngineDataset
    from dosna.core.progress import Progress
    from dosna.core.sizes import Limit
    from dosna.engines.base import Report, Runner

__all__ = ["SUFFIXES", "export"]


_PART, _OLD = ".part", ".old"
_LONGEST = 180

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
    datasets: Sequence[EngineDataset],
    path: str | os.PathLike[str],
    *,
    chunk_size: int | Sequence[int] | None,
    compression: str | None,
    overwrite: bool,
    progress: Progress,
    memory_limit: Limit,
) -> None:
    """Carry out `EngineConnection.export`, on all processes that work together."""
    path = os.fspath(path)
    if path.startswith("hdf5://"):
        job = _job(datasets, path, chunk_size, compression, memory_limit)
        try:
            from dosna.export.hsds import write as write_domain
        except ImportError as error:
            raise MissingDependencyError(
                f"export to {path} needs {error.name}: pip install 'dosna[hsds]'"
            ) from error
        write_domain(job, path, overwrite, progress)
        return
    path = os.path.abspath(path)
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in _FORMATS:
        raise ConfigurationError(
            f"{path} ends in {suffix!r}, which says no format: use one of {', '.join(SUFFIXES)}"
        )
    job = _job(datasets, path, chunk_size, compression, memory_limit)
    place = datasets[0].connection.instance
    if (
        isinstance(place, FolderHome)
        and os.path.exists(path)
        and f"{os.path.realpath(place.path)}/".startswith(f"{os.path.realpath(path)}/")
    ):
        raise ConfigurationError(
            f"{path} is where the datasets are, or holds it: export to another place"
        )
    write = _FORMATS[suffix]()
    total = sum(ds.total_chunks for ds in datasets)
    with (
        _appearing(path, job.runner, overwrite) as part,
        job.runner.reporting(progress, total, "export") as report,
    ):
        write(job, part, report)


def _job(
    datasets: Sequence[EngineDataset],
    path: str,
    chunk_size: int | Sequence[int] | None,
    compression: str | None,
    memory_limit: Limit,
) -> Job:
    if not datasets:
        raise ConfigurationError(f"there is no dataset to write to {path}")
    for ds in datasets:
        if ds.incomplete:
            raise RefusedError(
                f"dataset {ds.name!r} is incomplete, and would look complete in {path}: run what "
                "was interrupted once more, or call mark_complete()"
            )
    return Job(datasets, chunk_size, compression, memory_limit)


@contextmanager
def _appearing(path: str, runner: Runner, overwrite: bool) -> Iterator[str]:
    """Yield a path beside `path`; rename it to `path` at the end, or remove it on failure."""
    folder, name = os.path.split(path)

    def begin() -> str:
        if not os.path.isdir(folder):
            raise StorageError(
                errno.ENOENT, f"cannot write {path}: {folder} is not a folder; make it first"
            )
        with disk(f"look into {folder}"):
            _sweep(folder, path)
        _check_free(path, overwrite)
        return os.path.join(folder, f"{_hidden(name)}{maker()}{_PART}")

    def finish() -> None:
        with disk(f"write {path}"):
            if os.path.isfile(part):
                with open(part, "rb") as file:
                    os.fsync(file.fileno())
            _check_free(path, overwrite)
            if os.path.isdir(path) or os.path.isdir(part):
                _replace_folder(part, path)
            else:
                os.replace(part, path)
            sync_folder(folder)

    part = runner.once(begin)
    try:
        with disk(f"write {path}"):
            yield part
        runner.once(finish)
    except BaseException:
        # Not through the runner: after an interruption the other processes may not call it.
        _remove(part)
        raise


def _check_free(path: str, overwrite: bool) -> None:
    if os.path.lexists(path) and not overwrite:
        raise DatasetExistsError(
            f"{path} exists: choose another name, or say by overwrite=True that it is to be "
            "replaced"
        )


def _hidden(name: str) -> str:
    """Return the beginning of the names of unfinished files."""
    if len(os.fsencode(name)) > _LONGEST:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    return f".{name}."


def _sweep(folder: str, path: str) -> None:
    """Remove files of processes that were killed while they exported to this path.

    A file is kept if its name does not tell its maker, or if its maker may still be running.
    """
    start = _hidden(os.path.basename(path))
    left = {name.removesuffix(_OLD) for name in os.listdir(folder) if name.startswith(start)}
    for name in left:
        if not name.endswith(_PART) or not maker_has_ended(name[len(start) : -len(_PART)]):
            continue
        part = os.path.join(folder, name)
        old = part + _OLD
        if os.path.lexists(old) and not os.path.lexists(path):
            # Killed between the two steps of `_replace_folder`: the new folder is whole.
            os.rename(part if os.path.lexists(part) else old, path)
        _remove(part)
        _remove(old)


def _replace_folder(part: str, path: str) -> None:
    """Put `part` in the place of `path`, where one of them is a folder.

    Renaming alone cannot replace a folder.
    """
    if not os.path.lexists(path):
        os.rename(part, path)
        return
    if exchange(part, path):
        _remove(part)
        return
    old = part + _OLD
    os.rename(path, old)
    try:
        os.rename(part, path)
    except BaseException:
        with suppress(OSError):
            os.rename(old, path)
        raise
    _remove(old)


def _remove(path: str) -> None:
    with suppress(OSError):  # the next export to that path will remove it
        remove_folder(path)
