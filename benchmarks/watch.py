"""Measure the time and the memory that the loader's `watch` takes for many keys.

Run ``python benchmarks/watch.py [--keys N] [--folder PATH]``; it needs what ``run_tests.sh
--install`` installs. A server of S3's lists in this process makes up a bucket of N keys, a
thousand a page, and one of ten times fewer. A process of its own watches each once into an
inventory of SQLite, and once more when all is known. The time is compared with that of a loop
over boto3's pages of the same bucket.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(1, str(Path(__file__).resolve().parent.parent / "tests"))

from services import aws_environment
from services.s3 import make_client

ROOT = Path(__file__).resolve().parent.parent
PAGE = 1000
WATCH = """
import resource, sys, time
from dosna.loader import Config, watch
url, bucket, inventory = sys.argv[1:]
config = Config.read(environ={}, src_bucket=bucket, aws_s3_gateway=url,
                     inventory="sqlite:///" + inventory, log_level="warning")
begin = time.perf_counter()
found, _ = watch(config, once=True)
seconds = time.perf_counter() - begin
print(found, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
ITEM = (
    "<Contents><Key>run{0:04}/scan-{1:08}.h5</Key><LastModified>2026-01-01T00:00:00.000Z"
    "</LastModified><ETag>&quot;{1:032x}&quot;</ETag><Size>1048576</Size>"
    "<StorageClass>STANDARD</StorageClass></Contents>"
)


class Lists(BaseHTTPRequestHandler):
    """The lists of buckets whose names are their numbers of keys."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        count = int(asked.path.strip("/"))
        begin = int(parse_qs(asked.query).get("continuation-token", ["0"])[0])
        end = min(begin + PAGE, count)
        more = f"<NextContinuationToken>{end}</NextContinuationToken>" if end < count else ""
        items = "".join(ITEM.format(n // PAGE, n) for n in range(begin, end))
        text = (
            '<?xml version="1.0"?><ListBucketResult '
            'xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{count}</Name><KeyCount>{end - begin}</KeyCount><MaxKeys>{PAGE}</MaxKeys>"
            f"<IsTruncated>{str(end < count).lower()}</IsTruncated>{more}{items}"
            "</ListBucketResult>"
        )
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Lists) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--folder", help="where the inventory is; a temporary one by default")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(dir=options.folder) as folder,
        aws_environment("access", "secret"),
        serve() as url,
    ):
        client = make_client(url)
        for count in (options.keys // 10, options.keys):
            begin = time.perf_counter()
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=str(count))
            assert sum(len(page["Contents"]) for page in pages) == count
            own = time.perf_counter() - begin
            for state in ("new", "known"):
                words = [sys.executable, "-c", WATCH, url, str(count), f"{folder}/{count}.sqlite"]
                environment = {**os.environ, "PYTHONPATH": str(ROOT)}
                done = subprocess.run(words, stdout=subprocess.PIPE, check=True, env=environment)
                found, seconds, memory = map(float, done.stdout.split())
                assert found == (count if state == "new" else 0)
                print(
                    f"{count} keys, {state}: {seconds:.1f} s, {seconds / own:.2f} x boto3's pages "
                    f"({own:.1f} s); peak {memory:.0f} MiB",
                    flush=True,
                )


if __name__ == "__main__":
    main()
