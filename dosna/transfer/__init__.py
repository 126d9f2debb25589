"""Whole HDF5 files as domains of HSDS, copied or linked."""
