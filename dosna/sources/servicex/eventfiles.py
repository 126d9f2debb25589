"""Files of events, read from their beginning to their end: Parquet, Arrow, TTrees, RNTuples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import awkward as ak
import uproot

from dosna.columns.layout import columns
from dosna.errors import DosnaError, RefusedError, SourceError
from dosna.io.bytefile import ByteFile, CachedReader
from dosna.sources.root.part import TreePart
from dosna.sources.root.tree import part_of

__all__ = ["EventFile", "open_events"]

_BATCH = 1 << 13
"""Number of entries of Parquet that are read at a time, to learn their size."""
_UNPACKED = 4
"""Assumed ratio of the sizes of an RNTuple without and with compression."""
_SPLIT = 4
"""A range of more than so many times the wanted size is split. Baskets may be read twice then."""


class EventFile(ABC):
    """A file with trees of events.

    Parameters
    ----------
    file : ByteFile
    """

    kinds: Mapping[str, str]
    """The kind of each tree, such as ``TTree``, by its name."""
    others: Mapping[str, str]
    """The other objects in the file, and their classes."""

    def __init__(self, file: ByteFile) -> None:
        self.file = file

    @abstractmethod
    def entries(self, tree: str) -> int:
        """Return the number of entries of a tree."""

    @abstractmethod
    def typenames(self, tree: str) -> Mapping[str, str]:
        """Return the names of the columns' types in the file, where they are known."""

    @abstractmethod
    def columns(self, tree: str) -> list[str]:
        """Return the names of the columns of a tree, in its order."""

    @abstractmethod
    def refused(self, tree: str) -> Mapping[str, str]:
        """Return the columns that cannot be read, and the reasons."""

    @abstractmethod
    def pieces(
        self, tree: str, nbytes: int, columns: Sequence[str] | None = None
    ) -> Iterator[ak.Array]:
        """Read a tree in pieces of about a given size.

        Parameters
        ----------
        tree : str
            The name of the tree.
        nbytes : int
            The approximate number of bytes of a piece.
        columns : sequence of str, optional
            The columns to read; all readable ones by default.

        Yields
        ------
        awkward.Array
            An array of records. There is at least one, which may have no entries.
        """

    def _readable(self, tree: str, columns: Sequence[str] | None) -> list[str]:
        refused = self.refused(tree)
        return [
            n for n in (self.columns(tree) if columns is None else columns) if n not in refused
        ]


class TableFile(EventFile):
    """A file with one tree without a name, as batches of Arrow.

    Parameters
    ----------
    file : ByteFile
    schema : pyarrow.Schema
        The schema of the batches.
    """

    kind: str
    others: Mapping[str, str] = {}

    def __init__(self, file: ByteFile, schema: Any) -> None:
        super().__init__(file)
        self._schema = schema
        names = schema.names
        if names == [""]:
            # awkward writes arrays that are not records in this way.
            found = self._schema.field(0).type
            raise RefusedError(f"{file.location} has no columns, but entries that are {found}")
        self._names, self._refused = list(dict.fromkeys(names)), dict[str, str]()
        for number, name in enumerate(names):
            if name in names[:number]:
                again = f"{name} ({names[: number + 1].count(name)})"
                self._names.append(again)
                self._refused[again] = "an earlier column has the same name"
            elif why := _refusal(self._schema.field(number), self._schema.metadata):
                self._refused[name] = why
        # A transformer that finds none of the trees writes a file without columns.
        self.kinds = {"": self.kind} if names else {}

    @abstractmethod
    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """Yield batches with columns, in the order of entries."""

    def typenames(self, tree: str) -> Mapping[str, str]:
        # NumPy and awkward have no time zones, so the type's name is kept.
        types = {field.name: str(field.type) for field in self._schema}
        return {name: found for name, found in types.items() if "tz=" in found}

    def columns(self, tree: str) -> list[str]:
        return list(self._names)

    def refused(self, tree: str) -> Mapping[str, str]:
        return self._refused

    def pieces(
        self, tree: str, nbytes: int, columns: Sequence[str] | None = None
    ) -> Iterator[ak.Array]:
        import pyarrow

        chosen = self._readable(tree, columns)
        if not chosen:
            yield ak.Array(ak.contents.RecordArray([], [], length=self.entries(tree)))
            return
        with reading(self.file):
            some: list[Any] = []
            size, last = 0, True
            for batch in self.batches(chosen):
                if some and size > nbytes:
                    yield _from_arrow(pyarrow.Table.from_batches(some), chosen)
                    some, size, last = [], 0, False
                some.append(batch)
                size += batch.nbytes
            if some:
                yield _from_arrow(pyarrow.Table.from_batches(some), chosen)
            elif last:
                yield _from_arrow(pyarrow.Table.from_batches([], self._schema), chosen)


