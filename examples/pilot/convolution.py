"""Filter a dataset by Gaussian kernels in compute units, slab by slab, near where it is stored.

    python examples/pilot/convolution.py --size 64 --slabs 4
    python examples/pilot/convolution.py --store 'ceph:pool?conffile=/etc/ceph/ceph.conf'

Each unit gets its slab, with a halo, as a .npy file, and leaves the filtered slab as another. The
results are one dataset in the end, which is compared with scipy's on the whole volume.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

import dosna as dn
from dosna.pilot import ComputeDataService, PilotComputeService, PilotDataService, State

SIGMA = 2.0
HALO = 8  # scipy's kernels end at four sigmas

FILTER = """
import sys
import numpy as np
from scipy.ndimage import gaussian_filter

source, target, sigma, above, below = sys.argv[1:]
slab = gaussian_filter(np.load(source), float(sigma))
np.save(target, slab[int(above) : len(slab) - int(below)])
"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=64, help="extent of the volume")
    parser.add_argument("--slabs", type=int, default=4, help="number of compute units")
    parser.add_argument("--store", help="URL of a connection; by default HDF5 in a new folder")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "store").mkdir()
        store = chosen.store or f"hdf5:{folder}/store"
        # In a store that others use too, two names of its own.
        names = [f"{name}-{os.urandom(4).hex()}" for name in ("volume", "filtered")]
        try:
            return convolve(Path(folder), chosen.size, chosen.slabs, store, *names)
        finally:
            con, _ = dn.open_url(store, mode="a")
            with con:
                for name in set(names) & set(con):
                    con.del_dataset(name)


def convolve(
    folder: Path, size: int, slabs: int, store: str, source_name: str, target_name: str
) -> int:
    volume = np.random.default_rng(1).random((size, size, size), "f4")
    con, _ = dn.open_url(store, mode="a")
    with con:
        con.create_dataset(source_name, data=volume, chunk_size=(16, 16, 16))
    pool, question, options = store.partition("?")
    source_url = f"dosna:{pool}/{source_name}{question}{options}"

    url = f"sqlite:///{folder}/state.db"
    pilots, places = PilotComputeService(url), PilotDataService(url)
    service = ComputeDataService(url)
    place = places.create_pilot({"service_url": f"file://{folder}/data"})
    # The pilot is where the dataset is stored, so that the slabs come from near.
    near = {"affinity_datacenter_label": "lab", "affinity_machine_label": "store"}
    pilots.create_pilot(
        {
            **near,
            "service_url": "fork://localhost",
            "number_of_processes": 2,
            "working_directory": str(folder),
            "python": sys.executable,
        }
    )
    results = place.submit_data_unit({"file_urls": []})
    edges = np.linspace(0, size, slabs + 1).astype(int)
    units = []
    for number, (begin, end) in enumerate(itertools.pairwise(edges)):
        first, last = max(0, begin - HALO), min(size, end + HALO)
        source = f"{source_url}#region={first}:{last};as=slab.npy"
        slab = place.submit_data_unit({"file_urls": [source], **near})
        target = f"filtered-{number}.npy"
        cuts = [str(begin - first), str(last - end)]
        units.append(
            service.submit_compute_unit(
                {
                    "executable": sys.executable,
                    "arguments": ["-c", FILTER, "slab.npy", target, str(SIGMA), *cuts],
                    "input_data": [slab.get_url()],
                    "output_data": [{results.get_url(): [target]}],
                }
            )
        )
    service.wait()
    pilots.cancel()
    for unit in units:
        if unit.get_state() != State.Done:
            print(f"{unit.get_url()}: {unit.get_details()['reason']}", file=sys.stderr)
            return 1
    results.export(f"{folder}/results")
    parts = [np.load(f"{folder}/results/filtered-{number}.npy") for number in range(slabs)]
    con, _ = dn.open_url(store, mode="a")
    with con:
        filtered = con.create_dataset(target_name, volume.shape, "f4", chunk_size=(16, 16, 16))
        for begin, part in zip(edges, parts, strict=False):
            filtered[begin : begin + len(part)] = part
        difference = float(np.abs(filtered[:] - gaussian_filter(volume, SIGMA)).max())
    print(units[0].get_details()["placement"])
    print(f"{slabs} slabs of {size}^3: largest difference {difference:.1e}")
    return int(difference > 1e-5)


if __name__ == "__main__":
    sys.exit(main())
