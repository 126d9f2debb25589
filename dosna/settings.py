"""The engine and backend that connections take by default."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from dosna import registry
from dosna.registry import Backend, Engine
from dosna.util.options import refuse_unknown

log = logging.getLogger("dosna")


class Status(NamedTuple):
    """An engine, with its parameters, and a backend."""

    engine: Engine
    backend: Backend


_chosen: dict[str, Any] = {"engine": "cpu", "backend": "ram", "engine_kw": {}}


def use(
    engine: str | None = None,
    backend: str | None = None,
    engine_kw: Mapping[str, Any] | None = None,
) -> None:
    """Choose engine and backend of the connections that are made from now on.

    What is not named stays. A pair that cannot work together is refused when a connection is
    made, so that the two may be set one after the other.

    Parameters
    ----------
    engine : {'cpu', 'joblib', ...}, optional
        In any case; `dosna.engines.AVAILABLE` lists them.
    backend : {'ram', 'hdf5', ...}, optional
        `dosna.backends.AVAILABLE` lists them.
    engine_kw : mapping, optional
        Keywords of the engine. Naming another engine without them means its defaults.

    Raises
    ------
    ConfigurationError
        An unknown name, or a bad value of a keyword.
    TypeError
        A keyword that the engine does not have.
    MissingDependencyError
        A package that the engine or the backend needs is not installed.
    """
    chosen = current(engine, backend, engine_kw)
    _chosen.update(
        engine=chosen.engine.name, backend=chosen.backend.name, engine_kw=chosen.engine.params
    )


def current(
    engine: str | None = None,
    backend: str | None = None,
    engine_kw: Mapping[str, Any] | None = None,
) -> Status:
    """Give what was chosen by `use`, except for what is named here."""
    found = registry.engines.get(_chosen["engine"] if engine is None else engine)
    if engine_kw is None:
        engine_kw = _chosen["engine_kw"] if found.name == _chosen["engine"] else {}
    refuse_unknown(engine_kw, found.runner.__init__, f"engine {found.name!r}")
    return Status(
        replace(found, params=found.runner(**engine_kw).params),
        registry.backends.get(_chosen["backend"] if backend is None else backend),
    )


def status(show: bool = False) -> Status:
    """Say which engine and backend are chosen.

    Parameters
    ----------
    show : bool
        Also print them.

    Returns
    -------
    Status
        ``(engine, backend)``, each with its ``name``; the engine with its ``params``.
    """
    found = current()
    if show:
        params = ", ".join(f"{k}={v!r}" for k, v in found.engine.params.items())
        print(f"engine: {found.engine.name}({params})")
        print(f"backend: {found.backend.name}")
    return found


def compatible(engine: str | Engine, backend: str | Backend) -> bool:
    """Say whether an engine and a backend can work together.

    Parameters
    ----------
    engine, backend : str or what `status` gives
        An engine by name is taken with the keywords chosen for it, or its defaults.
    """
    if isinstance(engine, str):
        engine = current(engine=engine).engine
    if isinstance(backend, str):
        backend = registry.backends.get(backend)
    return works_together(engine, backend)


def works_together(engine: Engine, backend: Backend) -> bool:
    """Say whether everything that the engine runs sees what the backend stores."""
    runner = engine.runner(**engine.params)
    return runner.shares_memory or backend.connection.shared_between_processes
