"""A first small job in the fork server, so that forks inherit what a first job sets up.

Libraries import and compile a lot on first use; this makes a job several times faster.
"""

from __future__ import annotations

import json
import os
import tempfile

import numpy as np

from dosna.delivery.transform.job import run_job

__all__ = ["rehearse"]


def rehearse() -> None:
    """Write a small ROOT file, and run a selection on it. No threads may remain."""
    import awkward as ak
    import uproot

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "input")
        with open(path, "w+b") as stream, uproot.recreate(stream) as file:
            tree = file.mktree("t", {"x": "float64", "y": "var * float32"})
            tree.extend({"x": np.arange(3.0), "y": ak.Array([[1.0], [], [2.0]])})
        selection = [{"treename": "t", "filter_name": ["x", "y"], "cut": "(x > 1) & any(y > 1)"}]
        job = {
            "codegen": "uproot-raw",
            "selection": json.dumps(selection),
            "input": path,
            "shown": "",
            "step": 1 << 20,
        }
        for format in ("parquet", "root-file"):
            run_job({**job, "format": format, "output": os.path.join(folder, format)})
