"""Compare pilots with what they are made of: staging with OpenSSH's `sftp` and with obstore.

Run ``python benchmarks/pilot.py [--quick] [--only ROW] [--folder F]``; it needs what
``run_tests.sh --install`` installs. Everybody works in turn, after one round that does not count;
the shortest times count. Speeds are dosna's divided by the other's.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import obstore
from obstore.store import S3Store
from services import Sshd, start_ceph, start_sshd
from timing import minima

from dosna.pilot.data import stage_in, stage_out
from dosna.pilot.data.files import checksum_of

Work = Mapping[str, Callable[[], object]]
BLOCK = 8 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="less data and fewer rounds")
    parser.add_argument("--only", default="", help="the row: " + ", ".join(ROWS))
    parser.add_argument("--folder", type=Path, help="where to work; a temporary one by default")
    options = parser.parse_args()
    for name, row in ROWS.items():
        if name.startswith(options.only):
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                row(Path(folder), options.quick)


def show(
    row: str,
    work: Work,
    nbytes: int,
    quick: bool,
    other: str,
    aim: float,
    after: Callable[[], object] | None = None,
) -> None:
    """Print the speeds of dosna and of another, and their ratio; `after` follows each untimed."""
    best = minima(work, 0.1 if quick else 10.0, dict.fromkeys(work, after) if after else None)
    ratio = best[other] / best["dosna"]
    speeds = ", ".join(f"{name} {nbytes / took / 1e6:.0f} MB/s" for name, took in best.items())
    print(f"{row}: {speeds}; {ratio:.2f} x {other} (aim {aim}){' !' * (ratio < aim)}", flush=True)


# -- staging ----------------------------------------------------------------------------------


def make_file(folder: Path, quick: bool) -> tuple[Path, int]:
    """Write a file of random bytes: 1 GiB, or a quarter of it."""
    size = (256 if quick else 1024) << 20
    random = np.random.default_rng(0)
    (folder / "made").mkdir()
    with (folder / "made" / "big").open("wb") as file:
        for _ in range(size // BLOCK):
            file.write(random.bytes(BLOCK))
    return folder / "made" / "big", size


def request_for(fields: dict[str, Any], path: Path) -> dict[str, Any]:
    checksum = checksum_of(str(path))
    files = [{"name": path.name, "size": path.stat().st_size, "checksum": checksum}]
    return {"data_unit": "du-1", "place": fields, "patterns": [path.name], "files": files}


def run_sftp(sshd: Sshd, line: str) -> None:
    options = ["-q", "-P", str(sshd.port), "-i", sshd.userkey, "-b", "-"]
    trust = ["-F", "none", "-o", f"UserKnownHostsFile={sshd.known_hosts}"]
    command = ["sftp", *options, *trust, f"{sshd.user}@{sshd.host}"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(command, input=line.encode(), check=True, **quiet)


def staging_by_sftp(folder: Path, quick: bool) -> None:
    path, size = make_file(folder, quick)
    with start_sshd() as sshd:
        options = {"known_hosts": sshd.known_hosts, "config": None}
        url = f"ssh://{sshd.user}@{sshd.host}:{sshd.port}{folder}/store"
        fields = {"service_url": url, "userkey": sshd.userkey, "options": options}
        request, other = request_for(fields, path), folder / "other"
        work: dict[str, Callable[[], object]] = {
            "dosna": lambda: stage_out(request, str(path.parent)),
            "sftp": lambda: run_sftp(sshd, f"put {path} {other}"),
        }
        show("sftp-out", work, size, quick, "sftp", 0.7)
        work = {
            "dosna": lambda: stage_in(request, str(folder / "in")),
            "sftp": lambda: run_sftp(sshd, f"get {other} {folder / 'back'}"),
        }
        show("sftp-in", work, size, quick, "sftp", 0.7)


def staging_by_s3(folder: Path, quick: bool) -> None:
    path, size = make_file(folder, quick)
    with start_ceph("--gateway") as ceph:
        keys = {"access_key_id": ceph.access_key, "secret_access_key": ceph.secret_key}
        fields = {"service_url": "s3://bench", "endpoint_url": ceph.endpoint_url, **keys}
        request = request_for(fields, path)
        stage_out(request, str(path.parent))  # makes the bucket
        bare = S3Store(
            "bench",
            endpoint=ceph.endpoint_url,
            region="us-east-1",
            client_options={"allow_http": True},
            **keys,
        )

        def collect() -> None:
            # What was replaced stays until then, and an OSD that is full lets writers wait.
            command = ["radosgw-admin", "-c", ceph.conf, "-n", "client.rgw", "--log-file="]
            subprocess.run([*command, "gc", "process", "--include-all"], check=True)

        def get() -> None:
            with (folder / "back").open("wb") as file:
                for block in obstore.get(bare, "other").stream(min_chunk_size=BLOCK):
                    file.write(block)

        work: dict[str, Callable[[], object]] = {
            "dosna": lambda: stage_out(request, str(path.parent)),
            "obstore": lambda: obstore.put(bare, "other", path),
        }
        show("s3-out", work, size, quick, "obstore", 0.9, collect)
        work = {"dosna": lambda: stage_in(request, str(folder / "in")), "obstore": get}
        show("s3-in", work, size, quick, "obstore", 0.9)
        shutil.rmtree(folder / "in")


ROWS = {"sftp": staging_by_sftp, "s3": staging_by_s3}

if __name__ == "__main__":
    main()
