"""Datasets in S3: each in a bucket of its own, or all of them in one bucket.

Without `bucket`, a dataset is a bucket and each chunk is an object in it. The bucket has the
dataset's name, made legal by `bucket_name`. The name itself is stored in the metadata, to tell
apart two names that give the same bucket name.

With `bucket`, a dataset is the objects whose keys begin with ``<connection name>/<dataset>/`` in
that bucket, which has to exist.

This module maps a dataset to a bucket or a prefix. `dosna.backends.s3.store` is the store of
bytes below it, with conditional writes and many requests under way. `dosna.io.s3.client` makes a
request, and repeats it if necessary. `dosna.io.s3.errors` tells what the failure of a request
means.
"""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Iterator
from itertools import islice
from typing import Any

from dosna.backends.base import Backend, BackendConnection, BackendDataset
from dosna.backends.s3.store import Conditions, S3Store
from dosna.backends.stores.connection import (
    ABSENT,
    Blob,
    Store,
    StoreConnection,
    StoreDataset,
    VersionConflict,
)
from dosna.core.metadata import DatasetMetadata
from dosna.core.names import check_name, check_nesting, parents
from dosna.errors import (
    ConfigurationError,
    ConnectionError,
    DatasetExistsError,
    DatasetNameError,
    DatasetNotFoundError,
    FormatError,
    StorageError,
)
from dosna.io.s3.client import S3Client
from dosna.io.s3.errors import Failure
from dosna.io.s3.options import S3Options

_MOST_ATTEMPTS = 10
_DIGITS = 8


def bucket_name(name: str) -> str:
    """Return a name for a dataset's bucket that is legal by AWS's rules.

    A legal name stays as it is. Otherwise letters become lower case, and every character that is
    not an ASCII letter, a digit, '.' or '-' becomes '-'. A name that is too short is made longer.
    One that is too long is cut, and ends in a part of the SHA-256 of the original name.

    Parameters
    ----------
    name : str
        The name of the dataset.

    Returns
    -------
    str
        The name of the bucket, of 3 to 63 characters.
    """
    legal = re.sub(r"[^a-z0-9.-]", "-", name.lower())
    legal = re.sub(r"\.{2,}|\.(?=-)|(?<=-)\.", "-", legal)
    legal = re.sub(r"^[^a-z0-9]+|[^a-z0-9]+$", "", legal)
    if re.fullmatch(r"\d+\.\d+\.\d+\.\d+", legal):
        legal = legal.replace(".", "-")
    if re.match(r"xn--|sthree-|amzn-s3-demo-", legal):
        legal = "dosna-" + legal
    if re.search(r"-s3alias$|--ol-s3$|\.mrap$|--x-s3$|--table-s3$", legal) or len(legal) < 3:
        legal += "-dosna" if legal else "dosna"
    if len(legal) > 63:
        digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGITS]
        legal = legal[: 62 - _DIGITS].rstrip(".-") + "-" + digest
    return legal


class OtherNameError(DatasetNotFoundError):
    """The error that a bucket belongs to another dataset, whose name gives the same bucket."""


