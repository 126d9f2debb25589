"""The chunks of the datasets of a tree: the same entries for all branches."""

from __future__ import annotations

import math

from dosna.core.metadata import choose_chunk_size
from dosna.core.types import Shape

__all__ = ["choose_chunk_entries", "column_chunks"]

TARGET_CHUNK_ENTRIES = 1 << 18
"""Number of entries of a chunk: 1 MiB of the 4-byte numbers that most branches have."""

_MOST_CHUNK_BYTES = 8 << 20


def choose_chunk_entries(entries: int | None, cluster: int | None = None) -> int:
    """Choose the number of entries of a chunk.

    Parameters
    ----------
    entries : int or None
        The number of entries of the tree, if it is known.
    cluster : int or None
        The number of entries that the source usually keeps together: those of a cluster, or
        those between places where the baskets of all branches end.

    Returns
    -------
    int
        The entries of several clusters, or of one of several equal parts of a cluster. If the
        number of entries is known, the last chunk lacks no more than a cluster, as far as these
        allow: what it lacks is stored as well.
    """
    if entries is not None and entries <= TARGET_CHUNK_ENTRIES:
        return max(1, entries)
    if cluster and cluster > TARGET_CHUNK_ENTRIES:
        return -(-cluster // -(-cluster // TARGET_CHUNK_ENTRIES))
    unit = cluster or 1
    most = TARGET_CHUNK_ENTRIES // unit
    if entries is None:
        return most * unit
    units = -(-entries // unit)
    return -(-units // -(-units // most)) * unit


def column_chunks(
    chunk_entries: int, inner: Shape, itemsize: int, rows_per_entry: float = 1.0
) -> Shape:
    """Choose the chunks of a dataset of a branch.

    Parameters
    ----------
    chunk_entries : int
        The number of entries of a chunk of the tree, see `choose_chunk_entries`.
    inner : tuple of int
        The extents of the axes after the first.
    itemsize : int
        The bytes of a number.
    rows_per_entry : float
        1 for a dataset with a row for each entry; the mean length for contents of lists.

    Returns
    -------
    tuple of int
        The rows for so many entries, halved until a chunk has at most 8 MiB, and the inner
        extents. Rows above 8 MiB are cut as well.
    """
    inner = tuple(max(1, extent) for extent in inner)
    rows = max(1, math.ceil(chunk_entries * rows_per_entry))
    size = itemsize
    for extent in inner:
        size *= extent
    while rows > 1 and rows * size > _MOST_CHUNK_BYTES:
        rows = -(-rows // 2)
    if size > _MOST_CHUNK_BYTES:
        return choose_chunk_size((1, *inner), itemsize, _MOST_CHUNK_BYTES)
    return (rows, *inner)
