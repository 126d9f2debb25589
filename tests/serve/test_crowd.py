"""Many requests at once, whose answers do not all have a place in memory."""

from __future__ import annotations

import http.client
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from support import HANG, require

import dosna as dn

for package in ("h5grove", "starlette", "uvicorn"):
    require(package)

from dosna.serve.running import serve  # noqa: E402
from dosna.serve.volumes.levels import key_of  # noqa: E402
from dosna.web import Limits, Server, budget  # noqa: E402

VOLUME = np.arange(1 << 15, dtype="f4").reshape(32, 32, 32)
TOTAL = 200 << 10
"""Less than two answers in JSON, by what is known of them before they are made."""
LEVEL = f"/levels/{key_of('volume')}/0"
LINE = "/h5grove/data?path=/line/line&format=bin&lines=short"
ADDRESSES = [
    *(
        f"/h5grove/data?path=/volume&selection={k}:{k + 4}&format={form}&dtype={dtype}"
        for k in range(4)
        for form, dtype in (("bin", "safe"), ("npy", "origin"), ("json", "origin"))
    ),
    "/h5grove/stats?path=/volume",
    LINE,
    *(f"/zarr/volume/c/{k}/0/0" for k in range(2)),
    *(f"{LEVEL}/c/{k}/0/0" for k in range(2)),
]


@pytest.fixture(params=["ram", "file"])
def con(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dn.Connection]:
    name = str(tmp_path) if request.param == "file" else secrets.token_hex(8)
    with dn.Connection(name, backend=request.param) as con:
        con.create_dataset("volume", data=VOLUME, chunk_size=(16, 32, 32))
        con.create_dataset("line", data=np.arange(300_000, dtype="i4"), chunk_size=1 << 16)
        yield con


def get(server: Server, address: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=HANG)
    try:
        connection.request("GET", address, headers=server.headers)
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        return body
    finally:
        connection.close()


@pytest.mark.parametrize("repeated", [False, True])
def test_a_crowd_is_answered_in_turn(
    con: dn.Connection, monkeypatch: pytest.MonkeyPatch, repeated: bool
) -> None:
    """Also if each request has to wait, and is carried out again."""
    monkeypatch.setattr(budget, "SMALL", 0)
    with serve(con, limits=Limits(total_bytes=None)) as server:
        expected = {address: get(server, address) for address in ADDRESSES}
    assert expected[f"{LEVEL}/c/1/0/0"] == VOLUME[16:].tobytes()
    asked = ADDRESSES * (100 // len(ADDRESSES) + 1)
    limits = Limits(total_bytes=TOTAL, seconds=HANG)
    if repeated:
        monkeypatch.setattr(budget.Budget, "take", lambda self, nbytes: False)
    with serve(con, limits=limits) as server, ThreadPoolExecutor(len(asked)) as clients:
        bodies = list(clients.map(lambda address: get(server, address), asked))
        assert bodies == [expected[address] for address in asked]
        # All of it is there again: the line needs more than that, and so gets all.
        assert get(server, LINE) == expected[LINE]
