"""Dask clusters on this machine: started in time or not at all, and their workers replaced."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import queue
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import Any, TypeVar

import dask.config
from distributed import Client, LocalCluster, Nanny
from tornado.ioloop import IOLoop

from dosna.errors import WorkerError
from dosna.io.allocator import MMAP_THRESHOLD, TRIM_THRESHOLD

__all__ = ["begin", "event_loop", "kill", "open_client", "revive", "start", "within"]

T = TypeVar("T")

_ENVIRONMENT = "distributed.nanny.pre-spawn-environ"
# Dask sets MALLOC_TRIM_THRESHOLD_ for its workers. With it glibc no longer learns which sizes come
# again and again: each temporary array of 128 KiB or more is mapped anew, page by page, and work
# of many such takes several times as long. These are the values that glibc would learn.
_MALLOC = {"MALLOC_TRIM_THRESHOLD_": TRIM_THRESHOLD, "MALLOC_MMAP_THRESHOLD_": MMAP_THRESHOLD}

_KEYWORDS = ("n_workers", "threads_per_worker", "memory_limit", "security")
_ENDING_SECONDS = 1.5
_LOOK_SECONDS = 0.5

_sizes: dict[int, int] = {}
"""The number of workers of each cluster that this process has started, by its client's id."""
_loops: dict[int, IOLoop] = {}
"""The running event loop of this process, by its identifier: a forked child needs another."""


def event_loop() -> IOLoop:
    """Return the event loop of the clients and clusters of this process; a thread runs it.

    The caller holds the lock of the clients. Dask's own loops fail by an assertion if their
    thread is not running within ten seconds, as on a machine that is very busy.
    """
    started: queue.SimpleQueue[IOLoop] = queue.SimpleQueue()

    async def run() -> None:
        started.put(IOLoop.current())
        await asyncio.Event().wait()

    if os.getpid() not in _loops:
        threading.Thread(target=lambda: asyncio.run(run()), name="dosna-dask", daemon=True).start()
        _loops[os.getpid()] = started.get()
    return _loops[os.getpid()]


def open_client(*args: Any, **kwargs: Any) -> Client:
    """Return ``Client(*args, **kwargs)``; close it if it fails.

    A client that was not closed waits for event loops when it is collected, in whatever thread
    that happens: the start of another loop in that thread fails, and their own cannot close it.
    """
    client = Client.__new__(Client)
    try:
        client.__init__(*args, **kwargs)
    except BaseException:
        with suppress(Exception):
            client.close()
        client.status = "closed"
        raise
    return client


class _Beginning:
    """The start of one cluster: its nannies, and whether a call still waits for it."""

    def __init__(self) -> None:
        self.given_up = False
        self.nannies: weakref.WeakSet[Nanny] = weakref.WeakSet()
        self.over = threading.Event()

    def give_up(self) -> None:
        """Kill the workers, also those that are born meanwhile; the cluster then ends itself."""
        self.given_up = True
        end = time.monotonic() + _ENDING_SECONDS
        while not self.over.wait(0.02) and time.monotonic() < end:
            # Another thread fills the set, and processes may end while they are asked.
            with suppress(RuntimeError, AttributeError, ValueError):
                _kill(nanny.pid for nanny in list(self.nannies))


