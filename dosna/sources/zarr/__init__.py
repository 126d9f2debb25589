"""Zarr arrays and groups as sources."""

from dosna.sources.zarr.source import KIND, ZarrSource

__all__ = ["KIND", "ZarrSource"]
