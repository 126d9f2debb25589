"""The conformance kit on a store of one's own, see ``sh run_tests.sh --help``.

Without ``--backend`` it runs on ram, which keeps the way from options to tests tested.
"""

from __future__ import annotations

import inspect

import pytest

import dosna as dn
from dosna.core.options import parse_options
from dosna.testing import BackendTests


class TestBackend(BackendTests):
    @pytest.fixture
    def make_connection(self, pytestconfig):
        option = pytestconfig.getoption
        backend = option("--backend") or "ram"
        engine = option("--engine") or "cpu"
        connection = dn.backends.registry.get(backend).connection
        runner = dn.engines.registry.get(engine).runner
        options = parse_options(inspect.signature(connection), option("--connection-options"))
        engine_kw = parse_options(inspect.signature(runner), option("--engine-options"))
        name = option("--connection") or "dosna-tests"
        return lambda: dn.Connection(
            name, backend=backend, engine=engine, engine_kw=engine_kw, **options
        )
