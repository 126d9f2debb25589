"""The backend `hdf5`: a folder with an HDF5 file for each chunk."""

from dosna.backends.hdf5.connection import BACKEND, H5Connection
from dosna.backends.hdf5.dataset import H5Dataset

__all__ = ["BACKEND", "H5Connection", "H5Dataset"]
