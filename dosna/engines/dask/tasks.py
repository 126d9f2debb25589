"""The functions that run on the workers of a Dask cluster: batches of tasks, and their order.

The functions here are called on workers by Dask, which finds them by name. Their state is that of
one worker process, whose threads may work on batches of several calls at the same time.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
import threading
import time
import uuid
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from distributed import get_worker

from dosna.engines.base import pack_error

__all__ = ["Batch", "Outcome", "forget", "in_task", "payload_of", "run", "stop"]

T = TypeVar("T")

# Work that is kept unpacked, with the stores that it has open, for the next batches.
_KEPT_CALLS = 4
# Batches of which it is remembered that they have ended; a batch comes back within seconds.
_KEPT_BATCHES = 10_000
_POLL_SECONDS = 0.02

PROCESS = uuid.uuid4().hex
"""The identifier of this process. A worker that its nanny restarts can have the old address."""

_lock = threading.Lock()
_unpacked: OrderedDict[str, Any] = OrderedDict()
_begun: set[tuple[str, int]] = set()
"""Batches that must not run twice and are running, however many others begin and end."""
_ended: OrderedDict[tuple[str, int], None] = OrderedDict()
_stopped: OrderedDict[str, None] = OrderedDict()
_running: Counter[str] = Counter()
_slots: OrderedDict[str, threading.Semaphore] = OrderedDict()
_local = threading.local()


@dataclass(frozen=True)
class Batch(Generic[T]):
    """Some tasks of a call.

    Parameters
    ----------
    call : str
        The identifier of the call.
    number : int
        The number of the batch in the call.
    tasks : list
        The tasks.
    most : int, optional
        The most batches of the call at the same time in one process, to keep a memory limit.
    owner : str, optional
        The identifier of the only worker process that may run the batch, and only once; by
        default any may, as often as Dask asks.
    """

    call: str
    number: int
    tasks: list[T]
    most: int | None = None
    owner: str | None = None


@dataclass(frozen=True)
class Outcome:
    """The end of a batch: its result or its packed error, and what it took."""

    seconds: float
    result: Any = None
    error: bytes | None = None
    begun_before: bool = False
    """True if the batch must not run twice, has begun before, and was left alone now."""


class Stopped(Exception):
    """The call was cancelled."""


def in_task() -> bool:
    """Return True in a thread that runs a batch."""
    return getattr(_local, "yes", False)


def payload_of(packed: bytes) -> bytes:
    """Return the pickled work; a task of its own, so that each worker is sent it once."""
    return packed


def run(packed: bytes, batch: Batch[Any]) -> Outcome:
    """Run a batch.

    Parameters
    ----------
    packed : bytes
        The pickled work.
    batch : Batch
        The tasks.

    Returns
    -------
    Outcome
        The result or the error. No error of the work is raised, because Dask could not pickle
        each of them.
    """
    if batch.owner is not None and not _may_begin(batch):
        return Outcome(0.0, begun_before=True)
    worker = get_worker()
    where = f"On the worker {worker.name} of {socket.gethostname()}, {worker.address}"
    with _lock:
        _running[batch.call] += 1
    nested, _local.yes = in_task(), True
    try:
        with _slot(batch):
            work = _unpack(batch.call, packed)
            begin = time.perf_counter()
            result = work(_until_stopped(batch))
            return Outcome(max(time.perf_counter() - begin, 1e-6), result)
    except BaseException as error:
        return Outcome(1.0, error=pack_error(error, where))
    finally:
        _local.yes = nested
        with _lock:
            if batch.owner is not None:
                _begun.discard((batch.call, batch.number))
                _keep(_ended, (batch.call, batch.number), None, _KEPT_BATCHES)
            _running[batch.call] -= 1
            if not _running[batch.call]:
                del _running[batch.call]


async def stop(call: str, seconds: float | None) -> int | None:
    """End the batches of a call after their present task, and wait for that.

    Parameters
    ----------
    call : str
        The identifier of the call.
    seconds : float, optional
        The most seconds to wait; by default without limit.

    Returns
    -------
    int or None
        None if nothing of the call runs any more in this process; otherwise its id.
    """
    with _lock:
        _keep(_stopped, call, None, _KEPT_CALLS * 25)
    end = None if seconds is None else time.monotonic() + seconds
    while _running[call]:
        if end is not None and time.monotonic() > end:
            return os.getpid()
        await asyncio.sleep(_POLL_SECONDS)
    with _lock:
        dropped = [_unpacked.pop(call, None)]
    # What the work has open is closed in another thread than that of the event loop.
    await asyncio.to_thread(dropped.clear)
    return None


async def forget(addresses: list[str], dask_worker: Any) -> None:
    """Close this worker's connections to others, which have left."""
    for address in addresses:
        dask_worker.rpc.remove(address)


def _may_begin(batch: Batch[Any]) -> bool:
    key = (batch.call, batch.number)
    with _lock:
        if batch.owner != PROCESS or key in _begun or key in _ended:
            return False
        _begun.add(key)
        return True


def _slot(batch: Batch[Any]) -> AbstractContextManager[object]:
    if batch.most is None:
        return nullcontext()
    with _lock:
        slot = _slots.get(batch.call)
        if slot is None:
            slot = threading.Semaphore(batch.most)
            _keep(_slots, batch.call, slot, _KEPT_CALLS * 25)
        return slot


def _unpack(call: str, packed: bytes) -> Any:
    with _lock:
        if call in _unpacked:
            return _unpacked[call]
    work = pickle.loads(packed)
    with _lock:
        # Of two threads that unpack it at the same time, both use the first one's.
        work = _unpacked.setdefault(call, work)
        dropped = _keep(_unpacked, call, work, _KEPT_CALLS)
    # Without the lock, for which the event loop may wait: this closes what the work has open.
    dropped.clear()
    return work


def _until_stopped(batch: Batch[T]) -> Iterator[T]:
    for task in batch.tasks:
        if batch.call in _stopped:
            raise Stopped
        yield task


def _keep(table: OrderedDict[Any, Any], key: Any, value: Any, most: int) -> list[Any]:
    """Put an entry into a table, and return the oldest ones, which it has dropped."""
    table[key] = value
    table.move_to_end(key)
    dropped = []
    while len(table) > most:
        with suppress(KeyError):
            dropped.append(table.popitem(last=False))
    return dropped
