"""For scripts that run under MPI, and without it: then there is one process, the root.

Each function takes the communicator, by default that of the chosen engine, or COMM_WORLD.
"""

from __future__ import annotations

from typing import Any

from dosna.core.timer import Timer
from dosna.settings import status

__all__ = [
    "MpiTimer",
    "mpi_barrier",
    "mpi_comm",
    "mpi_is_root",
    "mpi_rank",
    "mpi_root",
    "mpi_size",
    "pprint",
]


def mpi_comm() -> Any:
    """Give the communicator; None where mpi4py, or the MPI library that it needs, is missing."""
    comm = status().engine.params.get("comm")
    if comm is not None:
        return comm
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError):
        return None
    return MPI.COMM_WORLD


def mpi_rank(comm: Any = None) -> int:
    """Give the rank of this process."""
    comm = mpi_comm() if comm is None else comm
    return 0 if comm is None else int(comm.Get_rank())


def mpi_size(comm: Any = None) -> int:
    """Give the number of ranks."""
    comm = mpi_comm() if comm is None else comm
    return 1 if comm is None else int(comm.Get_size())


def mpi_is_root(comm: Any = None) -> bool:
    """Whether this is rank 0."""
    return mpi_rank(comm) == 0


mpi_root = mpi_is_root


def mpi_barrier(comm: Any = None) -> None:
    """Wait until all ranks are here."""
    comm = mpi_comm() if comm is None else comm
    if comm is not None:
        comm.Barrier()


def pprint(
    *values: Any, rank: int | None = None, comm: Any = None, sep: str = " ", end: str = "\n"
) -> None:
    """Print with this process's rank before it, each call in one piece.

    Parameters
    ----------
    *values
    rank : int, optional
        The only rank that prints; all by default.
    comm : mpi4py.MPI.Comm, optional
    sep, end : str
        As of `print`.
    """
    own = mpi_rank(comm)
    if rank is None or rank == own:
        width = len(str(mpi_size(comm) - 1))
        # Pieces would mix with those of other ranks where output is not buffered.
        print(f"|{own:{width}d}) {sep.join(map(str, values))}{end}", end="", flush=True)


class MpiTimer(Timer):
    """Time a block until all ranks have left it; one of them prints.

    Parameters
    ----------
    name : str
    rank : int
        The rank that prints.
    """

    def __init__(self, name: str = "Timer", rank: int = 0) -> None:
        super().__init__(name)
        self.rank = rank

    def __enter__(self) -> MpiTimer:
        super().__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        # A rank that failed will not come to the barrier: waiting for it would hang.
        if exc[0] is None:
            mpi_barrier()
        super().__exit__(*exc)

    def report(self) -> None:
        pprint(f"{self.name}: {self.time:.4f} s", rank=self.rank)
