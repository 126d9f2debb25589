"""Pilots by SSH and in a real Slurm."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pilot.test_units import MARK, marked, until
from support import HANG

from dosna.errors import ConfigurationError
from dosna.pilot import PilotComputeDescription, State
from dosna.pilot.launching import Launcher

if TYPE_CHECKING:
    from services import Slurm, Sshd

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("url", "executor", "agents"),
    [
        ("fork://localhost", "local", 1),
        ("ssh://host", "local", 1),
        ("pbs://localhost", "pbs", 2),
        ("lsf+ssh://host", "lsf", 2),
        ("flux://localhost", "flux", 2),
    ],
)
def test_kinds_of_urls(url: str, executor: str, agents: int) -> None:
    fields = {"service_url": url, "number_of_processes": 4, "processes_per_node": 2}
    launcher = Launcher(PilotComputeDescription.of(fields))
    assert launcher.executor == executor
    assert launcher.nodes == agents
    assert launcher.slots * launcher.nodes == 4


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("sge+ssh://host", "sge.ssh:// is not of a kind"),
        ("k8s://host", "k8s:// is not of a kind"),
        ("sge+ssh://me:a/pw@host", "not of a kind"),
        ("me:pw://host", "not of a kind"),
        ("localhost", "not of a kind"),
        ("ssh://me:pw@host", "userkey"),
        ("slurm+ssh://me:a@pw@host", "userkey"),
        ("ssh://:pw@host", "userkey"),
        ("ssh://me:a/pw@host", "cannot be understood"),
        ("ssh://me:a#pw@host", "cannot be understood"),
        ("ssh://[::1", "cannot be understood"),
        ("ssh://host:pw", "cannot be understood"),
        ("ssh://host:99999", "cannot be understood"),
        ("ssh://pw\u2100", "cannot be understood"),
        ("ssh://", "no host"),
        ("ssh://-oX", "no host"),
        ("ssh://pw;id", "no host"),
        ("slurm://login.pw.org", "slurm.ssh://host"),
        ("fork://login.pw.org", "ssh://host"),
        ("pbs://[::1", "pbs.ssh://host"),
    ],
)
def test_urls_that_are_refused(url: str, advice: str) -> None:
    with pytest.raises(ConfigurationError, match=advice) as caught:
        Launcher(PilotComputeDescription.of({"service_url": url}))
    assert "pw" not in str(caught.value)


def test_hosts_and_users_of_urls() -> None:
    fields = {"service_url": "slurm+ssh://me%40there@[fe80::1%25eth0]:22"}
    ssh = Launcher(PilotComputeDescription.of(fields))._ssh
    assert ssh is not None
    words = ssh.command()
    assert words[words.index("-p") :][:6] == ["-p", "22", "-l", "me@there", "--", "fe80::1%25eth0"]


def by_ssh(sshd: Sshd, kind: str = "ssh", **environment: str) -> dict[str, Any]:
    """Return the fields of a pilot on an SSH server."""
    variables = {"PYTHONPATH": os.environ["PYTHONPATH"], **environment}
    return {
        "url": f"{kind}://{sshd.user}@{sshd.host}:{sshd.port}",
        "userkey": sshd.userkey,
        "ssh_options": [f"UserKnownHostsFile={sshd.known_hosts}"],
        "python": sys.executable,
        "environment": [f"{name}={value}" for name, value in variables.items()],
    }


def test_ssh(room: Any, sshd: Sshd) -> None:
    pilot = room.pilot(**by_ssh(sshd))
    unit = room.unit("sh", "-c", "echo ${SSH_CONNECTION%% *}", environment=[f"{MARK}=ssh"])
    assert unit.wait(timeout=HANG) == State.Done, pilot.get_details()
    assert (room.folder_of(unit) / "stdout").read_text() == "127.0.0.1\n"
    room.unit("sleep", "1000", environment=[f"{MARK}=ssh"])
    until(lambda: marked("ssh"))
    pilot.cancel()
    assert pilot.wait(timeout=HANG) == State.Canceled
    until(lambda: not marked("ssh"))


def test_host_that_is_not_known(room: Any, sshd: Sshd) -> None:
    pilot = room.pilot(**{**by_ssh(sshd), "ssh_options": ["UserKnownHostsFile=/dev/null"]})
    assert pilot.wait(timeout=HANG) == State.Failed
    assert "Host key" in pilot.get_details()["reason"]


def test_folder_by_ssh_that_cannot_be_written(room: Any, sshd: Sshd, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    pilot = room.pilot(**by_ssh(sshd), working_directory=f"{tmp_path}/file")
    assert pilot.wait(timeout=HANG) == State.Failed
    folder = f"{tmp_path}/file/{pilot.id}"
    assert f"the pilot's folder {folder} cannot be written: Not a" in pilot.get_details()["reason"]


def test_lost_tunnel_is_opened_again(room: Any, sshd: Sshd) -> None:
    pilot = room.pilot(**by_ssh(sshd))
    unit = room.unit("sh", "-c", "while ! test -e go; do sleep 0.05; done")
    until(lambda: unit.get_state() == State.Running)
    from dosna.pilot.manager import Manager

    watched = Manager.of(room.pilots._session)._pilots[pilot.id]
    watched._launcher._tunnel._process.kill()
    (room.folder_of(unit) / "go").touch()
    assert unit.wait(timeout=HANG) == State.Done
    assert unit.get_details()["attempts"] == 1


@pytest.fixture(scope="module")
def slurm(start_slurm: Callable[[], AbstractContextManager[Slurm]]) -> Iterator[Slurm]:
    with start_slurm() as slurm, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", slurm.conf)
        yield slurm


def batch(**fields: Any) -> dict[str, Any]:
    return {
        "url": "slurm://localhost",
        "queue": "debug",
        "processes_per_node": 2,
        "walltime": 5,
        **fields,
    }


def test_slurm(room: Any, slurm: Slurm) -> None:
    pilot = room.pilot(**batch())
    unit = room.unit("sh", "-c", "echo $SLURM_JOB_ID")
    assert unit.wait(timeout=HANG) == State.Done, pilot.get_details()
    job = (room.folder_of(unit) / "stdout").read_text().strip()
    assert pilot.get_details()["native"] == job
    other = room.unit("sleep", "1000", environment=[f"{MARK}=slurm"])
    until(lambda: marked("slurm"))
    # Somebody cancels the job: its units go elsewhere.
    slurm.run("scancel", job)
    assert pilot.wait(timeout=HANG) == State.Failed
    assert "job" in pilot.get_details()["reason"]
    until(lambda: not marked("slurm"))
    assert other.get_state() == State.New, other.get_details()
    room.pilot(**batch())
    until(lambda: marked("slurm"))
    # One more if the agent began it again before it heard of the end itself.
    assert other.get_details()["attempts"] in (2, 3)
    assert other.get_details()["pilot"] != pilot.id


@pytest.fixture
def two_nodes(start_slurm: Callable[[int], AbstractContextManager[Slurm]]) -> Iterator[None]:
    with start_slurm(2) as slurm, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", slurm.conf)
        yield


RANKS = """
import os
from mpi4py import MPI

