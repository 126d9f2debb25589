"""A PostgreSQL server of this user's own, on a socket in a folder."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECONDS = 200
"""After which it hangs, however busy the machine is."""


def find_program(name: str) -> str | None:
    """Give the path of one of PostgreSQL's programs; Debian keeps them out of PATH."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return shutil.which(name, path=os.pathsep.join([*map(str, places), os.environ["PATH"]]))


@contextmanager
def start_postgres() -> Iterator[str]:
    """Start a server that ends with the block, or with this process; give its URL."""
    # Short, because the path of a socket may have 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="dosna-pg-", dir="/tmp"))
    data, out = folder / "data", folder / "log"
    as_user: list[str] = []
    if os.geteuid() == 0:
        # It refuses to run as root.
        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
        ids = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        as_user = ["setpriv", *ids]
    server = None
    try:
        initdb = find_program("initdb")
        made = subprocess.run(
            [
                *as_user,
                *([] if not as_user else ["--"]),
                *[initdb, "-D", data, "-U", "dosna", "--auth=trust", "--no-sync"],
                *["--encoding=UTF8", "--no-locale"],
            ],
            capture_output=True,
            text=True,
            cwd="/",
        )
        if made.returncode:
            raise RuntimeError(f"initdb failed: {made.stdout}{made.stderr}")
        options = {"listen_addresses": "", "unix_socket_directories": folder, "fsync": "off"}
        die_with_me = ["setpriv", *as_user[1:], "--pdeathsig", "QUIT", "--"]
        with out.open("w") as log:
            server = subprocess.Popen(
                [
                    *die_with_me,
                    *[find_program("postgres"), "-D", data],
                    *[
                        word
                        for name, value in options.items()
                        for word in ("-c", f"{name}={value}")
                    ],
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )
        url = f"postgresql://dosna@/postgres?host={folder}"
        end = time.monotonic() + SECONDS
        ready = [find_program("pg_isready"), "-h", str(folder), "-U", "dosna", "-q"]
        while subprocess.run(ready).returncode:
            if server.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"PostgreSQL did not start: {out.read_text()[-2000:]}")
            time.sleep(0.05)
        yield url
    finally:
        if server is not None:
            # At once, without a checkpoint.
            server.send_signal(3)
            server.wait(SECONDS)
        shutil.rmtree(folder, ignore_errors=True)
