"""Rows of `delivery.py` about the whole service, which runs in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import httpx
import psutil

URL = "/servicex/transformation"


class Client:
    """A client of a service, that polls quickly."""

    def __init__(self, url: str, pid: int) -> None:
        self.http, self.pid = httpx.Client(base_url=url, timeout=600), pid

    def submit(self, files: list[str], selection: str, into: str = "object-store") -> str:
        body = {
            "file-list": files,
            "selection": selection,
            "codegen": "uproot-raw",
            "result-format": "parquet",
            "result-destination": into,
        }
        answer = self.http.post(URL, json=body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["request_id"])

    def wait(self, id: str, pause: float = 0.005) -> None:
        while (found := self.http.get(f"{URL}/{id}").json())["status"] != "Complete":
            assert found["status"] == "Running", found
            time.sleep(pause)
        assert not found["files-failed"], found

    def deliver(
        self,
        files: list[str],
        selection: str,
        pause: float = 0.005,
        into: str = "object-store",
    ) -> None:
        id = self.submit(files, selection, into)
        self.wait(id, pause)
        self.http.delete(f"{URL}/{id}")


@contextmanager
def service(folder: Path, *options: str) -> Iterator[Client]:
    """Run a service with two workers, and give its client."""
    process = subprocess.Popen(
        [
            *[sys.executable, "-m", "dosna", "delivery", "--quiet", "--port", "0"],
            *["--workers", "2", "--root", str(folder / "data"), "--state", str(folder / "state")],
            *options,
        ],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
    )
    assert process.stdout is not None
    client = Client(process.stdout.readline().split()[0], process.pid)
    try:
        yield client
    finally:
        client.http.close()
        process.terminate()
        process.wait()
        process.stdout.close()


def polls(client: Client, path: str, clients: int, seconds: float) -> tuple[float, int, float]:
    """Poll from many clients; return polls a second, failures, and the slowest in seconds."""
    counts, failures, slowest = [0] * clients, [0] * clients, [0.0] * clients
    end = time.monotonic() + seconds

    def poll(number: int) -> None:
        # httpx would take more of the processor than the service.
        own = HTTPConnection(client.http.base_url.host, client.http.base_url.port, timeout=60)
        while time.monotonic() < end:
            began = time.monotonic()
            try:
                own.request("GET", path)
                answer = own.getresponse()
                answer.read()
                failures[number] += answer.status != 200
            except OSError:
                failures[number] += 1
                own.close()
            counts[number] += 1
            slowest[number] = max(slowest[number], time.monotonic() - began)
        own.close()

    threads = [threading.Thread(target=poll, args=(n,)) for n in range(clients)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.monotonic() - began), sum(failures), max(slowest)


def watched(client: Client, work: Callable[[], object]) -> tuple[float, int]:
    """Do some work; return its seconds, and the most memory that the service had."""
    most, ended = [0], threading.Event()

    def watch() -> None:
        process = psutil.Process(client.pid)
        while not ended.wait(0.1):
            most[0] = max(most[0], process.memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    began = time.monotonic()
    try:
        work()
    finally:
        ended.set()
        thread.join()
    return time.monotonic() - began, most[0]
