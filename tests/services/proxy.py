"""An HTTP proxy on loopback that counts requests, and breaks what it is told to break."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO, NamedTuple, Self
from urllib.parse import urlsplit

Fault = str | int | float | bytes | threading.Event | None


class Request(NamedTuple):
    """A request as it came; `headers` have names in small letters."""

    method: str
    path: str
    headers: dict[str, str]


class Throttle:
    """A fault for `Proxy`: requests above a rate are answered by 503 SlowDown.

    Parameters
    ----------
    rate : float
        The requests a second that are handed on.
    burst : float
        The most requests that are handed on at once, after a time without any; by default those of
        a tenth of a second.
    pause : str
        The value of ``Retry-After`` in the answers; empty for none.
    """

    def __init__(self, rate: float, burst: float = 0.0, pause: str = "") -> None:
        self.rate, self.burst = rate, burst or max(1.0, rate / 10)
        self._head = f"Retry-After: {pause}\r\n" if pause else ""
        self._lock = threading.Lock()
        self._tokens, self._filled = self.burst, time.monotonic()
        self.taken: list[float] = []
        self.refused: list[float] = []

    def __call__(self, request: Request) -> bytes | None:
        with self._lock:
            now = time.monotonic()
            self._tokens = min(self.burst, self._tokens + (now - self._filled) * self.rate)
            self._filled = now
            if self._tokens >= 1:
                self._tokens -= 1
                self.taken.append(now)
                return None
            self.refused.append(now)
        return slow_down(request, self._head)


def slow_down(request: Request, headers: str = "") -> bytes:
    """Return the answer of S3 to a request that is one too many."""
    body = "" if request.method == "HEAD" else "<Error><Code>SlowDown</Code></Error>"
    return (
        f"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\n{headers}"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


class Proxy:
    """Hands requests on to a server and its answers back.

    ``fault`` is called with each request, and gives None or what is to go wrong:

    - 'refuse': the connection is closed and nothing was handed on;
    - 'lose': the request is done, and the connection closed without an answer;
    - 'cut': the request is done, and half of the answer's body comes back;
    - 'shorten': the same, and the length in the answer is that of the half;
    - 'stall': nothing is handed on, and no answer ever comes;
    - 'ignore': conditions are taken out of the request;
    - a float: seconds to wait before it is handed on;
    - an event: it is waited for before the request is handed on;
    - an int: nothing is handed on, and this status is the answer;
    - bytes: nothing is handed on, and they are the answer.

    Parameters
    ----------
    url : str
        Of the server.
    fault : callable, optional
    """

    def __init__(self, url: str, fault: Callable[[Request], Fault] | None = None) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._server = (parts.hostname, parts.port)
        self.fault = fault
        self.requests: list[Request] = []
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        for sock in (self._listener, *self._open):
            with_shutdown(sock)

    def reset(self) -> None:
        """Forget the requests and do as the server does."""
        self.requests.clear()
        self.fault = None

    @property
    def counts(self) -> Counter[str]:
        """How many requests of each method came."""
        return Counter(request.method for request in self.requests)

    @property
    def busy(self) -> bool:
        """True while a client is connected."""
        return bool(self._open)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        server = None
        self._open.add(client)
        try:
            server = socket.create_connection(self._server)
            for sock in (client, server):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with client.makefile("rb") as asks, server.makefile("rb") as answers:
                while is_asked(client, server) and self._exchange(client, asks, server, answers):
                    pass
        except (OSError, ValueError):
            pass  # ValueError: it was cut off in the midst of a line, or has just been closed
        finally:
            self._open.discard(client)
            for sock in (client, server):
                if sock is not None:
                    with_shutdown(sock)

    def _exchange(
        self, client: socket.socket, asks: BinaryIO, server: socket.socket, answers: BinaryIO
    ) -> bool:
        """Serve one request; False if there is none, or the connection shall end."""
        head, headers = read_head(asks)
        if not head:
            return False
        method, path, _ = head.decode("latin-1").split(" ", 2)
        request = Request(method, path, headers)
        self.requests.append(request)
        fault = self.fault(request) if self.fault is not None else None
        body = b""
        if headers.get("expect") == "100-continue":
            client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            del headers["expect"]
        body = read_body(asks, headers)
        if fault == "refuse":
            return False
        if fault == "stall":
            asks.read(1)  # Until the client gives up.
            return False
        if type(fault) is int:
            client.sendall(f"HTTP/1.1 {fault} Told\r\nContent-Length: 0\r\n\r\n".encode())
            return True
        if isinstance(fault, bytes):
            client.sendall(fault)
            return True
        if fault == "ignore":
            headers = {k: v for k, v in headers.items() if k not in ("if-match", "if-none-match")}
        if isinstance(fault, float):
            time.sleep(fault)
        if isinstance(fault, threading.Event):
            fault.wait()
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        server.sendall(head + lines.encode("latin-1") + b"\r\n" + body)
        head, headers = read_head(answers)
        body = b"" if method == "HEAD" else read_body(answers, headers)
        if not head or fault == "lose":
            return False
        if fault == "shorten":
            body = body[: len(body) // 2]
            headers["content-length"] = str(len(body))
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        whole = head + lines.encode("latin-1") + b"\r\n" + body
        if fault == "cut":
            client.sendall(whole[: len(whole) - (len(body) + 1) // 2])
            return False
        client.sendall(whole)
        return True


def is_asked(client: socket.socket, server: socket.socket) -> bool:
    """Wait for a request; return False if the server has ended the connection meanwhile.

    Servers end connections that nobody uses for a while. Their clients have to see that, or they
    send another request by one, and it breaks.
    """
    poll = select.poll()
    for sock in (client, server):
        poll.register(sock, select.POLLIN)
    return server.fileno() not in dict(poll.poll())


def read_head(file: BinaryIO) -> tuple[bytes, dict[str, str]]:
    """Read the first line and the headers; the line is empty at the end."""
    first, headers = file.readline(), {}
    while (line := file.readline().decode("latin-1").strip()) != "":
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return first, headers


def read_body(file: BinaryIO, headers: dict[str, str]) -> bytes:
    """Read a body as it stands, with the sizes of its pieces if it comes in pieces."""
    if headers.get("transfer-encoding") != "chunked":
        return file.read(int(headers.get("content-length", 0)))
    body = b""
    while True:
        line = file.readline()
        piece = file.read(int(line, 16) + 2)
        body += line + piece
        if int(line, 16) == 0:
            return body


def with_shutdown(sock: socket.socket) -> None:
    """Close a socket for all threads that wait for it."""
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()
