"""Clusters of Dask for the tests of its engine."""

from __future__ import annotations

import time

import pytest
from services.dask import start_dask
from support import HANG

import dosna as dn


@pytest.fixture
def cluster(tmp_path):
    (tmp_path / "dask").mkdir()
    with start_dask(tmp_path / "dask") as started:
        yield started


@pytest.fixture
def connect(tmp_path):
    """Return a function that connects to a folder by the engine."""

    def connect(**engine_kw):
        (tmp_path / "data").mkdir(exist_ok=True)
        engine_kw = {"timeout": HANG, **engine_kw}
        return dn.Connection(
            str(tmp_path / "data"), backend="file", engine="dask", engine_kw=engine_kw
        )

    return connect


@pytest.fixture
def client(cluster):
    import distributed

    with distributed.Client(cluster.address, set_as_default=False) as opened:
        yield opened


@pytest.fixture
def slowly():
    """Return a function that travels by value: workers do not find the modules of tests."""

    def slowly(block):
        time.sleep(0.03)
        return block + 1

    return slowly
