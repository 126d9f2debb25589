"""Draws docs/idea.svg: python docs/draw_idea.py."""

from __future__ import annotations

from drawing import (
    BACKEND,
    CHUNK,
    ENGINE,
    MONO,
    PICKED,
    SOFT,
    arrow,
    box,
    text,
    write,
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
    for n, (name, note) in enumerate(
        (
            ("ram", "this process"),
            ("hdf5", "chunk files"),
            ("file", "a Zarr folder"),
            ("s3", "a bucket"),
            ("ceph", "a pool"),
            ("sage", "Motr"),
        )
    ):
        x = 196 + 112 * n
        parts += [
            box(x, 384, 106, 48, "white", BACKEND, 6),
            text(x + 10, 404, name, 15, font=MONO, font_weight="bold"),
            text(x + 10, 422, note, 12, SOFT),
        ]
    label = "Connection, Dataset and DataChunk between an engine and a backend"
    write("idea.svg", 900, 470, label, parts)


if __name__ == "__main__":
    main()
