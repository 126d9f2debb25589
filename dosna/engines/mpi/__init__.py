"""The engine `mpi`: the ranks of an MPI program."""
