"""The engine and backend that connections take by default."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from dosna.backends import registry as backends
from dosna.backends.base import Backend
from dosna.core.options import refuse_unknown
from dosna.engines import registry as engines
from dosna.engines.base import Engine

log = logging.getLogger("dosna")


class Status(NamedTuple):
    """An engine, with its parameters, and a backend."""

    engine: Engine
    backend: Backend


class _Chosen(NamedTuple):
    engine: str
    backend: str
    engine_kw: Mapping[str, Any]


# For all threads, as of a program's first lines. Replaced as a whole, so that whoever reads it
# sees one choice and never parts of two.
_chosen = _Chosen("cpu", "ram", {})
_choosing = threading.Lock()


def _renew_lock() -> None:
    """Give a forked child a lock of its own: nobody there would release the parent's."""
    global _choosing
    _choosing = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


def use(
    engine: str | None = None,
    backend: str | None = None,
    engine_kw: Mapping[str, Any] | None = None,
) -> None:
    """Choose engine and backend of the connections that are made from now on.

    What is not named stays. A pair that cannot work together is refused when a connection is
    made, so that the two may be set one after the other. The choice is the whole process's, all
    of its threads included: a service that works for several passes engine and backend to each
    `dosna.Connection`.

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
    global _chosen
    found = current(engine, backend, engine_kw)  # imports, and so not under the lock
    with _choosing:
        if engine is not None or engine_kw is not None:
            _chosen = _chosen._replace(engine=found.engine.name, engine_kw=found.engine.params)
        if backend is not None:
            _chosen = _chosen._replace(backend=found.backend.name)


def current(
    engine: str | None = None,
    backend: str | None = None,
    engine_kw: Mapping[str, Any] | None = None,
) -> Status:
    """Give what was chosen by `use`, except for what is named here."""
    chosen = _chosen
    found = engines.get(chosen.engine if engine is None else engine)
    if engine_kw is None:
        engine_kw = chosen.engine_kw if found.name == chosen.engine else {}
    refuse_unknown(engine_kw, found.runner.__init__, f"engine {found.name!r}")
    return Status(
        replace(found, params=found.runner(**engine_kw).params),
        backends.get(chosen.backend if backend is None else backend),
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
        backend = backends.get(backend)
    return works_together(engine, backend)


def works_together(engine: Engine, backend: Backend) -> bool:
    """Say whether everything that the engine runs sees what the backend stores."""
    runner = engine.runner(**engine.params)
    return runner.shares_memory or backend.connection.shared_between_processes
