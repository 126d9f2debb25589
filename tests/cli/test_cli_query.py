"""The commands query and index: what they print, and the files that they write."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from kept_trees import put_tree
from support import HANG, require, taking_ctrl_c

import dosna as dn
from dosna.cli import main
from dosna.query import output

require("awkward")
pa = require("pyarrow")
from pyarrow import csv, parquet  # noqa: E402

ARRAYS = {
    "run": np.arange(10),
    "x": np.linspace(0, 1, 10),
    "pt": [[n] * (n % 3) for n in range(10)],
}


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir("store")
    with dn.Connection("store", backend="file", engine="cpu") as con:
        put_tree(con, "Events", ARRAYS, 4, chunk_entries=4)
    return "file:store//Events"


@pytest.fixture
def run(capfdbinary):
    def run(*arguments, code=0):
        found = main([*map(str, arguments), "--engine", "cpu"])
        out, err = (text.decode() for text in capfdbinary.readouterr())
        assert found == code, (found, out, err)
        return out if code == 0 else err

    return run


@pytest.mark.parametrize("url", ["file:store//Events", "file:store/Events", "file:store"])
def test_the_tree_of_a_url(run, url):
    lines = run("query", url, "select x > 0.7, project run, pt").splitlines()
    assert lines == ['"run","pt"', '7,"[7]"', '8,"[8, 8]"', '9,"[]"']


def test_the_parts_of_a_query(run, store):
    assert run("query", store, "x > 0.7", "--count") == "3\n"
    assert run("query", store, "select x > 0.7", "--count") == "3\n"
    assert run("query", store, "--count", "--stop", 4) == "4\n"
    assert run("query", store, "select *", "--count") == "10\n"
    assert run("query", store, "select * project *").startswith('"run","x","pt"\n0,0,')
    assert run("query", store, "select x > 0.7 project run") == '"run"\n7\n8\n9\n'
    assert run("query", store, "project run", "--start", 8) == '"run"\n8\n9\n'
    assert json.loads(run("query", store, "run == 3", "--count", "--json")) == {"count": 1}


def test_rows_as_json(run, store):
    found = json.loads(
        run("query", store, "select x > 0.7, project run, pt, r = log(x - x)", "--json")
    )
    assert found == [
        {"run": 7, "pt": [7], "r": "-Infinity"},
        {"run": 8, "pt": [8, 8], "r": "-Infinity"},
        {"run": 9, "pt": [], "r": "-Infinity"},
    ]
    assert json.loads(run("query", store, "x > 7", "--json")) == []


def test_arrays(run):
    with dn.Connection("store", backend="file", engine="cpu") as con:
        con.create_dataset("volume", data=np.arange(6).reshape(2, 3), chunk_size=(1, 3))
    url = "file:store//volume"
    assert run("query", url, "value > 3") == '"i0","i1","value"\n1,1,4\n1,2,5\n'
    assert run("query", url, "select i0 == 0, project twice = 2 * value") == '"twice"\n0\n2\n4\n'
    assert run("query", url, "i0 == 1", "--count") == "3\n"
    assert "coordinates i0" in run("query", url, "i0 == 1", "--explain")
    assert run("query", url, "--to", "a.parquet") == "a.parquet: 6 elements\n"
    assert parquet.read_table("a.parquet")["value"].to_pylist() == [0, 1, 2, 3, 4, 5]
    assert "i0 < 10" in run("query", url, "--start", 3, code=2)


def test_files(run, store):
    text = "select run >= 4, project run, pt"
    for name in ("a.parquet", "a.arrow", "a.csv"):
        assert run("query", store, text, "--to", name) == f"{name}: 6 entries\n"
    table = parquet.read_table("a.parquet")
    assert table["run"].to_pylist() == [4, 5, 6, 7, 8, 9]
    assert pa.ipc.open_file("a.arrow").read_all() == table
    assert csv.read_csv("a.csv")["pt"].to_pylist()[:2] == ["[4]", "[5, 5]"]
    assert "exists" in run("query", store, text, "--to", "a.csv", code=1)
    run("query", store, "run == 1", "--to", "a.csv", "--overwrite")
    assert len(csv.read_csv("a.csv")) == 1


def test_a_file_is_whole_or_not_there(run, store):
    with dn.Connection("store", backend="file", engine="cpu") as con:
        path = next(p for p in os.listdir("store/Events/pt/content/c"))
        with open(f"store/Events/pt/content/c/{path}", "wb") as file:
            file.write(b"damaged")
        assert con["Events/run"][0] == 0
    run("query", store, "--to", "a.parquet", code=1)
    assert os.listdir() == ["store"]


def test_errors(run, store):
    assert "'y'" in run("query", store, "y > 3", code=1)
    assert ".parquet" in run("query", store, "--to", "a.root", code=2)
    assert "Event" in run("query", "file:store//Event", "--count", code=1)
    assert "Events;1" in run("query", store, "project Events;1.run", code=1)
    assert " gone/a.csv" in run("query", store, "--to", "gone/a.csv", code=1)


def test_lists_of_what_json_has_not(run):
    times = np.array([["2020-01-01", "2021-05-06"]], "M8[us]")
    with dn.Connection("store", backend="file", engine="cpu") as con:
        put_tree(con, "Other", {"t": times, "b": [[b"a", b"\xff"]]}, 4)
    found = run("query", "file:store//Other")
    assert "2021-05-06 00:00:00" in found
    assert r"\\xff" in found


def test_a_full_disk_is_named_by_the_file(run, store, monkeypatch):
    class Writer(output._CsvWriter):
        def write_batch(self, batch):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setitem(output.FORMATS, ".csv", Writer)
    assert "a.csv" in run("query", store, "--to", "a.csv", code=1)
    assert os.listdir() == ["store"]


def test_index_and_explain(run, store):
    assert run("index", store) == "Events: 3 branches\n"
    assert run("index", "file:store", "Events", "--branch", "r*") == "Events: 1 branch\n"
    assert run("index", "file:store") == "Events: 3 branches\n"
    explained = json.loads(run("query", store, "run > 8", "--explain", "--json"))
    assert explained["entries"] == 10
    assert "zones of run" in run("query", store, "run > 8", "--explain")


@pytest.mark.parametrize(
    ("rows", "nbytes", "groups"), [(7, 1 << 20, 2), (100, 1, 3), (100, 1 << 20, 1)]
)
def test_row_groups_are_of_several_small_ranges(run, store, monkeypatch, rows, nbytes, groups):
    from dosna.query import planning

    monkeypatch.setattr(planning, "LEAST_ROWS", 1)
    monkeypatch.setattr(output, "GROUP_ROWS", rows)
    monkeypatch.setattr(output, "GROUP_BYTES", nbytes)
    run("query", store, "--to", "a.parquet")
    assert parquet.ParquetFile("a.parquet").num_row_groups == groups
    assert parquet.read_table("a.parquet")["run"].to_pylist() == list(range(10))


ENDED = {
    signal.SIGINT: (130, "interrupted", ["store"]),
    signal.SIGTERM: (143, "terminated", ["store"]),
    signal.SIGKILL: (-9, "", ["store", "unfinished"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("signal_number", ENDED, ids=lambda number: number.name)
@pytest.mark.parametrize("command", ["query", "export"])
def test_a_command_that_is_ended_leaves_no_file(run, store, command, signal_number):
    script = (
        "import sys, time\n"
        "from dosna.cli import main\n"
        "from dosna.query.scan import Scan\n"
        "def one(self, *arguments):\n"
        "    print('reads', flush=True)\n"
        "    time.sleep(1000)\n"
        "Scan.one = one\n"
        "from dosna.export.npy import _WriteBoxes\n"
        "_WriteBoxes._write = one\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    arguments = {
        "query": ["query", store, "--to", "a.parquet", "--overwrite"],
        "export": ["export", f"{store}/run", "a.npy"],
    }[command]
    with taking_ctrl_c():
        process = subprocess.Popen(
            [sys.executable, "-c", script, *arguments, "--engine", "cpu"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert process.stdout.readline() == "reads\n"
    process.send_signal(signal_number)
    _, err = process.communicate(timeout=HANG)
    code, word, left = ENDED[signal_number]
    assert process.returncode == code
    assert word in err
    found = ["unfinished" if name.endswith(".part") else name for name in os.listdir()]
    assert sorted(found) == left
    run(*arguments)
    assert sorted(os.listdir()) == [arguments[3 if command == "query" else 2], "store"]
