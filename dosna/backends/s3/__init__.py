"""The backend `s3`: Zarr v3 arrays in buckets."""

from dosna.backends.s3.connection import BACKEND, S3Connection

__all__ = ["BACKEND", "S3Connection"]
