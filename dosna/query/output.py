"""The result of a query as a file, which appears when it is complete."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from dosna.errors import ConfigurationError
from dosna.io.unfinished import discard, finish, name_unfinished
from dosna.query.results import Results
from dosna.query.tables import arrow

__all__ = ["FORMATS", "format_of", "write", "write_to"]


def _parquet(stream: BinaryIO, schema: Any) -> Any:
    return _ParquetWriter(stream, schema)


def _arrow(stream: BinaryIO, schema: Any) -> Any:
    return arrow().ipc.new_file(stream, schema)


def _csv(stream: BinaryIO, schema: Any) -> Any:
    return _CsvWriter(stream, schema)


GROUP_ROWS, GROUP_BYTES = 1 << 16, 16 << 20
"""The rows or the bytes, whichever comes first, that a row group of Parquet has at least."""

_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)

FORMATS: dict[str, Callable[[BinaryIO, Any], Any]] = {
    ".parquet": _parquet,
    ".arrow": _arrow,
    ".feather": _arrow,
    ".csv": _csv,
}
"""The writers, by the endings of files."""


class _ParquetWriter:
    """A writer of Parquet that puts several small batches into one row group.

    Each row group costs a reader its statistics and a request for each column.
    """

    def __init__(self, stream: BinaryIO, schema: Any) -> None:
        from pyarrow import parquet

        self._writer = parquet.ParquetWriter(stream, schema)
        self._schema, self._held = schema, list[Any]()
        self._rows = self._nbytes = 0

    def __enter__(self) -> _ParquetWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            if kind is None:
                self._flush()
        finally:
            self._writer.close()

    def write_batch(self, batch: Any) -> None:
        self._held.append(batch)
        self._rows += batch.num_rows
        self._nbytes += batch.nbytes
        if self._rows >= GROUP_ROWS or self._nbytes >= GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._held:
            self._writer.write_table(arrow().Table.from_batches(self._held, self._schema))
            self._held.clear()
            self._rows = self._nbytes = 0


class _CsvWriter:
    """A writer of CSV. Lists are written as JSON, because CSV has none."""

    def __init__(self, stream: BinaryIO, schema: Any) -> None:
        from pyarrow import csv

        pa = arrow()
        nested = pa.types.is_nested
        self._schema = pa.schema(
            [(field.name, pa.string() if nested(field.type) else field.type) for field in schema]
        )
        self._writer = csv.CSVWriter(stream, self._schema)

    def __enter__(self) -> _CsvWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()

    def write_batch(self, batch: Any) -> None:
        pa = arrow()
        columns = [
            pa.array([json.dumps(one, default=_text) for one in column.to_pylist()], pa.string())
            if pa.types.is_nested(column.type)
            else column
            for column in batch.columns
        ]
        self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=self._schema))


def _text(value: Any) -> str:
    """Return a text for values that JSON does not have: bytes and times."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def format_of(path: str) -> str:
    """Return the suffix of a file, which determines its format.

    Raises
    ------
    ConfigurationError
        The suffix is not that of a format.
    """
    ending = os.path.splitext(path)[1].lower()
    if ending not in FORMATS:
        raise ConfigurationError(
            f"cannot write {path!r}: the suffix of the file must be one of {', '.join(FORMATS)}"
        )
    return ending


def write_to(query: Results, stream: BinaryIO, ending: str) -> int:
    """Write the result of a query to a stream, and return the number of rows."""
    rows = 0
    with FORMATS[ending](stream, query.schema) as writer:
        for batch in query.batches():
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def write(query: Results, path: str | os.PathLike[str], overwrite: bool = False) -> int:
    """Write the result of a query to a file, in bounded memory.

    Parameters
    ----------
    query : Query or ArrayQuery
        The query.
    path : path
        The file, with the suffix ``.parquet``, ``.arrow``, ``.feather`` or ``.csv``. If anything
        fails, no file is left.
    overwrite : bool
        True to replace an existing file.

    Returns
    -------
    int
        The number of rows.

    Raises
    ------
    FileExistsError
        The file already exists.
    ConfigurationError
        The suffix is not that of a format.
    """
    path = os.fspath(path)
    ending = format_of(path)
    with _appearing(path, overwrite) as stream:
        return write_to(query, stream, ending)


@contextmanager
def _appearing(path: str, overwrite: bool) -> Iterator[BinaryIO]:
    """Open a file that gets its name at the end, if nothing has failed."""
    if not overwrite and os.path.lexists(path):
        raise FileExistsError(f"{path} exists: choose another name, or overwrite=True")
    part = ""
    try:
        part = name_unfinished(path)
        with open(part, "xb") as stream:
            yield stream
        finish(part, path, overwrite)
    except OSError as error:
        # Errors about the temporary file, or about a full disk, name the file that the caller
        # knows.
        unnamed = error.filename is None and error.errno in _FULL
        if unnamed or (part and error.filename == part):
            raise type(error)(error.errno, error.strerror, path) from error
        raise
    finally:
        discard(part)
