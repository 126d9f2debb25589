"""The routes of trees: a page, its histograms, and the same for programs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from dosna.core.stopping import Stop, stoppable
from dosna.errors import ConfigurationError, DosnaError
from dosna.serve.served import Served
from dosna.serve.trees.describing import describe, list_trees, tree_of
from dosna.serve.trees.drawing import draw
from dosna.serve.trees.entries import entries
from dosna.serve.trees.filling import HistogramRequest, fill_histogram
from dosna.serve.trees.histogram import Histogram
from dosna.serve.trees.requests import histogram_request
from dosna.web import STOP, Refusal, Streamed, refusal_of

__all__ = ["filled", "links", "routes"]

_FILES = {
    "": ("page.html", "text/html"),
    "page.js": ("page.js", "text/javascript"),
    "plot.js": ("plot.js", "text/javascript"),
    "page.css": ("page.css", "text/css"),
}
T = TypeVar("T")

_AT_A_TIME = 4
"""Histograms that are filled at a time; the others wait, and need no threads for it."""
_LAST = ("histogram", "refusal")
_PRIVATE = {"Cache-Control": "no-store"}


def routes(served: Served) -> Sequence[BaseRoute]:
    """Return the routes of trees, which begin with ``/trees/``.

    Parameters
    ----------
    served : Served
        The datasets that are served.

    Returns
    -------
    sequence of BaseRoute
        The routes.
    """

    def listed(request: Request) -> Response:
        return JSONResponse(list_trees(served), headers=_PRIVATE)

    def described(request: Request) -> Response:
        name = request.query_params.get("tree", "")
        return JSONResponse(describe(name, tree_of(served, name)), headers=_PRIVATE)

    # Not threads of the pool that answers requests, because a histogram may take minutes.
    pool = ThreadPoolExecutor(_AT_A_TIME, "dosna-histogram")

    def histogram(asked: HistogramRequest, request: Request, stop: Stop) -> Response:
        return JSONResponse(filled(served, asked, stop).to_uhi(), headers=_PRIVATE)

    def picture(asked: HistogramRequest, request: Request, stop: Stop) -> Response:
        found = filled(served, asked, stop)
        png = draw(found, asked.where, bool(request.query_params.get("log")))
        return Response(png, media_type="image/png", headers=_PRIVATE)

    def slowly(work: Callable[[HistogramRequest, Request, Stop], Response]) -> Any:
        async def endpoint(request: Request) -> Response:
            asked, stop = await run_in_threadpool(_asked, served, request), _stop_of(request)
            if work is histogram and request.query_params.get("stream"):
                events = _events(served, asked, stop, pool)
                return Streamed(events, headers=_PRIVATE, media_type="text/event-stream")
            return await asyncio.wrap_future(
                pool.submit(_within, stop, work, asked, request, stop)
            )

        return endpoint

    def table(request: Request) -> Response:
        return JSONResponse(entries(served, request.query_params), headers=_PRIVATE)

    return [
        Route("/trees", lambda request: RedirectResponse(_slash(request)), methods=["GET"]),
        Route("/trees/list", listed, methods=["GET"]),
        Route("/trees/branches", described, methods=["GET"]),
        Route("/trees/histogram", slowly(histogram), methods=["GET"]),
        Route("/trees/histogram.png", slowly(picture), methods=["GET"]),
        Route("/trees/entries", table, methods=["GET"]),
        *(Route("/trees/" + path, _file(*of), methods=["GET"]) for path, of in _FILES.items()),
    ]


def links(served: Served, name: str) -> Iterable[Any]:
    """Return the link from the page to the selected tree, or to the tree of a selected branch."""
    from dosna.serve.page import Link

    above = name
    while True:
        try:
            tree = tree_of(served, above)
        except DosnaError:  # a Refusal is one
            tree = None
        if tree is not None:
            address = f"trees/?tree={quote(above, safe='')}"
            if above != name and name[len(above) :].strip("/") in tree.by_name:
                address += f"&x={quote(name[len(above) :].strip('/'), safe='')}"
            front = above == name == served.below
            return [Link("open as a tree", address, "Branches, histograms and entries", front)]
        if not above:
            return []
        above = above.rpartition("/")[0]


def _file(name: str, kind: str) -> Callable[[Request], Response]:
    headers = {"Cache-Control": "no-cache"}
    return lambda request: Response(_text(name), media_type=kind, headers=headers)


def _slash(request: Request) -> str:
    # Relative, because the token may precede the path.
    query = f"?{request.url.query}" if request.url.query else ""
    return "trees/" + query


@cache
def _text(name: str) -> str:
    return (files("dosna.serve.trees") / "static" / name).read_text("utf-8")


def _stop_of(request: Request) -> Stop:
    return request.scope.get(STOP) or Stop()


def _within(stop: Stop, work: Callable[..., T], *args: Any) -> T:
    with stoppable(stop):
        stop.check()
        return work(*args)


def _asked(served: Served, request: Request) -> HistogramRequest:
    asked = histogram_request(request.query_params)
    tree_of(served, asked.tree)
    return asked


def filled(
    served: Served,
    asked: HistogramRequest,
    stop: Stop,
    tell: Callable[[int, int], object] | None = None,
) -> Histogram:
    """Fill a histogram, unless it is stopped.

    Parameters
    ----------
    served : Served
        The datasets that are served.
    asked : HistogramRequest
        The request.
    stop : Stop
        The flag that stops it, between two ranges of entries.
    tell : callable, optional
        A function of the number of ranges that are done, and the number of all ranges.

    Raises
    ------
    Refusal
        The request cannot be carried out (400).
    """

    def report(done: int, total: int) -> None:
        stop.check()
        if tell is not None:
            tell(done, total)

    try:
        return fill_histogram(served.con, asked, report)
    except ConfigurationError as error:
        raise Refusal(400, str(error)) from None


async def _events(
    served: Served, asked: HistogramRequest, stop: Stop, pool: Executor
) -> AsyncGenerator[str]:
    """Yield the events ``progress``, and finally ``histogram`` or ``refusal``."""
    told: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def tell(kind: str, value: Any) -> None:
        with suppress(RuntimeError):  # the server has ended
            loop.call_soon_threadsafe(told.put_nowait, (kind, value))

    def work() -> None:
        try:
            found = filled(served, asked, stop, lambda *done: tell("progress", done))
            tell("histogram", found.to_uhi())
        except Exception as error:
            refusal = refusal_of(error)
            tell("refusal", {"error": refusal.message, "hint": refusal.hint})

    job = pool.submit(_within, stop, work)
    try:
        kind = ""
        while kind not in _LAST:
            kind, value = await told.get()
            yield f"event: {kind}\ndata: {json.dumps(value)}\n\n"
    finally:
        stop.set("nobody waits for it")
        job.cancel()
