"""Compare `dosna serve` with nginx, by the same client on the same files.

Run ``python benchmarks/serve_zarr.py [--quick] [--only ROW] [--folder F]``; it needs what
``run_tests.sh --install`` installs, and nginx. Servers are one process each, files are in the page
cache, and the client is zarr-python with obstore. They take turns; the shortest times count.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import httpx
import numpy as np
import obstore
import psutil
import zarr
from timing import minima
from zarr.storage import ObjectStore

import dosna as dn

TOKEN = "a-token-of-the-benchmark"
MIB = 1 << 20

NGINX = """\
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr crit;
events {{ worker_connections 512; }}
http {{
  access_log off; sendfile on; tcp_nopush on;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="less data and fewer rounds")
    parser.add_argument("--only", default="", help="the row: " + ", ".join(ROWS))
    parser.add_argument("--folder", type=Path, help="where to work; a temporary one by default")
    options = parser.parse_args()
    for name, row in ROWS.items():
        if name.startswith(options.only):
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                Path(folder).chmod(0o755)  # nginx reads it as another user
                row(Path(folder), options.quick)


def fill(folder: Path, backend: str, count: int) -> None:
    """Make a dataset of chunks of 1 MiB, without compression."""
    folder.mkdir()
    values = np.random.default_rng(0).random((count, 512, 512), dtype="f4")
    with dn.Connection(str(folder), backend=backend) as con:
        con.create_dataset("x", data=values, chunk_size=(1, 512, 512))


@contextmanager
def served(url: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run ``dosna serve``; yield the address of its Zarr."""
    command = [sys.executable, "-m", "dosna", "serve", url, "--token", TOKEN, "--json", "--quiet"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if '"zarr"' in line:
                break
        try:
            yield line.split('"')[3].rstrip("/"), process
        finally:
            process.terminate()


@contextmanager
def nginx(root: Path, folder: Path) -> Iterator[str]:
    """Run nginx over a folder; yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    folder.mkdir()
    conf = folder / "nginx.conf"
    conf.write_text(NGINX.format(folder=folder, port=port, root=root))
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    with subprocess.Popen([program, "-c", str(conf), "-p", str(folder)]) as process:
        try:
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def opened(url: str) -> Any:
    options = {"allow_http": True, "default_headers": {"Authorization": f"Bearer {TOKEN}"}}
    store = obstore.store.HTTPStore(url, client_options=options)
    return zarr.open_array(ObjectStore(store, read_only=True), path="x", mode="r")


def chunks(folder: Path, quick: bool) -> None:
    """Read all of an array in chunks of 1 MiB."""
    count = 32 if quick else 256
    fill(folder / "data", "file", count)
    fill(folder / "hdf5", "hdf5", count)
    with (
        served(f"file:{folder}/data//") as (ours, _),
        served(f"hdf5:{folder}/hdf5//") as (made, _),
        nginx(folder / "data", folder / "nginx") as theirs,
    ):
        arrays = {"nginx": opened(theirs), "stored": opened(ours), "made": opened(made)}
        direct = arrays["nginx"][...]
        for name, array in arrays.items():
            if name != "made":
                np.testing.assert_array_equal(array[...], direct)
        found = minima(
            {name: lambda a=array: a[...] for name, array in arrays.items()},
            seconds=3.0 if quick else 30.0,
        )
    rates = {name: count / seconds for name, seconds in found.items()}
    print(
        f"zarr-python + obstore, {count} chunks of 1 MiB: "
        f"dosna, file {rates['stored']:.0f} MiB/s; nginx {rates['nginx']:.0f} MiB/s, "
        f"{rates['stored'] / rates['nginx']:.2f} x; dosna, hdf5 {rates['made']:.0f} MiB/s, "
        f"{rates['made'] / rates['nginx']:.2f} x"
    )


def clients(folder: Path, quick: bool) -> None:
    """Let 64 clients read at once: errors, and the memory of the server."""
    fill(folder / "data", "file", 16)
    most, each = 64, 10 if quick else 100
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with served(f"file:{folder}/data//") as (url, process):
        memory = psutil.Process(process.pid).memory_info

        def read(number: int) -> int:
            bad = 0
            with httpx.Client(headers=headers, timeout=300) as client:
                for n in range(each):
                    answer = client.get(f"{url}/x/c/{(number + n) % 16}/0/0")
                    bad += answer.status_code != 200 or len(answer.content) != MIB + 4
            return bad

        sizes = []
        for _ in range(3):
            with ThreadPoolExecutor(most) as pool:
                begin = time.perf_counter()
                bad = sum(pool.map(read, range(most)))
                seconds = time.perf_counter() - begin
            sizes.append(memory().rss / MIB)
            print(
                f"{most} clients at once, {most * each} requests of 1 MiB: {bad} errors, "
                f"{most * each / seconds:.0f} MiB/s, server of {sizes[-1]:.0f} MiB"
            )


ROWS = {"chunks": chunks, "clients": clients}

if __name__ == "__main__":
    main()
