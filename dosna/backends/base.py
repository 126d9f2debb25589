"""Base classes of a backend: a connection, a dataset and a chunk that only store.

A backend has to implement only the abstract methods below. Slicing, the checking of
arguments, parallel work and everything that a user sees are implemented once, in
`dosna.engines`. An object store needs still less: see `dosna.backends.stores.connection`.

Part of a chunk
---------------
Stored chunks always have the full `chunk_size`, also at the edge of the array; the part
outside of the array is fill. Indices named `slices` are in coordinates of the stored
chunk: a tuple with an integer, a slice of positive step or a 1-D integer array per axis, used
as NumPy uses it. None stands for the part of the chunk that lies inside the array.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain, product
from math import prod
from typing import Any, ClassVar, Literal, NoReturn, TypeVar

import numpy as np

from dosna.core.metadata import DatasetMetadata
from dosna.core.names import check_name
from dosna.core.plan import ChunkTask
from dosna.core.types import Array, Shape, Slices
from dosna.errors import (
    ChunkExistsError,
    ConfigurationError,
    ConnectionError,
    DatasetExistsError,
    DatasetNameError,
    DatasetNotFoundError,
    ReadOnlyError,
)

__all__ = [
    "Backend",
    "BackendConnection",
    "BackendDataChunk",
    "BackendDataset",
    "ChunkState",
    "ConnectionError",
    "DatasetExistsError",
    "DatasetNotFoundError",
    "Guarantees",
]

T = TypeVar("T")

ChunkState = Literal["ok", "unchecked", "never written", "missing", "corrupt", "unreadable"]
"""State of a chunk as `verify` reports it: ``ok`` (its checksum is right), ``unchecked``
(well-formed, but stored without a checksum), ``never written`` (reads as fill), ``missing``
(was written and is gone), ``corrupt`` or ``unreadable`` (the operating system gives an error
for its file)."""


@dataclass(frozen=True)
class Guarantees:
    """The guarantees that the store of a dataset gives.

    Parameters
    ----------
    partial_writes : {'processes', 'threads', 'none'}
        The kind of concurrent writers whose writes to different parts of one chunk all survive.
    atomic_chunks : bool
        True if a reader sees each chunk all old or all new, also after a crash.
    durable : bool
        True if a write has reached the disk when it returns, and so survives power loss.
    checksum : bool
        True if flipped bytes of a chunk are noticed when it is read.
    notes : tuple of str
        The conditions and exceptions of these guarantees.
    """

    partial_writes: Literal["processes", "threads", "none"]
    atomic_chunks: bool
    durable: bool
    checksum: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Backend:
    """A backend: a kind of storage for chunks.

    Parameters
    ----------
    name : str
        The backend's name, in lower case.
    connection : type
        The connection class; everything else follows from it.
    description : str
        A description of one line, for people.
    url : str
        The address of further documentation.
    """

    name: str
    connection: type[BackendConnection]
    description: str = ""
    url: str = ""

    def __post_init__(self) -> None:
        if not hasattr(self.connection, "shared_between_processes"):
            raise TypeError(
                f"{self.connection.__name__} must say whether other processes see its data: "
                "set shared_between_processes = True or False in the class"
            )


class BackendConnection(ABC):
    """A place that holds named datasets.

    Parameters
    ----------
    name : str
        The name of the place. The backend defines its meaning: a namespace, a folder, a pool.
    mode : {'a', 'r'}
        The access mode. 'r' refuses every change: each method that changes something first calls
        `check_writable` of the connection or of the dataset.
    """

    shared_between_processes: ClassVar[bool]
    """True if another process that connects by the same name sees the same data."""

    stores_text: ClassVar[bool] = False
    """True if datasets may hold text, whose elements (`dosna.core.text.TEXT`) vary in length."""

    nul_in_text: ClassVar[bool] = True
    """True if that text may contain the character NUL; otherwise it is refused."""

    parallel_bytes: ClassVar[int] = 0
    """Bytes below which a request is not worth a second thread; 0 where waiting dominates."""

    parallel_chunk_bytes: ClassVar[int] = 0
    """Bytes of a chunk below which a second thread is not worthwhile, for any number of chunks."""

    def __init__(self, name: str, mode: str = "a") -> None:
        if not isinstance(name, str) or not name:
            raise ConfigurationError(f"a connection's name is a non-empty str, not {name!r}")
        if mode not in ("a", "r"):
            raise ConfigurationError(f"mode is 'a' or 'r', and {mode!r} was given")
        self.name = name
        self.mode = mode
        self.connected = False

    def check_writable(self) -> None:
        """Raise ReadOnlyError if the connection was opened with mode 'r'."""
        if self.mode == "r":
            self.refuse()

    def refuse(self) -> NoReturn:
        """Raise the ReadOnlyError of mode 'r'."""
        raise ReadOnlyError(
            f"connection {self.name!r} was opened with mode 'r': open it with mode 'a' to "
            "change something"
        )

    @classmethod
    def split_url(cls, path: str, options: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
        """Split the path of a URL into connection and dataset; see `dosna.open_url`.

        Parameters
        ----------
        path : str
            The part of the URL after ``BACKEND:``.
        options : dict
            The options of the connection, from the rest of the URL.

        Returns
        -------
        tuple
            The name of the connection ('' if the path has none), the name of the dataset ('' if
            the path is that of the connection), and the options.
        """
        place, _, name = path.removeprefix("//").partition("/")
        return place, name.rstrip("/"), options

    def make_place(self) -> bool:
        """Create the place that `connect` needs, if its surroundings exist.

        Returns
        -------
        bool
            True if the place was created, False if it existed or needs no creation.
        """
        return False

    def remove_place(self) -> None:  # noqa: B027  most made nothing
        """Remove what `make_place` created, if it is still empty."""

    @property
    def holds_trees(self) -> bool:
        """True if many datasets are as cheap as one; False if each takes, say, a bucket."""
        return True

    @property
    def location(self) -> str:
        """Location of the datasets, by which two processes can tell if they mean the same one."""
        return self.name

    def connect(self) -> None:
        """Connect to the store. Connecting twice does nothing.

        Raises
        ------
        dosna.errors.ConnectionError
            The store cannot be reached.
        """
        self.connected = True

    def disconnect(self) -> None:
        """Close the connection to the store. Disconnecting twice does nothing."""
        self.connected = False

    @property
    def reserved(self) -> frozenset[str]:
        """Names of the layout's own documents beside or above datasets."""
        return frozenset()

    def check_name(self, name: str) -> str:
        """Return the name of a new dataset or group, or raise if it cannot be used.

        Raises
        ------
        DatasetNameError
            The name is not legal (see `dosna.core.names.check_name`), or a part of it is one of
            `reserved` and would hide a document of the layout. Case is ignored, because some
            file systems ignore it.
        """
        check_name(name)
        reserved = self.reserved
        for part in name.split("/"):
            if part.lower() in reserved:
                raise DatasetNameError(
                    f"dataset name {name!r} has the part {part!r}, by which this backend calls "
                    "one of its own documents: choose another name"
                )
        return name

    @abstractmethod
    def create_dataset(self, name: str, metadata: DatasetMetadata) -> BackendDataset:
        """Create a dataset, or raise DatasetExistsError. Of several concurrent calls, one wins.

        A backend adds its own options as keyword-only parameters and keeps those that it needs
        later in ``metadata.storage``. The name has been checked by the caller.
        """

    @abstractmethod
    def get_dataset(self, name: str) -> BackendDataset:
        """Open a dataset, or raise DatasetNotFoundError."""

    @abstractmethod
    def del_dataset(self, name: str, only: BackendDataset | None = None) -> None:
        """Delete a dataset with all its chunks, or raise DatasetNotFoundError.

        With `only`, delete the dataset only if it is the one that this handle was opened on, as
        far as the store can tell, and not one that was created under its name since.
        """

    def storable(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """Return a dtype that stores values of `dtype` without loss; by default `dtype` itself.

        Raises
        ------
        TypeError
            There is no such dtype.
        """
        return dtype

    def check_dataset(self, name: str, metadata: DatasetMetadata, **options: Any) -> None:  # noqa: B027
        """Raise the error that `create_dataset` would raise for a description and its options.

        Nothing is created. Errors that only the creation can reveal need not be found.
        """

    def begin_replacement(self, name: str) -> str | None:
        """Return an unlisted name under which a dataset can be created to replace another.

        After `replace_dataset` the dataset created under it bears the name of the one that it
        replaced. Otherwise it is removed by `end_replacement`, or by other processes when this
        one has died.

        Returns
        -------
        str or None
            None where two datasets cannot be exchanged: the old one is then deleted first.
        """
        return None

    def replace_dataset(self, temporary: str, name: str) -> None:
        """Replace a dataset in one step by the complete `temporary`, and delete the old one.

        Parameters
        ----------
        temporary : str
            The name from `begin_replacement`; it is no longer valid afterwards.
        name : str
            The name of the dataset to replace. If that dataset no longer exists, the new one gets
            the name all the same.
        """
        raise NotImplementedError("begin_replacement gave no name")

    def end_replacement(self, temporary: str) -> None:  # noqa: B027  most have none
        """Remove what was created for a replacement that is abandoned."""

    @abstractmethod
    def dataset_names(self) -> list[str]:
        """Return the names of all datasets, sorted."""

    @property
    def keeps_groups(self) -> bool:
        """True if the groups above datasets have attributes; then the two methods below work."""
        return False

    def group_attrs(self, name: str) -> dict[str, Any]:
        """Return the attributes of a group in JSON form; '' is the outermost group."""
        raise self._no_groups()

    def set_group_attrs(self, name: str, attrs: Mapping[str, Any]) -> None:
        """Replace the attributes of a group, and create the group if needed.

        A group without attributes is removed together with its last dataset.

        Raises
        ------
        DatasetNameError
            There is a dataset of that name, or one that the group would lie in.
        """
        raise self._no_groups()

    def _no_groups(self) -> ConfigurationError:
        return ConfigurationError(
            f"connection {self.name!r} keeps no attributes of groups: keep them with the datasets"
        )

    def names_in(self, group: str) -> list[str]:
        """Return the sorted names of the datasets in a group: those that begin with it and '/'."""
        return [name for name in self.dataset_names() if name.startswith(group + "/")]

    def has_dataset(self, name: str) -> bool:
        """Return True if there is a dataset of that name."""
        try:
            self.get_dataset(name)
        except DatasetNotFoundError:
            return False
        return True


class BackendDataset(ABC):
    """An array in a store, kept as chunks.

    Parameters
    ----------
    connection : BackendConnection
        The connection that the dataset belongs to.
    name : str
        The name of the dataset.
    metadata : DatasetMetadata
        The description of the dataset.
    """

    def __init__(
        self, connection: BackendConnection, name: str, metadata: DatasetMetadata
    ) -> None:
        self.connection = connection
        self.name = name
        self.metadata = metadata
        self.prepare()

    def prepare(self) -> None:  # noqa: B027  most have nothing that cannot travel
        """Create the state that `__getstate__` leaves out: each process needs its own."""

    def __getstate__(self) -> dict[str, Any]:
        return dict(self.__dict__)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.prepare()

    @property
    @abstractmethod
    def guarantees(self) -> Guarantees:
        """Guarantees that the store gives for this dataset."""

    @property
    def create_options(self) -> dict[str, Any]:
        """Keywords of the backend's `create_dataset` for a dataset stored like this one."""
        return dict(self.metadata.storage)

    @property
    def dims(self) -> tuple[str | None, ...] | None:
        """Names of the axes, or None if they have none."""
        found = self.metadata.storage.get("dims")
        return None if found is None else tuple(found)

    @property
    def shards(self) -> Shape | None:
        """Extent of a shard, or None if each chunk is an object."""
        return None

    @property
    def grain(self) -> Shape:
        """Extent of a stored object: a chunk, or a shard with its many chunks.

        The tasks of `read_many` and `write_many` are planned in units of it, and their ``idx``
        counts such objects.
        """
        return self.metadata.chunk_size

    @property
    def remote(self) -> bool:
        """True if waiting for requests dominates, so that many should be under way at a time."""
        return not self.connection.parallel_bytes

    def for_each(self, work: Callable[[T], object], items: Iterable[T], nbytes: int = 0) -> None:
        """Call `work`, which makes requests for each item; see `Store.for_each`.

        Where requests take long, several are under way, in threads of the store.
        """
        for item in items:
            work(item)

    @abstractmethod
    def get_chunk(self, idx: Shape) -> BackendDataChunk:
        """Return a handle on a chunk of the grid, written or not, without access to the store."""

    @abstractmethod
    def has_chunk(self, idx: Shape) -> bool:
        """Return True if the chunk was written."""

    @abstractmethod
    def del_chunk(self, idx: Shape) -> bool:
        """Delete a chunk, so that it reads as fill. Return False if it did not exist."""

    @abstractmethod
    def chunk_indices(self) -> Iterator[Shape]:
        """Return the indices of all stored chunks, including any outside of the grid."""

    @abstractmethod
    def update(self, change: Callable[[DatasetMetadata], DatasetMetadata]) -> None:
        """Replace the stored metadata by ``change(stored)`` atomically, and keep the new metadata.

        `change` may be called more than once where the store works by compare-and-swap.
        """

    @abstractmethod
    def refresh(self) -> None:
        """Read the stored metadata again, or raise DatasetNotFoundError."""

    def exclusive(self) -> AbstractContextManager[None]:
        """Keep every other writer out, where the store can. Held during a resize."""
        return nullcontext()

    def check_writable(self) -> None:
        """Raise ReadOnlyError if no chunk can be written, for instance because of mode 'r'."""
        self.connection.check_writable()

    def flush(self) -> None:  # noqa: B027  a store that is always durable has nothing to do
        """Wait until everything written so far would survive a power loss."""

    def verify_chunk(self, idx: Shape) -> ChunkState:
        """Read a chunk and return its state, without raising for a bad one."""
        return "unchecked" if self.has_chunk(idx) else "never written"

    # The methods below use only those above. A backend overrides what it can do better.

    def create_chunk(
        self, idx: Shape, data: Any = None, slices: Slices | None = None
    ) -> BackendDataChunk:
        """Create a chunk that was not written before, or raise ChunkExistsError."""
        if self.has_chunk(idx):
            raise ChunkExistsError(
                f"chunk {idx} of dataset {self.name!r} is written already: "
                "use set_chunk_data to change it"
            )
        if data is None:
            data, slices = self.metadata.fillvalue, None
        self.set_chunk_data(idx, data, slices)
        return self.get_chunk(idx)

    def get_chunk_data(self, idx: Shape, slices: Slices | None = None) -> Any:
        """Read part of a chunk into a new array or scalar; fill if it was never written."""
        if slices is None:
            slices = self.metadata.bounds(idx).chunk
        return self.get_chunk(idx).get_data(slices)

    def set_chunk_data(self, idx: Shape, values: Any, slices: Slices | None = None) -> None:
        """Write part of a chunk. The rest keeps its values, whoever else writes to it."""
        if slices is None:
            self.get_chunk(idx).set_data(self.padded(idx, values))
        else:
            self.get_chunk(idx).set_data(values, slices)

    def padded(self, idx: Shape, values: Any) -> Array:
        """Return a full chunk: `values` broadcast to the part inside the array, fill outside.

        The result is always a new or private array in C order, which a store may keep.
        """
        meta = self.metadata
        inside = meta.bounds(idx).chunk
        extent = tuple(s.stop for s in inside)
        chunk = np.empty(meta.chunk_size, meta.dtype)
        if extent != meta.chunk_size:
            chunk[...] = meta.fillvalue
        chunk[inside] = values
        return chunk

    def read_many(self, out: Array, tasks: Iterable[ChunkTask]) -> None:
        """Read the part ``task.chunk`` of each stored object into ``out[task.out]``.

        This implementation, and that of `write_many`, takes each stored object for one chunk.
        """
        read = self.get_chunk_data
        for idx, chunk, where, _ in tasks:
            out[where] = read(idx, chunk)

    def write_many(self, values: Array, tasks: Iterable[ChunkTask]) -> None:
        """Write ``values[task.out]`` to the part ``task.chunk`` of each stored object.

        A task with ``whole`` set replaces the object without reading it.
        """
        write = self.set_chunk_data
        for idx, chunk, where, whole in tasks:
            write(idx, values[where], None if whole else chunk)

    def object_indices(self) -> Iterator[Shape]:
        """Return the indices of all stored objects, in units of the `grain`."""
        return self.chunk_indices()

    few_objects: ClassVar[int] = 0
    """Number of objects up to which looking for each by name costs less than listing all."""

    def has_object(self, idx: Shape) -> bool:
        """Return True if there is a stored object at `idx`, inside the shape or outside."""
        return self.has_chunk(idx)

    def objects_around(self, before: Shape | None) -> Iterator[Shape]:
        """Return indices of stored objects, among them all that are not wholly inside the shape.

        Parameters
        ----------
        before : tuple of int or None
            A shape outside of which nothing is stored, or None if none is known.
        """
        if before is None:
            return self.object_indices()
        whole, grid = [], []
        for now, was, g in zip(self.metadata.shape, before, self.grain, strict=True):
            grid.append(-(-was // g))
            whole.append(min(now // g, grid[-1]))
        if prod(grid) - prod(whole) > self.few_objects:
            return self.object_indices()
        outside = (
            product(
                *map(range, whole[:axis]), range(first, grid[axis]), *map(range, grid[axis + 1 :])
            )
            for axis, first in enumerate(whole)
        )
        return filter(self.has_object, chain.from_iterable(outside))

    def finished_objects(self) -> Iterator[Shape]:
        """Return the indices of the stored objects that an interrupted load need not rewrite."""
        return self.object_indices()

    def del_object(self, idx: Shape) -> bool:
        """Delete a stored object. Return False if it did not exist."""
        return self.del_chunk(idx)

    def del_objects(self, indices: Iterable[Shape]) -> None:
        """Delete stored objects. Some of them may be gone already."""
        for idx in indices:
            self.del_object(idx)

    def trim_object(self, idx: Shape) -> None:
        """Replace by fill what a stored object holds outside of the shape."""
        self.set_chunk_data(idx, self.get_chunk_data(idx))

    def resize(self, shape: Shape) -> None:
        """Change the extents. Data cut off is lost, also when the array grows again later."""
        with self.exclusive():
            self.refresh()
            old = self.metadata
            grows = any(new > was for new, was in zip(shape, old.shape, strict=True))
            shrinks = any(new < was for new, was in zip(shape, old.shape, strict=True))
            before = old.shape if old.trimmed else None
            if grows and not old.trimmed:
                self._trim(None)
            # A growing axis must not bring back what a shrinking one is about to cut off.
            least = tuple(map(min, shape, old.shape))
            if shrinks:
                self.update(lambda m: m.replace(shape=least, trimmed=False))
                self._trim(before)
            if grows or shrinks:
                self.update(lambda m: m.replace(shape=shape, trimmed=True))

    def extend(self, axis: int, count: int) -> Shape:
        """Extend the array by `count` on an axis, whatever others do at the same time.

        Returns
        -------
        tuple of int
            The shape before. The added part begins there, and nobody else was given it.
        """
        before: Shape = ()

        def longer(metadata: DatasetMetadata) -> DatasetMetadata:
            nonlocal before
            before = metadata.shape
            return metadata.replace(
                shape=tuple(n + count * (a == axis) for a, n in enumerate(before))
            )

        with self.exclusive():
            self.refresh()
            if not self.metadata.trimmed:
                self._trim(None)
                self.update(lambda m: m.replace(trimmed=True))
            self.update(longer)
        return before

    def _trim(self, before: Shape | None) -> None:
        """Delete what lies outside of the shape: whole objects, and the outer parts of others.

        `before` is a shape outside of which nothing is stored, or None if none is known.
        """
        shape, grain = self.metadata.shape, self.grain
        outside = []
        for idx in list(self.objects_around(before)):
            inside = [n - i * g for i, g, n in zip(idx, grain, shape, strict=True)]
            if min(inside, default=1) <= 0:
                outside.append(idx)
            elif any(n < g for n, g in zip(inside, grain, strict=True)):
                self.trim_object(idx)
        self.del_objects(outside)


class BackendDataChunk(ABC):
    """A handle on one block of an array, which is one object of the store.

    Creating a handle neither reads nor writes.
    """

    def __init__(self, dataset: BackendDataset, idx: Shape) -> None:
        self.dataset = dataset
        self.idx = idx

    @property
    def name(self) -> str:
        """Name of the chunk, unique within its dataset."""
        return "chunk_" + "_".join(map(str, self.idx))

    @abstractmethod
    def get_data(self, slices: Slices | None = None) -> Any:
        """Read part of the chunk, or its full extent; fill if it was never written.

        Raises
        ------
        ChunkCorruptError
            The stored object is not a chunk of this dataset, or its checksum is wrong.
        """

    @abstractmethod
    def set_data(self, values: Any, slices: Slices | None = None) -> None:
        """Write part of the chunk, or its full extent.

        `values` is broadcast and cast as in a NumPy assignment. The rest of the chunk keeps
        its values (fill, if it was never written), whoever else writes to it at the same time.
        """
