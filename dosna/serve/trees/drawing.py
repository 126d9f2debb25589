"""Pictures of histograms, by matplotlib."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from dosna.errors import RefusedError
from dosna.registry import needing
from dosna.serve.trees.histogram import Histogram

__all__ = ["draw"]

_SIZE = (8, 5)
_LONGEST = 1e300
_MOST_BINS = 10_000
"""Many more than a picture has columns; matplotlib draws them within a second."""


def draw(histogram: Histogram, title: str = "", log: bool = False) -> bytes:
    """Return a picture of a histogram as PNG.

    Parameters
    ----------
    histogram : Histogram
        The histogram, of one or two axes.
    title : str
        The text above the picture.
    log : bool
        True for a logarithmic scale of the counts.

    Raises
    ------
    MissingDependencyError
        matplotlib is not installed.
    RefusedError
        An axis has more than 10,000 bins, or ticks that matplotlib cannot compute.
    """
    with needing("pictures of histograms need", "plot"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    _check_size(histogram)
    figure = Figure(figsize=_SIZE, layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots()
    edges = [np.linspace(a.lower, a.upper, a.bins + 1) for a in histogram.axes]
    counts = histogram.counts[(slice(1, -1),) * len(edges)]
    if len(edges) == 1:
        axes.stairs(counts, edges[0], fill=True, color="#c6dbef", edgecolor="#08519c")
        axes.set_ylabel("entries")
        if log:
            axes.set_yscale("symlog" if not counts.any() else "log", **_floor(counts))
    else:
        shown = np.where(counts > 0, counts, np.nan)
        mesh = axes.pcolormesh(*edges, shown.T, norm="log" if log and counts.any() else "linear")
        figure.colorbar(mesh, ax=axes, label="entries")
        axes.set_ylabel(_plain(histogram.axes[1].label))
    axes.set_xlabel(_plain(histogram.axes[0].label))
    axes.set_title(_plain(title))
    axes.text(
        0.98,
        0.97,
        _statistics(histogram),
        transform=axes.transAxes,
        ha="right",
        va="top",
        family="monospace",
        fontsize=8,
        bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "#999"},
    )
    made = io.BytesIO()
    figure.savefig(made, format="png", dpi=120)
    return made.getvalue()


def _check_size(histogram: Histogram) -> None:
    """Raise a RefusedError for what takes matplotlib too long, or what it cannot draw."""
    if any(axis.upper - axis.lower > _LONGEST for axis in histogram.axes):
        raise RefusedError("an axis is too long for a picture: give limits that are closer")
    if any(axis.bins > _MOST_BINS for axis in histogram.axes):
        raise RefusedError(f"a picture has at most {_MOST_BINS} bins on an axis: request fewer")


def _floor(counts: Any) -> dict[str, Any]:
    return {"nonpositive": "clip"} if counts.any() else {}


def _plain(text: str) -> str:
    # matplotlib takes text between two dollar signs for a formula.
    return text.replace("$", r"\$")


def _statistics(histogram: Histogram) -> str:
    found = histogram.statistics
    lines = [f"entries  {found['entries']}"]
    for name, label in (("x_mean", "mean"), ("x_std", "std dev")):
        lines.append(f"{label}  {found[name]:.5g}")
    for name, label in (("y_mean", "mean y"), ("y_std", "std dev y")):
        if name in found:
            lines.append(f"{label}  {found[name]:.5g}")
    return "\n".join(lines)
