"""NumPy's files as sources."""

from dosna.sources.npy.source import KIND, NpySource

__all__ = ["KIND", "NpySource"]
