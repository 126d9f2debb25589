"""The result of a query as a file, which appears when it is complete."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from dosna.errors import ConfigurationError, QueryError
from dosna.io.files import FULL
from dosna.io.unfinished import discard, finish, name_unfinished
from dosna.query.results import Results
from dosna.query.tables import arrow

__all__ = ["FORMATS", "as_python", "format_of", "write", "write_to"]


def _parquet(stream: BinaryIO, schema: Any) -> Any:
    return _ParquetWriter(stream, schema)


def _arrow(stream: BinaryIO, schema: Any) -> Any:
    return arrow().ipc.new_file(stream, schema)


def _csv(stream: BinaryIO, schema: Any) -> Any:
    return _CsvWriter(stream, schema)


GROUP_ROWS, GROUP_BYTES = 1 << 16, 16 << 20
"""The rows or the bytes, whichever comes first, that a row group of Parquet has at least."""

_FULL = (errno.EFBIG, *FULL)

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

        with _refusing("Parquet"):
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
            table = arrow().Table.from_batches(self._held, self._schema)
            with _refusing("Parquet"):
                self._writer.write_table(table)
            self._held.clear()
            self._rows = self._nbytes = 0


@contextmanager
def _refusing(form: str) -> Iterator[None]:
    """Raise QueryError for what a format does not have, such as unions, or seconds in Parquet."""
    pa = arrow()
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise QueryError(
            f"{form} does not have a type or a value of the result ({error}): write it to a file "
            "of Arrow, or choose other columns"
        ) from error


class _CsvWriter:
    """A writer of CSV, which has texts only.

    Lists are written as JSON, bytes as text, and time spans as a number and its unit.
    """

    def __init__(self, stream: BinaryIO, schema: Any) -> None:
        from pyarrow import csv

        self._schema = arrow().schema([(field.name, _csv_type(field.type)) for field in schema])
        self._writer = csv.CSVWriter(stream, self._schema)

    def __enter__(self) -> _CsvWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()

    def write_batch(self, batch: Any) -> None:
        columns = list(map(_csv_column, batch.columns))
        self._writer.write_batch(arrow().RecordBatch.from_arrays(columns, schema=self._schema))


def _csv_type(kind: Any) -> Any:
    types = arrow().types
    if types.is_nested(kind) or types.is_duration(kind):
        return arrow().string()
    is_bytes = types.is_binary(kind) or types.is_large_binary(kind)
    return arrow().large_string() if is_bytes else kind


def _csv_column(column: Any) -> Any:
    pa = arrow()
    kind = _csv_type(column.type)
    if pa.types.is_temporal(column.type):
        return _csv_times(column)
    if kind == column.type:
        return column
    if pa.types.is_nested(column.type):
        return pa.array([json.dumps(one, default=_text) for one in as_python(column)], kind)
    try:
        return column.cast(kind)
    except pa.ArrowInvalid:  # not all are UTF-8
        return pa.array([None if one is None else _text(one) for one in column.to_pylist()], kind)


def _csv_times(column: Any) -> Any:
    """Return dates as they are, and time spans as texts with their unit."""
    from pyarrow import compute

    pa = arrow()
    if pa.types.is_duration(column.type):
        numbers = column.cast(pa.int64()).cast(pa.string())
        return compute.binary_join_element_wise(numbers, column.type.unit, " ")
    for one in compute.min_max(column).values():
        # pyarrow writes this instead of an error.
        if str(one.cast(pa.string())).startswith("<value out of range"):
            raise QueryError(
                f"the result has dates beyond those that CSV is written with ({one.value} "
                f"{column.type}): write it to a file of Arrow, or choose other columns"
            )
    return column


def as_python(values: Any) -> list[Any]:
    """Return the values of an Arrow array, or the rows of a batch, as Python's.

    Raises
    ------
    QueryError
        Some are dates or time spans that Python does not have.
    """
    try:
        return list(values.to_pylist())
    except (OverflowError, ValueError) as error:
        raise QueryError(
            f"the result has dates or time spans that Python does not have ({error}): write it "
            "to a file of Parquet or Arrow, or choose other columns"
        ) from error


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
