"""HDF5 and NeXus files, local or in S3."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from itertools import chain
from typing import Any

import h5py
import numpy as np
from h5py import h5d

from dosna.backends.linked.link import Link
from dosna.codecs.hdf5 import UndecodableError
from dosna.core.plan import plan
from dosna.core.selection import select
from dosna.core.text import TEXT
from dosna.core.types import Array, Box, Shape
from dosna.errors import (
    DosnaError,
    RefusedError,
    SourceChangedError,
    SourceError,
    SourceNotFoundError,
)
from dosna.io.bytefile import ByteFile
from dosna.io.contiguous import bytes_of, rows
from dosna.io.local import LocalFile
from dosna.io.opening import foreign_format, open_bytes
from dosna.io.s3.options import S3Options, takes_s3_options
from dosna.io.s3file import S3File
from dosna.sources.base import ArrayDescription, Source
from dosna.sources.hdf5.direct import (
    direct_reader,
    nothing_stored,
    read_by_libhdf5,
    stored_chunks,
    stored_records,
)
from dosna.sources.hdf5.layout import stored_layout
from dosna.sources.hdf5.outside import missing_raw_file, raw_reader, view_notes
from dosna.sources.hdf5.scales import Scales, is_hidden
from dosna.sources.hdf5.strings import as_dtype, blocks, measure
from dosna.sources.hdf5.tree import Tree, key_of, place_of, walk
from dosna.sources.hdf5.types import (
    attributes,
    is_never_written,
    is_partly_undefined,
    is_stored_as,
    name_of,
    represent,
    stored_fill,
    stored_text,
)
from dosna.sources.kinds import SourceKind, registry

__all__ = ["KIND", "H5Source"]

_MOST_READERS = 256
_NON_COORDINATE = "_nc4_non_coord_"
_BEING_WRITTEN = ("unable to lock file", "already open for", "consistency flag")


class H5Source(Source):
    """The datasets of an HDF5 file, by their paths in it.

    Each dataset is one array, under the first of its names. Other hard links, and soft and
    external links to it, are in its `links`. If gzip, shuffle and Fletcher-32 are the only
    filters, elements are read from the file's bytes and decoded in the reading thread. Otherwise
    libhdf5 reads them.

    Parameters
    ----------
    location : str, ByteFile or h5py.File, h5py.Group, h5py.Dataset
        A path, an ``s3://bucket/key`` URL, the file's bytes, or an open object, which stays
        open.
    inner : str
        A group or a dataset of the file; the whole file by default.
    **options
        The server of an ``s3://`` URL, by the fields of `dosna.io.s3.options.S3Options`.
    """

    @takes_s3_options
    def __init__(self, location: Any, inner: str = "", **options: Any) -> None:
        reached = S3Options(**options)
        self._given = not isinstance(location, (str, ByteFile))
        self._opening = secrets.token_hex(8)
        self._bytes: ByteFile | None = None
        self._state: str | None = None
        self._file: Any = None
        if isinstance(location, str):
            self._bytes = open_bytes(location, reached)
        elif isinstance(location, ByteFile):
            self._bytes, location = location, location.location
        else:
            self._file, inner = location.file, location.name
            location = str(location.file.filename)
        super().__init__(location, "/".join(filter(None, inner.split("/"))))
        self._forget()

    def _forget(self) -> None:
        self._state = None
        self._tree: Tree | None = None
        self._readers: dict[str, _Reader] = {}
        self._scales = Scales(self._name_of)

    def _name_of(self, opened: Any) -> str | None:
        tree = self._tree
        return None if tree is None else tree.places.get(place_of(opened))

    def __getstate__(self) -> dict[str, Any]:
        if self._given:
            raise TypeError(f"{self!r} is an open file, and cannot be sent to another process")
        forgotten = dict.fromkeys(("_file", "_tree", "_scales"))
        return {**super().__getstate__(), **forgotten, "_readers": {}}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        super().__setstate__(state)
        self._scales = Scales(self._name_of)

    @property
    def travels(self) -> bool:
        return not self._given

    @property
    def file(self) -> Any:
        """The file, opened by h5py."""
        return self._opened()

    def close(self) -> None:
        with self._lock:
            self._forget()
            if not self._given and self._file is not None:
                self._file.close()
                self._file = None
            if self._bytes is not None:
                self._bytes.close()

    @property
    def single(self) -> bool:
        return bool(self.inner) and isinstance(self._node(self.inner), h5py.Dataset)

    def fingerprint(self) -> str:
        if self._bytes is not None:
            self._state = self._bytes.fingerprint()
            return self._state
        if self._opened().mode != "r":
            return f"open for writing, {self._opening}"
        with suppress(OSError):
            status = os.stat(self.location)
            return f"size {status.st_size}, mtime {status.st_mtime_ns}"
        return f"open file of {self._opened().id.get_filesize()} bytes"

    def has_changed(self) -> bool:
        """Return True if the file is known to have changed since it was opened."""
        with suppress(DosnaError, OSError):
            before = self._state
            return (
                before is not None
                and self._bytes is not None
                and (self._bytes.fingerprint() != before)
            )
        return False

    def names(self) -> list[str]:
        tree = self._walked()
        return sorted([*tree.arrays, *tree.broken])

    def links(self) -> Mapping[str, str]:
        return {link: name for name, links in self._walked().arrays.items() for link in links}

    def groups(self) -> Mapping[str, Mapping[str, Any]]:
        return self._walked().groups

    def describe(self, name: str) -> ArrayDescription:
        tree = self._walked()
        if name in tree.broken:
            return ArrayDescription(name, refused=tree.broken[name])
        if name not in tree.arrays:
            raise SourceNotFoundError(f"{self!r} has no array {name!r}")
        links = tuple(tree.arrays[name])
        try:
            return self._reader(name).describe(name, links, self._name_of)
        except SourceChangedError:
            raise
        except Exception as error:
            # Libraries may raise anything for the contents of a file. It concerns this array only.
            return ArrayDescription(name, refused=f"it cannot be read: {_why(error)}", links=links)

    def read(self, name: str, box: Box) -> Array:
        reader = self._reader(name)
        out = np.empty([s.stop - s.start for s in box], reader.dtype)  # written completely
        self.read_into(name, box, out)
        return out

    def read_into(self, name: str, box: Box, out: Array) -> None:
        with _reading(self, name):
            self._reader(name).read_into(box, out)

    def stored(self, name: str) -> Array | None:
        with _reading(self, name):
            return self._reader(name).stored()

    def link(self, name: str) -> Link | None:
        if self._bytes is None:
            raise RefusedError("it is of a file that is open: give its path")
        with _reading(self, name):
            reader = self._reader(name)
            file, state = self._bytes, None
            own = reader.dataset.file.filename
            if own != self._opened().filename:
                file = LocalFile(os.path.abspath(os.fsdecode(own)))
                state = file.fingerprint()  # before the places are read
                opened = os.fstat(reader.dataset.file.id.get_vfd_handle())
                if not os.path.samestat(opened, os.stat(file.location)):
                    raise SourceChangedError(
                        f"{file.location} was replaced since it was opened: open it again"
                    )
            layout = stored_layout(reader.dataset, reader.as_)
            if layout is None:
                return None
            return Link(
                os.path.abspath(file.location) if isinstance(file, LocalFile) else file.location,
                name_of(reader.dataset) or name,
                state or self._fingerprint(),
                reader.as_.shape,
                reader.dtype,
                layout.fillvalue,
                layout.chunk_size,
                layout.filters,
                layout.offset,
                layout.records,
                self._scales.names(reader.dataset),
                file.options.portable() if isinstance(file, S3File) else {},
            )

    def _fingerprint(self) -> str:
        """Return the fingerprint that was taken first, before anything else was read."""
        return self._state or self.fingerprint()

    def chunk_records(self, name: str) -> tuple[Array, Array]:
        with _reading(self, name):
            return stored_records(self._reader(name).dataset)

    def _opened(self) -> Any:
        with self._lock:
            if self._file is None:
                self._file = self._open()
            return self._file

    def _open(self) -> Any:
        assert self._bytes is not None
        _ = self._bytes.size  # raises if the file does not exist
        try:
            if isinstance(self._bytes, LocalFile):
                return h5py.File(self.location, "r")
            return h5py.File(self._bytes.stream(), "r")
        except OSError as error:
            text = str(error)
            if any(part in text for part in _BEING_WRITTEN):
                advice = "another program is writing it: close it there first"
            elif "truncated" in text:
                advice = "it is truncated: wait until it is written, or copy it again"
            elif "signature not found" in text:
                advice = f"it is {foreign_format(self.location) or 'no HDF5 file'}"
            else:
                advice = "it is damaged, or no HDF5 file"
            raise SourceError(f"{self.location} cannot be opened: {advice} ({error})") from error

    def _node(self, name: str) -> Any:
        try:
            return self._opened()[key_of(name)]
        except (KeyError, RuntimeError) as error:
            raise SourceNotFoundError(f"{self.location} has no {name!r}: {error}") from None

    def _walked(self) -> Tree:
        with self._lock:
            if self._tree is None:
                if self.inner:
                    self._node(self.inner)
                with _reading(self, self.inner or "/"):
                    self._tree = walk(self._opened(), self.inner)
            return self._tree

    def _reader(self, name: str) -> _Reader:
        with self._lock:
            found = self._readers.get(name)
            if found is None:
                node = self._node(name)
                # Datasets in another file are read by libhdf5.
                own = node.file.filename == self._opened().filename
                writable = self._opened().mode != "r"
                direct = self._bytes if own and not writable else None
                found = _Reader(node, direct, self._scales)
                # Each reader may hold the places of millions of chunks.
                while len(self._readers) >= _MOST_READERS:
                    del self._readers[next(iter(self._readers))]
                self._readers[name] = found
            return found


class _Reader:
    """A reader of one dataset."""

    def __init__(self, dataset: Any, file: ByteFile | None, scales: Scales) -> None:
        self.dataset, self._scales = dataset, scales
        self.as_ = represent(dataset)
        self.refused = self.as_.refused
        self.dtype, self.shape = self.as_.dtype, self.as_.shape
        self._file, self._lock = file, threading.Lock()
        self._found_direct: Any = None
        if not self.refused and not self.as_.empty:
            missing = missing_raw_file(dataset) or _missing_filter(dataset)
            if missing and not self._direct:
                self.refused = missing
        self._undefined = self.as_.strings and is_partly_undefined(dataset)
        if self._undefined and dataset.id.get_storage_size():
            # For missing chunks, h5py would take uninitialised memory for the places of strings.
            self.refused = (
                "its file does not define what those of its strings are that are missing"
            )
        if self.refused:
            return
        if self.as_.strings and nothing_stored(dataset):
            self.dtype, _ = measure((), iter([self._text_fill]))
        elif self.as_.strings:
            parts = map(self._strings, self._written())
            self.dtype, self.refused = measure(self.shape, chain([self._text_fill], parts))
        if dataset.shape and not self.as_.empty:
            own = len(dataset.shape)
            self.shape = (*scales.shape(dataset), *self.as_.shape[own:])

    def stored(self) -> Array | None:
        """Return the chunks that are stored, if the others are the fill value in `describe`."""
        dataset = self.dataset
        if self.as_.empty or not dataset.shape or not dataset.size:
            return None
        if not self._fill_is_described and dataset.id.get_create_plist().fill_value_defined() == (
            h5d.FILL_VALUE_USER_DEFINED
        ):
            return None
        found = stored_chunks(dataset)
        if found is None or self.shape == dataset.shape:
            return found
        inner = np.zeros((len(found), len(self.shape) - len(dataset.shape)), np.int64)
        return np.concatenate([found, inner], axis=1)

    @property
    def _fill_is_described(self) -> bool:
        plain = self.dtype.kind in "biufcST" and len(self.as_.shape) == len(self.dataset.shape)
        return plain and not self.as_.empty

    def _strings(self, key: Any) -> Array:
        if self.as_.empty:
            return np.empty(0, object)
        if self._undefined:
            return np.full([s.stop - s.start for s in key], b"", object)
        if self._stored_strings is None:
            return np.asarray(self.dataset[key], object)
        found = np.full([s.stop - s.start for s in key], self._text_fill[()], object)
        chunks = self.dataset.chunks
        for task in plan(select(key, self.dataset.shape), chunks):
            if task.idx in self._stored_strings:
                at = zip(task.idx, chunks, task.chunk, strict=True)
                box = tuple(slice(i * c + s.start, i * c + s.stop) for i, c, s in at)
                found[task.out] = self.dataset[box]
        return found

    def _written(self) -> Iterator[Box]:
        """Yield boxes that cover all stored elements."""
        found = stored_chunks(self.dataset) if self.dataset.chunks else None
        if found is None:
            yield from blocks(self.shape)
            return
        for idx in found.tolist():
            along = zip(idx, self.dataset.chunks, self.dataset.shape, strict=True)
            yield tuple(slice(i * c, min(i * c + c, n)) for i, c, n in along)

    @cached_property
    def _stored_strings(self) -> set[Shape] | None:
        """Stored chunks, if libhdf5 cannot read the others; None if it can, or if all are stored.

        It would write the fill values of strings there, and fails if the file is not open for
        writing.
        """
        creation = self.dataset.id.get_create_plist()
        defined = creation.fill_value_defined() == h5d.FILL_VALUE_USER_DEFINED
        if not defined or creation.get_layout() != h5d.CHUNKED:
            return None
        found = stored_chunks(self.dataset)
        return None if found is None else set(map(tuple, found.tolist()))

    @property
    def _direct(self) -> Any:
        """Reader without libhdf5, or False. It is made when needed, because it lists chunks."""
        with self._lock:
            if self._found_direct is None:
                possible = not self.as_.strings and self.as_.shape == self.dataset.shape
                found: Any = None
                if possible and self.dataset.external:
                    found = raw_reader(self.dataset, self.dtype)
                elif possible:
                    found = direct_reader(self._file, self.dataset, self.dtype)
                self._found_direct = found or False
            return self._found_direct

    def describe(
        self, name: str, links: tuple[str, ...], known: Callable[[Any], str | None]
    ) -> ArrayDescription:
        dataset, found = self.dataset, self.as_
        if self.refused:
            return ArrayDescription(name, refused=self.refused, links=links)
        inner = self.shape[len(dataset.shape or ()) :] if not found.empty else ()
        chunks = (*dataset.chunks, *inner) if dataset.chunks else None
        notes = found.notes
        if found.strings and self.dtype != TEXT:
            notes += (f"its strings of variable length are kept as {self.dtype}",)
        with suppress(OSError, RuntimeError, ValueError, KeyError):
            notes += view_notes(dataset)
        if not found.empty and is_partly_undefined(dataset):
            notes += ("its file does not define what was never written: that is zero here",)
        if self.shape != found.shape:
            notes += (
                f"it was written up to {found.shape}, and is fill up to the longest along its "
                "unlimited dimensions, as netCDF shows it",
            )
        with suppress(OSError, RuntimeError, ValueError, KeyError):
            notes += _conventions(dataset, name)
        fill = None
        if not found.empty and not inner and self.dtype.kind in "biufcST":
            fill = self._fill
        return ArrayDescription(
            name,
            self.shape,
            self.dtype,
            {**attributes(dataset, known), **(found.attrs or {})},
            chunks=chunks,
            pieces=None if chunks else rows(self.shape, self.dtype.itemsize),
            dims=self._dims(inner),
            fillvalue=fill,
            links=links,
            notes=notes,
        )

    def _dims(self, inner: Shape) -> tuple[str | None, ...] | None:
        names = None if self.as_.empty else self._scales.names(self.dataset)
        return None if names is None else (*names, *(None for _ in inner))

    def read_into(self, box: Box, out: Array) -> None:
        stored = self.as_.shape
        if stored != self.shape:
            # Elements that netCDF shows, but the file does not have.
            ends = [min(b.stop, n) for b, n in zip(box, stored, strict=True)]
            box = tuple(slice(min(b.start, e), e) for b, e in zip(box, ends, strict=True))
            extent = tuple(b.stop - b.start for b in box)
            if extent != out.shape:
                out[...] = self._fill
                out = out[tuple(map(slice, extent))]
        self._read_into(box, out)

    def _read_into(self, box: Box, out: Array) -> None:
        direct, undecodable = self._direct, ""
        if direct:
            # Raise other errors: if the file ends too early, libhdf5 would read zeros.
            try:
                direct.read_into(box, out)
                return
            except UndecodableError as error:
                undecodable = str(error)
        if not out.size:
            return
        try:
            self._read_by_libhdf5(box, out)
        except (OSError, RuntimeError) as error:
            if not undecodable:
                raise
            missing = _missing_filter(self.dataset)
            raise _UnreadableError(
                f"a chunk of it is damaged: {undecodable} ({missing or error})"
            ) from error

    def _read_by_libhdf5(self, box: Box, out: Array) -> None:
        dataset, axes = self.dataset, len(self.dataset.shape)
        if self.as_.strings:
            out[...] = as_dtype(self._strings(box), self.dtype)
        elif axes < len(box):
            # The elements are arrays; h5py returns zeros where nothing is stored.
            out[...] = dataset[box[:axes]][(..., *box[axes:])]
        else:
            straight = out.flags.c_contiguous and out.dtype == self.dtype
            target = out if straight else np.empty(out.shape, self.dtype)
            # Where nothing is stored, libhdf5 may not write to memory (H5D_FILL_TIME_NEVER).
            if self.dtype.names is None:
                target[...] = self._fill
            else:  # fill the gaps between fields, too
                raw = np.frombuffer(bytes_of(target), np.uint8).reshape(-1, self.dtype.itemsize)
                raw[...] = np.frombuffer(self._fill.tobytes(), np.uint8)
            if not is_never_written(dataset):
                read_by_libhdf5(dataset, box, target, is_stored_as(dataset, self.dtype))
            if not straight:
                same = out.dtype == self.dtype and self.dtype.names is not None
                kind = f"V{self.dtype.itemsize}"
                (out.view(kind) if same else out)[...] = target.view(kind) if same else target

    @cached_property
    def _fill(self) -> Any:
        if self.as_.strings:
            return as_dtype(self._text_fill, self.dtype)[()]
        return stored_fill(self.dataset, self.dtype)

    @property
    def _text_fill(self) -> Array:
        return np.array(b"" if self.as_.empty else stored_text(self.dataset), object)


def _conventions(dataset: Any, name: str) -> tuple[str, ...]:
    """Return notes on what netCDF and MATLAB mean by a dataset, if it differs from HDF5."""
    notes: tuple[str, ...] = ()
    last = name.rpartition("/")[2]
    if last.startswith(_NON_COORDINATE):
        notes += (f"netCDF calls this variable {last.removeprefix(_NON_COORDINATE)!r}",)
    if is_hidden(dataset):
        notes += ("it is a dimension of netCDF without a variable: its elements mean nothing",)
    if "MATLAB_class" not in dataset.attrs:
        return notes
    kind = dataset.attrs["MATLAB_class"]
    kind = kind.decode("utf-8", "replace") if isinstance(kind, bytes) else str(kind)
    if dataset.attrs.get("MATLAB_empty"):
        notes += (f"it is MATLAB's empty {kind}: its elements are the extents, of which one is 0",)
    elif kind == "char":
        notes += ("it is text of MATLAB, kept as the numbers of its characters (UTF-16)",)
    elif dataset.dtype.names == ("real", "imag"):
        notes += ("it is complex in MATLAB, kept as a compound of real and imag",)
    return notes


# The filters of hdf5plugin 7. Earlier versions have all but the last.
_OF_HDF5PLUGIN = {
    *(307, 32001, 32004, 32008, 32013, 32015, 32017, 32018, 32024, 32026, 32028, 32033)
}


def _missing_filter(dataset: Any) -> str:
    creation = dataset.id.get_create_plist()
    for number in range(creation.get_nfilters()):
        code, _, _, label = creation.get_filter(number)
        if h5py.h5z.filter_avail(code):
            continue
        with suppress(ImportError):
            import hdf5plugin  # noqa: F401  brings filters by being imported

            if h5py.h5z.filter_avail(code):
                continue
        return (
            f"it needs HDF5's filter {code} ({label.decode(errors='backslashreplace')}), which is "
            "not there: "
            + (
                "pip install hdf5plugin"
                if code in _OF_HDF5PLUGIN
                else "install its maker's plugin, and set HDF5_PLUGIN_PATH to the folder"
            )
        )
    return ""


class _UnreadableError(Exception):
    """An error for an array that cannot be read. The message says why."""


def _why(error: BaseException) -> str:
    if isinstance(error, (_UnreadableError, DosnaError)):
        return str(error)
    if isinstance(error, MemoryError):
        return f"it takes more memory than there is ({error})"
    if isinstance(error, (OSError, RuntimeError, KeyError)):
        return f"HDF5 cannot read it ({error})"
    return f"{type(error).__name__}: {error}"


class _reading:
    """A context that converts errors of libraries to SourceError."""

    def __init__(self, source: H5Source, name: str) -> None:
        self.source, self.name = source, name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, DosnaError):
            changed = ", and its file has changed since it was opened" * self.source.has_changed()
            raise SourceError(
                f"{self.name!r} of {self.source.location} cannot be read: {_why(error)}{changed}"
            ) from error


KIND = SourceKind(
    name="hdf5",
    source=H5Source,
    claims=registry.known["hdf5"].about,
    description="HDF5 and NeXus files, local or in S3",
    url="https://www.hdfgroup.org/solutions/hdf5/",
)
