"""The mpi engine: ranks of an MPI program share the work.

Collective calls (creating and deleting, everything over all chunks, attributes; see
`dosna.engines.base.collective`) are made by all ranks. One rank changes metadata and sends
what became of it to the others; chunks are shared out in contiguous parts. Reading, slicing
and connecting are each rank's own affair and wait for nobody.
"""

from __future__ import annotations

import hashlib
import pickle
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from mpi4py import MPI

from dosna.engines.base import R, Report, Runner, T, Tasks, pack_error, reported
from dosna.engines.connection import EngineConnection
from dosna.engines.dataset import EngineDataset
from dosna.errors import CollectiveError, ConfigurationError
from dosna.plan import Plan
from dosna.registry import Engine
from dosna.settings import current

ROOT = 0
_SHOWN = 500

# The duplicate lives as an attribute of the communicator that it was made from.
_keyval = MPI.Comm.Create_keyval(delete_fn=lambda comm, keyval, duplicate: duplicate.Free())


class MpiRunner(Runner):
    """Shares work out over the ranks of a communicator.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm, optional
        COMM_WORLD by default. It is duplicated, in the first collective call, so that dosna's
        messages never meet the program's own.
    collective_timeout : float, optional
        Seconds that a rank waits at the beginning of a collective call for the others to
        make it too. Then it says which call it was and aborts all ranks: that is the only way
        out when a rank never calls. By default it waits for ever.
    """

    def __init__(
        self, comm: MPI.Intracomm | None = None, collective_timeout: float | None = None
    ) -> None:
        super().__init__()
        if comm is not None and not isinstance(comm, MPI.Comm):
            raise ConfigurationError(f"comm is an mpi4py communicator, not {comm!r}")
        if collective_timeout is not None and not collective_timeout > 0:
            raise ConfigurationError(f"collective_timeout is in seconds, not {collective_timeout}")
        self.comm = MPI.COMM_WORLD if comm is None else comm
        self.collective_timeout = collective_timeout
        self.rank, self.size = self.comm.Get_rank(), self.comm.Get_size()
        self.is_root = self.rank == ROOT
        self.workers = self.size
        self.shares_memory = self.size == 1  # type: ignore[misc]

    @property
    def params(self) -> Mapping[str, Any]:
        return {"comm": self.comm, "collective_timeout": self.collective_timeout}

    @property
    def own_comm(self) -> MPI.Intracomm:
        """Our duplicate of the communicator; the first to ask must be a collective call."""
        found: Any = self.comm.Get_attr(_keyval)
        if found is None:
            found = self.comm.Dup()
            self.comm.Set_attr(_keyval, found)
        duplicate: MPI.Intracomm = found
        return duplicate

    def agree(self, what: str, *arguments: Any) -> None:
        if self.size == 1:
            return
        shown = f"{what}{tuple(_summary(a) for a in arguments)}"
        digest = hashlib.sha256(shown.encode()).hexdigest()
        with self._deadline(what):
            digests = self.own_comm.allgather(digest)
        if len(set(digests)) == 1:
            return
        calls = self.own_comm.allgather(shown[:_SHOWN])
        different = "\n".join(f"  rank {rank}: {call}" for rank, call in enumerate(calls))
        raise CollectiveError(
            "all ranks make a collective call together and with the same arguments, but here "
            f"they differ:\n{different}"
        )

    @contextmanager
    def _deadline(self, what: str) -> Iterator[None]:
        if self.collective_timeout is None:
            yield
            return
        timer = threading.Timer(self.collective_timeout, self._abort, [what])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _abort(self, what: str) -> None:
        print(
            f"dosna: rank {self.rank} of {self.size} waited {self.collective_timeout} s in the "
            f"collective call {what!r}, which some other rank never made: aborting all ranks",
            file=sys.stderr,
            flush=True,
        )
        self.comm.Abort(1)

    def map(self, work: Callable[[Iterable[T]], R], tasks: Tasks[T]) -> list[R]:
        return [work(tasks)]

    def spread(
        self,
        work: Callable[[Iterable[T]], R],
        tasks: Tasks[T],
        *,
        workers: int | None = None,
        travels: bool = True,
        report: Report | None = None,
    ) -> list[R]:
        mine: Iterable[T]
        if isinstance(tasks, Plan):
            mine = tasks.part(self.rank, self.size)
        else:
            mine = list(tasks)[self.rank :: self.size]
        if report is not None and self.is_root:
            tell, total = report, len(tasks)
            mine = reported(mine, lambda done: tell(min(total, done * self.size)))
        result, error = self._try(lambda: work(mine))
        outcomes = [pickle.loads(o) for o in self._gather(_pack(result, error))]
        self._raise_first([packed for packed, _ in outcomes], error)
        return [value for _, value in outcomes]

    def once(self, func: Callable[[], R]) -> R:
        if self.size == 1:
            return func()
        result, error = self._try(func) if self.is_root else (None, None)
        packed = self.own_comm.bcast(_pack(result, error) if self.is_root else None, ROOT)
        if self.is_root:
            if error is not None:
                raise error
            return result  # type: ignore[return-value]
        failed, value = pickle.loads(packed)
        self._raise_first([failed], None)
        return value  # type: ignore[no-any-return]

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        self.own_comm.Barrier()

    def _gather(self, packed: bytes) -> list[bytes]:
        return [packed] if self.size == 1 else self.own_comm.allgather(packed)

    @staticmethod
    def _try(func: Callable[[], R]) -> tuple[R | None, BaseException | None]:
        try:
            result = func()
            # What the others cannot be told is an error for them too.
            pickle.dumps(result)
            return result, None
        except BaseException as error:
            return None, error

    def _raise_first(self, packed: list[bytes | None], own: BaseException | None) -> None:
        """Raise the error of the lowest rank that has one, the same on all ranks."""
        for rank, error in enumerate(packed):
            if error is not None:
                if own is not None and rank == self.rank:
                    raise own
                raise pickle.loads(error)


