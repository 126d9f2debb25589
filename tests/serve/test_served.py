"""What a server shows of a connection, and the parts of its application."""

from __future__ import annotations

import secrets

import numpy as np
import pytest
from support import require

import dosna as dn
from dosna.errors import ConfigurationError

require("starlette")
require("uvicorn")
httpx = require("httpx")

from dosna.serve import Served  # noqa: E402
from dosna.web import Refusal  # noqa: E402


@pytest.fixture
def con():
    with dn.Connection(secrets.token_hex(8), backend="ram") as con:
        for name in ("entry/tomo/data", "entry/tomo/angles", "entry/title", "other"):
            con.create_dataset(name, data=np.arange(4))
        con.set_group_attrs("entry", {"NX_class": "NXentry"})
        con.set_group_attrs("empty", {"kept": 1})
        yield con


def test_all_of_a_connection_is_shown(con):
    served = Served(con)
    assert served.children("") == (["entry"], ["other"])
    assert served.children("entry") == (["entry/tomo"], ["entry/title"])
    assert served.names_in("entry/tomo") == ["entry/tomo/angles", "entry/tomo/data"]
    assert served.attrs_of_group("entry") == {"NX_class": "NXentry"}
    assert served.is_group("entry")
    assert served.is_group("empty")
    assert not served.is_group("nowhere")
    assert served.dataset("other").shape == (4,)


def test_only_what_is_below_a_name_is_shown(con):
    served = Served(con, "entry/tomo")
    assert served.children("") == (["entry"], [])
    assert served.children("entry") == (["entry/tomo"], [])
    assert served.names_in("") == ["entry/tomo/angles", "entry/tomo/data"]
    assert served.attrs_of_group("entry") == {}
    assert served.dataset("entry/tomo/data").shape == (4,)
    for name in ("other", "entry/title", "entry/tomography"):
        with pytest.raises(Refusal) as refused:
            served.dataset(name)
        assert refused.value.status == 404
    one = Served(con, "entry/title")
    assert one.children("entry") == ([], ["entry/title"])
    assert one.names_in("") == ["entry/title"]


def test_names_are_checked_before_a_store_sees_them(con):
    served = Served(con)
    for name in ("..", "entry/../other", "/other", "a//b", "entry/", "a\0b", ".x", "a\\b", "\x7f"):
        for ask in (served.dataset, served.children, served.is_group, served.names_in):
            with pytest.raises(Refusal) as refused:
                ask(name)
            assert refused.value.status == 400
    with pytest.raises(Refusal):
        served.children("/".join("a" * 100))


def test_a_dataset_that_was_made_again_is_opened_again(con):
    served = Served(con)
    assert served.read("other", lambda ds: ds[...].tolist()) == [0, 1, 2, 3]
    del con["other"]
    con.create_dataset("other", data=[7])
    assert served.read("other", lambda ds: ds[...].tolist()) == [7]


def test_a_server_says_what_it_is(con):
    with con.serve() as server:
        answer = httpx.get(server.root + "/api", headers=server.headers)
        assert answer.json()["dosna"] == dn.__version__
        assert httpx.get(server.root + "/api").status_code == 401
        assert httpx.get(server.root + "/nothing", headers=server.headers).status_code == 404
    with pytest.raises(ConfigurationError, match="token"):
        con.serve(host="0.0.0.0")
