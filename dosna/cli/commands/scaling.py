"""``dosna pyramid``: smaller copies of an image or a volume, for programs that show it."""

from __future__ import annotations

import argparse
from typing import Any

from dosna.cli.console import Console, counted
from dosna.cli.options import add_command, add_memory_limit
from dosna.cli.places import connected
from dosna.errors import DatasetNotFoundError
from dosna.pyramid.shrinking import METHODS

__all__ = ["add"]

_PYRAMID = """\
Create smaller and smaller copies of a dataset, as the levels of an OME-Zarr 0.5 image, so that
napari, Neuroglancer and dosna view can show it quickly, however large it is.

The levels are the datasets NAME_levels/1, NAME_levels/2, ..., and are described in the attributes
of the group that contains NAME. After an interruption, repeat the command.
"""

_EXAMPLES = """\
examples:
  dosna pyramid file:/data/store//entry/tomo
  dosna pyramid file:/data/store//entry/tomo --scale 0.65 --unit micrometer
  dosna pyramid hdf5:/data/scans//labels --method mode --factor 1,2,2 --levels 3
  mpiexec -n 8 dosna pyramid file:/data/store//entry/tomo
"""


def add(commands: Any) -> None:
    """Add the command to a parser."""
    command = add_command(
        commands, "pyramid", pyramid, "make smaller copies to show", _PYRAMID, _EXAMPLES
    )
    command.add_argument("url", metavar="URL", help="URL of a dataset")
    command.add_argument(
        "--levels", type=int, metavar="N", help="number of levels; by default until 64 elements"
    )
    command.add_argument(
        "--method",
        choices=tuple(METHODS),
        default="mean",
        help="value of a cell: the mean of its elements, the most frequent (labels), or the first",
    )
    command.add_argument(
        "--factor",
        type=_integers,
        default=2,
        metavar="N",
        help="elements that become one, on the axes of space or on each, such as 1,2,2",
    )
    command.add_argument(
        "--axes", type=_names, metavar="NAMES", help="names of the axes, such as t,z,y,x"
    )
    command.add_argument(
        "--scale",
        type=_numbers,
        default=1.0,
        metavar="X",
        help="distance between elements, on the axes of space or on each, such as 2,0.5,0.5",
    )
    command.add_argument("--unit", metavar="NAME", help="unit of the distance: micrometer, ...")
    command.add_argument(
        "--overwrite", action="store_true", help="replace levels that dosna has created"
    )
    add_memory_limit(command)


def pyramid(arguments: argparse.Namespace, console: Console) -> int:
    """Make the levels of a dataset."""
    with connected(arguments.url, arguments, mode=None) as (con, name):
        if not name or name not in con:
            raise DatasetNotFoundError(
                f"{arguments.url} is not a dataset: 'dosna ls' lists the names"
            )
        with console.progress("pyramid", "chunk") as progress:
            made = con[name].pyramid(
                arguments.levels,
                method=arguments.method,
                factor=arguments.factor,
                axes=arguments.axes,
                scale=arguments.scale,
                unit=arguments.unit,
                overwrite=arguments.overwrite,
                progress=progress,
                memory_limit=arguments.memory_limit,
            )
    for level in made:
        console.say(f"{level.name}: {' x '.join(map(str, level.shape))}")
    console.say(f"{name}: {counted(len(made), 'level', 'levels')}")
    console.give({level.name: list(level.shape) for level in made})
    return 0


def _numbers(text: str) -> float | list[float]:
    found = [float(part) for part in text.split(",")]
    return found if len(found) > 1 else found[0]


def _integers(text: str) -> int | list[int]:
    found = [int(part) for part in text.split(",")]
    return found if len(found) > 1 else found[0]


def _names(text: str) -> list[str]:
    return text.split(",")
