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

_BATCH = 1 << 13
"""Entries of Parquet that are read at a time, to see how large they are."""
_UNPACKED = 4
"""How much larger an RNTuple is thought to be without its compression."""
_SPLIT = 4
"""A range of so many times the wanted size is split, at the cost of reading baskets twice."""


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
            batches = self._parquet.iter_batches(batch_size=_BATCH)
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
            is_ntuple = self.kinds[tree] == "RNTuple"
            for start, stop in self._ranges(found, is_ntuple, nbytes):
                if is_ntuple:
                    array = found.arrays(columns, entry_start=start, entry_stop=stop)[columns]
                    # They are views of whole clusters.
                    yield ak.to_packed(array)
                    continue
                # One after the other, so that the baskets of one at a time are in memory.
                arrays = {
                    name: found[name].array(entry_start=start, entry_stop=stop) for name in columns
                }
                yield ak.zip(arrays, depth_limit=1)

    def _ranges(self, found: Any, is_ntuple: bool, nbytes: int) -> Iterator[tuple[int, int]]:
        """Give ranges of entries that need no basket or cluster twice, if there are such."""
        total = int(found.num_entries)
        if is_ntuple:
            bounds = [int(c.num_first_entry) for c in found.cluster_summaries]
            size, splits = _UNPACKED * self.file.size, False
        else:
            bounds = list(map(int, found.common_entry_offsets()))
            size = found.uncompressed_bytes
            splits = any(branch.num_baskets > 1 for branch in found.branches)
        most = max(1, nbytes * total // max(1, size))
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
