"""The work that a format writer is asked to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dosna.core.request import ExportRequest

if TYPE_CHECKING:
    from dosna.array.dataset import EngineDataset
    from dosna.engines.base import Runner

__all__ = ["Job"]


@dataclass(frozen=True)
class Job:
    """The work that a format writer is asked to do.

    Parameters
    ----------
    datasets : sequence of EngineDataset
        The datasets to write, all of one connection.
    request : ExportRequest
        The options of the export.
    """

    datasets: Sequence[EngineDataset]
    request: ExportRequest

    @property
    def runner(self) -> Runner:
        """The runner that does the work."""
        return self.datasets[0].runner
