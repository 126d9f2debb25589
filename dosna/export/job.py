"""The work that a format writer is asked to do, and its progress."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dosna.array.dataset import EngineDataset, Limit
    from dosna.engines.base import Report, Runner

__all__ = ["Job", "share_of"]


@dataclass(frozen=True)
class Job:
    """The work that a format writer is asked to do.

    Parameters
    ----------
    datasets : sequence of EngineDataset
        The datasets to write, all of one connection.
    chunk_size : int, sequence of int or None
        The extent of chunks in the file; None keeps each dataset's own.
    compression : str or None
        The name of a compression, None for none.
    memory_limit : int, str or None
        The most memory for blocks of data, in bytes.
    """

    datasets: Sequence[EngineDataset]
    chunk_size: int | Sequence[int] | None
    compression: str | None
    memory_limit: Limit

    @property
    def runner(self) -> Runner:
        """The runner that does the work."""
        return self.datasets[0].runner


def share_of(report: Report | None, done: int, count: int) -> Callable[[int, int], None] | None:
    """Return a callback that converts the progress of one dataset into that of all.

    Parameters
    ----------
    report : callable or None
        A function of the number of chunks done, of all datasets.
    done, count : int
        The chunks that were done before, and those that this dataset counts for.
    """
    if report is None:
        return None
    tell = report

    def part(chunks: int, total: int) -> None:
        tell(done + (count * chunks // total if total else 0))

    return part
