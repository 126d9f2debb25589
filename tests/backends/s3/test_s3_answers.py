"""Answers that are not S3's, and what S3 says of a refusal: each on every way to a server."""

from __future__ import annotations

import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from services import aws_environment
from services.s3 import make_bucket
from support import require

import dosna as dn
from dosna import errors

require("boto3")
require("obstore")

from dosna.io.s3.client import S3Client  # noqa: E402
from dosna.io.s3.opening import open_client  # noqa: E402
from dosna.io.s3.options import S3Options  # noqa: E402
from dosna.io.s3file import S3File  # noqa: E402


def error(code, more=""):
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message/>{more}</Error>'


PAGE = "<html><body>Please log in</body></html>"
TYPE = "Content-Type"
# Status, headers, body.
PAGES = {
    "page": (200, {TYPE: "text/html"}, PAGE),
    "doctype": (200, {TYPE: "text/html; charset=utf-8"}, "<!DOCTYPE html>" + PAGE),
    "not XML": (200, {TYPE: "text/html"}, "<!doctype html><p>unclosed<br>"),
    "with an ETag": (200, {TYPE: "text/html", "ETag": '"5f-abc"'}, PAGE),
    "without a type": (200, {}, PAGE),
    "text": (200, {TYPE: "text/plain"}, "welcome"),
    "nothing": (200, {}, ""),
    "JSON": (200, {TYPE: "application/json"}, '{"error": "no such route"}'),
}
# And what the message says.
REFUSALS = {
    "clock": ((403, {}, error("RequestTimeTooSkewed")), "RequestTimeTooSkewed", "clock"),
    "token": ((400, {}, error("ExpiredToken")), "ExpiredToken", "expired"),
    "signature": (
        (403, {}, error("SignatureDoesNotMatch")),
        "SignatureDoesNotMatch",
        "secret key",
    ),
    "region": (
        (
            400,
            {"x-amz-bucket-region": "eu-west-1"},
            error("AuthorizationHeaderMalformed", more="<Region>eu-west-1</Region>"),
        ),
        "AuthorizationHeaderMalformed",
        "region_name='eu-west-1'",
    ),
    "redirect": (
        (
            301,
            {"x-amz-bucket-region": "eu-west-1"},
            error("PermanentRedirect", more="<Endpoint>b.s3.eu-west-1.amazonaws.com</Endpoint>"),
        ),
        "PermanentRedirect",
        "region_name='eu-west-1'",
    ),
    "archived": ((403, {}, error("InvalidObjectState")), "InvalidObjectState", "denied"),
}


