"""Requests to an HSDS server, and the meaning of their failures."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from h5pyd.config import get_config
from h5pyd.httpconn import HttpConn

from dosna.core.types import Json
from dosna.errors import ConfigurationError, DosnaError
from dosna.hsds.http import Failure, Http
from dosna.io.pace import Pacer
from dosna.io.retry import repeat

__all__ = ["Failure", "HsdsClient", "HsdsOptions", "domain_of"]

IN_FLIGHT = 4
"""Number of requests that one caller has under way at a time."""

_PAGE = 1000
_JSON, _BYTES = "application/json", "application/octet-stream"


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

    def found(self, name: str) -> str | None:
        """Return the value given for a field, or that of the environment or of ``~/.hscfg``."""
        key = f"HS_{name.upper()}"
        # h5pyd reads the environment only once.
        given = getattr(self, name, None) or os.environ.get(key)
        return given or get_config().get(key.lower(), None) or None

    def located(self) -> HsdsOptions:
        """Return options by which processes with another environment ask the same server."""
        return replace(self, endpoint=self.found("endpoint"), bucket=self.found("bucket"))


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
            f"{location!r} names no domain: use hdf5://home/user/scan.h5, or hdf5://home/user/ "
            "for all domains of a folder"
        )
    return path


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
        endpoint = options.found("endpoint")
        if endpoint is None:
            raise ConfigurationError(
                "the address of HSDS is unknown: set HS_ENDPOINT (and HS_USERNAME, HS_PASSWORD), "
                "run hsconfigure, or give endpoint="
            )
        connection = HttpConn(
            None,
            endpoint=endpoint,
            **{n: options.found(n) for n in ("username", "password", "bucket", "api_key")},
        )
        self.endpoint = str(connection.endpoint)
        self.username = connection.username or "nobody"
        self._bucket = options.found("bucket")
        self._http = Http(
            self.endpoint,
            options.timeout,
            connection.verifyCert(),
            lambda: connection.getHeaders(headers={"Accept-Encoding": "identity"}),
        )
        self.close = self._http.close
        self._pacer = Pacer(options.timeout)

    def error(self, failure: Failure, what: str) -> DosnaError:
        """Return the error that says what could not be done."""
        advice = {
            401: f": user {self.username!r} or the password is wrong. Check HS_USERNAME and "
            "HS_PASSWORD",
            403: f": user {self.username!r} has no right to it. Ask its owner for one (hsacl)",
        }.get(failure.status, "")
        return failure.error(f"{what} at {self.endpoint}: {failure}{advice}")

    def get(self, path: str, domain: str, **params: Any) -> Json:
        """Request a description."""
        return _decoded(self._request("GET", path, domain, params))

    def get_bytes(self, path: str, domain: str, **params: Any) -> bytes:
        """Request elements, in the form that they have in memory."""
        return self._request("GET", path, domain, params, accept=_BYTES)

    def put(self, path: str, domain: str, body: Any = None, **params: Any) -> Json:
        """Create or change something, by a request that is safe to repeat (idempotent)."""
        return _decoded(self._request("PUT", path, domain, params, _encoded(body)))

    def put_bytes(self, path: str, domain: str, body: bytes, **params: Any) -> None:
        """Write elements, in the form that they have in memory."""
        self._request("PUT", path, domain, params, body, content=_BYTES)

    def post(self, path: str, domain: str, body: Any, **params: Any) -> Json:
        """Create something, by a request that would create two things if it were repeated."""
        return _decoded(self._request("POST", path, domain, params, _encoded(body), safe=False))

    def delete(self, path: str, domain: str, **params: Any) -> None:
        """Delete a domain or an object, if it exists."""
        try:
            self._request("DELETE", path, domain, params)
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

    def _request(
        self,
        method: str,
        path: str,
        domain: str,
        params: Mapping[str, Any],
        data: bytes | None = None,
        *,
        accept: str = _JSON,
        content: str = _JSON,
        safe: bool = True,
    ) -> bytes:
        """Make a request, again after failures that may pass; `safe`: see `repeat`."""
        asked = {"domain": domain, **params}
        if self._bucket:
            asked["bucket"] = self._bucket
        headers = {"accept": accept}
        if data is not None:
            headers["Content-Type"] = content
        patient = time.monotonic() + self.options.timeout

        def send() -> bytes:
            return self._http.request(method, path, asked, headers, data).content

        return repeat(
            lambda: self._pacer.run(send, patient),
            self.options.retries,
            safe=safe,
        )


def _encoded(body: Any) -> bytes | None:
    return None if body is None else json.dumps(body).encode()


def _decoded(answer: bytes) -> Json:
    found: Json = json.loads(answer) if answer.strip() else {}
    return found or {}
