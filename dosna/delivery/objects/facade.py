"""The S3 façade for clients: a bucket for each request, readable with the keys of that request.

Nothing can be written. A listing contains the results in the database, and therefore neither
results that are not counted yet nor those of a cancelled request.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import formatdate
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from xml.sax.saxutils import escape

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from dosna.delivery.objects.places import ObjectPlace
from dosna.delivery.objects.signing import Asked, SignatureError, access_key_of, check
from dosna.errors import DosnaError, QueryError
from dosna.web import Streamed, in_threads

if TYPE_CHECKING:
    from dosna.delivery.state import State

__all__ = ["Facade"]

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
_PAGE = 1000
_STATUS = {"NoSuchKey": 404, "NoSuchBucket": 404, "InvalidRange": 416, "SlowDown": 503}


class Facade:
    """The read-only S3 façade.

    Parameters
    ----------
    state : State
        The tables.
    place : ObjectPlace
        The results.
    """

    def __init__(self, state: State, place: ObjectPlace) -> None:
        self._state, self._place = state, place

    async def answer(self, request: Request, bucket: str, key: str = "") -> Response:
        """Answer an S3 request.

        Parameters
        ----------
        request : Request
            The request.
        bucket, key : str
            The bucket, and the name of an object; empty for the bucket itself.
        """
        return await run_in_threadpool(self._answer, request, bucket, key)

    def _answer(self, request: Request, bucket: str, key: str) -> Response:
        asked = Asked(
            request.method,
            request.scope["raw_path"].decode("latin-1").partition("?")[0],
            request.url.query,
            {name.lower(): value for name, value in request.headers.items()},
        )
        try:
            # For keys of a request that does not exist, the answer does not reveal that.
            row = self._state.requests.get(bucket)
            if row is None or row.access_key != access_key_of(asked):
                raise SignatureError(
                    "AccessDenied",
                    "the key does not open this bucket: if its request has expired or was "
                    "deleted, submit it again, with ignore_local_cache=True",
                )
            check(asked, row.secret_key)
            return self._list(asked, bucket) if not key else self._object(request, bucket, key)
        except SignatureError as error:
            return _error(error.code, str(error))
        except QueryError:
            # The database cannot contain such a name.
            return _error("NoSuchKey", "there is no such object")
        except DosnaError:
            return _error("SlowDown", "the service cannot read the results now")

    def _list(self, asked: Asked, bucket: str) -> Response:
        """List a bucket, in pages."""
        query = dict(asked.pairs())
        if "location" in query:
            return _xml("<LocationConstraint/>")
        most = query.get("max-keys", "")
        limit = min(_PAGE, int(most)) if re.fullmatch("[0-9]{1,9}", most) else _PAGE
        after = query.get("continuation-token") or query.get("start-after") or ""
        after = query.get("marker", after) if query.get("list-type") != "2" else after
        shown: Callable[[str], str] = quote if query.get("encoding-type") == "url" else escape
        prefix = query.get("prefix", "")
        rows = self._state.files.objects(bucket, after, limit + 1, prefix)
        cut = len(rows) > limit
        rows = rows[:limit]
        parts = [f"<Name>{bucket}</Name><Prefix>{shown(prefix)}</Prefix>"]
        parts.append(f"<KeyCount>{len(rows)}</KeyCount><MaxKeys>{limit}</MaxKeys>")
        if query.get("encoding-type") == "url":
            parts.append("<EncodingType>url</EncodingType>")
        parts.append(f"<IsTruncated>{str(cut).lower()}</IsTruncated>")
        if cut and rows:
            last = shown(rows[-1].object)
            parts.append(f"<NextContinuationToken>{last}</NextContinuationToken>")
            parts.append(f"<NextMarker>{last}</NextMarker>")
        for row in rows:
            time = datetime.fromtimestamp(row.created / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            parts.append(
                f"<Contents><Key>{shown(row.object)}</Key><LastModified>{time}</LastModified>"
                f"<ETag>{_etag(row)}</ETag><Size>{row.nbytes}</Size>"
                "<StorageClass>STANDARD</StorageClass></Contents>"
            )
        return _xml(f"<ListBucketResult>{''.join(parts)}</ListBucketResult>")

    def _object(self, request: Request, bucket: str, key: str) -> Response:
        """Answer a request for an object or a range of it."""
        row = self._state.files.object(bucket, key)
        if row is None:
            return _error("NoSuchKey", "there is no such object")
        headers = {
            "ETag": _etag(row),
            "Last-Modified": formatdate(row.created / 1e6, usegmt=True),
            "Accept-Ranges": "bytes",
            "Content-Disposition": "attachment",
            "Cache-Control": "private, no-store",
        }
        kind = "application/octet-stream"
        path = self._place.path(bucket, key)
        if path is not None:
            if not os.path.isfile(path):
                return _error("NoSuchKey", "the object was deleted")
            return FileResponse(path, headers=headers, media_type=kind)
        size = int(row.nbytes)
        start, stop, status = 0, size, 200
        if (asked := _RANGE.fullmatch(request.headers.get("range", ""))) and any(asked.groups()):
            first, last = asked.groups()
            start = int(first) if first else max(0, size - int(last))
            stop = min(size, int(last) + 1) if first and last else size
            if start >= stop:
                return _error("InvalidRange", "the object has no such range")
            status = 206
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        headers["Content-Length"] = str(stop - start)
        if request.method == "HEAD":
            return Response(status_code=status, headers=headers, media_type=kind)
        body = self._place.read(bucket, key, start, stop)
        return Streamed(in_threads(body), status, headers, kind)


def _etag(row: Any) -> str:
    return f'"{row.created:x}-{row.nbytes:x}"'


def _xml(text: str, status: int = 200) -> Response:
    return Response(
        '<?xml version="1.0" encoding="UTF-8"?>' + text, status, media_type="application/xml"
    )


def _error(code: str, message: str) -> Response:
    text = f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
    return _xml(text, _STATUS.get(code, 403))
