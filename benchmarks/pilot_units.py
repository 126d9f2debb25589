"""Pilots beside bare Dask: the rate of commands that do nothing, and the manager's memory.

The same subprocess by ``client.map`` of Dask, in a folder of its own with its output in files as a
compute unit has them, and as bare as it gets. Rounds are interleaved, and the best of each counts.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

PROGRAM = "/bin/true"


def bare(number: int) -> int:
    return subprocess.run([PROGRAM]).returncode


def with_files(folder: str) -> int:
    own = os.path.join(folder, uuid.uuid4().hex)
    os.mkdir(own)
    with open(f"{own}/stdout", "wb") as out, open(f"{own}/stderr", "wb") as err:
        return subprocess.run(
            [PROGRAM], cwd=own, stdin=subprocess.DEVNULL, stdout=out, stderr=err
        ).returncode


def rate(count: int, rounds: int) -> None:
    from distributed import Client, LocalCluster

    from dosna.pilot import ComputeDataService, PilotComputeService

    best: dict[str, float] = {}

    def time_it(name: str, run: Any) -> None:
        begin = time.perf_counter()
        run()
        best[name] = min(best.get(name, 1e9), time.perf_counter() - begin)

    with tempfile.TemporaryDirectory() as folder:
        pilots = PilotComputeService(f"sqlite:///{folder}/state.db")
        service = ComputeDataService()
        service.add_pilot_compute_service(pilots)
        fields = {"service_url": "fork://localhost", "number_of_processes": 2}
        pilots.create_pilot({**fields, "working_directory": folder})
        units = [{"executable": PROGRAM}] * count
        service.submit_compute_units(units[:20])
        service.wait()

        def by_pilots() -> None:
            service.submit_compute_units(units)
            service.wait()

        with (
            LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
            Client(cluster) as client,
        ):
            client.gather(client.map(bare, range(20), pure=False))
            for _ in range(rounds):
                time_it("pilots", by_pilots)
                time_it(
                    "dask",
                    lambda: client.gather(client.map(bare, range(count), pure=False)),
                )
                time_it(
                    "dask with files",
                    lambda: client.gather(client.map(with_files, [folder] * count, pure=False)),
                )
        pilots.cancel()
    for name, seconds in best.items():
        ratio = best[name] / best["pilots"]
        print(f"{count} no-op units, {name}: {count / seconds:.0f}/s; pilots {ratio:.2f} of it")


def memory(most: int) -> None:
    """Print the peak memory of managers of 10³ units and of more, that have no pilot for half."""
    for count in (1000, most):
        done = subprocess.run(
            [sys.executable, __file__, "--manage", str(count)], stdout=subprocess.PIPE, check=True
        )
        print(f"manager of {count} units: {int(done.stdout) / 1024:.0f} MiB at most")


def manage(count: int) -> None:
    from dosna.pilot import ComputeDataService, PilotComputeService

    with tempfile.TemporaryDirectory() as folder:
        pilots = PilotComputeService(f"sqlite:///{folder}/state.db")
        service = ComputeDataService()
        service.add_pilot_compute_service(pilots)
        for begin in range(0, count, 500):
            fields = {"executable": PROGRAM, "number_of_processes": 1 if begin < 500 else 64}
            service.submit_compute_units([fields] * min(500, count - begin))
        fields = {"service_url": "fork://localhost", "number_of_processes": 2}
        pilots.create_pilot({**fields, "working_directory": folder})
        # The rest waits for a pilot of 64 processes: the manager looks at all of them.
        time.sleep(5 + count / 10000)
        pilots.cancel()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer units and rounds")
    parser.add_argument("--manage", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.chdir(Path(__file__).parent)
    if arguments.manage:
        manage(arguments.manage)
        return
    rate(300 if arguments.quick else 1000, 2 if arguments.quick else 4)
    memory(10_000 if arguments.quick else 100_000)


if __name__ == "__main__":
    main()
