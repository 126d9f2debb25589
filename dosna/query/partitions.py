"""A query as a Dask dataframe: a partition for each range of entries."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from dosna.errors import MissingDependencyError
from dosna.query.scan import Piece, Scan
from dosna.query.tables import Batches, arrow

if TYPE_CHECKING:
    from dosna.query.query import Query

__all__ = ["dataframe"]


@dataclass
class _Partition:
    """Reads a range of entries, in the process in which it is called."""

    scan: Scan
    schema: Any
    token: str = field(default_factory=lambda: secrets.token_hex(16))

    def __dask_tokenize__(self) -> str:
        # Chunks may be written to between two queries, so results are never shared between them.
        return self.token

    def __call__(self, piece: Piece) -> Any:
        (rows,) = self.scan([Piece(*piece)])
        found = [rows.values] if rows.kept else []
        return _frame(arrow().Table.from_batches(found, self.schema))


def _frame(table: Any) -> Any:
    import pandas as pd

    return table.to_pandas(types_mapper=pd.ArrowDtype)


def dataframe(query: Query) -> Any:
    """Run `Query.to_dask`."""
    try:
        frames: Any = import_module("dask.dataframe")
    except ImportError as error:
        raise MissingDependencyError(
            f"to_dask() needs Dask's dataframes ({error}): pip install 'dask[dataframe]'"
        ) from error
    schema = query.schema
    scan, pieces = query.scan(Batches(schema))
    meta = _frame(schema.empty_table())
    if not pieces:
        return frames.from_pandas(meta, npartitions=1)
    partition = _Partition(scan, schema)
    return frames.from_map(partition, [tuple(piece) for piece in pieces], meta=meta)
