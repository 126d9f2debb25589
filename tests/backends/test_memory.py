"""Work over a source of eight times the memory limit stays within the limit."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest
from support import HANG, require

SCRIPT = """
import json, sys
import numpy as np, psutil
import dosna as dn

MIB = 1 << 20
LIMIT = 32 * MIB
directory, engine, options, remote = sys.argv[1], *map(json.loads, sys.argv[2:])
# As if the folder were far away: boxes of many small chunks, read ahead and written behind.
SIDE = 128 if remote else 512
ROWS = 8 * LIMIT // (4 * SIDE * SIDE)

class Source:
    dtype = np.dtype("f4")
    def __init__(self, shape):
        self.shape = shape
    def __getitem__(self, key):
        rows, *rest = (range(n)[k] for n, k in zip(self.shape, key))
        block = np.empty([len(rows), *map(len, rest)], "f4")
        block[...] = np.arange(rows.start, rows.stop).reshape(-1, 1, 1)
        return block

def kib(process, what):
    with open(f"/proc/{process.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(what))

def growth(call):
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    idle = {p: kib(p, "VmRSS") for p in processes}
    for process in processes:
        with open(f"/proc/{process.pid}/clear_refs", "w") as reset:
            reset.write("5")
    call()
    return sum(kib(p, "VmHWM") - idle[p] for p in processes) / 1024

def work(con, name, rows, side):
    shape, chunk = (rows, side, side), (1, side, side)
    ds = con.create_dataset(name, shape, "f4", chunk_size=chunk, virtual=False)
    yield "load", lambda: ds.load(Source(shape), memory_limit=LIMIT)
    yield "map", lambda: ds.map(np.negative, name + "-m", memory_limit=LIMIT)
    yield "halo", lambda: ds.map(np.negative, name + "-h", halo=(1, 2, 2), memory_limit=LIMIT)
    yield "apply", lambda: ds.apply(np.negative, memory_limit=LIMIT)
    yield "copy", lambda: ds.copy(con, name + "-c", virtual=False, memory_limit=LIMIT)
    yield "compare", lambda: ds.compare(Source(shape), memory_limit=LIMIT)
    for path, options in (("x.h5", {"compression": "gzip"}), ("x.npy", {})):
        yield path, lambda: ds.export(
            f"{directory}/{path}", overwrite=True, memory_limit=LIMIT, **options
        )
    yield "reduce", lambda: ds.reduce("sum", memory_limit=LIMIT)

with dn.Connection(directory, backend="hdf5", engine=engine, engine_kw=options) as con:
    if remote:
        type(con.instance).parallel_bytes = 0
        assert con.create_dataset("far", 1).instance.remote
    # Starts workers and imports what they need, but leaves them no memory to use again.
    for what, call in work(con, "small", 24, 8):
        call()
    grown = {}
    for what, call in work(con, "large", ROWS, SIDE):
        grown[what] = growth(call)
        for name in list(con):
            if name.startswith("large-"):
                del con[name]
    total = con["large"].sum()
    assert total == -SIDE * SIDE * sum(range(ROWS)), total
print(json.dumps(grown))
"""


@pytest.mark.parametrize(
    ("engine", "options", "remote"),
    [
        ("cpu", {}, False),
        ("cpu", {}, True),
        ("joblib", {"njobs": 2, "jlbackend": "threading"}, False),
        ("joblib", {"njobs": 2, "jlbackend": "threading"}, True),
        ("joblib", {"njobs": 2, "jlbackend": "loky"}, False),
    ],
)
def test_work_over_a_large_source_stays_within_the_limit(tmp_path, engine, options, remote):
    for module in ("h5py", "joblib", "psutil"):
        require(module)
    arguments = [str(tmp_path), *map(json.dumps, (engine, options, remote))]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert done.returncode == 0, done.stderr
    grown = json.loads(done.stdout)
    print(engine, options, remote, {what: f"{mib:.1f} MiB" for what, mib in grown.items()})
    assert {what: mib for what, mib in grown.items() if mib >= 32} == {}
