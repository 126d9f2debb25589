"""Trees that grow: entries are first appended to the branches' datasets, and then counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np

from dosna.columns.chunking import column_chunks
from dosna.columns.description import Branch, FileRange, Tree, get_tree
from dosna.columns.layout import Column, columns, form_of, plain_form
from dosna.columns.splitting import decompose
from dosna.columns.widening import grows, widened
from dosna.core.metadata import new_metadata
from dosna.engines.work.boxes import read_box
from dosna.errors import (
    DatasetExistsError,
    DatasetNotFoundError,
    FormatError,
    RefusedError,
    SourceChangedError,
)

if TYPE_CHECKING:
    from dosna.array.connection import EngineConnection
    from dosna.array.dataset import EngineDataset

__all__ = ["TreeWriter", "branches_of"]


@dataclass
class _Column:
    """A dataset of a branch, and the number of rows that are written."""

    layout: Column
    ds: EngineDataset
    rows: int = 0
    last: int = 0
    """The last offset, if the column holds offsets."""


@dataclass
class TreeWriter:
    """A writer of entries to a tree, one batch after the other.

    The tree's own attributes say how many entries it has, and from which files. They are written
    after the entries (`commit`). Entries beyond them, left by an interrupted writer, are
    overwritten by the next one. The datasets are incomplete until `finish`.

    Parameters
    ----------
    con : Connection
        The connection, under an engine of one process.
    group : str
        The name of the tree's group.
    tree : Tree
        The tree, with the entries that were committed.
    about : mapping
        Further attributes of the group. The caller may change them before a `commit`.
    resumed : bool
        Whether the tree existed before.
    files : set of str
        The files whose entries are counted.
    """

    con: EngineConnection
    group: str
    tree: Tree
    about: dict[str, Any]
    resumed: bool = False
    files: set[str] = field(default_factory=set)
    """The files whose entries are counted."""
    _columns: dict[str, list[_Column]] = field(default_factory=dict, repr=False)
    _written: int = 0

    def __post_init__(self) -> None:
        self.files.update(file.url for file in self.tree.files)

    @classmethod
    def find(cls, con: EngineConnection, group: str, fingerprint: str) -> TreeWriter | None:
        """Return a writer that continues a tree; None if there is no tree, or no dataset of it.

        Raises
        ------
        SourceChangedError
            If the tree is of another source, or of another state of the source.
        FormatError
            If the description of the tree is broken.
        """
        try:
            tree = get_tree(con, group)
        except DatasetNotFoundError:
            return None
        if not con.names_in(group):
            return None
        if tree.fingerprint != fingerprint:
            raise SourceChangedError(
                f"tree {group!r} of connection {con.name!r} is from {tree.fingerprint}, and not "
                f"from {fingerprint}: give another name=, or overwrite=True"
            )
        own = tree.to_attrs().keys()
        about = {k: v for k, v in con.get_group_attrs(group).items() if k not in own}
        return cls(con, group, tree, about, resumed=True)

    @classmethod
    def begin(
        cls, con: EngineConnection, group: str, tree: Tree, about: Mapping[str, Any]
    ) -> TreeWriter:
        """Create a tree that has no entries, and return its writer.

        Raises
        ------
        DatasetExistsError
            If there are datasets in the group.
        """
        there = con.names_in(group)
        if group in con or there:
            raise DatasetExistsError(
                f"{there[0] if there else group!r} exists in connection {con.name!r}: give the "
                "tree another name=, or overwrite=True"
            )
        made = cls(con, group, tree, dict(about))
        made._describe()
        return made

    @classmethod
    def check_new(
        cls, con: EngineConnection, group: str, tree: Tree, options: Mapping[str, Any]
    ) -> None:
        """Raise an error if a tree cannot be created, as far as that is known without creating it.

        Datasets that already have its names are not considered.
        """
        made = cls(con, group, tree, {})
        for branch in tree.branches:
            for layout in columns(form_of(branch.form)):
                metadata = new_metadata((1, *layout.inner), layout.dtype)
                con.check_described(made._name(branch, layout), metadata, options)

    @staticmethod
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

    @property
    def datasets(self) -> list[str]:
        """Names of the datasets."""
        return [column.ds.name for found in self._columns.values() for column in found]

    @property
    def nbytes(self) -> int:
        """Bytes of the elements of the datasets."""
        return sum(column.ds.nbytes for found in self._columns.values() for column in found)

    @property
    def complete(self) -> bool:
        """True if the tree was finished."""
        return bool(self._columns) and not any(
            column.ds.incomplete for found in self._columns.values() for column in found
        )

    def open(
        self,
        source: str,
        options: Mapping[str, Any],
        sample: ak.Array | None = None,
    ) -> None:
        """Open the datasets, and create those that do not exist.

        Parameters
        ----------
        source : str
            The source for the datasets' `origin`.
        options : mapping
            Options of `create_dataset`.
        sample : awkward.Array, optional
            Some entries. The lengths of their lists decide how many list elements make a chunk.
        """
        for branch in self.tree.branches:
            layouts = columns(form_of(branch.form))
            if not self.tree.entries:
                self._remove_others(branch, layouts)
            ratios = self._ratios(branch, sample)
            self._columns[branch.name] = [
                _Column(layout, self._dataset(branch, layout, source, options, ratios))
                for layout in layouts
            ]
        self.rewind()

    def _remove_others(self, branch: Branch, layouts: Iterable[Column]) -> None:
        """Delete the datasets that a branch had before it was restarted with a wider form."""
        own = {self._name(branch, layout) for layout in layouts}
        above = f"{self.group}/{branch.path}"
        for name in [above, *self.con.names_in(above)]:
            if name in self.con and name not in own:
                origin = self.con[name].origin or {}
                if origin.get("fingerprint") == self.tree.fingerprint:
                    self.con.del_dataset(name)

    def _name(self, branch: Branch, layout: Column) -> str:
        return "/".join(filter(None, [self.group, branch.path, layout.path]))

    @staticmethod
    def _ratios(branch: Branch, sample: ak.Array | None) -> Mapping[str, float]:
        """Return the mean number of rows for each entry, by the path of the column."""
        if sample is None or not len(sample):
            return {}
        parts = decompose(sample[branch.name], form_of(branch.form))
        return {path: len(part) / len(sample) for path, part in parts.items()}

    def _dataset(
        self,
        branch: Branch,
        layout: Column,
        source: str,
        options: Mapping[str, Any],
        ratios: Mapping[str, float],
    ) -> EngineDataset:
        name = self._name(branch, layout)
        if name in self.con:
            return self._there(name, layout)
        ratio = 1.0 if layout.is_offsets else ratios.get(layout.path, 1.0)
        return self.con.create_dataset(
            name,
            (int(layout.is_offsets), *layout.inner),
            layout.dtype,
            chunk_size=column_chunks(
                self.tree.chunk_entries, layout.inner, layout.dtype.itemsize, ratio
            ),
            incomplete=True,
            origin={
                "source": source,
                "name": "/".join(filter(None, [branch.name, layout.path])),
                "fingerprint": self.tree.fingerprint,
            },
            **options,
        )

    def _there(self, name: str, layout: Column) -> EngineDataset:
        ds = self.con[name]
        fingerprint = (ds.origin or {}).get("fingerprint")
        if fingerprint != self.tree.fingerprint:
            raise DatasetExistsError(
                f"dataset {name!r} exists, and is not from {self.tree.fingerprint}: give the tree "
                "another name=, or overwrite=True"
            )
        if (ds.shape[1:], ds.dtype) != (layout.inner, layout.dtype):
            raise FormatError(
                f"dataset {name!r} is of {ds.dtype} and {ds.shape}, where its tree says "
                f"{layout.dtype} and {('n', *layout.inner)}: it is damaged; ingest the tree anew "
                "with overwrite=True"
            )
        return ds

    def rewind(self) -> None:
        """Discard entries that were written and not committed: they will be overwritten."""
        self._written = self.tree.entries
        for found in self._columns.values():
            known: dict[str | None, int] = {None: self.tree.entries}
            # A column comes before the offsets that count it.
            for column in reversed(found):
                layout, ds = column.layout, column.ds
                column.rows = layout.rows(known[layout.counted_by])
                if len(ds) < column.rows:
                    raise FormatError(
                        f"dataset {ds.name!r} has {len(ds)} rows where its tree has "
                        f"{column.rows}: ingest the tree anew with overwrite=True"
                    )
                if layout.is_offsets:
                    column.last = known[layout.path] = _row(ds, column.rows - 1)

    def check(self, array: ak.Array, refused: Mapping[str, str]) -> dict[str, Any]:
        """Check that entries fit the tree.

        Parameters
        ----------
        array : awkward.Array
            The entries.
        refused : mapping of str to str
            The columns that cannot be read there, and the reasons.

        Returns
        -------
        dict of str to awkward.forms.Form
            The forms of branches that must become wider, because they had no element or no None
            until now.

        Raises
        ------
        FormatError
            If the entries do not fit. The message names the column.
        """
        fields = set(array.fields)
        for name in self._columns:
            if name not in fields:
                why = f" that can be read: {refused[name]}" if name in refused else ""
                raise FormatError(f"has no column {name!r}{why}")
        wider: dict[str, Any] = {}
        for branch in self.tree.branches:
            form, layout = form_of(branch.form), ak.to_layout(array[branch.name])
            try:
                wide = widened(form, layout.form)
                if columns(wide) != columns(form) and not _fits(layout, form):
                    wider[branch.name] = wide
            except (FormatError, RefusedError):
                raise FormatError(
                    f"has {layout.form.type} in column {branch.name!r}, where others have "
                    f"{form.type}"
                ) from None
        return wider

    def adopt(
        self,
        wider: Mapping[str, Any],
        source: str,
        options: Mapping[str, Any],
        sample: ak.Array,
    ) -> bool:
        """Widen branches whose datasets can stay: those that had no elements until now.

        Returns
        -------
        bool
            False if there are other branches among them. Nothing was changed then.
        """
        if not all(grows(form_of(self.tree.by_name[n].form), form) for n, form in wider.items()):
            return False
        layouts = {name: columns(form) for name, form in wider.items()}
        self.tree = replace(self.tree, branches=self._with(wider))
        for name, after in layouts.items():
            branch, known = self.tree.by_name[name], {c.layout: c for c in self._columns[name]}
            ratios = self._ratios(branch, sample)
            self._columns[name] = [
                known.get(layout)
                or _Column(
                    layout,
                    self._dataset(branch, layout, source, options, ratios),
                    layout.rows(0),
                )
                for layout in after
            ]
        self._describe()
        return True

    def restart(
        self,
        wider: Mapping[str, Any],
        source: str,
        options: Mapping[str, Any],
        sample: ak.Array,
    ) -> None:
        """Widen branches and discard all entries: the caller writes them again."""
        self.tree = replace(self.tree, branches=self._with(wider), entries=0, files=())
        self.files.clear()
        # Before anything is deleted, so that a run that continues after a kill also starts again.
        self._describe()
        self.open(source, options, sample)

    def _with(self, wider: Mapping[str, Any]) -> tuple[Branch, ...]:
        found = []
        for branch in self.tree.branches:
            form = wider.get(branch.name)
            if form is not None:
                own = branch.typename == str(form_of(branch.form).type)
                typename = str(form.type) if own else branch.typename
                branch = replace(branch, form=plain_form(form), typename=typename)
            found.append(branch)
        return tuple(found)

    def write(self, arrays: Sequence[ak.Array]) -> None:
        """Append entries. They must fit, see `check`."""
        if not sum(map(len, arrays)):
            return
        forms = {branch.name: form_of(branch.form) for branch in self.tree.branches}

        def work(names: Iterable[str]) -> None:
            for name in names:
                parts = [decompose(array[name], forms[name]) for array in arrays]
                for column in self._columns[name]:
                    self._extend(column, [part[column.layout.path] for part in parts])

        self.con.runner.map(work, list(self._columns))
        self._written += sum(map(len, arrays))

    def _extend(self, column: _Column, parts: list[np.ndarray[Any, Any]]) -> None:
        ds, start = column.ds, column.rows
        if column.layout.is_offsets:
            # Count from the beginning of the tree. The first offset is stored already.
            for number, part in enumerate(parts):
                parts[number] = part[1:] + column.last
                column.last += int(part[-1])
        rows = np.concatenate(parts)
        stop = start + len(rows)
        if stop > len(ds):
            # Rarely, because it takes a request or more. `finish` cuts the surplus.
            longer = max(stop, 2 * len(ds), ds.chunk_size[0])
            ds.resize((longer, *column.layout.inner))
        if len(rows):
            ds[start:stop] = rows
        column.rows = stop

    def commit(self, files: Iterable[FileRange]) -> None:
        """Count the entries that were written. `files`: the files that they are from."""
        files = list(files)
        self.tree = replace(self.tree, entries=self._written, files=(*self.tree.files, *files))
        self._describe()
        self.files.update(file.url for file in files)

    @property
    def entries(self) -> int:
        """Number of entries that are written, committed or not."""
        return self._written

    def finish(self) -> None:
        """Cut the datasets behind the last entry, and mark them complete."""
        for found in self._columns.values():
            for column in found:
                if len(column.ds) != column.rows:
                    column.ds.resize((column.rows, *column.layout.inner))
        for found in self._columns.values():
            for column in found:
                if column.ds.incomplete:
                    column.ds.mark_complete()

    def _describe(self) -> None:
        self.con.set_group_attrs(self.group, {**self.about, **self.tree.to_attrs()})


def branches_of(array: ak.Array, typenames: Mapping[str, str]) -> tuple[Branch, ...]:
    """Return the branches that the fields of an array become.

    Parameters
    ----------
    array : awkward.Array
        An array of records.
    typenames : mapping of str to str
        The names of the types in the source, where they are known.
    """
    return tuple(
        Branch(
            name,
            plain_form(ak.to_layout(array[name]).form),
            typenames.get(name, str(ak.type(array[name]).content)),
            index=index,
        )
        for index, name in enumerate(array.fields)
    )


def _fits(layout: Any, form: Any) -> bool:
    """Return True if entries fit a form, although their own form is wider."""
    try:
        decompose(layout, form)
    except (FormatError, ValueError):
        return False
    return True


def _row(ds: EngineDataset, row: int) -> int:
    # Read the backend's dataset: reading an incomplete EngineDataset would warn.
    return int(read_box(ds.instance, (slice(row, row + 1),))[0])
