"""The loader on a real S3 server, with workers that are killed: every file once, nothing half."""

from __future__ import annotations

import io
import os
import random
import signal
import threading
import time
from dataclasses import replace
from itertools import count as counting

import numpy as np
import pytest
from loading import (
    Inventory,
    arrays_of,
    check_loaded,
    connect,
    h5py,
    image_of,
    roles,
    source_bucket,
    write_folder,
)
from services.proxy import Proxy
from services.s3 import make_bucket
from support import HANG, require, wait_until

import dosna as dn
from dosna import errors, loader
from dosna.loader import Config
from dosna.loader.bucket import open_bucket
from dosna.loader.targets import open_target
from dosna.testing.timing import patience

for package in ("boto3", "obstore"):
    require(package)

LARGE = 3
REPLACED = 100_000
"""What the number of a file grows by when it is replaced."""


@pytest.fixture
def bucket(gateway):
    with source_bucket(gateway) as made:
        yield made


@pytest.fixture
def inventory_url(request, tmp_path):
    if request.param == "postgresql":
        return request.getfixturevalue("postgres")
    return f"sqlite:///{tmp_path}/inventory.sqlite"


@pytest.fixture
def target(request, tmp_path, bucket):
    if request.param == "s3":
        return f"s3://{make_bucket(bucket.endpoint_url)}/scans?endpoint_url={bucket.endpoint_url}"
    return f"{request.param}:{tmp_path}/out"


