"""Engines: the conformance kit on each, and what is special to one."""

from __future__ import annotations

import os
import threading

import pytest
from support import require

from dosna import errors
from dosna.engines.base import pack_error, unpack_error
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


class Environment:
    """Work that tells what its process finds in the environment."""

    def __call__(self, tasks):
        return [os.environ.get(task) for task in tasks]


@pytest.mark.parametrize("jlbackend", ["loky", "multiprocessing"])
def test_processes_that_run_already_get_the_environment_of_the_caller(monkeypatch, jlbackend):
    require("joblib")
    from dosna.engines.joblib import JoblibRunner

    runner = JoblibRunner(njobs=1, jlbackend=jlbackend)
    names = ["DOSNA_TEST_ADDRESS", "DOSNA_TEST_KEY"]

    def seen():
        return [value for batch in runner.spread(Environment(), names) for value in batch]

    monkeypatch.delenv(names[0], raising=False)
    monkeypatch.setenv(names[1], "old")
    assert seen() == [None, "old"]
    monkeypatch.setenv(names[0], "here")
    monkeypatch.delenv(names[1])
    assert seen() == ["here", None]
    assert os.environ[names[0]] == "here"


class Mute(Exception):
    """Fails to tell its text."""

    def __str__(self):
        raise ValueError("no text")


def test_an_error_that_fails_to_tell_its_text_is_sent():
    assert type(unpack_error(pack_error(Mute()))) is Mute
    odd = KeyError("a")
    odd.__notes__ = 3
    assert unpack_error(pack_error(odd)).args == ("a",)
    here = type("Here", (Mute,), {"lock": threading.Lock()})  # which cannot be pickled at all
    found = unpack_error(pack_error(here()))
    assert type(found) is errors.WorkerError
    assert "Here: (its text is not known: ValueError)" in str(found)


@pytest.mark.parametrize("name", sorted(errors.__all__))
def test_errors_are_made_again_in_the_way_of_tblib(name):
    """Distributed registers tblib's way to pickle exceptions for the whole process."""
    kind = getattr(errors, name)
    assert type(kind.__new__(kind, "a")) is kind
