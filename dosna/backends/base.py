"""Base classes of a backend: a connection, a dataset and a chunk that only store.

A backend has to implement only the abstract methods below. Slicing, the checking of
arguments, parallel work and everything that a user sees are implemented once, in
`dosna.array`. An object store needs still less: see `dosna.backends.stores.connection`.

Part of a chunk
---------------
Stored chunks always have the full `chunk_size`, also at the edge of the array; the part
outside of the array is fill. Indices named `slices` are in coordinates of the stored
chunk: a tuple with an integer, a slice of positive step or a 1-D integer array per axis, used
as NumPy uses it. None stands for the part of the chunk that lies inside the array.
"""

from __future__ import annotations

from dataclasses import dataclass

from dosna.backends.chunk import BackendDataChunk
from dosna.backends.connection import BackendConnection
from dosna.backends.dataset import BackendDataset
from dosna.backends.guarantees import ChunkState, Guarantees
from dosna.errors import ConnectionError, DatasetExistsError, DatasetNotFoundError

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
