"""The main job on a real volume: load it into chunks, filter it in parallel, look at it.

    python examples/quickstart.py [--out DIR] [--backend hdf5] [--engine joblib]

The volume is the functional MRI scan (x, y, z, time) inside the nibabel package. Its chunks
do not divide it. Still the filtered chunks equal the result of scipy on the whole volume,
because each is filtered with a halo of its neighbours' elements.
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import nibabel
import numpy as np
from scipy.ndimage import gaussian_filter

import dosna as dn

mpl.use("agg")
from matplotlib import pyplot as plt
from matplotlib.colors import PowerNorm
from matplotlib.patches import Rectangle

VOLUME = Path(nibabel.__file__).parent / "tests" / "data" / "example4d.nii.gz"
CHUNK_SIZE = (48, 40, 10, 1)
SIGMA = (1.5, 1.5, 1.5, 0)  # voxels; no filter along time
HALO = (6, 6, 6, 0)  # the reach of the filter: scipy cuts it off at 4 sigma


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("dosna-quickstart"), metavar="DIR")
    parser.add_argument("--backend", default="hdf5", help="hdf5 (default) or ram")
    parser.add_argument("--engine", default="joblib", help="joblib (default) or cpu")
    chosen = parser.parse_args(arguments)
    out = chosen.out.resolve()
    out.mkdir(parents=True, exist_ok=True)

    dn.use(engine=chosen.engine, backend=chosen.backend)
    options = {}
    if chosen.backend == "hdf5":
        (out / "store").mkdir(exist_ok=True)
        options["directory"] = out

    image = nibabel.load(VOLUME)
    whole = np.asarray(image.dataobj)
    say("volume", f"{VOLUME.name}: {whole.shape} of {whole.dtype}, {whole.nbytes / 2**20:.1f} MiB")

    smoothing = partial(gaussian_filter, sigma=SIGMA, output=np.float32)
    with dn.Connection("store", **options) as con:
        for name in {"scan", "smooth", "alone"}.intersection(con):  # from an earlier run
            del con[name]
        start = time.perf_counter()
        scan = con.create_dataset("scan", data=image.dataobj, chunk_size=CHUNK_SIZE)
        took = time.perf_counter() - start
        status = dn.status()
        say("load", f"{scan.total_chunks} chunks of {scan.chunk_size} in {took:.2f} s, on backend")
        say("", f"{status.backend.name} under engine {status.engine.name} {status.engine.params}")

        start = time.perf_counter()
        smooth = scan.map(smoothing, "smooth", halo=HALO)
        took = time.perf_counter() - start
        say("filter", f"Gaussian of sigma {SIGMA} with halo {HALO} in {took:.2f} s")

        expected = smoothing(whole)
        difference = float(np.abs(smooth[...] - expected).max())
        say("check", f"largest difference from scipy on the whole volume: {difference:g}")

        pictures = [out / "slices.png", out / "chunks.png"]
        draw_slices(scan, smooth, image.header.get_zooms()[:3], pictures[0])
        alone = scan.map(smoothing, "alone")
        draw_chunks(scan, np.abs(alone[:, :, 12, 0] - expected[:, :, 12, 0]), pictures[1])
    for picture in pictures:
        say("picture", str(picture))
    if chosen.backend == "hdf5":
        say("chunks", f"{out / 'store' / 'smooth'}: h5py or HDFView show dataset.h5 as one array")
    return 0 if difference < 1e-3 else 1


def say(what: str, text: str) -> None:
    print(f"{what:8} {text}")


def draw_slices(scan: Any, smooth: Any, zooms: tuple[float, ...], path: Path) -> None:
    """Draw three cuts through both datasets, each sliced out of the chunks."""
    x, y, z = (n // 2 for n in scan.shape[:3])
    dx, dy, dz = zooms
    everything = slice(None)
    cuts = {
        f"[:, :, {z}, 0]": ((everything, everything, z, 0), dy / dx),
        f"[:, {y}, :, 0]": ((everything, y, everything, 0), dz / dx),
        f"[{x}, :, :, 0]": ((x, everything, everything, 0), dz / dy),
    }
    figure, rows = plt.subplots(
        3, 2, figsize=(9, 7.3), layout="constrained", height_ratios=[96, 26, 35]
    )
    brightest = float(np.percentile(scan[..., 0], 99.5))
    for row, (index, (key, aspect)) in zip(rows, cuts.items(), strict=True):
        for axes, dataset in zip(row, (scan, smooth), strict=True):
            axes.imshow(
                dataset[key].T, origin="lower", cmap="gray", vmin=0, vmax=brightest, aspect=aspect
            )
            axes.set_title(dataset.name + index, family="monospace")
            axes.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_chunks(scan: Any, error: Any, path: Path) -> None:
    """Draw the chunk grid, one chunk with its halo, and the error without a halo."""
    figure, (grid, seams) = plt.subplots(1, 2, figsize=(13, 4.7), layout="constrained")
    across, up = scan.chunk_size[:2]
    grid.imshow(scan[:, :, 12, 0].T, origin="lower", cmap="gray")
    for i, j in np.ndindex(scan.chunk_grid[:2]):
        left, bottom = i * across, j * up
        right, top = min(left + across, scan.shape[0]), min(bottom + up, scan.shape[1])
        grid.add_patch(frame(left, bottom, right, top, "#4cc9f0", linewidth=1.2))
        grid.text(
            *(left + 1.5, bottom + 2, f"chunk_{i}_{j}_1_0"),
            **{"color": "white", "fontsize": 9, "family": "monospace"},
            bbox={"facecolor": "#1b4965", "edgecolor": "none", "pad": 2},
        )
        if (i, j) == (1, 1):
            middle = (left, bottom, right, top)
    left, bottom, right, top = middle
    grid.add_patch(frame(left, bottom, right, top, "#ffd166", linewidth=2.5))
    grid.add_patch(
        frame(
            *(left - HALO[0], bottom - HALO[1]),
            *(min(right + HALO[0], scan.shape[0]), min(top + HALO[1], scan.shape[1])),
            "#ffd166",
            linewidth=2,
            linestyle="--",
        )
    )
    grid.set_title("chunks of the scan, and what the filter of one sees (dashed)")
    shown = seams.imshow(error.T, origin="lower", cmap="magma", norm=PowerNorm(0.4))
    figure.colorbar(shown, ax=seams, label="difference from the filter of the whole volume")
    seams.set_title("without a halo the edges of chunks would show")
    for axes in (grid, seams):
        axes.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=120)
    plt.close(figure)


def frame(left: float, bottom: float, right: float, top: float, color: str, **style: Any) -> Any:
    # Pixels are centred on whole numbers.
    corner = (left - 0.5, bottom - 0.5)
    return Rectangle(corner, right - left, top - bottom, fill=False, edgecolor=color, **style)


if __name__ == "__main__":
    sys.exit(main())
