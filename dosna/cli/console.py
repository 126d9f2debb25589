"""What a command prints: results on standard output, all else on standard error."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np

from dosna.metadata import encode_value
from dosna.util.sizes import format_size

__all__ = ["Console"]

_EVERY_SECONDS = 0.1


class Console(AbstractContextManager["Console"]):
    """Where a command prints.

    Parameters
    ----------
    speaks : bool
        Whether this process prints at all: of several ranks one does.
    quiet : bool
        Neither progress nor remarks.
    as_json : bool
        Results are JSON.
    debug : bool
        Warnings with the line that they come from.
    """

    def __init__(self, *, speaks: bool, quiet: bool, as_json: bool, debug: bool) -> None:
        self.speaks, self.quiet, self.as_json, self.debug = speaks, quiet, as_json, debug
        self._caught: Any = None

    def __enter__(self) -> Console:
        self._caught = warnings.catch_warnings()
        self._caught.__enter__()
        if not self.debug:
            # Those for people; others are for who develops.
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = lambda message, *rest, **more: self.remark(
                f"warning: {message}"
            )
        return self

    def __exit__(self, *exc: object) -> None:
        self._caught.__exit__(*exc)

    def _warn(self, message: Warning | str, *rest: Any, **more: Any) -> None:
        self.remark(f"warning: {message}")

    @property
    def is_terminal(self) -> bool:
        """Whether somebody watches."""
        return self.speaks and sys.stderr.isatty()

    def say(self, text: str) -> None:
        """Print a result for people."""
        if self.speaks and not self.as_json:
            print(text)

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """Print rows of a result in columns."""
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            self.say("  ".join(map(str.ljust, row, widths)).rstrip())

    def give(self, value: Any) -> None:
        """Print a result for programs."""
        if self.speaks and self.as_json:
            print(json.dumps(plain(value), indent=2, ensure_ascii=False))

    def remark(self, text: str) -> None:
        """Print what is not the result."""
        if self.speaks and not self.quiet:
            print(f"dosna: {text}", file=sys.stderr)

    def complain(self, text: str) -> None:
        """Print what went wrong."""
        if self.speaks:
            print(f"dosna: {text}", file=sys.stderr)

    @contextmanager
    def progress(self, what: str, unit: str) -> Iterator[Callable[[int, int], None] | None]:
        """Show how far something is, to who watches; `unit` is 'chunk', or 'B' for bytes."""
        if self.quiet or not self.is_terminal:
            yield None
            return
        bar = _bar(what, unit)
        try:
            yield bar.show
        finally:
            bar.close()


class _Line:
    """Progress in a line that is written over and over."""

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
    """A bar of tqdm's."""

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


def plain(value: Any) -> Any:
    """Give what JSON takes; NumPy's numbers and arrays become numbers and lists of these."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (np.ndarray, np.generic)):
        if value.dtype.kind in "biuU" or (value.dtype.kind == "f" and np.isfinite(value).all()):
            return value.tolist()
        return encode_value(value)
    if isinstance(value, float):
        return encode_value(value)
    return value if isinstance(value, (bool, int, str, type(None))) else str(value)
