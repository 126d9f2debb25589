"""The backend `file`: a folder with a Zarr v3 array."""

from dosna.backends.zarr.connection import BACKEND, FileConnection

__all__ = ["BACKEND", "FileConnection"]
