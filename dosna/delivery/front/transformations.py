"""The calls about requests."""

from __future__ import annotations

import asyncio
import json
import threading
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Query, Request
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

import dosna
from dosna.delivery.destinations import check_destination
from dosna.delivery.front.context import Front, FrontOf, User, is_foreign
from dosna.delivery.front.models import Submission, result_of, status_of
from dosna.delivery.running.submitting import Refused
from dosna.delivery.state.requests import Submitted
from dosna.delivery.transform import FORMATS
from dosna.delivery.transform.streaming import STREAMED
from dosna.io.texts import is_text

__all__ = ["router"]

router = APIRouter(prefix="/servicex/transformation", tags=["transformations"])

_KNOWN_TO_CLIENTS = ("parquet", "root-file", "root-rntuple")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


_BODY = {"content": {"application/json": {"schema": Submission.model_json_schema()}}}
_parsing = threading.Lock()
"""One large body at a time: what it becomes takes many times its size."""


def _parsed(data: bytes) -> Submission:
    try:
        with _parsing:
            return Submission.model_validate_json(data)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in found["loc"]) or "JSON in Unicode"
        raise HTTPException(400, f"the request is not valid: {where}: {found['msg']}") from None


@router.post("", openapi_extra={"requestBody": {"required": True, **_BODY}})
async def submit(request: Request, front: FrontOf, user: User) -> dict[str, str]:
    """Submit a request. Its first file is transformed before the answer, if time permits."""
    service = front.service
    # Not a parameter, which would be read and parsed before the user is known.
    body = await run_in_threadpool(_parsed, await request.body())
    destination = await run_in_threadpool(_check, body, front, user)
    given = None if body.file_list is None else json.dumps(body.file_list)
    did = body.did or "File List Provided in Request"
    what = Submitted(
        *(user, body.title, did, given, body.selection, body.codegen, body.result_format),
        destination,
    )
    row = await run_in_threadpool(service.accept, what)
    if isinstance(row, Refused):
        raise HTTPException(429, row.message)
    # Not in a thread, because many requests may wait for their first files at the same time.
    prepared = asyncio.wrap_future(service.prepare(row))
    try:
        patience = service.settings.preflight_seconds
        refused = await asyncio.wait_for(asyncio.shield(prepared), patience)
    except TimeoutError:
        # The work continues, and the client follows it by the status.
        refused = None
    await run_in_threadpool(service.answer, row, refused)
    if refused is not None:
        raise HTTPException(400, refused.message)
    return {"request_id": row.id}


def _check(body: Submission, front: Front, user: str) -> str | None:
    """Raise an HTTPException for what cannot be asked for; return the destination of results."""
    service = front.service
    if (body.did is None) == (body.file_list is None):
        raise HTTPException(400, "a request has either a 'did' or a 'file-list'")
    if body.file_list is not None and not body.file_list:
        raise HTTPException(400, "the list of files is empty")
    if any(not is_text(path) for path in body.file_list or ()):
        raise HTTPException(400, "the list of files has text that is not Unicode")
    codegens = service.codegens()
    if body.codegen not in codegens:
        raise HTTPException(
            400, f"there is no code generator {body.codegen!r}: use {', '.join(codegens)}"
        )
    if body.result_format not in FORMATS:
        raise HTTPException(
            400, f"there is no result format {body.result_format!r}: use {', '.join(FORMATS)}"
        )
    destination = check_destination(
        body.result_destination, None if front.tokens is None else user, service.settings
    )
    if destination is not None and body.result_format not in STREAMED:
        raise HTTPException(
            400,
            f"results in {body.result_format} cannot go to a connection: use one of "
            f"{', '.join(STREAMED)}",
        )
    limit = service.settings.files_limit
    if body.file_list is not None and len(body.file_list) > limit:
        raise HTTPException(
            400, f"the request has {len(body.file_list)} files, and the limit is {limit}"
        )
    return destination


@router.get("")
def list_all(request: Request, front: FrontOf, user: User, every: bool = False) -> dict[str, Any]:
    """Return the requests of the user.

    Those whose format or destination ServiceX's client does not know are among them with `every`:
    it would refuse the whole list.
    """
    rows = front.service.state.requests.of(user)
    known = [row for row in rows if row.format in _KNOWN_TO_CLIENTS and not row.destination]
    shown = rows if every else known
    return {"requests": [_status(row, request, front) for row in shown]}


@router.get("/{id}")
async def status(id: str, request: Request, front: FrontOf, user: User) -> JSONResponse:
    """Return how a request stands."""
    # Clients ask for this most often: mostly it needs neither the database nor a thread.
    row = front.service.state.requests.held(id)
    if row is None or row.owner != user:
        row = await run_in_threadpool(front.request_of, id, user)
    return JSONResponse(_status(row, request, front))


@router.get("/{id}/status")
async def status_also(id: str, request: Request, front: FrontOf, user: User) -> JSONResponse:
    """Return how a request stands."""
    return await status(id, request, front, user)


@router.get("/{id}/results")
def results(
    id: str,
    front: FrontOf,
    user: User,
    later_than: str | None = None,
    status: str | None = Query(None, pattern="^(success|failure)$"),
) -> JSONResponse:
    """Return the outcomes of files, from a time on."""
    request = front.request_of(id, user)
    rows = front.service.state.files.results(id, _microseconds(later_than), status)
    is_file = request.destination is None
    return JSONResponse({"results": [result_of(row, is_file) for row in rows]})


@router.get("/{id}/cancel")
@router.post("/{id}/cancel", include_in_schema=False)
def cancel(id: str, request: Request, front: FrontOf, user: User) -> dict[str, str]:
    """Cancel a request and delete its results. A request that has ended is not changed."""
    if is_foreign(request):
        raise HTTPException(403, "pages of other sites must not change anything here")
    front.request_of(id, user)
    front.service.cancel(id)
    now = front.request_of(id, user).status
    done = "is cancelled" if now == "Canceled" else f"has ended before: it is {now}"
    return {"message": f"the request {id} {done}"}


@router.delete("/{id}")
def delete(id: str, front: FrontOf, user: User) -> dict[str, str]:
    """Delete a request with its results."""
    front.request_of(id, user)
    front.service.delete(id)
    return {"message": f"the request {id} is deleted"}


def _status(row: Any, request: Request, front: Any) -> dict[str, Any]:
    host, secured = front.objects_host(request)
    return status_of(row, dosna.__version__, front.base(request), host, secured)


def _microseconds(text: str | None) -> int:
    """Return a time in ISO 8601 as microseconds since 1970; 0 for earlier ones."""
    if text is None:
        return 0
    try:
        # An unescaped plus arrives as a space.
        found = datetime.fromisoformat(text.strip().replace(" ", "+") if "T" in text else text)
    except ValueError:
        raise HTTPException(400, f"later_than={text!r} is not a time of ISO 8601") from None
    found = found.replace(tzinfo=found.tzinfo or UTC)
    if found.year < 1970:
        return 0
    since = found - _EPOCH
    return (since.days * 86400 + since.seconds) * 10**6 + since.microseconds
