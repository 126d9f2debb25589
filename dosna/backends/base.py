"""Templates of a backend: a connection, a dataset and a chunk that only store.

A backend implements the abstract methods below and nothing else. Slicing, checking of
arguments, parallel work and everything that a user sees stands once in `dosna.engines`.
An object store needs still less: see `dosna.backends.stores.connection`.

Part of a chunk
---------------
Stored chunks always have the full `chunk_size`, also at the edge of the array; what lies
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
from typing import Any, ClassVar, Literal, NoReturn

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

ChunkState = Literal["ok", "unchecked", "never written", "missing", "corrupt", "unreadable"]
"""What `verify` finds: ``ok`` (its checksum is right), ``unchecked`` (well-formed, but
stored without a checksum), ``never written`` (reads as fill), ``missing`` (was written and
is gone) or ``corrupt``."""


@dataclass(frozen=True)
class Guarantees:
    """What a dataset's store promises.

    Parameters
    ----------
    partial_writes : {'processes', 'threads', 'none'}
        Among whom two writes to different parts of one chunk both survive.
    atomic_chunks : bool
        Whether a reader, also after a crash, sees each chunk all old or all new.
    durable : bool
        Whether a write has reached the disk when it returns, and so survives power loss.
    checksum : bool
        Whether flipped bytes of a chunk are noticed when it is read.
    notes : tuple of str
        Conditions that the store's own documentation would put in small print.
    """

    partial_writes: Literal["processes", "threads", "none"]
    atomic_chunks: bool
    durable: bool
    checksum: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Backend:
    """A backend: where chunks live.

    Parameters
    ----------
    name : str
        In lower case.
    connection : type
        Its connection class; the rest follows from it.
    description : str
        One line for people.
    url : str
        Where to read more.
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
    """A place with named datasets.

    Parameters
    ----------
    name : str
        What it means is the backend's: a namespace, a folder, a pool.
    mode : {'a', 'r'}
        'r' refuses every change: whatever would change something calls `check_writable` first,
        of the connection or of the dataset.
    """

    shared_between_processes: ClassVar[bool]
    """Whether another process that connects by the same name sees the same data."""

    stores_text: ClassVar[bool] = False
    """True if datasets may be of text, whose elements (`dosna.core.text.TEXT`) vary in length."""

    nul_in_text: ClassVar[bool] = True
    """Whether that text may have the character NUL in it; otherwise it is refused."""

    parallel_bytes: ClassVar[int] = 0
    """Requests of fewer bytes are not worth a second thread; 0 where waiting dominates."""

    parallel_chunk_bytes: ClassVar[int] = 0
    """Nor are requests in chunks of fewer bytes, whatever their number."""

    def __init__(self, name: str, mode: str = "a") -> None:
        if not isinstance(name, str) or not name:
            raise ConfigurationError(f"a connection's name is a non-empty str, not {name!r}")
        if mode not in ("a", "r"):
            raise ConfigurationError(f"mode is 'a' or 'r', and {mode!r} was given")
        self.name = name
        self.mode = mode
        self.connected = False

    def check_writable(self) -> None:
        """Raise ReadOnlyError for mode 'r'."""
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
        """Say what the path of a URL means, see `dosna.open_url`.

        Parameters
        ----------
        path : str
            What follows ``BACKEND:``.
        options : dict
            Of the connection, from the rest of the URL.

        Returns
        -------
        tuple
            The connection's name ('' if the path has none), the dataset's ('' if the path is
            the connection's), and the options.
        """
        place, _, name = path.removeprefix("//").partition("/")
        return place, name.rstrip("/"), options

    def make_place(self) -> bool:
        """Make what `connect` needs to be there, if what is around it is; True if it was not."""
        return False

    def remove_place(self) -> None:  # noqa: B027  most made nothing
        """Remove what `make_place` has made, if nothing has come into it."""

    @property
    def holds_trees(self) -> bool:
        """Whether many datasets are as cheap as one: False where each takes, say, a bucket."""
        return True

    @property
    def location(self) -> str:
        """Where the datasets are, so that two processes can tell whether they mean the same."""
        return self.name

    def connect(self) -> None:
        """Reach the store. Connecting twice does nothing.

        Raises
        ------
        dosna.errors.ConnectionError
            The store cannot be reached.
        """
        self.connected = True

    def disconnect(self) -> None:
        """Let go of the store. Disconnecting twice does nothing."""
        self.connected = False

    @property
    def reserved(self) -> frozenset[str]:
        """What the layout's own documents are called beside or above datasets."""
        return frozenset()

    def check_name(self, name: str) -> str:
        """Return the name of a new dataset or group, or refuse it.

        Raises
        ------
        DatasetNameError
            It is not legal (see `dosna.core.names.check_name`), or a part of it is one of
            `reserved`: it would hide what is beside it. Case does not count, as on some file
            systems.
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
        """Make a dataset, or raise DatasetExistsError: of several that try, one wins.

        A backend adds its own options as keyword-only parameters; what it must remember of
        them goes into ``metadata.storage``. Names arrive checked.
        """

    @abstractmethod
    def get_dataset(self, name: str) -> BackendDataset:
        """Open a dataset, or raise DatasetNotFoundError."""

    @abstractmethod
    def del_dataset(self, name: str, only: BackendDataset | None = None) -> None:
        """Delete a dataset with all its chunks, or raise DatasetNotFoundError.

        With `only`, delete just what this handle was opened on, as far as the store can tell,
        and not what somebody else has made under its name since.
        """

    def storable(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """Return the dtype as which values of another are stored without loss; it by default.

        Raises
        ------
        TypeError
            There is none.
        """
        return dtype

    def check_dataset(self, name: str, metadata: DatasetMetadata, **options: Any) -> None:  # noqa: B027
        """Raise what `create_dataset` would raise of a description and its options.

        Makes nothing, and need not see what only making it tells.
        """

    def begin_replacement(self, name: str) -> str | None:
        """Return a name, in no listing, under which a dataset can be made to replace another.

        What is made under it has the replaced one's name for its `name`, and is removed by
        `end_replacement`, or by others when this process has died.

        Returns
        -------
        str or None
            None where two datasets cannot be exchanged: the old one is then deleted first.
        """
        return None

    def replace_dataset(self, temporary: str, name: str) -> None:
        """Put a complete dataset into the place of another in one step, and delete that.

        Parameters
        ----------
        temporary : str
            From `begin_replacement`; it ends with this.
        name : str
            If there is no such dataset any more, it is that of the new one all the same.
        """
        raise NotImplementedError("begin_replacement gave no name")

    def end_replacement(self, temporary: str) -> None:  # noqa: B027  most have none
        """Remove what there is of a replacement that is not to be."""

    @abstractmethod
    def dataset_names(self) -> list[str]:
        """Names of all datasets, sorted."""

    @property
    def keeps_groups(self) -> bool:
        """Whether what is above datasets has attributes; then the two methods below work."""
        return False

    def group_attrs(self, name: str) -> dict[str, Any]:
        """Give the attributes of a group in JSON form; '' is the outermost."""
        raise self._no_groups()

    def set_group_attrs(self, name: str, attrs: Mapping[str, Any]) -> None:
        """Replace them, and make the group; one that has lost them goes with its last dataset.

        DatasetNameError if there is a dataset of that name, or around it.
        """
        raise self._no_groups()

    def _no_groups(self) -> ConfigurationError:
        return ConfigurationError(
            f"connection {self.name!r} keeps no attributes of groups: keep them with the datasets"
        )

    def names_in(self, group: str) -> list[str]:
        """Names of the datasets in a group, sorted: those that begin with it and a '/'."""
        return [name for name in self.dataset_names() if name.startswith(group + "/")]

    def has_dataset(self, name: str) -> bool:
        """Whether there is a dataset of that name."""
        try:
            self.get_dataset(name)
        except DatasetNotFoundError:
            return False
        return True


class BackendDataset(ABC):
    """An array of a store, in chunks.

    Parameters
    ----------
    connection : BackendConnection
    name : str
    metadata : DatasetMetadata
    """

    def __init__(
        self, connection: BackendConnection, name: str, metadata: DatasetMetadata
    ) -> None:
        self.connection = connection
        self.name = name
        self.metadata = metadata
        self.prepare()

    def prepare(self) -> None:  # noqa: B027  most have nothing that cannot travel
        """Make what `__getstate__` leaves out, because another process needs its own."""

    def __getstate__(self) -> dict[str, Any]:
        return dict(self.__dict__)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.prepare()

    @property
    @abstractmethod
    def guarantees(self) -> Guarantees:
        """What the store promises for this dataset."""

    @property
    def create_options(self) -> dict[str, Any]:
        """The backend's own keywords of `create_dataset` that would make one stored alike."""
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
        """Extent of a stored object: of a chunk, or of the many that a shard holds.

        The tasks of `read_many` and `write_many` are planned by it, and their ``idx`` counts
        such objects.
        """
        return self.metadata.chunk_size

    @abstractmethod
    def get_chunk(self, idx: Shape) -> BackendDataChunk:
        """Give a handle on a chunk of the grid, written or not; touches nothing."""

    @abstractmethod
    def has_chunk(self, idx: Shape) -> bool:
        """Whether the chunk was written."""

    @abstractmethod
    def del_chunk(self, idx: Shape) -> bool:
        """Delete a chunk, so that it reads as fill; False if it was not there."""

    @abstractmethod
    def chunk_indices(self) -> Iterator[Shape]:
        """Indices of all stored chunks, also of any outside of the grid."""

    @abstractmethod
    def update(self, change: Callable[[DatasetMetadata], DatasetMetadata]) -> None:
        """Replace the stored metadata by ``change(stored)``, atomically, and keep the new.

        `change` may be called more than once, where the store is one of compare-and-swap.
        """

    @abstractmethod
    def refresh(self) -> None:
        """Read the stored metadata again, or raise DatasetNotFoundError."""

    def exclusive(self) -> AbstractContextManager[None]:
        """Keep every other writer out, where the store can; a resize holds this."""
        return nullcontext()

    def check_writable(self) -> None:
        """Raise ReadOnlyError if no chunk of it can be written, by mode 'r' for instance."""
        self.connection.check_writable()

    def flush(self) -> None:  # noqa: B027  a store that is always durable has nothing to do
        """Return when everything written so far would survive a power loss."""

    def verify_chunk(self, idx: Shape) -> ChunkState:
        """Read a chunk and say in what state it is, without raising for a bad one."""
        return "unchecked" if self.has_chunk(idx) else "never written"

    # What follows is written over the methods above; a backend replaces what it does better.

    def create_chunk(
        self, idx: Shape, data: Any = None, slices: Slices | None = None
    ) -> BackendDataChunk:
        """Write a chunk that was not written before, or raise ChunkExistsError."""
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
        """Read part of a chunk into a fresh array or scalar; fill if it was never written."""
        if slices is None:
            slices = self.metadata.bounds(idx).chunk
        return self.get_chunk(idx).get_data(slices)

    def set_chunk_data(self, idx: Shape, values: Any, slices: Slices | None = None) -> None:
        """Write part of a chunk; the rest of it keeps its values, whoever else writes."""
        if slices is None:
            self.get_chunk(idx).set_data(self.padded(idx, values))
        else:
            self.get_chunk(idx).set_data(values, slices)

    def padded(self, idx: Shape, values: Any) -> Array:
        """Make a full chunk: `values` broadcast to the part inside the array, fill outside.

        Always a fresh or private array of C order, which a store may keep.
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

        As it stands here, and in `write_many`, a stored object is a chunk.
        """
        read = self.get_chunk_data
        for idx, chunk, where, _ in tasks:
            out[where] = read(idx, chunk)

    def write_many(self, values: Array, tasks: Iterable[ChunkTask]) -> None:
        """Write ``values[task.out]`` to the part ``task.chunk`` of each stored object.

        A task that is ``whole`` replaces the object without reading it.
        """
        write = self.set_chunk_data
        for idx, chunk, where, whole in tasks:
            write(idx, values[where], None if whole else chunk)

    def object_indices(self) -> Iterator[Shape]:
        """Indices of all stored objects, by the `grain`."""
        return self.chunk_indices()

    few_objects: ClassVar[int] = 0
    """Stored objects that are found by name, one by one, at less cost than by listing all."""

    def has_object(self, idx: Shape) -> bool:
        """Return True if there is a stored object, inside of the shape or not."""
        return self.has_chunk(idx)

    def objects_around(self, before: Shape | None) -> Iterator[Shape]:
        """Indices of stored objects, with all that are not wholly inside of the shape.

        `before` is a shape outside of which nothing is stored, or None if none is known.
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
        """Indices of the stored objects that an interrupted load need not write again."""
        return self.object_indices()

    def del_object(self, idx: Shape) -> bool:
        """Delete a stored object; False if it was not there."""
        return self.del_chunk(idx)

    def del_objects(self, indices: Iterable[Shape]) -> None:
        """Delete stored objects, some of which may be gone already."""
        for idx in indices:
            self.del_object(idx)

    def trim_object(self, idx: Shape) -> None:
        """Make fill of what a stored object holds outside of the shape."""
        self.set_chunk_data(idx, self.get_chunk_data(idx))

    def resize(self, shape: Shape) -> None:
        """Change the extents; what is cut off is gone, also when the array grows again."""
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
        """Make the array longer by `count` on an axis, whatever others do at the same time.

        Returns
        -------
        tuple of int
            The shape before: where nobody else will write.
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
        """Delete what lies outside of the shape: whole objects, and the rims of others.

        Outside of the shape `before` nothing is stored; None if that is not known.
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
    """One block of an array, one object of the store.

    A handle: making one neither reads nor writes.
    """

    def __init__(self, dataset: BackendDataset, idx: Shape) -> None:
        self.dataset = dataset
        self.idx = idx

    @property
    def name(self) -> str:
        """Name of the chunk within its dataset, unique there."""
        return "chunk_" + "_".join(map(str, self.idx))

    @abstractmethod
    def get_data(self, slices: Slices | None = None) -> Any:
        """Read part of the chunk, or all of its full extent; fill if it was never written.

        Raises
        ------
        ChunkCorruptError
            What is stored is not a chunk of this dataset, or fails its checksum.
        """

    @abstractmethod
    def set_data(self, values: Any, slices: Slices | None = None) -> None:
        """Write part of the chunk, or all of its full extent.

        `values` broadcasts and casts as in a NumPy assignment. The rest of the chunk keeps
        its values (fill, if it was never written), whoever else writes to it at the time.
        """
