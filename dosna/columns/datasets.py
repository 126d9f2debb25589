"""The datasets of a tree: how they are named, created, opened and deleted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import awkward as ak

from dosna.array.zones import maker_for
from dosna.columns.chunking import column_chunks
from dosna.columns.description import Branch, Tree, get_tree
from dosna.columns.layout import Column, columns, form_of
from dosna.columns.splitting import decompose
from dosna.core.metadata import new_metadata
from dosna.core.zones import ZoneMaker
from dosna.engines.work.boxes import read_box
from dosna.errors import DatasetExistsError, DatasetNotFoundError, FormatError

if TYPE_CHECKING:
    from dosna.array.connection import EngineConnection
    from dosna.array.dataset import EngineDataset

__all__ = ["StoredColumn", "TreeDatasets", "check_new", "remove"]


@dataclass
class StoredColumn:
    """A dataset of a branch, and the number of rows that are written.

    Parameters
    ----------
    layout : Column
    ds : EngineDataset
    rows : int
        The number of rows that are written.
    last : int
        The last offset, if the column holds offsets.
    zones : ZoneMaker or None
        The maker of zones of the rows that were written.
    """

    layout: Column
    ds: EngineDataset
    rows: int = 0
    last: int = 0
    zones: ZoneMaker | None = None

    def value(self, row: int) -> int:
        """Return the number in a row, without the warning of an incomplete dataset."""
        return int(read_box(self.ds.instance, (slice(row, row + 1),))[0])


@dataclass
class TreeDatasets:
    """The opening of the datasets of a tree, and the creation of those that do not exist.

    Parameters
    ----------
    con : Connection
    group : str
        The name of the tree's group.
    source : str
        The source for the datasets' `origin`.
    options : mapping
        Options of `create_dataset`.
    """

    con: EngineConnection
    group: str
    source: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def open(
        self,
        tree: Tree,
        branch: Branch,
        sample: ak.Array | None,
        known: Mapping[Column, StoredColumn] | None = None,
    ) -> list[StoredColumn]:
        """Open or create the datasets of a branch.

        Parameters
        ----------
        tree : Tree
        branch : Branch
        sample : awkward.Array or None
            Some entries. The lengths of their lists decide how many list elements make a chunk.
        known : mapping, optional
            The datasets that are open already. Others get no rows.
        """
        layouts = columns(form_of(branch.form))
        if known is None and not tree.entries:
            self._remove_others(tree, branch, layouts)
        ratios: dict[str, float] = {}
        if sample is not None and len(sample):
            parts = decompose(sample[branch.name], form_of(branch.form))
            ratios = {path: len(part) / len(sample) for path, part in parts.items()}
        found = []
        for layout in layouts:
            stored = None if known is None else known.get(layout)
            if stored is None:
                ds = self._dataset(tree, branch, layout, ratios.get(layout.path, 1.0))
                rows = 0 if known is None else layout.rows(0)
                stored = StoredColumn(layout, ds, rows, zones=maker_for(ds, layout.is_offsets))
            found.append(stored)
        return found

    def _remove_others(self, tree: Tree, branch: Branch, layouts: tuple[Column, ...]) -> None:
        """Delete the datasets that a branch had before it was restarted with a wider form."""
        own = {_name(self.group, branch, layout) for layout in layouts}
        above = f"{self.group}/{branch.path}"
        for name in [above, *self.con.names_in(above)]:
            if name in self.con and name not in own:
                origin = self.con[name].origin or {}
                if origin.get("fingerprint") == tree.fingerprint:
                    self.con.del_dataset(name)

    def _dataset(self, tree: Tree, branch: Branch, layout: Column, ratio: float) -> EngineDataset:
        name = _name(self.group, branch, layout)
        if name in self.con:
            return self._existing(tree, name, layout)
        chunks = column_chunks(
            tree.chunk_entries,
            layout.inner,
            layout.dtype.itemsize,
            1.0 if layout.is_offsets else ratio,
        )
        origin = {
            "source": self.source,
            "name": "/".join(filter(None, [branch.name, layout.path])),
            "fingerprint": tree.fingerprint,
        }
        shape = (int(layout.is_offsets), *layout.inner)
        return self.con.create_dataset(
            name,
            shape,
            layout.dtype,
            chunk_size=chunks,
            incomplete=True,
            origin=origin,
            **self.options,
        )

    def _existing(self, tree: Tree, name: str, layout: Column) -> EngineDataset:
        ds = self.con[name]
        if (ds.origin or {}).get("fingerprint") != tree.fingerprint:
            raise DatasetExistsError(
                f"dataset {name!r} exists, and is not from {tree.fingerprint}: give the tree "
                "another name=, or overwrite=True"
            )
        if (ds.shape[1:], ds.dtype) != (layout.inner, layout.dtype):
            raise FormatError(
                f"dataset {name!r} is of {ds.dtype} and {ds.shape}, where its tree says "
                f"{layout.dtype} and {('n', *layout.inner)}: it is damaged; ingest the tree anew "
                "with overwrite=True"
            )
        return ds


def _name(group: str, branch: Branch, layout: Column) -> str:
    return "/".join(filter(None, [group, branch.path, layout.path]))


def check_new(con: EngineConnection, group: str, tree: Tree, options: Mapping[str, Any]) -> None:
    """Raise an error if a tree cannot be created, as far as that is known without creating it.

    Datasets that already have its names are not considered.
    """
    for branch in tree.branches:
        for layout in columns(form_of(branch.form)):
            metadata = new_metadata((1, *layout.inner), layout.dtype)
            con.check_described(_name(group, branch, layout), metadata, options)


def remove(con: EngineConnection, group: str) -> None:
    """Delete the datasets of a tree, and the description in its group's attributes."""
    try:
        tree = get_tree(con, group)
    except DatasetNotFoundError:
        return
    for branch in tree.branches:
        name = f"{group}/{branch.path}"
        for dataset in [name, *con.names_in(name)]:
            if dataset in con:
                con.del_dataset(dataset)
    con.set_group_attrs(group, {})
