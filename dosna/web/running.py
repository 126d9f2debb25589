"""Run an application on a port, until Ctrl-C or in a thread."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from contextlib import suppress
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from dosna.errors import ConfigurationError, ConnectionError
from dosna.web.access import Access, in_address, is_loopback
from dosna.web.connections import BoundedProtocol

__all__ = ["Server"]

_GRACE = 0.5
"""Seconds that answers under way have when the server ends."""
_LAST = 0.1
"""Seconds that they have after they were cancelled."""


class _Uvicorn(uvicorn.Server):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Uvicorn counts in whole seconds, and would log everything that it cancels.
        self.config.timeout_graceful_shutdown = _GRACE  # type: ignore[assignment]
        await super().shutdown(sockets)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


class Server:
    """A server whose port is bound when it is created. It answers while it runs.

    Parameters
    ----------
    app : ASGI application
        The application, from `dosna.web.protect` with the same `access`.
    access : Access
        The rules for access, with the interface to listen on.
    port : int
        The port; 0 for a free one.

    Attributes
    ----------
    port : int
        The port.
    root : str
        The address of the server, without the token.

    Raises
    ------
    ConnectionError
        The port cannot be bound.
    """

    def __init__(self, app: ASGIApp, access: Access, port: int = 0) -> None:
        self.access = access
        if not 0 <= port < 1 << 16:
            raise ConfigurationError(f"{port} is not a port: use 1 to 65535, or 0 for a free one")
        family = socket.AF_INET6 if ":" in access.host else socket.AF_INET
        # asyncio sets TCP_NODELAY only if the protocol is given; small answers would take 40 ms.
        self._socket = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((access.host, port))
            self._socket.listen(256)
        except OSError as error:
            self._socket.close()
            raise ConnectionError(
                f"port {port} of {access.host} cannot be opened: {error.strerror or error}. "
                "Use another port, or 0 for a free one"
            ) from None
        self.port: int = self._socket.getsockname()[1]
        self.root = f"http://{in_address(access.host)}:{self.port}"
        self._uvicorn = _Uvicorn(
            uvicorn.Config(
                app,
                # The log of requests would contain the token.
                access_log=False,
                log_config=None,
                log_level=logging.CRITICAL,
                server_header=False,
                date_header=False,
                http=BoundedProtocol,
                ws="none",
                proxy_headers=False,
                timeout_keep_alive=30,
            )
        )
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<Server at {self.root}>"

    @property
    def url(self) -> str:
        """The address for a browser, which contains the token."""
        token = self.access.token
        return self.root + ("/" if token is None else f"/?token={token}")

    @property
    def headers(self) -> dict[str, str]:
        """The headers that a client has to send."""
        token = self.access.token
        return {} if token is None else {"Authorization": f"Bearer {token}"}

    @property
    def open_to(self) -> str:
        """A line about who can reach the server, to be printed when it starts."""
        if is_loopback(self.access.host):
            return f"{self.root} is open to programs on this machine"
        return (
            f"{self.root} is open to the network, by HTTP without encryption: anybody who has "
            "the token can read everything below the URL that is served"
        )

    def run(self) -> None:
        """Answer requests until Ctrl-C or SIGTERM, or until `stop` is called by another thread."""
        try:
            # After Ctrl-C, uvicorn has shut down in order and raises the signal again.
            with suppress(KeyboardInterrupt):
                self._serve()
        finally:
            self._socket.close()

    def _serve(self) -> None:
        """Answer requests, and leave those whose threads do not end, as of stores that hang."""
        loop = _new_loop()
        left: set[asyncio.Task[Any]] = set()
        try:
            try:
                loop.run_until_complete(self._uvicorn.serve([self._socket]))
            finally:
                ending = asyncio.all_tasks(loop)
                for task in ending:
                    task.cancel()
                if ending:
                    waiting = asyncio.wait(ending, timeout=_LAST)
                    _, left = loop.run_until_complete(waiting)
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            if left:
                loop.set_exception_handler(lambda loop, context: None)
            loop.close()

    def stop(self) -> None:
        """End the server within a second, whatever it is doing."""
        self._uvicorn.should_exit = True
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._socket.close()

    def start(self) -> Server:
        """Answer requests in a thread until `stop` is called; return this server."""
        self._thread = threading.Thread(target=self.run, name="dosna-server", daemon=True)
        self._thread.start()
        return self

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *exc: Any) -> None:
        self.stop()
