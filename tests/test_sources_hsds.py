"""Domains of HSDS as a source, on a real server."""

from __future__ import annotations

import numpy as np
import pytest
from support import require
from test_hsds_domains import write_sample
from test_sources_conformance import SAMPLES

import dosna as dn
from dosna.sources import open_source
from dosna.testing import SourceTests

h5py = require("h5py")
h5pyd = require("h5pyd")


from dosna.export.hsds import load_domain  # noqa: E402
from dosna.hsds import HsdsClient, HsdsOptions  # noqa: E402


@pytest.fixture(scope="module")
def samples(hsds, tmp_path_factory):
    """Give the domain of the samples, and that of what is in NeXus files."""
    folder = tmp_path_factory.mktemp("hsds")
    with h5py.File(folder / "samples.h5", "w") as file:
        for name, array in SAMPLES.items():
            large = array.ndim == 3
            file.create_dataset(name, data=array, chunks=(8, 32, 32) if large else None)
    write_sample(folder / "sample.h5")
    client = HsdsClient(HsdsOptions())
    client.put("/", "/home/test/source", {"folder": True})
    load_domain(folder / "samples.h5", "/home/test/source/samples.h5")
    load_domain(folder / "sample.h5", "/home/test/source/sample.h5")
    yield folder
    for name in ("samples.h5", "sample.h5"):
        client.delete("/", f"/home/test/source/{name}")


class TestHsds(SourceTests):
    @pytest.fixture
    def arrays(self):
        return SAMPLES

    @pytest.fixture
    def make_source(self, samples):
        return lambda: open_source("hdf5://home/test/source/samples.h5")


class TestHsdsOpen(SourceTests):
    @pytest.fixture
    def arrays(self):
        return SAMPLES

    @pytest.fixture
    def make_source(self, samples):
        with h5pyd.File("/home/test/source/samples.h5", "r") as file:
            yield lambda: open_source(file)


@pytest.fixture
def con():
    with dn.Connection("hsds-source", backend="ram") as con:
        yield con
        for name in list(con):
            del con[name]


def test_it_is_what_the_file_is(samples):
    with (
        open_source(samples / "sample.h5") as file,
        open_source("hdf5://home/test/source/sample.h5") as domain,
    ):
        assert domain.names() == file.names()
        assert domain.groups() == file.groups()
        for name in file.names():
            one, other = file.describe(name), domain.describe(name)
            assert bool(one.refused) == bool(other.refused), (one, other)
            if one.refused:
                continue
            assert (one.shape, one.links) == (other.shape, other.links)
            if not name.endswith("padded"):
                assert one.dtype == other.dtype
            np.testing.assert_equal(dict(other.attrs), dict(one.attrs))
            np.testing.assert_array_equal(np.asarray(domain[name]), np.asarray(file[name]))
