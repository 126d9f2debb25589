"""The docstrings of the public API: complete, as numpydoc checks them, and true, as they run.

The public API is what docs/api/index.md lists, without what its filters leave out. The rules
are those of `[tool.numpydoc_validation]` in pyproject.toml.
"""

from __future__ import annotations

import doctest
import inspect
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from support import require

import dosna as dn

ROOT = Path(__file__).resolve().parents[2]
CHECKS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["numpydoc_validation"][
    "checks"
]


def public():
    """Yield the names of the API: functions and classes, and the members of these."""
    page = (ROOT / "docs/api/index.md").read_text(encoding="utf-8")
    for name, options in re.findall(r"^::: (dosna\.\w+)\n((?: .*\n)*)", page, re.M):
        yield name
        found = getattr(dn, name.partition(".")[2])
        hidden = [p[1:] for p in re.findall(r'"(![^"]+)"', options)] or ["^_"]
        for member in dir(found) if inspect.isclass(found) else ():
            if not any(re.search(pattern, member) for pattern in hidden):
                yield f"{name}.{member}"


def found_of(name):
    found = dn
    for part in name.split(".")[1:]:
        found = getattr(found, part)
    return found


NAMES = list(public())


def test_the_api_is_found():
    for name in ("dosna.use", "dosna.Connection.ingest", "dosna.Dataset.map"):
        assert name in NAMES
    assert "dosna.Dataset.spread" not in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_docstrings_are_complete(name):
    require("numpydoc")
    from numpydoc.validate import validate

    found = found_of(name)
    if not callable(found) and not isinstance(found, property):
        pytest.skip("a constant")
    errors = validate(name)["errors"]
    wanted = CHECKS if callable(found) else [code for code in CHECKS if code != "EX01"]
    assert not [error for error in errors if error[0] in wanted]


def examples(name):
    found = found_of(name)
    source = inspect.getdoc(found)
    return doctest.DocTestParser().get_doctest(source or "", {}, name, None, 0)


@pytest.mark.parametrize("name", [name for name in NAMES if examples(name).examples])
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"dn": dn, "np": np}
    owner = name.rpartition(".")[0]
    # The examples of methods use what that of the class has made.
    for of in (name,) if owner == "dosna" else (owner, name):
        test = examples(of)
        test.globs = names
        printed = []
        doctest.DocTestRunner().run(test, printed.append, clear_globs=False)
        assert not printed, "".join(printed)
        names = test.globs
