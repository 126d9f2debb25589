"""The cache of decoded chunks on S3: what it costs in requests, and that it is never stale."""

from __future__ import annotations

import multiprocessing

import numpy as np
import pytest
from services import aws_environment
from services.proxy import Proxy
from services.s3 import make_bucket
from support import HANG, require

import dosna as dn
from dosna import errors

require("boto3")
require("obstore")

pytestmark = pytest.mark.usefixtures("_any_keys")


def connection(url, bucket, **options):
    return dn.Connection(
        "tests", backend="s3", engine="cpu", endpoint_url=url, bucket=bucket, **options
    )


@pytest.mark.parametrize("recheck", ["always", "open"])
def test_planes_that_lie_in_the_same_chunks(moto_url, recheck):
    bucket = make_bucket(moto_url)
    data = np.arange(8**3).reshape(8, 8, 8)
    with (
        Proxy(moto_url) as proxy,
        connection(proxy.url, bucket, cache="1 MiB", recheck=recheck) as con,
        connection(moto_url, bucket) as other,
    ):
        con.create_dataset("a", data=data, chunk_size=(4, 4, 4))
        ds = con["a"]
        proxy.reset()
        np.testing.assert_array_equal(ds[0], data[0])
        assert [r.headers.get("range") for r in proxy.requests] == [None] * 4
        for plane in (1, 2, 3):
            proxy.reset()
            np.testing.assert_array_equal(ds[plane], data[plane])
            ranges = [r.headers.get("range") for r in proxy.requests]
            assert ranges == (["bytes=0-0"] * 4 if recheck == "always" else [])
        other["a"][0, 0, 0] = -1
        assert con["a"][0, 0, 0] == -1
        if recheck == "always":
            assert ds[0, 0, 0] == -1


@pytest.mark.parametrize("recheck", ["always", "open"])
def test_a_dataset_made_again_with_the_same_bytes_is_another(moto_url, recheck):
    """The ETags are the same, and nothing but the marks differs."""
    bucket = make_bucket(moto_url)
    with connection(moto_url, bucket, cache="1 MiB", recheck=recheck) as con:
        old = con.create_dataset("a", data=np.arange(8), chunk_size=4)
        assert old[3] == 3
        with connection(moto_url, bucket) as other:
            other.del_dataset("a")
            other.create_dataset("a", data=np.arange(8), chunk_size=4)
        if recheck == "open":
            assert con["a"][3] == 3  # which puts what is there now into the cache
        with pytest.raises(errors.StaleDatasetError):
            old[3]


def write_when_told(url, bucket, pipe):
    with aws_environment("an-access-key", "a-secret-key"), connection(url, bucket) as con:
        ds = con["a"]
        while (value := pipe.recv()) is not None:
            ds[...] = value
            pipe.send(value)


def test_what_another_process_wrote_is_read(moto_url):
    bucket = make_bucket(moto_url)
    spawn = multiprocessing.get_context("spawn")
    mine, its = spawn.Pipe()
    with connection(moto_url, bucket, cache="1 MiB") as con:
        ds = con.create_dataset("a", data=np.zeros((4, 4)), chunk_size=(2, 2))
        process = spawn.Process(target=write_when_told, args=(moto_url, bucket, its))
        process.start()
        try:
            for value in range(1, 20):
                mine.send(value)
                assert mine.recv() == value
                np.testing.assert_array_equal(ds[...], np.full((4, 4), value))
                assert ds[1, 2] == value
            mine.send(None)
            process.join(HANG)
            assert process.exitcode == 0
        finally:
            process.kill()
            process.join()
