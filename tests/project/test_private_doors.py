"""What dosna uses of other packages that they do not document: each says here what has moved."""

from __future__ import annotations

import _thread
import ast
import base64
import ctypes
import http.server
import importlib
import inspect
import os
import re
import socket
import sys
import threading
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import HANG, require

ROOT = Path(__file__).resolve().parents[2]

DOORS = {
    # Of a package: by name, which parameters are given, and where it is used.
    "uproot": {
        "uproot.behaviors.TBranch:TBranch.embedded_baskets": (None, "sources/root/baskets.py"),
        "uproot.models.RNTuple:Model_ROOT_3a3a_RNTuple.page_link_list": (
            None,
            "sources/root/rntuple.py",
        ),
        "uproot.models.RNTuple:Model_ROOT_3a3a_RNTuple.column_records": (
            None,
            "sources/root/rntuple.py",
        ),
        "uproot.models.RNTuple:Model_ROOT_3a3a_RNTuple.cluster_summaries": (
            None,
            "sources/root/rntuple.py",
        ),
        "uproot.models.RNTuple:Model_ROOT_3a3a_RNTuple.read_cluster_range": (
            ("col_idx", "cluster_start", "cluster_stop", "missing_element_padding"),
            "sources/root/rntuple.py",
        ),
        "uproot.behaviors.RNTuple:HasFields.to_akform": (
            ("filter_field",),
            "sources/root/rntuple.py",
        ),
        "uproot.behaviors.TBranch:TBranch.basket_compressed_bytes": (
            ("basket_num",),
            "sources/root/baskets.py",
        ),
        "uproot.source.chunk:Source.chunks": (
            ("ranges", "notifications"),
            "sources/root/baskets.py",
        ),
        "uproot.containers:_stl_container_size": (None, "sources/root/checks.py"),
        "uproot.containers:AsContainer": (None, "sources/root/checks.py"),
        "uproot.source.cursor:Cursor.field": (
            ("chunk", "format", "context", "move"),
            "sources/root/checks.py",
        ),
        "uproot.interpretation:Interpretation.hook_before_basket_array": (
            None,
            "sources/root/checks.py",
        ),
        "uproot.interpretation.known_forth:known_forth_of": (("model",), "sources/root/checks.py"),
        "uproot.interpretation.numerical:TruncatedNumerical.to_dims": (
            None,
            "sources/root/checks.py",
        ),
        "uproot.source.chunk:Chunk.wrap": (("source", "data", "start"), "sources/root/file.py"),
    },
    "awkward": {
        "awkward._connect.pyarrow:convert_native_arrow_table_to_awkward": (
            ("table",),
            "sources/servicex/eventfiles.py",
        ),
    },
    "servicex": {
        "servicex.servicex_adapter:ServiceXAdapter._get_authorization": (
            (),
            "sources/servicex/requests.py",
        ),
        "servicex.servicex_adapter:ServiceXAdapter.get_transform_status": (
            ("request_id",),
            "sources/servicex/requests.py",
        ),
        "servicex.servicex_adapter:ServiceXAdapter.get_servicex_capabilities": (
            (),
            "sources/servicex/requests.py",
        ),
        "servicex.servicex_adapter:ServiceXAdapter.get_code_generators_async": (
            (),
            "sources/servicex/requests.py",
        ),
        "servicex.servicex_adapter:ServiceXAdapter.submit_transform": (
            ("transform_request",),
            "sources/servicex/requests.py",
        ),
        "servicex.query_cache:QueryCache.is_transform_request_submitted": (
            ("hash_value",),
            "sources/servicex/requests.py",
        ),
        "servicex.query_cache:QueryCache.get_transform_request_id": (
            ("hash_value",),
            "sources/servicex/requests.py",
        ),
        "servicex.query_cache:QueryCache.get_transform_by_hash": (
            ("hash",),
            "sources/servicex/requests.py",
        ),
        "servicex.query_cache:QueryCache.cache_submitted_transform": (
            ("transform", "request_id"),
            "sources/servicex/requests.py",
        ),
        "servicex.query_cache:QueryCache.delete_record_by_request_id": (
            ("request_id",),
            "sources/servicex/source.py",
        ),
    },
    "h5pyd": {
        "h5pyd.httpconn:HttpConn.__init__": (
            ("domain_name", "endpoint", "username", "password", "bucket", "api_key"),
            "hsds/client.py",
        ),
        "h5pyd.httpconn:HttpConn.getHeaders": (("headers",), "hsds/client.py"),
        "h5pyd.httpconn:HttpConn.verifyCert": ((), "hsds/client.py"),
        "h5pyd.httpconn:HttpConn.endpoint": (None, "hsds/client.py"),
        "h5pyd.httpconn:HttpConn.username": (None, "hsds/client.py"),
        "h5pyd.config:get_config": ((), "hsds/client.py"),
    },
    "h5json": {
        "h5json.objid:createObjId": ((), "hsds/domain.py"),
        "h5json.array_util:arrayToBytes": (("arr",), "hsds/types.py"),
        "h5json.array_util:bytesArrayToList": (("data",), "hsds/types.py"),
        "h5json.array_util:bytesToArray": (("data", "dt", "shape"), "hsds/types.py"),
        "h5json.array_util:jsonToArray": (
            ("data_shape", "data_dtype", "data_json"),
            "hsds/types.py",
        ),
        "h5json.hdf5dtype:createDataType": (("typeItem",), "hsds/types.py"),
        "h5json.hdf5dtype:getTypeItem": (("dt",), "hsds/types.py"),
    },
    "h5py": {
        "h5py._objects:phil.__enter__": (None, "io/h5chunks.py"),
    },
    "uvicorn": {
        "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol.data_received": (
            ("data",),
            "web/connections.py",
        ),
        "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol.on_headers_complete": (
            (),
            "web/connections.py",
        ),
        "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol.pause_writing": (
            (),
            "web/connections.py",
        ),
        "uvicorn.protocols.http.httptools_impl:RequestResponseCycle": (
            ("transport",),
            "web/connections.py",
        ),
    },
    "zarr": {
        "zarr.core.sync:sync": (("coro",), "sources/zarr/source.py"),
    },
    "xarray": {
        # Its guide to new backends uses these.
        "xarray.core.indexing:ExplicitIndexer.tuple": (None, "integrations/xarray.py"),
        "xarray.core.indexing:VectorizedIndexer": (None, "integrations/xarray.py"),
        "xarray.core.indexing:IndexingSupport.OUTER_1VECTOR": (None, "integrations/xarray.py"),
        "xarray.core.indexing:explicit_indexing_adapter": (
            ("key", "shape", "indexing_support", "raw_indexing_method"),
            "integrations/xarray.py",
        ),
    },
    "joblib": {
        "joblib.externals.loky:ProcessPoolExecutor": (
            ("max_workers", "timeout", "initializer", "initargs"),
            "engines/joblib.py",
        ),
    },
    "boto3": {
        "botocore.session:Session.register_component": (
            ("name", "component"),
            "io/s3/client.py",
        ),
        "botocore.loaders:create_loader": ((), "io/s3/client.py"),
        "botocore.parsers:ResponseParserError": (None, "io/s3/errors.py"),
    },
}