class ParquetFile(TableFile):
    """A Parquet file."""

    kind = "Parquet"

    def __init__(self, file: ByteFile) -> None:
        import pyarrow.parquet

        with reading(file):
            self._parquet = pyarrow.parquet.ParquetFile(CachedReader(file))
        super().__init__(file, self._parquet.schema_arrow)

    def entries(self, tree: str) -> int:
        return int(self._parquet.metadata.num_rows)

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        yield from self._parquet.iter_batches(batch_size=_BATCH, columns=list(columns))


class ArrowFile(TableFile):
    """A file of Arrow's IPC format, as dosna's delivery service makes them."""

    kind = "Arrow"

    def __init__(self, file: ByteFile) -> None:
        import pyarrow

        with reading(file):
            self._reader = pyarrow.ipc.open_file(CachedReader(file))
        self._held: tuple[int, Any] = (-1, None)
        super().__init__(file, self._reader.schema)

    def entries(self, tree: str) -> int:
        with reading(self.file):
            return sum(self._batch(n).num_rows for n in range(self._reader.num_record_batches))

    def _batch(self, number: int) -> Any:
        """Read a batch. Files mostly have one, which is read once."""
        if self._held[0] != number:
            batch = self._reader.get_batch(number)
            # Damaged offsets would lead outside of its memory.
            batch.validate(full=True)
            self._held = (number, batch)
        return self._held[1]

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        return map(self._batch, range(self._reader.num_record_batches))

    def pieces(
        self, tree: str, nbytes: int, columns: Sequence[str] | None = None
    ) -> Iterator[ak.Array]:
        for array in super().pieces(tree, 0, columns):
            step = max(1, len(array) * nbytes // max(1, array.nbytes))
            # Not slices of batches: awkward 2.14 reads their missing values from the beginning.
            for start in range(0, max(1, len(array)), step):
                yield array[start : start + step] if step < len(array) else array


class StreamFile(TableFile):
    """A stream of Arrow in a file, which is read once."""

    kind = "Arrow"

    def __init__(self, file: ByteFile) -> None:
        import pyarrow

        with reading(file):
            self._reader = pyarrow.ipc.open_stream(CachedReader(file))
        super().__init__(file, self._reader.schema)

    def entries(self, tree: str) -> int:
        raise NotImplementedError("a stream does not say how long it is")

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        for batch in self._reader:
            batch.validate(full=True)
            yield batch


def _from_arrow(table: Any, columns: Sequence[str]) -> ak.Array:
    """Return columns of a table as `ak.from_parquet` does."""
    names = table.schema.names
    # By number: for nested names more may be read, and two columns of a name are both read.
    found = ak.from_arrow(_with_awkward_types(table.select([names.index(n) for n in columns])))
    return found[list(columns)]


def _with_awkward_types(table: Any) -> Any:
    """Apply the metadata of `ak.to_parquet` about tuples, records' names and options."""
    from awkward._connect import pyarrow as connect

    # Before awkward 2.7, Arrow's extension types had it.
    noted = getattr(connect, "convert_native_arrow_table_to_awkward", None)
    return table if noted is None else noted(table)


def _refusal(field: Any, metadata: Any) -> str:
    """Return why a column of Parquet cannot be read; empty if it can."""
    import pyarrow

    try:
        empty = pyarrow.Table.from_batches([], pyarrow.schema([field], metadata=metadata))
        columns(ak.to_layout(_from_arrow(empty, [field.name])[field.name]).form)
    except RefusedError as error:
        return str(error)
    except Exception as error:
        text = " ".join(str(error).split()) or "it has no such type"
        return f"awkward cannot read {field.type} ({type(error).__name__}: {text})"
    return ""


class RootFile(EventFile):
    """A ROOT file: its TTrees and RNTuples."""

    def __init__(self, file: ByteFile) -> None:
        super().__init__(file)
        with reading(file):
            self._root = uproot.open(CachedReader(file))
            found = self._root.classnames(cycle=False)
        self._parts: dict[str, TreePart] = {}
        self._refused: dict[str, Mapping[str, str]] = {}
        self.kinds = {k: "RNTuple" if "RNTuple" in c else c for k, c in found.items() if _tree(c)}
        folders = ("TDirectory", "TDirectoryFile")
        self.others = {k: c for k, c in found.items() if k not in self.kinds and c not in folders}

    def entries(self, tree: str) -> int:
        with reading(self.file):
            return int(self._root[tree].num_entries)

    def typenames(self, tree: str) -> Mapping[str, str]:
        with reading(self.file):
            found, refused = self._root[tree], self.refused(tree)
            return {n: found[n].typename for n in self.columns(tree) if n not in refused}

    def columns(self, tree: str) -> list[str]:
        with reading(self.file):
            names = self._root[tree].keys(recursive=False)
        return list(dict.fromkeys(names))

    def refused(self, tree: str) -> Mapping[str, str]:
        if tree not in self._refused:
            with reading(self.file):
                found = {b.name: b.refused for b in self._part(tree).branches() if b.refused}
            own = set(self.columns(tree))
            self._refused[tree] = {name: why for name, why in found.items() if name in own}
        return self._refused[tree]

    def _part(self, tree: str) -> TreePart:
        if tree not in self._parts:
            self._parts[tree] = part_of(self._root[tree])
        return self._parts[tree]

    def pieces(
        self, tree: str, nbytes: int, columns: Sequence[str] | None = None
    ) -> Iterator[ak.Array]:
        chosen = self._readable(tree, columns)
        with reading(self.file):
            found, part = self._root[tree], self._part(tree)
            whole = all(map(part.joins, chosen)) if self.kinds[tree] == "RNTuple" else True
            for start, stop in self._ranges(found, part, chosen, whole, nbytes):
                # One column after the other, so that only the baskets of one are in memory.
                arrays = [
                    part.read(name, start, stop)
                    if part.has(name)
                    else found[name].array(entry_start=start, entry_stop=stop).layout
                    for name in chosen
                ]
                yield ak.Array(ak.contents.RecordArray(arrays, chosen, length=stop - start))

    def _ranges(
        self, found: Any, part: TreePart, columns: Sequence[str], joins: bool, nbytes: int
    ) -> Iterator[tuple[int, int]]:
        """Yield ranges of entries that need no basket or cluster twice, if possible."""
        total = int(found.num_entries)
        if not isinstance(found, uproot.TTree):
            bounds = [int(c.num_first_entry) for c in found.cluster_summaries]
            size, splits = _UNPACKED * self.file.size, False
        else:
            edges = [set(part.edges(name)) for name in columns if part.has(name)]
            bounds = sorted(set.intersection(*edges)) if edges else [0]
            size = sum(found[name].uncompressed_bytes for name in columns)
            splits = any(found[name].num_baskets > 1 for name in columns)
        most = max(1, nbytes * total // max(1, size)) if joins else 0
        start = last = 0
        for bound in [*bounds, total]:
            if bound - start > most and last > start:
                yield start, last
                start = last
            last = bound
            while splits and last - start > _SPLIT * most:
                yield start, start + most
                start += most
        if last > start or not total:
            yield start, last


def _tree(classname: str) -> bool:
    return classname in ("TTree", "TNtuple", "TNtupleD", "ROOT::RNTuple", "RNTuple")


def open_events(file: ByteFile, kind: str) -> EventFile:
    """Open a file of events.

    Parameters
    ----------
    file : ByteFile
    kind : str
        The format of the result: ``parquet``, ``arrow``, ``arrow-stream``, ``hdf5``; others are
        of ROOT.

    Raises
    ------
    SourceError
        If the file is damaged, or of another kind.
    """
    if kind == "hdf5":
        from dosna.sources.servicex.hdf5events import Hdf5File

        return Hdf5File(file)
    kinds: dict[str, Callable[[ByteFile], EventFile]]
    kinds = {"parquet": ParquetFile, "arrow": ArrowFile, "arrow-stream": StreamFile}
    return kinds.get(kind, RootFile)(file)


@contextmanager
def reading(file: ByteFile) -> Iterator[None]:
    """Convert errors of libraries for a damaged file to a SourceError."""
    try:
        yield
    except DosnaError:
        raise
    except Exception as error:
        # Damage causes any error: struct.error, ValueError, zlib.error, DeserializationError, ….
        raise SourceError(
            f"{file.location} cannot be read: {type(error).__name__}: {error}"
        ) from error
