"""Types that all packages of dosna use."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["Array", "Box", "Json", "Shape", "Slices"]

Array = np.ndarray[Any, Any]

Shape = tuple[int, ...]
"""The extents of an array, or the index of a chunk: an integer for each axis."""

Box = tuple[slice, ...]
"""A part of an array: a slice for each axis."""

Slices = tuple[Any, ...]
"""A part of a chunk: a slice or an array of integers for each axis."""

Json = dict[str, Any]
"""A JSON object."""
