"""Results as Parquet and Arrow files, which hold one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import awkward as ak
import pyarrow as pa

from dosna.columns.arrow import for_arrow
from dosna.errors import RefusedError

__all__ = ["ArrowWriter", "ParquetWriter"]


class ParquetWriter:
    """A Parquet file, with the entries of several trees one after the other.

    Parameters
    ----------
    path : str
        The file.
    several : bool
        True for a column ``treename``.
    copied : mapping
        Objects of ROOT, of which there are none.
    """

    def __init__(self, path: str, several: bool, copied: Mapping[str, Any]) -> None:
        self._path, self._several = path, several
        self._writer: Any = None
        self._empty: Any = None
        self._name, self._written = "", False

    def open(self, path: str, schema: Any) -> Any:
        """Open a writer of tables."""
        from pyarrow import parquet

        return parquet.ParquetWriter(path, schema)

    def begin(self, name: str, nothing: Any) -> None:
        self._name = name
        self._table(nothing)

    def append(self, array: Any) -> None:
        self._writer.write_table(self._table(array))
        self._written = True

    def _table(self, array: Any) -> Any:
        table = ak.to_arrow_table(for_arrow(array))
        if self._several:
            names = pa.repeat(self._name, table.num_rows)
            table = table.append_column(pa.field("treename", names.type, False), names)
        if self._writer is None:
            self._empty = table
            self._writer = self.open(self._path, table.schema)
        elif not table.schema.equals(self._empty.schema):
            raise RefusedError(
                f"the tree {self._name!r} has other columns or types than the trees before it: "
                "use the format root-file, or a request for each tree"
            )
        return table

    def close(self) -> None:
        if self._writer is not None:
            if not self._written:  # awkward does not read Parquet without any row group
                self._writer.write_table(self._empty)
            self._writer.close()


class ArrowWriter(ParquetWriter):
    """A file in the Arrow IPC format."""

    def open(self, path: str, schema: Any) -> Any:
        return pa.ipc.new_file(path, schema)
