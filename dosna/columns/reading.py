"""Awkward arrays and Arrow tables of entries of a tree."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import awkward as ak

from dosna.columns.arrow import for_arrow
from dosna.columns.description import Branch, Tree, get_tree
from dosna.columns.joining import compose
from dosna.columns.layout import form_of
from dosna.core.types import Array
from dosna.errors import DatasetError, DatasetNotFoundError, FormatError, SourceChangedError

if TYPE_CHECKING:
    from dosna.array.connection import EngineConnection
    from dosna.array.dataset import EngineDataset

__all__ = ["BranchReader", "read_columns", "to_arrow"]


def read_columns(
    con: EngineConnection,
    tree: str,
    branches: str | Iterable[str] | None = None,
    entry_start: int | None = None,
    entry_stop: int | None = None,
) -> ak.Array:
    """Read entries of a tree.

    Only the chunks that contain them are read, and those of several branches in parallel where
    the engine has threads.

    Parameters
    ----------
    con : Connection
    tree : str
        The name of the tree's group, such as ``Events``.
    branches : str or iterable of str, optional
        Names or patterns such as ``Muon_*``; all by default.
    entry_start, entry_stop : int, optional
        The range of entries, as in a slice: negative numbers count from the end.

    Returns
    -------
    awkward.Array
        An array of records, whose fields are the branches.

    Raises
    ------
    DatasetNotFoundError
        If there is no such tree or branch.
    DatasetError
        If a branch is incomplete.
    SourceChangedError
        If a branch is of another state of the source than the tree.
    """
    found = get_tree(con, tree)
    chosen = found.chosen(branches, f"tree {tree!r}")
    start, stop, _ = slice(entry_start, entry_stop).indices(found.entries)
    stop = max(start, stop)
    contents: dict[str, Any] = {}

    def read(some: Iterable[Branch]) -> None:
        for branch in some:
            column = BranchReader(con, tree, found, branch)
            contents[branch.name] = compose(form_of(branch.form), start, stop, column.read)

    con.runner.map(read, chosen)
    return ak.Array(
        ak.contents.RecordArray(
            [contents[branch.name] for branch in chosen],
            [branch.name for branch in chosen],
            length=stop - start,
        )
    )


def to_arrow(
    con: EngineConnection,
    tree: str,
    branches: str | Iterable[str] | None = None,
    entry_start: int | None = None,
    entry_stop: int | None = None,
) -> Any:
    """Read entries of a tree as a `pyarrow.Table`. The parameters are those of `read_columns`.

    The types of the table are Arrow's own, without awkward's extensions.
    """
    array = read_columns(con, tree, branches, entry_start, entry_stop)
    return ak.to_arrow_table(for_arrow(array), extensionarray=False)


class BranchReader:
    """A reader of rows of the datasets of a branch.

    Parameters
    ----------
    con : Connection
    group : str
        The name of the tree's group.
    tree : Tree
    branch : Branch
    """

    def __init__(self, con: EngineConnection, group: str, tree: Tree, branch: Branch) -> None:
        self._con, self._tree = con, tree
        self._name = f"{group}/{branch.path}" if group else branch.path

    def read(self, path: str, start: int, stop: int) -> Array:
        """Read rows of the dataset at a path in the branch."""
        ds = self.dataset(path)
        if len(ds) < stop:
            raise FormatError(
                f"dataset {ds.name!r} ends at row {len(ds)}, and its tree has rows up to {stop}: "
                "it is damaged, or was replaced"
            )
        rows: Array = ds[start:stop]
        return rows

    def dataset(self, path: str) -> EngineDataset:
        """Open the dataset at a path in the branch.

        Raises
        ------
        DatasetNotFoundError, DatasetError, SourceChangedError
            It is not there, is incomplete, or is of another state of the source than the tree.
        """
        name = f"{self._name}/{path}" if path else self._name
        try:
            ds = self._con[name]
        except DatasetNotFoundError:
            raise DatasetNotFoundError(
                f"tree {self._tree.name!r} has no dataset {name!r}: ingesting it was skipped or "
                "interrupted, or it was deleted"
            ) from None
        if ds.incomplete:
            raise DatasetError(
                f"dataset {name!r} is incomplete: run the interrupted ingest once more"
            )
        fingerprint = (ds.origin or {}).get("fingerprint")
        if self._tree.fingerprint and fingerprint not in (None, self._tree.fingerprint):
            raise SourceChangedError(
                f"dataset {name!r} is of another state of {self._tree.name!r}'s source than the "
                "tree: ingest the branch anew with overwrite=True"
            )
        return ds
