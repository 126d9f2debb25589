"""Files of events in HDF5, as dosna's delivery service makes them.

A group is a tree if its members have the attribute ``awkward_form``. They are its columns, with
the datasets that the branches of trees have (`dosna.columns.layout`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import awkward as ak

from dosna.columns.description import unescape
from dosna.columns.joining import compose
from dosna.columns.layout import columns, form_of
from dosna.errors import FormatError, SourceError
from dosna.io.bytefile import ByteFile, CachedReader
from dosna.registry import needing
from dosna.sources.servicex.eventfiles import EventFile, reading

__all__ = ["FORM", "Hdf5File"]

FORM = "awkward_form"
"""The attribute of a column that has the form of its elements, as JSON."""


class Hdf5File(EventFile):
    """An HDF5 file with a group for each tree.

    Parameters
    ----------
    file : ByteFile
    """

    others: Mapping[str, str] = {}

    def __init__(self, file: ByteFile) -> None:
        super().__init__(file)
        with needing(f"{file.location} needs", "servicex,hdf5"):
            import h5py
        self._forms: dict[str, dict[str, Any]] = {}
        self._members: dict[tuple[str, str], Any] = {}
        with reading(file):
            self._file = h5py.File(CachedReader(file), "r")
            self._file.visititems(self._visit)
        self.kinds = dict.fromkeys(self._forms, "HDF5")

    def _visit(self, name: str, member: Any) -> None:
        text = member.attrs.get(FORM)
        if text is not None:
            tree, _, column = name.rpartition("/")
            column = unescape(column)
            self._forms.setdefault(tree, {})[column] = form_of(json.loads(text))
            self._members[tree, column] = member

    def entries(self, tree: str) -> int:
        for name, form in self._forms[tree].items():
            for column in columns(form):
                if column.counted_by is None and column.factor:
                    rows: int = len(self._dataset(tree, name, column.path))
                    return (rows - column.is_offsets) // column.factor
        return 0

    def _dataset(self, tree: str, column: str, path: str) -> Any:
        member = self._members[tree, column]
        return member[path] if path else member

    def typenames(self, tree: str) -> Mapping[str, str]:
        return {}

    def columns(self, tree: str) -> list[str]:
        return list(self._forms[tree])

    def refused(self, tree: str) -> Mapping[str, str]:
        return {}

    def pieces(
        self, tree: str, nbytes: int, columns: Sequence[str] | None = None
    ) -> Iterator[ak.Array]:
        chosen = self._readable(tree, columns)
        total = self.entries(tree)
        with reading(self.file):
            step = self._step(tree, chosen, total, nbytes)
            for start in range(0, max(1, total), step):
                stop = min(total, start + step)
                arrays = [self._column(tree, name, start, stop) for name in chosen]
                yield ak.Array(ak.contents.RecordArray(arrays, chosen, length=stop - start))

    def _step(self, tree: str, chosen: Sequence[str], total: int, nbytes: int) -> int:
        """Return how many entries are about as large as is wanted."""
        size: int = sum(
            self._dataset(tree, name, column.path).nbytes
            for name in chosen
            for column in columns(self._forms[tree][name])
        )
        return max(1, total * nbytes // max(1, size))

    def _column(self, tree: str, name: str, start: int, stop: int) -> Any:
        def read(path: str, first: int, last: int) -> Any:
            dataset = self._dataset(tree, name, path)
            if len(dataset) < last:
                raise FormatError(f"{path!r} ends at {len(dataset)}, before {last}")
            return dataset[first:last]

        try:
            return compose(self._forms[tree][name], start, stop, read)
        except FormatError as error:
            where = f"{self.file.location}, column {name!r} of {tree!r}"
            raise SourceError(f"{where}, is damaged: {error}") from error
