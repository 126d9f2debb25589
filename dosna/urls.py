"""URLs of connections and datasets: ``hdf5:/data/scans/entry/tomo``, ``s3://bucket/scans``.

``BACKEND:PATH?OPTION=VALUE&…``, where the backend says what the path means
(`BackendConnection.split_url`) and the options are its connection's. What would end the path or
a value is written as in every URL: ``%3F`` for a question mark, ``%26`` for ``&``, ``%25`` for %.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dosna import registry
from dosna.engines.connection import EngineConnection
from dosna.errors import ConfigurationError
from dosna.util.options import parse_options

_IN_PATH = "/:@!$'()*,;=+~"
_IN_VALUE = "/:@!$'()*,;+~?"


@dataclass(frozen=True)
class Url:
    """The parts of a URL; ``str`` puts them together again.

    Parameters
    ----------
    backend : str
        Name or alias.
    path : str
        What follows the colon, as it is meant: without escapes.
    options : mapping of str to str
        Of the backend's connection, as text.
    """

    backend: str
    path: str = ""
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Url:
        """Take a URL apart; touches nothing.

        Raises
        ------
        ConfigurationError
            It has another form.
        """
        from urllib.parse import unquote

        match = re.fullmatch(r"([A-Za-z][\w.+-]*):([^?]*)(?:\?(.*))?", text, re.S)
        if match is None:
            raise ConfigurationError(
                f"{text!r} is not the URL of a connection or a dataset: write BACKEND:PATH, like "
                "hdf5:/data/scans/tomo or s3://bucket/scans/tomo?endpoint_url=https://…"
            )
        options: dict[str, str] = {}
        for part in filter(None, (match[3] or "").split("&")):
            name, equals, value = part.partition("=")
            name = unquote(name)
            if not equals:
                raise ConfigurationError(
                    f"an option of a URL has the form key=value, not {part!r}"
                )
            if name in options:
                raise ConfigurationError(f"option {name!r} is given twice in {text!r}")
            options[name] = unquote(value, errors="surrogateescape")
        return cls(match[1], unquote(match[2], errors="surrogateescape"), options)

    def __str__(self) -> str:
        from urllib.parse import quote

        text = f"{self.backend}:{quote(self.path, _IN_PATH, errors='surrogateescape')}"
        options = [
            f"{quote(name, '')}={quote(value, _IN_VALUE, errors='surrogateescape')}"
            for name, value in self.options.items()
        ]
        return text + ("?" + "&".join(options) if options else "")


def open_url(
    url: str,
    *,
    mode: str | None = None,
    engine: str | None = None,
    engine_kw: Mapping[str, Any] | None = None,
) -> tuple[EngineConnection, str]:
    """Make the connection that a URL leads to, and say which dataset of it is meant.

    Parameters
    ----------
    url : str
        ``BACKEND:PATH?OPTION=VALUE&…``. The path names a connection, or goes on with a dataset's
        name: ``hdf5:/data/scans`` (a folder), ``hdf5:/data/scans/entry/tomo``,
        ``s3://bucket/connection/entry/tomo``, ``s3:entry/tomo`` (a bucket for each dataset),
        ``NAME/entry/tomo`` after any other backend's colon. Options take the types that the
        backend's connection declares.
    mode : {'a', 'r'}, optional
        Instead of the URL's own.
    engine : str, optional
    engine_kw : mapping, optional
        As of `dosna.Connection`.

    Returns
    -------
    connection : Connection
        Not connected yet: use it in a ``with`` block.
    name : str
        Of the dataset, or of what is common to the names of several; '' if the URL is that of
        the connection.

    Raises
    ------
    ConfigurationError
        Not a URL, an unknown backend, an unknown option or a bad value.
    """
    parsed = Url.parse(url)
    backend = registry.backends.get(parsed.backend)
    declared = inspect.signature(backend.connection)
    connections = declared.replace(
        parameters=[p for p in declared.parameters.values() if p.name != "name"]
    )
    try:
        options: dict[str, Any] = dict(
            parse_options(connections, [f"{k}={v}" for k, v in parsed.options.items()])
        )
        place, name, options = backend.connection.split_url(parsed.path, options)
    except ConfigurationError as error:
        raise ConfigurationError(f"{url}: {error}") from None
    if mode is not None:
        options["mode"] = mode
    made = EngineConnection(
        place or backend.name,
        backend=parsed.backend,
        engine=engine,
        engine_kw=engine_kw,
        **options,
    )
    return made, name
