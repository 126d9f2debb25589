"""The datasets that the tests of the server serve, and how they are stored as Zarr."""

from __future__ import annotations

import numpy as np

ARRAYS = {
    "entry/tomo": np.arange(5 * 6 * 7, dtype="f4").reshape(5, 6, 7),
    "entry/deep/counts": np.arange(12, dtype=">i8").reshape(3, 4),
    "entry/deep/mask": np.array([True, False, True]),
    "entry/deep/waves": np.array([1 + 2j, np.nan]),
    "entry/deep/times": np.array(["2020-01-01", "NaT"], "M8[s]"),
    "entry/deep/points": np.array([(1, 2.5), (3, -1.0)], [("n", "<i4"), ("x", "<f8")]),
    "entry/scalar": np.array(2.5),
    "entry/nothing": np.zeros((0, 3), "i2"),
    "title": np.array(["α", "", "zz"], np.dtypes.StringDType()),
}
CHUNKS = {"entry/tomo": (2, 4, 4), "entry/deep/counts": (2, 2)}


def fill(con, **options):
    for name, values in ARRAYS.items():
        own = options.get(name, options.get("", {}))
        con.create_dataset(name, data=values, chunk_size=CHUNKS.get(name), **own)
    con["entry/tomo"].attrs.update({"unit": "mm", "nan": np.nan})
    con.set_group_attrs("entry", {"NX_class": "NXentry"})
    sparse = con.create_dataset("entry/sparse", (4, 4), "i4", 7, chunk_size=(2, 2))
    sparse[:2, 2:] = 1


ZARR = {
    "": {"compression": "zstd"},
    "title": {},
    "entry/tomo": {"shards": (4, 4, 8), "compression": "gzip", "dims": ("z", "y", "x")},
    "entry/deep/counts": {},
    "entry/deep/points": {},
}
