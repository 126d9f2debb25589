"""The command ``dosna``: look at datasets, move them in, out and around, check and delete them.

It uses the public interface of dosna only. Exit codes are 0, 1 (it failed, or a difference was
found), 2 (wrong arguments), 130 (interrupted), 141 (the output was closed) and 143 (SIGTERM).
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from dosna.cli.console import Console, open_standard_streams
from dosna.cli.parser import make_parser
from dosna.cli.ranks import ranks_of
from dosna.core.url import without_password
from dosna.errors import ConfigurationError, MissingDependencyError

__all__ = ["main"]

FAILED, USAGE, INTERRUPTED, BROKEN_PIPE, TERMINATED = 1, 2, 130, 141, 143

# The names of options in errors of the Python interface, and the options of the command.
_IN_OPTIONS = {
    "on_error='skip'": "--skip",
    "unlinkable='ingest'": "--link",
    "overwrite=True": "--overwrite",
    "memory_limit": "--memory-limit",
    "select=": "--select",
    "kind=": "--kind",
}
# These words stand alone. Within file names, which are quoted, they are part of the name.
_IN_WORDS = re.compile(
    r"(?<![\w'\"/.=-])(" + "|".join(map(re.escape, _IN_OPTIONS)) + r")(?!\.?[\w'\"/])"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments of the command; those of the process by default.

    Returns
    -------
    int
        The exit code.
    """
    open_standard_streams()
    try:
        arguments = make_parser().parse_args(argv)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else USAGE
    arguments.whole_process = argv is None
    try:
        ranks = ranks_of(arguments)
    except (ConfigurationError, MissingDependencyError) as error:
        print(f"dosna: {_explained(_line(error), arguments)}", file=sys.stderr)
        return USAGE
    console = Console(
        speaks=ranks.first, quiet=arguments.quiet, as_json=arguments.json, debug=arguments.debug
    )
    with console, _terminable():
        code, message = _run(arguments, console)
        code, message = ranks.settle(code, message)
        if message is not None:
            console.complain(message)
        return _finish(code)


class _Terminated(KeyboardInterrupt):
    """An error raised by SIGTERM, which ends work in the way of Ctrl-C."""


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does: nothing unfinished is left. A second one kills."""
    own = os.getpid()

    def end(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if os.getpid() != own:  # a forked worker, which has nothing to tidy
            os.kill(os.getpid(), signal.SIGTERM)
        raise _Terminated

    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _run(arguments: argparse.Namespace, console: Console) -> tuple[int, str | None]:
    """Run a command; return its exit code, and a message if it failed."""
    try:
        return arguments.run(arguments, console), None
    except _Terminated:
        return TERMINATED, _explained("terminated", arguments)
    except KeyboardInterrupt:
        return INTERRUPTED, _explained("interrupted", arguments)
    except BrokenPipeError:
        return BROKEN_PIPE, None
    except ConfigurationError as error:
        return USAGE, _explained(_line(error), arguments)
    except Exception as error:
        return FAILED, _explained(_line(error), arguments)


def _line(error: Exception) -> str:
    """Return a line that describes an error."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror + (f": {error.filename}" if error.filename else "")
    if type(error).__module__.partition(".")[0] != "dosna":
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return _IN_WORDS.sub(lambda found: _IN_OPTIONS[found[1]], text)


def _explained(line: str, arguments: argparse.Namespace) -> str:
    text = f"{line}\n{traceback.format_exc().rstrip()}" if arguments.debug else line
    return without_password(text)


def _finish(code: int) -> int:
    """Flush standard output, while an error can still be noticed; return the exit code."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = BROKEN_PIPE
    if code == BROKEN_PIPE:
        # The output that Python still holds would fail again at exit.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code
