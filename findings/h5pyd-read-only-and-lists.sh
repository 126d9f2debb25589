#!/bin/sh
# h5pyd should do what h5py does for the same lines. Against a server of its own (hsds 1.0.2 on a
# Unix socket) h5pyd 1.0.0 differs twice without an error. A file opened with "r" takes writes and
# new datasets and shows them as long as it is open, then they are gone: nothing reached the
# server, all that is said is a line of log, "plugin flush failed". And a list in brackets is taken
# for a tuple: x[[1, 4]] of a 3 x 5 dataset is the element x[1, 4] and not an error, x[[0, 2]] one
# number and not two rows. Who loads rows by a list of positions gets one element per call.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    hsds==1.0.2 h5pyd==1.0.0 h5py==3.16.0 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

import numpy as np

for folder in ("sockets", "data/bucket"):
    os.makedirs(folder)
here, scripts = os.getcwd(), str(Path(sys.executable).parent)
paths = {"HOME": here, "PYTHONUSERBASE": here, "PATH": f"{scripts}:{os.environ['PATH']}"}
options = f"--root_dir {here}/data --bucket_name bucket --socket_dir {here}/sockets --count 1"
options += " --hs_username tester --hs_password secret"
command = [f"{scripts}/hsds", *options.split()]
server = subprocess.Popen(
    command,
    env={**os.environ, **paths, "BUCKET_NAME": "bucket"},
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
    start_new_session=True,
)
try:
    endpoint = "http+unix://" + quote(f"{here}/sockets/sn_1.sock", safe="")
    user = {"username": "tester", "password": "secret"}
    os.environ |= {"HS_ENDPOINT": endpoint, "HS_USERNAME": "tester", "HS_PASSWORD": "secret"}
    import h5pyd

    for _ in range(100):
        try:
            if h5pyd.getServerInfo(endpoint=endpoint, **user)["state"] == "READY":
                break
        except OSError:
            pass
        time.sleep(0.3)
    else:
        sys.exit(2)
    domain = {"bucket": "bucket", **user}
    h5pyd.Folder("/home/", mode="x", **domain)
    home = f"/home/{user['username']}/"
    h5pyd.Folder(home, mode="x", owner="tester", **domain)
    name = home + "a.h5"
    with h5pyd.File(name, "w", **domain) as file:
        file.create_dataset("x", data=np.arange(15).reshape(3, 5) * 10)
    with h5pyd.File(name, "r", **domain) as file:
        x = file["x"]
        lists = [x[[1, 4]].tolist(), x[[0, 2]].tolist()]
        x[0, 0] = 99
        file.create_dataset("new", data=np.arange(3))
        inside = int(x[0, 0]), file["new"][:].tolist()
    with h5pyd.File(name, "r", **domain) as file:
        later = int(file["x"][0, 0]), list(file)
finally:
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()

print("x[[1, 4]] and x[[0, 2]]:", *lists)
print("while the file is open with 'r':", *inside)
print("opened again:", *later)
as_seen = lists == [[90], [20]] and inside == (99, [0, 1, 2]) and later == (0, ["x"])
sys.exit(0 if as_seen else "This has changed.")
END
