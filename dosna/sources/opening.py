"""The choice of a source for a path, a URL or an object."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from dosna.backends import registry as backends
from dosna.core.options import refuse_unknown
from dosna.errors import SourceError, SourceNotFoundError
from dosna.io.opening import foreign_format
from dosna.sources.base import Source
from dosna.sources.kinds import Claims, SourceKind
from dosna.sources.kinds import registry as sources

__all__ = ["open_source"]


def open_source(what: Any, *, kind: str | None = None, **options: Any) -> Source:
    """Open a source by its location, or around an object of its own library.

    Parameters
    ----------
    what : str, path, object or Source
        A path (``scan.nxs``), optionally with a path inside the file (``scan.nxs:/entry1``), a
        URL (``s3://bucket/scan.h5``), or an open object: an `h5py.File`, a Zarr array or group, a
        NumPy array, a mapping of names to NumPy arrays, a tree of uproot. A list of paths or URLs
        for the kinds of source that join many files.
    kind : str, optional
        The kind of source, if its name does not tell it.
    **options
        Options of that kind of source.

    Returns
    -------
    Source
        The source. It opens its files when it is first used.

    Raises
    ------
    SourceError
        If no kind of source takes `what`.
    TypeError
        If the source does not have an option.
    MissingDependencyError
        If a package that the source needs is not installed.
    """
    if isinstance(what, Source):
        if kind is not None or options:
            raise TypeError(f"{what!r} is open already, and takes neither kind nor options")
        return what
    location, inner = what, ""
    if isinstance(what, (str, os.PathLike)):
        location, inner, found = _by_name(os.fspath(what), kind)
    elif isinstance(what, (list, tuple)) and all(isinstance(w, (str, os.PathLike)) for w in what):
        location, inner, found = _by_names([os.fspath(w) for w in what], kind)
    else:
        found = sources.get(kind) if kind is not None else _by_object(what)
    refuse_unknown(options, found.source.__init__, f"source {found.name!r}")
    return found.source(location, inner, **options)


def _by_name(text: str, kind: str | None) -> tuple[str, str, SourceKind]:
    if "\0" in text or re.search("[\ud800-\udc7f\udd00-\udfff]", text):
        raise SourceError(
            f"{text[:200]!r} cannot be the name of a source: it has a NUL or a lone surrogate, as "
            "no file's name has. Correct it"
        )
    scheme = re.match(r"([a-z][a-z0-9+.-]*):", text)
    claims = sources.claims()
    if scheme and scheme[1] in backends.names and not text.startswith("//", scheme.end()):
        # A location of datasets: ``hdf5:/data/scans``.
        scheme = None
    if kind is not None and sources.get(kind).name == "dosna":
        return text, "", sources.get(kind)
    if kind is None and not any(
        (scheme and scheme[1] in claim.schemes)
        or any(way.lower().endswith(claim.suffixes) for way, _ in _splits(text))
        for claim in claims.values()
    ):
        # A plug-in may take it that has no claims before it is loaded.
        claims = sources.claims(load=True)
    if kind is None and scheme:
        for name, claim in claims.items():
            if scheme[1] in claim.schemes:
                return text, "", sources.get(name)
    for location, inner in _splits(text):
        if "://" not in location:
            # The location is kept with the datasets, and other processes may run elsewhere.
            location = os.path.abspath(location)
        if kind is not None:
            return location, inner, sources.get(kind)
        if found := _kind_at(location, claims):
            return location, inner, sources.get(found)
    foreign = next(filter(None, (foreign_format(way) for way, _ in _splits(text))), "")
    if foreign:
        raise SourceError(f"{text!r} cannot be opened: it is {foreign}")
    if kind is None and "://" not in text and not any(_is_there(way) for way, _ in _splits(text)):
        raise SourceNotFoundError(
            f"there is no file {os.path.abspath(text) if text else repr(text)}"
        )
    known = sorted(
        {*(s for c in claims.values() for s in c.suffixes)}
        | {f"{s}:" for c in claims.values() for s in c.schemes}
    )
    raise SourceError(
        f"cannot tell the kind of the source {text!r}, which has none of {', '.join(known)}: give "
        f"kind=, one of {', '.join(sorted(claims))}"
    )


def _kind_at(location: str, claims: Mapping[str, Claims]) -> str:
    """Return the kind of source at a location, by its suffix, members or signature; or ''."""
    end = location.lower()
    for name, claim in claims.items():
        if claim.suffixes and end.endswith(claim.suffixes):
            return name
    for name, claim in claims.items():
        if any(os.path.exists(os.path.join(location, member)) for member in claim.members):
            return name
    return _signed(location, claims)


def _signed(path: str, claims: Mapping[str, Claims]) -> str:
    """Return the kind of source whose signature a local file has; '' if there is none."""
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            offset = 0
            while offset < size:
                file.seek(offset)
                head = file.read(16)
                for name, claim in claims.items():
                    if head.startswith(claim.signatures) and (claim.block or not offset):
                        return name
                offset = 2 * offset or 512
    except OSError:
        pass
    return ""


def _by_names(texts: Sequence[str], kind: str | None) -> tuple[list[str], str, SourceKind]:
    """Split the names of several files into locations, the path inside, and their one kind."""
    found = [_by_name(text, kind) for text in texts]
    if len({(inner, of.name) for _, inner, of in found}) != 1:
        raise SourceError(
            f"{', '.join(texts[:5])} cannot be one source: they are of several kinds, or have "
            "several paths inside; ingest them one after the other"
        )
    _, inner, of = found[0]
    if not of.many:
        raise SourceError(
            f"a source {of.name!r} is a single file: ingest {texts[0]} and the others in turn"
        )
    return [location for location, _, _ in found], inner, of


def _splits(text: str) -> list[tuple[str, str]]:
    """Return the ways to split a text into a location and a path inside, the likeliest first."""
    if "://" not in text and os.path.exists(text):
        return [(text, "")]
    # The path inside may contain colons too.
    ways = [
        (text[:at], text[at + 1 :])
        for at in range(len(text) - 1, 0, -1)
        if text[at] == ":" and not text.startswith("//", at + 1)
    ]
    there = [way for way in ways if _is_there(way[0])]
    return [*there, (text, ""), *(way for way in ways if way not in there)]


def _is_there(path: str) -> bool:
    return "://" in path or os.path.exists(path)


def _by_object(what: Any) -> SourceKind:
    packages = {kind.__module__.partition(".")[0] for kind in type(what).__mro__}
    for load in (False, True):
        # Plug-ins without claims are not loaded for a plain dict.
        if load and packages <= {"builtins", "collections"}:
            break
        for name, claim in sources.claims(load).items():
            if packages & set(claim.packages):
                return sources.get(name)
    if isinstance(what, Mapping):
        return sources.get("npy")
    raise SourceError(
        f"a {type(what).__module__}.{type(what).__qualname__} is not a known source: give a "
        "path, a URL, or an object of h5py, zarr or NumPy"
    )
