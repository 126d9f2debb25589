"""A handle on one chunk of a dataset."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from dosna.array.home import ChunkedLike
from dosna.core.types import Array, Shape

__all__ = ["EngineDataChunk"]


class EngineDataChunk:
    """A handle on one chunk; it reads and writes through the engine's dataset.

    It covers the full extent of a stored chunk. At the edge of the array, the part outside reads
    as the fill value, and what is written there is dropped. The examples of the methods use the
    chunk of this one.

    Parameters
    ----------
    dataset : EngineDataset
        The dataset that the chunk belongs to.
    idx : tuple of int
        The index of the chunk in the chunk grid.

    Examples
    --------
    >>> import dosna as dn
    >>> con = dn.Connection("chunks", backend="ram")
    >>> con.connect()
    >>> ds = con.create_dataset("tomo", data=[[1, 2, 3, 4], [5, 6, 7, 8]], chunk_size=(2, 2))
    >>> chunk = ds.get_chunk((0, 1))
    >>> chunk[...]
    array([[3, 4],
           [7, 8]])
    """

    def __init__(self, dataset: ChunkedLike, idx: Shape) -> None:
        self.dataset = dataset
        self.instance = dataset.instance.get_chunk(idx)
        self.idx = idx

    @property
    def name(self) -> str:
        """Name of the chunk within its dataset."""
        return self.instance.name

    @property
    def shape(self) -> Shape:
        """Extent of the stored chunk."""
        return self.dataset.chunk_size

    @property
    def size(self) -> int:
        """Number of elements of the stored chunk."""
        return self.byte_count // self.dtype.itemsize

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""
        return self.dataset.dtype

    @property
    def fillvalue(self) -> Any:
        """The value as which the chunk is read before it is written."""
        return self.dataset.fillvalue

    @property
    def byte_count(self) -> int:
        """Bytes of the stored chunk, uncompressed."""
        return self.dataset.instance.metadata.chunk_nbytes

    def get_data(self, slices: Any = None) -> Any:
        """Read part of the chunk, or all of it. The same as ``chunk[slices]``.

        Parameters
        ----------
        slices : index, optional
            The selection within the chunk; by default all of it.

        Returns
        -------
        ndarray or scalar
            The values.

        Raises
        ------
        IndexError
            An index is out of range, or of a kind that is not supported.
        ChunkCorruptError
            The stored chunk cannot be what was written.

        Examples
        --------
        >>> chunk.get_data(0)
        array([3, 4])
        """
        self.dataset.connection.check_connected()
        return self.dataset.read_chunk(self.idx, slices, self.shape)

    def set_data(self, values: Any, slices: Any = None) -> None:
        """Write part of the chunk, or all of it. The same as ``chunk[slices] = values``.

        Parameters
        ----------
        values : array_like
            The values, which are broadcast to the selection as by NumPy.
        slices : index, optional
            The selection within the chunk; by default all of it.

        Raises
        ------
        ValueError
            The values cannot be broadcast to the selection.
        ReadOnlyError
            The connection's mode is 'r', or the dataset is a link.

        Examples
        --------
        >>> chunk.set_data(9, slices=0)
        >>> chunk[...]
        array([[9, 9],
               [7, 8]])
        """
        self.dataset.check_writable()
        self.dataset.write_chunk(self.idx, values, slices, self.shape)

    def __getitem__(self, key: Any) -> Any:
        return self.get_data(key)

    def __setitem__(self, key: Any, values: Any) -> None:
        self.set_data(values, key)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError(
                f"cannot make an array of {self.name} without a copy: it is not in memory"
            )
        return np.asarray(self.get_data(), dtype)

    def __repr__(self) -> str:
        return f"<dosna.DataChunk {self.name} of {self.dataset.name!r}: shape {self.shape}>"
