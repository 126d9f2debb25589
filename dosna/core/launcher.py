"""What the launcher of an MPI program tells each of its processes."""

from __future__ import annotations

import os
import sys

__all__ = ["process_rank"]

# Of MPICH and Intel MPI, Open MPI, PMIx, and Slurm's srun.
_RANKS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID")


def process_rank() -> int:
    """Return this process's rank in its MPI program; 0 in a program of its own.

    MPI itself is asked where the program has loaded it, and else the launcher's environment.
    """
    loaded = sys.modules.get("mpi4py.MPI")
    if loaded is not None:
        return int(loaded.COMM_WORLD.Get_rank())
    for name in _RANKS:
        rank = os.environ.get(name, "")
        if rank.isdecimal():
            return int(rank)
    return 0
