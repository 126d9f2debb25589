"""A mock of S3 in this process: ready at once, and strict about little."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any


@contextmanager
def start_moto() -> Iterator[str]:
    """Serve moto's S3 on a free port, and give its URL."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, *_: object) -> None:
            pass

    moto = DomainDispatcherApplication(create_backend_app)
    writing = threading.Lock()

    def application(environ: Any, start_response: Any) -> Any:
        # Moto looks at a condition and writes in two steps, between which others can write.
        reads = environ["REQUEST_METHOD"] in ("GET", "HEAD")
        with nullcontext() if reads else writing:
            return moto(environ, start_response)

    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
