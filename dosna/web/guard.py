"""The guard in front of an application: token, host, methods, headers, limits, and stopping."""

from __future__ import annotations

import asyncio
import re
import secrets
from html import escape
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from starlette.middleware.cors import CORSMiddleware
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dosna.core.stopping import stoppable
from dosna.web.access import Access
from dosna.web.answers import Limits, Refusal, json_refusal, refusal_of
from dosna.web.budget import Budget, Crowded, Share, current

__all__ = ["STOP", "protect"]

STOP = "dosna.stop"
"""The key of the scope of a request with its `Stop`."""

_SAFE = ("GET", "HEAD")
_UNWATCHED = 0.05
"""Seconds after which the guard begins to watch whether the client disconnects."""

_PIECE = 1 << 20
"""Bytes of a body that the server gets at a time, and keeps until they are sent."""
_RETRY_SECONDS = 10

_PORT = re.compile(r":\d{1,5}$")
_READABLE = ["ETag", "Content-Range", "Content-Length", "Accept-Ranges"]


def protect(app: ASGIApp, access: Access, limits: Limits | None = None) -> ASGIApp:
    """Return an application behind the guard.

    Parameters
    ----------
    app : ASGI application
        The application. Errors that it raises become answers in JSON.
    access : Access
        The rules for access.
    limits : Limits, optional
        The limits of its answers.

    Returns
    -------
    ASGI application
        The application to run.
    """
    guarded: ASGIApp = _Tokens(_Limited(app, limits or Limits()), access)
    if access.origins:
        guarded = CORSMiddleware(
            guarded,
            allow_origins=access.origins,
            allow_methods=access.methods,
            allow_headers=["Authorization", "Range", "If-None-Match"],
            expose_headers=_READABLE,
        )
    return _Doors(guarded, access)


class _Doors:
    """Refuse requests for other hosts, and give every answer its headers."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._hosts = app, access.hosts
        frames = " ".join(("'self'", *access.frames))
        headers = {
            "Content-Security-Policy": (
                "default-src 'self'; style-src 'self' 'unsafe-inline'; "
                "img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; "
                f"form-action 'none'; frame-ancestors {frames}"
            ),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "cross-origin" if access.origins else "same-origin",
        }
        self._headers = [(k.lower().encode(), v.encode()) for k, v in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            # No websockets; the server closes them.
            await send({"type": "websocket.close", "code": 1008})
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                given = {name.lower() for name, _ in headers}
                headers += [pair for pair in self._headers if pair[0] not in given]
                message = {**message, "headers": headers}
            await send(message)

        host = _PORT.sub("", _header(scope, b"host")).lower()
        if self._hosts and host not in self._hosts:
            refusal = Refusal(400, "the server does not have this name", "use its address")
            await json_refusal(refusal)(scope, receive, send_with_headers)
            return
        await self._app(scope, receive, send_with_headers)


class _Tokens:
    """Refuse requests with other methods, and requests without the token."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer: Response | None = None
        if scope["type"] == "http":
            scope = dict(scope)
            answer = self._refused(scope)
        await (self._app if answer is None else answer)(scope, receive, send)

    def _refused(self, scope: Scope) -> Response | None:
        """Return the answer to a request that does not reach the application."""
        if scope["method"] not in self._access.methods:
            allowed = ", ".join(self._access.methods)
            refusal = Refusal(405, "the method is not allowed", headers={"Allow": allowed})
            return json_refusal(refusal)
        if self._access.token is None:
            return None
        # Even if the client has the cookie, because the token should not stay in the address.
        text = scope["query_string"].decode("latin-1")
        asked = parse_qsl(text, keep_blank_values=True) if text else []
        if any(name == "token" and self._is_token(value) for name, value in asked):
            return self._let_in(scope, [pair for pair in asked if pair[0] != "token"])
        if self._has_token(scope):
            if text or scope["path"] != scope.get("root_path"):
                return None
            # The links of the page are relative to what is before the last slash.
            return RedirectResponse(scope["path"].rpartition("/")[2] + "/", 307)
        return json_refusal(
            Refusal(
                401,
                "the token of the server is missing",
                "open the address that it printed, or send the header 'Authorization: Bearer "
                "TOKEN'",
                {"WWW-Authenticate": "Bearer"},
            )
        )

    def _is_token(self, text: str) -> bool:
        token = self._access.token or ""
        return secrets.compare_digest(text.encode("utf-8", "replace"), token.encode())

    def _has_token(self, scope: Scope) -> bool:
        kind, _, bearer = _header(scope, b"authorization").partition(" ")
        if kind.lower() == "bearer" and self._is_token(bearer.strip()):
            return True
        first = scope["path"][1:].partition("/")[0]
        if first.startswith("@") and self._is_token(first[1:]):
            # Starlette routes the part of the path after the root.
            scope["root_path"] = scope.get("root_path", "") + "/" + first
            return True
        if scope["method"] not in _SAFE:
            # Browsers send the cookie with forms of any page, too.
            return False
        # Not with http.cookies, which stops at cookies that servers on other ports may have set.
        pairs = (pair.partition("=") for pair in _header(scope, b"cookie").split(";"))
        name = _cookie(scope)
        return any(
            key.strip() == name and self._is_token(value.strip()) for key, _, value in pairs
        )

    def _let_in(self, scope: Scope, query: list[tuple[str, str]]) -> Response:
        """Return the redirection to the same address without the token, with the cookie."""
        # Two slashes at the beginning would lead to another host.
        where = "/" + quote(scope["path"].lstrip("/")) + (f"?{urlencode(query)}" if query else "")
        answer: Response = RedirectResponse(where, 303)
        if _header(scope, b"sec-fetch-site") == "cross-site":
            # The browser followed a link of another site: it sends the cookie only after a
            # redirection by a page of this one.
            answer = HTMLResponse(f'<meta http-equiv="refresh" content="0;url={escape(where)}">')
        answer.set_cookie(
            _cookie(scope), self._access.token or "", httponly=True, samesite="strict", path="/"
        )
        answer.headers["Cache-Control"] = "no-store"
        return answer


