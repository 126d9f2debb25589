"""The service's side of confined processes."""

from __future__ import annotations

import atexit
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import dosna
from dosna import errors
from dosna.core.sizes import format_size
from dosna.errors import DosnaError, LimitError, MissingDependencyError, WorkerError
from dosna.io.fork import renew_in_children

__all__ = [
    "FUNC_ADL_LIBRARIES",
    "ForkServer",
    "check_wanted",
    "drop_jobs",
    "permit_jobs",
    "server_of",
]

_PACKAGE = "dosna.delivery.transform."
_LIBRARIES = (
    _PACKAGE + "trees",
    _PACKAGE + "tablewriting",
    _PACKAGE + "rootwriting",
    "?" + _PACKAGE + "hdf5writing",
    "?" + _PACKAGE + "stored",
)
FUNC_ADL_LIBRARIES = ("func_adl_uproot", "vector", _PACKAGE + "code", *_LIBRARIES)
"""The modules imported before processes are forked; those with a question mark may be missing."""

_ANSWER = 1 << 20
"""The most bytes of an answer."""

# Imports only dosna itself, from its folder: the interpreter may belong to another environment,
# which must not see all packages of this one.
_START = """
import importlib.util, os, sys
root, number, names = sys.argv[1:]
spec = importlib.util.spec_from_file_location(
    "dosna", os.path.join(root, "__init__.py"), submodule_search_locations=[root]
)
sys.modules["dosna"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
from dosna.delivery.transform.forkserver import main
main(int(number), names.split(","))
"""

# One thread for each file, because the service transforms several at a time. The other memory
# pools of pyarrow reserve gigabytes at once, which count against the memory limit. All memory of a
# process is new, and huge pages halve the time to get it.
_ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "PATH": "/usr/bin:/bin",
    "HOME": "/nonexistent",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


