"""``dosna view``: the datasets of a URL in the browser."""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from html import escape
from pathlib import Path
from typing import Any

from dosna.cli.commands.serving import add_server, announced, run
from dosna.cli.console import Console
from dosna.cli.options import add_command

__all__ = ["add", "has_browser", "hidden"]

_VIEW = """\
Show the datasets of a URL in the browser: volumes, images, lines, tables, text and attributes.
The page is served by this command, read-only, until Ctrl-C. Only programs on this machine that
know the token can read it. The address that is printed contains the token.
"""

_VIEW_EXAMPLES = """\
examples:
  dosna view hdf5:/data/scans
  dosna view s3://bucket/scans/entry/tomo
  dosna view file:/data/store --no-open --port 8000
"""


def add(commands: Any) -> None:
    """Add the command to a parser."""
    command = add_command(
        commands, "view", view, "show datasets in the browser", _VIEW, _VIEW_EXAMPLES
    )
    command.add_argument("url", metavar="URL", help="URL of a connection, a group or a dataset")
    command.add_argument(
        "--no-open", action="store_true", help="print the address without opening a browser"
    )
    add_server(command)


def view(arguments: argparse.Namespace, console: Console) -> int:
    """Serve the page until Ctrl-C."""
    with announced(arguments, console) as server:
        console.remark("Ctrl-C ends it")
        with ExitStack() as stack:
            if not arguments.no_open and has_browser():
                # The port is bound, so the page waits until the server runs.
                address = (stack.enter_context(hidden(server.url)),)
                threading.Thread(target=webbrowser.open, args=address, daemon=True).start()
            run(server, arguments)
    return 0


@contextmanager
def hidden(url: str) -> Iterator[str]:
    """Write a file that leads to a URL, and yield its own URL, which is no secret.

    All users of a machine see the arguments of its programs, and so those of the browser.
    """
    with tempfile.TemporaryDirectory(prefix="dosna-view-") as folder:
        file = Path(folder) / "open.html"
        file.write_text(f'<meta http-equiv="refresh" content="0;url={escape(url)}">')
        yield file.as_uri()


def has_browser() -> bool:
    """Return True if a browser would have a window; one of text would take over the terminal."""
    return any(name in os.environ for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"))
