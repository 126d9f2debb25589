"""The methods of a dataset that call a verb: query, export, pyramid, and arrays of Dask.

See `dosna.array.verbs`. Their bodies make one call each. `pyramid` is longer than other methods,
for it documents nine parameters.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, Literal, Self

from dosna.array.bulk import Bulk
from dosna.array.verbs import registry as verbs
from dosna.core.progress import Progress
from dosna.core.request import ExportRequest
from dosna.core.sizes import Limit
from dosna.engines.base import collective

__all__ = ["DatasetDoors"]


class DatasetDoors(Bulk):
    """The methods of a dataset whose work is done by packages above this one."""

    def query(
        self,
        where: Any = None,
        columns: str | Iterable[str] | None = None,
        *,
        batch_rows: int | None = None,
        memory_limit: Limit = None,
        progress: Progress = None,
    ) -> Any:
        """Select elements by a condition: their places and values, as a table.

        Nothing is read until a result is asked for: `to_arrow`, `to_numpy`, `batches`, `count`, …
        of the query.

        Parameters
        ----------
        where : str, optional
            The condition, such as ``value > 5``; by default all elements. Its columns are
            ``value``, or the fields of a structured dtype, and the coordinates: the names of the
            axes, or ``i0``, ``i1``, ….
        columns : str or iterable of str, optional
            The columns of the result, also new ones such as ``"twice = 2 * value"``; by default
            the coordinates and the values.
        batch_rows : int, optional
            The most rows of a batch of `batches`.
        memory_limit : int or str, optional
            The most bytes of chunks held at a time, apart from the result, such as '512M'.
        progress : bool or callable, optional
            True for a progress bar, or a callback ``(done, total)`` in stored objects.

        Returns
        -------
        ArrayQuery
            The query, see `dosna.query.arrays.ArrayQuery`.

        Raises
        ------
        UnknownNameError
            There is no such column or function. The message has the nearest names.
        QueryError
            The text is not of the language, or the types do not fit.

        Examples
        --------
        >>> ds.query("value > 6").to_numpy()
        {'i0': array([1, 1]), 'i1': array([2, 3]), 'value': array([7, 8])}
        """
        ways = (batch_rows, memory_limit, progress)
        return verbs.get("query_array")(self, where, columns, *ways)

    @collective
    def export(
        self,
        path: str | os.PathLike[str],
        *,
        chunk_size: int | Sequence[int] | None = None,
        compression: str | None = None,
        overwrite: bool = False,
        progress: Progress = None,
        memory_limit: Limit = None,
    ) -> None:
        """Write the dataset, with name and attributes, to a file: HDF5, Zarr or NumPy's format.

        Parameters
        ----------
        path : path
            The file to write, whose ending determines the format; see `Connection.export`.
        chunk_size : int or sequence of int, optional
            The extent of a chunk in the file; by default that of the dataset.
        compression : str, optional
            The compression of the chunks, as for `Connection.export`; by default none.
        overwrite : bool
            True to replace what exists at `path`.
        progress : bool or callable, optional
            True for a progress bar, or a callback ``(done, total)`` in chunks.
        memory_limit : int or str, optional
            The most bytes of blocks held at a time, such as '512M'.

        Raises
        ------
        FileExistsError
            Something exists at `path`.
        ConfigurationError
            The ending is unknown, or the format does not have an option.
        RefusedError
            The dataset is incomplete, or has what the format cannot represent.
        MemoryLimitError
            The limit is below what one chunk needs.

        Examples
        --------
        >>> import os, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "tomo.npy")
        ...     ds.export(path)
        ...     np.load(path)[1]
        array([5, 6, 7, 8])
        """
        self.connection.check_connected()
        verbs.get("export")(
            self.connection,
            [self],
            path,
            ExportRequest(
                chunk_size,
                compression,
                overwrite=overwrite,
                progress=progress,
                memory_limit=memory_limit,
            ),
        )

    @collective
    def pyramid(
        self,
        levels: int | None = None,
        *,
        method: Literal["mean", "mode", "stride"] = "mean",
        factor: int | Sequence[int] = 2,
        axes: Sequence[str] | None = None,
        scale: float | Sequence[float] = 1.0,
        unit: str | None = None,
        overwrite: bool = False,
        progress: Progress = None,
        memory_limit: Limit = None,
    ) -> list[Self]:
        """Make smaller and smaller copies, as the levels of an OME-Zarr 0.5 image.

        They are datasets ``NAME_levels/1``, ``NAME_levels/2``, …, each made of the one before. The
        attributes of the group that contains this dataset describe them.

        Parameters
        ----------
        levels : int, optional
            The number of levels; by default until no axis is longer than 64. Shorter axes stay.
        method : {'mean', 'mode', 'stride'}
            The value for a cell: the mean of its elements, rounded for integers; the most frequent
            value, and of several the least, for labels; or its first element.
        factor : int or sequence of int
            The extent of a cell on the axes of space, or on each axis.
        axes : sequence of str, optional
            The names of the axes, such as ``"tzyx"``; by default those that the dataset has, or
            the last of ``tczyx``. Time (t) and channels (c) are not made smaller by default.
        scale : float or sequence of float
            The distance of neighbours on the axes of space, or on each axis.
        unit : str, optional
            The unit of the distances in space, such as ``'micrometer'``.
        overwrite : bool
            True to replace the levels that an earlier call has made.
        progress : bool or callable, optional
            True for a progress bar, or a callback ``(done, total)`` in stored objects.
        memory_limit : int or str, optional
            The most bytes of blocks held at a time, such as '512M'.

        Returns
        -------
        list of EngineDataset
            The levels, from the largest to the smallest. If anything fails, they are deleted.

        Raises
        ------
        DatasetExistsError
            There are levels already.
        ConfigurationError
            OME-Zarr has no such axes, or the connection keeps no attributes of groups.
        TypeError
            The elements are not numbers.
        MemoryLimitError
            The limit is below what one chunk needs.

        Examples
        --------
        >>> [level[...].tolist() for level in ds.pyramid(1)]
        [[[4, 6]]]
        """
        made: list[Self] = verbs.get("pyramid")(
            self,
            levels=levels,
            method=method,
            factor=factor,
            axes=axes,
            scale=scale,
            unit=unit,
            overwrite=overwrite,
            progress=progress,
            memory_limit=memory_limit,
        )
        return made

    def view(self, *, height: int = 600) -> Any:
        """Show the dataset in a notebook, by the page that ``dosna view`` opens in a browser.

        See `Connection.view`.

        Parameters
        ----------
        height : int
            The height of the frame in pixels.

        Returns
        -------
        View
            The page, which a notebook shows. Its `url` is for a browser on the same machine.

        Raises
        ------
        NotConnectedError
            The connection is not open.
        MissingDependencyError
            A package of the extra ``view`` is not installed.

        Examples
        --------
        Show a dataset in the cell of a notebook::

            con["entry/data"].view()
        """
        self.connection.check_connected()
        return verbs.get("view")(self.connection, self.name, height=height)

    def to_dask(self, chunks: Any = "auto") -> Any:
        """Return a Dask array of the dataset, whose blocks are whole stored objects.

        Parameters
        ----------
        chunks : 'auto', None or chunks
            The blocks: as many stored objects as come near to Dask's ``array.chunk-size``; one
            object each if None; or what `dask.array.from_array` takes.

        Returns
        -------
        dask.array.Array
            The array. It reads when it is computed; its name is another one each time, because the
            dataset may have changed.

        Raises
        ------
        MissingDependencyError
            Dask is not installed.

        Examples
        --------
        >>> ds.to_dask(chunks=None).numblocks
        (1, 2)
        """
        self.connection.check_connected()
        return verbs.get("to_dask")(self, chunks)

    def store_dask(
        self, array: Any, region: Sequence[slice] | None = None, *, compute: bool = True
    ) -> Any:
        """Write a Dask array into the dataset, in parallel by Dask's own scheduler.

        The array is given blocks of whole stored objects first, so that no two workers write to
        the same one, whatever its blocks were.

        Parameters
        ----------
        array : dask.array.Array
            The values.
        region : sequence of slice, optional
            The part of the dataset that is written; by default all of it.
        compute : bool
            False to return what writes when it is computed.

        Returns
        -------
        None or dask.delayed.Delayed
            None, or with ``compute=False`` the work to be done.

        Raises
        ------
        ValueError
            The array has another shape than the part that is written.
        MissingDependencyError
            Dask is not installed.

        Examples
        --------
        >>> import dask.array as da
        >>> ds.store_dask(da.ones((2, 4), chunks=(1, 3)))
        >>> ds[0]
        array([1, 1, 1, 1])
        """
        self.check_writable()
        return verbs.get("store_dask")(self, array, region, compute)
