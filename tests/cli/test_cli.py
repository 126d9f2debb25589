"""The command dosna: what it prints, gives back and leaves behind."""

from __future__ import annotations

import json
import os
import pty
import re
import secrets
import signal
import subprocess
import sys
import termios
from contextlib import closing

import numpy as np
import pytest
from services.s3 import make_bucket, make_client
from support import HANG, mpiexec, require, taking_ctrl_c, wait_until

import dosna as dn
from dosna.cli import main
from dosna.cli.console import _Line

h5py = require("h5py")
require("numcodecs")

VOLUME = np.random.default_rng(0).random((20, 30, 25), "f4")
ENGINE = ("--engine", "cpu")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def scan(folder):
    with h5py.File("scan.nxs", "w") as file:
        file["entry/data"] = VOLUME
        file["entry/data"].attrs["unit"] = "counts"
        file["entry/energy"] = 12.4
        file["entry/name"] = "silicon"
    return "scan.nxs"


@pytest.fixture
def scans(folder):
    """Give the URL of a connection with two datasets."""
    os.mkdir("scans")
    with dn.Connection("scans", backend="hdf5") as con:
        ds = con.create_dataset("entry/tomo", data=VOLUME, chunk_size=(8, 8, 8), checksum=True)
        ds.attrs["unit"] = "counts"
        con.create_dataset("angles", data=np.arange(0, 180.0))
    return "hdf5:scans"


@pytest.fixture
def run(capsys):
    def run(*arguments, code=0):
        found = main(list(map(str, arguments)))
        out, err = capsys.readouterr()
        assert found == code, (found, out, err)
        return out if code == 0 else err

    return run


def opened(url):
    con, _ = dn.open_url(url, mode="r", engine="cpu")
    return con


