"""Attributes of a dataset, kept with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from dosna.array.home import DatasetLike
from dosna.core.values import decode_value, encode_attrs, encode_value
from dosna.engines.base import collective

__all__ = ["Attributes"]


class Attributes(MutableMapping[str, Any]):
    """Attributes of a dataset: JSON values, NumPy scalars and arrays, by name.

    Each change is stored at once, as a whole or not at all. What is read is a copy: changing
    a list or an array that was read changes nothing until it is assigned again.

    Reading makes no request. It returns the attributes as the handle knows them: from when it was
    opened, refreshed or used for a change. `EngineDataset.refresh` reads them again. As in h5py
    and zarr, a handle on a dataset that was deleted or replaced keeps those that it had; changing
    them, or refreshing, raises StaleDatasetError.

    Parameters
    ----------
    dataset : EngineDataset
        The dataset that the attributes belong to.
    """

    def __init__(self, dataset: DatasetLike) -> None:
        self._dataset = dataset
        self.runner = dataset.runner

    @property
    def identity(self) -> tuple[Any, ...]:
        """The identity of the dataset."""
        return self._dataset.identity

    def __getitem__(self, name: str) -> Any:
        return decode_value(self._stored[name])

    @collective
    def __setitem__(self, name: str, value: Any) -> None:
        if not isinstance(name, str):
            raise TypeError(f"the name of an attribute must be a str, not {name!r}")
        encoded = encode_value(value)
        self._change(lambda attrs: {**attrs, name: encoded})

    @collective
    def __delitem__(self, name: str) -> None:
        def without(attrs: Mapping[str, Any]) -> dict[str, Any]:
            if name not in attrs:
                raise KeyError(name)
            return {k: v for k, v in attrs.items() if k != name}

        self._change(without)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._stored))

    def __len__(self) -> int:
        return len(self._stored)

    def __repr__(self) -> str:
        return f"<attributes of {self._dataset.name!r}: {dict(self)}>"

    def _ipython_key_completions_(self) -> list[str]:
        return list(self._stored)

    @collective
    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set several attributes in one change.

        Parameters
        ----------
        *args, **kwargs
            The attributes, as for ``dict``.
        """
        encoded = encode_attrs(dict(*args, **kwargs))
        self._change(lambda attrs: {**attrs, **encoded})

    @property
    def _stored(self) -> Any:
        self._dataset.connection.check_connected()
        return self._dataset.instance.metadata.attrs

    def _change(self, change: Any) -> None:
        dataset = self._dataset
        dataset.connection.check_writable()
        dataset.change(lambda: dataset.instance.update(lambda m: m.replace(attrs=change(m.attrs))))
