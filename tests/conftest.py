"""Options, defaults and profiles of the test suite."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent

# Subprocesses of tests import this tree, installed or not.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
)

hypothesis.settings.register_profile("dosna", deadline=None)
hypothesis.settings.register_profile(
    "ci",
    deadline=None,
    max_examples=300,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dosna")


def pytest_addoption(parser: pytest.Parser) -> None:
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


@pytest.fixture(autouse=True)
def _default_engine_and_backend() -> Iterator[None]:
    yield
    use = getattr(sys.modules.get("dosna"), "use", None)
    if use is not None:
        use(engine="cpu", backend="ram", engine_kw={})
