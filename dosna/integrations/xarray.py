"""xarray's engine ``dosna``: ``xr.open_dataset('file:/data/scans', engine='dosna')``.

https://docs.xarray.dev/en/stable/internals/how-to-add-new-backend.html
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import xarray as xr
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

from dosna.array.connection import EngineConnection
from dosna.array.dataset import EngineDataset
from dosna.array.home import ArrayHome
from dosna.array.opening import open_url
from dosna.codecs.zarr.attributes import FILL_VALUE, decode_fill_value
from dosna.errors import DatasetNotFoundError, DosnaError, FormatError, MissingDependencyError

__all__ = ["DosnaEntrypoint"]


class DosnaArray(BackendArray):
    """A dataset that xarray indexes lazily; it can be pickled if the dataset can.

    Parameters
    ----------
    dataset : EngineDataset
        The dataset to read.
    """

    def __init__(self, dataset: EngineDataset) -> None:
        self.dataset = dataset
        self.shape = dataset.shape
        # xarray itself gives records of another byte order a dtype without fields.
        records = dataset.dtype.names is not None
        self.dtype = dataset.dtype.newbyteorder("=") if records else dataset.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        arrays = sum(isinstance(k, np.ndarray) for k in key.tuple)
        key = type(key)(tuple(map(_without_a_step, key.tuple, self.shape)))
        if not isinstance(key, indexing.VectorizedIndexer) and arrays < 2:
            return self._read(key.tuple)
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER_1VECTOR, self._read
        )

    def _read(self, key: tuple[Any, ...]) -> Any:
        # NumPy treats an integer beside an array as another array, and moves the axes.
        numbers = [axis for axis, k in enumerate(key) if isinstance(k, (int, np.integer))]
        kept = list(key)
        for axis in numbers:
            kept[axis] = slice(key[axis], key[axis] + 1 or None)
        block = np.asarray(self.dataset.read(tuple(kept)), self.dtype)
        return block.squeeze(axis=tuple(numbers))


def _without_a_step(key: Any, extent: int) -> Any:
    """Return an empty slice without its step; others unchanged.

    For an empty slice with a negative step, xarray would read one element.
    """
    if isinstance(key, slice) and not range(*key.indices(extent)):
        return slice(0, 0)
    return key


class DosnaEntrypoint(BackendEntrypoint):
    """The engine that opens a dataset, or those in one group of a connection."""

    description: ClassVar[str] = "Open datasets of dosna, of any of its backends"
    supports_groups: ClassVar[bool] = True
    open_dataset_parameters: ClassVar[tuple[str, ...]] = (
        "filename_or_obj",
        "drop_variables",
        "group",
        "mask_and_scale",
        "decode_times",
        "concat_characters",
        "decode_coords",
        "use_cftime",
        "decode_timedelta",
    )

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        return isinstance(filename_or_obj, (EngineConnection, EngineDataset))

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        group: str | None = None,
        mask_and_scale: Any = True,
        decode_times: Any = True,
        concat_characters: Any = True,
        decode_coords: Any = True,
        use_cftime: Any = None,
        decode_timedelta: Any = None,
    ) -> xr.Dataset:
        """Open the datasets of one group, without reading them.

        Parameters
        ----------
        filename_or_obj : str, Connection or Dataset
            A URL (see `dosna.open_url`), an open connection, or a dataset.
        drop_variables : str or iterable of str, optional
            The names to leave out.
        group : str, optional
            The group, which is the part of the names before the last '/'; the outermost by
            default.
        mask_and_scale, decode_times, concat_characters, decode_coords, use_cftime, \
decode_timedelta
            The options of `xarray.decode_cf`.

        Returns
        -------
        xarray.Dataset
            The variables, named by the last part of the datasets' names. Axes without names
            are named by their extent, ``dim_100``, so that equal ones go together; a second
            axis of the same extent in one dataset is ``dim_100_2``.
        """
        with _opened(filename_or_obj) as (con, name, close):
            if isinstance(filename_or_obj, EngineDataset):
                made = _dataset({name: filename_or_obj}, con, "", drop_variables)
            elif name and name in con:
                made = _dataset({name: con[name]}, con, "", drop_variables)
            else:
                group = "/".join(filter(None, [name, (group or "").strip("/")]))
                made = _dataset(_in_group(con, group), con, group, drop_variables)
        decoded: xr.Dataset = xr.decode_cf(
            made,
            mask_and_scale=mask_and_scale,
            decode_times=decode_times,
            concat_characters=concat_characters,
            decode_coords=decode_coords,
            use_cftime=use_cftime,
            decode_timedelta=decode_timedelta,
        )
        decoded.set_close(close)
        return decoded

    def open_groups_as_dict(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        **decoders: Any,
    ) -> dict[str, xr.Dataset]:
        with _opened(filename_or_obj) as (con, name, close):
            names = con.names_in(name)
        close()
        within = len(name) + 1 if name else 0
        groups = {""}
        for found in names:
            parts = found[within:].split("/")[:-1]
            groups |= {"/".join(parts[: n + 1]) for n in range(len(parts))}
        return {
            "/" + group: self.open_dataset(
                filename_or_obj, drop_variables=drop_variables, group=group, **decoders
            )
            for group in sorted(groups)
        }

    def open_datatree(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        **decoders: Any,
    ) -> xr.DataTree:
        groups = self.open_groups_as_dict(
            filename_or_obj, drop_variables=drop_variables, **decoders
        )
        tree = xr.DataTree.from_dict(_aligned(groups))
        for path, opened in groups.items():
            tree[path].set_close(opened.close)  # which from_dict forgets
        return tree


def _aligned(groups: dict[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Rename axes of groups that have another extent than those of the groups around them.

    xarray gives a group the axes of its parents, under whose names the levels of a pyramid, for
    example, have fewer elements.
    """
    extents: dict[str, dict[Hashable, int]] = {}
    aligned = {}
    for path, opened in groups.items():  # parents come first
        around = extents.get(path.rpartition("/")[0] or "/", {})
        others: dict[Hashable, str] = {}
        for dim, n in opened.sizes.items():
            if around.get(dim, n) != n:
                name = f"{dim}_{n}"
                while name in opened.variables or name in opened.sizes or around.get(name, n) != n:
                    name += "_"
                others[dim] = name
        aligned[path] = opened.rename(others) if others else opened
        extents[path] = {**around, **aligned[path].sizes}
    return aligned


