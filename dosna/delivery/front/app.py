"""The application: the calls of the protocol, the pages, and the S3 façade."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

import dosna
from dosna.delivery.front import datasets, pages, streaming, transformations
from dosna.delivery.front.context import Front, FrontOf, User
from dosna.delivery.front.models import CAPABILITIES
from dosna.delivery.front.tokens import Tokens
from dosna.delivery.objects.facade import Facade
from dosna.delivery.service import Service
from dosna.errors import DosnaError, QueryError, StorageError
from dosna.io.texts import cleaned

__all__ = ["make_app"]

logger = logging.getLogger("dosna.delivery")


def make_app(service: Service) -> FastAPI:
    """Return the application of a service.

    Parameters
    ----------
    service : Service
        The running service.

    Returns
    -------
    FastAPI
        The application. `open_server` puts a guard in front of it that checks the name of the
        host.
    """
    # FastAPI's own documentation pages load scripts from other sites.
    app = FastAPI(title="dosna delivery", version=dosna.__version__, docs_url=None, redoc_url=None)
    users = service.settings.auth == "tokens"
    app.state.front = Front(
        service, Tokens(service.settings, service.state.users) if users else None
    )
    _add_errors(app)
    app.include_router(transformations.router)
    app.include_router(streaming.router)
    app.include_router(datasets.router)
    app.include_router(pages.router)
    _add_own(app)
    facade = Facade(service.state, service.place)

    async def read(request: Request) -> Response:
        found = request.path_params
        return await facade.answer(request, str(found["bucket"]), found.get("key", ""))

    for path in ("/{bucket:uuid}", "/{bucket:uuid}/", "/{bucket:uuid}/{key:path}"):
        app.router.routes.append(Route(path, read, methods=["GET", "HEAD"]))
    return app


def _add_own(app: FastAPI) -> None:
    """Add the calls about the service itself."""

    @app.get("/servicex", tags=["service"])
    def info(front: FrontOf, user: User) -> dict[str, Any]:
        """Return the capabilities of the service."""
        return {
            "app-version": dosna.__version__,
            "code-gen-image": {name: f"dosna/{name}" for name in front.service.codegens()},
            "capabilities": CAPABILITIES,
        }

    @app.post("/token/refresh", tags=["service"])
    def refresh(request: Request, front: FrontOf) -> dict[str, str]:
        """Return an access token for a refresh token."""
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if front.tokens is None:
            raise HTTPException(404, "this service has no users: leave the token out")
        made = front.tokens.access_token(token.strip()) if kind.lower() == "bearer" else None
        if made is None:
            raise HTTPException(401, "the refresh token is not valid: ask for a new one")
        return {"access_token": made}

    @app.get("/health", tags=["service"])
    def health(front: FrontOf) -> JSONResponse:
        """Return whether the service can work."""
        found = front.service.is_healthy()
        good = all(found[part] == "good" for part in ("database", "objects"))
        if front.tokens is not None:
            # Clients without a token learn no more.
            found = {}
        return JSONResponse({"healthy": good, **found}, 200 if good else 503)


def _add_errors(app: FastAPI) -> None:
    """Answer errors with a message that the client shows."""

    def told(status: int, message: str, headers: Any = None) -> JSONResponse:
        return JSONResponse({"message": cleaned(message)}, status, headers)

    @app.exception_handler(pages.NeedsLogin)
    def stranger(request: Request, error: Exception) -> Response:
        return RedirectResponse("/login", 303)

    @app.exception_handler(HTTPException)
    def refused(request: Request, error: HTTPException) -> JSONResponse:
        return told(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        found = error.errors()[0]
        where = ".".join(str(part) for part in found["loc"] if part != "body")
        return told(400, f"the request is not valid: {where or 'body'}: {found['msg']}")

    @app.exception_handler(DosnaError)
    def failed(request: Request, error: DosnaError) -> JSONResponse:
        logger.warning("%s %s failed: %s", request.method, request.url.path, error)
        if isinstance(error, StorageError):
            return told(503, "the service cannot reach its storage: try again")
        if isinstance(error, QueryError):
            return told(400, str(error))
        return told(500, "the service failed: its log says why")

    @app.exception_handler(Exception)
    def unforeseen(request: Request, error: Exception) -> JSONResponse:
        where = f"{request.method} {request.url.path}"
        logger.error("%s failed", where, exc_info=error)
        return told(500, "the service failed: its log says why")
