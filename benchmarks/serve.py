"""Show datasets in the browser, beside reading them directly.

Run ``python benchmarks/serve.py [--quick] [--only ROW] [--folder FOLDER]``; it needs what
``run_tests.sh --install`` installs. The rows are

- ``page``: the first page of a volume in a new browser, until it is drawn, by software;
- ``slice``: a plane of 512 x 512 x 512 float32 (256 x 256 x 256 with ``--quick``) in chunks of
  64 x 64 x 64, asked of ``dosna view`` as the page does, beside reading it into an array: planes
  of ever other chunks, for which the server's cache is of no use, and then neighbours;
- ``neighbour``: planes in the same layer of chunks on S3, where each request takes 20 ms;
- ``line``: the points that a page draws of a line of 10^8 float32 (10^7 with ``--quick``), beside
  reading all values;
- ``crowd``: 100 clients that ask for 32 MiB each at the same time (8 MiB with ``--quick``): the
  time until all have them, the server's memory, and what a small request takes meanwhile.

Times are the shortest of rounds in which everybody works in turn. The server of ``slice`` and
``line`` is a process of its own.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "serve"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from timing import OURS, minima

import dosna as dn

EXTENT = 64
CROWD = 100
DIRECT = "directly"


class Client:
    """A connection to a server, kept open as a browser does."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.headers = {"Authorization": f"Bearer {parts.query.partition('=')[2]}"}
        self.connection = http.client.HTTPConnection(parts.netloc)

    def data(self, path: str, selection: str = "") -> bytes:
        """Return the values of a selection, as the page asks for them."""
        answer = self.ask(path, selection)
        body = answer.read()
        assert answer.status == 200, body
        return body

    def ask(self, path: str, selection: str = "") -> http.client.HTTPResponse:
        """Ask for the values of a selection."""
        query = {"file": "x", "path": path, "format": "bin", "dtype": "safe", "lines": "short"}
        if selection:
            query["selection"] = selection
        self.connection.request("GET", f"/h5grove/data?{urlencode(query)}", headers=self.headers)
        return self.connection.getresponse()


@contextmanager
def viewing(url: str) -> Iterator[str]:
    """Run ``dosna view`` and yield the URL that it prints."""
    with started(url) as (address, _):
        yield address


@contextmanager
def started(url: str) -> Iterator[tuple[str, int]]:
    """Run ``dosna view`` and yield the URL that it prints, and the number of its process."""
    command = [sys.executable, "-m", "dosna", "view", url, "--no-open", "--json", "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            lines = itertools.takewhile(lambda line: line != "}\n", process.stdout)
            yield json.loads("".join(lines) + "}")["url"], process.pid
        finally:
            process.terminate()


def volume(con: dn.Connection, extent: int) -> dn.Dataset:
    """Create the volume."""
    ds = con.create_dataset("volume", (extent,) * 3, "f4", chunk_size=(EXTENT,) * 3)
    rng = np.random.default_rng(0)
    for start in range(0, extent, EXTENT):
        ds[start : start + EXTENT] = rng.random((EXTENT, extent, extent), np.float32)
    return ds


def page(folder: Path, quick: bool) -> None:
    """Print the time of the first page."""
    from browser import FLAGS, SIZE
    from playwright.sync_api import sync_playwright

    with ExitStack() as stack:
        con = stack.enter_context(dn.Connection(str(folder), backend="hdf5"))
        volume(con, 128)
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        taken = []
        for _ in range(3 if quick else 10):
            url = stack.enter_context(viewing(f"hdf5:{folder}//volume"))
            context = browser.new_context(viewport=SIZE)
            shown = context.new_page()
            begin = time.perf_counter()
            shown.goto(url)
            shown.locator("canvas").first.wait_for()
            shown.get_by_role("heading", name="volume").wait_for()
            shown.evaluate("() => new Promise(done => requestAnimationFrame(done))")
            taken.append(time.perf_counter() - begin)
            context.close()
        browser.close()
    print(f"page: first page: {min(taken) * 1e3:.0f} ms (aim 1500)")


def slices(folder: Path, quick: bool) -> None:
    """Print the times of planes across each axis, on each backend."""
    extent = 256 if quick else 512
    for backend in ("hdf5", "file"):
        url = f"{backend}:{folder}/{backend}"
        (folder / backend).mkdir()
        with ExitStack() as stack:
            con = stack.enter_context(dn.Connection(str(folder / backend), backend=backend))
            ds = volume(con, extent)
            # No chunk fits into so small a cache, as those of the next layer are in none.
            client = Client(stack.enter_context(viewing(f"{url}//volume?cache=1")))
            cached = Client(stack.enter_context(viewing(f"{url}//volume")))
            for axis in range(3):
                same = client.data("/volume", plane(axis, 70))
                assert same == ds[...].take(70, axis).tobytes()
                apart = range(3, extent, EXTENT)
                compare(f"slice: {backend}, axis {axis}", client, ds, axis, apart, quick)
            compare(f"slice: {backend}, the next one", cached, ds, 0, range(EXTENT), quick)


def plane(axis: int, place: int) -> str:
    """Return the selection of a plane."""
    return ":," * axis + str(place) + ",:" * (2 - axis)


