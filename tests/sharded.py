"""Backends whose datasets are all of shards, so that the conformance kit tries them."""

from __future__ import annotations

from dosna.backends import Backend
from dosna.backends import registry as backends
from dosna.backends.zarr.connection import FileConnection
from dosna.testing.doubles import MemoryConnection

SHARDED, SHARDED_S3 = "file-shards", "s3-shards"


class _Sharded:
    """Two or three chunks to a shard on each axis, unless told otherwise."""

    def create_dataset(
        self, name, metadata, *, compression=None, checksum=True, shards=None, dims=None
    ):
        if shards is None and metadata.ndim:
            shards = tuple(c * (2 + axis % 2) for axis, c in enumerate(metadata.chunk_size))
        return super().create_dataset(
            name, metadata, compression=compression, checksum=checksum, shards=shards, dims=dims
        )


class ShardedFiles(_Sharded, FileConnection):
    pass


class ShardedMemory(_Sharded, MemoryConnection):
    pass


backends.register(Backend(SHARDED, ShardedFiles))
backends.register(Backend("memory-shards", ShardedMemory))

try:
    from dosna.backends.s3.connection import S3Connection
except ImportError:
    pass  # boto3 or obstore is missing.
else:

    class ShardedS3(_Sharded, S3Connection):
        pass

    backends.register(Backend(SHARDED_S3, ShardedS3))
