"""The backend sage over a stand-in for Motr; sh run_tests.sh --backend sage … takes a real one."""

from __future__ import annotations

import secrets
from typing import ClassVar

import pytest
from motr_stand_in import Cluster, MotrStandIn
from support import require

import dosna as dn
from dosna.backends.sage import SageConnection
from dosna.backends.sage_store import SageStore
from dosna.registry import Backend, backends
from dosna.testing import BackendTests, StoreTests


class StandInConnection(SageConnection):
    """A connection to stand-ins of this process, by their name."""

    shared_between_processes = False
    clusters: ClassVar = {}

    def open_motr(self):
        return MotrStandIn(self.clusters.setdefault(self.conffile, Cluster()))


backends.register(Backend("sage-stand-in", StandInConnection, "a stand-in, for tests"))


class TestStore(StoreTests):
    @pytest.fixture
    def store(self):
        return SageStore(MotrStandIn(), "trial")


class TestSage(BackendTests):
    engine: ClassVar = ("cpu", {})
    examples = 5

    @pytest.fixture
    def make_connection(self):
        require("joblib")
        name, options = self.engine
        file = secrets.token_hex(8)
        return lambda: dn.Connection(
            "trial", backend="sage-stand-in", engine=name, engine_kw=options, conffile=file
        )


class TestSageThreads(TestSage):
    engine = ("joblib", {"njobs": 3})
