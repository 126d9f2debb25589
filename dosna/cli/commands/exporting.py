"""``dosna export``: datasets in one file, for other programs."""

from __future__ import annotations

import argparse
from typing import Any

from dosna.cli.console import Console, counted
from dosna.cli.options import add_chunk_size, add_command, add_memory_limit, add_select
from dosna.cli.places import chosen, connected
from dosna.errors import ConfigurationError

__all__ = ["add"]

_EXPORT = """\
Write a dataset, or all datasets of a connection, to one file for other programs: HDF5 (.h5, .hdf5,
.nxs), a folder of Zarr v3 arrays (.zarr), or NumPy's format (.npy, for one dataset).

The file appears when it is complete. If anything fails, there is no file.
"""

_EXAMPLES = """\
examples:
  dosna export hdf5:/data/scans scans.h5 --compression gzip
  dosna export hdf5:/data/scans/entry/tomo tomo.npy
"""


def add(commands: Any) -> None:
    """Add the command to a parser."""
    command = add_command(
        commands, "export", export, "write datasets to a file", _EXPORT, _EXAMPLES
    )
    command.add_argument("url", metavar="URL", help="URL of a dataset or a connection")
    command.add_argument(
        "path", metavar="FILE", help="the file, whose ending is its format; or hdf5://… (HSDS)"
    )
    add_select(command)
    add_chunk_size(command)
    command.add_argument(
        "--compression",
        metavar="NAME",
        help="compression of the data: gzip; for .zarr also zstd and blosc",
    )
    command.add_argument("--overwrite", action="store_true", help="replace an existing file")
    add_memory_limit(command)


def export(arguments: argparse.Namespace, console: Console) -> int:
    """Write datasets to a file."""
    if isinstance(arguments.chunk_size, str):
        raise ConfigurationError(
            f"--chunk-size of an export must be extents such as 64,64,64, not "
            f"{arguments.chunk_size!r}"
        )
    with connected(arguments.url, arguments) as (con, name):
        names, _ = chosen(con, name, arguments)
        with console.progress("export", "chunk") as progress:
            names = con.export(
                arguments.path,
                select=names,
                chunk_size=arguments.chunk_size,
                compression=arguments.compression,
                overwrite=arguments.overwrite,
                progress=progress,
                memory_limit=arguments.memory_limit,
            )
    console.say(f"{arguments.path}: {counted(len(names), 'dataset')}")
    console.give({"path": arguments.path, "datasets": names})
    return 0
