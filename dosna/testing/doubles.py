"""Stores for tests: in memory or in a folder, and wrappers that count, delay or fail."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from dosna.backends import registry as backends
from dosna.backends.base import Backend
from dosna.backends.stores.connection import (
    ABSENT,
    Blob,
    ByteRange,
    Store,
    StoreConnection,
    VersionConflict,
)
from dosna.backends.stores.store import Stat
from dosna.errors import OutcomeUnknown, StorageError

_VERSION_BYTES = 16


class MemoryStore(Store):
    """Objects in this process's memory, with versions: the reference for `StoreTests`."""

    shared_between_processes = False
    conditional_puts = True

    def __init__(self) -> None:
        self.blobs: dict[str, Blob] = {}
        self._versions = count(1)
        self._lock = threading.Lock()

    def get(self, key: str, byte_range: ByteRange | None = None) -> Blob | None:
        blob = self.blobs.get(key)
        if blob is None or byte_range is None:
            return blob
        return Blob(blob.data[slice(*byte_range)], blob.version, blob.mark, len(blob.data))

    def put(self, key: str, data: bytes, expected: str | None = None) -> str:
        return self.put_marked(key, data, expected, None)

    def put_marked(self, key: str, data: bytes, expected: str | None, mark: str | None) -> str:
        with self._lock:
            found = self.blobs[key].version if key in self.blobs else ABSENT
            if expected is not None and found != expected:
                raise VersionConflict(f"{key} has version {found!r}, not {expected!r}")
            version = str(next(self._versions))
            self.blobs[key] = Blob(bytes(data), version, mark)
            return version

    def delete(self, key: str) -> bool:
        with self._lock:
            return self.blobs.pop(key, None) is not None

    def list(self, prefix: str) -> Iterator[str]:
        return iter(sorted(key for key in list(self.blobs) if key.startswith(prefix)))


class WrappedStore(Store):
    """A store that passes every request to another one; the base of the doubles below."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.shared_between_processes = inner.shared_between_processes  # type: ignore[misc]
        self.conditional_puts = inner.conditional_puts  # type: ignore[misc]

    def request(self, kind: str, key: str, call: Callable[[], Any]) -> Any:
        """Make one request; `kind` is the name of the method."""
        return call()

    def get(self, key: str, byte_range: ByteRange | None = None) -> Blob | None:
        found: Blob | None = self.request("get", key, lambda: self.inner.get(key, byte_range))
        return found

    def stat(self, key: str) -> Stat | None:
        found: Stat | None = self.request("stat", key, lambda: self.inner.stat(key))
        return found

    def put(self, key: str, data: bytes, expected: str | None = None) -> str | None:
        put = partial(self.inner.put, key, data, expected)
        version: str | None = self.request("put", key, put)
        return version

    def put_marked(
        self, key: str, data: bytes, expected: str | None, mark: str | None
    ) -> str | None:
        put = partial(self.inner.put_marked, key, data, expected, mark)
        version: str | None = self.request("put", key, put)
        return version

    def delete(self, key: str) -> bool:
        return bool(self.request("delete", key, lambda: self.inner.delete(key)))

    def list(self, prefix: str) -> Iterator[str]:
        found: Iterator[str] = self.request("list", prefix, lambda: self.inner.list(prefix))
        return found

    def close(self) -> None:
        self.inner.close()


class CountingStore(WrappedStore):
    """A store that counts requests by kind in `requests`, and lists their keys in `log`."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.requests: Counter[str] = Counter()
        self.log: list[tuple[str, str]] = []

    def request(self, kind: str, key: str, call: Callable[[], Any]) -> Any:
        self.requests[kind] += 1
        self.log.append((kind, key))
        return call()

    def reset(self) -> None:
        """Count from zero again."""
        self.requests.clear()
        self.log.clear()


class SlowStore(WrappedStore):
    """A store that sleeps before each request, as if it were far away.

    Parameters
    ----------
    inner : Store
        The store that serves the requests.
    seconds : float
        The time to sleep.
    """

    def __init__(self, inner: Store, seconds: float) -> None:
        super().__init__(inner)
        self.seconds = seconds

    def request(self, kind: str, key: str, call: Callable[[], Any]) -> Any:
        time.sleep(self.seconds)
        return call()


