"""Sweep over parameters: a command for each pair, and a table of what they print.

    python examples/pilot/sweep.py

A pilot of two processes runs the commands; one that fails does not keep the others from ending.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from pathlib import Path

from dosna.pilot import ComputeDataService, PilotComputeService, State

# The steps of Newton's method for a root, from a start: 0 is where the slope is none.
PROGRAM = """
import sys

number, start = map(float, sys.argv[1:])
steps = 0
while abs(start * start - number) > 1e-9:
    start, steps = (start + number / start) / 2, steps + 1
print(steps)
"""


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        pilots = PilotComputeService(f"sqlite:///{folder}/state.db")
        pilot = {"service_url": "fork://localhost", "number_of_processes": 2}
        pilots.create_pilot({**pilot, "working_directory": folder})
        service = ComputeDataService()
        service.add_pilot_compute_service(pilots)
        pairs = list(itertools.product([2, 9, 1e6], [0, 1, 100]))
        units = service.submit_compute_units(
            [
                {
                    "executable": sys.executable,
                    "arguments": ["-c", PROGRAM, str(number), str(start)],
                    "name": f"root of {number} from {start}",
                }
                for number, start in pairs
            ]
        )
        service.wait()
        for unit in units:
            details = unit.get_details()
            own = Path(folder, details["pilot"], details["attempt"])
            is_done = details["state"] == State.Done
            said = (own / "stdout").read_text().strip() if is_done else details["reason"]
            print(f"{details['description']['name']}: {said.splitlines()[-1]}")
        pilots.cancel()
        return 0


if __name__ == "__main__":
    sys.exit(main())
