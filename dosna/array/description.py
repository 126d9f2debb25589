"""The description of a dataset: its shape, dtype, chunks and attributes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from dosna.array.attributes import Attributes
from dosna.array.home import ArrayHome
from dosna.backends.base import BackendDataset, Guarantees
from dosna.core.identity import Identified
from dosna.core.metadata import DatasetMetadata
from dosna.core.sizes import format_size
from dosna.core.types import Shape
from dosna.engines.base import R, Runner, collective
from dosna.errors import IncompleteDatasetWarning

if TYPE_CHECKING:
    from dosna.backends.zarrobjects import ZarrObjects

__all__ = ["Described"]


class Described(Identified):
    """The description of a dataset, in the names that NumPy and h5py have for it."""

    def __init__(self, connection: ArrayHome, instance: BackendDataset, runner: Runner) -> None:
        self.connection = connection
        self.instance = instance
        self.runner = runner
        self._noted = False

    @property
    def identity(self) -> tuple[Any, ...]:
        """The values that cooperating processes must agree on before they start."""
        return (*self.connection.identity, self.name, self.shape, str(self.dtype))

    def change(self, make: Callable[[], R]) -> R:
        """Change the stored metadata in one process, and hand the new metadata to all.

        Parameters
        ----------
        make : callable
            A function that changes the metadata of `instance`.

        Returns
        -------
        object
            The result of `make`, the same in all processes.
        """

        def changed() -> tuple[R, DatasetMetadata]:
            return make(), self.instance.metadata

        result, metadata = self.runner.once(changed)
        if metadata is not self.instance.metadata:
            self.instance.metadata = metadata
        return result

    @property
    def name(self) -> str:
        """Name within the connection."""
        return self.instance.name

    @property
    def shape(self) -> Shape:
        """Extent of each axis."""
        return self.instance.metadata.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""
        return self.instance.metadata.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.instance.metadata.size

    @property
    def nbytes(self) -> int:
        """Bytes of the whole array in memory, however it is stored."""
        return self.instance.metadata.nbytes

    @property
    def fillvalue(self) -> Any:
        """The value as which a chunk that was never written is read."""
        return self.instance.metadata.fillvalue

    @property
    def chunk_size(self) -> Shape:
        """Extent of a chunk on each axis."""
        return self.instance.metadata.chunk_size

    @property
    def chunks(self) -> Shape:
        """Alias of `chunk_size`: the name in h5py and zarr."""
        return self.chunk_size

    @property
    def chunk_grid(self) -> Shape:
        """Number of chunks along each axis."""
        return self.instance.metadata.chunk_grid

    @property
    def total_chunks(self) -> int:
        """Number of chunks in the grid, written or not."""
        return self.instance.metadata.total_chunks

    @property
    def dims(self) -> tuple[str | None, ...] | None:
        """Names of the axes, or None where they have none."""
        return self.instance.dims

    @property
    def shards(self) -> Shape | None:
        """Extent of a stored object of many chunks, or None where each chunk is an object."""
        return self.instance.shards

    @property
    def guarantees(self) -> Guarantees:
        """The guarantees that the store gives for this dataset; some stores are asked for them."""
        self.connection.check_connected()
        return self.instance.guarantees

    @property
    def attrs(self) -> Attributes:
        """The user's attributes: a mapping that is stored with the dataset.

        Values are JSON values, NumPy scalars and arrays. Each change is stored at once. Reading
        makes no request: it returns the attributes as this handle last saw them. See
        `dosna.array.attributes.Attributes`.

        Examples
        --------
        >>> ds.attrs["unit"] = "mm"
        >>> ds.attrs.update(author="Ada", year=2024)
        >>> dict(ds.attrs)
        {'unit': 'mm', 'author': 'Ada', 'year': 2024}
        """
        return Attributes(self)

    def check_writable(self) -> None:
        """Raise an error if chunks cannot be written.

        Raises
        ------
        ReadOnlyError
            The connection's mode is 'r', or the dataset is a link.
        NotConnectedError
            The connection is not open.
        """
        self.connection.check_writable()
        self.instance.check_writable()

    def __repr__(self) -> str:
        return (
            f"<dosna.Dataset {self.name!r}: shape {self.shape}, dtype {self.dtype}, "
            f"chunk_size {self.chunk_size}>"
        )

    def _repr_html_(self) -> str:
        rows = {
            "shape": self.shape,
            "dtype": self.dtype,
            "chunk_size": self.chunk_size,
            "chunks": self.total_chunks,
            "bytes": format_size(self.nbytes),
        }
        if self.incomplete:
            rows["state"] = "incomplete"
        from dosna.array.pictures import grid_picture, html_table

        picture = grid_picture(self.shape, self.chunk_size)
        return html_table(rows, picture, f"dosna.Dataset {self.name}")

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError(f"dataset {self.name!r} is a scalar and has no len()")
        return self.shape[0]

    def __bool__(self) -> bool:
        # A handle is true, as in h5py and zarr: otherwise its length would decide.
        return True

    @property
    def incomplete(self) -> bool:
        """True if data are still to come, or never came because writing was interrupted."""
        return self.instance.metadata.incomplete

    @property
    def origin(self) -> dict[str, Any] | None:
        """The origin of the data, as `EngineConnection.ingest` noted it, or None."""
        origin = self.instance.metadata.origin
        return None if origin is None else dict(origin)

    @property
    def linked(self) -> dict[str, Any] | None:
        """The place of the chunks of a link: 'url', 'name', 'fingerprint', …; or None."""
        link = self.instance.metadata.link
        return None if link is None else dict(link)

    @collective
    def mark_complete(self) -> None:
        """Mark an `incomplete` dataset as one whose data have all been written.

        Raises
        ------
        ReadOnlyError
            The connection's mode is 'r'.

        Examples
        --------
        >>> ds = con.create_dataset("later", shape=(4, 4), incomplete=True)
        >>> ds.mark_complete()
        >>> ds.incomplete
        False
        """
        self.connection.check_writable()
        self.change(lambda: self.instance.update(lambda m: m.replace(incomplete=False)))

    def note_reading(self) -> None:
        """Warn, once for each handle, if the dataset is read before it is complete."""
        if self.instance.metadata.incomplete and not self._noted:
            self._noted = True
            origin = self.instance.metadata.origin or {}
            source = f" from {origin['source']}" if "source" in origin else ""
            warnings.warn(
                f"dataset {self.name!r} is incomplete: writing its data{source} is not finished, "
                "and what is missing reads as the fill value. Run again what was interrupted, or "
                "call mark_complete()",
                IncompleteDatasetWarning,
                stacklevel=3,
            )

    def zarr_objects(self) -> ZarrObjects:
        """Return the dataset as the objects of a Zarr v3 array, for servers of them.

        Returns
        -------
        ZarrObjects
            The document and the chunks or shards: as they are stored where the backend stores
            Zarr, otherwise made when they are asked for.

        Raises
        ------
        TypeError
            Zarr does not have the dtype.

        Examples
        --------
        >>> objects = ds.zarr_objects()
        >>> objects.index("c/0/1"), objects.index("c/7")
        ((0, 1), None)
        >>> objects.get((0, 1)).size
        32
        """
        self.connection.check_connected()
        return self.instance.zarr_objects()
