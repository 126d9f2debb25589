"""A proxy before a server that waits before it hands each request on, and costs little itself.

The bodies of requests and answers pass through the kernel only (`os.splice`), so that 16 requests
of 1 MiB are not bound by the processor time of the proxy, as with that of the tests.
"""

from __future__ import annotations

import multiprocessing
import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

_LINE, _HEAD = b"\r\n", b"\r\n\r\n"


@contextmanager
def late(url: str, seconds: float) -> Iterator[str]:
    """Yield the address of a proxy, in a process of its own, that hands each request on late."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(url, seconds, theirs), daemon=True
    )
    process.start()
    theirs.close()
    try:
        yield ours.recv()
    finally:
        process.kill()
        process.join()


def _serve(url: str, seconds: float, tell: Any) -> None:
    place = urlsplit(url)
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    tell.send(f"http://127.0.0.1:{listener.getsockname()[1]}")
    while True:
        client, _ = listener.accept()
        arguments = client, (place.hostname, place.port), seconds
        threading.Thread(target=_relay, args=arguments, daemon=True).start()


def _relay(client: socket.socket, place: tuple[str, int], seconds: float) -> None:
    """Serve the requests of one connection."""
    with client, socket.create_connection(place) as server, suppress(OSError):
        pipe = os.pipe()
        try:
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # A server may close a connection that is not used, as its client then does.
            while client in select.select([client, server], [], [])[0]:
                if not (head := _until(client, _HEAD)):
                    return
                time.sleep(seconds)
                lines = head[: -len(_HEAD)].split(_LINE)
                if any(line.lower().startswith(b"expect:") for line in lines):
                    client.sendall(b"HTTP/1.1 100 Continue" + _HEAD)
                    lines = [line for line in lines if not line.lower().startswith(b"expect:")]
                server.sendall(_LINE.join(lines) + _HEAD)
                _body(head, client, server, pipe)
                if not (answer := _until(server, _HEAD)):
                    return
                client.sendall(answer)
                if not head.startswith(b"HEAD "):
                    _body(answer, server, client, pipe)
        finally:
            for fd in pipe:
                os.close(fd)


def _until(sock: socket.socket, end: bytes) -> bytes:
    """Take the bytes up to an end from a socket; none if it was closed."""
    seen = -1
    while True:
        data = sock.recv(1 << 16, socket.MSG_PEEK)
        if not data:
            return b""
        at = data.find(end)
        if at >= 0:
            return sock.recv(at + len(end))
        if len(data) == seen:
            time.sleep(0.0005)
        seen = len(data)


def _body(head: bytes, source: socket.socket, sink: socket.socket, pipe: tuple[int, int]) -> None:
    """Hand on the body that follows a head."""
    headers = dict(line.lower().split(b":", 1) for line in head.split(_LINE)[1:] if b":" in line)
    if b"chunked" not in headers.get(b"transfer-encoding", b""):
        _hand_on(source, sink, pipe, int(headers.get(b"content-length", 0)))
        return
    while True:
        line = _until(source, _LINE)
        sink.sendall(line)
        size = int(line.split(b";")[0], 16)
        _hand_on(source, sink, pipe, size + len(_LINE))
        if not size:
            return


def _hand_on(
    source: socket.socket, sink: socket.socket, pipe: tuple[int, int], count: int
) -> None:
    while count:
        taken = os.splice(source.fileno(), pipe[1], min(count, 1 << 16))
        if not taken:
            raise OSError("the connection was closed within a body")
        count -= taken
        while taken:
            taken -= os.splice(pipe[0], sink.fileno(), taken)
