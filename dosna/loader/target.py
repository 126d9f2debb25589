"""The interface of a place that files are loaded into."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dosna.core.values import encode_attrs
from dosna.errors import SourceChangedError, SourceError
from dosna.loader.bucket import Bucket, Entry
from dosna.loader.config import Config
from dosna.loader.inventory import Claim
from dosna.sources.base import ArrayDescription, Source
from dosna.sources.hdf5.source import H5Source

__all__ = [
    "Check",
    "OutdatedError",
    "Target",
    "Verdict",
    "compare_arrays",
    "other_attribute",
    "other_description",
]


Check = Callable[[], None]
"""A function that is called now and then, and raises if the work must stop."""


@dataclass(frozen=True)
class Verdict:
    """The result of comparing a file.

    Parameters
    ----------
    difference : str or None
        The first difference; None if there is none.
    unseen : sequence of str
        The parts that were not compared, with reasons.
    """

    difference: str | None
    unseen: Sequence[str] = ()

    @property
    def message(self) -> str:
        """The message that is recorded for the file."""
        if self.difference is not None:
            return self.difference
        return "PASSED" + (f"; not compared: {'; '.join(self.unseen)}" if self.unseen else "")


class OutdatedError(Exception):
    """An error raised if a file has changed since it was loaded."""


class Target(ABC):
    """The place into which files of a bucket are loaded.

    Parameters
    ----------
    config : Config
        The configuration of the loader.
    bucket : Bucket
        The place where the files are.
    """

    def __init__(self, config: Config, bucket: Bucket) -> None:
        self.config = config
        self.bucket = bucket

    @abstractmethod
    def load(self, claim: Claim, check: Check) -> tuple[Entry, str]:
        """Load a file, or resume where an earlier attempt stopped.

        Returns
        -------
        entry : Entry
            The state of the file that is loaded now.
        message : str
            A text about what was left out; empty if nothing was.
        """

    def compare(self, claim: Claim, check: Check) -> Verdict:
        """Compare a file with the data that were loaded from it.

        Raises
        ------
        OutdatedError, SourceChangedError
            The file has changed since it was loaded.
        """
        with self.source(claim) as (source, entry):
            found = self.compare_source(source, entry, claim, check)
            if entry.etag not in source.fingerprint():
                raise OutdatedError(f"{source.location} has changed while it was compared")
        return found

    @abstractmethod
    def compare_source(self, source: Source, entry: Entry, claim: Claim, check: Check) -> Verdict:
        """Compare an open file, as `compare` does."""

    def close(self) -> None:  # noqa: B027  not every target has something to let go of
        """Close all connections."""

    @property
    def memory_limit(self) -> int:
        """The most memory for blocks of one file, in bytes."""
        return max(1 << 20, self.config.memory_bytes // self.config.jobs)

    @contextmanager
    def source(self, claim: Claim) -> Iterator[tuple[Source, Entry]]:
        """Open a file; yield it with an entry that describes its state.

        Whatever is found to be wrong with a file that has changed meanwhile is a
        SourceChangedError.
        """
        # Bytes that are held here would be sent to each worker of a scheduler.
        whole = not self.config.link_files and self.config.scheduler is None
        file = self.bucket.open(claim.key, claim.size, whole)
        with H5Source(file) as source:
            entry = self.bucket.entry(claim.key, file)
            try:
                yield source, entry
            except SourceError as error:
                if entry.etag in source.fingerprint():
                    raise
                raise SourceChangedError(f"{source.location} has changed: {error}") from error


def compare_arrays(
    source: Source,
    there: Iterable[str],
    difference: Callable[[ArrayDescription], str | None],
    check: Check,
    refusal: Callable[[ArrayDescription], str] = lambda described: "",
) -> Verdict:
    """Compare the arrays of a file with those in a target.

    Parameters
    ----------
    source : Source
        The file.
    there : iterable of str
        The names of the arrays in the target.
    difference : callable
        A function that returns the first difference of an array, or None if there is none.
    check : callable
        A function that is called before each array.
    refusal : callable
        A function that returns why an array is not in the target; empty if it should be there.
    """
    left, unseen = set(there), []
    for name in source.names():
        check()
        described = source.describe(name)
        why = described.refused or ("" if name in left else refusal(described))
        if why:
            unseen.append(f"{name} ({why})")
        elif name not in left:
            return Verdict(f"{name}: not in the target")
        elif (found := difference(described)) is not None:
            return Verdict(f"{name}: {found}")
        left.discard(name)
    if left:
        return Verdict(f"{min(left)}: in the target, and not in the file")
    return Verdict(None, unseen)


def other_description(described: ArrayDescription, there: Any) -> str | None:
    """Return the first difference in shape, dtype or attributes, None if there is none."""
    for what in ("shape", "dtype"):
        wanted, found = getattr(described, what), getattr(there, what)
        if wanted != found:
            return f"{what} is {wanted} in the file, and {found} in the target"
    return other_attribute(described.attrs, dict(there.attrs))


def other_attribute(wanted: Any, there: Any) -> str | None:
    """Return the first difference between two sets of attributes, None if there is none."""
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
