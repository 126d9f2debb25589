"""Requests to an S3 endpoint: their clients, and when they are sent again.

boto3 finds the credentials, lists and deletes objects, and makes buckets. Objects are read and
written through obstore, a client in Rust, which costs a fifth of boto3's processor time and keeps
many requests under way in threads. Both are configured to try once: this module decides which
requests are repeated, and when. `dosna.io.pace` tells when they start, once the server has refused
some because there are too many.
"""

from __future__ import annotations

import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import boto3
import botocore.exceptions as boto
import botocore.session
import obstore
from botocore.config import Config
from botocore.loaders import create_loader
from botocore.parsers import ResponseParserError
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.exceptions import BaseError
from obstore.store import S3Store as ObstoreS3

from dosna.errors import OutcomeUnknown
from dosna.io import retry
from dosna.io.failure import CUT
from dosna.io.fork import ForkGuard
from dosna.io.pace import Pacer
from dosna.io.s3.errors import (
    Failure,
    NotS3Error,
    boto_failure,
    not_s3,
    obstore_failure,
    refusals,
    setup_error,
)
from dosna.io.s3.options import S3Options

T = TypeVar("T")

IN_FLIGHT = 16
TOKEN = "dosna-put"
"""The key in an object's own metadata for a token of its writer."""
MARK = "dosna-of"
"""The key in an object's own metadata for the mark of `Store.put`."""

_CONNECT_SECONDS = 5.0
_REGION = "us-east-1"
_TIMES_TO_ASK = 3
_ASK_SECONDS = 1.0
# botocore's data about services, read once, because that takes longer than everything else in
# making a connection.
_boto_data = create_loader()
guard = ForkGuard("S3")
"""A check for forked processes, which have none of the Rust client's threads."""


class Object(NamedTuple):
    """The answer to a GET."""

    data: memoryview
    etag: str
    token: str | None
    mark: str | None
    size: int
    """The size of the whole object in bytes."""