def start(*arguments, **options):
    with taking_ctrl_c():
        return subprocess.Popen(
            [sys.executable, "-m", "dosna", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )


# -- ls, info ------------------------------------------------------------------------------


def test_ls(run, scans):
    lines = run("ls", scans).splitlines()
    assert [line.split() for line in lines] == [
        ["angles", "180", "float64", "1.4", "KiB"],
        ["entry/tomo", "20x30x25", "float32", "58.6", "KiB"],
    ]
    listed = json.loads(run("ls", scans, "--json", "--select", "entry"))
    assert listed == [
        {
            "name": "entry/tomo",
            "shape": [20, 30, 25],
            "dtype": "float32",
            "chunk_size": [8, 8, 8],
            "nbytes": VOLUME.nbytes,
            "incomplete": False,
            "linked": False,
        }
    ]
    assert run("ls", f"{scans}/entry/tomo").startswith("tomo ")
    assert run("ls", "hdf5:scans/entry").startswith("tomo ")


def test_ls_goes_on_past_what_cannot_be_opened(run, scans, folder, capsys):
    (folder / "scans/angles/dataset.h5").write_bytes(b"broken")
    assert main(["ls", scans]) == 1
    out = capsys.readouterr().out.splitlines()
    assert "cannot be opened" in out[0]
    assert "20x30x25" in out[1]


def test_ls_of_nothing(run, folder, capsys):
    assert main(["ls", f"hdf5:{folder}"]) == 0
    assert capsys.readouterr() == (
        "",
        f"dosna: hdf5:{folder} has no datasets that its backend can open\n",
    )
    assert json.loads(run("ls", f"hdf5:{folder}", "--json")) == []


def test_a_path_of_another_backend_or_without_one(run, scans, scan, capsys):
    """The message has the URL to write."""
    for command, path in (("ls", "scans"), ("info", "scans/entry/tomo")):
        assert main([command, f"file:{path}"]) == 0  # a remark: the folder exists
        assert capsys.readouterr().err.endswith(f"write hdf5:{path}\n")
    assert run("info", "file:scans//angles", code=1).endswith("write hdf5:scans//angles\n")
    assert "hdf5:scans" in run("info", "scans", code=2)
    assert "hdf5:scans" in run("ingest", scan, "scans", code=2)
    assert "dosna ingest" in run("ls", scan, code=2)
    assert "BACKEND:PATH" in run("ls", "nowhere", code=2)
    assert "did you mean 'tomo'" in run("ls", scans, "--select", "toma", code=1)


def test_a_source_or_a_folder_that_does_not_exist(run, scan, folder):
    (folder / "picture.tif").touch()
    assert "no file" in run("ingest", "scan", "hdf5:.", code=1)
    assert "kind" in run("ingest", "picture.tif", "hdf5:.", code=1)
    assert f"no folder {folder}/one" in run("ingest", scan, "hdf5:one/two", code=1)
    assert "did you mean 'entry/energy'" in run(
        "ingest", scan, "hdf5:.", "--select", "entry/enrgy", code=1
    )


def test_links_of_an_ingested_file_are_named(scan, capsys):
    with h5py.File(scan, "a") as file:
        for n in range(7):
            file[f"entry/also/{n}"] = h5py.SoftLink("/entry/data")
    assert main(["ingest", scan, "hdf5:made"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "dosna: entry/also/0 is a link to what became entry/data"
    assert "2 more links" in lines[5]


def test_the_home_folder_in_a_url(run, scans, folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    os.mkdir("else")
    monkeypatch.chdir("else")
    assert run("ls", "hdf5:~/scans") == run("ls", f"hdf5:{folder}/scans")
    assert run("ls", "hdf5:~//scans/entry") == run("ls", f"hdf5:{folder}//scans/entry")
    run("copy", "hdf5:~/scans", "file:~/made")
    assert (folder / "made").is_dir()


def test_info_of_a_dataset(run, scans):
    text = run("info", "hdf5:scans//entry/tomo", "--written")
    for line in (
        "name: entry/tomo",
        "shape: (20, 30, 25)",
        "chunk_size: (8, 8, 8)",
        "chunks: 48",
        "written: 48",
        "  checksum: True",
        "  unit: counts",
        f"nbytes: 58.6 KiB ({VOLUME.nbytes})",
    ):
        assert f"{line}\n" in text
    described = json.loads(run("info", "hdf5:scans//entry/tomo", "--json"))
    assert described["attrs"] == {"unit": "counts"}
    assert described["guarantees"]["partial_writes"] == "processes"


def test_info_of_a_connection(run, scans):
    described = json.loads(run("info", scans, "--json"))
    assert (described["datasets"], described["nbytes"]) == (2, VOLUME.nbytes + 180 * 8)
    assert "datasets: 2\n" in run("info", scans)


def test_info_of_what_json_lacks(run, folder):
    os.mkdir("odd")
    with dn.Connection("odd", backend="file") as con:
        kind = [("a", "<i4"), ("b", "<c8")]
        ds = con.create_dataset("x", shape=3, dtype=kind, fillvalue=(1, complex(np.inf, 2)))
        ds.attrs.update(nan=float("nan"), z=np.complex64(1j), when=np.datetime64("2020-01-01"))
        ds.attrs.update(low=np.float32("-inf"), raw=np.void(b"\x00a"), text=np.bytes_(b"\xffz"))
        ds.attrs.update(list=[np.nan, {"k": np.arange(2.0)}], wide=np.longdouble("nan"), no=None)
        ds.attrs.update(flags=np.array([[True, False]]), for_=np.timedelta64(5, "s"))
        con.create_dataset("d", data=np.array(["2020-02-03", "NaT"], "M8[D]"), fillvalue="NaT")
        con.create_dataset("n", data=np.zeros(2), fillvalue=np.nan)
    # Neither NaN nor Infinity, which Python takes, is JSON.
    described = json.loads(run("info", "file:odd/x", "--json"), parse_constant=pytest.fail)
    assert described["dtype"].startswith("{a: int32, b: complex64}")
    assert described["fillvalue"] == {"a": 1, "b": ["Infinity", 2.0]}
    assert described["attrs"] == {
        "nan": "NaN",
        "z": [0.0, 1.0],
        "when": "2020-01-01",
        "low": "-Infinity",
        "raw": "\x00a",
        "text": "\\xffz",
        "list": ["NaN", {"k": [0.0, 1.0]}],
        "wide": "NaN",
        "no": None,
        "flags": [[True, False]],
        "for_": "5 seconds",
    }
    assert json.loads(run("info", "file:odd/d", "--json"))["fillvalue"] == "NaT"
    assert json.loads(run("info", "file:odd/n", "--json"))["fillvalue"] == "NaN"


def _started(*arguments, **how):
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "dosna", *arguments], capture_output=True, timeout=HANG, **how
    )


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_standard_streams_that_are_closed(scans, scan, closed):
    def run_closed(command):
        words = f"{sys.executable} -m dosna {command} {closed}"
        return subprocess.run(["sh", "-c", words], capture_output=True, timeout=HANG)

    ended = run_closed("ls hdf5:scans")
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert (b"angles" in ended.stdout) == (">&-" not in closed.replace("2>&-", ""))
    assert run_closed("ls hdf5:scans/nothing").returncode == 1
    # Files do not get the numbers of the streams, in which printed text would end up.
    ended = run_closed("ingest scan.nxs hdf5:new")
    assert (ended.returncode, b"Traceback" in ended.stderr) == (0, False)
    with dn.Connection("new", backend="hdf5") as con:
        assert np.array_equal(con["entry/data"][...], VOLUME)


def test_control_characters_do_not_reach_the_terminal(folder):
    os.mkdir("odd")
    with dn.Connection("odd", backend="file") as con:
        ds = con.create_dataset("x", data=np.zeros(2))
        ds.attrs.update(red="\x1b[31mred\x9b0m", turned="a\u202eb", tab="a\tb", name="\udcb5m")
    ended = _started("info", "file:odd/x", "--engine", "cpu")
    assert ended.returncode == 0
    lines = ended.stdout.decode().splitlines()
    assert "  red: \\x1b[31mred\\x9b0m" in lines
    assert "  turned: a\\u202eb" in lines
    assert "  name: \\udcb5m" in lines
    ended = _started("info", "file:odd/\x1b[31mred", "--engine", "cpu")
    assert (ended.returncode, b"\x1b" in ended.stderr) == (1, False)
    found = json.loads(_started("info", "file:odd/x", "--json", "--engine", "cpu").stdout)
    assert found["attrs"]["red"] == "\x1b[31mred\x9b0m"
    assert found["attrs"]["name"] == "\udcb5m"


def test_a_terminal_that_knows_ascii_only(folder):
    os.mkdir("odd")
    with dn.Connection("odd", backend="file") as con:
        con.create_dataset("µ/ü", data=np.zeros(2)).attrs["unit"] = "Å"
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    ended = _started("info", "file:odd/µ/ü", "--engine", "cpu", env=ascii_only)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert b"  unit: \\xc5" in ended.stdout
    ended = _started("info", "file:odd/µ/ü", "--engine", "cpu", "--json", env=ascii_only)
    assert json.loads(ended.stdout.decode("ascii"))["attrs"] == {"unit": "Å"}


def test_several_root_files_become_one_tree(run, capsys, folder):
    uproot = require("uproot")
    for number in (1, 2):
        with uproot.recreate(f"run{number}.root") as file:
            file["Events"] = {"x": np.arange(3.0) + 10 * number}
    said = run("ingest", "run1.root", "run2.root", "file:events", *ENGINE)
    assert "run1.root and 1 more: 1 dataset" in said
    with dn.Connection("events", backend="file") as con:
        assert con["Events/x"][...].tolist() == [10, 11, 12, 20, 21, 22]
    # A target that was forgotten, and files of a kind that cannot be put together.
    assert main(["ingest", "run1.root", "run2.root", *ENGINE]) == 2
    assert "run2.root" in capsys.readouterr().err
    assert main(["ingest", "a.npy", "b.npy", "file:events", *ENGINE]) == 1
    assert "a.npy" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["kind=a.h5", "a kind=.h5", "select=", "memory_limit.h5"])
def test_messages_leave_names_of_files_as_they_are(capsys, folder, name):
    assert main(["ingest", name, "hdf5:new"]) == 1
    message = capsys.readouterr().err
    assert name in message
    (folder / "unknown.suffix").touch()
    assert main(["ingest", "unknown.suffix", "hdf5:new"]) == 1
    assert "--kind" in capsys.readouterr().err


@pytest.mark.parametrize(
    "data",
    [
        VOLUME,
        VOLUME[0] > 0.5,
        np.linspace(0, 1, 10_000),
        VOLUME[0] * 1j,
        VOLUME.reshape(5, 4, 10, 3, 25),
        np.full((3, 4), np.nan),
        np.zeros((2, 3000)),
    ],
    ids=lambda data: f"{data.dtype}-{data.ndim}",
)
def test_info_draws(run, folder, data):
    require("matplotlib")
    os.mkdir("drawn")
    with dn.Connection("drawn", backend="file") as con:
        con.create_dataset("a", data=data)
    run("info", "file:drawn/a", "--plot", "out.png", *ENGINE)
    assert (folder / "out.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert (folder / "out.png").stat().st_size > 5_000


def test_what_cannot_be_drawn_is_refused(run, scans, folder):
    require("matplotlib")
    assert "one dataset" in run("info", scans, "--plot", "out.png", code=2)
    assert "cannot draw" in run("info", f"{scans}/angles", "--plot", "out.xyz", code=2)
    with dn.Connection("scans", backend="hdf5") as con:
        con.create_dataset("text", data=["a", "b"])
        con.create_dataset("one", data=1)
    assert "numbers" in run("info", f"{scans}/text", "--plot", "out.png", code=2)
    assert "numbers" in run("info", f"{scans}/one", "--plot", "out.png", code=2)
    assert not (folder / "out.png").exists()


# -- ingest, copy, export ------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["hdf5", "file"])
def test_ingest_a_tree_into_a_new_folder(run, scan, folder, backend):
    url = f"{backend}:{folder}/new"
    assert re.match(r"scan.nxs: 3 datasets, 58.\d KiB in ", run("ingest", scan, url))
    with opened(url) as con:
        assert list(con) == ["entry/data", "entry/energy", "entry/name"]
        assert np.array_equal(con["entry/data"], VOLUME)
        assert con["entry/data"].attrs["unit"] == "counts"
    assert run("ingest", scan, url).strip() == "scan.nxs: 0 datasets, 0 B, 3 there already"
    assert sorted(os.listdir()) == ["new", "scan.nxs"]
    assert run("verify", url, "--against", scan).count("chunks equal") == 3


@pytest.mark.parametrize("backend", ["hdf5", "file"])
def test_an_ingest_that_makes_nothing_leaves_no_folder(run, scan, folder, backend):
    before = sorted(os.listdir())
    with h5py.File("refused.h5", "w") as file:
        file.create_dataset("wide", data=np.zeros(3, np.longdouble))
        file.create_dataset("bits", (3,), h5py.regionref_dtype)
    np.savez("wide.npz", a=np.zeros(3, np.longdouble))
    for source in ("missing.h5", "refused.h5", "scan.nxs --compression bogus"):
        assert main(["ingest", *source.split(), f"{backend}:new"]) in (1, 2)
        assert sorted(os.listdir()) == sorted([*before, "refused.h5", "wide.npz"]), source
    if backend == "file":  # which has no such type
        assert main(["ingest", "wide.npz", "file:new"]) == 1
        assert sorted(os.listdir()) == sorted([*before, "refused.h5", "wide.npz"])
    os.mkdir("new")
    assert main(["ingest", "missing.h5", f"{backend}:new"]) == 1
    assert "new" in os.listdir()
    os.rmdir("new")
    run("ingest", scan, f"{backend}:new")
    assert main(["ingest", "missing.h5", f"{backend}:new"]) == 1
    with opened(f"{backend}:new") as con:
        assert len(con) == 3


def test_ingest_with_options(run, scan):
    run(
        *("ingest", scan, "file:new", "--select", "entry/data", "--chunk-size", "10,10,10"),
        *("--compression", "zstd", "--option", "checksum=false", "--option", "shards=[20,20,20]"),
        *("--memory-limit", "10M", *ENGINE),
    )
    described = json.loads(run("info", "file:new/entry/data", "--json"))
    assert described["chunk_size"] == [10, 10, 10]
    assert described["storage"]["compression"]["name"] == "zstd"
    assert described["storage"]["checksum"] is False
    assert described["storage"]["shards"] == [20, 20, 20]
    report = json.loads(run("ingest", scan, "file:more", "--chunk-size", "4 KiB", "--json"))
    assert sorted(report["made"]) == ["entry/data", "entry/energy", "entry/name"]
    with opened("file:more") as con:
        assert con["entry/data"].instance.metadata.chunk_nbytes <= 4096


def test_ingest_one_array(run, folder):
    os.mkdir("place")
    np.save("volume.npy", VOLUME)
    run("ingest", "volume.npy", "file:place")
    run("ingest", "volume.npy", "file:place/other")
    run("ingest", "volume.npy", "file:place//deep/one")
    assert [line.split()[0] for line in run("ls", "file:place").splitlines()] == [
        *("deep/one", "other", "volume")
    ]


def test_ingest_refuses_by_name_or_skips(run, folder):
    with h5py.File("odd.h5", "w") as file:
        file["good"] = [1, 2]
        file["ref"] = np.array([file["good"].ref], h5py.ref_dtype)
    said = run("ingest", "odd.h5", "file:new", code=1)
    assert "'ref'" in said
    assert "--skip" in said
    assert "on_error" not in said
    assert main(["ingest", "odd.h5", "file:new", "--skip"]) == 0
    with opened("file:new") as con:
        assert list(con) == ["good"]


def test_no_array_is_left_out_because_the_disk_is_full(run, folder, small_disk):
    with h5py.File("many.h5", "w") as file:
        for n in range(12):
            file[f"a{n:02}"] = np.random.default_rng(n).random(1 << 17)
    for backend in ("file", "hdf5"):
        said = run("ingest", "many.h5", f"{backend}:{small_disk}", "--skip", code=1)
        assert "No space left on device" in said
        assert "left out" not in said
        with dn.Connection(str(small_disk), backend=backend) as con:
            assert 0 < sum(not con[name].incomplete for name in con) < 12
            for name in con:
                del con[name]


def test_what_is_made_in_memory_only_is_said_to_be(capsys, scan):
    assert main(["ingest", scan, "ram:there"]) == 0
    assert "ram:there is in the memory of this command" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["ingest", "no.h5", "file:new"], 1, "no.h5"),
        (["ingest", "scan.nxs", "file:no/where"], 1, "no folder"),
        (["ingest", "scan.nxs", "file:new", "--select", "x*"], 1, "nothing like 'x*'"),
        (["ingest", "scan.nxs", "file:new", "--option", "bogus=1"], 2, "no option 'bogus'"),
        (["ingest", "hdf5:scans", "file:new"], 2, "use dosna copy"),
        (["copy", "scan.nxs", "file:new"], 2, "use dosna ingest"),
        (["copy", "hdf5:nowhere", "file:new"], 1, "nowhere"),
        (["ls", "hdf5:nowhere"], 1, "neither a dataset nor a place"),
        (["ls", "hdf5:scans", "--select", "x*"], 1, "'x*'"),
        (["ls", "scan"], 2, "BACKEND:PATH"),
        (["ls", "nosuch:x"], 2, "unknown backend"),
        (["ls", "hdf5:scans?bogus=1"], 2, "unknown option 'bogus'"),
        (["ls", "hdf5:scans", "--engine", "nosuch"], 2, "unknown engine"),
        (["ls", "hdf5:scans", "--engine", "cpu", "--njobs", "2"], 2, "--njobs"),
        (["export", "hdf5:scans", "out.csv"], 2, "'.csv'"),
        (["export", "hdf5:scans", "out.npy"], 2, "one array"),
        (["export", "hdf5:scans", "out.h5", "--chunk-size", "4 MiB"], 2, "extents"),
        (["export", "hdf5:scans", "scan.nxs"], 1, "--overwrite"),
        (["verify", "hdf5:scans", "--against", "scan.nxs"], 1, ""),
        (["verify", "hdf5:scans", "--against", "no.nxs"], 1, "no.nxs"),
        (["rm", "hdf5:scans"], 2, "--recursive"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_errors_are_one_line(run, scans, scan, arguments, code, says):
    said = run(*arguments, code=code)
    assert says in said
    assert "Traceback" not in said
    assert said.count("\n") <= 1
    if says:
        assert said.startswith("dosna: ")
        assert "Traceback" in run(*arguments, "--debug", code=code)
    assert sorted(os.listdir()) == ["scan.nxs", "scans"] or arguments[2] == "file:new"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nosuch"],
        ["ls"],
        ["ls", "a", "b"],
        ["copy", "hdf5:scans", "file:new", "--chunk-size", "many"],
        ["copy", "hdf5:scans", "file:new", "--chunk-size", "4,0"],
        ["copy", "hdf5:scans", "file:new", "--option", "checksum"],
        ["verify", "hdf5:scans", "--memory-limit", "-5"],
    ],
    ids=" ".join,
)
def test_wrong_arguments(run, arguments):
    assert "usage: dosna" in run(*arguments, code=2)


