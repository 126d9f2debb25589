"""A Dask scheduler and workers, started by Dask's command line and ended with the tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from support import HANG

SECONDS = 200
"""After which it hangs, however busy the machine is."""

_DIE_WITH_ME = ["setpriv", "--pdeathsig", "KILL", "--"]


LOCAL = {"n_workers": 2, "threads_per_worker": 2, "timeout": HANG}
"""The keywords of the engine for a cluster that it starts itself."""


def local_client() -> AbstractContextManager[Any]:
    """Open the engine's own client of the cluster of `LOCAL`."""
    from dosna.engines.dask.cluster import client_for

    return client_for(LOCAL)


class Cluster:
    """A scheduler, and the workers that were started for it."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        where = folder / "scheduler.json"
        options = ["--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"]
        self._start("scheduler", ["dask_scheduler", *options, "--scheduler-file", str(where)], env)
        end = time.monotonic() + SECONDS
        while not where.exists() or not where.read_text().strip():
            if time.monotonic() > end or self.processes["scheduler"].poll() is not None:
                raise RuntimeError(f"dask scheduler: {(folder / 'scheduler.log').read_text()}")
            time.sleep(0.05)
        self.address: str = json.loads(where.read_text())["address"]

    def worker(
        self,
        name: str,
        *options: str,
        threads: int = 1,
        nanny: bool = False,
        env: dict[str, str] | None = None,
    ) -> None:
        """Start a worker; `await_workers` waits for it."""
        self._start(
            name,
            [
                *["dask_worker", self.address, "--name", name, "--nthreads", str(threads)],
                *["--host", "127.0.0.1", "--no-dashboard", "--memory-limit", "0"],
                *["--nanny" if nanny else "--no-nanny", "--local-directory"],
                *[str(self.folder / name), *options],
            ],
            env or {},
        )

    def await_workers(self, client: Any, count: int) -> None:
        """Wait until the scheduler has so many workers."""
        client.wait_for_workers(count, timeout=SECONDS)

    def kill(self, name: str, sig: int = signal.SIGKILL) -> None:
        """Kill a process of the cluster, and all that it has started."""
        process = self.processes.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, sig)
        process.wait(SECONDS)

    def _start(self, name: str, words: list[str], env: dict[str, str]) -> None:
        with open(self.folder / f"{name}.log", "wb") as log:
            self.processes[name] = subprocess.Popen(
                [*_DIE_WITH_ME, sys.executable, "-m", f"distributed.cli.{words[0]}", *words[1:]],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self.folder,
                env={**os.environ, **env},
            )


@contextmanager
def start_dask(folder: Path, env: dict[str, str] | None = None) -> Iterator[Cluster]:
    """Start a scheduler that ends with the block, or with this process."""
    cluster = Cluster(folder, env or {})
    try:
        yield cluster
    finally:
        for name in list(cluster.processes):
            cluster.kill(name)
