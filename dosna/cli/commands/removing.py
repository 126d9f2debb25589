"""``dosna rm``: datasets are deleted."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from dosna.cli.console import Console, counted
from dosna.cli.options import add_command
from dosna.cli.places import chosen, connected
from dosna.core.url import without_password
from dosna.errors import ConfigurationError

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the command to a parser."""
    command = add_command(
        commands,
        "rm",
        rm,
        "delete datasets",
        "Delete a dataset, or with --recursive all datasets that URL names. On a terminal, the\n"
        "command asks for confirmation.",
        "example:\n  dosna rm hdf5:/data/scans/entry/tomo --yes\n",
    )
    command.add_argument("url", metavar="URL", help="URL of a dataset or a connection")
    command.add_argument(
        "-r", "--recursive", action="store_true", help="delete all datasets that URL names"
    )
    command.add_argument("-y", "--yes", action="store_true", help="do not ask for confirmation")


def rm(arguments: argparse.Namespace, console: Console) -> int:
    """Delete datasets."""
    with connected(arguments.url, arguments, mode=None) as (con, name):
        names, single = chosen(con, name, arguments)
        what = names[0] if single else counted(len(names), "dataset")
        if not single and not arguments.recursive:
            raise ConfigurationError(
                f"{arguments.url} is not one dataset but names {what}: use --recursive to delete "
                "all of them"
            )
        if not arguments.yes and not con.runner.once(lambda: _confirmed(what, arguments.url)):
            console.remark("nothing was deleted")
            return 1
        for found in names:
            con.del_dataset(found)
    console.say(f"deleted {what}")
    console.give({"deleted": names})
    return 0


def _confirmed(what: str, url: str) -> bool:
    if not sys.stdin.isatty():
        raise ConfigurationError(
            f"cannot ask whether to delete {what}, because the input is not a terminal: use --yes"
        )
    question = f"delete {what} of {without_password(url)}? [y/N] "
    print(question, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
