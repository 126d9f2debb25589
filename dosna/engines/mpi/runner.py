"""The mpi engine: ranks of an MPI program share the work.

Collective calls (creating and deleting, everything over all chunks, attributes; see
`dosna.engines.base.collective`) are made by all ranks. One rank changes metadata and sends the
result to the others; chunks are shared out in contiguous parts. Reading, slicing and connecting
are local to each rank and wait for no other.
"""

from __future__ import annotations

import hashlib
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

try:
    from mpi4py import MPI
except RuntimeError as error:
    # mpi4py's wheel looks for the library when it is imported.
    raise ImportError(
        f"mpi4py found no MPI library: {error}. Load that of your cluster, or pip install mpich",
        name="an MPI library",
    ) from error

from dosna.core.plan import Plan
from dosna.core.progress import Progress, reporting
from dosna.engines.base import (
    Engine,
    R,
    Report,
    Runner,
    T,
    Tasks,
    pack_error,
    reported,
    text_of,
    unpack_error,
)
from dosna.engines.mpi.agreement import meaning
from dosna.errors import CollectiveError, ConfigurationError

ROOT = 0
_SHOWN = 500
_FORWARDED_SECONDS = 0.5

# The duplicate is kept as an attribute of the communicator that it was made from.
_keyval = MPI.Comm.Create_keyval(delete_fn=lambda comm, keyval, duplicate: duplicate.Free())


