"""Who does the work. `AVAILABLE` names the engines that `dosna.use` takes."""

from dosna.registry import engines as _registry


def __getattr__(name: str) -> tuple[str, ...]:
    # Lazy, because it asks the installed packages for their entry points.
    if name == "AVAILABLE":
        return _registry.names
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
