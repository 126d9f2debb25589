"""Bytes of a file, local or in S3: read anywhere, by several threads at a time."""

from __future__ import annotations

import io
import os
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

from dosna.backends.parts import PIECE
from dosna.errors import (
    ConfigurationError,
    MissingDependencyError,
    SourceChangedError,
    SourceError,
)
from dosna.errors import SourceNotFoundError as NotFound
from dosna.locks import Descriptor, open_descriptor

if TYPE_CHECKING:
    from dosna.backends.s3_client import S3Client

__all__ = [
    "ByteFile",
    "LocalFile",
    "MemoryFile",
    "S3File",
    "S3Options",
    "foreign_format",
    "open_bytes",
    "s3_fingerprint",
]

_CACHE_BLOCK = 1 << 18
_CACHE_BLOCKS = 128
_IN_FLIGHT = 8
_SUBMITTED = 1024


class ByteFile(ABC):
    """Bytes that do not change. May be pickled, and is then opened again."""

    location: str

    most_span: ClassVar[int] = 0
    """Bytes that one request may be for, to get several parts; 0 where requests cost nothing."""

    range_bytes: ClassVar[int] = PIECE
    """Bytes that one more request should save."""

    @abstractmethod
    def pin(self, fingerprint: str) -> None:
        """Hold it to a state: to read another one is a SourceChangedError."""

    @property
    @abstractmethod
    def size(self) -> int:
        """How many bytes there are."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Tell this state of the file from another."""

    @abstractmethod
    def read(self, offset: int, size: int) -> bytes | memoryview:
        """Read bytes; SourceError if the file ends before."""

    def read_into(self, offset: int, out: memoryview) -> None:
        """Read as many bytes as `out` has."""
        out[:] = self.read(offset, len(out))

    def for_each(self, work: Callable[[Any], object], items: Iterable[Any]) -> None:
        """Do work that reads, for one item after the other or for several at a time."""
        for item in items:
            work(item)

    def stream(self) -> io.RawIOBase | io.BufferedIOBase:
        """Give a file object, for libraries that want one."""
        return CachedReader(self)

    @abstractmethod
    def close(self) -> None:
        """Let go of it; it is opened again when it is used."""

    def _ends(self, offset: int, size: int) -> SourceError:
        return SourceError(
            f"{self.location} is truncated: bytes {offset} to {offset + size} are not all there; "
            "copy the file again"
        )

    def _changed(self, pinned: str, found: str) -> SourceChangedError:
        return SourceChangedError(
            f"{self.location} has changed since it was linked: then it was of {pinned}, and now "
            f"it is of {found}; restore it, or link it again with overwrite=True"
        )

    def _gone(self) -> NotFound:
        return NotFound(
            f"{self.location} is gone, which was linked: restore it, or delete what links to it"
        )


class LocalFile(ByteFile):
    """A file of this machine.

    Parameters
    ----------
    path : str
    """

    def __init__(self, path: str) -> None:
        self.location = path
        self._file: Descriptor | None = None
        self._pinned: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}

    def pin(self, fingerprint: str) -> None:
        self._pinned = fingerprint

    def _opened(self) -> Descriptor:
        file = self._file
        if file is None:
            try:
                file = self._file = open_descriptor(self.location, os.O_RDONLY)
            except FileNotFoundError:
                if self._pinned is not None:
                    raise self._gone() from None
                raise NotFound(f"there is no file {self.location}") from None
            except OSError as error:
                raise self._failed("opened", error) from error
        return file

    def _failed(self, how: str, error: OSError) -> SourceError:
        return SourceError(
            f"{self.location} cannot be {how}: {error.strerror}. Check the file and the disk"
        )

    @property
    def size(self) -> int:
        return os.fstat(self._opened()).st_size

    def fingerprint(self) -> str:
        # Of the path and not of what is open: it may have been replaced.
        try:
            status = os.stat(self.location)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"there is no file {self.location}") from None
        except OSError as error:
            raise self._failed("looked up", error) from error
        if self._file is not None and not os.path.samestat(status, os.fstat(self._file)):
            raise SourceChangedError(
                f"{self.location} was replaced since it was opened: open it again"
            )
        return _state(status)

    def read(self, offset: int, size: int) -> bytes | memoryview:
        try:
            data = os.pread(self._opened(), size, offset)
        except OSError as error:
            raise self._failed("read", error) from error
        if len(data) == size and self._as_pinned():
            return data
        again = memoryview(bytearray(size))
        self.read_into(offset, again)
        return again

    def read_into(self, offset: int, out: memoryview) -> None:
        while True:
            file, done, count = self._opened(), 0, 1
            while done < len(out) and count:
                try:
                    count = os.preadv(file, [out[done:]], offset + done)
                except OSError as error:
                    raise self._failed("read", error) from error
                done += count
            if self._as_pinned():
                break
        if done < len(out):
            raise self._ends(offset, len(out))

    def _as_pinned(self) -> bool:
        """Whether what was just read is of the pinned state; False if it must be read again."""
        if self._pinned is None:
            return True
        try:
            status = os.stat(self.location)
        except (FileNotFoundError, NotADirectoryError):
            raise self._gone() from None
        except OSError as error:
            raise self._failed("looked up", error) from error
        if _state(status) != self._pinned:
            raise self._changed(self._pinned, _state(status))
        file = self._file
        if file is not None and os.path.samestat(status, os.fstat(file)):
            return True
        self._file = None  # put back, by another file of the same state
        return False

    def close(self) -> None:
        self._file = None


