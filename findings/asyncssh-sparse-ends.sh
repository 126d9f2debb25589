#!/bin/sh
# asyncssh 2.24.1 copies files by SFTP as sparse by default (`sparse=True` of put and get): ranges
# without blocks are not sent. One expects holes at their place, as cp and rsync --sparse leave them,
# so that the copy has the size of the file. But the copy ends with the last range that has blocks:
# a file of 1 MiB whose tail was never written, as preallocated files of detectors and HDF5's early
# allocation leave it, arrives with 4096 bytes, and one that is all hole with none. No error is
# raised. With `sparse=False` all bytes arrive. sshfs, the driver of fsspec, passes no `sparse`.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check asyncssh==2.24.1 || exit 2
cat >copies.py <<'END'
import asyncio
import os
import sys

import asyncssh

MIB = 1 << 20


class Anybody(asyncssh.SSHServer):
    def begin_auth(self, username):
        return False


async def sizes():
    key = asyncssh.generate_private_key("ssh-ed25519")
    found = {}
    async with asyncssh.listen(
        "127.0.0.1", 0, server_factory=Anybody, server_host_keys=[key], sftp_factory=True
    ) as server:
        known = ([key.convert_to_public()], [], [])
        async with (
            asyncssh.connect(
                "127.0.0.1", server.get_port(), known_hosts=known, username="anybody"
            ) as connection,
            connection.start_sftp_client() as sftp,
        ):
            for name in ("begun", "empty"):
                for copy in (sftp.put, sftp.get):
                    for options in ({}, {"sparse": False}):
                        await copy(os.path.abspath(name), os.path.abspath("copy"), **options)
                        found[name, copy.__name__, bool(options)] = os.path.getsize("copy")
    return found


for name, content in (("begun", b"x" * 4096), ("empty", b"")):
    with open(name, "wb") as file:
        file.write(content)
        file.truncate(MIB)
if os.stat("empty").st_blocks:
    sys.exit("This file system has no holes.")
found = asyncio.run(sizes())
for (name, copy, whole), size in found.items():
    print(f"{copy} of {name}{', sparse=False' if whole else ''}: {size} of {MIB} bytes")
as_seen = all(
    size == (MIB if whole else {"begun": 4096, "empty": 0}[name])
    for (name, _, whole), size in found.items()
)
sys.exit(0 if as_seen else "This has changed.")
END
venv/bin/python -I copies.py
