"""A Ceph cluster, and an S3 gateway on request, of this user's own on loopback.

Run by Debian's Python, which has `rados`; `services.start_ceph` does. Prints a line of JSON when
all is ready, and then answers each line ``kill NAME``, ``start NAME``, ``pause NAME`` or
``resume NAME`` of its input with one more, where NAME is a daemon's (``mon.a``, ``osd.0``,
``rgw``). It ends, with all its daemons, at the end of its input or when it is killed.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rados
from ports import take_ports

SECONDS = 200
ATTEMPTS = 4
"""After which it hangs, however busy the machine is."""
PLACEMENT_GROUPS = 8
OSD_BYTES = 4 << 30
GRACE = 20
"""Seconds without an answer after which an OSD is taken for dead; a busy one may need some."""
ACCESS_KEY, SECRET_KEY = "dosna-test-access", "dosna-test-secret-0123456789"

# paxos_*: changes of the map wait a second for company by default, and a start has a dozen.
# ms_mon_client_mode: the gateway insists on encryption, which auth=none has not; it would hang.
# osd_client_watch_timeout: so long a killed gateway holds up the making of buckets.
# tcp_nodelay: without it each answer with a body waits 40 ms for a delayed ACK.
CONF = """
[global]
fsid = {fsid}
mon_host = [v2:127.0.0.1:{mon_port}/0]
auth_cluster_required = {auth}
auth_service_required = {auth}
auth_client_required = {auth}
auth_allow_insecure_global_id_reclaim = false
keyring = {folder}/keyring
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_bind_ipv6 = false
ms_bind_msgr1 = false
osd_pool_default_size = {size}
osd_pool_default_min_size = 1
osd_pool_default_pg_autoscale_mode = off
osd_pool_default_pg_num = {pgs}
osd_pool_default_pgp_num = {pgs}
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_allow_pool_delete = true
mon_max_pg_per_osd = 10000
run_dir = {folder}/run
admin_socket = {folder}/run/$name.$pid.asok
pid_file =
log_file = {folder}/log/$name.log
mon_cluster_log_file = {folder}/log/cluster.log
crash_dir = {folder}/log

[client]
log_file =
admin_socket =

[mon]
mon_data = {folder}/mon.a
mon_data_avail_warn = 2
mon_data_avail_crit = 1
mon_osd_min_down_reporters = 1
mgr_initial_modules =
paxos_propose_interval = 0.02
paxos_min_wait = 0.01

[osd]
osd_data = {folder}/osd.$id
osd_objectstore = memstore
memstore_device_bytes = {osd_bytes}
osd_heartbeat_interval = 1
osd_heartbeat_grace = {grace}
osd_client_watch_timeout = 3
{classes}

