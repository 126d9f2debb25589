"""The dask engine: work over all chunks is done by the workers of a Dask cluster.

The workers read and write the store themselves; the scheduler sees batches of tasks, and neither
chunks nor functions more than once. The slicing of a request stays in the caller, for a worker
would have to send what it has read. See docs/design/dask.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import dask.utils

from dosna.core.options import check_seconds
from dosna.engines.base import Engine, R, Report, Runner, T, Tasks, pack_work, reported
from dosna.engines.dask.cluster import client_for, present, register, silence
from dosna.engines.dask.dispatch import Call
from dosna.engines.dask.tasks import in_task
from dosna.errors import ConfigurationError

__all__ = ["ENGINE", "DaskRunner"]

_started_in: int | None = None
"""The id of the process that has opened clients."""


class DaskRunner(Runner):
    """A runner that works on a Dask cluster.

    Parameters
    ----------
    address : str, optional
        The address of a running scheduler, such as ``tcp://node1:8786``.
    client : distributed.Client, optional
        A client that is connected, instead of an address.
    n_workers : int, optional
        The number of processes of a cluster on this machine, which is started when it is first
        needed and ends with this process. This and the next two are for a local cluster, which
        is used if there is neither an address nor a client.
    threads_per_worker : int, optional
        The threads of each process.
    memory_limit : float or str, optional
        The memory at which Dask restarts a worker of the local cluster, such as '4 GiB'.
    security : distributed.Security, optional
        The certificates for a scheduler, or a local cluster, that uses TLS.
    timeout : float
        The seconds that the scheduler has for each answer, and each new worker for its first one,
        that a local cluster has to start, and that a call waits while the cluster has no worker.
    """

    shares_memory = False

    def __init__(
        self,
        address: str | None = None,
        client: Any = None,
        n_workers: int | None = None,
        threads_per_worker: int | None = None,
        memory_limit: float | str | None = None,
        security: Any = None,
        timeout: float = 30,
    ) -> None:
        self._workers: int | None = None
        super().__init__()
        local = {
            "n_workers": n_workers,
            "threads_per_worker": threads_per_worker,
            "memory_limit": memory_limit,
        }
        given = [name for name, value in local.items() if value is not None]
        if client is not None and address is not None:
            raise ConfigurationError(
                "address and client are two ways to name one scheduler: give one of them"
            )
        if given and (client is not None or address is not None):
            raise ConfigurationError(
                f"{', '.join(given)} are of a local cluster: leave them out, or start the workers "
                "of the scheduler with them"
            )
        if client is not None and security is not None:
            raise ConfigurationError("security is that of the client: give one of the two")
        if address is not None and not isinstance(address, str):
            raise ConfigurationError(
                f"address must be a text such as 'tcp://node1:8786', not {address!r}"
            )
        for name in ("n_workers", "threads_per_worker"):
            value = local[name]
            if value is not None and (
                isinstance(value, bool) or not isinstance(value, int) or value < 1
            ):
                raise ConfigurationError(f"{name} must be a positive integer, not {value!r}")
        _check_memory_limit(memory_limit)
        check_seconds("timeout", timeout)
        if client is not None:
            address = register(client)
        self._params = {
            "address": address,
            **local,
            "security": security,
            "timeout": timeout,
        }

    @property
    def params(self) -> Mapping[str, Any]:
        return {name: value for name, value in self._params.items() if value is not None}

    @property
    def workers(self) -> int:
        """The threads of all workers; the first access connects to the cluster."""
        if in_task() or _is_child():
            return 1
        if self._workers is None:
            self._workers = max(1, sum(self._threads()))
        return self._workers

    @workers.setter
    def workers(self, value: int) -> None:
        """Leave the count to the cluster."""

    @property
    def sharers(self) -> int:
        """The threads of one worker; the first access connects to the cluster."""
        if in_task() or _is_child():
            return 1
        return max([1, *self._threads()])

    def _threads(self) -> list[int]:
        """Return the number of threads of each worker."""
        seconds = self._params["timeout"]
        with self._client() as client:
            try:
                return [about["nthreads"] for about in present(client, seconds).values()]
            except TimeoutError as error:
                raise silence(client.scheduler.address, seconds) from error

    def map(self, work: Callable[[Iterable[T]], R], tasks: Tasks[T]) -> list[R]:
        return [work(tasks)]

    def spread(
        self,
        work: Callable[[Iterable[T]], R],
        tasks: Tasks[T],
        *,
        workers: int | None = None,
        picklable: bool = True,
        report: Report | None = None,
    ) -> list[R]:
        # Within a task of a worker, other workers may wait for this one: it works by itself.
        if not picklable or in_task() or _is_child():
            return [work(tasks if report is None else reported(tasks, report))]
        with self._client() as client:
            packed = pack_work(work)
            call = Call(client, work, packed, tasks, workers, report, self._params["timeout"])
            try:
                return call.run()
            finally:
                self._workers = call.threads

    def _client(self) -> Any:
        global _started_in
        _started_in = os.getpid()
        return client_for(self._params)


def _check_memory_limit(limit: float | str | None) -> None:
    """Raise ConfigurationError for what Dask does not take: its nannies would try it for long."""
    if limit is None or limit == "auto":
        return
    try:
        valid = not isinstance(limit, bool) and dask.utils.parse_bytes(limit) >= 0
    except (TypeError, ValueError, AttributeError):
        valid = False
    if not valid:
        raise ConfigurationError(
            f"memory_limit must be a number of bytes or a text such as '4 GiB', not {limit!r}"
        )


def _is_child() -> bool:
    """Return True in a forked child, which has the parent's clients without their threads."""
    return _started_in not in (None, os.getpid())


ENGINE = Engine(
    name="dask",
    runner=DaskRunner,
    description="the workers of a Dask cluster",
    url="https://distributed.dask.org",
)
