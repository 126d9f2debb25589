"""A web server as a store of bytes, to be read."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import NoReturn, TypeVar
from urllib.parse import quote

import httpx

from dosna.backends.stores.store import Blob, ByteRange, Store
from dosna.errors import DosnaError, ReadOnlyError, StorageError
from dosna.io.failure import Failure
from dosna.io.http import Http
from dosna.io.parallel import Workers
from dosna.io.retry import repeat

__all__ = ["HttpStore"]

T = TypeVar("T")

_IN_FLIGHT = 32
_BYTES_IN_FLIGHT = 256 << 20
_ABSENT = (404, 410)
_NOT_THERE = 416
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)|bytes \*/(\d+)")


class HttpStore(Store):
    """The files below one address of a web server.

    Parameters
    ----------
    root : str
        The address, without '/' at the end.
    timeout : float
        The seconds that a request may wait.
    retries : int
        The number of attempts after the first.
    token : str, optional
        The token to send as ``Authorization: Bearer``.
    """

    shared_between_processes = True
    conditional_puts = False
    schedules_requests = True

    def __init__(self, root: str, timeout: float, retries: int, token: str | None) -> None:
        headers = {"Accept-Encoding": "identity"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self._root, self._retries = root, retries
        self._http = Http(root + "/", timeout, True, lambda: headers, follow=True)
        self._workers = Workers("dosna-http", _IN_FLIGHT, _BYTES_IN_FLIGHT, blocking=True)

    def get(self, key: str, byte_range: ByteRange | None = None) -> Blob | None:
        answer = self._ask(key, byte_range)
        if answer.status_code in (206, _NOT_THERE) and not _version(answer, 0):
            # Only the whole tells whether two parts are of the same file.
            answer = self._ask(key, None)
        return self._blob(answer, key, byte_range)

    def _ask(self, key: str, byte_range: ByteRange | None) -> httpx.Response:
        headers = {}
        if byte_range is not None:
            start, stop = byte_range
            headers["Range"] = f"bytes={start}-{stop - 1}" if stop else f"bytes={start}"
            if stop is not None and stop <= start:
                raise ValueError(f"the range {byte_range} has no byte")

        def ask() -> httpx.Response:
            done = (200, 206, _NOT_THERE, *_ABSENT)
            return self._http.request("GET", quote(key), headers=headers, done=done)

        try:
            return repeat(ask, self._retries)
        except Failure as failure:
            error = self.error(failure, key)
        # Outside of the handler, because httpx's errors hold the request and its headers.
        raise error

    def _blob(self, answer: httpx.Response, key: str, byte_range: ByteRange | None) -> Blob | None:
        if answer.status_code in _ABSENT:
            return None
        data = answer.content
        found = _RANGE.fullmatch(answer.headers.get("content-range", ""))
        if answer.status_code == _NOT_THERE:
            size = int(found[4]) if found and found[4] else 0
            return Blob(b"", _version(answer, size), None, size)
        if answer.status_code == 200:
            version = _version(answer, len(data))
            version = version or hashlib.blake2b(data, digest_size=12).hexdigest()
            # A server that has no ranges sends all.
            part = data if byte_range is None else data[slice(*byte_range)]
            return Blob(part, version, None, len(data))
        if found is None or not found[3] or byte_range is None:
            raise StorageError(f"{self._root}/{key}: the server sent a part that it does not name")
        first, last, size = int(found[1]), int(found[2]), int(found[3])
        start, stop, _ = slice(*byte_range).indices(size)
        if (first, last) != (start, stop - 1) or len(data) != stop - start:
            raise StorageError(f"{self._root}/{key}: the server sent another part than asked for")
        return Blob(data, _version(answer, size), None, size)

    def error(self, failure: Failure, key: str) -> DosnaError:
        """Return the error for a failure."""
        advice = ""
        if failure.status in (401, 403):
            advice = ": give the token of the server by the option token"
        return failure.error(f"reading {self._root}/{key} failed: {failure}{advice}")

    def put(self, key: str, data: bytes, expected: str | None = None) -> NoReturn:
        raise ReadOnlyError(f"{self._root} is only read: copy its datasets to change them")

    def delete(self, key: str) -> NoReturn:
        raise ReadOnlyError(f"{self._root} is only read: copy its datasets to change them")

    def list(self, prefix: str) -> Iterator[str]:
        raise StorageError(
            f"{self._root}/{prefix} cannot be listed: a web server has no lists of its files. "
            "Open datasets by their names"
        )

    def for_each(self, work: Callable[[T], object], items: Iterable[T], nbytes: int = 0) -> None:
        self._workers.for_each(work, items, nbytes)

    def close(self) -> None:
        self._workers.close()
        self._http.close()


def _version(answer: httpx.Response, size: int) -> str:
    """Return what the server tells of the version of a file, or '' if that is nothing reliable.

    Within the second of its time, a file may have changed again.
    """
    if etag := answer.headers.get("etag"):
        return str(etag)
    times = [answer.headers.get(name, "") for name in ("last-modified", "date")]
    try:
        changed, now = map(parsedate_to_datetime, times)
        return f"{times[0]} {size}" if now - changed >= timedelta(seconds=1) else ""
    except (TypeError, ValueError):
        return ""
