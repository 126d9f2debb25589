"""Compare dosna's ceph backend with a bare loop over librados, on one cluster on loopback.

Run ``python benchmarks/ceph.py [--quick]``; it needs what ``run_tests.sh --install`` installs.
The loop keeps 16 asynchronous operations under way, and does what every program must do: it makes
bytes of the array's rows, or copies the bytes that were read into them. Each row is one array,
written and read whole by each contestant in turn, in rounds. The medians of the speeds and of
the rounds' ratios are printed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import rados
from services import Ceph, start_ceph

import dosna as dn

POOL = "benchmark"
IN_FLIGHT = 16
Work = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="less data and fewer rounds")
    parser.add_argument("--osds", type=int, default=1, help="with as many copies (default 1)")
    options = parser.parse_args()
    quick = options.quick
    with (
        start_ceph(f"--osds={options.osds}", f"--size={options.osds}", f"--pool={POOL}") as ceph,
        rados.Rados(conffile=ceph.conf) as cluster,
        cluster.open_ioctx(POOL) as objects,
    ):
        print("MB/s; x: dosna's speed divided by the bare loop's")
        for nbytes, count in ((4 << 20, 16 if quick else 32), (256 << 10, 64 if quick else 256)):
            row(ceph, objects, nbytes, count, 3 if quick else 25)


def row(ceph: Ceph, objects: Any, nbytes: int, count: int, rounds: int) -> None:
    """Print the rows for chunks of `nbytes` bytes."""
    width = nbytes // 4
    values = np.random.default_rng(0).random((count, width), np.float32)
    out = np.empty_like(values)
    keys = [f"bare/{n}" for n in range(count)]
    with dn.Connection(POOL, backend="ceph", engine="cpu", conffile=ceph.conf) as con:
        datasets = {}
        for label, checksum in (("dosna, unchecked", False), ("dosna, checked", True)):
            datasets[label] = con.create_dataset(
                f"{nbytes}-{checksum}",
                values.shape,
                "f4",
                chunk_size=(1, width),
                checksum=checksum,
            )

        def put_bare() -> None:
            write_all(objects, keys, values)

        def get_bare() -> None:
            read_all(objects, keys, out)

        writing: dict[str, Work] = {"bare librados": put_bare}
        reading: dict[str, Work] = {"bare librados": get_bare}
        for label, ds in datasets.items():
            writing[label] = lambda ds=ds: ds.__setitem__(..., values)  # type: ignore[misc]
            reading[label] = lambda ds=ds: ds.read(out=out)  # type: ignore[misc]
        for what, work in (("write", writing), ("read", reading)):
            report(f"{what} {nbytes >> 10} KiB", work, values.nbytes, rounds)
        names = iter(range(10**6))
        targets = [f"{key}-m" for key in keys]
        mapping: dict[str, Work] = {
            "bare librados": lambda: map_all(objects, keys, targets, values)
        }
        for label, ds in datasets.items():
            mapping[label] = lambda ds=ds: ds.map(np.sqrt, f"m{next(names)}")  # type: ignore[misc]

        def delete_maps() -> None:
            for name in [name for name in con if name.startswith("m")]:
                con.del_dataset(name)
            for target in targets:
                with suppress(rados.ObjectNotFound):
                    objects.remove_object(target)

        report(f"map {nbytes >> 10} KiB", mapping, 2 * values.nbytes, rounds, delete_maps)
        for ds in datasets.values():
            np.testing.assert_array_equal(ds[...], values)


def write_all(objects: Any, keys: list[str], values: np.ndarray[Any, Any]) -> None:
    """Write rows as objects, with librados alone."""
    done: SimpleQueue[int] = SimpleQueue()

    def ended(completion: Any) -> None:
        done.put(completion.get_return_value())

    for number, key in enumerate(keys):
        if number >= IN_FLIGHT:
            assert done.get() == 0
        objects.aio_write_full(key, values[number].tobytes(), ended)
    for _ in range(min(IN_FLIGHT, len(keys))):
        assert done.get() == 0


def read_all(objects: Any, keys: list[str], out: np.ndarray[Any, Any]) -> None:
    """Read objects into rows, with librados alone."""
    done: SimpleQueue[tuple[int, bytes]] = SimpleQueue()
    nbytes = out[0].nbytes

    def take() -> None:
        number, data = done.get()
        out[number] = np.frombuffer(data, out.dtype)

    for number, key in enumerate(keys):
        if number >= IN_FLIGHT:
            take()

        def ended(completion: Any, data: bytes, number: int = number) -> None:
            done.put((number, data))

        objects.aio_read(key, nbytes, 0, ended)
    for _ in range(min(IN_FLIGHT, len(keys))):
        take()


def map_all(
    objects: Any, keys: list[str], targets: list[str], values: np.ndarray[Any, Any]
) -> None:
    """Read objects, and write the square roots of their elements to others, with librados alone.

    Each object is read, and another written, in one of the places of requests under way.
    """
    done: SimpleQueue[tuple[int, bytes | None]] = SimpleQueue()
    nbytes, waiting, under_way = values[0].nbytes, iter(range(len(keys))), 0

    def read() -> int:
        number = next(waiting, None)
        if number is None:
            return 0

        def ended(completion: Any, data: bytes) -> None:
            done.put((number, data))

        objects.aio_read(keys[number], nbytes, 0, ended)
        return 1

    def written(completion: Any) -> None:
        assert completion.get_return_value() == 0
        done.put((0, None))

    under_way = sum(read() for _ in range(IN_FLIGHT))
    while under_way:
        number, data = done.get()
        if data is None:
            under_way += read() - 1
        else:
            result = np.sqrt(np.frombuffer(data, values.dtype))
            objects.aio_write_full(targets[number], result.tobytes(), written)


def report(
    label: str,
    work: dict[str, Work],
    nbytes: int,
    rounds: int,
    after: Work = lambda: None,
) -> None:
    """Time each contestant's work in turn, and print the medians of the rounds.

    What `after` does after each is not timed.
    """
    times: dict[str, list[float]] = {name: [] for name in work}
    names = list(work)
    for turn in range(rounds + 1):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            begin = time.perf_counter()
            work[name]()
            if turn:
                times[name].append(time.perf_counter() - begin)
            after()
    bare = times[names[0]]
    cells = []
    for name, taken in times.items():
        ratio = statistics.median(b / t for b, t in zip(bare, taken, strict=True))
        cells.append(f"{name} {nbytes / statistics.median(taken) / 1e6:.0f}, {ratio:.2f} x")
    print(f"{label}: {'; '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
