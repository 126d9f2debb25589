"""A dataset as users see it: what it has beside indexing, chunks and work over all of them.

Each class below it has one duty: `Described`, `ArrayAccess`, `Chunked`, `Bulk`, `DatasetDoors` and
`Reductions`.
Methods over all chunks are collective under engines of several processes: all processes call
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Self

from numpy.typing import ArrayLike

from dosna.array.appending import values_to_append
from dosna.array.datadoors import DatasetDoors
from dosna.array.home import ArrayHome
from dosna.array.reductions import Reductions
from dosna.array.undoing import undo
from dosna.core.metadata import check_extents
from dosna.core.progress import Progress
from dosna.core.sizes import Limit
from dosna.engines.base import collective

__all__ = ["EngineDataset"]


class EngineDataset(DatasetDoors, Reductions):
    """An N-dimensional array in chunks, made by `EngineConnection.create_dataset`.

    It is indexed like a NumPy array: ``ds[...]`` reads, ``ds[...] = values`` writes. The examples
    of the methods use the connection and the dataset of this one.

    Parameters
    ----------
    connection : EngineConnection
        The connection that the dataset belongs to.
    instance : BackendDataset
        The backend's dataset, which stores the chunks.
    runner : Runner
        The runner that does the work.

    Examples
    --------
    >>> import numpy as np
    >>> import dosna as dn
    >>> con = dn.Connection("scans", backend="ram")
    >>> con.connect()
    >>> ds = con.create_dataset("tomo", data=[[1, 2, 3, 4], [5, 6, 7, 8]], chunk_size=(2, 2))
    >>> ds[1, 1:3]
    array([6, 7])
    >>> ds[:, 0] = 0
    >>> float(ds[...].sum())
    30.0
    """

    @collective
    def clone(
        self,
        output_name: str,
        data: bool = False,
        *,
        progress: Progress = None,
        memory_limit: Limit = None,
    ) -> Self:
        """Create a dataset like this one in the same connection, with its attributes.

        Parameters
        ----------
        output_name : str
            The name of the new dataset, which must not exist.
        data : bool
            True to copy the data too. The clone of an `incomplete` dataset with its data is
            incomplete too.
        progress : bool or callable, optional
            True for a progress bar, or a callback ``(done, total)`` in chunks.
        memory_limit : int or str, optional
            The most bytes of blocks held at a time, such as '512M'.

        Returns
        -------
        EngineDataset
            The new dataset. If loading the data fails, it is deleted again.

        Raises
        ------
        DatasetExistsError
            A dataset of the name `output_name` exists.
        MemoryLimitError
            The limit is below what one chunk needs.

        Examples
        --------
        >>> ds.clone("empty")[0]
        array([0, 0, 0, 0])
        >>> ds.clone("full", data=True)[0]
        array([1, 2, 3, 4])
        """
        part = data and self.incomplete
        made: Self = self.connection.create_filled(
            lambda: self.connection.create_like(self, output_name, self.dtype, incomplete=part),
            self if data else None,
            progress,
            memory_limit,
        )
        return made

    @collective
    def copy(
        self,
        connection: ArrayHome,
        name: str | None = None,
        *,
        chunk_size: int | Sequence[int] | None = None,
        progress: Progress = None,
        memory_limit: Limit = None,
        **options: Any,
    ) -> EngineDataset:
        """Copy data and attributes into another connection, of any backend and engine.

        Parameters
        ----------
        connection : EngineConnection
            The connection that receives the copy.
        name : str, optional
            The name of the copy; by default the same.
        chunk_size : int or sequence of int, optional
            The extent of a chunk of the copy; by default the same.
        progress : bool or callable, optional
            True for a progress bar, or a callback ``(done, total)`` in chunks.
        memory_limit : int or str, optional
            The most bytes of blocks held at a time, such as '512M'.
        **options
            The options of the other backend's `create_dataset`.

        Returns
        -------
        EngineDataset
            The copy, incomplete if this dataset is. If anything fails, it is deleted again.

        Raises
        ------
        DatasetExistsError
            The other connection has a dataset of that name.
        MemoryLimitError
            The limit is below what one chunk needs.

        Examples
        --------
        >>> with dn.Connection("other", backend="ram") as other:
        ...     ds.copy(other, chunk_size=(2, 4))[1]
        array([5, 6, 7, 8])
        """
        self.connection.check_connected()
        if not isinstance(connection, ArrayHome):
            raise TypeError(
                f"copy needs the connection that receives the copy, not {connection!r}: use "
                "clone(name, data=True) for a copy in the same one"
            )
        create = partial(
            connection.create_dataset,
            self.name if name is None else name,
            self.shape,
            self.dtype,
            self.fillvalue,
            chunk_size=self.chunk_size if chunk_size is None else chunk_size,
            attrs=dict(self.attrs),
            incomplete=self.incomplete,
            **options,
        )

        copied: EngineDataset = connection.create_filled(create, self, progress, memory_limit)
        return copied

    @collective
    def delete(self) -> None:
        """Delete the dataset.

        Raises
        ------
        DatasetNotFoundError
            The dataset was deleted, or another one was created under its name.

        Examples
        --------
        >>> ds.delete()
        >>> "tomo" in con
        False
        """
        self.connection.check_writable()
        # The metadata of a link are not those that are stored.
        only = None if self.instance.metadata.link else self.instance
        self.runner.once(lambda: self.connection.instance.del_dataset(self.name, only))

    @collective
    def resize(self, shape: int | Sequence[int]) -> None:
        """Change the extents, with the same number of axes.

        What is cut off is deleted. An array that grows again reads as its fill value there.

        Parameters
        ----------
        shape : int or sequence of int
            The new extent of each axis.

        Raises
        ------
        ValueError
            `shape` has another number of axes, or a negative extent.
        TypeError
            An extent is not an integer.

        Examples
        --------
        >>> ds.resize((3, 2))
        >>> ds[...]
        array([[1, 2],
               [5, 6],
               [0, 0]])
        """
        self.check_writable()
        wanted = check_extents(shape, "shape")
        if len(wanted) != self.ndim:
            raise ValueError(
                f"cannot resize dataset {self.name!r} to {wanted}: its {self.ndim} axes stay"
            )
        self.change(lambda: self.instance.resize(wanted))

    @collective
    def append(self, data: ArrayLike, axis: int = 0) -> None:
        """Extend the array along an axis and write `data` there.

        Parameters
        ----------
        data : array_like
            The values to append, of the dataset's shape except along `axis`.
        axis : int
            The axis to extend.

        Raises
        ------
        ValueError
            `data` has another shape, or values that the dataset's dtype does not have: text that
            is too long, numbers out of range, fractions for integers. Or `axis` is out of range.
            If the write fails, the array gets its former extent back, unless another writer has
            appended in the meantime: then the gap between the two reads as the fill value.
        StaleDatasetError
            Somebody else has resized the dataset so that `data` no longer fits.

        Examples
        --------
        >>> ds.append([[9, 10, 11, 12]])
        >>> ds.shape
        (3, 4)
        >>> ds[2]
        array([ 9, 10, 11, 12])
        """
        self.check_writable()
        if not -self.ndim <= axis < self.ndim:
            raise ValueError(f"axis {axis} is outside of the {self.ndim} axes of {self.name!r}")
        axis %= self.ndim
        values = values_to_append(self, data, axis)
        given: tuple[int, ...] = values.shape
        before = self.change(lambda: self.instance.extend(axis, given))
        begin, end = before[axis], before[axis] + given[axis]
        # Without a call, after which an interrupt could come.
        after = (*before[:axis], end, *before[axis + 1 :])
        try:
            key = (*[slice(None)] * axis, slice(begin, end))
            self.runner.once(partial(self._write, key, values, shared_edge=True))
        except BaseException:
            undo(
                lambda: self.change(partial(self.instance.take_back, before, after)),
                f"dataset {self.name!r} could not be given its former extent again",
            )
            raise

    def flush(self) -> None:
        """Wait until everything written so far would survive a power loss.

        Raises
        ------
        NotConnectedError
            The connection is not open.

        Examples
        --------
        >>> ds[0] = 5
        >>> ds.flush()
        """
        self.connection.check_connected()
        self.instance.flush()

    def refresh(self) -> None:
        """Read shape and attributes again, which another program may have changed.

        Raises
        ------
        StaleDatasetError
            Somebody else has made another dataset of its name.

        Examples
        --------
        >>> other = con["tomo"]
        >>> other.resize((3, 4))
        >>> ds.refresh()
        >>> ds.shape
        (3, 4)
        """
        self.connection.check_connected()
        self.instance.refresh()
