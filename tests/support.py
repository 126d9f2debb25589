"""What the tests share: components that a machine may lack, waiting for others, Ctrl-C."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest

HANG = 250
"""Seconds after which something that takes a few on a quiet machine hangs on any."""


def require(module: str) -> Any:
    """Import and return `module`, or skip the test (or the module that calls it) without it.

    With DOSNA_REQUIRE_ALL=1 a missing component is a failure: where everything was to be
    installed, a skip would hide that it was not.
    """
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        _absent(f"the package {module} is missing ({error})")
    # A folder of tests that is called as the package is taken for a part of it.
    if getattr(found, "__file__", None) is None:
        _absent(f"the package {module} is missing")
    return found


def open_files(folder: str | os.PathLike[str]) -> list[str]:
    """Return the files below a folder that this process has open; others' sockets do not count."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return [path for path in found if path.startswith(os.path.realpath(folder))]


def bytes_read() -> int:
    """Return how many bytes this thread has read so far, from files and elsewhere."""
    with open("/proc/thread-self/io") as file:
        return int(file.read().split("rchar:")[1].split()[0])


def validate_manifest(manifest: Any) -> None:
    """Validate an object of Kubernetes, and refuse fields that it does not have."""
    kubernetes_validate = require("kubernetes_validate")
    with warnings.catch_warnings():
        # Of how it finds its own schemas.
        warnings.simplefilter("ignore")
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def require_program(name: str) -> str:
    """Return the path of the program `name`, or skip (fail) as `require` does."""
    path = shutil.which(name)
    if path is None:
        _absent(f"the program {name} is missing")
    return path


def require_file(path: str) -> None:
    """Skip (fail) as `require` does without a file."""
    if not Path(path).exists():
        _absent(f"the file {path} is missing")


def _absent(reason: str) -> NoReturn:
    if os.environ.get("DOSNA_REQUIRE_ALL") == "1":
        pytest.fail(f"{reason}, and DOSNA_REQUIRE_ALL=1 asks for every component", pytrace=False)
    pytest.skip(reason, allow_module_level=True)


def mpiexec(ranks: int) -> list[str]:
    """Give the beginning of a command that starts so many ranks; needs mpi4py too."""
    require("mpi4py")
    beside = Path(sys.executable).parent / "mpiexec"
    return [str(beside) if beside.exists() else require_program("mpiexec"), "-n", str(ranks)]


def wait_until(true: Callable[[], object], seconds: float = HANG) -> None:
    """Wait until a condition holds, which is asked for again and again."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"it did not happen within {seconds} s"
        time.sleep(0.01)


class Gathering:
    """A block that nobody leaves before so many are in it at once.

    Attributes
    ----------
    most : int
        How many there have been at once.
    """

    def __init__(self, wanted: int) -> None:
        self.most = 0
        self._wanted = wanted
        self._inside = 0
        self._changed = threading.Condition()

    def __enter__(self) -> None:
        with self._changed:
            self._inside += 1
            self.most = max(self.most, self._inside)
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self.most >= self._wanted, HANG / 4)
        time.sleep(0.01)  # in which one too many would be seen

    def __exit__(self, *exc: object) -> None:
        with self._changed:
            self._inside -= 1


SHARED_MEMORY = Path("/dev/shm")


_LEFT = ("mpich_shm_*", "sem.mp-*", "sem.loky-*")
"""What is left of MPI ranks, and of Python's and joblib's processes if they are killed together
with the one that would clean up after them, as by a test that kills a whole session."""


def sweep_shared_memory(since: float, folder: Path = SHARED_MEMORY) -> list[str]:
    """Remove the shared memory that killed processes of tests left; return its names.

    It was made after `since` by this user, and no process has mapped it.
    """
    left = {}
    for path in (path for pattern in _LEFT for path in folder.glob(pattern)):
        with suppress(FileNotFoundError):
            found = path.stat()
            if found.st_uid == os.geteuid() and found.st_mtime >= since:
                left[path] = str(found.st_ino)
    mapped = _mapped_inodes(str(folder)) if left else set()
    swept = [path for path, inode in left.items() if inode not in mapped]
    for path in swept:
        path.unlink(missing_ok=True)
    return sorted(path.name for path in swept)


def _mapped_inodes(folder: str) -> set[str]:
    # Not the paths, which are those under which they were mapped, and perhaps renamed since.
    found = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        # Processes end meanwhile, and those of others are theirs.
        with suppress(OSError):
            lines = maps.read_text(errors="replace").splitlines()
            found |= {line.split()[4] for line in lines if folder in line}
    return found


@contextmanager
def taking_ctrl_c() -> Iterator[None]:
    """Let this process, and those that it starts meanwhile, take SIGINT as on a terminal.

    A shell's background, ``nohup`` in scripts and some CI runners start programs that ignore it,
    and so does what these start.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
