"""The operations of a dataset on all of its chunks: load, map, apply, reduce, copy, resize, ….

The methods over all chunks are collective under engines of several processes: all processes
call them.
"""

from __future__ import annotations

import os
from array import array as ints
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import product
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from dosna.array.chunk import EngineDataChunk
from dosna.array.home import ArrayHome
from dosna.array.indexing import Appended, ArrayAccess
from dosna.array.values import is_source
from dosna.array.verbs import registry as verbs
from dosna.backends.base import BackendDataset, ChunkState
from dosna.core.casting import check_values
from dosna.core.compare import Comparison, Verification, unequal
from dosna.core.halo import check_halo, check_mode
from dosna.core.plan import ChunkTask, every_chunk, touched
from dosna.core.progress import Progress
from dosna.core.sizes import parse_size
from dosna.core.text import element_bytes, elements, is_text
from dosna.core.types import Array, Shape
from dosna.core.values import as_dtype, check_fillvalue, same_fill
from dosna.engines.base import Tasks, collective
from dosna.engines.work.boxes import (
    BLOCK_BYTES,
    box_of,
    objects_of,
    plain,
    window,
    workers_within,
)
from dosna.engines.work.checking import Compare, Verify
from dosna.engines.work.loading import Load, load_block
from dosna.engines.work.mapping import Apply, Func, HaloMap, Map, halo_group, result_of
from dosna.engines.work.reducing import Clear, Reduce
from dosna.errors import StaleDatasetError

Limit = int | str | None
"""A memory limit: a number of bytes, a text like '512M', or None for no limit."""


