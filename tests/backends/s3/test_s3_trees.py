"""A tree of many branches into S3: few requests for each dataset, and many under way."""

from __future__ import annotations

import numpy as np
import pytest
from services.proxy import Proxy
from services.s3 import make_bucket
from support import Gathering, require

import dosna as dn

require("boto3")
require("obstore")
ak = require("awkward")
uproot = require("uproot")

pytestmark = pytest.mark.usefixtures("_any_keys")

ENTRIES = 100


def test_four_requests_a_dataset_and_sixteen_under_way(moto_url, tmp_path):
    random = np.random.default_rng(0)
    flat = {f"HLT_{n}": random.random(ENTRIES) < 0.2 for n in range(60)}
    counts = random.poisson(2, ENTRIES)
    lists = ak.zip({f"f{n}": random.normal(size=counts.sum()) for n in range(40)})
    path = tmp_path / "nano.root"
    with uproot.recreate(path) as file:
        events = {**flat, "Jet": ak.unflatten(lists, counts)}
        types = {name: np.dtype(bool) for name in flat} | {"Jet": ak.type(events["Jet"]).content}
        file.mktree("Events", types).extend(events)
    bucket = make_bucket(moto_url)
    gathering = Gathering(12)  # some of them may wait for the same lock
    with (
        Proxy(moto_url) as proxy,
        dn.Connection("x", backend="s3", endpoint_url=proxy.url, bucket=bucket) as con,
    ):
        con.create_dataset("before", data=[1])

        def gather(request):
            if request.method == "PUT" and "/c/" in request.path:
                with gathering:
                    pass

        proxy.reset()
        proxy.fault = gather
        made = con.ingest(path, "run").made
        assert len(made) == 60 + 1 + 2 * 40
        assert len(proxy.requests) <= 4 * len(made)
        assert 12 <= gathering.most <= 16
        proxy.reset()
        assert con["run/Events/Jet_f7/offsets"].chunk_size == (ENTRIES + 1,)
        assert con["run/Events/Jet_f7/offsets"][-1] == counts.sum()
        np.testing.assert_array_equal(con["run/Events/HLT_3"][...], flat["HLT_3"])
