"""Copies of HDF5 files in domains: with the data, or with links to their places in the file."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal

import h5py
import numpy as np

from dosna.core.metadata import choose_chunk_size
from dosna.core.plan import every_chunk
from dosna.core.progress import Progress, reporting
from dosna.core.types import Box, Json, Shape
from dosna.engines.work.boxes import workers_within
from dosna.errors import ConfigurationError, RefusedError, StorageError
from dosna.hsds.client import IN_FLIGHT, HsdsClient, HsdsOptions, domain_of
from dosna.hsds.domain import NewDomain, in_flight, new_domain, select_of
from dosna.hsds.types import bytes_of, type_of
from dosna.sources.base import ArrayDescription, Source
from dosna.sources.chunking import choose_chunks
from dosna.sources.hdf5.direct import offset_of, stored_records
from dosna.sources.hdf5.source import H5Source
from dosna.sources.hdf5.strings import blocks
from dosna.sources.opening import open_source
from dosna.transfer.copying import Copied, H5Copy, filters_of, is_stored_so

__all__ = ["DomainReport", "link_domain", "load_domain"]

_BLOCK_BYTES = 4 << 20
_HELD = 3
"""Number of copies of a block that are in memory while it is sent."""
_MOST_CHUNK_BYTES = 32 << 20
_ONE_CHUNK = 1 << 20
_MOST_INLINE = 2000
"""Most chunks whose places are in a dataset's own description; more need another dataset."""
_PLACES = np.dtype([("offset", "<i8"), ("size", "<i4")])
# Filters in this order only. The server does not know checksums: inflating ignores them.
_READ = {
    (),
    ("shuffle",),
    ("deflate",),
    ("shuffle", "deflate"),
    ("deflate", "fletcher32"),
    ("shuffle", "deflate", "fletcher32"),
}

Unlinkable = Literal["copy", "raise"]


@dataclass
class DomainReport:
    """A report of what `load_domain` or `link_domain` has done.

    Parameters
    ----------
    source, domain : str
        The location of the file, and the path of the domain.
    loaded : list of str
        The names of datasets whose elements are in the domain.
    linked : list of str
        The names of datasets whose elements stay in the file.
    copied : dict of str to str
        The names of datasets in `loaded` that could not be linked, and the reasons.
    left_out : dict of str to str
        The names of what is not in the domain, and the reasons.
    nbytes : int
        The bytes of the elements that were written.
    """

    source: str
    domain: str
    loaded: list[str] = field(default_factory=list)
    linked: list[str] = field(default_factory=list)
    copied: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    nbytes: int = 0


def load_domain(
    source: Any,
    domain: str,
    *,
    overwrite: bool = False,
    on_error: Literal["raise", "skip"] = "raise",
    verify: bool = True,
    token: str | None = None,
    progress: Progress = None,
    memory_limit: int | str | None = None,
    endpoint: str | None = None,
    username: str | None = None,
    password: str | None = None,
    bucket: str | None = None,
    timeout: float = 30.0,
    retries: int = 5,
) -> DomainReport:
    """Write the whole contents of an HDF5 file into a new domain of HSDS.

    The domain appears when everything is in it, flushed and read back. Until then it is
    ``.NAME.TOKEN.part`` in the same folder. Types, links, attributes, references and chunks are
    the same as in the file, but chunks below 256 KiB are joined.

    Parameters
    ----------
    source : path, URL, h5py.File or `dosna.sources.hdf5.source.H5Source`
        The whole file, local or ``s3://bucket/key``.
    domain : str
        The domain, such as ``hdf5://home/user/scan.h5``. Its folder must exist.
    overwrite : bool
        Whether to replace a domain that exists, when the new one is complete.
    on_error : {'raise', 'skip'}
        Whether objects and attributes that HSDS cannot keep are an error, or are left out.
    verify : bool
        Whether to read all elements back.
    token : str, optional
        A text that tells this writer's unfinished domain from others', random by default.
        Anything that an earlier call with the same token left is deleted.
    progress : bool or callable, optional
        True for a bar, or a callback ``(done, total)`` in bytes.
    memory_limit : int or str, optional
        The most bytes of elements held at a time, such as '512M'.
    endpoint, username, password, bucket : str, optional
        The server, the credentials and the bucket. By default they are taken from the
        environment (``HS_ENDPOINT``, …) and from ``~/.hscfg``.
    timeout : float
        The seconds that one request may wait for its answer to begin, or to go on.
    retries : int
        The number of times that a request is repeated after a failure that may pass.

    Returns
    -------
    DomainReport

    Raises
    ------
    DatasetExistsError
        If the domain exists.
    RefusedError
        If HSDS cannot keep something.
    SourceError
        If the file cannot be read.
    StorageError, dosna.errors.ConnectionError
        If the server refuses, fails, or cannot be reached.
    """
    options = HsdsOptions(endpoint, username, password, bucket, timeout, retries)
    return _Transfer(
        HsdsClient(options), domain_of(domain), on_error == "skip", verify, memory_limit
    ).run(source, overwrite, token, progress)


