"""The methods of a mapping for a connection."""

from __future__ import annotations

from collections.abc import ItemsView, KeysView, ValuesView
from typing import Any

from dosna.array.dataset import EngineDataset

__all__ = ["Lookup"]


class Lookup:
    """The methods of a mapping of names to datasets.

    It is no `collections.abc.Mapping`: whatever takes mappings apart, such as a comparison of the
    arguments of MPI ranks, would list and open all datasets of a connection.
    """

    def get(self: Any, name: str, default: Any = None) -> Any:
        """Open a dataset if it exists.

        Parameters
        ----------
        name : str
            The name of the dataset.
        default : object, optional
            The result if there is no such dataset.

        Returns
        -------
        Dataset or object
            The dataset, or `default`.

        Examples
        --------
        >>> con.get("entry/dark") is None
        True
        """
        try:
            return self[name]
        except KeyError:
            return default

    def __setitem__(self, name: str, data: Any) -> None:
        raise TypeError(
            f"con[{name!r}] = … could mean two things: use con.create_dataset({name!r}, data=…) "
            f"for a new dataset, or con[{name!r}][...] = … to write into one"
        )

    def keys(self: Any) -> KeysView[str]:
        """Return a view of the sorted names of the datasets, which lists them anew each time.

        Returns
        -------
        KeysView of str
            The names.

        Examples
        --------
        >>> list(con.keys())
        ['entry/data']
        """
        return KeysView(self)

    def values(self: Any) -> ValuesView[EngineDataset]:
        """Return a view of the datasets, which opens them one after the other.

        Returns
        -------
        ValuesView of Dataset
            The datasets.

        Examples
        --------
        >>> [ds.shape for ds in con.values()]
        [(4, 6)]
        """
        return ValuesView(self)

    def items(self: Any) -> ItemsView[str, EngineDataset]:
        """Return a view of the names and the datasets, which are opened one after the other.

        Returns
        -------
        ItemsView of str and Dataset
            The pairs.

        Examples
        --------
        >>> {name: ds.shape for name, ds in con.items()}
        {'entry/data': (4, 6)}
        """
        return ItemsView(self)
