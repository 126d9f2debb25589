#!/bin/sh
# A maximum over all ranks in which one rank has NaN should be NaN, as np.max says, or the largest
# of the others, as np.fmax says, and it should be the same on every rank. MPI leaves it open, and
# with MPICH 5.0.2 (mpi4py 4.1.2) it is none of these. The values 1, 2 and 4 with NaN on rank 2 have
# the maximum 4 on two ranks, NaN on one and 2 on one, by the order in which pairs were compared,
# and MIN is no better. allreduce of Python objects compares as Python's max does: 2 again. So a
# step that is limited by the smallest over all ranks can be too large on one of them and differ,
# and loops that end by such a value do not end together. Exchange np.isnan as well, or gather.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    mpi4py==4.1.2 mpich==5.0.2 numpy==2.4.6 || exit 2
cat >reduce.py <<'END'
import sys

import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD
neither = differ = 0
for rank_of_nan in range(comm.size):
    mine = np.nan if comm.rank == rank_of_nan else comm.rank + 1.0
    for op, best in ((MPI.MAX, max), (MPI.MIN, min)):
        there = best(r + 1.0 for r in range(comm.size) if r != rank_of_nan)
        result = np.empty(1)
        comm.Allreduce(np.array([mine]), result, op)
        by_object = comm.allreduce(mine, op)
        buffers, objects = comm.allgather(float(result[0])), comm.allgather(float(by_object))
        if comm.rank == 0:
            name = "MAX" if op == MPI.MAX else "MIN"
            print(f"NaN on rank {rank_of_nan}, {name} of the others {there}:", end=" ")
            print(f"by rank {buffers}, of objects {objects}")
        differ += len(set(map(str, buffers))) > 1
        neither += any(value == value and value != there for value in buffers + objects)
if comm.rank == 0:
    print(f"of 8 results {differ} differ between ranks, {neither} are neither NaN nor the best")
as_seen = differ > 0 and neither > 0
sys.exit(0 if as_seen else "This has changed.")
END
venv/bin/mpiexec -n 4 venv/bin/python -I reduce.py
