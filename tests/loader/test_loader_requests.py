"""The requests that loading a small file from a bucket into a bucket takes."""

from __future__ import annotations

import io
import threading

import numpy as np
import pytest
from services.proxy import Proxy
from services.s3 import make_bucket, make_client
from support import require

import dosna as dn
from dosna import loader
from dosna.loader.bucket import Entry
from dosna.loader.config import Config
from dosna.loader.inventory import Inventory

h5py = require("h5py")
require("boto3")
require("obstore")
sqlalchemy = require("sqlalchemy")

pytestmark = pytest.mark.usefixtures("_any_keys")

FILES = 12


def image(number):
    written = io.BytesIO()
    with h5py.File(written, "w") as file:
        file.create_group("entry").attrs["NX_class"] = "NXentry"
        file["entry/data/frame"] = np.full((4, 8), number)
        file["entry/energy"] = 12.4
    return written.getvalue()


@pytest.mark.parametrize(("jobs", "folder"), [(1, ""), (4, ""), (2, "raw/7/")])
def test_a_file_of_two_arrays_takes_nine_requests(moto_url, tmp_path, jobs, folder, monkeypatch):
    monkeypatch.setattr("dosna.backends.stores.groups.LOOK_SECONDS", 60)  # however slow this is
    raw, out = make_bucket(moto_url), make_bucket(moto_url)
    client = make_client(moto_url)
    for number in range(FILES):
        client.put_object(Bucket=raw, Key=f"{folder}{number}.h5", Body=image(number))
    client.close()
    with Proxy(moto_url) as proxy:
        target = f"s3://{out}/here?endpoint_url={proxy.url}"
        config = Config.read(
            environ={},
            src_bucket=raw,
            aws_s3_gateway=proxy.url,
            target=target,
            inventory=f"sqlite:///{tmp_path}/i.sqlite",
            jobs=str(jobs),
        )
        loader.watch(config, once=True)
        proxy.reset()
        assert loader.load(config, once=True) == FILES
        # The file, a look at its place, three groups, two arrays of two objects. Besides, the
        # bucket, what its server honours, and the groups above the files for each that begins.
        groups = 1 + folder.count("/")
        assert len(proxy.requests) <= 9 * FILES + 11 + 4 * jobs * groups
        assert loader.diff(config, once=True) == FILES
        with loader.open_inventory(config) as inventory:
            assert {row.diff_status for row in inventory.rows()} == {"done"}
        with dn.Connection("here", backend="s3", endpoint_url=proxy.url, bucket=out) as con:
            assert len(con) == 2 * FILES
            assert con[f"{folder}3.h5/entry/data/frame"][1, 1] == 3
            assert con.get_group_attrs(f"{folder}3.h5/entry") == {"NX_class": "NXentry"}


def test_a_file_of_one_array_takes_five_requests_and_its_place_is_looked_at_meanwhile(
    moto_url, tmp_path, monkeypatch
):
    monkeypatch.setattr("dosna.backends.stores.groups.LOOK_SECONDS", 60)  # however slow this is
    raw, out = make_bucket(moto_url), make_bucket(moto_url)
    client = make_client(moto_url)
    for number in range(FILES):
        with io.BytesIO() as written:
            with h5py.File(written, "w") as file:
                file["frame"] = np.full((4, 8), number)
            client.put_object(Bucket=raw, Key=f"{number}.h5", Body=written.getvalue())
    client.close()
    looked_at = {f"{number}.h5": threading.Event() for number in range(FILES)}

    def file_after_look(request):
        for key, looked in looked_at.items():
            if request.path == f"/{raw}/{key}":
                return looked
            if "list-type" in request.path and key in request.path:
                looked.set()
        return None

    with Proxy(moto_url) as proxy:
        config = Config.read(
            environ={},
            src_bucket=raw,
            aws_s3_gateway=proxy.url,
            target=f"s3://{out}/here?endpoint_url={proxy.url}",
            inventory=f"sqlite:///{tmp_path}/i.sqlite",
            jobs="1",
        )
        loader.watch(config, once=True)
        proxy.reset()
        proxy.fault = file_after_look
        assert loader.load(config, once=True) == FILES
        # The file and a look at its place; a group, a chunk and a document. Besides, as above.
        assert len(proxy.requests) <= 5 * FILES + 15
        assert loader.diff(config, once=True) == FILES
        with dn.Connection("here", backend="s3", endpoint_url=proxy.url, bucket=out) as con:
            assert [con[f"{n}.h5/frame"][1, 1] for n in range(FILES)] == list(range(FILES))


def test_claims_and_their_ends_ask_a_server_once(postgres):
    states = []

    @sqlalchemy.event.listens_for(sqlalchemy.Engine, "after_cursor_execute")
    def note(connection, cursor, statement, *rest):
        if statement.startswith("UPDATE"):
            states.append(cursor.connection.info.transaction_status.name)

    try:
        with Inventory(postgres) as inventory:
            inventory.prepare()
            inventory.add([Entry(f"{n}.h5", 1, "e") for n in range(2)])
            one = inventory.claim("load", "worker", 60, 3)
            assert inventory.renew([one.token], 60) == {one.token}
            assert inventory.loaded(one, Entry(one.key, 1, "e"))
            other = inventory.claim("load", "worker", 60, 3)
            assert inventory.failed("load", other, "why", 60, 1)
            assert states == ["IDLE"] * 5  # not within a transaction, which is two questions more
            assert inventory.claim("load", "worker", 60, 3) is None
            assert states[5:] == ["IDLE", "INTRANS", "INTRANS"]
            assert [row.load_status for row in inventory.rows()] == ["done", "failed"]
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "after_cursor_execute", note)
