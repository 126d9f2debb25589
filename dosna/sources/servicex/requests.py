"""What ServiceX is asked, by its own client: how a request stands and which files are done."""

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

__all__ = ["ENDED", "Requests", "ResultFile", "adapter_for"]

T = TypeVar("T")

ENDED = frozenset({"Complete", "Fatal", "Canceled", "Bad Dataset"})
_LISTS_RESULTS = "poll_local_transformation_results"
# Rows of results are dated when the server begins to write them, and seen when it has.
_LATE = timedelta(minutes=2)
_RETRY_SECONDS = 0.5
_CANCEL_SECONDS = 0.05
_PASSING = frozenset({408, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class ResultFile:
    """A file that a transformer has made, or failed to make.

    Parameters
    ----------
    source : str
        The file that it was made from.
    key : str
        Of the object; empty if it failed.
    nbytes : int or None
        As ServiceX says.
    """

    source: str
    key: str
    nbytes: int | None


def adapter_for(endpoint: str | None, config_path: str | None) -> ServiceXAdapter:
    """Give the client's own way to a server.

    Parameters
    ----------
    endpoint : str, optional
        A URL, or a name in the client's configuration; its default by default.
    config_path : str, optional
        Of the configuration; by default the client looks for it.

    Raises
    ------
    ConfigurationError
    """
    if endpoint is not None and "://" in endpoint:
        return ServiceXAdapter(endpoint.rstrip("/"))
    if config_path is not None and not os.path.exists(config_path):
        raise ConfigurationError(f"there is no configuration of ServiceX at {config_path}")
    try:
        client = ServiceXClient(backend=endpoint, config_path=config_path)
        client.query_cache.close()
        return client.servicex
    except Exception as error:
        # A NameError if there is no configuration, a ValueError if it lacks the endpoint, and
        # whatever YAML and pydantic raise for what it says.
        where = config_path or "~/.servicex"
        raise ConfigurationError(
            f"the configuration of ServiceX cannot be used: {error}. Write {where} as ServiceX's "
            "web page gives it, name it by config_path=, or give the server's URL by endpoint="
        ) from error


class Requests:
    """One server, asked with a limit of time.

    Parameters
    ----------
    adapter : ServiceXAdapter
    timeout : float
        Seconds for what is asked, with all that the client tries again.
    """

    def __init__(self, adapter: ServiceXAdapter, timeout: float) -> None:
        self.adapter = adapter
        self.timeout = timeout
        self._newest: dict[str, datetime] = {}

    @property
    def url(self) -> str:
        """Of the server."""
        return str(self.adapter.url)

    def status(self, request_id: str) -> Any:
        """Ask how a request stands: the client's `TransformStatus`.

        Raises
        ------
        SourceNotFoundError
            There is no such request.
        dosna.errors.ConnectionError
            The server is not reached in time, or refuses the token.
        """
        return self._ask(
            lambda: self.adapter.get_transform_status(request_id), f"request {request_id}"
        )

    def results(self, request_id: str, every: bool = False) -> list[ResultFile] | None:
        """Ask which files are done: those since the last time, some of them again.

        None from a server that does not tell; its bucket does.
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
            found.append(ResultFile(row.get("file-path") or key, key, row.get("total-bytes")))
        return found

    async def _rows(self, request_id: str, since: Mapping[str, str]) -> list[dict[str, Any]]:
        # The client's own get_transformation_results leaves out the files that failed.
        headers = await self.adapter._get_authorization()
        url = f"{self.url}/servicex/transformation/{request_id}/results"
        async with httpx.AsyncClient(timeout=self.timeout) as http:
            while True:
                try:
                    answer = await http.get(url, headers=headers, params=since)
                except httpx.TransportError:
                    # As often as the limit of time allows.
                    await asyncio.sleep(_RETRY_SECONDS)
                    continue
                if answer.status_code in (401, 403):
                    raise AuthorizationError(answer.status_code)
                if answer.status_code in _PASSING:
                    await asyncio.sleep(_RETRY_SECONDS)
                    continue
                answer.raise_for_status()
                rows: list[dict[str, Any]] = answer.json()["results"]
                return rows

    def submit(self, query: Any) -> str:
        """Submit a query of the client, unless its cache knows a request that is the same.

        Raises
        ------
        ConfigurationError
            The server refuses it.
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
                f"{self.url} has no code generator {query.codegen!r}: it has "
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
                f"{what}: is it a ServiceX server that runs? The same call goes on later"
            ) from error
        except (httpx.HTTPError, OSError) as error:
            raise ConnectionError(
                f"{self.url} cannot be asked for {what}: {type(error).__name__}: {error}"
            ) from error
        except Exception as error:
            if isinstance(error, ValueError) and "not found" in str(error):
                raise SourceNotFoundError(f"{self.url} knows no {what}: {error}") from error
            # Whatever the answer was made of: not JSON, without a field, of another version.
            raise SourceError(
                f"{self.url} did not answer as ServiceX does when it was asked for {what}: "
                f"{type(error).__name__}: {error}"
            ) from error


def in_time(call: Callable[[], Awaitable[T]], timeout: float) -> T:
    """Run a coroutine to its end, or raise TimeoutError; also where a loop is running."""

    async def limited() -> T:
        task = asyncio.ensure_future(call())
        await asyncio.wait({task}, timeout=timeout)
        if not task.done():
            # Not by wait_for: the client takes a cancellation for one more failed attempt.
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
