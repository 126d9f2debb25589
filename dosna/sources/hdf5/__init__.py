"""HDF5 files as sources."""

from dosna.sources.hdf5.source import KIND, H5Source

__all__ = ["KIND", "H5Source"]
