"""Branches of a tree as columns: their entries in a range, or some of these."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from dosna.backends.base import BackendDataset
from dosna.core.types import Array
from dosna.query.expressions import Lists
from dosna.query.rows import Known, read_rows, take_rows

if TYPE_CHECKING:
    from dosna.array.connection import EngineConnection
    from dosna.columns.description import Branch, Tree

__all__ = ["BranchColumn", "chosen", "column_of"]


_TOGETHER = 1 << 15
"""Lists whose elements are gathered at a time, so that the numbers of these stay in the cache."""


@dataclass
class BranchColumn:
    """A branch, with its open datasets by path. It can be pickled.

    Parameters
    ----------
    name : str
        The name of the branch.
    plain : mapping or str
        The form of the elements, as in the description of the tree.
    datasets : dict of str to BackendDataset
        The datasets, by their paths in the branch.
    """

    name: str
    plain: Mapping[str, Any] | str
    datasets: dict[str, BackendDataset] = field(repr=False)

    @cached_property
    def form(self) -> Any:
        """The awkward form."""
        from dosna.columns.layout import form_of

        return form_of(self.plain)

    @cached_property
    def flat(self) -> BackendDataset | None:
        """The dataset of a branch with one number for each entry; None for all others."""
        one = self.datasets.get("")
        return one if one is not None and one.metadata.ndim == 1 else None

    @cached_property
    def numbers(self) -> tuple[BackendDataset, BackendDataset] | None:
        """Offsets and content of a branch with a list of numbers for each entry, else None."""
        return self._numbers(lambda form: form.is_list and not form.is_regular)

    @cached_property
    def optional(self) -> tuple[BackendDataset, BackendDataset] | None:
        """Offsets and content of a branch with a number that may be missing, else None.

        It is kept as lists of at most one number.
        """
        return self._numbers(lambda form: form.is_option)

    def _numbers(
        self, is_kind: Callable[[Any], bool]
    ) -> tuple[BackendDataset, BackendDataset] | None:
        if self.datasets.keys() != {"offsets", "content"}:
            return None
        form, content = self.form, self.datasets["content"]
        plain = is_kind(form) and not form.parameters
        plain = plain and form.content.is_numpy and not form.content.parameters
        return (
            (self.datasets["offsets"], content) if plain and content.metadata.ndim == 1 else None
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the elements of all datasets."""
        return sum(dataset.metadata.nbytes for dataset in self.datasets.values())

    def nbytes_of(self, entries: int) -> int:
        """Return the average number of bytes of so many entries."""
        for dataset in self.datasets.values():  # the first has a row for each entry
            return self.nbytes * entries // max(1, dataset.metadata.shape[0])
        return 0

    @property
    def chunks(self) -> int:
        """Number of chunks of all datasets."""
        return sum(dataset.metadata.total_chunks for dataset in self.datasets.values())

    def read(self, start: int, stop: int, kept: bool = False) -> Any:
        """Read the entries of a range, as a value that expressions are computed on.

        Parameters
        ----------
        start, stop : int
            The range of entries.
        kept : bool
            True if they are part of a result.
        """
        if self.flat is not None:
            return read_rows(self.flat, start, stop, kept)
        if self.numbers is not None:
            content = self.numbers[1]
            counted = self.counted(start, stop)
            first = int(counted[0])
            rows = read_rows(content, first, int(counted[-1]), kept)
            counted -= first  # of which nobody else knows: other memory would take longer
            return Lists(counted, rows)
        import awkward as ak

        from dosna.columns.joining import compose

        def read(path: str, start: int, stop: int) -> Array:
            return read_rows(self.datasets[path], start, stop)

        return ak.Array(compose(self.form, start, stop, read))

    def take(self, start: int, rows: Array, known: Known | None = None) -> Any:
        """Read some entries.

        Parameters
        ----------
        start : int
            The entry from which they are counted.
        rows : ndarray of int
            Their numbers, which increase.
        known : dict, optional
            The results of `take_rows` for the same entries of other branches.
        """
        if not len(rows):
            return self.read(start, start)
        if self.flat is not None:
            return take_rows(self.flat, rows, start, known)
        if self.numbers is not None:
            return self._take_lists(start, rows)
        first, stop = int(rows[0]), int(rows[-1]) + 1
        return self.read(start + first, start + stop)[rows - first]

    def _take_lists(self, start: int, rows: Array) -> Lists:
        assert self.numbers is not None
        content = self.numbers[1]
        first, stop = int(rows[0]), int(rows[-1]) + 1
        counted = self.counted(start + first, start + stop)
        index, wanted = chosen_lists(counted, rows - first)
        return Lists(index, take_rows(content, wanted))

    def counted(self, start: int, stop: int) -> Array:
        """Read the offsets of the lists of a range."""
        from dosna.columns.joining import check_offsets

        assert self.numbers is not None
        offsets = self.numbers[0]
        counted = read_rows(offsets, start, stop + 1)
        check_offsets(counted, offsets.name, start)
        return counted


def chosen_lists(offsets: Array, rows: Array) -> tuple[Array, Array]:
    """Return the offsets of some lists put together, and the numbers of their elements."""
    begins = offsets[rows]
    lengths = offsets[rows + 1] - begins
    index = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(lengths, out=index[1:])
    return index, np.arange(index[-1]) + np.repeat(begins - index[:-1], lengths)


def chosen(value: Any, rows: Array) -> Any:
    """Return the chosen entries of a value that was read."""
    if not isinstance(value, Lists):
        return value[rows]
    begins = value.offsets[rows]
    lengths = value.offsets[rows + 1] - begins
    index = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(lengths, out=index[1:])
    begins -= index[:-1]
    content = np.empty(index[-1], value.content.dtype)
    for start in range(0, len(rows), _TOGETHER):
        stop = min(start + _TOGETHER, len(rows))
        first, last = index[start], index[stop]
        places = np.repeat(begins[start:stop], lengths[start:stop])
        places += np.arange(first, last)
        value.content.take(places, out=content[first:last], mode="clip")
    return Lists(index, content)


def column_of(con: EngineConnection, group: str, tree: Tree, branch: Branch) -> BranchColumn:
    """Open the datasets of a branch.

    Raises
    ------
    DatasetNotFoundError, DatasetError, SourceChangedError
        The branch does not exist, is incomplete, or belongs to another state of the source.
    """
    from dosna.columns.layout import columns
    from dosna.columns.reading import BranchReader

    reader = BranchReader(con, group, tree, branch)
    paths = [""]
    if not isinstance(branch.form, str):
        from dosna.columns.layout import form_of

        paths = [column.path for column in columns(form_of(branch.form))]
    datasets = {path: reader.dataset(path).instance for path in paths}
    return BranchColumn(branch.name, branch.form, datasets)
