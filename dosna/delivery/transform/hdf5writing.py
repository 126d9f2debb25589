"""Results as HDF5 files, with the same datasets as the branches of trees of columns.

A branch of numbers is a dataset. Any other branch is a group with the datasets of
`dosna.columns.layout`: ``offsets`` and ``content`` for lists.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from typing import Any

import awkward as ak
import h5py
import numpy as np

from dosna.backends.hdf5.chunkfile import stored_dtype
from dosna.columns.description import escape
from dosna.columns.layout import Column, columns, plain_form
from dosna.columns.splitting import decompose
from dosna.delivery.transform.writing import columns_of

__all__ = ["Hdf5Writer"]

FORM = "awkward_form"
"""The attribute of a branch that has the form of its elements, as JSON."""

_CHUNK = 64 << 10
"""The bytes of a chunk."""


class Hdf5Writer:
    """An HDF5 file with a group for each tree.

    Parameters
    ----------
    path : str
        The file.
    several : bool
        True for more than one tree.
    copied : mapping
        ROOT objects; always empty.
    """

    def __init__(self, path: str, several: bool, copied: Mapping[str, Any]) -> None:
        self._file = h5py.File(path, "w")
        self._tree: Any = None
        self._forms: dict[str, Any] = {}

    def begin(self, name: str, nothing: Any) -> None:
        self._tree = self._file.create_group(name.strip("/"))
        self._forms = {}
        for field, array in columns_of(nothing).items():
            form = self._forms[field] = ak.to_layout(ak.to_packed(array)).form
            for column in columns(form):
                shape = (int(column.is_offsets), *column.inner)
                self._tree.create_dataset(
                    _path(field, column.path),
                    data=np.zeros(shape, stored_dtype(column.dtype)),
                    maxshape=(None, *column.inner),
                    chunks=_chunk(column),
                )
            if escape(field) not in self._tree:  # a record without fields
                self._tree.create_group(escape(field))
            self._tree[escape(field)].attrs[FORM] = json.dumps(plain_form(form))

    def append(self, array: Any) -> None:
        for field, column in columns_of(array).items():
            form = self._forms[field]
            found = decompose(column, form)
            for described in columns(form):
                rows = found[described.path]
                dataset = self._tree[_path(field, described.path)]
                if described.is_offsets:
                    rows = rows[1:] + dataset[-1]
                start = len(dataset)
                dataset.resize(start + len(rows), axis=0)
                dataset[start:] = rows.view(stored_dtype(rows.dtype))

    def close(self) -> None:
        self._file.close()


def _chunk(column: Column) -> tuple[int, ...]:
    # h5py's own choice for the offsets of no lists is one element.
    row = column.dtype.itemsize * prod(column.inner)
    return (max(1, _CHUNK // max(1, row)), *(max(1, extent) for extent in column.inner))


def _path(field: str, inner: str) -> str:
    return f"{escape(field)}/{inner}" if inner else escape(field)