class S3Connection(StoreConnection):
    """A connection to an S3 server.

    Credentials are taken from the places where boto3 finds them: the environment,
    ``~/.aws/credentials`` or a role.

    Parameters
    ----------
    name : str
        The prefix of all keys, with `bucket`; without it, the name has no effect.
    endpoint_url : str, optional
        The URL of the server, such as ``https://s3.example.org``. The default is boto3's, or
        Amazon's.
    verify : bool or str
        Whether the server's certificate is verified, or the path of a PEM file with the
        authorities to trust.
    profile_name : str
        The name of a section of ``~/.aws/credentials``.
    bucket : str, optional
        An existing bucket for all datasets. Without it each dataset is a bucket of its own.
    region_name : str, optional
        The region of the server; boto3's by default.
    timeout : float
        The seconds for one request, including the transfer of all of its bytes.
    retries : int
        The number of times that a request is repeated after a failure that may pass, with
        growing pauses of at most 5 seconds. It is not used up for `timeout` seconds by answers
        that only ask for fewer requests, such as SlowDown.
    mode : {'a', 'r'}
        The access mode; 'r' refuses every change.
    """

    shared_between_processes = True

    def __init__(
        self,
        name: str,
        endpoint_url: str | None = None,
        verify: bool | str = True,
        profile_name: str = "default",
        bucket: str | None = None,
        region_name: str | None = None,
        timeout: float = 30.0,
        retries: int = 5,
        mode: str = "a",
    ) -> None:
        super().__init__(name, mode)
        self.settings = S3Options(
            endpoint_url, profile_name, region_name, verify, timeout, retries
        )
        if bucket is not None and bucket_name(bucket) != bucket:
            raise ConfigurationError(
                f"bucket name {bucket!r} is not valid by AWS's rules; {bucket_name(bucket)!r} is"
            )
        if bucket is not None:
            try:
                check_name(name)
            except DatasetNameError as error:
                raise ConfigurationError(f"as the prefix of all keys: {error}") from None
        self.bucket = bucket
        self._known: dict[str, Conditions] = {}
        self.lease = 1.5 * timeout  # type: ignore[misc]

    @classmethod
    def split_url(cls, path: str, options: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
        if not path.startswith("//"):
            if "bucket" in options:
                return super().split_url(path, options)
            return "", path.strip("/"), options
        bucket, _, rest = path[2:].partition("/")
        place, name, options = super().split_url(rest, options)
        if options.get("bucket", bucket) != bucket:
            raise ConfigurationError(
                f"bucket {bucket!r} and the option bucket={options['bucket']} differ: leave one "
                "out"
            )
        if not place:
            raise ConfigurationError(
                f"names the bucket {bucket!r} alone: add the connection, s3://{bucket}/NAME, or "
                f"write s3:{bucket} for a dataset that is a bucket of its own"
            )
        return place, name, {**options, "bucket": bucket}

    @property
    def holds_trees(self) -> bool:
        return self.bucket is not None

    @property
    def creates_together(self) -> bool:
        return self.bucket is not None

    @property
    def location(self) -> str:
        return f"{self.settings.endpoint_url or 's3'}/{self.bucket or ''}/{self.name}"

    def open_store(self) -> Store:
        client = S3Client(self.settings)
        prefix = "" if self.bucket is None else self.name + "/"
        return S3Store(client, self.bucket, prefix, self._known, writable=self.mode == "a")

    @property
    def _s3(self) -> S3Store:
        store = self.raw_store
        assert isinstance(store, S3Store)
        return store

    def check_place(self) -> None:
        """Check by one request that the server answers and accepts the credentials."""
        client = self._s3.client
        try:
            if self.bucket is None:
                client.call("list_buckets")
            else:
                client.call("list_objects_v2", Bucket=self.bucket, MaxKeys=1)
            return
        except Failure as failure:
            found = failure
        if found.code == "AccessDenied" and self.bucket is None:
            return  # Many clients may use buckets but not list them.
        if found.code == "NoSuchBucket":
            raise ConnectionError(
                f"{client.endpoint} has no bucket {self.bucket!r}: create it first, or leave "
                "bucket= out to have a bucket for each dataset"
            )
        raise ConnectionError(f"cannot connect to {client.endpoint}: {found}")

    # -- a bucket for each dataset --------------------------------------------------------

    def root(self, name: str) -> str:
        return super().root(name) if self.bucket is not None else bucket_name(name)

    def describe(self, name: str, metadata: DatasetMetadata) -> DatasetMetadata:
        if self.bucket is not None:
            return metadata
        document = metadata.storage["zarr"]
        own = {**document.get("dosna", {}), "name": name}
        return metadata.replace(storage={"zarr": {**document, "dosna": own}})

    def metadata_in(self, name: str, found: Blob | None) -> DatasetMetadata:
        metadata = super().metadata_in(name, found)
        if self.bucket is None:
            bucket = bucket_name(name)
            owner = _owner(metadata, bucket)
            if owner != name:
                raise OtherNameError(
                    f"no dataset {name!r}: its bucket {bucket!r} belongs to dataset {owner!r}"
                )
        return metadata

    def has_dataset(self, name: str) -> bool:
        if self.bucket is not None:
            return super().has_dataset(name)
        try:
            self.read_metadata(name)
        except DatasetNotFoundError:
            return False
        except FormatError:
            return True  # Opening it tells what is wrong with it.
        return True

    def make_groups(self, name: str) -> None:
        if self.bucket is not None:
            super().make_groups(name)
            return
        self.check_writable()
        check_nesting(name, filter(self.has_dataset, parents(name)))
        # The names inside of this one have a common prefix, and so do their buckets.
        inside = [bucket_name(f"{name}/{letter * 63}") for letter in "ab"]
        check_nesting(name, self._names(os.path.commonprefix(inside)))  # noqa: RUF071
        self._make_bucket(bucket_name(name))

    def names_inside(self, name: str, below: list[str]) -> Iterator[str]:
        # Without `bucket`, `make_groups` has looked for them before it created the bucket.
        return iter(()) if self.bucket is None else super().names_inside(name, below)

    def create_array(self, name: str, metadata: DatasetMetadata) -> StoreDataset:
        for _ in range(_MOST_ATTEMPTS):
            try:
                return super().create_array(name, metadata)
            except DatasetExistsError:
                if self.bucket is None:
                    self._explain_other_name(name)
                raise
            except DatasetNotFoundError:
                continue  # Another client's deletion has removed the bucket again.
        raise StorageError(
            f"dataset {name!r} cannot be created: others deleted its bucket {_MOST_ATTEMPTS} times"
        )

    def _explain_other_name(self, name: str) -> None:
        try:
            self.read_metadata(name)
        except OtherNameError as error:
            raise DatasetExistsError(f"{error}; use another name") from None
        except (DatasetNotFoundError, FormatError):
            pass

    def _make_bucket(self, bucket: str) -> None:
        arguments: dict[str, Any] = {"Bucket": bucket}
        client = self._s3.client
        if self.settings.endpoint_url is None and client.region != "us-east-1":
            arguments["CreateBucketConfiguration"] = {"LocationConstraint": client.region}
        try:
            client.call("create_bucket", **arguments)
            return
        except Failure as failure:
            found = failure
        if found.code == "BucketAlreadyExists":
            raise DatasetExistsError(
                f"bucket {bucket!r} belongs to another account: use another name"
            )
        if found.code != "BucketAlreadyOwnedByYou":
            raise self._s3.error(found, f"making bucket {bucket!r}")

    def del_dataset(self, name: str, only: BackendDataset | None = None) -> None:
        if self.bucket is not None:
            super().del_dataset(name, only)
            return
        self.check_writable()
        try:
            self.read_metadata(name)
        except OtherNameError:
            raise
        except DatasetNotFoundError:
            pass  # The remains of an interrupted deletion have no name any more.
        super().del_dataset(name, only)
        self._delete_bucket(name)

    def _delete_bucket(self, name: str) -> None:
        bucket = bucket_name(name)
        for _ in range(_MOST_ATTEMPTS):
            try:
                self._s3.client.call("delete_bucket", Bucket=bucket)
                return
            except Failure as failure:
                found = failure
            if found.code == "NoSuchBucket":
                return
            if found.code != "BucketNotEmpty":
                break
            if self._keeps_versions(bucket) and not list(islice(self.object_keys(name), 1)):
                warnings.warn(
                    f"dataset {name!r} was deleted, and its bucket {bucket!r} stays: versioning "
                    "is switched on, so that it holds the older versions of what was deleted. "
                    "Delete these and then the bucket by your tool for S3, or create the "
                    "dataset again in it",
                    stacklevel=2,
                )
                return
            # The rest is of a write under way when the objects were listed, or a new dataset's.
            try:
                self._deletion(name).run(ABSENT)
            except VersionConflict:
                return
            except DatasetNotFoundError:
                continue  # The bucket is gone.
        raise self._s3.error(found, f"deleting bucket {bucket!r}")

    def _keeps_versions(self, bucket: str) -> bool:
        try:
            return bool(self._s3.client.call("get_bucket_versioning", Bucket=bucket).get("Status"))
        except Failure:
            return False  # The server has no versions, or this client may not ask.

    def dataset_names(self) -> list[str]:
        return super().dataset_names() if self.bucket is not None else sorted(self._names(""))

    def names_in(self, group: str) -> list[str]:
        if self.bucket is not None:
            return super().names_in(group)
        return BackendConnection.names_in(self, group)

    def _names(self, begin: str) -> list[str]:
        """Return the names of the datasets in buckets whose names begin with `begin`."""
        names: list[str] = []

        def look(bucket: str) -> None:
            try:
                found = self.store.get(self.document(bucket))
                metadata = super(S3Connection, self).metadata_in(bucket, found)
            except (DatasetNotFoundError, FormatError, StorageError):
                return  # The bucket is not a dataset, or may not be read.
            name = _owner(metadata, bucket)
            if bucket_name(name) == bucket:
                names.append(name)

        listed = self._s3.call("list_buckets")["Buckets"]
        self.store.for_each(look, [b["Name"] for b in listed if b["Name"].startswith(begin)])
        return names


def _owner(metadata: DatasetMetadata, bucket: str) -> str:
    """Return the name of a bucket's dataset.

    It is the bucket's own name if another program wrote the dataset.
    """
    name: str = metadata.storage["zarr"].get("dosna", {}).get("name", bucket)
    return name


BACKEND = Backend(
    name="s3",
    connection=S3Connection,
    description="objects of an S3 server: Amazon's, Ceph's, MinIO's and others",
    url="https://boto3.amazonaws.com",
)
