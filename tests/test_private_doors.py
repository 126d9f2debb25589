"""What dosna uses of other packages that they do not document: each says here what has moved."""

from __future__ import annotations

import base64
import importlib
import inspect
import re
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from support import require

ROOT = Path(__file__).resolve().parent.parent

DOORS = {
    # Of a package: by name, which parameters are given, and where it is used.
    "uproot": {
        "uproot.models.TBasket:Model_TBasket.read": (
            ("chunk", "cursor", "context", "file", "selffile", "parent"),
            "sources/root/tree.py",
        ),
        "uproot.models.RNTuple:Model_ROOT_3a3a_RNTuple.page_link_list": (
            None,
            "sources/root/tree.py",
        ),
        "uproot.models.RNTuple:Model_ROOT_3a3a_RNTuple.column_records": (
            None,
            "sources/root/tree.py",
        ),
        "uproot.models.RNTuple:Model_ROOT_3a3a_RNTuple.cluster_summaries": (
            None,
            "sources/root/tree.py",
        ),
        "uproot.models.RNTuple:Model_ROOT_3a3a_RNTuple.read_cluster_range": (
            ("col_idx", "cluster_start", "cluster_stop", "missing_element_padding"),
            "sources/root/tree.py",
        ),
        "uproot.behaviors.RNTuple:HasFields.to_akform": (
            ("filter_field",),
            "sources/root/tree.py",
        ),
        "uproot.behaviors.TBranch:TBranch.basket_compressed_bytes": (
            ("basket_num",),
            "sources/root/tree.py",
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
    assert name.rpartition(".")[2] in (ROOT / "dosna" / used).read_text() or "__init__" in name


@pytest.mark.parametrize("package", DOORS)
def test_a_package_with_doors_has_an_upper_bound(package):
    require(package)
    # As the metadata of what is built from here would have it.
    text = (ROOT / "setup.cfg").read_text()
    found = re.search(rf"^ +{package}>=[\d.]+,<(\d+)$", text, re.MULTILINE)
    assert found, f"{package} has no upper bound in setup.cfg"
    assert int(version(package).split(".")[0]) < int(found[1])


def test_headers_of_baskets_are_read_without_their_data(tmp_path):
    uproot = require("uproot")
    from uproot.models.TBasket import Model_TBasket

    with uproot.recreate(tmp_path / "tree.root", compression=uproot.ZLIB(1)) as file:
        file.mktree("T", {"x": "f8"}).extend({"x": np.arange(1000.0)})
    branch = uproot.open(tmp_path / "tree.root")["T"]["x"]
    start = int(branch.member("fBasketSeek")[0])
    basket = Model_TBasket.read(
        branch.file.source.chunk(start, start + 200),
        uproot.source.cursor.Cursor(start),
        {"basket_num": 0, "read_basket": False},
        branch.file,
        branch.file,
        branch,
    )
    assert (basket.border, basket.num_entries) == (8000, 1000)


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
