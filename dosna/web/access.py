"""The rules for access to a server: a token, names of the host, other origins, and methods."""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from dosna.errors import ConfigurationError

__all__ = ["Access", "in_address", "is_loopback", "new_token"]

_TOKEN = re.compile(r"[A-Za-z0-9._~-]{16,256}")
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.\[\]:-]+")
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def new_token() -> str:
    """Return a new random token of 256 bits."""
    return secrets.token_urlsafe(32)


def is_loopback(host: str) -> bool:
    """Return True if only programs on this machine can reach a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def in_address(host: str) -> str:
    """Return a host as it is in addresses."""
    return f"[{host}]" if ":" in host else host


@dataclass(frozen=True)
class Access:
    """The rules for access to a server; created by `of`.

    Attributes
    ----------
    host : str
        The address of the interface to listen on.
    token : str or None
        The token that a request must contain; None if the application checks requests itself.
    hosts : tuple of str
        The names of the host that a request may use, so that a page of another site cannot reach
        the server through a name of its own; empty for any.
    origins : tuple of str
        The other sites whose pages may read the answers (CORS), such as
        ``https://app.example.org``; ``*`` for all.
    frames : tuple of str
        The other sites that may show the pages in a frame.
    methods : tuple of str
        The methods that are allowed.
    """

    host: str
    token: str | None
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    frames: tuple[str, ...] = ()
    methods: tuple[str, ...] = ("GET", "HEAD")

    def __repr__(self) -> str:
        return f"<Access to {self.host} {'with a' if self.token else 'without'} token>"

    @classmethod
    def of(
        cls,
        host: str = "127.0.0.1",
        token: str | None = None,
        *,
        guarded: bool = True,
        origins: Sequence[str] = (),
        frames: Sequence[str] = (),
        methods: Sequence[str] = ("GET", "HEAD"),
    ) -> Access:
        """Check the rules for access, and return them.

        Parameters
        ----------
        host : str
            The address of the interface to listen on.
        token : str, optional
            The token; by default a random one on loopback.
        guarded : bool
            False for an application that checks its clients itself, or that anybody on this
            machine may use. No token is then required unless one is given.
        origins, frames, methods : sequence of str
            See the attributes.

        Raises
        ------
        ConfigurationError
            The host is not loopback and there is no token, or a value is malformed.
        """
        if token is not None and not _TOKEN.fullmatch(token):
            raise ConfigurationError(
                "the token must have 16 to 256 characters, which can be letters, digits and "
                "'-', '.', '_', '~': leave it out to get a random one"
            )
        if token is None and not is_loopback(host):
            raise ConfigurationError(
                f"the server would be open to everybody who can reach {host}: give a token too, "
                "and put a proxy with TLS in front of it, or leave out the host"
            )
        for origin in (*origins, *frames):
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ConfigurationError(
                    f"{origin!r} is not an origin: give one such as https://app.example.org"
                )
        if token is None and guarded:
            token = new_token()
        hosts = (*_LOOPBACK, in_address(host)) if is_loopback(host) else ()
        return cls(host, token, hosts, tuple(origins), tuple(frames), tuple(methods))
