"""A hand-written parallel script: ranks make a dataset together, and each works on its slices.

    sh run_mpi.sh 2 examples/mpi_demo.py [FOLDER]

All ranks make collective calls (create_dataset, map, sum, …); each rank slices independently of
the others. A barrier separates writing from reading what other ranks wrote.
"""

from __future__ import annotations

import sys
import tempfile

import numpy as np

import dosna as dn
from dosna.engines.mpi.scripts import (
    MpiTimer,
    mpi_barrier,
    mpi_comm,
    mpi_is_root,
    mpi_rank,
    mpi_size,
    pprint,
)

SHAPE, CHUNKS = (200, 128, 128), (32, 64, 64)


def main() -> None:
    dn.use(engine="mpi", backend="hdf5")
    scratch = None
    if mpi_is_root() and len(sys.argv) < 2:
        scratch = tempfile.TemporaryDirectory(prefix="dosna-")
    # An absolute path that all ranks see.
    folder = sys.argv[1] if len(sys.argv) > 1 else mpi_comm().bcast(scratch and scratch.name)

    with dn.Connection(folder) as con:
        ramp = con.create_dataset("ramp", SHAPE, "f4", chunk_size=CHUNKS)

        with MpiTimer("each rank writes its slices"):
            # The slices are not aligned with chunks: two ranks that share a chunk lose nothing.
            begin, end = (SHAPE[0] * (mpi_rank() + i) // mpi_size() for i in (0, 1))
            ramp[begin:end] = np.arange(begin, end)[:, None, None]
        pprint(f"wrote [{begin}:{end}]")

        with MpiTimer("each rank checks those of its neighbour"):
            begin, end = (
                SHAPE[0] * ((mpi_rank() + 1) % mpi_size() + i) // mpi_size() for i in (0, 1)
            )
            assert (ramp[begin:end, 7, 9] == np.arange(begin, end)).all()
        pprint(f"checked [{begin}:{end}]")

        with MpiTimer("all ranks map and sum together"):
            total = ramp.map(np.square, "squares").sum()
        assert total == SHAPE[1] * SHAPE[2] * sum(n * n for n in range(SHAPE[0]))
        pprint("sum of squares", total, rank=0)

        # The calls of one rank alone wait for no other.
        if con.mpi_is_root:
            pprint("a corner", con["squares"][-1, -2:, -1])

        con.del_dataset("squares")
        con.del_dataset("ramp")
    mpi_barrier()
    if scratch:
        scratch.cleanup()


if __name__ == "__main__":
    main()
