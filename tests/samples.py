"""Arrays and files that tests of several packages read."""

from __future__ import annotations

import numpy as np
from support import require

SAMPLES = {
    "entry/image": np.random.default_rng(1).integers(0, 99, (33, 70, 41), "u2"),
    "entry/big_endian": np.arange(60, dtype=">f4").reshape(5, 12),
    "entry/flag": np.array([True, False, True]),
    "entry/complex": np.array([[1 + 2j, 3], [4, 5j]]),
    "entry/record": np.array([(1, 2.5), (3, 4.5)], [("n", "i2"), ("x", "f8")]),
    "text": np.array([b"some", b"bytes"]),
    "none": np.zeros((0, 3), "i4"),
    "scalar": np.array(2.5),
    "z/large": np.random.default_rng(2).random((64, 128, 128), "f4"),
}


def write_hdf5(path, arrays, **options):
    h5py = require("h5py")
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            large = array.ndim == 3
            file.create_dataset(name, data=array, **(options if large else {}))


def small_integers(shape):
    return np.random.default_rng(0).integers(0, 9, shape, "i4")


LINKED = {
    "contiguous": {},
    "chunked": {"chunks": (8, 16, 53)},
    "gzip": {"chunks": (8, 16, 20), "compression": "gzip"},
    "shuffled": {"chunks": (8, 16, 20), "shuffle": True},
    "both": {"chunks": (8, 16, 20), "compression": "gzip", "shuffle": True},
    "checked": {"chunks": (8, 16, 20), "compression": "gzip", "fletcher32": True},
}
COPIED = {
    "lzf": {"chunks": (8, 16, 20), "compression": "lzf"},
    "only checked": {"chunks": (8, 16, 20), "fletcher32": True},
}


def write_sample(path):
    h5py = require("h5py")
    with h5py.File(path, "w") as file:
        file.attrs["title"] = "rött"
        entry = file.create_group("entry1")
        entry.attrs["NX_class"] = "NXentry"
        for name, options in {**LINKED, **COPIED}.items():
            entry.create_dataset(name, data=small_integers((37, 45, 53)), **options)
        entry["big_endian"] = np.arange(10, dtype=">f4")
        entry["flags"] = np.array([True, False])
        entry["fixed"] = np.array([b"some", b"by"])
        record = np.dtype([("n", "i2"), ("x", ">f8"), ("s", "S3")])
        entry["record"] = np.array([(1, 2.5, b"xy")], record)
        padded = {"names": ["a", "b"], "formats": ["u1", "i4"], "offsets": [0, 4], "itemsize": 12}
        entry["padded"] = np.array([(1, 2), (3, 4)], np.dtype(padded))
        entry.create_dataset("texts", data=["aé", "bcd", ""], dtype=h5py.string_dtype())
        entry["title"] = "a scan"
        entry["number"] = 2.5
        entry["none"] = np.zeros((0, 3), "i4")
        entry["null"] = h5py.Empty("f4")
        kind = h5py.enum_dtype({"A": 1, "B": 2}, "i1")
        entry.create_dataset("enum", data=np.array([1, 2], "i1"), dtype=kind)
        ragged = entry.create_dataset("ragged", (2,), dtype=h5py.vlen_dtype("i4"))
        ragged[0], ragged[1] = [1, 2], [3]
        refer = entry.create_dataset("refer", (3,), dtype=h5py.ref_dtype)
        refer[0], refer[1] = entry["number"].ref, entry.ref
        arrays = entry.create_dataset("arrays", (2,), dtype=np.dtype(("i4", (3,))))
        arrays[...] = np.arange(6).reshape(2, 3)
        filled = entry.create_dataset("filled", (20, 20), "i4", chunks=(10, 10), fillvalue=7)
        filled[:3] = 1
        entry.create_dataset("grows", data=np.arange(35.0).reshape(5, 7), maxshape=(None, 7))
        entry["soft"] = h5py.SoftLink("/entry1/number")
        entry["hard"] = entry["number"]
        entry["outside"] = h5py.ExternalLink("other.h5", "/x")
        entry["dead"] = h5py.SoftLink("/nothing")
        entry["x"] = np.arange(37.0)
        entry["x"].make_scale("x")
        entry["contiguous"].dims[0].attach_scale(entry["x"])
        attrs = entry["number"].attrs
        attrs["count"], attrs["nan"], attrs["yes"] = 1, np.nan, True
        attrs["list"], attrs["words"] = np.arange(3.0), ["x", "yy"]
        attrs["nothing"], attrs["group"] = h5py.Empty("f4"), entry.ref
        attrs["record"] = np.array([(1, 2.5)], [("n", "i2"), ("x", "f8")])
