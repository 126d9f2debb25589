"""use, status, compatible, the registry, and what pairs a connection takes."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from support import HANG, require

import dosna as dn
from dosna import errors


def chosen():
    engine, backend = dn.status()
    return engine.name, backend.name, dict(engine.params)


def test_the_defaults_are_ram_and_cpu():
    assert chosen() == ("cpu", "ram", {})
    with dn.Connection("defaults") as con:
        assert con.create_dataset("a", data=[1, 2]).sum() == 3
        con.del_dataset("a")


def test_use_keeps_what_is_not_named():
    require("joblib")
    require("h5py")
    dn.use(backend="hdf5")
    assert chosen() == ("cpu", "hdf5", {})
    dn.use(engine="joblib", engine_kw={"njobs": 3, "jlbackend": "loky"})
    assert chosen() == ("joblib", "hdf5", {"njobs": 3, "jlbackend": "loky"})
    dn.use(backend="ram")
    assert chosen() == ("joblib", "ram", {"njobs": 3, "jlbackend": "loky"})
    dn.use(engine_kw={"njobs": 2})
    assert chosen() == ("joblib", "ram", {"njobs": 2, "jlbackend": "threading"})
    dn.use()
    assert chosen()[0] == "joblib"
    dn.use(engine="cpu")
    assert chosen() == ("cpu", "ram", {})


def test_names_are_of_any_case_and_joblib_has_an_alias():
    require("joblib")
    for name in ("jl", "JL", "joblib", "JobLib"):
        dn.use(engine=name, engine_kw={"njobs": 2})
        assert chosen() == ("joblib", "ram", {"njobs": 2, "jlbackend": "threading"})
    dn.use(engine="CPU", backend="Ram")
    assert chosen() == ("cpu", "ram", {})


def test_status_prints_on_request(capsys):
    require("joblib")
    dn.use("joblib", engine_kw={"njobs": 2})
    dn.status()
    assert capsys.readouterr().out == ""
    dn.status(show=True)
    out = capsys.readouterr().out
    assert "joblib(njobs=2, jlbackend='threading')" in out
    assert "ram" in out


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({"engine": "nothing"}, ["unknown engine 'nothing'", "cpu", "joblib"]),
        ({"backend": "nothing"}, ["unknown backend 'nothing'", "hdf5", "ram"]),
        ({"engine": 3}, ["engine", "3"]),
        ({"engine": "joblib", "engine_kw": {"njobs": 0}}, ["njobs", "0"]),
        ({"engine": "joblib", "engine_kw": {"njobs": True}}, ["njobs", "True"]),
        ({"engine": "joblib", "engine_kw": {"jlbackend": "dask"}}, ["jlbackend", "loky"]),
    ],
)
def test_what_is_wrong_is_refused_and_changes_nothing(arguments, parts):
    require("joblib")
    with pytest.raises(errors.ConfigurationError) as caught:
        dn.use(**arguments)
    assert [part for part in parts if part not in str(caught.value)] == []
    assert isinstance(caught.value, ValueError)
    assert chosen() == ("cpu", "ram", {})


def test_a_misspelt_engine_keyword_is_refused():
    require("joblib")
    with pytest.raises(TypeError, match=r"joblib.*workers.*jlbackend, njobs"):
        dn.use("joblib", engine_kw={"workers": 2})
    with pytest.raises(TypeError, match=r"cpu.*njobs"):
        dn.Connection("a", engine="cpu", engine_kw={"njobs": 2})
    assert chosen() == ("cpu", "ram", {})


def test_compatible():
    require("joblib")
    require("h5py")
    dn.use("joblib", engine_kw={"jlbackend": "loky"})
    assert not dn.compatible("joblib", "ram")
    assert dn.compatible("jl", "HDF5")
    assert dn.compatible("cpu", "ram")
    engine, backend = dn.status()
    assert not dn.compatible(engine, backend)
    assert dn.compatible(engine, "hdf5")
    dn.use("joblib", engine_kw={"jlbackend": "threading"})
    assert dn.compatible("joblib", "ram")


def test_a_pair_that_cannot_work_is_refused_by_the_connection():
    require("joblib")
    dn.use(backend="ram")
    dn.use(engine="joblib", engine_kw={"jlbackend": "multiprocessing"})
    with pytest.raises(errors.IncompatibleError, match="processes"):
        dn.Connection("a")


def test_a_connection_keeps_its_pair_and_may_name_its_own(tmp_path):
    require("joblib")
    require("h5py")
    dn.use("joblib", "hdf5", {"njobs": 2})
    con = dn.Connection(str(tmp_path))
    dn.use("cpu", "ram")
    assert con.runner.params == {"njobs": 2, "jlbackend": "threading"}
    assert con.instance.shared_between_processes
    own = dn.connection("a", backend="RAM", engine="jl", engine_kw={"njobs": 3})
    assert own.runner.params["njobs"] == 3
    assert not own.instance.shared_between_processes
    assert chosen() == ("cpu", "ram", {})


def test_options_of_a_connection_are_named(tmp_path):
    require("h5py")
    with pytest.raises(TypeError, match=r"directroy.*directory"):
        dn.Connection("a", backend="hdf5", directroy=tmp_path)
    with pytest.raises(TypeError, match="directory"):
        dn.Connection("a", backend="ram", directory=tmp_path)
    for name in ("", 3, None):
        with pytest.raises(errors.ConfigurationError, match="name"):
            dn.Connection(name)
    with pytest.raises(errors.ConfigurationError, match="mode"):
        dn.Connection("a", mode="w")


def test_what_is_available():
    assert {"ram", "hdf5"} <= set(dn.backends.AVAILABLE)
    assert {"cpu", "joblib"} <= set(dn.engines.AVAILABLE)
    from dosna.backends import base

    assert base.DatasetNotFoundError is errors.DatasetNotFoundError
    assert base.ConnectionError is errors.ConnectionError


@pytest.mark.parametrize(
    ("package", "use", "extra"),
    [("h5py", "backend='hdf5'", "hdf5"), ("joblib", "engine='joblib'", "jl")],
)
def test_a_missing_package_is_named_with_its_extra(package, use, extra):
    code = f"""
