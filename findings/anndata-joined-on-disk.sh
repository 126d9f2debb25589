#!/bin/sh
# Sparse matrices that are joined on disk should be what they are when they are joined in memory, of a type
# that holds both. anndata 0.12.19 appends later ones to the arrays of the first in concat_on_disk, in its
# type: after counts of uint8, the normalized values of float32 are 0, and large numbers become the largest
# that the type holds in HDF5 (1000 is 127 in int8, 2**40 is 2**31 - 1 in int32), and others in Zarr (1000
# is -24, 2**40 is 0, -1 is 255). So it is for X, layers and obsm. No error or warning. Dense arrays get the
# wider type, and which values are lost depends on which file is named first.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    anndata==0.12.19 h5py==3.16.0 zarr==3.1.6 pandas==2.3.3 scipy==1.17.1 numpy==2.4.6 'dask[array]==2025.3.1' \
    || exit 2
venv/bin/python -I -W ignore::FutureWarning -W ignore::UserWarning -W error::RuntimeWarning - <<'END'
import sys

import anndata
import numpy as np
import pandas as pd
from anndata.experimental import concat_on_disk
from scipy.sparse import csr_matrix, issparse


def made(kind, value, form):
    array = form(np.full((1, 2), value, kind))
    cells, genes = pd.DataFrame(index=[kind]), pd.DataFrame(index=["a", "b"])
    return anndata.AnnData(array, cells, genes, layers={"more": array})


def first_gene(array):
    return (array.toarray() if issparse(array) else array)[:, 0].tolist()


as_seen = True
for first, second, value, in_hdf5, in_zarr in (
    ("u1", "f4", 0.5, 0, 0),
    ("i1", "i4", 1000, 127, -24),
    ("i4", "i8", 2**40, 2**31 - 1, 0),
    ("u1", "i1", -1, 0, 255),
    ("f4", "u1", 3, 3, 3),
):
    print(f"1 of {first}, then {value} of {second}")
    for form in (csr_matrix, np.asarray):
        parts = made(first, 1, form), made(second, value, form)
        for suffix, seen in (("h5ad", in_hdf5), ("zarr", in_zarr)):
            for name, part in zip("ab", parts):
                getattr(part, f"write_{suffix}")(f"{name}.{suffix}")
            concat_on_disk([f"a.{suffix}", f"b.{suffix}"], f"c.{suffix}")
            joined = getattr(anndata, f"read_{suffix}")(f"c.{suffix}")
            X, layer = first_gene(joined.X), first_gene(joined.layers["more"])
            print(f"    {form.__name__:10} {suffix:5}: {X}, {joined.X.dtype}")
            as_seen &= X == layer == [1, seen if form is csr_matrix else value]
        memory = anndata.concat(parts).X
        print(f"    {form.__name__:10} memory: {first_gene(memory)}, {memory.dtype}")
        as_seen &= first_gene(memory) == [1, value]
sys.exit(0 if as_seen else "This has changed.")
END
