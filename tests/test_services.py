"""The services of the tests end with the tests, however these end."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from support import require_program


def test_a_cluster_ends_with_who_started_it():
    for program in ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin"):
        require_program(program)
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import json, time\n"
        "from services import start_ceph\n"
        "with start_ceph('--gateway') as ceph:\n"
        "    print(json.dumps([list(ceph.pids.values()), ceph.folder]), flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as owner:
        pids, folder = json.loads(owner.stdout.readline())
        left = [Path(folder), *(Path(f"/proc/{pid}") for pid in pids)]
        assert len(pids) == 3
        assert all(path.exists() for path in left)
        owner.kill()
    end = time.monotonic() + 20
    while any(path.exists() for path in left):
        assert time.monotonic() < end, [path for path in left if path.exists()]
        time.sleep(0.05)
