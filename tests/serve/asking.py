"""Requests of an ASGI application, without a server."""

from __future__ import annotations

import asyncio

from support import require

httpx = require("httpx")


class Asking:
    """A client of an application: ``asking("/meta", path="/x")``."""

    def __init__(self, app):
        self.app = app

    def __call__(self, address, *, method="GET", headers=None, **parameters):
        async def ask():
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.request(method, address, params=parameters, headers=headers)

        found = asyncio.run(ask())
        # A server ends the connection where an answer is longer or shorter than it says.
        length = found.headers.get("content-length")
        if length is not None and method != "HEAD" and "content-encoding" not in found.headers:
            assert int(length) == len(found.content)
        return found
