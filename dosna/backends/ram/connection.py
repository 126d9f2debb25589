"""Connections to memory: the datasets of this process, by name."""

from __future__ import annotations

import os
import secrets
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from itertools import islice
from typing import Any

from dosna.backends.absent import Absent
from dosna.backends.base import Backend, BackendConnection, BackendDataset
from dosna.backends.batch import Batch
from dosna.backends.ram.dataset import RamDataset, RamReader
from dosna.core.metadata import DatasetMetadata, check_dims
from dosna.core.names import check_group, check_nesting, parents
from dosna.core.types import Array
from dosna.errors import DatasetExistsError, DatasetNotFoundError

__all__ = ["BACKEND", "RamConnection"]

_MOST_NAMED = 10
"""Number of existing datasets named in the message that a dataset does not exist."""


class _Datasets(dict[str, "RamDataset"]):
    """Datasets by name, with the number of them in each group.

    With these numbers, looking for datasets around a name costs the same for any number of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._counts: dict[str, int] = {}

    def __setitem__(self, name: str, dataset: RamDataset) -> None:
        if name not in self:
            for group in parents(name):
                self._counts[group] = self._counts.get(group, 0) + 1
        super().__setitem__(name, dataset)

    def __delitem__(self, name: str) -> None:
        super().__delitem__(name)
        for group in parents(name):
            self._counts[group] -= 1
            if not self._counts[group]:
                del self._counts[group]

    def around(self, name: str) -> Iterable[str]:
        """Return the datasets that a new one may lie in, or that may lie in it.

        These are the datasets above the name; else, if the name is a group, all datasets.
        """
        above = [group for group in parents(name) if group in self]
        return above or (self if name in self._counts else ())

    def is_group(self, name: str) -> bool:
        """Return True if datasets lie in a name."""
        return name in self._counts


_stores: dict[str, _Datasets] = {}
_groups: dict[tuple[str, str], dict[str, Any]] = {}
_stores_lock = threading.Lock()


def _renew_locks() -> None:
    """Create new locks in a forked child, where the parent's would never be released."""
    global _stores_lock
    _stores_lock = threading.Lock()
    for store in _stores.values():
        for dataset in store.values():
            dataset.renew_locks()


os.register_at_fork(after_in_child=_renew_locks)


