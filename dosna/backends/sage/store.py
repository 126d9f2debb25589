"""A store of bytes with compare-and-swap, in objects and an index of Motr.

A key such as ``entry/tomo/c/0/1`` is the object ``c/0/1`` of the dataset ``entry/tomo``. One
index, the catalogue, holds everything that is known about it: see `dosna.backends.sage.records`.

Bytes are never overwritten. A change writes them to a new object of Motr, whose id consists of
the dataset's id and a number that was never used. It then makes the entry of the next generation
by an insert that does not overwrite, so that one of several writers succeeds. The newest entry,
which is the first in the order of keys, is the valid one. The writer that succeeded deletes older
entries and their objects. Each entry names those before it. So a late writer, which made the
entry of a generation that was already deleted, finds this out. A deleted object leaves an entry
that says so, until the dataset is deleted.

Motr dates each change by the clock of the client. It passes over a change that is older than the
present record, and does not report this. Hence every insert is read back, and also every
deletion that matters.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import ClassVar, TypeVar

from dosna.backends.sage.records import (
    DOCUMENT,
    LAST_GENERATION,
    TOKEN_BYTES,
    Entry,
    Keys,
    Motr,
    ObjectId,
    parse,
    slot,
    split,
)
from dosna.backends.stores.store import ABSENT, Blob, ByteRange, Store, VersionConflict
from dosna.errors import DosnaError, OutcomeUnknown, StorageError, StoreTimeoutError
from dosna.io.parallel import Workers

__all__ = ["MOST_IN_ENTRY", "SageStore"]

T = TypeVar("T")

MOST_IN_ENTRY = 8000
"""The most bytes of metadata kept in the catalogue; Motr's servers take values of twice that."""

_IN_FLIGHT = 8
_BYTES_IN_FLIGHT = 64 << 20
_MOST_ATTEMPTS = 1000
_MOST_ANCESTORS = 64
_PAGE = 64
_LONG_PAGE = 512  # of short records, many of which may be deleted
_MOST_DATASETS = 2**32 - 1


