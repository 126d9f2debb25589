"""Functions for scripts that run under MPI or without it; without it, the one process is the root.

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
    """Return the communicator.

    Returns
    -------
    mpi4py.MPI.Comm or None
        None where mpi4py, or the MPI library that it needs, is missing.
    """
    comm = status().engine.params.get("comm")
    if comm is not None:
        return comm
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError):
        return None
    return MPI.COMM_WORLD


def mpi_rank(comm: Any = None) -> int:
    """Return the rank of this process.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm, optional
        The communicator; by default that of the chosen engine, or COMM_WORLD.

    Returns
    -------
    int
        The rank; 0 without MPI.
    """
    comm = mpi_comm() if comm is None else comm
    return 0 if comm is None else int(comm.Get_rank())


def mpi_size(comm: Any = None) -> int:
    """Return the number of ranks.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm, optional
        The communicator; by default that of the chosen engine, or COMM_WORLD.

    Returns
    -------
    int
        The number of ranks; 1 without MPI.
    """
    comm = mpi_comm() if comm is None else comm
    return 1 if comm is None else int(comm.Get_size())


def mpi_is_root(comm: Any = None) -> bool:
    """Return True on rank 0.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm, optional
        The communicator; by default that of the chosen engine, or COMM_WORLD.

    Returns
    -------
    bool
        True if the rank of this process is 0.
    """
    return mpi_rank(comm) == 0


mpi_root = mpi_is_root


def mpi_barrier(comm: Any = None) -> None:
    """Wait until all ranks have called this.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm, optional
        The communicator; by default that of the chosen engine, or COMM_WORLD.
    """
    comm = mpi_comm() if comm is None else comm
    if comm is not None:
        comm.Barrier()


def pprint(
    *values: Any, rank: int | None = None, comm: Any = None, sep: str = " ", end: str = "\n"
) -> None:
    """Print values after this process's rank, each call in one piece.

    Parameters
    ----------
    *values
        The values to print.
    rank : int, optional
        The only rank that prints; by default all print.
    comm : mpi4py.MPI.Comm, optional
        The communicator; by default that of the chosen engine, or COMM_WORLD.
    sep, end : str
        The separator and the end, as for `print`.
    """
    own = mpi_rank(comm)
    if rank is None or rank == own:
        width = len(str(mpi_size(comm) - 1))
        # Pieces would mix with those of other ranks where output is not buffered.
        print(f"|{own:{width}d}) {sep.join(map(str, values))}{end}", end="", flush=True)


class MpiTimer(Timer):
    """A timer of a block until all ranks have left it; one of them prints the time.

    Parameters
    ----------
    name : str
        The name that is printed.
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
        # A rank that failed will not reach the barrier: waiting for it would hang.
        if exc[0] is None:
            mpi_barrier()
        super().__exit__(*exc)

    def report(self) -> None:
        pprint(f"{self.name}: {self.time:.4f} s", rank=self.rank)
