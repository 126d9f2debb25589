"""Selections that would do harm fail with an error of their own, and harm nobody."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import socket
import textwrap
import threading
import time
from pathlib import Path

import pytest
from support import require, wait_until

ak, uproot = require("awkward"), require("uproot")
require("pyarrow")

from dosna.delivery.transform import (  # noqa: E402
    FORMATS,
    Limits,
    TransformRequest,
    client,
    running,
    transform,
)
from dosna.delivery.transform.sandbox import lacking  # noqa: E402
from dosna.errors import (  # noqa: E402
    ConfigurationError,
    LimitError,
    QueryError,
    StorageError,
    WorkerError,
)

confined = pytest.mark.skipif(bool(lacking()), reason=lacking() or "-")


@pytest.fixture
def events():
    return require("skhep_testdata").data_path("uproot-HZZ.root")


def run(folder, source, body, format="parquet", **more):
    """Run the body of a function as a Python selection."""
    text = "def run_query(path):\n" + textwrap.indent(textwrap.dedent(body), "    ")
    selection = base64.b64encode(text.encode()).decode()
    name = "result" + FORMATS[format]
    return transform(
        TransformRequest(str(source), "python", selection, format, str(folder), name, **more)
    )


REFUSED = r"ermitted|ermission|cross-device|Cannot allocate|not allowed|ZeroDivision"
RETURN = "import awkward as ak\nreturn ak.Array({'x': [1]})\n"


@confined
@pytest.mark.parametrize(
    "probe",
    [
        "open('{secret}').read()",
        "open('/etc/passwd').read()",
        "import os; os.listdir('{folder}')",
        "import os; os.listdir('/')",
        "open('/proc/self/environ').read()",
        "open('/proc/{parent}/mem')",
        "open('{secret}', 'w')",
        "open('{folder}/new', 'w')",
        "import os; os.chmod('{secret}', 0o777)",
        "import os; os.utime('{secret}')",
        "import os; os.truncate('{secret}', 0)",
        "import os; os.remove('{secret}')",
        "import os; os.rename('{secret}', 'mine')",
        "import os; os.link('{secret}', 'mine')",
        "import os; os.symlink('{secret}', 'mine')",
        "import os; os.mkfifo('pipe')",
        "import os; os.mkdir('folder')",
        "open('{input}', 'r+b')",
        "import os; os.fork()",
        "import os; os.system('true') and 1/0",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.execv('/bin/true', ['true'])",
        "import socket; socket.socket()",
        "import socket; socket.socket(socket.AF_UNIX)",
        "import os; os.kill({parent}, 0)",
        "import os; os.kill(os.getppid(), 0)",
        "import os; os.killpg(0, 0)",
        "import signal; signal.pidfd_send_signal(0, 0)",
        "import os; os.setpriority(os.PRIO_PROCESS, {parent}, 19)",
        "import os; os.sched_setaffinity({parent}, [0])",
        "import fcntl, os; fcntl.fcntl(0, fcntl.F_SETOWN, {parent})",
        "import resource as r; r.setrlimit(r.RLIMIT_FSIZE, (1, 1))",
        "import os; os.memfd_create('m')",
        "import mmap; mmap.mmap(-1, 1 << 20)",
        "import os; os.setxattr('{secret}', 'user.a', b'1')",
    ],
)
def test_what_is_beyond_its_files_is_refused(tmp_path, events, probe):
    secret, folder, out = tmp_path / "secret", tmp_path / "service", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    secret.write_text("password")
    before = secret.stat()
    values = {"secret": secret, "folder": folder, "parent": os.getpid(), "input": events}
    with pytest.raises(QueryError, match=REFUSED):
        run(out, events, probe.format(**values) + "\n" + RETURN)
    assert secret.read_text() == "password"
    assert secret.stat().st_mode == before.st_mode
    assert secret.stat().st_mtime_ns == before.st_mtime_ns
    assert list(folder.iterdir()) == list(out.iterdir()) == []


@confined
def test_only_the_file_that_was_opened_is_read(tmp_path, events):
    source, out = tmp_path / "events.root", tmp_path / "out"
    for copy in (source, tmp_path / "other.root"):
        shutil.copy(events, copy)
    out.mkdir()
    body = """
        import os, time
        open(path).close()
        open("ready", "w").close()
        while not os.path.islink(path):
            time.sleep(0.01)
        open(path).close()
    """

    def replace():
        wait_until(lambda: list(out.glob(".transform-*/work/ready")))
        (tmp_path / "link").symlink_to("other.root")
        os.replace(tmp_path / "link", source)

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        with pytest.raises(QueryError, match="ermission"):
            run(out, source, textwrap.dedent(body) + RETURN, within=(str(tmp_path),))
    finally:
        thread.join()
    assert source.is_symlink()


@confined
def test_tracing_is_refused(tmp_path, events):
    body = """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        asked = {"ptrace": (16, PARENT, 0, 0), "shmget": (0, 4096, 0o1600), "unshare": (1 << 28,)}
        for name, arguments in asked.items():
            assert getattr(libc, name)(*arguments) == -1, name
            assert ctypes.get_errno() == 1, name
    """.replace("PARENT", str(os.getpid()))
    assert run(tmp_path, events, textwrap.dedent(body) + RETURN).rows == 1


@confined
def test_its_environment_has_no_secrets(tmp_path, events, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a secret of the service")
    body = """
        import os, socket
        print(sorted(os.environ.items()))
        for number in range(3, 256):
            try:
                print(number, os.fstat(number))
            except OSError:
                pass
    """
    result = run(tmp_path, events, textwrap.dedent(body) + RETURN)
    assert "TMPDIR" in result.log
    assert "secret" not in result.log
    # Its answers are all that it has beside the standard handles.
    assert [line.split()[0] for line in result.log.splitlines()[1:]] == ["3"]


@confined
def test_memory_time_space_and_processes_are_limited(tmp_path, events):
    small = Limits(memory="256 MiB", seconds=60, disk="8 MiB")
    for probe, noun in {
        "held = [bytearray(1 << 24) for _ in range(1000)]": "memory",
        "import numpy; numpy.ones(1 << 30)": "memory",
        "open('big', 'wb').write(bytes(1 << 25))": "disk|files|File too large",
        "while True: open('f', 'wb').write(bytes(1 << 20))": "files",
        "for n in range(10**7): open(str(n), 'w').close()": "files",
        "import os\nwhile True: os.fork()": "Permission|not permitted",
        "import threading as t\nwhile True: t.Thread(target=t.Event().wait).start()": "start",
    }.items():
        with pytest.raises((LimitError, QueryError), match=noun):
            run(tmp_path, events, probe + "\n" + RETURN, limits=small)
    begun = time.monotonic()
    with pytest.raises(LimitError, match="seconds"):
        run(tmp_path, events, "import time; time.sleep(900)", limits=Limits(seconds=0.5))
    assert time.monotonic() - begun < 300
    assert list(tmp_path.iterdir()) == []


@confined
def test_a_process_that_dies_or_lies_fails_alone(tmp_path, events):
    for probe in (
        "import os; os._exit(0)",
        "import os; os.abort()",
        "import ctypes; ctypes.string_at(0)",
        "import os; os.write(3, b'{\"rows\": 7}\\n'); os._exit(0)",
        "import os; os.write(3, b'{\"error\": 5}\\n[]\\n\\xff\\n'); os._exit(0)",
        'import os; os.write(3, b\'{"error": ["Exception", 1]}\\n\'); os._exit(0)',
        "import os; os.write(3, bytes(9 << 20)); os._exit(0)",
    ):
        with pytest.raises(WorkerError):
            run(tmp_path, events, probe)
    assert list(tmp_path.iterdir()) == []


@confined
def test_others_go_on_while_one_is_killed(tmp_path, events):
    """One server, several files at a time: a limit ends its own process only."""
    results = []

    def work(seconds, number):
        folder = tmp_path / str(number)
        folder.mkdir()
        body = f"import time; time.sleep({seconds})\n" + RETURN
        try:
            results.append(run(folder, events, body, limits=Limits(seconds=1)).rows)
        except LimitError as error:
            results.append(str(error))

    threads = [threading.Thread(target=work, args=(30 * (n % 2), n)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(one, str) and "seconds" in one for one in results) >= 2
    assert len(results) == 4


@confined
def test_a_killed_server_is_named_and_replaced(tmp_path, events):
    run(tmp_path, events, RETURN)
    server = client.server_of()._process.pid

    def kill():
        # A server that dies before it has the job is replaced without a word.
        wait_until(lambda: list(tmp_path.glob(".transform-*/work/ready")))
        os.kill(server, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(WorkerError, match="server"):
            run(tmp_path, events, "import time; open('ready', 'w').close(); time.sleep(600)")
    finally:
        killer.join()
    assert run(tmp_path, events, RETURN).rows == 1


@confined
def test_a_process_that_nobody_waits_for_is_killed(tmp_path, events, monkeypatch):
    class Left(Exception):
        pass

    def leave(connection):
        raise Left

    run(tmp_path, events, RETURN)
    server = client.server_of()._process.pid
    monkeypatch.setattr(client, "_answers", leave)
    with pytest.raises(Left):
        run(tmp_path, events, "import time; time.sleep(900)")
    children = Path(f"/proc/{server}/task/{server}/children")
    wait_until(lambda: children.read_text().strip() == "")


@confined
def test_what_it_needs_is_allowed(tmp_path, events):
    body = """
        import os, tempfile, threading, asyncio, uproot, awkward as ak, numpy as np
        print("at work")
        with tempfile.TemporaryFile() as file, tempfile.NamedTemporaryFile() as other:
            file.write(b"a")
            open(other.name).close()
        thread = threading.Thread(target=print)
        thread.start()
        thread.join()
        asyncio.run(asyncio.sleep(0))
        os.kill(os.getpid(), 0)
        np.linalg.svd(np.ones((64, 64)))
        with uproot.open(path + ":events") as tree:
            return {"events": tree.arrays(["MET_px", "Muon_Px"]), "other": ak.Array([1, 2])}
    """
    for format in FORMATS:
        result = run(tmp_path, events, body, format)
        assert "at work" in result.log
    with uproot.open(events) as file:
        expected = file["events"].arrays(["MET_px", "Muon_Px"])
    result = run(tmp_path, events, body, "root-rntuple")
    with uproot.open(result.path) as file:
        assert ak.array_equal(file["events"].arrays(), expected)
        assert file["other"].arrays().branch.tolist() == [1, 2]
    result = run(tmp_path, events, body)
    assert ak.array_equal(ak.from_parquet(result.path), expected)
    assert "other" in result.log


@pytest.mark.parametrize(
    ("source", "noun"),
    [
        ("def run_query(path): return 1", "awkward"),
        ("def run_query(path): return {}", "no trees"),
        ("def run_query(path): return {'a': 1}", "'a'"),
        ("def other(path): pass", "other"),
        ("def run_query(path) return 1", "parsed"),
        ("import absent_package", "absent_package"),
        ("def run_query(path):\n    return 1 / 0", "line 2: return 1 / 0"),
        (
            "import uproot\ndef run_query(path): return uproot.open(path)['none'].arrays()",
            "events",
        ),
    ],
)
@confined
def test_errors_of_python_selections(tmp_path, events, source, noun):
    selection = base64.b64encode(source.encode()).decode()
    with pytest.raises((QueryError, OSError), match=noun):
        transform(TransformRequest(events, "python", selection, "arrow", str(tmp_path), "r"))


def test_base64_is_checked(tmp_path, events):
    with pytest.raises(QueryError, match="base64"):
        transform(TransformRequest(events, "python", "é!", "arrow", str(tmp_path), "r"))


def test_where_the_kernel_cannot_confine(tmp_path, events, monkeypatch):
    monkeypatch.setattr(running, "lacking", lambda: "this kernel has no Landlock")
    with pytest.raises(ConfigurationError, match="Landlock"):
        run(tmp_path, events, RETURN)
    assert run(tmp_path, events, RETURN, unconfined=True).rows == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "result.parquet"]


def test_a_server_does_not_outlive_its_service(tmp_path):
    server = client.ForkServer(os.sys.executable)
    control, process = server._start()
    control.close()
    assert process.wait() == 0
    assert isinstance(control, socket.socket)


@confined
def test_a_full_disk_is_no_fault_of_a_selection(tmp_path, events, monkeypatch):
    body = "raise OSError(28, 'No space left on device')"
    with pytest.raises(LimitError, match="of files"):
        run(tmp_path, events, body)
    monkeypatch.setattr(running, "_LEAST_FREE", 1 << 80)
    with pytest.raises(StorageError, match="no space"):
        run(tmp_path, events, body)
    # It is one, if most of the limit is its own.
    big = f"open('big', 'wb').write(bytes(60_000))\n{body}"
    with pytest.raises(LimitError, match="of files"):
        run(tmp_path, events, big, limits=Limits(disk=100_000))
    assert list(tmp_path.iterdir()) == []


@confined
@pytest.mark.parametrize("name", ["StorageError", "ConnectionError"])
def test_errors_that_are_tried_again_cannot_be_pretended(tmp_path, events, name):
    with pytest.raises(WorkerError, match="a lie"):
        run(tmp_path, events, f"from dosna import errors; raise errors.{name}('a lie')")
