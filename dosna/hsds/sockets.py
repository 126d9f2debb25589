"""HTTP over a Unix socket, ``http+unix://%2Frun%2Fhsds.sock``, for sessions of requests.

requests_unixsocket does the same, but keeps a connection for each URL, which is more than the
server can take.
"""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import unquote, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

__all__ = ["SocketAdapter"]


class _Connection(urllib3.connection.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.settimeout(self.timeout)
            made.connect(self._path)
        except BaseException:
            made.close()
            raise
        self.sock = made


class _Pool(urllib3.connectionpool.HTTPConnectionPool):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def _new_conn(self) -> Any:
        return _Connection(self._path)


class SocketAdapter(HTTPAdapter):
    """An adapter that sends the requests of a session to one socket.

    Parameters
    ----------
    endpoint : str
        A URL ``http+unix://…`` with the quoted path of the socket.
    """

    def __init__(self, endpoint: str) -> None:
        super().__init__()
        self._pool = _Pool(unquote(urlsplit(endpoint).netloc))

    def get_connection_with_tls_context(
        self, request: requests.PreparedRequest, verify: Any, proxies: Any = None, cert: Any = None
    ) -> Any:
        return self._pool

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> Any:
        return request.path_url

    def close(self) -> None:
        self._pool.close()
        super().close()
