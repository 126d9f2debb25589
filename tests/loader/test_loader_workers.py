"""The loader whose work is done by the workers of a Dask scheduler, one of which is killed."""

from __future__ import annotations

import os

import pytest
from loading import check_loaded, connect, image_of, source_bucket, write_folder
from services.s3 import make_bucket
from support import HANG, require

from dosna import errors, loader

distributed = require("distributed")

from services.dask import start_dask  # noqa: E402

FILES = {f"raw/scan-{n}.nxs": (n, n < 2) for n in range(4)}


@pytest.fixture
def folders(tmp_path):
    write_folder(tmp_path / "in", FILES)
    return {"src_bucket": f"{tmp_path}/in", "target": f"file:{tmp_path}/out"}


@pytest.fixture
def buckets(gateway):
    for package in ("boto3", "obstore"):
        require(package)
    with source_bucket(gateway) as bucket:
        for key, (number, large) in FILES.items():
            bucket.put_object(Bucket=bucket.name, Key=key, Body=image_of(number, large))
        url = bucket.endpoint_url
        target = f"s3://{make_bucket(url)}/scans?endpoint_url={url}"
        yield {"src_bucket": bucket.name, "aws_s3_gateway": url, "target": target}


@pytest.mark.slow
@pytest.mark.parametrize("places", ["folders", "buckets"])
def test_a_killed_worker_costs_time_and_nothing_else(places, request, tmp_path):
    chosen, died = request.getfixturevalue(places), str(tmp_path / "died")

    def die_once():  # within a function it travels by value: workers have no modules of tests
        import contextlib
        import os
        import signal
        import threading

        from dosna.engines.dask import tasks

        unpack, batches = tasks._unpack, []

        def dying(*arguments):
            batches.append(arguments)
            if len(batches) == 6:
                with contextlib.suppress(FileExistsError):  # the other was first
                    open(died, "x").close()
                    threading.Timer(0.005, os.kill, [os.getpid(), signal.SIGKILL]).start()
            return unpack(*arguments)

        tasks._unpack = dying

    (tmp_path / "dask").mkdir()
    with start_dask(tmp_path / "dask") as cluster:
        for name in "ab":
            cluster.worker(name)
        config = loader.Config(
            **chosen,
            inventory=f"sqlite:///{tmp_path}/inventory.sqlite",
            scheduler=cluster.address,
            lease_time=HANG,
            max_attempts=1,
            jobs=2,
        )
        with distributed.Client(cluster.address, set_as_default=False) as client:
            cluster.await_workers(client, 2)
            client.run(die_once)
            assert loader.watch(config, once=True) == (len(FILES), 0)
            assert loader.load(config, once=True) == len(FILES)
            assert os.path.exists(died)
            assert loader.diff(config, once=True) == len(FILES)
            assert len(client.nthreads()) == 1
    assert loader.status(config).counts.diff == {"done": len(FILES)}
    with connect(config.target) as con:
        for key, (number, large) in FILES.items():
            check_loaded(con, key, number, large)


def test_a_target_in_hsds_has_no_scheduler():
    with pytest.raises(errors.ConfigurationError, match="scheduler"):
        loader.Config(tgt_folder="hdf5://home/user/", scheduler="tcp://127.0.0.1:8786")