def link_domain(
    source: Any,
    domain: str,
    file_uri: str,
    *,
    unlinkable: Unlinkable = "copy",
    overwrite: bool = False,
    on_error: Literal["raise", "skip"] = "raise",
    verify: bool = True,
    token: str | None = None,
    progress: Progress = None,
    memory_limit: int | str | None = None,
    endpoint: str | None = None,
    username: str | None = None,
    password: str | None = None,
    bucket: str | None = None,
    timeout: float = 30.0,
    retries: int = 5,
) -> DomainReport:
    """Create a domain of HSDS whose elements stay in the HDF5 file, where the server reads them.

    Contiguous and chunked datasets without filters or with gzip, shuffle and Fletcher-32 are
    linked. Everything else, such as strings of variable length, is copied. The server does not
    notice when the file changes: link it again then.

    Parameters
    ----------
    source : path, URL, h5py.File or `dosna.sources.hdf5.source.H5Source`
        The whole file, local or ``s3://bucket/key``.
    domain : str
        The domain, such as ``hdf5://home/user/scan.h5``. Its folder must exist.
    file_uri : str
        The place where the server finds the file: ``s3://bucket/key``, or a path below the
        folder of its data, ``bucket/path/scan.h5``.
    unlinkable : {'copy', 'raise'}
        Whether datasets that cannot be linked are copied, or are an error.
    overwrite : bool
        Whether to replace a domain that exists, when the new one is complete.
    on_error : {'raise', 'skip'}
        Whether objects and attributes that HSDS cannot keep are an error, or are left out.
    verify : bool
        Whether to read back all elements that were copied, and the first and the last element
        of each linked dataset.
    token : str, optional
        A text that tells this writer's unfinished domain from others', random by default.
        Anything that an earlier call with the same token left is deleted.
    progress : bool or callable, optional
        True for a bar, or a callback ``(done, total)`` in bytes.
    memory_limit : int or str, optional
        The most bytes of elements held at a time, such as '512M'.
    endpoint, username, password, bucket : str, optional
        The server, the credentials and the bucket. By default they are taken from the
        environment (``HS_ENDPOINT``, …) and from ``~/.hscfg``.
    timeout : float
        The seconds that one request may wait for its answer to begin, or to go on.
    retries : int
        The number of times that a request is repeated after a failure that may pass.

    Returns
    -------
    DomainReport

    Raises
    ------
    RefusedError
        If a dataset cannot be linked, with ``unlinkable='raise'``, or if HSDS cannot keep
        something.
    DatasetExistsError
        If the domain exists.
    SourceError
        If the file cannot be read.
    StorageError, dosna.errors.ConnectionError
        If the server refuses, fails, or cannot be reached; or if a linked dataset reads as other
        elements than the file has.
    """
    options = HsdsOptions(endpoint, username, password, bucket, timeout, retries)
    return _Transfer(
        HsdsClient(options),
        domain_of(domain),
        on_error == "skip",
        verify,
        memory_limit,
        file_uri,
        unlinkable == "copy",
    ).run(source, overwrite, token, progress)


@dataclass
class _Block:
    """A part of a dataset to read and send."""

    id: str
    copied: Copied
    box: Box
    nbytes: int


