"""HTTP: the calls of the ServiceX protocol, the S3 façade, the pages, and users."""

from __future__ import annotations

from dosna.delivery.front.app import make_app
from dosna.delivery.front.serving import open_server

__all__ = ["make_app", "open_server"]
