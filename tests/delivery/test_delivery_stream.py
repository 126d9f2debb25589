"""Results as one stream of Arrow, while the request is still running."""

from __future__ import annotations

import io
import json
import os
import threading
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support import HANG, require, wait_until

httpx, pa = require("httpx"), require("pyarrow")
ak, uproot = require("awkward"), require("uproot")

from dosna.delivery.transform import TransformRequest, TransformResult, transform  # noqa: E402
from dosna.delivery.transform.sandbox import lacking  # noqa: E402
from dosna.errors import QueryError  # noqa: E402

pytestmark = pytest.mark.skipif(bool(lacking()), reason=lacking() or "-")

URL = "/servicex/transformation"
COLUMNS = ["run", "Muon_pt"]


class Gated:
    """The transformer, which waits before each file but the first."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.change: Callable[[TransformRequest], str] = lambda request: request.selection

    def __call__(self, request: TransformRequest) -> TransformResult:
        if not request.source.endswith("_0.root"):
            assert self.gate.wait(HANG)
        values = {name: getattr(request, name) for name in request.__dataclass_fields__}
        return transform(TransformRequest(**values | {"selection": self.change(request)}))


@pytest.fixture
def gated() -> Gated:
    return Gated()


def submit(client: Any, paths: list[str], format: str = "parquet") -> str:
    body = {
        "selection": json.dumps([{"treename": "Events", "filter_name": COLUMNS}]),
        "codegen": "uproot-raw",
        "result-destination": "object-store",
        "result-format": format,
        "file-list": paths,
    }
    answer = client.post(URL, json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["request_id"])


def client_of(server: Any) -> Any:
    return httpx.Client(base_url=server.root, timeout=HANG)


class Lines(io.RawIOBase):
    """The body of an answer as a file."""

    def __init__(self, answer: Any) -> None:
        self._pieces, self._held = answer.iter_raw(), b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._held:
            self._held = next(self._pieces, b"")
            if not self._held:
                return 0
        count = min(len(buffer), len(self._held))
        buffer[:count], self._held = self._held[:count], self._held[count:]
        return count


def test_batches_come_before_the_request_is_complete(
    serve: Any, gated: Gated, paths: list[str], tmp_path: Path
) -> None:
    with client_of(serve(gated)) as client:
        id = submit(client, paths)
        with client.stream("GET", f"{URL}/{id}/stream") as answer:
            assert answer.headers["content-type"] == "application/vnd.apache.arrow.stream"
            with pa.ipc.open_stream(io.BufferedReader(Lines(answer))) as reader:
                batches = [reader.read_next_batch()]
                assert client.get(f"{URL}/{id}").json()["status"] == "Running"
                gated.gate.set()
                batches += list(reader)
        found = ak.from_arrow(pa.Table.from_batches(batches))
        expected = ak.concatenate([uproot.open(path)["Events"].arrays(COLUMNS) for path in paths])
        assert sorted(found.run.tolist()) == sorted(expected.run.tolist())
        in_order = found[ak.argsort(found.run)]
        assert ak.array_equal(in_order.Muon_pt, expected[ak.argsort(expected.run)].Muon_pt)
        # A second time, of what is complete.
        again = client.get(f"{URL}/{id}/stream").content
        assert pa.ipc.open_stream(again).read_all().num_rows == len(expected)
        assert os.listdir(tmp_path / "state" / "scratch") == []


def test_a_stream_that_is_not_whole_breaks(serve: Any, gated: Gated, paths: list[str]) -> None:
    def change(request: TransformRequest) -> str:
        if request.source == paths[2]:
            raise QueryError("this file fails")
        return request.selection

    gated.change = change
    gated.gate.set()
    with client_of(serve(gated)) as client:
        id = submit(client, paths)
        wait_until(lambda: client.get(f"{URL}/{id}").json()["status"] == "Complete")
        with pytest.raises(httpx.RemoteProtocolError):
            client.get(f"{URL}/{id}/stream")
        found = client.get(f"{URL}/{id}/stream", params={"partial": True}).content
        assert pa.ipc.open_stream(found).read_all().num_rows == sum((90, 100, 120))


def test_files_must_have_the_same_columns(serve: Any, gated: Gated, paths: list[str]) -> None:
    gated.change = lambda request: (
        request.selection
        if request.source == paths[0]
        else json.dumps([{"treename": "Events", "filter_name": "met"}])
    )
    gated.gate.set()
    with client_of(serve(gated)) as client:
        id = submit(client, paths[:2])
        with pytest.raises(httpx.RemoteProtocolError):
            client.get(f"{URL}/{id}/stream")


def test_streams_are_counted_for_each_user(serve: Any, gated: Gated, paths: list[str]) -> None:
    server = serve(gated)
    with client_of(server) as client, ExitStack() as stack:
        id = submit(client, paths)
        for _ in range(4):
            answer = stack.enter_context(client.stream("GET", f"{URL}/{id}/stream"))
            stack.enter_context(io.BufferedReader(Lines(answer))).read(8)
        refused = client.get(f"{URL}/{id}/stream")
        assert (refused.status_code, "4 of your" in refused.text) == (429, True)
        gated.gate.set()
    with client_of(server) as client:
        wait_until(lambda: client.get(f"{URL}/{id}/stream").status_code == 200)


def test_what_has_no_stream(serve: Any, gated: Gated, paths: list[str]) -> None:
    gated.gate.set()
    with client_of(serve(gated)) as client:
        id = submit(client, paths[:1], "hdf5")
        answer = client.get(f"{URL}/{id}/stream")
        assert answer.status_code == 400
        assert "hdf5" in answer.json()["message"]
        # ServiceX's client refuses a list with a format that it does not know.
        assert client.get(URL).json()["requests"] == []
        assert len(client.get(URL, params={"every": True}).json()["requests"]) == 1
        assert client.get(f"{URL}/{uuid.uuid4()}/stream").status_code == 404


@pytest.mark.parametrize("format", ["arrow", "root-file", "root-rntuple"])
def test_other_formats(serve: Any, gated: Gated, paths: list[str], format: str) -> None:
    gated.gate.set()
    with client_of(serve(gated)) as client:
        id = submit(client, paths[:2], format)
        table = pa.ipc.open_stream(client.get(f"{URL}/{id}/stream").content).read_all()
        assert table.num_rows == 190
        assert set(COLUMNS) <= set(table.schema.names)


def test_a_result_that_lies_breaks_its_stream(serve: Any, gated: Gated, paths: list[str]) -> None:
    def liar(request: TransformRequest) -> TransformResult:
        made = transform(request)
        with open(made.path, "wb") as file:
            file.write(b"PAR1 and no more")
        return TransformResult(made.path, 16, made.rows)

    with client_of(serve(liar)) as client:
        id = submit(client, paths[:1])
        with pytest.raises(httpx.RemoteProtocolError):
            client.get(f"{URL}/{id}/stream")
