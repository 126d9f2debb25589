"""Checks of what may be read: files below the served folders, and URLs with served beginnings."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote, urlsplit

from dosna.core.url import Url
from dosna.delivery.destinations import LOCAL_BACKENDS
from dosna.delivery.settings import Settings
from dosna.errors import ConfigurationError, SourceError, SourceNotFoundError

__all__ = ["check_source", "in_folders"]

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):(?=/|[^\\/]+:)")


def check_source(source: str, settings: Settings) -> str:
    """Return the path or URL by which a file has to be read, if it is served.

    Parameters
    ----------
    source : str
        The path or URL.
    settings : Settings
        The settings, with the served folders and URLs.

    Raises
    ------
    SourceError
        It is not served.
    SourceNotFoundError
        There is no such file.
    """
    if source.startswith("dosna:"):
        return _tree(source, settings)
    if source.startswith("file:"):
        source = unquote("/" + source.removeprefix("file:").lstrip("/"))
    if "://" not in source:
        return in_folders(source, settings)
    _check_url(source, settings)
    return source


def in_folders(path: str, settings: Settings, what: str = "file") -> str:
    """Return the real path of a file or folder, if it is below a folder that is served.

    Parameters
    ----------
    path : str
        The path. A relative path is looked for in the served folders.
    settings : Settings
        The settings, with the served folders and URLs.
    what : str
        The kind of object, for messages.
    """
    if "\0" in path:
        raise SourceError("a path must not contain a null character")
    for folder in settings.folders:
        found = os.path.realpath(os.path.join(folder, path))
        if os.path.commonpath([folder, found]) == folder and os.path.exists(found):
            return found
    for folder in settings.folders:
        found = os.path.realpath(os.path.join(folder, path))
        if os.path.commonpath([folder, found]) == folder:
            raise SourceNotFoundError(f"there is no {what} {path}: check its path")
    # The message does not tell whether the file exists.
    raise SourceError(f"{path} is not served here: files are read below {_served(settings)}")


def _check_url(url: str, settings: Settings) -> None:
    try:
        parts = urlsplit(url)
        host, user = parts.netloc, parts.username
    except ValueError:
        raise SourceError(f"{url!r} is not a URL: write SCHEME://HOST/PATH") from None
    path = unquote(unquote(parts.path)).replace("\\", "/")
    if user is not None or not host or any(ord(char) <= 32 for char in url):
        raise SourceError(f"{url!r} is not the URL of a file: give it without user and spaces")
    for root in settings.roots:
        if "://" in root:
            known = urlsplit(root)
            if (
                (known.scheme, known.netloc) == (parts.scheme, host)
                and path.startswith(unquote(known.path))
                and ".." not in path.split("/")
            ):
                return
    raise SourceError(f"{url} is not served here: files are read below {_served(settings)}")


def _tree(source: str, settings: Settings) -> str:
    """Check the location of a connection of dosna."""
    try:
        url = Url.parse(source.removeprefix("dosna:").removeprefix("//"))
    except ConfigurationError as error:
        raise SourceError(str(error)) from None
    if url.options:
        raise SourceError(
            f"{source} has options, which only the service may give: leave out what follows '?'"
        )
    place, _, rest = url.path.partition("//") if url.backend in LOCAL_BACKENDS else ("", "", "")
    if url.backend in LOCAL_BACKENDS:
        found = in_folders(place, settings, "folder")
        return f"dosna://{url.backend}:{found}" + (f"//{rest}" if rest else "")
    full = f"{url.backend}:{url.path}"
    beginnings = [root.rstrip("/") for root in settings.roots if "://" in root]
    clean = ".." not in url.path.split("/")
    if clean and any(full == known or full.startswith(known + "/") for known in beginnings):
        return f"dosna://{full}"
    raise SourceError(f"{source} is not served here: files are read below {_served(settings)}")


def _served(settings: Settings) -> str:
    return ", ".join(settings.roots)
