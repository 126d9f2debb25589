"""The process that runs one selection on one file, from the fork to its end."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import socket
import stat
import sys
import tempfile
import traceback
from typing import Any

from dosna.delivery.transform.job import run_job
from dosna.delivery.transform.sandbox import Bounds, confine
from dosna.errors import DosnaError, SourceError, SourceNotFoundError
from dosna.io.files import FULL

__all__ = ["serve_job"]

_TEXT = 4000
"""The most characters of an error."""

_FULL = (errno.EFBIG, *FULL)


def serve_job(answers: int, log: int) -> int:
    """Read a job from a socket, confine this process, run the job, and answer.

    Parameters
    ----------
    answers : int
        The socket, from which the job is read as a line of JSON, and to which a line with ``rows``
        or ``error`` is written.
    log : int
        The file for the output of the selection.

    Returns
    -------
    int
        The exit code.
    """
    _take_handles(answers, log)
    with socket.socket(fileno=3) as connection:
        with connection.makefile("rb") as lines:
            job = json.loads(lines.readline())
        try:
            _confine(job)
            answer: dict[str, Any] = {"rows": run_job(job, _log)}
        except BaseException as error:
            answer = {"error": _described(error)}
        sys.stdout.flush()
        sys.stderr.flush()
        connection.sendall(json.dumps(answer).encode() + b"\n")
    return 0


def _take_handles(answers: int, log: int) -> None:
    """Keep the two file descriptors as 3, 1 and 2, and close all others."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    # First to numbers that are not among the targets.
    kept = [fcntl.fcntl(handle, fcntl.F_DUPFD, 10) for handle in (nothing, log, log, answers)]
    for target, handle in enumerate(kept):
        os.dup2(handle, target, inheritable=False)
    os.closerange(4, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _confine(job: dict[str, Any]) -> None:
    os.umask(0o077)
    os.chdir(job["scratch"])
    os.environ["HOME"] = os.environ["TMPDIR"] = tempfile.tempdir = job["scratch"]
    limits = job["limits"]
    files = () if job.get("within") else (_input(job),)
    confine(
        Bounds(
            (*files, *job.get("within", ())),
            (job["scratch"],),
            limits["seconds"],
            limits["memory"],
            limits["disk"],
        ),
        job["strict"],
    )
    for file in files:
        os.close(file)


def _input(job: dict[str, Any]) -> int:
    """Open the file to read, whose real path is given. Only that file may be read later, even if
    its path then leads to another one.
    """
    path, shown = job["input"], job["shown"]
    try:
        file = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise SourceNotFoundError(f"{shown} does not exist: check its path") from None
    except OSError as error:
        raise SourceError(f"{shown} cannot be opened: {error.strerror}") from None
    if os.readlink(f"/proc/self/fd/{file}") != path or not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise SourceError(f"{shown} was replaced while it was opened: submit the request again")
    return file


def _log(text: str) -> None:
    print(text, flush=True)


def _described(error: BaseException) -> list[str]:
    """Return the name and the text of an error of dosna for an exception."""
    text = " ".join(str(error).split())
    if isinstance(error, DosnaError):
        kind = type(error).__name__
    elif isinstance(error, MemoryError) or "memory allocation failed" in text:
        kind, text = "LimitError", "memory"
    elif isinstance(error, OSError) and error.errno in _FULL:
        kind, text = "LimitError", "disk"
    else:
        traceback.print_exception(error)
        kind, text = "WorkerError", f"{type(error).__name__}: {text}"
    return [kind, text[:_TEXT]]
