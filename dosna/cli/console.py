"""The output of a command: results on standard output, everything else on standard error."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np

from dosna.core.names import printable
from dosna.core.sizes import format_size
from dosna.core.url import without_password

__all__ = ["Console", "LogFormatter", "counted", "open_standard_streams"]

_EVERY_SECONDS = 0.1


def open_standard_streams() -> None:
    """Open the null device in place of standard streams that are closed.

    Otherwise the next file that is opened takes the number of a standard stream, and a library
    that prints would write into that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The new file gets the lowest free number, which is this one.
            os.open(os.devnull, os.O_RDWR)
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", closefd=False))  # noqa: SIM115


class LogFormatter(logging.Formatter):
    """A form of log lines whose messages cannot make other lines, or move a terminal's cursor.

    Messages have names and texts that clients send.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = printable(record.message).replace("\n", "\\n")
        return super().formatMessage(record)


class Console(AbstractContextManager["Console"]):
    """The streams to which a command prints.

    Parameters
    ----------
    speaks : bool
        Whether this process prints at all: of several ranks, one does.
    quiet : bool
        Whether to leave out progress and remarks.
    as_json : bool
        Whether to print results as JSON.
    debug : bool
        Whether to print all warnings, with the lines that they come from.
    """

    def __init__(self, *, speaks: bool, quiet: bool, as_json: bool, debug: bool) -> None:
        self.speaks, self.quiet, self.as_json, self.debug = speaks, quiet, as_json, debug
        self._caught: Any = None

    def __enter__(self) -> Console:
        self._caught = warnings.catch_warnings()
        self._caught.__enter__()
        for stream in (sys.stdout, sys.stderr):
            # Characters that the stream cannot encode are printed as escapes.
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        if not self.debug:
            # Only the warnings for users are shown; the others are for developers.
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = lambda message, *_, **__: self.remark(f"warning: {message}")
        return self

    def __exit__(self, *exc: object) -> None:
        self._caught.__exit__(*exc)

    @property
    def is_terminal(self) -> bool:
        """True if this process prints and standard error is a terminal."""
        return self.speaks and sys.stderr.isatty()

    def say(self, text: str) -> None:
        """Print a result for people."""
        if self.speaks and not self.as_json:
            print(printable(text))

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """Print rows of a result in columns."""
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            self.say("  ".join(map(str.ljust, row, widths)).rstrip())

    def give(self, value: Any) -> None:
        """Print a result for programs."""
        if self.speaks and self.as_json:
            text = json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False)
            try:
                text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
            except UnicodeEncodeError:
                text = json.dumps(json.loads(text), indent=2)
            print(text)

    def remark(self, text: str) -> None:
        """Print a remark, which is not part of the result."""
        if not self.quiet:
            self.complain(text)

    def complain(self, text: str) -> None:
        """Print an error, with stars in place of the secrets of URLs in it."""
        if self.speaks:
            print(f"dosna: {printable(without_password(text))}", file=sys.stderr)

    @contextmanager
    def progress(self, what: str, unit: str) -> Iterator[Callable[[int, int], None] | None]:
        """Yield a callback that shows progress on a terminal; `unit` is 'chunk' or 'B' (bytes)."""
        if self.quiet or not self.is_terminal:
            yield None
            return
        bar = _bar(what, unit)
        try:
            yield bar.show
        finally:
            bar.close()


class _Line:
    """Progress in a line that is overwritten again and again."""

    def __init__(self, what: str, unit: str) -> None:
        self._what, self._bytes = what, unit == "B"
        self._last, self._width = 0.0, 0

    def show(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done < total and now - self._last < _EVERY_SECONDS:
            return
        self._last = now
        count = f"{done} of {total}"
        if self._bytes:
            count = f"{format_size(done)} of {format_size(total)}"
        text = f"{self._what}: {100 * done // max(total, 1)} %, {count}"
        print("\r" + text.ljust(self._width), end="", file=sys.stderr, flush=True)
        self._width = len(text)

    def close(self) -> None:
        if self._width:
            print("\r" + " " * self._width, end="\r", file=sys.stderr, flush=True)


class _Bar:
    """A progress bar of tqdm."""

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make
        self._bar: Any = None

    def show(self, done: int, total: int) -> None:
        if self._bar is None:
            self._bar = self._make(total=total)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _bar(what: str, unit: str) -> _Line | _Bar:
    try:
        from tqdm import tqdm
    except ImportError:
        return _Line(what, unit)

    def make(total: int) -> Any:
        return tqdm(total=total, desc=what, unit=unit, unit_scale=unit == "B", leave=False)

    return _Bar(make)


def counted(number: int, what: str, many: str = "") -> str:
    """Return a number with the noun for what was counted."""
    return f"{number} {what if number == 1 else many or what + 's'}"


def plain(value: Any) -> Any:
    r"""Return `value` in types of JSON.

    Numbers that JSON lacks are texts (``"NaN"``, ``"-Infinity"``), as in Zarr's metadata; complex
    numbers are pairs of numbers; dates and times are texts of ISO 8601; records are objects by
    field; bytes are texts with ``\xNN`` for bytes that are not UTF-8; arrays are lists.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, np.ndarray) and not value.ndim:
        value = value[()]
    if isinstance(value, np.void):
        names = value.dtype.names
        value = value.tobytes() if names is None else {name: value[name] for name in names}
    elif isinstance(value, np.longdouble):
        value = float(value)
    elif isinstance(value, np.clongdouble):
        value = complex(value)
    elif isinstance(value, np.generic) and value.dtype.kind not in "Mm":
        value = value.item()
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(v) for v in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, complex):
        return [plain(value.real), plain(value.imag)]
    if isinstance(value, float):
        return _number(value)
    return value if isinstance(value, (bool, int, str, type(None))) else str(value)


def _number(value: float) -> float | str:
    if np.isfinite(value):
        return value
    return "NaN" if np.isnan(value) else "Infinity" if value > 0 else "-Infinity"
