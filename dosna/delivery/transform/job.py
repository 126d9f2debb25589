"""The work on one file, in the process that runs the selection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["run_job"]


def run_job(job: Mapping[str, Any], log: Callable[[str], None] = print) -> int:
    """Run a selection on a local file, write the result, and return the number of entries.

    Parameters
    ----------
    job : mapping
        ``codegen``, ``selection``, ``format``; ``input`` and ``output``, local paths; ``shown``,
        the location that errors name; ``step``, the bytes to read at a time; and ``within``, the
        folders that have the source, if it is a tree of columns.
    log : callable
        Takes notices for the user.

    Raises
    ------
    DosnaError
        The fault of the file or of the selection.
    """
    return (_stored if job.get("within") else _KINDS[job["codegen"]])(job, log)


def _raw(job: Mapping[str, Any], log: Callable[[str], None]) -> int:
    from dosna.delivery.transform.rawquery import parse_raw
    from dosna.delivery.transform.trees import copied, opened, parts
    from dosna.delivery.transform.writing import write

    queries = parse_raw(job["selection"])
    with opened(job["input"], job["shown"]) as file:
        found = parts(file, queries, job["shown"], job["step"], log)
        objects = copied(file, queries, job["shown"])
        return write(job["output"], job["format"], found, objects)


def _program(job: Mapping[str, Any], log: Callable[[str], None]) -> int:
    from dosna.delivery.transform import code
    from dosna.delivery.transform.writing import write

    selection = job["selection"]
    if job["codegen"] == "python":
        function = code.function_of_source(code.source_of(selection))
    else:
        function = code.function_of_query(selection)
    one = not job["format"].startswith("root-")
    found = code.parts_of(function, job["input"], job["shown"], one, log)
    return write(job["output"], job["format"], found)


def _stored(job: Mapping[str, Any], log: Callable[[str], None]) -> int:
    from dosna.delivery.transform.request import Limits, TransformRequest
    from dosna.delivery.transform.stored import transform_stored

    texts = (job["shown"], job["codegen"], job["selection"], job["format"], job["scratch"])
    request = TransformRequest(*texts, "result", Limits(**job["limits"]))
    return transform_stored(request, job["output"], log)


def _stream(job: Mapping[str, Any], log: Callable[[str], None]) -> int:
    from dosna.delivery.transform.streaming import convert

    return convert(job, log)


_KINDS = {"uproot-raw": _raw, "uproot": _program, "python": _program, "to-stream": _stream}
