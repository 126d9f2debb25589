"""Answers that are sent in pieces, and what makes the pieces closed however the answer ends.

A generator that is left where its client went away is closed when Python collects it: perhaps
minutes later, and then its files may be removed before it is.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import aclosing
from typing import TypeVar

import anyio
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.responses import StreamingResponse
from starlette.types import Send

__all__ = ["Streamed", "in_threads"]

T = TypeVar("T")

_LOOK = 0.05


class Streamed(StreamingResponse):
    """An answer in pieces, whose generator is closed when the answer ends or its client is gone.

    Parameters
    ----------
    pieces : async generator of bytes or str
        The body; `in_threads` makes one of an ordinary generator.
    status_code, headers, media_type
        As of Starlette's class. FastAPI looks for a default of the first.
    """

    def __init__(
        self,
        pieces: AsyncGenerator[bytes] | AsyncGenerator[str],
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = None,
    ) -> None:
        super().__init__(pieces, status_code, headers, media_type)
        self._pieces = pieces

    async def stream_response(self, send: Send) -> None:
        """Send the answer."""
        async with aclosing(self._pieces):
            await super().stream_response(send)


async def in_threads(pieces: Generator[T]) -> AsyncGenerator[T]:
    """Yield from a generator that waits, each piece in a thread, and close it there at the end.

    Parameters
    ----------
    pieces : generator
        The generator. Close the result, as by `contextlib.aclosing`, where it may be left early.

    Examples
    --------
    >>> async def collect():
    ...     async with aclosing(in_threads(piece for piece in b"ab")) as pieces:
    ...         return [piece async for piece in pieces]
    >>> anyio.run(collect)
    [97, 98]
    """
    try:
        async for piece in iterate_in_threadpool(pieces):
            yield piece
    finally:
        with anyio.CancelScope(shield=True):
            await run_in_threadpool(_close, pieces)


def _close(pieces: Generator[object]) -> None:
    # A task that a stopping server cancels does not wait for its thread, which may still be in it.
    while inspect.getgeneratorstate(pieces) == inspect.GEN_RUNNING:
        time.sleep(_LOOK)
    pieces.close()
