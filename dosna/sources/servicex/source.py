"""ServiceX: the results of its transformers, file by file, become one tree."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from dosna.errors import ConfigurationError, SourceNotFoundError
from dosna.sources.base import Stream
from dosna.sources.kinds import Claims, SourceKind
from dosna.sources.servicex.following import Following
from dosna.sources.servicex.growing import GrowingTrees
from dosna.sources.servicex.requests import Requests, RequestStatus, adapter_for

if TYPE_CHECKING:
    from dosna.array.connection import EngineConnection
    from dosna.core.report import IngestReport
    from dosna.core.request import IngestRequest

__all__ = ["KIND", "ServiceXSource"]

_SCHEME = "servicex:"
_BATCH_BYTES = 32 << 20


class ServiceXSource(Stream):
    """A request of ServiceX, which may still be running.

    Parameters
    ----------
    location : str or servicex's Query
        ``servicex:`` and the id of a request, or a query from ``ServiceXClient.generic_query``,
        which is submitted when it is ingested.
    inner : str
        An empty text: requests have no parts.
    endpoint : str, optional
        The server's URL, or its name in the configuration of ServiceX; by default the default of
        that configuration.
    config_path : str, optional
        The path of that configuration; by default ServiceX's client looks for it.
    polling_interval : float
        The seconds between two requests for the status.
    timeout : float
        The seconds in which the server must answer.

    Raises
    ------
    ConfigurationError
        If the location is no request or query, or if an option is not valid.
    """

    def __init__(
        self,
        location: Any,
        inner: str = "",
        *,
        endpoint: str | None = None,
        config_path: str | None = None,
        polling_interval: float = 2.0,
        timeout: float = 60.0,
    ) -> None:
        query = None if isinstance(location, str) else location
        if query is None:
            request_id = location.removeprefix(_SCHEME).strip("/")
            if not request_id or inner:
                raise ConfigurationError(
                    f"{location!r} names no request of ServiceX: use servicex:REQUEST-ID"
                )
            location = _SCHEME + request_id
        elif not hasattr(query, "transform_request"):
            raise ConfigurationError(
                f"a {type(query).__qualname__} is not a query of ServiceX: use the result of "
                "ServiceXClient.generic_query"
            )
        else:
            if endpoint is not None or config_path is not None:
                raise ConfigurationError(
                    "endpoint= and config_path= do not apply to a query, whose client has an "
                    "endpoint: omit them"
                )
            location = _SCHEME
        if not polling_interval > 0 or not timeout > 0:
            raise ConfigurationError(
                "polling_interval and timeout must be positive numbers of seconds"
            )
        super().__init__(location, inner)
        self.query = query
        self.endpoint, self.config_path = endpoint, config_path
        self.polling_interval, self.timeout = polling_interval, timeout

    @property
    def picklable(self) -> bool:
        return self.query is None

    def fingerprint(self) -> str:
        return f"request {self.location.removeprefix(_SCHEME)}"

    def requests(self) -> Requests:
        """Return a client of the server."""
        if self.query is not None:
            return Requests(self.query.servicex, self.timeout)
        return Requests(adapter_for(self.endpoint, self.config_path), self.timeout)

    def submitted(self, requests: Requests) -> tuple[str, RequestStatus]:
        """Return the id and the status of the request. A new query is submitted first."""
        if self.query is None:
            request_id = self.location.removeprefix(_SCHEME)
            return request_id, requests.status(request_id)
        request_id = requests.submit(self.query)
        try:
            status = requests.status(request_id)
        except SourceNotFoundError:
            # ServiceX deletes old requests, but the client's cache keeps them.
            self.query.cache.delete_record_by_request_id(request_id)
            request_id = requests.submit(self.query)
            status = requests.status(request_id)
        self.location = _SCHEME + request_id
        return request_id, status

    def ingest_into(self, con: EngineConnection, request: IngestRequest) -> IngestReport:
        requests = self.requests()
        request_id, status = self.submitted(requests)
        workers = con.runner.workers
        batch = _BATCH_BYTES
        if request.memory_bytes is not None:
            # Pieces read ahead, pieces held, and copies of a column that is being written.
            batch = max(1, min(batch, request.memory_bytes // (2 * workers + 6)))
        trees = GrowingTrees(
            con,
            self.location,
            self.fingerprint(),
            {
                "source": self.location,
                "endpoint": requests.url,
                "title": status.title,
                "did": status.did,
                "selection": status.selection,
                "result_format": status.result_format,
            },
            expected_files=max(1, status.files),
            batch_bytes=batch,
            select=request.select,
            skips=request.skips,
            overwrite=request.overwrite,
            chunk_bytes=request.chunk_bytes,
            options=request.options,
        )
        with ExitStack() as stack:
            following = Following(
                self,
                requests,
                request_id,
                status,
                trees,
                request.name,
                request.skips,
                batch,
                workers,
                stack,
            )
            return following.run(con, request.progress)


KIND = SourceKind(
    "servicex",
    ServiceXSource,
    Claims(schemes=("servicex",), packages=("servicex",)),
    "requests of ServiceX",
    "https://tryservicex.org",
)
