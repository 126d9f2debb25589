"""A command on the ranks of an MPI program: one prints, and all end with the same code."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
from typing import Any

from dosna.engines import registry as engines

__all__ = ["Ranks", "ranks_of"]

# Variables of MPICH and Intel MPI, of Open MPI, and of Slurm's srun.
_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
_PATIENCE_SECONDS = 5.0
_POLL_SECONDS = 0.01
_FORWARDED_SECONDS = 0.5


class Ranks:
    """A single process."""

    first = True

    def settle(self, code: int, message: str | None) -> tuple[int, str | None]:
        """End together: return the worst code, and the message of the first rank that has one."""
        return code, message


class MpiRanks(Ranks):
    """All ranks of the world."""

    def __init__(self) -> None:
        from mpi4py import MPI

        self._world: Any = MPI.COMM_WORLD.Dup()
        self.first = self._world.rank == 0

    def settle(self, code: int, message: str | None) -> tuple[int, str | None]:
        world, began = self._world, time.monotonic()
        arrived = world.Ibarrier()
        while not arrived.Test():
            # Ranks that have not failed may wait for this one forever.
            if code and time.monotonic() - began > _PATIENCE_SECONDS:
                print(f"dosna: rank {world.rank}: {message}", file=sys.stderr, flush=True)
                # mpiexec may drop output that it has not forwarded yet.
                time.sleep(_FORWARDED_SECONDS)
                world.Abort(code)
            time.sleep(_POLL_SECONDS)
        outcomes = world.allgather((code, message))
        said = next((text for _, text in outcomes if text is not None), None)
        return max(code for code, _ in outcomes), said


def _default_engine() -> str:
    """Return the name of an engine: mpi under mpiexec, else joblib if installed, else cpu."""
    if any(int(os.environ.get(name) or 1) > 1 for name in _SIZES):
        return "mpi"
    there = all(importlib.util.find_spec(name) for name in ("joblib", "cloudpickle"))
    return "joblib" if there else "cpu"


def ranks_of(arguments: argparse.Namespace) -> Ranks:
    """Return the ranks that a command runs on, and store its engine in the arguments.

    Raises
    ------
    ConfigurationError
        The engine does not exist.
    MissingDependencyError
        A package that the engine needs is not installed.
    """
    found = engines.get(arguments.engine or _default_engine())
    arguments.engine = found.name
    return MpiRanks() if found.name == "mpi" else Ranks()
