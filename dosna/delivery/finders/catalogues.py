"""Datasets of catalogues: Rucio, and CERN's open data portal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from dosna.delivery.finders.allowed import check_source
from dosna.delivery.finders.remote import get_text
from dosna.delivery.settings import Settings
from dosna.delivery.state.datasets import FoundFile
from dosna.errors import SourceError, SourceNotFoundError, StorageError

__all__ = ["find_opendata", "find_rucio"]


def find_rucio(rest: str, settings: Settings) -> list[FoundFile]:
    """Return the files of a Rucio dataset or container, each by a replica that is served.

    The token of the account is the environment variable ``RUCIO_TOKEN`` of the service.
    """
    import os

    scope, _, name = rest.removeprefix("//").partition(":")
    if not name:
        raise SourceError(f"{rest} has no scope: write rucio://SCOPE:NAME")
    if settings.rucio is None:
        raise SourceError("rucio:// is not served here: the service has no URL of Rucio")
    headers = {
        "X-Rucio-Account": settings.rucio_account,
        "X-Rucio-Auth-Token": os.environ.get("RUCIO_TOKEN", ""),
        "Content-Type": "application/json",
        "Accept": "application/x-json-stream",
    }
    server = settings.rucio.rstrip("/")
    # An unknown name is distinguished from a dataset without replicas.
    get_text(f"{server}/dids/{quote(scope, safe='')}/{quote(name, safe='')}", headers=headers)
    asked = {"dids": [{"scope": scope, "name": name}], "schemes": _schemes(settings)}
    url = f"{server}/replicas/list"
    text = get_text(url, method="POST", headers=headers, content=json.dumps(asked))
    replicas = [_parsed(line, url) for line in text.splitlines() if line.strip()]
    found = []
    for one in sorted(replicas, key=lambda one: (str(one.get("scope")), str(one.get("name")))):
        pfns = sorted(one.get("pfns", {}), key=lambda pfn: (one["pfns"][pfn].get("priority"), pfn))
        served = _first_served([_without_port(pfn) for pfn in pfns] + pfns, settings)
        if served is None:
            raise SourceNotFoundError(
                f"{one.get('scope')}:{one.get('name')} has no replica that is served here: its "
                f"replicas are {', '.join(pfns) or 'none'}"
            )
        found.append(FoundFile(served, int(one.get("bytes") or 0)))
    return found


def _schemes(settings: Settings) -> list[str]:
    remote = {urlsplit(root).scheme for root in settings.roots if "://" in root}
    return sorted(remote | ({"file"} if settings.folders else set()))


def _without_port(url: str) -> str:
    """Return a URL without the default port of its scheme."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url  # which is not served
    usual = {"root": 1094, "https": 443, "http": 80}.get(parts.scheme)
    if usual is None or not parts.netloc.endswith(f":{usual}"):
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.removesuffix(f":{usual}")))


def _first_served(urls: Sequence[str], settings: Settings) -> str | None:
    for url in urls:
        try:
            return check_source(url, settings)
        except SourceError:
            continue
    return None


def _parsed(text: str, url: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise StorageError(f"the answer of {url} is not of the form of its interface")
    return found


def find_opendata(rest: str, settings: Settings) -> list[FoundFile]:
    """Return the ROOT files of a record of CERN's open data portal."""
    number = rest.removeprefix("//")
    if not number.isdecimal():
        raise SourceError(f"{number!r} is not the number of a record: write cernopendata://NUMBER")
    url = f"{settings.opendata.rstrip('/')}/api/records/{number}"
    record = _parsed(get_text(url), url).get("metadata", {})
    indices = record.get("_file_indices") or record.get("file_indices") or []
    listed = [*record.get("_files", []), *record.get("files", [])]
    listed += [file for index in indices for file in index.get("files", [])]
    sizes = {file["uri"]: int(file.get("size") or 0) for file in listed if file.get("uri")}
    return [FoundFile(uri, sizes[uri]) for uri in sorted(sizes) if uri.endswith(".root")]
