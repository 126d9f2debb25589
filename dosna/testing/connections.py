"""Conformance of connections: lifecycle, names, modes, creating and deleting datasets.

The file is long because its tests are one class, which a backend or engine takes as a whole.
"""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

import dosna as dn
from dosna import errors
from dosna.core.plan import ChunkTask, plan
from dosna.core.selection import select
from dosna.testing.base import Kit, MakeConnection
from dosna.testing.samples import check, sample


class ConnectionTests(Kit):
    """Tests of a connection before any element is stored."""

    def test_use_outside_of_connect_and_disconnect_is_an_error(
        self, make_connection: MakeConnection, name: str
    ) -> None:
        con = make_connection()
        assert not con.connected
        with pytest.raises(errors.NotConnectedError, match="not connected"):
            con.create_dataset(name, (2,))
        con.connect()
        con.connect()
        assert con.connected
        ds = self.create(con, name, data=np.arange(3))
        chunk = ds.get_chunk((0,))
        con.disconnect()
        con.disconnect()
        assert not con.connected
        uses: list[Any] = [
            lambda: con.get_dataset(name),
            lambda: con.has_dataset(name),
            lambda: con.del_dataset(name),
            lambda: list(con),
            lambda: len(con),
            lambda: con.names_in(name),
            lambda: ds[0],
            lambda: ds.__setitem__(0, 1),
            lambda: ds.get_chunk((0,)),
            lambda: ds.get_chunk_data((0,)),
            lambda: ds.has_chunk((0,)),
            lambda: ds.written_chunks(),
            lambda: ds.map(np.sqrt, name + "-out"),
            lambda: ds.sum(),
            lambda: ds.verify(),
            lambda: dict(ds.attrs),
            lambda: ds.guarantees,
            lambda: con._ipython_key_completions_(),
            lambda: chunk.get_data(),
            lambda: chunk.set_data(0),
        ]
        for number, use in enumerate(uses):
            with pytest.raises(errors.NotConnectedError):
                print(number, use())
        with con:
            check(con[name][...], np.arange(3))
        assert not con.connected

    def test_a_with_block_disconnects_after_an_error(
        self, make_connection: MakeConnection
    ) -> None:
        con = make_connection()
        with pytest.raises(ZeroDivisionError), con:
            print(1 / 0)
        assert not con.connected

    def test_what_was_stored_is_found_by_another_connection(
        self, make_connection: MakeConnection, name: str
    ) -> None:
        data = sample((5, 6), "<f8")
        with make_connection() as con:
            ds = self.create(con, name, data=data, chunk_size=(2, 4), fillvalue=7)
            ds.attrs["unit"] = "mm"
        with make_connection() as again:
            found = again[name]
            check(found[...], data)
            assert (found.shape, found.dtype, found.chunk_size) == ((5, 6), data.dtype, (2, 4))
            assert found.fillvalue == 7
            assert dict(found.attrs) == {"unit": "mm"}

    def test_dataset_is_described(self, con: dn.Connection, name: str) -> None:
        ds = self.create(con, name, (7, 10), "<i4", chunk_size=(3, 5), fillvalue=-1)
        assert isinstance(ds, dn.Dataset)
        assert (ds.name, ds.shape, ds.dtype) == (name, (7, 10), np.dtype("<i4"))
        assert (ds.ndim, ds.size, ds.nbytes, len(ds)) == (2, 70, 280, 7)
        assert ds.fillvalue == -1
        assert isinstance(ds.fillvalue, np.int32)
        assert ds.chunk_size == ds.chunks == (3, 5)
        assert (ds.chunk_grid, ds.total_chunks) == ((3, 2), 6)
        assert ds.connection is con
        assert name in repr(ds)
        check(ds[...], np.full((7, 10), -1, "<i4"))

    def test_defaults_of_create(self, con: dn.Connection, name: str) -> None:
        plain = self.create(con, name, 4)
        assert (plain.shape, plain.dtype, plain.fillvalue) == ((4,), np.dtype("f4"), 0)
        loaded = self.create(con, name + "-b", data=[[1, 2], [3, 4]])
        check(loaded[...], np.array([[1, 2], [3, 4]]))
        converted = self.create(con, name + "-c", data=np.array([1, 2]), dtype="f8")
        check(converted[...], np.array([1.0, 2.0]))
        large = self.create(con, name + "-d", (3000, 3000))
        assert 2**19 <= 4 * large.chunk_size[0] * large.chunk_size[1] <= 2**20

    def test_names(self, con: dn.Connection, name: str) -> None:
        before = set(con)
        ds = self.create(con, name, (2,))
        nested = self.create(con, name + "-g/entry/data", data=[1, 2])
        assert set(con) - before == {name, name + "-g/entry/data"}
        assert len(con) == len(list(con)) == len(before) + 2
        assert list(con) == sorted(con)
        assert name in con
        assert con.has_dataset(name + "-g/entry/data")
        assert name + "-g" not in con
        assert name + "-g/entry" not in con
        assert 3 not in con
        assert con.names_in("") == list(con) == list(con.keys())
        assert {key: found.shape for key, found in con.items()}[nested.name] == (2,)
        assert con.get(name + "-g") is None
        for group in (name + "-g", name + "-g/entry"):
            assert con.names_in(group) == [nested.name]
            inside = nested.name if group.endswith("entry") else name + "-g/entry"
            found = con.children(group)
            assert found.groups + found.datasets == [inside]
        assert con.children(name + "-g").datasets == con.children(name + "-g/entry").groups == []
        assert name in con.children().datasets
        assert name + "-g" in con.children().groups
        for group in (name, nested.name, name[:-1], name + "-g/e", name + "-g/", ".."):
            assert con.names_in(group) == [], group
            assert con.children(group) == ([], []), group
        check(con[nested.name][...], np.array([1, 2]))
        for bad in ("", "/", name + "/", "/" + name, name + "//x", name + "/../x", ".", ".."):
            with pytest.raises(errors.DatasetNameError):
                self.create(con, bad, (2,))
            assert bad not in con
            with pytest.raises(errors.DatasetNotFoundError):
                con.get_dataset(bad)
        with pytest.raises(errors.DatasetNameError, match="dataset"):
            self.create(con, name + "/below", (2,))
        with pytest.raises(errors.DatasetNameError):
            self.create(con, name + "-g/entry", (2,))
        with pytest.raises(TypeError):
            self.create(con, 5, (2,))  # type: ignore[arg-type]
        assert ds.written_chunks() == []
        con.del_dataset(nested.name)
        assert set(con) - before == {name}
        self.create(con, name + "-g", (2,))

    def test_create_refuses_a_name_that_is_taken(self, con: dn.Connection, name: str) -> None:
        self.create(con, name, data=[1, 2, 3])
        with pytest.raises(errors.DatasetExistsError, match=name):
            self.create(con, name, data=[4, 5])
        with pytest.raises(FileExistsError):
            self.create(con, name, (3,))
        check(con[name][...], np.array([1, 2, 3]))

    def test_create_refuses_what_cannot_be_stored(self, con: dn.Connection, name: str) -> None:
        cases: list[tuple[type[Exception], dict[str, Any]]] = [
            (ValueError, {}),
            (ValueError, {"shape": (-1,)}),
            (TypeError, {"shape": (1.5,)}),
            (TypeError, {"shape": (2,), "dtype": object}),
            (TypeError, {"shape": (2,), "chunk_size": (1.5,)}),
            (ValueError, {"shape": (2,), "chunk_size": (0,)}),
            (ValueError, {"shape": (2,), "chunk_size": (1, 1)}),
            (ValueError, {"shape": (2,), "dtype": "u1", "fillvalue": 300}),
            (ValueError, {"shape": (2,), "data": [1, 2, 3]}),
            (TypeError, {"shape": (2,), "misspelt": 1}),
            (TypeError, {"data": np.array([None])}),
        ]
        for error, options in cases:
            with pytest.raises(error):
                con.create_dataset(name, **options)
            assert name not in con, options

    def test_a_create_whose_data_fail_leaves_nothing(self, con: dn.Connection, name: str) -> None:
        class Source:
            shape, dtype = (4,), np.dtype("f8")

            def __getitem__(self, key: Any) -> Any:
                raise RuntimeError("the source broke")

        with pytest.raises(RuntimeError, match="the source broke"):
            self.create(con, name, data=Source(), chunk_size=2)
        assert name not in con
        self.create(con, name, (2,))

    def test_require(self, con: dn.Connection, name: str) -> None:
        made = con.require_dataset(name, (4,), "f4", chunk_size=2)
        made[...] = 3
        found = con.require_dataset(name, (4,), "f4")
        check(found[...], np.full(4, 3, "f4"))
        con.require_dataset(name, 4, "f2")
        with pytest.raises(TypeError, match="shape"):
            con.require_dataset(name, (5,), "f4")
        with pytest.raises(TypeError, match="dtype"):
            con.require_dataset(name, (4,), "f8")
        with pytest.raises(TypeError, match="dtype"):
            con.require_dataset(name, (4,), "f2", exact=True)

    def test_a_dataset_that_is_not_there(self, con: dn.Connection, name: str) -> None:
        assert name not in con
        for error in (errors.DatasetNotFoundError, KeyError):
            with pytest.raises(error, match=name):
                con.get_dataset(name)
            with pytest.raises(error, match=name):
                print(con[name])
            with pytest.raises(error, match=name):
                con.del_dataset(name)

    def test_a_deleted_dataset_is_gone_for_handles_too(
        self, con: dn.Connection, name: str
    ) -> None:
        data = np.arange(8.0)
        ds = self.create(con, name, data=data, chunk_size=3)
        ds.delete()
        assert name not in con
        with pytest.raises(errors.DatasetNotFoundError):
            print(ds[...])
        # A store may miss that it writes to a deleted dataset, but the dataset must not reappear.
        for key in (slice(0, 3), 1):
            with suppress(errors.DatasetNotFoundError):
                ds[key] = 1
        with pytest.raises(errors.DatasetNotFoundError):
            ds.attrs["a"] = 1
        assert name not in con
        again = self.create(con, name, (4,), "i4")
        check(again[...], np.zeros(4, "i4"))
        del con[name]
        assert name not in con

    def test_read_only(self, make_connection: MakeConnection, name: str) -> None:
        data = np.arange(10.0)
        with make_connection() as con:
            assert con.mode == "a"
            self.create(con, name, data=data, chunk_size=4).attrs["unit"] = "mm"
        con = make_connection()
        con.instance.mode = "r"
        with con:
            ds = con[name]
            check(ds[...], data)
            chunk = ds.get_chunk((0,))
            check(chunk[...], data[:4])
            assert ds.sum() == data.sum()
            assert ds.attrs["unit"] == "mm"
            changes: list[Any] = [
                lambda: con.create_dataset(name + "-b", (2,)),
                lambda: con.require_dataset(name + "-b", (2,)),
                lambda: con.del_dataset(name),
                lambda: ds.__setitem__(0, 1),
                lambda: ds.__setitem__(slice(None), 1),
                lambda: ds.set_data(1),
                lambda: ds.set_chunk_data((0,), 1),
                lambda: ds.create_chunk((0,)),
                lambda: ds.del_chunk((0,)),
                lambda: chunk.set_data(1),
                lambda: ds.load(data),
                lambda: ds.apply(np.sqrt),
                lambda: ds.map(np.sqrt, name + "-b"),
                lambda: ds.clone(name + "-b"),
                lambda: ds.copy(con, name + "-b"),
                lambda: ds.clear(),
                lambda: ds.delete(),
                lambda: ds.resize(3),
                lambda: ds.append([1.0]),
                lambda: ds.attrs.__setitem__("unit", "cm"),
                lambda: ds.attrs.clear(),
            ]
            for number, change in enumerate(changes):
                with pytest.raises(errors.ReadOnlyError):
                    print(number, change())
        with make_connection() as con:
            check(con[name][...], data)
            assert dict(con[name].attrs) == {"unit": "mm"}
            assert name + "-b" not in con

    def test_the_number_of_datasets_is_that_of_the_moment(
        self, con: dn.Connection, name: str
    ) -> None:
        before = len(con)
        self.create(con, name, (2,))
        names = iter(con)
        self.create(con, name + "-b", (2,))
        assert len(con) == before + 2
        again = iter(con)
        assert len(con) == before + 2
        con.del_dataset(name + "-b")
        assert len(con) == before + 1
        assert name in list(again)
        assert name in list(names)
        assert len(list(con)) == len(sorted(con)) == before + 1

    def test_what_is_read_only_refuses_every_change_by_itself(
        self, make_connection: MakeConnection, name: str
    ) -> None:
        # Below the engine: a service that grants read access must not depend on its callers.
        data = np.arange(10.0)
        with make_connection() as con:
            writer = self.create(con, name, data=data, chunk_size=4, attrs={"a": 1})
            assert writer.written_chunks() == [(0,), (1,), (2,)]
            groups = con.instance.keeps_groups
            if groups:
                con.set_group_attrs(f"{name}-g", {"b": 2})
        con = make_connection()
        con.instance.mode = "r"
        with con:
            ds = con[name]
            handles = [ds]
            if con.instance.shared_between_processes:
                handles.append(pickle.loads(pickle.dumps(ds)))
            for handle in handles:
                self._refuses_every_change(handle.instance, name)
            assert not hasattr(ds, "del_object")
            assert not hasattr(con, "dataset_names")
            place: Any = con.instance
            metadata = ds.instance.metadata
            changes: list[Any] = [
                lambda: place.create_dataset(name + "-b", metadata),
                lambda: place.del_dataset(name),
                lambda: place.del_dataset(name, ds.instance),
                lambda: place.check_writable(),
            ]
            if groups:
                changes.append(lambda: place.set_group_attrs(f"{name}-g", {}))
            for own in ("make_parents", "make_groups", "drop_consolidated"):
                if hasattr(place, own):
                    changes.append(lambda own=own: getattr(place, own)(f"{name}-c/d/e"))
            store = getattr(place, "store", None)
            if store is not None:
                key = place.document(name)
                changes += [
                    lambda: store.put(key, b""),
                    lambda: store.put_ranges(key, [(0, b"x")]),
                    lambda: store.delete(key),
                    lambda: store.delete_many([key]),
                ]
            for number, change in enumerate(changes):
                with pytest.raises(errors.ReadOnlyError):
                    print(number, change())
        with make_connection() as con:
            again = con[name]
            check(again[...], data)
            assert dict(again.attrs) == {"a": 1}
            again[0] = 5
            assert con[name][0] == 5
            assert [n for n in con if n.startswith(name)] == [name]
            if groups:
                assert con.get_group_attrs(f"{name}-g") == {"b": 2}
                assert con.get_group_attrs(f"{name}-c/d") == {}
                con.set_group_attrs(f"{name}-g", {})

    def _refuses_every_change(self, backend: Any, name: str) -> None:
        part = slice(0, min(10, backend.grain[0]))
        values, task = np.ones(10), ChunkTask((0,), (part,), (part,), True)
        chunk = backend.get_chunk((0,))
        changes: list[Any] = [
            lambda: backend.set_chunk_data((0,), 1.0, (slice(0, 2),)),
            lambda: backend.set_chunk_data((0,), np.ones(4)),
            lambda: backend.write_many(values, [task]),
            lambda: backend.write_many(values, plan(select(..., (10,)), backend.grain)),
            lambda: backend.write_many(values, [ChunkTask((0,), (0,), (0,), False)]),
            lambda: backend.del_chunk((0,)),
            lambda: backend.del_object((0,)),
            lambda: backend.del_objects([(0,)]),
            lambda: backend.trim_object((0,)),
            lambda: backend.resize((3,)),
            lambda: backend.resize((30,)),
            lambda: backend.extend(0, 2),
            lambda: backend.update(lambda m: m.replace(attrs={})),
            lambda: backend.check_writable(),
            lambda: chunk.set_data(1.0),
            lambda: chunk.set_data(1.0, (slice(0, 2),)),
        ]
        for number, change in enumerate(changes):
            with pytest.raises(errors.ReadOnlyError):
                print(number, change())

    def test_a_connection_can_be_pickled(self, make_connection: MakeConnection, name: str) -> None:
        with make_connection() as con:
            if not con.instance.shared_between_processes:
                ds = self.create(con, name, data=[1])
                with pytest.raises(TypeError):
                    pickle.dumps(ds)
                return
            ds = self.create(con, name, data=np.arange(6.0), chunk_size=4)
            again = pickle.loads(pickle.dumps(ds))
            check(again[1:5], np.arange(1.0, 5))
            again[0] = 9
            assert ds[0] == 9
            assert name in pickle.loads(pickle.dumps(con))

    def test_a_dataset_whose_data_are_still_to_come(
        self, make_connection: MakeConnection, name: str
    ) -> None:
        origin = {"source": "scan.h5", "size": 5}
        with make_connection() as con:
            options: dict[str, Any] = {"incomplete": True, "origin": origin, "attrs": {"a": 1}}
            ds = self.create(con, name, data=np.arange(6.0), chunk_size=4, **options)
            assert set(ds.instance.finished_objects()) == set(ds.instance.object_indices())
            assert ds.incomplete
        with make_connection() as con:
            ds = con[name]
            assert (ds.incomplete, ds.origin, dict(ds.attrs)) == (True, origin, {"a": 1})
            with pytest.warns(errors.IncompleteDatasetWarning, match=r"incomplete.*scan\.h5"):
                check(ds[...], np.arange(6.0))
            ds.attrs["b"] = 2
            assert con[name].incomplete
            ds.load(np.arange(6.0), missing=True)
            assert con[name].incomplete
            ds.mark_complete()
            assert not ds.incomplete
        with make_connection() as con:
            assert (con[name].incomplete, con[name].origin) == (False, origin)
            check(con[name][...], np.arange(6.0))

    def test_a_load_of_what_is_missing(self, con: dn.Connection, name: str) -> None:
        ds = self.create(con, name, (9, 4), "i4", chunk_size=(2, 4))
        data = np.arange(36, dtype="i4").reshape(9, 4)
        ds.load(-data)
        size = ds.instance.grain[0]
        ds.instance.del_object((0, 0))
        told: list[tuple[int, int]] = []
        ds.load(data, missing=True, progress=lambda *at: told.append(at))
        total = -(-9 // size)
        if told:  # only one of several ranks is told
            assert (told[0], told[-1]) == ((0, total), (total, total))
        check(ds[:size], data[:size])
        check(ds[size:], -data[size:])

    def test_attributes_of_groups_that_threads_change_at_once(
        self, make_connection: MakeConnection, name: str
    ) -> None:
        with make_connection() as con:
            if not con.instance.keeps_groups:
                return
            con.set_group_attrs(name, {"first": 0})

            def add(number: int) -> None:
                con.instance.change_group_attrs(name, lambda before: {**before, f"{number}": 1})

            with ThreadPoolExecutor(4) as threads:
                list(threads.map(add, range(8)))
            assert con.get_group_attrs(name).keys() == {"first", *map(str, range(8))}
            con.set_group_attrs(name, {})

    def test_attributes_of_groups(self, make_connection: MakeConnection, name: str) -> None:
        attrs = {"NX_class": "NXentry", "size": np.arange(3), "deep": {"a": [1, None]}}
        with make_connection() as con:
            if not con.instance.keeps_groups:
                with pytest.raises(errors.ConfigurationError, match="groups"):
                    con.set_group_attrs(name, attrs)
                return
            assert con.get_group_attrs(name) == {}
            self.create(con, name + "/a/b", data=[1])
            con.set_group_attrs(name + "/a", {"b": 2})
            con.set_group_attrs(name, attrs)
            con.set_group_attrs(name + "/empty/inner", {"c": 3})
            with pytest.raises(errors.DatasetNameError, match="is a dataset"):
                con.set_group_attrs(name + "/a/b", {})
            with pytest.raises(errors.DatasetNameError, match="is a dataset"):
                con.set_group_attrs(name + "/a/b/c", {})
            with pytest.raises(TypeError):
                con.set_group_attrs(name, {"a": object()})
        with make_connection() as con:
            assert [n for n in con if n.startswith(name)] == [name + "/a/b"]
            found = con.get_group_attrs(name)
            assert found.keys() == attrs.keys()
            check(found["size"], np.arange(3))
            assert found["deep"] == attrs["deep"]
            assert con.get_group_attrs(name + "/a") == {"b": 2}
            assert con.get_group_attrs(name + "/empty/inner") == {"c": 3}
            assert con.get_group_attrs(name + "/a/b") == {}
            self.create(con, name + "/empty/d", data=[2])
            con.del_dataset(name + "/a/b")
            assert con.get_group_attrs(name + "/a") == {"b": 2}
            for group in ("/a", "/empty/inner", ""):
                con.set_group_attrs(name + group, {})
                assert con.get_group_attrs(name + group) == {}
            con.del_dataset(name + "/empty/d")
            self.create(con, name, data=[3])

    def test_guarantees_agree_with_the_backend(self, con: dn.Connection, name: str) -> None:
        promised = self.create(con, name, (3,)).guarantees
        assert promised.partial_writes in ("processes", "threads", "none")
        if promised.partial_writes == "processes":
            assert con.instance.shared_between_processes
        assert promised.partial_writes != "none" or promised.notes, "say why, in the notes"
        assert {type(promised.atomic_chunks), type(promised.durable)} == {bool}
        assert {type(promised.checksum), *map(type, promised.notes)} <= {bool, str}
