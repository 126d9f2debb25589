"""Clients of Dask schedulers, and what is known of their workers."""

from __future__ import annotations

import importlib.metadata
import inspect
import os
import platform
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from distributed import Client, get_client, get_worker, rejoin, secede
from distributed.comm import resolve_address

from dosna.engines.dask.local import event_loop, open_client, start, within
from dosna.engines.dask.probe import probe
from dosna.engines.dask.tasks import in_task
from dosna.errors import ConfigurationError, ConnectionError, WorkerError

__all__ = ["Worker", "client_for", "doubt", "present", "register", "silence", "workers_of"]

# Versions of a worker are compared with the caller's, since code and pickled arrays are sent.
_PACKAGES = ("dosna", "numpy", "distributed", "cloudpickle")

# Sent as text: a worker without dosna can run it, and one of another Python reads no bytecode.
_CALL = "exec(source, scope) or scope['probe'](packages)"

_REACH_SECONDS = 5.0
"""For a network that drops what is not allowed."""

_clients: dict[str, Client] = {}
"""Clients of this process by the address of their scheduler, or by `_local_key`."""
_checked: dict[str, dict[str, _Known]] = {}
"""The workers that were checked, by scheduler and address."""
_lock = threading.RLock()
_checked_lock = threading.Lock()


class _Known(NamedTuple):
    """What a worker has told.

    These are the identifier of its process, its host's name, whether it can be reached, and its
    folder, which each worker makes anew: a nanny may start another one at the same address.
    """

    process: str
    host: str
    direct: bool
    folder: str


@dataclass(frozen=True)
class Worker:
    """A worker process of a cluster."""

    address: str
    process: str
    name: str
    threads: int
    ready: bool = True
    """False while it begins no further task."""
    labels: frozenset[str] = frozenset()
    """Names by which a store may know the worker's place: its name, its hosts, its resources."""
    direct: bool = False
    """True if this process reaches the worker, and not only the scheduler does."""


def register(client: Any) -> str:
    """Keep a user's client for calls of this process, and return its scheduler's address.

    Raises
    ------
    ConfigurationError
        It is not a client, or one that is asynchronous or closed.
    """
    if not isinstance(client, Client):
        raise ConfigurationError(
            f"client must be a distributed.Client, not {client!r}: pass one, or an address"
        )
    if client.asynchronous:
        raise ConfigurationError(
            "client is asynchronous, and dosna's calls wait for their results: make another by "
            "distributed.Client(address)"
        )
    if client.status != "running":
        raise ConfigurationError(
            f"client is {client.status}: pass a distributed.Client that is connected"
        )
    address: str = client.scheduler.address
    with _lock:
        _clients[address] = client
    return address


@contextmanager
def client_for(params: Mapping[str, Any]) -> Iterator[Client]:
    """Open the client that the keywords of the engine ask for, and keep it for the next call.

    In a task of a worker it is the worker's own, and the task leaves its thread to others
    meanwhile.

    Parameters
    ----------
    params : mapping
        The keywords of `DaskRunner`.

    Raises
    ------
    dosna.errors.ConnectionError
        The scheduler does not answer in time.
    WorkerError
        The local cluster does not start in time.
    """
    worker = None if in_task() else _own_worker()
    if worker is None:
        yield _kept_client(params)
        return
    address = params.get("address")
    own = address is None or address == worker.scheduler.address
    # Whatever the address is, it may be another name of the same scheduler.
    secede()
    try:
        yield get_client() if own else _kept_client(params)
    finally:
        rejoin()


def _own_worker() -> Any:
    """Return the worker whose task calls, or None."""
    try:
        worker = get_worker()
        worker.get_current_task()
    except (ValueError, AttributeError):
        return None
    return worker


def _kept_client(params: Mapping[str, Any]) -> Client:
    address = params.get("address")
    key = str(address) if address is not None else _local_key(params)
    with _lock:
        client = _clients.get(key)
        if client is None or client.status != "running":
            client = _connect(params) if address is not None else start(params)
            _clients[key] = client
        return client


def _local_key(params: Mapping[str, Any]) -> str:
    names = ("n_workers", "threads_per_worker", "memory_limit", "security")
    return "local " + " ".join(f"{name}={params.get(name)!r}" for name in names)


