"""The end of a call on a cluster: what is under way is stopped, and waited for."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import wait
from contextlib import suppress
from functools import partial

from distributed import Client, Future

from dosna.engines.dask.cluster import Worker, present
from dosna.engines.dask.local import begin, kill, within
from dosna.engines.dask.tasks import forget, stop

__all__ = ["end", "leave"]

_INTERRUPT_SECONDS = 0.5
_LOOK_SECONDS = 1.0


def end(
    client: Client, call: str, futures: list[Future], error: BaseException, timeout: float | None
) -> None:
    """Stop what is under way; after an error of the work wait for that.

    Parameters
    ----------
    client : distributed.Client
        The client.
    call : str
        The identifier of the call.
    futures : list of distributed.Future
        The batches under way.
    error : BaseException
        The error that ends the call.
    timeout : float, optional
        The seconds that the scheduler has for each answer; by default it is known to say nothing.
    """
    interrupted = not isinstance(error, Exception)
    if interrupted or timeout is None:
        # Neither a scheduler nor a worker that hangs is waited for.
        limit = 1.5 * _INTERRUPT_SECONDS
        _cancel(client, futures, limit)
        ask = partial(client.run, stop, call, _INTERRUPT_SECONDS, on_error="ignore")
        with suppress(Exception):
            running = within(limit, ask)
            if interrupted:
                # A thread cannot be interrupted, but processes of this machine can be replaced.
                kill(client, [pid for pid in running.values() if pid])
        return
    _cancel(client, futures, timeout)
    asking = begin(partial(client.run, stop, call, None, on_error="ignore"))
    # The scheduler waits until each worker has stopped or has left; it may itself say nothing.
    with suppress(Exception):
        while wait([asking], _LOOK_SECONDS).not_done:
            present(client, timeout)


def _cancel(client: Client, futures: list[Future], seconds: float) -> None:
    with suppress(Exception):
        within(seconds, partial(client.cancel, futures, force=True))


def leave(client: Client, before: Iterable[Worker], now: Iterable[Worker]) -> None:
    """Close the connections to workers that have left, those of other workers too.

    One that was stopped, and that the scheduler has given up, leaves its connections open; what
    was asked of it would be waited for without limit.
    """
    here = {(worker.address, worker.process) for worker in now}
    left = [worker.address for worker in before if (worker.address, worker.process) not in here]
    for address in left:
        client.loop.add_callback(client.rpc.remove, address)
    if left:
        begin(partial(client.run, forget, left, on_error="ignore"))
