"""Files in S3, read by ranges."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from dosna.errors import DosnaError, SourceChangedError, SourceError
from dosna.errors import SourceNotFoundError as NotFound
from dosna.io.bytefile import ByteFile
from dosna.io.parallel import Workers
from dosna.io.s3.opening import open_client
from dosna.io.s3.options import S3Options

if TYPE_CHECKING:
    from dosna.io.s3.client import S3Client
    from dosna.io.s3.errors import Failure

__all__ = ["S3File", "reading_error", "s3_fingerprint"]


_workers = Workers("dosna-s3-file", 16, 128 << 20, blocking=True)


@lru_cache(maxsize=16)
def _shared_client(options: S3Options, environment: tuple[tuple[str, str], ...]) -> S3Client:
    """Return the client for an environment.

    It is shared, because making a client takes longer than reading a small file.
    """
    return open_client(options, "from S3")


class S3File(ByteFile):
    """An object of an S3 server.

    Parameters
    ----------
    url : str
        The URL of the object, ``s3://bucket/key``.
    options : S3Options
        The settings of the server.
    client : S3Client, optional
        A client that others use too. The caller closes it, and copies in other processes do not
        have it.
    """

    most_span = 8 << 20
    range_bytes = 1 << 62

    def __init__(self, url: str, options: S3Options, client: S3Client | None = None) -> None:
        self.location = url
        self.options = options
        self.bucket, _, self.key = url.removeprefix("s3://").partition("/")
        if not self.bucket or not self.key:
            raise SourceError(f"{url!r} does not name an object: use s3://bucket/key")
        self._client: S3Client | None = client
        self._found: Mapping[str, Any] | None = None
        self._pinned: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_client": None}

    def pin(self, fingerprint: str) -> None:
        size, _, etag = fingerprint.removeprefix("size ").partition(", ETag ")
        self._found = {"size": int(size), "etag": etag}
        self._pinned = fingerprint

    def _opened(self) -> S3Client:
        client = self._client
        if client is None:
            keys = sorted((k, v) for k, v in os.environ.items() if k.startswith("AWS_"))
            client = self._client = _shared_client(self.options, tuple(keys))
        return client

    def _head(self) -> Mapping[str, Any]:
        client = self._opened()  # first, because its error says which package to install
        from dosna.io.s3.errors import Failure

        try:
            found = client.head(f"{self.bucket}/{self.key}")
        except Failure as failure:
            raise reading_error(self.location, client, failure) from None
        return {"size": found.size, "etag": found.etag}

    def _description(self) -> Mapping[str, Any]:
        if self._found is None:
            self._found = self._head()
        return self._found

    @property
    def size(self) -> int:
        return int(self._description()["size"])

    def fingerprint(self) -> str:
        self._found = found = self._head()
        return s3_fingerprint(found["size"], found["etag"])

    def read(self, offset: int, size: int) -> memoryview:
        known = self._description()
        if not 0 <= offset <= offset + size <= known["size"]:
            raise self._ends(offset, size)
        if not size:
            return memoryview(b"")
        client = self._opened()
        from dosna.io.s3.errors import Failure

        try:
            got = client.get(f"{self.bucket}/{self.key}", (offset, offset + size))
        except Failure as failure:
            if self._pinned is not None and failure.gone:
                raise self._gone() from None
            if self._pinned is not None and failure.status == 416:
                raise self._changed(self._pinned, "fewer bytes") from None
            raise failure.error(
                f"bytes {offset} to {offset + size} of {self.location} cannot be read at "
                f"{client.endpoint}: {failure}"
            ) from None
        if self._pinned is not None and got.etag.strip('"') != known["etag"].strip('"'):
            raise self._changed(self._pinned, f"ETag {got.etag}")
        if got.etag.strip('"') != known["etag"].strip('"'):
            raise SourceChangedError(
                f"{self.location} was replaced while it was being read: read it again"
            )
        if len(got.data) != size:
            raise self._ends(offset, size)
        return got.data

    def for_each(self, work: Callable[[Any], object], items: Iterable[Any]) -> None:
        _workers.for_each(work, items, self.most_span)

    def close(self) -> None:
        self._client = None
        if self._pinned is None:
            self._found = None


def reading_error(location: str, client: S3Client, failure: Failure) -> DosnaError:
    """Return the error for an object that could not be read."""
    if failure.gone:
        return NotFound(f"{client.endpoint} has no object {location}")
    return failure.error(f"{location} cannot be read at {client.endpoint}: {failure}")


def s3_fingerprint(size: int, etag: str) -> str:
    """Return a text that distinguishes a state of an object from others.

    ETags are quoted here, because some servers and clients quote them and others do not.
    """
    return f'size {size}, ETag "{etag.strip(chr(34))}"'
