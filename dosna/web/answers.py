"""The answers to clients: errors as JSON, and the limits of answers.

The message of a store may name buckets, addresses and files, so only dosna's own messages about
the request are passed on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dosna import errors
from dosna.core.sizes import format_size

__all__ = ["HANDLERS", "Limits", "Refusal", "json_refusal", "refusal_of"]

logger = logging.getLogger("dosna.web")

# The status of an error, and the text that replaces its message; only errors of queries keep
# theirs. The first matching class counts.
_TOLD: list[tuple[type[BaseException], int, str]] = [
    (errors.UnknownNameError, 404, ""),
    (errors.QueryError, 400, ""),
    (errors.DatasetNotFoundError, 404, "there is no such dataset"),
    (errors.SourceNotFoundError, 404, "there is no such source"),
    (errors.DatasetNameError, 400, "this is not a legal name of a dataset"),
    (errors.ChunkIndexError, 404, "there is no such chunk"),
    (errors.MemoryLimitError, 413, "the answer needs more memory than the server may use"),
    (errors.ReadOnlyError, 403, "the server is read-only"),
    (errors.StaleDatasetError, 409, "the dataset has been changed: repeat the request"),
    (errors.RefusedError, 415, "the data cannot be represented in this format"),
    (errors.MissingDependencyError, 501, "the server lacks a package that the request needs"),
    (errors.Stopped, 503, "the request was stopped"),
    (errors.StoreTimeoutError, 504, "the store did not answer in time: repeat the request"),
    (errors.ConnectionError, 502, "the store cannot be reached"),
    (errors.StorageError, 502, "the store failed"),
    (errors.ChunkError, 500, "a chunk cannot be read"),
    (errors.DatasetError, 500, "the dataset cannot be read"),
    (errors.SourceError, 500, "the source cannot be read"),
    (TimeoutError, 504, "the store did not answer in time: repeat the request"),
    (IndexError, 400, "the selection does not fit the dataset"),
]


class Refusal(errors.DosnaError):
    """An error for a request that is not answered. The client gets the message.

    Parameters
    ----------
    status : int
        The HTTP status.
    message : str
        The failure and its reason. It must not contain anything that only the server should know.
    hint : str, optional
        The advice what to do instead.
    headers : mapping, optional
        Further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        hint: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{message}: {hint}" if hint else message)
        self.status, self.message, self.hint = status, message, hint
        self.headers = dict(headers or {})


@dataclass(frozen=True)
class Limits:
    """The limits of an answer, and of all answers together.

    Attributes
    ----------
    answer_bytes : int or None
        The maximum size of an answer in bytes; None for no limit.
    seconds : float or None
        The time until an answer must begin; None for no limit.
    total_bytes : int or None
        The memory in bytes for all answers that are made or sent at the same time, but for small
        ones; others wait for it. None for no limit.
    """

    answer_bytes: int | None = 256 << 20
    seconds: float | None = 60.0
    total_bytes: int | None = 512 << 20

    @property
    def most_bytes(self) -> int | None:
        """The size of the largest answer that has a place in memory."""
        known = [most for most in (self.answer_bytes, self.total_bytes) if most is not None]
        return min(known, default=None)

    def check_bytes(self, nbytes: int, hint: str = "ask for a part of it") -> None:
        """Raise a Refusal of status 413 if an answer would be too large.

        Parameters
        ----------
        nbytes : int
            The size of the answer.
        hint : str
            The advice to the client.
        """
        most = self.most_bytes
        if most is not None and nbytes > most:
            raise Refusal(
                413,
                f"the answer has {format_size(nbytes)}, but the limit is {format_size(most)}",
                hint,
            )


def refusal_of(error: BaseException) -> Refusal:
    """Return what a client is told about an error, and log the type of the error.

    Parameters
    ----------
    error : Exception
        The error. Its message is passed on only if it is just about the request.

    Returns
    -------
    Refusal
        The refusal. Its status is 500 for an unexpected error.
    """
    if isinstance(error, Refusal):
        return error
    if isinstance(error, HTTPException):
        return Refusal(error.status_code, str(error.detail), headers=error.headers)
    told = ((status, message) for kind, status, message in _TOLD if isinstance(error, kind))
    status, message = next(told, (500, "the server failed"))
    if status >= 500:
        # The message may contain secrets that do not belong in a log; the traceback is for
        # developers.
        logger.warning("%s: %s", message, type(error).__name__)
        logger.debug("%s", message, exc_info=error)
    return Refusal(status, message or str(error))


def json_refusal(refusal: Refusal) -> JSONResponse:
    """Return the answer ``{"error": …, "hint": …}`` of a refusal.

    Parameters
    ----------
    refusal : Refusal
        The refusal.

    Returns
    -------
    JSONResponse
        The answer, which no cache keeps.
    """
    content = {"error": refusal.message}
    if refusal.hint:
        content["hint"] = refusal.hint
    headers = {"Cache-Control": "no-store", **refusal.headers}
    return JSONResponse(content, refusal.status, headers)


def _handle(request: Request, error: Exception) -> Response:
    return json_refusal(refusal_of(error))


HANDLERS: dict[type[Exception], Callable[[Request, Exception], Response]] = {
    HTTPException: _handle,
    errors.DosnaError: _handle,
    Exception: _handle,
}
"""The `exception_handlers` of an application of Starlette or FastAPI, with these answers."""
