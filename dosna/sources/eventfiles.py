"""Files of events, read from their beginning to their end: Parquet, TTrees and RNTuples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import awkward as ak

from dosna.errors import DosnaError, SourceError
from dosna.sources.files import ByteFile, CachedReader

__all__ = ["EventFile", "open_events"]

_FIRST = 1 << 13
"""Entries that are read to learn how large they are."""


class EventFile(ABC):
    """A file with trees of events.

    Parameters
    ----------
    file : ByteFile
    """

    kinds: Mapping[str, str]
    """What each tree is, such as ``TTree``, by its name."""
    others: Mapping[str, str]
    """What else there is in the file, and of which class."""

    def __init__(self, file: ByteFile) -> None:
        self.file = file

    @abstractmethod
    def entries(self, tree: str) -> int:
        """How many entries a tree has."""

    @abstractmethod
    def typenames(self, tree: str) -> Mapping[str, str]:
        """What the file calls the types of columns."""

    @abstractmethod
    def pieces(self, tree: str, nbytes: int) -> Iterator[ak.Array]:
        """Read a tree in pieces of about so many bytes; at least one, perhaps without entries."""


class ParquetFile(EventFile):
    """A Parquet file: one tree without a name."""

    others: Mapping[str, str] = {}

    def __init__(self, file: ByteFile) -> None:
        import pyarrow.parquet

        super().__init__(file)
        with reading(file):
            self._parquet = pyarrow.parquet.ParquetFile(CachedReader(file))
        self._columns = self._parquet.schema_arrow.names
        # A transformer that found none of the trees writes a file without columns.
        self.kinds = {"": "Parquet"} if self._columns else {}

    def entries(self, tree: str) -> int:
        return int(self._parquet.metadata.num_rows)

    def typenames(self, tree: str) -> Mapping[str, str]:
        return {}

    def pieces(self, tree: str, nbytes: int) -> Iterator[ak.Array]:
        import pyarrow

        schema = self._parquet.schema_arrow
        with reading(self.file):
            batches = self._parquet.iter_batches(batch_size=_FIRST)
            some: list[Any] = []
            size, last = 0, True
            for batch in batches:
                if some and size > nbytes:
                    yield ak.from_arrow(pyarrow.Table.from_batches(some, schema))
                    some, size, last = [], 0, False
                some.append(batch)
                size += batch.nbytes
            if some or last:
                yield ak.from_arrow(pyarrow.Table.from_batches(some, schema))


class RootFile(EventFile):
    """A ROOT file: its TTrees and RNTuples."""

    def __init__(self, file: ByteFile) -> None:
        import uproot

        super().__init__(file)
        with reading(file):
            self._root = uproot.open(CachedReader(file))
            found = self._root.classnames(cycle=False)
        self.kinds = {k: "RNTuple" if "RNTuple" in c else c for k, c in found.items() if _tree(c)}
        folders = ("TDirectory", "TDirectoryFile")
        self.others = {k: c for k, c in found.items() if k not in self.kinds and c not in folders}

    def entries(self, tree: str) -> int:
        with reading(self.file):
            return int(self._root[tree].num_entries)

    def typenames(self, tree: str) -> Mapping[str, str]:
        with reading(self.file):
            found = self._root[tree]
            return {name: found[name].typename for name in found.keys(recursive=False)}

    def pieces(self, tree: str, nbytes: int) -> Iterator[ak.Array]:
        with reading(self.file):
            found = self._root[tree]
            columns = found.keys(recursive=False)
            stop, total = min(_FIRST, found.num_entries), int(found.num_entries)
            start = 0
            while True:
                array = found.arrays(columns, entry_start=start, entry_stop=stop)[columns]
                # Of an RNTuple these are views of whole clusters.
                array = ak.to_packed(array)
                yield array
                if stop >= total:
                    return
                each = max(1, array.nbytes // max(1, stop - start))
                start, stop = stop, min(total, stop + max(1, nbytes // each))


def _tree(classname: str) -> bool:
    return classname in ("TTree", "TNtuple", "TNtupleD", "ROOT::RNTuple", "RNTuple")


def open_events(file: ByteFile, kind: str) -> EventFile:
    """Open a file of events.

    Parameters
    ----------
    file : ByteFile
    kind : {'parquet', 'root'}

    Raises
    ------
    SourceError
        It is damaged, or of another kind.
    """
    return ParquetFile(file) if kind == "parquet" else RootFile(file)


@contextmanager
def reading(file: ByteFile) -> Iterator[None]:
    """Turn what libraries raise for a damaged file into a SourceError."""
    try:
        yield
    except DosnaError:
        raise
    except Exception as error:
        # Damage shows as anything: struct.error, ValueError, zlib.error, DeserializationError, ….
        raise SourceError(
            f"{file.location} cannot be read: {type(error).__name__}: {error}"
        ) from error
