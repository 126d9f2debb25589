"""The services of the tests end with the tests, however these end."""

from __future__ import annotations

import json
import mmap
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from services.proxy import Proxy, read_head
from support import HANG, require_program, sweep_shared_memory, wait_until


def test_a_cluster_ends_with_who_started_it():
    for program in ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin"):
        require_program(program)
    assert_it_ends("start_ceph('--gateway')", 3)


def test_an_hsds_server_ends_with_who_started_it(start_hsds):
    assert_it_ends("start_hsds()", 1)


def test_a_slurm_ends_with_who_started_it(start_slurm):
    job = """
    begun = service.folder + "/begun"
    service.run("sbatch", "--output=/dev/null", "--wrap", f": > {begun}; sleep 1000")
    while not os.path.exists(begun):
        time.sleep(0.01)
"""
    assert_it_ends("start_slurm()", 3, job)


def test_shared_memory_that_killed_processes_left_is_swept(tmp_path):
    left = ["mpich_shm_1_0", "sem.loky-1-a", "sem.mp-a"]
    for name in (*left, "under_way", "mpich_shm_old_0", "other"):
        (tmp_path / name).write_bytes(b"data")
    os.utime(tmp_path / "mpich_shm_old_0", (1000, 1000))
    with (tmp_path / "under_way").open("rb") as file:
        used = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    os.rename(tmp_path / "under_way", tmp_path / "mpich_shm_2_0")
    with used:
        assert sweep_shared_memory(2000, tmp_path) == left
        kept = ["mpich_shm_2_0", "mpich_shm_old_0", "other"]
        assert sorted(os.listdir(tmp_path)) == kept
    assert sweep_shared_memory(2000, tmp_path) == ["mpich_shm_2_0"]


def test_a_proxy_ends_a_connection_that_its_server_has_ended():
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with Proxy(url) as proxy:
            there = urlsplit(proxy.url)
            with socket.create_connection((there.hostname, there.port), timeout=60) as client:
                client.sendall(b"GET / HTTP/1.1\r\n\r\n")
                with server.accept()[0] as asked, asked.makefile("rb") as asks:
                    assert read_head(asks)[0].startswith(b"GET / ")
                    asked.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                with client.makefile("rb") as answers:
                    assert read_head(answers)[0].startswith(b"HTTP/1.1 200 ")
                    assert answers.read() == b""
                assert len(proxy.requests) == 1


def assert_it_ends(start, daemons, then=""):
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "import json, os, time\n"
        "from services import start_ceph, start_hsds, start_slurm\n"
        f"with {start} as service:\n{then}"
        "    print(json.dumps([list(service.pids.values()), service.folder]), flush=True)\n"
        "    time.sleep(1000)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as owner:
        pids, folder = json.loads(owner.stdout.readline())
        assert len(pids) == daemons
        # What runs a job of Slurm's is known by its environment alone.
        pids += [
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if folder.encode() in read(path) + read(path.with_name("environ"))
        ]
        left = [Path(folder), *(Path(f"/proc/{pid}") for pid in pids)]
        assert all(path.exists() for path in left)
        owner.kill()
    wait_until(lambda: not any(path.exists() for path in left))


def read(path):
    """Read a file of /proc, whose process may have ended or be another user's."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize("asked", [b"GE", b"GET / HTTP/1.1\r\n\r\n"])
def test_a_proxy_ends_quietly_what_is_cut_off(asked):
    # A thread that raises fails whichever test is running then: warnings are errors.
    begun = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"

    def answer():
        with server.accept()[0] as one:
            one.recv(1 << 10)
            one.sendall(begun)

    before = set(threading.enumerate())
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        answering = pool.submit(answer)
        with Proxy(f"http://127.0.0.1:{server.getsockname()[1]}") as proxy:
            url = urlsplit(proxy.url)
            with socket.create_connection((url.hostname, url.port), HANG) as client:
                client.sendall(asked)
                client.shutdown(socket.SHUT_WR)
                assert client.recv(1) == b""
            wait_until(
                lambda: not any("_serve)" in t.name for t in set(threading.enumerate()) - before)
            )
        answering.result(HANG)