class _Nanny(Nanny):  # type: ignore[misc]
    """A nanny that is known before its cluster is, and obeys when the start is given up.

    `LocalCluster` returns only after all workers have started; a call that ends earlier has no
    other way to end them.
    """

    def __init__(self, *args: Any, beginning: _Beginning, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._beginning = beginning
        beginning.nannies.add(self)

    async def instantiate(self) -> Any:
        if self._beginning.given_up:
            raise RuntimeError("the start of the cluster was given up")
        return await super().instantiate()


def start(params: Mapping[str, Any]) -> Client:
    """Start a cluster with the keywords of the engine, and return a client of it.

    Parameters
    ----------
    params : mapping
        The keywords of `DaskRunner`. `timeout` bounds the whole start.

    Raises
    ------
    WorkerError
        It cannot be started, or takes too long. As after Ctrl-C, no worker is left.
    """
    seconds = params["timeout"]
    beginning = _Beginning()
    try:
        loop = event_loop()
        client = within(seconds, lambda: _started(params, beginning, loop))
    except (AssertionError, OSError, RuntimeError, TimeoutError, ValueError) as error:
        beginning.give_up()
        if isinstance(error, TimeoutError):
            raise WorkerError(
                f"the local Dask cluster did not start within {seconds} s: the machine is busy, "
                "or has too little memory for its workers. Pass a longer timeout= to the engine, "
                "or fewer n_workers="
            ) from error
        raise WorkerError(
            f"cannot start a local Dask cluster: {str(error).rstrip('.') or repr(error)}. A "
            "script needs the guard `if __name__ == '__main__'`"
        ) from error
    except BaseException:
        beginning.give_up()
        raise
    _sizes[id(client)] = len(client.cluster.worker_spec)
    return client


def _started(params: Mapping[str, Any], beginning: _Beginning, loop: IOLoop) -> Client:
    """Start a cluster; end it if no call waits for it any more."""
    chosen = {name: params[name] for name in _KEYWORDS if params.get(name) is not None}
    try:
        with dask.config.set({_ENVIRONMENT: {**dask.config.get(_ENVIRONMENT), **_MALLOC}}):
            cluster = LocalCluster(
                **chosen,
                worker_class=_Nanny,
                beginning=beginning,
                dashboard_address=":0",
                host="127.0.0.1",
                loop=loop,
                silence_logs=logging.CRITICAL,
                preload=["dosna.engines.dask.preload"],
            )
        try:
            client = open_client(cluster, timeout=params["timeout"], set_as_default=False)
            if beginning.given_up:
                client.close()
                raise RuntimeError("the start of the cluster was given up")
        except BaseException:
            cluster.close()
            raise
    finally:
        beginning.over.set()
    return client


def within(seconds: float | None, function: Callable[[], T]) -> T:
    """Return what a function returns, or raise its error, or TimeoutError if it takes longer.

    Parameters
    ----------
    seconds : float, optional
        The most seconds; by default without limit.
    function : callable
        The function. It is called in a thread of its own, which is left alone if it hangs.
    """
    answer = begin(function)
    end = math.inf if seconds is None else time.monotonic() + seconds
    while True:
        # Ctrl-C may reach another thread, and does not wake this one then: it must look.
        left = max(0.0, min(end - time.monotonic(), _LOOK_SECONDS))
        if wait([answer], left).done:
            return answer.result()
        if left < _LOOK_SECONDS:
            raise TimeoutError(f"no answer within {seconds} s")


def begin(function: Callable[[], T]) -> Future[T]:
    """Call a function in a thread of its own, for which the end of the process does not wait."""
    answer: Future[T] = Future()

    def call() -> None:
        try:
            result = function()
        except BaseException as error:
            answer.set_exception(error)
        else:
            answer.set_result(result)

    threading.Thread(target=call, daemon=True).start()
    return answer


def kill(client: Client, pids: Iterable[int]) -> None:
    """Kill processes of a cluster that this process has started; its nannies start others."""
    if isinstance(client.cluster, LocalCluster):
        _kill(pids)


def _kill(pids: Iterable[int | None]) -> None:
    # Workers may be threads of this process.
    for pid in set(pids) - {os.getpid(), None}:
        assert pid is not None
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def revive(client: Client) -> None:
    """Start the workers of a local cluster anew, if this process has started it.

    A nanny gives up, and never starts another worker, when one dies while it is starting.
    """
    count = _sizes.get(id(client))
    if count is not None:
        client.cluster.scale(0)
        client.cluster.scale(count)
