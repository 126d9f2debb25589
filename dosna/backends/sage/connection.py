"""Datasets in Motr, the object store of the SAGE platform.

A dataset is a Zarr array as on every store of bytes. Its metadata are in an index, and its
chunks are objects. See `dosna.backends.sage.store` for the details, and ``docs/sage.md`` for the
rest.
"""

from __future__ import annotations

import os
from typing import ClassVar

from dosna.backends.base import Backend
from dosna.backends.sage.configuration import find, load
from dosna.backends.sage.records import Motr
from dosna.backends.sage.start import client
from dosna.backends.sage.store import SageStore
from dosna.backends.stores.connection import Store, StoreConnection
from dosna.core.launcher import process_rank
from dosna.core.options import check_seconds
from dosna.errors import ConfigurationError

__all__ = ["BACKEND", "SageConnection"]

_LONGEST_NAME = 200


class SageConnection(StoreConnection):
    """A connection to a cluster of Motr.

    Parameters
    ----------
    name : str
        The name of a namespace: connections of the same name share their datasets.
    conffile : path
        The path of the configuration file; see ``sage.sample.conf``.
    prefix_conffile : bool
        Whether each process has a file of its own, in the folder of `conffile`. For the default
        `conffile` that is ``<hostname>.<rank>.sage.conf``, or ``<rank>.sage.conf``. The rank is
        that of MPI, and 0 without MPI.
    timeout : float
        The seconds for the start of the client, and for each request.
    mode : {'a', 'r'}
        The access mode; 'r' refuses every change.
    """

    shared_between_processes = True
    notes: ClassVar[tuple[str, ...]] = (
        "the catalogue is on the cluster's first index service, which Motr does not replicate",
    )

    def __init__(
        self,
        name: str,
        conffile: str | os.PathLike[str] = "sage.conf",
        prefix_conffile: bool = False,
        timeout: float = 30.0,
        mode: str = "a",
    ) -> None:
        super().__init__(name, mode)
        if not name.isprintable() or len(name.encode()) > _LONGEST_NAME:
            raise ConfigurationError(
                f"a connection's name must be printable, of at most {_LONGEST_NAME} bytes, not "
                f"{name[:40]!r}"
            )
        if not isinstance(prefix_conffile, bool):
            raise ConfigurationError(f"prefix_conffile must be a bool, not {prefix_conffile!r}")
        check_seconds("timeout", timeout)
        self.conffile = os.path.abspath(conffile)
        self.prefix_conffile = prefix_conffile
        self.timeout = float(timeout)
        self.lease = 2.0 * self.timeout  # type: ignore[misc]

    def open_motr(self) -> Motr:
        """Return the client of this process, by its configuration file; the store uses it."""
        rank = process_rank() if self.prefix_conffile else 0
        return client(load(find(self.conffile, self.prefix_conffile, rank)), self.timeout)

    def open_store(self) -> Store:
        motr = self.open_motr()
        if self.mode == "a":
            motr.make_catalogue()
        return SageStore(motr, self.name)

    def check_place(self) -> None:
        self.store.get(self.document(""))


BACKEND = Backend(
    name="sage",
    connection=SageConnection,
    description="objects of Motr, the object store of the SAGE platform",
    url="https://github.com/Seagate/cortx-motr",
)
