"""Copies of a whole HDF5 file in a domain, with the data or with links to it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from math import prod
from typing import Any

import numpy as np

from dosna.core.metadata import choose_chunk_size
from dosna.core.options import refuse_unknown
from dosna.core.plan import every_chunk
from dosna.core.progress import reporting
from dosna.core.types import Json, Shape
from dosna.engines.work.boxes import workers_within
from dosna.errors import ConfigurationError, RefusedError, StorageError
from dosna.hsds.client import IN_FLIGHT, HsdsClient, HsdsOptions, domain_of
from dosna.hsds.domain import NewDomain, new_domain, select_of
from dosna.hsds.types import bytes_of, type_of
from dosna.io.parallel import in_flight
from dosna.sources.hdf5.source import H5Source
from dosna.sources.opening import open_source
from dosna.transfer.blocks import (
    BLOCK_BYTES,
    ONE_CHUNK,
    Block,
    blocks_of,
    chunks_of,
    nbytes_of,
    read_block,
)
from dosna.transfer.copying import Copied, H5Copy, filters_of
from dosna.transfer.layout import linked_layout
from dosna.transfer.request import DomainReport, TransferRequest

__all__ = ["transfer"]

_HELD = 3
"""Number of copies of a block that are in memory while it is sent."""


def transfer(
    source: Any, domain: str, request: TransferRequest, server: Mapping[str, Any]
) -> DomainReport:
    """Carry out `load_domain` or `link_domain`.

    Parameters
    ----------
    source : path, URL, h5py.File or H5Source
    domain : str
    request : TransferRequest
    server : mapping
        The fields of `HsdsOptions`.
    """
    refuse_unknown(server, HsdsOptions, "a server of HSDS")
    client, domain = HsdsClient(HsdsOptions(**server)), domain_of(domain)
    with (
        closing(client),
        _opened(source) as opened,
        new_domain(client, domain, request.overwrite, request.token) as made,
    ):
        return _Transfer(opened, made, request, DomainReport(opened.location, domain)).run()


@contextmanager
def _opened(source: Any) -> Iterator[H5Source]:
    """Yield a whole HDF5 file as a source, and close it if it was opened here."""
    opened = open_source(source)
    try:
        if not isinstance(opened, H5Source) or opened.inner:
            raise ConfigurationError(f"{opened!r} is not a whole HDF5 file: ingest it instead")
        yield opened
    finally:
        if opened is not source:
            opened.close()


class _Transfer:
    """The transfer of one file into one domain."""

    def __init__(
        self, source: H5Source, made: NewDomain, request: TransferRequest, report: DomainReport
    ) -> None:
        self.source, self.made, self.request, self.report = source, made, request, report
        self.copy = H5Copy(source.file, made)
        self.loaded: list[tuple[str, Copied]] = []
        self.linked: list[tuple[str, Copied]] = []
        self.tables: list[tuple[str, Any]] = []

    def run(self) -> DomainReport:
        made, report = self.made, self.report
        for found in self.copy.walk():
            there = self._link(found)
            if there is None:
                there = self._create(found)
                self.loaded.append((there, found))
                report.loaded.append(found.name)
            else:
                self.linked.append((there, found))
                report.linked.append(found.name)
            self.copy.made(found.dataset, there)
        made.commit()
        made.attributes(self.copy.attributes())
        for there, table in self.tables:
            for task in every_chunk(table.shape, _table_chunks(table)):
                made.write(there, task.out, bytes_of(table[task.out]))
        report.left_out.update(self.copy.left_out)
        if report.left_out and self.request.on_error != "skip":
            raise RefusedError(
                f"{self.source} has what HSDS cannot keep: "
                + "; ".join(f"{name!r}: {why}" for name, why in report.left_out.items())
                + ". Leave it out by on_error='skip'"
            )
        within = workers_within(self.request.memory_limit, _HELD * BLOCK_BYTES, "a transfer")
        workers = IN_FLIGHT if within is None else min(IN_FLIGHT, within)
        self._send(workers)
        made.flush()
        if self.request.verify:
            made.verify(workers)
            for there, found in self.linked:
                self._check_linked(there, found)
        return report

    def _create(self, found: Copied) -> str:
        """Add a dataset whose elements will be written."""
        properties: Json = dict(found.fill)
        chunks = chunks_of(found)
        if chunks is not None:
            properties["layout"] = {"class": "H5D_CHUNKED", "dims": list(chunks)}
            known = [f for f in filters_of(found.dataset)[0] if f["name"] != "fletcher32"]
            if known and not found.dataset.dtype.hasobject:
                properties["filters"] = known
        maxdims = found.dataset.maxshape if found.dataset.chunks else None
        return self._dataset(found, properties, maxdims)

    def _link(self, found: Copied) -> str | None:
        """Add a dataset whose elements stay in the file; None if it must be copied."""
        uri = self.request.file_uri
        if uri is None or not found.shape or prod(found.shape) == 0:
            return None
        layout, filters, why = linked_layout(found, uri)
        if layout is None:
            if self.request.unlinkable == "raise":
                raise RefusedError(f"{found.name!r} cannot be linked: {why}")
            self.report.copied[found.name] = why
            return None
        table = layout.get("chunk_table")
        if table is not None:
            layout["chunk_table"] = there = self._create_table(table)
            self.tables.append((there, table))
        properties: Json = {"layout": layout, **found.fill}
        if filters:
            properties["filters"] = filters
        return self._dataset(found, properties)

    def _dataset(self, found: Copied, properties: Json, maxdims: Any = None) -> str:
        key = found.name.rpartition("/")[2]
        return self.made.dataset(
            found.parent, key, found.type_json, found.shape, properties, maxdims
        )

    def _create_table(self, table: Any) -> str:
        """Add a dataset without a name, for the places of chunks."""
        layout = {"class": "H5D_CHUNKED", "dims": list(_table_chunks(table))}
        kind = type_of(table.dtype)
        return self.made.dataset(self.made.root, "", kind, table.shape, {"layout": layout})

    def _send(self, workers: int) -> None:
        """Write the elements of all datasets that are not linked."""
        total = sum(nbytes_of(found) for _, found in self.loaded)
        done, lock = 0, threading.Lock()
        with reporting(self.request.progress, total, "load", "B") as tell:

            def send(block: Block) -> None:
                nonlocal done
                data = bytes_of(read_block(self.source, self.copy, block))
                self.made.write(block.id, block.box, data)
                with lock:
                    done += block.nbytes
                    self.report.nbytes += len(data)

            def all_blocks() -> Iterator[Block]:
                for there, found in self.loaded:
                    for block in blocks_of(there, found):
                        if tell is not None:
                            tell(done)
                        yield block

            in_flight(send, all_blocks(), workers)

    def _check_linked(self, there: str, found: Copied) -> None:
        """Compare the corners of a linked dataset with those of the file."""
        assert found.shape is not None
        client, path = self.made.client, self.made.path
        last = tuple(slice(n - 1, n) for n in found.shape)
        for corner in (tuple(slice(0, 1) for _ in found.shape), last):
            expected = np.asarray(found.dataset[corner])
            sent = client.get_bytes(f"/datasets/{there}/value", path, **select_of(corner))
            if sent != bytes_of(expected):
                raise StorageError(
                    f"{client.endpoint} reads other elements of {found.name!r} at "
                    f"{self.request.file_uri} than there are in {found.dataset.file.filename}: "
                    "check that it is the same file"
                )


def _table_chunks(table: Any) -> Shape:
    return choose_chunk_size(table.shape, table.itemsize, ONE_CHUNK)
