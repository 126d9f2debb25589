"""A connection as users see it: a mapping of names to datasets.

Each class below it has one duty: `Place`, `Groups`, `Creating` and `Doors`. `create_dataset` is
longer than other methods, for it documents twelve parameters; its body has fifteen lines.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike

from dosna.array.creating import Creating
from dosna.array.dataset import EngineDataset
from dosna.array.doors import Doors
from dosna.array.groups import Groups
from dosna.array.listing import Listing
from dosna.array.lookup import Lookup
from dosna.array.place import Place, use_cache
from dosna.array.values import is_source, shape_of
from dosna.backends.base import BackendConnection
from dosna.core.metadata import check_extents, new_metadata
from dosna.core.names import check_name
from dosna.core.options import refuse_unknown
from dosna.core.progress import Progress
from dosna.core.sizes import Limit
from dosna.core.text import TEXT, is_text
from dosna.core.values import as_dtype
from dosna.engines.base import Runner, collective
from dosna.engines.cpu import CpuRunner
from dosna.engines.work.boxes import plain
from dosna.errors import (
    DatasetExistsError,
    DatasetNameError,
    DatasetNotFoundError,
    IncompatibleError,
)
from dosna.registry import load
from dosna.settings import current, works_together

__all__ = ["EngineConnection"]


class EngineConnection(Doors, Groups, Lookup, Creating, Place):
    """A place with named datasets, on a backend and under an engine.

    Use it in a ``with`` block, or call `connect` and `disconnect`. It is a mapping of names to
    datasets: ``con[name]``, ``name in con``, ``del con[name]``, ``len(con)``, iteration over the
    sorted names, `get`, `keys`, `values` and `items`. Only `create_dataset` adds to it. The
    examples of the methods use the connection of this one.

    Parameters
    ----------
    name : str or path
        The name of the place, which the backend interprets: a namespace (ram), a folder (hdf5).
    backend, engine : str, optional
        The backend and the engine; by default those that `dosna.use` chose. Both stay as they are
        for this connection.
    engine_kw : mapping, optional
        The keywords of the engine; by default those that `dosna.use` was given for it.
    mode : {'a', 'r'}, optional
        The mode of access: 'a', the default, or 'r', which refuses every change.
    cache : int or str, optional
        The most bytes of decoded chunks to keep in memory, such as '256 MiB', on the
        backends that read chunks from files or over a network.
    recheck : {'always', 'open'}
        When such a chunk is compared with the store: whenever it is read, or once for a handle.
    **options
        Further keywords of the backend.

    Raises
    ------
    IncompatibleError
        The engine and the backend cannot work together.
    ConfigurationError
        The backend has no cache, or a value is bad.
    TypeError
        The backend has no such option.

    Examples
    --------
    >>> import dosna as dn
    >>> with dn.Connection("scans", backend="ram") as con:
    ...     ds = con.create_dataset("entry/data", shape=(4, 6), dtype="int16")
    ...     ds[0] = 1
    >>> con.connect()
    >>> list(con)
    ['entry/data']
    >>> [ds.shape for ds in con.values()], con.get("entry/dark")
    ([(4, 6)], None)
    """

    instance: BackendConnection
    runner: Runner
    _asked: weakref.ref[Listing] | None = None

    def __new__(
        cls,
        name: str | os.PathLike[str],
        *,
        backend: str | None = None,
        engine: str | None = None,
        engine_kw: Mapping[str, Any] | None = None,
        mode: str | None = None,
        cache: int | str | None = None,
        recheck: Literal["always", "open"] = "always",
        **options: Any,
    ) -> EngineConnection:
        if cls is EngineConnection:
            own = current(engine=engine).engine.connection
            cls = (load(own) if isinstance(own, str) else own) or cls
        return object.__new__(cls)

    def __init__(
        self,
        name: str | os.PathLike[str],
        *,
        backend: str | None = None,
        engine: str | None = None,
        engine_kw: Mapping[str, Any] | None = None,
        mode: str | None = None,
        cache: int | str | None = None,
        recheck: Literal["always", "open"] = "always",
        **options: Any,
    ) -> None:
        chosen = current(engine, backend, engine_kw)
        if not works_together(chosen.engine, chosen.backend):
            raise IncompatibleError(
                f"engine {chosen.engine.name!r} with {dict(chosen.engine.params)} works in "
                f"several processes, and only one sees what backend {chosen.backend.name!r} "
                "holds: use another backend, or threads"
            )
        made = chosen.backend.connection
        if mode is not None:
            options["mode"] = mode
        refuse_unknown(options, made.__init__, f"backend {chosen.backend.name!r}")
        self.instance = made(os.fspath(name) if isinstance(name, os.PathLike) else name, **options)
        use_cache(self.instance, cache, recheck)
        self.runner = chosen.engine.runner(**chosen.engine.params)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in dict(self.__dict__).items() if k != "_asked"}

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, Any]]:
        return (self.name,), {}

    def __repr__(self) -> str:
        state = "connected" if self.connected else "not connected"
        return f"<dosna.Connection {self.name!r} ({type(self.instance).__name__}): {state}>"

    def beside(self, instance: BackendConnection) -> EngineConnection:
        """Return a connection under the same engine to another place.

        Parameters
        ----------
        instance : BackendConnection
            A connection that a backend has made. It need not be connected.

        Returns
        -------
        EngineConnection
            The connection that wraps `instance`.
        """
        made: EngineConnection = object.__new__(type(self))
        made.instance, made.runner = instance, self.runner
        return made

    def in_this_process(self) -> EngineConnection:
        """Return a connection to the same place whose work is all done by this process.

        Returns
        -------
        EngineConnection
            A connection under the engine ``cpu`` that shares this connection's backend.
        """
        made: EngineConnection = object.__new__(EngineConnection)
        made.instance, made.runner = self.instance, CpuRunner()
        return made

    @collective
    def create_dataset(
        self,
        name: str,
        shape: int | Sequence[int] | None = None,
        dtype: DTypeLike | None = None,
        fillvalue: Any = None,
        data: Any = None,
        chunk_size: int | Sequence[int] | None = None,
        *,
        attrs: Mapping[str, Any] | None = None,
        incomplete: bool = False,
        origin: Mapping[str, Any] | None = None,
        progress: Progress = None,
        memory_limit: Limit = None,
        **options: Any,
    ) -> EngineDataset:
        """Create a dataset, and fill it if `data` is given.

        Parameters
        ----------
        name : str
            The name of the dataset: parts joined by '/', like ``entry/data``.
        shape : int or sequence of int, optional
            The extent of each axis; by default that of the data.
        dtype : dtype, optional
            The type of the elements, to which data are converted; by default that of the data, or
            float32. ``str`` and ``np.dtypes.StringDType()`` are text of variable length.
        fillvalue : scalar, optional
            The value that is read where nothing was written; by default the dtype's zero.
        data : array_like, optional
            The values to write: anything with shape, dtype and slicing, which is read chunk by
            chunk; see `EngineDataset.load`.
        chunk_size : int or sequence of int, optional
            The extent of a chunk; by default one of about 1 MiB.
        attrs : mapping, optional
            The attributes that the dataset has from the beginning.
        incomplete : bool
            True to mark the dataset as one whose data are still to come. Reading it warns, once
            for each handle, until its `mark_complete` was called.
        origin : mapping, optional
            The origin of the data, in JSON values; kept with the dataset.
        progress : bool or callable, optional
            True for a progress bar, or a callback ``(done, total)`` in chunks that are loaded.
        memory_limit : int or str, optional
            The most bytes of blocks held at a time while data are loaded, such as '512M'.
        **options
            The options of the backend, such as ``compression`` (hdf5).

        Returns
        -------
        EngineDataset
            The new dataset. If loading the data fails, it is deleted again.

        Raises
        ------
        DatasetExistsError
            A dataset of that name exists.
        DatasetNameError
            The name is illegal, or lies inside or around that of an existing dataset.
        ValueError
            `shape` is not that of `data`.
        TypeError
            The backend has no such option, or cannot store text of variable length.

        Examples
        --------
        >>> con.create_dataset("tomo", shape=(100, 100), dtype="uint16", chunk_size=(64, 64))
        <dosna.Dataset 'tomo': shape (100, 100), dtype uint16, chunk_size (64, 64)>
        >>> angles = con.create_dataset("angles", data=[0.0, 0.5], attrs={"unit": "deg"})
        """
        self.check_writable()
        if data is not None:
            if not is_source(data):
                data = plain(data)
            shape = shape_of(data, shape)
            if dtype is None:
                # Missing values are refused where they occur.
                dtype = TEXT if is_text(data.dtype) else data.dtype
        metadata = new_metadata(shape, dtype, fillvalue, chunk_size, attrs)
        metadata = metadata.replace(incomplete=incomplete, origin=origin)
        return self.create_with(name, metadata, options, data, progress, memory_limit)

    @collective
    def require_dataset(
        self,
        name: str,
        shape: int | Sequence[int] | None = None,
        dtype: DTypeLike | None = None,
        *,
        exact: bool = False,
        **options: Any,
    ) -> EngineDataset:
        """Open a dataset, or create it if there is none.

        Parameters
        ----------
        name : str
            The name of the dataset.
        shape : int or sequence of int, optional
            The extent of each axis; by default that of ``data``, if that is given. An existing
            dataset must have this shape.
        dtype : dtype, optional
            The type of the elements. An existing dataset must have a dtype to which this one casts
            safely, or exactly this one if `exact` is True.
        exact : bool
            True to require that an existing dataset has exactly `dtype`.
        **options
            Further parameters of `create_dataset`, used if the dataset is created.

        Returns
        -------
        EngineDataset
            The dataset.

        Raises
        ------
        TypeError
            There is a dataset of that name with another shape or dtype (as in h5py).

        Examples
        --------
        >>> made = con.require_dataset("tomo", shape=3)
        >>> con.require_dataset("tomo", shape=3).shape
        (3,)
        """
        try:
            if not self.runner.once(lambda: self.has_dataset(name)):
                return self.create_dataset(name, shape, dtype, **options)
        except DatasetExistsError:
            pass  # Somebody else made it just now.
        found = self.wrap(self.runner.once(lambda: self.instance.get_dataset(check_name(name))))
        if shape is None and options.get("data") is not None:
            shape = np.shape(options["data"])
        _check_found(found, shape, dtype, exact)
        return found

    def get_dataset(self, name: str) -> EngineDataset:
        """Open a dataset. The same as ``con[name]``.

        Parameters
        ----------
        name : str
            The name of the dataset.

        Returns
        -------
        EngineDataset
            The dataset.

        Raises
        ------
        DatasetNotFoundError
            There is no dataset of that name.

        Examples
        --------
        >>> con.get_dataset("entry/data")
        <dosna.Dataset 'entry/data': shape (4, 6), dtype int16, chunk_size (4, 6)>
        """
        self.check_connected()
        try:
            return self.wrap(self.instance.get_dataset(check_name(name)))
        except DatasetNameError as error:
            raise DatasetNotFoundError(str(error)) from None

    def has_dataset(self, name: str) -> bool:
        """Return True if there is a dataset of that name. The same as ``name in con``.

        Parameters
        ----------
        name : str
            The name to look up. For an illegal name the answer is False.

        Returns
        -------
        bool
            True if the dataset exists.

        Examples
        --------
        >>> con.has_dataset("entry/data"), "entry" in con
        (True, False)
        """
        self.check_connected()
        try:
            return self.instance.has_dataset(check_name(name))
        except DatasetNameError:
            return False

    @collective
    def del_dataset(self, name: str) -> None:
        """Delete a dataset with all its chunks. The same as ``del con[name]``.

        Parameters
        ----------
        name : str
            The name of the dataset.

        Raises
        ------
        DatasetNotFoundError
            There is no dataset of that name.
        DatasetNameError
            The name is illegal.

        Examples
        --------
        >>> con.del_dataset("entry/data")
        >>> list(con)
        []
        """
        self.check_writable()
        check_name(name)
        self.runner.once(lambda: self.instance.del_dataset(name))

    def __getitem__(self, name: str) -> EngineDataset:
        return self.get_dataset(name)

    def __delitem__(self, name: str) -> None:
        self.del_dataset(name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.has_dataset(name)

    def __iter__(self) -> Iterator[str]:
        self.check_connected()
        names = Listing(self.instance.dataset_names)
        self._asked = weakref.ref(names)
        return names

    def __len__(self) -> int:
        self.check_connected()
        names = self.instance.dataset_names()
        # list() and sorted() ask for the length before the first step of the iterator that they
        # have just made. Listing the store a second time for that would cost requests.
        asked, self._asked = self._asked, None
        iterator = None if asked is None else asked()
        if iterator is not None:
            iterator.take(names)
        return len(names)

    def __bool__(self) -> bool:
        return True


def _check_found(
    found: EngineDataset, shape: int | Sequence[int] | None, dtype: DTypeLike | None, exact: bool
) -> None:
    """Raise TypeError if a dataset is not what `require_dataset` requires."""
    if shape is not None and check_extents(shape, "shape") != found.shape:
        raise TypeError(
            f"dataset {found.name!r} has shape {found.shape}, not {shape}: open it by its name, "
            "or require its shape"
        )
    if dtype is not None:
        kind = as_dtype(dtype)
        if not np.can_cast(kind, found.dtype, "no" if exact else "safe"):
            raise TypeError(
                f"dataset {found.name!r} has dtype {found.dtype}, not {kind}: open it by its "
                "name, or require its dtype"
            )
