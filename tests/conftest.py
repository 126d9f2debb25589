"""Options, defaults and profiles of the test suite."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from services import Ceph, Hsds, Slurm, Sshd

ROOT = Path(__file__).resolve().parent.parent

# What `run_tests.sh --fast` collects, below tests/.
FAST = [
    "array/test_opening.py",
    "array/test_wrappers.py",
    "backends/hdf5/test_hdf5.py",
    "backends/http",
    "backends/ram",
    "backends/test_append.py",
    "backends/test_conformance.py",
    "backends/test_storedata.py",
    "backends/test_stores.py",
    "backends/zarr/test_folder_reads.py",
    "backends/zarr/test_folders.py",
    "backends/zarr/test_zarr.py",
    "codecs",
    "columns",
    "core",
    "delivery/transform/test_jobs.py",
    "engines/test_agreement.py",
    "engines/test_halo.py",
    "io",
    "pilot/data/test_arrays.py",
    "pilot/test_placement.py",
    "pyramid",
    "query/expressions",
    "serve/test_h5grove.py",
    "serve/test_histograms.py",
    "serve/test_lines.py",
    "serve/test_page.py",
    "serve/test_served.py",
    "serve/test_served_zarr.py",
    "sources/test_sources.py",
    "web",
]
# A test with one of these markers or fixtures is not among them.
NOT_FAST = {"fault", "serial", "slow"}
# Of the conformance kit, which has no markers: it starts other processes.
SLOW_IN_KIT = {"test_processes_lose_nothing"}
SERVICES = {
    "ceph",
    "ceph_class",
    "classed",
    "gateway",
    "postgres_server",
    "secured",
    "start_cluster",
    "start_hsds",
    "start_slurm",
    "start_sshd",
}

# Subprocesses of tests import this tree, installed or not.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
)

# Ranks of MPICH that wait for others give their core away: tests start more ranks than cores.
os.environ.setdefault("MPIR_CVAR_ENABLE_HEAVY_YIELD", "1")

# Local clusters are kept until the process ends. Their idle processes look at themselves a hundred
# times a second, which takes 3 % of a processor each, and some tests leave a dozen behind.
os.environ |= {
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "false",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "5s",
    "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "500ms",
}

# Each run tries the same cases, so that only what was changed can make it fail. Others are tried
# with `--hypothesis-profile=random`. Constants of modules that happen to be loaded are no cases.
if providers := sys.modules.get("hypothesis.internal.conjecture.providers"):
    vars(providers)["is_local_module_file"] = lambda path: False
busy = [hypothesis.HealthCheck.too_slow]
hypothesis.settings.register_profile("random", deadline=None, suppress_health_check=busy)
hypothesis.settings.register_profile(
    "dosna",
    hypothesis.settings.get_profile("random"),
    derandomize=True,
    database=None,
    print_blob=True,
)
hypothesis.settings.load_profile("dosna")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", action="store_true", help="also run the slow tests of faults")
    parser.addoption(
        "--lane",
        choices=["fast", "rest"],
        help="only the tests of run_tests.sh --fast, or only all others",
    )
    group = parser.getgroup("dosna", "a backend of your own (tests/test_backend_runner.py)")
    group.addoption("--backend", help="name of the backend to test")
    group.addoption("--engine", help="name of the engine to test it under")
    group.addoption("--connection", help="name of the connection to test on")
    for of in ("connection", "engine"):
        group.addoption(
            f"--{of}-options",
            action="extend",
            nargs="+",
            default=[],
            metavar="KEY=VALUE",
            help=f"parameters of the {of}, each of the type the parameter declares",
        )


BEGUN = time.time()


def pytest_unconfigure(config: pytest.Config) -> None:
    # By the process that began first and ends last, not by the workers of pytest-xdist.
    if not hasattr(config, "workerinput"):
        from support import sweep_shared_memory

        sweep_shared_memory(BEGUN)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if config.getoption("--lane") == "fast" and collection_path.is_file():
        return not _may_be_fast(collection_path) or None
    return None


@cache  # thousands of tests are in a few hundred files
def _may_be_fast(path: Path) -> bool:
    return any(path.is_relative_to(ROOT / "tests" / name) for name in FAST)


def _is_fast(item: pytest.Item) -> bool:
    markers = {marker.name for marker in item.iter_markers()}
    if getattr(item, "originalname", None) in SLOW_IN_KIT:
        return False
    fixtures = getattr(item, "fixturenames", ())
    return (
        _may_be_fast(item.path) and NOT_FAST.isdisjoint(markers) and SERVICES.isdisjoint(fixtures)
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    lane = config.getoption("--lane")
    if lane is not None:
        chosen, others = [], []
        for item in items:
            (chosen if _is_fast(item) == (lane == "fast") else others).append(item)
        config.hook.pytest_deselected(items=others)
        items[:] = chosen
    if not config.getoption("--faults"):
        for item in items:
            if item.get_closest_marker("fault"):
                item.add_marker(pytest.mark.skip(reason="a slow test of a fault: use --faults"))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    # What is imported and collected is there to the end. To look through it for garbage again and
    # again took a seventh of the processor's time of --fast, and more during the collection.
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        # Hypothesis 6.100 warns unless it finds who else refers to NumPy's random numbers. It
        # looks when it first runs something, and would not find what is frozen.
        hypothesis.find(hypothesis.strategies.none(), lambda _: True)
        gc.freeze()


# What runs services is imported where it is needed: most tests need none.


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of 8 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root may mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="session")
def gateway() -> Iterator[Ceph]:
    """Give a small Ceph cluster with an S3 gateway, whose keys are in the environment."""
    from services import aws_environment, start_ceph
    from support import require_program

    for program in ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin"):
        require_program(program)
    with start_ceph("--gateway") as ceph, aws_environment(ceph.access_key, ceph.secret_key):
        yield ceph


@pytest.fixture(scope="session")
def start_cluster() -> Callable[..., AbstractContextManager[Ceph]]:
    """Give a function that starts a Ceph cluster of three OSDs, with pools of three copies."""
    from services import start_ceph
    from support import require, require_program

    require("rados")
    for program in ("ceph-mon", "ceph-osd"):
        require_program(program)
    pools = [f"--pool={pool}" for pool in ("kit", "store", "faults")]
    return partial(start_ceph, "--osds=3", "--size=3", *pools)


@pytest.fixture(scope="session")
def ceph(start_cluster: Callable[..., AbstractContextManager[Ceph]]) -> Iterator[Ceph]:
    """Give such a cluster, without authentication."""
    with start_cluster() as ceph:
        yield ceph


@pytest.fixture(scope="session")
def secured(start_cluster: Callable[..., AbstractContextManager[Ceph]]) -> Iterator[Ceph]:
    """Give one with cephx, where client.dosna may use two pools and client.reader read."""
    with start_cluster("--auth=cephx") as ceph:
        from services.admin import add_clients

        pools = "allow rw pool=kit, allow rw pool=store"
        add_clients(ceph, {"dosna": pools, "reader": "allow r pool=kit"})
        yield ceph


@pytest.fixture(scope="session")
def ceph_class(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with the compiled object class, and no other."""
    from support import require_file, require_program

    require_program("g++")
    for header in ("objclass.h", "buffer.h"):
        require_file(f"/usr/include/rados/{header}")
    folder = tmp_path_factory.getbasetemp()
    # Workers of pytest-xdist share it.
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "ceph-classes"
    if not (folder / "libcls_dosna.so").exists():
        command = [sys.executable, "-m", "dosna.query.ceph_class", "build", "--to", str(folder)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture(scope="session")
def classed(
    start_cluster: Callable[..., AbstractContextManager[Ceph]], ceph_class: Path
) -> Iterator[Ceph]:
    """Give a cluster as `ceph` is, whose OSDs have the object class."""
    with start_cluster(f"--classes={ceph_class}") as ceph:
        yield ceph


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """Give the URL of the database ``postgres`` of a PostgreSQL server."""
    from services.postgres import find_program, start_postgres
    from support import require, require_program

    require("psycopg")
    for program in ("initdb", "postgres", "pg_isready"):
        if find_program(program) is None:
            require_program(program)
    with start_postgres() as url:
        yield url


@pytest.fixture
def postgres(postgres_server: str) -> str:
    """Give the URL of an empty database of a PostgreSQL server."""
    import secrets

    import psycopg

    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(postgres_server, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
    return postgres_server.replace("/postgres?", f"/{name}?")


@pytest.fixture(scope="session")
def start_hsds() -> Callable[..., AbstractContextManager[Hsds]]:
    """Give a function that starts an HSDS server of one's own."""
    from services import hsds_program, start_hsds
    from support import require, require_program

    require("h5pyd")
    if hsds_program() is None:
        require_program("hsds")
    return start_hsds


@pytest.fixture(scope="session")
def hsds(start_hsds: Callable[..., AbstractContextManager[Hsds]]) -> Iterator[Hsds]:
    """Give an HSDS server, where the environment leads as the user test."""
    from services import hsds_environment

    with start_hsds() as hsds, hsds_environment(hsds):
        yield hsds


@pytest.fixture(scope="session")
def start_sshd() -> Callable[..., AbstractContextManager[Sshd]]:
    """Give a function that starts an SSH server of one's own, on an address of loopback."""
    from services import sshd_program, start_sshd
    from support import require_program

    require_program("ssh")
    if sshd_program() is None:
        require_program("sshd")
    return start_sshd


@pytest.fixture(scope="session")
def sshd(start_sshd: Callable[..., AbstractContextManager[Sshd]]) -> Iterator[Sshd]:
    """Give an SSH server."""
    with start_sshd() as sshd:
        yield sshd


@pytest.fixture(scope="session")
def start_slurm() -> Callable[[], AbstractContextManager[Slurm]]:
    """Give a function that starts a Slurm of one's own."""
    from services import slurm_programs, start_slurm
    from support import require_program

    for program, path in slurm_programs().items():
        if path is None:
            require_program(program)
    return start_slurm


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """Give the URL of a mock of S3 in this process, which takes any keys."""
    from services.moto import start_moto
    from support import require

    require("moto.server")
    with start_moto() as url:
        yield url


@pytest.fixture
def free_port() -> Iterator[int]:
    """Give a port at which nobody listens, and that no other test chooses meanwhile."""
    from services.ports import take_ports

    (port,), (claim,) = take_ports(1)
    with claim:
        yield port


@pytest.fixture
def _any_keys() -> Iterator[None]:
    from services import aws_environment

    with aws_environment("an-access-key", "a-secret-key"):
        yield


@pytest.fixture(autouse=True)
def _own_memory() -> Iterator[None]:
    """Forget what a test put into connections of ram, which live as long as the process."""
    ram = sys.modules.get("dosna.backends.ram.connection")
    before = set(ram._stores) if ram is not None else set()
    yield
    ram = sys.modules.get("dosna.backends.ram.connection")
    if ram is not None:
        for name in set(ram._stores) - before:
            del ram._stores[name]


@pytest.fixture(autouse=True)
def _default_engine_and_backend() -> Iterator[None]:
    yield
    use = getattr(sys.modules.get("dosna"), "use", None)
    if use is not None:
        use(engine="cpu", backend="ram", engine_kw={})