@pytest.fixture
def server():
    """Give a server that answers every request by its ``answer``."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do(self):
            self.rfile.read(int(self.headers.get("content-length") or 0))
            answers = self.server.answers
            status, headers, body = answers.pop(0) if answers else self.server.answer
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body.encode())

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        made.url = f"http://127.0.0.1:{made.server_address[1]}"
        made.answers = []  # before all others
        threading.Thread(target=made.serve_forever, daemon=True).start()
        with aws_environment("an-access-key", "a-secret-key"):
            yield made
        made.shutdown()


LISTING = (
    "<ListBucketResult><Name>bucket</Name><KeyCount>0</KeyCount><MaxKeys>1</MaxKeys>"
    "<IsTruncated>false</IsTruncated></ListBucketResult>"
)
BUCKETS = "<ListAllMyBucketsResult><Buckets/></ListAllMyBucketsResult>"


def ways(server, *, one):
    """Connect while the server is sane; give all that can be asked of it then, by name."""
    server.answer = (200, {TYPE: "application/xml"}, LISTING if one else BUCKETS)
    options = {"bucket": "bucket"} if one else {}
    con = dn.Connection(
        "c", backend="s3", endpoint_url=server.url, timeout=60, retries=0, engine="cpu", **options
    )
    con.connect()
    name = f"a{secrets.token_hex(4)}"
    made = {
        "list": lambda: list(con),
        "len": lambda: len(con),
        "in": lambda: name in con,
        "open": lambda: con[name],
        "create": lambda: con.create_dataset(name, data=[1, 2]),
        "delete": lambda: con.del_dataset(name),
        "get": lambda: con.instance.store.get(f"{name}/c/0"),
        "put": lambda: con.instance.store.put(f"{name}/c/0", b"x"),
        "delete objects": lambda: con.instance.store.delete_many([f"{name}/c/0"]),
        "list objects": lambda: list(con.instance.store.list(name)),
        "connect": lambda: dn.Connection(
            "d", backend="s3", endpoint_url=server.url, timeout=60, retries=0, **options
        ).connect(),
    }
    if one:
        made |= {
            "names in": lambda: list(con.names_in("g")),
            "group": lambda: con.get_group_attrs("g"),
            "set group": lambda: con.set_group_attrs("g", {"a": 1}),
        }
    return con, made


def sources_ways(server):
    options = S3Options(server.url, retries=0, timeout=60)

    def ingest(url, **more):
        with dn.Connection("answers", backend="ram") as con:
            return con.ingest(url, endpoint_url=server.url, **more)

    def link(url):
        with dn.Connection("answers", backend="ram") as con:
            return con.link(url, "x", endpoint_url=server.url)

    return {
        "size": lambda: S3File("s3://bucket/x.h5", options).size,
        "fingerprint": lambda: S3File("s3://bucket/x.h5", options).fingerprint(),
        "ingest h5": lambda: ingest("s3://bucket/x.h5"),
        "ingest zarr": lambda: ingest("s3://bucket/x.zarr"),
        "link": lambda: link("s3://bucket/x.h5"),
        "listing": lambda: list(open_client(options, "x").listed("bucket", "", "it")),
    }


def failures(ways):
    """Give the error of each; what works is an AssertionError."""
    found = {}
    for what, use in ways.items():
        with pytest.raises(errors.DosnaError) as caught:
            print(f"{what} gives {use()}")
        found[what] = caught.value
    return found


@pytest.mark.parametrize("one", [True, False], ids=["one bucket", "buckets"])
@pytest.mark.parametrize("answer", PAGES.values(), ids=PAGES)
def test_what_is_not_s3s_is_never_empty(server, answer, one):
    con, asked = ways(server, one=one)
    server.answer = answer
    if "ETag" in answer[1]:
        del asked["put"]  # Of a PUT an ETag is all that S3 answers.
    for what, failed in failures(asked).items():
        assert isinstance(failed, (errors.ConnectionError, errors.StorageError)), what
        assert "S3 server" in str(failed), what
    server.answer = (200, {}, "")
    con.disconnect()


@pytest.mark.parametrize("answer", PAGES.values(), ids=PAGES)
def test_no_source_takes_a_page_for_data(server, answer):
    require("h5py")
    require("zarr")
    server.answer = answer
    for what, failed in failures(sources_ways(server)).items():
        assert "S3 server" in str(failed), what


@pytest.mark.parametrize("kind", REFUSALS)
def test_why_s3_refuses_reaches_the_message(server, kind):
    require("h5py")
    require("zarr")
    answer, code, advice = REFUSALS[kind]
    con, asked = ways(server, one=True)
    server.answer = answer
    for what, failed in failures(asked | sources_ways(server)).items():
        assert code in str(failed), what
        # A PUT that is redirected is not done by anybody; a dataset of one chunk begins with one.
        unknown = kind == "redirect" and what in ("put", "create")
        assert advice in str(failed) or unknown, what
    con.disconnect()


@pytest.mark.parametrize("status", [404, 403])
def test_a_web_servers_404_is_not_a_missing_object(server, status):
    server.answer = (status, {TYPE: "text/html"}, PAGE)
    for what, failed in failures(sources_ways(server)).items():
        assert not isinstance(failed, errors.SourceNotFoundError), what
        assert str(status) in str(failed), what
    server.answer = (404, {}, error("NoSuchKey"))
    with pytest.raises(errors.SourceNotFoundError):
        print(S3File("s3://bucket/x.h5", S3Options(server.url, retries=0)).size)


def test_https_to_a_server_of_plain_http(server):
    server.answer = (200, {}, "")
    url = server.url.replace("http:", "https:")
    con = dn.Connection("c", backend="s3", bucket="bucket", endpoint_url=url, retries=0)
    with pytest.raises(errors.ConnectionError, match="http://"):
        con.connect()
    with pytest.raises(errors.ConnectionError, match="http://"):
        print(S3File("s3://bucket/x.h5", S3Options(url, retries=0)).size)


def test_the_loader_takes_no_page_for_an_empty_bucket(server, tmp_path, monkeypatch):
    require("sqlalchemy")
    from dosna.loader.bucket import open_bucket
    from dosna.loader.config import Config

    config = Config(src_bucket="bucket", aws_s3_gateway=server.url, target="ram:x")
    bucket = open_bucket(config)
    for answer in PAGES.values():
        server.answer = answer
        with pytest.raises(errors.DosnaError, match="S3 server"):
            print(list(bucket.pages()))
        with pytest.raises(errors.DosnaError, match="S3 server"):
            print(bucket.open("x.h5", 100))


@pytest.mark.usefixtures("_any_keys")
def test_what_others_store_is_read_whatever_its_type(moto_url):
    """Only a web page without dosna's own metadata is taken for one."""
    bucket = make_bucket(moto_url)
    client = S3Client(S3Options(moto_url, timeout=60, retries=0))
    for type_ in ("application/json", "binary/octet-stream", "text/plain", ""):
        client.call("put_object", Bucket=bucket, Key="x", Body=b"data", ContentType=type_)
        assert bytes(client.get(f"{bucket}/x").data) == b"data"
    client.close()
    with dn.Connection("c", backend="s3", bucket=bucket, endpoint_url=moto_url) as con:
        con.create_dataset("page.html/index.html", data=np.arange(4))
        assert con["page.html/index.html"][...].tolist() == [0, 1, 2, 3]


def test_no_failure_of_a_client_escapes_bare(server):
    """A range beyond the end of an object, which is gone a moment later, or then refused."""
    con, _ = ways(server, one=True)
    beyond = (416, {}, error("InvalidRange"))
    server.answers = [beyond, (404, {}, ""), (404, {}, error("NoSuchKey"))]
    assert con.instance.store.get("x", (5, 6)) is None
    server.answers = [beyond, (403, {}, ""), (403, {}, error("AccessDenied"))]
    with pytest.raises(errors.StorageError, match="AccessDenied"):
        print(con.instance.store.get("x", (5, 6)))
    con.disconnect()
