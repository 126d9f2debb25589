"""The application: all routes, behind the guard."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from dosna.array.connection import EngineConnection
from dosna.registry import load
from dosna.serve.served import Served
from dosna.web import HANDLERS, Access, Limits, protect

__all__ = ["ROUTES", "create_app"]

ROUTES: dict[str, str] = {
    "zarr": "dosna.serve.zarr:routes",
    "h5grove": "dosna.serve.h5grove.routes:routes",
    "page": "dosna.serve.page:routes",
    "trees": "dosna.serve.trees.routes:routes",
    "volumes": "dosna.serve.volumes.routes:routes",
}
"""The functions ``routes(served)`` of all parts, by the part's name: ``"module:function"``."""


def create_app(
    con: EngineConnection,
    access: Access,
    *,
    below: str = "",
    limits: Limits | None = None,
    parts: Mapping[str, str] = ROUTES,
) -> ASGIApp:
    """Return the application that serves a connection.

    Parameters
    ----------
    con : Connection
        The open connection.
    access : Access
        The rules for access.
    below : str
        The name of the dataset or group to serve; '' for all.
    limits : Limits, optional
        The limits of answers.
    parts : mapping
        The parts with their routes, as in `ROUTES`.

    Returns
    -------
    ASGI application
        The application, behind `dosna.web.protect`.
    """
    served = Served(con, below, limits)
    routes: list[BaseRoute] = []
    for target in parts.values():
        make: Callable[[Served], Sequence[BaseRoute]] = load(target)
        routes += make(served)
    app = Starlette(
        routes=[*routes, Route("/api", _say_what_there_is(list(parts)))],
        exception_handlers=HANDLERS,
    )
    return protect(app, access, served.limits)


def _say_what_there_is(parts: list[str]) -> Callable[[Request], Response]:
    from dosna import __version__

    return lambda request: JSONResponse({"dosna": __version__, "parts": parts})
