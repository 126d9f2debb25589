"""Information that the launcher of an MPI program passes to each of its processes."""

from __future__ import annotations

import os
import sys

__all__ = ["process_rank"]

# The variables of MPICH and Intel MPI, Open MPI, PMIx, and Slurm's srun.
_RANKS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID")


def process_rank() -> int:
    """Return this process's rank in its MPI program; 0 if it runs alone.

    The rank comes from MPI itself if the program has loaded it, and otherwise from the launcher's
    environment variables.
    """
    loaded = sys.modules.get("mpi4py.MPI")
    if loaded is not None:
        return int(loaded.COMM_WORLD.Get_rank())
    for name in _RANKS:
        rank = os.environ.get(name, "")
        if rank.isdecimal():
            return int(rank)
    return 0
