"""Parts of SVG pictures that the scripts draw_….py beside this file share."""

from __future__ import annotations

from html import escape
from pathlib import Path

# A light card of its own, so that the picture reads the same on light and dark pages.
PAPER, INK, SOFT = "#ffffff", "#1f2933", "#5f6c7b"
ENGINE, BACKEND, CHUNK, PICKED = "#2a6f97", "#3d7a4a", "#dbe9f4", "#ffd166"
SANS = "font-family='Helvetica, Arial, sans-serif'"
MONO = "font-family='ui-monospace, Menlo, Consolas, monospace'"


def text(
    x: float,
    y: float,
    words: str,
    size: int = 14,
    color: str = INK,
    *,
    font: str = SANS,
    **more: str,
) -> str:
    """Give a line of text."""
    style = "".join(f" {name.replace('_', '-')}='{value}'" for name, value in more.items())
    place = f"x='{x}' y='{y}' font-size='{size}' fill='{color}'"
    return f"<text {place} {font}{style}>{escape(words)}</text>"


def box(
    x: float, y: float, width: float, height: float, fill: str, edge: str, radius: int = 8
) -> str:
    """Give a rectangle."""
    return (
        f"<rect x='{x}' y='{y}' width='{width}' height='{height}' rx='{radius}' "
        f"fill='{fill}' stroke='{edge}' stroke-width='1.5'/>"
    )


def arrow(x1: float, y1: float, x2: float, y2: float, color: str = SOFT) -> str:
    """Give a line with a head."""
    return (
        f"<line x1='{x1}' y1='{y1}' x2='{x2}' y2='{y2}' stroke='{color}' stroke-width='2' "
        "marker-end='url(#head)'/>"
    )


def write(name: str, width: int, height: int, label: str, parts: list[str]) -> None:
    """Write a picture with a frame and a background of its own beside this file."""
    found = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' role='img' "
        f"aria-label='{escape(label, quote=True)}'>",
        "<defs><marker id='head' viewBox='0 0 10 10' refX='9' refY='5' markerWidth='7' "
        f"markerHeight='7' orient='auto'><path d='M0 0L10 5L0 10z' fill='{SOFT}'/></marker>",
        "</defs>",
        box(1, 1, width - 2, height - 2, PAPER, "#c5ced6", 14),
        *parts,
        "</svg>",
    ]
    Path(__file__).with_name(name).write_text("\n".join(found) + "\n", encoding="utf-8")
