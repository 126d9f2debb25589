"""The floors of the package: old paths lead to the modules of today, verbs to the rooms above."""

from __future__ import annotations

import importlib
import subprocess
import sys

import numpy as np
import pytest

import dosna as dn
from dosna import _moved
from dosna.array import verbs
from dosna.errors import ConfigurationError


@pytest.mark.parametrize("old", _moved.MOVED)
def test_old_paths_lead_to_the_modules_of_today(old):
    new = _moved.MOVED[old]
    try:
        module = importlib.import_module(new)
    except ImportError as error:
        pytest.skip(f"{new} needs {error.name}")
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{old} is now {new}"):
        found = importlib.import_module(old)
    assert found is module
    assert module.__spec__.name == module.__name__ == new


@pytest.mark.parametrize("name", ["Backend", "Engine", "Claims", "SourceKind"])
def test_the_registry_still_has_its_old_names(name):
    from dosna import registry

    with pytest.warns(DeprecationWarning, match=name):
        assert getattr(registry, name).__name__ == name
    for kind in ("backends", "engines", "sources"):
        with pytest.warns(DeprecationWarning, match=kind):
            assert getattr(registry, kind) is importlib.import_module(f"dosna.{kind}").registry


def test_a_module_that_never_was_is_not_found():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("dosna.zarr4")


def test_old_modules_run_as_programs():
    command = [sys.executable, "-W", "ignore", "-m", "dosna.support.motr", "--help"]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout.startswith("usage:")) == (0, True)


def test_a_verb_of_another_package():
    def count(con, group="", *, more=0):
        return len(con.names_in(group)) + more

    verbs.registry.register(count, "count")
    try:
        with dn.Connection("verbs", backend="ram") as con:
            con.create_dataset("a/x", data=np.zeros(3))
            con.create_dataset("b", data=np.zeros(3))
            assert con.verb("count")() == 2
            assert con.verb("COUNT")("a", more=5) == 6
            with pytest.raises(ConfigurationError, match=r"count.*export.*ingest"):
                con.verb("cuont")
    finally:
        del verbs.registry.loaded["count"]


def test_importing_dosna_warns_of_nothing():
    command = [sys.executable, "-W", "error", "-c", "import dosna; dosna.backends.AVAILABLE"]
    subprocess.run(command, check=True)
