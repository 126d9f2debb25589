"""What netCDF and MATLAB mean by a dataset of HDF5."""

from __future__ import annotations

from typing import Any

from dosna.sources.hdf5.scales import is_hidden

__all__ = ["convention_notes"]


_NON_COORDINATE = "_nc4_non_coord_"


def convention_notes(dataset: Any, name: str) -> tuple[str, ...]:
    """Return notes on what netCDF and MATLAB mean by a dataset, if it differs from HDF5."""
    notes: tuple[str, ...] = ()
    last = name.rpartition("/")[2]
    if last.startswith(_NON_COORDINATE):
        notes += (f"netCDF calls this variable {last.removeprefix(_NON_COORDINATE)!r}",)
    if is_hidden(dataset):
        notes += ("it is a dimension of netCDF without a variable: its elements mean nothing",)
    if "MATLAB_class" not in dataset.attrs:
        return notes
    kind = dataset.attrs["MATLAB_class"]
    kind = kind.decode("utf-8", "replace") if isinstance(kind, bytes) else str(kind)
    if dataset.attrs.get("MATLAB_empty"):
        notes += (f"it is MATLAB's empty {kind}: its elements are the extents, of which one is 0",)
    elif kind == "char":
        notes += ("it is text of MATLAB, kept as the numbers of its characters (UTF-16)",)
    elif dataset.dtype.names == ("real", "imag"):
        notes += ("it is complex in MATLAB, kept as a compound of real and imag",)
    return notes
