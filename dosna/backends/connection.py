"""The template of a connection to a place that holds datasets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NoReturn, TypeVar

import numpy as np

from dosna.backends.absent import NOTHING, Absent
from dosna.backends.batch import Batch
from dosna.backends.dataset import BackendDataset
from dosna.core.metadata import DatasetMetadata
from dosna.core.names import Children, check_name, children_among
from dosna.core.types import Array
from dosna.errors import (
    ConfigurationError,
    DatasetNameError,
    DatasetNotFoundError,
    ReadOnlyError,
)

__all__ = ["BackendConnection"]

T = TypeVar("T")


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
            raise ConfigurationError(f"a connection's name must be a non-empty str, not {name!r}")
        if mode not in ("a", "r"):
            raise ConfigurationError(f"mode must be 'a' or 'r', not {mode!r}")
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
    def creates_together(self) -> bool:
        """True if `create_each` has several datasets under way, because requests take long."""
        return False

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
                    f"dataset name {name!r} contains {part!r}, which is the name of one of this "
                    "backend's own documents: choose another name"
                )
        return name

    def use_cache(self, limit: int, recheck: Literal["always", "open"]) -> None:
        """Keep decoded chunks in memory, before anything else is done with the connection.

        Parameters
        ----------
        limit : int
            The most bytes to keep.
        recheck : {'always', 'open'}
            When a chunk is compared with the store: whenever it is read, or once for each handle.

        Raises
        ------
        ConfigurationError
            The backend keeps no chunks in memory.
        """
        raise ConfigurationError(
            f"connection {self.name!r} cannot have a cache, as those to files and servers have: "
            "leave cache= out"
        )

    @abstractmethod
    def create_dataset(self, name: str, metadata: DatasetMetadata) -> BackendDataset:
        """Create a dataset, or raise DatasetExistsError. Of several concurrent calls, one wins.

        A backend adds its own options as keyword-only parameters and keeps those that it needs
        later in ``metadata.storage``. The name has been checked by the caller.
        """

    def create_whole(
        self, name: str, metadata: DatasetMetadata, values: Array, **options: Any
    ) -> BackendDataset | None:
        """Create a dataset of one chunk with its values, so that it is never seen without them.

        Nothing is done where that does not take fewer requests than the usual creation, or where
        something is in the place, which the usual creation then finds. The name has been checked.

        Parameters
        ----------
        name : str
            The name of the dataset.
        metadata : DatasetMetadata
            The description of the dataset.
        values : ndarray
            All values, of the dataset's shape.
        **options
            The options of `create_dataset`.

        Returns
        -------
        BackendDataset or None
            The dataset, or None if nothing was created.
        """
        return None

    def create_each(
        self,
        create: Callable[[T], object],
        items: Mapping[str, T],
        nbytes: int = 0,
        absent: Absent = NOTHING,
        groups: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    ) -> set[str]:
        """Call `create`, which creates a dataset and fills it, with the item of each name.

        Where requests take long, several calls are under way, in threads of the store, and the
        groups above the datasets are looked at once. The first error that `create` raises ends
        the work.

        Parameters
        ----------
        create : callable
            The function to call with each item.
        items : mapping
            The items by the name of the dataset. None of the names lies inside another.
        nbytes : int
            The memory that one item takes while it is worked on.
        absent : Absent
            The names that were absent a while ago; see `absent`.
        groups : mapping
            Attributes, in JSON form, that those of the groups may be made with that are absent.

        Returns
        -------
        set of str
            The groups that were made, with these attributes.
        """
        for item in items.values():
            create(item)
        return set()

    def batch(self) -> Batch | None:
        """Begin a batch of datasets; None where creating one after the other is as good.

        A batch belongs to the thread that has begun it.
        """
        return None

    def absent(self, names: Iterable[str]) -> Absent:
        """Return names at and below which nothing is stored, of those given and those above them.

        Only names that few requests can show to be absent are returned; others may be absent too.
        """
        return NOTHING

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

    def change_group_attrs(
        self, name: str, change: Callable[[dict[str, Any]], Mapping[str, Any]]
    ) -> None:
        """Replace the attributes of a group by a function of what they are.

        A backend that can do so lets no other writer change them in between. The function may
        then be called again.
        """
        self.set_group_attrs(name, change(self.group_attrs(name)))

    def _no_groups(self) -> ConfigurationError:
        return ConfigurationError(
            f"connection {self.name!r} cannot store attributes of groups: use those of datasets"
        )

    def names_in(self, group: str) -> list[str]:
        """Return the sorted names of the datasets in a group: those that begin with it and '/'."""
        return [name for name in self.dataset_names() if name.startswith(group + "/")]

    def children(self, group: str) -> Children:
        """Return the members of a group; '' is the outermost.

        A backend that can look at one group alone does not list what is in those below.
        """
        return children_among(self.names_in(group) if group else self.dataset_names(), group)

    def has_dataset(self, name: str) -> bool:
        """Return True if there is a dataset of that name."""
        try:
            self.get_dataset(name)
        except DatasetNotFoundError:
            return False
        return True
