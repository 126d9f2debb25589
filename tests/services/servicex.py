"""A stand-in of ServiceX on loopback, which no package brings: it speaks the client's protocol.

It selects from input files as ServiceX's own transformers do, by uproot and awkward, and puts what
results into a real S3 server, in a bucket named by the request. Which of its files are done, and
when, is told to it; what goes wrong too.
"""

from __future__ import annotations

import ast
import base64
import io
import json
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import awkward as ak
import numpy as np
import pyarrow
import pyarrow.parquet
import qastle
import uproot
from support import HANG

from services.s3 import make_client

REFRESH_TOKEN = "a-refresh-token"
INFO = {
    "app-version": "stand-in",
    "code-gen-image": {"uproot-raw": "a", "uproot": "b", "python": "c"},
    "capabilities": ["poll_local_transformation_results", "long_sample_titles_256"],
}
ENDED = ("Complete", "Fatal", "Canceled", "Bad Dataset")


@dataclass
class Transform:
    """A request, and how it stands."""

    body: Mapping[str, Any]
    inputs: list[str]
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    status: str = "Running"
    submitted: datetime = field(default_factory=lambda: datetime.now(UTC))
    rows: list[dict[str, Any]] = field(default_factory=list)
    results: list[dict[str, ak.Array]] = field(default_factory=list)
    """What was selected, by tree, of the files that are done, in their order."""

    def count(self, status: str) -> int:
        return sum(row["transform_status"] == status for row in self.rows)


