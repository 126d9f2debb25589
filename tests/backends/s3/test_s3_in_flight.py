"""Many requests at a time of the s3 backend: each once, and none left behind."""

from __future__ import annotations

import secrets
import signal
import threading
import time

import pytest
from support import require, taking_ctrl_c

boto3 = require("boto3")
require("obstore")

from dosna.backends.s3.connection import S3Connection  # noqa: E402


@pytest.fixture
def store(gateway):
    bucket = f"bucket-{secrets.token_hex(6)}"
    url = gateway.endpoint_url
    client = boto3.Session().client("s3", endpoint_url=url, region_name="us-east-1")
    client.create_bucket(Bucket=bucket)
    client.close()
    con = S3Connection("tests", url, bucket=bucket)
    con.connect()
    yield con.store
    con.disconnect()


@pytest.mark.parametrize("count", [0, 1, 2, 15, 16, 17, 500])
def test_each_item_is_worked_on_once(store, count):
    done = []
    store.for_each(done.append, iter(range(count)))
    assert sorted(done) == list(range(count))


def test_work_within_work_ends(store):
    done = []
    store.for_each(lambda _: store.for_each(done.append, range(20)), range(40))
    assert len(done) == 800


def test_ctrl_c_leaves_nothing_under_way(store):
    began, ended = [], []

    def work(number):
        began.append(number)
        time.sleep(0.02)
        if number == 100:
            signal.pthread_kill(caller, signal.SIGINT)
        ended.append(number)

    caller = threading.get_ident()
    with taking_ctrl_c(), pytest.raises(KeyboardInterrupt):
        store.for_each(work, range(100_000))
    count = len(ended)
    assert 1 < count < 100_000
    assert len(began) - count <= 1  # the caller's own was cut off
    time.sleep(0.1)
    assert len(ended) == count


def test_an_error_of_the_items_is_raised_and_ends_the_work(store):
    done = []

    def items():
        yield from range(40)
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        store.for_each(done.append, items())
    assert len(done) <= 40
