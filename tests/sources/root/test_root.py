"""ROOT files: what uproot reads comes back equal, from every kind of branch and place."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import tracemalloc
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from support import HANG, require

import dosna as dn
from dosna.cli import main
from dosna.columns import chunking, find_trees, get_tree
from dosna.errors import (
    DosnaError,
    RefusedError,
    SourceChangedError,
    SourceError,
    SourceNotFoundError,
)
from dosna.sources import open_source
from dosna.testing import SourceTests

ak, uproot = require("awkward"), require("uproot")

from dosna.columns.layout import form_of, plain_form  # noqa: E402
from dosna.columns.splitting import decompose  # noqa: E402
from dosna.sources.root.chain import Decoded  # noqa: E402
from dosna.sources.root.source import to_arrow, to_awkward  # noqa: E402
from dosna.sources.root.ttree import TTreePart, _shown  # noqa: E402

N = 3000
RANDOM = np.random.default_rng(5)
COUNTS = RANDOM.integers(0, 4, N)
COUNTS[700:1400] = 0
EVENTS = {
    "run": np.arange(N, dtype="u4"),
    "event": np.arange(N, dtype="u8") << 40,
    "small": RANDOM.integers(-99, 99, N).astype("i1"),
    "flag": RANDOM.random(N) < 0.5,
    "matrix": RANDOM.random((N, 2, 3)).astype("f4"),
    "Muon_pt": ak.unflatten(RANDOM.random(COUNTS.sum()).astype("f4"), COUNTS),
    "Muon_charge": ak.unflatten(RANDOM.integers(-1, 2, COUNTS.sum()).astype("i4"), COUNTS),
}
TEXTS = ak.Array([("é" * (i % 5)) + str(i) for i in range(N)])
LARGE = RANDOM.random((N, 200))
STEPS = [0, 500, 1000, 1100, 2000, 2000, 2900, N]


def same(a, b):
    return ak.array_equal(a, b, dtype_exact=True, check_parameters=True, equal_nan=True)


def write(path, make="mktree", arrays=EVENTS, steps=STEPS, name="Events"):
    """Write arrays to a file, a basket or cluster for each step."""
    with uproot.recreate(path, compression=uproot.ZLIB(1)) as file:
        types = {
            n: a.type.content if isinstance(a, ak.Array) else a.dtype for n, a in arrays.items()
        }
        for n, a in arrays.items():
            if not isinstance(a, ak.Array) and a.ndim > 1:
                types[n] = (
                    np.dtype((a.dtype, a.shape[1:]))
                    if make == "mktree"
                    else ak.Array(a).type.content
                )
        tree = getattr(file, make)(name, types)
        for start, stop in pairwise(steps):
            if stop > start:
                tree.extend({n: a[start:stop] for n, a in arrays.items()})
    return str(path)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write(tmp_path_factory.mktemp("root") / "events.root")


@pytest.fixture(scope="module")
def ntuple(tmp_path_factory):
    arrays = {n: a for n, a in EVENTS.items() if n != "matrix"} | {"text": TEXTS}
    return write(tmp_path_factory.mktemp("root") / "ntuple.root", "mkrntuple", arrays)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    path = tmp_path_factory.mktemp("root") / "large.root"
    return write(path, arrays={"run": EVENTS["run"], "large": LARGE})


@pytest.fixture
def con():
    with dn.Connection(secrets.token_hex(8), backend="ram", engine="cpu") as con:
        yield con
        for name in list(con):
            del con[name]


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch):
    """Chunks of few entries, which lie across baskets and clusters."""
    monkeypatch.setattr(chunking, "TARGET_CHUNK_ENTRIES", 700)


def expected(path, tree="Events"):
    """What a source shall have of a file, by uproot."""
    found = {}
    with uproot.open({path: None}) as file:
        for name in file[tree].keys(recursive=False):
            array = file[tree][name].array()
            form = form_of(plain_form(array.layout.form))
            for part, rows in decompose(array, form).items():
                found["/".join(filter(None, [tree, name, part]))] = rows
    return found


class TestTTree(SourceTests):
    @pytest.fixture
    def arrays(self, path):
        return expected(path)

    @pytest.fixture
    def make_source(self, path):
        return lambda: open_source(path)


class TestRNTuple(TestTTree):
    @pytest.fixture
    def path(self, ntuple):
        return ntuple


class TestLarge(TestTTree):
    @pytest.fixture
    def path(self, large):
        return large


class TestOpen(TestTTree):
    @pytest.fixture
    def make_source(self, path):
        with uproot.open({path: None}) as file:
            yield lambda: open_source(file)


class TestSeveralFiles(TestTTree):
    @pytest.fixture
    def make_source(self, path, tmp_path):
        cuts = [0, 900, 900, 2200, N]
        for number, (start, stop) in enumerate(pairwise(cuts)):
            part = {n: a[start:stop] for n, a in EVENTS.items()}
            write(tmp_path / f"{number}.root", arrays=part, steps=[0, 400, stop - start])
        return lambda: open_source(f"{tmp_path}/?.root:Events")


def check(con, path, tree, asked=None):
    """Compare all branches of a tree with uproot's, whole and in part."""
    with uproot.open({path: None}) as file:
        found = file[asked or tree]
        n = int(found.num_entries)
        start, stop = n // 3, n - n // 4
        whole, part = to_awkward(con, tree), to_awkward(con, tree, None, start, stop)
        for branch in get_tree(con, tree).branches:
            array = found[branch.name].array()
            assert same(whole[branch.name], array), branch.name
            assert whole[branch.name].type == array.type, branch.name
            assert same(part[branch.name], array[start:stop]), branch.name
    return whole


