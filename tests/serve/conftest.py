"""Connections of every backend with the same datasets, and servers for them."""

from __future__ import annotations

import os
import secrets
from contextlib import nullcontext

import pytest
from browser import browser, pictures  # noqa: F401  fixtures
from served import ZARR, fill
from support import require

import dosna as dn


@pytest.fixture(scope="session")
def stand_in_backend():
    """Give the name of a backend of Motr's stand-in, which several connections share."""
    from motr_stand_in import Cluster, MotrStandIn

    from dosna.backends import Backend, registry
    from dosna.backends.sage.connection import SageConnection

    cluster = Cluster()

    class ServedStandIn(SageConnection):
        shared_between_processes = False

        def open_motr(self):
            return MotrStandIn(cluster)

    registry.register(Backend("sage-served", ServedStandIn, "a stand-in, for tests"))
    return "sage-served"


SERVICES = [pytest.param(name, marks=pytest.mark.slow) for name in ("s3", "sage", "ceph")]


@pytest.fixture(params=["ram", "hdf5", "file", *SERVICES], scope="module")
def con(request, tmp_path_factory):
    """Give a connection with the arrays, of each backend. A test leaves them as they were."""
    backend, name = request.param, f"served-{secrets.token_hex(4)}"
    options, keys = {}, nullcontext()
    if backend in ("hdf5", "file"):
        require("h5py")
        options = {"directory": str(tmp_path_factory.mktemp("served"))}
        os.mkdir(f"{options['directory']}/{name}")
    elif backend == "s3":
        require("moto.server")
        from services import aws_environment
        from services.s3 import make_bucket

        url, keys = request.getfixturevalue("moto_url"), aws_environment("a-key", "a-secret")
        with keys:
            options = {"endpoint_url": url, "bucket": make_bucket(url)}
        keys = aws_environment("a-key", "a-secret")
    elif backend == "sage":
        backend = request.getfixturevalue("stand_in_backend")
    elif backend == "ceph":
        options, name = {"conffile": request.getfixturevalue("ceph").conf}, "store"
    with keys, dn.Connection(name, backend=backend, engine="cpu", **options) as con:
        fill(con, **(ZARR if request.param in ("file", "s3", "sage", "ceph") else {}))
        yield con
        if request.param == "ceph":
            for made in list(con):
                del con[made]


@pytest.fixture(scope="module")
def server(con):
    """Give a running server for the connection."""
    with con.serve() as server:
        yield server
