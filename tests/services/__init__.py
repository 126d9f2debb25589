"""Real services for tests: each is started here, on free ports of loopback, and ended again."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

CEPH = Path(__file__).with_name("ceph.py")
DEBIAN_PYTHON = "/usr/bin/python3"


class Ceph:
    """A cluster that was started by `start_ceph`.

    Attributes
    ----------
    conf, folder : str
        The configuration file, and the folder of everything.
    pids : dict of str to int
        By the daemon's name: ``mon.a``, ``osd.0``, ``rgw``.
    endpoint_url, access_key, secret_key : str
        Of the S3 gateway.
    """

    conf: str
    folder: str
    pids: dict[str, int]
    endpoint_url: str
    access_key: str
    secret_key: str

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._read()

    def _read(self) -> None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the Ceph cluster did not start: {self._process.wait()}")
        self.__dict__.update(json.loads(line))

    def _do(self, command: str, name: str) -> Self:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command} {name}\n")
        self._process.stdin.flush()
        self._read()
        return self

    def kill(self, name: str) -> None:
        """Kill a daemon."""
        self._do("kill", name)

    def start(self, name: str) -> None:
        """Start a daemon that was killed; a gateway listens when this returns."""
        self._do("start", name)

    def pause(self, name: str) -> None:
        """Stop a daemon where it stands."""
        self._do("pause", name)

    def resume(self, name: str) -> None:
        """Let a paused daemon go on."""
        self._do("resume", name)


@contextmanager
def start_ceph(*arguments: str) -> Iterator[Ceph]:
    """Start a cluster with the arguments of ``ceph.py``; it ends with the block."""
    die_with_me = ["setpriv", "--pdeathsig", "TERM", "--"]
    command: list[Any] = [*die_with_me, DEBIAN_PYTHON, CEPH, *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Ceph(process)
        assert process.stdin is not None
        process.stdin.close()


@contextmanager
def aws_environment(access_key: str | None, secret_key: str | None) -> Iterator[None]:
    """Let boto3 find these keys and nothing else of this machine's."""
    changed = {
        "AWS_ACCESS_KEY_ID": access_key,
        "AWS_SECRET_ACCESS_KEY": secret_key,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_PROFILE": None,
        "AWS_SESSION_TOKEN": None,
        "AWS_DEFAULT_REGION": None,
        "AWS_ENDPOINT_URL": None,
    }
    before = {name: os.environ.get(name) for name in changed}
    set_environment(changed)
    try:
        yield
    finally:
        set_environment(before)


def set_environment(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
