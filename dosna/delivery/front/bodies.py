"""A limit for the bodies of requests, which are held in memory."""

from __future__ import annotations

from contextlib import suppress

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["LimitedBodies"]


_LARGE = ("/servicex/transformation",)
"""The paths whose bodies may be large."""
_SMALL = 64 << 10


class _TooLong(Exception):
    pass


class LimitedBodies:
    """An application that refuses bodies above a limit with 413.

    Parameters
    ----------
    app : ASGI application
        The application.
    nbytes : int
        The limit.
    """

    def __init__(self, app: ASGIApp, nbytes: int) -> None:
        self._app, self._nbytes = app, nbytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        most = left = self._nbytes if scope.get("path") in _LARGE else min(self._nbytes, _SMALL)

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise _TooLong
            return message

        async def passed(message: Message) -> None:
            # The application takes it for a body that cannot be read.
            if left >= 0:
                await send(message)

        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        with suppress(_TooLong):
            await self._app(scope, counted, passed)
        if left < 0:
            text = f"the request is larger than {most} bytes: ask for fewer files"
            await JSONResponse({"message": text}, 413)(scope, receive, send)
