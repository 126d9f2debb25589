"""What a user gets before the first call: files, scripts, the wheel, the cost of the import."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from importlib.metadata import distribution
from pathlib import Path

import pytest
from support import require

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted([*ROOT.glob("*.sh"), ROOT / "tests/lanes.sh"])
SOURCE_FOLDERS = ("dosna", "findings", "tests", "examples", "docs", "benchmarks", ".ci")

HEAVY_STANDARD = {"asyncio", "ctypes", "email", "hashlib", "html", "http", "multiprocessing"}
HEAVY_STANDARD |= {"shutil", "sqlite3", "ssl", "tempfile"}


def text_files():
    # In a worktree .git is a file, which names the clone.
    found = [path for path in ROOT.iterdir() if path.is_file() and path.name != ".git"]
    for folder in SOURCE_FOLDERS:
        found += [path for path in (ROOT / folder).rglob("*") if path.is_file()]
    for path in found:
        if "__pycache__" not in path.parts:
            try:
                yield path, path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue


def python(code):
    return subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def test_import_loads_nothing_beyond_numpy_and_light_standard_modules():
    loaded = python(
        "import sys, numpy; before = set(sys.modules); import dosna;"
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    ).split()
    assert {name for name in loaded if name not in sys.stdlib_module_names} <= {"dosna", "numpy"}
    assert HEAVY_STANDARD.intersection(loaded) == set()


def test_import_loads_few_modules_of_dosna():
    """It takes some 50 ms beyond NumPy; what else is used is loaded then."""
    loaded = python(
        "import sys, dosna; print(*(name for name in sys.modules if name.startswith('dosna.')))"
    ).split()
    folders = {"array", "backends", "core", "engines", "io"}
    assert {name.split(".")[1] for name in loaded if name.count(".") > 1} <= folders
    assert len(loaded) < 90


@pytest.mark.parametrize(
    "name",
    [
        *["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "pyproject.toml"],
        *["mkdocs.yml", "docs/index.md"],
        *["setup.cfg", "run_tests.sh", "run_mpi.sh", "ceph.sample.conf", "sage.sample.conf"],
        *[".ci/run", "dosna/__init__.py", "dosna/py.typed", "examples/new_backend.py"],
    ],
)
def test_repository_has(name):
    assert (ROOT / name).is_file()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_posix(script):
    shell = shutil.which("dash") or "sh"
    checked = subprocess.run([shell, "-n", script], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")
    lines = script.read_text().splitlines()
    assert lines[0] == "#!/bin/sh"
    bashism = re.compile(
        r"\[\[|\[ [^]]* == |<<<|<\(|&>|\$'|\w+=\(|\bpipefail\b|\becho -[en]\b|\$RANDOM"
        r"|^\s*(function|local|source|declare|typeset|select|let)\s"
    )
    assert [line for line in lines if bashism.search(line)] == []


@pytest.mark.parametrize(
    "script",
    [*SCRIPTS, ROOT / ".ci/run", ROOT / ".ci/with_venv"],
    ids=lambda path: path.name,
)
def test_scripts_are_executable(script):
    assert os.access(script, os.X_OK)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--instal"],
        ["tests"],
        ["--backend"],
        ["--backend", "--install"],
        ["--engine", "cpu"],
        ["--backend", "ram", "extra"],
        ["--backend", "ram", "--connection-options", "directory"],
        ["--newest", "--oldest"],
        ["--newest", "--newest"],
        ["--install", "--newest"],
        ["--oldest", "--backend", "ram"],
        ["--newest", "tests"],
        ["--fast", "--faults"],
        ["--fast", "--install"],
        ["--faults", "tests"],
    ],
    ids=" ".join,
)
def test_run_tests_refuses_wrong_arguments(arguments):
    run = subprocess.run(["sh", ROOT / "run_tests.sh", *arguments], capture_output=True, text=True)
    assert run.returncode == 2
    assert "--help" in run.stderr


def test_run_tests_explains_itself():
    run = subprocess.run(["sh", ROOT / "run_tests.sh", "--help"], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    for option in ("--install", "--backend", "--engine", "--connection-options", "PYTHON"):
        assert option in run.stdout
    assert {"--fast", "--faults", "--newest", "--oldest"} <= set(run.stdout.split())


def test_the_lanes_run_tests_that_are_there():
    text = (ROOT / "tests/lanes.sh").read_text()
    names = re.search(r'^lane_tests="([^"]+)"', text, re.MULTILINE)[1].split()
    assert [name for name in names if not list(ROOT.glob(f"tests/**/test_{name}.py"))] == []
    extras = re.search(r"^lane_extras=(\S+)", text, re.MULTILINE)[1].split(",")
    known = re.findall(r"^(\w+) =", (ROOT / "setup.cfg").read_text().lower(), re.MULTILINE)
    assert set(extras) <= set(known)
    text = (ROOT / "tests/conftest.py").read_text()
    fast = re.search(r"^FAST = \[\n([^]]+)\]", text, re.MULTILINE)[1]
    names = re.findall(r'"(\S+)"', fast)
    assert "core" in names
    assert [name for name in names if not (ROOT / "tests" / name).exists()] == []


# What running tests needs, whichever they are.
RUN_TESTS = (
    *("run_tests.sh", "venv.sh", "pyproject.toml"),
    *("tests/conftest.py", "tests/support.py"),
)


def test_no_two_files_of_tests_have_one_name():
    # pytest imports them by their names alone, as the folders are no packages.
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


LANES = """
import pytest
def test_quick(): pass
@pytest.mark.slow
def test_slow(): pass
@pytest.mark.serial
def test_measures(): pass
@pytest.mark.fault
def test_fault(): pass
def test_service(gateway): pass
"""


@pytest.mark.parametrize(("lane", "files"), [("--fast", ["core"]), ("--faults", ["cli", "core"])])
def test_a_lane_runs_its_tests_alone(tmp_path, lane, files):
    require("xdist")
    for name in RUN_TESTS:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for folder in ("cli", "core"):
        (tmp_path / "tests" / folder).mkdir()
        (tmp_path / "tests" / folder / f"test_{folder}_lanes.py").write_text(LANES)
    plugins = {
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_PLUGINS": "pytest_timeout,xdist.plugin",
    }
    run = subprocess.run(
        ["sh", tmp_path / "run_tests.sh", lane],
        env={**os.environ, **plugins, "PYTHON": sys.executable, "PYTEST_ADDOPTS": "-v"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    ran = re.findall(r"PASSED tests/(\S+)", run.stdout)
    only = "test_quick" if lane == "--fast" else "test_fault"
    assert sorted(ran) == [f"{folder}/test_{folder}_lanes.py::{only}" for folder in files]


@pytest.mark.parametrize("outcome", ["passes", "fails"])
def test_run_tests_hands_the_choice_of_a_backend_to_pytest(tmp_path, outcome):
    """From a folder with a blank in its name, called from elsewhere."""
    clone = tmp_path / "a clone"
    (clone / "tests").mkdir(parents=True)
    for name in RUN_TESTS:
        shutil.copy(ROOT / name, clone / name)
    wanted = {
        "backend": "hdf5",
        "engine": "joblib",
        "connection": "my trial",
        "connection_options": ["directory=/a b/$c", "timeout=5", "verify=False"],
        "engine_options": ["njobs=2", "jlbackend=loky"],
    }
    (clone / "tests/test_backend_runner.py").write_text(
        "from pathlib import Path\n"
        "def test_choice(request):\n"
        f"    wanted = {wanted!r}\n"
        "    assert {name: request.config.getoption(name) for name in wanted} == wanted\n"
        f"    assert Path.cwd() == Path({str(tmp_path)!r})\n"
        f"    assert {outcome!r} == 'passes'\n"
    )
    run = subprocess.run(
        [
            *["sh", "a clone/run_tests.sh", "--backend", "hdf5", "--connection-options"],
            *wanted["connection_options"],
            *["--engine", "joblib", "--connection", "my trial", "--engine-options"],
            *wanted["engine_options"],
        ],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHON": sys.executable,
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTEST_PLUGINS": "pytest_timeout",
        },
        capture_output=True,
        text=True,
    )
    assert run.returncode == (outcome == "fails"), run.stdout + run.stderr
    assert ("1 passed" if outcome == "passes" else "assert 'fails' == 'passes'") in run.stdout


def test_a_virtual_environment_borrows_the_binding_of_ceph(tmp_path):
    require("rados")
    venv = tmp_path / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    script = f"here={tmp_path}; . {ROOT}/venv.sh; python=$venv/bin/python; link_rados"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for _ in range(2):
        subprocess.run(["sh", "-euc", script], check=True, env=env)
        found = subprocess.run(
            [venv / "bin/python", "-c", "import rados; print(rados.__file__)"],
            check=True,
            capture_output=True,
            text=True,
            env=env,
        )
        assert found.stdout.startswith(str(venv))


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """Build the sdist of a copy of this tree, and the wheel of that sdist."""
    for package in ("build", "setuptools", "twine"):
        require(package)
    folder = tmp_path_factory.mktemp("distributions")
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*NOT_SOURCE))
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, source]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


NOT_SOURCE = (".git", ".venv", ".hypothesis", ".coverage*", "__pycache__", ".*_cache")
NOT_SOURCE += ("*.egg-info", "build", "site")


def python_files(folder):
    found = (ROOT / folder).rglob("*.py")
    return {path.relative_to(ROOT).as_posix() for path in found}


@pytest.mark.serial
def test_the_wheel_holds_the_package_and_needs_two_others(distributions):
    (wheel,) = distributions.glob("dosna-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata_name,) = [name for name in names if name.endswith("/METADATA")]
        metadata = Parser().parsestr(archive.read(metadata_name).decode())
    data = {"dosna/py.typed", "dosna/query/ceph_class/cls_dosna.cc"}
    assert {*python_files("dosna"), *data} - names == set()
    assert {name.partition("/")[0] for name in names} == {
        "dosna",
        metadata_name.partition("/")[0],
    }
    needed = metadata.get_all("Requires-Dist")
    always = [need for need in needed if "extra ==" not in need]
    assert [re.split(r"[<>=~! ]", need)[0] for need in always] == ["crc32c", "numpy"]
    extras = set(metadata.get_all("Provides-Extra"))
    assert {"hdf5", "jl", "joblib", "mpi", "zarr", "s3", "ceph", "sage", "all", "dev"} <= extras
    assert {"root", "servicex"} <= extras
    assert extras == {name.lower() for name in extras}
    assert [need for need in needed if need.startswith("rados")] == []


@pytest.mark.serial
def test_the_sdist_holds_what_the_tests_need(distributions):
    (sdist,) = distributions.glob("dosna-*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"pyproject.toml", "setup.cfg", "run_tests.sh", "venv.sh", "mkdocs.yml", "LICENSE"}
    for folder in ("dosna", "tests", "examples", "docs", "benchmarks", ".ci"):
        wanted |= python_files(folder)
    wanted |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert wanted - names == set()
    assert [name for name in names if "__pycache__" in name] == []


@pytest.mark.serial
def test_the_distributions_pass_the_check_of_the_package_index(distributions):
    files = [*distributions.glob("dosna-*.*")]
    assert len(files) == 2
    command = [sys.executable, "-m", "twine", "--no-color", "check", "--strict", *files]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


QUICKSTART = """
import importlib.util, pathlib, sys
import numpy as np
import dosna as dn
assert pathlib.Path(dn.__file__).is_relative_to(sys.prefix), dn.__file__
assert not importlib.util.find_spec("pytest")
pathlib.Path("data").mkdir()
for backend in ("ram", "hdf5"):
    dn.use(engine="cpu", backend=backend)
    with dn.Connection("data") as con:
        ds = con.create_dataset("entry/tomo", data=np.ones((20, 30), "f4"), chunk_size=(8, 8))
        ds[5:9, 12:] = 5
        print(ds.map(np.negative, "entry/other").sum(), sorted(con))
