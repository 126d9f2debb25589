"""PSI/J jobs, on the submitting side: in the manager's process, or on another machine by SSH.

Only this file is sent to the other machine, whose Python needs psij-python but not dosna.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

__all__ = ["FolderError", "cancel", "deploy", "handle", "look", "submit"]

_POLL_SECONDS = 2
_jobs: dict[str, Any] = {}  # those that this process has submitted or attached to


class FolderError(Exception):
    """An error raised if the folder of a pilot cannot be written. Its text says what to do."""


def deploy(folder: str, files: dict[str, str]) -> str:
    """Write files, given in base64, that only this user can read; return the folder's path."""
    path = os.path.abspath(os.path.expanduser(os.path.expandvars(folder)))
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        for name, content in files.items():
            _write(f"{path}/{name}", base64.b64decode(content))
    except OSError as error:
        raise FolderError(
            f"the pilot's folder {path} cannot be written: {error.strerror}. Change that, or "
            "start the pilot with another working_directory"
        ) from error
    return path


def _write(path: str, content: bytes) -> None:
    new = f"{path}.new"
    try:
        with open(os.open(new, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
            file.write(content)
        os.replace(new, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(new)  # it may have filled the disk
        raise


def submit(request: dict[str, Any]) -> str:
    """Submit the job of a pilot, and return its native id."""
    executor = _executor(request["executor"])
    import psij

    nodes = request["nodes"]
    # PSI/J's scripts do not quote the names of output files: they are relative.
    spec = psij.JobSpec(
        executable=request["python"],
        arguments=[f"{request['folder']}/agent.pyz"],
        directory=Path(request["folder"]),
        name=request["name"],
        environment=dict(request["environment"]),
        stdout_path=Path("agent.out"),
        stderr_path=Path("agent.err"),
        launcher=("srun" if request["executor"] == "slurm" else "mpirun") if nodes > 1 else None,
        resources=psij.ResourceSpecV1(
            node_count=nodes, processes_per_node=1, cpu_cores_per_process=request["slots"]
        ),
        attributes=psij.JobAttributes(
            duration=timedelta(minutes=request["walltime"] or 60),
            queue_name=request["queue"] or None,
            account=request["project"] or None,
        ),
    )
    job = psij.Job(spec)
    executor.submit(job)
    native = str(job.native_id)
    if request["executor"] == "local":
        _close_pipe_at_end(executor, job)
        native = f"{native}@{_created(int(native))}"
    _jobs[native] = job
    return native


def _close_pipe_at_end(executor: Any, job: Any) -> None:
    """Close the pipe that PSI/J reads at the end of a local job, and leaves open."""
    jobs = executor._reaper._jobs
    process: Any = jobs[job].process if job in jobs else None

    def wait() -> None:
        while job in jobs:
            time.sleep(0.2)
        process.stdout.close()

    def close(_: Any, status: Any) -> None:
        if status.final and process is not None:
            threading.Thread(target=wait, daemon=True).start()

    job.set_job_status_callback(close)


def look(name: str, native: str, folder: str, seconds: float = 0) -> tuple[str, str]:
    """Return the state of a job in lower case, or ``gone``, and what is known about it.

    This includes the message of PSI/J, and the end of the output of a failed agent. The call waits
    up to ``seconds`` for a first state.
    """
    job = _attached(name, native)
    if job is None:
        return "gone", "there is no such job"
    end = time.monotonic() + seconds
    while job.status.state.name == "NEW" and time.monotonic() < end:
        time.sleep(0.1)
    status = job.status
    message = status.message or ""
    if status.exit_code:
        message = f"{message} (exit code {status.exit_code})".lstrip()
        with contextlib.suppress(OSError), open(f"{folder}/agent.err", errors="replace") as file:
            message = f"{message} {file.read()[-500:].strip()}".rstrip()
    return status.state.name.lower(), message


def cancel(name: str, native: str) -> None:
    """Cancel a job that has not ended."""
    job = _attached(name, native)
    if job is not None and not job.status.final:
        job.cancel()
        if name == "local":
            _wait_for_end(native)


def _executor(name: str) -> Any:
    # It warns of being imported by a thread: it then takes no signals of this process.
    logging.getLogger("psij.executors.local").setLevel(logging.ERROR)
    import psij

    if name not in _jobs:
        config: Any = psij.JobExecutorConfig()
        if name != "local":
            from psij.executors.batch.batch_scheduler_executor import BatchSchedulerExecutorConfig

            config = BatchSchedulerExecutorConfig(
                queue_polling_interval=_POLL_SECONDS, initial_queue_polling_delay=1
            )
        _jobs[name] = psij.JobExecutor.get_instance(name, config=config)
    return _jobs[name]


def _attached(name: str, native: str) -> Any:
    if native in _jobs:
        return _jobs[native]
    import psij

    number, _, created = native.partition("@")
    # The process id may belong to another process by now.
    if name == "local" and _created(int(number)) != created:
        return None
    job = psij.Job()
    _executor(name).attach(job, number)
    _jobs[native] = job
    return job


def _created(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _wait_for_end(native: str) -> None:
    # PSI/J kills it from a thread that ends with this process.
    number, _, created = native.partition("@")
    end = time.monotonic() + 5
    while _created(int(number)) == created and time.monotonic() < end:
        time.sleep(0.05)


def handle(request: dict[str, Any]) -> Any:
    """Carry out a request."""
    what = request["do"]
    if what == "deploy":
        return deploy(request["folder"], request["files"])
    if what == "submit":
        return submit(request)
    if what == "look":
        return look(request["executor"], request["native"], request["folder"], request["seconds"])
    return cancel(request["executor"], request["native"])


def main() -> None:
    """Answer the request of standard input; by SSH."""
    try:
        answer = {"answer": handle(json.loads(sys.stdin.readline()))}
    except FolderError as error:
        answer = {"error": str(error)}
    except Exception as error:
        name = getattr(error, "name", None) if isinstance(error, ImportError) else None
        needed = " Install psij-python for this Python." if name == "psij" else ""
        answer = {"error": f"{type(error).__name__}: {error}.{needed}"}
    print("\n" + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
