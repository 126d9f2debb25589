"""Domains of HSDS as sources."""

from dosna.sources.hsds.source import KIND, HsdsSource

__all__ = ["KIND", "HsdsSource"]