@pytest.mark.parametrize("command", ["", "ls", "info", "ingest", "copy", "export", "verify", "rm"])
def test_help_has_examples(run, command):
    text = run(*([command] if command else []), "--help")
    assert max(map(len, text.splitlines())) < 100
    if command != "ls":
        assert re.search(rf"examples?:\n +dosna {command}", text)
    assert run("--version") == f"dosna {dn.__version__}\n"


def test_copy_with_other_chunks(run, scans):
    os.mkdir("new")
    run("copy", "hdf5:scans/entry/tomo", "file:new/tomo", "--chunk-size", "5,30,25", *ENGINE)
    with opened("file:new") as con:
        assert con["tomo"].chunk_size == (5, 30, 25)
        assert dict(con["tomo"].attrs) == {"unit": "counts"}
        assert np.array_equal(con["tomo"], VOLUME)
    assert "48 of" not in run("verify", "file:new/tomo", "--against", "hdf5:scans/entry/tomo")


def test_copy_of_all_may_be_repeated_until_the_source_changes(run, scans):
    run("copy", scans, "file:new")
    with opened("file:new") as con:
        assert list(con) == ["angles", "entry/tomo"]
        assert con["entry/tomo"].chunk_size == (8, 8, 8)
    assert "2 there already" in run("copy", scans, "file:new")
    with dn.Connection("scans", backend="hdf5") as con:
        con["angles"][3] = -1
    assert "changed since" in run("copy", scans, "file:new", code=1)