def _header(message: Scope | Message, name: bytes) -> str:
    """Return a header of a request or an answer; '' if it has none of that name."""
    found = (value for key, value in message.get("headers", ()) if key == name)
    return str(next(found, b"").decode("latin-1"))


def _cookie(scope: Scope) -> str:
    """Return the name of the cookie, with the port, because all ports of a host share cookies."""
    return f"dosna-{(scope.get('server') or ('', 0))[1]}"


class _Limited:
    """Answer errors as JSON; stop requests that take too long, or whose client disconnects."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app, self._limits = app, limits
        self._budget = None if limits.total_bytes is None else Budget(limits.total_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        share = None
        if self._budget is not None and scope["method"] in _SAFE:
            share = Share(self._budget)
        answer = _Answer(scope, receive, send, self._limits, share)
        with stoppable() as scope[STOP]:
            try:
                await answer.run(self._app)
            except Exception as error:
                if answer.gone or answer.done:
                    return
                refusal = refusal_of(error)
                if answer.begun:
                    # The connection is closed, so the client sees that the body is incomplete.
                    raise ConnectionAbortedError(refusal.message) from None
                await json_refusal(refusal)(scope, receive, send)


class _Answer:
    """The answer to one request."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, limits: Limits, share: Share | None
    ) -> None:
        self._scope, self._receive, self._send, self._limits = scope, receive, send, limits
        self._share = share
        self.begun = self.gone = self.done = False
        self._asked = self._waits = False
        self._time: asyncio.Timeout | None = None
        self._task: asyncio.Task[Any] | None = None
        self._watching: asyncio.Task[None] | None = None

    async def run(self, app: ASGIApp) -> None:
        """Run the application until it has answered, the client disconnects or time is over."""
        loop, seconds = asyncio.get_running_loop(), self._limits.seconds
        safe = self._scope["method"] in _SAFE
        if safe:
            self._task = asyncio.current_task()
        # Most answers are finished before watching the client and the clock would pay off.
        soon = _UNWATCHED if seconds is None else min(_UNWATCHED, seconds)
        timer = loop.call_later(soon, self._begin_to_watch, loop.time())
        try:
            async with asyncio.timeout(None) as self._time:
                if self._share is None:
                    await app(self._scope, self._nothing if safe else self._receive, self._pass)
                else:
                    await self._run_with(self._share, app)
        except TimeoutError:
            if self._time is None or not self._time.expired():
                raise
            self._scope[STOP].set("it took too long")
            if self._waits:
                raise Refusal(
                    503,
                    f"other large answers have been in the way for {seconds:g} s",
                    "repeat the request later, or request less",
                    {"Retry-After": str(_RETRY_SECONDS)},
                ) from None
            raise Refusal(
                503, f"the answer took more than {self._limits.seconds:g} s", "request less"
            ) from None
        except asyncio.CancelledError:
            self._scope[STOP].set("the client has disconnected, or the server is ending")
            if not self.gone:
                raise
        finally:
            timer.cancel()
            if self._watching is not None:
                self._watching.cancel()

    async def _run_with(self, share: Share, app: ASGIApp) -> None:
        """Run the application; again when there is memory for it, if it lacks."""
        token = current.set(share)
        try:
            while True:
                try:
                    self._asked = self._waits = False
                    await app(dict(self._scope), self._nothing, self._pass)
                    return
                except Crowded as crowded:
                    nbytes = crowded.nbytes
                self._waits = True
                await share.wait(nbytes)
        finally:
            current.reset(token)
            share.leave()

    async def _pass(self, message: Message) -> None:
        if self.done:
            return
        if message["type"] == "http.response.start":
            length = _header(message, b"content-length") or "0"
            if self._scope["method"] != "HEAD" and message["status"] < 400:
                try:
                    self._limits.check_bytes(int(length))
                except Refusal as refusal:
                    # The application need not be told: whatever it sends from now on is dropped.
                    await json_refusal(refusal)(self._scope, self._receive, self._send)
                    self.begun = self.done = True
                    return
            self.begun = True
            if self._time is not None:
                self._time.reschedule(None)
        else:
            message = await self._send_pieces(message)
            self.done = not message.get("more_body", False)
        await self._send(message)

    async def _send_pieces(self, message: Message) -> Message:
        """Send a body but for its last piece, which is returned.

        What the server was given is in memory until it is sent, and the server waits before it
        takes a piece, not after the last.
        """
        body = message.get("body", b"")
        if len(body) <= _PIECE:
            return message
        pieces = memoryview(body)
        while len(pieces) > _PIECE:
            await self._send({**message, "body": pieces[:_PIECE], "more_body": True})
            pieces = pieces[_PIECE:]
        return {**message, "body": pieces}

    async def _nothing(self) -> Message:
        """Receive the empty body of a request, and then nothing, until the task is cancelled."""
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    def _begin_to_watch(self, begin: float) -> None:
        if self._limits.seconds is not None and self._time is not None and not self.begun:
            self._time.reschedule(begin + self._limits.seconds)
        if self._task is not None:
            self._watching = asyncio.ensure_future(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self.done and self._task is not None:
            self.gone = True
            self._scope[STOP].set("the client has disconnected")
            self._task.cancel()