class MpiRunner(Runner):
    """A runner that shares work out over the ranks of a communicator.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm, optional
        The communicator; by default COMM_WORLD. It is duplicated, in the first collective call, so
        that dosna's messages never meet the program's own.
    collective_timeout : float, optional
        The seconds that a rank waits at the beginning of a collective call for the others to make
        it too. Then it reports which call it was and aborts all ranks: that is the only way out
        when a rank never calls. By default it waits forever.
    """

    _working: ClassVar[str | None] = None

    def __init__(
        self, comm: MPI.Intracomm | None = None, collective_timeout: float | None = None
    ) -> None:
        super().__init__()
        if comm is not None:
            _check(comm)
        if collective_timeout is not None and not collective_timeout > 0:
            raise ConfigurationError(
                f"collective_timeout must be a positive number of seconds: {collective_timeout}"
            )
        self.comm = MPI.COMM_WORLD if comm is None else comm
        self.collective_timeout = collective_timeout
        self.rank, self.size = self.comm.Get_rank(), self.comm.Get_size()
        self.is_root = self.rank == ROOT
        self._call = ""
        self.workers = self.size
        self.shares_memory = self.size == 1  # type: ignore[misc]

    @property
    def params(self) -> Mapping[str, Any]:
        return {"comm": self.comm, "collective_timeout": self.collective_timeout}

    @property
    def own_comm(self) -> MPI.Intracomm:
        """Our duplicate of the communicator; the first access must be in a collective call."""
        _check(self.comm)
        found: Any = self.comm.Get_attr(_keyval)
        if found is None:
            found = self.comm.Dup()
            self.comm.Set_attr(_keyval, found)
        duplicate: MPI.Intracomm = found
        return duplicate

    def agree(self, what: str, *arguments: Any) -> None:
        if self.size == 1:
            return
        if MpiRunner._working is not None:
            raise CollectiveError(
                f"{what} cannot be called by a function that each rank runs on its own within "
                f"{MpiRunner._working}: it is a collective call. Call it before or after"
            )
        self._call = what
        try:
            shown = f"{what}{tuple(meaning(a) for a in arguments)}"
            digest = hashlib.sha256(shown.encode()).hexdigest()
        except Exception as error:
            # An argument that cannot even be inspected, such as a closed file.
            shown = f"{what}: {type(error).__name__}: {text_of(error)}"
            digest = f"failed on rank {self.rank}"
        with self._deadline(what):
            digests = self.own_comm.allgather(digest)
        if len(set(digests)) == 1:
            return
        calls = self.own_comm.allgather(shown[:_SHOWN])
        different = "\n".join(f"  rank {rank}: {call}" for rank, call in enumerate(calls))
        raise CollectiveError(
            "the collective calls of the ranks differ: all ranks must make the same calls with "
            f"the same arguments.\n{different}"
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
            f"collective call {what!r}, which another rank did not make: aborting all ranks",
            file=sys.stderr,
            flush=True,
        )
        # mpiexec may drop output that it has not forwarded yet.
        time.sleep(_FORWARDED_SECONDS)
        self.comm.Abort(1)

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
        mine: Iterable[T]
        if isinstance(tasks, Plan):
            mine = tasks.part(self.rank, self.size)
        else:
            mine = list(tasks)[self.rank :: self.size]
        if report is not None:
            tell, total = report, len(tasks)
            mine = reported(mine, lambda done: tell(min(total, done * self.size)))
        if self.size == 1:
            return [work(mine)]
        packed, _, error = self._try(lambda: work(mine))
        outcomes = [pickle.loads(o) for o in self.own_comm.allgather(packed)]
        self._raise_first([packed for packed, _ in outcomes], error)
        return [value for _, value in outcomes]

    def once(self, func: Callable[[], R]) -> R:
        if self.size == 1:
            return func()
        if self.is_root:
            packed, result, error = self._try(func)
            self.own_comm.bcast(packed, ROOT)
            if error is not None:
                raise error
            return result  # type: ignore[return-value]
        failed, value = pickle.loads(self.own_comm.bcast(None, ROOT))
        if failed is not None:
            raise unpack_error(failed)
        return value  # type: ignore[no-any-return]

    @contextmanager
    def reporting(
        self, progress: Progress, total: int, what: str, unit: str = "chunk"
    ) -> Iterator[Report | None]:
        # An error in showing progress, also before and after the work, is raised on all ranks.
        with ExitStack() as stack:
            reports: list[Report | None] = [None]

            def begin() -> bool:
                reports[0] = stack.enter_context(reporting(progress, total, what, unit))
                return reports[0] is not None

            shown = self.once(begin)
            yield reports[0]
            if shown:
                self.once(stack.close)

    def barrier(self) -> None:
        """Wait until all ranks have called this."""
        self.agree("mpi_barrier")

    def _try(self, func: Callable[[], R]) -> tuple[bytes, R | None, BaseException | None]:
        """Run a function, and pack its result or its error for the other ranks."""
        MpiRunner._working = self._call
        try:
            result = func()
            return pickle.dumps((None, result)), result, None
        except BaseException as error:
            packed = pack_error(error, f"On rank {self.rank} of {self.size}")
            return pickle.dumps((packed, None)), None, error
        finally:
            MpiRunner._working = None

    def _raise_first(self, packed: list[bytes | None], own: BaseException | None) -> None:
        """Raise the error of the lowest rank that has one, the same on all ranks."""
        for rank, error in enumerate(packed):
            if error is not None:
                if own is not None and rank == self.rank:
                    raise own
                raise unpack_error(error)

    def same_ranks(self, other: Runner) -> bool:
        """Return True if another runner shares work out over the same ranks."""
        return isinstance(other, MpiRunner) and MPI.Comm.Compare(self.comm, other.comm) in (
            MPI.IDENT,
            MPI.CONGRUENT,
        )


def _check(comm: Any) -> None:
    """Raise ConfigurationError for what the ranks cannot share work over."""
    if not isinstance(comm, MPI.Comm):
        raise ConfigurationError(f"comm must be an mpi4py communicator, not {comm!r}")
    if comm == MPI.COMM_NULL:
        raise ConfigurationError(
            "comm is MPI.COMM_NULL: it was freed, or this rank is in none of the groups. Use "
            "connections before their communicator is freed, and only on the ranks of a group"
        )
    if comm.Is_inter():
        raise ConfigurationError(
            "comm is an intercommunicator, whose two groups do not see each other's results: "
            "use its Merge(), or each group's own communicator"
        )


ENGINE = Engine(
    name="mpi",
    runner=MpiRunner,
    connection="dosna.array.ranks:MpiConnection",
    description="the ranks of an MPI program",
    url="https://mpi4py.readthedocs.io",
)
