"""Draws docs/idea.svg: python docs/draw_idea.py."""

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


def grid() -> list[str]:
    """Draw the dataset's chunks; those that ``ds[20:60, 40:]`` touches are picked out."""
    parts = []
    left, top, side = 372, 178, 34
    for row in range(4):
        for column in range(5):
            picked = row in (1, 2) and column >= 2
            parts.append(
                box(
                    *(left + column * side, top + row * side, side, side),
                    *(PICKED if picked else CHUNK, ENGINE, 0),
                )
            )
    return parts


def main() -> None:
    """Write the picture."""
    parts = [
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 900 470' role='img' "
        "aria-label='Connection, Dataset and DataChunk between an engine and a backend'>",
        "<defs><marker id='head' viewBox='0 0 10 10' refX='9' refY='5' markerWidth='7' "
        f"markerHeight='7' orient='auto'><path d='M0 0L10 5L0 10z' fill='{SOFT}'/></marker>",
        "</defs>",
        box(1, 1, 898, 468, PAPER, "#c5ced6", 14),
        # Who does the work.
        box(30, 24, 840, 62, ENGINE, ENGINE),
        text(50, 61, "engine", 19, "white", font_weight="bold"),
        text(130, 61, "who does the work", 15, "white"),
    ]
    for x, width, name, note in (
        (288, 176, "cpu", "the calling thread"),
        (476, 206, "joblib", "threads or processes"),
        (694, 164, "mpi", "ranks of a job"),
    ):
        parts += [
            box(x, 36, width, 38, "white", ENGINE, 6),
            text(x + 12, 60, name, 15, font=MONO, font_weight="bold"),
            text(x + 22 + 9 * len(name), 60, note, 12, SOFT),
        ]
    # The three nouns.
    parts += [
        box(30, 118, 220, 220, "#f4f6f8", "#c5ced6"),
        text(46, 145, "Connection", 17, font_weight="bold"),
        text(46, 165, "to a store", 13, SOFT),
        text(46, 208, "con = dn.Connection(", 13, font=MONO),
        text(46, 228, "    '/data/scans')", 13, font=MONO, **{"xml:space": "preserve"}),
        text(46, 266, "con['entry/tomo']", 13, font=MONO),
        text(46, 286, "con['entry/flat']", 13, font=MONO),
        box(340, 118, 234, 220, "#f4f6f8", "#c5ced6"),
        text(356, 145, "Dataset", 17, font_weight="bold"),
        text(356, 165, "an N-dimensional array", 13, SOFT),
        *grid(),
        text(404, 331, "ds[20:60, 40:]", 13, font=MONO),
        box(664, 118, 206, 220, "#f4f6f8", "#c5ced6"),
        text(680, 145, "DataChunk", 17, font_weight="bold"),
        text(680, 165, "one object of the store", 13, SOFT),
        box(712, 184, 110, 110, PICKED, ENGINE, 0),
        text(732, 331, "chunk_1_2", 13, font=MONO),
        arrow(252, 228, 337, 228),
        arrow(576, 228, 661, 228),
        text(268, 220, "datasets", 12, SOFT),
        text(594, 220, "chunks", 12, SOFT),
        arrow(457, 88, 457, 116),
        arrow(767, 340, 767, 368),
    ]
    # Where chunks live.
    parts += [
        box(30, 370, 840, 76, BACKEND, BACKEND),
        text(50, 404, "backend", 19, "white", font_weight="bold"),
        text(50, 428, "where chunks live", 15, "white"),
    ]
    for x, width, name, note in (
        (230, 220, "ram", "this process's memory"),
        (470, 382, "hdf5", "a folder per dataset, a file per chunk"),
    ):
        parts += [
            box(x, 388, width, 40, "white", BACKEND, 6),
            text(x + 12, 413, name, 15, font=MONO, font_weight="bold"),
            text(x + 62, 413, note, 12, SOFT),
        ]
    parts.append("</svg>")
    Path(__file__).with_name("idea.svg").write_text("\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
