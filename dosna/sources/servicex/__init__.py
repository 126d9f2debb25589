"""Results of ServiceX as sources."""

from dosna.sources.servicex.source import KIND, ServiceXSource

__all__ = ["KIND", "ServiceXSource"]
