"""The stored objects of a dataset, as they are, for programs that read Zarr."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dosna.backends.stores.store import Blob, ByteRange
from dosna.backends.zarrobjects import ZarrFile, ZarrObject, ZarrObjects, in_grid
from dosna.core.text import is_text
from dosna.core.types import Shape

if TYPE_CHECKING:
    from dosna.backends.stores.watching import WatchedDataset

__all__ = ["StoredObjects"]

_MOST_ATTEMPTS = 10
_MOST_UNSEEN = 1 << 26


class StoredObjects(ZarrObjects):
    """The objects of a dataset that is stored as Zarr.

    Parameters
    ----------
    dataset : WatchedDataset
        The dataset.
    on_own_disk : bool
        True if the objects are files on a disk of this machine.
    """

    def __init__(self, dataset: WatchedDataset, on_own_disk: bool = False) -> None:
        self.on_own_disk = on_own_disk
        self._dataset = dataset
        meta = dataset.metadata
        self.most_bytes = None
        if not is_text(meta.dtype):
            # Compression may make them larger, by less than half.
            self.most_bytes = 3 * math.prod(dataset.layout.grain) * meta.dtype.itemsize // 2

    def document(self) -> bytes:
        return self._dataset.read_document()

    def index(self, key: str) -> Shape | None:
        dataset = self._dataset
        idx = dataset.layout.index(key)
        if idx is None or not in_grid(idx, dataset.metadata.shape, dataset.layout.grain):
            return None
        return idx

    def get(
        self, idx: Shape, start: int | None = None, stop: int | None = None
    ) -> ZarrObject | None:
        dataset = self._dataset
        key = dataset.key(idx)
        for _ in range(_MOST_ATTEMPTS):
            byte_range = self._range(key, start, stop)
            if byte_range is not None and byte_range[0] == byte_range[1]:
                return self.stat(idx)
            blob = dataset.store.get(key, byte_range)
            if blob is None:
                dataset.check_absent([idx])  # which raises unless it was never written
                return None
            dataset.vouch(idx, blob)
            if byte_range is None:
                return self._found(blob, len(blob.data))
            if blob.size is not None:
                return self._found(blob, blob.size)
            whole = dataset.store.stat(key)
            if whole is not None and whole.version == blob.version:
                return self._found(blob, whole.size)
        raise dataset.damaged(idx, "it changes all the time")

    def open(self, idx: Shape) -> ZarrFile | None:
        return self._dataset.open_object(idx) if self.on_own_disk else None

    def stat(self, idx: Shape) -> ZarrObject | None:
        found = self._dataset.store.stat(self._dataset.key(idx))
        if found is None:
            self._dataset.check_absent([idx])
            return None
        return ZarrObject(b"", found.size, self._dataset.lasting_version(found.version))

    def _range(self, key: str, start: int | None, stop: int | None) -> ByteRange | None:
        """Return a range as stores take it."""
        if not start and stop is None:
            return None
        if start is not None and start < 0:
            return start, None
        start = start or 0
        if stop is None or stop - start > _MOST_UNSEEN:
            # Some clients allocate what is asked for.
            found = self._dataset.store.stat(key)
            size = 0 if found is None else found.size
            stop = size if stop is None else min(stop, size)
        return start, max(stop, start)

    def _found(self, blob: Blob, size: int) -> ZarrObject:
        return ZarrObject(blob.data, size, self._dataset.lasting_version(blob.version))