class S3Client:
    """A client of one endpoint, which repeats requests while that can help.

    Parameters
    ----------
    options : S3Options
        The options of the endpoint.

    Raises
    ------
    ConfigurationError
        The profile does not exist, or boto3 refuses the settings.
    dosna.errors.ConnectionError
        There are no credentials.
    """

    def __init__(self, options: S3Options) -> None:
        self.options = options
        self.timeout = options.timeout
        self.pacer = Pacer(options.timeout)
        self._asking = threading.Lock()
        self._asked = -math.inf
        self._times_to_ask = _TIMES_TO_ASK
        connect = min(_CONNECT_SECONDS, options.timeout)
        # boto3's own default also looks into the environment, while its 'default' does not.
        profile = None if options.profile_name == "default" else options.profile_name
        try:
            session, self._boto = _boto_client(options, profile, connect)
            provider = Boto3CredentialProvider(session)
        except (boto.BotoCoreError, ValueError) as error:
            raise setup_error(error, profile) from None
        self.region: str = session.region_name or _REGION
        self.endpoint: str = self._boto.meta.endpoint_url
        # obstore takes the endpoint for that of one bucket, so that one pool of connections serves
        # every bucket, as the first part of the key. The payload is left out of the signature,
        # because signing it would cost more time than everything else, and chunks have checksums
        # of their own.
        transport: Any = _transport_options(options, connect)
        self._opened: Callable[..., ObstoreS3] = partial(
            ObstoreS3,
            endpoint=self.endpoint,
            region=self.region,
            unsigned_payload=True,
            credential_provider=provider,
            client_options=transport,
            retry_config={"max_retries": 0, "retry_timeout": timedelta(days=1)},
        )
        self._objects = self._opened("any", virtual_hosted_style_request=True)
        self._buckets: dict[str, ObstoreS3] = {}

    # -- objects --------------------------------------------------------------------------

    def get(self, path: str, byte_range: tuple[int, int | None] | None = None) -> Object:
        """Return the object ``bucket/key``, or a part of its bytes; for this see `Store.get`."""
        if byte_range is None:
            return self._get(path, {})
        start, stop = byte_range
        return self._get(path, {"range": {"suffix": -start} if stop is None else (start, stop)})

    def head(self, path: str) -> Object:
        """Return the object ``bucket/key`` without its bytes."""
        return self._get(path, {"head": True})

    def _get(self, path: str, options: Any) -> Object:
        def get() -> Object:
            result = obstore.get(self._objects, path, options=options)
            data = memoryview(result.bytes())
            attributes, meta = result.attributes, result.meta
            token, mark = attributes.get(TOKEN), attributes.get(MARK)
            # Every S3 server sends an ETag, and data are not stored in it as web pages.
            if not meta["e_tag"] or (token is None and _is_page(attributes.get("Content-Type"))):
                raise not_s3()
            # obstore compares the range of the answer with the request, but not with the bytes.
            start, stop = result.range
            if "head" not in options and len(data) != stop - start:
                raise Failure(CUT)
            return Object(data, meta["e_tag"], token, mark, meta["size"])

        try:
            return self.repeat(get, path=path)
        except Failure as failure:
            if not failure.unclear:
                raise
            found = failure
        raise self._explained(path, found)

    def _explained(self, path: str, failure: Failure) -> Failure:
        """Ask for the reason of a refusal without a reason, by another request."""
        bucket, _, key = path.partition("/")
        try:
            attempt(lambda: self._boto.get_object(Bucket=bucket, Key=key, Range="bytes=0-0"))
        except Failure as other:
            if other.status == failure.status or other.code:
                return other
        return failure

    def put_once(
        self,
        path: str,
        data: bytes,
        mode: Any = "overwrite",
        token: str | None = None,
        mark: str | None = None,
        patient: float | None = None,
    ) -> str:
        """Write an object in one attempt, and return its ETag.

        Up to the time `patient`, or for `timeout` seconds, it is not an attempt if the server only
        asked for fewer requests.
        """
        attributes: Any = {k: v for k, v in ((TOKEN, token), (MARK, mark)) if v is not None}

        def put() -> str:
            result = obstore.put(
                self._objects,
                path,
                data,
                mode=mode,
                attributes=attributes,
                use_multipart=False,
            )
            return result["e_tag"] or ""

        patient = time.monotonic() + self.timeout if patient is None else patient
        return self.pacer.run(lambda: self._attempt(put, path), patient)

    def put_parts(
        self, path: str, parts: Callable[[], Iterator[bytes]], size: int, most: int
    ) -> None:
        """Write an object of many parts, which others see when all of them are there.

        Parameters
        ----------
        path : str
            The ``bucket/key``.
        parts : callable
            A function that returns the parts, from the first on at each attempt.
        size : int
            The bytes of a part, except the last.
        most : int
            The most parts under way.
        """
        self.repeat(
            lambda: obstore.put(
                self._objects, path, parts(), chunk_size=size, max_concurrency=most
            ),
            path=path,
        )

    def lost(self, path: str) -> OutcomeUnknown:
        """Return the error for a write whose outcome is unknown."""
        return OutcomeUnknown(
            f"{self.endpoint}: the answer to writing {path!r} was lost, and it may or may not "
            "have been written: read it before writing it again"
        )

    # -- lists and buckets ----------------------------------------------------------------

    def call(self, operation: str, until: float = math.inf, **arguments: Any) -> Mapping[str, Any]:
        """Make a request with boto3's client."""
        method = getattr(self._boto, operation)
        found: Mapping[str, Any] = self.repeat(lambda: method(**arguments), until)
        return found

    def delete(self, bucket: str, keys: Iterable[str], until: float = math.inf) -> None:
        """Delete up to a thousand objects, by one request.

        The answer tells which of them the server refused. These are tried again, as after an
        answer that refuses all.
        """
        left = list(keys)

        def delete() -> None:
            wanted = {"Objects": [{"Key": key} for key in left], "Quiet": True}
            answer = self._boto.delete_objects(Bucket=bucket, Delete=wanted)
            if failed := refusals(answer):
                left[:] = [key for key, _ in failed]
                key, failure = min(failed, key=lambda refusal: refusal[1].transient)
                failure.kind = f"deleting {key!r} failed"
                raise failure

        self.repeat(delete, until)

    def pages(self, bucket: str, prefix: str, delimiter: str = "") -> Iterator[Mapping[str, Any]]:
        """List the keys of a bucket, in pages of a thousand."""
        arguments: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix, "Delimiter": delimiter}
        while True:
            page = self.call("list_objects_v2", **arguments)
            yield page
            if not page.get("IsTruncated"):
                return
            arguments["ContinuationToken"] = page["NextContinuationToken"]

    def listed(self, bucket: str, prefix: str, what: str) -> Iterator[Mapping[str, Any]]:
        """List as `pages` does. If this fails, raise an error of dosna that names `what`."""
        try:
            yield from self.pages(bucket, prefix)
            return
        except Failure as failure:
            error = failure.error(f"{what} cannot be listed at {self.endpoint}: {failure}")
        raise error

    def has_below(self, bucket: str, prefix: str) -> bool:
        """Return True if the bucket has a key that begins with `prefix`, which ends with '/'.

        This takes a seventh of the processor time of a page of boto3. A page of the web in place
        of a list is taken for an empty one: write then on condition that nothing is there.
        """
        store = self._buckets.get(bucket)
        if store is None:
            store = self._opened(bucket, virtual_hosted_style_request=False)
            store = self._buckets.setdefault(bucket, store)

        def look() -> bool:
            return any(obstore.list(store, prefix, chunk_size=1))

        return self.repeat(look, path=f"{bucket}/{prefix}")

    def close(self) -> None:
        """Close the connections of boto3's client."""
        self._boto.close()

    def repeat(self, request: Callable[[], T], until: float = math.inf, path: str = "") -> T:
        """Repeat a request that is safe to repeat, until it works or fails permanently.

        The ``bucket/key`` of a request of obstore is given by `path`.
        """
        patient = min(until, time.monotonic() + self.timeout)
        return retry.repeat(
            lambda: self.pacer.run(lambda: self._attempt(request, path), patient, until),
            self.options.retries,
            until,
        )

    def _attempt(self, request: Callable[[], T], path: str) -> T:
        try:
            return attempt(request)
        except Failure as failure:
            if path and failure.busy:
                failure.pause = self._asked_pause(path)
            raise

    def _asked_pause(self, path: str) -> float | None:
        """Return the seconds for which a busy server wants no requests, or None.

        obstore does not show the headers of answers, so this is asked by a request of boto3: by
        one thread, at most once a second, and not again if the server was found not to tell.
        """
        now = time.monotonic()
        with self._asking:
            if not self._times_to_ask or now - self._asked < _ASK_SECONDS:
                return None
            self._asked = now
        bucket, _, key = path.partition("/")
        try:
            attempt(lambda: self._boto.head_object(Bucket=bucket, Key=key))
        except Failure as failure:
            if failure.busy:
                self._times_to_ask = 0 if failure.pause is None else _TIMES_TO_ASK
                return failure.pause
        self._times_to_ask = max(0, self._times_to_ask - 1)
        return None


