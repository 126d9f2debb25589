"""Results: trees written step by step into one file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol

import awkward as ak

from dosna.errors import RefusedError
from dosna.registry import needing

__all__ = ["Part", "Writer", "columns_of", "write"]

_UNNAMED = "branch"
"""The name of the column of an array that has no records, where a column must have a name."""


@dataclass(frozen=True)
class Part:
    """The source of one tree of the result.

    Parameters
    ----------
    name : str
        The name of the tree.
    arrays : callable
        A function that returns an iterator over arrays of records, in order, each of bounded size.
    nothing : callable
        A function that returns an array of the same records without entries.
    """

    name: str
    arrays: Callable[[], Iterator[Any]] = field(repr=False)
    nothing: Callable[[], Any] = field(repr=False)


class Writer(Protocol):
    """A file in one format, open for writing."""

    def begin(self, name: str, nothing: Any) -> None:
        """Begin a tree; `nothing` is an array of its records without entries."""

    def append(self, array: Any) -> None:
        """Append entries to the tree that was begun last."""

    def close(self) -> None:
        """Complete the file."""


_WRITERS = {
    "parquet": "tablewriting:ParquetWriter",
    "arrow": "tablewriting:ArrowWriter",
    "root-file": "rootwriting:TreeWriter",
    "root-rntuple": "rootwriting:RNTupleWriter",
    "hdf5": "hdf5writing:Hdf5Writer",
}


def write(
    path: str, format: str, parts: list[Part], copied: Mapping[str, Any] | None = None
) -> int:
    """Write trees to a file, and return the number of entries.

    Parameters
    ----------
    path : str
        The file, which is replaced.
    format : str
        A result format.
    parts : list of Part
        The trees.
    copied : mapping, optional
        ROOT objects to be written as well, by name.

    Raises
    ------
    RefusedError
        The format cannot store the result.
    MissingDependencyError
        The format needs a package that is not installed.
    """
    copied = copied or {}
    if copied and not format.startswith("root-"):
        raise RefusedError(
            f"{format} cannot hold objects of ROOT ({', '.join(copied)}): use the format root-file"
        )
    module, _, name = _WRITERS[format].partition(":")
    with needing(f"results in {format} need", "delivery,hdf5"):
        made = getattr(import_module(f"dosna.delivery.transform.{module}"), name)
    rows = 0
    with ExitStack() as stack:
        writer: Writer = made(path, len(parts) > 1, copied)
        stack.callback(writer.close)
        for part in parts:
            begun = False
            for array in part.arrays():
                if len(array) == 0:
                    continue
                if not begun:
                    writer.begin(part.name, array[:0])
                    begun = True
                writer.append(array)
                rows += len(array)
            if not begun:
                writer.begin(part.name, part.nothing())
    return rows


def columns_of(array: Any) -> dict[str, Any]:
    """Return the columns of an array by their names."""
    names = ak.fields(array)
    return {name: array[name] for name in names} if names else {_UNNAMED: array}
