"""The results of a request as one Arrow stream: record batches of files as they are completed.

Only one file is on the disk at a time, and one of its messages in memory. An incomplete stream has
no end mark: the connection is closed, so that no client takes it for all of the results.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import aclosing, contextmanager

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.types import Message, Send

from dosna.delivery.front.context import Front, FrontOf, User
from dosna.delivery.running.streams import stream_of
from dosna.delivery.state.requests import Row
from dosna.delivery.state.tables import ENDED, SUCCESS
from dosna.delivery.transform.streaming import END, STREAMED, messages
from dosna.errors import DosnaError
from dosna.web import Streamed, in_threads

__all__ = ["router"]

router = APIRouter(prefix="/servicex/transformation", tags=["transformations"])

logger = logging.getLogger("dosna.delivery")

_KIND = "application/vnd.apache.arrow.stream"
_PAUSE = 0.3
_AT_A_TIME, _IN_ALL = 4, 32
"""The most streams at a time, for a user and in all: each holds a file."""
_STALLED = 60.0
"""The seconds for which a client may read nothing of what there is."""
_ROWS = 100


@router.get("/{id}/stream", response_class=Streamed)
async def stream(
    id: str, request: Request, front: FrontOf, user: User, partial: bool = False
) -> Streamed:
    """Return the results as an Arrow stream, while they are being made.

    With `partial`, the stream ends normally even if files have failed.
    """
    row = await run_in_threadpool(front.request_of, id, user)
    if row.format not in STREAMED:
        raise HTTPException(
            400,
            f"the request has results in {row.format}, of which there is no stream: ask for one "
            f"of {', '.join(STREAMED)}",
        )
    if row.destination:
        raise HTTPException(400, f"the results go to {row.destination}: read them there")
    streams = _streams_of(request)
    if streams[user] >= _AT_A_TIME or sum(streams.values()) >= _IN_ALL:
        raise HTTPException(429, f"{streams[user]} of your streams are read: try again later")
    return _Patient(_stream(row, front, streams, partial), media_type=_KIND)


class _Patient(Streamed):
    """An answer that breaks if its client does not read for long."""

    async def stream_response(self, send: Send) -> None:
        async def timely(message: Message) -> None:
            await asyncio.wait_for(send(message), _STALLED)

        await super().stream_response(timely)


def _streams_of(request: Request) -> Counter[str]:
    """Return how many streams are read of each user."""
    state = request.app.state
    if not hasattr(state, "streams"):
        state.streams = Counter()
    found: Counter[str] = state.streams
    return found


@contextmanager
def _counted(streams: Counter[str], user: str) -> Iterator[None]:
    streams[user] += 1
    try:
        yield
    finally:
        streams[user] -= 1


async def _stream(
    row: Row, front: Front, streams: Counter[str], partial: bool
) -> AsyncGenerator[bytes]:
    files, since, first = front.service.state.files, 0, None
    with _counted(streams, row.owner):
        while True:
            # This is read before the files, so that none is missed.
            now = await run_in_threadpool(front.service.find, row.id, row.owner)
            found = await run_in_threadpool(files.results, row.id, since, SUCCESS, _ROWS)
            for one in found:
                since = one.created + 1
                async with aclosing(in_threads(_of_file(one, row, front))) as pieces:
                    async for is_schema, message in pieces:
                        if not is_schema:
                            yield message
                        elif first is None:
                            first = message
                            yield message
                        elif message != first:
                            raise _broken(row, f"{one.path} has other columns than files before")
            if now is None or now.status not in ENDED:
                if now is None:
                    raise _broken(row, "it was deleted")
                await asyncio.sleep(0 if found else _PAUSE)
            elif not found:
                break
        if now.status != "Complete" or (now.failed and not partial):
            raise _broken(row, f"it is {now.status}, and {now.failed} files have failed")
        if first is not None:
            yield END


def _broken(row: Row, why: str) -> DosnaError:
    logger.warning("the stream of request %s ends early: %s", row.id, why)
    return DosnaError(f"the stream of request {row.id} is incomplete: {why}")


def _of_file(one: Row, row: Row, front: Front) -> Generator[tuple[bool, bytes]]:
    """Yield the messages of a result."""
    service = front.service
    with stream_of(row, one.object, one.nbytes, service.place, service.settings) as path:
        yield from messages(path)
