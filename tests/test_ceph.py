"""The ceph backend: the conformance kit on a cluster of three OSDs, names, requests, errors."""

from __future__ import annotations

import pytest
from support import require

import dosna as dn
from dosna.testing import BackendTests, StoreTests
from dosna.testing.samples import DTYPES

require("rados")

from dosna.backends.ceph import CephConnection  # noqa: E402


def connection(ceph, engine="cpu", engine_kw=None, pool="kit", **kwargs):
    kwargs = {"conffile": ceph.conf, **kwargs}
    return dn.Connection(pool, backend="ceph", engine=engine, engine_kw=engine_kw, **kwargs)


class TestStore(StoreTests):
    @pytest.fixture
    def store(self, ceph):
        con = CephConnection("store", ceph.conf)
        con.connect()
        yield con.store
        con.disconnect()


class TestBackend(BackendTests):
    dtypes = DTYPES
    examples = 5

    @pytest.fixture
    def make_connection(self, ceph):
        return lambda: connection(ceph)
