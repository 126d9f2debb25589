"""Backends: the kinds of storage for chunks. `AVAILABLE` names those that `dosna.use` takes."""

from __future__ import annotations

from dosna.backends.base import Backend
from dosna.registry import Known, Registry

__all__ = ["Backend", "registry"]

registry: Registry[Backend] = Registry(
    "backend",
    Backend,
    {
        "ram": Known("dosna.backends.ram:BACKEND"),
        "hdf5": Known("dosna.backends.hdf5.connection:BACKEND", "hdf5"),
        "s3": Known("dosna.backends.s3.connection:BACKEND", "s3"),
        "sage": Known("dosna.backends.sage.connection:BACKEND", "sage"),
        "file": Known("dosna.backends.zarr.connection:BACKEND", "zarr", ("zarr",)),
        "http": Known("dosna.backends.http.connection:BACKEND", "http"),
        "https": Known("dosna.backends.http.connection:HTTPS", "http"),
        "ceph": Known(
            "dosna.backends.ceph.connection:BACKEND",
            hint="install your system's package python3-rados; docs/ceph.md tells how a virtual "
            "environment gets it",
        ),
    },
)


def __getattr__(name: str) -> tuple[str, ...]:
    # Lazy, because it reads the entry points of the installed packages.
    if name == "AVAILABLE":
        return registry.names
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