NO_BOUNDS = {
    "xarray",  # Counts its versions by dates, and no extra brings it.
}


@pytest.mark.parametrize(
    ("package", "door"), [(package, door) for package, doors in DOORS.items() for door in doors]
)
def test_a_door_is_where_it_was(package, door):
    require(package)
    parameters, used = DOORS[package][door]
    moved = f"{door} of {package} {version(package)} has moved: see dosna/{used}"
    module, _, name = door.partition(":")
    try:
        found = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        pytest.fail(f"{moved} ({error})")
    if parameters is not None:
        there = inspect.signature(found).parameters
        assert set(parameters) <= there.keys(), f"{moved}: its parameters are {list(there)}"
    name = name.removesuffix(".__enter__")
    assert name.rpartition(".")[2] in (ROOT / "dosna" / used).read_text() or "__init__" in name


@pytest.mark.parametrize("package", sorted((DOORS.keys() - NO_BOUNDS) | {"obstore"}))
def test_a_package_with_doors_has_an_upper_bound(package):
    require(package)
    # As the metadata of what is built from here would have it.
    text = (ROOT / "setup.cfg").read_text()
    found = re.search(rf"^[\w =]+\b{package}>=[\d.]+,<(\d+)$", text, re.MULTILINE)
    assert found, f"{package} has no upper bound in setup.cfg"
    assert int(version(package).split(".")[0]) < int(found[1])


