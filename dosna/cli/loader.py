"""The command ``dosna loader``: the roles of the bucket loader, each a process."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from dosna.cli.console import Console
from dosna.loader.config import KEYS, SECRET, Config

__all__ = ["add_loader", "loader"]

OK, FAILED = 0, 1

_DESCRIPTION = """\
Load the HDF5 files of a bucket, or of a folder, into a connection of dosna or into HSDS, by many
workers: an inventory in a database says which file is in which state.

  dosna loader init       make the inventory, and look whether all can be reached
  dosna loader watch      list the bucket, and note what is new or has changed
  dosna loader load       load files; start as many of these as there are machines
  dosna loader diff       verify what was loaded
  dosna loader status     how far it is
  dosna loader reset      let files be tried again that have failed

What is where stands in config.yml. Stronger than it are, in this order, override.yml beside it,
a file of secrets, the environment (SRC_BUCKET, TARGET, …) and options.
"""

_ROLES = {
    "init": "make the inventory, and look whether source and target can be reached",
    "watch": "list the bucket, and note what is new or has changed, again and again",
    "load": "load files",
    "diff": "verify files that were loaded: values, shapes, dtypes and attributes",
    "status": "say how far it is, and what failed",
    "reset": "let files be tried again that have failed, or differ",
}


def add_loader(commands: Any) -> None:
    """Add the command and its roles to a parser."""
    command = commands.add_parser(
        "loader",
        help="load all files of a bucket, by many workers",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    roles = command.add_subparsers(dest="role", required=True, metavar="ROLE", title="roles")
    for name, help in _ROLES.items():
        role = roles.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.")
        # A role runs in one process.
        role.set_defaults(engine="cpu", njobs=None, json=False)
        role.add_argument("--config", metavar="FILE", help="by default config.yml")
        role.add_argument("--override", metavar="FILE", help="by default override.yml beside it")
        role.add_argument("--secrets", metavar="FILE", help="by default $DOSNA_LOADER_SECRETS")
        role.add_argument("-q", "--quiet", action="store_true", help="results and errors alone")
        role.add_argument("--debug", action="store_true", help="errors with their traceback")
        if name in ("watch", "load", "diff"):
            role.add_argument("--once", action="store_true", help="end when all is done")
        if name in ("init", "status"):
            role.add_argument("--json", action="store_true", help="for programs")
        if name == "status":
            role.add_argument("--live", action="store_true", help="again every second")
            role.add_argument(
                "--failures", type=int, default=10, metavar="N", help="how many to list (10)"
            )
        if name == "reset":
            role.add_argument("pattern", nargs="?", metavar="PATTERN", help="of keys, like 'a/*'")
            role.add_argument("--all", action="store_true", help="also what has not failed")
            role.add_argument("--diff", action="store_true", help="verify again, do not load")
        keys = role.add_argument_group("keys of config.yml")
        for key, about in KEYS.items():
            if key not in SECRET:
                keys.add_argument(
                    f"--{key.replace('_', '-')}",
                    dest=f"key_{key}",
                    metavar=about.type.partition(" ")[0].upper(),
                    help=f"{about.help} ({about.default})".replace("%", "%%"),
                )


def loader(arguments: argparse.Namespace, console: Console) -> int:
    """Run one of the roles."""
    config = Config.read(
        arguments.config,
        override=arguments.override,
        secrets=arguments.secrets,
        **{key: getattr(arguments, f"key_{key}", None) for key in KEYS},
    )
    with _logging(config, arguments.quiet):
        return _DO[arguments.role](config, arguments, console)


@contextmanager
def _logging(config: Config, quiet: bool) -> Iterator[None]:
    """Send the log of the loader to standard error."""
    log = logging.getLogger("dosna.loader")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    before = log.level, log.propagate
    log.setLevel(logging.ERROR if quiet else config.log_level.upper())
    log.propagate = False
    log.addHandler(handler)
    if config.inventory_domain is not None:
        log.warning(
            "inventory_domain is not used: the inventory is the database %s",
            config.shown()["inventory"],
        )
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before[0])
        log.propagate = before[1]


@contextmanager
def _until_told() -> Iterator[threading.Event]:
    """Yield an event that SIGTERM and Ctrl-C set; a second Ctrl-C interrupts.

    A loader that was started with SIGINT ignored, as in the background of a script, goes on
    ignoring it.
    """
    stop = threading.Event()

    def told(number: int, frame: object) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    taken = [number for number, handler in before.items() if handler != signal.SIG_IGN]
    for number in taken:
        signal.signal(number, told)
    try:
        yield stop
    finally:
        for number in taken:
            signal.signal(number, before[number])


def _init(config: Config, arguments: argparse.Namespace, console: Console) -> int:
    from dosna.loader import init

    init(config)
    shown = config.shown()
    for key, value in shown.items():
        console.say(f"{key}: {'null' if value is None else value}")
    console.give(shown)
    return OK


def _watch(config: Config, arguments: argparse.Namespace, console: Console) -> int:
    from dosna.loader import watch

    with _until_told() as stop:
        new, changed = watch(config, once=arguments.once, stop=stop)
    console.say(f"{new} new files, {changed} changed")
    return OK


def _load(config: Config, arguments: argparse.Namespace, console: Console) -> int:
    from dosna.loader import load

    with _until_told() as stop:
        count = load(config, once=arguments.once, stop=stop)
    console.say(f"{count} files loaded")
    return OK


def _diff(config: Config, arguments: argparse.Namespace, console: Console) -> int:
    from dosna.loader import diff

    with _until_told() as stop:
        count = diff(config, once=arguments.once, stop=stop)
    console.say(f"{count} files verified")
    return OK


def _status(config: Config, arguments: argparse.Namespace, console: Console) -> int:
    from dosna.loader import open_inventory
    from dosna.loader.report import Status

    with open_inventory(config) as inventory:
        while True:
            found = Status.of(inventory, arguments.failures)
            if arguments.live and not arguments.json and sys.stdout.isatty():
                # Move to the top, and clear the screen.
                print("\x1b[H\x1b[2J", end="")
            console.say(str(found))
            console.give(found.to_json())
            if not arguments.live:
                return FAILED if found.failed else OK
            sys.stdout.flush()
            time.sleep(1)


def _reset(config: Config, arguments: argparse.Namespace, console: Console) -> int:
    from dosna.loader import reset

    count = reset(config, arguments.pattern, every=arguments.all, diff_only=arguments.diff)
    console.say(f"{count} files will be tried again")
    return OK


_DO: dict[str, Callable[[Config, argparse.Namespace, Console], int]] = {
    "init": _init,
    "watch": _watch,
    "load": _load,
    "diff": _diff,
    "status": _status,
    "reset": _reset,
}
