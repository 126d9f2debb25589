"""Connections and datasets that the ranks of an MPI program share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dosna.array.connection import EngineConnection
from dosna.array.dataset import EngineDataset
from dosna.array.home import ArrayHome
from dosna.engines.base import Runner
from dosna.engines.mpi.runner import MpiRunner
from dosna.errors import ConfigurationError
from dosna.settings import current

if TYPE_CHECKING:
    from mpi4py import MPI

__all__ = ["MpiConnection", "MpiDataset"]


class _Ranks:
    """The ranks, as connections and datasets show them; all but `mpi_barrier` is local."""

    runner: Runner

    @property
    def _ranks(self) -> MpiRunner:
        assert isinstance(self.runner, MpiRunner)
        return self.runner

    @property
    def mpi_comm(self) -> MPI.Intracomm:
        """The communicator that the engine was given."""
        return self._ranks.comm

    @property
    def mpi_rank(self) -> int:
        """Rank of this process in the communicator."""
        return self._ranks.rank

    @property
    def mpi_size(self) -> int:
        """Number of ranks."""
        return self._ranks.size

    @property
    def mpi_is_root(self) -> bool:
        """True on the rank that changes metadata."""
        return self._ranks.is_root

    def mpi_barrier(self) -> None:
        """Wait until all ranks have called this."""
        self._ranks.barrier()


class MpiDataset(_Ranks, EngineDataset):
    """A dataset that ranks work on together."""

    def copy(self, connection: ArrayHome, *args: Any, **kwargs: Any) -> EngineDataset:
        ranks = self._ranks
        if ranks.size > 1 and not ranks.same_ranks(connection.runner):
            raise ConfigurationError(
                f"{ranks.size} ranks cannot copy {self.name!r} to connection {connection.name!r}: "
                "they do not share it. Make it with engine 'mpi' and the same communicator, or "
                "let each rank load() the dataset into its own"
            )
        return super().copy(connection, *args, **kwargs)


class MpiConnection(_Ranks, EngineConnection):
    """A connection that ranks share.

    Parameters
    ----------
    name : str
        The name of the place, which the backend interprets.
    comm : mpi4py.MPI.Comm, optional
        The communicator, which replaces the engine's.
    engine_kw : mapping, optional
        The keywords of the engine; by default those that `dosna.use` was given for it.
    **options
        The further parameters of `EngineConnection`.
    """

    dataset_class = MpiDataset

    def __init__(
        self,
        name: str,
        *,
        comm: MPI.Intracomm | None = None,
        engine_kw: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        if comm is not None:
            chosen = current(options.get("engine"), None, engine_kw).engine.params
            engine_kw = {**chosen, "comm": comm}
        super().__init__(name, engine_kw=engine_kw, **options)
