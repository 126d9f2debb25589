"""The documentation site: links between the repository and the site, nothing from other hosts.

`sh run_tests.sh --install` and CI build it strictly, which follows every link.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from support import require

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def hooks():
    require("mkdocs")
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "docs/site_hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("link", "page", "name"),
    [
        ("s3.md", "index.md", "s3.md"),
        ("../s3.md", "tutorials/events.md", "s3.md"),
        ("../README.md", "gallery.md", "index.md"),
        ("docs/design/", "CONTRIBUTING.md", "design/README.md"),
        ("../benchmarks/README.md#ceph", "ceph.md", "benchmarks/README.md"),
        ("../examples/loader/", "loader.md", "examples/loader/README.md"),
        ("../examples/mpi_demo.py", "mpi.md", "examples/mpi_demo.py.txt"),
        ("chunk.py", "dosna/backends/README.md", "dosna/backends/chunk.py.txt"),
        ("LICENSE", "CONTRIBUTING.md", "LICENSE.txt"),
        ("speed.svg", "beside.md", "speed.svg"),
    ],
)
def test_links_of_the_repository_are_links_of_the_site(hooks, link, page, name):
    assert hooks.find_target(link.partition("#")[0], page)[0] == name


@pytest.mark.parametrize(
    ("html", "loads"),
    [
        ('<script src="https://example.org/a.js"></script>', True),
        ("<script src=//example.org/a.js></script>", True),
        ('<link rel="stylesheet" href="https://fonts.example.org/css">', True),
        ('<img alt="x" src="http://example.org/badge.svg">', True),
        ('<a href="https://example.org/">elsewhere</a>', False),
        ('<script src="assets/a.js"></script><img src="speed.svg">', False),
        ('<link rel="canonical" href="https://example.org/">', False),
    ],
)
def test_pages_that_load_from_other_hosts_are_noticed(hooks, html, loads):
    assert bool(hooks.LOADED.search(html)) == loads
