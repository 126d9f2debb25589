"""Views of a store of bytes, which pass on to it what they do not change."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NoReturn, TypeVar

from dosna.backends.stores.store import (
    Answer,
    Beside,
    Blob,
    ByteRange,
    MethodCall,
    Sized,
    Stat,
    Store,
)

__all__ = ["ReadOnlyStore", "StoreView"]

T = TypeVar("T")


class StoreView(Store):
    """A view of a store, which passes everything on to it; a subclass overrides some of that.

    Parameters
    ----------
    store : Store
        The store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.shared_between_processes = store.shared_between_processes  # type: ignore[misc]
        self.schedules_requests = store.schedules_requests  # type: ignore[misc]
        self.deletes_at_once = store.deletes_at_once  # type: ignore[misc]
        self.most_ranges = store.most_ranges  # type: ignore[misc]

    @property
    def conditional_puts(self) -> bool:  # type: ignore[override]
        # On demand, because a store may have to try it out.
        return self._store.conditional_puts

    def get(self, key: str, byte_range: ByteRange | None = None) -> Blob | None:
        return self._store.get(key, byte_range)

    def stat(self, key: str) -> Stat | None:
        return self._store.stat(key)

    def list(self, prefix: str) -> Iterator[str]:
        return self._store.list(prefix)

    def folders(self, prefix: str) -> Iterator[str]:
        return self._store.folders(prefix)

    def for_each(self, work: Callable[[T], object], items: Iterable[T], nbytes: int = 0) -> None:
        self._store.for_each(work, items, nbytes)

    def locations(self, key: str) -> tuple[str, ...]:
        return self._store.locations(key)

    def can_execute(self) -> bool:
        return self._store.can_execute()

    def execute(self, calls: Sequence[MethodCall]) -> Sequence[Answer]:
        return self._store.execute(calls)

    def pages(self, prefix: str) -> Iterator[Sized] | None:
        return self._store.pages(prefix)

    def beside(self, folder: str, part: str, document: str = "") -> Beside | None:
        return self._store.beside(folder, part, document)

    def close(self) -> None:
        self._store.close()

    def put(self, key: str, data: bytes, expected: str | None = None) -> str | None:
        return self._store.put(key, data, expected)

    def put_marked(
        self, key: str, data: bytes, expected: str | None, mark: str | None
    ) -> str | None:
        return self._store.put_marked(key, data, expected, mark)

    def put_ranges(self, key: str, parts: Sequence[tuple[int, bytes]]) -> bool:
        return self._store.put_ranges(key, parts)

    def delete(self, key: str) -> bool:
        return self._store.delete(key)

    def delete_many(self, keys: Iterable[str], until: float = math.inf) -> None:
        self._store.delete_many(keys, until)


class ReadOnlyStore(StoreView):
    """A view of a store that refuses every change.

    Parameters
    ----------
    store : Store
        The store to read from.
    refuse : callable
        A function that raises the ReadOnlyError.
    """

    def __init__(self, store: Store, refuse: Callable[[], NoReturn]) -> None:
        super().__init__(store)
        self._refuse = refuse

    def put(self, key: str, data: bytes, expected: str | None = None) -> None:
        self._refuse()

    def put_marked(self, key: str, data: bytes, expected: str | None, mark: str | None) -> None:
        self._refuse()

    def put_ranges(self, key: str, parts: Sequence[tuple[int, bytes]]) -> bool:
        self._refuse()

    def delete(self, key: str) -> bool:
        self._refuse()

    def delete_many(self, keys: Iterable[str], until: float = math.inf) -> None:
        self._refuse()
