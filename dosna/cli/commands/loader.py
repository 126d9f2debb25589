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

import dosna.loader as api
from dosna.cli.console import Console, LogFormatter
from dosna.cli.options import add_general
from dosna.loader.config import KEYS, SECRET, Config, Key

__all__ = ["add", "stop_event"]

_DESCRIPTION = """\
Load all HDF5 files of a bucket, or of a folder, into a connection of dosna or into HSDS, by many
workers. An inventory in a database has the state of each file.

The configuration is in config.yml. It is overridden, in this order, by override.yml beside it, a
file of secrets, the environment (SRC_BUCKET, TARGET, …) and the options of a role.
"""

_EPILOG = """\
examples:
  dosna loader init --src-bucket raw --target hdf5:/data/scans
  dosna loader watch
  dosna loader load      (on any number of machines)
  dosna loader diff
  dosna loader status --live
  dosna loader reset '2024/*'

Run 'dosna loader ROLE --help' for the options of a role.
"""

_ROLES = {
    "init": "create the inventory, and check that source and target can be reached",
    "watch": "list the bucket, and add new and changed files to the inventory",
    "load": "load files",
    "diff": "verify loaded files: values, shapes, dtypes and attributes",
    "status": "print how many files are in which state, and what failed",
    "reset": "let files that failed or differ be tried again",
}


def add(commands: Any) -> None:
    """Add the command and its roles to a parser."""
    command = commands.add_parser(
        "loader",
        help="load all files of a bucket by many workers",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    roles = command.add_subparsers(dest="role", required=True, metavar="ROLE", title="roles")
    for name, help in _ROLES.items():
        role = roles.add_parser(
            name,
            help=help,
            usage="%(prog)s [OPTION]..." + (" [PATTERN]" if name == "reset" else ""),
            description=f"{help[0].upper()}{help[1:]}.",
        )
        # A role runs in one process.
        role.set_defaults(run=loader, engine="cpu", njobs=None, json=False)
        _add_options(role, name)
        _add_keys(role)


def _add_options(role: argparse.ArgumentParser, name: str) -> None:
    role.add_argument("--config", metavar="FILE", help="configuration; config.yml by default")
    role.add_argument(
        "--override",
        metavar="FILE",
        help="file that overrides it; override.yml beside it by default",
    )
    role.add_argument(
        "--secrets", metavar="FILE", help="file of secrets; $DOSNA_LOADER_SECRETS by default"
    )
    add_general(role, "print results and errors only")
    if name in ("watch", "load", "diff"):
        role.add_argument("--once", action="store_true", help="end when everything is done")
    if name in ("init", "status"):
        role.add_argument("--json", action="store_true", help="print results as JSON")
    if name == "status":
        role.add_argument("--live", action="store_true", help="print it again every second")
        role.add_argument(
            "--failures",
            type=int,
            default=10,
            metavar="N",
            help="number of failed files to list (10)",
        )
    if name == "reset":
        role.add_argument(
            "pattern", nargs="?", metavar="PATTERN", help="only keys that match, such as 'a/*'"
        )
        role.add_argument("--all", action="store_true", help="also files that have not failed")
        role.add_argument("--diff", action="store_true", help="verify again, but do not load")


def _add_keys(role: argparse.ArgumentParser) -> None:
    """Add an option for each key of the configuration that is not a secret."""
    keys = role.add_argument_group("keys of config.yml")
    for key, about in KEYS.items():
        if key not in SECRET:
            keys.add_argument(
                f"--{key.replace('_', '-')}",
                dest=f"key_{key}",
                metavar=about.type.partition(" ")[0].upper(),
                help=_help(about).replace("%", "%%"),
            )


def _help(about: Key) -> str:
    default = "" if about.default in ("", "null") else f" (default: {about.default})"
    return about.help + default


def loader(arguments: argparse.Namespace, console: Console) -> int:
    """Run one of the roles."""
    config = Config.read(
        arguments.config,
        override=arguments.override,
        secrets=arguments.secrets,
        **{key: getattr(arguments, f"key_{key}", None) for key in KEYS},
    )
    with _logging(config, arguments.quiet):
        return _RUN[arguments.role](config, arguments, console)


@contextmanager
def _logging(config: Config, quiet: bool) -> Iterator[None]:
    """Send the log of the loader to standard error."""
    log = logging.getLogger("dosna.loader")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogFormatter())
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
def stop_event() -> Iterator[threading.Event]:
    """Yield an event that SIGTERM and Ctrl-C set; a second Ctrl-C interrupts.

    A loader that was started with SIGINT ignored, as in the background of a script, goes on
    ignoring it.
    """
    stop = threading.Event()

    def stop_it(number: int, frame: object) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    taken = [number for number, handler in before.items() if handler != signal.SIG_IGN]
    for number in taken:
        signal.signal(number, stop_it)
    try:
        yield stop
    finally:
        for number in taken:
            signal.signal(number, before[number])


def _init(config: Config, arguments: argparse.Namespace, console: Console) -> int:
    api.init(config)
    shown = config.shown()
    for key, value in shown.items():
        console.say(f"{key}: {'null' if value is None else value}")
    console.give(shown)
    return 0


def _watch(config: Config, arguments: argparse.Namespace, console: Console) -> int:
    with stop_event() as stop:
        new, changed = api.watch(config, once=arguments.once, stop=stop)
    console.say(f"{new} new files, {changed} changed")
    return 0


def _load(config: Config, arguments: argparse.Namespace, console: Console) -> int:
    with stop_event() as stop:
        count = api.load(config, once=arguments.once, stop=stop)
    console.say(f"{count} files loaded")
    return 0


def _diff(config: Config, arguments: argparse.Namespace, console: Console) -> int:
    with stop_event() as stop:
        count = api.diff(config, once=arguments.once, stop=stop)
    console.say(f"{count} files verified")
    return 0


def _status(config: Config, arguments: argparse.Namespace, console: Console) -> int:
    while True:
        found = api.status(config, most=arguments.failures)
        if arguments.live and not arguments.json and sys.stdout.isatty():
            # Move to the top, and clear the screen.
            print("\x1b[H\x1b[2J", end="")
        console.say(str(found))
        console.give(found.to_json())
        if not arguments.live:
            return 1 if found.failed else 0
        sys.stdout.flush()
        time.sleep(1)


def _reset(config: Config, arguments: argparse.Namespace, console: Console) -> int:
    count = api.reset(config, arguments.pattern, every=arguments.all, diff_only=arguments.diff)
    console.say(f"{count} files will be tried again")
    return 0


_RUN: dict[str, Callable[[Config, argparse.Namespace, Console], int]] = {
    "init": _init,
    "watch": _watch,
    "load": _load,
    "diff": _diff,
    "status": _status,
    "reset": _reset,
}