"""


@pytest.mark.serial
@pytest.mark.parametrize("pattern", ["dosna-*.whl", "dosna-*.tar.gz"])
def test_a_bare_environment_installs_and_runs(distributions, pattern, tmp_path):
    (file,) = distributions.glob(pattern)
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    lend(bare, "setuptools", *needed_by(distributions, "hdf5"))
    python = bare / "bin/python"
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    # In capitals, because the names of extras have no case.
    wanted = f"dosna[HDF5] @ {file.as_uri()}"
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--no-index"]
    command += ["--no-build-isolation", "--disable-pip-version-check", wanted]
    installed = subprocess.run(command, env=clean, capture_output=True, text=True)
    assert installed.returncode == 0, installed.stdout + installed.stderr
    assert "does not provide the extra" not in installed.stderr
    ran = subprocess.run(
        [python, "-c", QUICKSTART], cwd=tmp_path, env=clean, capture_output=True, text=True
    )
    assert ran.stdout.splitlines() == ["-888.0 ['entry/other', 'entry/tomo']"] * 2, ran.stderr
    shown = subprocess.run(
        [bare / "bin/dosna", "ls", "hdf5:data"],
        cwd=tmp_path,
        env=clean,
        capture_output=True,
        text=True,
    )
    assert re.findall("entry/[a-z]+", shown.stdout) == ["entry/other", "entry/tomo"], shown.stderr


def needed_by(distributions, extra):
    """Return the packages that the wheel needs with an extra."""
    (wheel,) = distributions.glob("dosna-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        needed = Parser().parsestr(archive.read(name).decode()).get_all("Requires-Dist")
    wanted = [need for need in needed if re.search(f"extra == .{extra}.$|^[^;]*$", need)]
    return [re.match(r"[\w.-]+", need)[0] for need in wanted]


def lend(environment, *packages):
    """Link packages of this environment, and nothing else of it, into another one."""
    (site,) = environment.glob("lib/python3*/site-packages")
    for package in packages:
        require(package)
        found = distribution(package)
        for name in {file.parts[0] for file in found.files if file.parts[0] not in ("..", ".")}:
            if not (site / name).exists():
                (site / name).symlink_to(found.locate_file(name))


def test_nothing_refers_to_the_machine_it_was_written_on():
    local = re.compile(r"(?<![\w.~*/-])/(?:home|root|work)/\w|\bissues? #?\d")
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path, text in text_files()
        for match in local.finditer(text)
    ]
    assert found == []


def test_files_that_git_knows_are_small_and_known_at_the_top():
    check = [sys.executable, ROOT / ".ci/check_files.py"]
    if (ROOT / ".git").exists():
        run = subprocess.run(check, capture_output=True, text=True)
        assert (run.returncode, run.stdout) == (0, "")
    run = subprocess.run([*check, "core.1234"], capture_output=True, text=True)
    assert run.returncode == 1
    assert "core.1234" in run.stdout


def test_relative_links_of_the_documents_lead_to_files_of_the_repository():
    broken = []
    for path, text in text_files():
        if path.suffix != ".md":
            continue
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            target = (path.parent / link).resolve()
            if "://" not in link and not (target.is_relative_to(ROOT) and target.exists()):
                broken.append(f"{path.relative_to(ROOT)}: {link}")
    assert broken == []


def test_missing_components_are_asked_for_in_the_one_way_that_can_insist():
    bare_skip = re.compile(r"\bpytest\.importorskip\(")
    found = [path.name for path in (ROOT / "tests").glob("*.py") if path.name != "support.py"]
    assert [name for name in found if bare_skip.search((ROOT / "tests" / name).read_text())] == []


@pytest.mark.parametrize(("insist", "outcome"), [("0", "1 skipped"), ("1", "1 failed")])
def test_a_missing_component_skips_or_fails_as_asked(tmp_path, insist, outcome):
    assert importlib.util.find_spec("no_such_package") is None
    (tmp_path / "test_it.py").write_text(
        "from support import require\ndef test_it():\n    require('no_such_package')\n"
    )
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rsf", tmp_path],
        env={
            **os.environ,
            "DOSNA_REQUIRE_ALL": insist,
            "PYTHONPATH": str(ROOT / "tests"),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },
        capture_output=True,
        text=True,
    )
    assert outcome in run.stdout
    assert "the package no_such_package is missing" in run.stdout
