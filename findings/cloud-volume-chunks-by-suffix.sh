#!/bin/sh
# Two libraries of the Neuroglancer "precomputed" format should read each other's volumes from a
# folder. cloud-volume 12.15.2 compresses by default and tells by the name: a chunk is the file
# "0-32_0-32_0-32.gz". TensorStore 0.1.86 looks for "0-32_0-32_0-32", finds none, and a chunk that
# is not there is zero. So the whole volume opens with the right shape, type and offset, and every
# voxel of it is 0. The document "info" names no compression, and an object store would have told by
# a header. With compress=False the volume is read rightly.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    cloud-volume==12.15.2 tensorstore==0.1.86 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import os
import sys
import numpy as np
import tensorstore as ts
from cloudvolume import CloudVolume

values = np.asfortranarray(np.arange(1, 64**3 + 1, dtype="u4").reshape(64, 64, 64))


def written(name, dtype, encoding, **compress):
    url = f"file://{os.path.abspath(name)}"
    kind = "image" if encoding == "raw" else "segmentation"
    info = CloudVolume.create_new_info(
        1, kind, dtype, encoding, [10, 10, 10], [0, 0, 0], values.shape, chunk_size=[32, 32, 32]
    )
    volume = CloudVolume(url, info=info, progress=False, **compress)
    volume.commit_info()
    volume[:, :, :] = values.astype(dtype)
    itself = np.array_equal(np.asarray(volume[:, :, :])[..., 0], values.astype(dtype))
    opened = ts.open({"driver": "neuroglancer_precomputed", "kvstore": url + "/"}).result()
    read = opened.read().result()[..., 0]
    print(name, sorted(os.listdir(f"{name}/10_10_10"))[0], opened.shape, opened.dtype.name, end=" ")
    print("cloud-volume reads itself:", itself, "TensorStore's largest voxel:", read.max())
    return itself and read.dtype == dtype, read.max()


seen = {
    "raw": written("raw", "uint32", "raw"),
    "real": written("real", "float32", "raw"),
    "labels": written("labels", "uint32", "compressed_segmentation"),
    "plain": written("plain", "uint32", "raw", compress=False),
}
as_seen = all(itself for itself, _ in seen.values())
as_seen = as_seen and all(seen[name][1] == 0 for name in ("raw", "real", "labels"))
sys.exit(0 if as_seen and seen["plain"][1] == 64**3 else "This has changed.")
END
