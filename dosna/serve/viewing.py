"""The verb `view`: the page of H5Web in a notebook."""

from __future__ import annotations

import threading
from html import escape
from urllib.parse import urlencode

from dosna.array.connection import EngineConnection
from dosna.serve.running import serve
from dosna.web import Server

__all__ = ["View", "view"]

_servers: dict[EngineConnection, Server] = {}
_lock = threading.Lock()


class View:
    """A page of H5Web in a notebook, and its server.

    Parameters
    ----------
    server : Server
        The server, which runs in a thread.
    name : str
        The name of the dataset or group that is shown first; '' for the connection.
    height : int
        The height of the frame in pixels.

    Attributes
    ----------
    url : str
        The address of the page. It contains the token, so anybody who has it can use the page.
    """

    def __init__(self, server: Server, name: str, height: int) -> None:
        self.server, self.name, self.height = server, name, height
        # Browsers keep no cookies of pages in frames, so the token is part of the path.
        query = urlencode({"path": f"/{name}"})
        self.url = f"{server.root}/@{server.access.token}/?{query}"

    def __repr__(self) -> str:
        return f"<dosna.View of {self.name or 'all datasets'} at {self.server.root}>"

    def _repr_html_(self) -> str:
        return (
            f'<iframe src="{escape(self.url)}" width="100%" height="{self.height}" '
            'style="border: 1px solid #8888" allow="fullscreen"></iframe>'
        )

    def stop(self) -> None:
        """End the server, and with it all views of the connection."""
        with _lock:
            for con, server in list(_servers.items()):
                if server is self.server:
                    del _servers[con]
        self.server.stop()


def view(con: EngineConnection, name: str = "", *, height: int = 600) -> View:
    """Return a page of H5Web for a notebook. All views of a connection share one server.

    Parameters
    ----------
    con : EngineConnection
        The open connection. It must stay open as long as the page is used.
    name : str
        The name of the dataset or group that is shown first.
    height : int
        The height of the frame in pixels.

    Returns
    -------
    View
        The page, which a notebook displays.
    """
    con.check_connected()
    with _lock:
        server = _servers.get(con)
        if server is None:
            # The address of the notebook is unknown here.
            server = _servers[con] = serve(con, frames=["*"]).start()
    return View(server, name, height)
