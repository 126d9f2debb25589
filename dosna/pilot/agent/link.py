"""The agent's connection to the manager: lines of JSON over TLS, reopened after each loss."""

from __future__ import annotations

import json
import os
import select
import socket
import ssl
import time
from typing import Any

__all__ = ["Link", "LinkLostError"]

_SECONDS = 30
_LONGEST = 64 << 20


class LinkLostError(Exception):
    """Raised if the connection is lost."""


class Link:
    """A connection to a manager whose certificate is the one that came with the pilot.

    Parameters
    ----------
    folder : str
        The folder of the pilot, with ``agent.json`` (``certificate``, ``token``) and
        ``manager.json``, the addresses, which a manager rewrites when it is started again.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._socket: ssl.SSLSocket | None = None
        self._received = b""
        self._sent = 0.0

    def fileno(self) -> int:
        return self._socket.fileno() if self._socket else -1

    @property
    def is_open(self) -> bool:
        return self._socket is not None

    def open(self, hello: dict[str, Any]) -> None:
        """Connect to the first address that answers, and identify this agent."""
        with open(os.path.join(self._folder, "agent.json")) as file:
            own = json.load(file)
        with open(os.path.join(self._folder, "manager.json")) as file:
            addresses = json.load(file)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # The certificate itself is trusted, on whatever host it is found.
        context.check_hostname = False
        context.load_verify_locations(cadata=own["certificate"])
        cause: Exception = LinkLostError("no address of the manager is known")
        for host, port in addresses:
            try:
                plain = socket.create_connection((host, port), timeout=5)
            except OSError as error:
                cause = error
                continue
            try:
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SECONDS * 1000)
                plain.settimeout(10)
                self._socket = context.wrap_socket(plain)
                self._socket.setblocking(False)
                self._received = b""
                self.send({**hello, "token": own["token"]})
                return
            except (OSError, LinkLostError) as error:
                cause = error
                plain.close()
                self.close()
        raise LinkLostError(str(cause))

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def send(self, *messages: dict[str, Any]) -> None:
        """Send messages together, or lose the connection."""
        if self._socket is None:
            raise LinkLostError("there is no connection")
        lines = [json.dumps(message).encode() + b"\n" for message in messages]
        left = memoryview(b"".join(lines))
        end = time.monotonic() + _SECONDS
        while left:
            try:
                left = left[self._socket.send(left) :]
            except ssl.SSLWantWriteError:
                self._await(end, for_writing=True)
            except ssl.SSLWantReadError:
                self._await(end, for_writing=False)
            except OSError as error:
                self._lose(str(error))
        self._sent = time.monotonic()

    def _await(self, end: float, for_writing: bool) -> None:
        # Not select, which knows no file of a number above 1023.
        poll = select.poll()
        poll.register(self.fileno(), select.POLLOUT if for_writing else select.POLLIN)
        if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
            self._lose("the manager does not read")

    def receive(self) -> list[dict[str, Any]]:
        """Return the messages that have arrived; call this when the connection is readable."""
        while self._socket is not None:
            try:
                got = self._socket.recv(1 << 18)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                break
            except OSError as error:
                self._lose(str(error))
            if not got:
                self._lose("the manager has closed it")
            self._received += got
            if len(self._received) > _LONGEST:
                self._lose("a message is too long")
        *lines, self._received = self._received.split(b"\n")
        return [json.loads(line) for line in lines]

    @property
    def quiet_seconds(self) -> float:
        """The seconds since something was last sent."""
        return time.monotonic() - self._sent

    def _lose(self, why: str) -> None:
        self.close()
        raise LinkLostError(why)