def _connect(params: Mapping[str, Any]) -> Client:
    address, seconds = params["address"], params["timeout"]
    connect = partial(
        open_client,
        address,
        timeout=seconds,
        security=params.get("security"),
        set_as_default=False,
        name=f"dosna-{os.getpid()}",
        loop=event_loop(),
    )
    try:
        # Dask would keep trying what is no address at all.
        with suppress(OSError):
            resolve_address(address)
        # It waits without limit for one that accepts connections and says nothing.
        return within(seconds + 1, connect)
    # Also MemoryError: what another server says is taken for the size of a message.
    except Exception as error:
        raise ConnectionError(
            f"cannot connect to the Dask scheduler at {address}: {error or 'no answer'} "
            f"(timeout={seconds} s). Start `dask scheduler` there, or correct address= (its port "
            "is not that of the dashboard) and security="
        ) from error


def workers_of(client: Client, seconds: float) -> dict[str, Worker]:
    """Return the workers of a cluster by address; those that are new were checked.

    Parameters
    ----------
    client : distributed.Client
        The client.
    seconds : float
        The most seconds to wait for the answer of the scheduler, and for those of new workers.

    Returns
    -------
    dict of str to Worker
        The workers; empty if there is none.

    Raises
    ------
    WorkerError
        A worker or the scheduler cannot import dosna, or a worker has another version of Python
        or of a package whose objects are sent. The message names each, and why.
    TimeoutError
        The scheduler says nothing.
    """
    workers = present(client, seconds)
    kept = _known_to(client)
    with _checked_lock:
        for address, about in list(kept.items()):
            if address not in workers or _folder(workers[address]) != about.folder:
                del kept[address]
        known = dict(kept)
    new = {address: about for address, about in workers.items() if address not in known}
    if new:
        if not known:
            _check_scheduler(client, seconds)
        checked = _check(client, new, seconds)
        known.update(checked)
        with _checked_lock:
            kept.update(checked)
    found = {}
    for address, about in workers.items():
        if address not in known:
            continue
        process, host_name, direct, _ = known[address]
        labels = {str(about["name"]), about["host"], host_name}
        labels |= {name.removeprefix("host-") for name in about.get("resources") or {}}
        name, threads = str(about["name"]), max(1, about["nthreads"])
        ready = about.get("status", "running") == "running"
        placed = frozenset(labels)
        found[address] = Worker(address, process, name, threads, ready, placed, direct)
    return found


def _folder(about: Mapping[str, Any]) -> str:
    return str(about.get("local_directory"))


def present(client: Client, seconds: float) -> Mapping[str, Any]:
    """Return what the scheduler knows of its workers; nothing while it cannot be reached.

    `Client.scheduler_info` would return what the client's own inquiry, which asks for no worker,
    may have put in the place of the answer.

    Parameters
    ----------
    client : distributed.Client
        The client.
    seconds : float
        The most seconds to wait for the answer.

    Raises
    ------
    TimeoutError
        The scheduler is connected, and says nothing.
    """
    known = inspect.signature(client.scheduler_info).parameters
    every = {"n_workers": -1} if "n_workers" in known else {}

    async def ask() -> Mapping[str, Any]:
        try:
            answer = await client.scheduler.identity(**every)
        except OSError:
            return {}
        workers: Mapping[str, Any] = answer["workers"]
        return workers

    if client.scheduler is None or client.status != "running":
        return {}
    # The first limit ends the inquiry, too; the second holds if the event loop hangs.
    inquiry = partial(client.sync, ask, callback_timeout=seconds)
    found: Mapping[str, Any] = within(seconds + 1, inquiry)
    return found


def silence(address: str, seconds: float) -> WorkerError:
    """Return the error for a scheduler that is connected, and says nothing."""
    return WorkerError(
        f"the Dask scheduler at {address} did not answer within {seconds} s: it was stopped, or "
        "is busy. Do the call again once it answers, or pass a longer timeout= to the engine"
    )


def doubt(client: Client, address: str) -> None:
    """Ask the worker at an address anew: it may be another process by now."""
    with suppress(OSError):
        known = _known_to(client)
        with _checked_lock:
            known.pop(address, None)


