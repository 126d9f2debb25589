"""The routes of h5grove's protocol: ``meta``, ``attr``, ``data``, ``stats`` and ``paths``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route

from dosna.serve.h5grove.data import Encoded, encoded, json_encoded, statistics
from dosna.serve.h5grove.entities import Entities
from dosna.serve.served import Served
from dosna.web import refusal_of

__all__ = ["routes"]


def routes(served: Served) -> Sequence[BaseRoute]:
    """Return the routes of h5grove's protocol, below ``/h5grove``.

    All routes have the parameter ``path``. With ``lines=short``, very long lines are reduced to
    fewer points; see `dosna.serve.h5grove.lines`. The parameter ``file`` of h5grove's clients is
    ignored, because there is only one connection.

    Parameters
    ----------
    served : Served
        What is served.

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

    every = (meta, attr, data, stats, paths)
    inner = [Route(f"/{one.__name__}", _endpoint(one), methods=["GET"]) for one in every]
    return [Mount("/h5grove", routes=inner)]


class _Asked:
    """The parameters of a request."""

    def __init__(self, request: Request) -> None:
        self.query = request.query_params
        self.path = self.query.get("path") or "/"
        self.short = self.query.get("lines") == "short"


def _endpoint(answer: Callable[[_Asked], Encoded]) -> Callable[[Request], Response]:
    # Not a coroutine: Starlette runs it in a thread.
    def endpoint(request: Request) -> Response:
        try:
            found = answer(_Asked(request))
        except Exception as error:
            refusal = refusal_of(error)
            body = json_encoded({"message": str(refusal)})
            return Response(body.content, refusal.status, body.headers)
        return Response(found.content, headers=found.headers)

    return endpoint
