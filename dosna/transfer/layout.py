"""The layouts by which HSDS finds the elements of datasets in their HDF5 file."""

from __future__ import annotations

import h5py
import numpy as np

from dosna.core.types import Json
from dosna.sources.hdf5.direct import offset_of, stored_records
from dosna.sources.hdf5.types import grid_of
from dosna.transfer.copying import Copied, filters_of, is_stored_so

__all__ = ["linked_layout"]


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


def linked_layout(found: Copied, uri: str) -> tuple[Json | None, list[Json], str]:
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
    grid = grid_of(dataset)
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
