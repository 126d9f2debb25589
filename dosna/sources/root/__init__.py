"""ROOT files as sources."""

from dosna.sources.root.source import KIND, RootSource, to_arrow, to_awkward

__all__ = ["KIND", "RootSource", "to_arrow", "to_awkward"]
