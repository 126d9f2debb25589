"""A connection as users see it: names, checks, and datasets wrapped by the engine."""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import DTypeLike

from dosna.array.dataset import EngineDataset, Limit
from dosna.array.home import ArrayHome
from dosna.array.values import is_source
from dosna.array.verbs import registry as verbs
from dosna.backends.base import BackendConnection, BackendDataset
from dosna.core.metadata import DatasetMetadata, new_metadata
from dosna.core.names import check_name
from dosna.core.options import refuse_unknown
from dosna.core.patterns import matching
from dosna.core.progress import Progress
from dosna.core.request import IngestRequest
from dosna.core.text import TEXT, is_text
from dosna.core.values import as_dtype, check_fillvalue, decode_value, encode_attrs
from dosna.engines.base import Runner, collective
from dosna.engines.cpu import CpuRunner
from dosna.engines.work.boxes import plain
from dosna.errors import (
    DatasetExistsError,
    DatasetNameError,
    DatasetNotFoundError,
    DosnaError,
    IncompatibleError,
    NotConnectedError,
)
from dosna.registry import load
from dosna.settings import current, works_together

if TYPE_CHECKING:
    from dosna.core.report import IngestReport


class _Names(Iterator[str]):
    """An iterator over names that are listed when the first is asked for, or earlier."""

    def __init__(self, listed: Callable[[], list[str]]) -> None:
        self._listed = listed
        self._rest: Iterator[str] | None = None

    def take(self, names: list[str]) -> None:
        """Use names that were listed just now, unless the iteration has begun."""
        if self._rest is None:
            self._rest = iter(names)

    def __next__(self) -> str:
        if self._rest is None:
            self._rest = iter(self._listed())
        return next(self._rest)


