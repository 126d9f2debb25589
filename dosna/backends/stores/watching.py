"""Watching whether a dataset in a store is still the one that a handle was opened on.

See docs/design/stale.md. Objects are marked with the id of their dataset and the revision of its
document, so that each object read tells which dataset it belongs to. Where that is not enough,
the document is looked at: before a write, and after a read.
"""

from __future__ import annotations

import math
import re
import threading
import time
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from dosna.backends.base import BackendDataset
from dosna.backends.stores.home import StoreHome
from dosna.backends.stores.objects import StoredObjects
from dosna.backends.stores.store import Blob, Store
from dosna.backends.zarrobjects import ZarrFile, ZarrObjects
from dosna.codecs import zarr as zarr3
from dosna.core.metadata import DatasetMetadata
from dosna.core.types import Shape, Slices
from dosna.errors import ChunkCorruptError, StaleDatasetError
from dosna.io.ranges import within

__all__ = ["WatchedDataset"]

LOOK_SECONDS = 1.0
"""Seconds for which a look at the document stays valid within one operation that writes."""


_REVISION = re.compile(r"[0-9]{1,18}")
_OWN_STATE = {
    *("layout", "_version", "_looking", "_written"),
    *("_looked", "_began", "_doubted", "_shrunk", "_continues"),
}
"""Attributes that are not pickled, because each process has its own."""


