"""The levels of a dataset as an OME-Zarr 0.5 group, with dtypes that Neuroglancer shows.

The group has only one image, because Neuroglancer shows the first. Its chunks are converted from
the stored ones, without codecs, because they are usually read on the same machine.
"""

from __future__ import annotations

import base64
import binascii
import json
from math import prod
from typing import Any

import numpy as np

from dosna.array.dataset import EngineDataset
from dosna.core.types import Array, Json
from dosna.errors import ConfigurationError
from dosna.pyramid import Levels, levels_of
from dosna.pyramid.multiscales import VERSION, axes_of, entry_of
from dosna.serve.served import Served
from dosna.web import Refusal, sharing

__all__ = ["View", "key_of", "shown_as", "view_of"]

_SHOWN = {"uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "float32"}


def shown_as(dtype: np.dtype[Any], labels: bool = False) -> np.dtype[Any] | None:
    """Return the dtype in which Neuroglancer gets elements; None if it cannot show them."""
    if dtype.kind not in "biuf":
        return None  # of these, text of any length has no byte order
    native = dtype.newbyteorder("=")
    if labels and dtype.kind in "iu":
        return np.dtype(np.uint64) if native.itemsize == 8 else native
    if native.name in _SHOWN:
        return native
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    return np.dtype(np.float32)


class View:
    """A dataset and its levels, as they are shown.

    Parameters
    ----------
    served : Served
        The datasets that are served.
    name : str
        The name of the dataset, from a request.

    Raises
    ------
    Refusal
        There is no such dataset (404), or it cannot be shown (415).
    """

    def __init__(self, served: Served, name: str) -> None:
        self._served, self.name = served, name
        dataset = served.dataset(name, fresh=True)
        self.levels: Levels | None = levels_of(served.con, name)
        self.labels = self.levels is not None and self.levels.entry.get("type") == "mode"
        dtype = shown_as(dataset.dtype, self.labels)
        if dtype is None or dataset.ndim < 3 or not dataset.size:
            raise Refusal(
                415,
                f"{name!r} cannot be shown as a volume",
                "a volume has real numbers and at least three axes",
            )
        self.dtype = dtype
        self._names = [name] if self.levels is None else self.levels.names
        self._datasets: dict[int, EngineDataset] = {0: dataset}

    def dataset(self, level: int) -> EngineDataset:
        """Return the dataset of a level.

        Raises
        ------
        Refusal
            There is no such level (404).
        """
        if level >= len(self._names):
            raise Refusal(404, f"there is no level {level} of {self.name!r}")
        if level not in self._datasets:
            # The levels of a shown dataset are shown, wherever they are.
            self._datasets[level] = self._served.con.get_dataset(self._names[level])
        return self._datasets[level]

    @property
    def count(self) -> int:
        """Number of levels."""
        return len(self._names)

    def image(self) -> Json | None:
        """Return the OME-Zarr image; None if the array cannot be one."""
        if self.levels is not None:
            image = dict(self.levels.entry)
        else:
            dataset = self.dataset(0)
            dims = dataset.dims
            names = [str(n) for n in dims] if dims is not None and all(dims) else None
            try:
                axes = axes_of(dataset.shape, names, None, "the dataset")
            except ConfigurationError:
                return None
            image = entry_of(self.name, axes, [(1,) * dataset.ndim], [1.0] * dataset.ndim, "mean")
        image["datasets"] = [
            {**one, "path": str(level)} for level, one in enumerate(image["datasets"])
        ]
        return image

    def group(self) -> Json | None:
        """Return the metadata of the group of levels; None if there is no image."""
        image = self.image()
        if image is None:
            return None
        attributes = {"ome": {"version": VERSION, "multiscales": [image]}}
        return {"zarr_format": 3, "node_type": "group", "attributes": attributes}

    def array(self, level: int) -> Json:
        """Return the metadata of a level."""
        dataset = self.dataset(level)
        document: Json = {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(dataset.shape),
            "data_type": self.dtype.name,
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": list(dataset.chunk_size)},
            },
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": self._fill(dataset),
            "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
            "attributes": {},
        }
        if dataset.dims is not None:
            document["dimension_names"] = list(dataset.dims)
        return document

    def _fill(self, dataset: EngineDataset) -> int | float | str:
        found = self._cast(np.asarray(dataset.fillvalue, dataset.dtype)).item()
        return found if np.isfinite(found) else json.dumps(found).strip('"')

    def _cast(self, values: Array) -> Array:
        with np.errstate(all="ignore"):
            return values.astype(self.dtype)

    def chunk(self, level: int, idx: tuple[int, ...]) -> bytes | None:
        """Return the bytes of a chunk; None if it is not in the grid."""
        dataset = self.dataset(level)
        if len(idx) != dataset.ndim or any(
            i >= n for i, n in zip(idx, dataset.chunk_grid, strict=True)
        ):
            return None
        size = self.dtype.itemsize * prod(dataset.chunk_size)
        self._served.limits.check_bytes(size, "make its chunks smaller by 'dosna copy'")
        with sharing(size + dataset.dtype.itemsize * prod(dataset.chunk_size)):
            return self._chunk(dataset, idx)

    def _chunk(self, dataset: EngineDataset, idx: tuple[int, ...]) -> bytes:
        values = np.asarray(dataset.get_chunk_data(idx))
        if values.shape != dataset.chunk_size:
            whole = np.zeros(dataset.chunk_size, self.dtype)
            whole[tuple(map(slice, values.shape))] = self._cast(values)
            values = whole
        return self._cast(values).astype(self.dtype.newbyteorder("<"), copy=False).tobytes()

    def contrast(self) -> tuple[float, float] | None:
        """Return a range without the most extreme values, from a small part of the data."""
        dataset = self.dataset(self.count - 1)
        middle = tuple(
            slice((n - min(n, 64)) // 2, (n - min(n, 64)) // 2 + min(n, 64)) for n in dataset.shape
        )
        first = (0,) * (dataset.ndim - 3)
        values = np.asarray(dataset[(*first, *middle[-3:])], np.float64)
        values = values[np.isfinite(values)]
        if not len(values):
            return None
        low, high = (float(q) for q in np.percentile(values, [0.2, 99.8]))
        if low == high:
            low, high = float(values.min()), float(values.max())
        half = max(0.5, abs(low) / 2)
        return (low, high) if low < high else (low - half, low + half)


def key_of(name: str) -> str:
    """Return the part of a path that represents a name."""
    return base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")


def view_of(served: Served, key: str) -> View:
    """Return the view of the dataset that a part of a path represents.

    Raises
    ------
    Refusal
        There is no such dataset (404), or it cannot be shown (415).
    """
    try:
        name = base64.b64decode(key + "=" * (-len(key) % 4), b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise Refusal(404, "there is no such volume") from None
    return View(served, name)