def test_an_interrupted_copy_goes_on(run, scans, monkeypatch):
    from dosna.sources.datasets import DatasetsSource

    reads, read_into = [], DatasetsSource.read_into

    def failing(self, name, box, out):
        reads.append(box)
        if len(reads) == 20:
            raise KeyboardInterrupt
        read_into(self, name, box, out)

    arguments = ("copy", "hdf5:scans/entry", "file:new", *ENGINE)
    with monkeypatch.context() as patched:
        patched.setattr(DatasetsSource, "read_into", failing)
        assert run(*arguments, code=130) == "dosna: interrupted\n"
    assert "incomplete" in run("ls", "file:new")
    assert "1 begun before" in run(*arguments)
    assert run("verify", "file:new", "--against", "hdf5:scans/entry").count("equal") == 1


@pytest.mark.parametrize("name", ["out.h5", "out.zarr"])
def test_export_all(run, scans, name):
    run("export", scans, name, "--compression", "gzip")
    assert run("verify", scans, "--against", name).count("equal") == 2
    assert "--overwrite" in run("export", scans, name, code=1)
    given = run("export", scans, name, "--overwrite", "--select", "angles", "--json")
    assert json.loads(given) == {"path": name, "datasets": ["angles"]}


def test_export_one(run, scans):
    run("export", "hdf5:scans/entry/tomo", "out.npy")
    assert np.array_equal(np.load("out.npy"), VOLUME)
    assert "48 of 48 chunks equal" in run(
        "verify", "hdf5:scans/entry/tomo", "--against", "out.npy"
    )


