"""Sources as local files, for processes that have no network."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

from dosna.core.sizes import format_size
from dosna.delivery.transform.client import check_wanted
from dosna.delivery.transform.request import TransformRequest
from dosna.errors import (
    DosnaError,
    LimitError,
    MissingDependencyError,
    SourceError,
    SourceNotFoundError,
    StorageError,
)
from dosna.io.files import FULL
from dosna.io.opening import open_bytes
from dosna.sources.errors import Converting

__all__ = ["staged"]

_BLOCK = 8 << 20
_SECONDS = 30.0
"""The seconds that a server may say nothing."""


def staged(request: TransformRequest, folder: str) -> str:
    """Return the real local path of a source: its own, or that of a copy.

    Parameters
    ----------
    request : TransformRequest
        The request.
    folder : str
        The folder for copies.

    Raises
    ------
    SourceNotFoundError, SourceError
        The file does not exist, or cannot be read.
    LimitError
        The copy took longer than the limit of time, or has more bytes than the limit of files.
    WorkerError
        Nobody wants the copy any more.
    """
    source = request.source.removeprefix("file://")
    if "://" not in source:
        real = os.path.realpath(source)
        if request.within and not any(os.path.commonpath([f, real]) == f for f in request.within):
            raise SourceError(
                f"{source} was replaced by a link to what is not served: request a served file"
            )
        if not os.path.isfile(real):
            raise SourceNotFoundError(f"{source} is not a file: check its path")
        return real
    path = os.path.join(os.path.realpath(folder), "input")
    latest, most = time.monotonic() + request.limits.seconds, int(request.limits.disk)
    with Converting(lambda error: _explained(error, source)), open(path, "wb") as copy:
        for block in _blocks(request, source):
            check_wanted(folder)
            copy.write(block)
            if copy.tell() > most:
                raise LimitError(
                    f"{source} could not be copied: it has more than the limit of "
                    f"{format_size(most)} of files"
                )
            if time.monotonic() > latest:
                raise LimitError(
                    f"{source} could not be copied within the limit of {request.limits.seconds:g} "
                    "seconds: try again when its server is less busy"
                )
    return path


def _blocks(request: TransformRequest, source: str) -> Iterator[Any]:
    if source.startswith("s3://"):
        file = open_bytes(source, request.s3)
        try:
            for start in range(0, file.size, _BLOCK):
                yield file.read(start, min(_BLOCK, file.size - start))
        finally:
            file.close()
        return
    if source.startswith(("http://", "https://")):
        yield from _from_http(source)
        return
    import fsspec

    with fsspec.open(source, "rb") as stream:
        while block := stream.read(_BLOCK):
            yield block


def _from_http(source: str) -> Iterator[bytes]:
    import httpx

    # A redirection could lead to a server that only this machine can reach.
    with httpx.stream("GET", source, timeout=_SECONDS, follow_redirects=False) as answer:
        if answer.is_redirect:
            raise SourceError(
                f"{source} cannot be read: it redirects elsewhere. Use that address, if it is "
                "served"
            )
        if answer.status_code in (404, 410):
            raise FileNotFoundError(source)
        if answer.status_code != 200:
            raise SourceError(
                f"{source} cannot be read: the answer is {answer.status_code}. Check its address"
            )
        yield from answer.iter_bytes(_BLOCK)


def _explained(error: Exception, source: str) -> DosnaError:
    text = " ".join(str(error).split())[:300]
    if isinstance(error, OSError) and error.errno in FULL:
        return StorageError(f"there is no space for a copy of {source}: make some in the state")
    if isinstance(error, ImportError):
        return MissingDependencyError(f"{source} needs a package that is not installed: {text}")
    if isinstance(error, FileNotFoundError):
        return SourceNotFoundError(f"{source} does not exist: check its address")
    return SourceError(
        f"{source} cannot be read ({type(error).__name__}: {text}): check its address"
    )
