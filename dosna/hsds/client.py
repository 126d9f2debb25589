"""Requests to an HSDS server, and what their failures mean."""

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
"""How many requests of one caller are under way at a time."""

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
    """How to reach a server; it may travel, with the password if one was given here.

    Parameters
    ----------
    endpoint, username, password, bucket : str, optional
        As the environment and ``~/.hscfg`` say, where they are None.
    timeout : float
        Seconds that one request may take until its answer begins, or goes on.
    retries : int
        How often a request is repeated after a failure that may pass.
    """

    endpoint: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    bucket: str | None = None
    timeout: float = 30.0
    retries: int = 5


def domain_of(location: str) -> str:
    """Give the path of a domain: what follows ``hdf5:/``.

    Raises
    ------
    ConfigurationError
        It names nothing.
    """
    path = "/" + location.removeprefix("hdf5:").strip("/")
    if path == "/":
        raise ConfigurationError(
            f"{location!r} names no domain: write hdf5://home/user/scan.h5, or hdf5://home/user/ "
            "for all domains of a folder"
        )
    return path


class Failure(Exception):
    """Why one request failed, without anything of what was sent."""

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
        """Whether there is no such domain or object, or no longer."""
        # The last: a domain of that name was made anew.
        return self.status in (404, 410) or "not a member" in self.reason

    @property
    def transient(self) -> bool:
        """Whether the same request may work later."""
        if self.status:
            return self.status in _TRANSIENT
        return self.kind in (_UNREACHABLE, _TIMED_OUT, _CUT)

    @property
    def may_be_done(self) -> bool:
        """Whether what was asked may have happened, or may still happen."""
        return self.transient and self.status not in _NEVER_DONE and self.kind != _UNREACHABLE


class HsdsClient:
    """Requests to one server, by any number of threads; ``close()`` ends its connections.

    Raises
    ------
    ConfigurationError
        It is not known where the server is.
    """

    def __init__(self, options: HsdsOptions) -> None:
        self.options = options
        known = get_config()

        def found(given: str | None, name: str) -> str | None:
            # h5pyd looks at the environment once, and then no more.
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
        # A connection is one thread's at a time, and of one process.
        self._process = os.getpid()
        self._idle: list[requests.Session] = []
        self.close = weakref.finalize(self, _close, self._idle)

    def error(self, failure: Failure, what: str) -> DosnaError:
        """Give the error that says what could not be done."""
        advice = {
            401: f": user {self.username!r} or the password is wrong, see HS_USERNAME and "
            "HS_PASSWORD",
            403: f": user {self.username!r} has no right to it, ask its owner for one (hsacl)",
        }.get(failure.status, "")
        return failure.error(f"{what} at {self.endpoint}: {failure}{advice}")

    def get(self, path: str, domain: str, **params: Any) -> Json:
        """Ask for a description."""
        return self._json(self._tried("GET", path, domain, params))

    def get_bytes(self, path: str, domain: str, **params: Any) -> bytes:
        """Ask for elements, as they are in memory."""
        return self._tried("GET", path, domain, params, accept="application/octet-stream")

    def put(self, path: str, domain: str, body: Any = None, **params: Any) -> Json:
        """Make or change something; the same request twice does no more than once."""
        return self._json(self._tried("PUT", path, domain, params, body))

    def put_bytes(self, path: str, domain: str, body: bytes, **params: Any) -> None:
        """Write elements, as they are in memory."""
        self._tried("PUT", path, domain, params, body, content="application/octet-stream")

    def post(self, path: str, domain: str, body: Any, **params: Any) -> Json:
        """Make something, which twice would be two."""
        return self._json(self._tried("POST", path, domain, params, body, again=False))

    def delete(self, path: str, domain: str, **params: Any) -> None:
        """Delete a domain or an object; it need not be there."""
        try:
            self._tried("DELETE", path, domain, params)
        except Failure as failure:
            if not failure.absent:
                raise

    def domains(self, folder: str, pattern: str | None = None) -> Iterator[Json]:
        """List what is in a folder, without what is in its folders.

        Servers that do not know of patterns (with one ``*``) give all.
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
            # Whose answer was not read to its end has a connection of no more use.
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
        """Send a request, and read its answer to the end."""
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
            # Of a piece: requests' own way is by 10 KiB.
            found: bytes = answer.raw.read(decode_content=True)
            expected = answer.headers.get("Content-Length")
            encoded = "Content-Encoding" in answer.headers
            if expected is not None and not encoded and len(found) < int(expected):
                raise urllib3.exceptions.ProtocolError("the answer ends early")
        return answer, found

    def _session(self) -> Any:
        if self._process != os.getpid():
            # The parent's connections are not this process's; what closes them has this list.
            self._process = os.getpid()
            self._idle.clear()
        with suppress(IndexError):
            return self._idle.pop()
        made = requests.Session()
        if self.endpoint.startswith("http+unix://"):
            made.mount("http+unix://", SocketAdapter(self.endpoint))
        # Instead of what ~/.netrc may have for this host.
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
    # In the words of requests and of urllib3, which are each other's cause.
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
    """Give the error of the system that another was made of."""
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
