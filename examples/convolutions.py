"""Gaussian convolution of volumes, in 3-D and as three 1-D passes, timed and compared.

    sh run_mpi.sh 2 examples/convolutions.py --volume mri --chunk-sizes 16 32 64 --check
    python examples/convolutions.py --engine joblib --data-sizes 64 128 --chunk-sizes 32 64

Both filter chunk by chunk, with a halo as wide as the kernel, so that the results equal those
of scipy on the whole volume. The seconds are written to OUT/result.h5, with a dataset
BACKEND/PROCESSES for each run. Its shape is (data sizes, chunk sizes, 3, tests), and attributes
name its axes; it has NaN where a chunk would be larger than the volume. A second engine with as
many processes gets BACKEND/PROCESSES-ENGINE, and a repeated run replaces its dataset. Runs with
the same OUT are drawn together, in a picture for each backend; another picture shows a slice of
each result.
"""

from __future__ import annotations

import argparse
import inspect
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import matplotlib as mpl
import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d

import dosna as dn
from dosna.backends import registry as backends
from dosna.core.options import parse_options
from dosna.engines.mpi.scripts import (
    MpiTimer,
    mpi_barrier,
    mpi_comm,
    mpi_is_root,
    mpi_size,
    pprint,
)

mpl.use("agg")
from matplotlib import pyplot as plt

STEPS = ("load", "3-D", "three 1-D")
say = partial(pprint, rank=0)


def main(arguments: list[str] | None = None) -> int:
    parser, chosen = parse(arguments)
    dn.use(engine=chosen.engine, backend=chosen.backend)
    if mpi_size() > 1 and dn.status().engine.name != "mpi":
        parser.error(f"engine {chosen.engine} works in one process: start it without mpiexec")
    chosen.out.mkdir(parents=True, exist_ok=True)
    with scratch_folder(chosen.tmp) as scratch, connect(chosen, scratch) as con:
        whole = load_volume(chosen.volume, scratch) if chosen.volume else None
        if chosen.data_sizes is None:
            chosen.data_sizes = [128 if whole is None else max(whole.shape)]
        run = Run(con, chosen)
        for i, size in enumerate(chosen.data_sizes):
            volume = random_volume(size, scratch) if whole is None else middle(whole, size)
            for j, chunk in enumerate(chosen.chunk_sizes):
                if chunk > max(volume.shape):
                    say(f"data {size}: skipped chunks of {chunk}, larger than {volume.shape}")
                    continue
                for k in range(chosen.ntest):
                    run.convolve((i, j, k), size, volume, chunk)
    if mpi_is_root():
        for picture in [*run.pictures, *draw_times(run.file)]:
            say("picture", picture)
        say("times  ", f"{run.file}: {run.name}")
    return 0 if run.right else 1


