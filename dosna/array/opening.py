"""URLs of connections and datasets: ``hdf5:/data/scans/entry/tomo``, ``s3://bucket/scans``.

The form is ``BACKEND:PATH?OPTION=VALUE&…``. The backend interprets the path
(`BackendConnection.split_url`), and the options are those of its connection. Characters that
would end the path or a value are escaped as in every URL: ``%3F`` for a question mark, ``%26``
for ``&``, ``%25`` for %.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from dosna.array.connection import EngineConnection
from dosna.backends import registry as backends
from dosna.backends.base import BackendConnection
from dosna.core.options import parse_options
from dosna.core.url import Url, without_password
from dosna.errors import ConfigurationError

_OWN = ("cache", "recheck")
"""Options of a URL that every connection has."""


def open_url(
    url: str,
    *,
    mode: str | None = None,
    engine: str | None = None,
    engine_kw: Mapping[str, Any] | None = None,
) -> tuple[EngineConnection, str]:
    """Return the connection that a URL leads to, and the name of the dataset that it names.

    Parameters
    ----------
    url : str
        The URL, ``BACKEND:PATH?OPTION=VALUE&…``. The path names a connection, or continues with a
        dataset's name: ``hdf5:/data/scans`` (a folder), ``hdf5:/data/scans/entry/tomo``,
        ``s3://bucket/connection/entry/tomo``, ``s3:entry/tomo`` (a bucket for each dataset),
        ``NAME/entry/tomo`` after any other backend's colon.
    mode : {'a', 'r'}, optional
        The mode of access; by default that of the URL.
    engine : str, optional
        The engine; by default the one that `dosna.use` chose.
    engine_kw : mapping, optional
        The keywords of the engine; by default those that `dosna.use` was given for it.

    Returns
    -------
    connection : Connection
        The connection, which is not connected yet: use it in a ``with`` block.
    name : str
        The name of the dataset, or the common prefix of the names of several; '' if the URL is
        that of the connection.

    Raises
    ------
    ConfigurationError
        The URL is malformed, the backend or an option is unknown, or a value is bad.

    Examples
    --------
    >>> import dosna as dn
    >>> con, name = dn.open_url("ram:scans/entry/tomo")
    >>> con.name, name
    ('scans', 'entry/tomo')
    """
    parsed = Url.parse(url)
    backend = backends.get(parsed.backend)
    try:
        own: dict[str, Any] = {k: v for k, v in parsed.options.items() if k in _OWN}
        given = {k: v for k, v in parsed.options.items() if k not in _OWN}
        options = _options(backend.connection, given)
        place, name, options = backend.connection.split_url(parsed.path, options)
    except ConfigurationError as error:
        raise ConfigurationError(f"{without_password(url)}: {error}") from None
    if mode is not None:
        options["mode"] = mode
    options |= {"backend": parsed.backend, "engine": engine, "engine_kw": engine_kw}
    return EngineConnection(place or backend.name, **options, **own), name


def _options(connection: type[BackendConnection], given: Mapping[str, str]) -> dict[str, Any]:
    """Convert the options of a URL to the types that the backend's connection declares."""
    declared = inspect.signature(connection)
    declared = declared.replace(
        parameters=[p for p in declared.parameters.values() if p.name != "name"]
    )
    return dict(parse_options(declared, [f"{k}={v}" for k, v in given.items()]))
