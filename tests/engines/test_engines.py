"""Engines: the conformance kit on each, and what is special to one."""

from __future__ import annotations

import pytest
from support import require

from dosna.testing import EngineTests


class TestCpu(EngineTests):
    @pytest.fixture
    def engine(self):
        return "cpu", {}


class TestThreads(EngineTests):
    @pytest.fixture
    def engine(self):
        require("joblib")
        return "joblib", {"njobs": 4}


class TestLoky(EngineTests):
    @pytest.fixture
    def engine(self):
        require("joblib")
        return "joblib", {"njobs": 4, "jlbackend": "loky"}


class TestMultiprocessing(EngineTests):
    @pytest.fixture
    def engine(self):
        require("joblib")
        return "joblib", {"njobs": 4, "jlbackend": "multiprocessing"}
