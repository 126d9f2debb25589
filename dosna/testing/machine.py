"""A random walk over all operations of a dataset, compared with a NumPy array."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import dosna as dn
from dosna.core.types import Array
from dosna.testing.base import Kit, MakeConnection
from dosna.testing.samples import check, keys, sample

FILL = -7


class DatasetMachine(RuleBasedStateMachine):
    """Datasets of a store, beside NumPy arrays that they must equal.

    The subclass that the test makes sets `make_connection` and `prefix`.
    """

    make_connection: MakeConnection
    prefix: str
    create_options: dict[str, Any]
    least_axes: int

    def __init__(self) -> None:
        super().__init__()
        self.models: dict[str, Array] = {}
        self.handles: dict[str, dn.Dataset] = {}
        self.con = type(self).make_connection()
        self.seed = 0

    def teardown(self) -> None:
        for name in self.models:
            self.con.del_dataset(self.prefix + name)
        self.con.disconnect()

    def pick(self, data: st.DataObject) -> tuple[str, dn.Dataset, Array]:
        """Return a dataset that `data` chooses."""
        name = data.draw(st.sampled_from(sorted(self.models)), label="dataset")
        return name, self.handles[name], self.models[name]

    def values(self, shape: tuple[int, ...]) -> Array:
        """Return values that were not used before."""
        self.seed += 1
        return sample(shape, "<i4", self.seed)

    @initialize()
    def connect(self) -> None:
        self.con.connect()

    @precondition(lambda self: len(self.models) < 3)
    @rule(data=st.data())
    def create(self, data: st.DataObject) -> None:
        name = next(n for n in "abc" if n not in self.models)
        shape = tuple(
            data.draw(
                st.lists(st.integers(0, 7), min_size=self.least_axes, max_size=3), label="shape"
            )
        )
        chunks = tuple(data.draw(st.integers(1, 5), label="chunk") for _ in shape)
        self.handles[name] = self.con.create_dataset(
            self.prefix + name, shape, "<i4", FILL, chunk_size=chunks, **self.create_options
        )
        self.models[name] = np.full(shape, FILL, "<i4")

    @precondition(lambda self: self.models)
    @rule(data=st.data())
    def write(self, data: st.DataObject) -> None:
        _, ds, model = self.pick(data)
        key = data.draw(keys(model.shape), label="key")
        values = self.values(model[key].shape)
        model[key] = values
        ds[key] = values
        check(ds[key], model[key], key)

    @precondition(lambda self: self.models)
    @rule(data=st.data())
    def write_or_delete_a_chunk(self, data: st.DataObject) -> None:
        _, ds, model = self.pick(data)
        if model.size == 0:
            return
        idx = tuple(data.draw(st.integers(0, n - 1), label="idx") for n in ds.chunk_grid)
        place = tuple(
            slice(i * c, min((i + 1) * c, n))
            for i, c, n in zip(idx, ds.chunk_size, model.shape, strict=True)
        )
        if data.draw(st.booleans(), label="delete"):
            ds.del_chunk(idx)
            model[place] = FILL
        else:
            values = self.values(model[place].shape)
            ds.set_chunk_data(idx, values)
            model[place] = values

    @precondition(lambda self: self.models)
    @rule(data=st.data())
    def load(self, data: st.DataObject) -> None:
        _, ds, model = self.pick(data)
        model[...] = self.values(model.shape)
        ds.load(model)

    @precondition(lambda self: any(m.ndim for m in self.models.values()))
    @rule(data=st.data())
    def resize(self, data: st.DataObject) -> None:
        name, ds, model = self.pick(data)
        shape = tuple(data.draw(st.integers(0, 9), label="extent") for _ in model.shape)
        resized = np.full(shape, FILL, "<i4")
        both = tuple(slice(0, min(a, b)) for a, b in zip(shape, model.shape, strict=True))
        resized[both] = model[both]
        ds.resize(shape)
        self.models[name] = resized

    @precondition(lambda self: self.models)
    @rule(data=st.data())
    def append(self, data: st.DataObject) -> None:
        name, ds, model = self.pick(data)
        if model.ndim == 0:
            return
        axis = data.draw(st.integers(0, model.ndim - 1), label="axis")
        extent = data.draw(st.integers(0, 4), label="extent")
        more = self.values((*model.shape[:axis], extent, *model.shape[axis + 1 :]))
        ds.append(more, axis)
        self.models[name] = np.concatenate([model, more], axis)

    @precondition(lambda self: self.models)
    @rule(data=st.data())
    def apply(self, data: st.DataObject) -> None:
        name, ds, model = self.pick(data)
        ds.apply(np.negative)
        self.models[name] = np.asarray(-model)

    @precondition(lambda self: 0 < len(self.models) < 3)
    @rule(data=st.data(), clone=st.booleans())
    def map_or_clone(self, data: st.DataObject, clone: bool) -> None:
        _, ds, model = self.pick(data)
        name = next(n for n in "abc" if n not in self.models)
        if clone:
            self.handles[name] = ds.clone(self.prefix + name, data=True)
            self.models[name] = model.copy()
        else:
            self.handles[name] = ds.map(np.invert, self.prefix + name)
            self.models[name] = np.asarray(~model)

    @precondition(lambda self: self.models)
    @rule(data=st.data())
    def clear(self, data: st.DataObject) -> None:
        _, ds, model = self.pick(data)
        ds.clear()
        model[...] = FILL

    @precondition(lambda self: self.models)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        name, ds, _ = self.pick(data)
        ds.delete()
        del self.models[name], self.handles[name]

    @rule()
    def reopen(self) -> None:
        self.con.disconnect()
        self.con = type(self).make_connection()
        self.con.connect()
        self.handles = {name: self.con[self.prefix + name] for name in self.models}

    @invariant()
    def agrees(self) -> None:
        if not self.con.connected:
            return
        found = [name for name in self.con if name.startswith(self.prefix)]
        assert found == sorted(self.prefix + name for name in self.models)
        for name, model in self.models.items():
            check(self.handles[name][...], model, name)
            if model.size:
                assert self.handles[name].sum() == model.sum()


class MachineTests(Kit):
    """Tests of random sequences of all operations of a dataset."""

    def test_any_sequence_of_changes_equals_numpy(
        self, make_connection: MakeConnection, name: str
    ) -> None:
        machine = type(
            "Machine",
            (DatasetMachine,),
            {
                "make_connection": staticmethod(make_connection),
                "prefix": name,
                "create_options": self.create_options,
                "least_axes": self.least_axes,
            },
        )
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=self.examples,
                stateful_step_count=20,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
