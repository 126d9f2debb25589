"""The creation of datasets, checked, and undone if it fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from dosna.array import loading
from dosna.array.dataset import EngineDataset
from dosna.array.home import ArrayHome
from dosna.array.undoing import undo
from dosna.backends.base import BackendDataset
from dosna.backends.batch import Batch
from dosna.core.metadata import DatasetMetadata, new_metadata
from dosna.core.options import refuse_unknown
from dosna.core.progress import Progress
from dosna.core.sizes import Limit
from dosna.core.text import elements, is_text
from dosna.core.types import Array
from dosna.core.values import check_fillvalue
from dosna.errors import DatasetExistsError, DatasetNotFoundError

__all__ = ["Creating"]

_INSTEAD = {
    "attributes": "use attrs",
    "chunks": "use chunk_size",
    "dimension_names": "use dims",
    "fill_value": "use fillvalue",
    "maxshape": "leave it out, every dataset can be resized",
    "overwrite": "delete the dataset of that name first, or use require_dataset",
}
"""What takes the place of options of h5py and zarr."""


class Creating(ArrayHome):
    """The steps of a connection that creates datasets, for it and for other packages."""

    dataset_class: type[EngineDataset] = EngineDataset

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
                made.instance.continue_creation()
                # A dtype that the caller asked for is intended: convert as NumPy does.
                loading.load(made, data, progress=progress, memory_limit=memory_limit)
            except BaseException:
                self.discard(made)
                raise
        return made

    def discard(self, made: EngineDataset) -> None:
        """Delete a dataset that could not be completed, unless it was replaced since.

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
        undo(lambda: self.runner.once(delete), f"dataset {name!r} could not be deleted again")

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
        self,
        name: str,
        metadata: DatasetMetadata,
        options: Mapping[str, Any],
        batch: Batch | None = None,
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
        batch : Batch, optional
            The batch that the dataset belongs to.

        Returns
        -------
        EngineDataset
            The new dataset.
        """
        self._refuse(metadata, options)

        def create() -> BackendDataset:
            self.check_writable()
            self.instance.check_name(name)
            if batch is not None:
                return batch.create(name, metadata, options)
            return self.instance.create_dataset(name, metadata, **options)

        return self.wrap(self.runner.once(create))

    def create_whole(
        self, name: str, metadata: DatasetMetadata, options: Mapping[str, Any], values: Array
    ) -> EngineDataset | None:
        """Create a dataset of one chunk with its values, where that takes fewer requests.

        Parameters
        ----------
        name : str
            The name of the dataset.
        metadata : DatasetMetadata
            The description of the dataset.
        options : mapping
            The options of the backend's `create_dataset`.
        values : ndarray
            All values, of the dataset's shape.

        Returns
        -------
        EngineDataset or None
            The new dataset. None if the usual creation has to be tried: nothing was created.

        Examples
        --------
        >>> from dosna.core.metadata import DatasetMetadata
        >>> three = DatasetMetadata((3,), np.dtype("i8"), 0, (3,))
        >>> con.create_whole("three", three, {}, np.arange(3)) is None  # ram makes no requests
        True
        """
        self._refuse(metadata, options)

        def create() -> BackendDataset | None:
            self.check_writable()
            self.instance.check_name(name)
            converted = elements(values, metadata.dtype)
            return self.instance.create_whole(name, metadata, converted, **options)

        made = self.runner.once(create)
        return None if made is None else self.wrap(made)

    def create_with(
        self,
        name: str,
        metadata: DatasetMetadata,
        options: Mapping[str, Any],
        data: Any,
        progress: Progress,
        memory_limit: Limit,
    ) -> EngineDataset:
        """Create a dataset from its description, with its data: in one step if they fit one chunk.

        Parameters
        ----------
        name : str
            The name of the dataset.
        metadata : DatasetMetadata
            The description of the dataset.
        options : mapping
            The options of the backend's `create_dataset`.
        data : array_like or source
            The values, as for `create_filled`.
        progress : bool or callable
            True for a progress bar, or a function of chunks done and all chunks.
        memory_limit : int or str, optional
            The most bytes that the work may hold.

        Returns
        -------
        EngineDataset
            The new dataset.

        Examples
        --------
        >>> from dosna.core.metadata import DatasetMetadata
        >>> two = DatasetMetadata((2,), np.dtype("i8"), 0, (2,))
        >>> con.create_with("two", two, {}, np.arange(2), None, None)
        <dosna.Dataset 'two': shape (2,), dtype int64, chunk_size (2,)>
        """
        plain = isinstance(data, np.ndarray) and progress is None and memory_limit is None
        pairs = zip(metadata.shape, metadata.chunk_size, strict=True)
        if plain and all(0 < n <= c for n, c in pairs):
            whole = self.create_whole(name, metadata, options, data)
            if whole is not None:
                return whole
        return self.create_filled(
            lambda: self.create_described(name, metadata, options), data, progress, memory_limit
        )

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
        what = f"create_dataset of {kind}"
        refuse_unknown(options, self.instance.create_dataset, what, _INSTEAD)
        if is_text(metadata.dtype) and not self.instance.stores_text:
            raise TypeError(
                f"{kind} cannot store text of variable length: use a dtype of fixed length, such "
                "as 'U20'"
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
