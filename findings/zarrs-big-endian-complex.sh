#!/bin/sh
# Big-endian complex numbers should be swapped part by part. The codec pipeline of zarrs 0.2.3,
# used through zarr-python 3.1.6, does so where it decodes a whole chunk, but where it decodes a
# part (a slice, the chunk at the edge of an array) it reverses all the bytes of an element and so
# exchanges real and imaginary part. One array then has right and wrong elements, and which are
# wrong depends on the selection. Little-endian complex and big-endian real arrays are right. Seen:
# 1+10j is read as 10+1j.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    zarr==3.1.6 zarrs==0.2.3 numcodecs==0.16.6 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys
import numpy as np
import zarr
from zarr.codecs import BytesCodec


def stored(name, values, endian):
    zarr.create_array(
        name, data=values, chunks=(4,), compressors=None, serializer=BytesCodec(endian=endian)
    )
    return zarr.open_array(name)


values = np.arange(10) + 10j
stored("big.zarr", values, "big")
plain = zarr.open_array("big.zarr")[:]
print("zarr-python's own pipeline is right:", np.array_equal(plain, values))

zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
big = zarr.open_array("big.zarr")
whole, part, edge = big[0:4], big[1:4], big[8:10]
print("zarrs, a whole chunk: ", whole)
print("zarrs, part of a chunk:", part)
print("zarrs, the edge:       ", edge)
exchanged = [np.array_equal(got, want.imag + 1j * want.real) for got, want in (
    (part, values[1:4]), (edge, values[8:]))]
print("real and imaginary part are exchanged:", exchanged)

others = np.array_equal(stored("little.zarr", values, "little")[1:4], values[1:4])
others &= np.array_equal(stored("real.zarr", values.real, "big")[1:4], values.real[1:4])
print("little-endian complex and big-endian real are right:", others)

as_seen = np.array_equal(plain, values) and np.array_equal(whole, values[:4])
sys.exit(0 if as_seen and exchanged == [True, True] and others else "This has changed.")
END
