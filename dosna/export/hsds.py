"""Export to domains of HSDS: from datasets, and from whole HDF5 files."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from dosna.array.dataset import EngineDataset
from dosna.core.metadata import choose_chunk_size
from dosna.core.options import parse_options
from dosna.core.plan import every_chunk
from dosna.core.progress import reporting
from dosna.core.types import Box, Json, Shape
from dosna.core.url import Url
from dosna.core.values import encode_value
from dosna.engines.work.boxes import read_box, workers_within
from dosna.errors import ConfigurationError, RefusedError
from dosna.export.job import Job, array_of_list, file_chunks
from dosna.hsds.client import IN_FLIGHT, HsdsClient, HsdsOptions, domain_of
from dosna.hsds.domain import NewDomain, grown, new_domain
from dosna.hsds.types import attribute, bytes_of, type_of
from dosna.io.parallel import in_flight
from dosna.sources.datasets import groups_above
from dosna.transfer.files import DomainReport, link_domain, load_domain

__all__ = ["DomainReport", "link_domain", "load_domain", "write"]

_LEVEL = 4
_BLOCK_BYTES = 4 << 20
_MOST_CHUNK_BYTES = 32 << 20
_HELD = 3
"""The number of copies of a block in memory while it is sent."""
_TEXT = np.dtype("O", metadata={"vlen": str})


def write(job: Job, url: str) -> None:
    """Write all datasets into a new domain, by one process; see `load_domain` for how."""
    if job.request.compression not in (None, "gzip"):
        raise ConfigurationError(
            f"compression of a domain of HSDS is None or 'gzip', not {job.request.compression!r}"
        )
    parsed = Url.parse(url)
    given = [f"{name}={value}" for name, value in parsed.options.items()]
    found: dict[str, Any] = dict(parse_options(inspect.signature(HsdsOptions), given))
    options = HsdsOptions(**found)

    def make() -> None:
        client = HsdsClient(options)
        domain = domain_of(f"hdf5:{parsed.path}")
        with (
            closing(client),
            new_domain(client, domain, job.request.overwrite) as made,
            reporting(
                job.request.progress, sum(ds.total_chunks for ds in job.datasets), "export"
            ) as report,
        ):
            _Export(job, made, report).run()

    job.runner.once(make)


@dataclass
class _Export:
    job: Job
    made: NewDomain
    report: Callable[[int], None] | None
    _groups: dict[str, str] = field(default_factory=dict)

    def run(self) -> None:
        self._groups[""] = self.made.root
        attrs: dict[str, dict[str, Json]] = {}
        ids: list[tuple[EngineDataset, str, Shape]] = []
        largest = 1
        for ds in self.job.datasets:
            chunks = self._chunks(ds)
            made = self._create(ds, chunks)
            attrs[made] = _attributes(ds.attrs)
            labels = getattr(ds, "dims", None)
            if labels and any(labels):
                named = np.array([label or "" for label in labels], object)
                attrs[made]["DIMENSION_LABELS"] = attribute(named, _TEXT)
            block = grown(chunks, ds.shape, ds.dtype.itemsize, _BLOCK_BYTES)
            largest = max(largest, prod(block) * ds.dtype.itemsize)
            ids.append((ds, made, block))
        workers = workers_within(self.job.request.memory_limit, _HELD * largest, "export")
        connection = self.job.datasets[0].connection
        for group, found in groups_above(connection, [ds.name for ds, _, _ in ids]).items():
            attrs[self._group(group)] = _attributes(found)
        self.made.commit()
        self.made.attributes(attrs)
        count = IN_FLIGHT if workers is None else min(IN_FLIGHT, workers)
        in_flight(self._send, self._blocks(ids), count)
        self.made.flush()
        self.made.verify(count)

    def _chunks(self, ds: EngineDataset) -> Shape:
        chunks = file_chunks(ds.instance.metadata, self.job.request.chunk_size)
        if prod(chunks) * ds.dtype.itemsize > _MOST_CHUNK_BYTES:
            chunks = choose_chunk_size(ds.shape, ds.dtype.itemsize, _BLOCK_BYTES)
        return chunks

    def _group(self, name: str) -> str:
        if name not in self._groups:
            above, _, key = name.rpartition("/")
            self._groups[name] = self.made.group(self._group(above), key)
        return self._groups[name]

    def _create(self, ds: EngineDataset, chunks: Shape) -> str:
        above, _, key = ds.name.rpartition("/")
        text = ds.dtype.kind in "UT"
        properties: Json = {}
        if ds.dtype.kind in "iuf" and ds.fillvalue:
            properties["fillValue"] = ds.fillvalue.item()
        if prod(ds.shape) and ds.shape:
            properties["layout"] = {"class": "H5D_CHUNKED", "dims": list(chunks)}
            if self.job.request.compression and not text:
                deflate = {"class": "H5Z_FILTER_DEFLATE", "id": 1, "level": _LEVEL}
                properties["filters"] = [
                    {"class": "H5Z_FILTER_SHUFFLE", "id": 2, "name": "shuffle"},
                    {**deflate, "name": "deflate"},
                ]
        try:
            kind = type_of(_TEXT if text else ds.dtype)
        except (TypeError, ValueError, KeyError) as error:
            raise RefusedError(
                f"dataset {ds.name!r} cannot be written to HSDS, which has no type for "
                f"{ds.dtype} ({error}): leave it out by select=, or write another format"
            ) from error
        return self.made.dataset(self._group(above), key, kind, ds.shape, properties)

    def _blocks(
        self, ids: list[tuple[EngineDataset, str, Shape]]
    ) -> Iterator[tuple[EngineDataset, str, Box]]:
        done = 0
        for ds, made, block in ids:
            tasks = every_chunk(ds.shape, block) if prod(ds.shape) else ()
            for number, task in enumerate(tasks):
                if self.report is not None:
                    self.report(done + ds.total_chunks * number // len(tasks))
                yield ds, made, task.out
            done += ds.total_chunks

    def _send(self, item: tuple[EngineDataset, str, Box]) -> None:
        ds, made, box = item
        block = read_box(ds.instance, box)
        if block.dtype.kind in "UT":
            block = block.astype(_TEXT)
        self.made.write(made, box, bytes_of(block))


def _attributes(attrs: Mapping[str, Any]) -> dict[str, Json]:
    """Return attributes as HSDS keeps them; values without a type there become JSON text."""
    found: dict[str, Json] = {}
    for name, value in attrs.items():
        try:
            found[name] = _attribute(value)
        except (TypeError, ValueError, OverflowError):
            found[name] = attribute(json.dumps(encode_value(value)))
    return found


def _attribute(value: Any) -> Json:
    if isinstance(value, list):
        return attribute(array_of_list(value))
    if isinstance(value, Mapping):
        raise TypeError("HDF5 has no mappings")
    return attribute(value)
