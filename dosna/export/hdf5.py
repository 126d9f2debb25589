"""Export to one HDF5 file: chunked datasets under their names, with their attributes.

The threads of one process read and compress the chunks, and write them to the file in their
final form. HDF5's own filters would run under its lock, one chunk at a time.
"""

from __future__ import annotations

import errno
import json
import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5p

from dosna.array.chunked import windows
from dosna.array.dataset import EngineDataset
from dosna.backends.base import BackendDataset
from dosna.backends.hdf5 import chunkfile as h5format
from dosna.backends.hdf5 import text as h5text
from dosna.codecs.deflate import compress_zlib
from dosna.core.metadata import DatasetMetadata
from dosna.core.names import parents
from dosna.core.plan import ChunkTask, every_chunk
from dosna.core.progress import share_of
from dosna.core.sizes import format_size
from dosna.core.text import TEXT, element_bytes
from dosna.core.types import Array, Box
from dosna.core.values import encode_value
from dosna.engines.base import Report
from dosna.engines.work.boxes import BoxReader, workers_within
from dosna.engines.work.flow import HELD, Flow, Overlapping
from dosna.errors import ConfigurationError, RefusedError, StorageError
from dosna.export.job import Job, array_of_list, file_chunks
from dosna.io.h5chunks import write_stored_chunk
from dosna.sources.datasets import groups_above

__all__ = ["write"]

_LEVEL = 4
_PER_STRING = 64
"""Bytes that a string takes at most beside its own."""

_HEAP = 1 << 16
"""Bytes that a new heap for strings takes at most."""

_writing_strings = threading.Lock()
"""Held until strings are written for which there was room."""

_NO_NAME = re.compile("^$|[\0\ud800-\udfff]")

_SCALE = "DIMENSION_SCALE"
_PROVENANCE = "_NCProperties"
_MARKERS = {
    *("DIMENSION_LABELS", "DIMENSION_LIST", "REFERENCE_LIST"),
    *("_Netcdf4Dimid", "_Netcdf4Coordinates"),
}
"""Attributes of HDF5's and netCDF's own bookkeeping, which describe the file that they were in.

Zarr arrays that were made from HDF5 may have them.
"""


def write(job: Job, path: str, report: Report | None) -> None:
    """Write all datasets into a new file, by one process."""
    if job.request.compression not in (None, "gzip"):
        raise ConfigurationError(
            f"compression of an HDF5 file is None or 'gzip', not {job.request.compression!r}"
        )
    job.runner.once(lambda: _write_file(job, path, report))


def _write_file(job: Job, path: str, report: Report | None) -> None:
    file = h5py.File(path, "x", libver=("v108", "v110"))
    try:
        _write_all(job, file, report)
    except BaseException:
        # On a full disk closing fails too, and would hide the cause.
        with suppress(Exception):
            file.close()
        raise
    try:
        file.close()
    except RuntimeError as error:
        raise StorageError(f"cannot write {path}: {error}") from error


def _write_all(job: Job, file: h5py.File, report: Report | None) -> None:
    done = 0
    for ds in job.datasets:
        _write_dataset(job, file, ds, share_of(report, done, ds.total_chunks))
        done += ds.total_chunks
    connection, names = job.datasets[0].connection, [ds.name for ds in job.datasets]
    for group, attrs in groups_above(connection, names).items():
        kept = {k: v for k, v in attrs.items() if group or k != _PROVENANCE}
        _set_attributes(file[group or "/"], kept)
    _name_axes(job.datasets, file)


def _write_dataset(
    job: Job, file: h5py.File, ds: EngineDataset, progress: Callable[[int, int], None] | None
) -> None:
    metadata = ds.instance.metadata
    metadata = metadata.replace(chunk_size=file_chunks(metadata, job.request.chunk_size))
    chunked = metadata.size > 0 and metadata.ndim > 0
    _check_limits(ds.name, metadata)
    made = _create(file, ds.name, metadata, bool(chunked and job.request.compression))
    own = _MARKERS | ({"CLASS", "NAME"} if _was_scale(ds) else set())
    _set_attributes(made, {k: v for k, v in ds.attrs.items() if k not in own})
    if chunked:
        count = _Counter(progress, metadata.total_chunks)
        work = _WriteChunks(ds.instance, made, metadata, bool(job.request.compression), count)
        _fill(job, work, ds)
    elif metadata.size:
        _write_box(made, (), np.asarray(ds[()], ds.dtype))