import sys
sys.modules[{package!r}] = None
import dosna as dn
try:
    dn.use({use})
except ImportError as error:
    assert isinstance(error, dn.errors.MissingDependencyError)
    print(error)
dn.use(engine="cpu", backend="ram")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=HANG
    )
    assert done.stderr == ""
    assert package in done.stdout
    assert f"pip install 'dosna[{extra}]'" in done.stdout


def test_plugins_come_from_entry_points(tmp_path):
    (tmp_path / "thirdparty.py").write_text(
        "from dosna.backends.ram import RamConnection\n"
        "from dosna.engines.cpu import CpuRunner\n"
        "from dosna.registry import Backend, Engine\n"
        "BACKEND = Backend('shelf', RamConnection, 'a test')\n"
        "ENGINE = Engine('tortoise', CpuRunner)\n"
    )
    info = tmp_path / "thirdparty-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thirdparty\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[dosna.backends]\nShelf = thirdparty:BACKEND\nlost = thirdparty:NOTHING\n"
        "[dosna.engines]\ntortoise = thirdparty:ENGINE\n"
    )
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import dosna as dn
assert "shelf" in dn.backends.AVAILABLE and "tortoise" in dn.engines.AVAILABLE
assert "thirdparty" not in sys.modules
with dn.Connection("a", backend="SHELF", engine="tortoise") as con:
    print(con.create_dataset("a", data=[1, 2, 3]).sum())
try:
    dn.use(backend="lost")
except Exception as error:
    print(type(error).__name__)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=HANG
    )
    assert (done.stdout, done.stderr) == ("6\nConfigurationError\n", "")


def test_a_backend_that_takes_any_option_is_refused(monkeypatch):
    from dosna.backends.ram import RamConnection

    class Sloppy(RamConnection):
        def __init__(self, name, **options):
            super().__init__(name)

    registry = dn.backends.registry
    monkeypatch.setattr(registry, "loaded", dict(registry.loaded))
    registry.register(dn.backends.Backend("sloppy", Sloppy, "a test"))
    with pytest.raises(errors.ConfigurationError, match="kwargs"):
        dn.Connection("a", backend="sloppy", misspelt=1)


def test_a_choice_is_never_seen_in_parts(monkeypatch):
    """Though another thread chooses while it is being read."""
    require("joblib")
    before = dn.status()
    dn.use(engine="joblib", engine_kw={"njobs": 3})
    get = dn.engines.registry.get

    def meanwhile(name):
        monkeypatch.setattr(dn.engines.registry, "get", get)
        other = threading.Thread(target=dn.use, args=("cpu",))
        other.start()
        other.join()
        return get(name)

    try:
        monkeypatch.setattr(dn.engines.registry, "get", meanwhile)
        found = dn.status().engine
        assert (found.name, found.params["njobs"]) == ("joblib", 3)
        assert dn.status().engine.name == "cpu"
    finally:
        dn.use(before.engine.name, before.backend.name, before.engine.params)
