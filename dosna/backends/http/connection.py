"""Zarr v3 on a web server: datasets to be read, by their names.

A server of files has no lists. What is in a group is known if its ``zarr.json`` has the documents
below it (inline consolidated metadata, as `dosna serve` and zarr-python write them).
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any, ClassVar
from urllib.parse import SplitResult, quote, urlsplit

from dosna.backends.base import Backend
from dosna.backends.http.store import HttpStore
from dosna.backends.stores.connection import StoreConnection
from dosna.backends.stores.listing import kind_of
from dosna.backends.stores.store import Store
from dosna.codecs import zarr as zarr3
from dosna.core.metadata import DatasetMetadata
from dosna.core.names import Children, children_among
from dosna.core.options import check_count, check_seconds
from dosna.errors import ConfigurationError, DatasetNotFoundError, StorageError

__all__ = ["BACKEND", "HTTPS", "HttpConnection", "HttpsConnection"]

_IN_PLACE = "/:@!$&'()*,;=+~[]-._"

_TOKEN = re.compile(r"/(?:@|%40)([\w.~-]{16,256})(?=/zarr(?:/|$)|$)", re.ASCII | re.I)
"""Pattern of the token in an address of ``dosna serve``."""


class HttpConnection(StoreConnection):
    """A connection to an address of a web server, below which there are Zarr arrays.

    Parameters
    ----------
    name : str
        The address of a group, such as ``https://host/data/store.zarr``. A token of
        ``dosna serve`` in it, ``http://host/@TOKEN/zarr``, is taken out and sent in the header
        instead, so that no message or log has it.
    mode : {'r'}
        The access mode: a web server is only read.
    token : str, optional
        The token to send as ``Authorization: Bearer``, which ``dosna serve`` requires.
    timeout : float
        The seconds that a request may wait for its answer to begin, or to go on.
    retries : int
        The number of attempts after the first, for requests that fail for a while.
    """

    shared_between_processes = True
    scheme: ClassVar[str] = "http"
    notes: ClassVar[tuple[str, ...]] = (
        "it is read from a web server, and a chunk that is not found there is fill",
    )

    def __init__(
        self,
        name: str,
        mode: str = "r",
        token: str | None = None,
        timeout: float = 30.0,
        retries: int = 3,
    ) -> None:
        if mode != "r":
            raise ConfigurationError(
                f"a web server is only read, with mode 'r' and not {mode!r}: copy its datasets "
                "to another connection to change them"
            )
        super().__init__(name, mode)
        found = _TOKEN.search(name.rstrip("/"))
        if found is not None:
            self.name = name = name[: found.start()] + name[found.end() :]
            token = token or found[1]
        parts = _split(name)
        if (
            parts is None
            or parts.scheme not in ("http", "https")
            or not parts.hostname
            or parts.query
        ):
            raise ConfigurationError(
                "a connection to a web server is named by an address such as "
                "https://host/data/store.zarr; a token is given by the option token"
            )
        if parts.username is not None or parts.password is not None:
            raise ConfigurationError(
                f"the address at {parts.hostname} has a user name or a password in it: leave "
                "them out, and give a token by the option token"
            )
        if token is not None and not (token.isascii() and token.isprintable()):
            raise ConfigurationError(
                "the token has characters that no header may have: give printable ASCII"
            )
        check_seconds("timeout", timeout)
        check_count("retries", retries)
        self.url = name.rstrip("/")
        self.token, self.timeout, self.retries = token, float(timeout), retries

    @classmethod
    def split_url(cls, path: str, options: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
        place = path.removeprefix("//")
        place, border, name = place.partition("//")
        host, _, rest = place.partition("/")
        if not border and rest and not rest.endswith("/"):
            above, _, name = rest.rpartition("/")
            place = f"{host}/{above}"
        place = quote(place, _IN_PLACE, errors="surrogateescape")
        return f"{cls.scheme}://{place}".rstrip("/"), name.rstrip("/"), options

    @property
    def location(self) -> str:
        return self.url

    def open_store(self) -> Store:
        return HttpStore(self.url, self.timeout, self.retries, self.token)

    # -- names ----------------------------------------------------------------------------

    def dataset_names(self) -> list[str]:
        return self.names_in("")

    def names_in(self, group: str) -> list[str]:
        found = self.store.get(self.document(group))
        if kind_of(found) != "group":
            return []
        assert found is not None
        inner = json.loads(bytes(found.data)).get("consolidated_metadata")
        if not isinstance(inner, dict) or not isinstance(inner.get("metadata"), dict):
            raise StorageError(
                f"what is in group {group!r} of a web server is not known, because its zarr.json "
                "has no consolidated metadata: open datasets by their names, or call "
                "zarr.consolidate_metadata where the group is stored"
            )
        start = group and group + "/"
        return sorted(
            start + name
            for name, document in inner["metadata"].items()
            if isinstance(document, dict) and document.get("node_type") == "array"
        )

    def children(self, group: str) -> Children:
        return children_among(self.names_in(group), group)

    # -- objects --------------------------------------------------------------------------

    def object_keys(self, name: str) -> Iterator[str]:
        metadata = self.read_metadata(name)[0]
        document = self.document(name)
        yield document
        yield from self.existing(_possible_keys(self.root(name), metadata))

    def not_found(self, name: str) -> DatasetNotFoundError:
        return DatasetNotFoundError(f"there is no Zarr array {name!r} on the web server")


class HttpsConnection(HttpConnection):
    """A connection to an address that begins with ``https``."""

    scheme: ClassVar[str] = "https"


def _possible_keys(root: str, metadata: DatasetMetadata) -> Iterator[str]:
    """Yield the keys of all chunks or shards of an array."""
    layout = zarr3.layout(metadata)
    counts = [-(-n // g) for n, g in zip(metadata.shape, layout.grain, strict=True)]
    for idx in itertools.product(*map(range, counts)):
        yield f"{root}/{layout.template % idx}"


def _split(address: str) -> SplitResult | None:
    """Return the parts of an address; None if it has not the form of one."""
    try:
        parts = urlsplit(address)
        _ = parts.port  # which is checked when it is asked for
    except ValueError:
        return None
    return parts


BACKEND = Backend(
    name="http",
    connection=HttpConnection,
    description="Zarr v3 arrays on a web server, to be read",
    url="https://zarr.dev",
)

HTTPS = Backend(
    name="https",
    connection=HttpsConnection,
    description="Zarr v3 arrays on a web server, to be read",
    url="https://zarr.dev",
)
