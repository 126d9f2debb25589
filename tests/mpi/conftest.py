"""Every rank runs the same tests in lockstep, and all learn how each of them ended."""

from __future__ import annotations

import inspect
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
import pytest
from mpi4py import MPI

import dosna as dn
from dosna.backends import registry as backends
from dosna.core.options import parse_options

WORLD = MPI.COMM_WORLD.Dup()
PATIENCE = 200.0
"""Seconds after which a rank that waits in a collective call ends all."""

# All ranks try the same cases.
busy = [hypothesis.HealthCheck.too_slow]
hypothesis.settings.register_profile(
    "mpi", deadline=None, derandomize=True, database=None, suppress_health_check=busy
)
hypothesis.settings.load_profile("mpi")


@pytest.fixture(autouse=True)
def engine():
    dn.use(engine="mpi", engine_kw={"collective_timeout": PATIENCE})
    assert dn.status().engine.name == "mpi"
    yield
    WORLD.Barrier()


def shared(make):
    """Let the root make something; all get it."""
    return WORLD.bcast(make() if WORLD.rank == 0 else None)


@pytest.fixture(scope="session")
def scratch():
    """Give a folder that all ranks see."""
    path = shared(lambda: tempfile.mkdtemp(prefix="dosna-mpi-"))
    yield Path(path)
    WORLD.Barrier()
    if WORLD.rank == 0:
        shutil.rmtree(path)


@pytest.fixture
def folder(scratch):
    """Give an empty folder of this test alone, which all ranks see."""
    return Path(shared(lambda: tempfile.mkdtemp(dir=scratch)))


@pytest.fixture
def connect(request, folder):
    """Give a callable that makes a connection to the store under test."""
    option = request.config.getoption
    name = option("--backend")
    if name is None:
        return lambda **kw: dn.Connection(str(folder), backend="hdf5", **kw)
    made = inspect.signature(backends.get(name).connection)
    options = parse_options(made, option("--connection-options"))
    where = option("--connection") or f"dosna-mpi-{shared(lambda: secrets.token_hex(4))}"
    return lambda **kw: dn.Connection(where, backend=name, **options, **kw)


@pytest.fixture
def name(connect):
    """Give a dataset name of this test alone; those that begin with it are deleted after it."""
    name = shared(lambda: f"test-{secrets.token_hex(6)}")
    yield name
    with connect() as con:
        for made in shared(lambda: [n for n in con if n.startswith(name)]):
            con.del_dataset(made)


@pytest.fixture
def con(connect):
    with connect() as con:
        yield con


def pytest_configure(config: pytest.Config) -> None:
    # pytest's own folders are for processes that clean up after each other, at the same time.
    if config.option.basetemp is None:
        config.option.basetemp = tempfile.mkdtemp(prefix="dosna-rank-")
        config.add_cleanup(lambda: shutil.rmtree(config.option.basetemp, ignore_errors=True))
    config.addinivalue_line("markers", "several: one rank alone cannot do it")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if WORLD.size == 1:
        items[:] = [item for item in items if item.get_closest_marker("several") is None]


class Ended(NamedTuple):
    """How a step of a test ended on some rank."""

    step: tuple[str, str]
    text: str | None


def together(value: Any = None) -> list[Any]:
    """Exchange something, and fail where some rank has ended the test already."""
    found = WORLD.allgather(value)
    ended = {rank: it for rank, it in enumerate(found) if isinstance(it, Ended)}
    if ended:
        pytest.fail(f"the test has ended on ranks {list(ended)}", pytrace=False)
    return found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Any:
    """Fail everywhere what failed on one rank, so that all go on with the same test."""
    report = yield
    ended = Ended((item.nodeid, report.when), f"{report.longrepr}" if report.failed else None)
    found = WORLD.allgather(ended)
    while not all(isinstance(it, Ended) for it in found):
        found = WORLD.allgather(ended)  # Some rank has only just learnt of it, in `together`.
    assert len({it.step for it in found}) == 1, found
    failed = {rank: it.text for rank, it in enumerate(found) if it.text is not None}
    if failed:
        report.outcome = "failed"
        report.longrepr = "\n".join(f"on rank {rank}:\n{text}" for rank, text in failed.items())
    return report


def pytest_unconfigure() -> None:
    # The first rank to end with an error would end the others before they have reported.
    WORLD.Barrier()
