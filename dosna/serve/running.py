"""The verb `serve`: a server for a connection, in a thread or until Ctrl-C."""

from __future__ import annotations

from collections.abc import Sequence

from dosna.array.connection import EngineConnection
from dosna.serve.app import create_app
from dosna.web import Access, Limits, Server

__all__ = ["serve"]


def serve(
    con: EngineConnection,
    below: str = "",
    *,
    port: int = 0,
    token: str | None = None,
    host: str = "127.0.0.1",
    origins: Sequence[str] = (),
    frames: Sequence[str] = (),
    limits: Limits | None = None,
) -> Server:
    """Return a server for a connection, whose port is bound and which is not yet running.

    Parameters
    ----------
    con : Connection
        The open connection.
    below : str
        The name of the dataset or group to serve; '' for all.
    port : int
        The port; 0 for a free one.
    token : str, optional
        The token that requests must contain; by default a random one.
    host : str
        The address of the interface to listen on.
    origins : sequence of str
        The other sites whose pages may read the answers.
    frames : sequence of str
        The other sites that may show the pages in a frame.
    limits : Limits, optional
        The limits of answers.

    Returns
    -------
    Server
        The server: ``run()`` answers requests until Ctrl-C, ``start()`` in a thread until
        ``stop()``.

    Raises
    ------
    ConfigurationError
        A host other than loopback is given without a token.
    """
    access = Access.of(host, token, origins=origins, frames=frames)
    return Server(create_app(con, access, below=below, limits=limits), access, port)
