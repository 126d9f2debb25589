"""Results of ServiceX as sources.

What reads its result files needs no client of ServiceX, which is imported with the source itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dosna.registry import lazily

if TYPE_CHECKING:
    from dosna.sources.servicex.source import KIND, ServiceXSource

__all__ = ["KIND", "ServiceXSource"]
__getattr__ = lazily(__name__, dict.fromkeys(__all__, "source"))
