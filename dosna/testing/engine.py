"""Conformance of an engine: the same results, errors that arrive, and work in parallel.

The file is long because its tests are one class, which a backend or engine takes as a whole.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import dosna as dn
from dosna import errors
from dosna.core.types import Array
from dosna.engines import registry as engines
from dosna.testing import doubles
from dosna.testing.base import MakeConnection
from dosna.testing.operations import PADDINGS, neighbours
from dosna.testing.samples import check, indices, sample
from dosna.testing.timing import patience

Engine = tuple[str, dict[str, Any]]
Run = Callable[[str], "subprocess.Popen[str]"]

SLEEP = 0.1
"""The seconds that a chunk takes in the tests of parallel work."""


class DemandingError(Exception):
    """An exception that cannot be made from its ``args``, and so not unpickled as others."""

    def __init__(self, value: int, unit: str) -> None:
        super().__init__(f"{value} {unit} are too many")


def sleep_over(block: Array) -> Array:
    """Return a block after `SLEEP` seconds."""
    time.sleep(SLEEP)
    return block


def sleep_and_tell(block: Array) -> Array:
    """Return an array whose first two elements are the times when this call began and ended."""
    begin = time.time()
    time.sleep(SLEEP)
    result = np.zeros_like(block)
    result[:2] = begin, time.time()
    return result


class EngineTests:
    """Tests that every engine passes; subclass it with one fixture.

    ::

        class TestMyEngine(EngineTests):
            @pytest.fixture
            def engine(self):
                return "myengine", {"workers": 4}

    They run on ram if the engine's workers share memory, and on hdf5 otherwise.
    """

    script_seconds: ClassVar[float] = 100
    """The seconds for a script to start an interpreter and the engine's workers, and to end."""

    processes: ClassVar[int] = 1
    """The number of processes that have a memory limit each to itself."""

    @pytest.fixture
    def engine(self) -> Engine:
        """Return the engine's name and its ``engine_kw``."""
        raise NotImplementedError("a subclass of EngineTests has a fixture engine")

    @pytest.fixture
    def runner(self, engine: Engine) -> Any:
        """Return a runner of the engine."""
        return engines.get(engine[0]).runner(**engine[1])

    @pytest.fixture
    def arguments(self, engine: Engine, runner: Any, tmp_path: Path) -> dict[str, Any]:
        """Return the arguments of a connection, which another process can use too."""
        where = {"backend": "ram", "name": str(tmp_path)}
        if not runner.shares_memory:
            pytest.importorskip("h5py")
            where["backend"] = "hdf5"
        return {**where, "engine": engine[0], "engine_kw": engine[1]}

    @pytest.fixture
    def make_connection(self, arguments: dict[str, Any]) -> MakeConnection:
        """Return a callable that makes connections under the engine."""
        return lambda: dn.Connection(**arguments)

    @pytest.fixture
    def slow(self, engine: Engine, runner: Any, tmp_path: Path) -> MakeConnection:
        """Return a callable that makes connections to a store that sleeps at each request."""
        if runner.shares_memory:
            store = doubles.MemoryStore()
            doubles.use_store(f"{tmp_path}/fast", store)
            doubles.use_store(f"{tmp_path}/slow", doubles.SlowStore(store, SLEEP))
            return lambda speed="slow": dn.Connection(  # type: ignore[misc]
                f"{tmp_path}/{speed}", backend="memory", engine=engine[0], engine_kw=engine[1]
            )
        return lambda speed="slow": dn.Connection(  # type: ignore[misc]
            str(tmp_path),
            backend="folder",
            engine=engine[0],
            engine_kw=engine[1],
            seconds=SLEEP * (speed == "slow"),
        )

    @pytest.fixture
    def run(self, arguments: dict[str, Any], tmp_path: Path) -> Iterator[Run]:
        """Yield a function that starts a script, in which ``con`` is a connection.

        The script runs in a session of its own. All processes of the session are killed after
        the test.
        """
        start = f"""
            import os, signal, sys, time
            import numpy as np
            import dosna as dn
            # The tests may have been started with SIGINT ignored, as by nohup.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            con = dn.Connection(**{arguments!r})
            con.connect()
        """
        started = []

        def run(script: str) -> subprocess.Popen[str]:
            with open(tmp_path / ".stderr", "w") as stderr:
                process = subprocess.Popen(
                    [sys.executable, "-c", textwrap.dedent(start) + textwrap.dedent(script)],
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    text=True,
                    start_new_session=True,
                )
            started.append(process)
            return process

        yield run
        for process in started:
            # Workers may outlive the script that started them.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            print((tmp_path / ".stderr").read_text())

    def seconds_of(self, call: Callable[[], object]) -> float:
        """Return the seconds that a call takes.

        Where several processes run the test together, the result must be the same in all.
        """
        begin = time.perf_counter()
        call()
        return time.perf_counter() - begin

    def check_speed(self, call: Callable[[], object], workers: int) -> None:
        """Assert that eight chunks of `SLEEP` run in parallel: below 0.5 s with four workers."""
        limit = 8 * SLEEP / min(workers, 8) + patience(0.3)
        if workers == 1:
            limit = math.inf  # which a busy machine may need, and nothing is in parallel
        for _ in range(6):
            seconds = self.seconds_of(call)
            # A machine that is busy with other work gets another chance.
            if seconds < limit:
                return
        raise AssertionError(f"eight times {SLEEP} s took {seconds} s with {workers} workers")

    # -- results --------------------------------------------------------------------------

    def test_results_equal_those_of_one_thread(self, make_connection: MakeConnection) -> None:
        data = sample((60, 21, 13), "<f4", 5) / 7
        results: list[list[Any]] = []
        with make_connection() as con, dn.Connection("one", backend="ram", engine="cpu") as one:
            for place in (con, one):
                ds = place.create_dataset("a", data=data, chunk_size=(7, 8, 9), fillvalue=2)
                ds.resize((61, 22, 13))
                ds.append(np.ones((2, 22, 13)))
                found: list[Any] = [ds[...], ds[::-2, 3:, [0, 5, 5]], ds[ds[...] > 3]]
                ds[5:50, ::3] = np.arange(13)
                ds[[1, 40], :, 2] = 0.25
                for number, mode in enumerate(PADDINGS):
                    out = ds.map(neighbours, f"m{number}", halo=3, boundary=mode)
                    found.append(out[...])
                ds.apply(np.square)
                found += [ds[...], ds.clone("c", data=True)[...]]
                found += [ds.sum(), ds.mean(), ds.min(), ds.max()]
                found += [ds.map(np.isfinite, "finite").sum(), len(ds.written_chunks())]
                ds.clear()
                found += [len(ds.written_chunks()), ds.sum()]
                results.append(found)
                for made in list(place):
                    place.del_dataset(made)
        for ours, theirs in zip(*results, strict=True):
            check(ours, theirs)

    def test_large_requests_equal_numpy(self, make_connection: MakeConnection) -> None:
        data = np.arange(3_000_000.0).reshape(3000, 1000)
        with make_connection() as con:
            ds = con.create_dataset("a", data=data, chunk_size=(512, 300))
            check(ds[...], data)
            check(ds[2900:7:-3, ::-1], data[2900:7:-3, ::-1])
            check(ds[:, 1::2], data[:, 1::2])
            ds[::-1] = data
            check(ds[...], data[::-1])
            ds.apply(np.negative)
            assert ds.sum() == -data.sum()

    def test_indices_read_and_write_as_in_numpy(self, make_connection: MakeConnection) -> None:
        model = sample((7, 10, 9), "<i4", 1)
        with make_connection() as con:
            ds = con.create_dataset("a", data=model, chunk_size=(3, 4, 5))
            for number, key in enumerate(indices()):
                check(ds[key], model[key], key)
                model[key] = number
                ds[key] = number
            check(ds[...], model)

    def test_any_callable_works(self, make_connection: MakeConnection) -> None:
        class Scale:
            def __init__(self, factor: int) -> None:
                self.factor = factor

            def __call__(self, block: Array) -> Array:
                return block * self.factor

        factor = 3
        with make_connection() as con:
            ds = con.create_dataset("a", data=np.arange(20), chunk_size=6)
            calls: list[Callable[[Any], Any]] = [
                lambda block: block * factor,
                Scale(factor),
                Scale(factor).__call__,
            ]
            for number, func in enumerate(calls):
                check(ds.map(func, f"m{number}")[...], np.arange(20) * 3)

    def test_sources_that_cannot_be_pickled(self, make_connection: MakeConnection) -> None:
        class Source:
            shape, dtype = (20, 3), np.dtype("i8")

            def __init__(self) -> None:
                self.lock = threading.Lock()

            def __getitem__(self, key: Any) -> Array:
                with self.lock:
                    block: Array = np.arange(60).reshape(20, 3)[key]
                    return block

        with make_connection() as con:
            ds = con.create_dataset("a", data=Source(), chunk_size=(6, 2))
            check(ds[...], np.arange(60).reshape(20, 3))
            ds.clear()
            ds[...] = Source()
            check(ds[...], np.arange(60).reshape(20, 3))

    # -- errors ---------------------------------------------------------------------------

    def test_errors_of_functions_arrive(self, make_connection: MakeConnection) -> None:
        class LocalError(Exception):
            pass

        class Holder(Exception):
            def __init__(self, text: str) -> None:
                super().__init__(text)
                self.lock = threading.Lock()

        def broken(block: Array, error: Any) -> Array:
            if 9 in block:
                raise error()
            return block

        cases: list[tuple[type[Exception], Any, str]] = [
            (ZeroDivisionError, lambda: ZeroDivisionError("by nothing"), "by nothing"),
            (KeyError, lambda: KeyError("which"), "which"),
            (errors.StorageError, lambda: errors.StorageError("disk full"), "disk full"),
            (DemandingError, lambda: DemandingError(7, "chunks"), "7 chunks are too many"),
            (LocalError, lambda: LocalError("local"), "local"),
            (Holder, lambda: Holder("cannot be pickled"), "cannot be pickled"),
        ]
        with make_connection() as con:
            ds = con.create_dataset("a", data=np.arange(20), chunk_size=4)
            for kind, error, text in cases:
                func = partial(broken, error=error)
                calls: list[Callable[[], object]] = [
                    partial(ds.map, func, "b", dtype="i8"),
                    partial(ds.apply, func),
                ]
                for call in calls:
                    with pytest.raises(Exception, match=text) as caught:
                        call()
                    assert type(caught.value) is kind, caught.value
                    assert "b" not in con
            check(ds[...], np.arange(20))

    def test_a_mask_is_an_error(self, make_connection: MakeConnection) -> None:
        def masked(block: Array) -> Array:
            return np.ma.masked_greater(block, 17)

        class Source:
            shape, dtype = (20,), np.dtype("i8")

            def __getitem__(self, key: tuple[slice, ...]) -> Array:
                return masked(np.arange(20)[key])

        with make_connection() as con:
            ds = con.create_dataset("a", data=np.arange(20), chunk_size=4)
            calls: list[Callable[[], object]] = [
                lambda: ds.map(masked, "b"),
                lambda: ds.map(masked, "b", halo=1, dtype="i8"),
                lambda: ds.apply(masked),
                lambda: ds.load(Source()),
                lambda: ds.compare(Source()),
                lambda: ds.compare(masked(np.arange(20))),
            ]
            for call in calls:
                with pytest.raises(TypeError, match="no mask"):
                    call()
                assert "b" not in con
            check(ds[...], np.arange(20))

    def test_errors_of_the_store_arrive(self, make_connection: MakeConnection) -> None:
        with make_connection() as con:
            ds = con.create_dataset("a", data=np.arange(20), chunk_size=4)
            con.del_dataset("a")
            calls: list[Callable[[], object]] = [
                lambda: ds[...],
                lambda: ds.sum(),
                lambda: ds.apply(np.negative),
                lambda: ds.load(np.arange(20)),
                lambda: ds.__setitem__(slice(None), 1),
            ]
            for number, call in enumerate(calls):
                with pytest.raises(errors.DatasetNotFoundError):
                    print(number, call())

    def test_an_error_stops_the_rest(self, make_connection: MakeConnection) -> None:
        def first_fails(block: Array) -> Array:
            if 0 in block:
                raise ZeroDivisionError
            time.sleep(rest)
            return -block

        rest = patience(0.05)
        with make_connection() as con:
            ds = con.create_dataset("a", data=np.arange(200), chunk_size=2)
            with pytest.raises(ZeroDivisionError):
                ds.apply(first_fails)
            assert (ds[...] < 0).sum() < 100

    # -- in parallel ----------------------------------------------------------------------

    def test_functions_run_in_parallel(self, make_connection: MakeConnection, runner: Any) -> None:
        with make_connection() as con:
            ds = con.create_dataset("a", data=np.arange(16.0), chunk_size=2)
            ds.map(np.sqrt, "warm")
            numbers = count()
            calls: list[Callable[[], object]] = [
                lambda: ds.map(sleep_over, f"m{next(numbers)}", dtype="f8"),
                lambda: ds.apply(sleep_over),
            ]
            for call in calls:
                self.check_speed(call, runner.workers)

    def test_requests_run_in_parallel(self, slow: Any, runner: Any) -> None:
        with slow("fast") as con:
            con.create_dataset("a", data=np.arange(16.0), chunk_size=2)
            con.create_dataset("b", data=np.arange(16.0), chunk_size=2)
        with slow() as con:
            ds = con["a"]
            out = np.empty(16)
            calls: list[Callable[[], object]] = [
                lambda: ds.read(out=out),
                lambda: ds[[15, 13, 11, 9, 7, 5, 3, 1]],
                lambda: ds.__setitem__(slice(None), out),
                lambda: ds.load(out),
                lambda: ds.sum(),
                lambda: ds.verify(),
            ]
            for call in calls:
                self.check_speed(call, min(runner.threads, runner.workers))
            check(out, np.arange(16.0))

    def test_a_memory_limit_bounds_how_many_work(
        self, make_connection: MakeConnection, runner: Any
    ) -> None:
        with make_connection() as con:
            ds = con.create_dataset("a", (800,), "f8", chunk_size=100)
            ds.map(np.sqrt, "warm")
            # The block, the result, and a copy of each in its place.
            for chunks, most in [(4, 1), (8, 2)]:
                out = ds.map(sleep_and_tell, f"m{most}", "f8", memory_limit=chunks * 800)
                begin, end = out[::100], out[1::100]
                assert (
                    max(np.sum((begin <= t) & (t < end)) for t in begin) <= most * self.processes
                )
            with pytest.raises(errors.MemoryLimitError):
                ds.map(sleep_and_tell, "never", memory_limit=799)
            assert "never" not in con

    def test_progress_counts_to_the_end(self, make_connection: MakeConnection) -> None:
        calls: list[tuple[int, int]] = []
        threads = set()

        def tell(done: int, total: int) -> None:
            calls.append((done, total))
            threads.add(threading.get_ident())

        with make_connection() as con:
            ds = con.create_dataset("a", data=np.arange(100), chunk_size=3)
            ds.map(np.sqrt, "b", progress=tell)
        assert (calls[0], calls[-1]) == ((0, 34), (34, 34))
        assert calls == sorted(calls)
        assert threads == {threading.get_ident()}

    def test_functions_may_use_datasets(self, make_connection: MakeConnection) -> None:
        with make_connection() as con:
            ds = con.create_dataset("a", data=np.arange(32.0), chunk_size=2)
            table = con.create_dataset("t", data=np.arange(300_000.0), chunk_size=30_000)

            def nested(block: Array) -> Array:
                own = f"own-{int(block[0])}"
                roots = table.map(np.sqrt, own)
                total = roots[[4, 9]].sum() + table.sum() - table[...].sum()
                roots.delete()
                result: Array = block + total
                return result

            check(ds.map(nested, "b")[...], np.arange(32.0) + 5)
            assert sorted(con) == ["a", "b", "t"]

    def test_threads_may_share_a_connection(self, make_connection: MakeConnection) -> None:
        with make_connection() as con:
            ds = con.create_dataset("a", data=np.arange(40.0), chunk_size=3)
            found: dict[int, Any] = {}

            def use(number: int) -> None:
                found[number] = ds.map(lambda b: b + number, f"m{number}")[...], ds.sum()

            threads = [threading.Thread(target=use, args=(n,)) for n in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            for number in range(4):
                check(found[number][0], np.arange(40.0) + number)
                assert found[number][1] == 780

    # -- processes ------------------------------------------------------------------------

    @pytest.mark.parametrize("seconds", [0.05, 20])
    def test_ctrl_c_stops_within_a_second(self, run: Run, seconds: float) -> None:
        process = run(f"""
            ds = con.create_dataset("a", data=np.zeros((400, 1000)), chunk_size=(1, 1000))
            ds.map(np.sqrt, "warm")
            def slow(block):
                time.sleep({seconds})
                return block + 1
            def tell(done, total):
                os.write(1, b"begun\\n")  # by one call, which Ctrl-C does not interrupt
            for use in (lambda: ds.apply(slow, progress=tell),
                        lambda: ds.map(slow, "b", dtype="f8", progress=tell)):
                try:
                    use()
                except KeyboardInterrupt:
                    print(time.time(), flush=True)
                assert list(con) == ["a", "warm"], list(con)
                rows = ds[...]
                assert (rows == rows[:, :1]).all()
                assert rows.max() <= 1
                assert ds.map(np.negative, "after").sum() == -rows.sum()
                con.del_dataset("after")
            print("usable", flush=True)
        """)
        assert process.stdout is not None
        lines = iter(process.stdout)
        for _ in range(2):
            assert next(lines, "") == "begun\n"
            time.sleep(0.4)
            sent = time.time()
            # As a terminal does: to the script and to its workers alike.
            os.killpg(process.pid, signal.SIGINT)
            line = next((line for line in lines if line != "begun\n"), "nothing")
            assert float(line) - sent < patience(1)
        assert next(lines, "") == "usable\n"

    def test_a_forked_child_works_or_raises_at_once(self, run: Run) -> None:
        process = run("""
            import warnings
            warnings.simplefilter("ignore")
            ds = con.create_dataset("a", data=np.arange(40.0), chunk_size=3)
            ds.map(np.sqrt, "warm")
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    assert ds.map(np.negative, "b").sum() == -780
                    assert ds[...].sum() == 780
                    ds[:] = 1
                    status = 0
                except dn.errors.DosnaError:
                    status = 0
                finally:
                    os._exit(status)
            print(os.waitpid(child, 0)[1], float(ds.map(np.sqrt, "c").min()), flush=True)
        """)
        assert process.stdout is not None
        assert process.stdout.readline() in ("0 0.0\n", "0 1.0\n")

    def test_a_script_ends_by_itself_and_says_nothing(self, run: Run, tmp_path: Path) -> None:
        process = run("""
            ds = con.create_dataset("a", data=np.arange(40.0), chunk_size=3)
            print(ds.map(np.negative, "b").sum(), flush=True)
        """)
        assert process.wait(self.script_seconds) == 0
        assert process.stdout is not None
        assert process.stdout.readline() == "-780.0\n"
        assert (tmp_path / ".stderr").read_text() == ""