class MemoryFile(ByteFile):
    """All bytes of a small file, as they were when it was read.

    Parameters
    ----------
    location : str
        Where they are from.
    data : bytes or memoryview
    fingerprint : str
        Of the file that had them.
    """

    def __init__(self, location: str, data: bytes | memoryview, fingerprint: str) -> None:
        self.location = location
        self._data, self._fingerprint = bytes(data), fingerprint

    @property
    def size(self) -> int:
        return len(self._data)

    def fingerprint(self) -> str:
        return self._fingerprint

    def pin(self, fingerprint: str) -> None:
        if fingerprint != self._fingerprint:
            raise self._changed(fingerprint, self._fingerprint)

    def read(self, offset: int, size: int) -> memoryview:
        found = memoryview(self._data)[offset : offset + size]
        if len(found) != size:
            raise self._ends(offset, size)
        return found

    def stream(self) -> io.BytesIO:
        return io.BytesIO(self._data)

    def close(self) -> None:
        """Keep the bytes: there is nothing to open again."""


def _state(status: os.stat_result) -> str:
    return f"size {status.st_size}, mtime {status.st_mtime_ns}"


@dataclass(frozen=True)
class S3Options:
    """How to reach an S3 server; see `dosna.backends.s3.S3Connection`.

    It may travel; `client` makes what holds connections.
    """

    endpoint_url: str | None = None
    profile_name: str = "default"
    region_name: str | None = None
    verify: bool | str = True
    timeout: float = 30.0
    retries: int = 5
    keys: tuple[str, str] | None = field(default=None, repr=False)
    """Access key and secret key, where they do not come from the environment."""

    def portable(self) -> dict[str, Any]:
        """Give what is to be kept with what is read by them: all but the defaults, no secrets.

        Raises
        ------
        ConfigurationError
            `endpoint_url` has a password in it.
        """
        fields = {k: v for k, v in asdict(self).items() if k != "keys"}
        kept = {k: v for k, v in fields.items() if v != getattr(S3Options, k)}
        # The environment of who reads may name none, or another.
        endpoint = self.endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3")
        endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL")
        if endpoint:
            kept["endpoint_url"] = endpoint
            if "@" in endpoint.partition("://")[2].partition("/")[0]:
                raise ConfigurationError(
                    "endpoint_url has a user or a password in it, which would be kept with what "
                    "is linked: put keys into ~/.aws/credentials or the environment"
                )
        return kept

    def client(self, what: str) -> S3Client:
        """Make a client, to read `what`."""
        try:
            from dosna.backends.s3_client import S3Client, Settings
        except ImportError as error:
            raise MissingDependencyError(
                f"reading {what} needs {error.name}: pip install 'dosna[s3]'"
            ) from error
        profile = None if self.profile_name == "default" else self.profile_name
        return S3Client(
            Settings(
                self.endpoint_url,
                profile,
                self.region_name,
                self.verify,
                self.timeout,
                self.retries,
            ),
            self.keys,
        )


@lru_cache(maxsize=16)
def _shared_client(options: S3Options, environment: tuple[tuple[str, str], ...]) -> S3Client:
    """Give the client for an environment: to make one takes longer than to read a small file."""
    return options.client("from S3")


