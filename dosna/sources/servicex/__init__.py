"""Results of ServiceX as sources.

What reads its result files needs no client of ServiceX, which is imported with the source itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dosna.sources.servicex.source import KIND, ServiceXSource

__all__ = ["KIND", "ServiceXSource"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dosna.sources.servicex import source

    return getattr(source, name)
