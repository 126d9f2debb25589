"""What is special to the wrappers: how many requests they make, and how faults pass through."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextlib import suppress

import numpy as np
import pytest
from support import require

import dosna as dn
from dosna import errors
from dosna.testing import CountingStore, FaultyStore, MemoryStore, use_store
from dosna.testing.samples import check


@pytest.fixture
def counting():
    """A connection, and the requests that it made."""
    namespace, store = secrets.token_hex(8), CountingStore(MemoryStore())
    use_store(namespace, store)
    with dn.Connection(namespace, backend="memory", engine="cpu") as con:
        yield con, store


@pytest.fixture
def faulty():
    """A connection, and its store, which fails as its ``faults`` say."""
    namespace, store = secrets.token_hex(8), FaultyStore(MemoryStore())
    use_store(namespace, store)
    with dn.Connection(namespace, backend="memory", engine="cpu") as con:
        yield con, store


def test_requests_are_as_few_as_can_be(counting):
    con, store = counting
    ds = con.create_dataset("a", (40, 40), "i4", chunk_size=(10, 10))

    def requests(call):
        store.reset()
        call()
        return dict(store.requests)

    assert requests(lambda: ds.get_chunk((0, 0))) == {}
    assert requests(lambda: list(ds.iter_chunks())) == {}
    assert requests(lambda: (ds.shape, ds.attrs, ds.guarantees, ds.chunk_grid, repr(ds))) == {}
    # An operation that writes whole chunks looks once whether the dataset is still the same.
    assert requests(lambda: ds.__setitem__(..., 1)) == {"get": 1, "put": 16}
    assert requests(lambda: ds[...]) == {"get": 16}
    assert requests(lambda: ds[5]) == {"get": 4}
    assert requests(lambda: ds[5, 5]) == {"get": 1}
    assert requests(lambda: ds[3:3]) == {}
    assert requests(lambda: ds[[1, 2, 3], [1, 2, 39]]) == {"get": 2}
    assert requests(lambda: ds[10:30, 0:10]) == {"get": 2}
    assert requests(lambda: ds.__setitem__((5, 5), 2)) == {"get": 1, "put": 1}
    assert requests(lambda: ds.__setitem__(slice(10, 30), 3)) == {"get": 1, "put": 8}
    assert requests(lambda: ds.__setitem__(slice(5, 15), 3)) == {"get": 4 + 4, "put": 8}
    assert requests(lambda: ds.load(np.ones((40, 40)))) == {"get": 1, "put": 16}
    assert requests(lambda: ds.apply(np.negative)) == {"get": 17, "put": 16}
    assert requests(lambda: ds.sum()) == {"get": 16}
    assert requests(lambda: ds.del_chunk((0, 0))) == {"get": 1, "delete": 1}


def test_a_connection_has_the_methods_of_a_mapping_and_is_none(counting):
    con, store = counting
    made = con.create_dataset("entry/a", data=[1, 2])
    assert [ds.name for ds in con.values()] == [made.name] == con._ipython_key_completions_()
    assert dict(con).keys() == {made.name}
    assert con.get(made.name).shape == (2,)
    assert con.get("entry") is None
    assert con.get("/no name", 3) == 3
    # What takes mappings apart, as the comparison of the arguments of ranks, must not open it.
    assert not isinstance(con, Mapping)
    same = con
    assert con == same
    assert con not in (dict(con), con.in_this_process())
    assert {con: 1}[con] == 1
    made.attrs["unit"] = "m"
    assert made.attrs._ipython_key_completions_() == ["unit"]
    store.reset()
    names, once = list(con), store.requests["list"]
    assert [name for name, _ in con.items()] == names
    assert store.requests["list"] == 2 * once


def test_a_halo_reads_neighbours_once(counting):
    con, store = counting
    ds = con.create_dataset("a", data=np.arange(1600).reshape(40, 40), chunk_size=(10, 10))
    store.reset()
    ds.map(np.negative, "b", dtype="i8", halo=2)
    chunks = [key for kind, key in store.log if kind == "get" and key.startswith("a/c/")]
    # Chunk by chunk it would be 100: nine for each inner one.
    assert len(chunks) <= 48


def test_an_error_is_never_fill(faulty):
    con, store = faulty
    ds = con.create_dataset("a", data=np.arange(20.0), chunk_size=5)
    for fault in ("error", "lost", errors.StoreTimeoutError("no answer")):
        store.faults = lambda number, kind, key, fault=fault: fault if key == "a/c/2" else None
        uses = [
            lambda: ds[...],
            lambda: ds[12],
            lambda: ds[[0, 12]],
            lambda: ds.sum(),
            lambda: ds.verify(),
            lambda: ds.has_chunk((2,)),
            lambda: ds.get_chunk((2,)).get_data(),
            lambda: ds.map(np.negative, "b"),
            lambda: ds.clone("b", data=True),
        ]
        for use in uses:
            with pytest.raises(errors.StorageError):
                use()
            assert "b" not in con
    store.faults = None
    check(ds[...], np.arange(20.0))


def test_a_fault_in_the_metadata_is_not_an_absent_dataset(faulty):
    con, store = faulty
    con.create_dataset("a", (20,), chunk_size=5)
    store.faults = lambda number, kind, key: "error"
    for use in (lambda: con["a"], lambda: "a" in con, lambda: list(con), lambda: len(con)):
        with pytest.raises(errors.StorageError):
            use()
    with pytest.raises(errors.StorageError):
        con.require_dataset("a", (3,))
    store.faults = None
    assert con["a"].shape == (20,)


def test_a_lost_answer_says_that_the_outcome_is_unknown(faulty):
    con, store = faulty
    ds = con.create_dataset("a", data=np.arange(20.0), chunk_size=5)
    store.faults = lambda number, kind, key: "lost" if kind == "put" else None
    for key in (slice(None), 7, slice(3, 8)):
        with pytest.raises(errors.OutcomeUnknown):
            ds[key] = 50
    store.faults = None
    assert set(ds[...]) <= {50, *range(20)}


def test_a_crash_while_deleting_leaves_the_name_usable(faulty):
    con, store = faulty
    con.instance.settle = 0.05
    for crash in range(8):
        ds = con.create_dataset("a", data=np.arange(20.0), chunk_size=5)
        start = next(store._numbers)
        store.faults = lambda number, kind, key, at=start + 1 + crash: (
            KeyboardInterrupt() if number >= at else None
        )
        with suppress(KeyboardInterrupt):
            ds.delete()
        store.faults = None
        if "a" in con:
            check(con["a"][...], np.arange(20.0))
            del con["a"]
        check(con.create_dataset("a", (20,), chunk_size=5)[...], np.zeros(20, "f4"))
        del con["a"]
    assert set(store.inner.list("")) <= {"zarr.json"}  # the group of all datasets


def test_a_flipped_bit_is_an_error_that_names_the_chunk(counting):
    con, store = counting
    ds = con.create_dataset("a", data=np.arange(20.0), chunk_size=5)
    key = "a/c/2"
    data = bytearray(store.inner.get(key).data)
    data[3] ^= 1
    store.inner.put(key, bytes(data))
    for use in (lambda: ds[...], lambda: ds[12], lambda: ds.__setitem__(12, 1), lambda: ds.sum()):
        with pytest.raises(errors.ChunkCorruptError, match=r"\(2,\).*'a'"):
            use()
    assert ds.verify().corrupt == ((2,),)
    ds[10:15] = 0
    assert ds.verify().good
    for wrong in (b"", bytes(data)[:-1], bytes(data) + b"x"):
        store.inner.put(key, wrong)
        with pytest.raises(errors.ChunkCorruptError, match="bytes"):
            print(ds[...])


def test_unknown_attributes_are_named(counting):
    con, _ = counting
    ds = con.create_dataset("a", (2,))
    with pytest.raises(AttributeError, match="colour"):
        print(ds.colour)
    with pytest.raises(AttributeError, match="colour"):
        print(con.colour)
    assert con.instance.store is con.instance.store


def test_progress_bars_are_drawn_by_tqdm(counting, capsys):
    require("tqdm")
    con, _ = counting
    con.create_dataset("a", data=np.arange(20.0), chunk_size=5, progress=True)
    err = capsys.readouterr().err
    assert "load" in err
    assert "4/4" in err


@pytest.mark.parametrize("shape", [(), (0, 3), (2,)])
def test_a_handle_is_true(counting, shape):
    con, _ = counting
    assert bool(con.create_dataset("a", shape)) is True


def test_a_view_of_another_dtype_shows_itself(counting):
    con, _ = counting
    view = con.create_dataset("a", (2,), "i4").astype("f8")
    assert repr(view) == f"<{con['a']!r} as float64>"


@pytest.mark.parametrize(
    ("option", "instead"),
    [
        ("chunks", "chunk_size"),
        ("fill_value", "fillvalue"),
        ("maxshape", "resized"),
        ("compresion", "it has"),
    ],
)
def test_an_option_of_other_libraries_names_what_takes_its_place(counting, option, instead):
    con, _ = counting
    with pytest.raises(TypeError, match=f"{option}.*{instead}"):
        con.create_dataset("a", (2,), **{option: 1})
    assert "a" not in con


def test_an_attribute_of_objects_says_how_to_convert_it(counting):
    con, _ = counting
    attrs = con.create_dataset("a", (2,)).attrs
    with pytest.raises(TypeError, match="tolist"):
        attrs["labels"] = np.array(["x", "yy"], object)
    assert not attrs


@pytest.mark.parametrize("backend", ["file", "hdf5"])
def test_a_group_and_an_absent_dataset_say_where_to_look(tmp_path, backend):
    if backend == "hdf5":
        require("h5py")
    with dn.Connection(tmp_path, backend=backend, engine="cpu") as con:  # a pathlib.Path
        con.create_dataset("entry/data", (3,))
        with pytest.raises(KeyError, match=r"group. con.children\('entry'\)"):
            con["entry"]
        assert con.children("entry").datasets == ["entry/data"]
        with pytest.raises(KeyError, match=r"list\(con\)"):
            con["entry/dat"]


def test_what_other_libraries_take_is_refused_with_what_to_do(counting):
    con, _ = counting
    ds = con.create_dataset("a", (40,))
    with pytest.raises(TypeError, match=r"con.create_dataset\('b', data=…\)"):
        con["b"] = 3
    with pytest.raises(TypeError, match=r"connection .* not 'b': use clone"):
        ds.copy("b")
    with pytest.raises(TypeError, match="made of integers, not '1 KiB'"):
        con.create_dataset("b", (40,), chunk_size="1 KiB")
    assert list(con) == ["a"]
