"""The page of H5Web: its files, its links, and that its sources give what is shipped."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest
from support import require, require_program

import dosna as dn

require("starlette")
require("h5grove")

from asking import Asking  # noqa: E402
from starlette.applications import Starlette  # noqa: E402

from dosna.serve.page import routes  # noqa: E402
from dosna.serve.served import Served  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
STATIC = files("dosna.serve") / "static"


@pytest.fixture
def con():
    with dn.Connection('a/"<b>&', backend="ram") as con:
        con.create_dataset("x", data=[1, 2])
        yield con


@pytest.fixture
def ask(con):
    return Asking(Starlette(routes=routes(Served(con, "x"))))


def test_names_are_no_markup_in_the_page(ask):
    page = ask("/")
    assert page.headers["content-type"].startswith("text/html")
    assert 'data-name="&quot;&lt;b&gt;&amp;"' in page.text
    assert 'data-path="/x"' in page.text


def test_the_title_is_no_token_of_a_server_behind_it():
    require("httpx")
    token = "a-token-of-another-server"
    behind, _ = dn.open_url(f"http://127.0.0.1:9/@{token}/zarr")
    with behind:
        page = Asking(Starlette(routes=routes(Served(behind))))("/", path="/")
    assert "<title>data – dosna</title>" in page.text
    assert token not in page.text


def test_all_that_the_page_loads_is_there(ask):
    names = re.findall(r'(?:href|src)="([^"]+)"', ask("/").text)
    assert set(names) == {"icon.svg", "page.css", "page.js"}
    for name in names:
        assert ask(f"/{name}").status_code == 200
    assert ask("/favicon.ico").content == ask("/icon.svg").content


@pytest.mark.parametrize("name", ["page.js", "page.css"])
def test_files_are_compressed_only_for_those_who_allow_it(ask, name):
    kept = (STATIC / f"{name}.gz").read_bytes()
    plain = ask(f"/{name}", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.content == gzip.decompress(kept)
    small = ask(f"/{name}", headers={"accept-encoding": "gzip"})
    assert small.headers["content-encoding"] == "gzip"
    assert int(small.headers["content-length"]) == len(kept)
    again = ask(f"/{name}", headers={"if-none-match": small.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    # As proxies that compress answers themselves write it, and in a list.
    weak = ask(f"/{name}", headers={"if-none-match": f'"other", W/{small.headers["etag"]}'})
    assert weak.status_code == 304


@pytest.mark.parametrize(
    ("accepted", "is_small"),
    [
        ("gzip;q=0", False),
        ("br, GZIP ; q=0.000 , deflate", False),
        ("gzipped", False),
        ("br;q=1.0, gzip;q=0.8, *;q=0", True),
        ("gzip;q=0.01", True),
        ("deflate,gzip", True),
    ],
)
def test_compression_can_be_refused(ask, accepted, is_small):
    answer = ask("/page.css", headers={"accept-encoding": accepted})
    assert ("content-encoding" in answer.headers) == is_small


def test_script_needs_no_compiler_at_run_time():
    """The Content-Security-Policy of the server forbids it."""
    script = gzip.decompress((STATIC / "page.js.gz").read_bytes()).decode()
    assert "new Function(" not in script


def test_licences_are_served(ask):
    text = ask("/LICENSES.txt").text
    for name in ("@h5web/app 17", "react-dom 18", "three 0."):
        assert name in text


def test_notes_say_what_a_dataset_is(con, ask):
    con.create_dataset("later", shape=3, incomplete=True)
    ask = Asking(Starlette(routes=routes(Served(con))))
    assert [link["label"] for link in ask("/links", path="/later").json()] == ["incomplete"]
    assert ask("/links", path="/x").json() == []
    assert ask("/links", path="/nothing").json() == []


@pytest.mark.slow
def test_sources_give_the_page_that_is_shipped(tmp_path):
    for program in ("node", "npm"):
        require_program(program)
    web, static = tmp_path / "web", tmp_path / "dosna" / "serve" / "static"
    shutil.copytree(ROOT / "web", web, ignore=shutil.ignore_patterns("node_modules"))
    shutil.copytree(ROOT / "dosna" / "serve" / "static", static)

    def run(*command):
        return subprocess.run(command, cwd=web, capture_output=True, text=True)

    installed = run("npm", "ci", "--no-audit", "--no-fund")
    assert installed.returncode == 0, installed.stderr
    checked = run("node", "build.mjs", "--check")
    assert checked.returncode == 0, checked.stderr
    shutil.rmtree(static)
    assert run("node", "build.mjs", "--check").returncode == 1
    builds = []
    for _ in range(2):
        assert run("node", "build.mjs").returncode == 0
        builds.append({path.name: path.read_bytes() for path in static.iterdir()})
        shutil.rmtree(static)
    assert builds[0] == builds[1]
