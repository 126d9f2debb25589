"""Draws docs/halo.svg: python docs/draw_halo.py."""

from __future__ import annotations

from drawing import CHUNK, ENGINE, INK, MONO, PICKED, SOFT, arrow, box, text, write

SIDE, HALO = 84, 22
DASHED = "stroke-dasharray='7 5'"


def grid(left: int, top: int, columns: int, rows: int, fill: str) -> list[str]:
    """Draw chunks, of which those in the last row and column are cut off by the array's end."""
    parts = []
    for row in range(rows):
        for column in range(columns):
            width = SIDE if column < columns - 1 else SIDE // 2
            height = SIDE if row < rows - 1 else 2 * SIDE // 3
            parts.append(
                box(left + column * SIDE, top + row * SIDE, width, height, fill, ENGINE, 0)
            )
    return parts


def main() -> None:
    """Write the picture."""
    left, top = 40, 76
    x, y = left + SIDE, top + SIDE
    read = SIDE + 2 * HALO
    parts = [
        text(left, 38, "the scan", 17, font_weight="bold"),
        text(left + 96, 38, "in chunks", 14, SOFT),
        text(left, 60, "scan.map(blur, 'smooth', halo=8)", 13, font=MONO),
        *grid(left, top, 4, 3, CHUNK),
        # What is read for one chunk, and the chunk.
        f"<rect x='{x - HALO}' y='{y - HALO}' width='{read}' height='{read}' "
        f"fill='{PICKED}' fill-opacity='0.55' stroke='{INK}' stroke-width='2' {DASHED}/>",
        box(x, y, SIDE, SIDE, PICKED, INK, 0),
        text(x + 7, y + SIDE - 8, "chunk_1_1", 12, font=MONO),
        arrow(left + 3 * SIDE + 54, y + 42, 402, y + 42),
        # The function sees a block.
        text(410, 38, "what blur sees", 17, font_weight="bold"),
        f"<rect x='414' y='{y - HALO}' width='{read}' height='{read}' fill='{PICKED}' "
        f"fill-opacity='0.55' stroke='{INK}' stroke-width='2' {DASHED}/>",
        f"<rect x='{414 + HALO}' y='{y}' width='{SIDE}' height='{SIDE}' fill='{PICKED}' "
        f"stroke='{INK}' stroke-width='1.5'/>",
        text(410, y + SIDE + HALO + 26, "neighbours' elements,", 13, SOFT),
        text(410, y + SIDE + HALO + 43, "or at the array's end what", 13, SOFT),
        text(410, y + SIDE + HALO + 60, "boundary= says", 13, SOFT),
        arrow(414 + read + 12, y + 42, 596, y + 42),
        # What is written.
        text(604, 38, "smooth", 17, font_weight="bold"),
        text(604, 60, "the halo is dropped", 14, SOFT),
        *grid(604, top, 4, 3, "#f4f6f8"),
        box(604 + SIDE, y, SIDE, SIDE, PICKED, INK, 0),
        text(604 + SIDE + 7, y + SIDE - 8, "chunk_1_1", 12, font=MONO),
    ]
    label = "A chunk is read with a halo around it, filtered, and written without the halo"
    write("halo.svg", 940, 346, label, parts)


if __name__ == "__main__":
    main()