def compare(
    label: str, client: Client, ds: dn.Dataset, axis: int, places: range, quick: bool
) -> None:
    """Print the times of one plane after the other, by HTTP and directly."""
    mine, theirs = itertools.cycle(places), itertools.cycle(places)
    before: tuple[slice, ...] = (slice(None),) * axis
    work = {
        OURS: lambda: client.data("/volume", plane(axis, next(mine))),
        DIRECT: lambda: ds[(*before, next(theirs))],
    }
    row(label, work, 1 if quick else 4, "aim 1.3")


def neighbours(folder: Path, quick: bool) -> None:
    """Print the time of a plane whose chunks are in the cache of the server."""
    from services import aws_environment
    from services.moto import start_moto
    from services.proxy import Proxy
    from services.s3 import make_bucket

    with ExitStack() as stack:
        url = stack.enter_context(start_moto())
        stack.enter_context(aws_environment("a-key", "a-secret"))
        far = stack.enter_context(Proxy(url, lambda request: 0.02))
        options: dict[str, Any] = {"backend": "s3", "bucket": make_bucket(url)}
        near = stack.enter_context(dn.Connection("b", endpoint_url=url, **options))
        volume(near, 128 if quick else 512)
        options |= {"cache": "256 MiB", "recheck": "open"}
        con = stack.enter_context(dn.Connection("b", endpoint_url=far.url, **options))
        client = Client(stack.enter_context(con.serve()).url)
        places = itertools.cycle(range(EXTENT))
        begin = time.perf_counter()
        client.data("/volume", "1,:,:")
        first = time.perf_counter() - begin
        best = minima({OURS: lambda: client.data("/volume", f"{next(places)},:,:")}, 1)[OURS]
    print(
        f"neighbour: S3 with 20 ms: the next plane {best * 1e3:.1f} ms (aim 5), "
        f"the first one {first * 1e3:.0f} ms"
    )


def line(folder: Path, quick: bool) -> None:
    """Print the time of the points of a very long line."""
    count = 10**7 if quick else 10**8
    with ExitStack() as stack:
        con = stack.enter_context(dn.Connection(str(folder), backend="hdf5"))
        ds = con.create_dataset("line", count, "f4", chunk_size=1 << 20)
        block = np.random.default_rng(0).random(1 << 20, np.float32)
        for start in range(0, count, 1 << 20):
            ds[start : start + (1 << 20)] = block[: count - start]
        client = Client(stack.enter_context(viewing(f"hdf5:{folder}")))
        work = {OURS: lambda: client.data("/line/line"), DIRECT: lambda: ds[...]}
        row(f"line: {count:.0e} points", work, 1 if quick else 10, "aim 1000 ms")


def crowd(folder: Path, quick: bool) -> None:
    """Print what many clients that ask for large parts at once take, and leave to a small one."""
    with ExitStack() as stack:
        con = stack.enter_context(dn.Connection(str(folder), backend="hdf5"))
        volume(con, 256)
        url, process = stack.enter_context(started(f"hdf5:{folder}"))
        small = Client(url)
        alone = [timed(small) for _ in range(200)]
        selection = f"0:{32 if quick else 128},:,:"
        begin = time.perf_counter()
        with ThreadPoolExecutor(CROWD) as pool:
            large = [pool.submit(drained, url, selection) for _ in range(CROWD)]
            meanwhile = []
            while not all(one.done() for one in large):
                meanwhile.append(timed(small))
        taken = time.perf_counter() - begin
        nbytes = sum(one.result() for one in large)
        status = Path(f"/proc/{process}/status").read_text()
        peak = int(status.split("VmHWM:")[1].split()[0]) >> 10
    slow = np.percentile(meanwhile, [50, 99]) * 1e3
    print(
        f"crowd: {CROWD} clients: {nbytes >> 20} MiB in {taken:.1f} s, {peak} MiB resident; small "
        f"requests alone {np.median(alone) * 1e3:.1f} ms, meanwhile {slow[0]:.0f}, and 99 of 100 "
        f"within {slow[1]:.0f} ms",
        flush=True,
    )


def timed(client: Client) -> float:
    """Return the seconds that ten values take."""
    begin = time.perf_counter()
    assert len(client.data("/volume", "0,0,:10")) == 40
    return time.perf_counter() - begin


def drained(url: str, selection: str) -> int:
    """Ask for a selection, drop what comes, and return its size."""
    answer, size = Client(url).ask("/volume", selection), 0
    while piece := answer.read(1 << 20):
        size += len(piece)
    assert answer.status == 200
    return size


def row(
    label: str, work: dict[str, Callable[[], object]], seconds: float, aim: str
) -> dict[str, float]:
    """Print the times of the contestants, and the ratio."""
    best = minima(work, seconds)
    print(
        f"{label}: dosna view {best[OURS] * 1e3:.1f} ms; {DIRECT} {best[DIRECT] * 1e3:.1f}, "
        f"{best[OURS] / best[DIRECT]:.2f} x ({aim})",
        flush=True,
    )
    return best


ROWS = {"page": page, "slice": slices, "neighbour": neighbours, "line": line, "crowd": crowd}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="less data and fewer rounds")
    parser.add_argument("--only", choices=ROWS, help="one row")
    parser.add_argument("--folder", help="folder for files; by default a temporary one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for name, measure in ROWS.items():
            if arguments.only in (None, name):
                (Path(folder) / name).mkdir()
                measure(Path(folder) / name, arguments.quick)


if __name__ == "__main__":
    main()
