"""The conformance kit on ranks: run beside suite.py, on the same backend.

`lockstep` says how all ranks run one test. On one rank that is the engine mpi alone.
"""

from __future__ import annotations

import os
import secrets
import tempfile

import pytest
from conftest import PATIENCE, WORLD, shared
from kits import EngineMatters
from lockstep import NAME

import dosna as dn
from dosna.testing import EngineTests
from dosna.testing.arrays import ArrayTests
from dosna.testing.connections import ConnectionTests
from dosna.testing.names import NameTests
from dosna.testing.replacing import ReplacingTests
from dosna.testing.text import TextTests

ENGINE = (NAME, {"collective_timeout": PATIENCE})

# Of the kit's tests, those that several ranks do not run in lockstep; and what is in their place.
APART = {
    # suite.py has writers that are ranks.
    "test_threads_lose_nothing": "its threads would write what those of other ranks write",
    "test_threads_see_chunks_whole": "its threads would write what those of other ranks write",
    "test_processes_lose_nothing": "its processes would write what those of other ranks write",
    "test_one_of_many_creates": "ranks create together, and not in several threads",
    "test_attributes_set_by_many_are_all_kept": "ranks set them together, not in several threads",
    "test_threads_may_share_a_connection": "ranks map together, and not in several threads",
    "test_functions_may_use_datasets": "a function may read, but not make a collective call",
    # suite.py looks at what the other ranks get, and at what the root shows.
    "test_errors_of_functions_arrive": "other ranks do not know the test's own exceptions",
    "test_an_error_stops_the_rest": "other ranks learn of it when they have done their share",
    "test_progress": "the root alone shows progress",
    "test_progress_counts_to_the_end": "the root alone shows progress",
    "test_a_memory_limit_bounds_how_many_work": "each rank has the limit to itself",
    # tests/engines/test_mpi.py starts and ends several ranks.
    "test_ctrl_c_stops_within_a_second": "its script is of one rank",
    "test_a_forked_child_works_or_raises_at_once": "its script is of one rank",
    "test_a_script_ends_by_itself_and_says_nothing": "its script is of one rank",
}


@pytest.fixture(autouse=True)
def _apart(request):
    reason = APART.get(request.node.originalname)
    if reason and WORLD.size > 1:
        pytest.skip(reason)


@pytest.fixture(autouse=True)
def _processes_of_their_own(monkeypatch):
    """Let what a test starts be no rank of ours."""
    for variable in list(os.environ):
        if variable.startswith(("PMI_", "PMIX_", "OMPI_", "MPI_", "HYDRA_")):
            monkeypatch.delenv(variable)


class OnBackend:
    examples = 3
    thorough = False

    @pytest.fixture
    def make_connection(self, connect):
        return lambda: connect(engine=ENGINE[0], engine_kw=ENGINE[1])

    @pytest.fixture
    def other(self, folder):
        path = shared(lambda: tempfile.mkdtemp(dir=folder))
        return dn.Connection(path, backend="hdf5", engine=ENGINE[0], engine_kw=ENGINE[1])

    @pytest.fixture
    def name(self, make_connection):
        name = shared(lambda: f"test-{secrets.token_hex(6)}")
        yield name
        with make_connection() as con:
            for made in [n for n in con if n.startswith(name)]:
                con.del_dataset(made)


class TestWork(OnBackend, EngineMatters):
    """What a backend that passed the kit under another engine is tried with."""


class TestRest(OnBackend, ConnectionTests, NameTests, ReplacingTests, ArrayTests, TextTests):
    pass


@pytest.mark.skipif("config.option.backend", reason="has backends of its own")
class TestEngine(EngineTests):
    @pytest.fixture
    def engine(self):
        return ("mpi", ENGINE[1]) if WORLD.size == 1 else ENGINE

    @pytest.fixture
    def tmp_path(self, folder):
        return folder

    def seconds_of(self, call):
        return max(WORLD.allgather(super().seconds_of(call)))
