"""Sources elsewhere are copied by the service, for the process of a selection has no network."""

from __future__ import annotations

import functools
import json
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from services.s3 import make_bucket, make_client
from support import require

ak, uproot = require("awkward"), require("uproot")
require("pyarrow")
require("httpx")

from dosna.delivery.transform import Limits, TransformRequest, running, transform  # noqa: E402
from dosna.delivery.transform.client import drop_jobs, permit_jobs  # noqa: E402
from dosna.errors import (  # noqa: E402
    LimitError,
    MissingDependencyError,
    SourceError,
    SourceNotFoundError,
    WorkerError,
)
from dosna.io.s3.options import S3Options  # noqa: E402

SELECTION = json.dumps([{"treename": "events", "filter_name": "MET_px"}])


@pytest.fixture
def events():
    return require("skhep_testdata").data_path("uproot-HZZ.root")


@pytest.fixture
def server(tmp_path, events):
    folder = tmp_path / "served"
    folder.mkdir()
    shutil.copy(events, folder / "events.root")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *given):
            pass

        def do_GET(self):
            if self.path == "/elsewhere.root":
                self.send_response(302)
                self.send_header("Location", "/events.root")
                self.end_headers()
            else:
                super().do_GET()

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{made.server_port}"
        made.shutdown()
        thread.join()


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def run(out, source, **more):
    return transform(
        TransformRequest(source, "uproot-raw", SELECTION, "parquet", str(out), "result", **more)
    )


def check(result, events):
    with uproot.open(events) as file:
        expected = file["events/MET_px"].array()
    assert ak.array_equal(ak.from_parquet(result.path).MET_px, expected)


def test_http_and_files(out, server, events):
    check(run(out, f"{server}/events.root"), events)
    check(run(out, f"file://{events}"), events)
    assert [one.name for one in out.iterdir()] == ["result"]


def test_errors_name_the_source(out, server, tmp_path):
    with pytest.raises(SourceNotFoundError, match="none"):
        run(out, f"{server}/none.root")
    with pytest.raises(SourceError, match="redirects"):
        run(out, f"{server}/elsewhere.root")
    with pytest.raises(SourceError, match="127"):
        run(out, "http://127.0.0.1:1/events.root")
    with pytest.raises((SourceError, MissingDependencyError), match="unheard"):
        run(out, "unheard://server/events.root")
    with pytest.raises(LimitError, match="seconds"):
        run(out, f"{server}/events.root", limits=Limits(seconds=1e-9))
    with pytest.raises(LimitError, match="1000 B"):
        run(out, f"{server}/events.root", limits=Limits(disk=1000))
    with pytest.raises(SourceNotFoundError, match="file"):
        run(out, str(tmp_path))
    assert list(out.iterdir()) == []


def replaced(path, by):
    path.rename(path.with_name(f"old-{path.name}"))
    path.symlink_to(by)


@pytest.mark.parametrize("what", ["file", "folder"])
@pytest.mark.parametrize("when", ["before it is staged", "before it is opened"])
def test_sources_replaced_by_links_are_refused(tmp_path, out, events, monkeypatch, what, when):
    served, others = tmp_path / "served", tmp_path / "others"
    for folder in (served / "a", others):
        folder.mkdir(parents=True)
        shutil.copy(events, folder / "events.root")
    source = served / "a" / "events.root"
    link = source if what == "file" else source.parent
    to = others / "events.root" if what == "file" else others
    if when == "before it is opened":
        staged = running.staged

        def late(request, folder):
            path = staged(request, folder)
            replaced(link, to)
            return path

        monkeypatch.setattr(running, "staged", late)
    else:
        replaced(link, to)
    with pytest.raises(SourceError, match="replaced"):
        run(out, str(source), within=(str(served),))
    assert list(out.iterdir()) == []


def test_links_within_what_is_served_are_followed(tmp_path, out, events):
    served = tmp_path / "served"
    served.mkdir()
    shutil.copy(events, served / "events.root")
    (served / "link.root").symlink_to("events.root")
    check(run(out, str(served / "link.root"), within=(str(tmp_path / "x"), str(served))), events)


def test_copies_for_nobody_end(out, server):
    drop_jobs(str(out))
    try:
        with pytest.raises(WorkerError, match="deleted"):
            run(out, f"{server}/events.root")
    finally:
        permit_jobs(str(out))
    assert list(out.iterdir()) == []


@pytest.mark.usefixtures("_any_keys")
def test_s3(out, moto_url, events):
    require("boto3")
    client = make_client(moto_url)
    bucket = make_bucket(moto_url)
    with open(events, "rb") as file:
        client.put_object(Bucket=bucket, Key="a/events.root", Body=file)
    client.close()
    options = S3Options(endpoint_url=moto_url)
    check(run(out, f"s3://{bucket}/a/events.root", s3=options), events)
    with pytest.raises(SourceNotFoundError, match="none"):
        run(out, f"s3://{bucket}/none.root", s3=options)
