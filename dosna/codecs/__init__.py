"""The bytes of chunks: compressors, checksums, filters, and documents of Zarr."""

from dosna.codecs.compressors import CodecError
from dosna.codecs.pipeline import COMPRESSORS, Pipeline, compressor

__all__ = ["COMPRESSORS", "CodecError", "Pipeline", "compressor"]
