"""The results of a query of a tree or an array."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from dosna.core.progress import Progress, reporting
from dosna.core.sizes import Limit, parse_size
from dosna.core.text import is_text
from dosna.core.types import Array
from dosna.engines.work.boxes import workers_within
from dosna.errors import FormatError, QueryTypeError
from dosna.query.exiting import UntilExit
from dosna.query.expressions import Bound, Output, bind_projection, parse_projection
from dosna.query.scan import Convert, Rows
from dosna.query.tables import Batches, arrow, converting, schema_of

if TYPE_CHECKING:
    from dosna.array.connection import EngineConnection

__all__ = ["Job", "Results", "check_limits", "columns_of"]


class Job(NamedTuple):
    """The work of a query, with its tasks.

    Parameters
    ----------
    work : callable
        A function of a task. It can be pickled.
    tasks : sequence
        The tasks.
    nbytes : int
        The memory that a task needs, in bytes.
    """

    work: Callable[[Iterable[Any]], list[Rows]]
    tasks: Sequence[Any]
    nbytes: int


class Results(ABC):
    """The results of a query, which runs when one of them is requested."""

    con: EngineConnection
    batch_rows: int | None
    memory_limit: Limit
    progress: Progress

    @abstractmethod
    def job(self, convert: Convert | None) -> Job:
        """Return the work of the query.

        Parameters
        ----------
        convert : callable or None
            The conversion of the columns of a part; None if rows are only counted.
        """

    @abstractmethod
    def nothing(self) -> dict[str, Any]:
        """Return the columns of the result, without rows."""

    def forms(self) -> dict[str, Any]:
        """Return the awkward forms, as JSON, of columns that are branches as they are kept."""
        return {}

    @cached_property
    def schema(self) -> Any:
        """The Arrow schema of the result."""
        return schema_of(self.nothing())

    def _run(self, convert: Convert | None) -> list[Rows]:
        work, tasks, nbytes = self.job(convert)
        runner = self.con.runner
        result = getattr(convert, "__name__", type(convert).__name__)
        runner.agree("query", repr(self), result, replace(cast(Any, self), progress=None), tasks)
        workers = workers_within(self.memory_limit, nbytes, "query")
        picklable = self.con.instance.shared_between_processes
        with runner.reporting(self.progress, len(tasks), "query", "range") as report:
            found = runner.spread(work, tasks, workers=workers, picklable=picklable, report=report)
        return sorted(rows for part in found for rows in part)

    def count(self) -> int:
        """Return the number of entries that satisfy the condition, reading only its columns.

        Returns
        -------
        int
            The number.
        """
        return sum(rows.kept for rows in self._run(None))

    def to_arrow(self) -> Any:
        """Return the result as a `pyarrow.Table`.

        Returns
        -------
        pyarrow.Table
            The table, with one chunk for each range of entries.
        """
        pa = arrow()
        found = self._run(Batches(self.schema))
        return pa.Table.from_batches([rows.values for rows in found if rows.kept], self.schema)

    def to_awkward(self) -> Any:
        """Return the result as an awkward array.

        Returns
        -------
        awkward.Array
            An array of records, whose fields are the columns.
        """
        import awkward as ak

        parts = [rows for rows in self._run(_kept) if rows.kept]
        found = [rows.values for rows in parts] or [self.nothing()]
        length = sum(rows.kept for rows in parts)
        joined = {}
        for name, values in found[0].items():
            with converting(name, values, "awkward"):
                joined[name] = _joined([columns[name] for columns in found])
        for name, plain in self.forms().items():
            joined[name] = _restored(joined[name], plain)
        contents = list(joined.values())
        return ak.Array(ak.contents.RecordArray(contents, list(joined), length=length))

    def to_numpy(self) -> dict[str, Any]:
        """Return the result as NumPy arrays by the names of the columns.

        Returns
        -------
        dict of str to ndarray
            The columns.

        Raises
        ------
        QueryTypeError
            A column is not flat: it has lists or optional values.
        """
        for name, values in self.nothing().items():
            if not isinstance(values, np.ndarray):
                raise QueryTypeError(
                    f"column {name!r} of the query has {values.type.content} for each entry, and "
                    "cannot be a NumPy array: use to_awkward(), or to_arrow()"
                )
        found = [rows.values for rows in self._run(_kept) if rows.kept] or [self.nothing()]
        return {name: np.concatenate([part[name] for part in found]) for name in found[0]}

    def batches(self) -> Any:
        """Return a reader of the result, one range of entries after the other, in bounded memory.

        Returns
        -------
        pyarrow.RecordBatchReader
            The reader. Each range is read when it is requested, or shortly before.
        """
        batches = UntilExit(self._batches())
        return arrow().RecordBatchReader.from_batches(self.schema, batches)

    def _batches(self) -> Iterator[Any]:
        work, tasks, nbytes = self.job(Batches(self.schema))
        runner = self.con.runner
        most = workers_within(self.memory_limit, nbytes, "query")
        # Several for each thread, because the threads wait for each other at the end.
        together = 2 * min(runner.threads, most or runner.threads)
        with reporting(self.progress, len(tasks), "query", "range") as report:
            for first in range(0, len(tasks), together):
                self.con.check_connected()
                some = tasks[first : first + together]
                found = runner.map(work, some)
                for rows in sorted(rows for part in found for rows in part):
                    if rows.kept:
                        yield from self._cut(rows.values)
                if report is not None:
                    report(first + len(some))

    def _cut(self, batch: Any) -> Iterator[Any]:
        size = self.batch_rows or batch.num_rows
        for first in range(0, batch.num_rows, size):
            yield batch.slice(first, size)

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.batches().__arrow_c_stream__(requested_schema)


def columns_of(columns: str | Iterable[str | Output], forms: Mapping[str, Any]) -> list[Bound]:
    """Return the columns of a result, from what the caller of a query gave.

    Raises
    ------
    QueryTypeError
        They are neither a text nor a sequence of texts.
    UnknownNameError, QueryError
        A column does not exist, or its text is not of the language.
    """
    if not isinstance(columns, Iterable):
        raise QueryTypeError(
            f"query: columns are names and expressions, not {type(columns).__name__}: write "
            "columns=['run', 'Muon_pt']"
        )
    given = [columns] if isinstance(columns, str) else list(columns)
    wanted = [one for one in given if isinstance(one, Output)]
    texts = [one for one in given if not isinstance(one, Output)]
    return bind_projection([*wanted, *parse_projection(texts)], forms)


def check_limits(batch_rows: int | None, memory_limit: Limit) -> None:
    """Raise ValueError if a limit of a query is none."""
    if batch_rows is not None and batch_rows < 1:
        raise ValueError(f"batch_rows must be at least 1, not {batch_rows}")
    if memory_limit is not None:
        parse_size(memory_limit)


def _joined(parts: list[Any]) -> Any:
    """Return the values of several ranges as one layout of awkward, which is packed."""
    import awkward as ak

    layouts = [_texts(part) if _is_text(part) else ak.to_layout(part) for part in parts]
    first = layouts[0]
    plain = first.is_list and not first.is_regular and first.content.is_numpy
    same = all(type(one) is ak.contents.ListOffsetArray for one in layouts)
    if not (plain and same and len({str(one.form) for one in layouts}) == 1):
        return ak.to_layout(ak.concatenate(parts)).to_packed()
    # What awkward would do by way of starts and stops, and of an index.
    offsets, contents, total = [np.zeros(1, np.int64)], [], 0
    for one in layouts:
        ends = np.asarray(one.offsets.data)
        contents.append(one.content.data[ends[0] : ends[-1]])
        offsets.append(ends[1:] + (total - ends[0]))
        total += int(ends[-1] - ends[0])
    index = ak.index.Index64(np.concatenate(offsets))
    content = ak.contents.NumpyArray(np.concatenate(contents), parameters=first.content.parameters)
    return ak.contents.ListOffsetArray(index, content, parameters=first.parameters)


def _restored(layout: Any, plain: Any) -> Any:
    """Return a layout with the parameters that a form has, and expressions do not keep."""
    from dosna.columns.joining import compose
    from dosna.columns.layout import form_of
    from dosna.columns.splitting import decompose

    form = form_of(plain)
    if str(layout.form.type) == str(form.type):
        return layout
    try:
        parts = decompose(layout, form)
    except FormatError:  # awkward has merged the types of a union
        return layout
    return compose(form, 0, layout.length, lambda path, start, stop: parts[path][start:stop])


def _is_text(part: Any) -> bool:
    return isinstance(part, np.ndarray) and is_text(part.dtype)


def _texts(array: Array) -> Any:
    """Return text of variable length as a layout of awkward, which does not take its dtype."""
    import awkward as ak

    raw = [text.encode() for text in array.tolist()]
    offsets = np.cumsum([0, *map(len, raw)], dtype=np.int64)
    characters = ak.contents.NumpyArray(
        np.frombuffer(b"".join(raw), np.uint8), parameters={"__array__": "char"}
    )
    return ak.contents.ListOffsetArray(
        ak.index.Index64(offsets), characters, parameters={"__array__": "string"}
    )


def _kept(columns: dict[str, Any], length: int) -> dict[str, Any]:
    return columns
