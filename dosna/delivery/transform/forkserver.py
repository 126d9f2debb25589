"""The process that forks a confined process for each file.

It has imported the packages that selections need, so that a fork takes milliseconds. It holds no
secrets: its environment is empty, and a job is read after the fork. It has only one thread.
`dosna.delivery.transform.client` is the other side.
"""

from __future__ import annotations

import gc
import json
import os
import select
import selectors
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from dosna.delivery.transform.child import serve_job
from dosna.delivery.transform.sandbox.confining import libraries
from dosna.delivery.transform.sandbox.kernel import die_with_parent

__all__ = ["main"]

_HANDLES = 2
"""The number of handles that come with a job: the socket for its text and answer, and the log."""

_LOOK = 0.1
"""The seconds between two looks at the limits."""

_MOST_FILES = 1000
"""The most files of a job, which a file system may have too few of."""


@dataclass
class _Child:
    """A running process."""

    process: int
    handle: int
    answers: socket.socket
    scratch: str
    deadline: float
    disk: int
    reason: str = ""

    def look(self) -> None:
        """Kill the process if it has exceeded a limit."""
        if time.monotonic() > self.deadline:
            self.kill("time")
        elif _is_left(self.answers):
            self.kill("left")
        elif max(_written(self.process), _occupied(self.scratch)) > self.disk:
            self.kill("disk")

    def kill(self, reason: str) -> None:
        """Kill the process."""
        self.reason = self.reason or reason
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.handle, signal.SIGKILL)

    def finish(self) -> None:
        """Report how the process has ended."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process, signal.SIGKILL)  # processes that an unconfined one has started
        _, status = os.waitpid(self.process, 0)
        os.close(self.handle)
        ended = {"code": os.waitstatus_to_exitcode(status), "reason": self.reason}
        with suppress(OSError):
            # The process may have filled the buffer without anybody reading it.
            self.answers.settimeout(5)
            self.answers.sendall(b"\n" + json.dumps({"ended": ended}).encode() + b"\n")
        self.answers.close()


def _is_left(answers: socket.socket) -> bool:
    """Return whether the answers are no longer waited for."""
    poll = select.poll()
    poll.register(answers, 0)  # only POLLHUP and errors
    return bool(poll.poll(0))


def _written(process: int) -> int:
    """Return the number of bytes written by a process; 0 if the kernel does not count them."""
    try:
        with open(f"/proc/{process}/io") as file:
            return next(int(line[7:]) for line in file if line.startswith("wchar: "))
    except (OSError, StopIteration):
        return 0


def _occupied(folder: str) -> float:
    """Return the disk space of the files in a folder; infinity if there are very many files."""
    total = 0
    with suppress(OSError), os.scandir(folder) as entries:
        for number, entry in enumerate(entries):
            if number > _MOST_FILES:
                return float("inf")
            with suppress(FileNotFoundError):
                total += entry.stat(follow_symlinks=False).st_blocks * 512
    return total


def main(number: int, modules: Sequence[str], rehearsed: bool = True) -> None:
    """Serve until the other side closes the socket.

    Parameters
    ----------
    number : int
        The socket, of the kind SOCK_SEQPACKET.
    modules : sequence of str
        The modules to import first. Those with a question mark may be missing.
    rehearsed : bool
        Whether to run a small job first.
    """
    control = socket.socket(fileno=number)
    try:
        for name in modules:
            with suppress(*((ImportError,) if name[0] == "?" else ())):
                import_module(name.lstrip("?"))
        if rehearsed:
            import_module("dosna.delivery.transform.rehearsal").rehearse()
        libraries()
    except Exception as error:
        control.send(json.dumps({"failed": f"{type(error).__name__}: {error}"}).encode())
        return
    gc.collect()
    gc.freeze()
    threads = len(os.listdir("/proc/self/task"))
    control.send(json.dumps({"ready": os.getpid(), "threads": threads}).encode())
    _serve(control)


def _serve(control: socket.socket) -> None:
    children: dict[int, _Child] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select(_LOOK if children else None):
                if key.fd in children:
                    child = children.pop(key.fd)
                    selector.unregister(key.fd)
                    child.finish()
                    continue
                begun = _begin(control)
                if begun is None:
                    for child in children.values():
                        child.kill("end")
                    return
                children[begun.handle] = begun
                selector.register(begun.handle, selectors.EVENT_READ)
            for child in children.values():
                child.look()


def _begin(control: socket.socket) -> _Child | None:
    """Fork a process for the next job; return None if there are no more jobs."""
    text, handles, *_ = socket.recv_fds(control, 1 << 16, _HANDLES)
    if not text:
        return None
    given: dict[str, Any] = json.loads(text)
    server = os.getpid()
    process = os.fork()
    if process == 0:
        code = 1
        try:
            die_with_parent(signal.SIGKILL)
            if os.getppid() == server:
                code = serve_job(handles[0], handles[1])
        finally:
            os._exit(code)
    os.close(handles[1])
    return _Child(
        process,
        os.pidfd_open(process),
        socket.socket(fileno=handles[0]),
        given["scratch"],
        time.monotonic() + given["seconds"],
        given["disk"],
    )
