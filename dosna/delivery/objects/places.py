"""The place of results: a folder, or an S3 bucket. A result is stored completely or not at all."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from dosna.errors import ConfigurationError, StorageError
from dosna.io.s3.opening import open_client
from dosna.io.s3.options import S3Options

__all__ = ["OWNER", "FolderPlace", "ObjectPlace", "S3Place", "kept_text", "open_place"]

OWNER = "dosna-delivery-state"
"""The name of the object that says which service's results these are."""

_PIECE = 1 << 20
_REQUEST = re.compile(r"[0-9a-f-]{36}")


def kept_text(path: str, text: str) -> str:
    """Write a text into a file, if there is no such file; return what the file has."""
    if not os.path.exists(path):
        with tempfile.NamedTemporaryFile("w", dir=os.path.dirname(path)) as new:
            new.write(text)
            new.flush()
            # At once, so that it is never there without its text.
            with suppress(FileExistsError):
                os.link(new.name, path)
    return Path(path).read_text()


class ObjectPlace(ABC):
    """The place of results, which workers in other processes also use."""

    @abstractmethod
    def check(self) -> None:
        """Raise an error of dosna if the place cannot be used."""

    @abstractmethod
    def claim(self, owner: str) -> str:
        """Make this the place of a service, if it is nobody's yet; return whose it is.

        Parameters
        ----------
        owner : str
            The identifier of the service's state.
        """

    @abstractmethod
    def put(self, request: str, name: str, path: str) -> None:
        """Move a file to the results, replacing one with the same name.

        Raises
        ------
        StorageError
            The place failed. The result is either stored completely or not at all.
        """

    @abstractmethod
    def path(self, request: str, name: str) -> str | None:
        """Return the path of a result, if it is a local file."""

    @abstractmethod
    def read(self, request: str, name: str, start: int, stop: int) -> Generator[bytes]:
        """Yield the bytes of a range of a result.

        Raises
        ------
        StorageError
            The place failed, or has no such result.
        """

    @abstractmethod
    def delete(self, request: str, name: str | None = None) -> None:
        """Delete a result of a request, or all of its results, if they exist."""

    @abstractmethod
    def requests(self) -> Iterator[str]:
        """Yield the requests that have results."""


class FolderPlace(ObjectPlace):
    """A folder with a folder for each request.

    Parameters
    ----------
    folder : str
        The path of the folder, which is created.
    """

    def __init__(self, folder: str) -> None:
        self.folder = os.path.abspath(folder)

    def check(self) -> None:
        try:
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{self.folder} cannot be used for results: {error}") from None

    def claim(self, owner: str) -> str:
        marker = os.path.join(self.folder, OWNER)
        try:
            return kept_text(marker, owner)
        except OSError as error:
            raise StorageError(f"{marker} cannot be used: {error}") from None

    def put(self, request: str, name: str, path: str) -> None:
        target = Path(self.folder, request, name)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.replace(path, target)
            except OSError:
                # The file is on another file system.
                unfinished = target.with_name(f".{name}.{os.getpid()}")
                shutil.copyfile(path, unfinished)
                os.replace(unfinished, target)
        except OSError as error:
            raise StorageError(f"the result {target} cannot be written: {error}") from error

    def path(self, request: str, name: str) -> str | None:
        return os.path.join(self.folder, request, name)

    def read(self, request: str, name: str, start: int, stop: int) -> Generator[bytes]:
        try:
            with open(os.path.join(self.folder, request, name), "rb") as file:
                file.seek(start)
                while start < stop and (piece := file.read(min(_PIECE, stop - start))):
                    start += len(piece)
                    yield piece
        except OSError as error:
            raise StorageError(f"a result cannot be read: {error}") from error

    def delete(self, request: str, name: str | None = None) -> None:
        if name is None:
            shutil.rmtree(os.path.join(self.folder, request), ignore_errors=True)
        else:
            with suppress(OSError):
                os.unlink(os.path.join(self.folder, request, name))

    def requests(self) -> Iterator[str]:
        with suppress(FileNotFoundError), os.scandir(self.folder) as found:
            yield from sorted(entry.name for entry in found if _REQUEST.fullmatch(entry.name))


