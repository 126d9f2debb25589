"""The routes of h5grove's protocol: ``meta``, ``attr``, ``data``, ``stats`` and ``paths``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextvars import copy_context

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from dosna.serve.h5grove.data import Encoded, encoded, json_encoded, statistics
from dosna.serve.h5grove.entities import Entities
from dosna.serve.served import Served
from dosna.web import refusal_of

__all__ = ["routes"]

_THREADS = 40


def routes(served: Served) -> Sequence[BaseRoute]:
    """Return the routes of h5grove's protocol, below ``/h5grove``.

    All routes have the parameter ``path``. With ``lines=short``, very long lines are reduced to
    fewer points; see `dosna.serve.h5grove.lines`. The parameter ``file`` of h5grove's clients is
    ignored, because there is only one connection.

    Parameters
    ----------
    served : Served
        The datasets that are served.

    Returns
    -------
    sequence of BaseRoute
        The routes. Their errors are ``{"message": …}``, as in h5grove.
    """
    entities, limits = Entities(served), served.limits

    def meta(asked: _Asked) -> Encoded:
        return json_encoded(entities.meta(asked.path, asked.short))

    def attr(asked: _Asked) -> Encoded:
        names = asked.query.getlist("attr_keys") or None
        return json_encoded(entities.attributes(asked.path, names, asked.short))

    def data(asked: _Asked) -> Encoded:
        get = asked.query.get
        return entities.read(
            asked.path,
            asked.short,
            lambda found: encoded(
                found,
                get("selection"),
                get("format") or "json",
                get("dtype") or "origin",
                (get("flatten") or "false").lower() not in ("false", "0"),
                limits,
            ),
        )

    def stats(asked: _Asked) -> Encoded:
        selection = asked.query.get("selection")
        found = entities.read(
            asked.path, asked.short, lambda found: statistics(found, selection, limits)
        )
        return json_encoded(found)

    def paths(asked: _Asked) -> Encoded:
        return json_encoded(entities.paths(asked.path))

    every = (data, meta, attr, stats, paths)
    pool = ThreadPoolExecutor(_THREADS, "dosna-h5grove")
    return [
        Route(f"/h5grove/{one.__name__}", _Endpoint(one, pool), methods=["GET"]) for one in every
    ]


class _Asked:
    """The parameters of a request."""

    def __init__(self, request: Request) -> None:
        self.query = request.query_params
        self.path = self.query.get("path") or "/"
        self.short = self.query.get("lines") == "short"


class _Endpoint:
    """A route whose answers are made in threads of their own.

    Starlette's pool takes longer to hand a request to a thread than small answers take to be made.
    """

    def __init__(self, answer: Callable[[_Asked], Encoded], pool: Executor) -> None:
        self._answer, self._pool = answer, pool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        work = self._pool.submit(copy_context().run, self._respond, Request(scope))
        response = await asyncio.wrap_future(work)
        await response(scope, receive, send)

    def _respond(self, request: Request) -> Response:
        try:
            found = self._answer(_Asked(request))
        except Exception as error:
            refusal = refusal_of(error)
            body = json_encoded({"message": str(refusal)})
            return Response(body.content, refusal.status, body.headers)
        return Response(found.content, headers=found.headers)