[client.rgw]
log_file = {folder}/log/rgw.log
admin_socket = {folder}/run/$name.$pid.asok
rgw_data = {folder}/rgw
ms_mon_client_mode = crc
rgw_frontends = beast endpoint=127.0.0.1:{s3_port} tcp_nodelay=1
rgw_rados_pool_pg_num_min = {pgs}
rgw_override_bucket_index_max_shards = 1
rgw_run_sync_thread = false
rgw_enable_gc_threads = false
rgw_enable_lc_threads = false
rgw_enable_quota_threads = false
rgw_enable_ops_log = false
rgw_enable_usage_log = false
rgw_dynamic_resharding = false
rgw_thread_pool_size = 64
"""

CLASSES = """osd_class_dir = {folder}
osd_class_load_list = *"""


class Cluster:
    """One monitor, some OSDs whose objects are in memory, and perhaps a gateway."""

    def __init__(
        self, folder: Path, osds: int, size: int, auth: str, classes: str | None = None
    ) -> None:
        self.folder = folder
        self.osds = osds
        self.auth = auth
        self.conf = folder / "ceph.conf"
        (self.mon_port, self.s3_port), self.claims = take_ports(2)
        self.fsid = str(uuid.uuid4())
        self.commands: dict[str, list[str]] = {}
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        names = ["mon.a", "rgw", "run", "log", *(f"osd.{i}" for i in range(osds))]
        for name in names:
            (folder / name).mkdir()
        self.conf.write_text(
            CONF.format(
                folder=folder,
                fsid=self.fsid,
                auth=auth,
                size=size,
                pgs=PLACEMENT_GROUPS,
                osd_bytes=OSD_BYTES,
                grace=GRACE,
                mon_port=self.mon_port,
                s3_port=self.s3_port,
                classes=CLASSES.format(folder=classes) if classes else "",
            )
        )
        os.environ["CEPH_CONF"] = str(self.conf)

    def start(self, pools: list[str], gateway: bool) -> None:
        self.start_monitor()
        self.connect()
        self.start_osds()
        for pool in pools:
            self.make_pool(pool)
        if gateway:
            self.start_gateway()

    def connect(self) -> None:
        """Connect to the monitor, again where a busy machine let a client wait in vain."""
        for left in reversed(range(ATTEMPTS)):
            self.admin = rados.Rados(conffile=str(self.conf))
            try:
                return self.admin.connect(timeout=SECONDS // ATTEMPTS)
            except rados.TimedOut:
                self.admin.shutdown()
                if not left:
                    raise

    def start_monitor(self) -> None:
        keyring = self.folder / "keyring"
        everything = "".join(f'\tcaps {d} = "allow *"\n' for d in ("mon", "osd", "mgr"))
        entries = {"mon.": '\tcaps mon = "allow *"\n'}
        entries |= dict.fromkeys(("client.admin", "client.rgw"), everything)
        keyring.write_text(
            "".join(f"[{name}]\n\tkey = {new_key()}\n{caps}" for name, caps in entries.items())
        )
        address = f"[v2:127.0.0.1:{self.mon_port}]"
        monmap = str(self.folder / "monmap")
        self.run("monmaptool", "--create", "--fsid", self.fsid, "--addv", "a", address, monmap)
        self.run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", str(keyring))
        self.launch("mon.a", "ceph-mon", "-f", "-i", "a")

    def start_osds(self) -> None:
        making = []
        for number in range(self.osds):
            osd_uuid, key = str(uuid.uuid4()), new_key()
            given = json.dumps({"cephx_secret": key}).encode() if self.auth == "cephx" else b""
            self.ask("osd new", given, uuid=osd_uuid, id=number)
            with (self.folder / "keyring").open("a") as file:
                file.write(f"[osd.{number}]\n\tkey = {key}\n")
            command = ["ceph-osd", "-i", str(number), "--mkfs", "--osd-uuid", osd_uuid]
            making.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr))
        for number, process in enumerate(making):
            if process.wait():
                raise SystemExit(f"osd.{number} could not be made")
            # As in a container, whose host an OSD names for its own.
            host = f"NODE_NAME=host-{number}"
            self.launch(f"osd.{number}", "env", host, "ceph-osd", "-f", "-i", str(number))
        self.wait_until(lambda: self.ask("osd stat")["num_up_osds"] == self.osds)

    def make_pool(self, pool: str) -> None:
        self.ask("osd pool create", pool=pool, pg_num=PLACEMENT_GROUPS, pgp_num=PLACEMENT_GROUPS)
        self.ask("osd pool application enable", pool=pool, app="dosna")
        # A placement group becomes active when it is first written to.
        with self.admin.open_ioctx(pool) as objects:
            for number in range(4 * PLACEMENT_GROUPS):
                objects.write_full(f"start-{number}", b"")
            for number in range(4 * PLACEMENT_GROUPS):
                objects.remove_object(f"start-{number}")

    def start_gateway(self) -> None:
        # Late, because one that comes before the OSDs may wait 5 seconds for them.
        self.launch("rgw", "radosgw", "-f", "-n", "client.rgw")
        self.wait_for_gateway()
        admin = ["radosgw-admin", "-n", "client.rgw", "--log-file="]
        user = ["--uid=test", "--display-name=test", "--max-buckets=0"]
        keys = [f"--access-key={ACCESS_KEY}", f"--secret-key={SECRET_KEY}"]
        self.run(*admin, "user", "create", *user, *keys)

    def wait_for_gateway(self) -> None:
        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.s3_port)) == 0

        self.wait_until(listens)

    def description(self) -> dict[str, Any]:
        """Say what a client needs to know."""
        return {
            "conf": str(self.conf),
            "folder": str(self.folder),
            "pids": {name: process.pid for name, process in self.daemons.items()},
            "endpoint_url": f"http://127.0.0.1:{self.s3_port}",
            "access_key": ACCESS_KEY,
            "secret_key": SECRET_KEY,
        }

    def do(self, command: str, name: str) -> None:
        """Do what a line of input says."""
        if command == "start":
            self.launch(name, *self.commands[name])
            if name == "rgw":
                self.wait_for_gateway()
            return
        signals = {"kill": signal.SIGKILL, "pause": signal.SIGSTOP, "resume": signal.SIGCONT}
        process = self.daemons[name]
        process.send_signal(signals[command])
        if command == "kill":
            process.wait()
            del self.daemons[name]

    def clean(self) -> None:
        """Stop all daemons and remove the folder; may be called again."""
        for process in self.daemons.values():
            process.kill()
        for process in self.daemons.values():
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def ask(self, prefix: str, given: bytes = b"", **arguments: Any) -> Any:
        """Send the monitor a command."""
        message = json.dumps({"prefix": prefix, "format": "json", **arguments})
        status, out, error = self.admin.mon_command(message, given, timeout=SECONDS)
        if status:
            raise SystemExit(f"ceph {prefix} failed: {error}")
        return json.loads(out) if out.strip() else None

    def run(self, *command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed: {done.stdout}{done.stderr}")

    def launch(self, name: str, *command: str) -> None:
        self.commands[name] = list(command)
        with (self.folder / "log" / f"{name}.out").open("ab") as out:
            self.daemons[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *command],
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
                    out = (self.folder / "log" / f"{name}.out").read_text(errors="replace")
                    raise SystemExit(f"{name} ended with {process.returncode}: {out[-2000:]}")
            if time.monotonic() > end:
                raise SystemExit(f"the cluster was not ready after {SECONDS} s")
            time.sleep(0.02)


def new_key() -> str:
    """Make a cephx key: its type (AES), when it was made, its length, and itself."""
    head = struct.pack("<HIIH", 1, int(time.time()), 0, 16)
    return base64.b64encode(head + secrets.token_bytes(16)).decode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--osds", type=int, default=1)
    parser.add_argument("--size", type=int, default=1, help="copies of each object")
    parser.add_argument("--auth", default="none", choices=["none", "cephx"])
    parser.add_argument("--pool", action="append", default=[])
    parser.add_argument("--classes", help="the folder of the only object classes")
    parser.add_argument("--gateway", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, end)
    # Short, because the paths of sockets within may have 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="dosna-ceph-", dir="/tmp"))
    cluster = Cluster(folder, options.osds, options.size, options.auth, options.classes)
    try:
        cluster.start(options.pool, options.gateway)
        print(json.dumps(cluster.description()), flush=True)
        for line in sys.stdin:
            cluster.do(*line.split())
            print(json.dumps(cluster.description()), flush=True)
    finally:
        # The owner's death comes as the end of the input and as a signal, which may interrupt
        # the first of the two.
        try:
            cluster.clean()
        finally:
            cluster.clean()


def end(*_: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(0)


if __name__ == "__main__":
    main()
