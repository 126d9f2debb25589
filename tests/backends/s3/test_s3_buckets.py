"""Buckets that others use too: versions, keys that are not dosna's, folders made by tools."""

from __future__ import annotations

import secrets

import numpy as np
import pytest
from services.proxy import Proxy
from services.s3 import make_bucket, make_client
from support import Gathering, require

import dosna as dn
from dosna import errors
from dosna.testing.timing import within

require("boto3")
require("obstore")


def connection(url, **options):
    return dn.Connection("tests", backend="s3", engine="cpu", endpoint_url=url, **options)


def switch_on_versions(url, bucket):
    client = make_client(url)
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    client.close()


def keys(client, bucket, prefix=""):
    listed = client.list_objects_v2(Bucket=bucket, Prefix=prefix)
    return [o["Key"] for o in listed.get("Contents", [])]


def changes(con, name):
    """List all that is done on condition."""
    ds = con[name]
    return {
        "part": lambda: ds.__setitem__(0, 1),
        "attributes": lambda: ds.attrs.update(a=1),
        "append": lambda: ds.append(np.zeros(3)),
        "resize": lambda: ds.resize(2),
        "delete": lambda: con.del_dataset(name),
        "group": lambda: con.set_group_attrs("g", {"a": 1}),
        "over a group": lambda: con.create_dataset("h", data=[1]),
    }


@pytest.mark.usefixtures("_any_keys")
def test_a_server_that_honours_conditions_no_more_is_not_asked_for_ever(moto_url):
    bucket = make_bucket(moto_url)
    with Proxy(moto_url) as proxy, connection(proxy.url, bucket=bucket, retries=0) as con:
        con.create_dataset("x", data=np.arange(8.0), chunk_size=4)
        con.set_group_attrs("g", {"a": 0})
        con.set_group_attrs("h", {"a": 0})
        con["x"][0] = 5
        for what, change in changes(con, "x").items():
            proxy.reset()
            proxy.fault = lambda request: 412 if "if-match" in request.headers else None
            with pytest.raises(errors.StorageError, match="versioning"):
                change()
            assert len(proxy.requests) < 100, what
        proxy.reset()
        assert con["x"][...].tolist() == [5, 1, 2, 3, 4, 5, 6, 7]
        con.del_dataset("x")


def test_versioning_that_is_switched_on_later(gateway):
    """This radosgw then answers 412 to every If-Match."""
    url = gateway.endpoint_url
    bucket = make_bucket(url)
    with connection(url, bucket=bucket) as con:
        con.create_dataset("x", data=np.arange(8.0), chunk_size=4)
        con["x"][0] = 5
        switch_on_versions(url, bucket)
        for change in (lambda: con["x"].__setitem__(0, 1), lambda: con.del_dataset("x")):
            with within(5), pytest.raises(errors.StorageError, match="versioning"):
                change()
    with connection(url, bucket=bucket) as con:
        assert con["x"].guarantees.partial_writes == "threads"
        with pytest.warns(UserWarning, match="conditional writes"):
            con["x"][0] = 6
        assert con["x"][0] == 6
        con.del_dataset("x")
        assert "x" not in con


@pytest.mark.usefixtures("_any_keys")
def test_a_bucket_with_versions_stays_with_a_word(moto_url):
    name = f"versions-{secrets.token_hex(4)}"
    with connection(moto_url) as con:
        con.create_dataset(name, data=np.arange(40), chunk_size=10)
        switch_on_versions(moto_url, name)
        with pytest.warns(UserWarning, match=f"bucket '{name}' stays: versioning"):
            con.del_dataset(name)
        assert name not in con
        with pytest.raises(errors.DatasetNotFoundError):
            con.del_dataset(name)
        ds = con.create_dataset(name, data=np.arange(5))
        assert ds[...].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.usefixtures("_any_keys")
@pytest.mark.parametrize("one", [True, False], ids=["one bucket", "buckets"])
@pytest.mark.parametrize("foreign", ["README.md", "thumbs/a.png", "c/0.bak", "c/00", "c/notes/"])
def test_deleting_never_deletes_what_is_not_its_own(moto_url, one, foreign):
    client = make_client(moto_url)
    name = f"own-{secrets.token_hex(4)}"
    bucket = make_bucket(moto_url) if one else name
    prefix = f"tests/{name}/" if one else ""
    with connection(moto_url, **({"bucket": bucket} if one else {})) as con:
        ds = con.create_dataset(name, data=np.arange(40), chunk_size=10)
        client.put_object(Bucket=bucket, Key=prefix + foreign, Body=b"mine")
        with pytest.raises(errors.StorageError, match=foreign):
            con.del_dataset(name)
        assert ds[...].tolist() == list(range(40))
        client.delete_object(Bucket=bucket, Key=prefix + foreign)
        # And the lock of a folder of the backend file, which was uploaded.
        for folder in ("", "c/", ".lock"):
            if prefix + folder:
                client.put_object(Bucket=bucket, Key=prefix + folder, Body=b"")
        con.del_dataset(name)
        assert name not in con
    if one:
        assert keys(client, bucket) == ["tests/zarr.json"]
    client.close()


@pytest.mark.usefixtures("_any_keys")
def test_a_dataset_is_made_where_a_tool_has_made_folders(moto_url):
    client = make_client(moto_url)
    bucket = make_bucket(moto_url)
    folders = ["tests/", "tests/new/", "tests/new/c/", "tests/new/photos/"]
    for key in folders:
        client.put_object(Bucket=bucket, Key=key, Body=b"")
    with connection(moto_url, bucket=bucket) as con:
        assert con.create_dataset("new", data=[1, 2])[...].tolist() == [1, 2]
        assert set(folders) <= set(keys(client, bucket))
        assert list(con) == ["new"]
    client.close()


@pytest.mark.usefixtures("_any_keys")
def test_many_folders_of_others_are_looked_at_together(moto_url):
    client = make_client(moto_url)
    bucket = make_bucket(moto_url)
    # More keys than one page of a list has, and few datasets among them.
    for number in range(1040):
        key = f"tests/run{number % 40:02d}/out{number // 40:02d}.log"
        client.put_object(Bucket=bucket, Key=key, Body=b"x")
    with Proxy(moto_url) as proxy, connection(proxy.url, bucket=bucket) as con:
        con.create_dataset("a/b", data=[1])
        proxy.reset()
        gathering = Gathering(8)

        def gather(request):
            if "run" in request.path:
                with gathering:
                    pass

        proxy.fault = gather
        assert list(con) == ["a/b"]
        assert gathering.most >= 8
        assert len(proxy.requests) <= 2 * 41 + 3
    client.close()