def _name_axes(datasets: Sequence[EngineDataset], file: h5py.File) -> None:
    """Make and attach dimension scales.

    A dataset becomes a scale if it was one, or if its only axis has its own name and no attribute
    of its own stands where a scale has others.
    """
    scales: dict[str, h5py.Dataset] = {}
    for ds in datasets:
        last, text = ds.name.rpartition("/")[2], ds.attrs.get("NAME")
        free = "CLASS" not in ds.attrs and (isinstance(text, str) or "NAME" not in ds.attrs)
        if ds.shape and (_was_scale(ds) or (free and ds.dims == (last,))):
            scales[ds.name] = file[ds.name]
            scales[ds.name].make_scale(text if isinstance(text, str) else last)
    for ds in datasets:
        if ds.name in scales and ds.ndim == 1:
            continue
        made, groups = file[ds.name], [*reversed(parents(ds.name)), ""]
        for axis, name in enumerate(ds.dims or ()):
            if name is None:
                continue
            known = (scales.get(f"{group}/{name}" if group else name) for group in groups)
            fitting = (s for s in known if s is not None and s.shape == (ds.shape[axis],))
            scale = next(fitting, None)
            # HDF5 attaches no scale to a dataset that is a scale itself.
            if scale is None or ds.name in scales:
                made.dims[axis].label = name
            else:
                made.dims[axis].attach_scale(scale)


def _check_limits(name: str, metadata: DatasetMetadata) -> None:
    if metadata.ndim > h5format.MOST_AXES:
        raise RefusedError(
            f"dataset {name!r} has {metadata.ndim} axes, and HDF5 has at most "
            f"{h5format.MOST_AXES}: export it to .zarr or .npy"
        )
    # An array without elements has no chunks in the file.
    if metadata.size and metadata.chunk_nbytes > h5format.MOST_CHUNK_BYTES:
        raise ConfigurationError(
            f"dataset {name!r} has chunks of {format_size(metadata.chunk_nbytes)}, and those of "
            "an HDF5 file are smaller than 4 GiB: give a smaller chunk_size="
        )


def _was_scale(ds: EngineDataset) -> bool:
    kind = ds.attrs.get("CLASS")  # of any type, such as an array, in files that are not HDF5
    return isinstance(kind, str) and kind == _SCALE


def _create(file: h5py.File, name: str, metadata: DatasetMetadata, compress: bool) -> h5py.Dataset:
    if metadata.dtype.kind in "UT":  # in HDF5, all text is of variable length
        kind = h5text.type_of_text()
        text = metadata.replace(dtype=TEXT, fillvalue=str(metadata.fillvalue))
        try:
            creation = h5format.creation_list(text, kind)
        except ValueError as error:
            raise RefusedError(f"the fill value of dataset {name!r}: {error}") from error
    else:
        kind = h5format.type_id(metadata.dtype)
        creation = h5format.creation_list(metadata, kind)
    if metadata.size and metadata.ndim:
        creation.set_chunk(metadata.chunk_size)
        if compress:
            if kind.get_size() > 1:
                creation.set_shuffle()
            creation.set_deflate(_LEVEL)
    links = h5p.create(h5p.LINK_CREATE)
    links.set_create_intermediate_group(True)
    space = h5format.dataspace(metadata.shape)
    h5d.create(file.id, name.encode(), kind, space, dcpl=creation, lcpl=links)
    return file[name]


def _write_box(data: h5py.Dataset, box: tuple[slice, ...], block: Array) -> None:
    """Write a block through HDF5's own conversion."""
    if block.dtype.kind in "UT":
        strings = block.astype(object)
        try:
            with _writing_strings:
                _check_room(data.file, strings)
                data[box] = strings
        except ValueError as error:  # from a NUL inside a string
            raise RefusedError(
                f"dataset {data.name.lstrip('/')!r} has a string that HDF5 cannot represent "
                f"({error}): export it to .zarr"
            ) from error
    else:
        raw = np.ascontiguousarray(block).reshape(-1).view("u1")
        data.id.write(h5py.h5s.ALL, h5py.h5s.ALL, raw, data.id.get_type())