class S3File(ByteFile):
    """An object of an S3 server.

    Parameters
    ----------
    url : str
        ``s3://bucket/key``
    options : S3Options
    client : S3Client, optional
        One that others use too, and who gave it closes; it does not travel.
    """

    most_span = 4 << 20
    range_bytes = 1 << 62

    def __init__(self, url: str, options: S3Options, client: S3Client | None = None) -> None:
        self.location = url
        self.options = options
        self.bucket, _, self.key = url.removeprefix("s3://").partition("/")
        if not self.bucket or not self.key:
            raise SourceError(f"{url!r} names no object: use s3://bucket/key")
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
        client = self._opened()  # first, for it says what is to be installed
        from dosna.backends.s3_errors import Failure

        try:
            found = client.get(f"{self.bucket}/{self.key}", head=True)
        except Failure as failure:
            if failure.gone:
                raise NotFound(f"{client.endpoint} has no object {self.location}") from None
            raise failure.error(
                f"{self.location} cannot be read at {client.endpoint}: {failure}"
            ) from None
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
        from dosna.backends.s3_errors import Failure

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
                f"{self.location} was replaced while it was being read: begin again"
            )
        if len(got.data) != size:
            raise self._ends(offset, size)
        return got.data

    def for_each(self, work: Callable[[Any], object], items: Iterable[Any]) -> None:
        waiting = iter(items)
        batch = list(islice(waiting, _SUBMITTED))
        if len(batch) == 1:
            work(batch[0])
            return
        with ThreadPoolExecutor(_IN_FLIGHT) as pool:
            while batch:
                for _ in pool.map(work, batch):
                    pass
                batch = list(islice(waiting, _SUBMITTED))

    def close(self) -> None:
        self._client = None
        if self._pinned is None:
            self._found = None


def s3_fingerprint(size: int, etag: str) -> str:
    """Tell a state of an object from others; servers and clients quote ETags, or do not."""
    return f'size {size}, ETag "{etag.strip(chr(34))}"'


def open_bytes(location: str, options: S3Options) -> ByteFile:
    """Give the file at a path or an ``s3://`` URL; it is opened when it is first used.

    Raises
    ------
    SourceError
        A URL of another kind.
    """
    if location.startswith("s3://"):
        return S3File(location, options)
    if "://" in location:
        raise SourceError(
            f"{location} cannot be read: files are read from paths and from s3:// URLs"
        )
    return LocalFile(location)


class CachedReader(io.RawIOBase):
    """A file object over a `ByteFile`, for libraries that want one; keeps some blocks."""

    def __init__(self, file: ByteFile) -> None:
        self._bytes = file
        self._position = 0
        self._blocks: OrderedDict[int, bytes | memoryview] = OrderedDict()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._bytes.size}
        self._position = start[whence] + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        out = memoryview(buffer).cast("B")
        start = self._position
        stop = min(start + len(out), self._bytes.size)
        if stop <= start:
            return 0
        if stop - start > _CACHE_BLOCK * _CACHE_BLOCKS // 4:
            self._bytes.read_into(start, out[: stop - start])
        else:
            for number in range(start // _CACHE_BLOCK, (stop - 1) // _CACHE_BLOCK + 1):
                begin = number * _CACHE_BLOCK
                first, last = max(start, begin), min(stop, begin + _CACHE_BLOCK)
                out[first - start : last - start] = self._block(number)[
                    first - begin : last - begin
                ]
        self._position = stop
        return stop - start

    def _block(self, number: int) -> bytes | memoryview:
        block = self._blocks.get(number)
        if block is None:
            begin = number * _CACHE_BLOCK
            block = self._bytes.read(begin, min(_CACHE_BLOCK, self._bytes.size - begin))
            self._blocks[number] = block
            if len(self._blocks) > _CACHE_BLOCKS:
                self._blocks.popitem(last=False)
        else:
            self._blocks.move_to_end(number)
        return block


_FOREIGN = {
    **dict.fromkeys(
        (b"CDF\x01", b"CDF\x02", b"CDF\x05"),
        "netCDF-3 classic, which is no HDF5: convert it by nccopy -k nc4 OLD.nc NEW.nc",
    ),
    b"MATLAB 5.0": "a MATLAB file of a version before 7.3, which is no HDF5: save it with -v7.3",
    b"\x0e\x03\x13\x01": "HDF4, which is no HDF5: convert it by h4toh5",
}


def foreign_format(path: str) -> str:
    """Say what a local file is that is easily taken for HDF5, and what to do; '' if unknown."""
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except OSError:
        return ""
    return next((text for start, text in _FOREIGN.items() if head.startswith(start)), "")