# -- verify, rm ----------------------------------------------------------------------------


def test_verify_finds_what_is_damaged(run, scans, folder, capsys):
    assert run("verify", scans) == "angles: 1 unchecked\nentry/tomo: 48 ok\n"
    with open(folder / "scans/entry/tomo/chunk_1_0_2.h5", "r+b") as file:
        file.seek(-30, os.SEEK_END)
        file.write(b"oops")
    assert main(["verify", scans, "--json"]) == 1
    good, bad = json.loads(capsys.readouterr().out)
    assert (good["good"], bad["good"]) == (True, False)
    assert bad["corrupt"] == [[1, 0, 2]]
    assert main(["verify", scans]) == 1
    assert "corrupt: (1, 0, 2)" in capsys.readouterr().out


def test_verify_says_where_it_differs(run, scans, capsys):
    run("copy", scans, "file:new")
    con, _ = dn.open_url("file:new", engine="cpu")
    with con:
        con["entry/tomo"][9, 29, 24] = 7
        con["entry/tomo"][19, 0, 0] = 7
        con.del_dataset("angles")
        con.create_dataset("more", data=1)
    assert main(["verify", "file:new", "--against", scans]) == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        "entry/tomo: 2 of 48 chunks differ, in 2 elements: first at (9, 29, 24)",
        "angles: not there",
    ]
    assert printed.err == f"dosna: not compared, because {scans} does not have it: more\n"
    assert main(["verify", "file:new", "--against", scans, "--select", "entry", "--json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["first"], found["different"]) == ([9, 29, 24], [[1, 3, 3], [2, 0, 0]])


def test_verify_against_another_shape_or_kind(run, scans, capsys):
    np.save("a.npy", VOLUME[1:])
    np.save("b.npy", VOLUME.astype("S"))
    for name, says in (("a.npy", "(19, 30, 25)"), ("b.npy", "compared")):
        assert main(["verify", "hdf5:scans/entry/tomo", "--against", name]) == 1
        assert says in capsys.readouterr().out


def test_verify_of_a_part_under_another_name(run, scan, folder):
    for place in ("one", "two"):
        os.mkdir(place)
        run("ingest", scan, f"file:{place}//run7")
    assert run("verify", "file:one//run7", "--against", scan).count("equal") == 3
    assert run("verify", "file:one//run7", "--against", "file:two//run7").count("equal") == 3


def test_verify_against_names_that_no_dataset_can_have(run, folder):
    with h5py.File("odd.h5", "w") as file:
        file["plain"], file[".hidden/x"], file[".hidden/y"] = np.arange(3), np.arange(4), [1]
    os.mkdir("one")
    run("ingest", "odd.h5", "file:one")
    assert run("verify", "file:one", "--against", "odd.h5").count("equal") == 3
    assert (
        run("verify", "file:one//%252Ehidden", "--against", "odd.h5:.hidden").count("equal") == 2
    )


def test_verify_of_a_part_against_a_part(run, scan, folder):
    os.mkdir("one")
    run("ingest", scan, "file:one//run7")
    for part in ("", "/entry", "/entry/data"):
        against = f"{scan}:{part}" if part else scan
        says = run("verify", f"file:one//run7{part}", "--against", against)
        assert says.count("equal") == (1 if part.endswith("data") else 3)
    assert run("verify", "file:one//run7/entry", "--against", "file:one//run7/entry")


def test_copy_anew(run, scans):
    run("copy", scans, "file:new")
    with dn.Connection("scans", backend="hdf5") as con:
        con["angles"][3] = -1
    run("copy", scans, "file:new", "--overwrite")
    with opened("file:new") as con:
        assert con["angles"][3] == -1


def test_a_killed_copy_goes_on(run, scans):
    script = """
import os, signal, sys
from dosna.cli import main
from dosna.sources.datasets import DatasetsSource

reads, read_into = [], DatasetsSource.read_into

def killed(self, name, box, out):
    reads.append(box)
    if len(reads) == 20:
        os.kill(os.getpid(), signal.SIGKILL)
    read_into(self, name, box, out)

DatasetsSource.read_into = killed
main(sys.argv[1:])
"""
    arguments = ("copy", "hdf5:scans/entry", "file:new", *ENGINE)
    killed = subprocess.run([sys.executable, "-c", script, *arguments], timeout=HANG)
    assert killed.returncode == -9
    assert "incomplete" in run("ls", "file:new")
    assert "1 begun before" in run(*arguments)
    assert run("verify", "file:new", "--against", "hdf5:scans/entry").count("equal") == 1


def test_verify_of_what_is_incomplete(run, scans, capsys):
    with dn.Connection("scans", backend="hdf5") as con:
        con.create_dataset("part", shape=(4,), incomplete=True)
    assert main(["verify", f"{scans}/part"]) == 1
    assert "incomplete" in capsys.readouterr().out


def test_rm(run, scans):
    assert "--yes" in run("rm", f"{scans}/angles", code=2)
    assert run("rm", f"{scans}/angles", "--yes") == "deleted angles\n"
    assert json.loads(run("rm", scans, "-r", "-y", "--json")) == {"deleted": ["entry/tomo"]}
    assert run("ls", scans) == ""


# -- terminals, pipes, signals, ranks ------------------------------------------------------


def on_terminal(arguments, typed=b"", **options):
    """Run a command whose input and errors are a terminal; give code, output and terminal."""
    own, its = pty.openpty()
    termios.tcsetwinsize(its, (24, 80))
    process = subprocess.Popen(
        [sys.executable, "-m", "dosna", *map(str, arguments)],
        stdin=its,
        stderr=its,
        stdout=subprocess.PIPE,
        **options,
    )
    os.close(its)
    os.write(own, typed)
    shown = b""
    try:
        while block := os.read(own, 4096):
            shown += block
    except OSError:  # how a terminal ends
        pass
    out = process.stdout.read()
    os.close(own)
    process.stdout.close()
    return process.wait(), out.decode(), shown.decode()


@pytest.mark.parametrize(("typed", "code"), [(b"y\n", 0), (b"\n", 1), (b"no\n", 1)])
def test_rm_asks_on_a_terminal(scans, typed, code):
    found, out, shown = on_terminal(["rm", f"{scans}/angles"], typed)
    assert (found, out) == (code, "deleted angles\n" * (code == 0))
    assert "delete angles of hdf5:scans/angles? [y/N]" in shown
    with opened(scans) as con:
        assert ("angles" in con) == (code == 1)


def test_progress_is_for_who_watches(scans):
    require("tqdm")
    code, out, shown = on_terminal(["verify", scans, *ENGINE])
    assert (code, out) == (0, "angles: 1 unchecked\nentry/tomo: 48 ok\n")
    assert "verify entry/tomo" in shown
    assert "%|" in shown
    code, _, shown = on_terminal(["verify", scans, *ENGINE, "--quiet"])
    assert (code, shown) == (0, "")
    piped = start("verify", scans, *ENGINE)
    assert piped.communicate()[1] == ""


WITHOUT = """
import sys
for name in sys.argv[1].split(","):
    sys.modules[name] = None
from dosna.cli import main
main(["ls", "hdf5:scans"])
main(["export", "hdf5:scans", "hdf5://home/me/scans.h5"])
main(["ingest", "s3://bucket/scan.nxs", "hdf5:scans"])
main(["loader", "watch", "--once", "--src-bucket", "bucket", "--target", "hdf5:scans"])
"""


def test_what_is_not_installed_is_said(scans):
    away = "httpx,h5pyd,boto3,botocore,obstore,uproot,awkward,servicex"
    found = subprocess.run(
        [sys.executable, "-c", WITHOUT, away], capture_output=True, text=True, timeout=HANG
    )
    lines = [line for line in found.stderr.splitlines() if line.startswith("dosna: ")]
    wanted = ["pip install 'dosna[hsds]'", "pip install 'dosna[s3]'", "pip install 'dosna[s3]'"]
    assert len(lines) == len(wanted), found.stderr
    assert all(want in line for want, line in zip(wanted, lines, strict=True)), lines
    assert "entry/tomo" in found.stdout


def test_progress_without_tqdm(scans, folder):
    (folder / "tqdm.py").write_text("raise ImportError('none')\n")
    env = {**os.environ, "PYTHONPATH": f"{folder}:{os.environ['PYTHONPATH']}"}
    code, _, shown = on_terminal(["verify", scans, *ENGINE], env=env)
    assert code == 0
    assert "verify entry/tomo: 100 %, 48 of 48" in shown


def test_a_line_of_progress_counts_bytes(capsys):
    line = _Line("ingest", "B")
    line.show(1 << 20, 1 << 22)
    line.close()
    assert "\ringest: 25 %, 1.0 MiB of 4.0 MiB" in capsys.readouterr().err


def test_ctrl_c(folder):
    with h5py.File("large.h5", "w") as file:
        file.create_dataset("a", data=np.ones((1000, 100, 100), "u1"), chunks=(1, 100, 100))
    process = start(
        *("ingest", "large.h5", "hdf5:new", "--chunk-size", "1,10,10"),
        process_group=0,
    )
    wait_until(lambda: os.path.exists("new/a") and len(os.listdir("new/a")) > 10)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=HANG)
    assert (process.returncode, err) == (130, "dosna: interrupted\n")
    with opened("hdf5:new") as con:
        assert con["a"].incomplete


def test_a_pipe_that_nobody_reads(scans):
    process = start("info", f"{scans}/angles", *ENGINE)
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() == 141


def test_an_incomplete_dataset_warns_in_a_line(run, scans, capsys):
    require("matplotlib")
    with dn.Connection("scans", backend="hdf5") as con:
        con.create_dataset("part", shape=(4,), incomplete=True)
    assert run("export", f"{scans}/part", "out.npy", code=1).startswith(
        "dosna: dataset 'part' is inc"
    )
    assert main(["info", f"{scans}/part", "--plot", "out.png"]) == 0
    first = capsys.readouterr().err.splitlines()[0]
    assert first.startswith("dosna: warning: dataset 'part' is incomplete")


def test_under_mpiexec_one_rank_speaks(scan, folder):
    require("mpi4py")
    command = [*mpiexec(3), sys.executable, "-m", "dosna"]
    ran = subprocess.run(
        [*command, "ingest", scan, "hdf5:new"], capture_output=True, text=True, timeout=HANG
    )
    assert (ran.returncode, ran.stdout.count("3 datasets")) == (0, 1), ran.stderr
    with opened("hdf5:new") as con:
        assert np.array_equal(con["entry/data"], VOLUME)
    ran = subprocess.run(
        [*command, "verify", "hdf5:new", "--against", scan],
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert (ran.returncode, ran.stdout.count("chunks equal")) == (0, 3), ran.stderr
    ran = subprocess.run(
        [*command, "ingest", "no.h5", "hdf5:new"], capture_output=True, text=True, timeout=HANG
    )
    assert ran.returncode == 1
    assert re.findall("dosna: .*", ran.stderr) == [f"dosna: there is no file {folder}/no.h5"]
    for name in ("out.h5", "out.npy", "out.zarr"):
        ran = subprocess.run(
            [*command, "export", "hdf5:new", name, "--select", "entry/data"],
            capture_output=True,
            text=True,
            timeout=HANG,
        )
        assert (ran.returncode, ran.stdout) == (0, f"{name}: 1 dataset\n"), ran.stderr
    ran = subprocess.run(
        [*command, "copy", "hdf5:new", "file:copied"], capture_output=True, text=True, timeout=HANG
    )
    assert (ran.returncode, ran.stdout.count("3 datasets")) == (0, 1), ran.stderr
    with opened("file:copied") as con:
        assert np.array_equal(con["entry/data"], VOLUME)
    assert np.array_equal(np.load("out.npy"), VOLUME)


RANKS = """
import os, sys
from mpi4py import MPI
import dosna.cli, dosna.cli.ranks
dosna.cli.ranks._PATIENCE_SECONDS = 0.5
if MPI.COMM_WORLD.rank == 1:
    os.chdir("/")
sys.exit(dosna.cli.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("command", "says"), [("ls", r"dosna: .*is neither"), ("verify", r"dosna: rank 1: .*neither")]
)
def test_what_fails_on_one_rank_ends_all(scans, command, says):
    """Those that list are done; those that verify wait for the one that failed."""
    require("mpi4py")
    ran = subprocess.run(
        [*mpiexec(2), sys.executable, "-c", RANKS, command, scans],
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert ran.returncode == 1
    assert re.search(says, ran.stderr), ran.stderr


# -- S3 ------------------------------------------------------------------------------------


def test_every_command_on_s3(run, scan, gateway):
    require("boto3")
    require("obstore")
    endpoint_url = gateway.endpoint_url
    bucket = make_bucket(endpoint_url)
    with closing(make_client(endpoint_url)) as client:
        client.upload_file(scan, bucket, "raw/scan.h5")
    options = f"?endpoint_url={endpoint_url}"
    raw, url = f"s3://{bucket}/raw/scan.h5{options}", f"s3://{bucket}/scans{options}"
    one = f"s3://{bucket}/scans/entry/data{options}"

    assert run("ingest", raw, url).startswith(f"{raw}: 3 datasets")
    assert len(run("ls", url).splitlines()) == 3
    assert "unit: counts" in run("info", one)
    assert run("verify", url, "--against", raw).count("equal") == 3
    run("copy", one, "file:copied")
    assert "equal" in run("verify", "file:copied", "--against", one)
    run("copy", "file:copied", f"s3://{bucket}/back/again{options}")
    assert run("ls", f"s3://{bucket}/back{options}").split()[0] == "again"
    run("export", one, "out.npy")
    assert np.array_equal(np.load("out.npy"), VOLUME)
    run("rm", "-r", "-y", f"s3://{bucket}/scans/entry{options}")
    assert run("ls", url) == ""

    assert "a bucket of each dataset" in run("ingest", scan, f"s3:{options}", code=2)
    lone = f"lone-{secrets.token_hex(6)}"
    run("copy", "file:copied", f"s3:{lone}{options}")
    assert "20x30x25" in run("ls", f"s3:{options}", "--select", lone)
    run("rm", "-y", f"s3:{lone}{options}")


def test_every_command_on_ceph(run, scan, ceph):
    options = f"?conffile={ceph.conf}"
    url, one = (f"ceph:kit/{name}{options}" for name in ("run7", "run7/entry/data"))
    run("ingest", scan, url)
    assert len(run("ls", url).splitlines()) == 3
    assert "unit: counts" in run("info", one)
    assert run("verify", url, "--against", scan).count("equal") == 3
    run("copy", one, "file:copied", "--chunk-size", "7,30,25")
    assert "equal" in run("verify", "file:copied", "--against", one)
    run("copy", "file:copied", f"ceph:kit/again{options}")
    run("export", f"ceph:kit/again{options}", "out.npy")
    assert np.array_equal(np.load("out.npy"), VOLUME)
    run("rm", "-y", f"ceph:kit/again{options}")
    run("rm", "-r", "-y", url)
    run("ls", f"ceph:kit{options}", "--select", "run7", code=1)
