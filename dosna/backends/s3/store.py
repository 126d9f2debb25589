"""A store of bytes in S3 objects, with conditional writes where the server has them."""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from dosna.backends.stores.store import (
    ABSENT,
    Beside,
    Blob,
    ByteRange,
    Sized,
    Store,
    VersionConflict,
)
from dosna.errors import DatasetNotFoundError, DosnaError
from dosna.io.parallel import Workers
from dosna.io.retry import attempts
from dosna.io.s3.client import IN_FLIGHT, S3Client, guard
from dosna.io.s3.errors import Failure

T = TypeVar("T")

_BYTES_IN_FLIGHT = 64 << 20
_NEAR = 50
"""The most names between a dataset's and that of the document of its group, for one look."""


class Conditions(NamedTuple):
    """The support of a server for conditional puts, and whether it takes ETags without quotes."""

    supported: bool
    bare: bool = False


class S3Store(Store):
    """The objects of one bucket, or of many.

    Parameters
    ----------
    client : S3Client
        The client that makes the requests.
    bucket : str, optional
        The bucket of all keys, which are below `prefix` in it. Without it each key begins with
        the name of its bucket.
    prefix : str
        The prefix of all keys: empty, or ending in '/'.
    known : dict
        The known properties of servers, by endpoint. Stores in other processes may be given it.
    writable : bool
        Whether an object may be written to learn these properties.
    """

    shared_between_processes = True
    schedules_requests = True
    deletes_at_once = 1000

    def __init__(
        self,
        client: S3Client,
        bucket: str | None,
        prefix: str,
        known: dict[str, Conditions],
        writable: bool = True,
    ) -> None:
        self.client = client
        self._bucket = bucket
        self._prefix = prefix
        self._known = known
        self._learning = threading.Lock()
        self._writable = writable
        self._seen = bucket
        self._workers = Workers("dosna-s3", IN_FLIGHT, _BYTES_IN_FLIGHT, blocking=True)

    def get(self, key: str, byte_range: ByteRange | None = None) -> Blob | None:
        path = self._path(key)
        try:
            try:
                found = self.client.get(path, byte_range)
            except Failure as failure:
                if failure.status != 416:
                    raise
                # The server has no byte in that range.
                head = self.client.head(path)
                return Blob(b"", head.etag, head.mark, head.size)
        except Failure as failure:
            if failure.code == "NoSuchKey" or self._is_gone(failure):
                return None
            error = self.error(failure, f"reading {path!r}")
        else:
            return Blob(found.data, found.etag, found.mark, found.size)
        raise error

    def put(self, key: str, data: bytes, expected: str | None = None) -> str | None:
        return self.put_marked(key, data, expected, None)

    def put_marked(
        self, key: str, data: bytes, expected: str | None, mark: str | None
    ) -> str | None:
        path = self._path(key)
        try:
            if expected is None:
                return self._put(path, data, None, mark)
            if (conditions := self._conditions(path)).supported:
                return self._put(path, data, expected, mark, conditions.bare)
            found = self.get(key)
            if (ABSENT if found is None else found.version) != expected:
                raise VersionConflict(f"{path!r} no longer has version {expected!r}")
            return self._put(path, data, None, mark)
        except Failure as failure:
            error: DosnaError = self.error(failure, f"writing {path!r}")
            if self._is_gone(failure):
                error = DatasetNotFoundError(f"the bucket of {path!r} does not exist any more")
        raise error

    def _put(
        self,
        path: str,
        data: bytes,
        expected: str | None,
        mark: str | None = None,
        bare: bool = False,
    ) -> str | None:
        """Put an object, and return its ETag if an answer has told it.

        Its token tells whether an attempt without an answer was done.
        """
        token = secrets.token_hex(16)
        mode: Any = "overwrite"
        if expected is not None:
            etag = expected.strip('"') if bare else expected
            mode = "create" if expected == ABSENT else {"e_tag": etag}
        unknown = False
        patient = time.monotonic() + self.client.timeout
        for last in attempts(self.client.options.retries):
            try:
                return self.client.put_once(path, data, mode, token, mark, patient) or None
            except Failure as failure:
                found = failure
            if found.conflict:
                # The conflict may be with an own attempt whose answer was lost.
                if unknown and self._is_put_by(path, token):
                    return None
                raise VersionConflict(f"{path!r} no longer has version {expected!r}")
            unknown = unknown or found.may_be_done
            if last or not found.transient:
                break
        if not unknown:
            raise found
        if not self._is_put_by(path, token):
            raise self.client.lost(path)
        return None

    def _is_put_by(self, path: str, token: str) -> bool:
        try:
            return self.client.head(path).token == token
        except Failure as failure:
            if failure.status == 404:
                return False
        raise self.client.lost(path)

    def delete(self, key: str) -> bool:
        # The answer of S3 to a deletion does not tell whether the object existed.
        if self.get(key, (0, 1)) is None:
            return False
        self.delete_many([key])
        return True

    def delete_many(self, keys: Iterable[str], until: float = math.inf) -> None:
        paths = map(self._path, keys)
        while page := list(islice(paths, self.deletes_at_once)):
            by_bucket: dict[str, list[str]] = {}
            for bucket, _, key in (path.partition("/") for path in page):
                by_bucket.setdefault(bucket, []).append(key)
            for bucket, found in by_bucket.items():
                self._delete(bucket, found, until)

    def _delete(self, bucket: str, keys: list[str], until: float) -> None:
        try:
            self.client.delete(bucket, keys, until)
            return
        except Failure as failure:
            error = self.error(failure, f"delete_objects of {bucket!r}")
        raise error

    def list(self, prefix: str) -> Iterator[str]:
        for bucket, page in self._pages(prefix):
            for item in page.get("Contents", []):
                yield self._key(f"{bucket}/{item['Key']}")

    def pages(self, prefix: str) -> Iterator[Sized]:
        for bucket, page in self._pages(prefix):
            items = page.get("Contents", ())
            yield [(self._key(f"{bucket}/{item['Key']}"), int(item["Size"])) for item in items]

    def folders(self, prefix: str) -> Iterator[str]:
        for bucket, page in self._pages(prefix, "/"):
            for item in page.get("CommonPrefixes", []):
                yield self._key(f"{bucket}/{item['Prefix']}")[len(prefix) : -1]

    def beside(self, folder: str, part: str, document: str = "") -> Beside | None:
        bucket, _, prefix = self._path(folder).partition("/")
        if not document:
            try:
                return Beside(self.client.has_below(bucket, f"{prefix}{part}/"), None)
            except Failure as failure:
                failed = failure
            if failed.transient:
                raise self.error(failed, f"listing {bucket + '/' + prefix!r}")
            # Foreign keys that obstore cannot read, or boto3 tells what is wrong.
        found = self.call(
            "list_objects_v2",
            Bucket=bucket,
            Prefix=prefix,
            Delimiter="/",
            StartAfter=f"{prefix}{part}.~",  # 'x/' follows 'x-1' and 'x.1'
            MaxKeys=_NEAR if document else 1,
        )
        below = [item["Prefix"] for item in found.get("CommonPrefixes", ())]
        versions = {item["Key"]: item["ETag"] for item in found.get("Contents", ())}
        last = max([*below, *versions], default="")
        taken = f"{prefix}{part}/" in below
        if found.get("IsTruncated") and not taken and last <= f"{prefix}{part}/":
            return None
        unseen = None if found.get("IsTruncated") else ABSENT
        return Beside(taken, versions.get(prefix + document, unseen))

    def _pages(self, prefix: str, delimiter: str = "") -> Iterator[tuple[str, Any]]:
        bucket, _, rest = self._path(prefix).partition("/")
        try:
            for page in self.client.pages(bucket, rest, delimiter):
                yield bucket, page
            return
        except Failure as failure:
            if self._is_gone(failure):
                return
            error = self.error(failure, f"listing {bucket + '/' + rest!r}")
        raise error

    def call(self, operation: str, until: float = math.inf, **arguments: Any) -> Any:
        """Make a request with boto3's client; failures are raised as errors of dosna."""
        try:
            return self.client.call(operation, until, **arguments)
        except Failure as failure:
            error = self.error(failure, f"{operation} of {arguments.get('Bucket', 'all')!r}")
        raise error

    def for_each(self, work: Callable[[T], object], items: Iterable[T], nbytes: int = 0) -> None:
        guard.check()  # The threads of the workers do not survive a fork either.
        self._workers.for_each(work, items, nbytes)

    def close(self) -> None:
        self._workers.close()
        self.client.close()

    # -- conditions -----------------------------------------------------------------------

    @property
    def conditional_puts(self) -> bool:  # type: ignore[override]
        """True if the server honours conditions, which is tried once."""
        known = self._known.get(self.client.endpoint)
        if known is None and (not self._writable or self._seen is None):
            return False
        try:
            return self._conditions(f"{self._seen}/").supported
        except Failure as failure:
            if self._is_gone(failure):
                return True  # It is the bucket of another dataset: a writer tries in its own.
            error = self.error(failure, "asking for conditional writes")
        raise error

    def _conditions(self, path: str) -> Conditions:
        endpoint = self.client.endpoint
        with self._learning:
            if endpoint not in self._known:
                bucket = path.partition("/")[0]
                self._known[endpoint] = self._try_conditions(
                    f"{bucket}/{self._prefix}.dosna-{secrets.token_hex(8)}"
                )
        return self._known[endpoint]

    def _try_conditions(self, path: str) -> Conditions:
        def put(expected: str, bare: bool = False) -> bool:
            """Return whether the server wrote, and did not refuse."""
            try:
                self._put(path, b"", expected, bare=bare)
            except VersionConflict:
                return False
            except Failure as failure:
                if failure.status != 501:
                    raise
                return False
            return True

        # A server may accept a condition and ignore it: only a refusal shows that it does not.
        etag = self._put(path, b"", None) or self.client.head(path).etag
        try:
            if put(ABSENT) or put('"' + "0" * 32 + '"'):
                return Conditions(False)
            for bare in (False, True):
                if put(etag, bare):
                    return Conditions(True, bare)
            return Conditions(False)
        finally:
            bucket, _, key = path.partition("/")
            self.client.call("delete_object", Bucket=bucket, Key=key)

    # -- names and errors -----------------------------------------------------------------

    def _path(self, key: str) -> str:
        if self._bucket is None:
            self._seen = key.partition("/")[0]
            return key
        return f"{self._bucket}/{self._prefix}{key}"

    def _key(self, path: str) -> str:
        return path if self._bucket is None else path[len(self._bucket) + 1 + len(self._prefix) :]

    def _is_gone(self, failure: Failure) -> bool:
        """Return True if the dataset has its own bucket and this does not exist."""
        return failure.code == "NoSuchBucket" and self._bucket is None

    def error(self, failure: Failure, what: str) -> DosnaError:
        """Return the error to raise for a failure."""
        return failure.error(f"{self.client.endpoint}: {what} failed: {failure}")
