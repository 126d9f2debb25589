"""Small helpers for scripts and for the package itself."""

from dosna.core.timer import Timer

__all__ = ["Timer"]
