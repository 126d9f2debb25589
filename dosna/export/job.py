"""The work that a format writer is asked to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dosna.array.dataset import EngineDataset
    from dosna.core.sizes import Limit
    from dosna.engines.base import Runner

__all__ = ["Job"]


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