class FaultyStore(WrappedStore):
    """A store that fails on demand.

    A callable ``faults(number, kind, key)`` returns a fault, or None for a request that works.
    Requests are numbered from 0. The faults are

    - 'error': nothing is done, and `StorageError` is raised;
    - 'lost': the request is done, but its answer is lost: `OutcomeUnknown` is raised for a put
      or a delete, `StorageError` otherwise;
    - a number: the request is done after so many seconds;
    - an exception: nothing is done, and the exception is raised.

    Parameters
    ----------
    inner : Store
        The store that serves the requests.
    faults : callable, optional
        The function that chooses the faults; no request fails by default.
    """

    def __init__(
        self,
        inner: Store,
        faults: Callable[[int, str, str], str | float | BaseException | None] | None = None,
    ) -> None:
        super().__init__(inner)
        self.faults = faults
        self._numbers = count()

    def request(self, kind: str, key: str, call: Callable[[], Any]) -> Any:
        fault = self.faults(next(self._numbers), kind, key) if self.faults else None
        if isinstance(fault, BaseException):
            raise fault
        if fault == "error":
            raise StorageError(f"{kind} of {key!r} failed, as it was told to")
        if isinstance(fault, (int, float)):
            time.sleep(fault)
        result = call()
        if fault == "lost":
            kind_of = OutcomeUnknown if kind in ("put", "delete") else StorageError
            raise kind_of(f"the answer to {kind} of {key!r} was lost, as it was told to be")
        return result


class FolderStore(Store):
    """Objects as files of a folder, which processes share; without conditional puts."""

    shared_between_processes = True
    conditional_puts = False

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def _path(self, key: str) -> Path:
        return self.folder / quote(key, safe="")

    def get(self, key: str, byte_range: ByteRange | None = None) -> Blob | None:
        try:
            content = self._path(key).read_bytes()
        except FileNotFoundError:
            return None
        version, data = content[:_VERSION_BYTES].decode(), content[_VERSION_BYTES:]
        return Blob(data if byte_range is None else data[slice(*byte_range)], version)

    def put(self, key: str, data: bytes, expected: str | None = None) -> None:
        found = self.get(key) or Blob(b"", ABSENT)
        if expected is not None and found.version != expected:
            raise VersionConflict(f"{key} has version {found.version!r}, not {expected!r}")
        version = secrets.token_hex(_VERSION_BYTES // 2)
        temporary = self.folder / f".{version}"
        temporary.write_bytes(version.encode() + data)
        temporary.replace(self._path(key))

    def delete(self, key: str) -> bool:
        try:
            self._path(key).unlink()
        except FileNotFoundError:
            return False
        return True

    def list(self, prefix: str) -> Iterator[str]:
        names = [n for n in os.listdir(self.folder) if not n.startswith(".")]
        return (key for key in sorted(map(unquote, names)) if key.startswith(prefix))


class MemoryConnection(StoreConnection):
    """A connection to the store that `use_store` set for its name, or to one in memory."""

    shared_between_processes = False

    def open_store(self) -> Store:
        return _stores.setdefault(self.name, MemoryStore())


class FolderConnection(StoreConnection):
    """A connection to a `FolderStore` that sleeps before each request.

    Parameters
    ----------
    name : str
        The folder.
    mode : {'a', 'r'}
        The mode: 'r' to read only.
    seconds : float
        The time to sleep before each request.
    """

    shared_between_processes = True

    def __init__(self, name: str, mode: str = "a", seconds: float = 0.0) -> None:
        super().__init__(name, mode)
        self.seconds = seconds

    def open_store(self) -> Store:
        return SlowStore(FolderStore(self.name), self.seconds)


_stores: dict[str, Store] = {}


def use_store(name: str, store: Store) -> None:
    """Make connections of backend 'memory' with a name use a store."""
    _stores[name] = store


backends.register(Backend("memory", MemoryConnection, "a store of this process, for tests"))
backends.register(Backend("folder", FolderConnection, "files of bytes, for tests"))
