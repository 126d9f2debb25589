"""The engines, which do the work. `AVAILABLE` names those that `dosna.use` takes."""

from __future__ import annotations

from dosna.engines.base import Engine
from dosna.registry import Known, Registry

__all__ = ["Engine", "registry"]

registry: Registry[Engine] = Registry(
    "engine",
    Engine,
    {
        "cpu": Known("dosna.engines.cpu:ENGINE"),
        "joblib": Known("dosna.engines.joblib:ENGINE", "jl", ("jl",)),
        "dask": Known("dosna.engines.dask.runner:ENGINE", "dask"),
        "mpi": Known("dosna.engines.mpi.runner:ENGINE", "mpi"),
    },
)


def __getattr__(name: str) -> tuple[str, ...]:
    # Lazy, because it asks the installed packages for their entry points.
    if name == "AVAILABLE":
        return registry.names
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
