"""A picture of a dataset: slices through its middle."""

from __future__ import annotations

from typing import Any

import numpy as np

from dosna import Dataset
from dosna.errors import ConfigurationError
from dosna.registry import needing

__all__ = ["draw"]

_PIXELS = 1000
_POINTS = 4000


def draw(ds: Dataset, path: str) -> None:
    """Draw slices through the middle, one across each of the last three axes, thinned out.

    Parameters
    ----------
    ds : Dataset
        A dataset of numbers with at least one axis.
    path : str
        The file to write, in the format of its suffix, one of those that matplotlib has.

    Raises
    ------
    ConfigurationError
        The dataset has nothing to draw.
    """
    if ds.dtype.kind not in "biufc" or not ds.shape or not ds.size:
        raise ConfigurationError(
            f"--plot draws arrays of numbers, and {ds.name!r} has shape {ds.shape} and dtype "
            f"{ds.dtype}"
        )
    with needing("--plot needs", "plot"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    across = list(range(max(0, ds.ndim - 3), ds.ndim)) if ds.ndim > 2 else [None]
    figure = Figure(figsize=(4.5 * len(across) + 0.5, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{ds.name}  {ds.shape}  {ds.dtype}")
    for number, axis in enumerate(across, 1):
        place = figure.add_subplot(1, len(across), number)
        if ds.ndim == 1:
            step = -(-ds.shape[0] // _POINTS)
            place.plot(np.arange(0, ds.shape[0], step), _real(ds[::step]), linewidth=0.8)
            place.set_xlabel(_axis_name(ds, 0))
        else:
            _draw_slice(ds, axis, figure, place)
    try:
        figure.savefig(path, dpi=120)
    except ValueError as error:
        raise ConfigurationError(f"cannot draw to {path}: {error}") from None


def _draw_slice(ds: Dataset, across: int | None, figure: Any, place: Any) -> None:
    rows, columns = [axis for axis in range(ds.ndim) if axis != across][-2:]
    key: list[Any] = [n // 2 for n in ds.shape]
    for axis in (rows, columns):
        key[axis] = slice(None, None, -(-ds.shape[axis] // _PIXELS))
    image = _real(ds[tuple(key)])
    known = image[np.isfinite(image)]
    low, high = np.percentile(known, [1, 99]) if known.size else (0, 1)
    shown = place.imshow(
        image,
        vmin=low,
        vmax=high if high > low else low + 1,
        extent=(0, ds.shape[columns], ds.shape[rows], 0),
        aspect="equal" if 0.1 < ds.shape[rows] / ds.shape[columns] < 10 else "auto",
        cmap="gray",
    )
    place.set_xlabel(_axis_name(ds, columns))
    place.set_ylabel(_axis_name(ds, rows))
    fixed = [f"{_axis_name(ds, a)} = {key[a]}" for a in range(ds.ndim) if a not in (rows, columns)]
    place.set_title(", ".join(fixed), fontsize="medium")
    figure.colorbar(shown, ax=place, shrink=0.8)


def _real(values: Any) -> np.ndarray[Any, Any]:
    array = np.asarray(values)
    real: np.ndarray[Any, Any] = np.abs(array) if array.dtype.kind == "c" else array.astype("f8")
    return real


def _axis_name(ds: Dataset, axis: int) -> str:
    dims = getattr(ds, "dims", None)
    return (dims[axis] if dims else None) or f"axis {axis}"
