"""SkyhookDM's client over dosna, as its documentation shows it, on real ROOT files."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from support import require, validate_manifest

import dosna as dn
from dosna import errors

pa, uproot = require("pyarrow"), require("uproot")
testdata, ak, yaml = require("skhep_testdata"), require("awkward"), require("yaml")

from dosna.columns import get_tree  # noqa: E402
from dosna.skyhook import Dataset, File, RootNode, SkyhookDM, client  # noqa: E402
from dosna.skyhook.text import parse_request  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "skyhook"
ZMUMU, HZZ, NESTED = (
    testdata.data_path(f"uproot-{name}.root") for name in ("Zmumu", "HZZ", "nesteddirs")
)


@pytest.fixture
def url(tmp_path):
    return f"file:{tmp_path}"


@pytest.fixture
def sk(url):
    with SkyhookDM() as sk:
        sk.connect(url)
        yield sk


@pytest.fixture(scope="module")
def in_memory():
    """Give a client, and a file of its dataset, which tests only read."""
    with SkyhookDM() as sk:
        sk.connect("ram:skyhook")
        sk.writeDataset([ZMUMU], "demo")
        (file,) = sk.getDataset("demo").getFiles()
        yield sk, file


def check_documented(sk, name):
    """Do what the documentation of SkyhookDM does."""
    urls = [ZMUMU, HZZ]
    assert sk.writeDataset(urls, name) is True
    dst = sk.getDataset(name)
    assert dst.getSize() == sum(map(os.path.getsize, urls))
    zmumu, hzz = dst.getFiles()
    assert zmumu.getAttributes()["name"] == "uproot-Zmumu.root"
    assert zmumu.getAttributes()["size"] == os.path.getsize(ZMUMU)
    assert zmumu.getAttributes()["access_time"] > 0
    root = hzz.getRoot()
    assert (root.getName(), root.getClassType(), root.getParent()) == (
        "uproot-HZZ.root",
        "ROOTDirectory",
        None,
    )
    (tree,) = root.getChildren()
    assert (tree.getName(), tree.getClassType(), tree.getDataType()) == ("events;1", "TTree", None)
    first, second = tree.getChildren()[:2]
    assert (first.getName(), first.getClassType(), first.getDataType()) == (
        "NJet",
        "TBranch",
        "int32",
    )
    assert (second.getName(), second.getDataType()) == ("Jet_Px", "var * float32")
    assert first.getParent() is tree
    assert tree.getParent() is root
    assert hzz.getSchema()["children"][0]["children"][1] == {
        "name": "Jet_Px",
        "classtype": "TBranch",
        "datatype": "var * float32",
        "children": [],
    }
    table = sk.runQuery(hzz, "select event_id>5, project events;1.Jet_Px,events;1.NMuon")
    assert isinstance(table, pa.Table)
    assert table.column_names == ["Jet_Px", "NMuon"]
    with uproot.open(HZZ)["events"] as events:
        expected = events.arrays(["Jet_Px", "NMuon"], entry_start=6)
    assert table["NMuon"].to_numpy().tolist() == expected.NMuon.tolist()
    assert table["Jet_Px"].to_pylist() == expected.Jet_Px.tolist()
    with pytest.raises(errors.UnknownNameError, match="Jet_Px"):
        sk.runQuery(zmumu, "select *, project events;1.Jet_Px")
    return dst


def check_select(sk, dst):
    tables = sk.runQuery(dst, "select event_id < 2000, project events;1.*")
    assert [table.num_rows for table in tables] == [2000, 2000]
    zmumu, hzz = dst.getFiles()
    table = sk.runQuery(zmumu, "select pt1 > 40 && Q1 == -1, project events;1.M,events;1.pt1")
    with uproot.open(ZMUMU)["events"] as events:
        found = events.arrays(["M", "pt1", "Q1"], library="np")
    kept = (found["pt1"] > 40) & (found["Q1"] == -1)
    assert 0 < table.num_rows < len(kept)
    np.testing.assert_array_equal(table["M"].to_numpy(), found["M"][kept])
    np.testing.assert_array_equal(table["pt1"].to_numpy(), found["pt1"][kept])
    some = sk.runQuery(
        hzz, "select any(events;1.Muon_Px > 50) && event_id >= 100, project events;1.NMuon"
    )
    with uproot.open(HZZ)["events"] as events:
        lists = events.arrays(["Muon_Px", "NMuon"], entry_start=100)
    kept = ak.any(lists.Muon_Px > 50, axis=1)
    assert some["NMuon"].to_numpy().tolist() == lists.NMuon[kept].tolist()


@pytest.mark.parametrize("backend", ["ram", "file"])
def test_the_documented_client(backend, tmp_path):
    with SkyhookDM() as sk:
        sk.connect(f"file:{tmp_path}" if backend == "file" else f"ram:{tmp_path.name}")
        check_select(sk, check_documented(sk, "demo"))


@pytest.mark.slow
@pytest.mark.parametrize("cluster", ["ceph", "classed"])
def test_on_ceph_with_and_without_the_object_class(cluster, request):
    ceph, name = request.getfixturevalue(cluster), f"sky-{secrets.token_hex(4)}"
    url = f"ceph:kit?conffile={ceph.conf}&timeout=60"
    with SkyhookDM() as sk:
        sk.connect(url)
        check_select(sk, check_documented(sk, name))
    con, _ = dn.open_url(url)
    with con:
        for made in [made for made in con if made.startswith(name)]:
            con.del_dataset(made)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_scheduler_of_dask(url, tmp_path, monkeypatch):
    distributed, dask = require("dask.distributed"), require("dask")
    cluster = distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=False,
        host="127.0.0.1",
        dashboard_address=None,
        protocol="tcp",
        local_directory=str(tmp_path / "dask"),
    )
    with cluster, SkyhookDM() as sk:
        address = cluster.scheduler_address
        with pytest.raises(errors.ConfigurationError, match="DASK_DOSNA__URL"):
            sk.connect(address)
        with dask.config.set({"dosna.url": url}):
            sk.connect(address.removeprefix("tcp://"))
            check_select(sk, check_documented(sk, "demo"))
            with pytest.raises(errors.DatasetNotFoundError):
                sk.getDataset("other")
    monkeypatch.setattr(client, "_SECONDS", 0.5)
    with SkyhookDM() as sk, pytest.raises(errors.ConnectionError, match="scheduler"):
        sk.connect("127.0.0.1:9")


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["writing", "written", "querying"])
def test_a_killed_worker_costs_time_and_nothing_else(url, tmp_path, moment):
    distributed = require("distributed")
    from services.dask import start_dask

    data, died = str(tmp_path), str(tmp_path / "dask" / "died")

    def die_once():  # within a function it travels by value: workers have no modules of tests
        import contextlib
        import os
        import signal
        import sys

        from dosna.skyhook import work

        opened = []

        def die(*arguments):
            with contextlib.suppress(FileExistsError):  # the other was first
                open(died, "x").close()
                os.kill(os.getpid(), signal.SIGKILL)
            return found(*arguments)

        def watch(event, arguments):
            if event == "open" and str(arguments[0]).startswith(f"{data}/demo"):
                opened.append(arguments[0])
                if len(opened) == 20 and not os.path.exists(died):
                    die()

        if moment == "writing":
            found = tuple  # which does nothing
            sys.addaudithook(watch)
        else:
            name = "_facts" if moment == "written" else "run"
            found = getattr(work, name)
            setattr(work, name, die)

    (tmp_path / "dask").mkdir()
    with start_dask(tmp_path / "dask") as cluster, SkyhookDM() as sk:
        for name in "ab":
            cluster.worker(name, env={"DASK_DOSNA__URL": url})
        with distributed.Client(cluster.address, set_as_default=False) as caller:
            cluster.await_workers(caller, 2)
            caller.run(die_once)
            sk.connect(cluster.address)
            check_select(sk, check_documented(sk, "demo"))
            assert os.path.exists(died)
            assert len(caller.nthreads()) == 1


def test_trees_in_directories_and_branches_in_branches(sk):
    sk.writeDataset([NESTED], "nested")
    (file,) = sk.getDataset("nested").getFiles()
    one, three = file.getRoot().getChildren()
    assert [node.getName() for node in one.getChildren()] == ["tree;1", "two"]
    assert three.getClassType() == "ROOTDirectory"
    (evt,) = three.getChildren()[0].getChildren()
    assert (evt.getName(), evt.getDataType()) == ("evt", None)
    assert evt.getChildren()[0].getName() == "Beg"
    table = sk.runQuery(file, "select Int32 >= 50, project one/two/tree;1.Int32")
    assert table["Int32"].to_numpy().tolist() == list(range(50, 100))
    places = "three/tree;1.evt.I32, three/tree;1.evt.Be*, twice = evt.I32 * 2"
    table = sk.runQuery(file, f"select evt.I32 < 3, project {places}")
    assert table.column_names == ["evt/I32", "evt/Beg", "twice"]
    assert table["evt/I32"].to_numpy().tolist() == [0, 1, 2]
    assert table["twice"].to_numpy().tolist() == [0, 2, 4]
    with pytest.raises(errors.QueryError, match="of one tree"):
        sk.runQuery(file, "select *, project one/tree;1.one, one/two/tree;1.Int32")
    with pytest.raises(errors.QueryError, match="one/tree"):
        sk.runQuery(file, "select *, project Int32")


def test_unknown_names_are_errors_with_the_nearest(in_memory):
    sk, file = in_memory
    for text, nearest in (
        ("select *, project events;1.px3", "px1"),
        ("select *, project events;75.px1", "events;1"),
        ("select *, project Event;1.px1", "events;1"),
        ("select px_1 > 3, project events;1.px1", "px1"),
        ("select event;1.px1 > 3, project event;1.px1", "events;1"),
    ):
        with pytest.raises(errors.UnknownNameError, match=nearest):
            sk.runQuery(file, text)
    with pytest.raises(errors.DatasetNotFoundError, match="writeDataset"):
        sk.getDataset("dmeo")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "px1",
        "select px1 >, project events;1.px1",
        "select *, project ",
        "select *, project events;1.px1,,events;1.px2",
        "select *, project px1, project px2",
        "select event_id + 1 > 3, project px1",
        "select event_id != 3, project px1",
        "select event_id > 3 || px1 > 2, project px1",
        "select event_id, project px1",
        "select __import__('os').system('true'), project px1",
        "select " + "(" * 100_000 + ", project px1",
        "select *, project " + "px1," * 1_000_000 + "px1",
    ],
    ids=lambda text: text[:50],
)
def test_text_that_is_no_query(in_memory, text):
    sk, file = in_memory
    with pytest.raises(errors.QueryError):
        sk.runQuery(file, text)


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ("event_id > 5", range(6, 2304)),
        ("event_id>=5.5", range(6, 2304)),
        ("event_id < 2.5", range(3)),
        ("event_id <= 2", range(3)),
        ("2 < event_id <= 4", range(3, 5)),
        ("5 > event_id", range(5)),
        ("event_id == 7", range(7, 8)),
        ("event_id == 7.5", range(0)),
        ("event_id > 1e30", range(0)),
        ("event_id < -1", range(0)),
        ("event_id > 3 && event_id < 6 && Run > 0", range(4, 6)),
        ("(event_id > 3 && Run > 0) && (Run > 0 && (event_id < 6))", range(4, 6)),
        ("*", range(2304)),
    ],
)
def test_the_number_of_an_entry(in_memory, where, rows):
    sk, file = in_memory
    with uproot.open(ZMUMU)["events"] as events:
        expected = events["px1"].array(library="np")[rows.start : rows.stop]
    table = sk.runQuery(file, f"select {where}, project events;1.px1")
    np.testing.assert_array_equal(table["px1"].to_numpy(), expected)


def test_a_branch_of_that_name_comes_first(sk, tmp_path):
    path = str(tmp_path / "own.root")
    with uproot.recreate(path) as file:
        file.mktree("T", {"event_id": "i8"}).extend({"event_id": np.arange(100, 110)})
    sk.writeDataset(path, "own")
    (file,) = sk.getDataset("own").getFiles()
    assert sk.runQuery(file, "select event_id > 106")["event_id"].to_pylist() == [107, 108, 109]


def test_writing_again(sk, tmp_path):
    sk.writeDataset([ZMUMU, ZMUMU], "demo")
    assert [file.group for file in sk.getDataset("demo").getFiles()] == [
        "uproot-Zmumu.root",
        "uproot-Zmumu.root-2",
    ]
    sk.writeDataset([ZMUMU, ZMUMU], "demo")
    with pytest.raises(errors.DatasetExistsError, match="overwrite"):
        sk.writeDataset([HZZ], "demo")
    old = sk.getDataset("demo").getFiles()[0]
    sk.writeDataset([HZZ], "demo", overwrite=True)
    assert [file.name for file in sk.getDataset("demo").getFiles()] == ["uproot-HZZ.root"]
    with pytest.raises(errors.DatasetNotFoundError):
        sk.runQuery(old, "select *, project events;1.px1")
    with dn.Connection(str(tmp_path), backend="file") as con:
        assert {name.split("/")[1] for name in con} == {"uproot-HZZ.root"}
    with pytest.raises(errors.SourceNotFoundError):
        sk.writeDataset([str(tmp_path / "none.root")], "none")


def test_wrong_use(url):
    sk = SkyhookDM()
    with pytest.raises(errors.NotConnectedError, match="connect"):
        sk.getDataset("demo")
    with pytest.raises(errors.ConfigurationError):
        sk.connect("file:/nowhere?colour=red")
    with sk:
        sk.connect(url)
        with pytest.raises(TypeError, match="File"):
            sk.runQuery("demo", "select *")
    assert repr(Dataset("a", 3, [])) == "Dataset(name='a', size=3)"
    assert "name='f'" in repr(File("f", {}, {}, "a", "f"))
    assert "TTree" in repr(RootNode("t;1", "TTree"))


@pytest.mark.parametrize(
    "address",
    [
        "", " ", ":8786", "127.0.0.1:99999", "127.0.0.1 :8786", "/data/events", "tcp://",
        "nosuch:/x", "foo://10.0.0.1", "file/data:x", "10.0.0.1:8786/", "1" * 100_000 + "!",
    ],
    ids=lambda address: repr(address[:20]),
)  # fmt: skip
def test_an_address_of_nothing_is_refused_at_once(monkeypatch, address):
    monkeypatch.setattr(client, "_Workers", lambda *_: pytest.fail("it waits for a scheduler"))
    with pytest.raises(errors.ConfigurationError, match=r"neither .* file:/data/events"):
        SkyhookDM().connect(address)


@pytest.mark.parametrize(
    ("address", "whole"),
    [
        ("10.0.0.1", "10.0.0.1:8786"),
        ("node-1.example.org.", "node-1.example.org.:8786"),
        ("tls://10.0.0.1:8790", "tls://10.0.0.1:8790"),
        ("[::1]", "[::1]:8786"),
        ("tcp://[fe80::1%eth0]:1", "tcp://[fe80::1%eth0]:1"),
        ("inproc://10.0.0.1/77/1", "inproc://10.0.0.1/77/1"),
    ],
)
def test_addresses_of_schedulers(monkeypatch, address, whole):
    asked = []
    monkeypatch.setattr(client, "_Workers", lambda *given: asked.append(given))
    SkyhookDM().connect(address, "pool")
    assert asked == [(whole, "pool")]


def test_arguments_of_wrong_types(sk, tmp_path):
    with pytest.raises(TypeError, match="address"):
        sk.connect(None)
    with pytest.raises(TypeError, match="ceph_pool_name"):
        sk.connect(f"file:{tmp_path}", 3)
    sk.connect(f"file:{tmp_path}")
    for name, kind in (("", errors.DatasetNameError), ("../up", errors.DatasetNameError)):
        with pytest.raises(kind):
            sk.writeDataset([ZMUMU], name)
        with pytest.raises(kind):
            sk.getDataset(name)
    with pytest.raises(TypeError, match="name"):
        sk.writeDataset([ZMUMU], None)
    with pytest.raises(TypeError, match="None"):
        sk.writeDataset([ZMUMU, None], "demo")
    for nothing in ([], None, iter(())):
        with pytest.raises(errors.SourceError, match="no files"):
            sk.writeDataset(nothing, "demo")
    assert not list(tmp_path.glob("[!z]*"))


def write_tree(path, name="T", **branches):
    with uproot.recreate(path) as file:
        file.mktree(name, {key: of.dtype for key, of in branches.items()}).extend(branches)
    return path


def test_a_file_that_has_changed_is_not_passed_off_as_written(sk, tmp_path):
    path = write_tree(tmp_path / "a.root", x=np.arange(3))
    sk.writeDataset(path, "demo")
    write_tree(path, x=np.arange(50))
    with pytest.raises(errors.SourceChangedError, match="overwrite=True"):
        sk.writeDataset(path, "demo")
    assert sk.runQuery(sk.getDataset("demo"), "select *")[0].num_rows == 3
    sk.writeDataset(path, "demo", overwrite=True)
    assert sk.runQuery(sk.getDataset("demo"), "select *")[0].num_rows == 50
    write_tree(path, "Other", y=np.arange(7))
    sk.writeDataset(path, "demo", overwrite=True)
    (file,) = sk.getDataset("demo").getFiles()
    assert [node.getName() for node in file.getRoot().getChildren()] == ["Other;1"]
    assert sk.runQuery(file, "select y > 3")["y"].to_pylist() == [4, 5, 6]
    assert not (tmp_path / "demo" / "a.root" / "T" / "x").exists()


def test_names_with_odd_characters(sk, tmp_path):
    names = {"a b": 1, "c.d": 2, "ü": 3, "in": 4, "project": 5}
    path = write_tree(
        tmp_path / "é 1;2?x%2F.root",
        "my tree",
        **{n: np.arange(9) * by for n, by in names.items()},
    )
    sk.writeDataset(path, "odd; ü")
    (file,) = sk.getDataset("odd; ü").getFiles()
    assert file.getAttributes()["name"] == path.name
    text = "select `my tree`;1.`a b` > 6, project `my tree`;1.`ü`, `my tree`;1.c.d, `in`, project"
    table = sk.runQuery(file, text)
    assert table.to_pydict() == {
        "ü": [21, 24], "c.d": [14, 16], "in": [28, 32], "project": [35, 40]
    }  # fmt: skip
    with pytest.raises(errors.UnknownNameError, match="my tree;1"):
        sk.runQuery(file, "select *, project `my `;1.`a b`")


@pytest.mark.parametrize(
    "found",
    [3, {}, {"version": 1}, {"version": 1, "files": [{"name": "x"}]}, {"version": 2, "files": []}],
    ids=str,
)
def test_a_description_that_is_broken_or_newer_is_told(sk, tmp_path, found):
    with dn.Connection(str(tmp_path), backend="file") as con:
        con.set_group_attrs("demo", {"skyhook": found})
    with pytest.raises(errors.FormatError, match="demo"):
        sk.getDataset("demo")
    with pytest.raises(errors.FormatError, match="demo"):
        sk.writeDataset([ZMUMU], "demo")
    sk.writeDataset([ZMUMU], "demo", overwrite=True)
    assert len(sk.getDataset("demo").getFiles()) == 1


def test_two_clients_that_write_the_same_dataset(url, tmp_path):
    paths = [write_tree(tmp_path / f"{n}.root", x=np.arange(n)) for n in (5, 8)]

    def write(_):
        with SkyhookDM() as client:
            client.connect(url)
            return client.writeDataset(paths, "demo")

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(write, range(2))) == [True, True]
    with SkyhookDM() as sk:
        sk.connect(url)
        tables = sk.runQuery(sk.getDataset("demo"), "select *")
    assert [table["x"].to_pylist() for table in tables] == [[*range(5)], [*range(8)]]


def test_strings_in_a_predicate_are_left_alone(in_memory):
    sk, _ = in_memory
    trees = {"events": get_tree(sk._place._con, "demo/uproot-Zmumu.root/events")}
    asked = parse_request('select Type == "events;1.x, y" , project events;1.Type', trees)
    assert str(asked.where) == 'Type == "events;1.x, y"'
    assert parse_request("select Type == 'x'", trees).columns is None


# -- the example ---------------------------------------------------------------------------


def test_manifests_are_valid_and_fit_together():
    secret = yaml.safe_load((EXAMPLE / "k8s_secret.sample.yml").read_text())
    pod = yaml.safe_load((EXAMPLE / "k8s_pod.yml").read_text())
    validate_manifest(secret)
    validate_manifest(pod)
    (container,) = pod["spec"]["containers"]
    (volume,) = [v for v in pod["spec"]["volumes"] if "secret" in v]
    assert volume["secret"]["secretName"] == secret["metadata"]["name"]
    (mount,) = [m for m in container["volumeMounts"] if m["name"] == volume["name"]]
    assert mount["readOnly"]
    address = container["args"][0]
    assert address.startswith(f"ceph:beamline?conffile={mount['mountPath']}/ceph.conf&client_id=")
    keyring = f"{mount['mountPath']}/ceph.client.dosna.keyring"
    assert f"keyring = {keyring}" in secret["stringData"]["ceph.conf"]
    assert set(secret["stringData"]) == {"ceph.conf", "ceph.client.dosna.keyring"}
    assert pod["spec"]["securityContext"]["runAsNonRoot"]
    pod["spec"]["containers"][0]["arg"] = []
    with pytest.raises(require("kubernetes_validate").ValidationError):
        validate_manifest(pod)


def test_the_example_writes_what_a_query_finds(sk, url, tmp_path):
    out = tmp_path / "out.parquet"
    command = [sys.executable, EXAMPLE / "skim.py", url, "demo", "--out", out]
    text = "select pt1 > 40, project events;1.M"
    subprocess.run([*command, text, "--write", ZMUMU], check=True)
    table = require("pyarrow.parquet").read_table(out)
    (file,) = sk.getDataset("demo").getFiles()
    assert table.equals(sk.runQuery(file, text))
    wrong = subprocess.run([*command, "select x"], capture_output=True, text=True)
    assert wrong.returncode == 1
    assert "unknown column 'x'" in wrong.stderr


def test_the_recipe_of_the_container_names_what_there_is():
    lines = (EXAMPLE / "Dockerfile").read_text().replace("\\\n", "").splitlines()
    steps = [line.split(" ", 1) for line in lines if line and not line.startswith("#")]
    assert steps[0][0] == "FROM"
    copied = [path for word, rest in steps if word == "COPY" for path in rest.split()[:-1]]
    assert all((ROOT / path).exists() for path in copied)
    for run in [rest for word, rest in steps if word == "RUN"]:
        assert subprocess.run(["sh", "-n", "-c", run]).returncode == 0