@dataclass
class _Transfer:
    client: HsdsClient
    domain: str
    skips: bool
    verify: bool
    memory_limit: int | str | None
    file_uri: str | None = None
    copies: bool = True
    _tables: list[tuple[str, Any]] = field(default_factory=list)

    def run(
        self, source: Any, overwrite: bool, token: str | None, progress: Progress
    ) -> DomainReport:
        with closing(self.client), _opened(source) as opened:
            report = DomainReport(opened.location, self.domain)
            with new_domain(self.client, self.domain, overwrite, token) as made:
                self._fill(opened, made, report, progress)
        return report

    def _fill(
        self, source: H5Source, made: NewDomain, report: DomainReport, progress: Progress
    ) -> None:
        copy = H5Copy(source.file, made)
        loaded: list[tuple[str, Copied]] = []
        linked: list[tuple[Copied, str]] = []
        for found in copy.walk():
            there = self._link(found, made, report)
            if there is None:
                there = _create(found, made)
                loaded.append((there, found))
                report.loaded.append(found.name)
            else:
                linked.append((found, there))
                report.linked.append(found.name)
            copy.made(found.dataset, there)
        made.commit()
        made.attributes(copy.attributes())
        for there, table in self._tables:
            for task in every_chunk(table.shape, _table_chunks(table)):
                made.write(there, task.out, bytes_of(table[task.out]))
        self._tables.clear()
        report.left_out.update(copy.left_out)
        if report.left_out and not self.skips:
            raise RefusedError(
                f"{source!r} has what HSDS cannot keep: "
                + "; ".join(f"{name!r}: {why}" for name, why in report.left_out.items())
                + ". Leave it out by on_error='skip'"
            )
        total = sum(_nbytes(found) for _, found in loaded)
        done, lock = 0, threading.Lock()
        with reporting(progress, total, "load", "B") as tell:

            def send(block: _Block) -> None:
                nonlocal done
                data = bytes_of(_read(source, copy, block))
                made.write(block.id, block.box, data)
                with lock:
                    done += block.nbytes
                    report.nbytes += len(data)

            def all_blocks() -> Iterator[_Block]:
                for made_id, found in loaded:
                    for block in _blocks(made_id, found):
                        if tell is not None:
                            tell(done)
                        yield block

            workers = _workers(self.memory_limit)
            in_flight(send, all_blocks(), workers)
        made.flush()
        if self.verify:
            made.verify(workers)
            for found, there in linked:
                self._look(found, there, made)

    def _link(self, found: Copied, made: NewDomain, report: DomainReport) -> str | None:
        if self.file_uri is None or not found.shape or prod(found.shape) == 0:
            return None
        layout, filters, why = _layout(found, self.file_uri)
        if layout is None:
            if not self.copies:
                raise RefusedError(f"{found.name!r} cannot be linked: {why}")
            report.copied[found.name] = why
            return None
        table = layout.get("chunk_table")
        if table is not None:
            layout["chunk_table"] = there = _create_table(table, made)
            self._tables.append((there, table))
        properties: Json = {"layout": layout, **found.fill}
        if filters:
            properties["filters"] = filters
        name = _last(found.name)
        return made.dataset(found.parent, name, found.type_json, found.shape, properties)

    def _look(self, found: Copied, linked: str, made: NewDomain) -> None:
        """Compare the corners of a linked dataset with those of the file."""
        assert found.shape is not None
        for corner in (tuple(slice(0, 1) for _ in found.shape), _last_corner(found.shape)):
            expected = np.asarray(found.dataset[corner])
            sent = made.client.get_bytes(
                f"/datasets/{linked}/value", made.path, **select_of(corner)
            )
            if sent != bytes_of(expected):
                raise StorageError(
                    f"{made.client.endpoint} reads other elements of {found.name!r} at "
                    f"{self.file_uri} than there are in {found.dataset.file.filename}: is it the "
                    "same file?"
                )


def _last_corner(shape: Shape) -> Box:
    return tuple(slice(n - 1, n) for n in shape)


def _last(name: str) -> str:
    return name.rpartition("/")[2]


@contextmanager
def _opened(source: Any) -> Iterator[H5Source]:
    """Yield a whole HDF5 file as a source, and close it if it was opened here."""
    given = isinstance(source, Source)
    opened = open_source(source)
    try:
        if not isinstance(opened, H5Source) or opened.inner:
            raise ConfigurationError(f"{opened!r} is not a whole HDF5 file: ingest it instead")
        yield opened
    finally:
        if not given:
            opened.close()


def _nbytes(found: Copied) -> int:
    return prod(found.shape) * found.dataset.dtype.itemsize if found.shape is not None else 0


def _workers(memory_limit: int | str | None) -> int:
    within = workers_within(memory_limit, _HELD * _BLOCK_BYTES, "a transfer")
    return IN_FLIGHT if within is None else min(IN_FLIGHT, within)


def _create(found: Copied, made: NewDomain) -> str:
    """Add a dataset whose elements will be written."""
    properties: Json = dict(found.fill)
    chunks = _chunks(found)
    if chunks is not None:
        properties["layout"] = {"class": "H5D_CHUNKED", "dims": list(chunks)}
        known = [f for f in filters_of(found.dataset)[0] if f["name"] != "fletcher32"]
        if known and not found.dataset.dtype.hasobject:
            properties["filters"] = known
    name = _last(found.name)
    maxdims = found.dataset.maxshape if found.dataset.chunks else None
    return made.dataset(found.parent, name, found.type_json, found.shape, properties, maxdims)


def _table_chunks(table: Any) -> Shape:
    return choose_chunk_size(table.shape, table.itemsize, _ONE_CHUNK)


def _create_table(table: Any, made: NewDomain) -> str:
    """Add a dataset without a name, for the places of chunks."""
    layout = {"class": "H5D_CHUNKED", "dims": list(_table_chunks(table))}
    return made.dataset(made.root, "", type_of(table.dtype), table.shape, {"layout": layout})