class WatchedDataset(BackendDataset):
    """A Zarr array in a store, which notices if it was deleted, replaced or resized by others."""

    connection: StoreHome

    def prepare(self) -> None:
        super().prepare()
        self.layout = zarr3.layout(self.metadata)
        self._id = zarr3.id_of(self.metadata)
        self._revision = zarr3.revision_of(self.metadata)
        self._version: str | None = None
        # What this handle has just written to the document, and the version that this has.
        self._written: tuple[DatasetMetadata, str] | None = None
        self._looking = threading.Lock()
        # Times of the monotonic clock: when the document was last looked at, when the last
        # operation that writes began, when an object without a mark was last read, and when the
        # array was last found to be smaller.
        self._looked = self._began = self._doubted = self._shrunk = -math.inf
        self._continues = False

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in super().__getstate__().items() if k not in _OWN_STATE}

    @property
    def store(self) -> Store:
        """Store that holds the objects."""
        return self.connection.store

    def key(self, idx: Shape) -> str:
        """Return the key of a stored object."""
        return f"{self.connection.root(self.name)}/{self.layout.template % idx}"

    def object_of(self, idx: Shape) -> Shape:
        """Return the index of the stored object that holds a chunk."""
        return idx

    def zarr_objects(self) -> ZarrObjects:
        return StoredObjects(self)

    def read_document(self) -> bytes:
        """Return the document of the dataset as it is stored now."""
        found = self.store.get(self.connection.document(self.name))
        self.connection.metadata_in(self.name, found)
        assert found is not None
        return bytes(found.data)

    def open_object(self, idx: Shape) -> ZarrFile | None:
        """Return the file that an object is; None if it is absent, or not a file."""
        return None

    def lasting_version(self, version: str) -> str:
        """Return the version of an object for clients that keep it; '' if it may come again."""
        return version

    def check_writable(self) -> None:
        """Begin an operation that writes. Earlier looks at the document are not valid for it."""
        super().check_writable()
        # What fills a new dataset continues the operation that has created it.
        if self._continues:
            self._began = self._looked
        else:
            self._began, self._written = time.monotonic(), None
        self._continues = False

    def note_look(self, began: float, version: str | None) -> None:
        """Note that this handle has just created the document, some time after `began`.

        `version` is the document's, if the store has told it.
        """
        self._looked = began
        if isinstance(version, str):
            self._version, self._written = version, (self.metadata, version)

    def continue_creation(self) -> None:
        self._continues = True

    def look(self) -> None:
        """Look at the document, unless this operation has done so recently enough."""
        now, looked = time.monotonic(), self._looked
        if looked >= self._began and now - looked <= LOOK_SECONDS / 2:
            return
        # While a look is still valid, one thread renews it and the others need not wait.
        due = looked < self._began or now - looked > LOOK_SECONDS
        if self._looking.acquire(blocking=due):
            try:
                if self._looked == looked:
                    self._look()
            finally:
                self._looking.release()

    def look_late(self) -> None:
        """Look at the document if a write took so long that the look before it has expired."""
        if time.monotonic() - max(self._looked, self._began) > LOOK_SECONDS:
            self.look_again()

    def look_again(self) -> None:
        """Look at the document, unless another thread began to do so after this call."""
        asked = time.monotonic()
        with self._looking:
            if self._looked < asked:
                self._look()

    def look_if_doubted(self) -> None:
        """Look at the document, unless that was done since an object without a mark was read."""
        if self._doubted > self._looked:
            self.look_again()

    def _look(self) -> None:
        begin = time.monotonic()
        found = self.store.get(self.connection.document(self.name))
        if found is None or found.version != self._version:
            self.adopt(self.connection.metadata_in(self.name, found))
            self._version = None if found is None else found.version
        self._looked = begin

    def vouch(self, idx: Shape, blob: Blob | None, writes: bool = False) -> None:
        """Check that an object that was read is of this dataset as the handle knows it.

        An object without a mark does not tell. For those that were read, `settle` looks at the
        document once. For one that is about to be overwritten (`writes`), this looks at once.
        """
        mark = "" if blob is None or blob.mark is None else blob.mark
        whose, _, revision = mark.partition(".")
        if self._id is None or not _REVISION.fullmatch(revision):
            self._doubted = time.monotonic()
            if writes:
                self.look()
            return
        if whose == self._id and int(revision) <= self._revision:
            return
        self.look_again()
        if whose != self._id:
            raise self.damaged(
                idx,
                "it was written through a handle on another dataset of this name, which had been "
                "deleted",
            )
        self._revision = max(self._revision, int(revision))

    def settle(
        self, began: float, absent: Sequence[Shape] = (), parts: Iterable[Any] | None = None
    ) -> None:
        """Check that what was read since `began` belongs to this dataset and lies inside of it.

        Parameters
        ----------
        began : float
            The time, as of ``time.monotonic()``, at which the read began.
        absent : sequence of tuple of int
            The indices of the stored objects that were not found.
        parts : iterable, optional
            The indices of all stored objects that were read, each with the part that was read.
        """
        if absent:
            self.check_absent(absent)
        else:
            self.look_if_doubted()
        if self._shrunk < began or parts is None:
            return
        if iter(parts) is parts:  # an iterator, which is used up
            raise StaleDatasetError(
                f"dataset {self.name!r} was made smaller by another writer, to shape "
                f"{self.metadata.shape}, before it was read through this handle: try again"
            )
        for idx, key, *_ in parts:
            start = [i * g for i, g in zip(idx, self.grain, strict=True)]
            self.check_inside(start, self.grain, key, False)

    def refresh(self) -> None:
        self.look_again()

    def adopt(self, metadata: DatasetMetadata) -> None:
        """Adopt metadata that were read again. StaleDatasetError if they are another dataset's."""
        was = self.metadata
        if (
            zarr3.id_of(metadata) != self._id
            or not zarr3.stored_alike(metadata, was)
            or repr(metadata.fillvalue) != repr(was.fillvalue)
        ):
            raise StaleDatasetError(
                f"dataset {self.name!r} was deleted and created again since this handle was "
                "opened: get it again from its connection"
            )
        before, now = zarr3.revision_of(was), zarr3.revision_of(metadata)
        if now < before:
            warnings.warn(
                f"the description of dataset {self.name!r} is an older one again (revision {now} "
                f"after {before}; the shape was {was.shape}, and is {metadata.shape}): "
                "another program has written back what it had read before dosna changed the "
                "shape or attributes; do that change again, and open the array there anew",
                stacklevel=2,
            )
        if any(n < o for n, o in zip(metadata.shape, was.shape, strict=True)):
            self._shrunk = time.monotonic()
        self.keep(metadata)

    def keep(self, metadata: DatasetMetadata) -> None:
        """Take metadata for those of the document from now on."""
        self.metadata, self._version, self._written = metadata, None, None
        # Somebody may have restored an older document, while objects keep their marks.
        self._revision = max(self._revision, zarr3.revision_of(metadata))

    # -- errors ---------------------------------------------------------------------------

    def check_absent(self, absent: Iterable[Shape]) -> None:
        """Check that stored objects that were not found were never written.

        They are fill if the dataset still exists and is still as large. Otherwise
        DatasetNotFoundError or StaleDatasetError is raised.
        """
        self.look_again()
        for idx in absent:
            start = [i * g for i, g in zip(idx, self.grain, strict=True)]
            if any(s >= n for s, n in zip(start, self.metadata.shape, strict=True)):
                self._stale(start)

    def check_inside(
        self, start: Sequence[int], size: Shape, key: Slices | None, whole: bool
    ) -> None:
        """Check, under `hold`, that a write that is about to be done lies inside the array.

        Parameters
        ----------
        start : sequence of int
            The first element of the box that is written to, a chunk or a stored object.
        size : tuple of int
            The extent of that box.
        key : tuple or None
            The part of the box that is written. None stands for all that is inside the array now.
        whole : bool
            True if `key` was all that was inside the array when the write was planned.

        Raises
        ------
        StaleDatasetError
            The part is no longer inside the array, as far as this handle knows. If it is `whole`,
            it is no longer all that is inside.
        """
        shape = self.metadata.shape
        extent = tuple([min(c, n - s) for s, c, n in zip(start, size, shape, strict=True)])
        if min(extent, default=1) <= 0 or min(start, default=0) < 0:
            self._stale(start)
        if key is None:
            return
        if whole:
            if tuple([k.stop for k in key]) != extent:
                self._stale(start)
        elif extent != size and not within(key, size, extent):
            self._stale(start)

    def _stale(self, start: Sequence[int]) -> NoReturn:
        raise StaleDatasetError(
            f"the part of dataset {self.name!r} at {tuple(start)} does not fit its shape "
            f"{self.metadata.shape}, to which another writer may have resized it: try again"
        )

    def corrupt(self, idx: Shape, why: str) -> NoReturn:
        """Raise ChunkCorruptError, or StaleDatasetError if the chunk is another dataset's."""
        self.look_again()
        raise self.damaged(idx, why)

    def damaged(self, idx: Shape, why: str) -> ChunkCorruptError:
        """Return the error that a chunk is damaged."""
        return ChunkCorruptError(
            f"chunk {idx} of dataset {self.name!r} in {self.connection.name!r} is damaged: {why}. "
            f"Restore its object {self.key(self.object_of(idx))!r} from a copy, or delete the "
            "chunk with del_chunk to have fill values"
        )
