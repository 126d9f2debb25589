"""Data of HDF5 datasets in other files: raw files, and sources of virtual datasets."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import count, islice
from typing import Any, NamedTuple

import h5py
import numpy as np

from dosna.io.bytefile import ByteFile
from dosna.io.contiguous import ContiguousReader
from dosna.io.local import LocalFile
from dosna.sources.hdf5.types import is_stored_as

__all__ = ["missing_raw_file", "raw_reader", "view_notes"]

_MOST_LISTED = 1 << 17
_MOST_NAMED = 3


# -- raw files -----------------------------------------------------------------------------


def raw_reader(dataset: Any, dtype: np.dtype[Any]) -> ContiguousReader | None:
    """Return a reader of a dataset whose raw files lie beside its file; None if they do not.

    libhdf5 itself looks for such files in the current folder.
    """
    folder, names = _folder(dataset), _raw_files(dataset)
    if all(map(os.path.isabs, names)) or os.environ.get("HDF5_EXTFILE_PREFIX"):
        return None
    if dataset.file.mode != "r" or not is_stored_as(dataset, dtype):
        return None
    paths = [os.path.join(folder, name) for name in names]
    if not all(map(os.path.exists, paths)):
        return None
    parts = [
        _Part(LocalFile(path), offset, size)
        for path, (_, offset, size) in zip(paths, dataset.external, strict=True)
    ]
    return ContiguousReader(_RawFiles(folder, parts), 0, dataset.shape, dtype)


def missing_raw_file(dataset: Any) -> str:
    """Return which raw file of a dataset libhdf5 will not find; empty if it finds all."""
    folder = _folder(dataset)
    looked_in = _expanded(os.environ.get("HDF5_EXTFILE_PREFIX", ""), folder)
    for name in _raw_files(dataset):
        if not os.path.exists(os.path.join(looked_in, name)):
            path = os.path.join(folder, name)
            if not os.path.exists(path):
                return f"its elements are in {path}, which does not exist"
            return (
                f"its elements are in {path}, and its HDF5 type needs libhdf5, which looks in "
                "the current folder: set HDF5_EXTFILE_PREFIX='${ORIGIN}' in the environment"
            )
    return ""


class _Part(NamedTuple):
    file: LocalFile
    offset: int
    size: int


class _RawFiles(ByteFile):
    """Parts of files, joined. As in libhdf5, bytes beyond the end of a short file are zero."""

    def __init__(self, folder: str, parts: list[_Part]) -> None:
        self.location, self._parts = folder, parts

    @property
    def size(self) -> int:
        return sum(part.size for part in self._parts)

    def fingerprint(self) -> str:
        return ", ".join(part.file.fingerprint() for part in self._parts)

    def pin(self, fingerprint: str) -> None:
        raise NotImplementedError("raw files are not linked")

    def read(self, offset: int, size: int) -> bytes:
        out = bytearray(size)
        start = 0
        for part in self._parts:
            first, last = max(offset, start), min(offset + size, start + part.size)
            there = part.file.size - part.offset
            last = min(last, start + max(0, there))
            if first < last:
                place = part.offset + first - start
                part.file.read_into(place, memoryview(out)[first - offset : last - offset])
            start += part.size
        return bytes(out)

    def close(self) -> None:
        for part in self._parts:
            part.file.close()


def _raw_files(dataset: Any) -> list[str]:
    return [os.fsdecode(name) for name, _, _ in dataset.external or ()]


def _folder(dataset: Any) -> str:
    return os.path.dirname(os.path.abspath(os.fsdecode(dataset.file.filename)))


def _expanded(prefix: str, folder: str) -> str:
    origin = "${ORIGIN}"
    return folder + prefix[len(origin) :] if prefix.startswith(origin) else prefix


# -- sources of virtual datasets -----------------------------------------------------------


def view_notes(dataset: Any) -> tuple[str, ...]:
    """Return notes on the missing sources of a virtual dataset, and on its shape."""
    if not dataset.is_virtual:
        return ()
    shown: dict[str, set[str]] = {}
    numbered: list[tuple[str, str]] = []
    for source in dataset.virtual_sources():
        names = (os.fsdecode(source.file_name), os.fsdecode(source.dset_name))
        if any("%" in name.replace("%%", "") for name in names):
            numbered.append(names)
        else:
            file_name, inside = (name.replace("%%", "%") for name in names)
            shown.setdefault(file_name, set()).add(inside)
    notes = []
    missing = [
        each for name, inside in sorted(shown.items()) for each in _missing(dataset, name, inside)
    ]
    if missing:
        some = _some(missing)
        notes.append(f"sources of this view are missing, and read as the fill value: {some}")
    if None in dataset.maxshape:
        notes.append("it is a view that grows with its sources, and has their present length")
    for file_name, inside in numbered:
        gap = _gap(dataset, file_name, inside)
        if gap:
            notes.append(gap)
    return tuple(notes)


def _some(names: list[str]) -> str:
    return ", ".join(names[:_MOST_NAMED]) + (", …" if len(names) > _MOST_NAMED else "")


def _missing(dataset: Any, name: str, inside: set[str]) -> list[str]:
    """Return the names of a source that is missing, or of the datasets that it lacks."""
    if name == ".":
        return [each for each in sorted(inside) if each not in dataset.file]
    for place in _places(dataset, name):
        try:
            with h5py.File(place, "r") as file:
                return [f"{name}:{each}" for each in sorted(inside) if each not in file]
        except OSError:
            continue
    return [name]


def _places(dataset: Any, name: str) -> Iterator[str]:
    """Yield the places where libhdf5 looks for a source, in its order (H5F_prefix_open_file)."""
    own = os.path.abspath(os.fsdecode(dataset.file.filename))
    folder, prefix = os.path.dirname(own), os.environ.get("HDF5_VDS_PREFIX", "")
    if os.path.isabs(name):
        yield name
        name = os.path.basename(name)
    for each in filter(None, prefix.split(":")):
        yield os.path.join(_expanded(each, folder), name)
    yield os.path.join(folder, name)
    yield os.path.abspath(name)
    yield os.path.join(os.path.dirname(os.path.realpath(own)), name)


def _gap(dataset: Any, file_name: str, inside: str) -> str:
    """Return a note on numbered sources behind a missing one, where libhdf5 stops looking."""

    def is_there(number: int) -> bool:
        found = _missing(dataset, _numbered(file_name, number), {_numbered(inside, number)})
        return not found

    first = next(n for n in count() if not is_there(n))
    later = [n for n in sorted(_numbers(dataset, file_name, inside)) if n > first]
    if not later:
        return ""
    names = [_numbered(file_name if "%b" in file_name else inside, n) for n in (first, later[0])]
    return f"it ends where {names[0]} is missing, and does not show {names[1]} and what follows"


def _numbered(pattern: str, number: int) -> str:
    return re.sub("%([b%])", lambda found: str(number) if found[1] == "b" else "%", pattern)


def _numbers(dataset: Any, file_name: str, inside: str) -> Iterator[int]:
    """Yield the numbers of existing sources: of files, or of datasets of one file."""
    names: Iterator[str]
    if "%b" in file_name:
        folder, pattern = os.path.split(file_name)
        places = [os.path.dirname(place) for place in _places(dataset, os.path.join(folder, "x"))]
        existing = [place for place in places if os.path.isdir(place)]
        names = (entry.name for place in existing[:1] for entry in os.scandir(place))
    else:
        folder, _, pattern = inside.rpartition("/")
        group = dataset.file.get(folder or "/") if file_name == "." else None
        names = iter(group or ())
    parts = [re.escape(part) for part in pattern.replace("%%", "\0").split("%b")]
    known = re.compile(r"(\d{1,18})".join(parts).replace("\0", "%"))
    for name in islice(names, _MOST_LISTED):
        found = known.fullmatch(name)
        if found and found.groups():
            yield int(found[1])
