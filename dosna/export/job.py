"""What is asked of a format, and each process's share of it."""

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
    """What is asked of a format.

    Parameters
    ----------
    datasets : sequence of EngineDataset
        Of one connection.
    chunk_size : int, sequence of int or None
    compression : str or None
    memory_limit : int, str or None
    """

    datasets: Sequence[EngineDataset]
    chunk_size: int | Sequence[int] | None
    compression: str | None
    memory_limit: Limit

    @property
    def runner(self) -> Runner:
        """Who does the work."""
        return self.datasets[0].runner


def share_of(report: Report | None, done: int, count: int) -> Callable[[int, int], None] | None:
    """Turn the progress of one dataset into that of all.

    Parameters
    ----------
    report : callable or None
        Takes the number of all chunks that are done.
    done, count : int
        How many were done before, and how many this dataset counts for.
    """
    if report is None:
        return None
    tell = report

    def part(chunks: int, total: int) -> None:
        tell(done + (count * chunks // total if total else 0))

    return part
