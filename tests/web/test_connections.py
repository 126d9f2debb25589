"""Connections: clients that are slow, send too much, or speak other versions of HTTP."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager, suppress

import pytest
from support import HANG, require

require("starlette")
require("uvicorn")
httpx = require("httpx")

from starlette.applications import Starlette  # noqa: E402
from starlette.responses import PlainTextResponse  # noqa: E402
from starlette.routing import Route  # noqa: E402

from dosna.testing.timing import patience  # noqa: E402
from dosna.web import HANDLERS, Access, Limits, Server, protect  # noqa: E402
from dosna.web.connections import BoundedProtocol  # noqa: E402

TOKEN = "a-token-of-the-tests"
LARGE = 64 << 20


@pytest.fixture(scope="module")
def server():
    routes = [
        Route("/large", lambda request: PlainTextResponse(b"x" * LARGE)),
        Route("/{rest:path}", lambda request: PlainTextResponse(request.url.path)),
    ]
    access = Access.of("127.0.0.1", TOKEN)
    app = Starlette(routes=routes, exception_handlers=HANDLERS)
    with Server(protect(app, access, Limits()), access) as server:
        yield server


@contextmanager
def connected(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=HANG) as sock:
        yield sock


def request(path, more="", version="1.1", method="GET"):
    head = (
        f"{method} {path} HTTP/{version}\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
    )
    return f"{head}{more}\r\n".encode()


def until_closed(sock):
    found = b""
    try:
        while data := sock.recv(1 << 20):
            found += data
    except ConnectionResetError:
        pass
    return found


def flood(sock):
    """Send without an end, until the server closes the connection."""
    with suppress(OSError):
        for _ in range(200):
            sock.sendall(b"a" * (1 << 16))
            time.sleep(0.005)
        pytest.fail("the server takes all that is sent")


@pytest.mark.parametrize(
    "begin",
    [
        b"GET /",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ",
        request("/x")[:-2] + b"Y: ",
        request("/x", "Transfer-Encoding: chunked\r\n") + b"0\r\nX: ",
        request("/x", "Content-Length: 1000000000\r\n"),
    ],
)
def test_a_request_without_an_end_is_not_taken(server, begin):
    with connected(server) as sock:
        sock.sendall(begin)
        flood(sock)


def test_a_request_that_is_too_long_is_told_so(server):
    with connected(server) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n")
        for _ in range(9):
            sock.sendall(b"X: " + b"a" * 8000 + b"\r\n")
            time.sleep(0.01)
        assert b" 431 " in until_closed(sock)
    with connected(server) as sock:
        sock.sendall(request("/x", "X: " + "a" * 8000 + "\r\nConnection: close\r\n"))
        assert b" 200 " in until_closed(sock)


@pytest.mark.parametrize("sent", [b"", b"GET / HT", request("/x", "Content-Length: 5\r\n")])
def test_a_client_that_says_nothing_more_is_let_go(server, sent, monkeypatch):
    monkeypatch.setattr(BoundedProtocol, "request_seconds", patience(0.5))
    with connected(server) as sock:
        sock.sendall(sent)
        found = until_closed(sock)
    assert found.startswith(b"HTTP/1.1 200") == (b"Length" in sent)


def test_a_client_that_takes_nothing_is_let_go(server, monkeypatch):
    monkeypatch.setattr(BoundedProtocol, "stalled_seconds", 0.2)
    gone = threading.Event()
    lost = BoundedProtocol.connection_lost
    monkeypatch.setattr(
        BoundedProtocol, "connection_lost", lambda self, exc: (lost(self, exc), gone.set())
    )
    with connected(server) as sock:
        sock.sendall(request("/large"))
        assert gone.wait(HANG)
        assert len(until_closed(sock)) < LARGE


def test_a_client_that_is_slow_gets_all(server, monkeypatch):
    monkeypatch.setattr(BoundedProtocol, "stalled_seconds", patience(1.0))
    with connected(server) as sock:
        sock.sendall(request("/large", "Connection: close\r\n"))
        count = 0
        while data := sock.recv(1 << 20):
            count += len(data)
            if count < 8 << 20:
                time.sleep(0.02)
    assert count > LARGE


def test_requests_one_after_the_other_are_answered_in_order(server):
    with connected(server) as sock:
        sock.sendall(
            request("/a") + request("/b", "Content-Length: 2\r\n") + b"hi" + request("/c")
        )
        sock.sendall(request("/d", "Connection: close\r\n"))
        found = until_closed(sock)
    assert [found.find(b"\r\n\r\n/" + one) > 0 for one in (b"a", b"b", b"c", b"d")] == [True] * 4
    assert found.count(b"HTTP/1.1 200") == 4


def test_version_1_0_gets_an_answer_and_the_end(server):
    for more in ("", "Connection: keep-alive\r\n"):
        with connected(server) as sock:
            sock.sendall(request("/old", more, "1.0"))
            found = until_closed(sock)
        assert found.endswith(b"\r\n\r\n/old")
        assert b"connection: close" in found
        assert b"content-length: 4" in found


@pytest.mark.parametrize(
    "sent",
    [
        *(b"\x16\x03\x01\x00\xa5\x01\x00\x00", b"hello\r\n\r\n", b"GET  HTTP/1.1\r\n\r\n"),
        *(b"GET / HTTP/9.9\r\n\r\n", b"GET x HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"CONNECT evil.example:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    ],
)
def test_what_is_no_request_of_ours_is_refused(server, sent):
    with connected(server) as sock:
        sock.sendall(sent)
        sock.shutdown(socket.SHUT_WR)
        found = until_closed(sock)
    assert found == b"" or found.split()[1] in (b"400", b"401", b"405")
    with connected(server) as sock:  # and the server goes on
        sock.sendall(request("/x", "Connection: close\r\n"))
        assert until_closed(sock).endswith(b"/x")


def test_an_address_that_ends_with_the_token_leads_to_the_page(server):
    answer = httpx.get(f"{server.root}/@{TOKEN}")
    assert (answer.status_code, answer.headers["Location"]) == (307, f"@{TOKEN}/")
    assert httpx.get(f"{server.root}/@{TOKEN}", follow_redirects=True).status_code == 200


def test_other_addresses_of_loopback_are_served(server):
    access = Access.of("127.0.0.2", TOKEN)
    app = Starlette(routes=[Route("/", lambda request: PlainTextResponse("yes"))])
    with Server(protect(app, access), access) as other:
        assert httpx.get(other.root, headers=other.headers).text == "yes"
        bad = httpx.get(other.root, headers={**other.headers, "Host": "evil.example"})
        assert bad.status_code == 400
