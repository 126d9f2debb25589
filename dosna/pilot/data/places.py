"""Places that store data units: their operations, and the place that a URL names."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from dosna.errors import ConfigurationError, DosnaError, ReadOnlyError, StorageError
from dosna.pilot.data.files import Tell

__all__ = ["Place", "PlaceUrl", "Prepared", "open_place", "place_url"]

FSSPEC = ("ssh", "sftp", "http", "https", "irods", "gs", "swift")
S3 = ("s3", "walrus", "gs", "swift")


@dataclass(frozen=True)
class PlaceUrl:
    """The parts of the URL of a place.

    Parameters
    ----------
    scheme, host, path : str
        As in any URL; `host` is without user and port.
    user, password : str
        Those in the URL.
    port : int or None
        The port.
    query : str
        The text after the question mark.
    """

    scheme: str
    host: str
    path: str
    user: str = ""
    password: str = field(default="", repr=False)
    port: int | None = None
    query: str = ""

    def __str__(self) -> str:
        # Without the user's password, and without the query, which may contain a signature.
        user = f"{self.user}@" if self.user else ""
        port = f":{self.port}" if self.port else ""
        return f"{self.scheme}://{user}{self.host}{port}{self.path}"


def place_url(text: str) -> PlaceUrl:
    """Return the parts of a URL; a path without a scheme is that of a local folder.

    Raises
    ------
    ConfigurationError
        The text is not the URL of a place.
    """
    if "://" not in text:
        return PlaceUrl("file", "", os.path.abspath(os.path.expanduser(text)))
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ConfigurationError(
            "the URL of a place cannot be understood: write SCHEME://HOST/PATH"
        ) from None
    if parts.scheme.lower() == "file" and parts.netloc not in ("", "localhost"):
        raise ConfigurationError(
            f"file://{parts.hostname or ''} is not a file of this machine: write a path, or file:///PATH"
        )
    return PlaceUrl(
        parts.scheme.lower(),
        parts.hostname or "",
        unquote(parts.path),
        unquote(parts.username or ""),
        unquote(parts.password or ""),
        port,
        parts.query,
    )


@dataclass(frozen=True)
class Prepared:
    """A file that has been brought to a place.

    Parameters
    ----------
    commit : callable
        A function that gives the file its name.
    abandon : callable
        A function that removes it again.
    is_named : bool
        Whether it has its name already, so that one that was there before is gone.
    checksum : str
        That of what was sent, if it was computed on the way.
    """

    commit: Callable[[], object]
    abandon: Callable[[], object]
    is_named: bool = False
    checksum: str = ""


class Place(ABC):
    """A store of files by path. Every method may be called by several threads.

    Every path is relative to the URL of the place. All errors are those of `dosna.errors`, whose
    messages name the place and contain no credentials.

    Parameters
    ----------
    shown : str
        The URL, without credentials.
    """

    is_exact = True
    """True if the bytes that are read are those that were written."""

    def __init__(self, shown: str) -> None:
        self.shown = shown

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @abstractmethod
    def size(self, path: str) -> int:
        """Return the size of a file in bytes.

        Raises
        ------
        SourceNotFoundError
            There is no such file.
        """

    @abstractmethod
    def download(self, path: str, target: str, tell: Tell | None = None) -> str | None:
        """Write a file into a new local one; return its checksum if it was computed on the way."""

    @abstractmethod
    def prepare(self, source: str, path: str, tell: Tell | None = None) -> Prepared:
        """Bring a local file to the place, to be named when all files are there."""

    def upload(self, source: str, path: str, tell: Tell | None = None) -> None:
        """Store a local file completely or not at all."""
        prepared = self.prepare(source, path, tell)
        try:
            prepared.commit()
        except BaseException:
            prepared.abandon()
            raise

    @abstractmethod
    def remove(self, path: str) -> None:
        """Remove a file, or a folder with its contents, if it exists."""

    @abstractmethod
    def check(self) -> None:
        """Raise an error if the place cannot be used."""

    def local_path(self, path: str) -> str | None:
        """Return the path of a file, if it is on this machine."""
        return None

    def close(self) -> None:  # noqa: B027  not every place has connections
        """Close the connections."""

    def named(self, path: str) -> Prepared:
        """Return a file that got its name at once, for `prepare`."""
        return Prepared(lambda: None, lambda: self.remove(path), is_named=True)

    def refuse(self) -> DosnaError:
        """Return the error for a change of a read-only place."""
        return ReadOnlyError(f"{self.shown} is read-only: choose another place for data units")


def open_place(fields: Mapping[str, Any]) -> Place:
    """Return the place that the fields of a `PilotDataDescription` name. It connects on first use.

    Raises
    ------
    ConfigurationError
        There is no such kind of place, or a field is missing.
    MissingDependencyError
        A package that it needs is not installed.
    """
    text = str(fields["service_url"])
    if text.startswith("dosna:"):
        from dosna.pilot.data.arrays import DosnaPlace

        return DosnaPlace(text.removeprefix("dosna:"))
    url = place_url(text)
    if url.scheme == "file":
        from dosna.pilot.data.local import LocalPlace

        return LocalPlace(url)
    if url.scheme in S3 and (url.scheme in ("s3", "walrus") or fields.get("access_key_id")):
        from dosna.pilot.data.s3 import S3Place

        return S3Place(url, fields)
    if url.scheme in FSSPEC:
        from dosna.pilot.data.remote import open_remote

        return open_remote(url, fields)
    known = ("dosna:", "file", *S3[:2], *FSSPEC)
    raise ConfigurationError(
        f"{url} is of an unknown kind of place: use one of {', '.join(known)}"
    )


def failed(what: str, place: str, error: Exception) -> StorageError:
    """Return the error for a failed operation, with the reason but nothing that was sent."""
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None)
    if not reason and isinstance(error, OSError) and error.args:
        reason = str(error.args[0])
    kind = type(error).__name__
    reason = f"{reason} ({kind})" if reason else kind
    text = f"{what} at {place} failed: {reason}. Check the place, its room and the credentials."
    number = getattr(error, "errno", None)
    return StorageError(number, text) if number else StorageError(text)
