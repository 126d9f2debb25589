"""The pages, as a browser asks for them."""

from __future__ import annotations

import base64
from typing import Any

from fakes import FakeTransform
from support import HANG, require, wait_until

from dosna.errors import QueryError

httpx = require("httpx")

BODY = {"codegen": "python", "result-format": "parquet", "title": "<muons> & more"}
CODE = base64.b64encode(b"def run_query(path): ...").decode()


def submit(client: Any, paths: list[str]) -> str:
    body = BODY | {"file-list": paths, "selection": CODE}
    return str(client.post("/servicex/transformation", json=body).json()["request_id"])


def page(client: Any, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert "form-action 'self'" in answer.headers["content-security-policy"]
    return str(answer.text)


def test_pages_show_requests_and_datasets(serve: Any, paths: list[str]) -> None:
    fake = FakeTransform()
    fake.fails = lambda source: QueryError("no <b>tree</b>") if source == paths[1] else None
    server = serve(fake)
    with httpx.Client(base_url=server.root, timeout=HANG) as client:
        assert f"endpoint: {server.root}" in page(client, "/")
        id = submit(client, paths)
        wait_until(lambda: ">Complete<" in page(client, f"/requests/{id}"))
        listed = page(client, "/")
        assert "&lt;muons&gt; &amp; more" in listed
        assert "3 / 4" in listed
        shown = page(client, f"/requests/{id}")
        assert "def run_query(path)" in shown
        assert "a line of log" in shown
        assert "no &lt;b&gt;tree" in shown
        assert "refresh" not in shown
        failed = page(client, f"/requests/{id}?failed=true")
        assert paths[1] in failed
        assert paths[0] not in failed
        # Where the client's message about failed files leads.
        link = client.get(f"/transformation-request//{id}/results?status=failure")
        assert link.headers["location"] == f"/requests/{id}?failed=true"
        assert "list of files" in page(client, "/datasets")
        assert paths[2] in page(client, "/datasets/1")
        assert "confinement" in page(client, "/status")
        assert client.get("/health").json()["healthy"] is True
        assert client.get("/requests/none").status_code == 404
        foreign = {"Origin": "https://example.org"}
        assert client.post(f"/requests/{id}/delete", headers=foreign).status_code == 403
        assert client.post(f"/requests/{id}/delete").headers["location"] == "/"
        assert id not in page(client, "/")


def test_a_running_request_can_be_cancelled(serve: Any, paths: list[str]) -> None:
    fake = FakeTransform()
    with httpx.Client(base_url=serve(fake).root, timeout=HANG) as client:
        id = submit(client, paths * 20)
        fake.gate.clear()
        shown = page(client, f"/requests/{id}")
        if ">Running<" in shown:
            assert 'http-equiv="refresh"' in shown
        client.post(f"/requests/{id}/cancel")
        assert ">Canceled<" in page(client, f"/requests/{id}")
        fake.gate.set()


def test_users_log_in_with_their_token(serve: Any, paths: list[str]) -> None:
    from dosna.delivery.front.tokens import Tokens

    server = serve(FakeTransform(), auth="tokens")
    token = Tokens(server.service.settings, server.service.state.users).refresh_token("ada")
    with httpx.Client(base_url=server.root, timeout=HANG) as client:
        for path in ("/", "/requests/x", "/datasets", "/status"):
            assert client.get(path).headers["location"] == "/login"
        assert "Token" in page(client, "/login")
        assert "not valid" in client.post("/login", data={"token": "wrong"}).text
        entered = client.post("/login", data={"token": token})
        cookie = entered.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert "ada" in page(client, "/")
        # The cookie is for pages, and not for calls.
        assert client.get("/servicex/transformation").status_code == 401
        client.post("/logout")
        assert client.get("/").headers["location"] == "/login"
        assert client.get("/health").json() == {"healthy": True}


def test_the_interface_is_described(serve: Any) -> None:
    with httpx.Client(base_url=serve(FakeTransform()).root, timeout=HANG) as client:
        results = "/servicex/transformation/{id}/results"
        assert results in client.get("/openapi.json").json()["paths"]
        shown = page(client, "/docs")
        assert results in shown
        assert "later_than" in shown
        assert "file-list" in shown
        assert "<script" not in shown