world = MPI.COMM_WORLD
found = world.gather(os.environ["SLURMD_NODENAME"])
if found:
    print(len(found), len(set(found)))
"""


def test_mpi_on_a_pilot_of_two_nodes(two_nodes: None, room: Any) -> None:
    room.pilot(**batch(number_of_processes=4))
    command = [sys.executable, "-c", RANKS]
    unit = room.unit(*command, number_of_processes=2, spmd_variation="mpi")
    assert unit.wait(timeout=100) == State.Done, unit.get_details()
    assert (room.folder_of(unit) / "stdout").read_text() == "2 1\n"
    # Over several nodes by srun, which the agents' own step must not keep from its processors.
    wide = ["srun", "--mpi=pmi2", "--nodes=2", "--ntasks=4"]
    unit = room.unit(*wide, *command)
    assert unit.wait(timeout=100) == State.Done, unit.get_details()
    assert (room.folder_of(unit) / "stdout").read_text() == "4 2\n"
    unit = room.unit(*wide, "sleep", "1000", environment=[f"{MARK}=wide"])
    until(lambda: len(marked("wide")) >= 5)
    unit.cancel()
    assert unit.wait(timeout=100) == State.Canceled
    until(lambda: not marked("wide"))


def test_slurm_by_ssh(room: Any, slurm: Slurm, sshd: Sshd) -> None:
    variables = {"SLURM_CONF": slurm.conf, "PATH": os.environ["PATH"]}
    fields = batch(**{**by_ssh(sshd, "slurm+ssh", **variables)})
    pilot = room.pilot(**fields)
    unit = room.unit("sh", "-c", "echo $SLURM_JOB_ID")
    assert unit.wait(timeout=HANG) == State.Done, pilot.get_details()
    assert (room.folder_of(unit) / "stdout").read_text().strip() == pilot.get_details()["native"]
    pilot.cancel()
    assert pilot.wait(timeout=HANG) == State.Canceled


def test_drained_node(room: Any, slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    from dosna.pilot import pilots

    monkeypatch.setattr(pilots, "DRAIN_SECONDS", 0.2)
    pilot = room.pilot(**batch())
    running = room.unit("sh", "-c", "while ! test -e go; do sleep 0.05; done")
    rest = [room.unit("true", number_of_processes=2) for _ in range(3)]
    until(lambda: running.get_state() == State.Running)
    node = f"nodename={slurm.node}"
    slurm.run("scontrol", "update", node, "state=drain", "reason=a fan is broken")
    try:
        until(lambda: all(unit.get_state() == State.New for unit in rest))
        (room.folder_of(running) / "go").touch()
        assert pilot.wait(timeout=HANG) == State.Done
        assert "a fan is broken" in pilot.get_details()["reason"]
        assert running.get_state() == State.Done, running.get_details()
        room.pilot()
        assert room.units.wait(timeout=HANG)
        assert all(unit.get_state() == State.Done for unit in rest)
    finally:
        slurm.run("scontrol", "update", node, "state=resume")
