"""Buckets of S3, and of other stores with the S3 protocol."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dosna.errors import ConfigurationError, DosnaError, SourceNotFoundError
from dosna.io.failure import Failure
from dosna.io.files import disk
from dosna.io.s3.opening import open_client
from dosna.io.s3.options import S3Options
from dosna.pilot.data.checksums import Parts
from dosna.pilot.data.files import Tell
from dosna.pilot.data.places import Place, PlaceUrl, Prepared

if TYPE_CHECKING:
    from dosna.io.s3.client import S3Client

__all__ = ["S3Place"]

_ENDPOINTS = {"gs": "https://storage.googleapis.com"}
_BATCH = 1000


class S3Place(Place):
    """A bucket, or a prefix in it; the bucket is created if it does not exist.

    Parameters
    ----------
    url : PlaceUrl
        ``s3://bucket/prefix``, or ``walrus://host/bucket/prefix``.
    fields : mapping
        The fields of a `PilotDataDescription`.
    """

    def __init__(self, url: PlaceUrl, fields: Mapping[str, Any]) -> None:
        super().__init__(str(url))
        endpoint = fields.get("endpoint_url") or _ENDPOINTS.get(url.scheme)
        path = f"{url.host}{url.path}"
        if url.scheme in ("walrus", "swift"):
            path = url.path.strip("/")
            endpoint = endpoint or f"https://{url.host}" + (f":{url.port}" if url.port else "")
        self._bucket, _, self._prefix = path.strip("/").partition("/")
        if not self._bucket:
            raise ConfigurationError(f"{url} names no bucket: write {url.scheme}://…/BUCKET")
        keys = tuple(fields.get(name) or "" for name in ("access_key_id", "secret_access_key"))
        token = fields.get("session_token")
        given = {
            "endpoint_url": endpoint,
            "region_name": fields.get("region"),
            "keys": (*keys, token) if token else keys if all(keys) else None,
            **(fields.get("options") or {}),
        }
        self._options = S3Options(**{name: value for name, value in given.items() if value})
        self._lock = threading.Lock()
        self._open: S3Client | None = None
        self._has_bucket = False

    def _client(self) -> S3Client:
        with self._lock:
            if self._open is None:
                self._open = open_client(self._options, self.shown)
            return self._open

    def _key(self, path: str) -> str:
        return "/".join(filter(None, (self._prefix, path)))

    @contextmanager
    def _doing(self, what: str) -> Iterator[None]:
        """Convert failures of requests, outside of their handler."""
        found: DosnaError
        try:
            yield
            return
        except Failure as failure:
            text = f"{what} at {self.shown} failed: {failure}"
            absent = failure.status == 404
            found = SourceNotFoundError(text) if absent else failure.error(text)
        raise found

    def check(self) -> None:
        if self._has_bucket:
            return
        with self._doing(f"making the bucket {self._bucket}"):
            try:
                self._client().call("head_bucket", Bucket=self._bucket)
            except Failure as failure:
                if failure.status != 404:
                    raise
                self._client().call("create_bucket", Bucket=self._bucket)
        self._has_bucket = True

    def size(self, path: str) -> int:
        with self._doing(f"looking for {path}"):
            return self._client().head(f"{self._bucket}/{self._key(path)}").size

    def download(self, path: str, target: str, tell: Tell | None = None) -> str:
        client, parts = self._client(), Parts()
        from dosna.io.s3.wholefiles import download

        with self._doing(f"reading {path}"), disk(f"write {target}"):
            download(client, f"{self._bucket}/{self._key(path)}", target, tell, parts.see)
        return parts.text()

    def prepare(self, source: str, path: str, tell: Tell | None = None) -> Prepared:
        client, parts = self._client(), Parts()
        from dosna.io.s3.wholefiles import upload

        self.check()
        with self._doing(f"writing {path}"), disk(f"read {source}"):
            try:
                upload(client, source, f"{self._bucket}/{self._key(path)}", tell, parts.see)
            except Failure:
                self._abort(self._key(path))
                raise
        return replace(self.named(path), checksum=parts.text())

    def remove(self, path: str) -> None:
        key = self._key(path)
        with self._doing(f"removing {path}"):
            client = self._client()
            found = [
                one["Key"]
                for page in client.pages(self._bucket, key)
                for one in page.get("Contents", ())
                if _is_below(one["Key"], key)
            ]
            for start in range(0, len(found), _BATCH):
                client.delete(self._bucket, found[start : start + _BATCH])
            self._abort(key)

    def _abort(self, key: str) -> None:
        """Remove the parts of unfinished uploads, which are invisible but occupy space."""
        try:
            page = self._client().call("list_multipart_uploads", Bucket=self._bucket, Prefix=key)
            for one in page.get("Uploads", ()):
                if not _is_below(one["Key"], key):
                    continue  # that of another file, whose name begins alike
                names = {"Key": one["Key"], "UploadId": one["UploadId"]}
                self._client().call("abort_multipart_upload", Bucket=self._bucket, **names)
        except Failure:
            pass  # not every server can list uploads

    def close(self) -> None:
        with self._lock:
            if self._open is not None:
                self._open.close()
            self._open = None


def _is_below(key: str, other: str) -> bool:
    return key == other or key.startswith(f"{other}/")
