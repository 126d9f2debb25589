"""Datasets as files of data units: regions are written as files, and results become datasets."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from math import prod
from typing import Any

import dosna
from dosna.errors import (
    ConfigurationError,
    DatasetNotFoundError,
    RefusedError,
    SourceNotFoundError,
)
from dosna.pilot.data.files import Tell
from dosna.pilot.data.places import Place, Prepared

__all__ = ["DosnaPlace", "bytes_of", "deliver", "delivered_name"]

SUFFIXES = (".npy", ".h5", ".zarr")
_BLOCK = 64 << 20
"""The bytes of an array that are held at a time."""
_AXIS = re.compile(r"\s*(-?\d+)?\s*(?:(:)\s*(-?\d+)?\s*)?")
_NAME = "data"


def _split(url: str) -> tuple[str, str, str]:
    """Return the URL of a dataset, its region, and the name of the file to deliver."""
    text, _, fragment = url.partition("#")
    options = dict(one.partition("=")[::2] for one in fragment.split(";") if one)
    if unknown := options.keys() - {"region", "as"}:
        raise ConfigurationError(
            f"{url} has the unknown options {', '.join(sorted(unknown))}: write "
            "dosna:URL#region=0:10,:,5;as=NAME.npy"
        )
    name = options.get("as", "")
    if name and not name.endswith(SUFFIXES):
        raise ConfigurationError(f"the suffix of {name} must be one of {', '.join(SUFFIXES)}")
    text = text.removeprefix("dosna:")
    dataset = text.partition("?")[0].rstrip("/").rpartition("/")[2].rpartition(":")[2]
    return text, options.get("region", ""), name or f"{dataset}.npy"


def delivered_name(url: str) -> str:
    """Return the name of the file in which the dataset of a URL is delivered."""
    return _split(url)[2]


def region_of(text: str, ndim: int) -> tuple[slice | int, ...]:
    """Parse the text of an index, such as ``0:10,:,5``, for an array of `ndim` axes.

    Raises
    ------
    ConfigurationError
        It has another form, or more axes than the array.
    """
    found: list[slice | int] = []
    for part in text.split(",") if text.strip() else []:
        match = _AXIS.fullmatch(part)
        if match is None or not part.strip():
            raise ConfigurationError(f"{text!r} is not a region: write one like 0:10,:,5")
        first, colon, last = match.groups()
        if colon:
            found.append(slice(*(None if one is None else int(one) for one in (first, last))))
        else:
            found.append(int(first))
    if len(found) > ndim:
        raise ConfigurationError(
            f"the region {text!r} has {len(found)} axes, but the array has {ndim}"
        )
    return tuple(found)


def deliver(url: str, target: str, tell: Tell | None = None) -> None:
    """Write a dataset, or a region of it, as the file or folder `target`.

    Raises
    ------
    SourceNotFoundError
        There is no such dataset.
    """
    text, region, _ = _split(url)
    con, name = dosna.open_url(text, mode="r")
    with con:
        ds = _dataset(con, name, text)
        if not region:
            con.export(target, select=name)
        else:
            _export_region(ds, region_of(region, ds.ndim), target)
    if tell is not None:
        tell(prod(ds.shape) * ds.dtype.itemsize)


def bytes_of(url: str) -> int:
    """Return the size in bytes of the elements that the URL of a dataset delivers.

    Raises
    ------
    SourceNotFoundError
        There is no such dataset.
    ConfigurationError
        The URL or its region is malformed.
    """
    text, region, _ = _split(url)
    con, name = dosna.open_url(text, mode="r")
    with con:
        ds = _dataset(con, name, text)
        return prod(_shape(ds, region_of(region, ds.ndim))) * int(ds.dtype.itemsize)


def _dataset(con: Any, name: str, text: str) -> Any:
    try:
        return con[name]
    except DatasetNotFoundError as error:
        where = text.partition("?")[0]
        raise SourceNotFoundError(f"dosna:{where} does not exist: {error}") from None


def _shape(ds: Any, key: tuple[slice | int, ...]) -> tuple[int, ...]:
    """Return the shape of a region, which begins with the axes of `key`."""
    full = [*key, *[slice(None)] * (ds.ndim - len(key))]
    pairs = zip(full, ds.shape, strict=True)
    return tuple(len(range(*one.indices(n))) for one, n in pairs if isinstance(one, slice))


def _export_region(ds: Any, key: tuple[slice | int, ...], target: str) -> None:
    """Copy a region block by block into a dataset of its own, and export this."""
    full = [*key, *[slice(None)] * (ds.ndim - len(key))]
    kept = [axis for axis, one in enumerate(full) if isinstance(one, slice)]
    shape = _shape(ds, key)
    if not prod(shape) or not shape:
        raise RefusedError(
            f"the region has the shape {shape}: it needs at least one axis and one element"
        )
    chunks = tuple(min(ds.chunk_size[axis], n) for axis, n in zip(kept, shape, strict=True))
    folder = tempfile.mkdtemp(dir=os.path.dirname(target), prefix=".region-")
    try:
        with dosna.Connection(folder, backend="file", engine="cpu") as own:
            copy = own.create_dataset(_NAME, shape, ds.dtype, chunk_size=chunks)
            _copy(ds, full, copy, kept[0])
            own.export(target, select=_NAME)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _copy(ds: Any, full: list[slice | int], copy: Any, axis: int) -> None:
    """Copy a region in blocks along its first axis."""
    chosen = full[axis]
    assert isinstance(chosen, slice)
    begin, end, _ = chosen.indices(ds.shape[axis])
    row = prod(copy.shape[1:]) * ds.dtype.itemsize
    chunk = copy.chunk_size[0]
    step = max(chunk, _BLOCK // max(1, row) // chunk * chunk)
    for start in range(begin, end, step):
        stop = min(start + step, end)
        full[axis] = slice(start, stop)
        copy[start - begin : stop - begin] = ds[tuple(full)]


class DosnaPlace(Place):
    """A connection as a place, which stores arrays in files as datasets, and reads them as files.

    Parameters
    ----------
    url : str
        The URL of the connection, or of a group in it.
    """

    is_exact = False

    def __init__(self, url: str) -> None:
        super().__init__(f"dosna:{url.partition('?')[0]}")
        self._url = url

    def _connect(self, mode: str) -> tuple[Any, str]:
        con, group = dosna.open_url(self._url, mode=mode)
        return con, f"{group}/" if group else ""

    def check(self) -> None:
        con, _ = self._connect("a")
        with con:
            pass

    def size(self, path: str) -> int:
        con, group = self._connect("r")
        with con:
            self._names(con, group + _stem(path), path)
        return -1

    def _names(self, con: Any, name: str, path: str) -> list[str]:
        names = [one for one in con if one == name or one.startswith(f"{name}/")]
        if not names:
            raise SourceNotFoundError(f"{self.shown} has no dataset for {path}")
        return names

    def download(self, path: str, target: str, tell: Tell | None = None) -> None:
        con, group = self._connect("r")
        with con:
            con.export(target, select=self._names(con, group + _stem(path), path))
        if tell is not None:
            tell(os.path.getsize(target))

    def prepare(self, source: str, path: str, tell: Tell | None = None) -> Prepared:
        if not path.endswith(SUFFIXES):
            raise RefusedError(
                f"{path} cannot be stored at {self.shown}, which stores arrays: use files with "
                f"one of the suffixes {', '.join(SUFFIXES)}"
            )
        con, group = self._connect("a")
        with con:
            con.ingest(source, group + _stem(path), overwrite=True)
        if tell is not None:
            tell(os.path.getsize(source))
        return self.named(path)

    def remove(self, path: str) -> None:
        con, group = self._connect("a")
        name = group + _stem(path)
        with con:
            for one in [one for one in con if one == name or one.startswith(f"{name}/")]:
                con.del_dataset(one)


def _stem(path: str) -> str:
    return path[: -len(suffix)] if (suffix := _suffix(path)) else path


def _suffix(path: str) -> str:
    return next((one for one in SUFFIXES if path.endswith(one)), "")