class ServiceX:
    """The stand-in.

    Parameters
    ----------
    s3_url, access_key, secret_key : str
        Of the S3 server that takes the results.

    Attributes
    ----------
    url : str
    datasets : dict of str to list of str
        The files of each DID.
    pause : float
        Seconds before each file.
    allowed : int
        How many files of a request may be done; the others wait until it is raised.
    fails : callable
        Told the path of an input, whether it fails.
    status_codes : dict of str to int
        What to answer to calls whose path begins so, instead of doing anything.
    """

    def __init__(self, s3_url: str, access_key: str, secret_key: str) -> None:
        self.s3_url, self.keys = s3_url, (access_key, secret_key)
        self.datasets: dict[str, list[str]] = {}
        self.transforms: dict[str, Transform] = {}
        self.pause, self.allowed = 0.0, 1 << 30
        self.fails: Callable[[str], bool] = lambda path: False
        self.status_codes: dict[str, int] = {}
        self.capabilities: list[str] = list(INFO["capabilities"])
        self.calls: list[str] = []
        self.stopped = False
        self._threads: list[threading.Thread] = []

    # -- requests ---------------------------------------------------------------------------

    def submit(self, body: Mapping[str, Any]) -> Transform:
        inputs = body.get("file-list") or self.datasets[body["did"].partition("?")[0]]
        made = Transform(body, list(inputs))
        self.transforms[made.id] = made
        self._threads.append(threading.Thread(target=self._run, args=(made,), daemon=True))
        self._threads[-1].start()
        return made

    def close(self) -> None:
        """End, and with it what is transformed: later, its store may be gone."""
        self.stopped = True
        for thread in self._threads:
            thread.join(HANG)

    def _run(self, transform: Transform) -> None:
        with closing(make_client(self.s3_url, self.keys)) as client:
            client.create_bucket(Bucket=transform.id)
            for number, path in enumerate(transform.inputs):
                time.sleep(self.pause)
                while number >= self.allowed:
                    if transform.status in ENDED or self.stopped:
                        return
                    time.sleep(0.01)
                if transform.status in ENDED or self.stopped:
                    return
                self._one(client, transform, number, path)
        transform.status = "Complete"

    def _one(self, client: Any, transform: Transform, number: int, path: str) -> None:
        row = {
            "id": number,
            "request-id": transform.id,
            "file-id": number,
            "file-path": path,
            "s3-object-name": None,
            "transform_status": "failure",
            "transform_time": 1,
            "total-events": 0,
            "total-bytes": 0,
            "avg-rate": 0.0,
            "created_at": datetime.now(UTC).replace(tzinfo=None).isoformat(),
        }
        made = None if self.fails(path) else self._transformed(transform, path)
        if made is not None:
            trees, data = made
            parquet = transform.body["result-format"] == "parquet"
            key = path.replace("/", ":") + (".parquet" if parquet else "")
            client.put_object(Bucket=transform.id, Key=key, Body=data)
            transform.results.append(trees)
            row |= {
                "transform_status": "success",
                "s3-object-name": key,
                "total-events": max(map(len, trees.values()), default=0),
                "total-bytes": len(data),
            }
        transform.rows.append(row)

    def _transformed(
        self, transform: Transform, path: str
    ) -> tuple[dict[str, ak.Array], bytes] | None:
        body = transform.body
        try:
            trees = select(body["codegen"], body["selection"], path)
            return trees, written(trees, body["result-format"], body["codegen"])
        except Exception:
            return None  # What a transformer cannot do is a file that failed.

    # -- what the client calls ----------------------------------------------------------------

    def answer(
        self, method: str, path: str, query: Mapping[str, list[str]], token: str, body: Any
    ) -> tuple[int, Any]:
        if method == "POST" and path == "/token/refresh":
            if token != REFRESH_TOKEN:
                return 401, {"message": "the token is not known"}
            return 200, {"access_token": new_token()}
        if token.count(".") != 2:
            return 401, {"message": "a token is needed"}
        if path == "/servicex":
            return 200, {**INFO, "capabilities": self.capabilities}
        if path == "/servicex/datasets":
            return 200, {"datasets": [self._dataset(name) for name in self.datasets]}
        if path == "/servicex/transformation":
            if method == "POST":
                return self._submitted(body)
            return 200, {"requests": [self._status(t) for t in self.transforms.values()]}
        _, _, kind, name, *rest = [*path.split("/"), ""]
        transform = self.transforms.get(name)
        if kind != "transformation" or transform is None:
            return 404, {"message": f"Transformation request not found with id: {name}"}
        if rest[0] == "results":
            since = query.get("later_than", ["0001-01-01T00:00:00"])[0]
            later = datetime.fromisoformat(since).replace(tzinfo=None)
            rows = list(transform.rows)
            found = [r for r in rows if datetime.fromisoformat(r["created_at"]) > later]
            return 200, {"results": found}
        if rest[0] == "cancel":
            transform.status = "Canceled"
            return 200, {}
        if method == "DELETE":
            del self.transforms[name]
            return 200, {}
        return 200, self._status(transform)

    def _submitted(self, body: Mapping[str, Any]) -> tuple[int, Any]:
        if body["codegen"] not in INFO["code-gen-image"]:
            return 400, {"message": f"no code generator {body['codegen']}"}
        if "did" in body and body["did"].partition("?")[0] not in self.datasets:
            return 400, {"message": f"no dataset {body['did']}"}
        return 200, {"request_id": self.submit(body).id}

    def _status(self, transform: Transform) -> dict[str, Any]:
        # Counted after the rows exist, and the status last, as with ServiceX.
        status = transform.status
        body, iso = transform.body, "%Y-%m-%dT%H:%M:%S.%fZ"
        done, failed = transform.count("success"), transform.count("failure")
        return {
            "request_id": transform.id,
            "did": body.get("did") or "File List Provided in Request",
            "did_id": 1,
            "title": body.get("title"),
            "selection": body["selection"],
            "tree-name": None,
            "image": "stand-in",
            "workers": 1,
            "result-destination": "object-store",
            "result-format": body["result-format"],
            "generated-code-cm": "none",
            "status": status,
            "app-version": "stand-in",
            "files": len(transform.inputs),
            "files-completed": done,
            "files-failed": failed,
            "files-remaining": len(transform.inputs) - done - failed,
            "submit-time": transform.submitted.strftime(iso),
            "finish-time": datetime.now(UTC).strftime(iso) if status in ENDED else "None",
            "minio-endpoint": urlsplit(self.s3_url).netloc,
            "minio-secured": False,
            "minio-access-key": self.keys[0],
            "minio-secret-key": self.keys[1],
            "log-url": None,
        }

    def _dataset(self, name: str) -> dict[str, Any]:
        now = datetime.now(UTC).isoformat()
        return {
            "id": 1,
            "name": name,
            "did_finder": name.partition(":")[0],
            "n_files": len(self.datasets[name]),
            "size": 0,
            "events": 0,
            "last_used": now,
            "last_updated": now,
            "lookup_status": "complete",
            "is_stale": False,
        }


