"""The context of every call: the service, the user, and the address of the service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from dosna.delivery.front.tokens import NOBODY, Tokens
from dosna.delivery.service import Service
from dosna.delivery.state.requests import Row

__all__ = ["COOKIE", "Front", "FrontOf", "User", "is_foreign", "user_of"]

COOKIE = "dosna-delivery"
"""The cookie of the pages, with a refresh token."""


@dataclass(frozen=True)
class Front:
    """The service behind the front.

    Parameters
    ----------
    service : Service
        The service.
    tokens : Tokens or None
        The tokens; None without users.
    """

    service: Service
    tokens: Tokens | None

    def base(self, request: Request) -> str:
        """Return the URL of the service as the client sees it."""
        given = self.service.settings.public_url
        return given.rstrip("/") if given else f"{request.url.scheme}://{request.url.netloc}"

    def objects_host(self, request: Request) -> tuple[str, bool]:
        """Return the host and port of the S3 façade, and whether it uses TLS."""
        parts = urlsplit(self.base(request))
        return parts.netloc, parts.scheme == "https"

    def request_of(self, id: str, user: str) -> Row:
        """Return a request of a user.

        Raises
        ------
        HTTPException
            There is none.
        """
        row = self.service.find(id, user)
        if row is None:
            raise HTTPException(404, f"there is no request {id}: it may have been deleted")
        return row


async def _front_of(request: Request) -> Front:
    """Return the front of an application."""
    # A plain function would be called in a thread.
    return _front(request)


def _front(request: Request) -> Front:
    found: Front = request.app.state.front
    return found


def is_foreign(request: Request) -> bool:
    """Return whether a request comes from a page of another site."""
    site = request.headers.get("sec-fetch-site", "none")
    origin = request.headers.get("origin")
    own = f"{request.url.scheme}://{request.url.netloc}"
    given = _front(request).service.settings.public_url or own
    foreign = origin is not None and origin not in (own, given.rstrip("/"))
    return foreign or site not in ("none", "same-origin")


async def user_of(request: Request) -> str:
    """Return the user who makes a call.

    Raises
    ------
    HTTPException
        The call has no valid token, or comes from a page of another site.
    """
    if request.method not in ("GET", "HEAD") and is_foreign(request):
        raise HTTPException(403, "pages of other sites must not change anything here")
    tokens = _front(request).tokens
    if tokens is None:
        return NOBODY
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    user = None
    if kind.lower() == "bearer":
        user = await run_in_threadpool(tokens.user, token.strip())
    if user is None:
        raise HTTPException(
            401,
            "the call has no valid access token: give the refresh token as 'token' in "
            "servicex.yaml",
            {"WWW-Authenticate": "Bearer"},
        )
    return user


FrontOf = Annotated[Front, Depends(_front_of)]
User = Annotated[str, Depends(user_of)]
