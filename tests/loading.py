"""What tests of the loader share: files to load, processes that load them, what must hold."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from contextlib import closing, contextmanager

import numpy as np
from services.s3 import make_bucket, make_client
from support import HANG, require

import dosna as dn
from dosna.core.url import Url

h5py = require("h5py")
require("yaml")
Inventory = require("dosna.loader.inventory").Inventory

LARGE_PLANES = 96


def arrays_of(number, large=False):
    """Give the arrays that file `number` holds, by name."""
    random = np.random.default_rng(number)
    arrays = {
        "entry/energy": np.array(12.4 + number),
        "entry/data/frames": random.integers(0, 4000, (3, 24, 17), dtype="u2"),
    }
    if large:
        frames = random.poisson(30, (LARGE_PLANES, 128, 128)).astype("u2")
        arrays["entry/data/frames"] = frames
        arrays["entry/detector/module/flat"] = frames.mean(axis=0)
        arrays["entry/title"] = np.array(f"scan {number}")
    return arrays


def image_of(number, large=False):
    """Give the bytes of an HDF5 file with these arrays."""
    written = io.BytesIO()
    with h5py.File(written, "w") as file:
        entry = file.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        for name, array in arrays_of(number, large).items():
            options = {}
            if array.ndim > 1:
                chunks = (1, *array.shape[1:]) if array.ndim == 3 else (16, 16)
                options = {"chunks": chunks, "compression": "gzip", "shuffle": True}
            if array.dtype.kind == "U":
                array = str(array)
            file.create_dataset(name, data=array, **options)
        file["entry/data/frames"].attrs["units"] = "counts"
    return written.getvalue()


def check_loaded(con, key, number, large=False):
    """Make sure that a file is there, whole, and nothing else under its key."""
    wanted = arrays_of(number, large)
    assert con.names_in(key) == sorted(f"{key}/{name}" for name in wanted)
    for name, array in wanted.items():
        ds = con[f"{key}/{name}"]
        assert not ds.incomplete, (key, name)
        np.testing.assert_array_equal(ds[...], array, err_msg=f"{key}/{name}")
    assert dict(con[f"{key}/entry/data/frames"].attrs) == {"units": "counts"}
    if con.instance.keeps_groups:
        assert con.get_group_attrs(f"{key}/entry") == {"NX_class": "NXentry"}


class Roles:
    """Processes of ``dosna loader``, in a folder with a ``config.yml``."""

    def __init__(self, folder, **config):
        self.folder = folder
        self.running = []
        lines = [f"{key}: {json.dumps(value)}\n" for key, value in config.items()]
        (folder / "config.yml").write_text("".join(lines))

    def start(self, *arguments):
        path = self.folder / f"log-{len(self.running)}"
        with path.open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "dosna", "loader", *arguments],
                cwd=self.folder,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        process.log = path
        self.running.append(process)
        return process

    def do(self, *arguments, code=0):
        """Run a role to its end, and give what it printed."""
        process = self.start(*arguments)
        out, _ = process.communicate(timeout=HANG)
        assert code in (None, process.returncode), process.log.read_text()
        return out

    def status(self):
        process = self.start("status", "--json")
        return json.loads(process.communicate(timeout=HANG)[0])

    def end(self, *processes):
        """Tell processes to end, and see that they do so properly."""
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.communicate(timeout=HANG)
            assert process.returncode == 0, process.log.read_text()

    def close(self):
        for process in self.running:
            if process.poll() is None:
                process.kill()
            process.wait()
            process.stdout.close()


@contextmanager
def roles(folder, **config):
    made = Roles(folder, **config)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def source_bucket(gateway):
    """Make a bucket at an S3 gateway; give boto3's client with its name and URL."""
    with closing(make_client(gateway.endpoint_url)) as client:
        client.name = make_bucket(gateway.endpoint_url)
        client.endpoint_url = gateway.endpoint_url
        yield client


def write_folder(folder, files):
    """Write files ``{key: (number, large)}`` into a folder."""
    for key, (number, large) in files.items():
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_of(number, large))


def connect(target):
    url = Url.parse(target)
    place = Url(url.backend, url.path.rstrip("/") + "//", url.options)
    con, _ = dn.open_url(str(place), mode="r", engine="cpu")
    con.connect()
    return con


def flip(path, offset, keep_time=True):
    """Change one byte of a file."""
    status = os.stat(path)
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))
    if keep_time:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
