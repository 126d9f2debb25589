"""Transformers: one file and a selection become one file of columns.

`transform` does this for the service. Selections carry code of users, so they run in a process of
their own, which is confined (`dosna.delivery.transform.sandbox`). Trees that are columns already,
``dosna://`` sources, are delivered by a query, which runs no code of users.
"""

from __future__ import annotations

from dosna.delivery.transform.request import CODEGENS, FORMATS, Limits, TransformRequest
from dosna.delivery.transform.running import TransformResult, transform

__all__ = [
    "CODEGENS",
    "FORMATS",
    "Limits",
    "TransformRequest",
    "TransformResult",
    "transform",
]