ALWAYS = [110, "sqlite", "file"], [80, "postgresql", "s3"]
FULL = [2000, "sqlite", "file"], [2000, "postgresql", "s3"], [500, "postgresql", "hdf5"]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("count", "inventory_url", "target"),
    [*ALWAYS, *(pytest.param(*case, marks=pytest.mark.fault) for case in FULL)],
    indirect=["inventory_url", "target"],
)
def test_killed_workers_leave_every_file_loaded_once(
    count, inventory_url, target, bucket, tmp_path, capsys
):
    rng = random.Random(count)
    keys = {f"raw/{n % 7}/scan-{n}.nxs": n for n in range(count)}
    large = set(rng.sample(sorted(keys), LARGE))

    def put(key, number):
        bucket.put_object(Bucket=bucket.name, Key=key, Body=image_of(number, key in large))

    def replace(key):
        keys[key] += REPLACED
        put(key, keys[key])

    for key, number in list(keys.items())[: count * 2 // 3]:
        put(key, number)
    config = {
        "src_bucket": bucket.name,
        "src_prefix": "raw/",
        "src_suffix": ".nxs",
        "aws_s3_gateway": bucket.endpoint_url,
        "target": target,
        "inventory": inventory_url,
        "watchdog_sleep_time": 0.5,
        "lease_time": patience(3),
        "max_attempts": 50,
        "retry_time": 0.1,
        "memory_limit": "8m",
        "jobs": 2,
        "log_level": "warning",
    }
    bucket.put_object(Bucket=bucket.name, Key="raw/readme.txt", Body=b"no file of HDF5")
    with roles(tmp_path, **config) as made, Inventory(inventory_url) as inventory:
        watcher = made.start("watch")
        loaders = [made.start("load") for _ in range(4)]
        differs = [made.start("diff") for _ in range(2)]
        later = list(keys.items())[count * 2 // 3 :]
        small, few = sorted(set(keys) - large), max(3, count // 50)
        changed, others = small[:few], small[few:]
        kills = {"load": 0, "diff": 0}
        began = time.monotonic()
        while True:
            time.sleep(rng.uniform(0.05, 0.3))
            for key, number in later[: count // 6]:
                put(key, number)
            del later[: count // 6]
            rows = {row.key: row for row in inventory.rows()} if there(inventory) else {}
            if changed and changed[0] in rows and rows[changed[0]].load_status == "done":
                replace(changed.pop(0))
                continue
            if not changed and len(rows) == count and inventory.unsettled("diff") == 0:
                # What was replaced last has to be listed first.
                if not all(rows[key].loads > 1 for key in keys if keys[key] >= REPLACED):
                    continue
                if kills["load"] > 2:
                    break
                for _ in range(5):  # so few were caught at work: there has to be more of it
                    replace(others.pop())
            if sum(kills.values()) < min(count // 12, 60):
                which = "diff" if sum(kills.values()) % 4 == 3 else "load"
                of = loaders if which == "load" else differs
                at_work = {pid_of(row, which) for row in rows.values()}
                victims = [n for n, process in enumerate(of) if process.pid in at_work]
                if victims:
                    victim = rng.choice(victims)
                    of[victim].send_signal(signal.SIGKILL)
                    of[victim].wait()
                    kills[which] += 1
                    of[victim] = made.start(which)
        seconds = time.monotonic() - began
        found = made.status()
        made.end(watcher, *loaders, *differs)
        rows = inventory.rows()
        with capsys.disabled():
            print(
                f"\n{count} files, {kills['load']} loaders and {kills['diff']} verifiers killed, "
                f"{sum(row.load_attempts > 1 for row in rows)} files begun again, "
                f"{sum(row.loads > 1 for row in rows)} replaced meanwhile, "
                f"{found['diff']['done']} passed, {seconds:.0f} s"
            )
    assert kills["load"] > 2
    assert found["load"] == {"pending": 0, "running": 0, "done": count, "failed": 0}
    assert found["diff"]["done"] == count
    assert {row.message for row in rows} == {"PASSED"}
    assert {row.key for row in rows} == set(keys)
    assert {row.key: row.loads for row in rows} == {
        key: 2 if number >= REPLACED else 1 for key, number in keys.items()
    }
    with connect(target) as con:
        assert len(list(con)) == sum(len(arrays_of(0, key in large)) for key in keys)
        for key, number in keys.items():
            check_loaded(con, key, number, key in large)


def pid_of(row, which):
    """Give the process that works on a file, or None."""
    state, worker = getattr(row, f"{which}_status"), getattr(row, f"{which}_worker")
    return int(worker.rpartition("/")[2]) if state == "running" else None


def there(inventory):
    try:
        inventory.counts()
    except OSError:
        return False
    return True


def test_files_in_s3_are_linked(tmp_path, bucket):
    for number in range(3):
        body = image_of(number, number == 2)
        bucket.put_object(Bucket=bucket.name, Key=f"{number}.nxs", Body=body)
    out = make_bucket(bucket.endpoint_url)
    config = Config(
        src_bucket=bucket.name,
        aws_s3_gateway=bucket.endpoint_url,
        target=f"s3://{out}/scans?endpoint_url={bucket.endpoint_url}",
        inventory=url_of(tmp_path),
        link_files=True,
    )
    loader.watch(config, once=True)
    assert loader.load(config, once=True) == loader.diff(config, once=True) == 3
    with connect(config.target) as con, loader.open_inventory(config) as inventory:
        assert {row.message for row in inventory.rows()} == {"PASSED"}
        assert con["2.nxs/entry/data/frames"].linked
        for number in range(3):
            check_loaded(con, f"{number}.nxs", number, number == 2)
        # Whoever reads is told; whoever verifies lets it be linked again.
        bucket.put_object(Bucket=bucket.name, Key="0.nxs", Body=image_of(7))
        assert loader.watch(config, once=True) == (0, 1)
        assert loader.load(config, once=True) == loader.diff(config, once=True) == 1
    with connect(config.target) as con:
        check_loaded(con, "0.nxs", 7)


def test_keys_of_the_configuration_are_not_put_into_the_environment(
    tmp_path, bucket, gateway, monkeypatch
):
    bucket.put_object(Bucket=bucket.name, Key="0.nxs", Body=image_of(0))
    outs = [make_bucket(bucket.endpoint_url) for _ in range(2)]
    # The bucket's client has its keys already.
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    before = dict(os.environ)
    for out, link_files in zip(outs, (False, True), strict=True):
        config = Config(
            src_bucket=bucket.name,
            aws_s3_gateway=bucket.endpoint_url,
            aws_access_key_id=gateway.access_key,
            aws_secret_access_key=gateway.secret_key,
            target=f"s3://{out}/scans?endpoint_url={bucket.endpoint_url}",
            inventory=f"sqlite:///{tmp_path}/{link_files}.sqlite",
            link_files=link_files,
        )
        loader.watch(config, once=True)
        assert loader.load(config, once=True) == loader.diff(config, once=True) == 1
        with loader.open_inventory(config) as inventory:
            assert {row.message for row in inventory.rows()} == {"PASSED"}
        # Others find no keys, neither for the target nor for the file that is linked to.
        assert dict(os.environ) == before
        with pytest.raises(ConnectionError, match="credentials"):
            connect(config.target).connect()
    with pytest.raises(errors.ConfigurationError, match="aws_secret_access_key"):
        open_bucket(replace(config, aws_secret_access_key=None))


@pytest.fixture
def midway(bucket):
    """Give a proxy that lets through four chunks, and an event for which the others wait."""
    numbers, goes_on = counting(), threading.Event()

    def hold(request):
        is_chunk = request.method == "PUT" and "/frames/c/" in request.path
        return goes_on if is_chunk and next(numbers) >= 4 else None

    with Proxy(bucket.endpoint_url, hold) as proxy:
        yield proxy, goes_on
        goes_on.set()


def chunks_in(bucket, out):
    """Give the chunks of the large file that are in a bucket, and when each was written."""
    found = bucket.list_objects_v2(Bucket=out, Prefix="scans/large.nxs/entry/data/frames/c/")
    return {one["Key"]: one["LastModified"] for one in found.get("Contents", ())}


def test_a_worker_that_sleeps_over_its_lease_leaves_the_file_to_another(tmp_path, bucket, midway):
    bucket.put_object(Bucket=bucket.name, Key="large.nxs", Body=image_of(1, True))
    proxy, goes_on = midway
    out = make_bucket(bucket.endpoint_url)
    config = {
        "src_bucket": bucket.name,
        "aws_s3_gateway": bucket.endpoint_url,
        "target": f"s3://{out}/scans?endpoint_url={proxy.url}",
        "lease_time": patience(1.5),
        "memory_limit": "1m",
        "chunk_size": "128k",
        "jobs": 1,
    }

    with roles(tmp_path, **config) as made, Inventory(url_of(tmp_path)) as inventory:
        made.do("watch", "--once")
        sleeper = made.start("load")
        wait_until(lambda: len(chunks_in(bucket, out)) > 3)
        sleeper.send_signal(signal.SIGSTOP)
        goes_on.set()
        assert inventory.rows()[0].load_status == "running"
        assert made.do("load", "--once") == "1 files loaded\n"
        assert made.do("diff", "--once") == "1 files verified\n"
        before = inventory.rows()
        sleeper.send_signal(signal.SIGCONT)
        wait_until(lambda: "the lease was lost" in sleeper.log.read_text())
        made.end(sleeper)
        assert inventory.rows() == before
        assert (before[0].loads, before[0].message, before[0].load_attempts) == (1, "PASSED", 2)
    with connect(config["target"]) as con:
        check_loaded(con, "large.nxs", 1, True)


def test_sigterm_gives_a_file_back_at_once(tmp_path, bucket, midway):
    files = {"large.nxs": (1, True)}
    write_folder(tmp_path / "raw", files)
    proxy, goes_on = midway
    out = make_bucket(bucket.endpoint_url)
    config = {
        "src_bucket": f"{tmp_path}/raw",
        "target": f"s3://{out}/scans?endpoint_url={proxy.url}",
        "lease_time": 3600,
        "memory_limit": "1m",
        "chunk_size": "128k",
    }
    with roles(tmp_path, **config) as made, Inventory(url_of(tmp_path)) as inventory:
        made.do("watch", "--once")
        loader = made.start("load")
        wait_until(lambda: len(chunks_in(bucket, out)) > 3)
        loader.send_signal(signal.SIGTERM)
        goes_on.set()
        loader.communicate(timeout=HANG)
        assert loader.returncode == 0, loader.log.read_text()
        (row,) = inventory.rows()
        assert (row.load_status, row.load_attempts, row.loads) == ("pending", 0, 0)
        there = chunks_in(bucket, out)
        made.do("load", "--once")
        assert made.do("diff", "--once") == "1 files verified\n"
        assert inventory.rows()[0].message == "PASSED"
        # It went on, and did not begin again.
        kept = there.items() & chunks_in(bucket, out).items()
        assert len(kept) >= len(there) - 1 > 0
    with connect(config["target"]) as con:
        check_loaded(con, "large.nxs", *files["large.nxs"])


def test_a_worker_that_died_after_the_last_chunk_is_not_missed(tmp_path):
    """Its successor finds all in place, and only notes it."""
    write_folder(tmp_path / "raw", {"a.nxs": (1, False)})
    config = {"src_bucket": f"{tmp_path}/raw", "target": f"file:{tmp_path}/out"}
    with roles(tmp_path, **config) as made, Inventory(url_of(tmp_path)) as inventory:
        made.do("watch", "--once")
        (tmp_path / "out").mkdir()
        read = Config.read(tmp_path / "config.yml", environ={})
        target = open_target(read, open_bucket(read))
        path = tmp_path / "out/a.nxs/entry/energy/zarr.json"
        for loads in (0, 1):
            if loads:
                inventory.reset(every=True)
            lost = inventory.claim("load", "somebody who died", -1, 3)
            assert (lost.loads, lost.attempts) == (loads, 1)
            target.load(lost, lambda: None)
            before = path.stat()
            made.do("load", "--once")
            after = path.stat()
            assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
            (row,) = inventory.rows()
            assert (row.load_status, row.loads, row.load_attempts) == ("done", loads + 1, 2)
            assert not inventory.release("load", lost)
        target.close()


def test_a_worker_that_died_at_once_has_not_renewed_what_may_be_damaged(tmp_path):
    write_folder(tmp_path / "raw", {"a.nxs": (1, False)})
    config = {"src_bucket": f"{tmp_path}/raw", "target": f"file:{tmp_path}/out"}
    with roles(tmp_path, **config) as made, Inventory(url_of(tmp_path)) as inventory:
        made.do("watch", "--once")
        made.do("load", "--once")
        with dn.Connection(str(tmp_path / "out"), backend="file") as con:
            con["a.nxs/entry/data/frames"][0, 0, 0] += 1
        inventory.reset(every=True)
        assert inventory.claim("load", "somebody who died", -1, 3)
        made.do("load", "--once")
    with connect(config["target"]) as con:
        check_loaded(con, "a.nxs", 1)


@pytest.mark.parametrize("backend", ["hdf5", "file"])
def test_what_was_loaded_stays_until_its_successor_is_whole(tmp_path, backend):
    source = tmp_path / "raw" / "a.nxs"
    write_folder(tmp_path / "raw", {"a.nxs": (1, False)})
    config = {
        "src_bucket": f"{tmp_path}/raw",
        "target": f"{backend}:{tmp_path}/out",
        "max_attempts": 1,
        "retry_time": 0,
    }
    with roles(tmp_path, **config) as made:
        made.do("watch", "--once")
        made.do("load", "--once")
        # Another state of the file, of which chunks cannot be read.
        whole = image_of(2)
        with h5py.File(io.BytesIO(whole)) as file:
            places = [file["entry/data/frames"].id.get_chunk_info(n) for n in range(3)]
        broken = bytearray(whole)
        for place in places:
            broken[place.byte_offset : place.byte_offset + place.size] = bytes(place.size)
        source.write_bytes(broken)
        made.do("watch", "--once")
        made.do("load", "--once", code=None)
        with connect(config["target"]) as con:
            frames = con["a.nxs/entry/data/frames"]
            assert not frames.incomplete
            np.testing.assert_array_equal(frames[...], arrays_of(1)["entry/data/frames"])
            assert len(con) == 2
        # One that has another array where there was a group, and other attributes.
        with h5py.File(source, "w") as file:
            file["entry/data"] = np.arange(5)
            file["entry/energy/value"] = 3.5
            file.attrs["new"] = 1
        made.do("watch", "--once")
        made.do("load", "--once")
        made.do("diff", "--once")
        with connect(config["target"]) as con:
            assert list(con) == ["a.nxs/entry/data", "a.nxs/entry/energy/value"]
            assert con["a.nxs/entry/data"][...].tolist() == list(range(5))
            assert con.get_group_attrs("a.nxs/entry") == {}
            assert con.get_group_attrs("a.nxs") == {"new": 1}


def url_of(tmp_path):
    return f"sqlite:///{tmp_path}/loader.sqlite"
