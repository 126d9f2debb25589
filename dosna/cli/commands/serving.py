"""``dosna serve``: the datasets of a URL over HTTP."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dosna.cli.console import Console
from dosna.cli.options import add_command
from dosna.cli.places import connected

__all__ = ["add", "add_server", "announced", "run"]

_CACHE = "256 MiB"
"""Decoded chunks to keep, because slices next to each other are in the same ones."""

_LAST = 0.2
"""Seconds that the command has to end after its server has."""

_SERVE = """\
Serve the datasets of a URL over HTTP, read-only, until Ctrl-C: as Zarr for other programs, and
as pages for the browser. Only programs on this machine that know the token can read them. The
address that is printed contains the token.
"""

_SERVE_EXAMPLES = """\
examples:
  dosna serve hdf5:/data/scans
  DOSNA_TOKEN=$(cat ~/.dosna-token) dosna serve s3://bucket/scans/entry/tomo --port 8000
"""


def add(commands: Any) -> None:
    """Add the command to a parser."""
    command = add_command(
        commands, "serve", serve, "serve datasets over HTTP", _SERVE, _SERVE_EXAMPLES
    )
    command.add_argument("url", metavar="URL", help="URL of a connection, a group or a dataset")
    add_server(command)


def add_server(command: argparse.ArgumentParser) -> None:
    """Add the options that the commands with a server have."""
    command.add_argument(
        "--port", type=int, default=0, metavar="N", help="port; by default a free one"
    )
    command.add_argument(
        "--token",
        metavar="T",
        default=os.environ.get("DOSNA_TOKEN") or None,
        help="token of 16 characters or more for requests; by default that of the environment "
        "variable DOSNA_TOKEN, which other users cannot see, or a random one",
    )
    command.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="interface to listen on (127.0.0.1); any other one requires a token",
    )
    command.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="other site whose pages may read the answers, such as https://app.example.org; "
        "may be repeated",
    )


def serve(arguments: argparse.Namespace, console: Console) -> int:
    """Serve datasets until Ctrl-C."""
    with announced(arguments, console) as server:
        run(server, arguments)
    return 0


def run(server: Any, arguments: argparse.Namespace) -> None:
    """Serve until Ctrl-C. Then the command ends within a second, even if a store says nothing."""
    if not arguments.whole_process:
        server.run()
        return
    from dosna.io.allocator import keep_freed_memory

    keep_freed_memory()
    server.run()
    end_soon()


def end_soon() -> None:
    """End this process in a moment, when its service has ended and nothing is left to be saved.

    Python would wait for threads, as for those that wait for a store.
    """
    last = threading.Timer(_LAST, os._exit, [0])
    last.daemon = True
    last.start()


@contextmanager
def announced(arguments: argparse.Namespace, console: Console) -> Iterator[Any]:
    """Make the server that is asked for, print who can reach it and how, and yield it."""
    from dosna.web.access import is_loopback

    with connected(arguments.url, arguments, cache=_CACHE) as (con, name):
        server = con.serve(
            name,
            port=arguments.port,
            token=arguments.token,
            host=arguments.host,
            origins=arguments.allow_origin,
        )
        # That the network can reach it is said even if no remarks are wanted.
        (console.remark if is_loopback(arguments.host) else console.complain)(server.open_to)
        console.say(server.url)
        console.give({"url": server.url, "root": server.root, "zarr": f"{server.root}/zarr"})
        sys.stdout.flush()
        yield server