class ForkServer:
    """A server of confined processes, which is started on demand.

    Parameters
    ----------
    python : str
        The interpreter.
    modules : tuple of str
        The modules that the server imports first.
    """

    def __init__(self, python: str, modules: tuple[str, ...] = _LIBRARIES) -> None:
        self._python, self._modules = python, modules
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._jobs: dict[str, socket.socket] = {}
        renew_in_children(self)

    def renew(self) -> None:
        """Leave the server to the parent after a fork."""
        self._lock = threading.Lock()
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.returncode = 0  # it is not a child of this process
        self._control = self._process = None
        self._jobs = {}

    def drop(self, beginning: str) -> None:
        """End the jobs whose scratch folders have a beginning; they fail with a WorkerError."""
        for scratch, connection in list(self._jobs.items()):
            if scratch.startswith(beginning):
                with suppress(OSError):  # it has ended
                    # The server kills processes whose answers are no longer waited for.
                    connection.shutdown(socket.SHUT_RDWR)

    def run(self, job: Mapping[str, Any], log: int) -> int:
        """Run a job in a process of its own, and return the number of entries.

        Parameters
        ----------
        job : mapping
            The job, as `dosna.delivery.transform.child.serve_job` reads it.
        log : int
            The file descriptor for the output of the selection.

        Raises
        ------
        DosnaError
            The error of the job; LimitError if it exceeded a limit, WorkerError if it died.
        """
        limits = job["limits"]
        about = {
            "scratch": job["scratch"], "seconds": limits["seconds"], "disk": limits["disk"],
        }  # fmt: skip
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                self._send(json.dumps(about).encode(), [theirs.fileno(), log])
            with suppress(OSError):  # if it died at once, its end says so
                ours.sendall(json.dumps(job).encode() + b"\n")
            self._jobs[job["scratch"]] = ours
            try:
                # The job may have been dropped before it could be found.
                for beginning in list(_dropped):
                    self.drop(beginning)
                answers = list(_answers(ours))
            finally:
                self._jobs.pop(job["scratch"], None)
        return _result(answers, job)

    def _send(self, text: bytes, handles: list[int]) -> None:
        for last in (False, True):
            control = self._started()
            try:
                socket.send_fds(control, [text], handles)
                return
            except OSError as error:
                self._leave(control)
                if last:
                    raise WorkerError(f"the server of processes has ended: {error}") from error

    def _started(self) -> socket.socket:
        with self._lock:
            if self._control is None:
                self._control, self._process = self._start()
            return self._control

    def _start(self) -> tuple[socket.socket, subprocess.Popen[bytes]]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        root = os.path.dirname(os.path.abspath(dosna.__file__))
        with theirs, tempfile.TemporaryFile() as output:
            number = theirs.fileno()
            command = [self._python, "-I", "-c", _START, root, str(number)]
            try:
                process = subprocess.Popen(
                    [*command, ",".join(self._modules)],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd="/",
                    env=_ENVIRONMENT,
                    pass_fds=(number,),
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                raise WorkerError(f"{self._python} cannot be started: {error}") from error
            theirs.close()
            said: dict[str, Any] = {}
            with suppress(ConnectionError):
                said = json.loads(ours.recv(1 << 16) or b"{}")
            if "ready" not in said:
                ours.close()
                if process.wait() < 0:
                    raise WorkerError("the server of processes was killed when it started")
                output.seek(0)
                text = said.get("failed") or output.read().decode(errors="replace")[-1000:].strip()
                raise MissingDependencyError(
                    f"{self._python} cannot run selections: {text or 'it ended at once'}. "
                    "Install what it lacks: pip install 'dosna[delivery]'"
                )
        return ours, process

    def stop(self) -> None:
        """End the server and all of its processes."""
        self._leave(self._control)

    def _leave(self, control: socket.socket | None) -> None:
        """End the server behind a socket, unless another thread has done so."""
        with self._lock:
            if control is None or self._control is not control:
                return
            process, self._control, self._process = self._process, None, None
        control.close()
        if process is not None:
            process.wait()


def _answers(connection: socket.socket) -> Iterator[dict[str, Any]]:
    """Read the answers to a job, until its process and the server have closed the socket."""
    held = bytearray()
    # A server that was killed resets the connection.
    with suppress(ConnectionError):
        while more := connection.recv(1 << 16):
            # Longer answers are discarded, so that the process never waits for a full buffer.
            held += more
            if len(held) > _ANSWER:
                del held[: -_ANSWER // 2]
    for line in bytes(held).splitlines():
        with suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict):
                yield found


def _result(answers: list[dict[str, Any]], job: Mapping[str, Any]) -> int:
    """Return the number of entries, or raise the error in the answers, which are not trusted."""
    shown, limits = job["shown"], job["limits"]
    limited = {
        "time": f"the limit of {limits['seconds']:g} seconds: select less, or split the file",
        "memory": f"the limit of {format_size(limits['memory'])} of memory: select fewer columns",
        "disk": f"the limit of {format_size(limits['disk'])} of files: select less",
    }
    ended = next((one["ended"] for one in reversed(answers) if "ended" in one), None)
    code, reason = (ended["code"], ended["reason"]) if ended else (None, "")
    answer = answers[0] if answers else {}
    rows, error = answer.get("rows"), answer.get("error")
    if not reason and code == 0 and isinstance(rows, int) and 0 <= rows < 1 << 63:
        return rows
    kind, text = error if isinstance(error, list) and len(error) == 2 else ("", "")
    if kind == "LimitError" and not reason:
        reason = text
    if reason in limited:
        raise LimitError(f"the selection on {shown} exceeded {limited[reason]}")
    if kind:
        made = getattr(errors, str(kind), None) if kind in errors.__all__ else None
        passing = (errors.StorageError, errors.ConnectionError)
        # An error that is tried again for long does not depend on the selection that raised it.
        if not (isinstance(made, type) and issubclass(made, DosnaError)) or issubclass(
            made, passing
        ):
            made = WorkerError
        raise made(str(text))
    how = "was ended with its server" if code is None else f"ended with code {code}"
    if code is not None and code < 0:
        how = f"died by signal {-code}"
    raise WorkerError(
        f"the process of the selection on {shown} {how}: it may have needed more than "
        f"{format_size(limits['memory'])} of memory, or made a call that is not permitted"
    )


_servers: dict[tuple[str, tuple[str, ...]], ForkServer] = {}
_dropped: set[str] = set()
_lock = threading.Lock()


def server_of(python: str = sys.executable, modules: tuple[str, ...] = _LIBRARIES) -> ForkServer:
    """Return this process's server for an interpreter.

    Parameters
    ----------
    python : str
        The interpreter.
    modules : tuple of str
        The modules that the server imports first.
    """
    with _lock:
        return _servers.setdefault((python, modules), ForkServer(python, modules))


def drop_jobs(beginning: str) -> None:
    """End this process's jobs whose scratch folders have a beginning, including later ones.

    Parameters
    ----------
    beginning : str
        The beginning of their paths.
    """
    _dropped.add(beginning)
    for server in list(_servers.values()):
        server.drop(beginning)


def check_wanted(scratch: str) -> None:
    """Raise if `drop_jobs` has ended the job with a folder: what it does itself must end, too.

    Parameters
    ----------
    scratch : str
        A path in the folder of the job.

    Raises
    ------
    WorkerError
        The request of the job was deleted.
    """
    if any(scratch.startswith(beginning) for beginning in list(_dropped)):
        raise WorkerError("the request was deleted: its file is no longer needed")


def permit_jobs(beginning: str) -> None:
    """Permit jobs again that `drop_jobs` would end."""
    _dropped.discard(beginning)


@atexit.register
def stop_servers() -> None:
    """End all servers of this process."""
    for server in _servers.values():
        server.stop()
