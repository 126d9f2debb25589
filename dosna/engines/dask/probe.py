"""The question that a worker, or a scheduler, is asked before it is sent anything else."""

from __future__ import annotations

__all__ = ["probe"]


def probe(packages: tuple[str, ...]) -> tuple[str, dict[str, str], str, str]:
    """Return a process's host, versions, and identifier, or why it has none.

    The text of this function is sent, not the function: it needs nothing of this module.
    """
    import importlib
    import importlib.metadata
    import platform
    import socket

    versions = {"python": platform.python_version()}
    for name in packages:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "none"
    try:
        process = importlib.import_module("dosna.engines.dask.tasks").PROCESS
    except Exception as error:
        return socket.gethostname(), versions, "", f"{type(error).__name__}: {error}"
    return socket.gethostname(), versions, process, ""
