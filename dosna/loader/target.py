"""What the loader asks of a place that files are loaded into."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dosna.core.values import encode_attrs
from dosna.loader.bucket import Bucket, Entry
from dosna.loader.config import Config
from dosna.loader.inventory import Claim
from dosna.sources.base import Source
from dosna.sources.hdf5.source import H5Source

__all__ = ["Check", "OutdatedError", "Target", "Verdict", "other_attribute"]


Check = Callable[[], None]
"""Called now and then; raises if the work is to be stopped."""


@dataclass(frozen=True)
class Verdict:
    """What comparing a file has found.

    Parameters
    ----------
    difference : str or None
        The first; None if there is none.
    unseen : sequence of str
        What was not compared, and why.
    """

    difference: str | None
    unseen: Sequence[str] = ()

    @property
    def message(self) -> str:
        """What is said of the file."""
        if self.difference is not None:
            return self.difference
        return "PASSED" + (f"; not compared: {'; '.join(self.unseen)}" if self.unseen else "")


class OutdatedError(Exception):
    """The file has changed since it was loaded."""


class Target(ABC):
    """Where files of a bucket go.

    Parameters
    ----------
    config : Config
    bucket : Bucket
    """

    def __init__(self, config: Config, bucket: Bucket) -> None:
        self.config = config
        self.bucket = bucket

    @abstractmethod
    def load(self, claim: Claim, check: Check) -> tuple[Entry, str]:
        """Load a file, or go on where an earlier attempt has stopped.

        Returns
        -------
        entry : Entry
            The state of the file that is loaded now.
        message : str
            What was left out, if anything was.
        """

    @abstractmethod
    def compare(self, claim: Claim, check: Check) -> Verdict:
        """Compare a file with what was made of it.

        Raises
        ------
        OutdatedError
        """

    def close(self) -> None:  # noqa: B027  not every target has something to let go of
        """Let go of connections."""

    @property
    def memory_limit(self) -> int:
        """Bytes of blocks for one file."""
        return max(1 << 20, self.config.memory_bytes // self.config.jobs)

    @contextmanager
    def source(self, claim: Claim) -> Iterator[tuple[Source, Entry]]:
        """Open a file, and describe the state in which it is."""
        file = self.bucket.open(claim.key, claim.size, whole=not self.config.link_files)
        entry = self.bucket.entry(claim.key, file)
        with H5Source(file) as source:
            yield source, entry


def other_attribute(wanted: Any, there: Any) -> str | None:
    """Say in which attribute two owners differ first, if in any."""
    one, other = encode_attrs(wanted), encode_attrs(there)
    for name in sorted({*one, *other}):
        if name not in other:
            return f"attribute {name!r} is not in the target"
        if name not in one:
            return f"attribute {name!r} is in the target, and not in the file"
        if one[name] != other[name]:
            return (
                f"attribute {name!r} is {wanted[name]!r} in the file, and {there[name]!r} in the "
                "target"
            )
    return None
