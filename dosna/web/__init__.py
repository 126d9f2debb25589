"""The HTTP servers of dosna: access, errors, limits and running.

These parts protect and run any ASGI application; they know nothing about datasets:

`Access`
    the rules for access: a token, names of the host, origins, methods. ``Access.of(host, token)``
    creates a random token if none is given, and refuses to listen on another interface than
    loopback without a token.
`protect(app, access, limits)`
    the application behind the guard. A request needs the token as ``Authorization: Bearer``, as
    ``?token=`` (answered by 303 to the same address without it, and an HttpOnly cookie), or as the
    first part of the path, ``/@TOKEN/…``, for clients that can do neither. Answers get
    ``Content-Security-Policy`` (unless the application has set one), ``nosniff`` and similar
    headers. Errors become JSON, without the messages of stores.
`Limits`
    the maximum size of an answer (413 with a hint), the seconds until it begins (503), and the
    memory for all answers at a time. `Limits.check_bytes` is for applications that know the size
    before they do the work.
`sharing(nbytes)`
    a block that makes a large answer, or needs memory for it. If other requests have the memory,
    the guard waits, in order, and calls the application again; it answers 503 with ``Retry-After``
    when the seconds are over. Only safe methods wait.
`Refusal(status, message, hint)`
    an error for the client; `refusal_of(error)` returns what a client is told about an exception,
    and `json_refusal(refusal)` is the answer. Starlette and FastAPI applications answer errors
    themselves; create them with ``exception_handlers=HANDLERS``.
`Server(app, access, port=0)`
    a server whose port is bound at once: ``server.url`` (with the token, for browsers),
    ``server.root`` (without the token), ``server.headers`` (for other clients), `server.run()`
    until Ctrl-C, or ``with server:`` in a thread of its own, for tests and Jupyter.
`Streamed(pieces, status_code, headers, media_type)`
    an answer in pieces, whose generator is closed however the answer ends; `in_threads(pieces)`
    iterates over one that waits, as for a store, and closes it in a thread.
`STOP`
    the key of ``scope`` for the request's `dosna.core.stopping.Stop`, which is also the current
    one in the thread that answers: reading a dataset stops between two chunks when the client has
    disconnected or the time limit has passed.

A minimal server::

    access = Access.of("127.0.0.1", None)
    with Server(protect(app, access, Limits()), access) as server:
        httpx.get(server.root, headers=server.headers)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dosna.registry import lazily

if TYPE_CHECKING:
    from dosna.web.access import Access, new_token
    from dosna.web.answers import HANDLERS, Limits, Refusal, json_refusal, refusal_of
    from dosna.web.budget import sharing
    from dosna.web.guard import STOP, protect
    from dosna.web.running import Server
    from dosna.web.streaming import Streamed, in_threads

__all__ = [
    "HANDLERS",
    "STOP",
    "Access",
    "Limits",
    "Refusal",
    "Server",
    "Streamed",
    "in_threads",
    "json_refusal",
    "new_token",
    "protect",
    "refusal_of",
    "sharing",
]

_PLACES = {
    "HANDLERS": "answers",
    "STOP": "guard",
    "Access": "access",
    "Limits": "answers",
    "Refusal": "answers",
    "Server": "running",
    "Streamed": "streaming",
    "in_threads": "streaming",
    "json_refusal": "answers",
    "new_token": "access",
    "protect": "guard",
    "refusal_of": "answers",
    "sharing": "budget",
}
# starlette and uvicorn are imported when they are needed.
__getattr__ = lazily(__name__, _PLACES, "a server needs", "view")
