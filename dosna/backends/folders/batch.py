"""Datasets in folders that are created and completed together, with one wait for the disk.

See docs/design/together.md.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dosna.backends.base import BackendDataset
from dosna.backends.batch import Batch, Change, Description
from dosna.backends.folders.dataset import FolderDataset
from dosna.core.metadata import DatasetMetadata
from dosna.core.names import check_group, parents
from dosna.core.types import Array
from dosna.errors import DatasetNotFoundError, DosnaError
from dosna.io.files import (
    disk,
    lock_file,
    open_folder,
    remove_folder,
    sync_file_system,
    sync_tree,
    write_new,
)
from dosna.io.locks import open_descriptor
from dosna.io.ranges import METADATA_LOCK

if TYPE_CHECKING:
    from dosna.backends.folders.connection import FolderConnection

__all__ = ["FolderBatch", "only_chunk"]

MARK = ".dosna-complete"
"""The next description of a dataset, which is to take the place of the present one."""

_MOST_SECONDS = 30.0
"""The time after which Linux writes to the disk what waits for it, and a batch does, too."""

_MOST_BYTES = 1 << 30

_FEW = 4
"""Number of datasets of which the files are synchronized one by one: the file system may have to
write gigabytes of others."""


class _Step(NamedTuple):
    """A dataset whose folder was prepared."""

    name: str
    path: str


class _Mark(NamedTuple):
    """A dataset whose next description was written."""

    name: str
    path: str
    identity: tuple[int, int]
    stamp: tuple[int, int, int]
    completed: Change


class _Group(NamedTuple):
    """A group whose next document was written."""

    name: str
    path: str
    before: bytes | None
    change: Callable[[dict[str, Any]], Mapping[str, Any]]


class FolderBatch(Batch):
    """Datasets whose folders are filled under hidden names.

    Folders that are complete get their names once they are on the disk. Descriptions that mark
    datasets as complete take their places at the same time.

    Parameters
    ----------
    connection : FolderConnection
        The connection that the datasets belong to.
    """

    connection: FolderConnection

    def __init__(self, connection: FolderConnection) -> None:
        super().__init__(connection)
        self._hidden = ""
        self._count = 0
        self._steps: list[_Step] = []
        self._marks: list[_Mark] = []
        self._prepared: dict[str, _Step] = {}
        self._groups: list[_Group] = []
        self._seen: set[str] = set()
        self._new_groups: dict[str, str] = {}
        self._looked_at: set[str] = set()
        self._since = self._nbytes = 0.0

    @property
    def due(self) -> bool:
        waits = bool(self._steps or self._marks)
        late = time.monotonic() - self._since > _MOST_SECONDS
        return waits and (late or self._nbytes > _MOST_BYTES)

    def create_whole(
        self,
        name: str,
        metadata: DatasetMetadata,
        options: Mapping[str, Any],
        values: Array | None,
    ) -> None:
        self._steps.append(self._stage(name, metadata, options, values))
        self._note(metadata.nbytes)

    def prepare(self, descriptions: Iterable[Description]) -> None:
        steps = []
        for name, metadata, options in descriptions:
            with suppress(DosnaError, TypeError, ValueError):  # `create` raises it
                steps.append(self._stage(name, metadata, options, None))
        if steps:
            self._synchronize(len(steps))
            self._prepared.update((step.name, step) for step in steps)

    def create(
        self, name: str, metadata: DatasetMetadata, options: Mapping[str, Any]
    ) -> BackendDataset:
        step = self._prepared.pop(name, None)
        if step is None:
            return super().create(name, metadata, options)
        con = self.connection
        with con.names_held(f"create dataset {name!r} in"):
            self._place(step, set())
        return con.get_dataset(name)

    def complete(self, dataset: BackendDataset, completed: Change) -> None:
        assert isinstance(dataset, FolderDataset)
        self._drop_consolidated(dataset.name)
        with disk(f"change dataset {dataset.name!r}"):
            image, path, folder = dataset.next_description(completed)
            with suppress(FileNotFoundError):  # of a process that died
                os.unlink(MARK, dir_fd=folder.fd)
            write_new(folder.fd, MARK, [image], len(image))
        self._marks.append(_Mark(dataset.name, path, folder.identity, folder.stamp, completed))
        self._note(dataset.metadata.nbytes)

    def change_group_attrs(
        self, name: str, change: Callable[[dict[str, Any]], Mapping[str, Any]]
    ) -> None:
        con = self.connection
        con.check_writable()
        with disk(f"change group {name!r} in {con.path}"):
            before = con.group_bytes(name)  # before its attributes, to notice a change of them
            attrs = change(con.group_attrs(name))
            if not attrs:
                super().change_group_attrs(name, change)
                return
            self._drop_consolidated(name)
            document = con.group_image(name, before, attrs)
            path = self._new_path()
            folder = open_folder(os.path.dirname(path))
            try:
                write_new(folder, os.path.basename(path), [document], len(document))
            finally:
                os.close(folder)
        self._groups.append(_Group(name, path, before, change))

    def commit(self) -> dict[str, Exception]:
        steps, marks, groups = self._steps, self._marks, self._groups
        if not steps and not marks and not groups:
            return {}
        self._steps, self._marks, self._groups, self._nbytes = [], [], [], 0
        self._synchronize(len(steps) + len(groups), marks)
        errors = self._place_all(steps)
        for mark in marks:
            self._attempt(errors, mark.name, lambda mark=mark: self._mark(mark))
        if not errors:
            for group in groups:
                self._attempt(errors, f"{group.name}/", lambda group=group: self._change(group))
        # Copies of metadata that others have made meanwhile lack what is new.
        looked_at, self._looked_at = self._looked_at, set()
        for above in looked_at:
            self.connection.drop_consolidated(f"{above}/x" if above else "x")
        if self.connection.durable:
            sync_file_system(self._root())
        return errors

    def close(self) -> None:
        if self._hidden:
            self.connection.end_replacement(f"{self._hidden}/")
            self._hidden = ""

    # -------------------------------------------------------------------------------------

    def _root(self) -> int:
        return open_descriptor(self.connection.path, os.O_RDONLY | os.O_DIRECTORY)

    def _note(self, nbytes: int) -> None:
        if not self._nbytes:
            self._since = time.monotonic()
        self._nbytes += nbytes + 1

    def _stage(
        self,
        name: str,
        metadata: DatasetMetadata,
        options: Mapping[str, Any],
        values: Array | None,
    ) -> _Step:
        """Fill a hidden folder, and those of groups above the dataset that do not exist."""
        con = self.connection
        con.check_writable()
        metadata, image = con.described(metadata, **options)
        self._drop_consolidated(name)
        for group in parents(name):
            if group not in self._seen:
                self._seen.add(group)
                self._stage_group(group)
        path = self._new_path()
        with disk(f"create dataset {name!r} in {con.path}"):
            os.mkdir(path)
            try:
                con.fill(path, image, metadata, values, durable=False)
            except BaseException:
                with suppress(OSError):
                    remove_folder(path)
                raise
        return _Step(name, path)

    def _drop_consolidated(self, name: str) -> None:
        """Remove copies of metadata from the groups above a name, once until `commit`."""
        group = name.rpartition("/")[0]
        if group not in self._looked_at:
            self._looked_at.add(group)
            self.connection.drop_consolidated(name)

    def _stage_group(self, group: str) -> None:
        con, document = self.connection, self.connection.group_document
        if document is None or os.path.lexists(os.path.join(con.path, group)):
            return
        path = self._new_path()
        with disk(f"create group {group!r} in {con.path}"):
            os.mkdir(path)
            folder = open_folder(path)
            try:
                write_new(folder, con.description, [document], len(document))
            finally:
                os.close(folder)
        self._new_groups[group] = path

    def _new_path(self) -> str:
        if not self._hidden:
            self._hidden = self.connection.begin_hidden()
        self._count += 1
        return os.path.join(self.connection.path, self._hidden, str(self._count))

    def _synchronize(self, count: int, marks: Sequence[_Mark] = ()) -> None:
        """Make what is in the hidden folder durable, and datasets that are to be marked."""
        con = self.connection
        with disk(f"synchronize {con.path}"):
            if count + len(marks) > _FEW or (marks and con.ordered):
                sync_file_system(self._root())
                return
            for mark in marks:
                with suppress(FileNotFoundError):  # of a dataset that was deleted
                    os.fsync(open_descriptor(os.path.join(mark.path, MARK), os.O_RDONLY))
            if count:
                hidden = os.path.join(con.path, self._hidden)
                sync_tree(open_descriptor(hidden, os.O_RDONLY | os.O_DIRECTORY))

    def _place_all(self, steps: list[_Step]) -> dict[str, Exception]:
        """Give datasets their names, and return the errors."""
        con, errors, known = self.connection, dict[str, Exception](), set[str]()
        if not steps:
            return errors
        with con.names_held("create datasets in"):
            for step in steps:
                self._attempt(errors, step.name, lambda step=step: self._place(step, known))
        return errors

    def _place(self, step: _Step, known: set[str]) -> None:
        """Give a dataset and the new groups above it their names."""
        con = self.connection
        for group in parents(step.name):
            fresh = self._new_groups.pop(group, None)
            if fresh is not None and not os.path.lexists(os.path.join(con.path, group)):
                with suppress(OSError):  # then `place` makes it
                    os.rename(fresh, os.path.join(con.path, group))
        con.place(step.path, step.name, known)

    def _attempt(self, errors: dict[str, Exception], name: str, work: Any) -> None:
        try:
            with disk(f"create dataset {name!r} in {self.connection.path}"):
                work()
        except Exception as error:
            errors[name] = error

    def _mark(self, mark: _Mark) -> None:
        """Put the next description of a dataset in its place."""
        con = self.connection
        locks = lock_file(mark.path)
        try:
            with locks.hold(METADATA_LOCK):
                status = os.stat(mark.path)
                if (status.st_dev, status.st_ino) != mark.identity:
                    raise FileNotFoundError
                there = os.path.join(mark.path, con.description)
                status = os.stat(there)
                if (status.st_dev, status.st_ino, status.st_mtime_ns) == mark.stamp:
                    os.rename(os.path.join(mark.path, MARK), there)
                    return
                os.unlink(os.path.join(mark.path, MARK))
        except FileNotFoundError:
            raise DatasetNotFoundError(
                f"dataset {mark.name!r} was deleted while it was ingested"
            ) from None
        finally:
            locks.close()
        # Somebody has changed its attributes meanwhile.
        con.get_dataset(mark.name).update(mark.completed)

    def _change(self, group: _Group) -> None:
        """Put the next document of a group in its place."""
        con, name = self.connection, group.name
        with con.names_held(f"change group {name!r} in"):
            check_group(name, con)
            con.make_parents(f"{name}/x" if name else "x")
            found = con.group_bytes(name)
            if found == group.before or (group.before is None and found == con.group_document):
                os.rename(group.path, os.path.join(con.path, name, con.group_file))
                return
        con.change_group_attrs(name, group.change)  # it was changed in the meantime


def only_chunk(metadata: DatasetMetadata, values: Array) -> Array:
    """Return the one chunk of an array: `values`, and fill outside of them."""
    if (
        values.shape == metadata.chunk_size
        and values.dtype == metadata.dtype
        and values.flags.c_contiguous
    ):
        return values
    chunk = metadata.empty_chunk()
    chunk[tuple(map(slice, np.shape(values)))] = values
    return chunk
