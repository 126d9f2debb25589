"""Trees that grow: entries are first appended to the branches' datasets, and then counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np

from dosna.array.zones import complete
from dosna.columns.datasets import StoredColumn, TreeDatasets
from dosna.columns.description import Branch, FileRange, Tree, get_tree
from dosna.columns.layout import columns, form_of, plain_form
from dosna.columns.splitting import decompose
from dosna.columns.widening import grows, widened
from dosna.errors import (
    DatasetExistsError,
    DatasetNotFoundError,
    FormatError,
    RefusedError,
    SourceChangedError,
)

if TYPE_CHECKING:
    from dosna.array.connection import EngineConnection

__all__ = ["TreeWriter", "branches_of"]


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
    _columns: dict[str, list[StoredColumn]] = field(default_factory=dict, repr=False)
    _datasets: TreeDatasets | None = field(default=None, repr=False)
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

    @property
    def _stored(self) -> list[StoredColumn]:
        return [column for found in self._columns.values() for column in found]

    @property
    def datasets(self) -> list[str]:
        """Names of the datasets."""
        return [column.ds.name for column in self._stored]

    @property
    def nbytes(self) -> int:
        """Bytes of the elements of the datasets."""
        return sum(column.ds.nbytes for column in self._stored)

    @property
    def complete(self) -> bool:
        """True if the tree was finished."""
        return bool(self._columns) and not any(column.ds.incomplete for column in self._stored)

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
        self._datasets = TreeDatasets(self.con, self.group, source, options)
        self._open(sample)

    def _open(self, sample: ak.Array | None) -> None:
        assert self._datasets is not None
        for branch in self.tree.branches:
            self._columns[branch.name] = self._datasets.open(self.tree, branch, sample)
        self.rewind()

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
                    column.last = known[layout.path] = column.value(column.rows - 1)

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
        assert self._datasets is not None
        self.tree = replace(self.tree, branches=self._with(wider))
        for name in wider:
            known = {column.layout: column for column in self._columns[name]}
            branch = self.tree.by_name[name]
            self._columns[name] = self._datasets.open(self.tree, branch, sample, known)
        self._describe()
        return True

    def restart(
        self,
        wider: Mapping[str, Any],
        sample: ak.Array,
    ) -> None:
        """Widen branches and discard all entries: the caller writes them again."""
        self.tree = replace(self.tree, branches=self._with(wider), entries=0, files=())
        self.files.clear()
        # Before anything is deleted, so that a run that continues after a kill also starts again.
        self._describe()
        self._open(sample)

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

    def _extend(self, column: StoredColumn, parts: list[np.ndarray[Any, Any]]) -> None:
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
            if column.zones is not None:
                if column.layout.is_offsets and start == 1:
                    column.zones.add(0, np.zeros(1, rows.dtype))
                column.zones.add(start, rows)
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
        for column in self._stored:
            if len(column.ds) != column.rows:
                column.ds.resize((column.rows, *column.layout.inner))
        for column in self._stored:
            if column.ds.incomplete:
                complete(column.ds, column.zones)

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
