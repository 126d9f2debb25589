"""Chunks of HDF5 files in the form in which they are stored, through h5py."""

from __future__ import annotations

from typing import Any

# h5py takes its lock around every call of libhdf5, which is not thread-safe, but not around these
# two before 3.16. Threads crash or write damaged files then. The lock may be taken twice.
from h5py._objects import phil

from dosna.core.types import Shape

__all__ = ["read_stored_chunk", "write_stored_chunk"]


def read_stored_chunk(dataset: Any, start: Shape) -> bytes:
    """Read a chunk without undoing its filters.

    Parameters
    ----------
    dataset : h5py.h5d.DatasetID
    start : tuple of int
        The index of its first element.

    Returns
    -------
    bytes
    """
    with phil:
        _, raw = dataset.read_direct_chunk(start)
    return bytes(raw)


def write_stored_chunk(dataset: Any, start: Shape, data: Any) -> None:
    """Write a chunk that its filters have already been applied to.

    Parameters
    ----------
    dataset : h5py.h5d.DatasetID
    start : tuple of int
        The index of its first element.
    data : buffer
    """
    with phil:
        dataset.write_direct_chunk(start, data)