class EngineDataset(ArrayAccess):
    """An N-dimensional array in chunks, made by `EngineConnection.create_dataset`.

    It is indexed like a NumPy array: ``ds[...]`` reads, ``ds[...] = values`` writes.

    Examples
    --------
    >>> import dosna as dn
    >>> con = dn.Connection("dataset", backend="ram")
    >>> con.connect()
    >>> ds = con.create_dataset("tomo", shape=(100, 100), chunk_size=(32, 32))
    >>> ds[10:50, 3] = 1
    >>> float(ds[...].sum())
    40.0
    """

    def get_chunk(self, idx: Any) -> EngineDataChunk:
        """Return a handle on a chunk, written or not. Nothing is read or written.

        Parameters
        ----------
        idx : tuple of int
            The index of the chunk in the chunk grid.

        Returns
        -------
        EngineDataChunk
            The handle.

        Raises
        ------
        ChunkIndexError
            The index is outside of the chunk grid.

        Examples
        --------
        >>> import dosna as dn
        >>> con = dn.Connection("get_chunk", backend="ram")
        >>> con.connect()
        >>> ds = con.create_dataset("tomo", data=[[1, 2, 3, 4], [5, 6, 7, 8]], chunk_size=(2, 2))
        >>> ds.get_chunk((0, 1))[...]
        array([[3, 4],
               [7, 8]])
        """
        self.connection.check_connected()
        return EngineDataChunk(self, self.check_idx(idx))

    def iter_chunks(self) -> Iterable[EngineDataChunk]:
        """Yield a handle on each chunk of the grid, written or not, in C order.

        Yields
        ------
        EngineDataChunk
            The handle on the next chunk.
        """
        self.connection.check_connected()
        for idx in every_chunk(self.shape, self.chunk_size).columns().idx:
            yield EngineDataChunk(self, idx)

    @collective
    def create_chunk(self, idx: Any, data: Any = None, slices: Any = None) -> EngineDataChunk:
        """Write a chunk that was not written before.

        Parameters
        ----------
        idx : tuple of int
            The index of the chunk in the chunk grid.
        data : array_like, optional
            The values of the selected part, or of the chunk; by default the fill value.
        slices : index, optional
            The part of the chunk to write; by default all of it. The rest is the fill value.

        Returns
        -------
        EngineDataChunk
            A handle on the chunk.

        Raises
        ------
        ChunkExistsError
            The chunk was written before.
        ChunkIndexError
            The index is outside of the chunk grid.
        """
        self.check_writable()
        at = self.check_idx(idx)
        meta = self.instance.metadata
        chunk = meta.empty_chunk()
        inside = chunk[meta.bounds(at).chunk]
        if data is not None:
            data = elements(data, meta.dtype)
            part = inside if slices is None and np.shape(data) != meta.chunk_size else chunk
            part[... if slices is None else slices] = data
        self.runner.once(lambda: self.instance.create_chunk(at, inside) and None)
        return EngineDataChunk(self, at)

    # -- all chunks -----------------------------------------------------------------------

    @collective
    def load(
        self,
        data: Any,
        *,
        missing: bool = False,
        progress: Progress = None,
        memory_limit: Limit = None,
    ) -> None:
        """Write the whole array from a source of the same shape, chunk by chunk.

        Parameters
        ----------
        data : array_like
            The values: a NumPy array, a memmap, an h5py dataset, another dosna dataset, or
            anything with shape, dtype and slicing. It is read in blocks of whole chunks, a bounded
            number at a time. If its attribute ``chunks`` tells how it is chunked itself, the
            blocks are chosen so that each of its chunks is read once, as far as memory allows.
        missing : bool
            True to write only what is not stored yet, after an earlier load of the same data was
            interrupted.
        progress : bool or callable, optional
            True for a progress bar, or a callback ``(done, total)`` in chunks.
        memory_limit : int or str, optional
            The most bytes of blocks held at a time, such as '512M'.

        Raises
        ------
        ValueError
            `data` has another shape, or values that the dataset's dtype does not have: text that
            is too long, numbers out of range, fractions for integers. Chunks that were written
            before the error stay changed.
        MemoryLimitError
            The limit is below what one chunk needs.

        Examples
        --------
        >>> import numpy as np
        >>> import dosna as dn
        >>> con = dn.Connection("load", backend="ram")
        >>> con.connect()
        >>> ds = con.create_dataset("tomo", shape=(2, 3))
        >>> ds.load(np.arange(6).reshape(2, 3))
        >>> ds[1]
        array([3., 4., 5.], dtype=float32)
        """
        self.load_values(
            data, missing=missing, progress=progress, memory_limit=memory_limit, checked=True
        )

    def load_values(
        self,
        data: Any,
        *,
        missing: bool = False,
        progress: Progress = None,
        memory_limit: Limit = None,
        checked: bool = False,
    ) -> None:
        """Load the array as `load` does, within a collective call; convert values as NumPy does.

        Parameters
        ----------
        data : array_like
            The values, of the dataset's shape.
        missing : bool
            True to write only what is not stored yet.
        progress : bool or callable, optional
            True for a progress bar, or a callback ``(done, total)`` in chunks.
        memory_limit : int or str, optional
            The most bytes of blocks held at a time, such as '512M'.
        checked : bool
            True to raise an error if a value would be changed by the conversion.
        """
        self.check_writable()
        if not is_source(data):
            data = plain(data)
        if tuple(data.shape) != self.shape:
            raise ValueError(
                f"load needs data of shape {self.shape}, and this has {tuple(data.shape)}: "
                "assign with ds[...] = data to broadcast"
            )
        travels = False
        work: Callable[[Any], None]
        itemsize = max(element_bytes(np.dtype(data.dtype)), element_bytes(self.dtype))
        grain = block = self.instance.grain
        held = 2 * _nbytes(grain, itemsize)
        checked = checked and data.dtype != self.dtype
        if is_source(data):
            source, chunks, travels = _opened(data)
            if source is data and chunks:
                # One chunk as it is stored, and after one filter and the next.
                held += 3 * _nbytes(chunks, itemsize)
            work = Load(self.instance, source, checked)
            most = BLOCK_BYTES
            if memory_limit is not None:
                most = min(most, parse_size(memory_limit) // self.runner.workers - held)
            shares = 4 * self.runner.workers if self.runner.workers > 1 else 1
            block = load_block(self.instance, chunks, most, shares)
            if self.instance.remote or getattr(source, "remote", False):
                block = self._window(block, 2 * _nbytes(block, itemsize), memory_limit, held)
        elif checked:
            work = Load(self.instance, np.asarray(data), checked)
        else:
            work = partial(self.instance.write_many, elements(np.asarray(data), self.dtype))
        tasks: Tasks[ChunkTask]
        total = prod(-(-n // b) for n, b in zip(self.shape, block, strict=True))
        found = self.runner.once(lambda: self._stored_at(data, block, missing))
        if found is not None and isinstance(work, Load):
            work.sparse = True
        if found is None or len(found) == total:
            tasks = every_chunk(self.shape, block)
            before = 0
        else:
            tasks = [box_of(idx, self.shape, block) for idx in found.tolist()]
            before = total - len(tasks)
        if missing:
            done = self.runner.once(lambda: set(self.instance.finished_objects()))
            left = [t for t in tasks if any(o.idx not in done for o in objects_of(t.out, grain))]
            tasks, before = left, before + len(tasks) - len(left)
        self.spread(
            "load",
            work,
            held + _nbytes(block, itemsize),
            progress,
            memory_limit,
            tasks=tasks,
            before=before,
            travels=travels,
        )

    def _stored_at(self, data: Any, block: Shape, missing: bool) -> Array | None:
        """Return the indices of the blocks to load, or None for all of them.

        The answer is also None where the dataset may hold something else that must be overwritten.
        """
        fill = np.asarray(self.fillvalue, self.dtype)
        stored_in = getattr(data, "stored_in", None)
        found: Array | None = None
        if isinstance(data, EngineDataset):
            found = stored_in_dataset(data.instance, block, fill)
        elif stored_in is not None and self.shape:
            found = stored_in(block, fill)
        if found is None or missing:
            return found
        return None if any(True for _ in self.instance.object_indices()) else found

    @collective
    def map(
        self,
        func: Func,
        output_name: str,
        dtype: DTypeLike | None = None,
        *,
        halo: int | Sequence[int] = 0,
        boundary: str = "reflect",
        cval: Any = 0,
        progress: Progress = None,
        memory_limit: Limit = None,
    ) -> EngineDataset:
        """Write the result of a function of each chunk to a new dataset.

        Parameters
        ----------
        func : callable
            A function that takes the part of a chunk that lies inside the array, and returns an
            array of the same shape. With a `halo`, it also sees that many more elements on each
            side.
        output_name : str
            The name of the output, which must not exist. The output is chunked and stored as this
            dataset is.
        dtype : dtype, optional
            The dtype of the output; by default that of the result of `func` for the first chunk. A
            later result that this dtype would cut down is then a TypeError.
        halo : int or sequence of int
            The number of elements to see beyond the chunk, on all axes or on each. It may be
            larger than a chunk. What `func` returns for these elements is dropped.
        boundary : {'reflect', 'mirror', 'nearest', 'wrap', 'constant'}
            The continuation of the array beyond its ends. The names have the meaning that they
            have in `scipy.ndimage`.
        cval : scalar
            The constant of 'constant'.
        progress : bool or callable, optional
            True for a progress bar, or a callback ``(done, total)`` in chunks.
        memory_limit : int or str, optional
            The most bytes of blocks held at a time, such as '512M'.

        Returns
        -------
        EngineDataset
            The output. If anything fails, it is deleted again.

        Raises
        ------
        DatasetExistsError
            A dataset of the name `output_name` exists.
        ValueError
            `func` returned an array of another shape.
        TypeError
            A result does not fit the dtype of the first one.
        MemoryLimitError
            The limit is below what one chunk needs.

        Examples
        --------
        >>> import numpy as np
        >>> import dosna as dn
        >>> con = dn.Connection("map", backend="ram")
        >>> con.connect()
        >>> ds = con.create_dataset("tomo", data=[[1, 4], [9, 16]], chunk_size=(1, 2))
        >>> ds.map(np.sqrt, "roots")[...]
        array([[1., 2.],
               [3., 4.]])
        """
        self.connection.check_writable()
        self.note_reading()
        widths = check_halo(halo, self.ndim)
        check_mode(boundary)
        most = BLOCK_BYTES
        if memory_limit is not None:
            # A fifth of a worker's share, so that all workers find work, and because an
            # allocator may keep more memory than it handed out.
            most = min(most, parse_size(memory_limit) // (5 * self.runner.workers))
        meta = self.instance.metadata
        with_halo = any(widths) and meta.size > 0
        if boundary == "constant" and is_text(meta.dtype):
            cval = "" if isinstance(cval, int) and cval == 0 else check_fillvalue(cval, meta.dtype)
        given = dtype is not None
        probe = HaloMap(self.instance, self.instance, func, widths, boundary, cval, given)
        self.runner.once(lambda: self.connection.check_free(output_name))
        if dtype is None:
            dtype = self.runner.once(partial(_first_dtype, self.instance, probe))
        out: EngineDataset = self.connection.create_like(self, output_name, as_dtype(dtype))
        itemsize = max(element_bytes(self.dtype), element_bytes(out.dtype))
        try:
            if with_halo:
                grain = halo_group(out.instance, widths, most, 4 * self.runner.workers)
                halo_work = HaloMap(
                    self.instance, out.instance, func, widths, boundary, cval, given
                )
                held = _nbytes(grain, element_bytes(self.dtype), widths)
                held += 3 * _nbytes(out.instance.grain, itemsize, widths)
                tasks = every_chunk(self.shape, grain)
                self.spread("map", halo_work, held, progress, memory_limit, tasks=tasks)
            else:
                held = 4 * _nbytes(out.instance.grain, itemsize)
                work = Map(self.instance, out.instance, func, given)
                self.spread("map", work, held, progress, memory_limit, over=out.instance)
        except BaseException:
            self.connection.discard(out)
            raise
        return out

    @collective
    def apply(self, func: Func, *, progress: Progress = None, memory_limit: Limit = None) -> None:
        """Replace each chunk by the result of a function of it.

        Parameters
        ----------
        func : callable
            A function that takes the part of a chunk that lies inside the array, and returns an
            array of the same shape, of a dtype that casts to the dataset's (``same_kind``).
        progress : bool or callable, optional
            True for a progress bar, or a callback ``(done, total)`` in chunks.
        memory_limit : int or str, optional
            The most bytes of blocks held at a time, such as '512M'.

        Raises
        ------
        TypeError
            The result has a dtype that does not cast to the dataset's. As after any other error,
            chunks that were done before stay changed.
        ValueError
            `func` returned an array of another shape.
        MemoryLimitError
            The limit is below what one chunk needs.

        Examples
        --------
        >>> import numpy as np
        >>> import dosna as dn
        >>> con = dn.Connection("apply", backend="ram")
        >>> con.connect()
        >>> ds = con.create_dataset("tomo", data=[[1, 2, 3, 4], [5, 6, 7, 8]], chunk_size=(2, 2))
        >>> ds.apply(np.negative)
        >>> ds[0]
        array([-1, -2, -3, -4])
        """
        self.check_writable()
        self.note_reading()
        block = 4 * _nbytes(self.instance.grain, element_bytes(self.dtype))
        self.spread("apply", Apply(self.instance, func), block, progress, memory_limit)

    @collective
    def reduce(
        self,
        op: Literal["sum", "mean", "min", "max"],
        *,
        progress: Progress = None,
        memory_limit: Limit = None,
    ) -> Any:
        """Reduce the whole array to one value, with NumPy's rules for dtype and NaN.

        The sums of the chunks are added in the order of the chunks, in float64 for smaller floats,
        so that the result is the same for every engine and number of workers.

        Parameters
        ----------
        op : {'sum', 'mean', 'min', 'max'}
            The operation.
        progress : bool or callable, optional
            True for a progress bar, or a callback ``(done, total)`` in chunks.
        memory_limit : int or str, optional
            The most bytes of blocks held at a time, such as '512M'.

        Returns
        -------
        scalar
            The result, of the dtype that NumPy gives.

        Raises
        ------
        ValueError
            `op` is none of the four operations.
        TypeError
            The dataset holds text.
        MemoryLimitError
            The limit is below what one chunk needs.
        """
        self.connection.check_connected()
        self.note_reading()
        if op not in ("sum", "mean", "min", "max"):
            raise ValueError(f"reduce does sum, mean, min and max, not {op!r}")
        if is_text(self.dtype):
            raise TypeError(f"{op} of dataset {self.name!r}: it holds text, and reduce numbers")
        model = getattr(np, op)(np.zeros(1, self.dtype))
        if self.size == 0:
            return getattr(np, op)(np.empty(self.shape, self.dtype))
        ufunc: np.ufunc = {"min": np.minimum, "max": np.maximum}.get(op, np.add)
        wide: np.dtype[Any] | None = None
        if ufunc is np.add and self.dtype.kind in "fc":
            wide = np.result_type(self.dtype, np.float64)
        elif op == "mean" and self.dtype.kind in "biu":
            wide = np.dtype(np.float64)
        work = Reduce(self.instance, ufunc, wide)
        block = 2 * _nbytes(self.instance.grain, self.dtype.itemsize)
        parts = self.spread("reduce", work, block, progress, memory_limit)
        pairs = sorted((pair for part in parts for pair in part), key=lambda pair: pair[0])
        total = ufunc.reduce(np.array([value for _, value in pairs]), dtype=wide)
        if op == "mean":
            total = total / self.size
        return np.asarray(total).astype(np.asarray(model).dtype)[()]

    def sum(self, axis: None = None, dtype: None = None, out: None = None) -> Any:
        """Return the sum of all elements; see `reduce`. ``np.sum(ds)`` calls this method too.

        Parameters
        ----------
        axis, dtype, out : None
            Accepted because NumPy passes them; any other value is an error.

        Returns
        -------
        scalar
            The sum of all elements, of the dtype that NumPy gives.

        Raises
        ------
        TypeError
            A parameter is not None, or the dataset holds text.

        Examples
        --------
        >>> import dosna as dn
        >>> con = dn.Connection("sum", backend="ram")
        >>> con.connect()
        >>> ds = con.create_dataset("tomo", data=[[1, 2, 3, 4], [5, 6, 7, 8]], chunk_size=(2, 2))
        >>> int(ds.sum())
        36
        """
        return self._reduced("sum", axis, dtype, out)

    def mean(self, axis: None = None, dtype: None = None, out: None = None) -> Any:
        """Return the mean of all elements; see `reduce`. ``np.mean(ds)`` calls this method too.

        Parameters
        ----------
        axis, dtype, out : None
            Accepted because NumPy passes them; any other value is an error.

        Returns
        -------
        scalar
            The mean of all elements, of the dtype that NumPy gives.

        Raises
        ------
        TypeError
            A parameter is not None, or the dataset holds text.

        Examples
        --------
        >>> import dosna as dn
        >>> con = dn.Connection("mean", backend="ram")
        >>> con.connect()
        >>> ds = con.create_dataset("tomo", data=[[1, 2, 3, 4], [5, 6, 7, 8]], chunk_size=(2, 2))
        >>> float(ds.mean())
        4.5
        """
        return self._reduced("mean", axis, dtype, out)

    def min(self, axis: None = None, out: None = None) -> Any:
        """Return the smallest element; see `reduce`. ``np.min(ds)`` calls this method too.

        Parameters
        ----------
        axis, out : None
            Accepted because NumPy passes them; any other value is an error.

        Returns
        -------
        scalar
            The smallest element, of the dtype that NumPy gives.

        Raises
        ------
        TypeError
            A parameter is not None, or the dataset holds text.
        """
        return self._reduced("min", axis, out)

    def max(self, axis: None = None, out: None = None) -> Any:
        """Return the largest element; see `reduce`. ``np.max(ds)`` calls this method too.

        Parameters
        ----------
        axis, out : None
            Accepted because NumPy passes them; any other value is an error.

        Returns
        -------
        scalar
            The largest element, of the dtype that NumPy gives.

        Raises
        ------
        TypeError
            A parameter is not None, or the dataset holds text.
        """
        return self._reduced("max", axis, out)

    def _reduced(self, op: Literal["sum", "mean", "min", "max"], *of_numpy: None) -> Any:
        if any(argument is not None for argument in of_numpy):
            raise TypeError(
                f"{op} of a dataset is over all of it, and takes no axis, dtype or out: use "
                f"np.{op}(ds[...], …) if it fits into memory, or dask.array.from_array(ds)"
            )
        return self.reduce(op)

    @collective
    def clone(
        self,
        output_name: str,
        data: bool = False,
        *,
        progress: Progress = None,
        memory_limit: Limit = None,
    ) -> EngineDataset:
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
        >>> import dosna as dn
        >>> con = dn.Connection("clone", backend="ram")
        >>> con.connect()
        >>> ds = con.create_dataset("tomo", data=[[1, 2, 3, 4], [5, 6, 7, 8]], chunk_size=(2, 2))
        >>> ds.clone("empty")[0]
        array([0, 0, 0, 0])
        >>> ds.clone("full", data=True)[0]
        array([1, 2, 3, 4])
        """
        part = data and self.incomplete
        made: EngineDataset = self.connection.create_filled(
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
            The name of the copy; by default that of this dataset.
        chunk_size : int or sequence of int, optional
            The extent of a chunk of the copy; by default that of this dataset.
        progress : bool or callable, optional
            True for a progress bar, or a callback ``(done, total)`` in chunks.
        memory_limit : int or str, optional
            The most bytes of blocks held at a time, such as '512M'.
        **options
            The options of the other backend's `create_dataset`.

        Returns
        -------
        EngineDataset
            The copy. If anything fails, it is deleted again. The copy of an `incomplete` dataset
            is incomplete too.

        Raises
        ------
        DatasetExistsError
            The other connection has a dataset of that name.
        MemoryLimitError
            The limit is below what one chunk needs.

        Examples
        --------
        >>> import dosna as dn
        >>> con = dn.Connection("copy", backend="ram")
        >>> con.connect()
        >>> ds = con.create_dataset("tomo", data=[[1, 2, 3, 4], [5, 6, 7, 8]], chunk_size=(2, 2))
        >>> with dn.Connection("other", backend="ram") as other:
        ...     copied = ds.copy(other, chunk_size=(2, 4))
        ...     copied[1]
        array([5, 6, 7, 8])
        """
        self.connection.check_connected()
        target = self.name if name is None else name

        def create() -> EngineDataset:
            made: EngineDataset = connection.create_dataset(
                target,
                self.shape,
                self.dtype,
                self.fillvalue,
                chunk_size=self.chunk_size if chunk_size is None else chunk_size,
                incomplete=self.incomplete,
                **options,
            )
            made.attrs.update(self.attrs)
            return made

        copied: EngineDataset = connection.create_filled(create, self, progress, memory_limit)
        return copied

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
        """Write the dataset to a file for other programs: HDF5, Zarr or NumPy's format.

        The file holds its name and attributes too, except for an ``.npy`` file, which has neither.

        Parameters
        ----------
        path : path
            The file to write. Its ending determines the format: ``.h5``, ``.hdf5``, ``.nxs`` or
            ``.nx5`` is an HDF5 file, ``.zarr`` a folder with a Zarr v3 group, ``.npy`` NumPy's
            format. ``hdf5://home/user/scan.h5`` is a domain of HSDS. The file appears when it is
            complete, and not at all if anything fails.
        chunk_size : int or sequence of int, optional
            The extent of a chunk in the file; by default that of the dataset.
        compression : str, optional
            The compression of the chunks: ``'gzip'`` for HDF5 and HSDS; for Zarr as in the backend
            ``file``. None by default.
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
        >>> import numpy as np
        >>> import dosna as dn
        >>> con = dn.Connection("dataset_export", backend="ram")
        >>> con.connect()
        >>> ds = con.create_dataset("tomo", data=[[1, 2, 3, 4], [5, 6, 7, 8]], chunk_size=(2, 2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "tomo.npy")
        ...     ds.export(path)
        ...     np.load(path)[1]
        array([5, 6, 7, 8])
        """
        self.connection.check_connected()
        verbs.get("export")(
            [self],
            path,
            chunk_size=chunk_size,
            compression=compression,
            overwrite=overwrite,
            progress=progress,
            memory_limit=memory_limit,
        )

    @collective
    def clear(self, *, progress: Progress = None) -> None:
        """Delete all chunks, so that the array reads as its fill value.

        Parameters
        ----------
        progress : bool or callable, optional
            True for a progress bar, or a callback ``(done, total)`` in stored objects.
        """
        self.check_writable()
        written = self.runner.once(lambda: sorted(self.instance.object_indices()))
        with self.runner.reporting(progress, len(written), "clear") as report:
            self.runner.spread(Clear(self.instance), written, report=report)

    @collective
    def delete(self) -> None:
        """Delete the dataset.

        Raises
        ------
        DatasetNotFoundError
            The dataset is gone, or somebody else has made another one of its name.
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
        >>> import dosna as dn
        >>> con = dn.Connection("resize", backend="ram")
        >>> con.connect()
        >>> ds = con.create_dataset("tomo", data=[[1, 2, 3, 4], [5, 6, 7, 8]], chunk_size=(2, 2))
        >>> ds.resize((3, 2))
        >>> ds[...]
        array([[1, 2],
               [5, 6],
               [0, 0]])
        """
        self.check_writable()
        wanted = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
        if len(wanted) != self.ndim:
            raise ValueError(
                f"resize keeps the number of axes: {wanted} has {len(wanted)} and dataset "
                f"{self.name!r} has {self.ndim}"
            )
        for extent in wanted:
            if isinstance(extent, bool) or not isinstance(extent, (int, np.integer)):
                raise TypeError(f"an extent is a whole number, not {extent!r}")
            if extent < 0:
                raise ValueError(f"shape {wanted} has a negative extent")
        self.change(lambda: self.instance.resize(tuple(map(int, wanted))))

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
            If the write fails, the array gets its former extent back, unless somebody else has
            appended in the meantime: then the gap between the two reads as the fill value.
        StaleDatasetError
            Somebody else has resized the dataset so that `data` no longer fits.

        Examples
        --------
        >>> import dosna as dn
        >>> con = dn.Connection("append", backend="ram")
        >>> con.connect()
        >>> ds = con.create_dataset("tomo", data=[[1, 2, 3, 4], [5, 6, 7, 8]], chunk_size=(2, 2))
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
        values: Any = data if is_source(data) else plain(data)
        given: Shape = tuple(values.shape)
        before = self.shape
        if len(given) != self.ndim or any(
            n != m for a, (n, m) in enumerate(zip(given, before, strict=True)) if a != axis
        ):
            raise ValueError(
                f"append along axis {axis} needs data of shape {before} but for that axis, and "
                f"this has {given}"
            )
        if isinstance(values, np.ndarray):
            values = check_values(values, self.dtype, "data to append")
        else:
            values = Appended(values, given, self.dtype)
        before = self.change(lambda: self.instance.extend(axis, given[axis]))
        after = self.shape
        begin = before[axis]
        key = (*[slice(None)] * axis, slice(begin, begin + given[axis]))
        try:
            if any(
                n != m for a, (n, m) in enumerate(zip(given, before, strict=True)) if a != axis
            ):
                raise StaleDatasetError(
                    f"dataset {self.name!r} was resized to {before} by somebody else, and data of "
                    f"shape {given} no longer fit along axis {axis}"
                )
            self.runner.once(partial(self._write, key, values, shared_edge=True))
        except BaseException:
            self.change(partial(_take_back, self.instance, before, after))
            raise

    @collective
    def verify(self, *, progress: Progress = None) -> Verification:
        """Read every chunk and report its state.

        Parameters
        ----------
        progress : bool or callable, optional
            True for a progress bar, or a callback ``(done, total)`` in chunks.

        Returns
        -------
        Verification
            The indices of the chunks that are ``ok`` (the checksum is right), ``unchecked``
            (well-formed, without a checksum), ``never_written``, ``missing``, ``corrupt``, or
            ``unreadable`` (the operating system reports an error for the file). `good` is True if
            no chunk is in one of the last three states.

        Examples
        --------
        >>> import dosna as dn
        >>> con = dn.Connection("verify", backend="ram")
        >>> con.connect()
        >>> ds = con.create_dataset("tomo", shape=(4, 4), chunk_size=(2, 2))
        >>> ds[:2] = 1
        >>> found = ds.verify()
        >>> found.good
        True
        >>> found.never_written
        ((1, 0), (1, 1))
        """
        self.connection.check_connected()
        parts = self.spread("verify", Verify(self.instance), 0, progress, None)
        states: dict[ChunkState, list[Shape]] = {}
        for idx, state in sorted(pair for part in parts for pair in part):
            states.setdefault(state, []).append(idx)
        return Verification(**{k.replace(" ", "_"): tuple(v) for k, v in states.items()})

    @collective
    def compare(
        self,
        other: Any,
        *,
        exact: bool = False,
        progress: Progress = None,
        memory_limit: Limit = None,
    ) -> Comparison:
        """Compare the dataset with another array, chunk by chunk, and report the differences.

        Values are compared, as by NumPy's ``!=``, and not types; NaN and NaT are equal to
        themselves. To check that the chunks themselves are sound, use `verify`.

        Parameters
        ----------
        other : array_like
            The array to compare with: another dataset, or anything with shape, dtype and slicing,
            of the same shape.
        exact : bool
            True to compare the bytes of the values instead, of the same dtype: 0.0 differs from
            -0.0, and one NaN from another of other bytes.
        progress : bool or callable, optional
            True for a progress bar, or a callback ``(done, total)`` in chunks.
        memory_limit : int or str, optional
            The most bytes of blocks held at a time, such as '512M'.

        Returns
        -------
        Comparison
            The number of compared chunks, the indices of those that differ, the number of elements
            that differ, and the index of the first of them.

        Raises
        ------
        ValueError
            `other` has another shape.
        TypeError
            `other` is of another kind, such as text against numbers, or has other fields; with
            `exact`, it has another dtype.
        MemoryLimitError
            The limit is below what one chunk needs.

        Examples
        --------
        >>> import dosna as dn
        >>> con = dn.Connection("compare", backend="ram")
        >>> con.connect()
        >>> ds = con.create_dataset("tomo", data=[[1, 2, 3, 4], [5, 6, 7, 8]], chunk_size=(2, 2))
        >>> found = ds.compare([[1, 2, 3, 4], [5, 6, 7, 0]])
        >>> found.equal
        False
        >>> found.different, found.elements
        (((0, 1),), 1)
        >>> print(found)
        1 of 2 chunks differ, in 1 elements: first at (1, 3)
        """
        self.connection.check_connected()
        if not is_source(other):
            other = np.asarray(other)
        if hasattr(other, "as_stored"):
            other = other.as_stored(self.dtype)
        if tuple(other.shape) != self.shape:
            raise ValueError(
                f"dataset {self.name!r} of shape {self.shape} cannot be compared with shape "
                f"{tuple(other.shape)}"
            )
        if exact and other.dtype != self.dtype:
            raise TypeError(
                f"dataset {self.name!r} of dtype {self.dtype} is compared exactly with dtype "
                f"{other.dtype}: leave out exact=True to compare values alone"
            )
        try:
            unequal(np.empty(0, self.dtype), np.empty(0, other.dtype))
        except TypeError as error:
            raise TypeError(
                f"dataset {self.name!r} of dtype {self.dtype} cannot be compared with dtype "
                f"{other.dtype}"
            ) from error
        self.note_reading()
        source, chunks, travels = _opened(other)
        itemsize = max(element_bytes(self.dtype), element_bytes(other.dtype))
        most = BLOCK_BYTES
        if memory_limit is not None:
            most = min(most, parse_size(memory_limit) // (4 * self.runner.workers))
        block = load_block(self.instance, chunks, most, 4 * self.runner.workers)
        if self.instance.remote or getattr(source, "remote", False):
            block = self._window(block, 4 * _nbytes(block, itemsize), memory_limit)
        parts = self.spread(
            "compare",
            Compare(self.instance, source, exact),
            4 * _nbytes(block, itemsize),
            progress,
            memory_limit,
            tasks=every_chunk(self.shape, block),
            travels=travels,
        )
        found = sorted(entry for part in parts for entry in part)
        return Comparison(
            self.total_chunks,
            tuple(idx for idx, _, _ in found),
            sum(count for _, count, _ in found),
            min((first for _, _, first in found), default=None),
        )

    def flush(self) -> None:
        """Wait until everything written so far would survive a power loss."""
        self.connection.check_connected()
        self.instance.flush()

    def refresh(self) -> None:
        """Read shape and attributes again, which somebody else may have changed."""
        self.connection.check_connected()
        self.instance.refresh()

    def _window(self, block: Shape, block_bytes: int, memory_limit: Limit, held: int = 0) -> Shape:
        """Return the extent of boxes of many blocks, for work on a remote dataset."""
        workers = self.runner.workers
        share = None if memory_limit is None else parse_size(memory_limit) // workers - held
        shares = 4 * workers if workers > 1 else 1
        return window(self.shape, block, block_bytes, share, shares)

    def spread(
        self,
        what: str,
        work: Callable[[Any], Any],
        task_bytes: int,
        progress: Progress,
        memory_limit: Limit,
        *,
        tasks: Tasks[ChunkTask] | None = None,
        over: BackendDataset | None = None,
        before: int = 0,
        travels: bool = True,
    ) -> list[Any]:
        """Share work on all chunks out over all workers; collective, as `load` and the like are.

        Parameters
        ----------
        what : str
            The name of the work where progress is shown.
        work : callable
            The work; see `dosna.engines.base.Runner.spread`.
        task_bytes : int
            The bytes that the work holds for one task; without `tasks` for one stored object.
        progress : bool or callable, optional
            True for a progress bar, or a callback ``(done, total)`` in chunks.
        memory_limit : int or str, optional
            The most bytes of blocks held at a time, such as '512M'.
        tasks : sized iterable, optional
            The boxes to work on; by default the stored objects, many together where requests take
            long.
        over : BackendDataset, optional
            The dataset whose stored objects are meant; by default this one.
        before : int
            The number of further tasks, which are done already.
        travels : bool
            True if `work` can be sent to another process.

        Returns
        -------
        list
            The results of `work`, part by part, in no particular order.

        Raises
        ------
        MemoryLimitError
            The limit is below what one task needs.
        """
        workers = workers_within(memory_limit, task_bytes, what)
        dataset = self.instance if over is None else over
        total = len(every_chunk(self.shape, dataset.grain))
        if tasks is None:
            block = dataset.grain
            if dataset.remote or self.instance.remote:
                held = max(task_bytes, dataset.metadata.chunk_nbytes)
                block = self._window(block, held, memory_limit)
            tasks = every_chunk(self.shape, block)
        boxes = max(1, before + len(tasks))
        with self.runner.reporting(progress, total, what) as tell:
            report = None if tell is None else lambda done: tell((before + done) * total // boxes)
            return self.runner.spread(work, tasks, workers=workers, travels=travels, report=report)


_MOST_TAKEN_BACK = 10_000
"""The most stored objects that are deleted by name, written or not."""


def _take_back(dataset: BackendDataset, before: Shape, after: Shape) -> None:
    """Undo an append, unless somebody else has appended since."""
    dataset.refresh()
    if dataset.metadata.shape == after:
        # The new objects are deleted first: a full disk may have no room for another description.
        new = [
            range(-(-a // g)) if a == b else range(-(-b // g), a // g)
            for b, a, g in zip(before, after, dataset.grain, strict=True)
        ]
        if prod(map(len, new)) <= _MOST_TAKEN_BACK:
            dataset.del_objects(product(*new))
        dataset.resize(before)


def _opened(data: Any) -> tuple[Any, Shape | None, bool]:
    """Return a reader of a source for any thread, its chunks, and True if it can travel."""
    if not isinstance(data, ArrayAccess):
        return data, _chunks_of(data), getattr(data, "travels", False)
    data.connection.check_connected()
    data.note_reading()
    instance = data.instance
    return instance, instance.grain, instance.connection.shared_between_processes


def stored_in_dataset(instance: BackendDataset, block: Shape, fillvalue: Array) -> Array | None:
    """Return the indices of the blocks in which a dataset has something stored.

    None is returned if not all other blocks are known to be a fill value, or if everything is
    stored. `dosna.sources.SourceArray.stored_in` does the same for sources.
    """
    meta = instance.metadata
    fill = np.asarray(meta.fillvalue, meta.dtype)
    # A link can answer only at the cost of reading.
    if not meta.shape or meta.link is not None or not same_fill(fill, fillvalue):
        return None
    found = ints("q")
    for idx in instance.object_indices():
        found.extend(idx)
    instance.refresh()  # raises for a dataset that is gone, which stores nothing either
    places = np.frombuffer(found, np.int64).reshape(-1, meta.ndim)
    grid = [-(-n // g) for n, g in zip(meta.shape, instance.grain, strict=True)]
    places = places[(places < grid).all(axis=1)]
    if len(places) == prod(grid):
        return None
    return touched(places, instance.grain, meta.shape, block)


def _chunks_of(source: Any) -> Shape | None:
    """Return the extent of a source's own chunks, if it has the usual attribute for that."""
    for name in ("shards", "chunks"):
        chunks = getattr(source, name, None)
        if (
            isinstance(chunks, tuple)
            and len(chunks) == len(source.shape)
            and all(isinstance(c, int) and c > 0 for c in chunks)
        ):
            return chunks
    return None


def _nbytes(extent: Shape, itemsize: int, halo: Shape | None = None) -> int:
    for n, h in zip(extent, halo or (0,) * len(extent), strict=True):
        itemsize *= n + 2 * h
    return itemsize


def _first_dtype(dataset: BackendDataset, probe: HaloMap) -> np.dtype[Any]:
    """Return the dtype of a function's result on the first chunk, its halo included."""
    meta = dataset.metadata
    if meta.size:
        first = meta.bounds((0,) * meta.ndim)
        block = probe.extended(first.array)
    else:
        block = np.empty(meta.shape, meta.dtype)
    dtype: np.dtype[Any] = result_of(probe.func, block, block.shape).dtype
    return dtype