def parse(arguments: list[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    add = parser.add_argument
    add("--backend", default="hdf5")
    add("--engine", default="mpi", help="mpi (default), joblib or cpu")
    add("--connection", metavar="NAME", help="by default one of its own, removed at the end")
    add("--connection-options", nargs="+", default=[], metavar="KEY=VALUE")
    add("--out", type=Path, default=Path("dosna-convolutions"), metavar="DIR")
    add("--data-sizes", type=int, nargs="+", metavar="N", help="edges of cubes (default 128)")
    add("--chunk-sizes", type=int, nargs="+", default=[32, 64], metavar="N")
    add("--sigma", type=float, default=1.5, help="of the Gaussian, in elements (default 1.5)")
    add("--ntest", type=int, default=3, metavar="N", help="how often to time each (default 3)")
    add("--tmp", type=Path, metavar="DIR", help="for scratch files, seen by all ranks")
    add(
        "--volume",
        metavar="FILE",
        help="x.npy, x.nii.gz, x.h5:path/in/it, or mri for the scan in nibabel's package; cut "
        "to --data-sizes if they are given (random data by default)",
    )
    add("--check", action="store_true", help="compare with scipy on the whole volume")
    chosen = parser.parse_args(arguments)
    if min(chosen.chunk_sizes + (chosen.data_sizes or [1]) + [chosen.ntest]) < 1:
        parser.error("sizes and --ntest are positive")
    return parser, chosen


# -- data ---------------------------------------------------------------------------------


def from_root(make: Callable[[], Any]) -> Any:
    """Make something on the root, and return it on all ranks."""
    comm = mpi_comm()
    made = make() if mpi_is_root() else None
    return made if comm is None else comm.bcast(made)


@contextmanager
def scratch_folder(parent: Path | None) -> Iterator[Path]:
    """Make a folder for all ranks; the root removes it at the end."""
    folder = Path(from_root(lambda: tempfile.mkdtemp(prefix="dosna-", dir=parent)))
    try:
        yield folder
        mpi_barrier()
    finally:
        if mpi_is_root():
            shutil.rmtree(folder)


def connect(chosen: argparse.Namespace, scratch: Path) -> dn.Connection:
    signature = inspect.signature(backends.get(chosen.backend).connection)
    options: dict[str, Any] = parse_options(signature, chosen.connection_options)  # type: ignore[assignment]
    name = chosen.connection
    if name is None:
        # A folder if the backend keeps its data in folders; elsewhere any name will do.
        name = str(scratch) if "directory" in signature.parameters else scratch.name
    return dn.Connection(name, **options)


def load_volume(source: str, scratch: Path) -> Any:
    """Read a file on the root, and map the volume into the memory of every rank."""
    path = scratch / "volume.npy"
    from_root(lambda: np.save(path, read_volume(source)))
    return np.load(path, mmap_mode="r")


def middle(volume: Any, size: int) -> Any:
    """Return the middle of a volume, of at most `size` elements on each axis."""
    begins = [max(0, n - size) // 2 for n in volume.shape]
    return volume[tuple(slice(begin, begin + size) for begin in begins)]


def random_volume(size: int, scratch: Path) -> Any:
    path = scratch / f"random-{size}.npy"
    random = np.random.default_rng(size)
    from_root(lambda: np.save(path, random.random((size, size, size), np.float32)))
    return np.load(path, mmap_mode="r")


def read_volume(source: str) -> Any:
    """Read a file as float32; of each axis after the third, take the first element only."""
    name, _, inside = source.partition(".h5:")
    if inside:
        with h5py.File(f"{name}.h5") as file:
            volume = file[inside][...]
    elif source.endswith(".npy"):
        volume = np.load(source, mmap_mode="r")
    else:
        import nibabel

        if source == "mri":
            source = str(Path(nibabel.__file__).parent / "tests" / "data" / "example4d.nii.gz")
        volume = np.asarray(nibabel.load(source).dataobj)
    if volume.ndim < 3:
        raise ValueError(f"{source} has {volume.ndim} axes, and a volume has three")
    return volume[(..., *[0] * (volume.ndim - 3))].astype(np.float32)


# -- work ---------------------------------------------------------------------------------


class Run:
    """A run of one engine on one backend: its datasets, times and pictures."""

    def __init__(self, con: dn.Connection, chosen: argparse.Namespace) -> None:
        self.con, self.chosen = con, chosen
        self.right = True
        self.pictures: list[Path] = []
        self.file = chosen.out / "result.h5"
        engine, backend = dn.status()
        self.processes = engine.params.get("njobs", mpi_size())
        self.label = f"{backend.name}, {engine.name} × {self.processes}"
        self.name = from_root(lambda: new_result(self.file, self.processes, chosen))
        say(f"convolution with sigma {chosen.sigma} on {self.label}")

    def convolve(self, at: tuple[int, int, int], size: int, volume: Any, chunk: int) -> None:
        """Load, filter both ways, compare and draw; leave nothing in the store."""
        i, j, k = at
        title = f"data {size}, chunks {chunk}, test {k + 1}"
        sigma = self.chosen.sigma
        halo = int(4 * sigma + 0.5)  # scipy cuts the kernel off there
        made: list[Any] = []
        seconds: list[float] = []
        try:
            with self.timed(f"{title}: load", seconds):
                chunks = [min(chunk, n) for n in volume.shape]
                made.append(self.con.create_dataset("volume", data=volume, chunk_size=chunks))
            with self.timed(f"{title}: 3-D", seconds):
                func = partial(gaussian_filter, sigma=sigma)
                made.append(made[0].map(func, "in-3d", volume.dtype, halo=halo))
            whole = made[-1]
            with self.timed(f"{title}: three 1-D", seconds):
                passed = made[0]
                for axis in range(3):
                    func = partial(gaussian_filter1d, sigma=sigma, axis=axis)
                    reach = [halo * (a == axis) for a in range(3)]
                    passed = passed.map(func, f"along-{axis}", volume.dtype, halo=reach)
                    made.append(passed)
            if k == 0:
                self.right &= from_root(lambda: self.compare(volume, whole, passed))
            if mpi_is_root():
                with h5py.File(self.file, "a") as file:
                    file[self.name][i, j, :, k] = seconds
                if k == 0:
                    self.draw(f"3-D Gaussian, {title}", f"3d_{size}_{chunk}", made[0], whole)
                    self.draw(
                        f"three 1-D Gaussians, {title}", f"1d_{size}_{chunk}", made[0], passed
                    )
        finally:
            for dataset in made:
                dataset.delete()

    @contextmanager
    def timed(self, title: str, seconds: list[float]) -> Iterator[None]:
        mpi_barrier()
        with MpiTimer(title) as timer:
            yield
        seconds.append(timer.time)

    def compare(self, volume: Any, whole: Any, passed: Any) -> bool:
        """Compare both results, and on request those of scipy too."""
        step = whole.chunk_size[0]
        slabs = [slice(z, z + step) for z in range(0, len(whole), step)]
        largest = max(float(np.abs(whole[s]).max()) for s in slabs)
        worst = {"3-D from 1-D": max(float(np.abs(whole[s] - passed[s]).max()) for s in slabs)}
        if self.chosen.check:
            expected = gaussian_filter(volume, self.chosen.sigma)
            for what, result in (("3-D", whole), ("1-D", passed)):
                worst[f"{what} from scipy's"] = float(np.abs(result[...] - expected).max())
        for what, difference in worst.items():
            say(f"largest difference of {what}: {difference:g}, of values up to {largest:g}")
        return max(worst.values()) <= 1e-5 * largest

    def draw(self, title: str, name: str, before: Any, after: Any) -> None:
        """Draw the middle slice across the shortest axis, before and after."""
        axis = int(np.argmin(before.shape))
        key = tuple(n // 2 if a == axis else slice(None) for a, n in enumerate(before.shape))
        images = [dataset[key].T for dataset in (before, after)]
        low, high = np.percentile(images[0], [0.5, 99.5])
        shown = ", ".join(":" if isinstance(k, slice) else str(k) for k in key)
        figure, panels = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
        for panel, image, what in zip(panels, images, ("volume", "convolved"), strict=True):
            panel.imshow(image, origin="lower", cmap="gray", vmin=low, vmax=high)
            panel.set_title(f"{what}[{shown}]", family="monospace")
            # The ticks mark where chunks begin.
            down, across = (n for a, n in enumerate(before.chunk_size) if a != axis)
            panel.set(xticks=range(0, image.shape[1], down), xticklabels=[])
            panel.set(yticks=range(0, image.shape[0], across), yticklabels=[])
        figure.suptitle(f"{title.partition(', test')[0]}; {self.label}")
        path = self.chosen.out / f"{self.name.replace('/', '_')}_{name}.png"
        figure.savefig(path, dpi=110)
        plt.close(figure)
        self.pictures.append(path)


# -- results ------------------------------------------------------------------------------


def new_result(path: Path, processes: int, chosen: argparse.Namespace) -> str:
    """Create the dataset of a run, in place of an earlier one of the same run; return its name."""
    engine, backend = dn.status()
    axes = {
        "data size": chosen.data_sizes,
        "chunk size": chosen.chunk_sizes,
        "step": STEPS,
        "test": range(1, chosen.ntest + 1),
    }
    with h5py.File(path, "a") as file:
        name = f"{backend.name}/{processes}"
        if name in file and file[name].attrs["engine"] != engine.name:
            name = f"{name}-{engine.name}"
        if name in file:
            del file[name]
        shape = [len(values) for values in axes.values()]
        made = file.create_dataset(name, shape, "f4", fillvalue=np.nan)
        made.attrs.update(
            engine=engine.name,
            backend=backend.name,
            processes=processes,
            sigma=chosen.sigma,
            volume=chosen.volume or "random",
            unit="s",
        )
        for axis, (label, values) in enumerate(axes.items()):
            made.dims[axis].label = label
            made.attrs[f"axis{axis}_label"] = label
            made.attrs[f"axis{axis}_value"] = list(values)
    return name


def draw_times(path: Path) -> list[Path]:
    """Draw time against chunk size for each backend in the file; return the pictures' paths."""
    with h5py.File(path) as file:
        return [draw_backend(path, file[backend]) for backend in file]


def draw_backend(path: Path, runs: Any) -> Path:
    results = sorted(runs.values(), key=lambda r: (r.attrs["engine"], r.attrs["processes"]))
    sizes = sorted({(r.attrs["volume"], int(n)) for r in results for n in r.attrs["axis0_value"]})
    chunks = sorted({int(n) for r in results for n in r.attrs["axis1_value"]})
    backend = runs.name.strip("/")
    figure, rows = plt.subplots(
        *(len(sizes), len(STEPS)),
        figsize=(12, 1 + 2.9 * len(sizes)),
        layout="constrained",
        squeeze=False,
        sharex=True,
    )
    for row, (volume, size) in zip(rows, sizes, strict=True):
        for step, (panel, what) in enumerate(zip(row, STEPS, strict=True)):
            for number, result in enumerate(results):
                same = result.attrs["volume"] == volume
                draw_line(panel, result, size if same else None, step, f"C{number}")
            panel.set_title(f"{what}, {Path(volume).name} {size}")
            panel.set_ylim(bottom=0)
            panel.set_xticks(chunks)
            panel.grid(alpha=0.3)
            panel.spines[["top", "right"]].set_visible(False)
        row[0].set_ylabel("seconds")
    for panel in rows[-1]:
        panel.set_xlabel("chunk size")
    handles = rows[0][0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper right", ncols=4, frameon=False)
    figure.suptitle(f"Convolution on {backend}: line through the fastest test", x=0.02, ha="left")
    picture = path.parent / f"times_{backend}.png"
    figure.savefig(picture, dpi=110)
    plt.close(figure)
    return picture


def draw_line(panel: Any, result: Any, size: int | None, step: int, color: str) -> None:
    """Draw every test as a dot, and a line through the fastest."""
    at = np.flatnonzero(result.attrs["axis0_value"] == size)
    label = "{engine} × {processes}".format(**result.attrs)
    if len(at) == 0:
        panel.plot([], [], "-", color=color, label=label)
        return
    order = np.argsort(result.attrs["axis1_value"])
    chunks = result.attrs["axis1_value"][order]
    seconds = result[int(at[0])][order, step]
    done = ~np.isnan(seconds).all(axis=1)
    panel.plot(chunks, seconds, ".", color=color, alpha=0.4)
    panel.plot(
        chunks[done], np.nanmin(seconds[done], axis=1), "o-", color=color, ms=4, label=label
    )


if __name__ == "__main__":
    sys.exit(main())
