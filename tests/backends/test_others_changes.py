"""What happens when somebody else changes a dataset in the midst of an operation."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from support import require

import dosna as dn
from dosna.core.plan import plan
from dosna.core.selection import select
from dosna.errors import DatasetNotFoundError, StaleDatasetError


@pytest.fixture(params=["ram", "hdf5", "file"])
def con(request, tmp_path):
    if request.param == "hdf5":
        require("h5py")
    with dn.Connection(str(tmp_path), backend=request.param, engine="cpu") as made:
        yield made


def test_rows_appended_beside_apply_and_load_are_kept(con):
    ds = con.create_dataset("a", data=np.arange(5), chunk_size=4)
    other = con["a"]

    def func(block):
        if len(block) == 1:
            other.append([100, 200, 300])
        return block + 1

    ds.apply(func)
    assert con["a"][:].tolist() == [1, 2, 3, 4, 5, 100, 200, 300]


def test_a_map_whose_source_shrinks_is_as_planned_or_an_error(con):
    ds = con.create_dataset("a", data=np.arange(8), chunk_size=4)
    other = con["a"]

    def func(block):
        other.resize(5)
        return block + 0.0

    try:
        out = ds.map(func, "out", "f8")
    except StaleDatasetError:
        assert "out" not in con
    else:
        found = out[:]
        assert all(v in (0, i) for i, v in enumerate(found))


def test_a_write_planned_before_a_shrink_does_not_come_back(con):
    ds = con.create_dataset("a", (8,), "i8", chunk_size=4)
    selection = select(slice(1, 7), (8,))
    tasks = plan(selection, (4,))
    con["a"].resize(5)
    with pytest.raises(StaleDatasetError):
        ds.instance.write_many(np.full(6, 9), tasks)
    con["a"].resize(8)
    assert con["a"][5:].tolist() == [0, 0, 0]


def test_a_failed_map_leaves_what_others_made_under_its_name(con):
    ds = con.create_dataset("a", data=np.arange(8), chunk_size=4)

    def func(block):
        del con["out"]
        con.create_dataset("out", data=np.arange(3))
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        ds.map(func, "out", "f8")
    assert con["out"][:].tolist() == [0, 1, 2]


def test_one_of_two_who_delete_succeeds(con):
    for _ in range(20):
        con.create_dataset("a", (4,))
        outcomes = []
        barrier = threading.Barrier(2)

        def delete(outcomes=outcomes, barrier=barrier):
            barrier.wait()
            try:
                con.del_dataset("a")
                outcomes.append("deleted")
            except DatasetNotFoundError:
                outcomes.append("not found")

        threads = [threading.Thread(target=delete) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert "deleted" in outcomes
        assert "a" not in con
        if type(con.instance).__name__ == "RamConnection":
            assert sorted(outcomes) == ["deleted", "not found"]


def test_a_result_that_the_first_chunks_dtype_would_cut_down_is_refused(con):
    ds = con.create_dataset("a", data=np.arange(4), chunk_size=2)
    with pytest.raises(TypeError, match="dtype="):
        ds.map(lambda block: block / 2 if block[0] else block, "out")
    assert "out" not in con
    found = ds.map(lambda block: block / 2 if block[0] else block, "out", "f8")
    assert found[:].tolist() == [0, 1, 1, 1.5]


def test_apply_refuses_longer_strings(con):
    ds = con.create_dataset("a", data=np.array(["ab", "cd"]))
    with pytest.raises(TypeError, match="cut"):
        ds.apply(lambda block: np.char.add(block, "xy"))
    assert ds[:].tolist() == ["ab", "cd"]


def test_strings_without_axes(con):
    ds = con.create_dataset("a", data=np.array("abc"))
    assert ds[()] == "abc"
    assert ds.get_chunk(())[...] == "abc"


def test_the_users_own_joblib_goes_on_working(tmp_path):
    joblib = require("joblib")
    require("h5py")
    options = {"njobs": 2, "jlbackend": "loky"}
    with dn.Connection(str(tmp_path), backend="hdf5", engine="joblib", engine_kw=options) as made:
        ds = made.create_dataset("a", data=np.ones((8, 8)), chunk_size=(2, 2))
        for _ in range(3):
            ds.map(np.sqrt, "out").delete()  # the same bytes of work, another dataset
        parallel = joblib.Parallel(2)
        assert parallel(joblib.delayed(abs)(-i) for i in range(4)) == [0, 1, 2, 3]
        assert ds.sum() == 64


def test_threads_within_threads_do_not_wait_for_each_other():
    joblib = require("joblib")
    with dn.Connection("nested", backend="ram", engine="joblib", engine_kw={"njobs": 2}) as made:
        big = made.create_dataset("big", data=np.zeros((64, 1 << 18)), chunk_size=(1, 1 << 18))
        ds = made.create_dataset("a", data=np.zeros(8), chunk_size=1)

        def func(block):
            inner = [joblib.delayed(lambda: big[:].sum())() for _ in range(2)]
            return block + sum(joblib.Parallel(2, backend="threading")(inner))

        assert ds.map(func, "out", "f8")[:].sum() == 0
        for name in list(made):
            del made[name]
