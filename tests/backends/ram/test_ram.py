"""What the ram backend does by itself: batches of small chunks, large ones changed in place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import dosna as dn
from dosna import errors
from dosna.array.connection import EngineConnection
from dosna.backends.ram import dataset as ram


@pytest.fixture
def connection() -> Iterator[EngineConnection]:
    with dn.Connection("test-ram", backend="ram", engine="cpu") as made:
        yield made
        for name in list(made):
            made.del_dataset(name)


@pytest.mark.parametrize("shape", [(100, 66), (99, 65)], ids=["tiled", "with edges"])
def test_more_tasks_than_a_batch(connection: EngineConnection, shape: tuple[int, int]) -> None:
    model = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    ds = connection.create_dataset("a", shape, np.int32, fillvalue=-1, chunk_size=(2, 1))
    assert ds.total_chunks > ram._BATCH
    ds[:60] = model[:60]
    expected = np.where(np.arange(shape[0])[:, None] < 60, model, -1)
    np.testing.assert_array_equal(ds[...], expected)
    ds[...] = model[::-1].astype(np.float64)
    np.testing.assert_array_equal(ds[...], model[::-1])
    np.testing.assert_array_equal(ds[97:2:-3, 1:], model[::-1][97:2:-3, 1:])


def test_a_batch_keeps_nothing_of_the_callers_array(connection: EngineConnection) -> None:
    values = np.ones((8, 8), np.float32)
    ds = connection.create_dataset("a", (8, 8), chunk_size=(4, 4))
    ds[...] = values
    values[...] = 2
    ds[...][...] = 3
    np.testing.assert_array_equal(ds[...], 1)


@pytest.mark.parametrize("side", [8, 128], ids=["replaced", "in place"])
def test_a_box_that_covers_a_chunk_or_not(connection: EngineConnection, side: int) -> None:
    shape = (side + 3, side + 3)
    model = np.zeros(shape, np.float64)
    ds = connection.create_dataset("a", shape, np.float64, chunk_size=(side, side))
    boxes: list[tuple[Any, ...]] = [
        (slice(0, side), slice(0, side)),
        (slice(1, side), slice(0, side)),
        (slice(side, None), slice(side, None)),
        (slice(side, side + 2), slice(side, side + 3)),
        (3, slice(0, side)),
    ]
    for value, box in enumerate(boxes, 1):
        ds[box] = value
        model[box] = value
        np.testing.assert_array_equal(ds[...], model)


@pytest.mark.parametrize("dtype", ["f8", str])
@pytest.mark.parametrize("key", [np.s_[...], np.s_[1:3]])
def test_what_is_replaced_while_it_is_read_is_not_read_as_fill(monkeypatch, dtype, key):
    with dn.Connection("replaced-while-read", backend="ram", engine="cpu") as con:
        con.ingest({"a": np.full((4, 4), 7, dtype)}, chunk_size=(2, 2), overwrite=True)
        handle = con["a"]
        kind = type(handle.instance)
        for name in ("_read_batch", "_read_each"):
            whole = getattr(kind, name)

            def late(self, *args, read=whole):
                con.ingest({"a": np.full((4, 4), 8, dtype)}, chunk_size=(2, 2), overwrite=True)
                read(self, *args)

            monkeypatch.setattr(kind, name, late)
        with pytest.raises(errors.StaleDatasetError):
            handle[key]
        monkeypatch.undo()
        assert con["a"][0, 0] == np.full(1, 8, dtype)[0]
        con.del_dataset("a")


def test_datasets_that_are_being_replaced_are_not_listed(connection: EngineConnection) -> None:
    before = list(connection)
    names = ["-a", "0", "a", "~"]  # on both sides of the hidden ones
    for name in names:
        connection.create_dataset(name, data=[1])
    metadata = connection["a"].instance.metadata
    with connection.replacing("a", metadata, {}):
        assert len(connection.instance._datasets) == len(before) + len(names) + 1  # type: ignore[attr-defined]
        assert list(connection) == sorted([*before, *names])
