"""Conditional requests and range requests (RFC 9110), and their answers."""

from __future__ import annotations

import re
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from dosna.backends.zarrobjects import ZarrFile
from dosna.io.files import read_range
from dosna.web.answers import Refusal
from dosna.web.connections import send_file

__all__ = [
    "FileAnswer",
    "Wanted",
    "answer",
    "check_same",
    "etag_of",
    "matches",
    "not_modified",
    "wanted",
]

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_TAG = re.compile(r'(W/)?("[\x21\x23-\x7e]*")')
_UNUSUAL = re.compile(r"[^A-Za-z0-9._:+-]")


class Wanted(NamedTuple):
    """The requested part of an object, as for `ZarrObjects.get`."""

    start: int | None = None
    stop: int | None = None

    @property
    def is_part(self) -> bool:
        """True if the request has a range."""
        return self.start is not None


def etag_of(version: str) -> str:
    """Return the ETag of a version; '' if there is none."""
    return f'"{_UNUSUAL.sub("", version)}"' if version else ""


def matches(header: str | None, etag: str) -> bool:
    """Return True if the header If-None-Match names an ETag."""
    if not header or not etag:
        return False
    return header.strip() == "*" or any(etag == tag for _, tag in _TAG.findall(header))


def check_same(request: Request, etag: str) -> None:
    """Raise a Refusal of status 412 if a request is on condition of another ETag (If-Match)."""
    header = request.headers.get("if-match")
    if header is None or header.strip() == "*" or (etag and ("", etag) in _TAG.findall(header)):
        return
    headers = {"ETag": etag} if etag else None
    raise Refusal(412, "it was changed", "ask for it without If-Match", headers)


def wanted(request: Request, etag: str | None = None) -> Wanted:
    """Return the range of a request. Several ranges and other units are ignored.

    Parameters
    ----------
    request : Request
        The request.
    etag : str, optional
        The current ETag, for a range on the condition that it is the same (If-Range).

    Raises
    ------
    Refusal
        The range is empty for every size (416).
    """
    if request.method != "GET":
        return Wanted()  # only GET has ranges
    found = _RANGE.fullmatch(request.headers.get("range", "").replace(" ", ""))
    condition = request.headers.get("if-range")
    if found is None or found[0] == "bytes=-" or (condition and condition != etag):
        return Wanted()
    first, last = found.groups()
    if not first:
        if not int(last):
            raise Refusal(416, "the range is empty")
        return Wanted(-int(last))
    if last and int(last) < int(first):
        return Wanted()
    return Wanted(int(first), int(last) + 1 if last else None)


def answer(
    part: Wanted,
    data: bytes | memoryview,
    size: int,
    etag: str,
    kind: str = "application/octet-stream",
    *,
    head: bool = False,
) -> Response:
    """Return the answer with an object, or with a part of it.

    Parameters
    ----------
    part : Wanted
        The requested part.
    data : bytes or memoryview
        The bytes of that part; empty with `head`.
    size : int
        The size of the object.
    etag : str
        The ETag; '' for none.
    kind : str
        The content type.
    head : bool
        Whether to answer a HEAD, with the length and no bytes.

    Raises
    ------
    Refusal
        The range contains no byte (416).
    """
    headers = _headers(etag)
    if head:
        return Response(headers={**headers, "Content-Length": str(size)}, media_type=kind)
    if not part.is_part:
        return Response(data, headers=headers, media_type=kind)
    start = part.start or 0
    start = max(0, size + start) if start < 0 else start
    if start >= size:
        raise Refusal(
            416,
            "the range contains no byte of the object",
            headers={"Content-Range": f"bytes */{size}"},
        )
    headers["Content-Range"] = f"bytes {start}-{start + len(data) - 1}/{size}"
    return Response(data, 206, headers, kind)


def _headers(etag: str) -> dict[str, str]:
    headers = {"Accept-Ranges": "bytes", "Cache-Control": "private, no-cache"}
    if etag:
        headers["ETag"] = etag
    return headers


class FileAnswer(Response):
    """The answer with an object that is a file, which the system sends if it can."""

    def __init__(self, found: ZarrFile, etag: str) -> None:
        headers = {**_headers(etag), "Content-Length": str(found.size)}
        super().__init__(headers=headers, media_type="application/octet-stream")
        self._found = found

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        file, size, _ = self._found
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        sent = send_file(scope, file, size)
        rest = read_range(file, sent, size - sent) if sent < size else b""
        await send({"type": "http.response.body", "body": rest})


def not_modified(etag: str) -> Response:
    """Return the answer that the client's copy is still valid."""
    return Response(status_code=304, headers={"ETag": etag, "Cache-Control": "private, no-cache"})
