"""The pages, which the server renders without scripts."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Depends, Request
from jinja2 import Environment, PackageLoader, select_autoescape
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse, Response

from dosna.core.sizes import format_size
from dosna.delivery.front.context import COOKIE, FrontOf, is_foreign
from dosna.delivery.front.tokens import NOBODY
from dosna.delivery.settings import DAY
from dosna.delivery.state.tables import ENDED

__all__ = ["NeedsLogin", "router"]

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)

_PAGE = 100
_ROWS = 200
_REFRESH = 3
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


_templates = Environment(
    loader=PackageLoader("dosna.delivery.front"),
    autoescape=select_autoescape(default=True),
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters |= {"time": _time, "size": lambda n: format_size(n) if n else "–"}


class NeedsLogin(Exception):
    """Raised for a page that needs a user, who is redirected to the login page."""


def _reader(request: Request, front: FrontOf) -> str:
    """Return the user who looks at a page."""
    if front.tokens is None:
        return NOBODY
    user = front.tokens.user(request.cookies.get(COOKIE, ""))
    if user is None:
        raise NeedsLogin
    return user


def _changer(request: Request, user: Annotated[str, Depends(_reader)]) -> str:
    """Return the user who submits a form of a page."""
    if is_foreign(request):
        raise HTTPException(403, "pages of other sites must not change anything here")
    return user


Reader = Annotated[str, Depends(_reader)]
Changer = Annotated[str, Depends(_changer)]


def _page(name: str, user: str, front: Any, title: str, **values: Any) -> Response:
    text = _templates.get_template(name + ".html").render(
        user=user, users=front.tokens is not None, title=title, **values
    )
    headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-store"}
    return HTMLResponse(text, headers=headers)


@router.get("/")
def requests(request: Request, front: FrontOf, user: Reader) -> Response:
    """Show the requests of the user."""
    rows = front.service.state.requests.of(user, _ROWS)
    busy = any(row.status not in ENDED for row in rows)
    return _page(
        *("requests", user, front, "Requests"),
        rows=rows,
        base=front.base(request),
        here="requests",
        refresh=_REFRESH if busy else None,
    )


@router.get("/requests/{id}")
def request_(
    id: str, front: FrontOf, user: Reader, failed: bool = False, page: int = 0
) -> Response:
    """Show a request with its files."""
    row = front.request_of(id, user)
    page = max(0, page)
    files = front.service.state.files.page(id, page * _PAGE, _PAGE + 1, failed)
    ended = row.status in ENDED
    return _page(
        *("request", user, front, row.title or row.did),
        row=row,
        selection=_readable(row.codegen, row.selection),
        files=files[:_PAGE],
        more=len(files) > _PAGE,
        page=page,
        failed=failed,
        expires=row.finished + front.service.settings.keep_days * DAY if row.finished else None,
        here="requests",
        refresh=None if ended else _REFRESH,
    )


def _readable(codegen: str, selection: str) -> str:
    """Return a selection in a readable form."""
    try:
        if codegen == "python":
            return base64.b64decode(selection, validate=True).decode()
        if codegen == "uproot-raw":
            return json.dumps(json.loads(selection), indent=2)
    except (ValueError, binascii.Error):
        pass
    return selection


@router.get("/transformation-request//{id}/results")
@router.get("/transformation-request/{id}/results")
def results(id: str, user: Reader) -> Response:
    """Redirect to the files that failed. The client's message links to this address."""
    return RedirectResponse(f"/requests/{id}?failed=true", 303)


@router.post("/requests/{id}/cancel")
def cancel(id: str, front: FrontOf, user: Changer) -> Response:
    """Cancel a request."""
    front.request_of(id, user)
    front.service.cancel(id)
    return RedirectResponse(f"/requests/{id}", 303)


@router.post("/requests/{id}/delete")
def delete(id: str, front: FrontOf, user: Changer) -> Response:
    """Delete a request with its results."""
    front.request_of(id, user)
    front.service.delete(id)
    return RedirectResponse("/", 303)


@router.get("/datasets")
def datasets(front: FrontOf, user: Reader) -> Response:
    """Show the datasets."""
    rows = front.service.state.datasets.all(None, True)[-_ROWS:]
    return _page("datasets", user, front, "Datasets", rows=rows[::-1], here="datasets")


@router.get("/datasets/{id}")
def dataset(id: int, front: FrontOf, user: Reader) -> Response:
    """Show a dataset with its files."""
    row = front.service.state.datasets.get(id)
    if row is None:
        raise HTTPException(404, f"there is no dataset {id}")
    files = front.service.state.datasets.files(id, _ROWS)
    return _page("dataset", user, front, row.name, row=row, files=files, here="datasets")


@router.get("/status")
def status(front: FrontOf, user: Reader) -> Response:
    """Show the health of the service, and the user's limits."""
    service, settings = front.service, front.service.settings
    parts = service.is_healthy() | {"running since": _time(service.started)}
    open_, nbytes = service.state.requests.usage(user)
    limits = {
        "unfinished requests": f"{open_} of {settings.running_limit}",
        "results": f"{format_size(nbytes)} of {format_size(int(settings.bytes_limit))}",
        "files of a request": f"{settings.files_limit:,}",
        "time for a file": f"{settings.file_seconds:g} s",
        "memory for a file": format_size(int(settings.file_memory)),
        "results are kept for": f"{settings.keep_days:g} days",
    }
    return _page(
        "status", user, front, "Health", parts=parts, limits=limits, roots=settings.roots,
        here="status",
    )  # fmt: skip


@router.get("/docs")
def interface(request: Request, front: FrontOf, user: Reader) -> Response:
    """Show the calls of the protocol."""
    api = request.app.openapi()
    return _page("interface", user, front, "Interface", api=api, here="interface")


@router.get("/login")
def login(front: FrontOf) -> Response:
    """Show the form for a token."""
    return _page("login", "", front, "Log in")


@router.post("/login")
async def enter(request: Request, front: FrontOf) -> Response:
    """Log in a user, for as long as an access token is valid."""
    form = parse_qs((await request.body())[: 1 << 14].decode("utf-8", "replace"))
    token = form.get("token", [""])[0].strip()
    made = front.tokens.access_token(token) if front.tokens and not is_foreign(request) else None
    if made is None:
        return _page("login", "", front, "Log in", wrong=True)
    answer = RedirectResponse("/", 303)
    secured = front.base(request).startswith("https:")
    answer.set_cookie(COOKIE, made, httponly=True, samesite="strict", secure=secured)
    return answer


@router.post("/logout")
def leave(request: Request) -> Response:
    """Log out the user."""
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE)
    return answer
