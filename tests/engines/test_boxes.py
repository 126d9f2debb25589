"""Boxes of many stored objects: how many, and memory that is used for one after another."""

from __future__ import annotations

import numpy as np
import pytest

import dosna as dn
from dosna.engines.work.boxes import WINDOW_OBJECTS, Memory, window
from dosna.engines.work.loading import load_block


def test_memory_is_used_again_once_nobody_refers_to_it():
    memory, places = Memory(2), set()
    for size in (8, 7, 8):
        box = memory.take((size, 4), np.dtype("f8"))
        places.add(box.ctypes.data)
        del box
    assert len(places) == 1
    part = memory.take((8, 4), np.dtype("f8"))[3:, 1:]
    part[...] = 1
    for _ in range(4):
        memory.take((8, 4), np.dtype("f8"))[...] = 2
    assert (part == 1).all()
    kept = [memory.take((3,), np.dtype("u1")) for _ in range(5)]
    assert len({box.ctypes.data for box in kept}) == 5


def test_only_what_nobody_else_has_is_not_copied():
    memory = Memory(9)
    fresh, other = np.arange(3.0), np.arange(3.0)
    place = fresh.ctypes.data
    held = [fresh]
    del fresh
    assert memory.own(held, np.dtype("f8")).ctypes.data == place
    for array in (other, np.arange(6.0)[:3], np.arange(3), np.frombuffer(bytes(24))):
        owned = memory.own([array], np.dtype("f8"))
        assert not np.may_share_memory(owned, array)
        assert owned.dtype == "f8"
        np.testing.assert_array_equal(owned, array)


@pytest.mark.parametrize("shape", [(), (0, 3), (7,), (100, 100), (5, 1, 90), (1000, 3)])
@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("limit", [None, 0, 10, 70, 10_000])
def test_a_window_is_a_bounded_number_of_blocks(shape, workers, limit):
    block = tuple(min(3, n) or 1 for n in shape)
    found, overlaps = window(shape, block, 10, limit, workers)
    assert all(f % b == 0 for f, b in zip(found, block, strict=True))
    times = np.prod([f // b for f, b in zip(found, block, strict=True)])
    blocks = np.prod([-(-n // b) for n, b in zip(shape, block, strict=True)])
    assert times <= max(1, min(WINDOW_OBJECTS, blocks))
    assert workers == 1 or times * 4 * workers <= max(blocks, 4 * workers)
    assert limit is None or times * 10 <= max(limit, 10)
    assert overlaps == (limit is None or limit >= 20)


def test_blocks_take_chunks_whole_or_contiguous_parts_of_them():
    with dn.Connection("blocks", backend="ram", engine="cpu") as con:
        cubes = con.create_dataset("cubes", (640, 640, 640), "f4", chunk_size=(64,) * 3).instance
        planes = (1, 640, 640)
        assert load_block(cubes, planes, 100 << 20, 8) == (64, 640, 640)
        assert load_block(cubes, planes, 32 << 20, 8) == (64, 192, 640)
        assert load_block(cubes, (640, 640, 1), 32 << 20, 8) == (192, 640, 64)
        # Chunks that only lie across objects are read again at the edges of blocks.
        assert load_block(cubes, (48, 96, 64), 32 << 20, 8) == (256, 512, 64)
        con.del_dataset("cubes")


class Planes:
    """A source whose chunks are planes; it counts the boxes that are read."""

    shape, dtype, chunks, boxes = (8, 40, 40), np.dtype("f8"), (1, 40, 40), 0
    values = np.arange(8 * 40 * 40.0).reshape(shape)

    def __getitem__(self, box):
        self.boxes += 1
        return self.values[box]


@pytest.mark.parametrize(("limit", "boxes"), [(None, 15), ("1M", 1)])
def test_a_memory_limit_may_allow_more_than_blocks_have_otherwise(monkeypatch, limit, boxes):
    monkeypatch.setattr("dosna.array.loading.BLOCK_BYTES", 8 << 10)
    source = Planes()
    with dn.Connection("blocks", backend="ram", engine="cpu") as con:
        cubes = con.create_dataset("cubes", source.shape, "f8", chunk_size=(8, 8, 8))
        cubes.load(source, memory_limit=limit)
        assert source.boxes == boxes
        assert np.array_equal(cubes[...], source.values)
        con.del_dataset("cubes")
