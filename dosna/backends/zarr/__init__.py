"""The backend `file`: a folder of Zarr v3 arrays."""

from dosna.backends.zarr.connection import BACKEND, FileConnection

__all__ = ["BACKEND", "FileConnection"]
