"""The options that commands share, and the types of their values."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from typing import Any

from dosna.cli.console import Console
from dosna.core.sizes import parse_size

__all__ = [
    "Run",
    "add_chunk_size",
    "add_command",
    "add_general",
    "add_memory_limit",
    "add_new_datasets",
    "add_select",
]

Run = Callable[[argparse.Namespace, Console], int]
"""A function that runs a command, and returns its exit code."""


def add_command(
    commands: Any, name: str, run: Run, short: str, long: str, examples: str = ""
) -> argparse.ArgumentParser:
    """Add a command with the options that all have, and return its parser."""
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=short,
        description=long,
        epilog=examples or None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run)
    common = command.add_argument_group("general options")
    common.add_argument(
        "--engine",
        metavar="NAME",
        help="engine that does the work: cpu, joblib or mpi; the default is mpi under mpiexec, "
        "and otherwise joblib if it is installed",
    )
    common.add_argument(
        "--njobs", type=int, metavar="N", help="number of threads; the default is one per CPU"
    )
    common.add_argument("--json", action="store_true", help="print results as JSON")
    add_general(common, "print neither progress nor remarks")
    return command


def add_general(parser: Any, quiet: str) -> None:
    """Add the options that the commands and the roles of the loader have."""
    parser.add_argument("-q", "--quiet", action="store_true", help=quiet)
    parser.add_argument("--debug", action="store_true", help="print errors with their traceback")


def add_select(command: argparse.ArgumentParser) -> None:
    """Add the option that selects datasets by patterns of their names."""
    command.add_argument(
        "--select",
        metavar="PATTERN",
        action="append",
        help="use only the datasets whose names match, such as 'entry1/*/data'; may be repeated",
    )


def add_chunk_size(command: argparse.ArgumentParser) -> None:
    """Add the option for the chunks of what is written."""
    command.add_argument(
        "--chunk-size",
        metavar="SIZE",
        type=_chunk_size,
        help="extents of a chunk, such as 64,64,64, or its size, such as '4 MiB'",
    )


def add_memory_limit(command: argparse.ArgumentParser) -> None:
    """Add the option that limits the memory."""
    command.add_argument(
        "--memory-limit",
        metavar="SIZE",
        type=_size,
        help="most memory for blocks of data at a time, such as 512M",
    )


def add_new_datasets(command: argparse.ArgumentParser) -> None:
    """Add the options of commands that create datasets."""
    add_select(command)
    add_chunk_size(command)
    command.add_argument(
        "--compression", metavar="NAME", help="compression of the new datasets, such as gzip"
    )
    command.add_argument(
        "--option",
        metavar="KEY=VALUE",
        action="append",
        type=_option,
        default=[],
        help="any other option of the backend's datasets, such as checksum=true; the value is "
        "JSON or text",
    )
    command.add_argument(
        "--overwrite", action="store_true", help="replace datasets that came from elsewhere"
    )
    add_memory_limit(command)


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _chunk_size(text: str) -> tuple[int, ...] | str:
    if re.fullmatch(r"\s*\d+(\s*,\s*\d+)*\s*,?\s*", text):
        extents = tuple(int(part) for part in text.split(",") if part.strip())
        if all(extents):
            return extents
    try:
        _size(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither extents such as 64,64,64 nor a size such as '4 MiB'"
        ) from None
    return text


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text!r} does not have the form KEY=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
