"""The guarantees of a store, and the states of stored chunks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["ChunkState", "Guarantees"]

ChunkState = Literal["ok", "unchecked", "never written", "missing", "corrupt", "unreadable"]
"""State of a chunk as `verify` reports it: ``ok`` (its checksum is right), ``unchecked``
(well-formed, but stored without a checksum), ``never written`` (reads as fill), ``missing``
(was written and is gone), ``corrupt`` or ``unreadable`` (the operating system gives an error
for its file)."""


@dataclass(frozen=True)
class Guarantees:
    """The guarantees that the store of a dataset gives.

    Parameters
    ----------
    partial_writes : {'processes', 'threads', 'none'}
        The kind of concurrent writers whose writes to different parts of one chunk all survive.
    atomic_chunks : bool
        True if a reader sees each chunk all old or all new, also after a crash.
    durable : bool
        True if a write has reached the disk when it returns, and so survives power loss.
    checksum : bool
        True if flipped bytes of a chunk are noticed when it is read.
    notes : tuple of str
        The conditions and exceptions of these guarantees.
    """

    partial_writes: Literal["processes", "threads", "none"]
    atomic_chunks: bool
    durable: bool
    checksum: bool
    notes: tuple[str, ...] = ()
