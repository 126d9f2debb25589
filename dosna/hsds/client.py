"""Requests to an HSDS server, and the meaning of their failures."""

from __future__ import annotations

import json
import os
import random
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import requests
import urllib3
from h5pyd.config import get_config
from h5pyd.httpconn import HttpConn

from dosna.core.types import Json
from dosna.errors import (
    ConfigurationError,
    ConnectionError,
    DosnaError,
    StorageError,
    StoreTimeoutError,
)
from dosna.hsds.sockets import SocketAdapter

__all__ = ["Failure", "HsdsClient", "HsdsOptions", "domain_of"]

IN_FLIGHT = 4
"""Number of requests that one caller has under way at a time."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_CONNECT_SECONDS = 5.0
_TRANSIENT = {429, 500, 502, 503, 504}
_NEVER_DONE = {429, 503}
_PAGE = 1000

_UNREACHABLE = "the server cannot be reached"
_TIMED_OUT = "no answer in time"
_CUT = "the connection broke"


@dataclass(frozen=True)
class HsdsOptions:
    """The options for reaching a server.

    They may be sent to other processes, together with the password if one was given here.

    Parameters
    ----------
    endpoint, username, password, bucket : str, optional
        The server, the credentials and the bucket. None takes the value from the environment or
        from ``~/.hscfg``.
    timeout : float
        The seconds that one request may wait for its answer to begin, or to go on.
    retries : int
        The number of times that a request is repeated after a failure that may pass.
    """

    endpoint: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    bucket: str | None = None
    timeout: float = 30.0
    retries: int = 5


def domain_of(location: str) -> str:
    """Return the path of a domain: the part after ``hdf5:/``.

    Raises
    ------
    ConfigurationError
        If the location names no domain.
    """
    path = "/" + location.removeprefix("hdf5:").strip("/")
    if path == "/":
        raise ConfigurationError(
            f"{location!r} names no domain: write hdf5://home/user/scan.h5, or hdf5://home/user/ "
            "for all domains of a folder"
        )
    return path


class Failure(Exception):
    """The reason why one request failed. It contains nothing of what was sent."""

    def __init__(
        self, kind: str, status: int = 0, reason: str = "", error: type[DosnaError] = StorageError
    ) -> None:
        super().__init__(kind, status, reason)
        self.kind = kind
        self.status = status
        self.reason = reason
        self.error = error

    def __str__(self) -> str:
        found = f"HTTP {self.status} {self.reason}".strip() if self.status else self.reason
        return f"{self.kind} ({found})" if found else self.kind

    @property
    def absent(self) -> bool:
        """True if the domain or object does not exist (any more)."""
        # "not a member": the domain was deleted, and another one was created under its name.
        return self.status in (404, 410) or "not a member" in self.reason

    @property
    def transient(self) -> bool:
        """True if the same request may succeed later."""
        if self.status:
            return self.status in _TRANSIENT
        return self.kind in (_UNREACHABLE, _TIMED_OUT, _CUT)

    @property
    def may_be_done(self) -> bool:
        """True if the requested change may have happened, or may still happen."""
        return self.transient and self.status not in _NEVER_DONE and self.kind != _UNREACHABLE


class HsdsClient:
    """A client of one server, for any number of threads; ``close()`` ends its connections.

    Parameters
    ----------
    options : HsdsOptions

    Raises
    ------
    ConfigurationError
        If the address of the server is not known.
    """

    def __init__(self, options: HsdsOptions) -> None:
        self.options = options
        known = get_config()

        def found(given: str | None, name: str) -> str | None:
            # h5pyd reads the environment only once.
            return given or os.environ.get(name) or known.get(name.lower(), None) or None

        endpoint = found(options.endpoint, "HS_ENDPOINT")
        if endpoint is None:
            raise ConfigurationError(
                "it is not known where HSDS is: set HS_ENDPOINT (and HS_USERNAME, HS_PASSWORD), "
                "run hsconfigure, or give endpoint="
            )
        self._known = HttpConn(
            None,
            endpoint=endpoint,
            username=found(options.username, "HS_USERNAME"),
            password=found(options.password, "HS_PASSWORD"),
            bucket=found(options.bucket, "HS_BUCKET"),
            api_key=found(None, "HS_API_KEY"),
        )
        self.endpoint = str(self._known.endpoint)
        self.username = self._known.username or "nobody"
        self._bucket = found(options.bucket, "HS_BUCKET")
        # A connection is used by one thread at a time, and by one process only.
        self._process = os.getpid()
        self._idle: list[requests.Session] = []
        self.close = weakref.finalize(self, _close, self._idle)

    def error(self, failure: Failure, what: str) -> DosnaError:
        """Return the error that says what could not be done."""
        advice = {
            401: f": user {self.username!r} or the password is wrong, see HS_USERNAME and "
            "HS_PASSWORD",
            403: f": user {self.username!r} has no right to it, ask its owner for one (hsacl)",
        }.get(failure.status, "")
        return failure.error(f"{what} at {self.endpoint}: {failure}{advice}")

    def get(self, path: str, domain: str, **params: Any) -> Json:
        """Request a description."""
        return self._json(self._tried("GET", path, domain, params))

    def get_bytes(self, path: str, domain: str, **params: Any) -> bytes:
        """Request elements, in the form that they have in memory."""
        return self._tried("GET", path, domain, params, accept="application/octet-stream")

    def put(self, path: str, domain: str, body: Any = None, **params: Any) -> Json:
        """Create or change something, by a request that is safe to repeat (idempotent)."""
        return self._json(self._tried("PUT", path, domain, params, body))

    def put_bytes(self, path: str, domain: str, body: bytes, **params: Any) -> None:
        """Write elements, in the form that they have in memory."""
        self._tried("PUT", path, domain, params, body, content="application/octet-stream")

    def post(self, path: str, domain: str, body: Any, **params: Any) -> Json:
        """Create something, by a request that would create two things if it were repeated."""
        return self._json(self._tried("POST", path, domain, params, body, again=False))

    def delete(self, path: str, domain: str, **params: Any) -> None:
        """Delete a domain or an object, if it exists."""
        try:
            self._tried("DELETE", path, domain, params)
        except Failure as failure:
            if not failure.absent:
                raise

    def domains(self, folder: str, pattern: str | None = None) -> Iterator[Json]:
        """List the contents of a folder, without those of the folders in it.

        Servers that do not know patterns (with one ``*``) list everything.
        """
        marker: Json = {}
        chosen = {} if pattern is None else {"pattern": pattern}
        while True:
            path = f"{folder.rstrip('/')}/"
            found = self.get("/domains", path, Limit=_PAGE, **chosen, **marker)
            listed = found["domains"]
            yield from listed
            if len(listed) < _PAGE:
                return
            marker = {"Marker": listed[-1]["name"]}

    @staticmethod
    def _json(answer: bytes) -> Json:
        found: Json = json.loads(answer) if answer.strip() else {}
        return found or {}

    def _tried(
        self,
        method: str,
        path: str,
        domain: str,
        params: Mapping[str, Any],
        body: Any = None,
        accept: str = "application/json",
        content: str = "application/json",
        again: bool = True,
    ) -> bytes:
        data = body
        if content == "application/json":
            data = None if body is None else json.dumps(body).encode()
        pause = _FIRST_PAUSE
        for left in reversed(range(self.options.retries + 1)):
            try:
                return self._once(method, path, domain, params, data, accept, content)
            except Failure as failure:
                if not left or not failure.transient or (failure.may_be_done and not again):
                    raise
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, _LONGEST_PAUSE)
        raise AssertionError

    def _once(
        self,
        method: str,
        path: str,
        domain: str,
        params: Mapping[str, Any],
        data: Any,
        accept: str,
        content: str,
    ) -> bytes:
        asked = {"domain": domain, **params}
        if self._bucket:
            asked["bucket"] = self._bucket
        headers = {"accept": accept}
        if data is not None:
            headers["Content-Type"] = content
        session = self._session()
        try:
            answer, found = self._asked(session, method, path, asked, headers, data)
        except BaseException as error:
            # A connection whose answer was not read to its end cannot be used again.
            session.close()
            broken = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)
            if isinstance(error, broken):
                raise _broken(error) from None
            raise
        self._idle.append(session)
        if answer.status_code not in (200, 201, 204):
            raise _answered(answer.status_code, str(answer.reason or ""))
        return found

    def _asked(
        self,
        session: requests.Session,
        method: str,
        path: str,
        params: Json,
        headers: Mapping[str, str],
        data: Any,
    ) -> tuple[requests.Response, bytes]:
        """Send a request and read its answer to the end."""
        with session.request(
            method,
            self.endpoint + path,
            params=params,
            data=data,
            headers=headers,
            timeout=(min(_CONNECT_SECONDS, self.options.timeout), self.options.timeout),
            verify=self._known.verifyCert(),
            stream=True,
            allow_redirects=False,
        ) as answer:
            # Read in one piece: requests itself reads in pieces of 10 KiB.
            found: bytes = answer.raw.read(decode_content=True)
            expected = answer.headers.get("Content-Length")
            encoded = "Content-Encoding" in answer.headers
            if expected is not None and not encoded and len(found) < int(expected):
                raise urllib3.exceptions.ProtocolError("the answer ends early")
        return answer, found

    def _session(self) -> Any:
        if self._process != os.getpid():
            # The connections belong to the parent process. The finalizer keeps this same list.
            self._process = os.getpid()
            self._idle.clear()
        with suppress(IndexError):
            return self._idle.pop()
        made = requests.Session()
        if self.endpoint.startswith("http+unix://"):
            made.mount("http+unix://", SocketAdapter(self.endpoint))
        # Prevent requests from using an entry of ~/.netrc for this host.
        made.auth = self._authorized
        return made

    def _authorized(self, request: Any) -> Any:
        request.headers.update(self._known.getHeaders(headers={"Accept-Encoding": "identity"}))
        return request


def _close(sessions: list[requests.Session]) -> None:
    for session in sessions:
        session.close()
    sessions.clear()


def _broken(error: Exception) -> Failure:
    # Errors of requests and of urllib3 wrap each other.
    timeouts = (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)
    if isinstance(error, requests.exceptions.SSLError):
        return Failure(
            "its certificate does not verify: name its authority by REQUESTS_CA_BUNDLE",
            error=ConnectionError,
        )
    if isinstance(error, requests.ConnectTimeout):
        return Failure(_UNREACHABLE, reason="no answer", error=ConnectionError)
    if isinstance(error, timeouts) or "timed out" in str(error):
        return Failure(_TIMED_OUT, error=StoreTimeoutError)
    if isinstance(error, requests.ConnectionError):
        reason = _reason(error)
        refused = isinstance(reason, (ConnectionRefusedError, FileNotFoundError))
        if refused or "establish a new connection" in str(error):
            return Failure(_UNREACHABLE, reason=_text(reason), error=ConnectionError)
        return Failure(_CUT, reason=_text(reason), error=ConnectionError)
    if isinstance(error, (urllib3.exceptions.HTTPError, OSError)) and not isinstance(
        error, requests.RequestException
    ):
        return Failure(_CUT, error=ConnectionError)
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return Failure(_CUT, error=ConnectionError)
    return Failure(f"the request cannot be made: {type(error).__name__}", error=ConfigurationError)


def _reason(error: BaseException) -> BaseException:
    """Return the system error that caused another error; that error itself if there is none."""
    seen: list[Any] = [error]
    while seen:
        found = seen.pop()
        if isinstance(found, OSError) and not isinstance(found, requests.RequestException):
            return found
        if isinstance(found, BaseException):
            seen += [found.__cause__, getattr(found, "reason", None), *found.args]
    return error


def _text(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or "")


def _answered(status: int, reason: str) -> Failure:
    if status == 401:
        return Failure("the credentials are refused", status, reason, ConnectionError)
    if status == 403:
        return Failure("access is denied", status, reason)
    return Failure("the request failed", status, reason)
