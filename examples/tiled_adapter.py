"""Serve datasets by tiled, for a facility whose data are served by it already.

tiled (https://blueskyproject.io/tiled) has users, a search over metadata and clients of its own.
This adapter shows it the datasets of a connection:

    pip install 'tiled[server]' dosna
    DOSNA_URL=hdf5:/data/scans PYTHONPATH=examples tiled serve pyobject tiled_adapter:tree

Blocks are the chunks of the datasets, and a slice reads those that it needs. Attributes are
metadata. To look at datasets, or to serve them as Zarr, none of this is needed: `dosna view` and
`dosna serve` do it.
"""

from __future__ import annotations

import os
from itertools import pairwise
from typing import Any

import numpy as np
from tiled.adapters.array import ArrayAdapter
from tiled.adapters.mapping import MapAdapter
from tiled.structures.array import ArrayStructure, BuiltinDtype, StructDtype

import dosna as dn


class DatasetAdapter(ArrayAdapter):
    """A dataset as an array of tiled."""

    def __init__(self, dataset: dn.Dataset) -> None:
        kind = BuiltinDtype if dataset.dtype.names is None else StructDtype
        ends = [
            (*range(0, extent, chunk), extent)
            for extent, chunk in zip(dataset.shape, dataset.chunk_size, strict=True)
        ]
        structure = ArrayStructure(
            data_type=kind.from_numpy_dtype(dataset.dtype),
            shape=dataset.shape,
            chunks=tuple(tuple(b - a for a, b in pairwise(axis)) for axis in ends),
            dims=dataset.dims if dataset.dims and all(dataset.dims) else None,
        )
        super().__init__(dataset, structure, metadata=plain(dataset.attrs))

    def read(self, slice: Any = ...) -> np.ndarray:
        """Return a part of the dataset."""
        return np.asarray(self._array[tuple(slice) if isinstance(slice, tuple) else slice])

    def read_block(self, block: Any, slice: Any = ...) -> np.ndarray:
        """Return a chunk, or a part of it."""
        chunk = self._array[tuple(block.slice_from_chunks(self._structure.chunks))]
        return np.asarray(chunk)[tuple(slice) if isinstance(slice, tuple) else slice]


def plain(attrs: Any) -> dict[str, Any]:
    """Return attributes in types of JSON."""
    return {
        name: value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
        for name, value in attrs.items()
    }


def tree_of(con: dn.Connection, group: str = "") -> MapAdapter:
    """Return the datasets of a group as a tree of tiled, without text of variable length."""
    groups, names = con.children(group)
    found: dict[str, Any] = {name: tree_of(con, name) for name in groups}
    for name in names:
        dataset = con[name]
        if dataset.dtype.kind != "T" and dataset.shape and dataset.size:
            found[name] = DatasetAdapter(dataset)
    parts = {name.rpartition("/")[2]: adapter for name, adapter in found.items()}
    return MapAdapter(parts, metadata=plain(con.get_group_attrs(group)))


def __getattr__(name: str) -> Any:
    """Make the tree when tiled asks for it."""
    if name != "tree":
        raise AttributeError(name)
    con, group = dn.open_url(os.environ["DOSNA_URL"], mode="r")
    con.connect()
    return tree_of(con, group)
