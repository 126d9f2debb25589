"""The results as clients of S3 read them, from a folder and from an S3 server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeTransform
from services.s3 import make_client
from support import HANG, require, wait_until

boto3 = require("boto3")
httpx = require("httpx")
from botocore.config import Config  # noqa: E402
from botocore.exceptions import ClientError  # noqa: E402

URL = "/servicex/transformation"
DAY = 86400


@pytest.fixture(params=["folder", "s3"])
def server(request: Any, serve: Any, tmp_path: Path) -> Iterator[Any]:
    if request.param == "folder":
        yield serve(FakeTransform(), objects=str(tmp_path / "elsewhere"))
        return
    request.getfixturevalue("_any_keys")
    url = request.getfixturevalue("moto_url")
    bucket = f"results-{time.monotonic_ns()}"
    client = make_client(url)
    client.create_bucket(Bucket=bucket)
    yield serve(FakeTransform(), objects=f"s3://{bucket}/some/prefix", objects_endpoint=url)
    client.close()


def complete(server: Any, paths: list[str]) -> dict[str, Any]:
    """Let a request run, and give its status."""
    body = {"file-list": paths, "selection": "good", "codegen": "python"}
    with httpx.Client(base_url=server.root, timeout=HANG) as client:
        id = client.post(URL, json=body).json()["request_id"]
        wait_until(lambda: client.get(f"{URL}/{id}").json()["status"] == "Complete")
        return dict(client.get(f"{URL}/{id}").json())


def s3(server: Any, status: dict[str, Any], **changed: Any) -> Any:
    given = {
        "aws_access_key_id": status["minio-access-key"],
        "aws_secret_access_key": status["minio-secret-key"],
        "config": Config(signature_version="s3v4", retries={"max_attempts": 1}),
    }
    return boto3.client("s3", endpoint_url=server.root, region_name="us-east-1", **given | changed)


def code(error: Any) -> str:
    return str(error.value.response["Error"]["Code"])


def test_keys_open_one_bucket_for_reading(server: Any, paths: list[str], tmp_path: Path) -> None:
    first, other = complete(server, paths), complete(server, paths[:1])
    mine, others = first["request_id"], other["request_id"]
    client = s3(server, first)
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket=mine, PaginationConfig={"PageSize": 3}
    )
    found = {one["Key"]: one["Size"] for page in pages for one in page.get("Contents", [])}
    assert len(found) == 4
    assert len(client.list_objects(Bucket=mine)["Contents"]) == 4
    for (name, size), path in zip(sorted(found.items()), paths, strict=True):
        data = Path(path).read_bytes()
        assert (size, client.head_object(Bucket=mine, Key=name)["ContentLength"]) == (
            len(data), len(data)
        )  # fmt: skip
        assert client.get_object(Bucket=mine, Key=name)["Body"].read() == data
        part = client.get_object(Bucket=mine, Key=name, Range="bytes=10-19")
        assert part["Body"].read() == data[10:20]
        assert part["ContentRange"] == f"bytes 10-19/{len(data)}"
        last = client.get_object(Bucket=mine, Key=name, Range="bytes=-5")
        assert last["Body"].read() == data[-5:]
        client.download_file(mine, name, str(tmp_path / name))
        assert (tmp_path / name).read_bytes() == data
    with pytest.raises(ClientError) as error:
        client.get_object(Bucket=mine, Key="000099-x.parquet")
    assert code(error) == "NoSuchKey"
    refused = [
        lambda: client.list_objects_v2(Bucket=others),
        lambda: client.get_object(Bucket=others, Key=name),
        lambda: s3(server, first, aws_secret_access_key="x" * 40).list_objects_v2(Bucket=mine),
        lambda: s3(server, first, aws_access_key_id="X" * 20).list_objects_v2(Bucket=mine),
    ]
    for ask in refused:
        with pytest.raises(ClientError) as error:
            ask()
        assert code(error) in ("AccessDenied", "SignatureDoesNotMatch")
    for change in (
        lambda: client.put_object(Bucket=mine, Key="x", Body=b""),
        lambda: client.delete_object(Bucket=mine, Key=name),
        lambda: client.create_bucket(Bucket="another"),
    ):
        with pytest.raises(ClientError):
            change()
    assert client.head_object(Bucket=mine, Key=name)["ContentLength"] == size


@pytest.mark.parametrize("key", ["9" * 30 + "-x", "9" * 900 + "-x", "٣-x", "000000-gone.parquet"])
def test_keys_that_no_result_has(serve: Any, paths: list[str], key: str, tmp_path: Path) -> None:
    server = serve(FakeTransform(), objects=str(tmp_path / "elsewhere"))
    status = complete(server, paths[:1])
    id = status["request_id"]
    with pytest.raises(ClientError) as error:
        s3(server, status).get_object(Bucket=id, Key=key)
    assert code(error) == "NoSuchKey"
    (tmp_path / "elsewhere" / id / "000000-events_0.parquet").unlink()
    with pytest.raises(ClientError) as error:
        s3(server, status).get_object(Bucket=id, Key="000000-events_0.parquet")
    assert code(error) == "NoSuchKey"


@pytest.mark.parametrize("version", ["s3", "s3v4"])
def test_urls_are_signed_for_one_object(server: Any, paths: list[str], version: str) -> None:
    status = complete(server, paths[:2])
    id, names = status["request_id"], ["000000-events_0.parquet", "000001-events_1.parquet"]
    client = s3(server, status, config=Config(signature_version=version))

    def sign(seconds: int) -> str:
        what = {"Bucket": id, "Key": names[0]}
        return str(client.generate_presigned_url("get_object", what, seconds))

    url = sign(7 * DAY)
    assert httpx.get(url).content == Path(paths[0]).read_bytes()
    assert httpx.get(url.replace(names[0], names[1])).status_code == 403
    assert httpx.get(url[:-2]).status_code == 403
    date = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    scope = f"{status['minio-access-key']}/{date[:8]}/us-east-1/s3/aws4_request"
    for query in (
        f"AWSAccessKeyId={status['minio-access-key']}&Signature=x&Expires=" + "9" * 5000,
        f"X-Amz-Credential={scope}&X-Amz-Signature=x&X-Amz-Date={date}&X-Amz-Expires="
        + "9" * 5000,
    ):
        assert httpx.get(f"{server.root}/{id}/{names[0]}?{query}").status_code == 403
    short = sign(1)
    wait_until(lambda: httpx.get(short).status_code == 403)
    # A year is what the client asks for. The keys are deleted with the request.
    assert httpx.get(sign(365 * DAY)).status_code == (200 if version == "s3" else 403)
    httpx.delete(f"{server.root}{URL}/{id}")
    gone = httpx.get(url)
    assert (gone.status_code, "ignore_local_cache" in gone.text) == (403, True)


def test_requests_expire(serve: Any, paths: list[str], tmp_path: Path) -> None:
    server = serve(FakeTransform(), keep_days=1e-9)
    status = complete(server, paths[:1])
    service = server.service
    results = tmp_path / "state" / "objects" / status["request_id"]
    assert results.exists()
    service.sweep()
    assert not results.exists()
    assert httpx.get(f"{server.root}{URL}/{status['request_id']}").status_code == 404