SAMPLES = {
    # File: branches that are kept, and arrays that are refused.
    "uproot-HZZ-objects.root": (22, 0),
    "uproot-Zmumu.root": (20, 0),
    "uproot-sample-6.20.04-zlib.root": (35, 0),
    "uproot-stl_containers.root": (26, 0),
    "uproot-vectorVectorDouble.root": (1, 0),
    "uproot-nesteddirs.root": (64, 0),
    "uproot-double32-float16.root": (12, 0),
    "uproot-issue327.root": (77, 108),
    "uproot-empty.root": (3, 0),
    "uproot-leaflist.root": (1, 0),
    "uproot-issue-tbranch-of-th2.root": (0, 1),
    "uproot-small-dy-nooffsets.root": (6, 4),
    "uproot-from-geant4.root": (22, 0),
}


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_samples(con, name):
    path = require("skhep_testdata").data_path(name)
    report = con.ingest(path, on_error="skip")
    trees = find_trees(con)
    for tree in trees:
        check(con, path, tree)
    assert (sum(len(t.branches) for t in trees.values()), len(report.skipped)) == SAMPLES[name]


@pytest.mark.parametrize("engine", ["cpu", "joblib"])
def test_written_files(con, path, ntuple, engine):
    engine_kw = {"njobs": 4} if engine == "joblib" else {}
    if engine != "cpu":
        require(engine)
    with dn.Connection(con.name, backend="ram", engine=engine, engine_kw=engine_kw) as other:
        other.ingest(path)
        other.ingest(ntuple, "tuples")
        whole = check(other, path, "Events")
        with uproot.open({ntuple: None}) as file:
            assert same(to_awkward(other, "tuples/Events"), file["Events"].arrays())
    for name, array in EVENTS.items():
        assert np.array_equal(ak.flatten(whole[name], None), ak.flatten(ak.Array(array), None))
    assert con["Events/Muon_pt/offsets"].chunk_size == con["Events/run"].chunk_size


