"""Results as ROOT files with TTrees or RNTuples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import awkward as ak
import numpy as np
import uproot

from dosna.delivery.transform.writing import columns_of
from dosna.errors import RefusedError

__all__ = ["RNTupleWriter", "TreeWriter"]


class TreeWriter:
    """A ROOT file with a TTree for each tree.

    Parameters
    ----------
    path : str
        The file.
    several : bool
        True for more than one tree.
    copied : mapping
        ROOT objects to write first.
    """

    kind = "TTree"
    others = "root-rntuple or parquet"

    def __init__(self, path: str, several: bool, copied: Mapping[str, Any]) -> None:
        # uproot takes a path with colons for a URL.
        self._stream = open(path, "w+b")  # noqa: SIM115
        self._file = uproot.recreate(self._stream)
        self._tree: Any = None
        for name, found in copied.items():
            self._converting([name], lambda: self._file.update({name: found}))  # noqa: B023

    def make(self, file: Any, name: str, types: Mapping[str, Any]) -> Any:
        """Create a tree in a file."""
        return file.mktree(name, types)

    def begin(self, name: str, nothing: Any) -> None:
        types = {column: _type_of(array) for column, array in columns_of(nothing).items()}
        self._tree = self._converting(types, lambda: self.make(self._file, name, types))

    def append(self, array: Any) -> None:
        columns = {name: _plain(column) for name, column in columns_of(array).items()}
        self._converting(columns, lambda: self._tree.extend(columns))

    def _converting(self, names: Any, call: Callable[[], Any]) -> Any:
        """Call a function of uproot, and name in its errors what it refuses."""
        try:
            return call()
        except (MemoryError, OSError):
            raise
        except Exception as error:
            text = " ".join(str(error).split())[:300]
            raise RefusedError(
                f"{', '.join(names)} cannot be written to a {self.kind} ({type(error).__name__}: "
                f"{text}): use the format {self.others}, or select other columns"
            ) from error

    def close(self) -> None:
        self._file.close()
        self._stream.close()


class RNTupleWriter(TreeWriter):
    """A ROOT file with an RNTuple for each tree."""

    kind = "RNTuple"
    others = "parquet"

    def make(self, file: Any, name: str, types: Mapping[str, Any]) -> Any:
        return file.mkrntuple(name, types)

    def append(self, array: Any) -> None:
        columns = {
            name: ak.to_packed(ak.transform(_without_masks, column))
            for name, column in columns_of(array).items()
        }
        self._converting(columns, lambda: self._tree.extend(columns))


def _without_masks(layout: Any, **_: Any) -> Any:
    """Return elements without what is missing: uproot 5.7 would write that for what is there."""
    if layout.is_option and layout.content.is_record:
        raise RefusedError(
            "records that may be missing cannot be written to an RNTuple, where they would be "
            "lists: use the format parquet, or select their fields"
        )
    if layout.is_option and not layout.is_indexed:
        return ak.transform(_without_masks, layout.to_IndexedOptionArray64(), highlevel=False)
    return None


def _type_of(array: Any) -> Any:
    layout = ak.to_layout(array)
    return layout.dtype if layout.is_numpy and not layout.inner_shape else array.type.content


def _plain(array: Any) -> Any:
    return np.asarray(array) if ak.to_layout(array).is_numpy else ak.to_packed(array)
