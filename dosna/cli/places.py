"""The connections, datasets and sources that a command line names."""

from __future__ import annotations

import argparse
import inspect
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from dosna import Connection, open_url
from dosna.array.place import use_cache
from dosna.backends import registry as backends
from dosna.core.options import parse_options
from dosna.core.patterns import matching, suggested
from dosna.core.url import Url
from dosna.engines import registry as engines
from dosna.errors import ConfigurationError, DatasetNotFoundError, DosnaError, SourceError
from dosna.sources import Source, open_source
from dosna.sources import registry as sources
from dosna.sources.datasets import DatasetsSource

__all__ = ["checked", "chosen", "connected", "elsewhere", "is_url", "new_place", "source_of"]

_OF_FOLDERS = {"file", "hdf5"}
"""The backends whose datasets are in folders."""


def _engine(arguments: argparse.Namespace) -> dict[str, Any]:
    engine_kw = None
    if arguments.njobs is not None:
        if engines.get(arguments.engine).name != "joblib":
            raise ConfigurationError(
                "--njobs applies to the engine joblib only: add --engine joblib"
            )
        engine_kw = {"njobs": arguments.njobs}
    return {"engine": arguments.engine, "engine_kw": engine_kw}


@contextmanager
def connected(
    url: str, arguments: argparse.Namespace, mode: str | None = "r", cache: str | None = None
) -> Iterator[tuple[Connection, str]]:
    """Connect to the store of a URL; yield the connection and the rest of the URL.

    `cache` is the size of a cache of decoded chunks, if the backend can have one and the URL does
    not say otherwise. A handle compares a chunk with the store once.
    """
    con, name = open_url(checked(url), mode=mode, **_engine(arguments))
    if cache is not None and "cache" not in Url.parse(url).options:
        with suppress(ConfigurationError):
            use_cache(con.instance, cache, "open")
    with con:
        yield con, name


@contextmanager
def new_place(url: str, many: bool, arguments: argparse.Namespace) -> Iterator[tuple[Any, str]]:
    """Connect to the place for new datasets; yield the connection and the rest of the URL.

    With `many`, the URL is that of the place, and not of a dataset. A place that was made for
    them is removed again if the block fails and the place is empty.
    """
    parsed = Url.parse(checked(url))
    if many and parsed.path.strip("/"):
        url = str(Url(parsed.backend, parsed.path.rstrip("/") + "//", parsed.options))
    con, name = open_url(url, **_engine(arguments))
    made = many and con.runner.once(con.make_place)
    try:
        with con:
            yield con, name
    except BaseException:
        if made:
            con.runner.once(con.remove_place)
        raise


def chosen(con: Connection, name: str, arguments: argparse.Namespace) -> tuple[list[str], bool]:
    """Return the names that a URL and patterns select, and whether the URL names just one.

    Raises
    ------
    DatasetNotFoundError
        No dataset is selected.
    """
    if name and name in con:
        return [name], True
    names = con.names_in(name)
    if name and not names:
        raise DatasetNotFoundError(
            f"{arguments.url} is neither a dataset nor a place that contains datasets: "
            + (
                elsewhere(arguments.url)
                or "check the path, or list a folder above it by 'dosna ls'"
            )
        )
    names, unmatched = matching(names, getattr(arguments, "select", None))
    if unmatched:
        raise DatasetNotFoundError(
            f"{arguments.url} has no dataset that matches {unmatched[0]!r}: "
            f"{suggested(unmatched[0], con.names_in(name))}'dosna ls' lists them"
        )
    return names, False


def elsewhere(url: str) -> str:
    """Return advice if the path of a URL has datasets of another backend of folders; else ''."""
    parsed = Url.parse(url)
    own = backends.get(parsed.backend).name
    return _holding(parsed.path, parsed.options, own) if own in _OF_FOLDERS else ""


def checked(url: str) -> str:
    """Return a URL.

    Raises
    ------
    ConfigurationError
        It is the path of a folder or a file. The message has the URL to write.
    """
    try:
        Url.parse(url)
    except ConfigurationError:
        advice = _holding(url, {}) if os.path.isdir(url) else ""
        if os.path.isfile(url):
            advice = "a file is read by 'dosna ingest', which creates datasets from it"
        if advice:
            raise ConfigurationError(f"{url!r} is a path, and not a URL: {advice}") from None
        raise
    return url


def _holding(path: str, options: Mapping[str, str], without: str = "") -> str:
    """Return advice if a path has datasets of a backend of folders; else ''."""
    for name in sorted(_OF_FOLDERS - {without}):
        with suppress(DosnaError):
            other = str(Url(name, path, options))
            con, within = open_url(other, mode="r", engine="cpu")
            with con:
                if within in con or con.names_in(within):
                    return f"it is stored by the backend {name}: write {other}"
    return ""


def is_url(text: str) -> bool:
    """Return True if a text is the URL of datasets, False if it is a file or a file's URL."""
    scheme, colon, rest = text.partition(":")
    if not colon or scheme.lower() not in _backends():
        return False
    if not rest.startswith("//"):
        return True
    try:
        open_source(text.partition("?")[0])
    except SourceError:
        return True
    return False


def _backends() -> set[str]:
    return {*backends.names, *backends.aliases}


def _is_source(scheme: str) -> bool:
    return any(
        scheme in claim.schemes
        for load in (False, True)
        for claim in sources.claims(load).values()
    )


def source_of(text: str, kind: str | None, unchanged: bool = True) -> Source:
    """Open a source: datasets by their URL, a file, or a file by its URL with options.

    `unchanged`: whether datasets count as unchanged since an earlier copy of them.
    """
    if kind is None and is_url(text):
        return DatasetsSource(text, unchanged=unchanged)
    options: dict[str, Any] = {}
    if "?" in text and ("://" in text or _is_source(text.partition(":")[0])):
        parsed = Url.parse(text)
        text = text.partition("?")[0]
        found = type(open_source(text, kind=kind))
        given = [f"{k}={v}" for k, v in parsed.options.items()]
        options = dict(parse_options(inspect.signature(found), given))
    return open_source(text, kind=kind, **options)
