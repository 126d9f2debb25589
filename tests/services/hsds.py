"""An HSDS server on a Unix socket, whose data are in a folder of its own.

`services.start_hsds` runs it. Prints a line of JSON when the server answers, and then answers
each line ``kill hsds``, ``start hsds``, ``pause hsds`` or ``resume hsds`` of its input with one
more. It ends, with all processes of the server, at the end of its input or when it is killed.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

SECONDS = 200
"""After which it hangs, however busy the machine is."""
BUCKET = "dosna"
TESTER = "test"
USERS = {"admin": "for-admin", TESTER: "for-test", "other": "for-other"}

SETTINGS = {
    # By default an object is written a second after its last change, and a flush looks once a
    # second. These are whole numbers in its settings, and taken as they are only in that file.
    **dict.fromkeys(("s3_sync_interval", "s3_age_time", "flush_sleep_interval"), 0.05),
    # By default some requests of its nodes to each other and to the store fail after a second.
    **dict.fromkeys(("store_read_timeout", "s3_sync_task_timeout", "flush_timeout"), SECONDS),
    "timeout": SECONDS,
}
CONFIG = "from importlib.resources import files; print(files('admin.config') / 'config.yml')"
# It would give up where its nodes need more than 10 seconds to start, as on a busy machine.
RUN = """
import sys
import hsds.app, hsds.hsds_app
hsds.hsds_app.getNow = lambda: 0.0
sys.exit(hsds.app.main())
"""


class Server:
    """A service node and data nodes, as ``hsds`` starts them."""

    def __init__(self, program: str, folder: Path) -> None:
        self.program = program
        self.folder = folder
        self.data = folder / "data"
        (self.data / BUCKET).mkdir(parents=True)
        self.passwords = folder / "passwords"
        self.passwords.write_text("".join(f"{u}:{p}\n" for u, p in USERS.items()))
        self.python = Path(program).with_name("python")
        found = subprocess.check_output([self.python, "-c", CONFIG], text=True).strip()
        changes = "".join(f"\n{name}: {value}" for name, value in SETTINGS.items())
        (folder / "config.yml").write_text(Path(found).read_text() + changes)
        self.starts = 0
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        end = time.monotonic() + SECONDS
        while not self.launch(end):
            if time.monotonic() > end:
                logs = [self.folder / name for name in ("out", "log")]
                said = "".join(p.read_text(errors="replace") for p in logs if p.exists())
                raise SystemExit(f"HSDS is not ready: {said[-3000:]}")

    def launch(self, end: float) -> bool:
        """Start it, and wait until it answers; False where it ends before."""
        # The nodes find sockets of an earlier server ready, and clients nobody behind them.
        self.starts += 1
        self.sockets = self.folder / f"s{self.starts}"
        self.sockets.mkdir()
        found = str(self.python.parent)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HS_")}
        environment |= {
            "BUCKET_NAME": BUCKET,
            # It runs its nodes by what it finds below ~/.local or on the path.
            "PATH": os.pathsep.join([found, os.environ.get("PATH", os.defpath)]),
            "PYTHONUSERBASE": str(self.folder),
            "HOME": str(self.folder),
        }
        environment.pop("PYTHONPATH", None)
        command = [
            *("setpriv", "--pdeathsig", "INT", "--", "env", "--default-signal=INT"),
            *(str(self.python), "-c", RUN),
            *("--root_dir", str(self.data), "--socket_dir", str(self.sockets)),
            *("--count", "2", "--password_file", str(self.passwords)),
            *("--logfile", str(self.folder / "log"), "--loglevel", "WARNING"),
            *("--config_dir", str(self.folder)),
        ]
        with (self.folder / "out").open("ab") as out:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        while not self.ready():
            if self.process.poll() is not None or time.monotonic() > end:
                self.send(signal.SIGKILL)
                return False
            time.sleep(0.02)
        return True

    def ready(self) -> bool:
        try:
            # The service node does not wait for those that have the data.
            for name in ("dn_1.sock", "dn_2.sock"):
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.connect(str(self.sockets / name))
            return bool(self.ask("GET", "/about")["state"] == "READY")
        except (OSError, http.client.HTTPException, KeyError, ValueError):
            return False

    def ask(self, method: str, path: str, body: Any = None, user: str = "admin") -> Any:
        """Send a request and give what its answer says."""
        connection = http.client.HTTPConnection("hsds", timeout=SECONDS)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(self.sockets / "sn_1.sock"))
        try:
            secret = base64.b64encode(f"{user}:{USERS[user]}".encode()).decode()
            headers = {"Authorization": f"Basic {secret}", "Content-Type": "application/json"}
            connection.request(method, path, json.dumps(body) if body else None, headers)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status not in (200, 201):
                raise OSError(f"{method} {path}: {answer.status} {answer.reason}")
            return json.loads(text)
        finally:
            connection.close()

    def make_homes(self) -> None:
        self.ask("PUT", "/?domain=/home", {"folder": True})
        for user in USERS:
            self.ask("PUT", f"/?domain=/home/{user}", {"folder": True, "owner": user})

    def description(self) -> dict[str, Any]:
        """Say what a client needs to know."""
        return {
            "folder": str(self.folder),
            "data": str(self.data / BUCKET),
            "pids": {} if self.process is None else {"hsds": self.process.pid},
            "endpoint": f"http+unix://{quote(str(self.sockets / 'sn_1.sock'), '')}",
            "users": USERS,
            "home": f"/home/{TESTER}",
        }

    def do(self, command: str, _: str) -> None:
        """Do what a line of input says."""
        if command == "start":
            self.start()
        else:
            sent = {"kill": signal.SIGKILL, "pause": signal.SIGSTOP, "resume": signal.SIGCONT}
            self.send(sent[command])

    def send(self, number: int) -> None:
        if self.process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)
        if number == signal.SIGKILL:
            self.process.wait()
            self.process = None

    def clean(self) -> None:
        """Stop the server and remove its folder; may be called again."""
        self.send(signal.SIGKILL)
        # What a node was about to write when it was killed may come after its folder was listed.
        for _ in range(5):
            shutil.rmtree(self.folder, ignore_errors=True)


def main() -> None:
    signal.signal(signal.SIGTERM, end)
    # Short, because the paths of sockets within may have 107 bytes.
    server = Server(sys.argv[1], Path(tempfile.mkdtemp(prefix="dosna-hsds-", dir="/tmp")))
    try:
        server.start()
        server.make_homes()
        print(json.dumps(server.description()), flush=True)
        for line in sys.stdin:
            server.do(*line.split())
            print(json.dumps(server.description()), flush=True)
    finally:
        # The owner's death comes as the end of the input and as a signal, which may interrupt
        # the first of the two.
        try:
            server.clean()
        finally:
            server.clean()


def end(*_: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(0)


if __name__ == "__main__":
    main()
