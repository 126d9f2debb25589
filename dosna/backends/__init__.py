"""Where chunks live. `AVAILABLE` names the backends that `dosna.use` takes."""

from dosna.registry import backends as _registry


def __getattr__(name: str) -> tuple[str, ...]:
    # Lazy, because it asks the installed packages for their entry points.
    if name == "AVAILABLE":
        return _registry.names
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