def imports(path):
    """Yield module, name and alias of what a file of dosna imports from modules of others."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            for found in node.names:
                yield node.module, found.name, found.asname or found.name
        elif isinstance(node, ast.Import):
            for found in node.names:
                yield found.name, "", found.asname or found.name


def test_what_is_imported_from_private_modules_is_a_door():
    private = re.compile(r"(^|\.)(_(?!_)\w*|core|externals|internals?)(\.|$)")
    known = {door.partition(":")[0] for doors in DOORS.values() for door in doors}
    found = {
        f"{path.relative_to(ROOT)}: {module} {name}"
        for path in (ROOT / "dosna").rglob("*.py")
        for module, name, _ in imports(path)
        if private.search(f"{module}.{name}")
        and not module.startswith(("dosna", "_"))
        and not {module, f"{module}.{name}"} & known
    }
    assert found == set()


def test_all_that_is_used_of_the_low_level_of_h5py_is_there():
    require("h5py")
    used = set()
    for path in (ROOT / "dosna").rglob("*.py"):
        low = {name for module, name, _ in imports(path) if module == "h5py"}
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                module, _, name = ast.unparse(node).removeprefix("h5py.").partition(".")
                if (
                    name.isidentifier()
                    and re.fullmatch(r"h5\w{1,2}", module)
                    and (module in low or ast.unparse(node).startswith("h5py."))
                ):
                    used.add((path.name, module, name))
    assert len(used) > 30
    missing = [
        f"{path}: h5py.{module}.{name}"
        for path, module, name in sorted(used)
        if not hasattr(importlib.import_module(f"h5py.{module}"), name)
    ]
    assert missing == [], f"h5py {version('h5py')} has moved these"


def test_stored_chunks_of_hdf5_wait_for_the_lock_of_h5py(tmp_path):
    h5py = require("h5py")
    from h5py._objects import phil

    from dosna.io.h5chunks import read_stored_chunk, write_stored_chunk

    values = np.arange(4, dtype="<i4")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("data", (8,), "<i4", chunks=(4,))
        handle = data.id  # which takes the lock itself
        done = []
        for call in (
            lambda: write_stored_chunk(handle, (4,), values.tobytes()),
            lambda: done.append(read_stored_chunk(handle, (4,))),
        ):
            thread = threading.Thread(target=call)
            with phil:
                thread.start()
                thread.join(0.2)
                assert thread.is_alive(), "the lock was not waited for"
            thread.join(HANG)
        assert done == [values.tobytes()]
        assert data[...].tolist() == [0, 0, 0, 0, 0, 1, 2, 3]
    text = [path.read_text() for path in (ROOT / "dosna").rglob("*.py")]
    calls = sum(len(re.findall(r"\.(?:read|write)_direct_chunk\(", part)) for part in text)
    assert calls == 2, "call the functions of dosna/io/h5chunks.py"


@pytest.mark.parametrize("kind", ["loky", "multiprocessing"])
def test_a_pool_knows_its_processes(kind):
    require("joblib")
    from dosna.engines.joblib import _EXECUTORS

    with _EXECUTORS[kind](1) as pool:
        worker = pool.submit(os.getpid).result(HANG)
        assert [process.pid for process in pool._processes.values()] == [worker], (
            f"_processes of the pool of {kind} has moved: see dosna/engines/joblib.py"
        )


def test_a_session_of_botocore_takes_the_loader_that_it_is_given():
    require("boto3")
    import botocore.loaders
    import botocore.session

    loader = botocore.loaders.create_loader()
    core = botocore.session.Session()
    core.register_component("data_loader", loader)
    asked = []
    load = loader.load_service_model
    loader.load_service_model = lambda *args, **more: asked.append(args[0]) or load(*args, **more)
    core.create_client("s3", region_name="us-east-1")
    assert "s3" in asked, "the component data_loader has moved: see dosna/io/s3/client.py"


def test_a_thread_that_python_did_not_start_is_a_dummy():
    found = []
    started = threading.Event()

    def look():
        found.append(threading.current_thread())
        started.set()

    _thread.start_new_thread(look, ())
    assert started.wait(HANG)
    assert isinstance(found[0], threading._DummyThread), "see dosna/backends/ceph/cluster.py"


def test_the_system_exchanges_paths_and_flushes_one_file_system():
    library = ctypes.CDLL(None)
    if not sys.platform.startswith("linux"):
        pytest.skip("of Linux")
    assert hasattr(library, "renameat2"), "see dosna/io/exchange.py"
    assert hasattr(library, "syncfs"), "see dosna/io/files.py"


def test_the_binding_of_ceph_has_what_is_used():
    rados = require("rados")
    used = {
        rados: "LIBRADOS_CREATE_EXCLUSIVE ObjectNotFound Error WriteOpCtx",
        rados.Rados: "conf_get open_ioctx2 pool_reverse_lookup shutdown",
        rados.Ioctx: "aio_write_full get_last_version operate_write_op stat read write_full "
        "set_osdmap_full_try remove_object list_objects",
        rados.WriteOp: "new assert_version rm_xattr write write_full",
    }
    missing = [n for of, names in used.items() for n in names.split() if not hasattr(of, n)]
    assert missing == [], "see dosna/backends/ceph/store.py and cluster.py"


@pytest.fixture
def answering():
    """Give a server with what it answers, and a function that gives obstore's error."""
    obstore = require("obstore")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.server.answer == "silence":
                ended.wait(HANG)
            if isinstance(self.server.answer, str):
                return
            status, headers, body = self.server.answer
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_PUT = do_GET

        def log_message(self, *_):
            pass

    def error(url):
        seconds = "0.3s" if server.answer == "silence" else "60s"
        store = obstore.store.S3Store(
            "bucket",
            endpoint=url,
            region="us-east-1",
            skip_signature=True,
            client_options={"allow_http": True, "timeout": seconds, "connect_timeout": "60s"},
            retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=2)},
        )
        try:
            obstore.get(store, "key").bytes()
            obstore.put(store, "key", b"x", use_multipart=False)
        except Exception as failed:
            return failed
        return None

    ended = threading.Event()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server, error
        ended.set()
        server.shutdown()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((500, {}, b"<Error><Code>InternalError</Code></Error>"), "(HTTP 500 InternalError)"),
        ((418, {}, b"<Error><Code>Teapot</Code></Error>"), "(HTTP 418 Teapot)"),
        ((404, {}, b"<Error><Code>NoSuchKey</Code></Error>"), "(HTTP 404 NoSuchKey)"),
        ((403, {}, b""), "(HTTP 403)"),
        ((301, {}, b""), "(HTTP 301 PermanentRedirect)"),
        ((200, {}, b"a page"), "S3 server"),
        ((200, {"Content-Length": "6"}, b"a page"), "S3 server"),
        ("nothing", "the connection broke"),
        ("silence", "no answer in time"),
        ("no server", "cannot be reached"),
    ],
    ids=str,
)
def test_errors_of_obstore_are_told_by_their_words(answering, answer, says):
    from dosna.io.s3.errors import obstore_failure

    server, error = answering
    server.answer = answer
    with socket.create_server(("127.0.0.1", 0)) as unused:
        free = f"http://127.0.0.1:{unused.getsockname()[1]}"
    found = error(free if answer == "no server" else server.url)
    moved = f"obstore {version('obstore')} says: {found}; see dosna/io/s3/errors.py"
    assert says in str(obstore_failure(found)), moved