def test_the_last_offset_is_not_alone_in_a_chunk(con, path, monkeypatch):
    monkeypatch.setattr(chunking, "TARGET_CHUNK_ENTRIES", N // 10)
    con.ingest(path)
    check(con, path, "Events")
    assert con["Events/run"].chunk_size == (N // 10,)
    assert con["Events/Muon_pt/offsets"].chunk_size == (N // 10 + 1,)
    assert len(con["Events/Muon_pt/offsets"].written_chunks()) == 10


def test_fields_that_uproot_does_not_show():
    # Of a branch of TRef, as in Delphes' files.
    record = {
        "class": "RecordArray",
        "fields": ["ref", "@other1"],
        "contents": ["uint32", "uint16"],
    }
    shown = _shown({"class": "ListOffsetArray", "offsets": "i64", "content": record})
    assert shown["content"] == {**record, "fields": ["ref"], "contents": ["uint32"]}
    assert _shown("float32") == "float32"


def test_arrow(con, path):
    require("pyarrow")
    con.ingest(path)
    table = to_arrow(con, "Events", ["run", "Muon_*"], 690, 1410)
    assert table["run"].to_pylist() == list(range(690, 1410))
    assert table["Muon_pt"].to_pylist() == EVENTS["Muon_pt"][690:1410].to_list()


def test_select(con, path):
    report = con.ingest(f"{path}:Events", select=["run", "Muon_*"])
    assert report.made == [
        "Events/run",
        "Events/Muon_pt/content",
        "Events/Muon_pt/offsets",
        "Events/Muon_charge/content",
        "Events/Muon_charge/offsets",
    ]
    assert [b.name for b in get_tree(con, "Events").branches] == ["run", "Muon_pt", "Muon_charge"]
    con.ingest(path, select="Events/matrix")
    names = [b.name for b in get_tree(con, "Events").branches]
    assert names == ["run", "matrix", "Muon_pt", "Muon_charge"]
    check(con, path, "Events")
    with pytest.raises(SourceNotFoundError, match=r"nothing like 'Tau_\*'"):
        con.ingest(path, select=["run", "Tau_*"])


def test_all_arrays_of_a_branch_or_none(con, path):
    con.ingest(path, select="*/content")
    assert [b.name for b in get_tree(con, "Events").branches] == ["Muon_pt", "Muon_charge"]
    check(con, path, "Events")


def test_little_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(chunking, "TARGET_CHUNK_ENTRIES", 20_000)
    monkeypatch.setattr(Decoded, "most", 2 << 20)
    rows = 400_000
    x = ak.unflatten(np.arange(2 * rows, dtype="f8"), np.full(rows, 2))
    path = write(tmp_path / "many.root", arrays={"x": x}, steps=range(0, rows + 1, 10_000))
    with dn.Connection(str(tmp_path), backend="file", engine="cpu") as con:
        con.ingest(path, "first", select="x")
        tracemalloc.start()
        con.ingest(path, "second")
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert same(to_awkward(con, "second/Events", "x")["x"], x)
    # Of 9.6 MB: the caches, a unit and a block.
    assert most < 6 << 20


def test_the_tree_is_kept(con, path):
    con.ingest(path)
    tree = get_tree(con, "Events")
    assert (tree.kind, tree.name, tree.cycle, tree.entries) == ("TTree", "Events", 1, N)
    assert [(f.url, f.start, f.stop) for f in tree.files] == [(path, 0, N)]
    branch = tree.by_name["Muon_pt"]
    assert (branch.typename, branch.type) == ("float[]", "var * float32")
    assert tree.by_name["matrix"].type == "2 * 3 * float32"


def test_several_files(con, tmp_path):
    paths = []
    for number, step in enumerate([1000, 1500, N]):
        before = [0, 1000, 1500][number]
        part = {n: a[before:step] for n, a in EVENTS.items()}
        paths.append(write(tmp_path / f"{number}.root", arrays=part, steps=[0, step - before]))
    con.ingest([f"{path}:Events" for path in paths])
    ranges = [(f.url, f.start, f.stop) for f in get_tree(con, "Events").files]
    assert ranges == [(paths[0], 0, 1000), (paths[1], 1000, 1500), (paths[2], 1500, N)]
    assert same(to_awkward(con, "Events", "Muon_pt")["Muon_pt"], EVENTS["Muon_pt"])
    assert same(
        to_awkward(con, "Events", "run", 900, 1600)["run"], ak.Array(EVENTS["run"][900:1600])
    )

    write(tmp_path / "1.root", arrays={"run": EVENTS["event"]}, steps=[0, 10])
    with pytest.raises(RefusedError, match=r"Events/run.*another such branch.*no such branch"):
        con.ingest(paths, "other")
    write(tmp_path / "1.root", arrays=EVENTS, name="Else")
    with pytest.raises(SourceNotFoundError, match=r"1\.root has no tree 'Events'"):
        con.ingest(paths, "other")
    with pytest.raises(SourceNotFoundError, match="no file matches"):
        con.ingest(f"{tmp_path}/*.none.root")
    assert not con.names_in("other")


def test_each_basket_is_read_once(path, monkeypatch):
    con = dn.Connection("once", backend="ram", engine="joblib", engine_kw={"njobs": 2})
    decoded, lock = [], threading.Lock()

    def count(method):
        was = getattr(TTreePart, method)

        def counting(self, name, start, stop):
            found = was(self, name, start, stop)
            if found is not None:
                with lock:
                    decoded.append((name, start, stop))
            return found

        monkeypatch.setattr(TTreePart, method, counting)

    count("read")
    count("rows")
    with con:
        con.ingest(path)
        for name in list(con):
            del con[name]
    assert len(decoded) == len(set(decoded))
    for name in EVENTS:
        entries = sorted(pair for found, *pair in decoded if found == name)
        assert sum(stop - start for start, stop in entries) == N


def test_lengths_are_known_without_decoding(path, ntuple, monkeypatch):
    from dosna.sources.root.rntuple import RNTuplePart

    for kind in (TTreePart, RNTuplePart):
        for method in ("read", "rows"):
            monkeypatch.setattr(kind, method, lambda *args: pytest.fail("it was decoded"))
    for file in (path, ntuple):
        with open_source(file) as source:
            assert source["Events/Muon_pt/content"].shape == (COUNTS.sum(),)


def test_cycles_and_directories(con, tmp_path):
    path = str(tmp_path / "cycles.root")
    with uproot.recreate(path) as file:
        file["deep/in/tree"] = {"x": np.arange(3)}
        file["deep/in/tree"] = {"x": np.arange(5)}
        file["deep/other"] = {"y": np.arange(2)}
        file["empty"] = "no tree"
    assert open_source(path).names() == ["deep/in/tree/x", "deep/other/y"]
    con.ingest(path)
    assert get_tree(con, "deep/in/tree").cycle == 2
    assert con["deep/in/tree/x"].shape == (5,)
    con.ingest(f"{path}:deep/in/tree;1", "first")
    assert con["first/deep/in/tree/x"].shape == (3,)
    assert open_source(f"{path}:deep/in").names() == ["deep/in/tree/x"]
    with pytest.raises(SourceNotFoundError, match=r"no tree 'none'.*it has deep/in/tree;1"):
        open_source(f"{path}:none").names()


def test_empty_trees_and_lists(con, tmp_path):
    none = {n: a[:0] for n, a in EVENTS.items()}
    lists = {"x": ak.values_astype(ak.unflatten(np.zeros(0), np.zeros(5, int)), "f4")}
    for name, arrays, steps in [
        ("none", none, [0]),
        ("lists", lists, [0, 5]),
        ("one", EVENTS, [0, 1]),
    ]:
        path = write(tmp_path / f"{name}.root", arrays=arrays, steps=steps)
        con.ingest(path, name)
        with uproot.open({path: None}) as file:
            for branch, array in file["Events"].iteritems():
                assert same(to_awkward(con, f"{name}/Events")[branch], array.array()), branch
    assert con["lists/Events/x/offsets"][...].tolist() == [0] * 6
    assert len(to_awkward(con, "none/Events")) == 0
    assert to_arrow(con, "none/Events").num_rows == 0


def test_what_cannot_be_kept_is_named(con):
    path = require("skhep_testdata").data_path("uproot-issue-tbranch-of-th2.root")
    with pytest.raises(RefusedError, match=r"tree/.*: .*uproot"):
        con.ingest(path)
    assert list(con) == []
    report = con.ingest(path, on_error="skip")
    assert list(report.skipped) == open_source(path).names()


def test_damaged_files(con, path, tmp_path):
    with open(path, "rb") as file:
        whole = file.read()
    for size in (0, 50, 300, len(whole) // 2, len(whole) - 200):
        cut = tmp_path / f"{size}.root"
        cut.write_bytes(whole[:size])
        with pytest.raises(SourceError):
            con.ingest(str(cut), f"cut{size}")
        for name in con.names_in(f"cut{size}"):
            assert con[name].incomplete or np.array_equal(
                con[name][...], expected(path)[name[len(f"cut{size}/") :]]
            )
    with uproot.open({path: None}) as file:
        branch = file["Events"]["Muon_pt"]
        start = int(branch.member("fBasketSeek")[1])
        stop = start + branch.basket_compressed_bytes(1)
    broken = tmp_path / "broken.root"
    broken.write_bytes(whole[: stop - 60] + b"\0" * 60 + whole[stop:])
    with pytest.raises(SourceError, match="Muon_pt"):
        con.ingest(str(broken), "broken")
    with pytest.raises(SourceNotFoundError):
        con.ingest(str(tmp_path / "absent.root"))
    (tmp_path / "text.root").write_text("this is no ROOT file at all" * 50)
    with pytest.raises(SourceError, match=r"text\.root"):
        con.ingest(str(tmp_path / "text.root"))


def test_a_file_that_changes(con, tmp_path):
    path = write(tmp_path / "events.root")
    con.ingest(path, select="Muon_pt")
    write(
        tmp_path / "events.root", arrays={n: a[:2000] for n, a in EVENTS.items()}, steps=[0, 2000]
    )
    with pytest.raises(SourceChangedError, match="overwrite=True"):
        con.ingest(path)
    assert same(to_awkward(con, "Events")["Muon_pt"], EVENTS["Muon_pt"])
    con.ingest(path, select=["run"], overwrite=True)
    assert len(to_awkward(con, "Events", "run")) == 2000
    with pytest.raises(DosnaError, match="another state"):
        to_awkward(con, "Events")
    con.ingest(path, overwrite=True)
    check(con, path, "Events")

    def change(done, total):
        if done > total / 2:
            os.utime(path)

    with pytest.raises(SourceChangedError, match="changed while it was ingested"):
        con.ingest(path, "later", progress=change)
    with pytest.raises(DosnaError):
        to_awkward(con, "later/Events")


def test_a_changed_file_that_is_left_out_leaves_the_tree_as_it_was(con, tmp_path):
    path = write(tmp_path / "events.root")
    con.ingest(path)
    less = {name: array[:2000] for name, array in EVENTS.items()}
    write(tmp_path / "events.root", arrays=less, steps=[0, 2000])
    report = con.ingest(path, on_error="skip")
    assert not report.made
    assert len(report.skipped) == len(con)
    assert same(to_awkward(con, "Events")["Muon_pt"], EVENTS["Muon_pt"])


def test_branches_of_two_states_do_not_make_a_tree(con, tmp_path):
    path = write(tmp_path / "events.root")
    con.ingest(path, select="run")
    less = {name: array[:2000] for name, array in EVENTS.items()}
    write(tmp_path / "events.root", arrays=less, steps=[0, 2000])
    with pytest.raises(SourceChangedError, match="tree"):
        con.ingest(path, select="Muon_pt")
    assert list(con) == ["Events/run"]
    assert con.ingest(path, select="Muon_pt", on_error="skip").made == []
    assert same(to_awkward(con, "Events")["run"], ak.Array(EVENTS["run"]))
    con.ingest(path, select="Muon_pt", overwrite=True)
    assert len(to_awkward(con, "Events", "Muon_pt")) == 2000


def test_copies_of_trees_are_trees(con, tmp_path):
    path = write(tmp_path / "events.root")
    con.ingest(path, select=["run", "Muon_pt"])
    con.ingest(path, select="flag")
    with dn.Connection(secrets.token_hex(4), backend="ram") as other:
        other.ingest(con, select="Events/run")
        other.ingest(con, select="Events/run", overwrite=True)
        other.ingest(con, "all")
        other.ingest(other, "twice", select="all/*")
        for tree in ("all/Events", "twice/all/Events"):
            check(other, path, tree, "Events")
            assert other.query(tree, "run < 10").count() == 10
        with pytest.raises(SourceChangedError, match="is a copy"):
            other.ingest(path, "all", select="event")
        other.ingest(path, "all", overwrite=True)
        check(other, path, "all/Events", "Events")


def test_copies_of_trees_by_zarr_are_trees(con, tmp_path):
    require("zarr")
    path = write(tmp_path / "events.root")
    con.ingest(path)
    con.export(str(tmp_path / "events.zarr"))
    con.ingest(str(tmp_path / "events.zarr"), "copied")
    check(con, path, "copied/Events", "Events")


def test_a_copy_of_branches_of_two_states_is_no_tree_either(con, tmp_path):
    path = write(tmp_path / "events.root")
    con.ingest(path)
    os.utime(path, (1, 1))
    con.ingest(path, select="run", overwrite=True)
    con.ingest(con, "copied", select="Events/*")
    with pytest.raises(SourceChangedError, match="another state"):
        to_awkward(con, "copied/Events", "Muon_pt")


def test_branches_that_a_file_has_no_more_are_not_of_its_tree(con, tmp_path):
    path = write(tmp_path / "events.root")
    con.ingest(path)
    less = {name: array[:2000] for name, array in EVENTS.items() if name != "flag"}
    write(tmp_path / "events.root", arrays=less, steps=[0, 2000])
    con.ingest(path, overwrite=True)
    assert "flag" not in to_awkward(con, "Events").fields
    check(con, path, "Events")


def test_an_interrupted_ingest_goes_on(con, path):
    def stop(done, total):
        if done > total * 0.6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        con.ingest(path, progress=stop)
    with pytest.raises(DosnaError, match=r"no tree 'Events'"):
        to_awkward(con, "Events")
    report = con.ingest(path)
    assert report.present
    check(con, path, "Events")


KILLED = """
import os, signal, sys
import dosna as dn
def kill(done, total):
    if done > total / 2:
        os.kill(os.getpid(), signal.SIGKILL)
with dn.Connection(sys.argv[2], backend="file", engine="cpu") as con:
    con.ingest(sys.argv[1], chunk_size=(100,), progress=kill)
"""


def test_a_killed_ingest_goes_on(path, tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, path, str(tmp_path)], timeout=HANG)
    assert done.returncode == -signal.SIGKILL
    with dn.Connection(str(tmp_path), backend="file", engine="cpu") as con:
        found = {name: set(con[name].written_chunks()) for name in con}
        stamps = [os.stat(f"{tmp_path}/{n}/c/{i}").st_ino for n in found for (i,) in found[n]]
        assert len(stamps) > 20
        report = con.ingest(path, chunk_size=(100,))
        assert set(report.resumed) == set(found)
        # What was there is not written again.
        assert stamps == [
            os.stat(f"{tmp_path}/{n}/c/{i}").st_ino for n in found for (i,) in found[n]
        ]
        check(con, path, "Events")


def test_processes_and_objects_of_uproot(con, path, tmp_path):
    require("joblib")
    kw = {"njobs": 2, "jlbackend": "loky"}
    with dn.Connection(str(tmp_path), backend="file", engine="joblib", engine_kw=kw) as other:
        other.ingest(path, select=["run", "Muon_pt"])
        check(other, path, "Events")
    with uproot.open({path: None}) as file:
        con.ingest(file["Events"])
        source = open_source(file["Events"])
        assert not source.picklable
        source.close()
        assert source["Events/run"][3] == 3
    check(con, path, "Events")


def test_the_command_line(path, tmp_path, capsys):
    place = f"file:{tmp_path}"
    assert main(["ingest", f"{path}:Events", place, "--select", "run", "--select", "Muon_*"]) == 0
    assert main(["info", f"{place}/Events"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"TTree 'Events', cycle 1, {N} entries, 3 branches" in lines[1]
    assert lines[-3].split() == ["run", "uint32_t", "uint32"]
    assert lines[-2].split() == ["Muon_pt", "float[]", "var", "*", "float32"]
    assert main(["info", place]) == 0
    assert "Events: TTree 'Events'" in capsys.readouterr().out
    assert main(["verify", place, "--against", path, "--select", "*Muon*"]) == 0


def test_in_s3(con, path, gateway):
    require("obstore")
    from contextlib import closing

    from services.s3 import make_bucket, make_client

    url = gateway.endpoint_url
    with closing(make_client(url)) as client:
        bucket = make_bucket(url)
        client.upload_file(path, bucket, "events.root")
    con.ingest(f"s3://{bucket}/events.root:Events", endpoint_url=url)
    check(con, path, "Events")
    with dn.Connection("root", backend="s3", bucket=bucket, endpoint_url=url) as other:
        other.ingest(path, select=["run", "Muon_pt"])
        check(other, path, "Events")


def test_the_benchmark_runs(tmp_path):
    require("psutil")
    script = Path(__file__).resolve().parents[3] / "benchmarks" / "root.py"
    code = (
        "import pathlib, sys, root, uproot; "
        "folder = pathlib.Path(sys.argv[1]); root.CLUSTER = 500; "
        "root.write(folder / 'f.root', 2, uproot.LZ4(1)); "
        "root.compare(folder, folder / 'f.root', 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=script.parent,
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"uproot and write: [\d.]+ s, dosna takes [\d.]+ x", done.stdout)


class Ranges(BaseHTTPRequestHandler):
    """Serves one file, whole or in ranges of bytes."""

    protocol_version = "HTTP/1.1"
    data = b""

    def do_HEAD(self):
        self.answer(False)

    def do_GET(self):
        self.answer(True)

    def answer(self, body):
        whole, asked = type(self).data, self.headers.get("Range")
        data, status = whole, 200
        if not self.path.endswith("/events.root"):
            data, status = b"", 404
        elif asked:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            stop = min(int(last) + 1 if last else len(whole), len(whole))
            data, status = whole[int(first) : stop], 206
        self.send_response(status)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(data)))
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{stop - 1}/{len(whole)}")
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *args):
        pass


def test_over_http(con, path):
    require("aiohttp")
    with open(path, "rb") as file:
        handler = type("Served", (Ranges,), {"data": file.read()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        con.ingest(f"{url}/events.root:Events", select=["run", "Muon_*"])
        check(con, path, "Events")
        assert "ETag" in con["Events/run"].origin["fingerprint"]
        with pytest.raises(SourceNotFoundError):
            con.ingest(f"{url}/absent.root")
    finally:
        server.shutdown()
        server.server_close()