def _known_to(client: Client) -> dict[str, _Known]:
    if client.scheduler is None:
        raise OSError("its client was closed")
    with _checked_lock:
        return _checked.setdefault(client.scheduler.address, {})


def _check(client: Client, workers: Mapping[str, Any], seconds: float) -> dict[str, _Known]:
    """Return what is known of each worker, or raise WorkerError."""
    mine = _versions_here()
    answers = _ask(client, list(workers), seconds)
    # One that has left meanwhile is not needed.
    left = workers.keys() - present(client, seconds).keys()
    found, faults = {}, []
    for address in workers.keys() - left:
        answer = answers[address]
        called = f"worker {workers[address]['name']} at {address}"
        if isinstance(answer, TimeoutError):
            faults.append(f"{called}: it did not answer within {seconds} s")
            continue
        if isinstance(answer, OSError):
            continue  # It is leaving; if it is not, it is asked again.
        if isinstance(answer, BaseException):
            faults.append(f"{called} cannot be asked for its versions: {answer!r}")
            continue
        (host, theirs, process, trouble), direct = answer
        differing = [
            f"{name} {theirs.get(name)}, here {version}"
            for name, version in mine.items()
            if not _compatible(name, version, theirs.get(name))
        ]
        if not process:
            faults.append(f"{called} of {host} cannot import dosna: {trouble}")
        elif differing:
            faults.append(f"{called} of {host} has {', '.join(differing)}")
        found[address] = _Known(process, host, direct, _folder(workers[address]))
    if faults:
        raise WorkerError(
            "workers of the Dask cluster cannot work for this process: "
            + "; ".join(faults)
            + ". Install the same versions on all of them"
        )
    return found


def _check_scheduler(client: Client, seconds: float) -> None:
    """Raise WorkerError for a scheduler without dosna: it unpickles what it sends to workers."""
    ask = partial(client.run_on_scheduler, eval, _CALL, _question())
    host, theirs, process, trouble = within(seconds, ask)
    called = f"the Dask scheduler at {client.scheduler.address} of {host}"
    here = _versions_here().get("dosna")
    if not process:
        raise WorkerError(f"{called} cannot import dosna: {trouble}. Install it there too")
    if theirs["dosna"] != here:
        raise WorkerError(
            f"{called} has dosna {theirs['dosna']}, here {here}: install the same version there"
        )


def _is_reached(client: Client, address: str) -> bool:
    """Return True if this process can connect to a worker, as others of its network can."""

    async def connect() -> None:
        client.rpc.reuse(address, await client.rpc.connect(address, timeout=_REACH_SECONDS))

    try:
        client.sync(connect, callback_timeout=2 * _REACH_SECONDS)
    except Exception:
        return False
    return True


def _question() -> dict[str, Any]:
    """Return what `_CALL` needs."""
    return {"source": inspect.getsource(probe), "packages": _PACKAGES, "scope": {}}


def _compatible(name: str, here: str, there: str | None) -> bool:
    """Return True if one version reads the pickles of the other, with code and arrays in them."""
    if there is None:
        return False
    if name in ("dosna", "cloudpickle"):
        return here == there or (
            name == "cloudpickle" and here.split(".")[0] == there.split(".")[0]
        )
    return here.split(".")[:2] == there.split(".")[:2]


def _versions_here() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def _ask(client: Client, addresses: list[str], seconds: float) -> dict[str, Any]:
    answers: dict[str, Any] = dict.fromkeys(addresses, TimeoutError())

    question = _question()

    def ask(address: str) -> None:
        try:
            found = client.run(eval, _CALL, question, workers=[address], on_error="return")
            answer = found[address]
            failed = isinstance(answer, BaseException)
            answers[address] = answer if failed else (answer, _is_reached(client, address))
        except Exception as error:
            answers[address] = error

    # One thread for each, because one that hangs must not keep the answers of the others.
    threads = [threading.Thread(target=ask, args=(a,), daemon=True) for a in addresses]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return answers


def _forget_clients() -> None:
    """Leave the parent's clients alone in a forked child, where their threads do not run."""
    global _clients, _lock, _checked, _checked_lock
    _clients, _checked = {}, {}
    _lock, _checked_lock = threading.RLock(), threading.Lock()


os.register_at_fork(after_in_child=_forget_clients)