class RamConnection(BackendConnection):
    """A namespace in this process's memory."""

    shared_between_processes = False
    stores_text = True
    # Copies run at the speed of memory: threads pay off only for large requests, and with small
    # chunks they cost more than the copies.
    parallel_bytes = 8 << 20
    parallel_chunk_bytes = 16 << 10

    @property
    def _datasets(self) -> _Datasets:
        with _stores_lock:
            return _stores.setdefault(self.name, _Datasets())

    def create_dataset(
        self,
        name: str,
        metadata: DatasetMetadata,
        *,
        dims: Sequence[str | None] | None = None,
    ) -> RamDataset:
        """Create a dataset.

        Parameters
        ----------
        name : str
            The name of the dataset.
        metadata : DatasetMetadata
            The description of the dataset.
        dims : sequence of str or None, optional
            The names of the axes.
        """
        return self._add(self._new(name, metadata, dims))

    def _new(
        self, name: str, metadata: DatasetMetadata, dims: Sequence[str | None] | None = None
    ) -> RamDataset:
        """Return a dataset that is not in the namespace yet."""
        self.check_writable()
        names = check_dims(dims, metadata.ndim)
        if names is not None:
            metadata = metadata.replace(storage={**metadata.storage, "dims": list(names)})
        return RamDataset(self, name, metadata)

    def _add(self, made: RamDataset) -> RamDataset:
        datasets, name = self._datasets, made.name
        with _stores_lock:
            if name in datasets:
                raise DatasetExistsError(
                    f"dataset {name!r} exists in ram connection {self.name!r}: open it with "
                    "get_dataset, or delete it"
                )
            check_nesting(name, datasets.around(name))
            datasets[name] = made
        return made

    def batch(self) -> Batch:
        return _RamBatch(self)

    def absent(self, names: Iterable[str]) -> Absent:
        began, datasets = time.monotonic(), self._datasets
        wanted = {at for name in names for at in [*parents(name), name]}
        gone = {name for name in wanted if name not in datasets and not datasets.is_group(name)}
        return Absent(gone, began)

    def get_dataset(self, name: str) -> RamDataset:
        found = self._find(name)
        return found if self.mode == "a" else RamReader(self, found)

    def _find(self, name: str) -> RamDataset:
        datasets = self._datasets
        try:
            return datasets[name]
        except KeyError:
            with _stores_lock:
                some = sorted(islice(datasets, _MOST_NAMED))
            raise DatasetNotFoundError(
                f"no dataset {name!r} in ram connection {self.name!r}, "
                f"which has {', '.join(map(repr, some)) or 'none'}"
                + (", …" if len(datasets) > _MOST_NAMED else "")
            ) from None

    def has_dataset(self, name: str) -> bool:
        return name in self._datasets

    def del_dataset(self, name: str, only: BackendDataset | None = None) -> None:
        self.check_writable()
        dataset = self._find(name)
        with dataset.exclusive(), _stores_lock:
            datasets = _stores[self.name]
            if datasets.get(name) is not dataset or only not in (None, dataset):
                raise DatasetNotFoundError(
                    f"dataset {name!r} was deleted or replaced meanwhile: open it again"
                )
            del datasets[name]
            dataset.deleted = True
            dataset.chunks.clear()

    def begin_replacement(self, name: str) -> str:
        self.check_writable()
        return f".replacing-{secrets.token_hex(8)}"

    def replace_dataset(self, temporary: str, name: str) -> None:
        self.check_writable()
        new, old = self.get_dataset(temporary), self._datasets.get(name)
        with nullcontext() if old is None else old.exclusive(), _stores_lock:
            datasets = _stores[self.name]
            if datasets.get(name) is not old:
                raise DatasetExistsError(
                    f"dataset {name!r} was created or replaced meanwhile: try again"
                )
            if old is None:
                check_nesting(name, datasets.around(name))
            else:
                old.deleted = True
                old.chunks.clear()
            moved = datasets[temporary]
            del datasets[temporary]
            datasets[name] = moved
            new.name = name

    def end_replacement(self, temporary: str) -> None:
        with suppress(DatasetNotFoundError):
            self.del_dataset(temporary)

    def dataset_names(self) -> list[str]:
        # In one step, as other threads create and delete. Hidden names are then side by side.
        names = sorted(self._datasets)
        del names[bisect_left(names, ".") : bisect_left(names, "/")]
        return names

    @property
    def keeps_groups(self) -> bool:
        return True

    def group_attrs(self, name: str) -> dict[str, Any]:
        with _stores_lock:
            return dict(_groups.get((self.name, name), {}))

    def set_group_attrs(self, name: str, attrs: Mapping[str, Any]) -> None:
        self.change_group_attrs(name, lambda before: attrs)

    def change_group_attrs(
        self, name: str, change: Callable[[dict[str, Any]], Mapping[str, Any]]
    ) -> None:
        self.check_writable()
        datasets = self._datasets
        with _stores_lock:
            check_group(name, datasets)
            attrs = change(dict(_groups.get((self.name, name), {})))
            _groups[self.name, name] = dict(attrs)
            if not attrs:
                del _groups[self.name, name]


class _RamBatch(Batch):
    """Datasets that are filled before they are in the namespace."""

    connection: RamConnection

    def create_whole(
        self,
        name: str,
        metadata: DatasetMetadata,
        options: Mapping[str, Any],
        values: Array | None,
    ) -> None:
        made = self.connection._new(name, metadata, **options)
        if values is not None:
            made.set_chunk_data((0,) * metadata.ndim, values)
        self.connection._add(made)


BACKEND = Backend(
    name="ram",
    connection=RamConnection,
    description="in this process's memory",
)
