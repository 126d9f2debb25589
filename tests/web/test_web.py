"""The guard of servers: tokens, hosts, methods, limits, errors, and the end."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest
from support import HANG, require, taking_ctrl_c, wait_until

import dosna as dn
from dosna.core.stopping import current
from dosna.errors import ConfigurationError, StorageError

require("starlette")
require("uvicorn")
httpx = require("httpx")

from starlette.applications import Starlette  # noqa: E402
from starlette.concurrency import run_in_threadpool  # noqa: E402
from starlette.responses import PlainTextResponse, StreamingResponse  # noqa: E402
from starlette.routing import Route  # noqa: E402

from dosna.web import HANDLERS, Access, Limits, Refusal, Server, protect  # noqa: E402

TOKEN = "a-token-of-the-tests"
begun = threading.Event()
stopped: list[str] = []


def plain(request):
    return PlainTextResponse(f"{request.url.path} {request.url.query}")


def large(request):
    return PlainTextResponse("x" * 2000)


def fails(request):
    raise {
        "store": StorageError("bucket secret-bucket does not answer"),
        "other": RuntimeError("key secret-key"),
        "refused": Refusal(416, "the range is empty", "ask for more"),
        "missing": dn.errors.DatasetNotFoundError("none in secret-bucket"),
    }[request.path_params["kind"]]


def breaks(request):
    def body():
        yield b"half"
        raise StorageError("secret-bucket")

    return StreamingResponse(body(), headers={"Content-Length": "8"})


async def slow(request):
    def work():
        begun.set()
        end = time.monotonic() + HANG
        while time.monotonic() < end and not current.get().reason:
            time.sleep(0.01)
        stopped.append(current.get().reason)
        return "late"

    return PlainTextResponse(await run_in_threadpool(work))


ROUTES = [
    Route("/large", large),
    Route("/fails/{kind}", fails),
    Route("/breaks", breaks),
    Route("/slow", slow),
    Route("/{rest:path}", plain),
]


def serve(limits=None, **options):
    access = Access.of("127.0.0.1", TOKEN, **options)
    app = Starlette(routes=ROUTES, exception_handlers=HANDLERS)
    return Server(protect(app, access, limits or Limits(1000, 60)), access)


@pytest.fixture(scope="module")
def server():
    with serve() as server:
        yield server


@pytest.fixture
def client(server):
    with httpx.Client(base_url=server.root, headers=server.headers) as client:
        yield client


def test_a_request_without_the_token_is_refused(server):
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": "dosna-1=x"}):
        answer = httpx.get(server.root + "/x", headers=headers)
        assert answer.status_code == 401
        assert "token" in answer.json()["error"]
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    for path in ("/?token=wrong", "/@wrong/x", "/@/x"):
        assert httpx.get(server.root + path).status_code == 401


def test_a_token_in_the_address_becomes_a_cookie(server):
    with httpx.Client() as browser:
        answer = browser.get(f"{server.root}/a%20b?x=1&token={TOKEN}&y=")
        assert answer.status_code == 303
        assert answer.headers["Location"] == "/a%20b?x=1&y="
        cookie = answer.headers["Set-Cookie"].lower()
        assert cookie.startswith(f"dosna-{server.port}=")
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        answer = browser.get(server.root + answer.headers["Location"])
        assert answer.text == "/a b x=1&y="
        assert TOKEN not in answer.text
        # It does not stay in the address either when the cookie is there.
        answer = browser.get(f"{server.root}/?token={TOKEN}")
        assert (answer.status_code, answer.headers["Location"]) == (303, "/")


def test_cookies_of_other_ports_do_not_hide_that_of_this_one(server):
    name, token = f"dosna-{server.port}", server.access.token
    for others in ("a=b; ;", 'a={"b": [1]};', "a[b]=c;", f"{name}=other;", "é=1;"):
        for cookie in (f"{others} {name}={token}", f"{name}={token}; {others}"):
            answer = httpx.get(server.root, headers={"Cookie": cookie.encode("latin-1")})
            assert answer.status_code == 200, cookie
    for cookie in (f"{name}=", f"dosna-1={token}", f"{name}={token}x", f"x={name}={token}"):
        assert httpx.get(server.root, headers={"Cookie": cookie}).status_code == 401


def test_a_page_of_another_site_that_leads_here_is_answered_by_a_page(server):
    """Browsers send the cookie along a redirection only if no other site began it."""
    headers = {"Sec-Fetch-Site": "cross-site"}
    answer = httpx.get(f"{server.root}/a?x=%22%3E&token={TOKEN}", headers=headers)
    assert answer.status_code == 200
    assert f"dosna-{server.port}=" in answer.headers["Set-Cookie"]
    assert 'content="0;url=/a?x=%22%3E"' in answer.text
    assert TOKEN not in answer.text


def socket_of(file):
    """Give another handle of a socket, and leave none of what is no socket."""
    copy = os.dup(file)
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise


def test_small_answers_are_sent_at_once(server):
    """Without TCP_NODELAY they wait for 40 ms on a connection that is kept."""
    with httpx.Client(headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        assert client.get(server.root + "/x").status_code == 200
        found = []
        for name in os.listdir("/proc/self/fd"):
            with suppress(OSError, IndexError), socket_of(int(name)) as sock:
                if sock.getsockname()[1] == server.port and sock.getpeername():
                    found.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
    assert found
    assert all(found)


def test_the_redirection_stays_on_this_host(server):
    answer = httpx.get(f"{server.root}//other.example/x?token={TOKEN}")
    assert answer.headers["Location"] == "/other.example/x"


def test_a_token_may_be_the_first_part_of_the_path(server):
    assert httpx.get(f"{server.root}/@{TOKEN}/a/b").status_code == 200


def test_the_cookie_lets_nobody_change_anything():
    with serve(methods=["GET", "POST"]) as server:
        cookies = {f"dosna-{server.port}": TOKEN}
        assert httpx.get(server.root, cookies=cookies).status_code == 200
        assert httpx.post(server.root, cookies=cookies).status_code == 401


def test_other_methods_and_hosts_are_refused(client):
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        answer = client.request(method, "/x")
        assert answer.status_code == 405
        assert answer.headers["Allow"] == "GET, HEAD"
    answer = client.get("/x", headers={"Host": "evil.example"})
    assert answer.status_code == 400
    assert client.get("/x", headers={"Host": "localhost:1"}).status_code == 200


def test_every_answer_has_the_headers_of_safety(client):
    for path in ("/x", "/fails/store"):
        headers = client.get(path).headers
        assert "default-src 'self'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "Access-Control-Allow-Origin" not in headers


def test_other_sites_read_only_if_they_are_allowed():
    site = "https://app.example.org"
    with serve(origins=[site]) as server:
        asks = {"Origin": site, "Access-Control-Request-Method": "GET"}
        answer = httpx.options(server.root, headers=asks)
        assert answer.headers["Access-Control-Allow-Origin"] == site
        answer = httpx.get(server.root, headers={**server.headers, "Origin": site})
        assert "ETag" in answer.headers["Access-Control-Expose-Headers"]
        answer = httpx.get(server.root, headers={**server.headers, "Origin": "https://b.example"})
        assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize(
    ("kind", "status"), [("store", 502), ("other", 500), ("refused", 416), ("missing", 404)]
)
def test_errors_are_json_without_secrets(client, kind, status, caplog):
    answer = client.get(f"/fails/{kind}")
    assert answer.status_code == status
    assert answer.json()["error"]
    assert "secret" not in answer.text
    assert "secret" not in caplog.text


def test_an_error_without_handlers_is_json_too():
    async def app(scope, receive, send):
        raise StorageError("secret-bucket")

    access = Access.of(token=TOKEN)
    with Server(protect(app, access), access) as server:
        answer = httpx.get(server.root, headers=server.headers)
        assert answer.status_code == 502
        assert "secret" not in answer.text


def test_an_answer_that_breaks_off_is_seen_as_short(client):
    with pytest.raises(httpx.RemoteProtocolError):
        client.get("/breaks")


def test_answers_are_bounded(client):
    answer = client.get("/large")
    assert answer.status_code == 413
    assert answer.json()["hint"]
    assert client.head("/large").status_code == 200


def test_a_request_that_takes_too_long_is_stopped():
    stopped.clear()
    with serve(Limits(None, 0.1)) as server:
        answer = httpx.get(server.root + "/slow", headers=server.headers)
        assert answer.status_code == 503
        wait_until(lambda: stopped)
    assert "long" in stopped[0]


def test_a_request_whose_client_has_gone_is_stopped(server):
    begun.clear()
    stopped.clear()
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("GET", "/slow", headers=server.headers)
    assert begun.wait(HANG)
    connection.close()
    wait_until(lambda: stopped)
    assert "disconnected" in stopped[0]


def test_the_end_does_not_wait_for_requests_under_way():
    begun.clear()
    stopped.clear()
    before = set(threading.enumerate())
    with serve() as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        connection.request("GET", "/slow", headers=server.headers)
        assert begun.wait(HANG)
    wait_until(lambda: stopped)
    connection.close()
    # Threads of others, as of clusters of Dask, come and go.
    own = ("AnyIO", "dosna-server")
    wait_until(
        lambda: not any(t.name.startswith(own) for t in set(threading.enumerate()) - before)
    )
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.root)


def test_an_open_interface_needs_a_token():
    with pytest.raises(ConfigurationError, match="token"):
        Access.of("0.0.0.0")
    access = Access.of("0.0.0.0", TOKEN)
    server = Server(None, access)
    assert "network" in server.open_to
    server.stop()
    for token in ("short", "with a space in the token", "x" * 300):
        with pytest.raises(ConfigurationError, match="characters"):
            Access.of(token=token)
    with pytest.raises(ConfigurationError, match="origin"):
        Access.of(origins=["example.org/x"])


def test_tokens_are_random_and_not_shown():
    first, second = Access.of(), Access.of()
    assert first.token != second.token
    assert len(first.token) > 40
    assert first.token not in repr(first)
    assert Access.of(guarded=False).token is None


def test_a_port_in_use_is_an_error(server):
    with pytest.raises(dn.errors.ConnectionError, match="port"):
        Server(None, server.access, server.port)
    with pytest.raises(ConfigurationError, match="port"):
        Server(None, server.access, 70000)


SCRIPT = """
from dosna.web import Access, Server, protect
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"yes"})
access = Access.of(token="%s")
server = Server(protect(app, access), access)
print(server.root, flush=True)
server.run()
print("ended")
"""


@pytest.mark.slow
@pytest.mark.slow
def test_ctrl_c_ends_it():
    with (
        taking_ctrl_c(),
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT % TOKEN],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        root = process.stdout.readline().strip()
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with httpx.Client(headers=headers, timeout=HANG) as client:
            wait_until(lambda: client.get(root).text == "yes")
            process.send_signal(2)
            out, err = process.communicate(timeout=HANG)
    assert (process.returncode, out, err) == (0, "ended\n", "")
