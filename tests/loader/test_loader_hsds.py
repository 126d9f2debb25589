"""The loader into a real HSDS server: files become domains, with their data or linked."""

from __future__ import annotations

import secrets
import signal
import time

import numpy as np
import pytest
from loading import Inventory, arrays_of, image_of, roles, source_bucket
from services import hsds_environment
from support import HANG, require

from dosna import loader
from dosna.loader.config import Config
from dosna.testing.timing import patience

h5pyd = require("h5pyd")
for package in ("boto3", "obstore"):
    require(package)


@pytest.fixture(scope="module")
def bucket(gateway):
    with source_bucket(gateway) as made:
        yield made


@pytest.fixture(scope="module")
def hsds(gateway, start_hsds):
    """Give an HSDS server that reaches the gateway too, and where h5pyd is to look for it."""
    reaching = {"AWS_S3_GATEWAY": gateway.endpoint_url, "AWS_REGION": "us-east-1"}
    with start_hsds(**reaching) as server, hsds_environment(server):
        # h5pyd looks at the environment once, perhaps for another server.
        server.where = {"endpoint": server.endpoint, **user_of(server, "test")}
        yield server


def user_of(server, name):
    return {"username": name, "password": server.users[name]}


@pytest.fixture
def config(bucket, hsds, tmp_path):
    return {
        "src_bucket": bucket.name,
        "src_prefix": f"{secrets.token_hex(4)}/",
        "aws_s3_gateway": bucket.endpoint_url,
        "tgt_folder": f"hdf5://home/test/{secrets.token_hex(4)}/",
        "inventory": f"sqlite:///{tmp_path}/loader.sqlite",
        "retry_time": 0.0,
        "max_attempts": 20,
        "log_level": "warning",
        "jobs": 2,
    }


def put_files(bucket, config, count, large=()):
    keys = {f"{config['src_prefix']}deep/{n}.h5": n for n in range(count)}
    for key, number in keys.items():
        bucket.put_object(Bucket=bucket.name, Key=key, Body=image_of(number, number in large))
    return keys


def check_domains(config, keys, large=(), **options):
    for key, number in keys.items():
        with h5pyd.File(f"{config['tgt_folder']}{key}", "r", **options) as file:
            for name, array in arrays_of(number, number in large).items():
                found = file[name][()]
                if array.dtype.kind == "U":
                    assert found.decode() == str(array)
                else:
                    assert file[name].dtype == array.dtype
                    np.testing.assert_array_equal(found, array)
            assert file["entry"].attrs["NX_class"] == "NXentry"


def test_killed_workers_leave_every_file_in_its_domain(bucket, config, hsds, tmp_path, capsys):
    large = {3}
    keys = put_files(bucket, config, 16, large)
    kills = 0
    with roles(tmp_path, **{**config, "lease_time": patience(3)}) as made:
        made.do("watch", "--once")
        loaders = [made.start("load", "--once") for _ in range(2)]
        differ = made.start("diff", "--once")
        with Inventory(config["inventory"]) as inventory:
            while kills < 3 and inventory.unsettled("load"):
                time.sleep(0.1)
                running = {row.load_worker for row in inventory.rows("running") if row.load_worker}
                for n, process in enumerate(loaders):
                    if any(worker.endswith(f"/{process.pid}") for worker in running):
                        process.send_signal(signal.SIGKILL)
                        process.wait()
                        kills += 1
                        loaders[n] = made.start("load", "--once")
                        break
            for process in [*loaders, differ]:
                process.communicate(timeout=HANG)
                assert process.returncode == 0, process.log.read_text()
            rows = inventory.rows()
        with capsys.disabled():
            again = sum(row.load_attempts > 1 for row in rows)
            print(f"\n{len(rows)} files into HSDS, {kills} loaders killed, {again} begun again")
    assert kills
    assert {row.message for row in rows} == {"PASSED"}
    assert {(row.load_status, row.diff_status, row.loads) for row in rows} == {("done", "done", 1)}
    check_domains(config, keys, large, **hsds.where)
    folder = f"{config['tgt_folder']}{config['src_prefix']}deep/"
    assert len(list(h5pyd.Folder(folder, **hsds.where))) == len(keys)


def test_what_differs_in_a_domain_is_found(bucket, config, hsds):
    keys = put_files(bucket, config, 2)
    given = Config(**config, public_read=True)
    loader.watch(given, once=True)
    assert loader.load(given, once=True) == 2
    assert loader.diff(given, once=True) == 2
    check_domains(config, keys, **{**hsds.where, **user_of(hsds, "other")})
    first = next(iter(keys))

    def said():
        loader.reset(given, every=True, diff_only=True)
        loader.diff(given, once=True)
        with loader.open_inventory(given) as inventory:
            return {row.key: row.message for row in inventory.rows()}

    assert set(said().values()) == {"PASSED"}
    with h5pyd.File(f"{config['tgt_folder']}{first}", "r+", **hsds.where) as file:
        file["entry/data/frames"][1, 2, 3] ^= 1
    assert "elements differ, first at (1, 2, 3)" in said()[first]
    # It is loaded again, and what was there is replaced.
    assert loader.reset(given) == 1
    assert loader.load(given, once=True) == 1
    assert set(said().values()) == {"PASSED"}
    with h5pyd.File(f"{config['tgt_folder']}{first}", "r+", **hsds.where) as file:
        file["entry"].attrs["more"] = 1
    assert "group entry: attribute 'more' is in the target, and not in the file" in said()[first]


def test_files_in_s3_are_linked_to(bucket, config, hsds):
    """The server reads the chunks itself, from the gateway."""
    keys = put_files(bucket, config, 2, {1})
    given = Config(**config, link_files=True)
    loader.watch(given, once=True)
    assert loader.load(given, once=True) == 2
    assert loader.diff(given, once=True) == 2
    with loader.open_inventory(given) as inventory:
        assert {row.message for row in inventory.rows()} == {"PASSED"}
    check_domains(config, keys, {1}, **hsds.where)
