"""Results in any format as Arrow streams.

The output of a selection is not trusted: a confined process reads it, and writes a stream whose
messages are passed on unchanged.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from dosna.delivery.transform.client import server_of
from dosna.delivery.transform.request import Limits
from dosna.errors import FormatError, RefusedError

__all__ = ["END", "STREAMED", "messages", "to_stream"]

KIND = "to-stream"
"""The kind of the job, beside those of selections."""

STREAMED = ("arrow", "parquet", "root-file", "root-rntuple")
"""The formats of results that can be streams."""

END = b"\xff\xff\xff\xff\x00\x00\x00\x00"
"""The end of a stream."""

_ROWS = 1 << 16


def to_stream(path: str, format: str, folder: str, limits: Limits, unconfined: bool) -> str:
    """Convert a result to a stream, and return its path.

    Parameters
    ----------
    path : str
        The result.
    format : str
        Its format.
    folder : str
        A folder that only this call uses.
    limits, unconfined
        See `dosna.delivery.transform.TransformRequest`.

    Raises
    ------
    RefusedError
        The format has no stream, or the result has several trees.
    DosnaError
        The result cannot be read.
    """
    if format not in STREAMED:
        raise RefusedError(
            f"results in {format} cannot be streamed: use one of {', '.join(STREAMED)}"
        )
    made = os.path.join(folder, "result")
    job = {
        "codegen": KIND,
        "selection": "",
        "format": format,
        "input": os.path.realpath(path),
        "shown": os.path.basename(path),
        "output": made,
        "scratch": folder,
        "step": int(limits.memory) // 16,
        "limits": asdict(limits),
        "strict": not unconfined,
    }
    with open(os.path.join(folder, "log"), "w+b") as log:
        server_of().run(job, log.fileno())
    return made


def messages(path: str) -> Iterator[tuple[bool, bytes]]:
    """Yield the messages of a stream, the schema first, and whether each is a schema.

    Parameters
    ----------
    path : str
        The stream. Its arrays are not read.

    Raises
    ------
    FormatError
        The file is not a stream.
    """
    import pyarrow as pa

    with pa.OSFile(path) as file:
        try:
            for number, message in enumerate(pa.ipc.MessageReader.open_stream(file)):
                if (message.type == "schema") != (number == 0):
                    raise FormatError(f"a stream has a {message.type} where none belongs")
                yield number == 0, message.serialize().to_pybytes()
        except pa.ArrowException as error:
            raise FormatError(f"a result cannot be converted to a stream: {error}") from error


def convert(job: Mapping[str, Any], log: Callable[[str], None]) -> int:
    """Write the stream of a result, in the confined process, and return the number of entries."""
    import pyarrow as pa

    rows = 0
    with ExitStack() as stack:
        schema, batches = _read(stack, job["input"], job["format"], job["step"])
        output = stack.enter_context(open(job["output"], "wb"))
        writer = stack.enter_context(pa.ipc.new_stream(output, schema))
        for batch in batches:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def _read(stack: ExitStack, path: str, format: str, step: int) -> tuple[Any, Iterator[Any]]:
    """Return the schema of a result, and its batches."""
    import pyarrow as pa

    if format == "arrow":
        reader = pa.ipc.open_file(stack.enter_context(pa.memory_map(path)))
        return reader.schema, map(reader.get_batch, range(reader.num_record_batches))
    if format == "parquet":
        from pyarrow import parquet

        file = stack.enter_context(parquet.ParquetFile(path))
        return file.schema_arrow, file.iter_batches(_ROWS, use_threads=False)
    import awkward as ak

    from dosna.columns.arrow import for_arrow
    from dosna.delivery.transform.trees import opened
    from dosna.sources.root.file import TREES

    file = stack.enter_context(opened(path, os.path.basename(path)))
    classes = file.classnames(recursive=True, cycle=False)
    names = [name for name, kind in classes.items() if kind in TREES]
    if len(names) != 1:
        raise RefusedError(
            f"a stream has one tree, but the results have {', '.join(names) or 'none'}: use the "
            "format parquet, or make a request for each tree"
        )
    tree = file[names[0]]
    tables = (ak.to_arrow_table(for_arrow(one)) for one in tree.iterate(step_size=f"{step} B"))
    schema = ak.to_arrow_table(for_arrow(tree.arrays(entry_stop=0))).schema
    return schema, (batch for table in tables for batch in table.to_batches(_ROWS))
