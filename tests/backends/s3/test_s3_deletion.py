"""Datasets on S3 whose deletion was interrupted."""

from __future__ import annotations

import secrets
import subprocess
import sys
import time

import numpy as np
import pytest
from services.proxy import Proxy
from support import require

import dosna as dn
from dosna.testing.timing import within

boto3 = require("boto3")
require("obstore")

DELETE = """
import sys
import dosna as dn
url, name, bucket = sys.argv[1:]
options = {"backend": "s3", "engine": "cpu", "endpoint_url": url, "bucket": bucket or None}
with dn.Connection("tests", **options) as con:
    con.del_dataset(name)
"""


@pytest.mark.parametrize("layout", ["buckets", "one bucket"])
@pytest.mark.parametrize("finish", ["create", "delete"])
def test_a_deletion_that_was_killed_is_finished_within_seconds(gateway, layout, finish):
    url, name, bucket = gateway.endpoint_url, f"x-{secrets.token_hex(6)}", None
    if layout == "one bucket":
        bucket = f"bucket-{secrets.token_hex(6)}"
        client = boto3.Session().client("s3", endpoint_url=url, region_name="us-east-1")
        client.create_bucket(Bucket=bucket)
        client.close()
    kwargs = {"backend": "s3", "engine": "cpu", "bucket": bucket}
    with (
        dn.Connection("tests", endpoint_url=url, **kwargs) as con,
        Proxy(url, lambda request: 503 if request.method == "POST" else None) as proxy,
    ):
        con.instance.settle = 0.3
        con.create_dataset(name, data=np.ones(6), chunk_size=2)
        with subprocess.Popen([sys.executable, "-c", DELETE, proxy.url, name, bucket or ""]) as it:
            while "POST" not in proxy.counts:
                assert it.poll() is None
                time.sleep(0.01)
            it.kill()
        with within(20):
            assert name not in con
            if finish == "create":
                made = con.create_dataset(name, (6,), chunk_size=2)
                assert made.written_chunks() == []
            con.del_dataset(name)
        assert name not in con
        assert list(con.instance.store.list(name + "/")) == []


@pytest.mark.parametrize("late", ["a write", "a dataset"])
def test_what_comes_before_the_bucket_is_deleted(gateway, late):
    url, name = gateway.endpoint_url, f"x-{secrets.token_hex(6)}"
    options = {"backend": "s3", "engine": "cpu"}
    came = []

    def come(request):
        if request.method == "DELETE" and request.path.strip("/") == name and not came:
            came.append(True)
            if late == "a write":
                other.instance.store.put(name + "/c/0", b"")
            else:
                other.create_dataset(name, data=np.arange(3))

    with (
        Proxy(url) as proxy,
        dn.Connection("tests", endpoint_url=proxy.url, **options) as con,
        dn.Connection("others", endpoint_url=url, **options) as other,
    ):
        con.create_dataset(name, data=np.ones(6), chunk_size=2)
        proxy.fault = come
        con.del_dataset(name)
        assert came
        if late == "a write":
            assert name not in con
            assert name not in [
                b["Name"] for b in con.instance.store.call("list_buckets")["Buckets"]
            ]
        else:
            assert con[name][...].tolist() == [0, 1, 2]
            con.del_dataset(name)
