"""Supervisors: processes that run attempts and end everything that each of them starts."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
from typing import Any, NoReturn

from .processes import become_subreaper, end_children, end_steps, signal_when_parent_ends

__all__ = ["prepare", "start"]

_TAIL = 2000
_MOST_BYTES = 60 << 20
_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
_ENDED = frozenset(code for one in _SIGNALS for code in (-one, 128 + one))
"""The exit codes of commands that a signal has ended, and of shells whose command it was."""
_SIGNALS_SECONDS = 2.0
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


def prepare(message: dict[str, Any]) -> None:
    """Import what attempts with data units need, so that every fork inherits it."""
    if is_staged(message):
        with contextlib.suppress(ImportError):  # the attempt reports it
            importlib.import_module("dosna.pilot.data")


def is_staged(message: dict[str, Any]) -> bool:
    """Return True for an attempt with data units."""
    return bool(message.get("inputs") or message.get("outputs"))


def start(folder: str) -> tuple[int, int, int, tuple[int, int]]:
    """Fork a supervisor; return its number, pipes to it and from it, and the one of permits.

    It reads lines of JSON: ``attempt``, ``unit`` (the fields of its description), ``inputs`` and
    ``outputs``, which are requests of `dosna.pilot.data`, and ``permit``, a number; without it in
    the pipe of permits, the attempt was taken back. It writes one line when an attempt begins and
    one when it has ended. After an attempt with data units it ends, and with it the threads that
    staging may have started.
    """
    parent = os.getpid()
    asked, ask = os.pipe()
    told, tell = os.pipe()
    permits = os.pipe()
    for number in permits:
        os.set_blocking(number, False)
    pid = os.fork()
    if pid:
        os.close(asked)
        os.close(tell)
        return pid, ask, told, permits
    # No code of the agent may run here, whatever fails, and its connection must not be used.
    try:
        low = 3
        for number in sorted((asked, tell, permits[0])):
            os.closerange(low, number)
            low = number + 1
        os.closerange(low, 1 << 16)
        _Supervisor(folder, tell, permits[0]).run(asked, parent)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(70)


class _Supervisor:
    message: dict[str, Any]
    unit: dict[str, Any]
    attempt = ""

    def __init__(self, folder: str, tell: int, permits: int) -> None:
        self.pilot_folder = folder
        self.tell = tell
        self.permits = permits
        self.permit = 0  # one that was read, of an attempt that is to come

    def run(self, asked: int, parent: int) -> NoReturn:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in (signal.SIGINT, signal.SIGHUP):
            # Not SIG_IGN, which commands would inherit.
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGTERM, self._canceled)
        os.setsid()
        become_subreaper()
        signal_when_parent_ends(signal.SIGTERM, parent)
        with os.fdopen(asked, "rb") as lines:
            for line in lines:
                message = json.loads(line)
                if not self._may_begin(message["permit"]):
                    continue
                self._do(message)
                if is_staged(self.message):
                    break
        os._exit(0)

    def _may_begin(self, number: int) -> bool:
        if not self.permit:
            try:
                self.permit = int.from_bytes(os.read(self.permits, 4), "little")
            except BlockingIOError:
                return False
        if self.permit != number:
            return False
        self.permit = 0
        return True

    def _do(self, message: dict[str, Any]) -> None:
        self.message, self.unit, self.attempt = message, message["unit"], message["attempt"]
        self._tell({"started": self.attempt})
        code, reason, files = None, "", []
        begun = time.monotonic()
        try:
            os.makedirs(self.folder, exist_ok=True)
            self._stage("stage_in", message.get("inputs") or [])
            code = self._command(begun)
            if code in _ENDED:
                # Whoever ends the pilot's job signals all of its processes, and perhaps first the
                # command: then the unit has not failed, but is lost, as this process hears soon.
                time.sleep(_SIGNALS_SECONDS)
            if not end_children():
                raise RuntimeError("a process of it could not be killed")
            if code:
                reason = self._failure(code)
            else:
                files = self._stage("stage_out", message.get("outputs") or [])
        except OSError as error:
            reason = str(error.strerror or error)
            if error.filename:
                reason = f"{reason}: {error.filename}"
        except Exception as error:
            reason = str(error) or type(error).__name__
        self._end_all()
        if len(json.dumps(files)) > _MOST_BYTES:
            reason, files = "it has written too many files for a message: write fewer", []
        result = {"attempt": self.attempt, "code": code, "reason": reason, "files": files}
        # Once it has ended, it is not canceled any more.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        self.attempt = ""
        self._tell(result)

    def _end_all(self) -> None:
        """End everything that the attempt has started, on other nodes too."""
        if "SLURM_JOB_ID" in os.environ:
            end_steps()
        end_children()

    def _canceled(self, *_: Any) -> NoReturn:
        """End the attempt with everything that it has started, and this process."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self._end_all()
        if self.attempt:
            result = {"attempt": self.attempt, "code": None, "reason": "it was canceled"}
            self._tell({**result, "canceled": True})
        os._exit(0)

    def _tell(self, message: dict[str, Any]) -> None:
        line = json.dumps(message).encode() + b"\n"
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            while line:
                line = line[os.write(self.tell, line) :]
        except OSError:
            os._exit(1)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    # --- its folder and its files ---

    @property
    def folder(self) -> str:
        own = os.path.join(self.pilot_folder, self.attempt)
        return os.path.join(own, os.path.expanduser(self.unit["working_directory"]))

    def _stage(self, what: str, requests: list[dict[str, Any]]) -> list[Any]:
        """Stage data units; return the files of each that were written."""
        if not requests:
            return []
        try:
            data = importlib.import_module("dosna.pilot.data")
        except ImportError as error:
            raise RuntimeError(
                f"its data units cannot be staged, because {sys.executable} of the pilot lacks "
                f"{error.name}: use a Python with dosna[pilot] as `python` of the pilot"
            ) from None
        try:
            return [
                [request["data_unit"], getattr(data, what)(request, self.folder)]
                for request in [{**one, "attempt": self.attempt} for one in requests]
            ]
        except Exception as error:
            if any(one.__module__ == "dosna.errors" for one in type(error).__mro__):
                raise
            # The text of an unexpected error may contain credentials.
            name = type(error).__name__
            raise RuntimeError(f"its data units cannot be staged: {name}") from None

    # --- its command ---

    def _command(self, begun: float) -> int:
        """Run the command; return its exit code, or the negative number of a signal.

        Its walltime counts from when the attempt began, at `begun`.
        """
        environment = dict(os.environ)
        for one in self.unit["environment"]:
            name, _, value = one.partition("=")
            environment[name] = _expand(value, environment)
        environment["DOSNA_PILOT_ATTEMPT"] = self.attempt
        for name, value in self._defaults(environment).items():
            environment.setdefault(name, value)
        words = [self.unit["executable"], *self.unit["arguments"]]
        argv = [_expand(one, environment) for one in words]
        if self.unit["spmd_variation"] == "mpi":
            argv = [_mpiexec(environment), "-n", str(self.unit["number_of_processes"]), *argv]
        new = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        flags = {"input": os.O_RDONLY, "output": new, "error": new}
        streams: list[int] = []
        try:
            for name, how in flags.items():
                path = os.path.join(self.folder, self.unit[name] or os.devnull)
                if name == "error" and self.unit["error"] == self.unit["output"]:
                    streams.append(os.dup(streams[1]))  # one after the other, not over each other
                else:
                    streams.append(os.open(path, how, 0o666))
            # Of a group of its own, and by vfork, which takes a fifth of fork.
            process = subprocess.Popen(
                argv,
                stdin=streams[0],
                stdout=streams[1],
                stderr=streams[2],
                cwd=self.folder,
                env=environment,
                start_new_session=True,
            )
        finally:
            for stream in streams:
                os.close(stream)
        minutes = self.unit["walltime"]
        left = max(0.0, begun + minutes * 60 - time.monotonic()) if minutes else None
        try:
            return process.wait(left)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"its walltime of {minutes:g} minutes has ended") from None

    def _defaults(self, environment: dict[str, str]) -> dict[str, str]:
        """Return variables for the command, which its unit may set to other values."""
        found = {}
        if "SLURM_JOB_ID" in environment:
            # The agent's step has all processors: without this, those of `srun` would wait for it.
            found["SLURM_OVERLAP"] = "1"
        if self.unit["spmd_variation"] == "mpi":
            # On this node: Hydra, of MPICH and Intel MPI, would use all nodes of the pilot's job.
            found.update(HYDRA_LAUNCHER="fork", HYDRA_RMK="user", I_MPI_HYDRA_BOOTSTRAP="fork")
            # So would Open MPI, which would also bind the processes of all units to the same
            # cores, and refuse more processes than there are cores.
            found.update(
                OMPI_MCA_ras="^slurm",
                OMPI_MCA_hwloc_base_binding_policy="none",
                OMPI_MCA_rmaps_base_oversubscribe="1",
            )
        return found

    def _failure(self, code: int) -> str:
        """Return how the command failed, with the end of its error output."""
        if code < 0:
            try:
                reason = f"it was ended by {signal.Signals(-code).name}"
            except ValueError:
                reason = f"it was ended by signal {-code}"
        else:
            reason = f"it ended with exit code {code}"
        try:
            with open(os.path.join(self.folder, self.unit["error"] or os.devnull), "rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _TAIL))
                tail = file.read().decode(errors="replace").strip()
        except OSError:
            tail = ""
        return f"{reason}: {tail}" if tail else reason


def _expand(text: str, environment: dict[str, str]) -> str:
    """Replace $NAME and ${NAME}; names that are not set are kept."""
    return _VARIABLE.sub(lambda one: environment.get(one[1] or one[2], one[0]), text)


def _mpiexec(environment: dict[str, str]) -> str:
    path = os.pathsep.join([environment.get("PATH", ""), os.path.dirname(sys.executable)])
    for name in ("mpiexec", "mpirun"):
        found = shutil.which(name, path=path)
        if found:
            return found
    raise RuntimeError("there is no mpiexec on PATH, nor beside the pilot's Python")
