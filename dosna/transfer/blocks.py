"""The parts of a dataset that are sent to HSDS, and the chunks that it has there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import h5py
import numpy as np

from dosna.core.metadata import choose_chunk_size
from dosna.core.plan import every_chunk
from dosna.core.types import Box, Shape
from dosna.sources.base import ArrayDescription
from dosna.sources.chunking import choose_chunks
from dosna.sources.hdf5.source import H5Source
from dosna.sources.hdf5.strings import blocks
from dosna.transfer.copying import Copied, H5Copy

__all__ = [
    "BLOCK_BYTES",
    "ONE_CHUNK",
    "Block",
    "blocks_of",
    "chunks_of",
    "nbytes_of",
    "read_block",
]


BLOCK_BYTES = 4 << 20

_MOST_CHUNK_BYTES = 32 << 20

ONE_CHUNK = 1 << 20


@dataclass
class Block:
    """A part of a dataset to read and send."""

    id: str
    copied: Copied
    box: Box
    nbytes: int


def nbytes_of(found: Copied) -> int:
    """Return the bytes of the elements of a dataset."""
    return prod(found.shape) * found.dataset.dtype.itemsize if found.shape is not None else 0


def chunks_of(found: Copied) -> Shape | None:
    """Choose the chunks in HSDS; None if the whole dataset is one chunk."""
    shape, dtype, own = found.shape, found.dataset.dtype, found.dataset.chunks
    if not shape:
        return None
    if own is None:
        if nbytes_of(found) <= ONE_CHUNK:
            return None
        return choose_chunk_size(shape, dtype.itemsize, BLOCK_BYTES)
    own = tuple(map(int, own))
    if dtype.hasobject or not prod(shape):
        return own
    if prod(own) * dtype.itemsize > _MOST_CHUNK_BYTES:
        return choose_chunk_size(shape, dtype.itemsize, BLOCK_BYTES)
    inner = dtype.shape
    described = ArrayDescription("", shape + inner, dtype.base, chunks=own + inner)
    chosen = choose_chunks(described)[: len(shape)]
    return tuple(min(c, n) for c, n in zip(chosen, shape, strict=True))


def blocks_of(made: str, found: Copied) -> Iterator[Block]:
    """Yield the blocks that cover a dataset, whose id in the domain is `made`."""
    shape, itemsize = found.shape, found.dataset.dtype.itemsize
    if shape is None or not prod(shape):
        return
    boxes: Iterable[Box]
    if not shape or found.dataset.dtype.hasobject:
        boxes = blocks(shape)
    else:
        boxes = (task.out for task in every_chunk(shape, chunks_of(found) or shape))
    for box in boxes:
        yield Block(made, found, box, prod(s.stop - s.start for s in box) * itemsize)


def read_block(source: H5Source, copy: H5Copy, block: Block) -> Any:
    """Read the elements of a block, with references as HSDS keeps them."""
    dataset = block.copied.dataset
    dtype = dataset.dtype
    if h5py.check_ref_dtype(dtype) is not None:
        return copy.referring(np.asarray(dataset[block.box], object))
    if dtype.hasobject:
        return _with_notes(dataset[block.box], dtype)
    box = block.box + tuple(slice(0, n) for n in dtype.shape)
    return source.read(block.copied.name, box)


def _with_notes(values: Any, dtype: np.dtype[Any]) -> Any:
    """Return an array of Python objects whose dtype says what they are."""
    if dtype.names is not None:
        return np.asarray(values, dtype)
    shape = np.shape(values) if isinstance(values, np.ndarray) and values.dtype == dtype else ()
    made = np.empty(shape, dtype)
    made[...] = values if shape else None
    if not shape:
        made[()] = values
    return made
