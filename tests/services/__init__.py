"""Real services for tests: each is started here, on free ports of loopback, and ended again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Self, TypeVar

CEPH = Path(__file__).with_name("ceph.py")
HSDS = Path(__file__).with_name("hsds.py")
SLURM = Path(__file__).with_name("slurm.py")
SSHD = Path(__file__).with_name("sshd.py")
DEBIAN_PYTHON = "/usr/bin/python3"


class Service:
    """Daemons that a process was started to look after.

    Attributes
    ----------
    folder : str
        Of everything.
    pids : dict of str to int
        By the daemon's name.
    """

    folder: str
    pids: dict[str, int]

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._read()

    def _read(self) -> None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the service did not start: {self._process.wait()}")
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
        """Start a daemon that was killed; one that speaks HTTP listens when this returns."""
        self._do("start", name)

    def pause(self, name: str) -> None:
        """Stop a daemon where it stands."""
        self._do("pause", name)

    def resume(self, name: str) -> None:
        """Let a paused daemon go on."""
        self._do("resume", name)


class Ceph(Service):
    """A cluster that was started by `start_ceph`, with ``mon.a``, ``osd.0``, …, ``rgw``.

    Attributes
    ----------
    conf : str
        The configuration file.
    endpoint_url, access_key, secret_key : str
        Of the S3 gateway.
    """

    conf: str
    endpoint_url: str
    access_key: str
    secret_key: str


class Hsds(Service):
    """A server that was started by `start_hsds`: ``hsds``, with all its nodes.

    Attributes
    ----------
    endpoint : str
        Another one after each start.
    users : dict of str to str
        Passwords by name. ``admin`` may do everything, and each has a folder in ``/home``.
    data : str
        The folder in which paths of linked files begin.
    home : str
        The folder of domains of the user ``test``.
    """

    endpoint: str
    users: dict[str, str]
    data: str
    home: str


class Slurm(Service):
    """A Slurm that was started by `start_slurm`, with the partition ``debug``.

    Attributes
    ----------
    conf : str
        The configuration, which Slurm's programs look for in ``SLURM_CONF``.
    node : str
        The name of the node.
    """

    conf: str
    node: str

    def run(self, *command: str) -> str:
        """Run one of Slurm's programs, and give what it prints."""
        environment = {**os.environ, "SLURM_CONF": self.conf}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
        return done.stdout.decode()

    def jobs(self) -> list[str]:
        """Give the numbers of the jobs that run."""
        return self.run("squeue", "-h", "-t", "RUNNING", "-o", "%i").split()

    def set_node(self, state: str) -> None:
        """Change the state of the node to ``drain`` or ``resume``."""
        self.run("scontrol", "update", f"nodename={self.node}", f"state={state}", "reason=test")


S = TypeVar("S", bound=Service)

_END_SECONDS = 120


@contextmanager
def _start(kind: type[S], *command: str | Path, **environment: str) -> Iterator[S]:
    die_with_me = ["setpriv", "--pdeathsig", "TERM", "--"]
    with subprocess.Popen(
        [*die_with_me, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    ) as process:
        yield kind(process)
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            # Something else has a handle of its input, which has no end then.
            process.terminate()
            raise


def start_ceph(*arguments: str) -> AbstractContextManager[Ceph]:
    """Start a cluster with the arguments of ``ceph.py``; it ends with the block."""
    return _start(Ceph, DEBIAN_PYTHON, CEPH, *arguments)


def hsds_program() -> str | None:
    """Find the program ``hsds``: of this environment's own for it, or on the path.

    It needs older packages than dosna, and is installed apart.
    """
    places = [str(Path(sys.prefix, "hsds", "bin")), os.environ.get("PATH", os.defpath)]
    return shutil.which("hsds", path=os.pathsep.join(places))


def start_hsds(**environment: str) -> AbstractContextManager[Hsds]:
    """Start an HSDS server, with further variables of its environment; it ends with the block."""
    program = hsds_program()
    assert program is not None
    return _start(Hsds, sys.executable, HSDS, program, **environment)


def slurm_programs() -> dict[str, str | None]:
    """Find Slurm's programs, and that for authentication, as far as tests need them."""
    # Debian has the daemons where only root's PATH leads.
    path = os.environ.get("PATH", os.defpath) + os.pathsep + "/usr/sbin"
    names = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "scontrol", "sinfo", "squeue")
    return {name: shutil.which(name, path=path) for name in names}


def start_slurm(nodes: int = 1) -> AbstractContextManager[Slurm]:
    """Start a Slurm of some nodes, all of this machine; it ends with the block."""
    return _start(Slurm, sys.executable, SLURM, str(nodes))


class Sshd(Service):
    """An SSH server that was started by `start_sshd`.

    Attributes
    ----------
    host, user : str
        Where, and who may enter.
    port : int
        Where it listens.
    userkey, known_hosts : str
        The files of the user's private key, and of the server's public one.
    """

    host: str
    port: int
    user: str
    userkey: str
    known_hosts: str


def sshd_program() -> str | None:
    """Find the program ``sshd``, which wants to be started by its full path."""
    path = os.environ.get("PATH", os.defpath) + os.pathsep + "/usr/sbin"
    return shutil.which("sshd", path=path)


def start_sshd(address: str = "127.0.0.1") -> AbstractContextManager[Sshd]:
    """Start an SSH server on an address of loopback; it ends with the block."""
    program = sshd_program()
    assert program is not None
    return _start(Sshd, sys.executable, SSHD, program, f"--address={address}")


@contextmanager
def hsds_environment(hsds: Hsds, user: str = "test") -> Iterator[None]:
    """Let h5pyd find this server and nothing else of this machine's."""
    changed = {
        "HS_ENDPOINT": hsds.endpoint,
        "HS_USERNAME": user,
        "HS_PASSWORD": hsds.users[user],
        "HS_BUCKET": None,
        "HS_API_KEY": None,
    }
    with _environment(changed):
        _forget_hsds()
        try:
            yield
        finally:
            _forget_hsds()


def _forget_hsds() -> None:
    """Let h5pyd read the environment again, which it does only once."""
    if known := sys.modules.get("h5pyd.config"):
        known.Config._cfg.clear()


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
    with _environment(changed):
        yield


@contextmanager
def _environment(changed: dict[str, str | None]) -> Iterator[None]:
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
