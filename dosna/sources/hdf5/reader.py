"""A reader of one HDF5 dataset: from the file's bytes where that is possible, or by libhdf5."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cached_property
from itertools import chain
from typing import Any

import h5py
import numpy as np
from h5py import h5d

from dosna.codecs.hdf5 import UndecodableError
from dosna.core.plan import plan
from dosna.core.selection import select
from dosna.core.text import TEXT
from dosna.core.types import Array, Box, Shape
from dosna.io.bytefile import ByteFile
from dosna.io.contiguous import bytes_of, rows
from dosna.sources.base import ArrayDescription
from dosna.sources.hdf5.conventions import convention_notes
from dosna.sources.hdf5.direct import (
    direct_reader,
    nothing_stored,
    read_by_libhdf5,
    stored_chunks,
)
from dosna.sources.hdf5.outside import missing_raw_file, raw_reader, view_notes
from dosna.sources.hdf5.scales import Scales, is_hidden
from dosna.sources.hdf5.strings import as_dtype, blocks, measure
from dosna.sources.hdf5.types import (
    attributes,
    is_never_written,
    is_partly_undefined,
    is_stored_as,
    represent,
    stored_fill,
    stored_filters,
    stored_text,
)

__all__ = ["DatasetReader", "UnreadableError"]


class DatasetReader:
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
                "its file does not define the value of its strings that were never written"
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
        if self._described_fill is None and dataset.id.get_create_plist().fill_value_defined() == (
            h5d.FILL_VALUE_USER_DEFINED
        ):
            return None
        found = stored_chunks(dataset)
        if found is None or self.shape == dataset.shape:
            return found
        inner = np.zeros((len(found), len(self.shape) - len(dataset.shape)), np.int64)
        return np.concatenate([found, inner], axis=1)

    @cached_property
    def _described_fill(self) -> Any:
        """Fill value for `describe`; None if elements have axes, or libhdf5 cannot convert it."""
        if self.as_.empty or len(self.as_.shape) != len(self.dataset.shape):
            return None
        with suppress(OSError, RuntimeError):  # of an opaque type with a tag
            return self._fill
        return None

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
            notes += ("its file does not define elements that were never written: they are zero",)
        if self.shape != found.shape:
            notes += (
                f"it was written up to {found.shape}, and is fill up to the longest along its "
                "unlimited dimensions, as netCDF shows it",
            )
        attrs = {**attributes(dataset, known), **(found.attrs or {})}
        hidden = "CLASS" in attrs and is_hidden(dataset)
        notes += convention_notes(name, attrs, dataset.dtype, hidden)
        return ArrayDescription(
            name,
            self.shape,
            self.dtype,
            attrs,
            chunks=chunks,
            pieces=None if chunks else rows(self.shape, self.dtype.itemsize),
            dims=self._dims(inner),
            fillvalue=self._described_fill,
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
            raise UnreadableError(
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


# The filters of hdf5plugin 7. Earlier versions have all but the last.
_OF_HDF5PLUGIN = {
    *(307, 32001, 32004, 32008, 32013, 32015, 32017, 32018, 32024, 32026, 32028, 32033)
}


def _missing_filter(dataset: Any) -> str:
    for code, _, label in stored_filters(dataset):
        if h5py.h5z.filter_avail(code):
            continue
        with suppress(ImportError):
            import hdf5plugin  # noqa: F401  brings filters by being imported

            if h5py.h5z.filter_avail(code):
                continue
        return f"it needs HDF5's filter {code} ({label}), which is not installed: " + (
            "pip install hdf5plugin"
            if code in _OF_HDF5PLUGIN
            else "install its maker's plugin, and set HDF5_PLUGIN_PATH to the folder"
        )
    return ""


class UnreadableError(Exception):
    """An error for an array that cannot be read. The message says why."""