def new_token() -> str:
    """Make a token whose signature nobody looks at."""
    expires = datetime.now(UTC) + timedelta(hours=1)
    parts: Sequence[Any] = ({"alg": "none", "typ": "JWT"}, {"exp": int(expires.timestamp())})
    texts = [base64.urlsafe_b64encode(json.dumps(p).encode()).decode() for p in parts]
    return ".".join([*(text.rstrip("=") for text in texts), "c2ln"])


# -- transformers ---------------------------------------------------------------------------------


def select(codegen: str, selection: str, path: str) -> dict[str, ak.Array]:
    """Do what a selection says to a file; give the arrays by tree."""
    if codegen == "uproot-raw":
        return dict(
            pair for query in json.loads(selection) for pair in _uproot_raw(query, path).items()
        )
    if codegen == "python":
        names: dict[str, Any] = {}
        exec(base64.b64decode(selection), names)
        made = names["run_query"](path)
        return made if isinstance(made, dict) else {"servicex": made}
    return {"servicex": _func_adl(selection, path)}


def _uproot_raw(query: Mapping[str, Any], path: str) -> dict[str, ak.Array]:
    trees = query["treename"]
    if not isinstance(trees, Mapping):
        trees = {name: name for name in ([trees] if isinstance(trees, str) else trees)}
    wanted = {key: query[key] for key in ("expressions", "cut", "filter_name", "aliases")}
    found = {}
    with uproot.open(path) as file:
        for name, out in trees.items():
            if name in file or query["fail_on_missing_trees"]:
                found[out] = file[name].arrays(**wanted)
    return found


def _func_adl(selection: str, path: str) -> ak.Array:
    """Evaluate a query of Where and Select, on all events at once."""

    def data(file: str, tree: str) -> ak.Array:
        with uproot.open(path) as opened:
            return opened[tree].arrays()

    def selected(events: ak.Array, func: Callable[[ak.Array], Any]) -> ak.Array:
        made = func(events)
        columns = made if isinstance(made, dict) else {"branch": made}
        return ak.zip(columns, depth_limit=1)

    query = qastle.text_ast_to_python_ast(selection)
    expression = ast.fix_missing_locations(ast.Expression(query.body[0].value))
    known = {
        "EventDataset": data,
        "Select": selected,
        "Where": lambda events, func: events[func(events)],
    }
    result: ak.Array = eval(compile(expression, "query", "eval"), known)
    return result


def written(trees: Mapping[str, ak.Array], how: str, codegen: str) -> bytes:
    """Give the bytes of a result file."""
    if how == "parquet":
        out = io.BytesIO()
        tables = []
        for name, array in trees.items():
            if codegen == "uproot-raw":
                array = ak.with_field(array, ak.Array([name] * len(array)), "treename")
            tables.append(ak.to_arrow_table(array))
        if not tables:
            pyarrow.parquet.write_table(pyarrow.table({}), out)
            return out.getvalue()
        with pyarrow.parquet.ParquetWriter(out, tables[0].schema) as writer:
            for table in tables:
                writer.write_table(table)
        return out.getvalue()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "result.root")
        with uproot.recreate(path) as file:
            for name, array in trees.items():
                if how == "root-rntuple":
                    file.mkrntuple(name, array)
                elif len(array):
                    file.mktree(name, {column: array[column] for column in array.fields})
                else:
                    # Without events a transformer knows no types.
                    file.mktree(name, {column: np.array([]) for column in array.fields})
        return path.read_bytes()


# -- the server -----------------------------------------------------------------------------------


@contextmanager
def start_servicex(s3_url: str, access_key: str, secret_key: str) -> Iterator[ServiceX]:
    """Serve on a free port of loopback."""
    stand_in = ServiceX(s3_url, access_key, secret_key)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self._serve("GET")

        def do_POST(self) -> None:
            self._serve("POST")

        def do_DELETE(self) -> None:
            self._serve("DELETE")

        def _serve(self, method: str) -> None:
            url = urlsplit(self.path)
            content = self.rfile.read(int(self.headers.get("content-length") or 0))
            stand_in.calls.append(f"{method} {url.path}")
            codes = [c for p, c in stand_in.status_codes.items() if url.path.startswith(p)]
            token = (self.headers.get("authorization") or "").removeprefix("Bearer ")
            if codes:
                status, answer = codes[0], {"message": "told to fail"}
            else:
                body = json.loads(content) if content else None
                status, answer = stand_in.answer(
                    method, url.path, parse_qs(url.query), token, body
                )
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    stand_in.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield stand_in
    finally:
        server.shutdown()
        server.server_close()
        stand_in.close()