def _check_room(file: h5py.File, strings: Array) -> None:
    """Raise OSError if the disk has no room for strings.

    libhdf5 2.0 ends the process if it finds no room while it writes strings of variable length.
    What it still holds has to be written before, so that it does not take the room.
    """
    file.flush()
    disk = os.statvfs(file.filename)
    text = "".join(strings.ravel().tolist()).encode("utf-8", "surrogatepass")
    needed = len(text) + _PER_STRING * strings.size + _HEAP
    if disk.f_blocks and disk.f_bavail * disk.f_frsize < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _fill(job: Job, work: _WriteChunks, ds: EngineDataset) -> None:
    box, limit = work.metadata.chunk_size, job.request.memory_limit
    held = 4 * prod(box) * element_bytes(ds.dtype)
    workers = workers_within(limit, held, "export")
    if ds.instance.remote:
        box, work.overlaps = windows(ds, box, held, limit)
    tasks = every_chunk(ds.shape, box)
    if workers is not None and workers < job.runner.threads:
        work(tasks)
    else:
        job.runner.map(work, tasks)


class _Counter:
    """A counter of chunks done by several threads; only the thread that made it reports.

    Parameters
    ----------
    report : callable or None
        A function of the number of chunks done and `total`.
    total : int
        The number of chunks.
    """

    def __init__(self, report: Callable[[int, int], None] | None, total: int) -> None:
        self._report, self._total = report, total
        self._done = 0
        self._lock = threading.Lock()
        self._owner = threading.get_ident()

    def one_more(self) -> None:
        with self._lock:
            self._done += 1
            done = self._done
        if self._report is not None and threading.get_ident() == self._owner:
            self._report(done, self._total)


@dataclass
class _WriteChunks(Overlapping):
    """A copy of chunks into an HDF5 dataset, in the form in which HDF5 stores them."""

    dataset: BackendDataset
    target: h5py.Dataset
    metadata: DatasetMetadata
    compress: bool
    count: _Counter

    def __call__(self, tasks: Iterable[ChunkTask]) -> None:
        with Flow(ahead=self.overlaps) as flow:
            for task, block in flow.read(BoxReader(self.dataset, HELD * self.overlaps), tasks):
                for part in every_chunk(block.shape, self.metadata.chunk_size):
                    self._write(_inside(task.out, part.out), block[part.out])
                    self.count.one_more()

    def _write(self, box: Box, chunk: Array) -> None:
        if chunk.dtype.kind in "UT":  # variable length: not stored in the chunk itself
            _write_box(self.target, box, chunk)
        else:
            start = tuple(s.start for s in box)
            write_stored_chunk(self.target.id, start, self._image(chunk))

    def _image(self, block: Array) -> Any:
        meta = self.metadata
        if block.shape != meta.chunk_size:
            whole = meta.empty_chunk()
            whole[tuple(map(slice, block.shape))] = block
            block = whole
        raw = np.ascontiguousarray(block).reshape(-1).view(np.uint8)
        if not self.compress:
            return raw
        if meta.dtype.itemsize > 1:
            raw = np.ascontiguousarray(raw.reshape(-1, meta.dtype.itemsize).T)
        return compress_zlib(raw.data, _LEVEL)


def _inside(box: Box, place: Box) -> Box:
    """Return the place in the array of a place in a box."""
    return tuple(
        slice(b.start + p.start, b.start + p.stop) for b, p in zip(box, place, strict=True)
    )


def _set_attributes(to: h5py.Dataset | h5py.Group, attrs: Mapping[str, Any]) -> None:
    for name, value in attrs.items():
        if _NO_NAME.search(name):
            raise RefusedError(
                f"an attribute of {to.name!r} is named {name!r}, which HDF5 cannot have: rename "
                "it, or export to .zarr"
            )
        try:
            _set_attribute(to, name, value)
        except (TypeError, ValueError, OverflowError, RuntimeError):
            # A value for which HDF5 has no type is kept as JSON text, without loss.
            to.attrs[name] = json.dumps(encode_value(value))


def _set_attribute(to: h5py.Dataset | h5py.Group, name: str, value: Any) -> None:
    if value is None:
        value = h5py.Empty("f8")
    elif isinstance(value, list):
        value = array_of_list(value)
    if not isinstance(value, (np.ndarray, np.generic)):
        to.attrs[name] = value
    elif value.dtype.kind in "UT":
        to.attrs[name] = np.asarray(value).astype(object) if value.shape else str(value)
    else:
        to.attrs.create(name, value, dtype=h5format.stored_dtype(value.dtype))
