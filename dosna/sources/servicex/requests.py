"""Requests to ServiceX by its own client: for the status of a request, and for its results."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

import httpx
from servicex.servicex_adapter import AuthorizationError, ServiceXAdapter
from servicex.servicex_client import ServiceXClient

from dosna.errors import (
    ConfigurationError,
    ConnectionError,
    DosnaError,
    SourceError,
    SourceNotFoundError,
)
from dosna.io.failure import Failure

__all__ = ["ENDED", "RequestStatus", "Requests", "ResultFile", "adapter_for"]

T = TypeVar("T")

ENDED = frozenset({"Complete", "Fatal", "Canceled", "Bad Dataset"})
_LISTS_RESULTS = "poll_local_transformation_results"
# Rows of results have the time when the server begins to write them, but are visible later.
_LATE = timedelta(minutes=2)
_RETRY_SECONDS = 0.5
_CANCEL_SECONDS = 0.05


@dataclass(frozen=True)
class ResultFile:
    """A file that a transformer has made, or has failed to make.

    Parameters
    ----------
    source : str
        The file from which it was made.
    key : str
        The key of the object; empty if the transformer failed.
    nbytes : int or None
        The number of bytes that ServiceX reports.
    """

    source: str
    key: str
    nbytes: int | None


@dataclass(frozen=True)
class RequestStatus:
    """The status of a request.

    Parameters
    ----------
    state : str
        The status in ServiceX's words, such as ``Running``.
    files, files_completed, files_failed : int
        The numbers of files.
    result_format : str
        The format. dosna's own service has more of them than the client of ServiceX knows.
    result_destination : str
        The place of the results.
    title : str or None
        The title of the request.
    did, selection : str
        The dataset and the query that were asked for.
    log_url : str or None
        The URL of the log.
    minio_endpoint, minio_access_key, minio_secret_key : str or None
        The host and port of the server of the results, and its keys.
    minio_secured : bool
        True if that server speaks TLS.
    """

    state: str
    files: int
    files_completed: int
    files_failed: int
    result_format: str
    result_destination: str
    title: str | None
    did: str
    selection: str
    log_url: str | None = None
    minio_endpoint: str | None = None
    minio_access_key: str | None = None
    minio_secret_key: str | None = None
    minio_secured: bool = False

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> RequestStatus:
        """Return what an answer of the server says."""
        return cls(
            state=str(given["status"]),
            files=int(given["files"]),
            files_completed=int(given["files-completed"]),
            files_failed=int(given["files-failed"]),
            result_format=str(given["result-format"]),
            result_destination=str(given["result-destination"]),
            title=given.get("title"),
            did=str(given["did"]),
            selection=str(given["selection"]),
            log_url=given.get("log-url"),
            minio_endpoint=given.get("minio-endpoint"),
            minio_access_key=given.get("minio-access-key"),
            minio_secret_key=given.get("minio-secret-key"),
            minio_secured=bool(given.get("minio-secured")),
        )


def adapter_for(endpoint: str | None, config_path: str | None) -> ServiceXAdapter:
    """Return the ServiceX client's adapter for a server.

    Parameters
    ----------
    endpoint : str, optional
        A URL, or a name in the client's configuration; the default of the configuration by
        default.
    config_path : str, optional
        The path of the configuration; by default the client looks for it.

    Raises
    ------
    ConfigurationError
        If there is no configuration, or if it cannot be used.
    """
    if endpoint is not None and "://" in endpoint:
        return ServiceXAdapter(endpoint.rstrip("/"))
    if config_path is not None and not os.path.exists(config_path):
        raise ConfigurationError(
            f"there is no configuration of ServiceX at {config_path}: correct config_path"
        )
    try:
        client = ServiceXClient(backend=endpoint, config_path=config_path)
        client.query_cache.close()
        return client.servicex
    except Exception as error:
        # A NameError if there is no configuration, a ValueError if it lacks the endpoint, or any
        # error of YAML and pydantic for its contents.
        where = config_path or "~/.servicex"
        raise ConfigurationError(
            f"the configuration of ServiceX cannot be used: {error}. Write {where} as ServiceX's "
            "web page gives it, name it by config_path=, or give the server's URL by endpoint="
        ) from error


class Requests:
    """A client of one server, with a time limit.

    Parameters
    ----------
    adapter : ServiceXAdapter
    timeout : float
        The seconds of one request, including all retries of the ServiceX client.
    """

    def __init__(self, adapter: ServiceXAdapter, timeout: float) -> None:
        self.adapter = adapter
        self.timeout = timeout
        self._newest: dict[str, datetime] = {}
        self._sources: dict[str, dict[str, str]] = {}

    @property
    def url(self) -> str:
        """URL of the server."""
        return str(self.adapter.url)

    def status(self, request_id: str) -> RequestStatus:
        """Return the status of a request.

        Raises
        ------
        SourceNotFoundError
            If there is no such request.
        dosna.errors.ConnectionError
            If the server does not answer in time, or refuses the token.
        """
        # The client's own get_transform_status refuses formats that it does not know.
        return self._ask(lambda: self._status(request_id), f"request {request_id}")

    async def _status(self, request_id: str) -> RequestStatus:
        return RequestStatus.of(await self._get(f"transformation/{request_id}"))

    def results(self, request_id: str, every: bool = False) -> list[ResultFile] | None:
        """Return the files that are done since the last call. Some of them may be repeated.

        `every`: whether to return all files. The result is None if the server does not list them;
        then its bucket does.
        """
        what = f"the results of request {request_id}"
        if _LISTS_RESULTS not in self._ask(self.adapter.get_servicex_capabilities, what):
            return None
        newest = None if every else self._newest.get(request_id)
        since = {} if newest is None else {"later_than": (newest - _LATE).isoformat()}
        rows = self._ask(lambda: self._rows(request_id, since), what)
        dates = [datetime.fromisoformat(row["created_at"]) for row in rows if row["created_at"]]
        if dates:
            self._newest[request_id] = max([*dates, *([newest] if newest else [])])
        found = []
        for row in rows:
            done = row["transform_status"] == "success"
            key = row["s3-object-name"] if done else ""
            source = self._source(request_id, row.get("file-path") or key, key or row.get("id"))
            found.append(ResultFile(source, key, row.get("total-bytes")))
        return found

    def _source(self, request_id: str, path: str, own: Any) -> str:
        """Return a name for the source of a result. A list of files may have a file twice."""
        known = self._sources.setdefault(request_id, {})
        return path if known.setdefault(path, str(own)) == str(own) else f"{path} ({own})"

    async def _rows(self, request_id: str, since: Mapping[str, str]) -> list[dict[str, Any]]:
        # The client's own get_transformation_results leaves out the files that failed.
        found = await self._get(f"transformation/{request_id}/results", since)
        rows: list[dict[str, Any]] = found["results"]
        return rows

    async def _get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """Return the JSON at a path of the server, which is asked until the time limit."""
        headers, renewed = await self.adapter._get_authorization(), False
        url = f"{self.url}/servicex/{path}"
        async with httpx.AsyncClient(timeout=self.timeout) as http:
            while True:
                try:
                    answer = await http.get(url, headers=headers, params=query)
                except httpx.TransportError:
                    # Retry until the time limit.
                    await asyncio.sleep(_RETRY_SECONDS)
                    continue
                if answer.status_code == 401 and not renewed:
                    headers, renewed = await self.adapter._get_authorization(True), True
                    continue
                if answer.status_code in (401, 403):
                    raise AuthorizationError(answer.status_code)
                if answer.status_code == 404:
                    raise ValueError(f"{url} not found")
                if answer.status_code in Failure.transient_statuses:
                    await asyncio.sleep(_RETRY_SECONDS)
                    continue
                answer.raise_for_status()
                return answer.json()

    def submit(self, query: Any) -> str:
        """Submit a query of the client, unless its cache knows an equal request. Return the id.

        Raises
        ------
        ConfigurationError
            If the server refuses the query.
        """
        wanted, cache = query.transform_request, query.cache
        digest = wanted.compute_hash()
        if not query.ignore_cache:
            if cache.is_transform_request_submitted(digest):
                return str(cache.get_transform_request_id(digest))
            done = cache.get_transform_by_hash(digest)
            if done is not None:
                return str(done.request_id)
        known = self._ask(self.adapter.get_code_generators_async, "its code generators")
        if query.codegen not in known:
            raise ConfigurationError(
                f"{self.url} has no code generator {query.codegen!r}: use one of "
                f"{', '.join(sorted(known))}"
            )
        try:
            made = self._ask(lambda: self.adapter.submit_transform(wanted), "a request")
        except SourceError as error:
            raise ConfigurationError(str(error)) from error
        cache.cache_submitted_transform(wanted, made)
        return str(made)

    def _ask(self, call: Callable[[], Awaitable[T]], what: str) -> T:
        try:
            return in_time(call, self.timeout)
        except DosnaError:
            raise
        except AuthorizationError as error:
            raise ConnectionError(
                f"{self.url} refuses the token: get a new one from its web page, and write it "
                "to the configuration of ServiceX"
            ) from error
        except TimeoutError as error:
            raise ConnectionError(
                f"{self.url} did not answer within {self.timeout:g} s when it was asked for "
                f"{what}: check that it is a running ServiceX server, and repeat the call"
            ) from error
        except (httpx.HTTPError, OSError) as error:
            raise ConnectionError(
                f"{self.url} cannot be asked for {what}: {type(error).__name__}: {error}"
            ) from error
        except Exception as error:
            if isinstance(error, ValueError) and "not found" in str(error):
                raise SourceNotFoundError(f"{self.url} knows no {what}: {error}") from error
            # The answer may be anything: not JSON, without a field, or of another version.
            raise SourceError(
                f"{self.url} did not answer as ServiceX does when it was asked for {what}: "
                f"{type(error).__name__}: {error}"
            ) from error


def in_time(call: Callable[[], Awaitable[T]], timeout: float) -> T:
    """Run a coroutine to its end, or raise TimeoutError. A loop may be running already."""

    async def limited() -> T:
        task = asyncio.ensure_future(call())
        await asyncio.wait({task}, timeout=timeout)
        if not task.done():
            # Not by wait_for: the client treats a cancellation as one more failed attempt.
            while not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=_CANCEL_SECONDS)
            if task.cancelled() or task.exception() is not None:
                raise TimeoutError
        return task.result()

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        if threading.current_thread() is threading.main_thread():
            return asyncio.run(limited())
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, limited()).result()