def _chunks(found: Copied) -> Shape | None:
    """Choose the chunks in HSDS; None if the whole dataset is one chunk."""
    shape, dtype, own = found.shape, found.dataset.dtype, found.dataset.chunks
    if not shape:
        return None
    if own is None:
        if _nbytes(found) <= _ONE_CHUNK:
            return None
        return choose_chunk_size(shape, dtype.itemsize, _BLOCK_BYTES)
    own = tuple(map(int, own))
    if dtype.hasobject or not prod(shape):
        return own
    if prod(own) * dtype.itemsize > _MOST_CHUNK_BYTES:
        return choose_chunk_size(shape, dtype.itemsize, _BLOCK_BYTES)
    inner = dtype.shape
    described = ArrayDescription("", shape + inner, dtype.base, chunks=own + inner)
    chosen = choose_chunks(described)[: len(shape)]
    return tuple(min(c, n) for c, n in zip(chosen, shape, strict=True))


def _blocks(made: str, found: Copied) -> Iterator[_Block]:
    shape, itemsize = found.shape, found.dataset.dtype.itemsize
    if shape is None or not prod(shape):
        return
    boxes: Iterable[Box]
    if not shape or found.dataset.dtype.hasobject:
        boxes = blocks(shape)
    else:
        boxes = (task.out for task in every_chunk(shape, _chunks(found) or shape))
    for box in boxes:
        yield _Block(made, found, box, prod(s.stop - s.start for s in box) * itemsize)


def _read(source: H5Source, copy: H5Copy, block: _Block) -> Any:
    dataset = block.copied.dataset
    dtype = dataset.dtype
    if h5py.check_ref_dtype(dtype) is not None:
        return copy.referring(np.asarray(dataset[block.box], object))
    if dtype.hasobject:
        return _with_notes(dataset[block.box], dtype)
    box = block.box + tuple(slice(0, n) for n in dtype.shape)
    return source.read(block.copied.name, box)


def _with_notes(values: Any, dtype: np.dtype[Any]) -> Any:
    """Return an array of Python objects whose dtype says what they are."""
    if dtype.names is not None:
        return np.asarray(values, dtype)
    shape = np.shape(values) if isinstance(values, np.ndarray) and values.dtype == dtype else ()
    made = np.empty(shape, dtype)
    made[...] = values if shape else None
    if not shape:
        made[()] = values
    return made


def _layout(found: Copied, uri: str) -> tuple[Json | None, list[Json], str]:
    """Return the layout by which the server finds a dataset's elements in its file.

    Returns the layout, the filters, and the reason if there is no layout.
    """
    dataset = found.dataset
    if not is_stored_so(dataset):
        return None, [], "its elements are stored in a form that HSDS does not read"
    creation = dataset.id.get_create_plist()
    kind = creation.get_layout()
    if kind == h5py.h5d.CONTIGUOUS and not creation.get_external_count():
        offset = offset_of(dataset)
        if offset is None:
            return None, [], "nothing of it was ever written"
        size = dataset.id.get_storage_size()
        place = {"file_uri": uri, "offset": int(offset), "size": int(size)}
        return {"class": "H5D_CONTIGUOUS_REF", **place}, [], ""
    if kind != h5py.h5d.CHUNKED:
        return None, [], "it is compact, virtual, or external: not of one piece in the file"
    if any(c > n for c, n in zip(dataset.chunks, dataset.shape, strict=True)):
        return None, [], "its chunks are larger than it is"
    filters, others = filters_of(dataset)
    if others:
        return None, [], f"HSDS cannot undo its filters in files: {', '.join(others)}"
    names = tuple(f["name"] for f in filters)
    if names not in _READ:
        return None, [], f"HSDS does not read chunks with the filters {', '.join(names)}"
    grid = tuple(-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))
    table = np.zeros(grid, _PLACES)
    numbers, (offsets, sizes, masks) = stored_records(dataset)
    places = table.reshape(-1)
    places["offset"][numbers], places["size"][numbers] = offsets, sizes
    if masks.any():
        return None, [], "filters were left out for some of its chunks"
    place = {"file_uri": uri, "dims": list(map(int, dataset.chunks))}
    if table.size > _MOST_INLINE:
        return {"class": "H5D_CHUNKED_REF_INDIRECT", **place, "chunk_table": table}, filters, ""
    chunks = {
        "_".join(map(str, at)): [int(table["offset"][at]), int(table["size"][at])]
        for at in np.ndindex(grid)
        if table["size"][at]
    }
    return {"class": "H5D_CHUNKED_REF", **place, "chunks": chunks}, filters, ""
