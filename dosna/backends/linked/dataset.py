"""Linked datasets, whose chunks lie in HDF5 files: only the places of the chunks are stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from inspect import signature
from typing import Any, NoReturn

import numpy as np

from dosna.backends.base import (
    BackendDataset,
    ChunkState,
    Guarantees,
)
from dosna.backends.linked.link import Link
from dosna.backends.linked.reader import ChunkReader, Records, numbers_of
from dosna.codecs.hdf5 import FLETCHER32, Decoder, UndecodableError, decoders_of
from dosna.core.metadata import DatasetMetadata
from dosna.core.plan import ChunkTask, Plan
from dosna.core.types import Array, Shape, Slices
from dosna.errors import (
    ChunkCorruptError,
    MissingDependencyError,
    ReadOnlyError,
    SourceError,
    StaleDatasetError,
)
from dosna.io.cache import Cache
from dosna.io.contiguous import ContiguousReader
from dosna.io.ranges import within

__all__ = ["LinkedDataset"]


_ALL = slice(None)
_BLOCKS_KEPT = 64
_NOTHING = np.zeros((), np.uint8)


class LinkedDataset(BackendDataset):
    """An array whose chunks lie in a file; it is read-only, except for its attributes.

    Parameters
    ----------
    table : BackendDataset
        The table that is stored for it, whose metadata have a link.
    """

    keys: tuple[str, str] | None = None
    """The access key and the secret key of S3, where boto3 does not find those for the file."""

    def __init__(self, table: BackendDataset) -> None:
        self.table = table
        self.connection = table.connection
        self.name = table.name
        self.prepare()

    def prepare(self) -> None:
        self._blocks: Cache[Array] = Cache(_BLOCKS_KEPT)
        self._seen: DatasetMetadata | None = None
        self._take_over(self.table.metadata)

    def __getstate__(self) -> dict[str, Any]:
        return {"table": self.table, "connection": self.connection, "name": self.name}

    def _take_over(self, stored: DatasetMetadata) -> None:
        if stored.link is None:
            raise self._stale()
        if self._seen is None or stored.link != self._seen.link:
            self.link = Link.from_json(stored.link, f"{self.name!r} of {self.connection.name!r}")
            # All elements lie together in a local file: then any box is read at once.
            self._lies_together = self.link.offset is not None and not self.remote
            self._blocks.clear()
            for derived in ("_decoders", "_kept", "_together"):
                self.__dict__.pop(derived, None)
        self._seen, self._metadata = stored, self.link.metadata(stored)

    @property
    def metadata(self) -> DatasetMetadata:
        """Metadata of the array; those of its table are in `table`."""
        stored = self.table.metadata
        if stored is not self._seen:
            self._take_over(stored)
        return self._metadata

    @metadata.setter
    def metadata(self, new: DatasetMetadata) -> None:
        self.table.metadata = _stored(self.table.metadata, new)

    # -- description ----------------------------------------------------------------------

    @property
    def guarantees(self) -> Guarantees:
        return Guarantees(
            partial_writes="none",
            atomic_chunks=True,
            durable=True,
            checksum=any(code == FLETCHER32 for code, _ in self.link.filters),
            notes=(
                f"it is linked: its chunks are in {self.link.url}, and are only read. If that "
                "file has changed or is missing, reading is an error",
            ),
        )

    @property
    def remote(self) -> bool:
        return "://" in self.link.url

    @property
    def schedules_requests(self) -> bool:
        return self.remote

    @property
    def create_options(self) -> dict[str, Any]:
        takes_dims = "dims" in signature(self.connection.create_dataset).parameters
        return {"dims": self.dims} if takes_dims and self.dims is not None else {}

    @property
    def dims(self) -> tuple[str | None, ...] | None:
        """Names of the axes, or None if they have none."""
        return self.link.dims

    def update(self, change: Callable[[DatasetMetadata], DatasetMetadata]) -> None:
        def changed(stored: DatasetMetadata) -> DatasetMetadata:
            return _stored(stored, change(self.link.metadata(stored)))

        self.table.update(changed)

    def refresh(self) -> None:
        self.table.refresh()

    def flush(self) -> None:
        self.table.flush()

    # -- chunks ---------------------------------------------------------------------------

    @cached_property
    def _decoders(self) -> list[tuple[int, Decoder]]:
        found = decoders_of(self.link.filters, self.link.dtype.itemsize)
        if found is None:
            raise MissingDependencyError(
                f"dataset {self.name!r} links to chunks with HDF5's filters "
                f"{[code for code, _ in self.link.filters]}, one of which cannot be decoded here: "
                "pip install numcodecs"
            )
        return found

    def _reader(self) -> ChunkReader:
        # Made for each read, because there may be thousands of handles, and each would keep its
        # file open.
        meta, link = self.metadata, self.link
        rows = link.offset is not None
        return ChunkReader(link.open(self.keys), meta, self._decoders, self._find, rows)

    def _find(self, indices: Sequence[Shape]) -> Records:
        if self.link.offset is not None:
            return self._find_rows(indices)
        if self._kept is None:
            return self._find_in_table(indices)
        return self._kept[:, numbers_of(indices, self.metadata.chunk_grid)]

    @cached_property
    def _kept(self) -> Records | None:
        kept = self.link.records
        return None if kept is None else np.array(kept, np.int64).reshape(-1, 3).T

    def _find_rows(self, indices: Sequence[Shape]) -> Records:
        """Return the places of rows of an array that lies together in its file."""
        meta, offset = self.metadata, self.link.offset or 0
        strides = [meta.dtype.itemsize]
        for n in meta.shape[:0:-1]:
            strides.insert(0, strides[0] * n)
        records = []
        for idx in indices:
            start, size = offset, meta.dtype.itemsize
            for i, c, n, s in zip(idx, meta.chunk_size, meta.shape, strides, strict=True):
                start += i * c * s
                size *= min(c, n - i * c)
            records.append((start, size, 0))
        return np.array(records, np.int64).reshape(-1, 3).T

    def _find_in_table(self, indices: Sequence[Shape]) -> Records:
        numbers = numbers_of(indices, self.metadata.chunk_grid)
        blocks, columns = np.divmod(numbers, self.table.metadata.chunk_size[1])
        first = int(blocks[0]) if len(blocks) else 0
        if (blocks == first).all():
            return self._block(first)[:, columns]
        records = np.empty((3, len(indices)), np.int64)
        for block in np.unique(blocks).tolist():
            here = blocks == block
            records[:, here] = self._block(block)[:, columns[here]]
        return records

    def _block(self, number: int) -> Array:
        return self._blocks.get(number, lambda: self._read_block(number))

    def _read_block(self, number: int) -> Array:
        link = self.table.metadata.link
        try:
            found = np.asarray(self.table.get_chunk_data((0, number)))
        except ChunkCorruptError as error:
            raise ChunkCorruptError(
                f"the places of the chunks of dataset {self.name!r} in {self.link.url} are "
                f"damaged: delete the dataset, and link it again ({error})"
            ) from error
        # The block belongs to this link only if the dataset still has the link afterwards.
        self.table.refresh()
        if self.table.metadata.link != link:
            raise self._stale()
        return found

    def _stale(self) -> StaleDatasetError:
        return StaleDatasetError(
            f"dataset {self.name!r} was created again since this handle was opened: get it again "
            "from its connection"
        )

    def _failed(self, error: UndecodableError | SourceError) -> ChunkCorruptError | SourceError:
        """Return the error that names this dataset for one of reading the file."""
        if isinstance(error, SourceError):
            return type(error)(f"dataset {self.name!r} cannot be read: {error}")
        return ChunkCorruptError(
            f"a chunk of dataset {self.name!r}, which lies in {self.link.url}, cannot be "
            f"decoded: {error}. Restore that file from a copy, if h5py cannot read it either"
        )

    def get_chunk_data(self, idx: Shape, slices: Slices | None = None) -> Any:
        meta = self.metadata
        key = meta.bounds(idx).chunk if slices is None else slices
        if self._lies_together:
            box = self._box(idx, key, meta)
            if box is not None:
                part = np.empty([b.stop - b.start for b in box], meta.dtype)
                self._read_boxes(((box, part),))
                # An integer takes the only element of its axis.
                return part[tuple([0 if type(k) is int else _ALL for k in key])]
        if slices is not None and not meta.tiled:
            inside = meta.bounds(idx).chunk
            extent = tuple([s.stop for s in inside])
            if extent != meta.chunk_size and not within(key, meta.chunk_size, extent):
                chunk = meta.empty_chunk()
                chunk[inside] = self.get_chunk_data(idx)
                return chunk[key]
        shape = np.broadcast_to(_NOTHING, meta.chunk_size)[key].shape
        part = np.empty(shape, meta.dtype)
        self.read_many(part, [ChunkTask(idx, key, (...,), False)])
        return part if shape else part[()]

    def read_many(self, out: Array, tasks: Iterable[ChunkTask]) -> None:
        if self._lies_together and isinstance(tasks, Plan):
            meta = self.metadata
            boxes = tasks.boxes(meta.chunk_size)
            if boxes is not None:
                self._read_boxes([(box, out[where]) for box, where in boxes])
                return
        try:
            self._reader().read_many(out, tasks)
        except (UndecodableError, SourceError) as error:
            raise self._failed(error) from error

    @cached_property
    def _together(self) -> ContiguousReader:
        """Reader of an array that lies together in its file."""
        meta, link = self.metadata, self.link
        return ContiguousReader(link.open(self.keys), link.offset or 0, meta.shape, meta.dtype)

    def _read_boxes(self, boxes: Sequence[tuple[Any, Array]]) -> None:
        try:
            reader = self._together
            for box, part in boxes:
                reader.read_into(box, part)
        except SourceError as error:
            raise self._failed(error) from error

    def _box(self, idx: Shape, key: Slices, meta: DatasetMetadata) -> list[slice] | None:
        """Return the box of the array that the part `key` of a chunk is, or None."""
        box = []
        for i, c, n, k in zip(idx, meta.chunk_size, meta.shape, key, strict=True):
            if type(k) is int:
                first, last = k, k + 1
            elif type(k) is slice and k.step in (None, 1):
                first, last = k.start, k.stop
                if type(first) is not int or type(last) is not int:
                    return None
            else:
                return None
            start = i * c
            if not 0 <= first <= last <= c or start + last > n:
                return None
            box.append(slice(start + first, start + last))
        return box

    def has_chunk(self, idx: Shape) -> bool:
        return bool(self._record(idx)[1])

    def _record(self, idx: Shape) -> list[int]:
        return [int(n) for n in self._find([idx])[:, 0]]

    def chunk_indices(self) -> Iterator[Shape]:
        grid = self.metadata.chunk_grid
        if not self.link.tabled:
            yield from (idx for idx in np.ndindex(grid) if self.has_chunk(idx))
            return
        size = self.table.metadata.chunk_size[1]
        # A block of the table does not exist if none of its chunks is stored.
        for block in sorted(idx[1] for idx in self.table.chunk_indices()):
            for column in np.flatnonzero(self._block(block)[1]).tolist():
                yield tuple(int(i) for i in np.unravel_index(block * size + column, grid))

    def verify_chunk(self, idx: Shape) -> ChunkState:
        _, size, mask = self._record(idx)
        if not size:
            return "never written"
        try:
            self.get_chunk_data(idx)
        except ChunkCorruptError:
            return "corrupt"
        return "ok" if self._reader().is_checked(mask) else "unchecked"

    # -- unsupported operations -----------------------------------------------------------

    def check_writable(self) -> None:
        raise ReadOnlyError(
            f"dataset {self.name!r} is linked: its data are in {self.link.url}, which dosna does "
            "not change. Copy them by ds.clone(name, data=True), or by con.ingest"
        )

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        self.check_writable()
        raise AssertionError

    set_chunk_data = write_many = del_chunk = del_objects = resize = extend = _refuse


def _stored(stored: DatasetMetadata, shown: DatasetMetadata) -> DatasetMetadata:
    """Return a table's metadata with the attributes and the state of the array it stands for."""
    return stored.replace(attrs=shown.attrs, incomplete=shown.incomplete, origin=shown.origin)
