"""Staging of files into a folder and out of it: verified, all or nothing, several at a time.

A request is plain data, so that it can be sent to the machine where it is carried out::

    {"data_unit": "du-…", "place": {…}, "files": [{"name", "size", "checksum"}, …],
     "patterns": ["*.txt"], "attempt": "sj-…"}

`place` contains the fields of a `PilotDataDescription`, including credentials, so a request is
never stored or shown.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from dosna.core.sizes import format_size
from dosna.errors import DosnaError, StorageError
from dosna.io.files import disk
from dosna.io.parallel import in_flight
from dosna.pilot.data.files import File, Tell, check, checksum_of, chosen, find_outputs
from dosna.pilot.data.places import Place, Prepared, open_place

__all__ = ["Meter", "Progress", "fetch", "put", "replicate", "stage_in", "stage_out"]

FILES = 4
"""The files under way at a time."""

Progress = Callable[[int, int], object] | None
"""A callback ``(done, total)`` in bytes; None for no report."""


class Meter:
    """The progress of several transfers together.

    Parameters
    ----------
    total : int
        The total number of bytes.
    progress : callable or None
        The callback.
    """

    def __init__(self, total: int, progress: Progress) -> None:
        self.total, self.done, self._progress = total, 0, progress
        self._lock = threading.Lock()

    @property
    def tell(self) -> Tell | None:
        """A function that counts bytes, or None if there is no callback."""
        return self._tell if self._progress is not None else None

    def _tell(self, nbytes: int) -> None:
        with self._lock:
            self.done += nbytes
            if self._progress is not None:
                self._progress(self.done, max(self.total, self.done))


def stage_in(
    request: Mapping[str, Any], folder: str, progress: Progress = None
) -> list[dict[str, Any]]:
    """Stage the files of a request to a folder: all of them, verified, or none.

    Parameters
    ----------
    request : mapping
        The request, whose `patterns` select some of its `files`.
    folder : str
        The folder.
    progress : callable, optional
        A callback ``(done, total)`` in bytes.

    Returns
    -------
    list of dict
        The files, in the form of `files`.

    Raises
    ------
    SourceNotFoundError
        A file is missing, or a pattern matches no file.
    StorageError
        The disk is full, the place does not answer, or a file is damaged.
    """
    unit = str(request["data_unit"])
    files = chosen([File.of(one) for one in request["files"]], request.get("patterns"), unit)
    with _place_of(request) as place:
        fetch(files, place, unit, folder, progress)
    return [file.to_json() for file in files]


def stage_out(
    request: Mapping[str, Any], folder: str, progress: Progress = None
) -> list[dict[str, Any]]:
    """Upload the files in a folder that match the patterns of a request: all or none.

    Returns
    -------
    list of dict
        The files with their sizes and checksums.

    Raises
    ------
    SourceNotFoundError
        A pattern matches no file.
    StorageError
        The place is full or does not answer.
    """
    found = find_outputs(folder, request.get("patterns") or ["*"])
    room = request.get("room")
    size = sum(os.path.getsize(path) for path in found.values())
    if room is not None and size > room:
        raise StorageError(
            errno.EDQUOT,
            f"{request['data_unit']} needs {format_size(size)} more, but its pilot data has "
            f"room for {format_size(room)}: give it a larger size, or remove data units",
        )
    with _place_of(request) as place:
        # Two attempts at one unit may overlap if the node of one was unreachable for a while.
        known = {one["name"] for one in request.get("files") or ()}
        kept: Container[str] = _All() if request.get("attempt") else known
        files = put(found, place, str(request["data_unit"]), progress, kept)
    return [file.to_json() for file in files]


@contextmanager
def _place_of(request: Mapping[str, Any]) -> Iterator[Place]:
    if not request.get("place"):
        yield _Nowhere()
        return
    with open_place(request["place"]) as place:
        yield place


class _Nowhere(Place):
    """The place of a data unit that consists of datasets."""

    def __init__(self) -> None:
        super().__init__("no place")

    def size(self, path: str) -> int:
        raise self.refuse()

    def download(self, path: str, target: str, tell: Tell | None = None) -> None:
        raise StorageError(f"{path} is in no place: submit its data unit to a pilot data")

    def prepare(self, source: str, path: str, tell: Tell | None = None) -> Prepared:
        raise StorageError(f"{path} has no place: submit its data unit to a pilot data")

    def remove(self, path: str) -> None:
        raise self.refuse()

    def check(self) -> None:
        raise self.refuse()


def fetch(
    files: Sequence[File], place: Place, unit: str, folder: str, progress: Progress = None
) -> None:
    """Stage files of a data unit to a folder, all of them or none; see `stage_in`."""
    total = sum(max(0, file.size) for file in files)
    meter = Meter(total, progress)
    with disk(f"stage {unit} into {folder}"):
        os.makedirs(folder, exist_ok=True)
        _require_room(folder, total)
    # Beside the final files, so that these appear by renaming.
    with _aside(folder) as aside:

        def one(file: File) -> None:
            target = os.path.join(aside, file.name)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            _download(file, place, unit, target, meter.tell)

        in_flight(one, files, FILES)
        with disk(f"stage {unit} into {folder}"):
            for file in files:
                target = os.path.join(folder, file.name)
                os.makedirs(os.path.dirname(target), exist_ok=True)
                os.replace(os.path.join(aside, file.name), target)


def _download(file: File, place: Place, unit: str, target: str, tell: Tell | None) -> None:
    with disk(f"write {target}"):
        if file.url:
            from dosna.pilot.data.arrays import deliver

            deliver(file.url, target, tell)
            return
        checksum = place.download(f"{unit}/{file.name}", target, tell)
        if place.is_exact:
            check(target, file, f"{unit}/{file.name} of {place.shown}", checksum)


@contextmanager
def _aside(folder: str) -> Iterator[str]:
    aside = os.path.join(folder, f".in-{secrets.token_hex(4)}")
    try:
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _require_room(folder: str, nbytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < nbytes:
        raise StorageError(
            errno.ENOSPC,
            f"{format_size(nbytes)} do not fit into {folder}, whose disk has {format_size(free)} "
            "free: free some space, or give the pilot another working directory",
        )


def put(
    paths: Mapping[str, str],
    place: Place,
    unit: str,
    progress: Progress = None,
    kept: Container[str] = (),
) -> list[File]:
    """Upload local files to a data unit, all or none.

    Parameters
    ----------
    paths : mapping of str to str
        The local paths, by name.
    place : Place
        The place.
    unit : str
        The data unit.
    progress : callable, optional
        A callback ``(done, total)`` in bytes.
    kept : container of str
        The names that the data unit already has, which are not removed if this fails.

    Returns
    -------
    list of File
        The uploaded files.
    """
    states = {name: _state_of(path) for name, path in paths.items()}
    files = [File(name, os.path.getsize(path)) for name, path in paths.items()]
    meter = Meter(sum(file.size for file in files), progress)
    checksums: dict[str, str] = {}

    def one(file: File) -> Prepared:
        source = paths[file.name]
        prepared = place.prepare(source, f"{unit}/{file.name}", meter.tell)
        checksums[file.name] = prepared.checksum or checksum_of(source)
        if _state_of(source) != states[file.name]:
            prepared.abandon()
            raise StorageError(f"{source} was changed while it was uploaded: upload it again")
        return prepared

    _all_or_none(one, files, kept)
    return [replace(file, checksum=checksums[file.name]) for file in files]


def _state_of(path: str) -> tuple[int, int, int]:
    """Return properties of a local file that change when it is written to."""
    found = os.stat(path)
    return found.st_ino, found.st_size, found.st_mtime_ns


def replicate(
    files: Sequence[File], source: Place, target: Place, unit: str, progress: Progress = None
) -> None:
    """Copy files of a data unit from one place to another, all or none.

    Each file passes through this machine, and is verified here.
    """
    meter = Meter(sum(max(0, file.size) for file in files), progress)
    with tempfile.TemporaryDirectory(prefix="dosna-pilot-") as folder:

        def one(file: File) -> Prepared:
            path = f"{unit}/{file.name}"
            local = source.local_path(path) if source.is_exact else None
            if local is None or not os.path.isfile(local):
                local = os.path.join(folder, secrets.token_hex(8) + os.path.splitext(path)[1])
                _download(file, source, unit, local, None)
            else:
                check(local, file, f"{path} of {source.shown}")
            prepared = target.prepare(local, path, meter.tell)
            if local.startswith(folder):
                os.unlink(local)
            return prepared

        _all_or_none(one, [file for file in files if not file.url])


def _all_or_none(
    prepare: Callable[[File], Prepared], files: Sequence[File], kept: Container[str] = ()
) -> None:
    """Bring all files to a place, and name them when all of them are there.

    If one fails, the others are removed again, except those with the names of files that another
    attempt may have stored.
    """
    ready: dict[str, Prepared] = {}

    def one(file: File) -> None:
        ready[file.name] = prepare(file)

    try:
        in_flight(one, files, FILES)
    except BaseException:
        for name, prepared in ready.items():
            if not (prepared.is_named and name in kept):
                with contextlib.suppress(DosnaError):
                    prepared.abandon()
        raise
    for prepared in ready.values():
        prepared.commit()


class _All:
    """The names of all files."""

    def __contains__(self, name: object) -> bool:
        return True
