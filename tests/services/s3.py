"""What tests ask of an S3 server themselves."""

from __future__ import annotations

import secrets
from contextlib import closing
from typing import Any


def make_client(url: str, keys: tuple[str, str] | None = None) -> Any:
    import boto3

    # boto3's default session would remember the first test's keys.
    session = boto3.Session(*(keys or ()))
    return session.client("s3", endpoint_url=url, region_name="us-east-1")


def make_bucket(url: str) -> str:
    name = f"bucket-{secrets.token_hex(6)}"
    with closing(make_client(url)) as client:
        client.create_bucket(Bucket=name)
    return name