def _pack(result: Any, error: BaseException | None) -> bytes:
    return pickle.dumps((None if error is None else pack_error(error), result))


def _summary(value: Any) -> Any:
    """Describe an argument so that equal ones on two ranks are described equally."""
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, np.dtype)):
        return value
    if isinstance(value, (list, tuple)):
        return tuple(_summary(v) for v in value)
    if isinstance(value, slice):
        return "slice", _summary((value.start, value.stop, value.step))
    if isinstance(value, Mapping):
        return tuple((str(k), _summary(v)) for k, v in value.items())
    if isinstance(value, (EngineConnection, EngineDataset)):
        return value.identity
    if isinstance(value, np.generic):
        return str(value.dtype), value.item()
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return type(value).__name__, tuple(value.shape), str(value.dtype)
    if isinstance(value, type):
        return value.__qualname__
    return getattr(value, "__qualname__", None) or type(value).__qualname__


class _Ranks:
    """What connections and datasets tell of the ranks; all but `mpi_barrier` is local."""

    runner: Runner

    @property
    def _ranks(self) -> MpiRunner:
        assert isinstance(self.runner, MpiRunner)
        return self.runner

    @property
    def mpi_comm(self) -> MPI.Intracomm:
        """The communicator that the engine was given."""
        return self._ranks.comm

    @property
    def mpi_rank(self) -> int:
        """Rank of this process in it."""
        return self._ranks.rank

    @property
    def mpi_size(self) -> int:
        """The number of ranks."""
        return self._ranks.size

    @property
    def mpi_is_root(self) -> bool:
        """Whether this is the rank that changes metadata."""
        return self._ranks.is_root

    def mpi_barrier(self) -> None:
        """Wait until all ranks are here."""
        self._ranks.barrier()


class MpiDataset(_Ranks, EngineDataset):
    """A dataset that ranks work on together."""


class MpiConnection(_Ranks, EngineConnection):
    """A connection that ranks share.

    Parameters
    ----------
    name : str
    comm : mpi4py.MPI.Comm, optional
        Instead of the engine's.
    engine_kw : mapping, optional
    **options
        As of `EngineConnection`.
    """

    dataset_class = MpiDataset

    def __init__(
        self,
        name: str,
        *,
        comm: MPI.Intracomm | None = None,
        engine_kw: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        if comm is not None:
            chosen = current(options.get("engine"), None, engine_kw).engine.params
            engine_kw = {**chosen, "comm": comm}
        super().__init__(name, engine_kw=engine_kw, **options)


ENGINE = Engine(
    name="mpi",
    runner=MpiRunner,
    connection=MpiConnection,
    description="the ranks of an MPI program",
    url="https://mpi4py.readthedocs.io",
)
