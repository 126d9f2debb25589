"""Transformations of one file by a selection to one file of columns.

`transform` does this for the service. Selections contain code of users, so they run in a confined
process of their own (`dosna.delivery.transform.sandbox`). Trees that are already stored as columns
(``dosna://``) are delivered by a query, which runs no code of users.
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