class S3Place(ObjectPlace):
    """A prefix of an S3 bucket, with objects ``prefix/REQUEST/NAME``.

    Parameters
    ----------
    url : str
        The bucket and the prefix, as ``s3://bucket/prefix``.
    options : S3Options
        The options of the server.
    """

    def __init__(self, url: str, options: S3Options) -> None:
        self.bucket, _, prefix = url.removeprefix("s3://").partition("/")
        self.prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""
        self.options = options
        self._client: Any = None
        if not self.bucket:
            raise ConfigurationError(f"{url!r} names no bucket: use s3://bucket/prefix")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_client": None}

    def _call(self, operation: str, **arguments: Any) -> Any:
        if self._client is None:
            self._client = open_client(self.options, "results in S3")
        from dosna.io.s3.errors import Failure

        try:
            return self._client.call(operation, Bucket=self.bucket, **arguments)
        except Failure as failure:
            error = failure.error(f"results in s3://{self.bucket}: {operation} failed: {failure}")
        except (OSError, RuntimeError) as failure:
            error = StorageError(f"results in s3://{self.bucket}: {operation} failed: {failure}")
        raise error

    def _key(self, request: str, name: str = "") -> str:
        return f"{self.prefix}{request}/{name}"

    def check(self) -> None:
        self._call("head_bucket")

    def claim(self, owner: str) -> str:
        key = self.prefix + OWNER
        if not self._call("list_objects_v2", Prefix=key).get("Contents"):
            self._call("put_object", Key=key, Body=owner.encode())
        found = self._call("get_object", Key=key)["Body"].read()
        return bytes(found).decode(errors="replace")

    def put(self, request: str, name: str, path: str) -> None:
        self._call("upload_file", Key=self._key(request, name), Filename=path)

    def path(self, request: str, name: str) -> str | None:
        return None

    def read(self, request: str, name: str, start: int, stop: int) -> Generator[bytes]:
        found = self._call(
            "get_object", Key=self._key(request, name), Range=f"bytes={start}-{stop - 1}"
        )
        try:
            # A connection with a rest that nobody reads cannot be used again.
            with closing(found["Body"]) as body:
                yield from body.iter_chunks(_PIECE)
        except Exception as error:
            raise StorageError(f"a result cannot be read: {type(error).__name__}") from error

    def delete(self, request: str, name: str | None = None) -> None:
        if name is not None:
            self._call("delete_object", Key=self._key(request, name))
            return
        while True:
            page = self._call("list_objects_v2", Prefix=self._key(request))
            for found in page.get("Contents", []):
                self._call("delete_object", Key=found["Key"])
            if not page.get("IsTruncated"):
                return

    def requests(self) -> Iterator[str]:
        more: dict[str, Any] = {}
        while True:
            page = self._call("list_objects_v2", Prefix=self.prefix, Delimiter="/", **more)
            for found in page.get("CommonPrefixes", []):
                name = found["Prefix"].removeprefix(self.prefix).rstrip("/")
                if _REQUEST.fullmatch(name):
                    yield name
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}


def open_place(where: str, endpoint_url: str | None = None) -> ObjectPlace:
    """Return the place of results at a folder or ``s3://bucket/prefix``.

    Parameters
    ----------
    where : str
        The folder or URL.
    endpoint_url : str, optional
        The URL of the S3 server.
    """
    if where.startswith("s3://"):
        return S3Place(where, S3Options(endpoint_url=endpoint_url))
    if "://" in where:
        raise ConfigurationError(f"results cannot be kept in {where}: use a folder or s3://bucket")
    return FolderPlace(where)
