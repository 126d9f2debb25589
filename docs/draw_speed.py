"""Draws docs/speed.svg from the table in benchmarks/README.md: python docs/draw_speed.py."""

from __future__ import annotations

import math
import re
from pathlib import Path

from drawing import INK, SOFT, text, write

TABLE = Path(__file__).resolve().parent.parent / "benchmarks" / "README.md"
ROWS = (
    ("ram-read-4k", "992 chunks", "memory, read", "992 chunks of 4 KiB"),
    ("ram-write-4k", "992 chunks", "memory, write", "992 chunks of 4 KiB"),
    ("ram-points", "1000 points", "memory, read", "single elements"),
    ("hdf5-read-4k", "992 chunks", "files, read", "992 chunks of 4 KiB"),
    ("hdf5-read-256k", "256 chunks", "files, read", "chunks of 256 KiB"),
    ("hdf5-read-1m", "64 chunks", "files, read", "chunks of 1 MiB"),
    ("hdf5-box", "read", "files, read", "boxes of 16³ in 1 MiB chunks"),
    ("hdf5-write-256k", "256 chunks", "files, write", "chunks of 256 KiB"),
    ("hdf5-write-1m", "64 chunks", "files, write", "chunks of 1 MiB"),
    ("hdf5-gzip", "reading", "files, gzip", "read"),
    ("hdf5-gzip", "writing", "files, gzip", "write"),
)
PEERS = {"TensorStore": "#d1495b", "zarr": "#edae49", "h5py": "#5b8e7d"}
LEFT, RIGHT, TOP, STEP = 250, 860, 122, 32
LOW, HIGH = 0.1, 100  # peer's time over dosna's


def read_table(path: Path) -> dict[tuple[str, str], dict[str, float]]:
    """Return each peer's time divided by dosna's, of each row and case."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        # A row may have several times of one case.
        if len(cells) == 4 and re.match(r"\w+-", cells[0]) and "," not in cells[2]:
            own = float(cells[2].split()[0])
            times = re.findall(r"(\w+) ([\d.]+), [\d.]+", cells[3])
            found[cells[0], cells[1]] = {name: float(time) / own for name, time in times}
    return found


def place(value: float) -> float:
    """Return where a ratio stands on the logarithmic axis."""
    inside = min(max(value, LOW), HIGH)
    return round(LEFT + (RIGHT - LEFT) * math.log(inside / LOW) / math.log(HIGH / LOW), 1)


def main() -> None:
    """Write the picture."""
    ratios = read_table(TABLE)
    bottom = TOP + STEP * len(ROWS)
    parts = [
        text(
            30, 40, "How long others take, as a multiple of dosna's time", 18, font_weight="bold"
        ),
        text(30, 62, "One run on two processors; right of the line dosna is faster.", 13, SOFT),
    ]
    for n, (name, color) in enumerate(PEERS.items()):
        parts += [
            f"<circle cx='{LEFT + 8 + 130 * n}' cy='87' r='6' fill='{color}'/>",
            text(LEFT + 20 + 130 * n, 92, name, 14),
        ]
    for value in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100):
        x = place(value)
        width, color = (2, INK) if value == 1 else (1, "#dde3e8")
        parts += [
            f"<line x1='{x}' y1='{TOP - 16}' x2='{x}' y2='{bottom - 12}' stroke='{color}' "
            f"stroke-width='{width}'/>",
            text(x, bottom + 8, f"{value:g} ×", 12, SOFT, text_anchor="middle"),
        ]
    shift = {"TensorStore": -5, "zarr": 0, "h5py": 5}  # equal times stay apart
    for n, (row, case, what, note) in enumerate(ROWS):
        y = TOP + STEP * n
        peers = {name: ratios[row, case][name] for name in PEERS if name in ratios[row, case]}
        ends = [place(1), *map(place, peers.values())]
        parts += [
            text(30, y + 1, what, 13),
            text(30, y + 15, note, 11, SOFT),
            f"<line x1='{min(ends)}' y1='{y}' x2='{max(ends)}' y2='{y}' stroke='#c5ced6' "
            "stroke-width='2'/>",
        ]
        parts += [
            f"<circle cx='{place(value)}' cy='{y + shift[name]}' r='6' fill='{PEERS[name]}' "
            "stroke='white' stroke-width='1.5'/>"
            for name, value in peers.items()
        ]
    label = "Times of TensorStore, zarr and h5py divided by dosna's, from benchmarks/README.md"
    write("speed.svg", 900, bottom + 28, label, parts)


if __name__ == "__main__":
    main()
