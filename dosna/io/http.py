"""HTTP requests to one server, by connections that are kept open, and their failures."""

from __future__ import annotations

import os
import ssl
import weakref
from collections.abc import Callable, Container, Mapping
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

import httpx

from dosna.errors import ConfigurationError, ConnectionError, StoreTimeoutError
from dosna.io.failure import CUT, TIMED_OUT, UNREACHABLE, Failure, pause_of

__all__ = ["Http"]

_CONNECT_SECONDS = 5.0
_SOCKET = "http+unix://"
_DONE = (200, 201, 204)


class Http:
    """Requests of any number of threads to one server. ``close()`` ends the connections.

    Forked processes get connections of their own.

    Parameters
    ----------
    endpoint : str
        The URL of the server; ``http+unix://%2Frun%2Fhsds.sock`` for a Unix socket.
    timeout : float
        The seconds that a request may wait for its answer to begin, or to go on.
    verify : bool
        Whether to verify certificates.
    headers : callable
        A function that returns the headers to send with each request.
    follow : bool
        True to follow redirections. Other hosts are not sent the header Authorization.
    """

    failure: ClassVar[type[Failure]] = Failure
    """The class of the failures."""

    def __init__(
        self,
        endpoint: str,
        timeout: float,
        verify: bool,
        headers: Callable[[], Mapping[str, Any]],
        follow: bool = False,
    ) -> None:

        def authorize(request: httpx.Request) -> httpx.Request:
            request.headers.update(headers())
            return request

        self._options: dict[str, Any] = {
            "base_url": endpoint,
            "timeout": httpx.Timeout(timeout, connect=min(_CONNECT_SECONDS, timeout), pool=None),
            "auth": authorize,
            "follow_redirects": follow,
        }
        self._verify = verify
        # The client of each process, by its number.
        self._clients: dict[int, httpx.Client] = {}
        self.close = weakref.finalize(self, _close, self._clients)

    def request(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        done: Container[int] = _DONE,
    ) -> httpx.Response:
        """Make a request once, and return the whole of its answer.

        Parameters
        ----------
        method, path, params, headers, content
            The request.
        done : container of int
            The statuses that are not failures.

        Raises
        ------
        Failure
            The request failed, or the server refused it.
        """
        try:
            answer = self._client().request(
                method, path, params=params, headers=headers, content=content
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            found = self._failure(error)
        else:
            if answer.status_code in done:
                return answer
            found = self._refusal(answer.status_code, answer.reason_phrase)
            if found.busy:
                found.pause = pause_of(answer.headers)
        # Outside of the handler, because httpx's errors hold the request and its headers.
        raise found

    def _client(self) -> httpx.Client:
        process = os.getpid()
        found = self._clients.get(process)
        if found is None:
            # The connections of a parent process are dropped here, and stay open there.
            for other in set(self._clients) - {process}:
                self._clients.pop(other, None)
            found = self._clients.setdefault(process, self._make())
        return found

    def _make(self) -> httpx.Client:
        options = dict(self._options)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        endpoint = options["base_url"]
        try:
            if endpoint.startswith(_SOCKET):
                path = unquote(urlsplit(endpoint).netloc)
                options["base_url"] = "http://localhost"
                options["transport"] = httpx.HTTPTransport(verify=False, limits=limits, uds=path)
            else:
                secure = self._verify and endpoint.lower().startswith("https:")
                options |= {"verify": _authorities() if secure else False, "limits": limits}
            return httpx.Client(**options)
        except (httpx.InvalidURL, ValueError, ImportError, OSError) as error:
            raise ConfigurationError(
                f"{endpoint} cannot be used: {error}. Check the endpoint, and the variables of "
                "the environment for proxies and certificates"
            ) from None

    def _failure(self, error: Exception) -> Failure:
        """Return the failure for an error of httpx."""
        if isinstance(error, httpx.ConnectTimeout):
            return self.failure(UNREACHABLE, detail="no answer", error=ConnectionError)
        if isinstance(error, httpx.TimeoutException):
            return self.failure(TIMED_OUT, error=StoreTimeoutError)
        if isinstance(error, httpx.ProxyError):
            return self.failure(
                UNREACHABLE, detail=f"the proxy says: {error}", error=ConnectionError
            )
        if isinstance(error, httpx.NetworkError):
            cause = _system_error(error)
            if isinstance(cause, ssl.SSLCertVerificationError):
                return self.failure(
                    "its certificate does not verify: name its authority by REQUESTS_CA_BUNDLE",
                    error=ConnectionError,
                )
            kind = UNREACHABLE if isinstance(error, httpx.ConnectError) else CUT
            return self.failure(
                kind, detail=getattr(cause, "strerror", None) or "", error=ConnectionError
            )
        if isinstance(error, (httpx.RemoteProtocolError, httpx.DecodingError)):
            return self.failure(CUT, error=ConnectionError)
        # Other messages, as that of a header that is not possible, may contain what was sent.
        named = isinstance(error, (httpx.UnsupportedProtocol, httpx.InvalidURL))
        what = str(error) if named else type(error).__name__
        return self.failure(f"the request cannot be made: {what}", error=ConfigurationError)

    def _refusal(self, status: int, reason: str) -> Failure:
        if status == 401:
            return self.failure("the credentials are refused", status, reason, ConnectionError)
        if status == 403:
            return self.failure("access is denied", status, reason)
        return self.failure("the request failed", status, reason)


def _close(clients: dict[int, httpx.Client]) -> None:
    found = clients.pop(os.getpid(), None)
    if found is not None:
        found.close()


def _authorities() -> ssl.SSLContext | bool:
    """Return the authorities that verify certificates: those of the environment, or httpx's."""
    named = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    if not named:
        return True
    if os.path.isdir(named):
        return ssl.create_default_context(capath=named)
    return ssl.create_default_context(cafile=named)


def _system_error(error: BaseException) -> OSError | None:
    """Return the error of the system behind an error of httpx, if there is one."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, OSError):
        found = found.__cause__ or found.__context__
    return found
