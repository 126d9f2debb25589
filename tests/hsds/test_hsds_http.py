"""Requests to a server that answers, breaks off, or is silent, as a test says."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from urllib.parse import quote

import pytest
from services.tls import start_tls
from support import HANG, require, wait_until

from dosna import errors
from dosna.testing.timing import within

require("httpx")
require("h5pyd")

from dosna.hsds import Failure, HsdsClient, HsdsOptions  # noqa: E402
from dosna.hsds.domain import new_domain  # noqa: E402


def answer(body, status="200 OK", length=None):
    size = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Length: {size}\r\n\r\n".encode() + body


BUSY = answer(b"", "503 Busy")


class Server:
    """A server that counts connections, and notes the first line of requests."""

    def __init__(self, path=None):
        if path is None:
            self.socket = socket.create_server(("127.0.0.1", 0))
            self.endpoint = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        else:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.bind(str(path))
            self.socket.listen(16)
            self.endpoint = f"http+unix://{quote(str(path), '')}"
        self.connections, self.requests = 0, []
        # The next answers; afterwards it answers as an HSDS server does. b"" closes a connection
        # without an answer, and None does not answer at all.
        self.answers = []
        self.open, self.threads = [], []
        self.closed = threading.Event()
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        with suppress(OSError):
            while True:
                made, _ = self.socket.accept()
                self.connections += 1
                self.open.append(made)
                self.threads.append(threading.Thread(target=self.serve, args=(made,)))
                self.threads[-1].start()

    def serve(self, made):
        with suppress(OSError), made, made.makefile("rb") as lines:
            while first := lines.readline():
                self.requests.append(first.decode().split(" HTTP/")[0])
                headers = list(iter(lines.readline, b"\r\n"))
                for line in headers:
                    if line.lower().startswith(b"content-length:"):
                        lines.read(int(line.split(b":")[1]))
                found = self.answers.pop(0) if self.answers else answer(b'{"root": "g-1"}')
                if found is None:
                    self.closed.wait(HANG)
                    return
                made.sendall(found)
                size = found.partition(b"Content-Length: ")[2].partition(b"\r\n")[0]
                if not found or int(size) > len(found.partition(b"\r\n\r\n")[2]):
                    return

    def close(self):
        self.closed.set()
        for made in [self.socket, *self.open]:
            with suppress(OSError):
                made.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        for thread in self.threads:
            thread.join()


@pytest.fixture(autouse=True)
def _no_configuration(monkeypatch):
    # h5pyd reads ~/.hscfg and the environment once, which tests of real servers rely on.
    monkeypatch.setattr("h5pyd.config.Config._cfg", {"hs_endpoint": ""})


@pytest.fixture
def server(tmp_path):
    found = Server(tmp_path / "s")
    yield found
    found.close()


@pytest.fixture
def client(server):
    found = HsdsClient(HsdsOptions(server.endpoint, "me", "secret", timeout=60, retries=2))
    yield found
    found.close()


def test_one_connection_serves_many_requests(server, client):
    for _ in range(3):
        client.get("/", "/shared/x.h5")
        client.post("/groups", "/shared/x.h5", {})
    try:
        raise ValueError("of the caller")
    except ValueError:
        # A request that succeeds keeps its connection, whatever its caller handles.
        client.get("/", "/shared/x.h5")
        client.post("/groups", "/shared/x.h5", {})
    assert server.connections == 1
    assert server.requests[0] == "GET /?domain=%2Fshared%2Fx.h5"


def test_threads_have_connections_at_the_same_time(server, client):
    barrier = threading.Barrier(8)

    def ask():
        barrier.wait(HANG)
        for _ in range(5):
            assert client.get("/", "/x") == {"root": "g-1"}

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 40
    assert server.connections <= 8


@pytest.mark.parametrize("broken", [b"", answer(b"half", length=9)], ids=["closed", "cut"])
def test_a_broken_connection_is_tried_again_unless_things_could_be_made_twice(
    server, client, broken
):
    client.get("/", "/x")
    for ask in (client.get, client.put, client.delete):
        server.answers = [broken]
        ask("/", "/x")
    before = len(server.requests)
    server.answers = [broken]
    with pytest.raises(Failure) as caught:
        client.post("/groups", "/x", {})
    assert caught.value.may_be_done
    assert isinstance(client.error(caught.value, "it"), ConnectionError)
    assert len(server.requests) == before + 1


def test_a_server_that_is_busy_is_asked_again(server, client):
    server.answers = [BUSY, BUSY]
    assert client.post("/groups", "/x", {}) == {"root": "g-1"}
    server.answers = [BUSY] * 3
    with pytest.raises(Failure, match="HTTP 503 Busy"):
        client.get("/", "/x")
    server.answers = [answer(b"", "404 Not Found")]
    with pytest.raises(Failure) as caught:
        client.get("/", "/x")
    assert caught.value.absent
    client.delete("/", "/x")


def test_a_pause_that_the_server_asks_for_is_no_failure(server, client):
    server.answers = [answer(b"", "503 Busy\r\nRetry-After: 0")] * 5
    assert client.post("/groups", "/x", {}) == {"root": "g-1"}
    begin = time.monotonic()
    server.answers = [answer(b"", "429 Too Many\r\nRetry-After: 1")]
    client.get("/", "/x")
    assert time.monotonic() - begin >= 1


def test_a_connection_that_the_server_closed_is_not_used_again(server, client):
    client.get("/", "/x")
    server.open[0].shutdown(socket.SHUT_RDWR)
    client.post("/groups", "/x", {})
    assert server.connections == 2


def test_silence_ends_in_time(server):
    client = HsdsClient(HsdsOptions(server.endpoint, timeout=0.2, retries=1))
    server.answers = [None, None]
    with within(10), pytest.raises(Failure, match="no answer in time") as caught:
        client.get("/", "/x")
    assert isinstance(client.error(caught.value, "it"), errors.StoreTimeoutError)
    wait_until(lambda: len(server.requests) == 2)
    client.close()


def test_nobody_answers(tmp_path):
    endpoints = [f"http+unix://{quote(str(tmp_path / 'none'), '')}", "http://localhost:1"]
    for endpoint in endpoints:
        client = HsdsClient(HsdsOptions(endpoint, retries=1))
        with pytest.raises(Failure, match="cannot be reached") as caught:
            client.post("/groups", "/x", {})
        assert not caught.value.may_be_done
        assert isinstance(client.error(caught.value, "it"), ConnectionError)
        client.close()


@pytest.mark.parametrize("endpoint", ["hsds.example.org", "http://x:port", "ftp://x"])
def test_an_endpoint_that_is_no_url_is_a_wrong_configuration(endpoint):
    client = HsdsClient(HsdsOptions(endpoint, "me", "secret"))
    with pytest.raises((Failure, errors.ConfigurationError)) as caught:
        client.get("/", "/x")
    found = caught.value
    error = client.error(found, "it") if isinstance(found, Failure) else found
    assert isinstance(error, errors.ConfigurationError)
    assert "secret" not in str(error)


@pytest.mark.parametrize(("lost", "error"), [(b"", errors.OutcomeUnknown), (BUSY, OSError)])
def test_a_domain_whose_last_answer_is_lost_may_have_appeared(server, client, lost, error):
    missing, done = answer(b"", "404 Not Found"), answer(b'{"root": "g-1"}')
    # It is free, and nothing is left of an earlier call; it is made and flushed, and still free.
    server.answers = [missing, missing, done, done, missing, missing, *[lost] * 3, missing]
    with pytest.raises(error) as caught, new_domain(client, "/shared/x.h5", False, "token"):
        pass
    assert isinstance(caught.value, errors.OutcomeUnknown) == (lost == b"")
    assert not server.answers


def test_errors_do_not_hold_what_was_sent(server, client):
    server.answers = [answer(b"", "401 No")]
    with pytest.raises(Failure) as caught:
        client.get("/", "/x")
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_a_unix_socket_has_no_proxy(server, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://localhost:1")
    client = HsdsClient(HsdsOptions(server.endpoint, retries=0))
    client.get("/", "/x")
    client.close()
    client = HsdsClient(HsdsOptions("http://hsds.example.org", retries=0))
    with pytest.raises(Failure, match="cannot be reached"):
        client.get("/", "/x")
    client.close()


def test_certificates_are_verified(tmp_path, monkeypatch):
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "H5PYD_VERIFY_CERT"):
        monkeypatch.delenv(name, raising=False)
    server = Server()

    def ask():
        client = HsdsClient(HsdsOptions(endpoint, "me", "secret", retries=0))
        try:
            return client.get("/", "/x")
        except Failure as failure:
            raise client.error(failure, "it") from None
        finally:
            client.close()

    with start_tls(server.endpoint, tmp_path) as (endpoint, authority):
        with pytest.raises(ConnectionError, match="REQUESTS_CA_BUNDLE"):
            ask()
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "missing.pem"))
        with pytest.raises(errors.ConfigurationError, match="certificates"):
            ask()
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority))
        assert ask() == {"root": "g-1"}
        monkeypatch.delenv("REQUESTS_CA_BUNDLE")
        monkeypatch.setenv("H5PYD_VERIFY_CERT", "False")
        assert ask() == {"root": "g-1"}
    server.close()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_has_its_own_connections(server, client):
    client.get("/", "/x")
    child = os.fork()
    if not child:
        code = 1
        with suppress(BaseException):
            client.get("/", "/x")
            client.close()
            code = 0
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert server.connections == 2
    # The child has closed its own connection, and left this one open.
    client.post("/groups", "/x", {})
    assert server.connections == 2


def test_close_ends_the_connections(server, client):
    client.get("/", "/x")
    client.close()
    (thread,) = server.threads
    thread.join(HANG)
    assert not thread.is_alive()
