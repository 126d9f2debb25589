"""Sources in S3, and ingest into it."""

from __future__ import annotations

import io
import secrets
import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest
from samples import SAMPLES, write_hdf5
from services.s3 import make_bucket, make_client
from support import HANG, require

import dosna as dn
from dosna.errors import ConfigurationError, SourceChangedError, SourceError, SourceNotFoundError
from dosna.sources import open_source
from dosna.testing import SourceTests

for package in ("h5py", "boto3", "obstore"):
    require(package)

SMALL = {name: SAMPLES[name] for name in ("entry/image", "scalar", "text", "none")}


@pytest.fixture
def endpoint_url(gateway):
    return gateway.endpoint_url


@pytest.fixture
def bucket(endpoint_url):
    with closing(make_client(endpoint_url)) as client:
        client.name = make_bucket(endpoint_url)
        yield client


@pytest.fixture(scope="module")
def common(gateway):
    """Give a bucket of objects that nobody changes, each test's below a folder of its own."""
    with closing(make_client(gateway.endpoint_url)) as client:
        client.name = make_bucket(gateway.endpoint_url)
        yield client


def put(bucket, key, data):
    bucket.put_object(Bucket=bucket.name, Key=key, Body=data)
    return f"s3://{bucket.name}/{key}"


@pytest.fixture(scope="module")
def image():
    written = io.BytesIO()
    write_hdf5(written, SMALL, chunks=(8, 35, 41), compression="gzip", shuffle=True)
    return written.getvalue()


class TestHDF5(SourceTests):
    @pytest.fixture
    def arrays(self):
        return SMALL

    @pytest.fixture
    def make_source(self, common, endpoint_url, image):
        url = put(common, f"{secrets.token_hex(4)}/scan.nxs", image)
        return lambda: open_source(url, endpoint_url=endpoint_url)


class TestNpz(SourceTests):
    @pytest.fixture
    def arrays(self):
        return SMALL

    @pytest.fixture
    def make_source(self, common, endpoint_url):
        written = io.BytesIO()
        np.savez(written, **SMALL)
        url = put(common, f"{secrets.token_hex(4)}/samples.npz", written.getvalue())
        return lambda: open_source(url, endpoint_url=endpoint_url)


class TestZarr(SourceTests):
    @pytest.fixture
    def arrays(self):
        return {"a/image": SMALL["entry/image"], "scalar": SMALL["scalar"]}

    @pytest.fixture
    def make_source(self, common, endpoint_url, arrays, tmp_path):
        zarr = require("zarr")
        group = zarr.create_group(tmp_path / "a.zarr", zarr_format=2)
        for name, array in arrays.items():
            group.create_array(name, data=array)
        folder = secrets.token_hex(4)
        for path in (tmp_path / "a.zarr").rglob("*"):
            if path.is_file():
                put(common, f"{folder}/{path.relative_to(tmp_path)}", path.read_bytes())
        url = f"s3://{common.name}/{folder}/a.zarr"
        return lambda: open_source(url, endpoint_url=endpoint_url)


def test_from_one_bucket_into_another(bucket, endpoint_url, image):
    url = put(bucket, "scan.h5", image)
    with dn.Connection("in", backend="s3", endpoint_url=endpoint_url, bucket=bucket.name) as con:
        report = con.ingest(url, "scan", endpoint_url=endpoint_url, compression="gzip")
        assert sorted(con) == report.made == sorted(f"scan/{name}" for name in SMALL)
        for name, array in SMALL.items():
            np.testing.assert_array_equal(con[f"scan/{name}"][...], array)


def test_a_tree_is_not_made_of_buckets(endpoint_url, bucket, image):
    url = put(bucket, "scan.h5", image)
    before = len(bucket.list_buckets()["Buckets"])
    with dn.Connection("in", backend="s3", endpoint_url=endpoint_url) as con:
        with pytest.raises(
            ConfigurationError, match="makes a bucket of each dataset: give the con"
        ):
            con.ingest(url, endpoint_url=endpoint_url)
        assert len(bucket.list_buckets()["Buckets"]) == before
        name = f"one-{secrets.token_hex(4)}"
        con.ingest(url + ":entry/image", name, endpoint_url=endpoint_url)
        np.testing.assert_array_equal(con[name][...], SMALL["entry/image"])
        del con[name]


KILLED = """
import os, signal, sys
import dosna as dn

url, endpoint_url, bucket = sys.argv[1:]

def tell(done, total):
    if done > total / 2:
        os.kill(os.getpid(), signal.SIGKILL)

given = {"select": "entry/image", "chunk_size": (4, 35, 41), "endpoint_url": endpoint_url}
with dn.Connection("in", backend="s3", endpoint_url=endpoint_url, bucket=bucket) as con:
    con.ingest(url, memory_limit="200K", progress=tell, **given)
"""


def test_a_killed_ingest_from_s3_into_s3_goes_on(endpoint_url, bucket, image):
    url = put(bucket, "scan.h5", image)
    command = [sys.executable, "-c", KILLED, url, endpoint_url, bucket.name]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=HANG)
    assert ran.returncode == -9, ran.stderr
    given = {"select": "entry/image", "chunk_size": (4, 35, 41), "endpoint_url": endpoint_url}
    where = {"endpoint_url": endpoint_url, "bucket": bucket.name}
    with dn.Connection("in", backend="s3", **where) as con:
        ds = con["entry/image"]
        assert ds.incomplete
        there = len(list(ds.instance.object_indices()))
        assert 0 < there < ds.total_chunks
        assert con.ingest(url, **given).resumed == ["entry/image"]
        np.testing.assert_array_equal(con["entry/image"][...], SMALL["entry/image"])


def test_what_is_not_there(bucket, endpoint_url):
    with pytest.raises(SourceNotFoundError, match=f"no object s3://{bucket.name}/none.h5"):
        open_source(f"s3://{bucket.name}/none.h5", endpoint_url=endpoint_url).names()
    with pytest.raises(SourceError, match="object"):
        open_source("s3://.h5", endpoint_url=endpoint_url)
    url = put(bucket, "text.h5", b"no HDF5 at all")
    with pytest.raises(SourceError, match="not an HDF5 file"):
        open_source(url, endpoint_url=endpoint_url).names()


def test_an_object_that_is_replaced_while_it_is_read(bucket, endpoint_url, image):
    url = put(bucket, "scan.h5", image)
    with open_source(url, endpoint_url=endpoint_url) as source:
        assert source["scalar"][()] == 2.5
        put(bucket, "scan.h5", image + b"more")
        with pytest.raises(SourceChangedError, match="was replaced while it was being read"):
            source["entry/image"][...]