class EngineConnection(ArrayHome):
    """A place with named datasets, on a backend and under an engine.

    Use it in a ``with`` block, or call `connect` and `disconnect`. It is a mapping of names to
    datasets: ``con[name]``, ``name in con``, ``del con[name]``, ``len(con)``, and iteration over
    the sorted names.

    Parameters
    ----------
    name : str
        The name of the place, which the backend interprets: a namespace (ram), a folder (hdf5).
    backend, engine : str, optional
        The backend and the engine; by default those that `dosna.use` chose. Both stay as they are
        for this connection.
    engine_kw : mapping, optional
        The keywords of the engine; by default those that `dosna.use` was given for it.
    mode : {'a', 'r'}
        The mode of access. 'r' refuses every change.
    **options
        Further keywords of the backend.

    Raises
    ------
    IncompatibleError
        The engine and the backend cannot work together.
    TypeError
        The backend has no such option.

    Examples
    --------
    >>> import dosna as dn
    >>> with dn.Connection("scans", backend="ram") as con:
    ...     ds = con.create_dataset("tomo", shape=(100, 100), dtype="uint16")
    ...     list(con)
    ['tomo']
    """

    dataset_class: type[EngineDataset] = EngineDataset
    instance: BackendConnection
    runner: Runner

    def __new__(cls, name: str, **options: Any) -> EngineConnection:
        if cls is EngineConnection:
            own = current(engine=options.get("engine")).engine.connection
            cls = (load(own) if isinstance(own, str) else own) or cls
        return object.__new__(cls)

    def __init__(
        self,
        name: str,
        *,
        backend: str | None = None,
        engine: str | None = None,
        engine_kw: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        chosen = current(engine, backend, engine_kw)
        if not works_together(chosen.engine, chosen.backend):
            raise IncompatibleError(
                f"engine {chosen.engine.name!r} with {dict(chosen.engine.params)} works in "
                f"several processes, and what backend {chosen.backend.name!r} holds is seen by "
                "one alone: use another backend, or threads"
            )
        made = chosen.backend.connection
        refuse_unknown(options, made.__init__, f"backend {chosen.backend.name!r}")
        self.instance = made(name, **options)
        self.runner = chosen.engine.runner(**chosen.engine.params)

    _asked: weakref.ref[_Names] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_asked"}

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

    @property
    def name(self) -> str:
        """The name that the connection was made with."""
        return self.instance.name

    @property
    def mode(self) -> str:
        """'a', or 'r' for a connection that refuses every change."""
        return self.instance.mode

    def make_place(self) -> bool:
        """Create what `connect` needs to exist, such as a folder, if its surroundings exist.

        Returns
        -------
        bool
            True if it did not exist before.
        """
        return self.instance.make_place()

    def remove_place(self) -> None:
        """Remove what `make_place` has created, if it is still empty."""
        self.instance.remove_place()

    @property
    def connected(self) -> bool:
        """True between `connect` and `disconnect`."""
        return self.instance.connected

    def connect(self) -> None:
        """Connect to the store. Connecting twice does nothing.

        Raises
        ------
        dosna.errors.ConnectionError
            The store cannot be reached, or refuses the connection.
        """
        self.instance.connect()

    def disconnect(self) -> None:
        """Disconnect from the store. Disconnecting twice does nothing."""
        self.instance.disconnect()

    def __enter__(self) -> EngineConnection:
        self.connect()
        return self

    def __exit__(self, *exc: object) -> None:
        self.disconnect()

    def check_connected(self) -> None:
        """Raise an error if the connection is not open.

        Raises
        ------
        NotConnectedError
            The connection is used before `connect` or after `disconnect`.
        """
        if not self.instance.connected:
            raise NotConnectedError(
                f"connection {self.name!r} is not connected: use it within `with`, or call "
                "connect() first"
            )

    def check_writable(self) -> None:
        """Raise an error if the connection is not open for writing.

        Raises
        ------
        NotConnectedError
            The connection is used before `connect` or after `disconnect`.
        ReadOnlyError
            The connection's mode is 'r'.
        """
        self.check_connected()
        self.instance.check_writable()

    # -- datasets -------------------------------------------------------------------------

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
            The type of the elements; by default that of the data, or float32 without data. Data of
            another dtype are converted. ``str`` is text of variable length, as is
            ``np.dtypes.StringDType()``.
        fillvalue : scalar, optional
            The value that is read where nothing was written; by default the dtype's zero.
        data : array_like, optional
            The values to write: anything with shape, dtype and slicing, which is read chunk by
            chunk; see `EngineDataset.load`.
        chunk_size : int or sequence of int, optional
            The extent of a chunk; by default about 1 MiB, see
            `dosna.core.metadata.choose_chunk_size`.
        attrs : mapping, optional
            The attributes that the dataset has from the beginning.
        incomplete : bool
            True to mark the dataset as one whose data are still to come. Reading it warns, once
            for each handle, until its `mark_complete` was called.
        origin : mapping, optional
            The origin of the data, in JSON values; kept with the dataset.
        progress : bool or callable, optional
            True for a progress bar while the data are loaded, or a callback ``(done, total)`` in
            chunks.
        memory_limit : int or str, optional
            The most bytes of blocks held at a time while the data are loaded, such as '512M'.
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
        >>> import dosna as dn
        >>> con = dn.Connection("create", backend="ram")
        >>> con.connect()
        >>> con.create_dataset("tomo", shape=(100, 100), dtype="uint16", chunk_size=(64, 64))
        <dosna.Dataset 'tomo': shape (100, 100), dtype uint16, chunk_size (64, 64)>
        >>> ds = con.create_dataset("angles", data=[0.0, 0.5, 1.0], attrs={"unit": "deg"})
        >>> ds[1:]
        array([0.5, 1. ])
        """
        self.check_writable()
        if data is not None:
            if not is_source(data):
                data = plain(data)
            wanted = (shape,) if isinstance(shape, (int, np.integer)) else shape
            if wanted is not None and tuple(wanted) != tuple(data.shape):
                raise ValueError(f"shape {tuple(wanted)} is not that of data, {tuple(data.shape)}")
            shape = tuple(data.shape)
            if dtype is None:
                # Missing values are refused where they occur.
                dtype = TEXT if is_text(data.dtype) else data.dtype
        metadata = new_metadata(shape, dtype, fillvalue, chunk_size, attrs)
        metadata = metadata.replace(incomplete=incomplete, origin=origin)
        return self.create_filled(
            lambda: self.create_described(name, metadata, options), data, progress, memory_limit
        )

    def create_like(
        self, model: EngineDataset, name: str, dtype: Any, *, incomplete: bool = False
    ) -> EngineDataset:
        """Create an empty dataset chunked and stored as `model` is, with its attributes.

        Parameters
        ----------
        model : EngineDataset
            The dataset whose shape, chunks, attributes and backend options are used.
        name : str
            The name of the new dataset.
        dtype : dtype
            The type of its elements. The fill value is that of `model` where this dtype has it, or
            zero.
        incomplete : bool
            True to mark the dataset as one whose data are still to come.

        Returns
        -------
        EngineDataset
            The new dataset.
        """
        self.check_writable()
        like = model.instance.metadata
        try:
            fillvalue = check_fillvalue(like.fillvalue, dtype)
        except ValueError:
            fillvalue = None
        metadata = new_metadata(like.shape, dtype, fillvalue, like.chunk_size)
        metadata = metadata.replace(attrs=like.attrs, incomplete=incomplete)
        return self.create_described(name, metadata, model.instance.create_options)

    def create_filled(
        self,
        create: Callable[[], EngineDataset],
        data: Any,
        progress: Progress,
        memory_limit: Limit,
    ) -> EngineDataset:
        """Create a dataset and load it. If loading fails, delete the dataset again.

        Parameters
        ----------
        create : callable
            A function that creates the dataset.
        data : array_like or None
            The values to load; None to load nothing.
        progress : bool or callable, optional
            True for a progress bar, or a callback ``(done, total)`` in chunks.
        memory_limit : int or str, optional
            The most bytes of blocks held at a time, such as '512M'.

        Returns
        -------
        EngineDataset
            The new dataset.
        """
        made = create()
        if data is not None:
            try:
                # A dtype that the caller asked for is intended: convert as NumPy does.
                made.load_values(data, progress=progress, memory_limit=memory_limit)
            except BaseException:
                self.discard(made)
                raise
        return made

    def discard(self, made: EngineDataset) -> None:
        """Delete a dataset made in vain, unless somebody else has replaced it since.

        Parameters
        ----------
        made : EngineDataset
            The dataset to delete.
        """

        def delete() -> None:
            with suppress(DatasetNotFoundError):
                self.instance.del_dataset(made.name, made.instance)

        self._undo(made.name, delete)

    def _undo(self, name: str, delete: Callable[[], None]) -> None:
        why = sys.exception()
        try:
            self.runner.once(delete)
        except DosnaError as error:
            if why is None:
                raise
            # The first error is the one to raise.
            why.add_note(f"dataset {name!r} could not be deleted again: {error}")

    @contextmanager
    def replacing(
        self, name: str, metadata: DatasetMetadata, options: Mapping[str, Any]
    ) -> Iterator[BackendDataset]:
        """Create a dataset that takes the place of another at the end of the block; collective.

        If the block raises, the old dataset is as it was. Where the backend cannot exchange two
        datasets, the old one is deleted before the block begins, but only after the description of
        the new one was checked; what the block has written to the new one then stays.

        Parameters
        ----------
        name : str
            The name of both datasets.
        metadata : DatasetMetadata
            The description of the new dataset.
        options : mapping
            The options of the backend's `create_dataset`.

        Yields
        ------
        BackendDataset
            The new dataset, to be wrapped by `wrap`. It must not be used after the block.
        """
        self.check_writable()

        def begin() -> tuple[BackendDataset, str | None]:
            store = self.instance
            self.check_described(name, metadata, options)
            temporary = store.begin_replacement(name)
            if temporary is None:
                with suppress(DatasetNotFoundError):
                    store.del_dataset(name)
                return store.create_dataset(name, metadata, **options), None
            try:
                made = store.create_dataset(temporary, metadata, **options)
            except BaseException:
                store.end_replacement(temporary)
                raise
            made.name = name
            return made, temporary

        made, temporary = self.runner.once(begin)
        if temporary is None:
            yield made
            return
        try:
            yield made
            self.runner.once(lambda: self.instance.replace_dataset(temporary, name))
        except BaseException:
            self._undo(name, lambda: self.instance.end_replacement(temporary))
            raise

    def create_described(
        self, name: str, metadata: DatasetMetadata, options: Mapping[str, Any]
    ) -> EngineDataset:
        """Create an empty dataset from its description; collective, as `create_dataset` is.

        Parameters
        ----------
        name : str
            The name of the dataset.
        metadata : DatasetMetadata
            The description of the dataset.
        options : mapping
            The options of the backend's `create_dataset`.

        Returns
        -------
        EngineDataset
            The new dataset.
        """
        self._refuse(metadata, options)

        def create() -> BackendDataset:
            self.check_free(name)
            return self.instance.create_dataset(name, metadata, **options)

        return self.wrap(self.runner.once(create))

    def check_described(
        self, name: str, metadata: DatasetMetadata, options: Mapping[str, Any]
    ) -> None:
        """Raise the errors that creating a dataset would raise, whatever exists under its name.

        The name, the description and the options are checked as far as is possible without
        creating anything.

        Parameters
        ----------
        name : str
            The name of the dataset.
        metadata : DatasetMetadata
            The description of the dataset.
        options : mapping
            The options of the backend's `create_dataset`.
        """
        self._refuse(metadata, options)
        self.instance.check_name(name)
        self.instance.check_dataset(name, metadata, **options)

    def _refuse(self, metadata: DatasetMetadata, options: Mapping[str, Any]) -> None:
        kind = type(self.instance).__name__
        refuse_unknown(options, self.instance.create_dataset, f"create_dataset of {kind}")
        if is_text(metadata.dtype) and not self.instance.stores_text:
            raise TypeError(
                f"{kind} has no datasets of text of variable length: give a dtype of fixed "
                "length, such as 'U20'"
            )

    def check_free(self, name: str) -> None:
        """Raise an error if a name is taken or illegal, or if the connection is read-only.

        The check for clashes with names inside or around it is the backend's, when it creates the
        dataset.

        Parameters
        ----------
        name : str
            The name to check.

        Raises
        ------
        DatasetExistsError
            A dataset of that name exists.
        DatasetNameError
            The name is illegal.
        """
        self.check_writable()
        self.instance.check_name(name)
        if self.instance.has_dataset(name):
            raise DatasetExistsError(
                f"dataset {name!r} exists in connection {self.name!r}: delete it first, or use "
                "require_dataset to open it"
            )

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
        >>> import dosna as dn
        >>> con = dn.Connection("require", backend="ram")
        >>> con.connect()
        >>> ds = con.require_dataset("tomo", shape=(4, 4), dtype="float32")
        >>> ds[0] = 1
        >>> con.require_dataset("tomo", shape=(4, 4), dtype="float32")[0]
        array([1., 1., 1., 1.], dtype=float32)
        """
        try:
            if not self.runner.once(lambda: self.has_dataset(name)):
                return self.create_dataset(name, shape, dtype, **options)
        except DatasetExistsError:
            pass  # Somebody else made it just now.
        found = self.wrap(self.runner.once(lambda: self.instance.get_dataset(check_name(name))))
        data = options.get("data")
        if shape is None and data is not None:
            shape = np.shape(data)
        wanted = (shape,) if isinstance(shape, (int, np.integer)) else shape
        if wanted is not None and tuple(wanted) != found.shape:
            raise TypeError(f"dataset {name!r} has shape {found.shape}, not {tuple(wanted)}")
        if dtype is not None:
            kind = as_dtype(dtype)
            if not np.can_cast(kind, found.dtype, "no" if exact else "safe"):
                raise TypeError(f"dataset {name!r} has dtype {found.dtype}, not {kind}")
        return found

    @collective
    def ingest(
        self,
        source: Any,
        name: str | None = None,
        *,
        select: str | Iterable[str] | None = None,
        chunk_size: int | str | Sequence[int] | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        overwrite: bool = False,
        kind: str | None = None,
        progress: Progress = None,
        memory_limit: Limit = None,
        **options: Any,
    ) -> IngestReport:
        """Create datasets from the arrays of a file or another source.

        A dataset is marked incomplete until all of it is there. After an interruption the same
        call continues where it stopped, if the source is still the same. What was completed before
        the interruption stays.

        Parameters
        ----------
        source : str, path, object or Source
            The source to read; see `dosna.sources.open_source`.
        name : str, optional
            The name of the dataset, if the source is one array; otherwise a prefix, which is
            followed by '/' and the name of each array. By default datasets have the names that
            arrays have in the source.
        select : str or iterable of str, optional
            Names of arrays, or patterns of names such as ``entry1/*/data``. The name of a group
            stands for all that is in it. By default all arrays are ingested.
        chunk_size : int, str or sequence of int, optional
            The extent of a chunk on each axis, for arrays of so many axes; or a size in bytes such
            as '4 MiB', to which chunks come close that suit the source's. By default the source's
            own chunks, see `dosna.sources.chunking.choose_chunks`.
        on_error : {'raise', 'skip'}
            The action for an array that cannot be represented or read, for whatever reason.
        overwrite : bool
            True to replace datasets that are not from the same source, or from another state of
            it.
        kind : str, optional
            The kind of source, where its name does not tell: 'hdf5', 'zarr', 'npy', ….
        progress : bool or callable, optional
            True for a progress bar, or a callback ``(done, total)`` in bytes of all arrays.
        memory_limit : int or str, optional
            The most bytes of blocks held at a time, such as '512M'.
        **options
            The options of the source, such as ``endpoint_url``, and of the backend's
            `create_dataset`, such as ``compression``.

        Returns
        -------
        IngestReport
            The names of the datasets that were made, of those that existed already, and of the
            arrays that were skipped.

        Raises
        ------
        SourceError
            The source cannot be read. Its subclasses are RefusedError (an array cannot be
            represented), SourceChangedError and SourceNotFoundError.
        DatasetExistsError
            A dataset exists that is not from this source.

        Examples
        --------
        >>> import dosna as dn
        >>> import numpy as np
        >>> con = dn.Connection("ingest", backend="ram")
        >>> con.connect()
        >>> report = con.ingest({"dark": np.zeros(3), "flat": np.ones(3)}, "entry")
        >>> report.made
        ['entry/dark', 'entry/flat']
        >>> con["entry/flat"][...]
        array([1., 1., 1.])
        """
        self.check_writable()
        report: IngestReport = verbs.get("ingest")(
            self,
            source,
            IngestRequest(
                name,
                select,
                chunk_size,
                on_error,
                overwrite,
                kind,
                progress,
                memory_limit,
                options,
            ),
        )
        return report

    @collective
    def link(
        self,
        source: Any,
        name: str | None = None,
        *,
        select: str | Iterable[str] | None = None,
        unlinkable: Literal["raise", "ingest"] = "raise",
        on_error: Literal["raise", "skip"] = "raise",
        overwrite: bool = False,
        kind: str | None = None,
        progress: Progress = None,
        memory_limit: Limit = None,
        **options: Any,
    ) -> IngestReport:
        """Create datasets that show the arrays of an HDF5 file, whose data stay where they are.

        A linked dataset is read like any other, by ranges of bytes of the file, and is never
        written to. It has the chunks that the array has, or rows of about 1 MiB. The file must
        stay as it is: once it was changed or deleted, reading raises an error. Scalars and other
        small arrays that do not lie in chunks are ingested.

        Parameters
        ----------
        source : str or path
            The path of a local file, or an ``s3://bucket/key`` URL; with a path inside the file if
            wanted.
        name : str, optional
            The name of the dataset, if the source is one array; otherwise a prefix, which is
            followed by '/' and the name of each array. By default datasets have the names that
            arrays have in the source.
        select : str or iterable of str, optional
            Names of arrays, or patterns of names such as ``entry1/*/data``. The name of a group
            stands for all that is in it. By default all arrays are linked.
        unlinkable : {'raise', 'ingest'}
            The action for an array that cannot be linked, such as one of strings of variable
            length, or with a filter that dosna does not know: raise an error (or with
            ``on_error='skip'`` leave the array out), or ingest it.
        on_error : {'raise', 'skip'}
            The action for an array that cannot be represented or read, for whatever reason.
        overwrite : bool
            True to replace datasets that are not from the same source, or from another state of
            it.
        kind : str, optional
            The kind of source, where its name does not tell.
        progress : bool or callable, optional
            True for a progress bar, or a callback ``(done, total)`` in bytes of all arrays.
        memory_limit : int or str, optional
            The most bytes of blocks held at a time for what is ingested, such as '512M'.
        **options
            The options of the source, such as ``endpoint_url``, which are kept with the datasets
            to read by (none is a secret); and the options of the backend's `create_dataset`, for
            what is ingested.

        Returns
        -------
        IngestReport
            The report of the call. Its `linked` has the names of the datasets that are links.

        Raises
        ------
        SourceError
            The source cannot be read. The subclass RefusedError names what cannot be linked, and
            why.
        DatasetExistsError
            A dataset exists that is not a link to this array.

        Examples
        --------
        Link all arrays of a file, and read one of them::

            con.link("/data/scan.nxs", "scan")
            con["scan/entry/data"][0]
        """
        self.check_writable()
        report: IngestReport = verbs.get("ingest")(
            self,
            source,
            IngestRequest(
                name,
                select,
                None,
                on_error,
                overwrite,
                kind,
                progress,
                memory_limit,
                options,
                unlinkable,
            ),
        )
        return report

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
        >>> import dosna as dn
        >>> con = dn.Connection("get", backend="ram")
        >>> con.connect()
        >>> ds = con.create_dataset("entry/data", shape=(4, 6), dtype="int16")
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
        >>> import dosna as dn
        >>> con = dn.Connection("has", backend="ram")
        >>> con.connect()
        >>> ds = con.create_dataset("entry/data", shape=10)
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
        >>> import dosna as dn
        >>> con = dn.Connection("delete", backend="ram")
        >>> con.connect()
        >>> ds = con.create_dataset("tomo", shape=10)
        >>> con.del_dataset("tomo")
        >>> list(con)
        []
        """
        self.check_writable()
        check_name(name)
        self.runner.once(lambda: self.instance.del_dataset(name))

    @collective
    def export(
        self,
        path: str | os.PathLike[str],
        *,
        select: str | Sequence[str] | None = None,
        chunk_size: int | Sequence[int] | None = None,
        compression: str | None = None,
        overwrite: bool = False,
        progress: Progress = None,
        memory_limit: Limit = None,
    ) -> list[str]:
        """Write datasets to one file for other programs, under their names.

        Parameters
        ----------
        path : path
            The file to write. Its ending determines the format: ``.h5``, ``.hdf5``, ``.nxs`` or
            ``.nx5`` is an HDF5 file, ``.zarr`` a folder with a Zarr v3 group, ``.npy`` (for one
            dataset) NumPy's format. The file appears when it is complete, and not at all if
            anything fails. The same holds for ``hdf5://home/user/scan.h5``, a domain of HSDS, on
            the server that the environment names or ``?endpoint=…``; what was written there is
            read back.
        select : str or sequence of str, optional
            Names, or patterns with ``*``, ``?`` and ``[…]`` as in a shell; by default all
            datasets.
        chunk_size : int or sequence of int, optional
            The extent of a chunk in the file; by default that of each dataset.
        compression : str, optional
            The compression of the chunks: ``'gzip'`` for HDF5 and HSDS; for Zarr as in the backend
            ``file``. None by default.
        overwrite : bool
            True to replace what exists at `path`.
        progress : bool or callable, optional
            True for a progress bar, or a callback ``(done, total)`` in chunks.
        memory_limit : int or str, optional
            The most bytes of blocks held at a time, such as '512M'.

        Returns
        -------
        list of str
            The names of the datasets that were written.

        Raises
        ------
        DatasetNotFoundError
            No dataset has a name that `select` asks for.
        FileExistsError
            Something exists at `path`.
        ConfigurationError
            The ending is unknown, the format does not have an option, or there is nothing to
            write.
        RefusedError
            A dataset is incomplete, or has what the format cannot represent.
        MemoryLimitError
            The limit is below what one chunk needs.

        Examples
        --------
        >>> import os, tempfile
        >>> import dosna as dn
        >>> con = dn.Connection("export", backend="ram")
        >>> con.connect()
        >>> ds = con.create_dataset("tomo", data=[[1, 2], [3, 4]])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     con.export(os.path.join(folder, "tomo.npy"), select="tomo")
        ['tomo']
        """
        self.check_connected()
        names = self.runner.once(lambda: self._chosen(select))
        verbs.get("export")(
            [self.get_dataset(name) for name in names],
            path,
            chunk_size=chunk_size,
            compression=compression,
            overwrite=overwrite,
            progress=progress,
            memory_limit=memory_limit,
        )
        return names

    def _chosen(self, patterns: str | Sequence[str] | None) -> list[str]:
        names, vain = matching(list(self), patterns)
        if vain:
            raise DatasetNotFoundError(
                f"no dataset of connection {self.name!r} has a name like {vain[0]!r}"
            )
        return names

    def verb(self, name: str) -> Callable[..., Any]:
        """Return a verb of another package, bound to this connection.

        Parameters
        ----------
        name : str
            The name of its entry point in ``dosna.verbs``.

        Returns
        -------
        callable
            The verb, which takes the parameters that follow the connection in its own signature.

        Raises
        ------
        ConfigurationError
            There is no verb of that name. The message lists the verbs that exist.
        """
        bound: Callable[..., Any] = partial(verbs.get(name), self)
        return bound

    def get_group_attrs(self, name: str = "") -> dict[str, Any]:
        """Return the attributes of a group, which is a prefix of dataset names.

        Parameters
        ----------
        name : str
            The name of the group, such as ``entry`` for a dataset ``entry/data``; '' is the
            connection itself.

        Returns
        -------
        dict
            The attributes by name; empty for a group that has none or that does not exist.

        Raises
        ------
        ConfigurationError
            The backend keeps no attributes of groups: with s3, a connection without ``bucket``.
        """
        self.check_connected()
        found = self.instance.group_attrs(check_name(name) if name else "")
        return {key: decode_value(value) for key, value in found.items()}

    @collective
    def set_group_attrs(self, name: str, attrs: Mapping[str, Any]) -> None:
        """Replace the attributes of a group, and create the group if it does not exist.

        Parameters
        ----------
        name : str
            The name of the group, such as ``entry`` for a dataset ``entry/data``; '' is the
            connection itself.
        attrs : mapping
            The new attributes: values that attributes of datasets may have. An empty mapping
            leaves a group that disappears with its last dataset.

        Raises
        ------
        DatasetNameError
            The name is that of a dataset, or lies inside one.
        ConfigurationError
            The backend keeps no attributes of groups.
        """
        self.check_writable()
        encoded = encode_attrs(attrs)
        checked = self.instance.check_name(name) if name else ""
        self.runner.once(lambda: self.instance.set_group_attrs(checked, encoded))

    def __getitem__(self, name: str) -> EngineDataset:
        return self.get_dataset(name)

    def __delitem__(self, name: str) -> None:
        self.del_dataset(name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.has_dataset(name)

    def __iter__(self) -> Iterator[str]:
        self.check_connected()
        names = _Names(self.instance.dataset_names)
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

    def names_in(self, group: str) -> list[str]:
        """Return the sorted names of the datasets in a group. Other groups are not looked at.

        Parameters
        ----------
        group : str
            The part of the names before the last parts, such as ``entry`` for ``entry/data`` and
            ``entry/deep/data``; '' for all datasets.

        Returns
        -------
        list of str
            The full names; an empty list for a group that does not exist.

        Examples
        --------
        >>> import dosna as dn
        >>> con = dn.Connection("names", backend="ram")
        >>> con.connect()
        >>> for name in ("entry/data", "entry/deep/data", "other"):
        ...     ds = con.create_dataset(name, shape=10)
        >>> con.names_in("entry")
        ['entry/data', 'entry/deep/data']
        """
        self.check_connected()
        if not group:
            return self.instance.dataset_names()
        try:
            return self.instance.names_in(check_name(group))
        except DatasetNameError:
            return []

    def __bool__(self) -> bool:
        return True

    @property
    def identity(self) -> tuple[Any, ...]:
        """The values that cooperating processes must agree on before they start."""
        return (type(self.instance).__name__, self.instance.location, self.mode, self.connected)

    def wrap(self, instance: BackendDataset) -> EngineDataset:
        """Return the user's dataset for a backend's, which may come from another process.

        Parameters
        ----------
        instance : BackendDataset
            The dataset of the backend.

        Returns
        -------
        EngineDataset
            The dataset under this connection's engine.
        """
        # A dataset that another process opened and sent brings a copy of its connection.
        instance.connection = self.instance
        if instance.metadata.link is not None:
            from dosna.backends.linked.dataset import LinkedDataset

            instance = LinkedDataset(instance)
        return self.dataset_class(self, instance, self.runner)
