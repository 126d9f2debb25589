"""The rows of the table, and the list of all rows."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from timing import Case

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Setting:
    """The place and the size of the work.

    Parameters
    ----------
    folder : Path
        The folder of the files that are written.
    quick : bool
        Whether to use less data.
    """

    folder: Path
    quick: bool

    @property
    def counts(self) -> tuple[int, ...]:
        """The numbers of chunks at which the cost of one chunk is compared."""
        return (100, 1000) if self.quick else (100, 1000, 10_000, 100_000)

    @contextmanager
    def fresh(self) -> Iterator[Path]:
        """Yield an empty folder, which is removed at the end."""
        path = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            yield path
        finally:
            shutil.rmtree(path)


@dataclass(frozen=True)
class Row:
    """A comparison; `cases` yields its cases one by one, each valid until the next."""

    name: str
    what: str
    cases: Callable[[Setting], Iterator[Case]]
    cores: int


ROWS: list[Row] = []


def row(name: str, what: str, cores: int = 1) -> Callable[[Any], Any]:
    """Add a generator of cases to the table."""

    def add(cases: Callable[[Setting], Iterator[Case]]) -> Any:
        ROWS.append(Row(name, what, cases, cores))
        return cases

    return add


def planes(peers: dict[str, Any], data: Array) -> Iterator[Case]:
    """Yield the reading of one plane across each axis."""
    every = slice(None)
    for axis in range(data.ndim):
        place = data.shape[axis] // 2 + 5
        key = (every,) * axis + (place,) + (every,) * (data.ndim - axis - 1)
        out = np.empty_like(data[key])
        work = {n: partial(p.read, key, out) for n, p in peers.items()}
        yield Case(f"across axis {axis}", 1, "plane", work, dict.fromkeys(peers, 1.0))


def random(shape: tuple[int, ...]) -> Array:
    """Return float32 numbers that do not compress well."""
    return np.random.default_rng(0).random(shape, np.float32)


def tiles(count: int) -> Array:
    """Return an image of about `count` chunks of (32, 32): 4 KiB of float32 each."""
    high = int(count**0.5)
    return random((32 * high, 32 * (count // high)))


def compressible(setting: Setting) -> Array:
    """Return float32 numbers that gzip makes two and a half times smaller."""
    shape = (128, 128, 128) if setting.quick else (128, 256, 256)
    return np.round(random(shape) * 200) + np.arange(shape[-1], dtype=np.float32)