def test_lists_of_pages_say_how_many_elements_there_are(tmp_path):
    uproot, ak = require("uproot"), require("awkward")
    with uproot.recreate(tmp_path / "tuple.root") as file:
        made = file.mkrntuple("T", {"x": "var * float32"})
        for lists in ([[1, 2], []], [[3]]):
            made.extend({"x": ak.values_astype(ak.Array(lists), "f4")})
    found = uproot.open(tmp_path / "tuple.root")["T"]
    form, _ = found["x"].to_akform()
    numbers = [int(form.contents[0].form_key.removeprefix("column-")), 1]
    for column in numbers:
        assert found.column_records[column].first_element_index == 0
        assert found.column_records[column].nbits in (32, 64)
    counted = [
        [sum(page.num_elements for page in pages.pages) for pages in cluster]
        for cluster in found.page_link_list
    ]
    assert counted == [[2, 2], [1, 1]]
    assert not any(pages.suppressed for cluster in found.page_link_list for pages in cluster)
    assert found.read_cluster_range(numbers[0], 0, 2).tolist() == [0, 2, 2, 3]
    starts = [(c.num_first_entry, c.num_entries) for c in found.cluster_summaries]
    assert starts == [(0, 2), (2, 1)]


def test_the_authorization_of_servicex_is_headers():
    require("servicex")
    import asyncio

    from servicex.servicex_adapter import ServiceXAdapter

    adapter = ServiceXAdapter("http://localhost:1")
    assert inspect.iscoroutinefunction(adapter._get_authorization)
    assert asyncio.run(adapter._get_authorization()) == {}


def test_headers_of_hsds_have_the_credentials():
    require("h5pyd")
    from h5pyd.httpconn import HttpConn

    known = HttpConn(None, endpoint="http://localhost:1", username="me", password="secret")
    headers = known.getHeaders(headers={"Accept-Encoding": "identity"})
    assert headers["Authorization"] == b"Basic " + base64.b64encode(b"me:secret")
    assert headers["Accept-Encoding"] == "identity"


def test_random_tests_try_the_same_cases_whatever_is_loaded(tmp_path, monkeypatch):
    def tried():
        found = []

        @settings(derandomize=True, database=None)
        @given(st.integers(), st.text())
        def note(number, text):
            found.append((number, text))

        note()
        return found

    before = tried()
    # Otherwise Hypothesis would draw these numbers too, now and then.
    (tmp_path / "odd_constants.py").write_text(f"odd = {[10**6 + 7 * n for n in range(500)]}\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("odd_constants")
    assert tried() == before
