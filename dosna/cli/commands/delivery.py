"""The command ``dosna delivery``: a service that delivers columns of files on demand."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from typing import Any

from dosna.cli.commands.serving import end_soon
from dosna.cli.console import Console, LogFormatter
from dosna.cli.options import add_general
from dosna.delivery.settings import Settings

__all__ = ["add"]

_DESCRIPTION = """\
Serve files to analysts who use the client of ServiceX (pip install servicex): their selections
run here, on each file of a dataset, and they get small files of columns.

Settings are options of the command, or keys of a TOML file, with '_' instead of '-'.
"""

_EPILOG = """\
examples:
  dosna delivery --root /data/events --state ~/delivery
  dosna delivery --config delivery.toml
  dosna delivery --config delivery.toml --add-user ada      (prints the token of a user)

The client finds the service by servicex.yaml:
  api_endpoints: [{name: local, endpoint: "http://127.0.0.1:5055"}]
"""

_HELP = {
    "state": "folder of the service's own files",
    "database": "URL of the database; SQLite in the state by default",
    "objects": "folder of results, or s3://bucket/prefix; in the state by default",
    "objects_endpoint": "URL of the S3 server of the results",
    "sources_endpoint": "URL of the S3 server of s3:// sources",
    "host": "address to listen on (127.0.0.1)",
    "port": "port (5055); 0 for a free one",
    "public_url": "URL at which clients reach the service, if there is a proxy in front of it",
    "auth": "none or tokens: whether users need tokens (none)",
    "workers": "number of files at a time; by default one for each CPU",
    "dask": "address of a Dask scheduler, whose workers do the work",
    "running_limit": "maximum number of unfinished requests of a user (20)",
    "files_limit": "maximum number of files of a request (100000)",
    "bytes_limit": "maximum size of a user's results (100 GiB)",
    "keep_days": "days after which results are deleted (7)",
    "lookup_days": "days after which a dataset is looked up again (1)",
    "preflight_seconds": "time that a submission waits for its first file (60)",
    "file_seconds": "time limit for a file (1800)",
    "file_memory": "memory limit for a file (2 GiB)",
    "file_disk": "limit of disk space for a file (20 GiB)",
    "attempts": "attempts at a file whose worker died (3)",
    "patience": "seconds for which storage that fails is tried again (3600)",
    "func_adl": "interpreter or environment with func_adl_uproot",
    "rucio": "URL of a Rucio server, for rucio://",
    "rucio_account": "account at that server (servicex)",
    "opendata": "URL of CERN's open data portal, for cernopendata://",
}
_TYPES = {"int": int, "float": float}


def add(commands: Any) -> None:
    """Add the command to a parser."""
    command = commands.add_parser(
        "delivery",
        help="serve columns of files to ServiceX's client",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s --root PLACE --state FOLDER [OPTION]...",
    )
    command.set_defaults(run=delivery, engine="cpu", njobs=None, json=False)
    command.add_argument("--config", metavar="FILE", help="settings in a TOML file")
    command.add_argument(
        "--root",
        dest="roots",
        action="append",
        metavar="PLACE",
        help="folder, or beginning of URLs, that is served; may be repeated",
    )
    command.add_argument(
        "--destination",
        dest="destinations",
        action="append",
        metavar="URL",
        help="connection that results may be written into, as file:/data/columns; may be repeated",
    )
    for item in dataclasses.fields(Settings):
        if item.name in _HELP:
            command.add_argument(
                f"--{item.name.replace('_', '-')}",
                metavar=item.name.rpartition("_")[2].upper(),
                type=_TYPES.get(str(item.type).partition(" ")[0], str)
                if "str" not in str(item.type)
                else str,
                help=_HELP[item.name],
            )
    command.add_argument(
        "--unconfined",
        action="store_true",
        default=None,
        help="run selections even if the kernel cannot confine them",
    )
    users = command.add_argument_group("users (instead of serving)")
    users.add_argument("--add-user", metavar="NAME", help="print a new token for a user, and exit")
    users.add_argument(
        "--remove-user", metavar="NAME", help="make the tokens of a user invalid, and exit"
    )
    add_general(command, "print errors only")


def delivery(arguments: argparse.Namespace, console: Console) -> int:
    """Serve until Ctrl-C, or change the users."""
    names = [item.name for item in dataclasses.fields(Settings)]
    given = {name: getattr(arguments, name, None) for name in names}
    for name in ("roots", "destinations"):
        given[name] = tuple(given[name] or ()) or None
    settings = Settings.read(arguments.config, **given)
    if arguments.add_user or arguments.remove_user:
        return _change_users(settings, arguments)
    from dosna.delivery import Service
    from dosna.delivery.front import open_server

    log = logging.getLogger("dosna")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogFormatter())
    log.addHandler(handler)
    log.setLevel(logging.ERROR if arguments.quiet else logging.INFO)
    try:
        with Service(settings) as service:
            server = open_server(service)
            # What starts it waits for this line.
            print(f"{server.root} delivers {', '.join(settings.roots)}", flush=True)
            server.run()
    finally:
        log.removeHandler(handler)
    if arguments.whole_process:
        end_soon()
    return 0


def _change_users(settings: Settings, arguments: argparse.Namespace) -> int:
    import os

    from dosna.delivery.front.tokens import Tokens
    from dosna.delivery.state import State

    os.makedirs(settings.state, mode=0o700, exist_ok=True)
    state = State(settings.database_url)
    try:
        state.prepare()
        if arguments.remove_user and not state.users.remove(arguments.remove_user):
            print(f"dosna: there is no user {arguments.remove_user}", file=sys.stderr)
            return 1
        if arguments.add_user:
            print(Tokens(settings, state.users).refresh_token(arguments.add_user))
    finally:
        state.close()
    return 0
