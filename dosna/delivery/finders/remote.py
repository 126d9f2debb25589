"""Datasets on servers: prefixes of S3, indexes of HTTP servers, patterns of XRootD."""

from __future__ import annotations

import os
from contextlib import suppress
from fnmatch import fnmatchcase
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from dosna.delivery.finders.allowed import check_source
from dosna.delivery.settings import Settings
from dosna.delivery.state.datasets import FoundFile
from dosna.errors import (
    MissingDependencyError,
    SourceError,
    SourceNotFoundError,
    StorageError,
)
from dosna.io.s3.opening import open_client
from dosna.io.s3.options import S3Options
from dosna.registry import needing

__all__ = ["find_http", "find_s3", "find_xrootd", "get_text"]

_ENDING = ".root"
_SECONDS = 30.0
_MOST_BYTES = 64 << 20
_WILD = "*?["


def find_s3(url: str, settings: Settings) -> list[FoundFile]:
    """Return the ROOT files below a prefix of a bucket, or those that match a pattern."""
    check_source(url, settings)
    bucket, _, key = url.removeprefix("s3://").partition("/")
    wild = any(char in key for char in _WILD)
    prefix = key[: min(key.find(c) for c in _WILD if c in key)] if wild else key
    client = open_client(S3Options(endpoint_url=settings.sources_endpoint), url)
    try:
        return [
            FoundFile(f"s3://{bucket}/{one['Key']}", int(one["Size"]))
            for page in client.listed(bucket, prefix, url)
            for one in page.get("Contents", [])
            if (fnmatchcase(one["Key"], key) if wild else one["Key"].endswith(_ENDING))
        ]
    finally:
        client.close()


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        href = dict(attrs).get("href")
        if tag == "a" and href:
            self.found.append(href)


def find_http(url: str, settings: Settings) -> list[FoundFile]:
    """Return the ROOT files to which an index of an HTTP server links, or the file itself."""
    check_source(url, settings)
    if urlsplit(url).path.endswith(_ENDING):
        return [FoundFile(url)]
    page = _Links()
    page.feed(get_text(url))
    base = url if url.endswith("/") else url + "/"
    files = set()
    for link in page.found:
        with suppress(ValueError):  # one that is no URL leads nowhere
            whole = urljoin(base, link).partition("#")[0]
            if unquote(urlsplit(whole).path).endswith(_ENDING):
                files.add(whole)
    below = urlsplit(base)
    # A link to another server or folder is not part of the dataset.
    own = [f for f in files if urlsplit(f)[:2] == below[:2] and f.startswith(base)]
    return [FoundFile(link) for link in sorted(own)]


def get_text(url: str, **options: Any) -> str:
    """Return the text at a URL. Redirections are not followed."""
    with needing(f"looking up {url} needs", "delivery"):
        import httpx
    method = options.pop("method", "GET")
    try:
        with httpx.stream(method, url, timeout=_SECONDS, **options) as answer:
            if answer.status_code in (404, 410):
                raise SourceNotFoundError(f"there is nothing at {url}: check the address")
            if answer.status_code != 200:
                raise StorageError(f"{url} cannot be read: the answer is {answer.status_code}")
            parts: list[bytes] = []
            for part in answer.iter_bytes():
                parts.append(part)
                if sum(map(len, parts)) > _MOST_BYTES:
                    raise SourceError(f"the answer of {url} is too long")
            return b"".join(parts).decode(answer.encoding or "utf-8", "replace")
    except httpx.HTTPError as error:
        raise StorageError(f"{url} cannot be read: {type(error).__name__}: {error}") from None


def find_xrootd(rest: str, settings: Settings) -> list[FoundFile]:
    """Return the files on an XRootD server that match a pattern such as ``root://host//a/*``."""
    url = rest.removeprefix("//")
    if not url.startswith("root://"):
        url = "root://" + url
    check_source(url, settings)
    try:
        import fsspec

        files = fsspec.filesystem("root", hostid=urlsplit(url).netloc)
    except (ImportError, ValueError) as error:
        raise MissingDependencyError(
            "xrootd:// needs fsspec-xrootd and the XRootD client: pip install fsspec-xrootd"
        ) from error
    host, path = urlsplit(url).netloc, "/" + urlsplit(url).path.lstrip("/")
    try:
        names = sorted(files.glob(path))
    except OSError as error:
        raise StorageError(f"{url} cannot be looked up: {error}") from None
    found = [FoundFile(f"root://{host}/{'/' + os.fspath(name).lstrip('/')}") for name in names]
    if not found:
        raise SourceNotFoundError(f"no file matches the pattern {url}: check its path")
    return found
