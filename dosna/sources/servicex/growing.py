"""Trees that ingest one file of events after the other, and know which files they have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any

import awkward as ak

from dosna.columns import FileRange, Tree
from dosna.columns.chunking import choose_chunk_entries
from dosna.columns.datasets import check_new, remove
from dosna.columns.layout import columns
from dosna.columns.writing import TreeWriter, branches_of
from dosna.core.patterns import matching
from dosna.errors import (
    FormatError,
    RefusedError,
    SourceChangedError,
    SourceError,
    SourceNotFoundError,
)

if TYPE_CHECKING:
    from dosna.array.connection import EngineConnection

__all__ = ["FoundTree", "GrowingTrees", "WiderError"]

_LEAST_ENTRIES = 1 << 12
_ABOUT = "ingest"
_LEFT_OUT, _SKIPPED, _TREES = "left_out", "skipped", "trees"


class WiderError(SourceError):
    """An error for entries of a wider type: the tree's entries fit theirs, but not vice versa.

    Parameters
    ----------
    text : str
        The message.
    group : str
        The group of the tree.
    wider : mapping of str to awkward.forms.Form
        The wider forms, by branch.
    array : awkward.Array
        The entries.
    """

    def __init__(self, text: str, group: str, wider: Mapping[str, Any], array: ak.Array) -> None:
        super().__init__(text)
        self.group, self.wider, self.array = group, wider, array


@dataclass
class FoundTree:
    """A tree of a file, with its first entries.

    Parameters
    ----------
    group : str
        The group in which the tree is stored.
    name, kind : str
        The name and the kind of the tree in the file.
    first : awkward.Array
        The first entries of the file, of the selected columns at least.
    typenames : mapping of str to str
        The names of the columns' types in the file.
    names : sequence of str
        The names of all columns of the file.
    refused : mapping of str to str
        The columns that cannot be read, and the reasons.
    """

    group: str
    name: str
    kind: str
    first: ak.Array
    typenames: Mapping[str, str]
    names: Sequence[str]
    refused: Mapping[str, str] = field(default_factory=dict)


@dataclass
class GrowingTrees:
    """The trees that the files of one source make.

    The trees of a file are prepared first. Then the file is added between `begin` and `end`. The
    entries of ended files are counted at the next `flush`. `abandon` discards the entries of a
    file that cannot be read. A tree begins with the first file that has entries for it; files
    before it contribute none.

    Parameters
    ----------
    con : Connection
        The connection, under an engine of one process.
    source, fingerprint : str
        The source and its fingerprint for the `origin` of datasets.
    about : mapping
        Further facts about the source, for the attributes of each tree's group.
    expected_files : int
        The expected number of files, for the choice of chunks.
    batch_bytes : int
        The bytes that are held before they are written.
    select : iterable of str or None
        Patterns of columns, with or without the name of the tree before them.
    skips : bool
        Whether columns without a layout are left out.
    overwrite : bool
        Whether to replace trees that exist.
    chunk_bytes : int, optional
        The approximate size of chunks of 8-byte numbers.
    options : mapping
        Options of `create_dataset`.
    """

    con: EngineConnection
    source: str
    fingerprint: str
    about: Mapping[str, Any]
    _: KW_ONLY
    expected_files: int
    batch_bytes: int
    select: Iterable[str] | None = None
    skips: bool = False
    overwrite: bool = False
    chunk_bytes: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    writers: dict[str, TreeWriter] = field(default_factory=dict)
    """The writers, by the tree's group."""
    skipped: dict[str, str] = field(default_factory=dict)
    """The columns and files that were left out, and the reasons."""
    present: bool = False
    """True if an earlier ingest has finished all trees."""
    _held: dict[str, list[ak.Array]] = field(default_factory=dict)
    _entries: dict[str, int] = field(default_factory=dict)
    _ended: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)
    """The range of entries of each tree, by file."""
    _file: str = ""
    _whole: bool = True
    _began: dict[str, int] = field(default_factory=dict)
    _marks: dict[str, tuple[int, int]] = field(default_factory=dict)
    _empty: dict[str, FoundTree] = field(default_factory=dict)

    @property
    def has_columns(self) -> bool:
        """True if any file had a tree, with or without entries."""
        return bool(self.writers or self._empty)

    def find(self, group: str) -> bool:
        """Continue a tree of an earlier ingest, with its other trees. Return False if none."""
        if group in self.writers:
            return True
        try:
            found = TreeWriter.find(self.con, group, self.fingerprint)
            if found is None:
                return False
            found.open(self.source, self.options)
        except (SourceChangedError, FormatError):
            if not self.overwrite:
                raise
            return False  # removed when the new one begins
        self.writers[group] = found
        self._entries[group] = found.entries
        kept = found.about.get(_ABOUT, {})
        self._note(kept.get(_LEFT_OUT, {}))
        for beside in kept.get(_TREES, []):
            self.find(beside)
        self.present = all(writer.complete for writer in self.writers.values())
        return True

    def has(self, file: str) -> bool:
        """Return True if all entries of a file are counted. Any thread may call this."""
        writers = list(self.writers.values())
        return bool(writers) and all(file in writer.files for writer in writers)

    def wanted(self, group: str, names: Sequence[str]) -> list[str]:
        """Return the selected columns of a tree. Any thread may call this."""
        return self._matching(group, names)[0]

    def prepare(self, tree: FoundTree) -> None:
        """Begin a tree with its possible first entries, or continue it.

        Raises
        ------
        RefusedError
            If there is no layout for a column.
        SourceNotFoundError
            If the tree has none of the selected columns.
        SourceChangedError, DatasetExistsError
            If there are data of another source.
        """
        if self.find(tree.group):
            return
        if len(tree.first):
            self._begin_tree(tree)
        else:
            self._empty.setdefault(tree.group, tree)

    def begin(self, file: str, whole: bool) -> None:
        """Begin a file. `whole`: whether it is added in one piece for each tree."""
        if not whole or self._nbytes() > self.batch_bytes // 2:
            self.flush()
        self._file = file
        self._marks = {g: (len(a), self._entries[g]) for g, a in self._held.items()}
        self._whole = whole
        self._began = dict(self._entries)

    def add(self, tree: FoundTree, array: ak.Array) -> None:
        """Add entries of a tree of the file.

        Raises
        ------
        SourceError
            If the columns are not those of the tree, or have other types.
        WiderError
            If the columns would fit after a `restart`.
        """
        group = tree.group
        if not len(array):
            return
        writer = self.writers[group]
        if self._file in writer.files:
            return  # The file is added again because another tree of it was not counted.
        try:
            self._check_known(tree)
            wider = writer.check(array, tree.refused)
        except FormatError as error:
            raise SourceError(f"{self._file} {error}, in tree {group!r}") from None
        if wider and not writer.adopt(wider, array):
            name, form = next(iter(wider.items()))
            raise WiderError(
                f"{self._file} has {form.type} in column {name!r}, where others have "
                f"{writer.tree.by_name[name].type}, in tree {group!r}",
                group,
                wider,
                array,
            )
        self._held.setdefault(group, []).append(array)
        self._entries[group] += len(array)
        if not self._whole and self._nbytes() > self.batch_bytes:
            self._write()

    def restart(self, error: WiderError) -> None:
        """Widen branches of a tree and discard its entries: the caller adds all files again.

        The file that was begun must have been abandoned.
        """
        self.flush()
        self.writers[error.group].restart(error.wider, error.array)
        self._entries[error.group] = 0

    def _check_known(self, tree: FoundTree) -> None:
        writer = self.writers[tree.group]
        known = {*writer.tree.by_name, *writer.about[_ABOUT][_LEFT_OUT]}
        for name in tree.names:
            if name not in known:
                raise FormatError(f"has a column {name!r} that other files do not have")

    def _begin_tree(self, found: FoundTree) -> None:
        chosen, left_out = self._chosen(found)
        group, sample = found.group, found.first[chosen]
        # The first file may be smaller than the others.
        expected = max(_LEAST_ENTRIES, len(sample) * self.expected_files)
        entries = choose_chunk_entries(expected)
        if self.chunk_bytes is not None:
            entries = self.chunk_bytes // 8
        tree = Tree(
            found.kind,
            found.name,
            0,
            branches_of(sample, found.typenames),
            files=tuple(FileRange(f, 0, 0) for f in self._all_files()),
            chunk_entries=max(1, entries),
            fingerprint=self.fingerprint,
        )
        about = {_ABOUT: {**self.about, _LEFT_OUT: left_out, _TREES: [*self.writers, group]}}
        if self.overwrite:
            check_new(self.con, group, tree, self.options)
            remove(self.con, group)
        writer = TreeWriter.begin(self.con, group, tree, about)
        writer.open(self.source, self.options, sample)
        self.writers[group] = writer
        self._entries[group] = 0
        self._note(left_out)

    def _note(self, left_out: Mapping[str, str]) -> None:
        self.skipped.update({name: why for name, why in left_out.items() if why})

    def _matching(self, group: str, names: Sequence[str]) -> tuple[list[str], list[str]]:
        chosen, unmatched = matching(names, self.select)
        if unmatched:
            within, unmatched = matching([f"{group}/{n}" for n in names], self.select)
            wanted = {*chosen, *(n[len(group) + 1 :] for n in within)}
            chosen = [n for n in names if n in wanted]
        return chosen, unmatched

    def _chosen(self, tree: FoundTree) -> tuple[list[str], dict[str, str]]:
        """Return the chosen columns, and those left out with the reasons, which may be empty."""
        group, names = tree.group, tree.names
        chosen, unmatched = self._matching(group, names)
        if not chosen:
            raise SourceNotFoundError(
                f"{self.source} has no column of tree {group!r} like "
                f"{', '.join(map(repr, unmatched))}: it has {', '.join(names[:10])}"
            )
        left_out = {name: "" for name in names if name not in chosen}
        for name in list(chosen):
            try:
                if name in tree.refused:
                    raise RefusedError(tree.refused[name])
                columns(ak.to_layout(tree.first[name]).form)
            except RefusedError as error:
                if not self.skips:
                    raise RefusedError(
                        f"{self.source} has a column {name!r} that datasets cannot represent: "
                        f"{error}. Leave it out by on_error='skip', or select= the others"
                    ) from None
                chosen.remove(name)
                left_out[name] = str(error)
        return chosen, left_out

    def _all_files(self) -> list[str]:
        return list(
            dict.fromkeys(
                [f.url for writer in self.writers.values() for f in writer.tree.files]
                + list(self._ended)
            )
        )

    def end(self) -> None:
        """End the file that was begun."""
        self._ended[self._file] = {
            group: (self._began.get(group, 0), entries) for group, entries in self._entries.items()
        }
        self._file = ""

    def abandon(self) -> None:
        """Discard the entries of the file that was begun."""
        if self._whole:
            for group, held in self._held.items():
                count, _ = self._marks.get(group, (0, 0))
                del held[count:]
        else:
            self._held.clear()
            for writer in self.writers.values():
                writer.rewind()
        self._entries.update(self._began)
        self._file = ""

    def _nbytes(self) -> int:
        return sum(array.nbytes for held in self._held.values() for array in held)

    def _write(self) -> None:
        for group, held in self._held.items():
            self.writers[group].write(held)
        self._held.clear()

    def flush(self) -> None:
        """Write the entries that are held, and count the files that have ended."""
        self._write()
        for group, writer in self.writers.items():
            ranges = [
                FileRange(file, *trees.get(group, (0, 0)))
                for file, trees in self._ended.items()
                if file not in writer.files
            ]
            if ranges:
                # An ingest that continues one of the trees must find the others.
                writer.about[_ABOUT][_TREES] = list(self.writers)
                writer.commit(ranges)
        if self.writers:
            self._ended.clear()

    def finish(self, skipped: Mapping[str, str]) -> None:
        """Finish all trees. `skipped`: the files that were left out, and the reasons."""
        self.flush()
        for group, tree in self._empty.items():
            if not self.find(group):
                self._begin_tree(tree)
        self.flush()
        for writer in self.writers.values():
            writer.about[_ABOUT][_SKIPPED] = dict(skipped)
            writer.about[_ABOUT][_TREES] = list(self.writers)
            writer.commit([])
        for writer in self.writers.values():
            writer.finish()
