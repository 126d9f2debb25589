"""An SSH server of this user's own on loopback, with SFTP.

`services.start_sshd` runs this. Prints a line of JSON when it listens. It ends at the end of its
input or when it is killed.
"""

from __future__ import annotations

import argparse
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ports import take_ports

SECONDS = 200
"""After which it hangs, however busy the machine is."""

CONF = """
Port {port}
ListenAddress {address}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
MaxStartups 100
MaxSessions 100
Subsystem sftp internal-sftp
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--address", default="127.0.0.1")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    folder = Path(tempfile.mkdtemp(prefix="dosna-sshd-"))
    (port,), _claims = take_ports(1, arguments.address)
    process = None
    try:
        process = start(folder, arguments.program, arguments.address, port)
        description = {
            "folder": str(folder),
            "host": arguments.address,
            "port": port,
            "user": pwd.getpwuid(os.geteuid()).pw_name,
            "userkey": str(folder / "user_key"),
            "known_hosts": str(folder / "known_hosts"),
            "pids": {"sshd": process.pid},
        }
        print(json.dumps(description), flush=True)
        sys.stdin.read()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if process is not None:
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def start(folder: Path, program: str, address: str, port: int) -> subprocess.Popen[Any]:
    for name in ("host_key", "user_key"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd demands it of root
    conf = folder / "sshd_config"
    conf.write_text(CONF.format(port=port, address=address, folder=folder))
    host_key = " ".join((folder / "host_key.pub").read_text().split()[:2])
    (folder / "known_hosts").write_text(f"[{address}]:{port} {host_key}\n")
    with (folder / "sshd.out").open("wb") as out:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", program, "-D", "-e", "-f", str(conf)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    end = time.monotonic() + SECONDS
    while True:
        try:
            socket.create_connection((address, port), timeout=5).close()
            return process
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                said = (folder / "sshd.out").read_text(errors="replace")
                raise SystemExit(f"sshd did not start: {said[-2000:]}") from None
            time.sleep(0.05)


if __name__ == "__main__":
    main()
