"""The engine and the backend that connections use by default."""

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


# The choice of all threads, made in the first lines of a program. It is replaced as a whole, so
# that readers see one choice and never parts of two.
_chosen = _Chosen("cpu", "ram", {})
_choosing = threading.Lock()


def _renew_lock() -> None:
    """Make a new lock in a forked child, where the parent's would never be released."""
    global _choosing
    _choosing = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


def use(
    engine: str | None = None,
    backend: str | None = None,
    engine_kw: Mapping[str, Any] | None = None,
) -> None:
    """Choose the engine and the backend of connections that are made from now on.

    An argument that is not given leaves its choice unchanged. A pair that cannot work together is
    refused when a connection is made, so that the two may be set one after the other. The choice
    applies to the whole process with all of its threads. A service with several users should pass
    the engine and the backend to each `dosna.Connection` instead.

    Parameters
    ----------
    engine : {'cpu', 'joblib', ...}, optional
        The name of an engine, in upper or lower case; `dosna.engines.AVAILABLE` lists them.
    backend : {'ram', 'hdf5', ...}, optional
        The name of a backend, in upper or lower case; `dosna.backends.AVAILABLE` lists them.
    engine_kw : mapping, optional
        The keywords of the engine. If another engine is named without them, it has its defaults.

    Raises
    ------
    ConfigurationError
        A name is unknown, or the value of a keyword is not valid.
    TypeError
        The engine does not have a keyword.
    MissingDependencyError
        A package that the engine or the backend needs is not installed.

    Examples
    --------
    >>> dn.use(engine="cpu", backend="ram")
    >>> dn.status().backend.name
    'ram'
    """
    global _chosen
    found = current(engine, backend, engine_kw)  # not under the lock, because it imports
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
    """Return the choice of `use`, with the arguments given here in its place."""
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
    """Return the engine and the backend that are chosen.

    Parameters
    ----------
    show : bool
        True to print them as well.

    Returns
    -------
    Status
        The pair ``(engine, backend)``. Each has a ``name``, and the engine has its ``params``.

    Examples
    --------
    >>> dn.status(show=True).engine.name
    engine: cpu()
    backend: ram
    'cpu'
    """
    found = current()
    if show:
        params = ", ".join(f"{k}={v!r}" for k, v in found.engine.params.items())
        print(f"engine: {found.engine.name}({params})")
        print(f"backend: {found.backend.name}")
    return found


def compatible(engine: str | Engine, backend: str | Backend) -> bool:
    """Return True if an engine and a backend can work together.

    Parameters
    ----------
    engine : str or Engine
        The name of an engine, or one that `status` returned. A name stands for the engine with the
        keywords chosen for it, or with its defaults.
    backend : str or Backend
        The name of a backend, or one that `status` returned.

    Returns
    -------
    bool
        True if all processes of the engine see what the backend stores.

    Raises
    ------
    ConfigurationError
        A name is unknown.

    Examples
    --------
    >>> dn.compatible("cpu", "ram")
    True
    """
    if isinstance(engine, str):
        engine = current(engine=engine).engine
    if isinstance(backend, str):
        backend = backends.get(backend)
    return works_together(engine, backend)


def works_together(engine: Engine, backend: Backend) -> bool:
    """Return True if all processes that the engine uses can see what the backend stores."""
    runner = engine.runner(**engine.params)
    return runner.shares_memory or backend.connection.shared_between_processes
