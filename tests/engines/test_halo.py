"""Neighbourhoods of every size, beside filters over the whole array."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import dosna as dn
from dosna.testing.operations import HALO_CHUNKS, HALOS, PADDINGS, filtered, neighbours, rows
from dosna.testing.samples import sample


@pytest.mark.parametrize("mode", PADDINGS)
def test_every_halo_of_chunks_of_every_size(mode):
    data = sample((11, 7), "<f8", 2)
    with dn.Connection("halos", backend="ram", engine="cpu") as con:
        for number, (chunks, halo) in enumerate(product(HALO_CHUNKS, HALOS)):
            ds = con.create_dataset(f"{number}", data=data, chunk_size=chunks)
            func = neighbours if halo[1] else rows
            out = ds.map(func, f"{number}-out", halo=halo, boundary=mode, cval=2.5)
            whole = filtered(data, func, halo, mode, 2.5)
            np.testing.assert_allclose(out[...], whole, rtol=1e-12, atol=1e-12)
