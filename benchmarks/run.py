"""Compare dosna with other libraries, on the same work, in one run.

Run ``python benchmarks/run.py --help``; README.md beside this file tells how to read the table.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rows import ROWS, Row, Setting
from timing import OURS, Case, cores, minima

for _module in ("rows_ram", "rows_hdf5", "rows_file", "rows_work"):
    import_module(_module)

SECONDS, QUICK_SECONDS = 1.5, 0.3


def main(arguments: list[str] | None = None) -> int:
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="less data, within a minute")
    parser.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        help=f"only rows whose name begins so; may be repeated: {', '.join(names)}",
    )
    parser.add_argument("--folder", type=Path, help="where files are written (a temporary one)")
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="measure it and not the time that passes, on a machine that others use meanwhile",
    )
    options = parser.parse_args(arguments)
    chosen = [r for r in ROWS if not options.only or r.name.startswith(tuple(options.only))]
    if not chosen:
        parser.error(f"no row begins with {options.only}: they are {', '.join(names)}")
    warnings.filterwarnings("ignore", module="zarr")
    print(header())
    with tempfile.TemporaryDirectory(prefix="dosna-", dir=options.folder) as folder:
        setting = Setting(Path(folder), options.quick)
        begin = time.perf_counter()
        clock = time.process_time if options.processor_time else time.perf_counter
        missed = [name for row in chosen for name in run(row, setting, clock)]
    print(f"\n{time.perf_counter() - begin:.0f} s; {len(missed)} aims missed", *missed, sep="\n  ")
    return 0


def header() -> str:
    libraries = ", ".join(
        f"{name} {version(name)}" for name in ("numpy", "zarr", "tensorstore", "h5py")
    )
    return (
        f"Python {platform.python_version()}, {libraries}, {os.cpu_count()} processors\n"
        "Minima, in µs for each unit; x: dosna's time divided by theirs (! the aim is missed)."
    )


def run(row: Row, setting: Setting, clock: Callable[[], float]) -> list[str]:
    """Print a row; return the aims that it missed."""
    print(f"\n{row.name}: {row.what}", flush=True)
    missed: list[str] = []
    first: float | None = None
    with cores(row.cores):
        for case in row.cases(setting):
            times = minima(case.work, QUICK_SECONDS if setting.quick else SECONDS, clock=clock)
            per_unit = {name: seconds / case.units * 1e6 for name, seconds in times.items()}
            ours = per_unit[OURS]
            cells, over = judge(case, per_unit)
            if case.flat and first is not None:
                cells.append(f"to the first case {ours / first:.2f} x")
            first = first or ours
            print(f"  {case.label:>14}: {'; '.join(cells)}", flush=True)
            missed += [f"{row.name}, {case.label}: {miss}" for miss in over]
    return missed


def judge(case: Case, per_unit: dict[str, float]) -> tuple[list[str], list[str]]:
    """Return texts of each time with its ratio and aim, and texts of the missed aims."""
    ours = per_unit[OURS]
    limit = case.limit
    late = limit is not None and ours > limit
    aim = f" (aim {limit}{'!' * late})" if limit is not None else ""
    cells = [f"{OURS} {ours:.3g} µs/{case.unit}{aim}"]
    over = [f"{ours:.3g} µs, aim {limit}"] if late else []
    for name, theirs in per_unit.items():
        if name == OURS:
            continue
        ratio, most = ours / theirs, case.aims.get(name)
        text = f"{name} {theirs:.3g}, {ratio:.2f} x"
        if most is not None:
            text += f" (aim {most:g}{'!' * (ratio > most)})"
            if ratio > most:
                over.append(f"{name} {ratio:.2f} x, aim {most:g}")
        cells.append(text)
    return cells, over


if __name__ == "__main__":
    raise SystemExit(main())
