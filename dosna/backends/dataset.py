"""The template of a dataset, which is kept as chunks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Protocol, TypeVar

import numpy as np

from dosna.backends import resizing
from dosna.backends.chunk import BackendDataChunk
from dosna.backends.guarantees import ChunkState, Guarantees
from dosna.core.metadata import DatasetMetadata
from dosna.core.plan import ChunkTask
from dosna.core.types import Array, Shape, Slices
from dosna.errors import ChunkExistsError

if TYPE_CHECKING:
    from dosna.backends.zarrobjects import ZarrObjects

__all__ = ["BackendDataset", "DatasetHome"]

T = TypeVar("T")


class DatasetHome(Protocol):
    """The members of a `BackendConnection` that every dataset uses."""

    shared_between_processes: ClassVar[bool]
    parallel_bytes: ClassVar[int]
    parallel_chunk_bytes: ClassVar[int]
    name: str
    mode: str

    def check_writable(self) -> None: ...

    def refuse(self) -> NoReturn: ...

    def has_dataset(self, name: str) -> bool: ...

    @property
    def create_dataset(self) -> Callable[..., Any]: ...


class BackendDataset(ABC):
    """An array in a store, kept as chunks.

    Parameters
    ----------
    connection : DatasetHome
        The connection that the dataset belongs to.
    name : str
        The name of the dataset.
    metadata : DatasetMetadata
        The description of the dataset.
    """

    def __init__(self, connection: DatasetHome, name: str, metadata: DatasetMetadata) -> None:
        self.connection = connection
        self.name = name
        self.metadata = metadata
        self.prepare()

    def prepare(self) -> None:  # noqa: B027  most can be pickled as they are
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

    @property
    def schedules_requests(self) -> bool:
        """True if `for_each`, `read_many` and `write_many` have many requests under way.

        The threads of an engine would add nothing to those of the store.
        """
        return False

    def locations(self, idx: Shape) -> tuple[str, ...]:
        """Return the names of the hosts that keep a stored object, the best first.

        The result is empty where the store does not know, or where all hosts are as near.
        """
        return ()

    def for_each(self, work: Callable[[T], object], items: Iterable[T], nbytes: int = 0) -> None:
        """Call `work`, which makes requests for each item; see `Store.for_each`.

        Where requests take long, several are under way, in threads of the store.
        """
        for item in items:
            work(item)

    def get_chunk(self, idx: Shape) -> BackendDataChunk:
        """Return a handle on a chunk of the grid, written or not, without access to the store."""
        return BackendDataChunk(self, idx)

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

    def exclusive(self) -> AbstractContextManager[bool]:
        """Keep every other writer out during a resize, and return True, where the store can."""
        return nullcontext(False)

    def revision_of(self, metadata: DatasetMetadata) -> int:
        """Return a number that differs after each change of the metadata.

        It is 0 where `exclusive` keeps other writers out.
        """
        return 0

    def check_writable(self) -> None:
        """Raise ReadOnlyError if no chunk can be written, for instance because of mode 'r'."""
        self.connection.check_writable()

    def continue_creation(self) -> None:  # noqa: B027  most do not tell one operation from another
        """Take the next operation that writes for a part of the one that created the dataset."""

    def versions(self, indices: Iterable[Shape], lasting: bool = False) -> list[str | None]:
        """Return a text for each stored object that differs after any write to it.

        Parameters
        ----------
        indices : iterable of tuple of int
            The indices of the objects, in units of the `grain`.
        lasting : bool
            True for texts that are kept, to be compared with later ones.

        Returns
        -------
        list of str or None
            None where there is no object, and where the backend cannot tell.
        """
        return [None for _ in indices]

    noted: dict[Shape, str] | None = None
    """The versions of the objects that this handle has written since a dict was put here, if
    writes return them. After a later write by another program `versions` returns another text."""

    def zarr_objects(self) -> ZarrObjects:
        """Return the dataset as the objects of a Zarr array, as it is described now.

        Raises
        ------
        TypeError
            Zarr does not have the dtype.
        """
        # It needs more than NumPy, which `import dosna` should not load.
        from dosna.backends.zarrobjects import MadeObjects

        return MadeObjects(self)

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
                f"chunk {idx} of dataset {self.name!r} has already been written: "
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
        return self._handle(idx).get_data(slices)

    def set_chunk_data(self, idx: Shape, values: Any, slices: Slices | None = None) -> None:
        """Write part of a chunk. The rest keeps its values, also if others write to it."""
        if slices is None:
            self._handle(idx).set_data(self.padded(idx, values))
        else:
            self._handle(idx).set_data(values, slices)

    def _handle(self, idx: Shape) -> BackendDataChunk:
        handle = self.get_chunk(idx)
        if type(handle) is BackendDataChunk:
            raise NotImplementedError(
                f"{type(self).__name__} needs get_chunk_data and set_chunk_data, or a get_chunk "
                "whose handles read and write"
            )
        return handle

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

    def write_objects(self, objects: Iterable[tuple[ChunkTask, Array]]) -> None:
        """Write stored objects, each from an array of its own.

        Parameters
        ----------
        objects : iterable
            For each object a task of a plan over all of it, whose `out` is not used, and the
            values.
        """
        for task, values in objects:
            self.write_many(values, [task._replace(out=(...,))])

    def object_indices(self) -> Iterator[Shape]:
        """Return the indices of all stored objects, in units of the `grain`."""
        return self.chunk_indices()

    listing_refreshes: ClassVar[bool] = False
    """True if `object_indices` does what `refresh` does, once it is used up."""

    few_objects: ClassVar[int] = 0
    """Number of objects up to which looking for each by name costs less than listing all."""

    def has_object(self, idx: Shape) -> bool:
        """Return True if there is a stored object at `idx`, inside the shape or outside."""
        return self.has_chunk(idx)

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
        resizing.resize(self, shape)

    def extend(self, axis: int, given: Shape) -> Shape:
        """Extend the array on an axis by values of a shape, whatever others do at the same time.

        Returns
        -------
        tuple of int
            The shape before. The added part begins there, and no other caller gets it.

        Raises
        ------
        StaleDatasetError
            Another axis has another extent. Nothing is changed.
        """
        return resizing.extend(self, axis, given)

    def take_back(self, before: Shape, after: Shape) -> None:
        """Undo an `extend` from a shape to another, unless others have changed it since."""
        resizing.take_back(self, before, after)
