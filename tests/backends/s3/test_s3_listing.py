"""Lists of many datasets in a bucket: few requests, and only what exists."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from services.proxy import Proxy
from services.s3 import make_bucket
from support import require

import dosna as dn
from dosna.backends.stores import listing
from dosna.backends.stores.deletion import DELETED
from dosna.io.processes import describe

require("boto3")
require("obstore")

from obstore.store import S3Store as ObstoreS3  # noqa: E402

pytestmark = pytest.mark.usefixtures("_any_keys")


@pytest.fixture
def proxy(moto_url):
    with Proxy(moto_url) as proxy:
        yield proxy


@pytest.fixture
def con(proxy):
    bucket = make_bucket(proxy.url)
    with dn.Connection(
        "tests", backend="s3", engine="cpu", endpoint_url=proxy.url, bucket=bucket
    ) as made:
        yield made


def copies(con, names):
    """Put copies of an array of one chunk without further requests."""
    con.create_dataset("model", data=np.arange(3))
    store = con.instance.store
    objects = {key: store.get(f"model/{key}").data for key in ("zarr.json", "c/0")}
    store.for_each(
        lambda item: store.put(*item), [(f"{n}/{k}", d) for n in names for k, d in objects.items()]
    )


@pytest.mark.slow
def test_a_list_looks_at_no_dataset_that_has_chunks(proxy, con):
    names = [f"run/d{n:04d}" for n in range(600)]
    copies(con, names)
    con.create_dataset("empty", (3,))
    con.set_group_attrs("run/of/attributes", {"text": "x" * 600})
    proxy.reset()
    assert list(con) == sorted([*names, "model", "empty"])
    # Two pages of keys, the empty array and the group.
    assert len(proxy.requests) <= 2 + 2
    proxy.reset()
    assert con.names_in("run") == names
    assert len(proxy.requests) <= 2 + 2


@pytest.mark.slow
@pytest.mark.parametrize("chunks", [5, 1100])
def test_few_requests_for_arrays_of_many_chunks(proxy, con, chunks):
    for name, count in (("run/a", chunks), ("run/c", 5), ("z", 5)):
        con.create_dataset(name, data=np.arange(count), chunk_size=1)
    proxy.reset()
    assert list(con) == ["run/a", "run/c", "z"]
    assert len(proxy.requests) <= 12


def test_what_is_being_deleted_is_not_listed(con):
    copies(con, [f"d{n}" for n in range(10)])
    mark = {
        "zarr_format": 3,
        "node_type": DELETED,
        "token": "0" * 16,
        "process": describe(os.getpid()) | {"host": "h" * 64, "pid": 4194304},
        "abandoned": False,
        "sign_of_life": "0" * 16,
    }
    data = json.dumps(mark).encode()
    assert len(data) <= listing._MARK
    con.instance.store.put("d3/zarr.json", data)
    assert "d3" not in list(con)
    assert len(list(con)) == 10
    con.instance.store.delete("d4/zarr.json")  # chunks without a document
    assert "d4" not in list(con)


def test_arrays_of_other_programs_are_listed(proxy, con):
    zarr = require("zarr")
    objects = ObstoreS3(
        con.instance.bucket,
        prefix="tests",
        endpoint=proxy.url,
        access_key_id="any",
        secret_access_key="any",
        client_options={"allow_http": True},
    )
    root = zarr.open_group(zarr.storage.ObjectStore(objects))
    for name in ("c", "g/c", "g/1", "g/c0"):
        root.create_array(name, shape=(4, 4), chunks=(2, 2), dtype="i4")[...] = 1
    root.create_array(
        "v2", shape=(4, 4), chunks=(2, 2), dtype="i4", chunk_key_encoding={"name": "v2"}
    )[...] = 1
    root.create_array("scalar", shape=(), dtype="i4")[...] = 1
    assert list(con) == ["c", "g/1", "g/c", "g/c0", "scalar", "v2"]
