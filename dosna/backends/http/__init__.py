"""The backends ``http`` and ``https``: Zarr v3 on any web server, to be read."""

from dosna.backends.http.connection import BACKEND, HttpConnection

__all__ = ["BACKEND", "HttpConnection"]
