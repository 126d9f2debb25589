"""What the tests share: components that a test needs and a machine may lack."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest


def require(module: str) -> Any:
    """Import and return `module`, or skip the test (or the module that calls it) without it.

    With DOSNA_REQUIRE_ALL=1 a missing component is a failure: where everything was to be
    installed, a skip would hide that it was not.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        _absent(f"the package {module} is missing ({error})")


def require_program(name: str) -> str:
    """Return the path of the program `name`, or skip (fail) as `require` does."""
    path = shutil.which(name)
    if path is None:
        _absent(f"the program {name} is missing")
    return path


def _absent(reason: str) -> NoReturn:
    if os.environ.get("DOSNA_REQUIRE_ALL") == "1":
        pytest.fail(f"{reason}, and DOSNA_REQUIRE_ALL=1 asks for every component", pytrace=False)
    pytest.skip(reason, allow_module_level=True)


def mpiexec(ranks: int) -> list[str]:
    """Give the beginning of a command that starts so many ranks; needs mpi4py too."""
    require("mpi4py")
    beside = Path(sys.executable).parent / "mpiexec"
    return [str(beside) if beside.exists() else require_program("mpiexec"), "-n", str(ranks)]
