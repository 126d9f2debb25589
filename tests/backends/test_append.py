"""Appending from several handles, threads and processes at once: every row is kept."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import HANG, require

import dosna as dn

ROUNDS = 40

APPENDER = """
import sys
import numpy as np
import dosna as dn

with dn.Connection(sys.argv[1], backend="hdf5", engine="cpu") as con:
    ds = con["a"]
    for _ in range(int(sys.argv[3])):
        ds.append(np.full((1, 3), int(sys.argv[2])))
"""


@pytest.fixture(params=["ram", "hdf5", "file"])
def connection(request: Any, tmp_path: Path) -> Any:
    if request.param == "hdf5":
        require("h5py")
    with dn.Connection(str(tmp_path), backend=request.param, engine="cpu") as made:
        made.create_dataset("a", (0, 3), np.int64, chunk_size=(4, 2))
        yield made


def test_handles_that_do_not_know_of_each_other(connection: Any) -> None:
    first, second = connection["a"], connection["a"]
    first.append([[1, 1, 1]])
    second.append([[2, 2, 2]])
    first.append([[3, 3, 3]])
    assert connection["a"][:, 0].tolist() == [1, 2, 3]


def test_threads(connection: Any) -> None:
    def work(value: int) -> None:
        ds = connection["a"]
        for _ in range(ROUNDS):
            ds.append(np.full((1, 3), value))

    threads = [threading.Thread(target=work, args=(value,)) for value in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = connection["a"][...]
    assert rows.shape == (2 * ROUNDS, 3)
    assert (rows == rows[:, :1]).all()
    assert np.bincount(rows[:, 0]).tolist() == [0, ROUNDS, ROUNDS]


@pytest.mark.slow
def test_processes(tmp_path: Path) -> None:
    require("h5py")
    with dn.Connection(str(tmp_path), backend="hdf5", engine="cpu") as con:
        con.create_dataset("a", (0, 3), np.int64, chunk_size=(4, 2))
        arguments = [sys.executable, "-c", APPENDER, str(tmp_path)]
        running = [subprocess.Popen([*arguments, str(v), str(ROUNDS)]) for v in (1, 2)]
        assert [process.wait(HANG) for process in running] == [0, 0]
        rows = con["a"][...]
    assert (rows == rows[:, :1]).all()
    assert np.bincount(rows[:, 0]).tolist() == [0, ROUNDS, ROUNDS]


def test_a_failed_append_takes_its_rows_back(connection: Any) -> None:
    ds = connection["a"]
    ds.append([[1, 1, 1]])
    with pytest.raises(ValueError, match=r"could not convert|invalid literal"):
        ds.append(np.array([["x", "y", "z"]]))
    assert ds.shape == (1, 3)
    assert connection["a"].shape == (1, 3)


def test_the_error_of_an_append_is_raised_even_if_its_rows_stay(
    connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(before: Any, after: Any) -> None:
        raise dn.errors.StorageError(5, "the disk is gone")

    ds = connection["a"]
    monkeypatch.setattr(ds.instance, "take_back", refuse)
    with pytest.raises(ValueError, match=r"could not convert|invalid literal") as caught:
        ds.append(np.array([["x", "y", "z"]]))
    assert "the disk is gone" in caught.value.__notes__[0]


def test_an_array_of_very_many_chunks_is_shrunk_by_one(connection: dn.Connection) -> None:
    ds = connection.create_dataset("b", (2**40, 4), np.int32, chunk_size=(1, 4))
    ds[0], ds[-1] = 1, 2
    ds.resize((2**40 - 1, 4))
    assert ds.written_chunks() == [(0, 0)]
