"""HDF5 and NeXus files, local or in S3."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import h5py
import numpy as np

from dosna.backends.linked.link import Link
from dosna.columns.description import from_texts, without_source
from dosna.core.types import Array, Box
from dosna.errors import (
    DosnaError,
    RefusedError,
    SourceChangedError,
    SourceError,
    SourceNotFoundError,
)
from dosna.io.bytefile import ByteFile
from dosna.io.local import LocalFile
from dosna.io.opening import foreign_format, open_bytes
from dosna.io.s3.options import S3Options, takes_s3_options
from dosna.io.s3file import S3File
from dosna.sources.base import ArrayDescription, Source
from dosna.sources.errors import OF_READING, Converting
from dosna.sources.hdf5.direct import (
    stored_records,
)
from dosna.sources.hdf5.layout import stored_layout
from dosna.sources.hdf5.plain import PlainReader, describe_plain
from dosna.sources.hdf5.reader import DatasetReader, UnreadableError
from dosna.sources.hdf5.scales import Scales
from dosna.sources.hdf5.tree import Tree, key_of, place_of, walk
from dosna.sources.hdf5.types import (
    name_of,
)
from dosna.sources.kinds import SourceKind, registry

__all__ = ["KIND", "H5Source"]

_MOST_READERS = 256
_MOST_PLAIN = 1 << 16
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
        self._tree: Tree | None = None
        self._readers: dict[str, DatasetReader] = {}
        self._plain: dict[str, PlainReader] = {}
        self._scales = Scales(self._name_of)
        if isinstance(location, str):
            self._bytes = open_bytes(location, reached)
        elif isinstance(location, ByteFile):
            self._bytes, location = location, location.location
        else:
            self._file, inner = location.file, location.name
            location = str(location.file.filename)
        super().__init__(location, "/".join(filter(None, inner.split("/"))))

    def _name_of(self, opened: Any) -> str | None:
        tree = self._tree
        return None if tree is None else tree.places.get(place_of(opened))

    def unopened(self) -> dict[str, Any]:
        kept: dict[str, Any] = {"_readers": {}, "_plain": {}, "_scales": Scales(self._name_of)}
        return {"_file": None, "_tree": None, **kept}

    @property
    def picklable(self) -> bool:
        return not self._given

    @property
    def file(self) -> Any:
        """The file, opened by h5py."""
        return self._opened()

    def close(self) -> None:
        with self._lock:
            kept = self._file if self._given else None
            if self._file is not None and kept is None:
                self._file.close()
            self.__dict__.update(self.unopened(), _file=kept, _state=None)
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
        found = self._walked().groups
        return {name: without_source(from_texts(attrs)) for name, attrs in found.items()}

    def describe(self, name: str) -> ArrayDescription:
        tree = self._walked()
        if name in tree.broken:
            return ArrayDescription(name, refused=tree.broken[name])
        if name not in tree.arrays:
            raise SourceNotFoundError(f"{self} has no array {name!r}")
        links = tuple(tree.arrays[name])
        try:
            plain = self._describe_plain(name, links)
            return plain or self._reader(name).describe(name, links, self._name_of)
        except OF_READING:
            raise
        except Exception as error:
            # Libraries may raise anything for the contents of a file. It concerns this array only.
            return ArrayDescription(name, refused=f"it cannot be read: {_why(error)}", links=links)

    def _describe_plain(self, name: str, links: tuple[str, ...]) -> ArrayDescription | None:
        """Describe an array if that takes little, and keep its reader."""
        with self._lock:
            opened = self._opened()
            if self._bytes is None or opened.mode != "r":
                return None
            found = None
            with suppress(OSError, RuntimeError, KeyError, TypeError, ValueError):
                # `DatasetReader` says what is wrong.
                found = describe_plain(self._bytes, opened, name, links, self._name_of)
            if found is None:
                return None
            while len(self._plain) >= _MOST_PLAIN:
                del self._plain[next(iter(self._plain))]
            self._plain[name] = found[1]
            return found[0]

    def read(self, name: str, box: Box) -> Array:
        reader = self._any_reader(name)
        out = np.empty([s.stop - s.start for s in box], reader.dtype)  # written completely
        self.read_into(name, box, out)
        return out

    def read_into(self, name: str, box: Box, out: Array) -> None:
        with self._reading(name):
            self._any_reader(name).read_into(box, out)

    def stored(self, name: str) -> Array | None:
        with self._reading(name):
            return self._any_reader(name).stored()

    def link(self, name: str) -> Link | None:
        if self._bytes is None:
            raise RefusedError("it is in an open file: give the path of the file")
        with self._reading(name):
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

    def _reading(self, name: str) -> Converting:
        def convert(error: Exception) -> SourceError:
            changed = ", and its file has changed since it was opened" * self.has_changed()
            return SourceError(
                f"{name!r} of {self.location} cannot be read: {_why(error)}{changed}"
            )

        return Converting(convert)

    def _fingerprint(self) -> str:
        """Return the fingerprint that was taken first, before anything else was read."""
        return self._state or self.fingerprint()

    def chunk_records(self, name: str) -> tuple[Array, Array]:
        with self._reading(name):
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
        except DosnaError:
            raise
        except OSError as error:
            text = str(error)
            if any(part in text for part in _BEING_WRITTEN):
                advice = "another program is writing it: close it there first"
            elif "truncated" in text:
                advice = "it is truncated: wait until it is written, or copy it again"
            elif "signature not found" in text:
                advice = f"it is {foreign_format(self.location) or 'not an HDF5 file'}"
            else:
                advice = "it is damaged, or not an HDF5 file"
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
                with self._reading(self.inner or "/"):
                    self._tree = walk(self._opened(), self.inner)
            return self._tree

    def _any_reader(self, name: str) -> DatasetReader | PlainReader:
        return self._plain.get(name) or self._reader(name)

    def _reader(self, name: str) -> DatasetReader:
        with self._lock:
            found = self._readers.get(name)
            if found is None:
                node = self._node(name)
                # Datasets in another file are read by libhdf5.
                own = node.file.filename == self._opened().filename
                writable = self._opened().mode != "r"
                direct = self._bytes if own and not writable else None
                found = DatasetReader(node, direct, self._scales)
                # Each reader may hold the places of millions of chunks.
                while len(self._readers) >= _MOST_READERS:
                    del self._readers[next(iter(self._readers))]
                self._readers[name] = found
            return found


def _why(error: BaseException) -> str:
    if isinstance(error, (UnreadableError, DosnaError)):
        return str(error)
    if isinstance(error, MemoryError):
        return f"it needs more memory than there is ({error})"
    if isinstance(error, (OSError, RuntimeError, KeyError)):
        return f"HDF5 cannot read it ({error})"
    return f"{type(error).__name__}: {error}"


KIND = SourceKind(
    name="hdf5",
    source=H5Source,
    claims=registry.known["hdf5"].about,
    description="HDF5 and NeXus files, local or in S3",
    url="https://www.hdfgroup.org/solutions/hdf5/",
)
