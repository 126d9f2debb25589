"""The operations of a dataset on all of its chunks: load, map, apply, verify, compare, clear."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from numpy.typing import DTypeLike

from dosna.array import comparing, loading
from dosna.array.chunked import Chunked
from dosna.array.mapping import map_chunks
from dosna.backends.base import ChunkState
from dosna.core.compare import Comparison, Verification
from dosna.core.progress import Progress
from dosna.core.sizes import Limit
from dosna.core.text import element_bytes
from dosna.core.types import Shape
from dosna.engines.base import collective
from dosna.engines.work.boxes import bytes_of
from dosna.engines.work.checking import Verify
from dosna.engines.work.mapping import Apply, Func
from dosna.engines.work.reducing import Clear

__all__ = ["Bulk"]


class Bulk(Chunked):
    """The operations on all chunks, which are shared out over the workers of the engine."""

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
        >>> ds.load(np.arange(8).reshape(2, 4))
        >>> ds[1]
        array([4, 5, 6, 7])
        """
        loading.load(self, data, missing, progress, memory_limit, checked=True)

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
    ) -> Self:
        """Write the result of a function of each chunk to a new dataset.

        Parameters
        ----------
        func : callable
            A function that takes the part of a chunk that lies inside the array, and returns an
            array of the same shape. With a `halo`, it sees that many more elements on each side,
            and what it returns for them is dropped.
        output_name : str
            The name of the output, which is chunked and stored as this dataset is.
        dtype : dtype, optional
            The dtype of the output; by default that of the result for the first chunk. A later
            result that this dtype would cut down is then a TypeError.
        halo : int or sequence of int
            The number of elements to see beyond the chunk, on all axes or on each.
        boundary : {'reflect', 'mirror', 'nearest', 'wrap', 'constant'}
            The continuation of the array beyond its ends, as in `scipy.ndimage`.
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
        ValueError, TypeError
            A result has another shape than the block, or does not fit the dtype.
        MemoryLimitError
            The limit is below what one chunk needs.

        Examples
        --------
        >>> ds.map(np.negative, "negative")[0]
        array([-1, -2, -3, -4])
        """
        made: Self = map_chunks(
            self, func, output_name, dtype, halo, boundary, cval, progress, memory_limit
        )
        return made

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
        OutcomeUnknown
            A worker process was lost. No chunk was changed twice; the error's `chunks` names those
            that may have been changed or not, and its `untouched` those that were not.
        MemoryLimitError
            The limit is below what one chunk needs.

        Examples
        --------
        >>> ds.apply(np.negative)
        >>> ds[0]
        array([-1, -2, -3, -4])
        """
        self.check_writable()
        self.note_reading()
        block = 4 * bytes_of(self.instance.grain, element_bytes(self.dtype))
        self.spread("apply", Apply(self.instance, func), block, progress, memory_limit)

    @collective
    def clear(self, *, progress: Progress = None) -> None:
        """Delete all chunks, so that the array reads as its fill value.

        Parameters
        ----------
        progress : bool or callable, optional
            True for a progress bar, or a callback ``(done, total)`` in stored objects.

        Raises
        ------
        ReadOnlyError
            The connection's mode is 'r', or the dataset is a link.

        Examples
        --------
        >>> ds.clear()
        >>> int(ds[...].max())
        0
        """
        self.check_writable()
        written = self.runner.once(lambda: sorted(self.instance.object_indices()))
        with self.runner.reporting(progress, len(written), "clear") as report:
            self.runner.spread(Clear(self.instance), written, report=report)

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
        >>> ds.del_chunk((0, 1))
        True
        >>> found = ds.verify()
        >>> found.good, found.never_written
        (True, ((0, 1),))
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
            `other` is of another kind, such as text against numbers, has other fields, or is a
            masked array; with `exact`, it has another dtype.
        MemoryLimitError
            The limit is below what one chunk needs.

        Examples
        --------
        >>> found = ds.compare([[1, 2, 3, 4], [5, 6, 7, 0]])
        >>> found.equal, found.different
        (False, ((0, 1),))
        >>> print(found)
        1 of 2 chunks differ, in 1 elements: first at (1, 3)
        """
        return comparing.compare(self, other, exact, progress, memory_limit)
