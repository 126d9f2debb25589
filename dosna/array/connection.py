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
    """An iterator over names that are listed when the first is asked for, or before."""

    def __init__(self, listed: Callable[[], list[str]]) -> None:
        self._listed = listed
        self._rest: Iterator[str] | None = None

    def take(self, names: list[str]) -> None:
        """Use names that were listed just now, unless it has begun."""
        if self._rest is None:
            self._rest = iter(names)

    def __next__(self) -> str:
        if self._rest is None:
            self._rest = iter(self._listed())
        return next(self._rest)


class EngineConnection(ArrayHome):
    """A place with named datasets, on a backend and under an engine.

    Parameters
    ----------
    name : str
        What it means is the backend's: a namespace (ram), a folder (hdf5).
    backend, engine : str, optional
        By default what `dosna.use` chose. Both stay as they are for this connection.
    engine_kw : mapping, optional
        Keywords of the engine; by default those that `dosna.use` was given for it.
    mode : {'a', 'r'}
        'r' refuses every change.
    **options
        Further keywords of the backend.

    Raises
    ------
    IncompatibleError
        An engine and a backend that cannot work together.
    TypeError
        An option that the backend does not have.
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
        """Make a connection under the same engine to another place.

        Parameters
        ----------
        instance : BackendConnection
            What a backend has made; it need not be connected.
        """
        made: EngineConnection = object.__new__(type(self))
        made.instance, made.runner = instance, self.runner
        return made

    def in_this_process(self) -> EngineConnection:
        """Make a connection to the same place whose work is all done by this process."""
        made: EngineConnection = object.__new__(EngineConnection)
        made.instance, made.runner = self.instance, CpuRunner()
        return made

    @property
    def name(self) -> str:
        """What the connection was made with."""
        return self.instance.name

    @property
    def mode(self) -> str:
        """'a', or 'r' for a connection that refuses every change."""
        return self.instance.mode

    def make_place(self) -> bool:
        """Make what `connect` needs to be there, such as a folder, if what is around it is.

        True if it was not there.
        """
        return self.instance.make_place()

    def remove_place(self) -> None:
        """Remove what `make_place` has made, if nothing has come into it."""
        self.instance.remove_place()

    @property
    def connected(self) -> bool:
        """Whether it is connected."""
        return self.instance.connected

    def connect(self) -> None:
        """Reach the store. Connecting twice does nothing."""
        self.instance.connect()

    def disconnect(self) -> None:
        """Let go of the store. Disconnecting twice does nothing."""
        self.instance.disconnect()

    def __enter__(self) -> EngineConnection:
        self.connect()
        return self

    def __exit__(self, *exc: object) -> None:
        self.disconnect()

    def check_connected(self) -> None:
        """Raise NotConnectedError before connect and after disconnect."""
        if not self.instance.connected:
            raise NotConnectedError(
                f"connection {self.name!r} is not connected: use it within `with`, or call "
                "connect() first"
            )

    def check_writable(self) -> None:
        """Raise ReadOnlyError for mode 'r', and as `check_connected`."""
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
        """Make a dataset, and fill it if `data` is given.

        Parameters
        ----------
        name : str
            Parts joined by '/', like ``entry/data``.
        shape : int or sequence of int, optional
            Extent of each axis; the data's by default.
        dtype : dtype, optional
            The data's by default, or float32 without data. Data of another dtype are converted.
            ``str`` is text of variable length, as is ``np.dtypes.StringDType()``.
        fillvalue : scalar, optional
            What reads where nothing was written; the dtype's zero by default.
        data : array_like, optional
            Anything with shape, dtype and slicing, read chunk by chunk; see
            `EngineDataset.load`.
        chunk_size : int or sequence of int, optional
            Extent of a chunk; by default about 1 MiB, see
            `dosna.core.metadata.choose_chunk_size`.
        attrs : mapping, optional
            Its attributes from the beginning.
        incomplete : bool
            Mark it as one whose data are still to come: reading it warns, once for each
            handle, until its `mark_complete` was called.
        origin : mapping, optional
            Where the data are from, in JSON values; kept with the dataset.
        progress, memory_limit
            For loading, see `EngineDataset.load`.
        **options
            Of the backend, such as ``compression`` (hdf5).

        Returns
        -------
        EngineDataset

        Raises
        ------
        DatasetExistsError
        DatasetNameError
            An illegal name, or one inside or around an existing dataset.
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
                # Missing values are refused where there are some.
                dtype = TEXT if is_text(data.dtype) else data.dtype
        metadata = new_metadata(shape, dtype, fillvalue, chunk_size, attrs)
        metadata = metadata.replace(incomplete=incomplete, origin=origin)
        return self.create_filled(
            lambda: self.create_described(name, metadata, options), data, progress, memory_limit
        )

    def create_like(
        self, model: EngineDataset, name: str, dtype: Any, *, incomplete: bool = False
    ) -> EngineDataset:
        """Make an empty dataset chunked and stored as `model` is, with its attributes."""
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
        """Make a dataset and load it; without the data there shall be no dataset either."""
        made = create()
        if data is not None:
            try:
                # A dtype that was asked for is meant.
                made.load_values(data, progress=progress, memory_limit=memory_limit)
            except BaseException:
                self.discard(made)
                raise
        return made

    def discard(self, made: EngineDataset) -> None:
        """Delete what was made in vain, unless somebody else has replaced it since."""

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
            # Not in the place of what went wrong first.
            why.add_note(f"dataset {name!r} could not be deleted again: {error}")

    @contextmanager
    def replacing(
        self, name: str, metadata: DatasetMetadata, options: Mapping[str, Any]
    ) -> Iterator[BackendDataset]:
        """Make a dataset that takes the place of another at the end of the block; collective.

        If the block raises, the old one is as it was. Where the backend cannot exchange two, it
        is deleted before the block begins, but not before the description of the new one was
        checked; and what the block has made of the new one stays.

        Parameters
        ----------
        name : str
            Of both.
        metadata : DatasetMetadata
            Of the new one.
        options : mapping
            Of the backend's `create_dataset`.

        Yields
        ------
        BackendDataset
            To be wrapped by `wrap`; not to be used after the block.
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
        """Make an empty dataset; collective, as `create_dataset` is."""
        self._refuse(metadata, options)

        def create() -> BackendDataset:
            self.check_free(name)
            return self.instance.create_dataset(name, metadata, **options)

        return self.wrap(self.runner.once(create))

    def check_described(
        self, name: str, metadata: DatasetMetadata, options: Mapping[str, Any]
    ) -> None:
        """Raise what can be known of a dataset that cannot be made, whatever is in its place."""
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
        """Refuse a name that is taken or illegal; whether it clashes, the backend knows."""
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
        """Open a dataset, or make it if there is none.

        Parameters
        ----------
        name, shape, dtype
            As in `create_dataset`. An existing one must have this shape, and a dtype that
            `dtype` casts to safely, or exactly this with `exact`.
        exact : bool
        **options
            Of `create_dataset`, for when it is made.

        Raises
        ------
        TypeError
            There is one of another shape or dtype (as in h5py).
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
        """Make datasets of the arrays of a file or another source.

        A dataset is marked incomplete until all of it is there. After an interruption the
        same call goes on where it stopped, if the source is still the same; what it has
        completed stays.

        Parameters
        ----------
        source : str, path, object or Source
            See `dosna.sources.open_source`.
        name : str, optional
            Of the dataset, if the source is one array; else what precedes the names of all,
            and a '/'. By default datasets have the names that arrays have in the source.
        select : str or iterable of str, optional
            Names, or patterns of names such as ``entry1/*/data``; the name of a group stands for
            all that is in it.
        chunk_size : int, str or sequence of int, optional
            An extent for each axis, for arrays of so many axes; or a size in bytes such as
            '4 MiB', to which chunks come close that suit the source's. By default the source's
            own, see `dosna.sources.chunking.choose_chunks`.
        on_error : {'raise', 'skip'}
            What to do about an array that cannot be represented or read, for whatever reason.
        overwrite : bool
            Replace datasets that are not from the same source, or from another state of it.
        kind : str, optional
            Of the source, where its name does not tell: 'hdf5', 'zarr', 'npy', ….
        progress : bool or callable, optional
            True for a bar, or a callback ``(done, total)`` in bytes of all arrays.
        memory_limit : int or str, optional
            Most bytes of blocks held at a time, such as '512M'.
        **options
            Of the source, such as ``endpoint_url``, and of the backend's `create_dataset`,
            such as ``compression``.

        Returns
        -------
        IngestReport

        Raises
        ------
        SourceError
            The source cannot be read; RefusedError, SourceChangedError, SourceNotFoundError.
        DatasetExistsError
            A dataset is there that is not from this source.
        """
        self.check_writable()
        report: IngestReport = verbs.get("ingest")(
            self,
            source,
            name,
            select,
            chunk_size,
            on_error,
            overwrite,
            kind,
            progress,
            memory_limit,
            options,
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
        """Make datasets that show the arrays of an HDF5 file, whose data stay where they are.

        A linked dataset reads like any other, by ranges of bytes of the file, and is never
        written to. It has the chunks that the array has, or rows of about 1 MiB. The file must
        stay as it is: once it has changed or gone, reading is an error. Scalars and other small
        arrays that do not lie in chunks are ingested.

        Parameters
        ----------
        source : str or path
            Of a local file, or an ``s3://bucket/key`` URL; with a path inside if wanted.
        name, select, on_error, overwrite, kind, progress
            As in `ingest`.
        unlinkable : {'raise', 'ingest'}
            What to do about an array that cannot be linked, such as one of strings of variable
            length, or with a filter that dosna does not know: an error (or with ``on_error=
            'skip'`` leaving it out), or ingesting it.
        memory_limit : int or str, optional
            For what is ingested.
        **options
            As in `ingest`; those of the backend's `create_dataset` are for what is ingested.
            Those of the source are kept with the datasets, to read by; none is a secret.

        Returns
        -------
        IngestReport
            `linked` has the names of the datasets that are.

        Raises
        ------
        SourceError
            As `ingest`; RefusedError names what cannot be linked, and why.
        DatasetExistsError
            A dataset is there that is not a link to this array.
        """
        self.check_writable()
        report: IngestReport = verbs.get("ingest")(
            self,
            source,
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
        )
        return report

    def get_dataset(self, name: str) -> EngineDataset:
        """Open a dataset. The same as ``con[name]``.

        Raises
        ------
        DatasetNotFoundError
        """
        self.check_connected()
        try:
            return self.wrap(self.instance.get_dataset(check_name(name)))
        except DatasetNameError as error:
            raise DatasetNotFoundError(str(error)) from None

    def has_dataset(self, name: str) -> bool:
        """Whether there is a dataset of that name. The same as ``name in con``."""
        self.check_connected()
        try:
            return self.instance.has_dataset(check_name(name))
        except DatasetNameError:
            return False

    @collective
    def del_dataset(self, name: str) -> None:
        """Delete a dataset with all its chunks.

        Raises
        ------
        DatasetNotFoundError
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
            Its ending says what is written: ``.h5``, ``.hdf5``, ``.nxs`` or ``.nx5`` an HDF5
            file, ``.zarr`` a folder with a Zarr v3 group, ``.npy`` (of one dataset) NumPy's
            format. It appears when all is in it, and not at all if anything fails. So does
            ``hdf5://home/user/scan.h5``, a domain of HSDS, of the server that the environment
            names or ``?endpoint=…``; what was written is read back there.
        select : str or sequence of str, optional
            Names, or patterns with ``*``, ``?`` and ``[…]`` as in a shell; all by default.
        chunk_size : int or sequence of int, optional
            Extent of a chunk in the file; the datasets' own by default.
        compression : str, optional
            ``'gzip'`` for HDF5 and HSDS; for Zarr as in the backend ``file``. None by default.
        overwrite : bool
            Whether to replace what is at `path`.
        progress, memory_limit
            As in `EngineDataset.load`.

        Returns
        -------
        list of str
            The names of the datasets that were written.

        Raises
        ------
        DatasetNotFoundError
            Nothing has a name of `select`.
        FileExistsError
            There is something at `path`.
        ConfigurationError
            An unknown ending, or an option that its format does not have.
        RefusedError
            A dataset is incomplete, or has what the format cannot represent.
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
            As its entry point in ``dosna.verbs`` is called.

        Returns
        -------
        callable
            It takes what follows the connection in the verb's own parameters.

        Raises
        ------
        ConfigurationError
            There is no verb of that name; the message lists those that there are.
        """
        bound: Callable[..., Any] = partial(verbs.get(name), self)
        return bound

    def get_group_attrs(self, name: str = "") -> dict[str, Any]:
        """Give the attributes of a group, which is what names of datasets begin with.

        Parameters
        ----------
        name : str
            Such as ``entry`` for a dataset ``entry/data``; '' is the connection itself.

        Returns
        -------
        dict
            Empty for a group that has none, or that there is not.

        Raises
        ------
        ConfigurationError
            The backend keeps none: with s3, a connection without ``bucket``.
        """
        self.check_connected()
        found = self.instance.group_attrs(check_name(name) if name else "")
        return {key: decode_value(value) for key, value in found.items()}

    @collective
    def set_group_attrs(self, name: str, attrs: Mapping[str, Any]) -> None:
        """Replace the attributes of a group, and make it if there is none.

        Parameters
        ----------
        name : str
            As in `get_group_attrs`.
        attrs : mapping
            What attributes of datasets may be. An empty one leaves a group that goes with its
            last dataset.

        Raises
        ------
        DatasetNameError
            The name is, or lies inside, a dataset's.
        ConfigurationError
            The backend keeps none.
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
        # have just made, and to list a store a second time for that would cost requests.
        asked, self._asked = self._asked, None
        iterator = None if asked is None else asked()
        if iterator is not None:
            iterator.take(names)
        return len(names)

    def names_in(self, group: str) -> list[str]:
        """Names of the datasets in a group, sorted; looks at nothing else.

        Parameters
        ----------
        group : str
            What precedes their last parts, such as ``entry`` for ``entry/data`` and
            ``entry/deep/data``; '' for all.
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
        """What processes that work together must agree on before they start."""
        return (type(self.instance).__name__, self.instance.location, self.mode, self.connected)

    def wrap(self, instance: BackendDataset) -> EngineDataset:
        """Make the dataset that users see of a backend's, which may be from another process."""
        # What another process opened and sent brings a copy of its connection.
        instance.connection = self.instance
        if instance.metadata.link is not None:
            from dosna.backends.linked.dataset import LinkedDataset

            instance = LinkedDataset(instance)
        return self.dataset_class(self, instance, self.runner)