def _leave_open() -> None:
    """Close nothing: the caller closes a connection that it has opened."""


@contextmanager
def _opened(what: Any) -> Iterator[tuple[ArrayHome, str, Callable[[], None]]]:
    """Yield a connection, the rest of the URL, and a function that closes it if it is ours."""
    if isinstance(what, EngineDataset):
        yield what.connection, what.name, _leave_open
    elif isinstance(what, EngineConnection):
        yield what, "", _leave_open
    else:
        con, name = open_url(_url(os.fspath(what)), mode="r")
        con.connect()
        try:
            yield con, name, con.disconnect
        except BaseException:
            con.disconnect()
            raise


def _url(text: str) -> str:
    # xarray takes 'hdf5:/data' for a path, and makes it absolute.
    here = os.getcwd() + "/"
    return text.removeprefix(here) if text.startswith(here) else text


def _dataset(
    found: dict[str, EngineDataset],
    con: ArrayHome,
    group: str,
    drop_variables: str | Iterable[str] | None,
) -> xr.Dataset:
    dropped = {drop_variables} if isinstance(drop_variables, str) else set(drop_variables or ())
    variables = {}
    extents: dict[str, int] = {}
    for name, dataset in found.items():
        last = name.rpartition("/")[2]
        if last not in dropped:
            variables[last] = _variable(dataset, _distinct(name, dataset, extents))
    attrs = con.get_group_attrs(group) if con.instance.keeps_groups else {}
    return xr.Dataset(variables, attrs=attrs)


def _in_group(con: ArrayHome, group: str) -> dict[str, EngineDataset]:
    """Open the datasets of a group, without those of the groups in it."""
    names = con.names_in(group)
    if group and not names:
        raise DatasetNotFoundError(f"{con!r} has neither a dataset nor a group {group!r}")
    depth = group.count("/") + 1 if group else 0
    return _readable(con, [n for n in names if n.count("/") == depth])


def _readable(con: ArrayHome, names: list[str]) -> dict[str, EngineDataset]:
    """Open datasets; warn about those that cannot be opened, and raise if none can."""
    found, failed = {}, dict[str, DosnaError]()
    for name in names:
        try:
            found[name] = con[name]
        except (FormatError, MissingDependencyError) as error:
            failed[name] = error
    if failed and not found:
        raise next(iter(failed.values()))
    for name, why in failed.items():
        warnings.warn(f"{name!r} is left out: {why}", UserWarning, stacklevel=5)
    return found


def _dims(dataset: EngineDataset) -> list[str]:
    names = getattr(dataset, "dims", None) or (None,) * dataset.ndim
    seen: Counter[int] = Counter()
    dims = []
    for name, extent in zip(names, dataset.shape, strict=True):
        if name is None:
            seen[extent] += 1
            name = f"dim_{extent}" + (f"_{seen[extent]}" if seen[extent] > 1 else "")
        dims.append(name)
    return dims


def _distinct(name: str, dataset: EngineDataset, extents: dict[str, int]) -> list[str]:
    """Return names of axes such that one name has one extent, which xarray requires."""
    dims = _dims(dataset)
    for axis, (dim, extent) in enumerate(zip(dims, dataset.shape, strict=True)):
        if extents.setdefault(dim, extent) != extent:
            dims[axis] = f"{dim}_{extent}"
            extents.setdefault(dims[axis], extent)
            warnings.warn(
                f"axis {dim!r} of {name!r} has {extent} elements, and that of other arrays of its "
                f"group {extents[dim]}: it is called {dims[axis]!r}",
                UserWarning,
                stacklevel=5,
            )
    return dims


def _variable(dataset: EngineDataset, dims: list[str]) -> xr.Variable:
    attrs = dict(dataset.attrs)
    if FILL_VALUE in attrs:
        # Datasets of other backends may have the fill value as xarray writes it to Zarr v3.
        attrs[FILL_VALUE] = decode_fill_value(attrs[FILL_VALUE], dataset.dtype)
    encoding: dict[str, Any] = {
        "chunks": dataset.chunk_size,
        "preferred_chunks": dict(zip(dims, dataset.chunk_size, strict=True)),
    }
    if dataset.dtype.kind == "T":
        encoding["dtype"] = dataset.dtype  # without it xarray would make objects
    data = indexing.LazilyIndexedArray(DosnaArray(dataset))
    return xr.Variable(dims, data, attrs, encoding)
