"""A Slurm of one node or more, of this user's own on loopback.

`services.start_slurm` runs this. Prints a line of JSON when all nodes are ready. It ends, with all
its daemons and jobs, at the end of its input or when it is killed.
"""

from __future__ import annotations

import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ports import take_ports

SECONDS = 200
"""After which it hangs, however busy the machine is."""

# config_overrides: the node has more CPUs than the machine, because the jobs mostly wait.
# KillWait: the seconds after which a cancelled job is killed, if it does not end.
# MessageTimeout: the seconds that its programs and daemons wait for each other's answers.
CONF = """
ClusterName=dosna-tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
KillWait=2
MessageTimeout=100
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=YES
"""


NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=8 State=UNKNOWN\n"


class Cluster:
    """A controller, nodes, and munge for all of them."""

    def __init__(self, folder: Path, nodes: int) -> None:
        self.folder = folder
        self.conf = folder / "slurm.conf"
        self.host = socket.gethostname().partition(".")[0]
        self.nodes = [self.host] if nodes == 1 else [f"node{n}" for n in range(nodes)]
        self.ports, self.claims = take_ports(1 + len(self.nodes))
        self.user = pwd.getpwuid(os.geteuid()).pw_name
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        os.environ["SLURM_CONF"] = str(self.conf)
        # Debian has the daemons where only root's PATH leads.
        os.environ["PATH"] += os.pathsep + "/usr/sbin"

    def start(self) -> None:
        munge = self.folder / "munge"
        # munged demands that others can reach its socket.
        self.folder.chmod(0o755)
        munge.mkdir(0o755)
        for name in ("state", *(f"spool.{node}" for node in self.nodes)):
            (self.folder / name).mkdir()
        with open(os.open(munge / "key", os.O_CREAT | os.O_WRONLY, 0o400), "wb") as key:
            key.write(secrets.token_bytes(1024))
        port, *ports = self.ports
        text = CONF.format(host=self.host, folder=self.folder, user=self.user, port=port)
        for name, port in zip(self.nodes, ports, strict=True):
            text += NODE.format(name=name, host=self.host, port=port)
        self.conf.write_text(text)
        files = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log"}
        options = [f"--{option}={munge / name}" for option, name in files.items()]
        self.launch("munged", "--foreground", "--force", f"--seed-file={munge}/seed", *options)
        self.wait_until((munge / "socket").exists)
        self.launch("slurmctld", "-D", "-f", str(self.conf))
        for node in self.nodes:
            name = "slurmd" if len(self.nodes) == 1 else f"slurmd.{node}"
            self.launch("slurmd", "-D", "-f", str(self.conf), "-N", node, called=name)
        self.wait_until(lambda: self.ask("sinfo", "-h", "-o", "%T") == "idle\n")

    def description(self) -> dict[str, Any]:
        """Say what a client needs to know."""
        return {
            "conf": str(self.conf),
            "folder": str(self.folder),
            "node": self.nodes[0],
            "pids": {name: process.pid for name, process in self.daemons.items()},
        }

    def clean(self) -> None:
        """End all jobs and daemons, and remove the folder."""
        try:
            if any(name.startswith("slurmd") for name in self.daemons):
                self.ask("scancel", "--user", self.user)
                self.wait_until(lambda: not self.ask("squeue", "-h"))
        finally:
            for process in self.daemons.values():
                process.kill()
            for process in self.daemons.values():
                process.wait()
            shutil.rmtree(self.folder, ignore_errors=True)

    def ask(self, *command: str) -> str:
        """Run one of Slurm's programs, and give what it prints; nothing if it fails."""
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        return done.stdout.decode()

    def launch(self, name: str, *options: str, called: str = "") -> None:
        with (self.folder / f"{called or name}.out").open("wb") as out:
            self.daemons[called or name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", name, *options],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def wait_until(self, ready: Callable[[], bool]) -> None:
        end = time.monotonic() + SECONDS
        while not ready():
            for name, process in self.daemons.items():
                if process.poll() is not None:
                    out = (self.folder / f"{name}.out").read_text(errors="replace")
                    raise SystemExit(f"{name} ended with {process.returncode}: {out[-2000:]}")
            if time.monotonic() > end:
                raise SystemExit(f"Slurm was not ready after {SECONDS} s")
            time.sleep(0.05)


def main() -> None:
    signal.signal(signal.SIGTERM, end)
    nodes = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    # Short, because the paths of sockets within may have 107 bytes.
    cluster = Cluster(Path(tempfile.mkdtemp(prefix="dosna-slurm-", dir="/tmp")), nodes)
    try:
        cluster.start()
        print(json.dumps(cluster.description()), flush=True)
        sys.stdin.read()
    finally:
        # The owner's death comes as the end of the input and as a signal, and in any order.
        try:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        finally:
            cluster.clean()


def end(*_: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(0)


if __name__ == "__main__":
    main()
