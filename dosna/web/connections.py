"""Connections of clients: those of uvicorn, which are closed when nothing moves on them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

__all__ = ["BoundedProtocol", "send_file"]

_FILES = "dosna.files"
"""The extension of ASGI with which a file is sent as the body of an answer."""

_WITHOUT_BODY = (b"GET", b"HEAD")

_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"Content-Length: 0\r\nConnection: close\r\n\r\n"
)


class BoundedProtocol(HttpToolsProtocol):
    """HTTP on one connection.

    Whoever has no token can send nothing but requests, so that these are bounded in bytes and in
    time: their heads, and all of those by GET and HEAD, which have no bodies.
    """

    request_bytes: ClassVar[int] = 64 << 10
    """Bytes of a request, beyond those that arrive together."""

    request_seconds: ClassVar[float] = 30.0
    """Seconds in which a request must arrive."""

    stalled_seconds: ClassVar[float] = 60.0
    """Seconds after which a client that takes none of an answer is given up."""

    _bounded = True
    _count = 0
    _arriving: asyncio.TimerHandle | None = None
    _leaving: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._begin()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._bounded and not self.transport.is_closing():
            self._count += len(data)
            if self._count > self.request_bytes:
                if self.cycle is None or self.cycle.response_complete:
                    self.transport.write(_TOO_LARGE)
                self.transport.close()

    def on_message_begin(self) -> None:
        self._begin()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if self.parser.get_method() not in _WITHOUT_BODY:
            self._end()
        super().on_headers_complete()
        self.scope["extensions"] = {_FILES: _Files(self.cycle)}  # type: ignore[dict-item]

    def on_message_complete(self) -> None:
        self._end()
        super().on_message_complete()

    def _begin(self) -> None:
        self._end()
        self._bounded, self._count = True, 0
        self._arriving = self.loop.call_later(self.request_seconds, self.transport.close)

    def _end(self) -> None:
        self._bounded = False
        if self._arriving is not None:
            self._arriving.cancel()
            self._arriving = None

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None
        super().resume_writing()

    def _watch(self, left: int) -> None:
        self._leaving = self.loop.call_later(self.stalled_seconds, self._look, left)

    def _look(self, before: int) -> None:
        left = self.transport.get_write_buffer_size()
        if left < before:
            self._watch(left)
        else:
            self.transport.abort()


class _Files:
    """The answer to one request, to which the system can copy a file without this process."""

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle

    def send(self, file: int, size: int) -> int:
        """Send the beginning of a file, if nothing waits to be sent; return the bytes of it."""
        cycle = self._cycle
        transport = cycle.transport
        if (
            not cycle.response_started
            or cycle.response_complete
            or cycle.expected_content_length != size
            or transport.is_closing()
            or transport.get_write_buffer_size()
        ):
            return 0
        try:
            sent = os.sendfile(transport.get_extra_info("socket").fileno(), file, 0, size)
        except OSError:  # the way is full, or broken, which is noticed when the rest is sent
            return 0
        cycle.expected_content_length -= sent
        return sent


def send_file(scope: Mapping[str, Any], file: int, size: int) -> int:
    """Send the beginning of a file as the body of an answer, without a copy in this process.

    Parameters
    ----------
    scope : mapping
        The scope of the request. The head of the answer has been sent, with this length.
    file : int
        The descriptor of the file.
    size : int
        The size of the file.

    Returns
    -------
    int
        The number of bytes that were sent; 0 if the server cannot. The others are still to be
        sent as the body.
    """
    files = scope.get("extensions", {}).get(_FILES)
    return files.send(file, size) if files is not None else 0
