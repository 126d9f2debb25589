"""Pictures of datasets and lists of connections, as HTML for notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from dosna.core.types import Shape

__all__ = ["grid_picture", "html_list", "html_table"]

_LONGEST = 130.0
"""The length of the longest axis in a picture, in pixels."""

_SHORTEST = 24.0
_MOST_LINES = 24
_SLANT = 0.45

_Point = tuple[float, float]


def grid_picture(shape: Shape, chunk_size: Shape) -> str:
    """Return a picture of the chunk grid of an array, as SVG.

    Of more than three axes the last three are drawn. Where there are very many chunks, a line
    stands for the border of several.

    Parameters
    ----------
    shape, chunk_size : tuple of int
        The extents of the array and of a chunk.

    Returns
    -------
    str
        The picture; '' for an array without axes or without elements.
    """
    if not shape or 0 in shape:
        return ""
    extents, chunks = shape[-3:], chunk_size[-3:]
    lengths = _lengths(extents)
    cuts = [_cuts(*axis) for axis in zip(extents, chunks, lengths, strict=True)]
    if len(extents) == 1:
        cuts = [[0.0, _SHORTEST], *cuts]
        labels = ["", str(extents[0])]
    else:
        labels = [str(n) for n in extents[-2:]]
    down, across = cuts[-2:]
    height, width = down[-1], across[-1]
    deep = [_SLANT * at for at in cuts[0]] if len(extents) == 3 else [0.0]
    depth = deep[-1]
    lines = [((0.0, y), (width, y)) for y in down] + [((x, 0.0), (x, height)) for x in across]
    if depth:
        # The front is below and to the right of the back; between them are the top and the left.
        lines = [((a + depth, b + depth), (c + depth, d + depth)) for (a, b), (c, d) in lines]
        lines += [((d, d), (d + width, d)) for d in deep]
        lines += [((d, d), (d, d + height)) for d in deep]
        lines += [((x, 0.0), (x + depth, depth)) for x in across]
        lines += [((0.0, y), (depth, y + depth)) for y in down]
    texts = [
        (depth + width / 2, depth + height + 16, labels[1], "middle"),
        (depth + width + 6, depth + height / 2 + 4, labels[0], "start"),
    ]
    if depth:
        texts.append((depth / 2 - 4, depth / 2 + height + 14, str(extents[0]), "end"))
    return _svg(depth + width, depth + height, lines, texts)


def html_table(rows: Mapping[str, object], picture: str = "", title: str = "") -> str:
    """Return a table of names and values as HTML, with a picture beside it.

    Parameters
    ----------
    rows : mapping
        The values by name. They are escaped.
    picture : str
        The picture, as SVG.
    title : str
        The line above the table.
    """
    cells = "".join(
        f'<tr><th style="text-align: left">{escape(name)}</th>'
        f'<td style="text-align: left">{escape(str(value))}</td></tr>'
        for name, value in rows.items()
    )
    head = f"<div><b>{escape(title)}</b></div>" if title else ""
    return (
        f'<div style="display: flex; gap: 2em; align-items: center"><div>{head}'
        f"<table>{cells}</table></div>{picture}</div>"
    )


def html_list(title: str, names: Iterable[str], more: int = 0) -> str:
    """Return a title and a list of names as HTML; `more` is the number of those left out."""
    items = "".join(f"<li>{escape(name)}</li>" for name in names)
    if more:
        items += f"<li>… {more} more</li>"
    return f"<div><b>{escape(title)}</b><ul>{items}</ul></div>"


def _lengths(extents: Shape) -> list[float]:
    """Return the lengths of axes in pixels: the square root tames very different extents."""
    longest = max(extents)
    return [max(_SHORTEST, _LONGEST * (n / longest) ** 0.5) for n in extents]


def _cuts(extent: int, chunk: int, length: float) -> list[float]:
    """Return the places of the borders of chunks on an axis, the ends included."""
    count = -(-extent // chunk)
    step = chunk * -(-count // _MOST_LINES)
    return [length * at / extent for at in (*range(0, extent, step), extent)]


def _svg(
    width: float,
    height: float,
    lines: Sequence[tuple[_Point, _Point]],
    texts: Sequence[tuple[float, float, str, str]],
) -> str:
    drawn = "".join(
        f'<line x1="{a:.1f}" y1="{b:.1f}" x2="{c:.1f}" y2="{d:.1f}"/>'
        for (a, b), (c, d) in dict.fromkeys(lines)
    )
    written = "".join(
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
        for x, y, text, anchor in texts
    )
    left = 30 if len(texts) > 2 else 4
    box = f"{-left} -4 {width + left + 60:.0f} {height + 28:.0f}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" '
        f'width="{width + left + 60:.0f}" height="{height + 28:.0f}">'
        f'<g stroke="#2a6f97" stroke-width="1">{drawn}</g>'
        f'<g font-family="sans-serif" font-size="12" fill="currentColor">{written}</g></svg>'
    )
