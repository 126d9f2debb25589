"""The bytes of chunks: compressors, checksums, filters, and documents of Zarr."""

from dosna.codecs.base import (
    ArrayArrayCodec,
    ArrayBytesCodec,
    BytesBytesCodec,
    CodecError,
    CodecKind,
)
from dosna.codecs.kinds import COMPRESSORS, compressor, registry
from dosna.codecs.pipeline import Pipeline

__all__ = [
    "COMPRESSORS",
    "ArrayArrayCodec",
    "ArrayBytesCodec",
    "BytesBytesCodec",
    "CodecError",
    "CodecKind",
    "Pipeline",
    "compressor",
    "registry",
]