class SageStore(Store):
    """A store of bytes by key in Motr.

    Deleting the object ``zarr.json`` of a dataset deletes everything of the dataset.

    Parameters
    ----------
    motr : Motr
        The client of Motr.
    namespace : str
        The name of a set of keys, which other namespaces do not share.
    """

    shared_between_processes = True
    schedules_requests = True
    conditional_puts = True
    deletes_at_once = _PAGE  # by several threads

    patience: ClassVar[float] = 10.0
    """The seconds that the clock of a client may be behind that of another."""

    def __init__(self, motr: Motr, namespace: str) -> None:
        self.motr = motr
        self._names = b"n" + namespace.encode() + b"\0"
        self._ids: dict[str, int] = {}
        self._notes: dict[int, Keys] = {}
        self._notes_lock = threading.Lock()
        self._workers = Workers("dosna-sage", _IN_FLIGHT, _BYTES_IN_FLIGHT)

    # -- reading --------------------------------------------------------------------------

    def get(self, key: str, byte_range: ByteRange | None = None) -> Blob | None:
        root, rest = split(key)
        for _ in range(_MOST_ATTEMPTS):
            known = self._ids.get(root)
            dataset = self._look_up(root) if known is None else known
            if dataset is None:
                return None
            entry = self._newest(dataset, rest)
            if entry is None or entry.kind == b"d":
                if known is None:
                    return None
                # The dataset may have been deleted and created again under another id.
                self._ids.pop(root, None)
                continue
            start, stop = _bounds(byte_range, entry)
            if entry.kind == b"i":
                return Blob(entry.data[start:stop], entry.version, None, len(entry.data))
            data = self._read(entry, start, stop)
            # A writer that replaces an object deletes it, so the bytes are valid only if the
            # object was not replaced meanwhile.
            now = self._newest(dataset, rest)
            if now is None or now.token != entry.token:
                continue
            if data is None:
                raise StorageError(
                    f"object {key!r} is in the catalogue, but Motr has no object "
                    f"{entry.oid.dataset:#x}:{entry.oid.number:#x}: it was lost; restore it from "
                    "a copy, or delete it to have fill values"
                )
            return Blob(data, entry.version, entry.data.decode() or None, entry.nbytes)
        raise _too_many(key)

    def _read(self, entry: Entry, start: int, stop: int) -> memoryview | None:
        if start >= stop:
            return memoryview(b"")
        block = self.motr.block
        first = start // block * block
        data = self.motr.read(entry.oid, first, -(-stop // block) * block)
        return None if data is None else memoryview(data)[start - first : stop - first]

    # -- writing --------------------------------------------------------------------------

    def put(self, key: str, data: bytes, expected: str | None = None) -> None:
        self.put_marked(key, data, expected, None)

    def put_marked(self, key: str, data: bytes, expected: str | None, mark: str | None) -> None:
        root, rest = split(key)
        for _ in range(_MOST_ATTEMPTS):
            known = self._ids.get(root)
            if known is None and expected:
                known = self._look_up(root)
                if known is None:
                    raise _conflict(key, expected)
            dataset = self._make_id(root) if known is None else known
            base = self._newest(dataset, rest)
            found = ABSENT if base is None else base.version
            if expected is not None and found != expected:
                self._look_up(root)  # so that the next look is at the present dataset
                raise _conflict(key, expected)
            if self._replace(root, dataset, rest, base, data, mark):
                return
            if expected is not None:
                raise _conflict(key, expected)
        raise _too_many(key)

    def delete(self, key: str) -> bool:
        root, rest = split(key)
        for _ in range(_MOST_ATTEMPTS):
            dataset = self._look_up(root)
            base = None if dataset is None else self._newest(dataset, rest)
            if dataset is None or base is None or base.kind == b"d":
                return False
            if rest == DOCUMENT:
                self._delete_all(root, dataset)
                return True
            if self._replace(root, dataset, rest, base, None):
                return True
        raise _too_many(key)

    def _replace(
        self,
        root: str,
        dataset: int,
        rest: str,
        base: Entry | None,
        data: bytes | None,
        mark: str | None = None,
    ) -> bool:
        """Make the entry after `base`.

        Return False, without a change, if another writer made it or the dataset is gone.
        """
        generation, ancestors = 1, tuple[bytes, ...]()
        if base is not None:
            generation = base.generation + 1
            ancestors = (base.token, *base.ancestors)[:_MOST_ANCESTORS]
        entry = Entry(generation, secrets.token_bytes(TOKEN_BYTES), ancestors, b"d")
        if data is None:
            return self._publish(root, dataset, rest, entry)
        if not data or (rest == DOCUMENT and len(data) <= MOST_IN_ENTRY):
            entry = entry._replace(kind=b"i", data=bytes(data))
            return self._publish(root, dataset, rest, entry)
        notes = self._notes.setdefault(dataset, [])
        try:
            note = notes.pop()
        except IndexError:
            note = b"p" + dataset.to_bytes(4) + secrets.token_bytes(TOKEN_BYTES)
        oid = self._write(dataset, data, note)
        place = entry._replace(kind=b"o", oid=oid, nbytes=len(data), data=(mark or "").encode())
        done = self._publish(root, dataset, rest, place)
        # A failure leaves the note, by which the object is found when the dataset is deleted.
        with self._notes_lock:
            if done and self._notes.get(dataset) is notes:
                notes.append(note)
                return True
        self.motr.discard([note])  # The dataset may be deleted, and its notes with it.
        return done

    def _write(self, dataset: int, data: bytes, note: bytes) -> ObjectId:
        """Write a new object, after a note of its id."""
        padded = data + bytes(-len(data) % self.motr.block)
        try:
            while True:
                oid = ObjectId(dataset, secrets.randbits(64))
                self.motr.replace(note, oid.number.to_bytes(8))
                if self.motr.create(oid, padded):
                    return oid
        except OutcomeUnknown as error:
            raise StoreTimeoutError(f"{error}; the object is unchanged") from error

    def _publish(self, root: str, dataset: int, rest: str, entry: Entry) -> bool:
        """Make an entry; return False, and leave nothing of it, if it is not valid."""
        key = slot(dataset, rest, entry.generation)
        if not self.motr.insert(key, entry.encode()):
            self._remove(entry)
            return False
        # From here on, others may have seen the change.
        try:
            slots = self._slots(dataset, rest)
            counts = self._is_ancestor(entry, slots[0] if slots else None)
            alive = self._look_up(root) == dataset
        except DosnaError as error:
            raise OutcomeUnknown(
                f"object {rest!r} of {root!r} was written, and may be valid or not: {error}"
            ) from error
        if not counts or not alive:
            self._remove(entry)
            # Marks of deletion may hide an entry of a dataset that is gone.
            if not alive or any(s.token == entry.token for s in slots):
                self.motr.discard([key])
            return False
        with suppress(DosnaError):  # The entry is valid; the next writer deletes the remains.
            old = [s for s in slots if s.generation < entry.generation]
            for other in old:
                self._remove(other)
            if old:
                self.motr.discard([slot(dataset, rest, other.generation) for other in old])
        return True

    def _is_ancestor(self, entry: Entry, newest: Entry | None) -> bool:
        """Return True if all later changes were made on top of an entry.

        The newest entry is never deleted while its dataset exists. So a late entry, whose
        generation existed and was deleted, has a newer one above it.
        """
        if newest is None or newest.generation <= entry.generation:
            return newest is not None and newest.token == entry.token
        between = newest.generation - entry.generation - 1
        if between >= len(newest.ancestors):
            raise StorageError(f"{between} others have changed it since")
        return newest.ancestors[between] == entry.token

    def _remove(self, entry: Entry) -> None:
        if entry.kind == b"o":
            self.motr.remove(entry.oid)

    # -- listing --------------------------------------------------------------------------

    def list(self, prefix: str) -> Iterator[str]:
        for root, dataset in self._around(prefix):
            start = f"{root}/" if root else ""
            for rest in self._objects(dataset, prefix[len(start) :]):
                yield start + rest
        for root, dataset in self._roots(prefix):
            for rest in self._objects(dataset, ""):
                yield f"{root}/{rest}" if root else rest

    def folders(self, prefix: str) -> Iterator[str]:
        seen = set()
        names = [root[len(prefix) :] + "/" for root, _ in self._roots(prefix) if root]
        for root, dataset in self._around(prefix):
            start = len(root) + 1 if root else 0
            names += [r[len(prefix) - start :] for r in self._objects(dataset, prefix[start:])]
        if not prefix:
            outermost = self._look_up("")
            names += [] if outermost is None else self._objects(outermost, "")
        for name in names:
            folder, slash, _ = name.partition("/")
            if slash and folder not in seen:
                seen.add(folder)
                yield folder

    def _around(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield the names and ids of the datasets whose names end before `prefix` does."""
        ends = [at for at, letter in enumerate(prefix) if letter == "/"]
        for root in [prefix[:at] for at in ends] + ([""] if prefix else []):
            dataset = self._look_up(root)
            if dataset is not None:
                yield root, dataset

    def _roots(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield the names and ids of the datasets whose names begin with `prefix`."""
        for key, value in self._scan(self._names + prefix.encode(), _LONG_PAGE):
            yield key[len(self._names) :].decode(), int.from_bytes(value)

    def _objects(self, dataset: int, prefix: str) -> Iterator[str]:
        start = b"k" + dataset.to_bytes(4)
        last = None
        for key, value in self._scan(start + prefix.encode()):
            rest, generation = parse(key)
            if rest != last:
                last = rest
                if Entry.decode(generation, value).kind != b"d":
                    yield rest

    def _scan(self, prefix: bytes, most: int = _PAGE) -> Iterator[tuple[bytes, bytes]]:
        start: bytes | None = prefix
        while start is not None and start.startswith(prefix):
            page, start = self.motr.following(start, most)
            yield from [(key, value) for key, value in page if key.startswith(prefix)]

    # -- entries --------------------------------------------------------------------------

    def _newest(self, dataset: int, rest: str) -> Entry | None:
        slots = self._slots(dataset, rest, 1)
        return slots[0] if slots else None

    def _slots(self, dataset: int, rest: str, most: int = 8) -> tuple[Entry, ...]:
        """Return entries of an object, the newest first."""
        start = slot(dataset, rest, LAST_GENERATION)
        # No deleted entry is newer than the newest one, unless all entries are deleted.
        found, _ = self.motr.following(start, most)
        mine = [(key, value) for key, value in found if key[:-8] == start[:-8]]
        return tuple([Entry.decode(parse(key)[1], value) for key, value in mine])

    # -- ids of datasets ------------------------------------------------------------------

    def _look_up(self, root: str) -> int | None:
        found = self.motr.lookup(self._names + root.encode())
        if found is None:
            self._ids.pop(root, None)
            return None
        self._ids[root] = int.from_bytes(found)
        return self._ids[root]

    def _make_id(self, root: str) -> int:
        """Return the id of a dataset, and make one if it has none."""
        name = self._names + root.encode()
        for _ in self._tries(f"giving {root!r} an id"):
            found = self._look_up(root)
            if found is not None:
                return found
            dataset = 1 + secrets.randbelow(_MOST_DATASETS)
            own = b"d" + dataset.to_bytes(4)
            token = secrets.token_bytes(TOKEN_BYTES)
            if self.motr.insert(own, token + name) and self.motr.lookup(own) == token + name:
                self.motr.insert(name, dataset.to_bytes(4))
                if self._look_up(root) == dataset:
                    return dataset
                self.motr.discard([own])
        raise AssertionError

    def _delete_all(self, root: str, dataset: int) -> None:
        """Delete a dataset.

        If the process dies meanwhile, another deletion finds the remains.
        """
        self._sweep(dataset, keep=DOCUMENT)
        for _ in self._tries(f"deleting {root!r}"):
            if self._look_up(root) != dataset:
                break
            self.motr.discard([self._names + root.encode()])
        # A writer that made an entry before this looks for the name afterwards, and withdraws.
        for _ in self._tries(f"deleting what dataset {dataset:#x} of {root!r} had"):
            if not self._sweep(dataset):
                break
        with self._notes_lock:
            notes = self._notes.pop(dataset, [])
        self.motr.discard([b"d" + dataset.to_bytes(4), *notes])

    def _sweep(self, dataset: int, keep: str | None = None) -> int:
        """Delete the objects and entries of a dataset; return the number of records."""
        count = 0
        for kind in (b"p", b"k"):
            gone: Keys = []
            for key, value in self._scan(kind + dataset.to_bytes(4)):
                if kind == b"p":
                    self.motr.remove(ObjectId(dataset, int.from_bytes(value)))
                else:
                    rest, generation = parse(key)
                    if rest == keep:
                        continue
                    self._remove(Entry.decode(generation, value))
                gone.append(key)
                if len(gone) == _PAGE:
                    self.motr.discard(gone)
                    count += len(gone)
                    gone = []
            if gone:
                self.motr.discard(gone)
                count += len(gone)
        return count

    def _tries(self, what: str) -> Iterator[None]:
        """Yield for each attempt, the first at once and others after pauses; the caller ends it.

        Raise StorageError when an attempt ends after the time of `patience`.
        """
        end = time.monotonic() + self.patience
        pause = 0.0
        while True:
            yield
            if time.monotonic() > end:
                raise StorageError(
                    f"{what} had no effect in {self.patience} seconds: Motr orders changes by the "
                    "clocks of its clients, and that of another is ahead of this one's. Set them"
                )
            time.sleep(pause)
            pause = min(1.0, 2 * pause + 0.001)

    def for_each(self, work: Callable[[T], object], items: Iterable[T], nbytes: int = 0) -> None:
        self.motr.check_process()  # The threads of the workers do not survive a fork either.
        self._workers.for_each(work, items, nbytes)

    def close(self) -> None:
        self._workers.close()
        notes = [note for notes in self._notes.values() for note in notes]
        self._notes.clear()
        with suppress(DosnaError):
            for at in range(0, len(notes), _PAGE):
                self.motr.discard(notes[at : at + _PAGE])
        self.motr.close()


def _bounds(byte_range: ByteRange | None, entry: Entry) -> tuple[int, int]:
    nbytes = entry.nbytes if entry.kind == b"o" else len(entry.data)
    return slice(*(byte_range or (0, None))).indices(nbytes)[:2]


def _conflict(key: str, expected: str) -> VersionConflict:
    return VersionConflict(f"{key!r} no longer has version {expected!r}")


def _too_many(key: str) -> StorageError:
    return StorageError(
        f"object {key!r} changed {_MOST_ATTEMPTS} times while it was being read or written: too "
        "many writers on one object"
    )
