"""The files of a bucket or a folder: listed page by page, and opened."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from dosna.errors import ConfigurationError, StorageError
from dosna.io.bytefile import ByteFile, MemoryFile
from dosna.io.local import LocalFile, local_fingerprint
from dosna.io.s3.opening import open_client
from dosna.io.s3.options import S3Options
from dosna.io.s3file import S3File, reading_error, s3_fingerprint
from dosna.loader.config import Config

if TYPE_CHECKING:
    from dosna.io.s3.client import S3Client

__all__ = ["Bucket", "Entry", "open_bucket"]

PAGE = 1000
_WHOLE_BYTES = 4 << 20
"""The largest size of a file that is read by one request."""


@dataclass(frozen=True)
class Entry:
    """A file as it was listed.

    Parameters
    ----------
    key : str
        The name in the bucket.
    size : int
        The size in bytes.
    etag : str
        A text that tells this state of the file from others.
    """

    key: str
    size: int
    etag: str


class Bucket(ABC):
    """The place where the files are.

    Parameters
    ----------
    config : Config
        A configuration, of which `src_bucket`, `src_prefix` and `src_suffix` are used.
    """

    location: str
    """The path or the URL of the whole bucket."""

    def __init__(self, config: Config) -> None:
        self.prefix = config.src_prefix or ""
        self.suffix = config.src_suffix or ""

    def connect(self) -> None:  # noqa: B027  a folder needs no connection
        """Prepare for opening files, which takes as long as some of them."""

    def pages(self) -> Iterator[list[Entry]]:
        """Yield lists of at most a thousand files each; no more are held in memory."""
        for page in self._pages():
            chosen = [entry for entry in page if self._is_wanted(entry.key)]
            if chosen:
                yield chosen

    def _is_wanted(self, key: str) -> bool:
        return key.startswith(self.prefix) and key.endswith(self.suffix)

    @abstractmethod
    def _pages(self) -> Iterator[list[Entry]]: ...

    def url(self, key: str) -> str:
        """Return the path or the URL of a file."""
        return f"{self.location}/{key}"

    @abstractmethod
    def open(self, key: str, size: int, whole: bool = True) -> ByteFile:
        """Open a file of about `size` bytes; read a small one at once if `whole`.

        Raises
        ------
        SourceNotFoundError
            The file does not exist any more.
        """

    @abstractmethod
    def entry(self, key: str, file: ByteFile) -> Entry:
        """Return the entry that a listing would have for an open file.

        Raises
        ------
        SourceNotFoundError, SourceChangedError
            The file does not exist any more, or another is in its place.
        """


class FolderBucket(Bucket):
    """A folder with all files below it."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.location = os.path.abspath(config.src_bucket.removeprefix("file://"))

    def _pages(self) -> Iterator[list[Entry]]:
        if not os.path.isdir(self.location):
            raise StorageError(
                f"src_bucket {self.location} cannot be listed: there is no such folder. Create "
                "it, or correct src_bucket"
            )
        found = self._below(self.location, "")
        while page := list(islice(found, PAGE)):
            yield page

    def _below(self, path: str, within: str) -> Iterator[Entry]:
        with os.scandir(path) as listed:
            for item in listed:
                key = within + item.name
                # Files come and go while they are listed.
                with suppress(FileNotFoundError, UnicodeEncodeError):
                    key.encode()
                    if item.is_dir(follow_symlinks=False):
                        yield from self._below(item.path, key + "/")
                    elif item.is_file():
                        status = item.stat()
                        yield Entry(key, status.st_size, local_fingerprint(status))

    def open(self, key: str, size: int, whole: bool = True) -> ByteFile:
        return LocalFile(self.url(key))

    def entry(self, key: str, file: ByteFile) -> Entry:
        size = file.size  # opens it, so that the state is that of the bytes to be read
        return Entry(key, size, file.fingerprint())


class S3Bucket(Bucket):
    """A bucket of an S3 server."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.name = config.src_bucket.removeprefix("s3://").rstrip("/")
        if not self.name or "/" in self.name:
            raise ConfigurationError(
                f"src_bucket {config.src_bucket!r} is not the name of a bucket: give the name "
                "alone, and the beginning of keys as src_prefix"
            )
        self.location = f"s3://{self.name}"
        self.options = S3Options(
            config.aws_s3_gateway, region_name=config.aws_region, keys=config.s3_keys
        )
        self._client: S3Client | None = None
        self._lock = threading.Lock()

    @property
    def client(self) -> S3Client:
        """The client, shared by all threads."""
        with self._lock:
            if self._client is None:
                self._client = open_client(self.options, self.location)
            return self._client

    def connect(self) -> None:
        _ = self.client

    def _pages(self) -> Iterator[list[Entry]]:
        for page in self.client.listed(self.name, self.prefix, f"bucket {self.name!r}"):
            yield [
                Entry(found["Key"], int(found["Size"]), found["ETag"].strip('"'))
                for found in page.get("Contents", ())
                if not found["Key"].endswith("/")
            ]

    def open(self, key: str, size: int, whole: bool = True) -> ByteFile:
        url = self.url(key)
        if size > _WHOLE_BYTES or not whole:
            return S3File(url, self.options)
        from dosna.io.s3.errors import Failure

        try:
            got = self.client.get(f"{self.name}/{key}")
        except Failure as failure:
            raise reading_error(url, self.client, failure) from None
        return MemoryFile(url, got.data, s3_fingerprint(len(got.data), got.etag))

    def entry(self, key: str, file: ByteFile) -> Entry:
        etag = file.fingerprint().partition("ETag")[2].strip(' "')
        return Entry(key, file.size, etag)


def open_bucket(config: Config) -> Bucket:
    """Return the bucket or the folder that the configuration names.

    Raises
    ------
    ConfigurationError
        The configuration names none.
    """
    config.require("src_bucket")
    return FolderBucket(config) if config.in_folder else S3Bucket(config)
