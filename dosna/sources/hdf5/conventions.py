"""Conventions of netCDF and MATLAB, by which a dataset of HDF5 means something else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["convention_notes"]


_NON_COORDINATE = "_nc4_non_coord_"


def convention_notes(
    name: str, attrs: Mapping[str, Any], dtype: np.dtype[Any], hidden: bool = False
) -> tuple[str, ...]:
    """Return notes on what netCDF and MATLAB mean by a dataset, if it differs from HDF5.

    Parameters
    ----------
    name : str
        The name of the dataset.
    attrs : mapping
        Its attributes.
    dtype : numpy.dtype
        The type of its elements.
    hidden : bool
        Whether it stands for a dimension of netCDF that has no variable.
    """
    notes: tuple[str, ...] = ()
    last = name.rpartition("/")[2]
    if last.startswith(_NON_COORDINATE):
        notes += (f"netCDF calls this variable {last.removeprefix(_NON_COORDINATE)!r}",)
    if hidden:
        notes += ("it is a dimension of netCDF without a variable: its elements mean nothing",)
    if "MATLAB_class" not in attrs:
        return notes
    kind = str(attrs["MATLAB_class"])
    if attrs.get("MATLAB_empty"):
        notes += (f"it is MATLAB's empty {kind}: its elements are the extents, of which one is 0",)
    elif kind == "char":
        notes += ("it is text of MATLAB, kept as the numbers of its characters (UTF-16)",)
    elif dtype.names == ("real", "imag"):
        notes += ("it is complex in MATLAB, kept as a compound of real and imag",)
    return notes
