"""The virtual dataset of ``dataset.h5``: its parts and the files that they come from.

A mapping costs HDF5 a few microseconds and some 70 bytes each time the description is written.
So an array of many chunks maps to files that in turn map to its chunks; each such file covers a
range of rows of the chunk grid. These files do not depend on the array's length, so an append
writes only the last of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod
from typing import Any, NamedTuple

from h5py import h5s

from dosna.core.metadata import DatasetMetadata
from dosna.core.types import Shape

__all__ = [
    "MAPPED_CHUNKS",
    "VIRTUAL_CHUNKS",
    "Mapping",
    "Rows",
    "is_virtual",
    "map_all",
    "mappings",
    "rows_mappings",
    "rows_of",
    "rows_shape",
]

VIRTUAL_CHUNKS = 10_000
"""The most chunks of an array that gets a virtual dataset by default."""

MAPPED_CHUNKS = 512
"""The most chunks that an array maps to directly.

Arrays of more chunks map to files for rows of the grid, each with about this many chunks.
"""


class Rows(NamedTuple):
    """A file that maps the rows `first` to `stop` of the chunk grid to chunk files."""

    name: str
    first: int
    stop: int


class Mapping(NamedTuple):
    """A block of an array, and the file whose ``/data`` begins with that block."""

    start: Shape
    extent: Shape
    file: str
    shape: Shape  # of the file's /data


def is_virtual(metadata: DatasetMetadata) -> bool:
    """Return True if ``dataset.h5`` has a virtual dataset."""
    virtual = metadata.storage.get("virtual")
    return bool(virtual or (virtual is None and metadata.total_chunks <= VIRTUAL_CHUNKS))


def rows_of(metadata: DatasetMetadata) -> list[Rows]:
    """List the files between a virtual dataset and its chunks; none if there are few chunks.

    The names of these files tell everything that they depend on and that may change. So an
    existing file of such a name is the right one.
    """
    grid = metadata.chunk_grid
    if metadata.total_chunks <= MAPPED_CHUNKS or not is_virtual(metadata):
        return []
    step = max(1, MAPPED_CHUNKS // prod(grid[1:]))
    beside = "".join(f"x{n}" for n in grid[1:])
    return [
        Rows(f"rows_{first}-{first + step - 1}{beside}.h5", first, first + step)
        for first in range(0, grid[0], step)
    ]


def rows_shape(metadata: DatasetMetadata, rows: Rows) -> Shape:
    """Return the shape of the ``/data`` of a file for rows: that of all its chunks in full."""
    grid = (rows.stop - rows.first, *metadata.chunk_grid[1:])
    return tuple(n * c for n, c in zip(grid, metadata.chunk_size, strict=True))


def mappings(metadata: DatasetMetadata, template: str) -> Iterator[Mapping]:
    """Yield the mappings of a whole array."""
    rows = rows_of(metadata)
    if not rows:
        return _chunks(metadata, template, metadata.chunk_grid, 0, metadata.shape)
    return _all_rows(metadata, rows)


def rows_mappings(metadata: DatasetMetadata, template: str, rows: Rows) -> Iterator[Mapping]:
    """Yield the mappings of a file for rows of the chunk grid."""
    grid = (rows.stop - rows.first, *metadata.chunk_grid[1:])
    return _chunks(metadata, template, grid, rows.first, rows_shape(metadata, rows))


def _all_rows(metadata: DatasetMetadata, rows: list[Rows]) -> Iterator[Mapping]:
    shape, length = metadata.shape, metadata.chunk_size[0]
    for found in rows:
        start = found.first * length
        extent = min(found.stop * length, shape[0]) - start
        yield Mapping(
            (start, *[0] * (len(shape) - 1)),
            (extent, *shape[1:]),
            found.name,
            rows_shape(metadata, found),
        )


def _chunks(
    metadata: DatasetMetadata, template: str, grid: Shape, first: int, shape: Shape
) -> Iterator[Mapping]:
    size = metadata.chunk_size
    for idx in product(*map(range, grid)):
        start = tuple([i * c for i, c in zip(idx, size, strict=True)])
        extent = tuple([min(c, n - s) for s, c, n in zip(start, size, shape, strict=True)])
        yield Mapping(start, extent, template % (idx[0] + first, *idx[1:]), size)


def map_all(creation: Any, shape: Shape, found: Iterator[Mapping]) -> Any:
    """Add mappings to the creation properties of an array, and return its HDF5 dataspace."""
    whole = h5s.create_simple(shape)
    ones, origin = (1,) * len(shape), (0,) * len(shape)
    full: dict[Shape, Any] = {}
    for start, extent, name, source in found:
        whole.select_hyperslab(start, ones, block=extent)
        space = full.get(source)
        if space is None or extent != source:
            space = h5s.create_simple(source)
            if extent == source:
                full[source] = space  # all of it selected, which costs HDF5 less than a block
            else:
                space.select_hyperslab(origin, ones, block=extent)
        creation.set_virtual(whole, name.encode(), b"/data", space)
    return h5s.create_simple(shape)
