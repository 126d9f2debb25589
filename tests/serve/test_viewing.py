"""Views in notebooks, and ``dosna view``: it prints its URL, and ends at Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from itertools import takewhile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from support import HANG, require, taking_ctrl_c

import dosna as dn
from dosna.array.pictures import grid_picture
from dosna.testing.timing import patience

require("starlette")
require("uvicorn")
require("h5grove")
httpx = require("httpx")


@pytest.fixture
def con():
    with dn.Connection("viewed", backend="ram") as con:
        con.create_dataset("entry/<x>", data=np.zeros((4, 6)), chunk_size=(2, 3))
        yield con


def test_view_is_a_frame_with_the_page(con):
    view = con["entry/<x>"].view(height=300)
    try:
        frame = view._repr_html_()
        assert 'height="300"' in frame
        source = re.search(r'src="([^"]+)"', frame)[1]
        assert "<x>" not in source
        page = httpx.get(source)
        assert page.status_code == 200
        assert "frame-ancestors 'self' *" in page.headers["content-security-policy"]
        inner = httpx.get(source.partition("?")[0] + "h5grove/meta", params={"path": "/entry"})
        assert [child["name"] for child in inner.json()["children"]] == ["<x>"]
        assert view.server.access.token not in repr(view)
        assert con.view().server is view.server
    finally:
        view.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(view.url)


def test_view_needs_an_open_connection():
    with pytest.raises(dn.errors.NotConnectedError):
        dn.Connection("viewed", backend="ram").view()


def start(*arguments):
    with taking_ctrl_c():
        return subprocess.Popen(
            [sys.executable, "-m", "dosna", "view", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.mark.slow
def test_command_prints_its_url_and_ends_at_ctrl_c(tmp_path):
    with dn.Connection(str(tmp_path), backend="file") as con:
        con.create_dataset("entry/x", data=np.arange(4))
    with start(f"file:{tmp_path}//entry/x", "--no-open", "--json") as process:
        try:
            lines = iter(process.stdout.readline, "")
            url = json.loads("".join(takewhile(lambda line: line != "}\n", lines)) + "}")["url"]
            with httpx.Client(follow_redirects=True, timeout=HANG) as client:
                assert 'data-path="/entry/x"' in client.get(url).text
                root = url.partition("?")[0]
                data = client.get(root + "h5grove/data", params={"path": "/entry/x"})
                assert data.json() == [0, 1, 2, 3]
            process.send_signal(signal.SIGINT)
            assert process.wait(HANG) == 0
            assert url.partition("token=")[2] not in process.stderr.read()
        finally:
            process.kill()
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


@pytest.mark.slow
def test_command_ends_at_ctrl_c_while_a_store_says_nothing(tmp_path):
    with dn.Connection(str(tmp_path), backend="file") as con:
        con.create_dataset("x", data=np.arange(4), chunk_size=2)
    for chunk in (tmp_path / "x" / "c").iterdir():
        chunk.unlink()
        os.mkfifo(chunk)  # opening it waits for somebody who writes
    with start(f"file:{tmp_path}", "--no-open", "--json") as process:
        try:
            lines = iter(process.stdout.readline, "")
            url = json.loads("".join(takewhile(lambda line: line != "}\n", lines)) + "}")["url"]
            with httpx.Client(follow_redirects=True, timeout=HANG) as client:
                client.get(url)
                root = url.partition("?")[0]
                for path in ("h5grove/data?path=/x", "zarr/x/c/1"):
                    with pytest.raises(httpx.ReadTimeout):
                        client.get(root + path, timeout=1)
            asked = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert process.wait(HANG) == 0
            assert time.monotonic() - asked < patience(3)
            assert not process.stderr.read().count("Traceback")
        finally:
            process.kill()


def test_browser_is_opened_by_a_file_that_hides_the_token(monkeypatch):
    from dosna.cli.commands import viewing

    with viewing.hidden("http://127.0.0.1:1/?token=secret&a=1") as url:
        assert "secret" not in url
        file = Path(url.removeprefix("file://"))
        assert "token=secret&amp;a=1" in file.read_text()
        assert file.parent.stat().st_mode & 0o077 == 0
    assert not file.exists()
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    assert not viewing.has_browser()
    monkeypatch.setenv("DISPLAY", ":0")
    assert viewing.has_browser()


@pytest.mark.parametrize(
    ("shape", "chunks", "texts"),
    [
        ((7,), (2,), ["7"]),
        ((40, 60), (20, 20), ["60", "40"]),
        ((3, 40, 60), (1, 20, 20), ["60", "40", "3"]),
        ((2, 5, 1000, 2000, 3000), (1, 1, 1, 1, 1), ["3000", "2000", "1000"]),
    ],
)
def test_pictures_of_chunk_grids(shape, chunks, texts):
    picture = ElementTree.fromstring(grid_picture(shape, chunks))
    space = "{http://www.w3.org/2000/svg}"
    assert [text.text for text in picture.iter(f"{space}text") if text.text] == texts
    assert 4 < len(list(picture.iter(f"{space}line"))) < 200


def test_no_picture_without_elements():
    assert grid_picture((), ()) == grid_picture((0, 3), (1, 1)) == ""


def test_datasets_connections_and_trees_are_shown_as_html(con):
    shown = con["entry/<x>"]._repr_html_()
    assert "<x>" not in shown
    for part in ("&lt;x&gt;", "(4, 6)", "float64", "(2, 3)", "<svg"):
        assert part in shown
    assert "<li>entry/</li>" in con._repr_html_()
    closed = dn.Connection("closed", backend="ram")
    assert "not connected" in closed._repr_html_()
    from dosna.columns import Tree
    from dosna.columns.description import Branch

    tree = Tree("TTree", "Events", 5, (Branch("<pt>", "float32"),))._repr_html_()
    for part in ("5 entries", "&lt;pt&gt;", "float32"):
        assert part in tree
