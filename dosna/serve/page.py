"""The page in which H5Web shows a connection, and the links of its bar."""

from __future__ import annotations

import gzip
import html
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from dosna.registry import load
from dosna.serve.ranges import matches
from dosna.serve.served import Served
from dosna.web import Refusal

__all__ = ["Link", "LinksOf", "routes"]

_HTML = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{name} – dosna</title>
<link rel="icon" href="icon.svg">
<link rel="stylesheet" href="page.css">
</head>
<body>
<div id="root" data-name="{name}" data-path="{path}"></div>
<noscript>This page needs JavaScript.</noscript>
<script type="module" src="page.js"></script>
</body>
</html>
"""

_ICON = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="3"
fill="#20313f"/><path fill="#9fd8ff" d="M3 3h4v4H3zM9 3h4v4H9zM3 9h4v4H3z"/><path fill="#ffd58a"
d="M9 9h4v4H9z"/></svg>
"""

_GZIP = re.compile(r"\bgzip\b(?!\s*;\s*q=0(?:\.0*)?\s*(?:,|$))", re.IGNORECASE)
_TYPES = {"page.js": "text/javascript; charset=utf-8", "page.css": "text/css; charset=utf-8"}


@dataclass(frozen=True)
class Link:
    """An entry of the bar above the page.

    Attributes
    ----------
    label : str
        The text.
    href : str or None
        The address, relative to the page; None for a note without one.
    hint : str
        The text that is shown when the pointer is over the link.
    front : bool
        Whether to open this address first, if the server shows only what is selected.
    """

    label: str
    href: str | None = None
    hint: str = ""
    front: bool = False


LinksOf = Callable[[Served, str], Iterable[Link]]
"""A function of what is served and of the name that is selected, which returns links."""

_LINKS: dict[str, str] = {
    "state": "dosna.serve.page:state_of",
    "trees": "dosna.serve.trees.routes:links",
    "volumes": "dosna.serve.volumes.routes:links",
}
"""The functions of all parts that have links in the bar: ``"module:function"``."""


def routes(served: Served) -> Sequence[BaseRoute]:
    """Return the routes of the page: ``/``, and the files that it loads.

    Parameters
    ----------
    served : Served
        The served datasets. The page begins with its outermost group or dataset.

    Returns
    -------
    sequence of BaseRoute
        The routes.
    """
    name = served.con.name
    if "://" in name:  # of another server, whose address is not shown
        name = urlsplit(name).path
    name = name.rstrip("/").rpartition("/")[2] or "data"
    text = _HTML.format(name=html.escape(name), path=html.escape(f"/{served.below}"))
    links: list[LinksOf] = [load(target) for target in _LINKS.values()]

    def page(request: Request) -> Response:
        if not request.query_params:
            found = (link for make in links for link in make(served, served.below))
            front = next((link.href for link in found if link.front and link.href), None)
            if front is not None:
                return RedirectResponse(front, 303, {"Cache-Control": "no-store"})
        return Response(text, media_type="text/html", headers={"Cache-Control": "no-cache"})

    def links_of(request: Request) -> Response:
        selected = request.query_params.get("path", "").strip("/")
        found = [asdict(link) for make in links for link in make(served, selected)]
        return JSONResponse(found)

    return [
        Route("/", page, methods=["GET"]),
        Route("/links", links_of, methods=["GET"]),
        Route("/icon.svg", _icon, methods=["GET"]),
        # Browsers ask for it where a document names no icon, as JSON cannot.
        Route("/favicon.ico", _icon, methods=["GET"]),
        Route("/LICENSES.txt", _licences, methods=["GET"]),
        *(Route(f"/{file}", _built, methods=["GET"]) for file in _TYPES),
    ]


def state_of(served: Served, name: str) -> Iterable[Link]:
    """Return notes about a dataset: whether it is incomplete or linked."""
    try:
        dataset = served.dataset(name)
    except Refusal:
        return
    if dataset.incomplete:
        yield Link("incomplete", None, "Data are still to come; what is missing is fill value.")
    if dataset.linked:
        yield Link("linked", None, "The chunks are read from the file of the source.")


@cache
def _compressed(file: str) -> bytes:
    return (files("dosna.serve") / "static" / f"{file}.gz").read_bytes()


def _built(request: Request) -> Response:
    """Return a file of the built page, in its stored compression if the client accepts it."""
    file = request.url.path.rpartition("/")[2]
    data, headers = _compressed(file), {"Vary": "Accept-Encoding", "Cache-Control": "no-cache"}
    etag = f'"{_checksum(file)}"'
    headers["ETag"] = etag
    if matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    if _GZIP.search(request.headers.get("accept-encoding", "")):
        headers["Content-Encoding"] = "gzip"
    else:
        data = gzip.decompress(data)
    return Response(data, media_type=_TYPES[file], headers=headers)


@cache
def _checksum(file: str) -> str:
    from hashlib import sha256

    return sha256(_compressed(file)).hexdigest()[:32]


def _icon(request: Request) -> Response:
    return Response(_ICON, media_type="image/svg+xml")


def _licences(request: Request) -> Response:
    return PlainTextResponse((files("dosna.serve") / "static" / "LICENSES.txt").read_text("utf-8"))