def _boto_client(options: S3Options, profile: str | None, connect: float) -> tuple[Any, Any]:
    """Return boto3's session, which has credentials, and its client of S3."""
    core = botocore.session.Session()
    core.register_component("data_loader", _boto_data)
    session = boto3.Session(
        *(options.keys or (None, None)),
        profile_name=profile,
        region_name=options.region_name,
        botocore_session=core,
    )
    client = session.client(
        "s3",
        endpoint_url=options.endpoint_url,
        region_name=session.region_name or _REGION,
        verify=None if options.verify is True else options.verify,
        config=Config(
            connect_timeout=connect,
            read_timeout=options.timeout,
            retries={"total_max_attempts": 1},
            max_pool_connections=IN_FLIGHT,
            s3={"addressing_style": "path"},
        ),
    )
    client.meta.events.register("response-received.s3", _check_answer)
    if session.get_credentials() is None:
        raise boto.NoCredentialsError
    return session, client


def _transport_options(options: S3Options, connect: float) -> dict[str, Any]:
    """Return obstore's options of connections."""
    found: dict[str, Any] = {
        "allow_http": True,
        "allow_invalid_certificates": options.verify is False,
        "timeout": timedelta(seconds=options.timeout),
        "connect_timeout": timedelta(seconds=connect),
    }
    trusted = options.verify if isinstance(options.verify, str) else None
    trusted = trusted or os.environ.get("AWS_CA_BUNDLE") or os.environ.get("REQUESTS_CA_BUNDLE")
    if trusted:
        found["root_certificate"] = Path(trusted).read_bytes()
    return found


def attempt(request: Callable[[], T]) -> T:
    """Make a request, and raise `Failure` if it fails."""
    guard.check()
    try:
        return request()
    except (BaseError, FileNotFoundError) as error:
        found = obstore_failure(error)
    except (boto.BotoCoreError, boto.ClientError, ResponseParserError) as error:
        found = boto_failure(error)
    # Outside of the handlers, because the answers of servers can contain what was signed.
    raise found


# The root elements of S3's answers that always have a body, even if nothing was found.
_ROOTS = {
    "DeleteObjects": b"DeleteResult",
    "ListBuckets": b"ListAllMyBucketsResult",
    "ListObjectsV2": b"ListBucketResult",
}
_ROOT = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*\?>\s*)?<(?:\w+:)?([\w!]+)")


def _check_answer(event_name: str, response_dict: Any = None, **_: Any) -> None:
    """Raise NotS3Error for an answer that boto3 would take for an empty one, as a web page."""
    if response_dict is None or response_dict.get("status_code", 0) >= 300:
        return
    body, headers = response_dict.get("body"), response_dict.get("headers", {})
    found = _ROOT.match(body) if isinstance(body, bytes) else None
    root = found[1] if found else b""
    wanted = _ROOTS.get(event_name.rpartition(".")[2])
    if root != wanted if wanted else root.lower() in (b"!doctype", b"html"):
        raise NotS3Error
    if wanted is None and body and _is_page(headers.get("content-type")):
        raise NotS3Error


def _is_page(content_type: Any) -> bool:
    return str(content_type).lower().startswith(("text/html", "application/xhtml"))
