"""A server over HTTP for the datasets of a connection: `Connection.serve`, ``dosna serve``.

Further routes are a module with a function ``routes(served)``, which returns Starlette routes, and
a line in `dosna.serve.app.ROUTES`. Handlers are plain functions of a request. They run in threads,
in which reading a dataset stops when the client has disconnected or the time limit has passed
(`dosna.core.stopping`). They read only through `Served`, which enforces what is served, and raise
`dosna.web.Refusal` for requests that they do not answer; `dosna.web.refusal_of` turns other errors
into answers. See docs/design/serve.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dosna.registry import lazily

if TYPE_CHECKING:
    from dosna.serve.app import create_app
    from dosna.serve.running import serve
    from dosna.serve.served import Served

__all__ = ["Served", "create_app", "serve"]

_PLACES = {"Served": "served", "create_app": "app", "serve": "running"}
# starlette is imported when it is needed.
__getattr__ = lazily(__name__, _PLACES, "the server needs", "view")
