"""The environment of func_adl, which needs another release of Dask than this one.

``python -m dosna.delivery.transform.environment [FOLDER]`` creates it.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import venv

from dosna.errors import ConfigurationError, MissingDependencyError

__all__ = ["VARIABLE", "default_folder", "func_adl_python", "make_environment"]

VARIABLE = "DOSNA_FUNC_ADL"
"""The environment variable that names the environment, or the interpreter, of func_adl."""

_PACKAGES = (
    "crc32c>=2.7",
    "func_adl_uproot>=2.2,<3",
    "h5py>=3.11,<4",
    "numpy>=2.3.2",
    "pyarrow>=18",
)


def default_folder() -> str:
    """Return the default folder of the environment."""
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.path.join(data, "dosna", "func_adl")


def func_adl_python(given: str | None = None) -> str:
    """Return the interpreter with func_adl_uproot.

    Parameters
    ----------
    given : str, optional
        The interpreter, or the folder of its environment; by default what the environment variable
        ``DOSNA_FUNC_ADL`` names, or the environment in `default_folder`, or this interpreter.

    Raises
    ------
    ConfigurationError
        The given interpreter or environment does not exist.
    MissingDependencyError
        There is none.
    """
    named = given or os.environ.get(VARIABLE)
    if named:
        python = named if not os.path.isdir(named) else os.path.join(named, "bin", "python")
        if not os.access(python, os.X_OK):
            raise ConfigurationError(
                f"{python} is not an interpreter of Python: name one that has func_adl_uproot, or "
                f"unset {VARIABLE}"
            )
        return python
    python = os.path.join(default_folder(), "bin", "python")
    if os.access(python, os.X_OK):
        return python
    if importlib.util.find_spec("func_adl_uproot") is not None:
        return sys.executable
    raise MissingDependencyError(
        "func_adl selections need an environment of their own, which does not exist: create it "
        f"with python -m {__spec__.name}, or set {VARIABLE} to another one"
    )


def make_environment(folder: str | None = None) -> str:
    """Create an environment with func_adl, and return its interpreter.

    Parameters
    ----------
    folder : str, optional
        The folder, by default `default_folder`. An existing environment is updated.

    Raises
    ------
    MissingDependencyError
        The packages could not be installed.
    """
    folder = folder or default_folder()
    venv.create(folder, with_pip=True, symlinks=True)
    python = os.path.join(folder, "bin", "python")
    command = [python, "-m", "pip", "install", "--quiet", "--upgrade", *_PACKAGES]
    try:
        subprocess.run(command, check=True)
    except subprocess.CalledProcessError as error:
        raise MissingDependencyError(
            f"func_adl could not be installed into {folder} (pip ended with {error.returncode}): "
            "see above"
        ) from error
    return python


if __name__ == "__main__":
    print(make_environment(sys.argv[1] if len(sys.argv) > 1 else None))
