"""The HTTP server of a service, behind the guard of `dosna.web`."""

from __future__ import annotations

from urllib.parse import urlsplit

from dosna.delivery.front.app import make_app
from dosna.delivery.front.bodies import LimitedBodies
from dosna.delivery.service import Service
from dosna.errors import ConfigurationError
from dosna.web import Access, Limits, Server, protect
from dosna.web.access import is_loopback

__all__ = ["open_server"]

_MOST_BODY = 32 << 20
_METHODS = ("GET", "HEAD", "POST", "DELETE")


def open_server(service: Service) -> Server:
    """Return the server of a service, whose port is bound. It answers while it runs.

    Parameters
    ----------
    service : Service
        The running service.

    Raises
    ------
    ConfigurationError
        The service has no users, and its host is not loopback.
    """
    settings = service.settings
    if settings.auth == "tokens":
        # The application itself checks the users' tokens.
        access = Access(settings.host, None, methods=_METHODS)
    elif not is_loopback(settings.host):
        raise ConfigurationError(
            f"the service would be open to everybody who can reach {settings.host}: add users "
            "with auth='tokens', or leave out the host"
        )
    else:
        access = Access.of(settings.host, guarded=False, methods=_METHODS)
        if settings.public_url:
            name = urlsplit(settings.public_url).hostname or ""
            access = Access(access.host, None, (*access.hosts, name), methods=_METHODS)
    limits = Limits(answer_bytes=None, seconds=None, total_bytes=None)
    app = LimitedBodies(make_app(service), _MOST_BODY)
    return Server(protect(app, access, limits), access, settings.port)
