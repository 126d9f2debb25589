"""Small helpers for scripts and for the package itself."""

from dosna.util.timer import Timer

__all__ = ["Timer"]
